/* Which kernels this processor runs. */
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/cpu.h"

const char *ist_cpu_isa_wanted(void) {
  const char *name = getenv("IST_ISA");
  return name != NULL && *name != '\0' ? name : NULL;
}

/* Leaves out the sets before the one that IST_ISA names, where it is among them. */
static int limit_levels(const ist_simd *levels[4], int n) {
  const char *wanted = ist_cpu_isa_wanted();
  int first = 0;
  while (wanted != NULL && first < n && strcmp(levels[first]->name, wanted) != 0) first++;
  if (first == n) return n;
  memmove(levels, levels + first, (size_t)(n - first) * sizeof *levels);
  return n - first;
}

int ist_cpu_levels(const ist_simd *levels[4]) {
  int n = 0;
#ifdef IST_SIMD_X86
  __builtin_cpu_init();
  bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  if (avx512 && __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vnni"))
    levels[n++] = &ist_simd_avx512_bf16_table;
  if (avx512) levels[n++] = &ist_simd_avx512_table;
  if (avx2) levels[n++] = &ist_simd_avx2_table;
#endif
  levels[n++] = &ist_simd_portable_table;
  return limit_levels(levels, n);
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
