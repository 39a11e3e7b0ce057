#include "data/mix.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"

/* ---- Parsing ---- */

/* Cuts a weight off: a number behind the last '='. Anything else there is the file's name. */
static ist_status split_weight(char *part, double *weight, ist_error *err) {
  char *equals = strrchr(part, '='), *end;
  *weight = 1;
  if (!equals || ist_file_exists(part)) return IST_OK;
  double value = strtod(equals + 1, &end);
  if (end == equals + 1 || *end) return IST_OK;
  if (!(value > 0) || value > 1000)
    return ist_fail(err, IST_ERR_ARG,
                    "data: found the weight %s of %.*s, expected a number above 0, at most 1000",
                    equals + 1, (int)(equals - part), part);
  *weight = value;
  *equals = 0;
  return IST_OK;
}

static ist_status add_file(ist_sources *s, const char *text, size_t len, ist_error *err) {
  if (s->n == IST_MAX_SOURCES)
    return ist_fail(err, IST_ERR_ARG, "data: found more than %d files", IST_MAX_SOURCES);
  if (len == 0) return ist_fail(err, IST_ERR_ARG, "data: found an empty name of a file");
  ist_source_file *f = &s->file[s->n];
  f->path = ist_strndup(text, len);
  if (!f->path) return ist_fail_nomem(err, "data files", len);
  s->n++;
  return split_weight(f->path, &f->weight, err);
}

ist_status ist_sources_parse(ist_sources *out, const char *text, ist_error *err) {
  *out = (ist_sources){0};
  ist_status status = IST_OK;
  if (ist_file_exists(text)) {
    status = add_file(out, text, strlen(text), err);
  } else {
    for (const char *p = text; status == IST_OK && p;
         p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL)
      status = add_file(out, p, strcspn(p, ","), err);
  }
  if (status != IST_OK) ist_sources_free(out);
  return status;
}

void ist_sources_free(ist_sources *s) {
  for (int i = 0; i < s->n; i++) ist_free(s->file[i].path);
  *s = (ist_sources){0};
}

/* ---- Epochs ---- */

/* A list is ascending, so the samples of a file lie together: [*begin, end). */
static int64_t end_of_file(const ist_dataset *d, const int64_t *list, int64_t begin, int64_t n) {
  int64_t end = begin;
  while (end < n && d->p[list[end]].source == d->p[list[begin]].source) end++;
  return end;
}

static int64_t visits(double weight, int64_t n) {
  int64_t count = (int64_t)llround(weight * (double)n);
  return count > 0 ? count : 1;
}

int64_t ist_mix_size(const ist_sources *s, const ist_dataset *d, const int64_t *list, int64_t n) {
  int64_t size = 0;
  for (int64_t begin = 0, end; begin < n; begin = end) {
    end = end_of_file(d, list, begin, n);
    size += visits(s->file[d->p[list[begin]].source].weight, end - begin);
  }
  return size;
}

void ist_mix_round(int64_t *round, const ist_sources *s, const ist_dataset *d, const int64_t *list,
                   int64_t n, uint64_t seed) {
  memcpy(round, list, (size_t)n * sizeof *round);
  for (int64_t begin = 0, end; begin < n; begin = end) {
    end = end_of_file(d, list, begin, n);
    int source = d->p[list[begin]].source;
    if (visits(s->file[source].weight, end - begin) == end - begin) continue;
    ist_rng rng = ist_rng_stream(seed, IST_RNG_ORDER, UINT32_MAX, (uint32_t)source, 0);
    ist_rng_shuffle(&rng, round + begin, end - begin);
  }
}

void ist_mix_order(int64_t *out, const ist_sources *s, const ist_dataset *d, const int64_t *round,
                   int64_t n, uint64_t seed, int64_t epoch) {
  int64_t *to = out;
  for (int64_t begin = 0, end; begin < n; begin = end) {
    end = end_of_file(d, round, begin, n);
    int64_t m = end - begin, count = visits(s->file[d->p[round[begin]].source].weight, m);
    int64_t at = epoch % m * (count % m) % m;
    for (int64_t i = 0; i < count; i++) *to++ = round[begin + (at + i) % m];
  }
  ist_rng rng = ist_rng_stream(seed, IST_RNG_ORDER, (uint32_t)epoch, 0, 0);
  ist_rng_shuffle(&rng, out, to - out);
}
