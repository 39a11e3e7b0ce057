/* Which kernels this processor runs. */
#include "backend/cpu/cpu.h"

int ist_cpu_levels(const ist_simd *levels[4]) {
  int n = 0;
#ifdef IST_SIMD_X86
  __builtin_cpu_init();
  bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  if (avx512 && __builtin_cpu_supports("avx512bf16")) levels[n++] = &ist_simd_avx512_bf16_table;
  if (avx512) levels[n++] = &ist_simd_avx512_table;
  if (avx2) levels[n++] = &ist_simd_avx2_table;
#endif
  levels[n++] = &ist_simd_portable_table;
  return n;
}

static const ist_simd *best(void) {
  const ist_simd *levels[4];
  ist_cpu_levels(levels);
  return levels[0];
}

const char *ist_backend_cpu_isa(void) {
  return best()->name;
}

ist_dtype ist_backend_cpu_default_dtype(void) {
  return best()->bf16_dot ? IST_BF16 : IST_F32;
}
