/* common.c: what several commands share. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmd.h"
#include "text.h"

ist_model_options ist_cmd_model_options(const ist_args *a) {
  ist_model_options options;
  ist_model_options_init(&options);
  if (!strcmp(a->compute, "f32")) options.compute = IST_COMPUTE_F32;
  if (!strcmp(a->compute, "bf16")) options.compute = IST_COMPUTE_BF16;
  if (!strcmp(a->backend, "reference")) options.backend = IST_BACKEND_REFERENCE;
  options.base_type = a->base_type;
  options.base_cache = a->base_cache;
  return options;
}

ist_status ist_cmd_open_model(ist_model **out, const ist_args *a, ist_error *err) {
  ist_model_options options = ist_cmd_model_options(a);
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
static const int stopping[] = {SIGINT, SIGTERM, SIGHUP};
enum { N_STOPPING = sizeof stopping / sizeof *stopping };

/* Of the library and of the command: no temporary file is left. */
static void discard_temporaries(void) {
  ist_discard_unfinished();
  ist_outfile_discard();
}

/* Ends the process as the signal would, when this returns, but leaves no temporary file. */
static void on_last_signal(int signal_number) {
  discard_temporaries();
  signal(signal_number, SIG_DFL);
  raise(signal_number);
}

static void set_handler(void (*handler)(int)) {
  struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART}, old;
  sigemptyset(&action.sa_mask);
  for (int i = 0; i < N_STOPPING; i++) sigaddset(&action.sa_mask, stopping[i]);
  for (int i = 0; i < N_STOPPING; i++) {
    /* nohup stays nohup. */
    bool ignored = sigaction(stopping[i], NULL, &old) == 0 && old.sa_handler == SIG_IGN;
    if (stopping[i] != SIGHUP || !ignored) sigaction(stopping[i], &action, NULL);
  }
}

/* A second signal ends the process at once. While this runs the others wait, so that one that
 * came at the same time does so too. */
static void on_signal(int signal_number) {
  int number = errno;
  caught = signal_number;
  set_handler(on_last_signal);
  ssize_t written = notice_text ? write(STDERR_FILENO, notice_text, strlen(notice_text)) : 0;
  (void)written;  /* nobody could be told */
  errno = number; /* of the call that was interrupted */
}

void ist_signals_catch(const char *notice) {
  caught = 0;
  notice_text = notice;
  set_handler(on_signal);
}

void ist_signals_outlive_reader(void) {
  signal(SIGPIPE, SIG_IGN);
}

/* Only what a signal handler may do. */
static void on_bus_error(int signal_number, siginfo_t *info, void *context) {
  (void)signal_number, (void)context;
  const char *path = ist_lost_file(info->si_addr);
  const char *parts[] = {"error: '", path ? path : "a file",
                         "': cannot be read any more: truncated or lost while in use\n"};
  for (int i = 0; i < 3; i++) {
    if (write(STDERR_FILENO, parts[i], strlen(parts[i])) < 0) break;
  }
  discard_temporaries();
  _exit(1);
}

void ist_signals_guard(void) {
  struct sigaction action = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO};
  sigemptyset(&action.sa_mask);
  sigaction(SIGBUS, &action, NULL);
  signal(SIGXFSZ, SIG_IGN); /* write gives EFBIG, and its error takes the way of all others */
  set_handler(on_last_signal);
}

int ist_signals_caught(void) {
  return caught;
}

void ist_signals_release(void) {
  set_handler(on_last_signal);
}
