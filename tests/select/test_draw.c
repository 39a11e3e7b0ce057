/* The distribution of draws without replacement, against enumeration of every
 * order of every set (L = 6), by chi-square at fixed seeds. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "select/internal.h"

enum { L = 6, SETS = 1 << L };

/* Adds to p[mask] the probability of every ordered draw that extends `mask`. */
static void enumerate(const double *w, int64_t k, int mask, double probability, double *p) {
  if (__builtin_popcount((unsigned)mask) == k) {
    p[mask] += probability;
    return;
  }
  double rest = 0;
  for (int i = 0; i < L; i++) rest += mask >> i & 1 ? 0 : w[i];
  for (int i = 0; i < L; i++)
    if (!(mask >> i & 1)) enumerate(w, k, mask | 1 << i, probability * w[i] / rest, p);
}

static int mask_of(const int32_t *set, int64_t k) {
  int mask = 0;
  for (int64_t j = 0; j < k; j++) {
    assert_in_range(set[j], j ? set[j - 1] + 1 : 0, L - 1); /* ascending, distinct */
    mask |= 1 << set[j];
  }
  return mask;
}

/* The statistic must lie below the 99.9 % point (Wilson-Hilferty) and above 0.1 %. */
static void assert_fits(const int64_t *count, const double *p, int64_t n) {
  double statistic = 0;
  int cells = 0;
  for (int m = 0; m < SETS; m++) {
    if (p[m] == 0) {
      assert_int_equal(count[m], 0);
      continue;
    }
    double expected = p[m] * (double)n;
    if (!(expected >= 5)) fail_msg("set %d: only %g expected", m, expected);
    statistic += ((double)count[m] - expected) * ((double)count[m] - expected) / expected;
    cells++;
  }
  double df = cells - 1, a = 2 / (9 * df);
  double z = (cbrt(statistic / df) - (1 - a)) / sqrt(a);
  print_message("chi-square %.1f with %d degrees of freedom: z = %.2f\n", statistic, cells - 1, z);
  assert_true(fabs(z) < 3.1);
}

static void test_inclusion(void **state) {
  (void)state;
  const double w[L] = {0.9, 0.1, 0.5, 0.25, 0.7, 0.35};
  for (int64_t k = 1; k <= 5; k++) {
    double p[SETS] = {0};
    int64_t count[SETS] = {0}, n = 100000;
    enumerate(w, k, 0, 1, p);
    ist_rng r = ist_rng_stream(2024, IST_RNG_TEST, (uint32_t)k, 0, 0);
    for (int64_t i = 0; i < n; i++) {
      int32_t set[L];
      ist_draw_without_replacement(&r, w, L, k, set);
      count[mask_of(set, k)]++;
    }
    assert_fits(count, p, n);
  }
}

static void test_whole(void **state) {
  (void)state;
  const double w[4] = {1, 1e-300, 1e-12, 1};
  ist_rng r = ist_rng_stream(1, IST_RNG_TEST, 0, 0, 0);
  int32_t set[4];
  ist_draw_without_replacement(&r, w, 4, 4, set);
  for (int i = 0; i < 4; i++) assert_int_equal(set[i], i);
  ist_draw_without_replacement(&r, w, 4, 3, set);
  assert_true(set[0] == 0 && set[1] == 2 && set[2] == 3);
}

/* Draws given that the result is none of some sets: enumeration without those. */
static void fits_without(const double *w, int64_t k, const int32_t * not, int64_t n_not,
                         int64_t n) {
  double p[SETS] = {0}, sum = 0;
  int64_t count[SETS] = {0};
  enumerate(w, k, 0, 1, p);
  for (int64_t e = 0; e < n_not; e++) p[mask_of(not +e * k, k)] = 0;
  for (int m = 0; m < SETS; m++) sum += p[m];
  for (int m = 0; m < SETS; m++) p[m] /= sum;
  void *scratch = ist_calloc(ist_draw_other_set_scratch(L, k), 1);
  ist_rng r = ist_rng_stream(7, IST_RNG_TEST, (uint32_t)k, (uint32_t)n_not, 0);
  for (int64_t i = 0; i < n; i++) {
    int32_t set[L];
    ist_draw_other_set(&r, w, L, k, not, n_not, set, scratch);
    count[mask_of(set, k)]++;
  }
  ist_free(scratch);
  assert_fits(count, p, n);
}

static void test_conditional(void **state) {
  (void)state;
  const double w[L] = {0.9, 0.1, 0.5, 0.25, 0.7, 0.35};
  fits_without(w, 3, NULL, 0, 2000);
  fits_without(w, 3, (const int32_t[]){0, 2, 4}, 1, 2000);
  const int32_t seven[] = {0, 2, 4, 0, 2, 5, 0, 4, 5, 2, 4, 5, 1, 2, 3, 0, 1, 2, 3, 4, 5};
  fits_without(w, 3, seven, 7, 2000);
  fits_without(w, 2, (const int32_t[]){0, 4, 0, 2}, 2, 2000);
  fits_without(w, 1, (const int32_t[]){0, 2, 4, 5}, 4, 2000);
  fits_without(w, 5, (const int32_t[]){0, 2, 3, 4, 5, 0, 1, 2, 4, 5}, 2, 2000);
}

/* What remains has a probability of 1e-12; enumeration keeps its proportions,
 * because it never subtracts either. */
static void test_conditional_rare(void **state) {
  (void)state;
  const double w[L] = {1, 3e-13, 0.5, 1e-12, 0.8, 2e-12};
  double p[SETS] = {0};
  enumerate(w, 3, 0, 1, p);
  assert_true(p[21] > 1 - 1e-10); /* {0, 2, 4} */
  /* Two swaps have 1e-24: a sample that shows one is wrong. */
  int32_t set[3];
  int64_t count[SETS] = {0}, n = 2000;
  void *scratch = ist_calloc(ist_draw_other_set_scratch(L, 3), 1);
  ist_rng r = ist_rng_stream(8, IST_RNG_TEST, 0, 0, 0);
  for (int64_t i = 0; i < n; i++) {
    ist_draw_other_set(&r, w, L, 3, (const int32_t[]){0, 2, 4}, 1, set, scratch);
    count[mask_of(set, 3)]++;
  }
  ist_free(scratch);
  double sum = 0;
  p[21] = 0;
  for (int m = 0; m < SETS; m++) {
    if (p[m] < 1e-20) p[m] = 0;
    sum += p[m];
  }
  for (int m = 0; m < SETS; m++) p[m] /= sum;
  assert_fits(count, p, n);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_inclusion),
      cmocka_unit_test(test_whole),
      cmocka_unit_test(test_conditional),
      cmocka_unit_test(test_conditional_rare),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
