/* Llama 1/2/3, Mistral without a window, SmolLM2: pre-norm RMS, rotary positions,
 * grouped queries, SwiGLU. GGUF stores q and k rows for interleaved rotation. */
#include <math.h>
#include <stdio.h>

#include "base/mem.h"
#include "model/config.h"

static ist_status get_i64(const ist_gguf *g, const char *arch, const char *key, bool required,
                          int64_t *out, ist_error *err) {
  char name[128];
  snprintf(name, sizeof name, "%s.%s", arch, key);
  return ist_gguf_get_i64(g, name, required, out, err);
}

static ist_status get_f64(const ist_gguf *g, const char *arch, const char *key, bool required,
                          double *out, ist_error *err) {
  char name[128];
  snprintf(name, sizeof name, "%s.%s", arch, key);
  return ist_gguf_get_f64(g, name, required, out, err);
}

/* Angles per position: theta^(-2j/R), divided by the factors of the tensor
 * rope_freqs.weight (Llama 3.1+) and by a linear scaling factor. */
static ist_status fill_rope(ist_model_config *c, const ist_gguf *g, ist_error *err) {
  double theta = 10000.0, factor = 1.0;
  IST_TRY(get_f64(g, c->arch, "rope.freq_base", false, &theta, err));
  char key[128];
  ist_str type = {0};
  snprintf(key, sizeof key, "%s.rope.scaling.type", c->arch);
  IST_TRY(ist_gguf_get_str(g, key, false, &type, err));
  bool linear = type.len == 6 && memcmp(type.p, "linear", 6) == 0;
  if (type.p && !linear && !(type.len == 4 && memcmp(type.p, "none", 4) == 0)) {
    return ist_fail(err, IST_ERR_UNSUPPORTED, "%s: found \"%.*s\", supported: none, linear", key,
                    (int)type.len, type.p);
  }
  if (linear) IST_TRY(get_f64(g, c->arch, "rope.scaling.factor", false, &factor, err));
  if (!(theta > 0) || !(factor > 0)) {
    return ist_fail(err, IST_ERR_FORMAT,
                    "%s.rope: found base %g and factor %g, expected numbers above 0", c->arch,
                    theta, factor);
  }
  int64_t half = c->rope_dim / 2;
  const ist_gguf_tensor *divisors = ist_gguf_find_tensor(g, "rope_freqs.weight");
  if (divisors && (divisors->type != IST_F32 || divisors->ne[0] != half)) {
    return ist_fail(
        err, IST_ERR_FORMAT, "rope_freqs.weight: found %lld values of %s, expected %lld of F32",
        (long long)divisors->ne[0], ist_dtype_get(divisors->type)->name, (long long)half);
  }
  c->rope_freq = ist_calloc((size_t)half + 1, sizeof(float));
  if (!c->rope_freq) return ist_fail_nomem(err, "rotary angles", (size_t)half * sizeof(float));
  for (int64_t j = 0; j < half; j++) {
    float divisor = 1.0f;
    if (divisors) memcpy(&divisor, divisors->data + (size_t)j * sizeof(float), sizeof divisor);
    if (!(divisor > 0)) {
      return ist_fail(err, IST_ERR_FORMAT,
                      "rope_freqs.weight[%lld]: found %g, expected a number above 0", (long long)j,
                      (double)divisor);
    }
    double freq = pow(theta, -2.0 * (double)j / (double)c->rope_dim);
    c->rope_freq[j] = (float)(freq / factor / (double)divisor);
  }
  return IST_OK;
}

static ist_status llama_fill(ist_model_config *c, const ist_gguf *g, ist_error *err) {
  IST_TRY(get_i64(g, c->arch, "block_count", true, &c->L, err));
  IST_TRY(get_i64(g, c->arch, "embedding_length", true, &c->D, err));
  IST_TRY(get_i64(g, c->arch, "feed_forward_length", true, &c->F, err));
  IST_TRY(get_i64(g, c->arch, "attention.head_count", true, &c->H, err));
  IST_TRY(get_i64(g, c->arch, "context_length", true, &c->context, err));
  IST_TRY(get_f64(g, c->arch, "attention.layer_norm_rms_epsilon", true, &c->norm_eps, err));
  if (c->H < 1 || c->D < 1) {
    return ist_fail(err, IST_ERR_FORMAT, "%s: found %lld heads of width %lld, expected at least 1",
                    c->arch, (long long)c->H, (long long)c->D);
  }
  int64_t experts = 0, values = 0;
  IST_TRY(get_i64(g, c->arch, "expert_count", false, &experts, err));
  if (experts > 0) {
    return ist_fail(err, IST_ERR_UNSUPPORTED,
                    "%s.expert_count: found %lld, mixtures of experts are not supported", c->arch,
                    (long long)experts);
  }
  c->K = c->H;
  c->E = c->D / c->H;
  IST_TRY(get_i64(g, c->arch, "attention.head_count_kv", false, &c->K, err));
  IST_TRY(get_i64(g, c->arch, "attention.key_length", false, &c->E, err));
  values = c->E;
  IST_TRY(get_i64(g, c->arch, "attention.value_length", false, &values, err));
  if (values != c->E) {
    return ist_fail(err, IST_ERR_UNSUPPORTED,
                    "%s.attention.value_length: found %lld, expected the key length %lld", c->arch,
                    (long long)values, (long long)c->E);
  }
  c->rope_dim = c->E;
  IST_TRY(get_i64(g, c->arch, "rope.dimension_count", false, &c->rope_dim, err));
  if (c->K < 1 || c->E < 1 || c->rope_dim < 0 || c->rope_dim > c->E) {
    return ist_fail(err, IST_ERR_FORMAT,
                    "%s: found %lld key/value heads of size %lld, %lld of it rotated", c->arch,
                    (long long)c->K, (long long)c->E, (long long)c->rope_dim);
  }
  const ist_gguf_tensor *embed = ist_gguf_find_tensor(g, "token_embd.weight");
  if (!embed) return ist_fail(err, IST_ERR_FORMAT, "token_embd.weight: found no such tensor");
  c->V = embed->ne[1];
  c->tied = ist_gguf_find_tensor(g, "output.weight") == NULL;
  c->block = IST_BLOCK_PRE;
  c->norm = IST_NORM_RMS;
  c->position = IST_POSITION_ROPE;
  c->rope_interleaved = true;
  c->permuted_qk = true;
  c->rope_mscale = 1.0;
  c->attn_scale = 1.0 / sqrt((double)c->E);
  c->act = IST_ACT_SILU;
  c->gated = true;
  return fill_rope(c, g, err);
}

const ist_arch ist_arch_llama = {"llama", llama_fill};
