/* The inner loop of every matrix product here: a tile of MR rows by NR columns in
 * registers, of an operand whose elements are broadcast and one that is read as
 * vectors.
 *
 * Operands come in units of 32 bits along k: one float, or (dot_bf16) a pair of
 * BF16, which the CPU multiplies and adds in one instruction. */
#ifndef IST_CPU_SIMD_DOT_H
#define IST_CPU_SIMD_DOT_H

#include "backend/cpu/simd/vec.h"

/* MR * 2 accumulators, two vectors and a broadcast fill the registers. */
#if VL == 16
#define MR 14
#elif VL == 8
#define MR 6
#else
#define MR 4
#endif
#define NR (2 * VL)

#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

/* Units that k elements take. */
INLINE int64_t units(int64_t k, bool dot_bf16) {
  return dot_bf16 ? (k + 1) / 2 : k;
}

INLINE vf vf_dot(vf sum, vu a, vu b, bool dot_bf16) {
#if BF16_DOT
  if (dot_bf16) return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b);
#endif
  (void)dot_bf16;
  return sum + (vf)a * (vf)b;
}

/* c[i][j] (rows ldc apart) = [c +] sum over p < n of a[i][p] b[p][j] for `rows`
 * (a height from tile_rows) and `vectors` * VL columns, vectors 1 or 2. Strides of a
 * in bytes: from row to row, from unit to unit. b is packed: NR units for each p,
 * whatever `vectors`. */
void SIMD(tile)(float *c, int64_t ldc, const void *a, int64_t a_row, int64_t a_step, const void *b,
                int64_t n, bool add, int rows, int vectors, bool dot_bf16);

/* The largest height that there is code for, at most n. */
INLINE int tile_rows(int64_t n) {
  if (n >= MR) return MR;
#if VL == 16
  if (n >= 8) return 8;
#endif
  return n >= 4 ? 4 : n >= 2 ? 2 : 1;
}

/* Exchanges rows and columns of VL vectors. */
INLINE void transpose(vu r[VL]) {
#if VL == 16
  __m512i t[16], s[16];
  UNROLL for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32((__m512i)r[i], (__m512i)r[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32((__m512i)r[i], (__m512i)r[i + 1]);
  }
  UNROLL for (int i = 0; i < 16; i += 4) {
    s[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    s[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    s[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    s[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  /* s[4 q + c], lane l: rows 4 q .. 4 q + 3 of column 4 l + c. */
  UNROLL for (int c = 0; c < 4; c++) {
    __m512i a = _mm512_shuffle_i32x4(s[c], s[4 + c], 0x88);
    __m512i b = _mm512_shuffle_i32x4(s[8 + c], s[12 + c], 0x88);
    __m512i d = _mm512_shuffle_i32x4(s[c], s[4 + c], 0xdd);
    __m512i e = _mm512_shuffle_i32x4(s[8 + c], s[12 + c], 0xdd);
    r[c] = (vu)_mm512_shuffle_i32x4(a, b, 0x88);
    r[8 + c] = (vu)_mm512_shuffle_i32x4(a, b, 0xdd);
    r[4 + c] = (vu)_mm512_shuffle_i32x4(d, e, 0x88);
    r[12 + c] = (vu)_mm512_shuffle_i32x4(d, e, 0xdd);
  }
#else
  uint32_t m[VL][VL];
  memcpy(m, r, sizeof m);
  UNROLL for (int i = 0; i < VL; i++) {
    UNROLL for (int j = 0; j < VL; j++) r[i][j] = m[j][i];
  }
#endif
}

/* Units [u, u + VL) of a row of k elements; zero beyond the row. */
INLINE vu load_units(const void *row, bool bf16, int64_t u, int64_t k, bool dot_bf16) {
#if BF16_DOT
  if (dot_bf16) {
    int64_t i = 2 * u, left = k - i;
    if (bf16) {
      const ist_bf16 *p = (const ist_bf16 *)row + i;
      if (left >= 2 * VL) return *(const vu_mem *)p;
      return left > 0 ? (vu)_mm512_maskz_loadu_epi16((__mmask32)((1ull << left) - 1), p) : (vu){0};
    }
    vf low = left > 0 ? row_load(row, false, i, k) : (vf){0};
    vf high = left > VL ? row_load(row, false, i + VL, k) : (vf){0};
    return (vu)_mm512_cvtne2ps_pbh(high, low);
  }
#endif
  (void)dot_bf16;
  return k > u ? (vu)row_load(row, bf16, u, k) : (vu){0};
}

/* Columns [j, j + VL) of rows p and (dot_bf16) p + 1 as units; `second` NULL: zeros. */
INLINE vu load_across(const void *first, const void *second, bool bf16, int64_t j, int64_t n,
                      bool dot_bf16) {
  vf a = row_load(first, bf16, j, n);
  if (!dot_bf16) return (vu)a;
  vf b = second != NULL ? row_load(second, bf16, j, n) : (vf){0};
  if (bf16) return ((vu)a >> 16) | (vu)b;
  vu low = __builtin_convertvector(vf_to_bf16(a), vu);
  return low | __builtin_convertvector(vf_to_bf16(b), vu) << 16;
}

#endif
