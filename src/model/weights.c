#include "model/weights.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "format/quant.h"

typedef struct tensor_row {
  const char *stem;
  int need;
} tensor_row;
static const tensor_row rows_of[IST_T_END] = {
#define IST_LAYER_TENSOR(id, stem, rows, cols, need) [IST_T_##id] = {stem, need},
#define IST_MODEL_TENSOR(id, stem, rows, cols, need) [IST_T_##id] = {stem, need},
#include "model/tensors.def"
};

void ist_tensor_name(char *out, size_t size, int64_t layer, int id) {
  if (id < IST_T_LAYER_COUNT) {
    snprintf(out, size, "blk.%lld.%s.weight", (long long)layer, rows_of[id].stem);
  } else {
    snprintf(out, size, "%s.weight", rows_of[id].stem);
  }
}

void ist_tensor_shape(const ist_model_config *c, int id, int64_t *rows, int64_t *cols, bool *need) {
  const int64_t D = c->D, F = c->F, H = c->H, K = c->K, E = c->E, V = c->V;
  switch (id) {
#define IST_LAYER_TENSOR(id, stem, r, c_, need) \
  case IST_T_##id:                              \
    *rows = r;                                  \
    *cols = c_;                                 \
    break;
#define IST_MODEL_TENSOR(id, stem, r, c_, need) \
  case IST_T_##id:                              \
    *rows = r;                                  \
    *cols = c_;                                 \
    break;
#include "model/tensors.def"
    default: IST_ASSERT(!"a tensor of the model");
  }
  *need = rows_of[id].need;
}

/* Finds one tensor and checks its shape against the config. */
static ist_status find_tensor(ist_stored *out, const ist_model_config *c, const ist_gguf *g,
                              int64_t layer, int id, ist_error *err) {
  char name[96];
  int64_t rows, cols;
  bool need;
  ist_tensor_name(name, sizeof name, layer, id);
  ist_tensor_shape(c, id, &rows, &cols, &need);
  const ist_gguf_tensor *t = ist_gguf_find_tensor(g, name);
  if (!t && !need) return IST_OK;
  if (!t)
    return ist_fail(err, IST_ERR_FORMAT, "%s: found no such tensor, expected %lld x %lld", name,
                    (long long)rows, (long long)cols);
  int64_t found_rows = t->ne[1] * t->ne[2] * t->ne[3];
  if (t->ne[0] != cols || found_rows != rows) {
    return ist_fail(err, IST_ERR_FORMAT, "%s: found %lld x %lld, expected %lld x %lld", name,
                    (long long)found_rows, (long long)t->ne[0], (long long)rows, (long long)cols);
  }
  *out = (ist_stored){t->data, t->type, rows, cols};
  return IST_OK;
}

/* Tensors that carry no weight of ours but belong to files of the family. */
static bool is_side_tensor(ist_str name) {
  static const char *const known[] = {"rope_freqs.weight"};
  for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
    if (name.len == strlen(known[i]) && memcmp(name.p, known[i], name.len) == 0) return true;
  }
  return false;
}

static bool is_model_tensor(const ist_weights *w, const unsigned char *data) {
  for (int64_t i = 0; i < w->config->L * IST_T_LAYER_COUNT; i++) {
    if (w->layer[i].data == data) return true;
  }
  for (int id = IST_T_MODEL_FIRST; id < IST_T_END; id++) {
    if (w->model[id - IST_T_LAYER_COUNT].data == data) return true;
  }
  return false;
}

static ist_status refuse_unknown_tensors(const ist_weights *w, const ist_gguf *g, ist_error *err) {
  for (int64_t i = 0; i < g->n_tensors; i++) {
    const ist_gguf_tensor *t = &g->tensor[i];
    if (is_side_tensor(t->name) || is_model_tensor(w, t->data)) continue;
    return ist_fail(err, IST_ERR_UNSUPPORTED,
                    "%.*s: found a tensor that the architecture \"%s\" does not have",
                    (int)t->name.len, t->name.p, w->config->arch);
  }
  return IST_OK;
}

static ist_status find_all(ist_weights *w, const ist_gguf *g, ist_error *err) {
  const ist_model_config *c = w->config;
  for (int64_t l = 0; l < c->L; l++) {
    for (int id = 0; id < IST_T_LAYER_COUNT; id++) {
      IST_TRY(find_tensor(&w->layer[l * IST_T_LAYER_COUNT + id], c, g, l, id, err));
    }
  }
  for (int id = IST_T_MODEL_FIRST; id < IST_T_END; id++) {
    IST_TRY(find_tensor(&w->model[id - IST_T_LAYER_COUNT], c, g, -1, id, err));
  }
  for (int64_t i = 0; i < g->n_tensors; i++) {
    const int64_t *ne = g->tensor[i].ne;
    if (!is_side_tensor(g->tensor[i].name)) w->parameters += ne[0] * ne[1] * ne[2] * ne[3];
  }
  return refuse_unknown_tensors(w, g, err);
}

ist_status ist_weights_open(ist_weights *w, const ist_model_config *c, const ist_gguf *g,
                            ist_error *err) {
  memset(w, 0, sizeof *w);
  w->config = c;
  w->head.held = -1;
  w->layer = ist_calloc((size_t)(c->L * IST_T_LAYER_COUNT), sizeof *w->layer);
  if (!w->layer) return ist_fail_nomem(err, "tensor table", (size_t)c->L * sizeof *w->layer);
  ist_status status = find_all(w, g, err);
  if (status != IST_OK) ist_weights_close(w);
  return status;
}

void ist_weights_close(ist_weights *w) {
  ist_free(w->layer);
  ist_free(w->slot);
  memset(w, 0, sizeof *w);
}

const ist_stored *ist_weights_stored(const ist_weights *w, int64_t layer, int id) {
  return id < IST_T_LAYER_COUNT ? &w->layer[layer * IST_T_LAYER_COUNT + id]
                                : &w->model[id - IST_T_LAYER_COUNT];
}

const ist_stored *ist_weights_head(const ist_weights *w) {
  const ist_stored *output = ist_weights_stored(w, -1, IST_T_OUTPUT);
  return output->data ? output : ist_weights_stored(w, -1, IST_T_EMBED);
}

/* ---- Policies: which slot a matrix goes to ---------------------------------- */

static int64_t slot_count(const ist_weights *w, ist_weight_policy policy) {
  switch (policy) {
    case IST_WEIGHT_STREAM: return 1;
    case IST_WEIGHT_LAYER: return IST_MOD_COUNT;
    case IST_WEIGHT_KEEP: return IST_MOD_COUNT * w->config->L;
  }
  return 0;
}

static int64_t slot_index(const ist_weights *w, int64_t layer, ist_module m) {
  switch (w->policy) {
    case IST_WEIGHT_STREAM: return 0;
    case IST_WEIGHT_LAYER: return m;
    case IST_WEIGHT_KEEP: return layer * IST_MOD_COUNT + m;
  }
  return 0;
}

/* A plain F32 matrix without a tail is used where it lies in the file. */
static bool is_direct(const ist_stored *s, ist_dtype compute, int64_t tail) {
  return s->type == compute && tail == 0 && (uintptr_t)s->data % 4 == 0;
}

static size_t matrix_bytes(const ist_stored *s, ist_dtype compute, int64_t tail) {
  return ist_arena_round((size_t)ist_dtype_bytes(compute, s->rows * (s->cols + tail)));
}

/* Bytes of slot `index`: the largest matrix that may come there. */
static size_t slot_bytes(const ist_weights *w, ist_weight_policy policy, ist_dtype compute,
                         const int64_t tail[IST_MOD_COUNT], int64_t index) {
  size_t bytes = 0;
  for (int64_t l = 0; l < w->config->L; l++) {
    for (int m = 0; m < IST_MOD_COUNT; m++) {
      const ist_stored *s = ist_weights_stored(w, l, m);
      if (!s->data || is_direct(s, compute, tail[m])) continue;
      if (policy == IST_WEIGHT_LAYER && index != m) continue;
      if (policy == IST_WEIGHT_KEEP && index != l * IST_MOD_COUNT + m) continue;
      size_t need = matrix_bytes(s, compute, tail[m]);
      if (need > bytes) bytes = need;
    }
  }
  return bytes;
}

size_t ist_weights_policy_bytes(const ist_weights *w, ist_weight_policy policy, ist_dtype compute,
                                const int64_t tail[IST_MOD_COUNT]) {
  size_t sum = 0;
  for (int64_t i = 0; i < slot_count(w, policy); i++)
    sum += slot_bytes(w, policy, compute, tail, i);
  return sum;
}

size_t ist_weights_head_bytes(const ist_weights *w, ist_dtype compute, int64_t rows) {
  const ist_stored *s = ist_weights_head(w);
  if (is_direct(s, compute, 0)) return 0;
  return ist_arena_round((size_t)ist_dtype_bytes(compute, rows * s->cols));
}

size_t ist_weights_norm_bytes(const ist_weights *w, ist_dtype compute) {
  return ist_arena_round(
      (size_t)ist_dtype_bytes(ist_wide(compute), (2 * w->config->L + 1) * w->config->D));
}

static ist_view norm_place(const ist_weights *w, int64_t layer, int id) {
  int64_t row = layer < 0 ? 2 * w->config->L : 2 * layer + (id == IST_T_FFN_NORM);
  ist_dtype wide = ist_wide(w->compute);
  unsigned char *p = w->norms + ist_dtype_bytes(wide, row * w->config->D);
  return ist_view_make(p, wide, 1, w->config->D, w->config->D);
}

static void fill_norm(ist_weights *w, int64_t layer, int id) {
  const ist_stored *s = ist_weights_stored(w, layer, id);
  ist_view v = norm_place(w, layer, id);
  if (v.dt == IST_F32) {
    ist_dequant_f32(v.p, s->data, s->type, v.cols);
    return;
  }
  /* Double: a block at a time through float. */
  float block[256];
  int64_t step = ist_dtype_get(s->type)->block > 1 ? ist_dtype_get(s->type)->block : 1;
  for (int64_t i = 0; i < v.cols; i += step) {
    ist_dequant_f32(block, s->data + ist_dtype_bytes(s->type, i), s->type, step);
    for (int64_t j = 0; j < step; j++) ((double *)v.p)[i + j] = (double)block[j];
  }
}

ist_status ist_weights_set_policy(ist_weights *w, ist_weight_policy policy, ist_dtype compute,
                                  const int64_t tail[IST_MOD_COUNT], int64_t head_rows,
                                  ist_arena *arena, ist_error *err) {
  w->policy = policy;
  w->compute = compute;
  memcpy(w->tail, tail, sizeof w->tail);
  ist_free(w->slot);
  w->n_slots = slot_count(w, policy);
  w->slot = ist_calloc((size_t)w->n_slots, sizeof *w->slot);
  if (!w->slot) return ist_fail_nomem(err, "weight slots", (size_t)w->n_slots * sizeof *w->slot);
  for (int64_t i = 0; i < w->n_slots; i++) {
    size_t bytes = slot_bytes(w, policy, compute, tail, i);
    w->slot[i] = (ist_weight_slot){bytes ? ist_arena_alloc(arena, bytes) : NULL, -1};
  }
  size_t head_bytes = ist_weights_head_bytes(w, compute, head_rows);
  w->head = (ist_weight_slot){head_bytes ? ist_arena_alloc(arena, head_bytes) : NULL, -1};
  w->head_rows = head_rows;
  w->norms = ist_arena_alloc(arena, ist_weights_norm_bytes(w, compute));
  for (int64_t l = 0; l < w->config->L; l++) {
    fill_norm(w, l, IST_T_ATTN_NORM);
    fill_norm(w, l, IST_T_FFN_NORM);
  }
  fill_norm(w, -1, IST_T_OUTPUT_NORM);
  return IST_OK;
}

/* ---- Use ------------------------------------------------------------------------ */

bool ist_weights_has_tail(const ist_weights *w, int64_t layer, ist_module m) {
  return w->tail[m] > 0 && !is_direct(ist_weights_stored(w, layer, m), w->compute, w->tail[m]);
}

ist_view ist_weights_acquire(ist_weights *w, ist_ctx *ctx, int64_t layer, ist_module m) {
  const ist_stored *s = ist_weights_stored(w, layer, m);
  if (is_direct(s, w->compute, w->tail[m])) {
    /* The file is mapped read-only; no slot writes to a weight. */
    return ist_view_make((void *)(uintptr_t)s->data, s->type, s->rows, s->cols, s->cols);
  }
  ist_weight_slot *slot = &w->slot[slot_index(w, layer, m)];
  ist_view v = ist_view_make(slot->p, w->compute, s->rows, s->cols, s->cols + w->tail[m]);
  int64_t key = layer * IST_MOD_COUNT + m;
  if (slot->held != key) {
    ctx->be->dequant(ctx, v, s->data, s->type, 0);
    slot->held = key;
  }
  return v;
}

void ist_weights_release(ist_weights *w, int64_t layer, ist_module m) {
  /* Slots keep what they hold until another matrix needs them. */
  (void)w, (void)layer, (void)m;
}

ist_view ist_weights_acquire_head(ist_weights *w, ist_ctx *ctx, int64_t row0, int64_t rows) {
  const ist_stored *s = ist_weights_head(w);
  if (is_direct(s, w->compute, 0)) {
    unsigned char *p =
        (unsigned char *)(uintptr_t)s->data + ist_dtype_bytes(s->type, row0 * s->cols);
    return ist_view_make(p, s->type, rows, s->cols, s->cols);
  }
  IST_ASSERT(rows <= w->head_rows);
  bool whole = w->head_rows == s->rows;
  int64_t key = whole ? 0 : row0;
  ist_view v = ist_view_make(w->head.p, w->compute, whole ? s->rows : rows, s->cols, s->cols);
  if (w->head.held != key) {
    ctx->be->dequant(ctx, v, s->data, s->type, key);
    w->head.held = key;
  }
  return whole ? ist_view_rows(v, row0, rows) : v;
}

ist_view ist_weights_norm(const ist_weights *w, int64_t layer, int id) {
  return norm_place(w, layer, id);
}

/* ---- Pages of the file ---------------------------------------------------------- */

static size_t stored_bytes(const ist_stored *s) {
  return (size_t)ist_dtype_bytes(s->type, s->rows * s->cols);
}

void ist_weights_drop_pages(const ist_weights *w, int64_t layer) {
  for (int m = 0; m < IST_MOD_COUNT; m++) {
    const ist_stored *s = ist_weights_stored(w, layer, m);
    if (s->data) ist_pages_drop(s->data, stored_bytes(s));
  }
}

void ist_weights_want_pages(const ist_weights *w, int64_t layer) {
  for (int m = 0; m < IST_MOD_COUNT; m++) {
    const ist_stored *s = ist_weights_stored(w, layer, m);
    if (s->data) ist_pages_want(s->data, stored_bytes(s));
  }
}

int64_t ist_weights_layer_bytes(const ist_weights *w) {
  int64_t most = 0;
  for (int64_t l = 0; l < w->config->L; l++) {
    int64_t bytes = 0;
    for (int m = 0; m < IST_MOD_COUNT; m++) {
      const ist_stored *s = ist_weights_stored(w, l, m);
      if (s->data) bytes += (int64_t)stored_bytes(s);
    }
    if (bytes > most) most = bytes;
  }
  return most;
}
