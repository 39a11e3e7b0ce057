/* Quanta of stored rows as bytes, for the integer products of stored.c.
 *
 * A row is read a chunk of 128 elements at a time: four groups of 32 quanta, each
 * group's values being scale * quantum + offset (Q6_K: a scale for every 16). Quanta
 * are unsigned; those that the file keeps signed are moved up and their offset down.
 * In the last chunk of a row the last group stands for those that are not there: their
 * inputs are 0. */
#ifndef IST_CPU_SIMD_QUANTA_H
#define IST_CPU_SIMD_QUANTA_H

#include "backend/cpu/simd/dot.h"
#include "format/quant_impl.h"

#if IST_SIMD_LEVEL >= 1

/* The integer dot of level 3 takes any bytes, that of AVX2 bytes up to 127. */
#define SIGNED_Q8 (IST_SIMD_LEVEL < 3)

typedef struct chunk {
  __m256i q[4];
  __m256 scale, offset; /* of every 32: the first four lanes; of every 16: all eight */
} chunk;

INLINE __m128i load16(const uint8_t *p) {
  return _mm_loadu_si128((const __m128i *)(const void *)p);
}
INLINE __m256i load32(const uint8_t *p) {
  return _mm256_loadu_si256((const __m256i *)(const void *)p);
}
INLINE uint32_t word_at(const uint8_t *p) {
  uint32_t w;
  memcpy(&w, p, sizeof w);
  return w;
}
INLINE uint16_t half_at(const uint8_t *p) {
  uint16_t h;
  memcpy(&h, p, sizeof h);
  return h;
}
INLINE float f16_at(const uint8_t *p) {
  return _cvtsh_ss(half_at(p));
}

/* The F16 at the head of four blocks. */
INLINE __m128 heads(const uint8_t *const b[4]) {
  uint64_t h = half_at(b[0]) | (uint64_t)half_at(b[1]) << 16 | (uint64_t)half_at(b[2]) << 32 |
               (uint64_t)half_at(b[3]) << 48;
  return _mm_cvtph_ps(_mm_cvtsi64_si128((long long)h));
}
/* The two F16 at the head of four blocks: all the first ones, then all the second. */
INLINE __m256 head_pairs(const uint8_t *const b[4]) {
  __m128i w = _mm_setr_epi32((int)word_at(b[0]), (int)word_at(b[1]), (int)word_at(b[2]),
                             (int)word_at(b[3]));
  const __m128i order = _mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15);
  return _mm256_cvtph_ps(_mm_shuffle_epi8(w, order));
}

/* Scales of four groups, with offsets in a fixed ratio to them. */
INLINE void set_scales(chunk *c, __m128 scale, float ratio) {
  c->scale = _mm256_castps128_ps256(scale);
  c->offset = _mm256_castps128_ps256(_mm_mul_ps(scale, _mm_set1_ps(ratio)));
}
INLINE void set_pairs(chunk *c, __m256 pairs) {
  c->scale = pairs;
  c->offset = _mm256_castps128_ps256(_mm256_extractf128_ps(pairs, 1));
}

/* 16 bytes of nibbles: the low ones, then the high ones. */
INLINE __m256i nibbles(const uint8_t *p) {
  __m128i q = load16(p);
  __m256i both = _mm256_inserti128_si256(_mm256_castsi128_si256(q), _mm_srli_epi16(q, 4), 1);
  return _mm256_and_si256(both, _mm256_set1_epi8(15));
}
/* 16 where bit i of the word is set, in byte i. */
INLINE __m256i fifth_bits(uint32_t word) {
#if IST_SIMD_LEVEL >= 2
  return _mm256_maskz_set1_epi8(word, 16);
#else
  const __m256i spread =
      _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
  const __m256i bit = _mm256_set1_epi64x((long long)0x8040201008040201);
  __m256i bytes = _mm256_shuffle_epi8(_mm256_set1_epi32((int)word), spread);
  bytes = _mm256_cmpeq_epi8(_mm256_and_si256(bytes, bit), bit);
  return _mm256_and_si256(bytes, _mm256_set1_epi8(16));
#endif
}

/* Groups `g` (four of them) of types whose block is a group. */
INLINE void load_q4_0(chunk *c, const uint8_t *const b[4]) {
  UNROLL for (int i = 0; i < 4; i++) c->q[i] = nibbles(b[i] + 2);
  set_scales(c, heads(b), -8.0f);
}
INLINE void load_q4_1(chunk *c, const uint8_t *const b[4]) {
  UNROLL for (int i = 0; i < 4; i++) c->q[i] = nibbles(b[i] + 4);
  set_pairs(c, head_pairs(b));
}
INLINE void load_q5_0(chunk *c, const uint8_t *const b[4]) {
  UNROLL for (int i = 0; i < 4; i++) c->q[i] =
      _mm256_or_si256(nibbles(b[i] + 6), fifth_bits(word_at(b[i] + 2)));
  set_scales(c, heads(b), -16.0f);
}
INLINE void load_q5_1(chunk *c, const uint8_t *const b[4]) {
  UNROLL for (int i = 0; i < 4; i++) c->q[i] =
      _mm256_or_si256(nibbles(b[i] + 8), fifth_bits(word_at(b[i] + 4)));
  set_pairs(c, head_pairs(b));
}
INLINE void load_q8_0(chunk *c, const uint8_t *const b[4]) {
  UNROLL for (int i = 0; i < 4; i++) {
    c->q[i] = load32(b[i] + 2);
    if (!SIGNED_Q8) c->q[i] = _mm256_xor_si256(c->q[i], _mm256_set1_epi8((char)0x80));
  }
  set_scales(c, heads(b), SIGNED_Q8 ? 0.0f : -128.0f);
}

/* Scales and offsets of half a block of Q4_K or Q5_K: four groups, six bits each. */
INLINE void set_k_scales(chunk *c, const uint8_t *block, int64_t half) {
  uint32_t a = word_at(block + 4), b = word_at(block + 8), d = word_at(block + 12);
  uint32_t scale = a & 0x3f3f3f3f, min = b & 0x3f3f3f3f;
  if (half) {
    scale = (d & 0x0f0f0f0f) | (a >> 6 & 0x03030303) << 4;
    min = (d >> 4 & 0x0f0f0f0f) | (b >> 6 & 0x03030303) << 4;
  }
  __m128 s = _mm_cvtepi32_ps(_mm_cvtepu8_epi32(_mm_cvtsi32_si128((int)scale)));
  __m128 m = _mm_cvtepi32_ps(_mm_cvtepu8_epi32(_mm_cvtsi32_si128((int)min)));
  c->scale = _mm256_castps128_ps256(_mm_mul_ps(s, _mm_set1_ps(f16_at(block))));
  c->offset = _mm256_castps128_ps256(_mm_mul_ps(m, _mm_set1_ps(-f16_at(block + 2))));
}
/* Low and high nibbles of 32 bytes, groups 2 i and 2 i + 1 of the half. */
INLINE void nibble_pairs(chunk *c, const uint8_t *q) {
  const __m256i low = _mm256_set1_epi8(15);
  UNROLL for (int i = 0; i < 2; i++) {
    __m256i both = load32(q + 32 * i);
    c->q[2 * i] = _mm256_and_si256(both, low);
    c->q[2 * i + 1] = _mm256_and_si256(_mm256_srli_epi16(both, 4), low);
  }
}
INLINE void load_q4_k(chunk *c, const uint8_t *block, int64_t half) {
  nibble_pairs(c, block + 16 + 64 * half);
  set_k_scales(c, block, half);
}
INLINE void load_q5_k(chunk *c, const uint8_t *block, int64_t half) {
  nibble_pairs(c, block + 48 + 64 * half);
  __m256i bits = load32(block + 16);
  if (half) bits = _mm256_srli_epi16(bits, 4);
  UNROLL for (int i = 0; i < 4; i++) {
    __m256i one = _mm256_and_si256(_mm256_srli_epi16(bits, i), _mm256_set1_epi8(1));
    c->q[i] = _mm256_or_si256(c->q[i], _mm256_slli_epi16(one, 4));
  }
  set_k_scales(c, block, half);
}
INLINE void load_q6_k(chunk *c, const uint8_t *block, int64_t half) {
  __m256i high = load32(block + 128 + 32 * half), top = _mm256_set1_epi8(48);
  nibble_pairs(c, block + 64 * half);
  /* Groups 0, 1 are the low nibbles of both runs of 32 bytes; 2, 3 the high ones. */
  __m256i second = c->q[1];
  c->q[1] = c->q[2];
  c->q[2] = second;
  c->q[0] = _mm256_or_si256(c->q[0], _mm256_and_si256(_mm256_slli_epi16(high, 4), top));
  c->q[1] = _mm256_or_si256(c->q[1], _mm256_and_si256(_mm256_slli_epi16(high, 2), top));
  c->q[2] = _mm256_or_si256(c->q[2], _mm256_and_si256(high, top));
  c->q[3] = _mm256_or_si256(c->q[3], _mm256_and_si256(_mm256_srli_epi16(high, 2), top));
  __m128i sc = _mm_loadl_epi64((const __m128i *)(const void *)(block + 192 + 8 * half));
  c->scale = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(sc)),
                           _mm256_set1_ps(f16_at(block + 208)));
  c->offset = _mm256_mul_ps(c->scale, _mm256_set1_ps(-32.0f));
}

/* Bytes of a block; a number where the type is. */
INLINE int64_t bytes_of(ist_dtype type) {
  return type == IST_Q4_0   ? 18
         : type == IST_Q4_1 ? 20
         : type == IST_Q5_0 ? 22
         : type == IST_Q5_1 ? 24
         : type == IST_Q8_0 ? 34
         : type == IST_Q4_K ? 144
         : type == IST_Q5_K ? 176
                            : 210;
}

/* The blocks of four groups, of which `there` are. */
INLINE void four_blocks(const uint8_t *b[4], const uint8_t *first, ist_dtype type, int64_t there) {
  UNROLL for (int i = 0; i < 4; i++) {
    int64_t block = i < there ? i : there - 1;
    b[i] = first + block * bytes_of(type);
  }
}

/* Chunk `at` of a row; `there`: its groups, 4 but for the last chunk. */
INLINE void load_chunk(chunk *c, const uint8_t *row, ist_dtype type, int64_t at, int64_t there) {
  if (type == IST_Q4_K || type == IST_Q5_K || type == IST_Q6_K) {
    const uint8_t *block = row + at / 2 * bytes_of(type);
    if (type == IST_Q4_K) load_q4_k(c, block, at % 2);
    if (type == IST_Q5_K) load_q5_k(c, block, at % 2);
    if (type == IST_Q6_K) load_q6_k(c, block, at % 2);
    return;
  }
  const uint8_t *b[4];
  four_blocks(b, row + 4 * at * bytes_of(type), type, there);
  if (type == IST_Q4_0) load_q4_0(c, b);
  if (type == IST_Q4_1) load_q4_1(c, b);
  if (type == IST_Q5_0) load_q5_0(c, b);
  if (type == IST_Q5_1) load_q5_1(c, b);
  if (type == IST_Q8_0) load_q8_0(c, b);
}

#endif
#endif
