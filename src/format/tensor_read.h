/* How writers get the data of a tensor that is not in memory as a whole. */
#ifndef IST_FORMAT_TENSOR_READ_H
#define IST_FORMAT_TENSOR_READ_H

#include "base/error.h"

/* Produces bytes [offset, offset + n) of the tensor, always whole rows, into dst. */
typedef ist_status (*ist_tensor_read_fn)(void *user, int64_t offset, int64_t n, unsigned char *dst,
                                         ist_error *err);

/* Bytes of tensor data asked for at a time, where a row is not longer. */
#define IST_TENSOR_CHUNK ((int64_t)4 << 20)

/* Rows asked for at a time. */
static inline int64_t ist_tensor_chunk_bytes(int64_t row_bytes) {
  return row_bytes < IST_TENSOR_CHUNK ? IST_TENSOR_CHUNK / row_bytes * row_bytes : row_bytes;
}

#endif
