/* Selectors: scores against an obvious second implementation, small models,
 * determinism, restored state. The distribution of draws: test_draw.c. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "select/select.h"

enum { MAX_L = 80 };

static ist_selector *make(int64_t L, const ist_select_options *o) {
  ist_selector *s = NULL;
  ist_error err = {0};
  if (ist_selector_new(&s, L, o, &err) != IST_OK) fail_msg("%s", err.message);
  return s;
}

static ist_select_options options(ist_selector_kind kind, uint64_t seed) {
  ist_select_options o;
  ist_select_options_init(&o);
  o.kind = kind;
  o.seed = seed;
  return o;
}

static void refused(int64_t L, const ist_select_options *o, const char *part) {
  ist_selector *s = NULL;
  ist_error err = {0};
  assert_int_equal(ist_selector_new(&s, L, o, &err), IST_ERR_ARG);
  assert_null(s);
  if (!strstr(err.message, part)) fail_msg("'%s' lacks '%s'", err.message, part);
}

static int64_t members(const float *factor, int64_t L, float damped) {
  int64_t n = 0;
  for (int64_t i = 0; i < L; i++) {
    assert_true(factor[i] == damped || factor[i] == 1.0f);
    n += factor[i] == damped;
  }
  return n;
}

/* The method as the paper's text has it, over sets given as 0/1 rows. */
static void obvious_update(double *score, int64_t L, const uint8_t *set, const double *loss,
                           int64_t n, ist_reward reward) {
  double p[MAX_L];
  for (int64_t i = 0; i < L; i++) p[i] = 1.0 / (1.0 + exp(-score[i]));
  double mean = 0;
  for (int64_t k = 0; k < n; k++) mean += reward == IST_REWARD_EXP ? exp(-loss[k]) : loss[k];
  mean /= (double)n;
  double square = 0;
  for (int64_t k = 0; k < n; k++) square += (loss[k] - mean) * (loss[k] - mean) / (double)n;
  double sd = sqrt(square) > 1e-4 ? sqrt(square) : 1e-4;
  for (int64_t k = 0; k < n; k++)
    for (int64_t i = 0; i < L; i++) {
      if (!set[k * L + i]) continue;
      if (reward == IST_REWARD_EXP)
        score[i] += 10 * (exp(-loss[k]) - mean) * p[i] * (1 - p[i]);
      else
        score[i] += 0.4 * ((mean - loss[k]) / sd) * p[i] * (1 - p[i]);
    }
  for (int64_t i = 0; i < L && reward == IST_REWARD_NORMALISED; i++) {
    if (score[i] > 4) score[i] = 4;
    if (score[i] < -4) score[i] = -4;
  }
}

static void follow_updates(ist_reward reward) {
  enum { L = 30 };
  ist_select_options o = options(IST_SELECT_IST, 11);
  o.reward = reward;
  ist_selector *s = make(L, &o);
  double score[L] = {0};
  int64_t seen[L] = {0};
  ist_rng r = ist_rng_stream(1, IST_RNG_TEST, 0, 0, 0);
  bool clamped = false;
  for (int i = 0; i < L && reward == IST_REWARD_NORMALISED; i++)
    ist_selector_get_state(s).suppressibility[i] = score[i] = i < 2 ? 0 : i % 2 ? 3.99 : -3.99;
  for (int64_t u = 1; u <= 1000; u++) {
    float factor[3 * L];
    uint8_t set[3 * L];
    int64_t t = 10 * u;
    assert_true(ist_selector_wants_probe(s, t));
    assert_int_equal(ist_selector_propose(s, t, factor), 3);
    double loss[3];
    for (int k = 0; k < 3; k++) {
      assert_int_equal(members(factor + k * L, L, 0.25f), 15);
      /* Layers 0 and 1 matter, so that scores go somewhere. */
      loss[k] = 2 * ist_rng_uniform(&r);
      for (int i = 0; i < 2; i++) loss[k] += factor[k * L + i] < 1 ? 1.0 : 0.0;
      for (int i = 0; i < L; i++) {
        set[k * L + i] = factor[k * L + i] < 1;
        seen[i] += set[k * L + i];
      }
    }
    ist_selector_observe(s, t, loss, 3);
    obvious_update(score, L, set, loss, 3, reward);
    ist_selector_state st = ist_selector_get_state(s);
    assert_memory_equal(st.suppressibility, score, sizeof score);
    assert_memory_equal(st.observed, seen, sizeof seen);
    for (int i = 0; i < L; i++) clamped |= fabs(score[i]) == 4;
  }
  assert_true(score[0] < -1 && score[1] < -1);
  assert_true(ist_selector_importance(s, 0) > 0.7);
  assert_true(clamped == (reward == IST_REWARD_NORMALISED));
  ist_selector_free(s);
}

static void test_scores_exp(void **state) {
  (void)state;
  follow_updates(IST_REWARD_EXP);
}

static void test_scores_normalised(void **state) {
  (void)state;
  follow_updates(IST_REWARD_NORMALISED);
}

static void test_not_finite_leaves_scores(void **state) {
  (void)state;
  ist_select_options o = options(IST_SELECT_IST, 3);
  ist_selector *s = make(8, &o);
  float factor[24];
  ist_selector_propose(s, 10, factor);
  ist_selector_observe(s, 10, (double[]){1, NAN, 2}, 3);
  ist_selector_observe(s, 10, (double[]){1, INFINITY, 2}, 3);
  for (int i = 0; i < 8; i++) {
    assert_true(ist_selector_get_state(s).suppressibility[i] == 0);
    assert_int_equal(ist_selector_get_state(s).observed[i], 0);
  }
  ist_selector_free(s);
}

static void test_probe_times(void **state) {
  (void)state;
  ist_select_options o = options(IST_SELECT_IST, 3);
  ist_selector *s = make(8, &o);
  for (int64_t t = 0; t < 50; t++)
    assert_int_equal(ist_selector_wants_probe(s, t), t == 10 || t == 20 || t == 30 || t == 40);
  ist_selector_free(s);
  o.kind = IST_SELECT_RANDOM;
  s = make(8, &o);
  assert_false(ist_selector_wants_probe(s, 10));
  assert_int_equal(ist_selector_propose(s, 10, NULL), 0);
  ist_selector_free(s);
}

/* L = 1: no probes; 2: C(2,1) = 2 sets; 3: C(3,1) = 3; 4: three of C(4,2) = 6. */
static void test_small_models(void **state) {
  (void)state;
  const int64_t sets[] = {0, 0, 2, 3, 3}, suppressed[] = {0, 0, 1, 1, 2};
  for (int64_t L = 1; L <= 4; L++) {
    ist_select_options o = options(IST_SELECT_IST, 5);
    ist_selector *s = make(L, &o);
    assert_int_equal(ist_selector_wants_probe(s, 10), L > 1);
    for (int64_t t = 0; t < 200; t++) {
      uint8_t active[4];
      assert_int_equal(ist_selector_draw(s, t, active), 1);
      float f[12];
      assert_int_equal(ist_selector_propose(s, t, f), sets[L]);
      for (int64_t a = 0; a < sets[L]; a++) {
        assert_int_equal(members(f + a * L, L, 0.25f), suppressed[L]);
        for (int64_t b = 0; b < a; b++)
          assert_memory_not_equal(f + a * L, f + b * L, (size_t)L * sizeof *f);
      }
    }
    ist_selector_free(s);
  }
}

/* The most sets there are, and scores at which one set has all the probability. */
static void test_saturated(void **state) {
  (void)state;
  const int64_t sizes[] = {2, 3, 4, 5, 8, 33};
  for (int c = 0; c < 6; c++) {
    int64_t L = sizes[c];
    ist_select_options o = options(IST_SELECT_IST, 5);
    o.candidates = 8;
    ist_selector *s = make(L, &o);
    double *score = ist_selector_get_state(s).suppressibility;
    for (int64_t i = 0; i < L; i++) score[i] = i % 2 ? 500 : -500;
    float f[8 * 33];
    int64_t n = ist_selector_propose(s, 10, f);
    assert_int_equal(n, L == 2 ? 2 : L == 3 ? 3 : L == 4 ? 6 : 8);
    for (int64_t a = 0; a < n; a++) {
      assert_int_equal(members(f + a * L, L, 0.25f), L / 2);
      for (int64_t b = 0; b < a; b++)
        assert_memory_not_equal(f + a * L, f + b * L, (size_t)L * sizeof *f);
    }
    /* The first is the set of the layers at +500; the draw prefers those at -500. */
    uint8_t active[33];
    int64_t drawn = ist_selector_draw(s, 10, active);
    for (int64_t i = 0; i < L; i++) {
      assert_int_equal(f[i] < 1, i % 2);
      if (active[i]) assert_int_equal(i % 2, 0);
    }
    assert_int_equal(drawn, L < 4 ? 1 : L / 4);
    double loss[8] = {0};
    ist_selector_observe(s, 10, loss, n);
    for (int64_t i = 0; i < L; i++) assert_true(score[i] == (i % 2 ? 500 : -500));
    ist_selector_free(s);
  }
}

/* A draw depends on seed, step and scores only: not on what was drawn before. */
static void test_determinism(void **state) {
  (void)state;
  enum { L = 30 };
  for (int kind = IST_SELECT_IST; kind <= IST_SELECT_RANDOM; kind++) {
    ist_select_options o = options((ist_selector_kind)kind, 9);
    ist_selector *a = make(L, &o), *b = make(L, &o);
    o.seed = 9 + (1ull << 32);
    ist_selector *c = make(L, &o);
    uint8_t x[L], y[L], z[L];
    float fx[3 * L], fy[3 * L];
    int differ = 0, changes = 0;
    for (int64_t t = 0; t < 100; t++) {
      assert_int_equal(ist_selector_draw(a, t, x), 7);
      if (t % 3 == 0) ist_selector_propose(a, t, fx);
    }
    for (int64_t t = 99; t >= 0; t--) {
      memcpy(z, x, sizeof z);
      ist_selector_draw(a, t, x);
      ist_selector_draw(b, t, y);
      assert_memory_equal(x, y, sizeof x);
      changes += memcmp(x, z, sizeof x) != 0;
      ist_selector_draw(c, t, y);
      differ += memcmp(x, y, sizeof x) != 0;
      int64_t n = ist_selector_propose(a, t, fx);
      ist_selector_propose(b, t, fy);
      assert_memory_equal(fx, fy, (size_t)(n * L) * sizeof *fx);
    }
    assert_true(differ > 95 && changes > 95);
    ist_selector_free(a);
    ist_selector_free(b);
    ist_selector_free(c);
  }
}

static void test_restored_state(void **state) {
  (void)state;
  enum { L = 12 };
  ist_select_options o = options(IST_SELECT_IST, 77);
  ist_selector *a = make(L, &o), *b = make(L, &o);
  float f[3 * L], g[3 * L];
  uint8_t x[L], y[L];
  ist_rng r = ist_rng_stream(1, IST_RNG_TEST, 1, 0, 0);
  for (int64_t t = 1; t < 400; t++) {
    if (ist_selector_wants_probe(a, t)) {
      ist_selector_propose(a, t, f);
      double loss[3];
      for (int k = 0; k < 3; k++) loss[k] = ist_rng_uniform(&r);
      ist_selector_observe(a, t, loss, 3);
      if (t > 200) {
        ist_selector_propose(b, t, g);
        assert_memory_equal(f, g, sizeof f);
        ist_selector_observe(b, t, loss, 3);
      }
    }
    ist_selector_draw(a, t, x);
    if (t == 200) {
      ist_selector_state from = ist_selector_get_state(a), to = ist_selector_get_state(b);
      assert_int_equal(to.L, L);
      memcpy(to.suppressibility, from.suppressibility, L * sizeof(double));
      memcpy(to.observed, from.observed, L * sizeof(int64_t));
      memcpy(to.drawn, from.drawn, L * sizeof(int64_t));
    } else if (t > 200) {
      ist_selector_draw(b, t, y);
      assert_memory_equal(x, y, sizeof x);
    }
  }
  assert_memory_equal(ist_selector_get_state(a).drawn, ist_selector_get_state(b).drawn,
                      L * sizeof(int64_t));
  ist_selector_free(a);
  ist_selector_free(b);
}

static void test_redraw_every(void **state) {
  (void)state;
  enum { L = 40 };
  ist_select_options o = options(IST_SELECT_RANDOM, 4);
  o.redraw_every = 7;
  ist_selector *s = make(L, &o);
  uint8_t first[L], x[L], previous[L] = {0};
  int changes = 0;
  for (int64_t t = 0; t < 140; t++) {
    assert_int_equal(ist_selector_draw(s, t, x), 10);
    if (t % 7 == 0) {
      changes += memcmp(x, previous, L) != 0;
      memcpy(first, x, L);
    }
    assert_memory_equal(x, first, L);
    memcpy(previous, x, L);
  }
  assert_int_equal(changes, 20);
  ist_selector_free(s);
}

static void test_floor(void **state) {
  (void)state;
  enum { L = 16 };
  static const int64_t expected_without_floor[] = {4, 4, L, 3};
  for (int kind = IST_SELECT_IST; kind <= IST_SELECT_FIXED; kind++) {
    ist_select_options o = options((ist_selector_kind)kind, 4);
    o.fixed = (const int32_t[]){15, 2, 9};
    o.n_fixed = 3;
    for (int64_t floor = 0; floor < L; floor++) {
      o.depth_floor = floor;
      ist_selector *s = make(L, &o);
      const int64_t expected[] = {L - floor < 4 ? L - floor : 4, L - floor < 4 ? L - floor : 4,
                                  L - floor, 1 + (floor <= 9) + (floor <= 2)};
      uint8_t x[L];
      int64_t n = ist_selector_draw(s, 4 * floor, x), count = 0;
      assert_int_equal(n, expected[kind]);
      for (int64_t i = 0; i < L; i++) {
        count += x[i];
        assert_false(x[i] && i < floor);
        if (kind == IST_SELECT_FIXED && x[i]) assert_true(i == 2 || i == 9 || i == 15);
      }
      assert_int_equal(count, n);
      int64_t every_fourth = ist_selector_draw(s, 4 * floor + 3, x);
      assert_int_equal(every_fourth, expected_without_floor[kind]);
      ist_selector_free(s);
    }
  }
}

/* How little the loss minds a layer's damping, turned round: 1 / (1 + e^s). */
static void test_importance(void **state) {
  (void)state;
  ist_select_options o = options(IST_SELECT_IST, 0);
  ist_selector *s = make(4, &o);
  static const double score[4] = {0, 2, -2, 700};
  static const double want[4] = {0.5, 0.1192029220221, 0.8807970779779, 0};
  for (int i = 0; i < 4; i++) ist_selector_get_state(s).suppressibility[i] = score[i];
  for (int i = 0; i < 4; i++) assert_true(fabs(ist_selector_importance(s, i) - want[i]) < 1e-12);
  ist_selector_free(s);
}

static void append(char text[200], int layer) {
  size_t len = strlen(text);
  snprintf(text + len, 200 - len, "%d ", layer);
}

/* A seed draws the same layers and the same candidates in every version: what was found once. */
static void test_a_seed_stays_what_it_is(void **state) {
  (void)state;
  static const char *const found[] = {
      [IST_SELECT_IST] = "3 4 8 1 2 6 6 7 9 3 6 7 9 10 11 2 4 5 8 9 10 1 2 4 5 9 11 ",
      [IST_SELECT_RANDOM] = "4 6 10 1 3 8 8 9 11 "};
  for (int kind = IST_SELECT_IST; kind <= IST_SELECT_RANDOM; kind++) {
    ist_select_options o = options((ist_selector_kind)kind, 42);
    ist_selector *s = make(12, &o);
    char text[200] = "";
    uint8_t active[12];
    float factor[IST_MAX_CANDIDATES * 12];
    for (int64_t i = 0; i < 12; i++)
      ist_selector_get_state(s).suppressibility[i] = 0.3 * (double)(i - 6);
    for (int64_t t = 0; t < 3; t++) {
      ist_selector_draw(s, t, active);
      for (int i = 0; i < 12; i++)
        if (active[i]) append(text, i);
    }
    int64_t n = ist_selector_propose(s, 10, factor);
    for (int64_t i = 0; i < 12 * n; i++)
      if (factor[i] < 1) append(text, (int)(i % 12));
    ist_selector_free(s);
    assert_string_equal(text, found[kind]);
  }
}

static void test_refused_options(void **state) {
  (void)state;
  ist_select_options o = options(IST_SELECT_IST, 0);
  refused(0, &o, "0 layers");
  o.active_ratio = 0;
  refused(8, &o, "active ratio");
  o.active_ratio = NAN;
  refused(8, &o, "active ratio");
  o = options(IST_SELECT_IST, 0);
  o.suppress_ratio = 1.5;
  refused(8, &o, "1.5");
  o = options(IST_SELECT_IST, 0);
  o.candidates = 1;
  refused(8, &o, "1 candidate");
  o.candidates = 9;
  refused(8, &o, "2 to 8");
  o = options(IST_SELECT_IST, 0);
  o.interval = 0;
  refused(8, &o, "interval");
  o = options(IST_SELECT_IST, 0);
  static const float factor[] = {-0.25f, NAN, INFINITY};
  for (int i = 0; i < 3; i++) {
    o.factor = factor[i];
    refused(8, &o, "suppression factor");
  }
  o = options(IST_SELECT_RANDOM, 0);
  o.redraw_every = 0;
  refused(8, &o, "between draws");
  o = options(IST_SELECT_ALL, 0);
  o.depth_floor = 8;
  refused(8, &o, "lowest layer is 8");
  o = options(IST_SELECT_FIXED, 0);
  refused(8, &o, "no fixed layers");
  o.fixed = (const int32_t[]){1, 8};
  o.n_fixed = 2;
  refused(8, &o, "fixed layer 8");
  o.fixed = (const int32_t[]){1, 1};
  refused(8, &o, "twice");
  assert_int_equal(ist_selector_kind_from_name("ist"), IST_SELECT_IST);
  assert_int_equal(ist_selector_kind_from_name("random"), IST_SELECT_RANDOM);
  assert_int_equal(ist_selector_kind_from_name("all"), IST_SELECT_ALL);
  assert_int_equal(ist_selector_kind_from_name("fixed"), IST_SELECT_FIXED);
  assert_int_equal(ist_selector_kind_from_name("best"), -1);
}

static void test_no_memory(void **state) {
  (void)state;
  ist_select_options o = options(IST_SELECT_IST, 0);
  ist_selector *s;
  for (uint64_t n = 1;; n++) {
    assert_true(n < 20);
    ist_alloc_fail_at(n);
    ist_status status = ist_selector_new(&s, 8, &o, NULL);
    ist_alloc_fail_at(0);
    if (status == IST_OK) break;
    assert_int_equal(status, IST_ERR_NOMEM);
  }
  uint64_t before = ist_alloc_count();
  float f[24];
  uint8_t x[8];
  for (int64_t i = 0; i < 8; i++) ist_selector_get_state(s).suppressibility[i] = i < 4 ? 60 : -60;
  ist_selector_propose(s, 10, f);
  ist_selector_draw(s, 10, x);
  assert_int_equal(ist_alloc_count(), before);
  ist_selector_free(s);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_scores_exp),
      cmocka_unit_test(test_scores_normalised),
      cmocka_unit_test(test_not_finite_leaves_scores),
      cmocka_unit_test(test_probe_times),
      cmocka_unit_test(test_small_models),
      cmocka_unit_test(test_saturated),
      cmocka_unit_test(test_determinism),
      cmocka_unit_test(test_restored_state),
      cmocka_unit_test(test_redraw_every),
      cmocka_unit_test(test_floor),
      cmocka_unit_test(test_importance),
      cmocka_unit_test(test_a_seed_stays_what_it_is),
      cmocka_unit_test(test_refused_options),
      cmocka_unit_test(test_no_memory),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
