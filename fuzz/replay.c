/* Runs a target over the files of the folders (and the files) that are named: what CI does
 * with the corpus, in every build, with whatever sanitizers it has. A file that takes more
 * than ten seconds counts as a hang. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "fuzz.h"

/* Under the address sanitizer: a parser that asks for more than this at once, for inputs of a
 * few KB, is out of proportion. */
const char *__asan_default_options(void);
const char *__asan_default_options(void) {
  return "max_allocation_size_mb=256:allocator_may_return_null=0";
}

static int ran;

static void run_file(const char *path) {
  ist_buf bytes = {0};
  ist_error err = {0};
  if (ist_file_read(&bytes, path, 64u << 20, &err) != IST_OK) {
    fprintf(stderr, "%s\n", err.message);
    exit(1);
  }
  /* A copy of just this size, so that the sanitizer sees a read behind its end. */
  uint8_t *exact = malloc(bytes.len ? bytes.len : 1);
  if (!exact) abort();
  if (bytes.len) memcpy(exact, bytes.p, bytes.len);
  printf("%s\n", path);
  fflush(stdout);
  alarm(10);
  LLVMFuzzerTestOneInput(exact, bytes.len);
  alarm(0);
  free(exact);
  ist_buf_free(&bytes);
  ran++;
}

static void run_folder(const char *path) {
  struct dirent **names;
  int n = scandir(path, &names, NULL, alphasort);
  for (int i = 0; i < n; i++) {
    char *child = ist_path_join(path, names[i]->d_name);
    struct stat st;
    if (child && stat(child, &st) == 0 && S_ISREG(st.st_mode)) run_file(child);
    ist_free(child);
    free(names[i]);
  }
  if (n >= 0) free(names);
}

int main(int argc, char **argv) {
  LLVMFuzzerInitialize(&argc, &argv);
  for (int i = 1; i < argc; i++) {
    struct stat st;
    if (stat(argv[i], &st) != 0) continue;
    if (S_ISDIR(st.st_mode))
      run_folder(argv[i]);
    else
      run_file(argv[i]);
  }
  printf("%d inputs\n", ran);
  return ran ? 0 : 1;
}
