#include "base/arena.h"

#include <sys/mman.h>

/* Under the address sanitizer, what is not allocated is poisoned, so that a
 * pointer kept across a reset or an overrun of the rounding is caught. */
#if defined(__SANITIZE_ADDRESS__)
#define IST_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define IST_ASAN 1
#endif
#endif
#ifdef IST_ASAN
#include <sanitizer/asan_interface.h>
#define POISON(p, n) ASAN_POISON_MEMORY_REGION(p, n)
#define UNPOISON(p, n) ASAN_UNPOISON_MEMORY_REGION(p, n)
#else
#define POISON(p, n) ((void)(p), (void)(n))
#define UNPOISON(p, n) ((void)(p), (void)(n))
#endif

ist_status ist_arena_init(ist_arena *a, const char *name, size_t bytes, ist_error *err) {
  *a = (ist_arena){.name = name};
  if (bytes == 0) return IST_OK;
  void *p = MAP_FAILED;
  if (bytes <= PTRDIFF_MAX)
    p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED)
    return ist_fail(err, IST_ERR_NOMEM, "out of memory: %zu bytes for the arena '%s'", bytes, name);
  a->base = p;
  a->cap = bytes;
  POISON(a->base, a->cap);
  return IST_OK;
}

void ist_arena_free(ist_arena *a) {
  if (a->base) {
    UNPOISON(a->base, a->cap);
    munmap(a->base, a->cap);
  }
  *a = (ist_arena){.name = a->name};
}

void *ist_arena_alloc(ist_arena *a, size_t bytes) {
  IST_ASSERT(bytes <= a->cap - a->used);
  unsigned char *p = a->base + a->used;
  /* The last allocation may end in the middle of an alignment unit. */
  size_t taken = ist_arena_round(bytes);
  if (taken > a->cap - a->used) taken = a->cap - a->used;
  a->used += taken;
  if (a->used > a->peak) a->peak = a->used;
  UNPOISON(p, bytes);
  return p;
}

void ist_arena_reset(ist_arena *a, size_t mark) {
  IST_ASSERT(mark <= a->used);
  POISON(a->base + mark, a->used - mark);
  a->used = mark;
}
