/* view.c: JSON of the library as tables. It knows no particular report: plain
 * values become lines, objects sections, arrays of objects tables. Keys that end
 * in "bytes" are sizes, those that name parameters are counts. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd.h"
#include "text.h"

enum { MOST_ROWS = 60, MOST_COLUMNS = 12, BAR = 24, LABEL = 40 };

typedef struct view {
  ist_term term;
  bool all, bars;
} view;

static bool ends_with(const char *text, const char *end) {
  size_t n = strlen(text), m = strlen(end);
  return n >= m && !strcmp(text + n - m, end);
}

static bool is_bytes(const char *key) {
  return ends_with(key, "bytes");
}

static bool is_shape(const char *key) {
  return !strcmp(key, "shape") || !strcmp(key, "dims");
}

/* The library's way to shorten a long array: how many, and the first of them. */
static bool is_excerpt(const json_t *v) {
  return json_object_size(v) == 2 && json_is_array(json_object_get(v, "first")) &&
         json_object_get(v, "count");
}

static bool is_section(const json_t *v) {
  return json_is_object(v) && json_object_size(v) && !is_excerpt(v);
}

static bool is_table(const json_t *v) {
  return json_is_array(v) && json_array_size(v) && json_is_object(json_array_get(v, 0));
}

/* "file_bytes" reads "file size"; keys with dots ("general.name") are names of a
 * file format and stay. */
static void put_label(const view *v, const char *key, int width) {
  char label[128];
  int stem = (int)strlen(key) - (ends_with(key, "_bytes") ? 6 : 0);
  snprintf(label, sizeof label, "%.*s%s", stem, key, key[stem] ? "_size" : "");
  if (!strchr(key, '.')) {
    for (char *p = label; *p; p++)
      if (*p == '_') *p = ' ';
  }
  ist_style_set(&v->term, IST_DIM);
  int columns = ist_put_text(v->term.to, label, v->all ? 0 : LABEL);
  ist_style_set(&v->term, IST_PLAIN);
  ist_put_spaces(v->term.to, width - columns);
}

/* Writes a value as text into a stream; arrays are shortened to `most` elements. */
static void write_value(FILE *to, const char *key, const json_t *value, size_t most,
                        bool in_table) {
  char text[32];
  if (json_is_string(value)) {
    fwrite(json_string_value(value), 1, json_string_length(value), to);
  } else if (json_is_integer(value) && is_bytes(key)) {
    ist_format_bytes(text, (double)json_integer_value(value));
    fputs(text, to);
  } else if (json_is_integer(value)) {
    int64_t n = json_integer_value(value);
    bool counts = strstr(key, "parameters") || strstr(key, "elements");
    ist_format_whole(text, n);
    if (n > 99999 || n < -99999 || counts)
      fputs(text, to);
    else
      fprintf(to, "%lld", (long long)n);
    ist_format_count(text, (double)n);
    if (counts && n > 99999 && !in_table) fprintf(to, " (%s)", text);
  } else if (json_is_real(value)) {
    fprintf(to, "%.6g", json_real_value(value));
  } else if (json_is_boolean(value)) {
    fputs(json_is_true(value) ? "yes" : "no", to);
  } else if (json_is_array(value)) {
    size_t n = json_array_size(value);
    for (size_t i = 0; i < n && i < most; i++) {
      if (i) fputs(is_shape(key) ? " x " : ", ", to);
      write_value(to, "", json_array_get(value, i), most, in_table);
    }
    if (n > most) fprintf(to, ", ... (%zu)", n);
  } else if (is_excerpt(value)) {
    const json_t *first = json_object_get(value, "first");
    json_int_t count = json_integer_value(json_object_get(value, "count"));
    fprintf(to, "%lld: ", (long long)count);
    write_value(to, key, first, (size_t)-1, in_table);
    if (count > (json_int_t)json_array_size(first)) fputs(", ...", to);
  } else if (json_is_object(value)) {
    fprintf(to, json_object_size(value) ? "{%zu}" : "{}", json_object_size(value));
  } else {
    fputs("-", to);
  }
}

/* The value's text in fresh memory; NULL without memory. */
static char *text_of(const view *v, const char *key, const json_t *value, bool in_table) {
  char *text = NULL;
  size_t len;
  FILE *to = open_memstream(&text, &len);
  if (!to) return NULL;
  write_value(to, key, value, v->all ? (size_t)-1 : 8, in_table);
  fclose(to);
  return text;
}

static void put_line(const view *v, const char *key, const json_t *value, int width) {
  char *text = text_of(v, key, value, false);
  int room = v->term.columns && !v->all ? v->term.columns - width - 2 : 0;
  if (room < 0) room = 1;
  fputs("  ", v->term.to);
  put_label(v, key, width);
  if (text) ist_put_text(v->term.to, text, room);
  fputc('\n', v->term.to);
  free(text);
}

static void put_heading(const view *v, const char *key) {
  fputc('\n', v->term.to);
  ist_style_set(&v->term, IST_BOLD);
  ist_put_text(v->term.to, key, 0);
  ist_style_set(&v->term, IST_PLAIN);
  fputc('\n', v->term.to);
}

/* ---- Tables -------------------------------------------------------------------- */

/* A row of a table: one element of the array, or several that differ only in the
 * number of their layer ("blk.0.attn_q.weight", "blk.1.attn_q.weight", ...). */
typedef struct row {
  const json_t *first;
  char *pattern;       /* the name with its first number replaced by * */
  long long low, high; /* the numbers */
  int64_t count, bytes, parameters;
} row;

typedef struct table {
  row *rows;
  size_t n;
  const char *column[MOST_COLUMNS];
  int width[MOST_COLUMNS], n_columns;
  bool right[MOST_COLUMNS];
  int64_t most_bytes, all_bytes;
  bool merged;
} table;

static int64_t integer_of(const json_t *object, const char *key) {
  return json_integer_value(json_object_get(object, key));
}

/* "blk.*.attn_q.weight" and the number, or NULL where the name has none. */
static char *pattern_of(const char *name, long long *number) {
  size_t before = strcspn(name, "0123456789"), digits = strspn(name + before, "0123456789");
  if (!digits || digits > 9 || !before || name[before - 1] != '.') return NULL;
  *number = atoll(name + before);
  char *out = malloc(strlen(name) + 2);
  if (out) sprintf(out, "%.*s*%s", (int)before, name, name + before + digits);
  return out;
}

/* Do two elements agree in everything but the name and offsets? */
static bool alike(const json_t *a, const json_t *b) {
  const char *key;
  json_t *value;
  if (json_object_size(a) != json_object_size(b)) return false;
  json_object_foreach((json_t *)(uintptr_t)a, key, value) {
    if (strcmp(key, "name") && !strstr(key, "offset") &&
        !json_equal(value, json_object_get(b, key)))
      return false;
  }
  return true;
}

/* The rows of a layer lie near each other: looking further back would take the square of the number
 * of names that a file may be filled with. */
static row *same_row(table *t, const char *pattern, const json_t *element) {
  enum { FURTHEST = 4096 };
  size_t last = t->n > FURTHEST ? t->n - FURTHEST : 0;
  for (size_t i = t->n; pattern && i-- > last;)
    if (t->rows[i].pattern && !strcmp(t->rows[i].pattern, pattern) &&
        alike(t->rows[i].first, element))
      return &t->rows[i];
  return NULL;
}

static void add_row(table *t, const json_t *element, bool merge) {
  const char *name = json_string_value(json_object_get(element, "name"));
  long long number = 0;
  char *pattern = merge && name ? pattern_of(name, &number) : NULL;
  row *r = same_row(t, pattern, element);
  if (r) {
    free(pattern);
    t->merged = true;
    if (number < r->low) r->low = number;
    if (number > r->high) r->high = number;
  } else {
    r = &t->rows[t->n++];
    *r = (row){.first = element, .pattern = pattern, .low = number, .high = number};
  }
  r->count++;
  r->bytes += integer_of(element, "bytes");
  r->parameters += integer_of(element, "parameters");
  t->all_bytes += integer_of(element, "bytes");
  if (r->bytes > t->most_bytes) t->most_bytes = r->bytes;
}

/* The text of a cell, with what the merged rows add up to; fresh memory. */
static char *cell_text(const view *v, const table *t, const row *r, const char *column) {
  char *text = NULL;
  if (!strcmp(column, "number"))
    return asprintf(&text, "%lld", (long long)r->count) < 0 ? NULL : text;
  if (!strcmp(column, "name") && r->count > 1) {
    const char *star = strchr(r->pattern, '*');
    bool whole = r->high - r->low + 1 == r->count;
    return asprintf(&text, "%.*s%lld%s%lld%s", (int)(star - r->pattern), r->pattern, r->low,
                    whole ? "-" : "..", r->high, star + 1) < 0
               ? NULL
               : text;
  }
  json_t *value = json_object_get(r->first, column), *sum = NULL;
  if (!strcmp(column, "bytes") && t->merged) sum = json_integer(r->bytes);
  if (!strcmp(column, "parameters") && t->merged) sum = json_integer(r->parameters);
  text = text_of(v, column, sum ? sum : value, true);
  json_decref(sum);
  return text;
}

static const char *title_of(const char *column) {
  return !strcmp(column, "bytes") ? "size" : column;
}

static void measure_columns(const view *v, table *t) {
  const char *key;
  json_t *value;
  json_object_foreach((json_t *)(uintptr_t)t->rows[0].first, key, value) {
    if (t->n_columns == MOST_COLUMNS - 1) break;
    if (!v->all && strstr(key, "offset")) continue;
    t->right[t->n_columns] = json_is_number(value);
    t->column[t->n_columns++] = key;
  }
  if (t->merged) {
    t->right[t->n_columns] = true;
    t->column[t->n_columns++] = "number";
  }
  for (int c = 0; c < t->n_columns; c++) {
    t->width[c] = ist_columns(title_of(t->column[c]));
    for (size_t i = 0; i < t->n; i++) {
      char *text = cell_text(v, t, &t->rows[i], t->column[c]);
      int columns = text ? ist_columns(text) : 0;
      if (columns > t->width[c]) t->width[c] = columns;
      free(text);
    }
  }
}

/* Rows that the terminal would break lose the beginnings of their first column:
 * the ends of names tell them apart. */
static void fit_columns(const view *v, table *t) {
  int used = 2 + 2 * t->n_columns + (v->bars ? BAR + 9 : 0);
  for (int c = 0; c < t->n_columns; c++) used += t->width[c];
  int over = used - v->term.columns, least = 12;
  if (!v->term.columns || v->all || over <= 0 || !t->n_columns || t->right[0]) return;
  t->width[0] = t->width[0] - over > least ? t->width[0] - over : least;
}

/* As much of the end of a text as `columns` hold. */
static const char *end_of(const char *text, int columns) {
  const char *at = text + strlen(text), *last = at;
  for (int used = 0; at > text; last = at) {
    do at--;
    while (at > text && (*at & 0xc0) == 0x80); /* the rest of a character */
    used += ist_put_clean(NULL, at, (size_t)(last - at), 0, false);
    if (used > columns) break;
  }
  return last;
}

static void put_cell(const view *v, const table *t, int c, const char *text) {
  int columns = ist_columns(text);
  bool cut = c == 0 && columns > t->width[c];
  if (cut) {
    fputs("...", v->term.to);
    text = end_of(text, t->width[c] - 3);
    columns = 3 + ist_columns(text);
  }
  if (t->right[c]) ist_put_spaces(v->term.to, t->width[c] - columns);
  ist_put_text(v->term.to, text, 0);
  if (c == t->n_columns - 1) return;
  ist_put_spaces(v->term.to, (t->right[c] ? 0 : t->width[c] - columns) + 2);
}

static void put_row(const view *v, const table *t, const row *r) {
  fputs("  ", v->term.to);
  for (int c = 0; c < t->n_columns; c++) {
    char *text = cell_text(v, t, r, t->column[c]);
    put_cell(v, t, c, text ? text : "");
    free(text);
  }
  if (v->bars && t->most_bytes > 0) {
    int last = t->n_columns - 1;
    char *text = cell_text(v, t, r, t->column[last]);
    if (!t->right[last])
      ist_put_spaces(v->term.to, t->width[last] - (text ? ist_columns(text) : 0));
    free(text);
    fprintf(v->term.to, "  %3.0f %%  ", 100.0 * (double)r->bytes / (double)t->all_bytes);
    ist_style_set(&v->term, IST_ACCENT);
    ist_put_bar(&v->term, (double)r->bytes / (double)t->most_bytes, BAR);
    ist_style_set(&v->term, IST_PLAIN);
  }
  fputc('\n', v->term.to);
}

static void put_table(const view *v, const char *key, const json_t *array) {
  table t = {0};
  size_t n = json_array_size(array);
  t.rows = calloc(n, sizeof *t.rows);
  if (!t.rows) return;
  for (size_t i = 0; i < n; i++)
    if (json_is_object(json_array_get(array, i))) add_row(&t, json_array_get(array, i), !v->all);
  measure_columns(v, &t);
  fit_columns(v, &t);
  put_heading(v, key);
  fputs("  ", v->term.to);
  ist_style_set(&v->term, IST_DIM);
  for (int c = 0; c < t.n_columns; c++) put_cell(v, &t, c, title_of(t.column[c]));
  ist_style_set(&v->term, IST_PLAIN);
  fputc('\n', v->term.to);
  size_t shown = v->all || t.n <= MOST_ROWS ? t.n : MOST_ROWS;
  for (size_t i = 0; i < shown; i++) put_row(v, &t, &t.rows[i]);
  if (shown < t.n) fprintf(v->term.to, "  ... and %zu more (--all)\n", t.n - shown);
  for (size_t i = 0; i < t.n; i++) free(t.rows[i].pattern);
  free(t.rows);
}

/* null, {} and []: shown only with everything else. */
static bool is_empty(const json_t *v) {
  return json_is_null(v) || (json_is_object(v) && !json_object_size(v)) ||
         (json_is_array(v) && !json_array_size(v));
}

/* ---- Sections ------------------------------------------------------------------- */

static void put_object(const view *v, const json_t *object, int depth) {
  enum { DEEPEST = 6 };
  const char *key;
  json_t *value;
  int width = 0;
  json_object_foreach((json_t *)(uintptr_t)object, key, value) {
    int columns = ist_columns(key) + 2;
    if (columns > width) width = columns;
  }
  if (width > LABEL + 2 && !v->all) width = LABEL + 2;
  json_object_foreach((json_t *)(uintptr_t)object, key, value) {
    if (is_section(value) || is_table(value) || (is_empty(value) && !v->all)) continue;
    put_line(v, key, value, width);
  }
  json_object_foreach((json_t *)(uintptr_t)object, key, value) {
    if (is_table(value)) {
      put_table(v, key, value);
    } else if (is_section(value)) {
      put_heading(v, key);
      if (depth < DEEPEST) put_object(v, value, depth + 1);
    }
  }
}

ist_status ist_cmd_read_json(json_t **out, const char *json, ist_error *err) {
  json_error_t problem;
  *out = json_loads(json, 0, &problem);
  if (json_is_object(*out)) return IST_OK;
  json_decref(*out);
  *out = NULL;
  return ist_cli_fail(err, IST_ERR_INTERNAL, "libist described it in no JSON object: %s",
                      problem.text);
}

void ist_cmd_show(const json_t *root, bool all, bool bars) {
  view v = {.term = ist_term_of(stdout), .all = all, .bars = bars};
  put_object(&v, root, 0);
}
