/* Norms, rotary positions, activations, movement and dropout of the CPU backend. */
#include <stdio.h>

#include "backend/cpu_cases.h"

#define TOL 3e-6

/* Odd sizes: below a vector, its length, between two; and enough rows for two threads. */
typedef struct size {
  int64_t rows, cols;
} size;
static const size sizes[] = {{1, 1}, {3, 5}, {2, 16}, {5, 33}, {7, 129}, {67, 531}};
#define N_SIZES ((int)(sizeof sizes / sizeof *sizes))

/* ---- Norms -------------------------------------------------------------------- */

typedef struct norm_case {
  size s;
  ist_norm_kind kind;
  bool weight, bias, acc;
} norm_case;

static void norm(const place *p, const void *what, outputs *out) {
  const norm_case *c = what;
  int64_t N = c->s.rows, D = c->s.cols;
  tensor x = input(p, N, D, 1.5, 1), w = input_wide(p, 1, D, 1.0, 2);
  tensor bias = input_wide(p, 1, D, 1.0, 3), dh = input(p, N, D, 1.0, 4);
  tensor h = tensor_new(p->compute, N, D), stat = tensor_new(p->wide, N, 1 + (c->kind == 2));
  tensor dx = input(p, N, D, 1.0, 5), dw = input_wide(p, 1, D, 1.0, 6);
  tensor wide = input_wide(p, N, D, 1.0, 7), dbias = input_wide(p, 1, D, 1.0, 8);
  ist_view none = ist_view_none(), weight = c->weight ? w.v : none;
  p->be->norm_fwd(p->ctx, h.v, stat.v, x.v, weight, c->bias ? bias.v : none, c->kind, 1e-3);
  p->be->norm_bwd(p->ctx, dx.v, c->acc, dw.v, dbias.v, dh.v, x.v, weight, stat.v, c->kind);
  /* The residual's gradient is wide on both sides, and may lie on dh. */
  p->be->norm_bwd(p->ctx, wide.v, false, none, none, wide.v, x.v, weight, stat.v, c->kind);
  keep(out, "h", h, TOL);
  keep(out, "stat", stat, TOL);
  keep(out, "dx", dx, 4 * TOL);
  keep(out, "dw", dw, 2 * TOL);
  keep(out, "dbias", dbias, 2 * TOL);
  keep(out, "wide dx on dh", wide, 4 * TOL);
  tensor_done(x), tensor_done(w), tensor_done(bias), tensor_done(dh);
}

static void test_norm(void **state) {
  (void)state;
  for (int kind = IST_NORM_RMS; kind <= IST_NORM_LAYER; kind++) {
    /* From 1: the gradient of one column is nothing but rounding. */
    for (int i = 1; i < N_SIZES; i++) {
      for (int flags = 0; flags < 8; flags++) {
        const norm_case c = {sizes[i], (ist_norm_kind)kind, flags & 1, flags & 2, flags & 4};
        run_case(norm, &c);
      }
    }
  }
}

/* ---- Rotary positions ----------------------------------------------------------- */

typedef struct rope_case {
  int64_t rows, heads, E, rot;
  bool interleaved, inverse;
} rope_case;

static void rope(const place *p, const void *what, outputs *out) {
  const rope_case *c = what;
  float freq[256];
  int32_t position[64];
  for (int64_t j = 0; j < c->rot / 2; j++) {
    freq[j] = (float)pow(10000.0, -2.0 * (double)j / (double)c->rot);
  }
  for (int64_t r = 0; r < c->rows; r++) position[r] = (int32_t)(r * r * 37);
  tensor x = input(p, c->rows, c->heads * c->E, 1.0, 1);
  tensor wide = input_wide(p, c->rows, c->heads * c->E, 1.0, 2);
  p->be->rope(p->ctx, x.v, position, freq, c->rot, c->E, c->interleaved, 1.25, c->inverse);
  p->be->rope(p->ctx, wide.v, position, freq, c->rot, c->E, c->interleaved, 1.0, c->inverse);
  keep(out, "x", x, TOL);
  keep(out, "wide x", wide, TOL);
}

static void test_rope(void **state) {
  (void)state;
  static const rope_case cases[] = {{1, 1, 2, 2, false, false},
                                    {5, 3, 20, 20, false, false},
                                    {33, 9, 64, 64, false, false},
                                    {5, 2, 80, 32, false, false},
                                    {3, 1, 300, 270, false, false}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    for (int flags = 0; flags < 4; flags++) {
      rope_case c = cases[i];
      c.interleaved = flags & 1;
      c.inverse = flags & 2;
      run_case(rope, &c);
    }
  }
}

/* ---- Activations ------------------------------------------------------------------ */

typedef struct act_case {
  size s;
  ist_act_kind kind;
  bool gated, in_place;
} act_case;

static void act(const place *p, const void *what, outputs *out) {
  const act_case *c = what;
  int64_t N = c->s.rows, F = c->s.cols;
  ist_view none = ist_view_none();
  tensor g = input(p, N, F, 3.0, 1), u = input(p, N, F, 1.0, 2), dy = input(p, N, F, 1.0, 3);
  /* Far out, where exp over- and underflows. */
  for (int64_t r = 0; r < N; r++) tensor_set(g, r, 0, r % 2 ? 300.0 : -300.0);
  tensor y = tensor_new(p->compute, N, F), again = tensor_new(p->compute, N, F);
  tensor dg = tensor_new(p->compute, N, F), du = tensor_new(p->compute, N, F);
  p->be->act_fwd(p->ctx, y.v, g.v, c->gated ? u.v : none, c->kind);
  if (c->in_place) {
    p->be->act_bwd(p->ctx, g.v, c->gated ? u.v : none, dy.v, dy.v, g.v, c->gated ? u.v : none,
                   c->kind);
  } else {
    p->be->act_bwd(p->ctx, dg.v, c->gated ? du.v : none, again.v, dy.v, g.v, c->gated ? u.v : none,
                   c->kind);
  }
  keep(out, "y", y, TOL);
  keep(out, "y again", c->in_place ? dy : again, TOL);
  keep(out, "dg", c->in_place ? g : dg, TOL);
  if (c->gated) keep(out, "du", c->in_place ? u : du, TOL);
  tensor_done(c->in_place ? again : dy);
  tensor_done(c->in_place ? dg : g);
  if (!c->gated || c->in_place) tensor_done(du);
  if (!c->gated || !c->in_place) tensor_done(u);
}

static void test_act(void **state) {
  (void)state;
  for (int kind = IST_ACT_SILU; kind <= IST_ACT_SIGMOID; kind++) {
    for (int i = 0; i < N_SIZES; i++) {
      for (int flags = 0; flags < 4; flags++) {
        const act_case c = {sizes[i], (ist_act_kind)kind, flags & 1, flags & 2};
        run_case(act, &c);
      }
    }
  }
}

/* ---- Movement ----------------------------------------------------------------------- */

static void move(const place *p, const void *what, outputs *out) {
  const size *s = what;
  int64_t N = s->rows, D = s->cols;
  float row_scale[128];
  int32_t ids[128];
  for (int64_t r = 0; r < N; r++) {
    row_scale[r] = 0.25f * (float)(r + 1);
    ids[r] = (int32_t)(N - 1 - r);
  }
  tensor a = input(p, N, D, 1.0, 1), b = input_wide(p, N, D, 1.0, 2);
  tensor narrow = tensor_new(p->compute, N, D), wide = tensor_new(p->wide, N, D);
  tensor same = tensor_new(p->compute, N, D), zero = tensor_new(p->compute, N, D);
  tensor sum = input(p, N, D, 1.0, 3), wide_sum = tensor_new(p->wide, N, D);
  tensor scaled = input(p, N, D, 1.0, 4), wide_scaled = input_wide(p, N, D, 1.0, 5);
  tensor scattered = input(p, N + 2, D, 1.0, 6);
  p->be->copy(p->ctx, narrow.v, b.v);
  p->be->copy(p->ctx, wide.v, a.v);
  p->be->copy(p->ctx, same.v, a.v);
  p->be->zero(p->ctx, zero.v);
  p->be->add(p->ctx, sum.v, sum.v, b.v);
  p->be->add(p->ctx, wide_sum.v, a.v, b.v);
  p->be->scale_rows(p->ctx, scaled.v, 0.3, row_scale);
  p->be->scale_rows(p->ctx, wide_scaled.v, -0.7, NULL);
  p->be->scatter_rows(p->ctx, scattered.v, a.v, ids);
  keep(out, "copy wide to narrow", narrow, 1e-7);
  keep(out, "copy narrow to wide", wide, 0);
  keep(out, "copy", same, 0);
  keep(out, "zero", zero, 0);
  keep(out, "add in place", sum, 1e-7);
  keep(out, "add to wide", wide_sum, 1e-7);
  keep(out, "scale_rows", scaled, 1e-7);
  keep(out, "scale", wide_scaled, 1e-7);
  keep(out, "scatter_rows", scattered, 0);
  tensor_done(a), tensor_done(b);
}

static void test_move(void **state) {
  (void)state;
  for (int i = 0; i < N_SIZES; i++) run_case(move, &sizes[i]);
}

/* ---- Dropout -------------------------------------------------------------------------- */

typedef struct dropout_case {
  size s;
  double p;
} dropout_case;

static void dropout(const place *p, const void *what, outputs *out) {
  const dropout_case *c = what;
  int64_t N = c->s.rows, D = c->s.cols;
  int32_t sample[128], position[128];
  for (int64_t r = 0; r < N; r++) {
    sample[r] = (int32_t)(1000 + r / 3);
    position[r] = (int32_t)(r % 3) + (1 << 20) - 3;
  }
  const ist_dropout d = {.p = c->p,
                         .key = ist_rng_key(11, IST_RNG_DROPOUT),
                         .step = 7,
                         .layer_site = 3 << 8 | 2,
                         .sample = sample,
                         .position = position};
  tensor x = input(p, N, D, 1.0, 1), y = tensor_new(p->compute, N, D);
  tensor own = input(p, N, D, 1.0, 2), dx = input_wide(p, N, D, 1.0, 3);
  p->be->dropout(p->ctx, y.v, x.v, &d);
  p->be->dropout(p->ctx, own.v, own.v, &d);
  p->be->dropout_bwd_acc(p->ctx, dx.v, x.v, &d);
  keep(out, "y", y, 1e-7);
  keep(out, "y on x", own, 1e-7);
  keep(out, "dx", dx, 2e-7);
  tensor_done(x);
}

static void test_dropout(void **state) {
  (void)state;
  static const double chance[] = {0.0, 0.05, 0.5, 1.0};
  for (int i = 0; i < N_SIZES + 1; i++) {
    for (int k = 0; k < 4; k++) {
      const size wide = {2, 65600}; /* where a channel's block needs its high part */
      const dropout_case c = {i < N_SIZES ? sizes[i] : wide, chance[k]};
      run_case(dropout, &c);
    }
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_norm), cmocka_unit_test(test_rope),    cmocka_unit_test(test_act),
      cmocka_unit_test(test_move), cmocka_unit_test(test_dropout),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
