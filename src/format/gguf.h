/* GGUF v3 files: a hardened read-only view of a mapped file, and a writer.
 * Format: docs/formats.md; ggml's gguf specification. */
#ifndef IST_FORMAT_GGUF_H
#define IST_FORMAT_GGUF_H

#include "base/dtype.h"
#include "base/file.h"
#include "format/tensor_read.h"

typedef enum ist_gguf_type {
  IST_GGUF_U8,
  IST_GGUF_I8,
  IST_GGUF_U16,
  IST_GGUF_I16,
  IST_GGUF_U32,
  IST_GGUF_I32,
  IST_GGUF_F32,
  IST_GGUF_BOOL,
  IST_GGUF_STRING,
  IST_GGUF_ARRAY,
  IST_GGUF_U64,
  IST_GGUF_I64,
  IST_GGUF_F64
} ist_gguf_type;

/* Bytes inside the map, not NUL-terminated. */
typedef struct ist_str {
  const char *p;
  size_t len;
} ist_str;

typedef struct ist_gguf_kv {
  ist_str key;
  ist_gguf_type type;        /* IST_GGUF_ARRAY for arrays */
  ist_gguf_type elem;        /* element type of an array */
  uint64_t count;            /* elements of an array, else 1 */
  const unsigned char *data; /* first element (strings: their u64 length) */
  size_t bytes;              /* of all elements */
  ist_str *strings;          /* arrays of strings: parsed, count entries */
} ist_gguf_kv;

typedef struct ist_gguf_tensor {
  ist_str name;
  ist_dtype type;
  int n_dims;
  int64_t ne[4];             /* ne[0] = in (contiguous); unused are 1 */
  const unsigned char *data; /* borrowed until ist_gguf_close */
  int64_t bytes;
} ist_gguf_tensor;

typedef struct ist_gguf {
  char *path;
  ist_map map;
  uint32_t version;
  uint64_t alignment;
  int64_t n_kv, n_tensors;
  ist_gguf_kv *kv;
  ist_gguf_tensor *tensor;
  size_t data_offset;
  /* name -> index hash tables (private) */
  int32_t *kv_hash, *tensor_hash;
  uint32_t kv_mask, tensor_mask;
} ist_gguf;

/* Maps and checks the whole header: lengths, counts, offsets, products,
 * alignment, duplicates, UTF-8 of names, unknown types (named with the tensor). */
ist_status ist_gguf_open(ist_gguf **out, const char *path, ist_error *err);
void ist_gguf_close(ist_gguf *g);

const ist_gguf_kv *ist_gguf_find(const ist_gguf *g, const char *key);
const ist_gguf_tensor *ist_gguf_find_tensor(const ist_gguf *g, const char *name);

/* Typed look-ups. `*out` is left alone when the key is absent and `required` is
 * false; a value of another kind or out of range is an error that names it.
 * Any integer type is accepted for integers, F32 or F64 for floats. */
ist_status ist_gguf_get_i64(const ist_gguf *g, const char *key, bool required, int64_t *out,
                            ist_error *err);
ist_status ist_gguf_get_f64(const ist_gguf *g, const char *key, bool required, double *out,
                            ist_error *err);
ist_status ist_gguf_get_bool(const ist_gguf *g, const char *key, bool required, bool *out,
                             ist_error *err);
ist_status ist_gguf_get_str(const ist_gguf *g, const char *key, bool required, ist_str *out,
                            ist_error *err);
/* Element i of a numeric array as a double (integers < 2^53 exact). */
double ist_gguf_elem_f64(const ist_gguf_kv *kv, uint64_t i);

/* Writer: keys, then tensors, in the order given; strings are copied. Data is
 * pulled from `read` (may dequantise, merge, permute ...) when the file is written. */
typedef struct ist_gguf_writer ist_gguf_writer;
ist_gguf_writer *ist_gguf_writer_new(void);
void ist_gguf_writer_free(ist_gguf_writer *w);
void ist_gguf_put_u32(ist_gguf_writer *w, const char *key, uint32_t v);
void ist_gguf_put_f32(ist_gguf_writer *w, const char *key, float v);
void ist_gguf_put_bool(ist_gguf_writer *w, const char *key, bool v);
void ist_gguf_put_str(ist_gguf_writer *w, const char *key, const char *s, size_t len);
void ist_gguf_put_strs(ist_gguf_writer *w, const char *key, const ist_str *s, uint64_t n);
void ist_gguf_put_i32s(ist_gguf_writer *w, const char *key, const int32_t *v, uint64_t n);
void ist_gguf_put_f32s(ist_gguf_writer *w, const char *key, const float *v, uint64_t n);
/* Copies a key with its value, whatever its type, from a file that was read;
 * "general.alignment" is left out, since files are written with the default. */
void ist_gguf_put_kv(ist_gguf_writer *w, const ist_gguf_kv *kv);
/* One value may have no dimensions; ne[0] is 1 then. */
void ist_gguf_put_tensor(ist_gguf_writer *w, const char *name, ist_dtype type, int n_dims,
                         const int64_t *ne, ist_tensor_read_fn read, void *user);
/* As above with the bytes at hand (borrowed until written). */
void ist_gguf_put_tensor_data(ist_gguf_writer *w, const char *name, ist_dtype type, int n_dims,
                              const int64_t *ne, const void *data);
/* Atomic: temporary name, sync, rename. Out-of-memory of any put shows here. */
ist_status ist_gguf_write(ist_gguf_writer *w, const char *path, ist_error *err);

#endif
