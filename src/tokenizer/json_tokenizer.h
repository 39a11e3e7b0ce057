/* What the readers of tokenizer.json share. */
#ifndef IST_TOKENIZER_JSON_TOKENIZER_H
#define IST_TOKENIZER_JSON_TOKENIZER_H

#include "format/json.h"
#include "tokenizer/internal.h"

typedef struct ist_json_reader {
  ist_tokenizer *t;
  json_t *root, *config, *specials, *generation; /* all but root may be NULL */
  ist_tokens tokens;
  bool byte_level; /* a pre-tokeniser maps bytes to characters */
  bool surrounded; /* the post-processor puts tokens around a text */
  size_t patterns; /* bytes of the regular expressions read */
  bool ignore_merges;
} ist_json_reader;

/* A field of an object: NULL when absent or null. */
static inline const json_t *ist_json_field(const json_t *object, const char *field) {
  const json_t *v = json_object_get(object, field);
  return json_is_null(v) ? NULL : v;
}
/* A boolean field; `absent` where there is none. */
ist_status ist_json_flag(const json_t *object, const char *field, bool absent, bool *out,
                         ist_error *err);
/* The text of a string field. */
ist_status ist_json_text(const json_t *object, const char *field, const char **out, ist_error *err);

/* json_steps.c: normalizer, pre_tokenizer, decoder, post_processor. */
ist_status ist_json_read_normalizer(ist_json_reader *r, const json_t *v, ist_error *err);
ist_status ist_json_read_pre_tokenizer(ist_json_reader *r, const json_t *v, ist_error *err);
ist_status ist_json_read_decoder(ist_json_reader *r, const json_t *v, ist_error *err);
ist_status ist_json_read_post_processor(ist_json_reader *r, const json_t *v, ist_error *err);

/* json_config.c: the files beside tokenizer.json, read first; and what they say. */
ist_status ist_json_read_files(ist_json_reader *r, const char *folder, ist_error *err);
ist_status ist_json_apply_config(ist_json_reader *r, ist_error *err);

#endif
