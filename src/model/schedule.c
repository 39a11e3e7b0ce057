#include "model/schedule.h"

#include "base/mem.h"

ist_slots ist_schedule_slots(int64_t L, int64_t active, ist_order order, ist_recompute recompute) {
  if (order == IST_ORDER_LAYER) recompute = IST_RECOMPUTE_LAYER;
  return (ist_slots){
      .boundary = L + 1,
      .attn = recompute == IST_RECOMPUTE_LAYER ? 1 : L,
      .mlp = recompute == IST_RECOMPUTE_NONE ? L : 1,
      .low = recompute == IST_RECOMPUTE_LAYER ? 1 : active + 1,
  };
}

int64_t ist_schedule_items(int64_t L, int64_t n_micro) {
  return n_micro * (2 * L + 3) + 3 * L;
}

ist_status ist_schedule_reserve(ist_schedule *s, int64_t items, ist_error *err) {
  return ist_grow(&s->work, &s->cap, items, sizeof *s->work, err);
}

void ist_schedule_free(ist_schedule *s) {
  ist_free(s->work);
  *s = (ist_schedule){0};
}

int64_t ist_lowest_active(const uint8_t *active, int64_t L) {
  int64_t l = 0;
  while (l < L && !active[l]) l++;
  return l;
}

static void push(ist_schedule *s, ist_work w) {
  IST_ASSERT(s->n < s->cap);
  s->work[s->n++] = w;
}

/* Where layer l keeps its values. Layers below `lowest` work in place in slot 0. */
typedef struct slot_map {
  int64_t lowest;
  ist_recompute recompute;
  const uint8_t *active;
  bool keep_frozen;
} slot_map;

static ist_work layer_item(const slot_map *map, ist_work_op op, int64_t l, int64_t micro) {
  int64_t kept = l > map->lowest ? l - map->lowest : 0, ordinal = 0;
  bool keeps = l >= map->lowest;
  if (map->recompute != IST_RECOMPUTE_LAYER && keeps && map->keep_frozen) {
    ordinal = kept + 1;
  } else if (map->recompute != IST_RECOMPUTE_LAYER && keeps && map->active[l]) {
    for (int64_t i = 0; i <= l; i++) ordinal += map->active[i] != 0;
  }
  return (ist_work){
      .op = (uint8_t)op,
      .recompute = (uint8_t)(op == IST_WORK_BWD ? map->recompute : IST_RECOMPUTE_NONE),
      .layer = (int16_t)l,
      .micro = (int32_t)micro,
      .in = (int32_t)kept,
      .out = (int32_t)(keeps ? kept + 1 : 0),
      .attn = (int32_t)(map->recompute == IST_RECOMPUTE_LAYER ? 0 : kept),
      .mlp = (int32_t)(map->recompute == IST_RECOMPUTE_NONE ? kept : 0),
      .low = (int32_t)ordinal,
  };
}

void ist_schedule_embed(ist_schedule *s) {
  s->n = 0;
  push(s, (ist_work){.op = IST_WORK_EMBED});
}

void ist_schedule_layer(ist_schedule *s, int64_t layer) {
  s->n = 0;
  push(s, (ist_work){.op = IST_WORK_FWD, .layer = (int16_t)layer});
}

void ist_schedule_trial(ist_schedule *s, int64_t L, int64_t layer) {
  s->n = 0;
  for (int64_t l = layer; l < L; l++) {
    push(s, (ist_work){.op = IST_WORK_FWD, .layer = (int16_t)l, .in = l > layer ? 1 : 0, .out = 1});
  }
  push(s, (ist_work){.op = IST_WORK_HEAD, .in = layer < L ? 1 : 0});
}

/* Layer order: done with `layer` and its slot `slot`, `next` comes (-1: none). */
static void push_pages(ist_schedule *s, int64_t layer, int64_t next, int64_t slot) {
  push(s, (ist_work){.op = IST_WORK_PAGES,
                     .layer = (int16_t)layer,
                     .in = (int32_t)next,
                     .out = (int32_t)slot});
}

/* Micro-batches [first, last) through all layers. Backward, where it follows, begins with
 * the last layer: its pages stay. */
static void push_forward(ist_schedule *s, int64_t L, const slot_map *map, int64_t first,
                         int64_t last, bool pages) {
  for (int64_t m = first; m < last; m++)
    push(s, (ist_work){.op = IST_WORK_EMBED, .micro = (int32_t)m});
  for (int64_t l = 0; l < L; l++) {
    for (int64_t m = first; m < last; m++) push(s, layer_item(map, IST_WORK_FWD, l, m));
    bool stays = l == L - 1 && map->lowest < L;
    if (pages)
      push_pages(s, stays ? -1 : l, l + 1 < L ? l + 1 : -1, l > map->lowest ? l - map->lowest : -1);
  }
}

static void push_group_forward(ist_schedule *s, int64_t L, int64_t first, int64_t last, bool pages,
                               bool head) {
  const slot_map map = {.lowest = L, .recompute = IST_RECOMPUTE_LAYER};
  push_forward(s, L, &map, first, last, pages);
  for (int64_t m = first; head && m < last; m++)
    push(s, (ist_work){.op = IST_WORK_HEAD, .micro = (int32_t)m});
}

void ist_schedule_forward(ist_schedule *s, int64_t L, int64_t first, int64_t last, ist_order order,
                          bool head) {
  s->n = 0;
  if (order == IST_ORDER_LAYER) {
    push_group_forward(s, L, first, last, true, head);
  } else {
    for (int64_t m = first; m < last; m++) push_group_forward(s, L, m, m + 1, false, head);
  }
}

/* Micro-batches [first, last) through all layers forward, then all backward. */
static void push_group(ist_schedule *s, int64_t L, const slot_map *map, int64_t first, int64_t last,
                       bool pages) {
  int32_t top = (int32_t)(L - map->lowest);
  push_forward(s, L, map, first, last, pages);
  for (int64_t m = first; m < last; m++) {
    push(s, (ist_work){
                .op = IST_WORK_HEAD, .backward = map->lowest < L, .micro = (int32_t)m, .in = top});
  }
  for (int64_t l = L - 1; l >= map->lowest; l--) {
    if (pages && l > map->lowest) push_pages(s, -1, l - 1, -1);
    for (int64_t m = first; m < last; m++) push(s, layer_item(map, IST_WORK_BWD, l, m));
    if (pages) push_pages(s, l, -1, l - map->lowest);
  }
  for (int64_t m = first; s->to_embedding && m < last; m++)
    push(s, (ist_work){.op = IST_WORK_EMBED_BWD, .micro = (int32_t)m});
}

void ist_schedule_train(ist_schedule *s, int64_t L, int64_t n_micro, const uint8_t *active,
                        ist_order order, ist_recompute recompute) {
  const slot_map map = {
      .lowest = s->to_embedding ? 0 : ist_lowest_active(active, L),
      .recompute = order == IST_ORDER_LAYER ? IST_RECOMPUTE_LAYER : recompute,
      .active = active,
      .keep_frozen = s->keep_frozen,
  };
  s->n = 0;
  if (order == IST_ORDER_LAYER) {
    push_group(s, L, &map, 0, n_micro, true);
  } else {
    for (int64_t m = 0; m < n_micro; m++) push_group(s, L, &map, m, m + 1, false);
  }
}
