/* DoRA (Liu et al., 2024): W' = g (W + s B A) by row, g = m / n, n = |W + s B A|, n a
 * constant for the gradient. The base product is computed once:
 *     y = W x + (g - 1) W x + g s B A drop(x) + bias,
 * and W + s B A is never formed: with u = s A drop(x),
 *     n^2 = |W|^2 + 2 s diag(W A^T B^T) + s^2 diag(B A A^T B^T).
 * |W|^2 is kept for good, the other two until the layer has trained.
 *
 * Suppression by f goes from W to W': W + f (W' - W). The `paper` variant is the
 * official code's: g from |W + f s B A|, and f s B A in place of s B A.
 *
 * Backward: dm += sum over tokens of dy (W x + B u) / n; the rest is that of a linear
 * with dy g in place of dy. W x is computed again for dm, in active layers.
 *
 * PEFT's way with dropout (peft_dora) reads d = drop(x) in the gain's term as well, at the
 * price of a second product with W:
 *     y = W x + bias + (g - 1) W d + g B u,   dm += sum of dy (W d + B u) / n. */
#include <math.h>

#include "peft/low_rank.h"

static ist_status layout(ist_adapter_layout *out, const ist_adapter_config *c,
                         const ist_linear_sizes *s, ist_error *err) {
  IST_TRY(ist_low_rank_layout(out, c, s, err));
  for (int m = 0; m < IST_MOD_COUNT; m++) {
    if (out->module[m].rank)
      out->module[m].m = ist_low_rank_vector(out, s, (ist_module)m, s->out[m]);
  }
  return IST_OK;
}

/* ---- Norms of rows ------------------------------------------------------------- */

static void refresh_norms(ist_ctx *ctx, const ist_adapters *ad, const ist_linear_call *c) {
  const ist_adapter p = ist_adapter_of(ad, c->module, c->site->copy);
  int64_t out = c->w.rows, r = p.rank;
  if (!(*c->fresh & IST_NORM_BASE))
    ctx->be->row_dot(ctx, ist_view_rows(c->norms, 0, 1), c->w, c->w);
  *c->fresh |= IST_NORM_BASE;
  if (*c->fresh & IST_NORM_ADAPTER) return;
  ist_view b = ist_adapter_param(ad, c->site->layer, p.b, out, r);
  ist_view a = ist_adapter_param(ad, c->site->layer, p.a, r, c->w.cols);
  ist_view wa = ist_view_rows(c->product, 0, out), ba = ist_view_rows(c->product, out, out);
  ist_view aa = ist_view_rows(c->product, 2 * out, r);
  ctx->be->matmul(ctx, wa, c->w, false, c->a, true, 0);
  ctx->be->row_dot(ctx, ist_view_rows(c->norms, 1, 1), wa, b);
  ctx->be->matmul(ctx, aa, a, false, a, true, 0);
  ctx->be->matmul(ctx, ba, b, false, aa, false, 0);
  ctx->be->row_dot(ctx, ist_view_rows(c->norms, 2, 1), ba, b);
  *c->fresh |= IST_NORM_ADAPTER;
}

/* g = m / n, 1 / n and g - 1 into the rows of c->gain; s counts `factor` times. */
static ist_view gain(ist_ctx *ctx, const ist_adapters *ad, const ist_linear_call *c,
                     double factor) {
  const ist_adapter p = ist_adapter_of(ad, c->module, c->site->copy);
  ist_view m = ist_adapter_param(ad, c->site->layer, p.m, 1, c->w.rows);
  ctx->be->row_gain(ctx, c->gain, m, c->norms,
                    ist_adapter_scale(ad, c->site->layer, c->module, c->site->copy) * factor);
  return ist_view_rows(c->gain, 0, 1);
}

/* ---- The linear ------------------------------------------------------------------ */

/* y = g (W x + f s B A x): rows with one factor at a time, as the norm depends on it. */
static void paper_rows(ist_ctx *ctx, const ist_adapters *ad, const ist_linear_call *c, ist_view y) {
  for (int64_t from = 0, to; from < y.rows; from = to) {
    double f = c->site->row_factor ? (double)c->site->row_factor[from] : c->site->factor;
    for (to = from + 1;
         to < y.rows && (!c->site->row_factor || (double)c->site->row_factor[to] == f);)
      to++;
    ctx->be->gain_mix(ctx, ist_view_rows(y, from, to - from),
                      ist_view_rows(c->wide, from, to - from), gain(ctx, ad, c, f), c->bias, 1.0,
                      NULL);
  }
}

static ist_view gain_row(const ist_linear_call *c, int row) {
  return ist_view_rows(c->gain, row, 1);
}

static bool drops_both(const ist_adapters *ad, const ist_linear_call *c) {
  return ad->config.peft_dora && c->site->dropout;
}

/* Only in training, where nothing is suppressed. */
static void dropped_fwd(ist_ctx *ctx, const ist_adapters *ad, const ist_linear_call *c,
                        ist_view y) {
  const ist_backend *be = ctx->be;
  const ist_view none = ist_view_none();
  ist_view g = gain(ctx, ad, c, 1.0), d = ist_low_rank_input(ctx, c->site);
  be->linear_fwd(ctx, y, c->site->x, c->w, c->bias, none, none);
  be->linear_fwd(ctx, c->narrow, d, c->w, none, none, none);
  be->matmul(ctx, c->wide, c->u, false, c->b, true, 0);
  be->mul_cols(ctx, c->narrow, c->narrow, gain_row(c, 2));
  be->mul_cols(ctx, c->wide, c->wide, g);
  be->add(ctx, c->wide, c->wide, c->narrow);
  be->add(ctx, y, y, c->wide);
}

static void linear_fwd(ist_ctx *ctx, const ist_adapters *ad, const ist_linear_call *c, ist_view y) {
  refresh_norms(ctx, ad, c);
  if (drops_both(ad, c)) {
    dropped_fwd(ctx, ad, c, y);
    return;
  }
  ctx->be->linear_fwd(ctx, y, c->site->x, c->w, ist_view_none(), ist_view_none(), ist_view_none());
  ctx->be->matmul(ctx, c->wide, c->u, false, c->b, true, 0);
  if (ad->config.paper_dora) {
    paper_rows(ctx, ad, c, y);
  } else {
    ctx->be->gain_mix(ctx, y, c->wide, gain(ctx, ad, c, 1.0), c->bias, c->site->factor,
                      c->site->row_factor);
  }
}

/* dm from W x, or W d, computed again. */
static void magnitude_grad(ist_ctx *ctx, const ist_adapters *ad, const ist_linear_call *c,
                           ist_view dy) {
  const ist_backend *be = ctx->be;
  const ist_view none = ist_view_none();
  ist_view x = drops_both(ad, c) ? ist_low_rank_input(ctx, c->site) : c->site->x;
  const ist_adapter p = ist_adapter_of(ad, c->module, c->site->copy);
  ist_view dm = ist_adapter_grad(ad, c->site->layer, p.m, 1, dy.cols);
  be->linear_fwd(ctx, c->narrow, x, c->w, none, none, none);
  be->matmul(ctx, c->wide, c->u, false, c->b, true, 0);
  be->add(ctx, c->wide, c->wide, c->narrow);
  be->col_dot(ctx, dm, dy, c->wide, gain_row(c, 1));
}

/* dx [+]= dy W + mask((g - 1) dy W). */
static void dropped_dx(ist_ctx *ctx, const ist_linear_call *c, ist_view dx, bool acc, ist_view dy) {
  const ist_backend *be = ctx->be;
  const ist_view none = ist_view_none();
  if (!dx.p) return;
  be->linear_bwd(ctx, dx, acc, none, dy, c->w, none);
  be->mul_cols(ctx, c->narrow, dy, gain_row(c, 2));
  be->linear_bwd(ctx, c->site->tmp, false, none, c->narrow, c->w, none);
  be->dropout_bwd_acc(ctx, dx, c->site->tmp, c->site->dropout);
}

static void linear_bwd(ist_ctx *ctx, const ist_adapters *ad, const ist_linear_call *c, ist_view dx,
                       bool acc, ist_view du, ist_view dy) {
  const ist_adapter p = ist_adapter_of(ad, c->module, c->site->copy);
  const ist_backend *be = ctx->be;
  ist_view g = gain(ctx, ad, c, 1.0), gdy = c->narrow;
  if (c->active) magnitude_grad(ctx, ad, c, dy);
  if (drops_both(ad, c)) {
    dropped_dx(ctx, c, dx, acc, dy);
    dx = ist_view_none();
  }
  be->mul_cols(ctx, gdy, dy, g);
  be->linear_bwd(ctx, dx, acc, du, gdy, c->w, c->b);
  if (!c->active) return;
  ist_view db = ist_adapter_grad(ad, c->site->layer, p.b, dy.cols, p.rank);
  be->matmul(ctx, db, gdy, true, c->u, false, 1);
}

/* Beside the low-rank products the norm's W A^T, which a layer pays once a step: not
 * counted by the token. PEFT's dropout computes every base product twice. */
static double base_flops(const ist_adapters *ad) {
  double flops = 0;
  for (int m = 0; m < IST_MOD_COUNT; m++) {
    if (ad->layout.module[m].rank)
      flops += 2.0 * ist_module_uses(&ad->sizes, (ist_module)m) * (double)ad->sizes.in[m] *
               (double)ad->sizes.out[m];
  }
  return flops;
}
static bool twice(const ist_adapters *ad) {
  return ad->config.peft_dora && ad->config.dropout > 0;
}
static double flops_fwd(const ist_adapters *ad) {
  return ist_low_rank_flops(ad) + (twice(ad) ? base_flops(ad) : 0);
}
static double flops_bwd(const ist_adapters *ad, bool active) {
  return ist_low_rank_flops_bwd(ad, active) + (active ? base_flops(ad) : 0) +
         (twice(ad) ? base_flops(ad) : 0);
}

const ist_peft_method ist_peft_dora = {
    .name = "dora",
    .layout = layout,
    .init = ist_low_rank_init,
    .fwd = ist_low_rank_fwd,
    .bwd = ist_low_rank_bwd,
    .linear_fwd = linear_fwd,
    .linear_bwd = linear_bwd,
    .by_alpha = true,
    .magnitude = true,
    .flops_fwd = flops_fwd,
    .flops_bwd = flops_bwd,
};
