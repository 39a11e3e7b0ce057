#include "format/json.h"

static ist_status parse(json_t **out, const char *text, size_t len, size_t flags, ist_error *err) {
  json_error_t e;
  *out = json_loadb(text, len, JSON_REJECT_DUPLICATES | flags, &e);
  if (!*out)
    return ist_fail(err, IST_ERR_FORMAT, "not valid JSON: %s (line %d, column %d)", e.text, e.line,
                    e.column);
  if (json_is_object(*out)) return IST_OK;
  ist_status s =
      ist_fail(err, IST_ERR_FORMAT, "the JSON is %s, expected an object", ist_json_kind(*out));
  json_decref(*out);
  *out = NULL;
  return s;
}

ist_status ist_json_parse(json_t **out, const char *text, size_t len, ist_error *err) {
  return parse(out, text, len, 0, err);
}

ist_status ist_json_parse_config(json_t **out, const char *text, size_t len, ist_error *err) {
  json_error_t e;
  json_t *v = json_loadb(text, len, 0, &e);
  bool huge = !v && json_error_code(&e) == json_error_numeric_overflow;
  json_decref(v);
  return parse(out, text, len, huge ? JSON_DECODE_INT_AS_REAL : 0, err);
}

const char *ist_json_kind(const json_t *v) {
  if (!v) return "nothing";
  switch (json_typeof(v)) {
    case JSON_OBJECT: return "an object";
    case JSON_ARRAY: return "a list";
    case JSON_STRING: return "a string";
    case JSON_INTEGER: return "an integer";
    case JSON_REAL: return "a real number";
    case JSON_TRUE: return "true";
    case JSON_FALSE: return "false";
    default: return "null";
  }
}
