/* The kernels of one level, for the table of the same level. */
#ifndef IST_CPU_SIMD_TABLE_H
#define IST_CPU_SIMD_TABLE_H

#include "backend/cpu/simd/simd.h"
#include "backend/cpu/simd/vec.h"

void SIMD(gemm_plan)(ist_gemm *g, int threads);
int64_t SIMD(gemm_pack_bytes)(int64_t k, bool bf16);

#define KERNEL(name) void SIMD(name)(void *arg, int64_t begin, int64_t end, int thread)
KERNEL(gemm);
KERNEL(copy);
KERNEL(add);
KERNEL(scale);
KERNEL(dropout);
KERNEL(row_dot);
KERNEL(gain_mix);
KERNEL(mul_cols);
KERNEL(add_bias);
KERNEL(col_dot);
KERNEL(norm_fwd);
KERNEL(norm_bwd);
KERNEL(norm_bwd_params);
KERNEL(rope);
KERNEL(act_fwd);
KERNEL(act_bwd);
KERNEL(xent_tile);
KERNEL(xent_grad);
KERNEL(adamw);
KERNEL(sumsq);
KERNEL(attention_fwd);
KERNEL(attention_one);
KERNEL(attention_bwd);
KERNEL(stored);
void SIMD(stored_input)(ist_stored_chunk *to, const float *x, int64_t n);
int64_t SIMD(attention_scratch)(int64_t heads, int64_t E);

/* Bytes of an element, and the address of a row, of a view that kernels take. */
INLINE int64_t width_of(const ist_view *v) {
  return v->dt == IST_BF16 ? 2 : 4;
}
INLINE void *row_of(const ist_view *v, int64_t row) {
  return (char *)v->p + row * v->stride * width_of(v);
}
INLINE bool is_bf16(const ist_view *v) {
  return v->dt == IST_BF16;
}

/* Runs `body`, an INLINE function, with its last arguments x and y (does a view hold
 * BF16?) known to the compiler in the two common cases. */
#define BY_TYPE(x, y, body, ...)       \
  do {                                 \
    if ((x) && (y)) {                  \
      body(__VA_ARGS__, true, true);   \
    } else if (!(x) && !(y)) {         \
      body(__VA_ARGS__, false, false); \
    } else {                           \
      body(__VA_ARGS__, (x), (y));     \
    }                                  \
  } while (0)

#endif
