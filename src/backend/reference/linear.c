/* A linear with its low-rank extension, for backends that have only products. */
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
