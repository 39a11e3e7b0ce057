/* Parsing and rendering, from outside. */
#include "jinja/jinja.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "jinja/internal.h"

enum { MAX_TEMPLATE = 4 << 20, MAX_TREE = 256 << 20 };
enum { MAX_DEPTH = 400 }; /* what the smallest usual stack holds many times over */
#define MAX_STEPS  20000000
#define MAX_MEMORY ((size_t)512 << 20)

/* ---- Memory ---- */

void *ist_jinja_take(jinja_arena *a, size_t size) {
  if (size >= a->limit / 2) return NULL; /* nor can the sums below go past SIZE_MAX */
  size = (size + 15) & ~(size_t)15;
  if (!a->block || a->used + size > a->size) {
    size_t room = size > 65536 ? size : 65536;
    if (a->total + room > a->limit) return NULL;
    jinja_block *b = ist_calloc(1, sizeof *b + room);
    if (!b) return NULL;
    b->next = a->block;
    a->block = b;
    a->size = room;
    a->used = 0;
    a->total += room;
  }
  void *p = (char *)a->block->data + a->used;
  a->used += size;
  return p;
}

void ist_jinja_drop(jinja_arena *a) {
  for (jinja_block *b = a->block; b;) {
    jinja_block *next = b->next;
    ist_free(b);
    b = next;
  }
  *a = (jinja_arena){0};
}

/* ---- Parsing ---- */

/* The place of a name, or the empty one where it belongs. */
static const char **place(const ist_jinja *t, const char *p, size_t len) {
  uint32_t mask = t->size_names - 1;
  for (uint32_t at = (uint32_t)ist_hash(t->key, p, len) & mask;; at = (at + 1) & mask) {
    const char *name = t->names[at];
    if (!name || (strncmp(name, p, len) == 0 && name[len] == 0)) return &t->names[at];
  }
}

static bool make_room(ist_jinja *t) {
  uint32_t size = t->size_names;
  const char **names = t->names;
  if (2 * (t->n_names + 1) <= size) return true;
  const char **grown = ist_jinja_take(&t->arena, (size_t)(size ? 2 * size : 128) * sizeof *grown);
  if (!grown) return false;
  t->names = grown;
  t->size_names = size ? 2 * size : 128;
  for (uint32_t i = 0; i < size; i++)
    if (names[i]) *place(t, names[i], strlen(names[i])) = names[i];
  return true;
}

const char *ist_jinja_intern(ist_jinja *t, const char *p, size_t len) {
  if (!make_room(t)) return NULL;
  const char **at = place(t, p, len);
  if (*at != NULL) return *at;
  char *name = ist_jinja_take(&t->arena, len + 1);
  if (!name) return NULL;
  memcpy(name, p, len);
  name[len] = 0;
  t->n_names++;
  *at = name;
  return name;
}

const char *ist_jinja_known(const ist_jinja *t, const char *name) {
  return t->size_names ? *place(t, name, strlen(name)) : NULL;
}

ist_status ist_jinja_parse(ist_jinja **out, const char *text, size_t len, ist_error *err) {
  *out = NULL;
  if (len > MAX_TEMPLATE)
    return ist_fail(err, IST_ERR_DATA, "a template of %zu bytes, expected at most %d", len,
                    MAX_TEMPLATE);
  ist_jinja *t = ist_calloc(1, sizeof *t);
  if (!t) return ist_fail_nomem(err, "a template", sizeof *t);
  t->arena.limit = MAX_TREE;
  t->key = ist_hash_key();
  jinja_tokens tokens = {0};
  ist_status status = ist_jinja_lex(&tokens, &t->arena, text, len, err);
  if (status == IST_OK) status = ist_jinja_build(t, &tokens, err);
  ist_free(tokens.p);
  if (status != IST_OK) {
    ist_jinja_free(t);
    return status;
  }
  *out = t;
  return IST_OK;
}

void ist_jinja_free(ist_jinja *t) {
  if (!t) return;
  ist_jinja_drop(&t->arena);
  ist_free(t);
}

bool ist_jinja_has_generation(const ist_jinja *t) {
  return t->generation;
}

/* ---- Rendering ---- */

void ist_jinja_fail(jinja_run *r, const char *fmt, ...) {
  va_list args;
  va_start(args, fmt);
  ist_vformat(r->message, sizeof r->message, fmt, args);
  va_end(args);
  r->status = IST_ERR_DATA;
  longjmp(r->fail, 1);
}

void ist_jinja_step(jinja_run *r, int64_t n) {
  r->steps += n > 0 ? n : 0;
  if (r->steps > r->max_steps) ist_jinja_fail(r, "more than %lld steps", (long long)r->max_steps);
}

void ist_jinja_step_bytes(jinja_run *r, size_t n) {
  ist_jinja_step(r, (int64_t)(n / 128));
}
void ist_jinja_step_chars(jinja_run *r, size_t n) {
  ist_jinja_step(r, (int64_t)(n / 8));
}

void ist_jinja_enter(jinja_run *r) {
  if (++r->depth > MAX_DEPTH) ist_jinja_fail(r, "nested more than %d deep", MAX_DEPTH);
}

void ist_jinja_leave(jinja_run *r) {
  r->depth--;
}

void *ist_jinja_new(jinja_run *r, size_t count, size_t size) {
  void *p = NULL;
  if (size == 0 || count <= SIZE_MAX / 2 / size) p = ist_jinja_take(&r->arena, count * size);
  if (!p) ist_jinja_fail(r, "more than %zu MB of memory", r->arena.limit >> 20);
  return p;
}

time_t ist_jinja_now(void) {
  time_t now = time(NULL);
  struct tm local;
  return localtime_r(&now, &local) ? timegm(&local) : now;
}

static void copy_out(jinja_run *r, const jinja_out *o, ist_buf *text, uint16_t **origin) {
  ist_buf_add(text, o->p ? o->p : "", o->len);
  if (!origin) return;
  *origin = ist_calloc(o->len + 1, sizeof **origin);
  if (*origin && o->len) memcpy(*origin, o->origin, o->len * sizeof **origin);
  if (!*origin) text->failed = true;
  (void)r;
}

ist_status ist_jinja_render(const ist_jinja *t, const json_t *globals,
                            const ist_jinja_options *options, ist_buf *text, uint16_t **origin,
                            ist_error *err) {
  jinja_run *r = ist_calloc(1, sizeof *r);
  if (origin) *origin = NULL;
  if (!r) return ist_fail_nomem(err, "rendering a template", sizeof *r);
  r->t = t;
  r->max_steps = options && options->max_steps ? options->max_steps : MAX_STEPS;
  r->arena.limit = options && options->max_memory ? options->max_memory : MAX_MEMORY;
  r->now = options && options->now ? options->now : ist_jinja_now();
  ist_status status;
  if (setjmp(r->fail) == 0) {
    jinja_out *out = r->out = ist_jinja_out_new(r);
    ist_jinja_execute(r, globals, options ? options->markers : NULL);
    copy_out(r, out, text, origin);
    status = text->failed ? ist_fail_nomem(err, "a rendered template", out->len) : IST_OK;
  } else {
    status = ist_fail(err, r->status, "template, line %d: %s", (int)r->line, r->message);
  }
  ist_jinja_drop(&r->arena);
  ist_free(r);
  return status;
}
