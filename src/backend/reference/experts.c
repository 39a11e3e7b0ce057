/* Mixtures of experts: which experts a token goes to, and rows times their weights.
 * With p = softmax(logits) and S the k largest, w_i = p_i, or p_i / sum over S of p. */
#include <math.h>

#include "backend/reference/reference.h"

static double get(ist_view v, int64_t row, int64_t col) {
  int64_t at = row * v.stride + col;
  switch (v.dt) {
    case IST_F64: return ((const double *)v.p)[at];
    case IST_F32: return (double)((const float *)v.p)[at];
    default: IST_ASSERT(v.dt == IST_BF16); return (double)ist_bf16_to_f32(((ist_bf16 *)v.p)[at]);
  }
}

static void set(ist_view v, int64_t row, int64_t col, double x) {
  int64_t at = row * v.stride + col;
  switch (v.dt) {
    case IST_F64: ((double *)v.p)[at] = x; break;
    case IST_F32: ((float *)v.p)[at] = (float)x; break;
    default: IST_ASSERT(v.dt == IST_BF16); ((ist_bf16 *)v.p)[at] = ist_f32_to_bf16((float)x);
  }
}

/* The k largest, the first of equals first. */
static void choose(int32_t *index, ist_view logits, int64_t row, int64_t k) {
  for (int64_t j = 0; j < k; j++) {
    int32_t best = -1;
    for (int32_t e = 0; e < logits.cols; e++) {
      bool taken = false;
      for (int64_t i = 0; i < j; i++) taken |= index[i] == e;
      if (!taken && (best < 0 || get(logits, row, e) > get(logits, row, best))) best = e;
    }
    index[j] = best;
  }
}

/* Largest logit, and the sum of exp(logit - largest) over all or over the chosen. */
static double total(ist_view logits, int64_t row, const int32_t *index, int64_t k, bool chosen) {
  double max = get(logits, row, index[0]), sum = 0;
  int64_t n = chosen ? k : logits.cols;
  for (int64_t j = 0; j < n; j++) sum += exp(get(logits, row, chosen ? index[j] : j) - max);
  return sum;
}

void ist_reference_route_fwd(ist_ctx *ctx, ist_view weight, int32_t *index, ist_view logits,
                             bool renormalise) {
  (void)ctx;
  int64_t k = weight.cols;
  for (int64_t r = 0; r < logits.rows; r++) {
    int32_t *mine = index + r * k;
    choose(mine, logits, r, k);
    double max = get(logits, r, mine[0]), sum = total(logits, r, mine, k, renormalise);
    for (int64_t j = 0; j < k; j++) set(weight, r, j, exp(get(logits, r, mine[j]) - max) / sum);
  }
}

void ist_reference_route_bwd(ist_ctx *ctx, ist_view dlogits, ist_view dweight, ist_view weight,
                             const int32_t *index, ist_view logits, bool renormalise) {
  (void)ctx;
  int64_t k = weight.cols;
  for (int64_t r = 0; r < logits.rows; r++) {
    const int32_t *mine = index + r * k;
    double max = get(logits, r, mine[0]), sum = total(logits, r, mine, k, renormalise), mean = 0;
    for (int64_t j = 0; j < k; j++) mean += get(weight, r, j) * get(dweight, r, j);
    for (int64_t e = 0; e < logits.cols; e++) {
      double p = exp(get(logits, r, e) - max) / sum;
      set(dlogits, r, e, renormalise ? 0.0 : -p * mean);
    }
    for (int64_t j = 0; j < k; j++)
      set(dlogits, r, mine[j], get(weight, r, j) * (get(dweight, r, j) - mean));
  }
}

void ist_reference_weigh_rows(ist_ctx *ctx, ist_view y, ist_view weight) {
  (void)ctx;
  for (int64_t r = 0; r < y.rows; r++) {
    double w = get(weight, r, 0);
    for (int64_t i = 0; i < y.cols; i++) set(y, r, i, w * get(y, r, i));
  }
}

void ist_reference_add_rows(ist_ctx *ctx, ist_view dst, ist_view src, const int32_t *ids,
                            ist_view weight) {
  (void)ctx;
  for (int64_t r = 0; r < src.rows; r++) {
    double w = weight.p ? get(weight, r, 0) : 1.0;
    for (int64_t i = 0; i < src.cols; i++)
      set(dst, ids[r], i, get(dst, ids[r], i) + w * get(src, r, i));
  }
}
