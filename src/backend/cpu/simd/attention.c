/* Attention, blockwise: scores of a block of queries against a block of keys at a
 * time, softmax kept as a running maximum and sum (Dao et al., 2022), so that the
 * memory does not grow with the length. All query heads of a key/value head are
 * done together: they share the packed keys and values, and own dk and dv.
 *
 * Blocks are copied to rows padded to EP columns, and packed in groups of NR columns for
 * the tile kernel (dot.h), in its units: floats, or where the CPU multiplies them and the
 * queries and keys are BF16, pairs of BF16 along the sum (`dot`). Probabilities and score
 * gradients are then rounded to BF16 for the products that follow; the softmax, its sums
 * and all results of products are in float. */
#include "backend/cpu/simd/dot.h"
#include "backend/cpu/simd/table.h"
#include "backend/cpu/simd/vmath.h"

#define BQ IST_ATTENTION_QUERIES
#define BK IST_ATTENTION_KEYS

/* Scratch of one thread, and what is fixed during an item. Rows of units: EPU of them. */
typedef struct work {
  const ist_attn *a;
  bool dot;
  int64_t E, EP, EPU, heads; /* heads: query heads of this key/value head */
  float *o, *dq;             /* (heads, BQ, EP) */
  float *s, *ds, *ck, *cv;   /* (BQ, BK) twice, (BK, EP) twice */
  uint32_t *q, *dout;        /* (heads, BQ, EPU) */
  uint32_t *k, *v;           /* (BK, EPU) */
  uint32_t *kt, *vt, *kp, *pack;
  uint32_t *along, *across; /* s or ds as units of keys and of queries */
  float *max, *sum, *delta; /* (heads, BQ) */
} work;

static work open_work(const ist_attention_args *g, int thread, bool dot) {
  work w = {.a = g->a, .dot = dot, .E = g->a->E, .heads = g->a->H / g->a->K};
  w.EP = (w.E + NR - 1) / NR * NR;
  w.EPU = units(w.EP, dot);
  float *p = (float *)(void *)(g->scratch + g->scratch_bytes * thread);
  int64_t rows = w.heads * BQ, block = BK * w.EP, wide = BK * (w.EP > BK ? w.EP : BK);
  w.q = (uint32_t *)p, p += rows * w.EP;
  w.o = p, p += rows * w.EP;
  w.dout = (uint32_t *)p, p += rows * w.EP;
  w.dq = p, p += rows * w.EP;
  w.s = p, p += BQ * BK;
  w.ds = p, p += BQ * BK;
  w.k = (uint32_t *)p, p += block;
  w.v = (uint32_t *)p, p += block;
  w.kt = (uint32_t *)p, p += wide;
  w.vt = (uint32_t *)p, p += wide;
  w.kp = (uint32_t *)p, p += wide;
  w.pack = (uint32_t *)p, p += wide;
  w.ck = p, p += block;
  w.cv = p, p += block;
  w.along = (uint32_t *)p, p += BQ * BK / 2;
  w.across = (uint32_t *)p, p += BQ * BK / 2;
  w.max = p, p += rows;
  w.sum = p, p += rows;
  w.delta = p;
  return w;
}

int64_t SIMD(attention_scratch)(int64_t heads, int64_t E) {
  int64_t EP = (E + NR - 1) / NR * NR, rows = heads * BQ, wide = BK * (EP > BK ? EP : BK);
  return 4 * (4 * rows * EP + 3 * BQ * BK + 4 * BK * EP + 4 * wide + 3 * rows);
}

/* ---- Blocks ------------------------------------------------------------------------ */

static const void *element(ist_view v, int64_t row, int64_t col) {
  int64_t i = row * v.stride + col;
  return v.dt == IST_BF16 ? (const void *)((const ist_bf16 *)v.p + i)
                          : (const void *)((const float *)v.p + i);
}

/* n rows of E columns from a view as rows of units; rows up to `rows` are zero. */
static void load_block(const work *w, uint32_t *dst, ist_view v, int64_t row, int64_t col,
                       int64_t n, int64_t rows) {
  for (int64_t r = 0; r < n; r++, dst += w->EPU) {
    const void *src = element(v, row + r, col);
    for (int64_t u = 0; u < w->EPU; u += VL)
      *(vu_mem *)(dst + u) = load_units(src, v.dt == IST_BF16, u, w->E, w->dot);
  }
  memset(dst, 0, (size_t)((rows - n) * w->EPU) * sizeof *dst);
}

static void store_row(const work *w, ist_view v, int64_t row, int64_t col, const float *src,
                      float scale) {
  void *dst = (void *)(uintptr_t)element(v, row, col);
  for (int64_t i = 0; i < w->E; i += VL)
    row_store(dst, v.dt == IST_BF16, i, w->E, vf_load(src + i) * scale);
}

/* n rows of units along the columns -> groups of NR columns, units along the rows. */
static void pack_rows(const work *w, uint32_t *dst, const uint32_t *src, int64_t n) {
  int64_t step = w->dot ? 2 : 1;
  for (int64_t g = 0; g < w->EP; g += NR) {
    for (int64_t r = 0; r < n; r += step, dst += NR) {
      const uint32_t *first = src + r * w->EPU, *second = r + 1 < n ? first + w->EPU : NULL;
      for (int64_t half = 0; half < NR; half += VL)
        *(vu_mem *)(dst + half) = load_across(first, second, w->dot, g + half, w->EP, w->dot);
    }
  }
}

/* BK rows of units -> their transpose in groups of NR keys. */
static void pack_transposed(const work *w, uint32_t *dst, const uint32_t *src) {
  for (int64_t g = 0; g < BK; g += NR) {
    for (int64_t half = 0; half < NR; half += VL) {
      for (int64_t e = 0; e < w->EPU; e += VL) {
        vu r[VL];
        for (int64_t i = 0; i < VL; i++)
          r[i] = *(const vu_mem *)(src + (g + half + i) * w->EPU + e);
        transpose(r);
        for (int64_t i = 0; i < VL; i++)
          *(vu_mem *)(dst + (g * w->EPU) + (e + i) * NR + half) = r[i];
      }
    }
  }
}

/* An operand whose units are broadcast: strides in units. */
typedef struct broadcasts {
  const void *p;
  int64_t row, step;
} broadcasts;

/* c (rows, cols) [+]= a b, b packed, n units inner. */
static void product(const work *w, float *c, int64_t ldc, broadcasts a, const uint32_t *b,
                    int64_t n, int64_t rows, int64_t cols, bool add) {
  for (int64_t g = 0; g < cols; g += NR, b += n * NR) {
    for (int64_t i = 0; i < rows;) {
      int h = tile_rows(rows - i);
      SIMD(tile)
      (c + i * ldc + g, ldc, (const uint32_t *)a.p + i * a.row, a.row * 4, a.step * 4, b, n, add, h,
       2, w->dot);
      i += h;
    }
  }
}

static broadcasts rows_of(const work *w, const uint32_t *block) {
  return (broadcasts){block, w->EPU, 1};
}

/* Scores or their gradients (n, BK) as rows of keys. */
static broadcasts keys_of(const work *w, const float *s, int64_t n) {
  if (!w->dot) return (broadcasts){s, BK, 1};
  for (int64_t i = 0; i < n; i++) {
    for (int64_t u = 0; u < BK / 2; u += VL)
      *(vu_mem *)(w->along + i * BK / 2 + u) = load_units(s + i * BK, false, u, BK, true);
  }
  return (broadcasts){w->along, BK / 2, 1};
}

/* The same, transposed: rows of queries. */
static broadcasts queries_of(const work *w, const float *s, int64_t n) {
  if (!w->dot) return (broadcasts){s, 1, BK};
  for (int64_t i = 0; i < n; i += 2) {
    const float *first = s + i * BK, *second = i + 1 < n ? first + BK : NULL;
    for (int64_t j = 0; j < BK; j += VL)
      *(vu_mem *)(w->across + i / 2 * BK + j) = load_across(first, second, false, j, BK, true);
  }
  return (broadcasts){w->across, 1, BK};
}

/* Keys of a block rounded up to what the tile kernel computes. */
static int64_t key_columns(int64_t n) {
  return (n + NR - 1) / NR * NR;
}

/* ---- Scores -------------------------------------------------------------------------- */

/* A block of keys: rows [row, row + n) of a store, the first at position pos. */
typedef struct keys {
  const ist_kv_span *span;
  const ist_kv *kv;
  int64_t row, n, pos;
} keys;

/* Keys [*lo, *hi) of the block that a query at position `pos` sees. */
static void visible(const work *w, const keys *k, int64_t pos, int64_t *lo, int64_t *hi) {
  *lo = 0;
  *hi = k->n;
  if (!k->span->causal) return;
  if (pos - k->pos + 1 < *hi) *hi = pos - k->pos + 1;
  if (w->a->window > 0 && pos - w->a->window + 1 - k->pos > 0)
    *lo = pos - w->a->window + 1 - k->pos;
  if (*hi < *lo) *hi = *lo;
}

/* Raw products of a row -> logits of its visible keys; the others stay as they are. */
static void finish_logits(const work *w, const keys *k, float *s, int64_t head, int64_t lo,
                          int64_t hi) {
  float scale = (float)w->a->scale, cap = (float)w->a->softcap, add = (float)k->span->logit_add;
  float slope = w->a->alibi ? w->a->alibi[head] : 0.0f;
  for (int64_t j = lo; j < hi; j++) s[j] *= scale;
  if (cap != 0.0f) {
    for (int64_t j = lo; j < hi; j++) s[j] = cap * tanhf(s[j] / cap);
  }
  if (slope != 0.0f) {
    for (int64_t j = lo; j < hi; j++) s[j] += slope * (float)(k->pos + j);
  }
  if (add != 0.0f) {
    for (int64_t j = lo; j < hi; j++) s[j] += add;
  }
}

/* Lanes of [j, j + VL) that lie in [lo, hi). */
INLINE vi between(int64_t j, int64_t lo, int64_t hi) {
  vi index;
  for (int i = 0; i < VL; i++) index[i] = i;
  return (index >= (int32_t)(lo - j)) & (index < (int32_t)(hi - j));
}

/* p = exp(s - shift) on [lo, hi) and 0 elsewhere in the block; returns the sum. */
static float exponentials(float *s, float shift, int64_t lo, int64_t hi) {
  vf sum = {0};
  for (int64_t j = 0; j < BK; j += VL) {
    if (j >= hi || j + VL <= lo) {
      vf_store(s + j, (vf){0});
      continue;
    }
    vf x = vf_select(between(j, lo, hi), vf_exp(vf_load(s + j) - shift), (vf){0});
    vf_store(s + j, x);
    sum += x;
  }
  return vf_sum(sum);
}

static float row_max(const float *s, int64_t lo, int64_t hi) {
  vf most = vf_set(-INFINITY);
  for (int64_t j = lo / VL * VL; j < hi; j += VL)
    most = vf_max(most, vf_select(between(j, lo, hi), vf_load(s + j), vf_set(-INFINITY)));
  return vf_max_lane(most);
}

static void scale_row(float *row, float factor, int64_t n) {
  for (int64_t i = 0; i < n; i += VL) vf_store(row + i, vf_load(row + i) * factor);
}

/* ---- Forward: items are (segment, block of queries, key/value head) ------------------- */

/* One block of keys against the queries of one head. */
static void forward_block(const work *w, const keys *k, int64_t head, int64_t in_group, int64_t nq,
                          int64_t pos0) {
  float *s = w->s, *o = w->o + in_group * BQ * w->EP;
  product(w, s, BK, rows_of(w, w->q + in_group * BQ * w->EPU), w->kt, w->EPU, nq, key_columns(k->n),
          false);
  for (int64_t i = 0; i < nq; i++) {
    int64_t lo, hi;
    float *row = s + i * BK, *max = &w->max[in_group * BQ + i], *sum = &w->sum[in_group * BQ + i];
    visible(w, k, pos0 + i, &lo, &hi);
    finish_logits(w, k, row, head, lo, hi);
    float m = row_max(row, lo, hi), top = m > *max ? m : *max;
    if (hi == lo || top == -INFINITY) {
      memset(row, 0, BK * sizeof *row);
      continue;
    }
    float keep = *max == -INFINITY ? 0.0f : expf(*max - top);
    float added = exponentials(row, top, lo, hi);
    if (keep != 1.0f) scale_row(o + i * w->EP, keep, w->EP);
    *sum = *sum * keep + added;
    *max = top;
  }
  product(w, o, w->EP, keys_of(w, s, nq), w->pack, units(k->n, w->dot), nq, w->EP, true);
}

/* Calls for every block of keys that queries [pos0, pos0 + nq) may see. */
typedef void (*block_fn)(const work *w, const keys *k, void *user);
static void each_block(const work *w, const ist_attn_seg *seg, int64_t pos0, int64_t nq,
                       block_fn fn, void *user) {
  for (int32_t sp = 0; sp < seg->n_spans; sp++) {
    const ist_kv_span *span = &seg->span[sp];
    if (span->logit_add == -INFINITY) continue;
    for (int64_t j = 0; j < span->n; j += BK) {
      keys k = {span, &w->a->kv[span->store], span->row0 + j, span->n - j < BK ? span->n - j : BK,
                span->pos0 + j};
      if (span->causal && k.pos > pos0 + nq - 1) break;
      if (span->causal && w->a->window > 0 && k.pos + k.n - 1 <= pos0 - w->a->window) continue;
      fn(w, &k, user);
    }
  }
}

typedef struct forward {
  int64_t kh, nq, pos0;
} forward;

static void forward_keys(const work *w, const keys *k, void *user) {
  const forward *f = user;
  load_block(w, w->k, k->kv->k, k->row, f->kh * w->E, k->n, BK);
  load_block(w, w->v, k->kv->v, k->row, f->kh * w->E, k->n, BK);
  pack_transposed(w, w->kt, w->k);
  pack_rows(w, w->pack, w->v, k->n);
  for (int64_t h = 0; h < w->heads; h++)
    forward_block(w, k, f->kh * w->heads + h, h, f->nq, f->pos0);
}

/* The segment and block of queries of an item. */
static const ist_attn_seg *find_queries(const ist_attn *a, int64_t item, int64_t *first) {
  const ist_attn_seg *seg = a->seg;
  for (; item >= (seg->nq + BQ - 1) / BQ; seg++) item -= (seg->nq + BQ - 1) / BQ;
  *first = item * BQ;
  return seg;
}

static bool takes_pairs(const ist_attention_args *g) {
  return BF16_DOT && g->q.dt == IST_BF16 && g->a->kv[0].k.dt == IST_BF16;
}

void SIMD(attention_fwd)(void *arg, int64_t begin, int64_t end, int thread) {
  const ist_attention_args *g = arg;
  work w = open_work(g, thread, takes_pairs(g));
  for (int64_t item = begin; item < end; item++) {
    int64_t first;
    const ist_attn_seg *seg = find_queries(g->a, item / g->a->K, &first);
    forward f = {item % g->a->K, seg->nq - first < BQ ? seg->nq - first : BQ, seg->pos0 + first};
    for (int64_t h = 0; h < w.heads; h++) {
      load_block(&w, w.q + h * BQ * w.EPU, g->q, seg->q0 + first, (f.kh * w.heads + h) * w.E, f.nq,
                 BQ);
    }
    memset(w.o, 0, (size_t)(w.heads * BQ * w.EP) * sizeof *w.o);
    for (int64_t i = 0; i < w.heads * BQ; i++) {
      w.max[i] = -INFINITY;
      w.sum[i] = 0.0f;
    }
    each_block(&w, seg, f.pos0, f.nq, forward_keys, &f);
    for (int64_t h = 0; h < w.heads; h++) {
      int64_t head = f.kh * w.heads + h;
      for (int64_t i = 0; i < f.nq; i++) {
        float sum = w.sum[h * BQ + i];
        int64_t row = seg->q0 + first + i;
        store_row(&w, g->o, row, head * w.E, w.o + (h * BQ + i) * w.EP, sum > 0 ? 1.0f / sum : sum);
        ((float *)g->lse.p)[row * g->lse.stride + head] =
            sum == 0.0f ? -INFINITY : w.max[h * BQ + i] + logf(sum);
      }
    }
  }
}

/* ---- Forward of one query: items are (segment, query head) ----------------------------- */

typedef struct one {
  int64_t kh, head, pos;
  float max, sum;
} one;

/* s[j] = q . key j of the block for j in [lo, hi), four keys at a time. */
static void scores_of_one(const work *w, const keys *k, int64_t col, int64_t lo, int64_t hi) {
  bool bf16 = k->kv->k.dt == IST_BF16;
  for (int64_t j = lo; j < hi; j += 4) {
    vf sum[4] = {0};
    const void *row[4];
    for (int i = 0; i < 4; i++)
      row[i] = element(k->kv->k, k->row + (j + i < hi ? j + i : hi - 1), col);
    for (int64_t e = 0; e < w->E; e += VL) {
      vf q = (vf) * (const vu_mem *)(w->q + e);
      UNROLL for (int i = 0; i < 4; i++) sum[i] += q * row_load(row[i], bf16, e, w->E);
    }
    for (int64_t i = 0; i < 4 && j + i < hi; i++) w->s[j + i] = vf_sum(sum[i]);
  }
}

/* The query against a block of keys. */
static void one_block(const work *w, const keys *k, void *user) {
  one *f = user;
  int64_t lo, hi, col = f->kh * w->E;
  visible(w, k, f->pos, &lo, &hi);
  if (hi == lo) return;
  scores_of_one(w, k, col, lo, hi);
  finish_logits(w, k, w->s, f->head, lo, hi);
  float m = row_max(w->s, lo, hi), top = m > f->max ? m : f->max;
  if (top == -INFINITY) return;
  float keep = f->max == -INFINITY ? 0.0f : expf(f->max - top);
  f->sum = f->sum * keep + exponentials(w->s, top, lo, hi);
  f->max = top;
  bool bf16 = k->kv->v.dt == IST_BF16;
  for (int64_t e = 0; e < w->EP; e += VL) {
    vf o = vf_load(w->o + e) * keep, more = {0};
    if (e < w->E) {
      int64_t j = lo;
      for (; j + 2 <= hi; j += 2) {
        o += w->s[j] * row_load(element(k->kv->v, k->row + j, col), bf16, e, w->E);
        more += w->s[j + 1] * row_load(element(k->kv->v, k->row + j + 1, col), bf16, e, w->E);
      }
      if (j < hi) o += w->s[j] * row_load(element(k->kv->v, k->row + j, col), bf16, e, w->E);
    }
    vf_store(w->o + e, o + more);
  }
}

void SIMD(attention_one)(void *arg, int64_t begin, int64_t end, int thread) {
  const ist_attention_args *g = arg;
  work w = open_work(g, thread, false);
  for (int64_t item = begin; item < end; item++) {
    const ist_attn_seg *seg = &g->a->seg[item / g->a->H];
    one f = {.head = item % g->a->H, .pos = seg->pos0, .max = -INFINITY};
    f.kh = f.head / w.heads;
    load_block(&w, w.q, g->q, seg->q0, f.head * w.E, 1, 1);
    memset(w.o, 0, (size_t)w.EP * sizeof *w.o);
    each_block(&w, seg, f.pos, 1, one_block, &f);
    store_row(&w, g->o, seg->q0, f.head * w.E, w.o, f.sum > 0 ? 1.0f / f.sum : f.sum);
    ((float *)g->lse.p)[seg->q0 * g->lse.stride + f.head] =
        f.sum == 0.0f ? -INFINITY : f.max + logf(f.sum);
  }
}

/* ---- Backward: items are (segment, key/value head), or key/value heads alone where
 * segments share keys ------------------------------------------------------------------- */

typedef struct backward {
  const ist_attention_args *g;
  const ist_attn_seg *seg;
  int64_t kh, nq, first, pos0;
} backward;

/* From probabilities and dP to dS in place of dP, with the slope of the soft cap. */
static void score_gradients(const work *w, const keys *k, int64_t head, int64_t in_group,
                            int64_t nq, int64_t pos0, const float *lse, int64_t lse_stride) {
  float cap = (float)w->a->softcap, scale = (float)w->a->scale;
  for (int64_t i = 0; i < nq; i++) {
    float *s = w->s + i * BK, *ds = w->ds + i * BK, cap_slope[BK];
    int64_t lo, hi;
    float shift = lse[i * lse_stride], delta = w->delta[in_group * BQ + i];
    visible(w, k, pos0 + i, &lo, &hi);
    if (hi == lo || shift == -INFINITY) {
      memset(s, 0, BK * sizeof *s);
      memset(ds, 0, BK * sizeof *ds);
      continue;
    }
    if (cap != 0.0f) {
      for (int64_t j = lo; j < hi; j++) {
        float t = tanhf(s[j] * scale / cap);
        cap_slope[j] = 1.0f - t * t;
      }
    }
    finish_logits(w, k, s, head, lo, hi);
    exponentials(s, shift, lo, hi);
    for (int64_t j = 0; j < BK; j += VL)
      vf_store(ds + j, vf_load(s + j) * (vf_load(ds + j) - delta) * scale);
    if (cap != 0.0f) {
      for (int64_t j = lo; j < hi; j++) ds[j] *= cap_slope[j];
    }
  }
}

/* Adds a block of gradients to the float rows of dk or dv. */
static void add_block(const work *w, ist_view v, const float *block, int64_t row, int64_t col,
                      int64_t n) {
  for (int64_t r = 0; r < n; r++) {
    float *dst = (float *)v.p + (row + r) * v.stride + col;
    const float *src = block + r * w->EP;
    for (int64_t i = 0; i < w->E; i++) dst[i] += src[i];
  }
}

static void backward_keys(const work *w, const keys *k, void *user) {
  const backward *b = user;
  const ist_attention_args *g = b->g;
  int64_t EP = w->EP, EPU = w->EPU, col = b->kh * w->E, nq = b->nq, cols = key_columns(k->n);
  int64_t n_keys = units(k->n, w->dot), n_queries = units(nq, w->dot);
  load_block(w, w->k, k->kv->k, k->row, col, k->n, BK);
  load_block(w, w->v, k->kv->v, k->row, col, k->n, BK);
  pack_transposed(w, w->kt, w->k);
  pack_transposed(w, w->vt, w->v);
  pack_rows(w, w->kp, w->k, k->n);
  for (int64_t h = 0; h < w->heads; h++) {
    int64_t head = b->kh * w->heads + h;
    const uint32_t *q = w->q + h * BQ * EPU, *dout = w->dout + h * BQ * EPU;
    product(w, w->s, BK, rows_of(w, q), w->kt, EPU, nq, cols, false);     /* S = Q K^T */
    product(w, w->ds, BK, rows_of(w, dout), w->vt, EPU, nq, cols, false); /* dP = dO V^T */
    score_gradients(w, k, head, h, nq, b->pos0,
                    (const float *)g->lse.p + (b->seg->q0 + b->first) * g->lse.stride + head,
                    g->lse.stride);
    if (k->kv->dv.p) { /* dV += P^T dO */
      pack_rows(w, w->pack, dout, nq);
      product(w, w->cv, EP, queries_of(w, w->s, nq), w->pack, n_queries, k->n, EP, h > 0);
    }
    if (k->kv->dk.p) { /* dK += dS^T Q */
      pack_rows(w, w->pack, q, nq);
      product(w, w->ck, EP, queries_of(w, w->ds, nq), w->pack, n_queries, k->n, EP, h > 0);
    }
    product(w, w->dq + h * BQ * EP, EP, keys_of(w, w->ds, nq), w->kp, n_keys, nq, EP,
            true); /* dQ += dS K */
  }
  if (k->kv->dv.p) add_block(w, k->kv->dv, w->cv, k->row, col, k->n);
  if (k->kv->dk.p) add_block(w, k->kv->dk, w->ck, k->row, col, k->n);
}

static void zero_rows(ist_view v, int64_t row, int64_t n, int64_t col, int64_t E) {
  for (int64_t r = 0; v.p && r < n; r++)
    memset((float *)v.p + (row + r) * v.stride + col, 0, (size_t)E * sizeof(float));
}

static void backward_segment(work *w, const ist_attention_args *g, const ist_attn_seg *seg,
                             int64_t kh) {
  int64_t E = w->E, EP = w->EP;
  for (int32_t sp = 0; sp < seg->n_spans; sp++) {
    const ist_kv_span *span = &seg->span[sp];
    if (span->shared) continue;
    zero_rows(g->a->kv[span->store].dk, span->row0, span->n, kh * E, E);
    zero_rows(g->a->kv[span->store].dv, span->row0, span->n, kh * E, E);
  }
  for (int64_t first = 0; first < seg->nq; first += BQ) {
    backward b = {
        g, seg, kh, seg->nq - first < BQ ? seg->nq - first : BQ, first, seg->pos0 + first};
    for (int64_t h = 0; h < w->heads; h++) {
      int64_t col = (kh * w->heads + h) * E, row = seg->q0 + first;
      load_block(w, w->q + h * BQ * w->EPU, g->q, row, col, b.nq, BQ);
      load_block(w, w->dout + h * BQ * w->EPU, g->dout, row, col, b.nq, BQ);
      for (int64_t i = 0; i < b.nq; i++) {
        const void *o = element(g->o, row + i, col), *dout = element(g->dout, row + i, col);
        vf sum = {0};
        for (int64_t e = 0; e < E; e += VL)
          sum += row_load(o, is_bf16(&g->o), e, E) * row_load(dout, is_bf16(&g->dout), e, E);
        w->delta[h * BQ + i] = vf_sum(sum);
      }
    }
    memset(w->dq, 0, (size_t)(w->heads * BQ * EP) * sizeof *w->dq);
    each_block(w, seg, b.pos0, b.nq, backward_keys, &b);
    for (int64_t h = 0; g->dq.p && h < w->heads; h++) {
      for (int64_t i = 0; i < b.nq; i++) {
        store_row(w, g->dq, seg->q0 + first + i, (kh * w->heads + h) * E, w->dq + (h * BQ + i) * EP,
                  1.0f);
      }
    }
  }
}

void SIMD(attention_bwd)(void *arg, int64_t begin, int64_t end, int thread) {
  const ist_attention_args *g = arg;
  work w = open_work(g, thread, takes_pairs(g));
  for (int64_t item = begin; item < end; item++) {
    if (!g->serial) {
      backward_segment(&w, g, &g->a->seg[item / g->a->K], item % g->a->K);
      continue;
    }
    for (int64_t s = 0; s < g->a->n_seg; s++) backward_segment(&w, g, &g->a->seg[s], item);
  }
}
