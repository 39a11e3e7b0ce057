/* The whole decoder against finite differences in double: every adapter parameter
 * of every layer, with dropout on, in both orders of work. */
#include "fixture.h"

/* A direction moves thousands of parameters at once. */
#define GRADCHECK_STEP 2e-5
#include "gradcheck.h"

typedef struct run_args {
  tiny *t;
  ist_order order;
  ist_recompute recompute;
} run_args;

static const uint8_t all_layers[4] = {1, 1, 1, 1};

static ist_pass train_pass(const tiny *t) {
  return (ist_pass){.train = true,
                    .active = all_layers,
                    .seed = 7,
                    .step = 3,
                    .loss_weight = 1.0 / (double)t->runner.n_targets};
}

static void pack(const run_args *a) {
  static const int64_t index[3] = {2, 0, 4};
  ist_runner_pack(&a->t->runner, &a->t->data, index, 3, 1);
}

static double loss(void *user) {
  const run_args *a = user;
  ist_runner *r = &a->t->runner;
  pack(a);
  ist_pass pass = train_pass(a->t);
  ist_runner_forward(r, &pass);
  return ist_runner_loss_sum(r) / (double)r->n_targets;
}

static void gradients(const run_args *a) {
  tiny *t = a->t;
  for (int64_t l = 0; l < t->config.L; l++) t->adapters.grad_slot[l] = (int32_t)l;
  memset(t->adapters.grads, 0, (size_t)(t->config.L * t->adapters.layout.params) * sizeof(double));
  pack(a);
  ist_schedule_train(&t->runner.schedule, t->config.L, t->runner.n_micro, all_layers, a->order,
                     a->recompute);
  ist_pass pass = train_pass(t);
  ist_runner_run(&t->runner, &pass);
}

static void check(ist_order order, ist_recompute recompute, double dropout) {
  tiny t;
  tiny_open(&t, ist_backend_reference(), IST_F64, true, order, recompute, 20);
  t.adapters.config.dropout = dropout;
  run_args args = {&t, order, recompute};
  gradients(&args);
  gradcheck_input in[4];
  int64_t block = t.adapters.layout.params;
  for (int64_t l = 0; l < 4; l++) {
    in[l] = (gradcheck_input){.name = "adapters of a layer",
                              .x = (double *)t.adapters.params + l * block,
                              .rows = 1,
                              .cols = block,
                              .stride = block,
                              .grad = (double *)t.adapters.grads + l * block,
                              .grad_stride = block};
  }
  gradcheck_assert(in, 4, loss, &args, 1e-6);
  tiny_close(&t);
}

static void test_token_order(void **state) {
  (void)state;
  check(IST_ORDER_TOKEN, IST_RECOMPUTE_NONE, 0.0);
  check(IST_ORDER_TOKEN, IST_RECOMPUTE_MLP, 0.25);
}

static void test_layer_order(void **state) {
  (void)state;
  check(IST_ORDER_LAYER, IST_RECOMPUTE_LAYER, 0.25);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_token_order),
      cmocka_unit_test(test_layer_order),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
