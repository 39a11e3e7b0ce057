/* Normalisation of rows; the formulas stand in src/ops/norm.c. */
#include "backend/cpu/simd/table.h"

/* The weight that multiplies, VL columns of it; w absent: 1. */
INLINE vf weight(const ist_view *w, ist_norm_kind kind, int64_t i, int64_t n) {
  if (w->p == NULL) return vf_set(1.0f);
  vf x = row_load(w->p, is_bf16(w), i, n);
  return kind == IST_NORM_RMS1 ? x + 1.0f : x;
}

INLINE void fwd_rows(const ist_norm_args *a, int64_t begin, int64_t end, bool h16, bool x16) {
  int64_t n = a->x.cols;
  bool layer = a->kind == IST_NORM_LAYER;
  for (int64_t r = begin; r < end; r++) {
    const void *x = row_of(&a->x, r);
    void *h = row_of(&a->h, r);
    float mean = 0.0f;
    if (layer) {
      vf sum = {0};
      for (int64_t i = 0; i < n; i += VL) sum += row_load(x, x16, i, n);
      mean = vf_sum(sum) / (float)n;
    }
    vf square = {0};
    for (int64_t i = 0; i < n; i += VL) {
      vf d = vf_keep(row_load(x, x16, i, n) - mean, n - i, (vf){0});
      square += d * d;
    }
    float scale = (float)(1.0 / sqrt((double)vf_sum(square) / (double)n + a->eps));
    for (int64_t i = 0; i < n; i += VL) {
      vf y = (row_load(x, x16, i, n) - mean) * scale * weight(&a->w, a->kind, i, n);
      if (a->bias.p != NULL) y += row_load(a->bias.p, is_bf16(&a->bias), i, n);
      row_store(h, h16, i, n, y);
    }
    float *stat = row_of(&a->stat, r);
    if (layer) *stat++ = mean;
    *stat = scale;
  }
}

KERNEL(norm_fwd) {
  (void)thread;
  const ist_norm_args *a = arg;
  BY_TYPE(is_bf16(&a->h), is_bf16(&a->x), fwd_rows, a, begin, end);
}

INLINE void statistics(const ist_norm_args *a, int64_t row, float *mean, float *scale) {
  const float *stat = row_of(&a->stat, row);
  *mean = a->kind == IST_NORM_LAYER ? stat[0] : 0.0f;
  *scale = stat[a->kind == IST_NORM_LAYER ? 1 : 0];
}

/* dh may be F32 where x is not: residual gradients are kept wide. */
INLINE void bwd_rows(const ist_norm_args *a, int64_t begin, int64_t end, bool x16, bool dx16) {
  int64_t n = a->x.cols;
  bool dh16 = is_bf16(&a->h);
  for (int64_t r = begin; r < end; r++) {
    const void *x = row_of(&a->x, r), *dh = row_of(&a->h, r);
    void *dx = row_of(&a->dx, r);
    float mean, scale;
    statistics(a, r, &mean, &scale);
    vf sum_g = {0}, sum_gy = {0};
    for (int64_t i = 0; i < n; i += VL) {
      vf g = row_load(dh, dh16, i, n) * weight(&a->w, a->kind, i, n);
      sum_g += g;
      sum_gy += g * ((row_load(x, x16, i, n) - mean) * scale);
    }
    float mean_g = a->kind == IST_NORM_LAYER ? vf_sum(sum_g) / (float)n : 0.0f;
    float mean_gy = vf_sum(sum_gy) / (float)n;
    for (int64_t i = 0; i < n; i += VL) {
      vf g = row_load(dh, dh16, i, n) * weight(&a->w, a->kind, i, n);
      vf y = (row_load(x, x16, i, n) - mean) * scale;
      vf d = scale * (g - y * mean_gy - mean_g);
      row_store(dx, dx16, i, n, a->accumulate ? row_load(dx, dx16, i, n) + d : d);
    }
  }
}

KERNEL(norm_bwd) {
  (void)thread;
  const ist_norm_args *a = arg;
  BY_TYPE(is_bf16(&a->x), is_bf16(&a->dx), bwd_rows, a, begin, end);
}

KERNEL(norm_bwd_params) {
  (void)thread;
  const ist_norm_args *a = arg;
  for (int64_t at = begin * IST_NORM_COLS; at < end * IST_NORM_COLS; at += VL) {
    int64_t n = a->x.cols;
    if (at >= n) return;
    vf dw = {0}, dbias = {0};
    for (int64_t r = 0; r < a->x.rows; r++) {
      float mean, scale;
      statistics(a, r, &mean, &scale);
      vf dh = row_load(row_of(&a->h, r), is_bf16(&a->h), at, n);
      dw += dh * ((row_load(row_of(&a->x, r), is_bf16(&a->x), at, n) - mean) * scale);
      dbias += dh;
    }
    if (a->dw.p != NULL) {
      row_store(a->dw.p, is_bf16(&a->dw), at, n, row_load(a->dw.p, is_bf16(&a->dw), at, n) + dw);
    }
    if (a->dbias.p != NULL) {
      bool bf16 = is_bf16(&a->dbias);
      row_store(a->dbias.p, bf16, at, n, row_load(a->dbias.p, bf16, at, n) + dbias);
    }
  }
}
