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

/* Losses of 15 segments in several micro-batches; in layer order only two fit a slot. */
static int64_t segment_losses(ist_order order, double loss[15]) {
  static const int64_t index[5] = {2, 0, 4, 1, 3};
  tiny t;
  tiny_open(&t, ist_backend_reference(), IST_F64, true, order, IST_RECOMPUTE_LAYER, 20);
  ist_runner *r = &t.runner;
  if (order == IST_ORDER_LAYER) r->decoder.sizes.boundary_rows = 2 * IST_ROW_BUCKET;
  ist_runner_pack(r, &t.data, index, 5, 3);
  int64_t groups = 0;
  for (int64_t i = 0; i < r->n_micro; i++) groups += r->micro[i].boundary_row == 0;
  ist_pass pass = {0};
  ist_runner_forward(r, &pass);
  assert_int_equal(r->n_seg, 15);
  ist_runner_segment_losses(r, loss);
  double all = ist_runner_eval(r, &t.data, index, 5, NULL, NULL), sum = 0;
  int64_t targets = 0;
  ist_runner_pack(r, &t.data, index, 5, 1);
  for (int64_t i = 0; i < 5; i++) sum += loss[i], targets += r->seg_targets[i];
  assert_float_equal(all, sum / (double)targets, 1e-12);
  tiny_close(&t);
  return groups;
}

static void test_groups_of_micro_batches(void **state) {
  (void)state;
  double token[15], layer[15];
  int64_t micros = segment_losses(IST_ORDER_TOKEN, token),
          groups = segment_losses(IST_ORDER_LAYER, layer);
  assert_int_equal(groups, (micros + 1) / 2);
  assert_true(groups > 2);
  assert_memory_equal(token, layer, sizeof token);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_token_order),
      cmocka_unit_test(test_layer_order),
      cmocka_unit_test(test_groups_of_micro_batches),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
