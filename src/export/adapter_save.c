#include <stdlib.h>
#include <string.h>

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
static const float *make_gguf(void *user, int half) {
  return make_half(user, half ? IST_HALF_B : IST_HALF_A, false);
}

/* One half as PEFT knows it. False: out of memory. */
static bool add_item(tensors *t, place *p, ist_half half) {
  char name[160];
  ist_adapter_peft_name(name, sizeof name, &t->m->config, p->layer, p->mod, half);
  ist_st_item *item = &t->item[t->n++];
  *item = (ist_st_item){.name = ist_strdup(name),
                        .type = IST_F32,
                        .n_dims = 2,
                        .make = half == IST_HALF_A ? make_peft_a : make_peft_b,
                        .user = p};
  ist_adapter_shape(t->ad, p->mod, half, &item->shape[0], &item->shape[1]);
  return item->name != NULL;
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
  int64_t largest = 0, rows, cols;
  for (int mod = 0; mod < IST_MOD_COUNT; mod++) {
    for (int half = 0; ad->layout.module[mod].rank && half < 2; half++) {
      ist_adapter_shape(ad, (ist_module)mod, (ist_half)half, &rows, &cols);
      if (rows * cols > largest) largest = rows * cols;
    }
  }
  return (size_t)largest;
}

static ist_status collect(tensors *t, const ist_adapters *ad, const ist_model *m, ist_error *err) {
  size_t most = (size_t)(ad->L * IST_MOD_COUNT);
  *t = (tensors){.ad = ad,
                 .m = m,
                 .values = ist_calloc(largest_half(ad), sizeof *t->values),
                 .item = ist_calloc(2 * most, sizeof *t->item),
                 .pair = ist_calloc(most, sizeof *t->pair),
                 .place = ist_calloc(most, sizeof *t->place)};
  bool ok = t->values && t->item && t->pair && t->place;
  for (int64_t l = 0; ok && l < ad->L; l++) {
    for (int mod = 0; ok && mod < IST_MOD_COUNT; mod++) {
      if (!ad->layout.module[mod].rank) continue;
      place *p = &t->place[t->n_pairs];
      *p = (place){t, l, (ist_module)mod};
      ok = add_item(t, p, IST_HALF_A) && add_item(t, p, IST_HALF_B) && add_pair(t, p);
    }
  }
  return ok ? IST_OK : ist_fail_nomem(err, "names of adapter tensors", most * sizeof *t->item);
}

static ist_status write_peft(const char *dir, const tensors *t, const ist_adapters *ad,
                             const ist_model *m, ist_error *err) {
  char leaf[IST_MOD_COUNT][64];
  const char *targets[IST_MOD_COUNT];
  ist_peft_config c = {
      .base_model = m->path,
      .r = ad->config.rank,
      .alpha = ad->config.alpha,
      .dropout = ad->config.dropout,
      .fan_in_fan_out = m->config.family->hf_transposes,
      .targets = {targets, 0},
  };
  for (int mod = 0; mod < IST_MOD_COUNT; mod++) {
    if (!ad->layout.module[mod].rank) continue;
    ist_module_leaf(leaf[mod], sizeof leaf[mod], &m->config, (ist_module)mod);
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
  if (status == IST_OK) status = write_peft(dir, &t, ad, m, err);
  char *path = status == IST_OK ? ist_path_join(dir, "adapter.gguf") : NULL;
  if (status == IST_OK && !path) status = ist_fail_nomem(err, "path", strlen(dir));
  if (status == IST_OK)
    status = ist_lora_gguf_write_items(path, m->config.arch, (float)ad->config.alpha, t.pair,
                                       t.n_pairs, err);
  ist_free(path);
  free_tensors(&t);
  return status;
}
