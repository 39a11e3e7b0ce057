/* Quantised blocks: to f32 and bf16, and back. Layouts: ggml's block structs,
 * given as index formulas in docs/formats.md. */
#ifndef IST_FORMAT_QUANT_H
#define IST_FORMAT_QUANT_H

#include <stdbool.h>

#include "base/dtype.h"

/* False for integer types, which have no value as weights. */
bool ist_dequant_supported(ist_dtype t);
/* n elements (a multiple of the block) of a supported type t at src, which need
 * not be aligned. AVX-512 or AVX2 where the processor has them (but for Q2_K,
 * Q3_K and IQ4), else portable C; the results are the same to the bit.
 * The f32 results equal ggml's bit for bit; bf16 is f32 rounded to nearest even. */
void ist_dequant_f32(float *dst, const void *src, ist_dtype t, int64_t n);
void ist_dequant_bf16(ist_bf16 *dst, const void *src, ist_dtype t, int64_t n);
/* The portable forms, for tests and other machines. */
void ist_dequant_f32_portable(float *dst, const void *src, ist_dtype t, int64_t n);
void ist_dequant_bf16_portable(ist_bf16 *dst, const void *src, ist_dtype t, int64_t n);

/* True for types whose elements are integers by group of 32: Q4_0, Q4_1, Q5_0, Q5_1,
 * Q8_0, Q4_K, Q5_K, Q6_K. */
bool ist_quant_has_groups(ist_dtype t);
/* Group g of the row at src: element i is scale[i / 16] q[i] + offset[i / 16]. */
void ist_quant_group(uint8_t q[32], float scale[2], float offset[2], const void *src, ist_dtype t,
                     int64_t g);

/* Encodes f32 as llama.cpp does without an importance matrix. True when `t` can
 * be written: F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K, Q6_K. */
bool ist_quantise_supported(ist_dtype t);
void ist_quantise(void *dst, const float *src, ist_dtype t, int64_t n);

#endif
