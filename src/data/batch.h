/* Packed batches: whole samples one after another, without padding. */
#ifndef IST_DATA_BATCH_H
#define IST_DATA_BATCH_H

#include "data/data.h"

/* N tokens in n_segments segments; segment s is tokens [start[s], start[s + 1]).
 * Target N of a token is the id it has to predict: the next token's where that one
 * is supervised, else -1; the last token of a segment has -1. */
typedef struct ist_batch {
  int64_t n_tokens, n_segments, n_target; /* n_target: targets other than -1 */
  int32_t *ids, *target;
  int32_t *position; /* within the sample, from 0 */
  int32_t *sample;   /* index in the dataset, the sample id of dropout's counters */
  int64_t *start;    /* n_segments + 1 */
  int64_t max_tokens, max_segments;
} ist_batch;

/* Memory for the largest batch there will be; the batch is empty until filled. */
ist_status ist_batch_reserve(ist_batch *b, int64_t max_tokens, int64_t max_segments,
                             ist_error *err);
void ist_batch_free(ist_batch *b);
/* What reserve takes, for the plan. */
size_t ist_batch_bytes(int64_t max_tokens, int64_t max_segments);

/* Packs the n samples index[0..n-1] of d, in order. They must fit (a defect of
 * the caller otherwise). Allocates nothing. */
void ist_batch_fill(ist_batch *b, const ist_dataset *d, const int64_t *index, int64_t n);

/* Splits n samples into runs of at most `budget` tokens, greedily and in order: run
 * k is index[first[k]] .. index[first[k + 1] - 1]. A sample longer than the budget
 * is a run of its own. Returns the number of runs; `first` has room for n + 1. */
int64_t ist_batch_split(int64_t *first, const ist_dataset *d, const int64_t *index, int64_t n,
                        int64_t budget);

/* Supervised tokens of n samples: what an optimizer step divides its loss by. */
int64_t ist_batch_targets(const ist_dataset *d, const int64_t *index, int64_t n);

#endif
