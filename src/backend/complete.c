/* Fills a backend's empty slots: a linear from its own products, anything else from
 * the reference, so that a new backend can arrive one slot at a time. */
#include "backend/reference/reference.h"

static void linear_fwd(ist_ctx *ctx, ist_view y, ist_view x, ist_view w, ist_view bias, ist_view u,
                       ist_view b) {
  ist_linear_fwd_composed(ctx->be, ctx, y, x, w, bias, u, b);
}

static void linear_bwd(ist_ctx *ctx, ist_view dx, bool acc, ist_view du, ist_view dy, ist_view w,
                       ist_view b) {
  ist_linear_bwd_composed(ctx->be, ctx, dx, acc, du, dy, w, b);
}

void ist_backend_complete(ist_backend *b) {
  const ist_backend *r = ist_backend_reference();
  if (b->matmul != NULL && b->linear_fwd == NULL) b->linear_fwd = linear_fwd;
  if (b->matmul != NULL && b->linear_bwd == NULL) b->linear_bwd = linear_bwd;
#define FILL(slot) \
  if (b->slot == NULL) b->slot = r->slot
  FILL(name);
  FILL(open);
  FILL(close);
  FILL(dequant);
  FILL(gather_rows);
  FILL(scatter_rows);
  FILL(scatter_add_rows);
  FILL(zero);
  FILL(copy);
  FILL(add);
  FILL(scale_rows);
  FILL(row_dot);
  FILL(row_gain);
  FILL(gain_mix);
  FILL(mul_cols);
  FILL(col_dot);
  FILL(add_bias);
  FILL(col_sum);
  FILL(dot_acc);
  FILL(dropout);
  FILL(dropout_bwd_acc);
  FILL(matmul);
  FILL(linear_fwd);
  FILL(linear_bwd);
  FILL(linear_stored);
  FILL(norm_fwd);
  FILL(norm_bwd);
  FILL(rope);
  FILL(attention_fwd);
  FILL(attention_bwd);
  FILL(act_fwd);
  FILL(act_bwd);
  FILL(route_fwd);
  FILL(route_bwd);
  FILL(weigh_rows);
  FILL(add_rows);
  FILL(xent_tile);
  FILL(xent_grad);
  FILL(xent_loss);
  FILL(sumsq);
  FILL(adamw);
  FILL(matmul_scratch);
  FILL(attention_scratch);
  FILL(stored_scratch);
#undef FILL
}
