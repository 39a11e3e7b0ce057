/* Measured importance: what the loss does when one layer's adapters are damped. */
#include <math.h>

#include "base/mem.h"
#include "eval/session.h"

/* What lies below a layer is the same whether that layer is damped or not, so it is
 * computed once: slot 0 climbs through the layers as they are, and each trial starts
 * from it. L (L + 1) / 2 + L layers are computed where L (L + 1) would be. */
void ist_layer_losses(ist_runner *r, const ist_dataset *data, const int64_t *index, int64_t n,
                      double factor, float *factors, double *base, double *damped) {
  int64_t L = r->decoder.config->L;
  ist_pass pass = {.factor = factors};
  for (int64_t l = 0; l < L; l++) factors[l] = 1.0f;
  for (int64_t from = 0, to; from < n; from = to) {
    to = ist_runner_pack_next(r, data, index, from, n);
    ist_schedule_embed(&r->schedule);
    ist_runner_run(r, &pass);
    for (int64_t l = 0; l < L; l++) {
      factors[l] = (float)factor;
      ist_schedule_trial(&r->schedule, L, l);
      ist_runner_run(r, &pass);
      ist_runner_segment_means(r, damped + l * n + from);
      factors[l] = 1.0f;
      ist_schedule_layer(&r->schedule, l);
      ist_runner_run(r, &pass);
    }
    ist_schedule_trial(&r->schedule, L, L);
    ist_runner_run(r, &pass);
    ist_runner_segment_means(r, base + from);
  }
}

/* Mean of the paired differences with a 95 % interval (normal approximation). */
static ist_layer_importance paired_interval(const double *damped, const double *base, int64_t n) {
  double mean = 0, square = 0;
  for (int64_t i = 0; i < n; i++) mean += (damped[i] - base[i]) / (double)n;
  for (int64_t i = 0; i < n; i++) {
    double d = damped[i] - base[i] - mean;
    square += d * d;
  }
  double half = n > 1 ? 1.96 * sqrt(square / (double)(n - 1) / (double)n) : INFINITY;
  return (ist_layer_importance){mean, mean - half, mean + half};
}

ist_status ist_eval_layers(ist_model *m, const ist_eval_options *o, double factor,
                           ist_layer_importance *out, ist_error *err) {
  if (!m->adapters)
    return ist_fail(err, IST_ERR_ARG,
                    "layers: found no adapter on the model, and importance is that of its layers");
  ist_evaluation e;
  IST_TRY(ist_evaluation_open(&e, m, o, true, err));
  size_t n = (size_t)e.data.n, L = (size_t)m->config.L;
  double *loss = ist_calloc(n * (L + 1), sizeof *loss);
  float *factors = ist_calloc(L, sizeof *factors);
  ist_status status =
      loss && factors ? IST_OK : ist_fail_nomem(err, "sample losses", n * (L + 1) * sizeof *loss);
  if (status == IST_OK) {
    ist_layer_losses(&e.session.runner, &e.data, e.all, e.data.n, factor, factors, loss, loss + n);
    for (size_t l = 0; l < L; l++) out[l] = paired_interval(loss + (l + 1) * n, loss, e.data.n);
  }
  ist_free(loss);
  ist_free(factors);
  ist_evaluation_close(&e);
  return status;
}
