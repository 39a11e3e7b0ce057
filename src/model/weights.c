#include "model/weights.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "format/quant.h"

/* ---- Finding tensors ------------------------------------------------------------ */

/* What is found so far: a tensor that nothing used is one the family does not have. */
typedef struct search {
  ist_weights *w;
  const ist_source *s;
  bool *used; /* (s->n) */
} search;

static int64_t rows_of(const ist_gguf_tensor *t) {
  return t->ne[1] * t->ne[2] * t->ne[3];
}

static ist_status fail_shape(const ist_gguf_tensor *t, int64_t rows, int64_t cols, ist_error *err) {
  return ist_fail(err, IST_ERR_FORMAT, "%.*s: found %lld x %lld, expected %lld x %lld",
                  (int)t->name.len, t->name.p, (long long)rows_of(t), (long long)t->ne[0],
                  (long long)rows, (long long)cols);
}

static ist_status check_type(const ist_gguf_tensor *t, ist_error *err) {
  if (ist_dequant_supported(t->type)) return IST_OK;
  return ist_fail(err, IST_ERR_UNSUPPORTED, "%.*s: found type %s, which weights cannot have",
                  (int)t->name.len, t->name.p, ist_dtype_get(t->type)->name);
}

/* q, k, v by turns for each key/value head, as three parts. */
static void group_rows(ist_stored *out, const ist_model_config *c) {
  int64_t q = c->H / c->K * c->E, row = ist_dtype_bytes(out->type, out->cols);
  const int64_t size[3] = {q, c->E, c->E}, start[3] = {0, q, q + c->E};
  out->n_parts = 3;
  for (int i = 0; i < 3; i++) {
    out->part[i] =
        (ist_stored_part){out->data + start[i] * row, c->K * size[i], size[i], q + 2 * c->E};
  }
}

/* A copy with rows and columns exchanged. */
static ist_status transpose(search *f, ist_stored *out, const ist_gguf_tensor *t, ist_error *err) {
  size_t item = (size_t)ist_dtype_get(t->type)->bytes;
  unsigned char *p = ist_calloc((size_t)(out->rows * out->cols), item);
  if (!p) return ist_fail_nomem(err, "transposed weights", (size_t)t->bytes);
  f->w->transposed[f->w->n_transposed++] = p;
  for (int64_t r = 0; r < out->rows; r++) {
    for (int64_t i = 0; i < out->cols; i++)
      memcpy(p + (size_t)(r * out->cols + i) * item, t->data + (size_t)(i * out->rows + r) * item,
             item);
  }
  out->data = p;
  out->in_memory = true;
  return IST_OK;
}

/* rows x cols elements of the tensor, from element `first` on. */
static ist_status take(search *f, ist_stored *out, const ist_gguf_tensor *t, int64_t first,
                       int64_t rows, int64_t cols, ist_error *err) {
  IST_TRY(check_type(t, err));
  IST_ASSERT(first + rows * cols <= t->ne[0] * rows_of(t));
  f->used[t - f->s->tensor] = true;
  *out = (ist_stored){.data = t->data + ist_dtype_bytes(t->type, first),
                      .type = t->type,
                      .rows = rows,
                      .cols = cols};
  return IST_OK;
}

/* Rows of q, k or v inside a fused tensor, which a converter may have made. */
static ist_status find_in_fused(search *f, ist_stored *out, int64_t layer, int id, bool bias,
                                int64_t rows, int64_t cols, ist_error *err) {
  const ist_model_config *c = f->w->config;
  if (id != IST_T_Q && id != IST_T_K && id != IST_T_V) return IST_OK;
  const ist_gguf_tensor *t = ist_tensor_find(f->s, c, layer, IST_T_QKV, bias);
  if (!t) return IST_OK;
  int64_t q = c->H * c->E, kv = c->K * c->E, all = q + 2 * kv;
  int64_t row0 = id == IST_T_Q ? 0 : id == IST_T_K ? q : q + kv;
  if (bias ? t->ne[0] != all || rows_of(t) != 1 : t->ne[0] != cols || rows_of(t) != all)
    return fail_shape(t, bias ? 1 : all, bias ? all : cols, err);
  int64_t block = ist_dtype_get(t->type)->block;
  if (bias && (row0 % block || rows % block))
    return ist_fail(err, IST_ERR_UNSUPPORTED,
                    "%.*s: found type %s, whose blocks do not end where k and v begin",
                    (int)t->name.len, t->name.p, ist_dtype_get(t->type)->name);
  return bias ? take(f, out, t, row0, 1, rows, err) : take(f, out, t, row0 * cols, rows, cols, err);
}

/* A bias is as long as its weight has rows; a vector's as the vector. */
static ist_status find_tensor(search *f, ist_stored *out, int64_t layer, int id, bool bias,
                              ist_error *err) {
  const ist_model_config *c = f->w->config;
  int64_t rows, cols;
  bool need;
  ist_tensor_shape(c, layer, id, &rows, &cols, &need);
  if (rows == 0 || (bias && !ist_tensor_has_bias(id))) return IST_OK;
  const ist_gguf_tensor *t = ist_tensor_find(f->s, c, layer, id, bias);
  if (!t) {
    IST_TRY(find_in_fused(f, out, layer, id, bias, rows, cols, err));
    if (out->data || bias || !need) return IST_OK;
    char name[160];
    ist_tensor_name_in(name, sizeof name, f->s, c, layer, id, bias);
    return ist_fail(err, IST_ERR_FORMAT, "%s: found no such tensor, expected %lld x %lld", name,
                    (long long)rows, (long long)cols);
  }
  if (bias) {
    cols = rows == 1 ? cols : rows;
    rows = 1;
  }
  bool turned = c->transposed && !bias && id < IST_MOD_COUNT;
  if (t->ne[0] != (turned ? rows : cols) || rows_of(t) != (turned ? cols : rows))
    return fail_shape(t, turned ? cols : rows, turned ? rows : cols, err);
  IST_TRY(take(f, out, t, 0, rows, cols, err));
  if (c->grouped_qkv && id == IST_T_QKV) {
    if (bias) { /* a column of rows of one value */
      out->rows = cols;
      out->cols = 1;
    }
    group_rows(out, c);
  }
  return turned ? transpose(f, out, t, err) : IST_OK;
}

/* Tensors that carry no weight of ours but belong to files of the family. */
static bool is_side_tensor(ist_str name) {
  static const char *const whole[] = {"rope_freqs.weight", "rope_factors_long.weight",
                                      "rope_factors_short.weight"};
  static const char *const ends[] = {".attn.bias", ".attn.masked_bias", ".attention.bias",
                                     ".attention.masked_bias", "rotary_emb.inv_freq"};
  static const char *const parts[] = {"vision_tower.", "multi_modal_projector."};
  for (size_t i = 0; i < sizeof whole / sizeof *whole; i++) {
    if (name.len == strlen(whole[i]) && memcmp(name.p, whole[i], name.len) == 0) return true;
  }
  for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
    size_t n = strlen(ends[i]);
    if (name.len >= n && memcmp(name.p + name.len - n, ends[i], n) == 0) return true;
  }
  for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
    if (memmem(name.p, name.len, parts[i], strlen(parts[i]))) return true;
  }
  return false;
}

static ist_status refuse_unknown_tensors(const search *f, ist_error *err) {
  for (int64_t i = 0; i < f->s->n; i++) {
    const ist_gguf_tensor *t = &f->s->tensor[i];
    if (is_side_tensor(t->name) || f->used[i]) continue;
    return ist_fail(err, IST_ERR_UNSUPPORTED,
                    "%.*s: found a tensor that the architecture \"%s\" does not have",
                    (int)t->name.len, t->name.p, f->w->config->arch);
  }
  return IST_OK;
}

/* Each expert's matrices: slices of a stack, or tensors of their own. */
static ist_status find_experts(search *f, int64_t layer, ist_error *err) {
  const ist_model_config *c = f->w->config;
  for (int which = 0; which < 3; which++) {
    int id = IST_T_EXPERT_GATE + which;
    int64_t rows = which == 2 ? c->D : c->expert_F, cols = which == 2 ? c->expert_F : c->D;
    const ist_stored *stack = ist_weights_stored(f->w, layer, id);
    for (int64_t e = 0; e < c->experts; e++) {
      ist_stored *out = &f->w->expert[(layer * c->experts + e) * 3 + which];
      if (stack->data) {
        *out = *stack;
        out->rows = rows;
        out->data += ist_dtype_bytes(stack->type, e * rows * cols);
        continue;
      }
      const ist_gguf_tensor *t = ist_tensor_find_expert(f->s, c, layer, id, e);
      if (!t) {
        char name[160];
        ist_tensor_name_in(name, sizeof name, f->s, c, layer, id, false);
        return ist_fail(err, IST_ERR_FORMAT, "%s: found no such tensor for expert %lld", name,
                        (long long)e);
      }
      if (t->ne[0] != cols || rows_of(t) != rows) return fail_shape(t, rows, cols, err);
      IST_TRY(take(f, out, t, 0, rows, cols, err));
    }
  }
  return IST_OK;
}

static ist_status find_all(search *f, ist_error *err) {
  ist_weights *w = f->w;
  for (int64_t l = 0; l < w->config->L; l++) {
    for (int id = 0; id < IST_T_LAYER_COUNT; id++) {
      int64_t at = l * IST_T_LAYER_COUNT + id;
      IST_TRY(find_tensor(f, &w->layer[at], l, id, false, err));
      IST_TRY(find_tensor(f, &w->layer_bias[at], l, id, true, err));
    }
  }
  /* Only now: that many layers are there, with routers of that many rows. */
  const size_t experts = (size_t)(w->config->L * w->config->experts * 3);
  if (experts) w->expert = ist_calloc(experts, sizeof *w->expert);
  if (experts && !w->expert)
    return ist_fail_nomem(err, "table of experts", experts * sizeof *w->expert);
  for (int64_t l = 0; l < w->config->L; l++)
    if (ist_model_mixture(w->config, l)) IST_TRY(find_experts(f, l, err));
  for (int id = IST_T_MODEL_FIRST; id < IST_T_END; id++) {
    IST_TRY(find_tensor(f, &w->model[id - IST_T_LAYER_COUNT], -1, id, false, err));
    IST_TRY(find_tensor(f, &w->model_bias[id - IST_T_LAYER_COUNT], -1, id, true, err));
  }
  for (int64_t i = 0; i < f->s->n; i++) {
    const ist_gguf_tensor *t = &f->s->tensor[i];
    if (f->used[i]) w->parameters += t->ne[0] * rows_of(t);
  }
  return refuse_unknown_tensors(f, err);
}

/* Room for views of every vector: weights and biases of layers, then of the model. */
static int64_t vector_count(const ist_model_config *c) {
  return 2 * (c->L * IST_T_LAYER_COUNT + IST_T_END);
}

ist_status ist_weights_open(ist_weights *w, const ist_model_config *c, const ist_source *s,
                            ist_error *err) {
  memset(w, 0, sizeof *w);
  w->config = c;
  w->head.held = -1;
  size_t n = (size_t)(c->L * IST_T_LAYER_COUNT);
  search f = {w, s, ist_calloc((size_t)s->n + 1, sizeof *f.used)};
  w->layer = ist_calloc(n, sizeof *w->layer);
  w->layer_bias = ist_calloc(n, sizeof *w->layer_bias);
  w->transposed = ist_calloc((size_t)(c->L * IST_MOD_EXPERTS), sizeof *w->transposed);
  bool room = w->layer && w->layer_bias && w->transposed;
  ist_status status = room && f.used
                          ? find_all(&f, err)
                          : ist_fail_nomem(err, "tensor table", 2 * n * sizeof *w->layer);
  ist_free(f.used);
  if (status != IST_OK) ist_weights_close(w);
  return status;
}

void ist_weights_close(ist_weights *w) {
  for (int64_t i = 0; i < w->n_transposed; i++) ist_free(w->transposed[i]);
  ist_free(w->transposed);
  ist_free(w->requantised);
  ist_gguf_close(w->cache);
  ist_free(w->layer);
  ist_free(w->layer_bias);
  ist_free(w->expert);
  ist_free(w->vector);
  ist_free(w->slot);
  memset(w, 0, sizeof *w);
}

const ist_stored *ist_weights_stored(const ist_weights *w, int64_t layer, int id) {
  return id < IST_T_LAYER_COUNT ? &w->layer[layer * IST_T_LAYER_COUNT + id]
                                : &w->model[id - IST_T_LAYER_COUNT];
}

const ist_stored *ist_weights_stored_bias(const ist_weights *w, int64_t layer, int id) {
  if (id >= IST_T_LAYER_COUNT) return &w->model_bias[id - IST_T_LAYER_COUNT];
  static const ist_stored none;
  return w->layer_bias ? &w->layer_bias[layer * IST_T_LAYER_COUNT + id] : &none;
}

const ist_stored *ist_weights_head(const ist_weights *w) {
  const ist_stored *output = ist_weights_stored(w, -1, IST_T_OUTPUT);
  if (w->whole_head.data) return &w->whole_head;
  return output->data ? output : ist_weights_stored(w, -1, IST_T_EMBED);
}

const ist_stored *ist_weights_embedding(const ist_weights *w) {
  return w->whole_embed.data ? &w->whole_embed : ist_weights_stored(w, -1, IST_T_EMBED);
}

/* ---- Policies: which slot a matrix goes to ---------------------------------- */

static int64_t slot_count(const ist_weights *w, ist_weight_policy policy) {
  switch (policy) {
    case IST_WEIGHT_STREAM: return 1;
    case IST_WEIGHT_LAYER: return IST_MOD_EXPERTS;
    case IST_WEIGHT_KEEP: return IST_MOD_EXPERTS * w->config->L;
  }
  return 0;
}

static int64_t slot_index(const ist_weights *w, int64_t layer, ist_module m) {
  switch (w->policy) {
    case IST_WEIGHT_STREAM: return 0;
    case IST_WEIGHT_LAYER: return m;
    case IST_WEIGHT_KEEP: return layer * IST_MOD_EXPERTS + m;
  }
  return 0;
}

static size_t stored_bytes(const ist_stored *s) {
  return (size_t)ist_dtype_bytes(s->type, s->rows * s->cols);
}

/* A plain F32 matrix without a tail is used where it lies in the file. */
static bool is_direct(const ist_stored *s, ist_dtype compute, int64_t tail) {
  return s->type == compute && s->n_parts == 0 && tail == 0 &&
         (uintptr_t)s->data % (uintptr_t)ist_dtype_get(s->type)->bytes == 0;
}

static size_t matrix_bytes(const ist_stored *s, ist_dtype compute, int64_t tail) {
  return ist_arena_round((size_t)ist_dtype_bytes(compute, s->rows * (s->cols + tail)));
}

/* Bytes of slot `index`: the largest matrix that may come there. */
static size_t slot_bytes(const ist_weights *w, ist_weight_policy policy, ist_dtype compute,
                         const int64_t tail[IST_MOD_COUNT], int64_t index) {
  size_t bytes = 0;
  for (int64_t l = 0; l < w->config->L; l++) {
    for (int m = 0; m < IST_MOD_EXPERTS; m++) {
      const ist_stored *s = ist_weights_stored(w, l, m);
      if (!s->data || is_direct(s, compute, tail[m])) continue;
      if (policy == IST_WEIGHT_LAYER && index != m) continue;
      if (policy == IST_WEIGHT_KEEP && index != l * IST_MOD_EXPERTS + m) continue;
      size_t need = matrix_bytes(s, compute, tail[m]);
      if (need > bytes) bytes = need;
    }
  }
  return bytes;
}

/* Experts go through one slot each for gate, up and down. */
static size_t expert_bytes(const ist_weights *w, ist_dtype compute) {
  if (!w->expert) return 0;
  return ist_arena_round((size_t)ist_dtype_bytes(compute, w->config->expert_F * w->config->D));
}

size_t ist_weights_policy_bytes(const ist_weights *w, ist_weight_policy policy, ist_dtype compute,
                                const int64_t tail[IST_MOD_COUNT]) {
  size_t sum = 0;
  for (int64_t i = 0; i < slot_count(w, policy); i++)
    sum += slot_bytes(w, policy, compute, tail, i);
  return sum + 3 * expert_bytes(w, compute);
}

size_t ist_weights_head_bytes(const ist_weights *w, ist_dtype compute, int64_t rows) {
  const ist_stored *s = ist_weights_head(w);
  if (is_direct(s, compute, 0)) return 0;
  return ist_arena_round((size_t)ist_dtype_bytes(compute, rows * s->cols));
}

/* ---- Vectors, kept in memory ------------------------------------------------------ */

/* Tensors that are always in memory, in a type of reductions: vectors, biases. The
 * projections beside an embedding and routers are kept too, for products. */
static bool is_factor(int id) {
  return id == IST_T_PROJECT_IN || id == IST_T_PROJECT_OUT || id == IST_T_ROUTER ||
         id == IST_T_SHARED_ROUTER;
}
static bool is_kept(const ist_stored *s, int id, bool bias) {
  return s->data && (bias || s->rows == 1 || is_factor(id));
}

/* Fills a kept tensor a row at a time, through float. */
static void fill_kept(ist_view v, const ist_stored *s) {
  ist_ctx ctx = {.be = ist_backend_reference()};
  ist_stored_rows(&ctx, v, s, 0);
}

/* Counts the bytes of all kept tensors; where `base` is given, puts them there. */
static size_t lay_out_kept(const ist_weights *w, ist_dtype compute, unsigned char *base,
                           ist_view *out) {
  size_t bytes = 0;
  int64_t n = vector_count(w->config) / 2, of_layers = w->config->L * IST_T_LAYER_COUNT;
  for (int64_t i = 0; i < n; i++) {
    int id = (int)(i < of_layers ? i % IST_T_LAYER_COUNT : i - of_layers);
    if (i >= of_layers && id < IST_T_MODEL_FIRST) continue;
    int64_t layer = i < of_layers ? i / IST_T_LAYER_COUNT : -1;
    for (int bias = 0; bias < 2; bias++) {
      const ist_stored *s =
          bias ? ist_weights_stored_bias(w, layer, id) : ist_weights_stored(w, layer, id);
      if (!is_kept(s, id, bias)) continue;
      bool matrix = !bias && is_factor(id);
      ist_dtype type = matrix ? compute : ist_wide(compute);
      if (base) {
        ist_view v = ist_view_make(base + bytes, type, s->rows, s->cols, s->cols);
        fill_kept(v, s);
        if (!matrix && v.rows > 1) v = ist_view_make(v.p, type, 1, v.rows, v.rows);
        out[2 * i + bias] = v;
      }
      bytes += ist_arena_round((size_t)ist_dtype_bytes(type, s->rows * s->cols));
    }
  }
  return bytes;
}

size_t ist_weights_vector_bytes(const ist_weights *w, ist_dtype compute) {
  return lay_out_kept(w, compute, NULL, NULL);
}

static ist_view kept(const ist_weights *w, int64_t layer, int id, int bias) {
  int64_t at = id < IST_T_LAYER_COUNT ? layer * IST_T_LAYER_COUNT + id
                                      : w->config->L * IST_T_LAYER_COUNT + id;
  return w->vector[2 * at + bias];
}

ist_view ist_weights_vector(const ist_weights *w, int64_t layer, int id) {
  return kept(w, layer, id, 0);
}

ist_view ist_weights_bias(const ist_weights *w, int64_t layer, int id) {
  return kept(w, layer, id, 1);
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
  for (int i = 0; i < 3 && w->expert; i++)
    w->expert_slot[i] = (ist_weight_slot){ist_arena_alloc(arena, expert_bytes(w, compute)), -1};
  size_t head_bytes = ist_weights_head_bytes(w, compute, head_rows);
  w->head = (ist_weight_slot){head_bytes ? ist_arena_alloc(arena, head_bytes) : NULL, -1};
  w->head_rows = head_rows;
  size_t kept_bytes = ist_weights_vector_bytes(w, compute);
  ist_free(w->vector);
  w->vector = ist_calloc((size_t)vector_count(w->config), sizeof *w->vector);
  if (!w->vector) return ist_fail_nomem(err, "vectors", sizeof *w->vector);
  if (kept_bytes) lay_out_kept(w, compute, ist_arena_alloc(arena, kept_bytes), w->vector);
  return IST_OK;
}

/* ---- Use ------------------------------------------------------------------------ */

/* The rows of one part that lie in [from, to) of it, run by run. */
static void part_rows(ist_ctx *ctx, ist_view dst, const ist_stored *s, const ist_stored_part *p,
                      int64_t from) {
  for (int64_t done = 0; done < dst.rows;) {
    int64_t row = from + done, run = p->group - row % p->group;
    if (run > dst.rows - done) run = dst.rows - done;
    ctx->be->dequant(ctx, ist_view_rows(dst, done, run), p->data, s->type,
                     row / p->group * p->period + row % p->group);
    done += run;
  }
}

void ist_stored_rows(ist_ctx *ctx, ist_view dst, const ist_stored *s, int64_t row0) {
  if (!s->n_parts) {
    ctx->be->dequant(ctx, dst, s->data, s->type, row0);
    return;
  }
  int64_t first = 0; /* row of the tensor where the part begins */
  for (int i = 0; i < s->n_parts; i++) {
    const ist_stored_part *p = &s->part[i];
    int64_t from = row0 > first ? row0 : first, end = row0 + dst.rows;
    if (end > first + p->rows) end = first + p->rows;
    if (from < end) part_rows(ctx, ist_view_rows(dst, from - row0, end - from), s, p, from - first);
    first += p->rows;
  }
}

int ist_stored_linears(ist_stored_linear out[3], const ist_stored_linear *l, const ist_stored *s) {
  out[0] = *l;
  out[0].w = s->data;
  out[0].type = s->type;
  out[0].group = out[0].period = s->rows;
  int64_t first = 0;
  for (int i = 0; i < s->n_parts; i++) {
    const ist_stored_part *p = &s->part[i];
    out[i] = *l;
    out[i].y = ist_view_cols(l->y, first, p->rows);
    if (l->bias.p) out[i].bias = ist_view_cols(l->bias, first, p->rows);
    if (l->b.p) out[i].b = ist_view_rows(l->b, first, p->rows);
    out[i].w = p->data;
    out[i].type = s->type;
    out[i].group = p->group;
    out[i].period = p->period;
    first += p->rows;
  }
  return s->n_parts ? s->n_parts : 1;
}

const ist_stored *ist_weights_stored_expert(const ist_weights *w, int64_t layer, int which,
                                            int64_t expert) {
  return &w->expert[(layer * w->config->experts + expert) * 3 + which];
}

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
  int64_t key = layer * IST_MOD_EXPERTS + m;
  if (slot->held != key) {
    ist_stored_rows(ctx, v, s, 0);
    slot->held = key;
    /* A copy that stays needs the original no more. */
    if (w->policy == IST_WEIGHT_KEEP && !s->in_memory) ist_pages_drop(s->data, stored_bytes(s));
  }
  return v;
}

ist_view ist_weights_acquire_expert(ist_weights *w, ist_ctx *ctx, int64_t layer, int which,
                                    int64_t expert) {
  int64_t key = (layer * w->config->experts + expert) * 3 + which;
  const ist_stored *s = ist_weights_stored_expert(w, layer, which, expert);
  if (is_direct(s, w->compute, 0))
    return ist_view_make((void *)(uintptr_t)s->data, s->type, s->rows, s->cols, s->cols);
  ist_weight_slot *slot = &w->expert_slot[which];
  ist_view v = ist_view_make(slot->p, w->compute, s->rows, s->cols, s->cols);
  if (slot->held != key) ist_stored_rows(ctx, v, s, 0);
  slot->held = key;
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

/* ---- Pages of the file ---------------------------------------------------------- */

/* Calls `fn` for each run of the file that holds a matrix of the layer, experts included;
 * returns the bytes of all matrices, those that are no file's too. */
static int64_t each_matrix(const ist_weights *w, int64_t layer,
                           void (*fn)(const void *p, size_t bytes)) {
  const ist_model_config *c = w->config;
  int64_t bytes = 0, n = w->expert && ist_model_mixture(c, layer) ? 3 * c->experts : 0;
  for (int64_t i = 0; i < IST_MOD_EXPERTS + n; i++) {
    const ist_stored *s = i < IST_MOD_EXPERTS
                              ? ist_weights_stored(w, layer, (int)i)
                              : &w->expert[layer * c->experts * 3 + i - IST_MOD_EXPERTS];
    if (!s->data) continue;
    bytes += (int64_t)stored_bytes(s);
    if (fn && !s->in_memory) fn(s->data, stored_bytes(s));
  }
  return bytes;
}

void ist_weights_drop_pages(const ist_weights *w, int64_t layer) {
  each_matrix(w, layer, ist_pages_drop);
}

void ist_weights_want_pages(const ist_weights *w, int64_t layer) {
  each_matrix(w, layer, ist_pages_want);
}

int64_t ist_weights_bytes_of(const ist_weights *w, int64_t l) {
  return each_matrix(w, l, NULL);
}

int64_t ist_weights_layer_bytes(const ist_weights *w) {
  int64_t most = 0;
  for (int64_t l = 0; l < w->config->L; l++) {
    int64_t bytes = ist_weights_bytes_of(w, l);
    if (bytes > most) most = bytes;
  }
  return most;
}

/* Experts are read from the file whatever the policy. */
int64_t ist_weights_copied_bytes(const ist_weights *w, ist_dtype compute) {
  int64_t bytes = 0;
  for (int64_t l = 0; l < w->config->L; l++) {
    for (int m = 0; m < IST_MOD_EXPERTS; m++) {
      const ist_stored *s = ist_weights_stored(w, l, m);
      if (s->data && s->type != compute) bytes += (int64_t)stored_bytes(s);
    }
  }
  return bytes;
}
