/* A base in several files: all of them are compared, and none is overwritten. */
#include "../format/files.h"

#include "split.h"

#define TINY IST_GOLDEN_DIR "/llama_tiny/llama_tiny.gguf"
#define HF   IST_GOLDEN_DIR "/llama_hf_sharded"

static ist_error err;

#define FIRST  "m-00001-of-00002.gguf"
#define SECOND "m-00002-of-00002.gguf"

static int64_t n_tensors;

static int set_up(void **state) {
  if (enter_folder(state) != 0) return -1;
  ist_gguf *g;
  MUST(ist_gguf_open(&g, TINY, &err));
  n_tensors = g->n_tensors;
  write_part(g, FIRST, 0);
  write_part(g, SECOND, 1);
  ist_gguf_close(g);
  return 0;
}

/* ---- Comparing ---- */

typedef struct sums {
  int64_t common, lone;
  double difference;
} sums;

static void take(void *user, const ist_diff_tensor *d) {
  sums *s = user;
  s->common += !d->only_a && !d->only_b;
  s->lone += d->only_a || d->only_b;
  s->difference += d->norm_diff;
}

static void test_diff(void **state) {
  (void)state;
  sums one = {0}, other = {0};
  MUST(ist_diff(FIRST, TINY, take, &one, &err));
  MUST(ist_diff(TINY, FIRST, take, &other, &err));
  assert_int_equal(one.common, n_tensors);
  assert_int_equal(other.common, n_tensors);
  assert_true(one.lone == 0 && other.lone == 0);
  assert_true(one.difference == 0 && other.difference == 0);
  assert_error(ist_diff(SECOND, TINY, take, &one, &err), IST_ERR_FORMAT, &err,
               "expected the first of 2");
}

/* ---- Overwriting ---- */

static void test_base_is_kept(void **state) {
  (void)state;
  static const char *const parts[] = {FIRST, SECOND};
  ist_merge_result r;
  for (int i = 0; i < 2; i++)
    assert_error(merge_into(FIRST, NULL, parts[i], NULL, 0, &r, &err), IST_ERR_ARG, &err,
                 "found the base model itself");
  assert_int_equal(symlink(HF "/model-00002-of-00004.safetensors", "shard.gguf"), 0);
  assert_error(merge_into(HF, NULL, "shard.gguf", NULL, 0, &r, &err), IST_ERR_ARG, &err,
               "found the base model itself");
  unlink("shard.gguf");
  MUST(merge_into(FIRST, NULL, "whole.gguf", NULL, 0, &r, &err));
  assert_int_equal(r.tensors, n_tensors);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_diff),
      cmocka_unit_test(test_base_is_kept),
  };
  return cmocka_run_group_tests(tests, set_up, leave_folder);
}
