/* The vectors that the kernels of this folder are written in: VL floats, with the
 * few functions that C has no operator for. Each kernel is compiled once per
 * instruction set (IST_SIMD_LEVEL, cmake/cpu.cmake):
 *   0 portable (GCC vector extensions, 128 bits)   1 AVX2, FMA
 *   2 AVX-512 (F, BW, VL, DQ)                       3 the same, BF16 and VNNI */
#ifndef IST_CPU_SIMD_VEC_H
#define IST_CPU_SIMD_VEC_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "base/dtype.h"

#if IST_SIMD_LEVEL >= 1
#include <immintrin.h>
#endif

#if IST_SIMD_LEVEL >= 2
#define VL 16
#elif IST_SIMD_LEVEL == 1
#define VL 8
#else
#define VL 4
#endif
#define BF16_DOT (IST_SIMD_LEVEL >= 3)

/* The symbol of a kernel at this level: SIMD(gemm) is ist_simd_avx2_gemm, ... */
#define SIMD_JOIN(level, name) ist_simd_##level##_##name
#if IST_SIMD_LEVEL == 3
#define SIMD(name) SIMD_JOIN(avx512_bf16, name)
#elif IST_SIMD_LEVEL == 2
#define SIMD(name) SIMD_JOIN(avx512, name)
#elif IST_SIMD_LEVEL == 1
#define SIMD(name) SIMD_JOIN(avx2, name)
#else
#define SIMD(name) SIMD_JOIN(portable, name)
#endif

#define INLINE static inline __attribute__((always_inline, unused))

typedef float vf __attribute__((vector_size(4 * VL)));
typedef int32_t vi __attribute__((vector_size(4 * VL)));
typedef uint32_t vu __attribute__((vector_size(4 * VL)));
typedef uint16_t vh __attribute__((vector_size(2 * VL)));
/* The same in memory, at any address: the tensors of a safetensors file begin where its header
 * happens to end. */
typedef float vf_mem __attribute__((vector_size(4 * VL), aligned(1), may_alias));
typedef uint32_t vu_mem __attribute__((vector_size(4 * VL), aligned(1), may_alias));
typedef uint16_t vh_mem __attribute__((vector_size(2 * VL), aligned(1), may_alias));

INLINE vf vf_set(float x) {
  return x - (vf){0};
}
INLINE vi vi_set(int32_t x) {
  return x - (vi){0};
}
INLINE vf vf_load(const float *p) {
  return *(const vf_mem *)p;
}
INLINE void vf_store(float *p, vf x) {
  *(vf_mem *)p = x;
}
INLINE vf vf_select(vi mask, vf yes, vf no) {
  return (vf)((mask & (vi)yes) | (~mask & (vi)no));
}

/* Lanes below n of x, `other` in the rest. */
INLINE vf vf_keep(vf x, int64_t n, vf other) {
  if (n >= VL) return x;
  vi lane;
  for (int i = 0; i < VL; i++) lane[i] = i;
  return vf_select(lane < (int32_t)n, x, other);
}

/* The first n < VL elements; the others are 0. */
INLINE vf vf_load_part(const float *p, int64_t n) {
#if VL == 16
  return _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
#else
  vf x = {0};
  memcpy(&x, p, (size_t)n * sizeof *p);
  return x;
#endif
}
INLINE void vf_store_part(float *p, vf x, int64_t n) {
#if VL == 16
  _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), x);
#else
  memcpy(p, &x, (size_t)n * sizeof *p);
#endif
}

INLINE vh vh_load(const ist_bf16 *p) {
  return *(const vh_mem *)p;
}
INLINE void vh_store(ist_bf16 *p, vh x) {
  *(vh_mem *)p = x;
}
INLINE vh vh_load_part(const ist_bf16 *p, int64_t n) {
#if VL == 16
  return (vh)_mm256_maskz_loadu_epi16((__mmask16)((1u << n) - 1), p);
#else
  vh x = {0};
  memcpy(&x, p, (size_t)n * sizeof *p);
  return x;
#endif
}
INLINE void vh_store_part(ist_bf16 *p, vh x, int64_t n) {
#if VL == 16
  _mm256_mask_storeu_epi16(p, (__mmask16)((1u << n) - 1), (__m256i)x);
#else
  memcpy(p, &x, (size_t)n * sizeof *p);
#endif
}

INLINE vf vf_from_bf16(vh h) {
  return (vf)(__builtin_convertvector(h, vu) << 16);
}
/* Round to nearest even, NaN stays NaN (level 3: subnormal numbers become 0). */
INLINE vh vf_to_bf16(vf x) {
#if BF16_DOT
  return (vh)_mm512_cvtneps_pbh(x);
#else
  vu u = (vu)x, odd = (u >> 16) & 1;
  vu nan = (vu)((u & 0x7fffffff) > 0x7f800000);
  vu rounded = (u + 0x7fff + odd) >> 16, quiet = (u >> 16) | 64;
  return __builtin_convertvector((rounded & ~nan) | (quiet & nan), vh);
#endif
}

/* Elements [i, i + VL) of a row of n, as float whatever its type; 0 beyond n. */
INLINE vf row_load(const void *row, bool bf16, int64_t i, int64_t n) {
  if (bf16) {
    const ist_bf16 *p = (const ist_bf16 *)row + i;
    return vf_from_bf16(n - i >= VL ? vh_load(p) : vh_load_part(p, n - i));
  }
  const float *p = (const float *)row + i;
  return n - i >= VL ? vf_load(p) : vf_load_part(p, n - i);
}
INLINE void row_store(void *row, bool bf16, int64_t i, int64_t n, vf x) {
  if (bf16) {
    ist_bf16 *p = (ist_bf16 *)row + i;
    vh h = vf_to_bf16(x);
    if (n - i >= VL) {
      vh_store(p, h);
    } else {
      vh_store_part(p, h, n - i);
    }
    return;
  }
  float *p = (float *)row + i;
  if (n - i >= VL) {
    vf_store(p, x);
  } else {
    vf_store_part(p, x, n - i);
  }
}

/* Where either operand is NaN, the second is returned. */
INLINE vf vf_max(vf a, vf b) {
#if VL == 16
  return _mm512_max_ps(a, b);
#elif VL == 8
  return _mm256_max_ps(a, b);
#else
  return vf_select(a > b, a, b);
#endif
}
INLINE vf vf_min(vf a, vf b) {
#if VL == 16
  return _mm512_min_ps(a, b);
#elif VL == 8
  return _mm256_min_ps(a, b);
#else
  return vf_select(a < b, a, b);
#endif
}
INLINE vf vf_abs(vf x) {
  return (vf)((vi)x & 0x7fffffff);
}
INLINE vf vf_sqrt(vf x) {
#if VL == 16
  return _mm512_sqrt_ps(x);
#elif VL == 8
  return _mm256_sqrt_ps(x);
#else
  for (int i = 0; i < VL; i++) x[i] = sqrtf(x[i]);
  return x;
#endif
}

/* Sum and maximum of the lanes, as a tree: the order is fixed. */
INLINE float vf_sum(vf x) {
#if VL == 16
  return _mm512_reduce_add_ps(x);
#else
  float t[VL];
  vf_store(t, x);
  for (int half = VL / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; i++) t[i] += t[i + half];
  }
  return t[0];
#endif
}
INLINE float vf_max_lane(vf x) {
#if VL == 16
  return _mm512_reduce_max_ps(x);
#else
  float t[VL], m;
  vf_store(t, x);
  m = t[0];
  for (int i = 1; i < VL; i++) m = t[i] > m ? t[i] : m;
  return m;
#endif
}

/* To the nearest integer, |x| < 2^22. */
INLINE vf vf_round(vf x) {
#if VL == 16
  return _mm512_roundscale_ps(x, 8);
#elif VL == 8
  return _mm256_round_ps(x, 8);
#else
  /* Adding 1.5 * 2^23 leaves no room for a fraction. */
  const vf magic = vf_set(12582912.0f);
  return (x + magic) - magic;
#endif
}
/* p 2^n for an integral n in [-252, 128]. */
INLINE vf vf_scale2(vf p, vf n) {
#if VL == 16
  return _mm512_scalef_ps(p, n);
#else
  vi k = __builtin_convertvector(n, vi);
  vi a = k >> 1, b = k - a;
  return p * (vf)((a + 127) << 23) * (vf)((b + 127) << 23);
#endif
}

#endif
