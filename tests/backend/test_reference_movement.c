/* Movement of the reference backend, views, and the clock. */
#include <stdio.h>

#include "backend/tensor.h"
#include "format/quant.h"

static ist_ctx ctx;
static const ist_backend *be;
static const ist_dtype plain[4] = {IST_F64, IST_F32, IST_F16, IST_BF16};

static int setup(void **state) {
  (void)state;
  be = ist_backend_reference();
  ctx = (ist_ctx){.be = be};
  return be->open(&ctx, NULL);
}

/* What a value becomes in a type. */
static double rounded(double x, ist_dtype dt) {
  if (dt == IST_F64) return x;
  if (dt == IST_F32) return (double)(float)x;
  if (dt == IST_F16) return (double)ist_f16_to_f32(ist_f32_to_f16((float)x));
  return (double)ist_bf16_to_f32(ist_f32_to_bf16((float)x));
}

static void test_views(void **state) {
  (void)state;
  tensor t = tensor_random(IST_F32, 4, 6, 1.0, 1);
  ist_view v = ist_view_cols(ist_view_rows(t.v, 1, 2), 2, 3);
  assert_ptr_equal(v.p, tensor_at(t, 1, 2));
  assert_true(v.rows == 2 && v.cols == 3 && v.stride == t.v.stride && v.dt == IST_F32);
  assert_true(ist_view_rows(t.v, 4, 0).rows == 0);
  ist_view absent = {.rows = 4, .cols = 6, .stride = 6};
  assert_null(ist_view_rows(absent, 2, 1).p);
  assert_null(ist_view_cols(absent, 2, 1).p);
  tensor_done(t);
}

/* Wider than one piece, from every plain type to every other. */
static void test_copy(void **state) {
  (void)state;
  for (int s = 0; s < 4; s++) {
    for (int d = 0; d < 4; d++) {
      tensor src = tensor_random(plain[s], 3, 1030, 1.0, 1), dst = tensor_new(plain[d], 3, 1030);
      be->copy(&ctx, dst.v, src.v);
      for (int64_t i = 0; i < 3 * 1030; i++) {
        double x = tensor_get(src, i / 1030, i % 1030);
        assert_true(tensor_get(dst, i / 1030, i % 1030) == rounded(x, plain[d]));
      }
      tensor_done(src), tensor_done(dst);
    }
  }
  /* No bit of a double is lost on the way. */
  double third = 1.0 / 3.0, out = 0.0;
  be->copy(&ctx, ist_view_make(&out, IST_F64, 1, 1, 1), ist_view_make(&third, IST_F64, 1, 1, 1));
  assert_true(out == third);
}

static void test_arithmetic(void **state) {
  (void)state;
  for (int t = 0; t < 4; t++) {
    tensor a = tensor_random(plain[t], 3, 1029, 1.0, 1),
           b = tensor_random(IST_F32, 3, 1029, 1.0, 2);
    tensor y = tensor_new(plain[t], 3, 1029);
    be->add(&ctx, y.v, a.v, b.v);
    for (int64_t i = 0; i < 3 * 1029; i++) {
      double x = tensor_get(a, i / 1029, i % 1029) + tensor_get(b, i / 1029, i % 1029);
      assert_true(tensor_get(y, i / 1029, i % 1029) == rounded(x, plain[t]));
    }
    be->add(&ctx, a.v, a.v, b.v);
    assert_same(a, y);
    const float scale[3] = {1.0f, 0.0f, -2.0f};
    be->scale_rows(&ctx, y.v, 0.5, scale);
    for (int64_t i = 0; i < 3 * 1029; i++) {
      double x = 0.5 * (double)scale[i / 1029] * tensor_get(a, i / 1029, i % 1029);
      assert_true(tensor_get(y, i / 1029, i % 1029) == rounded(x, plain[t]));
    }
    be->scale_rows(&ctx, a.v, 2.0, NULL);
    assert_true(tensor_get(a, 2, 5) == -2.0 * tensor_get(y, 2, 5));
    be->zero(&ctx, y.v);
    for (int64_t i = 0; i < 3 * 1029; i++) assert_true(tensor_get(y, i / 1029, i % 1029) == 0.0);
    tensor_done(a), tensor_done(b), tensor_done(y);
  }
}

/* Stored rows of `cols` columns, and what they hold. */
static unsigned char *stored(ist_dtype type, int64_t rows, int64_t cols, float *values) {
  unsigned char *bytes = malloc((size_t)ist_dtype_bytes(type, rows * cols));
  assert_non_null(bytes);
  ist_rng rng = ist_rng_stream(1, IST_RNG_TEST, (uint32_t)type, 0, 0);
  for (int64_t i = 0; i < rows * cols; i++) values[i] = (float)ist_rng_normal(&rng);
  ist_quantise(bytes, values, type, rows * cols);
  ist_dequant_f32_portable(values, bytes, type, rows * cols);
  return bytes;
}

static void test_dequant(void **state) {
  (void)state;
  enum { ALL = 6, COLS = 1280 };
  const ist_dtype types[] = {IST_F32, IST_F16, IST_BF16, IST_Q8_0, IST_Q4_1, IST_Q6_K};
  const int32_t ids[4] = {5, 0, 5, 3};
  float *values = malloc(ALL * COLS * sizeof *values);
  assert_non_null(values);
  for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
    unsigned char *src = stored(types[t], ALL, COLS, values);
    for (int d = 0; d < 4; d++) {
      tensor dst = tensor_new(plain[d], 4, COLS);
      be->dequant(&ctx, dst.v, src, types[t], 2);
      for (int64_t i = 0; i < 4 * COLS; i++) {
        double x = (double)values[2 * COLS + i];
        assert_true(tensor_get(dst, i / COLS, i % COLS) == rounded(x, plain[d]));
      }
      be->gather_rows(&ctx, dst.v, src, types[t], ids, 1.5);
      for (int64_t i = 0; i < 4 * COLS; i++) {
        double x = 1.5 * (double)values[ids[i / COLS] * COLS + i % COLS];
        assert_true(tensor_get(dst, i / COLS, i % COLS) == rounded(x, plain[d]));
      }
      tensor_done(dst);
    }
    free(src);
  }
  free(values);
}

static void test_scatter(void **state) {
  (void)state;
  const int32_t ids[2] = {3, 0};
  tensor src = tensor_random(IST_F32, 2, 5, 1.0, 1), dst = tensor_random(IST_F64, 4, 5, 1.0, 2);
  tensor before = tensor_random(IST_F64, 4, 5, 1.0, 2);
  be->scatter_rows(&ctx, dst.v, src.v, ids);
  for (int64_t c = 0; c < 5; c++) {
    assert_true(tensor_get(dst, 3, c) == tensor_get(src, 0, c));
    assert_true(tensor_get(dst, 0, c) == tensor_get(src, 1, c));
    assert_true(tensor_get(dst, 1, c) == tensor_get(before, 1, c));
    assert_true(tensor_get(dst, 2, c) == tensor_get(before, 2, c));
  }
  tensor_done(src), tensor_done(dst), tensor_done(before);
}

static void test_prof(void **state) {
  (void)state;
  static char name[IST_PROF_MAX + 5][8];
  ist_prof p = {.n = 0};
  double start = ist_prof_now();
  ist_prof_add(NULL, "nothing", start, 1.0, 8.0);
  ist_prof_add(&p, "matmul", start, 10.0, 8.0);
  ist_prof_add(&p, "norm", start, 1.0, 8.0);
  ist_prof_add(&p, "matmul", start, 5.0, 8.0);
  assert_int_equal(p.n, 2);
  assert_true(p.slot[0].calls == 2 && p.slot[0].flops == 15.0 && p.slot[0].seconds >= 0.0);
  /* A full table keeps the totals. */
  for (int i = 0; i < IST_PROF_MAX + 5; i++) {
    snprintf(name[i], sizeof name[i], "op%d", i);
    ist_prof_add(&p, name[i], start, 1.0, 8.0);
  }
  double flops = 0.0;
  for (int i = 0; i < p.n; i++) flops += p.slot[i].flops;
  assert_string_equal(p.slot[IST_PROF_MAX - 1].name, "other");
  assert_true(p.n == IST_PROF_MAX && flops == 16.0 + IST_PROF_MAX + 5);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_views),      cmocka_unit_test(test_copy),
      cmocka_unit_test(test_arithmetic), cmocka_unit_test(test_dequant),
      cmocka_unit_test(test_scatter),    cmocka_unit_test(test_prof),
  };
  return cmocka_run_group_tests(tests, setup, NULL);
}
