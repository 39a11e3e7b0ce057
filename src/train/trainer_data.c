/* Data of a run: files -> samples -> disjoint train, validation and probe sets,
 * and which samples a step or a probe takes. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "train/trainer.h"

static ist_status append_file(ist_trainer *t, const char *path, int source, ist_error *err) {
  const ist_data_options opt = {
      .tmpl = t->tmpl,
      .now = t->now,
      .loss_on = (ist_loss_on)ist_loss_on_from_name(t->options.loss_on),
      .max_tokens = t->options.max_tokens,
      .limit = t->options.limit,
      .source = (int16_t)source,
      .folder = ist_scratch_folder(NULL), /* the output directory is not there yet */
  };
  return ist_dataset_append(&t->data, path, t->model->tokenizer, &opt, err);
}

static ist_status read_training(ist_trainer *t, ist_error *err) {
  IST_TRY(ist_sources_parse(&t->sources, t->options.train_path, err));
  for (int i = 0; i < t->sources.n; i++) IST_TRY(append_file(t, t->sources.file[i].path, i, err));
  t->n_cut = t->data.n_cut;
  t->n_dropped = t->data.n_dropped;
  return IST_OK;
}

/* Validation samples from a file of their own come behind the training samples. */
static ist_status append_validation(ist_trainer *t, ist_error *err) {
  int64_t first = t->data.n;
  IST_TRY(append_file(t, t->options.valid_path, t->sources.n, err));
  int64_t n = t->data.n - first;
  if (t->options.valid_examples >= 0 && t->options.valid_examples < n)
    n = t->options.valid_examples;
  int64_t *list = ist_calloc((size_t)n + 1, sizeof *list);
  if (!list) return ist_fail_nomem(err, "validation list", (size_t)n * sizeof *list);
  for (int64_t i = 0; i < n; i++) list[i] = first + i;
  ist_free(t->split.valid);
  t->split.valid = list;
  t->split.n_valid = n;
  return IST_OK;
}

static const int64_t *probe_list(const ist_trainer *t, int64_t *n) {
  *n = t->split.probe_is_train ? t->split.n_train : t->split.n_probe;
  return t->split.probe_is_train ? t->split.train : t->split.probe;
}

/* The order of an epoch, and the round it is taken from. */
static ist_status reserve_orders(ist_trainer *t, ist_error *err) {
  int64_t n_probe, n = t->split.n_train;
  probe_list(t, &n_probe);
  t->n_epoch = ist_mix_size(&t->sources, &t->data, t->split.train, n);
  t->order = ist_calloc((size_t)t->n_epoch, sizeof *t->order);
  t->round = ist_calloc((size_t)n, sizeof *t->round);
  t->probe_order = ist_calloc((size_t)n_probe, sizeof *t->probe_order);
  if (!t->order || !t->round || !t->probe_order)
    return ist_fail_nomem(err, "order of samples", (size_t)t->n_epoch * sizeof *t->order);
  ist_mix_round(t->round, &t->sources, &t->data, t->split.train, n, t->options.seed);
  t->order_epoch = t->probe_pass = -1;
  return IST_OK;
}

/* Asked-for set sizes; a probe set of 0 means: probe on the training data. */
static ist_status make_split(ist_trainer *t, ist_error *err) {
  int64_t n_valid = t->options.valid_path ? 0 : t->options.valid_examples;
  IST_TRY(ist_split_make(&t->split, t->data.n, n_valid, t->options.probe_examples, t->options.seed,
                         err));
  if (t->split.n_train == 0) {
    return ist_fail(err, IST_ERR_DATA,
                    "%s: found %lld samples, none is left to train on after validation (%lld) and "
                    "probes (%lld)",
                    t->options.train_path, (long long)t->data.n, (long long)t->split.n_valid,
                    (long long)t->split.n_probe);
  }
  return IST_OK;
}

ist_status ist_trainer_load_data(ist_trainer *t, ist_error *err) {
  t->tmpl = (ist_template)ist_template_from_name(t->options.template_name);
  IST_TRY(ist_model_check_tokenizer(t->model, err));
  IST_TRY(ist_template_resolve(&t->tmpl, t->model->tokenizer, err));
  IST_TRY(read_training(t, err));
  IST_TRY(make_split(t, err));
  if (t->options.valid_path) IST_TRY(append_validation(t, err));
  IST_TRY(ist_dataset_ready(&t->data, err));
  t->data_hash = ist_dataset_hash(&t->data);
  return reserve_orders(t, err);
}

/* The samples of a shuffled list: positions of the permutation become samples. */
static void shuffle(int64_t *out, const int64_t *list, int64_t n, ist_rng rng) {
  memcpy(out, list, (size_t)n * sizeof *out);
  ist_rng_shuffle(&rng, out, n);
}

static const int64_t *slice(const int64_t *order, int64_t n, int64_t index, int64_t size,
                            int64_t *count) {
  int64_t first = index * size;
  *count = n - first < size ? n - first : size;
  return order + first;
}

const int64_t *ist_trainer_batch(ist_trainer *t, int64_t batch, int64_t *n) {
  int64_t epoch = batch / t->steps_per_epoch;
  if (epoch != t->order_epoch) {
    ist_mix_order(t->order, &t->sources, &t->data, t->round, t->split.n_train, t->options.seed,
                  epoch);
    t->order_epoch = epoch;
  }
  ist_store_forget(&t->data.store);
  return slice(t->order, t->n_epoch, batch % t->steps_per_epoch, t->options.batch, n);
}

const int64_t *ist_trainer_probe_batch(ist_trainer *t, int64_t probe, int64_t *n) {
  int64_t count, size = t->options.probe_batch;
  const int64_t *list = probe_list(t, &count);
  int64_t batches = (count + size - 1) / size, pass = probe / batches;
  if (pass != t->probe_pass) {
    shuffle(t->probe_order, list, count,
            ist_rng_stream(t->options.seed, IST_RNG_PROBE, (uint32_t)pass, 0, 0));
    t->probe_pass = pass;
  }
  return slice(t->probe_order, count, probe % batches, size, n);
}

int64_t ist_trainer_largest_pass(void *user, int64_t micro) {
  ist_trainer *t = user;
  /* Every epoch orders the samples anew; after some the largest pass hardly grows, and a
   * larger batch that comes later is cut into one pass more. */
  int64_t most = 0, batches = t->total_steps, some = 8 * t->steps_per_epoch;
  for (int64_t b = 0; b < (batches < some ? batches : some); b++) {
    int64_t n, tokens = 0;
    const int64_t *sample = ist_trainer_batch(t, b, &n);
    for (int64_t i = 0; i < n; i++) {
      int64_t len = t->data.p[sample[i]].n;
      tokens = tokens + len > micro ? len : tokens + len;
      if (tokens > most) most = tokens;
    }
  }
  return most;
}
