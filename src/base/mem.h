/* Heap memory that fails cleanly, and a growable byte buffer. */
#ifndef IST_BASE_MEM_H
#define IST_BASE_MEM_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* count * size bytes, zeroed, at least 1 byte. The product is checked. NULL when
 * there is no memory or the product overflows. Freed by ist_free. */
void *ist_calloc(size_t count, size_t size);
/* Grows or shrinks `p` (may be NULL) to count * size bytes; new bytes are not
 * cleared. NULL on failure, `p` is then untouched. */
void *ist_realloc(void *p, size_t count, size_t size);
void ist_free(void *p);
/* Copies `len` bytes and appends a NUL. NULL on failure. */
char *ist_strndup(const char *s, size_t len);
char *ist_strdup(const char *s);

/* "out of memory: N bytes for WHAT" */
ist_status ist_fail_nomem(ist_error *err, const char *what, size_t bytes);

/* Number of allocations since the start (tests: nothing is allocated in a step). */
uint64_t ist_alloc_count(void);
/* Tests: makes the n-th allocation from now fail once (0: none); returns how far the
 * failure ordered before was still away (0: it happened). */
uint64_t ist_alloc_fail_at(uint64_t n);

/* A growable byte buffer; zero-initialise, free with ist_buf_free. `p` always
 * has a NUL after `len` bytes once something was added. Errors stick in
 * `failed`, so a sequence of adds needs one check at the end. */
typedef struct ist_buf {
  char *p;
  size_t len, cap;
  bool failed;
} ist_buf;
void ist_buf_add(ist_buf *b, const void *bytes, size_t len);
void ist_buf_str(ist_buf *b, const char *s);
void ist_buf_printf(ist_buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void ist_buf_vprintf(ist_buf *b, const char *fmt, va_list args);
/* Empties it, keeps its memory and forgets a failure. */
void ist_buf_clear(ist_buf *b);
void ist_buf_free(ist_buf *b);

/* Growth of arrays: `*p` (a T *, passed as &p) holds `*cap` items of `size`; makes
 * room for `need`, at least doubling. New items are not cleared. */
ist_status ist_grow(void *p_of_pointer, int64_t *cap, int64_t need, size_t size, ist_error *err);

#endif
