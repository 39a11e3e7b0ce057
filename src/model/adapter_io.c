#include "model/adapter_io.h"

#include <stdio.h>

#include "model/targets.h"

const char *ist_part_suffix(const ist_peft_method *method, ist_part part) {
  static const char *const lora[] = {"lora_A.weight", "lora_B.weight", "lora_magnitude_vector",
                                     "lora_B.bias", NULL};
  static const char *const bottleneck[] = {"adapter_down.weight", "adapter_up.weight", NULL, NULL,
                                           "adapter_scaling"};
  return method->by_alpha ? lora[part] : bottleneck[part];
}

bool ist_adapter_next(const ist_adapters *ad, const ist_model_config *c, ist_adapter_key *k) {
  if (k->layer < 0) *k = (ist_adapter_key){0, (ist_module)0, -1};
  k->copy++;
  for (; k->layer < ad->L; k->layer++, k->m = (ist_module)0) {
    for (; k->m < IST_MOD_COUNT; k->m++, k->copy = 0) {
      bool here = ist_adapter_rank(ad, k->layer, k->m) && ist_model_has(c, k->layer, k->m);
      if (here && k->copy < ist_module_copies(&ad->sizes, k->m)) return true;
    }
  }
  return false;
}

void ist_adapter_peft_name(char *out, size_t size, const ist_adapters *ad,
                           const ist_model_config *c, ist_adapter_key k, ist_part part) {
  char path[128];
  ist_module_path(path, sizeof path, c, k.layer, (int)k.m, k.copy);
  snprintf(out, size, "base_model.model.%s.%s", path, ist_part_suffix(ad->method, part));
}

bool ist_adapter_has(const ist_adapters *ad, ist_module m, ist_part part) {
  const ist_adapter *a = &ad->layout.module[m];
  const bool has[] = {a->rank, a->rank, a->m, a->bias, a->learned};
  return has[part];
}

void ist_adapter_shape(const ist_adapters *ad, int64_t layer, ist_module m, ist_part part,
                       int64_t *rows, int64_t *cols) {
  const ist_adapter *a = &ad->layout.module[m];
  const int64_t rank = ist_adapter_rank(ad, layer, m), out = ad->sizes.out[m];
  const int64_t shape[][2] = {{rank, a->in}, {a->out, rank}, {out, 1}, {out, 1}, {1, 1}};
  *rows = shape[part][0];
  *cols = shape[part][1];
}

/* Within a head, ggml's 2j + p is Hugging Face's p * E/2 + j. */
static int64_t unpermuted(const ist_model_config *c, int64_t row) {
  int64_t i = row % c->E;
  return row - i + (i % 2) * (c->E / 2) + i / 2;
}
static int64_t permuted(const ist_model_config *c, int64_t row) {
  int64_t i = row % c->E, half = c->E / 2;
  return row - i + i % half * 2 + i / half;
}

/* All q, all k, all v -> q.., k, v of each key/value head. */
static int64_t grouped(const ist_model_config *c, int64_t row) {
  int64_t per = c->H / c->K * c->E, q = c->H * c->E, kv = c->K * c->E, group = per + 2 * c->E;
  if (row < q) return row / per * group + row % per;
  int64_t i = (row - q) % kv, which = (row - q) / kv;
  return i / c->E * group + per + which * c->E + i % c->E;
}

int64_t ist_outside_row(const ist_model_config *c, ist_module m, ist_rows there, int64_t row) {
  bool qk = (m == IST_MOD_Q || m == IST_MOD_K) && c->family->ggml_permutes_qk;
  if (qk && there == IST_ROWS_HF && c->permuted_qk) return unpermuted(c, row);
  if (qk && there == IST_ROWS_GGUF && !c->permuted_qk) return permuted(c, row);
  bool grouped_there = m == IST_MOD_QKV && c->family->hf_groups_qkv && there == IST_ROWS_HF;
  return grouped_there ? grouped(c, row) : row;
}

/* One element of ours, out or in. */
static void move_one(ist_view v, int64_t at, float *theirs, bool read) {
  if (read)
    *theirs = (float)ist_view_get(v, at);
  else
    ist_view_set(v, at, (double)*theirs);
}

/* Elements of one part, wherever it lies: row r of ours is row `theirs` outside. */
static void move(const ist_adapters *ad, const ist_model_config *c, ist_adapter_key k,
                 ist_part part, ist_rows there, float *outside, bool read) {
  const ist_adapter own = ist_adapter_of(ad, k.m, k.copy);
  const int64_t offset[] = {own.a, own.b, own.m, own.bias, own.learned};
  int64_t rows, cols;
  ist_adapter_shape(ad, k.layer, k.m, part, &rows, &cols);
  int64_t stride = part == IST_PART_B ? own.rank : cols; /* the layout's rank may be more */
  ist_view v = ist_adapter_param(ad, k.layer, offset[part], rows, stride);
  /* Rows that are outputs of the linear. */
  bool moved = part == IST_PART_MAGNITUDE || part == IST_PART_BIAS ||
               (part == IST_PART_B && !ad->method->around);
  for (int64_t r = 0; r < rows; r++) {
    float *theirs = outside + (moved ? ist_outside_row(c, k.m, there, r) : r) * cols;
    for (int64_t i = 0; i < cols; i++) move_one(v, r * stride + i, &theirs[i], read);
  }
}

void ist_adapter_read(const ist_adapters *ad, const ist_model_config *c, ist_adapter_key k,
                      ist_part part, ist_rows there, float *dst) {
  move(ad, c, k, part, there, dst, true);
}

void ist_adapter_write(ist_adapters *ad, const ist_model_config *c, ist_adapter_key k,
                       ist_part part, ist_rows there, const float *src) {
  move(ad, c, k, part, there, (float *)(uintptr_t)src, false);
}

/* ---- Beside the layers -------------------------------------------------------------------- */

void ist_outer_peft_name(char *out, size_t size, const ist_model_config *c, ist_outer o,
                         ist_part part) {
  static const char *const suffix[IST_OUTER_COUNT][2] = {{"lora_embedding_A", "lora_embedding_B"},
                                                         {"lora_A.weight", "lora_B.weight"}};
  char path[128];
  ist_module_path(path, sizeof path, c, -1, ist_outer_tensor(o), 0);
  snprintf(out, size, "base_model.model.%s.%s", path, suffix[o][part]);
}

void ist_outer_shape(const ist_adapters *ad, ist_outer o, ist_part part, int64_t *rows,
                     int64_t *cols) {
  const int64_t rank = ad->outer.of[o].rank;
  bool wide = (o == IST_OUTER_EMBED) == (part == IST_PART_A);
  int64_t side = wide ? ad->sizes.vocabulary : ad->sizes.width;
  *rows = part == IST_PART_A ? rank : side;
  *cols = part == IST_PART_A ? side : rank;
}

static void move_outer(const ist_adapters *ad, ist_outer o, ist_part part, float *outside,
                       bool read) {
  const ist_outer_adapter *own = &ad->outer.of[o];
  bool turned = o == IST_OUTER_EMBED && part == IST_PART_A; /* ours is (vocabulary, rank) */
  int64_t rows, cols;
  ist_outer_shape(ad, o, part, &rows, &cols);
  ist_view v = ist_outer_param(ad, part == IST_PART_A ? own->a : own->b, rows, cols);
  for (int64_t r = 0; r < rows; r++)
    for (int64_t i = 0; i < cols; i++)
      move_one(v, turned ? i * rows + r : r * cols + i, &outside[r * cols + i], read);
}

void ist_outer_read(const ist_adapters *ad, ist_outer o, ist_part part, float *dst) {
  move_outer(ad, o, part, dst, true);
}

void ist_outer_write(ist_adapters *ad, ist_outer o, ist_part part, const float *src) {
  move_outer(ad, o, part, (float *)(uintptr_t)src, false);
}

/* ---- Prefixes -------------------------------------------------------------------------- */

void ist_prefix_name(char *out, size_t size, int64_t layer, bool keys) {
  snprintf(out, size, "layers.%lld.prefix_%s", (long long)layer, keys ? "key" : "value");
}

static void move_prefix(const ist_adapters *ad, const ist_model_config *c, int64_t layer, bool keys,
                        float *outside, bool read) {
  int64_t offset = keys ? ad->layout.prefix_k : ad->layout.prefix_v, kv = ad->config.kv;
  ist_view v = ist_adapter_param(ad, layer, offset, ad->layout.prefix, kv);
  for (int64_t i = 0; i < v.rows * kv; i++) {
    int64_t col = i % kv;
    if (keys) col = ist_outside_row(c, IST_MOD_K, IST_ROWS_HF, col);
    move_one(v, i, &outside[i - i % kv + col], read);
  }
}

void ist_adapter_read_prefix(const ist_adapters *ad, const ist_model_config *c, int64_t layer,
                             bool keys, float *dst) {
  move_prefix(ad, c, layer, keys, dst, true);
}

void ist_adapter_write_prefix(ist_adapters *ad, const ist_model_config *c, int64_t layer, bool keys,
                              const float *src) {
  move_prefix(ad, c, layer, keys, (float *)(uintptr_t)src, false);
}
