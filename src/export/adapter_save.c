#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "export/adapter_files.h"
#include "format/lora_gguf.h"
#include "format/peft_dir.h"

/* Every half of every module of every layer, named; its values are read from the
 * parameters when they are written, one half at a time into `values`. */
typedef struct tensors {
  const ist_adapters *ad;
  const ist_model *m;
  float *values;
  ist_st_item *item;
  ist_lora_item *pair;
  struct place *place; /* (n_pairs) */
  int64_t n, n_pairs;
} tensors;

/* The module that an item or a pair belongs to. */
typedef struct place {
  const tensors *t;
  int64_t layer;
  ist_module mod;
} place;

static void free_tensors(tensors *t) {
  for (int64_t i = 0; i < t->n; i++) ist_free((void *)(uintptr_t)t->item[i].name);
  for (int64_t i = 0; i < t->n_pairs; i++) ist_free((void *)(uintptr_t)t->pair[i].pair.name);
  ist_free(t->item);
  ist_free(t->pair);
  ist_free(t->place);
  ist_free(t->values);
}

static const float *make_half(const place *p, ist_half half, bool hf) {
  const tensors *t = p->t;
  ist_adapter_read(t->ad, &t->m->config, p->layer, p->mod, half, hf, t->values);
  return t->values;
}
static const void *make_peft_a(void *user) {
  return make_half(user, IST_HALF_A, true);
}
static const void *make_peft_b(void *user) {
  return make_half(user, IST_HALF_B, true);
}
/* A vector over the linear's outputs, in Hugging Face's order. */
static const void *make_outputs(const place *p, int64_t offset) {
  const ist_adapters *ad = p->t->ad;
  ist_view v = ist_adapter_param(ad, p->layer, offset, 1, ad->sizes.out[p->mod]);
  for (int64_t i = 0; i < v.cols; i++) {
    int64_t to = ist_outside_row(&p->t->m->config, p->mod, true, i);
    p->t->values[to] = v.dt == IST_F64 ? (float)((double *)v.p)[i] : ((float *)v.p)[i];
  }
  return p->t->values;
}
static const void *make_magnitude(void *user) {
  const place *p = user;
  return make_outputs(p, p->t->ad->layout.module[p->mod].m);
}
static const void *make_bias(void *user) {
  const place *p = user;
  return make_outputs(p, p->t->ad->layout.module[p->mod].bias);
}
static const void *make_scaling(void *user) {
  const place *p = user;
  p->t->values[0] = (float)ist_adapter_scale(p->t->ad, p->layer, p->mod);
  return p->t->values;
}
/* Columns of a prefix's keys and values are heads: keys in Hugging Face's order. */
static const void *make_prefix(const place *p, int64_t offset, bool keys) {
  const ist_adapters *ad = p->t->ad;
  ist_view v = ist_adapter_param(ad, p->layer, offset, ad->layout.prefix, ad->config.kv);
  for (int64_t i = 0; i < v.rows * v.cols; i++) {
    int64_t col = i % v.cols;
    if (keys) col = ist_outside_row(&p->t->m->config, IST_MOD_K, true, col);
    p->t->values[i - i % v.cols + col] =
        v.dt == IST_F64 ? (float)((double *)v.p)[i] : ((float *)v.p)[i];
  }
  return p->t->values;
}
static const void *make_prefix_k(void *user) {
  const place *p = user;
  return make_prefix(p, p->t->ad->layout.prefix_k, true);
}
static const void *make_prefix_v(void *user) {
  const place *p = user;
  return make_prefix(p, p->t->ad->layout.prefix_v, false);
}
/* llama.cpp knows one alpha: B takes the quotient of the scales. */
static const float *make_gguf(void *user, int half) {
  const place *p = user;
  const ist_adapter *own = &p->t->ad->layout.module[p->mod];
  const float *values = make_half(p, half ? IST_HALF_B : IST_HALF_A, false);
  double fold = own->scale * (double)own->rank / p->t->ad->config.alpha;
  for (int64_t i = 0; half && fold != 1.0 && i < p->t->ad->sizes.out[p->mod] * own->rank; i++)
    p->t->values[i] = (float)((double)p->t->values[i] * fold);
  return values;
}

static bool is_bottleneck(const ist_adapters *ad) {
  return ad->method == &ist_peft_parallel || ad->method == &ist_peft_series;
}

/* One half as PEFT knows it. False: out of memory. */
static bool add_item(tensors *t, place *p, ist_half half) {
  char name[192];
  ist_adapter_peft_name(name, sizeof name, &t->m->config, p->layer, p->mod, half);
  if (is_bottleneck(t->ad)) /* the IST authors' names */
    strcpy(strstr(name, ".lora_"),
           half == IST_HALF_A ? ".adapter_down.weight" : ".adapter_up.weight");
  ist_st_item *item = &t->item[t->n++];
  *item = (ist_st_item){.name = ist_strdup(name),
                        .type = IST_F32,
                        .n_dims = 2,
                        .make = half == IST_HALF_A ? make_peft_a : make_peft_b,
                        .user = p};
  ist_adapter_shape(t->ad, p->mod, half, &item->shape[0], &item->shape[1]);
  return item->name != NULL;
}

/* A vector of a module; `suffix` stands in place of ".lora_A.weight". */
static bool add_vector(tensors *t, place *p, const char *suffix, int64_t n,
                       const void *(*make)(void *)) {
  char name[192];
  ist_adapter_peft_name(name, sizeof name, &t->m->config, p->layer, p->mod, IST_HALF_A);
  strcpy(strstr(name, ".lora_"), suffix);
  ist_st_item *item = &t->item[t->n++];
  *item = (ist_st_item){.name = ist_strdup(name),
                        .type = IST_F32,
                        .n_dims = 1,
                        .shape = {n},
                        .make = make,
                        .user = p};
  return item->name != NULL;
}

static bool add_vectors(tensors *t, place *p) {
  const ist_adapter *a = &t->ad->layout.module[p->mod];
  return (!a->m || add_vector(t, p, ".lora_magnitude_vector", a->out, make_magnitude)) &&
         (!a->bias || add_vector(t, p, ".lora_B.bias", a->out, make_bias)) &&
         (!a->learned || add_vector(t, p, ".adapter_scaling", 1, make_scaling));
}

/* A layer's prefix, in names of ist's own: PEFT has one tensor for all layers and another
 * rotation. */
static bool add_prefix(tensors *t, int64_t layer) {
  place *p = &t->place[t->n_pairs++];
  *p = (place){t, layer, IST_MOD_K};
  for (int i = 0; i < 2; i++) {
    char name[64];
    snprintf(name, sizeof name, "layers.%lld.prefix_%s", (long long)layer, i ? "value" : "key");
    ist_st_item *item = &t->item[t->n++];
    *item = (ist_st_item){.name = ist_strdup(name),
                          .type = IST_F32,
                          .n_dims = 2,
                          .shape = {t->ad->layout.prefix, t->ad->config.kv},
                          .make = i ? make_prefix_v : make_prefix_k,
                          .user = p};
    if (!item->name) return false;
  }
  return true;
}

/* Both halves as llama.cpp knows them. */
static bool add_pair(tensors *t, place *p) {
  char name[96];
  ist_tensor_name(name, sizeof name, p->layer, (int)p->mod);
  ist_lora_item *pair = &t->pair[t->n_pairs++];
  *pair = (ist_lora_item){.pair = {.name = ist_strdup(name),
                                   .in = t->ad->sizes.in[p->mod],
                                   .out = t->ad->sizes.out[p->mod],
                                   .r = t->ad->layout.module[p->mod].rank},
                          .make = make_gguf,
                          .user = p};
  return pair->pair.name != NULL;
}

static size_t largest_half(const ist_adapters *ad) {
  int64_t largest = ad->layout.prefix * ad->config.kv, rows, cols;
  for (int mod = 0; mod < IST_MOD_COUNT; mod++) {
    for (int half = 0; ad->layout.module[mod].rank && half < 2; half++) {
      ist_adapter_shape(ad, (ist_module)mod, (ist_half)half, &rows, &cols);
      if (rows * cols > largest) largest = rows * cols;
      if (half && rows > largest) largest = rows;
    }
  }
  return (size_t)largest;
}

static ist_status collect(tensors *t, const ist_adapters *ad, const ist_model *m, ist_error *err) {
  size_t most = (size_t)(ad->L * IST_MOD_COUNT);
  *t = (tensors){.ad = ad,
                 .m = m,
                 .values = ist_calloc(largest_half(ad), sizeof *t->values),
                 .item = ist_calloc(3 * most, sizeof *t->item),
                 .pair = ist_calloc(most, sizeof *t->pair),
                 .place = ist_calloc(most, sizeof *t->place)};
  bool ok = t->values && t->item && t->pair && t->place;
  for (int64_t l = 0; ok && l < ad->L; l++) {
    if (ad->layout.prefix) ok = add_prefix(t, l);
    for (int mod = 0; ok && mod < IST_MOD_COUNT; mod++) {
      if (!ad->layout.module[mod].rank) continue;
      place *p = &t->place[t->n_pairs];
      *p = (place){t, l, (ist_module)mod};
      ok = add_item(t, p, IST_HALF_A) && add_item(t, p, IST_HALF_B) && add_vectors(t, p) &&
           add_pair(t, p);
    }
  }
  return ok ? IST_OK : ist_fail_nomem(err, "names of adapter tensors", most * sizeof *t->item);
}

/* Adapters that PEFT does not have: the same two files, with a config of our own. */
static ist_status write_own(const char *dir, const tensors *t, const ist_adapters *ad,
                            const ist_model *m, ist_error *err) {
  static const char *const acts[] = {[IST_ACT_SILU] = "silu",
                                     [IST_ACT_GELU_ERF] = "gelu",
                                     [IST_ACT_RELU] = "relu",
                                     [IST_ACT_TANH] = "tanh",
                                     [IST_ACT_GELU_TANH] = "gelu_tanh"};
  json_t *root, *targets = json_array();
  for (int mod = 0; mod < IST_MOD_COUNT; mod++) {
    char leaf[64];
    if (!ad->layout.module[mod].rank) continue;
    ist_module_leaf(leaf, sizeof leaf, &m->config, (ist_module)mod);
    json_array_append_new(targets, json_string(leaf));
  }
  if (ad->layout.prefix) {
    root = json_pack("{s:s, s:s, s:I}", "peft_type", "IST_PREFIX", "base_model_name_or_path",
                     m->path, "num_virtual_tokens", (json_int_t)ad->layout.prefix);
  } else {
    root = json_pack(
        "{s:s, s:s, s:I, s:s, s:o, s:b, s:O}", "peft_type", "BOTTLENECK", "base_model_name_or_path",
        m->path, "bottleneck_size", (json_int_t)ad->config.rank, "non_linearity",
        acts[ad->config.act], "scaling",
        ad->config.learned_scaling ? json_string("learned") : json_real(ad->config.scaling),
        "use_parallel_adapter", ad->method == &ist_peft_parallel, "target_modules", targets);
  }
  json_decref(targets);
  char *text = root ? json_dumps(root, JSON_INDENT(2) | JSON_SORT_KEYS) : NULL;
  char *config = ist_path_join(dir, "adapter_config.json");
  char *file = ist_path_join(dir, "adapter_model.safetensors");
  json_decref(root);
  ist_status status = ist_mkdirs(dir, err);
  if (status == IST_OK && (!text || !config || !file))
    status = ist_fail_nomem(err, "adapter_config.json", 0);
  if (status == IST_OK) status = ist_safetensors_write(file, t->item, t->n, NULL, 0, err);
  if (status == IST_OK) status = ist_file_write(config, text, strlen(text), err);
  free(text);
  ist_free(config);
  ist_free(file);
  return status;
}

static ist_status write_peft(const char *dir, const tensors *t, const ist_adapters *ad,
                             const ist_model *m, ist_error *err) {
  char leaf[IST_MOD_COUNT][64];
  const char *targets[IST_MOD_COUNT];
  ist_peft_pattern ranks[IST_MOD_COUNT], alphas[IST_MOD_COUNT];
  ist_peft_config c = {
      .base_model = m->path,
      .r = ad->config.rank,
      .alpha = ad->config.alpha,
      .dropout = ad->config.dropout,
      .rslora = ad->config.rslora,
      .dora = ad->method->magnitude,
      .lora_bias = ad->config.lora_bias,
      .fan_in_fan_out = m->config.family->hf_transposes,
      .targets = {targets, 0},
      .rank_pattern = ranks,
      .alpha_pattern = alphas,
  };
  for (int mod = 0; mod < IST_MOD_COUNT; mod++) {
    if (!ad->layout.module[mod].rank) continue;
    ist_module_leaf(leaf[mod], sizeof leaf[mod], &m->config, (ist_module)mod);
    if (ad->config.rank_of[mod])
      ranks[c.n_rank_pattern++] = (ist_peft_pattern){leaf[mod], (double)ad->config.rank_of[mod]};
    if (ad->config.alpha_of[mod] > 0)
      alphas[c.n_alpha_pattern++] = (ist_peft_pattern){leaf[mod], ad->config.alpha_of[mod]};
    bool repeated = false; /* GPT-2's c_proj stands for two modules */
    for (int64_t i = 0; i < c.targets.n; i++) repeated |= strcmp(targets[i], leaf[mod]) == 0;
    if (!repeated) targets[c.targets.n++] = leaf[mod];
  }
  return ist_peft_write(dir, &c, t->item, t->n, err);
}

ist_status ist_adapter_save(const char *dir, const ist_adapters *ad, const ist_model *m,
                            ist_error *err) {
  tensors t;
  ist_status status = collect(&t, ad, m, err);
  bool peft = ad->method == &ist_peft_lora || ad->method == &ist_peft_dora;
  bool gguf = ad->method == &ist_peft_lora && !ad->config.lora_bias; /* all llama.cpp can hold */
  if (status == IST_OK)
    status = peft ? write_peft(dir, &t, ad, m, err) : write_own(dir, &t, ad, m, err);
  char *path = status == IST_OK && gguf ? ist_path_join(dir, "adapter.gguf") : NULL;
  if (status == IST_OK && gguf && !path) status = ist_fail_nomem(err, "path", strlen(dir));
  if (status == IST_OK && gguf)
    status = ist_lora_gguf_write_items(path, m->config.arch, (float)ad->config.alpha, t.pair,
                                       t.n_pairs, err);
  ist_free(path);
  free_tensors(&t);
  return status;
}
