/* tojson, as transformers defines it: json.dumps with its arguments. */
#include <math.h>
#include <string.h>

#include <utf8proc.h>

#include "jinja/internal.h"

typedef struct dumper {
  jinja_run *r;
  jinja_out *o;
  bool ascii, sorted;
  const jinja_str *indent; /* NULL: on one line */
  jinja_str item, key;     /* separators */
  int level;
} dumper;

static void put_char(dumper *d, const char *p, size_t size, uint16_t origin) {
  static const char names[] = "\"\\\n\r\t\f\b", letters[] = "\"\\nrtfb";
  unsigned char c = (unsigned char)*p;
  char text[16];
  const char *found = size == 1 ? memchr(names, c, 7) : NULL;
  if (found || c < 0x20 || size > 1) ist_jinja_step(d->r, 1);
  utf8proc_int32_t code = c;
  if (size > 1) utf8proc_iterate((const utf8proc_uint8_t *)p, (utf8proc_ssize_t)size, &code);
  if (found) {
    snprintf(text, sizeof text, "\\%c", letters[found - names]);
  } else if (c < 0x20 || (d->ascii && code > 0x7e && code < 0x10000)) {
    snprintf(text, sizeof text, "\\u%04x", (unsigned)code);
  } else if (d->ascii && code >= 0x10000) {
    unsigned rest = (unsigned)code - 0x10000;
    snprintf(text, sizeof text, "\\u%04x\\u%04x", 0xd800 + (rest >> 10), 0xdc00 + (rest & 0x3ff));
  } else {
    ist_jinja_write_one(d->r, d->o, p, size, origin);
    return;
  }
  ist_jinja_write_one(d->r, d->o, text, strlen(text), origin);
}

static void put_string(dumper *d, const jinja_str *s) {
  ist_jinja_step_chars(d->r, s->len);
  ist_jinja_puts(d->r, d->o, "\"");
  for (size_t at = 0, size; at < s->len; at += size) {
    size = 1;
    while (at + size < s->len && ((unsigned char)s->p[at + size] & 0xc0) == 0x80) size++;
    put_char(d, s->p + at, size, s->origin ? s->origin[at] : 0);
  }
  ist_jinja_puts(d->r, d->o, "\"");
}

static void new_line(dumper *d) {
  if (!d->indent) return;
  ist_jinja_puts(d->r, d->o, "\n");
  for (int i = 0; i < d->level; i++)
    ist_jinja_write(d->r, d->o, d->indent->p, d->indent->len, d->indent->origin);
}

static void put(dumper *d, jinja_value v);

static void put_key(dumper *d, jinja_value key) {
  if (key.kind == V_STRING) {
    put_string(d, key.s);
  } else {
    ist_jinja_puts(d->r, d->o, "\"");
    put(d, key);
    ist_jinja_puts(d->r, d->o, "\"");
  }
  ist_jinja_write(d->r, d->o, d->key.p, d->key.len, d->key.origin);
}

/* The pairs in the order of their keys. */
static jinja_pair *sorted_pairs(dumper *d, const jinja_dict *from) {
  jinja_pair *p = ist_jinja_new(d->r, (size_t)from->n + 1, sizeof *p);
  ist_jinja_step(d->r, from->n * from->n / 8);
  for (int64_t i = 0; i < from->n; i++) {
    int64_t at = i;
    for (; at > 0 && ist_jinja_order(d->r, p[at - 1].key, from->p[i].key) > 0; at--)
      p[at] = p[at - 1];
    p[at] = from->p[i];
  }
  return p;
}

static void put_items(dumper *d, jinja_value v) {
  bool dict = v.kind == V_DICT;
  int64_t n = dict ? v.dict->n : v.list->n;
  const jinja_pair *pair = !dict ? NULL : d->sorted ? sorted_pairs(d, v.dict) : v.dict->p;
  ist_jinja_puts(d->r, d->o, dict ? "{" : "[");
  d->level++;
  for (int64_t i = 0; i < n; i++) {
    if (i) ist_jinja_write(d->r, d->o, d->item.p, d->item.len, d->item.origin);
    new_line(d);
    if (dict) put_key(d, pair[i].key);
    put(d, dict ? pair[i].value : v.list->p[i]);
  }
  d->level--;
  if (n) new_line(d);
  ist_jinja_puts(d->r, d->o, dict ? "}" : "]");
}

static void put(dumper *d, jinja_value v) {
  char text[64];
  ist_jinja_step(d->r, 1);
  if (d->level > 100) ist_jinja_fail(d->r, "values nested too deep");
  switch (v.kind) {
    case V_NONE: ist_jinja_puts(d->r, d->o, "null"); break;
    case V_BOOL: ist_jinja_puts(d->r, d->o, v.b ? "true" : "false"); break;
    case V_STRING: put_string(d, v.s); break;
    case V_LIST:
    case V_DICT: put_items(d, v); break;
    case V_INT: ist_jinja_repr(d->r, d->o, v); break;
    case V_FLOAT:
      ist_jinja_step(d->r, IST_JINJA_FLOAT);
      ist_jinja_format_float(text, v.f);
      ist_jinja_puts(d->r, d->o,
                     isnan(v.f)   ? "NaN"
                     : isinf(v.f) ? v.f > 0 ? "Infinity" : "-Infinity"
                                  : text);
      break;
    default:
      ist_jinja_fail(d->r, "Object of type %s is not JSON serializable", ist_jinja_kind_name(v));
  }
}

void ist_jinja_to_json(jinja_run *r, jinja_out *o, jinja_value v, const jinja_args *args) {
  dumper d = {.r = r, .o = o, .key = {": ", 2, NULL}};
  const jinja_value none = ist_jinja_none();
  d.ascii = ist_jinja_true(ist_jinja_arg(args, 0, "ensure_ascii", ist_jinja_bool(false)));
  jinja_value indent = ist_jinja_arg(args, 1, "indent", none);
  jinja_value separators = ist_jinja_arg(args, 2, "separators", none);
  d.sorted = ist_jinja_true(ist_jinja_arg(args, 3, "sort_keys", ist_jinja_bool(false)));
  if (indent.kind == V_INT) {
    int64_t n = indent.i < 0 ? 0 : indent.i > 64 ? 64 : indent.i;
    char *spaces = ist_jinja_new(r, (size_t)n + 1, 1);
    memset(spaces, ' ', (size_t)n);
    d.indent = ist_jinja_text(r, spaces, (size_t)n, NULL).s;
  } else if (indent.kind == V_STRING) {
    d.indent = indent.s;
  }
  d.item = d.indent ? (jinja_str){",", 1, NULL} : (jinja_str){", ", 2, NULL};
  if (separators.kind == V_LIST && separators.list->n == 2) {
    d.item = *ist_jinja_string(r, separators.list->p[0]);
    d.key = *ist_jinja_string(r, separators.list->p[1]);
  }
  put(&d, v);
}
