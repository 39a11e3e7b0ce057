/* What surrounds the steps of a run: its figures, its log, its checkpoints and the
 * best adapter. */
#include "train/trainer.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "format/safetensors.h"

void ist_trainer_get_info(const ist_trainer *t, ist_train_info *info) {
  *info = (ist_train_info){
      .total_steps = t->total_steps,
      .done_steps = t->progress.step,
      .steps_per_epoch = t->steps_per_epoch,
      .n_train = t->split.n_train,
      .n_valid = t->split.n_valid,
      .n_probe = t->split.probe_is_train ? 0 : t->split.n_probe,
      .n_cut = t->n_cut,
      .n_dropped = t->n_dropped,
      .probe_on_train = t->split.probe_is_train,
      .resumed = t->resumed,
      .finished = ist_trainer_is_finished(t),
      .probes = ist_selector_probes(t->selector),
      .trainable = ist_adapter_trainable(&t->adapters),
      .active_layers = t->active_layers,
      .micro_tokens = t->plan.micro_tokens,
      .planned_bytes = t->plan.total,
      .lr = t->lr,
      .template_name = ist_template_name(t->tmpl),
      .recompute = ist_recompute_name(t->plan.recompute),
      .order = ist_order_name(t->plan.order),
      .method = t->options.method,
      .targets = t->options.targets,
      .rank = t->options.rank,
      .alpha = t->options.alpha,
  };
}

static ist_status dump_json(json_t *root, char **json, ist_error *err) {
  *json = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
  json_decref(root);
  return *json ? IST_OK : ist_fail_nomem(err, "JSON text", 0);
}

ist_status ist_trainer_plan(const ist_trainer *t, char **json, ist_error *err) {
  return dump_json(ist_plan_to_json(&t->plan), json, err);
}

/* ---- Log ------------------------------------------------------------------------------ */

static json_t *active_list(const ist_step_report *r) {
  json_t *list = json_array();
  for (int64_t l = 0; l < r->L; l++) {
    if (r->active[l]) json_array_append_new(list, json_integer(l));
  }
  return list;
}

static json_t *doubles(const double *v, int64_t n) {
  json_t *list = json_array();
  for (int64_t i = 0; i < n; i++)
    json_array_append_new(list, isfinite(v[i]) ? json_real(v[i]) : json_null());
  return list;
}

static json_t *number(double v) {
  return isfinite(v) ? json_real(v) : json_null();
}

/* Where the samples of the batch that was just drawn stand in the data file. */
static json_t *batch_lines(ist_trainer *t) {
  int64_t n;
  const int64_t *samples = ist_trainer_batch(t, t->progress.batch - 1, &n);
  json_t *list = json_array();
  for (int64_t i = 0; i < n; i++)
    json_array_append_new(list, json_integer((json_int_t)t->data.p[samples[i]].line));
  return list;
}

static ist_status write_line(ist_metrics *m, json_t *line, ist_error *err) {
  ist_status status = line ? ist_metrics_line(m, line, err) : ist_fail_nomem(err, "metrics", 0);
  json_decref(line);
  return status;
}

ist_status ist_trainer_log_step(ist_trainer *t, const ist_step_report *r, const double *probe_loss,
                                int64_t n_probe, ist_error *err) {
  if (!t->options.output) return IST_OK;
  json_t *line = json_pack("{s:I, s:f, s:o, s:f, s:o, s:I, s:I, s:o, s:b, s:b}", "step",
                           (json_int_t)r->step, "epoch", r->epoch, "loss", number(r->loss), "lr",
                           r->lr, "grad_norm", number(r->grad_norm), "tokens",
                           (json_int_t)r->tokens, "targets", (json_int_t)r->targets, "active",
                           active_list(r), "skipped", r->skipped, "spike", r->spike);
  if (line && r->probed) {
    json_object_set_new(line, "probe_losses", doubles(probe_loss, n_probe));
    json_object_set_new(line, "suppressibility", doubles(t->suppressibility, r->L));
  }
  if (line && (r->skipped || r->spike)) json_object_set_new(line, "lines", batch_lines(t));
  if (line && r->spike) {
    json_object_set_new(line, "loss_z", number(r->loss_z));
    json_object_set_new(line, "grad_norm_z", number(r->grad_norm_z));
  }
  if (line && r->evaluated) json_object_set_new(line, "valid_loss", number(r->valid_loss));
  IST_TRY(write_line(&t->metrics, line, err));
  line = json_pack("{s:I, s:f, s:f, s:I, s:I}", "step", (json_int_t)r->step, "seconds", r->seconds,
                   "probe_seconds", r->probe_seconds, "tokens", (json_int_t)r->tokens, "peak_bytes",
                   (json_int_t)ist_peak_memory());
  return write_line(&t->timing, line, err);
}

/* ---- Best adapter: files of their own, so that memory holds one copy only ------------------ */

enum { BEST_NAME = 48 };

static void best_name(char name[BEST_NAME], int64_t step) {
  snprintf(name, BEST_NAME, "step-%08lld.safetensors", (long long)step);
}

/* RUN/best/step-00000080.safetensors. A checkpoint names the best of its time by
 * step, so the file of an older checkpoint stays until a newer one is saved. */
static char *best_path(const ist_trainer *t, int64_t step) {
  char name[BEST_NAME + 8] = "best/";
  best_name(name + strlen(name), step);
  return ist_path_join(t->options.output, name);
}

static ist_status no_path(const ist_trainer *t, ist_error *err) {
  return ist_fail_nomem(err, "path", strlen(t->options.output));
}

static void hash_params(const ist_trainer *t, const void *params, char text[IST_CHECKSUM]) {
  size_t bytes = (size_t)ist_dtype_bytes(t->adapters.dt, ist_adapter_elements(&t->adapters));
  ist_checksum(text, params, bytes);
}

/* Removes the best adapters that neither the run nor a checkpoint names: whichever checkpoint
 * is resumed from finds its own. */
static ist_status drop_old_best(ist_trainer *t, ist_error *err) {
  char *folder = ist_path_join(t->options.output, "best");
  if (!folder) return no_path(t, err);
  DIR *dir = opendir(folder);
  ist_free(folder);
  if (!dir) return IST_OK; /* there is no best adapter yet */
  int64_t *named, n;
  ist_status status =
      ist_checkpoint_values(t->options.output, "progress.best_step", &named, &n, err);
  for (struct dirent *e; status == IST_OK && (e = readdir(dir));) {
    char name[BEST_NAME];
    int64_t step = strncmp(e->d_name, "step-", 5) == 0 ? strtoll(e->d_name + 5, NULL, 10) : -1;
    best_name(name, step);
    if (step < 0 || strcmp(e->d_name, name) != 0) continue; /* none of ours */
    bool wanted = step == t->progress.best_step;
    for (int64_t i = 0; i < n; i++) wanted = wanted || step == named[i];
    if (!wanted) unlinkat(dirfd(dir), e->d_name, 0);
  }
  ist_free(named);
  closedir(dir);
  return status;
}

ist_status ist_trainer_keep_best(ist_trainer *t, ist_error *err) {
  if (!t->options.output) return IST_OK;
  char *folder = ist_path_join(t->options.output, "best"),
       *path = best_path(t, t->progress.best_step);
  const ist_st_item item = {"adapters",
                            t->adapters.dt,
                            1,
                            {ist_adapter_elements(&t->adapters)},
                            .data = t->adapters.params};
  ist_status status = folder && path ? ist_mkdirs(folder, err) : no_path(t, err);
  char hash[IST_CHECKSUM];
  hash_params(t, t->adapters.params, hash);
  const char *const meta[1][2] = {{"xxh64", hash}};
  if (status == IST_OK) status = ist_safetensors_write(path, &item, 1, meta, 1, err);
  ist_free(folder);
  ist_free(path);
  return status == IST_OK ? drop_old_best(t, err) : status;
}

static ist_status read_best(ist_trainer *t, const char *path, ist_error *err) {
  ist_safetensors *file;
  IST_TRY(ist_safetensors_open(&file, path, err));
  const ist_st_tensor *best = ist_safetensors_find(file, "adapters");
  int64_t bytes = ist_dtype_bytes(t->adapters.dt, ist_adapter_elements(&t->adapters));
  ist_status status = IST_OK;
  char hash[IST_CHECKSUM] = "";
  bool fits = best && best->type == t->adapters.dt && best->bytes == bytes;
  const char *expected = ist_safetensors_meta(file, "xxh64");
  if (fits) hash_params(t, best->data, hash);
  if (fits && (!expected || strcmp(hash, expected) != 0)) {
    status = ist_fail(err, IST_ERR_FORMAT, "%s: the content has checksum %s, expected '%s'", path,
                      hash, expected ? expected : "");
  } else if (fits) {
    memcpy(t->adapters.params, best->data, (size_t)bytes);
  } else {
    status = ist_fail(err, IST_ERR_MISMATCH, "%s: found no tensor \"adapters\" of %lld bytes", path,
                      (long long)bytes);
  }
  ist_safetensors_close(file);
  return status;
}

ist_status ist_trainer_restore_best(ist_trainer *t, ist_error *err) {
  if (!t->options.output || t->progress.best_step == 0 || t->progress.best_step == t->progress.step)
    return IST_OK;
  char *path = best_path(t, t->progress.best_step);
  if (!path) return no_path(t, err);
  ist_error damage = {0};
  if (read_best(t, path, &damage) != IST_OK)
    ist_log(IST_LOG_WARN, "the best adapter cannot be used, the newest is kept: %s",
            damage.message);
  ist_decoder_adapters_changed(&t->runner.decoder, -1);
  ist_free(path);
  return IST_OK;
}

/* ---- Checkpoints ------------------------------------------------------------------------- */

ist_status ist_trainer_save(ist_trainer *t, ist_error *err) {
  if (!t->options.output) return ist_fail(err, IST_ERR_ARG, "save: found no output directory");
  if (t->ended) return ist_fail(err, IST_ERR_ARG, "save: the run was ended by ist_trainer_finish");
  IST_TRY(ist_metrics_sync(&t->metrics, err));
  t->progress.metrics_bytes = ist_metrics_size(&t->metrics);
  json_t *settings = ist_trainer_settings(t);
  if (!settings) return ist_fail_nomem(err, "settings", 0);
  ist_status status = ist_checkpoint_save(t->options.output, &t->state, settings, t->progress.step,
                                          t->options.keep_checkpoints, err);
  json_decref(settings);
  return status == IST_OK ? drop_old_best(t, err) : status;
}
