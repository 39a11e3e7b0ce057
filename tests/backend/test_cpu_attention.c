/* Attention of the CPU backend, at every instruction set of this machine, against
 * the reference: several segments, blocks that end inside, windows, biases, caps,
 * shared prefixes, caches; the same bits whatever the number of threads. */
#include <stdio.h>

#include "backend/cpu_cases.h"

enum { ROWS = 200, PREFIX = 7 };

/* Scores, weights and the forward output that backward reads are rounded to BF16 on the
 * way, so gradients there are good to a few of its units; F32 is F32. */
static void attention(const place *p, const void *what, outputs *out) {
  ist_attn a = *(const ist_attn *)what;
  int64_t q_cols = a.H * a.E, kv_cols = a.K * a.E;
  double tol = p->bf16 ? 1e-2 : 3e-5;
  tensor q = input(p, ROWS, q_cols, 1.0, 1), dout = input(p, ROWS, q_cols, 1.0, 2);
  tensor k = input(p, ROWS, kv_cols, 1.0, 3), v = input(p, ROWS, kv_cols, 1.0, 4);
  tensor pk = input(p, PREFIX, kv_cols, 1.0, 5), pv = input(p, PREFIX, kv_cols, 1.0, 6);
  tensor o = input(p, ROWS, q_cols, 1.0, 7), lse = input_wide(p, ROWS, a.H, 1.0, 8);
  tensor dq = input(p, ROWS, q_cols, 1.0, 9);
  tensor dk = input_wide(p, ROWS, kv_cols, 1.0, 10), dv = input_wide(p, ROWS, kv_cols, 1.0, 11);
  tensor dpk = input_wide(p, PREFIX, kv_cols, 1.0, 12);
  tensor dpv = input_wide(p, PREFIX, kv_cols, 1.0, 13);
  const ist_kv kv[2] = {{k.v, v.v, dk.v, dv.v}, {pk.v, pv.v, dpk.v, dpv.v}};
  a.kv = kv;
  a.n_kv = 2;
  p->be->attention_fwd(p->ctx, o.v, lse.v, q.v, &a);
  p->be->attention_bwd(p->ctx, dq.v, dout.v, o.v, lse.v, q.v, &a);
  keep(out, "o", o, p->bf16 ? 4e-3 : tol);
  keep(out, "lse", lse, p->bf16 ? 1e-3 : tol);
  keep(out, "dq", dq, tol);
  keep(out, "dk", dk, tol);
  keep(out, "dv", dv, tol);
  keep(out, "dk of the prefix", dpk, tol);
  keep(out, "dv of the prefix", dpv, tol);
  tensor_done(q), tensor_done(dout), tensor_done(k), tensor_done(v);
  tensor_done(pk), tensor_done(pv);
}

static void check(ist_attn a) {
  run_case(attention, &a);
}

static ist_attn_seg causal(int64_t q0, int64_t n) {
  return (ist_attn_seg){
      .q0 = q0, .nq = n, .n_spans = 1, .span = {{.causal = true, .row0 = q0, .n = n}}};
}

static void test_segments(void **state) {
  (void)state;
  const ist_attn_seg seg[] = {causal(0, 1), causal(1, 17), causal(18, 64), causal(82, 118)};
  ist_attn a = {.H = 6, .K = 2, .E = 20, .scale = 0.22, .n_seg = 4, .seg = seg};
  check(a);
  a.E = 64, a.H = 3, a.K = 1;
  check(a);
  a.E = 33, a.H = 2, a.K = 2;
  check(a);
}

static void test_window_bias_cap(void **state) {
  (void)state;
  static const float slopes[4] = {0.5f, 0.25f, 0.125f, 0.0625f};
  const ist_attn_seg seg[] = {causal(0, 150), causal(150, 50)};
  ist_attn a = {.H = 4, .K = 2, .E = 16, .scale = 0.25, .n_seg = 2, .seg = seg, .window = 70};
  check(a);
  a.window = 3, a.alibi = slopes;
  check(a);
  a.window = 0, a.softcap = 2.0;
  check(a);
}

static void test_shared_prefix(void **state) {
  (void)state;
  ist_attn_seg seg[2];
  for (int i = 0; i < 2; i++) {
    seg[i] = causal(i * 90, 90);
    seg[i].span[1] =
        (ist_kv_span){.store = 1, .shared = true, .n = PREFIX, .logit_add = i ? 0.0 : log(0.25)};
    seg[i].n_spans = 2;
  }
  ist_attn a = {.H = 4, .K = 2, .E = 24, .scale = 0.2, .n_seg = 2, .seg = seg};
  check(a);
  seg[0].span[1].logit_add = -INFINITY;
  check(a);
}

static void test_cache(void **state) {
  (void)state;
  const ist_attn_seg seg[] = {
      {.q0 = 0, .nq = 1, .pos0 = 99, .n_spans = 1, .span = {{.causal = true, .row0 = 0, .n = 100}}},
      {.q0 = 1,
       .nq = 5,
       .pos0 = 60,
       .n_spans = 1,
       .span = {{.causal = true, .row0 = 100, .n = 65}}},
  };
  check((ist_attn){.H = 6, .K = 3, .E = 16, .scale = 0.25, .n_seg = 2, .seg = seg});
}

/* Steps of generation: every segment one query, of all kinds. */
static void test_one_query(void **state) {
  (void)state;
  static const float slopes[4] = {0.5f, 0.25f, 0.125f, 0.0625f};
  static const int64_t sizes[][3] = {{4, 2, 20}, {3, 1, 64}, {2, 2, 33}, {4, 1, 128}};
  ist_attn_seg seg[3];
  const int64_t length[3] = {1, 66, 133};
  int64_t row = 0;
  for (int i = 0; i < 3; i++, row += length[i - 1])
    seg[i] =
        (ist_attn_seg){.q0 = 2 * i,
                       .nq = 1,
                       .pos0 = length[i] - 1,
                       .n_spans = 1,
                       .span = {{.causal = true, .row0 = row, .n = length[i]},
                                {.store = 1, .shared = true, .n = PREFIX, .logit_add = log(0.25)}}};
  for (int i = 0; i < 4; i++) {
    ist_attn a = {.H = sizes[i][0], .K = sizes[i][1], .E = sizes[i][2], .scale = 0.2, .n_seg = 3};
    a.seg = seg;
    check(a);
    a.window = 70;
    check(a);
    a.window = 0, a.softcap = 2.0, a.alibi = slopes;
    check(a);
    seg[1].n_spans = 1 + i % 2;
  }
  seg[0].span[0].logit_add = -INFINITY; /* nothing to see */
  check((ist_attn){.H = 4, .K = 2, .E = 16, .scale = 0.2, .n_seg = 3, .seg = seg});
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_segments),      cmocka_unit_test(test_window_bias_cap),
      cmocka_unit_test(test_shared_prefix), cmocka_unit_test(test_cache),
      cmocka_unit_test(test_one_query),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
