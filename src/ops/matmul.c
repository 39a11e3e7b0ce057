/* C = beta C + op(A) op(B), blocked so that small models run at a bearable speed:
 * a tile of op(B) and a strip of op(A) are copied to the stack in the order in
 * which the innermost loop reads them.
 *
 * The gradients are products again. Of Y = X W^T:  dX = dY W,  dW += dY^T X. */
#include "ops/ops.h"

#define TILE_N 64
#define TILE_K 64
#define STRIP  4

/* out[p][j] = op(B)[p0 + p][j0 + j], zero beyond the edge of a tile nj wide. */
static void pack_b(real out[TILE_K][TILE_N], const real *b, int64_t ldb, bool tb, int64_t p0,
                   int64_t np, int64_t j0, int64_t nj) {
  for (int64_t p = 0; p < np; p++) {
    for (int64_t j = 0; j < TILE_N; j++) {
      if (j >= nj) {
        out[p][j] = 0;
      } else {
        out[p][j] = tb ? b[(j0 + j) * ldb + p0 + p] : b[(p0 + p) * ldb + j0 + j];
      }
    }
  }
}

/* out[p][i] = op(A)[i0 + i][p0 + p] */
static void pack_a(real out[TILE_K][STRIP], const real *a, int64_t lda, bool ta, int64_t p0,
                   int64_t np, int64_t i0, int64_t ni) {
  for (int64_t p = 0; p < np; p++) {
    for (int64_t i = 0; i < STRIP; i++) {
      if (i >= ni) {
        out[p][i] = 0;
      } else {
        out[p][i] = ta ? a[(p0 + p) * lda + i0 + i] : a[(i0 + i) * lda + p0 + p];
      }
    }
  }
}

/* sum[i][j] = sum over p of at[p][i] * bt[p][j] */
static void multiply_tile(real sum[STRIP][TILE_N], real at[TILE_K][STRIP], real bt[TILE_K][TILE_N],
                          int64_t np) {
  for (int i = 0; i < STRIP; i++) {
    for (int j = 0; j < TILE_N; j++) sum[i][j] = 0;
  }
  for (int64_t p = 0; p < np; p++) {
    for (int i = 0; i < STRIP; i++) {
      real x = at[p][i];
#pragma omp simd
      for (int j = 0; j < TILE_N; j++) sum[i][j] += x * bt[p][j];
    }
  }
}

static void clear(real *c, int64_t ldc, int64_t m, int64_t n) {
  for (int64_t i = 0; i < m; i++) {
    for (int64_t j = 0; j < n; j++) c[i * ldc + j] = 0;
  }
}

static int64_t least(int64_t a, int64_t b) {
  return a < b ? a : b;
}

void ist_matmul(real *c, int64_t ldc, const real *a, int64_t lda, bool ta, const real *b,
                int64_t ldb, bool tb, int64_t m, int64_t n, int64_t k, int beta) {
  real at[TILE_K][STRIP], bt[TILE_K][TILE_N], sum[STRIP][TILE_N];
  if (beta == 0) clear(c, ldc, m, n);
  for (int64_t j0 = 0; j0 < n; j0 += TILE_N) {
    int64_t nj = least(TILE_N, n - j0);
    for (int64_t p0 = 0; p0 < k; p0 += TILE_K) {
      int64_t np = least(TILE_K, k - p0);
      pack_b(bt, b, ldb, tb, p0, np, j0, nj);
      for (int64_t i0 = 0; i0 < m; i0 += STRIP) {
        int64_t ni = least(STRIP, m - i0);
        pack_a(at, a, lda, ta, p0, np, i0, ni);
        multiply_tile(sum, at, bt, np);
        for (int64_t i = 0; i < ni; i++) {
          for (int64_t j = 0; j < nj; j++) c[(i0 + i) * ldc + j0 + j] += sum[i][j];
        }
      }
    }
  }
}
