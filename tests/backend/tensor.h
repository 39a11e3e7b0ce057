/* Matrices of tests: any stride, NaN guard words before, after and between the rows
 * (reading them poisons the result, writing them is found), random contents that are
 * the same in every dtype. */
#ifndef IST_TESTS_BACKEND_TENSOR_H
#define IST_TESTS_BACKEND_TENSOR_H

#include <math.h>
#include <stdlib.h>

#include "backend/backend.h"
#include "gradcheck.h"

enum { GUARD = 8, PAD = 3 };

typedef struct tensor {
  ist_view v;
  unsigned char *memory; /* GUARD elements, rows * stride, GUARD elements */
  int64_t n;             /* elements of memory */
} tensor;

/* A NaN whose bits arithmetic does not produce. */
static inline void guard_word(unsigned char *out, ist_dtype dt) {
  uint64_t wide = 0x7ff8dead0000beefu;
  uint32_t single = 0x7fc0deadu;
  uint16_t half = 0x7fedu;
  if (dt == IST_F64) memcpy(out, &wide, sizeof wide);
  if (dt == IST_F32) memcpy(out, &single, sizeof single);
  if (dt == IST_BF16 || dt == IST_F16) memcpy(out, &half, sizeof half);
}

static inline int element_bytes(ist_dtype dt) {
  return ist_dtype_get(dt)->bytes;
}

/* All guard words, also where the elements are: an output that is not overwritten,
 * or is added to, stays NaN. */
static inline tensor tensor_new(ist_dtype dt, int64_t rows, int64_t cols) {
  int64_t stride = cols + PAD;
  tensor t = {.n = rows * stride + 2 * GUARD};
  t.memory = malloc((size_t)(t.n * element_bytes(dt)));
  assert_non_null(t.memory);
  for (int64_t i = 0; i < t.n; i++) guard_word(t.memory + i * element_bytes(dt), dt);
  t.v = ist_view_make(t.memory + GUARD * element_bytes(dt), dt, rows, cols, stride);
  return t;
}

static inline void *tensor_at(tensor t, int64_t r, int64_t c) {
  return (char *)t.v.p + (r * t.v.stride + c) * element_bytes(t.v.dt);
}

static inline double tensor_get(tensor t, int64_t r, int64_t c) {
  void *p = tensor_at(t, r, c);
  switch (t.v.dt) {
    case IST_F64: return *(double *)p;
    case IST_F32: return (double)*(float *)p;
    case IST_BF16: return (double)ist_bf16_to_f32(*(ist_bf16 *)p);
    default: return (double)ist_f16_to_f32(*(ist_f16 *)p);
  }
}

static inline void tensor_set(tensor t, int64_t r, int64_t c, double x) {
  void *p = tensor_at(t, r, c);
  switch (t.v.dt) {
    case IST_F64: *(double *)p = x; break;
    case IST_F32: *(float *)p = (float)x; break;
    case IST_BF16: *(ist_bf16 *)p = ist_f32_to_bf16((float)x); break;
    default: *(ist_f16 *)p = ist_f32_to_f16((float)x);
  }
}

/* Normal values times `scale`, rounded to F32 so that F32 and F64 start equal. */
static inline tensor tensor_random(ist_dtype dt, int64_t rows, int64_t cols, double scale,
                                   uint32_t seed) {
  tensor t = tensor_new(dt, rows, cols);
  ist_rng rng = ist_rng_stream(seed, IST_RNG_TEST, 0, 0, 0);
  for (int64_t r = 0; r < rows; r++) {
    for (int64_t c = 0; c < cols; c++) {
      tensor_set(t, r, c, (double)(float)(scale * ist_rng_normal(&rng)));
    }
  }
  return t;
}

static inline void tensor_fill(tensor t, double x) {
  for (int64_t r = 0; r < t.v.rows; r++) {
    for (int64_t c = 0; c < t.v.cols; c++) tensor_set(t, r, c, x);
  }
}

/* Fails when a word outside of the elements was written. */
static inline void tensor_check(tensor t) {
  unsigned char expected[8];
  int bytes = element_bytes(t.v.dt);
  guard_word(expected, t.v.dt);
  for (int64_t i = 0; i < t.n; i++) {
    int64_t at = i - GUARD;
    bool inside = at >= 0 && at < t.v.rows * t.v.stride && at % t.v.stride < t.v.cols;
    if (!inside && memcmp(t.memory + i * bytes, expected, (size_t)bytes) != 0) {
      fail_msg("guard word %lld of a (%lld, %lld) matrix was overwritten", (long long)at,
               (long long)t.v.rows, (long long)t.v.cols);
    }
  }
}

/* Checks the guards and frees. */
static inline void tensor_done(tensor t) {
  if (t.memory == NULL) return;
  tensor_check(t);
  free(t.memory);
}

static inline double tensor_dot(tensor a, tensor b) {
  double s = 0.0;
  for (int64_t r = 0; r < a.v.rows; r++) {
    for (int64_t c = 0; c < a.v.cols; c++) s += tensor_get(a, r, c) * tensor_get(b, r, c);
  }
  return s;
}

/* Fails unless a = factor_b * b + c (c optional) within tol times b's largest
 * element (at least 1e-6). Equal values, infinite ones too, are no difference. */
static inline void assert_close(const char *what, tensor a, double factor_b, tensor b,
                                const tensor *c, double tol) {
  double largest = 1e-6, worst = 0.0;
  assert_int_equal(a.v.rows, b.v.rows);
  assert_int_equal(a.v.cols, b.v.cols);
  for (int64_t r = 0; r < a.v.rows; r++) {
    for (int64_t k = 0; k < a.v.cols; k++) {
      double x = tensor_get(a, r, k);
      double y = factor_b * tensor_get(b, r, k) + (c != NULL ? tensor_get(*c, r, k) : 0.0);
      if (isfinite(y)) largest = fmax(largest, fabs(y));
      worst = gradcheck_worse(x == y ? 0.0 : fabs(x - y), worst);
    }
  }
  if (!(worst <= tol * largest)) {
    fail_msg("%s: differs by %.3g where the largest element is %.3g", what, worst, largest);
  }
}

/* Bit for bit. */
static inline void assert_same(tensor a, tensor b) {
  for (int64_t r = 0; r < a.v.rows; r++) {
    assert_memory_equal(tensor_at(a, r, 0), tensor_at(b, r, 0),
                        (size_t)(a.v.cols * element_bytes(a.v.dt)));
  }
}

static inline gradcheck_input gradient_of(const char *name, tensor x, tensor grad) {
  return (gradcheck_input){.name = name,
                           .x = x.v.p,
                           .rows = x.v.rows,
                           .cols = x.v.cols,
                           .stride = x.v.stride,
                           .grad = grad.v.p,
                           .grad_stride = grad.v.stride};
}

#endif
