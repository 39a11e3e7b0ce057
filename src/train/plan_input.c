/* What a plan is made from, as far as the model and the options tell. */
#include <stdlib.h>

#include "model/model.h"
#include "train/options.h"
#include "train/plan.h"

const char *ist_scratch_folder(const ist_train_options *o) {
  const char *tmp = getenv("TMPDIR");
  return o && o->output ? o->output : tmp && *tmp ? tmp : "/var/tmp";
}

ist_plan_input ist_plan_input_of(const ist_model *m, const ist_train_options *o,
                                 const ist_adapters *ad, int64_t active_layers) {
  return (ist_plan_input){
      .config = &m->config,
      .weights = &m->weights,
      .adapters = ad,
      .backend = m->ctx.be,
      .compute = m->compute,
      .active_layers = active_layers,
      .depth_floor = ist_depth_floor(o, m->config.L),
      .dropout = o->dropout,
      .file_bytes = ist_model_file_bytes(m),
      .max_memory = o->max_memory,
      .scratch = ist_scratch_folder(o),
      .disk_free = ist_disk_free(ist_scratch_folder(o)),
      .micro_tokens = o->micro_tokens,
      .recompute = ist_recompute_from_name(o->recompute),
      .order = ist_order_from_name(o->order),
  };
}
