#include "model/adapter_io.h"

#include <stdio.h>

void ist_adapter_peft_name(char *out, size_t size, const ist_model_config *c, int64_t layer,
                           ist_module m, ist_half half) {
  char stem[128];
  if (!ist_tensor_hf_stem(stem, sizeof stem, c, layer, (int)m))
    snprintf(stem, sizeof stem, "layers.%lld.%s", (long long)layer, ist_module_name(m));
  snprintf(out, size, "base_model.model.%s.lora_%c.weight", stem, half == IST_HALF_A ? 'A' : 'B');
}

void ist_adapter_shape(const ist_adapters *ad, ist_module m, ist_half half, int64_t *rows,
                       int64_t *cols) {
  const ist_adapter *a = &ad->layout.module[m];
  *rows = half == IST_HALF_A ? a->rank : a->out;
  *cols = half == IST_HALF_A ? a->in : a->rank;
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

int64_t ist_outside_row(const ist_model_config *c, ist_module m, bool hf, int64_t row) {
  bool qk = (m == IST_MOD_Q || m == IST_MOD_K) && c->family->ggml_permutes_qk;
  if (qk && hf && c->permuted_qk) return unpermuted(c, row);
  if (qk && !hf && !c->permuted_qk) return permuted(c, row);
  return m == IST_MOD_QKV && c->family->hf_groups_qkv && hf ? grouped(c, row) : row;
}

/* Elements of one half, wherever it lies: row r of ours is row `theirs` outside. */
static void move(const ist_adapters *ad, const ist_model_config *c, int64_t layer, ist_module m,
                 ist_half half, bool hf, float *outside, bool read) {
  int64_t rows, cols;
  ist_adapter_shape(ad, m, half, &rows, &cols);
  int64_t offset = half == IST_HALF_A ? ad->layout.module[m].a : ad->layout.module[m].b;
  ist_view v = ist_adapter_param(ad, layer, offset, rows, cols);
  bool moved = half == IST_HALF_B && !ad->method->around; /* rows of B are outputs of the linear */
  for (int64_t r = 0; r < rows; r++) {
    float *theirs = outside + (moved ? ist_outside_row(c, m, hf, r) : r) * cols;
    for (int64_t i = 0; i < cols; i++) {
      int64_t at = r * cols + i;
      if (v.dt == IST_F64 && read)
        theirs[i] = (float)((double *)v.p)[at];
      else if (v.dt == IST_F64)
        ((double *)v.p)[at] = (double)theirs[i];
      else if (read)
        theirs[i] = ((float *)v.p)[at];
      else
        ((float *)v.p)[at] = theirs[i];
    }
  }
}

void ist_adapter_read(const ist_adapters *ad, const ist_model_config *c, int64_t layer,
                      ist_module m, ist_half half, bool hf, float *dst) {
  move(ad, c, layer, m, half, hf, dst, true);
}

void ist_adapter_write(ist_adapters *ad, const ist_model_config *c, int64_t layer, ist_module m,
                       ist_half half, bool hf, const float *src) {
  move(ad, c, layer, m, half, hf, (float *)(uintptr_t)src, false);
}
