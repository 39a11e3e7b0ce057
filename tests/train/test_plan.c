/* The plan: what it declares is what is reserved and used, limits are kept, and a
 * larger limit is never the worse for it. */
#include "run.h"

/* ---- Declared, reserved, used --------------------------------------------------------- */

static int64_t term_bytes(const ist_run_plan *p, const char *name) {
  for (int i = 0; i < p->n_terms; i++) {
    if (strcmp(p->term[i].name, name) == 0) return p->term[i].bytes;
  }
  fail_msg("the plan has no term \"%s\"", name);
  return 0;
}

/* `slack`: bytes that rounding to the arena's alignment may add to what was planned. */
static void check_arena(const ist_run_plan *p, const ist_arena *a, int64_t slack) {
  int64_t planned = term_bytes(p, a->name), reserved = (int64_t)a->cap;
  if (reserved < planned || reserved > planned + slack)
    fail_msg("%s: planned %lld, reserved %lld", a->name, (long long)planned, (long long)reserved);
  assert_int_equal(a->peak, a->used);
  if (a->cap - a->used >= IST_ARENA_ALIGN)
    fail_msg("%s: reserved %lld, used %lld", a->name, (long long)a->cap, (long long)a->used);
}

static void check_plan(const ist_trainer *t) {
  const ist_run_plan *p = &t->plan;
  for (int i = 0; i < IST_ARENA_DECODER_COUNT; i++) {
    const ist_arena *a = &t->runner.decoder.arena[i];
    if (i == IST_ARENA_SCRATCH) { /* a stack: empty between calls, never fuller than planned */
      assert_int_equal(a->used, 0);
      assert_int_equal(a->cap, term_bytes(p, a->name));
    } else {
      check_arena(p, a, 0);
    }
  }
  check_arena(p, &t->params, IST_ARENA_ALIGN);
  check_arena(p, &t->grads, IST_ARENA_ALIGN);
  check_arena(p, &t->moments, 2 * IST_ARENA_ALIGN);
  int64_t sum = 0;
  for (int i = 0; i < p->n_terms; i++) sum += p->term[i].bytes;
  assert_int_equal(sum, p->total);
  assert_true(p->total <= p->limit);
}

static void test_declared_is_reserved_is_used(void **state) {
  (void)state;
  static const char *const orders[] = {"token", "token", "token", "layer"};
  static const char *const recomputes[] = {"none", "mlp", "layer", "auto"};
  static const char *const targets[] = {"all-linear", "q", "down,up"};
  ist_model *m = open_tiny();
  for (int i = 0; i < 4; i++) {
    for (int j = 0; j < 3; j++) {
      ist_train_options o = run_options();
      o.order = orders[i];
      o.recompute = recomputes[i];
      o.targets = targets[j];
      o.rank = 3 + 2 * j;
      o.dropout = j == 1 ? 0 : 0.1;
      o.micro_tokens = 48 + 31 * j;
      ist_trainer *t = open_run(m, &o);
      check_plan(t);
      for (int k = 0; k < 6; k++) take_step(t);
      check_plan(t);
      ist_trainer_close(t);
    }
  }
  ist_model_close(m);
}

/* ---- Shapes without a file ---------------------------------------------------------------- */

/* A model that exists as sizes only: the plan reads the tensor table, not the tensors. */
typedef struct shape {
  ist_model_config config;
  ist_weights weights;
  ist_adapters adapters;
  ist_plan_input in;
} shape;

static void open_shape(shape *s, const ist_model_config *c, ist_dtype type, int64_t rank,
                       int64_t batch, int64_t length) {
  static const unsigned char somewhere[64];
  ist_error err = {0};
  memset(s, 0, sizeof *s);
  s->config = *c;
  s->weights.config = &s->config;
  s->weights.layer = ist_calloc((size_t)(c->L * IST_T_LAYER_COUNT), sizeof *s->weights.layer);
  int64_t file = 0;
  for (int64_t l = 0; l < c->L; l++) {
    for (int id = 0; id < IST_T_LAYER_COUNT; id++) {
      ist_stored *t = &s->weights.layer[l * IST_T_LAYER_COUNT + id];
      bool need;
      ist_tensor_shape(c, l, id, &t->rows, &t->cols, &need);
      if (!t->rows) continue;
      t->data = somewhere;
      t->type = t->rows == 1 ? IST_F32 : type;
      file += ist_dtype_bytes(t->type, t->rows * t->cols);
    }
  }
  for (int id = IST_T_MODEL_FIRST; id < IST_T_END; id++) {
    ist_stored *t = &s->weights.model[id - IST_T_LAYER_COUNT];
    bool need;
    ist_tensor_shape(c, -1, id, &t->rows, &t->cols, &need);
    t->type = t->rows == 1 ? IST_F32 : type;
    if (!t->rows) continue;
    if (id == IST_T_OUTPUT && c->tied) continue;
    t->data = somewhere;
    file += ist_dtype_bytes(t->type, t->rows * t->cols);
  }
  ist_linear_sizes sizes;
  ist_model_linear_sizes(c, &sizes);
  const uint32_t modules = (1u << IST_MOD_QKV) - 1; /* all of a Llama */
  const ist_adapter_config pc = {.method = "lora",
                                 .modules = modules,
                                 .rank = rank,
                                 .alpha = 2.0 * (double)rank,
                                 .dropout = 0.05};
  MUST(ist_adapters_layout(&s->adapters, &pc, &sizes, c->L, IST_F32, &err));
  s->in = (ist_plan_input){
      .config = &s->config,
      .weights = &s->weights,
      .adapters = &s->adapters,
      .backend = ist_backend_reference(),
      .compute = IST_F32,
      .active_layers = c->L / 4,
      .dropout = 0.05,
      .step = {batch * length, batch, length, false},
      .probe = {3 * batch * length, 3 * batch, length, false},
      .file_bytes = file,
      .resident_bytes = 30 << 20,
      .scratch = "/tmp",
      .recompute = -1,
      .order = -1,
  };
}

static void close_shape(shape *s) {
  ist_free(s->weights.layer);
}

static const ist_model_config small_shape = {
    .L = 30,
    .D = 576,
    .F = 1536,
    .H = 9,
    .K = 3,
    .E = 64,
    .V = 49152,
    .context = 8192,
    .gated = true,
    .tied = true,
};
static const ist_model_config large_shape = {
    .L = 32,
    .D = 4096,
    .F = 11008,
    .H = 32,
    .K = 32,
    .E = 128,
    .V = 32000,
    .context = 4096,
    .gated = true,
};

/* The number of MB that an error names after "needs". */
static int64_t needed_bytes(const ist_error *err) {
  const char *at = strstr(err->message, "needs ");
  if (!at) fail_msg("found \"%s\", expected it to name what is needed", err->message);
  return (int64_t)(strtod(at + 6, NULL) * 1e6);
}

/* Layers' inputs on disk and dropped pages belong to layer order, with weights that are read anew.
 */
static void check_thrift(const ist_run_plan *p) {
  bool thrifty = p->sizes.spill || p->sizes.drop_pages;
  assert_true(!thrifty || (p->order == IST_ORDER_LAYER && p->sizes.policy != IST_WEIGHT_KEEP));
}

static void check_limits(shape *s) {
  ist_error err = {0};
  ist_run_plan p;
  s->in.max_memory = 1;
  assert_int_equal(ist_plan_make(&p, &s->in, &err), IST_ERR_NOMEM);
  int64_t least = needed_bytes(&err);
  /* What was named is enough, and hardly more than enough. */
  s->in.max_memory = least;
  MUST(ist_plan_make(&p, &s->in, &err));
  assert_true(p.total <= least);
  check_thrift(&p);
  int64_t total = p.total;
  s->in.max_memory = total - 1;
  if (ist_plan_make(&p, &s->in, &err) == IST_OK)
    fail_msg("%lld bytes were called too few, but are enough", (long long)total - 1);
  assert_int_equal(needed_bytes(&err), least);
}

static void check_growth(shape *s) {
  ist_error err = {0};
  ist_run_plan before = {0}, p;
  s->in.max_memory = 1;
  ist_plan_make(&p, &s->in, &err);
  double bytes = (double)needed_bytes(&err);
  for (int i = 0; i < 40; i++, bytes *= 1.12) {
    s->in.max_memory = (int64_t)bytes;
    MUST(ist_plan_make(&p, &s->in, &err));
    assert_true(p.total <= s->in.max_memory);
    check_thrift(&p);
    if (i > 0 && !(p.cost <= before.cost)) {
      fail_msg("limit %.0f MB: cost %.4f (%s, %s, %s, %d tokens), with %.0f MB it was %.4f",
               bytes * 1e-6, p.cost, ist_order_name(p.order), ist_recompute_name(p.recompute),
               ist_policy_name(p.sizes.policy), (int)p.micro_tokens, (double)before.limit * 1e-6,
               before.cost);
    }
    before = p;
  }
}

static void test_limits(void **state) {
  (void)state;
  static const ist_dtype types[] = {IST_Q4_0, IST_Q4_0, IST_Q8_0, IST_F32};
  for (int i = 0; i < 4; i++) {
    shape s;
    open_shape(&s, i == 0 ? &large_shape : &small_shape, types[i], 32, 8, i == 1 ? 85 : 512);
    check_limits(&s);
    s.in.compute = IST_BF16;
    check_limits(&s);
    s.in.scratch = NULL;
    check_limits(&s);
    close_shape(&s);
  }
}

static void test_larger_limit_is_no_slower(void **state) {
  (void)state;
  for (int i = 0; i < 3; i++) {
    shape s;
    open_shape(&s, i == 0 ? &large_shape : &small_shape, IST_Q4_0, 32, i == 2 ? 16 : 8,
               i == 2 ? 85 : 512);
    s.in.compute = IST_BF16;
    check_growth(&s);
    close_shape(&s);
  }
}

/* More of anything needs no less. */
static void test_growth_with_settings(void **state) {
  (void)state;
  int64_t last = 0;
  for (int64_t length = 64; length <= 4096; length *= 2) {
    shape s;
    ist_error err = {0};
    ist_run_plan p;
    open_shape(&s, &small_shape, IST_Q4_0, 16, 4, length);
    s.in.max_memory = 1;
    assert_int_equal(ist_plan_make(&p, &s.in, &err), IST_ERR_NOMEM);
    assert_true(needed_bytes(&err) >= last);
    last = needed_bytes(&err);
    close_shape(&s);
  }
}

/* What is asked for is kept: size of a pass, recompute, order. */
static void test_choices_are_kept(void **state) {
  (void)state;
  ist_error err = {0};
  shape s;
  ist_run_plan p;
  open_shape(&s, &small_shape, IST_Q4_0, 16, 16, 100);
  s.in.max_memory = INT64_C(1) << 40;
  s.in.micro_tokens = 300;
  s.in.recompute = IST_RECOMPUTE_MLP;
  s.in.order = IST_ORDER_TOKEN;
  MUST(ist_plan_make(&p, &s.in, &err));
  assert_int_equal(p.micro_tokens, 300);
  assert_int_equal(p.recompute, IST_RECOMPUTE_MLP);
  assert_int_equal(p.order, IST_ORDER_TOKEN);
  s.in.micro_tokens = 50; /* shorter than a sample */
  MUST(ist_plan_make(&p, &s.in, &err));
  assert_int_equal(p.micro_tokens, 100);
  s.in.order = IST_ORDER_LAYER;
  MUST(ist_plan_make(&p, &s.in, &err));
  assert_int_equal(p.order, IST_ORDER_LAYER);
  assert_int_equal(p.recompute, IST_RECOMPUTE_LAYER);
  close_shape(&s);
}

/* A limit that only the other order would keep is no reason for it. */
static void test_recompute_is_kept(void **state) {
  (void)state;
  ist_error err = {0};
  shape s;
  ist_run_plan p;
  open_shape(&s, &large_shape, IST_Q4_0, 32, 8, 512);
  s.in.order = IST_ORDER_LAYER; /* the smallest of these */
  for (s.in.max_memory = INT64_C(1) << 40; ist_plan_make(&p, &s.in, &err) == IST_OK;)
    s.in.max_memory = p.total - 1;
  s.in.max_memory = p.total;
  s.in.order = -1;
  s.in.recompute = IST_RECOMPUTE_NONE;
  assert_int_equal(ist_plan_make(&p, &s.in, &err), IST_ERR_NOMEM);
  assert_non_null(strstr(err.hint, "--recompute auto"));
  s.in.recompute = -1;
  MUST(ist_plan_make(&p, &s.in, &err));
  assert_true(p.total <= s.in.max_memory);
  close_shape(&s);
}

/* A disk too small for the scratch file: the plan does without it where memory allows,
 * and says so where it does not. */
static void test_disk_too_small(void **state) {
  (void)state;
  ist_error err = {0};
  shape s;
  ist_run_plan p, least;
  open_shape(&s, &large_shape, IST_Q4_0, 32, 8, 512);
  s.in.max_memory = 1;
  ist_plan_make(&p, &s.in, &err);
  s.in.max_memory = needed_bytes(&err);
  MUST(ist_plan_make(&least, &s.in, &err));
  assert_true(least.scratch_bytes > 0);
  s.in.disk_free = least.scratch_bytes;
  MUST(ist_plan_make(&p, &s.in, &err));
  s.in.disk_free = 1;
  assert_int_equal(ist_plan_make(&p, &s.in, &err), IST_ERR_NOMEM);
  assert_non_null(strstr(err.message, "free on the disk"));
  assert_non_null(strstr(err.message, s.in.scratch));
  s.in.max_memory = INT64_C(1) << 40;
  MUST(ist_plan_make(&p, &s.in, &err));
  assert_int_equal(p.scratch_bytes, 0);
  close_shape(&s);
}

/* Moments on disk: memory is counted for those of the active layers, twice, with a page or so of
 * each neighbour, and the disk for all of them. */
static void test_moments_on_disk(void **state) {
  (void)state;
  ist_error err = {0};
  shape s;
  ist_run_plan p;
  open_shape(&s, &large_shape, IST_Q4_0, 32, 8, 512);
  s.in.max_memory = 1;
  ist_plan_make(&p, &s.in, &err);
  s.in.max_memory = needed_bytes(&err);
  MUST(ist_plan_make(&p, &s.in, &err));
  assert_true(p.moments_on_disk);
  int64_t layer = 4 * s.adapters.layout.params, held = term_bytes(&p, "optimizer moments");
  int64_t active = 2 * s.in.active_layers * layer;
  assert_true(held >= active && held <= active + 2 * s.in.active_layers * 3 * 4096);
  assert_true(p.scratch_bytes >= 2 * 32 * layer);
  close_shape(&s);
}

static int64_t pass_of_700(void *user, int64_t micro) {
  ++*(int *)user;
  return micro < 700 ? micro : 700;
}

/* Passes are no larger than the run's batches make them, and never shorter than its
 * longest sample; moments are counted for the layers that the run touches. */
static void test_sizes_of_this_run(void **state) {
  (void)state;
  ist_error err = {0};
  shape s;
  ist_run_plan p, all;
  int asked = 0;
  open_shape(&s, &small_shape, IST_Q4_0, 16, 16, 256);
  s.in.max_memory = INT64_C(1) << 40;
  s.in.recompute = IST_RECOMPUTE_NONE;
  s.in.order = IST_ORDER_TOKEN;
  MUST(ist_plan_make(&all, &s.in, &err));
  s.in.largest_pass = pass_of_700;
  s.in.user = &asked;
  s.in.moment_layers = 5;
  MUST(ist_plan_make(&p, &s.in, &err));
  assert_true(asked > 0);
  assert_true(p.micro_tokens <= 700 && p.micro_tokens >= 256);
  assert_true(p.total < all.total);
  assert_int_equal(30 * term_bytes(&p, "optimizer moments"),
                   5 * term_bytes(&all, "optimizer moments"));
  s.in.step.longest = 900;
  MUST(ist_plan_make(&p, &s.in, &err));
  assert_int_equal(p.micro_tokens, 900);
  close_shape(&s);
}

/* A plan says why it was chosen: against a faster one, where the limit rules that out. */
static void test_plan_says_why(void **state) {
  (void)state;
  ist_error err = {0};
  shape s;
  ist_run_plan p;
  open_shape(&s, &large_shape, IST_Q4_0, 32, 8, 512);
  s.in.max_memory = INT64_C(1) << 40;
  MUST(ist_plan_make(&p, &s.in, &err));
  assert_null(strstr(p.why, "faster with"));
  s.in.max_memory = p.total - 1;
  MUST(ist_plan_make(&p, &s.in, &err));
  assert_non_null(strstr(p.why, "faster with"));
  close_shape(&s);
}

/* ---- A saved plan -----------------------------------------------------------------------------
 */

/* A resumed run repeats the plan, also where another limit would choose otherwise:
 * sums must come out in the same order. */
static void test_saved_plan_is_repeated(void **state) {
  (void)state;
  ist_error err = {0};
  shape s;
  open_shape(&s, &small_shape, IST_Q4_0, 16, 16, 256);
  s.in.max_memory = 1;
  ist_run_plan tight, again;
  ist_plan_make(&tight, &s.in, &err);
  s.in.max_memory = needed_bytes(&err);
  MUST(ist_plan_make(&tight, &s.in, &err));
  json_t *saved = ist_plan_to_json(&tight);
  s.in.max_memory = INT64_C(1) << 40;
  MUST(ist_plan_make(&again, &s.in, &err));
  assert_true(again.cost < tight.cost);
  MUST(ist_plan_fix(&s.in, saved, &err));
  MUST(ist_plan_make(&again, &s.in, &err));
  assert_int_equal(again.order, tight.order);
  assert_int_equal(again.recompute, tight.recompute);
  assert_int_equal(again.micro_tokens, tight.micro_tokens);
  assert_int_equal(again.sizes.head_rows, tight.sizes.head_rows);
  assert_int_equal(again.sizes.head_chunk, tight.sizes.head_chunk);
  json_object_del(saved, "order");
  assert_int_equal(ist_plan_fix(&s.in, saved, &err), IST_ERR_FORMAT);
  json_decref(saved);
  close_shape(&s);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_declared_is_reserved_is_used),
      cmocka_unit_test(test_limits),
      cmocka_unit_test(test_larger_limit_is_no_slower),
      cmocka_unit_test(test_growth_with_settings),
      cmocka_unit_test(test_choices_are_kept),
      cmocka_unit_test(test_recompute_is_kept),
      cmocka_unit_test(test_disk_too_small),
      cmocka_unit_test(test_moments_on_disk),
      cmocka_unit_test(test_sizes_of_this_run),
      cmocka_unit_test(test_plan_says_why),
      cmocka_unit_test(test_saved_plan_is_repeated),
  };
  return cmocka_run_group_tests(tests, enter_with_data, leave_folder);
}
