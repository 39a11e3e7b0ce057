#include "model/model.h"

#include <string.h>
#include <xxhash.h>

#include "base/mem.h"
#include "model/base_type.h"
#include "model/targets.h"

void ist_model_options_init(ist_model_options *o) {
  *o = (ist_model_options){
      .size = sizeof *o, .compute = IST_COMPUTE_AUTO, .backend = IST_BACKEND_CPU};
}

static ist_status choose_backend(ist_model *m, const ist_model_options *o, ist_error *err) {
  m->ctx.be = o->backend == IST_BACKEND_REFERENCE ? ist_backend_reference() : ist_backend_cpu();
  m->compute = o->compute == IST_COMPUTE_F32    ? IST_F32
               : o->compute == IST_COMPUTE_BF16 ? IST_BF16
                                                : ist_backend_cpu_default_dtype();
  m->f32_asked = o->compute == IST_COMPUTE_F32;
  if (o->backend == IST_BACKEND_REFERENCE) {
    if (o->compute == IST_COMPUTE_BF16) {
      return ist_fail(err, IST_ERR_UNSUPPORTED,
                      "compute: found bf16, the reference backend has f32 only");
    }
    m->compute = IST_F32;
  }
  return m->ctx.be->open ? m->ctx.be->open(&m->ctx, err) : IST_OK;
}

/* llama.cpp's name for a file without one. */
static bool has_no_vocabulary(const ist_gguf *g) {
  ist_str kind = {"", 0};
  ist_gguf_get_str(g, "tokenizer.ggml.model", false, &kind, NULL);
  return kind.len == 8 && memcmp(kind.p, "no_vocab", 8) == 0;
}

/* A folder may be without: enough for token ids. */
static ist_status open_tokenizer(ist_model *m, ist_error *err) {
  if (m->source.gguf) {
    if (has_no_vocabulary(m->source.gguf)) return IST_OK;
    IST_TRY(ist_tokenizer_from_gguf(&m->tokenizer, m->source.gguf, err));
  } else {
    char *path = ist_path_join(m->path, "tokenizer.json");
    if (!path) return ist_fail_nomem(err, "path", strlen(m->path));
    bool there = ist_file_exists(path);
    ist_free(path);
    if (!there) return IST_OK;
    IST_TRY(ist_tokenizer_open_json(&m->tokenizer, m->path, err));
  }
  if (ist_tokenizer_size(m->tokenizer) <= m->config.V) return IST_OK;
  return ist_fail(err, IST_ERR_FORMAT,
                  "tokenizer: found %lld tokens, expected at most the %lld rows of the embedding",
                  (long long)ist_tokenizer_size(m->tokenizer), (long long)m->config.V);
}

static ist_status quantise_base(ist_model *m, const ist_model_options *o, bool plan,
                                ist_error *err) {
  bool none = !o->base_type || strcmp(o->base_type, "none") == 0;
  if (none && !o->base_cache) return IST_OK;
  if (none)
    return ist_fail(err, IST_ERR_ARG, "base cache: found %s without a base type", o->base_cache);
  int type = ist_base_type_from_name(o->base_type);
  if (type < 0)
    return ist_fail(err, IST_ERR_ARG, "base type: found \"%s\", expected q8_0, q4_0, q4_k or none",
                    o->base_type);
  uint64_t identity = ist_model_hash(m);
  m->base_type = (ist_dtype)type;
  m->requantised = true;
  if (plan)
    return ist_weights_plan_requantise(&m->weights, &m->ctx, m->base_type, &m->unmade_bytes, err);
  return ist_weights_requantise(&m->weights, &m->ctx, (ist_dtype)type, o->base_cache, identity,
                                err);
}

static ist_status open_parts(ist_model *m, const char *path, const ist_model_options *o, bool plan,
                             ist_error *err) {
  m->path = ist_strdup(path);
  if (!m->path) return ist_fail_nomem(err, "path", strlen(path));
  IST_TRY(ist_source_open(&m->source, path, err));
  ist_status status = ist_model_config_read(&m->config, &m->source, err);
  if (status == IST_OK) status = ist_weights_open(&m->weights, &m->config, &m->source, err);
  if (status == IST_OK) status = open_tokenizer(m, err);
  if (status != IST_OK) {
    ist_error_context(err, "%s", path);
    return status;
  }
  IST_TRY(choose_backend(m, o, err));
  return quantise_base(m, o, plan, err);
}

static ist_status open_model(ist_model **out, const char *path, const ist_model_options *options,
                             bool plan, ist_error *err) {
  *out = NULL;
  ist_model_options o;
  ist_model_options_init(&o);
  if (options) {
    size_t size = options->size < sizeof o ? options->size : sizeof o;
    memcpy(&o, options, size);
  }
  ist_model *m = ist_calloc(1, sizeof *m);
  if (!m) return ist_fail_nomem(err, "model", sizeof *m);
  ist_status status = open_parts(m, path, &o, plan, err);
  if (status != IST_OK) {
    ist_model_close(m);
    return status;
  }
  *out = m;
  return IST_OK;
}

void ist_model_set_whole(ist_model *m, float *const whole[IST_OUTER_COUNT]) {
  ist_stored *place[] = {&m->weights.whole_embed, &m->weights.whole_head};
  for (int i = 0; i < IST_OUTER_COUNT; i++) {
    m->whole[i] = whole ? whole[i] : NULL;
    *place[i] = (ist_stored){.data = (const unsigned char *)m->whole[i],
                             .type = IST_F32,
                             .rows = m->config.V,
                             .cols = ist_embed_width(&m->config),
                             .in_memory = true};
  }
}

ist_status ist_model_open(ist_model **out, const char *path, const ist_model_options *options,
                          ist_error *err) {
  return open_model(out, path, options, false, err);
}

ist_status ist_model_open_for_plan(ist_model **out, const char *path,
                                   const ist_model_options *options, ist_error *err) {
  return open_model(out, path, options, true, err);
}

void ist_model_drop_adapter(ist_model *m) {
  for (int i = 0; i < IST_OUTER_COUNT; i++) ist_free(m->whole[i]);
  ist_model_set_whole(m, NULL);
  ist_targets_free(&m->loaded.config);
  ist_free(m->own_adapter);
  ist_free(m->template_name);
  m->own_adapter = NULL;
  m->template_name = NULL;
  if (m->adapters == &m->loaded) m->adapters = NULL;
}

void ist_model_close(ist_model *m) {
  if (!m) return;
  if (m->ctx.be && m->ctx.be->close) m->ctx.be->close(&m->ctx);
  ist_tokenizer_free(m->tokenizer);
  ist_weights_close(&m->weights);
  ist_model_config_free(&m->config);
  ist_source_close(&m->source);
  ist_model_drop_adapter(m);
  ist_free(m->path);
  ist_free(m);
}

/* Name of the type that most bytes of the matrices have. */
static const char *main_type(const ist_model *m) {
  int64_t bytes[IST_DTYPE_COUNT] = {0}, n = m->config.L * IST_T_LAYER_COUNT;
  const ist_weights *w = &m->weights;
  int best = 0;
  for (int64_t i = 0; i < n + IST_T_END - IST_T_LAYER_COUNT; i++) {
    const ist_stored *s = i < n ? &w->layer[i] : &w->model[i - n];
    if (s->data) bytes[s->type] += ist_dtype_bytes(s->type, s->rows * s->cols);
  }
  for (int t = 1; t < IST_DTYPE_COUNT; t++) {
    if (bytes[t] > bytes[best]) best = t;
  }
  return ist_dtype_get((ist_dtype)best)->name;
}

/* Quantised in memory, nothing of the files is read any more but vectors, once. */
int64_t ist_model_file_bytes(const ist_model *m) {
  if (!m->requantised) return m->source.file_bytes;
  return m->weights.cache ? (int64_t)m->weights.cache->map.size : 0;
}

const char *ist_model_isa(const ist_model *m) {
  return m->ctx.be == ist_backend_reference() ? "reference" : ist_backend_cpu_isa();
}

void ist_model_get_info(const ist_model *m, ist_model_info *info) {
  const ist_model_config *c = &m->config;
  *info = (ist_model_info){
      .L = c->L,
      .D = c->D,
      .F = c->F,
      .H = c->H,
      .K = c->K,
      .E = c->E,
      .V = c->V,
      .context = c->context,
      .parameters = m->weights.parameters,
      .file_bytes = m->source.file_bytes,
      .tied_output = c->tied,
  };
  memcpy(info->name, c->name, sizeof info->name);
  memcpy(info->architecture, c->arch, sizeof info->architecture);
  strncpy(info->quantisation, main_type(m), sizeof info->quantisation - 1);
  strncpy(info->compute, m->compute == IST_BF16 ? "bf16" : "f32", sizeof info->compute - 1);
  strncpy(info->isa, ist_model_isa(m), sizeof info->isa - 1);
}

uint64_t ist_model_hash(const ist_model *m) {
  uint64_t hash = m->requantised ? (uint64_t)m->base_type + 1 : 0;
  for (int64_t i = 0; i < m->source.n; i++) {
    const ist_gguf_tensor *t = &m->source.tensor[i];
    hash = XXH64(t->name.p, t->name.len, hash);
    hash = XXH64(t->ne, sizeof t->ne, hash ^ (uint64_t)t->type);
    /* A page at the start and one at the end: a changed file is noticed
     * without reading gigabytes. */
    size_t size = (size_t)t->bytes, part = size < 4096 ? size : 4096;
    hash = XXH64(t->data, part, hash);
    hash = XXH64(t->data + (size - part), part, hash);
  }
  return hash;
}

ist_status ist_model_check_free(const ist_model *m, ist_error *err) {
  if (!m->busy) return IST_OK;
  return ist_fail(err, IST_ERR_ARG,
                  "%s: the model is in use by a trainer or a conversation; close it first",
                  m->path);
}

ist_status ist_model_check_tokenizer(const ist_model *m, ist_error *err) {
  if (m->tokenizer) return IST_OK;
  if (m->source.gguf)
    return ist_fail(err, IST_ERR_UNSUPPORTED,
                    "%s: tokenizer.ggml.model: found no_vocab, expected a tokenizer", m->path);
  ist_fail(err, IST_ERR_UNSUPPORTED, "%s: found no tokenizer.json in the folder", m->path);
  ist_hint(err, "put the model's tokenizer.json beside its config.json");
  return IST_ERR_UNSUPPORTED;
}
