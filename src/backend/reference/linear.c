/* A linear with its low-rank extension, for backends that have only products; and one over
 * a stored matrix, through double. */
#include "backend/reference/reference.h"

void ist_linear_fwd_composed(const ist_backend *be, ist_ctx *ctx, ist_view y, ist_view x,
                             ist_view w, ist_view bias, ist_view u, ist_view b) {
  be->matmul(ctx, y, x, false, w, true, 0);
  if (u.p != NULL) be->matmul(ctx, y, u, false, b, true, 1);
  for (int64_t r = 0; bias.p != NULL && r < y.rows; r++) {
    ist_view row = ist_view_rows(y, r, 1);
    be->add(ctx, row, row, bias);
  }
}

void ist_linear_bwd_composed(const ist_backend *be, ist_ctx *ctx, ist_view dx, bool acc,
                             ist_view du, ist_view dy, ist_view w, ist_view b) {
  if (dx.p != NULL) be->matmul(ctx, dx, dy, false, w, false, acc ? 1 : 0);
  if (du.p != NULL) be->matmul(ctx, du, dy, false, b, false, 0);
}

static const char *row_of(ist_view v, int64_t row) {
  return (const char *)v.p + row * v.stride * ist_dtype_get(v.dt)->bytes;
}

/* a . b, n elements of rows of any type. */
static double dot(const void *a, ist_dtype a_type, const void *b, ist_dtype b_type, int64_t n) {
  double x[IST_REFERENCE_PIECE], y[IST_REFERENCE_PIECE], sum = 0.0;
  for (int64_t at = 0; at < n; at += IST_REFERENCE_PIECE) {
    int64_t len = n - at < IST_REFERENCE_PIECE ? n - at : IST_REFERENCE_PIECE;
    ist_reference_load(x, a, a_type, at, len);
    ist_reference_load(y, b, b_type, at, len);
    for (int64_t i = 0; i < len; i++) sum += x[i] * y[i];
  }
  return sum;
}

void ist_reference_linear_stored(ist_ctx *ctx, const ist_stored_linear *l, int n,
                                 ist_stored_how how) {
  (void)ctx, (void)how; /* exact, whatever is allowed */
  for (int i = 0; i < n; i++, l++) {
    for (int64_t r = 0; r < l->y.cols; r++) {
      int64_t row = r / l->group * l->period + r % l->group;
      const char *w = (const char *)l->w + row * ist_dtype_bytes(l->type, l->x.cols);
      double bias = 0.0;
      if (l->bias.p != NULL) ist_reference_load(&bias, row_of(l->bias, 0), l->bias.dt, r, 1);
      for (int64_t j = 0; j < l->y.rows; j++) {
        double y = bias + dot(w, l->type, row_of(l->x, j), l->x.dt, l->x.cols);
        if (l->u.p != NULL) y += dot(row_of(l->b, r), l->b.dt, row_of(l->u, j), l->u.dt, l->u.cols);
        ist_reference_store((void *)(uintptr_t)row_of(l->y, j), l->y.dt, r, 1, &y);
      }
    }
  }
}
