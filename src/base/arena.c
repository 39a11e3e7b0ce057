#include "base/arena.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/poison.h"

/* What is not allocated is poisoned, so that a pointer kept across a reset or an overrun of the
 * rounding is caught. */
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
  IST_POISON(a->base, a->cap);
  return IST_OK;
}

/* A file of `bytes` that has no name and goes with the process. */
static ist_status open_unnamed(int *fd, size_t bytes, const char *name, const char *dir,
                               ist_error *err) {
  *fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (*fd < 0)
    return ist_fail(err, IST_ERR_IO, "%s: cannot make a scratch file for %s: %s", dir, name,
                    strerror(errno));
  int problem = posix_fallocate(*fd, 0, (off_t)bytes);
  if (problem == 0) return IST_OK;
  close(*fd);
  return ist_fail(err, IST_ERR_IO, "%s: cannot reserve %zu bytes of disk for %s: %s", dir, bytes,
                  name, strerror(problem));
}

ist_status ist_arena_init_on_disk(ist_arena *a, const char *name, size_t bytes, const char *dir,
                                  ist_error *err) {
  *a = (ist_arena){.name = name, .on_disk = true};
  if (bytes == 0) return IST_OK;
  int fd;
  IST_TRY(open_unnamed(&fd, bytes, name, dir, err));
  void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close(fd); /* the mapping keeps the file */
  if (p == MAP_FAILED)
    return ist_fail(err, IST_ERR_NOMEM, "out of memory: %zu bytes of addresses for the arena '%s'",
                    bytes, name);
  a->base = p;
  a->cap = bytes;
  return IST_OK;
}

void ist_arena_drop(const ist_arena *a, const void *p, size_t bytes) {
  IST_ASSERT(a->on_disk);
  ist_pages_drop(p, bytes);
}

void ist_pages_drop(const void *p, size_t bytes) {
  uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE),
            begin = ((uintptr_t)p + page - 1) & ~(page - 1);
  uintptr_t end = ((uintptr_t)p + bytes) & ~(page - 1);
  if (end > begin) madvise((void *)begin, end - begin, MADV_DONTNEED);
}

void ist_pages_want(const void *p, size_t bytes) {
  uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), begin = (uintptr_t)p & ~(page - 1);
  madvise((void *)begin, (uintptr_t)p + bytes - begin, MADV_WILLNEED);
}

void ist_arena_free(ist_arena *a) {
  if (a->base) {
    IST_UNPOISON(a->base, a->cap);
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
  IST_UNPOISON(p, bytes);
  return p;
}

void ist_arena_reset(ist_arena *a, size_t mark) {
  IST_ASSERT(mark <= a->used);
  if (!a->on_disk) IST_POISON(a->base + mark, a->used - mark);
  a->used = mark;
}
