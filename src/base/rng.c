#include "base/rng.h"

#include <math.h>

#define GOLDEN 0x9E3779B9u /* 2^32 / golden ratio, also Philox's first Weyl step */

ist_philox_key ist_rng_key(uint64_t seed, ist_rng_purpose purpose) {
  return (ist_philox_key){{(uint32_t)seed, (uint32_t)(seed >> 32) ^ (uint32_t)purpose * GOLDEN}};
}

void ist_philox(uint32_t out[4], const uint32_t counter[4], ist_philox_key key) {
  uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
  uint32_t k0 = key.k[0], k1 = key.k[1];
  for (int round = 0; round < 10; round++) {
    uint64_t a = (uint64_t)0xD2511F53u * c0;
    uint64_t b = (uint64_t)0xCD9E8D57u * c2;
    c0 = (uint32_t)(b >> 32) ^ c1 ^ k0;
    c1 = (uint32_t)b;
    c2 = (uint32_t)(a >> 32) ^ c3 ^ k1;
    c3 = (uint32_t)a;
    k0 += GOLDEN;
    k1 += 0xBB67AE85u;
  }
  out[0] = c0;
  out[1] = c1;
  out[2] = c2;
  out[3] = c3;
}

ist_rng ist_rng_stream(uint64_t seed, ist_rng_purpose purpose, uint32_t a, uint32_t b, uint32_t c) {
  return (ist_rng){.key = ist_rng_key(seed, purpose), .counter = {a, b, c, 0}};
}

uint32_t ist_rng_u32(ist_rng *r) {
  if (r->left == 0) {
    ist_philox(r->word, r->counter, r->key);
    r->counter[3]++;
    r->left = 4;
  }
  return r->word[4 - r->left--];
}

/* Two words, the first one high. */
static uint64_t next_u64(ist_rng *r) {
  uint64_t high = ist_rng_u32(r);
  return high << 32 | ist_rng_u32(r);
}

double ist_rng_uniform(ist_rng *r) {
  return (double)(next_u64(r) >> 11) * 0x1p-53;
}

uint64_t ist_rng_below(ist_rng *r, uint64_t n) {
  /* The first 2^64 mod n values are one too many for an even share. */
  uint64_t excess = (0 - n) % n;
  uint64_t x;
  do x = next_u64(r);
  while (x < excess);
  return x % n;
}

double ist_rng_normal(ist_rng *r) {
  double u = ((double)ist_rng_u32(r) + 1.0) * 0x1p-32; /* (0, 1]: the log is finite */
  double v = (double)ist_rng_u32(r) * 0x1p-32;
  return sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v);
}

void ist_rng_shuffle(ist_rng *r, int64_t *values, int64_t n) {
  for (int64_t i = n - 1; i > 0; i--) {
    int64_t j = (int64_t)ist_rng_below(r, (uint64_t)i + 1);
    int64_t v = values[i];
    values[i] = values[j];
    values[j] = v;
  }
}
