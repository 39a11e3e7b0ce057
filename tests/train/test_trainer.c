/* The trainer on the tiny golden model, with the reference backend: resuming to the
 * bit, frozen layers, what a step allocates, schedules against each other, numbers
 * that are not finite. */
#include "run.h"

/* ---- Resume ------------------------------------------------------------------------- */

static void test_resume_token_order(void **state) {
  (void)state;
  must_resume_exactly(run_options(), 11, 2, "token-whole", "token-parts");
}

/* Layers without adapters are never drawn, whatever the selector; what is not there stays zero. */
static void test_some_layers(void **state) {
  (void)state;
  static const char *const selectors[] = {"ist", "random", "all", "fixed:3"};
  for (size_t i = 0; i < sizeof selectors / sizeof *selectors; i++) {
    ist_train_options o = run_options();
    o.targets = "q,up";
    o.layers_to_transform = "1,3";
    o.rank_pattern = "layers.1.mlp.up_proj=2";
    o.selector = selectors[i];
    o.method = i == 2 ? "dora" : "lora";
    ist_model *m = open_tiny();
    ist_trainer *t = open_run(m, &o);
    ist_train_info info;
    ist_trainer_get_info(t, &info);
    assert_int_equal(info.active_layers, i == 2 ? 2 : 1);
    assert_int_equal(info.probes, i == 0);
    ist_step_report r;
    do {
      r = take_step(t);
      assert_true(!r.active[0] && !r.active[2] && (r.active[1] || r.active[3]));
    } while (!r.finished);
    assert_true(r.importance[0] == 0 && r.observed[0] == 0);
    if (i == 0) assert_true(r.observed[1] + r.observed[3] > 0 && r.importance[1] > 0);
    const float *p = (const float *)(const void *)t->adapters.params;
    const ist_adapter *up = &t->adapters.layout.module[IST_MOD_UP];
    int64_t params = t->adapters.layout.params, F = t->adapters.sizes.out[IST_MOD_UP];
    for (int64_t k = 0; k < params; k++) assert_true(p[k] == 0 && p[2 * params + k] == 0);
    for (int64_t k = 0; k < F * up->rank; k++)
      if (k % up->rank >= 2) assert_true(p[params + up->b + k] == 0);
    if (i == 2) assert_true(p[params + up->b] != 0 && p[3 * params + up->b + up->rank - 1] != 0);
    ist_trainer_close(t);
    ist_model_close(m);
  }
}

static void test_resume_some_layers(void **state) {
  (void)state;
  ist_train_options o = run_options();
  o.targets = ".*layers\\.[123]\\..*(q|v|down)_proj";
  o.rank_pattern = "layers.2.*=2";
  must_resume_exactly(o, 11, 2, "some-whole", "some-parts");
}

static void test_resume_outer(void **state) {
  (void)state;
  ist_train_options o = run_options();
  o.targets = "q,down,embed_tokens,lm_head";
  o.rank_pattern = "lm_head=2";
  o.lr_ratio = 4;
  must_resume_exactly(o, 11, 2, "outer-whole", "outer-parts");
  o.order = "layer";
  must_resume_exactly(o, 11, 2, "outer-whole-2", "outer-parts-2");
}

/* The importance of an earlier run: as it is, without probes, or as a start for IST. */
static void test_scores(void **state) {
  (void)state;
  static const char file[] =
      "{\"layers\": [{\"layer\": 0, \"suppressibility\": 30}, {\"layer\": 1, \"suppressibility\": "
      "25},"
      "{\"layer\": 2, \"suppressibility\": -30}, {\"layer\": 3, \"suppressibility\": 30}]}";
  ist_error err = {0};
  MUST(ist_file_write("scores.json", file, sizeof file - 1, &err));
  for (int warm = 0; warm < 2; warm++) {
    ist_train_options o = run_options();
    o.selector = "scores:scores.json";
    o.scores = warm ? "warm-start" : "frozen";
    o.active_ratio = 0.25;
    ist_model *m = open_tiny();
    ist_trainer *t = open_run(m, &o);
    ist_step_report r;
    bool probed = false;
    int64_t drawn = 0;
    do {
      r = take_step(t);
      probed |= r.probed;
      drawn += r.active[2];
    } while (!r.finished);
    assert_int_equal(probed, warm);
    assert_true(warm ? drawn >= 10 : drawn == 20); /* IST keeps scores within 4 */
    if (!warm) assert_true(fabs(r.importance[1] - 1 / (1 + exp(25.0))) < 1e-20);
    ist_trainer_close(t);
    ist_model_close(m);
  }
  ist_train_options o = run_options();
  o.targets = "q";
  o.layers_to_transform = "0,1";
  o.selector = "scores:scores.json";
  o.active_ratio = 0.5;
  ist_model *m = open_tiny();
  ist_trainer *t = open_run(m, &o);
  int64_t one = 0;
  for (int i = 0; i < 20; i++) one += take_step(t).active[1];
  assert_int_equal(one, 20);
  ist_trainer_close(t);
  static const struct {
    const char *text, *why;
  } bad[] = {
      {"{\"layers\": [{\"layer\": 0, \"suppressibility\": 1}]}", "found no score of layer 1"},
      {"{\"layers\": [{\"layer\": 9, \"suppressibility\": 1}]}", "found layer 9, the model has 4"},
      {"{\"layers\": [{\"layer\": 0}]}", "layers[0]"},
      {"[", "bad.json"}};
  o.selector = "scores:bad.json";
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    MUST(ist_file_write("bad.json", bad[i].text, strlen(bad[i].text), &err));
    assert_true(ist_trainer_open(&t, m, &o, &err) != IST_OK);
    if (!strstr(err.message, bad[i].why)) fail_msg("\"%s\"", err.message);
  }
  o.selector = "scores:nowhere.json";
  assert_int_equal(ist_trainer_open(&t, m, &o, &err), IST_ERR_IO);
  ist_model_close(m);
}

static void test_resume_scores(void **state) {
  (void)state;
  static const char file[] =
      "{\"layers\": [{\"layer\": 0, \"suppressibility\": 0.3}, {\"layer\": 1, \"suppressibility\": "
      "1},"
      "{\"layer\": 2, \"suppressibility\": -1}, {\"layer\": 3, \"suppressibility\": 0}]}";
  ist_error err = {0};
  MUST(ist_file_write("gone.json", file, sizeof file - 1, &err));
  ist_train_options o = run_options();
  o.selector = "scores:gone.json";
  must_resume_exactly(o, 11, 2, "scores-whole", "scores-parts");
  o.scores = "warm-start";
  must_resume_exactly(o, 11, 2, "warm-whole", "warm-parts");
}

static void test_resume_layer_order(void **state) {
  (void)state;
  ist_train_options o = run_options();
  o.order = "layer";
  o.selector = "random";
  must_resume_exactly(o, 11, 2, "layer-whole", "layer-parts");
}

/* The log has one line a step, and probes and evaluations where they fall due. */
static void test_metrics_lines(void **state) {
  (void)state;
  ist_buf text = read_whole("token-whole/metrics.jsonl");
  int64_t line = 0;
  for (char *p = text.p, *end; (end = strchr(p, '\n')) != NULL; p = end + 1) {
    *end = '\0';
    line++;
    json_t *j = json_loads(p, 0, NULL);
    assert_non_null(j);
    assert_int_equal(json_integer_value(json_object_get(j, "step")), line);
    assert_int_equal(json_array_size(json_object_get(j, "active")), 2);
    assert_int_equal(json_object_get(j, "probe_losses") != NULL, line > 1 && (line - 1) % 4 == 0);
    assert_int_equal(json_object_get(j, "valid_loss") != NULL, line % 5 == 0);
    json_decref(j);
  }
  assert_int_equal(line, 20);
  ist_buf_free(&text);
}

/* ---- Frozen layers ------------------------------------------------------------------- */

typedef struct snapshot {
  unsigned char *params, *m, *v;
  int64_t steps[8];
} snapshot;

static void take_snapshot(snapshot *s, const ist_trainer *t) {
  size_t all = layer_size(t) * (size_t)t->adapters.L;
  if (!s->params) {
    s->params = malloc(all);
    s->m = malloc(all);
    s->v = malloc(all);
  }
  memcpy(s->params, t->adapters.params, all);
  memcpy(s->m, t->m, all);
  memcpy(s->v, t->v, all);
  memcpy(s->steps, t->layer_steps, (size_t)t->adapters.L * sizeof *s->steps);
}

static void free_snapshot(snapshot *s) {
  free(s->params);
  free(s->m);
  free(s->v);
}

static bool same_layer(const ist_trainer *t, unsigned char *before, unsigned char *now, int64_t l) {
  return memcmp(layer_bytes(t, before, l), layer_bytes(t, now, l), layer_size(t)) == 0;
}

static void check_layers(const ist_trainer *t, const snapshot *before, const uint8_t *active) {
  for (int64_t l = 0; l < t->adapters.L; l++) {
    bool frozen = !active[l];
    assert_int_equal(same_layer(t, before->params, t->adapters.params, l), frozen);
    assert_int_equal(same_layer(t, before->m, t->m, l), frozen);
    assert_int_equal(same_layer(t, before->v, t->v, l), frozen);
    assert_int_equal(t->layer_steps[l], before->steps[l] + !frozen);
  }
}

static void test_frozen_layers_stand_still(void **state) {
  (void)state;
  static const char *const selectors[] = {"ist", "random", "fixed:1,3", "all"};
  static const int count[] = {2, 2, 2, 4};
  for (size_t i = 0; i < sizeof selectors / sizeof *selectors; i++) {
    ist_train_options o = run_options();
    o.selector = selectors[i];
    o.warmup_steps = 0;   /* a rate of 0 changes nothing */
    o.weight_decay = 0.1; /* must not touch frozen layers either */
    ist_model *m = open_tiny();
    ist_trainer *t = open_run(m, &o);
    snapshot before = {0};
    for (int k = 0; k < 12; k++) {
      take_snapshot(&before, t);
      ist_step_report r = take_step(t);
      check_layers(t, &before, r.active);
      int active = 0;
      for (int64_t l = 0; l < r.L; l++) active += r.active[l];
      assert_int_equal(active, count[i]);
    }
    free_snapshot(&before);
    ist_trainer_close(t);
    ist_model_close(m);
  }
}

/* What lies outside the layers: every step moves it by AdamW, the part behind `plain` at its own
 * rate (LoRA+), and the frozen layers before it stand still. */
static void test_outer_step(void **state) {
  (void)state;
  ist_train_options o = run_options();
  o.targets = "q,embed_tokens,lm_head";
  o.lr_ratio = 4;
  o.weight_decay = 0.1;
  o.warmup_steps = 0;
  ist_model *m = open_tiny();
  ist_trainer *t = open_run(m, &o);
  int64_t at = t->adapters.L * t->adapters.layout.params, n = t->adapters.outer.params;
  int64_t plain = t->adapters.outer.plain, moved[2] = {0};
  assert_true(plain > 0 && plain < n);
  const float *p = (const float *)(const void *)t->adapters.params + at;
  const float *m1 = (const float *)(const void *)t->m + at;
  const float *m2 = (const float *)(const void *)t->v + at;
  float *before = malloc((size_t)n * sizeof *before);
  snapshot layers = {0};
  for (int k = 1; k <= 6; k++) {
    take_snapshot(&layers, t);
    memcpy(before, p, (size_t)n * sizeof *before);
    ist_step_report r = take_step(t);
    check_layers(t, &layers, r.active);
    assert_int_equal(t->outer_steps, k);
    for (int64_t i = 0; i < n; i++) {
      double lr = i < plain ? r.lr : 4 * r.lr, old = (double)before[i];
      double mean = (double)m1[i] / (1 - pow(o.beta1, k));
      double square = (double)m2[i] / (1 - pow(o.beta2, k));
      double now = old - lr * (mean / (sqrt(square) + o.eps) + o.weight_decay * old);
      if (!(fabs((double)p[i] - now) <= 1e-5 * lr + 1e-6 * fabs(now)))
        fail_msg("step %d, parameter %d: found %.9g, expected %.9g", k, (int)i, (double)p[i], now);
      moved[i >= plain] += fabs(now - old) > lr / 2;
    }
  }
  assert_true(moved[0] > plain / 4 && moved[1] > (n - plain) / 4);
  free(before);
  free_snapshot(&layers);
  ist_trainer_close(t);
  ist_model_close(m);
}

/* ---- Memory ---------------------------------------------------------------------------- */

/* Without an output directory nothing is written, and after two steps no step,
 * probe or evaluation allocates. */
static void test_steps_allocate_nothing(void **state) {
  (void)state;
  static const char *const orders[] = {"token", "layer"};
  for (int i = 0; i < 2; i++) {
    ist_train_options o = run_options();
    o.order = orders[i];
    ist_model *m = open_tiny();
    ist_trainer *t = open_run(m, &o);
    take_step(t);
    take_step(t);
    uint64_t allocations = ist_alloc_count();
    bool probed = false, evaluated = false;
    ist_step_report r = {0};
    while (!r.finished) {
      r = take_step(t);
      probed |= r.probed;
      evaluated |= r.evaluated;
    }
    assert_true(probed && evaluated);
    assert_int_equal(r.step, 20);
    assert_int_equal(ist_alloc_count(), allocations);
    assert_false(ist_file_exists("out"));
    ist_trainer_close(t);
    ist_model_close(m);
  }
}

/* Opening fails cleanly wherever an allocation fails (leaks: the sanitizers). */
static void test_open_without_memory(void **state) {
  (void)state;
  ist_train_options o = run_options();
  o.limit = 24;
  o.valid_examples = 2;
  o.probe_examples = 2;
  ist_model *m = open_tiny();
  uint64_t start = ist_alloc_count();
  ist_trainer_close(open_run(m, &o));
  uint64_t n = ist_alloc_count() - start;
  uint64_t refused = 0;
  for (uint64_t i = 1; i <= n; i++) {
    ist_error err = {0};
    ist_trainer *t = NULL;
    ist_alloc_fail_at(i);
    ist_status status = ist_trainer_open(&t, m, &o, &err);
    ist_alloc_fail_at(0);
    if (status == IST_OK) { /* a record whose memory was there at the second try */
      ist_trainer_close(t);
      continue;
    }
    assert_int_equal(status, IST_ERR_NOMEM);
    assert_null(t);
    assert_true(err.message[0] != '\0');
    refused++;
  }
  assert_true(refused > 50 && refused > n / 2);
  ist_model_close(m);
}

/* ---- Schedules -------------------------------------------------------------------------- */

enum { COMPARED_STEPS = 5 };

typedef struct outcome {
  double loss[COMPARED_STEPS], norm[COMPARED_STEPS], valid;
  unsigned char *params;
  size_t bytes;
  int64_t passes; /* most micro-batches of a step */
  int64_t planned;
} outcome;

/* What a tight memory limit makes of a layer-order plan: moments and boundaries in
 * scratch files, pages of passed layers dropped. */
static void make_thrifty(ist_trainer *t) {
  ist_error err = {0};
  size_t half = layer_size(t) * (size_t)t->adapters.L;
  ist_arena_free(&t->moments);
  MUST(ist_arena_init_on_disk(&t->moments, "optimizer moments", 2 * ist_arena_round(half), ".",
                              &err));
  t->m = ist_arena_alloc(&t->moments, half);
  t->v = ist_arena_alloc(&t->moments, half);
  t->plan.sizes.drop_pages = true;
  t->plan.sizes.spill = ".";
  ist_runner_close(&t->runner);
  MUST(ist_decoder_open(&t->runner.decoder, &t->model->config, &t->model->weights, &t->adapters,
                        &t->model->ctx, &t->plan.sizes, &err));
  MUST(ist_runner_open(&t->runner, &t->plan.limits, t->plan.micro_tokens, &err));
}

typedef struct way {
  const char *order, *recompute;
  bool thrifty;
} way;

static outcome run_schedule(const way *w, int64_t micro_tokens, double depth_budget) {
  ist_error err = {0};
  ist_train_options o = run_options();
  o.order = w->order;
  o.recompute = w->recompute;
  o.micro_tokens = micro_tokens;
  o.depth_budget = depth_budget;
  o.eval_every = -1;
  o.probe_every = 2; /* its scores move the draws */
  ist_model *m = open_tiny();
  ist_trainer *t = open_run(m, &o);
  if (w->thrifty) make_thrifty(t);
  outcome out = {.planned = t->plan.total - t->plan.term[0].bytes}; /* the process itself */
  for (int k = 0; k < COMPARED_STEPS; k++) {
    ist_step_report r = take_step(t);
    out.loss[k] = r.loss;
    out.norm[k] = r.grad_norm;
    if (t->runner.n_micro > out.passes) out.passes = t->runner.n_micro;
  }
  MUST(ist_trainer_validate(t, &out.valid, &err));
  out.bytes = layer_size(t) * (size_t)t->adapters.L;
  out.params = malloc(out.bytes);
  memcpy(out.params, t->adapters.params, out.bytes);
  ist_trainer_close(t);
  ist_model_close(m);
  return out;
}

static void must_be_near(double found, double expected, const char *what) {
  if (!(fabs(found - expected) <= 1e-5 * fabs(expected)))
    fail_msg("%s: found %.9g, expected %.9g", what, found, expected);
}

/* What is recomputed, in which order, and where things lie changes nothing at all;
 * the cut into micro-batches only rounding. Returns what the first way is to hold. */
static int64_t check_schedules(double depth_budget, size_t n_cuts) {
  static const way ways[] = {
      {"token", "none", false}, {"token", "mlp", false}, {"token", "layer", false},
      {"layer", "auto", false}, {"layer", "auto", true},
  };
  static const int64_t cuts[] = {320, 64, 96};
  outcome first = {0};
  for (size_t c = 0; c < n_cuts; c++) {
    outcome plain = {0};
    for (size_t w = 0; w < sizeof ways / sizeof *ways; w++) {
      outcome out = run_schedule(&ways[w], cuts[c], depth_budget);
      assert_int_equal(out.passes > 1, c > 0);
      if (w == 0) plain = out;
      if (w == 0 && c == 0) first = out;
      for (int k = 0; k < COMPARED_STEPS; k++) {
        must_be_near(out.loss[k], first.loss[k], "loss");
        must_be_near(out.norm[k], first.norm[k], "gradient norm");
      }
      must_be_near(out.valid, first.valid, "validation loss");
      if (w == 0) continue;
      assert_memory_equal(out.loss, plain.loss, sizeof plain.loss);
      assert_memory_equal(out.params, plain.params, plain.bytes);
      free(out.params);
    }
    if (c > 0) free(plain.params);
  }
  free(first.params);
  return first.planned;
}

/* With a depth budget a step in four goes below the floor, where nothing but layer inputs
 * has room: less is held. */
static void test_schedules_agree(void **state) {
  (void)state;
  int64_t whole = check_schedules(0, 3);
  assert_true(check_schedules(0.5, 2) < whole);
}

/* The gradient is the mean over the supervised tokens of the optimizer batch:
 * dropout or not, the loss a step reports is the validation loss of its samples
 * before the step. */
static void test_loss_is_mean_over_targets(void **state) {
  (void)state;
  ist_train_options o = run_options();
  o.dropout = 0;
  o.loss_on = "completion";
  ist_model *m = open_tiny();
  ist_trainer *t = open_run(m, &o);
  for (int k = 0; k < 3; k++) {
    int64_t n, copy[8];
    memcpy(copy, ist_trainer_batch(t, t->progress.batch, &n), 6 * sizeof *copy);
    assert_int_equal(n, 6);
    double each[8], sum = 0, mean = ist_runner_eval(&t->runner, &t->data, copy, n, NULL, each);
    int64_t targets = 0;
    for (int64_t i = 0; i < n; i++) {
      sum += each[i] * t->data.p[copy[i]].n_target;
      targets += t->data.p[copy[i]].n_target;
    }
    ist_step_report r = take_step(t);
    assert_int_equal(r.targets, targets);
    must_be_near(r.loss, mean, "loss");
    must_be_near(r.loss, sum / (double)targets, "loss over targets");
  }
  ist_trainer_close(t);
  ist_model_close(m);
}

/* Probes go through their set: every sample once a pass, in another order the next time, and the
 * same again whenever it is asked for. */
static void test_probe_batches(void **state) {
  (void)state;
  ist_train_options o = run_options();
  o.probe_examples = 10;
  o.probe_batch = 4;
  ist_model *m = open_tiny();
  ist_trainer *t = open_run(m, &o);
  int64_t order[2][10], n;
  assert_int_equal(t->split.n_probe, 10);
  for (int pass = 0; pass < 2; pass++) {
    int64_t got = 0;
    for (int i = 0; i < 3; i++) {
      const int64_t *batch = ist_trainer_probe_batch(t, 3 * pass + i, &n);
      assert_int_equal(n, i < 2 ? 4 : 2);
      memcpy(order[pass] + got, batch, (size_t)n * sizeof *batch);
      got += n;
    }
    for (int64_t i = 0; i < 10; i++) {
      int count = 0;
      for (int64_t k = 0; k < 10; k++) count += order[pass][k] == t->split.probe[i];
      assert_int_equal(count, 1);
    }
  }
  assert_memory_not_equal(order[0], order[1], sizeof order[0]);
  const int64_t *again = ist_trainer_probe_batch(t, 1, &n);
  assert_memory_equal(again, order[0] + 4, 4 * sizeof *again);
  ist_trainer_close(t);
  ist_model_close(m);
}

/* ---- The end, and what is not finite ------------------------------------------------------- */

static void test_after_the_end(void **state) {
  (void)state;
  ist_train_options o = run_options();
  o.steps = 2;
  ist_model *m = open_tiny();
  ist_trainer *t = open_run(m, &o);
  assert_false(take_step(t).finished);
  assert_true(take_step(t).finished);
  ist_error err = {0};
  ist_step_report r;
  assert_int_equal(ist_trainer_step(t, &r, &err), IST_ERR_ARG);
  assert_non_null(strstr(err.message, "finished"));
  assert_int_equal(ist_trainer_save(t, &err), IST_ERR_ARG); /* there is no place */
  ist_trainer_close(t);
  ist_model_close(m);
}

static char last_warning[512];
static void keep_warning(void *user, ist_log_level level, const char *message) {
  (void)user;
  if (level == IST_LOG_WARN) snprintf(last_warning, sizeof last_warning, "%s", message);
}

/* The warning names the step, and the lines of the data that its samples are from. */
static void expect_lines(ist_trainer *t, int64_t batch) {
  char lines[200] = "(data lines ";
  int64_t n;
  const int64_t *sample = ist_trainer_batch(t, batch, &n);
  for (int64_t i = 0; i < n; i++) {
    size_t len = strlen(lines);
    snprintf(lines + len, sizeof lines - len, "%lld%s", (long long)t->data.p[sample[i]].line,
             i + 1 < n ? ", " : ")");
  }
  if (!strstr(last_warning, lines) || !strstr(last_warning, "step 5 skipped"))
    fail_msg("found \"%s\", expected \"%s\" in it", last_warning, lines);
}

/* A parameter becomes NaN: steps are skipped, change nothing and count for
 * nothing; healed in time the run goes on, else the eighth in a row is an error. */
static void test_not_finite(void **state) {
  (void)state;
  ist_train_options o = run_options();
  ist_model *m = open_tiny();
  ist_trainer *t = open_run(m, &o);
  for (int k = 0; k < 4; k++) take_step(t); /* the next one probes */
  float *weak = (float *)(void *)t->adapters.params, value = *weak;
  snapshot before = {0};
  *weak = NAN;
  take_snapshot(&before, t);
  int64_t observed[4], batch = t->progress.batch;
  memcpy(observed, t->scores.observed, sizeof observed);
  ist_log_set(keep_warning, NULL);
  for (int k = 0; k < 5; k++) {
    ist_step_report r = take_step(t);
    assert_true(r.skipped);
    expect_lines(t, batch + k);
    assert_int_equal(r.step, 4);
    assert_int_equal(r.probed, k == 0);
    assert_false(r.evaluated);
    assert_int_equal(t->progress.skipped_in_row, k + 1);
  }
  assert_int_equal(t->progress.batch, batch + 5); /* other samples each time */
  assert_memory_equal(t->scores.observed, observed, sizeof observed);
  const uint8_t none[4] = {0};
  check_layers(t, &before, none);
  ist_log_set(NULL, NULL);
  *weak = value;
  ist_step_report r = take_step(t);
  assert_false(r.skipped);
  assert_int_equal(r.step, 5);
  assert_int_equal(t->progress.skipped_in_row, 0);
  *weak = NAN;
  for (int k = 0; k < 7; k++) assert_true(take_step(t).skipped);
  ist_error err = {0};
  assert_int_equal(ist_trainer_step(t, &r, &err), IST_ERR_NONFINITE);
  assert_non_null(strstr(err.message, "8 times"));
  assert_non_null(strstr(err.message, "step 6:"));
  free_snapshot(&before);
  ist_trainer_close(t);
  ist_model_close(m);
}

/* Without progress on the validation set the run stops; the best step is kept. */
static void test_patience(void **state) {
  (void)state;
  ist_train_options o = run_options();
  o.eval_every = 1;
  o.patience = 2;
  o.steps = 200;
  o.lr = 5; /* far too high on purpose */
  o.warmup_steps = 0;
  ist_model *m = open_tiny();
  ist_trainer *t = open_run(m, &o);
  ist_step_report r = {0};
  double best = INFINITY;
  int64_t best_step = 0;
  while (!r.finished) {
    r = take_step(t);
    if (r.evaluated && r.valid_loss < best) {
      best = r.valid_loss;
      best_step = r.step;
    }
    assert_true(r.step <= 200);
  }
  assert_true(r.step < 200);
  assert_int_equal(t->progress.best_step, best_step);
  assert_int_equal(r.step, best_step + 2);
  ist_trainer_close(t);
  ist_model_close(m);
}

/* ---- Whose model it is ----------------------------------------------------------------------- */

static void test_model_is_busy(void **state) {
  (void)state;
  ist_train_options o = run_options();
  ist_model *m = open_tiny();
  ist_trainer *t = open_run(m, &o), *second;
  ist_error err = {0};
  assert_int_equal(ist_trainer_open(&second, m, &o, &err), IST_ERR_ARG);
  assert_non_null(strstr(err.message, "in use"));
  take_step(t); /* the first is none the worse for it */
  ist_trainer_close(t);
  t = open_run(m, &o);
  ist_trainer_close(t);
  ist_model_close(m);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_resume_token_order),
      cmocka_unit_test(test_metrics_lines),
      cmocka_unit_test(test_resume_layer_order),
      cmocka_unit_test(test_some_layers),
      cmocka_unit_test(test_resume_some_layers),
      cmocka_unit_test(test_resume_outer),
      cmocka_unit_test(test_scores),
      cmocka_unit_test(test_resume_scores),
      cmocka_unit_test(test_frozen_layers_stand_still),
      cmocka_unit_test(test_outer_step),
      cmocka_unit_test(test_steps_allocate_nothing),
      cmocka_unit_test(test_open_without_memory),
      cmocka_unit_test(test_schedules_agree),
      cmocka_unit_test(test_loss_is_mean_over_targets),
      cmocka_unit_test(test_probe_batches),
      cmocka_unit_test(test_after_the_end),
      cmocka_unit_test(test_not_finite),
      cmocka_unit_test(test_patience),
      cmocka_unit_test(test_model_is_busy),
  };
  return cmocka_run_group_tests(tests, enter_with_data, leave_folder);
}
