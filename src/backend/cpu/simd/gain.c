/* Gains of a weight's rows and biases of adapters: what DoRA and LoRA's bias need beside the
 * products. Sums go through double a piece at a time. */
#include "backend/cpu/simd/table.h"

enum { PIECE = 1024, ROWS = 64 };

INLINE void row_dot_rows(const ist_gain_args *p, int64_t begin, int64_t end, bool a16, bool b16) {
  int64_t n = p->a.cols;
  for (int64_t r = begin; r < end; r++) {
    const void *a = row_of(&p->a, r), *b = row_of(&p->b, r);
    double total = 0;
    for (int64_t at = 0; at < n; at += PIECE) {
      int64_t to = at + PIECE < n ? at + PIECE : n;
      vf sum = {0};
      for (int64_t i = at; i < to; i += VL)
        sum += row_load(a, a16, i, to) * row_load(b, b16, i, to);
      total += (double)vf_sum(sum);
    }
    ((float *)p->y.p)[r] = (float)total;
  }
}

KERNEL(row_dot) {
  (void)thread;
  const ist_gain_args *p = arg;
  BY_TYPE(is_bf16(&p->a), is_bf16(&p->b), row_dot_rows, p, begin, end);
}

/* The factor of a row. */
INLINE float factor_of(const ist_gain_args *p, int64_t r) {
  return (float)(p->row_scale != NULL ? p->s * (double)p->row_scale[r] : p->s);
}

INLINE void gain_mix_rows(const ist_gain_args *p, int64_t begin, int64_t end, bool y16, bool v16) {
  int64_t n = p->y.cols;
  for (int64_t r = begin; r < end; r++) {
    void *y = row_of(&p->y, r);
    const void *v = row_of(&p->a, r);
    vf f = vf_set(factor_of(p, r));
    for (int64_t i = 0; i < n; i += VL) {
      vf g = row_load(p->g.p, false, i, n), base = row_load(y, y16, i, n);
      vf sum = base * (1.0f + f * (g - 1.0f)) + g * row_load(v, v16, i, n);
      if (p->bias.p != NULL) sum += row_load(p->bias.p, false, i, n);
      row_store(y, y16, i, n, sum);
    }
  }
}

KERNEL(gain_mix) {
  (void)thread;
  const ist_gain_args *p = arg;
  BY_TYPE(is_bf16(&p->y), is_bf16(&p->a), gain_mix_rows, p, begin, end);
}

INLINE void mul_cols_rows(const ist_gain_args *p, int64_t begin, int64_t end, bool y16, bool x16) {
  int64_t n = p->y.cols;
  for (int64_t r = begin; r < end; r++) {
    void *y = row_of(&p->y, r);
    const void *x = row_of(&p->a, r);
    for (int64_t i = 0; i < n; i += VL)
      row_store(y, y16, i, n, row_load(x, x16, i, n) * row_load(p->g.p, false, i, n));
  }
}

KERNEL(mul_cols) {
  (void)thread;
  const ist_gain_args *p = arg;
  BY_TYPE(is_bf16(&p->y), is_bf16(&p->a), mul_cols_rows, p, begin, end);
}

KERNEL(add_bias) {
  (void)thread;
  const ist_gain_args *p = arg;
  bool y16 = is_bf16(&p->y);
  int64_t n = p->y.cols;
  for (int64_t r = begin; r < end; r++) {
    void *y = row_of(&p->y, r);
    vf f = vf_set(factor_of(p, r));
    for (int64_t i = 0; i < n; i += VL)
      row_store(y, y16, i, n, row_load(y, y16, i, n) + f * row_load(p->bias.p, false, i, n));
  }
}

/* Columns [at, at + VL) over all rows; b absent: 1. */
INLINE void col_dot_group(const ist_gain_args *p, int64_t at, bool a16, bool b16) {
  int64_t n = p->a.cols;
  double total[VL] = {0};
  for (int64_t from = 0; from < p->a.rows; from += ROWS) {
    int64_t to = from + ROWS < p->a.rows ? from + ROWS : p->a.rows;
    vf sum = {0};
    for (int64_t r = from; r < to; r++) {
      vf a = row_load(row_of(&p->a, r), a16, at, n);
      sum += p->b.p != NULL ? a * row_load(row_of(&p->b, r), b16, at, n) : a;
    }
    for (int i = 0; i < VL; i++) total[i] += (double)sum[i];
  }
  for (int64_t i = 0; i < VL && at + i < n; i++) {
    double scale = p->g.p != NULL ? (double)((float *)p->g.p)[at + i] : p->s;
    float *y = (float *)p->y.p + at + i;
    *y = (float)((double)*y + scale * total[i]);
  }
}

INLINE void col_dot_items(const ist_gain_args *p, int64_t begin, int64_t end, bool a16, bool b16) {
  int64_t last = end * IST_NORM_COLS < p->a.cols ? end * IST_NORM_COLS : p->a.cols;
  for (int64_t at = begin * IST_NORM_COLS; at < last; at += VL) col_dot_group(p, at, a16, b16);
}

KERNEL(col_dot) {
  (void)thread;
  const ist_gain_args *p = arg;
  BY_TYPE(is_bf16(&p->a), is_bf16(&p->b), col_dot_items, p, begin, end);
}
