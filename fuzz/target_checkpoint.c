/* A checkpoint: a letter, state.json, state.safetensors. 'x' leaves the checksums as they
 * are; with any other letter they are made right first, so that what lies behind them is
 * reached. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <xxhash.h>

#include "format/json.h"
#include "fuzz.h"
#include "train/checkpoint.h"
#include "train/options.h"
#include "train/plan.h"

#define STEP "checkpoints/step-00000007/"

static void set_hash(json_t *record, const char *key, const void *p, size_t n) {
  char text[17];
  snprintf(text, sizeof text, "%016" PRIx64, (uint64_t)XXH64(p, n, 0));
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
  float adapters[6];
  int64_t step[1];
  const int64_t shape[2] = {2, 3}, one[1] = {1};
  ist_state s = {0};
  if (ist_state_add(&s, "adapters", IST_F32, 2, shape, adapters, NULL) != IST_OK ||
      ist_state_add(&s, "progress.step", IST_I64, 1, one, step, NULL) != IST_OK)
    abort();
  status = ist_checkpoint_load(path, &s, &err);
  fuzz_check(status, &err);
  ist_state_free(&s);
  ist_free(path);
  return 0;
}
