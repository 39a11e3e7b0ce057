/* Comparisons of a tiny model with its goldens. */
#ifndef IST_TESTS_GOLDEN_H
#define IST_TESTS_GOLDEN_H

#include "train/fixture.h"

/* max |a - b| / max |b| over a tensor. */
typedef struct spread {
  double diff, scale;
} spread;
static inline void compare(spread *s, double ours, double theirs) {
  double diff = fabs(ours - theirs);
  if (!(diff <= s->diff)) s->diff = diff;
  if (fabs(theirs) > s->scale) s->scale = fabs(theirs);
}
static inline void within(const spread *s, double tolerance, const char *what) {
  if (!(s->diff <= tolerance * s->scale)) {
    fail_msg("%s: largest difference %g at scale %g, expected %g of it", what, s->diff, s->scale,
             tolerance);
  }
}

static inline double at(ist_view v, int64_t r, int64_t c) {
  int64_t i = r * v.stride + c;
  return v.dt == IST_F64 ? ((double *)v.p)[i] : (double)((float *)v.p)[i];
}

static inline void all_samples(const tiny *t, int64_t *index) {
  for (int64_t i = 0; i < t->data.n; i++) index[i] = i;
}

/* All samples in one pass; every row's logits against the golden ones. */
static inline void compare_logits(tiny *t, double tolerance, const char *what) {
  int64_t index[8];
  all_samples(t, index);
  ist_runner_pack(&t->runner, &t->data, index, t->data.n, 1);
  assert_int_equal(t->runner.n_micro, 1);
  ist_schedule_forward(&t->runner.schedule, t->config.L, 0, 1, IST_ORDER_TOKEN, false);
  ist_pass pass = {0};
  ist_runner_run(&t->runner, &pass);
  const ist_st_tensor *g = golden_tensor(t, "logits");
  spread s = {0};
  for (int64_t row = 0; row < t->runner.n_tokens; row++) {
    ist_view logits = ist_decoder_logits(&t->runner.decoder, 0, row, 1);
    for (int64_t v = 0; v < t->config.V; v++)
      compare(&s, at(logits, 0, v), (double)golden_f32(g, row * t->config.V + v));
  }
  within(&s, tolerance, what);
}

/* One step's gradients over all golden samples. */
static inline void gradients(tiny *t, const uint8_t *active, ist_order order,
                             ist_recompute recompute) {
  int64_t index[8], slot = 0, block = t->adapters.layout.params;
  all_samples(t, index);
  for (int64_t l = 0; l < t->config.L; l++)
    t->adapters.grad_slot[l] = active[l] ? (int32_t)slot++ : -1;
  memset(t->adapters.grads, 0, (size_t)(slot * block * ist_dtype_bytes(t->adapters.dt, 1)));
  ist_runner_pack(&t->runner, &t->data, index, t->data.n, 1);
  ist_schedule_train(&t->runner.schedule, t->config.L, t->runner.n_micro, active, order, recompute);
  ist_pass pass = {.train = true,
                   .active = active,
                   .lowest = ist_lowest_active(active, t->config.L),
                   .loss_weight = 1.0 / (double)t->runner.n_targets};
  ist_runner_run(&t->runner, &pass);
}

/* Compares every gradient with the golden ones called PREFIX.<PEFT name>. */
static inline void compare_gradients(const tiny *t, const uint8_t *active, const char *prefix,
                                     double tolerance) {
  ist_adapters grads = t->adapters; /* read through the same row order */
  grads.params = t->adapters.grads;
  ist_adapter_key k = {.layer = -1};
  while (ist_adapter_next(&t->adapters, &t->config, &k)) {
    if (!active[k.layer]) continue;
    for (int half = 0; half < 2; half++) {
      char name[200], full[256];
      ist_adapter_peft_name(name, sizeof name, &t->adapters, &t->config, k, (ist_part)half);
      snprintf(full, sizeof full, "%s.%s", prefix, name);
      const ist_st_tensor *g = golden_tensor(t, full);
      int64_t n = g->shape[0] * g->shape[1];
      float *ours = malloc((size_t)n * sizeof *ours);
      ist_adapter_key at = {t->adapters.grad_slot[k.layer], k.m, k.copy};
      ist_adapter_read(&grads, &t->config, at, (ist_part)half, IST_ROWS_HF, ours);
      spread s = {0};
      for (int64_t i = 0; i < n; i++) compare(&s, (double)ours[i], (double)golden_f32(g, i));
      within(&s, tolerance, full);
      free(ours);
    }
  }
}

#endif
