/* Settings of every family: which of them are refused, and by which words; what they mean; rotary
 * tables, against the formulas of transformers' modeling_rope_utils computed in Python. In the
 * JSON ' stands for ". */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "format/json.h"
#include "model/config.h"

#define COUNT(list) (sizeof(list) / sizeof *(list))

/* ---- A folder without files ---- */

/* What the families call their embeddings and tables of positions, in order. */
static ist_gguf_tensor tensors[] = {
#define TENSOR(text, rows)                                                                  \
  {                                                                                         \
    .name = {text, sizeof text - 1}, .type = IST_F32, .n_dims = 2, .ne = { 32, rows, 1, 1 } \
  }
    TENSOR("gpt_neox.embed_in.weight", 48),
    TENSOR("model.decoder.embed_positions.weight", 34),
    TENSOR("model.decoder.embed_tokens.weight", 48),
    TENSOR("model.embed_tokens.weight", 48),
    TENSOR("transformer.word_embeddings.weight", 48),
    TENSOR("transformer.wpe.weight", 32),
    TENSOR("transformer.wte.weight", 48),
#undef TENSOR
};

static const char base[] =
    "{'hidden_size': 32, 'num_hidden_layers': 4, 'num_attention_heads': 4, 'head_dim': 8, "
    "'num_key_value_heads': 2, 'intermediate_size': 40, 'max_position_embeddings': 128, "
    "'rms_norm_eps': 1e-5}";

static json_t *parse(const char *text) {
  char copy[4096];
  size_t n = strlen(text);
  assert_true(n < sizeof copy);
  memcpy(copy, text, n + 1);
  for (size_t i = 0; i < n; i++)
    if (copy[i] == '\'') copy[i] = '"';
  json_error_t e;
  json_t *v = json_loads(copy, 0, &e);
  if (!v) fail_msg("%s: %s", text, e.text);
  return v;
}

/* A config of the family with keys changed; a key with null is as good as absent. */
static ist_status read_config(ist_model_config *c, const char *family, const char *keys,
                              ist_error *err) {
  const ist_gguf_tensor *by_name[COUNT(tensors)];
  for (size_t i = 0; i < COUNT(tensors); i++) by_name[i] = &tensors[i];
  json_t *config = parse(base), *more = parse(keys);
  if (family) json_object_set_new(config, "model_type", json_string(family));
  json_object_update(config, more);
  json_decref(more);
  ist_source s = {.n = COUNT(tensors), .tensor = tensors, .by_name = by_name, .config = config};
  ist_status status = ist_model_config_read(c, &s, err);
  json_decref(config);
  return status;
}

static ist_model_config must_read(const char *family, const char *keys) {
  ist_error err = {0};
  ist_model_config c;
  if (read_config(&c, family, keys, &err) != IST_OK)
    fail_msg("%s, %s: %s", family, keys, err.message);
  return c;
}

/* ---- What is refused ---- */

static const struct {
  const char *family, *keys;
  ist_status code;
  const char *says;
} refused[] = {
    {NULL, "{}", IST_ERR_FORMAT, "config.json: model_type: found nothing, expected a string"},
    {NULL, "{'model_type': 5}", IST_ERR_FORMAT, "model_type: found an integer"},
    {"t5", "{}", IST_ERR_UNSUPPORTED, "model_type: found \"t5\", supported: llama, mistral, "},
    {"llama", "{'hidden_size': null}", IST_ERR_FORMAT,
     "config.json: hidden_size|n_embd|n_embed: found no such key"},
    {"llama", "{'hidden_size': '32'}", IST_ERR_FORMAT,
     "hidden_size|n_embd|n_embed: found a string, expected an integer"},
    {"llama", "{'hidden_size': 32.5}", IST_ERR_FORMAT, "found a real number, expected an integer"},
    {"llama", "{'hidden_size': 0}", IST_ERR_FORMAT, "llama: found 4 layers of width 0"},
    {"llama", "{'hidden_size': 2097152}", IST_ERR_FORMAT, "found 4 layers of width 2097152"},
    {"llama", "{'num_hidden_layers': 0}", IST_ERR_FORMAT, "found 0 layers of width 32"},
    {"llama", "{'num_hidden_layers': 4097}", IST_ERR_FORMAT, "found 4097 layers"},
    {"llama", "{'num_hidden_layers': null}", IST_ERR_FORMAT,
     "num_hidden_layers|n_layer|num_layers"},
    {"llama", "{'num_attention_heads': 0}", IST_ERR_FORMAT, "found 0 heads of width 32"},
    {"llama", "{'num_attention_heads': null}", IST_ERR_FORMAT,
     "num_attention_heads|n_head: found no"},
    {"llama", "{'num_attention_heads': 64, 'head_dim': null}", IST_ERR_FORMAT,
     "found 2 key/value heads of size 0"},
    {"llama", "{'num_key_value_heads': 0}", IST_ERR_FORMAT, "found 0 key/value heads of size 8"},
    {"llama", "{'num_key_value_heads': 3}", IST_ERR_FORMAT,
     "llama.attention.head_count_kv: found 3, expected a divisor of 4 heads"},
    {"llama", "{'num_attention_heads': 4097, 'num_key_value_heads': 1}", IST_ERR_FORMAT,
     "llama: found 4097 heads of width 32, expected 1 to 4096"},
    {"bloom", "{'num_attention_heads': 9223372036854775807, 'num_key_value_heads': 1}",
     IST_ERR_FORMAT, "bloom: found 9223372036854775807 heads"},
    {"llama", "{'head_dim': 4097}", IST_ERR_FORMAT, "heads of size 4097"},
    {"llama", "{'head_dim': [8]}", IST_ERR_FORMAT, "head_dim: found a list, expected an integer"},
    {"llama", "{'head_dim': 7, 'partial_rotary_factor': 0.9}", IST_ERR_FORMAT,
     "llama.attention.key_length (head_dim): found 7, expected an even number"},
    {"llama", "{'intermediate_size': 0}", IST_ERR_FORMAT,
     "llama.feed_forward_length: found 0, expected 1 to 4194304"},
    {"llama", "{'intermediate_size': null}", IST_ERR_FORMAT, "intermediate_size|n_inner"},
    {"llama", "{'max_position_embeddings': 0}", IST_ERR_FORMAT, "llama.context_length: found 0"},
    {"llama", "{'rms_norm_eps': 0}", IST_ERR_FORMAT,
     "norm epsilon: found 0, expected between 0 and 1"},
    {"llama", "{'rms_norm_eps': 1}", IST_ERR_FORMAT, "norm epsilon: found 1"},
    {"llama", "{'rms_norm_eps': true}", IST_ERR_FORMAT, "found true, expected a number"},
    {"llama", "{'hidden_act': 5}", IST_ERR_FORMAT,
     "hidden_act|activation_function|activation: found an integer, expected a string"},
    {"llama", "{'hidden_act': 'mish'}", IST_ERR_UNSUPPORTED,
     "activation: found \"mish\", supported: silu, gelu"},
    {"llama", "{'partial_rotary_factor': 1.5}", IST_ERR_FORMAT,
     "partial_rotary_factor: found 1.5, expected 0 to 1"},
    {"llama", "{'rope_parameters': {'partial_rotary_factor': -1}}", IST_ERR_FORMAT,
     "partial_rotary_factor: found -1"},
    {"llama", "{'partial_rotary_factor': 0.4}", IST_ERR_FORMAT,
     "llama.rope.dimension_count: found 3, expected an even number up to 8"},
    {"llama", "{'rope_theta': 0}", IST_ERR_FORMAT, "rope: found base 0 and factor 1"},
    {"llama", "{'rope_theta': 'x'}", IST_ERR_FORMAT,
     "rope_theta: found a string, expected a number"},
    {"llama", "{'rope_scaling': 5}", IST_ERR_FORMAT,
     "rope_scaling: found an integer, expected an object"},
    {"llama", "{'rope_scaling': {'type': 'ntk'}}", IST_ERR_UNSUPPORTED,
     "rope scaling: found \"ntk\", supported: linear, dynamic, llama3, yarn, longrope"},
    {"llama", "{'rope_scaling': {'type': 'linear', 'factor': 'x'}}", IST_ERR_FORMAT,
     "factor: found a string, expected a number"},
    {"llama",
     "{'rope_scaling': {'type': 'yarn', 'factor': 4, 'original_max_position_embeddings': 1}}",
     IST_ERR_FORMAT, "original_max_position_embeddings: found 1, expected more than 1"},
    {"llama",
     "{'rope_scaling': {'type': 'yarn', 'factor': 4, 'original_max_position_embeddings': 1e16}}",
     IST_ERR_FORMAT, "found 1e+16 original and 128 positions, expected at most 1e15"},
    {"llama",
     "{'rope_scaling': {'type': 'llama3', 'factor': 4, 'low_freq_factor': 4, 'high_freq_factor': "
     "4}}",
     IST_ERR_FORMAT, "low_freq_factor 4, high_freq_factor 4: expected a growing pair"},
    {"llama", "{'rope_scaling': {'type': 'longrope'}}", IST_ERR_FORMAT,
     "short_factor: found nothing of 0, expected 4 numbers"},
    {"llama",
     "{'rope_scaling': {'type': 'longrope', 'short_factor': [1, 1, 1, 1], 'long_factor': [1]}}",
     IST_ERR_FORMAT, "long_factor: found a list of 1, expected 4 numbers"},
    {"llama",
     "{'rope_scaling': {'type': 'longrope', 'short_factor': [1, 1, 0, 1], 'long_factor': [1, 1, 1, "
     "1]}}",
     IST_ERR_FORMAT, "short_factor[2]: found 0, expected a number above 0"},
    {"mistral", "{'sliding_window': -1}", IST_ERR_FORMAT,
     "sliding window: found -1, expected at least 0"},
    {"mistral", "{'sliding_window': 'x'}", IST_ERR_FORMAT, "sliding_window: found a string"},
    {"qwen2", "{'use_sliding_window': 1}", IST_ERR_FORMAT,
     "use_sliding_window: found an integer, expected true or false"},
    {"qwen2", "{'layer_types': ['full_attention']}", IST_ERR_FORMAT,
     "layer_types: found a list of 1, expected a list of 4"},
    {"qwen2",
     "{'layer_types': ['full_attention', 'full_attention', 'linear_attention', 'full_attention']}",
     IST_ERR_UNSUPPORTED, "layer_types[2]: found \"linear_attention\", supported: full_attention"},
    {"qwen2", "{'layer_types': [1, 1, 1, 1]}", IST_ERR_UNSUPPORTED, "layer_types[0]: found \"\""},
    {"mixtral", "{'num_local_experts': 4, 'num_experts_per_tok': 5}", IST_ERR_FORMAT,
     "expert_used_count: found 5 of 4 experts"},
    {"mixtral", "{'num_local_experts': 4, 'num_experts_per_tok': 0}", IST_ERR_FORMAT,
     "expert_used_count: found 0 of 4 experts"},
    {"mixtral", "{'num_local_experts': 5000}", IST_ERR_FORMAT, "found 2 of 5000 experts"},
    {"qwen3_moe", "{'num_experts': 4, 'moe_intermediate_size': 0}", IST_ERR_FORMAT,
     "found experts of width 0 and a shared one of 0, expected 1 to 4194304"},
    {"qwen2_moe", "{'num_experts': 4, 'shared_expert_intermediate_size': -1}", IST_ERR_FORMAT,
     "a shared one of -1"},
    {"qwen3_moe", "{'num_experts': 4, 'decoder_sparse_step': 0}", IST_ERR_FORMAT,
     "decoder_sparse_step, mlp_only_layers: found 0 and nothing, expected at least 1 and a list"},
    {"qwen3_moe", "{'num_experts': 4, 'mlp_only_layers': 3}", IST_ERR_FORMAT,
     "found 1 and an integer"},
    {"qwen3_moe", "{'num_experts': 4, 'mlp_only_layers': [0, '1']}", IST_ERR_FORMAT,
     "mlp_only_layers[1]: found a string, expected a number"},
    {"qwen3_moe", "{'num_experts': 4, 'norm_topk_prob': 'x'}", IST_ERR_FORMAT,
     "norm_topk_prob: found a string"},
    {"llama", "{'tie_word_embeddings': false}", IST_ERR_FORMAT,
     "lm_head.weight: found no such tensor, expected it, for config.json has tie_word_embeddings"},
    {"gemma2", "{'text_config': {'tie_word_embeddings': false}}", IST_ERR_FORMAT,
     "lm_head.weight: found no such tensor"},
    {"gpt_neox", "{'tie_word_embeddings': false}", IST_ERR_FORMAT,
     "embed_out.weight: found no such tensor"},
    {"smollm3", "{'no_rope_layers': [1, 0, 1.0, 1]}", IST_ERR_FORMAT,
     "no_rope_layers[2]: found a real number, expected an integer"},
    {"smollm3", "{'no_rope_layers': [1, 0, 1, true]}", IST_ERR_FORMAT,
     "no_rope_layers[3]: found true, expected an integer"},
    {"smollm3", "{'no_rope_layers': [1, 0]}", IST_ERR_FORMAT,
     "no_rope_layers: found a list of 2, expected a list of 4"},
    {"smollm3", "{'no_rope_layer_interval': 0}", IST_ERR_FORMAT,
     "no_rope_layers: found nothing of 0"},
    {"gemma2", "{'query_pre_attn_scalar': 0}", IST_ERR_FORMAT,
     "gemma2: found an attention scale of inf"},
    {"gemma2", "{'query_pre_attn_scalar': -4}", IST_ERR_FORMAT, "found an attention scale of "},
    {"gemma2", "{'attn_logit_softcapping': -1}", IST_ERR_FORMAT, "caps of -1 and 30"},
    {"gemma2", "{'final_logit_softcapping': -1}", IST_ERR_FORMAT, "caps of 50 and -1"},
    {"gpt2", "{'scale_attn_by_inverse_layer_idx': true}", IST_ERR_UNSUPPORTED,
     "scale_attn_by_inverse_layer_idx: found true, which is not supported"},
    {"gptj", "{'rotary_dim': 1}", IST_ERR_FORMAT, "rotary_dim: found 1, expected 2 to 8"},
    {"gptj", "{'rotary_dim': 10}", IST_ERR_FORMAT, "rotary_dim: found 10, expected 2 to 8"},
    {"gptj", "{'rotary_dim': 3}", IST_ERR_FORMAT,
     "rope.dimension_count: found 3, expected an even"},
    {"bloom", "{'apply_residual_connection_post_layernorm': true}", IST_ERR_UNSUPPORTED,
     "apply_residual_connection_post_layernorm: found true"},
    {"opt", "{'layer_norm_elementwise_affine': false}", IST_ERR_UNSUPPORTED,
     "layer_norm_elementwise_affine: found false, which is not supported"},
    {"opt", "{'word_embed_proj_dim': 0}", IST_ERR_FORMAT,
     "word_embed_proj_dim: found 0, expected 1 to 32"},
    {"opt", "{'word_embed_proj_dim': 33}", IST_ERR_FORMAT, "word_embed_proj_dim: found 33"},
};

static void test_refused(void **state) {
  (void)state;
  for (size_t k = 0; k < COUNT(refused); k++) {
    ist_error err = {0};
    ist_model_config c;
    ist_status status = read_config(&c, refused[k].family, refused[k].keys, &err);
    if (status != refused[k].code || !strstr(err.message, refused[k].says))
      fail_msg("%s, %s: got %d '%s', expected %d '%s'", refused[k].family, refused[k].keys,
               (int)status, err.message, (int)refused[k].code, refused[k].says);
  }
}

/* Tensors that the settings need. */
static void test_missing_tensors(void **state) {
  (void)state;
  static const struct {
    const char *family;
    size_t tensor;
    const char *says;
  } rows[] = {{"llama", 3, "model.embed_tokens.weight: found no such tensor"},
              {"gpt2", 5, "transformer.wpe.weight: found no such tensor"},
              {"opt", 1, "model.decoder.embed_positions.weight: found no such tensor"}};
  ist_error err = {0};
  ist_model_config c;
  for (size_t k = 0; k < COUNT(rows); k++) {
    ist_str name = tensors[rows[k].tensor].name;
    tensors[rows[k].tensor].name.len--;
    assert_int_equal(read_config(&c, rows[k].family, "{}", &err), IST_ERR_FORMAT);
    assert_string_equal(err.message, rows[k].says);
    tensors[rows[k].tensor].name = name;
  }
  tensors[1].ne[1] = 2; /* OPT's table begins with two rows for padding */
  assert_int_equal(read_config(&c, "opt", "{}", &err), IST_ERR_FORMAT);
  assert_non_null(strstr(err.message, "found 2 rows, expected more than 2"));
  tensors[1].ne[1] = 34;
  tensors[3].ne[1] = 0;
  assert_int_equal(read_config(&c, "llama", "{}", &err), IST_ERR_FORMAT);
  assert_non_null(strstr(err.message, "llama.vocab_size: found 0"));
  tensors[3].ne[1] = 48;
}

/* ---- What settings mean ---- */

#define MOE "'num_experts': 2, 'num_experts_per_tok': 1, 'moe_intermediate_size': 8"

/* The windows of the four layers, and the table that they turn by (-1: none). */
static const struct {
  const char *family, *keys;
  int64_t window[4];
  int rope[4];
} layers[] = {
    {"llama", "{'sliding_window': 5}", {0}, {0}},
    {"mistral", "{}", {4096, 4096, 4096, 4096}, {0}},
    {"mistral", "{'sliding_window': null}", {0}, {0}},
    {"mistral", "{'sliding_window': 7}", {7, 7, 7, 7}, {0}},
    {"mixtral", "{'num_local_experts': 2}", {0}, {0}},
    {"mixtral", "{'num_local_experts': 2, 'sliding_window': 6}", {6, 6, 6, 6}, {0}},
    {"phi3", "{'sliding_window': 9}", {9, 9, 9, 9}, {0}},
    {"qwen2", "{'sliding_window': 5}", {0}, {0}},
    {"qwen2",
     "{'use_sliding_window': true, 'sliding_window': 5, 'max_window_layers': 3}",
     {0, 0, 0, 5},
     {0}},
    {"qwen2",
     "{'use_sliding_window': true, 'sliding_window': 5, 'max_window_layers': -2}",
     {5, 5, 5, 5},
     {0}},
    {"qwen2",
     "{'use_sliding_window': true, 'sliding_window': 5, 'layer_types': ['full_attention', "
     "'sliding_attention', 'full_attention', 'sliding_attention']}",
     {0, 5, 0, 5},
     {0}},
    {"qwen2_moe", "{" MOE ", 'sliding_window': 5}", {0}, {0}},
    {"qwen2_moe", "{" MOE ", 'use_sliding_window': true, 'sliding_window': 5}", {5, 0, 5, 0}, {0}},
    {"qwen2_moe",
     "{" MOE ", 'use_sliding_window': true, 'sliding_window': 5, 'max_window_layers': 2}",
     {5, 0, 0, 0},
     {0}},
    {"qwen2_moe",
     "{" MOE ", 'use_sliding_window': true, 'sliding_window': 5, 'layer_types': ['full_attention', "
     "'sliding_attention', 'full_attention', 'sliding_attention']}",
     {0, 5, 0, 5},
     {0}},
    {"qwen3_moe", "{" MOE ", 'sliding_window': 5}", {0}, {0}},
    {"qwen3_moe",
     "{" MOE ", 'use_sliding_window': true, 'sliding_window': 5, 'max_window_layers': 2}",
     {5, 5, 5, 5},
     {0}},
    {"smollm3", "{}", {0}, {0, 0, 0, -1}},
    {"smollm3", "{'no_rope_layer_interval': 2}", {0}, {0, -1, 0, -1}},
    {"smollm3", "{'no_rope_layers': [0, 1, 1, 0]}", {0}, {-1, 0, 0, -1}},
    {"gemma2", "{'sliding_window': 5}", {5, 0, 5, 0}, {0}},
    {"gemma3_text",
     "{'sliding_window': 5, 'sliding_window_pattern': 3}",
     {5, 5, 0, 5},
     {1, 1, 0, 1}},
    {"gemma3_text", "{'sliding_window': 5}", {5, 5, 5, 5}, {1, 1, 1, 1}},
};

static void test_layers(void **state) {
  (void)state;
  for (size_t k = 0; k < COUNT(layers); k++) {
    ist_model_config c = must_read(layers[k].family, layers[k].keys);
    for (int64_t l = 0; l < 4; l++) {
      ist_layer_config own = ist_model_layer(&c, l);
      if (own.window != layers[k].window[l] || own.rope != layers[k].rope[l])
        fail_msg("%s, %s: layer %d: window %d, table %d", layers[k].family, layers[k].keys, (int)l,
                 (int)own.window, own.rope);
    }
    ist_model_config_free(&c);
  }
}

/* Which layers have experts. */
static void test_experts(void **state) {
  (void)state;
  static const struct {
    const char *keys;
    uint8_t mixture[4];
  } rows[] = {
      {"{'num_experts': 4, 'num_experts_per_tok': 2}", {1, 1, 1, 1}},
      {"{'num_experts': 4, 'decoder_sparse_step': 2}", {0, 1, 0, 1}},
      {"{'num_experts': 4, 'mlp_only_layers': [0, 2, 9]}", {0, 1, 0, 1}},
      {"{'num_experts': 4, 'mlp_only_layers': [1], 'decoder_sparse_step': 2}", {0, 0, 0, 1}},
      {"{'num_experts': 0}", {0, 0, 0, 0}},
  };
  for (size_t k = 0; k < COUNT(rows); k++) {
    ist_model_config c = must_read("qwen3_moe", rows[k].keys);
    int64_t dense = 0;
    for (int64_t l = 0; l < 4; l++) {
      assert_int_equal(ist_model_mixture(&c, l), rows[k].mixture[l]);
      assert_int_equal(ist_model_has(&c, l, IST_MOD_GATE), !rows[k].mixture[l]);
      assert_int_equal(ist_model_has(&c, l, IST_MOD_EXPERT_GATE), rows[k].mixture[l]);
      dense += !rows[k].mixture[l];
    }
    assert_int_equal(ist_model_dense_layers(&c), dense);
    ist_model_config_free(&c);
  }
}

static void test_values(void **state) {
  (void)state;
  ist_model_config c = must_read("llama", "{'hidden_size': 32.0, 'hidden_act': 'gelu'}");
  assert_true(c.D == 32 && c.act == IST_ACT_GELU_ERF && c.tied && c.V == 48 && !c.permuted_qk);
  ist_model_config_free(&c);
  c = must_read("mistral", "{'num_key_value_heads': null}");
  assert_int_equal(c.K, 4); /* null, as transformers reads it: as many as heads */
  ist_model_config_free(&c);
  c = must_read("gemma2", "{'attn_logit_softcapping': null, 'query_pre_attn_scalar': 64}");
  assert_true(c.attn_softcap == 0 && c.final_softcap == 30 && c.attn_scale == 0.125);
  assert_true(c.embed_scale == sqrt(32.0) && c.block == IST_BLOCK_SANDWICH);
  assert_int_equal(c.act, IST_ACT_GELU_TANH); /* whatever hidden_act says */
  ist_model_config_free(&c);
  c = must_read("gemma3",
                "{'num_attention_heads': null, 'num_key_value_heads': null, 'head_dim': null, "
                "'rms_norm_eps': null, 'text_config': {'model_type': 'gemma3_text', 'hidden_size': "
                "40, 'num_hidden_layers': 6, 'intermediate_size': 48, 'sliding_window': 4}}");
  assert_true(c.H == 8 && c.E == 256 && c.norm_eps == 1e-6 && c.D == 40 && c.L == 6);
  ist_model_config_free(&c);
  c = must_read("gpt2", "{'scale_attn_weights': false}");
  assert_true(c.attn_scale == 1.0 && c.positions == 32 && c.position_offset == 0 && !c.rope_dim);
  ist_model_config_free(&c);
  c = must_read("gpt_neox", "{'head_dim': 16, 'use_parallel_residual': false}");
  assert_true(c.rope_dim == 4 && c.block == IST_BLOCK_PRE); /* a quarter, where nothing is said */
  ist_model_config_free(&c);
  c = must_read("gpt_neox", "{'rotary_pct': 0.5}");
  assert_true(c.rope_dim == 4 && c.block == IST_BLOCK_PARALLEL_2);
  ist_model_config_free(&c);
  c = must_read("gptj", "{'rotary_dim': 6}");
  assert_true(c.rope_dim == 6 && c.rope_interleaved && c.block == IST_BLOCK_PARALLEL_1);
  ist_model_config_free(&c);
  c = must_read("opt", "{'do_layer_norm_before': false, 'word_embed_proj_dim': 16}");
  assert_true(c.block == IST_BLOCK_POST && c.no_final_norm && c.embed_dim == 16);
  assert_true(c.positions == 34 && c.position_offset == 2);
  ist_model_config_free(&c);
}

/* Slopes, as the code of the ALiBi paper makes them. */
static void test_alibi(void **state) {
  (void)state;
  static const float want[] = {0.25f, 0.0625f, 0.015625f, 0.00390625f, 0.5f, 0.125f};
  for (int H = 4; H <= 6; H += 2) {
    char keys[64];
    snprintf(keys, sizeof keys, "{'num_attention_heads': %d}", H);
    ist_model_config c = must_read("bloom", keys);
    for (int h = 0; h < H; h++) assert_true(c.alibi[h] == want[h]);
    ist_model_config_free(&c);
  }
}

/* ---- Rotary tables ---- */

#define LONG                                                                                     \
  "'type': 'longrope', 'original_max_position_embeddings': 32, 'short_factor': [1, 1.5, 2, 4], " \
  "'long_factor': [1, 2, 8, 16]"

static const struct {
  const char *keys; /* of rope_scaling */
  double freq[4], mscale;
} tables[] = {
    {"", {1, 0.1, 0.01, 0.001}, 1},
    {"'rope_type': 'default'", {1, 0.1, 0.01, 0.001}, 1},
    {"'type': 'linear', 'factor': 4", {0.25, 0.025, 0.0025, 0.00025}, 1},
    {"'rope_type': 'llama3', 'factor': 8, 'low_freq_factor': 1, 'high_freq_factor': 4, "
     "'original_max_position_embeddings': 8192",
     {1, 0.1, 0.01, 0.000213607544},
     1},
    {"'rope_type': 'llama3', 'factor': 8, 'low_freq_factor': 1, 'high_freq_factor': 4, "
     "'original_max_position_embeddings': 200",
     {1, 0.0761737168, 0.00125, 0.000125},
     1},
    {"'rope_type': 'yarn', 'factor': 4, 'original_max_position_embeddings': 32",
     {1, 0.025, 0.0025, 0.00025},
     1.13862943611},
    {"'rope_type': 'yarn', 'factor': 4, 'original_max_position_embeddings': 4096",
     {1, 0.1, 0.00625, 0.00025},
     1.13862943611},
    {"'rope_type': 'yarn', 'factor': 4, 'original_max_position_embeddings': 4096, 'truncate': "
     "false",
     {1, 0.1, 0.00655697152, 0.00025},
     1.13862943611},
    {"'rope_type': 'yarn', 'factor': 8, 'original_max_position_embeddings': 4096, 'truncate': "
     "false, "
     "'beta_fast': 16, 'beta_slow': 2",
     {1, 0.1, 0.00622188907, 0.000125},
     1.20794415417},
    {"'rope_type': 'yarn', 'factor': 4, 'original_max_position_embeddings': 4096, 'mscale': 0.707, "
     "'mscale_all_dim': 1.2",
     {1, 0.1, 0.00625, 0.00025},
     0.94140352375},
    {"'rope_type': 'yarn', 'factor': 4, 'original_max_position_embeddings': 4096, "
     "'attention_factor': 1.5",
     {1, 0.1, 0.00625, 0.00025},
     1.5},
    {LONG, {1, 0.0666666667, 0.005, 0.00025}, 1.18321595662},
    {LONG ", 'attention_factor': 2", {1, 0.0666666667, 0.005, 0.00025}, 2},
    {"'rope_type': 'dynamic', 'factor': 3", {1, 0.1, 0.01, 0.001}, 1},
};

static bool near(double a, double b) {
  return fabs(a - b) <= 1e-6 * fabs(b);
}

static void test_rope(void **state) {
  (void)state;
  for (size_t k = 0; k < COUNT(tables); k++) {
    char keys[512];
    snprintf(keys, sizeof keys, "{'rope_theta': 10000, 'rope_scaling': {%s}}", tables[k].keys);
    ist_model_config c = must_read("llama", keys);
    assert_int_equal(c.rope_dim, 8);
    for (int j = 0; j < 4; j++)
      if (!near((double)c.rope[0].freq[j], tables[k].freq[j]))
        fail_msg("%s: pair %d turns by %.9g", keys, j, (double)c.rope[0].freq[j]);
    if (!near(c.rope[0].mscale, tables[k].mscale)) fail_msg("%s: times %g", keys, c.rope[0].mscale);
    bool longer = strstr(keys, "longrope") != NULL, dynamic = strstr(keys, "dynamic") != NULL;
    assert_int_equal(c.rope[0].freq_long != NULL, longer);
    static const double far[] = {1, 0.05, 0.00125, 0.0000625};
    for (int j = 0; longer && j < 4; j++) assert_true(near((double)c.rope[0].freq_long[j], far[j]));
    if (longer) assert_int_equal(c.rope[0].original, 32);
    assert_true(c.rope[0].dynamic == (dynamic ? 3 : 0));
    if (dynamic) assert_int_equal(c.rope[0].original, 128);
    ist_model_config_free(&c);
  }
}

/* Gemma 3's layers with windows turn by a base of their own. */
static void test_two_tables(void **state) {
  (void)state;
  static const char *const keys[] = {
      "{'rope_theta': 1000000, 'rope_local_base_freq': 100, 'rope_scaling': {'rope_type': "
      "'linear', "
      "'factor': 8}, 'sliding_window': 5}",
      "{'rope_parameters': {'full_attention': {'rope_type': 'linear', 'factor': 8, 'rope_theta': "
      "1000000}, 'sliding_attention': {'rope_type': 'default', 'rope_theta': 100}}, "
      "'sliding_window': 5}"};
  for (int k = 0; k < 2; k++) {
    ist_model_config c = must_read("gemma3", keys[k]);
    for (int j = 0; j < 4; j++) {
      assert_true(near((double)c.rope[0].freq[j], pow(1e6, -2.0 * j / 8) / 8));
      assert_true(near((double)c.rope[1].freq[j], pow(100, -2.0 * j / 8)));
    }
    ist_model_config_free(&c);
  }
}

/* ---- The keys of a GGUF ---- */

typedef struct gguf_case {
  const char *type;         /* of the scaling */
  float factor, attention;  /* 0: no such key; a factor of -1: one of 0 */
  uint32_t values, rotated; /* likewise */
  int64_t freqs;            /* numbers in rope_freqs.weight; 0: no such tensor */
} gguf_case;

static float freqs[8] = {1, 2, 4, 8, 1, 1, 1, 1};
static ist_status read_freqs(void *user, int64_t offset, int64_t n, unsigned char *dst,
                             ist_error *err) {
  (void)err;
  memcpy(dst, (const char *)user + offset, (size_t)n);
  return IST_OK;
}

static ist_status read_gguf(ist_model_config *c, const gguf_case *k, ist_error *err) {
  static const float zeros[32 * 48];
  char path[] = "/tmp/ist-test-settings-XXXXXX";
  int fd = mkstemp(path);
  assert_true(fd >= 0);
  close(fd);
  ist_gguf_writer *w = ist_gguf_writer_new();
  ist_gguf_put_str(w, "general.architecture", "llama", 5);
  ist_gguf_put_u32(w, "llama.block_count", 1);
  ist_gguf_put_u32(w, "llama.embedding_length", 32);
  ist_gguf_put_u32(w, "llama.feed_forward_length", 40);
  ist_gguf_put_u32(w, "llama.context_length", 128);
  ist_gguf_put_u32(w, "llama.attention.head_count", 4);
  ist_gguf_put_f32(w, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
  if (k->values) ist_gguf_put_u32(w, "llama.attention.value_length", k->values);
  if (k->rotated) ist_gguf_put_u32(w, "llama.rope.dimension_count", k->rotated);
  if (k->type) ist_gguf_put_str(w, "llama.rope.scaling.type", k->type, strlen(k->type));
  if (k->factor != 0) ist_gguf_put_f32(w, "llama.rope.scaling.factor", fmaxf(k->factor, 0));
  if (k->attention > 0) ist_gguf_put_f32(w, "llama.rope.scaling.attn_factor", k->attention);
  if (k->factor > 0) ist_gguf_put_u32(w, "llama.rope.scaling.original_context_length", 4096);
  ist_gguf_put_tensor(w, "token_embd.weight", IST_F32, 2, (const int64_t[]){32, 48}, read_freqs,
                      (void *)(uintptr_t)zeros);
  if (k->freqs)
    ist_gguf_put_tensor(w, "rope_freqs.weight", IST_F32, 1, &k->freqs, read_freqs, freqs);
  assert_int_equal(ist_gguf_write(w, path, err), IST_OK);
  ist_gguf_writer_free(w);
  ist_source s;
  assert_int_equal(ist_source_open(&s, path, err), IST_OK);
  unlink(path);
  ist_status status = ist_model_config_read(c, &s, err);
  ist_source_close(&s);
  return status;
}

static void test_gguf(void **state) {
  (void)state;
  static const struct {
    gguf_case file;
    double freq[4], mscale;
    const char *says; /* the error */
  } rows[] = {
      {{0}, {1, 0.1, 0.01, 0.001}, 1, NULL},
      {{.type = "none", .factor = 4}, {1, 0.1, 0.01, 0.001}, 1, NULL},
      {{.type = "linear", .factor = 4}, {0.25, 0.025, 0.0025, 0.00025}, 1, NULL},
      {{.factor = 4}, {0.25, 0.025, 0.0025, 0.00025}, 1, NULL},
      {{.factor = 4, .attention = 1.25f}, {0.25, 0.025, 0.0025, 0.00025}, 1.25, NULL},
      {{.factor = -1}, {1, 0.1, 0.01, 0.001}, 1, NULL},
      {{.type = "yarn", .factor = 4}, {1, 0.1, 0.00625, 0.00025}, 1.13862943611, NULL},
      {{.freqs = 4}, {1, 0.05, 0.0025, 0.000125}, 1, NULL},
      {{.attention = 1.25f}, {1, 0.1, 0.01, 0.001}, 1.25, NULL},
      {{.freqs = 8}, {0}, 0, "rope_freqs.weight: found 8 values of F32, expected 4 of F32"},
      {{.type = "dynamic", .factor = 2}, {0}, 0, "rope scaling: found \"dynamic\""},
      {{.type = "llama3", .factor = 2}, {0}, 0, "rope scaling: found \"llama3\""},
      {{.type = "x"}, {0}, 0, "rope scaling: found \"x\""},
      {{.values = 4}, {0}, 0, "llama.attention.value_length: found 4, expected the key length 8"},
      {{.rotated = 9}, {0}, 0, "llama.rope.dimension_count: found 9, expected up to 8"},
  };
  for (size_t k = 0; k < COUNT(rows); k++) {
    ist_error err = {0};
    ist_model_config c;
    ist_status status = read_gguf(&c, &rows[k].file, &err);
    if (rows[k].says) {
      if (status == IST_OK || !strstr(err.message, rows[k].says))
        fail_msg("got '%s', expected '%s'", err.message, rows[k].says);
      continue;
    }
    if (status != IST_OK) fail_msg("row %d: %s", (int)k, err.message);
    for (int j = 0; j < 4; j++)
      if (!near((double)c.rope[0].freq[j], rows[k].freq[j]))
        fail_msg("row %d: pair %d turns by %.9g", (int)k, j, (double)c.rope[0].freq[j]);
    if (!near(c.rope[0].mscale, rows[k].mscale)) fail_msg("row %d: %g", (int)k, c.rope[0].mscale);
    assert_true(c.permuted_qk && c.rope_interleaved);
    ist_model_config_free(&c);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_refused), cmocka_unit_test(test_missing_tensors),
      cmocka_unit_test(test_layers),  cmocka_unit_test(test_experts),
      cmocka_unit_test(test_values),  cmocka_unit_test(test_alibi),
      cmocka_unit_test(test_rope),    cmocka_unit_test(test_two_tables),
      cmocka_unit_test(test_gguf),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
