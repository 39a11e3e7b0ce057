/* The table of the CPU backend. */
#include "backend/cpu/cpu.h"

#include <string.h>

#include "base/mem.h"

bool ist_cpu_serves(const ist_view *views, int n) {
  for (int i = 0; i < n; i++) {
    const ist_view *v = &views[i];
    if (v->p != NULL && (v->place != 0 || (v->dt != IST_F32 && v->dt != IST_BF16))) return false;
  }
  return true;
}

double ist_cpu_bytes(const ist_view *views, int n) {
  double bytes = 0;
  for (int i = 0; i < n; i++) {
    const ist_view *v = &views[i];
    if (v->p != NULL) bytes += (double)ist_dtype_bytes(v->dt, v->rows * v->cols);
  }
  return bytes;
}

ist_status ist_cpu_open_with(ist_ctx *ctx, const ist_simd *simd, const ist_products *products,
                             ist_error *err) {
  ist_cpu *cpu = ist_calloc(1, sizeof *cpu);
  if (cpu == NULL) return ist_fail_nomem(err, "the CPU backend", sizeof *cpu);
  cpu->simd = simd;
  cpu->products = products;
  if (products != NULL) {
    ist_status status = products->open(&cpu->products_state, err);
    if (status != IST_OK) {
      ist_free(cpu);
      return status;
    }
  }
  ctx->backend_state = cpu;
  return IST_OK;
}

/* Without AVX-512 the order of oneDNN's sums depends on how it shares a product out among threads:
 * there the kernels are ours (docs/performance.md has what it costs). */
static bool onednn_keeps_order(void) {
  const ist_simd *levels[4];
  ist_cpu_levels(levels);
  return strncmp(levels[0]->name, "avx512", 6) == 0;
}

const ist_products *ist_products_best(void) {
  const ist_products *dnnl = onednn_keeps_order() ? ist_products_dnnl() : NULL;
  return dnnl != NULL ? dnnl : ist_products_cblas();
}

static ist_status open_cpu(ist_ctx *ctx, ist_error *err) {
  const ist_simd *levels[4];
  const char *wanted = ist_cpu_isa_wanted();
  ist_cpu_levels(levels);
  if (wanted != NULL && strcmp(wanted, levels[0]->name) != 0)
    return ist_fail(err, IST_ERR_ARG,
                    "IST_ISA: found \"%s\", expected an instruction set of this processor, the "
                    "best is %s",
                    wanted, levels[0]->name);
  return ist_cpu_open_with(ctx, levels[0], ist_products_best(), err);
}

static void close_cpu(ist_ctx *ctx) {
  ist_cpu *cpu = ctx->backend_state;
  if (cpu == NULL) return;
  if (cpu->products != NULL) cpu->products->close(cpu->products_state);
  ist_free(cpu);
  ctx->backend_state = NULL;
}

const ist_backend *ist_backend_cpu(void) {
  static ist_backend cpu = {
      .name = "cpu",
      .open = open_cpu,
      .close = close_cpu,
      .matmul = ist_cpu_matmul,
      .linear_fwd = ist_cpu_linear_fwd,
      .linear_bwd = ist_cpu_linear_bwd,
      .linear_stored = ist_cpu_linear_stored,
      .matmul_scratch = ist_cpu_matmul_scratch,
      .stored_scratch = ist_cpu_stored_scratch,
      .dequant = ist_cpu_dequant,
      .gather_rows = ist_cpu_gather_rows,
      .scatter_rows = ist_cpu_scatter_rows,
      .zero = ist_cpu_zero,
      .copy = ist_cpu_copy,
      .add = ist_cpu_add,
      .scale_rows = ist_cpu_scale_rows,
      .row_dot = ist_cpu_row_dot,
      .gain_mix = ist_cpu_gain_mix,
      .mul_cols = ist_cpu_mul_cols,
      .col_dot = ist_cpu_col_dot,
      .add_bias = ist_cpu_add_bias,
      .col_sum = ist_cpu_col_sum,
      .dropout = ist_cpu_dropout,
      .dropout_bwd_acc = ist_cpu_dropout_bwd_acc,
      .norm_fwd = ist_cpu_norm_fwd,
      .norm_bwd = ist_cpu_norm_bwd,
      .rope = ist_cpu_rope,
      .attention_fwd = ist_cpu_attention_fwd,
      .attention_bwd = ist_cpu_attention_bwd,
      .act_fwd = ist_cpu_act_fwd,
      .act_bwd = ist_cpu_act_bwd,
      .route_fwd = ist_cpu_route_fwd,
      .route_bwd = ist_cpu_route_bwd,
      .weigh_rows = ist_cpu_weigh_rows,
      .add_rows = ist_cpu_add_rows,
      .xent_tile = ist_cpu_xent_tile,
      .xent_grad = ist_cpu_xent_grad,
      .sumsq = ist_cpu_sumsq,
      .adamw = ist_cpu_adamw,
      .attention_scratch = ist_cpu_attention_scratch,
  };
  ist_backend_complete(&cpu);
  return &cpu;
}
