#include "peft/bottleneck.h"

ist_status ist_bottleneck_layout(ist_adapter_layout *out, const ist_adapter_config *c,
                                 const ist_linear_sizes *s, ist_error *err) {
  IST_TRY(ist_low_rank_layout(out, c, s, err));
  for (int m = 0; m < IST_MOD_COUNT; m++) {
    ist_adapter *a = &out->module[m];
    a->scale = c->scaling;
    if (a->rank && c->learned_scaling) a->learned = ist_low_rank_vector(out, s, (ist_module)m, 1);
  }
  return IST_OK;
}

void ist_bottleneck_init(const ist_adapters *ad, int64_t layer, uint64_t seed) {
  ist_low_rank_init(ad, layer, seed);
  for (int m = 0; m < IST_MOD_COUNT; m++) {
    int64_t at = ad->layout.module[m].learned;
    int64_t copies = ist_module_copies(&ad->sizes, (ist_module)m);
    if (at) ist_adapter_fill(ad, layer, at, copies, ad->config.scaling);
  }
}

void ist_bottleneck_act(ist_ctx *ctx, const ist_adapters *ad, const ist_site_call *call) {
  ctx->be->act_fwd(ctx, call->t, call->u, ist_view_none(), ad->config.act);
  ist_low_rank_scale(ctx, ad, call, call->t);
}

/* dc += sum of dt act(u): what the scaling c multiplied. Training has no suppression. */
static void scaling_grad(ist_ctx *ctx, const ist_adapters *ad, const ist_site_call *call,
                         ist_view dt) {
  ctx->be->act_fwd(ctx, call->t, call->u, ist_view_none(), ad->config.act);
  for (int i = 0; i < ist_sites[call->site].n; i++) {
    const ist_adapter a = ist_adapter_of(ad, ist_sites[call->site].module[i], call->copy);
    if (!a.learned) continue;
    ist_view dc = ist_adapter_grad(ad, call->layer, a.learned, 1, 1);
    ctx->be->dot_acc(ctx, dc, ist_view_cols(dt, a.column, a.rank),
                     ist_view_cols(call->t, a.column, a.rank));
  }
}

void ist_bottleneck_act_bwd(ist_ctx *ctx, const ist_adapters *ad, const ist_site_call *call,
                            ist_view dt) {
  if (ad->config.learned_scaling && ad->grads && ad->grad_slot[call->layer] >= 0)
    scaling_grad(ctx, ad, call, dt);
  ist_low_rank_scale(ctx, ad, call, dt);
  ctx->be->act_bwd(ctx, dt, ist_view_none(), ist_view_none(), dt, call->u, ist_view_none(),
                   ad->config.act);
}

void ist_bottleneck_bwd(ist_ctx *ctx, const ist_adapters *ad, const ist_site_call *call,
                        ist_view du, ist_view dx) {
  ist_bottleneck_act_bwd(ctx, ad, call, du);
  ist_low_rank_down_grad(ctx, ad, call, du);
  ist_low_rank_down_dx(ctx, ad, call, du, dx);
}
