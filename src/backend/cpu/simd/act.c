/* Activations; the formulas stand in src/ops/act.c. */
#include "backend/cpu/simd/table.h"
#include "backend/cpu/simd/vmath.h"

#define INV_SQRT_2     0.70710678f
#define INV_SQRT_2PI   0.39894228f
#define SQRT_2_OVER_PI 0.79788456f
#define GELU_CUBIC     0.044715f

/* f(x) and, where asked for, f'(x). */
INLINE vf activate(vf *slope, vf x, ist_act_kind kind) {
  if (kind == IST_ACT_SILU) {
    vf s = vf_sigmoid(x), y = x * s;
    if (slope) *slope = s + y * (1.0f - s);
    return y;
  }
  if (kind == IST_ACT_GELU_ERF) {
    vf phi = 0.5f + 0.5f * vf_erf(x * INV_SQRT_2);
    if (slope) *slope = phi + x * INV_SQRT_2PI * vf_exp(-0.5f * x * x);
    return x * phi;
  }
  if (kind == IST_ACT_GELU_TANH) {
    vf t = vf_tanh(SQRT_2_OVER_PI * (x + GELU_CUBIC * x * x * x));
    vf inner = SQRT_2_OVER_PI * (1.0f + 3.0f * GELU_CUBIC * x * x);
    if (slope) *slope = 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * inner;
    return 0.5f * x * (1.0f + t);
  }
  if (kind == IST_ACT_RELU) {
    vf one = vf_set(1.0f), zero = {0};
    if (slope) *slope = vf_select(x <= 0.0f, zero, vf_select(x > 0.0f, one, x));
    return vf_select(x < 0.0f, zero, x);
  }
  if (kind == IST_ACT_SIGMOID) {
    vf s = vf_sigmoid(x);
    if (slope) *slope = s * (1.0f - s);
    return s;
  }
  vf t = vf_tanh(x);
  if (slope) *slope = 1.0f - t * t;
  return t;
}

INLINE void fwd_rows(const ist_act_args *a, int64_t begin, int64_t end, ist_act_kind kind, bool y16,
                     bool g16) {
  int64_t n = a->g.cols;
  for (int64_t r = begin; r < end; r++) {
    void *y = row_of(&a->y, r);
    const void *g = row_of(&a->g, r);
    const void *u = a->u.p != NULL ? row_of(&a->u, r) : NULL;
    for (int64_t i = 0; i < n; i += VL) {
      vf f = activate(NULL, row_load(g, g16, i, n), kind);
      row_store(y, y16, i, n, u != NULL ? f * row_load(u, g16, i, n) : f);
    }
  }
}

/* Everything is read before anything is written: the outputs may lie on the inputs. */
INLINE void bwd_rows(const ist_act_args *a, int64_t begin, int64_t end, ist_act_kind kind, bool d16,
                     bool g16) {
  int64_t n = a->g.cols;
  for (int64_t r = begin; r < end; r++) {
    const void *dy = row_of(&a->dy, r), *g = row_of(&a->g, r);
    for (int64_t i = 0; i < n; i += VL) {
      vf slope, f = activate(&slope, row_load(g, g16, i, n), kind);
      vf d = row_load(dy, d16, i, n);
      vf gate = a->u.p != NULL ? row_load(row_of(&a->u, r), g16, i, n) : vf_set(1.0f);
      if (a->dg.p != NULL) row_store(row_of(&a->dg, r), d16, i, n, d * gate * slope);
      if (a->du.p != NULL) row_store(row_of(&a->du, r), d16, i, n, d * f);
      if (a->y.p != NULL) row_store(row_of(&a->y, r), g16, i, n, f * gate);
    }
  }
}

#define BY_KIND(x, y, body)                                                               \
  switch (a->kind) {                                                                      \
    case IST_ACT_SILU: BY_TYPE(x, y, body, a, begin, end, IST_ACT_SILU); break;           \
    case IST_ACT_GELU_ERF: BY_TYPE(x, y, body, a, begin, end, IST_ACT_GELU_ERF); break;   \
    case IST_ACT_GELU_TANH: BY_TYPE(x, y, body, a, begin, end, IST_ACT_GELU_TANH); break; \
    case IST_ACT_RELU: BY_TYPE(x, y, body, a, begin, end, IST_ACT_RELU); break;           \
    case IST_ACT_TANH: BY_TYPE(x, y, body, a, begin, end, IST_ACT_TANH); break;           \
    case IST_ACT_SIGMOID: BY_TYPE(x, y, body, a, begin, end, IST_ACT_SIGMOID); break;     \
  }

KERNEL(act_fwd) {
  (void)thread;
  const ist_act_args *a = arg;
  BY_KIND(is_bf16(&a->y), is_bf16(&a->g), fwd_rows)
}

KERNEL(act_bwd) {
  (void)thread;
  const ist_act_args *a = arg;
  BY_KIND(is_bf16(&a->dy), is_bf16(&a->g), bwd_rows)
}
