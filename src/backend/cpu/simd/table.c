#include "backend/cpu/simd/table.h"

#if IST_SIMD_LEVEL == 3
#define NAME "avx512_bf16"
#elif IST_SIMD_LEVEL == 2
#define NAME "avx512"
#elif IST_SIMD_LEVEL == 1
#define NAME "avx2"
#else
#define NAME "portable"
#endif

const ist_simd SIMD(table) = {
    .name = NAME,
    .lanes = VL,
    .bf16_dot = BF16_DOT,
    .gemm_plan = SIMD(gemm_plan),
    .gemm_pack_bytes = SIMD(gemm_pack_bytes),
    .gemm = SIMD(gemm),
    .copy = SIMD(copy),
    .add = SIMD(add),
    .scale = SIMD(scale),
    .dropout = SIMD(dropout),
    .row_dot = SIMD(row_dot),
    .gain_mix = SIMD(gain_mix),
    .mul_cols = SIMD(mul_cols),
    .add_bias = SIMD(add_bias),
    .col_dot = SIMD(col_dot),
    .norm_fwd = SIMD(norm_fwd),
    .norm_bwd = SIMD(norm_bwd),
    .norm_bwd_params = SIMD(norm_bwd_params),
    .rope = SIMD(rope),
    .act_fwd = SIMD(act_fwd),
    .act_bwd = SIMD(act_bwd),
    .xent_tile = SIMD(xent_tile),
    .xent_grad = SIMD(xent_grad),
    .adamw = SIMD(adamw),
    .sumsq = SIMD(sumsq),
    .attention_fwd = SIMD(attention_fwd),
    .attention_one = SIMD(attention_one),
    .attention_bwd = SIMD(attention_bwd),
    .stored = SIMD(stored),
    .stored_input = SIMD(stored_input),
    .attention_scratch = SIMD(attention_scratch),
};
