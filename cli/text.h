/* Text for people: what the terminal can show, text from files made harmless,
 * numbers in readable units, messages on stderr. */
#ifndef IST_CLI_TEXT_H
#define IST_CLI_TEXT_H

#include <stdio.h>

#include "ist.h"

/* What stands behind a stream. */
typedef struct ist_term {
  FILE *to;
  bool terminal;                 /* of any kind: control characters would reach it */
  bool tty, colour, greys, utf8; /* tty: one that can do more than a file; greys: 256 colours */
  int columns;                   /* 0: no limit (not a terminal) */
} ist_term;
/* utf8: the locale's character set, also where there is no terminal; colours
 * need a terminal, no NO_COLOR and a TERM that is not "dumb". */
ist_term ist_term_of(FILE *to);
/* The width may change at any time. */
void ist_term_measure(ist_term *t);

typedef enum ist_style {
  IST_PLAIN,
  IST_BOLD,
  IST_DIM,
  IST_GOOD,
  IST_BAD,
  IST_ACCENT,
  IST_ACCENT_DIM,
  IST_GREY,
  IST_GREY_DIM
} ist_style;
/* Switches the style where there are colours, else nothing. */
void ist_style_set(const ist_term *t, ist_style style);
/* printf in a style, back to plain after it. */
void ist_print(const ist_term *t, ist_style style, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Writes text from a file so that it cannot drive a terminal: control
 * characters, broken UTF-8 and direction overrides are replaced, line ends and
 * tabs are shown as \n and \t (or kept, with `lines`). Stops with an ellipsis
 * where `limit` columns (0: no limit) do not suffice. Returns the columns it took;
 * with to == NULL it only counts them. */
int ist_put_clean(FILE *to, const char *text, size_t len, int limit, bool lines);
/* The same for a string of one line. */
int ist_put_text(FILE *to, const char *text, int limit);
int ist_columns(const char *text);
/* A line of JSON text, in which those characters stand as \u escapes, also those that JSON would
 * let pass: DEL, C1 controls, marks of direction. For a program it means the same. */
void ist_put_json(FILE *to, const char *text);
/* A copy with broken UTF-8 replaced by U+FFFD; free with free(). */
char *ist_repair_utf8(const char *text);
void ist_put_spaces(FILE *to, int n);

/* "612 MiB", "1.21 GiB"; short: "612M", "1.2G". */
void ist_format_bytes(char out[32], double bytes);
void ist_format_bytes_short(char out[32], double bytes);
/* "134.5 M", "7.24 B". */
void ist_format_count(char out[32], double count);
/* 134,515,008 */
void ist_format_whole(char out[32], int64_t n);
/* "1:23", "1h02", "4d03h": five characters at most below 100 days. */
void ist_format_time(char out[32], double seconds);

/* A bar of `width` cells, share in 0..1: eighths of a block, or '#'. */
void ist_put_bar(const ist_term *t, double share, int width);

/* Restricted Damerau-Levenshtein distance; large for words past 31 letters. */
int ist_edit_distance(const char *a, const char *b);

/* `error: ...` and `hint: ...` on stderr; returns the exit code: 2 for an
 * argument that makes no sense, else 1. */
int ist_report_error(const ist_error *err);
/* `warning: ...` on stderr. */
void ist_warn(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* The line that is rewritten in place while something goes on (terminals only).
 * Everything else that prints clears it first. */
void ist_live_begin(const ist_term *t); /* clears it and stands at its start */
void ist_live_end(const ist_term *t);
void ist_live_clear(void);

/* All of a stream in fresh memory with a NUL after its end, or NULL with err. */
char *ist_read_all(FILE *from, const char *name, size_t *len, ist_error *err);

#endif
