/* Every method against PEFT, or a plain PyTorch module where PEFT lacks it (tests/golden/
 * make_methods.py): loss, logits and the gradients of all tensors, with dropout's masks. */
#include "fixture.h"

static const uint8_t all_layers[4] = {1, 1, 1, 1};

typedef struct golden {
  const char *name;
  ist_safetensors *file;
  ist_adapter_config config;
} golden;

static const char *text(const golden *g, const char *key, const char *otherwise) {
  const char *t = ist_safetensors_meta(g->file, key);
  return t ? t : otherwise;
}
static double number(const golden *g, const char *key) {
  return atof(text(g, key, "0"));
}
static bool flag(const golden *g, const char *key) {
  return strcmp(text(g, key, "False"), "True") == 0;
}

static golden open_golden(const char *name) {
  ist_error err = {0};
  char path[512];
  golden g = {.name = name};
  snprintf(path, sizeof path, "%s/methods/%s.safetensors", IST_GOLDEN_DIR, name);
  MUST(ist_safetensors_open(&g.file, path, &err));
  const char *act = text(&g, "act", "silu");
  g.config = (ist_adapter_config){
      .method = text(&g, "method", ""),
      .rank = (int64_t)number(&g, "rank"),
      .alpha = text(&g, "alpha", NULL) ? number(&g, "alpha") : 1,
      .dropout = number(&g, "dropout"),
      .rslora = flag(&g, "rslora"),
      .lora_bias = flag(&g, "lora_bias"),
      .peft_dora = strcmp(text(&g, "dora_dropout", ""), "peft") == 0,
      .act = strcmp(act, "tanh") == 0   ? IST_ACT_TANH
             : strcmp(act, "relu") == 0 ? IST_ACT_RELU
             : strcmp(act, "gelu") == 0 ? IST_ACT_GELU_ERF
                                        : IST_ACT_SILU,
      .scaling = number(&g, "scaling"),
      .learned_scaling = flag(&g, "learned"),
  };
  for (int i = 0; flag(&g, "outer") && i < IST_OUTER_COUNT; i++)
    g.config.outer[i] =
        (ist_adapter_place){g.config.rank, g.config.alpha, g.config.alpha / (double)g.config.rank};
  return g;
}

/* Visits every tensor of the golden with its place: rows of B and vectors over outputs are in
 * Hugging Face's order, and so are the columns of a prefix's keys. */
typedef void visit_fn(void *user, const char *name, int64_t layer, ist_module m, int64_t offset,
                      int64_t rows, int64_t cols, bool permuted_rows, bool permuted_cols);

static void visit(const tiny *t, visit_fn *fn, void *user) {
  const ist_adapter_layout *lay = &t->adapters.layout;
  int64_t kv = t->adapters.config.kv;
  bool around = t->adapters.method->around;
  char name[64];
  for (int64_t l = 0; l < t->config.L; l++) {
    if (lay->prefix) {
      snprintf(name, sizeof name, "%lld.key", (long long)l);
      fn(user, name, l, IST_MOD_K, lay->prefix_k, lay->prefix, kv, false, true);
      snprintf(name, sizeof name, "%lld.value", (long long)l);
      fn(user, name, l, IST_MOD_V, lay->prefix_v, lay->prefix, kv, false, false);
    }
    for (int m = 0; m < IST_MOD_COUNT; m++) {
      const ist_adapter *a = &lay->module[m];
      const struct {
        const char *name;
        bool there;
        int64_t offset, rows, cols;
        bool permuted;
      } part[] = {{"A", true, a->a, a->rank, a->in, false},
                  {"B", true, a->b, a->out, a->rank, !around},
                  {"m", a->m, a->m, a->out, 1, true},
                  {"bias", a->bias, a->bias, a->out, 1, true},
                  {"learned", a->learned, a->learned, 1, 1, false}};
      for (size_t i = 0; a->rank && i < sizeof part / sizeof *part; i++) {
        if (!part[i].there) continue;
        snprintf(name, sizeof name, "%lld.%s.%s", (long long)l, ist_module_name((ist_module)m),
                 part[i].name);
        fn(user, name, l, (ist_module)m, part[i].offset, part[i].rows, part[i].cols,
           part[i].permuted, false);
      }
    }
  }
}

typedef struct visitor {
  tiny *t;
  const golden *g;
  double error, size, worst; /* squares; the worst tensor's error */
  char where[64];
} visitor;

static const ist_st_tensor *find(const golden *g, const char *name) {
  const ist_st_tensor *x = ist_safetensors_find(g->file, name);
  if (!x) fail_msg("%s: no tensor \"%s\"", g->name, name);
  return x;
}

/* Where element i of ours stands in the golden. */
static int64_t outside(const tiny *t, ist_module m, int64_t i, int64_t cols, bool rows_move,
                       bool cols_move) {
  int64_t r = i / cols, c = i % cols;
  if (rows_move) r = ist_outside_row(&t->config, m, IST_ROWS_HF, r);
  if (cols_move) c = ist_outside_row(&t->config, m, IST_ROWS_HF, c);
  return r * cols + c;
}

static double element(ist_view v, int64_t i) {
  return v.dt == IST_F64 ? ((double *)v.p)[i] : (double)((float *)v.p)[i];
}

static void load(void *user, const char *name, int64_t layer, ist_module m, int64_t offset,
                 int64_t rows, int64_t cols, bool rows_move, bool cols_move) {
  const visitor *w = user;
  const ist_st_tensor *g = find(w->g, name);
  assert_int_equal(g->bytes, rows * cols * 4);
  for (int64_t i = 0; i < rows * cols; i++) {
    double value = (double)golden_f32(g, outside(w->t, m, i, cols, rows_move, cols_move));
    ist_adapter_fill(&w->t->adapters, layer, offset + i, 1, value);
  }
}

static void compare(void *user, const char *name, int64_t layer, ist_module m, int64_t offset,
                    int64_t rows, int64_t cols, bool rows_move, bool cols_move) {
  visitor *w = user;
  char key[80];
  snprintf(key, sizeof key, "grad.%s", name);
  const ist_st_tensor *g = find(w->g, key);
  ist_view v = ist_adapter_grad(&w->t->adapters, layer, offset, rows, cols);
  double error = 0, size = 0;
  for (int64_t i = 0; i < rows * cols; i++) {
    double truth = (double)golden_f32(g, outside(w->t, m, i, cols, rows_move, cols_move));
    error += (element(v, i) - truth) * (element(v, i) - truth);
    size += truth * truth;
  }
  if (!(size > 0)) fail_msg("%s: %s is zero", w->g->name, key);
  w->error += error;
  w->size += size;
  /* A single number is a sum over all rows, in which most may cancel. */
  double relative = sqrt(error / size) * (rows * cols == 1 ? 0.1 : 1.0);
  if (!(relative <= w->worst)) {
    w->worst = relative;
    snprintf(w->where, sizeof w->where, "%s", name);
  }
}

/* Embedding and head: their values in, or (truth) their gradients against the golden's. */
static void outer_tensors(tiny *t, const golden *g, visitor *truth) {
  static const char *const names[] = {"embed.A", "embed.B", "head.A", "head.B"};
  ist_adapters grads = t->adapters;
  grads.L = 0;
  grads.params = t->adapters.outer_grads;
  for (int i = 0; t->adapters.outer.params && i < 4; i++) {
    char key[32];
    int64_t rows, cols;
    ist_outer o = (ist_outer)(i / 2);
    ist_part part = (ist_part)(i % 2);
    ist_outer_shape(&t->adapters, o, part, &rows, &cols);
    snprintf(key, sizeof key, "%s%s", truth ? "grad." : "", names[i]);
    const ist_st_tensor *x = find(g, key);
    assert_true(x->shape[0] == rows && x->shape[1] == cols);
    size_t n = (size_t)(rows * cols);
    float *want = malloc(n * sizeof *want), *got = malloc(n * sizeof *got);
    for (size_t k = 0; k < n; k++) want[k] = golden_f32(x, (int64_t)k);
    if (!truth) ist_outer_write(&t->adapters, o, part, want);
    if (truth) ist_outer_read(&grads, o, part, got);
    double error = 0, size = 0;
    for (size_t k = 0; truth && k < n; k++) {
      error += ((double)got[k] - (double)want[k]) * ((double)got[k] - (double)want[k]);
      size += (double)want[k] * (double)want[k];
    }
    free(want);
    free(got);
    if (!truth) continue;
    truth->error += error;
    truth->size += size;
    double relative = sqrt(error / size);
    if (relative <= truth->worst) continue;
    truth->worst = relative;
    snprintf(truth->where, sizeof truth->where, "%s", names[i]);
  }
}

static double loss_and_gradients(tiny *t) {
  static const int64_t samples[5] = {0, 1, 2, 3, 4};
  ist_runner *r = &t->runner;
  for (int64_t l = 0; l < 4; l++) t->adapters.grad_slot[l] = (int32_t)l;
  ist_runner_pack(r, &t->data, samples, 5, 1);
  ist_schedule_train(&r->schedule, 4, r->n_micro, all_layers, IST_ORDER_TOKEN, IST_RECOMPUTE_MLP);
  ist_pass pass = {.train = true,
                   .active = all_layers,
                   .seed = 7,
                   .step = 3,
                   .loss_weight = 1.0 / (double)r->n_targets};
  ist_runner_run(r, &pass);
  return ist_runner_loss_sum(r) / (double)r->n_targets;
}

/* Of the last row of each segment, with dropout: largest difference to the golden's. */
static double logits_error(tiny *t, const golden *g) {
  const ist_st_tensor *truth = find(g, "logits_last");
  double error = 0, size = 0;
  for (int64_t s = 0; s < 5; s++) {
    ist_runner *r = &t->runner;
    ist_runner_pack(r, &t->data, &s, 1, 1);
    ist_schedule_forward(&r->schedule, 4, 0, 1, IST_ORDER_TOKEN, false);
    ist_pass pass = {.train = true, .seed = 7, .step = 3};
    ist_runner_run(r, &pass);
    ist_view v = ist_decoder_logits(&r->decoder, 0, t->data.p[s].n - 1, 1);
    for (int64_t i = 0; i < v.cols; i++) {
      double want = (double)golden_f32(truth, s * v.cols + i);
      error += (element(v, i) - want) * (element(v, i) - want);
      size += want * want;
    }
  }
  return sqrt(error / size);
}

static void check(const char *name, const ist_backend *be, ist_dtype type, double most) {
  golden g = open_golden(name);
  tiny t;
  tiny_open_model(&t, TINY, "llama_tiny.gguf");
  g.config.modules = tiny_modules(&t, text(&g, "targets", ""));
  tiny_close_model(&t);
  tiny_open_method(&t, be, type, true, IST_ORDER_TOKEN, IST_RECOMPUTE_MLP, 20, &g.config);
  visitor w = {.t = &t, .g = &g};
  visit(&t, load, &w);
  outer_tensors(&t, &g, NULL);
  ist_decoder_adapters_changed(&t.runner.decoder, -1);
  double loss = loss_and_gradients(&t), logits = logits_error(&t, &g);
  visit(&t, compare, &w);
  outer_tensors(&t, &g, &w);
  double gradients = sqrt(w.error / w.size), off = fabs(loss / number(&g, "loss") - 1.0);
  print_message("%-17s %s  loss %.1e  logits %.1e  gradients %.1e, worst %.1e (%s)\n", name,
                ist_dtype_get(type)->name, off, logits, gradients, w.worst, w.where);
  if (!(off <= most && logits <= most && gradients <= most && w.worst <= 10 * most))
    fail_msg("%s: loss %g, logits %g, gradients %g, worst %g (%s) off, at most %g", name, off,
             logits, gradients, w.worst, w.where, most);
  tiny_close(&t);
  ist_safetensors_close(g.file);
}

static const char *const names[] = {
    "lora",      "rslora",         "lora_bias",        "dora",
    "dora_peft", "parallel",       "parallel_learned", "series",
    "prefix",    "series_learned", "dora_shared",      "lora_outer"};

static void check_all(const ist_backend *be, ist_dtype type, double most) {
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) check(names[i], be, type, most);
}

static void test_reference(void **state) {
  (void)state;
  check_all(ist_backend_reference(), IST_F64, 5e-6); /* transformers normalises in F32 */
}
static void test_cpu_f32(void **state) {
  (void)state;
  check_all(ist_backend_cpu(), IST_F32, 1e-5);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_reference),
      cmocka_unit_test(test_cpu_f32),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
