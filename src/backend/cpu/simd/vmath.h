/* Elementary functions of vectors. The polynomials are minimax fits over the range
 * named beside them (Lawson's iteration in double), coefficients rounded to float. */
#ifndef IST_CPU_SIMD_VMATH_H
#define IST_CPU_SIMD_VMATH_H

#include "backend/cpu/simd/vec.h"

/* exp within 2 units in the last place; 0 below -105, infinite above 88.73, NaN
 * stays NaN. exp(x) = 2^n exp(r), |r| <= ln(2) / 2; ln(2) in two parts, of which
 * the first is short enough for n * it to be exact. */
INLINE vf vf_exp(vf x) {
  x = vf_min(vf_set(89.0f), vf_max(vf_set(-105.0f), x));
  vf n = vf_round(x * 1.44269504f);
  vf r = x - n * 0.693359375f;
  r = r + n * 2.12194440e-4f;
  vf q = r * 0.001381461275741458f + 0.008368710055947304f;
  q = q * r + 0.04166838899254799f;
  q = q * r + 0.1666652113199234f;
  q = q * r + 0.4999999403953552f;
  return vf_scale2(q * (r * r) + (r + 1.0f), n);
}

/* 1 / (1 + exp(-x)) */
INLINE vf vf_sigmoid(vf x) {
  return 1.0f / (1.0f + vf_exp(-x));
}

/* tanh within 2e-7 of its value: a polynomial below 0.6, where 1 - 2 / (1 + e^2x)
 * would cancel. */
INLINE vf vf_tanh(vf x) {
  vf z = x * x;
  vf p = z * -0.005905867088586092f + 0.02080538310110569f;
  p = p * z - 0.053786683827638626f;
  p = p * z + 0.13331958651542664f;
  p = p * z - 0.33333298563957214f;
  vf far = 1.0f - 2.0f / (1.0f + vf_exp(2.0f * x));
  return vf_select(vf_abs(x) < 0.6f, x + x * z * p, far);
}

/* erf within 2e-7: x p(x^2) below 1, 1 - exp(-x^2) g(1 / (1 + x/2)) above. */
INLINE vf vf_erf(vf x) {
  vf z = x * x, a = vf_abs(x);
  vf p = z * 7.889122935011983e-05f - 0.0008020842215046287f;
  p = p * z + 0.005189535673707724f;
  p = p * z - 0.026854444295167923f;
  p = p * z + 0.11283600330352783f;
  p = p * z - 0.3761262595653534f;
  p = p * z + 1.1283791065216064f;
  vf t = 1.0f / (1.0f + 0.5f * a);
  vf g = t * 0.006651680916547775f - 0.2540840804576874f;
  g = g * t + 0.6705425977706909f;
  g = g * t - 0.09065327048301697f;
  g = g * t + 0.40816494822502136f;
  g = g * t + 0.25707951188087463f;
  g = g * t + 0.002073617884889245f;
  vf far = 1.0f - g * vf_exp(-z);
  vf sign = (vf)((vi)x & (int32_t)0x80000000);
  return vf_select(a < 1.0f, x * p, (vf)((vi)far | (vi)sign));
}

#endif
