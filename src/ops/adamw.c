/* The optimizer's arithmetic on one contiguous block of parameters.
 *
 * AdamW (Loshchilov & Hutter 2019), with g = grad_scale * gradient:
 *   w -= lr wd w
 *   m = b1 m + (1 - b1) g,   v = b2 v + (1 - b2) g^2
 *   w -= lr / (1 - b1^t)  m / (sqrt(v) / sqrt(1 - b2^t) + eps) */
#include "ops/ops.h"

#include <math.h>

void ist_adamw_step(real *w, const real *g, real *m, real *v, int64_t n, const ist_adamw *o) {
  double step = o->lr / (1.0 - pow(o->beta1, (double)o->t));
  double root = 1.0 / sqrt(1.0 - pow(o->beta2, (double)o->t));
  for (int64_t i = 0; i < n; i++) {
    double gi = o->grad_scale * (double)g[i];
    double mi = o->beta1 * (double)m[i] + (1.0 - o->beta1) * gi;
    double vi = o->beta2 * (double)v[i] + (1.0 - o->beta2) * gi * gi;
    double decayed = (double)w[i] - o->lr * o->weight_decay * (double)w[i];
    w[i] = (real)(decayed - step * mi / (sqrt(vi) * root + o->eps));
    m[i] = (real)mi;
    v[i] = (real)vi;
  }
}

/* Blocks bound the rounding error and let a threaded backend keep the same sums. */
#define SUMSQ_BLOCK 4096

double ist_sumsq(const real *g, int64_t n) {
  double total = 0.0;
  for (int64_t begin = 0; begin < n; begin += SUMSQ_BLOCK) {
    int64_t end = begin + SUMSQ_BLOCK < n ? begin + SUMSQ_BLOCK : n;
    double partial = 0.0;
    for (int64_t i = begin; i < end; i++) partial += (double)g[i] * (double)g[i];
    total += partial;
  }
  return total;
}
