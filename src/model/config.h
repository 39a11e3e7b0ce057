/* A model as configuration: one generic decoder block described by a struct that
 * an architecture table fills from a file's keys. No per-model forward. */
#ifndef IST_MODEL_CONFIG_H
#define IST_MODEL_CONFIG_H

#include "backend/backend.h"
#include "format/source.h"
#include "peft/peft.h"

/* How attention and MLP join the residual. n1, n2 are the norms ATTN_NORM and
 * FFN_NORM, p1, p2 the norms POST_ATTN_NORM and POST_FFN_NORM. */
typedef enum ist_block_kind {
  IST_BLOCK_PRE,        /* x += A(n1 x); x += M(n2 x) */
  IST_BLOCK_SANDWICH,   /* x += p1 A(n1 x); x += p2 M(n2 x) */
  IST_BLOCK_PARALLEL_1, /* x += A(n1 x) + M(n1 x) */
  IST_BLOCK_PARALLEL_2, /* x += A(n1 x) + M(n2 x) */
  IST_BLOCK_POST        /* x = n1(x + A x); x = n2(x + M x) */
} ist_block_kind;

/* One table of rotary angles. */
typedef struct ist_rope {
  float *freq;      /* (rope_dim / 2) angle per position; owned */
  float *freq_long; /* for sequences longer than `original`; NULL: the same. Owned */
  double mscale;    /* multiplies cos and sin */
  int64_t original;
  double theta, dynamic; /* factor of dynamic NTK beyond `original`; 0: none */
} ist_rope;

/* What differs from layer to layer. */
typedef struct ist_layer_config {
  int64_t window; /* a query sees keys with 0 <= q - k < window; 0: all */
  int rope;       /* index of its table, -1: not rotated */
  bool dense;     /* one MLP, in a model of experts */
} ist_layer_config;

/* The family as its tensors are named in a Hugging Face folder; '#' is the layer.
 * Indexed by ist_tensor_id; NULL: no such tensor. */
typedef const char *const *ist_hf_names;

struct ist_arch;

typedef struct ist_model_config {
  const struct ist_arch *family;
  char arch[32]; /* GGUF's name, which adapters for llama.cpp carry: "llama" */
  char name[128];
  int64_t L, D, F, H, K, E, V;
  int64_t context; /* tokens the model was made for */

  ist_block_kind block;
  ist_norm_kind norm;
  double norm_eps;
  bool qk_norm; /* an RMS norm of every q and k head, before rotation */

  int64_t rope_dim;      /* rotated part of each head; 0: none */
  bool rope_interleaved; /* pairs (2j, 2j+1); else (j, j + rope_dim / 2) */
  ist_rope rope[2];
  ist_layer_config *layer; /* (L) owned; NULL: no window, rope[0] */
  int64_t positions;       /* rows of a learned position table; 0: none */
  int64_t position_offset; /* row of position 0 */
  float *alibi;            /* (H) slopes, owned; NULL: none */

  double attn_scale;                  /* of q.k */
  double attn_softcap, final_softcap; /* 0: none */

  ist_act_kind act;
  bool gated;
  /* A mixture: MLPs of width expert_F that a token chooses from (0: none), and one of
   * width shared_F, times the sigmoid of a product, that all go through (0: none). */
  int64_t experts, experts_used, expert_F, shared_F;
  bool renormalise; /* the chosen experts' weights add up to 1 */
  double embed_scale;
  int64_t embed_dim; /* width of embedding and head where it is not D; 0: D */
  bool embed_norm, no_final_norm;
  bool tied; /* the output head is the embedding */

  /* how weights are stored */
  bool fused_qkv, fused_gate_up; /* one linear for q, k, v; for gate and up */
  bool grouped_qkv;              /* its rows in the file: per key/value head q.., k, v */
  bool transposed;               /* linears are (in, out) in the file: GPT-2's Conv1D */
  bool permuted_qk;              /* q, k rows are in ggml's order (see docs/formats.md) */
} ist_model_config;

/* Of embedding and head. */
static inline int64_t ist_embed_width(const ist_model_config *c) {
  return c->embed_dim ? c->embed_dim : c->D;
}

/* A row of the architecture table: defaults, and what its files' keys change. */
typedef struct ist_arch {
  const char *gguf; /* general.architecture; NULL: llama.cpp does not know the family */
  const char *hf;   /* model_type of config.json; NULL: see the row of another name */
  const char *title;
  ist_hf_names names;
  ist_norm_kind norm; /* as stored in a folder; rms1 becomes rms in a GGUF */
  ist_block_kind block;
  ist_act_kind act;
  bool gated, fixed_act; /* fixed_act: the folder's key does not count */
  double eps, theta;     /* where the folder has no key */
  int64_t H, K, E;       /* likewise; 0: no default, H, D / H */
  bool ggml_permutes_qk; /* the GGUF's q, k rows are for interleaved rotation */
  bool hf_transposes;    /* the folder's linears are (in, out): Conv1D */
  bool hf_groups_qkv;    /* the folder's q, k, v rows come by head; a GGUF's never */
  bool experts;          /* models of experts: tells rows of one GGUF name apart */
  ist_status (*adapt)(ist_model_config *c, const ist_source *s, ist_error *err); /* may be NULL */
} ist_arch;

/* Rows, in the order they are listed to people; NULL after the last. */
const ist_arch *ist_arch_at(int64_t i);
/* Tables of rows, one a file. */
typedef struct ist_arch_table {
  const ist_arch *row;
  int64_t n;
} ist_arch_table;
extern const ist_arch_table ist_arch_llama, ist_arch_gemma, ist_arch_layernorm;

/* Finds the row by general.architecture or model_type, fills and checks. */
ist_status ist_model_config_read(ist_model_config *c, const ist_source *s, ist_error *err);
void ist_model_config_free(ist_model_config *c);

/* Layer l's own settings. */
ist_layer_config ist_model_layer(const ist_model_config *c, int64_t l);
/* Layer l's MLP is a mixture of experts. */
bool ist_model_mixture(const ist_model_config *c, int64_t l);
/* The layers of one MLP, and those of experts. */
int64_t ist_model_dense_layers(const ist_model_config *c);
/* Layer l has linears of this module. */
bool ist_model_has(const ist_model_config *c, int64_t l, ist_module m);

/* Sizes of the linears of the layers, by module: of those of experts too, where there are any. */
void ist_model_linear_sizes(const ist_model_config *c, ist_linear_sizes *out);

/* ---- Keys of a file, for the rows (keys.c) ------------------------------------
 * gguf is looked up as "{arch}.{gguf}"; hf in config.json, its text_config first,
 * several names separated by '|'. NULL: the source has no such key; null counts as
 * absent. `*out` is left alone when the key is absent and `required` is false. */
ist_status ist_key_i64(const ist_source *s, const char *gguf, const char *hf, bool required,
                       int64_t *out, ist_error *err);
ist_status ist_key_f64(const ist_source *s, const char *gguf, const char *hf, bool required,
                       double *out, ist_error *err);
ist_status ist_key_bool(const ist_source *s, const char *gguf, const char *hf, bool required,
                        bool *out, ist_error *err);
/* A value of config.json, borrowed; NULL: absent, null, or a GGUF. */
const json_t *ist_key_json(const ist_source *s, const char *hf);
/* Copies a string, cut to size; empty where absent. */
ist_status ist_key_str(const ist_source *s, const char *gguf, const char *hf, char *out,
                       size_t size, ist_error *err);

/* Rotary tables from the file's keys and side tensors (rope.c). rope_dim is set.
 * settings: the object that holds the rotary keys of config.json, NULL: the config. */
ist_status ist_rope_read(ist_rope *r, const ist_model_config *c, const ist_source *s,
                         const char *settings, double theta, ist_error *err);
/* The plain table of a base. */
ist_status ist_rope_plain(ist_rope *r, int64_t dim, double theta, ist_error *err);

#endif
