/* Dropout whose mask is a function of (step, layer and site, sample, position,
 * channel), never of where a row lies in memory: recomputing, another number of
 * threads or another packing give the same mask. Layout: base/rng.h.
 *
 * A block of 8 channels takes the 8 halves of one counter's 4 words, low half
 * first. A channel whose half lies below the threshold is dropped; kept values are
 * multiplied by 65536 / (65536 - threshold). The gradient is the same mask. */
#include "ops/ops.h"

#define BLOCK 8

/* Factors of channels [8 * block, 8 * block + 8) of one row. */
static void mask_block(double factor[BLOCK], const ist_op_dropout *d, int64_t row, int64_t block) {
  uint32_t position = (uint32_t)d->position[row];
  uint32_t low = (uint32_t)block & 0xfffu, high = (uint32_t)block >> 12;
  const uint32_t counter[4] = {d->step, high << 24 | d->layer_site, (uint32_t)d->sample[row],
                               position << 12 | low};
  uint32_t word[4];
  ist_philox(word, counter, d->key);
  double keep = d->threshold < 65536 ? 65536.0 / (double)(65536 - d->threshold) : 0.0;
  for (int i = 0; i < BLOCK; i++) {
    uint32_t half = i % 2 == 0 ? word[i / 2] & 0xffffu : word[i / 2] >> 16;
    factor[i] = half < d->threshold ? 0.0 : keep;
  }
}

/* y = [y +] mask(x). */
static void apply_mask(real *y, int64_t ldy, bool acc, const real *x, int64_t ldx, int64_t N,
                       int64_t D, const ist_op_dropout *d) {
  for (int64_t i = 0; i < N; i++) {
    const real *xi = x + i * ldx;
    real *yi = y + i * ldy;
    for (int64_t j = 0; j < D; j += BLOCK) {
      double factor[BLOCK] = {1, 1, 1, 1, 1, 1, 1, 1};
      if (d->threshold > 0) mask_block(factor, d, i, j / BLOCK);
      for (int64_t c = 0; c < BLOCK && j + c < D; c++) {
        real masked = (real)((double)xi[j + c] * factor[c]);
        yi[j + c] = acc ? yi[j + c] + masked : masked;
      }
    }
  }
}

void ist_dropout_fwd(real *y, int64_t ldy, const real *x, int64_t ldx, int64_t N, int64_t D,
                     const ist_op_dropout *d) {
  apply_mask(y, ldy, false, x, ldx, N, D, d);
}

void ist_dropout_bwd_acc(real *dx, int64_t lddx, const real *dy, int64_t lddy, int64_t N, int64_t D,
                         const ist_op_dropout *d) {
  apply_mask(dx, lddx, true, dy, lddy, N, D, d);
}
