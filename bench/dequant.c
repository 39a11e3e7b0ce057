/* Dequantisation speed on one thread: portable C against AVX2 and AVX-512, to f32
 * and to bf16, after checking that all agree to the bit. One matrix of 1536 x 576
 * or near it, the best of several runs, taken in turns.
 *
 *   build/bench/bench_dequant
 *
 * By hand, from the root of the repository (build/ holds the rooms):
 *   cc -O2 -D_GNU_SOURCE -Iinclude -Isrc bench/dequant.c -o dequant \
 *      build/libroom_format.a build/libroom_base.a -lutf8proc -lgomp -lm
 */
#include <stdio.h>
#include <time.h>

#include "base/mem.h"
#include "base/rng.h"
#include "format/quant.h"
#include "format/quant_impl.h"

enum { ELEMENTS = 1536 * 576, RUNS = 15, WAYS = 3 };
static const char *const way_name[WAYS] = {"portable", "AVX2", "AVX-512"};

static double seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void print_machine(void) {
  char line[256] = "";
  FILE *f = fopen("/proc/cpuinfo", "r");
  while (f && fgets(line, sizeof line, f) && strncmp(line, "model name", 10) != 0) continue;
  if (f) fclose(f);
  const char *colon = strchr(line, ':');
  line[strcspn(line, "\n")] = 0;
  printf("machine:%s; 1 thread; best instruction set: %s\n", colon ? colon + 1 : " unknown",
         way_name[ist_quant_isa_best()]);
}

/* One pass; false where the processor or the type has no such way. */
static bool convert(int way, void *dst, const void *src, ist_dtype t, bool bf16) {
  if (way == IST_QUANT_PORTABLE) {
    if (bf16)
      ist_dequant_bf16_portable(dst, src, t, ELEMENTS);
    else
      ist_dequant_f32_portable(dst, src, t, ELEMENTS);
    return true;
  }
  if (way > (int)ist_quant_isa_best()) return false;
  ist_dequant_x86_fn fn = ist_dequant_x86((ist_quant_isa)way, t, bf16);
  if (fn) fn(dst, src, ELEMENTS / ist_dtype_get(t)->block);
  return fn != NULL;
}

static bool measure(ist_dtype t, bool bf16, const void *src, void *dst, void *expected) {
  double best[WAYS];
  size_t bytes = (size_t)ELEMENTS * (bf16 ? 2 : 4);
  convert(IST_QUANT_PORTABLE, expected, src, t, bf16);
  for (int way = 0; way < WAYS; way++) {
    best[way] = convert(way, dst, src, t, bf16) ? 1e30 : 0;
    if (best[way] > 0 && memcmp(dst, expected, bytes) != 0) {
      printf("%s: %s differs from portable\n", ist_dtype_get(t)->name, way_name[way]);
      return false;
    }
  }
  for (int run = 0; run < RUNS; run++) {
    for (int way = 0; way < WAYS; way++) {
      double start = seconds();
      if (!convert(way, dst, src, t, bf16)) continue;
      double took = seconds() - start;
      if (took < best[way]) best[way] = took;
    }
  }
  printf("%-5s to %s", ist_dtype_get(t)->name, bf16 ? "bf16" : "f32 ");
  for (int way = 0; way < WAYS; way++)
    if (best[way] > 0)
      printf("   %s %6.2f Gelem/s, %5.1f GB/s (%.1fx)", way_name[way], ELEMENTS / best[way] * 1e-9,
             (double)bytes / best[way] * 1e-9, best[0] / best[way]);
  printf("\n");
  return true;
}

int main(void) {
  static const ist_dtype type[] = {IST_F32,  IST_F16,  IST_Q4_0,   IST_Q4_1,  IST_Q8_0,
                                   IST_Q4_K, IST_Q6_K, IST_Q5_0,   IST_Q5_1,  IST_Q5_K,
                                   IST_Q2_K, IST_Q3_K, IST_IQ4_NL, IST_IQ4_XS};
  print_machine();
  printf("GB/s counts what is written (4 or 2 bytes an element)\n");
  float *weights = ist_calloc(ELEMENTS, sizeof *weights);
  unsigned char *blocks = ist_calloc(ELEMENTS, 4), *dst = ist_calloc(ELEMENTS, 4);
  unsigned char *expected = ist_calloc(ELEMENTS, 4);
  if (!weights || !blocks || !dst || !expected) return 1;
  ist_rng rng = ist_rng_stream(1, IST_RNG_DATA, 0, 0, 0);
  for (int i = 0; i < ELEMENTS; i++) weights[i] = (float)ist_rng_normal(&rng) * 0.02f;
  bool ok = true;
  for (size_t i = 0; i < sizeof type / sizeof type[0]; i++) {
    /* Types we cannot write get the bytes of another: speed does not depend on values,
     * as long as the scales are numbers. */
    ist_quantise(blocks, weights, ist_quantise_supported(type[i]) ? type[i] : IST_F16, ELEMENTS);
    ok = measure(type[i], false, blocks, dst, expected) && ok;
    ok = measure(type[i], true, blocks, dst, expected) && ok;
  }
  ist_free(weights);
  ist_free(blocks);
  ist_free(dst);
  ist_free(expected);
  return ok ? 0 : 1;
}
