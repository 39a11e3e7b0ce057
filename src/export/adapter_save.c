#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "export/adapter_files.h"
#include "format/lora_gguf.h"
#include "format/peft_dir.h"

/* Every half of every module of every layer as named float arrays. */
typedef struct tensors {
  ist_st_item *item;
  ist_lora_pair *pair;
  int64_t n, n_pairs;
} tensors;

static void free_tensors(tensors *t) {
  for (int64_t i = 0; i < t->n; i++) {
    ist_free((void *)(uintptr_t)t->item[i].name);
    ist_free((void *)(uintptr_t)t->item[i].data);
  }
  for (int64_t i = 0; i < t->n_pairs; i++) {
    ist_free((void *)(uintptr_t)t->pair[i].name);
    ist_free((void *)(uintptr_t)t->pair[i].a);
    ist_free((void *)(uintptr_t)t->pair[i].b);
  }
  ist_free(t->item);
  ist_free(t->pair);
}

static float *read_half(const ist_adapters *ad, const ist_model *m, int64_t l, ist_module mod,
                        ist_half half, bool hf) {
  int64_t rows, cols;
  ist_adapter_shape(ad, mod, half, &rows, &cols);
  float *values = ist_calloc((size_t)(rows * cols), sizeof *values);
  if (values) ist_adapter_read(ad, &m->config, l, mod, half, hf, values);
  return values;
}

/* One half as PEFT knows it. False: out of memory. */
static bool add_item(tensors *t, const ist_adapters *ad, const ist_model *m, int64_t l,
                     ist_module mod, ist_half half) {
  char name[160];
  ist_adapter_peft_name(name, sizeof name, l, mod, half);
  ist_st_item *item = &t->item[t->n++];
  *item = (ist_st_item){.name = ist_strdup(name),
                        .type = IST_F32,
                        .n_dims = 2,
                        .data = read_half(ad, m, l, mod, half, true)};
  ist_adapter_shape(ad, mod, half, &item->shape[0], &item->shape[1]);
  return item->name && item->data;
}

/* Both halves as llama.cpp knows them. */
static bool add_pair(tensors *t, const ist_adapters *ad, const ist_model *m, int64_t l,
                     ist_module mod) {
  char name[96];
  ist_tensor_name(name, sizeof name, l, (int)mod);
  ist_lora_pair *pair = &t->pair[t->n_pairs++];
  *pair = (ist_lora_pair){
      .name = ist_strdup(name),
      .in = ad->sizes.in[mod],
      .out = ad->sizes.out[mod],
      .r = ad->layout.module[mod].rank,
      .a = read_half(ad, m, l, mod, IST_HALF_A, false),
      .b = read_half(ad, m, l, mod, IST_HALF_B, false),
  };
  return pair->name && pair->a && pair->b;
}

static ist_status collect(tensors *t, const ist_adapters *ad, const ist_model *m, ist_error *err) {
  size_t most = (size_t)(ad->L * IST_MOD_COUNT);
  *t = (tensors){.item = ist_calloc(2 * most, sizeof *t->item),
                 .pair = ist_calloc(most, sizeof *t->pair)};
  bool ok = t->item && t->pair;
  for (int64_t l = 0; ok && l < ad->L; l++) {
    for (int mod = 0; ok && mod < IST_MOD_COUNT; mod++) {
      if (!ad->layout.module[mod].rank) continue;
      ok = add_item(t, ad, m, l, (ist_module)mod, IST_HALF_A) &&
           add_item(t, ad, m, l, (ist_module)mod, IST_HALF_B) &&
           add_pair(t, ad, m, l, (ist_module)mod);
    }
  }
  return ok ? IST_OK
            : ist_fail_nomem(err, "adapter tensors",
                             (size_t)(ad->L * ad->layout.params) * 2 * sizeof(float));
}

static ist_status write_peft(const char *dir, const tensors *t, const ist_adapters *ad,
                             const ist_model *m, ist_error *err) {
  const char *targets[IST_MOD_COUNT];
  ist_peft_config c = {
      .base_model = m->path,
      .r = ad->config.rank,
      .alpha = ad->config.alpha,
      .dropout = ad->config.dropout,
      .targets = {targets, 0},
  };
  for (int mod = 0; mod < IST_MOD_COUNT; mod++) {
    if (ad->layout.module[mod].rank)
      targets[c.targets.n++] = strrchr(ist_module_peft_path((ist_module)mod), '.') + 1;
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
    status =
        ist_lora_gguf_write(path, m->config.arch, (float)ad->config.alpha, t.pair, t.n_pairs, err);
  ist_free(path);
  free_tensors(&t);
  return status;
}
