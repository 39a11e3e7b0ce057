#include "eval/generator.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "train/plan.h"

#define PROMPT_ROWS 512 /* tokens of a prompt fed at a time */
/* Rows of the head dequantised at a time, where more sequences than IST_STORED_ROWS step. */
#define HEAD_ROWS 4096

/* Dequantised matrices are kept when a third of the free memory holds them: a
 * token's pass is then bound by reading them, not by dequantising. */
static ist_weight_policy choose_policy(const ist_model *m) {
  const int64_t no_tail[IST_MOD_COUNT] = {0};
  size_t kept = ist_weights_policy_bytes(&m->weights, IST_WEIGHT_KEEP, m->compute, no_tail);
  return (int64_t)kept <= ist_memory_free() / 3 ? IST_WEIGHT_KEEP : IST_WEIGHT_STREAM;
}

static ist_status open_cache(ist_generator *g, ist_error *err) {
  const ist_model_config *c = &g->model->config;
  int64_t rows = g->n_seq * g->region, width = c->K * c->E;
  size_t bytes = ist_arena_round((size_t)ist_dtype_bytes(g->model->compute, rows * width));
  IST_TRY(ist_arena_init(&g->cache_memory, "keys and values", bytes * 2 * (size_t)c->L, err));
  g->cache.k = ist_calloc((size_t)c->L, sizeof *g->cache.k);
  g->cache.v = ist_calloc((size_t)c->L, sizeof *g->cache.v);
  if (!g->cache.k || !g->cache.v)
    return ist_fail_nomem(err, "key and value tables", (size_t)c->L * sizeof(ist_view));
  for (int64_t l = 0; l < c->L; l++) {
    g->cache.k[l] = ist_view_make(ist_arena_alloc(&g->cache_memory, bytes), g->model->compute, rows,
                                  width, width);
    g->cache.v[l] = ist_view_make(ist_arena_alloc(&g->cache_memory, bytes), g->model->compute, rows,
                                  width, width);
  }
  return IST_OK;
}

static ist_status open_pass(ist_generator *g, ist_error *err) {
  size_t rows = (size_t)g->rows, V = (size_t)g->model->config.V;
  g->ids = ist_calloc(rows, sizeof *g->ids);
  g->position = ist_calloc(rows, sizeof *g->position);
  g->dest = ist_calloc(rows, sizeof *g->dest);
  g->seg = ist_calloc((size_t)g->n_seq, sizeof *g->seg);
  g->seq = ist_calloc((size_t)g->n_seq, sizeof *g->seq);
  g->prob = ist_calloc(V, sizeof *g->prob);
  g->candidate = ist_calloc(V, sizeof *g->candidate);
  if (!g->ids || !g->position || !g->dest || !g->seg || !g->seq || !g->prob || !g->candidate) {
    return ist_fail_nomem(err, "generator", V * 8 + rows * 12);
  }
  for (int64_t s = 0; s < g->n_seq; s++) g->seq[s].row0 = s * g->region;
  IST_TRY(ist_schedule_reserve(&g->schedule, ist_schedule_items(g->model->config.L, 1), err));
  ist_schedule_forward(&g->schedule, g->model->config.L, 0, 1, IST_ORDER_TOKEN, false);
  return IST_OK;
}

/* Steps that read the stored matrices want no copies. Methods that do the linear
 * themselves take whole matrices. */
static void choose_products(ist_decoder_sizes *sizes, const ist_model *m,
                            ist_step_products products) {
  bool whole = m->adapters && m->adapters->method->linear_fwd;
  if (products == IST_STEP_MATRIX || whole) {
    sizes->policy = choose_policy(m);
    return;
  }
  sizes->stored_rows = IST_STORED_ROWS;
  sizes->stored_how = products == IST_STEP_INT8 ? IST_STORED_INT8 : IST_STORED_FLOAT;
  if (sizes->head_rows > HEAD_ROWS) sizes->head_rows = HEAD_ROWS;
}

ist_status ist_generator_open(ist_generator *g, ist_model *m, int64_t n_seq, int64_t region,
                              ist_step_products products, ist_error *err) {
  memset(g, 0, sizeof *g);
  IST_TRY(ist_model_check_free(m, err));
  g->model = m;
  g->n_seq = n_seq;
  g->region = region;
  g->rows = region < PROMPT_ROWS ? region : PROMPT_ROWS;
  if (g->rows < n_seq) g->rows = n_seq;
  ist_decoder_sizes sizes = ist_forward_sizes(m, g->rows, region, n_seq);
  choose_products(&sizes, m, products);
  ist_status status =
      ist_decoder_open(&g->decoder, &m->config, &m->weights, m->adapters, &m->ctx, &sizes, err);
  if (status == IST_OK) status = open_cache(g, err);
  if (status == IST_OK) status = open_pass(g, err);
  if (status != IST_OK) ist_generator_close(g);
  return status;
}

void ist_generator_close(ist_generator *g) {
  ist_decoder_close(&g->decoder);
  ist_arena_free(&g->cache_memory);
  ist_schedule_free(&g->schedule);
  ist_free(g->cache.k);
  ist_free(g->cache.v);
  ist_free(g->ids);
  ist_free(g->position);
  ist_free(g->dest);
  ist_free(g->seg);
  ist_free(g->seq);
  ist_free(g->prob);
  ist_free(g->candidate);
  memset(g, 0, sizeof *g);
}

/* Adds a token of sequence s to the pass at row `row`. */
static void place(ist_generator *g, int64_t row, ist_sequence *s, int32_t id) {
  g->ids[row] = id;
  g->position[row] = (int32_t)s->length;
  g->dest[row] = (int32_t)(s->row0 + s->length);
  s->length++;
}

/* A segment of `n` rows at q0 that sees all of sequence s so far. */
static ist_attn_seg segment(const ist_sequence *s, int64_t q0, int64_t n) {
  return (ist_attn_seg){
      .q0 = q0,
      .nq = n,
      .pos0 = s->length - n,
      .n_spans = 1,
      .span = {{.causal = true, .row0 = s->row0, .n = s->length}},
  };
}

static void run(ist_generator *g, int64_t rows, int64_t n_seg) {
  const ist_micro micro = {.n = rows,
                           .rows = rows,
                           .ids = g->ids,
                           .position = g->position,
                           .n_seg = n_seg,
                           .seg = g->seg};
  g->cache.dest = g->dest;
  const ist_pass pass = {.micro = &micro, .cache = &g->cache};
  for (int64_t i = 0; i < g->schedule.n; i++)
    ist_decoder_run(&g->decoder, &pass, &g->schedule.work[i]);
}

const float *ist_generator_prompt(ist_generator *g, int64_t s, const int32_t *ids, int64_t n,
                                  int64_t kept) {
  ist_sequence *seq = &g->seq[s];
  IST_ASSERT(kept < n && kept <= seq->length);
  seq->length = kept;
  seq->done = false;
  int64_t count = 0;
  for (int64_t from = kept; from < n; from += count) {
    count = n - from < g->rows ? n - from : g->rows;
    for (int64_t i = 0; i < count; i++) place(g, i, seq, ids[from + i]);
    g->seg[0] = segment(seq, 0, count);
    run(g, count, 1);
  }
  return ist_decoder_logits(&g->decoder, 0, count - 1, 1).p;
}

ist_view ist_generator_step(ist_generator *g, int64_t *n) {
  *n = 0;
  for (int64_t s = 0; s < g->n_seq; s++) {
    if (g->seq[s].done) continue;
    place(g, *n, &g->seq[s], g->seq[s].next);
    g->seg[*n] = segment(&g->seq[s], *n, 1);
    ++*n;
  }
  if (*n == 0) return ist_view_none();
  run(g, *n, *n);
  return ist_decoder_logits(&g->decoder, 0, 0, *n);
}

/* ---- Sampling ----------------------------------------------------------------------- */

/* The largest of `n` values but NaN, -INFINITY where there is none: in lanes, which is as
 * fast as vectors with any compiler. */
static float largest(const float *x, int64_t n) {
  enum { LANES = 16 };
  float lane[LANES], most = -INFINITY;
  for (int j = 0; j < LANES; j++) lane[j] = -INFINITY;
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES)
    for (int j = 0; j < LANES; j++) lane[j] = x[i + j] > lane[j] ? x[i + j] : lane[j];
  for (int j = 0; j < LANES; j++) most = lane[j] > most ? lane[j] : most;
  for (; i < n; i++) most = x[i] > most ? x[i] : most;
  return most;
}

/* The first of the largest; NaN is never the largest. By parts, of which only one that
 * holds a larger value is searched. */
static int32_t best_token(const float *logits, int64_t V) {
  enum { PART = 256 };
  int64_t best = 0;
  float most = -INFINITY;
  for (int64_t from = 0; from < V; from += PART) {
    float here = largest(logits + from, V - from < PART ? V - from : PART);
    if (!(here > most)) continue;
    most = here;
    for (best = from; logits[best] != most;) best++;
  }
  return (int32_t)best;
}

/* Falling probability; equal ones by id, so that the order is total. */
static int by_probability(const void *a, const void *b, void *prob) {
  int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
  float p = ((const float *)prob)[x], q = ((const float *)prob)[y];
  if (p != q) return p < q ? 1 : -1;
  return (x > y) - (x < y);
}

int32_t ist_sample_token(ist_generator *g, const float *logits, const ist_sampling *s,
                         int64_t number) {
  int64_t V = g->model->config.V, keep = 0;
  int32_t best = best_token(logits, V);
  if (s->temperature <= 0) return best;
  /* What is a billion times less likely than the best is as good as impossible. */
  float least = (float)((double)logits[best] - 20.72 * s->temperature);
  for (int64_t i = 0; i < V; i++) {
    if (!(logits[i] > least)) continue;
    g->prob[i] = (float)exp(((double)logits[i] - (double)logits[best]) / s->temperature);
    g->candidate[keep++] = (int32_t)i;
  }
  if (keep == 0) return best;
  qsort_r(g->candidate, (size_t)keep, sizeof *g->candidate, by_probability, g->prob);
  if (s->top_k > 0 && s->top_k < keep) keep = s->top_k;
  double sum = 0, mass = 0;
  for (int64_t i = 0; i < keep; i++) sum += (double)g->prob[g->candidate[i]];
  for (int64_t i = 0; i < keep; i++) {
    mass += (double)g->prob[g->candidate[i]];
    if (mass >= s->top_p * sum) keep = i + 1;
  }
  ist_rng rng = ist_rng_stream(s->seed, IST_RNG_SAMPLE, (uint32_t)number, 0, 0);
  double target = ist_rng_uniform(&rng) * mass;
  for (int64_t i = 0; i < keep; i++) {
    target -= (double)g->prob[g->candidate[i]];
    if (target < 0) return g->candidate[i];
  }
  return g->candidate[keep - 1];
}
