/* Dequantisation with AVX-512 and AVX2, chosen at run time.
 *
 * The arithmetic is that of quant.c, value by value: multiply, then add, never
 * fused. Where a value depends only on a nibble and its group's scales, AVX-512
 * computes the 16 possible values once and looks them up, which is the same
 * arithmetic done fewer times (and rounded to bf16 16 values at a time).
 *
 * A kernel is one inline function with a constant `bf16`, of which BOTH makes
 * the two entry points. Offsets into y count elements. */
#include "format/quant_impl.h"

#include <stddef.h>

#if defined(__x86_64__)

#include <immintrin.h>

#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx2,f16c")))
#define AVX2   __attribute__((target("avx2,f16c")))
#define INLINE static inline __attribute__((always_inline))
#define BOTH(isa, name)                                               \
  isa static void name##_f32(void *y, const uint8_t *x, int64_t n) {  \
    name(y, x, n, false);                                             \
  }                                                                   \
  isa static void name##_bf16(void *y, const uint8_t *x, int64_t n) { \
    name(y, x, n, true);                                              \
  }

#define HALF_AT(p) _cvtsh_ss((unsigned short)((p)[0] | (p)[1] << 8))
#define LOAD16(p)  _mm_loadu_si128((const __m128i *)(p))
#define LOAD32(p)  _mm256_loadu_si256((const __m256i *)(p))

INLINE float f32_at(const uint8_t *p) {
  float v;
  memcpy(&v, p, sizeof v);
  return v;
}

INLINE void store1(void *y, int64_t at, float v, bool bf16) {
  if (bf16)
    ((ist_bf16 *)y)[at] = ist_f32_to_bf16(v);
  else
    ((float *)y)[at] = v;
}

/* ---- AVX-512 ---- */

/* Round to nearest even; NaN stays a quiet NaN, as ist_f32_to_bf16. */
AVX512 INLINE __m256i round16(__m512 v) {
  __m512i u = _mm512_castps_si512(v), high = _mm512_srli_epi32(u, 16);
  __m512i odd = _mm512_and_si512(high, _mm512_set1_epi32(1));
  __m512i up = _mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  __m512i r =
      _mm512_mask_or_epi32(_mm512_srli_epi32(up, 16), _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q), high,
                           _mm512_set1_epi32(64));
  return _mm512_cvtepi32_epi16(r);
}

AVX512 INLINE void store16(void *y, int64_t at, __m512 v, bool bf16) {
  if (bf16)
    _mm256_storeu_si256((__m256i *)((uint16_t *)y + at), round16(v));
  else
    _mm512_storeu_ps((float *)y + at, v);
}

/* y[lo + i] = low[q[i] & 15] and y[hi + i] = high[q[i] >> 4] for 16 bytes q; the
 * permutations look at the last four bits of an index only. */
AVX512 INLINE void look_up(void *y, int64_t lo, int64_t hi, __m128i q, __m512 low, __m512 high,
                           bool bf16) {
  if (bf16) {
    __m256i i = _mm256_cvtepu8_epi16(q);
    uint16_t *out = y;
    _mm256_storeu_si256((__m256i *)(out + lo), _mm256_permutexvar_epi16(i, round16(low)));
    _mm256_storeu_si256((__m256i *)(out + hi),
                        _mm256_permutexvar_epi16(_mm256_srli_epi16(i, 4), round16(high)));
  } else {
    __m512i i = _mm512_cvtepu8_epi32(q);
    float *out = y;
    _mm512_storeu_ps(out + lo, _mm512_permutexvar_ps(i, low));
    _mm512_storeu_ps(out + hi, _mm512_permutexvar_ps(_mm512_srli_epi32(i, 4), high));
  }
}

/* 0, 1, ... 15 */
AVX512 INLINE __m512 ramp(void) {
  return _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
}

AVX512 INLINE void f16_512(void *y, const uint8_t *x, int64_t n, bool bf16) {
  int64_t at = 0;
  for (; at + 16 <= n; at += 16) store16(y, at, _mm512_cvtph_ps(LOAD32(x + 2 * at)), bf16);
  for (; at < n; at++) store1(y, at, HALF_AT(x + 2 * at), bf16);
}

AVX512 INLINE void q4_0_512(void *y, const uint8_t *x, int64_t blocks, bool bf16) {
  __m512 levels = _mm512_sub_ps(ramp(), _mm512_set1_ps(8));
  for (int64_t at = 0; at < 32 * blocks; at += 32, x += 18) {
    __m512 values = _mm512_mul_ps(levels, _mm512_set1_ps(HALF_AT(x)));
    look_up(y, at, at + 16, LOAD16(x + 2), values, values, bf16);
  }
}

AVX512 INLINE void q4_1_512(void *y, const uint8_t *x, int64_t blocks, bool bf16) {
  for (int64_t at = 0; at < 32 * blocks; at += 32, x += 20) {
    __m512 values = _mm512_add_ps(_mm512_mul_ps(ramp(), _mm512_set1_ps(HALF_AT(x))),
                                  _mm512_set1_ps(HALF_AT(x + 2)));
    look_up(y, at, at + 16, LOAD16(x + 4), values, values, bf16);
  }
}

/* Sixteen signed bytes times a scale. */
AVX512 INLINE void scale16(void *y, int64_t at, __m128i q, __m512 scale, bool bf16) {
  store16(y, at, _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(q)), scale), bf16);
}

AVX512 INLINE void q8_0_512(void *y, const uint8_t *x, int64_t blocks, bool bf16) {
  for (int64_t at = 0; at < 32 * blocks; at += 32, x += 34) {
    __m512 d = _mm512_set1_ps(HALF_AT(x));
    scale16(y, at, LOAD16(x + 2), d, bf16);
    scale16(y, at + 16, LOAD16(x + 18), d, bf16);
  }
}

/* The 16 values of group j of a Q4_K block. */
AVX512 INLINE __m512 q4_k_values(const uint8_t *x, int j, float d, float dmin) {
  int sc, m;
  ist_q4k_scale(x + 4, j, &sc, &m);
  return _mm512_sub_ps(_mm512_mul_ps(_mm512_set1_ps(d * (float)sc), ramp()),
                       _mm512_set1_ps(dmin * (float)m));
}

AVX512 INLINE void q4_k_512(void *y, const uint8_t *x, int64_t blocks, bool bf16) {
  for (int64_t at = 0; at < 256 * blocks; at += 256, x += 144) {
    float d = HALF_AT(x), dmin = HALF_AT(x + 2);
    for (int p = 0; p < 4; p++) { /* two groups share 32 bytes */
      __m512 low = q4_k_values(x, 2 * p, d, dmin), high = q4_k_values(x, 2 * p + 1, d, dmin);
      const uint8_t *q = x + 16 + 32 * p;
      int64_t to = at + 64 * p;
      look_up(y, to, to + 32, LOAD16(q), low, high, bf16);
      look_up(y, to + 16, to + 48, LOAD16(q + 16), low, high, bf16);
    }
  }
}

/* Quanta r = 32 * part .. + 31 of half h of the Q6_K block at x, minus 32. */
AVX2 INLINE __m256i q6_k_quanta(const uint8_t *x, int h, int part) {
  __m256i low = LOAD32(x + 64 * h + 32 * (part % 2)), high = LOAD32(x + 128 + 32 * h);
  /* 16-bit shifts: the masks drop what crosses from one byte into the next. */
  if (part >= 2) low = _mm256_srli_epi16(low, 4);
  if (part == 0) high = _mm256_slli_epi16(high, 4);
  if (part == 1) high = _mm256_slli_epi16(high, 2);
  if (part == 3) high = _mm256_srli_epi16(high, 2);
  low = _mm256_and_si256(low, _mm256_set1_epi8(15));
  high = _mm256_and_si256(high, _mm256_set1_epi8(48));
  return _mm256_sub_epi8(_mm256_or_si256(low, high), _mm256_set1_epi8(32));
}

AVX512 INLINE void q6_k_512(void *y, const uint8_t *x, int64_t blocks, bool bf16) {
  for (int64_t at = 0; at < 256 * blocks; at += 256, x += 210) {
    float d = HALF_AT(x + 208);
    const int8_t *sc = (const int8_t *)x + 192;
    for (int k = 0; k < 8; k++) { /* groups of 32 with two scales each */
      __m256i q = q6_k_quanta(x, k / 4, k % 4);
      int64_t to = at + 32 * k;
      scale16(y, to, _mm256_castsi256_si128(q), _mm512_set1_ps(d * (float)sc[2 * k]), bf16);
      scale16(y, to + 16, _mm256_extracti128_si256(q, 1), _mm512_set1_ps(d * (float)sc[2 * k + 1]),
              bf16);
    }
  }
}

/* 32 bytes of five-bit quanta: the nibbles of 16 bytes at qs, low ones first, with
 * the bits of the 32-bit word at qh on top. */
AVX2 INLINE __m256i q5_quanta(const uint8_t *qs, const uint8_t *qh) {
  uint32_t word;
  memcpy(&word, qh, sizeof word);
  /* Byte i of the result gets byte i / 8 of the word, of which bit i % 8 is kept. */
  __m256i spread =
      _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
  __m256i bytes = _mm256_shuffle_epi8(_mm256_set1_epi32((int)word), spread);
  __m256i bit = _mm256_set1_epi64x((long long)0x8040201008040201);
  __m256i high =
      _mm256_and_si256(_mm256_cmpeq_epi8(_mm256_and_si256(bytes, bit), bit), _mm256_set1_epi8(16));
  __m128i q = LOAD16(qs);
  __m256i low = _mm256_inserti128_si256(_mm256_castsi128_si256(q), _mm_srli_epi16(q, 4), 1);
  return _mm256_or_si256(_mm256_and_si256(low, _mm256_set1_epi8(15)), high);
}

/* The five-bit quanta of group j of a Q5_K block. */
AVX2 INLINE __m256i q5_k_quanta(const uint8_t *x, int j) {
  __m256i low = LOAD32(x + 48 + 32 * (j / 2));
  if (j % 2) low = _mm256_srli_epi16(low, 4);
  __m256i high =
      _mm256_and_si256(_mm256_srl_epi16(LOAD32(x + 16), _mm_cvtsi32_si128(j)), _mm256_set1_epi8(1));
  return _mm256_or_si256(_mm256_and_si256(low, _mm256_set1_epi8(15)), _mm256_slli_epi16(high, 4));
}

/* Thirty-two signed bytes times a scale plus an offset. */
AVX512 INLINE void muladd32_512(void *y, int64_t at, __m256i q, float scale, float offset,
                                bool bf16) {
  __m512 a = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm256_castsi256_si128(q)));
  __m512 b = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm256_extracti128_si256(q, 1)));
  __m512 s = _mm512_set1_ps(scale), o = _mm512_set1_ps(offset);
  store16(y, at, _mm512_add_ps(_mm512_mul_ps(a, s), o), bf16);
  store16(y, at + 16, _mm512_add_ps(_mm512_mul_ps(b, s), o), bf16);
}

AVX512 INLINE void q5_0_512(void *y, const uint8_t *x, int64_t blocks, bool bf16) {
  for (int64_t at = 0; at < 32 * blocks; at += 32, x += 22) {
    __m256i q = _mm256_sub_epi8(q5_quanta(x + 6, x + 2), _mm256_set1_epi8(16));
    __m512 d = _mm512_set1_ps(HALF_AT(x));
    scale16(y, at, _mm256_castsi256_si128(q), d, bf16);
    scale16(y, at + 16, _mm256_extracti128_si256(q, 1), d, bf16);
  }
}

AVX512 INLINE void q5_1_512(void *y, const uint8_t *x, int64_t blocks, bool bf16) {
  for (int64_t at = 0; at < 32 * blocks; at += 32, x += 24)
    muladd32_512(y, at, q5_quanta(x + 8, x + 4), HALF_AT(x), HALF_AT(x + 2), bf16);
}

AVX512 INLINE void q5_k_512(void *y, const uint8_t *x, int64_t blocks, bool bf16) {
  for (int64_t at = 0; at < 256 * blocks; at += 256, x += 176) {
    float d = HALF_AT(x), dmin = HALF_AT(x + 2);
    for (int j = 0; j < 8; j++) {
      int sc, m;
      ist_q4k_scale(x + 4, j, &sc, &m);
      /* a - b is a + -b, to the bit. */
      muladd32_512(y, at + 32 * j, q5_k_quanta(x, j), d * (float)sc, -(dmin * (float)m), bf16);
    }
  }
}

AVX512 static void f32_512_bf16(void *y, const uint8_t *x, int64_t n) {
  int64_t at = 0;
  for (; at + 16 <= n; at += 16) store16(y, at, _mm512_loadu_ps(x + 4 * at), true);
  for (; at < n; at++) store1(y, at, f32_at(x + 4 * at), true);
}

BOTH(AVX512, f16_512)
BOTH(AVX512, q4_0_512)
BOTH(AVX512, q4_1_512)
BOTH(AVX512, q5_0_512)
BOTH(AVX512, q5_1_512)
BOTH(AVX512, q8_0_512)
BOTH(AVX512, q4_k_512)
BOTH(AVX512, q5_k_512)
BOTH(AVX512, q6_k_512)

/* ---- AVX2 ---- */

/* bf16 in the low half of each 32-bit lane. */
AVX2 INLINE __m256i round8(__m256 v) {
  __m256i u = _mm256_castps_si256(v), high = _mm256_srli_epi32(u, 16);
  __m256i odd = _mm256_and_si256(high, _mm256_set1_epi32(1));
  __m256i up = _mm256_add_epi32(u, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
  return _mm256_blendv_epi8(_mm256_srli_epi32(up, 16), _mm256_or_si256(high, _mm256_set1_epi32(64)),
                            nan);
}

AVX2 INLINE void store8x2(void *y, int64_t at, __m256 a, __m256 b, bool bf16) {
  if (bf16) {
    /* packus works within 128-bit lanes; the permutation puts them in order. */
    __m256i packed = _mm256_packus_epi32(round8(a), round8(b));
    _mm256_storeu_si256((__m256i *)((uint16_t *)y + at), _mm256_permute4x64_epi64(packed, 0xd8));
  } else {
    _mm256_storeu_ps((float *)y + at, a);
    _mm256_storeu_ps((float *)y + at + 8, b);
  }
}

AVX2 INLINE __m256 float8(__m128i signed_bytes) {
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(signed_bytes));
}

/* Sixteen signed bytes times a scale. */
AVX2 INLINE void mul16(void *y, int64_t at, __m128i q, __m256 scale, bool bf16) {
  store8x2(y, at, _mm256_mul_ps(float8(q), scale),
           _mm256_mul_ps(float8(_mm_srli_si128(q, 8)), scale), bf16);
}

/* Sixteen signed bytes times a scale plus an offset. */
AVX2 INLINE void muladd16(void *y, int64_t at, __m128i q, __m256 scale, __m256 offset, bool bf16) {
  store8x2(y, at, _mm256_add_ps(_mm256_mul_ps(float8(q), scale), offset),
           _mm256_add_ps(_mm256_mul_ps(float8(_mm_srli_si128(q, 8)), scale), offset), bf16);
}

AVX2 INLINE __m128i low_nibbles(__m128i q) {
  return _mm_and_si128(q, _mm_set1_epi8(15));
}
AVX2 INLINE __m128i high_nibbles(__m128i q) {
  return low_nibbles(_mm_srli_epi16(q, 4));
}

AVX2 INLINE void f16_256(void *y, const uint8_t *x, int64_t n, bool bf16) {
  int64_t at = 0;
  for (; at + 16 <= n; at += 16)
    store8x2(y, at, _mm256_cvtph_ps(LOAD16(x + 2 * at)), _mm256_cvtph_ps(LOAD16(x + 2 * at + 16)),
             bf16);
  for (; at < n; at++) store1(y, at, HALF_AT(x + 2 * at), bf16);
}

AVX2 INLINE void q4_0_256(void *y, const uint8_t *x, int64_t blocks, bool bf16) {
  for (int64_t at = 0; at < 32 * blocks; at += 32, x += 18) {
    __m256 d = _mm256_set1_ps(HALF_AT(x));
    __m128i q = LOAD16(x + 2), eight = _mm_set1_epi8(8);
    mul16(y, at, _mm_sub_epi8(low_nibbles(q), eight), d, bf16);
    mul16(y, at + 16, _mm_sub_epi8(high_nibbles(q), eight), d, bf16);
  }
}

AVX2 INLINE void q4_1_256(void *y, const uint8_t *x, int64_t blocks, bool bf16) {
  for (int64_t at = 0; at < 32 * blocks; at += 32, x += 20) {
    __m256 d = _mm256_set1_ps(HALF_AT(x)), m = _mm256_set1_ps(HALF_AT(x + 2));
    __m128i q = LOAD16(x + 4);
    muladd16(y, at, low_nibbles(q), d, m, bf16);
    muladd16(y, at + 16, high_nibbles(q), d, m, bf16);
  }
}

AVX2 INLINE void q8_0_256(void *y, const uint8_t *x, int64_t blocks, bool bf16) {
  for (int64_t at = 0; at < 32 * blocks; at += 32, x += 34) {
    __m256 d = _mm256_set1_ps(HALF_AT(x));
    mul16(y, at, LOAD16(x + 2), d, bf16);
    mul16(y, at + 16, LOAD16(x + 18), d, bf16);
  }
}

AVX2 INLINE void q5_0_256(void *y, const uint8_t *x, int64_t blocks, bool bf16) {
  for (int64_t at = 0; at < 32 * blocks; at += 32, x += 22) {
    __m256i q = _mm256_sub_epi8(q5_quanta(x + 6, x + 2), _mm256_set1_epi8(16));
    __m256 d = _mm256_set1_ps(HALF_AT(x));
    mul16(y, at, _mm256_castsi256_si128(q), d, bf16);
    mul16(y, at + 16, _mm256_extracti128_si256(q, 1), d, bf16);
  }
}

AVX2 INLINE void q5_1_256(void *y, const uint8_t *x, int64_t blocks, bool bf16) {
  for (int64_t at = 0; at < 32 * blocks; at += 32, x += 24) {
    __m256i q = q5_quanta(x + 8, x + 4);
    __m256 d = _mm256_set1_ps(HALF_AT(x)), m = _mm256_set1_ps(HALF_AT(x + 2));
    muladd16(y, at, _mm256_castsi256_si128(q), d, m, bf16);
    muladd16(y, at + 16, _mm256_extracti128_si256(q, 1), d, m, bf16);
  }
}

AVX2 INLINE void q4_k_256(void *y, const uint8_t *x, int64_t blocks, bool bf16) {
  for (int64_t at = 0; at < 256 * blocks; at += 256, x += 144) {
    float d = HALF_AT(x), dmin = HALF_AT(x + 2);
    for (int j = 0; j < 8; j++) {
      int sc, m;
      ist_q4k_scale(x + 4, j, &sc, &m);
      __m256 scale = _mm256_set1_ps(d * (float)sc), offset = _mm256_set1_ps(-(dmin * (float)m));
      __m128i a = LOAD16(x + 16 + 32 * (j / 2)), b = LOAD16(x + 32 + 32 * (j / 2));
      int64_t to = at + 32 * j;
      muladd16(y, to, j % 2 ? high_nibbles(a) : low_nibbles(a), scale, offset, bf16);
      muladd16(y, to + 16, j % 2 ? high_nibbles(b) : low_nibbles(b), scale, offset, bf16);
    }
  }
}

AVX2 INLINE void q5_k_256(void *y, const uint8_t *x, int64_t blocks, bool bf16) {
  for (int64_t at = 0; at < 256 * blocks; at += 256, x += 176) {
    float d = HALF_AT(x), dmin = HALF_AT(x + 2);
    for (int j = 0; j < 8; j++) {
      int sc, m;
      ist_q4k_scale(x + 4, j, &sc, &m);
      __m256 scale = _mm256_set1_ps(d * (float)sc), offset = _mm256_set1_ps(-(dmin * (float)m));
      __m256i q = q5_k_quanta(x, j);
      muladd16(y, at + 32 * j, _mm256_castsi256_si128(q), scale, offset, bf16);
      muladd16(y, at + 32 * j + 16, _mm256_extracti128_si256(q, 1), scale, offset, bf16);
    }
  }
}

AVX2 static void f32_256_bf16(void *y, const uint8_t *x, int64_t n) {
  int64_t at = 0;
  for (; at + 16 <= n; at += 16) {
    const float *p = (const float *)(const void *)(x + 4 * at);
    store8x2(y, at, _mm256_loadu_ps(p), _mm256_loadu_ps(p + 8), true);
  }
  for (; at < n; at++) store1(y, at, f32_at(x + 4 * at), true);
}

AVX2 INLINE void q6_k_256(void *y, const uint8_t *x, int64_t blocks, bool bf16) {
  for (int64_t at = 0; at < 256 * blocks; at += 256, x += 210) {
    float d = HALF_AT(x + 208);
    const int8_t *sc = (const int8_t *)x + 192;
    for (int k = 0; k < 8; k++) {
      __m256i q = q6_k_quanta(x, k / 4, k % 4);
      int64_t to = at + 32 * k;
      mul16(y, to, _mm256_castsi256_si128(q), _mm256_set1_ps(d * (float)sc[2 * k]), bf16);
      mul16(y, to + 16, _mm256_extracti128_si256(q, 1), _mm256_set1_ps(d * (float)sc[2 * k + 1]),
            bf16);
    }
  }
}

BOTH(AVX2, f16_256)
BOTH(AVX2, q4_0_256)
BOTH(AVX2, q4_1_256)
BOTH(AVX2, q5_0_256)
BOTH(AVX2, q5_1_256)
BOTH(AVX2, q8_0_256)
BOTH(AVX2, q4_k_256)
BOTH(AVX2, q5_k_256)
BOTH(AVX2, q6_k_256)

/* ---- Choice ---- */

#define KERNELS(name)                    \
  {                                      \
    {name##_512_f32, name##_512_bf16}, { \
      name##_256_f32, name##_256_bf16    \
    }                                    \
  }

static const struct {
  ist_dequant_x86_fn avx512[2], avx2[2]; /* [bf16] */
} kernel[IST_DTYPE_COUNT] = {
    [IST_F32] = {{NULL, f32_512_bf16}, {NULL, f32_256_bf16}}, /* to f32 it is memcpy */
    [IST_F16] = KERNELS(f16),
    [IST_Q4_0] = KERNELS(q4_0),
    [IST_Q4_1] = KERNELS(q4_1),
    [IST_Q5_0] = KERNELS(q5_0),
    [IST_Q5_1] = KERNELS(q5_1),
    [IST_Q8_0] = KERNELS(q8_0),
    [IST_Q4_K] = KERNELS(q4_k),
    [IST_Q5_K] = KERNELS(q5_k),
    [IST_Q6_K] = KERNELS(q6_k),
};

ist_quant_isa ist_quant_isa_best(void) {
  /* clang 14 cannot be asked for F16C; what has AVX2 and FMA has it too. */
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return IST_QUANT_PORTABLE;
  bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
              __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  return wide ? IST_QUANT_AVX512 : IST_QUANT_AVX2;
}

ist_dequant_x86_fn ist_dequant_x86(ist_quant_isa isa, ist_dtype t, bool bf16) {
  if (isa == IST_QUANT_AVX512) return kernel[t].avx512[bf16];
  return isa == IST_QUANT_AVX2 ? kernel[t].avx2[bf16] : NULL;
}

#else

ist_quant_isa ist_quant_isa_best(void) {
  return IST_QUANT_PORTABLE;
}

ist_dequant_x86_fn ist_dequant_x86(ist_quant_isa isa, ist_dtype t, bool bf16) {
  (void)isa, (void)t, (void)bf16;
  return NULL;
}

#endif
