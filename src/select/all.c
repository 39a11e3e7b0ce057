/* Every layer, in every step: ordinary fine-tuning. */
#include "select/internal.h"

static int64_t draw(ist_selector *s, int64_t t, int32_t *out) {
  (void)t;
  int64_t n = 0;
  for (int64_t i = s->floor; i < s->L; i++) out[n++] = (int32_t)i;
  return n;
}

const ist_selector_ops ist_selector_all = {.name = "all", .draw = draw};
