/* Slots that work row by row: each fills a kernel's arguments and spreads the rows.
 * What the kernels do not serve (F64, F16, other places) goes to the reference. */
#include <math.h>

#include "backend/cpu/cpu.h"

/* Rows [0, rows) of `cols` elements over the threads, timed under `name`. */
static void spread(ist_ctx *ctx, const char *name, double start, ist_parallel_fn fn, void *args,
                   int64_t rows, int64_t cols) {
  ist_parallel_for(rows, ist_cpu_grain(cols), fn, args);
  if (ctx->prof) ist_prof_add(ctx->prof, name, start, 0.0);
}

void ist_cpu_copy(ist_ctx *ctx, ist_view dst, ist_view src) {
  if (!CPU_SERVES(dst, src)) {
    ist_backend_reference()->copy(ctx, dst, src);
    return;
  }
  double start = ist_cpu_start(ctx);
  IST_ASSERT(dst.rows == src.rows && dst.cols == src.cols);
  ist_move_args args = {.y = dst, .a = src};
  spread(ctx, "copy", start, ist_cpu_simd(ctx)->copy, &args, dst.rows, dst.cols);
}

void ist_cpu_add(ist_ctx *ctx, ist_view y, ist_view a, ist_view b) {
  if (!CPU_SERVES(y, a, b)) {
    ist_backend_reference()->add(ctx, y, a, b);
    return;
  }
  double start = ist_cpu_start(ctx);
  IST_ASSERT(a.rows == y.rows && a.cols == y.cols && b.rows == y.rows && b.cols == y.cols);
  ist_move_args args = {y, a, b};
  spread(ctx, "add", start, ist_cpu_simd(ctx)->add, &args, y.rows, y.cols);
}

void ist_cpu_scale_rows(ist_ctx *ctx, ist_view y, double s, const float *row_scale) {
  if (!CPU_SERVES(y)) {
    ist_backend_reference()->scale_rows(ctx, y, s, row_scale);
    return;
  }
  double start = ist_cpu_start(ctx);
  ist_scale_args args = {y, s, row_scale};
  spread(ctx, "scale_rows", start, ist_cpu_simd(ctx)->scale, &args, y.rows, y.cols);
}

static void run_dropout(ist_ctx *ctx, ist_view y, ist_view x, const ist_dropout *d,
                        bool accumulate) {
  double start = ist_cpu_start(ctx);
  IST_ASSERT(y.rows == x.rows && y.cols == x.cols);
  ist_dropout_args args = {.y = y,
                           .x = x,
                           .accumulate = accumulate,
                           .threshold = ist_dropout_threshold(d->p),
                           .step = d->step,
                           .layer_site = d->layer_site,
                           .key = d->key,
                           .sample = d->sample,
                           .position = d->position};
  spread(ctx, "dropout", start, ist_cpu_simd(ctx)->dropout, &args, y.rows, y.cols);
}

void ist_cpu_dropout(ist_ctx *ctx, ist_view y, ist_view x, const ist_dropout *d) {
  if (!CPU_SERVES(y, x)) {
    ist_backend_reference()->dropout(ctx, y, x, d);
  } else if (ist_dropout_threshold(d->p) == 0) {
    ist_cpu_copy(ctx, y, x);
  } else {
    run_dropout(ctx, y, x, d, false);
  }
}

void ist_cpu_dropout_bwd_acc(ist_ctx *ctx, ist_view dx, ist_view dy, const ist_dropout *d) {
  if (!CPU_SERVES(dx, dy)) {
    ist_backend_reference()->dropout_bwd_acc(ctx, dx, dy, d);
  } else if (ist_dropout_threshold(d->p) == 0) {
    ist_cpu_add(ctx, dx, dx, dy);
  } else {
    run_dropout(ctx, dx, dy, d, true);
  }
}

void ist_cpu_norm_fwd(ist_ctx *ctx, ist_view h, ist_view stat, ist_view x, ist_view w,
                      ist_view bias, ist_norm_kind kind, double eps) {
  if (!CPU_SERVES(h, stat, x, w, bias)) {
    ist_backend_reference()->norm_fwd(ctx, h, stat, x, w, bias, kind, eps);
    return;
  }
  double start = ist_cpu_start(ctx);
  IST_ASSERT(h.rows == x.rows && h.cols == x.cols && stat.dt == IST_F32);
  ist_norm_args args = {
      .h = h, .stat = stat, .x = x, .w = w, .bias = bias, .kind = kind, .eps = eps};
  spread(ctx, "norm_fwd", start, ist_cpu_simd(ctx)->norm_fwd, &args, x.rows, x.cols);
}

void ist_cpu_norm_bwd(ist_ctx *ctx, ist_view dx, bool acc, ist_view dw, ist_view dbias, ist_view dh,
                      ist_view x, ist_view w, ist_view stat, ist_norm_kind kind) {
  if (!CPU_SERVES(dx, dw, dbias, dh, x, w, stat)) {
    ist_backend_reference()->norm_bwd(ctx, dx, acc, dw, dbias, dh, x, w, stat, kind);
    return;
  }
  double start = ist_cpu_start(ctx);
  IST_ASSERT(dh.rows == x.rows && dh.cols == x.cols && stat.dt == IST_F32);
  ist_norm_args args = {.h = dh,
                        .stat = stat,
                        .x = x,
                        .w = w,
                        .dx = dx,
                        .dw = dw,
                        .dbias = dbias,
                        .kind = kind,
                        .accumulate = acc};
  const ist_simd *simd = ist_cpu_simd(ctx);
  /* Parameters first: dx may lie on dh. */
  if (dw.p != NULL || dbias.p != NULL) {
    ist_parallel_for((x.cols + IST_NORM_COLS - 1) / IST_NORM_COLS, 1, simd->norm_bwd_params, &args);
  }
  if (dx.p != NULL) {
    ist_parallel_for(x.rows, ist_cpu_grain(x.cols), simd->norm_bwd, &args);
  }
  if (ctx->prof) ist_prof_add(ctx->prof, "norm_bwd", start, 0.0);
}

void ist_cpu_rope(ist_ctx *ctx, ist_view x, const int32_t *position, const float *freq, int64_t rot,
                  int64_t E, bool interleaved, double mscale, bool inverse) {
  if (!CPU_SERVES(x)) {
    ist_backend_reference()->rope(ctx, x, position, freq, rot, E, interleaved, mscale, inverse);
    return;
  }
  double start = ist_cpu_start(ctx);
  IST_ASSERT(x.cols % E == 0 && rot % 2 == 0 && rot <= E);
  ist_rope_args args = {x, position, freq, rot, E, interleaved, inverse, mscale};
  spread(ctx, "rope", start, ist_cpu_simd(ctx)->rope, &args, x.rows, x.cols);
}

void ist_cpu_act_fwd(ist_ctx *ctx, ist_view y, ist_view g, ist_view u, ist_act_kind kind) {
  if (!CPU_SERVES(y, g, u)) {
    ist_backend_reference()->act_fwd(ctx, y, g, u, kind);
    return;
  }
  double start = ist_cpu_start(ctx);
  IST_ASSERT(y.rows == g.rows && y.cols == g.cols && (u.p == NULL || u.dt == g.dt));
  ist_act_args args = {.y = y, .g = g, .u = u, .kind = kind};
  spread(ctx, "act_fwd", start, ist_cpu_simd(ctx)->act_fwd, &args, g.rows, g.cols);
}

void ist_cpu_act_bwd(ist_ctx *ctx, ist_view dg, ist_view du, ist_view y, ist_view dy, ist_view g,
                     ist_view u, ist_act_kind kind) {
  if (!CPU_SERVES(dg, du, y, dy, g, u)) {
    ist_backend_reference()->act_bwd(ctx, dg, du, y, dy, g, u, kind);
    return;
  }
  double start = ist_cpu_start(ctx);
  IST_ASSERT((u.p == NULL || u.dt == g.dt) && (y.p == NULL || y.dt == g.dt));
  IST_ASSERT((dg.p == NULL || dg.dt == dy.dt) && (du.p == NULL || du.dt == dy.dt));
  ist_act_args args = {y, g, u, dg, du, dy, kind};
  spread(ctx, "act_bwd", start, ist_cpu_simd(ctx)->act_bwd, &args, g.rows, g.cols);
}

/* ---- Loss --------------------------------------------------------------------- */

void ist_cpu_xent_tile(ist_ctx *ctx, ist_view run, ist_view tgt, ist_view logits,
                       const int32_t *target, int64_t col0, double softcap, bool first) {
  if (!CPU_SERVES(logits)) {
    ist_backend_reference()->xent_tile(ctx, run, tgt, logits, target, col0, softcap, first);
    return;
  }
  double start = ist_cpu_start(ctx);
  ist_xent_args args = {.run = run,
                        .tgt = tgt,
                        .logits = logits,
                        .target = target,
                        .col0 = col0,
                        .softcap = softcap,
                        .first = first};
  spread(ctx, "xent_tile", start, ist_cpu_simd(ctx)->xent_tile, &args, logits.rows, logits.cols);
}

void ist_cpu_xent_grad(ist_ctx *ctx, ist_view dlogits, ist_view logits, ist_view run,
                       const int32_t *target, int64_t col0, double softcap, double weight) {
  if (!CPU_SERVES(dlogits, logits)) {
    ist_backend_reference()->xent_grad(ctx, dlogits, logits, run, target, col0, softcap, weight);
    return;
  }
  double start = ist_cpu_start(ctx);
  ist_xent_args args = {.run = run,
                        .logits = logits,
                        .dlogits = dlogits,
                        .target = target,
                        .col0 = col0,
                        .softcap = softcap,
                        .weight = weight};
  spread(ctx, "xent_grad", start, ist_cpu_simd(ctx)->xent_grad, &args, logits.rows, logits.cols);
}

/* ---- Optimizer ------------------------------------------------------------------ */

/* A view as one run of elements, or each row by itself. */
static int64_t runs(ist_view *v) {
  int64_t n = v->stride == v->cols ? 1 : v->rows;
  if (n == 1) {
    v->cols *= v->rows;
    v->stride = v->cols;
    v->rows = 1;
  }
  return n;
}

void ist_cpu_adamw(ist_ctx *ctx, ist_view w, ist_view g, ist_view m, ist_view v,
                   const ist_adamw *o) {
  bool f32 = w.dt == IST_F32 && g.dt == IST_F32 && m.dt == IST_F32 && v.dt == IST_F32;
  if (!f32 || !CPU_SERVES(w, g, m, v)) {
    ist_backend_reference()->adamw(ctx, w, g, m, v, o);
    return;
  }
  double start = ist_cpu_start(ctx);
  bool dense = w.stride == w.cols && g.stride == w.cols && m.stride == w.cols && v.stride == w.cols;
  int64_t rows = dense ? 1 : w.rows, n = dense ? w.rows * w.cols : w.cols;
  for (int64_t r = 0; r < rows; r++) {
    ist_adamw_args args = {.w = (float *)w.p + r * w.stride,
                           .m = (float *)m.p + r * m.stride,
                           .v = (float *)v.p + r * v.stride,
                           .g = (const float *)g.p + r * g.stride,
                           .n = n,
                           .step = o->lr / (1.0 - pow(o->beta1, (double)o->t)),
                           .root = 1.0 / sqrt(1.0 - pow(o->beta2, (double)o->t)),
                           .beta1 = o->beta1,
                           .beta2 = o->beta2,
                           .eps = o->eps,
                           .decay = 1.0 - o->lr * o->weight_decay,
                           .grad_scale = o->grad_scale};
    ist_parallel_for((n + IST_PIECE - 1) / IST_PIECE, 4, ist_cpu_simd(ctx)->adamw, &args);
  }
  if (ctx->prof) ist_prof_add(ctx->prof, "adamw", start, 0.0);
}

double ist_cpu_sumsq(ist_ctx *ctx, ist_view g) {
  if (!CPU_SERVES(g)) return ist_backend_reference()->sumsq(ctx, g);
  double start = ist_cpu_start(ctx), total = 0.0;
  enum { PARTS = 256 };
  double partial[PARTS];
  int64_t width = g.dt == IST_BF16 ? 2 : 4, rows = runs(&g);
  int64_t pieces = (g.cols + IST_PIECE - 1) / IST_PIECE, per = (pieces + PARTS - 1) / PARTS;
  for (int64_t r = 0; r < rows && pieces > 0; r++) {
    ist_sumsq_args args = {(const char *)g.p + r * g.stride * width, g.dt == IST_BF16, g.cols, per,
                           partial};
    int64_t items = (pieces + per - 1) / per;
    ist_parallel_for(items, 4, ist_cpu_simd(ctx)->sumsq, &args);
    for (int64_t i = 0; i < items; i++) total += partial[i];
  }
  if (ctx->prof) ist_prof_add(ctx->prof, "sumsq", start, 0.0);
  return total;
}
