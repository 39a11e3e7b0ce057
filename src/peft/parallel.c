/* Parallel bottleneck adapters (He et al., 2022): y = W x + c B act(A drop(x)).
 *
 * z = drop(x) A^T is kept, in frozen layers too: the slope of the activation needs it.
 * t = c act(z) joins the product of the linear. With dt = dy B,
 *     dz = c dt act'(z),   dA += dz^T drop(x),   dx += mask(dz A). */
#include "peft/bottleneck.h"

const ist_peft_method ist_peft_parallel = {
    .name = "parallel",
    .layout = ist_bottleneck_layout,
    .init = ist_bottleneck_init,
    .fwd = ist_low_rank_down,
    .extend = ist_bottleneck_act,
    .bwd = ist_bottleneck_bwd,
    .keeps_frozen = true,
    .flops_fwd = ist_low_rank_flops,
    .flops_bwd = ist_low_rank_flops_bwd,
};
