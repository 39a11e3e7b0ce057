/* Merging against an obvious second implementation, and its behaviour on long words. */
#include "tokenizer/small_vocab.h"

#include "base/rng.h"

/* A random vocabulary over the letters a to d: each new token joins two of those
 * before it, so that merges overlap and compete in every way. */
enum { JOINED = 60, MAX_TEXT = 24 };
typedef struct random_vocab {
  char text[4 + JOINED][MAX_TEXT];
  char merge_text[JOINED][2 * MAX_TEXT];
  int left[JOINED], right[JOINED];
  const char *merges[JOINED + 1];
  small_token extra[JOINED + 1];
  int n; /* joined tokens */
} random_vocab;

static int find_text(const random_vocab *v, const char *text) {
  for (int i = 0; i < 4 + v->n; i++)
    if (strcmp(v->text[i], text) == 0) return i;
  return -1;
}

static void make_random(random_vocab *v, ist_rng *rng) {
  memset(v, 0, sizeof *v);
  for (int i = 0; i < 4; i++) v->text[i][0] = (char)('a' + i);
  for (int tries = 0; v->n < JOINED && tries < 4000; tries++) {
    int l = (int)ist_rng_below(rng, (uint64_t)(4 + v->n)),
        r = (int)ist_rng_below(rng, (uint64_t)(4 + v->n));
    char joined[2 * MAX_TEXT];
    snprintf(joined, sizeof joined, "%s%s", v->text[l], v->text[r]);
    if (strlen(joined) >= 9 || find_text(v, joined) >= 0) continue;
    int k = v->n++;
    strcpy(v->text[4 + k], joined);
    size_t len = strlen(v->text[l]);
    memcpy(v->merge_text[k], joined, len);
    v->merge_text[k][len] = ' ';
    strcpy(v->merge_text[k] + len + 1, joined + len);
    v->left[k] = l;
    v->right[k] = r;
    v->merges[k] = v->merge_text[k];
    v->extra[k] = (small_token){v->text[4 + k], NORMAL};
  }
}

/* Scans the list for the best pair again and again. */
static int merge_slowly(const random_vocab *v, const char *word, int *sym) {
  int n = (int)strlen(word);
  for (int i = 0; i < n; i++) sym[i] = word[i] - 'a';
  for (;;) {
    int best = v->n, at = -1;
    for (int i = 0; i + 1 < n; i++)
      for (int k = 0; k < best; k++)
        if (v->left[k] == sym[i] && v->right[k] == sym[i + 1]) {
          best = k;
          at = i;
        }
    if (at < 0) return n;
    sym[at] = 4 + best;
    memmove(&sym[at + 1], &sym[at + 2], (size_t)(n - at - 2) * sizeof *sym);
    n--;
  }
}

static int id_of(int sym) {
  return sym < 4 ? 'a' + sym : 256 + sym - 4;
}

static void test_equals_slow_merging(void **state) {
  (void)state;
  ist_rng rng = ist_rng_stream(7, IST_RNG_TEST, 0, 0, 0);
  ist_error err = {0};
  for (int round = 0; round < 20; round++) {
    random_vocab v;
    make_random(&v, &rng);
    small_vocab small = {.pre = "gpt-2", .extra = v.extra, .merges = v.merges};
    ist_tokenizer *t = small_vocab_open(&small);
    ist_ids ids = {0};
    for (int k = 0; k < 300; k++) {
      char word[80];
      int sym[80];
      int len = 1 + (int)ist_rng_below(&rng, 70);
      for (int i = 0; i < len; i++) word[i] = (char)('a' + ist_rng_below(&rng, 4));
      word[len] = 0;
      ids.n = 0;
      assert_int_equal(ist_tokenizer_encode(t, word, (size_t)len, false, &ids, &err), IST_OK);
      int n = merge_slowly(&v, word, sym);
      assert_int_equal(ids.n, n);
      for (int i = 0; i < n; i++) assert_int_equal(ids.p[i], id_of(sym[i]));
    }
    ist_ids_free(&ids);
    ist_tokenizer_free(t);
  }
}

/* A megabyte without a space: a quadratic merge would take hours. */
static void test_long_word(void **state) {
  (void)state;
  static const small_token extra[] = {{"aa", NORMAL}, {"aaaa", NORMAL}, {NULL, 0}};
  static const char *const merges[] = {"a a", "aa aa", NULL};
  ist_tokenizer *t =
      small_vocab_open(&(small_vocab){.pre = "qwen2", .extra = extra, .merges = merges});
  size_t len = (1 << 20) + 3;
  char *text = malloc(len);
  memset(text, 'a', len);
  ist_ids ids = {0};
  ist_error err = {0};
  assert_int_equal(ist_tokenizer_encode(t, text, len, false, &ids, &err), IST_OK);
  assert_int_equal(ids.n, (1 << 18) + 2);
  assert_int_equal(ids.p[0], 257);
  assert_int_equal(ids.p[1 << 18], 256);
  assert_int_equal(ids.p[(1 << 18) + 1], 'a');
  free(text);
  ist_ids_free(&ids);
  ist_tokenizer_free(t);
}

/* "ab" can only be reached as a whole: merging goes another way. */
static void test_ignore_merges(void **state) {
  (void)state;
  static const small_token extra[] = {{"bc", NORMAL}, {"abc", NORMAL}, {"ab", NORMAL}, {NULL, 0}};
  static const char *const merges[] = {"b c", "ab c", NULL};
  static const struct {
    const char *pre;
    int n, first;
  } expected[] = {{"gpt-2", 2, 'a'},  {"qwen2", 2, 'a'},     {"dbrx", 2, 'a'},
                  {"smollm", 2, 'a'}, {"llama-bpe", 1, 257}, {"llama3", 1, 257}};
  for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
    ist_tokenizer *t =
        small_vocab_open(&(small_vocab){.pre = expected[i].pre, .extra = extra, .merges = merges});
    ist_ids ids = {0};
    ist_error err = {0};
    assert_int_equal(ist_tokenizer_encode(t, "abc", 3, false, &ids, &err), IST_OK);
    assert_int_equal(ids.n, expected[i].n);
    assert_int_equal(ids.p[0], expected[i].first);
    ist_ids_free(&ids);
    ist_tokenizer_free(t);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_equals_slow_merging),
      cmocka_unit_test(test_long_word),
      cmocka_unit_test(test_ignore_merges),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
