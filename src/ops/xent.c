/* Cross-entropy over a vocabulary that is seen a tile of columns at a time.
 *
 * With z = c tanh(l / c) (z = l without a cap) and the running M = max z,
 * S = sum exp(z - M):   loss = M + log S - z[target],
 *   d loss / d l = (exp(z - M) / S - [target]) (1 - tanh(l / c)^2). */
#include "ops/ops.h"

#include <math.h>

static double capped(double logit, double softcap) {
  return softcap != 0.0 ? softcap * tanh(logit / softcap) : logit;
}

void ist_xent_tile_row(double *max, double *sum, double *target_logit, const real *logits,
                       int64_t v, int64_t target, double softcap) {
  double tile_max = *max;
  for (int64_t j = 0; j < v; j++) {
    double z = capped((double)logits[j], softcap);
    if (z > tile_max) tile_max = z;
  }
  /* All -INFINITY so far: any finite reference keeps the sum at 0, not NaN. */
  double reference = tile_max == -INFINITY ? 0.0 : tile_max;
  double s = *sum * exp(*max - reference);
  for (int64_t j = 0; j < v; j++) s += exp(capped((double)logits[j], softcap) - reference);
  *max = tile_max;
  *sum = s;
  if (target >= 0 && target < v) *target_logit = capped((double)logits[target], softcap);
}

void ist_xent_grad_row(real *dlogits, const real *logits, int64_t v, double max, double sum,
                       int64_t target, double softcap, double weight) {
  for (int64_t j = 0; j < v; j++) {
    double z = capped((double)logits[j], softcap);
    double d = exp(z - max) / sum - (j == target ? 1.0 : 0.0);
    double t = softcap != 0.0 ? z / softcap : 0.0;
    dlogits[j] = (real)(weight * d * (1.0 - t * t));
  }
}
