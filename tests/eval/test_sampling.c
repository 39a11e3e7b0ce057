/* The choice of a token: sets kept by top-k and top-p as transformers keeps them, draws
 * that follow the softmax, ties, logits that are no numbers. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "eval/generator.h"

#define V_MAX 600

/* As much of a generator as the choice of a token reads. */
static ist_model model;
static float prob[V_MAX];
static int32_t candidate[V_MAX];
static ist_generator generator = {.model = &model, .prob = prob, .candidate = candidate};

static int32_t sample(const float *logits, int64_t V, const ist_sampling *s, int64_t number) {
  assert_true(V <= V_MAX);
  model.config.V = V;
  int32_t id = ist_sample_token(&generator, logits, s, number);
  assert_true(id >= 0 && id < V);
  return id;
}

/* Draws against the softmax over the tokens that `kept` marks: none falls outside, and
 * chi-squared over the others is within six standard deviations. Bins under five draws are
 * joined. */
static void check_draws(const float *logits, int64_t V, const ist_sampling *s, const bool *kept) {
  enum { DRAWS = 20000 };
  static int64_t count[V_MAX];
  double most = -INFINITY, sum = 0, chi = 0, small = 0, rest = 0;
  int64_t bins = 0;
  memset(count, 0, sizeof count);
  for (int64_t i = 0; i < DRAWS; i++) count[sample(logits, V, s, i)]++;
  for (int64_t i = 0; i < V; i++) most = fmax(most, (double)logits[i]);
  for (int64_t i = 0; i < V; i++)
    if (kept[i]) sum += exp(((double)logits[i] - most) / s->temperature);
  for (int64_t i = 0; i < V; i++) {
    double expected = kept[i] ? DRAWS * exp(((double)logits[i] - most) / s->temperature) / sum : 0;
    if (!kept[i] && count[i])
      fail_msg("temperature %g, top-k %d, top-p %g: token %d was cut, and drawn", s->temperature,
               (int)s->top_k, s->top_p, (int)i);
    if (expected < 5) {
      small += expected;
      rest += (double)count[i];
      continue;
    }
    chi += pow((double)count[i] - expected, 2) / expected;
    bins++;
  }
  if (small >= 5) {
    chi += pow(rest - small, 2) / small;
    bins++;
  }
  double freedom = (double)bins - 1;
  if (!(fabs(chi - freedom) <= 6 * sqrt(2 * freedom)))
    fail_msg("temperature %g, top-k %d, top-p %g: chi-squared %g of %g", s->temperature,
             (int)s->top_k, s->top_p, chi, freedom);
}

/* What TemperatureLogitsWarper, TopKLogitsWarper and TopPLogitsWarper of transformers 5.23.0
 * leave, one after the other: bit i for token i. */
static void test_sets(void **state) {
  (void)state;
  static const float logits[] = {0.25f, 2, -1.5f, 1, 3, -4, 0.5f, 1.75f, -0.5f, 2.5f};
  static const struct {
    double temperature;
    int64_t top_k;
    double top_p;
    unsigned kept;
  } cases[] = {
      {1, 0, 1, 0x3ff},      {0.7, 0, 1, 0x3ff},    {1.5, 0, 1, 0x3ff}, {1, 3, 1, 0x212},
      {1, 1, 1, 0x010},      {1, 50, 1, 0x3ff},     {1, 0, 0.5, 0x210}, {1, 0, 0.9, 0x29a},
      {2, 0, 0.75, 0x29a},   {0.5, 0, 0.01, 0x010}, {1, 2, 0.6, 0x010}, {1, 4, 0.8, 0x212},
      {0.8, 5, 0.95, 0x292}, {1.3, 3, 0.7, 0x210},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    ist_sampling s = {cases[i].temperature, cases[i].top_k, cases[i].top_p, 7 + i};
    bool kept[10];
    for (int k = 0; k < 10; k++) kept[k] = cases[i].kept >> k & 1;
    check_draws(logits, 10, &s, kept);
  }
}

/* A vocabulary of more parts than one, with its best in a later one. */
static void test_large(void **state) {
  (void)state;
  static float logits[V_MAX];
  static bool kept[V_MAX];
  ist_rng rng = ist_rng_stream(11, IST_RNG_TEST, 0, 0, 0);
  for (int i = 0; i < V_MAX; i++) {
    logits[i] = (float)(2 * ist_rng_normal(&rng));
    kept[i] = true;
  }
  logits[517] = 9;
  check_draws(logits, V_MAX, &(ist_sampling){1.3, 0, 1, 5}, kept);
  assert_int_equal(sample(logits, V_MAX, &(ist_sampling){0, 0, 1, 5}, 3), 517);
  assert_int_equal(sample(logits, V_MAX, &(ist_sampling){1e-30, 0, 1, 5}, 3), 517);
}

/* Of equal ones the first stay. */
static void test_ties(void **state) {
  (void)state;
  static const float logits[] = {1, 3, 2, 2, 3, 2, 2};
  static const bool first_four[7] = {false, true, true, true, true, false, false};
  check_draws(logits, 7, &(ist_sampling){1, 4, 1, 1}, first_four);
  /* 3, 3 and one 2 hold 0.656 of the probability. */
  static const bool first_three[7] = {false, true, true, false, true, false, false};
  check_draws(logits, 7, &(ist_sampling){1, 0, 0.65, 1}, first_three);
  static const bool one[7] = {false, true};
  check_draws(logits, 7, &(ist_sampling){2, 1, 1, 1}, one);
  for (int64_t i = 0; i < 20; i++)
    assert_int_equal(sample(logits, 7, &(ist_sampling){0, 0, 1, 1}, i), 1);
}

/* A draw is a function of (seed, number): neither of what was drawn before nor of what the
 * buffers held. */
static void test_seed(void **state) {
  (void)state;
  float logits[64];
  int32_t ids[200];
  ist_sampling s = {1, 0, 1, 42};
  int same = 0;
  for (int i = 0; i < 64; i++) logits[i] = (float)(i * 37 % 64) / 32;
  for (int i = 0; i < 200; i++) ids[i] = sample(logits, 64, &s, i);
  memset(prob, 0xff, sizeof prob);
  for (int i = 199; i >= 0; i--) assert_int_equal(sample(logits, 64, &s, i), ids[i]);
  s.seed = 43;
  for (int i = 0; i < 200; i++) same += sample(logits, 64, &s, i) == ids[i];
  assert_true(same < 20);
  same = 0;
  for (int i = 1; i < 200; i++) same += ids[i] == ids[i - 1];
  assert_true(same < 20);
}

static void test_no_numbers(void **state) {
  (void)state;
  const ist_sampling warm = {1, 0, 1, 1}, greedy = {0, 0, 1, 1}, cut = {1, 2, 0.9, 1};
  const float some[] = {NAN, 1, -INFINITY, 2, NAN, 1.5f};
  static const bool numbers[] = {false, true, false, true, false, true};
  static const bool two[] = {false, false, false, true, false, true};
  check_draws(some, 6, &warm, numbers);
  check_draws(some, 6, &cut, two);
  assert_int_equal(sample(some, 6, &greedy, 0), 3);
  /* Where nothing can be weighed, the greedy choice. */
  const float none[] = {NAN, NAN, NAN}, low[] = {-INFINITY, -INFINITY, -INFINITY};
  const float high[] = {1, INFINITY, NAN};
  for (int64_t i = 0; i < 20; i++) {
    assert_int_equal(sample(none, 3, &warm, i), 0);
    assert_int_equal(sample(low, 3, &cut, i), 0);
    assert_int_equal(sample(high, 3, &warm, i), 1);
    assert_int_equal(sample(high, 3, &greedy, i), 1);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_sets), cmocka_unit_test(test_large),      cmocka_unit_test(test_ties),
      cmocka_unit_test(test_seed), cmocka_unit_test(test_no_numbers),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
