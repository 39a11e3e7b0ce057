/* Spikes of loss and gradient norm: the window's figures against an obvious computation; a
 * spike in a run is marked, or changes nothing, and resuming is exact all the same. */
#include "run.h"

/* z over the last `n` of `seen`, which hold what the window was given. */
static double plain_z(const double *seen, int64_t n, double x) {
  int64_t first = n > IST_SPIKE_WINDOW ? n - IST_SPIKE_WINDOW : 0;
  double sum = 0, squares = 0, count = (double)(n - first);
  if (n < IST_SPIKE_LEAST) return 0;
  for (int64_t i = first; i < n; i++) sum += seen[i];
  for (int64_t i = first; i < n; i++) squares += pow(seen[i] - sum / count, 2);
  return (x - sum / count) / sqrt(squares / (count - 1));
}

static void test_window(void **state) {
  (void)state;
  ist_spikes s = {0};
  double loss[300], norm[300];
  for (int64_t i = 0; i < 300; i++) {
    double x = 3 + sin(0.7 * (double)i) + 0.01 * (double)(i % 7), y = 1 / (1.0 + (double)(i % 11));
    double z = ist_spikes_z(&s, IST_SPIKE_LOSS, x), w = ist_spikes_z(&s, IST_SPIKE_GRAD_NORM, y);
    assert_true(fabs(z - plain_z(loss, i, x)) <= 1e-9 * (1 + fabs(z)));
    assert_true(fabs(w - plain_z(norm, i, y)) <= 1e-9 * (1 + fabs(w)));
    ist_spikes_add(&s, x, y, 0);
    loss[i] = x;
    norm[i] = y;
  }
}

/* One spike does not hide the next; another level is the usual one after a while. */
static void test_limit(void **state) {
  (void)state;
  ist_spikes s = {0};
  for (int i = 0; i < 100; i++) ist_spikes_add(&s, 2 + 0.1 * (i % 3), 1 + 0.1 * (i % 2), 6);
  assert_true(ist_spikes_z(&s, IST_SPIKE_LOSS, 50) > 100);
  ist_spikes_add(&s, 50, 1, 6);
  assert_true(ist_spikes_z(&s, IST_SPIKE_LOSS, 50) > 50);
  int steps = 0;
  for (; ist_spikes_z(&s, IST_SPIKE_LOSS, 5) > 6; steps++) ist_spikes_add(&s, 5, 1, 6);
  assert_true(steps > 1 && steps < 30);
}

/* All alike: no spike for the last digit, one for a real difference. */
static void test_constant(void **state) {
  (void)state;
  ist_spikes s = {0};
  for (int i = 0; i < 40; i++) ist_spikes_add(&s, 0.5, 0, 6);
  assert_true(fabs(ist_spikes_z(&s, IST_SPIKE_LOSS, 0.5 + 1e-9)) < 1);
  assert_true(ist_spikes_z(&s, IST_SPIKE_LOSS, 0.6) > 1000);
  assert_true(fabs(ist_spikes_z(&s, IST_SPIKE_GRAD_NORM, 0)) < 1);
}

/* ---- In a run ------------------------------------------------------------------------------- */

static ist_train_options long_run(void) {
  ist_train_options o = run_options();
  o.steps = 40;
  o.eval_every = -1;
  o.lr = 5e-3;
  return o;
}

/* One step with the parameters thirty times as large, which then go back. */
static ist_step_report disturbed_step(ist_trainer *t, unsigned char *after) {
  size_t all = layer_size(t) * (size_t)t->adapters.L;
  float *p = (float *)(void *)t->adapters.params;
  unsigned char *before = malloc(all);
  memcpy(before, p, all);
  for (size_t i = 0; i < all / sizeof *p; i++) p[i] *= 30;
  unsigned char *large = malloc(all);
  memcpy(large, p, all);
  ist_decoder_adapters_changed(&t->runner.decoder, -1);
  ist_step_report r = take_step(t);
  *after = memcmp(large, p, all) != 0;
  memcpy(p, before, all);
  ist_decoder_adapters_changed(&t->runner.decoder, -1);
  free(before);
  free(large);
  return r;
}

static json_t *last_line(const char *path) {
  ist_buf text = read_whole(path);
  text.p[text.len - 1] = 0;
  const char *line = strrchr(text.p, '\n');
  json_t *j = json_loads(line ? line + 1 : text.p, 0, NULL);
  ist_buf_free(&text);
  assert_non_null(j);
  return j;
}

static void test_spike_in_a_run(void **state) {
  (void)state;
  for (int skip = 0; skip < 2; skip++) {
    ist_train_options o = long_run();
    o.output = skip ? "skipping" : "marking";
    o.skip_spikes = skip;
    ist_model *m = open_tiny();
    ist_trainer *t = open_run(m, &o);
    for (int k = 0; k < 25; k++) {
      ist_step_report r = take_step(t);
      assert_false(r.spike || r.skipped);
    }
    unsigned char changed;
    ist_step_report r = disturbed_step(t, &changed);
    if (!r.spike)
      fail_msg("loss %g (z %g), norm %g (z %g)", r.loss, r.loss_z, r.grad_norm, r.grad_norm_z);
    assert_true(r.spike && fmax(r.loss_z, r.grad_norm_z) > 6);
    assert_int_equal(r.skipped, skip);
    assert_int_equal(changed, !skip);
    assert_int_equal(t->progress.step, 25 + !skip);
    assert_int_equal(t->progress.skipped, skip);
    json_t *line = last_line(skip ? "skipping/metrics.jsonl" : "marking/metrics.jsonl");
    assert_true(json_is_true(json_object_get(line, "spike")));
    assert_int_equal(json_array_size(json_object_get(line, "lines")), 6);
    assert_true(json_real_value(json_object_get(line, "loss_z")) == r.loss_z);
    json_decref(line);
    assert_false(take_step(t).skipped);
    ist_trainer_close(t);
    ist_model_close(m);
  }
}

/* Spikes without end are an error with advice. */
static void test_many_spikes(void **state) {
  (void)state;
  ist_train_options o = long_run();
  o.skip_spikes = true;
  ist_model *m = open_tiny();
  ist_trainer *t = open_run(m, &o);
  /* Before these steps everything was far smaller. */
  t->spikes.n = IST_SPIKE_WINDOW;
  for (int i = 0; i < IST_SPIKE_WINDOW; i++)
    t->spikes.value[IST_SPIKE_LOSS][i] = t->spikes.value[IST_SPIKE_GRAD_NORM][i] = 1e-3;
  ist_error err = {0};
  ist_status s = IST_OK;
  int k = 0;
  for (; s == IST_OK && k < 9; k++) {
    ist_step_report r;
    s = ist_trainer_step(t, &r, &err);
  }
  assert_int_equal(s, IST_ERR_NONFINITE);
  assert_int_equal(k, 8);
  assert_non_null(strstr(err.message, "spikes"));
  assert_non_null(strstr(err.hint, "--spike-z"));
  ist_trainer_close(t);
  ist_model_close(m);
}

static void run_to(const ist_train_options *o, int64_t steps, int *spikes) {
  ist_model *m = open_tiny();
  ist_trainer *t = open_run(m, o);
  for (ist_step_report r = {0}; r.step < steps;) {
    r = take_step(t);
    *spikes += r.skipped;
  }
  ist_trainer_close(t);
  ist_model_close(m);
}

/* With a threshold so low that ordinary steps are skipped. */
static void test_resume(void **state) {
  (void)state;
  int whole = 0, parts = 0, again = 0;
  ist_train_options o = long_run();
  o.spike_z = 1.2;
  o.skip_spikes = true;
  o.output = "whole";
  run_to(&o, 40, &whole);
  o.output = "parts";
  o.save_every = 29;
  run_to(&o, 31, &parts);
  o.save_every = 0;
  o.resume = true;
  run_to(&o, 40, &again);
  assert_true(whole > 1 && again > 0);
  must_be_same_file("whole/metrics.jsonl", "parts/metrics.jsonl");
  must_be_same_file("whole/checkpoints/step-00000040/state.safetensors",
                    "parts/checkpoints/step-00000040/state.safetensors");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_window),      cmocka_unit_test(test_limit),
      cmocka_unit_test(test_constant),    cmocka_unit_test(test_spike_in_a_run),
      cmocka_unit_test(test_many_spikes), cmocka_unit_test(test_resume),
  };
  return cmocka_run_group_tests(tests, enter_with_data, leave_folder);
}
