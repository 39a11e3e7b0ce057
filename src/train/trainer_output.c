/* The directory that a run writes into: not over what is there already, unasked, and nothing is
 * left of a run that could not begin. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "train/trainer.h"

ist_status ist_write_json(const char *dir, const char *name, json_t *root, ist_error *err) {
  char *path = ist_path_join(dir, name),
       *text = root ? json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(17)) : NULL;
  ist_status status =
      path && text ? ist_file_write(path, text, strlen(text), err) : ist_fail_nomem(err, name, 0);
  ist_free(path);
  free(text);
  json_decref(root);
  return status;
}

/* Opens a log of the run as ist_metrics_open. */
static ist_status open_log(ist_metrics *m, const char *dir, const char *name, int64_t keep,
                           ist_error *err) {
  char *path = ist_path_join(dir, name);
  if (!path) return ist_fail_nomem(err, "path", strlen(dir));
  ist_status status = ist_metrics_open(m, path, keep, err);
  ist_free(path);
  return status;
}

/* What runs leave, and adapters consist of. */
static const char *const traces[] = {
    "metrics.jsonl", "settings.json",       "checkpoints",     "best",
    "adapter.gguf",  "adapter_config.json", "importance.json", "adapter_model.safetensors",
    "timing.jsonl",  IST_SAVED_MODULES};

static const char *find_trace(const char *dir) {
  for (size_t i = 0; i < sizeof traces / sizeof *traces; i++) {
    char *path = ist_path_join(dir, traces[i]);
    bool there = path && ist_file_exists(path);
    ist_free(path);
    if (there) return traces[i];
  }
  return NULL;
}

ist_status ist_trainer_check_output(const ist_trainer *t, ist_error *err) {
  const char *dir = t->options.output;
  if (!dir || t->options.resume || t->options.overwrite) return IST_OK;
  const char *trace = find_trace(dir);
  if (!trace) return IST_OK;
  ist_status status =
      ist_fail(err, IST_ERR_ARG, "%s: found another run or adapter in the output directory (%s)",
               dir, trace);
  if (ist_checkpoint_exists(dir))
    ist_hint(err, "continue it with --resume %s, or replace it with --overwrite", dir);
  else
    ist_hint(err, "replace it with --overwrite, or choose another directory");
  return status;
}

/* Files of the start: a run that cannot begin leaves none of them. */
static ist_status begin(ist_trainer *t, ist_error *err) {
  const char *dir = t->options.output;
  IST_TRY(open_log(&t->metrics, dir, "metrics.jsonl", 0, err));
  IST_TRY(open_log(&t->timing, dir, "timing.jsonl", 0, err));
  IST_TRY(ist_saved_modules_write(t->model, dir, err));
  return ist_write_json(dir, "settings.json", ist_trainer_settings(t), err);
}

static void take_back(const ist_trainer *t) {
  static const char *const files[] = {"metrics.jsonl", "timing.jsonl", IST_SAVED_MODULES,
                                      "settings.json"};
  /* An adapter that was there before says in its settings how it was trained. */
  size_t n = sizeof files / sizeof *files - (t->options.overwrite ? 1 : 0);
  for (size_t i = 0; i < n; i++) {
    char *path = ist_path_join(t->options.output, files[i]);
    if (path) unlink(path);
    ist_free(path);
  }
}

static ist_status go_on(ist_trainer *t, ist_error *err) {
  const char *dir = t->options.output;
  IST_TRY(open_log(&t->metrics, dir, "metrics.jsonl", t->progress.metrics_bytes, err));
  IST_TRY(open_log(&t->timing, dir, "timing.jsonl", -1, err));
  return ist_write_json(dir, "settings.json", ist_trainer_settings(t), err);
}

ist_status ist_trainer_open_output(ist_trainer *t, ist_error *err) {
  const char *dir = t->options.output;
  if (!dir) return IST_OK;
  if (t->resumed) return go_on(t, err);
  IST_TRY(ist_mkdirs(dir, err));
  IST_TRY(ist_directory_lock(&t->lock, dir, err));
  IST_TRY(
      ist_trainer_check_output(t, err)); /* another may have come and gone since the first look */
  IST_TRY(ist_checkpoint_clear(dir, err));
  ist_status status = begin(t, err);
  if (status != IST_OK) take_back(t);
  return status;
}
