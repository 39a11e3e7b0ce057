/* Files made to take memory or time out of proportion to their size. */
#include "files.h"

#include <malloc.h>

#include "format/gguf.h"
#include "format/json.h"
#include "format/peft_dir.h"
#include "format/safetensors.h"
#include "format/source.h"
#include "hang.h"

/* Of processor time: more than any of these takes under the sanitizers; without its limit each
 * takes longer. */
enum { SECONDS = 12 };

static char *folder;

static int setup(void **state) {
  (void)state;
  folder = make_folder();
  return 0;
}

static int teardown(void **state) {
  (void)state;
  remove_folder(folder);
  return 0;
}

static char *put(const char *name, const ist_buf *b) {
  char *path = ist_path_join(folder, name);
  write_bytes(path, b->p, b->len);
  return path;
}

/* ---- Names that collide ---- */

enum { BLOCK = 8, BLOCKS = 17 };

static uint32_t fnv(uint32_t h, const char *p) {
  for (int i = 0; i < BLOCK; i++) h = (h ^ (unsigned char)p[i]) * 16777619u;
  return h;
}

/* Eight letters, others for every i. */
static void spell(char out[BLOCK], uint32_t i) {
  uint64_t mixed = (uint64_t)i * UINT64_C(0x9E3779B97F4A7C15);
  for (int k = 0; k < BLOCK; k++) out[k] = (char)('A' + (mixed >> (24 + 5 * k) & 31));
}

/* Two blocks that take FNV from *h to the same value, which becomes *h. */
static void find_twins(char twins[2][BLOCK], uint32_t *h) {
  enum { PLACES = 1 << 20 };
  uint32_t *seen = calloc(PLACES, sizeof *seen), i = 1;
  char block[BLOCK];
  assert_non_null(seen);
  for (;; i++) {
    spell(block, i);
    uint32_t to = fnv(*h, block), *place = &seen[to >> 12];
    spell(twins[0], *place);
    if (*place && fnv(*h, twins[0]) == to) break;
    *place = i;
  }
  memcpy(twins[1], block, BLOCK);
  *h = fnv(*h, block);
  free(seen);
}

/* 2^17 keys whose FNV-1a, with the usual beginning, is the same. */
static void test_keys_that_collide(void **state) {
  (void)state;
  char twins[BLOCKS][2][BLOCK];
  uint32_t h = 2166136261u;
  const uint32_t version = 3, type = 0;
  const uint64_t tensors = 0, keys = 1 << BLOCKS, len = BLOCK * BLOCKS;
  for (int k = 0; k < BLOCKS; k++) find_twins(twins[k], &h);
  ist_buf b = {0};
  ist_buf_str(&b, "GGUF");
  ist_buf_add(&b, &version, 4);
  ist_buf_add(&b, &tensors, 8);
  ist_buf_add(&b, &keys, 8);
  for (uint64_t i = 0; i < keys; i++) {
    ist_buf_add(&b, &len, 8);
    for (int k = 0; k < BLOCKS; k++) ist_buf_add(&b, twins[k][i >> k & 1], BLOCK);
    ist_buf_add(&b, &type, 4);
    ist_buf_add(&b, "x", 1);
  }
  char *path = put("keys.gguf", &b);
  ist_gguf *g;
  ist_error err = {0};
  hang_after(SECONDS);
  if (ist_gguf_open(&g, path, &err) != IST_OK) fail_msg("%s", err.message);
  hang_after(0);
  assert_int_equal(g->n_kv, keys);
  ist_gguf_close(g);
  ist_buf_free(&b);
  ist_free(path);
}

/* ---- JSON ---- */

static size_t held;

/* As glibc rounds it, also under the sanitizer, which does not. */
static size_t chunk(void *p) {
  size_t n = (malloc_usable_size(p) + 8 + 15) & ~(size_t)15;
  return n < 32 ? 32 : n;
}

static void *count_malloc(size_t n) {
  void *p = malloc(n);
  if (p) held += chunk(p);
  return p;
}
static void count_free(void *p) {
  if (p) held -= chunk(p);
  free(p);
}

/* n times `unit` (%d: its number) between the two. */
static void repeat(ist_buf *b, const char *open, const char *unit, const char *close, int n) {
  ist_buf_clear(b);
  ist_buf_str(b, open);
  const char *at = strstr(unit, "%d");
  for (int i = 0; i < n; i++) {
    if (i) ist_buf_str(b, ",");
    if (at) {
      ist_buf_add(b, unit, (size_t)(at - unit));
      char number[16];
      snprintf(number, sizeof number, "%d", i);
      ist_buf_str(b, number);
    }
    ist_buf_str(b, at ? at + 2 : unit);
  }
  ist_buf_str(b, close);
  assert_false(b->failed);
}

static const struct {
  const char *open, *unit, *close;
} shapes[] = {
    {"{\"a\":[", "{}", "]}"},
    {"{\"a\":[", "[]", "]}"},
    {"{\"a\":[", "1", "]}"},
    {"{\"a\":[", "1e0", "]}"},
    {"{\"a\":[", "\"\"", "]}"},
    {"{\"a\":[", "{\"a\":{}}", "]}"},
    {"{\"a\":[", "[[[[[[]]]]]]", "]}"},
    {"{\"a\":[", "[\"a\",\"b\"]", "]}"},
    {"{\"a\":[", "[1,2,3,4,5,6,7,8,9]", "]}"},
    {"{\"a\":[", "{\"a\":1,\"b\":2,\"c\":3,\"d\":4,\"e\":5,\"f\":6,\"g\":7,\"h\":8,\"i\":9}", "]}"},
    {"{\"a\":[", "\"a string of some more characters, \\\"quoted\\\\\"", "]}"},
    {"{", "\"%d\":null", "}"},
    {"{", "\"%d\":\"%d\"", "}"},
    {"{", "\"a%d\":{\"dtype\":\"F32\",\"shape\":[1,1],\"data_offsets\":[0,4]}", "}"},
};

/* What is counted is no less than jansson takes, and not much more. */
static void test_json_memory(void **state) {
  (void)state;
  json_malloc_t old_malloc;
  json_free_t old_free;
  json_get_alloc_funcs(&old_malloc, &old_free);
  json_set_alloc_funcs(count_malloc, count_free);
  for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
    ist_buf b = {0};
    size_t end, before = held;
    repeat(&b, shapes[i].open, shapes[i].unit, shapes[i].close, 10000);
    size_t counted = ist_json_memory(b.p, b.len, SIZE_MAX, &end);
    assert_int_equal(end, b.len);
    json_t *v = json_loadb(b.p, b.len, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(v);
    size_t taken = held - before;
    if (counted < taken || counted > 2 * taken + 65536)
      fail_msg("%s: counted %zu, taken %zu", shapes[i].unit, counted, taken);
    json_decref(v);
    ist_buf_free(&b);
  }
  json_set_alloc_funcs(old_malloc, old_free);
}

static void test_json_values(void **state) {
  (void)state;
  static const struct {
    const char *text;
    size_t end;
  } cases[] = {{"{\"a\":\"}\"} {", 9},     {"[\"\\\"]\"],", 7}, {"1,2", 1}, {"\"a\"]", 3},
               {"{\"a\":[1", 7},           {"\"abc", 4},        {"", 0},    {"]", 0},
               {"{\"\\\\\\\\\":1}[]", 10}, {"[\"\\", 3}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    size_t len = strlen(cases[i].text), end;
    char *exact = malloc(len + 1); /* the sanitizer guards both ends */
    memcpy(exact, cases[i].text, len);
    ist_json_memory(exact, len, SIZE_MAX, &end);
    if (end != cases[i].end) fail_msg("%s: ends at %zu", cases[i].text, end);
    free(exact);
  }
}

/* As a vocabulary and merges of a quarter and half a million: the most there are. */
static void test_largest_tokenizer(void **state) {
  (void)state;
  ist_buf vocab = {0}, merges = {0};
  repeat(&vocab, "{\"vocab\":{", "\"t%d-token\":123456", "}", 262144);
  repeat(&merges, ",\"merges\":[", "[\"abcdef%d\",\"ghijkl\"]", "]}", 514906);
  ist_buf_add(&vocab, merges.p, merges.len);
  assert_in_range(vocab.len, 1, IST_JSON_TOKENIZER.text);
  assert_in_range(ist_json_memory(vocab.p, vocab.len, SIZE_MAX, NULL), 1,
                  IST_JSON_TOKENIZER.memory);
  ist_buf_free(&vocab);
  ist_buf_free(&merges);
}

static void must_name(ist_status status, const ist_error *err, const char *file) {
  assert_error(status, IST_ERR_FORMAT, err, file);
  assert_error(status, IST_ERR_FORMAT, err, "MiB of memory");
}

/* A few MB of "{}," in every kind of file. */
static void test_json_that_multiplies(void **state) {
  (void)state;
  ist_buf b = {0}, header = {0};
  ist_error err = {0};
  ist_source s;
  ist_peft_dir *d;
  ist_safetensors *st;
  repeat(&b, "{\"a\":[", "{}", "]}", 1 << 20);
  char *config = put("config.json", &b), *adapter = put("adapter_config.json", &b);
  hang_after(SECONDS);
  must_name(ist_source_open_folder(&s, folder, &err), &err, "config.json");
  must_name(ist_peft_open(&d, folder, &err), &err, "adapter_config.json");
  repeat(&b, "{\"a\":[", "{}", "]}", 4 << 20);
  const uint64_t len = b.len;
  ist_buf_add(&header, &len, 8);
  ist_buf_add(&header, b.p, b.len);
  char *tensors = put("x.safetensors", &header);
  must_name(ist_safetensors_open(&st, tensors, &err), &err, "x.safetensors");
  ist_buf_clear(&header);
  ist_buf_str(&header, "{}");
  write_bytes(config, "{}", 2);
  repeat(&b, "{\"weight_map\":{\"a\":[", "{}", "]}}", 2 << 20);
  char *index = put("model.safetensors.index.json", &b);
  must_name(ist_source_open_folder(&s, folder, &err), &err, "index.json");
  /* And one that is too long as it stands. */
  repeat(&b, "{\"a\":\"", "0123456789abcdef", "\"}", 1 << 20);
  write_bytes(config, b.p, b.len);
  assert_error(ist_source_open_folder(&s, folder, &err), IST_ERR_FORMAT, &err,
               "config.json' is too long: expected at most 16777216 bytes");
  hang_after(0);
  ist_free(config);
  ist_free(adapter);
  ist_free(tensors);
  ist_free(index);
  ist_buf_free(&b);
  ist_buf_free(&header);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_keys_that_collide),    cmocka_unit_test(test_json_memory),
      cmocka_unit_test(test_json_values),          cmocka_unit_test(test_largest_tokenizer),
      cmocka_unit_test(test_json_that_multiplies),
  };
  return cmocka_run_group_tests(tests, setup, teardown);
}
