/* One record out of a JSON object: what its fields may be called, and what they
 * must hold. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "data/reader.h"
#include "format/json.h"

/* What a record may look like; the first row that fits the first record counts. */
typedef enum kind {
  KIND_MESSAGES,
  KIND_CONVERSATIONS,
  KIND_PROMPT,
  KIND_INSTRUCTION,
  KIND_TEXT,
  KINDS
} kind;
static const struct {
  const char *required[2], *optional, *what;
} kinds[KINDS] = {
    [KIND_MESSAGES] = {{"messages", NULL}, NULL, "messages"},
    [KIND_CONVERSATIONS] = {{"conversations", NULL}, NULL, "conversations"},
    [KIND_PROMPT] = {{"prompt", "completion"}, NULL, "prompt and completion"},
    [KIND_INSTRUCTION] = {{"instruction", "output"}, "input", "instruction and output"},
    [KIND_TEXT] = {{"text", NULL}, NULL, "text"},
};

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

/* Who speaks, by the names that data sets use. */
static const struct {
  const char *name;
  ist_role role;
} roles[] = {{"system", IST_ROLE_SYSTEM}, {"user", IST_ROLE_USER},
             {"human", IST_ROLE_USER},    {"assistant", IST_ROLE_ASSISTANT},
             {"gpt", IST_ROLE_ASSISTANT}, {"tool", IST_ROLE_TOOL}};

/* A list of turns: its field, and the fields of a turn (ShareGPT has others). */
typedef struct turns {
  const char *list, *role, *text, *expected;
} turns;
static const turns openai = {"messages", "role", "content",
                             "'system', 'user', 'assistant' or 'tool'"};
static const turns sharegpt = {"conversations", "from", "value",
                               "'system', 'human', 'gpt' or 'tool'"};

static ist_status read_role(ist_role *out, const json_t *message, const turns *t, int64_t index,
                            ist_error *err) {
  const json_t *v = json_object_get(message, t->role);
  const char *name = json_string_value(v);
  for (size_t r = 0; name && r < sizeof roles / sizeof roles[0]; r++) {
    if (strcmp(name, roles[r].name) != 0) continue;
    *out = roles[r].role;
    return IST_OK;
  }
  if (!v)
    return ist_fail(err, IST_ERR_DATA, "no field '%s[%" PRId64 "].%s'", t->list, index, t->role);
  return ist_fail(err, IST_ERR_DATA, "field '%s[%" PRId64 "].%s' is %s%s%s, expected %s", t->list,
                  index, t->role, name ? "'" : "", name ? name : type_name(v), name ? "'" : "",
                  t->expected);
}

/* ---- Records ---- */

static ist_status make_messages(ist_record *r, size_t n, ist_error *err) {
  r->message = ist_calloc(n, sizeof *r->message);
  if (!r->message) return ist_fail_nomem(err, "training data", n * sizeof *r->message);
  r->n_messages = (int64_t)n;
  return IST_OK;
}

static ist_status dump(char **out, json_t *object, ist_error *err) {
  if (json_object_size(object) > 0) {
    char *text = json_dumps(object, JSON_COMPACT);
    *out = text ? ist_strdup(text) : NULL;
    free(text);
    if (!*out) return ist_fail_nomem(err, "training data", 0);
  }
  return IST_OK;
}

/* The fields of a message but role and content, which may be null where tools are called. */
static ist_status read_more(ist_message *out, const json_t *m, const turns *t, ist_error *err) {
  json_t *more = json_copy((json_t *)(uintptr_t)m);
  if (!more) return ist_fail_nomem(err, "training data", 0);
  const char *const known[] = {t->role, t->text, "role", "content"};
  for (size_t i = 0; i < sizeof known / sizeof *known; i++) json_object_del(more, known[i]);
  if (json_is_null(json_object_get(m, t->text))) json_object_set_new(more, "content", json_null());
  ist_status status = dump(&out->more, more, err);
  json_decref(more);
  return status;
}

static ist_status read_content(ist_message *out, const json_t *m, const turns *t, int64_t i,
                               ist_error *err) {
  const json_t *content = json_object_get(m, t->text);
  bool calls = json_array_size(json_object_get(m, "tool_calls")) > 0;
  if (!calls || (content && !json_is_null(content)))
    return copy_field(&out->text, &out->len, m, t->list, i, t->text, err);
  out->text = ist_strdup("");
  return out->text ? IST_OK : ist_fail_nomem(err, "training data", 1);
}

/* A list as it stands, or as a string that holds one, as data sets in columns have it. */
static ist_status add_list(json_t *to, const json_t *object, const char *field, ist_error *err) {
  json_t *v = json_incref(json_object_get(object, field));
  if (json_is_string(v)) {
    json_t *inside = ist_json_inside(json_string_value(v));
    if (inside) {
      json_decref(v);
      v = inside;
    }
  }
  ist_status status = IST_OK;
  if (v && !json_is_null(v) && !json_is_array(v))
    status =
        ist_fail(err, IST_ERR_DATA, "field '%s' is %s, expected an array", field, type_name(v));
  else if (json_array_size(v) > 0)
    json_object_set(to, field, v);
  json_decref(v);
  return status;
}

/* A list out of a string stands deeper among the variables than it was parsed: too deep, maybe, to
 * be parsed again for the template. */
static ist_status check_variables(const char *text, ist_error *err) {
  json_error_t e;
  json_t *back = json_loads(text, 0, &e);
  bool fine = back != NULL;
  json_decref(back);
  if (fine) return IST_OK;
  if (json_error_code(&e) == json_error_out_of_memory)
    return ist_fail_nomem(err, "training data", strlen(text));
  return ist_fail(err, IST_ERR_DATA, "the fields 'tools' and 'documents': %s", e.text);
}

static ist_status read_variables(ist_record *r, const json_t *object, ist_error *err) {
  json_t *all = json_object(), *options = json_object_get(object, "chat_template_kwargs");
  if (!all) return ist_fail_nomem(err, "training data", 0);
  ist_status status = IST_OK;
  if (options && !json_is_null(options) && !json_is_object(options))
    status = ist_fail(err, IST_ERR_DATA, "field 'chat_template_kwargs' is %s, expected an object",
                      type_name(options));
  else if (options)
    json_object_update(all, options);
  if (status == IST_OK) status = add_list(all, object, "tools", err);
  if (status == IST_OK) status = add_list(all, object, "documents", err);
  if (status == IST_OK) status = dump(&r->variables, all, err);
  if (status == IST_OK && r->variables) status = check_variables(r->variables, err);
  r->tools |= json_object_get(all, "tools") != NULL;
  json_decref(all);
  return status;
}

static ist_status read_turns(ist_record *r, const json_t *object, const turns *t, ist_error *err) {
  const json_t *list = json_object_get(object, t->list);
  if (!json_is_array(list))
    return ist_fail(err, IST_ERR_DATA, "field '%s' is %s, expected an array", t->list,
                    type_name(list));
  size_t n = json_array_size(list);
  if (n == 0) return ist_fail(err, IST_ERR_DATA, "field '%s' is empty", t->list);
  IST_TRY(make_messages(r, n, err));
  for (size_t i = 0; i < n; i++) {
    const json_t *m = json_array_get(list, i);
    ist_message *out = &r->message[i];
    if (!json_is_object(m))
      return ist_fail(err, IST_ERR_DATA, "field '%s[%zu]' is %s, expected an object", t->list, i,
                      type_name(m));
    IST_TRY(read_role(&out->role, m, t, (int64_t)i, err));
    IST_TRY(read_content(out, m, t, (int64_t)i, err));
    IST_TRY(read_more(out, m, t, err));
    r->tools |= out->role == IST_ROLE_TOOL || json_array_size(json_object_get(m, "tool_calls")) > 0;
  }
  return read_variables(r, object, err);
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
  r->message[0] = (ist_message){IST_ROLE_USER, text.p, text.len, NULL};
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

static ist_status read_kind(ist_record *r, kind k, const json_t *object, ist_error *err) {
  switch (k) {
    case KIND_MESSAGES: return read_turns(r, object, &openai, err);
    case KIND_CONVERSATIONS: return read_turns(r, object, &sharegpt, err);
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

/* -1: none. */
static int kind_of(const json_t *object) {
  for (int k = 0; k < KINDS; k++)
    if (fits(object, (kind)k)) return k;
  return -1;
}

bool ist_record_reads(const json_t *object, const char *field) {
  int k = kind_of(object);
  if (k < 0) return false;
  const char *const read[] = {kinds[k].required[0], kinds[k].required[1], kinds[k].optional};
  for (size_t i = 0; i < sizeof read / sizeof *read; i++)
    if (read[i] && strcmp(read[i], field) == 0) return true;
  return false;
}

static ist_status check_kind(int *chosen, const json_t *object, ist_error *err) {
  if (*chosen >= 0) {
    if (fits(object, (kind)*chosen)) return IST_OK;
    char expected[64];
    snprintf(expected, sizeof expected, "%s, as in the first record", kinds[*chosen].what);
    return fail_fields(object, expected, err);
  }
  *chosen = kind_of(object);
  if (*chosen >= 0) return IST_OK;
  return fail_fields(object,
                     "messages, conversations, prompt and completion, instruction and output, or "
                     "text",
                     err);
}

ist_status ist_record_from_json(ist_record *out, int *chosen, const json_t *value, ist_error *err) {
  if (!json_is_object(value))
    return ist_fail(err, IST_ERR_DATA, "a record is %s, expected an object", type_name(value));
  IST_TRY(check_kind(chosen, value, err));
  ist_status status = read_kind(out, (kind)*chosen, value, err);
  if (status != IST_OK) ist_record_free(out);
  return status;
}

size_t ist_record_bytes(const ist_record *r, int64_t n) {
  size_t bytes = r->variables ? strlen(r->variables) : 0;
  for (int64_t i = 0; i < n; i++) {
    const ist_message *m = &r->message[i];
    bytes += sizeof *m + m->len + (m->more ? strlen(m->more) : 0);
  }
  return bytes;
}

void ist_record_free(ist_record *r) {
  for (int64_t m = 0; m < r->n_messages; m++) {
    ist_free(r->message[m].text);
    ist_free(r->message[m].more);
  }
  ist_free(r->variables);
  ist_free(r->message);
  ist_free(r->instruction);
  ist_free(r->input);
  *r = (ist_record){.line = r->line};
}
