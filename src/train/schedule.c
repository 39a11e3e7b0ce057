#include "train/schedule.h"

#include <math.h>
#include <string.h>

int ist_lr_kind_from_name(const char *name) {
  static const char *const names[] = {"linear", "cosine", "constant"};
  for (int i = 0; i < 3; i++) {
    if (strcmp(name, names[i]) == 0) return i;
  }
  return -1;
}

static double at_least_one(int64_t v) {
  return v > 1 ? (double)v : 1.0;
}

double ist_lr_factor(ist_lr_kind kind, int64_t k, int64_t w, int64_t n) {
  if (k < w) return (double)k / at_least_one(w);
  double left = n > k ? (double)(n - k) / at_least_one(n - w) : 0.0;
  switch (kind) {
    case IST_LR_LINEAR: return left;
    case IST_LR_COSINE: return 0.5 * (1.0 + cos(acos(-1.0) * (1.0 - left)));
    case IST_LR_CONSTANT: break;
  }
  return 1.0;
}
