#include "base/parallel.h"

#include <stdatomic.h>

#include "ist.h"

#ifdef _OPENMP
#include <omp.h>
#endif

/* 0: never set. Process-wide by contract (ist.h). */
static atomic_int threads_set;

void ist_set_threads(int n) {
#ifdef _OPENMP
  if (n <= 0) n = omp_get_num_procs();
  /* For libraries that share the pool (oneDNN); holds for the calling thread,
   * as OpenMP has it. */
  omp_set_num_threads(n);
#else
  if (n <= 0) n = 1;
#endif
  atomic_store(&threads_set, n);
}

int ist_get_threads(void) {
  int n = atomic_load(&threads_set);
  if (n > 0) return n;
#ifdef _OPENMP
  return omp_get_max_threads();
#else
  return 1;
#endif
}

#ifdef _OPENMP

/* This thread's number in the team of a loop of ours, 0 outside one: scratch is per thread. In a
 * region of a program that uses the library, omp_get_thread_num counts the program's team. */
static _Thread_local int own_number;

/* Runs the whole range here when it is small, nested, or there is one thread. */
static bool run_inline(int64_t n, int64_t grain, ist_parallel_fn fn, void *arg) {
  if (n / grain >= 2 && !omp_in_parallel() && ist_get_threads() > 1) return false;
  if (n > 0) fn(arg, 0, n, own_number);
  return true;
}

static void run_chunk(int64_t begin, int64_t end, ist_parallel_fn fn, void *arg) {
  own_number = omp_get_thread_num();
  fn(arg, begin, end, own_number);
  own_number = 0;
}

void ist_parallel_for(int64_t n, int64_t grain, ist_parallel_fn fn, void *arg) {
  if (grain < 1) grain = 1;
  if (run_inline(n, grain, fn, arg)) return;
  int64_t chunks = n / grain;
  if (chunks > ist_get_threads()) chunks = ist_get_threads();
  int64_t size = n / chunks, longer = n % chunks; /* the first `longer` get one more */
  /* A loop over chunks, because the team may be smaller than asked for. */
#pragma omp parallel for schedule(static, 1) num_threads((int)chunks)
  for (int64_t i = 0; i < chunks; i++) {
    int64_t begin = i * size + (i < longer ? i : longer);
    run_chunk(begin, begin + size + (i < longer), fn, arg);
  }
}

void ist_parallel_for_dynamic(int64_t n, int64_t grain, ist_parallel_fn fn, void *arg) {
  if (grain < 1) grain = 1;
  if (run_inline(n, grain, fn, arg)) return;
  int64_t chunks = n / grain + (n % grain != 0);
  int team = chunks < ist_get_threads() ? (int)chunks : ist_get_threads();
#pragma omp parallel for schedule(dynamic, 1) num_threads(team)
  for (int64_t i = 0; i < chunks; i++) {
    int64_t begin = i * grain;
    run_chunk(begin, n - begin < grain ? n : begin + grain, fn, arg);
  }
}

#else

static void run_serially(int64_t n, ist_parallel_fn fn, void *arg) {
  if (n > 0) fn(arg, 0, n, 0);
}

void ist_parallel_for(int64_t n, int64_t grain, ist_parallel_fn fn, void *arg) {
  (void)grain;
  run_serially(n, fn, arg);
}

void ist_parallel_for_dynamic(int64_t n, int64_t grain, ist_parallel_fn fn, void *arg) {
  (void)grain;
  run_serially(n, fn, arg);
}

#endif
