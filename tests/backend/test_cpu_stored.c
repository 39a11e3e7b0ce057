/* Linears over stored matrices against the reference in double: every type that a file
 * may have, rows that end inside a chunk, several matrices at a time. */
#include <stdio.h>
#include <string.h>

#include "backend/cpu_cases.h"
#include "base/mem.h"
#include "format/quant.h"

typedef struct stored_case {
  ist_dtype type;
  int64_t N, in, out, rank;
  bool bias, grouped;
  ist_stored_how how;
  bool exact; /* inputs that rounding to bytes leaves as they are */
} stored_case;

/* A stored matrix of random values, one byte behind the address that is to be freed: a file may
 * have it anywhere. */
static unsigned char *matrix_of(ist_dtype type, int64_t rows, int64_t cols, uint32_t seed) {
  float *values = ist_calloc((size_t)(rows * cols), sizeof *values);
  void *stored = ist_calloc((size_t)ist_dtype_bytes(type, rows * cols), 1);
  ist_rng rng = ist_rng_stream(seed, IST_RNG_TEST, 1, 2, 3);
  for (int64_t i = 0; i < rows * cols; i++) values[i] = (float)(ist_rng_uniform(&rng) * 2.0 - 0.9);
  if (ist_quantise_supported(type)) {
    ist_quantise(stored, values, type, rows * cols);
  } else { /* any bytes are blocks; scales that are numbers */
    unsigned char *p = stored;
    const ist_dtype_info *info = ist_dtype_get(type);
    for (int64_t i = 0; i < ist_dtype_bytes(type, rows * cols); i++)
      p[i] = (unsigned char)ist_rng_u32(&rng);
    for (int64_t b = 0; b < rows * cols / info->block; b++, p += info->bytes) {
      int at = type == IST_Q3_K ? 108 : type == IST_Q2_K ? 80 : 0;
      p[at + 1] = (unsigned char)(0x20 | (p[at + 1] & 0x83));
      if (type == IST_Q2_K) p[at + 3] = (unsigned char)(0x20 | (p[at + 3] & 0x83));
    }
  }
  ist_free(values);
  unsigned char *odd = ist_calloc((size_t)ist_dtype_bytes(type, rows * cols) + 1, 1);
  memcpy(odd + 1, stored, (size_t)ist_dtype_bytes(type, rows * cols));
  ist_free(stored);
  return odd;
}

/* Integers up to 127, of which every 32 hold one, times a power of two. */
static void make_exact(tensor x) {
  ist_rng rng = ist_rng_stream(9, IST_RNG_TEST, 7, 8, 9);
  for (int64_t r = 0; r < x.v.rows; r++) {
    for (int64_t c = 0; c < x.v.cols; c++) {
      double value = (double)(ist_rng_u32(&rng) % 255) - 127.0;
      if (c % 32 == r % 32) value = c % 64 < 32 ? 127.0 : -127.0;
      tensor_set(x, r, c, value * (c / 32 % 3 == 1 ? 0.25 : 0.03125));
    }
  }
}

static void stored(const place *p, const void *what, outputs *out) {
  const stored_case *c = what;
  /* Rows of the second matrix lie in runs of 3 with 2 others between them. */
  int64_t rows = c->grouped ? (c->out + 2) / 3 * 5 : c->out;
  unsigned char *w[2] = {matrix_of(c->type, c->out, c->in, 1), matrix_of(c->type, rows, c->in, 2)};
  unsigned char *plain = matrix_of(IST_F32, c->out, c->in, 3);
  tensor x = input(p, c->N, c->in, 1.0, 4), bias = input_wide(p, 1, c->out, 1.0, 5);
  tensor u = input(p, c->N, 2 * c->rank + 1, 1.0, 6);
  tensor b = input_wide(p, c->out, c->rank + 1, 1.0, 7), narrow = input(p, c->out, c->rank, 1.0, 8);
  tensor y[3] = {tensor_new(p->compute, c->N, c->out), tensor_new(p->wide, c->N, c->out),
                 tensor_new(p->compute, c->N, c->out)};
  if (c->exact) make_exact(x);
  ist_view none = ist_view_none();
  ist_stored_linear l[3] = {
      {.y = y[0].v, .x = x.v, .w = w[0] + 1, .type = c->type, .group = c->out, .period = c->out},
      {.y = y[1].v, .x = x.v, .w = w[1] + 1, .type = c->type, .group = c->out, .period = c->out},
      {.y = y[2].v, .x = x.v, .w = plain + 1, .type = IST_F32, .group = c->out, .period = c->out}};
  if (c->grouped) l[1].group = 3, l[1].period = 5;
  l[0].bias = c->bias ? bias.v : none;
  if (c->rank) {
    l[1].u = ist_view_cols(u.v, 1, c->rank);
    l[1].b = ist_view_cols(b.v, 0, c->rank);
    l[2].u = ist_view_cols(u.v, 1 + c->rank, c->rank);
    l[2].b = narrow.v;
  }
  p->be->linear_stored(p->ctx, l, 3, c->how);
  keep(out, "y", y[0], c->exact ? 1e-6 : 2e-2);
  keep(out, "y of the second", y[1], c->exact ? 1e-6 : 2e-2);
  keep(out, "y of F32", y[2], 1e-6);
  tensor_done(x), tensor_done(bias), tensor_done(u), tensor_done(b), tensor_done(narrow);
  ist_free(w[0]), ist_free(w[1]), ist_free(plain);
}

static const ist_dtype types[] = {IST_Q4_0, IST_Q4_1, IST_Q5_0, IST_Q5_1,   IST_Q8_0,
                                  IST_Q4_K, IST_Q5_K, IST_Q6_K, IST_F16,    IST_BF16,
                                  IST_F32,  IST_Q2_K, IST_Q3_K, IST_IQ4_NL, IST_IQ4_XS};
#define N_TYPES ((int)(sizeof types / sizeof *types))

/* Lengths in blocks: one, a tail of every size, and longer than a piece. */
static void test_types(void **state) {
  (void)state;
  static const int64_t blocks[] = {1, 2, 3, 4, 5, 18, 35};
  for (int t = 0; t < N_TYPES; t++) {
    int64_t block = ist_dtype_get(types[t])->block;
    if (block == 1) block = 31;
    for (int i = 0; i < 7; i++) {
      if (block == 256 && i > 4) continue;
      for (int how = 0; how < 2; how++) {
        stored_case c = {types[t], 1 + i % 3,  blocks[i] * block,   7 + i, i,
                         i % 2,    i % 3 == 1, (ist_stored_how)how, true};
        run_case(stored, &c);
      }
    }
  }
}

/* One row to as many as there may be; rows enough for two threads. */
static void test_rows(void **state) {
  (void)state;
  static const int64_t N[] = {1, 2, 4, 5, 9, IST_STORED_ROWS};
  for (int i = 0; i < 6; i++) {
    for (int how = 0; how < 2; how++) {
      stored_case c = {i % 2 ? IST_Q4_1 : IST_Q8_0, N[i], 576, 301, 32, true, false,
                       (ist_stored_how)how,         true};
      run_case(stored, &c);
    }
  }
}

/* Any input: the rounding to bytes is all that differs. */
static void test_rounding(void **state) {
  (void)state;
  for (int t = 0; t < 8; t++) {
    stored_case c = {types[t], 2, 512, 40, 0, false, false, IST_STORED_INT8, false};
    run_case(stored, &c);
  }
}

/* What is not a number stays none, in the row that it is in. */
static void nan_input(const place *p, const void *what, outputs *out) {
  const ist_dtype *type = what;
  unsigned char *w = matrix_of(*type, 5, 256, 1);
  tensor x = input(p, 3, 256, 1.0, 2), y = tensor_new(p->wide, 3, 5);
  tensor_set(x, 0, 70, NAN);
  tensor_set(x, 1, 255, INFINITY);
  tensor_set(x, 1, 254, -INFINITY);
  const ist_stored_linear l = {
      .y = y.v, .x = x.v, .w = w + 1, .type = *type, .group = 5, .period = 5};
  p->be->linear_stored(p->ctx, &l, 1, IST_STORED_INT8);
  for (int r = 0; r < 5; r++) {
    assert_true(isnan(tensor_get(y, 0, r)));
    assert_false(isfinite(tensor_get(y, 1, r)));
    tensor_set(y, 0, r, 0);
    tensor_set(y, 1, r, 0);
  }
  keep(out, "y", y, 2e-2);
  tensor_done(x);
  ist_free(w);
}

static void test_nan(void **state) {
  (void)state;
  for (int t = 0; t < 8; t++) run_case(nan_input, &types[t]);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_types),
      cmocka_unit_test(test_rows),
      cmocka_unit_test(test_rounding),
      cmocka_unit_test(test_nan),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
