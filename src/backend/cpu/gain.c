/* Slots of DoRA's gains and of biases of adapters. Vectors are F32. */
#include "backend/cpu/cpu.h"

static bool wide(ist_view v) {
  return v.p == NULL || v.dt == IST_F32;
}

/* Each takes one or two operations an element: they wait for memory. */
static void spread(ist_ctx *ctx, const char *name, ist_parallel_fn fn, ist_gain_args *args,
                   int64_t items, int64_t grain) {
  ist_view wide = args->a.p != NULL ? args->a : args->y;
  ist_cpu_timed timed =
      ist_cpu_begin(ctx, 2.0 * ist_cpu_elements(wide), CPU_BYTES(args->y, args->a, args->b));
  ist_parallel_for(items, grain, fn, args);
  ist_cpu_end(ctx, name, timed);
}

void ist_cpu_row_dot(ist_ctx *ctx, ist_view dst, ist_view a, ist_view b) {
  if (!CPU_SERVES(dst, a, b) || !wide(dst)) {
    ist_backend_reference()->row_dot(ctx, dst, a, b);
    return;
  }
  IST_ASSERT(dst.cols == a.rows && a.rows == b.rows && a.cols == b.cols);
  ist_gain_args args = {.y = dst, .a = a, .b = b};
  spread(ctx, "row_dot", ist_cpu_simd(ctx)->row_dot, &args, a.rows, ist_cpu_grain(a.cols));
}

void ist_cpu_gain_mix(ist_ctx *ctx, ist_view y, ist_view v, ist_view g, ist_view bias, double f,
                      const float *row_f) {
  if (!CPU_SERVES(y, v, g, bias) || !wide(g) || !wide(bias)) {
    ist_backend_reference()->gain_mix(ctx, y, v, g, bias, f, row_f);
    return;
  }
  IST_ASSERT(y.rows == v.rows && y.cols == v.cols && g.cols == y.cols);
  ist_gain_args args = {.y = y, .a = v, .g = g, .bias = bias, .s = f, .row_scale = row_f};
  spread(ctx, "gain_mix", ist_cpu_simd(ctx)->gain_mix, &args, y.rows, ist_cpu_grain(y.cols));
}

void ist_cpu_mul_cols(ist_ctx *ctx, ist_view y, ist_view x, ist_view g) {
  if (!CPU_SERVES(y, x, g) || !wide(g)) {
    ist_backend_reference()->mul_cols(ctx, y, x, g);
    return;
  }
  IST_ASSERT(y.rows == x.rows && y.cols == x.cols && g.cols == y.cols);
  ist_gain_args args = {.y = y, .a = x, .g = g};
  spread(ctx, "mul_cols", ist_cpu_simd(ctx)->mul_cols, &args, y.rows, ist_cpu_grain(y.cols));
}

static int64_t groups(int64_t cols) {
  return (cols + IST_NORM_COLS - 1) / IST_NORM_COLS;
}

void ist_cpu_col_dot(ist_ctx *ctx, ist_view dst, ist_view a, ist_view b, ist_view scale) {
  if (!CPU_SERVES(dst, a, b, scale) || !wide(dst) || !wide(scale)) {
    ist_backend_reference()->col_dot(ctx, dst, a, b, scale);
    return;
  }
  IST_ASSERT(a.rows == b.rows && a.cols == b.cols && dst.cols == a.cols);
  ist_gain_args args = {.y = dst, .a = a, .b = b, .g = scale};
  spread(ctx, "col_dot", ist_cpu_simd(ctx)->col_dot, &args, groups(a.cols), 1);
}

void ist_cpu_col_sum(ist_ctx *ctx, ist_view dst, ist_view x, double s) {
  if (!CPU_SERVES(dst, x) || !wide(dst)) {
    ist_backend_reference()->col_sum(ctx, dst, x, s);
    return;
  }
  IST_ASSERT(dst.cols == x.cols);
  ist_gain_args args = {.y = dst, .a = x, .s = s};
  spread(ctx, "col_sum", ist_cpu_simd(ctx)->col_dot, &args, groups(x.cols), 1);
}

void ist_cpu_add_bias(ist_ctx *ctx, ist_view y, ist_view bias, double s, const float *row_scale) {
  if (!CPU_SERVES(y, bias) || !wide(bias)) {
    ist_backend_reference()->add_bias(ctx, y, bias, s, row_scale);
    return;
  }
  IST_ASSERT(bias.cols == y.cols);
  ist_gain_args args = {.y = y, .bias = bias, .s = s, .row_scale = row_scale};
  spread(ctx, "add_bias", ist_cpu_simd(ctx)->add_bias, &args, y.rows, ist_cpu_grain(y.cols));
}
