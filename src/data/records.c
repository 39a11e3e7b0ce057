/* Reads training data: JSON lines or a JSON array, one value at a time, so that
 * the parsed form of the whole file never exists. */
#include <inttypes.h>
#include <string.h>

#include <jansson.h>

#include "base/file.h"
#include "data/data.h"

/* Numbers are of no use to us; as reals they may be as long as they like. */
#define FLAGS (JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL)

/* What a record may look like; the first row that fits the first record counts. */
typedef enum kind { KIND_MESSAGES, KIND_PROMPT, KIND_INSTRUCTION, KIND_TEXT, KINDS } kind;
static const struct {
  const char *required[2], *what;
} kinds[KINDS] = {
    [KIND_MESSAGES] = {{"messages", NULL}, "messages"},
    [KIND_PROMPT] = {{"prompt", "completion"}, "prompt and completion"},
    [KIND_INSTRUCTION] = {{"instruction", "output"}, "instruction and output"},
    [KIND_TEXT] = {{"text", NULL}, "text"},
};

typedef struct reader {
  ist_records *out;
  kind kind;
} reader;

/* ---- Fields ---- */

static const char *type_name(const json_t *v) {
  switch (json_typeof(v)) {
    case JSON_OBJECT: return "an object";
    case JSON_ARRAY: return "an array";
    case JSON_STRING: return "a string";
    case JSON_INTEGER:
    case JSON_REAL: return "a number";
    case JSON_TRUE:
    case JSON_FALSE: return "true or false";
    case JSON_NULL: break;
  }
  return "null";
}

static ist_status fail_fields(const json_t *object, const char *expected, ist_error *err) {
  ist_buf names = {0};
  const char *key;
  json_t *value;
  json_object_foreach((json_t *)(uintptr_t)object, key, value)
      ist_buf_printf(&names, "%s%s", names.len ? ", " : "", key);
  ist_fail(err, IST_ERR_DATA, "a record with the fields: %.300s; expected %s",
           names.len ? names.p : "none", expected);
  ist_buf_free(&names);
  return IST_ERR_DATA;
}

/* A copy of a string, as "messages[3].content" or, with no list, "prompt". */
static ist_status copy_field(char **out, size_t *len, const json_t *object, const char *list,
                             int64_t index, const char *field, ist_error *err) {
  const json_t *v = json_object_get(object, field);
  char where[64] = "";
  if (list) snprintf(where, sizeof where, "%s[%" PRId64 "].", list, index);
  if (!v) return ist_fail(err, IST_ERR_DATA, "no field '%s%s'", where, field);
  if (!json_is_string(v))
    return ist_fail(err, IST_ERR_DATA, "field '%s%s' is %s, expected a string", where, field,
                    type_name(v));
  *len = json_string_length(v);
  *out = ist_strndup(json_string_value(v), *len);
  return *out ? IST_OK : ist_fail_nomem(err, "training data", *len + 1);
}

static const char *const role_names[] = {
    [IST_ROLE_SYSTEM] = "system", [IST_ROLE_USER] = "user", [IST_ROLE_ASSISTANT] = "assistant"};

static ist_status read_role(ist_role *out, const json_t *message, int64_t index, ist_error *err) {
  const json_t *v = json_object_get(message, "role");
  const char *name = json_string_value(v);
  for (int r = 0; name && r <= IST_ROLE_ASSISTANT; r++) {
    if (strcmp(name, role_names[r]) != 0) continue;
    *out = (ist_role)r;
    return IST_OK;
  }
  if (!v) return ist_fail(err, IST_ERR_DATA, "no field 'messages[%" PRId64 "].role'", index);
  return ist_fail(err, IST_ERR_DATA,
                  "field 'messages[%" PRId64
                  "].role' is %s%s%s, expected 'system', 'user' or "
                  "'assistant'",
                  index, name ? "'" : "", name ? name : type_name(v), name ? "'" : "");
}

/* ---- Records ---- */

static ist_status make_messages(ist_record *r, size_t n, ist_error *err) {
  r->message = ist_calloc(n, sizeof *r->message);
  if (!r->message) return ist_fail_nomem(err, "training data", n * sizeof *r->message);
  r->n_messages = (int64_t)n;
  return IST_OK;
}

static ist_status read_messages(ist_record *r, const json_t *object, ist_error *err) {
  const json_t *list = json_object_get(object, "messages");
  if (!json_is_array(list))
    return ist_fail(err, IST_ERR_DATA, "field 'messages' is %s, expected an array",
                    type_name(list));
  size_t n = json_array_size(list);
  if (n == 0) return ist_fail(err, IST_ERR_DATA, "field 'messages' is empty");
  IST_TRY(make_messages(r, n, err));
  for (size_t i = 0; i < n; i++) {
    const json_t *m = json_array_get(list, i);
    ist_message *out = &r->message[i];
    if (!json_is_object(m))
      return ist_fail(err, IST_ERR_DATA, "field 'messages[%zu]' is %s, expected an object", i,
                      type_name(m));
    IST_TRY(read_role(&out->role, m, (int64_t)i, err));
    IST_TRY(copy_field(&out->text, &out->len, m, "messages", (int64_t)i, "content", err));
  }
  return IST_OK;
}

static ist_status read_field(ist_message *m, ist_role role, const json_t *object, const char *field,
                             ist_error *err) {
  m->role = role;
  return copy_field(&m->text, &m->len, object, NULL, 0, field, err);
}

/* The user's message is the instruction and, below an empty line, the input. */
static ist_status join_instruction(ist_record *r, ist_error *err) {
  ist_buf text = {0};
  ist_buf_str(&text, r->instruction);
  if (r->input) {
    ist_buf_str(&text, "\n\n");
    ist_buf_str(&text, r->input);
  }
  if (text.failed) {
    ist_buf_free(&text);
    return ist_fail_nomem(err, "training data", strlen(r->instruction));
  }
  r->message[0] = (ist_message){IST_ROLE_USER, text.p, text.len};
  return IST_OK;
}

static ist_status read_instruction(ist_record *r, const json_t *object, ist_error *err) {
  size_t len;
  IST_TRY(make_messages(r, 2, err));
  IST_TRY(copy_field(&r->instruction, &len, object, NULL, 0, "instruction", err));
  const json_t *input = json_object_get(object, "input");
  if (input && !json_is_null(input)) {
    IST_TRY(copy_field(&r->input, &len, object, NULL, 0, "input", err));
    if (len == 0) {
      ist_free(r->input);
      r->input = NULL;
    }
  }
  IST_TRY(join_instruction(r, err));
  return read_field(&r->message[1], IST_ROLE_ASSISTANT, object, "output", err);
}

static ist_status read_record(ist_record *r, kind k, const json_t *object, ist_error *err) {
  switch (k) {
    case KIND_MESSAGES: return read_messages(r, object, err);
    case KIND_INSTRUCTION: return read_instruction(r, object, err);
    case KIND_PROMPT:
      IST_TRY(make_messages(r, 2, err));
      IST_TRY(read_field(&r->message[0], IST_ROLE_USER, object, "prompt", err));
      return read_field(&r->message[1], IST_ROLE_ASSISTANT, object, "completion", err);
    default:
      r->plain = true;
      IST_TRY(make_messages(r, 1, err));
      return read_field(&r->message[0], IST_ROLE_ASSISTANT, object, "text", err);
  }
}

static bool fits(const json_t *object, kind k) {
  for (int i = 0; i < 2 && kinds[k].required[i]; i++)
    if (!json_object_get(object, kinds[k].required[i])) return false;
  return true;
}

static ist_status check_kind(reader *rd, const json_t *object, ist_error *err) {
  if (rd->out->n > 0) {
    if (fits(object, rd->kind)) return IST_OK;
    char expected[64];
    snprintf(expected, sizeof expected, "%s, as in the first record", kinds[rd->kind].what);
    return fail_fields(object, expected, err);
  }
  for (rd->kind = 0; rd->kind < KINDS; rd->kind++)
    if (fits(object, rd->kind)) return IST_OK;
  return fail_fields(object,
                     "messages, or prompt and completion, or instruction and output, or text", err);
}

static ist_status add_value(reader *rd, const json_t *value, int64_t line, ist_error *err) {
  ist_records *out = rd->out;
  if (!json_is_object(value))
    return ist_fail(err, IST_ERR_DATA, "a record is %s, expected an object", type_name(value));
  IST_TRY(check_kind(rd, value, err));
  IST_TRY(ist_grow(&out->p, &out->cap, out->n + 1, sizeof *out->p, err));
  ist_record *r = &out->p[out->n++];
  *r = (ist_record){.line = line};
  return read_record(r, rd->kind, value, err);
}

/* ---- Values in the file ---- */

static bool is_blank(char c) {
  return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static const char *skip_blanks(const char *p, const char *end, int64_t *line) {
  for (; p < end && is_blank(*p); p++) *line += *p == '\n';
  return p;
}

static ist_status fail_json(const char *path, int64_t line, const json_error_t *e, ist_error *err) {
  if (json_error_code(e) == json_error_out_of_memory) return ist_fail_nomem(err, path, 0);
  return ist_fail(err, IST_ERR_DATA, "%s:%" PRId64 ": not JSON: %s (column %d)", path,
                  line + e->line - 1, e->text, e->column);
}

static ist_status read_lines(reader *rd, const char *p, const char *end, ist_error *err) {
  const char *path = rd->out->path;
  for (int64_t line = 1; p < end; line++) {
    const char *newline = memchr(p, '\n', (size_t)(end - p));
    const char *stop = newline ? newline : end;
    int64_t unused = 0;
    if (skip_blanks(p, stop, &unused) == stop)
      return ist_fail(err, IST_ERR_DATA, "%s:%" PRId64 ": a blank line, expected a JSON object",
                      path, line);
    json_error_t e;
    json_t *value = json_loadb(p, (size_t)(stop - p), FLAGS | JSON_DECODE_ANY, &e);
    if (!value) {
      ist_status status = fail_json(path, line, &e, err);
      ist_hint(err, "a data file has one JSON object a line, or is one JSON array of objects");
      return status;
    }
    ist_status status = add_value(rd, value, line, err);
    json_decref(value);
    if (status != IST_OK) {
      ist_error_context(err, "%s:%" PRId64, path, line);
      return status;
    }
    p = newline ? newline + 1 : end;
  }
  return IST_OK;
}

/* One element of an array; moves *p behind it and *line to there. */
static ist_status read_element(reader *rd, const char **p, const char *end, int64_t *line,
                               ist_error *err) {
  const char *path = rd->out->path;
  int64_t number = rd->out->n + 1;
  json_error_t e;
  json_t *value =
      json_loadb(*p, (size_t)(end - *p), FLAGS | JSON_DECODE_ANY | JSON_DISABLE_EOF_CHECK, &e);
  if (!value) return fail_json(path, *line, &e, err);
  ist_status status = add_value(rd, value, number, err);
  json_decref(value);
  if (status != IST_OK) {
    ist_error_context(err, "%s:%" PRId64 ": record %" PRId64, path, *line, number);
    return status;
  }
  for (const char *stop = *p + e.position; *p < stop; ++*p) *line += **p == '\n';
  return IST_OK;
}

/* p is behind the '['. */
static ist_status read_array(reader *rd, const char *p, const char *end, int64_t line,
                             ist_error *err) {
  const char *path = rd->out->path;
  p = skip_blanks(p, end, &line);
  bool more = p == end || *p != ']';
  while (more) {
    IST_TRY(read_element(rd, &p, end, &line, err));
    p = skip_blanks(p, end, &line);
    more = p < end && *p == ',';
    if (more) p = skip_blanks(p + 1, end, &line);
  }
  if (p == end || *p != ']')
    return ist_fail(err, IST_ERR_DATA, "%s:%" PRId64 ": not JSON: the array is not closed by ']'",
                    path, line);
  p = skip_blanks(p + 1, end, &line);
  if (p < end)
    return ist_fail(err, IST_ERR_DATA, "%s:%" PRId64 ": not JSON: text after the array", path,
                    line);
  return IST_OK;
}

static ist_status read_all(reader *rd, const ist_map *map, ist_error *err) {
  const char *p = (const char *)map->p, *end = p + map->size;
  if (map->size >= 3 && memcmp(p, "\xef\xbb\xbf", 3) == 0) p += 3; /* byte order mark */
  int64_t line = 1;
  const char *first = skip_blanks(p, end, &line);
  bool array = first < end && *first == '[';
  IST_TRY(array ? read_array(rd, first + 1, end, line, err) : read_lines(rd, p, end, err));
  if (rd->out->n == 0) return ist_fail(err, IST_ERR_DATA, "%s: no records", rd->out->path);
  return IST_OK;
}

ist_status ist_records_read(ist_records *out, const char *path, ist_error *err) {
  *out = (ist_records){0};
  ist_map map;
  IST_TRY(ist_map_open(&map, path, err));
  out->path = ist_strdup(path);
  reader rd = {.out = out};
  ist_status status =
      out->path ? read_all(&rd, &map, err) : ist_fail_nomem(err, path, strlen(path));
  ist_map_close(&map);
  if (status != IST_OK) ist_records_free(out);
  return status;
}

void ist_records_free(ist_records *r) {
  for (int64_t i = 0; i < r->n; i++) {
    for (int64_t m = 0; m < r->p[i].n_messages; m++) ist_free(r->p[i].message[m].text);
    ist_free(r->p[i].message);
    ist_free(r->p[i].instruction);
    ist_free(r->p[i].input);
  }
  ist_free(r->p);
  ist_free(r->path);
  *r = (ist_records){0};
}
