#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "base/mem.h"
#include "export/adapter_files.h"
#include "format/json.h"
#include "format/lora_gguf.h"
#include "model/targets.h"
#include "train/options.h"

/* Every part of every module of every layer, named; its values are read from the
 * parameters when they are written, one part at a time into `values`. */
typedef struct tensors {
  const ist_adapters *ad;
  const ist_model *m;
  float *values;
  ist_st_item *item;
  struct source *source; /* of each item, and of each pair its part A's */
  ist_lora_item *pair;
  int64_t n, n_pairs;
} tensors;

enum { LAYER_EMBED = -2, LAYER_HEAD };

typedef struct source {
  const tensors *t;
  ist_adapter_key key; /* of a prefix: IST_MOD_K or IST_MOD_V; of a stack: its first */
  ist_part part;
} source;

static void free_tensors(tensors *t) {
  for (int64_t i = 0; i < t->n; i++) ist_free((void *)(uintptr_t)t->item[i].name);
  for (int64_t i = 0; i < t->n_pairs; i++) ist_free((void *)(uintptr_t)t->pair[i].pair.name);
  ist_free(t->item);
  ist_free(t->source);
  ist_free(t->pair);
  ist_free(t->values);
}

static const void *make_part(void *user) {
  const source *s = user;
  const tensors *t = s->t;
  ist_adapter_read(t->ad, &t->m->config, s->key, s->part, IST_ROWS_HF, t->values);
  return t->values;
}

static const void *make_prefix(void *user) {
  const source *s = user;
  ist_adapter_read_prefix(s->t->ad, &s->t->m->config, s->key.layer, s->key.m == IST_MOD_K,
                          s->t->values);
  return s->t->values;
}

static const void *make_outer(void *user) {
  const source *s = user;
  ist_outer_read(s->t->ad, s->key.layer == LAYER_EMBED ? IST_OUTER_EMBED : IST_OUTER_HEAD, s->part,
                 s->t->values);
  return s->t->values;
}

/* The whole matrix that the adapter brought. */
static const void *make_whole(void *user) {
  const source *s = user;
  return s->t->m->whole[s->key.layer == LAYER_EMBED ? IST_OUTER_EMBED : IST_OUTER_HEAD];
}

/* llama.cpp knows one alpha: B takes the quotient of the scales. Experts are stacked. */
static const float *make_gguf(void *user, int half) {
  const source *s = user;
  const tensors *t = s->t;
  ist_adapter_key k = s->key;
  ist_part part = half ? IST_PART_B : IST_PART_A;
  int64_t rows, cols, copies = ist_module_copies(&t->ad->sizes, k.m);
  ist_adapter_shape(t->ad, k.layer, k.m, part, &rows, &cols);
  for (; k.copy < copies; k.copy++)
    ist_adapter_read(t->ad, &t->m->config, k, part, IST_ROWS_GGUF,
                     t->values + k.copy * rows * cols);
  int64_t rank = ist_adapter_rank(t->ad, k.layer, k.m);
  double fold = ist_adapter_scale(t->ad, k.layer, k.m, 0) * (double)rank / t->ad->config.alpha;
  for (int64_t i = 0; half && fold != 1.0 && i < copies * rows * cols; i++)
    t->values[i] = (float)((double)t->values[i] * fold);
  return t->values;
}

/* A tensor whose name is a copy of `name`. False: out of memory. */
static bool add(tensors *t, const char *name, source from, const void *(*make)(void *),
                int64_t rows, int64_t cols, int n_dims) {
  source *s = &t->source[t->n];
  *s = from;
  t->item[t->n] = (ist_st_item){.name = ist_strdup(name),
                                .type = IST_F32,
                                .n_dims = n_dims,
                                .shape = {rows, cols},
                                .make = make,
                                .user = s};
  return t->item[t->n++].name != NULL;
}

/* Both halves as llama.cpp knows them. */
static bool add_pair(tensors *t, source *from) {
  char name[96];
  const ist_adapter_key k = from->key;
  ist_tensor_name(name, sizeof name, k.layer, (int)k.m);
  ist_lora_item *pair = &t->pair[t->n_pairs++];
  *pair = (ist_lora_item){.pair = {.name = ist_strdup(name),
                                   .in = t->ad->sizes.in[k.m],
                                   .out = t->ad->sizes.out[k.m],
                                   .r = ist_adapter_rank(t->ad, k.layer, k.m),
                                   .experts = k.m >= IST_MOD_EXPERTS ? t->ad->sizes.experts : 0},
                          .make = make_gguf,
                          .user = from};
  return pair->pair.name != NULL;
}

/* The parts of a module as PEFT, or for bottlenecks the IST authors, know them. */
static bool add_module(tensors *t, ist_adapter_key k) {
  source *first = &t->source[t->n];
  for (int part = 0; part < IST_PART_COUNT; part++) {
    char name[192];
    int64_t rows, cols;
    if (!ist_adapter_has(t->ad, k.m, (ist_part)part)) continue;
    ist_adapter_peft_name(name, sizeof name, t->ad, &t->m->config, k, (ist_part)part);
    ist_adapter_shape(t->ad, k.layer, k.m, (ist_part)part, &rows, &cols);
    int n_dims = part == IST_PART_A || part == IST_PART_B ? 2 : 1;
    if (!add(t, name, (source){t, k, (ist_part)part}, make_part, rows, cols, n_dims)) return false;
  }
  return k.copy > 0 || add_pair(t, first);
}

/* The pair of an embedding or a head; GGUF's has the embedding's update as B A of its matrix. */
static const float *make_outer_gguf(void *user, int half) {
  const source *s = user;
  const ist_adapters *ad = s->t->ad;
  bool embed = s->key.layer == LAYER_EMBED;
  ist_outer o = embed ? IST_OUTER_EMBED : IST_OUTER_HEAD;
  const ist_outer_adapter *own = &ad->outer.of[o];
  int64_t V = ad->sizes.vocabulary, D = ad->sizes.width, r = own->rank;
  float *v = s->t->values;
  if (!embed) {
    ist_outer_read(ad, o, half ? IST_PART_B : IST_PART_A, v);
  } else { /* (vocabulary, rank) is A turned, (rank, width) B turned */
    const ist_view from =
        half ? ist_outer_param(ad, own->a, V, r) : ist_outer_param(ad, own->b, D, r);
    for (int64_t i = 0; i < from.rows * r; i++)
      v[half ? i : i % r * D + i / r] = (float)ist_view_get(from, i);
  }
  double fold = own->scale * (double)r / ad->config.alpha;
  for (int64_t i = 0; half && fold != 1.0 && i < V * r; i++) v[i] = (float)((double)v[i] * fold);
  return v;
}

static bool add_outer(tensors *t, ist_outer o) {
  source from = {t, {o == IST_OUTER_EMBED ? LAYER_EMBED : LAYER_HEAD, IST_MOD_Q, 0}, IST_PART_A};
  source *first = &t->source[t->n];
  for (int part = 0; part < 2; part++) {
    char name[192];
    int64_t rows, cols;
    from.part = (ist_part)part;
    ist_outer_peft_name(name, sizeof name, &t->m->config, o, from.part);
    ist_outer_shape(t->ad, o, from.part, &rows, &cols);
    if (!add(t, name, from, make_outer, rows, cols, 2)) return false;
  }
  char name[96];
  ist_tensor_name(name, sizeof name, -1, ist_outer_tensor(o));
  ist_lora_item *pair = &t->pair[t->n_pairs++];
  *pair = (ist_lora_item){.pair = {.name = ist_strdup(name),
                                   .in = t->ad->sizes.width,
                                   .out = t->ad->sizes.vocabulary,
                                   .r = t->ad->outer.of[o].rank},
                          .make = make_outer_gguf,
                          .user = first};
  return pair->pair.name != NULL;
}

/* Beside an adapter PEFT calls it the base's. */
static bool add_whole(tensors *t, ist_outer o) {
  char path[128], name[192];
  ist_module_path(path, sizeof path, &t->m->config, -1, ist_outer_tensor(o), 0);
  snprintf(name, sizeof name, "base_model.model.%s%s.weight", path,
           t->ad->outer.of[o].rank ? ".base_layer" : "");
  source from = {t, {o == IST_OUTER_EMBED ? LAYER_EMBED : LAYER_HEAD, IST_MOD_Q, 0}, IST_PART_A};
  return add(t, name, from, make_whole, t->ad->sizes.vocabulary, t->ad->sizes.width, 2);
}

/* A layer's prefix, in names of ist's own: PEFT has one tensor for all layers and another
 * rotation. */
static bool add_prefix(tensors *t, int64_t layer) {
  for (int i = 0; i < 2; i++) {
    char name[64];
    ist_prefix_name(name, sizeof name, layer, i == 0);
    source from = {t, {layer, i ? IST_MOD_V : IST_MOD_K, 0}, IST_PART_A};
    if (!add(t, name, from, make_prefix, t->ad->layout.prefix, t->ad->config.kv, 2)) return false;
  }
  return true;
}

static size_t largest_part(const ist_adapters *ad) {
  int64_t largest = ad->layout.prefix * ad->config.kv;
  for (int m = 0; m < IST_MOD_COUNT; m++) {
    int64_t rank = ad->layout.module[m].rank, in = ad->sizes.in[m], out = ad->sizes.out[m];
    int64_t most = rank * (in > out ? in : out) * ist_module_copies(&ad->sizes, (ist_module)m);
    if (most > largest) largest = most;
  }
  for (int i = 0; i < IST_OUTER_COUNT; i++) {
    int64_t V = ad->sizes.vocabulary, D = ad->sizes.width;
    int64_t most = ad->outer.of[i].rank * (V > D ? V : D);
    if (most > largest) largest = most;
  }
  return (size_t)largest;
}

static ist_status collect(tensors *t, const ist_adapters *ad, const ist_model *m, ist_error *err) {
  ist_adapter_key k = {.layer = -1};
  size_t most = (size_t)ad->L + 2 * IST_OUTER_COUNT; /* prefixes, and what is beside the layers */
  while (ist_adapter_next(ad, &m->config, &k)) most++;
  *t = (tensors){.ad = ad,
                 .m = m,
                 .values = ist_calloc(largest_part(ad), sizeof *t->values),
                 .item = ist_calloc(IST_PART_COUNT * most, sizeof *t->item),
                 .source = ist_calloc(IST_PART_COUNT * most, sizeof *t->source),
                 .pair = ist_calloc(most, sizeof *t->pair)};
  bool ok = t->values && t->item && t->source && t->pair;
  for (int64_t l = 0; ok && ad->layout.prefix && l < ad->L; l++) ok = add_prefix(t, l);
  k = (ist_adapter_key){.layer = -1};
  while (ok && ist_adapter_next(ad, &m->config, &k)) ok = add_module(t, k);
  for (int i = 0; ok && i < IST_OUTER_COUNT; i++)
    ok = (!ad->outer.of[i].rank || add_outer(t, (ist_outer)i)) &&
         (!m->whole[i] || add_whole(t, (ist_outer)i));
  return ok ? IST_OK : ist_fail_nomem(err, "names of adapter tensors", most * sizeof *t->item);
}

/* Adapters that PEFT does not have: the same two files, with a config of our own. */
static ist_status write_own(const char *dir, const tensors *t, const ist_adapters *ad,
                            const ist_model *m, ist_error *err) {
  ist_target_words words;
  IST_TRY(ist_targets_describe(&words, &m->config, ad, err));
  json_t *root, *targets = json_array(), *layers = json_array();
  for (int64_t i = 0; i < words.config.targets.n; i++)
    json_array_append_new(targets, json_string(words.config.targets.p[i]));
  for (int64_t i = 0; i < words.config.n_layers; i++)
    json_array_append_new(layers, json_integer(words.config.layers[i]));
  json_t *ranks = json_object();
  for (int64_t i = 0; i < words.config.n_rank_pattern; i++)
    json_object_set_new(ranks, words.config.rank_pattern[i].key,
                        json_integer((json_int_t)words.config.rank_pattern[i].value));
  ist_target_words_free(&words);
  if (ad->layout.prefix) {
    root = json_pack("{s:s, s:o, s:I}", "peft_type", "IST_PREFIX", "base_model_name_or_path",
                     ist_json_path(m->path), "num_virtual_tokens", (json_int_t)ad->layout.prefix);
  } else {
    root = json_pack(
        "{s:s, s:o, s:I, s:s, s:o, s:b, s:O, s:O, s:O}", "peft_type", "BOTTLENECK",
        "base_model_name_or_path", ist_json_path(m->path), "bottleneck_size",
        (json_int_t)ad->config.rank, "non_linearity", ist_activation_name(ad->config.act),
        "scaling",
        ad->config.learned_scaling ? json_string("learned") : json_real(ad->config.scaling),
        "use_parallel_adapter", ad->method == &ist_peft_parallel, "target_modules", targets,
        "layers_to_transform", layers, "rank_pattern", ranks);
  }
  json_decref(targets);
  json_decref(layers);
  json_decref(ranks);
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
  ist_target_words words;
  IST_TRY(ist_targets_describe(&words, &m->config, ad, err));
  ist_peft_config c = words.config;
  c.base_model = m->path;
  c.dropout = ad->config.dropout;
  c.dora = ad->method->magnitude;
  c.lora_bias = ad->config.lora_bias;
  c.fan_in_fan_out = m->config.family->hf_transposes;
  char path[IST_OUTER_COUNT][128];
  const char *saved[IST_OUTER_COUNT];
  c.modules_to_save.p = saved;
  for (int i = 0; i < IST_OUTER_COUNT; i++) {
    if (!m->whole[i] || ad->outer.of[i].rank) continue;
    ist_module_path(path[i], sizeof path[i], &m->config, -1, ist_outer_tensor((ist_outer)i), 0);
    saved[c.modules_to_save.n++] = path[i];
  }
  ist_status s = ist_peft_write(dir, &c, t->item, t->n, err);
  ist_target_words_free(&words);
  return s;
}

ist_status ist_adapter_save(const char *dir, const ist_adapters *ad, const ist_model *m,
                            ist_error *err) {
  tensors t;
  ist_status status = collect(&t, ad, m, err);
  bool peft = ad->method == &ist_peft_lora || ad->method == &ist_peft_dora;
  /* What llama.cpp can hold; of a tied pair it would take both sides for one's adapter. */
  bool tied = m->config.tied && ad->outer.params > 0;
  bool whole = m->whole[IST_OUTER_EMBED] || m->whole[IST_OUTER_HEAD];
  bool gguf = ad->method == &ist_peft_lora && !ad->config.lora_bias && !tied && !whole;
  if (tied)
    ist_log(IST_LOG_WARN,
            "%s: no adapter.gguf: llama.cpp cannot run an adapter on one side of tied embeddings; "
            "merge it",
            dir);
  if (status == IST_OK)
    status = peft ? write_peft(dir, &t, ad, m, err) : write_own(dir, &t, ad, m, err);
  char *path = status == IST_OK ? ist_path_join(dir, "adapter.gguf") : NULL;
  if (status == IST_OK && !path) status = ist_fail_nomem(err, "path", strlen(dir));
  if (status == IST_OK && gguf)
    status = ist_lora_gguf_write_items(path, m->config.arch, (float)ad->config.alpha, t.pair,
                                       t.n_pairs, err);
  else if (status == IST_OK)
    status = ist_remove_file(path, err); /* of another adapter */
  ist_free(path);
  free_tensors(&t);
  return status;
}
