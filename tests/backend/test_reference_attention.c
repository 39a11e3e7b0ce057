/* Attention of the reference backend: against a softmax written out in full, against
 * finite differences, and what its contract says of spans and gradients. */
#include "backend/tensor.h"
#include "ist.h"

#define TOL     1e-8
#define TOL_F32 5e-6

enum { MAX_SEG = 3 };

static ist_ctx ctx;
static const ist_backend *be;

static int setup(void **state) {
  (void)state;
  be = ist_backend_reference();
  ctx = (ist_ctx){.be = be};
  return be->open(&ctx, NULL);
}

/* What distinguishes one case: the shape and the segments. Store 0 holds every
 * segment's own keys, store 1 a prefix that all share (prefix_rows 0: none). */
typedef struct setting {
  const char *name;
  int64_t H, K, E, rows, key_rows, prefix_rows, window;
  double softcap;
  bool alibi;
  int64_t n_seg;
  ist_attn_seg seg[MAX_SEG];
} setting;

/* clang-format off: one line a segment. */
#define OWN(row, count, position) \
  { .store = 0, .causal = true, .row0 = (row), .n = (count), .pos0 = (position) }
#define PREFIX(count, add) \
  { .store = 1, .shared = true, .n = (count), .pos0 = 0, .logit_add = (add) }

static const float slopes[4] = {0.5f, 0.25f, 0.125f, 0.0625f};

static const setting settings[] = {
    {.name = "segments, grouped queries",
     .H = 4,
     .K = 2,
     .E = 3,
     .rows = 10,
     .key_rows = 10,
     .n_seg = 3,
     .seg = {{.q0 = 0, .nq = 1, .pos0 = 0, .n_spans = 1, .span = {OWN(0, 1, 0)}},
             {.q0 = 1, .nq = 6, .pos0 = 0, .n_spans = 1, .span = {OWN(1, 6, 0)}},
             {.q0 = 7, .nq = 3, .pos0 = 5, .n_spans = 1, .span = {OWN(7, 3, 5)}}}},
    {.name = "more keys than a tile",
     .H = 2,
     .K = 1,
     .E = 5,
     .rows = 131,
     .key_rows = 131,
     .n_seg = 1,
     .seg = {{.nq = 131, .n_spans = 1, .span = {OWN(0, 131, 0)}}}},
    {.name = "window and position bias",
     .H = 4,
     .K = 4,
     .E = 3,
     .rows = 9,
     .key_rows = 9,
     .window = 3,
     .alibi = true,
     .n_seg = 2,
     .seg = {{.q0 = 0, .nq = 7, .pos0 = 0, .n_spans = 1, .span = {OWN(0, 7, 0)}},
             {.q0 = 7, .nq = 2, .pos0 = 3, .n_spans = 1, .span = {OWN(7, 2, 3)}}}},
    {.name = "soft cap",
     .H = 2,
     .K = 2,
     .E = 5,
     .rows = 5,
     .key_rows = 5,
     .softcap = 1.5,
     .n_seg = 1,
     .seg = {{.nq = 5, .n_spans = 1, .span = {OWN(0, 5, 0)}}}},
    {.name = "shared prefix, suppressed",
     .H = 4,
     .K = 2,
     .E = 3,
     .rows = 8,
     .key_rows = 8,
     .prefix_rows = 3,
     .window = 2,
     .n_seg = 2,
     .seg = {{.q0 = 0,
              .nq = 5,
              .pos0 = 3,
              .n_spans = 2,
              .span = {PREFIX(3, -1.3862943611198906), OWN(0, 5, 3)}},
             {.q0 = 5, .nq = 3, .pos0 = 3, .n_spans = 2, .span = {PREFIX(2, 0.5), OWN(5, 3, 3)}}}},
    {.name = "cache: fewer queries than keys",
     .H = 4,
     .K = 2,
     .E = 3,
     .rows = 4,
     .key_rows = 20,
     .window = 8,
     .alibi = true,
     .softcap = 4.0,
     .n_seg = 2,
     .seg = {{.q0 = 1, .nq = 2, .pos0 = 9, .n_spans = 1, .span = {OWN(2, 11, 0)}},
             {.q0 = 3, .nq = 1, .pos0 = 4, .n_spans = 1, .span = {OWN(14, 5, 0)}}}},
};
/* clang-format on */
enum { N_SETTINGS = sizeof settings / sizeof *settings };

typedef struct attn_case {
  ist_attn a;
  ist_kv kv[2];
  tensor q, o, lse, dout, dq, k[2], v[2], dk[2], dv[2];
} attn_case;

/* a.kv points into the case, so a case stays where it was made. */
static void attn_new(attn_case *c, const setting *s, ist_dtype dt) {
  *c = (attn_case){.a = {.H = s->H,
                         .K = s->K,
                         .E = s->E,
                         .scale = 0.7,
                         .softcap = s->softcap,
                         .window = s->window,
                         .alibi = s->alibi ? slopes : NULL,
                         .n_seg = s->n_seg,
                         .seg = s->seg,
                         .n_kv = s->prefix_rows > 0 ? 2 : 1}};
  c->a.kv = c->kv;
  c->q = tensor_random(dt, s->rows, s->H * s->E, 1.0, 1);
  c->o = tensor_new(dt, s->rows, s->H * s->E);
  c->lse = tensor_new(dt, s->rows, s->H);
  c->dout = tensor_random(dt, s->rows, s->H * s->E, 1.0, 2);
  c->dq = tensor_new(dt, s->rows, s->H * s->E);
  for (int i = 0; i < c->a.n_kv; i++) {
    int64_t n = i == 0 ? s->key_rows : s->prefix_rows;
    c->k[i] = tensor_random(dt, n, s->K * s->E, 1.0, 3 + (uint32_t)i);
    c->v[i] = tensor_random(dt, n, s->K * s->E, 1.0, 5 + (uint32_t)i);
    c->dk[i] = tensor_new(dt, n, s->K * s->E);
    c->dv[i] = tensor_new(dt, n, s->K * s->E);
    c->kv[i] = (ist_kv){c->k[i].v, c->v[i].v, c->dk[i].v, c->dv[i].v};
  }
  if (c->a.n_kv == 2) {
    tensor_fill(c->dk[1], 0.0);
    tensor_fill(c->dv[1], 0.0);
  }
}

static void attn_done(attn_case *c) {
  tensor all[] = {c->q,    c->o,    c->lse,   c->dout,  c->dq,    c->k[0], c->k[1],
                  c->v[0], c->v[1], c->dk[0], c->dk[1], c->dv[0], c->dv[1]};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) tensor_done(all[i]);
}

/* sum do o over the rows that belong to a segment; the others are not written. */
static double attn_loss(void *user) {
  attn_case *c = user;
  be->attention_fwd(&ctx, c->o.v, c->lse.v, c->q.v, &c->a);
  double s = 0.0;
  for (int64_t i = 0; i < c->a.n_seg; i++) {
    for (int64_t r = c->a.seg[i].q0; r < c->a.seg[i].q0 + c->a.seg[i].nq; r++) {
      for (int64_t j = 0; j < c->o.v.cols; j++) {
        s += tensor_get(c->o, r, j) * tensor_get(c->dout, r, j);
      }
    }
  }
  return s;
}

static void attn_run(attn_case *c) {
  attn_loss(c);
  be->attention_bwd(&ctx, c->dq.v, c->dout.v, c->o.v, c->lse.v, c->q.v, &c->a);
}

/* The logit of one key, -INFINITY where the mask hides it. */
static double naive_logit(const attn_case *c, const ist_kv_span *s, int64_t row, int64_t position,
                          int64_t h, int64_t j) {
  const ist_attn *a = &c->a;
  int64_t distance = position - (s->pos0 + j);
  if (s->causal && (distance < 0 || (a->window > 0 && distance >= a->window))) return -INFINITY;
  double x = 0.0;
  for (int64_t e = 0; e < a->E; e++) {
    x += tensor_get(c->q, row, h * a->E + e) *
         tensor_get(c->k[s->store], s->row0 + j, h * a->K / a->H * a->E + e);
  }
  x *= a->scale;
  if (a->softcap > 0.0) x = a->softcap * tanh(x / a->softcap);
  if (a->alibi != NULL) x += (double)a->alibi[h] * (double)(s->pos0 + j);
  return x + s->logit_add;
}

/* One row and head, everything kept: p over all keys, then o and lse. */
static void check_naive_row(const attn_case *c, const ist_attn_seg *seg, int64_t i, int64_t h) {
  const ist_attn *a = &c->a;
  double sum = 0.0, o[8] = {0};
  for (int s = 0; s < seg->n_spans; s++) {
    const ist_kv_span *span = &seg->span[s];
    for (int64_t j = 0; j < span->n; j++) {
      double p = exp(naive_logit(c, span, seg->q0 + i, seg->pos0 + i, h, j));
      sum += p;
      for (int64_t e = 0; e < a->E; e++) {
        o[e] += p * tensor_get(c->v[span->store], span->row0 + j, h * a->K / a->H * a->E + e);
      }
    }
  }
  for (int64_t e = 0; e < a->E; e++) {
    assert_true(fabs(tensor_get(c->o, seg->q0 + i, h * a->E + e) - o[e] / sum) <= 1e-12);
  }
  assert_true(fabs(tensor_get(c->lse, seg->q0 + i, h) - log(sum)) <= 1e-12);
}

static void test_forward(void **state) {
  (void)state;
  for (int n = 0; n < N_SETTINGS; n++) {
    attn_case c;
    attn_new(&c, &settings[n], IST_F64);
    attn_loss(&c);
    for (int64_t s = 0; s < c.a.n_seg; s++) {
      for (int64_t i = 0; i < c.a.seg[s].nq; i++) {
        for (int64_t h = 0; h < c.a.H; h++) check_naive_row(&c, &c.a.seg[s], i, h);
      }
    }
    attn_done(&c);
  }
}

/* The rows of x that one segment names: outside of them gradients are not defined. */
static gradcheck_input used_rows(const char *name, tensor x, tensor grad, int64_t begin,
                                 int64_t rows) {
  tensor xs = {.v = ist_view_rows(x.v, begin, rows)};
  tensor gs = {.v = ist_view_rows(grad.v, begin, rows)};
  return gradient_of(name, xs, gs);
}

static void check_gradients(const setting *s) {
  attn_case c;
  attn_new(&c, s, IST_F64);
  attn_run(&c);
  for (int64_t i = 0; i < c.a.n_seg; i++) {
    const ist_attn_seg *seg = &c.a.seg[i];
    const ist_kv_span *own = &seg->span[seg->n_spans - 1];
    /* A key alone in its segment has p = 1 whatever q and k are. */
    bool alone = seg->nq == 1 && own->n == 1 && seg->n_spans == 1;
    gradcheck_input in[] = {used_rows("q", c.q, c.dq, seg->q0, seg->nq),
                            used_rows("k", c.k[0], c.dk[0], own->row0, own->n),
                            used_rows("v", c.v[0], c.dv[0], own->row0, own->n)};
    if (!alone) gradcheck_assert(in, 3, attn_loss, &c, TOL);
    if (alone) gradcheck_assert(in + 2, 1, attn_loss, &c, TOL);
  }
  if (c.a.n_kv == 2) {
    gradcheck_input in[] = {gradient_of("prefix k", c.k[1], c.dk[1]),
                            gradient_of("prefix v", c.v[1], c.dv[1])};
    gradcheck_assert(in, 2, attn_loss, &c, TOL);
  }
  attn_done(&c);
}

static void test_gradients(void **state) {
  (void)state;
  for (int n = 0; n < N_SETTINGS; n++) {
    print_message("  %s\n", settings[n].name);
    check_gradients(&settings[n]);
  }
}

/* Compares the rows of the segments; outside of them nothing is defined. */
static void assert_rows_close(const char *what, tensor f, tensor d, int64_t begin, int64_t rows) {
  tensor a = {.v = ist_view_rows(f.v, begin, rows)}, b = {.v = ist_view_rows(d.v, begin, rows)};
  assert_close(what, a, 1.0, b, NULL, TOL_F32);
}

static void test_f32(void **state) {
  (void)state;
  for (int n = 0; n < N_SETTINGS; n++) {
    attn_case c, f;
    attn_new(&c, &settings[n], IST_F64);
    attn_new(&f, &settings[n], IST_F32);
    attn_run(&c);
    attn_run(&f);
    for (int64_t i = 0; i < c.a.n_seg; i++) {
      const ist_attn_seg *seg = &c.a.seg[i];
      const ist_kv_span *own = &seg->span[seg->n_spans - 1];
      assert_rows_close("o", f.o, c.o, seg->q0, seg->nq);
      assert_rows_close("lse", f.lse, c.lse, seg->q0, seg->nq);
      assert_rows_close("dq", f.dq, c.dq, seg->q0, seg->nq);
      assert_rows_close("dk", f.dk[0], c.dk[0], own->row0, own->n);
      assert_rows_close("dv", f.dv[0], c.dv[0], own->row0, own->n);
    }
    if (c.a.n_kv == 2) {
      assert_close("prefix dk", f.dk[1], 1.0, c.dk[1], NULL, TOL_F32);
      assert_close("prefix dv", f.dv[1], 1.0, c.dv[1], NULL, TOL_F32);
    }
    attn_done(&f);
    attn_done(&c);
  }
}

static const setting *find(const char *name) {
  for (int n = 0; n < N_SETTINGS; n++) {
    if (strcmp(settings[n].name, name) == 0) return &settings[n];
  }
  fail_msg("no setting %s", name);
  return NULL;
}

/* Rows of keys that no span names keep their gradients' bytes; named ones are
 * overwritten (they started as NaN), shared ones accumulate; each may be absent. */
static void test_outputs(void **state) {
  (void)state;
  attn_case c, d;
  const setting *prefix = find("shared prefix, suppressed");
  attn_new(&c, prefix, IST_F64);
  attn_run(&c);
  attn_new(&d, prefix, IST_F64);
  tensor before = tensor_random(IST_F64, 3, 6, 1.0, 40);
  be->copy(&ctx, d.dk[1].v, before.v);
  be->copy(&ctx, d.dv[1].v, before.v);
  attn_loss(&d);
  d.kv[0].dk = d.kv[0].dv = ist_view_none();
  be->attention_bwd(&ctx, ist_view_none(), d.dout.v, d.o.v, d.lse.v, d.q.v, &d.a);
  assert_close("prefix dk accumulated", d.dk[1], 1.0, c.dk[1], &before, 1e-13);
  assert_close("prefix dv accumulated", d.dv[1], 1.0, c.dv[1], &before, 1e-13);
  assert_true(isnan(tensor_get(d.dk[0], 0, 0)) && isnan(tensor_get(d.dv[0], 0, 0)));
  d.kv[0].dk = d.dk[0].v;
  d.kv[1].dk = d.kv[1].dv = ist_view_none();
  be->attention_bwd(&ctx, d.dq.v, d.dout.v, d.o.v, d.lse.v, d.q.v, &d.a);
  assert_same(d.dq, c.dq);
  assert_same(d.dk[0], c.dk[0]);
  tensor_done(before);
  attn_done(&d);
  attn_done(&c);

  attn_new(&c, find("cache: fewer queries than keys"), IST_F64);
  attn_run(&c);
  for (int64_t r = 0; r < 20; r++) {
    bool named = (r >= 2 && r < 13) || (r >= 14 && r < 19);
    assert_true(isnan(tensor_get(c.dk[0], r, 0)) == !named);
  }
  assert_true(isnan(tensor_get(c.o, 0, 0)) && isnan(tensor_get(c.dq, 0, 0)));
  attn_done(&c);
}

/* logit_add = -INFINITY removes a span exactly: the same bits as without it, whatever
 * it holds, and no gradient into it. */
static void test_removed_span(void **state) {
  (void)state;
  attn_case c, d;
  setting gone = *find("shared prefix, suppressed"), without = gone;
  for (int i = 0; i < 2; i++) {
    gone.seg[i].span[0].logit_add = -INFINITY;
    without.seg[i].span[0] = without.seg[i].span[1];
    without.seg[i].n_spans = 1;
  }
  attn_new(&c, &gone, IST_F64);
  attn_new(&d, &without, IST_F64);
  tensor_fill(c.k[1], NAN);
  tensor_fill(c.v[1], NAN);
  attn_run(&c);
  attn_run(&d);
  assert_same(c.o, d.o);
  assert_same(c.lse, d.lse);
  assert_same(c.dq, d.dq);
  assert_same(c.dk[0], d.dk[0]);
  assert_same(c.dv[0], d.dv[0]);
  assert_same(c.dk[1], d.dk[1]);
  attn_done(&d);
  attn_done(&c);
}

/* A query that sees no key: o = 0, lse = -INFINITY, gradients 0. Not so a NaN. */
static void test_nothing_to_see(void **state) {
  (void)state;
  attn_case c;
  setting s = {.H = 2,
               .K = 1,
               .E = 3,
               .rows = 2,
               .key_rows = 2,
               .n_seg = 1,
               .seg = {{.nq = 2, .pos0 = 4, .n_spans = 1, .span = {OWN(0, 2, 5)}}}};
  attn_new(&c, &s, IST_F64);
  attn_run(&c); /* the query at 4 sees nothing, the one at 5 the key at 5 */
  for (int64_t j = 0; j < 6; j++) {
    assert_true(tensor_get(c.o, 0, j) == 0.0 && tensor_get(c.dq, 0, j) == 0.0);
    assert_true(fabs(tensor_get(c.o, 1, j) - tensor_get(c.v[0], 0, j % 3)) <= 1e-15);
  }
  assert_true(tensor_get(c.lse, 0, 0) == -INFINITY && isfinite(tensor_get(c.lse, 1, 0)));
  for (int64_t e = 0; e < 3; e++) {
    assert_true(tensor_get(c.dv[0], 1, e) == 0.0 && tensor_get(c.dk[0], 1, e) == 0.0);
  }
  tensor_fill(c.k[0], NAN);
  attn_run(&c);
  assert_true(isnan(tensor_get(c.o, 1, 0)) && isnan(tensor_get(c.dq, 1, 0)));
  attn_done(&c);
}

/* A key whose logit is -INFINITY counts as one that is not seen. */
static void test_impossible_key(void **state) {
  (void)state;
  attn_case c;
  setting s = {.H = 1,
               .K = 1,
               .E = 3,
               .rows = 2,
               .key_rows = 2,
               .n_seg = 1,
               .seg = {{.nq = 2, .n_spans = 1, .span = {OWN(0, 2, 0)}}}};
  attn_new(&c, &s, IST_F64);
  tensor_fill(c.q, 0.0);
  tensor_set(c.q, 0, 0, 1.0);
  tensor_set(c.q, 1, 0, 1.0);
  tensor_set(c.k[0], 0, 0, -INFINITY);
  attn_run(&c);
  assert_true(tensor_get(c.lse, 0, 0) == -INFINITY);
  for (int64_t e = 0; e < 3; e++) {
    assert_true(tensor_get(c.o, 0, e) == 0.0 && tensor_get(c.dq, 0, e) == 0.0);
    assert_true(tensor_get(c.o, 1, e) == tensor_get(c.v[0], 1, e));
  }
  attn_done(&c);
}

/* Large logits neither overflow nor lose the softmax. */
static void test_large_logits(void **state) {
  (void)state;
  attn_case c;
  attn_new(&c, find("segments, grouped queries"), IST_F32);
  c.a.scale = 1e6;
  attn_run(&c);
  for (int64_t r = 0; r < 10; r++) {
    for (int64_t j = 0; j < 12; j++) {
      assert_true(isfinite(tensor_get(c.o, r, j)) && isfinite(tensor_get(c.dq, r, j)));
    }
  }
  attn_done(&c);
}

static void test_threads(void **state) {
  (void)state;
  attn_case c, d;
  const setting *s = find("window and position bias");
  int threads = ist_get_threads();
  attn_new(&c, s, IST_F32);
  attn_new(&d, s, IST_F32);
  ist_set_threads(1);
  attn_run(&c);
  ist_set_threads(3);
  attn_run(&d);
  ist_set_threads(threads);
  assert_same(c.o, d.o);
  assert_same(c.dq, d.dq);
  assert_same(c.dk[0], d.dk[0]);
  assert_same(c.dv[0], d.dv[0]);
  attn_done(&d);
  attn_done(&c);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_forward),
      cmocka_unit_test(test_gradients),
      cmocka_unit_test(test_f32),
      cmocka_unit_test(test_outputs),
      cmocka_unit_test(test_removed_span),
      cmocka_unit_test(test_nothing_to_see),
      cmocka_unit_test(test_impossible_key),
      cmocka_unit_test(test_large_logits),
      cmocka_unit_test(test_threads),
  };
  return cmocka_run_group_tests(tests, setup, NULL);
}
