#include "data/store.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/arena.h"
#include "data/data.h"

static size_t block_bytes(const ist_sample *sample) {
  return (size_t)sample->n * (sizeof(int32_t) + 1);
}

/* Blocks in the file begin where an int32_t may. */
static int64_t aligned(int64_t bytes) {
  return (bytes + 3) & ~(int64_t)3;
}

static ist_status begin_file(ist_store *s, ist_error *err) {
  s->fd = open(s->folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (s->fd >= 0) return IST_OK;
  return ist_fail(err, IST_ERR_IO, "%s: cannot make a scratch file for training samples: %s",
                  s->folder, strerror(errno));
}

static ist_status write_block(ist_store *s, const void *block, size_t bytes, ist_error *err) {
  for (size_t done = 0; done < bytes;) {
    ssize_t n = pwrite(s->fd, (const char *)block + done, bytes - done,
                       (off_t)(s->written + (int64_t)done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0)
      return ist_fail(err, IST_ERR_IO, "%s: cannot write training samples: %s", s->folder,
                      strerror(errno));
    done += (size_t)n;
  }
  return IST_OK;
}

ist_status ist_store_take(ist_store *s, ist_sample *sample, ist_error *err) {
  size_t bytes = block_bytes(sample);
  if (!s->folder || s->held + (int64_t)bytes <= s->limit) {
    s->held += (int64_t)bytes;
    return IST_OK;
  }
  if (s->written == 0) IST_TRY(begin_file(s, err));
  ist_status status = write_block(s, sample->ids, bytes, err);
  if (status != IST_OK && s->written == 0) close(s->fd); /* there is no file yet */
  IST_TRY(status);
  ist_free(sample->ids);
  sample->stored = true;
  sample->ids = NULL;
  s->written += aligned((int64_t)bytes);
  return IST_OK;
}

ist_status ist_store_map(ist_store *s, ist_sample *samples, int64_t n, ist_error *err) {
  if (s->written == 0) return IST_OK;
  if (ftruncate(s->fd, (off_t)s->written) < 0)
    return ist_fail(err, IST_ERR_IO, "%s: cannot write training samples: %s", s->folder,
                    strerror(errno));
  void *p = mmap(NULL, (size_t)s->written, PROT_READ, MAP_SHARED, s->fd, 0);
  if (p == MAP_FAILED)
    return ist_fail(err, IST_ERR_NOMEM, "out of memory: %lld bytes of addresses for samples",
                    (long long)s->written);
  s->map = p;
  int64_t at = 0;
  for (int64_t i = 0; i < n; i++) {
    if (!samples[i].stored) continue;
    samples[i].ids = (int32_t *)(void *)(s->map + at); /* read-only */
    samples[i].mask = s->map + at + (size_t)samples[i].n * sizeof(int32_t);
    at += aligned((int64_t)block_bytes(&samples[i]));
  }
  return IST_OK;
}

void ist_store_forget(const ist_store *s) {
  if (s->map) ist_pages_drop(s->map, (size_t)s->written);
}

void ist_store_close(ist_store *s) {
  if (s->map) munmap(s->map, (size_t)s->written);
  if (s->written > 0) close(s->fd);
  *s = (ist_store){0};
}
