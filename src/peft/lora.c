/* LoRA (Hu et al., 2021): y = W x + s B A drop(x), s = alpha / rank.
 *
 * u = s * factor * drop(x) A^T is kept for backward; B joins the product of the
 * linear (see peft.h). With dy the linear gives du = dy B, and
 *     dA += (s factor du)^T drop(x),   dx += mask((s factor du) A). */
#include "peft/low_rank.h"

static void fwd(ist_ctx *ctx, const ist_adapters *ad, const ist_site_call *call) {
  ist_low_rank_down(ctx, ad, call);
  ist_low_rank_scale(ctx, ad, call, call->u);
}

static void bwd(ist_ctx *ctx, const ist_adapters *ad, const ist_site_call *call, ist_view du,
                ist_view dx, ist_view tmp) {
  ist_low_rank_scale(ctx, ad, call, du);
  ist_low_rank_down_bwd(ctx, ad, call, du, dx, tmp);
}

const ist_peft_method ist_peft_lora = {
    .name = "lora",
    .layout = ist_low_rank_layout,
    .init = ist_low_rank_init,
    .fwd = fwd,
    .bwd = bwd,
    .flops_fwd = ist_low_rank_flops,
    .flops_bwd = ist_low_rank_flops_bwd,
};
