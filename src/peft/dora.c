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
 * with dy g in place of dy. W x is computed again for dm, in active layers. */
#include <math.h>

#include "peft/low_rank.h"

static ist_status layout(ist_adapter_layout *out, const ist_adapter_config *c,
                         const ist_linear_sizes *s, ist_error *err) {
  IST_TRY(ist_low_rank_layout(out, c, s, err));
  for (int m = 0; m < IST_MOD_COUNT; m++) {
    if (!out->module[m].rank) continue;
    out->module[m].m = out->params;
    out->params += s->out[m];
  }
  return IST_OK;
}

static void fwd(ist_ctx *ctx, const ist_adapters *ad, const ist_site_call *call) {
  ist_low_rank_down(ctx, ad, call);
  ist_low_rank_scale(ctx, ad, call, call->u);
}

static void bwd(ist_ctx *ctx, const ist_adapters *ad, const ist_site_call *call, ist_view du,
                ist_view dx, ist_view tmp) {
  ist_low_rank_scale(ctx, ad, call, du);
  ist_low_rank_down_bwd(ctx, ad, call, du, dx, tmp);
}

/* ---- Norms of rows ------------------------------------------------------------- */

static void refresh_norms(ist_ctx *ctx, const ist_adapters *ad, const ist_linear_call *c) {
  const ist_adapter *p = &ad->layout.module[c->module];
  int64_t out = c->w.rows, r = p->rank;
  if (!(*c->fresh & IST_NORM_BASE))
    ctx->be->row_dot(ctx, ist_view_rows(c->norms, 0, 1), c->w, c->w);
  *c->fresh |= IST_NORM_BASE;
  if (*c->fresh & IST_NORM_ADAPTER) return;
  ist_view b = ist_adapter_param(ad, c->layer, p->b, out, r);
  ist_view a = ist_adapter_param(ad, c->layer, p->a, r, c->w.cols);
  ist_view wa = ist_view_rows(c->product, 0, out), ba = ist_view_rows(c->product, out, out);
  ist_view aa = ist_view_rows(c->product, 2 * out, r);
  ctx->be->matmul(ctx, wa, c->w, false, c->a, true, 0);
  ctx->be->row_dot(ctx, ist_view_rows(c->norms, 1, 1), wa, b);
  ctx->be->matmul(ctx, aa, a, false, a, true, 0);
  ctx->be->matmul(ctx, ba, b, false, aa, false, 0);
  ctx->be->row_dot(ctx, ist_view_rows(c->norms, 2, 1), ba, b);
  *c->fresh |= IST_NORM_ADAPTER;
}

/* g = m / n into the first row of c->gain, 1 / n into the second; s counts `factor` times. */
static ist_view gain(ist_ctx *ctx, const ist_adapters *ad, const ist_linear_call *c,
                     double factor) {
  const ist_adapter *p = &ad->layout.module[c->module];
  ist_view m = ist_adapter_param(ad, c->layer, p->m, 1, c->w.rows);
  ctx->be->row_gain(ctx, c->gain, m, c->norms, p->scale * factor);
  return ist_view_rows(c->gain, 0, 1);
}

/* ---- The linear ------------------------------------------------------------------ */

/* y = g (W x + f s B A x): rows with one factor at a time, as the norm depends on it. */
static void paper_rows(ist_ctx *ctx, const ist_adapters *ad, const ist_linear_call *c, ist_view y) {
  for (int64_t from = 0, to; from < y.rows; from = to) {
    double f = c->row_factor ? (double)c->row_factor[from] : c->factor;
    for (to = from + 1; to < y.rows && (!c->row_factor || (double)c->row_factor[to] == f);) to++;
    ctx->be->gain_mix(ctx, ist_view_rows(y, from, to - from),
                      ist_view_rows(c->wide, from, to - from), gain(ctx, ad, c, f), c->bias, 1.0,
                      NULL);
  }
}

static void linear_fwd(ist_ctx *ctx, const ist_adapters *ad, const ist_linear_call *c, ist_view y) {
  refresh_norms(ctx, ad, c);
  ctx->be->linear_fwd(ctx, y, c->x, c->w, ist_view_none(), ist_view_none(), ist_view_none());
  ctx->be->matmul(ctx, c->wide, c->u, false, c->b, true, 0);
  if (ad->config.paper_dora) {
    paper_rows(ctx, ad, c, y);
  } else {
    ctx->be->gain_mix(ctx, y, c->wide, gain(ctx, ad, c, 1.0), c->bias, c->factor, c->row_factor);
  }
}

static void linear_bwd(ist_ctx *ctx, const ist_adapters *ad, const ist_linear_call *c, ist_view dx,
                       bool acc, ist_view du, ist_view dy) {
  const ist_adapter *p = &ad->layout.module[c->module];
  ist_view g = gain(ctx, ad, c, 1.0), dwx = c->narrow;
  if (c->active) {
    ist_view dm = ist_adapter_grad(ad, c->layer, p->m, 1, dy.cols);
    ctx->be->linear_fwd(ctx, c->narrow, c->x, c->w, ist_view_none(), ist_view_none(),
                        ist_view_none());
    ctx->be->matmul(ctx, c->wide, c->u, false, c->b, true, 0);
    ctx->be->add(ctx, c->wide, c->wide, c->narrow);
    ctx->be->col_dot(ctx, dm, dy, c->wide, ist_view_rows(c->gain, 1, 1));
  }
  ctx->be->mul_cols(ctx, dwx, dy, g);
  ctx->be->linear_bwd(ctx, dx, acc, du, dwx, c->w, c->b);
  if (!c->active) return;
  ist_view db = ist_adapter_grad(ad, c->layer, p->b, dy.cols, p->rank);
  ctx->be->matmul(ctx, db, dwx, true, c->u, false, 1);
}

/* Beside the low-rank products the norm's W A^T, which a layer pays once a step: not
 * counted by the token. */
static double flops_bwd(const ist_adapters *ad, bool active) {
  double flops = ist_low_rank_flops_bwd(ad, active);
  for (int m = 0; active && m < IST_MOD_COUNT; m++) {
    if (ad->layout.module[m].rank)
      flops += 2.0 * (double)ad->sizes.in[m] * (double)ad->sizes.out[m];
  }
  return flops;
}

const ist_peft_method ist_peft_dora = {
    .name = "dora",
    .layout = layout,
    .init = ist_low_rank_init,
    .fwd = fwd,
    .bwd = bwd,
    .linear_fwd = linear_fwd,
    .linear_bwd = linear_bwd,
    .magnitude = true,
    .flops_fwd = ist_low_rank_flops,
    .flops_bwd = flops_bwd,
};
