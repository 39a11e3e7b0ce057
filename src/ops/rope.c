/* Rotary positions: each pair (a, b) of a head turns by angle t = position * freq:
 *   (a, b) -> m (a cos t - b sin t, a sin t + b cos t).
 * The map is linear, so its gradient is the transpose: the same with -t. */
#include "ops/ops.h"

#include <math.h>

/* Turns pair j of every head of one row. */
static void turn_pair(real *x, int64_t heads, int64_t j, double c, double s, const ist_op_rope *r) {
  int64_t first = r->interleaved ? 2 * j : j;
  int64_t second = r->interleaved ? 2 * j + 1 : j + r->rot / 2;
  for (int64_t h = 0; h < heads; h++) {
    real *head = x + h * r->E;
    double a = (double)head[first], b = (double)head[second];
    head[first] = (real)(a * c - b * s);
    head[second] = (real)(a * s + b * c);
  }
}

void ist_rope_apply(real *x, int64_t ldx, const int32_t *position, int64_t N, int64_t heads,
                    const ist_op_rope *r, bool inverse) {
  for (int64_t i = 0; i < N; i++) {
    for (int64_t j = 0; j < r->rot / 2; j++) {
      double t = (double)position[i] * (double)r->freq[j];
      double s = r->mscale * sin(t);
      turn_pair(x + i * ldx, heads, j, r->mscale * cos(t), inverse ? -s : s, r);
    }
  }
}
