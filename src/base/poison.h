/* Memory that may not be touched. Under the address sanitizer a read or write there is reported;
 * in other builds nothing is done. */
#ifndef IST_BASE_POISON_H
#define IST_BASE_POISON_H

#if defined(__SANITIZE_ADDRESS__)
#define IST_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define IST_ASAN 1
#endif
#endif

#ifdef IST_ASAN
#include <sanitizer/asan_interface.h>
#define IST_POISON(p, n)   ASAN_POISON_MEMORY_REGION(p, n)
#define IST_UNPOISON(p, n) ASAN_UNPOISON_MEMORY_REGION(p, n)
#else
#define IST_POISON(p, n)   ((void)(p), (void)(n))
#define IST_UNPOISON(p, n) ((void)(p), (void)(n))
#endif

#endif
