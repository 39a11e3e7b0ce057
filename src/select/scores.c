/* Draws by the scores of an earlier run, which stay as they are: importance without probes. */
#include "select/internal.h"

static ist_status check(const ist_select_options *o, int64_t L, ist_error *err) {
  (void)L;
  if (o->scores) return IST_OK;
  return ist_fail(err, IST_ERR_ARG, "selector: no scores given, expected one a layer");
}

const ist_selector_ops ist_selector_scores = {
    .name = "scores", .check = check, .draw = ist_select_draw_by_scores};
