/* 2,200 strings against the ids of HF tokenizers, for each rule (make_goldens.py). */
#include "tokenizer/small_vocab.h"

#include "format/safetensors.h"

#define GOLDEN IST_GOLDEN_DIR "/../tokenizer/golden/"

static const ist_st_tensor *tensor(const ist_safetensors *s, const char *rule, const char *suffix) {
  char name[64];
  snprintf(name, sizeof name, "%s%s", rule, suffix);
  const ist_st_tensor *t = ist_safetensors_find(s, name);
  if (!t) fail_msg("no golden tensor '%s'", name);
  return t;
}

static int32_t i32_at(const ist_st_tensor *t, int64_t i) {
  int32_t v;
  memcpy(&v, t->data + i * 4, sizeof v);
  return v;
}

static int16_t i16_at(const ist_st_tensor *t, int64_t i) {
  int16_t v;
  memcpy(&v, t->data + i * 2, sizeof v);
  return v;
}

static void check_rule(const ist_safetensors *s, const char *rule) {
  ist_error err = {0};
  ist_gguf *g = NULL;
  ist_tokenizer *t = NULL;
  char path[512];
  snprintf(path, sizeof path, GOLDEN "%s.gguf", rule);
  if (ist_gguf_open(&g, path, &err) != IST_OK || ist_tokenizer_from_gguf(&t, g, &err) != IST_OK)
    fail_msg("%s", err.message);
  ist_gguf_close(g);
  const ist_st_tensor *text = tensor(s, "text", ""), *text_start = tensor(s, "text", ".start");
  const ist_st_tensor *parse = tensor(s, "parse", "");
  const ist_st_tensor *ids = tensor(s, rule, ""), *ids_start = tensor(s, rule, ".start");
  ist_ids got = {0};
  ist_buf back = {0};
  int64_t n = parse->shape[0];
  assert_true(n >= 2000);
  for (int64_t i = 0; i < n; i++) {
    const char *p = (const char *)text->data + i32_at(text_start, i);
    size_t len = (size_t)(i32_at(text_start, i + 1) - i32_at(text_start, i));
    int64_t from = i32_at(ids_start, i), count = i32_at(ids_start, i + 1) - from;
    got.n = 0;
    assert_int_equal(ist_tokenizer_encode(t, p, len, parse->data[i], &got, &err), IST_OK);
    bool same = got.n == count;
    for (int64_t k = 0; same && k < count; k++) same = got.p[k] == i16_at(ids, from + k);
    if (!same) fail_msg("%s: string %d '%.*s' has other ids than HF's", rule, (int)i, (int)len, p);
    ist_buf_clear(&back);
    assert_int_equal(ist_tokenizer_decode(t, got.p, got.n, true, &back, &err), IST_OK);
    assert_int_equal(back.len, len);
    if (len) assert_memory_equal(back.p, p, len);
  }
  ist_ids_free(&got);
  ist_buf_free(&back);
  ist_tokenizer_free(t);
}

static void test_golden(void **state) {
  (void)state;
  ist_error err = {0};
  ist_safetensors *s = NULL;
  if (ist_safetensors_open(&s, GOLDEN "strings.safetensors", &err) != IST_OK)
    fail_msg("%s", err.message);
  static const char *const rules[] = {"gpt-2",       "llama-bpe", "qwen2",  "smollm",
                                      "qwen35",      "tekken",    "gpt-4o", "deepseek-coder",
                                      "deepseek-v3", "bloom"};
  for (size_t r = 0; r < sizeof rules / sizeof rules[0]; r++) check_rule(s, rules[r]);
  ist_safetensors_close(s);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_golden)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
