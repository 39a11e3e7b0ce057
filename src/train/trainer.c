/* What surrounds the steps of a run: its figures, its log, its checkpoints and the
 * best adapter. */
#include "train/trainer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

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
      .n_cut = t->data.n_cut,
      .n_dropped = t->data.n_dropped,
      .probe_on_train = t->split.probe_is_train,
      .resumed = t->resumed,
      .trainable = t->adapters.L * t->adapters.layout.params,
      .active_layers = t->active_layers,
      .micro_tokens = t->plan.micro_tokens,
      .planned_bytes = t->plan.total,
      .lr = t->lr,
      .template_name = ist_template_name(t->tmpl),
      .recompute = ist_recompute_name(t->plan.recompute),
      .order = ist_order_name(t->plan.order),
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
  for (int64_t i = 0; i < n; i++) json_array_append_new(list, isfinite(v[i]) ? json_real(v[i]) : json_null());
  return list;
}

static json_t *number(double v) { return isfinite(v) ? json_real(v) : json_null(); }

static ist_status write_line(ist_metrics *m, json_t *line, ist_error *err) {
  ist_status status = line ? ist_metrics_line(m, line, err) : ist_fail_nomem(err, "metrics", 0);
  json_decref(line);
  return status;
}

ist_status ist_trainer_log_step(ist_trainer *t, const ist_step_report *r, const double *probe_loss,
                                int64_t n_probe, ist_error *err) {
  if (!t->options.output) return IST_OK;
  json_t *line = json_pack("{s:I, s:f, s:o, s:f, s:o, s:I, s:I, s:o, s:b}", "step", (json_int_t)r->step,
                           "epoch", r->epoch, "loss", number(r->loss), "lr", r->lr,
                           "grad_norm", number(r->grad_norm), "tokens", (json_int_t)r->tokens,
                           "targets", (json_int_t)r->targets, "active", active_list(r), "skipped", r->skipped);
  if (line && r->probed) {
    json_object_set_new(line, "probe_losses", doubles(probe_loss, n_probe));
    json_object_set_new(line, "suppressibility", doubles(t->scores.suppressibility, r->L));
  }
  if (line && r->evaluated) json_object_set_new(line, "valid_loss", number(r->valid_loss));
  IST_TRY(write_line(&t->metrics, line, err));
  line = json_pack("{s:I, s:f, s:f, s:I, s:I}", "step", (json_int_t)r->step, "seconds", r->seconds, "probe_seconds",
                   r->probe_seconds, "tokens", (json_int_t)r->tokens, "peak_bytes", (json_int_t)ist_peak_memory());
  return write_line(&t->timing, line, err);
}

/* ---- Checkpoints ------------------------------------------------------------------------- */

ist_status ist_trainer_save(ist_trainer *t, ist_error *err) {
  if (!t->options.output) return ist_fail(err, IST_ERR_ARG, "save: found no output directory");
  t->progress.metrics_bytes = ist_metrics_size(&t->metrics);
  json_t *settings = ist_trainer_settings(t);
  if (!settings) return ist_fail_nomem(err, "settings", 0);
  ist_status status = ist_checkpoint_save(t->options.output, &t->state, settings, t->progress.step,
                                          t->options.keep_checkpoints, err);
  json_decref(settings);
  return status;
}

/* ---- Best adapter: a file of its own, so that memory holds one copy only ------------------- */

static char *best_path(const ist_trainer *t) { return ist_path_join(t->options.output, "best.safetensors"); }

ist_status ist_trainer_keep_best(ist_trainer *t, ist_error *err) {
  if (!t->options.output) return IST_OK;
  char *path = best_path(t);
  if (!path) return ist_fail_nomem(err, "path", strlen(t->options.output));
  const ist_st_item item = {"adapters", t->adapters.dt, 2, {t->adapters.L, t->adapters.layout.params}, t->adapters.params};
  ist_status status = ist_safetensors_write(path, &item, 1, NULL, 0, err);
  ist_free(path);
  return status;
}

static ist_status read_best(ist_trainer *t, const char *path, ist_error *err) {
  ist_safetensors *file;
  IST_TRY(ist_safetensors_open(&file, path, err));
  const ist_st_tensor *best = ist_safetensors_find(file, "adapters");
  int64_t bytes = ist_dtype_bytes(t->adapters.dt, t->adapters.L * t->adapters.layout.params);
  ist_status status = IST_OK;
  if (best && best->type == t->adapters.dt && best->bytes == bytes) {
    memcpy(t->adapters.params, best->data, (size_t)bytes);
  } else {
    status = ist_fail(err, IST_ERR_MISMATCH, "%s: found no tensor \"adapters\" of %lld bytes", path, (long long)bytes);
  }
  ist_safetensors_close(file);
  return status;
}

ist_status ist_trainer_restore_best(ist_trainer *t, ist_error *err) {
  if (!t->options.output || t->progress.best_step == 0 || t->progress.best_step == t->progress.step) return IST_OK;
  char *path = best_path(t);
  if (!path) return ist_fail_nomem(err, "path", strlen(t->options.output));
  ist_status status = read_best(t, path, err);
  ist_free(path);
  return status;
}
