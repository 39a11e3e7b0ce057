/* Where the tokens of samples are: in memory while they are few, else in a file
 * without a name that is mapped, so that data larger than memory is read from
 * disk as it is wanted. */
#ifndef IST_DATA_STORE_H
#define IST_DATA_STORE_H

#include "base/error.h"

struct ist_sample;

typedef struct ist_store {
  const char *folder; /* of the file; borrowed; NULL: all stays in memory */
  int64_t limit;      /* bytes kept in memory before the file is begun */
  int64_t held;       /* bytes in memory */
  int64_t written;    /* bytes in the file */
  int fd;             /* of the file where `written` > 0 */
  unsigned char *map;
} ist_store;

/* Takes over the block of a sample (ids, then mask, from ist_calloc). What went to
 * the file has `stored` set and no address until ist_store_map. */
ist_status ist_store_take(ist_store *s, struct ist_sample *sample, ist_error *err);
/* Maps the file and gives its samples their addresses. */
ist_status ist_store_map(ist_store *s, struct ist_sample *samples, int64_t n, ist_error *err);
/* Takes the pages of the file out of memory; they are read again when wanted. */
void ist_store_forget(const ist_store *s);
void ist_store_close(ist_store *s);

#endif
