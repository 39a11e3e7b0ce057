/* Glue to jansson, for the file formats that carry JSON. */
#ifndef IST_FORMAT_JSON_H
#define IST_FORMAT_JSON_H

#include <jansson.h>

#include "base/error.h"

/* Parses `len` bytes that must be one JSON object in UTF-8, without duplicate
 * keys. The caller frees with json_decref. Errors say where in the text. */
ist_status ist_json_parse(json_t **out, const char *text, size_t len, ist_error *err);

/* The same for settings that a program wrote: transformers has an integer of 100 bits
 * for "no limit". Where one is beyond 64, every number of the text is given as real. */
ist_status ist_json_parse_config(json_t **out, const char *text, size_t len, ist_error *err);

/* "an object", "a string", ... for error messages; NULL is "nothing". */
const char *ist_json_kind(const json_t *v);

#endif
