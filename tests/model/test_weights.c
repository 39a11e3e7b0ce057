/* Files whose keys promise more tensors than they have: refused by the first that is missing, and
 * no table of what was promised is made. */
#include "../format/files.h"

#include <sys/resource.h>

#include "format/gguf.h"
#include "model/weights.h"

#define MIXTURE IST_GOLDEN_DIR "/families/qwen3_moe/model.gguf"

static ist_error err;

static bool is_key(const ist_gguf_kv *kv, const char *name) {
  return kv->key.len == strlen(name) && memcmp(kv->key.p, name, kv->key.len) == 0;
}

/* The golden mixture with other numbers of layers and experts. */
static void write_mixture(const char *path, uint32_t layers, uint32_t experts) {
  static const char blocks[] = "qwen3moe.block_count", count[] = "qwen3moe.expert_count";
  ist_gguf *g;
  assert_int_equal(ist_gguf_open(&g, MIXTURE, &err), IST_OK);
  ist_gguf_writer *w = ist_gguf_writer_new();
  for (int64_t i = 0; i < g->n_kv; i++)
    if (!is_key(&g->kv[i], blocks) && !is_key(&g->kv[i], count)) ist_gguf_put_kv(w, &g->kv[i]);
  ist_gguf_put_u32(w, blocks, layers);
  ist_gguf_put_u32(w, count, experts);
  for (int64_t i = 0; i < g->n_tensors; i++) {
    const ist_gguf_tensor *t = &g->tensor[i];
    char name[96];
    snprintf(name, sizeof name, "%.*s", (int)t->name.len, t->name.p);
    ist_gguf_put_tensor_data(w, name, t->type, t->n_dims, t->ne, t->data);
  }
  assert_int_equal(ist_gguf_write(w, path, &err), IST_OK);
  ist_gguf_writer_free(w);
  ist_gguf_close(g);
}

static ist_status open_weights(const char *path) {
  ist_source s;
  ist_model_config c;
  ist_weights w;
  assert_int_equal(ist_source_open(&s, path, &err), IST_OK);
  assert_int_equal(ist_model_config_read(&c, &s, &err), IST_OK);
  ist_status status = ist_weights_open(&w, &c, &s, &err);
  if (status == IST_OK) ist_weights_close(&w);
  ist_model_config_free(&c);
  ist_source_close(&s);
  return status;
}

/* Leaves the process so much more memory than it has. */
static void limit_memory(struct rlimit *before, rlim_t more) {
  long pages = 0;
  FILE *f = fopen("/proc/self/statm", "r");
  assert_non_null(f);
  assert_int_equal(fscanf(f, "%ld", &pages), 1);
  fclose(f);
  assert_int_equal(getrlimit(RLIMIT_AS, before), 0);
  const struct rlimit limit = {(rlim_t)pages * (rlim_t)sysconf(_SC_PAGESIZE) + more,
                               before->rlim_max};
  assert_int_equal(setrlimit(RLIMIT_AS, &limit), 0);
}

static void test_promised_experts(void **state) {
  (void)state;
  struct rlimit before;
  char *folder = make_folder(), *path = ist_path_join(folder, "promised.gguf");
  write_mixture(path, 2, 5);
  assert_int_equal(open_weights(path), IST_OK);
  write_mixture(path, 4096, 4096);
  limit_memory(&before, (rlim_t)1 << 30);
  ist_status s = open_weights(path);
  setrlimit(RLIMIT_AS, &before);
  assert_error(s, IST_ERR_FORMAT, &err, "blk.0.ffn_gate_exps.weight: found");
  write_mixture(path, 4096, 5);
  assert_error(open_weights(path), IST_ERR_FORMAT, &err, "blk.2.attn_q.weight: found no such");
  ist_free(path);
  remove_folder(folder);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_promised_experts)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
