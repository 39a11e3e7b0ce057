/* Heap, buffer, arena, errors and log. */
#include <locale.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/mem.h"

static void test_heap(void **state) {
  (void)state;
  assert_null(ist_calloc(SIZE_MAX / 2, 3));
  assert_null(ist_calloc(SIZE_MAX, 1));
  assert_null(ist_realloc(NULL, SIZE_MAX / 4, 8));
  void *nothing = ist_calloc(0, 8);
  assert_non_null(nothing);
  nothing = ist_realloc(nothing, 0, 8);
  assert_non_null(nothing);
  ist_free(nothing);
  ist_free(NULL);
  char *s = ist_strndup("abc\0def", 7);
  assert_memory_equal(s, "abc\0def", 8);
  ist_free(s);

  uint64_t before = ist_alloc_count();
  ist_alloc_fail_at(2);
  char *a = ist_strdup("x"), *b = ist_strdup("y"), *c = ist_strdup("z");
  assert_true(a && !b && c);
  assert_int_equal(ist_alloc_count() - before, 3);
  ist_free(a);
  ist_free(c);
}

static void test_buffer(void **state) {
  (void)state;
  ist_buf b = {0};
  char expected[3000] = "";
  for (int i = 0; i < 200; i++) {
    char item[16];
    snprintf(item, sizeof item, "%d,", i);
    strcat(expected, item);
    ist_buf_printf(&b, "%d%s", i, ",");
    assert_int_equal(strlen(b.p), b.len);
  }
  assert_false(b.failed);
  assert_string_equal(b.p, expected);
  ist_buf_clear(&b);
  ist_buf_add(&b, "a\0b", 3);
  ist_buf_str(&b, "c");
  ist_buf_add(&b, NULL, 0);
  assert_memory_equal(b.p, "a\0bc", 5);

  ist_buf each = {0}; /* every boundary of its growth: the sanitizer watches */
  for (int i = 0; i < 300; i++) {
    ist_buf_add(&each, "x", 1);
    assert_true(each.len < each.cap);
  }
  ist_buf_free(&each);

  ist_alloc_fail_at(1);
  ist_buf_printf(&b, "%9000d", 1);
  assert_true(b.failed);
  ist_buf_str(&b, "more"); /* sticks */
  assert_int_equal(b.len, 4);
  ist_buf_clear(&b);
  ist_buf_str(&b, "again");
  assert_false(b.failed);
  ist_buf_free(&b);
  assert_null(b.p);
}

static void test_grow(void **state) {
  (void)state;
  double *v = NULL;
  int64_t cap = 0;
  for (int64_t i = 0; i < 1000; i++) {
    assert_int_equal(ist_grow(&v, &cap, i + 1, sizeof *v, NULL), IST_OK);
    v[i] = (double)i;
  }
  for (int64_t i = 0; i < 1000; i++) assert_true(v[i] == (double)i);
  double *kept = v;
  ist_error err;
  assert_int_equal(ist_grow(&v, &cap, INT64_MAX / 4, sizeof *v, &err), IST_ERR_NOMEM);
  assert_ptr_equal(v, kept);
  ist_free(v);
}

static void test_arena(void **state) {
  (void)state;
  ist_arena a;
  assert_int_equal(ist_arena_init(&a, "test", 1000, NULL), IST_OK);
  unsigned char *p = ist_arena_alloc(&a, 1);
  size_t mark = ist_arena_mark(&a);
  unsigned char *q = ist_arena_alloc(&a, 130);
  assert_int_equal((uintptr_t)p % IST_ARENA_ALIGN, 0);
  assert_int_equal(q - p, 64);
  for (int i = 0; i < 130; i++) assert_int_equal(q[i], 0);
  memset(q, 7, 130);
  assert_int_equal(a.used, 64 + 192);
  ist_arena_reset(&a, mark);
  assert_ptr_equal(ist_arena_alloc(&a, 8), q);
  ist_arena_alloc(&a, 1000 - 128);
  assert_int_equal(a.used, 1000);
  assert_int_equal(a.peak, 1000);
  ist_arena_reset(&a, 0);
  assert_int_equal(a.peak, 1000);
  ist_arena_free(&a);
  ist_arena_free(&a);
  assert_null(a.base);

  ist_error err;
  assert_int_equal(ist_arena_init(&a, "huge", SIZE_MAX / 4, &err), IST_ERR_NOMEM);
  assert_non_null(strstr(err.message, "'huge'"));
  assert_int_equal(ist_arena_init(&a, "none", 0, NULL), IST_OK);
  ist_arena_free(&a);
}

/* More than was declared is our defect: the process stops, in every build. */
static void test_arena_overrun(void **state) {
  (void)state;
  for (int over = 0; over < 2; over++) {
    pid_t child = fork();
    if (child == 0) {
      ist_arena a;
      close(2);
      ist_arena_init(&a, "small", 256, NULL);
      ist_arena_alloc(&a, 64);
      _exit(ist_arena_alloc(&a, (size_t)(192 + over)) == NULL);
    }
    int result;
    assert_int_equal(waitpid(child, &result, 0), child);
    if (over)
      assert_true(WIFSIGNALED(result) && WTERMSIG(result) == SIGABRT);
    else
      assert_true(WIFEXITED(result) && WEXITSTATUS(result) == 0);
  }
}

static void test_error(void **state) {
  (void)state;
  ist_error err;
  assert_int_equal(ist_fail(NULL, IST_ERR_DATA, "x"), IST_ERR_DATA);
  ist_hint(NULL, "x");
  ist_error_context(NULL, "x");
  strcpy(err.hint, "old");
  assert_int_equal(ist_fail(&err, IST_ERR_DATA, "%s: %.2f", "f", 0.5), IST_ERR_DATA);
  assert_string_equal(err.message, "f: 0.50");
  assert_string_equal(err.hint, "");
  assert_int_equal(err.code, IST_ERR_DATA);
  ist_hint(&err, "try\n%d", 2);
  assert_string_equal(err.hint, "try?2");
  ist_error_context(&err, "file %d", 3);
  assert_string_equal(err.message, "file 3: f: 0.50");

  /* Control characters, DEL, C1 controls, broken and overlong UTF-8, surrogates. */
  ist_fail(&err, IST_ERR_DATA, "%s",
           "a\033[2Jb\x7f \xc2\x9b \xc3\xa9\xe4\xb8\xad\xf0\x9f\x98\x80 "
           "\xff\xc3 \xc0\x80 \xed\xa0\x80!");
  assert_string_equal(err.message, "a?[2Jb? ? \xc3\xa9\xe4\xb8\xad\xf0\x9f\x98\x80 ?\? ?\? ?\?\?!");

  /* Marks that turn the direction. */
  ist_fail(&err, IST_ERR_DATA, "%s", "a\xe2\x80\xae b\xe2\x81\xa6 \xd8\x9c \xe2\x80\xa9");
  assert_string_equal(err.message, "a? b? ? ?");

  /* Too long: cut, also in the middle of a character. */
  char text[3000];
  memset(text, 'x', sizeof text);
  for (size_t i = 1; i + 1 < sizeof text; i += 2) memcpy(text + i, "\xc3\xa9", 2);
  text[2999] = 0;
  ist_fail(&err, IST_ERR_DATA, "%s", text);
  assert_int_equal(strlen(err.message), sizeof err.message - 1);
  ist_error_context(&err, "%s", text);
  assert_int_equal(strlen(err.message), sizeof err.message - 1);
  ist_fail(&err, IST_ERR_DATA, "tail");
  ist_error_context(&err, "%s", text);
  assert_int_equal(strlen(err.message), sizeof err.message - 1);
  assert_string_equal(ist_status_name(IST_ERR_NOMEM), "out of memory");
  assert_string_equal(ist_status_name((ist_status)99), "unknown");
  assert_string_equal(ist_version(), "0.1.0");
}

/* A host program's locale must not turn 0.5 into 0,5. */
static void test_locale(void **state) {
  (void)state;
  static const char *const commas[] = {"de_DE.UTF-8", "fr_FR.UTF-8", "de_DE.utf8", "fr_FR.utf8"};
  bool found = false;
  for (int i = 0; i < 4 && !found; i++) found = setlocale(LC_ALL, commas[i]) != NULL;
  ist_buf b = {0};
  ist_buf_printf(&b, "%g", 0.5);
  setlocale(LC_ALL, "C");
  assert_string_equal(b.p, "0.5");
  ist_buf_free(&b);
  if (!found) skip();
}

static char logged[64];
static void keep_log(void *user, ist_log_level level, const char *message) {
  snprintf(logged, sizeof logged, "%d %d %s", *(int *)user, (int)level, message);
}

static void test_log(void **state) {
  (void)state;
  int user = 5;
  ist_log(IST_LOG_WARN, "nobody listens");
  ist_log_set(keep_log, &user);
  ist_log(IST_LOG_WARN, "a\tb %d", 7);
  assert_string_equal(logged, "5 2 a?b 7");
  ist_log_set(NULL, NULL);
  ist_log(IST_LOG_INFO, "gone");
  assert_string_equal(logged, "5 2 a?b 7");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_heap),          cmocka_unit_test(test_buffer),
      cmocka_unit_test(test_grow),          cmocka_unit_test(test_arena),
      cmocka_unit_test(test_arena_overrun), cmocka_unit_test(test_error),
      cmocka_unit_test(test_locale),        cmocka_unit_test(test_log),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
