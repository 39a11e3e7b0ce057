/* Slots of the CPU backend against the reference in double: a case builds its inputs,
 * calls slots and leaves its outputs; it runs once on the reference and then with every
 * instruction set of this machine (and once more with the matrix library), in F32 and in
 * BF16, with one thread and with two, which must agree to the bit. */
#ifndef IST_TESTS_BACKEND_CPU_CASES_H
#define IST_TESTS_BACKEND_CPU_CASES_H

#include "backend/cpu/cpu.h"
#include "backend/tensor.h"

#define MAX_OUT 12

/* Where a case runs: the context, the compute type and the wide type beside it. */
typedef struct place {
  ist_ctx *ctx;
  const ist_backend *be;
  ist_dtype compute, wide;
  bool bf16; /* inputs of the compute type are rounded to BF16 (also on the reference) */
} place;

typedef struct outputs {
  tensor t[MAX_OUT];
  const char *name[MAX_OUT];
  double tol[MAX_OUT];
  int n;
} outputs;

/* Runs the case's slots on `p`; `out` takes over the tensors that are compared. */
typedef void (*case_fn)(const place *p, const void *what, outputs *out);

/* Compared within tol of the largest element, and, where it is BF16, half a unit in
 * the last place. 0: the same values exactly. */
static inline void keep(outputs *out, const char *name, tensor t, double tol) {
  assert_true(out->n < MAX_OUT);
  out->t[out->n] = t;
  out->name[out->n] = name;
  out->tol[out->n++] = tol;
}

/* Random values of variance scale^2, the same in every place of one run. */
static inline tensor input_of(ist_dtype dt, bool bf16, int64_t rows, int64_t cols, double scale,
                              uint32_t seed) {
  tensor t = tensor_new(dt, rows, cols);
  ist_rng rng = ist_rng_stream(seed, IST_RNG_TEST, 4, 5, 6);
  for (int64_t i = 0; i < rows * cols; i++) {
    float x = (float)(scale * ((double)ist_rng_u32(&rng) / 2147483648.0 - 1.0) * 1.7320508);
    if (bf16) x = ist_bf16_to_f32(ist_f32_to_bf16(x));
    tensor_set(t, i / cols, i % cols, (double)x);
  }
  return t;
}
static inline tensor input(const place *p, int64_t rows, int64_t cols, double scale,
                           uint32_t seed) {
  return input_of(p->compute, p->bf16, rows, cols, scale, seed);
}
static inline tensor input_wide(const place *p, int64_t rows, int64_t cols, double scale,
                                uint32_t seed) {
  return input_of(p->wide, false, rows, cols, scale, seed);
}

static inline void compare_outputs(const outputs *found, const outputs *truth, const char *where) {
  assert_int_equal(found->n, truth->n);
  for (int k = 0; k < found->n; k++) {
    tensor a = found->t[k], b = truth->t[k];
    double largest = 1e-6, ulp = a.v.dt == IST_BF16 ? 0.00392 : 0.0;
    assert_true(a.v.rows == b.v.rows && a.v.cols == b.v.cols);
    for (int64_t i = 0; i < b.v.rows * b.v.cols; i++) {
      double y = tensor_get(b, i / b.v.cols, i % b.v.cols);
      if (isfinite(y)) largest = fmax(largest, fabs(y));
    }
    for (int64_t i = 0; i < b.v.rows * b.v.cols; i++) {
      double x = tensor_get(a, i / b.v.cols, i % b.v.cols);
      double y = tensor_get(b, i / b.v.cols, i % b.v.cols);
      bool same = x == y || (isnan(x) && isnan(y));
      if (!same && !(fabs(x - y) <= found->tol[k] * largest + ulp * fabs(y))) {
        fail_msg("%s: %s (%d, %d): found %.9g, expected %.9g (largest %.3g)", where, found->name[k],
                 (int)(i / b.v.cols), (int)(i % b.v.cols), x, y, largest);
      }
    }
  }
}

static inline void same_outputs(const outputs *a, const outputs *b, const char *where) {
  for (int k = 0; k < a->n; k++) {
    size_t bytes = (size_t)(a->t[k].n * element_bytes(a->t[k].v.dt));
    if (memcmp(a->t[k].memory, b->t[k].memory, bytes) != 0) {
      fail_msg("%s: %s depends on the number of threads", where, a->name[k]);
    }
  }
}

static inline void drop_outputs(outputs *out) {
  for (int k = 0; k < out->n; k++) tensor_done(out->t[k]);
  out->n = 0;
}

/* One instruction set and provider, one compute type. */
static inline void run_case_on(const ist_simd *simd, const ist_products *products, bool bf16,
                               case_fn fn, const void *what, const outputs *truth) {
  ist_arena scratch;
  ist_ctx ctx = {.be = ist_backend_cpu(), .scratch = &scratch};
  assert_int_equal(ist_arena_init(&scratch, "scratch", 16u << 20, NULL), IST_OK);
  assert_int_equal(ist_cpu_open_with(&ctx, simd, products, NULL), IST_OK);
  const place p = {&ctx, ctx.be, bf16 ? IST_BF16 : IST_F32, IST_F32, bf16};
  outputs out[2] = {0};
  char where[64];
  snprintf(where, sizeof where, "%s%s%s, %s", simd->name, products ? " with " : "",
           products ? products->name : "", bf16 ? "BF16" : "F32");
  for (int threads = 1; threads <= 2; threads++) {
    ist_set_threads(threads);
    fn(&p, what, &out[threads - 1]);
    compare_outputs(&out[threads - 1], truth, where);
    assert_int_equal(ist_arena_mark(&scratch), 0);
  }
  same_outputs(&out[0], &out[1], where);
  drop_outputs(&out[0]);
  drop_outputs(&out[1]);
  ist_set_threads(0);
  ctx.be->close(&ctx);
  ist_arena_free(&scratch);
}

static inline void run_case(case_fn fn, const void *what) {
  const ist_simd *levels[4];
  int n = ist_cpu_levels(levels);
  for (int bf16 = 0; bf16 < 2; bf16++) {
    ist_ctx ref = {.be = ist_backend_reference()};
    const place exact = {&ref, ref.be, IST_F64, IST_F64, bf16 != 0};
    outputs truth = {0};
    fn(&exact, what, &truth);
    for (int i = 0; i < n; i++) run_case_on(levels[i], NULL, bf16 != 0, fn, what, &truth);
    if (ist_products_best() != NULL) {
      run_case_on(levels[0], ist_products_best(), bf16 != 0, fn, what, &truth);
    }
    drop_outputs(&truth);
  }
}

#endif
