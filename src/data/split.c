/* Which records train, which validate, which probe. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "data/data.h"

#define PROBE_NEEDS 200 /* fewer records than this are not split for probes */

static int64_t least(int64_t a, int64_t b) {
  return a < b ? a : b;
}

static int64_t default_probe(int64_t n) {
  if (n < PROBE_NEEDS) return 0;
  return least(256, n / 50 > 16 ? n / 50 : 16);
}

static int ascending(const void *a, const void *b) {
  int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return (x > y) - (x < y);
}

/* A sorted copy of n indices. */
static ist_status take(int64_t **out, const int64_t *from, int64_t n, ist_error *err) {
  *out = ist_calloc((size_t)n, sizeof **out);
  if (!*out) return ist_fail_nomem(err, "the split of the data", (size_t)n * sizeof **out);
  if (n) {
    memcpy(*out, from, (size_t)n * sizeof **out);
    qsort(*out, (size_t)n, sizeof **out, ascending);
  }
  return IST_OK;
}

/* Fills the lists from a permutation: validation, probe, training. */
static ist_status cut(ist_split *s, const int64_t *order, int64_t n, ist_error *err) {
  const int64_t *train = order + s->n_valid + s->n_probe;
  s->n_train = n - s->n_valid - s->n_probe;
  IST_TRY(take(&s->valid, order, s->n_valid, err));
  IST_TRY(take(&s->train, train, s->n_train, err));
  s->probe_is_train = s->n_probe == 0;
  if (s->probe_is_train) s->n_probe = s->n_train;
  return take(&s->probe, s->probe_is_train ? train : order + s->n_valid, s->n_probe, err);
}

ist_status ist_split_make(ist_split *out, int64_t n, int64_t n_valid, int64_t n_probe,
                          uint64_t seed, ist_error *err) {
  *out = (ist_split){0};
  out->n_valid = n_valid >= 0 ? n_valid : least(120, n / 10);
  out->n_probe = n_probe >= 0 ? n_probe : default_probe(n);
  if (n < 1 || out->n_valid >= n || out->n_probe >= n - out->n_valid) {
    ist_fail(err, IST_ERR_ARG,
             "%" PRId64 " records cannot give %" PRId64 " for validation, %" PRId64
             " for probes and at least one for training",
             n, out->n_valid, out->n_probe);
    *out = (ist_split){0};
    return IST_ERR_ARG;
  }
  int64_t *order = ist_calloc((size_t)n, sizeof *order);
  ist_status status;
  if (order) {
    for (int64_t i = 0; i < n; i++) order[i] = i;
    ist_rng rng = ist_rng_stream(seed, IST_RNG_SPLIT, 0, 0, 0);
    ist_rng_shuffle(&rng, order, n);
    status = cut(out, order, n, err);
  } else {
    status = ist_fail_nomem(err, "the split of the data", (size_t)n * sizeof *order);
  }
  ist_free(order);
  if (status != IST_OK) ist_split_free(out);
  return status;
}

void ist_split_free(ist_split *s) {
  ist_free(s->train);
  ist_free(s->valid);
  ist_free(s->probe);
  *s = (ist_split){0};
}
