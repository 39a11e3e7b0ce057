/* What the selectors share. A new selector is one file that fills an
 * ist_selector_ops, and one row of the table in select.c. */
#ifndef IST_SELECT_INTERNAL_H
#define IST_SELECT_INTERNAL_H

#include "select/select.h"

typedef struct ist_selector_ops {
  const char *name;
  /* Checks what is the selector's own in the options; NULL: nothing. */
  ist_status (*check)(const ist_select_options *o, int64_t L, ist_error *err);
  /* The layers of step t into out, ascending; returns the count. */
  int64_t (*draw)(ist_selector *s, int64_t t, int32_t *out);
  /* Fills s->sets with s->o.candidates distinct sets. NULL: never probes. */
  void (*propose)(ist_selector *s, int64_t t);
  /* Updates the scores from finite losses of s->sets. NULL like propose. */
  void (*observe)(ist_selector *s, const double *loss);
} ist_selector_ops;

struct ist_selector {
  const ist_selector_ops *ops;
  ist_select_options o; /* o.fixed points to our copy */
  int64_t L;
  int64_t n_active;     /* layers of a draw without a floor */
  int64_t n_suppressed; /* layers of a candidate set */
  int64_t floor;        /* of the present draw: layers below are left out */
  bool probes;
  ist_selector_state state;
  int64_t proposed_at; /* the step that `sets` belongs to, -1: none */
  int32_t *sets;       /* (candidates, n_suppressed), each ascending */
  int32_t *fixed;
  /* Scratch, so that a step allocates nothing. */
  double *weight;  /* (L) */
  int32_t *layers; /* (L) */
  void *scratch;   /* of ist_draw_other_set */
};

extern const ist_selector_ops ist_selector_ist, ist_selector_random, ist_selector_all,
    ist_selector_fixed, ist_selector_scores;

static inline ist_rng ist_select_stream(const ist_selector *s, ist_rng_purpose purpose, int64_t t) {
  return ist_rng_stream(s->o.seed, purpose, (uint32_t)t, 0, 0);
}

/* The draw of step t that prefers low scores; even while t < o.burn_in. */
int64_t ist_select_draw_by_scores(ist_selector *s, int64_t t, int32_t *out);
/* Draws min(n_active, L - floor) layers >= floor, proportional to weight (L). */
int64_t ist_select_draw_weighted(ist_selector *s, ist_rng *r, const double *weight, int32_t *out);

/* As ist_draw_without_replacement, given that the result is none of the n_not
 * sets of k ascending indices in `not` (n_not, k). There must be another set.
 * Exact however unlikely that is; costs some milliseconds, so callers first try
 * their luck. scratch: ist_draw_other_set_scratch(n, k) bytes, aligned for doubles. */
void ist_draw_other_set(ist_rng *r, const double *weight, int64_t n, int64_t k, const int32_t * not,
                        int64_t n_not, int32_t *out, void *scratch);
size_t ist_draw_other_set_scratch(int64_t n, int64_t k);

#endif
