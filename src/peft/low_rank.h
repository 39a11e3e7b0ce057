/* What the methods with a down product A at a site and an up product B at each
 * linear have in common (LoRA, DoRA, bottleneck adapters). */
#ifndef IST_PEFT_LOW_RANK_H
#define IST_PEFT_LOW_RANK_H

#include "peft/peft.h"

/* outer.c: adapters on embedding and head. */
ist_status ist_outer_layout_of(ist_outer_layout *out, const ist_peft_method *method,
                               const ist_adapter_config *c, const ist_linear_sizes *s,
                               ist_error *err);

/* Offsets of every A and B; ranks and alphas by module. Vectors are appended with
 * ist_low_rank_vector, which returns their offset. */
ist_status ist_low_rank_layout(ist_adapter_layout *out, const ist_adapter_config *c,
                               const ist_linear_sizes *s, ist_error *err);
int64_t ist_low_rank_vector(ist_adapter_layout *out, const ist_linear_sizes *s, ist_module m,
                            int64_t n);
/* A ~ U(-1/sqrt(in), 1/sqrt(in)) (PEFT's default: Kaiming with a = sqrt 5), or N(0, 1)
 * / rank; B = 0. */
void ist_low_rank_init(const ist_adapters *ad, int64_t layer, uint64_t seed);
/* The first `rank` rows of one A. */
void ist_low_rank_random(const ist_adapters *ad, ist_view a, int64_t rank, ist_rng rng);
/* u = drop(x) A^T, and its backward: dA += du^T drop(x), dx += mask(du A). */
void ist_low_rank_down(ist_ctx *ctx, const ist_adapters *ad, const ist_site_call *call);
void ist_low_rank_down_grad(ist_ctx *ctx, const ist_adapters *ad, const ist_site_call *call,
                            ist_view du);
void ist_low_rank_down_dx(ist_ctx *ctx, const ist_adapters *ad, const ist_site_call *call,
                          ist_view du, ist_view dx);
/* The columns of u (or du) of each module, times its scale and the suppression. */
void ist_low_rank_scale(ist_ctx *ctx, const ist_adapters *ad, const ist_site_call *call,
                        ist_view u);
/* The two as a linear method's whole site: u = s f drop(x) A^T and its backward. */
void ist_low_rank_fwd(ist_ctx *ctx, const ist_adapters *ad, const ist_site_call *call);
void ist_low_rank_bwd(ist_ctx *ctx, const ist_adapters *ad, const ist_site_call *call, ist_view du,
                      ist_view dx);
/* drop(x), or x itself without dropout. */
ist_view ist_low_rank_input(ist_ctx *ctx, const ist_site_call *call);
double ist_low_rank_flops(const ist_adapters *ad);
double ist_low_rank_flops_bwd(const ist_adapters *ad, bool active);

#endif
