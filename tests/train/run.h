/* A training run of the tiny golden model on data made in an empty folder. */
#ifndef IST_TESTS_RUN_H
#define IST_TESTS_RUN_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"
#include "train/trainer.h"

#define TINY_MODEL IST_GOLDEN_DIR "/llama_tiny/llama_tiny.gguf"
#define MUST(expr) must(expr, &err, #expr)

static inline void must(ist_status status, const ist_error *err, const char *what) {
  if (status != IST_OK) fail_msg("%s: %s", what, err->message);
}

/* Every program of tests works in a folder of its own, which goes with it. */
static char run_folder[] = "/tmp/ist-run-XXXXXX";

static inline int enter_folder(void **state) {
  (void)state;
  return mkdtemp(run_folder) && chdir(run_folder) == 0 ? 0 : -1;
}

static inline int leave_folder(void **state) {
  (void)state;
  return chdir("/") == 0 && ist_remove_tree(run_folder, NULL) == IST_OK ? 0 : -1;
}

/* Sums to add up, in words of very different length. */
static inline void write_data(const char *path, int records, int seed) {
  FILE *f = fopen(path, "w");
  assert_non_null(f);
  for (int i = 0; i < records; i++) {
    int a = (i * 7 + seed) % 13, b = (i * 5 + 3) % 11;
    fprintf(f, "{\"prompt\": \"%s%d and %d\", \"completion\": \"%d%s\"}\n",
            i % 3 == 0   ? "the sum, please, of "
            : i % 3 == 1 ? "add "
                         : "",
            a, b, a + b, i % 4 == 0 ? " in all" : "");
  }
  assert_int_equal(fclose(f), 0);
}

static inline int enter_with_data(void **state) {
  if (enter_folder(state) != 0) return -1;
  write_data("data.jsonl", 60, 1);
  return 0;
}

static inline ist_model *open_model_file(const char *path) {
  ist_error err = {0};
  ist_model_options o;
  ist_model_options_init(&o);
  o.backend = IST_BACKEND_REFERENCE;
  ist_model *m;
  MUST(ist_model_open(&m, path, &o, &err));
  return m;
}

static inline ist_model *open_tiny(void) {
  return open_model_file(TINY_MODEL);
}

/* 20 steps of 6 samples in several micro-batches, dropout, a probe every fourth
 * step, validation every fifth; half of the four layers train. */
static inline ist_train_options run_options(void) {
  ist_train_options o;
  ist_train_options_init(&o);
  o.train_path = "data.jsonl";
  o.template_name = "none";
  o.loss_on = "all";
  o.max_tokens = 48;
  o.valid_examples = 8;
  o.probe_examples = 10;
  o.rank = 4;
  o.alpha = 8;
  o.dropout = 0.1;
  o.active_ratio = 0.5;
  o.probe_every = 4;
  o.probe_batch = 5;
  o.lr = 5e-3;
  o.warmup_steps = 2;
  o.batch = 6;
  o.steps = 20;
  o.eval_every = 5;
  o.micro_tokens = 96;
  return o;
}

static inline ist_trainer *open_run(ist_model *m, const ist_train_options *o) {
  ist_error err = {0};
  ist_trainer *t;
  MUST(ist_trainer_open(&t, m, o, &err));
  return t;
}

static inline ist_step_report take_step(ist_trainer *t) {
  ist_error err = {0};
  ist_step_report r;
  MUST(ist_trainer_step(t, &r, &err));
  return r;
}

/* The bytes of layer l's parameters, or of a moment. */
static inline unsigned char *layer_bytes(const ist_trainer *t, unsigned char *block, int64_t l) {
  return block + ist_dtype_bytes(t->adapters.dt, l * t->adapters.layout.params);
}
static inline size_t layer_size(const ist_trainer *t) {
  return (size_t)ist_dtype_bytes(t->adapters.dt, t->adapters.layout.params);
}

static inline ist_buf read_whole(const char *path) {
  ist_error err = {0};
  ist_buf b = {0};
  MUST(ist_file_read(&b, path, 1 << 24, &err));
  return b;
}

static inline void must_be_same_file(const char *a, const char *b) {
  ist_buf x = read_whole(a), y = read_whole(b);
  if (x.len != y.len || memcmp(x.p, y.p, x.len) != 0) fail_msg("%s and %s differ", a, b);
  ist_buf_free(&x);
  ist_buf_free(&y);
}

static inline void run_through(const ist_train_options *o, int64_t steps) {
  ist_model *m = open_tiny();
  ist_trainer *t = open_run(m, o);
  for (int64_t i = 0; i < steps; i++) {
    ist_step_report r = take_step(t);
    assert_int_equal(r.finished, r.step == o->steps);
  }
  ist_trainer_close(t);
  ist_model_close(m);
}

/* All steps in one go, and `saved` steps, `lost` more that no checkpoint has, and the rest
 * after a resume: adapters, moments, scores, counters, the log and the best adapter are the
 * same bytes. */
static inline void must_resume_exactly(ist_train_options o, int64_t saved, int64_t lost,
                                       const char *whole, const char *parts) {
  char a[256], b[256], best[64], last[96];
  o.output = whole;
  run_through(&o, o.steps);
  o.output = parts;
  o.save_every = saved;
  run_through(&o, saved + lost);
  o.save_every = 0;
  o.resume = true;
  run_through(&o, o.steps - saved);
  snprintf(best, sizeof best, "best/step-%08lld.safetensors", (long long)o.steps);
  snprintf(last, sizeof last, "checkpoints/step-%08lld/state.safetensors", (long long)o.steps);
  const char *const files[] = {"metrics.jsonl", last, best};
  for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
    snprintf(a, sizeof a, "%s/%s", whole, files[i]);
    snprintf(b, sizeof b, "%s/%s", parts, files[i]);
    if (files[i] == best && !ist_file_exists(a) && !ist_file_exists(b)) continue;
    must_be_same_file(a, b);
  }
}

#endif
