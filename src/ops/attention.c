/* Attention of one segment over up to two spans of keys, a tile of keys at a time:
 * nothing of size (queries x keys) exists.
 *
 *   s = cap(scale q.k) + slope_h * key position + logit_add,  cap(x) = c tanh(x / c)
 *   lse = log sum_j exp(s_j),   p_j = exp(s_j - lse),   o = sum_j p_j v_j
 *
 * A causal span shows the keys with 0 <= query - key position (< window). A query
 * that sees no key has o = 0 and lse = -INFINITY. Backward, with D = do.o:
 *   dv_j += p_j do,   ds_j = p_j (do.v_j - D) cap'(x),
 *   dq = sum_j ds_j scale k_j,   dk_j += ds_j scale q. */
#include "ops/ops.h"

#include <math.h>
#include <stddef.h>

#define TILE 64

static double dot(const real *a, const real *b, int64_t n) {
  double s = 0.0;
#pragma omp simd reduction(+ : s)
  for (int64_t i = 0; i < n; i++) s += (double)a[i] * (double)b[i];
  return s;
}

/* y += s x */
static void add_scaled(real *y, double s, const real *x, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; i++) y[i] = (real)((double)y[i] + s * (double)x[i]);
}

/* The keys [*begin, *end) of a span that the query at `position` sees. */
static void visible_keys(int64_t *begin, int64_t *end, const ist_op_keys *keys,
                         const ist_op_attn *a, int64_t position) {
  *begin = 0;
  *end = keys->logit_add == -INFINITY ? 0 : keys->n;
  if (!keys->causal) return;
  int64_t last = position - keys->pos0;
  if (*end > last + 1) *end = last + 1;
  if (a->window > 0 && *begin < last - a->window + 1) *begin = last - a->window + 1;
}

/* The score of key j; *slope (optional) = d score / d (scale q.k). */
static double score(double *slope, const real *q, const ist_op_keys *keys, int64_t j,
                    const ist_op_attn *a, int64_t h, int64_t kv) {
  double x = a->scale * dot(q, keys->k + j * keys->ldk + kv * a->E, a->E), d = 1.0;
  if (a->softcap != 0.0) {
    double t = tanh(x / a->softcap);
    x = a->softcap * t;
    d = 1.0 - t * t;
  }
  if (a->alibi != NULL) x += (double)a->alibi[h] * (double)(keys->pos0 + j);
  if (slope != NULL) *slope = d;
  return x + keys->logit_add;
}

/* Carries the softmax of one query and head from tile to tile: o holds
 * sum exp(s - max) v. */
typedef struct running {
  double max, sum;
} running;

static void attend_tile(running *r, real *o, const double *s, int64_t n, const real *v, int64_t ldv,
                        int64_t E) {
  double max = r->max;
  for (int64_t j = 0; j < n; j++) {
    if (s[j] > max) max = s[j];
  }
  /* All -INFINITY so far: any finite reference keeps the weights at 0, not NaN. */
  double reference = max == -INFINITY ? 0.0 : max;
  double shrink = exp(r->max - reference);
  r->sum *= shrink;
  if (shrink != 1.0) {
    for (int64_t e = 0; e < E; e++) o[e] = (real)((double)o[e] * shrink);
  }
  for (int64_t j = 0; j < n; j++) {
    double p = exp(s[j] - reference);
    r->sum += p;
    add_scaled(o, p, v + j * ldv, E);
  }
  r->max = max;
}

/* One query row and head. Returns lse. */
static double attend(real *o, const real *q, int64_t position, const ist_op_keys *keys, int n_keys,
                     const ist_op_attn *a, int64_t h, int64_t kv) {
  running r = {-INFINITY, 0.0};
  double s[TILE];
  for (int64_t e = 0; e < a->E; e++) o[e] = 0;
  for (int i = 0; i < n_keys; i++) {
    int64_t begin, end;
    visible_keys(&begin, &end, &keys[i], a, position);
    for (int64_t j0 = begin; j0 < end; j0 += TILE) {
      int64_t n = end - j0 < TILE ? end - j0 : TILE;
      for (int64_t j = 0; j < n; j++) s[j] = score(NULL, q, &keys[i], j0 + j, a, h, kv);
      attend_tile(&r, o, s, n, keys[i].v + j0 * keys[i].ldv + kv * a->E, keys[i].ldv, a->E);
    }
  }
  if (r.sum == 0.0) return -INFINITY;
  for (int64_t e = 0; e < a->E; e++) o[e] = (real)((double)o[e] / r.sum);
  return r.max + log(r.sum);
}

void ist_attention_seg_fwd(real *o, int64_t ldo, real *lse, int64_t ldlse, const real *q,
                           int64_t ldq, int64_t nq, int64_t pos0, const ist_op_keys *keys,
                           int n_keys, const ist_op_attn *a, int64_t kv0, int64_t kv1) {
  int64_t group = a->H / a->K;
  for (int64_t i = 0; i < nq; i++) {
    for (int64_t h = kv0 * group; h < kv1 * group; h++) {
      lse[i * ldlse + h] = (real)attend(o + i * ldo + h * a->E, q + i * ldq + h * a->E, pos0 + i,
                                        keys, n_keys, a, h, h / group);
    }
  }
}

/* One query row and head against one span. */
static void attend_bwd(real *dq, const real *dout, double do_o, double lse, const real *q,
                       int64_t position, const ist_op_keys *keys, const ist_op_attn *a, int64_t h,
                       int64_t kv) {
  int64_t begin, end, E = a->E;
  visible_keys(&begin, &end, keys, a, position);
  for (int64_t j = begin; j < end; j++) {
    double slope, p = exp(score(&slope, q, keys, j, a, h, kv) - lse);
    double dp = dot(dout, keys->v + j * keys->ldv + kv * E, E);
    double dx = p * (dp - do_o) * slope * a->scale;
    if (keys->dv != NULL) add_scaled(keys->dv + j * keys->lddv + kv * E, p, dout, E);
    if (keys->dk != NULL) add_scaled(keys->dk + j * keys->lddk + kv * E, dx, q, E);
    if (dq != NULL) add_scaled(dq, dx, keys->k + j * keys->ldk + kv * E, E);
  }
}

void ist_attention_seg_bwd(real *dq, int64_t lddq, const real *dout, int64_t lddout, const real *o,
                           int64_t ldo, const real *lse, int64_t ldlse, const real *q, int64_t ldq,
                           int64_t nq, int64_t pos0, const ist_op_keys *keys, int n_keys,
                           const ist_op_attn *a, int64_t kv0, int64_t kv1) {
  int64_t group = a->H / a->K, E = a->E;
  for (int64_t i = 0; i < nq; i++) {
    for (int64_t h = kv0 * group; h < kv1 * group; h++) {
      real *dqi = dq != NULL ? dq + i * lddq + h * E : NULL;
      for (int64_t e = 0; dqi != NULL && e < E; e++) dqi[e] = 0;
      double log_sum = (double)lse[i * ldlse + h];
      if (log_sum == -INFINITY) continue;
      const real *di = dout + i * lddout + h * E;
      double do_o = dot(di, o + i * ldo + h * E, E);
      for (int s = 0; s < n_keys; s++) {
        attend_bwd(dqi, di, do_o, log_sum, q + i * ldq + h * E, pos0 + i, &keys[s], a, h,
                   h / group);
      }
    }
  }
}
