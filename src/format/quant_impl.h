/* Shared by the portable and the vectorised block functions of this room. */
#ifndef IST_FORMAT_QUANT_IMPL_H
#define IST_FORMAT_QUANT_IMPL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/dtype.h"

/* The 16 levels of IQ4_NL and IQ4_XS. */
extern const int8_t ist_iq4_values[16];

/* 6-bit scale and minimum of group j of 32 in a Q4_K or Q5_K block (12 bytes at s). */
static inline void ist_q4k_scale(const uint8_t *s, int j, int *scale, int *min) {
  if (j < 4) {
    *scale = s[j] & 63;
    *min = s[j + 4] & 63;
  } else {
    *scale = (s[j + 4] & 15) | (s[j - 4] >> 6) << 4;
    *min = s[j + 4] >> 4 | (s[j] >> 6) << 4;
  }
}

/* Signed scale of group j of 32 in the IQ4_XS block at x. */
static inline int ist_iq4_xs_scale(const uint8_t *x, int j) {
  int high = (x[2] | x[3] << 8) >> 2 * j & 3;
  return ((x[4 + j / 2] >> 4 * (j % 2) & 15) | high << 4) - 32;
}

/* Turns whole blocks at src into f32 or bf16 at dst. */
typedef void (*ist_dequant_x86_fn)(void *dst, const uint8_t *src, int64_t blocks);
typedef enum ist_quant_isa { IST_QUANT_PORTABLE, IST_QUANT_AVX2, IST_QUANT_AVX512 } ist_quant_isa;
/* The best of them that this processor has. */
ist_quant_isa ist_quant_isa_best(void);
/* The function for one instruction set, or NULL where there is none. */
ist_dequant_x86_fn ist_dequant_x86(ist_quant_isa isa, ist_dtype t, bool bf16);

#endif
