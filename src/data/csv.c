#include <inttypes.h>
#include <string.h>

#include "base/mem.h"
#include "data/reader.h"

/* A value takes more memory than its comma. */
enum { MOST_FIELDS = 16384 };

/* The row under way. A quoted field goes on in the next line where a line ends
 * inside the quotes. */
typedef struct row {
  json_t *fields;
  ist_buf field;
  size_t len;        /* of its lines so far */
  bool quoted, open; /* the field began with a quote; that quote is not closed yet */
} row;

static ist_status end_field(row *r, ist_error *err) {
  if (r->field.failed) return ist_fail_nomem(err, "a CSV field", r->field.len);
  if (json_array_size(r->fields) == MOST_FIELDS)
    return ist_fail(err, IST_ERR_DATA, "found a row of more than %d fields", MOST_FIELDS);
  const char *p = r->field.p ? r->field.p : "";
  if (memchr(p, 0, r->field.len)) /* as in JSON: it would end the text */
    return ist_fail(err, IST_ERR_DATA, "found a zero byte in a field, expected text");
  json_t *text = json_stringn(p, r->field.len);
  if (!text) return ist_fail(err, IST_ERR_DATA, "a field is not UTF-8 text");
  if (json_array_append_new(r->fields, text)) return ist_fail_nomem(err, "a CSV row", 0);
  ist_buf_clear(&r->field);
  r->quoted = false;
  return IST_OK;
}

static ist_status add_line(row *r, const char *p, size_t len, ist_error *err) {
  const char *end = p + len;
  while (p < end) {
    if (r->open) {
      const char *quote = memchr(p, '"', (size_t)(end - p));
      const char *stop = quote ? quote : end;
      ist_buf_add(&r->field, p, (size_t)(stop - p));
      p = quote ? quote + 1 : end;
      r->open = quote == NULL;
      if (quote && p < end && *p == '"') { /* two quotes stand for one */
        ist_buf_str(&r->field, "\"");
        r->open = true;
        p++;
      }
    } else if (*p == ',') {
      IST_TRY(end_field(r, err));
      p++;
    } else if (*p == '"' && r->field.len == 0 && !r->quoted) {
      r->quoted = r->open = true;
      p++;
    } else if (r->quoted) {
      return ist_fail(err, IST_ERR_DATA, "found '%c' behind a closing quote, expected a comma", *p);
    } else {
      ist_buf_add(&r->field, p++, 1);
    }
  }
  return IST_OK;
}

/* Up to the end of the row; *found is false at the end of the file. */
static ist_status read_row(row *r, ist_stream *s, int64_t *line, bool *found, ist_error *err) {
  const char *text;
  size_t len;
  *found = false;
  do {
    IST_TRY(ist_stream_line(s, &text, &len, err));
    if (!text && !*found) return IST_OK;
    if (!text) return ist_fail(err, IST_ERR_DATA, "the file ends inside a quoted field");
    ++*line;
    if (r->len + len > IST_LONGEST_RECORD)
      return ist_fail(err, IST_ERR_DATA, "found a row of more than %zu MiB",
                      IST_LONGEST_RECORD >> 20);
    r->len += len + 1;
    if (len > 0 && text[len - 1] == '\r') len--;
    if (r->open) ist_buf_str(&r->field, "\n"); /* CR LF inside quotes becomes LF */
    *found = true;
    IST_TRY(add_line(r, text, len, err));
  } while (r->open);
  return end_field(r, err);
}

ist_status ist_csv_row(json_t **out, ist_stream *s, int64_t *line, ist_error *err) {
  row r = {.fields = json_array()};
  bool found = false;
  *out = NULL;
  ist_status status =
      r.fields ? read_row(&r, s, line, &found, err) : ist_fail_nomem(err, "a CSV row", 0);
  ist_buf_free(&r.field);
  if (status == IST_OK && found) {
    *out = r.fields;
  } else {
    json_decref(r.fields);
  }
  return status;
}
