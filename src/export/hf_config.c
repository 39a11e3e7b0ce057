/* config.json of a model that was opened from a GGUF: a row a family, with the names of its
 * keys. What is written is read back before any weights are (hf_check.c). */
#include <math.h>
#include <stdio.h>

#include "base/mem.h"
#include "export/hf_folder.h"

/* config.json as it grows. */
typedef struct draft {
  const ist_model *m;
  const ist_model_config *c;
  json_t *o;
  ist_error *err;
  ist_status status;
} draft;

static void put(draft *d, const char *key, json_t *value) {
  if (json_object_set_new(d->o, key, value) != 0 && d->status == IST_OK)
    d->status = ist_fail_nomem(d->err, key, strlen(key));
}
static void put_int(draft *d, const char *key, int64_t v) {
  put(d, key, json_integer((json_int_t)v));
}
static void put_real(draft *d, const char *key, double v) {
  put(d, key, json_real(ist_hf_decimal(v)));
}
static void put_bool(draft *d, const char *key, bool v) {
  put(d, key, json_boolean(v));
}

static json_t *token_id(int32_t id) {
  return id < 0 ? json_null() : json_integer(id);
}

const char *ist_hf_dtype(ist_dtype t) {
  return t == IST_F32 ? "float32" : t == IST_F16 ? "float16" : "bfloat16";
}

/* ---- Keys by family ---- */

/* Layer 0 has a bias at the module (layers do not differ). */
static bool has_bias(const draft *d, ist_module m) {
  return ist_weights_stored_bias(&d->m->weights, 0, (int)m)->data != NULL;
}

/* Heads and their rotation. */
static void heads(draft *d) {
  json_t *scaling = NULL;
  put_int(d, "num_key_value_heads", d->c->K);
  put_int(d, "head_dim", d->c->E);
  put_real(d, "rope_theta", d->c->rope[0].theta);
  ist_status s = ist_hf_rope_scaling(&scaling, d->m, d->err);
  if (s == IST_OK)
    put(d, "rope_scaling", scaling);
  else if (d->status == IST_OK)
    d->status = s;
}

static void smollm3(draft *d) {
  json_t *rotated = json_array();
  for (int64_t l = 0; l < d->c->L; l++)
    json_array_append_new(rotated, json_integer(ist_model_layer(d->c, l).rope >= 0));
  put(d, "no_rope_layers", rotated);
  heads(d);
}

static void phi3(draft *d) {
  put_real(d, "partial_rotary_factor", (double)d->c->rope_dim / (double)d->c->E);
  put_int(d, "original_max_position_embeddings",
          d->c->rope[0].freq_long ? d->c->rope[0].original : d->c->context);
  heads(d);
}

static void mixtral(draft *d) {
  put_int(d, "intermediate_size", d->c->expert_F);
  put_int(d, "num_local_experts", d->c->experts);
  put_int(d, "num_experts_per_tok", d->c->experts_used);
  heads(d);
}

static void qwen_moe(draft *d) {
  put_int(d, "num_experts", d->c->experts);
  put_int(d, "num_experts_per_tok", d->c->experts_used);
  put_int(d, "moe_intermediate_size", d->c->expert_F);
  if (d->c->shared_F) put_int(d, "shared_expert_intermediate_size", d->c->shared_F);
  put_bool(d, "norm_topk_prob", d->c->renormalise);
  put_bool(d, "qkv_bias", has_bias(d, IST_MOD_Q));
  heads(d);
}

/* From Gemma 2 on: which layers look through a window, and the scale of scores. */
static void gemma2(draft *d) {
  const ist_model_config *c = d->c;
  json_t *types = json_array();
  int64_t window = 0;
  for (int64_t l = 0; l < c->L; l++) {
    const int64_t own = ist_model_layer(c, l).window;
    if (own) window = own;
    json_array_append_new(types, json_string(own ? "sliding_attention" : "full_attention"));
  }
  put(d, "layer_types", types);
  put_int(d, "sliding_window", window);
  put_int(d, "query_pre_attn_scalar", llround(1 / (c->attn_scale * c->attn_scale)));
  put(d, "attn_logit_softcapping",
      c->attn_softcap > 0 ? json_real(ist_hf_decimal(c->attn_softcap)) : json_null());
  put(d, "final_logit_softcapping",
      c->final_softcap > 0 ? json_real(ist_hf_decimal(c->final_softcap)) : json_null());
  heads(d);
}

static void gemma3(draft *d) {
  put_real(d, "rope_local_base_freq", d->c->rope[1].theta);
  gemma2(d);
}

static void gptneox(draft *d) {
  put_bool(d, "use_parallel_residual", d->c->block == IST_BLOCK_PARALLEL_2);
  put_real(d, "rotary_pct", (double)d->c->rope_dim / (double)d->c->E);
  put_real(d, "rotary_emb_base", d->c->rope[0].theta);
}

/* ---- The families ---- */

/* What the common sizes are called; NULL: they follow from others. */
typedef struct size_names {
  const char *width, *inner, *layers, *heads, *context, *eps;
} size_names;

#define LLAMA_SIZES                                                               \
  "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", \
      "max_position_embeddings"
static const size_names llama_sizes = {LLAMA_SIZES, "rms_norm_eps"},
                        gptneox_sizes = {LLAMA_SIZES, "layer_norm_eps"},
                        gpt2_sizes = {"n_embd", "n_inner",     "n_layer",
                                      "n_head", "n_positions", "layer_norm_epsilon"},
                        bloom_sizes = {"hidden_size", NULL,         "n_layer",
                                       "n_head",      "seq_length", "layer_norm_epsilon"};

#define BIT(m) (1u << IST_MOD_##m)
#define ATTN   (BIT(Q) | BIT(K) | BIT(V) | BIT(O))
#define MLP    (BIT(GATE) | BIT(UP) | BIT(DOWN))
#define FUSED  (BIT(QKV) | BIT(O) | BIT(UP) | BIT(DOWN))

#define SILU "\"hidden_act\": \"silu\""
#define TANH "\"hidden_activation\": \"gelu_pytorch_tanh\""
#define QWEN SILU ", \"use_sliding_window\": false"
#define MOE  QWEN ", \"mlp_only_layers\": [], \"decoder_sparse_step\": 1"

static const struct {
  const char *hf, *class;
  const size_names *sizes;
  unsigned biases;         /* modules that have a bias in transformers, ... */
  unsigned attention, mlp; /* ... where attention_bias says so, where mlp_bias does */
  const char *more;        /* keys that no file changes */
  void (*add)(draft *d);
} families[] = {
    {"llama", "LlamaForCausalLM", &llama_sizes, 0, ATTN, MLP, SILU, heads},
    {"qwen2", "Qwen2ForCausalLM", &llama_sizes, BIT(Q) | BIT(K) | BIT(V), 0, 0, QWEN, heads},
    {"qwen3", "Qwen3ForCausalLM", &llama_sizes, 0, ATTN, 0, QWEN, heads},
    {"smollm3", "SmolLM3ForCausalLM", &llama_sizes, 0, ATTN, MLP, QWEN, smollm3},
    {"phi3", "Phi3ForCausalLM", &llama_sizes, 0, 0, 0, SILU ", \"sliding_window\": null", phi3},
    {"mixtral", "MixtralForCausalLM", &llama_sizes, 0, 0, 0, SILU ", \"sliding_window\": null",
     mixtral},
    {"qwen3_moe", "Qwen3MoeForCausalLM", &llama_sizes, 0, ATTN, 0, MOE, qwen_moe},
    {"qwen2_moe", "Qwen2MoeForCausalLM", &llama_sizes, BIT(Q) | BIT(K) | BIT(V), 0, 0, MOE,
     qwen_moe},
    {"gemma", "GemmaForCausalLM", &llama_sizes, 0, 0, 0,
     "\"hidden_act\": \"gelu_pytorch_tanh\", " TANH, heads},
    {"gemma2", "Gemma2ForCausalLM", &llama_sizes, 0, ATTN, 0, TANH, gemma2},
    {"gemma3_text", "Gemma3ForCausalLM", &llama_sizes, 0, ATTN, 0, TANH, gemma3},
    {"gpt2", "GPT2LMHeadModel", &gpt2_sizes, FUSED, 0, 0, "\"activation_function\": \"gelu_new\"",
     NULL},
    {"gpt_neox", "GPTNeoXForCausalLM", &gptneox_sizes, BIT(UP) | BIT(DOWN), BIT(QKV) | BIT(O), 0,
     "\"hidden_act\": \"gelu\"", gptneox},
    {"bloom", "BloomForCausalLM", &bloom_sizes, FUSED, 0, 0,
     "\"apply_residual_connection_post_layernorm\": false", NULL},
};

static int family_of(const ist_model *m) {
  for (size_t i = 0; i < sizeof families / sizeof *families; i++)
    if (strcmp(m->config.family->hf, families[i].hf) == 0) return (int)i;
  return -1;
}

/* The family's class has a bias there. */
static bool takes_bias(const draft *d, int family, int id) {
  unsigned has = families[family].biases;
  if (has_bias(d, IST_MOD_O)) has |= families[family].attention;
  if (has_bias(d, IST_MOD_DOWN)) has |= families[family].mlp;
  if (ist_tensor_is_norm(id)) return d->c->norm == IST_NORM_LAYER;
  return id < (int)IST_MOD_COUNT && (has >> id & 1);
}

/* transformers would pass over a bias that its class does not have. */
static ist_status check_biases(const draft *d, int family, ist_error *err) {
  const ist_model *m = d->m;
  for (int64_t l = -1; l < m->config.L; l++) {
    int first = l < 0 ? IST_T_MODEL_FIRST : 0, end = l < 0 ? (int)IST_T_END : IST_T_LAYER_COUNT;
    for (int i = first; i < end; i++) {
      if (!ist_weights_stored_bias(&m->weights, l, i)->data || takes_bias(d, family, i)) continue;
      char name[96];
      ist_tensor_name(name, sizeof name, l, i);
      return ist_fail(err, IST_ERR_UNSUPPORTED,
                      "%s: %s: found a bias, which transformers' \"%s\" cannot have there", m->path,
                      name, m->config.family->hf);
    }
  }
  return IST_OK;
}

static void put_common(draft *d, int family, ist_dtype type, bool tied) {
  const ist_model_config *c = d->c;
  const size_names *n = families[family].sizes;
  const ist_tokenizer *t = d->m->tokenizer;
  put(d, "architectures", json_pack("[s]", families[family].class));
  put(d, "model_type", json_string(families[family].hf));
  put_int(d, n->width, c->D);
  if (n->inner) put_int(d, n->inner, c->F);
  put_int(d, n->layers, c->L);
  put_int(d, n->heads, c->H);
  put_int(d, n->context, c->positions ? c->positions : c->context);
  put_int(d, "vocab_size", c->V);
  put_real(d, n->eps, c->norm_eps);
  if (families[family].attention) put_bool(d, "attention_bias", has_bias(d, IST_MOD_O));
  if (families[family].mlp) put_bool(d, "mlp_bias", has_bias(d, IST_MOD_DOWN));
  put_bool(d, "tie_word_embeddings", tied);
  put(d, "bos_token_id", token_id(t ? ist_tokenizer_bos(t) : -1));
  put(d, "eos_token_id", token_id(t ? ist_tokenizer_eos(t) : -1));
  put(d, "pad_token_id", token_id(ist_hf_pad(d->m)));
  put(d, "torch_dtype", json_string(ist_hf_dtype(type)));
  put_bool(d, "use_cache", true);
}

json_t *ist_hf_config(const ist_model *m, ist_dtype type, bool tied, ist_error *err) {
  const int family = family_of(m);
  if (family < 0) {
    ist_fail(err, IST_ERR_UNSUPPORTED, "%s: found \"%s\", of which no config.json can be made",
             m->path, m->config.arch);
    ist_hint(err, "an output that ends in .gguf keeps the file's own format");
    return NULL;
  }
  char more[256];
  snprintf(more, sizeof more, "{%s}", families[family].more);
  draft d = {.m = m, .c = &m->config, .err = err, .o = json_loads(more, 0, NULL)};
  d.status = d.o ? check_biases(&d, family, err) : ist_fail_nomem(err, "config.json", 0);
  if (d.status == IST_OK) put_common(&d, family, type, tied);
  if (d.status == IST_OK && families[family].add) families[family].add(&d);
  if (d.status == IST_OK) return d.o;
  json_decref(d.o);
  return NULL;
}

json_t *ist_hf_generation_config(const ist_model *m) {
  json_t *ends = json_array();
  if (!m->tokenizer) return json_pack("{s:o}", "eos_token_id", ends);
  int32_t eos = ist_tokenizer_eos(m->tokenizer);
  if (eos >= 0) json_array_append_new(ends, json_integer(eos));
  for (int32_t i = 0; i < ist_tokenizer_size(m->tokenizer); i++)
    if (i != eos && ist_tokenizer_is_eog(m->tokenizer, i))
      json_array_append_new(ends, json_integer(i));
  return json_pack("{s:o, s:o}", "bos_token_id", token_id(ist_tokenizer_bos(m->tokenizer)),
                   "eos_token_id", ends);
}
