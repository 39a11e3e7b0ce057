/* Public calls that stand by themselves: families, shapes and random models, what a signal
 * handler may ask, memory, selectors for another loop, a run's plan. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <jansson.h>

#include "base/mem.h"
#include "folder.h"
#include "format/gguf.h"

#define GGUF IST_GOLDEN_DIR "/llama_tiny/llama_tiny.gguf"

/* ---- Families ---- */

/* model_type of transformers, general.architecture of llama.cpp ("": it has none). */
static const char *const families[][2] = {
    {"llama", "llama"},        {"mistral", "llama"}, {"mixtral", "llama"},
    {"qwen2", "qwen2"},        {"qwen3", "qwen3"},   {"qwen2_moe", "qwen2moe"},
    {"qwen3_moe", "qwen3moe"}, {"phi3", "phi3"},     {"smollm3", "smollm3"},
    {"gemma", "gemma"},        {"gemma2", "gemma2"}, {"gemma3", "gemma3"},
    {"gemma3_text", "gemma3"}, {"gpt2", "gpt2"},     {"gptj", ""},
    {"gpt_neox", "gptneox"},   {"bloom", "bloom"},   {"opt", ""},
};

static void test_families(void **state) {
  (void)state;
  ist_error err = {0};
  char *text;
  MUST(ist_families(&text, &err));
  json_t *root = json_loads(text, 0, NULL), *list = json_object_get(root, "families"), *row;
  size_t i, n = sizeof families / sizeof *families;
  assert_int_equal(json_array_size(list), n);
  json_array_foreach(list, i, row) {
    const char *folder = json_string_value(json_object_get(row, "folder"));
    const char *gguf = json_string_value(json_object_get(row, "gguf"));
    assert_non_null(json_string_value(json_object_get(row, "family")));
    assert_non_null(folder);
    assert_true(gguf || json_is_null(json_object_get(row, "gguf")));
    size_t k = 0;
    while (k < n && strcmp(families[k][0], folder) != 0) k++;
    if (k == n) fail_msg("%s is not in the list of this test", folder);
    assert_string_equal(gguf ? gguf : "", families[k][1]);
  }
  json_decref(root);
  ist_free_memory(text);
}

/* ---- Shapes and random models ---- */

/* The parameters that these models are published with. */
static void test_shapes(void **state) {
  (void)state;
  static const struct {
    const char *name;
    int64_t parameters;
  } rows[] = {{"smollm2-135m", 134515008},
              {"llama-1b", 1235814400},
              {"llama-7b", 6738415616},
              {"llama-13b", 13015864320}};
  ist_shape s;
  for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
    assert_true(ist_shape_find(rows[k].name, &s));
    int64_t layer = 2 * s.D * s.H * s.E + 2 * s.D * s.K * s.E + 3 * s.D * s.F + 2 * s.D;
    assert_int_equal(s.V * s.D * (s.tied ? 1 : 2) + s.L * layer + s.D, rows[k].parameters);
  }
  assert_false(ist_shape_find("llama", &s));
  assert_false(ist_shape_find("", &s));
}

static const ist_shape small = {2, 64, 96, 4, 2, 16, 300, 128, true};

static void read_file(ist_buf *out, const char *path) {
  assert_int_equal(ist_file_read(out, path, 1 << 24, NULL), IST_OK);
}

/* The same seed gives the same bytes, another one others; the model has the shape that was
 * asked for. */
static void test_make_model(void **state) {
  (void)state;
  ist_error err = {0};
  ist_buf a = {0}, b = {0}, c = {0};
  MUST(ist_make_model("a.gguf", &small, "Q8_0", 5, &err));
  MUST(ist_make_model("b.gguf", &small, "Q8_0", 5, &err));
  MUST(ist_make_model("c.gguf", &small, "Q8_0", 6, &err));
  read_file(&a, "a.gguf");
  read_file(&b, "b.gguf");
  read_file(&c, "c.gguf");
  assert_int_equal(a.len, b.len);
  assert_memory_equal(a.p, b.p, a.len);
  assert_int_equal(a.len, c.len);
  assert_true(memcmp(a.p, c.p, a.len) != 0);
  ist_buf_free(&a);
  ist_buf_free(&b);
  ist_buf_free(&c);
  ist_model *m = open_model("a.gguf");
  ist_model_info i;
  ist_model_get_info(m, &i);
  assert_true(i.L == small.L && i.D == small.D && i.F == small.F && i.H == small.H);
  assert_true(i.K == small.K && i.E == small.E && i.V == small.V && i.context == small.context);
  assert_true(i.tied_output);
  assert_string_equal(i.quantisation, "Q8_0");
  int32_t *ids;
  int64_t n;
  MUST(ist_tokenize(m, "a\xc3\xa9<|im_end|>", 13, true, &ids, &n, &err));
  assert_int_equal(n, 4);
  assert_true(ids[0] == 'a' && ids[1] == 0xc3 && ids[2] == 0xa9 && ids[3] == 258);
  ist_free_memory(ids);
  ist_model_close(m);
}

/* No two tensors have the same values, and those of a type have the spread of a real model's. */
static void test_random_weights(void **state) {
  (void)state;
  ist_error err = {0};
  ist_gguf *g;
  MUST(ist_make_model("f.gguf", &small, "F32", 5, &err));
  MUST(ist_gguf_open(&g, "f.gguf", &err));
  const ist_gguf_tensor *q[] = {ist_gguf_find_tensor(g, "blk.0.attn_q.weight"),
                                ist_gguf_find_tensor(g, "blk.1.attn_q.weight"),
                                ist_gguf_find_tensor(g, "blk.0.attn_output.weight")};
  for (int i = 0; i < 3; i++) {
    assert_non_null(q[i]);
    double sum = 0, squares = 0;
    int64_t n = q[i]->bytes / 4;
    assert_int_equal(n, 64 * 64);
    for (int64_t j = 0; j < n; j++) {
      float v;
      memcpy(&v, q[i]->data + 4 * j, sizeof v);
      sum += (double)v;
      squares += (double)v * (double)v;
    }
    double sd = 0.7 / sqrt(64.0); /* uniform: within 5 standard errors, sd / sqrt(5 n) for the sd */
    assert_true(fabs(sum / (double)n) < 5 * sd / sqrt((double)n));
    assert_true(fabs(sqrt(squares / (double)n) - sd) < 5 * sd / sqrt(5.0 * (double)n));
    for (int k = 0; k < i; k++)
      assert_true(memcmp(q[i]->data, q[k]->data, (size_t)q[i]->bytes) != 0);
  }
  ist_gguf_close(g);
}

static void test_make_model_refused(void **state) {
  (void)state;
  const struct {
    ist_shape shape;
    const char *type, *says;
  } rows[] = {
      {{0, 64, 96, 4, 2, 16, 300, 128, true}, "Q8_0", "layers: found 0, expected 1 to 16777216"},
      {{2, 0, 96, 4, 2, 16, 300, 128, true}, "Q8_0", "width: found 0"},
      {{2, 64, -1, 4, 2, 16, 300, 128, true}, "Q8_0", "MLP width: found -1"},
      {{2, 64, 96, 0, 2, 16, 300, 128, true}, "Q8_0", "heads: found 0"},
      {{2, 64, 96, 4, 0, 16, 300, 128, true}, "Q8_0", "key/value heads: found 0"},
      {{2, 64, 96, 4, 2, 1, 300, 128, true}, "Q8_0", "head size: found 1, expected 2"},
      {{2, 64, 96, 4, 2, 16, 258, 128, true}, "Q8_0", "vocabulary: found 258, expected 259"},
      {{2, 64, 96, 4, 2, 16, 300, 1 << 25, true}, "Q8_0", "context: found 33554432"},
      {{2, 64, 96, 4, 3, 16, 300, 128, true},
       "Q8_0",
       "found 4 heads, 3 key/value heads of size 16"},
      {{2, 64, 96, 4, 2, 15, 300, 128, true}, "F32", "of size 15; expected a multiple and an even"},
      {{2, 60, 96, 4, 2, 16, 300, 128, true},
       "Q8_0",
       "widths 60, 96, 64; Q8_0 wants multiples of 32"},
      {{2, 64, 100, 4, 2, 16, 300, 128, true}, "Q8_0", "widths 64, 100, 64"},
      {{2, 64, 96, 3, 3, 16, 300, 128, true}, "Q8_0", "widths 64, 96, 48"},
      {{2, 64, 96, 4, 2, 16, 300, 128, true}, "Q9_9", "type: found \"Q9_9\", expected F32"},
      {{2, 64, 96, 4, 2, 16, 300, 128, true}, "I32", "type: found \"I32\", expected F32"},
  };
  ist_error err = {0};
  for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
    assert_int_equal(ist_make_model("no.gguf", &rows[k].shape, rows[k].type, 1, &err), IST_ERR_ARG);
    if (!strstr(err.message, rows[k].says)) fail_msg("%s, not %s", err.message, rows[k].says);
    assert_false(ist_file_exists("no.gguf"));
  }
  assert_int_equal(ist_make_model("nowhere/no.gguf", &small, "F32", 1, &err), IST_ERR_IO);
}

/* ---- Descriptions ---- */

static json_t *inspect(const char *path) {
  ist_error err = {0};
  char *text;
  MUST(ist_inspect(path, &text, &err));
  json_t *root = json_loads(text, 0, NULL);
  assert_non_null(root);
  ist_free_memory(text);
  return root;
}

static const char *text_at(const json_t *root, const char *key) {
  const char *text = json_string_value(json_object_get(root, key));
  return text ? text : "";
}

/* Bytes of a file that are no UTF-8 are question marks; arrays are cut to eight entries. */
static void test_inspect(void **state) {
  (void)state;
  ist_error err = {0};
  static const int32_t numbers[10] = {7, -1, 2, 3, 4, 5, 6, 7, 8, 9};
  static const ist_str texts[2] = {{"a", 1}, {"\xc3", 1}};
  static const float weights[4] = {1, 2, 3, 4};
  ist_gguf_writer *w = ist_gguf_writer_new();
  ist_gguf_put_str(w, "general.architecture", "llama", 5);
  ist_gguf_put_str(w, "general.name", "caf\xe9", 4);
  ist_gguf_put_u32(w, "count", 4000000000u);
  ist_gguf_put_f32(w, "real", 0.5f);
  ist_gguf_put_bool(w, "yes", true);
  ist_gguf_put_i32s(w, "numbers", numbers, 10);
  ist_gguf_put_strs(w, "texts", texts, 2);
  const int64_t ne[2] = {2, 2};
  ist_gguf_put_tensor_data(w, "w", IST_F32, 2, ne, weights);
  MUST(ist_gguf_write(w, "odd.gguf", &err));
  ist_gguf_writer_free(w);
  json_t *root = inspect("odd.gguf");
  json_t *meta = json_object_get(root, "metadata");
  assert_string_equal(text_at(root, "kind"), "GGUF model");
  assert_string_equal(text_at(meta, "general.name"), "caf?");
  assert_int_equal(json_integer_value(json_object_get(meta, "count")), 4000000000);
  assert_true(json_real_value(json_object_get(meta, "real")) == 0.5);
  assert_true(json_is_true(json_object_get(meta, "yes")));
  json_t *first = json_object_get(json_object_get(meta, "numbers"), "first");
  assert_int_equal(json_integer_value(json_object_get(json_object_get(meta, "numbers"), "count")),
                   10);
  assert_int_equal(json_array_size(first), 8);
  assert_int_equal(json_integer_value(json_array_get(first, 1)), -1);
  first = json_object_get(json_object_get(meta, "texts"), "first");
  assert_string_equal(json_string_value(json_array_get(first, 1)), "?");
  json_t *tensor = json_array_get(json_object_get(root, "tensors"), 0);
  assert_string_equal(text_at(tensor, "name"), "w");
  assert_string_equal(text_at(tensor, "type"), "F32");
  assert_int_equal(json_integer_value(json_object_get(root, "parameters")), 4);
  assert_int_equal(json_integer_value(json_object_get(root, "tensor_bytes")), 16);
  json_decref(root);
}

static void test_inspect_kinds(void **state) {
  (void)state;
  static const char *const rows[][2] = {
      {IST_GOLDEN_DIR "/llama_hf", "Hugging Face folder"},
      {IST_GOLDEN_DIR "/llama_hf/model.safetensors", "safetensors"},
      {IST_GOLDEN_DIR "/llama_tiny/adapter", "PEFT adapter"},
      {GGUF, "GGUF model"},
  };
  for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
    json_t *root = inspect(rows[k][0]);
    assert_string_equal(text_at(root, "kind"), rows[k][1]);
    assert_int_equal(strncmp(text_at(root, "path"), rows[k][0], strlen(rows[k][0])), 0);
    assert_true(json_integer_value(json_object_get(root, "n_tensors")) > 0);
    json_decref(root);
  }
  ist_error err = {0};
  char *text;
  mkdir("nothing", 0777);
  assert_int_equal(ist_inspect("nothing", &text, &err), IST_ERR_FORMAT);
  assert_non_null(strstr(err.message, "nothing: found none of config.json, adapter_model"));
  assert_null(text);
  assert_int_equal(ist_inspect("nowhere", &text, &err), IST_ERR_IO);
}

/* ---- For signal handlers ---- */

static void test_lost_file(void **state) {
  (void)state;
  enum { MANY = 80 }; /* more than the table holds */
  ist_error err = {0};
  ist_map map[MANY];
  MUST(ist_file_write("one", "123456789", 9, &err));
  MUST(ist_file_write("two", "12", 2, &err));
  assert_null(ist_lost_file(&err));
  assert_null(ist_lost_file(NULL));
  MUST(ist_map_open(&map[0], "one", &err));
  MUST(ist_map_open(&map[1], "two", &err));
  assert_string_equal(ist_lost_file(map[0].p), "one");
  assert_string_equal(ist_lost_file(map[0].p + 8), "one");
  assert_null(ist_lost_file(map[0].p + 9));
  assert_string_equal(ist_lost_file(map[1].p + 1), "two");
  const unsigned char *gone = map[0].p;
  ist_map_close(&map[0]);
  assert_null(ist_lost_file(gone));
  assert_string_equal(ist_lost_file(map[1].p), "two");
  ist_map_close(&map[1]);
  int named = 0;
  for (int i = 0; i < MANY; i++) {
    MUST(ist_map_open(&map[i], i % 2 ? "one" : "two", &err));
    const char *path = ist_lost_file(map[i].p);
    if (!path) continue; /* no room: without a name, never with a wrong one */
    assert_string_equal(path, i % 2 ? "one" : "two");
    named++;
  }
  assert_int_equal(named, 64);
  for (int i = 0; i < MANY; i++) ist_map_close(&map[i]);
  MUST(ist_map_open(&map[0], "one", &err)); /* there is room again */
  assert_string_equal(ist_lost_file(map[0].p), "one");
  ist_map_close(&map[0]);
}

/* What was begun goes; what was finished, and what others have, stays. */
static void test_discard_unfinished(void **state) {
  (void)state;
  ist_error err = {0};
  ist_wfile begun;
  MUST(ist_file_write("finished", "x", 1, &err));
  MUST(ist_wfile_open(&begun, "begun", &err));
  ist_wfile_write(&begun, "half", 4);
  char *temp = ist_strdup(begun.temp);
  mkdir("folder.tmp", 0777);
  MUST(ist_file_write("folder.tmp/a", "x", 1, &err));
  MUST(ist_file_write("folder.tmp/b", "x", 1, &err));
  mkdir("kept", 0777);
  MUST(ist_file_write("kept/a", "x", 1, &err));
  assert_int_equal(symlink("kept", "link"), 0);
  ist_unfinished_add("folder.tmp");
  ist_unfinished_add("link"); /* a link goes, what it leads to does not */
  ist_unfinished_add("kept/a");
  ist_unfinished_remove("kept/a");
  assert_true(ist_file_exists(temp));
  ist_discard_unfinished();
  assert_false(ist_file_exists(temp));
  assert_false(ist_file_exists("begun"));
  assert_false(ist_file_exists("folder.tmp"));
  assert_true(ist_file_exists("finished"));
  assert_true(ist_file_exists("kept/a"));
  struct stat about;
  assert_int_equal(lstat("link", &about), -1);
  ist_unfinished_remove("folder.tmp");
  ist_unfinished_remove("link");
  ist_wfile_close(&begun);
  ist_discard_unfinished(); /* nothing is listed any more */
  ist_free(temp);
}

static void test_peak_memory(void **state) {
  (void)state;
  const size_t bytes = (size_t)200 << 20;
  int64_t before = ist_peak_memory();
  assert_true(before > 0);
  char *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  assert_true(p != MAP_FAILED);
  memset(p, 1, bytes);
  int64_t with = ist_peak_memory();
  munmap(p, bytes);
  assert_true(with >= before && with >= (int64_t)bytes);
  assert_true(ist_peak_memory() >= with - (16 << 20)); /* a peak stays */
}

/* ---- Selectors ---- */

static ist_selector *open_selector(const char *name, int64_t L, const char *scores) {
  ist_error err = {0};
  ist_selector *s;
  ist_train_options o;
  ist_train_options_init(&o);
  o.selector = name;
  o.seed = 3;
  if (scores) o.scores = scores;
  MUST(ist_selector_open(&s, L, &o, &err));
  return s;
}

static void test_selector_fixed(void **state) {
  (void)state;
  static const struct {
    const char *name;
    uint8_t active[4];
  } rows[] = {{"all", {1, 1, 1, 1}}, {"fixed:0,3", {1, 0, 0, 1}}, {"fixed:2", {0, 0, 1, 0}}};
  for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
    ist_selector *s = open_selector(rows[k].name, 4, NULL);
    for (int64_t t = 0; t < 30; t++) {
      uint8_t active[4];
      int64_t n = 0;
      for (int l = 0; l < 4; l++) n += rows[k].active[l];
      assert_false(ist_selector_wants_probe(s, t));
      assert_int_equal(ist_selector_draw(s, t, active), n);
      assert_memory_equal(active, rows[k].active, 4);
    }
    ist_selector_free(s);
  }
  ist_selector_free(NULL);
}

/* Blindly drawn layers come up as often as each other: 2 of 8, 4000 times, within 5 standard
 * deviations of 1000. */
static void test_selector_random(void **state) {
  (void)state;
  ist_selector *s = open_selector("random", 8, NULL);
  int64_t times[8] = {0};
  for (int64_t t = 0; t < 4000; t++) {
    uint8_t active[8];
    assert_int_equal(ist_selector_draw(s, t, active), 2);
    for (int l = 0; l < 8; l++) times[l] += active[l];
  }
  for (int l = 0; l < 8; l++) assert_true(llabs(times[l] - 1000) < 5 * 28);
  ist_selector_free(s);
}

/* Damping the first half costs, damping the others does not: the first get more important, and
 * are drawn more often. */
static void test_selector_learns(void **state) {
  (void)state;
  enum { L = 8 };
  ist_error err = {0};
  ist_selector *s;
  MUST(ist_selector_open(&s, L, NULL, &err)); /* the defaults: IST */
  int64_t probes = 0, useful = 0, useless = 0;
  for (int64_t t = 0; t < 400; t++) {
    uint8_t active[L];
    float factor[8 * L];
    double loss[8];
    if (ist_selector_wants_probe(s, t)) {
      int64_t n = ist_selector_propose(s, t, factor);
      assert_true(n >= 2 && n <= 8);
      for (int64_t k = 0; k < n; k++) {
        loss[k] = 1;
        for (int l = 0; l < L / 2; l++) loss[k] += 0.5 * (1 - (double)factor[k * L + l]);
      }
      ist_selector_observe(s, t, loss, n);
      probes++;
    }
    ist_selector_draw(s, t, active);
    for (int l = 0; t >= 200 && l < L; l++) *(l < L / 2 ? &useful : &useless) += active[l];
  }
  assert_true(probes >= 30);
  for (int l = 0; l < L / 2; l++)
    for (int k = L / 2; k < L; k++)
      assert_true(ist_selector_importance(s, l) > ist_selector_importance(s, k));
  assert_true(useful > 2 * useless);
  ist_selector_free(s);
}

/* Scores of an earlier run: importance is sigmoid(-suppressibility). */
static void test_selector_scores(void **state) {
  (void)state;
  static const char file[] =
      "{\"layers\": [{\"layer\": 1, \"suppressibility\": 3}, {\"layer\": 0, "
      "\"suppressibility\": -2.5}]}";
  ist_error err = {0};
  MUST(ist_file_write("scores.json", file, sizeof file - 1, &err));
  ist_selector *s = open_selector("scores:scores.json", 2, "frozen");
  assert_false(ist_selector_wants_probe(s, 10));
  assert_true(fabs(ist_selector_importance(s, 0) - 1 / (1 + exp(-2.5))) < 1e-12);
  assert_true(fabs(ist_selector_importance(s, 1) - 1 / (1 + exp(3))) < 1e-12);
  ist_selector_free(s);
}

static void test_selector_refused(void **state) {
  (void)state;
  ist_error err = {0};
  MUST(ist_file_write("list.json", "[1]", 3, &err));
  MUST(ist_file_write("text.json", "{", 1, &err));
  static const char part[] = "{\"layers\": [{\"layer\": 0, \"suppressibility\": 1}]}";
  MUST(ist_file_write("part.json", part, sizeof part - 1, &err));
  static const char far[] = "{\"layers\": [{\"layer\": 9, \"suppressibility\": 1}]}";
  MUST(ist_file_write("far.json", far, sizeof far - 1, &err));
  static const char kind[] = "{\"layers\": [{\"layer\": 0}]}";
  MUST(ist_file_write("kind.json", kind, sizeof kind - 1, &err));
  static const struct {
    const char *name;
    ist_status code;
    const char *says;
  } rows[] = {
      {"lucky", IST_ERR_ARG, "lucky"},
      {"fixed:", IST_ERR_ARG, "expected layer numbers separated by commas"},
      {"fixed:1;2", IST_ERR_ARG, "fixed:1;2"},
      {"fixed:2", IST_ERR_ARG, "2"},
      {"scores:none.json", IST_ERR_IO, "none.json"},
      {"scores:text.json", IST_ERR_FORMAT, "text.json"},
      {"scores:part.json", IST_ERR_MISMATCH, "found no score of layer 1"},
      {"scores:far.json", IST_ERR_MISMATCH, "found layer 9, the model has 2"},
      {"scores:kind.json", IST_ERR_FORMAT, "layers[0]: found no layer and suppressibility"},
  };
  ist_train_options o;
  ist_train_options_init(&o);
  for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
    ist_selector *s = (ist_selector *)&err;
    o.selector = rows[k].name;
    assert_int_equal(ist_selector_open(&s, 2, &o, &err), rows[k].code);
    if (!strstr(err.message, rows[k].says)) fail_msg("%s: %s", rows[k].name, err.message);
    assert_null(s);
  }
  o.selector = "scores:list.json";
  ist_selector *s;
  assert_true(ist_selector_open(&s, 2, &o, &err) != IST_OK);
  o.selector = "ist";
  assert_int_equal(ist_selector_open(&s, 0, &o, &err), IST_ERR_ARG);
}

/* ---- The plan of a run ---- */

static void test_trainer_plan(void **state) {
  (void)state;
  ist_error err = {0};
  FILE *f = fopen("data.jsonl", "w");
  assert_non_null(f);
  for (int i = 0; i < 40; i++)
    fprintf(f, "{\"prompt\": \"add %d\", \"completion\": \"%d\"}\n", i, 2 * i);
  assert_int_equal(fclose(f), 0);
  ist_model *m = open_model(GGUF);
  ist_train_options o;
  ist_train_options_init(&o);
  o.train_path = "data.jsonl";
  o.template_name = "none";
  o.loss_on = "all";
  o.max_tokens = 32;
  o.micro_tokens = 64;
  o.order = "layer";
  o.steps = 2;
  ist_trainer *t;
  MUST(ist_trainer_open(&t, m, &o, &err));
  ist_train_info info;
  ist_trainer_get_info(t, &info);
  char *text;
  MUST(ist_trainer_plan(t, &text, &err));
  json_t *plan = json_loads(text, 0, NULL), *term;
  assert_int_equal(json_integer_value(json_object_get(plan, "total_bytes")), info.planned_bytes);
  assert_int_equal(json_integer_value(json_object_get(plan, "micro_tokens")), info.micro_tokens);
  assert_true(info.micro_tokens > 0 && info.micro_tokens <= 64);
  assert_string_equal(json_string_value(json_object_get(plan, "order")), "layer");
  assert_string_equal(json_string_value(json_object_get(plan, "recompute")), info.recompute);
  json_int_t sum = 0;
  size_t i;
  json_array_foreach(json_object_get(plan, "terms"), i, term) {
    assert_true(json_integer_value(json_object_get(term, "bytes")) >= 0);
    sum += json_integer_value(json_object_get(term, "bytes"));
  }
  assert_int_equal(sum, info.planned_bytes);
  json_decref(plan);
  ist_free_memory(text);
  ist_trainer_close(t);
  ist_model_close(m);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_families),           cmocka_unit_test(test_shapes),
      cmocka_unit_test(test_make_model),         cmocka_unit_test(test_random_weights),
      cmocka_unit_test(test_make_model_refused), cmocka_unit_test(test_inspect),
      cmocka_unit_test(test_inspect_kinds),      cmocka_unit_test(test_lost_file),
      cmocka_unit_test(test_discard_unfinished), cmocka_unit_test(test_peak_memory),
      cmocka_unit_test(test_selector_fixed),     cmocka_unit_test(test_selector_random),
      cmocka_unit_test(test_selector_learns),    cmocka_unit_test(test_selector_scores),
      cmocka_unit_test(test_selector_refused),   cmocka_unit_test(test_trainer_plan),
  };
  return cmocka_run_group_tests(tests, enter_folder, leave_folder);
}
