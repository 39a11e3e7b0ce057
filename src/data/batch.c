#include "data/batch.h"

#include <string.h>

size_t ist_batch_bytes(int64_t max_tokens, int64_t max_segments) {
  return (size_t)(max_segments + 1) * sizeof(int64_t) + (size_t)max_tokens * 4 * sizeof(int32_t);
}

/* One block: start first, because it has the widest elements. */
ist_status ist_batch_reserve(ist_batch *b, int64_t max_tokens, int64_t max_segments,
                             ist_error *err) {
  IST_ASSERT(max_tokens > 0 && max_segments > 0);
  *b = (ist_batch){.max_tokens = max_tokens, .max_segments = max_segments};
  size_t bytes = ist_batch_bytes(max_tokens, max_segments);
  b->start = ist_calloc(bytes, 1);
  if (!b->start) return ist_fail_nomem(err, "a batch", bytes);
  b->ids = (int32_t *)(b->start + max_segments + 1);
  b->target = b->ids + max_tokens;
  b->position = b->target + max_tokens;
  b->sample = b->position + max_tokens;
  return IST_OK;
}

void ist_batch_free(ist_batch *b) {
  ist_free(b->start);
  *b = (ist_batch){0};
}

static void add_segment(ist_batch *b, const ist_sample *s, int32_t sample) {
  int64_t at = b->n_tokens;
  IST_ASSERT(s->n <= b->max_tokens - at && b->n_segments < b->max_segments);
  memcpy(b->ids + at, s->ids, (size_t)s->n * sizeof *s->ids);
  for (int32_t t = 0; t < s->n; t++) {
    bool supervised = t + 1 < s->n && s->mask[t + 1];
    b->target[at + t] = supervised ? s->ids[t + 1] : -1;
    b->position[at + t] = t;
    b->sample[at + t] = sample;
  }
  b->n_target += s->n_target;
  b->n_tokens += s->n;
  b->start[++b->n_segments] = b->n_tokens;
}

void ist_batch_fill(ist_batch *b, const ist_dataset *d, const int64_t *index, int64_t n) {
  b->n_tokens = b->n_segments = b->n_target = 0;
  b->start[0] = 0;
  for (int64_t i = 0; i < n; i++) {
    IST_ASSERT(index[i] >= 0 && index[i] < d->n);
    add_segment(b, &d->p[index[i]], (int32_t)index[i]);
  }
}

int64_t ist_batch_split(int64_t *first, const ist_dataset *d, const int64_t *index, int64_t n,
                        int64_t budget) {
  int64_t runs = 0, tokens = 0;
  for (int64_t i = 0; i < n; i++) {
    int64_t len = d->p[index[i]].n;
    if (i == 0 || tokens + len > budget) {
      first[runs++] = i;
      tokens = 0;
    }
    tokens += len;
  }
  first[runs] = n;
  return runs;
}

int64_t ist_batch_targets(const ist_dataset *d, const int64_t *index, int64_t n) {
  int64_t targets = 0;
  for (int64_t i = 0; i < n; i++) targets += d->p[index[i]].n_target;
  return targets;
}
