#include "base/error.h"

#include <locale.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

int ist_vformat(char *dst, size_t cap, const char *fmt, va_list args) {
  locale_t c = newlocale(LC_ALL_MASK, "C", (locale_t)0);
  locale_t before = c ? uselocale(c) : (locale_t)0;
  int n = vsnprintf(dst, cap, fmt, args);
  if (c) {
    uselocale(before);
    freelocale(c);
  }
  return n;
}

/* C1 controls (U+0080..U+009F) count: some terminals obey them. So do the marks that turn the
 * direction of what is shown: a name could read as another. */
static bool is_harmful(utf8proc_int32_t c) {
  return c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0x61c || c == 0x200e || c == 0x200f ||
         (c >= 0x2028 && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069);
}

void ist_sanitise(char *s) {
  unsigned char *p = (unsigned char *)s;
  size_t left = strlen(s);
  unsigned char *out = p;
  while (left > 0) {
    utf8proc_int32_t code = 0;
    utf8proc_ssize_t n = utf8proc_iterate(p, (utf8proc_ssize_t)left, &code);
    bool shown = n > 0 && !is_harmful(code);
    size_t step = n > 0 ? (size_t)n : 1;
    if (shown) {
      memmove(out, p, step);
      out += step;
    } else {
      *out++ = '?';
    }
    p += step;
    left -= step;
  }
  *out = 0;
}

ist_status ist_fail(ist_error *err, ist_status code, const char *fmt, ...) {
  if (!err) return code;
  va_list args;
  va_start(args, fmt);
  ist_vformat(err->message, sizeof err->message, fmt, args);
  va_end(args);
  ist_sanitise(err->message);
  err->code = code;
  err->hint[0] = 0;
  return code;
}

void ist_hint(ist_error *err, const char *fmt, ...) {
  if (!err) return;
  va_list args;
  va_start(args, fmt);
  ist_vformat(err->hint, sizeof err->hint, fmt, args);
  va_end(args);
  ist_sanitise(err->hint);
}

void ist_error_context(ist_error *err, const char *fmt, ...) {
  if (!err) return;
  char text[2 * sizeof err->message + 3];
  va_list args;
  va_start(args, fmt);
  int n = ist_vformat(text, sizeof err->message, fmt, args);
  va_end(args);
  size_t len = n < 0 ? 0 : (size_t)n;
  if (len > sizeof err->message - 1) len = sizeof err->message - 1;
  memcpy(text + len, ": ", 2);
  strcpy(text + len + 2, err->message);
  text[sizeof err->message - 1] = 0;
  strcpy(err->message, text);
  ist_sanitise(err->message);
}

/* Process-wide by contract (ist.h): the only state of this file. */
static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;
static ist_log_fn log_fn;
static void *log_user;

void ist_log_set(ist_log_fn fn, void *user) {
  pthread_mutex_lock(&log_lock);
  log_fn = fn;
  log_user = user;
  pthread_mutex_unlock(&log_lock);
}

void ist_log(ist_log_level level, const char *fmt, ...) {
  pthread_mutex_lock(&log_lock);
  ist_log_fn fn = log_fn;
  void *user = log_user;
  pthread_mutex_unlock(&log_lock);
  if (!fn) return;
  char text[1024];
  va_list args;
  va_start(args, fmt);
  ist_vformat(text, sizeof text, fmt, args);
  va_end(args);
  ist_sanitise(text);
  fn(user, level, text);
}

void ist_assert_failed(const char *expr, const char *file, int line) {
  fprintf(stderr, "%s:%d: ist defect: %s\n", file, line, expr);
  abort();
}

#define STRING_(x) #x
#define STRING(x)  STRING_(x)

const char *ist_version(void) {
  return STRING(IST_VERSION_MAJOR) "." STRING(IST_VERSION_MINOR) "." STRING(IST_VERSION_PATCH);
}

const char *ist_status_name(ist_status status) {
  switch (status) {
    case IST_OK: return "ok";
    case IST_ERR_ARG: return "argument";
    case IST_ERR_IO: return "input/output";
    case IST_ERR_FORMAT: return "format";
    case IST_ERR_UNSUPPORTED: return "unsupported";
    case IST_ERR_DATA: return "data";
    case IST_ERR_MISMATCH: return "mismatch";
    case IST_ERR_NOMEM: return "out of memory";
    case IST_ERR_NONFINITE: return "not finite";
    case IST_ERR_INTERNAL: return "internal";
  }
  return "unknown";
}
