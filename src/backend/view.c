#include <math.h>

#include "backend/backend.h"

/* The address of element (row, col): plain types only, where a block is one element. */
static void *element(ist_view v, int64_t row, int64_t col) {
  const ist_dtype_info *type = ist_dtype_get(v.dt);
  IST_ASSERT(type->block == 1);
  return v.p != NULL ? (char *)v.p + (row * v.stride + col) * type->bytes : NULL;
}

ist_view ist_view_rows(ist_view v, int64_t begin, int64_t rows) {
  IST_ASSERT(begin >= 0 && rows >= 0 && begin + rows <= v.rows);
  v.p = element(v, begin, 0);
  v.rows = rows;
  return v;
}

ist_view ist_view_cols(ist_view v, int64_t col, int64_t cols) {
  IST_ASSERT(col >= 0 && cols >= 0 && col + cols <= v.cols);
  v.p = element(v, 0, col);
  v.cols = cols;
  return v;
}

uint32_t ist_dropout_threshold(double p) {
  double words = floor(p * 65536.0 + 0.5);
  if (!(words > 0.0)) return 0;
  return words < 65536.0 ? (uint32_t)words : 65536;
}
