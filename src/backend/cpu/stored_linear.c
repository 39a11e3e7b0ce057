/* Linears of few rows over stored matrices: inputs prepared once, rows of all of them
 * spread over threads together. */
#include "backend/cpu/cpu.h"
#include "format/quant.h"

bool ist_stored_integers(ist_dtype type) {
  return ist_quant_has_groups(type);
}

static size_t float_bytes(int64_t n, int64_t k) {
  return ist_arena_round((size_t)(n * k) * sizeof(float));
}
static int64_t chunks_of(int64_t k) {
  return (k + IST_STORED_CHUNK - 1) / IST_STORED_CHUNK;
}
static size_t chunk_bytes(int64_t n, int64_t k) {
  return ist_arena_round((size_t)(n * chunks_of(k)) * sizeof(ist_stored_chunk));
}

size_t ist_cpu_stored_scratch(int64_t n, int64_t k, int64_t r) {
  /* Every linear may have a u of its own. */
  return float_bytes(n, k) + chunk_bytes(n, k) + IST_STORED_LINEARS * float_bytes(n, r);
}

/* A view's rows as floats, one after another. */
static const float *as_float(ist_ctx *ctx, ist_view v, int64_t *stride) {
  *stride = v.stride;
  if (v.dt == IST_F32) return v.p;
  ist_view to = {ist_arena_alloc(ctx->scratch, float_bytes(v.rows, v.cols)),
                 v.rows,
                 v.cols,
                 v.cols,
                 IST_F32,
                 0};
  ist_move_args args = {.y = to, .a = v};
  ist_cpu_simd(ctx)->copy(&args, 0, v.rows, 0);
  *stride = v.cols;
  return to.p;
}

static const ist_stored_chunk *as_bytes(ist_ctx *ctx, const ist_stored_operand *in, ist_view x) {
  ist_stored_chunk *to = ist_arena_alloc(ctx->scratch, chunk_bytes(x.rows, x.cols));
  for (int64_t r = 0; r < x.rows; r++)
    ist_cpu_simd(ctx)->stored_input(to + r * in->chunks, in->x + r * in->ldx, x.cols);
  return to;
}

/* The operands of every linear; they share x. */
static void prepare(ist_ctx *ctx, ist_stored_operand *in, const ist_stored_linear *l, int n,
                    ist_stored_how how) {
  ist_stored_operand shared = {.chunks = chunks_of(l[0].x.cols)};
  shared.x = as_float(ctx, l[0].x, &shared.ldx);
  const ist_stored_chunk *bytes = NULL; /* made when the first linear wants them */
  for (int i = 0; i < n; i++) {
    IST_ASSERT(l[i].x.p == l[0].x.p && l[i].x.cols == l[0].x.cols);
    in[i] = shared;
    if (l[i].u.p != NULL) in[i].u = as_float(ctx, l[i].u, &in[i].ldu);
    if (how != IST_STORED_INT8 || !ist_stored_integers(l[i].type)) continue;
    if (bytes == NULL) bytes = as_bytes(ctx, &shared, l[0].x);
    in[i].bytes = bytes;
  }
}

static double flops(const ist_stored_linear *l, int n) {
  double sum = 0.0;
  for (int i = 0; i < n; i++)
    sum += 2.0 * (double)(l[i].y.rows * l[i].y.cols) * (double)(l[i].x.cols + l[i].u.cols);
  return sum;
}

static double bytes(const ist_stored_linear *l, int n) {
  double sum = 0.0;
  for (int i = 0; i < n; i++)
    sum += CPU_BYTES(l[i].y, l[i].x, l[i].bias, l[i].u, l[i].b) +
           (double)ist_dtype_bytes(l[i].type, l[i].y.cols * l[i].x.cols);
  return sum;
}

void ist_cpu_linear_stored(ist_ctx *ctx, const ist_stored_linear *l, int n, ist_stored_how how) {
  bool serves = true;
  for (int i = 0; i < n; i++)
    serves = serves && CPU_SERVES(l[i].y, l[i].x, l[i].bias, l[i].u, l[i].b);
  if (!serves) {
    ist_backend_reference()->linear_stored(ctx, l, n, how);
    return;
  }
  ist_cpu_timed timed = ist_cpu_begin(ctx, flops(l, n), bytes(l, n));
  IST_ASSERT(n <= IST_STORED_LINEARS && l[0].x.rows <= IST_STORED_ROWS);
  size_t mark = ist_arena_mark(ctx->scratch);
  ist_stored_operand in[IST_STORED_LINEARS];
  prepare(ctx, in, l, n, how);
  int64_t rows = 0;
  for (int i = 0; i < n; i++) rows += l[i].y.cols;
  ist_stored_args args = {l, in, n};
  ist_parallel_for(rows, ist_cpu_grain(l[0].x.cols), ist_cpu_simd(ctx)->stored, &args);
  ist_arena_reset(ctx->scratch, mark);
  ist_cpu_end(ctx, "linear_stored", timed);
}
