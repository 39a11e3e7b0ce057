/* Rotary positions; the formulas stand in src/ops/rope.c. */
#include "backend/cpu/simd/table.h"

/* Pairs whose angles are computed at a time. */
#define PAIRS 128

/* mscale * cos and sin of position * freq[j], j < n <= PAIRS, within 1e-7. The angle
 * is reduced by quarter turns in double, so that far positions keep their digits. */
static void turns(float *cosine, float *sine, double position, const float *freq, int64_t n,
                  double mscale) {
  const double magic = 6755399441055744.0; /* 1.5 * 2^52: adding it rounds */
  for (int64_t j = 0; j < n; j++) {
    double t = position * (double)freq[j];
    double quarter = (t * 0.63661977236758134308 + magic) - magic;
    double rest = t - quarter * 1.57079632679489655800;
    float x = (float)(rest - quarter * 6.12323399573676603587e-17), z = x * x;
    int q = (int)(quarter - 4.0 * (double)(int64_t)(quarter * 0.25)) & 3;
    float s =
        x +
        x * z * ((z * -0.00019516977772582322f + 0.008332176133990288f) * z - 0.16666655242443085f);
    float c =
        1.0f - 0.5f * z +
        z * z * ((z * 2.4438089894829318e-05f - 0.0013887364184483886f) * z + 0.04166664555668831f);
    float sin_t = q & 1 ? c : s, cos_t = q & 1 ? s : c;
    sine[j] = (float)mscale * (q & 2 ? -sin_t : sin_t);
    cosine[j] = (float)mscale * ((q + 1) & 2 ? -cos_t : cos_t);
  }
}

/* Pairs (j, j + half) for j < n, in every head. */
INLINE void turn_halves(char *x, int64_t heads, int64_t E, int64_t half, const float *c,
                        const float *s, int64_t n, bool bf16) {
  int64_t width = bf16 ? 2 : 4;
  for (int64_t h = 0; h < heads; h++) {
    char *first = x + h * E * width, *second = first + half * width;
    for (int64_t j = 0; j < n; j += VL) {
      vf a = row_load(first, bf16, j, n), b = row_load(second, bf16, j, n);
      vf cj = row_load(c, false, j, n), sj = row_load(s, false, j, n);
      row_store(first, bf16, j, n, a * cj - b * sj);
      row_store(second, bf16, j, n, a * sj + b * cj);
    }
  }
}

/* Pairs (2j, 2j + 1) for j < n: c and s hold each value twice, s with alternating sign. */
INLINE void turn_neighbours(char *x, int64_t heads, int64_t E, const float *c, const float *s,
                            int64_t n, bool bf16) {
  typedef uint64_t pairs __attribute__((vector_size(4 * VL)));
  int64_t width = bf16 ? 2 : 4;
  for (int64_t h = 0; h < heads; h++) {
    char *head = x + h * E * width;
    for (int64_t j = 0; j < 2 * n; j += VL) {
      vf a = row_load(head, bf16, j, 2 * n);
      vf swapped = (vf)(((pairs)a >> 32) | ((pairs)a << 32));
      vf cj = row_load(c, false, j, 2 * n), sj = row_load(s, false, j, 2 * n);
      row_store(head, bf16, j, 2 * n, a * cj + swapped * sj);
    }
  }
}

INLINE void rope_rows(const ist_rope_args *a, int64_t begin, int64_t end, bool bf16) {
  int64_t pairs = a->rot / 2, heads = a->x.cols / a->E, width = bf16 ? 2 : 4;
  float cosine[PAIRS], sine[PAIRS], c2[2 * PAIRS], s2[2 * PAIRS];
  for (int64_t r = begin; r < end; r++) {
    char *x = row_of(&a->x, r);
    for (int64_t j0 = 0; j0 < pairs; j0 += PAIRS) {
      int64_t n = pairs - j0 < PAIRS ? pairs - j0 : PAIRS;
      turns(cosine, sine, (double)a->position[r] * (a->inverse ? -1.0 : 1.0), a->freq + j0, n,
            a->mscale);
      if (!a->interleaved) {
        turn_halves(x + j0 * width, heads, a->E, pairs, cosine, sine, n, bf16);
        continue;
      }
      for (int64_t j = 0; j < n; j++) {
        c2[2 * j] = c2[2 * j + 1] = cosine[j];
        s2[2 * j] = -sine[j];
        s2[2 * j + 1] = sine[j];
      }
      turn_neighbours(x + 2 * j0 * width, heads, a->E, c2, s2, n, bf16);
    }
  }
}

KERNEL(rope) {
  (void)thread;
  const ist_rope_args *a = arg;
  if (is_bf16(&a->x)) {
    rope_rows(a, begin, end, true);
  } else {
    rope_rows(a, begin, end, false);
  }
}
