/* The kernels of one instruction set, and the arguments they run on.
 *
 * A kernel is an ist_parallel_fn: it works on items [begin, end) of what its
 * arguments describe, so that a slot only fills the arguments and spreads them
 * with ist_parallel_for. Views are F32 or BF16; arithmetic is in float. */
#ifndef IST_CPU_SIMD_H
#define IST_CPU_SIMD_H

#include "backend/backend.h"
#include "base/parallel.h"

/* ---- Matrix products: items are blocks of C --------------------------------- */

/* op(A) (m, k) op(B) (k, n); a transposed operand is stored with the sizes swapped. */
typedef struct ist_gemm_term {
  ist_view a, b;
  bool ta, tb;
  int64_t k;
} ist_gemm_term;

/* C = [C +] sum of the terms + bias (F32, one per column; NULL: none). Sums over k
 * in one fixed order, whatever the blocks. */
typedef struct ist_gemm {
  ist_view c;
  int n_terms;
  ist_gemm_term term[2];
  const float *bias;
  bool accumulate;
  /* Set by plan: C is computed transposed (its columns are broadcast), in blocks of
   * row_block x col_block, each thread packing into its part of `pack`. */
  bool swapped, dot_bf16;
  int64_t row_block, col_block, n_items, pack_bytes;
  char *pack;
} ist_gemm;

/* ---- The table ---------------------------------------------------------------- */

typedef struct ist_simd {
  const char *name;
  int lanes;
  bool bf16_dot; /* multiplies BF16 natively */
  /* Chooses the blocks for `threads`; pack_bytes is what each thread needs, never
   * more than gemm_pack_bytes of the summed length of the terms. */
  void (*gemm_plan)(ist_gemm *g, int threads);
  int64_t (*gemm_pack_bytes)(int64_t k, bool bf16);
  ist_parallel_fn gemm;
} ist_simd;

extern const ist_simd ist_simd_portable_table;
#ifdef IST_SIMD_X86
extern const ist_simd ist_simd_avx2_table, ist_simd_avx512_table, ist_simd_avx512_bf16_table;
#endif

#endif
