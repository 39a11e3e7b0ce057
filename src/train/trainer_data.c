/* Data of a run: files -> samples -> disjoint train, validation and probe sets,
 * and which samples a step or a probe takes. */
#include <string.h>

#include "base/mem.h"
#include "train/trainer.h"

static ist_status read_dataset(ist_trainer *t, ist_dataset *out, const char *path, ist_error *err) {
  ist_records records = {0};
  const ist_data_options opt = {
      .tmpl = t->tmpl,
      .loss_on = strcmp(t->options.loss_on, "all") == 0 ? IST_LOSS_ALL : IST_LOSS_COMPLETION,
      .max_tokens = t->options.max_tokens,
      .limit = t->options.limit,
  };
  ist_status status = ist_records_read(&records, path, err);
  if (status == IST_OK) status = ist_dataset_build(out, &records, t->model->tokenizer, &opt, err);
  ist_records_free(&records);
  if (status == IST_OK && out->n == 0) {
    status = ist_fail(err, IST_ERR_DATA, "%s: found no sample with a supervised token", path);
  }
  return status;
}

/* Validation samples from a file of their own come behind the training samples. */
static ist_status append_validation(ist_trainer *t, ist_error *err) {
  ist_dataset valid = {0};
  IST_TRY(read_dataset(t, &valid, t->options.valid_path, err));
  int64_t first = t->data.n, n = valid.n;
  if (t->options.valid_examples >= 0 && t->options.valid_examples < n)
    n = t->options.valid_examples;
  ist_status status = ist_grow(&t->data.p, &t->data.cap, first + valid.n, sizeof *t->data.p, err);
  int64_t *list = status == IST_OK ? ist_calloc((size_t)n + 1, sizeof *list) : NULL;
  if (!list) {
    ist_dataset_free(&valid);
    return status != IST_OK ? status
                            : ist_fail_nomem(err, "validation list", (size_t)n * sizeof *list);
  }
  memcpy(t->data.p + first, valid.p, (size_t)valid.n * sizeof *valid.p);
  t->data.n += valid.n;
  if (valid.max_len > t->data.max_len) t->data.max_len = valid.max_len;
  ist_free(valid.p); /* the samples themselves moved */
  for (int64_t i = 0; i < n; i++) list[i] = first + i;
  ist_free(t->split.valid);
  t->split.valid = list;
  t->split.n_valid = n;
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

static const int64_t *probe_list(const ist_trainer *t, int64_t *n) {
  *n = t->split.probe_is_train ? t->split.n_train : t->split.n_probe;
  return t->split.probe_is_train ? t->split.train : t->split.probe;
}

ist_status ist_trainer_load_data(ist_trainer *t, ist_error *err) {
  t->tmpl = (ist_template)ist_template_from_name(t->options.template_name);
  IST_TRY(ist_template_resolve(&t->tmpl, t->model->tokenizer, err));
  IST_TRY(read_dataset(t, &t->data, t->options.train_path, err));
  t->data_hash = ist_dataset_hash(&t->data);
  IST_TRY(make_split(t, err));
  if (t->options.valid_path) IST_TRY(append_validation(t, err));
  int64_t n_probe;
  probe_list(t, &n_probe);
  t->order = ist_calloc((size_t)t->split.n_train, sizeof *t->order);
  t->probe_order = ist_calloc((size_t)n_probe, sizeof *t->probe_order);
  if (!t->order || !t->probe_order)
    return ist_fail_nomem(err, "order of samples", (size_t)t->data.n * sizeof *t->order);
  t->order_epoch = t->probe_pass = -1;
  return IST_OK;
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
    ist_epoch_order(t->order, t->split.n_train, t->options.seed, epoch);
    for (int64_t i = 0; i < t->split.n_train; i++) t->order[i] = t->split.train[t->order[i]];
    t->order_epoch = epoch;
  }
  return slice(t->order, t->split.n_train, batch % t->steps_per_epoch, t->options.batch, n);
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
