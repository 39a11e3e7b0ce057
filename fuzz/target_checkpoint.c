/* A checkpoint: a letter, state.json, state.safetensors. 'x' leaves the checksums as they
 * are; with any other letter they are made right first, so that what lies behind them is
 * reached. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "format/json.h"
#include "fuzz.h"
#include "select/select.h"
#include "train/checkpoint.h"
#include "train/options.h"
#include "train/plan.h"
#include "train/spikes.h"

#define STEP "checkpoints/step-00000007/"

enum { LAYERS = 4 };

static void set_hash(json_t *record, const char *key, const void *p, size_t n) {
  char text[IST_CHECKSUM];
  ist_checksum(text, p, n);
  json_object_set_new(record, key, json_string(text));
}

/* The record with both checksums right, as text; NULL where it is no object. */
static char *sealed(fuzz_part record, fuzz_part tensors) {
  json_t *root;
  if (ist_json_parse(&root, (const char *)record.p, record.n, NULL) != IST_OK) return NULL;
  json_object_del(root, "record_xxh64");
  set_hash(root, "tensors_xxh64", tensors.p, tensors.n);
  char *dump = json_dumps(root, JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION(17));
  if (dump) set_hash(root, "record_xxh64", dump, strlen(dump));
  free(dump);
  dump = json_dumps(root, JSON_REAL_PRECISION(17));
  json_decref(root);
  return dump;
}

static void write_checkpoint(const uint8_t *data, size_t size) {
  fuzz_part part[2];
  fuzz_parts(data + 1, size - 1, part, 2);
  uint8_t *tensors = fuzz_safetensors(part[1]);
  part[1].p = tensors;
  char *text = data[0] != 'x' && part[1].p ? sealed(part[0], part[1]) : NULL;
  if (text) part[0] = (fuzz_part){(const uint8_t *)text, strlen(text)};
  fuzz_part_file(STEP "state.json", part[0]);
  fuzz_part_file(STEP "state.safetensors", part[1]);
  free(text);
  free(tensors);
}

/* What a resumed run takes from the record. */
static void use_settings(const char *path) {
  ist_error err = {0};
  json_t *settings;
  ist_status status = ist_checkpoint_settings(path, &settings, &err);
  fuzz_check(status, &err);
  if (status != IST_OK) return;
  ist_train_options o;
  ist_train_options_init(&o);
  status = ist_options_check_resume(&o, settings, &err);
  fuzz_check(status, &err);
  ist_model_config config = {.V = 100};
  ist_plan_input in = {.config = &config, .step.longest = 8, .probe.longest = 8};
  status = ist_plan_fix(&in, json_object_get(settings, "plan"), &err);
  fuzz_check(status, &err);
  json_decref(settings);
}

/* ---- What a run goes on with ---- */

typedef struct run {
  float adapters[6];
  int64_t step;
  ist_spikes spikes;
  ist_selector *selector;
  ist_selector_state scores;
} run;

static ist_status load(run *r, const char *path, ist_error *err) {
  const int64_t matrix[2] = {2, 3}, one[1] = {1}, layers[1] = {LAYERS};
  const int64_t window[2] = {IST_SPIKE_KINDS, IST_SPIKE_WINDOW};
  const struct {
    const char *name;
    ist_dtype type;
    int n_dims;
    const int64_t *shape;
    void *data;
  } items[] = {
      {"adapters", IST_F32, 2, matrix, r->adapters},
      {"progress.step", IST_I64, 1, one, &r->step},
      {"spikes.n", IST_I64, 1, one, &r->spikes.n},
      {"spikes.value", IST_F64, 2, window, r->spikes.value},
      {"selector.suppressibility", IST_F64, 1, layers, r->scores.suppressibility},
      {"selector.observed", IST_I64, 1, layers, r->scores.observed},
      {"selector.drawn", IST_I64, 1, layers, r->scores.drawn},
  };
  ist_state s = {0};
  for (size_t i = 0; i < sizeof items / sizeof *items; i++)
    if (ist_state_add(&s, items[i].name, items[i].type, items[i].n_dims, items[i].shape,
                      items[i].data, NULL) != IST_OK)
      abort();
  ist_status status = ist_checkpoint_load(path, &s, err);
  ist_state_free(&s);
  return status;
}

/* A trainer refuses other counts and scores before it uses any. */
static bool can_be(const run *r) {
  const int64_t most = INT64_C(1) << 48, *observed = r->scores.observed, *drawn = r->scores.drawn;
  bool fine = r->step >= 0 && r->step <= most && r->spikes.n >= 0 && r->spikes.n <= most;
  for (int i = 0; i < LAYERS; i++)
    fine = fine && observed[i] >= 0 && observed[i] <= most && drawn[i] >= 0 && drawn[i] <= most &&
           isfinite(r->scores.suppressibility[i]);
  return fine;
}

/* A few steps, each with a probe. */
static void go_on(run *r) {
  for (int i = 0; i < 3; i++, r->step++) {
    float factor[IST_MAX_CANDIDATES * LAYERS];
    double loss[IST_MAX_CANDIDATES];
    int64_t n = ist_selector_propose(r->selector, r->step, factor);
    for (int64_t k = 0; k < n; k++) loss[k] = 1.0 + (double)k;
    ist_selector_observe(r->selector, r->step, loss, n);
    uint8_t active[LAYERS];
    int64_t drawn = ist_selector_draw(r->selector, r->step, active), marked = 0;
    for (int l = 0; l < LAYERS; l++) marked += active[l];
    if (drawn < 1 || drawn != marked) abort();
    double z = ist_spikes_z(&r->spikes, IST_SPIKE_LOSS, loss[0]);
    ist_spikes_add(&r->spikes, loss[0], fabs(z), i ? 6 : 0);
  }
}

static void resume(const char *path, bool scores_grow) {
  ist_error err = {0};
  run r = {0};
  ist_select_options o;
  ist_select_options_init(&o);
  o.reward = scores_grow ? IST_REWARD_EXP : IST_REWARD_NORMALISED;
  if (ist_selector_new(&r.selector, LAYERS, &o, NULL) != IST_OK) abort();
  r.scores = ist_selector_get_state(r.selector);
  ist_status status = load(&r, path, &err);
  fuzz_check(status, &err);
  if (status == IST_OK && can_be(&r)) go_on(&r);
  ist_selector_free(r.selector);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size < 1) return -1;
  char folder[128];
  snprintf(folder, sizeof folder, "%s/" STEP, fuzz_folder());
  if (ist_mkdirs(folder, NULL) != IST_OK) abort();
  write_checkpoint(data, size);
  ist_error err = {0};
  char *path;
  ist_status status = ist_checkpoint_find_newest(fuzz_folder(), &path, &err);
  fuzz_check(status, &err);
  if (status != IST_OK) return 0;
  use_settings(path);
  resume(path, size % 2);
  ist_free(path);
  return 0;
}
