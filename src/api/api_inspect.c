/* ist_inspect: a file or directory as JSON. No weights are read. */
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/mem.h"
#include "format/gguf.h"
#include "format/json.h"
#include "format/peft_dir.h"
#include "format/safetensors.h"
#include "format/source.h"
#include "model/config.h"

/* Long arrays (a vocabulary) are shown by their first entries. */
#define SHOWN 8

/* Text of a file as JSON: bytes that are not UTF-8 become '?'. */
static json_t *text(const char *p, size_t len) {
  json_t *s = json_stringn(p, len);
  if (s) return s;
  char *copy = ist_strndup(p, len);
  for (size_t i = 0; copy && i < len; i++) {
    if ((unsigned char)copy[i] >= 0x80) copy[i] = '?';
  }
  s = copy ? json_stringn(copy, len) : NULL;
  ist_free(copy);
  return s;
}

static bool is_integer(ist_gguf_type t) {
  return t != IST_GGUF_F32 && t != IST_GGUF_F64 && t != IST_GGUF_STRING && t != IST_GGUF_BOOL;
}

static json_t *element(const ist_gguf_kv *kv, ist_gguf_type type, uint64_t i) {
  if (type == IST_GGUF_STRING) return text(kv->strings[i].p, kv->strings[i].len);
  double v = ist_gguf_elem_f64(kv, i);
  if (type == IST_GGUF_BOOL) return json_boolean(v != 0);
  /* Doubles hold whole numbers to 2^53; what is beyond is shown as they have it. */
  json_t *out = is_integer(type) && fabs(v) <= 0x1p53 ? json_integer((json_int_t)v) : json_real(v);
  return out ? out : json_null(); /* NaN and infinities, which JSON lacks */
}

/* A single value read through the typed look-ups. */
static json_t *scalar(const ist_gguf *g, const ist_gguf_kv *kv) {
  char *key = ist_strndup(kv->key.p, kv->key.len);
  json_t *out = NULL;
  ist_str s = {0};
  int64_t i = 0;
  double d = 0;
  bool b = false;
  if (!key) return NULL;
  if (kv->type == IST_GGUF_STRING && ist_gguf_get_str(g, key, true, &s, NULL) == IST_OK)
    out = text(s.p, s.len);
  else if (kv->type == IST_GGUF_BOOL && ist_gguf_get_bool(g, key, true, &b, NULL) == IST_OK)
    out = json_boolean(b);
  else if (is_integer(kv->type) && ist_gguf_get_i64(g, key, true, &i, NULL) == IST_OK)
    out = json_integer(i);
  else if (ist_gguf_get_f64(g, key, true, &d, NULL) == IST_OK)
    out = json_real(d);
  ist_free(key);
  return out ? out : json_null();
}

/* NULL: out of memory. */
static json_t *metadata(const ist_gguf *g) {
  json_t *root = json_object();
  for (int64_t i = 0; root && i < g->n_kv; i++) {
    const ist_gguf_kv *kv = &g->kv[i];
    json_t *value;
    if (kv->type == IST_GGUF_ARRAY) {
      json_t *first = json_array();
      for (uint64_t j = 0; j < kv->count && j < SHOWN; j++)
        json_array_append_new(first, element(kv, kv->elem, j));
      value = json_pack("{s:I, s:o}", "count", (json_int_t)kv->count, "first", first);
    } else {
      value = scalar(g, kv);
    }
    if (json_object_setn_new(root, kv->key.p, kv->key.len, value) == 0) continue;
    json_decref(root);
    root = NULL;
  }
  return root;
}

static json_t *tensor_list(const ist_gguf_tensor *tensor, int64_t n, int64_t *parameters,
                           int64_t *bytes) {
  json_t *list = json_array();
  for (int64_t i = 0; i < n; i++) {
    const ist_gguf_tensor *t = &tensor[i];
    json_t *shape = json_array(); /* rows first, as the library speaks of it */
    int64_t elements = 1;
    for (int d = t->n_dims - 1; d >= 0; d--) {
      json_array_append_new(shape, json_integer(t->ne[d]));
      elements *= t->ne[d];
    }
    *parameters += elements;
    *bytes += t->bytes;
    json_array_append_new(
        list,
        json_pack("{s:o, s:s, s:o, s:I}", "name", text(t->name.p, t->name.len), "type",
                  ist_dtype_get(t->type)->name, "shape", shape, "bytes", (json_int_t)t->bytes));
  }
  return list;
}

/* A split file is shown whole. */
static ist_status inspect_gguf(const char *path, json_t **out, ist_error *err) {
  ist_source s;
  IST_TRY(ist_source_open(&s, path, err));
  const ist_gguf *g = s.gguf;
  int64_t parameters = 0, bytes = 0, files = s.n_parts > 1 ? s.n_parts : 1;
  json_t *tensors = tensor_list(s.tensor, s.n, &parameters, &bytes);
  ist_str type = {0};
  ist_gguf_get_str(g, "general.type", false, &type, NULL);
  bool adapter = type.len == 7 && memcmp(type.p, "adapter", 7) == 0;
  *out =
      json_pack("{s:o, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:o}", "path", ist_json_path(path),
                "kind", adapter ? "GGUF adapter" : "GGUF model", "version", (json_int_t)g->version,
                "files", (json_int_t)files, "file_bytes", (json_int_t)s.file_bytes, "parameters",
                (json_int_t)parameters, "tensor_bytes", (json_int_t)bytes, "n_tensors",
                (json_int_t)s.n, "metadata", metadata(g), "tensors", tensors);
  ist_source_close(&s);
  return IST_OK;
}

static json_t *safetensors_json(const ist_safetensors *s, const char *kind) {
  json_t *tensors = json_array(), *meta = json_object();
  int64_t parameters = 0, bytes = 0;
  for (int64_t i = 0; i < s->n; i++) {
    const ist_st_tensor *t = &s->tensor[i];
    json_t *shape = json_array();
    int64_t elements = 1;
    for (int d = 0; d < t->n_dims; d++) {
      json_array_append_new(shape, json_integer(t->shape[d]));
      elements *= t->shape[d];
    }
    parameters += elements;
    bytes += t->bytes;
    json_array_append_new(
        tensors,
        json_pack("{s:o, s:s, s:o, s:I}", "name", text(t->name, strlen(t->name)), "type",
                  ist_dtype_get(t->type)->name, "shape", shape, "bytes", (json_int_t)t->bytes));
  }
  for (int64_t i = 0; i < s->n_meta; i++)
    json_object_set_new(meta, s->meta_key[i], text(s->meta_value[i], strlen(s->meta_value[i])));
  return json_pack("{s:o, s:s, s:I, s:I, s:I, s:I, s:o, s:o}", "path", ist_json_path(s->path),
                   "kind", kind, "file_bytes", (json_int_t)s->map.size, "parameters",
                   (json_int_t)parameters, "tensor_bytes", (json_int_t)bytes, "n_tensors",
                   (json_int_t)s->n, "metadata", meta, "tensors", tensors);
}

static ist_status inspect_safetensors(const char *path, const char *kind, json_t **out,
                                      ist_error *err) {
  ist_safetensors *s;
  IST_TRY(ist_safetensors_open(&s, path, err));
  *out = safetensors_json(s, kind);
  ist_safetensors_close(s);
  return IST_OK;
}

/* Adds DIR/NAME (a JSON file) to the object under `key`, where it is there and can be read. */
static void add_json_file(json_t *root, const char *dir, const char *name, const char *key) {
  char *path = ist_path_join(dir, name);
  json_t *value = NULL;
  ist_error why;
  if (path && ist_file_exists(path) &&
      ist_json_read(&value, path, IST_JSON_SETTINGS, &why) != IST_OK)
    ist_log(IST_LOG_WARN, "left out: %s", why.message);
  if (value) json_object_set_new(root, key, value);
  ist_free(path);
}

static bool has(const char *dir, const char *name) {
  char *path = ist_path_join(dir, name);
  bool there = path && ist_file_exists(path);
  ist_free(path);
  return there;
}

/* A model as Hugging Face keeps it: config.json and one or more safetensors files. */
static ist_status inspect_folder(const char *dir, json_t **out, ist_error *err) {
  ist_source s;
  IST_TRY(ist_source_open_folder(&s, dir, err));
  int64_t parameters = 0, bytes = 0;
  json_t *tensors = tensor_list(s.tensor, s.n, &parameters, &bytes);
  *out = json_pack("{s:o, s:s, s:I, s:I, s:I, s:I, s:I, s:O, s:o}", "path", ist_json_path(dir),
                   "kind", "Hugging Face folder", "files", (json_int_t)s.n_shards, "file_bytes",
                   (json_int_t)s.file_bytes, "parameters", (json_int_t)parameters, "tensor_bytes",
                   (json_int_t)bytes, "n_tensors", (json_int_t)s.n, "metadata", s.config, "tensors",
                   tensors);
  ist_source_close(&s);
  return IST_OK;
}

/* A PEFT directory, a run's output (the same with more files) or a checkpoint. */
static ist_status inspect_directory(const char *dir, json_t **out, ist_error *err) {
  const bool checkpoint = has(dir, "state.safetensors"),
             adapter = has(dir, "adapter_model.safetensors");
  if (!checkpoint && !adapter && has(dir, "config.json")) return inspect_folder(dir, out, err);
  if (!checkpoint && !adapter) {
    return ist_fail(err, IST_ERR_FORMAT,
                    "%s: found none of config.json, adapter_model.safetensors and "
                    "state.safetensors in the directory",
                    dir);
  }
  char *path = ist_path_join(dir, checkpoint ? "state.safetensors" : "adapter_model.safetensors");
  if (!path) return ist_fail_nomem(err, "path", strlen(dir));
  const char *kind = checkpoint ? "checkpoint" : has(dir, "settings.json") ? "run" : "PEFT adapter";
  ist_status status = inspect_safetensors(path, kind, out, err);
  ist_free(path);
  if (status != IST_OK) return status;
  add_json_file(*out, dir, "adapter_config.json", "adapter_config");
  add_json_file(*out, dir, "settings.json", "settings");
  add_json_file(*out, dir, "importance.json", "importance");
  add_json_file(*out, dir, "state.json", "state");
  return IST_OK;
}

static bool ends_with(const char *s, const char *end) {
  size_t n = strlen(s), m = strlen(end);
  return n >= m && strcmp(s + n - m, end) == 0;
}

ist_status ist_inspect(const char *path, char **json, ist_error *err) {
  *json = NULL;
  struct stat st;
  json_t *root = NULL;
  ist_status status;
  if (stat(path, &st) == 0 && S_ISDIR(st.st_mode)) {
    status = inspect_directory(path, &root, err);
  } else if (ends_with(path, ".safetensors")) {
    status = inspect_safetensors(path, "safetensors", &root, err);
  } else {
    status = inspect_gguf(path, &root, err);
  }
  if (status != IST_OK) return status;
  *json = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
  json_decref(root);
  return *json ? IST_OK : ist_fail_nomem(err, "description", 0);
}

ist_status ist_families(char **json, ist_error *err) {
  json_t *list = json_array();
  const ist_arch *row;
  for (int64_t i = 0; (row = ist_arch_at(i)); i++) {
    json_array_append_new(list, json_pack("{s:s, s:s, s:s?}", "family", row->title, "folder",
                                          row->hf, "gguf", row->gguf));
  }
  json_t *root = json_pack("{s:o}", "families", list);
  *json = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
  json_decref(root);
  return *json ? IST_OK : ist_fail_nomem(err, "families", 0);
}
