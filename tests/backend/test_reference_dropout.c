/* Dropout of the reference backend: its layout, its statistics, its gradient. */
#include "backend/tensor.h"

static ist_ctx ctx;
static const ist_backend *be;

static int setup(void **state) {
  (void)state;
  be = ist_backend_reference();
  ctx = (ist_ctx){.be = be};
  return be->open(&ctx, NULL);
}

static ist_dropout dropout_new(double p, const int32_t *sample, const int32_t *position) {
  return (ist_dropout){.p = p,
                       .key = ist_rng_key(0x0123456789abcdefu, IST_RNG_DROPOUT),
                       .step = 5,
                       .layer_site = 0x0302,
                       .sample = sample,
                       .position = position};
}

/* Masks worked out apart from this code, by a Philox in another language over the
 * layout of base/rng.h: 1 is kept. A change here changes every run. */
static void check_golden(const char *kept[2], int64_t col0, int64_t col1) {
  const int32_t sample[2] = {7, 123456}, position[2] = {11, 1000000};
  ist_dropout d = dropout_new(0.4, sample, position);
  tensor x = tensor_new(IST_F32, 2, col1 + 20), y = tensor_new(IST_F32, 2, col1 + 20);
  tensor_fill(x, 1.0);
  be->dropout(&ctx, y.v, x.v, &d);
  for (int64_t r = 0; r < 2; r++) {
    for (int64_t c = 0; c < 20; c++) {
      float expected = kept[r][c] == '1' ? (float)(65536.0 / (65536.0 - 26214.0)) : 0.0f;
      assert_true(tensor_get(y, r, (r == 0 ? col0 : col1) + c) == (double)expected);
    }
  }
  tensor_done(x), tensor_done(y);
}

static void test_golden(void **state) {
  (void)state;
  check_golden((const char *[]){"11110010111010000110", "00100111111011111111"}, 0, 0);
  /* Across channels 32,768 and 65,536, where the block's high part counts up. */
  check_golden((const char *[]){"10110111011001111100", "01001110100010011101"}, 32760, 65530);
}

static void test_threshold(void **state) {
  (void)state;
  assert_int_equal(ist_dropout_threshold(0.0), 0);
  assert_int_equal(ist_dropout_threshold(0.5), 32768);
  assert_int_equal(ist_dropout_threshold(0.05), 3277);
  assert_int_equal(ist_dropout_threshold(1.0), 65536);
  assert_int_equal(ist_dropout_threshold(-1.0), 0);
  assert_int_equal(ist_dropout_threshold(NAN), 0);
}

/* Channel 0 of the first golden row has the half word 27470: kept at that threshold,
 * dropped at the next. */
static void test_edge(void **state) {
  (void)state;
  const int32_t sample[1] = {7}, position[1] = {11};
  for (int above = 0; above < 2; above++) {
    double x[1] = {1.0};
    ist_view v = ist_view_make(x, IST_F64, 1, 1, 1);
    ist_dropout d = dropout_new((27470.0 + above) / 65536.0, sample, position);
    be->dropout(&ctx, v, v, &d);
    assert_true((x[0] == 0.0) == (above == 1));
  }
}

static void test_ends(void **state) {
  (void)state;
  const int32_t zero[3] = {0};
  tensor x = tensor_random(IST_F32, 3, 9, 1.0, 1), y = tensor_new(IST_F32, 3, 9);
  ist_dropout d = dropout_new(0.0, zero, zero);
  be->dropout(&ctx, y.v, x.v, &d);
  assert_same(y, x);
  d.p = 1.0;
  be->dropout(&ctx, y.v, x.v, &d);
  for (int64_t i = 0; i < 27; i++) assert_true(tensor_get(y, i / 9, i % 9) == 0.0);
  tensor_done(x), tensor_done(y);
}

enum { ROWS = 64, COLS = 512 };

typedef struct mask {
  unsigned char kept[ROWS * COLS];
} mask;

static mask *mask_new(const ist_dropout *d) {
  mask *m = malloc(sizeof *m);
  assert_non_null(m);
  tensor x = tensor_new(IST_F32, ROWS, COLS), y = tensor_new(IST_F32, ROWS, COLS);
  tensor_fill(x, 1.0);
  be->dropout(&ctx, y.v, x.v, d);
  for (int64_t i = 0; i < ROWS * COLS; i++) m->kept[i] = tensor_get(y, i / COLS, i % COLS) != 0.0;
  tensor_done(x), tensor_done(y);
  return m;
}

/* The share where a and b shifted by `shift` elements are both kept is share^2 for
 * independent masks; four standard deviations of the product. */
static void assert_independent(const mask *a, const mask *b, int64_t shift) {
  int64_t n = ROWS * COLS - shift, both = 0;
  for (int64_t i = 0; i < n; i++) both += a->kept[i + shift] && b->kept[i];
  double expected = 0.7 * 0.7, sd = sqrt(expected * (1.0 - expected) / (double)n);
  /* Pairs that share an element are correlated: a factor 2 covers it. */
  assert_true(fabs((double)both / (double)n - expected) <= 2.0 * 4.0 * sd);
}

static void test_statistics(void **state) {
  (void)state;
  int32_t sample[ROWS], position[ROWS];
  for (int i = 0; i < ROWS; i++) sample[i] = i / 8, position[i] = i % 8;
  ist_dropout d = dropout_new(0.3, sample, position);
  mask *m = mask_new(&d);
  int64_t kept = 0;
  for (int64_t i = 0; i < ROWS * COLS; i++) kept += m->kept[i];
  double share = (double)kept / (ROWS * COLS), sd = sqrt(0.3 * 0.7 / (ROWS * COLS));
  assert_true(fabs(share - 0.7) <= 4.0 * sd);
  /* Neighbouring channels, words, blocks, positions and samples. */
  const int64_t shift[] = {1, 2, 8, COLS, 8 * COLS};
  for (size_t i = 0; i < sizeof shift / sizeof *shift; i++) assert_independent(m, m, shift[i]);
  ist_dropout other[4] = {d, d, d, d};
  other[0].step++;
  other[1].layer_site++;
  other[2].layer_site += 1u << 8;
  other[3].key = ist_rng_key(0x0123456789abcdf0u, IST_RNG_DROPOUT);
  for (int i = 0; i < 4; i++) {
    mask *o = mask_new(&other[i]);
    assert_independent(m, o, 0);
    free(o);
  }
  free(m);
}

/* The mask belongs to (sample, position), not to where the row lies or how many rows
 * are done in one call; y may be x. */
static void test_split(void **state) {
  (void)state;
  const int32_t sample[5] = {0, 0, 3, 3, 9}, position[5] = {0, 1, 4, 5, 2};
  ist_dropout d = dropout_new(0.5, sample, position);
  tensor x = tensor_random(IST_F64, 5, 13, 1.0, 1), y = tensor_new(IST_F64, 5, 13);
  tensor z = tensor_random(IST_F64, 5, 13, 1.0, 1);
  be->dropout(&ctx, y.v, x.v, &d);
  for (int i = 4; i >= 0; i--) {
    ist_dropout one = dropout_new(0.5, sample + i, position + i);
    ist_view row = ist_view_rows(z.v, i, 1);
    be->dropout(&ctx, row, row, &one);
  }
  assert_same(z, y);
  tensor_done(x), tensor_done(y), tensor_done(z);
}

typedef struct dropout_case {
  ist_dropout d;
  tensor x, y, dy, dx;
} dropout_case;

static double dropout_loss(void *user) {
  dropout_case *c = user;
  be->dropout(&ctx, c->y.v, c->x.v, &c->d);
  return tensor_dot(c->y, c->dy);
}

static void test_gradient(void **state) {
  (void)state;
  const int32_t sample[3] = {1, 1, 2}, position[3] = {0, 1, 0};
  dropout_case c = {.d = dropout_new(0.4, sample, position),
                    .x = tensor_random(IST_F64, 3, 11, 1.0, 1),
                    .y = tensor_new(IST_F64, 3, 11),
                    .dy = tensor_random(IST_F64, 3, 11, 1.0, 2),
                    .dx = tensor_new(IST_F64, 3, 11)};
  be->zero(&ctx, c.dx.v);
  be->dropout_bwd_acc(&ctx, c.dx.v, c.dy.v, &c.d);
  gradcheck_input in = gradient_of("x", c.x, c.dx);
  gradcheck_assert(&in, 1, dropout_loss, &c, 1e-8);
  tensor more = tensor_random(IST_F64, 3, 11, 1.0, 3),
         before = tensor_random(IST_F64, 3, 11, 1.0, 3);
  be->dropout_bwd_acc(&ctx, more.v, c.dy.v, &c.d);
  assert_close("dx accumulated", more, 1.0, c.dx, &before, 1e-14);
  tensor f = tensor_random(IST_F32, 3, 11, 1.0, 1);
  be->dropout(&ctx, f.v, f.v, &c.d);
  assert_close("y in f32", f, 1.0, c.y, NULL, 1e-6);
  tensor_done(c.x), tensor_done(c.y), tensor_done(c.dy), tensor_done(c.dx);
  tensor_done(more), tensor_done(before), tensor_done(f);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_golden),     cmocka_unit_test(test_threshold),
      cmocka_unit_test(test_edge),       cmocka_unit_test(test_ends),
      cmocka_unit_test(test_split),      cmocka_unit_test(test_gradient),
      cmocka_unit_test(test_statistics),
  };
  return cmocka_run_group_tests(tests, setup, NULL);
}
