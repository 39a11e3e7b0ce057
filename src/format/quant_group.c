/* Groups of 32 quanta as bytes, with what turns them into values: what integer products
 * read, portable. Layouts as in quant.c. */
#include "base/error.h"
#include "format/quant.h"
#include "format/quant_impl.h"

bool ist_quant_has_groups(ist_dtype t) {
  switch (t) {
    case IST_Q4_0:
    case IST_Q4_1:
    case IST_Q5_0:
    case IST_Q5_1:
    case IST_Q8_0:
    case IST_Q4_K:
    case IST_Q5_K:
    case IST_Q6_K: return true;
    default: return false;
  }
}

static float half_at(const uint8_t *p) {
  return ist_f16_to_f32((ist_f16)(p[0] | p[1] << 8));
}

static void set(float to[2], float value) {
  to[0] = to[1] = value;
}

/* Nibbles of 16 bytes, and the fifth bits of a word at `high` (NULL: none). */
static void read_nibbles(uint8_t q[32], const uint8_t *low, const uint8_t *high) {
  for (int i = 0; i < 32; i++) {
    int bit = high != NULL ? high[i / 8] >> i % 8 & 1 : 0;
    q[i] = (uint8_t)((i < 16 ? low[i] & 15 : low[i - 16] >> 4) | bit << 4);
  }
}

/* Group j of 32 of a Q4_K or Q5_K block; its nibbles at `low`, fifth bits at `high`. */
static void read_k(uint8_t q[32], float scale[2], float offset[2], const uint8_t *x, int j,
                   const uint8_t *low, const uint8_t *high) {
  int sc, m;
  ist_q4k_scale(x + 4, j, &sc, &m);
  set(scale, half_at(x) * (float)sc);
  set(offset, -(half_at(x + 2) * (float)m));
  for (int i = 0; i < 32; i++) {
    int bit = high != NULL ? high[i] >> j & 1 : 0;
    q[i] = (uint8_t)((low[32 * (j / 2) + i] >> 4 * (j % 2) & 15) | bit << 4);
  }
}

static void read_q6_k(uint8_t q[32], float scale[2], float offset[2], const uint8_t *x, int j) {
  int h = j / 4, part = j % 4;
  const uint8_t *low = x + 64 * h + 32 * (part % 2), *high = x + 128 + 32 * h;
  for (int i = 0; i < 32; i++)
    q[i] = (uint8_t)((low[i] >> 4 * (part / 2) & 15) | (high[i] >> 2 * part & 3) << 4);
  for (int half = 0; half < 2; half++) {
    scale[half] = half_at(x + 208) * (float)(int8_t)x[192 + 2 * j + half];
    offset[half] = -32.0f * scale[half];
  }
}

void ist_quant_group(uint8_t q[32], float scale[2], float offset[2], const void *src, ist_dtype t,
                     int64_t g) {
  const ist_dtype_info *info = ist_dtype_get(t);
  int64_t per = info->block / 32;
  const uint8_t *x = (const uint8_t *)src + g / per * info->bytes;
  int j = (int)(g % per);
  if (per == 1) {
    set(scale, half_at(x));
    set(offset, t == IST_Q4_0   ? -8.0f * half_at(x)
                : t == IST_Q5_0 ? -16.0f * half_at(x)
                : t == IST_Q8_0 ? -128.0f * half_at(x)
                                : half_at(x + 2));
  }
  switch (t) {
    case IST_Q4_0: read_nibbles(q, x + 2, NULL); return;
    case IST_Q4_1: read_nibbles(q, x + 4, NULL); return;
    case IST_Q5_0: read_nibbles(q, x + 6, x + 2); return;
    case IST_Q5_1: read_nibbles(q, x + 8, x + 4); return;
    case IST_Q8_0:
      for (int i = 0; i < 32; i++) q[i] = (uint8_t)(x[2 + i] ^ 0x80);
      return;
    case IST_Q4_K: read_k(q, scale, offset, x, j, x + 16, NULL); return;
    case IST_Q5_K: read_k(q, scale, offset, x, j, x + 48, x + 16); return;
    case IST_Q6_K: read_q6_k(q, scale, offset, x, j); return;
    default: IST_ASSERT(!"a type of integers by group");
  }
}
