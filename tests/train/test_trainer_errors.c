/* Runs that are refused: each with an error that names what is wrong, and with
 * nothing written. */
#include "run.h"

static void must_refuse(ist_model *m, const ist_train_options *o, ist_status code,
                        const char *named) {
  ist_error err = {0};
  ist_trainer *t = (ist_trainer *)(uintptr_t)1;
  ist_status status = ist_trainer_open(&t, m, o, &err);
  if (status != code)
    fail_msg("%s: found \"%s\" (%s)", named, ist_status_name(status), err.message);
  assert_null(t);
  assert_int_equal(err.code, code);
  if (!strstr(err.message, named))
    fail_msg("found \"%s\", expected it to name %s", err.message, named);
  assert_false(m->busy); /* the model is free for a better try */
}

static void run_steps(ist_model *m, const ist_train_options *o, int steps) {
  ist_error err = {0};
  ist_trainer *t = open_run(m, o);
  for (int k = 0; k < steps; k++) take_step(t);
  MUST(ist_trainer_save(t, &err));
  ist_trainer_close(t);
}

/* ---- Options ---------------------------------------------------------------------- */

static void test_options(void **state) {
  (void)state;
  ist_model *m = open_tiny();
  ist_train_options o;
#define REFUSE(field, value, code, named) \
  do {                                    \
    o = run_options();                    \
    o.output = "refused";                 \
    o.field = value;                      \
    must_refuse(m, &o, code, named);      \
  } while (0)
  REFUSE(train_path, NULL, IST_ERR_ARG, "train_path");
  REFUSE(train_path, "nowhere.jsonl", IST_ERR_IO, "nowhere.jsonl");
  REFUSE(valid_path, "nowhere.jsonl", IST_ERR_IO, "nowhere.jsonl");
  REFUSE(template_name, "fancy", IST_ERR_ARG, "fancy");
  REFUSE(loss_on, "nothing", IST_ERR_ARG, "loss_on");
  REFUSE(method, "magic", IST_ERR_ARG, "magic");
  REFUSE(targets, "q,z", IST_ERR_ARG, "z");
  REFUSE(rank, 0, IST_ERR_ARG, "rank");
  REFUSE(alpha, -1, IST_ERR_ARG, "alpha");
  REFUSE(dropout, 1, IST_ERR_ARG, "dropout");
  REFUSE(dropout, (double)NAN, IST_ERR_ARG, "dropout");
  REFUSE(selector, "lucky", IST_ERR_ARG, "lucky");
  REFUSE(selector, "fixed:9", IST_ERR_ARG, "9");
  REFUSE(selector, "fixed:", IST_ERR_ARG, "fixed:");
  REFUSE(active_ratio, 1.5, IST_ERR_ARG, "active_ratio");
  REFUSE(lr, 0, IST_ERR_ARG, "lr");
  REFUSE(lr_schedule, "wild", IST_ERR_ARG, "lr_schedule");
  REFUSE(batch, 0, IST_ERR_ARG, "batch");
  REFUSE(steps, -1, IST_ERR_ARG, "steps");
  REFUSE(recompute, "some", IST_ERR_ARG, "recompute");
  REFUSE(order, "random", IST_ERR_ARG, "order");
  REFUSE(valid_examples, 60, IST_ERR_ARG, "60");
  REFUSE(max_memory, 1000, IST_ERR_NOMEM, "memory");
#undef REFUSE
  assert_false(ist_file_exists("refused"));
  ist_model_close(m);
}

/* ---- Output directory and resume ------------------------------------------------------ */

static void test_other_run_in_the_way(void **state) {
  (void)state;
  ist_model *m = open_tiny();
  ist_train_options o = run_options();
  o.output = "first";
  run_steps(m, &o, 2);
  ist_buf before = read_whole("first/metrics.jsonl");
  must_refuse(m, &o, IST_ERR_ARG, "first");
  ist_buf after = read_whole("first/metrics.jsonl");
  assert_int_equal(after.len, before.len);
  ist_buf_free(&after);
  o.overwrite = true;
  run_steps(m, &o, 1);
  after = read_whole("first/metrics.jsonl");
  assert_true(after.len < before.len);
  ist_buf_free(&after);
  ist_buf_free(&before);
  ist_model_close(m);
}

/* Whatever runs leave or adapters consist of is somebody's; files beside it are no matter. */
static void test_others_files_in_the_way(void **state) {
  (void)state;
  static const char *const traces[] = {"settings.json", "adapter_config.json", "adapter.gguf",
                                       "checkpoints/theirs.pt", "best/step-5-final.pt"};
  ist_model *m = open_tiny();
  ist_train_options o = run_options();
  ist_error err = {0};
  for (size_t i = 0; i < sizeof traces / sizeof *traces; i++) {
    char dir[32], path[128], *end;
    snprintf(dir, sizeof dir, "theirs-%zu", i);
    snprintf(path, sizeof path, "%s/%s", dir, traces[i]);
    end = strrchr(path, '/');
    *end = 0;
    MUST(ist_mkdirs(path, &err));
    *end = '/';
    MUST(ist_file_write(path, "{}", 2, &err));
    o.output = dir;
    o.overwrite = false;
    must_refuse(m, &o, IST_ERR_ARG, "found another run or adapter");
    o.overwrite = true;
    o.eval_every = 1;
    run_steps(m, &o, 2);
    if (i != 0) assert_true(ist_file_exists(path)); /* settings.json is the run's own now */
  }
  MUST(ist_mkdirs("notes", &err));
  MUST(ist_file_write("notes/readme.txt", "hi", 2, &err));
  o.output = "notes";
  o.overwrite = false;
  run_steps(m, &o, 1);
  assert_true(ist_file_exists("notes/readme.txt"));
  ist_model_close(m);
}

/* Whichever write fails at the start, the same command begins the run afterwards. */
static void test_start_that_failed(void **state) {
  (void)state;
  ist_model *m = open_tiny();
  ist_train_options o = run_options();
  o.output = "late";
  bool failed = true;
  for (uint64_t n = 1; failed && n < 20; n++) {
    ist_error err = {0};
    ist_trainer *t = NULL;
    ist_write_fail_at(n);
    failed = ist_trainer_open(&t, m, &o, &err) != IST_OK;
    ist_write_fail_at(0);
    if (failed) assert_int_equal(err.code, IST_ERR_IO);
    ist_trainer_close(t);
  }
  assert_false(failed);
  /* And one that was killed before its first checkpoint is not to be resumed. */
  ist_error err = {0};
  ist_trainer *t;
  assert_int_equal(ist_trainer_open(&t, m, &o, &err), IST_ERR_ARG);
  assert_null(strstr(err.hint, "--resume"));
  ist_model_close(m);
}

static void begin_another_run(void *user, ist_log_level level, const char *message) {
  (void)level, (void)message;
  ist_error err = {0};
  MUST(ist_mkdirs(user, &err));
  MUST(ist_file_write("raced/metrics.jsonl", "{}\n", 3, &err));
}

/* A run that came and went while ours read its data; the log stands for the moment. */
static void test_other_run_gets_there_first(void **state) {
  (void)state;
  ist_model *m = open_tiny();
  ist_train_options o = run_options();
  o.output = "raced";
  o.targets = "q,embed"; /* of which the log says something */
  ist_log_set(begin_another_run, (void *)(uintptr_t)o.output);
  must_refuse(m, &o, IST_ERR_ARG, "found another run");
  ist_log_set(NULL, NULL);
  ist_buf found = read_whole("raced/metrics.jsonl");
  assert_string_equal(found.p, "{}\n");
  ist_buf_free(&found);
  ist_model_close(m);
}

/* What a checkpoint counts is durable before it is. */
static void test_metrics_before_checkpoint(void **state) {
  (void)state;
  ist_model *m = open_tiny();
  ist_train_options o = run_options();
  o.output = "synced";
  ist_trainer *t = open_run(m, &o);
  take_step(t);
  ist_error err = {0};
  ist_write_fail_at(1);
  assert_int_equal(ist_trainer_save(t, &err), IST_ERR_IO);
  assert_non_null(strstr(err.message, "cannot sync 'synced/metrics.jsonl'"));
  assert_false(ist_file_exists("synced/checkpoints"));
  MUST(ist_trainer_save(t, &err));
  ist_trainer_close(t);
  ist_model_close(m);
}

static void test_resume_of_nothing(void **state) {
  (void)state;
  ist_model *m = open_tiny();
  ist_train_options o = run_options();
  o.resume = true;
  must_refuse(m, &o, IST_ERR_ARG, "resume");
  o.output = "nowhere";
  ist_error err = {0};
  ist_trainer *t;
  assert_int_not_equal(ist_trainer_open(&t, m, &o, &err), IST_OK);
  assert_non_null(strstr(err.message, "nowhere"));
  assert_false(ist_file_exists("nowhere"));
  ist_model_close(m);
}

/* Whatever must stay is named with both values. */
static void test_resume_with_other_options(void **state) {
  (void)state;
  ist_model *m = open_tiny();
  ist_train_options first = run_options(), o;
  first.output = "changed";
  run_steps(m, &first, 3);
  ist_buf before = read_whole("changed/metrics.jsonl");
  first.resume = true;
#define REFUSE(field, value)                      \
  do {                                            \
    o = first;                                    \
    o.field = value;                              \
    must_refuse(m, &o, IST_ERR_MISMATCH, #field); \
  } while (0)
  REFUSE(rank, 8);
  REFUSE(alpha, 9);
  REFUSE(dropout, 0.2);
  REFUSE(targets, "q,v");
  REFUSE(batch, 5);
  REFUSE(seed, 7);
  REFUSE(selector, "all");
  REFUSE(active_ratio, 0.25);
#undef REFUSE
  ist_buf after = read_whole("changed/metrics.jsonl");
  assert_int_equal(after.len, before.len);
  ist_buf_free(&after);
  ist_buf_free(&before);
  o = first; /* what may change, may */
  o.lr = 1e-3;
  o.steps = 30;
  run_steps(m, &o, 1);
  ist_model_close(m);
}

static void copy_file(const char *from, const char *to, size_t flip_at_end) {
  ist_error err = {0};
  ist_buf b = read_whole(from);
  if (flip_at_end) b.p[b.len - flip_at_end] ^= 1;
  MUST(ist_file_write(to, b.p, b.len, &err));
  ist_buf_free(&b);
}

static void test_resume_with_another_model(void **state) {
  (void)state;
  ist_model *m = open_tiny();
  ist_train_options o = run_options();
  o.output = "other-model";
  run_steps(m, &o, 2);
  ist_model_close(m);
  o.resume = true;
  copy_file(TINY_MODEL, "other.gguf", 100); /* one bit of one weight */
  m = open_model_file("other.gguf");
  must_refuse(m, &o, IST_ERR_MISMATCH, "other.gguf: found model_hash");
  ist_model_close(m);
  copy_file(TINY_MODEL, "same.gguf", 0); /* the place does not matter */
  m = open_model_file("same.gguf");
  run_steps(m, &o, 1);
  ist_model_close(m);
}

static void test_resume_with_other_data(void **state) {
  (void)state;
  ist_model *m = open_tiny();
  write_data("own.jsonl", 60, 1);
  ist_train_options o = run_options();
  o.train_path = "own.jsonl";
  o.output = "other-data";
  run_steps(m, &o, 2);
  o.resume = true;
  write_data("own.jsonl", 60, 2);
  must_refuse(m, &o, IST_ERR_MISMATCH, "own.jsonl: found data_hash");
  write_data("own.jsonl", 59, 1);
  must_refuse(m, &o, IST_ERR_MISMATCH, "own.jsonl: found data_hash");
  write_data("own.jsonl", 60, 1);
  run_steps(m, &o, 1);
  ist_model_close(m);
}

/* The newest checkpoint is torn: the one before is taken. */
static void test_resume_passes_over_damage(void **state) {
  (void)state;
  ist_error err = {0};
  ist_model *m = open_tiny();
  ist_train_options o = run_options();
  o.output = "damaged";
  ist_trainer *t = open_run(m, &o);
  for (int k = 0; k < 3; k++) take_step(t);
  MUST(ist_trainer_save(t, &err));
  for (int k = 0; k < 3; k++) take_step(t);
  MUST(ist_trainer_save(t, &err));
  ist_trainer_close(t);
  copy_file("damaged/checkpoints/step-00000006/state.safetensors",
            "damaged/checkpoints/step-00000006/state.safetensors", 10);
  o.resume = true;
  t = open_run(m, &o);
  assert_int_equal(t->progress.step, 3);
  assert_true(t->resumed);
  ist_trainer_close(t);
  ist_model_close(m);
}

/* Checksums hold, but no run counts so. */
static void test_resume_of_what_no_run_wrote(void **state) {
  (void)state;
  ist_error err = {0};
  ist_model *m = open_tiny();
  ist_train_options o = run_options();
  o.output = "forged";
  ist_trainer *t = open_run(m, &o);
  take_step(t);
  struct {
    int64_t *count, value;
    const char *name;
  } forged[] = {{&t->progress.batch, -1, "progress.batch"},
                {&t->progress.batch, INT64_MAX, "progress.batch"},
                {&t->progress.step, INT64_MAX, "progress.step"},
                {&t->spikes.n, -1, "spikes.n"},
                {&t->layer_steps[1], -7, "moments.steps"},
                {&t->last_trained[0], INT64_MIN, "moments.last_trained"}};
  char *path;
  for (size_t i = 0; i < sizeof forged / sizeof *forged; i++) {
    int64_t kept = *forged[i].count;
    *forged[i].count = forged[i].value;
    json_t *settings = ist_trainer_settings(t);
    MUST(ist_checkpoint_save("forged", &t->state, settings, 1, 2, &err));
    json_decref(settings);
    MUST(ist_checkpoint_find_newest("forged", &path, &err));
    assert_int_equal(ist_trainer_load_state(t, path, &err), IST_ERR_FORMAT);
    if (!strstr(err.message, forged[i].name)) fail_msg("%s: %s", forged[i].name, err.message);
    *forged[i].count = kept;
    ist_free(path);
  }
  t->scores.suppressibility[0] = INFINITY;
  MUST(ist_trainer_save(t, &err));
  ist_trainer_close(t);
  o.resume = true;
  must_refuse(m, &o, IST_ERR_FORMAT, "suppressibility");
  ist_model_close(m);
}

/* How the model computes must stay as well. */
static void test_resume_with_another_computation(void **state) {
  (void)state;
  ist_error err = {0};
  ist_model_options how;
  ist_model_options_init(&how);
  ist_train_options o = run_options();
  o.output = "computed";
  how.compute = IST_COMPUTE_F32;
  ist_model *m;
  MUST(ist_model_open(&m, TINY_MODEL, &how, &err));
  run_steps(m, &o, 2);
  ist_model_close(m);
  o.resume = true;
  m = open_tiny();
  must_refuse(m, &o, IST_ERR_MISMATCH, "backend: found \"reference\"");
  ist_model_close(m);
  how.compute = IST_COMPUTE_BF16;
  MUST(ist_model_open(&m, TINY_MODEL, &how, &err));
  must_refuse(m, &o, IST_ERR_MISMATCH, "compute: found \"bf16\"");
  ist_model_close(m);
  how.compute = IST_COMPUTE_F32;
  MUST(ist_model_open(&m, TINY_MODEL, &how, &err));
  run_steps(m, &o, 1);
  ist_model_close(m);
}

static void find_isa(void *user, ist_log_level level, const char *message) {
  bool *said = user;
  if (level == IST_LOG_WARN && strstr(message, "isa: found")) *said = true;
}

/* Another processor may go on with a run, which is then not exact to the bit: it says so. */
static void test_resume_on_another_processor(void **state) {
  (void)state;
  ist_error err = {0};
  ist_model_options how;
  ist_model_options_init(&how);
  how.compute = IST_COMPUTE_F32;
  ist_model *m;
  MUST(ist_model_open(&m, TINY_MODEL, &how, &err));
  ist_train_options o = run_options();
  o.output = "moved";
  ist_trainer *t = open_run(m, &o);
  take_step(t);
  json_t *settings = ist_trainer_settings(t);
  json_object_set_new(settings, "isa", json_string("another"));
  MUST(ist_checkpoint_save("moved", &t->state, settings, 1, 2, &err));
  ist_trainer_close(t);
  o.resume = true;
  bool said = false;
  ist_log_set(find_isa, &said);
  run_steps(m, &o, 1);
  assert_true(said);
  said = false;
  run_steps(m, &o, 1); /* the same now */
  assert_false(said);
  ist_log_set(NULL, NULL);
  json_object_set_new(settings, "rng_layout", json_integer(1 << 20));
  t = open_run(m, &o);
  MUST(ist_checkpoint_save("moved", &t->state, settings, 3, 2, &err));
  ist_trainer_close(t);
  must_refuse(m, &o, IST_ERR_MISMATCH, "rng_layout");
  json_decref(settings);
  ist_model_close(m);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_options),
      cmocka_unit_test(test_other_run_in_the_way),
      cmocka_unit_test(test_others_files_in_the_way),
      cmocka_unit_test(test_start_that_failed),
      cmocka_unit_test(test_other_run_gets_there_first),
      cmocka_unit_test(test_metrics_before_checkpoint),
      cmocka_unit_test(test_resume_of_nothing),
      cmocka_unit_test(test_resume_with_other_options),
      cmocka_unit_test(test_resume_with_another_model),
      cmocka_unit_test(test_resume_with_other_data),
      cmocka_unit_test(test_resume_passes_over_damage),
      cmocka_unit_test(test_resume_of_what_no_run_wrote),
      cmocka_unit_test(test_resume_with_another_computation),
      cmocka_unit_test(test_resume_on_another_processor),
  };
  return cmocka_run_group_tests(tests, enter_with_data, leave_folder);
}
