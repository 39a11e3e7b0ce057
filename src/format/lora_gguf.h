/* LoRA adapters as GGUF, the way llama.cpp loads them (--lora). Names and arrays
 * only; permutations of rows belong to the caller, who knows the model. */
#ifndef IST_FORMAT_LORA_GGUF_H
#define IST_FORMAT_LORA_GGUF_H

#include "base/error.h"

/* The update scale * B A of one base tensor, scale = alpha / r; of a stack of experts'
 * matrices, one for each. */
typedef struct ist_lora_pair {
  const char *name; /* of the base tensor: "blk.0.attn_q.weight" */
  int64_t in, out, r;
  int64_t experts; /* in the stack; 0: one matrix */
  const float *a;  /* ([experts,] r, in) */
  const float *b;  /* ([experts,] out, r) */
} ist_lora_pair;

/* A pair to write whose halves are made when their turn comes: half 0 is a, 1 is b; the
 * array is borrowed until the next call. */
typedef struct ist_lora_item {
  ist_lora_pair pair; /* a and b unused */
  const float *(*make)(void *user, int half);
  void *user;
} ist_lora_item;

/* Writes F32 tensors. `alpha` must not be 0, which the file takes for "no
 * scaling". A scale other than alpha / r (rsLoRA, rank or alpha patterns) has no
 * place in the format: fold it into b. Everything is borrowed. Atomic. */
ist_status ist_lora_gguf_write(const char *path, const char *architecture, float alpha,
                               const ist_lora_pair *pair, int64_t n, ist_error *err);
ist_status ist_lora_gguf_write_items(const char *path, const char *architecture, float alpha,
                                     const ist_lora_item *item, int64_t n, ist_error *err);

typedef struct ist_lora_gguf {
  char *architecture;
  double alpha; /* 0 or absent in the file: `scale` is 1, not alpha / r */
  int64_t n;
  ist_lora_pair *pair; /* arrays of f32, whatever the file's type; owned */
} ist_lora_gguf;

ist_status ist_lora_gguf_open(ist_lora_gguf **out, const char *path, ist_error *err);
void ist_lora_gguf_close(ist_lora_gguf *l);
/* alpha / r, or 1 where the file gives no alpha. */
double ist_lora_gguf_scale(const ist_lora_gguf *l, const ist_lora_pair *p);

#endif
