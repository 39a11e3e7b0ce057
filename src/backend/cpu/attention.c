/* Attention: scratch and threads around the kernels of simd/attention.c. */
#include "backend/cpu/cpu.h"

static ist_attention_args arguments(ist_ctx *ctx, const ist_attn *a) {
  int64_t bytes =
      (int64_t)ist_arena_round((size_t)ist_cpu_simd(ctx)->attention_scratch(a->H / a->K, a->E));
  ist_attention_args g = {.a = a, .scratch_bytes = bytes};
  g.scratch = ist_arena_alloc(ctx->scratch, (size_t)(bytes * ist_get_threads()));
  return g;
}

/* Multiplications and additions of the pairs of queries and keys, times `per`. */
static double flops(const ist_attn *a, double per) {
  double pairs = 0;
  for (int64_t s = 0; s < a->n_seg; s++) {
    const ist_attn_seg *seg = &a->seg[s];
    for (int32_t i = 0; i < seg->n_spans; i++) {
      double n = (double)seg->span[i].n, q = (double)seg->nq;
      pairs += seg->span[i].causal ? q * (n - 0.5 * (q - 1.0)) : q * n;
    }
  }
  return per * pairs * (double)(a->H * a->E);
}

/* Keys and values, in backward their gradients too, each once. */
static double kv_bytes(const ist_attn *a, bool gradients) {
  double bytes = 0;
  for (int i = 0; i < a->n_kv; i++) {
    bytes += CPU_BYTES(a->kv[i].k, a->kv[i].v);
    if (gradients) bytes += CPU_BYTES(a->kv[i].dk, a->kv[i].dv);
  }
  return bytes;
}

void ist_cpu_attention_fwd(ist_ctx *ctx, ist_view o, ist_view lse, ist_view q, const ist_attn *a) {
  if (!CPU_SERVES(o, q, a->kv[0].k)) {
    ist_backend_reference()->attention_fwd(ctx, o, lse, q, a);
    return;
  }
  ist_cpu_timed timed = ist_cpu_begin(ctx, flops(a, 4.0), CPU_BYTES(o, q) + kv_bytes(a, false));
  size_t mark = ist_arena_mark(ctx->scratch);
  ist_attention_args g = arguments(ctx, a);
  g.o = o;
  g.lse = lse;
  g.q = q;
  int64_t blocks = 0;
  bool one = true; /* query a segment: a step of generation */
  for (int64_t s = 0; s < a->n_seg; s++) {
    blocks += (a->seg[s].nq + IST_ATTENTION_QUERIES - 1) / IST_ATTENTION_QUERIES;
    one = one && a->seg[s].nq == 1;
  }
  if (one) {
    ist_parallel_for(a->n_seg * a->H, 1, ist_cpu_simd(ctx)->attention_one, &g);
  } else {
    ist_parallel_for_dynamic(blocks * a->K, 1, ist_cpu_simd(ctx)->attention_fwd, &g);
  }
  ist_arena_reset(ctx->scratch, mark);
  ist_cpu_end(ctx, "attention_fwd", timed);
}

void ist_cpu_attention_bwd(ist_ctx *ctx, ist_view dq, ist_view dout, ist_view o, ist_view lse,
                           ist_view q, const ist_attn *a) {
  if (!CPU_SERVES(dq, dout, o, q, a->kv[0].k)) {
    ist_backend_reference()->attention_bwd(ctx, dq, dout, o, lse, q, a);
    return;
  }
  ist_cpu_timed timed =
      ist_cpu_begin(ctx, flops(a, 10.0), CPU_BYTES(dq, dout, o, q) + kv_bytes(a, true));
  size_t mark = ist_arena_mark(ctx->scratch);
  ist_attention_args g = arguments(ctx, a);
  g.o = o;
  g.lse = lse;
  g.q = q;
  g.dq = dq;
  g.dout = dout;
  for (int64_t s = 0; s < a->n_seg; s++) {
    for (int32_t i = 0; i < a->seg[s].n_spans; i++) g.serial |= a->seg[s].span[i].shared;
  }
  int64_t items = g.serial ? a->K : a->n_seg * a->K;
  ist_parallel_for_dynamic(items, 1, ist_cpu_simd(ctx)->attention_bwd, &g);
  ist_arena_reset(ctx->scratch, mark);
  ist_cpu_end(ctx, "attention_bwd", timed);
}

size_t ist_cpu_attention_scratch(const ist_attn *a, int64_t n_rows, ist_dtype dt) {
  (void)n_rows, (void)dt;
  const ist_simd *levels[4];
  ist_cpu_levels(levels);
  size_t bytes = ist_arena_round((size_t)levels[0]->attention_scratch(a->H / a->K, a->E));
  return bytes * (size_t)ist_get_threads();
}
