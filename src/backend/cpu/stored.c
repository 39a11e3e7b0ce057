/* Rows out of stored (mostly quantised) tensors, and rows to chosen places. */
#include <string.h>

#include "backend/cpu/cpu.h"
#include "format/quant.h"

enum { PIECE = 1024 }; /* a multiple of every block */

typedef struct stored_args {
  ist_view dst;
  const char *src;
  ist_dtype type;
  int64_t row_bytes, row0;
  const int32_t *ids; /* NULL: rows from row0 on */
  double scale;
} stored_args;

static void *row_of(const ist_view *v, int64_t row) {
  return (char *)v->p + row * v->stride * ist_dtype_get(v->dt)->bytes;
}

/* One row times a factor: rounded to BF16 once, after it. */
static void scaled_row(const stored_args *s, void *to, const char *from) {
  float piece[PIECE];
  for (int64_t at = 0; at < s->dst.cols; at += PIECE) {
    int64_t n = s->dst.cols - at < PIECE ? s->dst.cols - at : PIECE;
    ist_dequant_f32(piece, from + ist_dtype_bytes(s->type, at), s->type, n);
    for (int64_t i = 0; i < n; i++) {
      float x = (float)((double)piece[i] * s->scale);
      if (s->dst.dt == IST_BF16) {
        ((ist_bf16 *)to)[at + i] = ist_f32_to_bf16(x);
      } else {
        ((float *)to)[at + i] = x;
      }
    }
  }
}

static void stored_rows(void *arg, int64_t begin, int64_t end, int thread) {
  (void)thread;
  const stored_args *s = arg;
  for (int64_t r = begin; r < end; r++) {
    const char *from = s->src + (s->ids != NULL ? s->ids[r] : s->row0 + r) * s->row_bytes;
    void *to = row_of(&s->dst, r);
    if (s->scale != 1.0) {
      scaled_row(s, to, from);
    } else if (s->type == s->dst.dt) {
      memcpy(to, from, (size_t)s->row_bytes);
    } else if (s->dst.dt == IST_BF16) {
      ist_dequant_bf16(to, from, s->type, s->dst.cols);
    } else {
      ist_dequant_f32(to, from, s->type, s->dst.cols);
    }
  }
}

void ist_cpu_dequant(ist_ctx *ctx, ist_view dst, const void *src, ist_dtype src_type,
                     int64_t row0) {
  if (!CPU_SERVES(dst)) {
    ist_backend_reference()->dequant(ctx, dst, src, src_type, row0);
    return;
  }
  ist_cpu_timed timed = ist_cpu_begin(
      ctx, 0.0, CPU_BYTES(dst) + (double)ist_dtype_bytes(src_type, dst.rows * dst.cols));
  stored_args args = {dst, src, src_type, ist_dtype_bytes(src_type, dst.cols), row0, NULL, 1.0};
  ist_parallel_for(dst.rows, ist_cpu_grain(dst.cols), stored_rows, &args);
  ist_cpu_end(ctx, "dequant", timed);
}

void ist_cpu_gather_rows(ist_ctx *ctx, ist_view dst, const void *src, ist_dtype src_type,
                         const int32_t *ids, double scale) {
  if (!CPU_SERVES(dst)) {
    ist_backend_reference()->gather_rows(ctx, dst, src, src_type, ids, scale);
    return;
  }
  ist_cpu_timed timed = ist_cpu_begin(
      ctx, 0.0, CPU_BYTES(dst) + (double)ist_dtype_bytes(src_type, dst.rows * dst.cols));
  stored_args args = {dst, src, src_type, ist_dtype_bytes(src_type, dst.cols), 0, ids, scale};
  ist_parallel_for(dst.rows, ist_cpu_grain(dst.cols), stored_rows, &args);
  ist_cpu_end(ctx, "gather_rows", timed);
}

void ist_cpu_scatter_rows(ist_ctx *ctx, ist_view dst, ist_view src, const int32_t *ids) {
  if (!CPU_SERVES(dst, src)) {
    ist_backend_reference()->scatter_rows(ctx, dst, src, ids);
    return;
  }
  ist_cpu_timed timed = ist_cpu_begin(ctx, 0.0, CPU_BYTES(src, src));
  for (int64_t r = 0; r < src.rows; r++) {
    ist_move_args args = {.y = ist_view_rows(dst, ids[r], 1), .a = ist_view_rows(src, r, 1)};
    ist_cpu_simd(ctx)->copy(&args, 0, 1, 0);
  }
  ist_cpu_end(ctx, "scatter_rows", timed);
}

static void zero_rows(void *arg, int64_t begin, int64_t end, int thread) {
  (void)thread;
  const ist_view *v = arg;
  for (int64_t r = begin; r < end; r++) {
    memset(row_of(v, r), 0, (size_t)ist_dtype_bytes(v->dt, v->cols));
  }
}

void ist_cpu_zero(ist_ctx *ctx, ist_view dst) {
  ist_cpu_timed timed = ist_cpu_begin(ctx, 0.0, CPU_BYTES(dst));
  ist_parallel_for(dst.rows, ist_cpu_grain(dst.cols), zero_rows, &dst);
  ist_cpu_end(ctx, "zero", timed);
}
