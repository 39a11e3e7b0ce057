/* Tokenizers through the public interface, with and without a model: what goes around a text,
 * special tokens read or not, single tokens, and what is refused. */
#include <string.h>
#include <sys/stat.h>

#include "folder.h"

#define WHOLE IST_GOLDEN_DIR "/llama_hf"
#define GGUF  IST_GOLDEN_DIR "/llama_tiny/llama_tiny.gguf"

static const char tokenizer[] =
    "{\"model\": {\"type\": \"BPE\", \"byte_fallback\": true, \"vocab\": {\"a\": 0, \"b\": 1, "
    "\"ab\": 2, \"▁\": 3, \"<0xE2>\": 6, \"<0x82>\": 7, \"<0xAC>\": 8}, \"merges\": [\"a b\"]},"
    "\"added_tokens\": [{\"id\": 4, \"content\": \"<s>\", \"special\": true},"
    "{\"id\": 5, \"content\": \"</s>\", \"special\": true},"
    "{\"id\": 9, \"content\": \"<u>\", \"special\": false}],"
    "\"normalizer\": {\"type\": \"Replace\", \"pattern\": {\"String\": \" \"}, \"content\": \"▁\"},"
    "\"decoder\": {\"type\": \"Sequence\", \"decoders\": [{\"type\": \"Replace\", \"pattern\": "
    "{\"String\": \"▁\"}, \"content\": \" \"}, {\"type\": \"ByteFallback\"}, {\"type\": "
    "\"Fuse\"}]},"
    "\"post_processor\": {\"type\": \"BertProcessing\", \"cls\": [\"<s>\", 4], \"sep\": [\"</s>\", "
    "5]}}";

static ist_tokenizer *open_written(void) {
  ist_error err = {0};
  ist_tokenizer *t;
  mkdir("model", 0777);
  MUST(ist_file_write("model/tokenizer.json", tokenizer, sizeof tokenizer - 1, &err));
  MUST(ist_tokenizer_open(&t, "model", &err));
  return t;
}

static void expect_ids(const int32_t *ids, int64_t n, const char *digits) {
  assert_int_equal(n, strlen(digits));
  for (int64_t i = 0; i < n; i++) assert_int_equal(ids[i], digits[i] - '0');
}

/* Plain text never becomes a control token; what the vocabulary has no token for is left out. */
static void test_special(void **state) {
  (void)state;
  static const struct {
    const char *text;
    bool special;
    const char *ids, *ends;
  } rows[] = {
      {"ab<s>€<u> a", true, "24678930", "4246789305"},
      {"ab<s>€<u> a", false, "2678930", "426789305"},
      {"</s>", true, "5", "455"},
      {"</s>", false, "", "45"},
      {"", true, "", "45"},
  };
  ist_error err = {0};
  ist_tokenizer *t = open_written();
  for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
    int32_t *ids;
    int64_t n;
    MUST(ist_tokenizer_tokenize(t, rows[k].text, strlen(rows[k].text), rows[k].special, &ids, &n,
                                &err));
    expect_ids(ids, n, rows[k].ids);
    MUST(ist_tokenizer_add_ends(t, &ids, &n, &err));
    expect_ids(ids, n, rows[k].ends);
    ist_free_memory(ids);
  }
  ist_tokenizer_free(t);
}

/* Where nothing goes around a text the ids are left alone. */
static void test_no_ends(void **state) {
  (void)state;
  ist_error err = {0};
  ist_tokenizer *t;
  int32_t *ids, *before;
  int64_t n;
  MUST(ist_tokenizer_open(&t, GGUF, &err));
  MUST(ist_tokenizer_tokenize(t, "the sum", 7, false, &ids, &n, &err));
  int64_t count = n;
  before = ids;
  MUST(ist_tokenizer_add_ends(t, &ids, &n, &err));
  assert_ptr_equal(ids, before);
  assert_int_equal(n, count);
  ist_free_memory(ids);
  ist_tokenizer_free(t);
}

static void test_text(void **state) {
  (void)state;
  static const int32_t ids[] = {4, 2, 3, 0, 6, 7, 8, 9, 5};
  static const struct {
    int64_t from, n;
    bool special;
    const char *text;
  } rows[] = {
      {0, 9, true, "<s>ab a€<u></s>"},
      {0, 9, false, "ab a€<u>"},
      {4, 1, true, "\xe2"}, /* a byte is a byte, not a character that cannot be shown */
      {4, 2, false, "\xe2\x82"},
      {0, 1, false, ""},
      {0, 0, true, ""},
  };
  ist_error err = {0};
  ist_tokenizer *t = open_written();
  for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
    char *text;
    size_t len;
    MUST(ist_tokenizer_detokenize(t, ids + rows[k].from, rows[k].n, rows[k].special, &text, &len,
                                  &err));
    assert_string_equal(text, rows[k].text);
    assert_int_equal(len, strlen(rows[k].text));
    ist_free_memory(text);
  }
  ist_tokenizer_free(t);
}

static void test_one_token(void **state) {
  (void)state;
  static const struct {
    int32_t id;
    const char *text;
    bool special;
  } rows[] = {{2, "ab", false},  {3, " ", false},    {4, "<s>", true},
              {5, "</s>", true}, {7, "\x82", false}, {9, "<u>", false}};
  ist_error err = {0};
  ist_tokenizer *t = open_written();
  char *text;
  size_t len;
  bool special;
  for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
    special = !rows[k].special;
    MUST(ist_tokenizer_token(t, rows[k].id, &text, &len, &special, &err));
    assert_string_equal(text, rows[k].text);
    assert_int_equal(len, strlen(rows[k].text));
    assert_int_equal(special, rows[k].special);
    ist_free_memory(text);
  }
  assert_int_equal(ist_tokenizer_token(t, 10, &text, &len, &special, &err), IST_ERR_DATA);
  assert_string_equal(err.message, "token id 10 at 0, the vocabulary has 10 tokens");
  assert_int_equal(ist_tokenizer_token(t, -1, &text, &len, &special, &err), IST_ERR_DATA);
  assert_int_equal(ist_tokenizer_detokenize(t, (int32_t[]){0, 99}, 2, true, &text, &len, &err),
                   IST_ERR_DATA);
  assert_string_equal(err.message, "token id 99 at 1, the vocabulary has 10 tokens");
  ist_tokenizer_free(t);
}

static void test_refused(void **state) {
  (void)state;
  ist_error err = {0};
  mkdir("empty", 0777);
  MUST(ist_file_write("text.gguf", "not a model", 11, &err));
  static const struct {
    const char *path;
    ist_status code;
    const char *says;
  } rows[] = {{"nowhere.gguf", IST_ERR_IO, "nowhere.gguf"},
              {"text.gguf", IST_ERR_FORMAT, "text.gguf"},
              {"empty", IST_ERR_IO, "empty/tokenizer.json"}};
  for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
    ist_tokenizer *t = (ist_tokenizer *)&err;
    assert_int_equal(ist_tokenizer_open(&t, rows[k].path, &err), rows[k].code);
    if (!strstr(err.message, rows[k].says)) fail_msg("%s: %s", rows[k].path, err.message);
    assert_null(t);
  }
  ist_tokenizer_free(NULL);
}

/* A model's own tokenizer; and a model that has none. */
static void test_of_model(void **state) {
  (void)state;
  static const char text[] = "<|im_start|>user\nthe sum<|im_end|>";
  ist_error err = {0};
  ist_model *m = open_model(WHOLE);
  int32_t *ids;
  char *back;
  int64_t n;
  size_t len;
  MUST(ist_tokenize(m, text, sizeof text - 1, true, &ids, &n, &err));
  MUST(ist_detokenize(m, ids, n, true, &back, &len, &err));
  assert_string_equal(back, text);
  ist_free_memory(back);
  MUST(ist_detokenize(m, ids, n, false, &back, &len, &err));
  assert_string_equal(back, "user\nthe sum");
  ist_free_memory(back);
  ids[n - 1] = INT32_MAX;
  assert_int_equal(ist_detokenize(m, ids, n, true, &back, &len, &err), IST_ERR_DATA);
  assert_non_null(strstr(err.message, "token id 2147483647 at "));
  ist_free_memory(ids);
  ist_model_close(m);

  m = open_model(IST_GOLDEN_DIR "/families/gpt2");
  assert_int_equal(ist_tokenize(m, "a", 1, false, &ids, &n, &err), IST_ERR_UNSUPPORTED);
  assert_non_null(strstr(err.message, "found no tokenizer.json in the folder"));
  assert_non_null(strstr(err.hint, "tokenizer.json"));
  err = (ist_error){0};
  assert_int_equal(ist_detokenize(m, &(int32_t){0}, 1, false, &back, &len, &err),
                   IST_ERR_UNSUPPORTED);
  assert_non_null(strstr(err.message, "found no tokenizer.json in the folder"));
  ist_model_close(m);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_special), cmocka_unit_test(test_no_ends),
      cmocka_unit_test(test_text),    cmocka_unit_test(test_one_token),
      cmocka_unit_test(test_refused), cmocka_unit_test(test_of_model),
  };
  return cmocka_run_group_tests(tests, enter_folder, leave_folder);
}
