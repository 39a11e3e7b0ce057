/* Reads data files record by record; what a record holds is record_json.c's. */
#include <inttypes.h>
#include <string.h>

#include "base/file.h"
#include "data/reader.h"
#include "format/json.h"

#define FLAGS (JSON_REJECT_DUPLICATES | JSON_DECODE_ANY)

typedef enum layout { LAYOUT_LINES, LAYOUT_ARRAY, LAYOUT_CSV, LAYOUT_TEXT } layout;

/* What the values of a record may take of memory: some hundred thousand messages. */
#define MOST_MEMORY ((size_t)128 << 20)

struct ist_reader {
  char *path;
  ist_stream *stream;
  layout layout;
  int kind;             /* of the records; -1: none seen */
  int64_t line;         /* lines read so far; arrays: the line of `at` */
  int64_t n;            /* records read so far */
  const char *at, *end; /* array: what is left of it */
  bool closed;          /* array: ']' was read */
  json_t *columns;      /* CSV: the header row */
  ist_buf paragraph;    /* text */
};

/* ---- What kind of file ---- */

/* True when the name ends in `suffix`, before .gz and .zst. */
static bool has_suffix(const char *path, const char *suffix) {
  size_t n = strlen(path), m = strlen(suffix);
  if (n > 3 && strcmp(path + n - 3, ".gz") == 0) n -= 3;
  if (n > 4 && strncmp(path + n - 4, ".zst", 4) == 0) n -= 4;
  return n >= m && strncmp(path + n - m, suffix, m) == 0;
}

static const char *skip_blanks(const char *p, const char *end, int64_t *line) {
  for (; p < end && strchr(" \t\r\n", *p) && *p; p++) *line += *p == '\n';
  return p;
}

static ist_status begin_array(ist_reader *r, ist_error *err) {
  size_t len;
  IST_TRY(ist_stream_rest(r->stream, &r->at, &len, err));
  r->end = r->at + len;
  r->line = 1;
  r->at = skip_blanks(r->at, r->end, &r->line) + 1; /* behind the '[' */
  r->at = skip_blanks(r->at, r->end, &r->line);
  return IST_OK;
}

/* A row as the object that its header names; columns without a value count as absent. */
static json_t *row_object(const ist_reader *r, const json_t *row) {
  json_t *object = json_object();
  for (size_t i = 0; object && i < json_array_size(row); i++) {
    const char *name = json_string_value(json_array_get(r->columns, i));
    if (json_object_set(object, name, json_array_get(row, i)) == 0) continue;
    json_decref(object);
    object = NULL;
  }
  return object;
}

/* Of two columns with one name a row's object would keep the last; it holds the same values, not
 * copies, so that the others are told by their place. */
static ist_status check_columns(const ist_reader *r, ist_error *err) {
  json_t *header = row_object(r, r->columns);
  if (!header) return ist_fail_nomem(err, "a CSV row", 0);
  ist_status status = IST_OK;
  for (size_t i = 0; i < json_array_size(r->columns) && status == IST_OK; i++) {
    const json_t *column = json_array_get(r->columns, i);
    const char *name = json_string_value(column);
    if (json_object_get(header, name) != column && ist_record_reads(header, name))
      status = ist_fail(err, IST_ERR_DATA, "found more than one column '%s', expected one", name);
  }
  json_decref(header);
  return status;
}

static ist_status begin_csv(ist_reader *r, ist_error *err) {
  ist_status status = ist_csv_row(&r->columns, r->stream, &r->line, err);
  if (status == IST_OK && r->columns) status = check_columns(r, err);
  if (status != IST_OK)
    ist_error_context(err, "%s:%" PRId64, r->path, r->line);
  else if (!r->columns)
    status = ist_fail(err, IST_ERR_DATA, "%s: no header row", r->path);
  return status;
}

/* Text may well begin with a bracket ("[1]", "{{..}}"), but not as objects and their arrays do. */
static bool is_json(const char first[2]) {
  return (first[0] == '{' && (first[1] == '"' || first[1] == '}')) ||
         (first[0] == '[' && (first[1] == '{' || first[1] == ']'));
}

static ist_status begin(ist_reader *r, const char *path, ist_error *err) {
  char first[2];
  r->path = ist_strdup(path);
  if (!r->path) return ist_fail_nomem(err, path, strlen(path));
  IST_TRY(ist_stream_open(&r->stream, path, err));
  IST_TRY(ist_stream_peek(r->stream, first, err));
  if (has_suffix(path, ".csv")) {
    r->layout = LAYOUT_CSV;
    return begin_csv(r, err);
  }
  if (has_suffix(path, ".txt") && !is_json(first)) {
    r->layout = LAYOUT_TEXT;
    return IST_OK;
  }
  if (has_suffix(path, ".txt"))
    ist_log(IST_LOG_WARN, "'%s' begins as JSON does: it is read as JSON, not as text", path);
  if (first[0] != '[') return IST_OK;
  r->layout = LAYOUT_ARRAY;
  return begin_array(r, err);
}

ist_status ist_reader_open(ist_reader **out, const char *path, ist_error *err) {
  *out = NULL;
  ist_reader *r = ist_calloc(1, sizeof *r);
  if (!r) return ist_fail_nomem(err, path, sizeof *r);
  r->kind = -1;
  ist_status status = begin(r, path, err);
  if (status == IST_OK)
    *out = r;
  else
    ist_reader_close(r);
  return status;
}

void ist_reader_close(ist_reader *r) {
  if (!r) return;
  ist_stream_close(r->stream);
  json_decref(r->columns);
  ist_buf_free(&r->paragraph);
  ist_free(r->path);
  ist_free(r);
}

/* ---- Records ---- */

/* Integers beyond 64 bits become reals, the record's others do not: a template would show it. */
static ist_status load_long(json_t **out, const char *text, size_t len, size_t flags,
                            json_error_t *e, ist_error *err) {
  ist_buf eased = {0};
  ist_json_long_as_real(&eased, text, len);
  ist_status status = eased.failed ? ist_fail_nomem(err, "a record", len) : IST_OK;
  if (status == IST_OK) *out = json_loadb(eased.p, eased.len, flags, e);
  e->position = (int)len; /* of the text as it was */
  ist_buf_free(&eased);
  return status;
}

static ist_status fail_json(const ist_reader *r, const json_error_t *e, ist_error *err) {
  if (json_error_code(e) == json_error_out_of_memory) return ist_fail_nomem(err, r->path, 0);
  return ist_fail(err, IST_ERR_DATA, "%s:%" PRId64 ": not JSON: %s (column %d)", r->path,
                  r->line + e->line - 1, e->text, e->column);
}

/* The value that the text begins with; e->position is where it ends. */
static ist_status load(json_t **out, const ist_reader *r, const char *text, size_t len,
                       size_t flags, json_error_t *e, ist_error *err) {
  size_t end, most = len < IST_LONGEST_RECORD ? len : IST_LONGEST_RECORD;
  size_t memory = ist_json_memory(text, most, MOST_MEMORY, &end);
  if (memory > MOST_MEMORY)
    return ist_fail(err, IST_ERR_DATA,
                    "%s:%" PRId64
                    ": found a record whose values would take more than %zu MiB of "
                    "memory",
                    r->path, r->line, MOST_MEMORY >> 20);
  if (most < len && end == most)
    return ist_fail(err, IST_ERR_DATA, "%s:%" PRId64 ": found a record of more than %zu MiB",
                    r->path, r->line, most >> 20);
  bool alone = !(flags & JSON_DISABLE_EOF_CHECK); /* nothing may follow */
  *out = json_loadb(text, most, flags, e);
  if (!*out && json_error_code(e) == json_error_numeric_overflow)
    IST_TRY(load_long(out, text, alone ? most : end, flags, e, err));
  if (*out) return IST_OK;
  ist_status status = fail_json(r, e, err);
  if (alone)
    ist_hint(err, "a data file has one JSON object a line, or is one JSON array of objects");
  return status;
}

/* Takes over `value`. Errors get their place. */
static ist_status take(ist_reader *r, ist_record *out, json_t *value, int64_t line,
                       ist_error *err) {
  ist_status status = ist_record_from_json(out, &r->kind, value, err);
  json_decref(value);
  r->n++;
  if (status == IST_OK) return IST_OK;
  if (r->layout == LAYOUT_ARRAY)
    ist_error_context(err, "%s:%" PRId64 ": record %" PRId64, r->path, line, out->line);
  else
    ist_error_context(err, "%s:%" PRId64, r->path, line);
  return status;
}

static ist_status next_line(ist_reader *r, ist_record *out, bool *more, ist_error *err) {
  const char *p;
  size_t len;
  int64_t unused = 0;
  IST_TRY(ist_stream_line(r->stream, &p, &len, err));
  *more = p != NULL;
  if (!p) return IST_OK;
  out->line = ++r->line;
  if (skip_blanks(p, p + len, &unused) == p + len)
    return ist_fail(err, IST_ERR_DATA, "%s:%" PRId64 ": a blank line, expected a JSON object",
                    r->path, r->line);
  json_error_t e;
  json_t *value;
  IST_TRY(load(&value, r, p, len, FLAGS, &e, err));
  return take(r, out, value, r->line, err);
}

/* What may stand between two elements, or behind the last. */
static ist_status end_element(ist_reader *r, ist_error *err) {
  r->at = skip_blanks(r->at, r->end, &r->line);
  if (r->at < r->end && *r->at == ',') {
    r->at = skip_blanks(r->at + 1, r->end, &r->line);
    if (r->at == r->end || *r->at != ']') return IST_OK;
    return ist_fail(err, IST_ERR_DATA, "%s:%" PRId64 ": not JSON: a comma before ']'", r->path,
                    r->line);
  }
  if (r->at == r->end || *r->at != ']')
    return ist_fail(err, IST_ERR_DATA, "%s:%" PRId64 ": not JSON: the array is not closed by ']'",
                    r->path, r->line);
  return IST_OK;
}

static ist_status end_array(ist_reader *r, ist_error *err) {
  r->closed = true;
  r->at = skip_blanks(r->at + 1, r->end, &r->line);
  if (r->at == r->end) return IST_OK;
  return ist_fail(err, IST_ERR_DATA, "%s:%" PRId64 ": not JSON: text after the array", r->path,
                  r->line);
}

static ist_status next_element(ist_reader *r, ist_record *out, bool *more, ist_error *err) {
  *more = false; /* until the element's end is known */
  if (r->closed) return IST_OK;
  if (r->at < r->end && *r->at == ']') return end_array(r, err);
  json_error_t e;
  json_t *value;
  ist_status status =
      load(&value, r, r->at, (size_t)(r->end - r->at), FLAGS | JSON_DISABLE_EOF_CHECK, &e, err);
  if (status != IST_OK) {
    r->closed = true;
    return status;
  }
  int64_t line = r->line;
  for (const char *stop = r->at + e.position; r->at < stop; r->at++) r->line += *r->at == '\n';
  status = end_element(r, err);
  if (status != IST_OK) {
    r->closed = true;
    json_decref(value);
    return status;
  }
  *more = true;
  out->line = r->n + 1;
  return take(r, out, value, line, err);
}

static ist_status next_row(ist_reader *r, ist_record *out, bool *more, ist_error *err) {
  json_t *row;
  int64_t line = r->line + 1;
  *more = true;
  out->line = line;
  ist_status status = ist_csv_row(&row, r->stream, &r->line, err);
  *more = row || (status != IST_OK && r->line >= line);
  if (status == IST_OK && row && json_array_size(row) != json_array_size(r->columns))
    status = ist_fail(err, IST_ERR_DATA, "found %zu fields, expected %zu as in the header",
                      json_array_size(row), json_array_size(r->columns));
  json_t *object = status == IST_OK && row ? row_object(r, row) : NULL;
  if (status == IST_OK && row && !object) status = ist_fail_nomem(err, "a CSV row", 0);
  json_decref(row);
  if (status != IST_OK) {
    ist_error_context(err, "%s:%" PRId64, r->path, line);
    return status;
  }
  return row ? take(r, out, object, line, err) : IST_OK;
}

static ist_status fail_paragraph(const ist_reader *r, int64_t line, ist_error *err) {
  ist_fail(err, IST_ERR_DATA, "%s:%" PRId64 ": found a paragraph of more than %zu MiB", r->path,
           line, IST_LONGEST_RECORD >> 20);
  ist_hint(err, "an empty line ends a paragraph, which is a record of a .txt file");
  return IST_ERR_DATA;
}

static ist_status next_paragraph(ist_reader *r, ist_record *out, bool *more, ist_error *err) {
  ist_buf_clear(&r->paragraph);
  for (;;) {
    const char *p;
    size_t len;
    int64_t unused = 0;
    IST_TRY(ist_stream_line(r->stream, &p, &len, err));
    if (!p) break;
    r->line++;
    if (len > 0 && p[len - 1] == '\r') len--;
    bool blank = skip_blanks(p, p + len, &unused) == p + len;
    if (blank && r->paragraph.len > 0) break;
    if (blank) continue;
    if (r->paragraph.len > 0)
      ist_buf_str(&r->paragraph, "\n");
    else
      out->line = r->line;
    if (r->paragraph.len + len > IST_LONGEST_RECORD) return fail_paragraph(r, out->line, err);
    ist_buf_add(&r->paragraph, p, len);
  }
  *more = r->paragraph.len > 0;
  if (!*more) return IST_OK;
  if (r->paragraph.failed) return ist_fail_nomem(err, "a paragraph", r->paragraph.len);
  if (memchr(r->paragraph.p, 0, r->paragraph.len))
    return ist_fail(err, IST_ERR_DATA, "%s:%" PRId64 ": found a zero byte, expected text", r->path,
                    out->line);
  json_t *text = json_stringn(r->paragraph.p, r->paragraph.len);
  if (!text)
    return ist_fail(err, IST_ERR_DATA, "%s:%" PRId64 ": found text that is not UTF-8", r->path,
                    out->line);
  json_t *object = json_object();
  if (!object || json_object_set_new(object, "text", text)) {
    json_decref(object);
    return ist_fail_nomem(err, "a paragraph", r->paragraph.len);
  }
  return take(r, out, object, out->line, err);
}

ist_status ist_reader_next(ist_reader *r, ist_record *out, bool *more, ist_error *err) {
  *out = (ist_record){0};
  *more = false;
  switch (r->layout) {
    case LAYOUT_ARRAY: return next_element(r, out, more, err);
    case LAYOUT_CSV: return next_row(r, out, more, err);
    case LAYOUT_TEXT: return next_paragraph(r, out, more, err);
    default: return next_line(r, out, more, err);
  }
}

/* ---- A whole file ---- */

static ist_status read_all(ist_records *out, ist_reader *r, ist_error *err) {
  for (bool more = true; more;) {
    ist_record record;
    IST_TRY(ist_reader_next(r, &record, &more, err));
    if (!more) break;
    ist_status status = ist_grow(&out->p, &out->cap, out->n + 1, sizeof *out->p, err);
    if (status != IST_OK) {
      ist_record_free(&record);
      return status;
    }
    out->p[out->n++] = record;
  }
  if (out->n == 0) return ist_fail(err, IST_ERR_DATA, "%s: no records", out->path);
  return IST_OK;
}

ist_status ist_records_read(ist_records *out, const char *path, ist_error *err) {
  *out = (ist_records){0};
  ist_reader *r = NULL;
  out->path = ist_strdup(path);
  ist_status status =
      out->path ? ist_reader_open(&r, path, err) : ist_fail_nomem(err, path, strlen(path));
  if (status == IST_OK) status = read_all(out, r, err);
  ist_reader_close(r);
  if (status != IST_OK) ist_records_free(out);
  return status;
}

void ist_records_free(ist_records *r) {
  for (int64_t i = 0; i < r->n; i++) ist_record_free(&r->p[i]);
  ist_free(r->p);
  ist_free(r->path);
  *r = (ist_records){0};
}
