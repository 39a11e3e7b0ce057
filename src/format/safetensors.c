/* safetensors reader: u64 header length, JSON header, data. Checked whole at
 * open, as the reference reader does, and a little stricter where the two
 * disagree about what a file means (duplicate keys, leading space). */
#include "format/safetensors.h"

#include <inttypes.h>
#include <stdlib.h>

#include "format/json.h"
#include "format/quant.h"

#define MAX_HEADER 100000000u
/* Some 1.5 KB a tensor: half a million, three times the most there are in all files together. */
#define MAX_MEMORY ((size_t)768 << 20)

/* A JSON integer that is not negative; false otherwise. */
static bool get_size(const json_t *v, int64_t *out) {
  if (!json_is_integer(v) || json_integer_value(v) < 0) return false;
  *out = json_integer_value(v);
  return true;
}

static ist_status read_dtype(const json_t *entry, ist_dtype *type, ist_error *err) {
  const json_t *v = json_object_get(entry, "dtype");
  if (!json_is_string(v))
    return ist_fail(err, IST_ERR_FORMAT, "dtype is %s, expected a string", ist_json_kind(v));
  const char *name = json_string_value(v);
  if (strcmp(name, "BOOL") == 0) name = "U8"; /* masks that old folders carry, a byte each */
  int t = ist_dtype_from_name(name);
  if (t < 0 || ist_dtype_is_quantised((ist_dtype)t) ||
      strcmp(ist_dtype_get((ist_dtype)t)->name, name))
    return ist_fail(err, IST_ERR_UNSUPPORTED,
                    "dtype '%s' is not supported (expected F64, F32, F16, "
                    "BF16, I64, I32, I16, I8, U8 or BOOL)",
                    name);
  *type = (ist_dtype)t;
  return IST_OK;
}

/* Shape and byte count. The product of any of the dimensions fits 63 bits: also of those beside
 * one that is 0, which readers may form. */
static ist_status read_shape(const json_t *entry, ist_st_tensor *t, ist_error *err) {
  const json_t *v = json_object_get(entry, "shape");
  if (!json_is_array(v))
    return ist_fail(err, IST_ERR_FORMAT, "shape is %s, expected a list", ist_json_kind(v));
  size_t n = json_array_size(v);
  if (n > IST_ST_MAX_DIMS)
    return ist_fail(err, IST_ERR_UNSUPPORTED, "%zu dimensions, at most %d", n, IST_ST_MAX_DIMS);
  t->n_dims = (int)n;
  int64_t product = ist_dtype_get(t->type)->bytes;
  bool empty = false;
  for (int d = 0; d < t->n_dims; d++) {
    if (!get_size(json_array_get(v, (size_t)d), &t->shape[d]))
      return ist_fail(err, IST_ERR_FORMAT, "dimension %d is not a whole number >= 0", d);
    empty |= t->shape[d] == 0;
    if (t->shape[d] > 0 && __builtin_mul_overflow(product, t->shape[d], &product))
      return ist_fail(err, IST_ERR_FORMAT, "the product of the shape overflows at dimension %d", d);
  }
  t->bytes = empty ? 0 : product;
  return IST_OK;
}

static ist_status read_offsets(const json_t *entry, ist_st_tensor *t, const unsigned char *data,
                               size_t size, ist_error *err) {
  const json_t *v = json_object_get(entry, "data_offsets");
  int64_t begin, end;
  if (json_array_size(v) != 2 || !get_size(json_array_get(v, 0), &begin) ||
      !get_size(json_array_get(v, 1), &end))
    return ist_fail(err, IST_ERR_FORMAT, "data_offsets is not a pair of whole numbers >= 0");
  if (begin > end || (uint64_t)end > size)
    return ist_fail(err, IST_ERR_FORMAT,
                    "data_offsets %" PRId64 " to %" PRId64
                    " lie outside the %zu "
                    "bytes of data",
                    begin, end, size);
  if (end - begin != t->bytes)
    return ist_fail(err, IST_ERR_FORMAT,
                    "data_offsets span %" PRId64 " bytes, dtype and shape need %" PRId64,
                    end - begin, t->bytes);
  t->data = data + begin;
  return IST_OK;
}

static ist_status read_entry(const json_t *entry, ist_st_tensor *t, const unsigned char *data,
                             size_t size, ist_error *err) {
  if (!json_is_object(entry))
    return ist_fail(err, IST_ERR_FORMAT, "the entry is %s, expected an object",
                    ist_json_kind(entry));
  IST_TRY(read_dtype(entry, &t->type, err));
  IST_TRY(read_shape(entry, t, err));
  return read_offsets(entry, t, data, size, err);
}

static ist_status read_metadata(ist_safetensors *s, json_t *meta, ist_error *err) {
  if (!meta || json_is_null(meta)) return IST_OK;
  if (!json_is_object(meta))
    return ist_fail(err, IST_ERR_FORMAT, "__metadata__ is %s, expected an object",
                    ist_json_kind(meta));
  size_t n = json_object_size(meta);
  s->meta_key = ist_calloc(n, sizeof *s->meta_key);
  s->meta_value = ist_calloc(n, sizeof *s->meta_value);
  if (!s->meta_key || !s->meta_value)
    return ist_fail_nomem(err, "__metadata__", n * sizeof(char *));
  const char *key;
  json_t *value;
  json_object_foreach(meta, key, value) {
    if (!json_is_string(value))
      return ist_fail(err, IST_ERR_FORMAT, "__metadata__ '%s' is %s, expected a string", key,
                      ist_json_kind(value));
    int64_t i = s->n_meta++;
    s->meta_key[i] = ist_strdup(key);
    s->meta_value[i] = ist_strdup(json_string_value(value));
    if (!s->meta_key[i] || !s->meta_value[i])
      return ist_fail_nomem(err, "__metadata__", json_string_length(value));
  }
  return IST_OK;
}

static int by_offset(const void *a, const void *b) {
  const ist_st_tensor *x = a, *y = b;
  if (x->data != y->data) return x->data < y->data ? -1 : 1;
  if (x->bytes != y->bytes) return x->bytes < y->bytes ? -1 : 1;
  return strcmp(x->name, y->name);
}

static int by_name(const void *a, const void *b) {
  return strcmp((*(const ist_st_tensor *const *)a)->name, (*(const ist_st_tensor *const *)b)->name);
}

/* Sorts the tensors into file order and demands that they fill the data exactly. */
static ist_status check_layout(ist_safetensors *s, const unsigned char *data, size_t size,
                               ist_error *err) {
  qsort(s->tensor, (size_t)s->n, sizeof *s->tensor, by_offset);
  const unsigned char *at = data;
  for (int64_t i = 0; i < s->n; i++) {
    const ist_st_tensor *t = &s->tensor[i];
    if (t->data != at)
      return ist_fail(err, IST_ERR_FORMAT,
                      "tensor '%s' begins at byte %td of the data, expected %td "
                      "(%s)",
                      t->name, t->data - data, at - data, t->data > at ? "a hole" : "an overlap");
    at += t->bytes;
  }
  if (at != data + size)
    return ist_fail(err, IST_ERR_FORMAT,
                    "the tensors end at byte %td of the data, the file holds %zu", at - data, size);
  return IST_OK;
}

static ist_status read_entries(ist_safetensors *s, json_t *header, const unsigned char *data,
                               size_t size, ist_error *err) {
  size_t n = json_object_size(header);
  s->tensor = ist_calloc(n, sizeof *s->tensor);
  s->by_name = ist_calloc(n, sizeof *s->by_name);
  if (!s->tensor || !s->by_name) return ist_fail_nomem(err, "tensor list", n * sizeof *s->tensor);
  const char *name;
  json_t *entry;
  json_object_foreach(header, name, entry) {
    if (strcmp(name, "__metadata__") == 0) continue;
    ist_st_tensor *t = &s->tensor[s->n++];
    t->name = ist_strdup(name);
    if (!t->name) return ist_fail_nomem(err, "a tensor name", strlen(name) + 1);
    ist_status status = read_entry(entry, t, data, size, err);
    if (status != IST_OK) {
      ist_error_context(err, "tensor '%s'", name);
      return status;
    }
  }
  IST_TRY(check_layout(s, data, size, err));
  for (int64_t i = 0; i < s->n; i++) s->by_name[i] = &s->tensor[i];
  qsort(s->by_name, (size_t)s->n, sizeof *s->by_name, by_name);
  return read_metadata(s, json_object_get(header, "__metadata__"), err);
}

static ist_status parse(ist_safetensors *s, ist_error *err) {
  ist_cursor c = {.p = s->map.p, .size = s->map.size};
  uint64_t len = ist_read_u64(&c);
  if (c.failed)
    return ist_fail(err, IST_ERR_FORMAT,
                    "not a safetensors file: %zu bytes, too short for a header", s->map.size);
  if (len > MAX_HEADER || len > c.size - c.at)
    return ist_fail(err, IST_ERR_FORMAT,
                    "not a safetensors file, or truncated: header of %" PRIu64
                    " bytes, the file has %zu left (at most %u allowed)",
                    len, c.size - c.at, MAX_HEADER);
  const char *text = (const char *)ist_read_bytes(&c, len);
  if (len < 2 || *text != '{')
    return ist_fail(err, IST_ERR_FORMAT,
                    "not a safetensors file: the header does not begin with '{'");
  json_t *header;
  ist_status status = ist_json_parse_within(&header, text, (size_t)len, MAX_MEMORY, err);
  if (status != IST_OK) {
    ist_error_context(err, "safetensors header");
    return status;
  }
  status = read_entries(s, header, c.p + c.at, c.size - c.at, err);
  json_decref(header);
  return status;
}

ist_status ist_safetensors_open(ist_safetensors **out, const char *path, ist_error *err) {
  *out = NULL;
  ist_safetensors *s = ist_calloc(1, sizeof *s);
  if (!s || !(s->path = ist_strdup(path))) {
    ist_safetensors_close(s);
    return ist_fail_nomem(err, path, sizeof *s);
  }
  ist_status status = ist_map_open(&s->map, path, err);
  if (status == IST_OK) {
    status = parse(s, err);
    if (status != IST_OK) ist_error_context(err, "%s", path);
  }
  if (status != IST_OK) {
    ist_safetensors_close(s);
    return status;
  }
  *out = s;
  return IST_OK;
}

void ist_safetensors_close(ist_safetensors *s) {
  if (!s) return;
  for (int64_t i = 0; i < s->n; i++) ist_free(s->tensor[i].name);
  for (int64_t i = 0; i < s->n_meta; i++) {
    ist_free(s->meta_key[i]);
    ist_free(s->meta_value[i]);
  }
  ist_free(s->tensor);
  ist_free(s->by_name);
  ist_free(s->meta_key);
  ist_free(s->meta_value);
  ist_free(s->path);
  ist_map_close(&s->map);
  ist_free(s);
}

const ist_st_tensor *ist_safetensors_find(const ist_safetensors *s, const char *name) {
  int64_t lo = 0, hi = s->n;
  while (lo < hi) {
    int64_t mid = lo + (hi - lo) / 2;
    int order = strcmp(s->by_name[mid]->name, name);
    if (order == 0) return s->by_name[mid];
    if (order < 0)
      lo = mid + 1;
    else
      hi = mid;
  }
  return NULL;
}

const char *ist_safetensors_meta(const ist_safetensors *s, const char *key) {
  for (int64_t i = 0; i < s->n_meta; i++)
    if (strcmp(s->meta_key[i], key) == 0) return s->meta_value[i];
  return NULL;
}

ist_status ist_st_to_f32(const ist_st_tensor *t, float *dst, int64_t n, ist_error *err) {
  const ist_dtype_info *info = ist_dtype_get(t->type);
  if (!ist_dequant_supported(t->type))
    return ist_fail(err, IST_ERR_FORMAT,
                    "tensor '%s' is of type %s, expected F32, F16, BF16 or F64", t->name,
                    info->name);
  if (t->bytes / info->bytes != n)
    return ist_fail(err, IST_ERR_MISMATCH,
                    "tensor '%s' has %" PRId64 " elements, expected %" PRId64, t->name,
                    t->bytes / info->bytes, n);
  ist_dequant_f32(dst, t->data, t->type, n);
  return IST_OK;
}
