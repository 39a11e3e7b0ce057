/* The CPU backend: kernels of the best instruction set here (simd/), spread over
 * threads, and matrix products from one of several providers. */
#ifndef IST_BACKEND_CPU_CPU_H
#define IST_BACKEND_CPU_CPU_H

#include "backend/backend.h"
#include "backend/cpu/simd/simd.h"

/* Who computes dense products. `run` returns false for what it does not serve
 * (strides, two terms, types); the kernels of simd/ then do it. A provider may
 * allocate when it meets a new shape, never when it meets it again. */
typedef struct ist_products {
  const char *name;
  ist_status (*open)(void **state, ist_error *err);
  void (*close)(void *state);
  bool (*run)(void *state, const ist_gemm *g);
} ist_products;

/* NULL where the library is not built in. */
const ist_products *ist_products_dnnl(void);
const ist_products *ist_products_cblas(void);
/* The one to use: oneDNN, else CBLAS; NULL: neither. */
const ist_products *ist_products_best(void);

/* ctx->backend_state */
typedef struct ist_cpu {
  const ist_simd *simd;
  const ist_products *products; /* NULL: the kernels of simd/ alone */
  void *products_state;
} ist_cpu;

/* Opens with given kernels and provider: for tests and benchmarks, which compare
 * them. ist_backend_cpu()->open chooses by itself. */
ist_status ist_cpu_open_with(ist_ctx *ctx, const ist_simd *simd, const ist_products *products,
                             ist_error *err);

/* The name in the environment variable IST_ISA, the best set to use; NULL: unset. */
const char *ist_cpu_isa_wanted(void);
/* The instruction sets that run here, best first; returns their number (<= 4). */
int ist_cpu_levels(const ist_simd *levels[4]);

/* Every view is absent or host memory of type F32 or BF16. */
bool ist_cpu_serves(const ist_view *views, int n);
#define CPU_SERVES(...)                           \
  ist_cpu_serves((const ist_view[]){__VA_ARGS__}, \
                 (int)(sizeof((const ist_view[]){__VA_ARGS__}) / sizeof(ist_view)))

static inline const ist_simd *ist_cpu_simd(const ist_ctx *ctx) {
  return ((const ist_cpu *)ctx->backend_state)->simd;
}
/* Rows for a chunk of work that is worth a thread's start. */
static inline int64_t ist_cpu_grain(int64_t cols) {
  return 16384 / (cols + 1) + 1;
}

/* Bytes of the views, those that are absent left out. */
double ist_cpu_bytes(const ist_view *views, int n);
#define CPU_BYTES(...)                           \
  ist_cpu_bytes((const ist_view[]){__VA_ARGS__}, \
                (int)(sizeof((const ist_view[]){__VA_ARGS__}) / sizeof(ist_view)))
static inline double ist_cpu_elements(ist_view v) {
  return (double)v.rows * (double)v.cols;
}

/* One operation under the clock: what it computes and moves. */
typedef struct ist_cpu_timed {
  double start, flops, bytes;
} ist_cpu_timed;
static inline ist_cpu_timed ist_cpu_begin(const ist_ctx *ctx, double flops, double bytes) {
  return (ist_cpu_timed){ctx->prof ? ist_prof_now() : 0.0, flops, bytes};
}
static inline void ist_cpu_end(const ist_ctx *ctx, const char *name, ist_cpu_timed t) {
  if (ctx->prof) ist_prof_add(ctx->prof, name, t.start, t.flops, t.bytes);
}

/* ---- Slots, by file ------------------------------------------------------------ */

/* matmul.c */
void ist_cpu_matmul(ist_ctx *ctx, ist_view c, ist_view a, bool ta, ist_view b, bool tb, int beta);
void ist_cpu_linear_fwd(ist_ctx *ctx, ist_view y, ist_view x, ist_view w, ist_view bias, ist_view u,
                        ist_view b);
void ist_cpu_linear_bwd(ist_ctx *ctx, ist_view dx, bool acc, ist_view du, ist_view dy, ist_view w,
                        ist_view b);
size_t ist_cpu_matmul_scratch(int64_t m, int64_t n, int64_t k, ist_dtype dt);

/* stored_linear.c */
void ist_cpu_linear_stored(ist_ctx *ctx, const ist_stored_linear *l, int n, ist_stored_how how);
size_t ist_cpu_stored_scratch(int64_t n, int64_t k, int64_t r);

/* attention.c */
void ist_cpu_attention_fwd(ist_ctx *ctx, ist_view o, ist_view lse, ist_view q, const ist_attn *a);
void ist_cpu_attention_bwd(ist_ctx *ctx, ist_view dq, ist_view dout, ist_view o, ist_view lse,
                           ist_view q, const ist_attn *a);
size_t ist_cpu_attention_scratch(const ist_attn *a, int64_t n_rows, ist_dtype dt);

/* stored.c */
void ist_cpu_dequant(ist_ctx *ctx, ist_view dst, const void *src, ist_dtype src_type, int64_t row0);
void ist_cpu_gather_rows(ist_ctx *ctx, ist_view dst, const void *src, ist_dtype src_type,
                         const int32_t *ids, double scale);
void ist_cpu_scatter_rows(ist_ctx *ctx, ist_view dst, ist_view src, const int32_t *ids);
void ist_cpu_zero(ist_ctx *ctx, ist_view dst);

/* experts.c */
void ist_cpu_route_fwd(ist_ctx *ctx, ist_view weight, int32_t *index, ist_view logits,
                       bool renormalise);
void ist_cpu_route_bwd(ist_ctx *ctx, ist_view dlogits, ist_view dweight, ist_view weight,
                       const int32_t *index, ist_view logits, bool renormalise);
void ist_cpu_weigh_rows(ist_ctx *ctx, ist_view y, ist_view weight);
void ist_cpu_add_rows(ist_ctx *ctx, ist_view dst, ist_view src, const int32_t *ids,
                      ist_view weight);

/* rows.c */
void ist_cpu_copy(ist_ctx *ctx, ist_view dst, ist_view src);
void ist_cpu_add(ist_ctx *ctx, ist_view y, ist_view a, ist_view b);
void ist_cpu_scale_rows(ist_ctx *ctx, ist_view y, double s, const float *row_scale);
void ist_cpu_row_dot(ist_ctx *ctx, ist_view dst, ist_view a, ist_view b);
void ist_cpu_gain_mix(ist_ctx *ctx, ist_view y, ist_view v, ist_view g, ist_view bias, double f,
                      const float *row_f);
void ist_cpu_mul_cols(ist_ctx *ctx, ist_view y, ist_view x, ist_view g);
void ist_cpu_col_dot(ist_ctx *ctx, ist_view dst, ist_view a, ist_view b, ist_view scale);
void ist_cpu_col_sum(ist_ctx *ctx, ist_view dst, ist_view x, double s);
void ist_cpu_add_bias(ist_ctx *ctx, ist_view y, ist_view bias, double s, const float *row_scale);
void ist_cpu_dropout(ist_ctx *ctx, ist_view y, ist_view x, const ist_dropout *d);
void ist_cpu_dropout_bwd_acc(ist_ctx *ctx, ist_view dx, ist_view dy, const ist_dropout *d);
void ist_cpu_norm_fwd(ist_ctx *ctx, ist_view h, ist_view stat, ist_view x, ist_view w,
                      ist_view bias, ist_norm_kind kind, double eps);
void ist_cpu_norm_bwd(ist_ctx *ctx, ist_view dx, bool acc, ist_view dw, ist_view dbias, ist_view dh,
                      ist_view x, ist_view w, ist_view stat, ist_norm_kind kind);
void ist_cpu_rope(ist_ctx *ctx, ist_view x, const int32_t *position, const float *freq, int64_t rot,
                  int64_t E, bool interleaved, double mscale, bool inverse);
void ist_cpu_act_fwd(ist_ctx *ctx, ist_view y, ist_view g, ist_view u, ist_act_kind kind);
void ist_cpu_act_bwd(ist_ctx *ctx, ist_view dg, ist_view du, ist_view y, ist_view dy, ist_view g,
                     ist_view u, ist_act_kind kind);
void ist_cpu_xent_tile(ist_ctx *ctx, ist_view run, ist_view tgt, ist_view logits,
                       const int32_t *target, int64_t col0, double softcap, bool first);
void ist_cpu_xent_grad(ist_ctx *ctx, ist_view dlogits, ist_view logits, ist_view run,
                       const int32_t *target, int64_t col0, double softcap, double weight);
double ist_cpu_sumsq(ist_ctx *ctx, ist_view g);
void ist_cpu_adamw(ist_ctx *ctx, ist_view w, ist_view g, ist_view m, ist_view v,
                   const ist_adamw *o);

#endif
