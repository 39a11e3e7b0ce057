/* Matrix products and linears. */
#include "backend/cpu/cpu.h"

/* Operands and C of a product that the kernels serve. */
static ist_gemm product(ist_view c, ist_view a, bool ta, ist_view b, bool tb, bool accumulate) {
  int64_t k = ta ? a.rows : a.cols;
  IST_ASSERT((ta ? a.cols : a.rows) == c.rows && (tb ? b.rows : b.cols) == c.cols);
  IST_ASSERT((tb ? b.cols : b.rows) == k);
  return (ist_gemm){.c = c, .n_terms = 1, .term[0] = {a, b, ta, tb, k}, .accumulate = accumulate};
}

static double flops(const ist_gemm *g) {
  double k = (double)g->term[0].k + (g->n_terms > 1 ? (double)g->term[1].k : 0.0);
  return 2.0 * (double)g->c.rows * (double)g->c.cols * k;
}

/* True where `tail`'s columns follow v's in memory, row by row. */
static bool follows(const ist_view *v, const ist_view *tail) {
  return tail->dt == v->dt && tail->stride == v->stride && v->stride >= v->cols + tail->cols &&
         (const char *)tail->p == (const char *)v->p + ist_dtype_bytes(v->dt, v->cols);
}

/* [a0|a1] [b0|b1]^T is one product where the second parts lie behind the first. */
static void join_terms(ist_gemm *g) {
  ist_gemm_term *first = &g->term[0], *second = &g->term[1];
  if (g->n_terms != 2 || first->ta || second->ta || !first->tb || !second->tb) return;
  if (!follows(&first->a, &second->a) || !follows(&first->b, &second->b)) return;
  first->a.cols += second->k;
  first->b.cols += second->k;
  first->k += second->k;
  g->n_terms = 1;
}

/* Our kernels. */
static void run_simd(ist_ctx *ctx, ist_gemm *g) {
  const ist_simd *simd = ist_cpu_simd(ctx);
  int threads = ist_get_threads();
  simd->gemm_plan(g, threads);
  g->pack_bytes = (int64_t)ist_arena_round((size_t)g->pack_bytes);
  size_t mark = ist_arena_mark(ctx->scratch);
  g->pack = ist_arena_alloc(ctx->scratch, (size_t)(g->pack_bytes * threads));
  ist_parallel_for_dynamic(g->n_items, 1, simd->gemm, g);
  ist_arena_reset(ctx->scratch, mark);
}

/* Elements of a sum that are done at a time: longer ones would not stay in a cache. */
#define LONGEST_SUM 2048

/* Part [from, from + k) of a term's sum. */
static ist_gemm_term part_of(const ist_gemm_term *t, int64_t from, int64_t k) {
  return (ist_gemm_term){
      .a = t->ta ? ist_view_rows(t->a, from, k) : ist_view_cols(t->a, from, k),
      .b = t->tb ? ist_view_cols(t->b, from, k) : ist_view_rows(t->b, from, k),
      .ta = t->ta,
      .tb = t->tb,
      .k = k,
  };
}

/* A long sum into F32: in parts, always the same ones, each added to C. */
static void run_in_parts(ist_ctx *ctx, const ist_gemm *g) {
  for (int64_t from = 0; from < g->term[0].k; from += LONGEST_SUM) {
    int64_t left = g->term[0].k - from;
    ist_gemm part = *g;
    part.term[0] = part_of(&g->term[0], from, left < LONGEST_SUM ? left : LONGEST_SUM);
    part.accumulate = g->accumulate || from > 0;
    run_simd(ctx, &part);
  }
}

/* A library may share a long sum out among threads, and its order then depends on how many there
 * are. The sums of weight gradients (a^T b, over all positions) are the long ones: never there. */
static bool library_may(const ist_gemm *g) {
  return !g->term[0].ta;
}

static void run(ist_ctx *ctx, ist_gemm *g) {
  ist_cpu *cpu = ctx->backend_state;
  if (g->c.rows == 0 || g->c.cols == 0) return;
  join_terms(g);
  if (library_may(g) && cpu->products != NULL && cpu->products->run(cpu->products_state, g)) return;
  bool parts = g->n_terms == 1 && g->bias == NULL && g->c.dt == IST_F32;
  if (parts && g->term[0].k > LONGEST_SUM) {
    run_in_parts(ctx, g);
  } else {
    run_simd(ctx, g);
  }
}

void ist_cpu_matmul(ist_ctx *ctx, ist_view c, ist_view a, bool ta, ist_view b, bool tb, int beta) {
  if (!CPU_SERVES(c, a, b)) {
    ist_backend_reference()->matmul(ctx, c, a, ta, b, tb, beta);
    return;
  }
  ist_gemm g = product(c, a, ta, b, tb, beta != 0);
  ist_cpu_timed timed = ist_cpu_begin(ctx, flops(&g), CPU_BYTES(c, a, b));
  run(ctx, &g);
  ist_cpu_end(ctx, "matmul", timed);
}

void ist_cpu_linear_fwd(ist_ctx *ctx, ist_view y, ist_view x, ist_view w, ist_view bias, ist_view u,
                        ist_view b) {
  if (!CPU_SERVES(y, x, w, bias, u, b)) {
    ist_backend_reference()->linear_fwd(ctx, y, x, w, bias, u, b);
    return;
  }
  ist_gemm g = product(y, x, false, w, true, false);
  IST_ASSERT(bias.p == NULL || (bias.dt == IST_F32 && bias.cols == y.cols));
  g.bias = bias.p;
  if (u.p != NULL) {
    IST_ASSERT(u.rows == y.rows && b.rows == y.cols && u.cols == b.cols);
    g.term[g.n_terms++] = (ist_gemm_term){u, b, false, true, u.cols};
  }
  ist_cpu_timed timed = ist_cpu_begin(ctx, flops(&g), CPU_BYTES(y, x, w, bias, u, b));
  run(ctx, &g);
  ist_cpu_end(ctx, "linear_fwd", timed);
}

void ist_cpu_linear_bwd(ist_ctx *ctx, ist_view dx, bool acc, ist_view du, ist_view dy, ist_view w,
                        ist_view b) {
  if (!CPU_SERVES(dx, du, dy, w, b)) {
    ist_backend_reference()->linear_bwd(ctx, dx, acc, du, dy, w, b);
    return;
  }
  ist_cpu_timed timed = ist_cpu_begin(ctx, 0.0, CPU_BYTES(dx, du, dy, w, b));
  if (dx.p != NULL) {
    ist_gemm g = product(dx, dy, false, w, false, acc);
    run(ctx, &g);
    timed.flops += flops(&g);
  }
  if (du.p != NULL) {
    ist_gemm g = product(du, dy, false, b, false, false);
    run(ctx, &g);
    timed.flops += flops(&g);
  }
  ist_cpu_end(ctx, "linear_bwd", timed);
}

/* A linear's low-rank term lengthens the sum by its rank, which the plan may not
 * know when it asks. */
#define LARGEST_RANK 1024

size_t ist_cpu_matmul_scratch(int64_t m, int64_t n, int64_t k, ist_dtype dt) {
  (void)m, (void)n; /* threads pack a block at a time, whatever the size of C */
  const ist_simd *levels[4];
  int64_t most = 0;
  for (int i = ist_cpu_levels(levels) - 1; i >= 0; i--) {
    int64_t bytes = levels[i]->gemm_pack_bytes(k + LARGEST_RANK, dt == IST_BF16);
    if (bytes > most) most = bytes;
  }
  return ist_arena_round((size_t)most) * (size_t)ist_get_threads();
}
