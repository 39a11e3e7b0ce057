/* Files in a fresh directory: maps, the cursor, atomic writes, paths. */
#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/poison.h"

static char dir[] = "/tmp/ist-file-XXXXXX";

static int enter(void **state) {
  (void)state;
  return mkdtemp(dir) && chdir(dir) == 0 ? 0 : -1;
}

static int leave(void **state) {
  (void)state;
  return chdir("/") == 0 && ist_remove_tree(dir, NULL) == IST_OK ? 0 : -1;
}

static int entries(const char *path) {
  DIR *d = opendir(path);
  assert_non_null(d);
  int n = -2;
  while (readdir(d)) n++;
  closedir(d);
  return n;
}

static void must_contain(const char *path, const void *bytes, size_t len) {
  ist_buf b = {0};
  assert_int_equal(ist_file_read(&b, path, 1 << 22, NULL), IST_OK);
  assert_int_equal(b.len, len);
  assert_memory_equal(b.p, bytes, len);
  assert_int_equal(b.p[len], 0);
  ist_buf_free(&b);
}

static void test_map(void **state) {
  (void)state;
  ist_map m;
  ist_error err;
  assert_int_equal(ist_map_open(&m, "absent", &err), IST_ERR_IO);
  assert_non_null(strstr(err.message, "'absent': No such file"));
  assert_null(m.p);
  assert_int_equal(ist_map_open(&m, ".", &err), IST_ERR_IO);
  assert_non_null(strstr(err.message, "a directory"));
  assert_int_equal(ist_map_open(&m, "/dev/zero", &err), IST_ERR_IO);
  assert_int_equal(mkfifo("fifo", 0600), 0);
  assert_int_equal(ist_map_open(&m, "fifo", &err), IST_ERR_IO); /* and does not wait */
  unlink("fifo");
  assert_int_equal(ist_file_write("empty", "", 0, NULL), IST_OK);
  assert_int_equal(ist_map_open(&m, "empty", &err), IST_ERR_FORMAT);
  assert_int_equal(ist_file_write("five", "12345", 5, NULL), IST_OK);
  assert_int_equal(ist_map_open(&m, "five", &err), IST_OK);
  assert_int_equal(m.size, 5);
  assert_memory_equal(m.p, "12345", 5);
  ist_map_close(&m);
  ist_map_close(&m);
  unlink("empty");
  unlink("five");
}

/* The system maps whole pages: what lies behind the file must be out of bounds all the same. */
static void test_map_end(void **state) {
  (void)state;
#ifdef IST_ASAN
  ist_map m;
  assert_int_equal(ist_file_write("five", "12345", 5, NULL), IST_OK);
  assert_int_equal(ist_map_open(&m, "five", NULL), IST_OK);
  const unsigned char *end = m.p + m.size;
  assert_false(__asan_address_is_poisoned(end - 1));
  assert_true(__asan_address_is_poisoned(end));
  assert_true(__asan_address_is_poisoned(m.p + sysconf(_SC_PAGESIZE) - 1));
  ist_map_close(&m);
  assert_false(__asan_address_is_poisoned(end)); /* which may be mapped anew by anybody */
  unlink("five");
#else
  skip();
#endif
}

static void test_read(void **state) {
  (void)state;
  ist_buf b = {0};
  ist_error err;
  assert_int_equal(ist_file_write("f", "12345", 5, NULL), IST_OK);
  assert_int_equal(ist_file_read(&b, "f", 5, &err), IST_OK);
  assert_string_equal(b.p, "12345");
  assert_int_equal(ist_file_read(&b, "f", 4, &err), IST_ERR_FORMAT);
  assert_non_null(strstr(err.message, "at most 4 bytes"));
  assert_int_equal(ist_file_read_any(&b, "/dev/zero", 100000, &err), IST_ERR_FORMAT);
  assert_int_equal(ist_file_read(&b, "/dev/zero", 100000, &err), IST_ERR_IO);
  assert_non_null(strstr(err.message, "a device or pipe, expected a regular file"));
  assert_int_equal(ist_file_read(&b, ".", 4, &err), IST_ERR_IO);
  assert_int_equal(ist_file_read(&b, "absent", 4, &err), IST_ERR_IO);
  unlink("f");
  ist_buf_free(&b);
}

/* A pipe that nobody writes into is refused at once; one that the user names is read. */
static void test_pipes(void **state) {
  (void)state;
  ist_buf b = {0};
  ist_error err;
  int ends[2];
  char name[32];
  assert_int_equal(mkfifo("fifo", 0600), 0);
  alarm(30);
  assert_int_equal(ist_file_read(&b, "fifo", 5, &err), IST_ERR_IO);
  alarm(0);
  assert_non_null(strstr(err.message, "cannot read 'fifo'"));
  unlink("fifo");
  assert_int_equal(pipe(ends), 0);
  assert_int_equal(write(ends[1], "12345", 5), 5);
  close(ends[1]);
  snprintf(name, sizeof name, "/dev/fd/%d", ends[0]);
  assert_int_equal(ist_file_read_any(&b, name, 5, &err), IST_OK);
  assert_string_equal(b.p, "12345");
  close(ends[0]);
  ist_buf_free(&b);
}

static void test_cursor(void **state) {
  (void)state;
  const unsigned char bytes[] = {1, 0x34, 0x12, 0x78, 0x56, 0x34, 0x92, 8,
                                 7, 6,    5,    4,    3,    2,    0x81, 9};
  ist_cursor c = {.p = bytes, .size = sizeof bytes};
  assert_int_equal(ist_read_u8(&c), 1);
  assert_int_equal(ist_read_u16(&c), 0x1234);
  assert_int_equal(ist_read_u32(&c), 0x92345678u);
  assert_true(ist_read_u64(&c) == 0x8102030405060708ull);
  assert_ptr_equal(ist_read_bytes(&c, 1), bytes + 15);
  assert_non_null(ist_read_bytes(&c, 0));
  assert_false(c.failed);
  assert_null(ist_read_bytes(&c, 1));
  assert_true(c.failed);
  assert_null(ist_read_bytes(&c, 0)); /* sticks */

  for (size_t size = 0; size < 8; size++) {
    c = (ist_cursor){.p = bytes, .size = size};
    assert_int_equal(ist_read_u64(&c), 0);
    assert_true(c.failed);
  }
  c = (ist_cursor){.p = bytes, .size = sizeof bytes, .at = 3};
  assert_null(ist_read_bytes(&c, UINT64_MAX - 1)); /* no wrap around */
  assert_true(c.failed);
}

static void test_atomic_write(void **state) {
  (void)state;
  ist_wfile f;
  assert_int_equal(ist_file_write("out", "old", 3, NULL), IST_OK);
  assert_int_equal(ist_wfile_open(&f, "out", NULL), IST_OK);
  ist_wfile_write(&f, "ne", 2);
  ist_wfile_printf(&f, "%c%d", 'w', 1);
  assert_int_equal(f.size, 4);
  assert_int_equal(entries("."), 2);
  must_contain("out", "old", 3); /* until committed */
  assert_int_equal(ist_wfile_commit(&f, NULL), IST_OK);
  must_contain("out", "new1", 4);
  ist_wfile_close(&f);
  assert_int_equal(entries("."), 1);

  assert_int_equal(ist_wfile_open(&f, "out", NULL), IST_OK);
  ist_wfile_write(&f, "discarded", 9);
  ist_wfile_close(&f);
  ist_wfile_close(&f);
  must_contain("out", "new1", 4);
  assert_int_equal(entries("."), 1);
  f = (ist_wfile){0}; /* never opened: standard input must survive */
  int before = fcntl(0, F_GETFD);
  ist_wfile_close(&f);
  assert_int_equal(fcntl(0, F_GETFD), before);

  /* Two writers of one name do not disturb each other. */
  ist_wfile g;
  assert_int_equal(ist_wfile_open(&f, "out", NULL), IST_OK);
  assert_int_equal(ist_wfile_open(&g, "out", NULL), IST_OK);
  ist_wfile_write(&f, "first", 5);
  ist_wfile_write(&g, "second", 6);
  assert_int_equal(ist_wfile_commit(&f, NULL), IST_OK);
  must_contain("out", "first", 5);
  assert_int_equal(ist_wfile_commit(&g, NULL), IST_OK);
  must_contain("out", "second", 6);
  assert_int_equal(entries("."), 1);
  unlink("out");
}

/* Pieces smaller and larger than the buffer keep their order. */
static void test_large_write(void **state) {
  (void)state;
  enum { N = 3 << 20 };
  unsigned char *bytes = malloc(N);
  for (size_t i = 0; i < N; i++) bytes[i] = (unsigned char)(i * 2654435761u >> 13);
  ist_wfile f;
  assert_int_equal(ist_wfile_open(&f, "large", NULL), IST_OK);
  size_t at = 0, piece = 1;
  while (at < N) {
    size_t n = piece < N - at ? piece : N - at;
    ist_wfile_write(&f, bytes + at, n);
    at += n;
    piece = piece > 700000 ? 1 : piece * 3 + 1;
  }
  assert_int_equal(f.size, N);
  assert_int_equal(ist_wfile_commit(&f, NULL), IST_OK);
  must_contain("large", bytes, N);
  unlink("large");
  free(bytes);
}

static void test_refused_writes(void **state) {
  (void)state;
  ist_wfile f;
  ist_error err;
  assert_int_equal(ist_wfile_open(&f, "absent/out", &err), IST_ERR_IO);
  assert_non_null(strstr(err.message, "'absent/out'"));
  ist_wfile_close(&f);
  assert_int_equal(ist_wfile_open(&f, "/dev/null", &err), IST_ERR_IO);
  assert_int_equal(ist_wfile_open(&f, ".", &err), IST_ERR_IO);

  /* A full disk, by the limit on a file's size. */
  struct rlimit before, small = {1000, 1000};
  getrlimit(RLIMIT_FSIZE, &before);
  small.rlim_max = before.rlim_max;
  signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &small);
  assert_int_equal(ist_wfile_open(&f, "out", &err), IST_OK);
  for (int i = 0; i < 300; i++) ist_wfile_write(&f, "0123456789", 10);
  ist_status status = ist_wfile_commit(&f, &err);
  setrlimit(RLIMIT_FSIZE, &before);
  assert_int_equal(status, IST_ERR_IO);
  assert_non_null(strstr(err.message, "File too large"));
  assert_int_equal(entries("."), 0);

  assert_int_equal(ist_wfile_open(&f, "out", &err), IST_OK);
  ist_alloc_fail_at(1);
  ist_wfile_printf(&f, "%d", 1);
  ist_alloc_fail_at(0);
  assert_int_equal(ist_wfile_commit(&f, &err), IST_ERR_NOMEM);
  assert_int_equal(entries("."), 0);
}

static void test_paths(void **state) {
  (void)state;
  ist_error err;
  assert_int_equal(ist_mkdirs("a/b//c/", NULL), IST_OK);
  assert_int_equal(ist_mkdirs("a/b/c", NULL), IST_OK);
  assert_true(ist_file_exists("a/b/c"));
  assert_int_equal(ist_file_write("a/file", "x", 1, NULL), IST_OK);
  assert_int_equal(ist_mkdirs("a/file/d", &err), IST_ERR_IO);
  assert_non_null(strstr(err.message, "a/file"));
  assert_int_equal(ist_mkdirs("a/file", &err), IST_ERR_IO);
  assert_int_equal(ist_mkdirs("", &err), IST_ERR_IO);

  ist_write_fail_at(2); /* the directory is made, its name is not durable */
  assert_int_equal(ist_mkdirs("new", &err), IST_ERR_IO);
  assert_non_null(strstr(err.message, "cannot sync the directory of 'new'"));
  assert_int_equal(ist_remove_tree("new", NULL), IST_OK);

  char *p = ist_path_join("a", "file");
  assert_string_equal(p, "a/file");
  ist_free(p);
  p = ist_path_join("a/", "b");
  assert_string_equal(p, "a/b");
  ist_free(p);
  p = ist_path_join("", "b");
  assert_string_equal(p, "b");
  ist_free(p);

  /* A link is not followed: what it points to survives. */
  assert_int_equal(ist_mkdirs("outside", NULL), IST_OK);
  assert_int_equal(ist_file_write("outside/kept", "x", 1, NULL), IST_OK);
  assert_int_equal(symlink("../outside", "a/link"), 0);
  assert_int_equal(ist_remove_tree("a", &err), IST_ERR_IO);
  assert_true(ist_file_exists("outside/kept"));
  unlink("a/link");
  assert_int_equal(ist_remove_tree("a", NULL), IST_OK);
  assert_false(ist_file_exists("a"));
  assert_int_equal(ist_remove_tree("a", NULL), IST_OK);

  /* One file: the link itself; never a folder. */
  assert_int_equal(symlink("outside/kept", "link"), 0);
  assert_int_equal(ist_remove_file("link", &err), IST_OK);
  assert_true(ist_file_exists("outside/kept"));
  assert_int_equal(ist_remove_file("link", &err), IST_OK);
  assert_int_equal(ist_remove_file("outside", &err), IST_ERR_IO);
  assert_non_null(strstr(err.message, "cannot remove 'outside'"));
  assert_int_equal(ist_remove_file("outside/kept", &err), IST_OK);
  assert_false(ist_file_exists("outside/kept"));
  assert_int_equal(ist_remove_tree("outside", NULL), IST_OK);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_map),
      cmocka_unit_test(test_map_end),
      cmocka_unit_test(test_read),
      cmocka_unit_test(test_pipes),
      cmocka_unit_test(test_cursor),
      cmocka_unit_test(test_atomic_write),
      cmocka_unit_test(test_large_write),
      cmocka_unit_test(test_refused_writes),
      cmocka_unit_test(test_paths),
  };
  return cmocka_run_group_tests(tests, enter, leave);
}
