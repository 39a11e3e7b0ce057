/* A model as configuration: one generic decoder block described by a struct that
 * an architecture table fills from a file's keys. No per-model forward. */
#ifndef IST_MODEL_CONFIG_H
#define IST_MODEL_CONFIG_H

#include "backend/backend.h"
#include "format/gguf.h"
#include "peft/peft.h"

/* How attention and MLP join the residual. */
typedef enum ist_block_kind {
  IST_BLOCK_PRE /* x += A(n1 x); x += M(n2 x) */
} ist_block_kind;

typedef enum ist_position_kind { IST_POSITION_ROPE, IST_POSITION_NONE } ist_position_kind;

typedef struct ist_model_config {
  char arch[32]; /* GGUF's name: "llama" */
  char name[128];
  int64_t L, D, F, H, K, E, V;
  int64_t context; /* tokens the model was made for */

  ist_block_kind block;
  ist_norm_kind norm;
  double norm_eps;

  ist_position_kind position;
  int64_t rope_dim;      /* rotated part of each head */
  bool rope_interleaved; /* pairs (2j, 2j+1); else (j, j + rope_dim / 2) */
  double rope_mscale;
  float *rope_freq; /* (rope_dim / 2) angle per position; owned */

  double attn_scale;                  /* of q.k */
  double attn_softcap, final_softcap; /* 0: none */
  int64_t window;                     /* 0: none */

  ist_act_kind act;
  bool gated;
  bool tied;        /* the output head is the embedding */
  bool permuted_qk; /* q, k rows are in ggml's order (see docs/formats.md) */
} ist_model_config;

/* A row of the architecture table. */
typedef struct ist_arch {
  const char *name; /* general.architecture */
  ist_status (*fill)(ist_model_config *c, const ist_gguf *g, ist_error *err);
} ist_arch;

extern const ist_arch ist_arch_llama;

/* Reads general.architecture, finds the row, fills and checks the config. */
ist_status ist_model_config_read(ist_model_config *c, const ist_gguf *g, ist_error *err);
void ist_model_config_free(ist_model_config *c);

/* Sizes of the linears of a layer, by module. */
void ist_model_linear_sizes(const ist_model_config *c, ist_linear_sizes *out);

#endif
