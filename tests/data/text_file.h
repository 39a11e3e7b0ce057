/* Records from a text that a test writes to a temporary file. */
#ifndef IST_TESTS_TEXT_FILE_H
#define IST_TESTS_TEXT_FILE_H

#include "tokenizer/small_vocab.h"

#include "base/file.h"
#include "data/data.h"

static inline ist_status read_text(ist_records *out, const char *text, ist_error *err) {
  char path[64];
  snprintf(path, sizeof path, "/tmp/ist-test-data-%ld.jsonl", (long)getpid());
  FILE *f = fopen(path, "wb"); /* not ist_file_write: a test needs empty files too */
  assert_non_null(f);
  fputs(text, f);
  fclose(f);
  ist_status status = ist_records_read(out, path, err);
  unlink(path);
  return status;
}

static inline void must_read(ist_records *out, const char *text) {
  ist_error err = {0};
  if (read_text(out, text, &err) != IST_OK) fail_msg("%s", err.message);
}

#endif
