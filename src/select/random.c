/* Layers at random (the paper's RST). With redraw_every K one draw lasts K steps,
 * which is LISA's schedule. */
#include "select/internal.h"

static int64_t draw(ist_selector *s, int64_t t, int32_t *out) {
  ist_rng r = ist_select_stream(s, IST_RNG_SELECT, t - t % s->o.redraw_every);
  for (int64_t i = 0; i < s->L; i++) s->weight[i] = 1.0;
  return ist_select_draw_weighted(s, &r, s->weight, out);
}

const ist_selector_ops ist_selector_random = {.name = "random", .draw = draw};
