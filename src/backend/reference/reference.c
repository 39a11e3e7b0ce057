/* The reference backend: each call goes to the F32 or the F64 build of slots.c by
 * the type of a view that is never absent. */
#include "backend/reference/reference.h"

static const ist_backend *typed(ist_view v) {
  return v.dt == IST_F64 ? ist_reference_slots_f64() : ist_reference_slots();
}

static ist_status open_reference(ist_ctx *ctx, ist_error *err) {
  (void)err;
  ctx->backend_state = NULL;
  return IST_OK;
}

static void close_reference(ist_ctx *ctx) {
  ctx->backend_state = NULL;
}

static void dropout(ist_ctx *ctx, ist_view y, ist_view x, const ist_dropout *d) {
  typed(x)->dropout(ctx, y, x, d);
}

static void dropout_bwd_acc(ist_ctx *ctx, ist_view dx, ist_view dy, const ist_dropout *d) {
  typed(dy)->dropout_bwd_acc(ctx, dx, dy, d);
}

static void matmul(ist_ctx *ctx, ist_view c, ist_view a, bool ta, ist_view b, bool tb, int beta) {
  typed(c)->matmul(ctx, c, a, ta, b, tb, beta);
}

static void linear_fwd(ist_ctx *ctx, ist_view y, ist_view x, ist_view w, ist_view bias, ist_view u,
                       ist_view b) {
  ist_linear_fwd_composed(ist_backend_reference(), ctx, y, x, w, bias, u, b);
}

static void linear_bwd(ist_ctx *ctx, ist_view dx, bool acc, ist_view du, ist_view dy, ist_view w,
                       ist_view b) {
  ist_linear_bwd_composed(ist_backend_reference(), ctx, dx, acc, du, dy, w, b);
}

static void norm_fwd(ist_ctx *ctx, ist_view h, ist_view stat, ist_view x, ist_view w, ist_view bias,
                     ist_norm_kind kind, double eps) {
  typed(x)->norm_fwd(ctx, h, stat, x, w, bias, kind, eps);
}

static void norm_bwd(ist_ctx *ctx, ist_view dx, bool acc, ist_view dw, ist_view dbias, ist_view dh,
                     ist_view x, ist_view w, ist_view stat, ist_norm_kind kind) {
  typed(x)->norm_bwd(ctx, dx, acc, dw, dbias, dh, x, w, stat, kind);
}

static void rope(ist_ctx *ctx, ist_view x, const int32_t *position, const float *freq, int64_t rot,
                 int64_t E, bool interleaved, double mscale, bool inverse) {
  typed(x)->rope(ctx, x, position, freq, rot, E, interleaved, mscale, inverse);
}

static void attention_fwd(ist_ctx *ctx, ist_view o, ist_view lse, ist_view q, const ist_attn *a) {
  typed(q)->attention_fwd(ctx, o, lse, q, a);
}

static void attention_bwd(ist_ctx *ctx, ist_view dq, ist_view dout, ist_view o, ist_view lse,
                          ist_view q, const ist_attn *a) {
  typed(q)->attention_bwd(ctx, dq, dout, o, lse, q, a);
}

static void act_fwd(ist_ctx *ctx, ist_view y, ist_view g, ist_view u, ist_act_kind kind) {
  typed(g)->act_fwd(ctx, y, g, u, kind);
}

static void act_bwd(ist_ctx *ctx, ist_view dg, ist_view du, ist_view y, ist_view dy, ist_view g,
                    ist_view u, ist_act_kind kind) {
  typed(g)->act_bwd(ctx, dg, du, y, dy, g, u, kind);
}

static void xent_tile(ist_ctx *ctx, ist_view run, ist_view tgt, ist_view logits,
                      const int32_t *target, int64_t col0, double softcap, bool first) {
  typed(logits)->xent_tile(ctx, run, tgt, logits, target, col0, softcap, first);
}

static void xent_grad(ist_ctx *ctx, ist_view dlogits, ist_view logits, ist_view run,
                      const int32_t *target, int64_t col0, double softcap, double weight) {
  typed(logits)->xent_grad(ctx, dlogits, logits, run, target, col0, softcap, weight);
}

static void xent_loss(ist_ctx *ctx, double *row_loss, ist_view run, ist_view tgt) {
  typed(run)->xent_loss(ctx, row_loss, run, tgt);
}

static double sumsq(ist_ctx *ctx, ist_view g) {
  return typed(g)->sumsq(ctx, g);
}

static void adamw(ist_ctx *ctx, ist_view w, ist_view g, ist_view m, ist_view v,
                  const ist_adamw *o) {
  typed(w)->adamw(ctx, w, g, m, v, o);
}

/* Every kernel works in fixed tiles on the stack. */
static size_t no_matmul_scratch(int64_t m, int64_t n, int64_t k, ist_dtype dt) {
  (void)m, (void)n, (void)k, (void)dt;
  return 0;
}

static size_t no_attention_scratch(const ist_attn *a, int64_t n_rows, ist_dtype dt) {
  (void)a, (void)n_rows, (void)dt;
  return 0;
}

static size_t no_stored_scratch(int64_t n, int64_t k, int64_t r) {
  (void)n, (void)k, (void)r;
  return 0;
}

static const ist_backend reference = {
    .name = "reference",
    .open = open_reference,
    .close = close_reference,
    .dequant = ist_reference_dequant,
    .gather_rows = ist_reference_gather_rows,
    .scatter_rows = ist_reference_scatter_rows,
    .scatter_add_rows = ist_reference_scatter_add_rows,
    .zero = ist_reference_zero,
    .copy = ist_reference_copy,
    .add = ist_reference_add,
    .scale_rows = ist_reference_scale_rows,
    .row_dot = ist_reference_row_dot,
    .row_gain = ist_reference_row_gain,
    .gain_mix = ist_reference_gain_mix,
    .mul_cols = ist_reference_mul_cols,
    .col_dot = ist_reference_col_dot,
    .add_bias = ist_reference_add_bias,
    .col_sum = ist_reference_col_sum,
    .dot_acc = ist_reference_dot_acc,
    .dropout = dropout,
    .dropout_bwd_acc = dropout_bwd_acc,
    .matmul = matmul,
    .linear_fwd = linear_fwd,
    .linear_bwd = linear_bwd,
    .linear_stored = ist_reference_linear_stored,
    .norm_fwd = norm_fwd,
    .norm_bwd = norm_bwd,
    .rope = rope,
    .attention_fwd = attention_fwd,
    .attention_bwd = attention_bwd,
    .act_fwd = act_fwd,
    .act_bwd = act_bwd,
    .xent_tile = xent_tile,
    .xent_grad = xent_grad,
    .xent_loss = xent_loss,
    .route_fwd = ist_reference_route_fwd,
    .route_bwd = ist_reference_route_bwd,
    .weigh_rows = ist_reference_weigh_rows,
    .add_rows = ist_reference_add_rows,
    .sumsq = sumsq,
    .adamw = adamw,
    .matmul_scratch = no_matmul_scratch,
    .attention_scratch = no_attention_scratch,
    .stored_scratch = no_stored_scratch,
};

const ist_backend *ist_backend_reference(void) {
  return &reference;
}
