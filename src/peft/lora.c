/* LoRA (Hu et al., 2021): y = W x + s B A drop(x), s = alpha / rank.
 *
 * u = s * factor * drop(x) A^T is kept for backward; B joins the product of the
 * linear (see peft.h). With dy the linear gives du = dy B, and
 *     dA += (s factor du)^T drop(x),   dx += mask((s factor du) A).
 * B may have a bias, as PEFT's lora_bias: y += s factor bias; the linears' owner adds it
 * (src/model/site.c). */
#include "peft/low_rank.h"

static ist_status layout(ist_adapter_layout *out, const ist_adapter_config *c,
                         const ist_linear_sizes *s, ist_error *err) {
  IST_TRY(ist_low_rank_layout(out, c, s, err));
  for (int m = 0; c->lora_bias && m < IST_MOD_COUNT; m++) {
    if (out->module[m].rank)
      out->module[m].bias = ist_low_rank_vector(out, s, (ist_module)m, s->out[m]);
  }
  return IST_OK;
}

const ist_peft_method ist_peft_lora = {
    .name = "lora",
    .layout = layout,
    .init = ist_low_rank_init,
    .fwd = ist_low_rank_fwd,
    .bwd = ist_low_rank_bwd,
    .by_alpha = true,
    .flops_fwd = ist_low_rank_flops,
    .flops_bwd = ist_low_rank_flops_bwd,
};
