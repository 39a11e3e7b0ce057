/* Selectors: which layers train in a step. Knows no model: a number of layers, a
 * seed and losses in; sets out. IST: Yao et al. 2024, section 3; the exact
 * arithmetic is in docs/method.md. */
#ifndef IST_SELECT_SELECT_H
#define IST_SELECT_SELECT_H

#include "base/error.h"
#include "base/rng.h"

#define IST_MAX_CANDIDATES 8

typedef enum ist_selector_kind {
  IST_SELECT_IST,
  IST_SELECT_RANDOM,
  IST_SELECT_ALL,
  IST_SELECT_FIXED,
  IST_SELECT_SCORES /* as IST draws, by given scores that no probe changes */
} ist_selector_kind;
typedef enum ist_reward { IST_REWARD_EXP, IST_REWARD_NORMALISED } ist_reward;

typedef struct ist_select_options {
  ist_selector_kind kind;
  uint64_t seed;
  double active_ratio;   /* 0.25: floor(L * ratio), at least 1, layers train */
  double suppress_ratio; /* 0.5: floor(L * ratio), at least 1, layers are damped */
  double factor;         /* 0.25: what a damped layer's adapters are multiplied by */
  int64_t interval;      /* 10: steps between probes */
  int64_t candidates;    /* 3: sets tried in a probe */
  ist_reward reward;
  double step_size;     /* negative (the default): the reward's own, 10 or 0.4 */
  double score_limit;   /* scores stay in [-limit, limit], 0: no limit; negative
                           (the default): the reward's own, none or 4 */
  int64_t redraw_every; /* random: steps one draw lasts */
  int64_t burn_in;      /* ist: before this step draws ignore the scores */
  int64_t depth_floor;  /* three steps of four draw among the layers from this one on; 0 */
  const int32_t *fixed; /* FIXED: the layers, copied */
  int64_t n_fixed;
  const double *scores; /* (L) what the scores start from, copied; NULL: 0. SCORES needs them */
} ist_select_options;

void ist_select_options_init(ist_select_options *o); /* IST with the paper's constants */

/* Checks the options against L (candidates = min(asked, C(L, m)); where only one
 * set is possible, as with L = 1, there are no probes). Freed by the caller. */
ist_status ist_selector_new(ist_selector **out, int64_t L, const ist_select_options *o,
                            ist_error *err);
void ist_selector_free(ist_selector *s);
/* The options in force (defaults resolved, candidates as possible); borrowed. */
const ist_select_options *ist_selector_options(const ist_selector *s);

/* It learns from probes: the scores change as the run goes. */
bool ist_selector_probes(const ist_selector *s);
/* True when a probe is due before the draw of step t (finished optimizer steps).
 * Depends on t alone: where step t is tried again after it was skipped, the
 * caller remembers that it has probed. */
bool ist_selector_wants_probe(const ist_selector *s, int64_t t);
/* The candidate sets of the probe at step t: returns their number n; factor is
 * (n, L) row-major: the multiplier of each layer's adapters in candidate k. */
int64_t ist_selector_propose(ist_selector *s, int64_t t, float *factor);
/* The mean probe losses of the n candidates proposed at t; updates the scores.
 * If one is not finite, the probe leaves scores and observations alone. */
void ist_selector_observe(ist_selector *s, int64_t t, const double *loss, int64_t n);
/* Draws the active set of step t: active (L) gets 0 or 1; returns the count,
 * at least 1 (0 only where all layers of FIXED lie below the floor). The draw
 * depends on the options, t and the scores only. Nothing is allocated.
 *
 * Layers below the floor are left out, so that backward stops early, but in every fourth
 * step, so that all train; where fewer are left than are asked for, these are drawn.
 * Probes are not restricted. */
int64_t ist_selector_draw(ist_selector *s, int64_t t, uint8_t *active);

/* The state, for checkpoints: scores (L doubles; high = suppressing helped =
 * NOT important), observations (L int64), and draws so far (L int64). Owned by
 * the selector; the caller may write them to restore a checkpoint. */
typedef struct ist_selector_state {
  int64_t L;
  double *suppressibility;
  int64_t *observed, *drawn;
} ist_selector_state;
ist_selector_state ist_selector_get_state(ist_selector *s);
/* sigmoid(-score): rises with importance. */
double ist_selector_importance(const ist_selector *s, int64_t layer);
const char *ist_selector_name(const ist_selector *s);
int ist_selector_kind_from_name(const char *name); /* -1: unknown */

/* Successive sampling without replacement, proportional to weight (all > 0):
 * k <= n of n indices into out, ascending. Exposed for tests. */
void ist_draw_without_replacement(ist_rng *r, const double *weight, int64_t n, int64_t k,
                                  int32_t *out);

#endif
