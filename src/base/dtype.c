#include "base/dtype.h"

#include <stddef.h>

#include "base/error.h"

static const ist_dtype_info table[IST_DTYPE_COUNT] = {
    [IST_F32] = {"F32", 1, 4, 0},
    [IST_F64] = {"F64", 1, 8, 28},
    [IST_F16] = {"F16", 1, 2, 1},
    [IST_BF16] = {"BF16", 1, 2, 30},
    [IST_I8] = {"I8", 1, 1, 24},
    [IST_I16] = {"I16", 1, 2, 25},
    [IST_I32] = {"I32", 1, 4, 26},
    [IST_I64] = {"I64", 1, 8, 27},
    [IST_U8] = {"U8", 1, 1, -1},
    [IST_Q4_0] = {"Q4_0", 32, 18, 2},
    [IST_Q4_1] = {"Q4_1", 32, 20, 3},
    [IST_Q5_0] = {"Q5_0", 32, 22, 6},
    [IST_Q5_1] = {"Q5_1", 32, 24, 7},
    [IST_Q8_0] = {"Q8_0", 32, 34, 8},
    [IST_Q2_K] = {"Q2_K", 256, 84, 10},
    [IST_Q3_K] = {"Q3_K", 256, 110, 11},
    [IST_Q4_K] = {"Q4_K", 256, 144, 12},
    [IST_Q5_K] = {"Q5_K", 256, 176, 13},
    [IST_Q6_K] = {"Q6_K", 256, 210, 14},
    [IST_IQ4_NL] = {"IQ4_NL", 32, 18, 20},
    [IST_IQ4_XS] = {"IQ4_XS", 256, 136, 23},
};

const ist_dtype_info *ist_dtype_get(ist_dtype t) {
  IST_ASSERT((unsigned)t < IST_DTYPE_COUNT);
  return &table[t];
}

int ist_dtype_from_ggml(uint32_t ggml_id) {
  for (int t = 0; t < IST_DTYPE_COUNT; t++)
    if (table[t].ggml >= 0 && (uint32_t)table[t].ggml == ggml_id) return t;
  return -1;
}

/* ASCII only, so that the locale has no say (strcasecmp asks it). */
static bool equal_any_case(const char *a, const char *b) {
  for (;; a++, b++) {
    char ca = *a >= 'a' && *a <= 'z' ? (char)(*a - 32) : *a;
    char cb = *b >= 'a' && *b <= 'z' ? (char)(*b - 32) : *b;
    if (ca != cb) return false;
    if (ca == 0) return true;
  }
}

int ist_dtype_from_name(const char *name) {
  for (int t = 0; t < IST_DTYPE_COUNT; t++)
    if (equal_any_case(table[t].name, name)) return t;
  return -1;
}

float ist_f16_to_f32(ist_f16 h) {
  uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
  uint32_t exponent = (h >> 10) & 31u;
  uint32_t fraction = h & 0x3ffu;
  uint32_t u;
  if (exponent == 0) {
    /* Zero or subnormal: fraction * 2^-24, exact in f32. */
    float f = (float)fraction * 0x1p-24f;
    memcpy(&u, &f, sizeof u);
    u |= sign;
  } else if (exponent == 31) {
    u = sign | 0x7f800000u | fraction << 13;
  } else {
    u = sign | (exponent + 112) << 23 | fraction << 13;
  }
  float f;
  memcpy(&f, &u, sizeof f);
  return f;
}

ist_f16 ist_f32_to_f16(float f) {
  uint32_t u;
  memcpy(&u, &f, sizeof u);
  uint32_t sign = (u >> 16) & 0x8000u;
  u &= 0x7fffffffu;
  if (u > 0x7f800000u) return (ist_f16)(sign | 0x7e00u | (u >> 13 & 0x1ffu));
  /* 65520 is halfway between the largest finite value and the next: to Inf. */
  if (u >= 0x477ff000u) return (ist_f16)(sign | 0x7c00u);
  if (u < 0x38800000u) {
    /* Below 2^-14 the result is a multiple of 2^-24; adding 0.5, whose last bit
     * is 2^-24, makes the FPU round to one. */
    float g;
    memcpy(&g, &u, sizeof g);
    g += 0.5f;
    memcpy(&u, &g, sizeof u);
    return (ist_f16)(sign | (u - 0x3f000000u));
  }
  u += 0xfffu + (u >> 13 & 1u);
  return (ist_f16)(sign | (u - 0x38000000u) >> 13);
}
