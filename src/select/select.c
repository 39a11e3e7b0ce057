#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "select/internal.h"

static const ist_selector_ops *const table[] = {
    [IST_SELECT_IST] = &ist_selector_ist,       [IST_SELECT_RANDOM] = &ist_selector_random,
    [IST_SELECT_ALL] = &ist_selector_all,       [IST_SELECT_FIXED] = &ist_selector_fixed,
    [IST_SELECT_SCORES] = &ist_selector_scores,
};
enum { N_KINDS = sizeof table / sizeof table[0] };

void ist_select_options_init(ist_select_options *o) {
  *o = (ist_select_options){
      .kind = IST_SELECT_IST,
      .active_ratio = 0.25,
      .suppress_ratio = 0.5,
      .factor = 0.25,
      .interval = 10,
      .candidates = 3,
      .reward = IST_REWARD_EXP,
      .step_size = -1,
      .score_limit = -1,
      .redraw_every = 1,
  };
}

int ist_selector_kind_from_name(const char *name) {
  for (int i = 0; i < N_KINDS; i++)
    if (!strcmp(table[i]->name, name)) return i;
  return -1;
}

const char *ist_selector_name(const ist_selector *s) {
  return s->ops->name;
}
const ist_select_options *ist_selector_options(const ist_selector *s) {
  return &s->o;
}
ist_selector_state ist_selector_get_state(ist_selector *s) {
  return s->state;
}

double ist_selector_importance(const ist_selector *s, int64_t layer) {
  return 1.0 / (1.0 + exp(s->state.suppressibility[layer]));
}

/* ---- Making ---- */

static ist_status check_ratio(const char *name, double v, ist_error *err) {
  if (v > 0 && v <= 1) return IST_OK;
  return ist_fail(err, IST_ERR_ARG, "selector: %s is %g, expected above 0 and at most 1", name, v);
}

static ist_status check_at_least_1(const char *name, int64_t v, ist_error *err) {
  if (v >= 1) return IST_OK;
  return ist_fail(err, IST_ERR_ARG, "selector: %s is %lld, expected at least 1", name,
                  (long long)v);
}

static ist_status check(const ist_select_options *o, int64_t L, ist_error *err) {
  if ((unsigned)o->kind >= N_KINDS)
    return ist_fail(err, IST_ERR_ARG, "selector: kind is %d, expected 0 to %d", (int)o->kind,
                    N_KINDS - 1);
  if (L < 1 || L > INT32_MAX)
    return ist_fail(err, IST_ERR_ARG, "selector: %lld layers, expected at least 1", (long long)L);
  IST_TRY(check_ratio("the active ratio", o->active_ratio, err));
  IST_TRY(check_ratio("the suppressed ratio", o->suppress_ratio, err));
  IST_TRY(check_at_least_1("the interval between probes", o->interval, err));
  IST_TRY(check_at_least_1("the interval between draws", o->redraw_every, err));
  if (!(isfinite(o->factor) && o->factor >= 0))
    return ist_fail(err, IST_ERR_ARG, "selector: the suppression factor is %g, expected at least 0",
                    o->factor);
  if (o->depth_floor < 0 || o->depth_floor >= L)
    return ist_fail(err, IST_ERR_ARG, "selector: the lowest layer is %lld, expected 0 to %lld",
                    (long long)o->depth_floor, (long long)L - 1);
  for (int64_t i = 0; o->scores && i < L; i++)
    if (!isfinite(o->scores[i]))
      return ist_fail(err, IST_ERR_ARG, "selector: the score of layer %lld is %g", (long long)i,
                      o->scores[i]);
  return table[o->kind]->check ? table[o->kind]->check(o, L, err) : IST_OK;
}

/* floor(L * ratio), at least 1. */
static int64_t share(int64_t L, double ratio) {
  int64_t n = (int64_t)((double)L * ratio);
  return n < 1 ? 1 : n;
}

/* min(limit, n choose k); every prefix of the product is itself a binomial. */
static int64_t binomial_up_to(int64_t limit, int64_t n, int64_t k) {
  if (k > n - k) k = n - k;
  int64_t c = 1;
  for (int64_t i = 1; i <= k && c < limit; i++) c = c * (n - k + i) / i;
  return c < limit ? c : limit;
}

static bool allocate(ist_selector *s) {
  size_t L = (size_t)s->L;
  s->state.suppressibility = ist_calloc(L, sizeof *s->state.suppressibility);
  s->state.observed = ist_calloc(L, sizeof *s->state.observed);
  s->state.drawn = ist_calloc(L, sizeof *s->state.drawn);
  s->weight = ist_calloc(L, sizeof *s->weight);
  s->layers = ist_calloc(L, sizeof *s->layers);
  s->fixed = ist_calloc((size_t)s->o.n_fixed, sizeof *s->fixed);
  bool ok = s->state.suppressibility && s->state.observed && s->state.drawn && s->weight &&
            s->layers && s->fixed;
  if (s->probes) {
    s->sets = ist_calloc((size_t)(s->o.candidates * s->n_suppressed), sizeof *s->sets);
    s->scratch = ist_calloc(ist_draw_other_set_scratch(s->L, s->n_suppressed), 1);
    ok = ok && s->sets && s->scratch;
  }
  return ok;
}

ist_status ist_selector_new(ist_selector **out, int64_t L, const ist_select_options *o,
                            ist_error *err) {
  *out = NULL;
  IST_TRY(check(o, L, err));
  ist_selector *s = ist_calloc(1, sizeof *s);
  if (!s) return ist_fail_nomem(err, "a selector", sizeof *s);
  s->ops = table[o->kind];
  s->o = *o;
  if (o->kind != IST_SELECT_FIXED) s->o.n_fixed = 0;
  bool exponential = o->reward == IST_REWARD_EXP;
  if (o->step_size < 0) s->o.step_size = exponential ? 10 : 0.4;
  if (o->score_limit < 0) s->o.score_limit = exponential ? 0 : 4;
  s->L = s->state.L = L;
  s->n_active = share(L, o->active_ratio);
  s->n_suppressed = share(L, o->suppress_ratio);
  if (s->ops->propose) s->o.candidates = binomial_up_to(o->candidates, L, s->n_suppressed);
  s->probes = s->ops->propose && s->o.candidates > 1;
  s->proposed_at = -1;
  if (!allocate(s)) {
    ist_selector_free(s);
    return ist_fail_nomem(err, "a selector", (size_t)L * sizeof(double));
  }
  if (s->o.n_fixed) memcpy(s->fixed, o->fixed, (size_t)s->o.n_fixed * sizeof *s->fixed);
  s->o.fixed = s->fixed;
  if (o->scores) memcpy(s->state.suppressibility, o->scores, (size_t)L * sizeof *o->scores);
  s->o.scores = NULL; /* they are the state now */
  *out = s;
  return IST_OK;
}

void ist_selector_free(ist_selector *s) {
  if (!s) return;
  ist_free(s->state.suppressibility);
  ist_free(s->state.observed);
  ist_free(s->state.drawn);
  ist_free(s->weight);
  ist_free(s->layers);
  ist_free(s->fixed);
  ist_free(s->sets);
  ist_free(s->scratch);
  ist_free(s);
}

/* ---- Probing and drawing ---- */

bool ist_selector_probes(const ist_selector *s) {
  return s->probes;
}

bool ist_selector_wants_probe(const ist_selector *s, int64_t t) {
  return s->probes && t > 0 && t % s->o.interval == 0;
}

int64_t ist_selector_propose(ist_selector *s, int64_t t, float *factor) {
  if (!s->probes) return 0;
  s->ops->propose(s, t);
  s->proposed_at = t;
  int64_t n = s->o.candidates, m = s->n_suppressed;
  for (int64_t i = 0; i < n * s->L; i++) factor[i] = 1.0f;
  for (int64_t k = 0; k < n; k++)
    for (int64_t j = 0; j < m; j++) factor[k * s->L + s->sets[k * m + j]] = (float)s->o.factor;
  return n;
}

void ist_selector_observe(ist_selector *s, int64_t t, const double *loss, int64_t n) {
  if (!s->probes) return; /* nothing was proposed */
  IST_ASSERT(t == s->proposed_at && n == s->o.candidates);
  for (int64_t k = 0; k < n; k++)
    if (!isfinite(loss[k])) return;
  s->ops->observe(s, loss);
  double limit = s->o.score_limit;
  for (int64_t i = 0; limit > 0 && i < s->L; i++) {
    double *score = &s->state.suppressibility[i];
    *score = fmin(fmax(*score, -limit), limit);
  }
  for (int64_t i = 0; i < n * s->n_suppressed; i++) s->state.observed[s->sets[i]]++;
}

int64_t ist_selector_draw(ist_selector *s, int64_t t, uint8_t *active) {
  s->floor = t % 4 == 3 ? 0 : s->o.depth_floor;
  int64_t n = s->ops->draw(s, t, s->layers);
  memset(active, 0, (size_t)s->L);
  for (int64_t i = 0; i < n; i++) {
    active[s->layers[i]] = 1;
    s->state.drawn[s->layers[i]]++;
  }
  return n;
}

int64_t ist_select_draw_weighted(ist_selector *s, ist_rng *r, const double *weight, int32_t *out) {
  int64_t floor = s->floor, n = s->L - floor;
  int64_t k = s->n_active < n ? s->n_active : n;
  ist_draw_without_replacement(r, weight + floor, n, k, out);
  for (int64_t i = 0; i < k; i++) out[i] += (int32_t)floor;
  return k;
}
