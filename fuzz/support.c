/* Inputs as files: the readers open paths. */
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "fuzz.h"

static char folder[] = "/dev/shm/ist-fuzz-XXXXXX";
static char elsewhere[] = "/tmp/ist-fuzz-XXXXXX";
static char *ours;

static void remove_folder(void) {
  ist_remove_tree(ours, NULL);
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
  (void)argc;
  (void)argv;
  ours = mkdtemp(folder) ? folder : mkdtemp(elsewhere);
  if (!ours) abort();
  atexit(remove_folder);
  ist_set_threads(1);
  return 0;
}

const char *fuzz_folder(void) {
  return ours;
}

static const char *path_of(const char *name) {
  static char path[PATH_MAX];
  snprintf(path, sizeof path, "%s/%s", ours, name);
  return path;
}

const char *fuzz_file(const char *name, const void *bytes, size_t n) {
  const char *path = path_of(name);
  int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0 || (n && write(fd, bytes, n) != (ssize_t)n) || close(fd) != 0) abort();
  return path;
}

void fuzz_no_file(const char *name) {
  unlink(path_of(name));
}

void fuzz_parts(const uint8_t *data, size_t size, fuzz_part *part, int most) {
  static const char mark[] = "\n%%\n";
  const size_t len = sizeof mark - 1;
  for (int i = 0; i < most; i++) {
    part[i] = (fuzz_part){data, size};
    const uint8_t *end = i + 1 < most && size ? memmem(data, size, mark, len) : NULL;
    if (end) {
      part[i].n = (size_t)(end - data);
      size -= part[i].n + len;
      data = end + len;
    } else {
      data = NULL;
      size = 0;
    }
  }
}

void fuzz_part_file(const char *name, fuzz_part part) {
  if (part.p)
    fuzz_file(name, part.p, part.n);
  else
    fuzz_no_file(name);
}

/* Bytes of the JSON object at p, to its closing brace; all n where it has none. */
static size_t object_length(const uint8_t *p, size_t n) {
  int depth = 0;
  bool quoted = false;
  for (size_t i = 0; i < n; i++) {
    if (quoted && p[i] == '\\')
      i++;
    else if (p[i] == '"')
      quoted = !quoted;
    else if (!quoted && p[i] == '{')
      depth++;
    else if (!quoted && p[i] == '}' && --depth <= 0) {
      while (i + 1 < n && p[i + 1] == ' ') i++; /* padding */
      return i + 1;
    }
  }
  return n;
}

uint8_t *fuzz_safetensors(fuzz_part part) {
  if (!part.p) return NULL;
  uint8_t *copy = malloc(part.n + 1);
  if (!copy) abort();
  memcpy(copy, part.p, part.n);
  if (part.n < 9) return copy;
  uint64_t length = object_length(part.p + 8, part.n - 8);
  if (copy[7] == 0)
    memcpy(copy, &length, sizeof length);
  else
    copy[7] = 0;
  return copy;
}

void fuzz_safetensors_file(const char *name, fuzz_part part) {
  uint8_t *copy = fuzz_safetensors(part);
  fuzz_part_file(name, (fuzz_part){copy, part.n});
  free(copy);
}

void fuzz_check(ist_status status, const ist_error *err) {
  if (status == IST_OK) return;
  if (err->message[0] == 0 || err->code != status) abort();
  if (getenv("IST_FUZZ_SHOW")) fprintf(stderr, "%s\n", err->message);
}
