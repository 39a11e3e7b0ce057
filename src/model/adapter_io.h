/* Adapter tensors as other programs know them: Hugging Face PEFT's names and row
 * order on one side, GGUF's on the other, and ours, which is that of the base in use. */
#ifndef IST_MODEL_ADAPTER_IO_H
#define IST_MODEL_ADAPTER_IO_H

#include "model/names.h"
#include "peft/peft.h"

typedef enum ist_half { IST_HALF_A, IST_HALF_B } ist_half;

/* "base_model.model.model.layers.N.self_attn.q_proj.lora_A.weight", in the names of
 * the family. */
void ist_adapter_peft_name(char *out, size_t size, const ist_model_config *c, int64_t layer,
                           ist_module m, ist_half half);

/* The row outside (Hugging Face's, or GGUF's) of our row of a module's matrix, or of B:
 * q and k of some families are permuted, fused q, k, v grouped by head. */
int64_t ist_outside_row(const ist_model_config *c, ist_module m, bool hf, int64_t row);

/* Rows and columns of one half: (rank, in) or (out, rank). */
void ist_adapter_shape(const ist_adapters *ad, ist_module m, ist_half half, int64_t *rows,
                       int64_t *cols);

/* Copies one half out of, or into, the parameters as float. hf: rows in Hugging
 * Face's order, else in GGUF's. */
void ist_adapter_read(const ist_adapters *ad, const ist_model_config *c, int64_t layer,
                      ist_module m, ist_half half, bool hf, float *dst);
void ist_adapter_write(ist_adapters *ad, const ist_model_config *c, int64_t layer, ist_module m,
                       ist_half half, bool hf, const float *src);

#endif
