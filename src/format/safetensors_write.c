/* safetensors writer. */
#include "format/safetensors.h"

#include <stdlib.h>

#include "base/arena.h"
#include "format/json.h"

int64_t ist_st_item_bytes(const ist_st_item *it) {
  int64_t n = ist_dtype_get(it->type)->bytes;
  for (int d = 0; d < it->n_dims; d++) n *= it->shape[d];
  return n;
}

/* Falling element size keeps every tensor aligned to its own element. */
static int by_size_then_name(const void *a, const void *b) {
  const ist_st_item *x = *(const ist_st_item *const *)a, *y = *(const ist_st_item *const *)b;
  int size = ist_dtype_get(y->type)->bytes - ist_dtype_get(x->type)->bytes;
  return size ? size : strcmp(x->name, y->name);
}

/* NULL when out of memory, which json_object_set_new passes on. */
static json_t *entry_of(const ist_st_item *it, int64_t at) {
  json_t *shape = json_array();
  int failures = 0;
  for (int d = 0; d < it->n_dims; d++)
    failures |= json_array_append_new(shape, json_integer(it->shape[d]));
  if (failures) {
    json_decref(shape);
    return NULL;
  }
  return json_pack("{s:s, s:o, s:[I,I]}", "dtype", ist_dtype_get(it->type)->name, "shape", shape,
                   "data_offsets", (json_int_t)at, (json_int_t)(at + ist_st_item_bytes(it)));
}

static ist_status add_metadata(json_t *header, const char *const (*meta)[2], int64_t n_meta,
                               ist_error *err) {
  json_t *m = json_object();
  bool ok = m && json_object_set_new(header, "__metadata__", m) == 0;
  for (int64_t i = 0; ok && i < n_meta; i++) {
    json_t *value = json_string(meta[i][1]);
    if (!value || json_object_set_new(m, meta[i][0], value) != 0)
      return ist_fail(err, IST_ERR_ARG, "metadata '%s' is not UTF-8 text", meta[i][0]);
  }
  ok = ok && json_object_set_new(m, "format", json_string("pt")) == 0;
  return ok ? IST_OK : ist_fail_nomem(err, "a safetensors header", 0);
}

static ist_status build_header(json_t *header, const ist_st_item *const *items, int64_t n,
                               ist_error *err) {
  int64_t at = 0;
  for (int64_t i = 0; i < n; i++) {
    IST_ASSERT(items[i]->n_dims <= IST_ST_MAX_DIMS && !ist_dtype_is_quantised(items[i]->type));
    if (json_object_get(header, items[i]->name))
      return ist_fail(err, IST_ERR_ARG, "tensor '%s' is to be written twice", items[i]->name);
    if (json_object_set_new(header, items[i]->name, entry_of(items[i], at)) != 0)
      return ist_fail(err, IST_ERR_ARG,
                      "tensor '%s' cannot be written: its name is not UTF-8 text, "
                      "or memory ran out",
                      items[i]->name);
    at += ist_st_item_bytes(items[i]);
  }
  return IST_OK;
}

/* The header with its padding; freed by the caller. */
static ist_status header_text(ist_buf *out, const ist_st_item *const *items, int64_t n,
                              const char *const (*meta)[2], int64_t n_meta, ist_error *err) {
  json_t *header = json_object();
  if (!header) return ist_fail_nomem(err, "a safetensors header", 0);
  ist_status s = add_metadata(header, meta, n_meta, err);
  if (s == IST_OK) s = build_header(header, items, n, err);
  if (s == IST_OK) {
    char *text = json_dumps(header, JSON_COMPACT);
    if (text) ist_buf_str(out, text);
    while (text && !out->failed && out->len % 8 != 0) ist_buf_str(out, " ");
    if (!text || out->failed) s = ist_fail_nomem(err, "a safetensors header", out->len);
    free(text);
  }
  json_decref(header);
  return s;
}

static ist_status stream_data(const ist_st_item *it, ist_wfile *f, ist_tensor_read_fn read,
                              ist_error *err) {
  int64_t bytes = ist_st_item_bytes(it);
  int64_t step = ist_tensor_chunk_bytes(it->n_dims > 1 ? bytes / it->shape[0] : bytes);
  unsigned char *chunk = ist_calloc((size_t)(step < bytes ? step : bytes), 1);
  if (!chunk) return ist_fail_nomem(err, it->name, (size_t)step);
  ist_status s = IST_OK;
  for (int64_t at = 0; at < bytes && s == IST_OK; at += step) {
    int64_t n = bytes - at < step ? bytes - at : step;
    s = read(it->user, at, n, chunk, err);
    if (s == IST_OK) ist_wfile_write(f, chunk, (size_t)n);
  }
  ist_free(chunk);
  return s;
}

static void write_data(const ist_st_item *it, ist_wfile *f) {
  const unsigned char *data = it->make ? it->make(it->user) : it->data;
  int64_t bytes = ist_st_item_bytes(it), piece = it->on_disk ? 1 << 20 : bytes;
  for (int64_t at = 0; at < bytes; at += piece) {
    size_t n = (size_t)(bytes - at < piece ? bytes - at : piece);
    ist_wfile_write(f, data + at, n);
    if (it->on_disk) ist_pages_drop(data + at, n);
  }
}

static ist_status write_file(const char *path, const ist_buf *head, const ist_st_item *const *items,
                             int64_t n, ist_tensor_read_fn read, ist_error *err) {
  ist_wfile f;
  IST_TRY(ist_wfile_open(&f, path, err));
  ist_wfile_write(&f, &(uint64_t){head->len}, 8);
  ist_wfile_write(&f, head->p, head->len);
  ist_status s = IST_OK;
  for (int64_t i = 0; i < n && s == IST_OK; i++) {
    if (read)
      s = stream_data(items[i], &f, read, err);
    else
      write_data(items[i], &f);
  }
  if (s == IST_OK) return ist_wfile_commit(&f, err);
  ist_wfile_close(&f);
  return s;
}

static ist_status write_all(const char *path, const ist_st_item *items, int64_t n,
                            const char *const (*meta)[2], int64_t n_meta, ist_tensor_read_fn read,
                            ist_error *err) {
  const ist_st_item **order = ist_calloc((size_t)n, sizeof *order);
  if (!order) return ist_fail_nomem(err, path, (size_t)n * sizeof *order);
  for (int64_t i = 0; i < n; i++) order[i] = &items[i];
  qsort(order, (size_t)n, sizeof *order, by_size_then_name);
  ist_buf head = {0};
  ist_status s = header_text(&head, order, n, meta, n_meta, err);
  if (s == IST_OK) s = write_file(path, &head, order, n, read, err);
  ist_buf_free(&head);
  ist_free(order);
  return s;
}

ist_status ist_safetensors_write(const char *path, const ist_st_item *items, int64_t n,
                                 const char *const (*meta)[2], int64_t n_meta, ist_error *err) {
  return write_all(path, items, n, meta, n_meta, NULL, err);
}

ist_status ist_safetensors_stream(const char *path, const ist_st_item *items, int64_t n,
                                  ist_tensor_read_fn read, ist_error *err) {
  return write_all(path, items, n, NULL, 0, read, err);
}
