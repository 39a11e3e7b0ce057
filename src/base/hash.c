#include "base/hash.h"

#include <stdatomic.h>
#include <sys/random.h>
#include <time.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

uint64_t ist_hash_key(void) {
  static _Atomic uint64_t shared; /* 0: not drawn yet */
  uint64_t key = atomic_load(&shared), none = 0;
  if (key) return key;
  if (getrandom(&key, sizeof key, GRND_NONBLOCK) != sizeof key) {
    /* An early boot or an old system: where the program lies in memory, and the time. */
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    const uint64_t seen[] = {(uint64_t)(uintptr_t)&shared, (uint64_t)(uintptr_t)&now,
                             (uint64_t)now.tv_sec, (uint64_t)now.tv_nsec};
    key = XXH3_64bits(seen, sizeof seen);
  }
  if (!key) key = 1;
  /* Whoever comes second takes the first one's. */
  return atomic_compare_exchange_strong(&shared, &none, key) ? key : none;
}

uint64_t ist_hash(uint64_t key, const void *p, size_t len) {
  return XXH3_64bits_withSeed(p, len, key);
}
