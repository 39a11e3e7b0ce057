/* Mixtures of experts: the rows are spread over the threads. Routing is small beside the
 * products (a few hundred logits a token), so plain loops do. */
#include <math.h>

#include "backend/cpu/cpu.h"

typedef struct route_args {
  ist_view weight, logits, dweight, dlogits;
  int32_t *index;
  bool renormalise;
} route_args;

static float *row_of(ist_view v, int64_t r) {
  return (float *)v.p + r * v.stride;
}

static bool serves(const ist_view *v, int n) {
  for (int i = 0; i < n; i++) {
    if (v[i].dt != IST_F32 || v[i].place != 0) return false;
  }
  return true;
}

/* The k largest in falling order, the first of equals first: each finds its place among
 * those before it. */
static void choose(int32_t *index, const float *logit, int64_t n, int64_t k) {
  int64_t held = 0;
  for (int32_t e = 0; e < n; e++) {
    if (held == k && !(logit[e] > logit[index[k - 1]])) continue;
    int64_t at = held < k ? held++ : k - 1;
    for (; at > 0 && logit[e] > logit[index[at - 1]]; at--) index[at] = index[at - 1];
    index[at] = e;
  }
}

/* Sum of exp(logit - largest) over all or over the chosen. */
static float total(const float *logit, int64_t n, const int32_t *index, int64_t k, bool chosen) {
  float max = logit[index[0]], sum = 0;
  if (chosen) {
    for (int64_t j = 0; j < k; j++) sum += expf(logit[index[j]] - max);
  } else {
    for (int64_t e = 0; e < n; e++) sum += expf(logit[e] - max);
  }
  return sum;
}

static void route_rows(void *arg, int64_t begin, int64_t end, int thread) {
  (void)thread;
  const route_args *a = arg;
  int64_t n = a->logits.cols, k = a->weight.cols;
  for (int64_t r = begin; r < end; r++) {
    const float *logit = row_of(a->logits, r);
    float *weight = row_of(a->weight, r);
    int32_t *index = a->index + r * k;
    choose(index, logit, n, k);
    float max = logit[index[0]], sum = total(logit, n, index, k, a->renormalise);
    for (int64_t j = 0; j < k; j++) weight[j] = expf(logit[index[j]] - max) / sum;
  }
}

void ist_cpu_route_fwd(ist_ctx *ctx, ist_view weight, int32_t *index, ist_view logits,
                       bool renormalise) {
  if (!serves((ist_view[]){weight, logits}, 2)) {
    ist_backend_reference()->route_fwd(ctx, weight, index, logits, renormalise);
    return;
  }
  ist_cpu_timed timed = ist_cpu_begin(ctx, 0.0, CPU_BYTES(logits, weight));
  route_args args = {
      .weight = weight, .logits = logits, .index = index, .renormalise = renormalise};
  ist_parallel_for(logits.rows, 16, route_rows, &args);
  ist_cpu_end(ctx, "route_fwd", timed);
}

static void route_rows_bwd(void *arg, int64_t begin, int64_t end, int thread) {
  (void)thread;
  const route_args *a = arg;
  int64_t n = a->logits.cols, k = a->weight.cols;
  for (int64_t r = begin; r < end; r++) {
    const float *logit = row_of(a->logits, r), *weight = row_of(a->weight, r);
    const float *dweight = row_of(a->dweight, r);
    const int32_t *index = a->index + r * k;
    float *d = row_of(a->dlogits, r), mean = 0;
    for (int64_t j = 0; j < k; j++) mean += weight[j] * dweight[j];
    float max = logit[index[0]], scale = 0;
    if (!a->renormalise) scale = -mean / total(logit, n, index, k, false);
    for (int64_t e = 0; e < n; e++) d[e] = scale == 0 ? 0 : scale * expf(logit[e] - max);
    for (int64_t j = 0; j < k; j++) d[index[j]] = weight[j] * (dweight[j] - mean);
  }
}

void ist_cpu_route_bwd(ist_ctx *ctx, ist_view dlogits, ist_view dweight, ist_view weight,
                       const int32_t *index, ist_view logits, bool renormalise) {
  if (!serves((ist_view[]){dlogits, dweight, weight, logits}, 4)) {
    ist_backend_reference()->route_bwd(ctx, dlogits, dweight, weight, index, logits, renormalise);
    return;
  }
  ist_cpu_timed timed = ist_cpu_begin(ctx, 0.0, CPU_BYTES(dlogits, dweight, weight, logits));
  route_args args = {.weight = weight,
                     .logits = logits,
                     .dweight = dweight,
                     .dlogits = dlogits,
                     .index = (int32_t *)(uintptr_t)index,
                     .renormalise = renormalise};
  ist_parallel_for(logits.rows, 16, route_rows_bwd, &args);
  ist_cpu_end(ctx, "route_bwd", timed);
}

void ist_cpu_weigh_rows(ist_ctx *ctx, ist_view y, ist_view weight) {
  if (!CPU_SERVES(y) || !serves(&weight, 1) || weight.stride != 1) {
    ist_backend_reference()->weigh_rows(ctx, y, weight);
    return;
  }
  ist_cpu_scale_rows(ctx, y, 1.0, weight.p);
}

typedef struct add_args {
  ist_view dst, src, weight;
  const int32_t *ids;
} add_args;

static void add_to_rows(void *arg, int64_t begin, int64_t end, int thread) {
  (void)thread;
  const add_args *a = arg;
  for (int64_t r = begin; r < end; r++) {
    float w = a->weight.p ? *row_of(a->weight, r) : 1.0f;
    float *restrict to = row_of(a->dst, a->ids[r]);
    if (a->src.dt == IST_BF16) {
      const ist_bf16 *restrict from = (const ist_bf16 *)a->src.p + r * a->src.stride;
      for (int64_t i = 0; i < a->src.cols; i++) to[i] += w * ist_bf16_to_f32(from[i]);
    } else {
      const float *restrict from = row_of(a->src, r);
      for (int64_t i = 0; i < a->src.cols; i++) to[i] += w * from[i];
    }
  }
}

void ist_cpu_add_rows(ist_ctx *ctx, ist_view dst, ist_view src, const int32_t *ids,
                      ist_view weight) {
  bool weighed = weight.p == NULL || serves(&weight, 1);
  if (!CPU_SERVES(src) || !serves(&dst, 1) || !weighed) {
    ist_backend_reference()->add_rows(ctx, dst, src, ids, weight);
    return;
  }
  ist_cpu_timed timed = ist_cpu_begin(ctx, 2.0 * ist_cpu_elements(src), CPU_BYTES(src, src, src));
  add_args args = {dst, src, weight, ids};
  ist_parallel_for(src.rows, ist_cpu_grain(src.cols), add_to_rows, &args);
  ist_cpu_end(ctx, "add_rows", timed);
}
