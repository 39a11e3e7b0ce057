/* The trainer: a step machine over runner, selector, optimizer and state. */
#ifndef IST_TRAIN_TRAINER_H
#define IST_TRAIN_TRAINER_H

#include "data/mix.h"
#include "model/model.h"
#include "train/checkpoint.h"
#include "train/comm.h"
#include "train/metrics.h"
#include "train/options.h"
#include "train/plan.h"
#include "train/saved_modules.h"
#include "train/schedule.h"
#include "train/spikes.h"
#include "train/state.h"

/* How far a run is: part of the state, so every field is an int64 or a double. */
typedef struct ist_progress {
  int64_t step;  /* finished optimizer steps */
  int64_t batch; /* batches drawn from the data, skipped steps included */
  int64_t skipped_in_row;
  int64_t skipped;       /* steps that changed nothing: not finite, or spikes that were skipped */
  int64_t bad_evals;     /* evaluations without improvement */
  int64_t best_step;     /* step of the best adapter; 0: none yet */
  int64_t metrics_bytes; /* size of metrics.jsonl at the checkpoint */
  double best_loss;
  double last_valid; /* newest validation loss; NaN before the first */
} ist_progress;

struct ist_trainer {
  ist_model *model; /* borrowed */
  ist_train_options options;
  ist_template tmpl;
  time_t now;               /* the date that the data show: of the run's start, not of a resume */
  ist_dataset data;         /* training file, and validation file behind it */
  ist_sources sources;      /* the training files and their weights */
  int64_t n_cut, n_dropped; /* training samples cut; records without a supervised token */
  ist_split split;
  uint64_t data_hash; /* of the training and the validation samples */
  ist_adapters adapters;
  int64_t n_layers;      /* layers with adapters, */
  int32_t *layer_of;     /* (n_layers) and which of the model's they are */
  int64_t active_layers; /* most layers a step trains */
  ist_run_plan plan;
  ist_runner runner;
  ist_arena params, grads, moments;
  unsigned char *m, *v;  /* (L, params) moments */
  int64_t *layer_steps;  /* (L) Adam's step count by layer */
  int64_t outer_steps;   /* Adam's step count of embedding and head */
  int64_t *last_trained; /* (L) the step behind the last in which the layer trained */
  ist_selector *selector;
  ist_selector_state scores;
  ist_comm comm;
  ist_state state;
  ist_metrics metrics; /* what the run computed: the same bytes on every run */
  ist_metrics timing;  /* how long it took and what it held */
  ist_progress progress;
  ist_spikes spikes;
  int64_t steps_per_epoch, total_steps, total_batches, warmup;
  double lr;       /* peak learning rate in force */
  int64_t n_epoch; /* samples an epoch visits */
  int64_t *round;  /* (n_train) what epochs are taken from */
  int64_t *order;  /* (n_epoch) training order of epoch order_epoch */
  int64_t order_epoch;
  int64_t *probe_order; /* probe order of pass probe_pass */
  int64_t probe_pass;
  uint8_t *active; /* (L) */
  float *factor;   /* (candidates, L) */
  /* (L) for reports: what the selector knows of each layer; 0 where there is no adapter. */
  double *importance, *suppressibility;
  int64_t *observed;
  double *segment_loss;           /* losses by segment of a probe */
  ist_saved_hashes saved_modules; /* of what the model carries whole */
  int lock;                       /* the output directory's; -1: none */
  bool resumed, stopped;          /* stopped: patience ran out */
  bool ended;                     /* ist_trainer_finish put the best parameters in place */
};

/* Parts, one file each. */
ist_status ist_trainer_load_data(ist_trainer *t, ist_error *err); /* trainer_data.c */
ist_status ist_trainer_reserve(ist_trainer *t, const json_t *saved_plan,
                               ist_error *err);                        /* trainer_open.c */
void ist_trainer_probe(ist_trainer *t, double *loss, int64_t *n_loss); /* probe.c */
/* Samples of batch number `batch`: a pointer into the epoch's order and a count. */
const int64_t *ist_trainer_batch(ist_trainer *t, int64_t batch, int64_t *n);
const int64_t *ist_trainer_probe_batch(ist_trainer *t, int64_t probe, int64_t *n);
/* Tokens of the largest pass when this run's batches are packed into passes of at
 * most `micro` tokens. For the plan (user: the trainer). */
int64_t ist_trainer_largest_pass(void *user, int64_t micro);
/* All steps are done, or patience ran out. */
bool ist_trainer_is_finished(const ist_trainer *t);
/* One line of metrics.jsonl: the step, with the probe's losses where one was made. */
ist_status ist_trainer_log_step(ist_trainer *t, const ist_step_report *r, const double *probe_loss,
                                int64_t n_probe, ist_error *err);
/* New reference: everything that a resumed run must find again; and whether it is there
 * (trainer_resume.c). */
json_t *ist_trainer_settings(const ist_trainer *t);
/* The moment that the run's templates show: the saved one, else (NULL: a fresh run; or the run is
 * older than the setting) the clock's. */
time_t ist_trainer_now(const json_t *saved);
ist_status ist_trainer_check_resume(const ist_trainer *t, const json_t *saved, ist_error *err);
/* The state of the checkpoint at `path`, its values checked. */
ist_status ist_trainer_load_state(ist_trainer *t, const char *path, ist_error *err);
/* A directory that holds a run or an adapter is not overwritten unasked (trainer_output.c). */
ist_status ist_trainer_check_output(const ist_trainer *t, ist_error *err);
/* Makes and locks the directory, opens the logs, writes the settings. */
ist_status ist_trainer_open_output(ist_trainer *t, ist_error *err);
/* DIR/NAME as indented JSON, atomically; takes over the reference `root` (NULL: out
 * of memory). */
ist_status ist_write_json(const char *dir, const char *name, json_t *root, ist_error *err);
/* Writes the current parameters as the best adapter, and reads them back. */
ist_status ist_trainer_keep_best(ist_trainer *t, ist_error *err);
ist_status ist_trainer_restore_best(ist_trainer *t, ist_error *err);

#endif
