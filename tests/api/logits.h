/* A model's logits beside those that a golden file has. */
#ifndef IST_TESTS_API_LOGITS_H
#define IST_TESTS_API_LOGITS_H

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "folder.h"
#include "format/safetensors.h"

/* The largest difference from the expected logits, relative to the largest of them. tokens: a file
 * with segments; `name` of `file`: (tokens, V), or (segments, V) of each segment's last token. */
static inline double distance_to(ist_model *m, const char *tokens, const char *file,
                                 const char *name) {
  ist_error err = {0};
  ist_safetensors *segmented, *golden;
  MUST(ist_safetensors_open(&segmented, tokens, &err));
  MUST(ist_safetensors_open(&golden, file, &err));
  const ist_st_tensor *ids = ist_safetensors_find(segmented, "tokens");
  const ist_st_tensor *starts = ist_safetensors_find(segmented, "segment_starts");
  const ist_st_tensor *expected = ist_safetensors_find(golden, name);
  assert_true(ids && starts && expected);
  const int64_t segments = starts->shape[0] - 1, V = expected->shape[1];
  const bool every = expected->shape[0] == ids->shape[0];
  assert_true(every || expected->shape[0] == segments);
  float *want = ist_calloc((size_t)(expected->shape[0] * V), sizeof *want);
  MUST(ist_st_to_f32(expected, want, expected->shape[0] * V, &err));
  double most = 0, worst = 0;
  for (int64_t i = 0; i < segments; i++) {
    int32_t at[2], id[64];
    memcpy(at, starts->data + 4 * i, sizeof at);
    int64_t n = at[1] - at[0];
    memcpy(id, ids->data + 4 * at[0], (size_t)n * 4);
    float *logits = ist_calloc((size_t)(n * V), sizeof *logits);
    MUST(ist_model_logits(m, id, n, logits, &err));
    for (int64_t v = every ? 0 : (n - 1) * V; v < n * V; v++) {
      double w = (double)want[every ? at[0] * V + v : i * V + v - (n - 1) * V];
      double d = fabs((double)logits[v] - w);
      most = fmax(most, fabs(w));
      worst = d > worst || isnan(d) ? d : worst;
    }
    ist_free(logits);
  }
  ist_free(want);
  ist_safetensors_close(segmented);
  ist_safetensors_close(golden);
  return worst / most;
}

#endif
