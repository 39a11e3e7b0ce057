/* Tokenizers of Hugging Face folders and SentencePiece models against the ids and
 * texts that HF tokenizers and sentencepiece give (make_json_goldens.py); and
 * folders that are broken. */
#include "tokenizer/small_vocab.h"

#include <jansson.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/rng.h"

#define GOLDEN IST_GOLDEN_DIR "/../tokenizer/golden/"

static ist_tokenizer *open_named(const char *name) {
  ist_error err = {0};
  ist_tokenizer *t = NULL;
  char path[512];
  snprintf(path, sizeof path, GOLDEN "%s", name);
  if (!strstr(name, ".gguf")) {
    if (ist_tokenizer_open_json(&t, path, &err) != IST_OK) fail_msg("%s", err.message);
    return t;
  }
  ist_gguf *g = NULL;
  if (ist_gguf_open(&g, path, &err) != IST_OK || ist_tokenizer_from_gguf(&t, g, &err) != IST_OK)
    fail_msg("%s", err.message);
  ist_gguf_close(g);
  return t;
}

static void check_row(const char *name, const ist_tokenizer *t, const json_t *text,
                      const json_t *row) {
  const json_t *want = json_array_get(row, 0), *back = json_array_get(row, 1);
  if (json_is_true(back)) back = text;
  ist_ids ids = {0};
  ist_buf out = {0};
  assert_int_equal(
      ist_tokenizer_encode(t, json_string_value(text), json_string_length(text), true, &ids, NULL),
      IST_OK);
  bool same = ids.n == (int64_t)json_array_size(want);
  for (int64_t i = 0; same && i < ids.n; i++)
    same = ids.p[i] == json_integer_value(json_array_get(want, (size_t)i));
  if (!same) fail_msg("%s: '%s' has other ids", name, json_string_value(text));
  if (json_is_string(back)) {
    assert_int_equal(ist_tokenizer_decode(t, ids.p, ids.n, true, &out, NULL), IST_OK);
    if (out.len != json_string_length(back) ||
        (out.len && memcmp(out.p, json_string_value(back), out.len) != 0))
      fail_msg("%s: '%s' comes back as '%s'", name, json_string_value(back), out.p);
  }
  ist_ids_free(&ids);
  ist_buf_free(&out);
}

static void test_goldens(void **state) {
  (void)state;
  json_t *golden = json_load_file(GOLDEN "json.json", JSON_ALLOW_NUL, NULL);
  assert_non_null(golden);
  const char *name;
  json_t *rows;
  int kinds = 0;
  json_object_foreach(golden, name, rows) {
    if (!json_is_array(rows) || strcmp(name, "texts") == 0) continue;
    ist_tokenizer *t = open_named(name);
    assert_true(json_array_size(rows) >= 500);
    for (size_t i = 0; i < json_array_size(rows); i++)
      check_row(name, t, json_array_get(json_object_get(golden, "texts"), i),
                json_array_get(rows, i));
    ist_tokenizer_free(t);
    kinds++;
  }
  assert_int_equal(kinds, 10);
  json_decref(golden);
}

/* ---- Folders that the test writes ---- */

static char folder[] = "/tmp/ist-test-json-XXXXXX";

static void put(const char *name, const char *text, size_t len) {
  char *path = ist_path_join(folder, name);
  if (text)
    assert_int_equal(ist_file_write(path, text, len, NULL), IST_OK);
  else
    unlink(path);
  ist_free(path);
}

static int make_folder(void **state) {
  (void)state;
  return mkdtemp(folder) ? 0 : -1;
}
static int remove_folder(void **state) {
  (void)state;
  return ist_remove_tree(folder, NULL) == IST_OK ? 0 : -1;
}

#define MODEL                                                                                    \
  "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\"</s>\":3},\"merges\":[\"a " \
  "b\"]}"
#define ADDED "\"added_tokens\":[{\"id\":4,\"content\":\"<s>\",\"special\":true}]"

static void expect(const char *json, ist_status code, const char *says) {
  ist_error err = {0};
  ist_tokenizer *t = NULL;
  put("tokenizer.json", json, strlen(json));
  ist_status status = ist_tokenizer_open_json(&t, folder, &err);
  if (status != code || (says && !strstr(err.message, says)))
    fail_msg("%s: got %d '%s', expected %d '%s'", json, (int)status, err.message, (int)code,
             says ? says : "");
  ist_tokenizer_free(t);
}

static void test_refused(void **state) {
  (void)state;
  expect("{" MODEL "}", IST_OK, NULL);
  expect("{" MODEL "," ADDED "}", IST_OK, NULL);
  expect("{" ADDED "}", IST_ERR_UNSUPPORTED, "type BPE");
  expect("[]", IST_ERR_FORMAT, "expected an object");
  expect("{\"model\":{\"type\":\"Unigram\"}}", IST_ERR_UNSUPPORTED, "'Unigram'");
  expect("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a b\"]}}", IST_ERR_FORMAT,
         "not a token");
  expect("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"ab\"]}}", IST_ERR_FORMAT,
         "two tokens");
  expect("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":-1},\"merges\":[]}}", IST_ERR_FORMAT, "id");
  expect("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":999999999},\"merges\":[]}}", IST_ERR_FORMAT,
         "out of range");
  expect("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]}}", IST_ERR_FORMAT,
         "same id");
  expect("{\"normalizer\":{\"type\":\"Nmt\"}," MODEL "}", IST_ERR_UNSUPPORTED, "'Nmt'");
  expect(
      "{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(\"},\"behavior\":"
      "\"Isolated\"}," MODEL "}",
      IST_ERR_UNSUPPORTED, "does not compile");
  expect(
      "{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"a\\\\Gb\"},\"behavior\":"
      "\"Isolated\"}," MODEL "}",
      IST_ERR_UNSUPPORTED, "the escape '\\G'");
  expect("{\"decoder\":{\"type\":\"CTC\"}," MODEL "}", IST_ERR_UNSUPPORTED, "'CTC'");
  expect("{\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":5}," MODEL "}", IST_ERR_FORMAT,
         "a list");
}

static void test_configs(void **state) {
  (void)state;
  ist_error err = {0};
  ist_tokenizer *t = NULL;
  static const char config[] =
      "{\"bos_token\":{\"content\":\"<s>\"},\"eos_token\":\"</s>\","
      "\"add_bos_token\":true,\"chat_template\":[{\"name\":\"x\","
      "\"template\":\"no\"},{\"name\":\"default\",\"template\":\"hi\"}]}";
  put("tokenizer.json", "{" MODEL "," ADDED "}", strlen("{" MODEL "," ADDED "}"));
  put("tokenizer_config.json", config, sizeof config - 1);
  put("generation_config.json", "{\"eos_token_id\":[3,4]}", 22);
  assert_int_equal(ist_tokenizer_open_json(&t, folder, &err), IST_OK);
  assert_int_equal(ist_tokenizer_bos(t), 4);
  assert_int_equal(ist_tokenizer_eos(t), 3);
  assert_true(ist_tokenizer_add_bos(t));
  assert_true(ist_tokenizer_is_eog(t, 4));
  assert_string_equal(ist_tokenizer_chat_template(t), "hi");
  ist_tokenizer_free(t);
  /* Where the post-processor names tokens, the flags say nothing (transformers 5). */
  static const char post[] =
      "{" MODEL "," ADDED
      ",\"post_processor\":{\"type\":\"RobertaProcessing\",\"cls\":[\"<s>\",4],"
      "\"sep\":[\"</s>\",3]}}";
  static const char flags[] =
      "{\"bos_token\":\"<s>\",\"eos_token\":\"</s>\","
      "\"add_bos_token\":false,\"add_eos_token\":false}";
  put("tokenizer.json", post, sizeof post - 1);
  put("tokenizer_config.json", flags, sizeof flags - 1);
  assert_int_equal(ist_tokenizer_open_json(&t, folder, &err), IST_OK);
  assert_true(ist_tokenizer_add_bos(t) && ist_tokenizer_add_eos(t));
  ist_tokenizer_free(t);
  put("tokenizer.json", "{" MODEL "," ADDED "}", strlen("{" MODEL "," ADDED "}"));
  put("chat_template.jinja", "file", 4);
  assert_int_equal(ist_tokenizer_open_json(&t, folder, &err), IST_OK);
  assert_string_equal(ist_tokenizer_chat_template(t), "file");
  ist_tokenizer_free(t);
  put("tokenizer_config.json", "{", 1);
  assert_int_equal(ist_tokenizer_open_json(&t, folder, &err), IST_ERR_FORMAT);
  assert_non_null(strstr(err.message, "tokenizer_config.json"));
  put("tokenizer_config.json", NULL, 0);
  put("generation_config.json", NULL, 0);
  put("chat_template.jinja", NULL, 0);
}

/* What a post-processor puts around a text: as many tokens as it names, a name
 * standing for one or more; a pair's part and type ids mean nothing. */
static const struct {
  const char *post, *before, *behind, *says; /* says: the error */
} posts[] = {
#define TEMPLATE(single)                                                           \
  "{\"type\":\"TemplateProcessing\",\"single\":[" single                           \
  "],\"pair\":[{\"SpecialToken\":{\"id\":\"none\",\"type_id\":0}}],"               \
  "\"special_tokens\":{\"<s>\":{\"id\":\"<s>\",\"ids\":[4],\"tokens\":[\"<s>\"]}," \
  "\"two\":{\"id\":\"two\",\"ids\":[3,0],\"tokens\":[\"</s>\",\"a\"]},"            \
  "\"far\":{\"id\":\"far\",\"ids\":[5],\"tokens\":[\"x\"]}}}"
#define SPECIAL(id) "{\"SpecialToken\":{\"id\":\"" id "\",\"type_id\":1}}"
#define TEXT(id)    "{\"Sequence\":{\"id\":\"" id "\",\"type_id\":0}}"
    {"{\"type\":\"ByteLevel\"}", "", "", NULL},
    {TEMPLATE(TEXT("A")), "", "", NULL},
    {TEMPLATE(SPECIAL("<s>") "," TEXT("A")), "4", "", NULL},
    {TEMPLATE(
         SPECIAL("two") "," SPECIAL("<s>") "," TEXT("A") "," SPECIAL("<s>") "," SPECIAL("two")),
     "304", "430", NULL},
    {"{\"type\":\"Sequence\",\"processors\":[{\"type\":\"ByteLevel\"}," TEMPLATE(
         TEXT("A") "," SPECIAL("two")) "]}",
     "", "30", NULL},
    {"{\"type\":\"BertProcessing\",\"sep\":[\"</s>\",3],\"cls\":[\"<s>\",4]}", "4", "3", NULL},
    {"{\"type\":\"BertProcessing\",\"sep\":[\"</s>\",3]}", "", "", "'cls'"},
    {"{\"type\":\"Sequence\",\"processors\":[" TEMPLATE(SPECIAL("<s>") "," TEXT("A")) "," TEMPLATE(
         TEXT("A")) "]}",
     "", "", "a second post_processor"},
    {TEMPLATE(SPECIAL("none") "," TEXT("A")), "", "", "'none', which is no token"},
    {TEMPLATE(SPECIAL("far") "," TEXT("A")), "", "", "'far', which is no token"},
    {TEMPLATE(TEXT("B")), "", "", "Sequence A"},
    {TEMPLATE(TEXT("A") "," TEXT("A")), "", "", "part 2"},
    {TEMPLATE(SPECIAL("<s>")), "", "", "does not hold Sequence A"},
    {TEMPLATE("5"), "", "", "part 1"},
#undef TEMPLATE
#undef SPECIAL
#undef TEXT
};

static void expect_ids(const ist_ids *ids, const char *digits) {
  assert_int_equal(ids->n, strlen(digits));
  for (int64_t i = 0; i < ids->n; i++) assert_int_equal(ids->p[i], digits[i] - '0');
}

static void test_post_processors(void **state) {
  (void)state;
  for (size_t k = 0; k < sizeof posts / sizeof posts[0]; k++) {
    ist_error err = {0};
    ist_tokenizer *t = NULL;
    char json[2048];
    int n =
        snprintf(json, sizeof json, "{" MODEL "," ADDED ",\"post_processor\":%s}", posts[k].post);
    put("tokenizer.json", json, (size_t)n);
    ist_status status = ist_tokenizer_open_json(&t, folder, &err);
    if (posts[k].says) {
      assert_int_equal(status,
                       strstr(posts[k].says, "second") ? IST_ERR_UNSUPPORTED : IST_ERR_FORMAT);
      if (!strstr(err.message, posts[k].says)) fail_msg("%s: %s", posts[k].says, err.message);
      continue;
    }
    if (status != IST_OK) fail_msg("%s", err.message);
    expect_ids(ist_tokenizer_before(t), posts[k].before);
    expect_ids(ist_tokenizer_behind(t), posts[k].behind);
    ist_tokenizer_free(t);
  }
}

/* Cut and changed files give an error or a tokenizer, never harm. */
static void test_broken(void **state) {
  (void)state;
  ist_buf text = {0};
  assert_int_equal(ist_file_read(&text, GOLDEN "legacy/tokenizer.json", 1 << 20, NULL), IST_OK);
  ist_rng rng = ist_rng_stream(4, IST_RNG_SPLIT, 0, 0, 0);
  for (int i = 0; i < 300; i++) {
    char *copy = ist_strndup(text.p, text.len);
    size_t len = i % 3 ? text.len : (size_t)ist_rng_below(&rng, text.len);
    for (int k = 0; i % 3 && k < 3; k++)
      copy[ist_rng_below(&rng, len)] = "{}[]\",:0x\\n "[ist_rng_below(&rng, 12)];
    put("tokenizer.json", copy, len);
    ist_tokenizer *t = NULL;
    ist_ids ids = {0};
    ist_error err = {0};
    if (ist_tokenizer_open_json(&t, folder, &err) == IST_OK)
      ist_tokenizer_encode(t, "The text <s> x", 14, true, &ids, &err);
    ist_ids_free(&ids);
    ist_tokenizer_free(t);
    ist_free(copy);
  }
  ist_buf_free(&text);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_goldens), cmocka_unit_test(test_refused),
                                     cmocka_unit_test(test_configs),
                                     cmocka_unit_test(test_post_processors),
                                     cmocka_unit_test(test_broken)};
  return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
