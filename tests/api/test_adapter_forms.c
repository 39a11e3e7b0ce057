/* One adapter in each of its forms (run, PEFT folder, GGUF), with pairs on embedding and head, on
 * one base in each of its forms (GGUF, Hugging Face folder): always the same losses, merged too. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "folder.h"

#define TINY   IST_GOLDEN_DIR "/llama_tiny/llama_tiny.gguf"
#define UNTIED IST_GOLDEN_DIR "/llama_tiny/llama_untied.gguf"

static ist_error err;

static double loss(ist_model *m, const char *adapter) {
  ist_eval_options e;
  ist_eval_options_init(&e);
  e.data_path = "data.jsonl";
  e.template_name = "none";
  ist_loss_result r;
  MUST(ist_model_set_adapter(m, adapter, &err));
  MUST(ist_eval_loss(m, &e, &r, &err));
  return r.loss;
}

/* A run on `base` into `out`; the loss at its end. */
static double train(const char *base, const char *out) {
  ist_train_options o;
  ist_train_options_init(&o);
  o.train_path = o.valid_path = "data.jsonl";
  o.template_name = "none";
  o.loss_on = "all";
  o.probe_examples = 0;
  o.targets = "q,k,down,embed_tokens,lm_head";
  o.rank = 4;
  o.batch = 3;
  o.steps = 4;
  o.lr = 2e-2;
  o.warmup_steps = 0;
  o.selector = "all";
  o.output = out;
  ist_model *m = open_model(base);
  ist_trainer *t;
  ist_step_report r;
  double last;
  MUST(ist_trainer_open(&t, m, &o, &err));
  do MUST(ist_trainer_step(t, &r, &err));
  while (!r.finished);
  MUST(ist_trainer_finish(t, &err));
  MUST(ist_trainer_validate(t, &last, &err));
  ist_trainer_close(t);
  ist_model_close(m);
  return last;
}

static void expect_loss(double found, double expected, const char *base, const char *adapter) {
  if (!(fabs(found - expected) < 2e-5))
    fail_msg("%s on %s: loss %.7g, expected %.7g", adapter, base, found, expected);
}

static void test_forms_agree(void **state) {
  (void)state;
  static const char *const bases[] = {UNTIED, "folder"};
  static const char *const runs[] = {"run-gguf", "run-folder"};
  static const char *const forms[] = {"", "/adapter.gguf"};
  static const char *const merged[] = {"merged", "merged.gguf"};
  for (int trained = 0; trained < 2; trained++) {
    double last = train(bases[trained], runs[trained]);
    for (int on = 0; on < 2; on++) {
      ist_model *m = open_model(bases[on]);
      double plain = loss(m, NULL);
      assert_true(last < plain - 0.05);
      for (int form = 0; form < 2; form++) {
        char adapter[64];
        snprintf(adapter, sizeof adapter, "%s%s", runs[trained], forms[form]);
        if (form == 0) expect_loss(loss(m, adapter), last, bases[on], adapter);
        for (int to = 0; to < 2; to++) {
          ist_merge_result r;
          if (on == 1 && to == 1) continue; /* a folder lacks what a GGUF's header says */
          MUST(merge_into(bases[on], adapter, merged[to], "F32", 0, &r, &err));
          assert_int_equal(r.merged, 3 * 2 + 2); /* of two layers */
          ist_model *whole = open_model(merged[to]);
          expect_loss(loss(whole, NULL), last, merged[to], adapter);
          ist_model_close(whole);
        }
      }
      ist_model_close(m);
    }
  }
}

/* "tie_word_embeddings" of a folder's config.json. */
static bool is_said_tied(const char *folder) {
  char path[64];
  ist_buf config = {0};
  snprintf(path, sizeof path, "%s/config.json", folder);
  MUST(ist_file_read(&config, path, 1 << 20, &err));
  const bool tied = strstr(config.p, "\"tie_word_embeddings\": true") != NULL;
  assert_true(tied || strstr(config.p, "\"tie_word_embeddings\": false"));
  ist_buf_free(&config);
  return tied;
}

/* The tied head of the tiny model has an adapter of its own: merged, it is tied no more. */
static void test_untied(void **state) {
  (void)state;
  ist_merge_result r;
  double last = train(TINY, "run-head");
  MUST(merge_into(TINY, "run-head", "untied", "F32", 0, &r, &err));
  assert_false(is_said_tied("untied"));
  ist_model *m = open_model("untied");
  expect_loss(loss(m, NULL), last, "untied", "run-head");
  ist_model_close(m);
}

/* A folder may hold a head and say that it is the embedding: so it is copied, but not when one of
 * them was changed, for transformers would take the one for the other. */
static void test_said_tied(void **state) {
  (void)state;
  static const char key[] = "\"tie_word_embeddings\": ";
  ist_merge_result r;
  ist_buf config = {0};
  MUST(merge_into(UNTIED, NULL, "said", "F32", 0, &r, &err));
  MUST(ist_file_read(&config, "said/config.json", 1 << 20, &err));
  char *value = strstr(config.p, key);
  assert_non_null(value);
  memcpy(value + sizeof key - 1, "true ", 5); /* for false */
  MUST(ist_file_write("said/config.json", config.p, config.len, &err));
  ist_buf_free(&config);
  MUST(merge_into("said", NULL, "copied", "F32", 0, &r, &err));
  assert_true(is_said_tied("copied"));
  MUST(merge_into("said", "run-gguf", "changed", "F32", 0, &r, &err));
  assert_false(is_said_tied("changed"));
}

static int set_up(void **state) {
  static const char text[] =
      "{\"text\": \"and the rest of it\"}\n{\"text\": \"one on one\"}\n{\"text\": \"the end\"}\n";
  ist_merge_result r;
  if (enter_folder(state) != 0) return -1;
  if (ist_file_write("data.jsonl", text, sizeof text - 1, &err) != IST_OK) return -1;
  return merge_into(UNTIED, NULL, "folder", "F32", 0, &r, &err) == IST_OK ? 0 : -1;
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_forms_agree),
      cmocka_unit_test(test_untied),
      cmocka_unit_test(test_said_tied),
  };
  return cmocka_run_group_tests(tests, set_up, leave_folder);
}
