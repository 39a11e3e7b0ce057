/* A base in several files: all of them are compared, and none is overwritten. */
#include "../format/files.h"

#include "folder.h"
#include "format/gguf.h"

#define TINY IST_GOLDEN_DIR "/llama_tiny/llama_tiny.gguf"
#define HF   IST_GOLDEN_DIR "/llama_hf_sharded"

static ist_error err;

#define FIRST  "m-00001-of-00002.gguf"
#define SECOND "m-00002-of-00002.gguf"

/* Part `no` of the tiny model: its first tensors, or the others. */
static void write_part(const char *path, const ist_gguf *g, uint32_t no) {
  ist_gguf_writer *w = ist_gguf_writer_new();
  const int64_t half = g->n_tensors / 2;
  for (int64_t i = 0; no == 0 && i < g->n_kv; i++) ist_gguf_put_kv(w, &g->kv[i]);
  ist_gguf_put_u32(w, "split.no", no);
  ist_gguf_put_u32(w, "split.count", 2);
  ist_gguf_put_u32(w, "split.tensors.count", (uint32_t)g->n_tensors);
  for (int64_t i = no ? half : 0; i < (no ? g->n_tensors : half); i++) {
    const ist_gguf_tensor *t = &g->tensor[i];
    char name[96];
    snprintf(name, sizeof name, "%.*s", (int)t->name.len, t->name.p);
    ist_gguf_put_tensor_data(w, name, t->type, t->n_dims, t->ne, t->data);
  }
  MUST(ist_gguf_write(w, path, &err));
  ist_gguf_writer_free(w);
}

static int64_t n_tensors;

static int set_up(void **state) {
  if (enter_folder(state) != 0) return -1;
  ist_gguf *g;
  MUST(ist_gguf_open(&g, TINY, &err));
  n_tensors = g->n_tensors;
  write_part(FIRST, g, 0);
  write_part(SECOND, g, 1);
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
