/* The plan of a run without its data: every sample as long as max_tokens. */
#include <jansson.h>
#include <string.h>

#include "base/mem.h"
#include "model/model.h"
#include "train/options.h"
#include "train/plan.h"

static ist_status lay_out(ist_adapters *ad, const ist_model *m, const ist_train_options *o,
                          ist_error *err) {
  ist_linear_sizes sizes;
  ist_model_linear_sizes(&m->config, &sizes);
  ist_adapter_config c = {
      .method = o->method, .rank = o->rank, .alpha = o->alpha, .dropout = o->dropout};
  IST_TRY(ist_model_targets(&m->config, o->targets, &c.modules, err));
  return ist_adapters_layout(ad, &c, &sizes, m->config.L, ist_wide(m->compute), err);
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

static ist_status plan_model(const ist_model *m, const ist_train_options *o, char **json,
                             ist_error *err) {
  ist_adapters ad;
  int64_t active;
  IST_TRY(lay_out(&ad, m, o, err));
  IST_TRY(active_layers(&active, m->config.L, o, err));
  const ist_plan_input in = {
      .config = &m->config,
      .weights = &m->weights,
      .adapters = &ad,
      .backend = m->ctx.be,
      .compute = m->compute,
      .active_layers = active,
      .dropout = o->dropout,
      .step = {o->batch * o->max_tokens, o->batch, o->max_tokens, false},
      .probe = {o->probe_batch * o->probe_candidates * o->max_tokens,
                o->probe_batch * o->probe_candidates, o->max_tokens, false},
      .file_bytes = (int64_t)m->gguf->map.size,
      .scratch = "/var/tmp",
      .resident_bytes = ist_memory_resident(),
      .max_memory = o->max_memory,
      .micro_tokens = o->micro_tokens,
      .recompute = ist_recompute_from_name(o->recompute),
      .order = ist_order_from_name(o->order),
  };
  ist_run_plan plan;
  IST_TRY(ist_plan_make(&plan, &in, err));
  json_t *root = ist_plan_to_json(&plan);
  *json = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
  json_decref(root);
  return *json ? IST_OK : ist_fail_nomem(err, "plan", 0);
}

ist_status ist_plan(const char *model_path, const ist_train_options *options, char **json,
                    ist_error *err) {
  *json = NULL;
  ist_train_options o;
  ist_train_options given = *options;
  if (!given.train_path) given.train_path = "(none)"; /* a plan needs no data */
  IST_TRY(ist_options_copy(&o, &given, err));
  ist_model *m = NULL;
  ist_status status = ist_model_open(&m, model_path, NULL, err);
  if (status == IST_OK) status = plan_model(m, &o, json, err);
  ist_model_close(m);
  ist_options_free(&o);
  return status;
}
