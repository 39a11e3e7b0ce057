/* What one prompt and a conversation share: options, and the text as it comes. */
#ifndef IST_EVAL_GENERATE_H
#define IST_EVAL_GENERATE_H

#include "data/data.h"
#include "eval/generator.h"

/* Checks the options; how they say that a step multiplies. */
ist_status ist_generate_check(ist_step_products *products, const ist_model *m,
                              const ist_generate_options *o, ist_error *err);
/* The template that they name. */
ist_status ist_generate_template(ist_template *t, const ist_model *m, const ist_generate_options *o,
                                 ist_error *err);
/* Answers a prompt, of which the cache holds the first `kept` tokens, with up to max_new
 * tokens; `each` gets the text. *ids is then what the cache holds. */
ist_status ist_generate_stream(ist_generator *g, ist_ids *ids, int64_t kept, int64_t max_new,
                               const ist_generate_options *o, ist_text_fn each, void *user,
                               ist_generate_result *r, ist_error *err);

#endif
