/* What the families call their tensors in a Hugging Face folder, without .weight. */
#include "model/names.h"

#define LLAMA_COMMON                                                                            \
  [IST_T_Q] = "model.layers.#.self_attn.q_proj", [IST_T_K] = "model.layers.#.self_attn.k_proj", \
  [IST_T_V] = "model.layers.#.self_attn.v_proj", [IST_T_O] = "model.layers.#.self_attn.o_proj", \
  [IST_T_GATE] = "model.layers.#.mlp.gate_proj", [IST_T_UP] = "model.layers.#.mlp.up_proj",     \
  [IST_T_DOWN] = "model.layers.#.mlp.down_proj",                                                \
  [IST_T_QKV] = "model.layers.#.self_attn.qkv_proj",                                            \
  [IST_T_GATE_UP] = "model.layers.#.mlp.gate_up_proj",                                          \
  [IST_T_Q_NORM] = "model.layers.#.self_attn.q_norm",                                           \
  [IST_T_K_NORM] = "model.layers.#.self_attn.k_norm",                                           \
  [IST_T_ATTN_NORM] = "model.layers.#.input_layernorm", [IST_T_EMBED] = "model.embed_tokens",   \
  [IST_T_OUTPUT_NORM] = "model.norm", [IST_T_OUTPUT] = "lm_head"

const char *const ist_names_llama[IST_T_END] = {
    LLAMA_COMMON,
    [IST_T_FFN_NORM] = "model.layers.#.post_attention_layernorm",
    [IST_T_ROUTER] = "model.layers.#.mlp.gate",
    [IST_T_EXPERT_GATE] = "model.layers.#.mlp.experts.@.gate_proj",
    [IST_T_EXPERT_UP] = "model.layers.#.mlp.experts.@.up_proj",
    [IST_T_EXPERT_DOWN] = "model.layers.#.mlp.experts.@.down_proj",
    [IST_T_SHARED_GATE] = "model.layers.#.mlp.shared_expert.gate_proj",
    [IST_T_SHARED_UP] = "model.layers.#.mlp.shared_expert.up_proj",
    [IST_T_SHARED_DOWN] = "model.layers.#.mlp.shared_expert.down_proj",
    [IST_T_SHARED_ROUTER] = "model.layers.#.mlp.shared_expert_gate",
};

const char *const ist_names_mixtral[IST_T_END] = {
    LLAMA_COMMON,
    [IST_T_FFN_NORM] = "model.layers.#.post_attention_layernorm",
    [IST_T_ROUTER] = "model.layers.#.block_sparse_moe.gate",
    [IST_T_EXPERT_GATE] = "model.layers.#.block_sparse_moe.experts.@.w1",
    [IST_T_EXPERT_UP] = "model.layers.#.block_sparse_moe.experts.@.w3",
    [IST_T_EXPERT_DOWN] = "model.layers.#.block_sparse_moe.experts.@.w2",
};

/* post_attention_layernorm is here the norm behind attention. */
const char *const ist_names_gemma2[IST_T_END] = {
    LLAMA_COMMON,
    [IST_T_POST_ATTN_NORM] = "model.layers.#.post_attention_layernorm",
    [IST_T_FFN_NORM] = "model.layers.#.pre_feedforward_layernorm",
    [IST_T_POST_FFN_NORM] = "model.layers.#.post_feedforward_layernorm",
};

const char *const ist_names_gpt2[IST_T_END] = {
    [IST_T_QKV] = "transformer.h.#.attn.c_attn", [IST_T_O] = "transformer.h.#.attn.c_proj",
    [IST_T_UP] = "transformer.h.#.mlp.c_fc",     [IST_T_DOWN] = "transformer.h.#.mlp.c_proj",
    [IST_T_ATTN_NORM] = "transformer.h.#.ln_1",  [IST_T_FFN_NORM] = "transformer.h.#.ln_2",
    [IST_T_EMBED] = "transformer.wte",           [IST_T_POSITION] = "transformer.wpe",
    [IST_T_OUTPUT_NORM] = "transformer.ln_f",    [IST_T_OUTPUT] = "lm_head",
};

const char *const ist_names_gptj[IST_T_END] = {
    [IST_T_Q] = "transformer.h.#.attn.q_proj",  [IST_T_K] = "transformer.h.#.attn.k_proj",
    [IST_T_V] = "transformer.h.#.attn.v_proj",  [IST_T_O] = "transformer.h.#.attn.out_proj",
    [IST_T_UP] = "transformer.h.#.mlp.fc_in",   [IST_T_DOWN] = "transformer.h.#.mlp.fc_out",
    [IST_T_ATTN_NORM] = "transformer.h.#.ln_1", [IST_T_EMBED] = "transformer.wte",
    [IST_T_OUTPUT_NORM] = "transformer.ln_f",   [IST_T_OUTPUT] = "lm_head",
};

const char *const ist_names_gptneox[IST_T_END] = {
    [IST_T_QKV] = "gpt_neox.layers.#.attention.query_key_value",
    [IST_T_O] = "gpt_neox.layers.#.attention.dense",
    [IST_T_UP] = "gpt_neox.layers.#.mlp.dense_h_to_4h",
    [IST_T_DOWN] = "gpt_neox.layers.#.mlp.dense_4h_to_h",
    [IST_T_ATTN_NORM] = "gpt_neox.layers.#.input_layernorm",
    [IST_T_FFN_NORM] = "gpt_neox.layers.#.post_attention_layernorm",
    [IST_T_EMBED] = "gpt_neox.embed_in",
    [IST_T_OUTPUT_NORM] = "gpt_neox.final_layer_norm",
    [IST_T_OUTPUT] = "embed_out",
};

const char *const ist_names_bloom[IST_T_END] = {
    [IST_T_QKV] = "transformer.h.#.self_attention.query_key_value",
    [IST_T_O] = "transformer.h.#.self_attention.dense",
    [IST_T_UP] = "transformer.h.#.mlp.dense_h_to_4h",
    [IST_T_DOWN] = "transformer.h.#.mlp.dense_4h_to_h",
    [IST_T_ATTN_NORM] = "transformer.h.#.input_layernorm",
    [IST_T_FFN_NORM] = "transformer.h.#.post_attention_layernorm",
    [IST_T_EMBED] = "transformer.word_embeddings",
    [IST_T_EMBED_NORM] = "transformer.word_embeddings_layernorm",
    [IST_T_OUTPUT_NORM] = "transformer.ln_f",
    [IST_T_OUTPUT] = "lm_head",
};

const char *const ist_names_opt[IST_T_END] = {
    [IST_T_Q] = "model.decoder.layers.#.self_attn.q_proj",
    [IST_T_K] = "model.decoder.layers.#.self_attn.k_proj",
    [IST_T_V] = "model.decoder.layers.#.self_attn.v_proj",
    [IST_T_O] = "model.decoder.layers.#.self_attn.out_proj",
    [IST_T_UP] = "model.decoder.layers.#.fc1",
    [IST_T_DOWN] = "model.decoder.layers.#.fc2",
    [IST_T_ATTN_NORM] = "model.decoder.layers.#.self_attn_layer_norm",
    [IST_T_FFN_NORM] = "model.decoder.layers.#.final_layer_norm",
    [IST_T_EMBED] = "model.decoder.embed_tokens",
    [IST_T_POSITION] = "model.decoder.embed_positions",
    [IST_T_PROJECT_IN] = "model.decoder.project_in",
    [IST_T_PROJECT_OUT] = "model.decoder.project_out",
    [IST_T_OUTPUT_NORM] = "model.decoder.final_layer_norm",
    [IST_T_OUTPUT] = "lm_head",
};
