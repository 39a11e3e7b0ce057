#include "format/source.h"

#include <stdlib.h>
#include <string.h>

#define JSON_LIMIT (INT64_C(256) << 20) /* an index names every tensor */

ist_source ist_source_of_gguf(const ist_gguf *g) {
  return (ist_source){
      .gguf = g, .n = g->n_tensors, .tensor = g->tensor, .file_bytes = (int64_t)g->map.size};
}

static ist_status read_json(json_t **out, const char *dir, const char *name, ist_error *err) {
  char *path = ist_path_join(dir, name);
  if (!path) return ist_fail_nomem(err, name, strlen(dir));
  ist_buf text = {0};
  ist_status status = ist_file_read(&text, path, JSON_LIMIT, err);
  if (status == IST_OK) {
    status = ist_json_parse(out, text.p, text.len, err);
    if (status != IST_OK) ist_error_context(err, "%s", path);
  }
  ist_buf_free(&text);
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

static bool has_shard(const ist_source *s, const char *name) {
  for (int64_t i = 0; i < s->n_shards; i++) {
    const char *path = s->shard[i]->path, *slash = strrchr(path, '/');
    if (strcmp(slash ? slash + 1 : path, name) == 0) return true;
  }
  return false;
}

static ist_status reserve_shards(ist_source *s, size_t n, ist_error *err) {
  s->shard = ist_calloc(n, sizeof *s->shard);
  return s->shard ? IST_OK : ist_fail_nomem(err, "shards", n * sizeof *s->shard);
}

/* Every file that the index's weight_map names, once. */
static ist_status open_indexed(ist_source *s, const char *dir, const json_t *index,
                               ist_error *err) {
  json_t *map = json_object_get(index, "weight_map"), *file;
  if (!json_is_object(map) || json_object_size(map) == 0)
    return ist_fail(err, IST_ERR_FORMAT,
                    "model.safetensors.index.json: weight_map: found %s, expected an object",
                    ist_json_kind(map));
  IST_TRY(reserve_shards(s, json_object_size(map), err));
  const char *tensor;
  json_object_foreach(map, tensor, file) {
    const char *name = json_string_value(file);
    if (!name || strchr(name, '/') || name[0] == '.')
      return ist_fail(err, IST_ERR_FORMAT,
                      "model.safetensors.index.json: %s: found %s, expected the name of a file "
                      "beside the index",
                      tensor, name ? name : ist_json_kind(file));
    if (!has_shard(s, name)) IST_TRY(open_shard(s, dir, name, err));
  }
  return IST_OK;
}

static ist_status open_shards(ist_source *s, const char *dir, ist_error *err) {
  char *single = ist_path_join(dir, "model.safetensors");
  if (!single) return ist_fail_nomem(err, "path", strlen(dir));
  bool whole = ist_file_exists(single);
  ist_free(single);
  if (whole) {
    IST_TRY(reserve_shards(s, 1, err));
    return open_shard(s, dir, "model.safetensors", err);
  }
  json_t *index = NULL;
  ist_status status = read_json(&index, dir, "model.safetensors.index.json", err);
  if (status == IST_OK) status = open_indexed(s, dir, index, err);
  json_decref(index);
  return status;
}

static int compare_names(ist_str a, ist_str b) {
  int order = memcmp(a.p, b.p, a.len < b.len ? a.len : b.len);
  return order ? order : (a.len > b.len) - (a.len < b.len);
}

static int compare_tensors(const void *a, const void *b) {
  const ist_gguf_tensor *const *x = a, *const *y = b;
  return compare_names((*x)->name, (*y)->name);
}

static ist_status describe(ist_gguf_tensor *out, const ist_st_tensor *t, const char *path,
                           ist_error *err) {
  if (t->n_dims > 4)
    return ist_fail(err, IST_ERR_UNSUPPORTED, "%s: %s: found %d dimensions, expected at most 4",
                    path, t->name, t->n_dims);
  *out = (ist_gguf_tensor){.name = {t->name, strlen(t->name)},
                           .type = t->type,
                           .n_dims = t->n_dims,
                           .ne = {1, 1, 1, 1},
                           .data = t->data,
                           .bytes = t->bytes};
  for (int i = 0; i < t->n_dims; i++) out->ne[i] = t->shape[t->n_dims - 1 - i];
  return IST_OK;
}

/* One table of the tensors of all shards, sorted by name in by_name. */
static ist_status join_shards(ist_source *s, ist_error *err) {
  for (int64_t i = 0; i < s->n_shards; i++) s->n += s->shard[i]->n;
  s->own = ist_calloc((size_t)s->n + 1, sizeof *s->own);
  s->by_name = ist_calloc((size_t)s->n + 1, sizeof *s->by_name);
  if (!s->own || !s->by_name) return ist_fail_nomem(err, "tensors", (size_t)s->n * sizeof *s->own);
  int64_t n = 0;
  for (int64_t i = 0; i < s->n_shards; i++) {
    for (int64_t j = 0; j < s->shard[i]->n; j++, n++) {
      IST_TRY(describe(&s->own[n], &s->shard[i]->tensor[j], s->shard[i]->path, err));
      s->by_name[n] = &s->own[n];
    }
  }
  s->tensor = s->own;
  qsort(s->by_name, (size_t)n, sizeof *s->by_name, compare_tensors);
  for (int64_t i = 1; i < n; i++) {
    ist_str name = s->by_name[i]->name;
    if (compare_names(s->by_name[i - 1]->name, name) == 0)
      return ist_fail(err, IST_ERR_FORMAT, "%.*s: found in two of the folder's files",
                      (int)name.len, name.p);
  }
  return IST_OK;
}

ist_status ist_source_open_folder(ist_source *s, const char *path, ist_error *err) {
  memset(s, 0, sizeof *s);
  ist_status status = read_json(&s->config, path, "config.json", err);
  if (status == IST_OK) status = open_shards(s, path, err);
  if (status == IST_OK) status = join_shards(s, err);
  if (status != IST_OK) ist_source_close(s);
  return status;
}

void ist_source_close(ist_source *s) {
  for (int64_t i = 0; i < s->n_shards; i++) ist_safetensors_close(s->shard[i]);
  ist_free(s->shard);
  ist_free(s->own);
  ist_free(s->by_name);
  json_decref(s->config);
  memset(s, 0, sizeof *s);
}

const ist_gguf_tensor *ist_source_find(const ist_source *s, const char *name) {
  if (s->gguf) return ist_gguf_find_tensor(s->gguf, name);
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
