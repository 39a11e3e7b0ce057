/* Writer of PEFT adapter directories. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "format/json.h"
#include "format/peft_dir.h"

/* Passes a container on, or NULL where an element could not be put into it. */
static json_t *whole(json_t *container, int failures) {
  if (failures == 0) return container;
  json_decref(container);
  return NULL;
}

/* null where there is nothing: PEFT tells an empty list from an absent one. */
static json_t *names_json(ist_peft_names names, const char *regex) {
  if (regex) return json_string(regex);
  if (names.n == 0) return json_null();
  json_t *list = json_array();
  int failures = 0;
  for (int64_t i = 0; i < names.n; i++)
    failures |= json_array_append_new(list, json_string(names.p[i]));
  return whole(list, failures);
}

/* As Python would print it: an integer where the value is one. */
static json_t *number_json(double v) {
  return v == floor(v) && fabs(v) < 1e15 ? json_integer((json_int_t)v) : json_real(v);
}

static json_t *pattern_json(const ist_peft_pattern *p, int64_t n) {
  json_t *o = json_object();
  int failures = 0;
  for (int64_t i = 0; i < n; i++)
    failures |= json_object_set_new(o, p[i].key, number_json(p[i].value));
  return whole(o, failures);
}

static json_t *layers_json(const int64_t *layers, int64_t n) {
  if (n == 0) return json_null();
  json_t *list = json_array();
  int failures = 0;
  for (int64_t i = 0; i < n; i++) failures |= json_array_append_new(list, json_integer(layers[i]));
  return whole(list, failures);
}

/* Fifteen digits show 0.05 as 0.05; seventeen are kept for values that need them. */
static size_t digits_for(double v) {
  char text[40];
  snprintf(text, sizeof text, "%.15g", v);
  return strtod(text, NULL) == v ? 15 : 17;
}

/* Keys that PEFT has had for years, so that older versions do not warn either;
 * what is left out has its default in every version. NULL when out of memory. */
static json_t *config_json(const ist_peft_config *c) {
  return json_pack(
      "{s:s, s:s, s:o, s:n, s:n, s:b, s:I, s:o, s:f, s:s, s:b, s:b, s:b, s:b, s:{}, s:o, s:o, s:o,"
      " s:o, s:o, s:o, s:o}",
      "peft_type", "LORA", "task_type", "CAUSAL_LM", "base_model_name_or_path",
      c->base_model ? ist_json_path(c->base_model) : json_null(), "revision", "auto_mapping",
      "inference_mode", 1, "r", (json_int_t)c->r, "lora_alpha", number_json(c->alpha),
      "lora_dropout", c->dropout, "bias", "none", "use_rslora", c->rslora, "use_dora", c->dora,
      "fan_in_fan_out", c->fan_in_fan_out, "init_lora_weights", 1, "loftq_config", "target_modules",
      names_json(c->targets, c->target_regex), "exclude_modules",
      names_json(c->exclude, c->exclude_regex), "modules_to_save",
      names_json(c->modules_to_save, NULL), "rank_pattern",
      pattern_json(c->rank_pattern, c->n_rank_pattern), "alpha_pattern",
      pattern_json(c->alpha_pattern, c->n_alpha_pattern), "layers_to_transform",
      layers_json(c->layers, c->n_layers), "layers_pattern", names_json(c->layers_pattern, NULL));
}

static ist_status write_config(const char *path, const ist_peft_config *c, ist_error *err) {
  json_t *root = config_json(c);
  if (c->lora_bias && root && json_object_set_new(root, "lora_bias", json_true()) != 0)
    root = whole(root, 1);
  size_t digits = digits_for(c->dropout);
  if (digits == 15) digits = digits_for(c->alpha);
  char *text =
      root ? json_dumps(root, JSON_SORT_KEYS | JSON_INDENT(2) | JSON_REAL_PRECISION(digits)) : NULL;
  json_decref(root);
  if (!text)
    return ist_fail(err, IST_ERR_ARG,
                    "%s: cannot be written: a name is not UTF-8 text, or memory "
                    "ran out",
                    path);
  ist_status s = ist_file_write(path, text, strlen(text), err);
  free(text);
  return s;
}

ist_status ist_peft_write(const char *dir, const ist_peft_config *c, const ist_st_item *tensors,
                          int64_t n, ist_error *err) {
  IST_TRY(ist_mkdirs(dir, err));
  char *weights = ist_path_join(dir, "adapter_model.safetensors");
  char *config = ist_path_join(dir, "adapter_config.json");
  ist_status s = weights && config ? IST_OK : ist_fail_nomem(err, dir, strlen(dir));
  if (s == IST_OK) s = ist_safetensors_write(weights, tensors, n, NULL, 0, err);
  if (s == IST_OK) s = write_config(config, c, err);
  ist_free(weights);
  ist_free(config);
  return s;
}
