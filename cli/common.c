/* common.c: what several commands share. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmd.h"
#include "text.h"

ist_status ist_cmd_open_model(ist_model **out, const ist_args *a, ist_error *err) {
  ist_model_options options;
  ist_model_options_init(&options);
  if (!strcmp(a->compute, "f32")) options.compute = IST_COMPUTE_F32;
  if (!strcmp(a->compute, "bf16")) options.compute = IST_COMPUTE_BF16;
  if (!strcmp(a->backend, "reference")) options.backend = IST_BACKEND_REFERENCE;
  ist_set_threads((int)a->threads);
  *out = NULL;
  ist_status s = ist_model_open(out, a->model_path, &options, err);
  if (!s && a->adapter) s = ist_model_set_adapter(*out, a->adapter, err);
  if (s) {
    ist_model_close(*out);
    *out = NULL;
  }
  return s;
}

char *ist_cmd_read_argument(const ist_args *a, size_t *len, ist_error *err) {
  if (!a->argument || !strcmp(a->argument, "-"))
    return ist_read_all(stdin, "standard input", len, err);
  char *text = strdup(a->argument);
  if (!text)
    ist_cli_fail(err, IST_ERR_NOMEM, "out of memory");
  else
    *len = strlen(text);
  return text;
}

/* What a signal handler may reach: it has no argument for it. */
static volatile sig_atomic_t caught;
static const char *notice_text;

static void on_signal(int signal_number) {
  caught = signal_number;
  signal(SIGINT, SIG_DFL);
  signal(SIGTERM, SIG_DFL);
  if (notice_text && write(STDERR_FILENO, notice_text, strlen(notice_text)) < 0) return;
}

static void set_handler(void (*handler)(int)) {
  struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, NULL);
  sigaction(SIGTERM, &action, NULL);
}

void ist_signals_catch(const char *notice) {
  caught = 0;
  notice_text = notice;
  set_handler(on_signal);
}

int ist_signals_caught(void) {
  return caught;
}

void ist_signals_release(void) {
  set_handler(SIG_DFL);
}
