/* GGUF reader and writer: bytes written down by hand, round trips, and every way
 * we could think of to lie in a header. */
#include "files.h"

#include "format/gguf.h"

static char *folder, *path;

static int setup(void **state) {
  (void)state;
  folder = make_folder();
  path = ist_path_join(folder, "test.gguf");
  return 0;
}

static int teardown(void **state) {
  (void)state;
  ist_free(path);
  remove_folder(folder);
  return 0;
}

/* ---- A second, byte by byte writer ---- */

static void u8(ist_buf *b, uint8_t v) {
  ist_buf_add(b, &v, 1);
}
static void u32(ist_buf *b, uint32_t v) {
  for (int i = 0; i < 4; i++) u8(b, (uint8_t)(v >> 8 * i));
}
static void u64(ist_buf *b, uint64_t v) {
  for (int i = 0; i < 8; i++) u8(b, (uint8_t)(v >> 8 * i));
}
static void f32(ist_buf *b, float v) {
  uint32_t u;
  memcpy(&u, &v, 4);
  u32(b, u);
}
static void str(ist_buf *b, const char *s) {
  u64(b, strlen(s));
  ist_buf_add(b, s, strlen(s));
}
static void key(ist_buf *b, const char *name, uint32_t type) {
  str(b, name);
  u32(b, type);
}
static void head(ist_buf *b, uint64_t n_tensors, uint64_t n_kv) {
  ist_buf_add(b, "GGUF", 4);
  u32(b, 3);
  u64(b, n_tensors);
  u64(b, n_kv);
}
static void info(ist_buf *b, const char *name, int n_dims, const uint64_t *ne, uint32_t type,
                 uint64_t offset) {
  str(b, name);
  u32(b, (uint32_t)n_dims);
  for (int i = 0; i < n_dims; i++) u64(b, ne[i]);
  u32(b, type);
  u64(b, offset);
}
static void pad(ist_buf *b, size_t alignment) {
  while (b->len % alignment) u8(b, 0);
}

#define DIMS(...)                                              \
  (int)(sizeof((uint64_t[]){__VA_ARGS__}) / 8), (uint64_t[]) { \
    __VA_ARGS__                                                \
  }

/* What the writer test asks the writer for. */
static void by_hand(ist_buf *b) {
  head(b, 2, 9);
  key(b, "general.architecture", 8);
  str(b, "llama");
  key(b, "a.u32", 4);
  u32(b, 4000000000u);
  key(b, "a.f32", 6);
  f32(b, 1e-5f);
  key(b, "a.bool", 7);
  u8(b, 1);
  key(b, "a.strs", 9);
  u32(b, 8);
  u64(b, 3);
  str(b, "x");
  str(b, "");
  str(b, "\xc3\xa9t\xc3\xa9");
  key(b, "a.i32s", 9);
  u32(b, 5);
  u64(b, 2);
  u32(b, (uint32_t)-7);
  u32(b, 8);
  key(b, "a.f32s", 9);
  u32(b, 6);
  u64(b, 1);
  f32(b, 0.25f);
  key(b, "a.none", 9);
  u32(b, 6);
  u64(b, 0);
  key(b, "a.i64", 11);
  u64(b, (uint64_t)-5);
  info(b, "first", DIMS(3), 0, 0);
  info(b, "second.weight", DIMS(32, 2), 8, 32);
  pad(b, 32);
  for (int i = 0; i < 3; i++) f32(b, (float)i + 0.5f);
  pad(b, 32);
  for (int i = 0; i < 68; i++) u8(b, (uint8_t)(i * 3));
  pad(b, 32);
}

static const float first[3] = {0.5f, 1.5f, 2.5f};

/* The rows of "second.weight", and what was asked of it. */
static ist_status read_second(void *user, int64_t offset, int64_t n, unsigned char *dst,
                              ist_error *err) {
  (void)err;
  assert_int_equal(offset % 34, 0);
  assert_int_equal(n % 34, 0);
  for (int64_t i = 0; i < n; i++) dst[i] = (unsigned char)((offset + i) * 3);
  *(int64_t *)user += n;
  return IST_OK;
}

static void fill(ist_gguf_writer *w, int64_t *pulled) {
  static const unsigned char minus5[8] = {0xfb, 255, 255, 255, 255, 255, 255, 255};
  ist_gguf_kv copied = {.key = {"a.i64", 5},
                        .type = IST_GGUF_I64,
                        .elem = IST_GGUF_I64,
                        .count = 1,
                        .data = minus5,
                        .bytes = 8};
  ist_gguf_put_str(w, "general.architecture", "llama", 5);
  ist_gguf_put_u32(w, "a.u32", 4000000000u);
  ist_gguf_put_f32(w, "a.f32", 1e-5f);
  ist_gguf_put_bool(w, "a.bool", true);
  ist_gguf_put_strs(w, "a.strs", (ist_str[]){{"x", 1}, {"", 0}, {"\xc3\xa9t\xc3\xa9", 5}}, 3);
  ist_gguf_put_i32s(w, "a.i32s", (int32_t[]){-7, 8}, 2);
  ist_gguf_put_f32s(w, "a.f32s", (float[]){0.25f}, 1);
  ist_gguf_put_f32s(w, "a.none", NULL, 0);
  ist_gguf_put_kv(w, &copied);
  ist_gguf_put_tensor_data(w, "first", IST_F32, 1, (int64_t[]){3}, first);
  ist_gguf_put_tensor(w, "second.weight", IST_Q8_0, 2, (int64_t[]){32, 2}, read_second, pulled);
}

static void test_writer_bytes(void **state) {
  (void)state;
  ist_error err = {0};
  int64_t pulled = 0;
  ist_gguf_writer *w = ist_gguf_writer_new();
  fill(w, &pulled);
  assert_int_equal(ist_gguf_write(w, path, &err), IST_OK);
  assert_int_equal(pulled, 68);
  ist_gguf_writer_free(w);
  ist_buf expected = {0}, got = {0};
  by_hand(&expected);
  assert_int_equal(ist_file_read(&got, path, 1 << 20, &err), IST_OK);
  assert_int_equal(got.len, expected.len);
  assert_memory_equal(got.p, expected.p, got.len);
  ist_buf_free(&expected);
  ist_buf_free(&got);
}

static void test_reader_values(void **state) {
  (void)state;
  ist_error err = {0};
  ist_buf b = {0};
  by_hand(&b);
  write_bytes(path, b.p, b.len);
  ist_buf_free(&b);
  ist_gguf *g;
  assert_int_equal(ist_gguf_open(&g, path, &err), IST_OK);
  assert_int_equal(g->version, 3);
  assert_int_equal(g->alignment, 32);
  assert_int_equal(g->n_kv, 9);
  assert_int_equal(g->n_tensors, 2);

  int64_t i = 0;
  double d = 0;
  bool flag = false;
  ist_str s;
  assert_int_equal(ist_gguf_get_i64(g, "a.u32", true, &i, &err), IST_OK);
  assert_int_equal(i, 4000000000);
  assert_int_equal(ist_gguf_get_i64(g, "a.i64", true, &i, &err), IST_OK);
  assert_int_equal(i, -5);
  assert_int_equal(ist_gguf_get_i64(g, "absent", false, &i, &err), IST_OK);
  assert_int_equal(i, -5);
  assert_int_equal(ist_gguf_get_f64(g, "a.f32", true, &d, &err), IST_OK);
  assert_true(d == (double)1e-5f);
  assert_int_equal(ist_gguf_get_bool(g, "a.bool", true, &flag, &err), IST_OK);
  assert_true(flag);
  assert_int_equal(ist_gguf_get_str(g, "general.architecture", true, &s, &err), IST_OK);
  assert_int_equal(s.len, 5);
  assert_memory_equal(s.p, "llama", 5);

  const ist_gguf_kv *strs = ist_gguf_find(g, "a.strs");
  assert_int_equal(strs->count, 3);
  assert_int_equal(strs->strings[1].len, 0);
  assert_int_equal(strs->strings[2].len, 5);
  assert_memory_equal(strs->strings[2].p, "\xc3\xa9t\xc3\xa9", 5);
  assert_true(ist_gguf_elem_f64(ist_gguf_find(g, "a.i32s"), 0) == -7);
  assert_true(ist_gguf_elem_f64(ist_gguf_find(g, "a.f32s"), 0) == 0.25);
  assert_int_equal(ist_gguf_find(g, "a.none")->count, 0);

  assert_null(ist_gguf_find_tensor(g, "second"));
  const ist_gguf_tensor *t = ist_gguf_find_tensor(g, "second.weight");
  assert_int_equal(t->type, IST_Q8_0);
  assert_int_equal(t->n_dims, 2);
  assert_int_equal(t->ne[0], 32);
  assert_int_equal(t->ne[1], 2);
  assert_int_equal(t->ne[3], 1);
  assert_int_equal(t->bytes, 68);
  assert_int_equal(t->data[67], (unsigned char)(67 * 3));
  assert_memory_equal(ist_gguf_find_tensor(g, "first")->data, first, sizeof first);

  assert_error(ist_gguf_get_i64(g, "absent", true, &i, &err), IST_ERR_FORMAT, &err,
               "'absent' is missing");
  assert_error(ist_gguf_get_i64(g, "a.f32", true, &i, &err), IST_ERR_FORMAT, &err,
               "'a.f32' is of type f32, expected an integer");
  assert_error(ist_gguf_get_f64(g, "a.u32", true, &d, &err), IST_ERR_FORMAT, &err,
               "expected a float");
  assert_error(ist_gguf_get_bool(g, "a.u32", false, &flag, &err), IST_ERR_FORMAT, &err,
               "expected bool");
  assert_error(ist_gguf_get_str(g, "a.strs", false, &s, &err), IST_ERR_FORMAT, &err,
               "of type array, expected a string");
  assert_non_null(strstr(err.message, path));
  ist_gguf_close(g);
  ist_gguf_close(NULL);
}

static void test_integer_types(void **state) {
  (void)state;
  static const struct {
    uint32_t type;
    int bytes;
    uint64_t raw;
    int64_t value;
  } c[] = {
      {0, 1, 0xff, 255},
      {1, 1, 0xff, -1},
      {2, 2, 0xffff, 65535},
      {3, 2, 0x8000, -32768},
      {4, 4, 0xffffffff, 4294967295},
      {5, 4, 0xfffffffe, -2},
      {10, 8, 0x7fffffffffffffff, INT64_MAX},
      {11, 8, 0x8000000000000000, INT64_MIN},
  };
  enum { N = sizeof c / sizeof c[0] };
  ist_buf b = {0};
  head(&b, 0, N + 2);
  for (int i = 0; i < N; i++) {
    char name[8] = {'k', (char)('0' + i)};
    key(&b, name, c[i].type);
    for (int j = 0; j < c[i].bytes; j++) u8(&b, (uint8_t)(c[i].raw >> 8 * j));
  }
  key(&b, "big", 10);
  u64(&b, UINT64_MAX);
  key(&b, "double", 12);
  double pi = 3.25;
  ist_buf_add(&b, &pi, 8);
  write_bytes(path, b.p, b.len);
  ist_buf_free(&b);
  ist_gguf *g;
  ist_error err = {0};
  assert_int_equal(ist_gguf_open(&g, path, &err), IST_OK);
  for (int i = 0; i < N; i++) {
    char name[8] = {'k', (char)('0' + i)};
    int64_t v;
    assert_int_equal(ist_gguf_get_i64(g, name, true, &v, &err), IST_OK);
    assert_true(v == c[i].value);
  }
  int64_t v = 1;
  assert_error(ist_gguf_get_i64(g, "big", true, &v, &err), IST_ERR_FORMAT, &err,
               "18446744073709551615");
  assert_int_equal(v, 1);
  double d;
  assert_int_equal(ist_gguf_get_f64(g, "double", true, &d, &err), IST_OK);
  assert_true(d == 3.25);
  ist_gguf_close(g);
}

/* ---- Files that lie ---- */

/* Touches all that an open file offers, so that the sanitizers see every bound. */
static unsigned walk(const ist_gguf *g) {
  unsigned sum = 0;
  for (int64_t i = 0; i < g->n_kv; i++) {
    const ist_gguf_kv *kv = &g->kv[i];
    if (kv->elem != IST_GGUF_STRING)
      for (uint64_t j = 0; j < kv->count; j++) sum += ist_gguf_elem_f64(kv, j) > 0;
    for (uint64_t j = 0; kv->strings && j < kv->count; j++)
      for (size_t k = 0; k < kv->strings[j].len; k++) sum += (unsigned char)kv->strings[j].p[k];
    for (size_t j = 0; j < kv->bytes; j++) sum += kv->data[j];
  }
  for (int64_t i = 0; i < g->n_tensors; i++)
    for (int64_t j = 0; j < g->tensor[i].bytes; j++) sum += g->tensor[i].data[j];
  return sum;
}

static void test_truncated_anywhere(void **state) {
  (void)state;
  ist_buf b = {0};
  by_hand(&b);
  write_bytes(path, b.p, b.len);
  for (size_t len = b.len; len-- > 0;) {
    assert_int_equal(truncate(path, (off_t)len), 0);
    ist_gguf *g;
    ist_error err = {0};
    ist_status s = ist_gguf_open(&g, path, &err);
    if (s != IST_ERR_FORMAT || !strstr(err.message, path) || g)
      fail_msg("cut to %zu bytes: status %d, \"%s\"", len, s, err.message);
  }
  ist_buf_free(&b);
}

/* Every byte replaced by several others: an error or a sound view, never a crash. */
static void test_any_byte_changed(void **state) {
  (void)state;
  static const uint8_t other[] = {0x00, 0x01, 0x7f, 0x80, 0xff};
  ist_buf b = {0};
  by_hand(&b);
  unsigned opened = 0, refused = 0;
  for (size_t at = 0; at < b.len; at++) {
    for (size_t k = 0; k < sizeof other; k++) {
      char saved = b.p[at];
      b.p[at] = (char)other[k];
      write_bytes(path, b.p, b.len);
      b.p[at] = saved;
      ist_gguf *g;
      ist_error err = {0};
      if (ist_gguf_open(&g, path, &err) == IST_OK) {
        opened++;
        assert_true(walk(g) > 0);
      } else {
        refused++;
        assert_true(err.message[0] != 0);
      }
      ist_gguf_close(g);
    }
  }
  assert_true(opened > 500 && refused > 500);
  ist_buf_free(&b);
}

/* Opens what `b` holds and expects `part` in the error. */
static void refuse(ist_buf *b, ist_status expected, const char *part) {
  write_bytes(path, b->p, b->len);
  ist_buf_free(b);
  ist_gguf *g;
  ist_error err = {0};
  assert_error(ist_gguf_open(&g, path, &err), expected, &err, part);
  const char *named = strstr(err.message, path);
  assert_true(named && !strstr(named + 1, path)); /* the file, once */
  assert_null(g);
}

static void test_headers_that_lie(void **state) {
  (void)state;
  ist_buf b = {0};
  ist_buf_str(&b, "GGML");
  for (int i = 0; i < 60; i++) u8(&b, 0);
  refuse(&b, IST_ERR_FORMAT, "not a GGUF file");
  static const struct {
    uint32_t version;
    const char *part;
  } version[] = {{1, "version 1"}, {4, "version 4"}, {0x03000000, "big-endian"}, {0, "version 0"}};
  for (int i = 0; i < 4; i++) {
    ist_buf_add(&b, "GGUF", 4);
    u32(&b, version[i].version);
    u64(&b, 0);
    u64(&b, 0);
    refuse(&b, IST_ERR_UNSUPPORTED, version[i].part);
  }
  static const uint64_t count[] = {2, 1000, UINT64_C(1) << 32, UINT64_MAX / 14 + 2, UINT64_MAX};
  for (int i = 0; i < 5; i++) {
    head(&b, 0, count[i]);
    u64(&b, 0);
    refuse(&b, IST_ERR_FORMAT, "metadata keys cannot lie in");
    head(&b, count[i], 0);
    u64(&b, 0);
    refuse(&b, IST_ERR_FORMAT, "tensors cannot lie in");
  }
}

static void begin(ist_buf *b, const char *name, uint32_t type) {
  head(b, 0, 1);
  key(b, name, type);
}

/* Enough bytes that a count is refused for what it says, not for the file's end. */
static void end(ist_buf *b) {
  for (int i = 0; i < 64; i++) u8(b, 0);
}

static void array(ist_buf *b, uint32_t elem, uint64_t n) {
  begin(b, "k", 9);
  u32(b, elem);
  u64(b, n);
}

static void test_values_that_lie(void **state) {
  (void)state;
  ist_buf b = {0};
  begin(&b, "k", 13);
  end(&b);
  refuse(&b, IST_ERR_FORMAT, "key 'k': unknown value type 13");
  array(&b, 9, 1);
  end(&b);
  refuse(&b, IST_ERR_FORMAT, "key 'k': array of arrays");
  array(&b, 99, 1);
  end(&b);
  refuse(&b, IST_ERR_FORMAT, "array of unknown type 99");
  static const uint64_t count[] = {65, UINT64_C(1) << 31, UINT64_C(1) << 61, UINT64_MAX};
  static const uint32_t elem[] = {0, 4, 8, 12};
  for (int i = 0; i < 4; i++)
    for (int j = 0; j < 4; j++) {
      array(&b, elem[j], count[i]);
      end(&b);
      refuse(&b, IST_ERR_FORMAT, "key 'k': array of");
    }
  begin(&b, "k", 7);
  u8(&b, 2);
  refuse(&b, IST_ERR_FORMAT, "key 'k': bool of value 2");
  array(&b, 7, 2);
  u8(&b, 1);
  u8(&b, 3);
  refuse(&b, IST_ERR_FORMAT, "key 'k': bool of value 3");
  static const uint64_t length[] = {65, UINT64_MAX, UINT64_MAX - 40, UINT64_C(1) << 63};
  for (int i = 0; i < 4; i++) {
    begin(&b, "k", 8);
    u64(&b, length[i]);
    end(&b);
    refuse(&b, IST_ERR_FORMAT, "key 'k': ");
    array(&b, 8, 1);
    u64(&b, length[i]);
    end(&b);
    refuse(&b, IST_ERR_FORMAT, "key 'k': ");
  }
}

static void test_names_that_lie(void **state) {
  (void)state;
  ist_buf b = {0};
  begin(&b, "", 0);
  u8(&b, 0);
  end(&b);
  refuse(&b, IST_ERR_FORMAT, "empty");
  static const char *const bad[] = {
      "\xff",     "a\xc0\x80", "\xed\xa0\x80",        "\xf4\x90\x80\x80",
      "\xe2\x82", "\xc1\xbf",  "\xe0\x9f\xbf",        "\xf0\x8f\xbf\xbf",
      "\x80",     "\xc3(",     "\xf8\x88\x80\x80\x80"};
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    begin(&b, bad[i], 0);
    end(&b);
    refuse(&b, IST_ERR_FORMAT, "not UTF-8");
  }
  head(&b, 0, 1);
  u64(&b, 3);
  ist_buf_add(&b, "a\0b", 3);
  end(&b);
  refuse(&b, IST_ERR_FORMAT, "not UTF-8");
  head(&b, 0, 3);
  for (int i = 0; i < 3; i++) {
    key(&b, i == 1 ? "other" : "same", 0);
    u8(&b, 1);
  }
  refuse(&b, IST_ERR_FORMAT, "key 'same' appears twice");
  /* Good ones, at the limits of each length. */
  begin(&b, "\xc2\x80\xdf\xbf\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80\xf0\x90\x80\x80\xf4\x8f\xbf\xbf",
        0);
  u8(&b, 1);
  write_bytes(path, b.p, b.len);
  ist_buf_free(&b);
  ist_gguf *g;
  ist_error err = {0};
  assert_int_equal(ist_gguf_open(&g, path, &err), IST_OK);
  ist_gguf_close(g);
}

/* A file of one F32 vector with this alignment, of any integer type. */
static void aligned_file(ist_buf *b, uint32_t type, uint64_t value, int bytes) {
  head(b, 1, 1);
  key(b, "general.alignment", type);
  for (int i = 0; i < bytes; i++) u8(b, (uint8_t)(value >> 8 * i));
  info(b, "t", DIMS(3), 0, 0);
}

static void test_alignment(void **state) {
  (void)state;
  ist_buf b = {0};
  static const uint64_t bad[] = {0, 1, 2, 4, 24, 33, 0xffffffff, 0x80000000};
  for (int i = 0; i < 8; i++) {
    aligned_file(&b, 4, bad[i], 4);
    end(&b);
    refuse(&b, IST_ERR_FORMAT, "general.alignment is");
  }
  aligned_file(&b, 6, 0x42000000, 4);
  end(&b);
  refuse(&b, IST_ERR_FORMAT, "'general.alignment' is of type f32");
  aligned_file(&b, 4, 1 << 29, 4);
  end(&b);
  refuse(&b, IST_ERR_FORMAT, "truncated");
  for (uint32_t a = 8; a <= 4096; a *= 4) {
    aligned_file(&b, 4, a, 4);
    pad(&b, a);
    size_t start = b.len;
    for (int i = 0; i < 3; i++) f32(&b, first[i]);
    pad(&b, a);
    write_bytes(path, b.p, b.len);
    ist_buf_free(&b);
    ist_gguf *g;
    ist_error err = {0};
    assert_int_equal(ist_gguf_open(&g, path, &err), IST_OK);
    assert_int_equal(g->data_offset, start);
    assert_memory_equal(g->tensor[0].data, first, 12);
    ist_gguf_close(g);
  }
}

/* One tensor of this shape and type in a file with 256 bytes of data. */
static void one_tensor(ist_buf *b, int n_dims, const uint64_t *ne, uint32_t type, uint64_t offset) {
  head(b, 1, 0);
  info(b, "t.weight", n_dims, ne, type, offset);
  pad(b, 32);
  for (int i = 0; i < 256; i++) u8(b, 0);
}

static void test_tensors_that_lie(void **state) {
  (void)state;
  static const uint64_t big = UINT64_C(1) << 32;
  ist_buf b = {0};
  one_tensor(&b, DIMS(8, 8), 0, 0); /* fits exactly */
  write_bytes(path, b.p, b.len);
  ist_buf_free(&b);
  ist_gguf *g;
  ist_error err = {0};
  assert_int_equal(ist_gguf_open(&g, path, &err), IST_OK);
  ist_gguf_close(g);

  one_tensor(&b, DIMS(65), 0, 0);
  refuse(&b, IST_ERR_FORMAT, "tensor 't.weight' needs 288 bytes");
  one_tensor(&b, DIMS(big, big), 0, 0); /* 2^64 elements: 0 where it wraps */
  refuse(&b, IST_ERR_FORMAT, "tensor 't.weight': dimension 1 is 4294967296: too many elements");
  one_tensor(&b, DIMS(UINT64_MAX), 0, 0);
  refuse(&b, IST_ERR_FORMAT, "tensor 't.weight': dimension 0");
  one_tensor(&b, DIMS(UINT64_C(1) << 62), 0, 0); /* 2^64 bytes */
  refuse(&b, IST_ERR_FORMAT, "too many elements");
  one_tensor(&b, DIMS(UINT64_C(1) << 59, 2), 28, 0); /* 2^63 bytes */
  refuse(&b, IST_ERR_FORMAT, "too many elements");
  one_tensor(&b, DIMS(UINT64_C(1) << 59), 28, 0);
  refuse(&b, IST_ERR_FORMAT, "truncated");
  one_tensor(&b, DIMS(4, 0), 0, 0);
  refuse(&b, IST_ERR_FORMAT, "dimension 1 is 0");
  one_tensor(&b, DIMS(1, 1, 1, 1, 1), 0, 0);
  refuse(&b, IST_ERR_FORMAT, "tensor 't.weight': 5 dimensions");
  one_tensor(&b, DIMS(33), 2, 0);
  refuse(&b, IST_ERR_FORMAT, "rows of 33 elements are not whole Q4_0 blocks of 32");
  one_tensor(&b, DIMS(16, 16), 12, 0); /* 256 elements, but no row is a block */
  refuse(&b, IST_ERR_FORMAT, "rows of 16 elements are not whole Q4_K blocks");
  static const struct {
    uint32_t id;
    const char *part;
  } type[] = {{4, "tensor 't.weight': tensor type 4 (Q4_2, removed from GGUF)"},
              {5, "Q4_3"},
              {31, "removed"},
              {33, "removed"},
              {36, "removed"},
              {38, "removed"},
              {16, "type 16 (IQ2_XXS) is not supported"},
              {39, "MXFP4"},
              {41, "type 41 (unknown)"},
              {0xffffffff, "type 4294967295 (unknown)"}};
  for (size_t i = 0; i < sizeof type / sizeof type[0]; i++) {
    one_tensor(&b, DIMS(32), type[i].id, 0);
    refuse(&b, IST_ERR_UNSUPPORTED, type[i].part);
  }
  static const uint64_t offset[] = {1, 32, 256, UINT64_MAX, UINT64_MAX - 31, UINT64_C(1) << 63};
  for (int i = 0; i < 6; i++) {
    one_tensor(&b, DIMS(8), 0, offset[i]);
    refuse(&b, IST_ERR_FORMAT, "tensor 't.weight': offset");
  }
  head(&b, 1, 0);
  info(&b, "012345678901234567890123456789012345678901234567890123456789012x", DIMS(8), 0, 0);
  end(&b);
  refuse(&b, IST_ERR_FORMAT, "a tensor name of 64 bytes");
}

static void two_tensors(ist_buf *b, const char *second, uint64_t offset) {
  head(b, 2, 0);
  info(b, "one", DIMS(3), 0, 0);
  info(b, second, DIMS(3), 0, offset);
  pad(b, 32);
  for (int i = 0; i < 128; i++) u8(b, 0);
}

static void test_layout_of_two(void **state) {
  (void)state;
  ist_buf b = {0};
  two_tensors(&b, "one", 32);
  refuse(&b, IST_ERR_FORMAT, "tensor 'one' appears twice");
  static const uint64_t bad[] = {0, 12, 16, 64};
  for (int i = 0; i < 4; i++) {
    two_tensors(&b, "two", bad[i]);
    refuse(&b, IST_ERR_FORMAT, "expected 32");
  }
}

/* A file of metadata only needs no data section, nor its padding. */
static void test_no_tensors(void **state) {
  (void)state;
  ist_buf b = {0};
  begin(&b, "k", 0);
  u8(&b, 1);
  write_bytes(path, b.p, b.len);
  ist_buf_free(&b);
  ist_gguf *g;
  ist_error err = {0};
  assert_int_equal(ist_gguf_open(&g, path, &err), IST_OK);
  assert_null(ist_gguf_find_tensor(g, "k"));
  ist_gguf_close(g);
}

/* ---- Writing ---- */

static ist_status read_big(void *user, int64_t offset, int64_t n, unsigned char *dst,
                           ist_error *err) {
  int64_t row = *(int64_t *)user;
  assert_int_equal(offset % row, 0);
  assert_int_equal(n % row, 0);
  for (int64_t i = 0; i < n; i++) dst[i] = (unsigned char)((offset + i) / row + i % row % 251);
  if (offset >= 8 * row) return ist_fail(err, IST_ERR_DATA, "broken on purpose");
  return IST_OK;
}

static void test_big_rows_and_failure(void **state) {
  (void)state;
  ist_error err = {0};
  ist_gguf *g;
  /* Several rows to a piece, and a row longer than the usual piece. */
  for (int64_t row = (int64_t)1200 * 1024; row < (int64_t)8 << 20; row *= 5) {
    int64_t rows = row > (int64_t)2 << 20 ? 2 : 7;
    ist_gguf_writer *w = ist_gguf_writer_new();
    ist_gguf_put_tensor(w, "big", IST_F32, 2, (int64_t[]){row / 4, rows}, read_big, &row);
    assert_int_equal(ist_gguf_write(w, path, &err), IST_OK);
    ist_gguf_writer_free(w);
    assert_int_equal(ist_gguf_open(&g, path, &err), IST_OK);
    assert_int_equal(g->tensor[0].ne[1], rows);
    for (int64_t i = 0; i < g->tensor[0].bytes; i += 997)
      assert_int_equal(g->tensor[0].data[i], (unsigned char)(i / row + i % row % 251));
    ist_gguf_close(g);
  }

  /* A reader that fails leaves nothing, and what was there stays. */
  int64_t row = (int64_t)1200 * 1024;
  char *other = ist_path_join(folder, "other.gguf");
  ist_gguf_writer *w = ist_gguf_writer_new();
  ist_gguf_put_tensor(w, "big", IST_F32, 2, (int64_t[]){row / 4, 12}, read_big, &row);
  assert_error(ist_gguf_write(w, other, &err), IST_ERR_DATA, &err, "on purpose");
  assert_false(ist_file_exists(other));
  assert_int_equal(ist_gguf_write(w, path, &err), IST_ERR_DATA);
  ist_gguf_writer_free(w);
  assert_int_equal(ist_gguf_open(&g, path, &err), IST_OK);
  assert_int_equal(g->tensor[0].ne[1], 2);
  ist_gguf_close(g);
  ist_free(other);
}

/* Whatever was read can be written again, but for the alignment, which is ours. */
static void test_copy_with_other_alignment(void **state) {
  (void)state;
  ist_buf b = {0};
  aligned_file(&b, 4, 64, 4);
  pad(&b, 64);
  for (int i = 0; i < 3; i++) f32(&b, first[i]);
  pad(&b, 64);
  write_bytes(path, b.p, b.len);
  ist_buf_free(&b);
  ist_gguf *g, *copy;
  ist_error err = {0};
  assert_int_equal(ist_gguf_open(&g, path, &err), IST_OK);
  char *other = ist_path_join(folder, "copy.gguf");
  ist_gguf_writer *w = ist_gguf_writer_new();
  ist_gguf_put_kv(w, &g->kv[0]);
  ist_gguf_put_tensor_data(w, "t", IST_F32, 1, g->tensor[0].ne, g->tensor[0].data);
  assert_int_equal(ist_gguf_write(w, other, &err), IST_OK);
  ist_gguf_writer_free(w);
  assert_int_equal(ist_gguf_open(&copy, other, &err), IST_OK);
  assert_int_equal(copy->n_kv, 0);
  assert_memory_equal(copy->tensor[0].data, first, 12);
  ist_gguf_close(copy);
  ist_gguf_close(g);
  ist_free(other);
}

/* Each allocation fails once: an out-of-memory error, nothing leaked (sanitizers). */
static void test_out_of_memory(void **state) {
  (void)state;
  ist_buf b = {0};
  by_hand(&b);
  write_bytes(path, b.p, b.len);
  ist_buf_free(&b);
  ist_gguf *g = NULL;
  ist_error err = {0};
  uint64_t n = 1;
  for (ist_status s = IST_ERR_NOMEM; s != IST_OK; n++) {
    ist_alloc_fail_at(n);
    s = ist_gguf_open(&g, path, &err);
    ist_alloc_fail_at(0);
    assert_true(s == IST_OK || s == IST_ERR_NOMEM);
  }
  assert_true(n > 5);
  ist_gguf_close(g);
  n = 1;
  for (ist_status s = IST_ERR_NOMEM; s != IST_OK; n++) {
    int64_t pulled = 0;
    ist_gguf_writer *w = ist_gguf_writer_new();
    ist_alloc_fail_at(n);
    fill(w, &pulled);
    s = ist_gguf_write(w, path, &err);
    ist_alloc_fail_at(0);
    ist_gguf_writer_free(w);
    assert_true(s == IST_OK || s == IST_ERR_NOMEM);
  }
  assert_true(n > 5);
}

/* A tensor without dimensions is one value; a name may have 63 bytes. */
static void test_scalar(void **state) {
  (void)state;
  static const char name[] = "012345678901234567890123456789012345678901234567890123456789012";
  ist_error err = {0};
  ist_gguf_writer *w = ist_gguf_writer_new();
  float one = 1, back;
  ist_gguf_put_tensor_data(w, name, IST_F32, 0, (int64_t[]){1, 1, 1, 1}, &one);
  assert_int_equal(ist_gguf_write(w, path, &err), IST_OK);
  ist_gguf_writer_free(w);
  ist_gguf *g;
  assert_int_equal(ist_gguf_open(&g, path, &err), IST_OK);
  const ist_gguf_tensor *t = ist_gguf_find_tensor(g, name);
  assert_non_null(t);
  assert_int_equal(t->n_dims, 0);
  assert_int_equal(t->bytes, sizeof back);
  memcpy(&back, t->data, sizeof back);
  assert_true(back == 1.0f);
  ist_gguf_close(g);
}

/* Many names: the hash table finds each, and nothing else. */
static void test_many_names(void **state) {
  (void)state;
  enum { N = 3000 };
  ist_error err = {0};
  ist_gguf_writer *w = ist_gguf_writer_new();
  float one = 1;
  for (uint32_t i = 0; i < N; i++) {
    char name[32];
    snprintf(name, sizeof name, "blk.%u.weight", i);
    ist_gguf_put_u32(w, name, i);
    ist_gguf_put_tensor_data(w, name, IST_F32, 1, (int64_t[]){1}, &one);
  }
  assert_int_equal(ist_gguf_write(w, path, &err), IST_OK);
  ist_gguf_writer_free(w);
  ist_gguf *g;
  assert_int_equal(ist_gguf_open(&g, path, &err), IST_OK);
  for (int64_t i = 0; i < N; i++) {
    char name[32];
    snprintf(name, sizeof name, "blk.%d.weight", (int)i);
    assert_ptr_equal(ist_gguf_find_tensor(g, name), &g->tensor[i]);
    assert_ptr_equal(ist_gguf_find(g, name), &g->kv[i]);
    snprintf(name, sizeof name, "blk.%d.bias", (int)i);
    assert_null(ist_gguf_find_tensor(g, name));
  }
  ist_gguf_close(g);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_writer_bytes),
      cmocka_unit_test(test_scalar),
      cmocka_unit_test(test_reader_values),
      cmocka_unit_test(test_integer_types),
      cmocka_unit_test(test_truncated_anywhere),
      cmocka_unit_test(test_any_byte_changed),
      cmocka_unit_test(test_headers_that_lie),
      cmocka_unit_test(test_values_that_lie),
      cmocka_unit_test(test_names_that_lie),
      cmocka_unit_test(test_alignment),
      cmocka_unit_test(test_tensors_that_lie),
      cmocka_unit_test(test_layout_of_two),
      cmocka_unit_test(test_no_tensors),
      cmocka_unit_test(test_big_rows_and_failure),
      cmocka_unit_test(test_copy_with_other_alignment),
      cmocka_unit_test(test_out_of_memory),
      cmocka_unit_test(test_many_names),
  };
  return cmocka_run_group_tests(tests, setup, teardown);
}
