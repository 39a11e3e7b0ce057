/* Random numbers: Philox4x32-10 against the published known answers, the key and
 * counter layout, and the streams. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"

/* Known answers of the Random123 distribution. */
static void test_known_answers(void **state) {
  (void)state;
  static const struct {
    uint32_t counter[4], key[2], out[4];
  } kat[] = {
      {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
      {{~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
      {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
       {0xa4093822, 0x299f31d0},
       {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
  };
  for (size_t i = 0; i < sizeof kat / sizeof kat[0]; i++) {
    uint32_t out[4];
    ist_philox(out, kat[i].counter, (ist_philox_key){{kat[i].key[0], kat[i].key[1]}});
    assert_memory_equal(out, kat[i].out, sizeof out);
  }
}

/* Layout version 1, written out: a change here breaks every recorded run. */
static void test_layout(void **state) {
  (void)state;
  assert_int_equal(IST_RNG_LAYOUT, 1);
  ist_philox_key key = ist_rng_key(0x1122334455667788ull, IST_RNG_DROPOUT);
  assert_int_equal(key.k[0], 0x55667788u);
  assert_int_equal(key.k[1], 0x11223344u ^ 0x3c6ef372u);
  assert_int_equal(IST_RNG_DROPOUT, 2);
  assert_int_equal(IST_RNG_TEST, 10);

  ist_rng r = ist_rng_stream(42, IST_RNG_SELECT, 7, 8, 9);
  for (uint32_t block = 0; block < 3; block++) {
    uint32_t words[4];
    ist_philox(words, (uint32_t[]){7, 8, 9, block}, ist_rng_key(42, IST_RNG_SELECT));
    for (int i = 0; i < 4; i++) assert_int_equal(ist_rng_u32(&r), words[i]);
  }
  ist_rng copy = r;
  assert_true(ist_rng_uniform(&r) == ist_rng_uniform(&copy));

  uint32_t w[4];
  ist_philox(w, (uint32_t[]){1, 0, 0, 0}, ist_rng_key(5, IST_RNG_TEST));
  r = ist_rng_stream(5, IST_RNG_TEST, 1, 0, 0);
  uint64_t bits = ((uint64_t)w[0] << 32 | w[1]) >> 11;
  assert_true(ist_rng_uniform(&r) == ldexp((double)bits, -53));
}

static void test_uniform_and_normal(void **state) {
  (void)state;
  enum { N = 200000 };
  ist_rng r = ist_rng_stream(1, IST_RNG_TEST, 0, 0, 0);
  double sum = 0, square = 0;
  for (int i = 0; i < N; i++) {
    double u = ist_rng_uniform(&r);
    assert_true(u >= 0 && u < 1);
    sum += u;
    square += u * u;
  }
  /* Four standard errors. */
  assert_true(fabs(sum / N - 0.5) < 4 * sqrt(1.0 / 12 / N));
  assert_true(fabs(square / N - 1.0 / 3) < 4 * sqrt(4.0 / 45 / N));

  double moment[4] = {0};
  int tail = 0;
  for (int i = 0; i < N; i++) {
    double x = ist_rng_normal(&r), power = 1;
    assert_true(isfinite(x));
    for (int k = 0; k < 4; k++) moment[k] += (power *= x) / N;
    tail += fabs(x) > 1.959964;
  }
  assert_true(fabs(moment[0]) < 4 * sqrt(1.0 / N));
  assert_true(fabs(moment[1] - 1) < 4 * sqrt(2.0 / N));
  assert_true(fabs(moment[2]) < 4 * sqrt(15.0 / N));
  assert_true(fabs(moment[3] - 3) < 4 * sqrt(96.0 / N));
  assert_true(fabs(tail / (double)N - 0.05) < 4 * sqrt(0.05 * 0.95 / N));
}

static void test_below(void **state) {
  (void)state;
  ist_rng r = ist_rng_stream(2, IST_RNG_TEST, 0, 0, 0);
  for (uint64_t n = 1; n < 20; n++) {
    int64_t count[20] = {0};
    for (int i = 0; i < 20000; i++) {
      uint64_t x = ist_rng_below(&r, n);
      assert_true(x < n);
      count[x]++;
    }
    double share = 20000.0 / (double)n;
    for (uint64_t x = 0; x < n; x++)
      assert_true(fabs((double)count[x] - share) <= 4.5 * sqrt(share));
  }
  /* Where 2^64 is far from a multiple of n, a biased method shows: 2/3 below half. */
  uint64_t n = 3ull << 62;
  int low = 0;
  for (int i = 0; i < 20000; i++) low += ist_rng_below(&r, n) < n / 2;
  assert_true(abs(low - 10000) < 300);
}

static void test_shuffle(void **state) {
  (void)state;
  ist_rng r = ist_rng_stream(3, IST_RNG_TEST, 0, 0, 0);
  int64_t count[24] = {0};
  for (int i = 0; i < 24000; i++) {
    int64_t v[4] = {0, 1, 2, 3};
    ist_rng_shuffle(&r, v, 4);
    int64_t rank = 0; /* in the factorial number system */
    int seen = 0;
    for (int a = 0; a < 4; a++) {
      seen |= 1 << v[a];
      int64_t smaller = 0;
      for (int b = a + 1; b < 4; b++) smaller += v[b] < v[a];
      rank = rank * (4 - a) + smaller;
    }
    assert_int_equal(seen, 15);
    count[rank]++;
  }
  for (int i = 0; i < 24; i++) assert_true(fabs((double)count[i] - 1000) < 4.5 * sqrt(1000));
  ist_rng_shuffle(&r, NULL, 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_known_answers),
      cmocka_unit_test(test_layout),
      cmocka_unit_test(test_uniform_and_normal),
      cmocka_unit_test(test_below),
      cmocka_unit_test(test_shuffle),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
