/* Activations, plain y = f(g) or gated y = f(g) u, element by element.
 *   dg = dy u f'(g),  du = dy f(g). */
#include "ops/ops.h"

#include <math.h>
#include <stddef.h>

#define INV_SQRT_2     0.70710678118654752440
#define INV_SQRT_2PI   0.39894228040143267794
#define SQRT_2_OVER_PI 0.79788456080286535588
#define GELU_CUBIC     0.044715

typedef struct curve {
  double f, df;
} curve;

/* f(x) = x / (1 + exp(-x)) */
static curve silu(double x) {
  double s = 1.0 / (1.0 + exp(-x));
  return (curve){x * s, s + x * s * (1.0 - s)};
}

/* f(x) = x Phi(x), Phi the normal distribution */
static curve gelu_erf(double x) {
  double phi = 0.5 * (1.0 + erf(x * INV_SQRT_2));
  return (curve){x * phi, phi + x * INV_SQRT_2PI * exp(-0.5 * x * x)};
}

/* f(x) = x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2 */
static curve gelu_tanh(double x) {
  double t = tanh(SQRT_2_OVER_PI * (x + GELU_CUBIC * x * x * x));
  double slope = SQRT_2_OVER_PI * (1.0 + 3.0 * GELU_CUBIC * x * x);
  return (curve){0.5 * x * (1.0 + t), 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * slope};
}

/* f(x) = 1 / (1 + exp(-x)) */
static curve sigmoid(double x) {
  double s = 1.0 / (1.0 + exp(-x));
  return (curve){s, s * (1.0 - s)};
}

static curve activate(double x, ist_act_kind kind) {
  switch (kind) {
    case IST_ACT_SILU: return silu(x);
    case IST_ACT_GELU_ERF: return gelu_erf(x);
    case IST_ACT_GELU_TANH: return gelu_tanh(x);
    case IST_ACT_RELU: return x < 0.0 ? (curve){0.0, 0.0} : (curve){x, x == 0.0 ? 0.0 : 1.0};
    case IST_ACT_SIGMOID: return sigmoid(x);
    case IST_ACT_TANH: break;
  }
  double t = tanh(x);
  return (curve){t, 1.0 - t * t};
}

void ist_act_fwd(real *y, const real *g, const real *u, int64_t n, ist_act_kind kind) {
  for (int64_t i = 0; i < n; i++) {
    double f = activate((double)g[i], kind).f;
    y[i] = (real)(u != NULL ? f * (double)u[i] : f);
  }
}

/* Everything is read before anything is written: the outputs may lie on the inputs. */
void ist_act_bwd(real *dg, real *du, real *y, const real *dy, const real *g, const real *u,
                 int64_t n, ist_act_kind kind) {
  for (int64_t i = 0; i < n; i++) {
    curve c = activate((double)g[i], kind);
    double d = (double)dy[i], gate = u != NULL ? (double)u[i] : 1.0;
    if (dg != NULL) dg[i] = (real)(d * gate * c.df);
    if (du != NULL) du[i] = (real)(d * c.f);
    if (y != NULL) y[i] = (real)(c.f * gate);
  }
}
