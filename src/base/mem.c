#include "base/mem.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Counters for tests, process-wide as malloc is. */
static atomic_uint_fast64_t allocations;
static atomic_int_fast64_t until_failure;

uint64_t ist_alloc_count(void) {
  return atomic_load(&allocations);
}

uint64_t ist_alloc_fail_at(uint64_t n) {
  return (uint64_t)atomic_exchange(&until_failure, (int_fast64_t)n);
}

/* The checked size of a request, at least 1; 0 when it must fail. */
static size_t request(size_t count, size_t size) {
  atomic_fetch_add_explicit(&allocations, 1, memory_order_relaxed);
  if (atomic_load_explicit(&until_failure, memory_order_relaxed) > 0 &&
      atomic_fetch_sub(&until_failure, 1) == 1)
    return 0;
  size_t bytes;
  if (__builtin_mul_overflow(count, size, &bytes) || bytes > PTRDIFF_MAX) return 0;
  return bytes ? bytes : 1;
}

void *ist_calloc(size_t count, size_t size) {
  size_t bytes = request(count, size);
  return bytes ? calloc(bytes, 1) : NULL;
}

void *ist_realloc(void *p, size_t count, size_t size) {
  size_t bytes = request(count, size);
  return bytes ? realloc(p, bytes) : NULL;
}

void ist_free(void *p) {
  free(p);
}

char *ist_strndup(const char *s, size_t len) {
  if (len == SIZE_MAX) return NULL;
  char *copy = ist_calloc(len + 1, 1);
  if (copy && len) memcpy(copy, s, len);
  return copy;
}

char *ist_strdup(const char *s) {
  return ist_strndup(s, strlen(s));
}

ist_status ist_fail_nomem(ist_error *err, const char *what, size_t bytes) {
  return ist_fail(err, IST_ERR_NOMEM, "out of memory: %zu bytes for %s", bytes, what);
}

/* Room for `extra` more bytes and a NUL. */
static bool buf_reserve(ist_buf *b, size_t extra) {
  if (b->failed) return false;
  size_t need;
  if (__builtin_add_overflow(b->len, extra, &need) || need > PTRDIFF_MAX - 1) {
    b->failed = true;
    return false;
  }
  need += 1;
  if (need <= b->cap) return true;
  size_t cap = b->cap > PTRDIFF_MAX / 2 ? need : b->cap * 2;
  if (cap < need) cap = need;
  if (cap < 64) cap = 64;
  char *p = ist_realloc(b->p, cap, 1);
  if (!p) {
    b->failed = true;
    return false;
  }
  b->p = p;
  b->cap = cap;
  return true;
}

void ist_buf_add(ist_buf *b, const void *bytes, size_t len) {
  if (!buf_reserve(b, len)) return;
  if (len) memcpy(b->p + b->len, bytes, len);
  b->len += len;
  b->p[b->len] = 0;
}

void ist_buf_str(ist_buf *b, const char *s) {
  ist_buf_add(b, s, strlen(s));
}

void ist_buf_vprintf(ist_buf *b, const char *fmt, va_list args) {
  va_list again;
  va_copy(again, args);
  int n = ist_vformat(NULL, 0, fmt, args);
  if (n < 0) {
    b->failed = true;
  } else if (buf_reserve(b, (size_t)n)) {
    ist_vformat(b->p + b->len, (size_t)n + 1, fmt, again);
    b->len += (size_t)n;
  }
  va_end(again);
}

void ist_buf_printf(ist_buf *b, const char *fmt, ...) {
  va_list args;
  va_start(args, fmt);
  ist_buf_vprintf(b, fmt, args);
  va_end(args);
}

void ist_buf_clear(ist_buf *b) {
  b->len = 0;
  b->failed = false;
  if (b->p) b->p[0] = 0;
}

void ist_buf_free(ist_buf *b) {
  ist_free(b->p);
  *b = (ist_buf){0};
}

ist_status ist_grow(void *p_of_pointer, int64_t *cap, int64_t need, size_t size, ist_error *err) {
  if (need <= *cap) return IST_OK;
  int64_t room = *cap > INT64_MAX / 2 ? need : *cap * 2;
  if (room < need) room = need;
  if (room < 8) room = 8;
  /* memcpy, because the caller's pointer is a T*, not a void*. */
  void *p;
  memcpy(&p, p_of_pointer, sizeof p);
  p = ist_realloc(p, (size_t)room, size);
  if (!p) return ist_fail_nomem(err, "an array", (size_t)room * size);
  memcpy(p_of_pointer, &p, sizeof p);
  *cap = room;
  return IST_OK;
}
