/* State registry and checkpoints: exact round trip, nothing half restored, every
 * truncation and every flipped byte recognised, the right ones kept. */
#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/file.h"
#include "base/rng.h"
#include "train/checkpoint.h"
#include "train/plan.h"

static char dir[] = "/tmp/ist-checkpoint-XXXXXX";

static int enter(void **state) {
  (void)state;
  return mkdtemp(dir) && chdir(dir) == 0 ? 0 : -1;
}

static int leave(void **state) {
  (void)state;
  return chdir("/") == 0 && ist_remove_tree(dir, NULL) == IST_OK ? 0 : -1;
}

static int remove_run(void **state) {
  (void)state;
  return ist_remove_tree("run", NULL) == IST_OK ? 0 : -1;
}

/* What a run might hold. */
typedef struct values {
  float adapters[3 * 5];
  ist_bf16 half[7];
  double scores[4];
  int64_t steps[4], count;
  uint8_t flags[3];
} values;

static void fill(values *v, uint32_t seed) {
  ist_rng r = ist_rng_stream(seed, IST_RNG_TEST, 0, 0, 0);
  memset(v, 0, sizeof *v); /* padding too: values are compared whole */
  for (int i = 0; i < 15; i++) v->adapters[i] = (float)ist_rng_normal(&r);
  for (int i = 0; i < 7; i++) v->half[i] = (ist_bf16)ist_rng_u32(&r);
  for (int i = 0; i < 4; i++) v->scores[i] = ist_rng_normal(&r);
  for (int i = 0; i < 4; i++) v->steps[i] = ist_rng_u32(&r);
  v->scores[1] = -0.0;
  v->scores[2] = NAN;
  v->count = INT64_MIN;
  for (int i = 0; i < 3; i++) v->flags[i] = (uint8_t)ist_rng_u32(&r);
}

static ist_state registry(values *v) {
  ist_state s = {0};
  ist_status status = IST_OK;
  status |= ist_state_add(&s, "adapters", IST_F32, 2, (int64_t[]){3, 5}, v->adapters, NULL);
  status |= ist_state_add(&s, "half", IST_BF16, 1, (int64_t[]){7}, v->half, NULL);
  status |= ist_state_add(&s, "scores", IST_F64, 1, (int64_t[]){4}, v->scores, NULL);
  status |= ist_state_add(&s, "steps", IST_I64, 1, (int64_t[]){4}, v->steps, NULL);
  status |= ist_state_add(&s, "count", IST_I64, 1, (int64_t[]){1}, &v->count, NULL);
  status |= ist_state_add(&s, "flags", IST_U8, 1, (int64_t[]){3}, v->flags, NULL);
  status |= ist_state_add(&s, "none", IST_F32, 2, (int64_t[]){0, 9}, NULL, NULL);
  assert_int_equal(status, IST_OK);
  return s;
}

static json_t *settings(int64_t step) {
  return json_pack("{s:f, s:[i,i], s:{s:s}, s:I, s:n}", "rate", 0.1 + 1e-17 * (double)step, "list",
                   1, 2, "inner", "text", "\xc3\xa9\n", "step", (json_int_t)step, "null");
}

static void save(const ist_state *s, int64_t step, int64_t keep) {
  json_t *j = settings(step);
  ist_error err = {0};
  if (ist_checkpoint_save("run", s, j, step, keep, &err) != IST_OK) fail_msg("%s", err.message);
  json_decref(j);
}

static void expect_newest(int64_t step) {
  char *path, expected[64];
  snprintf(expected, sizeof expected, "run/checkpoints/step-%08lld", (long long)step);
  ist_error err = {0};
  if (ist_checkpoint_find_newest("run", &path, &err) != IST_OK) fail_msg("%s", err.message);
  assert_string_equal(path, expected);
  ist_free(path);
}

static int names_in(const char *path) {
  DIR *d = opendir(path);
  assert_non_null(d);
  int n = -2;
  while (readdir(d)) n++;
  closedir(d);
  return n;
}

static void test_registry(void **state) {
  (void)state;
  values v;
  ist_state s = registry(&v);
  assert_int_equal(s.n, 7);
  assert_int_equal(ist_state_find(&s, "adapters")->bytes, 60);
  assert_int_equal(ist_state_find(&s, "half")->bytes, 14);
  assert_int_equal(ist_state_find(&s, "none")->bytes, 0);
  assert_ptr_equal(ist_state_find(&s, "count")->data, &v.count);
  assert_null(ist_state_find(&s, "adapter"));
  ist_state_free(&s);
  assert_int_equal(s.n, 0);
}

static void test_round_trip(void **state) {
  (void)state;
  values a, b;
  fill(&a, 1);
  fill(&b, 2);
  ist_state s = registry(&a), t = registry(&b);
  save(&s, 123, 2);
  assert_true(ist_file_exists("run/checkpoints/step-00000123/state.safetensors"));
  assert_int_equal(names_in("run/checkpoints"), 1);
  assert_int_equal(names_in("run/checkpoints/step-00000123"), 2);
  expect_newest(123);
  assert_int_equal(ist_checkpoint_load("run/checkpoints/step-00000123", &t, NULL), IST_OK);
  assert_memory_equal(&a, &b, sizeof a);
  json_t *expected = settings(123), *found;
  assert_int_equal(ist_checkpoint_settings("run/checkpoints/step-00000123", &found, NULL), IST_OK);
  assert_true(json_equal(expected, found));
  json_decref(expected);
  json_decref(found);
  ist_state_free(&s);
  ist_state_free(&t);
}

/* A tensor in a mapped scratch file comes back whole, and leaves memory on both ways. */
static void test_tensor_on_disk(void **state) {
  (void)state;
  enum { BYTES = (8 << 20) + 100 };
  ist_arena a;
  ist_error err = {0};
  assert_int_equal(ist_arena_init_on_disk(&a, "scratch", BYTES, ".", &err), IST_OK);
  uint8_t *p = ist_arena_alloc(&a, BYTES), *copy = malloc(BYTES);
  ist_rng rng = ist_rng_stream(3, IST_RNG_TEST, 0, 0, 0);
  for (int64_t i = 0; i < BYTES; i++) copy[i] = (uint8_t)ist_rng_u32(&rng);
  memcpy(p, copy, BYTES);
  ist_state s = {0};
  assert_int_equal(ist_state_add(&s, "m", IST_U8, 1, (int64_t[]){BYTES}, p, &err), IST_OK);
  ist_state_on_disk(&s, "m");
  int64_t before = ist_memory_resident(NULL, 0);
  save(&s, 1, 1);
  assert_true(ist_memory_resident(NULL, 0) < before - (6 << 20));
  memset(p, 0, BYTES);
  before = ist_memory_resident(NULL, 0);
  assert_int_equal(ist_checkpoint_load("run/checkpoints/step-00000001", &s, &err), IST_OK);
  assert_true(ist_memory_resident(NULL, 0) < before - (6 << 20));
  assert_memory_equal(p, copy, BYTES);
  free(copy);
  ist_state_free(&s);
  ist_arena_free(&a);
}

/* Each difference is named, and leaves what was there. */
static void test_mismatches(void **state) {
  (void)state;
  values a, b, before;
  fill(&a, 1);
  fill(&b, 2);
  before = b;
  ist_state s = registry(&a);
  save(&s, 1, 1);
  const char *const expected[] = {"'adapters' is F32 [3, 5], expected F32 [5, 3]",
                                  "'steps' is I64 [4], expected F64 [4]", "'flags' is unknown",
                                  "'extra' is missing", "'count' is I64 [1], expected I64 [1, 1]"};
  for (int c = 0; c < 5; c++) {
    ist_state t = registry(&b);
    if (c == 0) t.item[0].shape[0] = 5, t.item[0].shape[1] = 3;
    if (c == 1) t.item[3].type = IST_F64;
    if (c == 2) t.item[5] = t.item[--t.n];
    if (c == 3) ist_state_add(&t, "extra", IST_I64, 1, (int64_t[]){1}, &b.count, NULL);
    if (c == 4) t.item[4].n_dims = 2, t.item[4].shape[1] = 1;
    ist_error err = {0};
    assert_int_equal(ist_checkpoint_load("run/checkpoints/step-00000001", &t, &err),
                     IST_ERR_MISMATCH);
    if (!strstr(err.message, expected[c])) fail_msg("'%s' lacks '%s'", err.message, expected[c]);
    assert_non_null(strstr(err.message, "step-00000001/state.safetensors"));
    assert_memory_equal(&b, &before, sizeof b);
    ist_state_free(&t);
  }
  ist_error err = {0};
  assert_int_equal(ist_checkpoint_load("run/checkpoints/absent", &s, &err), IST_ERR_IO);
  ist_state_free(&s);
}

static void test_kept(void **state) {
  (void)state;
  values a;
  fill(&a, 1);
  ist_state s = registry(&a);
  for (int64_t step = 10; step <= 50; step += 10) save(&s, step, 3);
  assert_int_equal(names_in("run/checkpoints"), 3);
  expect_newest(50);
  save(&s, 60, 1);
  assert_int_equal(names_in("run/checkpoints"), 1);
  /* The run went back, as after a damaged newest one: the later ones are void. */
  save(&s, 70, 2);
  save(&s, 40, 1);
  assert_int_equal(names_in("run/checkpoints"), 1);
  expect_newest(40);
  /* What is not ours stays, and is not taken for a checkpoint. */
  const char *const others[] = {"step-5", "step-00000041x", "step-", "notes", "step-+0000042"};
  for (int i = 0; i < 5; i++) {
    char path[64];
    snprintf(path, sizeof path, "run/checkpoints/%s", others[i]);
    assert_int_equal(ist_mkdirs(path, NULL), IST_OK);
  }
  save(&s, 123456789012, 2);
  assert_int_equal(names_in("run/checkpoints"), 7);
  assert_true(ist_file_exists("run/checkpoints/step-00000040"));
  expect_newest(123456789012);
  ist_state_free(&s);
}

/* Saved again at the same step (an interrupt after --save-every), over the remains of
 * a writer that died. */
static void test_same_step(void **state) {
  (void)state;
  values a, b;
  fill(&a, 1);
  fill(&b, 2);
  ist_state s = registry(&a), t = registry(&b);
  save(&s, 7, 1);
  assert_int_equal(ist_mkdirs("run/checkpoints/writing/deep", NULL), IST_OK);
  expect_newest(7);
  a.count = 42;
  save(&s, 7, 1);
  assert_int_equal(names_in("run/checkpoints"), 1);
  assert_int_equal(ist_checkpoint_load("run/checkpoints/step-00000007", &t, NULL), IST_OK);
  assert_memory_equal(&a, &b, sizeof a);
  ist_state_free(&s);
  ist_state_free(&t);
}

static int warnings;
static void count_warning(void *user, ist_log_level level, const char *message) {
  (void)user;
  warnings += level == IST_LOG_WARN && strstr(message, "step-00000020");
}

static void put(const char *path, const void *bytes, size_t len) {
  FILE *f = fopen(path, "wb");
  assert_non_null(f);
  assert_int_equal(fwrite(bytes, 1, len, f), len);
  assert_int_equal(fclose(f), 0);
}

/* Every truncation and every changed byte of both files of the newest checkpoint: the
 * one before is found, with a warning that names the damaged one. */
static void test_damage(void **state) {
  (void)state;
  values a;
  fill(&a, 1);
  ist_state s = registry(&a);
  save(&s, 10, 2);
  save(&s, 20, 2);
  ist_log_set(count_warning, NULL);
  const char *const files[] = {"run/checkpoints/step-00000020/state.json",
                               "run/checkpoints/step-00000020/state.safetensors"};
  for (int f = 0; f < 2; f++) {
    ist_buf whole = {0};
    assert_int_equal(ist_file_read(&whole, files[f], 1 << 20, NULL), IST_OK);
    for (size_t i = 0; i < whole.len; i++) {
      warnings = 0;
      put(files[f], whole.p, i);
      expect_newest(10);
      whole.p[i] ^= 1;
      put(files[f], whole.p, whole.len);
      whole.p[i] ^= 1;
      expect_newest(10);
      assert_int_equal(warnings, 2);
    }
    put(files[f], whole.p, whole.len);
    expect_newest(20);
    unlink(files[f]);
    expect_newest(10);
    put(files[f], whole.p, whole.len);
    ist_buf_free(&whole);
  }
  ist_log_set(NULL, NULL);
  ist_state_free(&s);
}

/* One value of every checkpoint that can be read; then all of them out of the way. */
static void test_values_and_clear(void **state) {
  (void)state;
  values v;
  ist_state s = registry(&v);
  ist_error err = {0};
  int64_t *found, n;
  for (int64_t step = 1; step <= 3; step++) {
    fill(&v, 7);
    v.count = 100 * step;
    save(&s, step, 3);
  }
  assert_int_equal(truncate("run/checkpoints/step-00000002/state.safetensors", 12), 0);
  assert_int_equal(ist_checkpoint_values("run", "count", &found, &n, &err), IST_OK);
  assert_true(n == 2 && found[0] + found[1] == 400);
  ist_free(found);
  assert_int_equal(ist_checkpoint_values("run", "adapters", &found, &n, &err), IST_OK);
  assert_int_equal(n, 0); /* not one integer */
  ist_free(found);

  assert_int_equal(mkdir("run/checkpoints/writing", 0700), 0); /* of one that was stopped */
  assert_int_equal(ist_mkdirs("run/checkpoints/step-4", &err),
                   IST_OK); /* another program's, as is a link */
  assert_int_equal(symlink("nowhere", "run/checkpoints/step-00000009"), 0);
  assert_true(ist_checkpoint_exists("run"));
  assert_int_equal(ist_checkpoint_clear("run", &err), IST_OK);
  assert_false(ist_checkpoint_exists("run"));
  assert_int_equal(names_in("run/checkpoints"), 2);
  assert_int_equal(unlink("run/checkpoints/step-00000009") + rmdir("run/checkpoints/step-4"), 0);
  assert_int_equal(ist_checkpoint_clear("run", &err), IST_OK);
  assert_int_equal(names_in("run"), 0);
  assert_int_equal(ist_checkpoint_clear("run", &err), IST_OK);
  ist_state_free(&s);
}

/* A checkpoint that lies elsewhere is resumed from, and neither it nor the link is removed. */
static void test_links(void **state) {
  (void)state;
  values v;
  ist_state s = registry(&v);
  ist_error err = {0};
  fill(&v, 7);
  save(&s, 3, 1);
  assert_int_equal(rename("run/checkpoints/step-00000003", "run/elsewhere"), 0);
  assert_int_equal(symlink("../elsewhere", "run/checkpoints/step-00000003"), 0);
  expect_newest(3);
  save(&s, 4, 1);
  expect_newest(4);
  assert_true(ist_file_exists("run/checkpoints/step-00000003")); /* an older one stays */
  save(&s, 3, 1);                                                /* ... until it is made anew */
  expect_newest(3);
  save(&s, 3, 1);
  struct stat st;
  assert_int_equal(lstat("run/checkpoints/step-00000003", &st), 0);
  assert_true(S_ISDIR(st.st_mode));
  assert_int_equal(symlink("../elsewhere", "run/checkpoints/step-00000005"), 0);
  assert_int_equal(symlink("nowhere", "run/checkpoints/step-00000004"), 0);
  expect_newest(5);
  save(&s, 4, 1); /* one that is later would be taken for the newest */
  expect_newest(4);
  assert_int_equal(symlink("../elsewhere", "run/checkpoints/step-00000003"), 0);
  assert_int_equal(ist_checkpoint_clear("run", &err), IST_OK);
  assert_false(ist_file_exists("run/checkpoints"));
  assert_true(ist_file_exists("run/elsewhere/state.json")); /* what a link leads to is not ours */
  assert_int_equal(ist_remove_tree("run/elsewhere", &err), IST_OK);
  ist_state_free(&s);
}

static void test_nothing_to_find(void **state) {
  (void)state;
  char *path = (char *)"";
  ist_error err = {0};
  assert_int_equal(ist_checkpoint_find_newest("run", &path, &err), IST_ERR_MISMATCH);
  assert_null(path);
  assert_non_null(strstr(err.message, "run/checkpoints"));
  assert_non_null(strstr(err.hint, "--overwrite"));
  assert_int_equal(ist_mkdirs("run/checkpoints/step-00000020", NULL), IST_OK);
  assert_int_equal(ist_checkpoint_find_newest("run", &path, &err), IST_ERR_MISMATCH);
  assert_non_null(strstr(err.message, "no whole checkpoint"));
}

/* A record of another version, or without settings, is refused by name. */
static void test_foreign_record(void **state) {
  (void)state;
  json_t *j;
  ist_error err = {0};
  assert_int_equal(ist_mkdirs("run/x", NULL), IST_OK);
  put("run/x/state.json", "{\"version\": 2}", 14);
  assert_int_equal(ist_checkpoint_settings("run/x", &j, &err), IST_ERR_UNSUPPORTED);
  assert_null(j);
  assert_string_equal(err.message, "run/x/state.json: version 2, expected 1");
  put("run/x/state.json", "[]", 2);
  assert_int_equal(ist_checkpoint_settings("run/x", &j, &err), IST_ERR_FORMAT);
  put("run/x/state.json", "{\"version\": 1}", 14);
  assert_int_equal(ist_checkpoint_settings("run/x", &j, &err), IST_ERR_FORMAT);
}

/* Memory that is missing while checkpoints are looked at says nothing of them. */
static void no_memory_to_look(void) {
  ist_error err = {0};
  bool failed = true;
  for (uint64_t n = 1; failed; n++) {
    char *path;
    ist_alloc_fail_at(n);
    ist_status status = ist_checkpoint_find_newest("run", &path, &err);
    failed = ist_alloc_fail_at(0) == 0;
    assert_int_equal(status, failed ? IST_ERR_NOMEM : IST_OK);
    if (!failed) assert_non_null(strstr(path, "step-00000030"));
    ist_free(path);
  }
  failed = true;
  for (uint64_t n = 1; failed; n++) {
    int64_t *found, count;
    ist_alloc_fail_at(n);
    ist_status status = ist_checkpoint_values("run", "count", &found, &count, &err);
    failed = ist_alloc_fail_at(0) == 0;
    assert_int_equal(status, failed ? IST_ERR_NOMEM : IST_OK);
    if (!failed) assert_int_equal(count, 2);
    ist_free(found);
  }
}

/* Wherever memory runs out while saving, the checkpoint before stays whole. */
static void test_no_memory(void **state) {
  (void)state;
  values a;
  fill(&a, 1);
  ist_state s = registry(&a);
  save(&s, 10, 1);
  json_t *j = settings(20);
  for (uint64_t n = 1;; n++) {
    assert_true(n < 500);
    ist_alloc_fail_at(n);
    ist_error err = {0};
    ist_status status = ist_checkpoint_save("run", &s, j, 20, 1, &err);
    ist_alloc_fail_at(0);
    if (status == IST_OK) break;
    assert_int_equal(status, IST_ERR_NOMEM);
    assert_false(ist_file_exists("run/checkpoints/writing"));
    char *path;
    assert_int_equal(ist_checkpoint_find_newest("run", &path, NULL), IST_OK);
    ist_free(path);
  }
  json_decref(j);
  expect_newest(20);
  assert_int_equal(names_in("run/checkpoints"), 1);
  save(&s, 30, 2);
  no_memory_to_look();
  ist_state_free(&s);
}

/* A write that fails leaves nothing of the checkpoint. */
static void test_no_room(void **state) {
  (void)state;
  values a;
  fill(&a, 1);
  ist_state s = registry(&a);
  save(&s, 10, 1);
  json_t *j = settings(20);
  int failures = 0;
  bool met = true;
  for (uint64_t n = 1; met; n++) {
    ist_error err = {0};
    ist_write_fail_at(n);
    failures += ist_checkpoint_save("run", &s, j, 20, 1, &err) != IST_OK;
    met = ist_write_fail_at(0) == 0;
    assert_int_equal(names_in("run/checkpoints"), 1);
  }
  assert_true(failures > 4); /* a folder that is there already needs no write */
  json_decref(j);
  expect_newest(20);
  ist_state_free(&s);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_teardown(test_registry, remove_run),
      cmocka_unit_test_teardown(test_round_trip, remove_run),
      cmocka_unit_test_teardown(test_tensor_on_disk, remove_run),
      cmocka_unit_test_teardown(test_mismatches, remove_run),
      cmocka_unit_test_teardown(test_kept, remove_run),
      cmocka_unit_test_teardown(test_same_step, remove_run),
      cmocka_unit_test_teardown(test_damage, remove_run),
      cmocka_unit_test_teardown(test_values_and_clear, remove_run),
      cmocka_unit_test_teardown(test_links, remove_run),
      cmocka_unit_test_teardown(test_nothing_to_find, remove_run),
      cmocka_unit_test_teardown(test_foreign_record, remove_run),
      cmocka_unit_test_teardown(test_no_memory, remove_run),
      cmocka_unit_test_teardown(test_no_room, remove_run),
  };
  return cmocka_run_group_tests(tests, enter, leave);
}
