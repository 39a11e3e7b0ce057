/* Opening a run: options, data, adapters, plan, memory, state, and the checkpoint
 * where one is resumed. Nothing is written before everything was checked. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/rng.h"
#include "model/base_type.h"
#include "model/targets.h"
#include "train/trainer.h"

/* ---- Sizes that the plan needs -------------------------------------------------- */

/* A sample's length, and how often one batch may hold it. */
typedef struct weighed {
  int64_t length, copies;
} weighed;

static int longer_first(const void *a, const void *b) {
  const weighed *x = a, *y = b;
  return (x->length < y->length) - (x->length > y->length);
}

/* The most tokens that `count` samples of a list can have together. Where `sources` are
 * given, a sample may be among them as often as an epoch visits it. */
static ist_status longest_sum(const ist_dataset *d, const int64_t *list, int64_t n, int64_t count,
                              const ist_sources *sources, int64_t *sum, int64_t *longest,
                              ist_error *err) {
  weighed *of = ist_calloc((size_t)n + 1, sizeof *of);
  if (!of) return ist_fail_nomem(err, "sample lengths", (size_t)n * sizeof *of);
  for (int64_t i = 0; i < n; i++) {
    const ist_sample *s = &d->p[list[i]];
    of[i] = (weighed){s->n, sources ? (int64_t)ceil(sources->file[s->source].weight) : 1};
  }
  qsort(of, (size_t)n, sizeof *of, longer_first);
  *longest = n ? of[0].length : 0;
  *sum = 0;
  for (int64_t i = 0; i < n && count > 0; i++) {
    int64_t taken = of[i].copies < count ? of[i].copies : count;
    *sum += taken * of[i].length;
    count -= taken;
  }
  ist_free(of);
  return IST_OK;
}

static ist_status step_limits(const ist_trainer *t, ist_runner_limits *step,
                              ist_runner_limits *probe, ist_error *err) {
  const ist_split *s = &t->split;
  int64_t longest_valid, valid_sum, longest_train, longest_probe;
  IST_TRY(longest_sum(&t->data, s->train, s->n_train, t->options.batch, &t->sources, &step->tokens,
                      &longest_train, err));
  IST_TRY(longest_sum(&t->data, s->valid, s->n_valid, 1, NULL, &valid_sum, &longest_valid, err));
  const int64_t *list = s->probe_is_train ? s->train : s->probe;
  int64_t n = s->probe_is_train ? s->n_train : s->n_probe;
  IST_TRY(longest_sum(&t->data, list, n, t->options.probe_batch, NULL, &probe->tokens,
                      &longest_probe, err));
  step->segments = t->options.batch;
  step->longest = longest_train > longest_valid ? longest_train : longest_valid;
  if (step->tokens < step->longest) step->tokens = step->longest;
  probe->tokens *= IST_MAX_CANDIDATES < t->options.probe_candidates ? IST_MAX_CANDIDATES
                                                                    : t->options.probe_candidates;
  probe->segments = t->options.probe_batch * t->options.probe_candidates;
  probe->longest = longest_probe;
  return IST_OK;
}

/* A model that carries an adapter is trained on from there: its method, modules, ranks and alphas
 * become the run's. */
static ist_status adopt_adapter(ist_trainer *t, ist_error *err) {
  const ist_adapters *carried = &t->model->loaded;
  const char *asked = t->options.method;
  if (strcmp(asked, "lora") != 0 && strcmp(asked, carried->method->name) != 0)
    return ist_fail(err, IST_ERR_ARG,
                    "method: found \"%s\", expected \"%s\", as the adapter that the model carries",
                    asked, carried->method->name);
  return ist_options_from_adapter(&t->options, carried, &t->model->config, err);
}

static bool same_module(const ist_adapter *a, const ist_adapter *b) {
  return a->rank == b->rank && a->in == b->in && a->out == b->out && a->scale == b->scale &&
         a->a == b->a && a->b == b->b && a->a_step == b->a_step && a->m == b->m &&
         a->bias == b->bias && a->learned == b->learned;
}

/* The same parameters at the same places: what a site adds follows from its modules. */
static bool same_layout(const ist_adapters *a, const ist_adapters *b) {
  bool same = a->layout.params == b->layout.params && a->layout.prefix == b->layout.prefix &&
              a->layout.prefix_k == b->layout.prefix_k && a->layout.prefix_v == b->layout.prefix_v;
  for (int m = 0; m < IST_MOD_COUNT; m++)
    same = same && same_module(&a->layout.module[m], &b->layout.module[m]);
  for (int k = 0; k < IST_OUTER_COUNT; k++) {
    const ist_outer_adapter *x = &a->outer.of[k], *y = &b->outer.of[k];
    same = same && x->rank == y->rank && x->scale == y->scale && x->a == y->a && x->b == y->b;
  }
  return same;
}

static ist_status lay_out_adapters(ist_trainer *t, ist_error *err) {
  ist_linear_sizes sizes;
  ist_model_linear_sizes(&t->model->config, &sizes);
  ist_adapter_config c;
  IST_TRY(ist_options_adapter(&t->options, &t->model->config, &c, err));
  ist_status s = ist_adapters_layout(&t->adapters, &c, &sizes, t->model->config.L,
                                     ist_wide(t->model->compute), err);
  t->adapters.config.places = c.places; /* owned from here on, laid out or not */
  if (s != IST_OK) return s;
  if (t->adapters.outer.of[IST_OUTER_EMBED].rank)
    ist_log(IST_LOG_WARN,
            "targets: an adapter on the embedding needs backward through all layers in every step, "
            "whichever are drawn");
  const ist_adapters *carried = &t->model->loaded;
  if (!t->model->own_adapter || t->options.resume || same_layout(carried, &t->adapters))
    return IST_OK;
  return ist_fail(err, IST_ERR_INTERNAL, "adapter: found another layout than that of the adapter");
}

/* The layers that have adapters: the selector sees these only, from 0 on. */
static ist_status list_layers(ist_trainer *t, ist_error *err) {
  int64_t L = t->model->config.L;
  t->layer_of = ist_calloc((size_t)L, sizeof *t->layer_of);
  if (!t->layer_of) return ist_fail_nomem(err, "layer table", (size_t)L * sizeof *t->layer_of);
  for (int64_t l = 0; l < L; l++)
    if (ist_adapter_in_layer(&t->adapters, l)) t->layer_of[t->n_layers++] = (int32_t)l;
  return IST_OK;
}

/* Layers of the model that the options name -> those of the selector. */
static ist_status number_fixed(const ist_trainer *t, int32_t *fixed, int64_t n, ist_error *err) {
  for (int64_t i = 0; i < n; i++) {
    int64_t at = 0;
    while (at < t->n_layers && t->layer_of[at] != fixed[i]) at++;
    if (at == t->n_layers && fixed[i] < t->model->config.L)
      return ist_fail(err, IST_ERR_ARG, "selector: found fixed layer %d, which has no adapter",
                      (int)fixed[i]);
    if (at < t->n_layers) fixed[i] = (int32_t)at;
  }
  return IST_OK;
}

/* The depth budget's lowest layer, as the selector counts them: those with adapters. */
static int64_t selector_floor(const ist_trainer *t) {
  int64_t lowest = ist_depth_floor(&t->options, t->adapters.L), floor = 0;
  while (floor < t->n_layers - 1 && t->layer_of[floor] < lowest) floor++;
  return floor;
}

static ist_status open_selector(ist_trainer *t, ist_error *err) {
  ist_select_options o;
  int32_t *fixed;
  IST_TRY(list_layers(t, err));
  IST_TRY(ist_options_selector(&t->options, &o, &fixed, err));
  o.depth_floor = selector_floor(t);
  double *scores = NULL;
  ist_status status = number_fixed(t, fixed, o.n_fixed, err);
  if (status == IST_OK && t->options.resume && o.kind == IST_SELECT_SCORES) {
    scores = ist_calloc((size_t)t->n_layers, sizeof *scores); /* the checkpoint has them */
    if (!scores) status = ist_fail_nomem(err, "scores", (size_t)t->n_layers * sizeof *scores);
  } else if (status == IST_OK && !t->options.resume) {
    status = ist_options_scores(&t->options, t->adapters.L, t->layer_of, t->n_layers, &scores, err);
  }
  o.scores = scores;
  if (status == IST_OK) status = ist_selector_new(&t->selector, t->n_layers, &o, err);
  ist_free(fixed);
  ist_free(scores);
  if (status != IST_OK) return status;
  t->scores = ist_selector_get_state(t->selector);
  t->active_layers = ist_options_active(&o, t->n_layers);
  return IST_OK;
}

static ist_status make_plan(ist_trainer *t, const json_t *saved_plan, ist_error *err) {
  ist_source_drop_pages(&t->model->source);
  ist_plan_input in = ist_plan_input_of(t->model, &t->options, &t->adapters, t->active_layers);
  in.resident_bytes = ist_memory_resident(NULL, 0);
  in.moment_layers = ist_moment_layers(&t->options, t->n_layers, t->active_layers, t->total_steps);
  in.largest_pass = ist_trainer_largest_pass;
  in.user = t;
  IST_TRY(step_limits(t, &in.step, &in.probe, err));
  if (saved_plan) IST_TRY(ist_plan_fix(&in, saved_plan, err));
  return ist_plan_make(&t->plan, &in, err);
}

/* ---- Memory ------------------------------------------------------------------------ */

static ist_status reserve_parameters(ist_trainer *t, ist_error *err) {
  size_t layer = (size_t)ist_dtype_bytes(t->adapters.dt, t->adapters.layout.params);
  size_t outer = (size_t)ist_dtype_bytes(t->adapters.dt, t->adapters.outer.params);
  size_t all = layer * (size_t)t->adapters.L + outer;
  size_t active = layer * (size_t)t->active_layers;
  IST_TRY(ist_arena_init(&t->params, "adapters", ist_arena_round(all), err));
  IST_TRY(ist_arena_init(&t->grads, "adapter gradients",
                         ist_arena_round(active) + ist_arena_round(outer), err));
  if (t->plan.moments_on_disk) {
    if (t->options.output) IST_TRY(ist_mkdirs(t->options.output, err));
    IST_TRY(ist_arena_init_on_disk(&t->moments, "optimizer moments", 2 * ist_arena_round(all),
                                   ist_scratch_folder(&t->options), err));
  } else {
    IST_TRY(ist_arena_init(&t->moments, "optimizer moments", 2 * ist_arena_round(all), err));
  }
  t->adapters.params = ist_arena_alloc(&t->params, all);
  t->adapters.grads = ist_arena_alloc(&t->grads, active);
  if (outer) t->adapters.outer_grads = ist_arena_alloc(&t->grads, outer);
  t->m = ist_arena_alloc(&t->moments, all);
  t->v = ist_arena_alloc(&t->moments, all);
  return IST_OK;
}

static ist_status reserve_tables(ist_trainer *t, ist_error *err) {
  size_t L = (size_t)t->model->config.L;
  t->adapters.grad_slot = ist_calloc(L, sizeof *t->adapters.grad_slot);
  t->layer_steps = ist_calloc(L, sizeof *t->layer_steps);
  t->last_trained = ist_calloc(L, sizeof *t->last_trained);
  t->active = ist_calloc(L, sizeof *t->active);
  t->factor = ist_calloc(L * IST_MAX_CANDIDATES, sizeof *t->factor);
  t->importance = ist_calloc(L, sizeof *t->importance);
  t->suppressibility = ist_calloc(L, sizeof *t->suppressibility);
  t->observed = ist_calloc(L, sizeof *t->observed);
  t->segment_loss = ist_calloc((size_t)t->plan.limits.segments, sizeof *t->segment_loss);
  if (!t->adapters.grad_slot || !t->layer_steps || !t->last_trained || !t->active || !t->factor ||
      !t->importance || !t->suppressibility || !t->observed || !t->segment_loss) {
    return ist_fail_nomem(err, "layer tables", L * sizeof(double));
  }
  return IST_OK;
}

ist_status ist_trainer_reserve(ist_trainer *t, const json_t *saved_plan, ist_error *err) {
  IST_TRY(make_plan(t, saved_plan, err));
  IST_TRY(reserve_parameters(t, err));
  IST_TRY(reserve_tables(t, err));
  IST_TRY(ist_decoder_open(&t->runner.decoder, &t->model->config, &t->model->weights, &t->adapters,
                           &t->model->ctx, &t->plan.sizes, err));
  return ist_runner_open(&t->runner, &t->plan.limits, t->plan.micro_tokens, err);
}

/* ---- State ----------------------------------------------------------------------------- */

/* What embedding and head have lies behind the layers' blocks. */
static ist_status register_outer(ist_trainer *t, ist_error *err) {
  const int64_t n[1] = {t->adapters.outer.params}, one[1] = {1};
  if (!n[0]) return IST_OK;
  int64_t at = t->adapters.L * t->adapters.layout.params;
  size_t offset = (size_t)ist_dtype_bytes(t->adapters.dt, at);
  ist_dtype dt = t->adapters.dt;
  IST_TRY(ist_state_add(&t->state, "outer.adapters", dt, 1, n, t->adapters.params + offset, err));
  IST_TRY(ist_state_add(&t->state, "outer.m", dt, 1, n, t->m + offset, err));
  IST_TRY(ist_state_add(&t->state, "outer.v", dt, 1, n, t->v + offset, err));
  if (t->moments.on_disk) {
    ist_state_on_disk(&t->state, "outer.m");
    ist_state_on_disk(&t->state, "outer.v");
  }
  return ist_state_add(&t->state, "outer.steps", IST_I64, 1, one, &t->outer_steps, err);
}

static ist_status register_state(ist_trainer *t, ist_error *err) {
  int64_t L = t->adapters.L, params = t->adapters.layout.params;
  ist_dtype dt = t->adapters.dt;
  const int64_t block[2] = {L, params}, layers[1] = {L}, selected[1] = {t->n_layers}, one[1] = {1};
  const int64_t window[2] = {IST_SPIKE_KINDS, IST_SPIKE_WINDOW};
  ist_progress *p = &t->progress;
  const struct {
    const char *name;
    ist_dtype type;
    int n_dims;
    const int64_t *shape;
    void *data;
  } items[] = {
      {"adapters", dt, 2, block, t->adapters.params},
      {"moments.m", dt, 2, block, t->m},
      {"moments.v", dt, 2, block, t->v},
      {"moments.steps", IST_I64, 1, layers, t->layer_steps},
      {"moments.last_trained", IST_I64, 1, layers, t->last_trained},
      {"selector.suppressibility", IST_F64, 1, selected, t->scores.suppressibility},
      {"selector.observed", IST_I64, 1, selected, t->scores.observed},
      {"selector.drawn", IST_I64, 1, selected, t->scores.drawn},
      {"progress.step", IST_I64, 1, one, &p->step},
      {"progress.batch", IST_I64, 1, one, &p->batch},
      {"progress.skipped_in_row", IST_I64, 1, one, &p->skipped_in_row},
      {"progress.skipped", IST_I64, 1, one, &p->skipped},
      {"progress.bad_evals", IST_I64, 1, one, &p->bad_evals},
      {"progress.best_step", IST_I64, 1, one, &p->best_step},
      {"progress.metrics_bytes", IST_I64, 1, one, &p->metrics_bytes},
      {"progress.best_loss", IST_F64, 1, one, &p->best_loss},
      {"progress.last_valid", IST_F64, 1, one, &p->last_valid},
      {"spikes.n", IST_I64, 1, one, &t->spikes.n},
      {"spikes.value", IST_F64, 2, window, t->spikes.value},
  };
  for (size_t i = 0; i < sizeof items / sizeof *items; i++) {
    IST_TRY(ist_state_add(&t->state, items[i].name, items[i].type, items[i].n_dims, items[i].shape,
                          items[i].data, err));
  }
  if (t->moments.on_disk) {
    ist_state_on_disk(&t->state, "moments.m");
    ist_state_on_disk(&t->state, "moments.v");
  }
  return register_outer(t, err);
}

/* ---- Length of the run ---------------------------------------------------------------------- */

static void count_steps(ist_trainer *t) {
  int64_t batch = t->options.batch;
  t->steps_per_epoch = (t->n_epoch + batch - 1) / batch;
  double by_epochs = ceil(t->options.epochs * (double)t->steps_per_epoch);
  t->total_steps = t->options.steps ? t->options.steps : (int64_t)by_epochs;
  int64_t three_percent = (t->total_steps * 3 + 99) / 100;
  t->warmup = t->options.warmup_steps >= 0 ? t->options.warmup_steps
              : three_percent < 100        ? three_percent
                                           : 100;
  double ratio = (double)t->active_layers / (double)t->n_layers;
  t->lr = t->options.lr_by_active ? t->options.lr / ratio : t->options.lr;
}

/* ---- Start -------------------------------------------------------------------------------------
 */

/* Without a checkpoint the adapters start at their initial values, or at those of the
 * adapter that the model carries. */
static void start_fresh(ist_trainer *t) {
  const ist_adapters *ad = &t->adapters;
  const unsigned char *loaded = t->options.resume ? NULL : t->model->own_adapter;
  ist_decoder_init_adapters(&t->runner.decoder, t->options.seed);
  if (loaded) memcpy(ad->params, loaded, (size_t)ist_dtype_bytes(ad->dt, ist_adapter_elements(ad)));
  t->progress.best_loss = INFINITY;
  t->progress.last_valid = NAN;
}

static ist_status open_all(ist_trainer *t, ist_error *err) {
  IST_TRY(ist_trainer_check_output(t, err)); /* before the data are read, which may take long */
  char *checkpoint = NULL;
  json_t *saved = NULL;
  if (t->options.resume) {
    IST_TRY(ist_directory_lock(&t->lock, t->options.output, err));
    IST_TRY(ist_checkpoint_find_newest(t->options.output, &checkpoint, err));
    ist_status status = ist_checkpoint_settings(checkpoint, &saved, err);
    if (status != IST_OK) {
      ist_free(checkpoint);
      return status;
    }
  }
  t->now = ist_trainer_now(saved);
  ist_status status = ist_trainer_load_data(t, err);
  if (status == IST_OK && saved) status = ist_trainer_check_resume(t, saved, err);
  if (status == IST_OK && saved)
    status = ist_saved_modules_read(t->model, t->options.output, saved, err);
  if (status == IST_OK) t->saved_modules = ist_saved_modules_hash(t->model);
  if (status == IST_OK && t->model->own_adapter && !saved) status = adopt_adapter(t, err);
  if (status == IST_OK) status = lay_out_adapters(t, err);
  if (status == IST_OK) status = open_selector(t, err);
  if (status == IST_OK) count_steps(t);
  if (status == IST_OK)
    status = ist_trainer_reserve(t, saved ? json_object_get(saved, "plan") : NULL, err);
  if (status == IST_OK) status = register_state(t, err);
  if (status == IST_OK) start_fresh(t);
  if (status == IST_OK && checkpoint) status = ist_trainer_load_state(t, checkpoint, err);
  if (status == IST_OK) ist_decoder_adapters_changed(&t->runner.decoder, -1);
  t->resumed = checkpoint != NULL;
  json_decref(saved);
  ist_free(checkpoint);
  if (status != IST_OK) return status;
  t->stopped = t->options.patience > 0 && t->progress.bad_evals >= t->options.patience;
  ist_comm_single(&t->comm);
  return ist_trainer_open_output(t, err);
}

ist_status ist_trainer_open(ist_trainer **out, ist_model *m, const ist_train_options *options,
                            ist_error *err) {
  *out = NULL;
  ist_trainer *t = ist_calloc(1, sizeof *t);
  if (!t) return ist_fail_nomem(err, "trainer", sizeof *t);
  t->model = m;
  t->lock = -1;
  ist_status status = ist_model_check_free(m, err);
  if (status == IST_OK) status = ist_options_copy(&t->options, options, err);
  if (status == IST_OK) status = open_all(t, err);
  if (status != IST_OK) {
    ist_trainer_close(t);
    return status;
  }
  m->adapters = &t->adapters;
  m->busy = true;
  *out = t;
  return IST_OK;
}

void ist_trainer_close(ist_trainer *t) {
  if (!t) return;
  if (t->model->adapters == &t->adapters) {
    t->model->adapters = NULL;
    t->model->busy = false;
  }
  ist_runner_close(&t->runner);
  ist_arena_free(&t->params);
  ist_arena_free(&t->grads);
  ist_arena_free(&t->moments);
  ist_metrics_close(&t->metrics);
  ist_metrics_close(&t->timing);
  ist_state_free(&t->state);
  ist_selector_free(t->selector);
  ist_split_free(&t->split);
  ist_dataset_free(&t->data);
  ist_free(t->adapters.grad_slot);
  ist_free(t->layer_steps);
  ist_free(t->last_trained);
  ist_free(t->order);
  ist_free(t->round);
  ist_sources_free(&t->sources);
  ist_free(t->probe_order);
  ist_free(t->active);
  ist_free(t->factor);
  ist_free(t->importance);
  ist_free(t->suppressibility);
  ist_free(t->observed);
  ist_free(t->layer_of);
  ist_targets_free(&t->adapters.config);
  ist_free(t->segment_loss);
  if (t->lock >= 0) close(t->lock);
  ist_options_free(&t->options);
  ist_free(t);
}
