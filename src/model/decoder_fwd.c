/* Forward of the pieces of the decoder; the layer's picture is in decoder.h. */
#include "model/decoder.h"

ist_view ist_decoder_boundary(const ist_decoder *d, const ist_pass *p, int32_t slot) {
  return ist_view_rows(d->boundary[slot], p->micro->boundary_row, p->micro->rows);
}

/* The rows of a buffer that this micro-batch uses. */
static ist_view use(ist_view v, const ist_pass *p) {
  return ist_view_rows(v, 0, p->micro->rows);
}

/* Rows behind the last token are zero, so that they add nothing to any sum. */
static void clear_padding(ist_decoder *d, const ist_pass *p, ist_view v) {
  int64_t n = p->micro->n;
  if (n < v.rows) d->ctx->be->zero(d->ctx, ist_view_rows(v, n, v.rows - n));
}

void ist_decoder_embed(ist_decoder *d, const ist_pass *p, const ist_work *w) {
  const ist_stored *table = ist_weights_stored(d->weights, -1, IST_T_EMBED);
  ist_view x = ist_decoder_boundary(d, p, w->out);
  d->ctx->be->gather_rows(d->ctx, ist_view_rows(x, 0, p->micro->n), table->data, table->type,
                          p->micro->ids, 1.0);
  clear_padding(d, p, x);
}

void ist_decoder_rope(ist_decoder *d, const ist_pass *p, ist_view x, bool inverse) {
  const ist_model_config *c = d->config;
  if (c->position != IST_POSITION_ROPE) return;
  d->ctx->be->rope(d->ctx, x, p->micro->position, c->rope_freq, c->rope_dim, c->E,
                   c->rope_interleaved, c->rope_mscale, inverse);
}

ist_attn ist_decoder_attn_args(const ist_decoder *d, const ist_pass *p, const ist_kv *kv) {
  const ist_model_config *c = d->config;
  return (ist_attn){
      .H = c->H,
      .K = c->K,
      .E = c->E,
      .scale = c->attn_scale,
      .softcap = c->attn_softcap,
      .window = c->window,
      .n_seg = p->micro->n_seg,
      .seg = p->micro->seg,
      .n_kv = 1,
      .kv = kv,
  };
}

/* Norm, q, k, v, rotation, attention, output projection: fills the slot's values
 * up to xmid = x + lin(o). */
void ist_decoder_attn_fwd(ist_decoder *d, const ist_pass *p, const ist_work *w, ist_view x) {
  const ist_backend *be = d->ctx->be;
  ist_attn_acts *s = &d->attn[w->attn];
  ist_low_acts *low = d->low ? &d->low[w->low] : NULL;
  ist_view h = use(d->h, p), q = use(s->q, p), o = use(s->o, p), y = use(d->y, p);
  ist_view k = use(s->k, p), v = use(s->v, p);
  ist_kv kv = {k, v, {0}, {0}};
  be->norm_fwd(d->ctx, h, use(s->stat1, p), x,
               ist_weights_norm(d->weights, w->layer, IST_T_ATTN_NORM), ist_view_none(),
               d->config->norm, d->config->norm_eps);
  ist_site_fwd(d, p, w->layer, IST_SITE_ATTN_IN, h,
               low ? use(low->u[IST_SITE_ATTN_IN], p) : ist_view_none(), (ist_view[]){q, k, v});
  ist_decoder_rope(d, p, q, false);
  ist_decoder_rope(d, p, k, false);
  if (p->cache) {
    kv.k = p->cache->k[w->layer];
    kv.v = p->cache->v[w->layer];
    be->scatter_rows(d->ctx, kv.k, ist_view_rows(k, 0, p->micro->n), p->cache->dest);
    be->scatter_rows(d->ctx, kv.v, ist_view_rows(v, 0, p->micro->n), p->cache->dest);
  }
  ist_attn attn = ist_decoder_attn_args(d, p, &kv);
  be->attention_fwd(d->ctx, o, use(s->lse, p), q, &attn);
  clear_padding(d, p, o);
  ist_site_fwd(d, p, w->layer, IST_SITE_ATTN_OUT, o,
               low ? use(low->u[IST_SITE_ATTN_OUT], p) : ist_view_none(), &y);
  be->add(d->ctx, use(s->xmid, p), x, y);
}

/* Norm and the two products in front of the activation: fills gate and up. */
void ist_decoder_mlp_inner_fwd(ist_decoder *d, const ist_pass *p, const ist_work *w) {
  ist_attn_acts *s = &d->attn[w->attn];
  ist_mlp_acts *m = &d->mlp[w->mlp];
  ist_low_acts *low = d->low ? &d->low[w->low] : NULL;
  ist_view h = use(d->h, p);
  d->ctx->be->norm_fwd(d->ctx, h, use(s->stat2, p), use(s->xmid, p),
                       ist_weights_norm(d->weights, w->layer, IST_T_FFN_NORM), ist_view_none(),
                       d->config->norm, d->config->norm_eps);
  ist_site_fwd(d, p, w->layer, IST_SITE_MLP_IN, h,
               low ? use(low->u[IST_SITE_MLP_IN], p) : ist_view_none(),
               (ist_view[]){use(m->gate, p), use(m->up, p)});
}

void ist_decoder_layer_fwd(ist_decoder *d, const ist_pass *p, const ist_work *w) {
  const ist_backend *be = d->ctx->be;
  ist_view x = ist_decoder_boundary(d, p, w->in), out = ist_decoder_boundary(d, p, w->out);
  ist_view a = use(d->a, p), y = use(d->y, p);
  ist_low_acts *low = d->low ? &d->low[w->low] : NULL;
  ist_decoder_attn_fwd(d, p, w, x);
  ist_decoder_mlp_inner_fwd(d, p, w);
  be->act_fwd(d->ctx, a, use(d->mlp[w->mlp].gate, p), use(d->mlp[w->mlp].up, p), d->config->act);
  ist_site_fwd(d, p, w->layer, IST_SITE_MLP_OUT, a,
               low ? use(low->u[IST_SITE_MLP_OUT], p) : ist_view_none(), &y);
  be->add(d->ctx, out, use(d->attn[w->attn].xmid, p), y);
}

void ist_decoder_run(ist_decoder *d, const ist_pass *pass, const ist_work *work) {
  switch ((ist_work_op)work->op) {
    case IST_WORK_EMBED: ist_decoder_embed(d, pass, work); return;
    case IST_WORK_FWD: ist_decoder_layer_fwd(d, pass, work); return;
    case IST_WORK_HEAD: ist_decoder_head(d, pass, work); return;
    case IST_WORK_BWD: ist_decoder_layer_bwd(d, pass, work); return;
    case IST_WORK_PAGES: ist_decoder_turn_pages(d, work); return;
  }
}
