#include "peft/low_rank.h"

#include <math.h>

ist_status ist_low_rank_layout(ist_adapter_layout *out, const ist_adapter_config *c,
                               const ist_linear_sizes *s, ist_error *err) {
  if (c->rank < 1 || c->rank > 4096) {
    return ist_fail(err, IST_ERR_ARG, "rank: found %lld, expected 1 to 4096", (long long)c->rank);
  }
  if (!(c->alpha > 0) || !isfinite(c->alpha)) {
    return ist_fail(err, IST_ERR_ARG, "alpha: found %g, expected a number above 0", c->alpha);
  }
  *out = (ist_adapter_layout){0};
  int64_t at = 0;
  for (int site = 0; site < IST_SITE_COUNT; site++) {
    int64_t copies = 1;
    out->site_a[site] = at;
    for (int i = 0; i < ist_sites[site].n; i++) {
      ist_module m = ist_sites[site].module[i];
      if (!(c->modules & (1u << m))) continue;
      if (s->in[m] == 0) {
        return ist_fail(err, IST_ERR_ARG, "targets: this model's layers have no module \"%s\"",
                        ist_module_name(m));
      }
      ist_adapter *ad = &out->module[m];
      ad->rank = c->rank_of[m] ? c->rank_of[m] : c->rank;
      ad->in = s->in[m];
      ad->out = s->out[m];
      double alpha = c->alpha_of[m] > 0 ? c->alpha_of[m] : c->alpha, rank = (double)ad->rank;
      ad->scale = alpha / (c->rslora ? sqrt(rank) : rank);
      ad->a = at;
      ad->column = out->site_rank[site];
      at += ad->rank * s->in[m];
      copies = ist_module_copies(s, m);
      out->site_rank[site] += ad->rank;
      if (ad->rank > out->max_rank[site]) out->max_rank[site] = ad->rank;
    }
    int64_t step = out->site_step[site] = at - out->site_a[site];
    for (int i = 0; i < ist_sites[site].n; i++)
      out->module[ist_sites[site].module[i]].a_step = step;
    at = out->site_a[site] + copies * step;
  }
  out->plain = at;
  for (int m = 0; m < IST_MOD_COUNT; m++) {
    if (!out->module[m].rank) continue;
    out->module[m].b = at;
    at += ist_module_copies(s, (ist_module)m) * out->module[m].rank * s->out[m];
  }
  out->params = at;
  return IST_OK;
}

int64_t ist_low_rank_vector(ist_adapter_layout *out, const ist_linear_sizes *s, ist_module m,
                            int64_t n) {
  int64_t at = out->params;
  out->params += ist_module_copies(s, m) * n;
  return at;
}

void ist_low_rank_random(const ist_adapters *ad, ist_view a, int64_t rank, ist_rng rng) {
  double bound = 1.0 / sqrt((double)a.cols);
  for (int64_t i = 0; i < rank * a.cols; i++)
    ist_view_set(a, i,
                 ad->config.gaussian ? ist_rng_normal(&rng) / (double)rank
                                     : bound * (2.0 * ist_rng_uniform(&rng) - 1.0));
}

static void init_a(const ist_adapters *ad, int64_t layer, ist_module m, int64_t copy,
                   uint64_t seed) {
  const ist_adapter a = ist_adapter_of(ad, m, copy);
  /* The layout's rank may be more than the layer's own. */
  ist_low_rank_random(
      ad, ist_adapter_param(ad, layer, a.a, a.rank, a.in), ist_adapter_rank(ad, layer, m),
      ist_rng_stream(seed, IST_RNG_INIT, (uint32_t)layer, (uint32_t)m, (uint32_t)copy));
}

void ist_low_rank_init(const ist_adapters *ad, int64_t layer, uint64_t seed) {
  for (int m = 0; m < IST_MOD_COUNT; m++) {
    int64_t copies = ist_module_copies(&ad->sizes, (ist_module)m);
    for (int64_t i = 0; ist_adapter_rank(ad, layer, (ist_module)m) && i < copies; i++)
      init_a(ad, layer, (ist_module)m, i, seed);
  }
}

void ist_low_rank_scale(ist_ctx *ctx, const ist_adapters *ad, const ist_site_call *call,
                        ist_view u) {
  for (int i = 0; i < ist_sites[call->site].n; i++) {
    ist_module m = ist_sites[call->site].module[i];
    const ist_adapter *a = &ad->layout.module[m];
    if (!a->rank) continue;
    ctx->be->scale_rows(ctx, ist_view_cols(u, a->column, a->rank),
                        ist_adapter_scale(ad, call->layer, m, call->copy) * call->factor,
                        call->row_factor);
  }
}

/* Where the site's stacked A begins. */
static int64_t offset_a(const ist_adapters *ad, const ist_site_call *call) {
  return ad->layout.site_a[call->site] + call->copy * ad->layout.site_step[call->site];
}

static ist_view compute_a(ist_ctx *ctx, const ist_adapters *ad, const ist_site_call *call) {
  int64_t rank = ad->layout.site_rank[call->site], in = call->x.cols;
  ist_view a = ist_adapter_param(ad, call->layer, offset_a(ad, call), rank, in);
  if (a.dt == call->x.dt) return a;
  ctx->be->copy(ctx, call->a_compute, a);
  return call->a_compute;
}

ist_view ist_low_rank_input(ist_ctx *ctx, const ist_site_call *call) {
  if (!call->dropout) return call->x;
  ctx->be->dropout(ctx, call->x_dropped, call->x, call->dropout);
  return call->x_dropped;
}

/* u = x A^T, A in its own type. */
static void down_stored(ist_ctx *ctx, const ist_adapters *ad, const ist_site_call *call,
                        ist_view x) {
  int64_t rank = ad->layout.site_rank[call->site];
  ist_view a = ist_adapter_param(ad, call->layer, offset_a(ad, call), rank, x.cols);
  const ist_stored_linear l = {
      .y = call->u, .x = x, .w = a.p, .type = a.dt, .group = rank, .period = rank};
  ctx->be->linear_stored(ctx, &l, 1, IST_STORED_FLOAT);
}

void ist_low_rank_down(ist_ctx *ctx, const ist_adapters *ad, const ist_site_call *call) {
  ist_view x = ist_low_rank_input(ctx, call);
  if (call->stored) {
    down_stored(ctx, ad, call, x);
    return;
  }
  ctx->be->matmul(ctx, call->u, x, false, compute_a(ctx, ad, call), true, 0);
}

void ist_low_rank_down_grad(ist_ctx *ctx, const ist_adapters *ad, const ist_site_call *call,
                            ist_view du) {
  int64_t rank = ad->layout.site_rank[call->site];
  ist_view da = ist_adapter_grad(ad, call->layer, offset_a(ad, call), rank, call->x.cols);
  if (da.p) ctx->be->matmul(ctx, da, du, true, ist_low_rank_input(ctx, call), false, 1);
}

void ist_low_rank_down_dx(ist_ctx *ctx, const ist_adapters *ad, const ist_site_call *call,
                          ist_view du, ist_view dx) {
  if (!dx.p) return;
  ist_view a = compute_a(ctx, ad, call);
  if (!call->dropout) {
    ctx->be->matmul(ctx, dx, du, false, a, false, 1);
    return;
  }
  ctx->be->matmul(ctx, call->tmp, du, false, a, false, 0);
  ctx->be->dropout_bwd_acc(ctx, dx, call->tmp, call->dropout);
}

void ist_low_rank_fwd(ist_ctx *ctx, const ist_adapters *ad, const ist_site_call *call) {
  ist_low_rank_down(ctx, ad, call);
  ist_low_rank_scale(ctx, ad, call, call->u);
}

void ist_low_rank_bwd(ist_ctx *ctx, const ist_adapters *ad, const ist_site_call *call, ist_view du,
                      ist_view dx) {
  ist_low_rank_scale(ctx, ad, call, du);
  ist_low_rank_down_grad(ctx, ad, call, du);
  ist_low_rank_down_dx(ctx, ad, call, du, dx);
}

double ist_low_rank_flops(const ist_adapters *ad) {
  double flops = 0;
  for (int m = 0; m < IST_MOD_COUNT; m++) {
    const ist_adapter *a = &ad->layout.module[m];
    flops += 2.0 * ist_module_uses(&ad->sizes, (ist_module)m) * (double)a->rank *
             (double)(a->in + a->out);
  }
  return flops;
}

double ist_low_rank_flops_bwd(const ist_adapters *ad, bool active) {
  return ist_low_rank_flops(ad) * (active ? 2.0 : 1.0);
}
