#include "format/json.h"

#include <string.h>

#include "base/file.h"

/* What jansson 2.14 takes on a 64-bit machine, with malloc's share, rounded up: an object of eight
 * places, an array of eight; a string or a key, beside its bytes; a number with its place, or the
 * place of a key. */
enum { OBJECT = 240, ARRAY = 144, STRING = 96, VALUE = 48 };

/* Behind the string that begins at text[at] (a quotation mark); len where it does not end. */
static size_t behind_string(const char *text, size_t at, size_t len) {
  for (at++; at < len; at++) {
    const char *quote = memchr(text + at, '"', len - at);
    if (!quote) return len;
    at = (size_t)(quote - text);
    size_t slashes = 0;
    while (text[at - slashes - 1] == '\\') slashes++;
    if (slashes % 2 == 0) return at + 1;
  }
  return len;
}

size_t ist_json_memory(const char *text, size_t len, size_t limit, size_t *end) {
  size_t bytes = 0, depth = 0, at = 0;
  if (end) *end = len;
  while (at < len && bytes <= limit) {
    size_t next = at + 1;
    bool opens = text[at] == '{' || text[at] == '[', closes = text[at] == '}' || text[at] == ']';
    if (depth == 0 && (closes || text[at] == ',')) { /* behind a value that holds none */
      if (end) *end = at;
      break;
    }
    switch (text[at]) {
      case '{': bytes += OBJECT; break;
      case '[': bytes += ARRAY; break;
      case ',':
      case ':': bytes += VALUE; break;
      case '"':
        next = behind_string(text, at, len);
        bytes += STRING + next - at;
        break;
      default: break;
    }
    at = next;
    if (opens) depth++;
    if (closes && --depth == 0) {
      if (end) *end = at;
      break;
    }
  }
  return bytes;
}

json_t *ist_json_path(const char *text) {
  json_t *v = json_string(text);
  char *shown = v ? NULL : ist_strdup(text);
  if (!shown) return v;
  ist_sanitise(shown);
  v = json_string(shown);
  ist_free(shown);
  return v;
}

static bool is_long_integer(const char *p, size_t len) {
  static const char digits[] = "0123456789", most[] = "9223372036854775807";
  size_t minus = len > 0 && *p == '-', n = len - minus;
  for (size_t i = minus; i < len; i++)
    if (!memchr(digits, p[i], sizeof digits - 1)) return false;
  if (n != sizeof most - 1) return n > sizeof most - 1;
  int order = memcmp(p + minus, most, n);
  return order > 0 && !(minus && p[len - 1] == '8' && memcmp(p + minus, most, n - 1) == 0);
}

void ist_json_long_as_real(ist_buf *out, const char *text, size_t len) {
  static const char number[] = "-+.0123456789eE";
  for (size_t at = 0, next; at < len; at = next) {
    next = text[at] == '"' ? behind_string(text, at, len) : at;
    while (next < len && text[next] != '"' && !memchr(number, text[next], sizeof number - 1))
      next++;
    size_t begin = next;
    while (next < len && memchr(number, text[next], sizeof number - 1)) next++;
    ist_buf_add(out, text + at, next - at);
    if (is_long_integer(text + begin, next - begin)) ist_buf_str(out, ".0");
  }
}

static ist_status check_memory(const char *text, size_t len, size_t memory, ist_error *err) {
  if (ist_json_memory(text, len, memory, NULL) <= memory) return IST_OK;
  return ist_fail(err, IST_ERR_FORMAT,
                  "found JSON whose values would take more than %zu MiB of memory, the limit for "
                  "such a file",
                  memory >> 20);
}

static ist_status parse(json_t **out, const char *text, size_t len, ist_error *err) {
  json_error_t e;
  *out = json_loadb(text, len, JSON_REJECT_DUPLICATES, &e);
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

ist_status ist_json_parse_within(json_t **out, const char *text, size_t len, size_t memory,
                                 ist_error *err) {
  *out = NULL;
  IST_TRY(check_memory(text, len, memory, err));
  return parse(out, text, len, err);
}

ist_status ist_json_parse(json_t **out, const char *text, size_t len, ist_error *err) {
  return ist_json_parse_within(out, text, len, IST_JSON_SETTINGS.memory, err);
}

static ist_status parse_config(json_t **out, const char *text, size_t len, size_t memory,
                               ist_error *err) {
  *out = NULL;
  IST_TRY(check_memory(text, len, memory, err));
  json_error_t e;
  *out = json_loadb(text, len, JSON_REJECT_DUPLICATES, &e);
  bool huge = !*out && json_error_code(&e) == json_error_numeric_overflow;
  if (json_is_object(*out)) return IST_OK;
  json_decref(*out);
  *out = NULL;
  if (!huge) return parse(out, text, len, err);
  ist_buf eased = {0};
  ist_json_long_as_real(&eased, text, len);
  ist_status s =
      eased.failed ? ist_fail_nomem(err, "JSON", len) : parse(out, eased.p, eased.len, err);
  ist_buf_free(&eased);
  return s;
}

ist_status ist_json_parse_config(json_t **out, const char *text, size_t len, ist_error *err) {
  return parse_config(out, text, len, IST_JSON_SETTINGS.memory, err);
}

ist_status ist_json_read(json_t **out, const char *path, ist_json_limit limit, ist_error *err) {
  ist_buf text = {0};
  *out = NULL;
  ist_status status = ist_file_read(&text, path, limit.text, err);
  if (status == IST_OK) {
    status = parse_config(out, text.p, text.len, limit.memory, err);
    if (status != IST_OK) ist_error_context(err, "%s", path);
  }
  ist_buf_free(&text);
  return status;
}

json_t *ist_json_inside(const char *text) {
  size_t len = strlen(text), most = IST_JSON_SETTINGS.memory;
  if (ist_json_memory(text, len, most, NULL) > most) return NULL;
  return json_loadb(text, len, 0, NULL);
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
