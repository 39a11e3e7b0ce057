#include "backend/cpu/simd/dot.h"

INLINE vu broadcast(const void *unit) {
  uint32_t u;
  memcpy(&u, unit, sizeof u);
  return u - (vu){0};
}

/* With constant rows, vectors and dot_bf16 the accumulators are registers. */
INLINE void run(float *c, int64_t ldc, const char *a, int64_t a_row, int64_t a_step,
                const uint32_t *b, int64_t n, bool add, int rows, int vectors, bool dot_bf16) {
  vf sum[MR][2];
  UNROLL for (int i = 0; i < MR; i++) {
    if (i < rows) {
      sum[i][0] = add ? vf_load(c + i * ldc) : (vf){0};
      if (vectors > 1) sum[i][1] = add ? vf_load(c + i * ldc + VL) : (vf){0};
    }
  }
  for (int64_t p = 0; p < n; p++, a += a_step, b += NR) {
    vu b0 = *(const vu_mem *)b, b1 = b0;
    if (vectors > 1) b1 = *(const vu_mem *)(b + VL);
    UNROLL for (int i = 0; i < MR; i++) {
      if (i < rows) {
        vu x = broadcast(a + i * a_row);
        sum[i][0] = vf_dot(sum[i][0], x, b0, dot_bf16);
        if (vectors > 1) sum[i][1] = vf_dot(sum[i][1], x, b1, dot_bf16);
      }
    }
  }
  UNROLL for (int i = 0; i < MR; i++) {
    if (i < rows) {
      vf_store(c + i * ldc, sum[i][0]);
      if (vectors > 1) vf_store(c + i * ldc + VL, sum[i][1]);
    }
  }
}

#define HEIGHT(rows, vectors)                                         \
  case rows * 2 + vectors - 1:                                        \
    if (BF16_DOT && dot_bf16) {                                       \
      run(c, ldc, a, a_row, a_step, b, n, add, rows, vectors, true);  \
    } else {                                                          \
      run(c, ldc, a, a_row, a_step, b, n, add, rows, vectors, false); \
    }                                                                 \
    break
#define HEIGHTS(rows) \
  HEIGHT(rows, 1);    \
  HEIGHT(rows, 2)

void SIMD(tile)(float *c, int64_t ldc, const void *a, int64_t a_row, int64_t a_step, const void *b,
                int64_t n, bool add, int rows, int vectors, bool dot_bf16) {
  switch (rows * 2 + vectors - 1) {
    HEIGHTS(1);
    HEIGHTS(2);
    HEIGHTS(4);
#if VL == 16
    HEIGHTS(8);
#endif
#if MR > 4
    HEIGHTS(MR);
#endif
    default: break;
  }
}
