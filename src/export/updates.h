/* What a linear adapter does to the tensors of its base, free of any method:
 *   W' = W + scale B A          LoRA, rsLoRA, patterns
 *   W' = g (W + scale B A)      DoRA, g = magnitude / the row's norm
 * where W is the base's tensor, or `whole` in its place (modules_to_save). Read
 * from Hugging Face PEFT directories and from llama.cpp's GGUF adapters. */
#ifndef IST_EXPORT_UPDATES_H
#define IST_EXPORT_UPDATES_H

#include "format/peft_dir.h"
#include "model/model.h"

/* All owned; rows are in the model file's order, q and k rows permuted as there. */
typedef struct ist_update {
  int64_t layer; /* -1: a tensor of the whole model */
  int id;        /* ist_tensor_id */
  int64_t copy;  /* which expert's; 0 elsewhere */
  int64_t rows, cols, rank;
  double scale, alpha; /* alpha: as the adapter has it, for those who write it again */
  float *a;            /* (rank, cols); rank 0: none */
  float *b;            /* (rows, rank) */
  float *magnitude;    /* (rows); NULL: no DoRA */
  float *bias;         /* (rows) of B, which counts as B does; NULL: none */
  float *whole;        /* (rows, cols); NULL: the base's */
} ist_update;

typedef struct ist_updates {
  ist_update *p;
  int64_t n, cap;
  double dropout; /* of the adapter's training; 0 where it does not say */
  bool rslora;    /* scales are alpha / sqrt(rank) */
} ist_updates;

/* Reads a PEFT directory, or a file as a GGUF adapter, and checks it against the
 * model: every tensor has its place and its shape, every place its tensors, every
 * value is finite. On error *out is empty. */
ist_status ist_updates_read(ist_updates *out, const char *path, const ist_model *m, ist_error *err);
/* A file, so a GGUF adapter, not a directory. */
bool ist_adapter_is_file(const char *path);
/* The same of a PEFT directory that is open; dir: its path. */
ist_status ist_updates_read_dir(ist_updates *out, const ist_peft_dir *d, const char *dir,
                                const ist_model *m, ist_error *err);
void ist_updates_free(ist_updates *u);
/* Drops the whole matrices that are the base's own, of which PEFT saves a copy beside an adapter on
 * one of them; an update that has nothing else goes with its matrix. */
ist_status ist_updates_drop_own(ist_updates *u, const ist_model *m, ist_error *err);
/* The update of a tensor (of one expert's matrix in a stack), or NULL. */
const ist_update *ist_updates_find(const ist_updates *u, int64_t layer, int id, int64_t copy);

/* Rows [row0, row0 + n) of W' from those of W: w (n, cols) is changed in place. */
void ist_update_rows(const ist_update *u, float *w, int64_t row0, int64_t n);

/* ---- For the two readers ---- */

/* Appends a zeroed update for a tensor of the model; NULL: out of memory. */
ist_update *ist_updates_add(ist_updates *u, const ist_model *m, int64_t layer, int id,
                            int64_t copy);
ist_status ist_updates_read_peft(ist_updates *out, const ist_peft_dir *d, const char *dir,
                                 const ist_model *m, ist_error *err);
ist_status ist_updates_read_gguf(ist_updates *out, const char *path, const ist_model *m,
                                 ist_error *err);
/* Refuses NaN and infinity. */
ist_status ist_check_finite(const float *v, int64_t n, const char *path, const char *name,
                            ist_error *err);

#endif
