/* An open model: file, configuration, weights, tokenizer, backend and, when one
 * was put on it, an adapter. */
#ifndef IST_MODEL_MODEL_H
#define IST_MODEL_MODEL_H

#include "model/weights.h"
#include "tokenizer/tokenizer.h"

struct ist_model {
  char *path;
  ist_gguf *gguf;
  ist_source source; /* its tensors and settings */
  ist_model_config config;
  ist_weights weights;
  ist_tokenizer *tokenizer;
  ist_ctx ctx;
  ist_dtype compute;
  ist_adapters *adapters;     /* NULL: none. Own, or a trainer's */
  unsigned char *own_adapter; /* parameters of a loaded adapter; NULL: none */
  ist_adapters loaded;        /* layout of the loaded adapter */
  bool busy;                  /* a trainer has it */
  char *template_name;        /* template the adapter was trained with; NULL: unknown */
};

/* Identity of the base, for checkpoints: sizes, types and a hash over the tensor
 * table and a sample of every tensor's bytes. */
uint64_t ist_model_hash(const ist_model *m);

/* Refuses a model that a trainer has. */
ist_status ist_model_check_free(const ist_model *m, ist_error *err);

#endif
