/* PEFT's matching rules, against what PEFT 0.21.2 answers (noted beside the cases). */
#include "files.h"

#include <math.h>

#include "format/peft_match.h"

#define NAMES(...)                                                             \
  {                                                                            \
    (const char *const[]){__VA_ARGS__},                                        \
        (int64_t)(sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *)) \
  }
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

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_lists),       cmocka_unit_test(test_layers),
      cmocka_unit_test(test_expressions), cmocka_unit_test(test_patterns),
      cmocka_unit_test(test_refusals),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
