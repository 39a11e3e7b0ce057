/* Dequantisation, portable. Each function turns whole blocks into f32 with the
 * very operations and order of ggml, so that results agree to the bit: products
 * of scales first, then the quantum, then the offset, never fused. */
#include "format/quant.h"

#include "base/error.h"
#include "format/quant_impl.h"

/* The f16 at p, which need not be aligned. */
static inline float half_at(const uint8_t *p) {
  return ist_f16_to_f32((ist_f16)(p[0] | p[1] << 8));
}

static void plain_f32(float *y, const uint8_t *x, int64_t n) {
  memcpy(y, x, (size_t)n * 4);
}

static void plain_f64(float *y, const uint8_t *x, int64_t n) {
  for (int64_t i = 0; i < n; i++) {
    double v;
    memcpy(&v, x + i * 8, sizeof v);
    y[i] = (float)v;
  }
}

static void plain_f16(float *y, const uint8_t *x, int64_t n) {
  for (int64_t i = 0; i < n; i++) y[i] = half_at(x + 2 * i);
}

static void plain_bf16(float *y, const uint8_t *x, int64_t n) {
  for (int64_t i = 0; i < n; i++) y[i] = ist_bf16_to_f32((ist_bf16)(x[2 * i] | x[2 * i + 1] << 8));
}

static void q4_0(float *y, const uint8_t *x, int64_t blocks) {
  for (; blocks-- > 0; x += 18, y += 32) {
    float d = half_at(x);
    for (int i = 0; i < 16; i++) {
      y[i] = (float)((x[2 + i] & 15) - 8) * d;
      y[i + 16] = (float)((x[2 + i] >> 4) - 8) * d;
    }
  }
}

static void q4_1(float *y, const uint8_t *x, int64_t blocks) {
  for (; blocks-- > 0; x += 20, y += 32) {
    float d = half_at(x), m = half_at(x + 2);
    for (int i = 0; i < 16; i++) {
      y[i] = (float)(x[4 + i] & 15) * d + m;
      y[i + 16] = (float)(x[4 + i] >> 4) * d + m;
    }
  }
}

/* Bit i of the 32-bit word at p, moved to the place of the fifth bit. */
static inline int fifth_bit(const uint8_t *p, int i) {
  return (p[i / 8] >> i % 8 & 1) << 4;
}

static void q5_0(float *y, const uint8_t *x, int64_t blocks) {
  for (; blocks-- > 0; x += 22, y += 32) {
    float d = half_at(x);
    for (int i = 0; i < 16; i++) {
      y[i] = (float)(((x[6 + i] & 15) | fifth_bit(x + 2, i)) - 16) * d;
      y[i + 16] = (float)((x[6 + i] >> 4 | fifth_bit(x + 2, i + 16)) - 16) * d;
    }
  }
}

static void q5_1(float *y, const uint8_t *x, int64_t blocks) {
  for (; blocks-- > 0; x += 24, y += 32) {
    float d = half_at(x), m = half_at(x + 2);
    for (int i = 0; i < 16; i++) {
      y[i] = (float)((x[8 + i] & 15) | fifth_bit(x + 4, i)) * d + m;
      y[i + 16] = (float)(x[8 + i] >> 4 | fifth_bit(x + 4, i + 16)) * d + m;
    }
  }
}

static void q8_0(float *y, const uint8_t *x, int64_t blocks) {
  for (; blocks-- > 0; x += 34, y += 32) {
    float d = half_at(x);
    for (int i = 0; i < 32; i++) y[i] = (float)(int8_t)x[2 + i] * d;
  }
}

/* Two-bit quanta of the K types: half h of 128, shift group s of 32, element l. */
static inline int two_bits(const uint8_t *qs, int h, int s, int l) {
  return qs[32 * h + l] >> 2 * s & 3;
}

static void q2_k(float *y, const uint8_t *x, int64_t blocks) {
  for (; blocks-- > 0; x += 84, y += 256) {
    float d = half_at(x + 80), dmin = half_at(x + 82);
    for (int k = 0; k < 16; k++) { /* groups of 16 */
      float scale = d * (float)(x[k] & 15), min = dmin * (float)(x[k] >> 4);
      for (int l = 0; l < 16; l++)
        y[16 * k + l] = scale * (float)two_bits(x + 16, k / 8, k % 8 / 2, k % 2 * 16 + l) - min;
    }
  }
}

static void q3_k(float *y, const uint8_t *x, int64_t blocks) {
  for (; blocks-- > 0; x += 110, y += 256) {
    const uint8_t *hm = x, *qs = x + 32, *s = x + 96;
    float d = half_at(x + 108);
    for (int k = 0; k < 16; k++) {
      int low = k < 8 ? s[k] & 15 : s[k - 8] >> 4;
      float scale = d * (float)((low | (s[8 + k % 4] >> 2 * (k / 4) & 3) << 4) - 32);
      for (int l = k % 2 * 16; l < k % 2 * 16 + 16; l++) {
        int high = hm[l] >> k / 2 & 1;
        y[32 * (k / 2) + l] = scale * (float)(two_bits(qs, k / 8, k % 8 / 2, l) - (high ? 0 : 4));
      }
    }
  }
}

static void q4_k(float *y, const uint8_t *x, int64_t blocks) {
  for (; blocks-- > 0; x += 144, y += 256) {
    float d = half_at(x), dmin = half_at(x + 2);
    for (int j = 0; j < 8; j++) { /* groups of 32 */
      int sc, m;
      ist_q4k_scale(x + 4, j, &sc, &m);
      float scale = d * (float)sc, min = dmin * (float)m;
      const uint8_t *q = x + 16 + 32 * (j / 2);
      for (int l = 0; l < 32; l++) y[32 * j + l] = scale * (float)(q[l] >> 4 * (j % 2) & 15) - min;
    }
  }
}

static void q5_k(float *y, const uint8_t *x, int64_t blocks) {
  for (; blocks-- > 0; x += 176, y += 256) {
    float d = half_at(x), dmin = half_at(x + 2);
    for (int j = 0; j < 8; j++) {
      int sc, m;
      ist_q4k_scale(x + 4, j, &sc, &m);
      float scale = d * (float)sc, min = dmin * (float)m;
      const uint8_t *qh = x + 16, *q = x + 48 + 32 * (j / 2);
      for (int l = 0; l < 32; l++)
        y[32 * j + l] = scale * (float)((q[l] >> 4 * (j % 2) & 15) | (qh[l] >> j & 1) << 4) - min;
    }
  }
}

static void q6_k(float *y, const uint8_t *x, int64_t blocks) {
  for (; blocks-- > 0; x += 210, y += 256) {
    float d = half_at(x + 208);
    for (int h = 0; h < 2; h++) {
      const uint8_t *ql = x + 64 * h, *qh = x + 128 + 32 * h;
      for (int r = 0; r < 128; r++) {
        int q = (ql[r % 64] >> 4 * (r / 64) & 15) | (qh[r % 32] >> 2 * (r / 32) & 3) << 4;
        float scale = d * (float)(int8_t)x[192 + 8 * h + r / 16];
        y[128 * h + r] = scale * (float)(q - 32);
      }
    }
  }
}

static void iq4_nl(float *y, const uint8_t *x, int64_t blocks) {
  for (; blocks-- > 0; x += 18, y += 32) {
    float d = half_at(x);
    for (int i = 0; i < 16; i++) {
      y[i] = d * (float)ist_iq4_values[x[2 + i] & 15];
      y[i + 16] = d * (float)ist_iq4_values[x[2 + i] >> 4];
    }
  }
}

static void iq4_xs(float *y, const uint8_t *x, int64_t blocks) {
  for (; blocks-- > 0; x += 136, y += 256) {
    float d = half_at(x);
    for (int j = 0; j < 8; j++) {
      float scale = d * (float)ist_iq4_xs_scale(x, j);
      for (int i = 0; i < 16; i++) {
        uint8_t q = x[8 + 16 * j + i];
        y[32 * j + i] = scale * (float)ist_iq4_values[q & 15];
        y[32 * j + i + 16] = scale * (float)ist_iq4_values[q >> 4];
      }
    }
  }
}

const int8_t ist_iq4_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                   1,    13,   25,  38,  53,  69,  89,  113};

static void (*const portable[IST_DTYPE_COUNT])(float *, const uint8_t *, int64_t) = {
    [IST_F32] = plain_f32, [IST_F64] = plain_f64, [IST_F16] = plain_f16, [IST_BF16] = plain_bf16,
    [IST_Q4_0] = q4_0,     [IST_Q4_1] = q4_1,     [IST_Q5_0] = q5_0,     [IST_Q5_1] = q5_1,
    [IST_Q8_0] = q8_0,     [IST_Q2_K] = q2_k,     [IST_Q3_K] = q3_k,     [IST_Q4_K] = q4_k,
    [IST_Q5_K] = q5_k,     [IST_Q6_K] = q6_k,     [IST_IQ4_NL] = iq4_nl, [IST_IQ4_XS] = iq4_xs,
};

bool ist_dequant_supported(ist_dtype t) {
  return portable[t] != NULL;
}

void ist_dequant_f32_portable(float *dst, const void *src, ist_dtype t, int64_t n) {
  int block = ist_dtype_get(t)->block;
  IST_ASSERT(portable[t] && n % block == 0);
  portable[t](dst, src, n / block);
}

/* bf16 by way of f32 in pieces; `narrow` turns f32 into bf16, NULL: in portable C. */
static void through_f32(ist_bf16 *dst, const void *src, ist_dtype t, int64_t n,
                        ist_dequant_x86_fn narrow) {
  enum { PIECE = 1024 }; /* a multiple of every block */
  float piece[PIECE];
  for (int64_t at = 0; at < n; at += PIECE) {
    int64_t len = n - at < PIECE ? n - at : PIECE;
    ist_dequant_f32_portable(piece, (const uint8_t *)src + ist_dtype_bytes(t, at), t, len);
    if (narrow) narrow(dst + at, (const uint8_t *)piece, len);
    for (int64_t i = 0; !narrow && i < len; i++) dst[at + i] = ist_f32_to_bf16(piece[i]);
  }
}

void ist_dequant_bf16_portable(ist_bf16 *dst, const void *src, ist_dtype t, int64_t n) {
  if (t == IST_BF16)
    memcpy(dst, src, (size_t)n * sizeof *dst);
  else
    through_f32(dst, src, t, n, NULL);
}

void ist_dequant_f32(float *dst, const void *src, ist_dtype t, int64_t n) {
  ist_dequant_x86_fn fast = ist_dequant_x86(ist_quant_isa_best(), t, false);
  int block = ist_dtype_get(t)->block;
  IST_ASSERT(n % block == 0);
  if (fast)
    fast(dst, src, n / block);
  else
    ist_dequant_f32_portable(dst, src, t, n);
}

void ist_dequant_bf16(ist_bf16 *dst, const void *src, ist_dtype t, int64_t n) {
  ist_quant_isa isa = ist_quant_isa_best();
  ist_dequant_x86_fn fast = ist_dequant_x86(isa, t, true);
  int block = ist_dtype_get(t)->block;
  IST_ASSERT(n % block == 0);
  if (fast)
    fast(dst, src, n / block);
  else if (t == IST_BF16)
    memcpy(dst, src, (size_t)n * sizeof *dst);
  else
    through_f32(dst, src, t, n, ist_dequant_x86(isa, IST_F32, true));
}
