#include "train/metrics.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"

static ist_status io_error(const char *what, const char *path, ist_error *err) {
  return ist_fail(err, IST_ERR_IO, "cannot %s '%s': %s", what, path, strerror(errno));
}

/* Where the last line of the file's first `size` bytes ends. */
static int64_t end_of_lines(int fd, int64_t size) {
  char piece[4096];
  while (size > 0) {
    int64_t n = size < (int64_t)sizeof piece ? size : (int64_t)sizeof piece;
    if (pread(fd, piece, (size_t)n, size - n) != n) return size;
    for (int64_t i = n; i > 0; i--)
      if (piece[i - 1] == '\n') return size - n + i;
    size -= n;
  }
  return 0;
}

/* Cuts the file to `keep` bytes, or to the whole lines there are, and stands at its end. */
static ist_status cut(int fd, const char *path, int64_t *keep, ist_error *err) {
  struct stat st;
  if (fstat(fd, &st) != 0) return io_error("read", path, err);
  if (!S_ISREG(st.st_mode))
    return ist_fail(err, IST_ERR_IO, "cannot write '%s': it is there and not a regular file", path);
  if (st.st_size < *keep)
    ist_log(IST_LOG_WARN,
            "'%s' has %" PRId64 " bytes, expected %" PRId64 ": lines of earlier steps are lost",
            path, (int64_t)st.st_size, *keep);
  if (*keep < 0 || st.st_size < *keep) *keep = end_of_lines(fd, st.st_size);
  if (ftruncate(fd, *keep) != 0 || lseek(fd, *keep, SEEK_SET) < 0)
    return io_error("cut", path, err);
  return IST_OK;
}

ist_status ist_metrics_open(ist_metrics *m, const char *path, int64_t keep, ist_error *err) {
  *m = (ist_metrics){0};
  int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (fd < 0) return io_error("open", path, err);
  ist_status status = cut(fd, path, &keep, err);
  char *copy = status == IST_OK ? ist_strdup(path) : NULL;
  if (status == IST_OK && !copy) status = ist_fail_nomem(err, path, strlen(path) + 1);
  if (status != IST_OK) {
    close(fd);
    return status;
  }
  *m = (ist_metrics){.fd = fd, .bytes = keep, .path = copy};
  return IST_OK;
}

static ist_status write_all(ist_metrics *m, const char *p, size_t len, ist_error *err) {
  while (len > 0) {
    ssize_t n = ist_write_fails() ? -1 : write(m->fd, p, len);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return io_error("write", m->path, err);
    p += n;
    len -= (size_t)n;
    m->bytes += n;
  }
  return IST_OK;
}

ist_status ist_metrics_line(ist_metrics *m, const json_t *object, ist_error *err) {
  char *text = json_dumps(object, JSON_COMPACT | JSON_REAL_PRECISION(17));
  if (!text) return ist_fail_nomem(err, m->path, 0);
  /* In one write: a line is there whole or not at all, as far as the system allows. */
  ist_buf line = {0};
  ist_buf_str(&line, text);
  ist_buf_str(&line, "\n");
  free(text);
  ist_status status =
      line.failed ? ist_fail_nomem(err, m->path, line.len) : write_all(m, line.p, line.len, err);
  ist_buf_free(&line);
  return status;
}

ist_status ist_metrics_sync(const ist_metrics *m, ist_error *err) {
  if (!ist_write_fails() && fdatasync(m->fd) == 0) return IST_OK;
  return io_error("sync", m->path, err);
}

int64_t ist_metrics_size(const ist_metrics *m) {
  return m->bytes;
}

void ist_metrics_close(ist_metrics *m) {
  if (!m->path) return;
  close(m->fd);
  ist_free(m->path);
  *m = (ist_metrics){0};
}
