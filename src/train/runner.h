/* Runs samples through a decoder: packs them into micro-batches, builds the
 * schedule, executes it, and gives every sample its loss. Training, validation,
 * probes and evaluation all go through it. */
#ifndef IST_TRAIN_RUNNER_H
#define IST_TRAIN_RUNNER_H

#include "data/data.h"
#include "model/schedule.h"

/* Rows of the products are rounded up to this, so that few shapes occur. */
#define IST_ROW_BUCKET 32

typedef struct ist_runner {
  ist_decoder decoder;
  int64_t micro_tokens; /* most tokens of a micro-batch */
  ist_order order;
  /* the packed samples: arrays of capacity cap_rows, segments of cap_segs */
  int64_t cap_rows, cap_segs, cap_micro;
  int32_t *ids, *target, *position, *sample, *group;
  ist_attn_seg *seg;
  int64_t *seg_targets; /* supervised tokens by segment */
  ist_micro *micro;
  int64_t n_micro, n_seg, n_tokens, n_targets;
  double *row_loss; /* by supervised token, micro-batches in order */
  ist_schedule schedule;
} ist_runner;

/* What must fit: sums over the samples that are packed at once. */
typedef struct ist_runner_limits {
  int64_t tokens; /* tokens packed at once */
  int64_t segments;
  int64_t longest;
  bool layer_order; /* boundary rows of one micro-batch lie behind the other's */
} ist_runner_limits;

/* Bytes of the host arrays; ist_decoder_measure tells the rest. */
size_t ist_runner_bytes(const ist_runner_limits *lim, int64_t micro_tokens);
/* Most rows (tokens and padding) that packing `tokens` tokens can take. */
int64_t ist_runner_rows(const ist_runner_limits *lim, int64_t micro_tokens);
/* The decoder must be open already; micro_tokens >= longest. */
ist_status ist_runner_open(ist_runner *r, const ist_runner_limits *lim, int64_t micro_tokens,
                           ist_error *err);
void ist_runner_close(ist_runner *r); /* closes the decoder too */

/* Packs n samples of a dataset in order, `copies` times over (group = copy), into
 * micro-batches of at most micro_tokens tokens. Layer order: rows of one follow those of
 * the other in a boundary slot; where they do not fit, a micro-batch begins at row 0 again,
 * and with it another group of micro-batches. */
void ist_runner_pack(ist_runner *r, const ist_dataset *data, const int64_t *index, int64_t n,
                     int64_t copies);

/* Packs the samples index[from .. ) that fit one micro-batch, or one group in layer order;
 * returns the index behind them, n at the end. */
int64_t ist_runner_pack_next(ist_runner *r, const ist_dataset *data, const int64_t *index,
                             int64_t from, int64_t n);

/* Executes r->schedule over the packed samples; fills r->row_loss. */
void ist_runner_run(ist_runner *r, ist_pass *pass);
/* The forward pass and the losses of all packed samples, group by group. */
void ist_runner_forward(ist_runner *r, ist_pass *pass);

/* Sum of the losses of segment s (0 .. n_seg - 1, copies one after the other),
 * after a run. Walks from the start: ask for all with ist_runner_segment_losses. */
void ist_runner_segment_losses(const ist_runner *r, double *loss_sum);
/* Mean loss of each segment over its supervised tokens, 0 where it has none. */
void ist_runner_segment_means(const ist_runner *r, double *mean);
double ist_runner_loss_sum(const ist_runner *r);

/* Mean loss over the supervised tokens of samples index[0 .. n), without
 * gradients or dropout; factor (L) suppresses layers (NULL: none). sample_loss
 * (n, optional) gets each sample's mean loss. */
double ist_runner_eval(ist_runner *r, const ist_dataset *data, const int64_t *index, int64_t n,
                       const float *factor, double *sample_loss);

#endif
