/* Families of Llama's block: pre-norm RMS, rotary positions, grouped queries, gated
 * MLP. Where a GGUF is of arch "llama", q and k rows are for interleaved rotation. */
#include "model/arch.h"

/* Layers of one MLP among those of experts: every layer but each `step`th, and those that
 * the folder lists. A GGUF has none. */
static ist_status dense_layers(ist_model_config *c, const ist_source *s, ist_error *err) {
  int64_t step = 1;
  IST_TRY(ist_key_i64(s, NULL, "decoder_sparse_step", false, &step, err));
  const json_t *list = ist_key_json(s, "mlp_only_layers");
  if (step < 1 || (list && !json_is_array(list)))
    return ist_fail(
        err, IST_ERR_FORMAT,
        "config.json: decoder_sparse_step, mlp_only_layers: found %lld and %s, expected "
        "at least 1 and a list",
        (long long)step, ist_json_kind(list));
  if (step == 1 && json_array_size(list) == 0) return IST_OK;
  IST_TRY(ist_arch_layers(c, err));
  for (int64_t l = 0; l < c->L; l++) c->layer[l].dense = (l + 1) % step != 0;
  for (size_t i = 0; i < json_array_size(list); i++) {
    const json_t *item = json_array_get(list, i);
    if (!json_is_integer(item))
      return ist_fail(err, IST_ERR_FORMAT,
                      "config.json: mlp_only_layers[%zu]: found %s, expected a number", i,
                      ist_json_kind(item));
    int64_t l = json_integer_value(item);
    if (l >= 0 && l < c->L) c->layer[l].dense = true;
  }
  return IST_OK;
}

static ist_status experts(ist_model_config *c, const ist_source *s, ist_error *err) {
  IST_TRY(ist_key_i64(s, "expert_count", "num_local_experts|num_experts", false, &c->experts, err));
  if (c->experts <= 0) {
    c->experts = 0;
    return IST_OK;
  }
  c->experts_used = 2;
  c->expert_F = c->F;
  IST_TRY(ist_key_i64(s, "expert_used_count", "num_experts_per_tok", s->gguf != NULL,
                      &c->experts_used, err));
  IST_TRY(ist_key_i64(s, "expert_feed_forward_length", "moe_intermediate_size", false, &c->expert_F,
                      err));
  if (c->experts > 4096 || c->experts_used < 1 || c->experts_used > c->experts)
    return ist_fail(err, IST_ERR_FORMAT, "%s.expert_used_count: found %lld of %lld experts",
                    c->arch, (long long)c->experts_used, (long long)c->experts);
  if (c->expert_F < 1 || c->expert_F > 1 << 22 || c->shared_F < 0 || c->shared_F > 1 << 22)
    return ist_fail(err, IST_ERR_FORMAT,
                    "%s: found experts of width %lld and a shared one of %lld, expected 1 to %d",
                    c->arch, (long long)c->expert_F, (long long)c->shared_F, 1 << 22);
  return dense_layers(c, s, err);
}

static ist_status llama(ist_model_config *c, const ist_source *s, ist_error *err) {
  c->renormalise = true;
  IST_TRY(experts(c, s, err));
  return ist_arch_rope(c, s, err);
}

/* The window is lost in a GGUF; a missing key is the class's 4096, null is none. */
static ist_status mistral(ist_model_config *c, const ist_source *s, ist_error *err) {
  bool null = json_is_null(json_object_get(s->config, "sliding_window"));
  int64_t window = s->config && !null ? 4096 : 0;
  IST_TRY(ist_key_i64(s, NULL, "sliding_window", false, &window, err));
  IST_TRY(ist_arch_window(c, window, err));
  return llama(c, s, err);
}

static ist_status mixtral(ist_model_config *c, const ist_source *s, ist_error *err) {
  int64_t window = 0;
  IST_TRY(ist_key_i64(s, NULL, "sliding_window", false, &window, err));
  IST_TRY(ist_arch_window(c, window, err));
  return llama(c, s, err);
}

/* Which layers have Qwen's window where layer_types does not say; first: max_window_layers. */
typedef enum qwen_windows {
  QWEN_FROM_FIRST, /* Qwen 2 and 3 */
  QWEN_EVEN_BELOW, /* Qwen 2 MoE: every second layer below it */
  QWEN_ALL         /* Qwen 3 MoE */
} qwen_windows;

static bool has_window(qwen_windows which, int64_t layer, int64_t first) {
  if (which == QWEN_ALL) return true;
  return which == QWEN_FROM_FIRST ? layer >= first : layer < first && layer % 2 == 0;
}

static ist_status qwen_with(ist_model_config *c, const ist_source *s, qwen_windows which,
                            ist_error *err) {
  bool sliding = false, listed;
  int64_t window = 4096, first = 28;
  IST_TRY(ist_key_bool(s, NULL, "use_sliding_window", false, &sliding, err));
  IST_TRY(ist_key_i64(s, NULL, "sliding_window", false, &window, err));
  IST_TRY(ist_key_i64(s, NULL, "max_window_layers", false, &first, err));
  if (!sliding) window = 0;
  IST_TRY(ist_arch_layer_types(c, s, window, &listed, err));
  if (listed || window == 0) return llama(c, s, err);
  IST_TRY(ist_arch_layers(c, err));
  for (int64_t l = 0; l < c->L; l++)
    if (has_window(which, l, first)) c->layer[l].window = window;
  return llama(c, s, err);
}

static ist_status qwen(ist_model_config *c, const ist_source *s, ist_error *err) {
  return qwen_with(c, s, QWEN_FROM_FIRST, err);
}

static ist_status qwen3(ist_model_config *c, const ist_source *s, ist_error *err) {
  c->qk_norm = true;
  return qwen(c, s, err);
}

/* llama.cpp renormalises whatever the folder said. */
static ist_status qwen3moe(ist_model_config *c, const ist_source *s, ist_error *err) {
  bool renormalise = s->gguf != NULL;
  c->qk_norm = true;
  IST_TRY(qwen_with(c, s, QWEN_ALL, err));
  IST_TRY(ist_key_bool(s, NULL, "norm_topk_prob", false, &renormalise, err));
  c->renormalise = renormalise;
  return IST_OK;
}

/* ... and here it never does. Where a GGUF does not say how wide experts are, together
 * those of a token are as wide as an MLP. */
static ist_status qwen2moe(ist_model_config *c, const ist_source *s, ist_error *err) {
  bool renormalise = false;
  int64_t used = 1, whole = c->F;
  c->shared_F = whole;
  IST_TRY(ist_key_i64(s, "expert_used_count", NULL, false, &used, err));
  IST_TRY(ist_key_i64(s, "expert_shared_feed_forward_length", "shared_expert_intermediate_size",
                      false, &c->shared_F, err));
  if (s->gguf && used > 0) c->F = whole / used;
  IST_TRY(qwen_with(c, s, QWEN_EVEN_BELOW, err));
  c->F = whole;
  IST_TRY(ist_key_bool(s, NULL, "norm_topk_prob", false, &renormalise, err));
  c->renormalise = renormalise;
  return IST_OK;
}

static ist_status phi3(ist_model_config *c, const ist_source *s, ist_error *err) {
  int64_t window = 0;
  c->fused_qkv = c->fused_gate_up = true;
  IST_TRY(ist_key_i64(s, NULL, "sliding_window", false, &window, err));
  IST_TRY(ist_arch_window(c, window, err));
  return llama(c, s, err);
}

/* Every `interval`th layer has no positions; the folder may list them (1: rotated). */
static ist_status smollm3(ist_model_config *c, const ist_source *s, ist_error *err) {
  int64_t interval = 4;
  IST_TRY(ist_key_i64(s, NULL, "no_rope_layer_interval", false, &interval, err));
  const json_t *list = ist_key_json(s, "no_rope_layers");
  bool listed = json_is_array(list) && (int64_t)json_array_size(list) == c->L;
  if (interval < 1 || (list && !listed && json_array_size(list) > 0))
    return ist_fail(err, IST_ERR_FORMAT,
                    "config.json: no_rope_layers: found %s of %lld, expected a list of %lld",
                    ist_json_kind(list), (long long)json_array_size(list), (long long)c->L);
  IST_TRY(ist_arch_layers(c, err));
  for (int64_t l = 0; l < c->L; l++) {
    const json_t *entry = listed ? json_array_get(list, (size_t)l) : NULL;
    if (entry && !json_is_integer(entry))
      return ist_fail(err, IST_ERR_FORMAT,
                      "config.json: no_rope_layers[%lld]: found %s, expected an integer",
                      (long long)l, ist_json_kind(entry));
    bool rotated = entry ? json_integer_value(entry) != 0 : (l + 1) % interval != 0;
    c->layer[l].rope = rotated ? 0 : -1;
  }
  return llama(c, s, err);
}

#define LLAMA_ROW .norm = IST_NORM_RMS, .block = IST_BLOCK_PRE, .gated = 1, .act = IST_ACT_SILU

static const ist_arch rows[] = {
    {.gguf = "llama",
     .hf = "llama",
     .title = "Llama 1, 2, 3, 3.1, 3.2; SmolLM 1, 2",
     LLAMA_ROW,
     .names = ist_names_llama,
     .eps = 1e-6,
     .theta = 1e4,
     .ggml_permutes_qk = true,
     .adapt = llama},
    {.gguf = "llama",
     .hf = "mistral",
     .title = "Mistral",
     LLAMA_ROW,
     .names = ist_names_llama,
     .eps = 1e-6,
     .theta = 1e4,
     .K = 8,
     .ggml_permutes_qk = true,
     .adapt = mistral},
    {.gguf = "qwen2",
     .hf = "qwen2",
     .title = "Qwen 2, 2.5",
     LLAMA_ROW,
     .names = ist_names_llama,
     .eps = 1e-6,
     .theta = 1e4,
     .K = 32,
     .adapt = qwen},
    {.gguf = "qwen3",
     .hf = "qwen3",
     .title = "Qwen 3",
     LLAMA_ROW,
     .names = ist_names_llama,
     .eps = 1e-6,
     .theta = 1e4,
     .K = 32,
     .E = 128,
     .adapt = qwen3},
    {.gguf = "llama",
     .hf = "mixtral",
     .title = "Mixtral",
     LLAMA_ROW,
     .names = ist_names_mixtral,
     .eps = 1e-5,
     .theta = 1e6,
     .K = 8,
     .ggml_permutes_qk = true,
     .experts = true,
     .adapt = mixtral},
    {.gguf = "qwen3moe",
     .hf = "qwen3_moe",
     .title = "Qwen 3 MoE",
     LLAMA_ROW,
     .names = ist_names_llama,
     .eps = 1e-6,
     .theta = 1e4,
     .K = 4,
     .experts = true,
     .adapt = qwen3moe},
    {.gguf = "qwen2moe",
     .hf = "qwen2_moe",
     .title = "Qwen 1.5 and 2 MoE",
     LLAMA_ROW,
     .names = ist_names_llama,
     .eps = 1e-6,
     .theta = 1e4,
     .K = 16,
     .experts = true,
     .adapt = qwen2moe},
    {.gguf = "phi3",
     .hf = "phi3",
     .title = "Phi-3, Phi-4-mini",
     LLAMA_ROW,
     .names = ist_names_llama,
     .eps = 1e-5,
     .theta = 1e4,
     .adapt = phi3},
    {.gguf = "smollm3",
     .hf = "smollm3",
     .title = "SmolLM 3",
     LLAMA_ROW,
     .names = ist_names_llama,
     .eps = 1e-6,
     .theta = 2e6,
     .K = 4,
     .ggml_permutes_qk = true,
     .adapt = smollm3},
};
const ist_arch_table ist_arch_llama = {rows, sizeof rows / sizeof *rows};
