/* Norms, rotary positions and activations of the reference backend. */
#include <complex.h>

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

/* ---- Norms ------------------------------------------------------------------ */

typedef struct norm_case {
  ist_norm_kind kind;
  bool acc;
  tensor x, w, bias, h, stat, dh, dx, dw, dbias, before;
} norm_case;

static norm_case norm_new(ist_dtype dt, ist_norm_kind kind, bool has_bias) {
  int64_t N = 5, D = 7;
  norm_case c = {.kind = kind};
  c.x = tensor_random(dt, N, D, 1.5, 1);
  c.w = tensor_random(dt, 1, D, 1.0, 2);
  if (has_bias) c.bias = tensor_random(dt, 1, D, 1.0, 3);
  c.h = tensor_new(dt, N, D);
  c.stat = tensor_new(dt, N, kind == IST_NORM_LAYER ? 2 : 1);
  c.dh = tensor_random(dt, N, D, 1.0, 4);
  c.dx = tensor_new(dt, N, D);
  c.dw = tensor_new(dt, 1, D);
  c.dbias = tensor_new(dt, 1, D);
  tensor_fill(c.dw, 0.0);
  tensor_fill(c.dbias, 0.0);
  return c;
}

static void norm_done(norm_case *c) {
  tensor all[] = {c->x, c->w, c->bias, c->h, c->stat, c->dh, c->dx, c->dw, c->dbias};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) tensor_done(all[i]);
}

static double norm_loss(void *user) {
  norm_case *c = user;
  be->norm_fwd(&ctx, c->h.v, c->stat.v, c->x.v, c->w.v, c->bias.v, c->kind, 1e-2);
  return tensor_dot(c->h, c->dh);
}

static void norm_run(norm_case *c) {
  norm_loss(c);
  be->norm_bwd(&ctx, c->dx.v, false, c->dw.v, c->bias.v.p ? c->dbias.v : ist_view_none(), c->dh.v,
               c->x.v, c->w.v, c->stat.v, c->kind);
}

/* The definition, with two passes and no shared code. */
static void check_norm_values(const norm_case *c) {
  int64_t D = c->x.v.cols;
  for (int64_t i = 0; i < c->x.v.rows; i++) {
    double mean = 0.0, var = 0.0;
    for (int64_t j = 0; j < D; j++) mean += tensor_get(c->x, i, j) / (double)D;
    if (c->kind != IST_NORM_LAYER) mean = 0.0;
    for (int64_t j = 0; j < D; j++) var += pow(tensor_get(c->x, i, j) - mean, 2.0) / (double)D;
    for (int64_t j = 0; j < D; j++) {
      double w = tensor_get(c->w, 0, j) + (c->kind == IST_NORM_RMS1 ? 1.0 : 0.0);
      double y = (tensor_get(c->x, i, j) - mean) / sqrt(var + 1e-2) * w;
      if (c->bias.v.p != NULL) y += tensor_get(c->bias, 0, j);
      assert_true(fabs(tensor_get(c->h, i, j) - y) <= 1e-12);
    }
  }
}

static void norm_one(ist_norm_kind kind, bool bias) {
  norm_case c = norm_new(IST_F64, kind, bias), f = norm_new(IST_F32, kind, bias);
  norm_run(&c);
  check_norm_values(&c);
  gradcheck_input in[] = {gradient_of("x", c.x, c.dx), gradient_of("w", c.w, c.dw),
                          gradient_of("bias", c.bias, c.dbias)};
  gradcheck_assert(in, bias ? 3 : 2, norm_loss, &c, TOL);

  norm_run(&f);
  assert_close("h in f32", f.h, 1.0, c.h, NULL, TOL_F32);
  assert_close("stat in f32", f.stat, 1.0, c.stat, NULL, TOL_F32);
  assert_close("dx in f32", f.dx, 1.0, c.dx, NULL, TOL_F32);
  assert_close("dw in f32", f.dw, 1.0, c.dw, NULL, TOL_F32);
  norm_done(&f);
  norm_done(&c);
}

static void test_norm(void **state) {
  (void)state;
  for (int kind = IST_NORM_RMS; kind <= IST_NORM_LAYER; kind++) {
    norm_one((ist_norm_kind)kind, false);
    norm_one((ist_norm_kind)kind, true);
  }
}

/* dx accumulates on request, dw and dbias always; each output may be absent; h may
 * be x and dx may be dh. */
static void test_norm_outputs(void **state) {
  (void)state;
  for (int kind = IST_NORM_RMS; kind <= IST_NORM_LAYER; kind++) {
    norm_case c = norm_new(IST_F64, (ist_norm_kind)kind, true);
    ist_view none = ist_view_none();
    norm_run(&c);
    tensor dx = tensor_random(IST_F64, 5, 7, 1.0, 9), before = tensor_random(IST_F64, 5, 7, 1.0, 9);
    tensor dw = tensor_random(IST_F64, 1, 7, 1.0, 8), dw0 = tensor_random(IST_F64, 1, 7, 1.0, 8);
    be->norm_bwd(&ctx, dx.v, true, none, none, c.dh.v, c.x.v, c.w.v, c.stat.v, c.kind);
    assert_close("dx accumulated", dx, 1.0, c.dx, &before, 1e-14);
    be->norm_bwd(&ctx, none, false, dw.v, none, c.dh.v, c.x.v, c.w.v, c.stat.v, c.kind);
    assert_close("dw accumulated", dw, 1.0, c.dw, &dw0, 1e-14);
    be->norm_bwd(&ctx, none, false, none, c.dbias.v, c.dh.v, c.x.v, c.w.v, c.stat.v, c.kind);
    tensor sums = tensor_new(IST_F64, 1, 7);
    for (int64_t j = 0; j < 7; j++) {
      double s = 0.0;
      for (int64_t i = 0; i < 5; i++) s += tensor_get(c.dh, i, j);
      tensor_set(sums, 0, j, 2.0 * s);
    }
    assert_close("dbias accumulated", c.dbias, 1.0, sums, NULL, 1e-14);
    be->norm_bwd(&ctx, c.dh.v, false, none, none, c.dh.v, c.x.v, c.w.v, c.stat.v, c.kind);
    assert_same(c.dh, c.dx);
    be->norm_fwd(&ctx, c.x.v, c.stat.v, c.x.v, c.w.v, c.bias.v, c.kind, 1e-2);
    assert_same(c.x, c.h);
    tensor_done(dx), tensor_done(before), tensor_done(dw), tensor_done(dw0), tensor_done(sums);
    norm_done(&c);
  }
}

/* ---- Rotary ------------------------------------------------------------------ */

enum { HEADS = 2, E = 9, ROT = 6 };
static const int32_t rope_position[4] = {0, 1, 17, 4000};
static const float rope_freq[ROT / 2] = {1.0f, 0.3f, 0.0007f};

static void rope(tensor x, bool interleaved, bool inverse) {
  be->rope(&ctx, x.v, rope_position, rope_freq, ROT, E, interleaved, 1.25, inverse);
}

typedef struct rope_case {
  bool interleaved;
  tensor x, y, dy, dx;
} rope_case;

static double rope_loss(void *user) {
  rope_case *c = user;
  be->copy(&ctx, c->y.v, c->x.v);
  rope(c->y, c->interleaved, false);
  return tensor_dot(c->y, c->dy);
}

/* Against complex numbers: the pair is a + ib, turned by exp(i position freq). */
static void check_rope_values(const rope_case *c) {
  for (int64_t i = 0; i < c->x.v.rows; i++) {
    for (int64_t h = 0; h < HEADS; h++) {
      for (int64_t j = 0; j < ROT / 2; j++) {
        int64_t a = h * E + (c->interleaved ? 2 * j : j);
        int64_t b = h * E + (c->interleaved ? 2 * j + 1 : j + ROT / 2);
        double complex z = tensor_get(c->x, i, a) + I * tensor_get(c->x, i, b);
        z *= 1.25 * cexp(I * (double)rope_position[i] * (double)rope_freq[j]);
        assert_true(fabs(tensor_get(c->y, i, a) - creal(z)) <= 1e-12);
        assert_true(fabs(tensor_get(c->y, i, b) - cimag(z)) <= 1e-12);
      }
      for (int64_t e = ROT; e < E; e++) {
        assert_true(tensor_get(c->y, i, h * E + e) == tensor_get(c->x, i, h * E + e));
      }
    }
  }
}

static void test_rope(void **state) {
  (void)state;
  for (int interleaved = 0; interleaved < 2; interleaved++) {
    rope_case c = {.interleaved = interleaved != 0};
    c.x = tensor_random(IST_F64, 4, HEADS * E, 1.0, 1);
    c.y = tensor_new(IST_F64, 4, HEADS * E);
    c.dy = tensor_random(IST_F64, 4, HEADS * E, 1.0, 2);
    c.dx = tensor_random(IST_F64, 4, HEADS * E, 1.0, 2);
    tensor f = tensor_random(IST_F32, 4, HEADS * E, 1.0, 1);
    rope_loss(&c);
    check_rope_values(&c);
    rope(c.dx, c.interleaved, true);
    gradcheck_input in = gradient_of("x", c.x, c.dx);
    gradcheck_assert(&in, 1, rope_loss, &c, TOL);
    rope(f, c.interleaved, false);
    assert_close("rope in f32", f, 1.0, c.y, NULL, TOL_F32);
    tensor_done(c.x), tensor_done(c.y), tensor_done(c.dy), tensor_done(c.dx), tensor_done(f);
  }
}

/* ---- Activations --------------------------------------------------------------- */

typedef struct act_case {
  ist_act_kind kind;
  tensor g, u, y, dy, dg, du;
} act_case;

static act_case act_new(ist_dtype dt, ist_act_kind kind, bool gated) {
  act_case c = {.kind = kind};
  c.g = tensor_random(dt, 3, 5, 2.0, 1);
  if (kind == IST_ACT_RELU) {
    /* Away from the corner. */
    for (int64_t i = 0; i < 15; i++) {
      double x = tensor_get(c.g, i / 5, i % 5);
      tensor_set(c.g, i / 5, i % 5, x < 0.0 ? x - 0.125 : x + 0.125);
    }
  }
  if (gated) c.u = tensor_random(dt, 3, 5, 1.0, 2);
  if (gated) c.du = tensor_new(dt, 3, 5);
  c.y = tensor_new(dt, 3, 5);
  c.dy = tensor_random(dt, 3, 5, 1.0, 3);
  c.dg = tensor_new(dt, 3, 5);
  return c;
}

static void act_done(act_case *c) {
  tensor all[] = {c->g, c->u, c->y, c->dy, c->dg, c->du};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) tensor_done(all[i]);
}

static double act_loss(void *user) {
  act_case *c = user;
  be->act_fwd(&ctx, c->y.v, c->g.v, c->u.v, c->kind);
  return tensor_dot(c->y, c->dy);
}

static void act_one(ist_act_kind kind, bool gated) {
  act_case c = act_new(IST_F64, kind, gated), f = act_new(IST_F32, kind, gated);
  tensor again = tensor_new(IST_F64, 3, 5);
  act_loss(&c);
  be->act_bwd(&ctx, c.dg.v, c.du.v, again.v, c.dy.v, c.g.v, c.u.v, kind);
  assert_same(again, c.y);
  gradcheck_input in[] = {gradient_of("g", c.g, c.dg), gradient_of("u", c.u, c.du)};
  gradcheck_assert(in, gated ? 2 : 1, act_loss, &c, TOL);

  act_loss(&f);
  be->act_bwd(&ctx, f.dg.v, f.du.v, ist_view_none(), f.dy.v, f.g.v, f.u.v, kind);
  assert_close("y in f32", f.y, 1.0, c.y, NULL, TOL_F32);
  assert_close("dg in f32", f.dg, 1.0, c.dg, NULL, TOL_F32);
  if (gated) {
    assert_close("du in f32", f.du, 1.0, c.du, NULL, TOL_F32);
    /* Outputs on inputs: dg over g, du over u, the forward value over dy. */
    be->act_bwd(&ctx, c.g.v, c.u.v, c.dy.v, c.dy.v, c.g.v, c.u.v, kind);
    assert_same(c.g, c.dg);
    assert_same(c.u, c.du);
    assert_same(c.dy, c.y);
  }
  tensor_done(again);
  act_done(&f);
  act_done(&c);
}

static void test_act(void **state) {
  (void)state;
  for (int kind = IST_ACT_SILU; kind <= IST_ACT_SIGMOID; kind++) {
    act_one((ist_act_kind)kind, false);
    act_one((ist_act_kind)kind, true);
  }
}

/* Values of the definitions at 1 and -2, from tables of the functions. */
static void test_act_values(void **state) {
  (void)state;
  const struct {
    ist_act_kind kind;
    double at_1, at_minus_2;
  } known[] = {
      {IST_ACT_SILU, 0.7310585786300049, -0.2384058440442351},
      {IST_ACT_GELU_ERF, 0.8413447460685429, -0.0455002638963584},
      {IST_ACT_GELU_TANH, 0.8411919906082768, -0.0454023059127393},
      {IST_ACT_RELU, 1.0, 0.0},
      {IST_ACT_TANH, 0.7615941559557649, -0.9640275800758169},
      {IST_ACT_SIGMOID, 0.7310585786300049, 0.1192029220221176},
  };
  for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
    double x[2] = {1.0, -2.0};
    ist_view v = ist_view_make(x, IST_F64, 1, 2, 2);
    be->act_fwd(&ctx, v, v, ist_view_none(), known[i].kind);
    assert_true(fabs(x[0] - known[i].at_1) <= 1e-12);
    assert_true(fabs(x[1] - known[i].at_minus_2) <= 1e-12);
  }
}

/* Large arguments neither overflow nor lose the sign. */
static void test_act_far(void **state) {
  (void)state;
  for (int kind = IST_ACT_SILU; kind <= IST_ACT_RELU; kind++) {
    float g[2] = {-1e4f, 1e4f}, y[2], dg[2], dy[2] = {1.0f, 1.0f};
    ist_view vg = ist_view_make(g, IST_F32, 1, 2, 2), vy = ist_view_make(y, IST_F32, 1, 2, 2);
    be->act_fwd(&ctx, vy, vg, ist_view_none(), (ist_act_kind)kind);
    assert_true(y[0] == 0.0f && y[1] == 1e4f);
    be->act_bwd(&ctx, ist_view_make(dg, IST_F32, 1, 2, 2), ist_view_none(), ist_view_none(),
                ist_view_make(dy, IST_F32, 1, 2, 2), vg, ist_view_none(), (ist_act_kind)kind);
    assert_true(dg[0] == 0.0f && dg[1] == 1.0f);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_norm),       cmocka_unit_test(test_norm_outputs),
      cmocka_unit_test(test_rope),       cmocka_unit_test(test_act),
      cmocka_unit_test(test_act_values), cmocka_unit_test(test_act_far),
  };
  return cmocka_run_group_tests(tests, setup, NULL);
}
