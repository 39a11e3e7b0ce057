/* llama.cpp's GGUF adapters on bases that are Hugging Face folders, whose rows of q and k are in
 * another order, against PEFT's logits; heads and embeddings of a tied folder that an adapter
 * changes apart from each other; adapters that fit no base. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "export/updates.h"
#include "format/lora_gguf.h"
#include "logits.h"
#include "model/model.h"

#define TINY     IST_GOLDEN_DIR "/llama_tiny/llama_tiny.gguf"
#define WHOLE    IST_GOLDEN_DIR "/llama_hf"
#define MIXTURE  IST_GOLDEN_DIR "/families/mixtral/model.gguf"
#define ADAPTERS IST_GOLDEN_DIR "/adapters/"

static double distance(ist_model *m, const char *adapter) {
  return distance_to(m, IST_GOLDEN_DIR "/llama_tiny/goldens.safetensors",
                     ADAPTERS "goldens.safetensors", adapter);
}

/* An adapter of PEFT's in llama.cpp's form. The rows are those of a GGUF, and the file has one
 * alpha, so that scales go into B. */
static void write_gguf(const char *out, const char *adapter) {
  ist_error err = {0};
  ist_updates u;
  ist_model *m = open_model(TINY);
  MUST(ist_updates_read(&u, adapter, m, &err));
  ist_lora_pair *pair = ist_calloc((size_t)u.n, sizeof *pair);
  char(*name)[96] = ist_calloc((size_t)u.n, sizeof *name);
  for (int64_t i = 0; i < u.n; i++) {
    const ist_update *p = &u.p[i];
    float *b = p->b;
    ist_tensor_name(name[i], sizeof name[i], p->layer, p->id);
    for (int64_t j = 0; j < p->rows * p->rank; j++)
      b[j] = (float)((double)b[j] * p->scale * (double)p->rank / 4);
    pair[i] = (ist_lora_pair){name[i], p->cols, p->rows, p->rank, 0, p->a, b};
  }
  MUST(ist_lora_gguf_write(out, "llama", 4, pair, u.n, &err));
  ist_free(pair);
  ist_free(name);
  ist_updates_free(&u);
  ist_model_close(m);
}

static void test_on_folder(void **state) {
  (void)state;
  static const char *const names[] = {"rslora", "patterns", "regex", "layers"};
  static const char *const bases[] = {WHOLE, TINY};
  ist_error err = {0};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    char adapter[256];
    snprintf(adapter, sizeof adapter, ADAPTERS "%s", names[i]);
    write_gguf("adapter.gguf", adapter);
    for (int k = 0; k < 2; k++) {
      ist_model *m = open_model(bases[k]);
      MUST(ist_model_set_adapter(m, "adapter.gguf", &err));
      double d = distance(m, names[i]);
      if (!(d < 1e-5)) fail_msg("%s on %s: logits differ by %g", names[i], bases[k], d);
      ist_model_close(m);
    }
    ist_merge_result r;
    MUST(merge_into(WHOLE, "adapter.gguf", "merged", "F32", 0, &r, &err));
    ist_model *m = open_model("merged");
    double d = distance(m, names[i]);
    if (!(d < 1e-5)) fail_msg("%s merged: logits differ by %g", names[i], d);
    ist_model_close(m);
  }
}

/* One side of a tied pair was changed: the merged folder has both, and its configuration says
 * so. */
static void test_unties(void **state) {
  (void)state;
  static const char *const names[] = {"embedding", "head", "saved", "rslora"};
  ist_error err = {0};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    char adapter[256];
    ist_merge_result r;
    ist_safetensors *st;
    bool unties = strcmp(names[i], "rslora") != 0;
    snprintf(adapter, sizeof adapter, ADAPTERS "%s", names[i]);
    MUST(merge_into(WHOLE, adapter, "merged", "F32", 0, &r, &err));
    MUST(ist_safetensors_open(&st, "merged/model.safetensors", &err));
    assert_int_equal(ist_safetensors_find(st, "lm_head.weight") != NULL, unties);
    assert_non_null(ist_safetensors_find(st, "model.embed_tokens.weight"));
    ist_safetensors_close(st);
    ist_model *m = open_model("merged");
    ist_model_info info;
    ist_model_get_info(m, &info);
    assert_int_equal(info.tied_output, !unties);
    const json_t *tie = json_object_get(m->source.config, "tie_word_embeddings");
    assert_int_equal(json_is_true(tie), !unties);
    double d = distance(m, names[i]);
    if (!(d < 1e-5)) fail_msg("%s merged: logits differ by %g", names[i], d);
    ist_model_close(m);
  }
}

/* ---- Two adapters beside each other ---- */

typedef struct found {
  const char *name;
  ist_diff_tensor is;
  int64_t n;
} found;

static void take(void *user, const ist_diff_tensor *d) {
  found *f = user;
  f->n++;
  if (strcmp(d->name, f->name) == 0) f->is = *d;
}

/* The order of rows changes no norm: GGUFs differ as the folders do that they were made from. */
static void test_diff(void **state) {
  (void)state;
  ist_error err = {0};
  found folder = {.name = "model.layers.2.self_attn.q_proj"},
        gguf = {.name = "blk.2.attn_q.weight"};
  write_gguf("a.gguf", ADAPTERS "bf16");
  write_gguf("b.gguf", ADAPTERS "rslora");
  MUST(ist_diff(ADAPTERS "bf16", ADAPTERS "rslora", take, &folder, &err));
  MUST(ist_diff("a.gguf", "b.gguf", take, &gguf, &err));
  assert_int_equal(gguf.n, folder.n);
  assert_int_equal(gguf.is.layer, 2);
  assert_true(folder.is.norm_a > 0 && folder.is.norm_diff > 0);
  assert_true(fabs(gguf.is.norm_a / folder.is.norm_a - 1) < 1e-5);
  assert_true(fabs(gguf.is.norm_b / folder.is.norm_b - 1) < 1e-5);
  assert_true(fabs(gguf.is.norm_diff / folder.is.norm_diff - 1) < 1e-5);
  assert_true(fabs(gguf.is.cosine - folder.is.cosine) < 1e-5);
  assert_int_equal(ist_diff("a.gguf", ADAPTERS "rslora", take, &gguf, &err), IST_ERR_ARG);
  assert_non_null(strstr(err.message, "expected two models or two adapters of one format"));
}

/* ---- What a run writes ---- */

/* Adapters on the embedding and the head too: the run's folder and its GGUF are the same. */
static void test_of_run(void **state) {
  (void)state;
  ist_error err = {0};
  FILE *f = fopen("data.jsonl", "w");
  assert_non_null(f);
  for (int i = 0; i < 20; i++)
    fprintf(f, "{\"prompt\": \"add %d\", \"completion\": \"%d\"}\n", i, 2 * i);
  assert_int_equal(fclose(f), 0);
  static const char untied[] = IST_GOLDEN_DIR "/llama_tiny/llama_untied.gguf";
  ist_train_options o;
  ist_train_options_init(&o);
  o.train_path = "data.jsonl";
  o.template_name = "none";
  o.loss_on = "all";
  o.targets = "q,embed_tokens,lm_head";
  o.rank_pattern = "lm_head=3";
  o.alpha_pattern = "embed_tokens=5";
  o.max_tokens = 32;
  o.rank = 2;
  o.lr = 0.05;
  o.steps = 3;
  o.output = "run";
  ist_model *m = open_model(untied);
  ist_trainer *t;
  MUST(ist_trainer_open(&t, m, &o, &err));
  for (ist_step_report r = {0}; !r.finished;) MUST(ist_trainer_step(t, &r, &err));
  MUST(ist_trainer_finish(t, &err));
  ist_trainer_close(t);
  ist_model_info info;
  ist_model_get_info(m, &info);
  int32_t *ids; /* of texts that the run saw: the embedding's others have not moved */
  int64_t N;
  MUST(ist_tokenize(m, "add 12 add 7", 12, false, &ids, &N, &err));
  float *logits[3];
  static const char *const adapters[] = {NULL, "run", "run/adapter.gguf"};
  double most = 0, moved = 0, apart = 0;
  for (int k = 0; k < 3; k++) {
    logits[k] = ist_calloc((size_t)(N * info.V), sizeof **logits);
    MUST(ist_model_set_adapter(m, adapters[k], &err));
    MUST(ist_model_logits(m, ids, N, logits[k], &err));
  }
  for (int64_t i = 0; i < N * info.V; i++) {
    most = fmax(most, fabs((double)logits[1][i]));
    moved = fmax(moved, fabs((double)logits[1][i] - (double)logits[0][i]));
    apart = fmax(apart, fabs((double)logits[2][i] - (double)logits[1][i]));
  }
  assert_true(moved > 0.01 * most && apart < 1e-5 * most);
  for (int k = 0; k < 3; k++) ist_free(logits[k]);
  ist_free_memory(ids);
  ist_model_close(m);
}

/* ---- What is refused ---- */

static void test_refused(void **state) {
  (void)state;
  static float a[4096], b[4096];
  static const struct {
    const char *base, *architecture, *name;
    int64_t in, out, experts;
    float last; /* of B */
    ist_status code;
    const char *says;
  } rows[] = {
      {TINY, "llama", "blk.0.attn_q.weight", 24, 24, 0, 0, IST_OK, ""},
      {TINY, "gemma", "blk.0.attn_q.weight", 24, 24, 0, 0, IST_ERR_MISMATCH,
       "general.architecture: found \"gemma\", expected the model's \"llama\""},
      {TINY, "llama", "blk.9.attn_q.weight", 24, 24, 0, 0, IST_ERR_MISMATCH,
       "blk.9.attn_q.weight: found a pair for a matrix that this model does not have"},
      {TINY, "llama", "blk.0.attn_x.weight", 24, 24, 0, 0, IST_ERR_MISMATCH,
       "blk.0.attn_x.weight: found a pair for a matrix"},
      {TINY, "llama", "blk.0.attn_norm.weight", 24, 24, 0, 0, IST_ERR_MISMATCH,
       "blk.0.attn_norm.weight: found a pair for a matrix"},
      {TINY, "llama", "output.weight", 24, 24, 0, 0, IST_ERR_MISMATCH, /* the tied model has none */
       "output.weight: found a pair for a matrix"},
      {TINY, "llama", "output_norm.weight", 24, 24, 0, 0, IST_ERR_MISMATCH,
       "output_norm.weight: found a pair for a matrix"},
      {TINY, "llama", "blk.0.attn_q.weight", 24, 32, 0, 0, IST_ERR_MISMATCH,
       "blk.0.attn_q.weight: found a pair for 32 x 24, expected 24 x 24 (is it an adapter of "
       "another "
       "base model?)"},
      {TINY, "llama", "blk.0.attn_q.weight", 16, 24, 0, 0, IST_ERR_MISMATCH,
       "found a pair for 24 x 16, expected 24 x 24"},
      {TINY, "llama", "blk.0.attn_q.weight", 24, 24, 3, 0, IST_ERR_MISMATCH,
       "found a pair for 3 experts, expected 0"},
      {TINY, "llama", "blk.0.attn_q.weight", 24, 24, 0, NAN, IST_ERR_FORMAT, "blk.0.attn_q.weight"},
      {MIXTURE, "llama", "blk.0.ffn_gate_exps.weight", 24, 24, 2, 0, IST_ERR_MISMATCH,
       "blk.0.ffn_gate_exps.weight: found a pair for 2 experts, expected "},
  };
  ist_error err = {0};
  for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
    int64_t copies = rows[k].experts ? rows[k].experts : 1;
    for (size_t i = 0; i < sizeof b / sizeof *b; i++) a[i] = b[i] = 0.25f;
    b[2 * rows[k].out * copies - 1] += rows[k].last;
    const ist_lora_pair pair = {rows[k].name, rows[k].in, rows[k].out, 2, rows[k].experts, a, b};
    MUST(ist_lora_gguf_write("bad.gguf", rows[k].architecture, 4, &pair, 1, &err));
    ist_model *m = open_model(rows[k].base);
    ist_status status = ist_model_set_adapter(m, "bad.gguf", &err);
    if (status != rows[k].code || (status != IST_OK && (!strstr(err.message, rows[k].says) ||
                                                        !strstr(err.message, "bad.gguf"))))
      fail_msg("%s: got %d '%s', expected %d '%s'", rows[k].name, (int)status, err.message,
               (int)rows[k].code, rows[k].says);
    ist_model_close(m);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_on_folder), cmocka_unit_test(test_unties),  cmocka_unit_test(test_diff),
      cmocka_unit_test(test_of_run),    cmocka_unit_test(test_refused),
  };
  return cmocka_run_group_tests(tests, enter_folder, leave_folder);
}
