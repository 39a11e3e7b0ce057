/* Out of memory and full disks, one at a time: the n-th of our allocations, then the n-th write
 * (sync, rename, new directory) of a small run of each command fails, for growing n until none
 * does. Each failure must be an error with a text, leave no temporary and no half file and, when
 * a run was going on, a whole checkpoint to resume from; the same work must succeed afterwards.
 * Leaks show under the address sanitizer.
 *
 * Allocations of ours: jansson's parser asserts when memory ends inside a string, and what
 * oneDNN and the C library take for themselves is theirs.
 *
 * n grows by a sixth; by one with IST_FAULT_ALL in the environment. */
#include <dirent.h>

#include "train/run.h"

typedef ist_status (*work_fn)(ist_error *err);

static ist_status open_model(ist_model **m, const char *adapter, ist_error *err) {
  ist_model_options o;
  ist_model_options_init(&o);
  o.backend = IST_BACKEND_REFERENCE;
  IST_TRY(ist_model_open(m, TINY_MODEL, &o, err));
  ist_status s = adapter ? ist_model_set_adapter(*m, adapter, err) : IST_OK;
  if (s != IST_OK) ist_model_close(*m);
  return s;
}

/* ---- The commands ------------------------------------------------------------------------ */

static ist_status run(bool resume, ist_error *err) {
  ist_model *m;
  ist_trainer *t = NULL;
  ist_train_options o = run_options();
  o.output = "run";
  o.steps = resume ? 1000000 : 2; /* a resumed run takes one step and stops */
  o.batch = 2;
  o.valid_examples = 3;
  o.probe_examples = 4;
  o.probe_batch = 2;
  o.probe_every = o.eval_every = 1;
  o.save_every = 1;
  o.resume = resume;
  o.overwrite = !resume;
  IST_TRY(open_model(&m, NULL, err));
  ist_status s = ist_trainer_open(&t, m, &o, err);
  ist_step_report r = {0};
  while (s == IST_OK && !r.finished && (r.step == 0 || !resume)) s = ist_trainer_step(t, &r, err);
  if (s == IST_OK) s = ist_trainer_finish(t, err);
  ist_trainer_close(t);
  ist_model_close(m);
  return s;
}

static ist_status train(ist_error *err) {
  return run(false, err);
}

static ist_status resume(ist_error *err) {
  return run(true, err);
}

static ist_eval_options some_data(void) {
  ist_eval_options o;
  ist_eval_options_init(&o);
  o.data_path = "data.jsonl";
  o.template_name = "none";
  o.limit = 4;
  o.max_new = 3;
  return o;
}

static ist_status evaluate(ist_error *err) {
  ist_model *m;
  IST_TRY(open_model(&m, "done", err));
  const ist_eval_options o = some_data();
  ist_loss_result r;
  ist_exact_result exact;
  ist_layer_importance layer[4];
  ist_status s = ist_eval_loss(m, &o, &r, err);
  if (s == IST_OK) s = ist_eval_layers(m, &o, 0.25, layer, err);
  if (s == IST_OK) s = ist_eval_exact(m, &o, NULL, NULL, &exact, err);
  ist_model_close(m);
  return s;
}

static ist_status generate(ist_error *err) {
  ist_model *m;
  IST_TRY(open_model(&m, "done", err));
  ist_generate_options o;
  ist_generate_options_init(&o);
  o.max_new = 4;
  o.raw = true;
  ist_generate_result r;
  ist_status s = ist_generate(m, "add 3 and 4", &o, NULL, NULL, &r, err);
  ist_model_close(m);
  return s;
}

static ist_status inspect(ist_error *err) {
  static const char *const paths[] = {TINY_MODEL,
                                      "done",
                                      "done/adapter.gguf",
                                      "done/adapter_model.safetensors",
                                      "done/checkpoints/step-00000002",
                                      IST_GOLDEN_DIR "/llama_hf_sharded"};
  for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
    char *json = NULL;
    ist_status s = ist_inspect(paths[i], &json, err);
    ist_free_memory(json);
    if (s != IST_OK) return s;
  }
  return IST_OK;
}

static ist_status data(ist_error *err) {
  ist_model *m;
  IST_TRY(open_model(&m, NULL, err));
  const ist_eval_options o = some_data();
  char *json = NULL;
  ist_status s = ist_data_check(m, &o, 2, &json, err);
  ist_free_memory(json);
  ist_model_close(m);
  return s;
}

static ist_status tokenize_with(const char *path, ist_error *err) {
  ist_tokenizer *t;
  IST_TRY(ist_tokenizer_open(&t, path, err));
  int32_t *ids = NULL;
  int64_t n;
  char *text = NULL;
  size_t len;
  ist_status s = ist_tokenizer_tokenize(t, "add 3 and 4", 11, true, &ids, &n, err);
  if (s == IST_OK) s = ist_tokenizer_detokenize(t, ids, n, true, &text, &len, err);
  ist_free_memory(ids);
  ist_free_memory(text);
  ist_tokenizer_free(t);
  return s;
}

static ist_status tokenize(ist_error *err) {
  IST_TRY(tokenize_with(TINY_MODEL, err));
  return tokenize_with(IST_GOLDEN_DIR "/llama_hf", err);
}

static ist_status merge_to(const char *path, ist_error *err) {
  ist_model *m;
  IST_TRY(open_model(&m, NULL, err));
  ist_merge_options o;
  ist_merge_options_init(&o);
  o.adapter = "done";
  o.output = path;
  o.overwrite = true;
  ist_merge_result r;
  ist_status s = ist_merge(m, &o, NULL, NULL, &r, err);
  ist_model_close(m);
  return s;
}

static ist_status merge(ist_error *err) {
  return merge_to("made/merged.gguf", err);
}

static ist_status merge_folder(ist_error *err) {
  return merge_to("made/merged", err);
}

static void ignore(void *user, const ist_diff_tensor *tensor) {
  (void)user;
  (void)tensor;
}

static ist_status diff(ist_error *err) {
  IST_TRY(ist_diff("done", "done", ignore, NULL, err));
  IST_TRY(ist_diff("done/adapter.gguf", "done/adapter.gguf", ignore, NULL, err));
  return ist_diff(TINY_MODEL, TINY_MODEL, ignore, NULL, err);
}

static ist_status make_model(ist_error *err) {
  const ist_shape shape = {
      .L = 1, .D = 32, .F = 32, .H = 2, .K = 1, .E = 16, .V = 300, .context = 64, .tied = true};
  return ist_make_model("made/random.gguf", &shape, "Q4_0", 1, err);
}

static ist_status plan(ist_error *err) {
  const ist_train_options o = run_options();
  char *json = NULL;
  ist_status s = ist_plan(TINY_MODEL, NULL, &o, &json, err);
  ist_free_memory(json);
  return s;
}

/* ---- What must hold ------------------------------------------------------------------------ */

static bool holds(const char *folder, const char *part) {
  DIR *dir = opendir(folder);
  if (!dir) return false;
  bool found = false;
  for (struct dirent *e; !found && (e = readdir(dir));) found = strstr(e->d_name, part) != NULL;
  closedir(dir);
  return found;
}

static void no_temporary_files(const char *name, uint64_t n) {
  static const char *const folders[] = {".", "run", "run/best", "made", "made/merged"};
  for (size_t i = 0; i < sizeof folders / sizeof *folders; i++)
    if (holds(folders[i], ".tmp-"))
      fail_msg("%s: fault %d left one in %s", name, (int)n, folders[i]);
  if (holds("run/checkpoints", "writing"))
    fail_msg("%s: fault %d left half of a checkpoint", name, (int)n);
}

/* Files that are there are whole. */
static void whole_files(const char *name, uint64_t n) {
  static const char *const made[] = {"made/merged.gguf", "made/random.gguf"};
  for (size_t i = 0; i < sizeof made / sizeof *made; i++) {
    ist_error err = {0};
    char *json = NULL;
    if (ist_file_exists(made[i]) && ist_inspect(made[i], &json, &err) != IST_OK)
      fail_msg("%s: fault %d left a half file: %s", name, (int)n, err.message);
    ist_free_memory(json);
  }
}

static void succeeds_now(const char *name, work_fn work, uint64_t n) {
  ist_error err = {0};
  if (work == train) { /* what it saved before the failure is not lost */
    if (!holds("run/checkpoints", "step-")) return;
    work = resume;
  }
  if (work(&err) != IST_OK) fail_msg("%s: after fault %d: %s", name, (int)n, err.message);
}

/* Runs `work` with the n-th call failing until it ends before the n-th; returns how many
 * times it failed. Some failures are harmless: a hint that finds no memory. */
static int64_t inject(const char *name, work_fn work, uint64_t (*fail_at)(uint64_t)) {
  bool all = getenv("IST_FAULT_ALL") != NULL;
  int64_t failed = 0;
  for (uint64_t n = 1;; n += all ? 1 : 1 + n / 6) {
    ist_error err = {0};
    fail_at(n);
    ist_status s = work(&err);
    bool met = fail_at(0) == 0;
    if (s != IST_OK) {
      failed++;
      if (err.message[0] == 0) fail_msg("%s: fault %d has no message", name, (int)n);
      no_temporary_files(name, n);
      whole_files(name, n);
      succeeds_now(name, work, n);
    }
    if (!met) return failed;
  }
}

static const struct {
  const char *name;
  work_fn work;
  bool writes;
} commands[] = {
    {"inspect", inspect, false}, {"tokenize", tokenize, false},
    {"data", data, false},       {"plan", plan, false},
    {"eval", evaluate, false},   {"generate", generate, false},
    {"diff", diff, false},       {"make-model", make_model, true},
    {"merge", merge, true},      {"merge to a folder", merge_folder, true},
    {"train", train, true},      {"resume", resume, true},
};

static void test_every_command(void **state) {
  (void)state;
  const char *only = getenv("IST_FAULT_ONLY");
  for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
    const char *name = commands[i].name;
    if (only && strcmp(only, name) != 0) continue;
    int64_t memory = inject(name, commands[i].work, ist_alloc_fail_at);
    int64_t disk = commands[i].writes ? inject(name, commands[i].work, ist_write_fail_at) : 0;
    print_message("%-18s %5lld allocations and %3lld writes failed\n", name, (long long)memory,
                  (long long)disk);
    assert_true(memory > 8);
    assert_true(disk > 2 || !commands[i].writes);
  }
}

static int prepare(void **state) {
  if (enter_folder(state) != 0) return -1;
  write_data("data.jsonl", 24, 1);
  ist_error err = {0};
  if (train(&err) != IST_OK || rename("run", "done") != 0) return -1;
  if (ist_mkdirs("made", &err) != IST_OK || train(&err) != IST_OK) return -1;
  return 0;
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_command)};
  return cmocka_run_group_tests(tests, prepare, leave_folder);
}
