/* A mixture of experts as the MLP: the router chooses for every token, then each expert
 * takes its tokens together, by a list of rows.
 *   l = h R^T   w, S = the weights of the chosen
 *   y = sum over S of w_e down_e(act(gate_e h) up_e h)  [+ sigmoid(h g) shared(h)]
 * An expert's tokens are a micro-batch of their own, so that adapters, dropout and
 * suppression are those of any linear (site.c). */
#include "model/decoder.h"

static ist_view use(ist_view v, int64_t rows) {
  return v.p ? ist_view_rows(v, 0, rows) : v;
}

/* (n, k) as (n k, 1): one row a choice. */
static ist_view flat(ist_view v) {
  return ist_view_make(v.p, v.dt, v.rows * v.cols, 1, 1);
}

static int64_t rank_of(const ist_decoder *d, ist_site site) {
  return d->adapters ? d->adapters->layout.site_rank[site] : 0;
}

/* ---- Routing ------------------------------------------------------------------------- */

/* Copies the normed input, without the columns behind it, and chooses. */
static void route(ist_decoder *d, int64_t layer, int64_t n) {
  const ist_backend *be = d->ctx->be;
  ist_moe_buffers *m = &d->moe;
  be->copy(d->ctx, use(m->h, n), use(d->h, n));
  be->matmul(d->ctx, use(m->logits, n), use(m->h, n), false,
             ist_weights_vector(d->weights, layer, IST_T_ROUTER), true, 0);
  be->route_fwd(d->ctx, use(m->weight, n), m->index, use(m->logits, n), d->config->renormalise);
}

/* From the weights' gradients to that of h, added to dh. */
static void route_bwd(ist_decoder *d, int64_t layer, int64_t n, ist_view dh) {
  const ist_backend *be = d->ctx->be;
  ist_moe_buffers *m = &d->moe;
  ist_view dlogits = use(m->dlogits, n), low = dlogits;
  be->route_bwd(d->ctx, dlogits, use(m->dweight, n), use(m->weight, n), m->index, use(m->logits, n),
                d->config->renormalise);
  if (d->compute != d->wide) {
    low = use(m->dlow, n);
    be->copy(d->ctx, low, dlogits);
  }
  be->matmul(d->ctx, use(dh, n), low, false, ist_weights_vector(d->weights, layer, IST_T_ROUTER),
             false, 1);
}

/* ---- One expert ------------------------------------------------------------------------ */

/* Tokens of one expert; with rows of zeros behind them, so that products come in few
 * shapes (where they are products: few rows read the matrices as they are stored). */
typedef struct expert_rows {
  int64_t count, rows;
  ist_micro micro;
  ist_pass pass;
} expert_rows;

static int64_t bucket(int64_t n, int64_t most) {
  int64_t step = 8;
  while (8 * step < n) step *= 2;
  int64_t rows = (n + step - 1) / step * step;
  return rows < most ? rows : most;
}

/* Lists the tokens of an expert, and gathers their weights. False: it has none. */
static bool tokens_of(ist_decoder *d, const ist_pass *p, int64_t expert, expert_rows *out) {
  ist_moe_buffers *m = &d->moe;
  const ist_micro *from = p->micro;
  int64_t k = d->config->experts_used, count = 0;
  for (int64_t i = 0; i < from->n * k; i++) {
    if (m->index[i] != expert) continue;
    int64_t row = i / k;
    m->row[count] = (int32_t)row;
    m->sample[count] = from->sample ? from->sample[row] : 0;
    m->position[count] = from->position[row];
    m->group[count] = from->group ? from->group[row] : 0;
    m->pair[count++] = (int32_t)i;
  }
  if (!count) return false;
  int64_t rows = count;
  if (count > d->sizes.stored_rows) rows = bucket(count, d->sizes.rows);
  for (int64_t i = count; i < rows; i++) m->sample[i] = m->position[i] = m->group[i] = 0;
  *out = (expert_rows){.count = count, .rows = rows, .pass = *p};
  out->micro = (ist_micro){.n = count,
                           .rows = rows,
                           .sample = m->sample,
                           .position = m->position,
                           .group = from->group ? m->group : NULL,
                           .expert = expert};
  d->ctx->be->gather_rows(d->ctx, use(m->w, count), m->weight.p, m->weight.dt, m->pair, 1.0);
  return true;
}

/* The tokens' rows of `from` into `to`, zeros behind them. */
static void gather(ist_decoder *d, const expert_rows *e, ist_view to, ist_view from) {
  IST_ASSERT(from.stride == from.cols);
  d->ctx->be->gather_rows(d->ctx, use(to, e->count), from.p, from.dt, d->moe.row, 1.0);
  if (e->rows > e->count) d->ctx->be->zero(d->ctx, ist_view_rows(to, e->count, e->rows - e->count));
}

/* ---- One MLP, an expert's or the shared one -------------------------------------------- */

/* What forward leaves for the rest of it and for backward. */
typedef struct mlp {
  const ist_pass *pass;
  int64_t layer;
  ist_site in, out;
  ist_view x, gate, up, a, u_in, u_out, y;
} mlp;

static mlp mlp_of(ist_decoder *d, const ist_pass *p, int64_t layer, ist_site in, ist_view x) {
  ist_moe_buffers *m = &d->moe;
  bool shared = in == IST_SITE_SHARED_IN;
  int64_t rows = p->micro->rows, F = shared ? d->config->shared_F : d->config->expert_F;
  ist_site out = shared ? IST_SITE_SHARED_OUT : IST_SITE_EXPERT_OUT;
  int64_t tail = shared && d->adapters ? d->adapters->layout.max_rank[out] : 0;
  return (mlp){
      .pass = p,
      .layer = layer,
      .in = in,
      .out = out,
      .x = x,
      .gate = ist_decoder_fitted(m->gate, rows, F, 0),
      .up = ist_decoder_fitted(m->up, rows, F, 0),
      .a = ist_decoder_fitted(m->a, rows, F, tail),
      .u_in = ist_decoder_fitted(m->u_in, rows, rank_of(d, in), 0),
      .u_out = ist_decoder_fitted(m->u_out, rows, rank_of(d, out), 0),
      .y = use(m->y, rows),
  };
}

static void mlp_inner_fwd(ist_decoder *d, const mlp *e) {
  ist_site_fwd(d, e->pass, e->layer, e->in, e->x, e->u_in, (ist_view[]){e->gate, e->up});
  d->ctx->be->act_fwd(d->ctx, e->a, e->gate, e->up, d->config->act);
}

static void mlp_outer_fwd(ist_decoder *d, const mlp *e) {
  ist_site_fwd(d, e->pass, e->layer, e->out, e->a, e->u_out, &e->y);
}

/* From dy, the gradient of the output times its weight: dw that of the weight, dx that of
 * x. Where nothing stands at the last linear, dy y = (dy W) a spares a product. `count`
 * rows have a weight. */
static void mlp_bwd(ist_decoder *d, const mlp *e, ist_view dx, ist_view dw, ist_view dy, ist_view w,
                    int64_t count) {
  const ist_backend *be = d->ctx->be;
  ist_view da = ist_decoder_fitted(d->da, e->a.rows, e->a.cols, 0);
  ist_view dots = ist_view_make(dw.p, dw.dt, 1, count, count);
  mlp_inner_fwd(d, e);
  if (rank_of(d, e->out)) {
    mlp_outer_fwd(d, e);
    be->row_dot(d->ctx, dots, use(dy, count), use(e->y, count));
    be->weigh_rows(d->ctx, use(dy, count), w);
    ist_site_bwd(d, e->pass, e->layer, e->out, da, &dy, e->a, e->u_out);
  } else {
    ist_site_bwd(d, e->pass, e->layer, e->out, da, &dy, e->a, e->u_out);
    be->row_dot(d->ctx, dots, use(da, count), use(e->a, count));
    be->weigh_rows(d->ctx, use(da, count), w);
  }
  be->act_bwd(d->ctx, e->gate, e->up, ist_view_none(), da, e->gate, e->up, d->config->act);
  ist_site_bwd(d, e->pass, e->layer, e->in, dx, (ist_view[]){e->gate, e->up}, e->x, e->u_in);
}

/* ---- The shared expert -------------------------------------------------------------------- */

/* Its weight for every token. */
static void share(ist_decoder *d, int64_t layer, int64_t n) {
  const ist_backend *be = d->ctx->be;
  ist_moe_buffers *m = &d->moe;
  be->matmul(d->ctx, use(m->share_logit, n), use(m->h, n), false,
             ist_weights_vector(d->weights, layer, IST_T_SHARED_ROUTER), true, 0);
  be->act_fwd(d->ctx, use(m->share, n), use(m->share_logit, n), ist_view_none(), IST_ACT_SIGMOID);
}

static void shared_fwd(ist_decoder *d, const ist_pass *p, int64_t layer) {
  const ist_backend *be = d->ctx->be;
  ist_moe_buffers *m = &d->moe;
  int64_t n = p->micro->n;
  mlp e = mlp_of(d, p, layer, IST_SITE_SHARED_IN, use(d->h, p->micro->rows));
  share(d, layer, n);
  mlp_inner_fwd(d, &e);
  mlp_outer_fwd(d, &e);
  be->copy(d->ctx, use(m->sum, n), use(e.y, n));
  be->weigh_rows(d->ctx, use(m->sum, n), use(m->share, n));
}

/* dh = its gradient. */
static void shared_bwd(ist_decoder *d, const ist_pass *p, int64_t layer, ist_view dh, ist_view dy) {
  const ist_backend *be = d->ctx->be;
  ist_moe_buffers *m = &d->moe;
  int64_t n = p->micro->n, rows = p->micro->rows;
  mlp e = mlp_of(d, p, layer, IST_SITE_SHARED_IN, use(d->h, rows));
  ist_view dmine = use(m->x, rows), dw = use(m->dw, n);
  share(d, layer, n);
  be->copy(d->ctx, dmine, use(dy, rows));
  mlp_bwd(d, &e, dh, dw, dmine, use(m->share, n), n);
  be->act_bwd(d->ctx, dw, ist_view_none(), ist_view_none(), dw, use(m->share_logit, n),
              ist_view_none(), IST_ACT_SIGMOID);
  ist_view low = dw;
  if (d->compute != d->wide) {
    low = ist_decoder_fitted(m->dlow, n, 1, 0);
    be->copy(d->ctx, low, dw);
  }
  be->matmul(d->ctx, use(dh, n), low, false,
             ist_weights_vector(d->weights, layer, IST_T_SHARED_ROUTER), false, 1);
}

/* ---- The mixture ---------------------------------------------------------------------------- */

void ist_decoder_moe_fwd(ist_decoder *d, const ist_pass *p, int64_t layer, ist_view y) {
  const ist_backend *be = d->ctx->be;
  ist_moe_buffers *m = &d->moe;
  int64_t n = p->micro->n;
  route(d, layer, n);
  if (d->config->shared_F) {
    shared_fwd(d, p, layer);
  } else {
    be->zero(d->ctx, use(m->sum, n));
  }
  for (int64_t i = 0; i < d->config->experts; i++) {
    expert_rows rows;
    if (!tokens_of(d, p, i, &rows)) continue;
    rows.pass.micro = &rows.micro;
    mlp e = mlp_of(d, &rows.pass, layer, IST_SITE_EXPERT_IN, use(m->x, rows.rows));
    gather(d, &rows, e.x, use(m->h, n));
    mlp_inner_fwd(d, &e);
    mlp_outer_fwd(d, &e);
    be->add_rows(d->ctx, use(m->sum, n), use(e.y, rows.count), m->row, use(m->w, rows.count));
  }
  be->copy(d->ctx, use(y, n), use(m->sum, n));
  if (y.rows > n) be->zero(d->ctx, ist_view_rows(y, n, y.rows - n));
}

void ist_decoder_moe_bwd(ist_decoder *d, const ist_pass *p, int64_t layer, ist_view dy) {
  const ist_backend *be = d->ctx->be;
  ist_moe_buffers *m = &d->moe;
  int64_t n = p->micro->n;
  ist_view dh = use(d->dwide, p->micro->rows);
  route(d, layer, n);
  if (d->config->shared_F) {
    shared_bwd(d, p, layer, dh, dy);
  } else {
    be->zero(d->ctx, dh);
  }
  for (int64_t i = 0; i < d->config->experts; i++) {
    expert_rows rows;
    if (!tokens_of(d, p, i, &rows)) continue;
    rows.pass.micro = &rows.micro;
    ist_view dmine = use(d->y, rows.rows), dx = use(m->dx, rows.rows);
    ist_view dw = use(m->dw, rows.count);
    mlp e = mlp_of(d, &rows.pass, layer, IST_SITE_EXPERT_IN, use(m->x, rows.rows));
    gather(d, &rows, e.x, use(m->h, n));
    gather(d, &rows, dmine, use(dy, n));
    mlp_bwd(d, &e, dx, dw, dmine, use(m->w, rows.count), rows.count);
    be->scatter_rows(d->ctx, flat(m->dweight), dw, m->pair);
    be->add_rows(d->ctx, use(dh, n), use(dx, rows.count), m->row, ist_view_none());
  }
  route_bwd(d, layer, n, dh);
}
