/* Text generation with a KV cache, several sequences at a time. */
#ifndef IST_EVAL_GENERATOR_H
#define IST_EVAL_GENERATOR_H

#include "eval/session.h"

typedef struct ist_sampling {
  double temperature; /* 0: greedy */
  int64_t top_k;      /* 0: off */
  double top_p;       /* 1: off */
  uint64_t seed;
} ist_sampling;

/* The most tokens that may be asked for: many times what any model was made for. */
#define IST_MAX_REGION (INT64_C(1) << 24)

/* One sequence: its region of the cache and what it has produced. */
typedef struct ist_sequence {
  int64_t row0;   /* first row of its region */
  int64_t length; /* tokens in the cache */
  int32_t next;   /* token to feed next */
  bool done;
} ist_sequence;

typedef struct ist_generator {
  ist_model *model;
  ist_decoder decoder;
  ist_arena cache_memory;
  ist_kv_cache cache;
  int64_t rows;          /* tokens a pass */
  int64_t n_seq, region; /* sequences, and cache rows of each */
  ist_sequence *seq;
  /* one pass */
  int32_t *ids, *position, *dest;
  ist_attn_seg *seg;
  ist_schedule schedule;
  /* sampling */
  float *prob;
  int32_t *candidate;
} ist_generator;

/* What multiplies the rows of a step: the compute type's matrix products, or the matrices
 * as they are stored, in float or in integers (ist_stored_how). */
typedef enum ist_step_products { IST_STEP_MATRIX, IST_STEP_FLOAT, IST_STEP_INT8 } ist_step_products;

/* Room for n_seq sequences of up to `region` tokens, prompt and answer together. */
ist_status ist_generator_open(ist_generator *g, ist_model *m, int64_t n_seq, int64_t region,
                              ist_step_products products, ist_error *err);
void ist_generator_close(ist_generator *g);

/* Sequence s is a prompt of n >= 1 tokens, of which its cache holds the first `kept` < n
 * (0: it starts anew); logits (V floats, borrowed until the next call) of the token that
 * follows. */
const float *ist_generator_prompt(ist_generator *g, int64_t s, const int32_t *ids, int64_t n,
                                  int64_t kept);
/* Feeds seq[s].next of every sequence that is not done, in one pass: row i of the
 * result is the i-th such sequence's. Their number goes to *n. */
ist_view ist_generator_step(ist_generator *g, int64_t *n);

/* Chooses a token from V logits; draws depend on (seed, token number) only. top_k cuts first
 * (of equal logits the first ids stay), top_p then counts the share of what is left. */
int32_t ist_sample_token(ist_generator *g, const float *logits, const ist_sampling *s,
                         int64_t number);

#endif
