/* The linears of an input site with their adapters: where base weights (handles),
 * the method's low-rank extension and suppression meet. */
#include <math.h>

#include "model/decoder.h"

static bool has_adapter(const ist_decoder *d, int64_t layer, ist_module m) {
  return d->adapters && ist_adapter_rank(d->adapters, layer, m) > 0;
}

static bool site_has_adapter(const ist_decoder *d, int64_t layer, ist_site site) {
  bool any = false;
  for (int i = 0; i < ist_sites[site].n; i++)
    any |= has_adapter(d, layer, ist_sites[site].module[i]);
  return any;
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

/* A module's matrix: that of the expert whose tokens these are. */
static ist_view acquire(ist_decoder *d, int64_t layer, ist_module m, int64_t copy) {
  if (m < IST_MOD_EXPERTS) return ist_weights_acquire(d->weights, d->ctx, layer, m);
  return ist_weights_acquire_expert(d->weights, d->ctx, layer, (int)m - IST_MOD_EXPERTS, copy);
}

static const ist_stored *stored_of(const ist_decoder *d, int64_t layer, ist_module m,
                                   int64_t copy) {
  if (m < IST_MOD_EXPERTS) return ist_weights_stored(d->weights, layer, (int)m);
  return ist_weights_stored_expert(d->weights, layer, (int)m - IST_MOD_EXPERTS, copy);
}

static void release(ist_decoder *d, int64_t layer, ist_module m) {
  if (m < IST_MOD_EXPERTS) ist_weights_release(d->weights, layer, m);
}

static ist_view bias_of(const ist_decoder *d, int64_t layer, ist_module m) {
  return m < IST_MOD_EXPERTS ? ist_weights_bias(d->weights, layer, (int)m) : ist_view_none();
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
      .copy = p->micro->expert,
      .x = x,
      .u = u,
      .stored = x.rows <= d->sizes.stored_rows,
      .dropout = dropout->p > 0 && p->train ? dropout : NULL,
      .row_factor = row_factors(d, p, layer),
      .factor = layer_factor(p, layer),
      .t = ist_view_make(d->t.p, d->compute, x.rows, lay->site_rank[site], lay->site_rank[site]),
      .a_compute = ist_view_make(d->a_compute.p, d->compute, lay->site_rank[site], x.cols, x.cols),
      .x_dropped = ist_view_make(d->x_dropped.p, d->compute, x.rows, x.cols, x.cols),
      .tmp = ist_view_make(d->dtmp.p, d->compute, x.rows, x.cols, x.cols),
  };
}

/* What the linears of the site take: u, or what the method makes of it, in scratch. */
static ist_view extension(ist_decoder *d, const ist_site_call *call) {
  const ist_adapters *ad = d->adapters;
  if (!ad->method->extend) return call->u;
  ad->method->extend(d->ctx, ad, call);
  return call->t;
}

/* B in the compute type: behind W's columns where the weight has a tail, so that
 * [x|u] [W|B]^T is one product; else in scratch or, in the wide type, in place. */
static ist_view place_b(ist_decoder *d, int64_t layer, ist_module m, int64_t copy, ist_view w) {
  const ist_adapter ad = ist_adapter_of(d->adapters, m, copy);
  ist_view b = ist_adapter_param(d->adapters, layer, ad.b, ad.out, ad.rank);
  ist_view place = ist_view_none();
  if (ist_weights_has_tail(d->weights, layer, m)) {
    place = ist_view_make((unsigned char *)w.p + ist_dtype_bytes(w.dt, w.cols), w.dt, w.rows,
                          ad.rank, w.stride);
  } else if (b.dt != d->compute) {
    place = ist_view_make(d->b_compute.p, d->compute, ad.out, ad.rank, ad.rank);
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

static ist_view norms_of(const ist_decoder *d, int64_t layer, ist_module m, int64_t copy,
                         int64_t out) {
  return ist_view_cols(ist_view_rows(d->norms, 3 * layer, 3), d->norm_column[m] + copy * out, out);
}

/* Which of them hold. */
static uint8_t *fresh_of(const ist_decoder *d, int64_t layer, ist_module m, int64_t copy) {
  if (!d->norm_fresh) return NULL;
  return &d->norm_fresh[layer * d->norm_matrices + d->norm_first[m] + copy];
}

/* A linear that the method does itself. */
static ist_linear_call linear_call(ist_decoder *d, const ist_pass *p, const ist_site_call *site,
                                   ist_module m, ist_view w, ist_view b) {
  const ist_adapters *ad = d->adapters;
  const ist_adapter own = ist_adapter_of(ad, m, site->copy);
  int64_t rows = p->micro->rows, out = w.rows, rank = own.rank;
  ist_view a = ad->dt == d->compute ? ist_adapter_param(ad, site->layer, own.a, rank, own.in)
                                    : ist_view_rows(site->a_compute, own.column, rank);
  return (ist_linear_call){
      .site = site,
      .module = m,
      .w = w,
      .bias = bias_of(d, site->layer, m),
      .u = ist_view_cols(site->u, own.column, rank),
      .a = a,
      .b = b,
      .norms =
          ad->method->magnitude ? norms_of(d, site->layer, m, site->copy, out) : ist_view_none(),
      .fresh = fresh_of(d, site->layer, m, site->copy),
      .wide = ist_view_make(d->linear_wide.p, d->wide, rows, out, out),
      .narrow = ist_view_make(d->linear_narrow.p, d->compute, rows, out, out),
      .gain = ist_view_make(d->gain.p, d->wide, 3, out, out),
      .product = ist_view_make(d->norm_product.p, d->wide, 2 * out + rank, rank, rank),
      .active = is_active(p, site->layer),
  };
}

/* B's bias: y += s f bias. */
static void add_bias(ist_decoder *d, const ist_site_call *call, ist_module m, ist_view y) {
  const ist_adapter own = ist_adapter_of(d->adapters, m, call->copy);
  if (!own.bias) return;
  d->ctx->be->add_bias(d->ctx, y, ist_adapter_param(d->adapters, call->layer, own.bias, 1, y.cols),
                       ist_adapter_scale(d->adapters, call->layer, m, call->copy) * call->factor,
                       call->row_factor);
}

/* The method leaves linears of few rows to the backend, which reads W as it is stored. */
static bool reads_stored(const ist_decoder *d, const ist_peft_method *method, int64_t rows) {
  return rows <= d->sizes.stored_rows && (!method || !method->linear_fwd);
}

/* All linears of a site at once; B is read as it is. */
static void stored_fwd(ist_decoder *d, const ist_site_call *call, int64_t layer, ist_site site,
                       int64_t copy, ist_view x, ist_view t, const ist_view *y) {
  ist_stored_linear l[IST_STORED_LINEARS];
  int n = 0;
  for (int i = 0; i < ist_sites[site].n; i++) {
    ist_module m = ist_sites[site].module[i];
    if (!y[i].p) continue;
    ist_stored_linear own = {.y = y[i], .x = x, .bias = bias_of(d, layer, m)};
    if (has_adapter(d, layer, m)) {
      const ist_adapter ad = ist_adapter_of(d->adapters, m, copy);
      own.u = ist_view_cols(t, ad.column, ad.rank);
      own.b = ist_adapter_param(d->adapters, layer, ad.b, y[i].cols, ad.rank);
    }
    n += ist_stored_linears(l + n, &own, stored_of(d, layer, m, copy));
  }
  d->ctx->be->linear_stored(d->ctx, l, n, d->sizes.stored_how);
  for (int i = 0; i < ist_sites[site].n; i++) {
    ist_module m = ist_sites[site].module[i];
    if (y[i].p && has_adapter(d, layer, m)) add_bias(d, call, m, y[i]);
  }
}

void ist_site_fwd(ist_decoder *d, const ist_pass *p, int64_t layer, ist_site site, ist_view x,
                  ist_view u, const ist_view *y) {
  bool adapted = site_has_adapter(d, layer, site);
  const ist_peft_method *method = adapted ? d->adapters->method : NULL;
  ist_dropout dropout;
  ist_site_call call;
  ist_view t = u;
  if (adapted) {
    dropout = site_dropout(d, p, layer, site);
    call = site_call(d, p, layer, site, x, u, &dropout);
    method->fwd(d->ctx, d->adapters, &call);
    t = extension(d, &call);
  }
  if (reads_stored(d, method, x.rows)) {
    stored_fwd(d, &call, layer, site, p->micro->expert, x, t, y);
    return;
  }
  for (int i = 0; i < ist_sites[site].n; i++) {
    ist_module m = ist_sites[site].module[i];
    if (!y[i].p) continue;
    ist_view w = acquire(d, layer, m, p->micro->expert);
    bool mine = has_adapter(d, layer, m);
    ist_view b = mine ? place_b(d, layer, m, p->micro->expert, w) : ist_view_none();
    if (mine && method->linear_fwd) {
      ist_linear_call own = linear_call(d, p, &call, m, w, b);
      method->linear_fwd(d->ctx, d->adapters, &own, y[i]);
    } else {
      ist_view tm = mine ? place_u(d, layer, m, x, t) : ist_view_none();
      d->ctx->be->linear_fwd(d->ctx, y[i], x, w, bias_of(d, layer, m), tm, b);
      if (mine) add_bias(d, &call, m, y[i]);
    }
    release(d, layer, m);
  }
}

/* One linear of a site backward, with B's gradient. */
static void module_bwd(ist_decoder *d, const ist_pass *p, const ist_site_call *call, ist_module m,
                       ist_view dx, bool acc, ist_view dum, ist_view dy, ist_view t) {
  const ist_backend *be = d->ctx->be;
  const ist_adapters *ad = d->adapters;
  int64_t layer = call->layer;
  bool mine = dum.p != NULL;
  ist_view w = acquire(d, layer, m, p->micro->expert);
  ist_view b = mine ? place_b(d, layer, m, p->micro->expert, w) : ist_view_none();
  if (mine && ad->method->linear_bwd) {
    ist_linear_call own = linear_call(d, p, call, m, w, b);
    ad->method->linear_bwd(d->ctx, ad, &own, dx, acc, dum, dy);
  } else {
    be->linear_bwd(d->ctx, dx, acc, dum, dy, w, b);
  }
  release(d, layer, m);
  if (!mine || ad->method->linear_bwd || !is_active(p, layer)) return;
  const ist_adapter own = ist_adapter_of(ad, m, call->copy);
  ist_view db = ist_adapter_grad(ad, layer, own.b, dy.cols, own.rank);
  be->matmul(d->ctx, db, dy, true, ist_view_cols(t, own.column, own.rank), false, 1);
  if (own.bias)
    be->col_sum(d->ctx, ist_adapter_grad(ad, layer, own.bias, 1, dy.cols), dy,
                ist_adapter_scale(ad, layer, m, call->copy));
}

void ist_site_bwd(ist_decoder *d, const ist_pass *p, int64_t layer, ist_site site, ist_view dx,
                  const ist_view *dy, ist_view x, ist_view u) {
  bool adapted = site_has_adapter(d, layer, site), acc = false;
  int64_t rows = p->micro->rows;
  ist_view du = ist_view_none(), t = u;
  ist_site_call call = {.layer = layer, .site = site, .copy = p->micro->expert};
  ist_dropout dropout;
  if (adapted) {
    int64_t rank = d->adapters->layout.site_rank[site];
    int64_t in = site_width(d, site);
    if (!x.p) x = ist_view_make(NULL, d->compute, rows, in, in);
    du = ist_view_make(d->du.p, d->compute, rows, rank, rank);
    dropout = site_dropout(d, p, layer, site);
    call = site_call(d, p, layer, site, x, u, &dropout);
    if (is_active(p, layer)) t = extension(d, &call);
  }
  for (int i = 0; i < ist_sites[site].n; i++) {
    ist_module m = ist_sites[site].module[i];
    const ist_adapter *ad = adapted ? &d->adapters->layout.module[m] : NULL;
    bool mine = has_adapter(d, layer, m);
    ist_view dum = ad && ad->rank ? ist_view_cols(du, ad->column, ad->rank) : ist_view_none();
    if (dum.p && !mine) { /* the layer's own adapters are fewer than the layout's */
      d->ctx->be->zero(d->ctx, dum);
      dum = ist_view_none();
    }
    if (!dy[i].p || (!dx.p && !mine)) continue;
    module_bwd(d, p, &call, m, dx, acc, dum, dy[i], t);
    acc = true;
  }
  if (!adapted) return;
  d->adapters->method->bwd(d->ctx, d->adapters, &call, du, dx);
}

void ist_decoder_adapters_changed(ist_decoder *d, int64_t layer) {
  if (!d->norm_fresh) return;
  for (int64_t i = 0; i < d->config->L * d->norm_matrices; i++) {
    if (layer < 0 || i / d->norm_matrices == layer) d->norm_fresh[i] &= IST_NORM_BASE;
  }
}

/* m = |W|, so that the gain of a fresh adapter is 1. */
static void init_magnitude(ist_decoder *d, int64_t layer, ist_module m, int64_t copy) {
  const ist_adapters *ad = d->adapters;
  ist_view w = acquire(d, layer, m, copy);
  ist_view mag = ist_adapter_param(ad, layer, ist_adapter_of(ad, m, copy).m, 1, w.rows);
  d->ctx->be->row_dot(d->ctx, mag, w, w);
  release(d, layer, m);
  for (int64_t i = 0; i < mag.cols; i++) ist_view_set(mag, i, sqrt(ist_view_get(mag, i)));
}

void ist_decoder_init_adapters(ist_decoder *d, uint64_t seed) {
  const ist_adapters *ad = d->adapters;
  for (int64_t l = 0; l < ad->L; l++) {
    ad->method->init(ad, l, seed);
    for (int m = 0; ad->method->magnitude && m < IST_MOD_COUNT; m++) {
      if (!ist_adapter_rank(ad, l, (ist_module)m) || !ist_model_has(d->config, l, (ist_module)m))
        continue;
      int64_t copies = ist_module_copies(&ad->sizes, (ist_module)m);
      for (int64_t i = 0; i < copies; i++) init_magnitude(d, l, (ist_module)m, i);
    }
  }
  ist_outer_init(ad, seed);
  ist_decoder_adapters_changed(d, -1);
}
