/* Named arenas: one reservation before the first step, no allocation after it. */
#ifndef IST_BASE_ARENA_H
#define IST_BASE_ARENA_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

#define IST_ARENA_ALIGN 64

typedef struct ist_arena {
  const char *name; /* static storage, shown by `ist plan` */
  unsigned char *base;
  size_t cap, used, peak;
  bool on_disk;
} ist_arena;

/* Rounds a byte count up to the arena's alignment; plans sum these. */
static inline size_t ist_arena_round(size_t bytes) {
  return (bytes + IST_ARENA_ALIGN - 1) & ~(size_t)(IST_ARENA_ALIGN - 1);
}
/* Reserves `bytes` of zeroed memory (pages are committed when first touched). */
ist_status ist_arena_init(ist_arena *a, const char *name, size_t bytes, ist_error *err);
/* The same in an unnamed file of the folder `dir`, which takes the pages that are
 * dropped; its whole size is reserved on the disk, so that a full one is noticed
 * here. For what is used rarely and must not fill the memory. */
ist_status ist_arena_init_on_disk(ist_arena *a, const char *name, size_t bytes, const char *dir,
                                  ist_error *err);
/* Takes the pages that lie wholly in [p, p + bytes) out of memory; what they hold
 * comes back from the disk when it is touched. Arenas on disk only. */
void ist_arena_drop(const ist_arena *a, const void *p, size_t bytes);
void ist_arena_free(ist_arena *a);
/* `bytes`, aligned; more than was declared is a defect and asserts. */
void *ist_arena_alloc(ist_arena *a, size_t bytes);
/* Stack discipline: remember the mark, allocate, go back to it. */
static inline size_t ist_arena_mark(const ist_arena *a) {
  return a->used;
}
void ist_arena_reset(ist_arena *a, size_t mark);

/* Pages of a file mapping: takes those wholly in the range out of memory, or asks
 * the system to read the range ahead. What is mapped stays as it is. */
void ist_pages_drop(const void *p, size_t bytes);
void ist_pages_want(const void *p, size_t bytes);

#endif
