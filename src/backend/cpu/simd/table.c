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
};
