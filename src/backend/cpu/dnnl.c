/* Dense products by oneDNN, versions 2 and 3. The only file that knows its interface.
 *
 * A primitive is made for each shape the first time it is met and kept in a small
 * table, so that a repeated step makes none. */
#include "backend/cpu/cpu.h"

#ifndef IST_HAVE_DNNL

const ist_products *ist_products_dnnl(void) {
  return NULL;
}

#else

#include <dnnl.h>
#include <string.h>

#include "base/mem.h"

/* What makes two products the same to oneDNN. */
typedef struct shape {
  int64_t m, n, k;
  ist_dtype type, c_type;
  int threads;
  bool ta, tb, accumulate;
} shape;

typedef struct entry {
  shape key;
  uint64_t used; /* 0: empty */
  dnnl_primitive_t primitive;
  dnnl_memory_t a, b, c, scratch;
} entry;

/* A shape lives in one of WAYS places; the least recently used one makes room. */
enum { SETS = 64, WAYS = 8 };

typedef struct engine {
  dnnl_engine_t engine;
  dnnl_stream_t stream;
  uint64_t clock;
  entry set[SETS][WAYS];
  void *workspace; /* the largest scratchpad of any primitive so far */
  size_t workspace_bytes;
} engine;

static void empty_entry(entry *e) {
  if (e->primitive != NULL) dnnl_primitive_destroy(e->primitive);
  dnnl_memory_t memory[] = {e->a, e->b, e->c, e->scratch};
  for (int i = 0; i < 4; i++) {
    if (memory[i] != NULL) dnnl_memory_destroy(memory[i]);
  }
  *e = (entry){0};
}

static void close_engine(void *state) {
  engine *d = state;
  for (int i = 0; i < SETS * WAYS; i++) empty_entry(&d->set[0][0] + i);
  if (d->stream != NULL) dnnl_stream_destroy(d->stream);
  if (d->engine != NULL) dnnl_engine_destroy(d->engine);
  ist_free(d->workspace);
  ist_free(d);
}

/* oneDNN keeps to the instruction set that IST_ISA names, as our kernels do. It heeds
 * only the first call of the process. */
static void limit_isa(void) {
  static const struct {
    const char *name;
    dnnl_cpu_isa_t isa;
  } known[] = {{"avx512", dnnl_cpu_isa_avx512_core},
               {"avx2", dnnl_cpu_isa_avx2},
               {"portable", dnnl_cpu_isa_sse41}};
  const char *wanted = ist_cpu_isa_wanted();
  for (size_t i = 0; wanted != NULL && i < sizeof known / sizeof *known; i++) {
    if (strcmp(known[i].name, wanted) == 0) dnnl_set_max_cpu_isa(known[i].isa);
  }
}

static ist_status open_engine(void **state, ist_error *err) {
  engine *d = ist_calloc(1, sizeof *d);
  if (d == NULL) return ist_fail_nomem(err, "oneDNN's primitives", sizeof *d);
  limit_isa();
  if (dnnl_engine_create(&d->engine, dnnl_cpu, 0) != dnnl_success ||
      dnnl_stream_create(&d->stream, d->engine, dnnl_stream_default_flags) != dnnl_success) {
    close_engine(d);
    return ist_fail(err, IST_ERR_INTERNAL, "oneDNN cannot use this CPU");
  }
  *state = d;
  return IST_OK;
}

static dnnl_data_type_t type_of(ist_dtype t) {
  return t == IST_BF16 ? dnnl_bf16 : dnnl_f32;
}

#if DNNL_VERSION_MAJOR >= 3

/* Dense (rows, cols), or its transpose seen as (rows, cols). */
static dnnl_memory_desc_t describe(int64_t rows, int64_t cols, bool transposed, ist_dtype t) {
  dnnl_memory_desc_t md = NULL;
  dnnl_dims_t dims = {rows, cols}, strides = {transposed ? 1 : cols, transposed ? rows : 1};
  dnnl_memory_desc_create_with_strides(&md, 2, dims, type_of(t), strides);
  return md;
}

static bool make(engine *d, entry *e, size_t *scratch, dnnl_primitive_attr_t attr) {
  const shape *s = &e->key;
  dnnl_memory_desc_t a = describe(s->m, s->k, s->ta, s->type);
  dnnl_memory_desc_t b = describe(s->k, s->n, s->tb, s->type);
  dnnl_memory_desc_t c = describe(s->m, s->n, false, s->c_type);
  dnnl_primitive_desc_t pd = NULL;
  bool made =
      a != NULL && b != NULL && c != NULL &&
      dnnl_matmul_primitive_desc_create(&pd, d->engine, a, b, NULL, c, attr) == dnnl_success &&
      dnnl_primitive_create(&e->primitive, pd) == dnnl_success &&
      dnnl_memory_create(&e->a, a, d->engine, DNNL_MEMORY_NONE) == dnnl_success &&
      dnnl_memory_create(&e->b, b, d->engine, DNNL_MEMORY_NONE) == dnnl_success &&
      dnnl_memory_create(&e->c, c, d->engine, DNNL_MEMORY_NONE) == dnnl_success;
  if (made) {
    const_dnnl_memory_desc_t md = dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
    *scratch = dnnl_memory_desc_get_size(md);
    made = dnnl_memory_create(&e->scratch, md, d->engine, DNNL_MEMORY_NONE) == dnnl_success;
  }
  if (pd != NULL) dnnl_primitive_desc_destroy(pd);
  if (a != NULL) dnnl_memory_desc_destroy(a);
  if (b != NULL) dnnl_memory_desc_destroy(b);
  if (c != NULL) dnnl_memory_desc_destroy(c);
  return made;
}

#else

static dnnl_memory_desc_t describe(int64_t rows, int64_t cols, bool transposed, ist_dtype t) {
  dnnl_memory_desc_t md = {0};
  dnnl_dims_t dims = {rows, cols}, strides = {transposed ? 1 : cols, transposed ? rows : 1};
  dnnl_memory_desc_init_by_strides(&md, 2, dims, type_of(t), strides);
  return md;
}

static bool make(engine *d, entry *e, size_t *scratch, dnnl_primitive_attr_t attr) {
  const shape *s = &e->key;
  dnnl_memory_desc_t a = describe(s->m, s->k, s->ta, s->type);
  dnnl_memory_desc_t b = describe(s->k, s->n, s->tb, s->type);
  dnnl_memory_desc_t c = describe(s->m, s->n, false, s->c_type);
  dnnl_matmul_desc_t op;
  dnnl_primitive_desc_t pd = NULL;
  bool made = dnnl_matmul_desc_init(&op, &a, &b, NULL, &c) == dnnl_success &&
              dnnl_primitive_desc_create(&pd, &op, attr, d->engine, NULL) == dnnl_success &&
              dnnl_primitive_create(&e->primitive, pd) == dnnl_success &&
              dnnl_memory_create(&e->a, &a, d->engine, DNNL_MEMORY_NONE) == dnnl_success &&
              dnnl_memory_create(&e->b, &b, d->engine, DNNL_MEMORY_NONE) == dnnl_success &&
              dnnl_memory_create(&e->c, &c, d->engine, DNNL_MEMORY_NONE) == dnnl_success;
  if (made) {
    const dnnl_memory_desc_t *md = dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
    *scratch = dnnl_memory_desc_get_size(md);
    made = dnnl_memory_create(&e->scratch, md, d->engine, DNNL_MEMORY_NONE) == dnnl_success;
  }
  if (pd != NULL) dnnl_primitive_desc_destroy(pd);
  return made;
}

#endif

/* A primitive with our scratchpad, and the old C added where the shape says so. */
static bool fill_entry(engine *d, entry *e) {
  dnnl_primitive_attr_t attr = NULL;
  dnnl_post_ops_t post = NULL;
  size_t scratch = 0;
  bool made =
      dnnl_primitive_attr_create(&attr) == dnnl_success &&
      dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user) == dnnl_success;
  if (made && e->key.accumulate) {
    made = dnnl_post_ops_create(&post) == dnnl_success;
#if DNNL_VERSION_MAJOR >= 3
    made = made && dnnl_post_ops_append_sum(post, 1.0f, 0, dnnl_data_type_undef) == dnnl_success;
#else
    made = made && dnnl_post_ops_append_sum(post, 1.0f) == dnnl_success;
#endif
    made = made && dnnl_primitive_attr_set_post_ops(attr, post) == dnnl_success;
  }
  made = made && make(d, e, &scratch, attr);
  if (made && scratch > d->workspace_bytes) {
    /* Aligned by hand: oneDNN wants whole cache lines. */
    void *grown = ist_realloc(d->workspace, scratch + 64, 1);
    made = grown != NULL;
    if (made) {
      d->workspace = grown;
      d->workspace_bytes = scratch;
    }
  }
  if (post != NULL) dnnl_post_ops_destroy(post);
  if (attr != NULL) dnnl_primitive_attr_destroy(attr);
  return made;
}

static bool same(const shape *x, const shape *y) {
  return x->m == y->m && x->n == y->n && x->k == y->k && x->type == y->type &&
         x->c_type == y->c_type && x->threads == y->threads && x->ta == y->ta && x->tb == y->tb &&
         x->accumulate == y->accumulate;
}

/* The entry of a shape, made if need be; NULL where oneDNN refuses. */
static entry *find(engine *d, const shape *key) {
  uint64_t h = (uint64_t)key->m * 0x9E3779B97F4A7C15u ^ (uint64_t)key->n * 0xC2B2AE3D27D4EB4Fu ^
               (uint64_t)key->k * 0x165667B19E3779F9u ^
               (uint64_t)(key->ta + 2 * key->tb + 4 * key->accumulate);
  entry *set = d->set[(h >> 32) % SETS], *oldest = &set[0];
  for (int i = 0; i < WAYS; i++) {
    if (set[i].used != 0 && same(&set[i].key, key)) {
      set[i].used = ++d->clock;
      return &set[i];
    }
    if (set[i].used < oldest->used) oldest = &set[i];
  }
  empty_entry(oldest);
  oldest->key = *key;
  if (!fill_entry(d, oldest)) {
    empty_entry(oldest);
    return NULL;
  }
  oldest->used = ++d->clock;
  return oldest;
}

static bool dense(const ist_view *v) {
  return v->stride == v->cols;
}

static bool run(void *state, const ist_gemm *g) {
  engine *d = state;
  const ist_gemm_term *t = &g->term[0];
  if (g->n_terms != 1 || g->bias != NULL || !dense(&g->c) || !dense(&t->a) || !dense(&t->b) ||
      t->a.dt != t->b.dt || (g->c.dt != t->a.dt && g->c.dt != IST_F32)) {
    return false;
  }
  shape key = {g->c.rows,         g->c.cols, t->k,  t->a.dt,      g->c.dt,
               ist_get_threads(), t->ta,     t->tb, g->accumulate};
  entry *e = find(d, &key);
  if (e == NULL) return false;
  char *workspace = d->workspace;
  workspace += (64 - (uintptr_t)workspace % 64) % 64;
  bool ready = dnnl_memory_set_data_handle(e->a, t->a.p) == dnnl_success &&
               dnnl_memory_set_data_handle(e->b, t->b.p) == dnnl_success &&
               dnnl_memory_set_data_handle(e->c, g->c.p) == dnnl_success &&
               dnnl_memory_set_data_handle(e->scratch, workspace) == dnnl_success;
  const dnnl_exec_arg_t args[] = {{DNNL_ARG_SRC, e->a},
                                  {DNNL_ARG_WEIGHTS, e->b},
                                  {DNNL_ARG_DST, e->c},
                                  {DNNL_ARG_SCRATCHPAD, e->scratch}};
  return ready && dnnl_primitive_execute(e->primitive, d->stream, 4, args) == dnnl_success &&
         dnnl_stream_wait(d->stream) == dnnl_success;
}

const ist_products *ist_products_dnnl(void) {
  static const ist_products dnnl = {"oneDNN", open_engine, close_engine, run};
  return &dnnl;
}

#endif
