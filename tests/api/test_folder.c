/* A Hugging Face folder from one end to the other: logits of transformers, a run that
 * gives the adapter that the same run on the GGUF gives, text through its tokenizer. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "folder.h"
#include "format/gguf.h"
#include "format/safetensors.h"
#include "split.h"

#define WHOLE   IST_GOLDEN_DIR "/llama_hf"
#define SHARDED IST_GOLDEN_DIR "/llama_hf_sharded"
#define GGUF    IST_GOLDEN_DIR "/llama_tiny/llama_tiny.gguf"

/* Segments of the goldens, each a sequence of its own. */
static void check_logits(const char *model, const char *goldens) {
  static const int64_t length[] = {3, 17, 6, 4, 9};
  ist_error err = {0};
  ist_safetensors *g;
  MUST(ist_safetensors_open(&g, goldens, &err));
  const ist_st_tensor *tokens = ist_safetensors_find(g, "tokens"),
                      *logits = ist_safetensors_find(g, "logits");
  assert_non_null(tokens);
  assert_non_null(logits);
  ist_model *m = open_model(model);
  ist_model_info info;
  ist_model_get_info(m, &info);
  float *ours = ist_calloc((size_t)(17 * info.V), sizeof *ours);
  double worst = 0, scale = 0;
  int64_t first = 0;
  for (size_t s = 0; s < sizeof length / sizeof *length; s++) {
    int32_t ids[17];
    memcpy(ids, tokens->data + 4 * first, (size_t)length[s] * 4);
    MUST(ist_model_logits(m, ids, length[s], ours, &err));
    for (int64_t i = 0; i < length[s] * info.V; i++) {
      float theirs;
      memcpy(&theirs, logits->data + 4 * (first * info.V + i), 4);
      double diff = fabs((double)ours[i] - (double)theirs);
      if (!(diff <= worst)) worst = diff;
      if (fabs((double)theirs) > scale) scale = fabs((double)theirs);
    }
    first += length[s];
  }
  if (!(worst <= 1e-4 * scale)) fail_msg("%s: off by %g at scale %g", model, worst, scale);
  ist_free(ours);
  ist_model_close(m);
  ist_safetensors_close(g);
}

static void test_logits(void **state) {
  (void)state;
  check_logits(WHOLE, IST_GOLDEN_DIR "/llama_tiny/goldens.safetensors");
  check_logits(SHARDED, SHARDED "/goldens.safetensors");
}

static void test_tokenizer(void **state) {
  (void)state;
  static const char text[] = "<|im_start|>user\nthe sum of 27 and the thing<|im_end|>\n";
  ist_error err = {0};
  ist_model *folder = open_model(WHOLE), *gguf = open_model(GGUF);
  int32_t *a, *b;
  int64_t n, m;
  MUST(ist_tokenize(folder, text, strlen(text), true, &a, &n, &err));
  MUST(ist_tokenize(gguf, text, strlen(text), true, &b, &m, &err));
  assert_int_equal(n, m);
  assert_memory_equal(a, b, (size_t)n * sizeof *a);
  ist_free_memory(a);
  ist_free_memory(b);
  ist_model_close(folder);
  ist_model_close(gguf);
  /* Without one, ids still work and text is refused. */
  ist_model *bare = open_model(SHARDED);
  assert_int_equal(ist_tokenize(bare, text, strlen(text), true, &a, &n, &err), IST_ERR_UNSUPPORTED);
  assert_non_null(strstr(err.message, "tokenizer.json"));
  ist_model_close(bare);
}

/* Trains two steps; the adapter is written to `output`. */
static double train(const char *model, const char *output) {
  ist_error err = {0};
  ist_train_options o;
  ist_train_options_init(&o);
  o.train_path = "data.jsonl";
  o.output = output;
  o.selector = "all";
  o.valid_examples = 0;
  o.steps = 4;
  o.batch = 4;
  o.rank = 4;
  o.lr = 1e-2;
  o.warmup_steps = 0;
  o.max_tokens = 64;
  ist_model *m = open_model(model);
  ist_trainer *t;
  MUST(ist_trainer_open(&t, m, &o, &err));
  ist_step_report r = {0};
  while (!r.finished) MUST(ist_trainer_step(t, &r, &err));
  MUST(ist_trainer_finish(t, &err));
  ist_trainer_close(t);
  ist_model_close(m);
  return r.loss;
}

/* Rows of q and k lie in another order in a GGUF; the adapters written are the same. */
static void test_training(void **state) {
  (void)state;
  FILE *f = fopen("data.jsonl", "w");
  assert_non_null(f);
  for (int i = 0; i < 24; i++)
    fprintf(f, "{\"prompt\": \"add %d and %d\", \"completion\": \"%d in all\"}\n", i, 3 * i % 11,
            i + 3 * i % 11);
  fclose(f);
  double a = train(WHOLE, "folder"), b = train(GGUF, "gguf");
  if (!(fabs(a - b) <= 1e-4 * b)) fail_msg("losses %.7f and %.7f", a, b);
  ist_error err = {0};
  ist_safetensors *x, *y;
  MUST(ist_safetensors_open(&x, "folder/adapter_model.safetensors", &err));
  MUST(ist_safetensors_open(&y, "gguf/adapter_model.safetensors", &err));
  assert_int_equal(x->n, y->n);
  assert_int_equal(x->n, 4 * 7 * 2);
  double moved = 0;
  for (int64_t i = 0; i < x->n; i++) {
    const ist_st_tensor *t = &x->tensor[i], *u = ist_safetensors_find(y, t->name);
    assert_non_null(u);
    assert_int_equal(t->bytes, u->bytes);
    for (int64_t j = 0; j < t->bytes / 4; j++) {
      float p, q;
      memcpy(&p, t->data + 4 * j, 4);
      memcpy(&q, u->data + 4 * j, 4);
      if (!(fabs((double)p - (double)q) <= 2e-3)) fail_msg("%s[%d]: %g, %g", t->name, (int)j, p, q);
      if (strstr(t->name, "q_proj.lora_B") && fabs((double)p) > moved) moved = fabs((double)p);
    }
  }
  assert_true(moved > 1e-2); /* ten times what may differ: the order of rows shows */
  ist_safetensors_close(x);
  ist_safetensors_close(y);
}

static void copy_into(const char *folder, const char *name) {
  ist_error err = {0};
  ist_buf bytes = {0};
  char *from = ist_path_join(WHOLE, name), *to = ist_path_join(folder, name);
  MUST(ist_file_read(&bytes, from, 1 << 20, &err));
  MUST(ist_file_write(to, bytes.p, bytes.len, &err));
  ist_buf_free(&bytes);
  ist_free(from);
  ist_free(to);
}

static bool add_text(void *user, const char *piece, size_t len) {
  ist_buf_add(user, piece, len);
  return true;
}

/* A blank behind the header moves every tensor to an odd address: nothing else changes. */
static void test_odd_header(void **state) {
  (void)state;
  ist_error err = {0};
  static const char *const names[] = {"config.json", "tokenizer.json", "tokenizer_config.json"};
  MUST(ist_mkdirs("odd", &err));
  for (int i = 0; i < 3; i++) copy_into("odd", names[i]);
  ist_buf bytes = {0}, text[2] = {{0}, {0}};
  MUST(ist_file_read(&bytes, WHOLE "/model.safetensors", 1 << 20, &err));
  uint64_t header;
  memcpy(&header, bytes.p, 8);
  ist_buf_str(&bytes, " ");
  memmove(bytes.p + 8 + header + 1, bytes.p + 8 + header, bytes.len - 9 - header);
  bytes.p[8 + header] = ' ';
  header++;
  memcpy(bytes.p, &header, 8);
  MUST(ist_file_write("odd/model.safetensors", bytes.p, bytes.len, &err));
  ist_buf_free(&bytes);

  check_logits("odd", IST_GOLDEN_DIR "/llama_tiny/goldens.safetensors");
  assert_true(train("odd", "odd-out") == train(WHOLE, "whole-out"));
  ist_generate_options o;
  ist_generate_options_init(&o);
  o.max_new = 8;
  for (int i = 0; i < 2; i++) {
    ist_generate_result r;
    ist_model *m = open_model(i ? "odd" : WHOLE);
    MUST(ist_generate(m, "the sum", &o, add_text, &text[i], &r, &err));
    ist_model_close(m);
  }
  assert_int_equal(text[0].len, text[1].len);
  assert_memory_equal(text[0].p, text[1].p, text[0].len);
  for (int i = 0; i < 2; i++) ist_buf_free(&text[i]);
  ist_merge_result r;
  MUST(merge_into("odd", "odd-out", "odd-merged", NULL, 0, &r, &err));
  MUST(merge_into("odd", "odd-out", "odd-merged", "BF16", 0, &r, &err));
}

/* Mean loss on data.jsonl with the base in a type. */
static double quantised_loss(const char *model, const char *type, const char *cache,
                             ist_model_info *info) {
  ist_error err = {0};
  ist_model_options o;
  ist_model_options_init(&o);
  o.compute = IST_COMPUTE_F32;
  o.base_type = type;
  o.base_cache = cache;
  ist_model *m;
  MUST(ist_model_open(&m, model, &o, &err));
  ist_model_get_info(m, info);
  ist_eval_options e;
  ist_eval_options_init(&e);
  e.data_path = "data.jsonl";
  ist_loss_result r;
  MUST(ist_eval_loss(m, &e, &r, &err));
  ist_model_close(m);
  return r.loss;
}

/* "wide" has rows of 64 and 96; quantising it gives what a file quantised by the same
 * rules gives, from memory, from a fresh cache and from a cache that is there. */
static void test_base_type(void **state) {
  (void)state;
  ist_error err = {0};
  const ist_shape shape = {
      .L = 2, .D = 64, .F = 96, .H = 4, .K = 2, .E = 16, .V = 300, .context = 128, .tied = true};
  MUST(ist_make_model("wide.gguf", &shape, "F32", 1, &err));
  static const char *const types[] = {"q8_0", "q4_0"};
  ist_model_info info;
  double whole = quantised_loss("wide.gguf", NULL, NULL, &info), last = 0;
  assert_string_equal(info.quantisation, "F32");
  for (int i = 0; i < 2; i++) {
    const char *cache = i ? "q4.cache" : "q8.cache";
    double memory = quantised_loss("wide.gguf", types[i], NULL, &info);
    double fresh = quantised_loss("wide.gguf", types[i], cache, &info);
    double again = quantised_loss("wide.gguf", types[i], cache, &info);
    assert_true(memory == fresh && fresh == again);
    double off = fabs(memory - whole);
    if (!(off > last && off < (i ? 0.2 : 0.02))) fail_msg("%s: loss off by %g", types[i], off);
    last = off;
  }
  assert_string_equal(info.quantisation, "Q4_0");
  /* A cache of something else stays as it is. */
  ist_model_options o;
  ist_model_options_init(&o);
  o.base_type = "q8_0";
  o.base_cache = "q4.cache";
  ist_model *m;
  assert_int_equal(ist_model_open(&m, "wide.gguf", &o, &err), IST_ERR_MISMATCH);
  o.base_cache = "data.jsonl";
  assert_int_equal(ist_model_open(&m, "wide.gguf", &o, &err), IST_ERR_FORMAT);
  o.base_cache = NULL;
  o.base_type = "q3";
  assert_int_equal(ist_model_open(&m, "wide.gguf", &o, &err), IST_ERR_ARG);
  o.base_type = "q8_0";
  MUST(ist_make_model("small.gguf", &shape, "Q4_0", 1, &err));
  assert_int_equal(ist_model_open(&m, "small.gguf", &o, &err), IST_ERR_ARG);
  assert_non_null(strstr(err.message, "no float matrix"));
}

static bool count_text(void *user, const char *piece, size_t len) {
  (void)piece;
  *(size_t *)user += len;
  return true;
}

static void test_generate_and_inspect(void **state) {
  (void)state;
  ist_error err = {0};
  ist_generate_options o;
  ist_generate_options_init(&o);
  o.max_new = 5;
  size_t n = 0;
  ist_generate_result r;
  ist_model *m = open_model(WHOLE);
  MUST(ist_generate(m, "the sum", &o, count_text, &n, &r, &err));
  assert_true(r.new_tokens >= 1 && r.new_tokens <= 5);
  ist_model_close(m);
  char *json;
  MUST(ist_inspect(SHARDED, &json, &err));
  assert_non_null(strstr(json, "\"Hugging Face folder\""));
  assert_non_null(strstr(json, "model.layers.3.self_attn.k_proj.weight"));
  assert_non_null(strstr(json, "\"n_tensors\": 38"));
  ist_free_memory(json);
}

/* A split file is one model to those who look into it and to those who run it. */
static void test_split(void **state) {
  (void)state;
  static const char first[] = "tiny-00001-of-00002.gguf";
  ist_error err = {0};
  ist_gguf *g;
  MUST(ist_gguf_open(&g, GGUF, &err));
  write_part(g, first, 0);
  write_part(g, "tiny-00002-of-00002.gguf", 1);
  char *json, count[48];
  MUST(ist_inspect(first, &json, &err));
  snprintf(count, sizeof count, "\"n_tensors\": %lld", (long long)g->n_tensors);
  assert_non_null(strstr(json, count));
  for (int64_t i = 0; i < g->n_tensors; i++) {
    char name[96];
    snprintf(name, sizeof name, "\"%.*s\"", (int)g->tensor[i].name.len, g->tensor[i].name.p);
    if (!strstr(json, name)) fail_msg("%s is not shown", name);
  }
  ist_free_memory(json);
  ist_gguf_close(g);
  check_logits(first, IST_GOLDEN_DIR "/llama_tiny/goldens.safetensors");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_logits),    cmocka_unit_test(test_tokenizer),
      cmocka_unit_test(test_training),  cmocka_unit_test(test_odd_header),
      cmocka_unit_test(test_base_type), cmocka_unit_test(test_generate_and_inspect),
      cmocka_unit_test(test_split),
  };
  return cmocka_run_group_tests_name("folder", tests, enter_folder, leave_folder);
}
