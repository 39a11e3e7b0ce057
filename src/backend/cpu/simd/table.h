/* The kernels of one level, for the table of the same level. */
#ifndef IST_CPU_SIMD_TABLE_H
#define IST_CPU_SIMD_TABLE_H

#include "backend/cpu/simd/simd.h"
#include "backend/cpu/simd/vec.h"

void SIMD(gemm_plan)(ist_gemm *g, int threads);
int64_t SIMD(gemm_pack_bytes)(int64_t k, bool bf16);
void SIMD(gemm)(void *arg, int64_t begin, int64_t end, int thread);

#endif
