/* Text: writing it with its origin, Python's ways to print values, and what can be
 * done with strings. Positions are bytes; Python's are characters. */
#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <utf8proc.h>

#include "jinja/internal.h"

/* ---- Writing ---- */

jinja_out *ist_jinja_out_new(jinja_run *r) {
  return ist_jinja_new(r, 1, sizeof(jinja_out));
}

static void reserve(jinja_run *r, jinja_out *o, size_t len) {
  ist_jinja_step_bytes(r, len);
  if (o->len + len <= o->cap) return;
  size_t cap = o->cap ? 2 * o->cap : 128;
  while (cap < o->len + len) cap *= 2;
  char *p = ist_jinja_new(r, cap, 1);
  uint16_t *origin = ist_jinja_new(r, cap, sizeof *origin);
  if (o->len) {
    memcpy(p, o->p, o->len);
    memcpy(origin, o->origin, o->len * sizeof *origin);
  }
  o->p = p;
  o->origin = origin;
  o->cap = cap;
}

void ist_jinja_write(jinja_run *r, jinja_out *o, const char *p, size_t len,
                     const uint16_t *origin) {
  if (len == 0) return;
  reserve(r, o, len);
  memcpy(o->p + o->len, p, len);
  if (origin)
    memcpy(o->origin + o->len, origin, len * sizeof *origin);
  else
    memset(o->origin + o->len, 0, len * sizeof *origin);
  o->len += len;
}

void ist_jinja_write_one(jinja_run *r, jinja_out *o, const char *p, size_t len, uint16_t origin) {
  size_t at = o->len;
  ist_jinja_write(r, o, p, len, NULL);
  for (; at < o->len; at++) o->origin[at] = origin;
}

void ist_jinja_puts(jinja_run *r, jinja_out *o, const char *text) {
  ist_jinja_write(r, o, text, strlen(text), NULL);
}

static void write_str(jinja_run *r, jinja_out *o, const jinja_str *s) {
  ist_jinja_write(r, o, s->p, s->len, s->origin);
}

static void write_part(jinja_run *r, jinja_out *o, const jinja_str *s, size_t begin, size_t end) {
  ist_jinja_write(r, o, s->p + begin, end - begin, s->origin ? s->origin + begin : NULL);
}

jinja_value ist_jinja_out_value(jinja_run *r, const jinja_out *o) {
  return ist_jinja_text(r, o->p ? o->p : "", o->len, o->origin);
}

/* ---- Python's str() and repr() ---- */

void ist_jinja_format_float(char out[64], double f) {
  if (isnan(f) || isinf(f)) {
    strcpy(out, isnan(f) ? "nan" : f < 0 ? "-inf" : "inf");
    return;
  }
  char digits[40];
  int precision = 1;
  do snprintf(digits, sizeof digits, "%.*e", precision - 1, f);
  while (strtod(digits, NULL) != f && ++precision <= 17);
  int exponent = atoi(strchr(digits, 'e') + 1);
  if (exponent < -4 || exponent >= 16) {
    char *e = strchr(digits, 'e');
    snprintf(out, 64, "%.*se%c%02d", (int)(e - digits), digits, exponent < 0 ? '-' : '+',
             abs(exponent));
    return;
  }
  int decimals = precision - 1 - exponent;
  snprintf(out, 64, "%.*f", decimals > 1 ? decimals : 1, f);
}

/* As Python's str.isprintable. */
static bool is_printable(utf8proc_int32_t c) {
  switch (utf8proc_category(c)) {
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP: return false;
    case UTF8PROC_CATEGORY_ZS: return c == ' ';
    default: return true;
  }
}

/* How Python writes a character between such quotes; "": as it is. */
static void escape_char(char out[12], utf8proc_int32_t c, char quote) {
  unsigned code = (unsigned)c;
  *out = 0;
  if (c == quote || c == '\\')
    snprintf(out, 12, "\\%c", c);
  else if (c == '\n' || c == '\r' || c == '\t')
    snprintf(out, 12, "\\%c", c == '\n' ? 'n' : c == '\r' ? 'r' : 't');
  else if (!is_printable(c))
    snprintf(out, 12, code < 0x100 ? "\\x%02x" : code < 0x10000 ? "\\u%04x" : "\\U%08x", code);
}

static void repr_string(jinja_run *r, jinja_out *o, const jinja_str *s) {
  ist_jinja_step_chars(r, s->len);
  char quote = memchr(s->p, '\'', s->len) && !memchr(s->p, '"', s->len) ? '"' : '\'';
  ist_jinja_write(r, o, &quote, 1, NULL);
  for (size_t at = 0, size; at < s->len; at += size) {
    char escaped[12] = "";
    utf8proc_int32_t c;
    utf8proc_ssize_t n =
        utf8proc_iterate((const utf8proc_uint8_t *)s->p + at, (utf8proc_ssize_t)(s->len - at), &c);
    size = n > 0 ? (size_t)n : 1; /* a byte of no character stays what it is */
    if (n > 0) escape_char(escaped, c, quote);
    const char *text = *escaped ? escaped : s->p + at;
    ist_jinja_write_one(r, o, text, *escaped ? strlen(escaped) : size,
                        s->origin ? s->origin[at] : 0);
  }
  ist_jinja_write(r, o, &quote, 1, NULL);
}

static void repr_list(jinja_run *r, jinja_out *o, jinja_value v) {
  ist_jinja_puts(r, o, v.tuple ? "(" : "[");
  for (int64_t i = 0; i < v.list->n; i++) {
    if (i) ist_jinja_puts(r, o, ", ");
    ist_jinja_repr(r, o, v.list->p[i]);
  }
  ist_jinja_puts(r, o, v.tuple ? v.list->n == 1 ? ",)" : ")" : "]");
}

static void repr_dict(jinja_run *r, jinja_out *o, const jinja_dict *d) {
  ist_jinja_puts(r, o, "{");
  for (int64_t i = 0; i < d->n; i++) {
    if (i) ist_jinja_puts(r, o, ", ");
    ist_jinja_repr(r, o, d->p[i].key);
    ist_jinja_puts(r, o, ": ");
    ist_jinja_repr(r, o, d->p[i].value);
  }
  ist_jinja_puts(r, o, "}");
}

void ist_jinja_repr(jinja_run *r, jinja_out *o, jinja_value v) {
  char text[64];
  ist_jinja_step(r, 1);
  if (++r->depth > 200) ist_jinja_fail(r, "values nested too deep");
  switch (v.kind) {
    case V_UNDEFINED: ist_jinja_puts(r, o, "Undefined"); break;
    case V_NONE: ist_jinja_puts(r, o, "None"); break;
    case V_BOOL: ist_jinja_puts(r, o, v.b ? "True" : "False"); break;
    case V_INT:
      snprintf(text, sizeof text, "%lld", (long long)v.i);
      ist_jinja_puts(r, o, text);
      break;
    case V_FLOAT:
      ist_jinja_step(r, IST_JINJA_FLOAT);
      ist_jinja_format_float(text, v.f);
      ist_jinja_puts(r, o, text);
      break;
    case V_STRING: repr_string(r, o, v.s); break;
    case V_LIST: repr_list(r, o, v); break;
    case V_DICT: repr_dict(r, o, v.dict); break;
    default:
      snprintf(text, sizeof text, "<%s>", ist_jinja_kind_name(v));
      ist_jinja_puts(r, o, text);
  }
  r->depth--;
}

void ist_jinja_print(jinja_run *r, jinja_out *o, jinja_value v) {
  if (v.kind == V_STRING)
    write_str(r, o, v.s);
  else if (v.kind != V_UNDEFINED)
    ist_jinja_repr(r, o, v);
}

const jinja_str *ist_jinja_string(jinja_run *r, jinja_value v) {
  if (v.kind == V_STRING) return v.s;
  jinja_out *o = ist_jinja_out_new(r);
  ist_jinja_print(r, o, v);
  return ist_jinja_out_value(r, o).s;
}

/* ---- Characters ---- */

static bool continues(char c) {
  return ((unsigned char)c & 0xc0) == 0x80;
}

int64_t ist_jinja_length(jinja_run *r, const jinja_str *s) {
  int64_t n = 0;
  ist_jinja_step_bytes(r, s->len);
  for (size_t i = 0; i < s->len; i++) n += !continues(s->p[i]);
  return n;
}

size_t ist_jinja_char_at(jinja_run *r, const jinja_str *s, int64_t i) {
  size_t at = 0;
  while (at < s->len && (continues(s->p[at]) || i-- > 0)) at++;
  ist_jinja_step_bytes(r, at);
  return at;
}

/* The byte where character -i from the end begins; the end where there are not so many. */
static size_t char_back(jinja_run *r, const jinja_str *s, int64_t i) {
  size_t at = s->len;
  while (i < 0 && at > 0) i += !continues(s->p[--at]);
  ist_jinja_step_bytes(r, s->len - at);
  return i < 0 ? s->len : at;
}

jinja_value ist_jinja_char(jinja_run *r, const jinja_str *s, int64_t i) {
  size_t begin = i < 0 ? char_back(r, s, i) : ist_jinja_char_at(r, s, i), end = begin + 1;
  if (begin == s->len) return ist_jinja_undefined("an item out of range");
  while (end < s->len && continues(s->p[end])) end++;
  return ist_jinja_sub(r, s, begin, end);
}

jinja_value ist_jinja_sub(jinja_run *r, const jinja_str *s, size_t begin, size_t end) {
  if (end < begin) end = begin;
  return ist_jinja_text(r, s->p + begin, end - begin, s->origin ? s->origin + begin : NULL);
}

int64_t ist_jinja_find(jinja_run *r, const jinja_str *s, const jinja_str *what, size_t from) {
  if (from > s->len) return -1;
  if (what->len == 0) return (int64_t)from;
  const char *hit = memmem(s->p + from, s->len - from, what->p, what->len);
  size_t end = hit ? (size_t)(hit - s->p) + what->len : s->len;
  ist_jinja_step_chars(r, 8 + end - from);
  return hit ? hit - s->p : -1;
}

/* ---- Slices ---- */

/* Python's rules for the ends of a slice of n items. */
static int64_t clamp(jinja_run *r, jinja_value v, int64_t n, int64_t step, bool begin) {
  int64_t low = step < 0 ? -1 : 0, high = step < 0 ? n - 1 : n;
  if (v.kind == V_NONE || v.kind == V_UNDEFINED) return begin == (step > 0) ? low : high;
  if (v.kind != V_INT && v.kind != V_BOOL)
    ist_jinja_fail(r, "slice indices must be integers, not '%s'", ist_jinja_kind_name(v));
  int64_t i = v.kind == V_BOOL ? v.b : v.i;
  if (i < 0) i += n;
  return i < low ? low : i > high ? high : i;
}

jinja_value ist_jinja_slice(jinja_run *r, jinja_value v, const jinja_value bound[3]) {
  int64_t step = bound[2].kind == V_INT ? bound[2].i : 1;
  if (step == 0) ist_jinja_fail(r, "slice step cannot be zero");
  if (v.kind == V_UNDEFINED) ist_jinja_fail(r, "'%s' is undefined", v.name);
  if (v.kind != V_STRING && v.kind != V_LIST)
    ist_jinja_fail(r, "'%s' object is not subscriptable", ist_jinja_kind_name(v));
  int64_t n = v.kind == V_STRING ? ist_jinja_length(r, v.s) : v.list->n;
  int64_t from = clamp(r, bound[0], n, step, true), to = clamp(r, bound[1], n, step, false);
  if (v.kind == V_STRING && step == 1)
    return ist_jinja_sub(r, v.s, ist_jinja_char_at(r, v.s, from),
                         to > from ? ist_jinja_char_at(r, v.s, to) : 0);
  const jinja_list *l = ist_jinja_items(r, v);
  jinja_value out = ist_jinja_new_list(r, 0);
  jinja_out *text = ist_jinja_out_new(r);
  for (int64_t i = from; step > 0 ? i < to : i > to; i = ist_jinja_advance(i, step, to)) {
    if (v.kind == V_STRING)
      write_str(r, text, l->p[i].s);
    else
      ist_jinja_append(r, out, l->p[i]);
  }
  out.tuple = v.tuple;
  return v.kind == V_STRING ? ist_jinja_out_value(r, text) : out;
}

/* ---- What strings can do ---- */

/* The character that ends at `end` or begins at `at`, as code point and size. */
static int32_t decode(const jinja_str *s, size_t at, size_t *size) {
  utf8proc_int32_t c;
  utf8proc_ssize_t n =
      utf8proc_iterate((const utf8proc_uint8_t *)s->p + at, (utf8proc_ssize_t)(s->len - at), &c);
  *size = n > 0 ? (size_t)n : 1;
  return n > 0 ? c : 0xfffd;
}

/* White space as Python's str.isspace has it. */
static bool is_space(int32_t c) {
  if (c < 0x80) return (c >= 9 && c <= 13) || (c >= 0x1c && c <= 0x20);
  return c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 ||
         c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

static bool strips(jinja_run *r, const jinja_str *s, size_t at, const jinja_str *chars) {
  size_t size;
  int32_t c = decode(s, at, &size);
  if (!chars) return is_space(c);
  ist_jinja_step_bytes(r, chars->len);
  return memmem(chars->p, chars->len, s->p + at, size) != NULL;
}

jinja_value ist_jinja_strip(jinja_run *r, const jinja_str *s, const jinja_str *chars, int sides) {
  size_t begin = 0, end = s->len, size;
  while ((sides & 1) && begin < end && strips(r, s, begin, chars)) {
    decode(s, begin, &size);
    begin += size;
  }
  while ((sides & 2) && end > begin) {
    size_t at = end - 1;
    while (at > begin && continues(s->p[at])) at--;
    if (!strips(r, s, at, chars)) break;
    end = at;
  }
  ist_jinja_step_chars(r, begin + (s->len - end));
  return ist_jinja_sub(r, s, begin, end);
}

jinja_value ist_jinja_replace(jinja_run *r, const jinja_str *s, const jinja_str *from,
                              const jinja_str *to, int64_t count) {
  jinja_out *o = ist_jinja_out_new(r);
  size_t at = 0;
  while (count != 0) {
    size_t size;
    int64_t hit;
    if (from->len == 0) { /* between all characters */
      write_str(r, o, to);
      if (at == s->len) return ist_jinja_out_value(r, o);
      decode(s, at, &size);
      write_part(r, o, s, at, at + size);
      ist_jinja_step(r, 1);
      at += size;
      count--;
      continue;
    }
    hit = ist_jinja_find(r, s, from, at);
    if (hit < 0) break;
    write_part(r, o, s, at, (size_t)hit);
    write_str(r, o, to);
    at = (size_t)hit + from->len;
    count--;
  }
  write_part(r, o, s, at, s->len);
  return ist_jinja_out_value(r, o);
}

jinja_value ist_jinja_case(jinja_run *r, const jinja_str *s, char how) {
  jinja_out *o = ist_jinja_out_new(r);
  bool first = true; /* of the string, or of a word */
  size_t size;
  ist_jinja_step_chars(r, s->len);
  for (size_t at = 0; at < s->len; at += size) {
    int32_t c = decode(s, at, &size);
    utf8proc_category_t k = utf8proc_category(c);
    bool letter = k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_LO;
    bool up = how == 'u' || (how != 'l' && first);
    utf8proc_uint8_t bytes[4];
    int32_t to =
        up ? (how == 'u' ? utf8proc_toupper(c) : utf8proc_totitle(c)) : utf8proc_tolower(c);
    uint16_t origin = s->origin ? s->origin[at] : 0;
    if (c == 0xdf && up) /* sharp s has no capital of one character */
      ist_jinja_write_one(r, o, how == 'u' ? "SS" : "Ss", 2, origin);
    else
      ist_jinja_write_one(r, o, (char *)bytes, (size_t)utf8proc_encode_char(to, bytes), origin);
    first = how == 't' ? !letter : false;
  }
  return ist_jinja_out_value(r, o);
}

/* ---- "%s" % x ---- */

static jinja_value next_argument(jinja_run *r, jinja_value args, int64_t *at) {
  if (args.kind == V_LIST && args.tuple) {
    if (*at >= args.list->n) ist_jinja_fail(r, "not enough arguments for format string");
    return args.list->p[(*at)++];
  }
  if ((*at)++ > 0) ist_jinja_fail(r, "not enough arguments for format string");
  return args;
}

static void put_number(jinja_run *r, jinja_out *o, const char *spec, char type, jinja_value v) {
  char format[32], text[512]; /* 1e308 with 99 decimals */
  ist_jinja_step(r, IST_JINJA_FLOAT);
  if (!ist_jinja_is_number(v))
    ist_jinja_fail(r, "%%%c format: a number is required, not %s", type, ist_jinja_kind_name(v));
  double f = ist_jinja_number(v);
  if (strchr("eEfFgG", type)) {
    snprintf(format, sizeof format, "%%%s%c", spec, type);
    snprintf(text, sizeof text, format, f);
  } else {
    int64_t i = ist_jinja_whole(r, v);
    bool negative = i < 0 && strchr("xXo", type); /* whose digits are those of the amount */
    if (negative && *spec)
      ist_jinja_fail(r, "%%%s%c of a negative number is not supported", spec, type);
    snprintf(format, sizeof format, "%s%%%sll%c", negative ? "-" : "", spec,
             type == 'i' ? 'd' : type);
    snprintf(text, sizeof text, format, negative ? -(unsigned long long)i : (unsigned long long)i);
  }
  ist_jinja_puts(r, o, text);
}

jinja_value ist_jinja_percent(jinja_run *r, const jinja_str *s, jinja_value args) {
  jinja_out *o = ist_jinja_out_new(r);
  int64_t used = 0;
  ist_jinja_step_chars(r, s->len);
  for (size_t i = 0; i < s->len; i++) {
    if (s->p[i] != '%') {
      ist_jinja_write_one(r, o, s->p + i, 1, s->origin ? s->origin[i] : 0);
      continue;
    }
    char spec[8] = "";
    size_t n = 0;
    i++;
    while (i < s->len && strchr("-+ #0123456789.", s->p[i]) && s->p[i] && n + 1 < sizeof spec)
      spec[n++] = s->p[i++];
    char type = i < s->len ? s->p[i] : 0;
    if (type == '%')
      ist_jinja_write_one(r, o, "%", 1, s->origin ? s->origin[i] : 0);
    else if (type == 's' && n == 0)
      ist_jinja_print(r, o, next_argument(r, args, &used));
    else if (type == 'r' && n == 0)
      ist_jinja_repr(r, o, next_argument(r, args, &used));
    else if (type && strchr("dieEfFgGxXo", type) && atoi(spec + strspn(spec, "-+ #0")) < 100 &&
             (!strchr(spec, '.') || atoi(strchr(spec, '.') + 1) < 100))
      put_number(r, o, spec, type, next_argument(r, args, &used));
    else
      ist_jinja_fail(r, "the format '%%%s%c' is not supported", spec, type ? type : ' ');
  }
  if (args.kind == V_LIST && args.tuple && used < args.list->n)
    ist_jinja_fail(r, "not all arguments converted during string formatting");
  return ist_jinja_out_value(r, o);
}
