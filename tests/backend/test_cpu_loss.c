/* Cross-entropy, sum of squares and AdamW of the CPU backend. */
#include <stdio.h>

#include "backend/cpu_cases.h"

#define TOL 3e-6

typedef struct xent_case {
  int64_t rows, vocab, tile;
  double softcap, scale;
} xent_case;

static ist_view tile_of(const xent_case *c, ist_view v, int64_t col) {
  return ist_view_cols(v, col, c->vocab - col < c->tile ? c->vocab - col : c->tile);
}

static void xent(const place *p, const void *what, outputs *out) {
  const xent_case *c = what;
  int32_t target[80];
  for (int64_t r = 0; r < c->rows; r++) {
    target[r] = r % 5 == 3 ? -1 : (int32_t)((r * 7919) % c->vocab);
  }
  tensor logits = input(p, c->rows, c->vocab, c->scale, 1);
  tensor wide = input_wide(p, c->rows, c->vocab, c->scale, 1);
  tensor run = tensor_new(p->wide, c->rows, 2), tgt = tensor_new(p->wide, c->rows, 1);
  tensor loss = tensor_new(IST_F64, 1, c->rows), d = tensor_new(p->compute, c->rows, c->vocab);
  for (int64_t col = 0; col < c->vocab; col += c->tile) {
    p->be->xent_tile(p->ctx, run.v, tgt.v, tile_of(c, logits.v, col), target, col, c->softcap,
                     col == 0);
  }
  p->be->xent_loss(p->ctx, loss.v.p, run.v, tgt.v);
  for (int64_t col = 0; col < c->vocab; col += c->tile) {
    p->be->xent_grad(p->ctx, tile_of(c, d.v, col), tile_of(c, logits.v, col), run.v, target, col,
                     c->softcap, 0.37);
  }
  /* The whole width at once, narrowed where it lies: what training does. */
  p->be->xent_tile(p->ctx, run.v, tgt.v, wide.v, target, 0, c->softcap, true);
  ist_view on = p->compute == IST_BF16
                    ? ist_view_make(wide.v.p, IST_BF16, c->rows, c->vocab, 2 * wide.v.stride)
                    : wide.v;
  p->be->xent_grad(p->ctx, on, wide.v, run.v, target, 0, c->softcap, 0.37);
  tensor own = tensor_new(p->compute, c->rows, c->vocab);
  for (int64_t r = 0; r < c->rows; r++) {
    memcpy(tensor_at(own, r, 0), (char *)on.p + r * on.stride * element_bytes(on.dt),
           (size_t)(c->vocab * element_bytes(on.dt)));
  }
  keep(out, "loss", loss, TOL);
  keep(out, "dlogits", d, TOL);
  keep(out, "dlogits on the logits", own, TOL);
  keep(out, "run", run, TOL);
  keep(out, "tgt", tgt, TOL);
  tensor_done(logits);
  if (p->compute != IST_BF16) tensor_check(wide);
  free(wide.memory);
}

static void test_xent(void **state) {
  (void)state;
  static const xent_case cases[] = {{1, 1, 1, 0, 2},          {5, 37, 16, 0, 2},
                                    {9, 130, 64, 3, 4},       {64, 1500, 1500, 0, 6},
                                    {64, 1543, 1031, 30, 20}, {3, 2100, 700, 0, 60}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) run_case(xent, &cases[i]);
}

/* Rows of -INFINITY, +INFINITY and NaN end as the definition says: NaN, never a number. */
static void test_xent_not_finite(void **state) {
  (void)state;
  const ist_simd *levels[4];
  int n = ist_cpu_levels(levels);
  static const float bad[3] = {-INFINITY, INFINITY, NAN};
  for (int i = 0; i < n; i++) {
    ist_ctx ctx = {.be = ist_backend_cpu()};
    assert_int_equal(ist_cpu_open_with(&ctx, levels[i], NULL, NULL), IST_OK);
    for (int k = 0; k < 3; k++) {
      for (int at = 0; at < 37; at++) {
        tensor logits = tensor_random(IST_F32, 1, 37, 1.0, 1), run = tensor_new(IST_F32, 1, 2);
        tensor tgt = tensor_new(IST_F32, 1, 1);
        const int32_t target = 5;
        double loss;
        tensor_set(logits, 0, at, (double)bad[k]);
        ctx.be->xent_tile(&ctx, run.v, tgt.v, logits.v, &target, 0, 0.0, true);
        ctx.be->xent_loss(&ctx, &loss, run.v, tgt.v);
        if (k == 0) {
          assert_true(at == target ? loss == INFINITY : isfinite(loss));
        } else {
          assert_true(isnan(loss));
        }
        tensor_done(logits), tensor_done(run), tensor_done(tgt);
      }
    }
    ctx.be->close(&ctx);
  }
}

/* ---- Optimizer ------------------------------------------------------------------- */

typedef struct parameters {
  int64_t rows, cols;
  bool dense;
} parameters;

static ist_view whole(tensor t, bool dense) {
  ist_view v = t.v;
  if (dense) { /* the padding becomes part of the block */
    v.cols = v.stride;
    for (int64_t r = 0; r < v.rows; r++) {
      for (int64_t c = t.v.cols; c < t.v.stride; c++) tensor_set(t, r, c, 0.5 + 0.125 * (double)c);
    }
  }
  return v;
}

static void adamw(const place *p, const void *what, outputs *out) {
  const parameters *c = what;
  tensor w = input_wide(p, c->rows, c->cols, 1.0, 1), g = input_wide(p, c->rows, c->cols, 1.0, 2);
  tensor m = input_wide(p, c->rows, c->cols, 0.1, 3), v = input_wide(p, c->rows, c->cols, 0.1, 4);
  for (int64_t i = 0; i < c->rows * c->cols; i++) {
    double x = tensor_get(v, i / c->cols, i % c->cols);
    tensor_set(v, i / c->cols, i % c->cols, (double)(float)fabs(x));
  }
  ist_view wv = whole(w, c->dense), gv = whole(g, c->dense), mv = whole(m, c->dense);
  ist_view vv = whole(v, c->dense);
  for (int64_t t = 1; t <= 3; t++) {
    const ist_adamw o = {0.01, 0.9, 0.999, 1e-8, 0.1, t, 0.7};
    p->be->adamw(p->ctx, wv, gv, mv, vv, &o);
  }
  tensor sum = tensor_new(IST_F64, 1, 1);
  *(double *)sum.v.p = p->be->sumsq(p->ctx, gv);
  tensor all[] = {w, m, v, sum}; /* the padding is compared, not guarded, when dense */
  const char *names[] = {"w", "m", "v", "sumsq"};
  for (int i = 0; i < 4; i++) {
    if (c->dense && i < 3) {
      all[i].v.cols = all[i].v.stride;
      tensor_check(all[i]);
    }
    keep(out, names[i], all[i], i == 3 ? 1e-12 : TOL);
  }
  if (c->dense) g.v.cols = g.v.stride;
  tensor_done(g);
}

static void test_adamw(void **state) {
  (void)state;
  static const parameters cases[] = {
      {1, 1, false}, {3, 5, false}, {7, 33, true}, {9, 4099, false}, {50, 1031, true}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) run_case(adamw, &cases[i]);
}

/* BF16 gradients sum as their values do, and what is not finite shows. */
static void sumsq(const place *p, const void *what, outputs *out) {
  const parameters *c = what;
  tensor g = input(p, c->rows, c->cols, 1.0, 2), sum = tensor_new(IST_F64, 1, 3);
  double *s = sum.v.p;
  s[0] = p->be->sumsq(p->ctx, g.v);
  tensor_set(g, c->rows - 1, c->cols - 1, INFINITY);
  s[1] = p->be->sumsq(p->ctx, g.v);
  tensor_set(g, 0, 0, NAN);
  s[2] = p->be->sumsq(p->ctx, g.v);
  keep(out, "sumsq", sum, 1e-12);
  tensor_done(g);
}

static void test_sumsq(void **state) {
  (void)state;
  static const parameters cases[] = {{1, 1, false}, {3, 4095, false}, {50, 1031, false}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) run_case(sumsq, &cases[i]);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_xent),
      cmocka_unit_test(test_xent_not_finite),
      cmocka_unit_test(test_adamw),
      cmocka_unit_test(test_sumsq),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
