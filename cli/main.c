/* main.c: finds the command, runs it, reports what went wrong. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd.h"
#include "help.h"
#include "text.h"

static int (*const run_command[IST_N_COMMANDS])(ist_args *) = {
#define COMMAND(id, name, arguments, most, run, summary, detail, example) [IST_CMD_##id] = run,
#include "opts.def"
};

static void show_log(void *user, ist_log_level level, const char *message) {
  const ist_args *a = user;
  if (a->quiet || (level == IST_LOG_DEBUG && !a->verbose)) return;
  if (level == IST_LOG_WARN) {
    ist_warn("%s", message);
    return;
  }
  ist_live_clear();
  fflush(stdout);
  ist_put_text(stderr, message, 0);
  fputc('\n', stderr);
}

/* Results that could not be written are a failure, whatever was computed. */
static int flush_results(int code) {
  if (fflush(stdout) == 0 && !ferror(stdout)) return code;
  ist_error err = {.code = IST_ERR_IO};
  snprintf(err.message, sizeof err.message, "standard output: %s", strerror(errno));
  ist_report_error(&err);
  return code ? code : 1;
}

/* What stands in place of a command: help, version, manual page, completions.
 * Returns the exit status, or -1 when it is none of them. */
static int run_information(int argc, char **argv) {
  const char *what = argc > 1 ? argv[1] : "", *argument = argc > 2 ? argv[2] : NULL;
  ist_error err = {.code = IST_ERR_ARG};
  if (!strcmp(what, "version") || !strcmp(what, "--version")) {
    printf("ist %s\n", ist_version());
  } else if (!strcmp(what, "--man")) {
    ist_help_man(stdout);
  } else if (!strcmp(what, "--completions")) {
    if (argument && ist_help_completions(stdout, argument)) return 0;
    ist_cli_fail(&err, IST_ERR_ARG, "--completions: found \"%s\", expected one of bash, zsh",
                 argument ? argument : "");
    return ist_report_error(&err);
  } else if (!strcmp(what, "help") || !strcmp(what, "--help") || !strcmp(what, "-h")) {
    int command = argument ? ist_command_find(argument) : -1;
    if (command >= 0) {
      ist_help_command(stdout, command);
    } else if (!argument || !strcmp(argument, "help") || !strcmp(argument, "version")) {
      ist_help_overview(stdout);
    } else {
      ist_args a;
      ist_args_parse(&a, 2, (char *[]){argv[0], argv[2]}, &err);
      return ist_report_error(&err);
    }
  } else {
    return -1;
  }
  return 0;
}

int main(int argc, char **argv) {
  ist_signals_guard();
  int code = run_information(argc, argv);
  if (code >= 0) return flush_results(code);
  ist_args a;
  ist_error err = {0};
  if (argc < 2) {
    ist_help_overview(stderr);
    return 2;
  }
  if (ist_args_parse(&a, argc, argv, &err)) {
    code = ist_report_error(&err);
  } else if (a.help) {
    ist_help_command(stdout, a.command);
    code = 0;
  } else {
    ist_log_set(show_log, &a);
    code = run_command[a.command](&a);
    ist_log_set(NULL, NULL);
  }
  ist_args_free(&a);
  return flush_results(code);
}
