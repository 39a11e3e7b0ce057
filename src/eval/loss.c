/* Loss, perplexity and measured importance over a data file. */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "eval/session.h"

/* Data and a runner for it; `all` lists every sample. */
typedef struct evaluation {
  ist_dataset data;
  ist_session session;
  int64_t *all;
} evaluation;

static void close_evaluation(evaluation *e) {
  ist_session_close(&e->session);
  ist_dataset_free(&e->data);
  ist_free(e->all);
}

static ist_status open_evaluation(evaluation *e, ist_model *m, const ist_eval_options *o,
                                  ist_error *err) {
  *e = (evaluation){0};
  IST_TRY(ist_model_check_free(m, err));
  IST_TRY(ist_eval_dataset(&e->data, m, o, err));
  e->all = ist_calloc((size_t)e->data.n, sizeof *e->all);
  ist_status status = e->all
                          ? ist_session_open(&e->session, m, o->micro_tokens, e->data.max_len, err)
                          : ist_fail_nomem(err, "sample list", (size_t)e->data.n * sizeof *e->all);
  if (status != IST_OK) {
    close_evaluation(e);
    return status;
  }
  for (int64_t i = 0; i < e->data.n; i++) e->all[i] = i;
  return IST_OK;
}

ist_status ist_eval_loss(ist_model *m, const ist_eval_options *o, ist_loss_result *r,
                         ist_error *err) {
  evaluation e;
  IST_TRY(open_evaluation(&e, m, o, err));
  double loss = ist_runner_eval(&e.session.runner, &e.data, e.all, e.data.n, NULL, NULL);
  *r = (ist_loss_result){
      .loss = loss,
      .perplexity = exp(loss),
      .samples = e.data.n,
      .tokens = e.data.n_tokens,
      .targets = e.data.n_target,
  };
  close_evaluation(&e);
  return IST_OK;
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
  evaluation e;
  IST_TRY(open_evaluation(&e, m, o, err));
  int64_t n = e.data.n, L = m->config.L;
  double *base = ist_calloc((size_t)n, sizeof *base),
         *damped = ist_calloc((size_t)n, sizeof *damped);
  float *factors = ist_calloc((size_t)L, sizeof *factors);
  ist_status status = base && damped && factors
                          ? IST_OK
                          : ist_fail_nomem(err, "sample losses", (size_t)n * sizeof *base);
  if (status == IST_OK) {
    for (int64_t l = 0; l < L; l++) factors[l] = 1.0f;
    ist_runner_eval(&e.session.runner, &e.data, e.all, n, factors, base);
    for (int64_t l = 0; l < L; l++) {
      factors[l] = (float)factor;
      ist_runner_eval(&e.session.runner, &e.data, e.all, n, factors, damped);
      factors[l] = 1.0f;
      out[l] = paired_interval(damped, base, n);
    }
  }
  ist_free(base);
  ist_free(damped);
  ist_free(factors);
  close_evaluation(&e);
  return status;
}

ist_status ist_model_logits(ist_model *m, const int32_t *ids, int64_t n, float *logits,
                            ist_error *err) {
  if (n < 1) return ist_fail(err, IST_ERR_ARG, "logits: found no tokens");
  for (int64_t i = 0; i < n; i++) {
    if (ids[i] < 0 || ids[i] >= m->config.V) {
      return ist_fail(err, IST_ERR_ARG, "logits: found token %d, expected 0 to %lld", ids[i],
                      (long long)m->config.V - 1);
    }
  }
  ist_session s;
  IST_TRY(ist_session_open(&s, m, n, n, err));
  ist_sample sample = {.ids = (int32_t *)(uintptr_t)ids, .n = (int32_t)n};
  sample.mask = ist_calloc((size_t)n, 1);
  if (!sample.mask) {
    ist_session_close(&s);
    return ist_fail_nomem(err, "mask", (size_t)n);
  }
  const ist_dataset data = {.p = &sample, .n = 1};
  ist_runner_pack(&s.runner, &data, &(int64_t){0}, 1, 1, false);
  ist_schedule_forward(&s.runner.schedule, m->config.L, 1, false);
  ist_pass pass = {0};
  ist_runner_run(&s.runner, &pass);
  for (int64_t i = 0; i < n; i++) {
    ist_view row = ist_decoder_logits(&s.runner.decoder, 0, i, 1);
    memcpy(logits + i * m->config.V, row.p, (size_t)m->config.V * sizeof *logits);
  }
  ist_free(sample.mask);
  ist_session_close(&s);
  return IST_OK;
}
