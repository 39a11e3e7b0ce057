/* A tiny model of tests/golden, opened for a test with a backend, a compute type and,
 * where asked, the golden adapter: the Llama-shaped one, or one of a family. */
#ifndef IST_TESTS_FIXTURE_H
#define IST_TESTS_FIXTURE_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "format/safetensors.h"
#include "model/adapter_io.h"
#include "model/schedule.h"
#include "train/runner.h"

#define TINY       IST_GOLDEN_DIR "/llama_tiny/"
#define MUST(expr) must(expr, &err, #expr)

static inline void must(ist_status status, const ist_error *err, const char *what) {
  if (status != IST_OK) fail_msg("%s: %s", what, err->message);
}

typedef struct tiny {
  const char *dir; /* of the goldens, with a slash */
  ist_gguf *gguf;  /* NULL: a Hugging Face folder */
  ist_source source;
  ist_safetensors *golden;
  ist_model_config config;
  ist_weights weights;
  ist_adapters adapters;
  ist_ctx ctx;
  ist_dataset data;
  ist_runner runner;
} tiny;

static inline const ist_st_tensor *golden_tensor(const tiny *t, const char *name) {
  const ist_st_tensor *g = ist_safetensors_find(t->golden, name);
  if (!g) fail_msg("%s: no such golden tensor", name);
  return g;
}

static inline double golden_number(const tiny *t, const char *key) {
  const char *text = ist_safetensors_meta(t->golden, key);
  if (!text) fail_msg("%s: no such golden figure", key);
  return atof(text);
}

static inline int32_t golden_i32(const ist_st_tensor *g, int64_t i) {
  int32_t v;
  memcpy(&v, g->data + i * 4, sizeof v);
  return v;
}

static inline float golden_f32(const ist_st_tensor *g, int64_t i) {
  float v;
  memcpy(&v, g->data + i * 4, sizeof v);
  return v;
}

/* The golden segments as samples; `targets` may differ from the tokens' own order
 * only in which positions are supervised. */
static inline void tiny_data(tiny *t) {
  const ist_st_tensor *tokens = golden_tensor(t, "tokens"), *mask = golden_tensor(t, "label_mask");
  const ist_st_tensor *starts = golden_tensor(t, "segment_starts");
  t->data.n = t->data.cap = starts->shape[0] - 1;
  t->data.p = ist_calloc((size_t)t->data.n, sizeof *t->data.p);
  for (int64_t s = 0; s < t->data.n; s++) {
    int32_t a = golden_i32(starts, s), b = golden_i32(starts, s + 1);
    ist_sample *sample = &t->data.p[s];
    sample->n = b - a;
    sample->ids =
        ist_calloc((size_t)sample->n, sizeof *sample->ids + 1); /* one block with the mask */
    sample->mask = (uint8_t *)(sample->ids + sample->n);
    for (int32_t i = 0; i < sample->n; i++) {
      sample->ids[i] = golden_i32(tokens, a + i);
      sample->mask[i] = (uint8_t)golden_i32(mask, a + i);
    }
  }
}

/* Bits of the modules in "q,v,up", by ist's own names; NULL: all. */
static inline uint32_t tiny_modules(const tiny *t, const char *list) {
  ist_linear_sizes sizes;
  uint32_t modules = 0;
  ist_model_linear_sizes(&t->config, &sizes);
  for (int m = 0; m < IST_MOD_COUNT; m++) {
    const char *name = ist_module_name((ist_module)m), *p = list;
    size_t len = strlen(name);
    while (p && !(strncmp(p, name, len) == 0 && (p[len] == ',' || !p[len]))) {
      p = strchr(p, ',');
      if (p) p++;
    }
    if (sizes.in[m] && (!list || p)) modules |= 1u << m;
  }
  return modules;
}

/* Adapters of another method than the golden's, with parameters that leave nothing out. */
static inline void tiny_method(tiny *t, ist_dtype dt, const ist_adapter_config *method) {
  ist_error err;
  ist_linear_sizes sizes;
  ist_adapter_config c = *method;
  ist_model_linear_sizes(&t->config, &sizes);
  c.kv = t->config.K * t->config.E;
  if (!c.modules) c.modules = tiny_modules(t, NULL);
  MUST(ist_adapters_layout(&t->adapters, &c, &sizes, t->config.L, dt, &err));
  size_t block = (size_t)ist_adapter_elements(&t->adapters);
  t->adapters.params = ist_calloc(block, 8);
  t->adapters.grads = ist_calloc(block, 8);
  int64_t layers = t->config.L * t->adapters.layout.params;
  if (t->adapters.outer.params)
    t->adapters.outer_grads = t->adapters.grads + ist_dtype_bytes(dt, layers);
  t->adapters.grad_slot = ist_calloc((size_t)t->config.L, sizeof(int32_t));
}

/* Moves every parameter by N(0, sd^2), the same whatever the type. */
static inline void tiny_disturb(tiny *t, double sd) {
  ist_rng rng = ist_rng_stream(11, IST_RNG_TEST, 0, 0, 0);
  int64_t n = ist_adapter_elements(&t->adapters);
  for (int64_t i = 0; i < n; i++) {
    double by = sd * ist_rng_normal(&rng);
    if (t->adapters.dt == IST_F64) {
      ((double *)t->adapters.params)[i] += by;
    } else {
      ((float *)t->adapters.params)[i] += (float)by;
    }
  }
  ist_decoder_adapters_changed(&t->runner.decoder, -1);
}

static inline void tiny_adapters(tiny *t, ist_dtype dt) {
  ist_error err;
  ist_linear_sizes sizes;
  ist_model_linear_sizes(&t->config, &sizes);
  ist_adapter_config pc = {.method = "lora",
                           .modules = tiny_modules(t, NULL),
                           .rank = (int64_t)golden_number(t, "rank"),
                           .alpha = golden_number(t, "alpha")};
  MUST(ist_adapters_layout(&t->adapters, &pc, &sizes, t->config.L, dt, &err));
  size_t block = (size_t)(t->adapters.layout.params * t->config.L);
  t->adapters.params = ist_calloc(block, 8);
  t->adapters.grads = ist_calloc(block, 8);
  t->adapters.grad_slot = ist_calloc((size_t)t->config.L, sizeof(int32_t));
  ist_safetensors *file;
  char path[512];
  snprintf(path, sizeof path, "%sadapter/adapter_model.safetensors", t->dir);
  MUST(ist_safetensors_open(&file, path, &err));
  ist_adapter_key k = {.layer = -1};
  while (ist_adapter_next(&t->adapters, &t->config, &k)) {
    for (int half = 0; half < 2; half++) {
      char name[160];
      ist_adapter_peft_name(name, sizeof name, &t->adapters, &t->config, k, (ist_part)half);
      const ist_st_tensor *g = ist_safetensors_find(file, name);
      if (!g) fail_msg("%s: no such tensor", name);
      int64_t n = g->shape[0] * g->shape[1];
      float *values = malloc((size_t)n * sizeof *values);
      MUST(ist_st_to_f32(g, values, n, &err));
      ist_adapter_write(&t->adapters, &t->config, k, (ist_part)half, IST_ROWS_HF, values);
      free(values);
    }
  }
  ist_safetensors_close(file);
}

/* `model`: a GGUF in `dir`; NULL: the folder itself. */
static inline void tiny_open_model(tiny *t, const char *dir, const char *model) {
  ist_error err = {0};
  char path[512];
  memset(t, 0, sizeof *t);
  t->dir = dir;
  if (model) {
    snprintf(path, sizeof path, "%s%s", dir, model);
    MUST(ist_gguf_open(&t->gguf, path, &err));
    t->source = ist_source_of_gguf(t->gguf);
  } else {
    MUST(ist_source_open_folder(&t->source, dir, &err));
  }
  snprintf(path, sizeof path, "%sgoldens.safetensors", dir);
  MUST(ist_safetensors_open(&t->golden, path, &err));
  MUST(ist_model_config_read(&t->config, &t->source, &err));
  MUST(ist_weights_open(&t->weights, &t->config, &t->source, &err));
}

/* method NULL: the golden LoRA where `adapter`, the bare model else. */
static inline void tiny_open_all(tiny *t, const char *dir, const char *model, const ist_backend *be,
                                 ist_dtype compute, bool adapter, ist_order order,
                                 ist_recompute recompute, int64_t micro_tokens,
                                 const ist_adapter_config *method) {
  ist_error err = {0};
  tiny_open_model(t, dir, model);
  t->ctx.be = be;
  if (be->open) MUST(be->open(&t->ctx, &err));
  tiny_data(t);
  if (method) {
    tiny_method(t, ist_wide(compute), method);
  } else if (adapter) {
    tiny_adapters(t, ist_wide(compute));
  }
  adapter = adapter || method;
  ist_runner_limits lim = {
      .tokens = 3 * 64, .segments = 3 * 5, .longest = 17, .layer_order = order == IST_ORDER_LAYER};
  ist_slots slots = ist_schedule_slots(t->config.L, t->config.L, order, recompute);
  int64_t rows = (micro_tokens + IST_ROW_BUCKET - 1) / IST_ROW_BUCKET * IST_ROW_BUCKET;
  int64_t all = order == IST_ORDER_LAYER ? ist_runner_rows(&lim, micro_tokens) : rows;
  ist_decoder_sizes s = {
      .compute = compute,
      .rows = rows,
      .longest = 17,
      .boundary_rows = all,
      .n_boundary = slots.boundary,
      .n_attn = slots.attn,
      .n_mlp = slots.mlp,
      .n_low = slots.low,
      .dres_rows = all,
      .dropout = true,
      .head_chunk = 8,
      .head_rows = t->config.V,
      .policy = IST_WEIGHT_STREAM,
  };
  MUST(ist_decoder_open(&t->runner.decoder, &t->config, &t->weights, adapter ? &t->adapters : NULL,
                        &t->ctx, &s, &err));
  MUST(ist_runner_open(&t->runner, &lim, micro_tokens, &err));
  if (method) ist_decoder_init_adapters(&t->runner.decoder, 5);
}

static inline void tiny_open_from(tiny *t, const char *dir, const char *model,
                                  const ist_backend *be, ist_dtype compute, bool adapter,
                                  ist_order order, ist_recompute recompute, int64_t micro_tokens) {
  tiny_open_all(t, dir, model, be, compute, adapter, order, recompute, micro_tokens, NULL);
}

static inline void tiny_open_method(tiny *t, const ist_backend *be, ist_dtype compute, bool adapter,
                                    ist_order order, ist_recompute recompute, int64_t micro_tokens,
                                    const ist_adapter_config *method) {
  tiny_open_all(t, TINY, "llama_tiny.gguf", be, compute, adapter, order, recompute, micro_tokens,
                method);
}

static inline void tiny_open(tiny *t, const ist_backend *be, ist_dtype compute, bool adapter,
                             ist_order order, ist_recompute recompute, int64_t micro_tokens) {
  tiny_open_method(t, be, compute, adapter, order, recompute, micro_tokens, NULL);
}

static inline void tiny_close_model(tiny *t) {
  ist_weights_close(&t->weights);
  ist_model_config_free(&t->config);
  ist_safetensors_close(t->golden);
  ist_source_close(&t->source);
  ist_gguf_close(t->gguf);
}

static inline void tiny_close(tiny *t) {
  ist_runner_close(&t->runner);
  if (t->ctx.be->close) t->ctx.be->close(&t->ctx);
  ist_dataset_free(&t->data);
  ist_free(t->adapters.params);
  ist_free(t->adapters.grads);
  ist_free(t->adapters.grad_slot);
  tiny_close_model(t);
}

#endif
