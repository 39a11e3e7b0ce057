/* What the tests of the public interface share: a folder of their own to run in, errors that
 * end a test, a model opened in F32. */
#ifndef IST_TESTS_API_FOLDER_H
#define IST_TESTS_API_FOLDER_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "ist.h"

/* Takes the `err` in scope. */
#define MUST(expr) must(expr, &err, #expr)

static inline void must(ist_status status, const ist_error *err, const char *what) {
  if (status != IST_OK) fail_msg("%s: %s", what, err->message);
}

static inline char *run_folder(void) {
  static char path[] = "/tmp/ist-api-XXXXXX";
  return path;
}
static inline int enter_folder(void **state) {
  (void)state;
  return mkdtemp(run_folder()) && chdir(run_folder()) == 0 ? 0 : -1;
}
static inline int leave_folder(void **state) {
  (void)state;
  return chdir("/") == 0 && ist_remove_tree(run_folder(), NULL) == IST_OK ? 0 : -1;
}

static inline ist_model *open_model(const char *path) {
  ist_error err = {0};
  ist_model_options o;
  ist_model_options_init(&o);
  o.compute = IST_COMPUTE_F32;
  ist_model *m;
  MUST(ist_model_open(&m, path, &o, &err));
  return m;
}

/* Merges an adapter into a base; type NULL, shard_bytes 0: the defaults. */
static inline ist_status merge_into(const char *base, const char *adapter, const char *output,
                                    const char *type, int64_t shard_bytes, ist_merge_result *r,
                                    ist_error *err) {
  ist_model *m = open_model(base);
  ist_merge_options o;
  ist_merge_options_init(&o);
  o.adapter = adapter;
  o.output = output;
  o.type = type;
  o.overwrite = true;
  if (shard_bytes > 0) o.shard_bytes = shard_bytes;
  ist_status s = ist_merge(m, &o, NULL, NULL, r, err);
  ist_model_close(m);
  return s;
}

#endif
