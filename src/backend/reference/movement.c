/* Copies, conversions and sums of views, a piece of a row at a time through double:
 * exact for every plain type, and for + and * of F32 the same as computing in F32. */
#include <string.h>

#include "backend/reference/reference.h"
#include "format/quant.h"

enum { PIECE = IST_REFERENCE_PIECE };

static char *row_address(ist_view v, int64_t row) {
  return (char *)v.p + row * v.stride * ist_dtype_get(v.dt)->bytes;
}

void ist_reference_load(double *out, const void *row, ist_dtype type, int64_t at, int64_t n) {
  const char *src = (const char *)row + ist_dtype_bytes(type, at);
  if (type == IST_F64) {
    memcpy(out, src, (size_t)n * sizeof *out);
    return;
  }
  float narrow[PIECE];
  ist_dequant_f32(narrow, src, type, n);
  for (int64_t i = 0; i < n; i++) out[i] = (double)narrow[i];
}

void ist_reference_store(void *row, ist_dtype type, int64_t at, int64_t n, const double *in) {
  switch (type) {
    case IST_F64: memcpy((double *)row + at, in, (size_t)n * sizeof *in); break;
    case IST_F32:
      for (int64_t i = 0; i < n; i++) ((float *)row)[at + i] = (float)in[i];
      break;
    case IST_F16:
      for (int64_t i = 0; i < n; i++) ((ist_f16 *)row)[at + i] = ist_f32_to_f16((float)in[i]);
      break;
    case IST_BF16:
      for (int64_t i = 0; i < n; i++) ((ist_bf16 *)row)[at + i] = ist_f32_to_bf16((float)in[i]);
      break;
    default: IST_ASSERT(!"a type that movement can write");
  }
}

static int64_t piece_at(ist_view v, int64_t at) {
  return v.cols - at < PIECE ? v.cols - at : PIECE;
}

/* dst's row = scale * row `src_row` of a stored tensor with dst.cols columns. */
static void dequant_row(ist_view dst, int64_t row, const void *src, ist_dtype type, int64_t src_row,
                        double scale) {
  const char *from = (const char *)src + src_row * ist_dtype_bytes(type, dst.cols);
  char *to = row_address(dst, row);
  double piece[PIECE];
  for (int64_t at = 0; at < dst.cols; at += PIECE) {
    int64_t n = piece_at(dst, at);
    ist_reference_load(piece, from, type, at, n);
    if (scale != 1.0) {
      for (int64_t i = 0; i < n; i++) piece[i] *= scale;
    }
    ist_reference_store(to, dst.dt, at, n, piece);
  }
}

void ist_reference_dequant(ist_ctx *ctx, ist_view dst, const void *src, ist_dtype src_type,
                           int64_t row0) {
  (void)ctx;
  for (int64_t r = 0; r < dst.rows; r++) dequant_row(dst, r, src, src_type, row0 + r, 1.0);
}

void ist_reference_gather_rows(ist_ctx *ctx, ist_view dst, const void *src, ist_dtype src_type,
                               const int32_t *ids, double scale) {
  (void)ctx;
  for (int64_t r = 0; r < dst.rows; r++) dequant_row(dst, r, src, src_type, ids[r], scale);
}

void ist_reference_zero(ist_ctx *ctx, ist_view dst) {
  (void)ctx;
  int64_t bytes = ist_dtype_bytes(dst.dt, dst.cols);
  for (int64_t r = 0; r < dst.rows; r++) memset(row_address(dst, r), 0, (size_t)bytes);
}

/* y = a + b, or a alone where b is absent. */
static void add_rows(ist_view y, ist_view a, ist_view b) {
  IST_ASSERT(a.rows == y.rows && a.cols == y.cols);
  IST_ASSERT(b.p == NULL || (b.rows == y.rows && b.cols == y.cols));
  double sum[PIECE], other[PIECE];
  for (int64_t r = 0; r < y.rows; r++) {
    for (int64_t at = 0; at < y.cols; at += PIECE) {
      int64_t n = piece_at(y, at);
      ist_reference_load(sum, row_address(a, r), a.dt, at, n);
      if (b.p != NULL) {
        ist_reference_load(other, row_address(b, r), b.dt, at, n);
        for (int64_t i = 0; i < n; i++) sum[i] += other[i];
      }
      ist_reference_store(row_address(y, r), y.dt, at, n, sum);
    }
  }
}

void ist_reference_copy(ist_ctx *ctx, ist_view dst, ist_view src) {
  (void)ctx;
  add_rows(dst, src, ist_view_none());
}

void ist_reference_scatter_rows(ist_ctx *ctx, ist_view dst, ist_view src, const int32_t *ids) {
  for (int64_t r = 0; r < src.rows; r++) {
    ist_reference_copy(ctx, ist_view_rows(dst, ids[r], 1), ist_view_rows(src, r, 1));
  }
}

void ist_reference_scatter_add_rows(ist_ctx *ctx, ist_view dst, ist_view src, const int32_t *ids) {
  (void)ctx;
  for (int64_t r = 0; r < src.rows; r++) {
    ist_view to = ist_view_rows(dst, ids[r], 1);
    add_rows(to, to, ist_view_rows(src, r, 1));
  }
}

void ist_reference_add(ist_ctx *ctx, ist_view y, ist_view a, ist_view b) {
  (void)ctx;
  add_rows(y, a, b);
}

void ist_reference_scale_rows(ist_ctx *ctx, ist_view y, double s, const float *row_scale) {
  (void)ctx;
  double piece[PIECE];
  for (int64_t r = 0; r < y.rows; r++) {
    double factor = row_scale != NULL ? s * (double)row_scale[r] : s;
    for (int64_t at = 0; at < y.cols; at += PIECE) {
      int64_t n = piece_at(y, at);
      ist_reference_load(piece, row_address(y, r), y.dt, at, n);
      for (int64_t i = 0; i < n; i++) piece[i] *= factor;
      ist_reference_store(row_address(y, r), y.dt, at, n, piece);
    }
  }
}
