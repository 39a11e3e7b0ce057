/* Counter-based random numbers: Philox4x32-10 (Salmon et al., SC 2011).
 *
 * Layout, version 1 (state of a run is only its seed and its step):
 *   key     = (seed low 32, seed high 32 ^ purpose * 0x9E3779B9)
 *   counter = (step, block high << 24 | layer << 8 | site, sample id,
 *              position << 12 | block low)
 * so dropout is the same on recompute, at any thread count, micro-batch size
 * or rank. Position is within the sample (< 2^20), layer < 2^16, and block is
 * channel / 8 in two parts of 12 and 8 bits (channels < 2^23; the high part is 0
 * below channel 32,768). */
#ifndef IST_BASE_RNG_H
#define IST_BASE_RNG_H

#include <stdint.h>

#define IST_RNG_LAYOUT 1

typedef enum ist_rng_purpose {
  IST_RNG_INIT = 1,  /* adapter initialisation: step = tensor index */
  IST_RNG_DROPOUT,   /* dropout masks */
  IST_RNG_ORDER,     /* training order: step = epoch */
  IST_RNG_SPLIT,     /* train / validation / probe split */
  IST_RNG_PROBE,     /* probe order: step = pass over the probe set */
  IST_RNG_SELECT,    /* draw of the active layers: step = optimizer step */
  IST_RNG_CANDIDATE, /* suppressed sets of a probe: step = optimizer step */
  IST_RNG_SAMPLE,    /* text generation: step = token index */
  IST_RNG_DATA,      /* generated data (demo, benchmarks, make-model) */
  IST_RNG_TEST
} ist_rng_purpose;

typedef struct ist_philox_key {
  uint32_t k[2];
} ist_philox_key;

ist_philox_key ist_rng_key(uint64_t seed, ist_rng_purpose purpose);

/* The four 32-bit words of one counter. */
void ist_philox(uint32_t out[4], const uint32_t counter[4], ist_philox_key key);

/* A sequential stream over counters (a, b, c, 0), (a, b, c, 1), ... for draws
 * that are not tied to a position. Plain data: copy it to fork it. */
typedef struct ist_rng {
  ist_philox_key key;
  uint32_t counter[4];
  uint32_t word[4];
  uint32_t left; /* unused words in `word` */
} ist_rng;
ist_rng ist_rng_stream(uint64_t seed, ist_rng_purpose purpose, uint32_t a, uint32_t b, uint32_t c);
uint32_t ist_rng_u32(ist_rng *r);
/* Uniform in [0, 1) with 53 bits. */
double ist_rng_uniform(ist_rng *r);
/* Uniform in 0 .. n-1 without bias, n >= 1. */
uint64_t ist_rng_below(ist_rng *r, uint64_t n);
/* Standard normal (Box-Muller, both words of a pair used in order). */
double ist_rng_normal(ist_rng *r);
/* Fisher-Yates over n int64 values. */
void ist_rng_shuffle(ist_rng *r, int64_t *values, int64_t n);

#endif
