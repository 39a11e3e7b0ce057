/* Oniguruma's notation: what HF tokenizers 0.23.3 splits by the same expressions, and what is
 * refused by name. */
#include "tokenizer/pieces.h"
#include "tokenizer/small_vocab.h"

#include "tokenizer/internal.h"

/* The pieces with ~ between them. */
static const struct {
  const char *pattern;
  ist_split_behavior behavior;
  const char *text, *want;
} splits[] = {
    {"\\p{N}{1,3}+", IST_SPLIT_ISOLATED, "1234567 12", "1234567~ ~12"},
    {"a{2}+", IST_SPLIT_ISOLATED, "aaaaa", "aaaa~a"},
    {"a{2}?b", IST_SPLIT_ISOLATED, "ab aab", "a~b~ ~aab"},
    {"a{1,2}?", IST_SPLIT_ISOLATED, "aaa", "a~a~a"},
    {"a{,2}b", IST_SPLIT_ISOLATED, "aaab-b", "a~aab~-~b"},
    {"a{b", IST_SPLIT_ISOLATED, "a{b", "a{b"},
    {"a{1,2}{2}", IST_SPLIT_ISOLATED, "aaaaa", "aaaa~a"},
    {"\\s+$", IST_SPLIT_ISOLATED, "a  \nb  \nc ", "a~  ~\nb~  ~\nc~ "},
    {"^.", IST_SPLIT_ISOLATED, "ab\nab\n", "a~b\n~a~b\n"},
    {"a$", IST_SPLIT_ISOLATED, "a\na\n", "a~\n~a~\n"},
    {"a\\Z", IST_SPLIT_ISOLATED, "a\na\n", "a\n~a~\n"},
    {"a\\z", IST_SPLIT_ISOLATED, "a\na", "a\n~a"},
    {"\\Aa", IST_SPLIT_ISOLATED, "aa\na", "a~a\na"},
    {".+", IST_SPLIT_ISOLATED, "a\rb\342\200\250c\nd", "a\rb\342\200\250c~\n~d"},
    {"(?m)a.b|c", IST_SPLIT_ISOLATED, "a\nbc", "a\nb~c"},
    {"(?m:a.)b.", IST_SPLIT_ISOLATED, "a\nb\n", "a\nb\n"},
    {"(?m:a\\Nb)", IST_SPLIT_ISOLATED, "a\nb", "a\nb"},
    {"(?-mix:a.)", IST_SPLIT_ISOLATED, "a\nab", "a\n~ab"},
    {"\\w+", IST_SPLIT_ISOLATED, "हिन्दी, x²y a_b", "हिन्दी~, ~x²y~ ~a_b"},
    {"[\\w]+", IST_SPLIT_ISOLATED, "x²y Ⓐb", "x~²~y~ ~Ⓐb"},
    {"\\W+", IST_SPLIT_ISOLATED, "a²-_b\342\200\215c", "a²~-~_b~\342\200\215~c"},
    {"[^\\w\\s]+", IST_SPLIT_ISOLATED, "हिन्दी!?", "हिन्दी~!?"},
    {"[[:word:]]+", IST_SPLIT_ISOLATED, "a\314\201b²c", "a\314\201b~²~c"},
    {"[[:alnum:]]+", IST_SPLIT_ISOLATED, "a\314\201b²c", "a~\314\201~b~²~c"},
    {"[[:^alpha:]]+", IST_SPLIT_ISOLATED, "ab12 c", "ab~12 ~c"},
    {"[[:punct:]]+", IST_SPLIT_ISOLATED, "a$+b、", "a~$+~b~、"},
    {"[[:print:]]+", IST_SPLIT_ISOLATED, "a b\342\200\250c\001d", "a b~\342\200\250~c~\001~d"},
    {"[[:graph:]]+", IST_SPLIT_ISOLATED, "a b\302\240c", "a~ ~b~\302\240~c"},
    {"[\\v]+", IST_SPLIT_ISOLATED, "a\nb\013c", "a\nb~\013~c"},
    {"\\H+", IST_SPLIT_ISOLATED, "ag a ag", "a~g ~a~ ~a~g"},
    {"\\h+", IST_SPLIT_ISOLATED, "09afG-0", "09af~G-~0"},
    {"[\\H]+", IST_SPLIT_ISOLATED, "ag", "a~g"},
    {"\\R", IST_SPLIT_ISOLATED, "a\r\nb\n\302\205", "a~\r\n~b~\n~\302\205"},
    {"\\p{Han}+", IST_SPLIT_ISOLATED, "a中文、b", "a~中文~、b"},
    {"\\p{^Han}+", IST_SPLIT_ISOLATED, "a中文b", "a~中文~b"},
    {"\\P{Lowercase_Letter}+", IST_SPLIT_ISOLATED, "abCDé", "ab~CD~é"},
    {"[\\P{L}x]+", IST_SPLIT_ISOLATED, "ax1-b", "a~x1-~b"},
    {"[a&&b]", IST_SPLIT_ISOLATED, "ab", "ab"},
    {"[a-w&&[^c-g]z]+", IST_SPLIT_ISOLATED, "abcdhz", "ab~cd~h~z"},
    {"[\\p{L}\\p{M}&&[^\\p{Han}]]+", IST_SPLIT_ISOLATED, "ab中文c\314\201", "ab~中文~c\314\201"},
    {"[^a-z&&[^x]]+", IST_SPLIT_ISOLATED, "ab1xC", "ab~1xC"},
    {"[a[^b]]+", IST_SPLIT_ISOLATED, "abcb", "a~b~c~b"},
    {"[^a[^b-d]]+", IST_SPLIT_ISOLATED, "abcde", "a~bcd~e"},
    {"[]x]+", IST_SPLIT_ISOLATED, "a]x]b", "a~]x]~b"},
    {"[^]x]+", IST_SPLIT_ISOLATED, "a]x]b", "a~]x]~b"},
    {"[]-a]+", IST_SPLIT_ISOLATED, "]^_`ab", "]^_`a~b"},
    {"[a-c-e]+", IST_SPLIT_ISOLATED, "abd-e", "ab~d~-e"},
    {"[-a]+", IST_SPLIT_ISOLATED, "a-b", "a-~b"},
    {"[\\x{61}\\u0062\\-]+", IST_SPLIT_ISOLATED, "a-bc", "a-b~c"},
    {"[\\b]", IST_SPLIT_ISOLATED, "a\010b", "a~\010~b"},
    {"[(\\s|[.,])]+", IST_SPLIT_ISOLATED, "a (.|", "a~ (.|"},
    {"(?i:'s|'ll)", IST_SPLIT_ISOLATED, "a'S b'\305\277 c'LL", "a~'S~ b~'\305\277~ c~'LL"},
    {"(?i)k|[a-c]", IST_SPLIT_ISOLATED, "K\342\204\252Bd", "K~\342\204\252~B~d"},
    {"a(?i)b|c", IST_SPLIT_ISOLATED, "abcabC aC", "ab~c~ab~C ~aC"},
    {"(?i:\\p{Lu})", IST_SPLIT_ISOLATED, "aB", "a~B"},
    {"(?i:[’']s)", IST_SPLIT_ISOLATED, "a’S b", "a~’S~ b"},
    {"(?=[A-Z])", IST_SPLIT_ISOLATED, "aBaBaB", "a~Ba~Ba~B"},
    {"x*", IST_SPLIT_ISOLATED, "ababxxab", "a~b~a~b~xx~a~b"},
    {"\\b", IST_SPLIT_ISOLATED, "ab cd²", "ab~ ~cd²"},
    {"\\B", IST_SPLIT_ISOLATED, "ab c", "a~b c"},
    {"\\d{1,3}(?=(?:\\d{3})*\\b)", IST_SPLIT_ISOLATED, "1234567 x1234 12345x",
     "1~234~567~ x~1~234~ 12345x"},
    {"(?=(\\d{3})+(?!\\d))", IST_SPLIT_ISOLATED, "1234567 12", "1~234~567 12"},
    {"(?<=a|bc)d", IST_SPLIT_ISOLATED, "adbcdd", "a~d~bc~d~d"},
    {"(?<n>a)(b)", IST_SPLIT_ISOLATED, "abc", "ab~c"},
    {"(?>a+)b|a", IST_SPLIT_ISOLATED, "aab aa", "aab~ ~a~a"},
    {"a*+a|b", IST_SPLIT_ISOLATED, "aab", "aa~b"},
    {"a|", IST_SPLIT_ISOLATED, "ba", "b~a"},
};

static void test_splits(void **state) {
  (void)state;
  for (size_t k = 0; k < sizeof splits / sizeof splits[0]; k++) {
    const char *text = splits[k].text, *want = splits[k].want;
    ist_error err = {0};
    ist_pre pre = {0};
    if (ist_pre_add_regex(&pre, IST_PRE_SPLIT, splits[k].pattern, splits[k].behavior, &err) !=
        IST_OK)
      fail_msg("%s", err.message);
    ist_buf out = join_pieces(&pre, text, "~");
    if (out.len != strlen(want) || memcmp(out.p, want, out.len) != 0)
      fail_msg("%s, behavior %d: '%s' gives '%s', expected '%s'", splits[k].pattern,
               (int)splits[k].behavior, text, out.p, want);
    ist_pre_free(&pre);
    ist_buf_free(&out);
  }
}

static const struct {
  const char *pattern, *says;
} refused[] = {
    {"\\Ga", "has the escape '\\G', which is not supported"},
    {"a\\Kb", "the escape '\\K'"},
    {"\\X", "the escape '\\X'"},
    {"(a)\\1", "the escape '\\1'"},
    {"(a)\\g<1>", "the escape '\\g'"},
    {"\\pL", "the escape '\\p'"},
    {"\\p{L", "the escape '\\p'"},
    {"\\Q.\\E", "the escape '\\Q'"},
    {"\\C", "the escape '\\C'"},
    {"\\xe9", "the escape '\\xe9'"},
    {"\\u12", "the escape '\\u12'"},
    {"\\x{110000}", "the escape '\\x{110000}'"},
    {"\\x{d800}", "the escape '\\x{d800}'"},
    {"a\\", "nothing behind '\\'"},
    {"\\p{L=1}", "the property '\\p{L=1}'"},
    {"\\p{Nothing}", "does not compile"},
    {"(?x)a", "the group '(?x'"},
    {"(?~a)", "the group '(?~'"},
    {"(?#a)", "the group '(?#'"},
    {"(?i", "the group '(?i'"},
    {"(?P<n>a)", "the group '(?P'"},
    {"(*FAIL)", "the callout '(*'"},
    {"(?<!(?<!|b))a", "in a look-behind another '(?<!'"},
    {"(a", "does not compile"},
    {"a)", "does not compile"},
    {"a{2,1}", "does not compile"},
    {"a+*", "the stacked quantifiers '+*'"},
    {"*a", "nothing to repeat before '*'"},
    {"^*", "nothing to repeat before '*'"},
    {"a|{2}", "nothing to repeat before '{'"},
    {"(?=a)+", "nothing to repeat before '+'"},
    {"(a|\\b){2}", "behind what may be empty the quantifier '{2}'"},
    {"(?:(?=a)|^b*){1,3}", "behind what may be empty the quantifier '{1,3}'"},
    {"(?:a{,2}){2,}", "behind what may be empty the quantifier '{2,}'"},
    {"a{100000}", "does not compile"},
    {"a{12345678901234567890}", "does not compile"},
    {"(?i)*", "nothing to repeat before '*'"},
    {"[a", "an open class '[a'"},
    {"[]", "an open class '[]'"},
    {"[[:no:]]", "the class '[:no:]'"},
    {"[[:alpha]", "the class '[:alpha]'"},
    {"[a&&]", "nothing on one side of && in '[a&&]'"},
    {"[&&a]", "nothing on one side of && in '['"},
    {"[\\w-.]", "in a class the range behind '\\w'"},
    {"[a-\\d]", "in a class the part '\\d'"},
    {"[a-[b]]", "in a class the part '[b'"},
    {"[\\R]", "in a class the part '\\R'"},
    {"[+--]", "in a class the range '+-'"},
    {"[b-a]", "the range 'b-a'"},
    /* Where case does not matter these are one character, or another set. */
    {"(?i:as{1}s)", "the caseless letters"},
    {"(?i:Ff)", "the caseless letters 'Ff'"},
    {"(?i:\xc3\x9f)", "the caseless character"},
    {"(?i:[\xc3\xa5-\xc3\xa9])", "the caseless character"},
    {"(?i:[a-\xe4\xb8\xad])", "the caseless range"},
    {"(?i:[^][^a-c].])", "the caseless class '[^][^a-c].]'"},
    {"(?i:[\\S])", "the caseless class '[\\S]'"},
    {"(?i:[\\w])", "the caseless set '\\w'"},
};

static void test_refused(void **state) {
  (void)state;
  for (size_t k = 0; k < sizeof refused / sizeof refused[0]; k++) {
    const char *pattern = refused[k].pattern;
    ist_error err = {0};
    ist_regex r;
    assert_int_equal(ist_regex_compile(&r, pattern, strlen(pattern), false, &err),
                     IST_ERR_UNSUPPORTED);
    if (!strstr(err.message, refused[k].says))
      fail_msg("%s: '%s', expected '%s'", pattern, err.message, refused[k].says);
  }
}

static void fails(const char *part, int n, const char *says) {
  ist_buf pattern = {0};
  ist_error err = {0};
  ist_regex r;
  for (int i = 0; i < n; i++) ist_buf_str(&pattern, part);
  assert_int_equal(ist_regex_compile(&r, pattern.p, pattern.len, false, &err), IST_ERR_UNSUPPORTED);
  if (!strstr(err.message, says)) fail_msg("'%s', expected '%s'", err.message, says);
  ist_buf_free(&pattern);
}

/* What grows out of proportion. */
static void test_too_much(void **state) {
  (void)state;
  fails("\\b", 1000, "as PCRE2 has it, expected at most 65536");
  fails("(", 1000, "too many groups around '('");
  fails("[", 1000, "too many classes around '['");
  fails("(?i)", 200, "does not compile");
}

/* Whatever allocation fails, the error is "out of memory". */
static void test_out_of_memory(void **state) {
  (void)state;
  static const char pattern[] =
      "[\\w[^a-c&&[^\\W]]x]{2}+|\\b(?<n>[[:^alpha:]&&\\p{L}&&\\S])\\p{Han}{1,3}+";
  int failures = 0;
  for (uint64_t n = 1;; n++) {
    ist_regex r;
    ist_alloc_fail_at(n);
    ist_status status = ist_regex_compile(&r, pattern, strlen(pattern), false, NULL);
    ist_alloc_fail_at(0);
    ist_regex_free(&r);
    if (status == IST_OK) break;
    assert_int_equal(status, IST_ERR_NOMEM);
    failures++;
  }
  assert_true(failures > 10);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_splits), cmocka_unit_test(test_refused),
                                     cmocka_unit_test(test_too_much),
                                     cmocka_unit_test(test_out_of_memory)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
