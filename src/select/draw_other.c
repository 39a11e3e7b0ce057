/* Drawing k of n without replacement, given that the result is none of some sets.
 *
 * Successive sampling is a race: item i arrives at an exponential time of rate
 * w_i, and the first k arrivals are the set. Let the next arrival, the mark j,
 * come at time tau. With x_i = w_i tau and u = log tau,
 *
 *   P(S) = sum over j not in S of  integral du  x_j e^{-x_j}
 *            * prod_{i in S} (1 - e^{-x_i}) * prod_{l not in S, l != j} e^{-x_l}
 *
 * so at a given tau each item contributes one factor: in, out or mark. Sums over
 * sets are then a small table (suffix of items, how many still to choose, mark
 * still to place), and the sets to leave out are paths in the tree of decisions:
 * what remains beside the paths is summed, nothing is ever subtracted, so it does
 * not matter how unlikely the remaining sets are. The integrand is analytic in u,
 * where the trapezoid rule with step 1/4 is exact to about e^-39. All values are
 * logarithms. */
#include <math.h>
#include <string.h>

#include "select/internal.h"

#define STEP  0.25
#define NEVER (-INFINITY)

/* What to do with an item. */
enum { IN, OUT, MARK, CHOICES };

typedef struct race {
  int64_t n, k;
  const double *weight;
  double *factor;   /* (n, CHOICES) at the present tau */
  double *free;     /* (2, n + 1, k + 1): marks to place, first item, items to choose */
  uint32_t *member; /* (n): bit e: excluded set e contains the item */
} race;

/* A place in the tree of decisions. */
typedef struct place {
  uint32_t live; /* bit e: the decisions so far agree with excluded set e */
  int64_t item, choose;
  int mark; /* still to place: 0 or 1 */
} place;

size_t ist_draw_other_set_scratch(int64_t n, int64_t k) {
  return sizeof(double) * (size_t)(CHOICES * n + 2 * (n + 1) * (k + 1)) +
         sizeof(uint32_t) * (size_t)n;
}

static double log_add(double a, double b) {
  if (a < b) {
    double c = a;
    a = b;
    b = c;
  }
  return b == NEVER ? a : a + log1p(exp(b - a));
}

static double *free_at(const race *g, int mark, int64_t item, int64_t choose) {
  return &g->free[(mark * (g->n + 1) + item) * (g->k + 1) + choose];
}

/* The factors at tau, and the sums over all sets without exclusions. */
static void set_time(race *g, double log_tau) {
  for (int64_t i = 0; i < g->n; i++) {
    double log_x = log(g->weight[i]) + log_tau, x = exp(log_x);
    g->factor[CHOICES * i + IN] = log(-expm1(-x));
    g->factor[CHOICES * i + OUT] = -x;
    g->factor[CHOICES * i + MARK] = log_x - x;
  }
  for (int mark = 0; mark < 2; mark++) {
    for (int64_t c = 0; c <= g->k; c++) *free_at(g, mark, g->n, c) = NEVER;
    if (mark == 0) *free_at(g, 0, g->n, 0) = 0;
    for (int64_t i = g->n - 1; i >= 0; i--) {
      const double *f = g->factor + CHOICES * i;
      for (int64_t c = 0; c <= g->k; c++) {
        double v = f[OUT] + *free_at(g, mark, i + 1, c);
        if (c > 0) v = log_add(v, f[IN] + *free_at(g, mark, i + 1, c - 1));
        if (mark) v = log_add(v, f[MARK] + *free_at(g, 0, i + 1, c));
        *free_at(g, mark, i, c) = v;
      }
    }
  }
}

/* Where `choice` about the item leads. */
static place next(const race *g, place p, int choice) {
  uint32_t agree = choice == IN ? g->member[p.item] : ~g->member[p.item];
  return (place){p.live & agree, p.item + 1, p.choose - (choice == IN), p.mark - (choice == MARK)};
}

static double remaining(const race *g, place p);

/* The remaining sum of each choice about the item. */
static void weigh(const race *g, place p, double v[CHOICES]) {
  for (int choice = 0; choice < CHOICES; choice++) {
    place q = next(g, p, choice);
    bool possible = q.choose >= 0 && q.mark >= 0;
    v[choice] = possible ? g->factor[CHOICES * p.item + choice] + remaining(g, q) : NEVER;
  }
}

/* The sum over all ways to go on from p that end in none of the excluded sets. */
static double remaining(const race *g, place p) {
  if (!p.live) return *free_at(g, p.mark, p.item, p.choose);
  if (p.item == g->n) return NEVER;
  double v[CHOICES];
  weigh(g, p, v);
  return log_add(log_add(v[IN], v[OUT]), v[MARK]);
}

/* One of the choices, proportional to exp(v); never one that is NEVER. */
static int pick(ist_rng *r, const double v[CHOICES]) {
  double sum = log_add(log_add(v[IN], v[OUT]), v[MARK]);
  double x = ist_rng_uniform(r);
  int last = IN;
  for (int choice = 0; choice < CHOICES; choice++) {
    if (v[choice] == NEVER) continue;
    last = choice;
    double share = exp(v[choice] - sum);
    if (x < share) break;
    x -= share;
  }
  return last;
}

/* A time of the integral, proportional to the integrand. */
static double pick_time(race *g, ist_rng *r, place start) {
  double low = INFINITY, high = 0;
  for (int64_t i = 0; i < g->n; i++) {
    low = fmin(low, g->weight[i]);
    high = fmax(high, g->weight[i]);
  }
  /* Before e^-20 / high nobody has arrived, after 50 / low everybody has. */
  double chosen = 0, sum = NEVER;
  for (double u = -20 - log(high); u < log(50) - log(low); u += STEP) {
    set_time(g, u);
    double v = remaining(g, start);
    sum = log_add(sum, v);
    if (log(ist_rng_uniform(r)) < v - sum) chosen = u;
  }
  return chosen;
}

void ist_draw_other_set(ist_rng *r, const double *weight, int64_t n, int64_t k, const int32_t * not,
                        int64_t n_not, int32_t *out, void *scratch) {
  IST_ASSERT(k < n && n_not >= 0 && n_not < 32);
  race g = {.n = n, .k = k, .weight = weight, .factor = scratch};
  g.free = g.factor + CHOICES * n;
  g.member = (uint32_t *)(g.free + 2 * (n + 1) * (k + 1));
  memset(g.member, 0, (size_t)n * sizeof *g.member);
  for (int64_t i = 0; i < n_not * k; i++) g.member[not [i]] |= 1u << (i / k);
  place p = {.live = (1u << n_not) - 1, .choose = k, .mark = 1};
  set_time(&g, pick_time(&g, r, p));
  for (int64_t at = 0; p.item < n;) {
    double v[CHOICES];
    weigh(&g, p, v);
    int choice = pick(r, v);
    if (choice == IN) out[at++] = (int32_t)p.item;
    p = next(&g, p, choice);
  }
}
