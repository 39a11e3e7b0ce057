/* DoRA's gains and biases of adapters on the CPU backend. */
#include <stdio.h>

#include "backend/cpu_cases.h"

#define TOL 3e-6

typedef struct size {
  int64_t rows, cols;
} size;
static const size sizes[] = {{1, 1}, {3, 5}, {2, 16}, {5, 33}, {7, 129}, {131, 1531}};

static void gains(const place *p, const void *what, outputs *out) {
  const size *s = what;
  int64_t N = s->rows, D = s->cols;
  float by_row[256];
  for (int64_t r = 0; r < N; r++) by_row[r] = r % 3 ? 0.25F : 1.0F;
  ist_view none = ist_view_none();
  tensor a = input(p, N, D, 1.0, 1), wide = input_wide(p, N, D, 1.0, 2);
  tensor g = input_wide(p, 1, D, 1.0, 3), bias = input_wide(p, 1, D, 1.0, 4);
  tensor rows = input_wide(p, 1, N, 1.0, 5), both = input_wide(p, 1, N, 1.0, 6);
  tensor mixed = input(p, N, D, 1.0, 7), bare = input(p, N, D, 1.0, 8);
  tensor product = tensor_new(p->compute, N, D), sums = input_wide(p, 1, D, 1.0, 9);
  tensor dots = input_wide(p, 1, D, 1.0, 10), biased = input(p, N, D, 1.0, 11);
  p->be->row_dot(p->ctx, rows.v, a.v, a.v);
  p->be->row_dot(p->ctx, both.v, wide.v, a.v);
  p->be->gain_mix(p->ctx, mixed.v, wide.v, g.v, bias.v, 0.5, by_row);
  p->be->gain_mix(p->ctx, bare.v, wide.v, g.v, none, 1.0, NULL);
  p->be->mul_cols(p->ctx, product.v, a.v, g.v);
  p->be->mul_cols(p->ctx, wide.v, wide.v, g.v);
  p->be->col_dot(p->ctx, dots.v, a.v, wide.v, g.v);
  p->be->col_sum(p->ctx, sums.v, a.v, 1.5);
  p->be->add_bias(p->ctx, biased.v, bias.v, 0.7, by_row);
  keep(out, "row_dot", rows, TOL);
  keep(out, "row_dot of two types", both, 2 * TOL);
  keep(out, "gain_mix", mixed, TOL);
  keep(out, "gain_mix bare", bare, TOL);
  keep(out, "mul_cols", product, TOL);
  keep(out, "mul_cols in place", wide, TOL);
  keep(out, "col_dot", dots, 2 * TOL);
  keep(out, "col_sum", sums, 2 * TOL);
  keep(out, "add_bias", biased, TOL);
  tensor_done(a), tensor_done(g), tensor_done(bias);
}

static void test_gains(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) run_case(gains, &sizes[i]);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_gains)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
