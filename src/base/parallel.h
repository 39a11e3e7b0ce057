/* The one place where work is spread over threads. */
#ifndef IST_BASE_PARALLEL_H
#define IST_BASE_PARALLEL_H

#include <stdint.h>

/* Called with a half-open range of items and the number of the thread. */
typedef void (*ist_parallel_fn)(void *arg, int64_t begin, int64_t end, int thread);

/* Runs fn over [0, n) in contiguous chunks of at least `grain` items, one chunk
 * a thread. The split depends on n, grain and the thread count only. Nested
 * calls run on the calling thread. Results must not depend on the split:
 * reductions keep one partial sum per fixed block of items, never per thread. */
void ist_parallel_for(int64_t n, int64_t grain, ist_parallel_fn fn, void *arg);

/* As above, but threads take chunks of `grain` items as they become free
 * (items of very different cost, such as attention segments). */
void ist_parallel_for_dynamic(int64_t n, int64_t grain, ist_parallel_fn fn, void *arg);

#endif
