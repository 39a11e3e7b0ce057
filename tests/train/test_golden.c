/* The whole decoder against Hugging Face transformers and PEFT: logits, losses,
 * the gradient of every adapter tensor, under every schedule (see
 * tests/golden/README.md for how the goldens were made). */
#include "train/golden.h"

static void check_logits(const ist_backend *be, ist_dtype compute, double tolerance) {
  tiny t;
  tiny_open(&t, be, compute, false, IST_ORDER_TOKEN, IST_RECOMPUTE_NONE, 64);
  compare_logits(&t, tolerance, "logits");
  tiny_close(&t);
}

static void test_logits(void **state) {
  (void)state;
  check_logits(ist_backend_reference(), IST_F32, 1e-4);
  check_logits(ist_backend_reference(), IST_F64, 1e-4);
  check_logits(ist_backend_cpu(), IST_F32, 1e-4);
  check_logits(ist_backend_cpu(), IST_BF16, 3e-2);
}

static void test_losses(void **state) {
  (void)state;
  for (int adapter = 0; adapter < 2; adapter++) {
    tiny t;
    tiny_open(&t, ist_backend_reference(), IST_F64, adapter, IST_ORDER_TOKEN, IST_RECOMPUTE_NONE,
              32);
    int64_t index[8];
    all_samples(&t, index);
    double loss = ist_runner_eval(&t.runner, &t.data, index, t.data.n, NULL, NULL);
    assert_float_equal(loss, golden_number(&t, adapter ? "loss_adapter" : "loss_base"), 1e-5);
    if (adapter) {
      float factor[4] = {0.25f, 1, 0.25f, 1};
      loss = ist_runner_eval(&t.runner, &t.data, index, t.data.n, factor, NULL);
      assert_float_equal(loss, golden_number(&t, "loss_suppressed"), 1e-5);
    }
    tiny_close(&t);
  }
}

static void check_gradients(const ist_backend *be, ist_dtype compute, double tolerance) {
  static const uint8_t some[4] = {0, 1, 0, 1}, all[4] = {1, 1, 1, 1};
  for (int order = 0; order < 2; order++) {
    for (int recompute = 0; recompute < 3; recompute++) {
      for (int64_t micro = 20; micro <= 64; micro += 22) {
        tiny t;
        tiny_open(&t, be, compute, true, (ist_order)order, (ist_recompute)recompute, micro);
        gradients(&t, some, (ist_order)order, (ist_recompute)recompute);
        compare_gradients(&t, some, "grad", tolerance);
        gradients(&t, all, (ist_order)order, (ist_recompute)recompute);
        compare_gradients(&t, all, "grad", tolerance);
        tiny_close(&t);
      }
    }
  }
}

static void test_gradients(void **state) {
  (void)state;
  check_gradients(ist_backend_reference(), IST_F32, 1e-3);
  check_gradients(ist_backend_cpu(), IST_F32, 1e-3);
  /* BF16 keeps 8 bits of every activation; this model was made to be steep. */
  check_gradients(ist_backend_cpu(), IST_BF16, 0.25);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_logits),
      cmocka_unit_test(test_losses),
      cmocka_unit_test(test_gradients),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
