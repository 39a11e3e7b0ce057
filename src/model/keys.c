/* Settings of a model by name, from a GGUF's keys or from config.json. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "model/config.h"

/* "{arch}.{key}" */
static void gguf_name(char *out, size_t size, const ist_source *s, const char *key) {
  ist_str arch = {"", 0};
  ist_gguf_get_str(s->gguf, "general.architecture", false, &arch, NULL);
  snprintf(out, size, "%.*s.%s", (int)arch.len, arch.p, key);
}

static const json_t *member(const json_t *object, const char *names, size_t len) {
  const json_t *v = json_object_getn(object, names, len);
  return json_is_null(v) ? NULL : v;
}

const json_t *ist_key_json(const ist_source *s, const char *hf) {
  if (!s->config || !hf) return NULL;
  const json_t *text = json_object_get(s->config, "text_config");
  for (const char *p = hf;; p++) {
    size_t len = strcspn(p, "|");
    const json_t *v = json_is_object(text) ? member(text, p, len) : NULL;
    if (!v) v = member(s->config, p, len);
    if (v) return v;
    p += len;
    if (*p == '\0') return NULL;
  }
}

static ist_status wrong_kind(const json_t *v, const char *hf, const char *expected,
                             ist_error *err) {
  return ist_fail(err, IST_ERR_FORMAT, "config.json: %s: found %s, expected %s", hf,
                  ist_json_kind(v), expected);
}

static ist_status absent(const char *hf, ist_error *err) {
  return ist_fail(err, IST_ERR_FORMAT, "config.json: %s: found no such key", hf);
}

ist_status ist_key_i64(const ist_source *s, const char *gguf, const char *hf, bool required,
                       int64_t *out, ist_error *err) {
  if (s->gguf) {
    char name[128];
    if (!gguf) return IST_OK;
    gguf_name(name, sizeof name, s, gguf);
    return ist_gguf_get_i64(s->gguf, name, required, out, err);
  }
  const json_t *v = ist_key_json(s, hf);
  if (!v) return required && hf ? absent(hf, err) : IST_OK;
  if (json_is_real(v) && fabs(json_real_value(v)) < 1e15 &&
      json_real_value(v) == floor(json_real_value(v))) {
    *out = (int64_t)json_real_value(v);
    return IST_OK;
  }
  if (!json_is_integer(v)) return wrong_kind(v, hf, "an integer", err);
  *out = json_integer_value(v);
  return IST_OK;
}

ist_status ist_key_f64(const ist_source *s, const char *gguf, const char *hf, bool required,
                       double *out, ist_error *err) {
  if (s->gguf) {
    char name[128];
    if (!gguf) return IST_OK;
    gguf_name(name, sizeof name, s, gguf);
    return ist_gguf_get_f64(s->gguf, name, required, out, err);
  }
  const json_t *v = ist_key_json(s, hf);
  if (!v) return required && hf ? absent(hf, err) : IST_OK;
  if (!json_is_number(v)) return wrong_kind(v, hf, "a number", err);
  *out = json_number_value(v);
  return IST_OK;
}

ist_status ist_key_bool(const ist_source *s, const char *gguf, const char *hf, bool required,
                        bool *out, ist_error *err) {
  if (s->gguf) {
    char name[128];
    if (!gguf) return IST_OK;
    gguf_name(name, sizeof name, s, gguf);
    return ist_gguf_get_bool(s->gguf, name, required, out, err);
  }
  const json_t *v = ist_key_json(s, hf);
  if (!v) return required && hf ? absent(hf, err) : IST_OK;
  if (!json_is_boolean(v)) return wrong_kind(v, hf, "true or false", err);
  *out = json_is_true(v);
  return IST_OK;
}

ist_status ist_key_str(const ist_source *s, const char *gguf, const char *hf, char *out,
                       size_t size, ist_error *err) {
  out[0] = '\0';
  if (s->gguf) {
    char name[128];
    ist_str text = {"", 0};
    if (!gguf) return IST_OK;
    gguf_name(name, sizeof name, s, gguf);
    IST_TRY(ist_gguf_get_str(s->gguf, name, false, &text, err));
    snprintf(out, size, "%.*s", (int)text.len, text.p);
    return IST_OK;
  }
  const json_t *v = ist_key_json(s, hf);
  if (!v) return IST_OK;
  if (!json_is_string(v)) return wrong_kind(v, hf, "a string", err);
  snprintf(out, size, "%s", json_string_value(v));
  return IST_OK;
}
