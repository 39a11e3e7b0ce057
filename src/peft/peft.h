/* Adapters: parameters attached to a layer, by a method table.
 *
 * The linears of a decoder layer form input sites: linears that read the same
 * input (q, k, v; o; gate, up; down). At a site a method turns the shared input x
 * into a low-rank extension u that the linear adds in its own product,
 *     y_m = x W_m^T + u_m B_m^T,
 * so that the input, the down product and its dropout mask are shared. A method
 * may pass something else than what it keeps (`extend`), do the linear itself
 * (`linear_fwd`, `linear_bwd`), or add keys and values to attention (`prefix`). */
#ifndef IST_PEFT_PEFT_H
#define IST_PEFT_PEFT_H

#include "backend/backend.h"
#include "base/error.h"

typedef enum ist_module {
  IST_MOD_Q,
  IST_MOD_K,
  IST_MOD_V,
  IST_MOD_O,
  IST_MOD_GATE,
  IST_MOD_UP,
  IST_MOD_DOWN,
  IST_MOD_QKV,         /* in place of q, k, v where the family has one linear for them */
  IST_MOD_GATE_UP,     /* likewise of gate, up */
  IST_MOD_SHARED_GATE, /* of the expert that every token goes through */
  IST_MOD_SHARED_UP,
  IST_MOD_SHARED_DOWN,
  IST_MOD_EXPERT_GATE, /* of the experts: a matrix, and an adapter, for each of them */
  IST_MOD_EXPERT_UP,
  IST_MOD_EXPERT_DOWN,
  IST_MOD_COUNT,
  IST_MOD_EXPERTS = IST_MOD_EXPERT_GATE /* modules from here on have copies */
} ist_module;

typedef enum ist_site {
  IST_SITE_ATTN_IN,
  IST_SITE_ATTN_OUT,
  IST_SITE_MLP_IN,
  IST_SITE_MLP_OUT,
  IST_SITE_SHARED_IN,
  IST_SITE_SHARED_OUT,
  IST_SITE_EXPERT_IN,
  IST_SITE_EXPERT_OUT,
  IST_SITE_COUNT,
  IST_SITE_MIXTURE = IST_SITE_SHARED_IN /* from here on nothing is kept for backward */
} ist_site;

typedef struct ist_site_info {
  int n;
  ist_module module[4]; /* a layer has some of them: see ist_linear_sizes */
} ist_site_info;
extern const ist_site_info ist_sites[IST_SITE_COUNT];
ist_site ist_module_site(ist_module m);
/* "q", "k", ...: ist's own name, whatever the family calls it. */
const char *ist_module_name(ist_module m);

/* Beside the layers: LoRA only, trained in every step, never suppressed. */
typedef enum ist_outer { IST_OUTER_EMBED, IST_OUTER_HEAD, IST_OUTER_COUNT } ist_outer;

/* What one module of one layer has, where layers or modules differ (rank_pattern,
 * alpha_pattern, layers_to_transform). */
typedef struct ist_adapter_place {
  int64_t rank; /* 0: no adapter */
  double alpha, scale;
} ist_adapter_place;

/* What the caller asks for. */
typedef struct ist_adapter_config {
  const char *method; /* a row of the table */
  uint32_t modules;   /* bits of ist_module */
  int64_t rank;       /* rank; width of a bottleneck; virtual tokens of a prefix */
  double alpha, dropout;
  bool rslora;                    /* scale alpha / sqrt(rank) */
  bool gaussian;                  /* A ~ N(0, 1/rank) in place of the uniform default */
  bool lora_bias;                 /* B has a bias (PEFT's lora_bias) */
  bool paper_dora;                /* suppression scales BA inside the norm, not W' - W */
  bool peft_dora;                 /* dropout: the (g - 1) W x of DoRA reads the dropped x too */
  ist_act_kind act;               /* of a bottleneck */
  double scaling;                 /* of a bottleneck */
  bool learned_scaling;           /* ... and where it starts */
  int64_t kv;                     /* columns of keys and values: K * E */
  int64_t rank_of[IST_MOD_COUNT]; /* a module's own rank and alpha; 0: the common one */
  double alpha_of[IST_MOD_COUNT];
  ist_adapter_place outer[IST_OUTER_COUNT];
  ist_adapter_place *places; /* (L, IST_MOD_COUNT), whose ranks rank_of bounds; NULL: every layer
                                has every module. Freed by who made the config */
} ist_adapter_config;

/* The linears a layer has: sizes by module, in == 0 where no layer has it; experts, and
 * how many of them a token goes through. */
typedef struct ist_linear_sizes {
  int64_t in[IST_MOD_COUNT], out[IST_MOD_COUNT];
  int64_t experts, experts_used;
  int64_t vocabulary, width; /* of the embedding and of the head */
} ist_linear_sizes;
/* Matrices of a module in a layer: 1, or one an expert. */
static inline int64_t ist_module_copies(const ist_linear_sizes *s, ist_module m) {
  return m >= IST_MOD_EXPERTS ? s->experts : 1;
}
/* ... and those that a token goes through. */
static inline double ist_module_uses(const ist_linear_sizes *s, ist_module m) {
  return m >= IST_MOD_EXPERTS ? (double)s->experts_used : 1.0;
}

/* One module of one layer. Offsets count elements from the layer's first parameter. */
typedef struct ist_adapter {
  int64_t rank;    /* 0: the module has no adapter */
  int64_t in, out; /* columns of A, rows of B: the linear's own, but for series adapters */
  double scale;    /* alpha / rank, or what the method has in its place */
  int64_t a, b;    /* offsets of A (rank, in) and B (out, rank) */
  int64_t column;  /* first column of its u within the site's u */
  int64_t a_step;  /* from one expert's A to the next one's; B's lie one behind the other */
  /* Offsets of vectors behind every A and B (experts: one behind the other); 0: none. */
  int64_t m;       /* DoRA: the magnitude (out) */
  int64_t bias;    /* LoRA: B's bias (out) */
  int64_t learned; /* bottlenecks: the scaling (1) */
} ist_adapter;

/* The layout of a layer's parameters, the same in every layer: where a layer has a smaller
 * rank, no adapter, or no such module, the rest is zero and stays so in training. The A's of
 * a site lie one behind the other, so that one product serves the site; those of the next
 * expert behind them. */
typedef struct ist_adapter_layout {
  ist_adapter module[IST_MOD_COUNT];
  int64_t site_a[IST_SITE_COUNT];    /* offset of the site's stacked A (rank sum, in) */
  int64_t site_step[IST_SITE_COUNT]; /* elements of it: the next expert's begins there */
  int64_t site_rank[IST_SITE_COUNT]; /* sum of ranks; 0: no adapter at the site */
  int64_t max_rank[IST_SITE_COUNT];  /* largest rank at the site */
  int64_t prefix;                    /* virtual tokens a layer */
  int64_t prefix_k, prefix_v;        /* offsets of their keys and values (prefix, kv) */
  int64_t plain;                     /* the first elements of a layer (every A); LoRA+ trains
                                        those behind them faster */
  int64_t params;                    /* elements a layer */
} ist_adapter_layout;

/* The adapters on embedding and head, W' = W + s B A with W (vocabulary, width). An embedding is
 * looked up, so its B comes first and A is kept turned: (vocabulary, rank) and (width, rank). */
typedef struct ist_outer_adapter {
  int64_t rank; /* 0: none */
  double scale;
  int64_t a, b; /* offsets: embedding (vocabulary, rank), (width, rank); head (rank, width),
                   (vocabulary, rank) */
} ist_outer_adapter;
typedef struct ist_outer_layout {
  ist_outer_adapter of[IST_OUTER_COUNT];
  int64_t plain, params; /* as of a layer */
} ist_outer_layout;

struct ist_peft_method;

/* The adapters of a whole model. Parameters, gradients and moments are blocks of
 * (L, params) in the wide type, on the backend's place; gradients exist for
 * active layers only: grad_slot[l] is the row of `grads`, or -1. */
typedef struct ist_adapters {
  const struct ist_peft_method *method;
  ist_adapter_config config;
  ist_linear_sizes sizes;
  ist_adapter_layout layout;
  ist_outer_layout outer;
  int64_t L;
  ist_dtype dt;
  unsigned char *params;      /* (L, layout.params), and behind them outer.params */
  unsigned char *grads;       /* (active, layout.params); NULL: no training */
  unsigned char *outer_grads; /* (outer.params) */
  int32_t *grad_slot;         /* (L) */
} ist_adapters;

/* Row l of the parameters as a view of `rows` x `cols` at an element offset. */
ist_view ist_adapter_param(const ist_adapters *ad, int64_t layer, int64_t offset, int64_t rows,
                           int64_t cols);
/* The same place of the gradient; p == NULL where the layer is frozen. */
ist_view ist_adapter_grad(const ist_adapters *ad, int64_t layer, int64_t offset, int64_t rows,
                          int64_t cols);
/* The module's adapter; of an expert, with its own offsets. */
ist_adapter ist_adapter_of(const ist_adapters *ad, ist_module m, int64_t copy);
/* The same beside the layers. */
ist_view ist_outer_param(const ist_adapters *ad, int64_t offset, int64_t rows, int64_t cols);
ist_view ist_outer_grad(const ist_adapters *ad, int64_t offset, int64_t rows, int64_t cols);
/* Initial values: the half that comes first is random, the other 0. */
void ist_outer_init(const ist_adapters *ad, uint64_t seed);
/* Elements of all parameters. */
int64_t ist_adapter_elements(const ist_adapters *ad);
/* Backward goes down to the embedding. */
static inline bool ist_adapter_trains_embedding(const ist_adapters *ad) {
  return ad && ad->outer_grads && ad->outer.of[IST_OUTER_EMBED].rank > 0;
}
/* What a module's B counts: its scale, or the layer's learned one. */
double ist_adapter_scale(const ist_adapters *ad, int64_t layer, ist_module m, int64_t copy);
/* Sets n parameters at an offset to one value, when they are made. */
void ist_adapter_fill(const ist_adapters *ad, int64_t layer, int64_t offset, int64_t n,
                      double value);

/* The rank that a module of a layer has itself, within the layout's. */
int64_t ist_adapter_rank(const ist_adapters *ad, int64_t layer, ist_module m);
/* Whether any adapter is in the layer. */
bool ist_adapter_in_layer(const ist_adapters *ad, int64_t layer);

/* Parameters in all layers, without what is zero for good. */
int64_t ist_adapter_trainable(const ist_adapters *ad);

/* What one pass asks of a site. Views of rows are the same N tokens throughout. */
typedef struct ist_site_call {
  int64_t layer;
  ist_site site;
  int64_t copy;               /* which expert's; 0 elsewhere */
  ist_view x;                 /* (N, in) the shared input, compute type */
  ist_view u;                 /* (N, site_rank) compute type: kept for backward */
  bool stored;                /* few rows: products read the parameters as they are */
  const ist_dropout *dropout; /* NULL: evaluation */
  const float *row_factor;    /* (N) suppression by row; NULL: 1 */
  double factor;              /* suppression of the whole layer; 1: none */
  ist_view t;                 /* (N, site_rank) scratch: see extend */
  ist_view a_compute;         /* (site_rank, in) scratch: A in the compute type */
  ist_view x_dropped;         /* (N, in) scratch; unused without dropout */
  ist_view tmp;               /* (N, in) scratch of backward; unused without dropout */
} ist_site_call;

/* One linear of a site for a method that does it itself. N rows. */
typedef struct ist_linear_call {
  const ist_site_call *site; /* input, suppression, dropout, scratch */
  ist_module module;
  ist_view w, bias; /* (out, in) compute type; (1, out) wide or absent */
  ist_view u, a, b; /* the module's columns of u; A and B in the compute type */
  ist_view norms;   /* (3, out) wide: |W|^2, diag(W A^T B^T), diag(B A A^T B^T) by row */
  uint8_t *fresh;   /* IST_NORM_*: which rows of `norms` hold */
  /* Scratch: (N, out) wide; (N, out), series (N, most of in and out), compute type;
   * (3, out) and (2 out + rank, rank) wide. */
  ist_view wide, narrow, gain, product;
  bool active; /* the layer's gradients are wanted */
} ist_linear_call;
enum { IST_NORM_BASE = 1, IST_NORM_ADAPTER = 2 };

/* A method. */
typedef struct ist_peft_method {
  const char *name;
  /* Sizes and offsets; errors name what cannot be (rank, alpha, module). */
  ist_status (*layout)(ist_adapter_layout *out, const ist_adapter_config *c,
                       const ist_linear_sizes *s, ist_error *err);
  /* Initial values (float), the layer's whole block; must leave the model as it is
   * (a prefix cannot). */
  void (*init)(const ist_adapters *ad, int64_t layer, uint64_t seed);
  /* Forward: fills call->u. NULL with all that follows: nothing at the linears. */
  void (*fwd)(ist_ctx *ctx, const ist_adapters *ad, const ist_site_call *call);
  /* call->t = what the linears take, from call->u; NULL: u itself. */
  void (*extend)(ist_ctx *ctx, const ist_adapters *ad, const ist_site_call *call);
  /* Backward, after the linears gave du (N, site_rank, compute type) and dB: du is
   * consumed; dx (wide) accumulates; dA accumulates where the layer is active. */
  void (*bwd)(ist_ctx *ctx, const ist_adapters *ad, const ist_site_call *call, ist_view du,
              ist_view dx);
  /* The linear itself; NULL: y = x W^T + bias + u B^T. Backward as a backend's
   * linear_bwd, and the gradients of B and of what else the module has. */
  void (*linear_fwd)(ist_ctx *ctx, const ist_adapters *ad, const ist_linear_call *call, ist_view y);
  void (*linear_bwd)(ist_ctx *ctx, const ist_adapters *ad, const ist_linear_call *call, ist_view dx,
                     bool acc, ist_view du, ist_view dy);
  bool by_alpha;     /* the scale is a module's alpha over its rank */
  bool keeps_frozen; /* backward reads u in frozen layers too, so it is kept there */
  bool magnitude;    /* has rows' norms (ist_linear_call.norms) and starts as |W| */
  bool around;       /* A and B work on the linear's input or output, not beside W */
  /* FLOPs a token of forward and of backward (active or frozen) at all sites of a layer. */
  double (*flops_fwd)(const ist_adapters *ad);
  double (*flops_bwd)(const ist_adapters *ad, bool active);
} ist_peft_method;

extern const ist_peft_method ist_peft_lora, ist_peft_dora, ist_peft_parallel, ist_peft_series,
    ist_peft_prefix;
/* NULL when unknown; `names` (optional) receives the list for an error message. */
const ist_peft_method *ist_peft_find(const char *name, const char **names);

/* Lays out the adapters of L layers; params and grads are set by the caller. */
ist_status ist_adapters_layout(ist_adapters *ad, const ist_adapter_config *c,
                               const ist_linear_sizes *s, int64_t L, ist_dtype dt, ist_error *err);

#endif
