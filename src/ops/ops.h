/* The truth: every operation, forward and backward, as a plain loop in `real`.
 *
 * Each file under src/ops is compiled twice, for float and for double
 * (-DIST_REAL_DOUBLE). The macros below only add the suffix _f64 to the names
 * of the second build, so that one source gives ist_norm_fwd and
 * ist_norm_fwd_f64 and the whole decoder can be checked in double.
 *
 * Rules: outputs first, then gradients in, forward inputs, saved values, sizes.
 * Activation gradients overwrite unless `acc`; parameter gradients accumulate;
 * NULL means do not compute, or an absent optional input. A matrix is a pointer
 * and its stride (ld..., in elements between rows, at least the columns).
 * Reductions of a row and transcendental functions are taken in double in both
 * builds; what is summed in memory (matrix products, attention's weighted sums,
 * parameter gradients) is summed in `real`.
 *
 * Letters: N rows (tokens), D columns, H query heads, K key/value heads, E head
 * size, R rank, V vocabulary columns. The formulas stand in the .c files. */
#ifndef IST_OPS_OPS_H
#define IST_OPS_OPS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/rng.h"
#include "ops/kinds.h"

#ifdef IST_REAL_DOUBLE
typedef double real;
#define ist_norm_fwd          ist_norm_fwd_f64
#define ist_norm_bwd          ist_norm_bwd_f64
#define ist_rope_apply        ist_rope_apply_f64
#define ist_attention_seg_fwd ist_attention_seg_fwd_f64
#define ist_attention_seg_bwd ist_attention_seg_bwd_f64
#define ist_act_fwd           ist_act_fwd_f64
#define ist_act_bwd           ist_act_bwd_f64
#define ist_matmul            ist_matmul_f64
#define ist_xent_tile_row     ist_xent_tile_row_f64
#define ist_xent_grad_row     ist_xent_grad_row_f64
#define ist_dropout_fwd       ist_dropout_fwd_f64
#define ist_dropout_bwd_acc   ist_dropout_bwd_acc_f64
#define ist_adamw_step        ist_adamw_step_f64
#define ist_sumsq             ist_sumsq_f64
#else
typedef float real;
#endif

/* ---- norm.c ---------------------------------------------------------------- */

/* Width of a row of `stat`: 1/rms, or mean and 1/sd. */
static inline int64_t ist_norm_stats(ist_norm_kind kind) {
  return kind == IST_NORM_LAYER ? 2 : 1;
}
/* h (N,D), stat (N, ist_norm_stats); x (N,D), w (D) and bias (D) optional. h may be x. */
void ist_norm_fwd(real *h, int64_t ldh, real *stat, int64_t ldstat, const real *x, int64_t ldx,
                  const real *w, const real *bias, int64_t N, int64_t D, ist_norm_kind kind,
                  double eps);
/* dx (N,D) optional, may be dh; dw (D) and dbias (D) accumulate, optional. */
void ist_norm_bwd(real *dx, int64_t lddx, bool acc, real *dw, real *dbias, const real *dh,
                  int64_t lddh, const real *x, int64_t ldx, const real *w, const real *stat,
                  int64_t ldstat, int64_t N, int64_t D, ist_norm_kind kind);

/* ---- rope.c ---------------------------------------------------------------- */

typedef struct ist_op_rope {
  const float *freq; /* rot / 2 angles per position */
  int64_t rot, E;    /* the first rot (even) of every E columns turn */
  bool interleaved;  /* pairs (2j, 2j+1); otherwise (j, j + rot/2) */
  double mscale;     /* multiplies cos and sin */
} ist_op_rope;

/* In place on x (N, heads*E); `inverse` applies the transpose: the gradient. */
void ist_rope_apply(real *x, int64_t ldx, const int32_t *position, int64_t N, int64_t heads,
                    const ist_op_rope *r, bool inverse);

/* ---- attention.c ----------------------------------------------------------- */

typedef struct ist_op_attn {
  int64_t H, K, E; /* K divides H; query head h reads key head h / (H/K) */
  double scale, softcap;
  int64_t window;
  const float *alibi;
} ist_op_attn;

/* n rows of keys and values (n, K*E), the first at position pos0. The gradients
 * accumulate; each is optional. A dead span (`logit_add` -INFINITY) is not read. */
typedef struct ist_op_keys {
  const real *k, *v;
  real *dk, *dv;
  int64_t ldk, ldv, lddk, lddv;
  int64_t n, pos0;
  bool causal;
  double logit_add;
} ist_op_keys;

/* One segment, key/value heads [kv0, kv1) and the query heads that read them:
 * o (nq, H*E), lse (nq, H), q (nq, H*E), the first query at position pos0. */
void ist_attention_seg_fwd(real *o, int64_t ldo, real *lse, int64_t ldlse, const real *q,
                           int64_t ldq, int64_t nq, int64_t pos0, const ist_op_keys *keys,
                           int n_keys, const ist_op_attn *a, int64_t kv0, int64_t kv1);
/* dq (nq, H*E), optional, overwrites; keys[].dk and dv accumulate. */
void ist_attention_seg_bwd(real *dq, int64_t lddq, const real *dout, int64_t lddout, const real *o,
                           int64_t ldo, const real *lse, int64_t ldlse, const real *q, int64_t ldq,
                           int64_t nq, int64_t pos0, const ist_op_keys *keys, int n_keys,
                           const ist_op_attn *a, int64_t kv0, int64_t kv1);

/* ---- act.c ----------------------------------------------------------------- */

/* n contiguous elements. u optional; y may be g or u. */
void ist_act_fwd(real *y, const real *g, const real *u, int64_t n, ist_act_kind kind);
/* dg, du and y are optional and may be dy, g or u. */
void ist_act_bwd(real *dg, real *du, real *y, const real *dy, const real *g, const real *u,
                 int64_t n, ist_act_kind kind);

/* ---- matmul.c -------------------------------------------------------------- */

/* C (m,n) = beta * C + op(A) op(B), op(A) (m,k), op(B) (k,n), beta 0 or 1. Every
 * element is summed over k in the same order whatever m and n are, so rows of C
 * may be computed apart. C overlaps neither A nor B. */
void ist_matmul(real *c, int64_t ldc, const real *a, int64_t lda, bool ta, const real *b,
                int64_t ldb, bool tb, int64_t m, int64_t n, int64_t k, int beta);

/* ---- xent.c ---------------------------------------------------------------- */

/* One row, tile of v logits: max, sum of exp(logit - max) and the target's logit
 * are carried from tile to tile (start: -INFINITY, 0, 0). `target` indexes the
 * tile; outside [0, v) it lies elsewhere. */
void ist_xent_tile_row(double *max, double *sum, double *target_logit, const real *logits,
                       int64_t v, int64_t target, double softcap);
/* dlogits = weight * d loss / d logits, from the final max and sum; may be logits. */
void ist_xent_grad_row(real *dlogits, const real *logits, int64_t v, double max, double sum,
                       int64_t target, double softcap, double weight);

/* ---- dropout.c ------------------------------------------------------------- */

typedef struct ist_op_dropout {
  uint32_t threshold; /* a 16-bit word below it drops; 0: plain copy */
  ist_philox_key key;
  uint32_t step, layer_site;
  const int32_t *sample, *position; /* N each */
} ist_op_dropout;

/* y (N,D) = mask(x); y may be x. */
void ist_dropout_fwd(real *y, int64_t ldy, const real *x, int64_t ldx, int64_t N, int64_t D,
                     const ist_op_dropout *d);
/* dx (N,D) += mask(dy). */
void ist_dropout_bwd_acc(real *dx, int64_t lddx, const real *dy, int64_t lddy, int64_t N, int64_t D,
                         const ist_op_dropout *d);

/* ---- adamw.c --------------------------------------------------------------- */

void ist_adamw_step(real *w, const real *g, real *m, real *v, int64_t n, const ist_adamw *o);
/* Sum of squares in double: partial sums of fixed blocks, added in order. */
double ist_sumsq(const real *g, int64_t n);

#endif
