/* The best adapter of a run: kept in a file of its own while a checkpoint or the run names it,
 * put back at the end, and passed over with a line where it is damaged. */
#include <dirent.h>

#include "run.h"

/* Evaluated after every step, at a rate that grows until it ruins things; three checkpoints. */
static ist_train_options best_options(const char *output) {
  ist_train_options o = run_options();
  o.output = output;
  o.eval_every = 1;
  o.save_every = 1;
  o.keep_checkpoints = 3;
  o.steps = 12;
  o.lr = 5;
  o.warmup_steps = 6;
  return o;
}

static bool has(const int64_t *list, int64_t n, int64_t step) {
  for (int64_t i = 0; i < n; i++)
    if (list[i] == step) return true;
  return false;
}

/* The files of RUN/best are those of `steps`, no more and no less. */
static void expect_best_files(const char *run, const int64_t *steps, int64_t n) {
  char path[128];
  for (int64_t i = 0; i < n; i++) {
    snprintf(path, sizeof path, "%s/best/step-%08lld.safetensors", run, (long long)steps[i]);
    if (!ist_file_exists(path)) fail_msg("%s is named, but not there", path);
  }
  snprintf(path, sizeof path, "%s/best", run);
  DIR *dir = opendir(path);
  assert_non_null(dir);
  for (struct dirent *e; (e = readdir(dir));) {
    long long step;
    if (e->d_name[0] == '.') continue;
    assert_int_equal(sscanf(e->d_name, "step-%lld.safetensors", &step), 1);
    if (!has(steps, n, step)) fail_msg("%s/%s is named by nothing", path, e->d_name);
  }
  closedir(dir);
}

/* After every save: the best of the run and of the last three checkpoints are there. */
static void test_kept_while_named(void **state) {
  (void)state;
  ist_error err = {0};
  ist_train_options o = best_options("kept");
  ist_model *m = open_tiny();
  ist_trainer *t = open_run(m, &o);
  int64_t best_at[16] = {0}, dropped = 0;
  for (int64_t step = 1; step <= o.steps; step++) {
    take_step(t);
    MUST(ist_trainer_save(t, &err));
    best_at[step] = t->progress.best_step;
    int64_t from = step > 2 ? step - 2 : 1;
    expect_best_files("kept", best_at + from, step - from + 1);
    dropped += !has(best_at + from, step - from + 1, best_at[1]);
  }
  assert_true(dropped > 0); /* else nothing was ever removed */
  ist_trainer_close(t);
  ist_model_close(m);
}

static int damage_lines;
static void count_damage(void *user, ist_log_level level, const char *message) {
  (void)user;
  damage_lines += level == IST_LOG_WARN && strstr(message, "best adapter cannot be used");
}

/* Flips a bit far behind the header. */
static void damage(const char *path) {
  ist_error err = {0};
  ist_buf b = read_whole(path);
  b.p[b.len - 9] ^= 1;
  MUST(ist_file_write(path, b.p, b.len, &err));
  ist_buf_free(&b);
}

static void test_put_back(void **state) {
  (void)state;
  ist_error err = {0};
  ist_train_options o = best_options("back");
  ist_model *m = open_tiny();
  ist_trainer *t = open_run(m, &o);
  size_t bytes = layer_size(t) * (size_t)t->adapters.L;
  unsigned char *best = malloc(bytes), *last = malloc(bytes);
  for (int64_t step = 1; step <= o.steps; step++) {
    take_step(t);
    if (t->progress.best_step == step) memcpy(best, t->adapters.params, bytes);
  }
  assert_true(t->progress.best_step > 0 && t->progress.best_step < o.steps);
  memcpy(last, t->adapters.params, bytes);
  assert_memory_not_equal(best, last, bytes);

  MUST(ist_trainer_restore_best(t, &err));
  assert_memory_equal(t->adapters.params, best, bytes);
  double valid;
  MUST(ist_trainer_validate(t, &valid, &err)); /* what the layers derive from parameters, too */
  assert_true(valid == t->progress.best_loss);

  char path[128];
  snprintf(path, sizeof path, "back/best/step-%08lld.safetensors",
           (long long)t->progress.best_step);
  memcpy(t->adapters.params, last, bytes);
  ist_log_set(count_damage, NULL);
  damage(path);
  MUST(ist_trainer_restore_best(t, &err));
  assert_int_equal(damage_lines, 1);
  assert_memory_equal(t->adapters.params, last, bytes);
  assert_int_equal(unlink(path), 0);
  MUST(ist_trainer_restore_best(t, &err));
  assert_int_equal(damage_lines, 2);
  ist_log_set(NULL, NULL);
  free(best);
  free(last);
  ist_trainer_close(t);
  ist_model_close(m);
}

/* Between saves too: an improvement takes the place of the one before. */
static void test_one_while_unsaved(void **state) {
  (void)state;
  ist_train_options o = best_options("unsaved");
  o.save_every = 0;
  o.lr = 1e-2;
  ist_model *m = open_tiny();
  ist_trainer *t = open_run(m, &o);
  int64_t improved = 0;
  for (int64_t step = 1; step < o.steps; step++) {
    improved += take_step(t).improved;
    expect_best_files("unsaved", &t->progress.best_step, 1);
  }
  assert_true(improved > 1);
  ist_trainer_close(t);
  ist_model_close(m);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_kept_while_named),
      cmocka_unit_test(test_put_back),
      cmocka_unit_test(test_one_while_unsaved),
  };
  return cmocka_run_group_tests(tests, enter_with_data, leave_folder);
}
