/* Embedding and head of a base where an adapter is on them, brings them whole, or holds a copy of
 * the base's own. */
#include "../format/files.h"

#include <math.h>

#include "base/mem.h"
#include "folder.h"
#include "format/gguf.h"
#include "format/peft_dir.h"
#include "format/quant.h"
#include "model/model.h"

#define TINY  IST_GOLDEN_DIR "/llama_tiny/llama_tiny.gguf"
#define GEMMA IST_GOLDEN_DIR "/families/gemma"

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

/* ---- Copies of the base's own ---- */

/* A pair at one q, beside which `embed` and `head` are saved as they are. */
static void write_saved(const char *dir, const ist_model *m, const float *embed,
                        const float *head) {
#define Q MODEL "model.layers.0.self_attn.q_proj."
  static const char *const target[] = {"layers.0.self_attn.q_proj"};
  const ist_peft_config c = {.r = R, .alpha = 4, .targets = {target, 1}};
  const int64_t D = m->config.D, V = m->config.V, q = m->config.H * m->config.E;
  float *a = make(R * D, 0.1f), *b = make(q * R, -0.05f);
  const ist_st_item items[] = {item(Q "lora_A.weight", R, D, a), item(Q "lora_B.weight", q, R, b),
                               item(MODEL "model.embed_tokens.weight", V, D, embed),
                               item(MODEL "lm_head.weight", V, D, head)};
  MUST(ist_peft_write(dir, &c, items, 4, &err));
  free(a);
  free(b);
}

/* With the base's own embedding and head, or another head: whether the result has a head. */
static bool merged_head(const char *base, const char *out, bool other, int64_t *merged) {
  ist_merge_result r;
  ist_model *m = open_model(base);
  const ist_stored *embed = ist_weights_stored(&m->weights, -1, IST_T_EMBED);
  const int64_t n = embed->rows * embed->cols;
  float *own = calloc((size_t)n, sizeof *own), *head = calloc((size_t)n, sizeof *head);
  ist_dequant_f32(own, embed->data, embed->type, n);
  memcpy(head, own, (size_t)n * sizeof *own);
  if (other) head[n - 1] += 1;
  write_saved("saved", m, own, head);
  ist_model_close(m);
  free(own);
  free(head);
  MUST(merge_into(base, "saved", out, "F32", 0, &r, &err));
  *merged = r.merged;
  m = open_model(out);
  const bool found = ist_weights_stored(&m->weights, -1, IST_T_OUTPUT)->data != NULL;
  ist_model_close(m);
  return found;
}

/* They change nothing, and so do not part what the base ties; Gemma's files could not hold them
 * apart. */
static void test_saved_copies(void **state) {
  (void)state;
  static const char *const outs[] = {"copies", "copies.gguf"}, *const gemma[] = {"g", "g.gguf"};
  int64_t merged;
  for (int i = 0; i < 2; i++) {
    assert_false(merged_head(TINY, outs[i], false, &merged));
    assert_int_equal(merged, 1);
    assert_true(merged_head(TINY, outs[i], true, &merged));
    assert_int_equal(merged, 2);
    assert_false(merged_head(GEMMA "/model.gguf", gemma[i], false, &merged));
    assert_int_equal(merged, 1);
  }
  assert_false(merged_head(GEMMA, "from-folder", false, &merged));
  assert_int_equal(merged, 1);
}

/* ---- A model with an adapter on it ---- */

static ist_buf file_of(const char *out) {
  ist_buf b = {0};
  char *inside = ist_path_join(out, "model.safetensors");
  MUST(ist_file_read(&b, ist_file_exists(inside) ? inside : out, 1 << 24, &err));
  ist_free(inside);
  return b;
}

/* The head that the merge adds is the base's, not the one that the set adapter brings. */
static void test_head_of_a_set_adapter(void **state) {
  (void)state;
  static const char *const bases[] = {TINY, TINY, "base"}, *const outs[] = {"a.gguf", "a", "b"};
  ist_merge_result r;
  MUST(merge_into(TINY, NULL, "base", "F32", 0, &r, &err));
  for (int i = 0; i < 3; i++) {
    ist_merge_options o;
    ist_merge_options_init(&o);
    o.adapter = IST_GOLDEN_DIR "/adapters/embedding";
    o.output = outs[i];
    o.type = "F32";
    o.overwrite = true;
    ist_model *m = open_model(bases[i]);
    MUST(ist_merge(m, &o, NULL, NULL, &r, &err));
    ist_buf plain = file_of(outs[i]);
    MUST(ist_model_set_adapter(m, IST_GOLDEN_DIR "/adapters/saved", &err));
    assert_non_null(m->whole[IST_OUTER_HEAD]);
    MUST(ist_merge(m, &o, NULL, NULL, &r, &err));
    ist_buf with = file_of(outs[i]);
    assert_true(plain.len == with.len && memcmp(plain.p, with.p, plain.len) == 0);
    ist_buf_free(&plain);
    ist_buf_free(&with);
    ist_model_close(m);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_more_than_lora_at_the_head),
      cmocka_unit_test(test_saved_copies),
      cmocka_unit_test(test_head_of_a_set_adapter),
  };
  return cmocka_run_group_tests(tests, enter_folder, leave_folder);
}
