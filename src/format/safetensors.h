/* safetensors: a hardened reader over a mapped file, and a writer. */
#ifndef IST_FORMAT_SAFETENSORS_H
#define IST_FORMAT_SAFETENSORS_H

#include "base/dtype.h"
#include "base/file.h"
#include "format/tensor_read.h"

#define IST_ST_MAX_DIMS 8

typedef struct ist_st_tensor {
  char *name;
  ist_dtype type; /* F64 F32 F16 BF16 I64 I32 I16 I8 U8 */
  int n_dims;
  int64_t shape[IST_ST_MAX_DIMS];
  const unsigned char *data; /* borrowed until close; may be unaligned */
  int64_t bytes;
} ist_st_tensor;

typedef struct ist_safetensors {
  char *path;
  ist_map map;
  int64_t n;
  ist_st_tensor *tensor;         /* in file order */
  const ist_st_tensor **by_name; /* sorted (private) */
  int64_t n_meta;
  char **meta_key, **meta_value;
} ist_safetensors;

/* Maps the file and checks the whole header: sizes, offsets (from 0, without a
 * hole or an overlap, to the very end of the file), shapes, types, duplicates. */
ist_status ist_safetensors_open(ist_safetensors **out, const char *path, ist_error *err);
void ist_safetensors_close(ist_safetensors *s);
const ist_st_tensor *ist_safetensors_find(const ist_safetensors *s, const char *name);
const char *ist_safetensors_meta(const ist_safetensors *s, const char *key); /* NULL: absent */
/* Copies a tensor of F32, F16, BF16 or F64 as f32. n: the elements expected. */
ist_status ist_st_to_f32(const ist_st_tensor *t, float *dst, int64_t n, ist_error *err);

/* One tensor to write: its data, borrowed until written, or a function that makes them
 * when their turn comes, borrowed until it is called again (tensors that would fill the
 * memory twice otherwise). */
typedef struct ist_st_item {
  const char *name;
  ist_dtype type;
  int n_dims;
  int64_t shape[IST_ST_MAX_DIMS];
  const void *data;
  const void *(*make)(void *user); /* instead of data */
  void *user;
  bool on_disk; /* data is a mapped file: pages leave memory as they are written */
} ist_st_item;
/* Bytes of the tensor. */
int64_t ist_st_item_bytes(const ist_st_item *it);
/* Atomic. Names must differ. Order in the file: by falling element size, then name (as HF's
 * writer). meta: n_meta pairs of strings {key, value}; "format":"pt" is always added. */
ist_status ist_safetensors_write(const char *path, const ist_st_item *items, int64_t n,
                                 const char *const (*meta)[2], int64_t n_meta, ist_error *err);
/* The same without metadata for tensors that are larger than memory: read(item.user, ...)
 * gives their rows when the file is written. */
ist_status ist_safetensors_stream(const char *path, const ist_st_item *items, int64_t n,
                                  ist_tensor_read_fn read, ist_error *err);

#endif
