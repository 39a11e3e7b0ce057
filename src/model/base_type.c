#include "model/base_type.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/arena.h"
#include "base/mem.h"
#include "base/parallel.h"
#include "format/quant.h"

#define ROWS_AT_ONCE (1 << 20) /* elements that are floats at a time */

static const struct {
  const char *name;
  ist_dtype type;
} types[] = {{"q8_0", IST_Q8_0}, {"q4_0", IST_Q4_0}, {"q4_k", IST_Q4_K}};

int ist_base_type_from_name(const char *name) {
  for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
    if (strcmp(types[i].name, name) == 0) return (int)types[i].type;
  }
  return -1;
}

const char *ist_base_type_name(ist_dtype type) {
  for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
    if (types[i].type == type) return types[i].name;
  }
  return "none";
}

/* One matrix to make, and where it comes from: a table's entry, or the stack of a layer's
 * experts, whose entries may lie apart. */
typedef struct matrix {
  ist_stored *place; /* in the table of weights; of a stack, that of the whole */
  ist_stored from;
  ist_dtype type;
  char name[64];
  ist_stored *stack; /* experts: their places, `experts` of them, three apart; NULL: none */
  int64_t experts;
  ist_ctx *ctx;
  float *rows; /* shared by all */
} matrix;

typedef struct matrix_list {
  matrix *p;
  int64_t n;
  float *rows;
} matrix_list;

/* The type that rows of `cols` can have. */
static ist_dtype type_for(ist_dtype type, int64_t cols, ist_dtype stored) {
  if (type == IST_Q4_K && cols % ist_dtype_get(IST_Q4_K)->block != 0) type = IST_Q5_0;
  return cols % ist_dtype_get(type)->block == 0 ? type : stored;
}

static void consider(matrix_list *list, ist_weights *w, ist_ctx *ctx, int64_t layer, int id,
                     ist_dtype type) {
  ist_stored *s = id < IST_T_LAYER_COUNT ? &w->layer[layer * IST_T_LAYER_COUNT + id]
                                         : &w->model[id - IST_T_LAYER_COUNT];
  if (!s->data || ist_dtype_is_quantised(s->type)) return;
  ist_dtype made = type_for(type, s->cols, s->type);
  if (made == s->type) return;
  matrix *m = &list->p[list->n++];
  *m = (matrix){.place = s, .from = *s, .type = made, .ctx = ctx};
  ist_tensor_name(m->name, sizeof m->name, layer, id);
}

/* Experts' matrices of one kind as one, under the name of their stack. */
static void consider_experts(matrix_list *list, ist_weights *w, ist_ctx *ctx, int64_t layer,
                             int which, ist_dtype type) {
  int64_t n = w->config->experts;
  ist_stored *first = &w->expert[layer * n * 3 + which];
  for (int64_t i = 0; i < n; i++)
    if (ist_dtype_is_quantised(first[3 * i].type)) return;
  ist_dtype made = type_for(type, first->cols, first->type);
  if (!ist_dtype_is_quantised(made)) return;
  matrix *m = &list->p[list->n++];
  *m = (matrix){.place = &w->layer[layer * IST_T_LAYER_COUNT + IST_T_EXPERT_GATE + which],
                .from = *first,
                .type = made,
                .stack = first,
                .experts = n,
                .ctx = ctx};
  m->from.rows *= n;
  ist_tensor_name(m->name, sizeof m->name, layer, IST_T_EXPERT_GATE + which);
}

static ist_status list_matrices(matrix_list *list, ist_weights *w, ist_ctx *ctx, ist_dtype type,
                                ist_error *err) {
  int64_t L = w->config->L, room = ROWS_AT_ONCE;
  list->p = ist_calloc((size_t)(L * IST_MOD_COUNT + 2), sizeof *list->p);
  if (!list->p) return ist_fail_nomem(err, "list of matrices", (size_t)L * sizeof *list->p);
  for (int64_t l = 0; l < L; l++) {
    for (int id = 0; id < IST_MOD_EXPERTS; id++) consider(list, w, ctx, l, id, type);
    for (int i = 0; i < 3 && ist_model_mixture(w->config, l); i++)
      consider_experts(list, w, ctx, l, i, type);
  }
  consider(list, w, ctx, -1, IST_T_EMBED, IST_Q8_0);
  consider(list, w, ctx, -1, IST_T_OUTPUT, IST_Q8_0);
  if (list->n == 0)
    return ist_fail(err, IST_ERR_ARG,
                    "base type: found no float matrix whose rows are whole blocks of %s, expected "
                    "a model in F32, F16 or BF16",
                    ist_dtype_get(type)->name);
  for (int64_t i = 0; i < list->n; i++) {
    if (list->p[i].from.cols > room) room = list->p[i].from.cols;
  }
  list->rows = ist_calloc((size_t)room, sizeof *list->rows);
  if (!list->rows) return ist_fail_nomem(err, "rows to quantise", (size_t)room * sizeof(float));
  for (int64_t i = 0; i < list->n; i++) list->p[i].rows = list->rows;
  return IST_OK;
}

typedef struct encode_job {
  unsigned char *dst;
  const float *src;
  ist_dtype type;
  int64_t cols;
} encode_job;

static void encode_rows(void *arg, int64_t begin, int64_t end, int thread) {
  const encode_job *j = arg;
  (void)thread;
  for (int64_t r = begin; r < end; r++) {
    ist_quantise(j->dst + ist_dtype_bytes(j->type, r * j->cols), j->src + r * j->cols, j->type,
                 j->cols);
  }
}

/* Rows [row, row + n) as floats into m->rows. */
static void float_rows(const matrix *m, int64_t row, int64_t n) {
  int64_t cols = m->from.cols, each = m->stack ? m->from.rows / m->experts : m->from.rows;
  for (int64_t done = 0; done < n;) {
    int64_t at = row + done, in = at % each, run = each - in < n - done ? each - in : n - done;
    const ist_stored *from = m->stack ? &m->stack[3 * (at / each)] : &m->from;
    ist_stored_rows(m->ctx, ist_view_make(m->rows + done * cols, IST_F32, run, cols, cols), from,
                    in);
    done += run;
  }
}

/* Bytes [offset, offset + n) of a matrix in its new type: an ist_tensor_read_fn. */
static ist_status make_rows(void *user, int64_t offset, int64_t n, unsigned char *dst,
                            ist_error *err) {
  const matrix *m = user;
  (void)err;
  int64_t cols = m->from.cols, row_bytes = ist_dtype_bytes(m->type, cols);
  int64_t row = offset / row_bytes, end = row + n / row_bytes;
  int64_t step = cols < ROWS_AT_ONCE ? ROWS_AT_ONCE / cols : 1;
  for (; row < end; row += step) {
    int64_t rows = end - row < step ? end - row : step;
    float_rows(m, row, rows);
    encode_job job = {dst, m->rows, m->type, cols};
    ist_parallel_for(rows, 1, encode_rows, &job);
    dst += rows * row_bytes;
  }
  return IST_OK;
}

static int64_t new_bytes(const matrix *m) {
  return ist_dtype_bytes(m->type, m->from.rows * m->from.cols);
}

static void settle(const matrix *m, const unsigned char *data, bool in_memory) {
  ist_stored made = {.data = data,
                     .type = m->type,
                     .rows = m->from.rows,
                     .cols = m->from.cols,
                     .in_memory = in_memory};
  *m->place = made;
  made.rows /= m->stack ? m->experts : 1;
  for (int64_t i = 0; m->stack && i < m->experts; i++) {
    m->stack[3 * i] = made;
    made.data += ist_dtype_bytes(m->type, made.rows * made.cols);
  }
}

/* The file's pages that the matrix was made from are needed no more. */
static void drop_source(const ist_stored *s) {
  if (!s->in_memory && !s->n_parts)
    ist_pages_drop(s->data, (size_t)ist_dtype_bytes(s->type, s->rows * s->cols));
}

/* ---- In memory ---------------------------------------------------------------------- */

static size_t bytes_in_memory(const matrix_list *list) {
  size_t bytes = 0;
  for (int64_t i = 0; i < list->n; i++) bytes += ist_arena_round((size_t)new_bytes(&list->p[i]));
  return bytes;
}

static ist_status make_in_memory(ist_weights *w, const matrix_list *list, ist_error *err) {
  size_t bytes = bytes_in_memory(list), at = 0;
  w->requantised = ist_calloc(bytes, 1);
  if (!w->requantised) return ist_fail_nomem(err, "quantised base", bytes);
  for (int64_t i = 0; i < list->n; i++) {
    matrix *m = &list->p[i];
    unsigned char *dst = w->requantised + at;
    IST_TRY(make_rows(m, 0, new_bytes(m), dst, err));
    for (int64_t e = 0; m->stack && e < m->experts; e++) drop_source(&m->stack[3 * e]);
    if (!m->stack) drop_source(&m->from);
    settle(m, dst, true);
    at += ist_arena_round((size_t)new_bytes(m));
  }
  return IST_OK;
}

/* ---- In a cache file ------------------------------------------------------------------- */

static ist_status write_cache(const matrix_list *list, const char *path, const char *identity,
                              ist_error *err) {
  ist_gguf_writer *w = ist_gguf_writer_new();
  if (!w) return ist_fail_nomem(err, "writer", 0);
  ist_gguf_put_str(w, "general.type", "ist base", 8);
  ist_gguf_put_str(w, "ist.identity", identity, strlen(identity));
  for (int64_t i = 0; i < list->n; i++) {
    matrix *m = &list->p[i];
    const int64_t n = m->stack ? m->experts : 1, ne[3] = {m->from.cols, m->from.rows / n, n};
    ist_gguf_put_tensor(w, m->name, m->type, m->stack ? 3 : 2, ne, make_rows, m);
  }
  ist_status status = ist_gguf_write(w, path, err);
  ist_gguf_writer_free(w);
  return status;
}

/* A cache of another base, or another file altogether, is never written over. */
static ist_status check_cache(const ist_gguf *g, const char *identity, ist_error *err) {
  ist_str found = {"", 0};
  if (ist_gguf_get_str(g, "ist.identity", true, &found, NULL) == IST_OK &&
      found.len == strlen(identity) && memcmp(found.p, identity, found.len) == 0)
    return IST_OK;
  ist_fail(err, IST_ERR_MISMATCH,
           "%s: found %s%.*s, expected the cache of this base in this type, %s", g->path,
           found.len ? "a cache of " : "no cache of a base", (int)found.len, found.p, identity);
  ist_hint(err, "remove the file, or name another with --base-cache");
  return IST_ERR_MISMATCH;
}

static ist_status use_cache(ist_weights *w, const matrix_list *list, const char *identity,
                            ist_error *err) {
  IST_TRY(check_cache(w->cache, identity, err));
  for (int64_t i = 0; i < list->n; i++) {
    const matrix *m = &list->p[i];
    const ist_gguf_tensor *t = ist_gguf_find_tensor(w->cache, m->name);
    if (!t || t->type != m->type || t->ne[0] != m->from.cols || t->ne[1] * t->ne[2] != m->from.rows)
      return ist_fail(err, IST_ERR_MISMATCH, "%s: %s: found no such matrix of %lld x %lld in %s",
                      w->cache->path, m->name, (long long)m->from.rows, (long long)m->from.cols,
                      ist_dtype_get(m->type)->name);
    settle(m, t->data, false);
  }
  return IST_OK;
}

static ist_status make_in_file(ist_weights *w, const matrix_list *list, const char *path,
                               uint64_t base, ist_dtype type, ist_error *err) {
  char identity[48];
  snprintf(identity, sizeof identity, "%016" PRIx64 " %s", base, ist_dtype_get(type)->name);
  if (!ist_file_exists(path)) IST_TRY(write_cache(list, path, identity, err));
  IST_TRY(ist_gguf_open(&w->cache, path, err));
  return use_cache(w, list, identity, err);
}

/* Copies of the base's own matrices that nothing uses any more. */
static void free_unused(ist_weights *w) {
  int64_t n = w->config->L * IST_T_LAYER_COUNT, kept = 0;
  for (int64_t i = 0; i < w->n_transposed; i++) {
    bool used = false;
    for (int64_t j = 0; j < n && !used; j++) used = w->layer[j].data == w->transposed[i];
    if (used)
      w->transposed[kept++] = w->transposed[i];
    else
      ist_free(w->transposed[i]);
  }
  w->n_transposed = kept;
}

ist_status ist_weights_requantise(ist_weights *w, ist_ctx *ctx, ist_dtype type, const char *cache,
                                  uint64_t identity, ist_error *err) {
  matrix_list list = {0};
  ist_status status = list_matrices(&list, w, ctx, type, err);
  if (status == IST_OK)
    status =
        cache ? make_in_file(w, &list, cache, identity, type, err) : make_in_memory(w, &list, err);
  ist_free(list.rows);
  ist_free(list.p);
  if (status == IST_OK) free_unused(w);
  return status;
}

/* The blocks keep the address of the floats, which nobody reads as blocks. */
ist_status ist_weights_plan_requantise(ist_weights *w, ist_ctx *ctx, ist_dtype type, int64_t *bytes,
                                       ist_error *err) {
  matrix_list list = {0};
  ist_status status = list_matrices(&list, w, ctx, type, err);
  for (int64_t i = 0; status == IST_OK && i < list.n; i++)
    settle(&list.p[i], list.p[i].from.data, true);
  *bytes = status == IST_OK ? (int64_t)bytes_in_memory(&list) : 0;
  ist_free(list.rows);
  ist_free(list.p);
  return status;
}
