/* PEFT's matching rules, against what PEFT 0.21.2 answers (noted beside the cases). */
#include "files.h"

#include <jansson.h>
#include <math.h>

#include "format/peft_match.h"

#define NAMES(...)                                                             \
  {                                                                            \
    (const char *const[]){__VA_ARGS__},                                        \
        (int64_t)(sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *)) \
  }
enum { MOST_KEYS = 32768 }; /* patterns of a kind */
#define Q(n)  "model.layers." #n ".self_attn.q_proj"
#define UP(n) "model.layers." #n ".mlp.up_proj"

static ist_peft_module find(const ist_peft_config *c, const char *path, ist_peft_kind kind) {
  ist_peft_rules *r;
  ist_error err;
  assert_int_equal(ist_peft_rules_new(&r, c, &err), IST_OK);
  ist_peft_module m = ist_peft_rules_find(r, path, kind);
  ist_peft_rules_free(r);
  return m;
}

static bool is_target(const ist_peft_config *c, const char *path) {
  return find(c, path, IST_PEFT_LINEAR).target;
}

/* Patterns that take some ten thousand steps each: few may, thousands would take hours for a
 * model's modules. */
static void test_many_patterns(void **state) {
  (void)state;
  enum { MANY = 3000 };
  static char keys[MANY][32];
  static ist_peft_pattern patterns[MOST_KEYS + 1];
  for (int i = 0; i < MANY; i++) {
    snprintf(keys[i], sizeof keys[i], "(?#%d).*.*.*[#!]", i);
    patterns[i] = (ist_peft_pattern){keys[i], 4};
  }
  ist_peft_config c = {.r = 8,
                       .alpha = 8,
                       .targets = NAMES("q_proj"),
                       .rank_pattern = patterns,
                       .n_rank_pattern = 3};
  assert_int_equal(find(&c, Q(0), IST_PEFT_LINEAR).r, 8);
  c.n_rank_pattern = MANY;
  ist_peft_rules *r;
  ist_error err = {0};
  assert_int_equal(ist_peft_rules_new(&r, &c, &err), IST_OK);
  ist_peft_rules_find(r, Q(0), IST_PEFT_LINEAR);
  assert_error(ist_peft_rules_check(r, &err), IST_ERR_FORMAT, &err,
               "rank_pattern: an expression gave up");
  ist_peft_rules_free(r);
  for (int i = 0; i <= MOST_KEYS; i++) patterns[i] = (ist_peft_pattern){"q_proj", 4};
  c.n_rank_pattern = MOST_KEYS;
  assert_int_equal(find(&c, Q(0), IST_PEFT_LINEAR).r, 4);
  /* The targets' expression is one, and may take its ten thousand beside them. */
  ist_peft_config one = c;
  one.targets = (ist_peft_names){0};
  one.target_regex = ".*.*.*[#!]|.*q_proj";
  assert_true(is_target(&one, Q(0)));
  c.n_rank_pattern = MOST_KEYS + 1;
  assert_error(ist_peft_rules_new(&r, &c, &err), IST_ERR_UNSUPPORTED, &err,
               "rank_pattern: found 32769 expressions");
}

static void test_lists(void **state) {
  (void)state;
  ist_peft_config c = {
      .r = 8, .alpha = 8, .targets = NAMES("q_proj", "model.layers.2.mlp.up_proj")};
  assert_true(is_target(&c, Q(0)) && is_target(&c, UP(2)) && is_target(&c, "q_proj"));
  assert_false(is_target(&c, UP(1)) || is_target(&c, "model.layers.0.xq_proj"));
  c.exclude = (ist_peft_names)NAMES("layers.1.self_attn.q_proj");
  assert_false(is_target(&c, Q(1)));
  assert_true(is_target(&c, Q(11)));
  c.modules_to_save = (ist_peft_names)NAMES("q_proj");
  ist_peft_module m = find(&c, Q(0), IST_PEFT_LINEAR);
  assert_true(m.saved && !m.target);
}

static void test_layers(void **state) {
  (void)state;
  static const int64_t layers[] = {1, 10};
  ist_peft_config c = {.r = 8,
                       .alpha = 8,
                       .targets = NAMES("q_proj", "model.layers.3.mlp.up_proj"),
                       .layers = layers,
                       .n_layers = 2};
  assert_true(is_target(&c, Q(1)) && is_target(&c, Q(10)));
  assert_false(is_target(&c, Q(0)) || is_target(&c, Q(110)));
  assert_true(is_target(&c, UP(3)));                        /* a whole name goes past the layers */
  assert_false(is_target(&c, "layers.1.self_attn.q_proj")); /* PEFT wants a parent */
  assert_false(is_target(&c, "lm.q_proj"));
  assert_true(is_target(&c, "model.layers.1.experts.0.q_proj")); /* the first number counts */
  assert_false(is_target(&c, "model.layers.0.experts.1.q_proj"));
  c.layers_pattern = (ist_peft_names)NAMES("blocks", "(lay)ers");
  assert_true(is_target(&c, Q(1)) && is_target(&c, "layers.10.q_proj"));
  c.layers_pattern = (ist_peft_names)NAMES("h");
  assert_false(is_target(&c, Q(1)));
}

static void test_expressions(void **state) {
  (void)state;
  ist_peft_config c = {.r = 8, .alpha = 8, .target_regex = ".*layers\\.[02]\\..*(q|k)_proj"};
  assert_true(is_target(&c, Q(0)) && is_target(&c, Q(2)));
  assert_false(is_target(&c, Q(1)) || is_target(&c, Q(0) "x"));
  c.exclude_regex = ".*\\.2\\..*";
  assert_false(is_target(&c, Q(2)));
  c = (ist_peft_config){.r = 8, .alpha = 8, .target_regex = "all-linear"};
  assert_true(is_target(&c, Q(0)) && is_target(&c, UP(3)));
  assert_false(find(&c, "lm_head", IST_PEFT_HEAD).target);
  assert_false(find(&c, "model.embed_tokens", IST_PEFT_EMBEDDING).target);
}

static void test_patterns(void **state) {
  (void)state;
  static const ist_peft_pattern rank[] = {{"layers.1.self_attn.q_proj", 4}, {"q_proj", 16}};
  static const ist_peft_pattern alpha[] = {{"^model\\.layers\\.[0-2]\\..*q_proj", 3},
                                           {".*_proj", 32}};
  ist_peft_config c = {.r = 8,
                       .alpha = 10,
                       .targets = NAMES("q_proj"),
                       .rank_pattern = rank,
                       .n_rank_pattern = 2,
                       .alpha_pattern = alpha,
                       .n_alpha_pattern = 2};
  ist_peft_module m = find(&c, Q(1), IST_PEFT_LINEAR);
  assert_true(m.r == 4 && m.alpha == 3 && m.scale == 0.75);
  m = find(&c, Q(11), IST_PEFT_LINEAR); /* not layers.1: the dot must stand before the key */
  assert_true(m.r == 16 && m.alpha == 32 && m.scale == 2);
  m = find(&c, UP(0), IST_PEFT_LINEAR);
  assert_true(m.r == 8 && m.alpha == 32);
  c.rslora = true;
  m = find(&c, Q(1), IST_PEFT_LINEAR);
  assert_true(m.scale == 1.5);
  m = find(&c, "lm_head", IST_PEFT_HEAD);
  assert_true(m.r == 8 && fabs(m.scale - 10 / sqrt(8)) < 1e-15);
}

static void test_refusals(void **state) {
  (void)state;
  static const ist_peft_pattern broken[] = {{"q[", 4}};
  static const int64_t layers[] = {1};
  ist_peft_rules *r;
  ist_error err;
  ist_peft_config c = {.r = 8, .alpha = 8, .target_regex = "(q"};
  assert_int_equal(ist_peft_rules_new(&r, &c, &err), IST_ERR_FORMAT);
  assert_non_null(strstr(err.message, "target_modules: found \"(q\""));
  c = (ist_peft_config){.r = 8, .alpha = 8, .alpha_pattern = broken, .n_alpha_pattern = 1};
  assert_int_equal(ist_peft_rules_new(&r, &c, &err), IST_ERR_FORMAT);
  assert_non_null(strstr(err.message, "alpha_pattern"));
  c = (ist_peft_config){.r = 8, .alpha = 8, .target_regex = "q", .layers = layers, .n_layers = 1};
  assert_int_equal(ist_peft_rules_new(&r, &c, &err), IST_ERR_FORMAT);
  assert_non_null(strstr(err.message, "layers_to_transform"));
  assert_null(r);
  ist_peft_rules_free(NULL);
}

/* Few bytes that compile to many, and patterns each of which takes little too much. */
static void test_budgets(void **state) {
  (void)state;
  enum { MANY = 2000, PATHS = 2000 };
  static char keys[MANY][32];
  static ist_peft_pattern patterns[MANY];
  for (int i = 0; i < MANY; i++) {
    snprintf(keys[i], sizeof keys[i], "(?:ab){6000}%d", i);
    patterns[i] = (ist_peft_pattern){keys[i], 4};
  }
  ist_peft_config c = {.r = 8,
                       .alpha = 8,
                       .targets = NAMES("q_proj"),
                       .rank_pattern = patterns,
                       .n_rank_pattern = MANY / 4,
                       .alpha_pattern = patterns,
                       .n_alpha_pattern = MANY / 4};
  ist_peft_rules *r;
  ist_error err = {0};
  assert_int_equal(ist_peft_rules_new(&r, &c, &err), IST_OK);
  ist_peft_rules_free(r);
  c.n_alpha_pattern = MANY;
  assert_error(ist_peft_rules_new(&r, &c, &err), IST_ERR_UNSUPPORTED, &err,
               "alpha_pattern: the expressions would take more than 64 MiB");

  for (int i = 0; i < MANY; i++) snprintf(keys[i], sizeof keys[i], "(?#%d).*.*[^a-z._0-9]", i);
  c.n_rank_pattern = 200;
  c.n_alpha_pattern = 0;
  assert_int_equal(ist_peft_rules_new(&r, &c, &err), IST_OK);
  int paths = 0;
  while (paths < PATHS && ist_peft_rules_check(r, NULL) == IST_OK) {
    ist_peft_rules_find(r, Q(0), IST_PEFT_LINEAR);
    paths++;
  }
  assert_in_range(paths, 100, PATHS - 1);
  assert_error(ist_peft_rules_check(r, &err), IST_ERR_FORMAT, &err, "rank_pattern: an expression");
  ist_peft_rules_free(r);
}

/* What a hostile adapter may bring. */
static void test_limits(void **state) {
  (void)state;
  static const int64_t layers[] = {0, 1};
  ist_peft_rules *r;
  ist_error err;
  ist_buf text = {0};
  for (int groups = 0; groups <= 5000; groups += 5000) {
    ist_buf_clear(&text);
    for (int i = 0; i < groups; i++) ist_buf_str(&text, "()");
    ist_buf_str(&text, "(?:(?:.|.+)+)+[^a-z0-9_.]");
    ist_peft_config c = {.r = 8, .alpha = 8, .target_regex = text.p};
    assert_int_equal(ist_peft_rules_new(&r, &c, &err), IST_OK);
    assert_int_equal(ist_peft_rules_check(r, &err), IST_OK);
    assert_false(ist_peft_rules_find(r, Q(0), IST_PEFT_LINEAR).target);
    assert_int_equal(ist_peft_rules_check(r, &err), IST_ERR_FORMAT);
    if (!strstr(err.message, "target_modules: an expression gave up")) fail_msg("%s", err.message);
    ist_peft_rules_free(r);
  }
  ist_buf_free(&text);

  /* Groups count as what they are, however many there are. */
  ist_peft_config c = {.r = 8, .alpha = 8, .target_regex = "()()()()()()()()().*q_proj"};
  assert_true(is_target(&c, Q(0)));
  c = (ist_peft_config){
      .r = 8, .alpha = 8, .targets = NAMES("q_proj"), .layers = layers, .n_layers = 2};
  c.layers_pattern = (ist_peft_names)NAMES("()()()()()()()()()layers");
  assert_true(is_target(&c, Q(1)));
  c.layers_pattern = (ist_peft_names)NAMES("(*ACCEPT)"); /* without a number */
  assert_false(is_target(&c, Q(1)));
  c.layers_pattern = (ist_peft_names)NAMES("x)(?x)(.*)#"); /* whose last group is no number */
  assert_int_equal(ist_peft_rules_new(&r, &c, &err), IST_ERR_FORMAT);
  assert_non_null(strstr(err.message, "layers_pattern: found \"x)"));
}

/* ---- A table of what PEFT answers (tests/golden/make_peft_match.py) ---- */

enum { MOST = 16 };

/* A config with room for what it points to. */
typedef struct roomy {
  ist_peft_config c;
  const char *name[3][MOST];
  ist_peft_pattern pattern[2][MOST];
  int64_t layer[MOST];
} roomy;

static void take_names(roomy *r, int i, const json_t *v, ist_peft_names *out, const char **regex) {
  if (json_is_string(v) && regex) *regex = json_string_value(v);
  if (json_is_string(v) && regex) return;
  out->p = r->name[i];
  if (json_is_string(v)) r->name[i][out->n++] = json_string_value(v);
  for (size_t k = 0; k < json_array_size(v); k++)
    r->name[i][out->n++] = json_string_value(json_array_get(v, k));
}

static int64_t take_patterns(ist_peft_pattern *out, json_t *v) {
  const char *key;
  json_t *value;
  int64_t n = 0;
  json_object_foreach(v, key, value) out[n++] = (ist_peft_pattern){key, json_number_value(value)};
  return n;
}

static void take_config(roomy *r, json_t *j) {
  *r = (roomy){.c = {.r = 8, .alpha = 16}};
  take_names(r, 0, json_object_get(j, "target_modules"), &r->c.targets, &r->c.target_regex);
  take_names(r, 1, json_object_get(j, "exclude_modules"), &r->c.exclude, &r->c.exclude_regex);
  take_names(r, 2, json_object_get(j, "layers_pattern"), &r->c.layers_pattern, NULL);
  json_t *save = json_object_get(j, "modules_to_save"), *layers;
  if (save) take_names(r, 2, save, &r->c.modules_to_save, NULL);
  layers = json_object_get(j, "layers_to_transform");
  if (json_is_integer(layers)) r->layer[r->c.n_layers++] = json_integer_value(layers);
  for (size_t k = 0; k < json_array_size(layers); k++)
    r->layer[r->c.n_layers++] = json_integer_value(json_array_get(layers, k));
  r->c.layers = r->layer;
  r->c.n_rank_pattern = take_patterns(r->pattern[0], json_object_get(j, "rank_pattern"));
  r->c.n_alpha_pattern = take_patterns(r->pattern[1], json_object_get(j, "alpha_pattern"));
  r->c.rank_pattern = r->pattern[0];
  r->c.alpha_pattern = r->pattern[1];
}

static void test_pefts_answers(void **state) {
  (void)state;
  json_t *root = json_load_file(IST_GOLDEN_DIR "/peft_match.json", 0, NULL);
  assert_non_null(root);
  json_t *paths = json_object_get(root, "paths"), *one;
  size_t i, k;
  json_array_foreach(json_object_get(root, "cases"), i, one) {
    roomy r;
    take_config(&r, json_object_get(one, "config"));
    json_t *found = json_object_get(one, "found");
    for (k = 0; k < json_array_size(paths); k++) {
      const char *path = json_string_value(json_array_get(paths, k));
      json_t *want = json_object_get(found, path);
      ist_peft_module m = find(&r.c, path, IST_PEFT_LINEAR);
      if (m.target != (want != NULL)) fail_msg("case %zu: %s: %d", i, path, m.target);
      if (!want) continue;
      assert_int_equal(m.r, json_integer_value(json_array_get(want, 0)));
      assert_true(m.alpha == json_number_value(json_array_get(want, 1)));
    }
  }
  assert_true(i >= 29);
  json_decref(root);
}

static void test_unused(void **state) {
  (void)state;
  static const ist_peft_pattern rank[] = {{"q_proj", 4}, {"up_proj", 16}};
  ist_peft_config c = {.r = 8,
                       .alpha = 8,
                       .targets = NAMES("q_proj", "wo"),
                       .exclude = NAMES("layers.1.self_attn.q_proj"),
                       .rank_pattern = rank,
                       .n_rank_pattern = 2};
  ist_peft_rules *r;
  ist_error err;
  const char *text;
  assert_int_equal(ist_peft_rules_new(&r, &c, &err), IST_OK);
  assert_string_equal(ist_peft_rules_unused(r, &text), "target_modules");
  ist_peft_rules_find(r, Q(0), IST_PEFT_LINEAR);
  assert_string_equal(ist_peft_rules_unused(r, &text), "target_modules");
  assert_string_equal(text, "wo");
  ist_peft_rules_find(r, "a.wo", IST_PEFT_LINEAR);
  assert_string_equal(ist_peft_rules_unused(r, &text), "exclude_modules");
  ist_peft_rules_find(r, Q(1), IST_PEFT_LINEAR);
  ist_peft_rules_find(r, UP(1), IST_PEFT_LINEAR); /* a pattern counts where it reaches a target */
  assert_string_equal(ist_peft_rules_unused(r, &text), "rank_pattern");
  assert_string_equal(text, "up_proj");
  ist_peft_rules_free(r);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_many_patterns), cmocka_unit_test(test_lists),
      cmocka_unit_test(test_layers),        cmocka_unit_test(test_expressions),
      cmocka_unit_test(test_patterns),      cmocka_unit_test(test_refusals),
      cmocka_unit_test(test_pefts_answers), cmocka_unit_test(test_unused),
      cmocka_unit_test(test_budgets),       cmocka_unit_test(test_limits),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
