/* A model that was opened, put to use; and a small one for adapters to be put on. */
#ifndef IST_FUZZ_USE_MODEL_H
#define IST_FUZZ_USE_MODEL_H

#include <stdio.h>
#include <stdlib.h>

#include "fuzz.h"
#include "model/model.h"

/* The first and the last byte of a tensor as the model sees it. */
static inline void touch_stored(const ist_stored *s) {
  volatile unsigned char byte;
  if (!s->data) return;
  int64_t row = ist_dtype_bytes(s->type, s->cols);
  byte = s->data[0];
  if (!s->n_parts) byte = s->data[ist_dtype_bytes(s->type, s->rows * s->cols) - 1];
  for (int i = 0; i < s->n_parts; i++) {
    const ist_stored_part *p = &s->part[i];
    int64_t last = (p->rows - 1) / p->group * p->period + (p->rows - 1) % p->group;
    byte = p->data[(last + 1) * row - 1];
  }
  (void)byte;
}

static inline void touch_weights(const ist_weights *w) {
  for (int64_t i = 0; i < w->config->L * IST_T_LAYER_COUNT; i++) {
    touch_stored(&w->layer[i]);
    touch_stored(&w->layer_bias[i]);
  }
  for (int i = 0; i < IST_T_END - IST_T_LAYER_COUNT; i++) {
    touch_stored(&w->model[i]);
    touch_stored(&w->model_bias[i]);
  }
  for (int64_t i = 0; w->expert && i < w->config->L * w->config->experts * 3; i++)
    touch_stored(&w->expert[i]);
}

/* Every weight, and a forward pass where that is soon done. */
static inline void use_model(ist_model *m) {
  const ist_model_config *c = &m->config;
  touch_weights(&m->weights);
  if (c->L > 2 || c->D > 64 || c->F > 128 || c->H * c->E > 256 || c->V > 300 || c->experts > 8)
    return;
  static float logits[4 * 300];
  const int32_t ids[4] = {0, (int32_t)(c->V - 1), 1 % (int32_t)c->V, 0};
  ist_error err = {0};
  fuzz_check(ist_model_logits(m, ids, 4, logits, &err), &err);
}

static inline void open_and_use(const char *path, ist_backend_kind backend) {
  ist_error err = {0};
  ist_model_options o;
  ist_model_options_init(&o);
  o.backend = backend;
  ist_model *m;
  ist_status status = ist_model_open(&m, path, &o, &err);
  fuzz_check(status, &err);
  if (status != IST_OK) return;
  use_model(m);
  ist_model_close(m);
}

/* A Llama of width 4 with two layers, made once (its matrices: SIZES in make_seeds.py). */
static inline ist_model *small_model(void) {
  static ist_model *m;
  if (m) return m;
  ist_error err = {0};
  const ist_shape shape = {2, 4, 8, 1, 1, 4, 260, 64, false};
  char base[256];
  snprintf(base, sizeof base, "%s/base.gguf", fuzz_folder());
  if (ist_make_model(base, &shape, "F32", 1, &err) != IST_OK ||
      ist_model_open(&m, base, NULL, &err) != IST_OK) {
    fprintf(stderr, "%s\n", err.message);
    abort();
  }
  return m;
}

static inline void use_adapter(const char *path) {
  ist_error err = {0};
  ist_model *m = small_model();
  ist_status status = ist_model_set_adapter(m, path, &err);
  fuzz_check(status, &err);
  if (status != IST_OK) return;
  use_model(m);
  if (ist_model_set_adapter(m, NULL, &err) != IST_OK) abort();
}

#endif
