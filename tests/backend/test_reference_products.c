/* Matrix products and linears of the reference backend, and a backend that has only
 * products. */
#include "backend/tensor.h"
#include "ist.h"

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

/* Element (i, j) of op(t). */
static double op_get(tensor t, bool transposed, int64_t i, int64_t j) {
  return transposed ? tensor_get(t, j, i) : tensor_get(t, i, j);
}

static void matmul_one(ist_dtype dt, int64_t m, int64_t n, int64_t k, bool ta, bool tb, int beta) {
  tensor a = tensor_random(dt, ta ? k : m, ta ? m : k, 1.0, 1);
  tensor b = tensor_random(dt, tb ? n : k, tb ? k : n, 1.0, 2);
  tensor c = beta ? tensor_random(dt, m, n, 1.0, 3) : tensor_new(dt, m, n);
  tensor expected = tensor_random(IST_F64, m, n, 1.0, 3);
  for (int64_t i = 0; i < m; i++) {
    for (int64_t j = 0; j < n; j++) {
      double s = beta ? tensor_get(expected, i, j) : 0.0;
      for (int64_t p = 0; p < k; p++) s += op_get(a, ta, i, p) * op_get(b, tb, p, j);
      tensor_set(expected, i, j, s);
    }
  }
  be->matmul(&ctx, c.v, a.v, ta, b.v, tb, beta);
  assert_close("matmul", c, 1.0, expected, NULL, dt == IST_F64 ? 1e-13 : TOL_F32);
  tensor_done(a), tensor_done(b), tensor_done(c), tensor_done(expected);
}

static void test_matmul(void **state) {
  (void)state;
  const int64_t sizes[][3] = {{1, 1, 1},    {3, 5, 2},   {7, 65, 64},
                              {66, 3, 129}, {4, 64, 63}, {5, 1, 0}};
  for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
    for (int flags = 0; flags < 16; flags++) {
      matmul_one(flags & 8 ? IST_F32 : IST_F64, sizes[s][0], sizes[s][1], sizes[s][2], flags & 1,
                 flags & 2, flags & 4 ? 1 : 0);
    }
  }
}

/* Rows are spread over threads; their sums must not notice. */
static void test_threads(void **state) {
  (void)state;
  int threads = ist_get_threads();
  tensor a = tensor_random(IST_F32, 301, 150, 1.0, 1), b = tensor_random(IST_F32, 97, 150, 1.0, 2);
  tensor one = tensor_new(IST_F32, 301, 97), three = tensor_new(IST_F32, 301, 97);
  ist_set_threads(1);
  be->matmul(&ctx, one.v, a.v, false, b.v, true, 0);
  ist_set_threads(3);
  be->matmul(&ctx, three.v, a.v, false, b.v, true, 0);
  ist_set_threads(threads);
  assert_same(one, three);
  tensor_done(a), tensor_done(b), tensor_done(one), tensor_done(three);
}

/* ---- Linears ------------------------------------------------------------------- */

enum { N = 5, IN = 7, OUT = 6, R = 3 };

typedef struct linear_case {
  ist_ctx ctx;
  tensor x, w, bias, u, b, y, dy, dx, du;
} linear_case;

static linear_case linear_new(const ist_backend *backend, ist_dtype dt, bool extended) {
  linear_case c = {.ctx = {.be = backend}};
  c.x = tensor_random(dt, N, IN, 1.0, 1);
  c.w = tensor_random(dt, OUT, IN, 1.0, 2);
  if (extended) {
    c.bias = tensor_random(dt, 1, OUT, 1.0, 3);
    c.u = tensor_random(dt, N, R, 1.0, 4);
    c.b = tensor_random(dt, OUT, R, 1.0, 5);
    c.du = tensor_new(dt, N, R);
  }
  c.y = tensor_new(dt, N, OUT);
  c.dy = tensor_random(dt, N, OUT, 1.0, 6);
  c.dx = tensor_new(dt, N, IN);
  return c;
}

static void linear_done(linear_case *c) {
  tensor all[] = {c->x, c->w, c->bias, c->u, c->b, c->y, c->dy, c->dx, c->du};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) tensor_done(all[i]);
}

static double linear_loss(void *user) {
  linear_case *c = user;
  c->ctx.be->linear_fwd(&c->ctx, c->y.v, c->x.v, c->w.v, c->bias.v, c->u.v, c->b.v);
  return tensor_dot(c->y, c->dy);
}

static void linear_run(linear_case *c) {
  linear_loss(c);
  c->ctx.be->linear_bwd(&c->ctx, c->dx.v, false, c->du.v, c->dy.v, c->w.v, c->b.v);
}

static void check_linear_values(const linear_case *c) {
  for (int64_t i = 0; i < N; i++) {
    for (int64_t j = 0; j < OUT; j++) {
      double s = c->bias.v.p != NULL ? tensor_get(c->bias, 0, j) : 0.0;
      for (int64_t p = 0; p < IN; p++) s += tensor_get(c->x, i, p) * tensor_get(c->w, j, p);
      for (int64_t p = 0; c->u.v.p != NULL && p < R; p++) {
        s += tensor_get(c->u, i, p) * tensor_get(c->b, j, p);
      }
      assert_true(fabs(tensor_get(c->y, i, j) - s) <= 1e-12);
    }
  }
}

static void linear_one(const ist_backend *backend, bool extended) {
  linear_case c = linear_new(backend, IST_F64, extended);
  linear_case f = linear_new(backend, IST_F32, extended);
  linear_run(&c);
  check_linear_values(&c);
  gradcheck_input in[] = {gradient_of("x", c.x, c.dx), gradient_of("u", c.u, c.du)};
  gradcheck_assert(in, extended ? 2 : 1, linear_loss, &c, TOL);

  tensor dx = tensor_random(IST_F64, N, IN, 1.0, 9), before = tensor_random(IST_F64, N, IN, 1.0, 9);
  backend->linear_bwd(&c.ctx, dx.v, true, ist_view_none(), c.dy.v, c.w.v, c.b.v);
  assert_close("dx accumulated", dx, 1.0, c.dx, &before, 1e-13);
  if (extended) {
    tensor du = tensor_new(IST_F64, N, R);
    backend->linear_bwd(&c.ctx, ist_view_none(), false, du.v, c.dy.v, c.w.v, c.b.v);
    assert_same(du, c.du);
    tensor_done(du);
  }
  linear_run(&f);
  assert_close("y in f32", f.y, 1.0, c.y, NULL, TOL_F32);
  assert_close("dx in f32", f.dx, 1.0, c.dx, NULL, TOL_F32);
  tensor_done(dx), tensor_done(before);
  linear_done(&f);
  linear_done(&c);
}

static void test_linear(void **state) {
  (void)state;
  linear_one(be, false);
  linear_one(be, true);
}

/* The gradients of the weights are products, too: dW += dy^T x, dB += dy^T u. */
static void test_weight_gradients(void **state) {
  (void)state;
  linear_case c = linear_new(be, IST_F64, true);
  tensor dw = tensor_new(IST_F64, OUT, IN), db = tensor_new(IST_F64, OUT, R);
  be->zero(&ctx, dw.v);
  be->matmul(&ctx, dw.v, c.dy.v, true, c.x.v, false, 1);
  be->matmul(&ctx, db.v, c.dy.v, true, c.u.v, false, 0);
  gradcheck_input in[] = {gradient_of("W", c.w, dw), gradient_of("B", c.b, db)};
  gradcheck_assert(in, 2, linear_loss, &c, TOL);
  tensor_done(dw), tensor_done(db);
  linear_done(&c);
}

/* ---- A backend that has one slot -------------------------------------------------- */

static int products;

static void counting_matmul(ist_ctx *c, ist_view y, ist_view a, bool ta, ist_view b, bool tb,
                            int beta) {
  products++;
  ist_backend_reference()->matmul(c, y, a, ta, b, tb, beta);
}

/* Its linears use its own products, the rest is the reference's, no slot is empty. */
static void test_complete(void **state) {
  (void)state;
  ist_backend mine = {.name = "mine", .matmul = counting_matmul};
  ist_backend_complete(&mine);
  assert_string_equal(mine.name, "mine");
  assert_true(mine.matmul == counting_matmul && mine.adamw == be->adamw);
  products = 0;
  linear_one(&mine, true);
  assert_true(products > 0);

  ist_backend empty = {.name = NULL};
  ist_backend_complete(&empty);
  assert_memory_equal(&empty, be, sizeof empty);
  const void *slot[sizeof empty / sizeof(void *)];
  memcpy(slot, &empty, sizeof empty);
  for (size_t i = 0; i < sizeof slot / sizeof *slot; i++) assert_non_null(slot[i]);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_matmul),   cmocka_unit_test(test_threads),
      cmocka_unit_test(test_linear),   cmocka_unit_test(test_weight_gradients),
      cmocka_unit_test(test_complete),
  };
  return cmocka_run_group_tests(tests, setup, NULL);
}
