/* The same given layers in every step. */
#include "select/internal.h"

static ist_status check(const ist_select_options *o, int64_t L, ist_error *err) {
  if (o->n_fixed < 1 || !o->fixed)
    return ist_fail(err, IST_ERR_ARG, "selector: no fixed layers given, expected at least 1");
  for (int64_t i = 0; i < o->n_fixed; i++) {
    if (o->fixed[i] < 0 || o->fixed[i] >= L)
      return ist_fail(err, IST_ERR_ARG, "selector: fixed layer %d, expected 0 to %lld",
                      (int)o->fixed[i], (long long)L - 1);
    for (int64_t j = 0; j < i; j++)
      if (o->fixed[j] == o->fixed[i])
        return ist_fail(err, IST_ERR_ARG, "selector: fixed layer %d is given twice",
                        (int)o->fixed[i]);
  }
  return IST_OK;
}

static int64_t draw(ist_selector *s, int64_t t, int32_t *out) {
  (void)t;
  int64_t n = 0;
  for (int64_t i = 0; i < s->o.n_fixed; i++) {
    int32_t layer = s->fixed[i];
    if (layer < s->floor) continue;
    int64_t at = n++;
    for (; at > 0 && out[at - 1] > layer; at--) out[at] = out[at - 1];
    out[at] = layer;
  }
  return n;
}

const ist_selector_ops ist_selector_fixed = {.name = "fixed", .check = check, .draw = draw};
