/* Tokenising speed, per second of processor time on one thread, whole file and line by line,
 * best of five.
 *
 *   build/release/bench/bench_tokenize MODEL.gguf TEXT
 *
 * By hand, from the root of the repository (build/ holds the rooms):
 *   cc -O2 -D_GNU_SOURCE -Iinclude -Isrc bench/tokenize.c -o tokenize \
 *      build/libroom_tokenizer.a build/libroom_format.a build/libroom_base.a \
 *      -lpcre2-8 -lutf8proc -lgomp -lm
 */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "tokenizer/tokenizer.h"

static double seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Encodes the text, in one call or one call a line; the tokens stay in `ids`. */
static ist_status encode(const ist_tokenizer *t, const ist_map *text, bool by_line, ist_ids *ids,
                         ist_error *err) {
  const char *p = (const char *)text->p, *end = p + text->size;
  ids->n = 0;
  while (p < end) {
    const char *newline = by_line ? memchr(p, '\n', (size_t)(end - p)) : NULL;
    const char *stop = newline ? newline + 1 : end;
    IST_TRY(ist_tokenizer_encode(t, p, (size_t)(stop - p), false, ids, err));
    p = stop;
  }
  return IST_OK;
}

static ist_status measure(const ist_tokenizer *t, const ist_map *text, bool by_line,
                          ist_error *err) {
  ist_ids ids = {0};
  double best = 1e30;
  ist_status status = IST_OK;
  for (int run = 0; run < 5 && status == IST_OK; run++) {
    double start = seconds();
    status = encode(t, text, by_line, &ids, err);
    double took = seconds() - start;
    if (took < best) best = took;
  }
  if (status == IST_OK)
    printf("%-12s %8.1f MB/s  %6.2f Mtokens/s  %.2f bytes a token\n",
           by_line ? "line by line" : "whole", (double)text->size / best * 1e-6,
           (double)ids.n / best * 1e-6, (double)text->size / (double)ids.n);
  ist_ids_free(&ids);
  return status;
}

int main(int argc, char **argv) {
  if (argc != 3) {
    fprintf(stderr, "usage: bench_tokenize MODEL.gguf TEXT\n");
    return 2;
  }
  ist_error err = {0};
  ist_gguf *g = NULL;
  ist_tokenizer *t = NULL;
  ist_map text = {0};
  double start = seconds();
  ist_status status = ist_gguf_open(&g, argv[1], &err);
  if (status == IST_OK) status = ist_tokenizer_from_gguf(&t, g, &err);
  if (status == IST_OK)
    printf("%lld tokens, rule %s, read in %.0f ms, %.1f MB held\n",
           (long long)ist_tokenizer_size(t), ist_tokenizer_pre(t), 1e3 * (seconds() - start),
           (double)ist_tokenizer_bytes(t) * 1e-6);
  if (status == IST_OK) status = ist_map_open(&text, argv[2], &err);
  for (int by_line = 0; by_line < 2 && status == IST_OK; by_line++)
    status = measure(t, &text, by_line, &err);
  if (status != IST_OK) fprintf(stderr, "error: %s\n", err.message);
  ist_map_close(&text);
  ist_tokenizer_free(t);
  ist_gguf_close(g);
  return status == IST_OK ? 0 : 1;
}
