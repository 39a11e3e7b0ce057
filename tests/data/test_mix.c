/* Several files in one run: what the option says, how often epochs visit what, and
 * samples that live in a file. */
#include "data/text_file.h"

#include "data/mix.h"

/* Samples [0, 40) are of file 0, [40, 60) of file 1, [60, 61) of file 2. */
enum { N = 61 };
static void make_three_files(ist_dataset *d, ist_sample *samples, int64_t *list) {
  for (int i = 0; i < N; i++) {
    samples[i] = (ist_sample){.n = 1, .source = i < 40 ? 0 : i < 60 ? 1 : 2};
    list[i] = i;
  }
  *d = (ist_dataset){.p = samples, .n = N};
}

/* Counts the visits of each sample over some epochs of the mixture. */
static int64_t count_visits(const double weight[3], int64_t epochs, uint64_t seed, int64_t *visits,
                            int64_t *first_order) {
  ist_dataset d;
  ist_sample samples[N];
  int64_t list[N], round[N], order[400];
  ist_sources s = {.n = 3};
  make_three_files(&d, samples, list);
  for (int i = 0; i < 3; i++) s.file[i].weight = weight[i];
  memset(visits, 0, N * sizeof *visits);
  int64_t size = ist_mix_size(&s, &d, list, N);
  assert_in_range(size, 1, 400);
  ist_mix_round(round, &s, &d, list, N, seed);
  for (int64_t e = 0; e < epochs; e++) {
    ist_mix_order(order, &s, &d, round, N, seed, e);
    for (int64_t i = 0; i < size; i++) {
      assert_in_range(order[i], 0, N - 1);
      visits[order[i]]++;
    }
    if (e == 0) memcpy(first_order, order, (size_t)size * sizeof *order);
  }
  return size;
}

static void test_equal_weights(void **state) {
  (void)state;
  const double weight[] = {1, 1, 1};
  int64_t visits[N], a[400], b[400];
  assert_int_equal(count_visits(weight, 3, 9, visits, a), N);
  for (int i = 0; i < N; i++) assert_int_equal(visits[i], 3);
  count_visits(weight, 1, 9, visits, b);
  assert_memory_equal(a, b, N * sizeof *a);
  count_visits(weight, 1, 10, visits, b);
  assert_memory_not_equal(a, b, N * sizeof *a);
}

/* Over four epochs 40 samples at 0.25 are seen once, 20 at 2.5 ten times; a file
 * is seen at least once an epoch, however light it is. */
static void test_weights(void **state) {
  (void)state;
  const double weight[] = {0.25, 2.5, 0.01};
  int64_t visits[N], order[400];
  assert_int_equal(count_visits(weight, 4, 9, visits, order), 10 + 50 + 1);
  for (int i = 0; i < 40; i++) assert_int_equal(visits[i], 1);
  for (int i = 40; i < 60; i++) assert_int_equal(visits[i], 10);
  assert_int_equal(visits[60], 4);
}

static void test_parse(void **state) {
  (void)state;
  ist_sources s;
  ist_error err = {0};
  assert_int_equal(ist_sources_parse(&s, "a.jsonl=2,b=c.csv,d.txt=0.5", &err), IST_OK);
  assert_int_equal(s.n, 3);
  assert_string_equal(s.file[0].path, "a.jsonl");
  assert_true(s.file[0].weight == 2);
  assert_true(s.file[2].weight == 0.5);
  assert_string_equal(s.file[2].path, "d.txt");
  ist_sources_free(&s);
}

static void test_parse_errors(void **state) {
  (void)state;
  static const char *const bad[] = {"a,,b", ",a", "a,", "a=0", "a=-1", "a=nan", "a=1e9"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    ist_sources s;
    ist_error err = {0};
    assert_int_equal(ist_sources_parse(&s, bad[i], &err), IST_ERR_ARG);
    assert_int_equal(s.n, 0);
  }
}

/* ---- Samples in a file ---- */

static void build(ist_dataset *d, const ist_tokenizer *tok, const char *path, int64_t limit) {
  const ist_data_options o = {
      .tmpl = IST_TEMPLATE_NONE, .loss_on = IST_LOSS_ALL, .max_tokens = 64, .folder = "/tmp"};
  ist_error err = {0};
  *d = (ist_dataset){.store.limit = limit};
  if (ist_dataset_append(d, path, tok, &o, &err) != IST_OK) fail_msg("%s", err.message);
  if (ist_dataset_ready(d, &err) != IST_OK) fail_msg("%s", err.message);
}

/* More records than one stretch; a store of 1,000 bytes sends most to the file. */
static void test_store(void **state) {
  (void)state;
  char path[64];
  snprintf(path, sizeof path, "/tmp/ist-test-mix-%ld.jsonl", (long)getpid());
  FILE *f = fopen(path, "wb");
  assert_non_null(f);
  for (int i = 0; i < 3000; i++) fprintf(f, "{\"text\": \"record %d%.*s\"}\n", i, i % 7, "abcdefg");
  fclose(f);
  ist_tokenizer *tok = small_vocab_open(&(small_vocab){.pre = "gpt-2"});
  ist_dataset held, stored;
  build(&held, tok, path, 1 << 30);
  build(&stored, tok, path, 1000);
  unlink(path);
  assert_int_equal(held.n, 3000);
  assert_int_equal(stored.n, 3000);
  assert_int_equal(held.store.written, 0);
  assert_true(stored.store.held <= 1000 && stored.store.written > 30000);
  assert_true(ist_dataset_hash(&held) == ist_dataset_hash(&stored));
  ist_store_forget(&stored.store);
  assert_true(ist_dataset_hash(&held) == ist_dataset_hash(&stored));
  ist_dataset_free(&held);
  ist_dataset_free(&stored);
  ist_tokenizer_free(tok);
}

/* Pages of files that the process holds, in bytes. */
static int64_t file_pages(void) {
  long long all, resident, shared = 0;
  FILE *f = fopen("/proc/self/statm", "r");
  assert_non_null(f);
  assert_int_equal(fscanf(f, "%lld %lld %lld", &all, &resident, &shared), 3);
  fclose(f);
  return shared * sysconf(_SC_PAGESIZE);
}

/* Hashing reads all samples, and leaves none of those in the file in memory. */
static void test_hash_gives_back(void **state) {
  (void)state;
  enum { SAMPLES = 16, TOKENS = 1 << 19 };
  ist_error err = {0};
  ist_dataset d = {.store = {.folder = "/var/tmp", .limit = 1}};
  d.p = ist_calloc(SAMPLES, sizeof *d.p);
  assert_non_null(d.p);
  for (int i = 0; i < SAMPLES; i++) {
    ist_sample s = {.ids = ist_calloc(TOKENS, sizeof *s.ids + 1), .n = TOKENS, .line = i};
    assert_non_null(s.ids);
    for (int j = 0; j < TOKENS; j++) s.ids[j] = i + j;
    assert_int_equal(ist_store_take(&d.store, &s, &err), IST_OK);
    d.p[d.n++] = s;
  }
  assert_int_equal(ist_dataset_ready(&d, &err), IST_OK);
  int64_t before = file_pages();
  uint64_t hash = ist_dataset_hash(&d);
  assert_true(file_pages() - before < d.store.written / 4);
  assert_true(hash == ist_dataset_hash(&d));
  ist_dataset_free(&d);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_equal_weights), cmocka_unit_test(test_weights),
      cmocka_unit_test(test_parse),         cmocka_unit_test(test_parse_errors),
      cmocka_unit_test(test_store),         cmocka_unit_test(test_hash_gives_back),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
