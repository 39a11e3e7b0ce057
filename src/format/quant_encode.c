/* Quantisation without an importance matrix: the rules of llama.cpp's encoders,
 * byte for byte, so that a merged model is what its own tools would have made.
 * All in f32, sums from left to right, nothing fused. In the names below, s is a
 * scale, m a minimum, l a quantum (level), w a weight. */
#include <math.h>

#include "base/error.h"
#include "format/quant.h"
#include "format/quant_impl.h"

/* Scales below this count as zero. */
#define TINY 1e-15f

static void put_half(uint8_t *p, float v) {
  ist_f16 h = ist_f32_to_f16(v);
  p[0] = (uint8_t)h;
  p[1] = (uint8_t)(h >> 8);
}

static float rounded_half(float v) {
  return ist_f16_to_f32(ist_f32_to_f16(v));
}

/* The nearest integer, half to even, for |v| < 2^22; some integer otherwise: adding
 * 1.5 * 2^23 leaves the integer in the low bits, and no cast can overflow. */
static inline int nearest(float v) {
  v += 12582912.0f;
  int32_t bits;
  memcpy(&bits, &v, sizeof bits);
  return (bits & 0x7fffff) - 0x400000;
}

static inline int clamp(int v, int lo, int hi) {
  return v < lo ? lo : v > hi ? hi : v;
}

/* v cut to an integer in 0 .. n; NaN gives 0. */
static inline int cut(float v, int n) {
  return v > 0 ? v < (float)n ? (int)v : n : 0;
}

static float inverse(float d) {
  return d != 0 ? 1 / d : 0;
}

/* ---- Types of 32 elements ---- */

/* The first of the values of largest magnitude, with its sign. */
static float extreme(const float *x, int n) {
  float best = 0, size = 0;
  for (int i = 0; i < n; i++)
    if (fabsf(x[i]) > size) size = fabsf(best = x[i]);
  return best;
}

static void range(const float *x, int n, float *min, float *max) {
  *min = *max = x[0];
  for (int i = 1; i < n; i++) {
    if (x[i] < *min) *min = x[i];
    if (x[i] > *max) *max = x[i];
  }
}

/* Levels i and i + 16 share a byte. */
static void pack_nibbles(uint8_t *out, const uint8_t *l) {
  for (int i = 0; i < 16; i++) out[i] = (uint8_t)((l[i] & 15) | (l[i + 16] & 15) << 4);
}

static void pack_fifth_bits(uint8_t *out, const uint8_t *l) {
  for (int i = 0; i < 32; i++) {
    if (i % 8 == 0) out[i / 8] = 0;
    out[i / 8] |= (uint8_t)((l[i] >> 4 & 1) << i % 8);
  }
}

/* Symmetric, `half` levels on each side: the extreme value gets level 0. */
static void symmetric(uint8_t *l, uint8_t *d_out, const float *x, int half) {
  float d = extreme(x, 32) / (float)-half, inv = inverse(d);
  put_half(d_out, d);
  for (int i = 0; i < 32; i++) l[i] = (uint8_t)cut(x[i] * inv + ((float)half + 0.5f), 2 * half - 1);
}

/* From the minimum in n steps. */
static void affine(uint8_t *l, uint8_t *d_out, const float *x, int n) {
  float min, max;
  range(x, 32, &min, &max);
  float d = (max - min) / (float)n, inv = inverse(d);
  put_half(d_out, d);
  put_half(d_out + 2, min);
  for (int i = 0; i < 32; i++) l[i] = (uint8_t)cut((x[i] - min) * inv + 0.5f, n);
}

static void q4_0(uint8_t *y, const float *x) {
  uint8_t l[32];
  symmetric(l, y, x, 8);
  pack_nibbles(y + 2, l);
}

static void q4_1(uint8_t *y, const float *x) {
  uint8_t l[32];
  affine(l, y, x, 15);
  pack_nibbles(y + 4, l);
}

static void q5_0(uint8_t *y, const float *x) {
  uint8_t l[32];
  symmetric(l, y, x, 16);
  pack_fifth_bits(y + 2, l);
  pack_nibbles(y + 6, l);
}

static void q5_1(uint8_t *y, const float *x) {
  uint8_t l[32];
  affine(l, y, x, 31);
  pack_fifth_bits(y + 4, l);
  pack_nibbles(y + 8, l);
}

static void q8_0(uint8_t *y, const float *x) {
  float d = fabsf(extreme(x, 32)) / 127, inv = inverse(d);
  put_half(y, d);
  for (int i = 0; i < 32; i++) {
    float v = x[i] * inv; /* half away from zero, unlike `nearest` */
    int q = cut(roundf(fabsf(v)), 127);
    y[2 + i] = (uint8_t)(v < 0 ? -q : q);
  }
}

/* ---- Q4_K and Q5_K: groups of 32 with a scale and a minimum ---- */

/* Levels 0 .. n for x as s * l + m, starting from inv = 1 / s. */
static void affine_levels(uint8_t *l, const float *x, float inv, float m, int n) {
  for (int i = 0; i < 32; i++) l[i] = (uint8_t)clamp(nearest(inv * (x[i] - m)), 0, n);
}

static float affine_error(const uint8_t *l, const float *x, const float *w, float s, float m) {
  float err = 0;
  for (int i = 0; i < 32; i++) {
    float diff = s * (float)l[i] + m - x[i];
    diff = diff * diff;
    err += w[i] * diff;
  }
  return err;
}

/* The weighted least-squares s and m <= 0 for given levels; false when singular. */
static bool affine_fit(float *s, float *m, const uint8_t *l, const float *x, const float *w) {
  float sum_w = 0, sum_x = 0, sum_l = 0, sum_l2 = 0, sum_xl = 0;
  for (int i = 0; i < 32; i++) {
    float level = (float)l[i];
    sum_w += w[i];
    sum_x += w[i] * x[i];
    sum_l += w[i] * level;
    sum_l2 += w[i] * level * level;
    sum_xl += w[i] * level * x[i];
  }
  float det = sum_w * sum_l2 - sum_l * sum_l;
  if (!(det > 0)) return false;
  *s = (sum_w * sum_xl - sum_x * sum_l) / det;
  *m = (sum_l2 * sum_x - sum_l * sum_xl) / det;
  if (*m > 0) {
    *m = 0;
    *s = sum_xl / sum_l2;
  }
  return true;
}

/* Searches levels 0 .. n, scale and minimum of a group: n + first + t / 10 levels
 * to the range for t = 0 .. steps, each followed by a fit. A better fit also
 * moves the minimum that later steps start from. Returns the scale; *min >= 0 is
 * what is to be subtracted. */
static float search_affine(uint8_t *l, float *min, const float *x, const float *w, int n,
                           float first, int steps) {
  float m, max;
  range(x, 32, &m, &max);
  if (m > 0) m = 0;
  if (max == m) {
    memset(l, 0, 32);
    *min = -m;
    return 0;
  }
  float inv = (float)n / (max - m), s = 1 / inv;
  affine_levels(l, x, inv, m, n);
  float best = affine_error(l, x, w, s, m);
  for (int t = 0; t <= steps; t++) {
    uint8_t try[32];
    float try_s, try_m;
    inv = (first + 0.1f * (float)t + (float)n) / (max - m);
    affine_levels(try, x, inv, m, n);
    if (!affine_fit(&try_s, &try_m, try, x, w)) continue;
    float err = affine_error(try, x, w, try_s, try_m);
    if (err < best) {
      memcpy(l, try, sizeof try);
      best = err;
      s = try_s;
      m = try_m;
    }
  }
  *min = -m;
  return s;
}

static void importance(float *w, const float *x) {
  float sum = 0;
  for (int i = 0; i < 32; i++) sum += x[i] * x[i];
  float rms = sqrtf(sum / 32);
  for (int i = 0; i < 32; i++) w[i] = rms + fabsf(x[i]);
}

/* The reverse of ist_q4k_scale. */
static void pack_scale(uint8_t *s, int j, int scale, int min) {
  if (j < 4) {
    s[j] = (uint8_t)scale;
    s[j + 4] = (uint8_t)min;
  } else {
    s[j + 4] = (uint8_t)((scale & 15) | (min & 15) << 4);
    s[j - 4] |= (uint8_t)(scale >> 4 << 6);
    s[j] |= (uint8_t)(min >> 4 << 6);
  }
}

/* Writes d, dmin and the 6-bit scales of 8 groups, then redoes the levels with
 * the scales as they are stored (rounded to f16). */
static void affine_block(uint8_t *y, uint8_t l[8][32], const float *x, int n, float first,
                         int steps) {
  float s[8], m[8], w[32], max_s = 0, max_m = 0;
  for (int j = 0; j < 8; j++) {
    importance(w, x + 32 * j);
    s[j] = search_affine(l[j], &m[j], x + 32 * j, w, n, first, steps);
    if (s[j] > max_s) max_s = s[j];
    if (m[j] > max_m) max_m = m[j];
  }
  float inv_s = max_s > 0 ? 63 / max_s : 0, inv_m = max_m > 0 ? 63 / max_m : 0;
  float d = rounded_half(max_s / 63), dmin = rounded_half(max_m / 63);
  put_half(y, d);
  put_half(y + 2, dmin);
  for (int j = 0; j < 8; j++) {
    int ls = clamp(nearest(inv_s * s[j]), 0, 63), lm = clamp(nearest(inv_m * m[j]), 0, 63);
    pack_scale(y + 4, j, ls, lm);
    float scale = d * (float)ls, min = dmin * (float)lm;
    if (scale == 0) continue;
    for (int i = 0; i < 32; i++)
      l[j][i] = (uint8_t)clamp(nearest((x[32 * j + i] + min) / scale), 0, n);
  }
}

/* Groups 2p and 2p + 1 share bytes. */
static void pack_group_nibbles(uint8_t *out, uint8_t l[8][32]) {
  for (int p = 0; p < 4; p++)
    for (int i = 0; i < 32; i++)
      out[32 * p + i] = (uint8_t)((l[2 * p][i] & 15) | (l[2 * p + 1][i] & 15) << 4);
}

static void q4_k(uint8_t *y, const float *x) {
  uint8_t l[8][32];
  affine_block(y, l, x, 15, -1.0f, 20);
  pack_group_nibbles(y + 16, l);
}

static void q5_k(uint8_t *y, const float *x) {
  uint8_t l[8][32];
  affine_block(y, l, x, 31, -0.5f, 15);
  for (int i = 0; i < 32; i++) {
    int bits = 0;
    for (int j = 0; j < 8; j++) bits |= (l[j][i] >> 4) << j;
    y[16 + i] = (uint8_t)bits;
  }
  pack_group_nibbles(y + 48, l);
}

/* ---- Q6_K: groups of 16 with a signed scale ---- */

/* Levels -32 .. 31 (stored + 32) and the scale of a group: 19 divisions of the
 * range, the one whose fit explains most of sum x^4 kept. */
static float search_symmetric(uint8_t *l, const float *x) {
  float e = extreme(x, 16);
  if (!(fabsf(e) >= TINY)) {
    memset(l, 0, 16);
    return 0;
  }
  float best = 0, scale = 0;
  for (int t = 0; t < 19; t++) {
    /* t = 0 is the plain division, then -9 .. 9 without 0 */
    int step = t == 0 ? 0 : t <= 9 ? t - 10 : t - 9;
    float inv = -(32 + 0.1f * (float)step) / e, sum_xl = 0, sum_l2 = 0;
    int try[16];
    for (int i = 0; i < 16; i++) {
      try[i] = clamp(nearest(inv * x[i]), -32, 31);
      float level = (float)try[i], w = x[i] * x[i];
      sum_xl += w * x[i] * level;
      sum_l2 += w * level * level;
    }
    if (t > 0 && !(sum_l2 > 0 && sum_xl * sum_xl > best * sum_l2)) continue;
    scale = sum_l2 != 0 ? sum_xl / sum_l2 : 0;
    best = scale * sum_xl;
    for (int i = 0; i < 16; i++) l[i] = (uint8_t)(try[i] + 32);
  }
  return scale;
}

static void pack_q6_k(uint8_t *y, const uint8_t *l) {
  for (int h = 0; h < 2; h++, l += 128) {
    uint8_t *ql = y + 64 * h, *qh = y + 128 + 32 * h;
    for (int i = 0; i < 64; i++) ql[i] = (uint8_t)((l[i] & 15) | (l[i + 64] & 15) << 4);
    for (int i = 0; i < 32; i++)
      qh[i] =
          (uint8_t)(l[i] >> 4 | l[i + 32] >> 4 << 2 | l[i + 64] >> 4 << 4 | l[i + 96] >> 4 << 6);
  }
}

static void q6_k(uint8_t *y, const float *x) {
  uint8_t l[256];
  float s[16];
  for (int k = 0; k < 16; k++) s[k] = search_symmetric(l + 16 * k, x + 16 * k);
  float e = extreme(s, 16);
  memset(y, 0, 210);
  if (!(fabsf(e) >= TINY)) return;
  float inv = -128 / e, d = rounded_half(1 / inv);
  put_half(y + 208, d);
  for (int k = 0; k < 16; k++) {
    int sc = clamp(nearest(inv * s[k]), -128, 127);
    y[192 + k] = (uint8_t)sc;
    float scale = d * (float)sc;
    if (scale == 0) continue;
    for (int i = 16 * k; i < 16 * k + 16; i++)
      l[i] = (uint8_t)(clamp(nearest(x[i] / scale), -32, 31) + 32);
  }
  pack_q6_k(y, l);
}

/* ---- Table ---- */

static void f32(uint8_t *y, const float *x) {
  memcpy(y, x, 4);
}
static void f16(uint8_t *y, const float *x) {
  put_half(y, *x);
}
static void bf16(uint8_t *y, const float *x) {
  memcpy(y, &(ist_bf16){ist_f32_to_bf16(*x)}, 2);
}

static void (*const encode[IST_DTYPE_COUNT])(uint8_t *, const float *) = {
    [IST_F32] = f32,   [IST_F16] = f16,   [IST_BF16] = bf16, [IST_Q8_0] = q8_0,
    [IST_Q4_0] = q4_0, [IST_Q4_1] = q4_1, [IST_Q5_0] = q5_0, [IST_Q5_1] = q5_1,
    [IST_Q4_K] = q4_k, [IST_Q5_K] = q5_k, [IST_Q6_K] = q6_k,
};

bool ist_quantise_supported(ist_dtype t) {
  return encode[t] != NULL;
}

void ist_quantise(void *dst, const float *src, ist_dtype t, int64_t n) {
  const ist_dtype_info *info = ist_dtype_get(t);
  IST_ASSERT(encode[t] && n % info->block == 0);
  uint8_t *y = dst;
  for (int64_t i = 0; i < n; i += info->block, y += info->bytes) encode[t](y, src + i);
}
