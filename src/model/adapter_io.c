#include "model/adapter_io.h"

#include <stdio.h>

void ist_adapter_peft_name(char *out, size_t size, int64_t layer, ist_module m, ist_half half) {
  snprintf(out, size, "base_model.model.model.layers.%lld.%s.lora_%c.weight", (long long)layer,
           ist_module_peft_path(m), half == IST_HALF_A ? 'A' : 'B');
}

void ist_adapter_gguf_name(char *out, size_t size, int64_t layer, ist_module m, ist_half half) {
  snprintf(out, size, "blk.%lld.%s.weight.lora_%c", (long long)layer, ist_module_gguf(m),
           half == IST_HALF_A ? 'a' : 'b');
}

void ist_adapter_shape(const ist_adapters *ad, ist_module m, ist_half half, int64_t *rows,
                       int64_t *cols) {
  int64_t rank = ad->layout.module[m].rank;
  *rows = half == IST_HALF_A ? rank : ad->sizes.out[m];
  *cols = half == IST_HALF_A ? ad->sizes.in[m] : rank;
}

/* The row of Hugging Face's order that GGUF keeps at `row`: within a head, GGUF's
 * 2j + p is Hugging Face's p * E/2 + j. */
static int64_t hf_row(const ist_model_config *c, ist_module m, ist_half half, int64_t row) {
  bool permuted = c->permuted_qk && half == IST_HALF_B && (m == IST_MOD_Q || m == IST_MOD_K);
  if (!permuted) return row;
  int64_t head = row / c->E, i = row % c->E;
  return head * c->E + (i % 2) * (c->E / 2) + i / 2;
}

/* Elements of one half, wherever it lies: row r of ours is row `theirs` outside. */
static void move(const ist_adapters *ad, const ist_model_config *c, int64_t layer, ist_module m,
                 ist_half half, bool hf, float *outside, bool read) {
  int64_t rows, cols;
  ist_adapter_shape(ad, m, half, &rows, &cols);
  int64_t offset = half == IST_HALF_A ? ad->layout.module[m].a : ad->layout.module[m].b;
  ist_view v = ist_adapter_param(ad, layer, offset, rows, cols);
  for (int64_t r = 0; r < rows; r++) {
    float *theirs = outside + (hf ? hf_row(c, m, half, r) : r) * cols;
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
