/* cmd_train.c: a run is a loop over ist_trainer_step. */
#include <math.h>
#include <stdio.h>

#include "cmd.h"
#include "screen.h"
#include "text.h"

/* Trains until the last step or a signal; *last is the last step's report. */
static ist_status train(ist_trainer *t, ist_screen *screen, ist_step_report *last, ist_error *err) {
  ist_train_info run;
  ist_trainer_get_info(t, &run);
  bool finished = run.finished;
  while (!finished && !ist_signals_caught()) {
    ist_status s = ist_trainer_step(t, last, err);
    if (s) return s;
    finished = last->finished;
    ist_screen_step(screen, last);
  }
  return IST_OK;
}

/* After a signal: what was learned so far becomes a checkpoint. */
static ist_status stop(ist_trainer *t, const ist_args *a, ist_error *err) {
  ist_train_info run;
  ist_live_clear();
  ist_status s = ist_trainer_save(t, err);
  if (s) return s;
  ist_trainer_get_info(t, &run);
  fprintf(stderr, "stopped after step %lld; the run is saved. Continue with: ist train --resume ",
          (long long)run.done_steps);
  ist_put_text(stderr, a->train.output, 0);
  fputc('\n', stderr);
  return IST_OK;
}

static ist_status validate(ist_trainer *t, ist_screen *screen, double *loss, ist_error *err) {
  ist_train_info run;
  ist_trainer_get_info(t, &run);
  *loss = NAN;
  if (!run.n_valid) return IST_OK;
  if (!screen->args->quiet) ist_screen_wait(screen, "measuring the validation loss ...");
  return ist_trainer_validate(t, loss, err);
}

/* Header, validation before, the steps, validation after, where it was written.
 * *signal_number is set where a signal stopped the run. */
static ist_status run(ist_trainer *t, const ist_model *m, const ist_args *a, int *signal_number,
                      ist_error *err) {
  ist_screen screen;
  ist_model_info model;
  ist_train_info info;
  ist_step_report last = {0};
  double before, after;
  ist_model_get_info(m, &model);
  ist_trainer_get_info(t, &info);
  ist_screen_open(&screen, stdout, a, &model, &info);
  if (!a->quiet) ist_screen_header(&screen);
  ist_status s = validate(t, &screen, &before, err);
  if (s) return s;
  if (!a->quiet && isfinite(before)) ist_screen_before(&screen, before);

  ist_signals_catch("\nstopping after this step; again to stop at once\n");
  s = train(t, &screen, &last, err);
  *signal_number = last.finished ? 0 : ist_signals_caught();
  if (!s && *signal_number) s = stop(t, a, err);
  if (s || *signal_number) return s;

  if (!a->quiet) ist_screen_wait(&screen, "writing the adapter ...");
  s = ist_trainer_finish(t, err);
  ist_signals_release();
  if (!s) s = validate(t, &screen, &after, err);
  if (!s) ist_screen_summary(&screen, before, after);
  return s;
}

int ist_cmd_train(ist_args *a) {
  ist_error err = {0};
  ist_model *m = NULL;
  ist_trainer *t = NULL;
  int signal_number = 0;
  ist_status s = IST_OK;
  ist_signals_outlive_reader();
  if (a->adapter && a->resume_dir)
    s = ist_cli_fail(
        &err, IST_ERR_ARG,
        "--adapter and --resume exclude each other: a run goes on with its own adapter");
  if (!s) s = ist_cmd_open_model(&m, a, &err);
  if (!s) s = ist_trainer_open(&t, m, &a->train, &err);
  if (!s) s = run(t, m, a, &signal_number, &err);
  ist_live_clear();
  ist_trainer_close(t);
  ist_model_close(m);
  if (s) return ist_report_error(&err);
  return signal_number ? 128 + signal_number : 0;
}
