/* Tensors by id: what they are called in each kind of source, and their shapes. */
#ifndef IST_MODEL_NAMES_H
#define IST_MODEL_NAMES_H

#include "model/config.h"

typedef enum ist_tensor_id {
#define IST_LAYER_TENSOR(id, stem, rows, cols, need) IST_T_##id,
#include "model/tensors.def"
  IST_T_LAYER_COUNT,
#define IST_MODEL_TENSOR(id, stem, rows, cols, need) IST_T_##id,
#include "model/tensors.def"
  IST_T_END
} ist_tensor_id;
#define IST_T_MODEL_FIRST (IST_T_LAYER_COUNT + 1)

/* The matrices of a layer's experts, one behind the other. */
static inline bool ist_tensor_is_stack(int id) {
  return id >= IST_T_EXPERT_GATE && id <= IST_T_EXPERT_DOWN;
}

/* The weight of a norm. */
static inline bool ist_tensor_is_norm(int id) {
  return (id >= IST_T_ATTN_NORM && id <= IST_T_K_NORM) || id == IST_T_OUTPUT_NORM ||
         id == IST_T_EMBED_NORM;
}

/* A bias of it is added; where none is, a file that has one has more than the family. */
static inline bool ist_tensor_has_bias(int id) {
  return !ist_tensor_is_stack(id) && id != IST_T_ROUTER && id != IST_T_SHARED_ROUTER &&
         id != IST_T_EMBED && id != IST_T_POSITION;
}

/* GGUF's name ("blk.3.attn_q.weight"), into a caller's buffer. */
void ist_tensor_name(char *out, size_t size, int64_t layer, int id);
/* Hugging Face's name without .weight ("model.layers.3.self_attn.q_proj"), which is
 * also PEFT's path of a module; false: the family has no such tensor. */
bool ist_tensor_hf_stem(char *out, size_t size, const ist_model_config *c, int64_t layer, int id);
/* The name in a source, for messages. */
void ist_tensor_name_in(char *out, size_t size, const ist_source *s, const ist_model_config *c,
                        int64_t layer, int id, bool bias);
/* Finds it there; prefixes that some files drop or add are seen through. */
const ist_gguf_tensor *ist_tensor_find(const ist_source *s, const ist_model_config *c,
                                       int64_t layer, int id, bool bias);

/* The tensor of one expert in a folder that keeps them apart ('@' in its name). */
const ist_gguf_tensor *ist_tensor_find_expert(const ist_source *s, const ist_model_config *c,
                                              int64_t layer, int id, int64_t expert);

/* Rows and columns that the config asks for in a layer (-1: of the model), rows 0: there
 * is none; need: must be in the file. Those of experts are of the stack. */
void ist_tensor_shape(const ist_model_config *c, int64_t layer, int id, int64_t *rows,
                      int64_t *cols, bool *need);

extern const char *const ist_names_llama[IST_T_END],
    *const ist_names_gemma2[IST_T_END], *const ist_names_mixtral[IST_T_END],
                                            *const ist_names_gpt2[IST_T_END],
                                                *const ist_names_gptj[IST_T_END],
                                                    *const ist_names_gptneox[IST_T_END],
                                                        *const ist_names_bloom[IST_T_END],
                                                            *const ist_names_opt[IST_T_END];

#endif
