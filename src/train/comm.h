/* The four places where other machines join a step. One process: nothing to do.
 * Each call replaces the local figure by that of all ranks; ranks draw from the
 * same counters and own sample j of a batch when j mod world is their rank. */
#ifndef IST_TRAIN_COMM_H
#define IST_TRAIN_COMM_H

#include <stdbool.h>
#include <stdint.h>

#include "base/dtype.h"

typedef struct ist_comm {
  int rank, world;
  void *user;
  /* 1: supervised tokens of the optimizer batch, summed before the first micro-batch. */
  void (*token_count)(struct ist_comm *c, int64_t *targets);
  /* 2: a candidate's probe loss as sum and count. */
  void (*probe_loss)(struct ist_comm *c, double *sum, int64_t *count);
  /* 3: one active layer's gradients, n elements, layers in ascending order. */
  void (*gradients)(struct ist_comm *c, void *grads, ist_dtype type, int64_t n);
  /* 4: whether the step counts: true only when it does everywhere. */
  void (*decide)(struct ist_comm *c, bool *finite);
} ist_comm;

/* A world of one. */
void ist_comm_single(ist_comm *c);

#endif
