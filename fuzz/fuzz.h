/* What the targets share. A target is a file target_NAME.c with the function that libFuzzer
 * calls; the same function runs over corpus/NAME in the tests (replay.c). */
#ifndef IST_FUZZ_H
#define IST_FUZZ_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* An empty folder of this process, in memory where the system has such. */
const char *fuzz_folder(void);
/* FOLDER/name, which now holds these bytes; valid until the next call. */
const char *fuzz_file(const char *name, const void *bytes, size_t n);
/* Removes FOLDER/name. */
void fuzz_no_file(const char *name);

/* Several files in one input: parts stand between lines "%%". */
typedef struct fuzz_part {
  const uint8_t *p;
  size_t n;
} fuzz_part;
/* The first `most` parts (the last one takes the rest); those that are not there are
 * {NULL, 0}. */
void fuzz_parts(const uint8_t *data, size_t size, fuzz_part *part, int most);
/* Writes a part that is there, and removes the file of one that is not. */
void fuzz_part_file(const char *name, fuzz_part part);
/* A copy (the caller frees it) of a safetensors file whose first eight bytes, which say where the
 * header ends, are made right, so that a longer or shorter header is read whole; where the last of
 * them is not 0, it is cleared instead and the length taken as it stands. NULL for no part. */
uint8_t *fuzz_safetensors(fuzz_part part);
/* fuzz_part_file of that copy. */
void fuzz_safetensors_file(const char *name, fuzz_part part);

/* An error must have a text. With IST_FUZZ_SHOW in the environment it is printed: how far do
 * the seeds come? */
void fuzz_check(ist_status status, const ist_error *err);

#endif
