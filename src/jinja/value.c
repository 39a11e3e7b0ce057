/* Values: making, comparing, looking into them. */
#include <math.h>
#include <string.h>

#include "jinja/internal.h"

/* ---- Making ---- */

jinja_value ist_jinja_none(void) {
  return (jinja_value){.kind = V_NONE};
}
jinja_value ist_jinja_bool(bool b) {
  return (jinja_value){.kind = V_BOOL, .b = b};
}
jinja_value ist_jinja_int(int64_t i) {
  return (jinja_value){.kind = V_INT, .i = i};
}
jinja_value ist_jinja_float(double f) {
  return (jinja_value){.kind = V_FLOAT, .f = f};
}
jinja_value ist_jinja_undefined(const char *name) {
  return (jinja_value){.kind = V_UNDEFINED, .name = name};
}

jinja_value ist_jinja_text(jinja_run *r, const char *p, size_t len, const uint16_t *origin) {
  jinja_str *s = ist_jinja_new(r, 1, sizeof *s);
  *s = (jinja_str){p, len, origin};
  return (jinja_value){.kind = V_STRING, .s = s};
}

jinja_value ist_jinja_str(jinja_run *r, const char *text) {
  size_t len = strlen(text);
  char *copy = ist_jinja_new(r, len + 1, 1);
  memcpy(copy, text, len);
  return ist_jinja_text(r, copy, len, NULL);
}

/* Room for one more of n items. */
static void *grow(jinja_run *r, void *p, int64_t n, int64_t *cap, size_t size) {
  if (n < *cap) return p;
  int64_t more = *cap ? 2 * *cap : 4;
  void *grown = ist_jinja_new(r, (size_t)more, size);
  if (n) memcpy(grown, p, (size_t)n * size);
  *cap = more;
  return grown;
}

jinja_value ist_jinja_new_list(jinja_run *r, int64_t cap) {
  jinja_list *l = ist_jinja_new(r, 1, sizeof *l);
  if (cap > 0) l->p = ist_jinja_new(r, (size_t)cap, sizeof *l->p);
  l->cap = cap > 0 ? cap : 0;
  return (jinja_value){.kind = V_LIST, .list = l};
}

void ist_jinja_append(jinja_run *r, jinja_value list, jinja_value item) {
  jinja_list *l = list.list;
  ist_jinja_step(r, 1);
  l->p = grow(r, l->p, l->n, &l->cap, sizeof *l->p);
  l->p[l->n++] = item;
}

jinja_value ist_jinja_copy(jinja_run *r, jinja_value v) {
  jinja_list *from = ist_jinja_items(r, v);
  jinja_value to = ist_jinja_new_list(r, from->n);
  for (int64_t i = 0; i < from->n; i++) ist_jinja_append(r, to, from->p[i]);
  return to;
}

jinja_value ist_jinja_new_dict(jinja_run *r) {
  return (jinja_value){.kind = V_DICT, .dict = ist_jinja_new(r, 1, sizeof(jinja_dict))};
}

jinja_value *ist_jinja_get(jinja_run *r, const jinja_dict *d, jinja_value key) {
  if (key.kind == V_LIST || key.kind == V_DICT)
    if (!key.tuple) ist_jinja_fail(r, "unhashable type: '%s'", ist_jinja_kind_name(key));
  for (int64_t i = 0; i < d->n; i++) {
    if (i % 4 == 3) ist_jinja_step(r, 1);
    if (ist_jinja_equal(r, d->p[i].key, key)) return &d->p[i].value;
  }
  return NULL;
}

jinja_value *ist_jinja_get_text(jinja_run *r, const jinja_dict *d, const char *key) {
  const jinja_str s = {key, strlen(key), NULL};
  ist_jinja_step_bytes(r, s.len); /* a name of the template may be as long as the template */
  return ist_jinja_get(r, d, (jinja_value){.kind = V_STRING, .s = &s});
}

void ist_jinja_put(jinja_run *r, jinja_dict *d, jinja_value key, jinja_value value) {
  jinja_value *place = ist_jinja_get(r, d, key);
  if (place) {
    *place = value;
    return;
  }
  d->p = grow(r, d->p, d->n, &d->cap, sizeof *d->p);
  d->p[d->n++] = (jinja_pair){key, value};
}

/* ---- Asking ---- */

bool ist_jinja_true(jinja_value v) {
  switch (v.kind) {
    case V_UNDEFINED:
    case V_NONE: return false;
    case V_BOOL: return v.b;
    case V_INT: return v.i != 0;
    case V_FLOAT: return v.f != 0;
    case V_STRING: return v.s->len > 0;
    case V_LIST: return v.list->n > 0;
    case V_DICT: return v.space || v.dict->n > 0;
    default: return true;
  }
}

bool ist_jinja_is_number(jinja_value v) {
  return v.kind == V_BOOL || v.kind == V_INT || v.kind == V_FLOAT;
}

double ist_jinja_number(jinja_value v) {
  return v.kind == V_FLOAT ? v.f : v.kind == V_BOOL ? v.b : (double)v.i;
}

int64_t ist_jinja_whole(jinja_run *r, jinja_value v) {
  if (!ist_jinja_is_number(v))
    ist_jinja_fail(r, "expected a number, found '%s'", ist_jinja_kind_name(v));
  if (v.kind != V_FLOAT) return v.kind == V_BOOL ? v.b : v.i;
  const double end = -(double)INT64_MIN; /* 2^63 */
  if (!(v.f >= -end && v.f < end)) ist_jinja_fail(r, "a whole number past 64 bits");
  return (int64_t)v.f;
}

int64_t ist_jinja_integer(jinja_run *r, jinja_value v) {
  if (v.kind != V_INT && v.kind != V_BOOL)
    ist_jinja_fail(r, "'%s' object cannot be interpreted as an integer", ist_jinja_kind_name(v));
  return v.kind == V_BOOL ? v.b : v.i;
}

bool ist_jinja_is(const jinja_str *s, const char *text) {
  return s->len == strlen(text) && memcmp(s->p, text, s->len) == 0;
}

const char *ist_jinja_kind_name(jinja_value v) {
  static const char *const names[] = {[V_UNDEFINED] = "Undefined", [V_NONE] = "NoneType",
                                      [V_BOOL] = "bool",           [V_INT] = "int",
                                      [V_FLOAT] = "float",         [V_STRING] = "str",
                                      [V_LIST] = "list",           [V_DICT] = "dict",
                                      [V_GENERATOR] = "generator", [V_MACRO] = "Macro",
                                      [V_FUNCTION] = "function",   [V_METHOD] = "method",
                                      [V_LOOP] = "LoopContext",    [V_CYCLER] = "Cycler"};
  return v.kind == V_LIST && v.tuple ? "tuple" : names[v.kind];
}

static bool equal_lists(jinja_run *r, const jinja_list *a, const jinja_list *b) {
  if (a->n != b->n) return false;
  for (int64_t i = 0; i < a->n; i++)
    if (!ist_jinja_equal(r, a->p[i], b->p[i])) return false;
  return true;
}

static bool equal_dicts(jinja_run *r, const jinja_dict *a, const jinja_dict *b) {
  if (a->n != b->n) return false;
  for (int64_t i = 0; i < a->n; i++) {
    const jinja_value *other = ist_jinja_get(r, b, a->p[i].key);
    if (!other || !ist_jinja_equal(r, a->p[i].value, *other)) return false;
  }
  return true;
}

/* A whole number beside a double, exactly; what is no number comes before all. */
static int order_mixed(int64_t i, double f) {
  if (f >= 0x1p63) return -1;
  if (!(f >= -0x1p63)) return 1;
  int64_t whole = (int64_t)f;
  return i != whole ? (i > whole) - (i < whole) : (f < (double)whole) - (f > (double)whole);
}

static int order_numbers(jinja_value a, jinja_value b) {
  int64_t i = a.kind == V_BOOL ? a.b : a.i, j = b.kind == V_BOOL ? b.b : b.i;
  if (a.kind != V_FLOAT && b.kind != V_FLOAT) return (i > j) - (i < j);
  if (a.kind != V_FLOAT) return order_mixed(i, b.f);
  if (b.kind != V_FLOAT) return -order_mixed(j, a.f);
  return (a.f > b.f) - (a.f < b.f);
}

bool ist_jinja_equal(jinja_run *r, jinja_value a, jinja_value b) {
  if (a.kind == V_FLOAT && b.kind == V_FLOAT) return a.f == b.f;
  if (ist_jinja_is_number(a) && ist_jinja_is_number(b)) return order_numbers(a, b) == 0;
  if (a.kind != b.kind) return false;
  switch (a.kind) {
    case V_UNDEFINED:
    case V_NONE: return true;
    case V_STRING:
      if (a.s->len != b.s->len) return false;
      ist_jinja_step_bytes(r, a.s->len);
      return memcmp(a.s->p, b.s->p, a.s->len) == 0;
    case V_LIST:
      ist_jinja_step(r, a.list->n);
      if (a.tuple != b.tuple) return false;
      if (++r->depth > 200) ist_jinja_fail(r, "values nested too deep");
      bool same = equal_lists(r, a.list, b.list);
      r->depth--;
      return same;
    case V_DICT:
      ist_jinja_step(r, a.dict->n);
      if (++r->depth > 200) ist_jinja_fail(r, "values nested too deep");
      bool alike = a.dict == b.dict || equal_dicts(r, a.dict, b.dict);
      r->depth--;
      return alike;
    case V_FUNCTION: return a.function == b.function;
    default: return a.list == b.list;
  }
}

static int order_lists(jinja_run *r, const jinja_list *a, const jinja_list *b) {
  int order = (a->n > b->n) - (a->n < b->n);
  ist_jinja_enter(r);
  for (int64_t i = 0; i < a->n && i < b->n; i++) {
    ist_jinja_step(r, 1);
    if (ist_jinja_equal(r, a->p[i], b->p[i])) continue;
    order = ist_jinja_order(r, a->p[i], b->p[i]);
    break;
  }
  ist_jinja_leave(r);
  return order;
}

int ist_jinja_order(jinja_run *r, jinja_value a, jinja_value b) {
  if (ist_jinja_is_number(a) && ist_jinja_is_number(b)) return order_numbers(a, b);
  if (a.kind == V_STRING && b.kind == V_STRING) {
    /* The order of UTF-8's bytes is that of the characters. */
    size_t n = a.s->len < b.s->len ? a.s->len : b.s->len;
    ist_jinja_step_bytes(r, n);
    int c = n ? memcmp(a.s->p, b.s->p, n) : 0;
    return c ? c : (a.s->len > b.s->len) - (a.s->len < b.s->len);
  }
  if (a.kind == V_LIST && b.kind == V_LIST) return order_lists(r, a.list, b.list);
  ist_jinja_fail(r, "no order between '%s' and '%s'", ist_jinja_kind_name(a),
                 ist_jinja_kind_name(b));
}

bool ist_jinja_contains(jinja_run *r, jinja_value where, jinja_value what) {
  if (where.kind == V_STRING) {
    if (what.kind != V_STRING)
      ist_jinja_fail(r, "'in <string>' requires string as left operand, not %s",
                     ist_jinja_kind_name(what));
    return ist_jinja_find(r, where.s, what.s, 0) >= 0;
  }
  if (where.kind == V_DICT) return ist_jinja_get(r, where.dict, what) != NULL;
  const jinja_list *l = ist_jinja_items(r, where);
  for (int64_t i = 0; i < l->n; i++) {
    if (i % 4 == 3) ist_jinja_step(r, 1);
    if (!ist_jinja_equal(r, l->p[i], what)) continue;
    if (where.kind == V_GENERATOR)
      *where.list = (jinja_list){l->p + i + 1, l->n - i - 1, l->n - i - 1};
    return true;
  }
  return false;
}

jinja_list *ist_jinja_items(jinja_run *r, jinja_value v) {
  jinja_value out;
  switch (v.kind) {
    case V_LIST: return v.list;
    case V_GENERATOR:
      out = ist_jinja_new_list(r, 0);
      *out.list = *v.list;
      *v.list = (jinja_list){0};
      return out.list;
    case V_UNDEFINED: return ist_jinja_new_list(r, 0).list;
    case V_DICT:
      out = ist_jinja_new_list(r, v.dict->n);
      for (int64_t i = 0; i < v.dict->n; i++) ist_jinja_append(r, out, v.dict->p[i].key);
      return out.list;
    case V_STRING:
      out = ist_jinja_new_list(r, 0);
      for (size_t at = 0, next; at < v.s->len; at = next) {
        next = at + 1;
        while (next < v.s->len && ((unsigned char)v.s->p[next] & 0xc0) == 0x80) next++;
        ist_jinja_append(r, out, ist_jinja_sub(r, v.s, at, next));
      }
      return out.list;
    default: ist_jinja_fail(r, "'%s' object is not iterable", ist_jinja_kind_name(v));
  }
}

/* ---- From JSON ---- */

static jinja_value from_bytes(jinja_run *r, const char *p, size_t len, uint16_t origin) {
  char *copy = ist_jinja_new(r, len + 1, 1);
  memcpy(copy, p, len);
  uint16_t *from = origin ? ist_jinja_new(r, len + 1, sizeof *from) : NULL;
  for (size_t i = 0; from && i < len; i++) from[i] = origin;
  return ist_jinja_text(r, copy, len, from);
}

static jinja_value from_object(jinja_run *r, const json_t *v, uint16_t origin) {
  jinja_value out = ist_jinja_new_dict(r);
  const char *key;
  json_t *item;
  out.dict->cap = (int64_t)json_object_size(v);
  out.dict->p = ist_jinja_new(r, (size_t)out.dict->cap + 1, sizeof *out.dict->p);
  json_object_foreach((json_t *)(uintptr_t)v, key, item) {
    out.dict->p[out.dict->n++] =
        (jinja_pair){from_bytes(r, key, strlen(key), origin), ist_jinja_from_json(r, item, origin)};
  }
  return out;
}

jinja_value ist_jinja_from_json(jinja_run *r, const json_t *v, uint16_t origin) {
  jinja_value out;
  ist_jinja_step(r, 1);
  if (++r->depth > 100) ist_jinja_fail(r, "the input is nested too deep");
  switch (json_typeof(v)) {
    case JSON_OBJECT: out = from_object(r, v, origin); break;
    case JSON_ARRAY:
      out = ist_jinja_new_list(r, (int64_t)json_array_size(v));
      for (size_t i = 0; i < json_array_size(v); i++)
        ist_jinja_append(r, out, ist_jinja_from_json(r, json_array_get(v, i), origin));
      break;
    case JSON_STRING:
      out = from_bytes(r, json_string_value(v), json_string_length(v), origin);
      break;
    case JSON_INTEGER: out = ist_jinja_int(json_integer_value(v)); break;
    case JSON_REAL: out = ist_jinja_float(json_real_value(v)); break;
    case JSON_TRUE:
    case JSON_FALSE: out = ist_jinja_bool(json_is_true(v)); break;
    default: out = ist_jinja_none();
  }
  r->depth--;
  return out;
}

/* A message's role is a marker of the conversation, not something its people wrote; a role further
 * down, in the arguments of a call, is. So are the names of fields. */
jinja_value ist_jinja_from_message(jinja_run *r, const json_t *v, uint16_t origin) {
  jinja_value out = ist_jinja_from_json(r, v, origin);
  const json_t *role = json_object_get(v, "role");
  if (role)
    *ist_jinja_get_text(r, out.dict, "role") = ist_jinja_from_json(r, role, IST_JINJA_TEMPLATE);
  return out;
}
