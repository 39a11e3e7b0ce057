/* Cross-entropy, sum of squares and AdamW of the reference backend. */
#include "backend/tensor.h"

#define TOL     1e-8
#define TOL_F32 2e-6

static ist_ctx ctx;
static const ist_backend *be;

static int setup(void **state) {
  (void)state;
  be = ist_backend_reference();
  ctx = (ist_ctx){.be = be};
  return be->open(&ctx, NULL);
}

/* ---- Cross-entropy ------------------------------------------------------------ */

enum { ROWS = 5, VOCAB = 37, TILE = 16 }; /* tiles of 16, 16 and 5 columns */
static const int32_t target[ROWS] = {3, -1, 36, 16, 31};

typedef struct xent_case {
  double softcap, weight;
  tensor logits, run, tgt, dlogits;
  double row_loss[ROWS];
} xent_case;

static xent_case xent_new(ist_dtype dt, ist_dtype run_dt, double softcap) {
  return (xent_case){.softcap = softcap,
                     .weight = 0.37,
                     .logits = tensor_random(dt, ROWS, VOCAB, 2.0, 1),
                     .run = tensor_new(run_dt, ROWS, 2),
                     .tgt = tensor_new(run_dt, ROWS, 1),
                     .dlogits = tensor_new(dt, ROWS, VOCAB)};
}

static void xent_done(xent_case *c) {
  tensor all[] = {c->logits, c->run, c->tgt, c->dlogits};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) tensor_done(all[i]);
}

static ist_view tile_of(tensor t, int64_t col) {
  return ist_view_cols(t.v, col, VOCAB - col < TILE ? VOCAB - col : TILE);
}

static double xent_value(void *user) {
  xent_case *c = user;
  for (int64_t col = 0; col < VOCAB; col += TILE) {
    be->xent_tile(&ctx, c->run.v, c->tgt.v, tile_of(c->logits, col), target, col, c->softcap,
                  col == 0);
  }
  be->xent_loss(&ctx, c->row_loss, c->run.v, c->tgt.v);
  double sum = 0.0;
  for (int i = 0; i < ROWS; i++) sum += c->row_loss[i];
  return c->weight * sum;
}

static void xent_run(xent_case *c) {
  xent_value(c);
  for (int64_t col = 0; col < VOCAB; col += TILE) {
    be->xent_grad(&ctx, tile_of(c->dlogits, col), tile_of(c->logits, col), c->run.v, target, col,
                  c->softcap, c->weight);
  }
}

/* -log softmax of the capped row, at once. */
static double naive_loss(const xent_case *c, int64_t i) {
  double sum = 0.0, at_target = 0.0;
  if (target[i] < 0) return 0.0;
  for (int64_t j = 0; j < VOCAB; j++) {
    double z = tensor_get(c->logits, i, j);
    if (c->softcap > 0.0) z = c->softcap * tanh(z / c->softcap);
    if (j == target[i]) at_target = z;
    sum += exp(z);
  }
  return log(sum) - at_target;
}

static void test_xent(void **state) {
  (void)state;
  for (int capped = 0; capped < 2; capped++) {
    xent_case c = xent_new(IST_F64, IST_F64, capped ? 3.0 : 0.0);
    xent_run(&c);
    for (int64_t i = 0; i < ROWS; i++) {
      assert_true(fabs(c.row_loss[i] - naive_loss(&c, i)) <= 1e-13);
    }
    assert_true(c.row_loss[1] == 0.0);
    for (int64_t i = 0; i < ROWS; i++) {
      tensor x = {.v = ist_view_rows(c.logits.v, i, 1)},
             g = {.v = ist_view_rows(c.dlogits.v, i, 1)};
      gradcheck_input in = gradient_of("logits", x, g);
      in.zero = target[i] < 0;
      gradcheck_assert(&in, 1, xent_value, &c, TOL);
    }
    for (int f64_run = 0; f64_run < 2; f64_run++) {
      xent_case f = xent_new(IST_F32, f64_run ? IST_F64 : IST_F32, capped ? 3.0 : 0.0);
      xent_run(&f);
      for (int i = 0; i < ROWS; i++) assert_true(fabs(f.row_loss[i] - c.row_loss[i]) <= 2e-6);
      assert_close("dlogits in f32", f.dlogits, 1.0, c.dlogits, NULL, TOL_F32);
      xent_done(&f);
    }
    xent_done(&c);
  }
}

/* A tile wide enough to be done in pieces; the gradient may lie in the logits'
 * memory, as BF16 too. */
static void test_xent_in_place(void **state) {
  (void)state;
  enum { WIDE = 700 };
  const int32_t wide_target[2] = {5, 650};
  tensor x = tensor_random(IST_F32, 2, WIDE, 2.0, 1), d = tensor_new(IST_F32, 2, WIDE);
  tensor run = tensor_new(IST_F64, 2, 2), tgt = tensor_new(IST_F64, 2, 1);
  tensor expected = tensor_new(IST_F64, 2, WIDE);
  for (int64_t i = 0; i < 2; i++) {
    double sum = 0.0;
    for (int64_t j = 0; j < WIDE; j++) sum += exp(tensor_get(x, i, j));
    for (int64_t j = 0; j < WIDE; j++) {
      double p = exp(tensor_get(x, i, j)) / sum;
      tensor_set(expected, i, j, 0.5 * (p - (j == wide_target[i] ? 1.0 : 0.0)));
    }
  }
  be->xent_tile(&ctx, run.v, tgt.v, x.v, wide_target, 0, 0.0, true);
  be->xent_grad(&ctx, d.v, x.v, run.v, wide_target, 0, 0.0, 0.5);
  assert_close("dlogits", d, 1.0, expected, NULL, 1e-7);

  tensor narrow = {.v = ist_view_make(x.v.p, IST_BF16, 2, WIDE, 2 * x.v.stride)};
  tensor same = tensor_random(IST_F32, 2, WIDE, 2.0, 1);
  be->xent_grad(&ctx, same.v, same.v, run.v, wide_target, 0, 0.0, 0.5);
  assert_same(same, d);
  be->xent_grad(&ctx, narrow.v, x.v, run.v, wide_target, 0, 0.0, 0.5);
  for (int64_t i = 0; i < 2 * WIDE; i++) {
    float g = *(float *)tensor_at(d, i / WIDE, i % WIDE);
    assert_int_equal(*(ist_bf16 *)tensor_at(narrow, i / WIDE, i % WIDE), ist_f32_to_bf16(g));
  }
  tensor_done(x), tensor_done(d), tensor_done(run), tensor_done(tgt);
  tensor_done(expected), tensor_done(same);
}

/* Large logits, banned tokens (-INFINITY, a whole tile of them) and NaN. */
static void test_xent_extremes(void **state) {
  (void)state;
  xent_case c = xent_new(IST_F64, IST_F64, 0.0);
  for (int64_t j = 0; j < VOCAB; j++) tensor_set(c.logits, 0, j, j == 3 ? 5000.0 : -5000.0);
  for (int64_t j = 0; j < TILE; j++) tensor_set(c.logits, 2, j, -INFINITY);
  tensor_set(c.logits, 4, 20, NAN);
  xent_run(&c);
  assert_true(c.row_loss[0] == 0.0 && tensor_get(c.dlogits, 0, 3) == 0.0);
  assert_true(fabs(c.row_loss[2] - naive_loss(&c, 2)) <= 1e-13);
  assert_true(tensor_get(c.dlogits, 2, 0) == 0.0);
  assert_true(isnan(c.row_loss[4]));
  xent_done(&c);
}

/* ---- Sum of squares -------------------------------------------------------------- */

static void test_sumsq(void **state) {
  (void)state;
  tensor g = tensor_new(IST_F32, 3, 5000), d = tensor_new(IST_F64, 3, 5000);
  double expected = 0.0;
  for (int64_t r = 0; r < 3; r++) {
    for (int64_t c = 0; c < 5000; c++) {
      double x = (double)((r + c) % 7) - 3.0; /* integers: every sum is exact */
      tensor_set(g, r, c, x);
      tensor_set(d, r, c, x);
      expected += x * x;
    }
  }
  assert_true(be->sumsq(&ctx, g.v) == expected && be->sumsq(&ctx, d.v) == expected);
  float flat[6] = {1, 2, 3, 4, 5, 6};
  assert_true(be->sumsq(&ctx, ist_view_make(flat, IST_F32, 2, 3, 3)) == 91.0);
  tensor_set(g, 2, 4999, INFINITY);
  assert_true(be->sumsq(&ctx, g.v) == INFINITY);
  tensor_set(g, 0, 0, NAN);
  assert_true(isnan(be->sumsq(&ctx, g.v)));
  tensor_done(g), tensor_done(d);
}

/* ---- AdamW ------------------------------------------------------------------------ */

/* One parameter, written from the paper's algorithm 2 with bias-corrected moments. */
typedef struct scalar {
  double w, m, v;
} scalar;

static void scalar_step(scalar *s, double g, double lr, double decay, int t) {
  s->w *= 1.0 - lr * decay;
  s->m += (g - s->m) * (1.0 - 0.9);
  s->v += (g * g - s->v) * (1.0 - 0.99);
  double m_hat = s->m / (1.0 - pow(0.9, t)), v_hat = s->v / (1.0 - pow(0.99, t));
  s->w -= lr * m_hat / (sqrt(v_hat) + 1e-6);
}

static void adamw_one(ist_dtype dt, double tol) {
  enum { PARAMS = 11 };
  tensor w = tensor_random(dt, 1, PARAMS, 1.0, 1), g = tensor_new(dt, 1, PARAMS);
  tensor m = tensor_new(dt, 1, PARAMS), v = tensor_new(dt, 1, PARAMS);
  tensor_fill(m, 0.0);
  tensor_fill(v, 0.0);
  scalar s[PARAMS];
  for (int64_t i = 0; i < PARAMS; i++) s[i] = (scalar){tensor_get(w, 0, i), 0.0, 0.0};
  for (int t = 1; t <= 20; t++) {
    tensor fresh = tensor_random(dt, 1, PARAMS, 1.0, 100 + (uint32_t)t);
    be->copy(&ctx, g.v, fresh.v);
    ist_adamw o = {.lr = 0.01 * t,
                   .beta1 = 0.9,
                   .beta2 = 0.99,
                   .eps = 1e-6,
                   .weight_decay = 0.1,
                   .t = t,
                   .grad_scale = 0.5};
    be->adamw(&ctx, w.v, g.v, m.v, v.v, &o);
    assert_same(g, fresh);
    tensor_done(fresh);
    for (int64_t i = 0; i < PARAMS; i++) {
      scalar_step(&s[i], 0.5 * tensor_get(g, 0, i), o.lr, 0.1, t);
      assert_true(fabs(tensor_get(w, 0, i) - s[i].w) <= tol);
      assert_true(fabs(tensor_get(m, 0, i) - s[i].m) <= tol);
      assert_true(fabs(tensor_get(v, 0, i) - s[i].v) <= tol);
    }
  }
  tensor_done(w), tensor_done(g), tensor_done(m), tensor_done(v);
}

static void test_adamw(void **state) {
  (void)state;
  adamw_one(IST_F64, 1e-13);
  adamw_one(IST_F32, 3e-6);
}

/* The first step is lr * sign(g), and t, not the number of calls, corrects the bias. */
static void test_adamw_first_step(void **state) {
  (void)state;
  double w[2] = {1.0, 1.0}, g[2] = {3.0, -1e-3}, m[2] = {0}, v[2] = {0};
  ist_view vw = ist_view_make(w, IST_F64, 1, 2, 2), vg = ist_view_make(g, IST_F64, 1, 2, 2);
  ist_view vm = ist_view_make(m, IST_F64, 1, 2, 2), vv = ist_view_make(v, IST_F64, 1, 2, 2);
  ist_adamw o = {.lr = 0.125, .beta1 = 0.9, .beta2 = 0.999, .eps = 0.0, .t = 1, .grad_scale = 1.0};
  be->adamw(&ctx, vw, vg, vm, vv, &o);
  assert_true(fabs(w[0] - 0.875) <= 1e-15 && fabs(w[1] - 1.125) <= 1e-15);
  /* Late in a run the correction is 1: m = 0.1 g, v = 0.001 g^2. */
  double w2[1] = {0.0}, g2[1] = {2.0}, m2[1] = {0}, v2[1] = {0};
  o.t = 1000000;
  be->adamw(&ctx, ist_view_make(w2, IST_F64, 1, 1, 1), ist_view_make(g2, IST_F64, 1, 1, 1),
            ist_view_make(m2, IST_F64, 1, 1, 1), ist_view_make(v2, IST_F64, 1, 1, 1), &o);
  assert_true(fabs(w2[0] + 0.125 * 0.1 / sqrt(0.001)) <= 1e-12);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_xent),          cmocka_unit_test(test_xent_in_place),
      cmocka_unit_test(test_xent_extremes), cmocka_unit_test(test_sumsq),
      cmocka_unit_test(test_adamw),         cmocka_unit_test(test_adamw_first_step),
  };
  return cmocka_run_group_tests(tests, setup, NULL);
}
