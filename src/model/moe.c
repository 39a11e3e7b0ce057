/* A mixture of experts as the MLP: the router chooses for every token, then each expert
 * takes its tokens together, by a list of rows.
 *   l = h R^T   w, S = the weights of the chosen   y = sum over S of w_e down_e(act(gate_e h) up_e
 * h) */
#include "model/decoder.h"

static ist_view use(ist_view v, int64_t rows) {
  return ist_view_rows(v, 0, rows);
}

/* (n, k) as (n k, 1): one row a choice. */
static ist_view flat(ist_view v) {
  return ist_view_make(v.p, v.dt, v.rows * v.cols, 1, 1);
}

/* Copies the normed input, without the columns behind it, and chooses. */
static void route(ist_decoder *d, int64_t layer, int64_t n) {
  const ist_backend *be = d->ctx->be;
  ist_moe_buffers *m = &d->moe;
  be->copy(d->ctx, use(m->h, n), use(d->h, n));
  be->matmul(d->ctx, use(m->logits, n), use(m->h, n), false,
             ist_weights_vector(d->weights, layer, IST_T_ROUTER), true, 0);
  be->route_fwd(d->ctx, use(m->weight, n), m->index, use(m->logits, n), d->config->renormalise);
}

/* Lists the tokens of an expert, and gathers their weights. */
static int64_t tokens_of(ist_decoder *d, int64_t expert, int64_t n) {
  ist_moe_buffers *m = &d->moe;
  int64_t k = d->config->experts_used, count = 0;
  for (int64_t i = 0; i < n * k; i++) {
    if (m->index[i] != expert) continue;
    m->row[count] = (int32_t)(i / k);
    m->pair[count++] = (int32_t)i;
  }
  if (count)
    d->ctx->be->gather_rows(d->ctx, use(m->w, count), m->weight.p, m->weight.dt, m->pair, 1.0);
  return count;
}

/* y = x W^T with a matrix of an expert. */
static void expert_linear(ist_decoder *d, ist_view y, ist_view x, int64_t layer, int which,
                          int64_t expert) {
  ist_view none = ist_view_none();
  if (x.rows <= d->sizes.stored_rows) {
    const ist_stored_linear own = {.y = y, .x = x};
    ist_stored_linear l[3];
    const ist_stored *s = ist_weights_stored_expert(d->weights, layer, which, expert);
    d->ctx->be->linear_stored(d->ctx, l, ist_stored_linears(l, &own, s), d->sizes.stored_how);
    return;
  }
  ist_view w = ist_weights_acquire_expert(d->weights, d->ctx, layer, which, expert);
  d->ctx->be->linear_fwd(d->ctx, y, x, w, none, none, none);
}

/* gate, up and a of the tokens listed. */
static void expert_inner(ist_decoder *d, int64_t layer, int64_t expert, int64_t count) {
  const ist_backend *be = d->ctx->be;
  ist_moe_buffers *m = &d->moe;
  ist_view x = use(m->x, count);
  be->gather_rows(d->ctx, x, m->h.p, m->h.dt, m->row, 1.0);
  expert_linear(d, use(m->gate, count), x, layer, 0, expert);
  expert_linear(d, use(m->up, count), x, layer, 1, expert);
  be->act_fwd(d->ctx, use(m->a, count), use(m->gate, count), use(m->up, count), d->config->act);
}

/* sum's listed rows += part; `room` is scratch of part's shape and sum's type. */
static void add_to_rows(ist_decoder *d, ist_view sum, ist_view part, ist_view room) {
  const ist_backend *be = d->ctx->be;
  be->gather_rows(d->ctx, room, sum.p, sum.dt, d->moe.row, 1.0);
  be->add(d->ctx, room, room, part);
  be->scatter_rows(d->ctx, sum, room, d->moe.row);
}

void ist_decoder_moe_fwd(ist_decoder *d, const ist_pass *p, int64_t layer, ist_view y) {
  const ist_backend *be = d->ctx->be;
  ist_moe_buffers *m = &d->moe;
  int64_t n = p->micro->n;
  route(d, layer, n);
  be->zero(d->ctx, y);
  for (int64_t e = 0; e < d->config->experts; e++) {
    int64_t count = tokens_of(d, e, n);
    if (!count) continue;
    expert_inner(d, layer, e, count);
    expert_linear(d, use(m->y, count), use(m->a, count), layer, 2, e);
    be->weigh_rows(d->ctx, use(m->y, count), use(m->w, count));
    add_to_rows(d, y, use(m->y, count), use(m->x, count));
  }
}

void ist_decoder_moe_bwd(ist_decoder *d, const ist_pass *p, int64_t layer, ist_view dy) {
  const ist_backend *be = d->ctx->be;
  ist_moe_buffers *m = &d->moe;
  int64_t n = p->micro->n;
  ist_view none = ist_view_none(), dh = use(d->dwide, p->micro->rows);
  route(d, layer, n);
  be->zero(d->ctx, dh);
  for (int64_t e = 0; e < d->config->experts; e++) {
    int64_t count = tokens_of(d, e, n);
    if (!count) continue;
    expert_inner(d, layer, e, count);
    ist_view da = use(d->da, count), a = use(m->a, count), dx = use(m->dx, count);
    ist_view gate = use(m->gate, count), up = use(m->up, count), dw = use(m->dw, count);
    be->gather_rows(d->ctx, use(m->y, count), dy.p, dy.dt, m->row, 1.0);
    be->linear_bwd(d->ctx, da, false, none, use(m->y, count),
                   ist_weights_acquire_expert(d->weights, d->ctx, layer, 2, e), none);
    /* of dy and the expert's output */
    be->row_dot(d->ctx, ist_view_make(dw.p, dw.dt, 1, count, count), da, a);
    be->scatter_rows(d->ctx, flat(m->dweight), dw, m->pair);
    be->weigh_rows(d->ctx, da, use(m->w, count));
    be->act_bwd(d->ctx, gate, up, none, da, gate, up, d->config->act);
    be->linear_bwd(d->ctx, dx, false, none, gate,
                   ist_weights_acquire_expert(d->weights, d->ctx, layer, 0, e), none);
    be->linear_bwd(d->ctx, dx, true, none, up,
                   ist_weights_acquire_expert(d->weights, d->ctx, layer, 1, e), none);
    add_to_rows(d, dh, dx, use(m->dwide, count));
  }
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
