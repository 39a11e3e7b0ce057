/* The end of a run: the best adapter in every format, importance, settings. */
#include <jansson.h>

#include "export/adapter_files.h"
#include "train/trainer.h"

/* One entry a layer that has adapters: the selector's score and how often it was observed and
 * drawn. */
static json_t *importance_json(const ist_trainer *t) {
  json_t *layers = json_array();
  for (int64_t i = 0; i < t->n_layers; i++) {
    int32_t l = t->layer_of[i];
    json_t *one =
        json_pack("{s:i, s:f, s:f, s:I, s:I, s:I}", "layer", (int)l, "importance",
                  ist_selector_importance(t->selector, i), "suppressibility",
                  t->scores.suppressibility[i], "observed", (json_int_t)t->scores.observed[i],
                  "drawn", (json_int_t)t->scores.drawn[i], "steps", (json_int_t)t->layer_steps[l]);
    if (!one || json_array_append_new(layers, one) != 0) {
      json_decref(layers);
      return NULL;
    }
  }
  return json_pack("{s:s, s:I, s:o}", "selector", ist_selector_name(t->selector), "step",
                   (json_int_t)t->progress.step, "layers", layers);
}

ist_status ist_trainer_finish(ist_trainer *t, ist_error *err) {
  const char *dir = t->options.output;
  if (!dir) return ist_fail(err, IST_ERR_ARG, "finish: found no output directory");
  t->ended = true;
  IST_TRY(ist_trainer_restore_best(t, err));
  IST_TRY(ist_adapter_save(dir, &t->adapters, t->model, err));
  IST_TRY(ist_write_json(dir, "importance.json", importance_json(t), err));
  return ist_write_json(dir, "settings.json", ist_trainer_settings(t), err);
}
