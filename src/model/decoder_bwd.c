/* Backward of one layer, quoting forward (decoder.h) from the end. dres holds the
 * gradient of the layer's output and becomes that of its input. */
#include "model/decoder.h"

static ist_view use(ist_view v, const ist_pass *p) {
  return ist_view_rows(v, 0, p->micro->rows);
}

static ist_view dres_rows(const ist_decoder *d, const ist_pass *p) {
  return ist_view_rows(d->dres, p->micro->boundary_row, p->micro->rows);
}

/* A wide gradient in the compute type, as the matrix products want it. */
static ist_view narrow(ist_decoder *d, const ist_pass *p, ist_view scratch, ist_view wide) {
  if (wide.dt == d->compute) return wide;
  ist_view out = use(scratch, p);
  d->ctx->be->copy(d->ctx, out, wide);
  return out;
}

static ist_view low_rank(const ist_decoder *d, const ist_pass *p, const ist_work *w,
                         ist_site site) {
  return d->low ? use(d->low[w->low].u[site], p) : ist_view_none();
}

static void norm_again(ist_decoder *d, const ist_pass *p, const ist_work *w, ist_view x,
                       ist_view stat, int id) {
  d->ctx->be->norm_fwd(d->ctx, use(d->h, p), stat, x, ist_weights_norm(d->weights, w->layer, id),
                       ist_view_none(), d->config->norm, d->config->norm_eps);
}

static void norm_bwd(ist_decoder *d, const ist_pass *p, const ist_work *w, ist_view x,
                     ist_view stat, int id) {
  d->ctx->be->norm_bwd(d->ctx, dres_rows(d, p), true, ist_view_none(), ist_view_none(),
                       use(d->dwide, p), x, ist_weights_norm(d->weights, w->layer, id), stat,
                       d->config->norm);
}

/* x' = xmid + lin(a), a = act(g) * u, g and u = lin(n2(xmid)). The gradients of g
 * and u take g's and u's memory: the layer's values are not needed again. */
static void mlp_bwd(ist_decoder *d, const ist_pass *p, const ist_work *w, bool active) {
  const ist_backend *be = d->ctx->be;
  ist_attn_acts *s = &d->attn[w->attn];
  ist_view gate = use(d->mlp[w->mlp].gate, p), up = use(d->mlp[w->mlp].up, p);
  ist_view a = ist_view_none(), da = use(d->da, p), xmid = use(s->xmid, p),
           stat2 = use(s->stat2, p);
  if (active) {
    a = use(d->a, p);
    be->act_fwd(d->ctx, a, gate, up, d->config->act);
    if (w->recompute == IST_RECOMPUTE_LAYER) { /* the adapter's u alone, no product with W */
      ist_site_fwd(d, p, w->layer, IST_SITE_MLP_OUT, a, low_rank(d, p, w, IST_SITE_MLP_OUT),
                   &(ist_view){0});
    }
  }
  ist_view dy = narrow(d, p, d->dy, dres_rows(d, p));
  ist_site_bwd(d, p, w->layer, IST_SITE_MLP_OUT, da, &dy, a, low_rank(d, p, w, IST_SITE_MLP_OUT));
  be->act_bwd(d->ctx, gate, up, ist_view_none(), da, gate, up, d->config->act);
  if (active && w->recompute == IST_RECOMPUTE_NONE)
    norm_again(d, p, w, xmid, stat2, IST_T_FFN_NORM);
  ist_site_bwd(d, p, w->layer, IST_SITE_MLP_IN, use(d->dwide, p), (ist_view[]){gate, up},
               active ? use(d->h, p) : ist_view_none(), low_rank(d, p, w, IST_SITE_MLP_IN));
  norm_bwd(d, p, w, xmid, stat2, IST_T_FFN_NORM);
}

/* xmid = x + lin(o), o = attention(q, k, v), q, k, v = rotated lin(n1(x)). In the
 * lowest active layer nobody needs the gradient of x. */
static void attn_bwd(ist_decoder *d, const ist_pass *p, const ist_work *w, bool active) {
  const ist_backend *be = d->ctx->be;
  ist_attn_acts *s = &d->attn[w->attn];
  ist_view x = ist_decoder_boundary(d, p, w->in), stat1 = use(s->stat1, p), o = use(s->o, p);
  ist_view dout = use(d->dout, p), dq = use(d->dq, p), dk = use(d->dk, p), dv = use(d->dv, p);
  ist_view dy = narrow(d, p, d->dy, dres_rows(d, p));
  ist_site_bwd(d, p, w->layer, IST_SITE_ATTN_OUT, dout, &dy, o,
               low_rank(d, p, w, IST_SITE_ATTN_OUT));
  ist_kv kv = {use(s->k, p), use(s->v, p), dk, dv};
  ist_attn attn = ist_decoder_attn_args(d, p, &kv);
  be->attention_bwd(d->ctx, dq, dout, o, use(s->lse, p), use(s->q, p), &attn);
  int64_t n = p->micro->n, padding = p->micro->rows - n;
  if (padding > 0) {
    be->zero(d->ctx, ist_view_rows(dq, n, padding));
    be->zero(d->ctx, ist_view_rows(dk, n, padding));
    be->zero(d->ctx, ist_view_rows(dv, n, padding));
  }
  ist_decoder_rope(d, p, dq, true);
  ist_decoder_rope(d, p, dk, true);
  dk = narrow(d, p, d->dk_compute, dk);
  dv = narrow(d, p, d->dv_compute, dv);
  if (active) norm_again(d, p, w, x, stat1, IST_T_ATTN_NORM);
  bool last = w->layer == p->lowest;
  ist_site_bwd(d, p, w->layer, IST_SITE_ATTN_IN, last ? ist_view_none() : use(d->dwide, p),
               (ist_view[]){dq, dk, dv}, active ? use(d->h, p) : ist_view_none(),
               low_rank(d, p, w, IST_SITE_ATTN_IN));
  if (!last) norm_bwd(d, p, w, x, stat1, IST_T_ATTN_NORM);
}

void ist_decoder_layer_bwd(ist_decoder *d, const ist_pass *p, const ist_work *w) {
  bool active = p->active && p->active[w->layer];
  if (w->recompute == IST_RECOMPUTE_LAYER)
    ist_decoder_attn_fwd(d, p, w, ist_decoder_boundary(d, p, w->in));
  if (w->recompute != IST_RECOMPUTE_NONE) ist_decoder_mlp_inner_fwd(d, p, w);
  mlp_bwd(d, p, w, active);
  attn_bwd(d, p, w, active);
}
