/* Glue to jansson, for the file formats that carry JSON. */
#ifndef IST_FORMAT_JSON_H
#define IST_FORMAT_JSON_H

#include <jansson.h>

#include "base/error.h"
#include "base/mem.h"

/* What a JSON file may have of bytes, and its values of memory: jansson takes up to 80 bytes for
 * one of the text ("{},{},{},..."). */
typedef struct ist_json_limit {
  size_t text, memory;
} ist_json_limit;
/* Settings of every kind; those of real models have some KiB, a list of many labels or added
 * tokens a few MiB. */
#define IST_JSON_SETTINGS ((ist_json_limit){(size_t)16 << 20, (size_t)128 << 20})
/* An index names every tensor: 14 MB and 60 MB for the 140,000 of the largest mixtures. */
#define IST_JSON_INDEX ((ist_json_limit){(size_t)32 << 20, (size_t)256 << 20})
/* Half a million merges as pairs, the most there are: 35 MB and 260 MB. */
#define IST_JSON_TOKENIZER ((ist_json_limit){(size_t)64 << 20, (size_t)512 << 20})

/* What jansson would take, at most, for the JSON value that `text` begins with, counted before it
 * is parsed; counts no further than `limit`. *end (may be NULL): the bytes of the value, as far
 * as brackets and commas tell; `len` where it does not end. */
size_t ist_json_memory(const char *text, size_t len, size_t limit, size_t *end);

/* Parses `len` bytes that must be one JSON object in UTF-8, without duplicate
 * keys. The caller frees with json_decref. Errors say where in the text. Refuses what would take
 * more memory than `memory` or, in ist_json_parse, than settings may. */
ist_status ist_json_parse(json_t **out, const char *text, size_t len, ist_error *err);
ist_status ist_json_parse_within(json_t **out, const char *text, size_t len, size_t memory,
                                 ist_error *err);

/* The same for settings that a program wrote: transformers has an integer of 100 bits
 * for "no limit". One beyond 64 is given as a real number. */
ist_status ist_json_parse_config(json_t **out, const char *text, size_t len, ist_error *err);

/* A path as a string of JSON, which holds UTF-8 only: other bytes, and control characters
 * with them, become '?'. NULL: out of memory. */
json_t *ist_json_path(const char *text);

/* Appends a JSON text, its integers beyond 64 bits written as reals; nothing else changes. */
void ist_json_long_as_real(ist_buf *out, const char *text, size_t len);

/* A regular file, as ist_json_parse_config; errors name it. */
ist_status ist_json_read(json_t **out, const char *path, ist_json_limit limit, ist_error *err);

/* What a text that need not be JSON holds, an object or an array; NULL where it holds none, or would
 * take more memory than settings may. */
json_t *ist_json_inside(const char *text);

/* "an object", "a string", ... for error messages; NULL is "nothing". */
const char *ist_json_kind(const json_t *v);

#endif
