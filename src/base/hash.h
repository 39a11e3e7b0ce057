/* Hashes for tables in memory. They are keyed by a random number of the process, so that no file
 * can hold names that all fall on one place. Nothing that is written, shown or ordered may depend
 * on them. */
#ifndef IST_BASE_HASH_H
#define IST_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

uint64_t ist_hash_key(void);
uint64_t ist_hash(uint64_t key, const void *p, size_t len);

#endif
