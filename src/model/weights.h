/* Base weights as handles. Every use is bracketed by acquire and release; what
 * lies behind (a view onto the mapped file, a scratch that holds one matrix or
 * one layer, a copy that stays) is a policy chosen by the plan. */
#ifndef IST_MODEL_WEIGHTS_H
#define IST_MODEL_WEIGHTS_H

#include "model/names.h"

/* `rows` rows of a tensor in the file: runs of `group` every `period` rows. */
typedef struct ist_stored_part {
  const unsigned char *data; /* the first row */
  int64_t rows, group, period;
} ist_stored_part;

/* A tensor as stored: (rows, cols) of `type` at data; data NULL when absent. With
 * parts, its rows are theirs in order: a fused q, k, v that the file keeps by head. */
typedef struct ist_stored {
  const unsigned char *data;
  ist_dtype type;
  int64_t rows, cols;
  int n_parts;    /* 0: contiguous */
  bool in_memory; /* a copy of ours, not a mapped file's pages */
  ist_stored_part part[3];
} ist_stored;

typedef enum ist_weight_policy {
  IST_WEIGHT_STREAM, /* one matrix at a time in one scratch */
  IST_WEIGHT_LAYER,  /* one layer at a time, a scratch a module */
  IST_WEIGHT_KEEP    /* every matrix dequantised once and kept */
} ist_weight_policy;

/* A place that can hold one dequantised matrix. */
typedef struct ist_weight_slot {
  unsigned char *p;
  int64_t held; /* key of the tensor inside, -1: none */
} ist_weight_slot;

typedef struct ist_weights {
  const ist_model_config *config;
  ist_stored *layer, *layer_bias; /* (L, IST_T_LAYER_COUNT) each */
  ist_stored model[IST_T_END - IST_T_LAYER_COUNT], model_bias[IST_T_END - IST_T_LAYER_COUNT];
  ist_stored *expert; /* (L, experts, 3): gate, up, down; NULL: no experts */
  ist_weight_slot expert_slot[3];
  unsigned char **transposed; /* copies of tensors that the file keeps as (in, out); owned */
  int64_t n_transposed;
  unsigned char *requantised;         /* matrices quantised on opening; owned */
  ist_gguf *cache;                    /* or the file that holds them */
  int64_t parameters;                 /* elements of all tensors */
  ist_stored whole_embed, whole_head; /* an adapter's own (modules_to_save); data NULL: none */
  /* policy */
  ist_dtype compute;
  ist_weight_policy policy;
  int64_t tail[IST_MOD_COUNT]; /* columns kept free behind each matrix, for B */
  ist_weight_slot *slot;
  int64_t n_slots;
  ist_weight_slot head; /* the output head, or a tile of it, in the compute type */
  int64_t head_rows;    /* rows the head slot holds: V, or a vocabulary tile */
  ist_view *vector;     /* norm weights, biases (wide) and small matrices (compute), kept */
} ist_weights;

/* Finds and checks every tensor of the model; a tensor of the file that the
 * architecture does not know is an error. */
ist_status ist_weights_open(ist_weights *w, const ist_model_config *c, const ist_source *s,
                            ist_error *err);
void ist_weights_close(ist_weights *w);

const ist_stored *ist_weights_stored(const ist_weights *w, int64_t layer, int id);
const ist_stored *ist_weights_stored_bias(const ist_weights *w, int64_t layer, int id);
/* Rows [row0, row0 + dst.rows) of a stored tensor in dst's type. */
void ist_stored_rows(ist_ctx *ctx, ist_view dst, const ist_stored *s, int64_t row0);
/* `l` as linears over a matrix as it is stored, one or (rows grouped by head) three;
 * returns their number. */
int ist_stored_linears(ist_stored_linear out[3], const ist_stored_linear *l, const ist_stored *s);
/* The stored matrix of an expert: which 0 gate, 1 up, 2 down. */
const ist_stored *ist_weights_stored_expert(const ist_weights *w, int64_t layer, int which,
                                            int64_t expert);
/* The matrix of the output head: an adapter's, `output`, or the embedding where tied; and that
 * which is looked up. */
const ist_stored *ist_weights_head(const ist_weights *w);
const ist_stored *ist_weights_embedding(const ist_weights *w);

/* Bytes that a policy needs, for the plan: matrices, and the head apart. */
size_t ist_weights_policy_bytes(const ist_weights *w, ist_weight_policy policy, ist_dtype compute,
                                const int64_t tail[IST_MOD_COUNT]);
size_t ist_weights_head_bytes(const ist_weights *w, ist_dtype compute, int64_t rows);
size_t ist_weights_vector_bytes(const ist_weights *w, ist_dtype compute);
/* Sets the policy with memory of those sizes from `arena` (slot table: heap). */
ist_status ist_weights_set_policy(ist_weights *w, ist_weight_policy policy, ist_dtype compute,
                                  const int64_t tail[IST_MOD_COUNT], int64_t head_rows,
                                  ist_arena *arena, ist_error *err);

/* A matrix in the compute type: (rows, cols), stride >= cols + tail where the
 * policy copied it. Valid until release; the same slot may then hold another. */
ist_view ist_weights_acquire(ist_weights *w, ist_ctx *ctx, int64_t layer, ist_module m);
/* The matrix of an expert: which 0 gate, 1 up, 2 down. Valid until the next of its kind. */
ist_view ist_weights_acquire_expert(ist_weights *w, ist_ctx *ctx, int64_t layer, int which,
                                    int64_t expert);
void ist_weights_release(ist_weights *w, int64_t layer, ist_module m);
/* True when columns [cols, cols + tail) behind an acquired view may be written. */
bool ist_weights_has_tail(const ist_weights *w, int64_t layer, ist_module m);
/* Rows [row0, row0 + rows) of the head in the compute type. */
ist_view ist_weights_acquire_head(ist_weights *w, ist_ctx *ctx, int64_t row0, int64_t rows);
/* Pages of a layer's matrices in the mapped file: out of memory, or read ahead. */
void ist_weights_drop_pages(const ist_weights *w, int64_t layer);
void ist_weights_want_pages(const ist_weights *w, int64_t layer);
/* Bytes of the largest layer in the file; of layer l; of all matrices that a policy
 * copies, because they are not stored in the compute type. */
int64_t ist_weights_layer_bytes(const ist_weights *w);
int64_t ist_weights_bytes_of(const ist_weights *w, int64_t l);
int64_t ist_weights_copied_bytes(const ist_weights *w, ist_dtype compute);
/* A vector (1, n) in the wide type, or a projection beside the embedding in the
 * compute type; absent where the model has none. layer -1: of no layer. */
ist_view ist_weights_vector(const ist_weights *w, int64_t layer, int id);
ist_view ist_weights_bias(const ist_weights *w, int64_t layer, int id);

/* The type of reductions and parameters beside a compute type. */
static inline ist_dtype ist_wide(ist_dtype compute) {
  return compute == IST_F64 ? IST_F64 : IST_F32;
}

#endif
