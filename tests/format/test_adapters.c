/* PEFT adapter directories and LoRA adapters in GGUF. */
#include "files.h"

#include <math.h>

#include "format/gguf.h"
#include "format/lora_gguf.h"
#include "format/peft_dir.h"
#include "format/quant.h"

#define PREFIX "base_model.model.model.layers.0.self_attn."

static char *folder, *config_path, *weights_path, *gguf_path;
static float a[2 * 3] = {1, 2, 3, 4, 5, 6}, b[4 * 2] = {-1, -2, -3, -4, -5, -6, -7, -8};
static const ist_st_item tensors[] = {
    {PREFIX "q_proj.lora_A.weight", IST_F32, 2, {2, 3}, .data = a},
    {PREFIX "q_proj.lora_B.weight", IST_F32, 2, {4, 2}, .data = b}};

static int setup(void **state) {
  (void)state;
  folder = make_folder();
  config_path = ist_path_join(folder, "adapter_config.json");
  weights_path = ist_path_join(folder, "adapter_model.safetensors");
  gguf_path = ist_path_join(folder, "adapter.gguf");
  return 0;
}

static int teardown(void **state) {
  (void)state;
  ist_free(config_path);
  ist_free(weights_path);
  ist_free(gguf_path);
  remove_folder(folder);
  return 0;
}

/* ---- PEFT ---- */

static const char *const targets[] = {"q_proj", "v_proj"};

static void test_config_bytes(void **state) {
  (void)state;
  ist_peft_config c = {
      .base_model = "someone/model", .r = 2, .alpha = 16, .dropout = 0.05, .targets = {targets, 2}};
  ist_error err = {0};
  assert_int_equal(ist_peft_write(folder, &c, tensors, 2, &err), IST_OK);
  ist_buf got = {0};
  assert_int_equal(ist_file_read(&got, config_path, 1 << 16, &err), IST_OK);
  /* As Python's json.dumps(..., sort_keys=True, indent=2) prints it. */
  assert_string_equal(got.p,
                      "{\n"
                      "  \"alpha_pattern\": {},\n"
                      "  \"auto_mapping\": null,\n"
                      "  \"base_model_name_or_path\": \"someone/model\",\n"
                      "  \"bias\": \"none\",\n"
                      "  \"exclude_modules\": null,\n"
                      "  \"fan_in_fan_out\": false,\n"
                      "  \"inference_mode\": true,\n"
                      "  \"init_lora_weights\": true,\n"
                      "  \"layers_pattern\": null,\n"
                      "  \"layers_to_transform\": null,\n"
                      "  \"loftq_config\": {},\n"
                      "  \"lora_alpha\": 16,\n"
                      "  \"lora_dropout\": 0.05,\n"
                      "  \"modules_to_save\": null,\n"
                      "  \"peft_type\": \"LORA\",\n"
                      "  \"r\": 2,\n"
                      "  \"rank_pattern\": {},\n"
                      "  \"revision\": null,\n"
                      "  \"target_modules\": [\n"
                      "    \"q_proj\",\n"
                      "    \"v_proj\"\n"
                      "  ],\n"
                      "  \"task_type\": \"CAUSAL_LM\",\n"
                      "  \"use_dora\": false,\n"
                      "  \"use_rslora\": false\n"
                      "}");
  ist_buf_free(&got);
}

static void test_peft_round_trip(void **state) {
  (void)state;
  static const char *const save[] = {"lm_head"}, *const pattern[] = {"layers"};
  static const ist_peft_pattern ranks[] = {{"a.q_proj", 4}, {"b.q_proj", 1}},
                                alphas[] = {{"x", 0.1}};
  static const int64_t layers[] = {0, 3};
  ist_peft_config c = {.r = 2,
                       .alpha = 1 / 3.0,
                       .rslora = true,
                       .dora = true,
                       .fan_in_fan_out = true,
                       .target_regex = ".*\\.q_proj",
                       .exclude_regex = "x\"y",
                       .modules_to_save = {save, 1},
                       .rank_pattern = ranks,
                       .n_rank_pattern = 2,
                       .alpha_pattern = alphas,
                       .n_alpha_pattern = 1,
                       .layers = layers,
                       .n_layers = 2,
                       .layers_pattern = {pattern, 1}};
  ist_error err = {0};
  assert_int_equal(ist_peft_write(folder, &c, tensors, 2, &err), IST_OK);
  ist_peft_dir *d;
  assert_int_equal(ist_peft_open(&d, folder, &err), IST_OK);
  const ist_peft_config *r = &d->config;
  assert_null(r->base_model);
  assert_int_equal(r->r, 2);
  assert_true(r->alpha == 1 / 3.0 && r->dropout == 0);
  assert_true(r->rslora && r->dora && r->fan_in_fan_out);
  assert_int_equal(r->targets.n, 0);
  assert_string_equal(r->target_regex, ".*\\.q_proj");
  assert_string_equal(r->exclude_regex, "x\"y");
  assert_int_equal(r->modules_to_save.n, 1);
  assert_string_equal(r->modules_to_save.p[0], "lm_head");
  assert_int_equal(r->n_rank_pattern, 2);
  assert_string_equal(r->rank_pattern[1].key, "b.q_proj");
  assert_true(r->rank_pattern[0].value == 4 && r->alpha_pattern[0].value == 0.1);
  assert_int_equal(r->n_layers, 2);
  assert_int_equal(r->layers[1], 3);
  assert_string_equal(r->layers_pattern.p[0], "layers");
  assert_int_equal(d->tensors->n, 2);
  const ist_st_tensor *t = ist_safetensors_find(d->tensors, PREFIX "q_proj.lora_B.weight");
  assert_int_equal(t->shape[0], 4);
  assert_memory_equal(t->data, b, sizeof b);
  assert_string_equal(ist_safetensors_meta(d->tensors, "format"), "pt");
  ist_peft_close(d);
  ist_peft_close(NULL);
}

static ist_status open_config(const char *json, ist_peft_dir **d, ist_error *err) {
  write_bytes(config_path, json, strlen(json));
  return ist_peft_open(d, folder, err);
}

/* What PEFT's own files hold besides: all defaults written, lists, single values. */
static void test_peft_reader_is_liberal(void **state) {
  (void)state;
  ist_error err = {0};
  ist_peft_dir *d;
  assert_int_equal(ist_safetensors_write(weights_path, tensors, 2, NULL, 0, &err), IST_OK);
  assert_int_equal(
      open_config(
          "{\"alora_invocation_tokens\": null, \"alpha_pattern\": {}, \"arrow_config\": null,"
          " \"bias\": \"none\", \"corda_config\": null, \"ensure_weight_tying\": false,"
          " \"eva_config\": {\"rho\": 2.0}, \"init_lora_weights\": \"eva\", \"layer_replication\": "
          "null,"
          " \"layers_pattern\": \"h\", \"layers_to_transform\": 7, \"loftq_config\": {}, "
          "\"lora_alpha\": 12.5,"
          " \"lora_bias\": false, \"megatron_core\": \"megatron.core\", \"modules_to_save\": null,"
          " \"peft_type\": \"LORA\", \"qalora_group_size\": 16, \"rank_pattern\": null,"
          " \"target_modules\": \"all-linear\", \"trainable_token_indices\": null, \"use_qalora\": "
          "false,"
          " \"use_dora\": null, \"something_new\": {}}\n",
          &d, &err),
      IST_OK);
  assert_int_equal(d->config.r, 8);
  assert_true(d->config.alpha == 12.5);
  assert_string_equal(d->config.target_regex, "all-linear");
  assert_int_equal(d->config.n_layers, 1);
  assert_int_equal(d->config.layers[0], 7);
  assert_string_equal(d->config.layers_pattern.p[0], "h");
  ist_peft_close(d);

  assert_int_equal(open_config("{\"peft_type\":\"LORA\",\"init_lora_weights\":false}", &d, &err),
                   IST_OK);
  assert_true(d->config.targets.n == 0 && !d->config.target_regex && d->config.alpha == 8);
  ist_peft_close(d);
}

static void test_peft_refusals(void **state) {
  (void)state;
  static const struct {
    const char *rest;
    ist_status code;
    const char *part;
  } c[] = {
      {"\"bias\":\"all\"", IST_ERR_UNSUPPORTED, "bias is 'all'"},
      {"\"lora_bias\":2", IST_ERR_FORMAT, "lora_bias is an integer"},
      {"\"lora_bias\":true,\"use_dora\":true", IST_ERR_UNSUPPORTED, "use_dora together with"},
      {"\"trainable_token_indices\":[3]", IST_ERR_UNSUPPORTED, "trainable_token_indices"},
      {"\"layer_replication\":[[0,4]]", IST_ERR_UNSUPPORTED, "layer_replication"},
      {"\"megatron_config\":{\"a\":1}", IST_ERR_UNSUPPORTED, "megatron_config"},
      {"\"target_parameters\":[\"w\"]", IST_ERR_UNSUPPORTED, "target_parameters"},
      {"\"use_qalora\":true", IST_ERR_UNSUPPORTED, "use_qalora"},
      {"\"something_new\":[1]", IST_ERR_UNSUPPORTED, "adapters with something_new"},
      {"\"init_lora_weights\":\"pissa\"", IST_ERR_UNSUPPORTED, "init_lora_weights is 'pissa'"},
      {"\"init_lora_weights\":\"pissa_niter_4\"", IST_ERR_UNSUPPORTED, "pissa_niter_4"},
      {"\"init_lora_weights\":\"olora\"", IST_ERR_UNSUPPORTED, "olora"},
      {"\"init_lora_weights\":3", IST_ERR_FORMAT, "init_lora_weights is an integer"},
      {"\"r\":0", IST_ERR_FORMAT, "r is 0"},
      {"\"r\":-4", IST_ERR_FORMAT, "r is -4"},
      {"\"r\":4.5", IST_ERR_FORMAT, "r is a real number, expected an integer"},
      {"\"r\":9999999999", IST_ERR_FORMAT, "r is 9999999999"},
      {"\"lora_alpha\":\"8\"", IST_ERR_FORMAT, "lora_alpha is a string"},
      {"\"lora_alpha\":NaN", IST_ERR_FORMAT, "not valid JSON"},
      {"\"lora_alpha\":1e999", IST_ERR_FORMAT, "not valid JSON"},
      {"\"lora_dropout\":1", IST_ERR_FORMAT, "lora_dropout is 1"},
      {"\"lora_dropout\":-0.1", IST_ERR_FORMAT, "lora_dropout is -0.1"},
      {"\"use_dora\":1", IST_ERR_FORMAT, "use_dora is an integer, expected true or false"},
      {"\"target_modules\":[\"q\",1]", IST_ERR_FORMAT,
       "target_modules is an integer, expected strings"},
      {"\"target_modules\":{}", IST_ERR_FORMAT, "target_modules is an object"},
      {"\"modules_to_save\":\"x\"", IST_ERR_FORMAT, "modules_to_save is a string, expected a list"},
      {"\"rank_pattern\":{\"q\":0}", IST_ERR_FORMAT, "rank_pattern 'q' is 0"},
      {"\"rank_pattern\":{\"q\":2.5}", IST_ERR_FORMAT, "rank_pattern 'q' is 2.5"},
      {"\"rank_pattern\":{\"q\":null}", IST_ERR_FORMAT, "rank_pattern 'q' is null"},
      {"\"alpha_pattern\":[]", IST_ERR_FORMAT, "alpha_pattern is a list"},
      {"\"layers_to_transform\":[0,-1]", IST_ERR_FORMAT, "layers_to_transform: entry 1"},
      {"\"r\":4,\"r\":8", IST_ERR_FORMAT, "duplicate"},
  };
  ist_error err = {0};
  assert_int_equal(ist_safetensors_write(weights_path, tensors, 2, NULL, 0, &err), IST_OK);
  ist_peft_dir *d;
  for (size_t i = 0; i < sizeof c / sizeof c[0]; i++) {
    char json[256];
    snprintf(json, sizeof json, "{\"peft_type\":\"LORA\",%s}", c[i].rest);
    assert_error(open_config(json, &d, &err), c[i].code, &err, c[i].part);
    assert_non_null(strstr(err.message, config_path));
    assert_null(d);
  }
  assert_error(open_config("{\"r\":4}", &d, &err), IST_ERR_FORMAT, &err, "peft_type is missing");
  assert_error(open_config("{\"peft_type\":\"IA3\"}", &d, &err), IST_ERR_UNSUPPORTED, &err,
               "'IA3'");
  assert_error(open_config("{\"fine_tune_type\":\"lora\",\"lora_parameters\":{}}", &d, &err),
               IST_ERR_UNSUPPORTED, &err, "mlx-lm");
  assert_error(open_config("[]", &d, &err), IST_ERR_FORMAT, &err, "expected an object");
  assert_error(open_config("", &d, &err), IST_ERR_FORMAT, &err, "not valid JSON");
}

static void test_peft_missing_files(void **state) {
  (void)state;
  ist_error err = {0};
  ist_peft_dir *d;
  unlink(weights_path);
  assert_error(open_config("{\"peft_type\":\"LORA\"}", &d, &err), IST_ERR_IO, &err,
               "adapter_model.safetensors");
  char *pickle = ist_path_join(folder, "adapter_model.bin");
  write_bytes(pickle, "PK", 2);
  assert_error(ist_peft_open(&d, folder, &err), IST_ERR_UNSUPPORTED, &err, "pickle");
  assert_non_null(strstr(err.hint, "safe_serialization"));
  unlink(pickle);
  ist_free(pickle);
  unlink(config_path);
  assert_error(ist_peft_open(&d, folder, &err), IST_ERR_IO, &err, "adapter_config.json");
}

static void test_peft_cannot_write(void **state) {
  (void)state;
  ist_error err = {0};
  ist_peft_config c = {.r = 2, .alpha = NAN, .targets = {targets, 2}};
  assert_error(ist_peft_write(folder, &c, tensors, 2, &err), IST_ERR_ARG, &err,
               "adapter_config.json");
  static const char *const bad[] = {"\xff"};
  c = (ist_peft_config){.r = 2, .alpha = 2, .targets = {bad, 1}};
  assert_error(ist_peft_write(folder, &c, tensors, 2, &err), IST_ERR_ARG, &err, "UTF-8");
  static const ist_peft_pattern pattern[] = {{"x", INFINITY}};
  c = (ist_peft_config){.r = 2, .alpha = 2, .alpha_pattern = pattern, .n_alpha_pattern = 1};
  assert_error(ist_peft_write(folder, &c, tensors, 2, &err), IST_ERR_ARG, &err,
               "adapter_config.json");
  assert_false(ist_file_exists(config_path));
}

static void test_peft_out_of_memory(void **state) {
  (void)state;
  static const ist_peft_pattern ranks[] = {{"a", 4}};
  static const int64_t layers[] = {1};
  ist_error err = {0};
  ist_peft_config c = {.r = 2,
                       .alpha = 2,
                       .targets = {targets, 2},
                       .layers = layers,
                       .n_layers = 1,
                       .rank_pattern = ranks,
                       .n_rank_pattern = 1,
                       .modules_to_save = {targets, 1}};
  assert_int_equal(ist_peft_write(folder, &c, tensors, 2, &err), IST_OK);
  uint64_t n = 1;
  for (ist_status s = IST_ERR_NOMEM; s != IST_OK; n++) {
    ist_peft_dir *d;
    ist_alloc_fail_at(n);
    s = ist_peft_open(&d, folder, &err);
    ist_alloc_fail_at(0);
    assert_true(s == IST_OK || s == IST_ERR_NOMEM);
    ist_peft_close(d);
  }
  assert_true(n > 10);
}

/* ---- GGUF ---- */

static const ist_lora_pair pairs[] = {{"blk.0.attn_q.weight", 3, 4, 2, 0, a, b},
                                      {"blk.1.ffn_down.weight", 2, 3, 2, 0, b, a}};

static void test_lora_gguf_round_trip(void **state) {
  (void)state;
  ist_error err = {0};
  assert_int_equal(ist_lora_gguf_write(gguf_path, "llama", 16, pairs, 2, &err), IST_OK);
  ist_gguf *g;
  assert_int_equal(ist_gguf_open(&g, gguf_path, &err), IST_OK);
  assert_int_equal(g->n_kv, 4);
  assert_int_equal(ist_gguf_find(g, "adapter.lora.alpha")->type, IST_GGUF_F32);
  const ist_gguf_tensor *t = ist_gguf_find_tensor(g, "blk.0.attn_q.weight.lora_a");
  assert_int_equal(t->ne[0], 3);
  assert_int_equal(t->ne[1], 2);
  assert_memory_equal(t->data, a, sizeof a);
  t = ist_gguf_find_tensor(g, "blk.0.attn_q.weight.lora_b");
  assert_int_equal(t->ne[0], 2);
  assert_int_equal(t->ne[1], 4);
  ist_gguf_close(g);

  ist_lora_gguf *l;
  assert_int_equal(ist_lora_gguf_open(&l, gguf_path, &err), IST_OK);
  assert_string_equal(l->architecture, "llama");
  assert_true(l->alpha == 16);
  assert_int_equal(l->n, 2);
  for (int i = 0; i < 2; i++) {
    const ist_lora_pair *p = &l->pair[i];
    assert_string_equal(p->name, pairs[i].name);
    assert_true(p->in == pairs[i].in && p->out == pairs[i].out && p->r == 2);
    assert_memory_equal(p->a, pairs[i].a, (size_t)(p->in * p->r) * 4);
    assert_memory_equal(p->b, pairs[i].b, (size_t)(p->out * p->r) * 4);
    assert_true(ist_lora_gguf_scale(l, p) == 8);
  }
  ist_lora_gguf_close(l);
  ist_lora_gguf_close(NULL);
}

/* A file with two tensors of these names and shapes, and optional keys. */
static void write_pair(const char *type, const char *name_a, int64_t in, int64_t ra,
                       const char *name_b, int64_t rb, ist_dtype dtype) {
  static unsigned char zeros[4096];
  ist_error err = {0};
  ist_gguf_writer *w = ist_gguf_writer_new();
  ist_gguf_put_str(w, "general.type", type, strlen(type));
  ist_gguf_put_str(w, "adapter.type", "lora", 4);
  ist_gguf_put_str(w, "general.architecture", "llama", 5);
  ist_gguf_put_tensor_data(w, name_b, IST_F32, 2, (int64_t[]){rb, 4}, zeros);
  ist_gguf_put_tensor_data(w, name_a, dtype, 2, (int64_t[]){in, ra}, zeros);
  assert_int_equal(ist_gguf_write(w, gguf_path, &err), IST_OK);
  ist_gguf_writer_free(w);
}

static void test_lora_gguf_refusals(void **state) {
  (void)state;
  ist_error err = {0};
  ist_lora_gguf *l;
  write_pair("adapter", "x.lora_a", 32, 2, "x.lora_b", 2, IST_Q8_0);
  assert_int_equal(ist_lora_gguf_open(&l, gguf_path, &err), IST_OK);
  assert_true(l->n == 1 && l->pair[0].in == 32 && l->pair[0].out == 4);
  assert_true(ist_lora_gguf_scale(l, l->pair) == 1); /* no alpha in the file */
  ist_lora_gguf_close(l);

  write_pair("model", "x.lora_a", 32, 2, "x.lora_b", 2, IST_F32);
  assert_error(ist_lora_gguf_open(&l, gguf_path, &err), IST_ERR_UNSUPPORTED, &err,
               "general.type is 'model', expected 'adapter'");
  write_pair("adaptor", "x.lora_a", 32, 2, "x.lora_b", 2, IST_F32);
  assert_error(ist_lora_gguf_open(&l, gguf_path, &err), IST_ERR_UNSUPPORTED, &err,
               "general.type is 'adaptor', expected 'adapter'");
  write_pair("adapter", "x.lora_a", 32, 3, "x.lora_b", 2, IST_F32);
  assert_error(ist_lora_gguf_open(&l, gguf_path, &err), IST_ERR_FORMAT, &err,
               "'x': lora_a has rank 3, lora_b has rank 2");
  write_pair("adapter", "x.lora_a", 32, 2, "y.lora_b", 2, IST_F32);
  assert_error(ist_lora_gguf_open(&l, gguf_path, &err), IST_ERR_FORMAT, &err,
               "'x.lora_a' has no 'x.lora_b'");
  write_pair("adapter", "x.lora_b", 32, 2, "y.lora_b", 2, IST_F32);
  assert_error(ist_lora_gguf_open(&l, gguf_path, &err), IST_ERR_FORMAT, &err,
               "2 lora_b tensors, but 0");
  write_pair("adapter", "x.lora_a", 32, 2, "output_norm.weight", 2, IST_F32);
  assert_error(ist_lora_gguf_open(&l, gguf_path, &err), IST_ERR_UNSUPPORTED, &err,
               "'output_norm.weight' is neither");
  write_pair("adapter", "x.lora_a", 32, 2, ".lora_b", 2, IST_F32);
  assert_error(ist_lora_gguf_open(&l, gguf_path, &err), IST_ERR_UNSUPPORTED, &err,
               "'.lora_b' is neither");
  write_pair("adapter", "x.lora_a", 32, 2, "x.lora_b", 2, IST_I32);
  assert_error(ist_lora_gguf_open(&l, gguf_path, &err), IST_ERR_FORMAT, &err,
               "not a matrix of weights");

  assert_error(ist_lora_gguf_write(gguf_path, "llama", 0, pairs, 2, &err), IST_ERR_ARG, &err,
               "alpha of 0");
  assert_error(ist_lora_gguf_write(gguf_path, "llama", NAN, pairs, 2, &err), IST_ERR_ARG, &err,
               "alpha");
  ist_lora_pair longest = pairs[0];
  longest.name = "12345678901234567890123456789012345678901234567890123456";
  assert_int_equal(ist_lora_gguf_write(gguf_path, "llama", 1, &longest, 1, &err), IST_OK);
  longest.name = "123456789012345678901234567890123456789012345678901234567";
  assert_error(ist_lora_gguf_write(gguf_path, "llama", 1, &longest, 1, &err), IST_ERR_ARG, &err,
               "longer than 63 bytes");
}

static void test_lora_gguf_out_of_memory(void **state) {
  (void)state;
  ist_error err = {0};
  assert_int_equal(ist_lora_gguf_write(gguf_path, "llama", 16, pairs, 2, &err), IST_OK);
  uint64_t n = 1;
  for (ist_status s = IST_ERR_NOMEM; s != IST_OK; n++) {
    ist_lora_gguf *l;
    ist_alloc_fail_at(n);
    s = ist_lora_gguf_open(&l, gguf_path, &err);
    ist_alloc_fail_at(0);
    assert_true(s == IST_OK || s == IST_ERR_NOMEM);
    ist_lora_gguf_close(l);
  }
  assert_true(n > 10);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_config_bytes, setup, teardown),
      cmocka_unit_test_setup_teardown(test_peft_round_trip, setup, teardown),
      cmocka_unit_test_setup_teardown(test_peft_reader_is_liberal, setup, teardown),
      cmocka_unit_test_setup_teardown(test_peft_refusals, setup, teardown),
      cmocka_unit_test_setup_teardown(test_peft_missing_files, setup, teardown),
      cmocka_unit_test_setup_teardown(test_peft_cannot_write, setup, teardown),
      cmocka_unit_test_setup_teardown(test_peft_out_of_memory, setup, teardown),
      cmocka_unit_test_setup_teardown(test_lora_gguf_round_trip, setup, teardown),
      cmocka_unit_test_setup_teardown(test_lora_gguf_refusals, setup, teardown),
      cmocka_unit_test_setup_teardown(test_lora_gguf_out_of_memory, setup, teardown),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
