/* Tokenizers made to cost their reader dear: expressions that match backwards or never end, steps
 * that multiply a text, tokens by the thousand. Each ends with an error or with its tokens, and
 * soon. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "tokenizer/tokenizer.h"

enum { SECONDS = 60 }; /* with sanitizers, on a busy machine; the process ends behind them */

static char folder[] = "/tmp/ist-test-limits-XXXXXX";

static int make_folder(void **state) {
  (void)state;
  return mkdtemp(folder) ? 0 : -1;
}
static int remove_folder(void **state) {
  (void)state;
  return ist_remove_tree(folder, NULL) == IST_OK ? 0 : -1;
}

/* ---- A tokenizer of four tokens: <unk>, a, b, ab ---- */

static const char none[] = "null";

/* The steps as JSON; `added`: added tokens, from id 4 on. */
static ist_status open_tokenizer(ist_tokenizer **t, const char *normalizer, const char *pre,
                                 const char *added, ist_error *err) {
  ist_buf b = {0};
  char *path = ist_path_join(folder, "tokenizer.json");
  ist_buf_str(&b,
              "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"<unk>\":0,\"a\":1,\"b\":2,\"ab\":3},"
              "\"merges\":[\"a b\"],\"unk_token\":\"<unk>\"},\"normalizer\":");
  ist_buf_str(&b, normalizer);
  ist_buf_str(&b, ",\"pre_tokenizer\":");
  ist_buf_str(&b, pre);
  ist_buf_str(&b, ",\"added_tokens\":");
  ist_buf_str(&b, added);
  ist_buf_str(&b, "}");
  assert_false(b.failed);
  assert_int_equal(ist_file_write(path, b.p, b.len, NULL), IST_OK);
  ist_free(path);
  ist_buf_free(&b);
  alarm(SECONDS);
  ist_status status = ist_tokenizer_open_json(t, folder, err);
  alarm(0);
  return status;
}

static ist_tokenizer *opened(const char *normalizer, const char *pre, const char *added) {
  ist_error err = {0};
  ist_tokenizer *t = NULL;
  if (open_tokenizer(&t, normalizer, pre, added, &err) != IST_OK) fail_msg("%s", err.message);
  return t;
}

static void not_opened(const char *normalizer, const char *pre, const char *added,
                       const char *says) {
  ist_error err = {0};
  ist_tokenizer *t = NULL;
  assert_int_not_equal(open_tokenizer(&t, normalizer, pre, added, &err), IST_OK);
  if (!strstr(err.message, says)) fail_msg("'%s', expected '%s'", err.message, says);
}

static ist_status encode(const ist_tokenizer *t, const char *text, size_t len, ist_ids *ids,
                         ist_error *err) {
  alarm(SECONDS);
  ist_status status = ist_tokenizer_encode(t, text, len, true, ids, err);
  alarm(0);
  return status;
}

/* The text is refused; frees the tokenizer. */
static void not_encoded(ist_tokenizer *t, const char *text, size_t len, const char *says) {
  ist_error err = {0};
  ist_ids ids = {0};
  assert_int_equal(encode(t, text, len, &ids, &err), IST_ERR_DATA);
  if (!strstr(err.message, says)) fail_msg("'%s', expected '%s'", err.message, says);
  assert_int_equal(ids.n, 0);
  ist_ids_free(&ids);
  ist_tokenizer_free(t);
}

/* `part`, n times. */
static ist_buf repeated(const char *part, size_t n) {
  ist_buf b = {0};
  for (size_t i = 0; i < n; i++) ist_buf_str(&b, part);
  assert_false(b.failed);
  return b;
}

/* ---- Regular expressions ---- */

#define SPLIT(pattern)                                    \
  "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"" pattern \
  "\"},\"behavior\":\"Isolated\","                        \
  "\"invert\":false}"

/* \K that a lookahead reaches through a subroutine: the match begins behind its end. */
#define BACKWARDS "(?(DEFINE)(b\\\\K))"

static void test_matches_backwards(void **state) {
  (void)state;
  static const char says[] = "matches bytes ";
  not_encoded(opened(none, SPLIT(BACKWARDS "a(?=(?1))"), "[]"), "ab a b", 6, says);
  not_encoded(opened("{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"" BACKWARDS
                     "(?=(?1))\"},\"content\":\"\"}",
                     none, "[]"),
              "ab a b", 6, says);
}

static void test_half_characters(void **state) {
  (void)state;
  not_opened(none, SPLIT("\\\\C"), "[]", "does not compile");
}

static void test_endless_matches(void **state) {
  (void)state;
  ist_buf text = repeated("a", 60);
  not_encoded(opened(none, SPLIT("(?:(?:a|a+)+)+[^ab]"), "[]"), text.p, text.len,
              "backtracks more than 4000000 times");
  ist_buf_free(&text);
  /* Every group makes a backtrack larger. */
  ist_buf pre = {0};
  ist_buf_str(&pre, "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"");
  for (int i = 0; i < 1000; i++) ist_buf_str(&pre, "()");
  ist_buf_str(&pre, "(?:(?:a|b)(?:a|c))+[^ab]\"},\"behavior\":\"Isolated\",\"invert\":false}");
  text = repeated("a", 300000);
  not_encoded(opened(none, pre.p, "[]"), text.p, text.len, "needs more than 65536 KiB");
  ist_buf_free(&text);
  ist_buf_free(&pre);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_matches_backwards),
      cmocka_unit_test(test_half_characters),
      cmocka_unit_test(test_endless_matches),
  };
  return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
