/* Forward of the pieces of the decoder; the layer's picture is in decoder.h. */
#include "model/decoder.h"

#include <math.h>

ist_view ist_decoder_boundary(const ist_decoder *d, const ist_pass *p, int32_t slot) {
  return ist_view_rows(d->boundary[slot], p->micro->boundary_row, p->micro->rows);
}

/* The rows of a buffer that this micro-batch uses. */
static ist_view use(ist_view v, const ist_pass *p) {
  return v.p ? ist_view_rows(v, 0, p->micro->rows) : v;
}

static ist_view low_rank(const ist_decoder *d, const ist_pass *p, const ist_work *w,
                         ist_site site) {
  return d->low ? use(d->low[w->low].u[site], p) : ist_view_none();
}

/* Rows behind the last token are zero, so that they add nothing to any sum. */
static void clear_padding(ist_decoder *d, const ist_pass *p, ist_view v) {
  int64_t n = p->micro->n;
  if (n < v.rows) d->ctx->be->zero(d->ctx, ist_view_rows(v, n, v.rows - n));
}

/* ---- Embedding ------------------------------------------------------------------- */

static void add_positions(ist_decoder *d, const ist_pass *p, ist_view x) {
  const ist_stored *table = ist_weights_stored(d->weights, -1, IST_T_POSITION);
  ist_view y = ist_view_rows(d->y, 0, x.rows);
  for (int64_t i = 0; i < x.rows; i++)
    d->table_rows[i] = p->micro->position[i] + (int32_t)d->config->position_offset;
  d->ctx->be->gather_rows(d->ctx, y, table->data, table->type, d->table_rows, 1.0);
  d->ctx->be->add(d->ctx, x, x, y);
}

void ist_decoder_embed(ist_decoder *d, const ist_pass *p, const ist_work *w) {
  const ist_model_config *c = d->config;
  const ist_backend *be = d->ctx->be;
  const ist_stored *table = ist_weights_embedding(d->weights);
  int64_t n = p->micro->n;
  ist_view out = ist_decoder_boundary(d, p, w->out), x = ist_view_rows(out, 0, n), e = x;
  if (c->embed_dim) e = ist_view_make(d->y.p, d->compute, n, c->embed_dim, c->embed_dim);
  be->gather_rows(d->ctx, e, table->data, table->type, p->micro->ids, c->embed_scale);
  ist_outer_embed_fwd(d, p, e);
  if (c->embed_dim)
    be->linear_fwd(d->ctx, x, e, ist_weights_vector(d->weights, -1, IST_T_PROJECT_IN),
                   ist_weights_bias(d->weights, -1, IST_T_PROJECT_IN), ist_view_none(),
                   ist_view_none());
  if (c->positions) add_positions(d, p, x);
  if (c->embed_norm)
    be->norm_fwd(d->ctx, x, ist_view_rows(d->attn[0].stat1, 0, n), x,
                 ist_weights_vector(d->weights, -1, IST_T_EMBED_NORM),
                 ist_weights_bias(d->weights, -1, IST_T_EMBED_NORM), c->norm, c->norm_eps);
  clear_padding(d, p, out);
}

/* ---- Attention ------------------------------------------------------------------------ */

/* The table for a sequence of `length`: scaling may depend on it. */
static const float *angles(ist_decoder *d, const ist_rope *r, int64_t length) {
  if (length <= r->original) return r->freq;
  if (!r->dynamic) return r->freq_long ? r->freq_long : r->freq;
  double R = (double)d->config->rope_dim, s = r->dynamic;
  double stretch = s * (double)length / (double)r->original - (s - 1.0);
  double theta = r->theta * pow(stretch, R / (R - 2.0));
  for (int64_t j = 0; j < d->config->rope_dim / 2; j++)
    d->rope_freq[j] = (float)pow(theta, -2.0 * (double)j / R);
  return d->rope_freq;
}

void ist_decoder_rope(ist_decoder *d, const ist_pass *p, int64_t layer, ist_view x, bool inverse) {
  const ist_model_config *c = d->config;
  int table = ist_model_layer(c, layer).rope;
  if (!c->rope_dim || table < 0) return;
  const ist_rope *r = &c->rope[table];
  if (!r->freq_long && !r->dynamic) {
    d->ctx->be->rope(d->ctx, x, p->micro->position, r->freq, c->rope_dim, c->E, c->rope_interleaved,
                     r->mscale, inverse);
    return;
  }
  for (int64_t i = 0; i < p->micro->n_seg; i++) {
    const ist_attn_seg *seg = &p->micro->seg[i];
    d->ctx->be->rope(d->ctx, ist_view_rows(x, seg->q0, seg->nq), p->micro->position + seg->q0,
                     angles(d, r, seg->pos0 + seg->nq), c->rope_dim, c->E, c->rope_interleaved,
                     r->mscale, inverse);
  }
}

ist_attn ist_decoder_attn_args(const ist_decoder *d, const ist_pass *p, int64_t layer,
                               const ist_kv *kv) {
  const ist_model_config *c = d->config;
  return (ist_attn){
      .H = c->H,
      .K = c->K,
      .E = c->E,
      .scale = c->attn_scale,
      .softcap = c->attn_softcap,
      .window = ist_model_layer(c, layer).window,
      .alibi = c->alibi,
      .n_seg = p->micro->n_seg,
      .seg = p->micro->seg,
      .n_kv = 1,
      .kv = kv,
  };
}

static void norm(ist_decoder *d, int64_t layer, int id, ist_view h, ist_view stat, ist_view x) {
  d->ctx->be->norm_fwd(d->ctx, h, stat, x, ist_weights_vector(d->weights, layer, id),
                       ist_weights_bias(d->weights, layer, id), d->config->norm,
                       d->config->norm_eps);
}

void ist_decoder_inner_norm(ist_decoder *d, const ist_pass *p, int64_t layer, ist_view x,
                            ist_view stat, int id) {
  ist_view h = use(d->h, p);
  if (d->config->block == IST_BLOCK_POST) {
    d->ctx->be->copy(d->ctx, h, x);
  } else {
    norm(d, layer, id, h, stat, x);
  }
}

int ist_decoder_mlp_norm(const ist_model_config *c) {
  return c->block == IST_BLOCK_PARALLEL_1 ? IST_T_ATTN_NORM : IST_T_FFN_NORM;
}

/* Every head of (N, heads * E) as a row of (N * heads, E). */
static ist_view by_head(ist_view x, int64_t E) {
  IST_ASSERT(x.stride == x.cols);
  return ist_view_make(x.p, x.dt, x.rows * (x.cols / E), E, E);
}

static void norm_heads(ist_decoder *d, int64_t layer, int id, ist_view out, ist_view stat,
                       ist_view raw) {
  int64_t E = d->config->E, heads = raw.rows * (raw.cols / E);
  norm(d, layer, id, by_head(out, E), ist_view_rows(stat, 0, heads), by_head(raw, E));
}

/* xmid = x + y, y what attention gives: behind it may stand a norm, or the norm is
 * that of the sum. */
static void join_attention(ist_decoder *d, const ist_pass *p, int64_t layer, ist_attn_acts *s,
                           ist_view x, ist_view y) {
  ist_view xmid = use(s->xmid, p), y1 = use(s->y1, p);
  switch (d->config->block) {
    case IST_BLOCK_SANDWICH:
      norm(d, layer, IST_T_POST_ATTN_NORM, use(d->y, p), use(s->stat3, p), y);
      d->ctx->be->add(d->ctx, xmid, x, use(d->y, p));
      return;
    case IST_BLOCK_POST:
      d->ctx->be->add(d->ctx, y1, x, y);
      norm(d, layer, IST_T_ATTN_NORM, xmid, use(s->stat3, p), y1);
      return;
    default: d->ctx->be->add(d->ctx, xmid, x, y); return;
  }
}

/* Norm, q, k, v, rotation, attention, output projection: fills the slot's values
 * up to xmid = x + lin(o). */
void ist_decoder_attn_fwd(ist_decoder *d, const ist_pass *p, const ist_work *w, ist_view x) {
  const ist_backend *be = d->ctx->be;
  ist_attn_acts *s = &d->attn[w->attn];
  ist_view h = use(d->h, p), q = use(s->q, p), o = use(s->o, p);
  ist_view k = use(s->k, p), v = use(s->v, p), qkv = use(s->qkv, p);
  bool normed = d->config->qk_norm, behind = d->config->block == IST_BLOCK_SANDWICH;
  ist_view raw_q = normed ? use(s->q_raw, p) : q, raw_k = normed ? use(s->k_raw, p) : k;
  ist_view y = use(behind ? s->y1 : d->y, p), none = ist_view_none();
  ist_kv kv[2] = {{k, v, {0}, {0}}};
  ist_decoder_inner_norm(d, p, w->layer, x, use(s->stat1, p), IST_T_ATTN_NORM);
  ist_site_fwd(d, p, w->layer, IST_SITE_ATTN_IN, h, low_rank(d, p, w, IST_SITE_ATTN_IN),
               qkv.p ? (ist_view[]){none, none, none, qkv} : (ist_view[]){raw_q, raw_k, v, none});
  if (normed) {
    norm_heads(d, w->layer, IST_T_Q_NORM, q, s->q_stat, raw_q);
    norm_heads(d, w->layer, IST_T_K_NORM, k, s->k_stat, raw_k);
  }
  ist_decoder_rope(d, p, w->layer, q, false);
  ist_decoder_rope(d, p, w->layer, k, false);
  if (p->cache) {
    kv[0].k = p->cache->k[w->layer];
    kv[0].v = p->cache->v[w->layer];
    be->scatter_rows(d->ctx, kv[0].k, ist_view_rows(k, 0, p->micro->n), p->cache->dest);
    be->scatter_rows(d->ctx, kv[0].v, ist_view_rows(v, 0, p->micro->n), p->cache->dest);
  }
  ist_attn attn = ist_decoder_attn_args(d, p, w->layer, kv);
  ist_decoder_add_prefix(d, p, w->layer, &attn, kv, false);
  be->attention_fwd(d->ctx, o, use(s->lse, p), q, &attn);
  clear_padding(d, p, o);
  ist_site_fwd(d, p, w->layer, IST_SITE_ATTN_OUT, o, low_rank(d, p, w, IST_SITE_ATTN_OUT), &y);
  join_attention(d, p, w->layer, s, x, y);
}

/* ---- MLP ------------------------------------------------------------------------------ */

/* Norm and the products in front of the activation: fills gate and up. x: the layer's
 * input, which parallel blocks read. */
void ist_decoder_mlp_inner_fwd(ist_decoder *d, const ist_pass *p, const ist_work *w, ist_view x) {
  ist_attn_acts *s = &d->attn[w->attn];
  ist_mlp_acts *m = &d->mlp[w->mlp];
  ist_view none = ist_view_none(), both = use(m->both, p);
  ist_decoder_inner_norm(d, p, w->layer, ist_block_parallel(d->config) ? x : use(s->xmid, p),
                         use(s->stat2, p), ist_decoder_mlp_norm(d->config));
  if (ist_model_mixture(d->config, w->layer)) return;
  ist_site_fwd(
      d, p, w->layer, IST_SITE_MLP_IN, use(d->h, p), low_rank(d, p, w, IST_SITE_MLP_IN),
      both.p ? (ist_view[]){none, none, both} : (ist_view[]){use(m->gate, p), use(m->up, p), none});
}

/* What stands behind the MLP's output y: its norm, or that of the sum, into d->y. */
static void join_mlp(ist_decoder *d, const ist_pass *p, int64_t layer, ist_attn_acts *s) {
  ist_view y = use(d->y, p), y2 = use(s->y2, p), stat4 = use(s->stat4, p);
  if (d->config->block == IST_BLOCK_SANDWICH) norm(d, layer, IST_T_POST_FFN_NORM, y, stat4, y2);
  if (d->config->block == IST_BLOCK_POST) {
    d->ctx->be->add(d->ctx, y2, use(s->xmid, p), y);
    norm(d, layer, IST_T_FFN_NORM, y, stat4, y2);
  }
}

void ist_decoder_mlp_outer_fwd(ist_decoder *d, const ist_pass *p, const ist_work *w) {
  ist_attn_acts *s = &d->attn[w->attn];
  if (ist_model_mixture(d->config, w->layer)) {
    ist_decoder_moe_fwd(d, p, w->layer, use(d->y, p));
    return;
  }
  ist_view a = use(d->a, p), gate = use(d->mlp[w->mlp].gate, p), up = use(d->mlp[w->mlp].up, p);
  ist_view y = use(d->config->block == IST_BLOCK_SANDWICH ? s->y2 : d->y, p);
  d->ctx->be->act_fwd(d->ctx, a, gate.p ? gate : up, gate.p ? up : ist_view_none(), d->config->act);
  ist_site_fwd(d, p, w->layer, IST_SITE_MLP_OUT, a, low_rank(d, p, w, IST_SITE_MLP_OUT), &y);
  join_mlp(d, p, w->layer, s);
}

void ist_decoder_layer_fwd(ist_decoder *d, const ist_pass *p, const ist_work *w) {
  ist_view x = ist_decoder_boundary(d, p, w->in), out = ist_decoder_boundary(d, p, w->out);
  ist_decoder_attn_fwd(d, p, w, x);
  ist_decoder_mlp_inner_fwd(d, p, w, x);
  ist_decoder_mlp_outer_fwd(d, p, w);
  if (d->config->block == IST_BLOCK_POST) {
    d->ctx->be->copy(d->ctx, out, use(d->y, p));
  } else {
    d->ctx->be->add(d->ctx, out, use(d->attn[w->attn].xmid, p), use(d->y, p));
  }
}

void ist_decoder_run(ist_decoder *d, const ist_pass *pass, const ist_work *work) {
  switch ((ist_work_op)work->op) {
    case IST_WORK_EMBED: ist_decoder_embed(d, pass, work); return;
    case IST_WORK_FWD: ist_decoder_layer_fwd(d, pass, work); return;
    case IST_WORK_HEAD: ist_decoder_head(d, pass, work); return;
    case IST_WORK_BWD: ist_decoder_layer_bwd(d, pass, work); return;
    case IST_WORK_EMBED_BWD: ist_outer_embed_bwd(d, pass); return;
    case IST_WORK_PAGES: ist_decoder_turn_pages(d, work); return;
  }
}
