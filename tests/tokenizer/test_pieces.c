/* The splitting rules, piece by piece. */
#include "tokenizer/small_vocab.h"

#include "base/rng.h"
#include "tokenizer/internal.h"

/* The pieces of a text with '|' between them. */
static void split(ist_buf *out, const char *rule, const char *text, size_t len) {
  ist_error err = {0};
  ist_pre pre;
  const ist_pre_rule *r = ist_pre_rule_find((ist_str){rule, strlen(rule)});
  assert_non_null(r);
  assert_int_equal(ist_pre_from_rule(&pre, r, &err), IST_OK);
  ist_pieces it;
  assert_int_equal(ist_pieces_init(&it, &pre, &err), IST_OK);
  ist_pieces_start(&it, text, len, true, false);
  ist_buf_clear(out);
  for (;;) {
    const char *piece;
    size_t size;
    assert_int_equal(ist_pieces_next(&it, &piece, &size, &err), IST_OK);
    if (size == 0) break;
    if (out->len) ist_buf_str(out, "|");
    ist_buf_add(out, piece, size);
  }
  ist_pieces_free(&it);
  ist_pre_free(&pre);
}

static void check(const char *rule, const char *text, const char *expected) {
  ist_buf out = {0};
  split(&out, rule, text, strlen(text));
  if (!out.p || strcmp(out.p, expected) != 0)
    fail_msg("%s splits '%s' as '%s', expected '%s'", rule, text, out.p ? out.p : "", expected);
  ist_buf_free(&out);
}

static void test_gpt2(void **state) {
  (void)state;
  check("gpt-2", "Hello world", "Hello| world");
  check("gpt-2", "I'll don't WE'LL", "I|'ll| don|'t| WE|'|LL");
  check("gpt-2", "a  b", "a| | b");
  check("gpt-2", "a   1234 x", "a|  | 1234| x");
  check("gpt-2", "x \n\n y", "x| \n\n| y");
  check("gpt-2", "end  ", "end|  ");
  check("gpt-2", "f(x)+=1;", "f|(|x|)+=|1|;");
  check("gpt-2", "¿qué? привет 你好", "¿|qué|?| привет| 你好");
  check("gpt-2", "e\xcc\x81", "e|\xcc\x81"); /* a combining mark is no letter */
  check("gpt-2", "a\xc2\xa0\xc2\xa0z",
        "a|\xc2\xa0|\xc2\xa0|z");                       /* no-break spaces are white space */
  check("gpt-2", "a\xc2\x85z", "a|\xc2\x85|z");         /* so is U+0085 */
  check("gpt-2", "a\xe1\xa0\x8ez", "a|\xe1\xa0\x8e|z"); /* U+180E is a symbol ... */
  check("gpt-2", "!\xe1\xa0\x8e", "!\xe1\xa0\x8e");     /* ... and goes with symbols */
}

static void test_digits(void **state) {
  (void)state;
  static const char *const names[] = {"smollm",    "starcoder", "refact",
                                      "command-r", "codeshell", "exaone"};
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
    check(names[i], "in 1987", "in| |1|9|8|7");
    check(names[i], "a   7", "a|   |7"); /* spaces end at a digit as at the end of the text */
    check(names[i], "a   b", "a|  | b");
    check(names[i], "x12y", "x|1|2|y");
    check(names[i], "½ and Ⅷ٣", "½| and| |Ⅷ|٣"); /* all of Unicode's numbers */
    check(names[i], "it's 5's", "it|'s| |5|'s");
  }
}

static void test_llama3(void **state) {
  (void)state;
  static const char *const names[] = {"llama-bpe", "llama3", "llama-v3", "falcon3",
                                      "pixtral",   "lfm2",   "dbrx",     "smaug-bpe"};
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
    check(names[i], "I'LL we're don'Tx", "I|'LL| we|'re| don|'T|x");
    check(names[i], "1234567", "123|456|7");
    check(names[i], "a 1234", "a| |123|4");
    check(names[i], "(hello) +world", "(hello|)| +|world");
    check(names[i], "x\n  y", "x|\n| | y");
    check(names[i], "x  \n\n y", "x|  \n\n| y");
    check(names[i], "done.\r\nnext", "done|.\r\n|next");
    check(names[i], "if (a) {\n\treturn;", "if| (|a|)| {\n|\treturn|;");
  }
}

static void test_qwen2(void **state) {
  (void)state;
  check("qwen2", "I'LL 1234", "I|'LL| |1|2|3|4");
  check("deepseek-r1-qwen", "(hello)\n\n42", "(hello|)\n\n|4|2");
}

static void test_broken_utf8(void **state) {
  (void)state;
  check("gpt-2", "ab\xff\xfe cd", "ab|\xff|\xfe| cd");
  check("gpt-2", "ab  \xff", "ab|  |\xff");   /* a broken byte ends the text */
  check("gpt-2", "a\xe4\xbd", "a|\xe4|\xbd"); /* a character that is cut off */
  check("gpt-2", "\xc0\xaf\xed\xa0\x80", "\xc0|\xaf|\xed|\xa0|\x80"); /* overlong, surrogate */
  check("gpt-2", "\xf4\x90\x80\x80", "\xf4|\x90|\x80|\x80");          /* beyond U+10FFFF */
}

/* Every byte of any text is in exactly one piece, in order. */
static void test_cover(void **state) {
  (void)state;
  static const char *const names[] = {"gpt-2", "smollm", "llama-bpe", "qwen2"};
  ist_rng rng = ist_rng_stream(3, IST_RNG_TEST, 0, 0, 0);
  ist_buf out = {0};
  for (int k = 0; k < 400; k++) {
    char text[60];
    size_t len = 1 + ist_rng_below(&rng, sizeof text);
    for (size_t i = 0; i < len; i++) { /* not '|', which stands between pieces */
      static const char common[] = " \n\t\r'sA1\xe4\xbd\xa0\xc2\xa0.";
      uint64_t pick = ist_rng_below(&rng, 300);
      text[i] = pick < 256 && pick != '|' ? (char)pick : common[pick % (sizeof common - 1)];
    }
    split(&out, names[k % 4], text, len);
    size_t at = 0;
    for (size_t i = 0; i < out.len; i++) {
      if (out.p[i] == '|') continue;
      assert_true(at < len && out.p[i] == text[at]);
      at++;
    }
    assert_int_equal(at, len);
  }
  ist_buf_free(&out);
}

static void test_unknown(void **state) {
  (void)state;
  assert_null(ist_pre_rule_find((ist_str){"smoll", 5}));
  assert_null(ist_pre_rule_find((ist_str){"smollm2", 7}));
  assert_null(ist_pre_rule_find((ist_str){"", 0}));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_gpt2),        cmocka_unit_test(test_digits),
      cmocka_unit_test(test_llama3),      cmocka_unit_test(test_qwen2),
      cmocka_unit_test(test_broken_utf8), cmocka_unit_test(test_cover),
      cmocka_unit_test(test_unknown),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
