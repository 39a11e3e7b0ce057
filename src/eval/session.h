/* A model made ready to be evaluated: a runner without backward. */
#ifndef IST_EVAL_SESSION_H
#define IST_EVAL_SESSION_H

#include "model/model.h"
#include "train/runner.h"

typedef struct ist_session {
  ist_model *model;
  ist_runner runner;
} ist_session;

/* Sizes of a decoder that only goes forward, `rows` tokens a pass. */
ist_decoder_sizes ist_forward_sizes(const ist_model *m, int64_t rows, int64_t longest,
                                    int64_t head_chunk);
/* Room for samples of up to `longest` tokens, micro_tokens (at least that) a pass; for
 * ist_schedule_trial where asked. */
ist_status ist_session_open(ist_session *s, ist_model *m, int64_t micro_tokens, int64_t longest,
                            bool trials, ist_error *err);
void ist_session_close(ist_session *s);

/* Reads the data file of the options with the template they name ("auto": the one
 * the model's adapter was trained with, else the model's). */
ist_status ist_eval_read(ist_records *records, ist_template *tmpl, const ist_model *m,
                         const ist_eval_options *o, ist_error *err);
/* What the options say of samples; checked, the template resolved as above. */
ist_status ist_eval_data_options(ist_data_options *out, const ist_model *m,
                                 const ist_eval_options *o, ist_error *err);
ist_status ist_eval_dataset(ist_dataset *data, const ist_model *m, const ist_eval_options *o,
                            ist_error *err);

/* The data of the options and a session for it; `all` lists every sample. */
typedef struct ist_evaluation {
  ist_dataset data;
  ist_session session;
  int64_t *all;
} ist_evaluation;
ist_status ist_evaluation_open(ist_evaluation *e, ist_model *m, const ist_eval_options *o,
                               bool trials, ist_error *err);
void ist_evaluation_close(ist_evaluation *e);

/* Mean losses of samples index[0 .. n): `base` (n) as the model is and `damped` (L, n)
 * with the adapters of one layer at a time times `factor`. factors: (L) scratch. Needs
 * room for trials. */
void ist_layer_losses(ist_runner *r, const ist_dataset *data, const int64_t *index, int64_t n,
                      double factor, float *factors, double *base, double *damped);

#endif
