/* What adapters need beside the products, a piece of a row at a time through double. */
#include <math.h>

#include "backend/reference/reference.h"
#include "base/parallel.h"

enum { PIECE = IST_REFERENCE_PIECE };

typedef struct args {
  ist_view y, a, b, g, bias;
  double f;
  const float *row_f;
} args;

static void *row(ist_view v, int64_t r) {
  return (char *)v.p + r * v.stride * ist_dtype_get(v.dt)->bytes;
}

static int64_t piece_at(ist_view v, int64_t at) {
  return v.cols - at < PIECE ? v.cols - at : PIECE;
}

static void row_dot(void *user, int64_t begin, int64_t end, int thread) {
  (void)thread;
  const args *p = user;
  double a[PIECE], b[PIECE];
  for (int64_t r = begin; r < end; r++) {
    double sum = 0;
    for (int64_t at = 0; at < p->a.cols; at += PIECE) {
      int64_t n = piece_at(p->a, at);
      ist_reference_load(a, row(p->a, r), p->a.dt, at, n);
      ist_reference_load(b, row(p->b, r), p->b.dt, at, n);
      for (int64_t i = 0; i < n; i++) sum += a[i] * b[i];
    }
    if (p->y.dt == IST_F64) {
      ((double *)p->y.p)[r] = sum;
    } else {
      ((float *)p->y.p)[r] = (float)sum;
    }
  }
}

void ist_reference_row_dot(ist_ctx *ctx, ist_view dst, ist_view a, ist_view b) {
  (void)ctx;
  IST_ASSERT(dst.cols == a.rows && a.rows == b.rows && a.cols == b.cols);
  args p = {.y = dst, .a = a, .b = b};
  ist_parallel_for(a.rows, 16, row_dot, &p);
}

void ist_reference_row_gain(ist_ctx *ctx, ist_view gain, ist_view m, ist_view norms, double s) {
  (void)ctx;
  double base[PIECE], wa[PIECE], ba[PIECE], num[PIECE];
  for (int64_t at = 0; at < m.cols; at += PIECE) {
    int64_t n = piece_at(m, at);
    ist_reference_load(base, row(norms, 0), norms.dt, at, n);
    ist_reference_load(wa, row(norms, 1), norms.dt, at, n);
    ist_reference_load(ba, row(norms, 2), norms.dt, at, n);
    ist_reference_load(num, row(m, 0), m.dt, at, n);
    for (int64_t i = 0; i < n; i++) {
      /* Rounded as the magnitude is, so that m = |W| gives a gain of exactly 1. */
      double norm = sqrt(fmax(base[i] + 2.0 * s * wa[i] + s * s * ba[i], 1e-30));
      if (m.dt != IST_F64) norm = (double)(float)norm;
      num[i] = num[i] / norm;
      base[i] = 1.0 / norm;
    }
    ist_reference_store(row(gain, 0), gain.dt, at, n, num);
    ist_reference_store(row(gain, 1), gain.dt, at, n, base);
    for (int64_t i = 0; i < n; i++) num[i] -= 1.0;
    ist_reference_store(row(gain, 2), gain.dt, at, n, num);
  }
}

static void gain_mix(void *user, int64_t begin, int64_t end, int thread) {
  (void)thread;
  const args *p = user;
  double y[PIECE], v[PIECE], g[PIECE], bias[PIECE];
  for (int64_t r = begin; r < end; r++) {
    double f = p->row_f ? p->f * (double)p->row_f[r] : p->f;
    for (int64_t at = 0; at < p->y.cols; at += PIECE) {
      int64_t n = piece_at(p->y, at);
      ist_reference_load(y, row(p->y, r), p->y.dt, at, n);
      ist_reference_load(v, row(p->b, r), p->b.dt, at, n);
      ist_reference_load(g, p->g.p, p->g.dt, at, n);
      if (p->bias.p) ist_reference_load(bias, p->bias.p, p->bias.dt, at, n);
      for (int64_t i = 0; i < n; i++) {
        y[i] = y[i] * (1.0 + f * (g[i] - 1.0)) + g[i] * v[i];
        if (p->bias.p) y[i] += bias[i];
      }
      ist_reference_store(row(p->y, r), p->y.dt, at, n, y);
    }
  }
}

void ist_reference_gain_mix(ist_ctx *ctx, ist_view y, ist_view v, ist_view g, ist_view bias,
                            double f, const float *row_f) {
  (void)ctx;
  IST_ASSERT(y.rows == v.rows && y.cols == v.cols && g.cols == y.cols);
  args p = {.y = y, .b = v, .g = g, .bias = bias, .f = f, .row_f = row_f};
  ist_parallel_for(y.rows, 8, gain_mix, &p);
}

static void mul_cols(void *user, int64_t begin, int64_t end, int thread) {
  (void)thread;
  const args *p = user;
  double x[PIECE], g[PIECE];
  for (int64_t r = begin; r < end; r++) {
    for (int64_t at = 0; at < p->y.cols; at += PIECE) {
      int64_t n = piece_at(p->y, at);
      ist_reference_load(x, row(p->a, r), p->a.dt, at, n);
      ist_reference_load(g, p->g.p, p->g.dt, at, n);
      for (int64_t i = 0; i < n; i++) x[i] *= g[i];
      ist_reference_store(row(p->y, r), p->y.dt, at, n, x);
    }
  }
}

void ist_reference_mul_cols(ist_ctx *ctx, ist_view y, ist_view x, ist_view g) {
  (void)ctx;
  IST_ASSERT(y.rows == x.rows && y.cols == x.cols && g.cols == y.cols);
  args p = {.y = y, .a = x, .g = g};
  ist_parallel_for(y.rows, 8, mul_cols, &p);
}

/* Pieces of columns, each over all rows in order; b absent: 1, g absent: f. */
static void col_dot(void *user, int64_t begin, int64_t end, int thread) {
  (void)thread;
  const args *p = user;
  double sum[PIECE], a[PIECE], b[PIECE];
  for (int64_t piece = begin; piece < end; piece++) {
    int64_t at = piece * PIECE, n = piece_at(p->a, at);
    for (int64_t i = 0; i < n; i++) sum[i] = 0;
    for (int64_t r = 0; r < p->a.rows; r++) {
      ist_reference_load(a, row(p->a, r), p->a.dt, at, n);
      if (p->b.p) ist_reference_load(b, row(p->b, r), p->b.dt, at, n);
      for (int64_t i = 0; i < n; i++) sum[i] += p->b.p ? a[i] * b[i] : a[i];
    }
    for (int64_t i = 0; i < n; i++) a[i] = p->f;
    if (p->g.p) ist_reference_load(a, p->g.p, p->g.dt, at, n);
    ist_reference_load(b, p->y.p, p->y.dt, at, n);
    for (int64_t i = 0; i < n; i++) b[i] += a[i] * sum[i];
    ist_reference_store(p->y.p, p->y.dt, at, n, b);
  }
}

void ist_reference_col_dot(ist_ctx *ctx, ist_view dst, ist_view a, ist_view b, ist_view scale) {
  (void)ctx;
  IST_ASSERT(a.rows == b.rows && a.cols == b.cols && dst.cols == a.cols);
  args p = {.y = dst, .a = a, .b = b, .g = scale};
  ist_parallel_for((a.cols + PIECE - 1) / PIECE, 1, col_dot, &p);
}

static void add_bias(void *user, int64_t begin, int64_t end, int thread) {
  (void)thread;
  const args *p = user;
  double y[PIECE], bias[PIECE];
  for (int64_t r = begin; r < end; r++) {
    double f = p->row_f ? p->f * (double)p->row_f[r] : p->f;
    for (int64_t at = 0; at < p->y.cols; at += PIECE) {
      int64_t n = piece_at(p->y, at);
      ist_reference_load(y, row(p->y, r), p->y.dt, at, n);
      ist_reference_load(bias, p->bias.p, p->bias.dt, at, n);
      for (int64_t i = 0; i < n; i++) y[i] += f * bias[i];
      ist_reference_store(row(p->y, r), p->y.dt, at, n, y);
    }
  }
}

void ist_reference_add_bias(ist_ctx *ctx, ist_view y, ist_view bias, double s,
                            const float *row_scale) {
  (void)ctx;
  IST_ASSERT(bias.cols == y.cols);
  args p = {.y = y, .bias = bias, .f = s, .row_f = row_scale};
  ist_parallel_for(y.rows, 8, add_bias, &p);
}

void ist_reference_col_sum(ist_ctx *ctx, ist_view dst, ist_view x, double s) {
  (void)ctx;
  IST_ASSERT(dst.cols == x.cols);
  args p = {.y = dst, .a = x, .f = s};
  ist_parallel_for((x.cols + PIECE - 1) / PIECE, 1, col_dot, &p);
}

void ist_reference_dot_acc(ist_ctx *ctx, ist_view dst, ist_view a, ist_view b) {
  (void)ctx;
  IST_ASSERT(dst.cols == 1 && a.rows == b.rows && a.cols == b.cols);
  double x[PIECE], y[PIECE], sum;
  ist_reference_load(&sum, dst.p, dst.dt, 0, 1);
  for (int64_t r = 0; r < a.rows; r++) {
    for (int64_t at = 0; at < a.cols; at += PIECE) {
      int64_t n = piece_at(a, at);
      ist_reference_load(x, row(a, r), a.dt, at, n);
      ist_reference_load(y, row(b, r), b.dt, at, n);
      for (int64_t i = 0; i < n; i++) sum += x[i] * y[i];
    }
  }
  ist_reference_store(dst.p, dst.dt, 0, 1, &sum);
}
