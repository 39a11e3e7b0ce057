/* The linears of an input site with their adapters: where base weights (handles),
 * the method's low-rank extension and suppression meet. */
#include "model/decoder.h"

static bool site_has_adapter(const ist_decoder *d, ist_site site) {
  return d->adapters && d->adapters->layout.site_rank[site] > 0;
}

static bool is_active(const ist_pass *p, int64_t layer) {
  return p->active && p->active[layer];
}

/* Factors of suppression by row for this layer; NULL when there are none. */
static const float *row_factors(ist_decoder *d, const ist_pass *p, int64_t layer) {
  if (!p->factor || !p->micro->group) return NULL;
  for (int64_t r = 0; r < p->micro->rows; r++) {
    d->row_factor[r] = p->factor[p->micro->group[r] * d->config->L + layer];
  }
  return d->row_factor;
}

static double layer_factor(const ist_pass *p, int64_t layer) {
  return p->factor && !p->micro->group ? (double)p->factor[layer] : 1.0;
}

/* Columns of the site's input, which all its modules share. */
static int64_t site_width(const ist_decoder *d, ist_site site) {
  int64_t in = 0;
  for (int i = 0; i < ist_sites[site].n && !in; i++)
    in = d->adapters->sizes.in[ist_sites[site].module[i]];
  return in;
}

static ist_dropout site_dropout(const ist_decoder *d, const ist_pass *p, int64_t layer,
                                ist_site site) {
  return (ist_dropout){
      .p = d->adapters->config.dropout,
      .key = ist_rng_key(p->seed, IST_RNG_DROPOUT),
      .step = p->step,
      .layer_site = (uint32_t)layer << 8 | (uint32_t)site,
      .sample = p->micro->sample,
      .position = p->micro->position,
  };
}

static ist_site_call site_call(ist_decoder *d, const ist_pass *p, int64_t layer, ist_site site,
                               ist_view x, ist_view u, const ist_dropout *dropout) {
  const ist_adapter_layout *lay = &d->adapters->layout;
  return (ist_site_call){
      .layer = layer,
      .site = site,
      .x = x,
      .u = u,
      .dropout = dropout->p > 0 && p->train ? dropout : NULL,
      .row_factor = row_factors(d, p, layer),
      .factor = layer_factor(p, layer),
      .a_compute = ist_view_make(d->a_compute.p, d->compute, lay->site_rank[site], x.cols, x.cols),
      .x_dropped = ist_view_make(d->x_dropped.p, d->compute, x.rows, x.cols, x.cols),
  };
}

/* B in the compute type: behind W's columns where the weight has a tail, so that
 * [x|u] [W|B]^T is one product; else in scratch or, in the wide type, in place. */
static ist_view place_b(ist_decoder *d, int64_t layer, ist_module m, ist_view w) {
  const ist_adapter *ad = &d->adapters->layout.module[m];
  ist_view b = ist_adapter_param(d->adapters, layer, ad->b, w.rows, ad->rank);
  ist_view place = ist_view_none();
  if (ist_weights_has_tail(d->weights, layer, m)) {
    place = ist_view_make((unsigned char *)w.p + ist_dtype_bytes(w.dt, w.cols), w.dt, w.rows,
                          ad->rank, w.stride);
  } else if (b.dt != d->compute) {
    place = ist_view_make(d->b_compute.p, d->compute, w.rows, ad->rank, ad->rank);
  } else {
    return b;
  }
  d->ctx->be->copy(d->ctx, place, b);
  return place;
}

/* The module's u, moved behind x's columns where B lies behind W's. */
static ist_view place_u(ist_decoder *d, int64_t layer, ist_module m, ist_view x, ist_view u) {
  const ist_adapter *ad = &d->adapters->layout.module[m];
  ist_view mine = ist_view_cols(u, ad->column, ad->rank);
  if (!ist_weights_has_tail(d->weights, layer, m) || x.stride < x.cols + ad->rank) return mine;
  ist_view tail = ist_view_make((unsigned char *)x.p + ist_dtype_bytes(x.dt, x.cols), x.dt, x.rows,
                                ad->rank, x.stride);
  d->ctx->be->copy(d->ctx, tail, mine);
  return tail;
}

void ist_site_fwd(ist_decoder *d, const ist_pass *p, int64_t layer, ist_site site, ist_view x,
                  ist_view u, const ist_view *y) {
  bool adapted = site_has_adapter(d, site);
  if (adapted) {
    ist_dropout dropout = site_dropout(d, p, layer, site);
    ist_site_call call = site_call(d, p, layer, site, x, u, &dropout);
    d->adapters->method->fwd(d->ctx, d->adapters, &call);
  }
  for (int i = 0; i < ist_sites[site].n; i++) {
    ist_module m = ist_sites[site].module[i];
    if (!y[i].p) continue;
    ist_view w = ist_weights_acquire(d->weights, d->ctx, layer, m);
    bool mine = adapted && d->adapters->layout.module[m].rank > 0;
    ist_view b = mine ? place_b(d, layer, m, w) : ist_view_none();
    ist_view um = mine ? place_u(d, layer, m, x, u) : ist_view_none();
    d->ctx->be->linear_fwd(d->ctx, y[i], x, w, ist_weights_bias(d->weights, layer, (int)m), um, b);
    ist_weights_release(d->weights, layer, m);
  }
}

void ist_site_bwd(ist_decoder *d, const ist_pass *p, int64_t layer, ist_site site, ist_view dx,
                  const ist_view *dy, ist_view x, ist_view u) {
  const ist_backend *be = d->ctx->be;
  bool adapted = site_has_adapter(d, site), acc = false;
  int64_t rows = p->micro->rows;
  ist_view du = adapted
                    ? ist_view_make(d->du.p, d->compute, rows, d->adapters->layout.site_rank[site],
                                    d->adapters->layout.site_rank[site])
                    : ist_view_none();
  for (int i = 0; i < ist_sites[site].n; i++) {
    ist_module m = ist_sites[site].module[i];
    if (!dy[i].p) continue;
    const ist_adapter *ad = adapted ? &d->adapters->layout.module[m] : NULL;
    bool mine = ad && ad->rank > 0;
    if (!dx.p && !mine) continue;
    ist_view w = ist_weights_acquire(d->weights, d->ctx, layer, m);
    ist_view b = mine ? place_b(d, layer, m, w) : ist_view_none();
    ist_view dum = mine ? ist_view_cols(du, ad->column, ad->rank) : ist_view_none();
    be->linear_bwd(d->ctx, dx, acc, dum, dy[i], w, b);
    acc = true;
    ist_weights_release(d->weights, layer, m);
    if (!mine || !is_active(p, layer)) continue;
    ist_view db = ist_adapter_grad(d->adapters, layer, ad->b, dy[i].cols, ad->rank);
    be->matmul(d->ctx, db, dy[i], true, ist_view_cols(u, ad->column, ad->rank), false, 1);
  }
  if (!adapted) return;
  ist_dropout dropout = site_dropout(d, p, layer, site);
  int64_t in = site_width(d, site);
  if (!x.p) x = ist_view_make(NULL, d->compute, rows, in, in);
  ist_site_call call = site_call(d, p, layer, site, x, u, &dropout);
  ist_view tmp = ist_view_make(d->dtmp.p, d->compute, rows, in, in);
  d->adapters->method->bwd(d->ctx, d->adapters, &call, du, dx, tmp);
}
