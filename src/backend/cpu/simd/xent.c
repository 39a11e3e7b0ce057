/* Cross-entropy over tiles of the vocabulary; the formulas stand in src/ops/xent.c. */
#include "backend/cpu/simd/table.h"
#include "backend/cpu/simd/vmath.h"

/* Logits that are held between their maximum and their exponentials. */
#define PIECE 1024

INLINE double get(const ist_view *v, int64_t row, int64_t col) {
  int64_t at = row * v->stride + col;
  return v->dt == IST_F64 ? ((const double *)v->p)[at] : (double)((const float *)v->p)[at];
}
INLINE void set(const ist_view *v, int64_t row, int64_t col, double value) {
  int64_t at = row * v->stride + col;
  if (v->dt == IST_F64) {
    ((double *)v->p)[at] = value;
  } else {
    ((float *)v->p)[at] = (float)value;
  }
}

/* c tanh(x / c); c == 0: x. */
INLINE vf cap(vf x, float c) {
  return c != 0.0f ? c * vf_tanh(x / c) : x;
}

/* One logit, capped as the vectors are. */
INLINE float capped_at(const void *row, bool bf16, int64_t i, float c) {
  vf x = row_load(row, bf16, i, i + 1);
  return cap(x, c)[0];
}

/* Carries max and sum of exp(logit - max) over a row of the tile. A NaN reaches the
 * sum, whatever the maximum makes of it. */
INLINE void scan_row(double *max, double *sum, const void *row, int64_t n, float c, bool bf16) {
  float z[PIECE];
  for (int64_t at = 0; at < n; at += PIECE) {
    int64_t m = n - at < PIECE ? n - at : PIECE;
    vf top = vf_set(-INFINITY);
    for (int64_t i = 0; i < m; i += VL) {
      vf x = vf_keep(cap(row_load(row, bf16, at + i, at + m), c), m - i, vf_set(-INFINITY));
      vf_store(z + i, x);
      top = vf_max(top, x);
    }
    double most = (double)vf_max_lane(top);
    if (most > *max) {
      *sum *= exp(*max - most);
      *max = most;
    }
    /* All -INFINITY so far: any finite reference keeps the sum at 0. */
    float reference = *max == -INFINITY ? 0.0f : (float)*max;
    vf s = {0};
    for (int64_t i = 0; i < m; i += VL) s += vf_exp(vf_load(z + i) - reference);
    *sum += (double)vf_sum(s);
  }
}

KERNEL(xent_tile) {
  (void)thread;
  const ist_xent_args *a = arg;
  int64_t n = a->logits.cols;
  bool bf16 = is_bf16(&a->logits);
  float c = (float)a->softcap;
  for (int64_t r = begin; r < end; r++) {
    if (a->target[r] < 0) {
      if (!a->first) continue;
      set(&a->run, r, 0, 0.0);
      set(&a->run, r, 1, 1.0);
      set(&a->tgt, r, 0, 0.0);
      continue;
    }
    double max = a->first ? -INFINITY : get(&a->run, r, 0);
    double sum = a->first ? 0.0 : get(&a->run, r, 1);
    const void *row = row_of(&a->logits, r);
    if (bf16) {
      scan_row(&max, &sum, row, n, c, true);
    } else {
      scan_row(&max, &sum, row, n, c, false);
    }
    set(&a->run, r, 0, max);
    set(&a->run, r, 1, sum);
    int64_t target = a->target[r] - a->col0;
    bool here = target >= 0 && target < n;
    if (here || a->first) {
      set(&a->tgt, r, 0, here ? (double)capped_at(row, bf16, target, c) : 0.0);
    }
  }
}

/* BF16 may narrow in the memory of the row: what is written never lies behind what
 * is still to be read. */
INLINE void grad_row(void *d, const void *row, int64_t n, float max, float factor, float c,
                     bool d16, bool bf16) {
  for (int64_t i = 0; i < n; i += VL) {
    vf z = cap(row_load(row, bf16, i, n), c);
    vf g = vf_exp(z - max) * factor;
    if (c != 0.0f) g *= 1.0f - (z / c) * (z / c);
    row_store(d, d16, i, n, g);
  }
}

KERNEL(xent_grad) {
  (void)thread;
  const ist_xent_args *a = arg;
  int64_t n = a->logits.cols;
  bool bf16 = is_bf16(&a->logits), d16 = is_bf16(&a->dlogits);
  float c = (float)a->softcap;
  for (int64_t r = begin; r < end; r++) {
    const void *row = row_of(&a->logits, r);
    void *d = row_of(&a->dlogits, r);
    if (a->target[r] < 0) {
      memset(d, 0, (size_t)(n * (d16 ? 2 : 4)));
      continue;
    }
    double max = get(&a->run, r, 0), sum = get(&a->run, r, 1);
    int64_t target = a->target[r] - a->col0;
    bool here = target >= 0 && target < n;
    double z = here ? (double)capped_at(row, bf16, target, c) : 0.0;
    float factor = (float)(a->weight / sum);
    BY_TYPE(d16, bf16, grad_row, d, row, n, (float)max, factor, c);
    if (!here) continue;
    double t = c != 0.0f ? z / a->softcap : 0.0;
    float at_target = (float)(a->weight * (exp(z - max) / sum - 1.0) * (1.0 - t * t));
    row_store(d, d16, target, target + 1, vf_set(at_target));
  }
}
