/* Filters and tests. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "jinja/internal.h"

typedef jinja_value (*filter_fn)(jinja_run *r, jinja_value v, const jinja_args *a);

jinja_value ist_jinja_arg(const jinja_args *a, int64_t i, const char *name, jinja_value absent) {
  if (i < a->n) return a->p[i];
  for (int64_t k = 0; k < a->n_named; k++)
    if (strcmp(a->name[k], name) == 0) return a->named[k];
  return absent;
}

static jinja_value arg(const jinja_args *a, int64_t i, const char *name) {
  return ist_jinja_arg(a, i, name, ist_jinja_none());
}
static bool flag(const jinja_args *a, int64_t i, const char *name, bool absent) {
  return ist_jinja_true(ist_jinja_arg(a, i, name, ist_jinja_bool(absent)));
}

/* ---- Text ---- */

static jinja_value f_trim(jinja_run *r, jinja_value v, const jinja_args *a) {
  jinja_value chars = arg(a, 0, "chars");
  return ist_jinja_strip(r, ist_jinja_string(r, v), chars.kind == V_STRING ? chars.s : NULL, 3);
}
static jinja_value f_upper(jinja_run *r, jinja_value v, const jinja_args *a) {
  (void)a;
  return ist_jinja_case(r, ist_jinja_string(r, v), 'u');
}
static jinja_value f_lower(jinja_run *r, jinja_value v, const jinja_args *a) {
  (void)a;
  return ist_jinja_case(r, ist_jinja_string(r, v), 'l');
}
static jinja_value f_capitalize(jinja_run *r, jinja_value v, const jinja_args *a) {
  (void)a;
  return ist_jinja_case(r, ist_jinja_string(r, v), 'c');
}

static bool one_of(const char *chars, char c) {
  return c && strchr(chars, c);
}

/* Words begin behind white space and -({[< (jinja2's own rule). */
static jinja_value f_title(jinja_run *r, jinja_value v, const jinja_args *a) {
  (void)a;
  const jinja_str *s = ist_jinja_string(r, v);
  jinja_out *o = ist_jinja_out_new(r);
  ist_jinja_step_chars(r, s->len);
  for (size_t at = 0; at < s->len;) {
    size_t end = at;
    ist_jinja_step(r, 1);
    while (end < s->len && !one_of(" \t\n\r\v\f-({[<", s->p[end])) end++;
    const jinja_str *word = ist_jinja_case(r, ist_jinja_sub(r, s, at, end).s, 'c').s;
    ist_jinja_write(r, o, word->p, word->len, word->origin);
    for (; end < s->len && one_of(" \t\n\r\v\f-({[<", s->p[end]); end++)
      ist_jinja_write_one(r, o, s->p + end, 1, s->origin ? s->origin[end] : 0);
    at = end;
  }
  return ist_jinja_out_value(r, o);
}

static jinja_value f_replace(jinja_run *r, jinja_value v, const jinja_args *a) {
  jinja_value count = arg(a, 2, "count");
  return ist_jinja_replace(r, ist_jinja_string(r, v), ist_jinja_string(r, arg(a, 0, "old")),
                           ist_jinja_string(r, arg(a, 1, "new")),
                           count.kind == V_NONE ? -1 : ist_jinja_whole(r, count));
}

static jinja_value f_indent(jinja_run *r, jinja_value v, const jinja_args *a) {
  const jinja_str *s = ist_jinja_string(r, v);
  jinja_value width = ist_jinja_arg(a, 0, "width", ist_jinja_int(4));
  bool first = flag(a, 1, "first", false), blank = flag(a, 2, "blank", false);
  jinja_out *o = ist_jinja_out_new(r);
  char spaces[256];
  int64_t n = width.kind == V_STRING ? 0 : ist_jinja_whole(r, width);
  if (n < 0 || n > 256) ist_jinja_fail(r, "an indentation of %lld", (long long)n);
  memset(spaces, ' ', sizeof spaces);
  const jinja_str put = width.kind == V_STRING ? *width.s : (jinja_str){spaces, (size_t)n, NULL};
  ist_jinja_step_chars(r, s->len);
  if (first) ist_jinja_write(r, o, put.p, put.len, put.origin);
  for (size_t at = 0, size; at < s->len; at += size) {
    uint16_t origin = s->origin ? s->origin[at] : 0;
    size = ist_jinja_line_break(s, at);
    if (size == 0) {
      size = 1;
      ist_jinja_write_one(r, o, s->p + at, 1, origin);
      continue;
    }
    ist_jinja_write_one(r, o, "\n", 1, origin);
    bool empty = at + size == s->len || ist_jinja_line_break(s, at + size) > 0;
    if (blank || !empty) ist_jinja_write(r, o, put.p, put.len, put.origin);
  }
  return ist_jinja_out_value(r, o);
}

static jinja_value f_forceescape(jinja_run *r, jinja_value v, const jinja_args *a) {
  (void)a;
  const jinja_str *s = ist_jinja_string(r, v);
  jinja_out *o = ist_jinja_out_new(r);
  ist_jinja_step_chars(r, s->len);
  for (size_t i = 0; i < s->len; i++) {
    char c = s->p[i];
    const char *t = c == '&'    ? "&amp;"
                    : c == '<'  ? "&lt;"
                    : c == '>'  ? "&gt;"
                    : c == '"'  ? "&#34;"
                    : c == '\'' ? "&#39;"
                                : NULL;
    ist_jinja_write_one(r, o, t ? t : s->p + i, t ? strlen(t) : 1, s->origin ? s->origin[i] : 0);
  }
  v = ist_jinja_out_value(r, o);
  v.safe = true;
  return v;
}

/* What is markup already stays as it is. */
static jinja_value f_escape(jinja_run *r, jinja_value v, const jinja_args *a) {
  return v.safe ? v : f_forceescape(r, v, a);
}

static jinja_value f_string(jinja_run *r, jinja_value v, const jinja_args *a) {
  (void)a;
  const jinja_str *s = ist_jinja_string(r, v);
  return (jinja_value){.kind = V_STRING, .s = s};
}

static jinja_value f_format(jinja_run *r, jinja_value v, const jinja_args *a) {
  jinja_value args = ist_jinja_new_list(r, a->n);
  args.tuple = true;
  for (int64_t i = 0; i < a->n; i++) ist_jinja_append(r, args, a->p[i]);
  return ist_jinja_percent(r, ist_jinja_string(r, v), args);
}

static jinja_value f_tojson(jinja_run *r, jinja_value v, const jinja_args *a) {
  jinja_out *o = ist_jinja_out_new(r);
  ist_jinja_to_json(r, o, v, a);
  return ist_jinja_out_value(r, o);
}

static jinja_value f_urlencode(jinja_run *r, jinja_value v, const jinja_args *a) {
  (void)a;
  const jinja_str *s = ist_jinja_string(r, v);
  jinja_out *o = ist_jinja_out_new(r);
  ist_jinja_step(r, (int64_t)s->len); /* most become three */
  for (size_t i = 0; i < s->len; i++) {
    unsigned char c = (unsigned char)s->p[i];
    char text[4] = {(char)c};
    bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                 (c && strchr("-_.~/", c));
    if (!plain) snprintf(text, sizeof text, "%%%02X", c);
    ist_jinja_write_one(r, o, text, strlen(text), s->origin ? s->origin[i] : 0);
  }
  return ist_jinja_out_value(r, o);
}

static jinja_value f_wordcount(jinja_run *r, jinja_value v, const jinja_args *a) {
  (void)a;
  return ist_jinja_int(ist_jinja_count_words(r, ist_jinja_string(r, v)));
}

/* ---- Numbers ---- */

static jinja_value f_abs(jinja_run *r, jinja_value v, const jinja_args *a) {
  (void)a;
  if (v.kind == V_FLOAT) return ist_jinja_float(fabs(v.f));
  int64_t i = ist_jinja_whole(r, v);
  if (i == INT64_MIN) ist_jinja_fail(r, "a whole number past 64 bits");
  return ist_jinja_int(i < 0 ? -i : i);
}

enum { NUMBER_SIZE = 64 }; /* longer texts are no numbers that 64 bits hold */

/* A string without the white space around it, with the NUL that C's functions need; false
 * where it is empty, too long for a number or holds a NUL of its own. */
static bool number_text(jinja_run *r, const jinja_str *v, char text[NUMBER_SIZE]) {
  const jinja_str *s = ist_jinja_strip(r, v, NULL, 3).s;
  if (s->len == 0 || s->len >= NUMBER_SIZE || memchr(s->p, 0, s->len)) return false;
  memcpy(text, s->p, s->len);
  text[s->len] = 0;
  return true;
}

static bool parse_number(jinja_run *r, jinja_value v, double *out) {
  if (ist_jinja_is_number(v)) {
    *out = ist_jinja_number(v);
    return true;
  }
  char text[NUMBER_SIZE], *end;
  if (v.kind != V_STRING || !number_text(r, v.s, text)) return false;
  *out = strtod(text, &end);
  return *end == 0 && !strpbrk(text, "xX");
}

static jinja_value f_int(jinja_run *r, jinja_value v, const jinja_args *a) {
  char text[NUMBER_SIZE], *end;
  double f;
  if (v.kind == V_INT) return v;
  if (v.kind == V_STRING && number_text(r, v.s, text)) {
    errno = 0;
    int64_t i = strtoll(text, &end, 10);
    if (*end == 0 && errno == 0) return ist_jinja_int(i);
  }
  if (!parse_number(r, v, &f) || !(fabs(f) < 0x1p63))
    return ist_jinja_arg(a, 0, "default", ist_jinja_int(0));
  return ist_jinja_int((int64_t)f);
}

static jinja_value f_float(jinja_run *r, jinja_value v, const jinja_args *a) {
  double f;
  if (!parse_number(r, v, &f)) return ist_jinja_arg(a, 0, "default", ist_jinja_float(0));
  return ist_jinja_float(f);
}

/* The nearest multiple of 10^zeros, of two the even one; exactly. */
static jinja_value round_whole(jinja_run *r, int64_t i, int64_t zeros) {
  int64_t unit = 1;
  if (zeros > 18) { /* the unit is past 64 bits: half of it not */
    if (zeros == 19 && (i > 5000000000000000000 || i < -5000000000000000000))
      ist_jinja_fail(r, "a whole number past 64 bits");
    return ist_jinja_int(0);
  }
  for (int64_t k = 0; k < zeros; k++) unit *= 10;
  int64_t rest = i % unit, down = i - rest, half = unit / 2;
  int64_t size = rest < 0 ? -rest : rest;
  bool up = size > half || (size == half && half > 0 && down / unit % 2 != 0);
  if (up && __builtin_add_overflow(down, rest < 0 ? -unit : unit, &down))
    ist_jinja_fail(r, "a whole number past 64 bits");
  return ist_jinja_int(down);
}

/* The double nearest to the decimal that C, like Python, rounds to. */
static jinja_value round_float(jinja_run *r, double f, int64_t digits) {
  char text[NUMBER_SIZE + 640];
  ist_jinja_step(r, IST_JINJA_FLOAT);
  if (!isfinite(f) || digits > 323) return ist_jinja_float(f);
  if (digits < -308) return ist_jinja_float(0 * f);
  if (digits >= 0) {
    snprintf(text, sizeof text, "%.*f", (int)digits, f);
    return ist_jinja_float(strtod(text, NULL));
  }
  snprintf(text, sizeof text, "%.20e", f);
  int places = atoi(strchr(text, 'e') + 1) + (int)digits; /* that stay behind the first digit */
  double unit = pow(10, (double)-digits);
  if (places < 0) return ist_jinja_float(copysign(fabs(f) > unit / 2 ? unit : 0, f));
  snprintf(text, sizeof text, "%.*e", places, f);
  return ist_jinja_float(strtod(text, NULL));
}

static jinja_value f_round(jinja_run *r, jinja_value v, const jinja_args *a) {
  int64_t digits = ist_jinja_integer(r, ist_jinja_arg(a, 0, "precision", ist_jinja_int(0)));
  const jinja_str *method =
      ist_jinja_string(r, ist_jinja_arg(a, 1, "method", ist_jinja_str(r, "common")));
  if (!ist_jinja_is_number(v)) ist_jinja_fail(r, "round needs a number");
  if (digits < -400 || digits > 400) ist_jinja_fail(r, "round to %lld digits", (long long)digits);
  if (ist_jinja_is(method, "common")) {
    if (v.kind == V_FLOAT) return round_float(r, v.f, digits);
    return round_whole(r, ist_jinja_integer(r, v), -digits);
  }
  bool ceiling = ist_jinja_is(method, "ceil");
  if (!ceiling && !ist_jinja_is(method, "floor"))
    ist_jinja_fail(r, "method must be common, ceil or floor");
  double scale = pow(10, (double)digits), f = ist_jinja_number(v) * scale;
  if (scale == 0 || !isfinite(f)) ist_jinja_fail(r, "a number past those of 64 bits");
  return ist_jinja_float((ceiling ? ceil(f) : floor(f)) / scale);
}

/* ---- Sequences ---- */

static jinja_value f_length(jinja_run *r, jinja_value v, const jinja_args *a) {
  (void)a;
  if (v.kind == V_STRING) return ist_jinja_int(ist_jinja_length(r, v.s));
  if (v.kind == V_DICT) return ist_jinja_int(v.dict->n);
  if (v.kind != V_LIST && v.kind != V_UNDEFINED)
    ist_jinja_fail(r, "object of type '%s' has no len()", ist_jinja_kind_name(v));
  return ist_jinja_int(v.kind == V_LIST ? v.list->n : 0);
}

static jinja_value f_first(jinja_run *r, jinja_value v, const jinja_args *a) {
  (void)a;
  const jinja_list *l = ist_jinja_items(r, v);
  if (v.kind == V_GENERATOR && l->n) *v.list = (jinja_list){l->p + 1, l->n - 1, l->n - 1};
  return l->n ? l->p[0] : ist_jinja_undefined("the first item of an empty sequence");
}
static jinja_value f_last(jinja_run *r, jinja_value v, const jinja_args *a) {
  (void)a;
  if (v.kind == V_GENERATOR) ist_jinja_fail(r, "'generator' object is not reversible");
  const jinja_list *l = ist_jinja_items(r, v);
  return l->n ? l->p[l->n - 1] : ist_jinja_undefined("the last item of an empty sequence");
}
static jinja_value f_list(jinja_run *r, jinja_value v, const jinja_args *a) {
  (void)a;
  return ist_jinja_copy(r, v);
}

static jinja_value f_reverse(jinja_run *r, jinja_value v, const jinja_args *a) {
  (void)a;
  const jinja_list *l = ist_jinja_items(r, v);
  jinja_value out = ist_jinja_new_list(r, l->n);
  jinja_out *text = ist_jinja_out_new(r);
  for (int64_t i = l->n; i-- > 0;) {
    ist_jinja_step(r, 1);
    if (v.kind == V_STRING)
      ist_jinja_print(r, text, l->p[i]);
    else
      ist_jinja_append(r, out, l->p[i]);
  }
  if (v.kind != V_GENERATOR) out.kind = V_GENERATOR; /* what Python has to copy is a list */
  return v.kind == V_STRING ? ist_jinja_out_value(r, text) : out;
}

/* A part of a path: an index where it is all digits (as large as there are, past 64 bits). */
static jinja_value path_part(jinja_run *r, const jinja_str *path, size_t begin, size_t end) {
  int64_t i = 0;
  ist_jinja_step_chars(r, end - begin);
  for (size_t at = begin; at < end; at++) {
    char c = path->p[at];
    if (c < '0' || c > '9') return ist_jinja_sub(r, path, begin, end);
    if (__builtin_mul_overflow(i, 10, &i) || __builtin_add_overflow(i, c - '0', &i)) i = INT64_MAX;
  }
  return begin < end ? ist_jinja_int(i) : ist_jinja_sub(r, path, begin, end);
}

/* "a.b" of an item, or the item itself. */
static jinja_value attribute(jinja_run *r, jinja_value v, jinja_value path) {
  if (path.kind == V_NONE) return v;
  if (path.kind != V_STRING) return ist_jinja_index(r, v, path);
  for (size_t at = 0; at <= path.s->len;) {
    ist_jinja_step(r, 1);
    const char *dot = memchr(path.s->p + at, '.', path.s->len - at);
    size_t end = dot ? (size_t)(dot - path.s->p) : path.s->len;
    v = ist_jinja_index(r, v, path_part(r, path.s, at, end));
    at = end + 1;
  }
  return v;
}

static jinja_value f_join(jinja_run *r, jinja_value v, const jinja_args *a) {
  const jinja_list *l = ist_jinja_items(r, v);
  jinja_value by = ist_jinja_arg(a, 0, "d", ist_jinja_str(r, ""));
  jinja_value attr = arg(a, 1, "attribute");
  jinja_out *o = ist_jinja_out_new(r);
  for (int64_t i = 0; i < l->n; i++) {
    if (i % 4 == 3) ist_jinja_step(r, 1);
    if (i) ist_jinja_print(r, o, by);
    ist_jinja_print(r, o, attribute(r, l->p[i], attr));
  }
  return ist_jinja_out_value(r, o);
}

/* The items that lazy filters go through: of what is false, none. */
static const jinja_list *lazy_items(jinja_run *r, jinja_value v) {
  return ist_jinja_items(r, ist_jinja_true(v) ? v : ist_jinja_undefined("nothing"));
}

/* A name as C has it, in `size` bytes. */
static bool short_name(const jinja_str *s, size_t size) {
  return s->len < size && !memchr(s->p, 0, s->len);
}

static jinja_value f_map(jinja_run *r, jinja_value v, const jinja_args *a) {
  const jinja_list *l = lazy_items(r, v);
  jinja_value attr = ist_jinja_arg(a, a->n, "attribute", ist_jinja_none());
  jinja_value absent = ist_jinja_arg(a, a->n, "default", ist_jinja_undefined("default"));
  jinja_value out = ist_jinja_new_list(r, l->n);
  out.kind = V_GENERATOR;
  for (int64_t i = 0; i < l->n; i++) {
    jinja_value item;
    if (attr.kind != V_NONE) {
      item = attribute(r, l->p[i], attr);
      if (item.kind == V_UNDEFINED) item = absent;
    } else {
      if (a->n == 0 || a->p[0].kind != V_STRING)
        ist_jinja_fail(r, "map requires a filter argument");
      jinja_args rest = *a;
      rest.p++;
      rest.n--;
      char name[64] = "";
      if (!short_name(a->p[0].s, sizeof name)) ist_jinja_fail(r, "no such filter");
      memcpy(name, a->p[0].s->p, a->p[0].s->len);
      item = ist_jinja_filter(r, name, l->p[i], &rest);
    }
    ist_jinja_append(r, out, item);
  }
  return out;
}

/* select, reject, selectattr, rejectattr. */
static jinja_value pick(jinja_run *r, jinja_value v, const jinja_args *a, bool by_attr, bool keep) {
  const jinja_list *l = lazy_items(r, v);
  jinja_value out = ist_jinja_new_list(r, 0);
  out.kind = V_GENERATOR;
  if (by_attr && a->n == 0) ist_jinja_fail(r, "missing the name of an attribute");
  int64_t skip = by_attr;
  char name[64] = "";
  if (a->n > skip) {
    const jinja_str *s = ist_jinja_string(r, a->p[skip]);
    if (!short_name(s, sizeof name)) ist_jinja_fail(r, "no such test");
    memcpy(name, s->p, s->len);
  }
  jinja_args rest = *a;
  if (*name) skip++;
  if (skip) rest.p += skip; /* without arguments there is no list to step over */
  rest.n -= skip;
  for (int64_t i = 0; i < l->n; i++) {
    jinja_value item = by_attr ? attribute(r, l->p[i], a->p[0]) : l->p[i];
    if (i % 4 == 3) ist_jinja_step(r, 1);
    bool yes = *name ? ist_jinja_test(r, name, item, &rest) : ist_jinja_true(item);
    if (yes == keep) ist_jinja_append(r, out, l->p[i]);
  }
  return out;
}
static jinja_value f_select(jinja_run *r, jinja_value v, const jinja_args *a) {
  return pick(r, v, a, false, true);
}
static jinja_value f_reject(jinja_run *r, jinja_value v, const jinja_args *a) {
  return pick(r, v, a, false, false);
}
static jinja_value f_selectattr(jinja_run *r, jinja_value v, const jinja_args *a) {
  return pick(r, v, a, true, true);
}
static jinja_value f_rejectattr(jinja_run *r, jinja_value v, const jinja_args *a) {
  return pick(r, v, a, true, false);
}

/* What values are ordered by: text without case, unless case_sensitive. */
static jinja_value sort_key(jinja_run *r, jinja_value v, jinja_value attr, bool sensitive) {
  jinja_value key = attribute(r, v, attr);
  ist_jinja_step(r, 1);
  return key.kind == V_STRING && !sensitive ? ist_jinja_case(r, key.s, 'l') : key;
}

/* A stable merge sort of pairs of key and value, in n log n steps. */
static void sort_pairs(jinja_run *r, jinja_pair *p, jinja_pair *spare, int64_t n, bool back) {
  if (n < 2) return;
  int64_t half = n / 2;
  ist_jinja_step(r, n);
  sort_pairs(r, p, spare, half, back);
  sort_pairs(r, p + half, spare, n - half, back);
  memcpy(spare, p, (size_t)half * sizeof *p);
  for (int64_t i = 0, j = half, k = 0; i < half; k++) {
    bool right = j < n && (back ? ist_jinja_order(r, p[j].key, spare[i].key) > 0
                                : ist_jinja_order(r, p[j].key, spare[i].key) < 0);
    p[k] = right ? p[j++] : spare[i++];
  }
}

static jinja_value sorted(jinja_run *r, const jinja_pair *from, int64_t n, bool back,
                          jinja_value out) {
  jinja_pair *p = ist_jinja_new(r, (size_t)n + 1, sizeof *p);
  jinja_pair *spare = ist_jinja_new(r, (size_t)n + 1, sizeof *p);
  if (n) memcpy(p, from, (size_t)n * sizeof *p);
  sort_pairs(r, p, spare, n, back);
  for (int64_t i = 0; i < n; i++) ist_jinja_append(r, out, p[i].value);
  return out;
}

static jinja_value f_sort(jinja_run *r, jinja_value v, const jinja_args *a) {
  const jinja_list *l = ist_jinja_items(r, v);
  bool sensitive = flag(a, 1, "case_sensitive", false);
  jinja_value attr = arg(a, 2, "attribute");
  jinja_pair *p = ist_jinja_new(r, (size_t)l->n + 1, sizeof *p);
  for (int64_t i = 0; i < l->n; i++)
    p[i] = (jinja_pair){sort_key(r, l->p[i], attr, sensitive), l->p[i]};
  return sorted(r, p, l->n, flag(a, 0, "reverse", false), ist_jinja_new_list(r, l->n));
}

static jinja_value f_items(jinja_run *r, jinja_value v, const jinja_args *a) {
  const jinja_method m = {v, "items"};
  if (v.kind != V_UNDEFINED && v.kind != V_DICT)
    ist_jinja_fail(r, "Can only get item pairs from a mapping.");
  jinja_value out = v.kind == V_DICT ? ist_jinja_call_method(r, &m, a) : ist_jinja_new_list(r, 0);
  out.kind = V_GENERATOR;
  return out;
}

static jinja_value f_dictsort(jinja_run *r, jinja_value v, const jinja_args *a) {
  const jinja_args none = {0};
  jinja_value pairs = f_items(r, v, &none), by = arg(a, 1, "by");
  bool value = by.kind == V_STRING && ist_jinja_is(by.s, "value");
  jinja_pair *p = ist_jinja_new(r, (size_t)pairs.list->n + 1, sizeof *p);
  for (int64_t i = 0; i < pairs.list->n; i++)
    p[i] = (jinja_pair){sort_key(r, pairs.list->p[i].list->p[value], ist_jinja_none(),
                                 flag(a, 0, "case_sensitive", false)),
                        pairs.list->p[i]};
  return sorted(r, p, pairs.list->n, flag(a, 2, "reverse", false),
                ist_jinja_new_list(r, pairs.list->n));
}

static jinja_value f_unique(jinja_run *r, jinja_value v, const jinja_args *a) {
  const jinja_list *l = ist_jinja_items(r, v);
  jinja_value out = ist_jinja_new_list(r, 0), seen = ist_jinja_new_list(r, 0);
  out.kind = V_GENERATOR;
  for (int64_t i = 0; i < l->n; i++) {
    jinja_value key =
        sort_key(r, l->p[i], arg(a, 1, "attribute"), flag(a, 0, "case_sensitive", false));
    if (ist_jinja_contains(r, seen, key)) continue;
    ist_jinja_append(r, seen, key);
    ist_jinja_append(r, out, l->p[i]);
  }
  return out;
}

static jinja_value extreme(jinja_run *r, jinja_value v, const jinja_args *a, int sign) {
  const jinja_list *l = ist_jinja_items(r, v);
  jinja_value attr = arg(a, 1, "attribute"), best = ist_jinja_undefined("an item of nothing"),
              key = best;
  for (int64_t i = 0; i < l->n; i++) {
    jinja_value k = sort_key(r, l->p[i], attr, flag(a, 0, "case_sensitive", false));
    if (i && ist_jinja_order(r, k, key) * sign <= 0) continue;
    key = k;
    best = l->p[i];
  }
  return best;
}
static jinja_value f_max(jinja_run *r, jinja_value v, const jinja_args *a) {
  return extreme(r, v, a, 1);
}
static jinja_value f_min(jinja_run *r, jinja_value v, const jinja_args *a) {
  return extreme(r, v, a, -1);
}

static jinja_value f_sum(jinja_run *r, jinja_value v, const jinja_args *a) {
  const jinja_list *l = ist_jinja_items(r, v);
  jinja_value attr = arg(a, 0, "attribute"), start = ist_jinja_arg(a, 1, "start", ist_jinja_int(0));
  jinja_value sum = start;
  if (!ist_jinja_is_number(sum)) ist_jinja_fail(r, "sum of what is no number");
  for (int64_t i = 0; i < l->n; i++) {
    jinja_value item = attribute(r, l->p[i], attr);
    ist_jinja_step(r, 1);
    if (!ist_jinja_is_number(item)) ist_jinja_fail(r, "sum of what is no number");
    sum = ist_jinja_add(r, sum, item);
  }
  return sum;
}

static jinja_value f_batch(jinja_run *r, jinja_value v, const jinja_args *a) {
  const jinja_list *l = ist_jinja_items(r, v);
  int64_t n = ist_jinja_whole(r, ist_jinja_arg(a, 0, "linecount", ist_jinja_int(0)));
  jinja_value fill = arg(a, 1, "fill_with"), out = ist_jinja_new_list(r, 0);
  if (n < 1) ist_jinja_fail(r, "batch of %lld", (long long)n);
  out.kind = V_GENERATOR;
  for (int64_t i = 0; i < l->n; i += n) {
    jinja_value row = ist_jinja_new_list(r, 0);
    for (int64_t k = i; k < i + n && (k < l->n || fill.kind != V_NONE); k++)
      ist_jinja_append(r, row, k < l->n ? l->p[k] : fill);
    ist_jinja_append(r, out, row);
  }
  return out;
}

static jinja_value f_default(jinja_run *r, jinja_value v, const jinja_args *a) {
  bool missing = v.kind == V_UNDEFINED || (flag(a, 1, "boolean", false) && !ist_jinja_true(v));
  return missing ? ist_jinja_arg(a, 0, "default_value", ist_jinja_str(r, "")) : v;
}
static jinja_value f_attr(jinja_run *r, jinja_value v, const jinja_args *a) {
  /* Items of a dict are no attributes. */
  if (v.kind == V_DICT && !v.space) return ist_jinja_undefined("an attribute");
  return attribute(r, v, arg(a, 0, "name"));
}
static jinja_value f_safe(jinja_run *r, jinja_value v, const jinja_args *a) {
  v = f_string(r, v, a);
  v.safe = true;
  return v;
}

static const struct {
  const char *name;
  filter_fn fn;
} filters[] = {
    {"trim", f_trim},
    {"upper", f_upper},
    {"lower", f_lower},
    {"capitalize", f_capitalize},
    {"title", f_title},
    {"replace", f_replace},
    {"indent", f_indent},
    {"escape", f_escape},
    {"e", f_escape},
    {"forceescape", f_forceescape},
    {"string", f_string},
    {"safe", f_safe},
    {"format", f_format},
    {"tojson", f_tojson},
    {"urlencode", f_urlencode},
    {"wordcount", f_wordcount},
    {"abs", f_abs},
    {"int", f_int},
    {"float", f_float},
    {"round", f_round},
    {"length", f_length},
    {"count", f_length},
    {"first", f_first},
    {"last", f_last},
    {"list", f_list},
    {"reverse", f_reverse},
    {"join", f_join},
    {"map", f_map},
    {"select", f_select},
    {"reject", f_reject},
    {"selectattr", f_selectattr},
    {"rejectattr", f_rejectattr},
    {"sort", f_sort},
    {"items", f_items},
    {"dictsort", f_dictsort},
    {"unique", f_unique},
    {"max", f_max},
    {"min", f_min},
    {"sum", f_sum},
    {"batch", f_batch},
    {"default", f_default},
    {"d", f_default},
    {"attr", f_attr},
};

jinja_value ist_jinja_filter(jinja_run *r, const char *name, jinja_value v, const jinja_args *a) {
  size_t k = 0, n = sizeof filters / sizeof filters[0];
  ist_jinja_step(r, 1);
  while (k < n && strcmp(filters[k].name, name) != 0) k++;
  if (k == n) ist_jinja_fail(r, "no filter named '%.60s'", name);
  ist_jinja_enter(r); /* map calls filters, map among them */
  jinja_value out = filters[k].fn(r, v, a);
  ist_jinja_leave(r);
  return out;
}

/* ---- Tests ---- */

static bool test_order(jinja_run *r, const char *name, jinja_value v, jinja_value x, bool *found) {
  static const char *const names[][3] = {{"eq", "==", "equalto"},    {"ne", "!=", "!="},
                                         {"lt", "<", "lessthan"},    {"le", "<=", "<="},
                                         {"gt", ">", "greaterthan"}, {"ge", ">=", ">="}};
  int k = 0;
  while (k < 6 && strcmp(name, names[k][0]) != 0 && strcmp(name, names[k][1]) != 0 &&
         strcmp(name, names[k][2]) != 0)
    k++;
  *found = k < 6;
  if (k > 5) return false;
  if (k < 2) return ist_jinja_equal(r, v, x) == (k == 0);
  int order = ist_jinja_order(r, v, x);
  return k == 2 ? order < 0 : k == 3 ? order <= 0 : k == 4 ? order > 0 : order >= 0;
}

static bool test_kind(const char *name, jinja_value v, bool *found) {
  static const struct {
    const char *name;
    unsigned kinds;
  } tests[] = {
      {"undefined", 1u << V_UNDEFINED},
      {"none", 1u << V_NONE},
      {"boolean", 1u << V_BOOL},
      {"integer", 1u << V_INT},
      {"float", 1u << V_FLOAT},
      {"number", 1u << V_INT | 1u << V_FLOAT | 1u << V_BOOL},
      {"string", 1u << V_STRING},
      {"mapping", 1u << V_DICT},
      {"sequence", 1u << V_STRING | 1u << V_LIST | 1u << V_DICT | 1u << V_UNDEFINED},
      {"iterable", 1u << V_STRING | 1u << V_LIST | 1u << V_GENERATOR | 1u << V_DICT |
                       1u << V_UNDEFINED | 1u << V_LOOP},
      {"callable", 1u << V_MACRO | 1u << V_FUNCTION | 1u << V_METHOD | 1u << V_CYCLER},
      {"defined", ~(1u << V_UNDEFINED)},
  };
  *found = true;
  if (v.kind == V_DICT && v.space && strcmp(name, "defined") != 0) return false;
  for (size_t k = 0; k < sizeof tests / sizeof tests[0]; k++)
    if (strcmp(tests[k].name, name) == 0) return tests[k].kinds >> v.kind & 1;
  if (strcmp(name, "true") == 0) return v.kind == V_BOOL && v.b;
  if (strcmp(name, "false") == 0) return v.kind == V_BOOL && !v.b;
  *found = false;
  return false;
}

static bool run_test(jinja_run *r, const char *name, jinja_value v, const jinja_args *a) {
  bool found;
  jinja_value x = arg(a, 0, "other");
  bool yes = test_kind(name, v, &found);
  if (!found) yes = test_order(r, name, v, x, &found);
  if (found) return yes;
  if (strcmp(name, "in") == 0) return ist_jinja_contains(r, x, v);
  if (strcmp(name, "odd") == 0) return ist_jinja_whole(r, v) % 2 != 0;
  if (strcmp(name, "even") == 0) return ist_jinja_whole(r, v) % 2 == 0;
  if (strcmp(name, "divisibleby") == 0) {
    int64_t by = ist_jinja_whole(r, x);
    if (by == 0) ist_jinja_fail(r, "division by zero");
    return by == -1 || ist_jinja_whole(r, v) % by == 0; /* INT64_MIN / -1 is past 64 bits */
  }
  if (strcmp(name, "sameas") == 0) return v.kind == x.kind && ist_jinja_equal(r, v, x);
  if (strcmp(name, "upper") == 0 || strcmp(name, "lower") == 0) {
    const jinja_method m = {{.kind = V_STRING, .s = ist_jinja_string(r, v)},
                            *name == 'u' ? "isupper" : "islower"};
    return ist_jinja_true(ist_jinja_call_method(r, &m, &(jinja_args){0}));
  }
  ist_jinja_fail(r, "no test named '%.60s'", name);
}

bool ist_jinja_test(jinja_run *r, const char *name, jinja_value v, const jinja_args *a) {
  ist_jinja_step(r, 1);
  ist_jinja_enter(r);
  bool yes = run_test(r, name, v, a);
  ist_jinja_leave(r);
  return yes;
}
