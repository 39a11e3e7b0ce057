/* Settings of a config.json that no model can have: refused by name. What the families make of
 * good ones is in tests/eval/test_families.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "format/json.h"
#include "model/config.h"

/* A Llama of a vocabulary of 32, with more keys before the others. */
static ist_status read_config(const char *keys, ist_error *err) {
  static const char name[] = "model.embed_tokens.weight";
  const ist_gguf_tensor embed = {
      .name = {name, sizeof name - 1}, .type = IST_F32, .n_dims = 2, .ne = {32, 32, 1, 1}};
  const ist_gguf_tensor *by_name[] = {&embed};
  ist_source s = {.n = 1, .tensor = &embed, .by_name = by_name};
  ist_buf text = {0};
  ist_buf_printf(&text,
                 "{%s, \"model_type\": \"llama\", \"hidden_size\": 32, \"num_hidden_layers\": 1, "
                 "\"num_attention_heads\": 4, \"intermediate_size\": 32, \"vocab_size\": 32, "
                 "\"max_position_embeddings\": 64}",
                 keys);
  assert_int_equal(ist_json_parse(&s.config, text.p, text.len, err), IST_OK);
  ist_model_config c;
  ist_status status = ist_model_config_read(&c, &s, err);
  if (status == IST_OK) ist_model_config_free(&c);
  json_decref(s.config);
  ist_buf_free(&text);
  return status;
}

static void must_take(const char *keys) {
  ist_error err = {0};
  if (read_config(keys, &err) != IST_OK) fail_msg("%s: %s", keys, err.message);
}

static void must_refuse(const char *keys, const char *named) {
  ist_error err = {0};
  assert_int_equal(read_config(keys, &err), IST_ERR_FORMAT);
  if (!strstr(err.message, named)) fail_msg("%s: found \"%s\"", keys, err.message);
}

#define SCALED(...) "\"rope_scaling\": {" __VA_ARGS__ "}"
#define YARN        "\"rope_type\": \"yarn\", \"original_max_position_embeddings\": 32"
#define FOUR(x)     "[" x ", 1, 1, 1]"

static void test_rope(void **state) {
  (void)state;
  must_take("\"rope_theta\": 10000");
  must_take("\"rope_theta\": 0.5");
  must_take(SCALED("\"rope_type\": \"linear\", \"factor\": 0.5"));
  must_refuse("\"rope_theta\": 1e-38", "rope: base 1e-38 and factor 1 turn pair 1");
  must_refuse(SCALED("\"rope_type\": \"linear\", \"factor\": 1e-38"),
              "rope: base 10000 and factor");
  must_refuse("\"rope_theta\": 1e-38, " SCALED(YARN ", \"factor\": 1e-38"), "rope: base 1e-38");
  must_refuse(SCALED(YARN ", \"factor\": 4, \"attention_factor\": 1e38"), "attention factor");
  must_refuse(SCALED("\"rope_type\": \"longrope\", \"original_max_position_embeddings\": 32, "
                     "\"short_factor\": " FOUR("1") ", \"long_factor\": " FOUR("1e-30")),
              "long_factor[0]: found 1e-30");
}

/* q and k rows change places in pairs. */
static void test_odd_heads(void **state) {
  (void)state;
  must_take("\"head_dim\": 2");
  must_refuse("\"head_dim\": 1, \"partial_rotary_factor\": 0.5", "head_dim): found 1");
  must_refuse("\"head_dim\": 3, \"partial_rotary_factor\": 0.7", "head_dim): found 3");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_rope),
      cmocka_unit_test(test_odd_heads),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
