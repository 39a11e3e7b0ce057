/* tokenizer.json made of a GGUF's vocabulary: read again, it gives the GGUF's ids for 2,200
 * strings, byte-level and SentencePiece. */
#include "../format/files.h"

#include "export/hf_folder.h"
#include "format/safetensors.h"
#include "tokenizer/tokenizer.h"

#define GOLDEN IST_GOLDEN_DIR "/../tokenizer/golden/"

static ist_error err;

static void must(ist_status s) {
  if (s != IST_OK) fail_msg("%s", err.message);
}

static void write_json(const char *folder, const char *name, json_t *root) {
  assert_non_null(root);
  char *path = ist_path_join(folder, name), *text = json_dumps(root, JSON_COMPACT);
  write_bytes(path, text, strlen(text));
  json_decref(root);
  ist_free(path);
  free(text);
}

static int32_t i32_at(const ist_st_tensor *t, int64_t i) {
  int32_t v;
  memcpy(&v, t->data + 4 * i, sizeof v);
  return v;
}

/* Ids of both tokenizers for every string of the file. */
static void compare(const char *name, const ist_tokenizer *gguf, const ist_tokenizer *json,
                    const ist_safetensors *strings) {
  const ist_st_tensor *text = ist_safetensors_find(strings, "text");
  const ist_st_tensor *start = ist_safetensors_find(strings, "text.start");
  const int64_t n = start->shape[0] - 1;
  ist_ids a = {0}, b = {0};
  ist_buf back = {0}, again = {0};
  assert_true(n >= 2000);
  for (int64_t i = 0; i < n; i++) {
    const char *p = (const char *)text->data + i32_at(start, i);
    const size_t len = (size_t)(i32_at(start, i + 1) - i32_at(start, i));
    a.n = b.n = 0;
    ist_buf_clear(&back);
    ist_buf_clear(&again);
    must(ist_tokenizer_encode(gguf, p, len, false, &a, &err));
    must(ist_tokenizer_encode(json, p, len, false, &b, &err));
    if (a.n != b.n || memcmp(a.p, b.p, (size_t)a.n * sizeof *a.p) != 0)
      fail_msg("%s: string %d '%.*s' has other ids", name, (int)i, (int)len, p);
    must(ist_tokenizer_decode(gguf, a.p, a.n, true, &back, &err));
    must(ist_tokenizer_decode(json, a.p, a.n, true, &again, &err));
    if (back.len != again.len || memcmp(back.p, again.p, back.len) != 0)
      fail_msg("%s: string %d '%.*s' comes back otherwise", name, (int)i, (int)len, p);
  }
  ist_ids_free(&a);
  ist_ids_free(&b);
  ist_buf_free(&back);
  ist_buf_free(&again);
}

static void test_round_trip(void **state) {
  (void)state;
  static const char *const names[] = {
      "gpt-2", "llama-bpe", "qwen2", "smollm", "bloom", "sentencepiece", "sentencepiece-prefix"};
  ist_safetensors *strings;
  must(ist_safetensors_open(&strings, GOLDEN "strings.safetensors", &err));
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    char path[512], *folder = make_folder();
    ist_gguf *g;
    ist_model m = {.path = path};
    ist_tokenizer *json;
    snprintf(path, sizeof path, GOLDEN "%s.gguf", names[i]);
    must(ist_gguf_open(&g, path, &err));
    must(ist_tokenizer_from_gguf(&m.tokenizer, g, &err));
    m.source = ist_source_of_gguf(g);
    json_t *root = ist_hf_tokenizer(&m, &err);
    if (!root) fail_msg("%s", err.message);
    write_json(folder, "tokenizer.json", root);
    write_json(folder, "tokenizer_config.json", ist_hf_tokenizer_config(&m));
    must(ist_tokenizer_open_json(&json, folder, &err));
    assert_int_equal(ist_tokenizer_size(json), ist_tokenizer_size(m.tokenizer));
    assert_int_equal(ist_tokenizer_bos(json), ist_tokenizer_bos(m.tokenizer));
    assert_int_equal(ist_tokenizer_eos(json), ist_tokenizer_eos(m.tokenizer));
    compare(names[i], m.tokenizer, json, strings);
    ist_tokenizer_free(json);
    ist_tokenizer_free(m.tokenizer);
    ist_gguf_close(g);
    remove_folder(folder);
  }
  ist_safetensors_close(strings);
}

/* A rule that has no row, by name. */
static void test_refused(void **state) {
  (void)state;
  ist_gguf *g;
  char path[] = GOLDEN "tekken.gguf";
  ist_model m = {.path = path};
  must(ist_gguf_open(&g, path, &err));
  must(ist_tokenizer_from_gguf(&m.tokenizer, g, &err));
  m.source = ist_source_of_gguf(g);
  assert_null(ist_hf_tokenizer(&m, &err));
  assert_non_null(strstr(err.message, "pre-tokeniser tekken"));
  ist_tokenizer_free(m.tokenizer);
  ist_gguf_close(g);
}

/* Types are numbers of any kind: one that is none of those known is plain text. */
static void test_odd_types(void **state) {
  (void)state;
  enum { PIECES = 4 };
  static const ist_str text[PIECES] = {{"<unk>", 5}, {"a", 1}, {"b", 1}, {"ab", 2}};
  static const float score[PIECES] = {0, -2, -3, -1}, type[PIECES] = {2, 3.5f, 1e20f, 1};
  char *folder = make_folder(), *path = ist_path_join(folder, "odd.gguf");
  ist_gguf_writer *w = ist_gguf_writer_new();
  ist_gguf_put_str(w, "tokenizer.ggml.model", "llama", 5);
  ist_gguf_put_strs(w, "tokenizer.ggml.tokens", text, PIECES);
  ist_gguf_put_f32s(w, "tokenizer.ggml.scores", score, PIECES);
  ist_gguf_put_f32s(w, "tokenizer.ggml.token_type", type, PIECES);
  must(ist_gguf_write(w, path, &err));
  ist_gguf_writer_free(w);
  ist_gguf *g;
  ist_model m = {.path = path};
  must(ist_gguf_open(&g, path, &err));
  must(ist_tokenizer_from_gguf(&m.tokenizer, g, &err));
  m.source = ist_source_of_gguf(g);
  json_t *root = ist_hf_tokenizer(&m, &err), *config = ist_hf_tokenizer_config(&m);
  if (!root) fail_msg("%s", err.message);
  const json_t *pairs = json_object_get(json_object_get(root, "model"), "merges");
  assert_int_equal(json_array_size(json_object_get(root, "added_tokens")), 1);
  assert_int_equal(json_object_size(json_object_get(config, "added_tokens_decoder")), 1);
  assert_int_equal(json_array_size(pairs), 1);
  assert_string_equal(json_string_value(json_array_get(pairs, 0)), "a b");
  json_decref(root);
  json_decref(config);
  ist_tokenizer_free(m.tokenizer);
  ist_gguf_close(g);
  ist_free(path);
  remove_folder(folder);
}

/* Pieces of one letter up to 1200 times: 720 KB whose merges would be 430 MB. */
static void test_merges_that_multiply(void **state) {
  (void)state;
  enum { PIECES = 1200 };
  static char letters[PIECES];
  static ist_str text[PIECES + 1] = {{"<unk>", 5}};
  static float score[PIECES + 1];
  static int32_t type[PIECES + 1] = {2};
  memset(letters, 'a', sizeof letters);
  for (int i = 1; i <= PIECES; i++) {
    text[i] = (ist_str){letters, (size_t)i};
    score[i] = (float)-i;
    type[i] = 1;
  }
  char *folder = make_folder(), *path = ist_path_join(folder, "pieces.gguf");
  ist_gguf_writer *w = ist_gguf_writer_new();
  ist_gguf_put_str(w, "tokenizer.ggml.model", "llama", 5);
  ist_gguf_put_strs(w, "tokenizer.ggml.tokens", text, PIECES + 1);
  ist_gguf_put_f32s(w, "tokenizer.ggml.scores", score, PIECES + 1);
  ist_gguf_put_i32s(w, "tokenizer.ggml.token_type", type, PIECES + 1);
  must(ist_gguf_write(w, path, &err));
  ist_gguf_writer_free(w);
  ist_gguf *g;
  ist_model m = {.path = path};
  must(ist_gguf_open(&g, path, &err));
  must(ist_tokenizer_from_gguf(&m.tokenizer, g, &err));
  m.source = ist_source_of_gguf(g);
  assert_null(ist_hf_tokenizer(&m, &err));
  assert_error(err.code, IST_ERR_UNSUPPORTED, &err, "more than 64 MiB of merges");
  assert_error(err.code, IST_ERR_UNSUPPORTED, &err, "pieces.gguf: no tokenizer.json can be made");
  ist_tokenizer_free(m.tokenizer);
  ist_gguf_close(g);
  ist_free(path);
  remove_folder(folder);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_round_trip), cmocka_unit_test(test_merges_that_multiply),
      cmocka_unit_test(test_odd_types), cmocka_unit_test(test_refused)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
