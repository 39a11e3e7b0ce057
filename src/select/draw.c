/* Drawing k of n without replacement. */
#include <math.h>

#include "select/internal.h"

/* The index at `x` (0 <= x < sum) of the weights that are not in `taken`, which
 * is ascending. Rounding may carry x past the end: then the last one. */
static int32_t at_weight(const double *weight, int64_t n, const int32_t *taken, int64_t n_taken,
                         double x) {
  int32_t last = -1;
  for (int64_t i = 0, j = 0; i < n; i++) {
    if (j < n_taken && taken[j] == i) {
      j++;
      continue;
    }
    last = (int32_t)i;
    if (x < weight[i]) break;
    x -= weight[i];
  }
  return last;
}

void ist_draw_without_replacement(ist_rng *r, const double *weight, int64_t n, int64_t k,
                                  int32_t *out) {
  IST_ASSERT(k <= n);
  for (int64_t taken = 0; taken < k; taken++) {
    /* Summed anew, not diminished: a rest of tiny weights keeps its precision. */
    double sum = 0;
    for (int64_t i = 0, j = 0; i < n; i++) {
      if (j < taken && out[j] == i)
        j++;
      else
        sum += weight[i];
    }
    int32_t next = at_weight(weight, n, out, taken, ist_rng_uniform(r) * sum);
    int64_t at = taken;
    for (; at > 0 && out[at - 1] > next; at--) out[at] = out[at - 1];
    out[at] = next;
  }
}
