/* Every item once, whatever the split. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/parallel.h"
#include "ist.h"

enum { MAX = 1000 };

typedef struct job {
  _Atomic unsigned char seen[MAX];
  atomic_int calls, smallest, threads;
  int64_t begins[MAX];
} job;

static void mark(void *arg, int64_t begin, int64_t end, int thread) {
  job *j = arg;
  int call = atomic_fetch_add(&j->calls, 1);
  j->begins[call] = begin;
  int size = (int)(end - begin), before = atomic_load(&j->smallest);
  while (size < before && !atomic_compare_exchange_weak(&j->smallest, &before, size)) {
  }
  atomic_fetch_or(&j->threads, 1 << thread);
  for (int64_t i = begin; i < end; i++) atomic_fetch_add(&j->seen[i], 1);
}

static void check(job *j, int64_t n, int max_calls) {
  for (int64_t i = 0; i < MAX; i++) assert_int_equal(j->seen[i], i < n);
  assert_in_range(j->calls, n > 0, max_calls);
}

static void test_every_item_once(void **state) {
  (void)state;
  static job j;
  for (int threads = 1; threads <= 5; threads++) {
    ist_set_threads(threads);
    assert_int_equal(ist_get_threads(), threads);
    for (int64_t n = 0; n <= MAX; n = n < 20 ? n + 1 : n * 3 / 2 + 1)
      for (int64_t grain = 0; grain < 70; grain = grain * 2 + 1) {
        int64_t unit = grain ? grain : 1;
        memset(&j, 0, sizeof j);
        j.smallest = MAX;
        ist_parallel_for(n, grain, mark, &j);
        check(&j, n, threads);
        if (j.calls > 1) assert_true(j.smallest >= unit);
        if (n < 2 * unit || threads == 1) assert_in_range(j.calls, 0, 1);
        assert_true(j.threads < 1 << threads);

        memset(&j, 0, sizeof j);
        j.smallest = MAX;
        ist_parallel_for_dynamic(n, grain, mark, &j);
        check(&j, n, MAX);
        assert_true(j.threads < 1 << threads);
      }
  }
  ist_set_threads(0);
  assert_true(ist_get_threads() >= 1);
}

#ifdef _OPENMP
/* The split is a function of n, grain and threads. */
static void test_split(void **state) {
  (void)state;
  static job j;
  ist_set_threads(3);
  memset(&j, 0, sizeof j);
  j.smallest = MAX;
  ist_parallel_for(11, 2, mark, &j);
  assert_int_equal(j.calls, 3);
  int64_t sum = 0;
  for (int i = 0; i < 3; i++) sum |= 1 << j.begins[i];
  assert_int_equal(sum, 1 << 0 | 1 << 4 | 1 << 8);
  ist_set_threads(0);
}

static void keep_thread(void *arg, int64_t begin, int64_t end, int thread) {
  (void)begin, (void)end;
  if (thread != 0) atomic_store((atomic_int *)arg, 1);
}

/* In a parallel region of the program every thread is the first of its own loops. */
static void test_foreign_region(void **state) {
  (void)state;
  atomic_int wrong = 0;
  ist_set_threads(1);
#pragma omp parallel num_threads(4)
  {
    ist_parallel_for(8, 1, keep_thread, &wrong);
    ist_parallel_for_dynamic(8, 1, keep_thread, &wrong);
  }
  assert_int_equal(wrong, 0);
  ist_set_threads(0);
}
#endif

typedef struct outer {
  job inner;
  atomic_int wrong_thread;
} outer;

static int outer_thread(int thread) {
  static _Thread_local int kept;
  if (thread >= 0) kept = thread;
  return kept;
}

static void nested_item(void *arg, int64_t begin, int64_t end, int thread) {
  outer *o = arg;
  if (thread != outer_thread(-1)) atomic_store(&o->wrong_thread, 1);
  mark(&o->inner, begin, end, thread);
}

static void nested(void *arg, int64_t begin, int64_t end, int thread) {
  (void)begin, (void)end;
  outer_thread(thread);
  ist_parallel_for(MAX, 1, nested_item, arg);
}

/* A nested call runs on its caller, under the caller's thread number. */
static void test_nested(void **state) {
  (void)state;
  static outer o;
  o.inner.smallest = MAX;
  ist_set_threads(4);
  ist_parallel_for_dynamic(8, 1, nested, &o);
  assert_int_equal(o.wrong_thread, 0);
  assert_int_equal(o.inner.smallest, MAX);
  for (int i = 0; i < MAX; i++) assert_int_equal(o.inner.seen[i], o.inner.calls);
  ist_set_threads(0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_every_item_once),
#ifdef _OPENMP
      cmocka_unit_test(test_split),
      cmocka_unit_test(test_foreign_region),
#endif
      cmocka_unit_test(test_nested),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
