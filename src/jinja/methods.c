/* The methods of strings, dictionaries and lists that templates call. Those that
 * would change a value are undefined, as in the immutable sandbox. */
#include <stdlib.h>
#include <string.h>

#include <utf8proc.h>

#include "jinja/internal.h"

typedef jinja_value (*string_fn)(jinja_run *r, const jinja_str *s, const jinja_args *a);

static const jinja_str *string_arg(jinja_run *r, const jinja_args *a, int64_t i, const char *name) {
  jinja_value v = ist_jinja_arg(a, i, name, ist_jinja_none());
  if (v.kind != V_STRING)
    ist_jinja_fail(r, "argument %d must be str, not %s", (int)i + 1, ist_jinja_kind_name(v));
  return v.s;
}

/* The argument as a string, NULL when it is none or absent. */
static const jinja_str *optional(jinja_run *r, const jinja_args *a, int64_t i, const char *name) {
  jinja_value v = ist_jinja_arg(a, i, name, ist_jinja_none());
  return v.kind == V_NONE ? NULL : string_arg(r, a, i, name);
}

static int64_t count_arg(jinja_run *r, const jinja_args *a, int64_t i, const char *name) {
  return ist_jinja_integer(r, ist_jinja_arg(a, i, name, ist_jinja_int(-1)));
}

/* The arguments `start` and `end` of a search, which are 1 and 2, in n items: where it begins,
 * which may be behind all, and where it ends. */
static void range_args(jinja_run *r, const jinja_args *a, int64_t n, int64_t *begin, int64_t *end) {
  jinja_value from = ist_jinja_arg(a, 1, "start", ist_jinja_none());
  jinja_value to = ist_jinja_arg(a, 2, "end", ist_jinja_none());
  *begin = from.kind == V_NONE ? 0 : ist_jinja_integer(r, from);
  *end = to.kind == V_NONE ? n : ist_jinja_integer(r, to);
  if (*begin < 0) *begin = *begin + n < 0 ? 0 : *begin + n;
  if (*end < 0) *end = *end + n < 0 ? 0 : *end + n;
  if (*end > n) *end = n;
}

/* The part of a string that start and end leave to a search, and the characters before it; false
 * where it begins behind its end, and not even the empty string is found. */
static bool searched(jinja_run *r, const jinja_str *s, const jinja_args *a, jinja_str *part,
                     int64_t *before) {
  int64_t end;
  *part = *s;
  *before = 0;
  if (a->n + a->n_named < 2) return true;
  range_args(r, a, ist_jinja_length(r, s), before, &end);
  if (*before > end) return false;
  size_t from = ist_jinja_char_at(r, s, *before), to = ist_jinja_char_at(r, s, end);
  *part = (jinja_str){s->p + from, to - from, NULL};
  return true;
}

/* ---- Strings ---- */

static jinja_value s_strip(jinja_run *r, const jinja_str *s, const jinja_args *a) {
  return ist_jinja_strip(r, s, optional(r, a, 0, "chars"), 3);
}
static jinja_value s_lstrip(jinja_run *r, const jinja_str *s, const jinja_args *a) {
  return ist_jinja_strip(r, s, optional(r, a, 0, "chars"), 1);
}
static jinja_value s_rstrip(jinja_run *r, const jinja_str *s, const jinja_args *a) {
  return ist_jinja_strip(r, s, optional(r, a, 0, "chars"), 2);
}
static jinja_value s_upper(jinja_run *r, const jinja_str *s, const jinja_args *a) {
  (void)a;
  return ist_jinja_case(r, s, 'u');
}
static jinja_value s_lower(jinja_run *r, const jinja_str *s, const jinja_args *a) {
  (void)a;
  return ist_jinja_case(r, s, 'l');
}
static jinja_value s_title(jinja_run *r, const jinja_str *s, const jinja_args *a) {
  (void)a;
  return ist_jinja_case(r, s, 't');
}
static jinja_value s_capitalize(jinja_run *r, const jinja_str *s, const jinja_args *a) {
  (void)a;
  return ist_jinja_case(r, s, 'c');
}

static bool has_end(jinja_run *r, const jinja_str *s, const jinja_str *part, bool begin) {
  ist_jinja_step_bytes(r, part->len);
  return part->len <= s->len &&
         memcmp(begin ? s->p : s->p + s->len - part->len, part->p, part->len) == 0;
}

/* startswith and endswith take a string or a tuple of strings. */
static jinja_value affix(jinja_run *r, const jinja_str *s, const jinja_args *a, bool begin) {
  jinja_value v = ist_jinja_arg(a, 0, "prefix", ist_jinja_none());
  jinja_str part;
  int64_t before;
  bool any = searched(r, s, a, &part, &before);
  if (v.kind != V_LIST)
    return ist_jinja_bool(has_end(r, &part, string_arg(r, a, 0, "prefix"), begin) && any);
  for (int64_t i = 0; any && i < v.list->n; i++) {
    if (i % 4 == 3) ist_jinja_step(r, 1);
    if (v.list->p[i].kind == V_STRING && has_end(r, &part, v.list->p[i].s, begin))
      return ist_jinja_bool(true);
  }
  return ist_jinja_bool(false);
}
static jinja_value s_startswith(jinja_run *r, const jinja_str *s, const jinja_args *a) {
  return affix(r, s, a, true);
}
static jinja_value s_endswith(jinja_run *r, const jinja_str *s, const jinja_args *a) {
  return affix(r, s, a, false);
}
static jinja_value s_removeprefix(jinja_run *r, const jinja_str *s, const jinja_args *a) {
  const jinja_str *part = string_arg(r, a, 0, "prefix");
  return ist_jinja_sub(r, s, has_end(r, s, part, true) ? part->len : 0, s->len);
}
static jinja_value s_removesuffix(jinja_run *r, const jinja_str *s, const jinja_args *a) {
  const jinja_str *part = string_arg(r, a, 0, "suffix");
  return ist_jinja_sub(r, s, 0, s->len - (has_end(r, s, part, false) ? part->len : 0));
}

static jinja_value s_replace(jinja_run *r, const jinja_str *s, const jinja_args *a) {
  return ist_jinja_replace(r, s, string_arg(r, a, 0, "old"), string_arg(r, a, 1, "new"),
                           count_arg(r, a, 2, "count"));
}

/* The last place of `by`, which is not empty, that ends at or before `end`; -1: none. */
static int64_t find_back(jinja_run *r, const jinja_str *s, const jinja_str *by, size_t end) {
  int64_t at = (int64_t)end - (int64_t)by->len;
  for (; at >= 0; at--) {
    if (s->p[at] != by->p[0]) continue;
    ist_jinja_step_bytes(r, by->len);
    if (memcmp(s->p + at, by->p, by->len) == 0) break;
  }
  ist_jinja_step_chars(r, end - (at > 0 ? (size_t)at : 0));
  return at < 0 ? -1 : at;
}

/* The place of argument 0, in characters; -1. */
static int64_t place(jinja_run *r, const jinja_str *s, const jinja_args *a, bool last) {
  const jinja_str *what = string_arg(r, a, 0, "sub");
  jinja_str part;
  int64_t before;
  if (!searched(r, s, a, &part, &before)) return -1;
  int64_t hit = !last            ? ist_jinja_find(r, &part, what, 0)
                : what->len == 0 ? (int64_t)part.len
                                 : find_back(r, &part, what, part.len);
  if (hit < 0) return -1;
  part.len = (size_t)hit;
  return before + ist_jinja_length(r, &part);
}
static jinja_value s_find(jinja_run *r, const jinja_str *s, const jinja_args *a) {
  return ist_jinja_int(place(r, s, a, false));
}
static jinja_value s_rfind(jinja_run *r, const jinja_str *s, const jinja_args *a) {
  return ist_jinja_int(place(r, s, a, true));
}
static jinja_value s_index(jinja_run *r, const jinja_str *s, const jinja_args *a) {
  int64_t i = place(r, s, a, false);
  if (i < 0) ist_jinja_fail(r, "substring not found");
  return ist_jinja_int(i);
}
static jinja_value s_count(jinja_run *r, const jinja_str *s, const jinja_args *a) {
  const jinja_str *what = string_arg(r, a, 0, "sub");
  jinja_str part;
  int64_t n = 0, before;
  if (!searched(r, s, a, &part, &before)) return ist_jinja_int(0);
  if (what->len == 0) return ist_jinja_int(ist_jinja_length(r, &part) + 1);
  for (int64_t at = 0; (at = ist_jinja_find(r, &part, what, (size_t)at)) >= 0;
       at += (int64_t)what->len)
    n++;
  return ist_jinja_int(n);
}

static void add_part(jinja_run *r, jinja_value list, const jinja_str *s, size_t begin, size_t end) {
  ist_jinja_append(r, list, ist_jinja_sub(r, s, begin, end));
}

static size_t space_at(const jinja_str *s, size_t at) {
  utf8proc_int32_t c;
  utf8proc_ssize_t n =
      utf8proc_iterate((const utf8proc_uint8_t *)s->p + at, (utf8proc_ssize_t)(s->len - at), &c);
  if (n <= 0) return 0;
  bool space = (c >= 9 && c <= 13) || (c >= 0x1c && c <= 0x20) || c == 0x85;
  utf8proc_category_t k = utf8proc_category(c);
  space |= k == UTF8PROC_CATEGORY_ZS || k == UTF8PROC_CATEGORY_ZL || k == UTF8PROC_CATEGORY_ZP;
  return space ? (size_t)n : 0;
}

/* split() without a separator: words between white space. */
static jinja_value split_words(jinja_run *r, const jinja_str *s, int64_t max) {
  jinja_value out = ist_jinja_new_list(r, 0);
  size_t at = 0, space;
  ist_jinja_step_chars(r, s->len);
  for (;;) {
    while (at < s->len && (space = space_at(s, at)) > 0) at += space;
    if (at == s->len) return out;
    size_t begin = at;
    if (max >= 0 && out.list->n == max) {
      add_part(r, out, s, at, s->len);
      return out;
    }
    while (at < s->len && space_at(s, at) == 0) at++;
    add_part(r, out, s, begin, at);
  }
}

static jinja_value s_split(jinja_run *r, const jinja_str *s, const jinja_args *a) {
  const jinja_str *by = optional(r, a, 0, "sep");
  int64_t max = count_arg(r, a, 1, "maxsplit");
  if (!by) return split_words(r, s, max);
  if (by->len == 0) ist_jinja_fail(r, "empty separator");
  jinja_value out = ist_jinja_new_list(r, 0);
  size_t at = 0;
  for (int64_t hit; (max < 0 || out.list->n < max) && (hit = ist_jinja_find(r, s, by, at)) >= 0;) {
    add_part(r, out, s, at, (size_t)hit);
    at = (size_t)hit + by->len;
  }
  add_part(r, out, s, at, s->len);
  return out;
}

/* The size of the white space that ends at `end`; 0: none does. */
static size_t space_before(const jinja_str *s, size_t end) {
  size_t at = end - 1;
  while (at > 0 && end - at < 4 && ((unsigned char)s->p[at] & 0xc0) == 0x80) at--;
  return space_at(s, at) == end - at ? end - at : 0;
}

/* The last words, at most `max`, and what stands before them; the last first. */
static void split_words_back(jinja_run *r, jinja_value out, const jinja_str *s, int64_t max) {
  size_t end = s->len, space;
  ist_jinja_step_chars(r, s->len);
  for (;;) {
    while (end > 0 && (space = space_before(s, end)) > 0) end -= space;
    if (end == 0) return;
    size_t begin = out.list->n == max ? 0 : end;
    while (begin > 0 && space_before(s, begin) == 0) begin--;
    add_part(r, out, s, begin, end);
    end = begin;
  }
}

static jinja_value s_rsplit(jinja_run *r, const jinja_str *s, const jinja_args *a) {
  const jinja_str *by = optional(r, a, 0, "sep");
  int64_t max = count_arg(r, a, 1, "maxsplit");
  if (max < 0) return s_split(r, s, a);
  if (by && by->len == 0) ist_jinja_fail(r, "empty separator");
  jinja_value back = ist_jinja_new_list(r, 0), out = ist_jinja_new_list(r, 0);
  if (by) {
    size_t end = s->len;
    for (int64_t hit; back.list->n < max && (hit = find_back(r, s, by, end)) >= 0;
         end = (size_t)hit)
      add_part(r, back, s, (size_t)hit + by->len, end);
    add_part(r, back, s, 0, end);
  } else {
    split_words_back(r, back, s, max);
  }
  for (int64_t i = back.list->n; i-- > 0;) ist_jinja_append(r, out, back.list->p[i]);
  return out;
}

static jinja_value partition(jinja_run *r, const jinja_str *s, const jinja_args *a, bool last) {
  const jinja_str *by = string_arg(r, a, 0, "sep");
  if (by->len == 0) ist_jinja_fail(r, "empty separator");
  int64_t hit = last ? find_back(r, s, by, s->len) : ist_jinja_find(r, s, by, 0);
  size_t at = hit >= 0 ? (size_t)hit : last ? 0 : s->len, behind = hit >= 0 ? at + by->len : at;
  jinja_value out = ist_jinja_new_list(r, 3);
  out.tuple = true;
  add_part(r, out, s, 0, at);
  add_part(r, out, s, at, behind);
  add_part(r, out, s, behind, s->len);
  return out;
}
static jinja_value s_partition(jinja_run *r, const jinja_str *s, const jinja_args *a) {
  return partition(r, s, a, false);
}
static jinja_value s_rpartition(jinja_run *r, const jinja_str *s, const jinja_args *a) {
  return partition(r, s, a, true);
}

size_t ist_jinja_line_break(const jinja_str *s, size_t at) {
  const char *p = s->p + at;
  size_t left = s->len - at;
  if (left > 1 && memcmp(p, "\r\n", 2) == 0) return 2;
  if (left > 0 && ((*p >= '\n' && *p <= '\r') || (*p >= 0x1c && *p <= 0x1e))) return 1;
  if (left > 1 && memcmp(p, "\xc2\x85", 2) == 0) return 2;
  return left > 2 && memcmp(p, "\xe2\x80", 2) == 0 && (p[2] == '\xa8' || p[2] == '\xa9') ? 3 : 0;
}

static jinja_value s_splitlines(jinja_run *r, const jinja_str *s, const jinja_args *a) {
  bool keep = ist_jinja_true(ist_jinja_arg(a, 0, "keepends", ist_jinja_bool(false)));
  jinja_value out = ist_jinja_new_list(r, 0);
  ist_jinja_step_chars(r, s->len);
  for (size_t at = 0; at < s->len;) {
    size_t end = at, size;
    while ((size = ist_jinja_line_break(s, end)) == 0 && end < s->len) end++;
    size_t behind = end + size;
    add_part(r, out, s, at, keep ? behind : end);
    at = behind;
  }
  return out;
}

static jinja_value s_join(jinja_run *r, const jinja_str *s, const jinja_args *a) {
  const jinja_list *l = ist_jinja_items(r, ist_jinja_arg(a, 0, "iterable", ist_jinja_none()));
  jinja_out *o = ist_jinja_out_new(r);
  for (int64_t i = 0; i < l->n; i++) {
    if (i % 4 == 3) ist_jinja_step(r, 1);
    if (l->p[i].kind != V_STRING)
      ist_jinja_fail(r, "sequence item %lld: expected str instance, %s found", (long long)i,
                     ist_jinja_kind_name(l->p[i]));
    if (i) ist_jinja_write(r, o, s->p, s->len, s->origin);
    ist_jinja_write(r, o, l->p[i].s->p, l->p[i].s->len, l->p[i].s->origin);
  }
  return ist_jinja_out_value(r, o);
}

/* The field of a format string: the next argument, one by its number or one by its name. */
static jinja_value format_field(jinja_run *r, const jinja_args *a, const char *name,
                                int64_t *used) {
  ist_jinja_step(r, 1 + a->n_named / 4);
  if (name[strspn(name, "0123456789")] == 0) {
    int64_t i = *name ? strtoll(name, NULL, 10) : (*used)++;
    if (i < a->n) return a->p[i];
  }
  for (int64_t k = 0; *name && k < a->n_named; k++)
    if (strcmp(a->name[k], name) == 0) return a->named[k];
  ist_jinja_fail(r, "format has no argument '%s'", name);
}

/* "{} {name}".format(...), without attributes, conversions and specifications. */
static jinja_value s_format(jinja_run *r, const jinja_str *s, const jinja_args *a) {
  jinja_out *o = ist_jinja_out_new(r);
  int64_t used = 0;
  ist_jinja_step_chars(r, s->len);
  for (size_t i = 0; i < s->len; i++) {
    char c = s->p[i];
    bool twice = i + 1 < s->len && s->p[i + 1] == c;
    if ((c != '{' && c != '}') || twice) {
      ist_jinja_write_one(r, o, &c, 1, s->origin ? s->origin[i] : 0);
      i += (c == '{' || c == '}') && twice;
      continue;
    }
    const char *close = c == '{' ? memchr(s->p + i, '}', s->len - i) : NULL;
    if (!close) ist_jinja_fail(r, "a single '%c' in a format string", c);
    char name[64] = "";
    size_t n = (size_t)(close - (s->p + i)) - 1;
    if (n < sizeof name) memcpy(name, s->p + i + 1, n);
    if (n >= sizeof name || strlen(name) != n || strpbrk(name, ".[!:"))
      ist_jinja_fail(r, "a format string with more than names is not supported");
    ist_jinja_print(r, o, format_field(r, a, name, &used));
    i += n + 1;
  }
  return ist_jinja_out_value(r, o);
}

/* True for a string that is not empty and whose characters all are such. */
static jinja_value all_of(jinja_run *r, const jinja_str *s,
                          bool (*is)(utf8proc_category_t k, int32_t c)) {
  ist_jinja_step_chars(r, s->len);
  for (size_t at = 0; at < s->len;) {
    utf8proc_int32_t c;
    utf8proc_ssize_t n =
        utf8proc_iterate((const utf8proc_uint8_t *)s->p + at, (utf8proc_ssize_t)(s->len - at), &c);
    if (n <= 0 || !is(utf8proc_category(c), c)) return ist_jinja_bool(false);
    at += (size_t)n;
  }
  return ist_jinja_bool(s->len > 0);
}
static bool digit(utf8proc_category_t k, int32_t c) {
  (void)c;
  return k == UTF8PROC_CATEGORY_ND;
}
static bool alpha(utf8proc_category_t k, int32_t c) {
  (void)c;
  return k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_LO;
}
static bool alnum(utf8proc_category_t k, int32_t c) {
  return alpha(k, c) || (k >= UTF8PROC_CATEGORY_ND && k <= UTF8PROC_CATEGORY_NO);
}
static bool space(utf8proc_category_t k, int32_t c) {
  return (c >= 9 && c <= 13) || (c >= 0x1c && c <= 0x1f) || c == 0x85 ||
         k == UTF8PROC_CATEGORY_ZS || k == UTF8PROC_CATEGORY_ZL || k == UTF8PROC_CATEGORY_ZP;
}
int64_t ist_jinja_count_words(jinja_run *r, const jinja_str *s) {
  int64_t words = 0;
  bool inside = false;
  ist_jinja_step_chars(r, s->len);
  for (size_t at = 0; at < s->len;) {
    utf8proc_int32_t c;
    utf8proc_ssize_t n =
        utf8proc_iterate((const utf8proc_uint8_t *)s->p + at, (utf8proc_ssize_t)(s->len - at), &c);
    bool word = n > 0 && (c == '_' || alnum(utf8proc_category(c), c));
    words += word && !inside;
    inside = word;
    at += n > 0 ? (size_t)n : 1;
  }
  return words;
}
static jinja_value s_isdigit(jinja_run *r, const jinja_str *s, const jinja_args *a) {
  (void)a;
  return all_of(r, s, digit);
}
static jinja_value s_isalpha(jinja_run *r, const jinja_str *s, const jinja_args *a) {
  (void)a;
  return all_of(r, s, alpha);
}
static jinja_value s_isalnum(jinja_run *r, const jinja_str *s, const jinja_args *a) {
  (void)a;
  return all_of(r, s, alnum);
}
static jinja_value s_isspace(jinja_run *r, const jinja_str *s, const jinja_args *a) {
  (void)a;
  return all_of(r, s, space);
}
static jinja_value is_case(jinja_run *r, const jinja_str *s, char how) {
  jinja_value same = ist_jinja_case(r, s, how),
              other = ist_jinja_case(r, s, how == 'u' ? 'l' : 'u');
  jinja_value v = {.kind = V_STRING, .s = s};
  return ist_jinja_bool(ist_jinja_equal(r, same, v) && !ist_jinja_equal(r, other, v));
}
static jinja_value s_isupper(jinja_run *r, const jinja_str *s, const jinja_args *a) {
  (void)a;
  return is_case(r, s, 'u');
}
static jinja_value s_islower(jinja_run *r, const jinja_str *s, const jinja_args *a) {
  (void)a;
  return is_case(r, s, 'l');
}

enum { MOST_ARGS = 3 };
/* The arguments that a method has; more are an error, rather than passed over. */
static const struct {
  const char *name;
  string_fn fn;
  const char *args[MOST_ARGS + 1];
} string_methods[] = {
    {"strip", s_strip, {"chars"}},
    {"lstrip", s_lstrip, {"chars"}},
    {"rstrip", s_rstrip, {"chars"}},
    {"upper", s_upper, {NULL}},
    {"lower", s_lower, {NULL}},
    {"title", s_title, {NULL}},
    {"capitalize", s_capitalize, {NULL}},
    {"startswith", s_startswith, {"prefix", "start", "end"}},
    {"endswith", s_endswith, {"prefix", "start", "end"}},
    {"removeprefix", s_removeprefix, {"prefix"}},
    {"removesuffix", s_removesuffix, {"suffix"}},
    {"replace", s_replace, {"old", "new", "count"}},
    {"find", s_find, {"sub", "start", "end"}},
    {"rfind", s_rfind, {"sub", "start", "end"}},
    {"index", s_index, {"sub", "start", "end"}},
    {"count", s_count, {"sub", "start", "end"}},
    {"split", s_split, {"sep", "maxsplit"}},
    {"rsplit", s_rsplit, {"sep", "maxsplit"}},
    {"partition", s_partition, {"sep"}},
    {"rpartition", s_rpartition, {"sep"}},
    {"splitlines", s_splitlines, {"keepends"}},
    {"join", s_join, {"iterable"}},
    {"format", s_format, {NULL}}, /* any */
    {"isdigit", s_isdigit, {NULL}},
    {"isnumeric", s_isdigit, {NULL}},
    {"isdecimal", s_isdigit, {NULL}},
    {"isalpha", s_isalpha, {NULL}},
    {"isalnum", s_isalnum, {NULL}},
    {"isspace", s_isspace, {NULL}},
    {"isupper", s_isupper, {NULL}},
    {"islower", s_islower, {NULL}},
};
enum { STRING_METHODS = sizeof string_methods / sizeof string_methods[0] };

/* ---- Dictionaries and lists ---- */

static const char *const dict_methods[] = {"get", "items", "keys", "values", "copy", NULL};
static const char *const list_methods[] = {"index", "count", "copy", NULL};
/* What those of them that have arguments have. */
static const char *const get_args[] = {"key", "default", NULL};
static const char *const index_args[] = {"value", "start", "end", NULL};
static const char *const count_args[] = {"value", NULL};
static const char *const no_args[] = {NULL};
static const char *const tuple_methods[] = {"index", "count", NULL};
static const char *const changing_dict[] = {"clear",      "pop",    "popitem",
                                            "setdefault", "update", NULL};
static const char *const changing_list[] = {"append", "clear",   "extend", "insert", "pop",
                                            "remove", "reverse", "sort",   NULL};

bool ist_jinja_listed(const char *const *names, const char *name) {
  for (; *names; names++)
    if (strcmp(*names, name) == 0) return true;
  return false;
}

static void check_args(jinja_run *r, const char *method, const char *const *known,
                       const jinja_args *a) {
  int64_t most = 0;
  while (known[most]) most++;
  if (a->n + a->n_named > most)
    ist_jinja_fail(r, "'%s' takes not more than %d argument(s)", method, (int)most);
  for (int64_t k = 0; k < a->n_named; k++)
    if (!ist_jinja_listed(known, a->name[k]))
      ist_jinja_fail(r, "'%s' takes no keyword argument '%s'", method, a->name[k]);
}

static jinja_value dict_method(jinja_run *r, const jinja_method *m, const jinja_args *a) {
  const jinja_dict *d = m->self.dict;
  check_args(r, m->name, strcmp(m->name, "get") == 0 ? get_args : no_args, a);
  if (strcmp(m->name, "get") == 0) {
    const jinja_value *v = ist_jinja_get(r, d, ist_jinja_arg(a, 0, "key", ist_jinja_none()));
    return v ? *v : ist_jinja_arg(a, 1, "default", ist_jinja_none());
  }
  jinja_value out = ist_jinja_new_list(r, d->n);
  if (strcmp(m->name, "copy") == 0) {
    out = ist_jinja_new_dict(r);
    for (int64_t i = 0; i < d->n; i++) ist_jinja_put(r, out.dict, d->p[i].key, d->p[i].value);
    return out;
  }
  for (int64_t i = 0; i < d->n; i++) {
    if (strcmp(m->name, "items") == 0) {
      jinja_value pair = ist_jinja_new_list(r, 2);
      pair.tuple = true;
      ist_jinja_append(r, pair, d->p[i].key);
      ist_jinja_append(r, pair, d->p[i].value);
      ist_jinja_append(r, out, pair);
    } else {
      ist_jinja_append(r, out, strcmp(m->name, "keys") == 0 ? d->p[i].key : d->p[i].value);
    }
  }
  return out;
}

static jinja_value list_method(jinja_run *r, const jinja_method *m, const jinja_args *a) {
  const jinja_list *l = m->self.list;
  bool copy = strcmp(m->name, "copy") == 0, index = strcmp(m->name, "index") == 0;
  check_args(r, m->name, copy ? no_args : index ? index_args : count_args, a);
  if (copy) return ist_jinja_copy(r, m->self);
  jinja_value what = ist_jinja_arg(a, 0, "value", ist_jinja_none());
  int64_t n = 0, begin, end;
  range_args(r, a, l->n, &begin, &end);
  for (int64_t i = begin; i < end; i++) {
    if (i % 4 == 3) ist_jinja_step(r, 1);
    if (!ist_jinja_equal(r, l->p[i], what)) continue;
    if (index) return ist_jinja_int(i);
    n++;
  }
  if (index) ist_jinja_fail(r, "the value is not in the list");
  return ist_jinja_int(n);
}

static jinja_value loop_method(jinja_run *r, const jinja_method *m, const jinja_args *a) {
  jinja_loop *l = m->self.loop;
  if (strcmp(m->name, "cycle") == 0) {
    if (a->n == 0) ist_jinja_fail(r, "no items for cycling given");
    return a->p[l->at % a->n];
  }
  jinja_value now = ist_jinja_new_list(r, a->n);
  for (int64_t i = 0; i < a->n; i++) ist_jinja_append(r, now, a->p[i]);
  bool changed = !l->seen || !ist_jinja_equal(r, now, l->last);
  l->seen = true;
  l->last = now;
  return ist_jinja_bool(changed);
}

bool ist_jinja_has_method(jinja_value v, const char *name) {
  switch (v.kind) {
    case V_STRING:
      for (int k = 0; k < STRING_METHODS; k++)
        if (strcmp(string_methods[k].name, name) == 0) return true;
      return false;
    case V_DICT: return !v.space && ist_jinja_listed(dict_methods, name);
    case V_LIST: return ist_jinja_listed(v.tuple ? tuple_methods : list_methods, name);
    case V_LOOP: return strcmp(name, "cycle") == 0 || strcmp(name, "changed") == 0;
    case V_CYCLER: return strcmp(name, "next") == 0 || strcmp(name, "reset") == 0;
    default: return false;
  }
}

bool ist_jinja_changes(jinja_value v, const char *method) {
  return (v.kind == V_DICT && !v.space && ist_jinja_listed(changing_dict, method)) ||
         (v.kind == V_LIST && !v.tuple && ist_jinja_listed(changing_list, method));
}

jinja_value ist_jinja_call_method(jinja_run *r, const jinja_method *m, const jinja_args *a) {
  if (m->self.kind == V_STRING) {
    int k = 0;
    while (strcmp(string_methods[k].name, m->name) != 0) k++;
    if (string_methods[k].fn != s_format) check_args(r, m->name, string_methods[k].args, a);
    return string_methods[k].fn(r, m->self.s, a);
  }
  if (m->self.kind == V_LOOP) return loop_method(r, m, a);
  if (m->self.kind == V_CYCLER) {
    jinja_cycler *c = m->self.cycler;
    if (strcmp(m->name, "reset") == 0) {
      c->at = 0;
      return ist_jinja_none();
    }
    return c->items->p[c->at++ % c->items->n];
  }
  return m->self.kind == V_DICT ? dict_method(r, m, a) : list_method(r, m, a);
}
