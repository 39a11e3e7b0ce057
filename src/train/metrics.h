/* metrics.jsonl: one JSON object a line, handed to the system line by line. JSON has
 * no NaN: callers write null for what is not finite. */
#ifndef IST_TRAIN_METRICS_H
#define IST_TRAIN_METRICS_H

#include <jansson.h>

#include "base/error.h"

/* Zero-initialise. */
typedef struct ist_metrics {
  int fd;
  int64_t bytes;
  char *path; /* NULL: closed */
} ist_metrics;

/* Opens for appending after the first `keep` bytes (0: anew; -1: after all there is): lines
 * behind a checkpoint are dropped, so that no step stands there twice. A file that has become
 * shorter is continued at its end, with a line in the log. What is kept ends with a whole line. */
ist_status ist_metrics_open(ist_metrics *m, const char *path, int64_t keep, ist_error *err);
ist_status ist_metrics_line(ist_metrics *m, const json_t *object, ist_error *err);
/* Makes the lines durable: before a checkpoint counts their bytes. */
ist_status ist_metrics_sync(const ist_metrics *m, ist_error *err);
int64_t ist_metrics_size(const ist_metrics *m);
void ist_metrics_close(ist_metrics *m);

#endif
