#include "model/names.h"

#include <stdio.h>
#include <string.h>

static const char *const stems[IST_T_END] = {
#define IST_LAYER_TENSOR(id, stem, rows, cols, need) [IST_T_##id] = stem,
#define IST_MODEL_TENSOR(id, stem, rows, cols, need) [IST_T_##id] = stem,
#include "model/tensors.def"
};

void ist_tensor_shape(const ist_model_config *c, int64_t layer, int id, int64_t *rows,
                      int64_t *cols, bool *need) {
  const int64_t D = c->D, F = c->F, H = c->H, K = c->K, E = c->E, V = c->V;
  const bool moe = layer >= 0 && ist_model_mixture(c, layer);
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
