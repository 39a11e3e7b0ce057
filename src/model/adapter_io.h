/* Adapter tensors as other programs know them: Hugging Face PEFT's names and row
 * order on one side, GGUF's on the other, and ours, which is that of the base in use. */
#ifndef IST_MODEL_ADAPTER_IO_H
#define IST_MODEL_ADAPTER_IO_H

#include "model/names.h"
#include "peft/peft.h"

/* What a module's adapter consists of, as tensors. */
typedef enum ist_part {
  IST_PART_A,         /* (rank, in) */
  IST_PART_B,         /* (out, rank) */
  IST_PART_MAGNITUDE, /* DoRA's, (out) */
  IST_PART_BIAS,      /* B's, (out) */
  IST_PART_SCALING,   /* a bottleneck's, where it is learned (1) */
  IST_PART_COUNT
} ist_part;

/* One matrix that has an adapter. */
typedef struct ist_adapter_key {
  int64_t layer;
  ist_module m;
  int64_t copy; /* which expert's; 0 elsewhere */
} ist_adapter_key;
/* The one behind *k; begin with {.layer = -1}. False: there is none. */
bool ist_adapter_next(const ist_adapters *ad, const ist_model_config *c, ist_adapter_key *k);

/* "base_model.model.model.layers.N.self_attn.q_proj.lora_A.weight", in the names of the family;
 * bottlenecks have the names of the IST authors. */
void ist_adapter_peft_name(char *out, size_t size, const ist_adapters *ad,
                           const ist_model_config *c, ist_adapter_key k, ist_part part);
/* The end of it: "lora_A.weight"; NULL: methods of this kind have no such part. */
const char *ist_part_suffix(const ist_peft_method *method, ist_part part);
bool ist_adapter_has(const ist_adapters *ad, ist_module m, ist_part part);

/* Whose order rows are in: the engine's own (that of the base in use), Hugging Face's, or that
 * of a GGUF. */
typedef enum ist_rows { IST_ROWS_OURS, IST_ROWS_HF, IST_ROWS_GGUF } ist_rows;

/* The row there of our row of a module's matrix, or of B: q and k of some families are
 * permuted, fused q, k, v grouped by head. */
int64_t ist_outside_row(const ist_model_config *c, ist_module m, ist_rows there, int64_t row);

/* Rows and columns of one part, with the rank that the layer has; a vector has 1 column. */
void ist_adapter_shape(const ist_adapters *ad, int64_t layer, ist_module m, ist_part part,
                       int64_t *rows, int64_t *cols);

/* Copies one part out of, or into, the parameters as float. */
void ist_adapter_read(const ist_adapters *ad, const ist_model_config *c, ist_adapter_key k,
                      ist_part part, ist_rows there, float *dst);
void ist_adapter_write(ist_adapters *ad, const ist_model_config *c, ist_adapter_key k,
                       ist_part part, ist_rows there, const float *src);

/* The same beside the layers: A (rank, vocabulary) and B (width, rank) of an embedding, A (rank,
 * width) and B (vocabulary, rank) of a head, as PEFT has them. */
void ist_outer_peft_name(char *out, size_t size, const ist_model_config *c, ist_outer o,
                         ist_part part);
void ist_outer_shape(const ist_adapters *ad, ist_outer o, ist_part part, int64_t *rows,
                     int64_t *cols);
void ist_outer_read(const ist_adapters *ad, ist_outer o, ist_part part, float *dst);
void ist_outer_write(ist_adapters *ad, ist_outer o, ist_part part, const float *src);

/* The same of a layer's prefix (virtual tokens, K*E): keys or values, heads in Hugging Face's
 * order; and its names. */
void ist_prefix_name(char *out, size_t size, int64_t layer, bool keys);
void ist_adapter_read_prefix(const ist_adapters *ad, const ist_model_config *c, int64_t layer,
                             bool keys, float *dst);
void ist_adapter_write_prefix(ist_adapters *ad, const ist_model_config *c, int64_t layer, bool keys,
                              const float *src);

#endif
