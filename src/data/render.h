/* From a record to tokens, by template. */
#ifndef IST_DATA_RENDER_H
#define IST_DATA_RENDER_H

#include "data/data.h"

/* Tokens with their mask: 1 or 2 where the token belongs to a completion, by turns, so
 * that completions can be told apart. */
typedef struct ist_rendered {
  ist_ids ids;
  uint8_t *mask;
  int64_t mask_cap;
  bool unfinished; /* replies of the record are left, behind the tokens asked for */
} ist_rendered;
void ist_rendered_free(ist_rendered *r);

/* Appends the whole record, or at least max_tokens + 1 tokens of it (0: all): the caller cuts.
 * The paper template adds EOS where it fits below. `now`: ist_data_options. */
ist_status ist_render_record(ist_rendered *out, const ist_record *r, const ist_tokenizer *tok,
                             ist_template tmpl, time_t now, int64_t max_tokens, ist_error *err);
/* Appends what a record has before the text of its last message, when that is the
 * assistant's, else the record and the opening of a reply. */
ist_status ist_render_prompt(ist_rendered *out, const ist_record *r, const ist_tokenizer *tok,
                             ist_template tmpl, time_t now, ist_error *err);

/* chat.c: the same by the model's own template. */
ist_status ist_chat_record(ist_rendered *out, const ist_record *r, const ist_tokenizer *tok,
                           time_t now, int64_t max_tokens, ist_error *err);
ist_status ist_chat_prompt(ist_rendered *out, const ist_record *r, const ist_tokenizer *tok,
                           time_t now, ist_error *err);

#endif
