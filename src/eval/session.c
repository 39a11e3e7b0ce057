#include "eval/session.h"

#include <string.h>

#include "base/mem.h"

void ist_eval_options_init(ist_eval_options *o) {
  *o = (ist_eval_options){
      .size = sizeof *o,
      .template_name = "auto",
      .loss_on = "completion",
      .max_tokens = 2048,
      .micro_tokens = 1024,
      .max_new = 256,
  };
}

ist_decoder_sizes ist_forward_sizes(const ist_model *m, int64_t rows, int64_t longest,
                                    int64_t head_chunk) {
  rows = (rows + IST_ROW_BUCKET - 1) / IST_ROW_BUCKET * IST_ROW_BUCKET;
  return (ist_decoder_sizes){
      .compute = m->compute,
      .rows = rows,
      .longest = longest,
      .boundary_rows = rows,
      .n_boundary = 1,
      .n_attn = 1,
      .n_mlp = 1,
      .n_low = 1,
      .head_chunk = head_chunk,
      .head_rows = m->config.V,
      .policy = IST_WEIGHT_STREAM,
  };
}

ist_status ist_session_open(ist_session *s, ist_model *m, int64_t micro_tokens, int64_t longest,
                            bool trials, ist_error *err) {
  memset(s, 0, sizeof *s);
  IST_TRY(ist_model_check_free(m, err));
  s->model = m;
  if (micro_tokens < longest) micro_tokens = longest;
  const ist_runner_limits lim = {
      .tokens = micro_tokens, .segments = micro_tokens / 2 + 1, .longest = longest};
  ist_decoder_sizes sizes = ist_forward_sizes(m, micro_tokens, longest, 64);
  if (trials) sizes.n_boundary = 2;
  ist_status status = ist_decoder_open(&s->runner.decoder, &m->config, &m->weights, m->adapters,
                                       &m->ctx, &sizes, err);
  if (status == IST_OK) status = ist_runner_open(&s->runner, &lim, micro_tokens, err);
  if (status != IST_OK) ist_session_close(s);
  return status;
}

void ist_session_close(ist_session *s) {
  ist_runner_close(&s->runner);
}

static ist_status resolve_template(ist_template *tmpl, const ist_model *m,
                                   const ist_eval_options *o, ist_error *err) {
  if (!o->data_path)
    return ist_fail(err, IST_ERR_ARG, "data_path: found nothing, expected a data file");
  const char *name = o->template_name;
  if (strcmp(name, "auto") == 0 && m->template_name) name = m->template_name;
  int found = ist_template_from_name(name);
  if (found < 0) {
    return ist_fail(err, IST_ERR_ARG,
                    "template: found \"%s\", expected auto, model, chatml, alpaca, paper or none",
                    name);
  }
  *tmpl = (ist_template)found;
  IST_TRY(ist_model_check_tokenizer(m, err));
  return ist_template_resolve(tmpl, m->tokenizer, err);
}

ist_status ist_eval_read(ist_records *records, ist_template *tmpl, const ist_model *m,
                         const ist_eval_options *o, ist_error *err) {
  IST_TRY(resolve_template(tmpl, m, o, err));
  return ist_records_read(records, o->data_path, err);
}

ist_status ist_eval_data_options(ist_data_options *out, const ist_model *m,
                                 const ist_eval_options *o, ist_error *err) {
  *out = (ist_data_options){.now = ist_jinja_now(), .max_tokens = o->max_tokens, .limit = o->limit};
  int loss_on = ist_loss_on_from_name(o->loss_on);
  if (loss_on < 0)
    return ist_fail(err, IST_ERR_ARG, "loss_on: found \"%s\", expected completion, all or last",
                    o->loss_on);
  out->loss_on = (ist_loss_on)loss_on;
  return resolve_template(&out->tmpl, m, o, err);
}

ist_status ist_eval_dataset(ist_dataset *data, const ist_model *m, const ist_eval_options *o,
                            ist_error *err) {
  ist_data_options options;
  *data = (ist_dataset){0};
  IST_TRY(ist_eval_data_options(&options, m, o, err));
  ist_status status = ist_dataset_append(data, o->data_path, m->tokenizer, &options, err);
  if (status == IST_OK) status = ist_dataset_ready(data, err);
  if (status != IST_OK) ist_dataset_free(data);
  return status;
}

void ist_evaluation_close(ist_evaluation *e) {
  ist_session_close(&e->session);
  ist_dataset_free(&e->data);
  ist_free(e->all);
}

ist_status ist_evaluation_open(ist_evaluation *e, ist_model *m, const ist_eval_options *o,
                               bool trials, ist_error *err) {
  *e = (ist_evaluation){0};
  if (o->micro_tokens < 0 || o->micro_tokens > 1 << 22) /* as in training */
    return ist_fail(err, IST_ERR_ARG, "micro_tokens: found %lld, expected 0 to %d",
                    (long long)o->micro_tokens, 1 << 22);
  IST_TRY(ist_model_check_free(m, err));
  IST_TRY(ist_eval_dataset(&e->data, m, o, err));
  e->all = ist_calloc((size_t)e->data.n, sizeof *e->all);
  ist_status status =
      e->all ? ist_session_open(&e->session, m, o->micro_tokens, e->data.max_len, trials, err)
             : ist_fail_nomem(err, "sample list", (size_t)e->data.n * sizeof *e->all);
  if (status != IST_OK) {
    ist_evaluation_close(e);
    return status;
  }
  for (int64_t i = 0; i < e->data.n; i++) e->all[i] = i;
  return IST_OK;
}
