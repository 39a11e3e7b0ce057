/* The slots of the reference backend in one type: views to the kernels of src/ops.
 * Compiled twice, for float and (names with _f64) for double. */
#include <math.h>
#include <string.h>

#include "backend/reference/reference.h"
#include "base/parallel.h"
#include "ops/ops.h"

#ifdef IST_REAL_DOUBLE
#define ist_reference_slots ist_reference_slots_f64
#define REAL_DTYPE          IST_F64
#else
#define REAL_DTYPE IST_F32
#endif

/* The elements of a view, NULL for an absent one. */
static real *elements(ist_view v) {
  IST_ASSERT(v.p == NULL || v.dt == REAL_DTYPE);
  return v.p;
}

static real *row_of(ist_view v, int64_t row) {
  real *p = elements(v);
  return p != NULL ? p + row * v.stride : NULL;
}

/* ---- Matrix products -------------------------------------------------------- */

typedef struct matmul_args {
  ist_view c, a, b;
  bool ta, tb;
  int64_t k;
  int beta;
} matmul_args;

static void matmul_rows(void *arg, int64_t begin, int64_t end, int thread) {
  (void)thread;
  const matmul_args *m = arg;
  const real *a = elements(m->a) + (m->ta ? begin : begin * m->a.stride);
  ist_matmul(row_of(m->c, begin), m->c.stride, a, m->a.stride, m->ta, elements(m->b), m->b.stride,
             m->tb, end - begin, m->c.cols, m->k, m->beta);
}

static void matmul(ist_ctx *ctx, ist_view c, ist_view a, bool ta, ist_view b, bool tb, int beta) {
  (void)ctx;
  int64_t k = ta ? a.rows : a.cols;
  IST_ASSERT((ta ? a.cols : a.rows) == c.rows && (tb ? b.rows : b.cols) == c.cols);
  IST_ASSERT((tb ? b.cols : b.rows) == k && (beta == 0 || beta == 1));
  matmul_args m = {c, a, b, ta, tb, k, beta};
  /* Enough rows a chunk for the thread's start to be worth it. */
  int64_t grain = (1 << 18) / (c.cols * k + 1) + 1;
  ist_parallel_for(c.rows, grain, matmul_rows, &m);
}

/* ---- Decoder pieces ---------------------------------------------------------- */

static void norm_fwd(ist_ctx *ctx, ist_view h, ist_view stat, ist_view x, ist_view w, ist_view bias,
                     ist_norm_kind kind, double eps) {
  (void)ctx;
  IST_ASSERT(h.rows == x.rows && h.cols == x.cols && stat.cols >= ist_norm_stats(kind));
  ist_norm_fwd(elements(h), h.stride, elements(stat), stat.stride, elements(x), x.stride,
               elements(w), elements(bias), x.rows, x.cols, kind, eps);
}

static void norm_bwd(ist_ctx *ctx, ist_view dx, bool acc, ist_view dw, ist_view dbias, ist_view dh,
                     ist_view x, ist_view w, ist_view stat, ist_norm_kind kind) {
  (void)ctx;
  IST_ASSERT(dh.rows == x.rows && dh.cols == x.cols);
  ist_norm_bwd(elements(dx), dx.stride, acc, elements(dw), elements(dbias), elements(dh), dh.stride,
               elements(x), x.stride, elements(w), elements(stat), stat.stride, x.rows, x.cols,
               kind);
}

static void rope(ist_ctx *ctx, ist_view x, const int32_t *position, const float *freq, int64_t rot,
                 int64_t E, bool interleaved, double mscale, bool inverse) {
  (void)ctx;
  IST_ASSERT(x.cols % E == 0 && rot % 2 == 0 && rot <= E);
  ist_op_rope r = {freq, rot, E, interleaved, mscale};
  ist_rope_apply(elements(x), x.stride, position, x.rows, x.cols / E, &r, inverse);
}

static void act_fwd(ist_ctx *ctx, ist_view y, ist_view g, ist_view u, ist_act_kind kind) {
  (void)ctx;
  for (int64_t i = 0; i < y.rows; i++) {
    ist_act_fwd(row_of(y, i), row_of(g, i), row_of(u, i), y.cols, kind);
  }
}

static void act_bwd(ist_ctx *ctx, ist_view dg, ist_view du, ist_view y, ist_view dy, ist_view g,
                    ist_view u, ist_act_kind kind) {
  (void)ctx;
  for (int64_t i = 0; i < g.rows; i++) {
    ist_act_bwd(row_of(dg, i), row_of(du, i), row_of(y, i), row_of(dy, i), row_of(g, i),
                row_of(u, i), g.cols, kind);
  }
}

/* ---- Attention ----------------------------------------------------------------- */

typedef struct attention_args {
  ist_view dq, dout, o, lse, q;
  const ist_attn *a;
} attention_args;

static ist_op_attn op_attn(const ist_attn *a) {
  return (ist_op_attn){a->H, a->K, a->E, a->scale, a->softcap, a->window, a->alibi};
}

/* A span's rows as the kernel wants them. */
static ist_op_keys op_keys(const ist_attn *a, const ist_kv_span *s) {
  IST_ASSERT(s->store >= 0 && s->store < a->n_kv);
  const ist_kv *kv = &a->kv[s->store];
  IST_ASSERT(s->row0 >= 0 && s->row0 + s->n <= kv->k.rows && kv->k.cols == a->K * a->E);
  return (ist_op_keys){row_of(kv->k, s->row0),
                       row_of(kv->v, s->row0),
                       row_of(kv->dk, s->row0),
                       row_of(kv->dv, s->row0),
                       kv->k.stride,
                       kv->v.stride,
                       kv->dk.stride,
                       kv->dv.stride,
                       s->n,
                       s->pos0,
                       s->causal,
                       s->logit_add};
}

static int seg_keys(ist_op_keys keys[2], const ist_attn *a, const ist_attn_seg *seg) {
  for (int i = 0; i < seg->n_spans; i++) keys[i] = op_keys(a, &seg->span[i]);
  return seg->n_spans;
}

/* Key/value heads share nothing, not even gradients: they are the unit of work. */
static void attention_fwd_heads(void *arg, int64_t kv0, int64_t kv1, int thread) {
  (void)thread;
  const attention_args *t = arg;
  const ist_op_attn a = op_attn(t->a);
  for (int64_t i = 0; i < t->a->n_seg; i++) {
    const ist_attn_seg *seg = &t->a->seg[i];
    ist_op_keys keys[2];
    int n = seg_keys(keys, t->a, seg);
    ist_attention_seg_fwd(row_of(t->o, seg->q0), t->o.stride, row_of(t->lse, seg->q0),
                          t->lse.stride, row_of(t->q, seg->q0), t->q.stride, seg->nq, seg->pos0,
                          keys, n, &a, kv0, kv1);
  }
}

static void attention_fwd(ist_ctx *ctx, ist_view o, ist_view lse, ist_view q, const ist_attn *a) {
  (void)ctx;
  IST_ASSERT(q.cols == a->H * a->E && o.cols == q.cols && lse.cols == a->H);
  attention_args t = {.o = o, .lse = lse, .q = q, .a = a};
  ist_parallel_for(a->K, 1, attention_fwd_heads, &t);
}

static void clear_head(real *d, int64_t ld, int64_t rows, int64_t kv, int64_t E) {
  for (int64_t r = 0; d != NULL && r < rows; r++) {
    for (int64_t e = 0; e < E; e++) d[r * ld + kv * E + e] = 0;
  }
}

static void attention_bwd_heads(void *arg, int64_t kv0, int64_t kv1, int thread) {
  (void)thread;
  const attention_args *t = arg;
  const ist_op_attn a = op_attn(t->a);
  for (int64_t i = 0; i < t->a->n_seg; i++) {
    const ist_attn_seg *seg = &t->a->seg[i];
    ist_op_keys keys[2];
    int n = seg_keys(keys, t->a, seg);
    for (int s = 0; s < n; s++) {
      for (int64_t kv = kv0; !seg->span[s].shared && kv < kv1; kv++) {
        clear_head(keys[s].dk, keys[s].lddk, keys[s].n, kv, a.E);
        clear_head(keys[s].dv, keys[s].lddv, keys[s].n, kv, a.E);
      }
    }
    ist_attention_seg_bwd(row_of(t->dq, seg->q0), t->dq.stride, row_of(t->dout, seg->q0),
                          t->dout.stride, row_of(t->o, seg->q0), t->o.stride,
                          row_of(t->lse, seg->q0), t->lse.stride, row_of(t->q, seg->q0),
                          t->q.stride, seg->nq, seg->pos0, keys, n, &a, kv0, kv1);
  }
}

static void attention_bwd(ist_ctx *ctx, ist_view dq, ist_view dout, ist_view o, ist_view lse,
                          ist_view q, const ist_attn *a) {
  (void)ctx;
  IST_ASSERT(q.cols == a->H * a->E && dout.cols == q.cols && lse.cols == a->H);
  attention_args t = {dq, dout, o, lse, q, a};
  ist_parallel_for(a->K, 1, attention_bwd_heads, &t);
}

/* ---- Dropout ------------------------------------------------------------------- */

static ist_op_dropout op_dropout(const ist_dropout *d) {
  return (ist_op_dropout){
      ist_dropout_threshold(d->p), d->key, d->step, d->layer_site, d->sample, d->position};
}

static void dropout(ist_ctx *ctx, ist_view y, ist_view x, const ist_dropout *d) {
  (void)ctx;
  ist_op_dropout op = op_dropout(d);
  ist_dropout_fwd(elements(y), y.stride, elements(x), x.stride, x.rows, x.cols, &op);
}

static void dropout_bwd_acc(ist_ctx *ctx, ist_view dx, ist_view dy, const ist_dropout *d) {
  (void)ctx;
  ist_op_dropout op = op_dropout(d);
  ist_dropout_bwd_acc(elements(dx), dx.stride, elements(dy), dy.stride, dy.rows, dy.cols, &op);
}

/* ---- Loss ------------------------------------------------------------------------ */

/* `run` and `tgt` may be F32 or F64 whatever the logits are. */
static double get(ist_view v, int64_t row, int64_t col) {
  int64_t at = row * v.stride + col;
  return v.dt == IST_F64 ? ((const double *)v.p)[at] : (double)((const float *)v.p)[at];
}

static void set(ist_view v, int64_t row, int64_t col, double value) {
  int64_t at = row * v.stride + col;
  IST_ASSERT(v.dt == IST_F64 || v.dt == IST_F32);
  if (v.dt == IST_F64) {
    ((double *)v.p)[at] = value;
  } else {
    ((float *)v.p)[at] = (float)value;
  }
}

static void xent_tile(ist_ctx *ctx, ist_view run, ist_view tgt, ist_view logits,
                      const int32_t *target, int64_t col0, double softcap, bool first) {
  (void)ctx;
  for (int64_t i = 0; i < logits.rows; i++) {
    bool supervised = target[i] >= 0;
    if (!supervised && !first) continue;
    double max = supervised ? -INFINITY : 0.0, sum = supervised ? 0.0 : 1.0, target_logit = 0.0;
    if (!first) {
      max = get(run, i, 0);
      sum = get(run, i, 1);
      target_logit = get(tgt, i, 0);
    }
    if (supervised) {
      ist_xent_tile_row(&max, &sum, &target_logit, row_of(logits, i), logits.cols, target[i] - col0,
                        softcap);
    }
    set(run, i, 0, max);
    set(run, i, 1, sum);
    set(tgt, i, 0, target_logit);
  }
}

/* A piece at a time, so that BF16 may narrow in the memory of the logits: what is
 * written never lies behind what is still to be read. */
static void xent_grad(ist_ctx *ctx, ist_view dlogits, ist_view logits, ist_view run,
                      const int32_t *target, int64_t col0, double softcap, double weight) {
  enum { PIECE = 256 };
  real d[PIECE];
  for (int64_t i = 0; i < logits.rows; i++) {
    for (int64_t at = 0; at < logits.cols; at += PIECE) {
      int64_t n = logits.cols - at < PIECE ? logits.cols - at : PIECE;
      if (target[i] >= 0) {
        ist_xent_grad_row(d, row_of(logits, i) + at, n, get(run, i, 0), get(run, i, 1),
                          target[i] - col0 - at, softcap, weight);
      } else {
        for (int64_t j = 0; j < n; j++) d[j] = 0;
      }
      ist_view to = ist_view_cols(ist_view_rows(dlogits, i, 1), at, n);
      ist_reference_copy(ctx, to, ist_view_make(d, REAL_DTYPE, 1, n, n));
    }
  }
}

static void xent_loss(ist_ctx *ctx, double *row_loss, ist_view run, ist_view tgt) {
  (void)ctx;
  for (int64_t i = 0; i < run.rows; i++) {
    row_loss[i] = get(run, i, 0) + log(get(run, i, 1)) - get(tgt, i, 0);
  }
}

/* ---- Optimizer --------------------------------------------------------------------- */

static double sumsq(ist_ctx *ctx, ist_view g) {
  (void)ctx;
  if (g.stride == g.cols) return ist_sumsq(elements(g), g.rows * g.cols);
  double total = 0.0;
  for (int64_t i = 0; i < g.rows; i++) total += ist_sumsq(row_of(g, i), g.cols);
  return total;
}

static void adamw(ist_ctx *ctx, ist_view w, ist_view g, ist_view m, ist_view v,
                  const ist_adamw *o) {
  (void)ctx;
  for (int64_t i = 0; i < w.rows; i++) {
    ist_adamw_step(row_of(w, i), row_of(g, i), row_of(m, i), row_of(v, i), w.cols, o);
  }
}

static const ist_backend slots = {
    .dropout = dropout,
    .dropout_bwd_acc = dropout_bwd_acc,
    .matmul = matmul,
    .norm_fwd = norm_fwd,
    .norm_bwd = norm_bwd,
    .rope = rope,
    .attention_fwd = attention_fwd,
    .attention_bwd = attention_bwd,
    .act_fwd = act_fwd,
    .act_bwd = act_bwd,
    .xent_tile = xent_tile,
    .xent_grad = xent_grad,
    .xent_loss = xent_loss,
    .sumsq = sumsq,
    .adamw = adamw,
};

const ist_backend *ist_reference_slots(void) {
  return &slots;
}
