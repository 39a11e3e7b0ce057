/* The table of operations that the engine is written against.
 *
 * A backend fills the slots; an empty slot falls back to a composition of the
 * simpler ones or to the reference (ist_backend_complete). Views name memory of
 * the backend's place: nobody but the backend dereferences, allocates or copies
 * it. Dtypes: the reference backend computes in F32 or F64, the CPU backend in
 * F32 or BF16 activations with F32 accumulation.
 *
 * Rules that hold for every slot
 * - Outputs come first. Activation gradients overwrite unless `acc` says
 *   accumulate; parameter gradients accumulate; a view with p == NULL means
 *   "do not compute" (or "absent" for an optional input).
 * - Rows are tokens (or output channels of a weight), stride counts elements
 *   between rows, cols <= stride. Sizes are int64_t.
 * - No slot allocates: scratch comes from ctx->scratch, declared by the plan.
 * - Sums run in a fixed order, whatever the number of threads.
 *
 * Dtypes a call may mix. With compute type C (F32, F64 or BF16) and its wide type
 * W (F32; F64 for F64): activations and their gradients are C, except that W is
 * also possible for: dx, dh of norm_bwd (residual gradients), dk, dv, x of rope,
 * dx and du of linear_bwd, C of matmul, logits and dlogits, both sides of copy, add,
 * scale_rows, dropout and dropout_bwd_acc. stat, lse, run, tgt, norm weights,
 * biases, adapter parameters, their gradients and moments are always W.
 *
 * Letters: N tokens, V vocabulary, D model, F feed-forward, H query heads,
 * K key/value heads, E head size, R rank. */
#ifndef IST_BACKEND_BACKEND_H
#define IST_BACKEND_BACKEND_H

#include <stdbool.h>

#include "base/arena.h"
#include "base/dtype.h"
#include "base/rng.h"
#include "ops/kinds.h" /* ist_norm_kind, ist_act_kind, ist_adamw */

typedef struct ist_view {
  void *p;
  int64_t rows, cols, stride;
  ist_dtype dt;
  int place; /* 0: host memory; a device number otherwise */
} ist_view;

static inline ist_view ist_view_make(void *p, ist_dtype dt, int64_t rows, int64_t cols,
                                     int64_t stride) {
  return (ist_view){p, rows, cols, stride, dt, 0};
}
static inline ist_view ist_view_none(void) {
  return (ist_view){0};
}
/* Element i of a view without gaps, F64 or F32 in host memory: for parameters that are made,
 * read or written outside of any operation. */
static inline double ist_view_get(ist_view v, int64_t i) {
  return v.dt == IST_F64 ? ((const double *)v.p)[i] : (double)((const float *)v.p)[i];
}
static inline void ist_view_set(ist_view v, int64_t i, double value) {
  if (v.dt == IST_F64)
    ((double *)v.p)[i] = value;
  else
    ((float *)v.p)[i] = (float)value;
}
/* Rows [begin, begin + rows) and columns [col, col + cols) of a plain-typed view. */
ist_view ist_view_rows(ist_view v, int64_t begin, int64_t rows);
ist_view ist_view_cols(ist_view v, int64_t col, int64_t cols);

struct ist_backend;

/* What a slot runs with. One per engine; not shared between threads. */
typedef struct ist_ctx {
  const struct ist_backend *be;
  ist_arena *scratch;    /* stack discipline: a slot leaves `used` as it found it */
  void *backend_state;   /* e.g. the matrix-product primitives; owned by the backend */
  struct ist_prof *prof; /* NULL: no timing */
} ist_ctx;

/* ---- Arguments of the composite slots ----------------------------------- */

/* Keys and values that attention reads, (rows, K*E) each; dk and dv (same
 * shape, f32-class: F32 or F64) receive gradients in backward, p NULL: none. */
typedef struct ist_kv {
  ist_view k, v, dk, dv;
} ist_kv;

/* A run of rows of kv[store]. Key row row0 + j has position pos0 + j. A causal
 * span hides keys after the query's position and outside the window; a span
 * that is not causal is seen whole (prefix tuning). `shared`: several segments
 * read it, so its gradients accumulate. `logit_add` is added to its logits
 * (log of a suppression factor; -INFINITY removes the span exactly). */
typedef struct ist_kv_span {
  int32_t store;
  bool causal, shared;
  int64_t row0, n, pos0;
  double logit_add;
} ist_kv_span;

/* A segment: query rows [q0, q0 + nq), the first at position pos0. */
typedef struct ist_attn_seg {
  int64_t q0, nq, pos0;
  int32_t n_spans;
  ist_kv_span span[2];
} ist_attn_seg;

typedef struct ist_attn {
  int64_t H, K, E;
  double scale;       /* of q.k */
  double softcap;     /* c * tanh(s / c); 0: none */
  int64_t window;     /* 0 <= q - k < window; 0: none */
  const float *alibi; /* H slopes, score += slope * key position; NULL: none */
  int64_t n_seg;
  const ist_attn_seg *seg;
  int n_kv;
  const ist_kv *kv;
} ist_attn;

/* A linear of few rows over a matrix as its file stores it: y (N, out) = x (N, in) W^T +
 * bias + u B^T, N <= IST_STORED_ROWS. Row r of W lies at row r / group * period + r %
 * group from `w` on (group = out: one after another). bias (1, out) wide, u (N, R) and
 * B (out, R) are optional; B is of the wide or the compute type. */
#define IST_STORED_ROWS    16
#define IST_STORED_LINEARS 4
typedef struct ist_stored_linear {
  ist_view y, x, bias, u, b;
  const void *w;
  ist_dtype type;
  int64_t group, period;
} ist_stored_linear;

/* How: in the compute type's precision or better; or with x rounded to bytes, a scale
 * for every 32 of them, where the type has integer products (ist_stored_integers). */
typedef enum ist_stored_how { IST_STORED_FLOAT, IST_STORED_INT8 } ist_stored_how;
bool ist_stored_integers(ist_dtype type);

/* Dropout of one input site: element (row, col) is kept with probability
 * 1 - p and divided by it; mask from the counter in base/rng.h with
 * step, layer and site here and, per row, sample id and position. p == 0: copy. */
typedef struct ist_dropout {
  double p;
  ist_philox_key key;
  uint32_t step, layer_site;
  const int32_t *sample, *position; /* per row of the view, host memory */
} ist_dropout;
/* The threshold rule, part of the layout: 16-bit words, in the order
 * low/high halves of the 4 Philox words, one per channel of the block of 8;
 * dropped when word < floor(p * 65536 + 0.5). Kept values are multiplied by
 * 65536 / (65536 - threshold), so the mean is exact. */
uint32_t ist_dropout_threshold(double p);

/* ---- The table ------------------------------------------------------------ */

typedef struct ist_backend {
  const char *name;

  /* Creates ctx->backend_state; `threads` is what parallel_for will use. */
  ist_status (*open)(ist_ctx *ctx, ist_error *err);
  void (*close)(ist_ctx *ctx);

  /* -- movement -- */
  /* dst (rows, cols) = dequantised rows [row0, row0+dst.rows) of a stored tensor
   * with `cols` columns of type `src_type`, `src` its first byte (host map). */
  void (*dequant)(ist_ctx *, ist_view dst, const void *src, ist_dtype src_type, int64_t row0);
  /* dst row i = scale * dequantised row ids[i] (embedding lookup). */
  void (*gather_rows)(ist_ctx *, ist_view dst, const void *src, ist_dtype src_type,
                      const int32_t *ids, double scale);
  /* dst row ids[i] = src row i; other rows are left alone (ids distinct). */
  void (*scatter_rows)(ist_ctx *, ist_view dst, ist_view src, const int32_t *ids);
  /* dst row ids[i] += src row i, in the order of i; ids may repeat. dst is W. */
  void (*scatter_add_rows)(ist_ctx *, ist_view dst, ist_view src, const int32_t *ids);
  void (*zero)(ist_ctx *, ist_view dst);
  void (*copy)(ist_ctx *, ist_view dst, ist_view src);        /* converts dtype */
  void (*add)(ist_ctx *, ist_view y, ist_view a, ist_view b); /* y = a + b; y may be a */
  /* y(r, c) *= s * row_scale[r] (row_scale NULL: 1). */
  void (*scale_rows)(ist_ctx *, ist_view y, double s, const float *row_scale);
  void (*dropout)(ist_ctx *, ist_view y, ist_view x, const ist_dropout *d); /* y may be x */
  /* dx += mask(dy) as above. */
  void (*dropout_bwd_acc)(ist_ctx *, ist_view dx, ist_view dy, const ist_dropout *d);

  /* -- matrix products -- */
  /* C (m, n) = beta * C + op(A) op(B), op = transpose when the flag is set;
   * beta 0 or 1. Dtypes: all F32, all F64, or A, B BF16 with C BF16 or F32. */
  void (*matmul)(ist_ctx *, ist_view c, ist_view a, bool ta, ist_view b, bool tb, int beta);
  /* y (N, out) = x W^T + bias + u B^T: x (N, in), W (out, in), u (N, R), B (out, R).
   * bias (1, out), u and B are optional. Where u lies in memory right behind x's
   * columns and B behind W's (same stride), the backend may use one product. */
  void (*linear_fwd)(ist_ctx *, ist_view y, ist_view x, ist_view w, ist_view bias, ist_view u,
                     ist_view b);
  /* dx (N, in) [+]= dy W; du (N, R) = dy B. dx and du each optional. */
  void (*linear_bwd)(ist_ctx *, ist_view dx, bool acc, ist_view du, ist_view dy, ist_view w,
                     ist_view b);

  /* n <= IST_STORED_LINEARS linears over stored matrices, with as many rows each. */
  void (*linear_stored)(ist_ctx *, const ist_stored_linear *l, int n, ist_stored_how how);

  /* -- gains of a weight's rows (DoRA); any mixture of compute and wide types -- */
  /* dst(i) = sum over the columns of a(i, .) b(i, .); dst (1, rows of a). */
  void (*row_dot)(ist_ctx *, ist_view dst, ist_view a, ist_view b);
  /* gain (3, out): m / n, 1 / n and m / n - 1 with n^2 = norms(0) + 2 s norms(1) + s^2
   * norms(2); m (1, out), norms (3, out). Where norms(0) = m^2 and the others are 0, m / n
   * is 1. */
  void (*row_gain)(ist_ctx *, ist_view gain, ist_view m, ist_view norms, double s);
  /* y(r, c) = y(r, c) (1 + f_r (g(c) - 1)) + g(c) v(r, c) + bias(c), f_r = f * row_f[r]
   * (row_f NULL: f); bias optional. */
  void (*gain_mix)(ist_ctx *, ist_view y, ist_view v, ist_view g, ist_view bias, double f,
                   const float *row_f);
  /* y(r, c) = x(r, c) g(c); y may be x. */
  void (*mul_cols)(ist_ctx *, ist_view y, ist_view x, ist_view g);
  /* dst(c) += scale(c) * sum over the rows of a(., c) b(., c). */
  void (*col_dot)(ist_ctx *, ist_view dst, ist_view a, ist_view b, ist_view scale);

  /* -- vectors of adapters; likewise -- */
  /* y(r, c) += s * row_scale[r] * bias(c); bias (1, cols) (row_scale NULL: 1). */
  void (*add_bias)(ist_ctx *, ist_view y, ist_view bias, double s, const float *row_scale);
  /* dst(c) += s * sum over the rows of x(., c). */
  void (*col_sum)(ist_ctx *, ist_view dst, ist_view x, double s);
  /* dst(0) += sum of a(r, c) b(r, c); dst (1, 1). */
  void (*dot_acc)(ist_ctx *, ist_view dst, ist_view a, ist_view b);

  /* -- decoder pieces -- */
  /* h = norm(x) * w (+ bias); stat (N, 1 or 2) keeps 1/rms, or mean and 1/sd. */
  void (*norm_fwd)(ist_ctx *, ist_view h, ist_view stat, ist_view x, ist_view w, ist_view bias,
                   ist_norm_kind kind, double eps);
  /* dx [+]= d/dx; dw, dbias accumulate (optional). x as in forward. */
  void (*norm_bwd)(ist_ctx *, ist_view dx, bool acc, ist_view dw, ist_view dbias, ist_view dh,
                   ist_view x, ist_view w, ist_view stat, ist_norm_kind kind);
  /* In place on x (N, heads*E): the first rot of every E are rotated by
   * position * freq[j]; interleaved pairs (2j, 2j+1) or half pairs (j, j+rot/2);
   * cos and sin multiplied by `mscale`. inverse: the gradient. */
  void (*rope)(ist_ctx *, ist_view x, const int32_t *position, const float *freq, int64_t rot,
               int64_t E, bool interleaved, double mscale, bool inverse);
  /* o (N, H*E) and lse (N, H; log of the softmax's denominator) from q (N, H*E). */
  void (*attention_fwd)(ist_ctx *, ist_view o, ist_view lse, ist_view q, const ist_attn *a);
  /* dq overwrites; a->kv[].dk, dv: overwritten for rows of spans that are not
   * shared, accumulated for shared ones. delta-free: rowsum(do * o) is computed. */
  void (*attention_bwd)(ist_ctx *, ist_view dq, ist_view dout, ist_view o, ist_view lse, ist_view q,
                        const ist_attn *a);
  /* gated: y = act(g) * u; plain (u absent): y = act(g). y may be g or u. */
  void (*act_fwd)(ist_ctx *, ist_view y, ist_view g, ist_view u, ist_act_kind kind);
  /* dg, du from dy; each may be dy's, g's or u's memory. y (optional) = the
   * forward value, recomputed for the adapters of the next linear. */
  void (*act_bwd)(ist_ctx *, ist_view dg, ist_view du, ist_view y, ist_view dy, ist_view g,
                  ist_view u, ist_act_kind kind);

  /* -- mixtures of experts -- */
  /* logits (n, experts), W -> the k = weight.cols largest of each row: index (n, k) in
   * falling order, host memory, and their softmax over all, or (renormalise) over the k. */
  void (*route_fwd)(ist_ctx *, ist_view weight, int32_t *index, ist_view logits, bool renormalise);
  void (*route_bwd)(ist_ctx *, ist_view dlogits, ist_view dweight, ist_view weight,
                    const int32_t *index, ist_view logits, bool renormalise);
  void (*weigh_rows)(ist_ctx *, ist_view y, ist_view weight); /* y(r, c) *= weight(r, 0), W */
  /* dst row ids[i] (W) += weight(i, 0) * src row i; weight absent: 1; ids distinct. */
  void (*add_rows)(ist_ctx *, ist_view dst, ist_view src, const int32_t *ids, ist_view weight);

  /* -- loss -- */
  /* logits (n, v) hold vocabulary columns [col0, col0 + v). First pass over the
   * tiles: running max and sum of exp per row (run: (n, 2), F32 or F64), and the
   * target's logit (tgt (n,1)) when it lies in the tile. `first` initialises. */
  void (*xent_tile)(ist_ctx *, ist_view run, ist_view tgt, ist_view logits, const int32_t *target,
                    int64_t col0, double softcap, bool first);
  /* Second pass: dlogits = weight * d loss / d logits, loss summed over tokens (rows
   * without a target: 0). dlogits may lie in logits' memory: with the same dtype, or
   * as BF16 with twice the stride (each row is then narrowed in place). */
  void (*xent_grad)(ist_ctx *, ist_view dlogits, ist_view logits, ist_view run,
                    const int32_t *target, int64_t col0, double softcap, double weight);
  /* row_loss[i] = max + log(sum) - target logit, in double, host memory. A target
   * of -1 is not supervised: xent_tile leaves its row at run (0, 1), tgt 0, so
   * that the loss is 0, and xent_grad writes zeros. */
  void (*xent_loss)(ist_ctx *, double *row_loss, ist_view run, ist_view tgt);

  /* -- optimizer -- */
  double (*sumsq)(ist_ctx *, ist_view g); /* fixed-order sum of squares; NaN/Inf propagate */
  void (*adamw)(ist_ctx *, ist_view w, ist_view g, ist_view m, ist_view v, const ist_adamw *o);

  /* Scratch bytes each slot may take from ctx->scratch, for the plan. */
  size_t (*matmul_scratch)(int64_t m, int64_t n, int64_t k, ist_dtype dt);
  size_t (*attention_scratch)(const ist_attn *a, int64_t n_rows, ist_dtype dt);
  size_t (*stored_scratch)(int64_t n, int64_t k, int64_t r); /* of the widest x and u */
} ist_backend;

/* The truth: portable C from src/ops, F32 and F64 by the views' dtype. */
const ist_backend *ist_backend_reference(void);
/* oneDNN products and vectorised surroundings; the instruction set is chosen at
 * run time. Never NULL: on an unknown machine its slots are the portable ones. */
const ist_backend *ist_backend_cpu(void);
/* Fills empty slots of `b` from the reference. */
void ist_backend_complete(ist_backend *b);
/* The faster compute type here (BF16 where the CPU multiplies it natively). */
ist_dtype ist_backend_cpu_default_dtype(void);
/* "avx512_bf16", "avx512", "avx2", "portable". */
const char *ist_backend_cpu_isa(void);

/* ---- Time by operation ------------------------------------------------------ */

#define IST_PROF_MAX 48
typedef struct ist_prof {
  struct {
    const char *name;
    double seconds, flops, bytes;
    int64_t calls;
  } slot[IST_PROF_MAX];
  int n;
} ist_prof;
double ist_prof_now(void);
/* Adds the time since `start` to the slot `name` (static storage), with the operations and
 * the bytes that the mathematics needs: every operand read or written once. */
void ist_prof_add(ist_prof *p, const char *name, double start, double flops, double bytes);

#endif
