/* Runs that are resumed and then finished. Those that begin with an adapter which the model
 * carries are the run that nobody stopped, byte for byte, and need that adapter no more. */
#include "train/run.h"

enum { STEPS = 5, SAVED = 3 };

static ist_train_options carried_options(const char *output) {
  ist_train_options o = run_options();
  o.output = output;
  o.steps = STEPS;
  o.probe_every = 2;
  return o;
}

static void finish_run(ist_trainer *t) {
  ist_error err = {0};
  while (!take_step(t).finished) continue;
  MUST(ist_trainer_finish(t, &err));
  ist_trainer_close(t);
}

/* An adapter to begin with. */
static void make_adapter(const char *output, const char *method) {
  ist_train_options o = carried_options(output);
  o.method = method;
  o.steps = 1;
  ist_model *m = open_tiny();
  finish_run(open_run(m, &o));
  ist_model_close(m);
}

/* A head of the adapter's own. */
static void put_head(ist_model *m) {
  size_t n = (size_t)(m->config.V * m->config.D);
  float *whole[IST_OUTER_COUNT] = {0};
  whole[IST_OUTER_HEAD] = ist_calloc(n, sizeof(float));
  assert_non_null(whole[IST_OUTER_HEAD]);
  for (size_t i = 0; i < n; i++) whole[IST_OUTER_HEAD][i] = (float)((i * 37) % 101) * 1e-3f - 0.05f;
  ist_model_set_whole(m, whole);
}

static ist_model *carrying(const char *adapter, bool head) {
  ist_error err = {0};
  ist_model *m = open_tiny();
  MUST(ist_model_set_adapter(m, adapter, &err));
  if (head) put_head(m);
  return m;
}

/* In one go, and cut by a resume; *again: the options of the resume, freed by the caller. */
static void run_twice(const char *adapter, bool head, const char *whole, const char *parts,
                      ist_train_options *again) {
  ist_error err = {0};
  ist_train_options o = carried_options(whole);
  ist_model *m = carrying(adapter, head);
  finish_run(open_run(m, &o));
  o.output = parts;
  ist_trainer *t = open_run(m, &o);
  for (int i = 0; i < SAVED; i++) take_step(t);
  MUST(ist_trainer_save(t, &err));
  take_step(t);
  MUST(ist_options_copy(again, &t->options, &err)); /* with what the adapter said of itself */
  ist_trainer_close(t);
  ist_model_close(m);
  again->resume = true;
  m = open_tiny();
  finish_run(open_run(m, again));
  ist_model_close(m);
  const char *const files[] = {"metrics.jsonl", "adapter_model.safetensors", "adapter_config.json"};
  for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
    char a[96], b[96];
    snprintf(a, sizeof a, "%s/%s", whole, files[i]);
    snprintf(b, sizeof b, "%s/%s", parts, files[i]);
    must_be_same_file(a, b);
  }
}

static void test_methods(void **state) {
  (void)state;
  static const char *const methods[] = {"lora", "series", "prefix"};
  for (size_t i = 0; i < sizeof methods / sizeof *methods; i++) {
    char whole[32], parts[32];
    ist_train_options again;
    snprintf(whole, sizeof whole, "%s-whole", methods[i]);
    snprintf(parts, sizeof parts, "%s-parts", methods[i]);
    make_adapter(methods[i], methods[i]);
    run_twice(methods[i], false, whole, parts, &again);
    ist_options_free(&again);
  }
}

static void must_refuse(const ist_train_options *o, ist_status code, const char *named) {
  ist_error err = {0};
  ist_model *m = open_tiny();
  ist_trainer *t;
  assert_int_equal(ist_trainer_open(&t, m, o, &err), code);
  if (!strstr(err.message, named)) fail_msg("found \"%s\"", err.message);
  ist_model_close(m);
}

/* A head that the adapter brings whole is part of the run. */
static void test_saved_modules(void **state) {
  (void)state;
  ist_error err = {0};
  ist_train_options again;
  make_adapter("bare", "lora");
  run_twice("bare", true, "head-whole", "head-parts", &again);
  ist_buf b = read_whole("head-parts/modules_to_save.safetensors");
  b.p[b.len - 100] ^= 1;
  MUST(ist_file_write("head-parts/modules_to_save.safetensors", b.p, b.len, &err));
  ist_buf_free(&b);
  must_refuse(&again, IST_ERR_FORMAT, "tensor \"head\" has checksum");
  assert_int_equal(unlink("head-parts/modules_to_save.safetensors"), 0);
  must_refuse(&again, IST_ERR_IO, "modules_to_save.safetensors");
  again.resume = false;
  again.overwrite = true;
  MUST(ist_file_write("head-parts/modules_to_save.safetensors", "x", 1, &err));
  ist_model *m = carrying("bare", false);
  ist_trainer_close(open_run(m, &again)); /* a run without: nothing is left of the one before */
  assert_false(ist_file_exists("head-parts/modules_to_save.safetensors"));
  ist_model_close(m);
  ist_options_free(&again);
  /* Nor an adapter.gguf beside an adapter that llama.cpp cannot hold. */
  assert_true(ist_file_exists("bare/adapter.gguf"));
  ist_train_options o = carried_options("bare");
  o.overwrite = true;
  o.steps = 1;
  m = carrying("bare", true);
  finish_run(open_run(m, &o));
  assert_false(ist_file_exists("bare/adapter.gguf"));
  ist_model_close(m);
}

/* A run that patience ended and that was killed before its adapter was written: the resume has
 * only that to do. */
static void test_ended_by_patience(void **state) {
  (void)state;
  ist_error err = {0};
  ist_train_options o = carried_options("patient");
  o.patience = 2;
  o.steps = 60;
  o.eval_every = o.save_every = 1;
  o.probe_every = 50;
  o.lr = 5; /* ruins things soon */
  ist_model *m = open_tiny();
  ist_trainer *t = open_run(m, &o);
  ist_train_info info;
  for (ist_step_report r = {0}; !r.finished;) {
    ist_trainer_get_info(t, &info);
    assert_false(info.finished);
    r = take_step(t);
  }
  int64_t steps = t->progress.step;
  assert_true(steps < o.steps);
  ist_trainer_close(t);
  o.resume = true;
  t = open_run(m, &o);
  ist_trainer_get_info(t, &info);
  assert_true(info.finished && info.done_steps == steps);
  MUST(ist_trainer_finish(t, &err));
  assert_true(ist_file_exists("patient/adapter_model.safetensors"));
  ist_trainer_close(t);
  o.patience = 0; /* may change: the run goes on */
  t = open_run(m, &o);
  ist_trainer_get_info(t, &info);
  assert_false(info.finished);
  take_step(t);
  ist_trainer_close(t);
  ist_model_close(m);
}

/* The best parameters are in place of the last ones, which the moments belong to. */
static void test_nothing_after_finish(void **state) {
  (void)state;
  ist_error err = {0};
  ist_step_report r;
  ist_train_options o = carried_options("early");
  ist_model *m = open_tiny();
  ist_trainer *t = open_run(m, &o);
  take_step(t);
  MUST(ist_trainer_finish(t, &err));
  assert_int_equal(ist_trainer_save(t, &err), IST_ERR_ARG);
  assert_int_equal(ist_trainer_step(t, &r, &err), IST_ERR_ARG);
  ist_trainer_close(t);
  ist_model_close(m);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_methods),
      cmocka_unit_test(test_saved_modules),
      cmocka_unit_test(test_ended_by_patience),
      cmocka_unit_test(test_nothing_after_finish),
  };
  return cmocka_run_group_tests(tests, enter_with_data, leave_folder);
}
