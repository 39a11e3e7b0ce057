/* Jinja templates, as chat templates use them: parsed once, rendered over JSON.
 * Semantics are those of Python's jinja2 with trim_blocks, lstrip_blocks and the
 * loop controls, in its immutable sandbox. Nothing outside the values handed over
 * can be reached; steps, depth and memory are limited, so that a hostile template
 * ends with an error. */
#ifndef IST_JINJA_JINJA_H
#define IST_JINJA_JINJA_H

#include <jansson.h>
#include <time.h>

#include "base/error.h"
#include "base/mem.h"

typedef struct ist_jinja ist_jinja;

/* Errors name the line. The text is copied. */
ist_status ist_jinja_parse(ist_jinja **out, const char *text, size_t len, ist_error *err);
void ist_jinja_free(ist_jinja *t);
/* True when the template marks what the assistant wrote with {% generation %}. */
bool ist_jinja_has_generation(const ist_jinja *t);

/* Where a byte of the output comes from. */
enum {
  IST_JINJA_TEMPLATE = 0,      /* the template itself */
  IST_JINJA_INPUT = 0x7fff,    /* a string of the input that has no number of its own */
  IST_JINJA_GENERATED = 0x8000 /* set beside it: inside a generation block */
};

typedef struct ist_jinja_options {
  time_t now;        /* what strftime_now shows, as of ist_jinja_now; 0: the clock */
  int64_t max_steps; /* 0: a default that no real template comes near */
  size_t max_memory; /* of a rendering, in bytes; 0: a default */
  /* Names of fields whose strings count as the template's, behind the last NULL; NULL: none. */
  const char *const *markers;
} ist_jinja_options;

/* The clock as the walls here show it: the seconds that UTC will count from 1970 when it shows the
 * same. One number, so that a date shown once can be shown again later, and elsewhere. */
time_t ist_jinja_now(void);

/* Renders over the fields of `globals` (an object). Strings within item i of its
 * field "messages" are numbered i + 1, except the values of the items' own fields "role", which
 * like those of the fields in options->markers count as the template's; all others, names of
 * fields too, are IST_JINJA_INPUT. Writes the text, and 16 bits of origin a byte into
 * *origin when that is not NULL (as much memory as text.len; freed with ist_free). Thread-safe. */
ist_status ist_jinja_render(const ist_jinja *t, const json_t *globals,
                            const ist_jinja_options *options, ist_buf *text, uint16_t **origin,
                            ist_error *err);

#endif
