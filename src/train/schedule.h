/* Learning-rate schedules. */
#ifndef IST_TRAIN_SCHEDULE_H
#define IST_TRAIN_SCHEDULE_H

#include <stdint.h>

typedef enum ist_lr_kind { IST_LR_LINEAR, IST_LR_COSINE, IST_LR_CONSTANT } ist_lr_kind;

int ist_lr_kind_from_name(const char *name); /* -1: unknown */

/* What the peak learning rate is multiplied by in step k = 0, 1, ... of n with w
 * warm-up steps: k / max(1, w) for k < w (the first is 0), then, as in transformers,
 * linear max(0, (n - k) / max(1, n - w)), cosine (1 + cos(pi q)) / 2 with
 * q = (k - w) / max(1, n - w), or constant 1. */
double ist_lr_factor(ist_lr_kind kind, int64_t k, int64_t w, int64_t n);

#endif
