/* The order of work as data: which item follows which, and which slots it uses. */
#ifndef IST_MODEL_SCHEDULE_H
#define IST_MODEL_SCHEDULE_H

#include "model/decoder.h"

typedef enum ist_order {
  IST_ORDER_TOKEN, /* a micro-batch through all layers, then the next */
  IST_ORDER_LAYER  /* a layer over all micro-batches: every weight is read twice a step */
} ist_order;

typedef struct ist_schedule {
  bool keep_frozen;  /* frozen layers keep their low-rank values too */
  bool to_embedding; /* backward goes through all layers, and to the embedding's adapter */
  ist_work *work;
  int64_t n, cap;
} ist_schedule;

/* How many kept-value slots a training schedule needs. active: layers that train
 * in a step. Layer order recomputes whole layers. */
typedef struct ist_slots {
  int64_t boundary, attn, mlp, low;
} ist_slots;
ist_slots ist_schedule_slots(int64_t L, int64_t active, ist_order order, ist_recompute recompute);

/* Items of the longest schedule for n micro-batches; ist_schedule_reserve makes
 * room for them, so that building allocates nothing. */
int64_t ist_schedule_items(int64_t L, int64_t n_micro);
ist_status ist_schedule_reserve(ist_schedule *s, int64_t items, ist_error *err);
void ist_schedule_free(ist_schedule *s);

/* Forward and loss only, in one boundary slot, of micro-batches [first, last); in layer
 * order their rows must lie apart in it. */
void ist_schedule_forward(ist_schedule *s, int64_t L, int64_t first, int64_t last, ist_order order,
                          bool head);
/* Parts of a forward pass of one micro-batch whose state below a layer is kept in
 * slot 0: its embedding; one layer in place; and a trial that leaves slot 0 alone:
 * the layers from `layer` (L: none) on in slot 1, and the head. */
void ist_schedule_embed(ist_schedule *s);
void ist_schedule_layer(ist_schedule *s, int64_t layer);
void ist_schedule_trial(ist_schedule *s, int64_t L, int64_t layer);
/* A training step. Below `lowest` nothing is kept and backward does not go. */
void ist_schedule_train(ist_schedule *s, int64_t L, int64_t n_micro, const uint8_t *active,
                        ist_order order, ist_recompute recompute);
/* The lowest active layer; L when there is none. */
int64_t ist_lowest_active(const uint8_t *active, int64_t L);

#endif
