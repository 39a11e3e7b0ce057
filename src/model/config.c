#include "model/names.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"

#define MAX_HEADS 4096

static const ist_arch_table *const tables[] = {&ist_arch_llama, &ist_arch_gemma,
                                               &ist_arch_layernorm};

const ist_arch *ist_arch_at(int64_t i) {
  for (size_t t = 0; t < sizeof tables / sizeof *tables; t++) {
    if (i < tables[t]->n) return &tables[t]->row[i];
    i -= tables[t]->n;
  }
  return NULL;
}

/* The first row of a name; where rows share it, the first that has experts or has none, as
 * the file does. */
static const ist_arch *find_row(const char *name, bool gguf, bool experts) {
  const ist_arch *row, *first = NULL;
  for (int64_t i = 0; (row = ist_arch_at(i)); i++) {
    const char *theirs = gguf ? row->gguf : row->hf;
    if (!theirs || strcmp(theirs, name) != 0) continue;
    if (row->experts == experts) return row;
    if (!first) first = row;
  }
  return first;
}

static ist_status unsupported_arch(const char *found, bool gguf, ist_error *err) {
  ist_buf names = {0};
  const ist_arch *row;
  for (int64_t i = 0; (row = ist_arch_at(i)); i++) {
    const char *name = gguf ? row->gguf : row->hf;
    if (name) ist_buf_printf(&names, "%s%s", names.len ? ", " : "", name);
  }
  ist_status status = ist_fail(err, IST_ERR_UNSUPPORTED, "%s: found \"%s\", supported: %s",
                               gguf ? "general.architecture" : "config.json: model_type", found,
                               names.p ? names.p : "");
  ist_buf_free(&names);
  return status;
}

static ist_status check_sizes(const ist_model_config *c, ist_error *err) {
  const struct {
    const char *name;
    int64_t value, max;
  } sizes[] = {
      {"block_count", c->L, 4096},
      {"embedding_length", c->D, 1 << 20},
      {"feed_forward_length", c->F, 1 << 22},
      {"attention.head_count", c->H, MAX_HEADS},
      {"attention.head_count_kv", c->K, MAX_HEADS},
      {"attention.key_length", c->E, 4096},
      {"vocab_size", c->V, 1 << 24},
      {"context_length", c->context, INT64_C(1) << 40},
  };
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    if (sizes[i].value < 1 || sizes[i].value > sizes[i].max) {
      return ist_fail(err, IST_ERR_FORMAT, "%s.%s: found %lld, expected 1 to %lld", c->arch,
                      sizes[i].name, (long long)sizes[i].value, (long long)sizes[i].max);
    }
  }
  if (c->H % c->K != 0) {
    return ist_fail(err, IST_ERR_FORMAT,
                    "%s.attention.head_count_kv: found %lld, expected a divisor of %lld heads",
                    c->arch, (long long)c->K, (long long)c->H);
  }
  if (c->rope_dim < 0 || c->rope_dim > c->E || c->rope_dim % 2 != 0) {
    return ist_fail(err, IST_ERR_FORMAT,
                    "%s.rope.dimension_count: found %lld, expected an even number up to %lld",
                    c->arch, (long long)c->rope_dim, (long long)c->E);
  }
  if (c->family->ggml_permutes_qk && c->E % 2 != 0) {
    return ist_fail(err, IST_ERR_FORMAT,
                    "%s.attention.key_length (head_dim): found %lld, expected an even number",
                    c->arch, (long long)c->E);
  }
  if (!(c->norm_eps > 0) || !(c->norm_eps < 1)) {
    return ist_fail(err, IST_ERR_FORMAT, "%s: norm epsilon: found %g, expected between 0 and 1",
                    c->arch, c->norm_eps);
  }
  if (!(c->attn_scale > 0) || !isfinite(c->attn_scale) || !(c->attn_softcap >= 0) ||
      !(c->final_softcap >= 0)) {
    return ist_fail(err, IST_ERR_FORMAT,
                    "%s: found an attention scale of %g and caps of %g and %g, expected numbers "
                    "above 0 (caps: or none)",
                    c->arch, c->attn_scale, c->attn_softcap, c->final_softcap);
  }
  for (int64_t l = 0; c->layer && l < c->L; l++) {
    if (c->layer[l].window < 0)
      return ist_fail(err, IST_ERR_FORMAT, "%s: sliding window: found %lld, expected at least 0",
                      c->arch, (long long)c->layer[l].window);
  }
  return IST_OK;
}

/* ---- What every family has --------------------------------------------------------- */

static ist_status find_embedding(ist_model_config *c, const ist_source *s,
                                 const ist_gguf_tensor **out, ist_error *err) {
  char name[160];
  const ist_gguf_tensor *t = ist_tensor_find(s, c, -1, IST_T_EMBED, false);
  ist_tensor_name_in(name, sizeof name, s, c, -1, IST_T_EMBED, false);
  if (!t) return ist_fail(err, IST_ERR_FORMAT, "%s: found no such tensor", name);
  *out = t;
  return IST_OK;
}

static ist_status read_act(ist_model_config *c, const ist_source *s, ist_error *err) {
  static const struct {
    const char *name;
    ist_act_kind kind;
  } acts[] = {
      {"silu", IST_ACT_SILU},
      {"swish", IST_ACT_SILU},
      {"gelu", IST_ACT_GELU_ERF},
      {"gelu_new", IST_ACT_GELU_TANH},
      {"gelu_pytorch_tanh", IST_ACT_GELU_TANH},
      {"gelu_fast", IST_ACT_GELU_TANH},
      {"relu", IST_ACT_RELU},
  };
  char name[32];
  c->act = c->family->act;
  if (c->family->fixed_act) return IST_OK;
  IST_TRY(ist_key_str(s, NULL, "hidden_activation|hidden_act|activation_function|activation", name,
                      sizeof name, err));
  if (!name[0]) return IST_OK;
  for (size_t i = 0; i < sizeof acts / sizeof *acts; i++) {
    if (strcmp(acts[i].name, name) == 0) {
      c->act = acts[i].kind;
      return IST_OK;
    }
  }
  return ist_fail(err, IST_ERR_UNSUPPORTED,
                  "config.json: activation: found \"%s\", supported: silu, gelu, gelu_new, "
                  "gelu_pytorch_tanh, relu",
                  name);
}

static ist_status read_heads(ist_model_config *c, const ist_source *s, ist_error *err) {
  const ist_arch *row = c->family;
  c->H = s->config ? row->H : 0;
  IST_TRY(
      ist_key_i64(s, "attention.head_count", "num_attention_heads|n_head", c->H == 0, &c->H, err));
  if (c->H < 1 || c->H > MAX_HEADS) { /* families make tables of them (ALiBi's slopes) */
    return ist_fail(err, IST_ERR_FORMAT, "%s: found %lld heads of width %lld, expected 1 to %d",
                    c->arch, (long long)c->H, (long long)c->D, MAX_HEADS);
  }
  bool null_heads = s->config && json_object_get(s->config, "num_key_value_heads");
  c->K = s->config && row->K && !null_heads ? row->K : c->H;
  IST_TRY(ist_key_i64(s, "attention.head_count_kv", "num_key_value_heads", false, &c->K, err));
  c->E = s->config && row->E ? row->E : c->D / c->H;
  IST_TRY(ist_key_i64(s, "attention.key_length", "head_dim", false, &c->E, err));
  int64_t values = c->E;
  IST_TRY(ist_key_i64(s, "attention.value_length", NULL, false, &values, err));
  if (values != c->E) {
    return ist_fail(err, IST_ERR_UNSUPPORTED,
                    "%s.attention.value_length: found %lld, expected the key length %lld", c->arch,
                    (long long)values, (long long)c->E);
  }
  if (c->K < 1 || c->E < 1 || c->K > MAX_HEADS || c->E > 4096) {
    return ist_fail(err, IST_ERR_FORMAT, "%s: found %lld key/value heads of size %lld", c->arch,
                    (long long)c->K, (long long)c->E);
  }
  c->attn_scale = 1.0 / sqrt((double)c->E);
  return IST_OK;
}

/* A folder without a head has the embedding for one, unless it says that it has not: then the head
 * is lost, and what the embedding would give in its place is not the model. */
static ist_status read_tied(ist_model_config *c, const ist_source *s, ist_error *err) {
  c->tied = !ist_tensor_find(s, c, -1, IST_T_OUTPUT, false);
  if (!c->tied || !json_is_false(ist_key_json(s, "tie_word_embeddings"))) return IST_OK;
  char name[160];
  ist_tensor_name_in(name, sizeof name, s, c, -1, IST_T_OUTPUT, false);
  return ist_fail(err, IST_ERR_FORMAT,
                  "%s: found no such tensor, expected it, for config.json has "
                  "tie_word_embeddings false",
                  name);
}

/* Rotated dimensions, before the family has its say. */
static ist_status read_rope_dim(ist_model_config *c, const ist_source *s, ist_error *err) {
  double part = 1.0;
  c->rope_dim = c->E;
  IST_TRY(ist_key_i64(s, "rope.dimension_count", NULL, false, &c->rope_dim, err));
  IST_TRY(ist_key_f64(s, NULL, "partial_rotary_factor|rotary_pct", false, &part, err));
  const json_t *inner =
      json_object_get(ist_key_json(s, "rope_parameters|rope_scaling"), "partial_rotary_factor");
  if (json_is_number(inner)) part = json_number_value(inner);
  if (!(part >= 0 && part <= 1))
    return ist_fail(err, IST_ERR_FORMAT,
                    "config.json: partial_rotary_factor: found %g, expected 0 to 1", part);
  if (part < 1.0) c->rope_dim = (int64_t)((double)c->E * part);
  if (c->rope_dim < 0 || c->rope_dim > c->E)
    return ist_fail(err, IST_ERR_FORMAT, "%s.rope.dimension_count: found %lld, expected up to %lld",
                    c->arch, (long long)c->rope_dim, (long long)c->E);
  return IST_OK;
}

static ist_status fill(ist_model_config *c, const ist_source *s, ist_error *err) {
  const ist_arch *row = c->family;
  const ist_gguf_tensor *embed = NULL;
  IST_TRY(ist_key_i64(s, "block_count", "num_hidden_layers|n_layer|num_layers", true, &c->L, err));
  IST_TRY(ist_key_i64(s, "embedding_length", "hidden_size|n_embd|n_embed", true, &c->D, err));
  if (c->D < 1 || c->D > 1 << 20 || c->L < 1 || c->L > 4096)
    return ist_fail(err, IST_ERR_FORMAT, "%s: found %lld layers of width %lld", c->arch,
                    (long long)c->L, (long long)c->D);
  c->F = 4 * c->D;
  c->context = 2048;
  c->norm_eps = row->eps;
  IST_TRY(ist_key_i64(s, "feed_forward_length", "intermediate_size|n_inner|ffn_dim|ffn_hidden_size",
                      row->gated, &c->F, err));
  IST_TRY(ist_key_i64(s, "context_length", "max_position_embeddings|n_positions|seq_length",
                      s->gguf != NULL, &c->context, err));
  IST_TRY(ist_key_f64(s,
                      row->norm == IST_NORM_LAYER ? "attention.layer_norm_epsilon"
                                                  : "attention.layer_norm_rms_epsilon",
                      "rms_norm_eps|layer_norm_epsilon|layer_norm_eps", s->gguf != NULL,
                      &c->norm_eps, err));
  IST_TRY(read_heads(c, s, err));
  IST_TRY(read_rope_dim(c, s, err));
  IST_TRY(read_act(c, s, err));
  IST_TRY(find_embedding(c, s, &embed, err));
  c->V = embed->ne[1];
  IST_TRY(read_tied(c, s, err));
  c->block = row->block;
  c->norm = s->gguf && row->norm == IST_NORM_RMS1 ? IST_NORM_RMS : row->norm;
  c->gated = row->gated;
  c->embed_scale = 1.0;
  c->transposed = s->config && row->hf_transposes;
  c->grouped_qkv = s->config && row->hf_groups_qkv;
  c->permuted_qk = c->rope_interleaved = s->gguf && row->ggml_permutes_qk;
  return row->adapt ? row->adapt(c, s, err) : IST_OK;
}

static void set_names(ist_model_config *c, const ist_source *s) {
  const ist_arch *row = c->family;
  ist_str name = {"", 0};
  snprintf(c->arch, sizeof c->arch, "%s", row->gguf ? row->gguf : row->hf);
  if (s->gguf) {
    ist_gguf_get_str(s->gguf, "general.name", false, &name, NULL);
    snprintf(c->name, sizeof c->name, "%.*s", (int)(name.len < 127 ? name.len : 127), name.p);
  } else {
    const json_t *path = ist_key_json(s, "_name_or_path");
    const char *text = json_is_string(path) ? json_string_value(path) : "";
    const char *slash = strrchr(text, '/');
    snprintf(c->name, sizeof c->name, "%s", slash && slash[1] ? slash + 1 : text);
  }
}

ist_status ist_model_config_read(ist_model_config *c, const ist_source *s, ist_error *err) {
  memset(c, 0, sizeof *c);
  char type[64];
  if (s->gguf) {
    ist_str arch = {0};
    IST_TRY(ist_gguf_get_str(s->gguf, "general.architecture", true, &arch, err));
    snprintf(type, sizeof type, "%.*s", (int)(arch.len < 63 ? arch.len : 63), arch.p);
  } else {
    const json_t *name = json_object_get(s->config, "model_type");
    if (!json_is_string(name))
      return ist_fail(err, IST_ERR_FORMAT, "config.json: model_type: found %s, expected a string",
                      ist_json_kind(name));
    snprintf(type, sizeof type, "%s", json_string_value(name));
  }
  int64_t experts = 0;
  IST_TRY(ist_key_i64(s, "expert_count", NULL, false, &experts, err));
  c->family = find_row(type, s->gguf != NULL, experts > 0);
  if (!c->family) return unsupported_arch(type, s->gguf != NULL, err);
  set_names(c, s);
  ist_status status = fill(c, s, err);
  if (status == IST_OK) status = check_sizes(c, err);
  if (status != IST_OK) ist_model_config_free(c);
  return status;
}

void ist_model_config_free(ist_model_config *c) {
  for (int i = 0; i < 2; i++) {
    ist_free(c->rope[i].freq);
    ist_free(c->rope[i].freq_long);
    c->rope[i] = (ist_rope){0};
  }
  ist_free(c->layer);
  ist_free(c->alibi);
  c->layer = NULL;
  c->alibi = NULL;
}

ist_layer_config ist_model_layer(const ist_model_config *c, int64_t l) {
  return c->layer ? c->layer[l] : (ist_layer_config){0};
}

bool ist_model_mixture(const ist_model_config *c, int64_t l) {
  return c->experts && !ist_model_layer(c, l).dense;
}

int64_t ist_model_dense_layers(const ist_model_config *c) {
  int64_t n = 0;
  for (int64_t l = 0; l < c->L; l++) n += !ist_model_mixture(c, l);
  return n;
}

bool ist_model_has(const ist_model_config *c, int64_t l, ist_module m) {
  ist_linear_sizes sizes;
  ist_model_linear_sizes(c, &sizes);
  bool attention = m <= IST_MOD_O || m == IST_MOD_QKV;
  return sizes.in[m] && (attention || (m >= IST_MOD_SHARED_GATE) == ist_model_mixture(c, l));
}

/* A gated MLP of width F: three modules from `gate` on. */
static void put_mlp(ist_linear_sizes *s, ist_module gate, int64_t D, int64_t F) {
  s->in[gate] = s->in[gate + 1] = s->out[gate + 2] = F ? D : 0;
  s->out[gate] = s->out[gate + 1] = s->in[gate + 2] = F;
}

void ist_model_linear_sizes(const ist_model_config *c, ist_linear_sizes *out) {
  int64_t q = c->H * c->E, kv = c->K * c->E;
  bool split = !c->fused_qkv, dense = ist_model_dense_layers(c) > 0;
  bool gate = dense && c->gated && !c->fused_gate_up, up = dense && !c->fused_gate_up;
  int64_t F = dense ? c->F : 0;
  *out = (ist_linear_sizes){
      .in = {split ? c->D : 0, split ? c->D : 0, split ? c->D : 0, q, gate ? c->D : 0,
             up ? c->D : 0, F, split ? 0 : c->D, dense && !up ? c->D : 0},
      .out = {split ? q : 0, split ? kv : 0, split ? kv : 0, c->D, gate ? c->F : 0, up ? c->F : 0,
              dense ? c->D : 0, split ? 0 : q + 2 * kv, dense && !up ? 2 * c->F : 0},
      .experts = c->experts,
      .experts_used = c->experts_used,
      .vocabulary = c->V,
      .width = ist_embed_width(c),
  };
  if (!c->experts) return;
  put_mlp(out, IST_MOD_SHARED_GATE, c->D, c->shared_F);
  put_mlp(out, IST_MOD_EXPERT_GATE, c->D, c->expert_F);
}
