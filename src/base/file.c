#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/poison.h"

static ist_status fail_errno(ist_error *err, const char *what, const char *path, int number) {
  char reason[128];
  const char *text = strerror_r(number, reason, sizeof reason); /* GNU form */
  return ist_fail(err, number == ENOMEM ? IST_ERR_NOMEM : IST_ERR_IO, "cannot %s '%s': %s", what,
                  path, text);
}

/* ---- Reading ---- */

/* Opens a regular file; *size (may be NULL) is its length. O_NONBLOCK: a FIFO must be refused, not
 * waited for. */
static ist_status open_regular(int *fd, off_t *size, const char *path, ist_error *err) {
  struct stat st;
  *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (*fd < 0) return fail_errno(err, "open", path, errno);
  ist_status status = IST_OK;
  if (fstat(*fd, &st) != 0)
    status = fail_errno(err, "read", path, errno);
  else if (!S_ISREG(st.st_mode))
    status = ist_fail(err, IST_ERR_IO, "cannot read '%s': it is %s, expected a regular file", path,
                      S_ISDIR(st.st_mode) ? "a directory" : "a device or pipe");
  else if (size)
    *size = st.st_size;
  if (status != IST_OK) close(*fd);
  return status;
}

/* Bytes from the end of a map of `size` to the end of its last page: the system fills them with
 * zeros, and a read behind the end of the file would go unnoticed. */
static size_t behind(size_t size) {
  size_t page = (size_t)sysconf(_SC_PAGESIZE);
  return (page - size % page) % page;
}

ist_status ist_map_open(ist_map *m, const char *path, ist_error *err) {
  *m = (ist_map){0};
  int fd;
  off_t size = 0;
  IST_TRY(open_regular(&fd, &size, path, err));
  ist_status status = IST_OK;
  void *p = size ? mmap(NULL, (size_t)size, PROT_READ, MAP_PRIVATE, fd, 0) : NULL;
  if (size == 0) {
    status = ist_fail(err, IST_ERR_FORMAT, "'%s' is empty", path);
  } else if (p == MAP_FAILED) {
    status = fail_errno(err, "map", path, errno);
  } else {
    m->p = p;
    m->size = (size_t)size;
    IST_POISON(m->p + m->size, behind(m->size));
    ist_mapped_add(m, path);
  }
  close(fd);
  return status;
}

void ist_map_close(ist_map *m) {
  ist_mapped_remove(m);
  if (m->p) {
    IST_UNPOISON(m->p + m->size, behind(m->size));
    munmap((void *)(uintptr_t)m->p, m->size);
  }
  *m = (ist_map){0};
}

/* Reads to the end; one byte more than `limit` is enough to know it is too long. */
static ist_status read_all(ist_buf *out, int fd, const char *path, size_t limit, ist_error *err) {
  char chunk[65536];
  for (;;) {
    ssize_t n = read(fd, chunk, sizeof chunk);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno(err, "read", path, errno);
    if (n == 0) break;
    if ((size_t)n > limit - out->len)
      return ist_fail(err, IST_ERR_FORMAT, "'%s' is too long: expected at most %zu bytes", path,
                      limit);
    ist_buf_add(out, chunk, (size_t)n);
    if (out->failed) return ist_fail_nomem(err, path, out->len);
  }
  ist_buf_add(out, "", 0);
  return out->failed ? ist_fail_nomem(err, path, 1) : IST_OK;
}

ist_status ist_file_read(ist_buf *out, const char *path, size_t limit, ist_error *err) {
  ist_buf_clear(out);
  int fd;
  IST_TRY(open_regular(&fd, NULL, path, err));
  ist_status status = read_all(out, fd, path, limit, err);
  close(fd);
  return status;
}

ist_status ist_file_read_any(ist_buf *out, const char *path, size_t limit, ist_error *err) {
  ist_buf_clear(out);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return fail_errno(err, "open", path, errno);
  ist_status status = read_all(out, fd, path, limit, err);
  close(fd);
  return status;
}

const unsigned char *ist_read_bytes(ist_cursor *c, uint64_t n) {
  if (c->failed || n > c->size - c->at) {
    c->failed = true;
    return NULL;
  }
  const unsigned char *p = c->p + c->at;
  c->at += (size_t)n;
  return p;
}

/* Little-endian on every machine. */
static uint64_t read_le(ist_cursor *c, int bytes) {
  const unsigned char *p = ist_read_bytes(c, (uint64_t)bytes);
  uint64_t v = 0;
  for (int i = 0; p && i < bytes; i++) v |= (uint64_t)p[i] << (8 * i);
  return v;
}

uint8_t ist_read_u8(ist_cursor *c) {
  return (uint8_t)read_le(c, 1);
}
uint16_t ist_read_u16(ist_cursor *c) {
  return (uint16_t)read_le(c, 2);
}
uint32_t ist_read_u32(ist_cursor *c) {
  return (uint32_t)read_le(c, 4);
}
uint64_t ist_read_u64(ist_cursor *c) {
  return read_le(c, 8);
}

/* ---- Atomic writing ---- */

enum { FLUSH_AT = 1 << 18 };

static atomic_int_fast64_t until_failure;

uint64_t ist_write_fail_at(uint64_t n) {
  return (uint64_t)atomic_exchange(&until_failure, (int_fast64_t)n);
}

bool ist_write_fails(void) {
  if (atomic_load(&until_failure) <= 0 || atomic_fetch_sub(&until_failure, 1) != 1) return false;
  errno = ENOSPC;
  return true;
}

/* Creates a new temporary file beside `path`; a name left by a dead process of
 * the same number is passed over. */
static int create_temp(ist_buf *name, const char *path) {
  for (int attempt = 0; attempt < 100; attempt++) {
    ist_buf_clear(name);
    ist_buf_printf(name, "%s.tmp-%ld", path, (long)getpid());
    if (attempt > 0) ist_buf_printf(name, ".%d", attempt);
    if (name->failed) {
      errno = ENOMEM;
      return -1;
    }
    ist_unfinished_add(name->p); /* before it is there: a signal may come at once */
    int fd = open(name->p, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd >= 0) return fd;
    int number = errno;
    ist_unfinished_remove(name->p);
    errno = number;
    if (number != EEXIST) return -1;
  }
  return -1;
}

/* Makes the names in the directory of `path` durable; 0 or the error's number. Some file
 * systems cannot, nor can who may write in a directory and not read it. */
static int sync_directory_of(const char *path) {
  if (ist_write_fails()) return errno;
  const char *slash = strrchr(path, '/');
  char *dir = !slash          ? ist_strdup(".")
              : slash == path ? ist_strdup("/")
                              : ist_strndup(path, (size_t)(slash - path));
  if (!dir) return ENOMEM;
  int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  ist_free(dir);
  if (fd < 0) return errno == EACCES ? 0 : errno;
  int number = fsync(fd) != 0 && errno != EINVAL && errno != ENOTSUP ? errno : 0;
  close(fd);
  return number;
}

ist_status ist_wfile_open(ist_wfile *f, const char *path, ist_error *err) {
  *f = (ist_wfile){.fd = -1};
  struct stat st;
  /* The rename at the end would replace a device node or pipe. */
  if (stat(path, &st) == 0 && !S_ISREG(st.st_mode))
    return ist_fail(err, IST_ERR_IO, "cannot write '%s': it is there and not a regular file", path);
  char *copy = ist_strdup(path);
  if (!copy) return ist_fail_nomem(err, "a file name", strlen(path) + 1);
  ist_buf name = {0};
  int fd = create_temp(&name, path);
  if (fd < 0) {
    ist_status status = fail_errno(err, "create", path, errno);
    ist_buf_free(&name);
    ist_free(copy);
    return status;
  }
  *f = (ist_wfile){.fd = fd, .path = copy, .temp = name.p};
  return IST_OK;
}

static void write_through(ist_wfile *f, const char *p, size_t len) {
  while (len > 0 && !f->saved_errno) {
    ssize_t n = ist_write_fails() ? -1 : write(f->fd, p, len);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      f->saved_errno = errno;
      return;
    }
    p += n;
    len -= (size_t)n;
  }
}

static void flush(ist_wfile *f) {
  write_through(f, f->pending.p, f->pending.len);
  ist_buf_clear(&f->pending);
}

void ist_wfile_write(ist_wfile *f, const void *bytes, size_t len) {
  if (f->saved_errno) return;
  f->size += (int64_t)len;
  if (f->pending.len + len >= FLUSH_AT) flush(f);
  if (len >= FLUSH_AT) {
    write_through(f, bytes, len);
    return;
  }
  ist_buf_add(&f->pending, bytes, len);
  if (f->pending.failed) f->saved_errno = ENOMEM;
}

void ist_wfile_printf(ist_wfile *f, const char *fmt, ...) {
  if (f->saved_errno) return;
  size_t before = f->pending.len;
  va_list args;
  va_start(args, fmt);
  ist_buf_vprintf(&f->pending, fmt, args);
  va_end(args);
  if (f->pending.failed) f->saved_errno = ENOMEM;
  f->size += (int64_t)(f->pending.len - before);
  if (f->pending.len >= FLUSH_AT) flush(f);
}

ist_status ist_wfile_commit(ist_wfile *f, ist_error *err) {
  IST_ASSERT(f->temp);
  flush(f);
  if (!f->saved_errno && (ist_write_fails() || fsync(f->fd) != 0)) f->saved_errno = errno;
  if (close(f->fd) != 0 && !f->saved_errno) f->saved_errno = errno;
  f->fd = -1;
  ist_status status = IST_OK;
  if (f->saved_errno) {
    status = fail_errno(err, "write", f->path, f->saved_errno);
  } else if (ist_write_fails() || rename(f->temp, f->path) != 0) {
    status = fail_errno(err, "rename to", f->path, errno);
  } else {
    ist_unfinished_remove(f->temp);
    ist_free(f->temp);
    f->temp = NULL;
    int number = sync_directory_of(f->path);
    if (number) status = fail_errno(err, "sync the directory of", f->path, number);
  }
  ist_wfile_close(f);
  return status;
}

void ist_wfile_close(ist_wfile *f) {
  /* `path` tells an open file from a zeroed struct, whose fd is 0. */
  if (!f->path) return;
  if (f->fd >= 0) close(f->fd);
  if (f->temp) {
    unlink(f->temp);
    ist_unfinished_remove(f->temp);
  }
  ist_free(f->path);
  ist_free(f->temp);
  ist_buf_free(&f->pending);
  *f = (ist_wfile){.fd = -1};
}

ist_status ist_file_write(const char *path, const void *bytes, size_t len, ist_error *err) {
  ist_wfile f;
  IST_TRY(ist_wfile_open(&f, path, err));
  ist_wfile_write(&f, bytes, len);
  return ist_wfile_commit(&f, err);
}

/* ---- Paths ---- */

static ist_status make_one(const char *path, ist_error *err) {
  int number = ist_write_fails() || mkdir(path, 0777) != 0 ? errno : 0;
  if (!number) {
    number = sync_directory_of(path);
    return number ? fail_errno(err, "sync the directory of", path, number) : IST_OK;
  }
  struct stat st;
  if (stat(path, &st) == 0 && S_ISDIR(st.st_mode)) return IST_OK;
  if (number == EEXIST)
    return ist_fail(err, IST_ERR_IO,
                    "cannot create the directory '%s': it is there and not a directory", path);
  return fail_errno(err, "create the directory", path, number);
}

ist_status ist_mkdirs(const char *path, ist_error *err) {
  char *copy = ist_strdup(path);
  if (!copy) return ist_fail_nomem(err, "a path", strlen(path) + 1);
  ist_status status = IST_OK;
  for (char *p = copy + (*copy != 0); *p && status == IST_OK; p++) {
    if (*p != '/') continue;
    *p = 0;
    status = make_one(copy, err);
    *p = '/';
  }
  if (status == IST_OK) status = make_one(copy, err);
  ist_free(copy);
  return status;
}

ist_status ist_directory_lock(int *fd, const char *path, ist_error *err) {
  *fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (*fd < 0) return fail_errno(err, "open", path, errno);
  if (flock(*fd, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK) return IST_OK;
  close(*fd);
  *fd = -1;
  return ist_fail(err, IST_ERR_IO, "'%s' is in use: found another run that writes into it", path);
}

bool ist_file_exists(const char *path) {
  struct stat st;
  return stat(path, &st) == 0;
}

char *ist_path_join(const char *dir, const char *name) {
  size_t len = strlen(dir);
  ist_buf b = {0};
  ist_buf_str(&b, dir);
  if (len && dir[len - 1] != '/') ist_buf_str(&b, "/");
  ist_buf_str(&b, name);
  if (!b.failed) return b.p;
  ist_buf_free(&b);
  return NULL;
}

ist_status ist_remove_file(const char *path, ist_error *err) {
  if (unlink(path) == 0 || errno == ENOENT) return IST_OK;
  return fail_errno(err, "remove", path, errno);
}

static ist_status remove_children(const char *path, ist_error *err) {
  DIR *d = opendir(path);
  if (!d) return fail_errno(err, "open", path, errno);
  ist_status status = IST_OK;
  const struct dirent *e;
  while (status == IST_OK && (e = readdir(d))) {
    if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
    char *child = ist_path_join(path, e->d_name);
    status = child ? ist_remove_tree(child, err) : ist_fail_nomem(err, "a path", PATH_MAX);
    ist_free(child);
  }
  closedir(d);
  return status;
}

ist_status ist_remove_tree(const char *path, ist_error *err) {
  struct stat st;
  if (lstat(path, &st) != 0)
    return errno == ENOENT ? IST_OK : fail_errno(err, "remove", path, errno);
  if (S_ISDIR(st.st_mode)) {
    IST_TRY(remove_children(path, err));
    return rmdir(path) == 0 ? IST_OK : fail_errno(err, "remove", path, errno);
  }
  if (!S_ISREG(st.st_mode))
    return ist_fail(err, IST_ERR_IO, "will not remove '%s': expected a regular file or directory",
                    path);
  return ist_remove_file(path, err);
}
