/* Gemma: embedding times sqrt(D), norms whose weight is stored as w - 1 in a folder
 * (and as w in a GGUF); from 2 on norms on both sides, alternating windows, caps. */
#include <math.h>

#include "base/mem.h"
#include "model/arch.h"

static ist_status gemma(ist_model_config *c, const ist_source *s, ist_error *err) {
  c->embed_scale = sqrt((double)c->D);
  return ist_arch_rope(c, s, err);
}

/* query_pre_attn_scalar is lost in a GGUF; llama.cpp knows the one size that differs. */
static ist_status query_scale(ist_model_config *c, const ist_source *s, int64_t odd_layers,
                              ist_error *err) {
  double scalar = s->config ? 256.0 : c->L == odd_layers ? (double)(c->D / c->H) : (double)c->E;
  IST_TRY(ist_key_f64(s, NULL, "query_pre_attn_scalar", false, &scalar, err));
  c->attn_scale = 1.0 / sqrt(scalar);
  return IST_OK;
}

/* Windows where (l + 1) % period != 0, unless the folder lists them. */
static ist_status windows(ist_model_config *c, const ist_source *s, int64_t period,
                          ist_error *err) {
  int64_t window = 4096;
  bool listed;
  IST_TRY(ist_key_i64(s, "attention.sliding_window", "sliding_window", false, &window, err));
  IST_TRY(ist_key_i64(s, NULL, "sliding_window_pattern", false, &period, err));
  if (period < 1) period = 1;
  IST_TRY(ist_arch_layer_types(c, s, window, &listed, err));
  if (listed) return IST_OK;
  IST_TRY(ist_arch_layers(c, err));
  for (int64_t l = 0; l < c->L; l++) c->layer[l].window = (l + 1) % period ? window : 0;
  return IST_OK;
}

static ist_status gemma2(ist_model_config *c, const ist_source *s, ist_error *err) {
  c->attn_softcap = 50.0;
  c->final_softcap = 30.0;
  IST_TRY(ist_key_f64(s, "attn_logit_softcapping", "attn_logit_softcapping", false,
                      &c->attn_softcap, err));
  IST_TRY(ist_key_f64(s, "final_logit_softcapping", "final_logit_softcapping", false,
                      &c->final_softcap, err));
  if (json_is_null(json_object_get(s->config, "attn_logit_softcapping"))) c->attn_softcap = 0;
  if (json_is_null(json_object_get(s->config, "final_logit_softcapping"))) c->final_softcap = 0;
  IST_TRY(query_scale(c, s, 46, err));
  IST_TRY(windows(c, s, 2, err));
  return gemma(c, s, err);
}

/* Sliding layers turn with their own base, unscaled. */
static ist_status gemma3(ist_model_config *c, const ist_source *s, ist_error *err) {
  double theta, local = 1e4;
  c->qk_norm = true;
  c->embed_scale = sqrt((double)c->D);
  IST_TRY(query_scale(c, s, 62, err));
  IST_TRY(windows(c, s, 6, err));
  IST_TRY(ist_arch_theta(c, s, &theta, err));
  IST_TRY(ist_rope_read(&c->rope[0], c, s, "full_attention", theta, err));
  IST_TRY(ist_key_f64(s, "rope.freq_base_swa", "rope_local_base_freq", false, &local, err));
  const json_t *sliding = json_object_get(ist_key_json(s, "rope_parameters"), "sliding_attention");
  if (json_is_number(json_object_get(sliding, "rope_theta")))
    local = json_number_value(json_object_get(sliding, "rope_theta"));
  IST_TRY(ist_rope_plain(&c->rope[1], c->rope_dim, local, err));
  for (int64_t l = 0; l < c->L; l++) c->layer[l].rope = c->layer[l].window ? 1 : 0;
  return IST_OK;
}

#define GEMMA_ROW \
  .norm = IST_NORM_RMS1, .act = IST_ACT_GELU_TANH, .gated = 1, .fixed_act = 1, .eps = 1e-6, .E = 256

/* The text model alone, and as a part of a multimodal one, whose text_config may leave out what is
 * the class's own: heads, their size. */
#define GEMMA3_ROW                                                                     \
  .gguf = "gemma3", GEMMA_ROW, .names = ist_names_gemma2, .block = IST_BLOCK_SANDWICH, \
  .theta = 1e6, .H = 8, .K = 4, .adapt = gemma3

static const ist_arch rows[] = {
    {.gguf = "gemma",
     .hf = "gemma",
     .title = "Gemma",
     GEMMA_ROW,
     .names = ist_names_llama,
     .block = IST_BLOCK_PRE,
     .theta = 1e4,
     .K = 16,
     .adapt = gemma},
    {.gguf = "gemma2",
     .hf = "gemma2",
     .title = "Gemma 2",
     GEMMA_ROW,
     .names = ist_names_gemma2,
     .block = IST_BLOCK_SANDWICH,
     .theta = 1e4,
     .K = 4,
     .adapt = gemma2},
    {GEMMA3_ROW, .hf = "gemma3_text", .title = "Gemma 3"},
    {GEMMA3_ROW, .hf = "gemma3", .title = "Gemma 3, the text part of the multimodal models"},
};
const ist_arch_table ist_arch_gemma = {rows, sizeof rows / sizeof *rows};
