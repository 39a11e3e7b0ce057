/* Normalisation of rows.
 *
 *   rms    h = x r w            r = 1 / sqrt(mean(x^2) + eps)
 *   rms1   h = x r (1 + w)
 *   layer  h = (x - mu) r w     r = 1 / sqrt(mean((x - mu)^2) + eps)
 *
 * plus bias. With y = (x - mu) r (mu = 0 for rms) and g = dh w:
 *   dx = r (g - y mean(g y) - [layer] mean(g)),  dw += dh y,  dbias += dh. */
#include "ops/ops.h"

#include <math.h>
#include <stddef.h>

static double weight_at(const real *w, int64_t j, ist_norm_kind kind) {
  if (w == NULL) return 1.0;
  return kind == IST_NORM_RMS1 ? 1.0 + (double)w[j] : (double)w[j];
}

void ist_norm_fwd(real *h, int64_t ldh, real *stat, int64_t ldstat, const real *x, int64_t ldx,
                  const real *w, const real *bias, int64_t N, int64_t D, ist_norm_kind kind,
                  double eps) {
  for (int64_t i = 0; i < N; i++) {
    const real *xi = x + i * ldx;
    real *hi = h + i * ldh;
    double mean = 0.0, square = 0.0;
    if (kind == IST_NORM_LAYER) {
      for (int64_t j = 0; j < D; j++) mean += (double)xi[j];
      mean /= (double)D;
    }
    for (int64_t j = 0; j < D; j++) {
      double d = (double)xi[j] - mean;
      square += d * d;
    }
    double r = 1.0 / sqrt(square / (double)D + eps);
    for (int64_t j = 0; j < D; j++) {
      double y = ((double)xi[j] - mean) * r * weight_at(w, j, kind);
      hi[j] = (real)(bias != NULL ? y + (double)bias[j] : y);
    }
    real *si = stat + i * ldstat;
    if (kind == IST_NORM_LAYER) *si++ = (real)mean;
    *si = (real)r;
  }
}

/* One row of dx. The means are complete before the first element is written, so
 * dx may be dh. */
static void norm_bwd_row(real *dx, bool acc, const real *dh, const real *x, const real *w,
                         double mean, double r, int64_t D, ist_norm_kind kind) {
  double sum_g = 0.0, sum_gy = 0.0;
  for (int64_t j = 0; j < D; j++) {
    double g = (double)dh[j] * weight_at(w, j, kind);
    sum_g += g;
    sum_gy += g * ((double)x[j] - mean) * r;
  }
  double mean_g = kind == IST_NORM_LAYER ? sum_g / (double)D : 0.0;
  double mean_gy = sum_gy / (double)D;
  for (int64_t j = 0; j < D; j++) {
    double g = (double)dh[j] * weight_at(w, j, kind);
    double y = ((double)x[j] - mean) * r;
    double d = r * (g - y * mean_gy - mean_g);
    dx[j] = (real)(acc ? (double)dx[j] + d : d);
  }
}

void ist_norm_bwd(real *dx, int64_t lddx, bool acc, real *dw, real *dbias, const real *dh,
                  int64_t lddh, const real *x, int64_t ldx, const real *w, const real *stat,
                  int64_t ldstat, int64_t N, int64_t D, ist_norm_kind kind) {
  bool layer = kind == IST_NORM_LAYER;
  for (int64_t i = 0; i < N; i++) {
    const real *dhi = dh + i * lddh, *xi = x + i * ldx;
    double mean = layer ? (double)stat[i * ldstat] : 0.0;
    double r = (double)stat[i * ldstat + (layer ? 1 : 0)];
    if (dw != NULL) {
      for (int64_t j = 0; j < D; j++) {
        dw[j] += (real)((double)dhi[j] * ((double)xi[j] - mean) * r);
      }
    }
    if (dbias != NULL) {
      for (int64_t j = 0; j < D; j++) dbias[j] += dhi[j];
    }
    if (dx != NULL) norm_bwd_row(dx + i * lddx, acc, dhi, xi, w, mean, r, D, kind);
  }
}
