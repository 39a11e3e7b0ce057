/* The IST selector inside somebody else's training loop.
 *
 * The "model" is a sum of eight one-parameter layers, y = sum of w[i] * x[i]; the
 * truth uses the first four only. Each step trains the layers that the selector
 * draws; at a probe, each candidate set is scored by the loss with its layers
 * damped. The selector sees eight, a seed and losses, and finds the four.
 */
#include <inttypes.h>
#include <stdio.h>

#include <ist.h>

enum { LAYERS = 8, USEFUL = 4, BATCH = 32, STEPS = 300 };

/* A small generator for the data, so that the output is the same everywhere. */
static double uniform(uint64_t *state) {
  *state = *state * 6364136223846793005u + 1442695040888963407u;
  return (double)(*state >> 40) / (1 << 23) - 1.0;
}

/* Mean squared error of a batch; factor (NULL: 1) multiplies each layer's part,
 * and grad (NULL: not wanted) receives the derivative by each w. */
static double loss_of(const double *w, const float *factor, double *grad, uint64_t *state) {
  double loss = 0;
  for (int i = 0; grad && i < LAYERS; i++) grad[i] = 0;
  for (int n = 0; n < BATCH; n++) {
    double x[LAYERS], error = 0;
    for (int i = 0; i < LAYERS; i++) {
      x[i] = uniform(state);
      error += (factor ? (double)factor[i] : 1.0) * w[i] * x[i] - (i < USEFUL ? 2 * x[i] : 0);
    }
    loss += error * error / BATCH;
    for (int i = 0; grad && i < LAYERS; i++) grad[i] += 2 * error * x[i] / BATCH;
  }
  return loss;
}

int main(void) {
  ist_train_options options;
  ist_train_options_init(&options);
  options.selector = "ist";
  options.seed = 1;
  ist_error err;
  ist_selector *selector;
  if (ist_selector_open(&selector, LAYERS, &options, &err) != IST_OK) {
    fprintf(stderr, "error: %s\n", err.message);
    return 1;
  }

  double w[LAYERS], grad[LAYERS];
  for (int i = 0; i < LAYERS; i++) w[i] = 0.5;
  uint64_t data = 1;
  for (int64_t t = 0; t < STEPS; t++) {
    if (ist_selector_wants_probe(selector, t)) {
      float factor[8 * LAYERS];
      double loss[8];
      int64_t n = ist_selector_propose(selector, t, factor);
      uint64_t probe = 1000 + (uint64_t)t; /* the same examples for every candidate */
      for (int64_t k = 0; k < n; k++) {
        uint64_t again = probe;
        loss[k] = loss_of(w, factor + k * LAYERS, NULL, &again);
      }
      ist_selector_observe(selector, t, loss, n);
    }
    uint8_t active[LAYERS];
    ist_selector_draw(selector, t, active);
    double loss = loss_of(w, NULL, grad, &data);
    for (int i = 0; i < LAYERS; i++)
      if (active[i]) w[i] -= 0.2 * grad[i];
    if (t % 50 == 0) printf("step %3" PRId64 "  loss %.4f\n", t, loss);
  }

  printf("\nlayer  weight  importance\n");
  for (int i = 0; i < LAYERS; i++)
    printf("%5d  %6.3f  %10.3f\n", i, w[i], ist_selector_importance(selector, i));
  ist_selector_free(selector);
  return 0;
}
