/* Records one at a time, out of a data file of any kind. */
#ifndef IST_DATA_READER_H
#define IST_DATA_READER_H

#include <jansson.h>

#include "data/data.h"
#include "data/stream.h"

typedef struct ist_reader ist_reader;

/* What the file is: by its name .csv (a header row names the fields) or .txt (a paragraph, up to
 * an empty line, is a record; but not where it begins as JSON does: with {", [{, {} or []). Else
 * its first character tells: '[' opens a JSON array of objects, others one JSON object a line.
 * Each of these may be packed by gzip or Zstandard (.csv.gz). An array is held in memory while it
 * is read; the others take constant memory. Closed by the caller. */
ist_status ist_reader_open(ist_reader **out, const char *path, ist_error *err);
void ist_reader_close(ist_reader *r);

/* The next record, owned by the caller (ist_record_free); *more is false at the
 * end. Errors name file, line, field, found, expected. After an error that leaves
 * *more true the reader stands behind the bad record and may be called again. */
ist_status ist_reader_next(ist_reader *r, ist_record *out, bool *more, ist_error *err);

/* A record from its JSON object. *chosen: the kind of the file's records, -1 before
 * the first one, which decides. On error *out is empty. */
ist_status ist_record_from_json(ist_record *out, int *chosen, const json_t *value, ist_error *err);

/* Whether `field` is read of a file's records when the first has the fields of `object`; of those
 * of strings alone, as a row's are. */
bool ist_record_reads(const json_t *object, const char *field);

/* One row of a CSV file (RFC 4180: fields in double quotes may hold commas, quotes
 * twice, line breaks) as a new array of strings; NULL at the end. *line counts lines
 * read so far. */
ist_status ist_csv_row(json_t **out, ist_stream *s, int64_t *line, ist_error *err);

#endif
