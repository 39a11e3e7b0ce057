/* Gradients against finite differences, in double.
 *
 * A check perturbs the memory of an input, calls the loss and compares the slope
 * with what the backward pass says:
 *
 *   static double loss(void *user) { run the forward pass; return sum(dy * y); }
 *   ... run the backward pass once with upstream dy (random, never ones) ...
 *   gradcheck_input in[] = {
 *       {.name = "x", .x = x, .rows = N, .cols = D, .stride = D, .grad = dx, .grad_stride = D},
 *   };
 *   gradcheck_assert(in, 1, loss, user, 1e-7);
 *
 * gradcheck_assert also demands that each gradient, scaled by 1.001, is refused: a
 * check that would let a 0.1 % error pass fails itself. `zero` marks an input that
 * must have no influence: its gradient must be exactly 0 and the loss flat.
 *
 * The slope is the five-point formula, error h^4: with values and derivatives of
 * order 1 it is good to about 1e-11, so 1e-7 is a comfortable tolerance. The loss
 * must be smooth within 2h of x: keep inputs of relu away from 0. */
#ifndef IST_TESTS_GRADCHECK_H
#define IST_TESTS_GRADCHECK_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/rng.h"

#ifndef GRADCHECK_STEP /* a test with strong curvature takes a smaller one */
#define GRADCHECK_STEP 1e-3
#endif
#define GRADCHECK_MUTANT     1.001
#define GRADCHECK_DIRECTIONS 4
/* Up to this many elements are also checked one by one. */
#ifndef GRADCHECK_ELEMENTS
#define GRADCHECK_ELEMENTS 96
#endif
/* Slopes below this are compared absolutely: zero against zero is no error. */
#define GRADCHECK_FLOOR 1e-4

typedef double (*gradcheck_loss)(void *user);

typedef struct gradcheck_input {
  const char *name;
  double *x; /* perturbed, and restored to the bit */
  int64_t rows, cols, stride;
  const double *grad; /* computed before the check */
  int64_t grad_stride;
  bool zero;
} gradcheck_input;

/* The larger error, where NaN is the largest. */
static inline double gradcheck_worse(double a, double b) {
  return isnan(a) || a >= b ? a : b;
}

/* |a - b| relative to the larger of a, b and `scale`. */
static inline double gradcheck_difference(double a, double b, double scale) {
  double size = fmax(fmax(fabs(a), fabs(b)), fmax(scale, GRADCHECK_FLOOR));
  return fabs(a - b) / size;
}

/* x := saved + h * direction, or saved alone where h is 0. */
static inline void gradcheck_move(const gradcheck_input *in, const double *saved,
                                  const double *direction, double h) {
  for (int64_t r = 0; r < in->rows; r++) {
    for (int64_t c = 0; c < in->cols; c++) {
      int64_t i = r * in->cols + c;
      in->x[r * in->stride + c] = h == 0.0 ? saved[i] : saved[i] + h * direction[i];
    }
  }
}

/* d loss / d h along the direction. */
static inline double gradcheck_slope(const gradcheck_input *in, const double *saved,
                                     const double *direction, gradcheck_loss loss, void *user) {
  double h = GRADCHECK_STEP, f[4];
  const double at[4] = {-2 * h, -h, h, 2 * h};
  for (int i = 0; i < 4; i++) {
    gradcheck_move(in, saved, direction, at[i]);
    f[i] = loss(user);
  }
  gradcheck_move(in, saved, direction, 0.0);
  return (f[0] - 8.0 * f[1] + 8.0 * f[2] - f[3]) / (12.0 * h);
}

static inline double gradcheck_grad(const gradcheck_input *in, int64_t i) {
  return in->grad[i / in->cols * in->grad_stride + i % in->cols];
}

/* The largest relative error of scale * grad over random +-1 directions and, for a
 * small input, over single elements. Tiny slopes are measured against the whole
 * gradient: its length for a direction, 1/1000 of its largest element for one. */
static inline double gradcheck_error(const gradcheck_input *in, double scale, gradcheck_loss loss,
                                     void *user, uint32_t seed) {
  int64_t n = in->rows * in->cols;
  double *saved = calloc((size_t)n, sizeof *saved), *d = calloc((size_t)n, sizeof *d);
  double length = 0.0, largest = 0.0, worst = 0.0;
  assert_true(n > 0 && saved != NULL && d != NULL);
  for (int64_t i = 0; i < n; i++) {
    double g = gradcheck_grad(in, i);
    saved[i] = in->x[i / in->cols * in->stride + i % in->cols];
    length += g * g;
    largest = fmax(largest, fabs(g));
  }
  ist_rng rng = ist_rng_stream(seed, IST_RNG_TEST, 1, 2, 3);
  for (int k = 0; k < GRADCHECK_DIRECTIONS; k++) {
    double claimed = 0.0;
    for (int64_t i = 0; i < n; i++) {
      d[i] = ist_rng_u32(&rng) & 1 ? 1.0 : -1.0;
      claimed += scale * gradcheck_grad(in, i) * d[i];
    }
    double slope = gradcheck_slope(in, saved, d, loss, user);
    worst = gradcheck_worse(gradcheck_difference(slope, claimed, sqrt(length)), worst);
  }
  for (int64_t i = 0; i < n; i++) d[i] = 0.0;
  for (int64_t i = 0; n <= GRADCHECK_ELEMENTS && i < n; i++) {
    d[i] = 1.0;
    double slope = gradcheck_slope(in, saved, d, loss, user);
    double claimed = scale * gradcheck_grad(in, i);
    worst = gradcheck_worse(gradcheck_difference(slope, claimed, 1e-3 * largest), worst);
    d[i] = 0.0;
  }
  loss(user); /* leaves the outputs as they belong to x */
  free(saved);
  free(d);
  return worst;
}

static inline bool gradcheck_is_zero(const gradcheck_input *in) {
  for (int64_t i = 0; i < in->rows * in->cols; i++) {
    if (gradcheck_grad(in, i) != 0.0) return false;
  }
  return true;
}

static inline void gradcheck_assert(const gradcheck_input *in, int n, gradcheck_loss loss,
                                    void *user, double tol) {
  for (int i = 0; i < n; i++) {
    double err = gradcheck_error(&in[i], 1.0, loss, user, 7u + (uint32_t)i);
    if (!(err <= tol)) fail_msg("gradient of %s: error %.3g, allowed %.3g", in[i].name, err, tol);
    if (in[i].zero != gradcheck_is_zero(&in[i])) {
      fail_msg("gradient of %s: %s", in[i].name, in[i].zero ? "expected 0" : "is 0");
    }
    if (in[i].zero) continue;
    double mutant = gradcheck_error(&in[i], GRADCHECK_MUTANT, loss, user, 7u + (uint32_t)i);
    if (mutant <= tol) {
      fail_msg("gradient of %s: the check lets %g x pass (error %.3g)", in[i].name,
               GRADCHECK_MUTANT, mutant);
    }
  }
}

#endif
