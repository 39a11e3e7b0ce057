/* Matrix products and linears of the CPU backend, and stored (quantised) matrices. */
#include <stdio.h>

#include "backend/cpu_cases.h"
#include "format/quant.h"

/* Sums of k products of order 1, against the largest of m * n results. */
#define TOL 4e-6

typedef struct product_case {
  int64_t m, n, k;
  bool dense, ta, tb;
} product_case;

typedef struct shape {
  int64_t m, n, k;
} shape;

/* Tiles, blocks and vectors that end inside; few rows; long sums, one of several parts; both
 * orders of C. */
static const shape shapes[] = {{1, 1, 1},     {3, 5, 7},      {2, 40, 33},    {14, 32, 16},
                               {15, 33, 17},  {1, 300, 129},  {70, 9, 260},   {97, 131, 65},
                               {4, 700, 515}, {260, 45, 300}, {33, 64, 1100}, {9, 21, 4500}};
#define N_SHAPES ((int)(sizeof shapes / sizeof *shapes))

/* Without padding between the rows: what a matrix library takes. */
static ist_view dense_view(tensor *t, bool dense) {
  ist_view v = t->v;
  if (!dense) return v;
  for (int64_t r = 0; r < v.rows; r++) {
    memmove((char *)v.p + r * v.cols * element_bytes(v.dt), tensor_at(*t, r, 0),
            (size_t)(v.cols * element_bytes(v.dt)));
  }
  v.stride = v.cols;
  t->v.stride = v.cols;
  t->n = v.rows * v.cols + 2 * GUARD;
  for (int i = 0; i < GUARD; i++) {
    guard_word(t->memory + (GUARD + v.rows * v.cols + i) * element_bytes(v.dt), v.dt);
  }
  return v;
}

static void matmul(const place *p, const void *what, outputs *out) {
  const product_case *c = what;
  tensor a = input(p, c->ta ? c->k : c->m, c->ta ? c->m : c->k, 1.0, 1);
  tensor b = input(p, c->tb ? c->n : c->k, c->tb ? c->k : c->n, 1.0, 2);
  ist_view av = dense_view(&a, c->dense), bv = dense_view(&b, c->dense);
  tensor y = tensor_new(p->compute, c->m, c->n), sum = input_wide(p, c->m, c->n, 1.0, 3);
  tensor wide = tensor_new(p->wide, c->m, c->n), acc = input(p, c->m, c->n, 1.0, 4);
  p->be->matmul(p->ctx, dense_view(&y, c->dense), av, c->ta, bv, c->tb, 0);
  p->be->matmul(p->ctx, dense_view(&wide, c->dense), av, c->ta, bv, c->tb, 0);
  p->be->matmul(p->ctx, dense_view(&sum, c->dense), av, c->ta, bv, c->tb, 1);
  p->be->matmul(p->ctx, dense_view(&acc, c->dense), av, c->ta, bv, c->tb, 1);
  keep(out, "C", y, TOL);
  keep(out, "wide C", wide, TOL);
  keep(out, "wide C +=", sum, TOL);
  keep(out, "C +=", acc, TOL);
  tensor_done(a), tensor_done(b);
}

static void test_matmul(void **state) {
  (void)state;
  for (int i = 0; i < N_SHAPES; i++) {
    for (int flags = 0; flags < 8; flags++) {
      product_case c = {.m = shapes[i].m, .n = shapes[i].n, .k = shapes[i].k};
      c.ta = flags & 1;
      c.tb = flags & 2;
      c.dense = flags & 4;
      run_case(matmul, &c);
    }
  }
}

/* y = x W^T + bias + u B^T and its gradients: m tokens, k inputs, n outputs. */
typedef struct linear_case {
  shape s;
  int64_t R;
  bool dense, bias, low, behind; /* u in memory behind x's columns, B behind W's */
} linear_case;

static void linear(const place *p, const void *what, outputs *out) {
  const linear_case *c = what;
  int64_t N = c->s.m, O = c->s.n, I = c->s.k, R = c->R, tail = c->behind ? R : 0;
  ist_view none = ist_view_none();
  tensor x = input(p, N, I + tail, 1.0, 1), w = input(p, O, I + tail, 1.0, 2);
  tensor u = input(p, N, R, 1.0, 3), b = input(p, O, R, 1.0, 4);
  tensor bias = input_wide(p, 1, O, 1.0, 5), dy = input(p, N, O, 1.0, 6);
  ist_view xv = ist_view_cols(dense_view(&x, c->dense), 0, I);
  ist_view wv = ist_view_cols(dense_view(&w, c->dense), 0, I);
  ist_view uv = c->behind ? ist_view_cols(x.v, I, R) : u.v;
  ist_view bv = c->behind ? ist_view_cols(w.v, I, R) : b.v;
  tensor y = tensor_new(p->compute, N, O), dx = tensor_new(p->compute, N, I);
  tensor wide = input_wide(p, N, I, 1.0, 7), du = tensor_new(p->compute, N, R);
  tensor wide_y = tensor_new(p->wide, N, O);
  p->be->linear_fwd(p->ctx, dense_view(&y, c->dense), xv, wv, c->bias ? bias.v : none,
                    c->low ? uv : none, c->low ? bv : none);
  p->be->linear_fwd(p->ctx, wide_y.v, xv, wv, none, none, none);
  p->be->linear_bwd(p->ctx, dense_view(&dx, c->dense), false, du.v, dy.v, wv, bv);
  p->be->linear_bwd(p->ctx, wide.v, true, none, dy.v, wv, none);
  keep(out, "y", y, TOL);
  keep(out, "wide y", wide_y, TOL);
  keep(out, "dx", dx, TOL);
  keep(out, "du", du, TOL);
  keep(out, "wide dx +=", wide, TOL);
  tensor_done(x), tensor_done(w), tensor_done(u), tensor_done(b), tensor_done(bias);
  tensor_done(dy);
}

static void test_linear(void **state) {
  (void)state;
  static const int64_t rank[] = {1, 3, 16};
  for (int i = 0; i < N_SHAPES; i++) {
    for (int flags = 0; flags < 16; flags++) {
      linear_case c = {.s = shapes[i], .R = rank[i % 3]};
      c.bias = flags & 1;
      c.low = flags & 2;
      c.behind = flags & 4;
      c.dense = flags & 8;
      run_case(linear, &c);
    }
  }
}

/* ---- Stored matrices ------------------------------------------------------------- */

enum { STORED_ROWS = 37, STORED_COLS = 1280 };

typedef struct stored_case {
  ist_dtype type;
  int64_t cols;
  const void *bytes;
  double scale;
} stored_case;

/* Products of a stored value and `scale` round once; plain values are exact. */
static void stored(const place *p, const void *what, outputs *out) {
  const stored_case *c = what;
  int32_t ids[50];
  for (int i = 0; i < 50; i++) ids[i] = (i * 17) % STORED_ROWS;
  tensor some = tensor_new(p->compute, STORED_ROWS - 4, c->cols);
  tensor rows = tensor_new(p->compute, 50, c->cols);
  tensor wide = tensor_new(p->wide, STORED_ROWS, c->cols);
  p->be->dequant(p->ctx, some.v, c->bytes, c->type, 3);
  p->be->gather_rows(p->ctx, rows.v, c->bytes, c->type, ids, c->scale);
  p->be->dequant(p->ctx, wide.v, c->bytes, c->type, 0);
  keep(out, "dequant", some, 0);
  keep(out, "gather_rows", rows, c->scale == 1.0 ? 0 : 1e-7);
  keep(out, "wide dequant", wide, 0);
}

/* Random bits but for the scales, which are F16 somewhere in the block: exponents are
 * kept small everywhere, so that every value is finite. */
static void *stored_bytes(ist_dtype type, int64_t cols) {
  int64_t n = ist_dtype_bytes(type, cols) * STORED_ROWS;
  uint8_t *bytes = malloc((size_t)n);
  ist_rng rng = ist_rng_stream(9, IST_RNG_TEST, type, 0, 0);
  assert_non_null(bytes);
  if (type == IST_F32) {
    for (int64_t i = 0; i < n / 4; i++) {
      float x = (float)ist_rng_normal(&rng);
      memcpy(bytes + 4 * i, &x, 4);
    }
    return bytes;
  }
  for (int64_t i = 0; i < n; i++) bytes[i] = (uint8_t)(ist_rng_u32(&rng) & 0xbf);
  return bytes;
}

static void test_stored(void **state) {
  (void)state;
  for (int t = 0; t < IST_DTYPE_COUNT; t++) {
    if (!ist_dequant_supported((ist_dtype)t) || t == IST_F64) continue;
    int block = ist_dtype_get((ist_dtype)t)->block;
    stored_case c = {.type = (ist_dtype)t, .scale = 1.0};
    c.cols = block > 1 ? block * (STORED_COLS / block) : STORED_COLS - 3;
    void *bytes = stored_bytes((ist_dtype)t, c.cols);
    c.bytes = bytes;
    run_case(stored, &c);
    c.scale = 11.3137;
    run_case(stored, &c);
    free(bytes);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_matmul),
      cmocka_unit_test(test_linear),
      cmocka_unit_test(test_stored),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
