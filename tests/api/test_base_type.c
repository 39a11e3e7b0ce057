/* Float weights quantised when a model is opened: to the bit what the same model gives whose
 * file holds the blocks, experts' too; plans count the blocks; runs keep to their type. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/rng.h"
#include "folder.h"
#include "format/gguf.h"
#include "format/quant.h"

enum { L = 2, D = 256, F = 512, H = 4, K = 2, E = 64, V = 300, EXPERTS = 4, MOST = 32 };

/* ---- A model with the same weights in another type ---------------------------------- */

typedef struct tensors {
  ist_gguf_writer *w;
  const char *type; /* of the linears; NULL: all F32 */
  void *data[MOST]; /* until written */
  int n;
} tensors;

/* Rows as `--base-type` says: linears in the type, the embedding in Q8_0, vectors and the
 * router's choice of experts in F32. */
static void put(tensors *t, const char *name, int64_t n2, int64_t rows, int64_t cols, bool linear) {
  int64_t n = n2 * rows * cols, ne[3] = {cols, rows, n2};
  ist_dtype type = IST_F32;
  if (t->type && linear) type = (ist_dtype)ist_dtype_from_name(t->type);
  if (t->type && strcmp(name, "token_embd.weight") == 0) type = IST_Q8_0;
  float *values = ist_calloc((size_t)n, sizeof *values);
  unsigned char *blocks = ist_calloc((size_t)ist_dtype_bytes(type, n), 1);
  assert_true(values && blocks && t->n < MOST);
  ist_philox_key key = ist_rng_key(7, IST_RNG_DATA);
  for (int64_t i = 0; i < n; i++) {
    uint32_t word[4];
    ist_philox(word, (const uint32_t[4]){(uint32_t)t->n, (uint32_t)i, 0, 0}, key);
    double drawn = ((double)word[0] / 2147483648.0 - 1) * 1.2 / sqrt((double)cols);
    values[i] = rows == 1 ? 1.0F : (float)drawn;
  }
  if (type == IST_F32)
    memcpy(blocks, values, (size_t)n * sizeof *values);
  else
    ist_quantise(blocks, values, type, n);
  ist_gguf_put_tensor_data(t->w, name, type, n2 > 1 ? 3 : rows > 1 ? 2 : 1, ne, blocks);
  ist_free(values);
  t->data[t->n++] = blocks;
}

static void put_keys(ist_gguf_writer *w, int experts) {
  ist_gguf_put_str(w, "general.architecture", "llama", 5);
  ist_gguf_put_u32(w, "llama.block_count", L);
  ist_gguf_put_u32(w, "llama.context_length", 64);
  ist_gguf_put_u32(w, "llama.embedding_length", D);
  ist_gguf_put_u32(w, "llama.feed_forward_length", F);
  ist_gguf_put_u32(w, "llama.attention.head_count", H);
  ist_gguf_put_u32(w, "llama.attention.head_count_kv", K);
  ist_gguf_put_u32(w, "llama.rope.dimension_count", E);
  ist_gguf_put_f32(w, "llama.attention.layer_norm_rms_epsilon", 1e-5F);
  ist_gguf_put_f32(w, "llama.rope.freq_base", 10000.0F);
  ist_gguf_put_str(w, "tokenizer.ggml.model", "no_vocab", 8);
  ist_gguf_put_u32(w, "llama.vocab_size", V);
  if (!experts) return;
  ist_gguf_put_u32(w, "llama.expert_count", EXPERTS);
  ist_gguf_put_u32(w, "llama.expert_used_count", 2);
}

static void put_layer(tensors *t, int layer, int experts) {
  static const struct {
    const char *name;
    int64_t rows, cols;
    bool linear, expert;
  } of[] = {{"attn_norm", 1, D, false, false},      {"attn_q", H * E, D, true, false},
            {"attn_k", K * E, D, true, false},      {"attn_v", K * E, D, true, false},
            {"attn_output", D, H * E, true, false}, {"ffn_norm", 1, D, false, false},
            {"ffn_gate", F, D, true, true},         {"ffn_up", F, D, true, true},
            {"ffn_down", D, F, true, true}};
  char name[64];
  for (size_t i = 0; i < sizeof of / sizeof *of; i++) {
    bool stack = experts && of[i].expert;
    snprintf(name, sizeof name, "blk.%d.%s%s.weight", layer, of[i].name, stack ? "_exps" : "");
    put(t, name, stack ? EXPERTS : 1, of[i].rows, of[i].cols, of[i].linear);
  }
  snprintf(name, sizeof name, "blk.%d.ffn_gate_inp.weight", layer);
  if (experts) put(t, name, 1, EXPERTS, D, false);
}

static void write_model(const char *path, const char *type, int experts) {
  ist_error err = {0};
  tensors t = {.w = ist_gguf_writer_new(), .type = type};
  put_keys(t.w, experts);
  put(&t, "token_embd.weight", 1, V, D, false);
  put(&t, "output_norm.weight", 1, 1, D, false);
  for (int l = 0; l < L; l++) put_layer(&t, l, experts);
  MUST(ist_gguf_write(t.w, path, &err));
  ist_gguf_writer_free(t.w);
  for (int i = 0; i < t.n; i++) ist_free(t.data[i]);
}

static ist_model *open_as(const char *path, const char *type, const char *cache) {
  ist_error err = {0};
  ist_model_options o;
  ist_model_options_init(&o);
  o.compute = IST_COMPUTE_F32;
  o.base_type = type;
  o.base_cache = cache;
  ist_model *m;
  MUST(ist_model_open(&m, path, &o, &err));
  return m;
}

/* ---- Logits ------------------------------------------------------------------------- */

enum { N = 12 };
static float *logits_of(const char *path, const char *type, const char *cache) {
  ist_error err = {0};
  int32_t ids[N];
  for (int i = 0; i < N; i++) ids[i] = 17 * i % V;
  float *out = ist_calloc((size_t)N * V, sizeof *out);
  ist_model *m = open_as(path, type, cache);
  MUST(ist_model_logits(m, ids, N, out, &err));
  ist_model_close(m);
  return out;
}

/* Relative error of all logits. */
static double distance(const float *a, const float *b) {
  double off = 0, size = 0;
  for (int i = 0; i < N * V; i++) {
    double d = (double)a[i] - (double)b[i];
    off += d * d;
    size += (double)b[i] * (double)b[i];
  }
  return sqrt(off / size);
}

static void check_types(int experts) {
  static const struct {
    const char *name, *type;
    double low, high; /* what the type costs */
  } types[] = {
      {"q8_0", "Q8_0", 1e-4, 0.05}, {"q4_k", "Q4_K", 0.01, 0.4}, {"q4_0", "Q4_0", 0.01, 0.4}};
  write_model("float.gguf", NULL, experts);
  float *whole = logits_of("float.gguf", NULL, NULL);
  for (int i = 0; i < 3; i++) {
    char cache[32];
    snprintf(cache, sizeof cache, "%s-%d.cache", types[i].name, experts);
    write_model("blocks.gguf", types[i].type, experts);
    float *blocks = logits_of("blocks.gguf", NULL, NULL);
    float *opened = logits_of("float.gguf", types[i].name, NULL);
    float *cached = logits_of("float.gguf", types[i].name, cache);
    assert_memory_equal(opened, blocks, (size_t)N * V * sizeof *blocks);
    assert_memory_equal(cached, blocks, (size_t)N * V * sizeof *blocks);
    double off = distance(opened, whole);
    if (!(off > types[i].low && off < types[i].high)) fail_msg("%s: off by %g", types[i].name, off);
    ist_free(blocks);
    ist_free(opened);
    ist_free(cached);
  }
  ist_free(whole);
}

static void test_logits(void **state) {
  (void)state;
  check_types(0);
}

static void test_experts(void **state) {
  (void)state;
  check_types(1);
}

/* ---- Plans and runs ------------------------------------------------------------------- */

static const ist_shape shape = {
    .L = 2, .D = 256, .F = 2048, .H = 4, .K = 2, .E = 64, .V = 300, .context = 128, .tied = true};

static ist_train_options run_of(const char *output, int64_t steps) {
  ist_train_options o;
  ist_train_options_init(&o);
  o.train_path = "data.jsonl";
  o.output = output;
  o.selector = "random";
  o.template_name = "none";
  o.valid_examples = 0;
  o.steps = steps;
  o.batch = 2;
  o.rank = 2;
  o.max_tokens = 32;
  return o;
}

/* What the process holds and the pages of the file: the first two terms of the plan. */
static int64_t planned(const char *type) {
  ist_error err = {0};
  ist_train_options o = run_of(NULL, 4);
  ist_model_options m;
  ist_model_options_init(&m);
  m.base_type = type;
  m.compute = IST_COMPUTE_F32;
  char *json;
  MUST(ist_plan("plan.gguf", &m, &o, &json, &err));
  json_t *root = json_loads(json, 0, NULL);
  const json_t *terms = json_object_get(root, "terms");
  assert_true(json_array_size(terms) > 2);
  json_int_t total = 0;
  for (size_t i = 0; i < 2; i++)
    total += json_integer_value(json_object_get(json_array_get(terms, i), "bytes"));
  assert_true(total > 0);
  json_decref(root);
  ist_free_memory(json);
  return total;
}

/* A plan with a base type is smaller by what the blocks are smaller than the floats. */
static void test_plan(void **state) {
  (void)state;
#ifdef __SANITIZE_ADDRESS__ /* whose quarantine is resident memory too, more of it every time */
  skip();
#endif
  static const struct {
    const char *name;
    double bits;
  } types[] = {{"q8_0", 8.5}, {"q4_0", 4.5}, {"q4_k", 4.5}};
  ist_error err = {0};
  ist_shape deep = shape;
  deep.L = 8;
  MUST(ist_make_model("plan.gguf", &deep, "F32", 1, &err));
  double weights = 8 * (256.0 * 256 * 3 + 3 * 256.0 * 2048);
  (void)planned("q8_0"); /* so that what libraries hold is held before */
  int64_t whole = planned(NULL);
  for (int i = 0; i < 3; i++) {
    double saved = (double)(whole - planned(types[i].name));
    double expected = weights * (32 - types[i].bits) / 8;
    if (!(fabs(saved / expected - 1) < 0.06))
      fail_msg("%s: the plan is %.0f bytes smaller, expected %.0f", types[i].name, saved, expected);
  }
}

/* Trains until `stop` steps are done; the state of a run that is not over is saved. */
static ist_status train(const char *type, const char *output, int64_t stop, ist_error *err) {
  ist_train_options o = run_of(output, 6);
  o.save_every = stop < 6 ? stop : 0;
  o.resume = ist_file_exists(output);
  ist_model *m = open_as("run.gguf", type, NULL);
  ist_trainer *t;
  ist_status status = ist_trainer_open(&t, m, &o, err);
  ist_step_report r = {0};
  while (status == IST_OK && r.step < stop) status = ist_trainer_step(t, &r, err);
  if (status == IST_OK && r.finished) status = ist_trainer_finish(t, err);
  ist_trainer_close(t);
  ist_model_close(m);
  return status;
}

static void must_be_same(const char *a, const char *b) {
  ist_error err = {0};
  ist_map x, y;
  MUST(ist_map_open(&x, a, &err));
  MUST(ist_map_open(&y, b, &err));
  assert_int_equal(x.size, y.size);
  assert_memory_equal(x.p, y.p, x.size);
  ist_map_close(&x);
  ist_map_close(&y);
}

static void test_resume(void **state) {
  (void)state;
  ist_error err = {0};
  MUST(ist_make_model("run.gguf", &shape, "F32", 1, &err));
  FILE *f = fopen("data.jsonl", "w");
  assert_non_null(f);
  for (int i = 0; i < 12; i++) fprintf(f, "{\"prompt\": \"a%d\", \"completion\": \"b%d\"}\n", i, i);
  fclose(f);
  MUST(train("q4_k", "whole", 6, &err));
  MUST(train("q4_k", "parts", 3, &err));
  json_t *settings = json_load_file("parts/settings.json", 0, NULL);
  assert_string_equal(json_string_value(json_object_get(settings, "base_type")), "q4_k");
  json_decref(settings);
  static const struct {
    const char *type, *found;
  } other[] = {{"q8_0", "found base_type q8_0, but the run to resume was made with q4_k"},
               {NULL, "found base_type none, but the run to resume was made with q4_k"}};
  for (int i = 0; i < 2; i++) {
    assert_int_equal(train(other[i].type, "parts", 6, &err), IST_ERR_MISMATCH);
    if (!strstr(err.message, other[i].found)) fail_msg("%s", err.message);
  }
  MUST(train("q4_k", "parts", 6, &err));
  must_be_same("whole/adapter_model.safetensors", "parts/adapter_model.safetensors");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_logits),
      cmocka_unit_test(test_experts),
      cmocka_unit_test(test_plan),
      cmocka_unit_test(test_resume),
  };
  return cmocka_run_group_tests_name("base type", tests, enter_folder, leave_folder);
}
