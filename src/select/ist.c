/* Importance-aware Sparse Tuning. Each layer has a score s, its suppressibility:
 * it rises when damping the layer helped, so a high score means NOT important.
 * Draws prefer low scores (sigmoid(-s)), candidate sets of a probe prefer high
 * ones (sigmoid(s)). */
#include <math.h>
#include <string.h>

#include "select/internal.h"

enum { MAX_REJECTED = 100 };

static double sigmoid(double x) {
  return 1.0 / (1.0 + exp(-x));
}

/* Weights of a draw: above 0 also where the sigmoid of a restored score underflows. */
static void fill_weights(ist_selector *s, double sign) {
  for (int64_t i = 0; i < s->L; i++)
    s->weight[i] = fmax(sigmoid(sign * s->state.suppressibility[i]), 1e-300);
}

static ist_status check(const ist_select_options *o, int64_t L, ist_error *err) {
  (void)L;
  if (o->candidates < 2 || o->candidates > IST_MAX_CANDIDATES)
    return ist_fail(err, IST_ERR_ARG,
                    "selector: %lld candidate sets in a probe, expected 2 to %d (rewards are "
                    "compared with their mean)",
                    (long long)o->candidates, IST_MAX_CANDIDATES);
  if (o->reward != IST_REWARD_EXP && o->reward != IST_REWARD_NORMALISED)
    return ist_fail(err, IST_ERR_ARG, "selector: unknown reward %d", (int)o->reward);
  if (!isfinite(o->step_size) || !isfinite(o->score_limit))
    return ist_fail(err, IST_ERR_ARG, "selector: step size %g and score limit %g must be finite",
                    o->step_size, o->score_limit);
  return IST_OK;
}

int64_t ist_select_draw_by_scores(ist_selector *s, int64_t t, int32_t *out) {
  ist_rng r = ist_select_stream(s, IST_RNG_SELECT, t);
  fill_weights(s, t < s->o.burn_in ? 0 : -1);
  return ist_select_draw_weighted(s, &r, s->weight, out);
}

/* Is the set one of the first n? Sets are ascending, so equal means same bytes. */
static bool is_proposed(const ist_selector *s, int64_t n, const int32_t *set) {
  size_t m = (size_t)s->n_suppressed;
  for (int64_t k = 0; k < n; k++)
    if (!memcmp(s->sets + (size_t)k * m, set, m * sizeof *set)) return true;
  return false;
}

/* Distinct sets by rejection, while luck lasts: where scores are saturated, one
 * set has nearly all the probability. */
static void propose(ist_selector *s, int64_t t) {
  ist_rng r = ist_select_stream(s, IST_RNG_CANDIDATE, t);
  fill_weights(s, +1);
  for (int64_t k = 0; k < s->o.candidates; k++) {
    int32_t *set = s->sets + k * s->n_suppressed;
    int rejected = -1;
    do {
      ist_draw_without_replacement(&r, s->weight, s->L, s->n_suppressed, set);
      rejected++;
    } while (is_proposed(s, k, set) && rejected < MAX_REJECTED);
    if (rejected == MAX_REJECTED && is_proposed(s, k, set))
      ist_draw_other_set(&r, s->weight, s->L, s->n_suppressed, s->sets, k, set, s->scratch);
  }
}

/* The advantage of each candidate over their mean. */
static void advantages(ist_reward reward, const double *loss, int64_t n, double *a) {
  double mean = 0, variance = 0;
  for (int64_t k = 0; k < n; k++) {
    a[k] = reward == IST_REWARD_EXP ? exp(-loss[k]) : -loss[k];
    mean += a[k];
  }
  mean /= (double)n;
  for (int64_t k = 0; k < n; k++) {
    a[k] -= mean;
    variance += a[k] * a[k] / (double)n;
  }
  double unit = reward == IST_REWARD_EXP ? 1.0 : fmax(sqrt(variance), 1e-4);
  for (int64_t k = 0; k < n; k++) a[k] /= unit;
}

static void observe(ist_selector *s, const double *loss) {
  double a[IST_MAX_CANDIDATES];
  advantages(s->o.reward, loss, s->o.candidates, a);
  /* p is that of before the update, also for a layer in several sets. */
  double *p = s->weight;
  for (int64_t i = 0; i < s->L; i++) p[i] = sigmoid(s->state.suppressibility[i]);
  for (int64_t k = 0; k < s->o.candidates; k++)
    for (int64_t j = 0; j < s->n_suppressed; j++) {
      int64_t i = s->sets[k * s->n_suppressed + j];
      s->state.suppressibility[i] += s->o.step_size * a[k] * p[i] * (1.0 - p[i]);
    }
}

const ist_selector_ops ist_selector_ist = {.name = "ist",
                                           .check = check,
                                           .draw = ist_select_draw_by_scores,
                                           .propose = propose,
                                           .observe = observe};
