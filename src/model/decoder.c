/* Memory of the decoder: one function lays the buffers out, both to measure them
 * for the plan and to reserve them, so that the two cannot differ. */
#include "model/decoder.h"

#include <string.h>

#include "base/mem.h"

const char *const ist_arena_names[IST_ARENA_DECODER_COUNT] = {
    [IST_ARENA_WEIGHTS] = "weights in use",  [IST_ARENA_BOUNDARY] = "layer inputs",
    [IST_ARENA_SAVED] = "saved activations", [IST_ARENA_FORWARD] = "forward",
    [IST_ARENA_BACKWARD] = "backward",       [IST_ARENA_HEAD] = "output head and logits",
    [IST_ARENA_SCRATCH] = "scratch",
};

/* Lays out buffers: counts bytes while `reserve` is off, takes them when it is on. */
typedef struct layout {
  ist_decoder *d;
  bool reserve;
  size_t bytes[IST_ARENA_DECODER_COUNT];
} layout;

static void *take(layout *l, ist_arena_id id, size_t bytes) {
  l->bytes[id] += ist_arena_round(bytes);
  return l->reserve ? ist_arena_alloc(&l->d->arena[id], bytes) : NULL;
}

static ist_view take_view(layout *l, ist_arena_id id, ist_dtype dt, int64_t rows, int64_t cols,
                          int64_t tail) {
  void *p = take(l, id, (size_t)ist_dtype_bytes(dt, rows * (cols + tail)));
  return ist_view_make(p, dt, rows, cols, cols + tail);
}

static int64_t max64(int64_t a, int64_t b) {
  return a > b ? a : b;
}

static int64_t site_tail(const ist_decoder *d, ist_site site) {
  return d->adapters ? d->adapters->layout.max_rank[site] : 0;
}

/* The most columns or rows of a linear of a layer. */
static int64_t widest_linear(const ist_decoder *d) {
  ist_linear_sizes s;
  int64_t widest = 0;
  ist_model_linear_sizes(d->config, &s);
  for (int m = 0; m < IST_MOD_COUNT; m++) widest = max64(widest, max64(s.in[m], s.out[m]));
  return max64(widest, max64(d->config->F, d->config->D));
}

/* Columns free behind each weight; none in the wide type, where the file's own F32 rows
 * are used in place, nor behind those of experts. */
static void weight_tails(const ist_decoder *d, int64_t tail[IST_MOD_COUNT]) {
  for (int m = 0; m < IST_MOD_COUNT; m++) {
    bool fused = d->adapters && d->compute != d->wide && !d->adapters->method->around &&
                 d->adapters->layout.module[m].rank > 0 && m < IST_MOD_EXPERTS;
    tail[m] = fused ? site_tail(d, ist_module_site(m)) : 0;
  }
}

/* Columns [col, col + cols) of a buffer; also while nothing is reserved. */
static ist_view columns(ist_view v, int64_t col, int64_t cols) {
  return v.p ? ist_view_cols(v, col, cols) : (ist_view){NULL, v.rows, cols, v.stride, v.dt, 0};
}

static void lay_out_attn(layout *l, ist_attn_acts *a) {
  const ist_decoder *d = l->d;
  const ist_model_config *c = d->config;
  ist_dtype t = d->compute, wide = d->wide;
  int64_t n = d->sizes.rows, q = c->H * c->E, kv = c->K * c->E;
  *a = (ist_attn_acts){0};
  if (c->fused_qkv) {
    a->qkv = take_view(l, IST_ARENA_SAVED, t, n, q + 2 * kv, 0);
    a->q = columns(a->qkv, 0, q);
    a->k = columns(a->qkv, q, kv);
    a->v = columns(a->qkv, q + kv, kv);
  } else {
    a->q = take_view(l, IST_ARENA_SAVED, t, n, q, 0);
    a->k = take_view(l, IST_ARENA_SAVED, t, n, kv, 0);
    a->v = take_view(l, IST_ARENA_SAVED, t, n, kv, 0);
  }
  a->o = take_view(l, IST_ARENA_SAVED, t, n, q, site_tail(d, IST_SITE_ATTN_OUT));
  a->lse = take_view(l, IST_ARENA_SAVED, wide, n, c->H, 0);
  a->xmid = take_view(l, IST_ARENA_SAVED, t, n, c->D, 0);
  a->stat1 = take_view(l, IST_ARENA_SAVED, wide, n, 2, 0);
  a->stat2 = take_view(l, IST_ARENA_SAVED, wide, n, 2, 0);
  if (c->qk_norm) {
    a->q_raw = take_view(l, IST_ARENA_SAVED, t, n, q, 0);
    a->k_raw = take_view(l, IST_ARENA_SAVED, t, n, kv, 0);
    a->q_stat = take_view(l, IST_ARENA_SAVED, wide, n * c->H, 1, 0);
    a->k_stat = take_view(l, IST_ARENA_SAVED, wide, n * c->K, 1, 0);
  }
  if (!ist_block_norms_behind(c)) return;
  a->y1 = take_view(l, IST_ARENA_SAVED, t, n, c->D, 0);
  a->y2 = take_view(l, IST_ARENA_SAVED, t, n, c->D, 0);
  a->stat3 = take_view(l, IST_ARENA_SAVED, wide, n, 2, 0);
  a->stat4 = take_view(l, IST_ARENA_SAVED, wide, n, 2, 0);
}

static void lay_out_mlp(layout *l, ist_mlp_acts *m) {
  const ist_model_config *c = l->d->config;
  ist_dtype t = l->d->compute;
  int64_t n = l->d->sizes.rows;
  *m = (ist_mlp_acts){0};
  if (!ist_model_dense_layers(c)) return; /* mixtures are done again in backward */
  if (c->fused_gate_up) {
    m->both = take_view(l, IST_ARENA_SAVED, t, n, 2 * c->F, 0);
    m->gate = columns(m->both, 0, c->F);
    m->up = columns(m->both, c->F, c->F);
    return;
  }
  if (c->gated) m->gate = take_view(l, IST_ARENA_SAVED, t, n, c->F, 0);
  m->up = take_view(l, IST_ARENA_SAVED, t, n, c->F, 0);
}

static void lay_out_kept(layout *l) {
  ist_decoder *d = l->d;
  const ist_model_config *c = d->config;
  const ist_decoder_sizes *s = &d->sizes;
  ist_dtype t = d->compute;
  int64_t n = s->rows;
  for (int64_t i = 0; i < s->n_boundary; i++) {
    d->boundary[i] = take_view(l, IST_ARENA_BOUNDARY, t, s->boundary_rows, c->D, 0);
  }
  for (int64_t i = 0; i < s->n_attn; i++) lay_out_attn(l, &d->attn[i]);
  for (int64_t i = 0; i < s->n_mlp; i++) lay_out_mlp(l, &d->mlp[i]);
  for (int64_t i = 0; i < s->n_low; i++) {
    for (int site = 0; site < IST_SITE_MIXTURE; site++) {
      int64_t rank = d->adapters->layout.site_rank[site];
      d->low[i].u[site] = take_view(l, IST_ARENA_SAVED, t, n, rank, 0);
    }
  }
}

static void lay_out_moe(layout *l) {
  ist_decoder *d = l->d;
  const ist_model_config *c = d->config;
  ist_dtype t = d->compute, wide = d->wide;
  int64_t n = d->sizes.rows, choices = n * c->experts_used, F = max64(c->expert_F, c->shared_F);
  ist_moe_buffers *m = &d->moe;
  const ist_arena_id f = IST_ARENA_FORWARD, b = IST_ARENA_BACKWARD;
  m->h = take_view(l, f, t, n, c->D, 0);
  m->sum = take_view(l, f, wide, n, c->D, 0);
  m->logits = take_view(l, f, wide, n, c->experts, 0);
  m->weight = take_view(l, f, wide, n, c->experts_used, 0);
  m->x = take_view(l, f, t, n, c->D, 0);
  m->y = take_view(l, f, t, n, c->D, 0);
  m->gate = take_view(l, f, t, n, F, 0);
  m->up = take_view(l, f, t, n, F, 0);
  m->a = take_view(l, f, t, n, F, site_tail(d, IST_SITE_SHARED_OUT));
  m->w = take_view(l, f, wide, n, 1, 0);
  m->index = take(l, f, (size_t)choices * sizeof(int32_t));
  int32_t **lists[] = {&m->row, &m->pair, &m->sample, &m->position, &m->group};
  for (int i = 0; i < 5; i++) *lists[i] = take(l, f, (size_t)n * sizeof(int32_t));
  if (c->shared_F) {
    m->share_logit = take_view(l, f, wide, n, 1, 0);
    m->share = take_view(l, f, wide, n, 1, 0);
  }
  if (d->adapters) {
    const int64_t *rank = d->adapters->layout.site_rank;
    int64_t in = max64(rank[IST_SITE_SHARED_IN], rank[IST_SITE_EXPERT_IN]);
    int64_t out = max64(rank[IST_SITE_SHARED_OUT], rank[IST_SITE_EXPERT_OUT]);
    m->u_in = take_view(l, f, t, n, in, 0);
    m->u_out = take_view(l, f, t, n, out, 0);
  }
  if (!d->sizes.dres_rows) return;
  m->dx = take_view(l, b, wide, n, c->D, 0);
  m->dlogits = take_view(l, b, wide, n, c->experts, 0);
  m->dlow = take_view(l, b, t, n, c->experts, 0);
  m->dweight = take_view(l, b, wide, n, c->experts_used, 0);
  m->dw = take_view(l, b, wide, n, 1, 0);
}

static void lay_out_forward(layout *l) {
  ist_decoder *d = l->d;
  const ist_model_config *c = d->config;
  ist_dtype t = d->compute;
  int64_t n = d->sizes.rows, widest = widest_linear(d);
  int64_t tail = max64(site_tail(d, IST_SITE_ATTN_IN), site_tail(d, IST_SITE_MLP_IN));
  tail = max64(tail, site_tail(d, IST_SITE_SHARED_IN));
  d->h = take_view(l, IST_ARENA_FORWARD, t, n, c->D, tail);
  if (ist_model_dense_layers(c))
    d->a = take_view(l, IST_ARENA_FORWARD, t, n, c->F, site_tail(d, IST_SITE_MLP_OUT));
  d->y = take_view(l, IST_ARENA_FORWARD, t, n, c->D, 0);
  d->row_factor = take(l, IST_ARENA_FORWARD, (size_t)n * sizeof(float));
  if (c->positions) d->table_rows = take(l, IST_ARENA_FORWARD, (size_t)n * sizeof(int32_t));
  if (c->rope_dim) d->rope_freq = take(l, IST_ARENA_FORWARD, (size_t)c->rope_dim * sizeof(float));
  if (!d->adapters) return;
  int64_t rank = 0;
  for (int site = 0; site < IST_SITE_COUNT; site++)
    rank = max64(rank, d->adapters->layout.site_rank[site]);
  if (t != d->wide) d->a_compute = take_view(l, IST_ARENA_FORWARD, t, rank, widest, 0);
  if (t != d->wide) d->b_compute = take_view(l, IST_ARENA_FORWARD, t, widest, rank, 0);
  if (d->sizes.dropout) d->x_dropped = take_view(l, IST_ARENA_FORWARD, t, n, widest, 0);
}

static void lay_out_outer(layout *l) {
  ist_decoder *d = l->d;
  const ist_outer_layout *outer = &d->adapters->outer;
  ist_outer_buffers *o = &d->outer;
  const ist_arena_id f = IST_ARENA_FORWARD, h = IST_ARENA_HEAD;
  ist_dtype t = d->compute, wide = d->wide;
  int64_t embed = outer->of[IST_OUTER_EMBED].rank, head = outer->of[IST_OUTER_HEAD].rank;
  int64_t width = d->adapters->sizes.width, n = d->sizes.head_chunk;
  bool narrow = t != wide, backward = d->sizes.dres_rows > 0, drop = d->sizes.dropout;
  if (embed) {
    o->u = take_view(l, f, t, d->sizes.rows, embed, 0);
    if (narrow) o->b = take_view(l, f, t, width, embed, 0);
    if (backward) o->du = take_view(l, IST_ARENA_BACKWARD, wide, d->sizes.rows, embed, 0);
  }
  if (!head) return;
  o->head_u = take_view(l, h, t, n, head, 0);
  if (narrow) o->head_a = take_view(l, h, t, head, width, 0);
  if (narrow) o->head_b = take_view(l, h, t, d->sizes.head_rows, head, 0);
  if (drop) o->head_x = take_view(l, h, t, n, width, 0);
  if (drop) o->sample = take(l, h, (size_t)n * sizeof *o->sample);
  if (drop) o->position = take(l, h, (size_t)n * sizeof *o->position);
  if (!backward) return;
  o->head_du = take_view(l, h, wide, n, head, 0);
  if (narrow) o->head_dlow = take_view(l, h, t, n, head, 0);
  if (drop) o->head_dx = take_view(l, h, wide, n, width, 0);
}

/* What methods need beside u: see the fields of ist_decoder. */
static void lay_out_method(layout *l) {
  ist_decoder *d = l->d;
  const ist_adapter_layout *lay = &d->adapters->layout;
  ist_linear_sizes s;
  ist_model_linear_sizes(d->config, &s);
  int64_t n = d->sizes.rows, rank = 0, most = 0, sum = 0, outs = 0, matrices = 0;
  for (int site = 0; site < IST_SITE_COUNT; site++) sum = max64(sum, lay->site_rank[site]);
  bool around = d->adapters->method->around;
  if (d->adapters->method->extend || around)
    d->t = take_view(l, IST_ARENA_FORWARD, d->compute, n, sum, 0);
  if (around)
    d->linear_narrow = take_view(l, IST_ARENA_FORWARD, d->compute, n, widest_linear(d), 0);
  if (d->adapters->method->magnitude) {
    for (int m = 0; m < IST_MOD_COUNT; m++) {
      if (!lay->module[m].rank) continue;
      rank = max64(rank, lay->module[m].rank);
      most = max64(most, s.out[m]);
      d->norm_column[m] = outs;
      d->norm_first[m] = matrices;
      outs += ist_module_copies(&s, (ist_module)m) * s.out[m];
      matrices += ist_module_copies(&s, (ist_module)m);
    }
    d->norm_matrices = matrices;
    d->norms = take_view(l, IST_ARENA_FORWARD, d->wide, 3 * d->config->L, outs, 0);
    d->norm_fresh = take(l, IST_ARENA_FORWARD, (size_t)(d->config->L * matrices));
    d->linear_wide = take_view(l, IST_ARENA_FORWARD, d->wide, n, most, 0);
    d->gain = take_view(l, IST_ARENA_FORWARD, d->wide, 3, most, 0);
    d->norm_product = take_view(l, IST_ARENA_FORWARD, d->wide, 2 * most + rank, rank, 0);
    if (d->sizes.dres_rows)
      d->linear_narrow = take_view(l, IST_ARENA_BACKWARD, d->compute, n, most, 0);
  }
  if (!lay->prefix) return;
  d->prefix_k = take_view(l, IST_ARENA_FORWARD, d->compute, lay->prefix, d->adapters->config.kv, 0);
  d->prefix_v = take_view(l, IST_ARENA_FORWARD, d->compute, lay->prefix, d->adapters->config.kv, 0);
  d->prefix_seg = take(l, IST_ARENA_FORWARD, (size_t)n * sizeof *d->prefix_seg);
}

static void lay_out_backward(layout *l) {
  ist_decoder *d = l->d;
  const ist_model_config *c = d->config;
  ist_dtype t = d->compute, wide = d->wide;
  int64_t n = d->sizes.rows, q = c->H * c->E, kv = c->K * c->E;
  d->dres = take_view(l, IST_ARENA_BACKWARD, wide, d->sizes.dres_rows, c->D, 0);
  d->dwide = take_view(l, IST_ARENA_BACKWARD, wide, n, c->D, 0);
  d->dout = take_view(l, IST_ARENA_BACKWARD, t, n, q, 0);
  if (c->fused_qkv) {
    d->dqkv = take_view(l, IST_ARENA_BACKWARD, t, n, q + 2 * kv, 0);
    d->dq = columns(d->dqkv, 0, q);
  } else {
    d->dq = take_view(l, IST_ARENA_BACKWARD, t, n, q, 0);
  }
  bool in_place = c->fused_qkv && t == wide;
  d->dk = in_place ? columns(d->dqkv, q, kv) : take_view(l, IST_ARENA_BACKWARD, wide, n, kv, 0);
  d->dv =
      in_place ? columns(d->dqkv, q + kv, kv) : take_view(l, IST_ARENA_BACKWARD, wide, n, kv, 0);
  if (ist_block_parallel(c)) d->dside = take_view(l, IST_ARENA_BACKWARD, wide, n, c->D, 0);
  int64_t F = max64(ist_model_dense_layers(c) ? c->F : 0, max64(c->expert_F, c->shared_F));
  d->da = take_view(l, IST_ARENA_BACKWARD, t, n, F, 0);
  if (t != wide || c->block == IST_BLOCK_SANDWICH)
    d->dy = take_view(l, IST_ARENA_BACKWARD, t, n, c->D, 0);
  if (t != wide && c->fused_qkv) {
    d->dk_compute = columns(d->dqkv, q, kv);
    d->dv_compute = columns(d->dqkv, q + kv, kv);
  } else if (t != wide) {
    d->dk_compute = take_view(l, IST_ARENA_BACKWARD, t, n, kv, 0);
    d->dv_compute = take_view(l, IST_ARENA_BACKWARD, t, n, kv, 0);
  }
  if (!d->adapters) return;
  int64_t rank = 0;
  for (int site = 0; site < IST_SITE_COUNT; site++)
    rank = max64(rank, d->adapters->layout.site_rank[site]);
  d->du = take_view(l, IST_ARENA_BACKWARD, t, n, rank, 0);
  if (d->sizes.dropout)
    d->dtmp = take_view(l, IST_ARENA_BACKWARD, t, n, max64(max64(c->D, F), q), 0);
}

static void lay_out_head(layout *l) {
  ist_decoder *d = l->d;
  const ist_model_config *c = d->config;
  ist_dtype t = d->compute, wide = d->wide;
  int64_t n = d->sizes.head_chunk;
  d->head_x = take_view(l, IST_ARENA_HEAD, t, n, c->D, 0);
  d->head_h = take_view(l, IST_ARENA_HEAD, t, n, c->D, 0);
  d->head_stat = take_view(l, IST_ARENA_HEAD, wide, n, 2, 0);
  /* Rows a power of two apart would share a few lines of the cache. */
  d->logits = take_view(l, IST_ARENA_HEAD, wide, n, c->V, 32);
  d->run = take_view(l, IST_ARENA_HEAD, wide, n, 2, 0);
  d->tgt = take_view(l, IST_ARENA_HEAD, wide, n, 1, 0);
  d->head_ids = take(l, IST_ARENA_HEAD, (size_t)(2 * n) * sizeof(int32_t));
  if (c->embed_dim) d->head_p = take_view(l, IST_ARENA_HEAD, t, n, c->embed_dim, 0);
  if (!d->sizes.dres_rows) return;
  d->head_dh = take_view(l, IST_ARENA_HEAD, wide, n, c->D, 0);
  if (c->embed_dim) d->head_dp = take_view(l, IST_ARENA_HEAD, t, n, c->embed_dim, 0);
  d->head_dx = take_view(l, IST_ARENA_HEAD, wide, n, c->D, 0);
}

/* Scratch is a stack, so it is as large as the hungriest single call. */
static size_t scratch_bytes(const ist_decoder *d, const ist_backend *be) {
  const ist_model_config *c = d->config;
  int64_t n = d->sizes.rows, widest = widest_linear(d), rank = 0;
  size_t most = 0;
  if (d->adapters) {
    for (int site = 0; site < IST_SITE_COUNT; site++)
      rank = max64(rank, d->adapters->layout.site_rank[site]);
  }
  int64_t embed = d->adapters ? d->adapters->outer.of[IST_OUTER_EMBED].rank : 0;
  int64_t head = d->adapters ? d->adapters->outer.of[IST_OUTER_HEAD].rank : 0;
  const int64_t products[][3] = {
      {n, c->D, embed},
      {c->D, embed, n},
      {n, embed, c->D},
      {d->sizes.head_chunk, d->sizes.head_rows, head},
      {d->sizes.head_chunk, head, d->sizes.head_rows},
      {d->sizes.head_rows, head, d->sizes.head_chunk},
      {head, c->D, d->sizes.head_chunk},
      {n, widest + rank, widest + rank},
      {widest + rank, widest + rank, n},
      {d->sizes.head_chunk, d->sizes.head_rows, c->D},
      {d->sizes.head_chunk, c->D, d->sizes.head_rows},
  };
  for (int i = 0; i < 2; i++) { /* products of parameters are wide (DoRA's norms) */
    size_t bytes = be->matmul_scratch(widest, i ? widest : rank, i ? rank : widest, d->wide);
    if (bytes > most) most = bytes;
  }
  for (size_t i = 0; i < sizeof products / sizeof *products; i++) {
    size_t bytes = be->matmul_scratch(products[i][0], products[i][1], products[i][2], d->compute);
    if (bytes > most) most = bytes;
  }
  if (d->sizes.stored_rows) {
    size_t bytes = be->stored_scratch(d->sizes.stored_rows, widest, rank);
    if (bytes > most) most = bytes;
  }
  int64_t longest = d->sizes.longest;
  ist_attn_seg seg = {.nq = longest, .n_spans = 1, .span = {{.causal = true, .n = longest}}};
  ist_attn attn = {.H = c->H, .K = c->K, .E = c->E, .n_seg = 1, .seg = &seg};
  size_t bytes = be->attention_scratch(&attn, n, d->compute);
  return bytes > most ? bytes : most;
}

static void lay_out(layout *l, const ist_backend *be) {
  ist_decoder *d = l->d;
  int64_t tail[IST_MOD_COUNT];
  weight_tails(d, tail);
  l->bytes[IST_ARENA_WEIGHTS] +=
      ist_weights_policy_bytes(d->weights, d->sizes.policy, d->compute, tail) +
      ist_weights_head_bytes(d->weights, d->compute, d->sizes.head_rows) +
      ist_weights_vector_bytes(d->weights, d->compute);
  lay_out_kept(l);
  lay_out_forward(l);
  if (d->adapters) lay_out_method(l);
  if (d->adapters) lay_out_outer(l);
  if (d->config->experts) lay_out_moe(l);
  if (d->sizes.dres_rows) lay_out_backward(l);
  lay_out_head(l);
  l->bytes[IST_ARENA_SCRATCH] += ist_arena_round(scratch_bytes(d, be));
}

static ist_status alloc_tables(ist_decoder *d, ist_error *err) {
  const ist_decoder_sizes *s = &d->sizes;
  d->boundary = ist_calloc((size_t)s->n_boundary, sizeof *d->boundary);
  d->attn = ist_calloc((size_t)s->n_attn, sizeof *d->attn);
  d->mlp = ist_calloc((size_t)s->n_mlp, sizeof *d->mlp);
  d->low = d->adapters ? ist_calloc((size_t)s->n_low, sizeof *d->low) : NULL;
  if (d->boundary && d->attn && d->mlp && (d->low || !d->adapters)) return IST_OK;
  return ist_fail_nomem(err, "decoder tables",
                        (size_t)(s->n_boundary + s->n_attn) * sizeof *d->attn);
}

static void free_tables(ist_decoder *d) {
  ist_free(d->boundary);
  ist_free(d->attn);
  ist_free(d->mlp);
  ist_free(d->low);
}

static ist_status begin(ist_decoder *d, const ist_model_config *c, ist_weights *w,
                        const ist_adapters *ad, const ist_decoder_sizes *s, ist_error *err) {
  memset(d, 0, sizeof *d);
  d->config = c;
  d->weights = w;
  d->adapters = ad;
  d->sizes = *s;
  if (!ad) d->sizes.n_low = 0;
  d->compute = s->compute;
  d->wide = ist_wide(s->compute);
  return alloc_tables(d, err);
}

/* A learned table ends where it ends. */
static ist_status check_positions(const ist_model_config *c, const ist_decoder_sizes *s,
                                  ist_error *err) {
  int64_t most = c->positions - c->position_offset;
  if (!c->positions || s->longest <= most) return IST_OK;
  return ist_fail(
      err, IST_ERR_ARG,
      "tokens: found a sequence of up to %lld, the model has learned positions for %lld",
      (long long)s->longest, (long long)most);
}

ist_status ist_decoder_measure(const ist_model_config *c, const ist_weights *w,
                               const ist_adapters *ad, const ist_backend *be,
                               const ist_decoder_sizes *s, size_t bytes[IST_ARENA_DECODER_COUNT],
                               ist_error *err) {
  ist_decoder d;
  layout l = {&d, false, {0}};
  IST_TRY(check_positions(c, s, err));
  /* Measuring reads the tensor table only. */
  ist_status status = begin(&d, c, (ist_weights *)(uintptr_t)w, ad, s, err);
  if (status == IST_OK) {
    lay_out(&l, be);
    memcpy(bytes, l.bytes, sizeof l.bytes);
  }
  free_tables(&d);
  return status;
}

ist_status ist_decoder_open(ist_decoder *d, const ist_model_config *c, ist_weights *w,
                            const ist_adapters *ad, ist_ctx *ctx, const ist_decoder_sizes *s,
                            ist_error *err) {
  size_t bytes[IST_ARENA_DECODER_COUNT];
  IST_TRY(ist_decoder_measure(c, w, ad, ctx->be, s, bytes, err));
  ist_status status = begin(d, c, w, ad, s, err);
  for (int i = 0; i < IST_ARENA_DECODER_COUNT && status == IST_OK; i++) {
    bool spill = i == IST_ARENA_BOUNDARY && s->spill;
    status = spill
                 ? ist_arena_init_on_disk(&d->arena[i], ist_arena_names[i], bytes[i], s->spill, err)
                 : ist_arena_init(&d->arena[i], ist_arena_names[i], bytes[i], err);
  }
  if (status == IST_OK) {
    int64_t tail[IST_MOD_COUNT];
    weight_tails(d, tail);
    status = ist_weights_set_policy(w, s->policy, s->compute, tail, s->head_rows,
                                    &d->arena[IST_ARENA_WEIGHTS], err);
  }
  if (status != IST_OK) {
    ist_decoder_close(d);
    return status;
  }
  layout l = {d, true, {0}};
  lay_out(&l, ctx->be);
  if (d->norm_fresh) memset(d->norm_fresh, 0, (size_t)(c->L * d->norm_matrices));
  d->ctx = ctx;
  ctx->scratch = &d->arena[IST_ARENA_SCRATCH];
  return IST_OK;
}

void ist_decoder_close(ist_decoder *d) {
  for (int i = 0; i < IST_ARENA_DECODER_COUNT; i++) ist_arena_free(&d->arena[i]);
  free_tables(d);
  memset(d, 0, sizeof *d);
}

void ist_decoder_turn_pages(ist_decoder *d, const ist_work *w) {
  if (!d->sizes.drop_pages) return;
  if (w->layer >= 0) ist_weights_drop_pages(d->weights, w->layer);
  if (w->in >= 0) ist_weights_want_pages(d->weights, w->in);
  const ist_arena *a = &d->arena[IST_ARENA_BOUNDARY];
  if (a->on_disk && w->out >= 0) {
    ist_view v = d->boundary[w->out];
    ist_arena_drop(a, v.p, (size_t)ist_dtype_bytes(v.dt, v.rows * v.stride));
  }
}

/* Per token: 2 FLOPs a weight in forward and 2 for the input gradient (of the mean layer,
 * where they differ); attention 4 E H per visible key in forward, 10 with its recomputed
 * scores in backward. */
ist_decoder_flops ist_decoder_count_flops(const ist_model_config *c, double context) {
  ist_linear_sizes s;
  ist_model_linear_sizes(c, &s);
  double linears = 0, attention = (double)(c->H * c->E) * context;
  double mixtures = 1.0 - (double)ist_model_dense_layers(c) / (double)c->L;
  for (int m = 0; m < IST_MOD_COUNT; m++) {
    bool mlp = m > IST_MOD_O && m != IST_MOD_QKV;
    double part = !mlp || !c->experts ? 1.0 : m < IST_MOD_SHARED_GATE ? 1.0 - mixtures : mixtures;
    double times = m >= IST_MOD_EXPERTS ? (double)c->experts_used : 1.0;
    linears += 2.0 * part * times * (double)s.in[m] * (double)s.out[m];
  }
  linears += 2.0 * mixtures * (double)(c->D * c->experts); /* the router */
  double width = (double)ist_embed_width(c);
  double head = 2.0 * width * ((double)c->V + (c->embed_dim ? (double)c->D : 0.0));
  return (ist_decoder_flops){linears + 4.0 * attention, linears + 10.0 * attention, head, head};
}
