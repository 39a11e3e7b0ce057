/* What a run leaves for its resume, and what a resume must find again: settings, the same base,
 * data and options, and counters that can be true. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/rng.h"
#include "format/json.h"
#include "model/base_type.h"
#include "train/trainer.h"

static const char *compute_name(const ist_model *m) {
  return m->compute == IST_BF16 ? "bf16" : "f32";
}

/* ---- Settings ---- */

json_t *ist_trainer_settings(const ist_trainer *t) {
  char model_hash[IST_CHECKSUM], data_hash[IST_CHECKSUM];
  ist_hash_text(model_hash, ist_model_hash(t->model));
  ist_hash_text(data_hash, t->data_hash);
  json_t *root = ist_options_to_json(&t->options);
  json_t *more = json_pack("{s:s, s:o, s:s, s:s, s:s, s:s, s:s, s:i, s:s, s:i, s:o}", "ist_version",
                           ist_version(), "model_path", ist_json_path(t->model->path), "model_hash",
                           model_hash, "data_hash", data_hash, "compute", compute_name(t->model),
                           "backend", t->model->ctx.be->name, "isa", ist_model_isa(t->model),
                           "threads", ist_get_threads(), "template", ist_template_name(t->tmpl),
                           "rng_layout", IST_RNG_LAYOUT, "plan", ist_plan_to_json(&t->plan));
  const ist_gguf *cache = t->model->weights.cache;
  if (t->model->requantised)
    json_object_set_new(more, "base_type", json_string(ist_base_type_name(t->model->base_type)));
  if (cache) json_object_set_new(more, "base_cache", ist_json_path(cache->path));
  if (t->tmpl == IST_TEMPLATE_MODEL) /* the others show no date */
    json_object_set_new(more, "template_time", json_integer(t->now));
  ist_saved_modules_to_json(more, &t->saved_modules);
  int bad = !root || !more || json_object_update(root, more) != 0;
  json_decref(more);
  if (!bad) return root;
  json_decref(root);
  return NULL;
}

/* A template that shows the date would give other tokens, and so other data, the day after. */
time_t ist_trainer_now(const json_t *saved) {
  const json_t *then = json_object_get(saved, "template_time");
  return json_is_integer(then) ? (time_t)json_integer_value(then) : ist_jinja_now();
}

/* ---- The same run ---- */

static ist_status refuse_other(const char *what, const char *path, const json_t *saved,
                               uint64_t hash, ist_error *err) {
  json_t *j = json_object_get(saved, what);
  char text[IST_CHECKSUM];
  ist_hash_text(text, hash);
  if (json_is_string(j) && strcmp(json_string_value(j), text) == 0) return IST_OK;
  return ist_fail(err, IST_ERR_MISMATCH, "%s: found %s %s, but the run to resume was made with %s",
                  path, what, text, json_is_string(j) ? json_string_value(j) : "none");
}

/* Before the hash of the model, which differs with the type too but says nothing. */
static ist_status check_base_type(const ist_trainer *t, const json_t *saved, ist_error *err) {
  const ist_model *m = t->model;
  const char *was = json_string_value(json_object_get(saved, "base_type"));
  const char *now = m->requantised ? ist_base_type_name(m->base_type) : "none";
  if (!was) was = "none";
  if (strcmp(was, now) == 0) return IST_OK;
  return ist_fail(err, IST_ERR_MISMATCH,
                  "%s: found base_type %s, but the run to resume was made with %s", m->path, now,
                  was);
}

/* How the model computes is no option of the run, but changes every sum. */
static ist_status check_computation(const char *what, const char *now, const json_t *saved,
                                    ist_error *err) {
  const char *was = json_string_value(json_object_get(saved, what));
  if (!was || strcmp(was, now) == 0) return IST_OK;
  return ist_fail(err, IST_ERR_MISMATCH,
                  "%s: found \"%s\", but the run to resume has \"%s\", and it must stay", what, now,
                  was);
}

/* Another processor may go on, but says so. */
static void compare_isa(const ist_trainer *t, const json_t *saved) {
  const char *was = json_string_value(json_object_get(saved, "isa"));
  const char *now = ist_model_isa(t->model);
  if (was && strcmp(was, now) != 0)
    ist_log(IST_LOG_WARN,
            "isa: found \"%s\", but the run to resume has \"%s\": it goes on, its last bits are "
            "others than there",
            now, was);
}

static ist_status check_layout(const json_t *saved, ist_error *err) {
  const json_t *was = json_object_get(saved, "rng_layout");
  if (!was || json_integer_value(was) == IST_RNG_LAYOUT) return IST_OK;
  return ist_fail(err, IST_ERR_MISMATCH,
                  "rng_layout: found %d, but the run to resume has %lld: its random numbers are "
                  "another version's",
                  IST_RNG_LAYOUT, (long long)json_integer_value(was));
}

ist_status ist_trainer_check_resume(const ist_trainer *t, const json_t *saved, ist_error *err) {
  IST_TRY(check_computation("backend", t->model->ctx.be->name, saved, err));
  IST_TRY(check_computation("compute", compute_name(t->model), saved, err));
  IST_TRY(check_layout(saved, err));
  compare_isa(t, saved);
  IST_TRY(check_base_type(t, saved, err));
  IST_TRY(refuse_other("model_hash", t->model->path, saved, ist_model_hash(t->model), err));
  IST_TRY(refuse_other("data_hash", t->options.train_path, saved, t->data_hash, err));
  return ist_options_check_resume(&t->options, saved, err);
}

/* ---- Counters ---- */

/* More than any run counts, and far from where sums of two overflow. */
#define MOST_COUNTED (INT64_C(1) << 48)

static ist_status check_counts(const ist_state_item *it, const char *path, ist_error *err) {
  const int64_t *count = it->data;
  for (int64_t i = 0; i < it->bytes / (int64_t)sizeof *count; i++) {
    if (count[i] >= 0 && count[i] <= MOST_COUNTED) continue;
    return ist_fail(err, IST_ERR_FORMAT,
                    "%s: tensor '%s': found %" PRId64 ", expected a count from 0 to %" PRId64, path,
                    it->name, count[i], MOST_COUNTED);
  }
  return IST_OK;
}

/* Checksums say that a checkpoint is as it was written, not that it was a run that wrote it. */
static ist_status check_state(const ist_trainer *t, const char *path, ist_error *err) {
  for (int64_t i = 0; i < t->state.n; i++)
    if (t->state.item[i].type == IST_I64) IST_TRY(check_counts(&t->state.item[i], path, err));
  for (int64_t i = 0; i < t->n_layers; i++) {
    if (isfinite(t->scores.suppressibility[i])) continue;
    return ist_fail(err, IST_ERR_FORMAT,
                    "%s: tensor 'selector.suppressibility': found %g, expected a finite score",
                    path, t->scores.suppressibility[i]);
  }
  return IST_OK;
}

ist_status ist_trainer_load_state(ist_trainer *t, const char *path, ist_error *err) {
  IST_TRY(ist_checkpoint_load(path, &t->state, err));
  return check_state(t, path, err);
}
