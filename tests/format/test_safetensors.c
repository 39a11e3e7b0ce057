/* safetensors reader and writer: bytes written down by hand, the list of files
 * that the reference reader refuses, round trips. */
#include "files.h"

#include "format/safetensors.h"

static char *folder, *path;

static int setup(void **state) {
  (void)state;
  folder = make_folder();
  path = ist_path_join(folder, "test.safetensors");
  return 0;
}

static int teardown(void **state) {
  (void)state;
  ist_free(path);
  remove_folder(folder);
  return 0;
}

/* Writes the header, its length before it, and `n` bytes 0, 1, 2 ... of data. */
static void write_raw(const char *header, size_t len, uint64_t claimed, size_t n) {
  ist_buf b = {0};
  for (int i = 0; i < 8; i++) ist_buf_add(&b, &(char){(char)(claimed >> 8 * i)}, 1);
  ist_buf_add(&b, header, len);
  for (size_t i = 0; i < n; i++) ist_buf_add(&b, &(char){(char)i}, 1);
  write_bytes(path, b.p, b.len);
  ist_buf_free(&b);
}

static void write_header(const char *header, size_t n) {
  write_raw(header, strlen(header), strlen(header), n);
}

static void refuse_open(ist_status expected, const char *part) {
  ist_safetensors *s;
  ist_error err = {0};
  assert_error(ist_safetensors_open(&s, path, &err), expected, &err, part);
  assert_null(s);
  assert_non_null(strstr(err.message, path));
}

static void refuse(const char *header, size_t n, const char *part) {
  write_header(header, n);
  refuse_open(IST_ERR_FORMAT, part);
}

static ist_safetensors *open_ok(void) {
  ist_safetensors *s;
  ist_error err = {0};
  if (ist_safetensors_open(&s, path, &err) != IST_OK) fail_msg("%s", err.message);
  return s;
}

static void test_reader_values(void **state) {
  (void)state;
  /* Out of order in the header, a scalar, no elements, unaligned, extra fields. */
  write_header(
      "{\"b\":{\"dtype\":\"F16\",\"shape\":[2,1],\"data_offsets\":[5,9],\"more\":[{}]},"
      "\"__metadata__\":{\"format\":\"pt\",\"k\\u00e9\":\"v\"},"
      "\"empty\":{\"dtype\":\"F32\",\"shape\":[3,0],\"data_offsets\":[1,1]},"
      "\"a\":{\"dtype\":\"BOOL\",\"shape\":[],\"data_offsets\":[0,1]},"
      "\"c\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[1,5]}}   ",
      9);
  ist_safetensors *s = open_ok();
  assert_int_equal(s->n, 4);
  static const char *const order[] = {"a", "empty", "c", "b"};
  for (int i = 0; i < 4; i++) {
    assert_string_equal(s->tensor[i].name, order[i]);
    assert_ptr_equal(ist_safetensors_find(s, order[i]), &s->tensor[i]);
  }
  assert_null(ist_safetensors_find(s, ""));
  assert_null(ist_safetensors_find(s, "aa"));
  const ist_st_tensor *b = ist_safetensors_find(s, "b");
  assert_int_equal(b->type, IST_F16);
  assert_int_equal(b->n_dims, 2);
  assert_int_equal(b->shape[0], 2);
  assert_int_equal(b->bytes, 4);
  assert_int_equal(b->data[0], 5);
  assert_int_equal(ist_safetensors_find(s, "a")->n_dims, 0);
  assert_int_equal(s->n_meta, 2);
  assert_string_equal(ist_safetensors_meta(s, "format"), "pt");
  assert_string_equal(ist_safetensors_meta(s, "k\xc3\xa9"), "v");
  assert_null(ist_safetensors_meta(s, "none"));
  ist_safetensors_close(s);
  ist_safetensors_close(NULL);

  write_header("{}", 0);
  ist_safetensors_close(open_ok());
  write_header("{\"__metadata__\":null}      ", 0);
  ist_safetensors_close(open_ok());
}

static void test_to_f32(void **state) {
  (void)state;
  ist_error err = {0};
  double f64[2] = {0.1, -3};
  uint16_t f16[2] = {0x3c00, 0xc100}, bf16[2] = {0x3f80, 0xc020};
  float f32[2] = {1.5f, -2}, out[2];
  int32_t i32[2] = {1, 2};
  ist_st_item items[] = {{"f64", IST_F64, 1, {2}, .data = f64},
                         {"f16", IST_F16, 1, {2}, .data = f16},
                         {"bf16", IST_BF16, 1, {2}, .data = bf16},
                         {"f32", IST_F32, 1, {2}, .data = f32},
                         {"i32", IST_I32, 1, {2}, .data = i32}};
  assert_int_equal(ist_safetensors_write(path, items, 5, NULL, 0, &err), IST_OK);
  ist_safetensors *s = open_ok();
  static const struct {
    const char *name;
    float v[2];
  } expected[] = {
      {"f64", {0.1f, -3}}, {"f16", {1, -2.5f}}, {"bf16", {1, -2.5f}}, {"f32", {1.5f, -2}}};
  for (int i = 0; i < 4; i++) {
    const ist_st_tensor *t = ist_safetensors_find(s, expected[i].name);
    assert_int_equal(ist_st_to_f32(t, out, 2, &err), IST_OK);
    assert_memory_equal(out, expected[i].v, sizeof out);
    assert_error(ist_st_to_f32(t, out, 3, &err), IST_ERR_MISMATCH, &err,
                 "has 2 elements, expected 3");
  }
  assert_error(ist_st_to_f32(ist_safetensors_find(s, "i32"), out, 2, &err), IST_ERR_FORMAT, &err,
               "tensor 'i32' is of type I32");
  ist_safetensors_close(s);
}

#define ENTRY(name, dtype, shape, ...) \
  "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" #__VA_ARGS__ "]}"

static void test_layouts_that_lie(void **state) {
  (void)state;
  refuse("{" ENTRY("a", "F32", "[1]", 0, 4) "," ENTRY("b", "F32", "[1]", 5, 9) "}", 9, "a hole");
  refuse("{" ENTRY("a", "F32", "[1]", 1, 5) "}", 5,
         "begins at byte 1 of the data, expected 0 (a hole)");
  refuse("{" ENTRY("a", "F32", "[2]", 0, 8) "," ENTRY("b", "F32", "[2]", 4, 12) "}", 12,
         "an overlap");
  refuse("{" ENTRY("a", "F32", "[1]", 0, 4) "," ENTRY("b", "F32", "[1]", 0, 4) "}", 4,
         "an overlap");
  refuse("{" ENTRY("a", "F32", "[1]", 0, 4) "}", 5, "the tensors end at byte 4 of the data");
  refuse("{" ENTRY("a", "F32", "[1]", 0, 4) "}", 3, "lie outside the 3 bytes");
  refuse("{}", 1, "end at byte 0");
  refuse("{" ENTRY("a", "F32", "[1]", 4, 0) "}", 4, "data_offsets 4 to 0");
  refuse("{" ENTRY("a", "F32", "[2]", 0, 4) "}", 4, "span 4 bytes, dtype and shape need 8");
  refuse("{" ENTRY("a", "F32", "[1]", -4, 0) "}", 4, "not a pair of whole numbers");
  refuse("{" ENTRY("a", "F32", "[1]", 0.0, 4.0) "}", 4, "not a pair of whole numbers");
  refuse("{" ENTRY("a", "F32", "[1]", 0, 4, 4) "}", 4, "not a pair");
  refuse("{" ENTRY("a", "F32", "[1]", 9223372036854775806, 9223372036854775807) "}", 4,
         "lie outside");
  refuse("{" ENTRY("a", "F32", "[1]", 0, 99999999999999999999) "}", 4, "not valid JSON");
}

static void test_entries_that_lie(void **state) {
  (void)state;
  refuse("{" ENTRY("a", "F32", "[-1]", 0, 4) "}", 4,
         "tensor 'a': dimension 0 is not a whole number");
  refuse("{" ENTRY("a", "F32", "[1.0]", 0, 4) "}", 4, "dimension 0");
  refuse("{" ENTRY("a", "F32", "[\"1\"]", 0, 4) "}", 4, "dimension 0");
  refuse("{" ENTRY("a", "F32", "[4611686018427387904]", 0, 4) "}", 4, "overflows");
  refuse("{" ENTRY("a", "F32", "[4294967296,4294967296]", 0, 0) "}", 0, "overflows");
  refuse("{" ENTRY("a", "F32", "[0,4611686018427387904,4611686018427387904]", 0, 0) "}", 0,
         "overflows");
  refuse("{" ENTRY("a", "F32", "{}", 0, 4) "}", 4, "shape is an object");
  refuse("{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, "shape is nothing");
  refuse("{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "data_offsets is not a pair");
  refuse("{\"a\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "dtype is nothing");
  refuse("{\"a\":{\"dtype\":7,\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "dtype is an integer");
  refuse("{\"a\":[]}", 0, "the entry is a list");
  refuse("{\"__metadata__\":[]}", 0, "__metadata__ is a list");
  refuse("{\"__metadata__\":{\"k\":1}}", 0, "__metadata__ 'k' is an integer, expected a string");
  refuse("{" ENTRY("a", "F32", "[1]", 0, 4) "," ENTRY("a", "F32", "[1]", 0, 4) "}", 4, "duplicate");
  refuse("{\"__metadata__\":{\"k\":\"1\",\"k\":\"1\"}}", 0, "duplicate");
  static const char *const foreign[] = {"F8_E4M3", "U32", "Q4_0", "f32", "", "F4"};
  for (size_t i = 0; i < sizeof foreign / sizeof foreign[0]; i++) {
    char header[128], part[64];
    snprintf(header, sizeof header,
             "{\"a\":{\"dtype\":\"%s\",\"shape\":[0],\"data_offsets\":[0,0]}}", foreign[i]);
    snprintf(part, sizeof part, "tensor 'a': dtype '%s' is not supported", foreign[i]);
    write_header(header, 0);
    refuse_open(IST_ERR_UNSUPPORTED, part);
  }
  write_header("{" ENTRY("a", "U8", "[1,1,1,1,1,1,1,1,1]", 0, 1) "}", 1);
  refuse_open(IST_ERR_UNSUPPORTED, "9 dimensions");
}

static void test_headers_that_lie(void **state) {
  (void)state;
  static const uint64_t claimed[] = {
      3, 100, 100000000, 100000001, UINT64_C(1) << 63, UINT64_MAX, UINT64_MAX - 7};
  for (size_t i = 0; i < sizeof claimed / sizeof claimed[0]; i++) {
    write_raw("{}", 2, claimed[i], 0);
    refuse_open(IST_ERR_FORMAT, "header of");
  }
  write_raw("{}", 2, 0, 0);
  refuse_open(IST_ERR_FORMAT, "does not begin with '{'");
  write_bytes(path, "\2\0\0\0\0\0\0", 7);
  refuse_open(IST_ERR_FORMAT, "too short");
  refuse(" {}", 0, "does not begin with '{'");
  refuse("[]", 0, "does not begin with '{'");
  refuse("{} x", 0, "not valid JSON");
  refuse("{}{}", 0, "not valid JSON");
  refuse("{\"a\":}", 0, "not valid JSON");
  refuse("{\"\xff\":{}}", 0, "not valid JSON");
  write_raw("{}\0\0\0\0\0\0", 8, 8, 0);
  refuse_open(IST_ERR_FORMAT, "not valid JSON");
  ist_buf deep = {0};
  ist_buf_str(&deep, "{\"a\":");
  for (int i = 0; i < 100000; i++) ist_buf_str(&deep, "[");
  refuse(deep.p, 0, "not valid JSON");
  ist_buf_free(&deep);
}

static void write_sample(ist_error *err) {
  static const int64_t steps[3] = {1, -2, INT64_MAX};
  static const float weights[6] = {0, 1, 2, 3, 4, 5};
  static const uint16_t half[4] = {1, 2, 3, 4};
  static const uint8_t bytes[3] = {7, 8, 9};
  static const ist_st_item items[] = {{"z.bytes", IST_U8, 1, {3}, .data = bytes},
                                      {"half", IST_BF16, 2, {2, 2}, .data = half},
                                      {"b\"\\\n\xc3\xa9", IST_F32, 2, {3, 2}, .data = weights},
                                      {"a", IST_F32, 2, {2, 0}, .data = weights},
                                      {"steps", IST_I64, 1, {3}, .data = steps},
                                      {"scalar", IST_F32, 0, {0}, .data = weights + 5}};
  static const char *const meta[][2] = {{"seed", "7"}, {"format", "np"}};
  assert_int_equal(ist_safetensors_write(path, items, 6, meta, 2, err), IST_OK);
}

static void test_round_trip(void **state) {
  (void)state;
  ist_error err = {0};
  write_sample(&err);
  ist_safetensors *s = open_ok();
  static const struct {
    const char *name;
    ist_dtype type;
    int64_t bytes;
  } expected[] = {{"steps", IST_I64, 24}, {"a", IST_F32, 0},     {"b\"\\\n\xc3\xa9", IST_F32, 24},
                  {"scalar", IST_F32, 4}, {"half", IST_BF16, 8}, {"z.bytes", IST_U8, 3}};
  assert_int_equal(s->n, 6);
  for (int i = 0; i < 6; i++) {
    assert_string_equal(s->tensor[i].name, expected[i].name);
    assert_int_equal(s->tensor[i].type, expected[i].type);
    assert_int_equal(s->tensor[i].bytes, expected[i].bytes);
    size_t align = (size_t)ist_dtype_get(expected[i].type)->bytes;
    assert_int_equal((uintptr_t)s->tensor[i].data % align, 0);
  }
  assert_int_equal(s->tensor[2].shape[0], 3);
  assert_int_equal(s->tensor[3].n_dims, 0);
  float five;
  memcpy(&five, s->tensor[3].data, 4);
  assert_true(five == 5);
  assert_memory_equal(s->tensor[5].data, "\x07\x08\x09", 3);
  assert_string_equal(ist_safetensors_meta(s, "format"), "pt");
  assert_string_equal(ist_safetensors_meta(s, "seed"), "7");
  ist_safetensors_close(s);
}

/* The reference writer's bytes for two tensors (safetensors 0.8.0). */
static void test_writer_bytes(void **state) {
  (void)state;
  ist_error err = {0};
  float x[2] = {1, -1};
  uint16_t y[1] = {0x3f80};
  ist_st_item items[] = {{"y", IST_BF16, 1, {1}, .data = y}, {"x", IST_F32, 2, {1, 2}, .data = x}};
  assert_int_equal(ist_safetensors_write(path, items, 2, NULL, 0, &err), IST_OK);
  static const char expected[] =
      "\x90\0\0\0\0\0\0\0"
      "{\"__metadata__\":{\"format\":\"pt\"},\"x\":{\"dtype\":\"F32\",\"shape\":[1,2],"
      "\"data_offsets\":[0,8]},\"y\":{\"dtype\":\"BF16\",\"shape\":[1],\"data_offsets\":[8,10]}}  "
      "\0\0\x80\x3f\0\0\x80\xbf\x80\x3f";
  ist_buf got = {0};
  assert_int_equal(ist_file_read(&got, path, 4096, &err), IST_OK);
  assert_int_equal(got.len, sizeof expected - 1);
  assert_memory_equal(got.p, expected, got.len);
  ist_buf_free(&got);
}

/* Byte i of the streamed tensor. */
static unsigned char byte_at(int64_t i) {
  return (unsigned char)(i % 251 + i / 65536);
}

typedef struct asked {
  int64_t next; /* byte that must come */
  int calls, fail_at;
} asked;

static ist_status read_next(void *user, int64_t offset, int64_t n, unsigned char *dst,
                            ist_error *err) {
  asked *a = user;
  if (a->calls++ == a->fail_at) return ist_fail(err, IST_ERR_IO, "no more bytes");
  assert_true(offset == a->next && n > 0 && n % (1 << 20) == 0);
  for (int64_t i = 0; i < n; i++) dst[i] = byte_at(offset + i);
  a->next += n;
  return IST_OK;
}

/* A tensor longer than a chunk comes in whole rows, in order, and once. */
static void test_stream(void **state) {
  (void)state;
  ist_error err = {0};
  asked a = {.fail_at = 1};
  const int64_t rows = 9, all = rows << 20;
  ist_st_item item = {"x", IST_U8, 2, {rows, 1 << 20}, .user = &a};
  assert_true(all > 2 * IST_TENSOR_CHUNK);
  unlink(path);
  assert_error(ist_safetensors_stream(path, &item, 1, read_next, &err), IST_ERR_IO, &err,
               "no more bytes");
  assert_int_equal(access(path, F_OK), -1);

  a = (asked){.fail_at = -1};
  if (ist_safetensors_stream(path, &item, 1, read_next, &err) != IST_OK)
    fail_msg("%s", err.message);
  assert_true(a.calls == 3 && a.next == all);
  ist_safetensors *s = open_ok();
  const ist_st_tensor *t = ist_safetensors_find(s, "x");
  assert_true(t->bytes == all);
  for (int64_t i = 0; i < all; i++)
    if (t->data[i] != byte_at(i)) fail_msg("byte %lld", (long long)i);
  ist_safetensors_close(s);
}

static void test_writer_refuses(void **state) {
  (void)state;
  ist_error err = {0};
  float x = 1;
  char *other = ist_path_join(folder, "other.safetensors");
  ist_st_item twice[] = {{"x", IST_F32, 0, {0}, .data = &x}, {"x", IST_F32, 0, {0}, .data = &x}};
  assert_error(ist_safetensors_write(other, twice, 2, NULL, 0, &err), IST_ERR_ARG, &err,
               "tensor 'x' is to be written twice");
  ist_st_item bad[] = {{"\xff", IST_F32, 0, {0}, .data = &x}};
  assert_error(ist_safetensors_write(other, bad, 1, NULL, 0, &err), IST_ERR_ARG, &err, "UTF-8");
  static const char *const meta[][2] = {{"k", "\xff"}};
  assert_error(ist_safetensors_write(other, twice, 1, meta, 1, &err), IST_ERR_ARG, &err, "'k'");
  assert_false(ist_file_exists(other));
  ist_free(other);
}

static void test_truncated_anywhere(void **state) {
  (void)state;
  ist_error err = {0};
  write_sample(&err);
  ist_buf b = {0};
  assert_int_equal(ist_file_read(&b, path, 1 << 20, &err), IST_OK);
  for (size_t len = b.len; len-- > 0;) {
    assert_int_equal(truncate(path, (off_t)len), 0);
    ist_safetensors *s;
    ist_status status = ist_safetensors_open(&s, path, &err);
    if (status != IST_ERR_FORMAT || s) fail_msg("cut to %zu bytes: status %d", len, status);
  }
  ist_buf_free(&b);
}

static void test_any_byte_changed(void **state) {
  (void)state;
  static const char other[] = {0, '"', '0', '9', '}', '-', (char)0xff};
  ist_error err = {0};
  write_sample(&err);
  ist_buf b = {0};
  assert_int_equal(ist_file_read(&b, path, 1 << 20, &err), IST_OK);
  unsigned opened = 0, refused = 0;
  for (size_t at = 0; at < b.len; at++) {
    for (size_t k = 0; k < sizeof other; k++) {
      char saved = b.p[at];
      b.p[at] = other[k];
      write_bytes(path, b.p, b.len);
      b.p[at] = saved;
      ist_safetensors *s;
      if (ist_safetensors_open(&s, path, &err) != IST_OK) {
        refused++;
        continue;
      }
      opened++;
      unsigned sum = 0;
      for (int64_t i = 0; i < s->n; i++)
        for (int64_t j = 0; j < s->tensor[i].bytes; j++) sum += s->tensor[i].data[j];
      assert_true(sum > 0);
      ist_safetensors_close(s);
    }
  }
  assert_true(opened > 100 && refused > 1000);
  ist_buf_free(&b);
}

static void test_out_of_memory(void **state) {
  (void)state;
  ist_error err = {0};
  write_sample(&err);
  uint64_t n = 1;
  for (ist_status status = IST_ERR_NOMEM; status != IST_OK; n++) {
    ist_safetensors *s;
    ist_alloc_fail_at(n);
    status = ist_safetensors_open(&s, path, &err);
    ist_alloc_fail_at(0);
    assert_true(status == IST_OK || status == IST_ERR_NOMEM);
    ist_safetensors_close(s);
  }
  assert_true(n > 8);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_reader_values),    cmocka_unit_test(test_to_f32),
      cmocka_unit_test(test_layouts_that_lie), cmocka_unit_test(test_entries_that_lie),
      cmocka_unit_test(test_headers_that_lie), cmocka_unit_test(test_round_trip),
      cmocka_unit_test(test_writer_bytes),     cmocka_unit_test(test_stream),
      cmocka_unit_test(test_writer_refuses),   cmocka_unit_test(test_truncated_anywhere),
      cmocka_unit_test(test_any_byte_changed), cmocka_unit_test(test_out_of_memory),
  };
  return cmocka_run_group_tests(tests, setup, teardown);
}
