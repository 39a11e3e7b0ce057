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

/* ---- Rows: items are rows of the views -------------------------------------- */

/* copy: y = a;  add: y = a + b. y may be a. */
typedef struct ist_move_args {
  ist_view y, a, b;
} ist_move_args;

/* y *= s * row_scale[r]; row_scale NULL: 1. */
typedef struct ist_scale_args {
  ist_view y;
  double s;
  const float *row_scale;
} ist_scale_args;

/* The slots of the same names (backend.h); v and x are `a`. Items are rows, those of
 * col_dot groups of IST_NORM_COLS columns; without b it sums a, without g s is the scale. */
typedef struct ist_gain_args {
  ist_view y, a, b, g, bias;
  double s;
  const float *row_scale;
} ist_gain_args;

/* y = mask(x), or y += mask(x). */
typedef struct ist_dropout_args {
  ist_view y, x;
  bool accumulate;
  uint32_t threshold, step, layer_site;
  ist_philox_key key;
  const int32_t *sample, *position;
} ist_dropout_args;

/* Forward: h, stat, x, w, bias, eps. Backward: h holds dh; dx, dw, dbias. The items
 * of norm_bwd_params are groups of IST_NORM_COLS columns, summed over all rows. */
typedef struct ist_norm_args {
  ist_view h, stat, x, w, bias, dx, dw, dbias;
  ist_norm_kind kind;
  double eps;
  bool accumulate;
} ist_norm_args;
#define IST_NORM_COLS 64

typedef struct ist_rope_args {
  ist_view x;
  const int32_t *position;
  const float *freq;
  int64_t rot, E;
  bool interleaved, inverse;
  double mscale;
} ist_rope_args;

/* Forward: y, g, u. Backward: dg, du, y, dy, g, u. */
typedef struct ist_act_args {
  ist_view y, g, u, dg, du, dy;
  ist_act_kind kind;
} ist_act_args;

/* `run` and `tgt` F32 or F64. */
typedef struct ist_xent_args {
  ist_view run, tgt, logits, dlogits;
  const int32_t *target;
  int64_t col0;
  double softcap, weight;
  bool first;
} ist_xent_args;

/* ---- Parameters: items are pieces of IST_PIECE elements of one block ---------- */

#define IST_PIECE 4096
typedef struct ist_adamw_args {
  float *w, *m, *v;
  const float *g;
  int64_t n;
  double step, root, beta1, beta2, eps, decay, grad_scale; /* see adamw.c */
} ist_adamw_args;

/* partial[i] = sum of squares of pieces [i * per, (i + 1) * per); items are i. */
typedef struct ist_sumsq_args {
  const void *g;
  bool bf16;
  int64_t n, per;
  double *partial;
} ist_sumsq_args;

/* ---- Attention: items are blocks of queries forward, segments backward ---------- */

#define IST_ATTENTION_QUERIES 64
#define IST_ATTENTION_KEYS    64
typedef struct ist_attention_args {
  ist_view o, lse, q, dq, dout;
  const ist_attn *a;
  bool serial;   /* backward: items are key/value heads */
  char *scratch; /* scratch_bytes for each thread */
  int64_t scratch_bytes;
} ist_attention_args;

/* ---- Few rows times stored matrices: items are rows of W, one matrix after another -- */

#define IST_STORED_CHUNK 128
/* 128 elements of a row of x as bytes: x = d p for every 32; sums of d p for every 32
 * and every 16. */
typedef struct ist_stored_chunk {
  int8_t q[IST_STORED_CHUNK];
  float d[4], sum[4], half_sum[8];
} ist_stored_chunk;

/* x and u of a linear: as bytes (rows `chunks` apart; NULL: in float) or in float. */
typedef struct ist_stored_operand {
  const ist_stored_chunk *bytes;
  const float *x, *u;
  int64_t chunks, ldx, ldu;
} ist_stored_operand;

typedef struct ist_stored_args {
  const ist_stored_linear *l;
  const ist_stored_operand *in;
  int n;
} ist_stored_args;

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
  ist_parallel_fn copy, add, scale, dropout;
  ist_parallel_fn row_dot, gain_mix, mul_cols, add_bias, col_dot;
  ist_parallel_fn norm_fwd, norm_bwd, norm_bwd_params, rope, act_fwd, act_bwd;
  ist_parallel_fn xent_tile, xent_grad;
  ist_parallel_fn adamw, sumsq;
  ist_parallel_fn attention_fwd, attention_bwd;
  ist_parallel_fn attention_one; /* forward of segments of one query: items are their heads */
  ist_parallel_fn stored;
  /* n elements of x to chunks; those that fill the last one up are 0. */
  void (*stored_input)(ist_stored_chunk *to, const float *x, int64_t n);
  int64_t (*attention_scratch)(int64_t heads,
                               int64_t E); /* bytes a thread; heads per key/value head */
} ist_simd;

extern const ist_simd ist_simd_portable_table;
#ifdef IST_SIMD_X86
extern const ist_simd ist_simd_avx2_table, ist_simd_avx512_table, ist_simd_avx512_bf16_table;
#endif

#endif
