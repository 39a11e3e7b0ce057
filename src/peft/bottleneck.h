/* What parallel and series bottleneck adapters have in common: h(v) = c B act(A drop(v)), c
 * the scaling (fixed, or a parameter of each module) times the suppression. z = drop(v)
 * A^T is what is kept, as u; t = c act(z). */
#ifndef IST_PEFT_BOTTLENECK_H
#define IST_PEFT_BOTTLENECK_H

#include "peft/low_rank.h"

ist_status ist_bottleneck_layout(ist_adapter_layout *out, const ist_adapter_config *c,
                                 const ist_linear_sizes *s, ist_error *err);
void ist_bottleneck_init(const ist_adapters *ad, int64_t layer, uint64_t seed);
/* call->t = c act(call->u). */
void ist_bottleneck_act(ist_ctx *ctx, const ist_adapters *ad, const ist_site_call *call);
/* dt becomes dz = c dt act'(z); dc accumulates where the layer is active. Overwrites t. */
void ist_bottleneck_act_bwd(ist_ctx *ctx, const ist_adapters *ad, const ist_site_call *call,
                            ist_view dt);
/* Backward of h at a site: du (dt) is consumed, dA and dx accumulate. */
void ist_bottleneck_bwd(ist_ctx *ctx, const ist_adapters *ad, const ist_site_call *call,
                        ist_view du, ist_view dx);

#endif
