/* Where a model's tensors and settings come from: a GGUF file, one that was split
 * into several, or a Hugging Face folder (config.json beside safetensors files), seen
 * as one table of tensors. */
#ifndef IST_FORMAT_SOURCE_H
#define IST_FORMAT_SOURCE_H

#include "format/gguf.h"
#include "format/json.h"
#include "format/safetensors.h"

/* Tensors of a folder are described like those of a GGUF: ne[0] runs fastest, data
 * is mapped. They may lie at any byte. */
typedef struct ist_source {
  const ist_gguf *gguf;          /* keys and tensors; NULL for a folder. Borrowed */
  json_t *config;                /* config.json; NULL for a GGUF. Owned */
  int64_t n;                     /* tensors */
  const ist_gguf_tensor *tensor; /* (n) */
  int64_t file_bytes;            /* of all files that hold tensors */
  /* of a folder or a split GGUF (private) */
  ist_gguf_tensor *own;
  const ist_gguf_tensor **by_name;
  ist_safetensors **shard;
  ist_gguf **part; /* opened by ist_source_open: the file, or all of a split one */
  int64_t n_shards, n_parts;
} ist_source;

/* Opens what `path` is: a folder, or a GGUF; of a split GGUF the first file, whose
 * fellows are opened with it. */
ist_status ist_source_open(ist_source *s, const char *path, ist_error *err);
/* The source that an open GGUF is; nothing to close, g must stay open. */
ist_source ist_source_of_gguf(const ist_gguf *g);
/* Opens config.json, and model.safetensors or the files that
 * model.safetensors.index.json names. Errors name the file. */
ist_status ist_source_open_folder(ist_source *s, const char *path, ist_error *err);
/* A folder that is yet to be written: its config, which is shared, and what its tensors are called
 * and shaped; they have no data. */
ist_status ist_source_draft(ist_source *s, json_t *config, const ist_st_item *items, int64_t n,
                            ist_error *err);
void ist_source_close(ist_source *s);
/* Takes the pages of all its files out of memory; they are read again when used. */
void ist_source_drop_pages(const ist_source *s);
/* NULL: no such tensor. */
const ist_gguf_tensor *ist_source_find(const ist_source *s, const char *name);

#endif
