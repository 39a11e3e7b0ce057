/* Splits, orders and packed batches. */
#include "data/text_file.h"

#include "data/batch.h"

/* ---- Splits and orders ---- */

/* Every index once in the three lists (a copied probe set aside), each list ascending. */
static void check_split(const ist_split *s, int64_t n) {
  char *seen = calloc((size_t)n, 1);
  const int64_t *list[] = {s->train, s->valid, s->probe};
  const int64_t count[] = {s->n_train, s->n_valid, s->probe_is_train ? 0 : s->n_probe};
  int64_t total = 0;
  for (int l = 0; l < 3; l++)
    for (int64_t i = 0; i < count[l]; i++, total++) {
      assert_in_range(list[l][i], 0, n - 1);
      assert_int_equal(seen[list[l][i]]++, 0);
      if (i) assert_true(list[l][i] > list[l][i - 1]);
    }
  assert_int_equal(total, n);
  if (s->probe_is_train) {
    assert_int_equal(s->n_probe, s->n_train);
    assert_memory_equal(s->probe, s->train, (size_t)s->n_train * sizeof *s->train);
  }
  free(seen);
}

static void test_split_sizes(void **state) {
  (void)state;
  static const struct {
    int64_t n, ask_valid, ask_probe, valid, probe;
  } cases[] = {{1, -1, -1, 0, 0},         {5, -1, -1, 0, 0},         {199, -1, -1, 19, 0},
               {200, -1, -1, 20, 16},     {1000, -1, -1, 100, 20},   {1000, 0, -1, 0, 20},
               {20000, -1, -1, 120, 256}, {13000, -1, -1, 120, 256}, {5000, 7, 0, 7, 0},
               {50, 10, 20, 10, 20},      {10, 4, 5, 4, 5}};
  for (size_t k = 0; k < sizeof cases / sizeof cases[0]; k++) {
    ist_split s;
    ist_error err = {0};
    assert_int_equal(
        ist_split_make(&s, cases[k].n, cases[k].ask_valid, cases[k].ask_probe, 1, &err), IST_OK);
    assert_int_equal(s.n_valid, cases[k].valid);
    assert_int_equal(s.probe_is_train, cases[k].probe == 0);
    if (cases[k].probe) assert_int_equal(s.n_probe, cases[k].probe);
    check_split(&s, cases[k].n);
    ist_split_free(&s);
  }
}

static void test_split_refused(void **state) {
  (void)state;
  static const int64_t cases[][3] = {
      {0, -1, -1}, {10, 10, 0}, {10, 5, 5}, {10, 11, 0}, {10, INT64_MAX, INT64_MAX}};
  for (size_t k = 0; k < 5; k++) {
    ist_split s;
    ist_error err = {0};
    assert_int_equal(ist_split_make(&s, cases[k][0], cases[k][1], cases[k][2], 1, &err),
                     IST_ERR_ARG);
    assert_null(s.train);
  }
}

static void test_split_seed(void **state) {
  (void)state;
  ist_split a, b, c;
  ist_error err = {0};
  assert_int_equal(ist_split_make(&a, 1000, -1, -1, 5, &err), IST_OK);
  assert_int_equal(ist_split_make(&b, 1000, -1, -1, 5, &err), IST_OK);
  assert_int_equal(ist_split_make(&c, 1000, -1, -1, 6, &err), IST_OK);
  assert_memory_equal(a.valid, b.valid, 100 * sizeof(int64_t));
  assert_memory_not_equal(a.valid, c.valid, 100 * sizeof(int64_t));
  assert_memory_equal(a.probe, b.probe, 20 * sizeof(int64_t));
  ist_split_free(&a);
  ist_split_free(&b);
  ist_split_free(&c);
}

/* ---- Batches ---- */

/* Sample i has lengths[i] tokens 100 i + t; token t is supervised when t % 3 != i % 3. */
enum { SAMPLES = 6 };
static const int32_t lengths[SAMPLES] = {4, 1, 7, 3, 12, 5};

static void make_dataset(ist_dataset *d) {
  *d = (ist_dataset){.n = SAMPLES};
  d->p = ist_calloc(SAMPLES, sizeof *d->p);
  for (int i = 0; i < SAMPLES; i++) {
    ist_sample *s = &d->p[i];
    s->n = lengths[i];
    s->ids = ist_calloc((size_t)s->n, 5);
    s->mask = (uint8_t *)(s->ids + s->n);
    for (int32_t t = 0; t < s->n; t++) {
      s->ids[t] = 100 * i + t;
      s->mask[t] = t > 0 && t % 3 != i % 3;
      s->n_target += s->mask[t];
    }
  }
}

static void test_fill(void **state) {
  (void)state;
  ist_dataset d;
  make_dataset(&d);
  ist_batch b;
  ist_error err = {0};
  assert_int_equal(ist_batch_reserve(&b, 32, SAMPLES, &err), IST_OK);
  assert_int_equal(b.n_tokens, 0);
  static const int64_t index[] = {4, 1, 0, 2, 5};
  uint64_t before = ist_alloc_count();
  ist_batch_fill(&b, &d, index, 2);
  ist_batch_fill(&b, &d, index, 5);
  assert_true(ist_alloc_count() == before);
  assert_int_equal(b.n_segments, 5);
  assert_int_equal(b.n_tokens, 12 + 1 + 4 + 7 + 5);
  assert_int_equal(b.start[0], 0);
  int64_t targets = 0, at = 0;
  for (int s = 0; s < 5; s++) {
    assert_int_equal(b.start[s + 1] - b.start[s], lengths[index[s]]);
    for (int32_t t = 0; t < lengths[index[s]]; t++, at++) {
      assert_int_equal(b.ids[at], 100 * index[s] + t);
      assert_int_equal(b.position[at], t);
      assert_int_equal(b.sample[at], index[s]);
      bool supervised = t + 1 < lengths[index[s]] && (t + 1) % 3 != index[s] % 3;
      assert_int_equal(b.target[at], supervised ? 100 * index[s] + t + 1 : -1);
      targets += supervised;
    }
  }
  assert_int_equal(b.n_target, targets);
  assert_int_equal(ist_batch_targets(&d, index, 5), targets);
  ist_batch_fill(&b, &d, index, 0);
  assert_int_equal(b.n_tokens + b.n_segments + b.n_target, 0);
  ist_batch_free(&b);
  ist_dataset_free(&d);
}

static void check_runs(const ist_dataset *d, int64_t n, int64_t budget, int64_t runs,
                       const int64_t *expected) {
  static const int64_t index[SAMPLES] = {0, 1, 2, 3, 4, 5};
  int64_t first[SAMPLES + 1];
  assert_int_equal(ist_batch_split(first, d, index, n, budget), runs);
  for (int64_t r = 0; r <= runs; r++) assert_int_equal(first[r], expected[r]);
}

static void test_budget(void **state) {
  (void)state;
  ist_dataset d;
  make_dataset(&d);                                           /* 4 1 7 3 12 5 */
  check_runs(&d, 6, 12, 4, (const int64_t[]){0, 3, 4, 5, 6}); /* 4 + 1 + 7 just fit */
  check_runs(&d, 6, 1000, 1, (const int64_t[]){0, 6});
  check_runs(&d, 6, 11, 4, (const int64_t[]){0, 2, 4, 5, 6}); /* 12 stands alone */
  check_runs(&d, 6, 4, 6, (const int64_t[]){0, 1, 2, 3, 4, 5, 6});
  check_runs(&d, 1, 1, 1, (const int64_t[]){0, 1});
  check_runs(&d, 0, 10, 0, (const int64_t[]){0});
  ist_dataset_free(&d);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_split_sizes), cmocka_unit_test(test_split_refused),
      cmocka_unit_test(test_split_seed),  cmocka_unit_test(test_fill),
      cmocka_unit_test(test_budget),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
