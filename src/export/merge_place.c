/* A finished folder's files are moved to where they belong. Nothing is replaced unasked, and what
 * was there is lost only when all that is new is in its place: it is set aside in the finished
 * folder first, and moved back where anything fails. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "export/merge.h"

/* Names of files, each with a '.' before it: what a file that is set aside is called. */
typedef struct names {
  char **p;
  int64_t n, cap;
} names;

static void free_names(names *list) {
  for (int64_t i = 0; i < list->n; i++) ist_free(list->p[i]);
  ist_free(list->p);
}

static bool holds(const names *list, const char *name) {
  for (int64_t i = 0; i < list->n; i++)
    if (strcmp(list->p[i] + 1, name) == 0) return true;
  return false;
}

/* Weights that an earlier merge left would be read with the new ones, or in their place. */
static bool is_weights(const char *name) {
#define FIVE "[0-9][0-9][0-9][0-9][0-9]"
  return strcmp(name, "model.safetensors") == 0 ||
         strcmp(name, "model.safetensors.index.json") == 0 ||
         fnmatch("model-" FIVE "-of-" FIVE ".safetensors", name, 0) == 0;
#undef FIVE
}

/* The files of `dir`; where `beside` is given, those that cannot stay beside its files and
 * config.json. No such folder: none. */
static ist_status list_files(names *out, const char *dir, const names *beside, ist_error *err) {
  DIR *d = opendir(dir);
  if (!d && errno == ENOENT) return IST_OK;
  if (!d) return ist_fail(err, IST_ERR_IO, "cannot open '%s': %s", dir, strerror(errno));
  ist_status s = IST_OK;
  const struct dirent *e;
  while (s == IST_OK && (e = readdir(d))) {
    if (e->d_name[0] == '.') continue;
    if (beside && !holds(beside, e->d_name) && !is_weights(e->d_name) &&
        strcmp(e->d_name, "config.json") != 0)
      continue;
    ist_buf name = {0};
    s = ist_grow(&out->p, &out->cap, out->n + 1, sizeof *out->p, err);
    ist_buf_printf(&name, ".%s", e->d_name);
    if (s == IST_OK && name.failed) s = ist_fail_nomem(err, dir, strlen(e->d_name) + 2);
    if (s == IST_OK)
      out->p[out->n++] = name.p;
    else
      ist_buf_free(&name);
  }
  closedir(d);
  return s;
}

/* What must leave `dir` for the files `fresh`; it may be replaced, or an error names it. */
static ist_status find_old(names *out, const char *dir, const names *fresh, bool overwrite,
                           ist_error *err) {
  IST_TRY(list_files(out, dir, fresh, err));
  for (int64_t i = 0; i < out->n; i++) {
    struct stat st;
    char *path = ist_path_join(dir, out->p[i] + 1);
    if (!path) return ist_fail_nomem(err, dir, strlen(out->p[i]));
    ist_status s = IST_OK;
    if (lstat(path, &st) == 0 && !S_ISREG(st.st_mode) && !S_ISLNK(st.st_mode)) {
      s = ist_fail(err, IST_ERR_IO, "cannot write '%s': it is there and not a regular file", path);
    } else if (!overwrite) {
      s = ist_fail(err, IST_ERR_IO, "%s: is there already", path);
      ist_hint(err, "--overwrite replaces it");
    }
    ist_free(path);
    IST_TRY(s);
  }
  return IST_OK;
}

ist_status ist_merge_check_place(const char *temp, const char *dir, bool overwrite,
                                 ist_error *err) {
  names fresh = {0}, old = {0};
  ist_status s = list_files(&fresh, temp, NULL, err);
  if (s == IST_OK) s = find_old(&old, dir, &fresh, overwrite, err);
  free_names(&fresh);
  free_names(&old);
  return s;
}

/* A folder, and whether the names there are those of files set aside. */
typedef struct side {
  int fd;
  bool aside;
} side;

/* Moves the first `count` of the names; returns how many were: errno says why not all. */
static int64_t move(const names *list, int64_t count, side from, side to) {
  for (int64_t i = 0; i < count; i++)
    if (ist_write_fails() ||
        renameat(from.fd, list->p[i] + !from.aside, to.fd, list->p[i] + !to.aside) != 0)
      return i;
  return count;
}

/* Some file systems cannot. */
static bool sync_names(int fd) {
  return !ist_write_fails() && (fsync(fd) == 0 || errno == EINVAL || errno == ENOTSUP);
}

/* Everything, or nothing; 0 or the error's number. *back: what was there is there again. */
static int exchange(const names *fresh, const names *old, int temp, int dir, bool *back) {
  const side made = {temp, false}, aside = {temp, true}, place = {dir, false};
  const int64_t left = move(old, old->n, place, aside);
  const int64_t came = left == old->n ? move(fresh, fresh->n, made, place) : 0;
  *back = true;
  if (left == old->n && came == fresh->n && sync_names(dir)) {
    for (int64_t i = 0; i < old->n; i++) unlinkat(temp, old->p[i], 0);
    return 0;
  }
  int number = errno;
  *back = move(fresh, came, place, made) == came && move(old, left, aside, place) == left;
  return number;
}

ist_status ist_merge_place(const char *temp, const char *dir, bool overwrite, ist_error *err) {
  names fresh = {0}, old = {0};
  bool back = true;
  int from = open(temp, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  int to = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  ist_status s = IST_OK;
  if (from < 0 || to < 0)
    s = ist_fail(err, IST_ERR_IO, "cannot open '%s': %s", from < 0 ? temp : dir, strerror(errno));
  if (s == IST_OK) s = list_files(&fresh, temp, NULL, err);
  if (s == IST_OK) s = find_old(&old, dir, &fresh, overwrite, err);
  int number = s == IST_OK ? exchange(&fresh, &old, from, to, &back) : 0;
  if (number)
    s = ist_fail(err, IST_ERR_IO, "cannot move the files of '%s' to '%s': %s", temp, dir,
                 strerror(number));
  if (!back)
    ist_hint(err, "files that are missing there are in '%s', with a '.' before them", temp);
  if (from >= 0) close(from);
  if (to >= 0) close(to);
  free_names(&fresh);
  free_names(&old);
  ist_error ignored;
  if (back) ist_remove_tree(temp, &ignored);
  return s;
}
