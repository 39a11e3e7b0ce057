/* The plan: what a run will hold in memory, arena by arena, and the schedule that
 * is the fastest of those that fit. Made before anything is reserved, from the
 * same declarations that the arenas assert. Saved with the run and used again on
 * resume, so that sums come out in the same order. */
#ifndef IST_TRAIN_PLAN_H
#define IST_TRAIN_PLAN_H

#include <jansson.h>

#include "model/schedule.h"
#include "train/runner.h"

#define IST_PLAN_TERMS 24

typedef struct ist_plan_term {
  const char *name;
  int64_t bytes;
} ist_plan_term;

typedef struct ist_run_plan {
  ist_decoder_sizes sizes;
  ist_order order;
  ist_recompute recompute;
  int64_t micro_tokens;
  bool moments_on_disk;     /* pages of frozen layers' moments leave memory */
  ist_runner_limits limits; /* of the runner: step, probe and evaluation */
  ist_plan_term term[IST_PLAN_TERMS];
  int n_terms;
  int64_t total;         /* expected peak: the sum of the terms */
  int64_t scratch_bytes; /* on disk */
  int64_t limit;         /* what it had to fit in */
  double cost;           /* estimated time of a step against the fastest schedule */
  char why[240];         /* why this one, for people */
} ist_run_plan;

/* What a plan is made from. */
typedef struct ist_plan_input {
  const ist_model_config *config;
  const ist_weights *weights;
  const ist_adapters *adapters; /* laid out; no memory needed yet */
  const ist_backend *backend;
  ist_dtype compute;
  int64_t active_layers; /* most layers that train in one step */
  int64_t depth_floor;   /* layers below are only reached with recompute; 0: none */
  double dropout;
  ist_runner_limits step, probe; /* samples of one optimizer step; of one probe */
  int64_t file_bytes;            /* of the model */
  int64_t resident_bytes;        /* what the process holds already */
  int64_t max_memory;            /* 0: what is free, less a margin */
  const char *scratch;           /* folder for scratch files; NULL: none may be made */
  int64_t disk_free;             /* bytes free there; 0: unknown */
  int64_t moment_layers;         /* layers whose moments are touched in this run; 0: all */
  /* Tokens of the largest pass that packing this run's batches into passes of at
   * most `micro` tokens gives; NULL: as many as the limits allow. */
  int64_t (*largest_pass)(void *user, int64_t micro);
  void *user;
  int64_t micro_tokens; /* 0: choose */
  int recompute;        /* ist_recompute, or -1: choose */
  int order;            /* ist_order, or -1: choose */
  bool repeat;          /* set by ist_plan_fix: the plan of the run to resume */
  ist_run_plan repeated;
} ist_plan_input;

/* What follows from the model, the options and the adapters' layout. Left to the caller:
 * step, probe, largest_pass and user, moment_layers, resident_bytes. Borrows all three. */
ist_plan_input ist_plan_input_of(const ist_model *m, const ist_train_options *o,
                                 const ist_adapters *ad, int64_t active_layers);
/* Where scratch files go: beside the run, or (no run: NULL) where the system keeps such. */
const char *ist_scratch_folder(const ist_train_options *o);

/* Chooses. Scratch files are planned only where the limit asks for them. A limit that cannot be met
 * is an error that names the smallest that can. */
ist_status ist_plan_make(ist_run_plan *out, const ist_plan_input *in, ist_error *err);

/* Names for settings and screens, and back (-1: unknown or "auto"). */
const char *ist_recompute_name(ist_recompute r);
const char *ist_order_name(ist_order o);
const char *ist_policy_name(ist_weight_policy p);
int ist_recompute_from_name(const char *name);
int ist_order_from_name(const char *name);

/* New reference: the terms, the schedule and its sizes. */
json_t *ist_plan_to_json(const ist_run_plan *p);
/* The choices of a saved plan, so that a resumed run repeats them. */
ist_status ist_plan_fix(ist_plan_input *in, const json_t *saved, ist_error *err);

/* Resident memory of the process now (without the pages of `file`, which are dropped,
 * and what the heap holds free); memory free on the machine, or in the control group
 * that the process is in; bytes free in the folder `dir` or, where it is not there yet,
 * in the one that will hold it. 0: unknown. */
int64_t ist_memory_resident(const void *file, size_t bytes);
int64_t ist_memory_free(void);
int64_t ist_disk_free(const char *dir);

#endif
