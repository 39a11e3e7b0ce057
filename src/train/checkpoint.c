#include "train/checkpoint.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/arena.h"
#include "base/file.h"
#include "format/json.h"
#include "format/safetensors.h"

#define FOLDER  "checkpoints"
#define TENSORS "state.safetensors"
#define RECORD  "state.json"
#define VERSION 1

/* "RUN/checkpoints/NAME"; NULL when out of memory. */
static char *folder_path(const char *run, const char *name) {
  char *folder = ist_path_join(run, FOLDER);
  char *path = folder ? ist_path_join(folder, name) : NULL;
  ist_free(folder);
  return path;
}

static void step_name(char name[40], int64_t step) {
  snprintf(name, 40, "step-%08" PRId64, step);
}

static char *step_path(const char *run, int64_t step) {
  char name[40];
  step_name(name, step);
  return folder_path(run, name);
}

static ist_status no_memory(ist_error *err) {
  return ist_fail_nomem(err, "a checkpoint", 0);
}

/* ---- Checksums ---- */

void ist_hash_text(char text[IST_CHECKSUM], uint64_t hash) {
  snprintf(text, IST_CHECKSUM, "%016" PRIx64, hash);
}

void ist_checksum(char text[IST_CHECKSUM], const void *p, size_t bytes) {
  ist_hash_text(text, XXH64(p, bytes, 0));
}

/* Page by page out of memory again: a checkpoint may be larger than what is free. */
static ist_status hash_file(const char *path, char text[IST_CHECKSUM], ist_error *err) {
  ist_map map;
  IST_TRY(ist_map_open(&map, path, err));
  XXH64_state_t *state = XXH64_createState();
  if (state) XXH64_reset(state, 0);
  const size_t piece = (size_t)1 << 20;
  for (size_t at = 0; state && at < map.size; at += piece) {
    size_t n = map.size - at < piece ? map.size - at : piece;
    XXH64_update(state, map.p + at, n);
    ist_pages_drop(map.p + at, n);
  }
  if (state) ist_hash_text(text, XXH64_digest(state));
  ist_map_close(&map);
  if (!state) return no_memory(err);
  XXH64_freeState(state);
  return IST_OK;
}

/* Of the record's content, whatever its layout: keys sorted, no spaces. */
static ist_status hash_record(const json_t *record, char text[IST_CHECKSUM], ist_error *err) {
  char *dump = json_dumps(record, JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION(17));
  if (!dump) return no_memory(err);
  ist_checksum(text, dump, strlen(dump));
  free(dump);
  return IST_OK;
}

/* ---- Writing ---- */

static ist_status write_tensors(const char *path, const ist_state *s, ist_error *err) {
  ist_st_item *items = ist_calloc((size_t)s->n, sizeof *items);
  if (!items) return no_memory(err);
  for (int64_t i = 0; i < s->n; i++) {
    const ist_state_item *it = &s->item[i];
    items[i] = (ist_st_item){.name = it->name,
                             .type = it->type,
                             .n_dims = it->n_dims,
                             .data = it->data,
                             .on_disk = it->on_disk};
    memcpy(items[i].shape, it->shape, sizeof it->shape);
  }
  ist_status status = ist_safetensors_write(path, items, s->n, NULL, 0, err);
  ist_free(items);
  return status;
}

static ist_status write_record(const char *path, const char *tensors, json_t *settings,
                               int64_t step, ist_error *err) {
  char tensors_hash[IST_CHECKSUM], record_hash[IST_CHECKSUM];
  IST_TRY(hash_file(tensors, tensors_hash, err));
  json_t *record = json_pack("{s:i, s:I, s:s, s:O}", "version", VERSION, "step", (json_int_t)step,
                             "tensors_xxh64", tensors_hash, "settings", settings);
  if (!record) return no_memory(err);
  char *text = NULL;
  ist_status status = hash_record(record, record_hash, err);
  if (status == IST_OK &&
      json_object_set_new(record, "record_xxh64", json_string(record_hash)) == 0)
    text = json_dumps(record, JSON_INDENT(2) | JSON_REAL_PRECISION(17));
  json_decref(record);
  if (!text) return no_memory(err);
  status = ist_file_write(path, text, strlen(text), err);
  free(text);
  return status;
}

/* The tensors first: a record that is there vouches for them. */
static ist_status write_into(const char *dir, const ist_state *s, json_t *settings, int64_t step,
                             ist_error *err) {
  IST_TRY(ist_mkdirs(dir, err));
  char *tensors = ist_path_join(dir, TENSORS), *record = ist_path_join(dir, RECORD);
  ist_status status = tensors && record ? write_tensors(tensors, s, err) : no_memory(err);
  if (status == IST_OK) status = write_record(record, tensors, settings, step, err);
  ist_free(tensors);
  ist_free(record);
  return status;
}

/* Best effort: some file systems cannot sync a directory. */
static void sync_directory(const char *path) {
  int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  fsync(fd);
  close(fd);
}

static bool is_link(const char *path) {
  struct stat st;
  return lstat(path, &st) == 0 && S_ISLNK(st.st_mode);
}

/* Puts the finished directory in its place. One of the same step is exchanged in one
 * go and then removed, so that there is no moment without a checkpoint. */
static ist_status publish(const char *temp, const char *path, ist_error *err) {
  if (is_link(path)) IST_TRY(ist_remove_file(path, err));
  if (ist_file_exists(path)) {
    if (renameat2(AT_FDCWD, temp, AT_FDCWD, path, RENAME_EXCHANGE) == 0)
      return ist_remove_tree(temp, err);
    IST_TRY(ist_remove_tree(path, err)); /* a file system that cannot exchange */
  }
  if (rename(temp, path) == 0) return IST_OK;
  return ist_fail(err, IST_ERR_IO, "cannot rename '%s' to '%s': %s", temp, path, strerror(errno));
}

/* ---- The list of checkpoints ---- */

/* The step in a name that step_name would write, else -1. */
static int64_t step_of(const char *name) {
  if (strncmp(name, "step-", 5) != 0) return -1;
  int64_t step = strtoll(name + 5, NULL, 10);
  char again[40];
  step_name(again, step);
  return step >= 0 && strcmp(name, again) == 0 ? step : -1;
}

static int by_step_falling(const void *a, const void *b) {
  int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return (x < y) - (x > y);
}

/* A checkpoint's step where an entry of the folder is one, else -1. */
static int64_t step_of_entry(DIR *dir, const char *name) {
  struct stat st;
  int64_t step = step_of(name);
  if (step < 0 || fstatat(dirfd(dir), name, &st, 0) != 0) return -1;
  return S_ISDIR(st.st_mode) ? step : -1;
}

/* Steps of the checkpoints there are (some may be links to elsewhere), the newest first, none where
 * there is no folder; freed by the caller, also after an error. */
static ist_status list_steps(const char *folder, int64_t **steps, int64_t *n, ist_error *err) {
  *steps = NULL;
  *n = 0;
  DIR *dir = opendir(folder);
  if (!dir && errno == ENOENT) return IST_OK;
  if (!dir) return ist_fail(err, IST_ERR_IO, "cannot open '%s': %s", folder, strerror(errno));
  int64_t cap = 0;
  ist_status status = IST_OK;
  for (struct dirent *e; status == IST_OK && (e = readdir(dir));) {
    int64_t step = step_of_entry(dir, e->d_name);
    if (step < 0) continue;
    status = ist_grow(steps, &cap, *n + 1, sizeof **steps, err);
    if (status == IST_OK) (*steps)[(*n)++] = step;
  }
  closedir(dir);
  if (*n) qsort(*steps, (size_t)*n, sizeof **steps, by_step_falling);
  return status;
}

/* Removes the checkpoints of steps after `step`, and all but the newest `keep` of the others. A
 * link is removed only where it would be taken for the newest; what it leads to never is. */
static ist_status prune(const char *run, const char *folder, int64_t step, int64_t keep,
                        ist_error *err) {
  int64_t *steps, n, kept = 0;
  ist_status status = list_steps(folder, &steps, &n, err);
  for (int64_t i = 0; status == IST_OK && i < n; i++) {
    char *path = step_path(run, steps[i]);
    const bool link = path && is_link(path);
    if (!path)
      status = no_memory(err);
    else if (steps[i] > step || (!link && kept++ >= keep))
      status = link ? ist_remove_file(path, err) : ist_remove_tree(path, err);
    ist_free(path);
  }
  ist_free(steps);
  return status;
}

/* Later checkpoints go before ours appears: they would be taken for the newest. The
 * older ones go last. */
static ist_status put_in_place(const char *run, const char *folder, const char *temp, int64_t step,
                               int64_t keep, ist_error *err) {
  char *path = step_path(run, step);
  if (!path) return no_memory(err);
  ist_status status = prune(run, folder, step, INT64_MAX, err);
  if (status == IST_OK) status = publish(temp, path, err);
  ist_free(path);
  IST_TRY(status);
  sync_directory(folder);
  sync_directory(run);
  return prune(run, folder, step, keep, err);
}

static bool has_step(const char *run, int64_t step) {
  char *path = step_path(run, step);
  bool found = path && ist_file_exists(path);
  ist_free(path);
  return found;
}

/* What a save that failed has under its temporary name: half of a checkpoint (the disk may be
 * full), or a whole one that did not get to its place. Where the one of the same step is gone
 * already, it is the only one, and stays. */
static void discard(const char *run, const char *temp, int64_t step, bool was_there) {
  if (!was_there || has_step(run, step)) ist_remove_tree(temp, NULL);
}

ist_status ist_checkpoint_save(const char *run, const ist_state *s, json_t *settings, int64_t step,
                               int64_t keep, ist_error *err) {
  IST_ASSERT(step >= 0 && keep >= 1);
  char *folder = ist_path_join(run, FOLDER), *temp = folder_path(run, "writing");
  ist_status status = folder && temp ? IST_OK : no_memory(err);
  if (status == IST_OK) status = ist_remove_tree(temp, err); /* of a writer that died */
  const bool was_there = has_step(run, step);
  if (status == IST_OK) status = write_into(temp, s, settings, step, err);
  if (status == IST_OK) status = put_in_place(run, folder, temp, step, keep, err);
  if (status != IST_OK && temp) discard(run, temp, step, was_there);
  ist_free(folder);
  ist_free(temp);
  return status;
}

/* Out of the way in one go, then removed: what stops in between is no half checkpoint. Of a link
 * only the link. */
static ist_status remove_step(const char *run, int64_t step, const char *temp, ist_error *err) {
  char *path = step_path(run, step);
  if (!path) return no_memory(err);
  ist_status status = IST_OK;
  if (is_link(path))
    status = ist_remove_file(path, err);
  else if (rename(path, temp) == 0)
    status = ist_remove_tree(temp, err);
  else
    status =
        ist_fail(err, IST_ERR_IO, "cannot rename '%s' to '%s': %s", path, temp, strerror(errno));
  ist_free(path);
  return status;
}

ist_status ist_checkpoint_clear(const char *run, ist_error *err) {
  int64_t *steps = NULL, n = 0;
  char *folder = ist_path_join(run, FOLDER), *temp = folder_path(run, "writing");
  ist_status status = folder && temp ? ist_remove_tree(temp, err) : no_memory(err);
  if (status == IST_OK) status = list_steps(folder, &steps, &n, err);
  for (int64_t i = 0; status == IST_OK && i < n; i++)
    status = remove_step(run, steps[i], temp, err);
  if (status == IST_OK) rmdir(folder); /* stays where something else is in it */
  ist_free(steps);
  ist_free(folder);
  ist_free(temp);
  return status;
}

/* ---- Reading ---- */

static ist_status check_record(json_t *record, ist_error *err) {
  json_int_t version = json_integer_value(json_object_get(record, "version"));
  if (version != VERSION)
    return ist_fail(err, IST_ERR_UNSUPPORTED, "version %" JSON_INTEGER_FORMAT ", expected %d",
                    version, VERSION);
  char expected[IST_CHECKSUM] = "", found[IST_CHECKSUM];
  const char *text = json_string_value(json_object_get(record, "record_xxh64"));
  snprintf(expected, sizeof expected, "%s", text ? text : "");
  json_object_del(record, "record_xxh64");
  IST_TRY(hash_record(record, found, err));
  if (strcmp(found, expected) != 0)
    return ist_fail(err, IST_ERR_FORMAT, "the content has checksum %s, expected '%s'", found,
                    expected);
  if (!json_is_object(json_object_get(record, "settings")))
    return ist_fail(err, IST_ERR_FORMAT, "settings is %s, expected an object",
                    ist_json_kind(json_object_get(record, "settings")));
  return IST_OK;
}

/* The checked content of state.json: new reference. */
static ist_status read_record(const char *path, json_t **record, ist_error *err) {
  *record = NULL;
  char *file = ist_path_join(path, RECORD);
  if (!file) return no_memory(err);
  ist_buf text = {0};
  ist_status status = ist_file_read(&text, file, 16u << 20, err);
  if (status == IST_OK) {
    status = ist_json_parse(record, text.p, text.len, err);
    if (status == IST_OK) status = check_record(*record, err);
    if (status != IST_OK) ist_error_context(err, "%s", file);
  }
  if (status != IST_OK) {
    json_decref(*record);
    *record = NULL;
  }
  ist_buf_free(&text);
  ist_free(file);
  return status;
}

/* The record is whole, and the tensors are those it was written for. */
static ist_status check_whole(const char *path, ist_error *err) {
  json_t *record;
  IST_TRY(read_record(path, &record, err));
  const char *expected = json_string_value(json_object_get(record, "tensors_xxh64"));
  char found[IST_CHECKSUM] = "", *tensors = ist_path_join(path, TENSORS);
  ist_status status = tensors ? hash_file(tensors, found, err) : no_memory(err);
  if (status == IST_OK && (!expected || strcmp(expected, found) != 0))
    status = ist_fail(err, IST_ERR_FORMAT, "%s: the content has checksum %s, expected '%s'",
                      tensors, found, expected ? expected : "");
  ist_free(tensors);
  json_decref(record);
  return status;
}

static ist_status none_whole(const char *folder, int64_t n, ist_error *err) {
  ist_fail(err, IST_ERR_MISMATCH, "'%s' holds no whole checkpoint", folder);
  if (!n) ist_hint(err, "a run that was stopped before its first starts again with --overwrite");
  return IST_ERR_MISMATCH;
}

bool ist_checkpoint_exists(const char *run) {
  int64_t *steps = NULL, n = 0;
  char *folder = ist_path_join(run, FOLDER);
  if (folder) list_steps(folder, &steps, &n, NULL);
  ist_free(steps);
  ist_free(folder);
  return n > 0;
}

ist_status ist_checkpoint_find_newest(const char *run, char **path, ist_error *err) {
  *path = NULL;
  int64_t *steps, n;
  char *folder = ist_path_join(run, FOLDER);
  if (!folder) return no_memory(err);
  ist_status status = list_steps(folder, &steps, &n, err);
  for (int64_t i = 0; status == IST_OK && i < n; i++) {
    ist_error damage = {0};
    char *candidate = step_path(run, steps[i]);
    ist_status found = candidate ? check_whole(candidate, &damage) : no_memory(&damage);
    if (found == IST_OK) {
      *path = candidate;
      break;
    }
    ist_free(candidate);
    if (found == IST_ERR_NOMEM) /* says nothing of the checkpoint */
      status = ist_fail(err, found, "%s", damage.message);
    else
      ist_log(IST_LOG_WARN, "passed over a damaged checkpoint: %s", damage.message);
  }
  if (status == IST_OK && !*path) status = none_whole(folder, n, err);
  ist_free(steps);
  ist_free(folder);
  return status;
}

/* *found false: the checkpoint is damaged, or has no such value. */
static ist_status read_value(const char *run, int64_t step, const char *name, int64_t *value,
                             bool *found, ist_error *err) {
  *found = false;
  char *folder = step_path(run, step), *path = folder ? ist_path_join(folder, TENSORS) : NULL;
  ist_safetensors *file;
  ist_status status = path ? ist_safetensors_open(&file, path, err) : no_memory(err);
  ist_free(folder);
  ist_free(path);
  if (status != IST_OK) return status == IST_ERR_NOMEM ? status : IST_OK;
  const ist_st_tensor *t = ist_safetensors_find(file, name);
  *found = t && t->type == IST_I64 && t->bytes == sizeof *value;
  if (*found) memcpy(value, t->data, sizeof *value);
  ist_safetensors_close(file);
  return IST_OK;
}

ist_status ist_checkpoint_values(const char *run, const char *name, int64_t **values, int64_t *n,
                                 ist_error *err) {
  int64_t found = 0;
  char *folder = ist_path_join(run, FOLDER);
  *values = NULL;
  *n = 0;
  if (!folder) return no_memory(err);
  ist_status status = list_steps(folder, values, n, err);
  ist_free(folder);
  for (int64_t i = 0; status == IST_OK && i < *n; i++) {
    int64_t value;
    bool there;
    status = read_value(run, (*values)[i], name, &value, &there, err);
    if (there) (*values)[found++] = value;
  }
  *n = found;
  return status;
}

ist_status ist_checkpoint_settings(const char *path, json_t **settings, ist_error *err) {
  *settings = NULL;
  json_t *record;
  IST_TRY(read_record(path, &record, err));
  *settings = json_incref(json_object_get(record, "settings"));
  json_decref(record);
  return IST_OK;
}

/* "F32 [30, 4096]" */
static void describe(char text[160], ist_dtype type, int n_dims, const int64_t *shape) {
  int len = snprintf(text, 160, "%s [", ist_dtype_get(type)->name);
  for (int i = 0; i < n_dims && len < 160; i++)
    len += snprintf(text + len, (size_t)(160 - len), "%s%" PRId64, i ? ", " : "", shape[i]);
  if (len < 159) strcpy(text + len, "]");
}

static ist_status check_tensor(const ist_safetensors *file, const ist_state_item *it,
                               ist_error *err) {
  const ist_st_tensor *t = ist_safetensors_find(file, it->name);
  if (!t)
    return ist_fail(err, IST_ERR_MISMATCH, "%s: tensor '%s' is missing", file->path, it->name);
  if (t->type == it->type && t->n_dims == it->n_dims &&
      !memcmp(t->shape, it->shape, (size_t)it->n_dims * sizeof *it->shape))
    return IST_OK;
  char found[160], expected[160];
  describe(found, t->type, t->n_dims, t->shape);
  describe(expected, it->type, it->n_dims, it->shape);
  return ist_fail(err, IST_ERR_MISMATCH, "%s: tensor '%s' is %s, expected %s", file->path, it->name,
                  found, expected);
}

static ist_status check_tensors(const ist_safetensors *file, const ist_state *s, ist_error *err) {
  for (int64_t i = 0; i < s->n; i++) IST_TRY(check_tensor(file, &s->item[i], err));
  for (int64_t i = 0; i < file->n; i++)
    if (!ist_state_find(s, file->tensor[i].name))
      return ist_fail(err, IST_ERR_MISMATCH, "%s: tensor '%s' is unknown to this run", file->path,
                      file->tensor[i].name);
  return IST_OK;
}

/* Piece by piece, for the checkpoint may be larger than what is free. */
static void copy_tensor(const ist_state_item *to, const unsigned char *from) {
  unsigned char *dst = to->data;
  const int64_t piece = 1 << 20;
  for (int64_t at = 0; at < to->bytes; at += piece) {
    size_t n = (size_t)(to->bytes - at < piece ? to->bytes - at : piece);
    memcpy(dst + at, from + at, n);
    ist_pages_drop(from + at, n);
    if (to->on_disk) ist_pages_drop(dst + at, n);
  }
}

ist_status ist_checkpoint_load(const char *path, const ist_state *s, ist_error *err) {
  char *name = ist_path_join(path, TENSORS);
  if (!name) return no_memory(err);
  ist_safetensors *file;
  ist_status status = ist_safetensors_open(&file, name, err);
  ist_free(name);
  if (status != IST_OK) return status;
  status = check_tensors(file, s, err);
  for (int64_t i = 0; status == IST_OK && i < s->n; i++)
    copy_tensor(&s->item[i], ist_safetensors_find(file, s->item[i].name)->data);
  ist_safetensors_close(file);
  return status;
}
