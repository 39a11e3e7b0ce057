/* Measured importance: what is computed once must give what computing all anew gives,
 * to the bit, and damping a layer must matter. */
#include "train/fixture.h"

#include "eval/session.h"

static void check(const ist_backend *be, ist_dtype compute) {
  tiny t;
  /* Several micro-batches: 32 tokens hold two of the samples. */
  tiny_open(&t, be, compute, true, IST_ORDER_TOKEN, IST_RECOMPUTE_NONE, 32);
  int64_t n = t.data.n, L = t.config.L, index[8];
  double base[8], damped[4 * 8], expected[8];
  float factors[4];
  assert_true(n <= 8 && L == 4);
  for (int64_t i = 0; i < n; i++) index[i] = n - 1 - i;
  ist_layer_losses(&t.runner, &t.data, index, n, 0.25, factors, base, damped);
  for (int64_t l = 0; l < L; l++) factors[l] = 1.0f;
  ist_runner_eval(&t.runner, &t.data, index, n, factors, expected);
  assert_memory_equal(base, expected, (size_t)n * sizeof *base);
  for (int64_t l = 0; l < L; l++) {
    factors[l] = 0.25f;
    ist_runner_eval(&t.runner, &t.data, index, n, factors, expected);
    assert_memory_equal(damped + l * n, expected, (size_t)n * sizeof *base);
    assert_memory_not_equal(damped + l * n, base, (size_t)n * sizeof *base);
    factors[l] = 1.0f;
  }
  tiny_close(&t);
}

static void test_layer_losses(void **state) {
  (void)state;
  check(ist_backend_reference(), IST_F64);
  check(ist_backend_reference(), IST_F32);
  check(ist_backend_cpu(), IST_BF16);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_layer_losses)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
