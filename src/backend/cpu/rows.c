/* Slots that work row by row: each fills a kernel's arguments and spreads the rows.
 * What the kernels do not serve (F64, F16, other places) goes to the reference. */
#include <math.h>

#include "backend/cpu/cpu.h"

/* The operations of an element: additions, multiplications, divisions and exponentials
 * of the formula. Random numbers (dropout) are integers and do not count. */
enum {
  ADD = 1,
  SCALE = 1,
  DROPOUT = 1,
  NORM = 4,
  NORM_BWD = 6,
  ROPE = 3,
  ACT = 5,
  ACT_BWD = 10,
  XENT = 3,
  XENT_GRAD = 4,
  SUMSQ = 2,
  ADAMW = 14
};

/* Rows [0, rows) of `cols` elements over the threads, timed under `name`. */
static void spread(ist_ctx *ctx, const char *name, ist_cpu_timed timed, ist_parallel_fn fn,
                   void *args, int64_t rows, int64_t cols) {
  ist_parallel_for(rows, ist_cpu_grain(cols), fn, args);
  ist_cpu_end(ctx, name, timed);
}

void ist_cpu_copy(ist_ctx *ctx, ist_view dst, ist_view src) {
  if (!CPU_SERVES(dst, src)) {
    ist_backend_reference()->copy(ctx, dst, src);
    return;
  }
  ist_cpu_timed timed = ist_cpu_begin(ctx, 0.0, CPU_BYTES(dst, src));
  IST_ASSERT(dst.rows == src.rows && dst.cols == src.cols);
  ist_move_args args = {.y = dst, .a = src};
  spread(ctx, "copy", timed, ist_cpu_simd(ctx)->copy, &args, dst.rows, dst.cols);
}

void ist_cpu_add(ist_ctx *ctx, ist_view y, ist_view a, ist_view b) {
  if (!CPU_SERVES(y, a, b)) {
    ist_backend_reference()->add(ctx, y, a, b);
    return;
  }
  ist_cpu_timed timed = ist_cpu_begin(ctx, ADD * ist_cpu_elements(y), CPU_BYTES(y, a, b));
  IST_ASSERT(a.rows == y.rows && a.cols == y.cols && b.rows == y.rows && b.cols == y.cols);
  ist_move_args args = {y, a, b};
  spread(ctx, "add", timed, ist_cpu_simd(ctx)->add, &args, y.rows, y.cols);
}

void ist_cpu_scale_rows(ist_ctx *ctx, ist_view y, double s, const float *row_scale) {
  if (!CPU_SERVES(y)) {
    ist_backend_reference()->scale_rows(ctx, y, s, row_scale);
    return;
  }
  ist_cpu_timed timed = ist_cpu_begin(ctx, SCALE * ist_cpu_elements(y), CPU_BYTES(y, y));
  ist_scale_args args = {y, s, row_scale};
  spread(ctx, "scale_rows", timed, ist_cpu_simd(ctx)->scale, &args, y.rows, y.cols);
}

static void run_dropout(ist_ctx *ctx, ist_view y, ist_view x, const ist_dropout *d,
                        bool accumulate) {
  ist_cpu_timed timed = ist_cpu_begin(ctx, DROPOUT * ist_cpu_elements(y), CPU_BYTES(y, x));
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
  spread(ctx, "dropout", timed, ist_cpu_simd(ctx)->dropout, &args, y.rows, y.cols);
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
  ist_cpu_timed timed =
      ist_cpu_begin(ctx, NORM * ist_cpu_elements(x), CPU_BYTES(h, stat, x, w, bias));
  IST_ASSERT(h.rows == x.rows && h.cols == x.cols && stat.dt == IST_F32);
  ist_norm_args args = {
      .h = h, .stat = stat, .x = x, .w = w, .bias = bias, .kind = kind, .eps = eps};
  spread(ctx, "norm_fwd", timed, ist_cpu_simd(ctx)->norm_fwd, &args, x.rows, x.cols);
}

void ist_cpu_norm_bwd(ist_ctx *ctx, ist_view dx, bool acc, ist_view dw, ist_view dbias, ist_view dh,
                      ist_view x, ist_view w, ist_view stat, ist_norm_kind kind) {
  if (!CPU_SERVES(dx, dw, dbias, dh, x, w, stat)) {
    ist_backend_reference()->norm_bwd(ctx, dx, acc, dw, dbias, dh, x, w, stat, kind);
    return;
  }
  ist_cpu_timed timed =
      ist_cpu_begin(ctx, NORM_BWD * ist_cpu_elements(x), CPU_BYTES(dx, dh, x, w, stat));
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
  ist_cpu_end(ctx, "norm_bwd", timed);
}

void ist_cpu_rope(ist_ctx *ctx, ist_view x, const int32_t *position, const float *freq, int64_t rot,
                  int64_t E, bool interleaved, double mscale, bool inverse) {
  if (!CPU_SERVES(x)) {
    ist_backend_reference()->rope(ctx, x, position, freq, rot, E, interleaved, mscale, inverse);
    return;
  }
  ist_cpu_timed timed = ist_cpu_begin(ctx, ROPE * ist_cpu_elements(x), CPU_BYTES(x, x));
  IST_ASSERT(x.cols % E == 0 && rot % 2 == 0 && rot <= E);
  ist_rope_args args = {x, position, freq, rot, E, interleaved, inverse, mscale};
  spread(ctx, "rope", timed, ist_cpu_simd(ctx)->rope, &args, x.rows, x.cols);
}

void ist_cpu_act_fwd(ist_ctx *ctx, ist_view y, ist_view g, ist_view u, ist_act_kind kind) {
  if (!CPU_SERVES(y, g, u)) {
    ist_backend_reference()->act_fwd(ctx, y, g, u, kind);
    return;
  }
  ist_cpu_timed timed = ist_cpu_begin(ctx, ACT * ist_cpu_elements(g), CPU_BYTES(y, g, u));
  IST_ASSERT(y.rows == g.rows && y.cols == g.cols && (u.p == NULL || u.dt == g.dt));
  ist_act_args args = {.y = y, .g = g, .u = u, .kind = kind};
  spread(ctx, "act_fwd", timed, ist_cpu_simd(ctx)->act_fwd, &args, g.rows, g.cols);
}

void ist_cpu_act_bwd(ist_ctx *ctx, ist_view dg, ist_view du, ist_view y, ist_view dy, ist_view g,
                     ist_view u, ist_act_kind kind) {
  if (!CPU_SERVES(dg, du, y, dy, g, u)) {
    ist_backend_reference()->act_bwd(ctx, dg, du, y, dy, g, u, kind);
    return;
  }
  ist_cpu_timed timed =
      ist_cpu_begin(ctx, ACT_BWD * ist_cpu_elements(g), CPU_BYTES(dg, du, y, dy, g, u));
  IST_ASSERT((u.p == NULL || u.dt == g.dt) && (y.p == NULL || y.dt == g.dt));
  IST_ASSERT((dg.p == NULL || dg.dt == dy.dt) && (du.p == NULL || du.dt == dy.dt));
  ist_act_args args = {y, g, u, dg, du, dy, kind};
  spread(ctx, "act_bwd", timed, ist_cpu_simd(ctx)->act_bwd, &args, g.rows, g.cols);
}

/* ---- Loss --------------------------------------------------------------------- */

void ist_cpu_xent_tile(ist_ctx *ctx, ist_view run, ist_view tgt, ist_view logits,
                       const int32_t *target, int64_t col0, double softcap, bool first) {
  if (!CPU_SERVES(logits)) {
    ist_backend_reference()->xent_tile(ctx, run, tgt, logits, target, col0, softcap, first);
    return;
  }
  ist_cpu_timed timed = ist_cpu_begin(ctx, XENT * ist_cpu_elements(logits), CPU_BYTES(logits));
  ist_xent_args args = {.run = run,
                        .tgt = tgt,
                        .logits = logits,
                        .target = target,
                        .col0 = col0,
                        .softcap = softcap,
                        .first = first};
  spread(ctx, "xent_tile", timed, ist_cpu_simd(ctx)->xent_tile, &args, logits.rows, logits.cols);
}

void ist_cpu_xent_grad(ist_ctx *ctx, ist_view dlogits, ist_view logits, ist_view run,
                       const int32_t *target, int64_t col0, double softcap, double weight) {
  if (!CPU_SERVES(dlogits, logits)) {
    ist_backend_reference()->xent_grad(ctx, dlogits, logits, run, target, col0, softcap, weight);
    return;
  }
  ist_cpu_timed timed =
      ist_cpu_begin(ctx, XENT_GRAD * ist_cpu_elements(logits), CPU_BYTES(logits, dlogits));
  ist_xent_args args = {.run = run,
                        .logits = logits,
                        .dlogits = dlogits,
                        .target = target,
                        .col0 = col0,
                        .softcap = softcap,
                        .weight = weight};
  spread(ctx, "xent_grad", timed, ist_cpu_simd(ctx)->xent_grad, &args, logits.rows, logits.cols);
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
  ist_cpu_timed timed =
      ist_cpu_begin(ctx, ADAMW * ist_cpu_elements(w), CPU_BYTES(w, w, m, m, v, v, g));
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
  ist_cpu_end(ctx, "adamw", timed);
}

double ist_cpu_sumsq(ist_ctx *ctx, ist_view g) {
  if (!CPU_SERVES(g)) return ist_backend_reference()->sumsq(ctx, g);
  ist_cpu_timed timed = ist_cpu_begin(ctx, SUMSQ * ist_cpu_elements(g), CPU_BYTES(g));
  double total = 0.0;
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
  ist_cpu_end(ctx, "sumsq", timed);
  return total;
}
