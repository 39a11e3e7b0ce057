/* The optimizer's arithmetic; the formulas stand in src/ops/adamw.c. */
#include "backend/cpu/simd/table.h"

/* step = lr / (1 - beta1^t), root = 1 / sqrt(1 - beta2^t), decay = 1 - lr wd. */
KERNEL(adamw) {
  (void)thread;
  const ist_adamw_args *a = arg;
  int64_t n = end * IST_PIECE < a->n ? end * IST_PIECE : a->n;
  float b1 = (float)a->beta1, b2 = (float)a->beta2;
  float c1 = (float)(1.0 - a->beta1), c2 = (float)(1.0 - a->beta2);
  float scale = (float)a->grad_scale, step = (float)a->step, decay = (float)a->decay;
  float root = (float)a->root, eps = (float)a->eps;
  for (int64_t i = begin * IST_PIECE; i < n; i += VL) {
    vf g = row_load(a->g, false, i, n) * scale;
    vf m = b1 * row_load(a->m, false, i, n) + c1 * g;
    vf v = b2 * row_load(a->v, false, i, n) + c2 * g * g;
    vf w = row_load(a->w, false, i, n) * decay;
    row_store(a->w, false, i, n, w - step * m / (vf_sqrt(v) * root + eps));
    row_store(a->m, false, i, n, m);
    row_store(a->v, false, i, n, v);
  }
}

/* Squares in double, in eight interleaved sums. */
static double sumsq_f32(const float *g, int64_t n) {
  double s[8] = {0};
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    for (int l = 0; l < 8; l++) s[l] += (double)g[i + l] * (double)g[i + l];
  }
  for (; i < n; i++) s[0] += (double)g[i] * (double)g[i];
  return ((s[0] + s[4]) + (s[1] + s[5])) + ((s[2] + s[6]) + (s[3] + s[7]));
}

KERNEL(sumsq) {
  (void)thread;
  const ist_sumsq_args *a = arg;
  for (int64_t item = begin; item < end; item++) {
    int64_t at = item * a->per * IST_PIECE, last = at + a->per * IST_PIECE;
    if (last > a->n) last = a->n;
    double sum = 0.0;
    for (; at < last; at += IST_PIECE) {
      int64_t n = last - at < IST_PIECE ? last - at : IST_PIECE;
      if (!a->bf16) {
        sum += sumsq_f32((const float *)a->g + at, n);
        continue;
      }
      float wide[IST_PIECE];
      for (int64_t i = 0; i < n; i += VL) {
        row_store(wide, false, i, n, row_load((const ist_bf16 *)a->g + at, true, i, n));
      }
      sum += sumsq_f32(wide, n);
    }
    a->partial[item] = sum;
  }
}
