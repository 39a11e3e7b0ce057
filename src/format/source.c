#include "format/source.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/arena.h"

#define SINGLE "model.safetensors"
#define INDEX  "model.safetensors.index.json"

ist_source ist_source_of_gguf(const ist_gguf *g) {
  return (ist_source){
      .gguf = g, .n = g->n_tensors, .tensor = g->tensor, .file_bytes = (int64_t)g->map.size};
}

/* ---- Hugging Face folder ---------------------------------------------------------- */

static ist_status read_json(json_t **out, const char *dir, const char *name, ist_json_limit limit,
                            ist_error *err) {
  char *path = ist_path_join(dir, name);
  if (!path) return ist_fail_nomem(err, name, strlen(dir));
  ist_status status = ist_json_read(out, path, limit, err);
  ist_free(path);
  return status;
}

static ist_status open_shard(ist_source *s, const char *dir, const char *name, ist_error *err) {
  char *path = ist_path_join(dir, name);
  if (!path) return ist_fail_nomem(err, name, strlen(dir));
  ist_status status = ist_safetensors_open(&s->shard[s->n_shards], path, err);
  if (status == IST_OK) s->file_bytes += (int64_t)s->shard[s->n_shards++]->map.size;
  ist_free(path);
  return status;
}

static ist_status reserve_shards(ist_source *s, size_t n, ist_error *err) {
  s->shard = ist_calloc(n, sizeof *s->shard);
  return s->shard ? IST_OK : ist_fail_nomem(err, "shards", n * sizeof *s->shard);
}

/* Every file that the index's weight_map names, once; `opened` gets the number of each. */
static ist_status open_indexed(ist_source *s, const char *dir, json_t *map, json_t *opened,
                               ist_error *err) {
  json_t *file;
  IST_TRY(reserve_shards(s, json_object_size(map), err));
  const char *tensor;
  json_object_foreach(map, tensor, file) {
    const char *name = json_string_value(file);
    if (!name || !name[0] || strpbrk(name, "/\\") || name[0] == '.')
      return ist_fail(err, IST_ERR_FORMAT,
                      "%s/" INDEX ": %s: found %s, expected the name of a file beside the index",
                      dir, tensor, name ? name : ist_json_kind(file));
    if (json_object_get(opened, name)) continue;
    if (json_object_set_new(opened, name, json_integer(s->n_shards)))
      return ist_fail_nomem(err, "shards", strlen(name));
    IST_TRY(open_shard(s, dir, name, err));
  }
  return IST_OK;
}

/* Every tensor of the index is in the file it names. */
static ist_status check_indexed(const ist_source *s, const char *dir, json_t *map,
                                const json_t *opened, ist_error *err) {
  const char *tensor;
  json_t *file;
  json_object_foreach(map, tensor, file) {
    const json_t *number = json_object_get(opened, json_string_value(file));
    if (!ist_safetensors_find(s->shard[json_integer_value(number)], tensor))
      return ist_fail(err, IST_ERR_FORMAT, "%s/" INDEX ": %s: found no such tensor in %s", dir,
                      tensor, json_string_value(file));
  }
  return IST_OK;
}

static ist_status open_index(ist_source *s, const char *dir, ist_error *err) {
  json_t *index = NULL;
  IST_TRY(read_json(&index, dir, INDEX, IST_JSON_INDEX, err));
  json_t *map = json_object_get(index, "weight_map");
  ist_status status = IST_OK;
  if (!json_is_object(map) || json_object_size(map) == 0)
    status = ist_fail(err, IST_ERR_FORMAT, "%s/" INDEX ": weight_map: found %s, expected an object",
                      dir, json_is_object(map) ? "an empty one" : ist_json_kind(map));
  json_t *opened = json_object();
  if (!opened) status = ist_fail_nomem(err, "shards", 0);
  if (status == IST_OK) status = open_indexed(s, dir, map, opened, err);
  if (status == IST_OK) status = check_indexed(s, dir, map, opened, err);
  json_decref(opened);
  json_decref(index);
  return status;
}

static bool has_file(const char *dir, const char *name) {
  char *path = ist_path_join(dir, name);
  bool there = path && ist_file_exists(path);
  ist_free(path);
  return there;
}

static ist_status open_shards(ist_source *s, const char *dir, ist_error *err) {
  if (has_file(dir, SINGLE)) {
    IST_TRY(reserve_shards(s, 1, err));
    return open_shard(s, dir, SINGLE, err);
  }
  if (has_file(dir, INDEX)) return open_index(s, dir, err);
  ist_fail(err, IST_ERR_FORMAT, "%s: found neither " SINGLE " nor " INDEX " in the folder", dir);
  if (has_file(dir, "pytorch_model.bin") || has_file(dir, "pytorch_model.bin.index.json"))
    ist_hint(err,
             "pytorch_model.bin is a pickle, which can run code and is not read; save the "
             "model as safetensors");
  return IST_ERR_FORMAT;
}

/* ---- One table of all tensors ------------------------------------------------------- */

static int compare_names(ist_str a, ist_str b) {
  int order = memcmp(a.p, b.p, a.len < b.len ? a.len : b.len);
  return order ? order : (a.len > b.len) - (a.len < b.len);
}

static int compare_tensors(const void *a, const void *b) {
  const ist_gguf_tensor *const *x = a, *const *y = b;
  return compare_names((*x)->name, (*y)->name);
}

static ist_status describe(ist_gguf_tensor *out, const char *name, ist_dtype type, int n_dims,
                           const int64_t *shape, ist_error *err) {
  if (n_dims > 4)
    return ist_fail(err, IST_ERR_UNSUPPORTED, "%s: found %d dimensions, expected at most 4", name,
                    n_dims);
  *out = (ist_gguf_tensor){
      .name = {name, strlen(name)}, .type = type, .n_dims = n_dims, .ne = {1, 1, 1, 1}};
  for (int i = 0; i < n_dims; i++) {
    out->ne[i] = shape[n_dims - 1 - i];
    if (out->ne[i] == 0) return ist_fail(err, IST_ERR_FORMAT, "%s: found a dimension of 0", name);
  }
  return IST_OK;
}

static ist_status describe_stored(ist_gguf_tensor *out, const ist_st_tensor *t, const char *path,
                                  ist_error *err) {
  ist_status s = describe(out, t->name, t->type, t->n_dims, t->shape, err);
  if (s != IST_OK) ist_error_context(err, "%s", path);
  out->data = t->data;
  out->bytes = t->bytes;
  return s;
}

static ist_status reserve_tensors(ist_source *s, ist_error *err) {
  s->own = ist_calloc((size_t)s->n + 1, sizeof *s->own);
  s->by_name = ist_calloc((size_t)s->n + 1, sizeof *s->by_name);
  if (!s->own || !s->by_name) return ist_fail_nomem(err, "tensors", (size_t)s->n * sizeof *s->own);
  s->tensor = s->own;
  return IST_OK;
}

/* Sorts by name; a name that two files have is refused. */
static ist_status sort_tensors(ist_source *s, ist_error *err) {
  for (int64_t i = 0; i < s->n; i++) s->by_name[i] = &s->own[i];
  qsort(s->by_name, (size_t)s->n, sizeof *s->by_name, compare_tensors);
  for (int64_t i = 1; i < s->n; i++) {
    ist_str name = s->by_name[i]->name;
    if (compare_names(s->by_name[i - 1]->name, name) == 0)
      return ist_fail(err, IST_ERR_FORMAT, "%.*s: found in two of the model's files", (int)name.len,
                      name.p);
  }
  return IST_OK;
}

static ist_status join_shards(ist_source *s, ist_error *err) {
  for (int64_t i = 0; i < s->n_shards; i++) s->n += s->shard[i]->n;
  IST_TRY(reserve_tensors(s, err));
  ist_gguf_tensor *next = s->own;
  for (int64_t i = 0; i < s->n_shards; i++) {
    for (int64_t j = 0; j < s->shard[i]->n; j++)
      IST_TRY(describe_stored(next++, &s->shard[i]->tensor[j], s->shard[i]->path, err));
  }
  return sort_tensors(s, err);
}

ist_status ist_source_open_folder(ist_source *s, const char *path, ist_error *err) {
  memset(s, 0, sizeof *s);
  ist_status status = read_json(&s->config, path, "config.json", IST_JSON_SETTINGS, err);
  if (status == IST_OK) status = open_shards(s, path, err);
  if (status == IST_OK) status = join_shards(s, err);
  if (status != IST_OK) ist_source_close(s);
  return status;
}

ist_status ist_source_draft(ist_source *s, json_t *config, const ist_st_item *items, int64_t n,
                            ist_error *err) {
  *s = (ist_source){.config = json_incref(config), .n = n};
  ist_status status = reserve_tensors(s, err);
  for (int64_t i = 0; i < n && status == IST_OK; i++)
    status =
        describe(&s->own[i], items[i].name, items[i].type, items[i].n_dims, items[i].shape, err);
  if (status == IST_OK) status = sort_tensors(s, err);
  if (status != IST_OK) ist_source_close(s);
  return status;
}

/* ---- GGUF, whole or split ------------------------------------------------------------ */

#define SPLIT_MAX  99999                  /* five digits */
#define SPLIT_TAIL "-00001-of-00001.gguf" /* as long as every ending of a split file */

/* Where "-00001-of-00003.gguf" begins in a path, and its two numbers. */
static bool split_name(const char *path, size_t *prefix, int *number, int *count) {
  size_t len = strlen(path), tail = strlen(SPLIT_TAIL);
  char again[sizeof SPLIT_TAIL + 16];
  if (len <= tail || sscanf(path + len - tail, "-%5d-of-%5d.gguf", number, count) != 2)
    return false;
  *prefix = len - tail;
  if (*number < 1 || *count < 1) return false;
  snprintf(again, sizeof again, "-%05d-of-%05d.gguf", *number, *count);
  return strcmp(again, path + len - tail) == 0;
}

/* Part i (from 0) of n: its own keys say so. */
static ist_status check_part(const ist_gguf *g, int64_t i, int64_t n, ist_error *err) {
  int64_t number = -1, count = -1;
  IST_TRY(ist_gguf_get_i64(g, "split.no", true, &number, err));
  IST_TRY(ist_gguf_get_i64(g, "split.count", true, &count, err));
  if (number == i && count == n) return IST_OK;
  return ist_fail(err, IST_ERR_FORMAT,
                  "%s: found split.no %lld of split.count %lld, expected %lld of %lld", g->path,
                  (long long)number, (long long)count, (long long)i, (long long)n);
}

static ist_status join_parts(ist_source *s, ist_error *err) {
  for (int64_t i = 0; i < s->n_parts; i++) s->n += s->part[i]->n_tensors;
  int64_t expected = -1;
  IST_TRY(ist_gguf_get_i64(s->gguf, "split.tensors.count", true, &expected, err));
  if (expected != s->n)
    return ist_fail(err, IST_ERR_FORMAT,
                    "%s: found %lld tensors in the %lld files, expected split.tensors.count %lld",
                    s->gguf->path, (long long)s->n, (long long)s->n_parts, (long long)expected);
  IST_TRY(reserve_tensors(s, err));
  ist_gguf_tensor *next = s->own;
  for (int64_t i = 0; i < s->n_parts; i++) {
    for (int64_t j = 0; j < s->part[i]->n_tensors; j++) *next++ = s->part[i]->tensor[j];
  }
  return sort_tensors(s, err);
}

static ist_status open_parts(ist_source *s, const char *path, int64_t n, ist_error *err) {
  size_t prefix;
  int number, count;
  if (!split_name(path, &prefix, &number, &count) || number != 1 || count != n)
    return ist_fail(err, IST_ERR_FORMAT,
                    "%s: found the name of another file, expected the first of %lld, named "
                    "PREFIX-00001-of-%05lld.gguf",
                    path, (long long)n, (long long)n);
  IST_TRY(check_part(s->gguf, 0, n, err));
  for (int64_t i = 1; i < n; i++) {
    ist_buf name = {0};
    ist_buf_printf(&name, "%.*s-%05lld-of-%05lld.gguf", (int)prefix, path, (long long)i + 1,
                   (long long)n);
    ist_status status =
        name.failed ? ist_fail_nomem(err, "path", prefix) : ist_gguf_open(&s->part[i], name.p, err);
    ist_buf_free(&name);
    if (status != IST_OK) return status;
    s->n_parts++;
    s->file_bytes += (int64_t)s->part[i]->map.size;
    IST_TRY(check_part(s->part[i], i, n, err));
  }
  return join_parts(s, err);
}

static ist_status open_gguf(ist_source *s, const char *path, ist_error *err) {
  memset(s, 0, sizeof *s);
  ist_gguf *g;
  IST_TRY(ist_gguf_open(&g, path, err));
  int64_t n = 1;
  ist_status status = ist_gguf_get_i64(g, "split.count", false, &n, err);
  if (status == IST_OK && (n < 1 || n > SPLIT_MAX))
    status = ist_fail(err, IST_ERR_FORMAT, "%s: split.count: found %lld, expected 1 to %d", path,
                      (long long)n, SPLIT_MAX);
  ist_gguf **part = status == IST_OK ? ist_calloc((size_t)n, sizeof *part) : NULL;
  if (status == IST_OK && !part) status = ist_fail_nomem(err, "parts", (size_t)n * sizeof *part);
  if (status != IST_OK) {
    ist_gguf_close(g);
    return status;
  }
  part[0] = g;
  *s = ist_source_of_gguf(g);
  s->part = part;
  s->n_parts = 1;
  if (n == 1) return IST_OK;
  s->n = 0;
  status = open_parts(s, path, n, err);
  if (status != IST_OK) ist_source_close(s);
  return status;
}

ist_status ist_source_open(ist_source *s, const char *path, ist_error *err) {
  struct stat st;
  bool folder = stat(path, &st) == 0 && S_ISDIR(st.st_mode);
  return folder ? ist_source_open_folder(s, path, err) : open_gguf(s, path, err);
}

void ist_source_close(ist_source *s) {
  for (int64_t i = 0; i < s->n_shards; i++) ist_safetensors_close(s->shard[i]);
  for (int64_t i = 0; i < s->n_parts; i++) ist_gguf_close(s->part[i]);
  ist_free(s->shard);
  ist_free(s->part);
  ist_free(s->own);
  ist_free(s->by_name);
  json_decref(s->config);
  memset(s, 0, sizeof *s);
}

void ist_source_drop_pages(const ist_source *s) {
  for (int64_t i = 0; i < s->n_parts; i++) ist_pages_drop(s->part[i]->map.p, s->part[i]->map.size);
  for (int64_t i = 0; i < s->n_shards; i++)
    ist_pages_drop(s->shard[i]->map.p, s->shard[i]->map.size);
}

const ist_gguf_tensor *ist_source_find(const ist_source *s, const char *name) {
  if (!s->by_name) return ist_gguf_find_tensor(s->gguf, name);
  const ist_str wanted = {name, strlen(name)};
  int64_t low = 0, high = s->n;
  while (low < high) {
    int64_t middle = low + (high - low) / 2;
    int order = compare_names(s->by_name[middle]->name, wanted);
    if (order == 0) return s->by_name[middle];
    if (order < 0)
      low = middle + 1;
    else
      high = middle;
  }
  return NULL;
}
