/* Attention of the CPU backend, at every instruction set of this machine, against
 * the reference: several segments, blocks that end inside, windows, biases, caps,
 * shared prefixes, caches; the same bits whatever the number of threads. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "backend/cpu/cpu.h"

enum { Q, O, DOUT, DQ, LSE, K_, V_, DK, DV, PK, PV, DPK, DPV, N_BUF };
#define ROWS   200
#define PREFIX 7

/* One set of arrays; each has guard words behind it. */
typedef struct arrays {
  float *p[N_BUF];
  int64_t cols[N_BUF], rows[N_BUF];
} arrays;

static void fill(arrays *a, int64_t H, int64_t K, int64_t E) {
  ist_rng rng = ist_rng_stream(5, IST_RNG_TEST, (uint32_t)H, (uint32_t)K, (uint32_t)E);
  for (int b = 0; b < N_BUF; b++) {
    a->rows[b] = b >= PK ? PREFIX : ROWS;
    a->cols[b] = b == LSE ? H : b <= DQ ? H * E : K * E;
    int64_t n = a->rows[b] * a->cols[b];
    a->p[b] = calloc((size_t)n + 16, sizeof(float));
    for (int64_t i = 0; i < n + 16; i++)
      a->p[b][i] = i < n ? (float)ist_rng_normal(&rng) : 12345.0f;
  }
}

static ist_view view(const arrays *a, int b) {
  return ist_view_make(a->p[b], IST_F32, a->rows[b], a->cols[b], a->cols[b]);
}

static void run(ist_ctx *ctx, arrays *a, ist_attn attn) {
  const ist_kv kv[2] = {{view(a, K_), view(a, V_), view(a, DK), view(a, DV)},
                        {view(a, PK), view(a, PV), view(a, DPK), view(a, DPV)}};
  attn.kv = kv;
  attn.n_kv = 2;
  ctx->be->attention_fwd(ctx, view(a, O), view(a, LSE), view(a, Q), &attn);
  ctx->be->attention_bwd(ctx, view(a, DQ), view(a, DOUT), view(a, O), view(a, LSE), view(a, Q),
                         &attn);
}

/* exact: the same bits; else within 3e-5 of the array's largest value. */
static void same(const arrays *a, const arrays *b, bool exact, const char *what) {
  for (int k = 0; k < N_BUF; k++) {
    int64_t n = a->rows[k] * a->cols[k];
    double largest = 1;
    for (int64_t i = 0; i < n; i++)
      largest = fmax(largest, isfinite(b->p[k][i]) ? fabs((double)b->p[k][i]) : 0);
    for (int64_t i = 0; i < n + 16; i++) {
      double x = (double)a->p[k][i], y = (double)b->p[k][i];
      bool ok = x == y || (!exact && fabs(x - y) <= 3e-5 * largest);
      if (!ok) fail_msg("%s: array %d, element %d: found %g, expected %g", what, k, (int)i, x, y);
    }
  }
}

static void drop(arrays *a) {
  for (int b = 0; b < N_BUF; b++) free(a->p[b]);
}

static void check(ist_attn attn, const char *what) {
  ist_ctx ref = {.be = ist_backend_reference()};
  arrays truth;
  fill(&truth, attn.H, attn.K, attn.E);
  run(&ref, &truth, attn);
  const ist_simd *levels[4];
  int n = ist_cpu_levels(levels);
  for (int i = 0; i < n; i++) {
    ist_ctx ctx = {.be = ist_backend_cpu()};
    ist_arena scratch;
    arrays first;
    assert_int_equal(ist_arena_init(&scratch, "scratch", 64u << 20, NULL), IST_OK);
    ctx.scratch = &scratch;
    assert_int_equal(ist_cpu_open_with(&ctx, levels[i], NULL, NULL), IST_OK);
    for (int threads = 1; threads <= 2; threads++) {
      arrays a;
      ist_set_threads(threads);
      fill(&a, attn.H, attn.K, attn.E);
      run(&ctx, &a, attn);
      same(&a, &truth, false, what);
      if (threads == 1) {
        first = a;
        continue;
      }
      same(&a, &first, true, what);
      drop(&a);
    }
    drop(&first);
    assert_int_equal(ist_arena_mark(&scratch), 0);
    ctx.be->close(&ctx);
    ist_arena_free(&scratch);
  }
  ist_set_threads(0);
  drop(&truth);
}

static ist_attn_seg causal(int64_t q0, int64_t n) {
  return (ist_attn_seg){
      .q0 = q0, .nq = n, .n_spans = 1, .span = {{.causal = true, .row0 = q0, .n = n}}};
}

static void test_segments(void **state) {
  (void)state;
  const ist_attn_seg seg[] = {causal(0, 1), causal(1, 17), causal(18, 64), causal(82, 118)};
  ist_attn a = {.H = 6, .K = 2, .E = 20, .scale = 0.22, .n_seg = 4, .seg = seg};
  check(a, "segments");
  a.E = 64, a.H = 3, a.K = 1;
  check(a, "segments, E 64");
  a.E = 33, a.H = 2, a.K = 2;
  check(a, "segments, E 33");
}

static void test_window_bias_cap(void **state) {
  (void)state;
  static const float slopes[4] = {0.5f, 0.25f, 0.125f, 0.0625f};
  const ist_attn_seg seg[] = {causal(0, 150), causal(150, 50)};
  ist_attn a = {.H = 4, .K = 2, .E = 16, .scale = 0.25, .n_seg = 2, .seg = seg, .window = 70};
  check(a, "window");
  a.window = 3, a.alibi = slopes;
  check(a, "window and bias");
  a.window = 0, a.softcap = 2.0;
  check(a, "bias and cap");
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
  check(a, "shared prefix");
  seg[0].span[1].logit_add = -INFINITY;
  check(a, "removed prefix");
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
  check((ist_attn){.H = 6, .K = 3, .E = 16, .scale = 0.25, .n_seg = 2, .seg = seg}, "cache");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_segments),
      cmocka_unit_test(test_window_bias_cap),
      cmocka_unit_test(test_shared_prefix),
      cmocka_unit_test(test_cache),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
