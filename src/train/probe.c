/* Importance probes: the candidate sets of a probe run as one batch of row groups,
 * each with its own factor per layer, so that a weight is dequantised once for all
 * (Yao et al. 2024, section 3.3; the arithmetic is in docs/method.md). */
#include "train/trainer.h"

/* Mean loss of each candidate: its copies of the samples lie one after the other. */
static void candidate_losses(ist_trainer *t, int64_t n_samples, int64_t candidates, double *loss) {
  ist_runner *r = &t->runner;
  ist_runner_segment_losses(r, t->segment_loss);
  for (int64_t k = 0; k < candidates; k++) {
    double sum = 0;
    int64_t targets = 0;
    for (int64_t i = k * n_samples; i < (k + 1) * n_samples; i++) {
      sum += t->segment_loss[i];
      targets += r->seg_targets[i];
    }
    t->comm.probe_loss(&t->comm, &sum, &targets);
    loss[k] = targets ? sum / (double)targets : 0;
  }
}

/* Factors of the selector's layers (candidates, n_layers) -> of all (candidates, L), in place. */
static void spread_factors(ist_trainer *t, int64_t candidates) {
  int64_t L = t->adapters.L;
  for (int64_t k = candidates - 1; k >= 0; k--) {
    for (int64_t l = L - 1, i = t->n_layers - 1; l >= 0; l--)
      t->factor[k * L + l] =
          i >= 0 && t->layer_of[i] == l ? t->factor[k * t->n_layers + i--] : 1.0f;
  }
}

void ist_trainer_probe(ist_trainer *t, double *loss, int64_t *n_loss) {
  int64_t n, step = t->progress.step;
  int64_t candidates = ist_selector_propose(t->selector, step, t->factor);
  spread_factors(t, candidates);
  const int64_t *samples = ist_trainer_probe_batch(t, step / t->options.probe_every - 1, &n);
  ist_runner_pack(&t->runner, &t->data, samples, n, candidates);
  ist_pass pass = {.factor = t->factor};
  ist_runner_forward(&t->runner, &pass);
  candidate_losses(t, n, candidates, loss);
  ist_selector_observe(t->selector, step, loss, candidates);
  *n_loss = candidates;
}
