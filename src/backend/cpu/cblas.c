/* Dense products by a CBLAS library, F32 only: it stands in where oneDNN is missing.
 *
 * The library computes blocks of C on our threads, always the same ones, so that sums do
 * not depend on their number; its own threads are turned off where we know how. */
#include "backend/cpu/cpu.h"

#ifndef IST_HAVE_CBLAS

const ist_products *ist_products_cblas(void) {
  return NULL;
}

#else

#include <cblas.h>
#include <limits.h>

/* OpenBLAS has this; other libraries heed variables of their environment. */
void openblas_set_num_threads(int n) __attribute__((weak));

static ist_status open_cblas(void **state, ist_error *err) {
  (void)err;
  *state = NULL;
  if (openblas_set_num_threads) openblas_set_num_threads(1);
  return IST_OK;
}

static void close_cblas(void *state) {
  (void)state;
}

static bool fits(const ist_view *v) {
  return v->dt == IST_F32 && v->rows <= INT_MAX && v->cols <= INT_MAX && v->stride <= INT_MAX;
}

enum { BLOCK = 256 }; /* rows or columns of C, whichever are more */

static void multiply(const ist_gemm *g, int64_t row, int64_t rows, int64_t col, int64_t cols) {
  const ist_gemm_term *t = &g->term[0];
  const float *a = t->a.p, *b = t->b.p;
  cblas_sgemm(CblasRowMajor, t->ta ? CblasTrans : CblasNoTrans, t->tb ? CblasTrans : CblasNoTrans,
              (int)rows, (int)cols, (int)t->k, 1.0f, a + (t->ta ? row : row * t->a.stride),
              (int)t->a.stride, b + (t->tb ? col * t->b.stride : col), (int)t->b.stride,
              g->accumulate ? 1.0f : 0.0f, (float *)g->c.p + row * g->c.stride + col,
              (int)g->c.stride);
}

static void blocks(void *arg, int64_t begin, int64_t end, int thread) {
  (void)thread;
  const ist_gemm *g = arg;
  for (int64_t i = begin; i < end; i++) {
    if (g->c.rows >= g->c.cols) {
      int64_t left = g->c.rows - i * BLOCK;
      multiply(g, i * BLOCK, left < BLOCK ? left : BLOCK, 0, g->c.cols);
    } else {
      int64_t left = g->c.cols - i * BLOCK;
      multiply(g, 0, g->c.rows, i * BLOCK, left < BLOCK ? left : BLOCK);
    }
  }
}

/* Rows may lie apart. */
static bool run(void *state, const ist_gemm *g) {
  (void)state;
  const ist_gemm_term *t = &g->term[0];
  if (g->n_terms != 1 || g->bias != NULL || !fits(&g->c) || !fits(&t->a) || !fits(&t->b))
    return false;
  int64_t longest = g->c.rows > g->c.cols ? g->c.rows : g->c.cols;
  ist_parallel_for((longest + BLOCK - 1) / BLOCK, 1, blocks, (void *)(uintptr_t)g);
  return true;
}

const ist_products *ist_products_cblas(void) {
  static const ist_products cblas = {"CBLAS", open_cblas, close_cblas, run};
  return &cblas;
}

#endif
