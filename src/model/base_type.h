/* Float weights quantised when a model is opened, so that a base made for another
 * machine trains in a quarter of its memory: in memory, or in a cache file. */
#ifndef IST_MODEL_BASE_TYPE_H
#define IST_MODEL_BASE_TYPE_H

#include "model/weights.h"

/* The type that `name` ("q8_0", "q4_0", "q4_k") stands for; -1: unknown. */
int ist_base_type_from_name(const char *name);
const char *ist_base_type_name(ist_dtype type);

/* Every float matrix of w becomes one of `type`, a matrix at a time: linears as said,
 * embedding and head Q8_0. Rows that `type` has no whole blocks for are made of smaller
 * blocks (Q5_0 in place of Q4_K), or stay. cache (NULL: memory): a GGUF file that is
 * used when it was made from a base of the same `identity` and type, and else written.
 * A model without a float matrix is refused. */
ist_status ist_weights_requantise(ist_weights *w, ist_ctx *ctx, ist_dtype type, const char *cache,
                                  uint64_t identity, ist_error *err);
/* As in memory, for a plan: types and sizes are in place, no block is made. *bytes: what the
 * blocks would take. */
ist_status ist_weights_plan_requantise(ist_weights *w, ist_ctx *ctx, ist_dtype type, int64_t *bytes,
                                       ist_error *err);

#endif
