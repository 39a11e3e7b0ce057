/* An open model: file, configuration, weights, tokenizer, backend and, when one
 * was put on it, an adapter. */
#ifndef IST_MODEL_MODEL_H
#define IST_MODEL_MODEL_H

#include "model/weights.h"
#include "tokenizer/tokenizer.h"

struct ist_model {
  char *path;
  ist_source source; /* its tensors and settings: a GGUF, or a Hugging Face folder */
  ist_model_config config;
  ist_weights weights;
  ist_tokenizer *tokenizer; /* NULL: a folder without tokenizer.json, or a GGUF without */
  ist_ctx ctx;
  ist_dtype compute;
  bool f32_asked;             /* compute is F32 because the caller said so */
  ist_adapters *adapters;     /* NULL: none. Own, or a trainer's */
  unsigned char *own_adapter; /* parameters of a loaded adapter; NULL: none */
  ist_adapters loaded;        /* layout of the loaded adapter */
  /* Embedding and head that the adapter brings whole (V, width), in place of the base's. */
  float *whole[IST_OUTER_COUNT];
  bool requantised; /* float weights became base_type on opening */
  ist_dtype base_type;
  int64_t unmade_bytes; /* of the blocks, where the model was opened for a plan only */
  bool busy;            /* a trainer has it */
  char *template_name;  /* template the adapter was trained with; NULL: unknown */
};

/* Puts the adapter's whole matrices in place of the base's; NULL: the base's again. */
void ist_model_set_whole(ist_model *m, float *const whole[IST_OUTER_COUNT]);
/* Opens for a plan: with a base type its sizes are known, but no weight is quantised. */
ist_status ist_model_open_for_plan(ist_model **out, const char *path,
                                   const ist_model_options *options, ist_error *err);

/* Takes off what ist_model_set_adapter put on. */
void ist_model_drop_adapter(ist_model *m);

/* Identity of the base, for checkpoints: sizes, types and a hash over the tensor
 * table and a sample of every tensor's bytes. */
uint64_t ist_model_hash(const ist_model *m);
/* The instruction set that computes; static storage. */
const char *ist_model_isa(const ist_model *m);

/* Bytes of the files whose pages the weights are read from. */
int64_t ist_model_file_bytes(const ist_model *m);

/* Refuses a model that a trainer has. */
ist_status ist_model_check_free(const ist_model *m, ist_error *err);
/* Refuses a model without a tokenizer, for whatever reads or writes text. */
ist_status ist_model_check_tokenizer(const ist_model *m, ist_error *err);

#endif
