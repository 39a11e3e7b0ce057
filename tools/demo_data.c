/* demo-data --out DIR [--train N] [--valid N] [--test N] [--seed S]
 * writes the demo's train.jsonl, valid.jsonl and test.jsonl. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "demo/demo.h"

static int usage(void) {
  fputs("usage: demo-data --out DIR [--train N] [--valid N] [--test N] [--seed S]\n", stderr);
  return 2;
}

int main(int argc, char **argv) {
  const char *out = NULL;
  ist_demo_sizes sizes = {1000, 60, 200};
  int64_t seed = 1;
  const struct {
    const char *name;
    int64_t *value;
  } numbers[] = {{"--train", &sizes.train},
                 {"--valid", &sizes.valid},
                 {"--test", &sizes.test},
                 {"--seed", &seed}};
  for (int i = 1; i < argc; i += 2) {
    if (i + 1 == argc) return usage();
    int64_t *value = NULL;
    for (size_t k = 0; k < sizeof numbers / sizeof numbers[0]; k++)
      if (!strcmp(argv[i], numbers[k].name)) value = numbers[k].value;
    char *end;
    if (!strcmp(argv[i], "--out")) {
      out = argv[i + 1];
    } else if (value) {
      errno = 0;
      *value = strtoll(argv[i + 1], &end, 10);
      if (errno || end == argv[i + 1] || *end || *value < 0) return usage();
    } else {
      return usage();
    }
  }
  if (!out) return usage();
  ist_error err;
  if (ist_demo_write(out, sizes, (uint64_t)seed, &err) != IST_OK) {
    fprintf(stderr, "error: %s\n", err.message);
    return 1;
  }
  return 0;
}
