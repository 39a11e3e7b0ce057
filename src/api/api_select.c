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
  IST_TRY(ist_options_selector(options ? options : &defaults, &o, &fixed, err));
  o.depth_floor = ist_depth_floor(options ? options : &defaults, L);
  ist_status status = ist_selector_new(out, L, &o, err);
  ist_free(fixed);
  return status;
}
