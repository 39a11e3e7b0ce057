/* The fuzzer's mutations of GGUFs: most of them must get past the reader's check of where tensors
 * lie, or nothing behind it is ever tried. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../fuzz/mutate_gguf.c"

enum { TRIES = 400, MOST = 1 << 14 };

/* In libFuzzer's place: changes a byte. plain: it got the whole file. */
static size_t whole;
static bool plain;
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t most) {
  assert_true(size <= most);
  plain |= size == whole;
  if (size) data[(size_t)rand() % size] ^= (uint8_t)(1 + rand() % 255);
  return size;
}

/* Whether the file opens; *moved: it is refused for where its tensors lie. */
static bool opens(const uint8_t *data, size_t size, bool *moved) {
  static const char path[] = "mutant.gguf";
  ist_gguf *g;
  ist_error err = {0};
  FILE *f = fopen(path, "wb"); /* hundreds of them: none is worth a sync */
  assert_non_null(f);
  assert_int_equal(fwrite(data, 1, size, f), size);
  fclose(f);
  ist_status status = ist_gguf_open(&g, path, &err);
  *moved = strstr(err.message, "offset ") || strstr(err.message, "truncated: tensor");
  if (status == IST_OK) ist_gguf_close(g);
  return status == IST_OK;
}

static void one_seed(const char *name) {
  char path[512];
  ist_buf seed = {0};
  snprintf(path, sizeof path, "%s/../../fuzz/corpus/gguf/%s", IST_GOLDEN_DIR, name);
  assert_int_equal(ist_file_read(&seed, path, MOST, NULL), IST_OK);
  whole = seed.len;
  uint64_t n = u64_at((const uint8_t *)seed.p + 8);
  int tried = 0, opened = 0, refused = 0, other = 0, other_opened = 0;
  for (unsigned i = 0; i < TRIES; i++) {
    static uint8_t data[MOST];
    memcpy(data, seed.p, seed.len);
    plain = false;
    size_t size = LLVMFuzzerCustomMutator(data, seed.len, sizeof data, i);
    if (plain) continue;
    bool moved, ok = opens(data, size, &moved), fewer = u64_at(data + 8) != n;
    tried++;
    opened += ok;
    refused += moved;
    other += fewer;
    other_opened += ok && fewer;
  }
  print_message("%s: %d of %d open, %d are refused for places; tensors lost or added: %d of %d\n",
                name, opened, tried, refused, other_opened, other);
  assert_true(tried > TRIES / 2 && opened * 2 > tried && refused * 20 < tried);
  assert_true(other > 10 && other_opened * 3 > other);
  ist_buf_free(&seed);
}

static void test_mutants_open(void **state) {
  (void)state;
  static const char *const seed[] = {"adapter", "fused", "kinds", "llama-q4_0"};
  for (size_t i = 0; i < sizeof seed / sizeof *seed; i++) one_seed(seed[i]);
}

static char dir[] = "/tmp/ist-mutator-XXXXXX";

static int enter(void **state) {
  (void)state;
  return mkdtemp(dir) && chdir(dir) == 0 ? 0 : -1;
}

static int leave(void **state) {
  (void)state;
  return chdir("/") == 0 && ist_remove_tree(dir, NULL) == IST_OK ? 0 : -1;
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_mutants_open)};
  return cmocka_run_group_tests(tests, enter, leave);
}
