/* Every family against Hugging Face transformers and PEFT, from a folder and, where
 * llama.cpp knows the family, from a GGUF: logits of packed segments, gradients of every
 * adapter tensor under every schedule, twenty greedy tokens through the KV cache, and the
 * whole decoder against finite differences in double. Goldens: make_families.py. */
#include "train/golden.h"

#include <unistd.h>

#include "base/parallel.h"
#include "eval/generator.h"
/* A direction moves hundreds of parameters at once. */
#define GRADCHECK_STEP     2e-5
#define GRADCHECK_ELEMENTS 0
#include "gradcheck.h"

static const struct {
  const char *dir;
  bool gguf;
} families[] = {
#define FAMILY(name, gguf) \
  { IST_GOLDEN_DIR "/families/" name "/", gguf }
    FAMILY("llama_biased", true),
    FAMILY("llama_llama3", true),
    FAMILY("llama_linear", false),
    FAMILY("llama_yarn", true),
    FAMILY("llama_dynamic", false),
    FAMILY("mistral", false),
    FAMILY("qwen2", true),
    FAMILY("qwen2_window", false),
    FAMILY("qwen3", true),
    FAMILY("mixtral", true),
    FAMILY("qwen3_moe", true),
    FAMILY("qwen3_moe_plain", false),
    FAMILY("qwen2_moe", true),
    FAMILY("qwen2_moe_mixed", false),
    FAMILY("phi3", true),
    FAMILY("smollm3", true),
    FAMILY("gemma", true),
    FAMILY("gemma2", true),
    FAMILY("gemma3", true),
    FAMILY("gpt2", true),
    FAMILY("gptj", false),
    FAMILY("gpt_neox", true),
    FAMILY("gpt_neox_serial", true),
    FAMILY("bloom", true),
    FAMILY("opt", false),
    FAMILY("opt_350m", false),
#undef FAMILY
};
#define N_FAMILIES (sizeof families / sizeof *families)

/* Both sources of a family, one after the other. */
typedef void (*check_fn)(const char *dir, const char *model);
static void each(check_fn check) {
  for (size_t i = 0; i < N_FAMILIES; i++) {
    check(families[i].dir, NULL);
    if (families[i].gguf) check(families[i].dir, "model.gguf");
  }
}

/* ---- Logits ------------------------------------------------------------------------- */

static void check_logits(const char *dir, const char *model) {
  const struct {
    const ist_backend *be;
    ist_dtype compute;
    double tolerance;
  } ways[] = {
      {ist_backend_reference(), IST_F32, 1e-4},
      {ist_backend_cpu(), IST_F32, 1e-4},
      {ist_backend_cpu(), IST_BF16, 0.1},
  };
  for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
    tiny t;
    tiny_open_from(&t, dir, model, ways[i].be, ways[i].compute, false, IST_ORDER_TOKEN,
                   IST_RECOMPUTE_NONE, 64);
    compare_logits(&t, ways[i].tolerance, dir);
    tiny_close(&t);
  }
}

static void test_logits(void **state) {
  (void)state;
  each(check_logits);
}

/* ---- Gradients ------------------------------------------------------------------------ */

static const uint8_t all_layers[16] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};

static void check_gradients(const char *dir, const char *model) {
  for (int order = 0; order < 2; order++) {
    for (int recompute = 0; recompute < 3; recompute++) {
      for (int cpu = 0; cpu < 2; cpu++) {
        /* Schedules are compared in double, once. */
        if ((cpu || model) && recompute != order) continue;
        tiny t;
        tiny_open_from(&t, dir, model, cpu ? ist_backend_cpu() : ist_backend_reference(),
                       cpu ? IST_F32 : IST_F64, true, (ist_order)order, (ist_recompute)recompute,
                       20);
        gradients(&t, all_layers, (ist_order)order, (ist_recompute)recompute);
        compare_gradients(&t, all_layers, "grad", 1e-3);
        uint8_t top[16] = {0}; /* the cut below the lowest active layer */
        top[(t.config.L - 1) & 15] = 1;
        gradients(&t, top, (ist_order)order, (ist_recompute)recompute);
        compare_gradients(&t, top, "grad", 1e-3);
        tiny_close(&t);
      }
    }
  }
}

static void test_gradients(void **state) {
  (void)state;
  each(check_gradients);
}

/* ---- Finite differences ------------------------------------------------------------------ */

typedef struct run_args {
  tiny *t;
  ist_order order;
} run_args;

static void pack(const run_args *a) {
  static const int64_t index[3] = {2, 0, 3};
  ist_runner_pack(&a->t->runner, &a->t->data, index, 3, 1);
}

static ist_pass train_pass(const tiny *t) {
  return (ist_pass){.train = true,
                    .active = all_layers,
                    .seed = 7,
                    .step = 3,
                    .loss_weight = 1.0 / (double)t->runner.n_targets};
}

static double loss(void *user) {
  const run_args *a = user;
  ist_runner *r = &a->t->runner;
  pack(a);
  ist_pass pass = train_pass(a->t);
  ist_runner_forward(r, &pass);
  return ist_runner_loss_sum(r) / (double)r->n_targets;
}

/* method NULL: the golden LoRA. */
static void check_method(const char *dir, const ist_adapter_config *method, int order) {
  ist_recompute recompute = order ? IST_RECOMPUTE_LAYER : IST_RECOMPUTE_MLP;
  tiny t;
  tiny_open_all(&t, dir, NULL, ist_backend_reference(), IST_F64, true, (ist_order)order, recompute,
                17, method);
  if (method) tiny_disturb(&t, 0.1);
  t.adapters.config.dropout = 0.25;
  if (t.config.act == IST_ACT_RELU) t.config.act = IST_ACT_GELU_ERF; /* without a kink */
  run_args args = {&t, (ist_order)order};
  int64_t block = t.adapters.layout.params, L = t.config.L;
  /* DoRA's norm is a constant to the others' gradients; magnitudes lie at the end. */
  int64_t first = t.adapters.layout.module[IST_MOD_Q].m;
  for (int64_t l = 0; l < L; l++) t.adapters.grad_slot[l] = (int32_t)l;
  memset(t.adapters.grads, 0, (size_t)(L * block) * sizeof(double));
  pack(&args);
  ist_schedule_train(&t.runner.schedule, L, t.runner.n_micro, all_layers, (ist_order)order,
                     recompute);
  ist_pass pass = train_pass(&t);
  ist_runner_run(&t.runner, &pass);
  const gradcheck_input in = {.name = dir,
                              .x = (double *)t.adapters.params + first,
                              .rows = L,
                              .cols = block - first,
                              .stride = block,
                              .grad = (double *)t.adapters.grads + first,
                              .grad_stride = block};
  gradcheck_assert(&in, 1, loss, &args, 1e-6);
  tiny_close(&t);
}

static void check_slopes(const char *dir, const char *model) {
  static int turn; /* families take the two orders of work by turns */
  if (!model) check_method(dir, NULL, turn++ % 2);
}

static void test_slopes(void **state) {
  (void)state;
  each(check_slopes);
}

/* Every method on the experts: theirs are the only modules of which a layer has several. */
static void test_methods_on_experts(void **state) {
  (void)state;
  static const ist_adapter_config methods[] = {
      {.method = "lora", .rank = 3, .alpha = 6, .lora_bias = true},
      {.method = "parallel",
       .rank = 3,
       .alpha = 1,
       .scaling = 0.7,
       .act = IST_ACT_TANH,
       .learned_scaling = true},
      {.method = "series", .rank = 3, .alpha = 1, .scaling = 0.7, .act = IST_ACT_SILU},
      {.method = "dora", .rank = 3, .alpha = 6},
  };
  for (size_t i = 0; i < sizeof methods / sizeof *methods; i++) {
    check_method(IST_GOLDEN_DIR "/families/qwen2_moe/", &methods[i], (int)i % 2);
    check_method(IST_GOLDEN_DIR "/families/qwen2_moe_mixed/", &methods[i], (int)(i + 1) % 2);
  }
}

/* qwen2_moe_mixed with dense MLPs of 6 columns, less than an expert's 12: its folder, in `dir`. */
static void write_narrow(const char *dir) {
  enum { NARROW = 6 };
  const char *from = IST_GOLDEN_DIR "/families/qwen2_moe_mixed/";
  ist_error err = {0};
  char path[512], target[512];
  json_t *config;
  ist_safetensors *st;
  snprintf(path, sizeof path, "%sconfig.json", from);
  MUST(ist_json_read(&config, path, IST_JSON_SETTINGS, &err));
  const int64_t wide = json_integer_value(json_object_get(config, "intermediate_size"));
  json_object_set_new(config, "intermediate_size", json_integer(NARROW));
  snprintf(path, sizeof path, "%sconfig.json", dir);
  assert_int_equal(json_dump_file(config, path, 0), 0);
  json_decref(config);
  snprintf(path, sizeof path, "%smodel.safetensors", from);
  MUST(ist_safetensors_open(&st, path, &err));
  ist_st_item *items = calloc((size_t)st->n, sizeof *items);
  float *values = calloc((size_t)st->n, NARROW * 64 * sizeof *values); /* D is 24 */
  for (int64_t i = 0; i < st->n; i++) {
    const ist_st_tensor *t = &st->tensor[i];
    items[i] = (ist_st_item){.name = t->name, .type = t->type, .n_dims = t->n_dims};
    memcpy(items[i].shape, t->shape, sizeof t->shape);
    items[i].data = t->data;
    const int narrow = t->n_dims == 2 && t->shape[0] == wide   ? 0
                       : t->n_dims == 2 && t->shape[1] == wide ? 1
                                                               : -1;
    if (narrow < 0) continue;
    float *v = values + i * NARROW * 64, all[20 * 64];
    MUST(ist_st_to_f32(t, all, t->shape[0] * t->shape[1], &err));
    items[i].shape[narrow] = NARROW;
    for (int64_t k = 0; k < items[i].shape[0] * items[i].shape[1]; k++)
      v[k] = all[k / items[i].shape[1] * t->shape[1] + k % items[i].shape[1]];
    items[i].type = IST_F32;
    items[i].data = v;
  }
  snprintf(path, sizeof path, "%smodel.safetensors", dir);
  MUST(ist_safetensors_write(path, items, st->n, NULL, 0, &err));
  ist_safetensors_close(st);
  free(items);
  free(values);
  snprintf(path, sizeof path, "%sgoldens.safetensors", dir); /* for its tokens */
  snprintf(target, sizeof target, "%sgoldens.safetensors", from);
  assert_int_equal(symlink(target, path), 0);
}

/* Experts may be wider than the MLPs of the layers without. */
static void test_wider_experts(void **state) {
  (void)state;
  static const ist_adapter_config lora = {.method = "lora", .rank = 3, .alpha = 6};
  char dir[] = "/tmp/ist-narrow-XXXXXX", inside[64];
  assert_non_null(mkdtemp(dir));
  snprintf(inside, sizeof inside, "%s/", dir);
  write_narrow(inside);
  for (int order = 0; order < 2; order++) check_method(inside, &lora, order);
  snprintf(inside, sizeof inside, "%s/goldens.safetensors", dir);
  assert_int_equal(unlink(inside), 0);
  assert_int_equal(ist_remove_tree(dir, NULL), IST_OK);
}

/* Every expert starts with the magnitudes of its own matrix, so that nothing changes. */
static void test_fresh_experts(void **state) {
  (void)state;
  const ist_adapter_config dora = {.method = "dora", .rank = 3, .alpha = 6};
  tiny t;
  tiny_open_all(&t, IST_GOLDEN_DIR "/families/qwen2_moe/", NULL, ist_backend_cpu(), IST_F32, true,
                IST_ORDER_TOKEN, IST_RECOMPUTE_NONE, 64, &dora);
  compare_logits(&t, 1e-4, "fresh DoRA");
  tiny_close(&t);
}

/* ---- Generation ---------------------------------------------------------------------------- */

/* Greedy continuation of the golden prompt, by two sequences at once, through the cache. */
static void check_greedy_by(const char *dir, const char *model, ist_step_products products) {
  ist_error err = {0};
  tiny t;
  tiny_open_model(&t, dir, model);
  ist_model m = {.config = t.config, .weights = t.weights, .compute = IST_F32};
  m.ctx.be = ist_backend_cpu();
  MUST(m.ctx.be->open(&m.ctx, &err));
  const ist_st_tensor *g = golden_tensor(&t, "greedy");
  int64_t prompt = (int64_t)golden_number(&t, "prompt"), n = g->shape[0];
  int32_t ids[64];
  for (int64_t i = 0; i < n; i++) ids[i] = golden_i32(g, i);
  ist_generator gen;
  MUST(ist_generator_open(&gen, &m, 2, n, products, &err));
  const ist_sampling best = {0};
  /* Angles that depend on the length stay in the cache as they were: one sequence. */
  int64_t n_seq = m.config.rope[0].dynamic > 0 || m.config.rope[0].freq_long ? 1 : 2;
  for (int64_t s = 0; s < n_seq; s++)
    gen.seq[s].next =
        ist_sample_token(&gen, ist_generator_prompt(&gen, s, ids, prompt + s, 0), &best, 0);
  gen.seq[1].done = n_seq == 1;
  for (int64_t i = 0; prompt + i + 1 < n; i++) { /* the second sequence is one token ahead */
    for (int64_t s = 0; s < n_seq; s++) {
      if (gen.seq[s].next != ids[prompt + i + s])
        fail_msg("%s%s, sequence %lld, token %lld: found %d, expected %d", dir, model ? model : "",
                 (long long)s, (long long)i, gen.seq[s].next, ids[prompt + i + s]);
    }
    int64_t rows;
    ist_view logits = ist_generator_step(&gen, &rows);
    for (int64_t s = 0; s < n_seq; s++)
      gen.seq[s].next = ist_sample_token(&gen, (float *)logits.p + s * logits.stride, &best, i);
  }
  ist_generator_close(&gen);
  m.ctx.be->close(&m.ctx);
  t.weights = m.weights;
  tiny_close_model(&t);
}

static void check_greedy(const char *dir, const char *model) {
  check_greedy_by(dir, model, IST_STEP_MATRIX);
  check_greedy_by(dir, model, IST_STEP_FLOAT);
}

static void test_greedy(void **state) {
  (void)state;
  each(check_greedy);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_logits),        cmocka_unit_test(test_gradients),
      cmocka_unit_test(test_slopes),        cmocka_unit_test(test_methods_on_experts),
      cmocka_unit_test(test_wider_experts), cmocka_unit_test(test_fresh_experts),
      cmocka_unit_test(test_greedy),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
