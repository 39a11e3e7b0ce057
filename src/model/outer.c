/* LoRA on the embedding and on the output head.
 *
 * Embedding, looked up: u = s A(ids), x0 += u B^T (times the embedding's own scale). Backward from
 * the gradient of x0: dB += dx^T u, dA(ids) += s dx B.
 * Head, a tile of the vocabulary at a time: u = s drop(h) A^T, logits += u B^T; backward: dB +=
 * dlogits^T u, du = s dlogits B, dA += du^T drop(h), dh += mask(du A). */
#include "model/decoder.h"

static ist_view in_compute_type(ist_decoder *d, ist_view scratch, ist_view param) {
  if (param.dt == d->compute) return param;
  ist_view out = ist_view_make(scratch.p, d->compute, param.rows, param.cols, param.cols);
  d->ctx->be->copy(d->ctx, out, param);
  return out;
}

/* ---- Embedding ------------------------------------------------------------------------ */

static const ist_outer_adapter *embedding(const ist_decoder *d) {
  const ist_outer_adapter *a = d->adapters ? &d->adapters->outer.of[IST_OUTER_EMBED] : NULL;
  return a && a->rank ? a : NULL;
}

static ist_view embedding_u(ist_decoder *d, const ist_pass *p, const ist_outer_adapter *own,
                            double *scale) {
  ist_view table = ist_outer_param(d->adapters, own->a, d->config->V, own->rank);
  ist_view u = ist_view_make(d->outer.u.p, d->compute, p->micro->n, own->rank, own->rank);
  *scale = own->scale * d->config->embed_scale;
  d->ctx->be->gather_rows(d->ctx, u, table.p, table.dt, p->micro->ids, *scale);
  return u;
}

void ist_outer_embed_fwd(ist_decoder *d, const ist_pass *p, ist_view e) {
  const ist_outer_adapter *own = embedding(d);
  if (!own) return;
  double scale;
  ist_view u = embedding_u(d, p, own, &scale);
  ist_view b =
      in_compute_type(d, d->outer.b, ist_outer_param(d->adapters, own->b, e.cols, own->rank));
  d->ctx->be->matmul(d->ctx, e, u, false, b, true, 1);
}

void ist_outer_embed_bwd(ist_decoder *d, const ist_pass *p) {
  const ist_backend *be = d->ctx->be;
  const ist_outer_adapter *own = embedding(d);
  int64_t n = p->micro->n, width = d->config->D; /* families of another width are refused */
  double scale;
  ist_view u = embedding_u(d, p, own, &scale),
           dx = ist_view_rows(d->dres, p->micro->boundary_row, n);
  if (dx.dt != d->compute) {
    be->copy(d->ctx, ist_view_rows(d->dy, 0, n), dx);
    dx = ist_view_rows(d->dy, 0, n);
  }
  be->matmul(d->ctx, ist_outer_grad(d->adapters, own->b, width, own->rank), dx, true, u, false, 1);
  ist_view b =
      in_compute_type(d, d->outer.b, ist_outer_param(d->adapters, own->b, width, own->rank));
  ist_view du = ist_view_make(d->outer.du.p, d->wide, n, own->rank, own->rank);
  be->matmul(d->ctx, du, dx, false, b, false, 0);
  be->scale_rows(d->ctx, du, scale, NULL);
  be->scatter_add_rows(d->ctx, ist_outer_grad(d->adapters, own->a, d->config->V, own->rank), du,
                       p->micro->ids);
}

/* ---- Head --------------------------------------------------------------------------------- */

bool ist_outer_has_head(const ist_decoder *d) {
  return d->adapters && d->adapters->outer.of[IST_OUTER_HEAD].rank > 0;
}

static const ist_outer_adapter *head(const ist_decoder *d) {
  return &d->adapters->outer.of[IST_OUTER_HEAD];
}

/* p NULL: no pass of training. */
static bool drops(const ist_decoder *d, const ist_pass *p) {
  return p && p->train && d->adapters->config.dropout > 0;
}

static ist_dropout head_dropout(const ist_decoder *d, const ist_pass *p) {
  return (ist_dropout){
      .p = d->adapters->config.dropout,
      .key = ist_rng_key(p->seed, IST_RNG_DROPOUT),
      .step = p->step,
      .layer_site = (uint32_t)d->config->L << 8,
      .sample = d->outer.sample,
      .position = d->outer.position,
  };
}

static ist_view head_a(ist_decoder *d, int64_t width) {
  return in_compute_type(d, d->outer.head_a,
                         ist_outer_param(d->adapters, head(d)->a, head(d)->rank, width));
}

static ist_view head_b(ist_decoder *d, int64_t row0, int64_t rows) {
  const int64_t rank = head(d)->rank;
  return in_compute_type(d, d->outer.head_b,
                         ist_outer_param(d->adapters, head(d)->b + row0 * rank, rows, rank));
}

static ist_view head_u(const ist_decoder *d, int64_t n) {
  return ist_view_make(d->outer.head_u.p, d->compute, n, head(d)->rank, head(d)->rank);
}

static ist_view dropped(const ist_decoder *d, ist_view h) {
  return ist_view_make(d->outer.head_x.p, d->compute, h.rows, h.cols, h.cols);
}

void ist_outer_head_begin(ist_decoder *d, const ist_pass *p, ist_view h) {
  ist_view x = h;
  if (drops(d, p)) {
    for (int64_t i = 0; i < h.rows; i++) {
      d->outer.sample[i] = p->micro->sample[d->head_ids[i]];
      d->outer.position[i] = p->micro->position[d->head_ids[i]];
    }
    ist_dropout drop = head_dropout(d, p);
    x = dropped(d, h);
    d->ctx->be->dropout(d->ctx, x, h, &drop);
  }
  ist_view u = head_u(d, h.rows);
  d->ctx->be->matmul(d->ctx, u, x, false, head_a(d, h.cols), true, 0);
  d->ctx->be->scale_rows(d->ctx, u, head(d)->scale, NULL);
}

void ist_outer_head_fwd(ist_decoder *d, ist_view logits, int64_t row0) {
  d->ctx->be->matmul(d->ctx, logits, head_u(d, logits.rows), false, head_b(d, row0, logits.cols),
                     true, 1);
}

void ist_outer_head_tiles(ist_decoder *d, ist_view logits) {
  const int64_t most = d->sizes.head_rows;
  for (int64_t v = 0; v < logits.cols; v += most)
    ist_outer_head_fwd(d, ist_view_cols(logits, v, logits.cols - v < most ? logits.cols - v : most),
                       v);
}

static ist_view head_du(const ist_decoder *d, int64_t n) {
  return ist_view_make(d->outer.head_du.p, d->wide, n, head(d)->rank, head(d)->rank);
}

void ist_outer_head_bwd(ist_decoder *d, ist_view dlogits, int64_t row0) {
  const ist_backend *be = d->ctx->be;
  const ist_outer_adapter *own = head(d);
  int64_t rows = dlogits.cols;
  ist_view db = ist_outer_grad(d->adapters, own->b + row0 * own->rank, rows, own->rank);
  if (db.p) be->matmul(d->ctx, db, dlogits, true, head_u(d, dlogits.rows), false, 1);
  be->matmul(d->ctx, head_du(d, dlogits.rows), dlogits, false, head_b(d, row0, rows), false,
             row0 > 0);
}

void ist_outer_head_end(ist_decoder *d, const ist_pass *p, ist_view dh, ist_view h) {
  const ist_backend *be = d->ctx->be;
  const ist_outer_adapter *own = head(d);
  ist_view wide = head_du(d, h.rows), du = wide;
  be->scale_rows(d->ctx, wide, own->scale, NULL);
  if (d->compute != d->wide) {
    du = ist_view_make(d->outer.head_dlow.p, d->compute, h.rows, own->rank, own->rank);
    be->copy(d->ctx, du, wide);
  }
  ist_view da = ist_outer_grad(d->adapters, own->a, own->rank, h.cols), a = head_a(d, h.cols);
  bool drop = drops(d, p);
  if (da.p) be->matmul(d->ctx, da, du, true, drop ? dropped(d, h) : h, false, 1);
  if (!drop) {
    be->matmul(d->ctx, dh, du, false, a, false, 1);
    return;
  }
  ist_dropout mask = head_dropout(d, p);
  ist_view dx = ist_view_make(d->outer.head_dx.p, dh.dt, h.rows, h.cols, h.cols);
  be->matmul(d->ctx, dx, du, false, a, false, 0);
  be->dropout_bwd_acc(d->ctx, dh, dx, &mask);
}
