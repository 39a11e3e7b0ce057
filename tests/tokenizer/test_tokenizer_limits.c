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

#include <utf8proc.h>

#include "base/file.h"
#include "base/rng.h"
#include "tokenizer/internal.h"

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

/* ---- Steps that multiply ---- */

/* `count` objects of a Sequence. */
static ist_buf sequence(const char *list, const char *item, int count) {
  ist_buf b = {0};
  ist_buf_printf(&b, "{\"type\":\"Sequence\",\"%s\":[", list);
  for (int i = 0; i < count; i++) ist_buf_printf(&b, "%s%s", i ? "," : "", item);
  ist_buf_str(&b, "]}");
  assert_false(b.failed);
  return b;
}

static ist_buf replace_by_thousand(const char *kind, const char *pattern) {
  ist_buf b = {0}, as = repeated("a", 1000);
  ist_buf_printf(&b, "{\"type\":\"Replace\",\"pattern\":{\"%s\":\"%s\"},\"content\":\"%s\"}", kind,
                 pattern, as.p);
  ist_buf_free(&as);
  return b;
}

#define ADDED(normalized)                                                                   \
  "[{\"id\":4,\"content\":\"aa\",\"special\":false,\"single_word\":false,\"lstrip\":false," \
  "\"rstrip\":false,\"normalized\":" normalized "}]"

static void test_normalizers_that_multiply(void **state) {
  (void)state;
  static const char says[] = "adds more than 1048640 bytes to a text of 1";
  ist_buf text = replace_by_thousand("String", "a"), four = sequence("normalizers", text.p, 4);
  not_encoded(opened(four.p, none, "[]"), "a", 1, says);
  not_opened(four.p, none, ADDED("true"), "special token 4: the tokenizer's normalizer");
  ist_buf_free(&text);
  ist_buf_free(&four);
  text = replace_by_thousand("Regex", "[ab]");
  four = sequence("normalizers", text.p, 4);
  not_encoded(opened(four.p, none, "[]"), "b", 1, says);
  ist_buf_free(&text);
  ist_buf_free(&four);
}

#define MARKS                                                            \
  "{\"type\":\"Metaspace\",\"replacement\":\"       \",\"split\":false," \
  "\"prepend_scheme\":\"never\"}"

static void test_marks_that_multiply(void **state) {
  (void)state;
  ist_buf twelve = sequence("pretokenizers", MARKS, 12);
  not_encoded(opened(none, twelve.p, "[]"), " ", 1, "adds more than 1048640 bytes to a text of 1");
  ist_buf_free(&twelve);
  /* Many small pieces together, each below the limit. */
  ist_buf steps = {0};
  ist_buf_str(&steps, SPLIT(" "));
  for (int i = 0; i < 6; i++) ist_buf_str(&steps, "," MARKS);
  ist_buf split = sequence("pretokenizers", steps.p, 1), text = repeated(" ", 2000);
  not_encoded(opened(none, split.p, "[]"), text.p, text.len,
              "adds more than 1176576 bytes to a text of 2000");
  ist_buf_free(&text);
  ist_buf_free(&split);
  ist_buf_free(&steps);
  /* What tokenizers do: three bytes for a space. */
  ist_tokenizer *t = opened(none,
                            "{\"type\":\"Metaspace\",\"replacement\":\"\u2581\",\"split\":false,"
                            "\"prepend_scheme\":\"always\"}",
                            "[]");
  ist_ids ids = {0};
  text = repeated("ab ", 100000);
  assert_int_equal(encode(t, text.p, text.len, &ids, NULL), IST_OK);
  ist_ids_free(&ids);
  ist_buf_free(&text);
  ist_tokenizer_free(t);
}

static void test_decoder_that_multiplies(void **state) {
  (void)state;
  ist_buf b = {0};
  ist_buf_str(
      &b, "null,\"decoder\":{\"type\":\"Replace\",\"pattern\":{\"String\":\"a\"},\"content\":\"");
  for (int i = 0; i < 1000; i++) ist_buf_str(&b, "a");
  ist_buf_str(&b, "\"}");
  not_opened(none, b.p, "[]", "writes 1000 bytes for 1, expected at most 64 times as many");
  ist_buf_free(&b);
}

/* ---- Unicode forms ---- */

/* Against utf8proc's own, on letters with many marks of several classes. */
static void test_forms_of_marks(void **state) {
  (void)state;
  static const int32_t chars[] = {'a',    'e',    ' ',    0xe9,  0x301,  0x323,
                                  0x31b,  0x327,  0x345,  0x5b4, 0x1e69, 0xac00,
                                  0x1100, 0x1161, 0x11a8, 0x344, 0xfb01};
  enum { CHARS = sizeof chars / sizeof chars[0] };
  ist_rng rng = ist_rng_stream(5, IST_RNG_SPLIT, 0, 0, 0);
  ist_buf text = {0}, spare = {0};
  for (int i = 0; i < 4000; i++) {
    ist_norm norm = {.n = 1};
    norm.step[0].kind = (ist_norm_kind)(IST_NORM_NFC + i % 4);
    ist_growth growth = ist_growth_of(1000);
    ist_buf_clear(&text);
    for (uint64_t k = 1 + ist_rng_below(&rng, 30); k > 0; k--) {
      utf8proc_uint8_t bytes[4];
      ist_buf_add(&text, bytes,
                  (size_t)utf8proc_encode_char(chars[ist_rng_below(&rng, CHARS)], bytes));
    }
    utf8proc_uint8_t *(*const forms[])(const utf8proc_uint8_t *) = {utf8proc_NFC, utf8proc_NFD,
                                                                    utf8proc_NFKC, utf8proc_NFKD};
    char *want = (char *)forms[i % 4]((const utf8proc_uint8_t *)text.p);
    assert_int_equal(ist_norm_apply(&norm, &text, &spare, false, &growth, NULL), IST_OK);
    assert_string_equal(text.p, want);
    free(want);
  }
  ist_buf_free(&text);
  ist_buf_free(&spare);
}

static void test_long_run_of_marks(void **state) {
  (void)state;
  ist_tokenizer *t = opened("{\"type\":\"NFC\"}", none, "[]");
  ist_buf text = repeated("\xcc\x81\xcc\xa3", 100000);
  ist_ids ids = {0};
  assert_int_equal(encode(t, text.p, text.len, &ids, NULL), IST_OK);
  ist_ids_free(&ids);
  ist_buf_free(&text);
  ist_tokenizer_free(t);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_matches_backwards),   cmocka_unit_test(test_half_characters),
      cmocka_unit_test(test_endless_matches),     cmocka_unit_test(test_normalizers_that_multiply),
      cmocka_unit_test(test_marks_that_multiply), cmocka_unit_test(test_decoder_that_multiplies),
      cmocka_unit_test(test_forms_of_marks),      cmocka_unit_test(test_long_run_of_marks),
  };
  return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
