/* Learning-rate schedules: values worked out by hand, and the definitions of
 * transformers written a second time. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "train/schedule.h"

static void test_by_hand(void **state) {
  (void)state;
  static const struct {
    ist_lr_kind kind;
    int64_t k, w, n;
    double factor;
  } cases[] = {
      /* The paper's run: t / 100 below 100, then linear to 0 at the last step. */
      {IST_LR_LINEAR, 0, 100, 1100, 0},
      {IST_LR_LINEAR, 1, 100, 1100, 0.01},
      {IST_LR_LINEAR, 99, 100, 1100, 0.99},
      {IST_LR_LINEAR, 100, 100, 1100, 1},
      {IST_LR_LINEAR, 600, 100, 1100, 0.5},
      {IST_LR_LINEAR, 1099, 100, 1100, 0.001},
      {IST_LR_LINEAR, 1100, 100, 1100, 0},
      {IST_LR_LINEAR, 2000, 100, 1100, 0},
      {IST_LR_LINEAR, 0, 0, 4, 1},
      {IST_LR_LINEAR, 3, 0, 4, 0.25},
      {IST_LR_LINEAR, 2, 10, 5, 0.2}, /* warm-up longer than the run */
      {IST_LR_LINEAR, 0, 1, 1, 0},
      {IST_LR_LINEAR, 0, 0, 0, 0},
      {IST_LR_COSINE, 5, 10, 50, 0.5},
      {IST_LR_COSINE, 10, 10, 50, 1},
      {IST_LR_COSINE, 20, 10, 50, 0.85355339059327373}, /* (1 + 1/sqrt 2) / 2 */
      {IST_LR_COSINE, 30, 10, 50, 0.5},
      {IST_LR_COSINE, 50, 10, 50, 0},
      {IST_LR_COSINE, 99, 10, 50, 0},
      {IST_LR_CONSTANT, 2, 8, 50, 0.25},
      {IST_LR_CONSTANT, 8, 8, 50, 1},
      {IST_LR_CONSTANT, 500, 8, 50, 1},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    double f = ist_lr_factor(cases[i].kind, cases[i].k, cases[i].w, cases[i].n);
    if (!(fabs(f - cases[i].factor) <= 1e-15))
      fail_msg("case %zu: %.17g, expected %.17g", i, f, cases[i].factor);
  }
}

static double larger(double a, double b) {
  return a > b ? a : b;
}

static void test_definitions(void **state) {
  (void)state;
  for (int64_t n = 0; n < 40; n++)
    for (int64_t w = 0; w < 45; w++)
      for (int64_t k = 0; k < 45; k++) {
        double linear = k < w ? (double)k / larger(1, (double)w)
                              : larger(0, (double)(n - k) / larger(1, (double)(n - w)));
        assert_true(ist_lr_factor(IST_LR_LINEAR, k, w, n) == linear);
        /* Past the end transformers' cosine would rise again; ours stays at 0. */
        double q = (double)(k - w) / larger(1, (double)(n - w));
        double cosine = k < w ? linear : k >= n ? 0 : larger(0, 0.5 * (1 + cos(acos(-1) * q)));
        assert_true(fabs(ist_lr_factor(IST_LR_COSINE, k, w, n) - cosine) < 1e-15);
        assert_true(ist_lr_factor(IST_LR_CONSTANT, k, w, n) == (k < w ? linear : 1.0));
      }
}

static void test_names(void **state) {
  (void)state;
  assert_int_equal(ist_lr_kind_from_name("linear"), IST_LR_LINEAR);
  assert_int_equal(ist_lr_kind_from_name("cosine"), IST_LR_COSINE);
  assert_int_equal(ist_lr_kind_from_name("constant"), IST_LR_CONSTANT);
  assert_int_equal(ist_lr_kind_from_name("square"), -1);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_by_hand),
      cmocka_unit_test(test_definitions),
      cmocka_unit_test(test_names),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
