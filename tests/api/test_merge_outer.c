/* Embedding and head of a base where an adapter is on them. */
#include "../format/files.h"

#include <math.h>

#include "base/mem.h"
#include "folder.h"
#include "format/gguf.h"
#include "format/peft_dir.h"
#include "model/model.h"

#define TINY IST_GOLDEN_DIR "/llama_tiny/llama_tiny.gguf"

static ist_error err;

#define MODEL "base_model.model."
enum { R = 2 };

/* Two vectors of R columns (or rows) and what stands beside them. */
static float *make(int64_t n, float first) {
  float *p = calloc((size_t)n, sizeof *p);
  assert_non_null(p);
  for (int64_t i = 0; i < n; i++) p[i] = first + 0.01f * (float)(i * 7 % 11);
  return p;
}

static ist_st_item item(const char *name, int64_t rows, int64_t cols, const float *data) {
  return (ist_st_item){
      .name = name, .type = IST_F32, .n_dims = cols ? 2 : 1, .shape = {rows, cols}, .data = data};
}

/* ---- DoRA, or a bias of B, at the head alone ---- */

static void write_head(const char *dir, const ist_model *m, bool dora, bool bias) {
  static const char *const target[] = {"lm_head"};
  const ist_peft_config c = {
      .r = R, .alpha = 4, .targets = {target, 1}, .dora = dora, .lora_bias = bias};
  const int64_t D = m->config.D, V = m->config.V;
  float *a = make(R * D, 0.1f), *b = make(V * R, -0.05f), *vector = make(V, 1);
  const ist_st_item items[] = {
      item(MODEL "lm_head.lora_A.weight", R, D, a), item(MODEL "lm_head.lora_B.weight", V, R, b),
      item(dora ? MODEL "lm_head.lora_magnitude_vector" : MODEL "lm_head.lora_B.bias", V, 0,
           vector)};
  MUST(ist_peft_write(dir, &c, items, dora || bias ? 3 : 2, &err));
  free(a);
  free(b);
  free(vector);
}

/* It would run without its magnitude or its bias: refused. Merged, rows are as long as their
 * magnitudes say. */
static void test_more_than_lora_at_the_head(void **state) {
  (void)state;
  ist_merge_result r;
  ist_model *m = open_model(TINY);
  write_head("dora", m, true, false);
  write_head("bias", m, false, true);
  write_head("lora", m, false, false);
  assert_error(ist_model_set_adapter(m, "dora", &err), IST_ERR_UNSUPPORTED, &err,
               "found the output head, which can have plain LoRA only, found method dora");
  assert_error(ist_model_set_adapter(m, "bias", &err), IST_ERR_UNSUPPORTED, &err,
               "found the output head, which can have plain LoRA only, found method lora with a "
               "bias");
  MUST(ist_model_set_adapter(m, "lora", &err));
  float *magnitude = make(m->config.V, 1);
  ist_model_close(m);
  MUST(merge_into(TINY, "dora", "dora.gguf", "F32", 0, &r, &err));
  assert_int_equal(r.merged, 1);
  ist_gguf *g;
  MUST(ist_gguf_open(&g, "dora.gguf", &err));
  const ist_gguf_tensor *head = ist_gguf_find_tensor(g, "output.weight");
  assert_non_null(head);
  for (int64_t i = 0; i < head->ne[1]; i++) {
    double square = 0;
    for (int64_t j = 0; j < head->ne[0]; j++) {
      float v;
      memcpy(&v, head->data + (i * head->ne[0] + j) * 4, sizeof v);
      square += (double)v * (double)v;
    }
    assert_true(fabs(sqrt(square) / (double)magnitude[i] - 1) < 1e-5);
  }
  ist_gguf_close(g);
  free(magnitude);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_more_than_lora_at_the_head),
  };
  return cmocka_run_group_tests(tests, enter_folder, leave_folder);
}
