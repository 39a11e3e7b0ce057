/* Every method in the whole decoder: gradients against finite differences in double, both
 * orders of work and all levels of recompute against each other, the base bit for bit
 * before the first step, and what suppression means. */
#include "backend/cpu/cpu.h"
#include "fixture.h"

#define GRADCHECK_STEP 2e-5
#include "gradcheck.h"

#define L_TINY 4

/* Ranks that differ by layer, and layers without some modules (layers_to_transform ...). */
static ist_adapter_place places[L_TINY * IST_MOD_COUNT] = {
    [IST_MOD_Q] = {3, 8, 2},
    [IST_MOD_K] = {2, 8, 4},
    [IST_MOD_DOWN] = {4, 8, 2},
    [IST_MOD_COUNT + IST_MOD_K] = {3, 1, 0.5},
    [IST_MOD_COUNT + IST_MOD_UP] = {1, 2, 2},
    [2 * IST_MOD_COUNT + IST_MOD_O] = {2, 2, 1},
    [3 * IST_MOD_COUNT + IST_MOD_Q] = {4, 8, 2},
    [3 * IST_MOD_COUNT + IST_MOD_V] = {1, 8, 8},
};
#define SOME_PLACES                                                                  \
  .rank = 4, .alpha = 8, .scaling = 0.7, .places = places,                           \
  .modules = 1u << IST_MOD_Q | 1u << IST_MOD_K | 1u << IST_MOD_V | 1u << IST_MOD_O | \
             1u << IST_MOD_UP | 1u << IST_MOD_DOWN,                                  \
  .rank_of = {4, 3, 1, 2, 0, 1, 4}

#define OUTER                                                          \
  .outer = {[IST_OUTER_EMBED] = {.rank = 2, .alpha = 3, .scale = 1.5}, \
            [IST_OUTER_HEAD] = {.rank = 3, .alpha = 6, .scale = 2}}

static const ist_adapter_config methods[] = {
    {.method = "lora", .rank = 2, .alpha = 4, OUTER},
    {.method = "lora", SOME_PLACES},
    {.method = "dora", SOME_PLACES},
    {.method = "lora", SOME_PLACES, .lora_bias = true},
    {.method = "parallel", SOME_PLACES, .act = IST_ACT_SILU, .learned_scaling = true},
    {.method = "series", SOME_PLACES, .act = IST_ACT_TANH, .learned_scaling = true},
    {.method = "lora",
     .rank = 4,
     .alpha = 8,
     .rslora = true,
     .gaussian = true,
     .rank_of = {[IST_MOD_Q] = 2, [IST_MOD_DOWN] = 6},
     .alpha_of = {[IST_MOD_V] = 3}},
    {.method = "dora", .rank = 4, .alpha = 8},
    {.method = "dora", .rank = 3, .alpha = 8, .paper_dora = true},
    {.method = "parallel", .rank = 5, .alpha = 1, .scaling = 0.7, .act = IST_ACT_TANH},
    {.method = "parallel", .rank = 5, .alpha = 1, .scaling = 1.5, .act = IST_ACT_SILU},
    {.method = "parallel", .rank = 4, .alpha = 1, .scaling = 1.0, .act = IST_ACT_GELU_ERF},
    {.method = "series", .rank = 5, .alpha = 1, .scaling = 0.8, .act = IST_ACT_TANH},
    {.method = "prefix", .rank = 3},
    {.method = "lora", .rank = 3, .alpha = 5, .lora_bias = true},
    {.method = "dora", .rank = 3, .alpha = 8, .peft_dora = true},
    {.method = "parallel",
     .rank = 3,
     .alpha = 1,
     .scaling = 0.6,
     .act = IST_ACT_GELU_ERF,
     .learned_scaling = true},
    {.method = "series",
     .rank = 4,
     .alpha = 1,
     .scaling = 1.3,
     .act = IST_ACT_SILU,
     .learned_scaling = true},
};
enum { N_METHODS = sizeof methods / sizeof *methods };

typedef struct run_args {
  tiny *t;
  ist_order order;
  ist_recompute recompute;
  const uint8_t *active;
  const float *factor;
  int64_t copies;
} run_args;

static const int64_t samples[3] = {2, 0, 4};

static double forward(const run_args *a, bool train) {
  ist_runner *r = &a->t->runner;
  ist_runner_pack(r, &a->t->data, samples, 3, a->copies ? a->copies : 1);
  ist_pass pass = {.train = train, .seed = 7, .step = 3, .factor = a->factor};
  ist_runner_forward(r, &pass);
  return ist_runner_loss_sum(r) / (double)r->n_targets;
}

static double train_loss(void *user) {
  const run_args *a = user;
  ist_decoder_adapters_changed(&a->t->runner.decoder, -1);
  return forward(a, true);
}

static void gradients(const run_args *a) {
  tiny *t = a->t;
  int64_t L = t->config.L;
  int32_t slot = 0;
  for (int64_t l = 0; l < L; l++) t->adapters.grad_slot[l] = a->active[l] ? slot++ : -1;
  memset(t->adapters.grads, 0,
         (size_t)ist_dtype_bytes(t->adapters.dt, ist_adapter_elements(&t->adapters)));
  ist_runner_pack(&t->runner, &t->data, samples, 3, 1);
  ist_schedule_train(&t->runner.schedule, L, t->runner.n_micro, a->active, a->order, a->recompute);
  ist_pass pass = {.train = true,
                   .active = a->active,
                   .lowest = ist_lowest_active(a->active, L),
                   .seed = 7,
                   .step = 3,
                   .loss_weight = 1.0 / (double)t->runner.n_targets};
  ist_runner_run(&t->runner, &pass);
}

static void open_method(tiny *t, int i, const ist_backend *be, ist_dtype dt, ist_order order,
                        ist_recompute recompute, double dropout) {
  ist_adapter_config c = methods[i];
  c.dropout = dropout;
  tiny_open_method(t, be, dt, true, order, recompute, 20, &c);
}

static const uint8_t all_layers[L_TINY] = {1, 1, 1, 1};

/* DoRA's norm is a constant for the gradient: here its magnitude alone is checked, A and
 * B in test_dora_detached, where the norm is held. */
static void check_differences(int method, ist_order order, ist_recompute recompute,
                              double dropout) {
  tiny t;
  open_method(&t, method, ist_backend_reference(), IST_F64, order, recompute, dropout);
  tiny_disturb(&t, 0.05);
  run_args a = {&t, order, recompute, all_layers, NULL, 1};
  gradients(&a);
  gradcheck_input in[3]; /* the lowest layer and the highest, embedding and head */
  int64_t block = t.adapters.layout.params, outer = t.adapters.outer.params, first = 0;
  bool dora = strcmp(methods[method].method, "dora") == 0;
  if (dora) first = t.adapters.layout.module[IST_MOD_Q].m; /* magnitudes lie at the end */
  for (int64_t i = 0; i < 2; i++) {
    int64_t l = i * (L_TINY - 1);
    in[i] = (gradcheck_input){.name = methods[method].method,
                              .x = (double *)t.adapters.params + l * block + first,
                              .rows = 1,
                              .cols = block - first,
                              .stride = block - first,
                              .grad = (double *)t.adapters.grads + l * block + first,
                              .grad_stride = block - first};
  }
  in[2] = (gradcheck_input){.name = "outer",
                            .x = (double *)t.adapters.params + L_TINY * block,
                            .rows = 1,
                            .cols = outer,
                            .stride = outer,
                            .grad = (double *)t.adapters.outer_grads,
                            .grad_stride = outer};
  gradcheck_assert(in, outer ? 3 : 2, train_loss, &a, 1e-6);
  tiny_close(&t);
}

static void test_finite_differences(void **state) {
  (void)state;
  for (int m = 0; m < N_METHODS; m++)
    if (!methods[m].paper_dora) check_differences(m, IST_ORDER_TOKEN, IST_RECOMPUTE_MLP, 0.25);
}

/* With n held where it was, so that the loss is the function whose gradient is taken. */
static double detached_loss(void *user) {
  return forward(user, true); /* norms stay "fresh" */
}

static void check_detached(int method) {
  tiny t;
  open_method(&t, method, ist_backend_reference(), IST_F64, IST_ORDER_TOKEN, IST_RECOMPUTE_NONE,
              0.25);
  tiny_disturb(&t, 0.05);
  run_args a = {&t, IST_ORDER_TOKEN, IST_RECOMPUTE_NONE, all_layers, NULL, 1};
  gradients(&a);
  gradcheck_input in[2]; /* the lowest layer and the highest */
  int64_t block = t.adapters.layout.params;
  for (int64_t i = 0; i < 2; i++) {
    int64_t l = i * (L_TINY - 1);
    in[i] = (gradcheck_input){.name = "dora",
                              .x = (double *)t.adapters.params + l * block,
                              .rows = 1,
                              .cols = block,
                              .stride = block,
                              .grad = (double *)t.adapters.grads + l * block,
                              .grad_stride = block};
  }
  gradcheck_assert(in, 2, detached_loss, &a, 1e-6);
  tiny_close(&t);
}

static void test_dora_detached(void **state) {
  (void)state;
  for (int m = 0; m < N_METHODS; m++)
    if (strcmp(methods[m].method, "dora") == 0 && !methods[m].paper_dora) check_detached(m);
}

/* The order of work and what is recomputed change nothing, with frozen layers between. */
static void test_schedules_agree(void **state) {
  (void)state;
  static const uint8_t some[L_TINY] = {0, 1, 0, 1};
  static const struct {
    ist_order order;
    ist_recompute recompute;
  } ways[] = {{IST_ORDER_TOKEN, IST_RECOMPUTE_NONE},
              {IST_ORDER_TOKEN, IST_RECOMPUTE_MLP},
              {IST_ORDER_TOKEN, IST_RECOMPUTE_LAYER},
              {IST_ORDER_LAYER, IST_RECOMPUTE_LAYER}};
  for (int m = 0; m < N_METHODS; m++) {
    double *first = NULL;
    for (size_t w = 0; w < sizeof ways / sizeof *ways; w++) {
      tiny t;
      open_method(&t, m, ist_backend_reference(), IST_F64, ways[w].order, ways[w].recompute, 0.25);
      tiny_disturb(&t, 0.05);
      run_args a = {&t, ways[w].order, ways[w].recompute, some, NULL, 1};
      gradients(&a);
      int64_t n = ist_adapter_elements(&t.adapters);
      const double *g = (const double *)t.adapters.grads;
      double largest = 0;
      if (!first) {
        first = malloc((size_t)n * sizeof *first);
        memcpy(first, g, (size_t)n * sizeof *first);
      }
      for (int64_t i = 0; i < n; i++) largest = fmax(largest, fabs(first[i]));
      for (int64_t i = 0; i < n; i++) {
        if (!(fabs(first[i] - g[i]) <= 1e-12 * largest))
          fail_msg("%s %d, way %zu, gradient %lld: %g and %g", methods[m].method, m, w,
                   (long long)i, first[i], g[i]);
      }
      tiny_close(&t);
    }
    free(first);
  }
}

/* Our own products only: oneDNN serves dense operands, which those with a place for B behind
 * W are not, and sums in another order. */
static ist_status open_own(ist_ctx *ctx, ist_error *err) {
  const ist_simd *levels[4];
  ist_cpu_levels(levels);
  return ist_cpu_open_with(ctx, levels[0], NULL, err);
}

/* Zero-initialised output: the base bit for bit, in every arithmetic, with dropout too. */
static void test_starts_as_base(void **state) {
  (void)state;
  static const ist_dtype types[] = {IST_F64, IST_F32, IST_BF16};
  ist_backend own = *ist_backend_cpu();
  own.open = open_own;
  for (int k = 0; k < 3; k++) {
    const ist_backend *be = k ? &own : ist_backend_reference();
    tiny base;
    tiny_open(&base, be, types[k], false, IST_ORDER_TOKEN, IST_RECOMPUTE_NONE, 20);
    run_args b = {&base, IST_ORDER_TOKEN, IST_RECOMPUTE_NONE, all_layers, NULL, 1};
    double bare = forward(&b, false);
    tiny_close(&base);
    for (int m = 0; m < N_METHODS; m++) {
      if (strcmp(methods[m].method, "prefix") == 0) continue; /* has no such start */
      tiny t;
      open_method(&t, m, be, types[k], IST_ORDER_TOKEN, IST_RECOMPUTE_NONE, 0.25);
      run_args a = {&t, IST_ORDER_TOKEN, IST_RECOMPUTE_NONE, all_layers, NULL, 1};
      for (int train = 0; train < 2; train++) {
        double loss = forward(&a, train);
        if (loss != bare)
          fail_msg("%s %d, %s, %s: loss %.17g, the base's %.17g", methods[m].method, m,
                   ist_dtype_get(types[k])->name, train ? "train" : "eval", loss, bare);
      }
      tiny_close(&t);
    }
  }
}

/* Zero-initialised output: the base bit for bit; factor 0: too, whatever was learned;
 * factor 1: what it is without. */
static void test_suppression(void **state) {
  (void)state;
  tiny base;
  tiny_open(&base, ist_backend_reference(), IST_F64, false, IST_ORDER_TOKEN, IST_RECOMPUTE_NONE,
            20);
  run_args b = {&base, IST_ORDER_TOKEN, IST_RECOMPUTE_NONE, all_layers, NULL, 1};
  double bare = forward(&b, false);
  tiny_close(&base);
  static const float zero[L_TINY] = {0, 0, 0, 0}, one[L_TINY] = {1, 1, 1, 1};
  static const float groups[2 * L_TINY] = {0, 0.25F, 1, 0.25F, 0.25F, 1, 0, 1};
  for (int m = 0; m < N_METHODS; m++) {
    tiny t;
    open_method(&t, m, ist_backend_reference(), IST_F64, IST_ORDER_TOKEN, IST_RECOMPUTE_NONE, 0);
    run_args a = {&t, IST_ORDER_TOKEN, IST_RECOMPUTE_NONE, all_layers, NULL, 1};
    bool prefix = strcmp(methods[m].method, "prefix") == 0;
    if (!prefix) assert_true(forward(&a, false) == bare);
    tiny_disturb(&t, 0.3);
    double plain = forward(&a, false), apart[2];
    assert_true(fabs(plain - bare) > 1e-3);
    a.factor = one;
    assert_true(forward(&a, false) == plain);
    a.factor = zero;
    double gone = forward(&a, false);
    /* Embedding and head are not suppressed; the official code leaves the magnitude in place. */
    if (methods[m].paper_dora || t.adapters.outer.params) {
      assert_true(fabs(gone - plain) > 1e-3);
    } else {
      assert_true(fabs(gone - bare) < 1e-13);
    }
    for (int g = 0; g < 2; g++) {
      a.factor = groups + g * L_TINY;
      apart[g] = forward(&a, false);
    }
    a.factor = groups;
    a.copies = 2;
    assert_true(fabs(forward(&a, false) - 0.5 * (apart[0] + apart[1])) < 1e-12);
    assert_true(fabs(apart[0] - apart[1]) > 1e-4);
    tiny_close(&t);
  }
}

/* The CPU backend, F32 and BF16, against the reference in double. */
static void test_cpu(void **state) {
  (void)state;
  static const uint8_t some[L_TINY] = {0, 1, 0, 1};
  for (int m = 0; m < N_METHODS; m++) {
    tiny ref;
    open_method(&ref, m, ist_backend_reference(), IST_F64, IST_ORDER_TOKEN, IST_RECOMPUTE_MLP,
                0.25);
    tiny_disturb(&ref, 0.05);
    run_args a = {&ref, IST_ORDER_TOKEN, IST_RECOMPUTE_MLP, some, NULL, 1};
    gradients(&a);
    for (int narrow = 0; narrow < 2; narrow++) {
      tiny t;
      open_method(&t, m, ist_backend_cpu(), narrow ? IST_BF16 : IST_F32, IST_ORDER_TOKEN,
                  IST_RECOMPUTE_MLP, 0.25);
      tiny_disturb(&t, 0.05);
      run_args c = {&t, IST_ORDER_TOKEN, IST_RECOMPUTE_MLP, some, NULL, 1};
      gradients(&c);
      double error = 0, size = 0;
      for (int64_t i = 0; i < ist_adapter_elements(&t.adapters); i++) {
        double truth = ((double *)ref.adapters.grads)[i];
        double off = (double)((float *)t.adapters.grads)[i] - truth;
        error += off * off;
        size += truth * truth;
      }
      double relative = sqrt(error / size), most = narrow ? 0.04 : 2e-5;
      if (!(relative <= most))
        fail_msg("%s %d: %g off, at most %g", methods[m].method, m, relative, most);
      tiny_close(&t);
    }
    tiny_close(&ref);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_finite_differences), cmocka_unit_test(test_dora_detached),
      cmocka_unit_test(test_schedules_agree),    cmocka_unit_test(test_starts_as_base),
      cmocka_unit_test(test_suppression),        cmocka_unit_test(test_cpu),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
