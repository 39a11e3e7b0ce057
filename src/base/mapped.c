/* Which file is mapped where: a table of fixed size that a signal handler can read. A
 * map that finds no room is not listed; its loss is then told without a name. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#include "base/file.h"
#include "ist.h"

enum { MAPS = 64, PATH_BYTES = 512 };

typedef struct entry {
  _Atomic(const unsigned char *) p; /* NULL: free; set last, cleared first */
  size_t size;
  char path[PATH_BYTES];
} entry;

static entry table[MAPS];
static pthread_mutex_t writing = PTHREAD_MUTEX_INITIALIZER;

void ist_mapped_add(const ist_map *m, const char *path) {
  pthread_mutex_lock(&writing);
  for (int i = 0; i < MAPS; i++) {
    if (atomic_load(&table[i].p)) continue;
    table[i].size = m->size;
    snprintf(table[i].path, PATH_BYTES, "%s", path);
    ist_sanitise(table[i].path); /* the handler writes it as it stands */
    atomic_store(&table[i].p, m->p);
    break;
  }
  pthread_mutex_unlock(&writing);
}

void ist_mapped_remove(const ist_map *m) {
  pthread_mutex_lock(&writing);
  for (int i = 0; m->p && i < MAPS; i++) {
    if (atomic_load(&table[i].p) == m->p) atomic_store(&table[i].p, NULL);
  }
  pthread_mutex_unlock(&writing);
}

const char *ist_mapped_path(const void *address) {
  const unsigned char *at = address;
  for (int i = 0; i < MAPS; i++) {
    const unsigned char *p = atomic_load(&table[i].p);
    if (p && at >= p && at < p + table[i].size) return table[i].path;
  }
  return NULL;
}

const char *ist_lost_file(const void *address) {
  return ist_mapped_path(address);
}
