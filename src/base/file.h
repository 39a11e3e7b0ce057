/* Files: read-only maps, a bounds-checked cursor, atomic writes. */
#ifndef IST_BASE_FILE_H
#define IST_BASE_FILE_H

#include "base/error.h"
#include "base/mem.h"

/* A whole file mapped read-only and private. */
typedef struct ist_map {
  const unsigned char *p;
  size_t size;
} ist_map;
/* Refuses directories, devices and empty files with an error that names `path`. */
ist_status ist_map_open(ist_map *m, const char *path, ist_error *err);
void ist_map_close(ist_map *m);

/* The maps that are open, for handlers of SIGBUS (mapped.c): the path of the file whose
 * map holds `address`, or NULL. May be called in a signal handler. */
const char *ist_mapped_path(const void *address);
void ist_mapped_add(const ist_map *m, const char *path);
void ist_mapped_remove(const ist_map *m);

/* The temporary files and folders that are being written, for handlers of signals
 * (unfinished.c, ist_discard_unfinished); the folders hold files only. */
void ist_unfinished_add(const char *path);
void ist_unfinished_remove(const char *path);

/* Reads `path` whole into `out` (NUL after the end); at most `limit` bytes. Refuses what is no
 * regular file: a pipe in a folder from elsewhere would keep us waiting. */
ist_status ist_file_read(ist_buf *out, const char *path, size_t limit, ist_error *err);
/* The same for a path that the user named, which may be a pipe or /dev/stdin. */
ist_status ist_file_read_any(ist_buf *out, const char *path, size_t limit, ist_error *err);

/* The bounds-checked reader that every binary format goes through.
 * A read past the end sets `failed` and yields zero; check once per record. */
typedef struct ist_cursor {
  const unsigned char *p;
  size_t size, at;
  bool failed;
} ist_cursor;
uint8_t ist_read_u8(ist_cursor *c);
uint16_t ist_read_u16(ist_cursor *c);
uint32_t ist_read_u32(ist_cursor *c);
uint64_t ist_read_u64(ist_cursor *c);
/* A pointer to `n` bytes, borrowed from the map, or NULL with `failed` set. */
const unsigned char *ist_read_bytes(ist_cursor *c, uint64_t n);

/* A file written beside its final name, synced and renamed by commit. Errors
 * stick; commit reports the first. Close without commit removes it. */
typedef struct ist_wfile {
  int fd;
  char *path, *temp;
  ist_buf pending;
  int64_t size; /* bytes written so far: the offset of the next one */
  int saved_errno;
} ist_wfile;
ist_status ist_wfile_open(ist_wfile *f, const char *path, ist_error *err);
void ist_wfile_write(ist_wfile *f, const void *bytes, size_t len);
void ist_wfile_printf(ist_wfile *f, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
ist_status ist_wfile_commit(ist_wfile *f, ist_error *err);
void ist_wfile_close(ist_wfile *f); /* discards when not committed; idempotent */

/* Tests: makes the n-th write, sync (of a directory too), rename or new directory from now fail
 * once, as on a full disk; n and result as of ist_alloc_fail_at. ist_write_fails is asked before
 * each. */
uint64_t ist_write_fail_at(uint64_t n);
bool ist_write_fails(void);

/* One call for a small file: open, write, commit. */
ist_status ist_file_write(const char *path, const void *bytes, size_t len, ist_error *err);

/* Creates `path` and its parents (mode 0777 & ~umask), durably; fine if it is there. */
ist_status ist_mkdirs(const char *path, ist_error *err);
/* Takes the directory for this process until the file descriptor *fd is closed; refused
 * where another one holds it. A file system without locks lets everybody in. */
ist_status ist_directory_lock(int *fd, const char *path, ist_error *err);
bool ist_file_exists(const char *path);
/* "dir/name" in fresh memory owned by the caller; NULL when out of memory. */
char *ist_path_join(const char *dir, const char *name);
/* Removes a file or a link, not what it leads to. Fine if it is not there. */
ist_status ist_remove_file(const char *path, ist_error *err);
/* Removes a file or a directory tree that we made (regular files and directories
 * only: anything else inside is an error). Fine if it is not there. */
ist_status ist_remove_tree(const char *path, ist_error *err);

#endif
