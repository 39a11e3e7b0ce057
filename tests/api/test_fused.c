/* Queries, keys and values in one tensor, as converters write them on request: the model is the one
 * whose tensors are apart, to the bit. */
#include "folder.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "format/gguf.h"

static ist_error err;

/* blk.N.attn_q.weight -> (q, k, v) of that layer and ending; false for any other name. */
static bool parts_of(const ist_gguf *g, const ist_gguf_tensor *q, const ist_gguf_tensor *part[3],
                     char fused[64]) {
  char name[64];
  int layer, end = 0;
  snprintf(name, sizeof name, "%.*s", (int)q->name.len, q->name.p);
  if (sscanf(name, "blk.%d.attn_q.%n", &layer, &end) != 1 || !end) return false;
  const char *ending = name + end;
  snprintf(fused, 64, "blk.%d.attn_qkv.%s", layer, ending);
  for (int i = 0; i < 3; i++) {
    char other[64];
    snprintf(other, sizeof other, "blk.%d.attn_%c.%s", layer, "qkv"[i], ending);
    part[i] = ist_gguf_find_tensor(g, other);
    assert_non_null(part[i]);
    assert_int_equal(part[i]->type, q->type);
  }
  return true;
}

static bool is_k_or_v(ist_str name) {
  return memmem(name.p, name.len, ".attn_k.", 8) || memmem(name.p, name.len, ".attn_v.", 8);
}

static void put_fused(ist_gguf_writer *w, const char *name, const ist_gguf_tensor *part[3],
                      unsigned char *bytes) {
  bool vector = part[0]->n_dims == 1;
  int64_t n = 0, along = 0;
  for (int i = 0; i < 3; i++) {
    memcpy(bytes + n, part[i]->data, (size_t)part[i]->bytes);
    n += part[i]->bytes;
    along += part[i]->ne[vector ? 0 : 1];
  }
  const int64_t ne[2] = {vector ? along : part[0]->ne[0], along};
  ist_gguf_put_tensor_data(w, name, part[0]->type, part[0]->n_dims, ne, bytes);
}

/* Copies the model with attn_qkv in place of attn_q, attn_k, attn_v; the tensors that were fused.
 */
static int fuse(const char *from, const char *to) {
  ist_gguf *g;
  MUST(ist_gguf_open(&g, from, &err));
  unsigned char *bytes = ist_calloc(g->map.size, 1), *at = bytes;
  assert_non_null(bytes);
  ist_gguf_writer *w = ist_gguf_writer_new();
  for (int64_t i = 0; i < g->n_kv; i++) ist_gguf_put_kv(w, &g->kv[i]);
  int fused = 0;
  for (int64_t i = 0; i < g->n_tensors; i++) {
    const ist_gguf_tensor *t = &g->tensor[i], *part[3];
    char name[64];
    if (parts_of(g, t, part, name)) {
      put_fused(w, name, part, at);
      at += part[0]->bytes + part[1]->bytes + part[2]->bytes;
      fused++;
    } else if (!is_k_or_v(t->name)) {
      snprintf(name, sizeof name, "%.*s", (int)t->name.len, t->name.p);
      ist_gguf_put_tensor_data(w, name, t->type, t->n_dims, t->ne, t->data);
    }
  }
  MUST(ist_gguf_write(w, to, &err));
  ist_gguf_writer_free(w);
  ist_gguf_close(g);
  ist_free(bytes);
  return fused;
}

static void expect_same_logits(const char *one, const char *other) {
  static const int32_t ids[] = {1, 7, 3, 11, 20, 5, 9};
  enum { N = sizeof ids / sizeof *ids };
  ist_model *a = open_model(one), *b = open_model(other);
  ist_model_info info;
  ist_model_get_info(a, &info);
  size_t n = N * (size_t)info.V;
  float *x = ist_calloc(n, sizeof *x), *y = ist_calloc(n, sizeof *y);
  MUST(ist_model_logits(a, ids, N, x, &err));
  MUST(ist_model_logits(b, ids, N, y, &err));
  assert_memory_equal(x, y, n * sizeof *x);
  ist_free(x);
  ist_free(y);
  ist_model_close(a);
  ist_model_close(b);
}

/* Llama without biases, Qwen2 with them. */
static void test_fused(void **state) {
  (void)state;
  static const char *const models[] = {"/llama_tiny/llama_tiny.gguf", "/families/qwen2/model.gguf"};
  for (int i = 0; i < 2; i++) {
    char path[256];
    snprintf(path, sizeof path, "%s%s", IST_GOLDEN_DIR, models[i]);
    int fused = fuse(path, "fused.gguf");
    assert_true(fused > 0);
    expect_same_logits(path, "fused.gguf");
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_fused)};
  return cmocka_run_group_tests(tests, enter_folder, leave_folder);
}
