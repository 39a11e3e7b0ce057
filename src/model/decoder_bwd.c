/* Backward of one layer, quoting forward (decoder.h) from the end. dres holds the
 * gradient of the layer's output and becomes that of its input. */
#include "model/decoder.h"

static ist_view use(ist_view v, const ist_pass *p) {
  return v.p ? ist_view_rows(v, 0, p->micro->rows) : v;
}

/* Nobody below wants the gradient of the layer's input. */
static bool is_last(const ist_decoder *d, const ist_pass *p, const ist_work *w) {
  return w->layer == p->lowest && !ist_adapter_trains_embedding(d->adapters);
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

/* dx [+]= the gradient of a norm whose output's is dh. */
static void norm_bwd(ist_decoder *d, int64_t layer, int id, ist_view dx, bool acc, ist_view dh,
                     ist_view x, ist_view stat) {
  d->ctx->be->norm_bwd(d->ctx, dx, acc, ist_view_none(), ist_view_none(), dh, x,
                       ist_weights_vector(d->weights, layer, id), stat, d->config->norm);
}

/* The gradient of what attention or the MLP gave (behind it a norm over y, or over the
 * sum), in the compute type; dres becomes that of the sum. */
static ist_view branch_grad(ist_decoder *d, const ist_pass *p, int64_t layer, int id, ist_view y,
                            ist_view stat) {
  ist_view dres = dres_rows(d, p);
  if (d->config->block == IST_BLOCK_SANDWICH) {
    ist_view dy = use(d->dy, p);
    norm_bwd(d, layer, id, dy, false, dres, y, stat);
    return dy;
  }
  if (d->config->block == IST_BLOCK_POST) norm_bwd(d, layer, id, dres, false, dres, y, stat);
  return narrow(d, p, d->dy, dres);
}

/* dres += the gradient of the input of attention or MLP, whose linears' is in dwide. */
static void join_grad(ist_decoder *d, const ist_pass *p, int64_t layer, int id, ist_view x,
                      ist_view stat) {
  ist_view dres = dres_rows(d, p);
  if (d->config->block == IST_BLOCK_POST) {
    d->ctx->be->add(d->ctx, dres, dres, use(d->dwide, p));
  } else {
    norm_bwd(d, layer, id, dres, true, use(d->dwide, p), x, stat);
  }
}

/* x' = xmid + lin(a), a = act(g) * u, g and u = lin(n2(xmid)). The gradients of g
 * and u take g's and u's memory: the layer's values are not needed again. */
static void mlp_bwd(ist_decoder *d, const ist_pass *p, const ist_work *w, ist_view x, bool active) {
  const ist_backend *be = d->ctx->be;
  const ist_model_config *c = d->config;
  ist_attn_acts *s = &d->attn[w->attn];
  ist_mlp_acts *m = &d->mlp[w->mlp];
  ist_view gate = use(m->gate, p), up = use(m->up, p), both = use(m->both, p);
  ist_view a = ist_view_none(), none = a, stat2 = use(s->stat2, p);
  ist_view in = ist_block_parallel(c) ? x : use(s->xmid, p);
  ist_view g = gate.p ? gate : up, u = gate.p ? up : none;
  ist_view da = ist_decoder_fitted(d->da, p->micro->rows, g.cols, 0); /* experts may be wider */
  bool again = w->recompute == IST_RECOMPUTE_LAYER;
  bool kept = again && d->adapters && d->adapters->method->keeps_frozen;
  if (active || kept) {
    a = use(d->a, p);
    be->act_fwd(d->ctx, a, g, u, c->act);
    if (again) { /* the adapter's u alone, no product with W */
      ist_site_fwd(d, p, w->layer, IST_SITE_MLP_OUT, a, low_rank(d, p, w, IST_SITE_MLP_OUT),
                   &(ist_view){0});
    }
  }
  ist_view dy =
      branch_grad(d, p, w->layer, c->block == IST_BLOCK_POST ? IST_T_FFN_NORM : IST_T_POST_FFN_NORM,
                  use(s->y2, p), use(s->stat4, p));
  ist_site_bwd(d, p, w->layer, IST_SITE_MLP_OUT, da, &dy, a, low_rank(d, p, w, IST_SITE_MLP_OUT));
  be->act_bwd(d->ctx, g, u, none, da, g, u, c->act);
  if (active && w->recompute == IST_RECOMPUTE_NONE)
    ist_decoder_inner_norm(d, p, w->layer, in, stat2, ist_decoder_mlp_norm(c));
  bool last = ist_block_parallel(c) && is_last(d, p, w);
  ist_site_bwd(d, p, w->layer, IST_SITE_MLP_IN, last ? none : use(d->dwide, p),
               both.p ? (ist_view[]){none, none, both} : (ist_view[]){gate, up, none},
               active ? use(d->h, p) : none, low_rank(d, p, w, IST_SITE_MLP_IN));
  if (last) return;
  if (ist_block_parallel(c)) { /* attention still wants dres as it is */
    norm_bwd(d, w->layer, ist_decoder_mlp_norm(c), use(d->dside, p), false, use(d->dwide, p), in,
             stat2);
  } else {
    join_grad(d, p, w->layer, IST_T_FFN_NORM, in, stat2);
  }
}

/* The same of a mixture of experts. */
static void moe_bwd(ist_decoder *d, const ist_pass *p, const ist_work *w) {
  ist_attn_acts *s = &d->attn[w->attn];
  ist_view xmid = use(s->xmid, p), stat2 = use(s->stat2, p);
  ist_view dy = narrow(d, p, d->dy, dres_rows(d, p));
  ist_decoder_inner_norm(d, p, w->layer, xmid, stat2, IST_T_FFN_NORM);
  ist_decoder_moe_bwd(d, p, w->layer, dy);
  join_grad(d, p, w->layer, IST_T_FFN_NORM, xmid, stat2);
}

/* d head -> d raw head, in place. */
static void norm_heads_bwd(ist_decoder *d, int64_t layer, int id, ist_view dx, ist_view raw,
                           ist_view stat) {
  int64_t E = d->config->E, rows = dx.rows * (dx.cols / E);
  IST_ASSERT(dx.stride == dx.cols && raw.stride == raw.cols);
  ist_view dheads = ist_view_make(dx.p, dx.dt, rows, E, E);
  norm_bwd(d, layer, id, dheads, false, dheads, ist_view_make(raw.p, raw.dt, rows, E, E),
           ist_view_rows(stat, 0, rows));
}

/* From the gradient of o to those of the outputs of q, k and v's linears. */
static void scores_bwd(ist_decoder *d, const ist_pass *p, const ist_work *w, ist_view *dq,
                       ist_view *dk, ist_view *dv) {
  const ist_backend *be = d->ctx->be;
  ist_attn_acts *s = &d->attn[w->attn];
  ist_kv kv[2] = {{use(s->k, p), use(s->v, p), *dk, *dv}};
  ist_attn attn = ist_decoder_attn_args(d, p, w->layer, kv);
  ist_decoder_add_prefix(d, p, w->layer, &attn, kv, true);
  be->attention_bwd(d->ctx, *dq, use(d->dout, p), use(s->o, p), use(s->lse, p), use(s->q, p),
                    &attn);
  int64_t n = p->micro->n, padding = p->micro->rows - n;
  if (padding > 0) {
    be->zero(d->ctx, ist_view_rows(*dq, n, padding));
    be->zero(d->ctx, ist_view_rows(*dk, n, padding));
    be->zero(d->ctx, ist_view_rows(*dv, n, padding));
  }
  ist_decoder_rope(d, p, w->layer, *dq, true);
  ist_decoder_rope(d, p, w->layer, *dk, true);
  if (d->config->qk_norm) {
    norm_heads_bwd(d, w->layer, IST_T_Q_NORM, *dq, use(s->q_raw, p), s->q_stat);
    norm_heads_bwd(d, w->layer, IST_T_K_NORM, *dk, use(s->k_raw, p), s->k_stat);
  }
  *dk = narrow(d, p, d->dk_compute, *dk);
  *dv = narrow(d, p, d->dv_compute, *dv);
}

/* xmid = x + lin(o), o = attention(q, k, v), q, k, v = rotated lin(n1(x)). In the
 * lowest active layer nobody needs the gradient of x. */
static void attn_bwd(ist_decoder *d, const ist_pass *p, const ist_work *w, ist_view x,
                     bool active) {
  const ist_model_config *c = d->config;
  ist_attn_acts *s = &d->attn[w->attn];
  ist_view stat1 = use(s->stat1, p), dout = use(d->dout, p), none = ist_view_none();
  ist_view dq = use(d->dq, p), dk = use(d->dk, p), dv = use(d->dv, p), dqkv = use(d->dqkv, p);
  ist_view dy = branch_grad(d, p, w->layer,
                            c->block == IST_BLOCK_POST ? IST_T_ATTN_NORM : IST_T_POST_ATTN_NORM,
                            use(s->y1, p), use(s->stat3, p));
  ist_site_bwd(d, p, w->layer, IST_SITE_ATTN_OUT, dout, &dy, use(s->o, p),
               low_rank(d, p, w, IST_SITE_ATTN_OUT));
  scores_bwd(d, p, w, &dq, &dk, &dv);
  if (active) ist_decoder_inner_norm(d, p, w->layer, x, stat1, IST_T_ATTN_NORM);
  bool last = is_last(d, p, w);
  ist_site_bwd(d, p, w->layer, IST_SITE_ATTN_IN, last ? none : use(d->dwide, p),
               dqkv.p ? (ist_view[]){none, none, none, dqkv} : (ist_view[]){dq, dk, dv, none},
               active ? use(d->h, p) : none, low_rank(d, p, w, IST_SITE_ATTN_IN));
  if (last) return;
  join_grad(d, p, w->layer, IST_T_ATTN_NORM, x, stat1);
  ist_view dres = dres_rows(d, p);
  if (ist_block_parallel(c)) d->ctx->be->add(d->ctx, dres, dres, use(d->dside, p));
}

void ist_decoder_layer_bwd(ist_decoder *d, const ist_pass *p, const ist_work *w) {
  bool active = p->active && p->active[w->layer], again = w->recompute == IST_RECOMPUTE_LAYER;
  ist_view x = ist_decoder_boundary(d, p, w->in);
  if (again) ist_decoder_attn_fwd(d, p, w, x);
  bool experts = ist_model_mixture(d->config, w->layer);
  if (w->recompute != IST_RECOMPUTE_NONE && !experts) ist_decoder_mlp_inner_fwd(d, p, w, x);
  /* The norms behind want y; an adapter behind a linear reads it. */
  bool around = d->adapters && d->adapters->method->around;
  if (again && !experts && (around || ist_block_norms_behind(d->config)))
    ist_decoder_mlp_outer_fwd(d, p, w);
  if (experts) {
    moe_bwd(d, p, w);
  } else {
    mlp_bwd(d, p, w, x, active);
  }
  attn_bwd(d, p, w, x, active);
}
