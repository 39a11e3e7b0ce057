/* The output head: final norm, projection and cross-entropy, forward and backward
 * together, in chunks of supervised tokens, so that logits never exist as a whole. */
#include "model/decoder.h"

/* Rows of the products are rounded up to this, so that few shapes occur. */
#define CHUNK_BUCKET 16

static int64_t bucket(int64_t n) {
  return (n + CHUNK_BUCKET - 1) / CHUNK_BUCKET * CHUNK_BUCKET;
}

/* Rows of a chunk: the supervised tokens in equal parts, no larger than the buffers. */
static int64_t chunk_rows(const ist_micro *m, int64_t cap) {
  int64_t total = 0;
  for (int64_t i = 0; i < m->n; i++) total += m->target[i] >= 0;
  if (total <= cap) return cap;
  int64_t chunks = (total + cap - 1) / cap, rows = bucket((total + chunks - 1) / chunks);
  return rows < cap ? rows : cap;
}

/* The supervised rows of the micro-batch, from `from` on: at most `cap` into ids;
 * returns how many and where to go on. */
static int64_t next_rows(const ist_micro *m, int64_t *from, int64_t cap, int32_t *ids) {
  int64_t count = 0;
  for (; *from < m->n && count < cap; ++*from) {
    if (m->target[*from] >= 0) ids[count++] = (int32_t)*from;
  }
  return count;
}

/* What the head reads: normed, and projected where its width is another. */
static ist_view head_read(const ist_decoder *d, int64_t n) {
  const ist_model_config *c = d->config;
  return ist_view_rows(c->embed_dim ? d->head_p : c->no_final_norm ? d->head_x : d->head_h, 0, n);
}

/* head_x -> head_read. */
static ist_view head_input(ist_decoder *d, int64_t n) {
  const ist_backend *be = d->ctx->be;
  const ist_model_config *c = d->config;
  ist_view h = ist_view_rows(c->no_final_norm ? d->head_x : d->head_h, 0, n);
  if (!c->no_final_norm)
    be->norm_fwd(d->ctx, h, ist_view_rows(d->head_stat, 0, n), ist_view_rows(d->head_x, 0, n),
                 ist_weights_vector(d->weights, -1, IST_T_OUTPUT_NORM),
                 ist_weights_bias(d->weights, -1, IST_T_OUTPUT_NORM), c->norm, c->norm_eps);
  if (c->embed_dim)
    be->linear_fwd(
        d->ctx, head_read(d, n), h, ist_weights_vector(d->weights, -1, IST_T_PROJECT_OUT),
        ist_weights_bias(d->weights, -1, IST_T_PROJECT_OUT), ist_view_none(), ist_view_none());
  return head_read(d, n);
}

/* Logits of the `n` rows of head_x, a vocabulary tile at a time. p NULL: outside a pass. */
static void project(ist_decoder *d, const ist_pass *p, int64_t n) {
  const ist_backend *be = d->ctx->be;
  ist_view h = head_input(d, n), logits = ist_view_rows(d->logits, 0, n);
  ist_view bias = ist_weights_bias(d->weights, -1, IST_T_OUTPUT), none = ist_view_none();
  bool adapted = ist_outer_has_head(d);
  if (adapted) ist_outer_head_begin(d, p, h);
  if (n <= d->sizes.stored_rows) {
    const ist_stored_linear own = {.y = logits, .x = h, .bias = bias};
    ist_stored_linear l[3];
    be->linear_stored(d->ctx, l, ist_stored_linears(l, &own, ist_weights_head(d->weights)),
                      d->sizes.stored_how);
    if (adapted) ist_outer_head_tiles(d, logits);
    return;
  }
  for (int64_t v = 0; v < d->config->V; v += d->sizes.head_rows) {
    int64_t tile = d->config->V - v < d->sizes.head_rows ? d->config->V - v : d->sizes.head_rows;
    ist_view w = ist_weights_acquire_head(d->weights, d->ctx, v, tile);
    ist_view to = ist_view_cols(logits, v, tile);
    if (bias.p) {
      be->linear_fwd(d->ctx, to, h, w, ist_view_cols(bias, v, tile), none, none);
    } else {
      be->matmul(d->ctx, to, h, false, w, true, 0);
    }
    if (adapted) ist_outer_head_fwd(d, to, v);
  }
}

/* From the gradient of what the head read (dh: wide, or in d->head_dp) to that of x. */
static void head_input_bwd(ist_decoder *d, int64_t n) {
  const ist_backend *be = d->ctx->be;
  const ist_model_config *c = d->config;
  ist_view dh = ist_view_rows(d->head_dh, 0, n), dx = ist_view_rows(d->head_dx, 0, n);
  if (c->embed_dim)
    be->matmul(d->ctx, dh, ist_view_rows(d->head_dp, 0, n), false,
               ist_weights_vector(d->weights, -1, IST_T_PROJECT_OUT), false, 0);
  if (c->no_final_norm) {
    be->copy(d->ctx, dx, dh);
    return;
  }
  be->norm_bwd(d->ctx, dx, false, ist_view_none(), ist_view_none(), dh,
               ist_view_rows(d->head_x, 0, n),
               ist_weights_vector(d->weights, -1, IST_T_OUTPUT_NORM),
               ist_view_rows(d->head_stat, 0, n), c->norm);
}

/* d loss / d logits -> gradient of the `n` rows of x, the first `real` of them scattered
 * into dres. */
static void project_bwd(ist_decoder *d, const ist_pass *p, int64_t n, int64_t real,
                        const int32_t *target) {
  const ist_backend *be = d->ctx->be;
  ist_view logits = ist_view_rows(d->logits, 0, n), dlogits = logits;
  if (d->compute != d->wide)
    dlogits = ist_view_make(logits.p, d->compute, n, logits.cols, 2 * logits.stride);
  be->xent_grad(d->ctx, dlogits, logits, ist_view_rows(d->run, 0, n), target, 0,
                d->config->final_softcap, p->loss_weight);
  bool adapted = ist_outer_has_head(d);
  ist_view dh = ist_view_rows(d->config->embed_dim ? d->head_dp : d->head_dh, 0, n);
  for (int64_t v = 0; v < d->config->V; v += d->sizes.head_rows) {
    int64_t tile = d->config->V - v < d->sizes.head_rows ? d->config->V - v : d->sizes.head_rows;
    ist_view w = ist_weights_acquire_head(d->weights, d->ctx, v, tile);
    be->matmul(d->ctx, dh, ist_view_cols(dlogits, v, tile), false, w, false, v > 0);
    if (adapted) ist_outer_head_bwd(d, ist_view_cols(dlogits, v, tile), v);
  }
  if (adapted) ist_outer_head_end(d, p, dh, head_read(d, n));
  head_input_bwd(d, n);
  be->scatter_rows(d->ctx, ist_view_rows(d->dres, p->micro->boundary_row, p->micro->rows),
                   ist_view_rows(d->head_dx, 0, real), d->head_ids);
}

/* Fills the rows of a chunk up to the bucket with copies that are not supervised. */
static int64_t pad_chunk(const ist_decoder *d, int64_t n, int32_t *target) {
  int64_t padded = bucket(n) < d->sizes.head_chunk ? bucket(n) : d->sizes.head_chunk;
  for (int64_t i = n; i < padded; i++) {
    d->head_ids[i] = d->head_ids[n - 1];
    target[i] = -1;
  }
  return padded;
}

void ist_decoder_head(ist_decoder *d, const ist_pass *p, const ist_work *w) {
  const ist_backend *be = d->ctx->be;
  const ist_micro *m = p->micro;
  ist_view x = ist_decoder_boundary(d, p, w->in);
  int32_t *target = d->head_ids + d->sizes.head_chunk;
  if (w->backward) be->zero(d->ctx, ist_view_rows(d->dres, m->boundary_row, m->rows));
  int64_t from = 0, done = 0, real, most = chunk_rows(m, d->sizes.head_chunk);
  while ((real = next_rows(m, &from, most, d->head_ids)) > 0) {
    for (int64_t i = 0; i < real; i++) target[i] = m->target[d->head_ids[i]];
    int64_t n = pad_chunk(d, real, target);
    be->gather_rows(d->ctx, ist_view_rows(d->head_x, 0, n), x.p, x.dt, d->head_ids, 1.0);
    project(d, p, n);
    ist_view run = ist_view_rows(d->run, 0, n), tgt = ist_view_rows(d->tgt, 0, n);
    be->xent_tile(d->ctx, run, tgt, ist_view_rows(d->logits, 0, n), target, 0,
                  d->config->final_softcap, true);
    be->xent_loss(d->ctx, p->row_loss + done, ist_view_rows(run, 0, real),
                  ist_view_rows(tgt, 0, real));
    if (w->backward) project_bwd(d, p, n, real, target);
    done += real;
  }
}

ist_view ist_decoder_logits(ist_decoder *d, int32_t slot, int64_t row0, int64_t n) {
  d->ctx->be->copy(d->ctx, ist_view_rows(d->head_x, 0, n),
                   ist_view_rows(d->boundary[slot], row0, n));
  project(d, NULL, n);
  ist_view logits = ist_view_rows(d->logits, 0, n);
  double cap = d->config->final_softcap;
  if (cap > 0) { /* the loss applies it by itself */
    d->ctx->be->scale_rows(d->ctx, logits, 1.0 / cap, NULL);
    d->ctx->be->act_fwd(d->ctx, logits, logits, ist_view_none(), IST_ACT_TANH);
    d->ctx->be->scale_rows(d->ctx, logits, cap, NULL);
  }
  return logits;
}
