/* Merging an adapter into its base, a tensor at a time: shared by the two writers. */
#ifndef IST_EXPORT_MERGE_H
#define IST_EXPORT_MERGE_H

#include "export/updates.h"
#include "format/safetensors.h"
#include "format/tensor_read.h"

/* One tensor of the result, and what was measured while it was written. */
typedef struct ist_merge_item {
  const ist_model *model;
  const ist_update *update;  /* NULL: the base's values */
  const ist_update **expert; /* (experts) those of a stack; NULL: none. Owned */
  char *name;                /* in the file that is written; owned */
  int64_t layer;
  int id;
  bool bias;
  ist_stored from; /* the base's tensor */
  ist_dtype to;
  int64_t *order;      /* (rows) the base's row for each row written; NULL: the same. Owned */
  int64_t *update_row; /* (rows) the update's row for each of the base's; NULL: the same. Owned */
  double shift;        /* added to every value: a folder of Gemma holds norms less 1 */
  bool turned;         /* rows and columns change places: a folder of GPT-2 is (in, out) */
  /* (turned) the merged matrix, while it is written; of a bias in blocks, its values. Owned */
  float *whole;
  int n_dims; /* of a folder's tensor; 0: by rows and columns */
  int64_t shape[IST_ST_MAX_DIMS];
  /* Sums of squares: the base, what the adapter changed, and what storing the
   * result in its type changed again. */
  double base2, change2, error2;
} ist_merge_item;

typedef struct ist_merge_list {
  ist_merge_item *p;
  int64_t n, cap;
} ist_merge_list;

/* Lists every tensor and bias of the model with its update, for a GGUF or for a folder; an output
 * head of its own is added where a tied base is changed on one side only. */
ist_status ist_merge_list_make(ist_merge_list *out, const ist_model *m, const ist_updates *u,
                               bool folder, ist_error *err);
void ist_merge_list_free(ist_merge_list *list);
/* Appends a tensor as it is stored, of no module yet (layer, id -1); NULL: out of memory, in err.
 */
ist_merge_item *ist_merge_list_add(ist_merge_list *list, const ist_model *m, ist_str name,
                                   const ist_stored *from, ist_error *err);
/* Its part for a GGUF that becomes a folder. */
ist_status ist_merge_list_convert(ist_merge_list *out, const ist_model *m, const ist_updates *u,
                                  ist_error *err);
/* Its part for a base that is a Hugging Face folder: the folder's own names and layouts. */
ist_status ist_merge_list_folder(ist_merge_list *out, const ist_model *m, const ist_updates *u,
                                 ist_error *err);
/* True when the base shares one matrix for embedding and head, and the result cannot. */
bool ist_merge_unties(const ist_model *m, const ist_updates *u);
/* What that head begins with, whatever head an adapter on the model brings. */
const ist_stored *ist_merge_tied_head(const ist_model *m);
/* True when the result has both and one was changed here: they may have been one, or a folder may
 * have said so and held both. */
bool ist_merge_sets_apart(const ist_merge_list *list);

/* An ist_tensor_read_fn over an ist_merge_item. */
ist_status ist_merge_read(void *item, int64_t offset, int64_t n, unsigned char *dst,
                          ist_error *err);
/* The bytes of the base can be copied as they are. */
bool ist_merge_is_copy(const ist_merge_item *item);
/* Refuses an item in a type that is not written; hint: what to ask for. */
ist_status ist_merge_check_type(const ist_merge_item *item, const char *hint, ist_error *err);

/* type: the type of the weight matrices, -1 for each its own. */
ist_status ist_merge_write_gguf(ist_merge_list *list, const ist_model *m, int type,
                                const char *path, const char *adapter, ist_error *err);
/* type: F32, F16 or BF16; -1: a folder's own, BF16 from a GGUF. */
ist_status ist_merge_write_hf(ist_merge_list *list, const ist_model *m, int type,
                              const ist_merge_options *o, ist_error *err);

/* Moves the files of the folder `temp` to `dir` and removes it. Those that they replace,
 * config.json and older weights are in the way: an error, unless `overwrite`; others stay. All is
 * moved or nothing. The first only says whether it may be, before all files are there. */
ist_status ist_merge_check_place(const char *temp, const char *dir, bool overwrite, ist_error *err);
ist_status ist_merge_place(const char *temp, const char *dir, bool overwrite, ist_error *err);

#endif
