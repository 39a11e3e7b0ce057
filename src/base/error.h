/* Status, error and log helpers shared by every room. */
#ifndef IST_BASE_ERROR_H
#define IST_BASE_ERROR_H

#include <stdarg.h>

#include "ist.h"

/* Replaces, in place, what could drive a terminal, turns the direction of a text or is not UTF-8
 * by '?'. */
void ist_sanitise(char *s);

/* Fills `err` (may be NULL) with `code` and a formatted one-line message, sanitised, and
 * returns `code`. Clears the hint. */
ist_status ist_fail(ist_error *err, ist_status code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Adds a hint to an error already filled by ist_fail; err may be NULL. */
void ist_hint(ist_error *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Puts "CONTEXT: " in front of the message of `err`, e.g. the file's path. */
void ist_error_context(ist_error *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* vsnprintf in the C locale, whatever the host program has set: a decimal point
 * is a point. Every formatted text of the library goes through here. */
int ist_vformat(char *dst, size_t cap, const char *fmt, va_list args);

void ist_log(ist_log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Returns from the calling function when `expr` is not IST_OK. */
#define IST_TRY(expr)                                    \
  do {                                                   \
    ist_status ist_try_status = (expr);                  \
    if (ist_try_status != IST_OK) return ist_try_status; \
  } while (0)

/* Our own bugs only, never input: prints where and aborts in every build. */
_Noreturn void ist_assert_failed(const char *expr, const char *file, int line);
#define IST_ASSERT(expr)                                       \
  do {                                                         \
    if (!(expr)) ist_assert_failed(#expr, __FILE__, __LINE__); \
  } while (0)

#endif
