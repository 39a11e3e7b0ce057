/* Parallel bottleneck adapters (He et al., 2022): y = W x + c B act(A drop(x)), c the
 * scaling times the suppression.
 *
 * z = drop(x) A^T is kept, in frozen layers too: the slope of the activation needs it.
 * t = c act(z) joins the product of the linear. With dt = dy B,
 *     dz = c dt act'(z),   dA += dz^T drop(x),   dx += mask(dz A). */
#include "peft/low_rank.h"

static ist_status layout(ist_adapter_layout *out, const ist_adapter_config *c,
                         const ist_linear_sizes *s, ist_error *err) {
  IST_TRY(ist_low_rank_layout(out, c, s, err));
  for (int m = 0; m < IST_MOD_COUNT; m++) out->module[m].scale = c->scaling;
  return IST_OK;
}

static void extend(ist_ctx *ctx, const ist_adapters *ad, const ist_site_call *call, ist_view t) {
  ctx->be->act_fwd(ctx, t, call->u, ist_view_none(), ad->config.act);
  ist_low_rank_scale(ctx, ad, call, t);
}

static void bwd(ist_ctx *ctx, const ist_adapters *ad, const ist_site_call *call, ist_view du,
                ist_view dx, ist_view tmp) {
  ist_low_rank_scale(ctx, ad, call, du);
  ctx->be->act_bwd(ctx, du, ist_view_none(), ist_view_none(), du, call->u, ist_view_none(),
                   ad->config.act);
  ist_low_rank_down_bwd(ctx, ad, call, du, dx, tmp);
}

const ist_peft_method ist_peft_parallel = {
    .name = "parallel",
    .layout = layout,
    .init = ist_low_rank_init,
    .fwd = ist_low_rank_down,
    .extend = extend,
    .bwd = bwd,
    .keeps_frozen = true,
    .flops_fwd = ist_low_rank_flops,
    .flops_bwd = ist_low_rank_flops_bwd,
};
