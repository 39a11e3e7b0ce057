/* cmd_generate.c: text from a prompt, written as it comes. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmd.h"
#include "text.h"

/* A terminal gets harmless text, a file or pipe exactly what the model wrote. */
static bool put_piece(void *user, const char *piece, size_t len) {
  const ist_term *t = user;
  if (t->terminal)
    ist_put_clean(t->to, piece, len, 0, true);
  else
    fwrite(piece, 1, len, t->to);
  return fflush(t->to) == 0 && !ist_signals_caught();
}

static void show_statistics(const ist_generate_result *r) {
  int64_t computed = r->prompt_tokens - r->kept_tokens;
  double prompt = r->prompt_seconds > 0 ? (double)computed / r->prompt_seconds : 0;
  double speed = r->seconds > 0 ? (double)r->new_tokens / r->seconds : 0;
  fprintf(stderr, "prompt: %lld tokens, ", (long long)r->prompt_tokens);
  if (r->kept_tokens) fprintf(stderr, "%lld of them kept, ", (long long)r->kept_tokens);
  fprintf(stderr, "%.0f tokens/s; text: %lld tokens, %.1f tokens/s; %s\n", prompt,
          (long long)r->new_tokens, speed,
          ist_signals_caught() ? "interrupted"
          : r->ended           ? "ended by the model"
                               : "cut at --max-new");
}

static ist_status one_answer(ist_model *m, ist_args *a, ist_term *t, ist_error *err) {
  ist_generate_result r;
  size_t len = 0;
  char *prompt = ist_cmd_read_argument(a, &len, err);
  if (!prompt) return err->code;
  ist_status s = strlen(prompt) == len
                     ? IST_OK
                     : ist_cli_fail(err, IST_ERR_ARG, "the prompt holds a NUL byte");
  if (!s) {
    ist_signals_catch(NULL);
    s = ist_generate(m, prompt, &a->generate, put_piece, t, &r, err);
    if (!s || t->tty) putchar('\n');
    fflush(stdout);
  }
  if (!s && !a->quiet) show_statistics(&r);
  free(prompt);
  return s;
}

/* ---- --chat ---- */

/* The next line that is not empty, without its end; its length, -1: the conversation ends. */
static ssize_t read_message(char **line, size_t *cap, bool asks) {
  for (;;) {
    if (asks) fputs("> ", stderr);
    ssize_t n = getline(line, cap, stdin);
    if (n < 0) break;
    while (n > 0 && ((*line)[n - 1] == '\n' || (*line)[n - 1] == '\r')) (*line)[--n] = 0;
    if (strcmp(*line, "/exit") == 0) return -1;
    if (n > 0) return n;
  }
  if (asks) fputc('\n', stderr);
  return -1;
}

/* Ctrl-C stops an answer, and while a message is awaited the command; other signals end it. */
static ist_status turn(ist_chat *c, const ist_args *a, const char *message, size_t len, ist_term *t,
                       ist_error *err) {
  ist_generate_result r;
  if (strlen(message) != len) return ist_cli_fail(err, IST_ERR_ARG, "the message holds a NUL byte");
  ist_signals_catch(NULL);
  ist_status s = ist_chat_say(c, message, put_piece, t, &r, err);
  if (s) return s;
  putchar('\n');
  if (fflush(stdout) != 0) return ist_cli_fail(err, IST_ERR_IO, "standard output: cannot write");
  if (r.left_out)
    fprintf(stderr,
            "note: the conversation is too long for --context, %lld of its oldest "
            "exchanges are left out from here on\n",
            (long long)r.left_out);
  if (!a->quiet) show_statistics(&r);
  return IST_OK;
}

static ist_status converse(ist_model *m, ist_args *a, ist_term *t, ist_error *err) {
  ist_chat *c = NULL;
  char *line = NULL;
  size_t cap = 0;
  ssize_t len;
  bool asks = isatty(STDIN_FILENO);
  if (a->argument)
    return ist_cli_fail(err, IST_ERR_ARG,
                        "--chat reads standard input, found the argument \"%.80s\"", a->argument);
  ist_status s = ist_chat_open(&c, m, &a->generate, a->context, err);
  while (!s && (len = read_message(&line, &cap, asks)) >= 0) {
    s = turn(c, a, line, (size_t)len, t, err);
    if (s == IST_ERR_ARG && asks) { /* a message too long: another may fit */
      ist_report_error(err);
      s = IST_OK;
    }
    if (ist_signals_caught() && ist_signals_caught() != SIGINT) break;
    ist_signals_release();
  }
  free(line);
  ist_chat_close(c);
  return s;
}

int ist_cmd_generate(ist_args *a) {
  ist_error err = {0};
  ist_model *m = NULL;
  ist_term t = ist_term_of(stdout);
  ist_status s = ist_cmd_open_model(&m, a, &err);
  if (!s) s = a->chat ? converse(m, a, &t, &err) : one_answer(m, a, &t, &err);
  ist_model_close(m);
  if (s) return ist_report_error(&err);
  int caught = ist_signals_caught();
  return caught && !(a->chat && caught == SIGINT) ? 128 + caught : 0;
}
