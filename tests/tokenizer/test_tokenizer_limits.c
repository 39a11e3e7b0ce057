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
#include "hang.h"
#include "tokenizer/internal.h"

enum { SECONDS = 60 }; /* with sanitizers */

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
  hang_after(SECONDS);
  ist_status status = ist_tokenizer_open_json(t, folder, err);
  hang_after(0);
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
  hang_after(SECONDS);
  ist_status status = ist_tokenizer_encode(t, text, len, true, ids, err);
  hang_after(0);
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

/* `count` objects of a Sequence. */
static ist_buf sequence(const char *list, const char *item, int count) {
  ist_buf b = {0};
  ist_buf_printf(&b, "{\"type\":\"Sequence\",\"%s\":[", list);
  for (int i = 0; i < count; i++) ist_buf_printf(&b, "%s%s", i ? "," : "", item);
  ist_buf_str(&b, "]}");
  assert_false(b.failed);
  return b;
}

/* ---- Regular expressions ---- */

#define SPLIT(pattern)                                    \
  "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"" pattern \
  "\"},\"behavior\":\"Isolated\","                        \
  "\"invert\":false}"

static void test_half_characters(void **state) {
  (void)state;
  not_opened(none, SPLIT("\\\\C"), "[]", "the escape '\\C'");
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

/* Each match is below the limit, but there is one to try at every place. */
static void test_much_work_everywhere(void **state) {
  (void)state;
  static const char says[] = "take too long";
  ist_buf text = repeated("a", 20000);
  not_encoded(opened(none, SPLIT("(?:a|b){0,2000}[^ab]"), "[]"), text.p, text.len, says);
  not_encoded(opened("{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"(?:a|b){0,2000}[^ab]\"},"
                     "\"content\":\"\"}",
                     none, "[]"),
              text.p, text.len, says);
  /* Deeper than machine code has stack for. */
  not_encoded(opened(none, SPLIT("(a|b)*[^ab]"), "[]"), text.p, text.len, says);
  ist_buf_free(&text);
}

/* What tokenizers ask for, in long runs of white space. */
static void test_much_white_space(void **state) {
  (void)state;
  ist_tokenizer *t = opened(none, SPLIT("\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+|a"), "[]");
  ist_ids ids = {0};
  ist_buf text = repeated(" ", 1000000);
  ist_buf_str(&text, "a");
  assert_int_equal(encode(t, text.p, text.len, &ids, NULL), IST_OK);
  assert_int_equal(ids.p[ids.n - 1], 1);
  ist_tokenizer_free(t);
  t = opened(none, SPLIT("\\\\s+$"), "[]");
  assert_int_equal(encode(t, text.p, text.len, &ids, NULL), IST_OK);
  ist_tokenizer_free(t);
  ist_ids_free(&ids);
  ist_buf_free(&text);
}

/* A search that is watched finds what one that is not would. */
static void test_watched_matches(void **state) {
  (void)state;
  static const char pattern[] = "(?:a|b)*b";
  ist_buf text = {0}, as = repeated("a", 3000);
  ist_buf_printf(&text, "b%s\u00f6\u6f22%sb%s", as.p, as.p, as.p);
  ist_regex r;
  assert_int_equal(ist_regex_compile(&r, pattern, strlen(pattern), false, NULL), IST_OK);
  ist_regex_match *m = ist_regex_match_new(&r);
  for (int jit = r.jit; jit >= 0; jit--) {
    r.jit = jit;
    ist_growth growth = ist_growth_of(text.len);
    ist_regex_hit hit = {0};
    assert_int_equal(ist_regex_next(&r, m, text.p, text.len, &hit, &growth, NULL), IST_OK);
    assert_int_equal(hit.begin, 0);
    assert_int_equal(hit.end, 1);
    assert_int_equal(ist_regex_next(&r, m, text.p, text.len, &hit, &growth, NULL), IST_OK);
    assert_int_equal(hit.begin, 3006);
    assert_int_equal(hit.end, 6007);
    assert_int_equal(ist_regex_next(&r, m, text.p, text.len, &hit, &growth, NULL), IST_OK);
    assert_false(hit.found);
    assert_int_equal(hit.begin, text.len);
    assert_true(growth.seconds < ist_growth_of(text.len).seconds);
    growth.seconds = 0;
    hit = (ist_regex_hit){0, 1, true};
    assert_int_equal(ist_regex_next(&r, m, text.p, text.len, &hit, &growth, NULL), IST_ERR_DATA);
  }
  ist_regex_match_free(m);
  ist_regex_free(&r);
  ist_buf_free(&text);
  ist_buf_free(&as);
}

static void test_long_expressions(void **state) {
  (void)state;
  ist_buf as = repeated("a", 4097), one = {0};
  ist_buf_printf(&one, SPLIT("%s"), as.p);
  not_opened(none, one.p, "[]", "a regular expression of 4097 bytes, expected at most 4096");
  ist_buf_clear(&one);
  ist_buf_printf(&one, SPLIT("%s"), as.p + 1);
  ist_buf replace = {0}, two = sequence("pretokenizers", one.p, 2);
  ist_tokenizer_free(opened(none, two.p, "[]"));
  ist_buf_str(&replace, "{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"a\"},\"content\":\"\"}");
  not_opened(replace.p, two.p, "[]", "regular expressions of more than 8192 bytes in all");
  ist_buf_free(&as);
  ist_buf_free(&one);
  ist_buf_free(&two);
  ist_buf_free(&replace);
}

/* ---- Steps that multiply ---- */

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

/* A special token that stands for many, named often. */
static void test_post_processor_that_multiplies(void **state) {
  (void)state;
  for (int more = 0; more < 2; more++) {
    ist_buf b = {0};
    ist_buf_str(&b,
                "[],\"post_processor\":{\"type\":\"TemplateProcessing\",\"special_tokens\":"
                "{\"x\":{\"id\":\"x\",\"ids\":[1");
    for (int i = 1; i < 16; i++) ist_buf_str(&b, ",1");
    ist_buf_str(&b, "]}},\"single\":[{\"Sequence\":{\"id\":\"A\"}}");
    for (int i = 0; i < 16 + more; i++) ist_buf_str(&b, ",{\"SpecialToken\":{\"id\":\"x\"}}");
    ist_buf_str(&b, "]}");
    if (more)
      not_opened(none, none, b.p, "more than 256 tokens before or behind");
    else
      ist_tokenizer_free(opened(none, none, b.p));
    ist_buf_free(&b);
  }
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

/* ---- Special tokens ---- */

enum { NESTED = 999, LETTERS = 200000 };

static void test_long_special_tokens(void **state) {
  (void)state;
  ist_buf added = {0}, as = repeated("a", 1024);
  for (int more = 0; more < 2; more++) {
    ist_buf_clear(&added);
    ist_buf_printf(&added,
                   "[{\"id\":4,\"content\":\"%sb%s\",\"special\":false,\"normalized\":false}]",
                   as.p + 1, more ? "c" : "");
    if (more) {
      not_opened(none, none, added.p, "special token 4: its text has 1025 bytes, expected at most");
      continue;
    }
    /* Nearly a match at every place. */
    ist_tokenizer *t = opened(none, none, added.p);
    ist_buf text = repeated("a", LETTERS);
    ist_ids ids = {0};
    assert_int_equal(encode(t, text.p, text.len, &ids, NULL), IST_OK);
    assert_int_equal(ids.n, LETTERS);
    ist_ids_free(&ids);
    ist_buf_free(&text);
    ist_tokenizer_free(t);
  }
  ist_buf_free(&added);
  ist_buf_free(&as);
}

/* Tokens a, aa, aaa, ...: at every place there are all of them. */
static void test_nested_special_tokens(void **state) {
  (void)state;
  ist_buf text = repeated("a", LETTERS);
  uint16_t flags[NESTED + 1];
  ist_specials s = {0};
  ist_vocab v = {.n = NESTED + 1, .flags = flags};
  for (int32_t i = 1; i <= NESTED; i++) {
    flags[i] = IST_TOKEN_USER;
    assert_int_equal(ist_specials_add(&s, text.p, (size_t)i, i, NULL), IST_OK);
  }
  ist_special_hits hits = {0};
  const ist_special_query q = {.text = text.p, .len = text.len};
  hang_after(SECONDS);
  assert_int_equal(ist_specials_find(&s, &v, &q, &hits, NULL), IST_OK);
  hang_after(0);
  assert_int_equal(hits.n, LETTERS / NESTED + 1);
  assert_true(hits.cap <= 2 * LETTERS);
  for (int64_t i = 0; i < hits.n; i++) {
    assert_int_equal(hits.p[i].at, i * NESTED);
    assert_int_equal(hits.p[i].len, i + 1 < hits.n ? NESTED : LETTERS % NESTED);
  }
  ist_free(hits.p);
  ist_specials_free(&s);
  ist_buf_free(&text);
}

/* The plain way to cut out the longest first: of all tokens at all places that count, again and
 * again the longest, then the one of the lowest id, then the first, that overlaps none before. */
static int choose_plainly(const ist_str *token, const uint16_t *flags, int n,
                          const ist_special_query *q, ist_special_hit *out) {
  int kept = 0;
  for (;;) {
    ist_special_hit best = {0, 0, -1};
    for (int id = 0; id < n; id++)
      for (size_t at = 0; at + token[id].len <= q->len; at++) {
        bool fits = memcmp(q->text + at, token[id].p, token[id].len) == 0;
        if ((flags[id] & IST_TOKEN_CONTROL) && memchr(q->literal + at, 0, token[id].len))
          fits = false;
        for (int k = 0; k < kept; k++)
          if ((int32_t)at < out[k].at + out[k].len && out[k].at < (int32_t)(at + token[id].len))
            fits = false;
        if (fits && (int32_t)token[id].len > best.len)
          best = (ist_special_hit){(int32_t)at, (int32_t)token[id].len, id};
      }
    if (best.id < 0) return kept;
    int at = kept++;
    for (; at > 0 && out[at - 1].at > best.at; at--) out[at] = out[at - 1];
    out[at] = best;
  }
}

static void test_longest_special_tokens(void **state) {
  (void)state;
  static const char *const texts[] = {"a", "ab", "aba", "bab", "bb", "abba", "ba", "aa", "babb"};
  enum { TOKENS = sizeof texts / sizeof texts[0], LONGEST = 24 };
  ist_str token[TOKENS];
  uint16_t flags[TOKENS];
  ist_rng rng = ist_rng_stream(6, IST_RNG_SPLIT, 0, 0, 0);
  ist_special_hits hits = {0};
  for (int i = 0; i < 20000; i++) {
    ist_specials s = {0};
    int n = 1 + (int)ist_rng_below(&rng, TOKENS), first = (int)ist_rng_below(&rng, TOKENS);
    for (int id = 0; id < n; id++) {
      const char *text = texts[(first + id) % TOKENS];
      token[id] = (ist_str){text, strlen(text)};
      flags[id] = ist_rng_below(&rng, 3) ? IST_TOKEN_USER : IST_TOKEN_CONTROL;
      assert_int_equal(ist_specials_add(&s, text, token[id].len, id, NULL), IST_OK);
    }
    char text[LONGEST];
    uint8_t literal[LONGEST];
    size_t len = 1 + (size_t)ist_rng_below(&rng, LONGEST);
    for (size_t k = 0; k < len; k++) {
      text[k] = "aabbc"[ist_rng_below(&rng, 5)];
      literal[k] = ist_rng_below(&rng, 8) > 0;
    }
    const ist_special_query q = {.text = text, .len = len, .literal = literal};
    const ist_vocab v = {.n = n, .flags = flags};
    ist_special_hit want[LONGEST];
    int kept = choose_plainly(token, flags, n, &q, want);
    assert_int_equal(ist_specials_find(&s, &v, &q, &hits, NULL), IST_OK);
    assert_int_equal(hits.n, kept);
    assert_memory_equal(hits.p, want, (size_t)kept * sizeof want[0]);
    ist_specials_free(&s);
  }
  ist_free(hits.p);
}

/* ---- Vocabularies ---- */

/* SentencePiece's merges of a vocabulary of "a" and `n` tokens of `len` bytes. */
static ist_status merges_of_long_tokens(int32_t n, size_t len, ist_error *err) {
  ist_buf blob = {0};
  ist_str *text = ist_calloc((size_t)n + 1, sizeof *text);
  double *score = ist_calloc((size_t)n + 1, sizeof *score);
  for (int32_t i = 0; i < n; i++)
    for (size_t k = 0; k < len; k++) ist_buf_str(&blob, k == (size_t)i ? "b" : "a");
  text[n] = (ist_str){"a", 1};
  for (int32_t i = 0; i < n; i++) text[i] = (ist_str){blob.p + (size_t)i * len, len};
  const ist_tokens tokens = {.path = "test", .text = text, .n = n + 1};
  ist_vocab v;
  ist_bpe b = {0};
  assert_int_equal(ist_vocab_begin(&v, n + 1, err), IST_OK);
  assert_int_equal(ist_vocab_finish(&v, &tokens, err), IST_OK);
  hang_after(SECONDS);
  ist_status status = ist_bpe_from_scores(&b, &v, score, err);
  hang_after(0);
  ist_bpe_free(&b);
  ist_vocab_free(&v);
  ist_free(text);
  ist_free(score);
  ist_buf_free(&blob);
  return status;
}

static void test_long_tokens(void **state) {
  (void)state;
  ist_error err = {0};
  assert_int_equal(merges_of_long_tokens(100, 65536, &err), IST_OK);
  assert_int_equal(merges_of_long_tokens(1, 65537, &err), IST_ERR_UNSUPPORTED);
  assert_non_null(strstr(err.message, "token 0 has 65537 bytes, expected at most 65536"));
}

/* ---- Tables ---- */

/* 2^17 texts, each made of 17 blocks out of two that a hash by multiplications without a key
 * takes for one another: their difference stays in the upper bits. */
static void test_texts_that_collide(void **state) {
  (void)state;
  enum { BLOCKS = 17, TEXTS = 1 << BLOCKS };
  uint64_t(*words)[2 * BLOCKS] = ist_calloc(TEXTS, sizeof *words);
  ist_str *text = ist_calloc(TEXTS, sizeof *text);
  ist_strtab t;
  for (uint64_t i = 0; i < TEXTS; i++) {
    for (int k = 0; k < BLOCKS; k++)
      if (i >> k & 1) {
        words[i][2 * k] = UINT64_C(1) << 63;
        words[i][2 * k + 1] = UINT64_C(1) << 63 | UINT64_C(1) << 34;
      }
    text[i] = (ist_str){(const char *)words[i], sizeof words[i]};
  }
  assert_int_equal(ist_strtab_init(&t, text, TEXTS, NULL), IST_OK);
  hang_after(SECONDS);
  for (int32_t i = 0; i < TEXTS; i++) assert_int_equal(ist_strtab_add(&t, i), -1);
  hang_after(0);
  for (int32_t i = 0; i < TEXTS; i++)
    assert_int_equal(ist_strtab_find(&t, text[i].p, text[i].len), i);
  ist_strtab_free(&t);
  ist_free(words);
  ist_free(text);
}

/* Pairs whose product with the golden ratio's 64 bits is small: one place for all, without a key.
 */
static void test_merges_that_collide(void **state) {
  (void)state;
  enum { MERGES = 4096 };
  const uint64_t golden = UINT64_C(0x9E3779B97F4A7C15);
  uint64_t inverse = 1; /* of golden, by Newton's steps */
  for (int i = 0; i < 6; i++) inverse *= 2 - golden * inverse;
  ist_bpe b;
  assert_int_equal(ist_bpe_begin(&b, MERGES, NULL), IST_OK);
  for (uint64_t i = 0; i < MERGES; i++) {
    uint64_t pair = i * inverse;
    int32_t left = (int32_t)(uint32_t)(pair >> 32), right = (int32_t)(uint32_t)pair;
    *ist_bpe_probe(&b, left, right) = (struct ist_merge){left, right, 0, (uint32_t)i};
    assert_int_equal(ist_bpe_probe(&b, left, right)->rank, i);
  }
  uint32_t longest = 0, run = 0; /* of places that are taken */
  for (uint32_t i = 0; i <= b.mask; i++) {
    run = b.merge[i].rank != IST_NO_MERGE ? run + 1 : 0;
    if (run > longest) longest = run;
  }
  assert_true(longest < MERGES / 4);
  ist_bpe_free(&b);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_half_characters),
      cmocka_unit_test(test_endless_matches),
      cmocka_unit_test(test_much_work_everywhere),
      cmocka_unit_test(test_much_white_space),
      cmocka_unit_test(test_watched_matches),
      cmocka_unit_test(test_long_expressions),
      cmocka_unit_test(test_normalizers_that_multiply),
      cmocka_unit_test(test_marks_that_multiply),
      cmocka_unit_test(test_decoder_that_multiplies),
      cmocka_unit_test(test_post_processor_that_multiplies),
      cmocka_unit_test(test_forms_of_marks),
      cmocka_unit_test(test_long_run_of_marks),
      cmocka_unit_test(test_long_special_tokens),
      cmocka_unit_test(test_nested_special_tokens),
      cmocka_unit_test(test_longest_special_tokens),
      cmocka_unit_test(test_long_tokens),
      cmocka_unit_test(test_texts_that_collide),
      cmocka_unit_test(test_merges_that_collide),
  };
  return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
