/* What is being written under a temporary name: a table of fixed size that a signal handler
 * can read. A name that finds no room is not listed, and outlives a signal. */
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/file.h"
#include "ist.h"

enum { NAMES = 16, NAME_BYTES = 4096 };

typedef struct entry {
  atomic_bool used; /* set last, cleared first */
  char path[NAME_BYTES];
} entry;

static entry table[NAMES];
static pthread_mutex_t writing = PTHREAD_MUTEX_INITIALIZER;

void ist_unfinished_add(const char *path) {
  size_t len = strlen(path);
  if (len >= NAME_BYTES) return;
  pthread_mutex_lock(&writing);
  for (int i = 0; i < NAMES; i++) {
    if (atomic_load(&table[i].used)) continue;
    memcpy(table[i].path, path, len + 1);
    atomic_store(&table[i].used, true);
    break;
  }
  pthread_mutex_unlock(&writing);
}

void ist_unfinished_remove(const char *path) {
  pthread_mutex_lock(&writing);
  for (int i = 0; i < NAMES; i++) {
    if (atomic_load(&table[i].used) && strcmp(table[i].path, path) == 0)
      atomic_store(&table[i].used, false);
  }
  pthread_mutex_unlock(&writing);
}

/* The files of a flat folder; readdir may not be called in a handler, the system's call may. */
static void discard_files(int folder) {
  struct record { /* of getdents64(2) */
    uint64_t inode;
    int64_t next;
    uint16_t len;
    unsigned char type;
    char name[];
  };
  _Alignas(struct record) char records[4096];
  for (;;) {
    long n = syscall(SYS_getdents64, folder, records, sizeof records);
    if (n <= 0) return;
    for (long at = 0; at < n;) {
      const struct record *r = (const struct record *)(const void *)(records + at);
      unlinkat(folder, r->name, 0); /* "." and ".." are refused */
      at += r->len;
    }
  }
}

void ist_discard_unfinished(void) {
  for (int i = 0; i < NAMES; i++) {
    if (!atomic_load(&table[i].used)) continue;
    const char *path = table[i].path;
    int folder = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (folder < 0) {
      unlink(path);
      continue;
    }
    discard_files(folder);
    close(folder);
    rmdir(path);
  }
}
