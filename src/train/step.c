/* One optimizer step: probe, draw, forward and backward by the schedule, clip,
 * AdamW on the layers that were drawn; then what falls due. */
#include <math.h>
#include <string.h>

#include "train/trainer.h"

#define MAX_SKIPPED_IN_ROW 8

/* ---- Selection -------------------------------------------------------------------- */

static void draw_layers(ist_trainer *t) {
  ist_selector_draw(t->selector, t->progress.step, t->active);
  for (int64_t l = t->adapters.L - 1, i = t->n_layers - 1; l >= 0; l--)
    t->active[l] = i >= 0 && t->layer_of[i] == l ? t->active[i--] : 0;
  int32_t slot = 0;
  for (int64_t l = 0; l < t->adapters.L; l++) t->adapters.grad_slot[l] = t->active[l] ? slot++ : -1;
  size_t layer = (size_t)ist_dtype_bytes(t->adapters.dt, t->adapters.layout.params);
  memset(t->adapters.grads, 0, layer * (size_t)slot);
  size_t outer = (size_t)ist_dtype_bytes(t->adapters.dt, t->adapters.outer.params);
  if (outer) memset(t->adapters.outer_grads, 0, outer);
}

/* ---- Gradients ------------------------------------------------------------------------ */

/* As planned; but a step that goes below the depth budget's floor has no room to keep
 * values of all its layers. */
static ist_recompute recompute_of(const ist_trainer *t, int64_t lowest) {
  bool room = lowest >= ist_depth_floor(&t->options, t->adapters.L);
  return room ? t->plan.recompute : IST_RECOMPUTE_LAYER;
}

/* Forward and backward of the batch; the gradient is that of the mean loss over
 * the batch's supervised tokens, however it is cut into micro-batches. */
static double forward_backward(ist_trainer *t, const int64_t *samples, int64_t n,
                               ist_step_report *r) {
  ist_runner *run = &t->runner;
  int64_t L = t->adapters.L, lowest = ist_lowest_active(t->active, L);
  ist_runner_pack(run, &t->data, samples, n, 1);
  int64_t targets = run->n_targets;
  t->comm.token_count(&t->comm, &targets);
  ist_schedule_train(&run->schedule, L, run->n_micro, t->active, t->plan.order,
                     recompute_of(t, lowest));
  ist_pass pass = {
      .train = true,
      .active = t->active,
      .lowest = lowest,
      .loss_weight = 1.0 / (double)targets,
      .seed = t->options.seed,
      .step = (uint32_t)t->progress.step,
  };
  ist_runner_run(run, &pass);
  r->tokens = run->n_tokens;
  r->targets = targets;
  return ist_runner_loss_sum(run) / (double)targets;
}

static ist_view layer_block(const ist_trainer *t, unsigned char *base, int64_t row) {
  int64_t params = t->adapters.layout.params;
  return ist_view_make(base + ist_dtype_bytes(t->adapters.dt, row * params), t->adapters.dt, 1,
                       params, params);
}

static ist_view gradient_block(const ist_trainer *t, int64_t layer) {
  return layer_block(t, t->adapters.grads, t->adapters.grad_slot[layer]);
}

/* L2 norm over the parameters that train in this step, layers in fixed order. */
static double gradient_norm(ist_trainer *t) {
  double sum = 0;
  for (int64_t l = 0; l < t->adapters.L; l++) {
    if (!t->active[l]) continue;
    ist_view g = gradient_block(t, l);
    t->comm.gradients(&t->comm, g.p, g.dt, g.cols);
    sum += t->model->ctx.be->sumsq(&t->model->ctx, g);
  }
  ist_view outer = ist_outer_grad(&t->adapters, 0, 1, t->adapters.outer.params);
  if (outer.p) {
    t->comm.gradients(&t->comm, outer.p, outer.dt, outer.cols);
    sum += t->model->ctx.be->sumsq(&t->model->ctx, outer);
  }
  return sqrt(sum);
}

/* What the moments of a layer became in the steps since it last trained (`missed`). */
static void settle_moments(ist_trainer *t, int64_t l) {
  const ist_train_options *o = &t->options;
  int64_t missed = t->progress.step - t->last_trained[l];
  t->last_trained[l] = t->progress.step + 1;
  if (missed <= 0 || t->layer_steps[l] == 0) return;
  ist_ctx *ctx = &t->model->ctx;
  ist_view m = layer_block(t, t->m, l), v = layer_block(t, t->v, l);
  if (strcmp(o->moments, "drop") == 0) {
    ctx->be->zero(ctx, m);
    ctx->be->zero(ctx, v);
    t->layer_steps[l] = 0;
  } else if (strcmp(o->moments, "decay") == 0) { /* as if the gradients had been zero */
    ctx->be->scale_rows(ctx, m, pow(o->beta1, (double)missed), NULL);
    ctx->be->scale_rows(ctx, v, pow(o->beta2, (double)missed), NULL);
    t->layer_steps[l] += missed;
  }
}

/* AdamW on one row of parameters, the first `plain` at the common rate, the rest, with LoRA+, at
 * its own. block: parameters, gradient, moments. */
static void update_block(ist_trainer *t, const ist_view block[4], int64_t plain, ist_adamw o) {
  int64_t n = block[0].cols, split = t->options.lr_ratio == 1.0 ? n : plain;
  for (int part = 0; part < 2; part++) {
    int64_t from = part ? split : 0, to = part ? n : split;
    if (from == to) continue;
    ist_view v[4];
    for (int i = 0; i < 4; i++) v[i] = ist_view_cols(block[i], from, to - from);
    t->model->ctx.be->adamw(&t->model->ctx, v[0], v[1], v[2], v[3], &o);
    o.lr *= t->options.lr_ratio;
  }
}

/* What lies behind the layers' blocks. */
static ist_view outer_block(const ist_trainer *t, unsigned char *base) {
  int64_t at = t->adapters.L * t->adapters.layout.params, n = t->adapters.outer.params;
  return ist_view_make(base + ist_dtype_bytes(t->adapters.dt, at), t->adapters.dt, 1, n, n);
}

static void update(ist_trainer *t, double norm, double lr) {
  const ist_train_options *o = &t->options;
  double clip = o->clip_norm > 0 ? o->clip_norm / (norm + 1e-6) : 1.0;
  ist_adamw adamw = {
      .lr = lr,
      .beta1 = o->beta1,
      .beta2 = o->beta2,
      .eps = o->eps,
      .weight_decay = o->weight_decay,
      .grad_scale = clip < 1.0 ? clip : 1.0,
  };
  for (int64_t l = 0; l < t->adapters.L; l++) {
    if (!t->active[l]) continue;
    settle_moments(t, l);
    adamw.t = ++t->layer_steps[l];
    const ist_view block[4] = {layer_block(t, t->adapters.params, l), gradient_block(t, l),
                               layer_block(t, t->m, l), layer_block(t, t->v, l)};
    update_block(t, block, t->adapters.layout.plain, adamw);
    ist_decoder_adapters_changed(&t->runner.decoder, l);
  }
  if (!t->adapters.outer.params) return;
  adamw.t = ++t->outer_steps;
  const ist_view block[4] = {outer_block(t, t->adapters.params),
                             ist_outer_grad(&t->adapters, 0, 1, t->adapters.outer.params),
                             outer_block(t, t->m), outer_block(t, t->v)};
  update_block(t, block, t->adapters.outer.plain, adamw);
}

/* Frozen layers' moments are not looked at before they are drawn again. */
static void drop_moments(ist_trainer *t) {
  if (!t->moments.on_disk) return;
  for (int64_t l = 0; l < t->adapters.L; l++) {
    if (!t->active[l]) continue;
    size_t bytes = (size_t)ist_dtype_bytes(t->adapters.dt, t->adapters.layout.params);
    ist_arena_drop(&t->moments, layer_block(t, t->m, l).p, bytes);
    ist_arena_drop(&t->moments, layer_block(t, t->v, l).p, bytes);
  }
}

/* ---- Evaluation ---------------------------------------------------------------------------- */

ist_status ist_trainer_validate(ist_trainer *t, double *loss, ist_error *err) {
  if (t->split.n_valid == 0)
    return ist_fail(err, IST_ERR_ARG, "validation: found no validation samples");
  *loss = ist_runner_eval(&t->runner, &t->data, t->split.valid, t->split.n_valid, NULL, NULL);
  return IST_OK;
}

static ist_status evaluate(ist_trainer *t, ist_step_report *r, ist_error *err) {
  ist_progress *p = &t->progress;
  IST_TRY(ist_trainer_validate(t, &p->last_valid, err));
  r->evaluated = true;
  r->valid_loss = p->last_valid;
  if (p->last_valid < p->best_loss) {
    p->best_loss = p->last_valid;
    p->best_step = p->step;
    p->bad_evals = 0;
    r->improved = true;
    return ist_trainer_keep_best(t, err);
  }
  p->bad_evals++;
  t->stopped = t->options.patience > 0 && p->bad_evals >= t->options.patience;
  if (t->stopped)
    ist_log(IST_LOG_INFO,
            "stopped after step %lld: %lld evaluations without a validation loss below %.4f, that "
            "of step %lld (--patience)",
            (long long)p->step, (long long)p->bad_evals, p->best_loss, (long long)p->best_step);
  return IST_OK;
}

/* ---- The step ------------------------------------------------------------------------------ */

bool ist_trainer_is_finished(const ist_trainer *t) {
  return t->progress.step >= t->total_steps || t->stopped;
}

static bool is_due(int64_t every, int64_t step) {
  return every > 0 && step % every == 0;
}

static bool evaluation_due(const ist_trainer *t) {
  if (t->split.n_valid == 0) return false;
  int64_t every = t->options.eval_every == 0 ? t->steps_per_epoch : t->options.eval_every;
  return is_due(every, t->progress.step) || ist_trainer_is_finished(t);
}

static void report_selection(ist_trainer *t, ist_step_report *r) {
  r->L = t->adapters.L;
  r->active = t->active;
  for (int64_t i = 0; i < t->n_layers; i++) {
    int32_t l = t->layer_of[i];
    t->importance[l] = ist_selector_importance(t->selector, i);
    t->suppressibility[l] = t->scores.suppressibility[i];
    t->observed[l] = t->scores.observed[i];
  }
  r->importance = t->importance;
  r->observed = t->observed;
}

/* "3, 17, 4, ..." as far as there is room. */
static void list_lines(char *text, size_t room, const ist_dataset *data, const int64_t *samples,
                       int64_t n) {
  size_t len = 0;
  text[0] = 0;
  for (int64_t i = 0; i < n; i++) {
    if (len + 32 > room) {
      snprintf(text + len, room - len, ", ...");
      return;
    }
    len += (size_t)snprintf(text + len, room - len, "%s%lld", i ? ", " : "",
                            (long long)data->p[samples[i]].line);
  }
}

/* The step changed nothing. Too many of them in a row end the run. */
static ist_status skip_step(ist_trainer *t, ist_step_report *r, ist_error *err) {
  ist_progress *p = &t->progress;
  r->skipped = true;
  p->skipped++;
  if (++p->skipped_in_row < MAX_SKIPPED_IN_ROW) return IST_OK;
  ist_status status;
  if (r->spike) {
    status = ist_fail(err, IST_ERR_NONFINITE,
                      "step %lld: %d spikes of the loss or the gradient norm in a row",
                      (long long)p->step + 1, MAX_SKIPPED_IN_ROW);
    ist_hint(err, "try a lower --lr, a higher --spike-z, or --no-skip-spikes");
  } else {
    status = ist_fail(err, IST_ERR_NONFINITE,
                      "step %lld: the loss or the gradients were not finite %d times in a row",
                      (long long)p->step + 1, MAX_SKIPPED_IN_ROW);
    ist_hint(err, "try a lower --lr, or --compute f32");
  }
  return status;
}

/* How the step compares with those before it, and a line in the log where it is one to look
 * at. True: its gradients are used. */
static bool judge_step(ist_trainer *t, const int64_t *samples, int64_t n, ist_step_report *r) {
  const ist_train_options *o = &t->options;
  bool finite = isfinite(r->loss) && isfinite(r->grad_norm);
  if (finite) {
    r->loss_z = ist_spikes_z(&t->spikes, IST_SPIKE_LOSS, r->loss);
    r->grad_norm_z = ist_spikes_z(&t->spikes, IST_SPIKE_GRAD_NORM, r->grad_norm);
    r->spike = o->spike_z > 0 && fmax(r->loss_z, r->grad_norm_z) > o->spike_z;
    ist_spikes_add(&t->spikes, r->loss, r->grad_norm, o->spike_z);
  }
  bool use = finite && !(r->spike && o->skip_spikes);
  t->comm.decide(&t->comm, &use);
  char lines[400] = "";
  if (!use || r->spike) list_lines(lines, sizeof lines, &t->data, samples, n);
  if (!finite)
    ist_log(IST_LOG_WARN,
            "step %lld skipped: loss %g, gradient norm %g are not finite (data lines %s)",
            (long long)t->progress.step + 1, r->loss, r->grad_norm, lines);
  else if (r->spike)
    ist_log(IST_LOG_WARN,
            "step %lld%s: a spike: loss %.4f, gradient norm %.4g, %.1f and %.1f standard "
            "deviations above the last %d steps (data lines %s)",
            (long long)t->progress.step + 1, use ? "" : " skipped", r->loss, r->grad_norm,
            r->loss_z, r->grad_norm_z, IST_SPIKE_WINDOW, lines);
  return use;
}

static ist_status train_batch(ist_trainer *t, ist_step_report *r, ist_error *err) {
  int64_t n;
  const int64_t *samples = ist_trainer_batch(t, t->progress.batch, &n);
  draw_layers(t);
  r->loss = forward_backward(t, samples, n, r);
  r->grad_norm = gradient_norm(t);
  r->lr = t->lr * ist_lr_factor(ist_lr_kind_from_name(t->options.lr_schedule), t->progress.step,
                                t->warmup, t->total_steps);
  t->progress.batch++;
  if (!judge_step(t, samples, n, r)) return skip_step(t, r, err);
  update(t, r->grad_norm, r->lr);
  drop_moments(t);
  t->progress.skipped_in_row = 0;
  t->progress.step++;
  return IST_OK;
}

ist_status ist_trainer_step(ist_trainer *t, ist_step_report *r, ist_error *err) {
  *r = (ist_step_report){0};
  if (t->ended || ist_trainer_is_finished(t))
    return ist_fail(err, IST_ERR_ARG, "step: the run is finished after %lld steps",
                    (long long)t->progress.step);
  double start = ist_prof_now(), loss[IST_MAX_CANDIDATES];
  int64_t n_loss = 0;
  /* A step that was skipped keeps its number: its probe was made already. */
  if (t->progress.skipped_in_row == 0 && ist_selector_wants_probe(t->selector, t->progress.step)) {
    ist_trainer_probe(t, loss, &n_loss);
    r->probed = true;
    r->probe_seconds = ist_prof_now() - start;
  }
  IST_TRY(train_batch(t, r, err));
  r->step = t->progress.step;
  r->epoch = (double)t->progress.batch / (double)t->steps_per_epoch;
  r->seconds = ist_prof_now() - start;
  if (!r->skipped && evaluation_due(t)) IST_TRY(evaluate(t, r, err));
  r->finished = ist_trainer_is_finished(t);
  report_selection(t, r);
  IST_TRY(ist_trainer_log_step(t, r, loss, n_loss, err));
  if (!r->skipped && t->options.output &&
      (is_due(t->options.save_every, t->progress.step) || r->finished)) {
    IST_TRY(ist_trainer_save(t, err));
    r->saved = true;
  }
  return IST_OK;
}
