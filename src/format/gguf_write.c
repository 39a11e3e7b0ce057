/* GGUF writer: the header is serialised as the caller adds to it, the data is
 * pulled when the file is written. */
#include "format/gguf.h"

#define ALIGNMENT 32u

typedef struct item {
  ist_dtype type;
  int64_t row_bytes, bytes;
  ist_tensor_read_fn read;
  void *user;
  const unsigned char *data; /* instead of read */
} item;

struct ist_gguf_writer {
  ist_buf kv, infos;
  uint64_t n_kv, offset;
  int64_t n_items, cap;
  item *items;
  bool failed;
};

ist_gguf_writer *ist_gguf_writer_new(void) {
  return ist_calloc(1, sizeof(ist_gguf_writer));
}

void ist_gguf_writer_free(ist_gguf_writer *w) {
  if (!w) return;
  ist_buf_free(&w->kv);
  ist_buf_free(&w->infos);
  ist_free(w->items);
  ist_free(w);
}

static void add_u32(ist_buf *b, uint32_t v) {
  ist_buf_add(b, &v, sizeof v);
}
static void add_u64(ist_buf *b, uint64_t v) {
  ist_buf_add(b, &v, sizeof v);
}
static void add_string(ist_buf *b, const char *s, size_t len) {
  add_u64(b, len);
  ist_buf_add(b, s, len);
}

static void begin_kv(ist_gguf_writer *w, const char *key, ist_gguf_type type) {
  w->n_kv++;
  add_string(&w->kv, key, strlen(key));
  add_u32(&w->kv, type);
}

static void begin_array(ist_gguf_writer *w, const char *key, ist_gguf_type elem, uint64_t n) {
  begin_kv(w, key, IST_GGUF_ARRAY);
  add_u32(&w->kv, elem);
  add_u64(&w->kv, n);
}

void ist_gguf_put_u32(ist_gguf_writer *w, const char *key, uint32_t v) {
  begin_kv(w, key, IST_GGUF_U32);
  add_u32(&w->kv, v);
}

void ist_gguf_put_f32(ist_gguf_writer *w, const char *key, float v) {
  begin_kv(w, key, IST_GGUF_F32);
  ist_buf_add(&w->kv, &v, sizeof v);
}

void ist_gguf_put_bool(ist_gguf_writer *w, const char *key, bool v) {
  begin_kv(w, key, IST_GGUF_BOOL);
  ist_buf_add(&w->kv, &(uint8_t){v}, 1);
}

void ist_gguf_put_str(ist_gguf_writer *w, const char *key, const char *s, size_t len) {
  begin_kv(w, key, IST_GGUF_STRING);
  add_string(&w->kv, s, len);
}

void ist_gguf_put_strs(ist_gguf_writer *w, const char *key, const ist_str *s, uint64_t n) {
  begin_array(w, key, IST_GGUF_STRING, n);
  for (uint64_t i = 0; i < n; i++) add_string(&w->kv, s[i].p, s[i].len);
}

void ist_gguf_put_i32s(ist_gguf_writer *w, const char *key, const int32_t *v, uint64_t n) {
  begin_array(w, key, IST_GGUF_I32, n);
  ist_buf_add(&w->kv, v, (size_t)n * sizeof *v);
}

void ist_gguf_put_f32s(ist_gguf_writer *w, const char *key, const float *v, uint64_t n) {
  begin_array(w, key, IST_GGUF_F32, n);
  ist_buf_add(&w->kv, v, (size_t)n * sizeof *v);
}

void ist_gguf_put_kv(ist_gguf_writer *w, const ist_gguf_kv *kv) {
  static const char alignment[] = "general.alignment";
  if (kv->key.len == sizeof alignment - 1 && memcmp(kv->key.p, alignment, kv->key.len) == 0) return;
  w->n_kv++;
  add_string(&w->kv, kv->key.p, kv->key.len);
  add_u32(&w->kv, kv->type);
  if (kv->type == IST_GGUF_ARRAY) {
    add_u32(&w->kv, kv->elem);
    add_u64(&w->kv, kv->count);
  }
  ist_buf_add(&w->kv, kv->data, kv->bytes);
}

/* Appends the tensor's record; NULL (and `failed`) when out of memory. */
static item *add_item(ist_gguf_writer *w, const char *name, ist_dtype type, int n_dims,
                      const int64_t *ne) {
  const ist_dtype_info *info = ist_dtype_get(type);
  IST_ASSERT(info->ggml >= 0 && n_dims >= 0 && n_dims <= 4 && ne[0] % info->block == 0);
  if (ist_grow(&w->items, &w->cap, w->n_items + 1, sizeof *w->items, NULL) != IST_OK) {
    w->failed = true;
    return NULL;
  }
  item *it = &w->items[w->n_items++];
  *it = (item){.type = type, .row_bytes = ist_dtype_bytes(type, ne[0])};
  it->bytes = it->row_bytes;
  add_string(&w->infos, name, strlen(name));
  add_u32(&w->infos, (uint32_t)n_dims);
  for (int d = 0; d < n_dims; d++) {
    add_u64(&w->infos, (uint64_t)ne[d]);
    if (d > 0) it->bytes *= ne[d];
  }
  add_u32(&w->infos, (uint32_t)info->ggml);
  add_u64(&w->infos, w->offset);
  w->offset += ((uint64_t)it->bytes + ALIGNMENT - 1) & ~(uint64_t)(ALIGNMENT - 1);
  return it;
}

void ist_gguf_put_tensor(ist_gguf_writer *w, const char *name, ist_dtype type, int n_dims,
                         const int64_t *ne, ist_tensor_read_fn read, void *user) {
  item *it = add_item(w, name, type, n_dims, ne);
  if (!it) return;
  it->read = read;
  it->user = user;
}

void ist_gguf_put_tensor_data(ist_gguf_writer *w, const char *name, ist_dtype type, int n_dims,
                              const int64_t *ne, const void *data) {
  item *it = add_item(w, name, type, n_dims, ne);
  if (it) it->data = data;
}

static void write_padding(ist_wfile *f, uint64_t at) {
  static const unsigned char zeros[ALIGNMENT];
  ist_wfile_write(f, zeros, (size_t)(-at & (ALIGNMENT - 1)));
}

static void write_header(const ist_gguf_writer *w, ist_wfile *f) {
  struct {
    char magic[4];
    uint32_t version;
    uint64_t n_tensors, n_kv;
  } head = {{'G', 'G', 'U', 'F'}, 3, (uint64_t)w->n_items, w->n_kv};
  ist_wfile_write(f, &head, sizeof head);
  ist_wfile_write(f, w->kv.p, w->kv.len);
  ist_wfile_write(f, w->infos.p, w->infos.len);
  write_padding(f, sizeof head + w->kv.len + w->infos.len);
}

static ist_status write_item(const item *it, ist_wfile *f, unsigned char *chunk, ist_error *err) {
  if (it->data) {
    ist_wfile_write(f, it->data, (size_t)it->bytes);
  } else {
    int64_t step = ist_tensor_chunk_bytes(it->row_bytes);
    for (int64_t at = 0; at < it->bytes; at += step) {
      int64_t n = it->bytes - at < step ? it->bytes - at : step;
      IST_TRY(it->read(it->user, at, n, chunk, err));
      ist_wfile_write(f, chunk, (size_t)n);
    }
  }
  write_padding(f, (uint64_t)it->bytes);
  return IST_OK;
}

static ist_status write_items(const ist_gguf_writer *w, ist_wfile *f, ist_error *err) {
  int64_t room = IST_TENSOR_CHUNK;
  for (int64_t i = 0; i < w->n_items; i++)
    if (!w->items[i].data && w->items[i].row_bytes > room) room = w->items[i].row_bytes;
  unsigned char *chunk = ist_calloc((size_t)room, 1);
  if (!chunk) return ist_fail_nomem(err, "tensor data to write", (size_t)room);
  ist_status s = IST_OK;
  for (int64_t i = 0; i < w->n_items && s == IST_OK; i++)
    s = write_item(&w->items[i], f, chunk, err);
  ist_free(chunk);
  return s;
}

ist_status ist_gguf_write(ist_gguf_writer *w, const char *path, ist_error *err) {
  if (w->failed || w->kv.failed || w->infos.failed)
    return ist_fail_nomem(err, "a GGUF header", w->kv.len + w->infos.len);
  ist_wfile f;
  IST_TRY(ist_wfile_open(&f, path, err));
  write_header(w, &f);
  ist_status s = write_items(w, &f, err);
  if (s == IST_OK) return ist_wfile_commit(&f, err);
  ist_wfile_close(&f);
  return s;
}
