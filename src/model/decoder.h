/* The decoder: what one work item of the schedule does, over the table of
 * operations. No tape: forward keeps what backward of the same layer needs in
 * numbered slots that the schedule assigns, and backward is written by hand.
 *
 * One layer, with the names of its buffers (h is one shared buffer):
 *   h = n1(x)          q, k, v = lin(h), rotated      o = attention(q, k, v)
 *   xmid = x + lin(o)
 *   h = n2(xmid)       g, u = lin(h)                  a = act(g) * u
 *   x' = xmid + lin(a)
 * Other blocks (config.h) put norms behind attention and MLP, or let both read x.
 * Kept for backward: x, q, k, v, o, lse, xmid, g, u and the norms' statistics;
 * h and a are recomputed, and only where an active adapter wants them. */
#ifndef IST_MODEL_DECODER_H
#define IST_MODEL_DECODER_H

#include "model/weights.h"

/* One micro-batch: packed segments, no padding but the last rows up to a bucket
 * (`rows`), which are zero and belong to no segment. Host memory, borrowed. */
typedef struct ist_micro {
  int64_t n, rows;         /* tokens; rows of the products, n <= rows */
  const int32_t *ids;      /* (n) */
  const int32_t *target;   /* (n) next token, -1 where not supervised; NULL: none */
  const int32_t *position; /* (rows) in the sample, for rotary and dropout */
  const int32_t *sample;   /* (rows) sample id, for dropout */
  const int32_t *group;    /* (rows) row group for suppression; NULL: one group */
  int64_t n_seg;
  const ist_attn_seg *seg; /* spans name store 0: the rows of this micro-batch,
                              or the KV cache when the pass has one */
  int64_t boundary_row;    /* first row of this micro-batch in the boundary slots */
  int64_t expert;          /* whose tokens these are, where a mixture sorts them; else 0 */
} ist_micro;

/* Keys and values kept across passes (generation). */
typedef struct ist_kv_cache {
  ist_view *k, *v;     /* (L) views of (rows, K*E), compute type */
  const int32_t *dest; /* row of the cache for each token of the pass */
} ist_kv_cache;

/* What all work items of a pass share. */
typedef struct ist_pass {
  const ist_micro *micro;
  bool train;            /* dropout on; adapters' u kept where active */
  const uint8_t *active; /* (L) layers whose adapters get gradients; NULL: none */
  const float *factor;   /* (groups, L) suppression; NULL: none */
  int64_t lowest;        /* backward stops here: lowest active layer */
  double loss_weight;    /* 1 / supervised tokens of the optimizer batch */
  uint64_t seed;         /* dropout */
  uint32_t step;
  ist_kv_cache *cache; /* NULL: none */
  double *row_loss;    /* (supervised tokens) in row order; filled by HEAD */
} ist_pass;

typedef enum ist_work_op {
  IST_WORK_EMBED,
  IST_WORK_FWD,
  IST_WORK_HEAD,
  IST_WORK_BWD,
  IST_WORK_EMBED_BWD, /* behind layer 0, where the embedding has an adapter */
  IST_WORK_PAGES      /* between layers, layer order: drop what `layer` used, read `in` ahead */
} ist_work_op;

/* One item of the schedule: the order of work is data. Slots name buffers. */
typedef struct ist_work {
  uint8_t op;
  uint8_t recompute; /* BWD: IST_RECOMPUTE_* to redo first */
  bool backward;     /* HEAD: gradients follow */
  int16_t layer;
  int32_t micro;
  int32_t in, out;        /* boundary slots (FWD may have in == out) */
  int32_t attn, mlp, low; /* slots of kept values */
} ist_work;

typedef enum ist_recompute {
  IST_RECOMPUTE_NONE,
  IST_RECOMPUTE_MLP,
  IST_RECOMPUTE_LAYER
} ist_recompute;

/* Everything that sizes a decoder's memory; chosen by the plan. */
typedef struct ist_decoder_sizes {
  /* Passes (and heads) of at most this many rows multiply by the matrices as they are
   * stored; 0: never, which is how backward wants it. */
  int64_t stored_rows;
  ist_stored_how stored_how;
  ist_dtype compute;
  int64_t rows;          /* most rows of a micro-batch */
  int64_t longest;       /* longest segment, or the KV cache's rows */
  int64_t boundary_rows; /* rows of a boundary slot (all micro-batches, layer-major) */
  int64_t n_boundary, n_attn, n_mlp, n_low;
  int64_t dres_rows; /* rows of the residual gradient; 0: no backward */
  bool dropout;
  int64_t head_chunk; /* supervised tokens projected at a time */
  int64_t head_rows;  /* vocabulary rows of the head in scratch: V or a tile */
  ist_weight_policy policy;
  bool drop_pages;   /* pages of the file and of boundaries leave memory between layers */
  const char *spill; /* folder of the boundaries' scratch file; NULL: memory */
} ist_decoder_sizes;

/* Kept values of the attention half and of the MLP half of a layer. */
typedef struct ist_attn_acts {
  ist_view q, k, v, o, lse, xmid, stat1, stat2;
  ist_view qkv;                          /* q, k, v as columns, where one linear makes them */
  ist_view q_raw, k_raw, q_stat, k_stat; /* before their norms, where there are any */
  ist_view y1, y2, stat3, stat4;         /* what the norms behind attention and MLP read */
} ist_attn_acts;
typedef struct ist_mlp_acts {
  ist_view gate, up; /* gate absent: a plain MLP */
  ist_view both;     /* the two as columns, where one linear makes them */
} ist_mlp_acts;
typedef struct ist_low_acts {
  ist_view u[IST_SITE_COUNT];
} ist_low_acts;

/* Scratch of a mixture: inputs and outputs of one expert's tokens, or of all in the shared
 * expert; the routing. */
typedef struct ist_moe_buffers {
  ist_view h;                         /* (rows, D) the MLP's input, dense */
  ist_view sum;                       /* (rows, D) what the experts give together, wide */
  ist_view logits, weight;            /* (rows, experts), (rows, used) wide */
  ist_view x, y;                      /* (rows, D) */
  ist_view gate, up, a, u_in, u_out;  /* as wide as the widest expert; its tail is a's */
  ist_view w;                         /* (rows, 1) weights of an expert's tokens, wide */
  ist_view share_logit, share;        /* (rows, 1) weights of the shared expert, wide */
  ist_view dx, dlogits, dweight, dw;  /* backward, wide; dx (rows, D) */
  ist_view dlow;                      /* (rows, experts) dlogits in the compute type */
  int32_t *index;                     /* (rows, used) chosen */
  int32_t *row, *pair;                /* (rows) tokens of an expert, and which choice */
  int32_t *sample, *position, *group; /* (rows) theirs */
} ist_moe_buffers;

/* Scratch of the adapters on embedding (rows) and head (chunk). */
typedef struct ist_outer_buffers {
  ist_view u, du, b;                    /* embedding: (rows, rank) both, (width, rank) */
  ist_view head_u, head_x;              /* (chunk, rank); (chunk, width) with dropout */
  ist_view head_a, head_b;              /* in the compute type: (rank, width), (head rows, rank) */
  ist_view head_du, head_dlow, head_dx; /* (chunk, rank) wide, compute; (chunk, width) wide */
  int32_t *sample, *position;           /* (chunk) of each row of the chunk, for dropout */
} ist_outer_buffers;

typedef enum ist_arena_id {
  IST_ARENA_WEIGHTS,
  IST_ARENA_BOUNDARY,
  IST_ARENA_SAVED,
  IST_ARENA_FORWARD,
  IST_ARENA_BACKWARD,
  IST_ARENA_HEAD,
  IST_ARENA_SCRATCH,
  IST_ARENA_DECODER_COUNT
} ist_arena_id;
extern const char *const ist_arena_names[IST_ARENA_DECODER_COUNT];

typedef struct ist_decoder {
  const ist_model_config *config;
  ist_weights *weights;
  const ist_adapters *adapters; /* NULL: the model as it is */
  ist_ctx *ctx;
  ist_decoder_sizes sizes;
  ist_dtype compute, wide;
  ist_arena arena[IST_ARENA_DECODER_COUNT];
  ist_view *boundary; /* (n_boundary) of (boundary_rows, D) */
  ist_attn_acts *attn;
  ist_mlp_acts *mlp;
  ist_low_acts *low;
  /* forward scratch: h (rows, D + tail), a (rows, F + tail), y (rows, D) */
  ist_view h, a, y, x_dropped, a_compute, b_compute;
  float *row_factor;
  ist_view t; /* (rows, site rank) what the linears take, where it is not u */
  /* methods that do the linear themselves: scratch, and norms of rows of W + s B A,
   * (3 L, the layer's outputs), with what of them holds (L, the layer's matrices) */
  ist_view linear_wide, linear_narrow, gain, norm_product, norms;
  int64_t norm_column[IST_MOD_COUNT], norm_first[IST_MOD_COUNT], norm_matrices;
  uint8_t *norm_fresh;
  /* prefix: its keys and values in the compute type, and segments that see them */
  ist_view prefix_k, prefix_v;
  ist_attn_seg *prefix_seg;
  /* backward scratch: residual gradient (wide), and compute-type gradients */
  ist_view dres, dy, dwide, dout, dqkv, dq, dk, dv, dk_compute, dv_compute, da, du, dtmp;
  ist_view dside; /* parallel blocks: what the MLP adds to dres, wide */
  /* head: rows of x, normed, logits (chunk, V), gradients */
  ist_view head_x, head_h, head_stat, logits, run, tgt, head_dh, head_dx;
  ist_view head_p, head_dp; /* beside a projected head (chunk, embed_dim) */
  ist_moe_buffers moe;      /* mixtures of experts */
  ist_outer_buffers outer;  /* adapters on embedding and head */
  int32_t *table_rows;      /* (rows) rows of the position table */
  float *rope_freq;         /* angles of one sequence length (dynamic scaling) */
  int32_t *head_ids;
} ist_decoder;

/* Bytes of each arena for these sizes, without reserving anything. */
ist_status ist_decoder_measure(const ist_model_config *c, const ist_weights *w,
                               const ist_adapters *ad, const ist_backend *be,
                               const ist_decoder_sizes *s, size_t bytes[IST_ARENA_DECODER_COUNT],
                               ist_error *err);
/* Reserves the arenas. weights, adapters and ctx are borrowed until close. */
ist_status ist_decoder_open(ist_decoder *d, const ist_model_config *c, ist_weights *w,
                            const ist_adapters *ad, ist_ctx *ctx, const ist_decoder_sizes *s,
                            ist_error *err);
void ist_decoder_close(ist_decoder *d);

/* Fresh adapters: the method's initial values, for which W's rows are measured. */
void ist_decoder_init_adapters(ist_decoder *d, uint64_t seed);
/* Must follow every change of a layer's parameters (-1: all): what was derived from
 * them is derived again. */
void ist_decoder_adapters_changed(ist_decoder *d, int64_t layer);

/* Carries out one item. */
void ist_decoder_run(ist_decoder *d, const ist_pass *pass, const ist_work *work);

/* Logits (n, V), wide type, of rows [row0, row0 + n) of boundary slot `slot`;
 * n <= sizes.head_chunk. The view lies in the head arena until the next call. */
ist_view ist_decoder_logits(ist_decoder *d, int32_t slot, int64_t row0, int64_t n);

/* FLOPs that the mathematics needs for one token: a layer forward; backward
 * (full, or without input gradient); head forward and backward. Attention for a
 * token at the mean of `context` visible keys. Recompute is not counted. */
typedef struct ist_decoder_flops {
  double layer_fwd, layer_bwd, head_fwd, head_bwd;
} ist_decoder_flops;
ist_decoder_flops ist_decoder_count_flops(const ist_model_config *c, double context);

void ist_decoder_turn_pages(ist_decoder *d, const ist_work *w);

/* Parts, one file each (decoder_fwd.c, decoder_bwd.c, head.c). */
void ist_decoder_embed(ist_decoder *d, const ist_pass *p, const ist_work *w);
void ist_decoder_layer_fwd(ist_decoder *d, const ist_pass *p, const ist_work *w);
void ist_decoder_layer_bwd(ist_decoder *d, const ist_pass *p, const ist_work *w);
void ist_decoder_head(ist_decoder *d, const ist_pass *p, const ist_work *w);
/* The two halves of a layer forward, also used to recompute in backward. */
void ist_decoder_attn_fwd(ist_decoder *d, const ist_pass *p, const ist_work *w, ist_view x);
void ist_decoder_mlp_inner_fwd(ist_decoder *d, const ist_pass *p, const ist_work *w, ist_view x);
/* Activation, output projection and the norm behind it: d->y, and what that norm keeps. */
void ist_decoder_mlp_outer_fwd(ist_decoder *d, const ist_pass *p, const ist_work *w);
/* A mixture of experts (moe.c): y from the normed h; and from dy the gradient of h, into
 * dwide, and those of its adapters. All of forward is done again in backward: nothing of
 * it is kept. */
void ist_decoder_moe_fwd(ist_decoder *d, const ist_pass *p, int64_t layer, ist_view y);
void ist_decoder_moe_bwd(ist_decoder *d, const ist_pass *p, int64_t layer, ist_view dy);
/* The input of attention's or the MLP's linears into h: normed, or as it is. */
void ist_decoder_inner_norm(ist_decoder *d, const ist_pass *p, int64_t layer, ist_view x,
                            ist_view stat, int id);
/* A buffer of the widest MLP as (rows, cols) with room for `tail` more columns. */
static inline ist_view ist_decoder_fitted(ist_view v, int64_t rows, int64_t cols, int64_t tail) {
  return ist_view_make(v.p, v.dt, rows, cols, cols + tail);
}
/* The norm in front of the MLP: its own, or attention's where they share one. */
int ist_decoder_mlp_norm(const ist_model_config *c);
static inline bool ist_block_parallel(const ist_model_config *c) {
  return c->block == IST_BLOCK_PARALLEL_1 || c->block == IST_BLOCK_PARALLEL_2;
}
/* True where norms stand behind attention and MLP. */
static inline bool ist_block_norms_behind(const ist_model_config *c) {
  return c->block == IST_BLOCK_SANDWICH || c->block == IST_BLOCK_POST;
}

/* The rows of a boundary slot that belong to the pass's micro-batch; rotation in
 * place; the arguments of attention over one store. */
ist_view ist_decoder_boundary(const ist_decoder *d, const ist_pass *p, int32_t slot);
void ist_decoder_rope(ist_decoder *d, const ist_pass *p, int64_t layer, ist_view x, bool inverse);
ist_attn ist_decoder_attn_args(const ist_decoder *d, const ist_pass *p, int64_t layer,
                               const ist_kv *kv);

/* Where the adapters are a prefix, attention reads it as kv[1], before what segments
 * read; with its gradients where `grads` and the layer is active (prefix.c). */
void ist_decoder_add_prefix(ist_decoder *d, const ist_pass *p, int64_t layer, ist_attn *a,
                            ist_kv kv[2], bool grads);

/* Adapters on embedding and head (outer.c). e (n, width) += what the embedding's adapter adds;
 * its gradients, from dres. */
void ist_outer_embed_fwd(ist_decoder *d, const ist_pass *p, ist_view e);
void ist_outer_embed_bwd(ist_decoder *d, const ist_pass *p);
/* The head: u from what the head reads, once a chunk; then logits (n, tile) += u B^T, and from
 * dlogits du and dB, tile by tile; at last dA, and dh += (wide, or compute type). */
bool ist_outer_has_head(const ist_decoder *d);
void ist_outer_head_begin(ist_decoder *d, const ist_pass *p, ist_view h);
void ist_outer_head_fwd(ist_decoder *d, ist_view logits, int64_t row0);
void ist_outer_head_tiles(ist_decoder *d, ist_view logits); /* the same, all tiles */
void ist_outer_head_bwd(ist_decoder *d, ist_view dlogits, int64_t row0);
void ist_outer_head_end(ist_decoder *d, const ist_pass *p, ist_view dh, ist_view h);

/* A site's linears with their adapters (site.c). x is the site's input (rows,
 * in) in a buffer with the site's tail behind its columns; y by module order of
 * the site. */
void ist_site_fwd(ist_decoder *d, const ist_pass *p, int64_t layer, ist_site site, ist_view x,
                  ist_view u, const ist_view *y);
/* dx (wide or compute type) overwrites, p NULL: not needed; dy by module order. x and u are
 * read only where the layer is active. */
void ist_site_bwd(ist_decoder *d, const ist_pass *p, int64_t layer, ist_site site, ist_view dx,
                  const ist_view *dy, ist_view x, ist_view u);

#endif
