/* Element and block types of tensors, and scalar conversions. */
#ifndef IST_BASE_DTYPE_H
#define IST_BASE_DTYPE_H

#include <stdint.h>
#include <string.h>

typedef enum ist_dtype {
  IST_F32,
  IST_F64,
  IST_F16,
  IST_BF16,
  IST_I8,
  IST_I16,
  IST_I32,
  IST_I64,
  IST_U8,
  IST_Q4_0,
  IST_Q4_1,
  IST_Q5_0,
  IST_Q5_1,
  IST_Q8_0,
  IST_Q2_K,
  IST_Q3_K,
  IST_Q4_K,
  IST_Q5_K,
  IST_Q6_K,
  IST_IQ4_NL,
  IST_IQ4_XS,
  IST_DTYPE_COUNT
} ist_dtype;

typedef struct ist_dtype_info {
  const char *name; /* as llama.cpp prints it: "F32", "Q4_K", ... */
  int block;        /* elements in a block (1 for plain types) */
  int bytes;        /* bytes of a block */
  int ggml;         /* id in a GGUF file, -1 where GGUF has none */
} ist_dtype_info;

const ist_dtype_info *ist_dtype_get(ist_dtype t);
/* Finds a type by GGUF id or by name (any case); -1 when unknown. */
int ist_dtype_from_ggml(uint32_t ggml_id);
int ist_dtype_from_name(const char *name);
static inline int ist_dtype_is_quantised(ist_dtype t) {
  return t >= IST_Q4_0;
}
/* Bytes of `n` elements, n a multiple of the block. */
static inline int64_t ist_dtype_bytes(ist_dtype t, int64_t n) {
  const ist_dtype_info *d = ist_dtype_get(t);
  return n / d->block * d->bytes;
}

typedef uint16_t ist_bf16;
typedef uint16_t ist_f16;

static inline float ist_bf16_to_f32(ist_bf16 h) {
  uint32_t u = (uint32_t)h << 16;
  float f;
  memcpy(&f, &u, sizeof f);
  return f;
}
/* Round to nearest even; NaN stays a (quiet) NaN. */
static inline ist_bf16 ist_f32_to_bf16(float f) {
  uint32_t u;
  memcpy(&u, &f, sizeof u);
  if ((u & 0x7fffffffu) > 0x7f800000u) return (ist_bf16)((u >> 16) | 64);
  return (ist_bf16)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}
float ist_f16_to_f32(ist_f16 h);
ist_f16 ist_f32_to_f16(float f);

#endif
