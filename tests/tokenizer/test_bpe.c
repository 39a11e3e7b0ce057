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
  int n = (int)strlen(word), rank[4 + JOINED][4 + JOINED];
  for (int i = 0; i < 4 + JOINED; i++)
    for (int j = 0; j < 4 + JOINED; j++) rank[i][j] = JOINED;
  for (int k = v->n - 1; k >= 0; k--) rank[v->left[k]][v->right[k]] = k;
  for (int i = 0; i < n; i++) sym[i] = word[i] - 'a';
  for (;;) {
    int best = JOINED, at = -1;
    for (int i = 0; i + 1 < n; i++)
      if (rank[sym[i]][sym[i + 1]] < best) {
        best = rank[sym[i]][sym[i + 1]];
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

enum { LONGEST = 4000 };

/* Letters at random, or few of them in long runs. */
static void random_word(char *word, int len, bool runs, ist_rng *rng) {
  char c = 'a';
  for (int i = 0; i < len; i++) {
    if (!runs || ist_rng_below(rng, 600) == 0) c = (char)('a' + ist_rng_below(rng, 4));
    word[i] = c;
  }
  word[len] = 0;
}

static void expect_slow(const random_vocab *v, const ist_tokenizer *t, const char *word) {
  static int sym[LONGEST];
  ist_ids ids = {0};
  ist_error err = {0};
  assert_int_equal(ist_tokenizer_encode(t, word, strlen(word), false, &ids, &err), IST_OK);
  int n = merge_slowly(v, word, sym);
  assert_int_equal(ids.n, n);
  for (int i = 0; i < n; i++) assert_int_equal(ids.p[i], id_of(sym[i]));
  ist_ids_free(&ids);
}

/* Words of a few symbols, of enough for a heap, and of several stretches. */
static void test_equals_slow_merging(void **state) {
  (void)state;
  static char word[LONGEST + 1];
  ist_rng rng = ist_rng_stream(7, IST_RNG_TEST, 0, 0, 0);
  for (int round = 0; round < 20; round++) {
    random_vocab v;
    make_random(&v, &rng);
    small_vocab small = {.pre = "gpt-2", .extra = v.extra, .merges = v.merges};
    ist_tokenizer *t = small_vocab_open(&small);
    for (int k = 0; k < 300; k++) {
      random_word(word, 1 + (int)ist_rng_below(&rng, 70), false, &rng);
      expect_slow(&v, t, word);
    }
    for (int k = 0; k < 6; k++) {
      random_word(word, 1000 + (int)ist_rng_below(&rng, LONGEST - 1000), k % 2 == 0, &rng);
      expect_slow(&v, t, word);
    }
    ist_tokenizer_free(t);
  }
}

/* A vocabulary in which the end of a word decides about its beginning: links "Aaa",
 * "Aab", ..., of which every two in order merge, the later the sooner. A chain of an odd
 * number of links leaves its first alone; cut anywhere, every other cut of it would
 * leave another. So the seams between stretches open as far as a chain is long. */
enum { LINKS = 1999, PAIRS = 26 * 26, CHAINS = 8 };
typedef struct chain_vocab {
  char text[PAIRS + 2 * LINKS][8], merge[PAIRS + 2 * LINKS][8];
  small_token extra[PAIRS + 2 * LINKS + 1];
  const char *merges[PAIRS + 2 * LINKS + 1];
  int n;
} chain_vocab;

static void add_joined(chain_vocab *v, const char *left_text, const char *right_text) {
  char left[4], right[4]; /* the vocabulary's own texts may not be read while it is written */
  memcpy(left, left_text, strlen(left_text) + 1);
  memcpy(right, right_text, strlen(right_text) + 1);
  snprintf(v->text[v->n], sizeof v->text[0], "%s%s", left, right);
  snprintf(v->merge[v->n], sizeof v->merge[0], "%s %s", left, right);
  v->extra[v->n] = (small_token){v->text[v->n], NORMAL};
  v->merges[v->n] = v->merge[v->n];
  v->n++;
}

static void test_seams_open_far(void **state) {
  (void)state;
  static chain_vocab v;
  static char link[LINKS][4], word[3 * LINKS * CHAINS + 1];
  for (int i = 0; i < PAIRS; i++)
    add_joined(&v, (char[]){(char)('A' + i / 26), 0}, (char[]){(char)('a' + i % 26), 0});
  for (int i = 0; i < LINKS; i++) {
    char last[2] = {(char)('a' + i % 26), 0};
    add_joined(&v, v.text[i / 26], last);
    snprintf(link[i], sizeof link[i], "%s%s", v.text[i / 26], last);
  }
  for (int i = LINKS - 2; i >= 0; i--) add_joined(&v, link[i], link[i + 1]);
  for (int i = 0; i < CHAINS * LINKS; i++) memcpy(word + 3 * i, link[i % LINKS], 3);
  ist_tokenizer *t =
      small_vocab_open(&(small_vocab){.pre = "gpt-2", .extra = v.extra, .merges = v.merges});
  ist_ids ids = {0};
  ist_error err = {0};
  assert_int_equal(ist_tokenizer_encode(t, word, strlen(word), false, &ids, &err), IST_OK);
  assert_int_equal(ids.n, CHAINS * (1 + LINKS / 2));
  for (int64_t i = 0; i < ids.n; i++) {
    int k = (int)(i % (1 + LINKS / 2)); /* the first link, then links 2k-1 and 2k */
    int expected = k == 0 ? PAIRS : PAIRS + LINKS + LINKS - 2 - (2 * k - 1);
    assert_int_equal(ids.p[i], 256 + expected);
  }
  ist_ids_free(&ids);
  ist_tokenizer_free(t);
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
      cmocka_unit_test(test_seams_open_far),
      cmocka_unit_test(test_long_word),
      cmocka_unit_test(test_ignore_merges),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
