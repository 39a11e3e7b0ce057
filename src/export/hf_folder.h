/* What stands beside the weights in a Hugging Face folder, made from a model file:
 * configuration, tokenizer, chat template. */
#ifndef IST_EXPORT_HF_FOLDER_H
#define IST_EXPORT_HF_FOLDER_H

#include <jansson.h>

#include "model/model.h"

/* config.json; tied: whether embedding and head share their matrix in the folder.
 * NULL with err where the family, or something in the file, has no place there. */
json_t *ist_hf_config(const ist_model *m, ist_dtype type, bool tied, ist_error *err);
/* The config.json of a base that is a folder, with its dtype where `type` is not -1. */
json_t *ist_hf_config_copy(const ist_model *m, int type, bool unties, ist_error *err);
/* What stands beside the weights of such a base (tokenizer, generation_config.json, chat template)
 * into the folder `to`. */
ist_status ist_hf_copy_beside(const ist_model *m, const char *to, ist_error *err);
/* What config.json calls F32, F16 or BF16. */
const char *ist_hf_dtype(ist_dtype t);
/* generation_config.json: the tokens that begin and end a text. */
json_t *ist_hf_generation_config(const ist_model *m);
/* tokenizer.json and tokenizer_config.json. */
json_t *ist_hf_tokenizer(const ist_model *m, ist_error *err);
json_t *ist_hf_tokenizer_config(const ist_model *m);

#endif
