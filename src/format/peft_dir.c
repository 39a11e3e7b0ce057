/* Reader of PEFT adapter directories. */
#include "format/peft_dir.h"

#include <inttypes.h>
#include <math.h>

#include "format/json.h"

static ist_status fail_kind(const char *key, const json_t *v, const char *expected,
                            ist_error *err) {
  return ist_fail(err, IST_ERR_FORMAT, "%s is %s, expected %s", key, ist_json_kind(v), expected);
}

/* ---- Single values. An absent key and null leave *out alone. ---- */

static const json_t *value_of(const json_t *root, const char *key) {
  const json_t *v = json_object_get(root, key);
  return json_is_null(v) ? NULL : v;
}

static ist_status get_bool(const json_t *root, const char *key, bool *out, ist_error *err) {
  const json_t *v = value_of(root, key);
  if (!v) return IST_OK;
  if (!json_is_boolean(v)) return fail_kind(key, v, "true or false", err);
  *out = json_is_true(v);
  return IST_OK;
}

static ist_status get_number(const json_t *root, const char *key, double *out, ist_error *err) {
  const json_t *v = value_of(root, key);
  if (!v) return IST_OK;
  if (!json_is_number(v)) return fail_kind(key, v, "a number", err);
  *out = json_number_value(v);
  return IST_OK;
}

static ist_status get_string(const json_t *root, const char *key, const char **out,
                             ist_error *err) {
  const json_t *v = value_of(root, key);
  if (!v) return IST_OK;
  if (!json_is_string(v)) return fail_kind(key, v, "a string", err);
  *out = json_string_value(v);
  return IST_OK;
}

/* ---- Lists ---- */

/* A list of strings, or one string where `single` is not NULL. */
static ist_status get_names(const json_t *root, const char *key, ist_peft_names *out,
                            const char **single, ist_error *err) {
  const json_t *v = value_of(root, key);
  if (!v) return IST_OK;
  if (single && json_is_string(v)) {
    *single = json_string_value(v);
    return IST_OK;
  }
  if (!json_is_array(v)) return fail_kind(key, v, single ? "a list or a string" : "a list", err);
  size_t n = json_array_size(v);
  const char **p = ist_calloc(n, sizeof *p);
  if (!p) return ist_fail_nomem(err, key, n * sizeof *p);
  *out = (ist_peft_names){p, (int64_t)n};
  for (size_t i = 0; i < n; i++) {
    const json_t *item = json_array_get(v, i);
    if (!json_is_string(item)) return fail_kind(key, item, "strings in the list", err);
    p[i] = json_string_value(item);
  }
  return IST_OK;
}

static ist_status get_layers(const json_t *root, ist_peft_config *c, ist_error *err) {
  static const char key[] = "layers_to_transform";
  const json_t *v = value_of(root, key);
  if (!v) return IST_OK;
  if (!json_is_array(v) && !json_is_integer(v))
    return fail_kind(key, v, "an integer or a list", err);
  size_t n = json_is_array(v) ? json_array_size(v) : 1;
  int64_t *layers = ist_calloc(n, sizeof *layers);
  if (!layers) return ist_fail_nomem(err, key, n * sizeof *layers);
  c->layers = layers;
  c->n_layers = (int64_t)n;
  for (size_t i = 0; i < n; i++) {
    const json_t *item = json_is_array(v) ? json_array_get(v, i) : v;
    if (!json_is_integer(item) || json_integer_value(item) < 0)
      return ist_fail(err, IST_ERR_FORMAT, "%s: entry %zu is not a layer number", key, i);
    layers[i] = json_integer_value(item);
  }
  return IST_OK;
}

static ist_status get_pattern(const json_t *root, const char *key, const ist_peft_pattern **out,
                              int64_t *n_out, ist_error *err) {
  json_t *v = json_object_get(root, key);
  if (!v || json_is_null(v)) return IST_OK;
  if (!json_is_object(v)) return fail_kind(key, v, "an object", err);
  ist_peft_pattern *p = ist_calloc(json_object_size(v), sizeof *p);
  if (!p) return ist_fail_nomem(err, key, json_object_size(v) * sizeof *p);
  *out = p;
  const char *name;
  json_t *value;
  json_object_foreach(v, name, value) {
    if (!json_is_number(value))
      return ist_fail(err, IST_ERR_FORMAT, "%s '%s' is %s, expected a number", key, name,
                      ist_json_kind(value));
    p[(*n_out)++] = (ist_peft_pattern){name, json_number_value(value)};
  }
  return IST_OK;
}

/* ---- What we refuse ---- */

/* Absent, null, false, an empty object or an empty list: the feature is off. */
static bool is_off(const json_t *v) {
  return !v || json_is_null(v) || json_is_false(v) || (json_is_object(v) && !json_object_size(v)) ||
         (json_is_array(v) && !json_array_size(v));
}

/* Keys that are read here, or say nothing about what the tensors mean: eva_config
 * describes the initial values only, and its ranks are in rank_pattern. */
static const char *const known_keys[] = {
    "alpha_pattern",
    "auto_mapping",
    "base_model_name_or_path",
    "bias",
    "eva_config",
    "exclude_modules",
    "fan_in_fan_out",
    "inference_mode",
    "init_lora_weights",
    "layers_pattern",
    "layers_to_transform",
    "lora_alpha",
    "lora_bias",
    "lora_dropout",
    "megatron_core",
    "modules_to_save",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "r",
    "rank_pattern",
    "revision",
    "runtime_config",
    "target_modules",
    "task_type",
    "use_dora",
    "use_rslora",
};

/* Any other key may change what the tensors mean (layer_replication, target_parameters, what
 * a version of PEFT to come adds), unless it is off. */
static ist_status refuse_features(json_t *root, const char *const *names, size_t n,
                                  ist_error *err) {
  const char *name;
  json_t *value;
  json_object_foreach(root, name, value) {
    bool known = is_off(value);
    for (size_t i = 0; !known && i < n; i++) known = strcmp(name, names[i]) == 0;
    if (!known)
      return ist_fail(err, IST_ERR_UNSUPPORTED, "adapters with %s are not supported", name);
  }
  const char *bias = "none";
  IST_TRY(get_string(root, "bias", &bias, err));
  if (strcmp(bias, "none") != 0)
    return ist_fail(err, IST_ERR_UNSUPPORTED, "bias is '%s', only 'none' is supported", bias);
  return IST_OK;
}

/* Initialisations that subtract the first adapter from the base (PiSSA, OLoRA,
 * CorDA, LoftQ, LoRA-GA ...) fit no other copy of the base. */
static ist_status check_init(const json_t *root, ist_error *err) {
  static const char *const harmless[] = {"gaussian", "eva", "orthogonal"};
  const json_t *v = value_of(root, "init_lora_weights");
  if (!v || json_is_boolean(v)) return IST_OK;
  if (!json_is_string(v)) return fail_kind("init_lora_weights", v, "true, false or a string", err);
  for (size_t i = 0; i < sizeof harmless / sizeof harmless[0]; i++)
    if (strcmp(json_string_value(v), harmless[i]) == 0) return IST_OK;
  ist_fail(err, IST_ERR_UNSUPPORTED,
           "init_lora_weights is '%s': such an adapter belongs to a changed "
           "base",
           json_string_value(v));
  ist_hint(err,
           "save it in PEFT with path_initial_model_for_weight_conversion, which makes a plain "
           "LoRA of it");
  return IST_ERR_UNSUPPORTED;
}

static ist_status get_type(const json_t *root, ist_peft_type *out, ist_error *err) {
  const char *type = NULL;
  IST_TRY(get_string(root, "peft_type", &type, err));
  if (!type && json_object_get(root, "lora_parameters"))
    return ist_fail(err, IST_ERR_UNSUPPORTED, "this is an adapter of mlx-lm, expected one of PEFT");
  if (!type) return ist_fail(err, IST_ERR_FORMAT, "peft_type is missing");
  static const char *const types[] = {"LORA", "BOTTLENECK", "IST_PREFIX"};
  for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
    if (strcmp(type, types[i]) != 0) continue;
    *out = (ist_peft_type)i;
    return IST_OK;
  }
  return ist_fail(err, IST_ERR_UNSUPPORTED,
                  "peft_type is '%s', only LORA and ist's BOTTLENECK and IST_PREFIX are supported",
                  type);
}

static ist_status check_numbers(const ist_peft_config *c, ist_error *err) {
  if (!isfinite(c->alpha)) return ist_fail(err, IST_ERR_FORMAT, "lora_alpha is %g", c->alpha);
  if (!(c->dropout >= 0 && c->dropout < 1))
    return ist_fail(err, IST_ERR_FORMAT, "lora_dropout is %g, expected 0 <= p < 1", c->dropout);
  for (int64_t i = 0; i < c->n_rank_pattern; i++) {
    double r = c->rank_pattern[i].value;
    if (!(r >= 1 && r <= INT32_MAX && r == floor(r)))
      return ist_fail(err, IST_ERR_FORMAT, "rank_pattern '%s' is %g, expected a whole number >= 1",
                      c->rank_pattern[i].key, r);
  }
  for (int64_t i = 0; i < c->n_alpha_pattern; i++)
    if (!isfinite(c->alpha_pattern[i].value))
      return ist_fail(err, IST_ERR_FORMAT, "alpha_pattern '%s' is %g", c->alpha_pattern[i].key,
                      c->alpha_pattern[i].value);
  return IST_OK;
}

/* ---- The two files ---- */

static ist_status get_size(const json_t *root, const char *key, int64_t otherwise, int64_t *r,
                           ist_error *err) {
  const json_t *v = value_of(root, key);
  *r = otherwise;
  if (!v) return IST_OK;
  if (!json_is_integer(v)) return fail_kind(key, v, "an integer", err);
  *r = json_integer_value(v);
  if (*r < 1 || *r > INT32_MAX)
    return ist_fail(err, IST_ERR_FORMAT, "%s is %" PRId64 ", expected a whole number >= 1", key,
                    *r);
  return IST_OK;
}

/* A bottleneck, as the IST authors' config has it; rank_pattern and layers are ist's own. */
static ist_status read_bottleneck(json_t *root, ist_peft_config *c, ist_error *err) {
  static const char *const known[] = {"adapter_dropout",
                                      "auto_mapping",
                                      "base_model_name_or_path",
                                      "bias",
                                      "bottleneck_size",
                                      "fan_in_fan_out",
                                      "inference_mode",
                                      "init_weights",
                                      "layers_to_transform",
                                      "non_linearity",
                                      "peft_type",
                                      "rank_pattern",
                                      "revision",
                                      "scaling",
                                      "target_modules",
                                      "task_type",
                                      "use_parallel_adapter"};
  IST_TRY(refuse_features(root, known, sizeof known / sizeof known[0], err));
  IST_TRY(get_size(root, "bottleneck_size", 256, &c->r, err));
  IST_TRY(get_number(root, "adapter_dropout", &c->dropout, err));
  IST_TRY(get_bool(root, "use_parallel_adapter", &c->parallel, err));
  c->non_linearity = "tanh";
  IST_TRY(get_string(root, "non_linearity", &c->non_linearity, err));
  c->scaling = 1;
  const json_t *scaling = value_of(root, "scaling");
  bool learned = json_is_string(scaling) && strcmp(json_string_value(scaling), "learned") == 0;
  if (!learned) IST_TRY(get_number(root, "scaling", &c->scaling, err));
  if (!learned && !(c->scaling > 0 && isfinite(c->scaling)))
    return ist_fail(err, IST_ERR_FORMAT, "scaling is %g, expected \"learned\" or a number above 0",
                    c->scaling);
  if (learned) c->scaling = 0;
  c->alpha = 1;
  IST_TRY(get_names(root, "target_modules", &c->targets, &c->target_regex, err));
  IST_TRY(get_pattern(root, "rank_pattern", &c->rank_pattern, &c->n_rank_pattern, err));
  IST_TRY(get_layers(root, c, err));
  return check_numbers(c, err);
}

static ist_status read_prefix(json_t *root, ist_peft_config *c, ist_error *err) {
  static const char *const known[] = {"base_model_name_or_path", "num_virtual_tokens", "peft_type"};
  IST_TRY(refuse_features(root, known, sizeof known / sizeof known[0], err));
  c->alpha = 1;
  return get_size(root, "num_virtual_tokens", 1, &c->virtual_tokens, err);
}

static ist_status read_config(json_t *root, ist_peft_config *c, ist_error *err) {
  IST_TRY(get_type(root, &c->type, err));
  if (c->type == IST_PEFT_BOTTLENECK) return read_bottleneck(root, c, err);
  if (c->type == IST_PEFT_PREFIX) return read_prefix(root, c, err);
  IST_TRY(refuse_features(root, known_keys, sizeof known_keys / sizeof known_keys[0], err));
  IST_TRY(check_init(root, err));
  IST_TRY(get_size(root, "r", 8, &c->r, err)); /* PEFT's default */
  c->alpha = 8;
  IST_TRY(get_number(root, "lora_alpha", &c->alpha, err));
  IST_TRY(get_number(root, "lora_dropout", &c->dropout, err));
  IST_TRY(get_bool(root, "use_rslora", &c->rslora, err));
  IST_TRY(get_bool(root, "use_dora", &c->dora, err));
  IST_TRY(get_bool(root, "lora_bias", &c->lora_bias, err));
  if (c->dora && c->lora_bias) /* nor by PEFT */
    return ist_fail(err, IST_ERR_UNSUPPORTED, "use_dora together with lora_bias is not supported");
  IST_TRY(get_bool(root, "fan_in_fan_out", &c->fan_in_fan_out, err));
  IST_TRY(get_string(root, "base_model_name_or_path", &c->base_model, err));
  IST_TRY(get_names(root, "target_modules", &c->targets, &c->target_regex, err));
  IST_TRY(get_names(root, "exclude_modules", &c->exclude, &c->exclude_regex, err));
  IST_TRY(get_names(root, "modules_to_save", &c->modules_to_save, NULL, err));
  IST_TRY(get_pattern(root, "rank_pattern", &c->rank_pattern, &c->n_rank_pattern, err));
  IST_TRY(get_pattern(root, "alpha_pattern", &c->alpha_pattern, &c->n_alpha_pattern, err));
  IST_TRY(get_layers(root, c, err));
  const char *pattern = NULL;
  IST_TRY(get_names(root, "layers_pattern", &c->layers_pattern, &pattern, err));
  if (pattern) {
    const char **one = ist_calloc(1, sizeof *one);
    if (!one) return ist_fail_nomem(err, "layers_pattern", sizeof *one);
    *one = pattern;
    c->layers_pattern = (ist_peft_names){one, 1};
  }
  return check_numbers(c, err);
}

static ist_status open_config(ist_peft_dir *d, const char *path, ist_error *err) {
  ist_buf text = {0};
  json_t *root = NULL;
  ist_status s = ist_file_read(&text, path, IST_JSON_SETTINGS.text, err);
  if (s == IST_OK) {
    s = ist_json_parse(&root, text.p, text.len, err);
    if (s == IST_OK) {
      d->owned = root;
      s = read_config(root, &d->config, err);
    }
    if (s != IST_OK) ist_error_context(err, "%s", path);
  }
  ist_buf_free(&text);
  return s;
}

static ist_status open_tensors(ist_peft_dir *d, const char *dir, ist_error *err) {
  char *path = ist_path_join(dir, "adapter_model.safetensors");
  char *pickle = ist_path_join(dir, "adapter_model.bin");
  ist_status s = IST_OK;
  if (!path || !pickle) {
    s = ist_fail_nomem(err, dir, strlen(dir));
  } else if (!ist_file_exists(path) && ist_file_exists(pickle)) {
    s = ist_fail(err, IST_ERR_UNSUPPORTED,
                 "%s: a Python pickle, which can run any code when it is "
                 "read; expected adapter_model.safetensors",
                 pickle);
    ist_hint(err,
             "load the adapter in PEFT and save it with save_pretrained(..., "
             "safe_serialization=True)");
  } else {
    s = ist_safetensors_open(&d->tensors, path, err);
  }
  ist_free(path);
  ist_free(pickle);
  return s;
}

ist_status ist_peft_open(ist_peft_dir **out, const char *dir, ist_error *err) {
  *out = NULL;
  char *path = ist_path_join(dir, "adapter_config.json");
  ist_peft_dir *d = ist_calloc(1, sizeof *d);
  ist_status s = path && d ? open_config(d, path, err) : ist_fail_nomem(err, dir, strlen(dir));
  if (s == IST_OK) s = open_tensors(d, dir, err);
  ist_free(path);
  if (s == IST_OK)
    *out = d;
  else
    ist_peft_close(d);
  return s;
}

ist_status ist_peft_check_weights(const ist_peft_dir *d, const char *dir, const char *purpose,
                                  ist_error *err) {
  if (d->config.type == IST_PEFT_LORA) return IST_OK;
  return ist_fail(err, IST_ERR_UNSUPPORTED,
                  "%s: found a %s, which works beside the weights and cannot be %s", dir,
                  d->config.type == IST_PEFT_PREFIX ? "prefix" : "bottleneck adapter", purpose);
}

void ist_peft_close(ist_peft_dir *d) {
  if (!d) return;
  ist_safetensors_close(d->tensors);
  ist_free((void *)d->config.targets.p);
  ist_free((void *)d->config.exclude.p);
  ist_free((void *)d->config.modules_to_save.p);
  ist_free((void *)d->config.layers_pattern.p);
  ist_free((void *)d->config.rank_pattern);
  ist_free((void *)d->config.alpha_pattern);
  ist_free((void *)d->config.layers);
  json_decref(d->owned);
  ist_free(d);
}
