/* Families with LayerNorm and a plain MLP. */
#include <math.h>

#include "base/mem.h"
#include "model/arch.h"

/* Rows of a learned table are the tensor's, not the config's. */
static ist_status learned(ist_model_config *c, const ist_source *s, int64_t offset,
                          ist_error *err) {
  char name[160];
  const ist_gguf_tensor *t = ist_tensor_find(s, c, -1, IST_T_POSITION, false);
  ist_tensor_name_in(name, sizeof name, s, c, -1, IST_T_POSITION, false);
  if (!t) return ist_fail(err, IST_ERR_FORMAT, "%s: found no such tensor", name);
  c->rope_dim = 0;
  c->positions = t->ne[1];
  c->position_offset = offset;
  if (c->positions <= offset)
    return ist_fail(err, IST_ERR_FORMAT, "%s: found %lld rows, expected more than %lld", name,
                    (long long)c->positions, (long long)offset);
  return IST_OK;
}

static ist_status refuse(const ist_source *s, const char *key, bool value, ist_error *err) {
  bool found = !value;
  IST_TRY(ist_key_bool(s, NULL, key, false, &found, err));
  if (found != value) return IST_OK;
  return ist_fail(err, IST_ERR_UNSUPPORTED, "config.json: %s: found %s, which is not supported",
                  key, value ? "true" : "false");
}

static ist_status gpt2(ist_model_config *c, const ist_source *s, ist_error *err) {
  bool scaled = true;
  c->fused_qkv = true;
  IST_TRY(refuse(s, "scale_attn_by_inverse_layer_idx", true, err));
  IST_TRY(ist_key_bool(s, NULL, "scale_attn_weights", false, &scaled, err));
  if (!scaled) c->attn_scale = 1.0;
  return learned(c, s, 0, err);
}

static ist_status gptj(ist_model_config *c, const ist_source *s, ist_error *err) {
  c->rope_dim = 64;
  c->rope_interleaved = true;
  IST_TRY(ist_key_i64(s, NULL, "rotary_dim", false, &c->rope_dim, err));
  if (c->rope_dim < 2 || c->rope_dim > c->E)
    return ist_fail(err, IST_ERR_FORMAT, "config.json: rotary_dim: found %lld, expected 2 to %lld",
                    (long long)c->rope_dim, (long long)c->E);
  return ist_rope_plain(&c->rope[0], c->rope_dim, c->family->theta, err);
}

static ist_status gptneox(ist_model_config *c, const ist_source *s, ist_error *err) {
  bool parallel = true;
  double theta = c->family->theta;
  c->fused_qkv = true;
  IST_TRY(ist_key_bool(s, "use_parallel_residual", "use_parallel_residual", false, &parallel, err));
  if (!parallel) c->block = IST_BLOCK_PRE;
  bool told = ist_key_json(s, "rotary_pct") ||
              json_object_get(ist_key_json(s, "rope_parameters"), "partial_rotary_factor");
  if (s->config && !told) c->rope_dim = c->E / 4;
  IST_TRY(ist_key_f64(s, "rope.freq_base", "rotary_emb_base", false, &theta, err));
  return ist_rope_read(&c->rope[0], c, s, NULL, theta, err);
}

static ist_status bloom(ist_model_config *c, const ist_source *s, ist_error *err) {
  c->fused_qkv = true;
  c->embed_norm = true;
  c->rope_dim = 0;
  c->F = 4 * c->D;
  IST_TRY(ist_key_i64(s, "feed_forward_length", NULL, false, &c->F, err));
  IST_TRY(refuse(s, "apply_residual_connection_post_layernorm", true, err));
  return ist_arch_alibi(c, err);
}

static ist_status opt(ist_model_config *c, const ist_source *s, ist_error *err) {
  bool before = true;
  int64_t width = c->D;
  IST_TRY(refuse(s, "layer_norm_elementwise_affine", false, err));
  IST_TRY(ist_key_bool(s, NULL, "do_layer_norm_before", false, &before, err));
  IST_TRY(ist_key_bool(s, NULL, "_remove_final_layer_norm", false, &c->no_final_norm, err));
  IST_TRY(ist_key_i64(s, NULL, "word_embed_proj_dim", false, &width, err));
  if (!before) {
    c->block = IST_BLOCK_POST;
    c->no_final_norm = true;
  }
  if (width < 1 || width > c->D)
    return ist_fail(err, IST_ERR_FORMAT,
                    "config.json: word_embed_proj_dim: found %lld, expected 1 to %lld",
                    (long long)width, (long long)c->D);
  if (width != c->D) c->embed_dim = width;
  return learned(c, s, 2, err);
}

#define LAYERNORM_ROW .norm = IST_NORM_LAYER, .eps = 1e-5, .theta = 1e4

static const ist_arch rows[] = {
    {.gguf = "gpt2",
     .hf = "gpt2",
     .title = "GPT-2",
     LAYERNORM_ROW,
     .names = ist_names_gpt2,
     .block = IST_BLOCK_PRE,
     .act = IST_ACT_GELU_TANH,
     .hf_transposes = true,
     .adapt = gpt2},
    {.hf = "gptj",
     .title = "GPT-J",
     LAYERNORM_ROW,
     .names = ist_names_gptj,
     .block = IST_BLOCK_PARALLEL_1,
     .act = IST_ACT_GELU_TANH,
     .adapt = gptj},
    {.gguf = "gptneox",
     .hf = "gpt_neox",
     .title = "GPT-NeoX, Pythia",
     LAYERNORM_ROW,
     .names = ist_names_gptneox,
     .block = IST_BLOCK_PARALLEL_2,
     .act = IST_ACT_GELU_ERF,
     .hf_groups_qkv = true,
     .adapt = gptneox},
    {.gguf = "bloom",
     .hf = "bloom",
     .title = "BLOOM, BLOOMZ",
     LAYERNORM_ROW,
     .names = ist_names_bloom,
     .block = IST_BLOCK_PRE,
     .act = IST_ACT_GELU_TANH,
     .fixed_act = true,
     .hf_groups_qkv = true,
     .adapt = bloom},
    {.hf = "opt",
     .title = "OPT",
     LAYERNORM_ROW,
     .names = ist_names_opt,
     .block = IST_BLOCK_PRE,
     .act = IST_ACT_RELU,
     .adapt = opt},
};
const ist_arch_table ist_arch_layernorm = {rows, sizeof rows / sizeof *rows};
