/* Temporary files and errors for the tests of this room. */
#ifndef IST_TESTS_FORMAT_FILES_H
#define IST_TESTS_FORMAT_FILES_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"

/* A fresh folder, freed by remove_folder. */
static inline char *make_folder(void) {
  char *folder = ist_strdup("/tmp/ist-test-XXXXXX");
  assert_non_null(folder);
  assert_non_null(mkdtemp(folder));
  return folder;
}

static inline void remove_folder(char *folder) {
  ist_error err = {0};
  assert_int_equal(ist_remove_tree(folder, &err), IST_OK);
  ist_free(folder);
}

/* Not atomic and not synced, unlike ist_file_write: tests write thousands. */
static inline void write_bytes(const char *path, const void *bytes, size_t len) {
  FILE *f = fopen(path, "wb");
  assert_non_null(f);
  assert_int_equal(fwrite(bytes, 1, len, f), len);
  assert_int_equal(fclose(f), 0);
}

/* The status, and a message that holds `part` and is one line. */
static inline void assert_error(ist_status status, ist_status expected, const ist_error *err,
                                const char *part) {
  if (status != expected || !strstr(err->message, part) || strchr(err->message, '\n'))
    fail_msg("status %d, message \"%s\"; expected %d and \"%s\"", status,
             status == IST_OK ? "" : err->message, expected, part);
}

#endif
