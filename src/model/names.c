#include "model/names.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

static const char *const stems[IST_T_END] = {
#define IST_LAYER_TENSOR(id, stem, rows, cols, need) [IST_T_##id] = stem,
#define IST_MODEL_TENSOR(id, stem, rows, cols, need) [IST_T_##id] = stem,
#include "model/tensors.def"
};

void ist_tensor_shape(const ist_model_config *c, int id, int64_t *rows, int64_t *cols, bool *need) {
  const int64_t D = c->D, F = c->F, H = c->H, K = c->K, E = c->E, V = c->V;
  switch (id) {
#define SHAPE(id, r, c_, need_) \
  case IST_T_##id:              \
    *rows = r;                  \
    *cols = c_;                 \
    *need = need_;              \
    break;
#define IST_LAYER_TENSOR(id, stem, r, c_, need_) SHAPE(id, r, c_, need_)
#define IST_MODEL_TENSOR(id, stem, r, c_, need_) SHAPE(id, r, c_, need_)
#include "model/tensors.def"
    default: IST_ASSERT(!"a tensor of the model");
  }
}

/* ---- Names ------------------------------------------------------------------------- */

void ist_tensor_name(char *out, size_t size, int64_t layer, int id) {
  if (id < IST_T_LAYER_COUNT) {
    snprintf(out, size, "blk.%lld.%s.weight", (long long)layer, stems[id]);
  } else {
    snprintf(out, size, "%s.weight", stems[id]);
  }
}

bool ist_tensor_hf_stem(char *out, size_t size, const ist_model_config *c, int64_t layer, int id) {
  const char *pattern = c->family->names[id];
  if (!pattern) return false;
  const char *hash = strchr(pattern, '#');
  if (hash) {
    snprintf(out, size, "%.*s%lld%s", (int)(hash - pattern), pattern, (long long)layer, hash + 1);
  } else {
    snprintf(out, size, "%s", pattern);
  }
  return true;
}

void ist_tensor_name_in(char *out, size_t size, const ist_source *s, const ist_model_config *c,
                        int64_t layer, int id, bool bias) {
  char stem[128];
  if (s->gguf) {
    ist_tensor_name(stem, sizeof stem, layer, id);
    stem[strlen(stem) - strlen(".weight")] = '\0';
  } else if (!ist_tensor_hf_stem(stem, sizeof stem, c, layer, id)) {
    snprintf(stem, sizeof stem, "%s", stems[id]);
  }
  snprintf(out, size, "%s.%s", stem, bias ? "bias" : "weight");
}

const ist_gguf_tensor *ist_tensor_find(const ist_source *s, const ist_model_config *c,
                                       int64_t layer, int id, bool bias) {
  char name[160], other[192];
  if (!s->gguf && !c->family->names[id]) return NULL;
  ist_tensor_name_in(name, sizeof name, s, c, layer, id, bias);
  const ist_gguf_tensor *t = ist_source_find(s, name);
  const char *dot = strchr(name, '.');
  if (t || s->gguf) return t;
  if (dot[1] && strncmp(name, "lm_head", 7) != 0 && (t = ist_source_find(s, dot + 1))) return t;
  snprintf(other, sizeof other, "language_model.%s", name);
  if ((t = ist_source_find(s, other))) return t;
  snprintf(other, sizeof other, "model.language_model.%s", dot + 1);
  return ist_source_find(s, other);
}

const ist_gguf_tensor *ist_tensor_find_expert(const ist_source *s, const ist_model_config *c,
                                              int64_t layer, int id, int64_t expert) {
  char stem[128], name[192];
  if (!ist_tensor_hf_stem(stem, sizeof stem, c, layer, id)) return NULL;
  const char *at = strchr(stem, '@');
  if (!at) return NULL;
  snprintf(name, sizeof name, "%.*s%lld%s.weight", (int)(at - stem), stem, (long long)expert,
           at + 1);
  return ist_source_find(s, name);
}

/* ---- Modules -------------------------------------------------------------------------- */

void ist_module_leaf(char *out, size_t size, const ist_model_config *c, ist_module m) {
  char path[128];
  if (!ist_tensor_hf_stem(path, sizeof path, c, 0, (int)m))
    snprintf(path, sizeof path, ".%s", ist_module_name(m));
  snprintf(out, size, "%s", strrchr(path, '.') + 1);
}

static bool same(const char *name, const char *p, size_t len) {
  return strlen(name) == len && strncasecmp(name, p, len) == 0;
}

/* A name may mean several modules: GPT-2's c_proj is attention's and the MLP's. */
static uint32_t modules_of(const ist_model_config *c, const ist_linear_sizes *sizes, const char *p,
                           size_t len) {
  uint32_t bits = 0;
  for (int m = 0; m < IST_MOD_COUNT; m++) {
    char path[128], leaf[64];
    if (!sizes->in[m]) continue;
    ist_module_leaf(leaf, sizeof leaf, c, (ist_module)m);
    bool hit = same(leaf, p, len) || same(ist_module_name((ist_module)m), p, len);
    if (!hit && ist_tensor_hf_stem(path, sizeof path, c, 0, m)) { /* "attn.c_proj" */
      size_t n = strlen(path);
      hit = n > len && path[n - len - 1] == '.' && same(path + n - len, p, len);
    }
    if (hit) bits |= 1u << m;
  }
  return bits;
}

static ist_status unknown_target(const ist_model_config *c, const ist_linear_sizes *sizes,
                                 const char *p, size_t len, ist_error *err) {
  char names[256] = "", leaf[64];
  for (int m = 0; m < IST_MOD_COUNT; m++) {
    if (!sizes->in[m]) continue;
    size_t at = strlen(names);
    ist_module_leaf(leaf, sizeof leaf, c, (ist_module)m);
    snprintf(names + at, sizeof names - at, "%s%s or %s", at ? ", " : "",
             ist_module_name((ist_module)m), leaf);
  }
  return ist_fail(err, IST_ERR_ARG,
                  "targets: found \"%.*s\", expected names from %s, or all-linear", (int)len, p,
                  names);
}

ist_status ist_model_targets(const ist_model_config *c, const char *text, uint32_t *out,
                             ist_error *err) {
  ist_linear_sizes sizes;
  ist_model_linear_sizes(c, &sizes);
  *out = 0;
  if (strcasecmp(text, "all-linear") == 0 || strcasecmp(text, "all") == 0) {
    for (int m = 0; m < IST_MOD_COUNT; m++) *out |= sizes.in[m] ? 1u << m : 0;
    return IST_OK;
  }
  for (const char *p = text;;) {
    size_t len = strcspn(p, ",");
    uint32_t bits = modules_of(c, &sizes, p, len);
    if (!bits) return unknown_target(c, &sizes, p, len, err);
    *out |= bits;
    if (p[len] == '\0') return IST_OK;
    p += len + 1;
  }
}
