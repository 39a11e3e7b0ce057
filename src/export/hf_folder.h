/* What stands beside the weights in a Hugging Face folder, made from a model file:
 * configuration, tokenizer, chat template. */
#ifndef IST_EXPORT_HF_FOLDER_H
#define IST_EXPORT_HF_FOLDER_H

#include <jansson.h>

#include "format/safetensors.h"
#include "model/model.h"

/* config.json of a GGUF; tied: whether embedding and head share their matrix in the folder.
 * NULL with err where the family, or something in the file, has no place there. */
json_t *ist_hf_config(const ist_model *m, ist_dtype type, bool tied, ist_error *err);
/* Its part for scaled rotary positions; null: plain ones. */
ist_status ist_hf_rope_scaling(json_t **out, const ist_model *m, ist_error *err);
/* Reads a config.json as the folder's reader would, with the tensors that are to be written
 * beside it: it must describe the model, or an error says what it cannot. */
ist_status ist_hf_check(const ist_model *m, json_t *config, const ist_st_item *items, int64_t n,
                        ist_error *err);
/* The config.json of a base that is a folder, with its dtype where `type` is not -1. apart:
 * embedding and head are not one matrix, whatever it says. */
json_t *ist_hf_config_copy(const ist_model *m, int type, bool apart, ist_error *err);
/* What stands beside the weights of such a base (tokenizer, generation_config.json, chat template)
 * into the folder `to`. */
ist_status ist_hf_copy_beside(const ist_model *m, const char *to, ist_error *err);
/* A number that a GGUF keeps as f32, as it was written: 1e-5, not 9.99999975e-06. */
double ist_hf_decimal(double v);
/* The token of padding; -1: none. */
int32_t ist_hf_pad(const ist_model *m);
/* What config.json calls F32, F16 or BF16. */
const char *ist_hf_dtype(ist_dtype t);
/* generation_config.json: the tokens that begin and end a text. */
json_t *ist_hf_generation_config(const ist_model *m);
/* For tokenizer.json of a SentencePiece vocabulary: the parts that are its own. vocab is taken.
 * NULL with err where memory ends, or a vocabulary has merges out of proportion. */
json_t *ist_hf_sentencepiece_model(const ist_gguf *g, json_t *vocab, const char *unknown,
                                   ist_error *err);
json_t *ist_hf_sentencepiece_normalizer(const ist_gguf *g);
json_t *ist_hf_sentencepiece_decoder(const ist_gguf *g);
/* tokenizer.json and tokenizer_config.json. */
json_t *ist_hf_tokenizer(const ist_model *m, ist_error *err);
json_t *ist_hf_tokenizer_config(const ist_model *m);

#endif
