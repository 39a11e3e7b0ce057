/* Copies, sums, scaling and dropout of rows. */
#include "backend/cpu/simd/table.h"

INLINE void copy_rows(const ist_move_args *m, int64_t begin, int64_t end, bool y16, bool a16) {
  int64_t n = m->y.cols;
  for (int64_t r = begin; r < end; r++) {
    void *y = row_of(&m->y, r);
    const void *a = row_of(&m->a, r);
    if (y16 == a16) {
      memmove(y, a, (size_t)(n * (y16 ? 2 : 4)));
      continue;
    }
    for (int64_t i = 0; i < n; i += VL) row_store(y, y16, i, n, row_load(a, a16, i, n));
  }
}

KERNEL(copy) {
  (void)thread;
  const ist_move_args *m = arg;
  BY_TYPE(is_bf16(&m->y), is_bf16(&m->a), copy_rows, m, begin, end);
}

INLINE void add_rows(const ist_move_args *m, int64_t begin, int64_t end, bool y16, bool a16,
                     bool b16) {
  int64_t n = m->y.cols;
  for (int64_t r = begin; r < end; r++) {
    void *y = row_of(&m->y, r);
    const void *a = row_of(&m->a, r), *b = row_of(&m->b, r);
    for (int64_t i = 0; i < n; i += VL) {
      row_store(y, y16, i, n, row_load(a, a16, i, n) + row_load(b, b16, i, n));
    }
  }
}

KERNEL(add) {
  (void)thread;
  const ist_move_args *m = arg;
  bool y16 = is_bf16(&m->y), a16 = is_bf16(&m->a), b16 = is_bf16(&m->b);
  if (y16 && a16 && b16) {
    add_rows(m, begin, end, true, true, true);
  } else if (!y16 && !a16 && !b16) {
    add_rows(m, begin, end, false, false, false);
  } else {
    add_rows(m, begin, end, y16, a16, b16);
  }
}

KERNEL(scale) {
  (void)thread;
  const ist_scale_args *s = arg;
  bool bf16 = is_bf16(&s->y);
  int64_t n = s->y.cols;
  for (int64_t r = begin; r < end; r++) {
    double factor = s->row_scale != NULL ? s->s * (double)s->row_scale[r] : s->s;
    void *y = row_of(&s->y, r);
    for (int64_t i = 0; i < n; i += VL) {
      row_store(y, bf16, i, n, row_load(y, bf16, i, n) * (float)factor);
    }
  }
}

/* ---- Dropout ------------------------------------------------------------------- */

/* hi:lo = m * c, lane by lane. */
INLINE void multiply_wide(vu *hi, vu *lo, uint32_t m, vu c) {
#if VL == 16
  __m512i factor = _mm512_set1_epi32((int)m), odd = _mm512_srli_epi64((__m512i)c, 32);
  __m512i even64 = _mm512_mul_epu32((__m512i)c, factor), odd64 = _mm512_mul_epu32(odd, factor);
  *hi = (vu)_mm512_mask_blend_epi32(0xaaaa, _mm512_srli_epi64(even64, 32), odd64);
  *lo = (vu)_mm512_mask_blend_epi32(0xaaaa, even64, _mm512_slli_epi64(odd64, 32));
#elif VL == 8
  __m256i factor = _mm256_set1_epi32((int)m), odd = _mm256_srli_epi64((__m256i)c, 32);
  __m256i even64 = _mm256_mul_epu32((__m256i)c, factor), odd64 = _mm256_mul_epu32(odd, factor);
  *hi = (vu)_mm256_blend_epi32(_mm256_srli_epi64(even64, 32), odd64, 0xaa);
  *lo = (vu)_mm256_blend_epi32(even64, _mm256_slli_epi64(odd64, 32), 0xaa);
#else
  for (int i = 0; i < VL; i++) {
    uint64_t product = (uint64_t)m * c[i];
    (*hi)[i] = (uint32_t)(product >> 32);
    (*lo)[i] = (uint32_t)product;
  }
#endif
}

/* Philox4x32-10 of VL counters at once (base/rng.c has it for one). */
INLINE void philox(vu c[4], ist_philox_key key) {
  uint32_t k0 = key.k[0], k1 = key.k[1];
  for (int round = 0; round < 10; round++) {
    vu hi_a, lo_a, hi_b, lo_b;
    multiply_wide(&hi_a, &lo_a, 0xD2511F53u, c[0]);
    multiply_wide(&hi_b, &lo_b, 0xCD9E8D57u, c[2]);
    c[0] = hi_b ^ c[1] ^ k0;
    c[1] = lo_b;
    c[2] = hi_a ^ c[3] ^ k1;
    c[3] = lo_a;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
}

/* Low and high halves of the four words of counter 0, then of counter 1, ... */
INLINE void words_in_order(uint16_t word[8 * VL], const vu c[4]) {
#if VL == 16
  __m512i c0 = (__m512i)c[0], c1 = (__m512i)c[1], c2 = (__m512i)c[2], c3 = (__m512i)c[3];
  __m512i a = _mm512_unpacklo_epi32(c0, c1), b = _mm512_unpacklo_epi32(c2, c3);
  __m512i d = _mm512_unpackhi_epi32(c0, c1), e = _mm512_unpackhi_epi32(c2, c3);
  /* u_i, 128-bit lane j: the words of counter 4 j + i. */
  __m512i u0 = _mm512_unpacklo_epi64(a, b), u1 = _mm512_unpackhi_epi64(a, b);
  __m512i u2 = _mm512_unpacklo_epi64(d, e), u3 = _mm512_unpackhi_epi64(d, e);
  __m512i even = _mm512_shuffle_i32x4(u0, u1, 0x88), odd = _mm512_shuffle_i32x4(u0, u1, 0xdd);
  __m512i even2 = _mm512_shuffle_i32x4(u2, u3, 0x88), odd2 = _mm512_shuffle_i32x4(u2, u3, 0xdd);
  _mm512_storeu_si512(word, _mm512_shuffle_i32x4(even, even2, 0x88));
  _mm512_storeu_si512(word + 32, _mm512_shuffle_i32x4(odd, odd2, 0x88));
  _mm512_storeu_si512(word + 64, _mm512_shuffle_i32x4(even, even2, 0xdd));
  _mm512_storeu_si512(word + 96, _mm512_shuffle_i32x4(odd, odd2, 0xdd));
#else
  for (int b = 0; b < VL; b++) {
    for (int q = 0; q < 4; q++) {
      word[8 * b + 2 * q] = (uint16_t)c[q][b];
      word[8 * b + 2 * q + 1] = (uint16_t)(c[q][b] >> 16);
    }
  }
#endif
}

/* The 16-bit words of channels [8 * block, 8 * (block + VL)), in order. */
INLINE void mask_words(uint16_t word[8 * VL], const ist_dropout_args *d, int64_t row,
                       uint32_t block) {
  vu c[4], lane;
  for (uint32_t i = 0; i < VL; i++) lane[i] = i;
  c[0] = d->step - (vu){0};
  /* VL divides 4096: the blocks share their high part. */
  c[1] = (d->layer_site | block >> 12 << 24) - (vu){0};
  c[2] = (uint32_t)d->sample[row] - (vu){0};
  c[3] = ((uint32_t)d->position[row] << 12) | ((block & 0xfff) + lane);
  philox(c, d->key);
  words_in_order(word, c);
}

INLINE void dropout_rows(const ist_dropout_args *d, int64_t begin, int64_t end, bool y16,
                         bool x16) {
  int64_t n = d->x.cols;
  float keep = d->threshold < 65536 ? 65536.0f / (float)(65536 - d->threshold) : 0.0f;
  vu threshold = d->threshold - (vu){0};
  for (int64_t r = begin; r < end; r++) {
    void *y = row_of(&d->y, r);
    const void *x = row_of(&d->x, r);
    uint16_t word[8 * VL];
    for (int64_t i = 0; i < n; i += VL) {
      if (i % (8 * VL) == 0) mask_words(word, d, r, (uint32_t)(i / 8));
      vu w = __builtin_convertvector(vh_load(word + i % (8 * VL)), vu);
      /* A dropped value is 0 even where x is not finite. */
      vf kept = vf_select((vi)(w >= threshold), row_load(x, x16, i, n) * keep, (vf){0});
      row_store(y, y16, i, n, d->accumulate ? row_load(y, y16, i, n) + kept : kept);
    }
  }
}

KERNEL(dropout) {
  (void)thread;
  const ist_dropout_args *d = arg;
  BY_TYPE(is_bf16(&d->y), is_bf16(&d->x), dropout_rows, d, begin, end);
}
