/* Global functions. */
#include <stdlib.h>
#include <string.h>

#include "jinja/internal.h"

enum { RAISE, NOW, RANGE, DICT, NAMESPACE, CYCLER, JOINER, FUNCTIONS };
static const char *const names[FUNCTIONS] = {"raise_exception", "strftime_now", "range", "dict",
                                             "namespace",       "cycler",       "joiner"};

int ist_jinja_function(const char *name) {
  for (int k = 0; k < FUNCTIONS; k++)
    if (strcmp(names[k], name) == 0) return k;
  return -1;
}

static jinja_value range(jinja_run *r, const jinja_args *a) {
  if (a->n < 1 || a->n > 3) ist_jinja_fail(r, "range takes 1 to 3 arguments");
  int64_t from = a->n > 1 ? ist_jinja_integer(r, a->p[0]) : 0,
          to = ist_jinja_integer(r, a->p[a->n > 1]);
  int64_t step = a->n > 2 ? ist_jinja_integer(r, a->p[2]) : 1;
  jinja_value out = ist_jinja_new_list(r, 0);
  if (step == 0) ist_jinja_fail(r, "range() arg 3 must not be zero");
  /* jinja2's sandbox has the same limit. */
  double n = ((double)to - (double)from) / (double)step;
  if (n > 100000) ist_jinja_fail(r, "a range of more than 100000 items");
  for (int64_t i = from; step > 0 ? i < to : i > to; i = ist_jinja_advance(i, step, to))
    ist_jinja_append(r, out, ist_jinja_int(i));
  return out;
}

static jinja_value make_dict(jinja_run *r, const jinja_args *a, bool space) {
  jinja_value out = ist_jinja_new_dict(r);
  out.space = space;
  for (int64_t k = 0; k < a->n; k++) {
    if (a->p[k].kind != V_DICT) ist_jinja_fail(r, "expected a dict");
    const jinja_dict *from = a->p[k].dict;
    for (int64_t i = 0; i < from->n; i++)
      ist_jinja_put(r, out.dict, from->p[i].key, from->p[i].value);
  }
  for (int64_t k = 0; k < a->n_named; k++)
    ist_jinja_put(r, out.dict, ist_jinja_str(r, a->name[k]), a->named[k]);
  return out;
}

static jinja_value strftime_now(jinja_run *r, const jinja_args *a) {
  char text[256] = "", format[128] = "";
  struct tm now;
  const jinja_str *f = ist_jinja_string(r, ist_jinja_arg(a, 0, "format", ist_jinja_none()));
  if (f->len >= sizeof format || memchr(f->p, 0, f->len))
    ist_jinja_fail(r, "a date format of %zu bytes, expected less than %zu, and no NUL", f->len,
                   sizeof format);
  ist_jinja_step(r, 1 + (int64_t)f->len);
  memcpy(format, f->p, f->len);
  if (!gmtime_r(&r->now, &now)) ist_jinja_fail(r, "a date of no year that can be written");
  /* Of no zone, as Python's datetime.now(): %z and %Z give nothing. */
  now.tm_isdst = -1;
  now.tm_zone = "";
  if (*format && strftime(text, sizeof text, format, &now) == 0)
    ist_jinja_fail(r, "a date format that gives nothing");
  /* Which part of the format a byte comes from is not known: all are the input's if any is. */
  uint16_t origin = 0;
  for (size_t i = 0; f->origin && i < f->len && !origin; i++) origin = f->origin[i];
  jinja_out *o = ist_jinja_out_new(r);
  ist_jinja_write_one(r, o, text, strlen(text), origin);
  return ist_jinja_out_value(r, o);
}

static jinja_value make_cycler(jinja_run *r, const jinja_args *a, bool joiner) {
  jinja_cycler *c = ist_jinja_new(r, 1, sizeof *c);
  jinja_value items = ist_jinja_new_list(r, 2);
  c->joiner = joiner;
  if (joiner) {
    ist_jinja_append(r, items, ist_jinja_arg(a, 0, "sep", ist_jinja_str(r, ", ")));
  } else {
    if (a->n == 0) ist_jinja_fail(r, "no items for cycling given");
    for (int64_t i = 0; i < a->n; i++) ist_jinja_append(r, items, a->p[i]);
  }
  c->items = items.list;
  return (jinja_value){.kind = V_CYCLER, .cycler = c};
}

jinja_value ist_jinja_call_function(jinja_run *r, int function, const jinja_args *a) {
  switch (function) {
    case RAISE: {
      const jinja_str *s = ist_jinja_string(r, ist_jinja_arg(a, 0, "message", ist_jinja_none()));
      ist_jinja_fail(r, "the template refuses the conversation: %.*s",
                     s->len < 300 ? (int)s->len : 300, s->p);
    }
    case NOW: return strftime_now(r, a);
    case RANGE: return range(r, a);
    case DICT: return make_dict(r, a, false);
    case NAMESPACE: return make_dict(r, a, true);
    case CYCLER: return make_cycler(r, a, false);
    default: return make_cycler(r, a, true);
  }
}
