/* Loss and perplexity over a data file, and the logits of a text. */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "eval/session.h"

ist_status ist_eval_loss(ist_model *m, const ist_eval_options *o, ist_loss_result *r,
                         ist_error *err) {
  ist_evaluation e;
  IST_TRY(ist_evaluation_open(&e, m, o, false, err));
  double loss = ist_runner_eval(&e.session.runner, &e.data, e.all, e.data.n, NULL, NULL);
  *r = (ist_loss_result){
      .loss = loss,
      .perplexity = exp(loss),
      .samples = e.data.n,
      .tokens = e.data.n_tokens,
      .targets = e.data.n_target,
  };
  ist_evaluation_close(&e);
  return IST_OK;
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
  IST_TRY(ist_session_open(&s, m, n, n, false, err));
  ist_sample sample = {.ids = (int32_t *)(uintptr_t)ids, .n = (int32_t)n};
  sample.mask = ist_calloc((size_t)n, 1);
  if (!sample.mask) {
    ist_session_close(&s);
    return ist_fail_nomem(err, "mask", (size_t)n);
  }
  const ist_dataset data = {.p = &sample, .n = 1};
  ist_runner_pack(&s.runner, &data, &(int64_t){0}, 1, 1);
  ist_schedule_forward(&s.runner.schedule, m->config.L, 0, 1, IST_ORDER_TOKEN, false);
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
