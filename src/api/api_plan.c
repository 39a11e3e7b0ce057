/* The plan of a run without its data: every sample as long as max_tokens. */
#include <jansson.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "model/model.h"
#include "model/targets.h"
#include "train/options.h"
#include "train/plan.h"

static ist_status lay_out(ist_adapters *ad, const ist_model *m, const ist_train_options *o,
                          ist_error *err) {
  ist_linear_sizes sizes;
  ist_model_linear_sizes(&m->config, &sizes);
  ist_adapter_config c;
  IST_TRY(ist_options_adapter(o, &m->config, &c, err));
  ist_status s = ist_adapters_layout(ad, &c, &sizes, m->config.L, ist_wide(m->compute), err);
  if (s != IST_OK) ist_targets_free(&c);
  return s;
}

static int64_t layers_with_adapters(const ist_adapters *ad) {
  int64_t n = 0;
  for (int64_t l = 0; l < ad->L; l++) n += ist_adapter_in_layer(ad, l);
  return n;
}

static ist_status active_layers(int64_t *out, int64_t L, const ist_train_options *o,
                                ist_error *err) {
  ist_select_options so;
  int32_t *fixed;
  IST_TRY(ist_options_selector(o, &so, &fixed, err));
  *out = ist_options_active(&so, L);
  ist_free(fixed);
  return IST_OK;
}

/* Rows of the largest pass when every sample has max_tokens tokens. */
static int64_t whole_samples(void *user, int64_t micro) {
  const ist_train_options *o = user;
  int64_t samples = micro / o->max_tokens;
  return (samples < 1 ? 1 : samples > o->batch ? o->batch : samples) * o->max_tokens;
}

/* `resident`: what the process held before the first plan. */
static ist_status plan_once(ist_run_plan *plan, const ist_model *m, const ist_train_options *o,
                            int64_t resident, ist_error *err) {
  ist_adapters ad;
  int64_t active = 0;
  IST_TRY(lay_out(&ad, m, o, err));
  int64_t n_layers = layers_with_adapters(&ad);
  ist_status s = active_layers(&active, n_layers, o, err);
  bool probes = ist_options_probes(o);
  int64_t probe = probes ? o->probe_batch * o->probe_candidates : 1;
  ist_plan_input in = ist_plan_input_of(m, o, &ad, active);
  in.step = (ist_runner_limits){o->batch * o->max_tokens, o->batch, o->max_tokens, false};
  in.probe = (ist_runner_limits){probe * o->max_tokens, probe, o->max_tokens, false};
  in.resident_bytes = resident;
  in.moment_layers = ist_moment_layers(o, n_layers, active, o->steps);
  in.largest_pass = whole_samples;
  in.user = (void *)(uintptr_t)o;
  if (s == IST_OK) s = ist_plan_make(plan, &in, err);
  ist_targets_free(&ad.config);
  return s;
}

/* ---- What would still fit ---------------------------------------------------------- */

enum { BATCH, LENGTH, RANK, QUESTIONS };

static int64_t *setting(ist_train_options *o, int which) {
  return which == BATCH ? &o->batch : which == LENGTH ? &o->max_tokens : &o->rank;
}

static bool fits(const ist_model *m, const ist_train_options *o, int which, int64_t value,
                 int64_t resident) {
  ist_train_options other = *o;
  ist_run_plan plan;
  ist_error err;
  *setting(&other, which) = value;
  return plan_once(&plan, m, &other, resident, &err) == IST_OK;
}

/* The largest value of one setting, the others as they are, that fits in `limit`; at
 * most `most`. The setting as given fits. */
static int64_t largest(const ist_model *m, const ist_train_options *given, int which, int64_t most,
                       int64_t limit, int64_t resident) {
  ist_train_options o = *given;
  o.max_memory = limit;
  int64_t low = *setting(&o, which), high = low;
  if (low >= most) return low;
  do {
    low = high;
    high = 2 * high < most ? 2 * high : most;
    if (!fits(m, &o, which, high, resident)) break;
    if (high == most) return most;
  } while (true);
  while (high - low > 1 + low / 64) { /* to a few percent */
    int64_t middle = low + (high - low) / 2;
    if (fits(m, &o, which, middle, resident))
      low = middle;
    else
      high = middle;
  }
  return low;
}

/* Powers of ten are no answer to these: batch up to 4096, the model's own context, and
 * ranks up to the width of the model. */
static json_t *what_fits(const ist_model *m, const ist_train_options *o, const ist_run_plan *plan,
                         int64_t resident) {
  int64_t context = m->config.context > 0 ? m->config.context : o->max_tokens;
  return json_pack("{s:I, s:I, s:I, s:I}", "memory_bytes", (json_int_t)plan->limit, "batch",
                   (json_int_t)largest(m, o, BATCH, 4096, plan->limit, resident), "max_tokens",
                   (json_int_t)largest(m, o, LENGTH, context, plan->limit, resident), "rank",
                   (json_int_t)largest(m, o, RANK, m->config.D < 4096 ? m->config.D : 4096,
                                       plan->limit, resident));
}

/* ---- Layer by layer ------------------------------------------------------------------- */

/* What a layer adds: its part of the file, its adapters with moments, and what a step
 * keeps of it for backward (attention and MLP halves; the input, always). */
static json_t *layers_of(const ist_model *m, const ist_train_options *o, const ist_run_plan *plan,
                         ist_error *err) {
  ist_adapters ad;
  const ist_model_config *c = &m->config;
  if (lay_out(&ad, m, o, err) != IST_OK) return NULL;
  ist_targets_free(&ad.config);
  int64_t params = ad.layout.params * ist_dtype_bytes(ad.dt, 1), element, wide;
  element = ist_dtype_bytes(m->compute, 1);
  wide = ist_dtype_bytes(ist_wide(m->compute), 1);
  int64_t rows = plan->sizes.rows, q = c->H * c->E, kv = c->K * c->E;
  int64_t kept = plan->sizes.spill ? 0 : plan->sizes.boundary_rows * c->D * element;
  if (plan->recompute != IST_RECOMPUTE_LAYER)
    kept += rows * ((2 * q + 2 * kv + c->D) * element + (c->H + 4) * wide);
  if (plan->recompute == IST_RECOMPUTE_NONE) kept += rows * 2 * c->F * element;
  json_t *list = json_array();
  for (int64_t l = 0; list && l < c->L; l++) {
    char name[32];
    snprintf(name, sizeof name, "layer.%lld", (long long)l);
    int64_t file = ist_weights_bytes_of(&m->weights, l);
    int64_t moments = plan->moments_on_disk ? 0 : 2 * params;
    json_array_append_new(
        list, json_pack("{s:s, s:I, s:I, s:I, s:I}", "name", name, "file_bytes", (json_int_t)file,
                        "adapter_bytes", (json_int_t)(params + moments), "kept_bytes",
                        (json_int_t)kept, "bytes", (json_int_t)(file + params + moments + kept)));
  }
  return list;
}

static ist_status plan_model(const ist_model *m, const ist_train_options *o, char **json,
                             ist_error *err) {
  ist_source_drop_pages(&m->source);
  int64_t resident = ist_memory_resident(NULL, 0) + m->unmade_bytes;
  ist_run_plan plan;
  IST_TRY(plan_once(&plan, m, o, resident, err));
  json_t *root = ist_plan_to_json(&plan), *layers = root ? layers_of(m, o, &plan, err) : NULL;
  if (!layers || json_object_set_new(root, "layers", layers) != 0 ||
      json_object_set_new(root, "largest_that_fits", what_fits(m, o, &plan, resident)) != 0) {
    json_decref(root);
    return ist_fail_nomem(err, "plan", 0);
  }
  *json = json_dumps(root, JSON_INDENT(2));
  json_decref(root);
  return *json ? IST_OK : ist_fail_nomem(err, "plan", 0);
}

ist_status ist_plan(const char *model_path, const ist_model_options *model,
                    const ist_train_options *options, char **json, ist_error *err) {
  *json = NULL;
  ist_train_options o;
  ist_train_options given = *options;
  if (!given.train_path) given.train_path = "(none)"; /* a plan needs no data */
  IST_TRY(ist_options_copy(&o, &given, err));
  ist_model *m = NULL;
  ist_status status = ist_model_open_for_plan(&m, model_path, model, err);
  if (status == IST_OK) status = plan_model(m, &o, json, err);
  ist_model_close(m);
  ist_options_free(&o);
  return status;
}
