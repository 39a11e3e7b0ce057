/* The order in which an epoch visits the samples. */
#include "data/data.h"

void ist_epoch_order(int64_t *out, int64_t n, uint64_t seed, int64_t epoch) {
  for (int64_t i = 0; i < n; i++) out[i] = i;
  ist_rng rng = ist_rng_stream(seed, IST_RNG_ORDER, (uint32_t)epoch, 0, 0);
  ist_rng_shuffle(&rng, out, n);
}
