/* Series bottleneck adapters (Houlsby et al., 2019), where the IST authors' code puts them.
 * In front of the linears that read a norm's output (q, k, v; gate, up), each its own:
 *     y = W (x + h(x)) + bias,
 * and behind those that write to the residual (o, down):
 *     v = W x + bias,   y = v + h(v),          h(v) = c B act(A drop(v)).
 *
 * Backward in front: dx' = dy W, dt = dx' B, dz = c dt act'(z), dx = dx' + mask(dz A).
 * Behind: dt = dy B, dv = dy + mask(dz A), dx = dv W; v is computed again for dA, in
 * active layers. z is kept in frozen layers too. */
#include "peft/bottleneck.h"

static bool in_front(ist_site site) {
  return site == IST_SITE_ATTN_IN || site == IST_SITE_MLP_IN || site == IST_SITE_SHARED_IN ||
         site == IST_SITE_EXPERT_IN;
}

/* Behind a linear A reads and B writes the linear's output. */
static ist_status layout(ist_adapter_layout *out, const ist_adapter_config *c,
                         const ist_linear_sizes *s, ist_error *err) {
  ist_linear_sizes width = *s;
  for (int m = 0; m < IST_MOD_COUNT; m++) {
    if (in_front(ist_module_site((ist_module)m))) {
      width.out[m] = s->in[m];
    } else {
      width.in[m] = s->out[m];
    }
  }
  return ist_bottleneck_layout(out, c, &width, err);
}

static ist_view shaped(ist_view memory, int64_t rows, int64_t cols) {
  return ist_view_make(memory.p, memory.dt, rows, cols, cols);
}

/* The site's call as the adapter behind the linear sees it: v is the input. */
static ist_site_call behind(const ist_linear_call *c, ist_view v) {
  ist_site_call call = *c->site;
  call.x = v;
  call.a_compute = shaped(call.a_compute, c->a.rows, v.cols);
  call.x_dropped = shaped(call.x_dropped, v.rows, v.cols);
  call.tmp = shaped(call.tmp, v.rows, v.cols);
  return call;
}

static void fwd(ist_ctx *ctx, const ist_adapters *ad, const ist_site_call *call) {
  if (in_front(call->site)) ist_low_rank_down(ctx, ad, call);
}

/* The module's columns of t. */
static ist_view activated(ist_ctx *ctx, const ist_adapters *ad, const ist_site_call *call,
                          ist_module m) {
  const ist_adapter *a = &ad->layout.module[m];
  ist_bottleneck_act(ctx, ad, call);
  return ist_view_cols(call->t, a->column, a->rank);
}

static void linear_fwd(ist_ctx *ctx, const ist_adapters *ad, const ist_linear_call *c, ist_view y) {
  const ist_backend *be = ctx->be;
  const ist_view none = ist_view_none();
  if (in_front(c->site->site)) {
    ist_view x = shaped(c->narrow, y.rows, c->w.cols);
    be->copy(ctx, x, c->site->x);
    be->matmul(ctx, x, activated(ctx, ad, c->site, c->module), false, c->b, true, 1);
    be->linear_fwd(ctx, y, x, c->w, c->bias, none, none);
    return;
  }
  be->linear_fwd(ctx, y, c->site->x, c->w, c->bias, none, none);
  ist_site_call call = behind(c, y);
  ist_low_rank_down(ctx, ad, &call);
  be->matmul(ctx, y, activated(ctx, ad, &call, c->module), false, c->b, true, 1);
}

static void grad_b(ist_ctx *ctx, const ist_adapters *ad, const ist_linear_call *c, ist_view dout) {
  const ist_adapter a = ist_adapter_of(ad, c->module, c->site->copy);
  if (!c->active) return;
  ist_view db = ist_adapter_grad(ad, c->site->layer, a.b, a.out, a.rank);
  ctx->be->matmul(ctx, db, dout, true, activated(ctx, ad, c->site, c->module), false, 1);
}

static void linear_bwd_in_front(ist_ctx *ctx, const ist_adapters *ad, const ist_linear_call *c,
                                ist_view dx, bool acc, ist_view du, ist_view dy) {
  const ist_backend *be = ctx->be;
  ist_view dsum = shaped(c->narrow, dy.rows, c->w.cols), none = ist_view_none();
  be->linear_bwd(ctx, dsum, false, none, dy, c->w, none);
  be->matmul(ctx, du, dsum, false, c->b, false, 0);
  grad_b(ctx, ad, c, dsum);
  if (dx.p && acc) be->add(ctx, dx, dx, dsum);
  if (dx.p && !acc) be->copy(ctx, dx, dsum);
}

static void linear_bwd_behind(ist_ctx *ctx, const ist_adapters *ad, const ist_linear_call *c,
                              ist_view dx, bool acc, ist_view du, ist_view dy) {
  const ist_backend *be = ctx->be;
  ist_view v = shaped(c->narrow, dy.rows, dy.cols), none = ist_view_none();
  ist_site_call call = behind(c, v);
  be->matmul(ctx, du, dy, false, c->b, false, 0);
  grad_b(ctx, ad, c, dy);
  ist_bottleneck_act_bwd(ctx, ad, &call, du);
  if (c->active) {
    be->linear_fwd(ctx, v, c->site->x, c->w, c->bias, none, none);
    ist_low_rank_down_grad(ctx, ad, &call, du);
  }
  be->copy(ctx, v, dy); /* v's memory becomes dv's */
  ist_low_rank_down_dx(ctx, ad, &call, du, v);
  be->linear_bwd(ctx, dx, acc, none, v, c->w, none);
}

static void linear_bwd(ist_ctx *ctx, const ist_adapters *ad, const ist_linear_call *c, ist_view dx,
                       bool acc, ist_view du, ist_view dy) {
  if (in_front(c->site->site)) {
    linear_bwd_in_front(ctx, ad, c, dx, acc, du, dy);
  } else {
    linear_bwd_behind(ctx, ad, c, dx, acc, du, dy);
  }
}

static void bwd(ist_ctx *ctx, const ist_adapters *ad, const ist_site_call *call, ist_view du,
                ist_view dx) {
  if (in_front(call->site)) ist_bottleneck_bwd(ctx, ad, call, du, dx);
}

/* Beside the bottlenecks, the products behind which one stands are computed again. */
static double flops_bwd(const ist_adapters *ad, bool active) {
  double flops = ist_low_rank_flops_bwd(ad, active);
  for (int m = 0; active && m < IST_MOD_COUNT; m++) {
    if (ad->layout.module[m].rank && !in_front(ist_module_site((ist_module)m)))
      flops += 2.0 * ist_module_uses(&ad->sizes, (ist_module)m) * (double)ad->sizes.in[m] *
               (double)ad->sizes.out[m];
  }
  return flops;
}

const ist_peft_method ist_peft_series = {
    .name = "series",
    .layout = layout,
    .init = ist_bottleneck_init,
    .fwd = fwd,
    .bwd = bwd,
    .linear_fwd = linear_fwd,
    .linear_bwd = linear_bwd,
    .keeps_frozen = true,
    .around = true,
    .flops_fwd = ist_low_rank_flops,
    .flops_bwd = flops_bwd,
};
