/* A selector for another training loop. */
#include "base/mem.h"
#include "train/options.h"

ist_status ist_selector_open(ist_selector **out, int64_t L, const ist_train_options *options,
                             ist_error *err) {
  *out = NULL;
  ist_train_options defaults;
  ist_train_options_init(&defaults);
  ist_select_options o;
  int32_t *fixed;
  if (!options) options = &defaults;
  double *scores;
  IST_TRY(ist_options_scores(options, L, NULL, L, &scores, err));
  ist_status status = ist_options_selector(options, &o, &fixed, err);
  if (status != IST_OK) {
    ist_free(scores);
    return status;
  }
  o.scores = scores;
  o.depth_floor = ist_depth_floor(options, L);
  status = ist_selector_new(out, L, &o, err);
  ist_free(fixed);
  ist_free(scores);
  return status;
}
