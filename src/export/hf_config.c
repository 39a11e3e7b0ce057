/* config.json of the Llama-shaped families. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "export/hf_folder.h"

/* ---- Rotary positions ---- */

/* A number that a GGUF file keeps as f32, as it was written: 1e-5, not 9.99999975e-06. */
static double decimal(double v) {
  char text[40];
  snprintf(text, sizeof text, "%.7g", v);
  return strtod(text, NULL);
}

/* The divisor that Llama 3.1's scaling gives frequency j, of theta^(-2j/d). */
static double llama3_divisor(double theta, int64_t j, int64_t d, double factor, double original) {
  const double low = 1, high = 4;
  double wavelength = 2 * acos(-1.0) * pow(theta, 2.0 * (double)j / (double)d);
  if (wavelength < original / high) return 1;
  if (wavelength > original / low) return factor;
  double t = (original / wavelength - low) / (high - low);
  return 1 / ((1 - t) / factor + t);
}

/* The file has the divisors themselves; config.json wants what they were made from. */
static json_t *llama3_scaling(const ist_model *m, const ist_gguf_tensor *t, double theta,
                              ist_error *err) {
  static const double originals[] = {8192, 4096, 16384, 32768};
  const int64_t d = m->config.rope_dim;
  float last;
  memcpy(&last, t->data + t->bytes - (int64_t)sizeof last, sizeof last);
  const double factor = decimal((double)last);
  for (size_t i = 0; i < sizeof originals / sizeof *originals; i++) {
    bool same = true;
    for (int64_t j = 0; same && j < d / 2; j++) {
      float v;
      memcpy(&v, t->data + j * (int64_t)sizeof v, sizeof v);
      same = fabs((double)v - llama3_divisor(theta, j, d, factor, originals[i])) <
             1e-4 * fabs((double)v);
    }
    if (same)
      return json_pack("{s:s, s:f, s:f, s:f, s:I}", "rope_type", "llama3", "factor", factor,
                       "low_freq_factor", 1.0, "high_freq_factor", 4.0,
                       "original_max_position_embeddings", (json_int_t)originals[i]);
  }
  ist_fail(err, IST_ERR_UNSUPPORTED,
           "%s: rope_freqs.weight: found divisors that no Llama 3 scaling of config.json gives",
           m->path);
  return NULL;
}

static json_t *rope_scaling(const ist_model *m, double theta, ist_error *err) {
  const ist_gguf_tensor *divisors = ist_source_find(&m->source, "rope_freqs.weight");
  if (divisors) return llama3_scaling(m, divisors, theta, err);
  char key[96];
  double factor = 0;
  ist_str type = {0};
  snprintf(key, sizeof key, "%s.rope.scaling.type", m->config.arch);
  ist_gguf_get_str(m->source.gguf, key, false, &type, NULL);
  snprintf(key, sizeof key, "%s.rope.scaling.factor", m->config.arch);
  ist_gguf_get_f64(m->source.gguf, key, false, &factor, NULL);
  if (!type.p || (type.len == 4 && memcmp(type.p, "none", 4) == 0)) return json_null();
  if (type.len == 6 && memcmp(type.p, "linear", 6) == 0)
    return json_pack("{s:s, s:f}", "rope_type", "linear", "factor", decimal(factor));
  ist_fail(err, IST_ERR_UNSUPPORTED,
           "%s: rope.scaling.type: found \"%.*s\", a folder can have none, linear, llama3", m->path,
           (int)type.len, type.p);
  return NULL;
}

/* ---- The file ---- */

static json_t *token_id(int32_t id) {
  return id < 0 ? json_null() : json_integer(id);
}

const char *ist_hf_dtype(ist_dtype t) {
  return t == IST_F32 ? "float32" : t == IST_F16 ? "float16" : "bfloat16";
}

/* Families whose config.json is the common one; what they add stands in `more`. */
static const struct {
  const char *arch, *hf, *class, *more;
} families[] = {
    {"llama", "llama", "LlamaForCausalLM", "{\"attention_bias\": false, \"mlp_bias\": false}"},
    {"llama", "mistral", "MistralForCausalLM", "{\"sliding_window\": null}"},
    {"qwen2", "qwen2", "Qwen2ForCausalLM", "{\"use_sliding_window\": false}"},
    {"qwen3", "qwen3", "Qwen3ForCausalLM",
     "{\"attention_bias\": false, \"use_sliding_window\": false}"},
};

static int family_of(const ist_model *m) {
  for (size_t i = 0; i < sizeof families / sizeof *families; i++)
    if (strcmp(m->config.arch, families[i].arch) == 0 && m->config.family->hf &&
        strcmp(m->config.family->hf, families[i].hf) == 0)
      return (int)i;
  return -1;
}

json_t *ist_hf_config(const ist_model *m, ist_dtype type, bool tied, ist_error *err) {
  const ist_model_config *c = &m->config;
  const int family = family_of(m);
  if (family < 0 || c->rope_dim != c->E || c->layer || c->fused_qkv || c->experts) {
    ist_fail(err, IST_ERR_UNSUPPORTED,
             "%s: a Hugging Face folder can be written of llama, mistral, qwen2 and qwen3 models, "
             "found \"%s\", or one with windows, experts or partial rotation",
             m->path, c->arch);
    ist_hint(err, "an output that ends in .gguf keeps the file's own format");
    return NULL;
  }
  char key[96];
  double theta = 10000;
  snprintf(key, sizeof key, "%s.rope.freq_base", c->arch);
  ist_gguf_get_f64(m->source.gguf, key, false, &theta, NULL);
  theta = decimal(theta);
  json_t *scaling = rope_scaling(m, theta, err);
  if (!scaling) return NULL;
  json_t *root = json_pack(
      "{s:[s], s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:o, s:s, s:b, s:o, s:o, "
      "s:s, s:b}",
      "architectures", families[family].class, "model_type", families[family].hf, "hidden_size",
      (json_int_t)c->D, "intermediate_size", (json_int_t)c->F, "num_hidden_layers",
      (json_int_t)c->L, "num_attention_heads", (json_int_t)c->H, "num_key_value_heads",
      (json_int_t)c->K, "head_dim", (json_int_t)c->E, "vocab_size", (json_int_t)c->V,
      "max_position_embeddings", (json_int_t)c->context, "rms_norm_eps", decimal(c->norm_eps),
      "rope_theta", theta, "rope_scaling", scaling, "hidden_act", "silu", "tie_word_embeddings",
      tied, "bos_token_id", token_id(ist_tokenizer_bos(m->tokenizer)), "eos_token_id",
      token_id(ist_tokenizer_eos(m->tokenizer)), "torch_dtype", ist_hf_dtype(type), "use_cache", 1);
  json_t *more = json_loads(families[family].more, 0, NULL);
  if (root && more) json_object_update(root, more);
  json_decref(more);
  if (!root) ist_fail_nomem(err, "config.json", 0);
  return root;
}

json_t *ist_hf_generation_config(const ist_model *m) {
  json_t *ends = json_array();
  int32_t eos = ist_tokenizer_eos(m->tokenizer);
  if (eos >= 0) json_array_append_new(ends, json_integer(eos));
  for (int32_t i = 0; i < ist_tokenizer_size(m->tokenizer); i++)
    if (i != eos && ist_tokenizer_is_eog(m->tokenizer, i))
      json_array_append_new(ends, json_integer(i));
  return json_pack("{s:o, s:o}", "bos_token_id", token_id(ist_tokenizer_bos(m->tokenizer)),
                   "eos_token_id", ends);
}
