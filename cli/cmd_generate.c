/* cmd_generate.c: text from a prompt, written as it comes. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd.h"
#include "text.h"

/* A terminal gets harmless text, a file or pipe exactly what the model wrote. */
static bool put_piece(void *user, const char *piece, size_t len) {
  const ist_term *t = user;
  if (t->tty)
    ist_put_clean(t->to, piece, len, 0, true);
  else
    fwrite(piece, 1, len, t->to);
  return fflush(t->to) == 0 && !ist_signals_caught();
}

static void show_statistics(const ist_generate_result *r) {
  double prompt = r->prompt_seconds > 0 ? (double)r->prompt_tokens / r->prompt_seconds : 0;
  double speed = r->seconds > 0 ? (double)r->new_tokens / r->seconds : 0;
  fprintf(stderr, "prompt: %lld tokens, %.0f tokens/s; text: %lld tokens, %.1f tokens/s; %s\n",
          (long long)r->prompt_tokens, prompt, (long long)r->new_tokens, speed,
          ist_signals_caught() ? "interrupted"
          : r->ended           ? "ended by the model"
                               : "cut at --max-new");
}

int ist_cmd_generate(ist_args *a) {
  ist_error err = {0};
  ist_model *m = NULL;
  ist_generate_result r;
  ist_term t = ist_term_of(stdout);
  size_t len = 0;
  char *prompt = NULL;
  ist_status s = ist_cmd_open_model(&m, a, &err);
  if (!s && !(prompt = ist_cmd_read_argument(a, &len, &err))) s = err.code;
  if (!s && strlen(prompt) != len)
    s = ist_cli_fail(&err, IST_ERR_ARG, "the prompt holds a NUL byte");
  if (!s) {
    ist_signals_catch(NULL);
    s = ist_generate(m, prompt, &a->generate, put_piece, &t, &r, &err);
    if (!s || t.tty) putchar('\n');
    fflush(stdout);
  }
  if (!s && !a->quiet) show_statistics(&r);
  free(prompt);
  ist_model_close(m);
  if (s) return ist_report_error(&err);
  return ist_signals_caught() ? 128 + ist_signals_caught() : 0;
}
