/* Ten optimizer steps over given sets of active layers against PyTorch and PEFT:
 * losses, gradient norms and the adapters at the end. */
#include "fixture.h"

static ist_view row(const tiny *t, unsigned char *base, int64_t r) {
  int64_t n = t->adapters.layout.params;
  return ist_view_make(base + r * n * 4, IST_F32, 1, n, n);
}

/* Clips over the active layers and updates them; frozen layers stand still. */
static double update(tiny *t, const uint8_t *active, unsigned char *m, unsigned char *v,
                     int64_t *steps) {
  const ist_backend *be = t->ctx.be;
  double sum = 0;
  for (int64_t l = 0; l < 4; l++) {
    if (active[l]) sum += be->sumsq(&t->ctx, row(t, t->adapters.grads, t->adapters.grad_slot[l]));
  }
  double norm = sqrt(sum), clip = golden_number(t, "clip") / (norm + 1e-6);
  for (int64_t l = 0; l < 4; l++) {
    if (!active[l]) continue;
    const ist_adamw o = {.lr = golden_number(t, "lr"),
                         .beta1 = golden_number(t, "beta1"),
                         .beta2 = golden_number(t, "beta2"),
                         .eps = golden_number(t, "eps"),
                         .t = ++steps[l],
                         .grad_scale = clip < 1 ? clip : 1};
    be->adamw(&t->ctx, row(t, t->adapters.params, l),
              row(t, t->adapters.grads, t->adapters.grad_slot[l]), row(t, m, l), row(t, v, l), &o);
  }
  return norm;
}

static void compare_final(const tiny *t) {
  for (int64_t l = 0; l < 4; l++) {
    for (int m = 0; m < IST_MOD_COUNT; m++) {
      if (!t->adapters.layout.module[m].rank) continue;
      for (int half = 0; half < 2; half++) {
        char name[200], full[256];
        const ist_adapter_key k = {l, (ist_module)m, 0};
        ist_adapter_peft_name(name, sizeof name, &t->adapters, &t->config, k, (ist_part)half);
        snprintf(full, sizeof full, "final.%s", name);
        const ist_st_tensor *g = golden_tensor(t, full);
        int64_t n = g->shape[0] * g->shape[1];
        float *ours = malloc((size_t)n * sizeof *ours);
        ist_adapter_read(&t->adapters, &t->config, k, (ist_part)half, IST_ROWS_HF, ours);
        for (int64_t i = 0; i < n; i++) {
          double diff = fabs((double)ours[i] - (double)golden_f32(g, i));
          if (!(diff <= 1e-3))
            fail_msg("%s[%lld]: found %g, expected %g", full, (long long)i, (double)ours[i],
                     (double)golden_f32(g, i));
        }
        free(ours);
      }
    }
  }
}

static void test_ten_steps(void **state) {
  (void)state;
  tiny t;
  tiny_open(&t, ist_backend_reference(), IST_F32, true, IST_ORDER_TOKEN, IST_RECOMPUTE_NONE, 64);
  int64_t block = t.adapters.layout.params, steps[4] = {0};
  unsigned char *m = calloc((size_t)(4 * block), 4), *v = calloc((size_t)(4 * block), 4);
  const ist_st_tensor *sets = golden_tensor(&t, "steps.active"),
                      *losses = golden_tensor(&t, "steps.loss");
  const ist_st_tensor *norms = golden_tensor(&t, "steps.grad_norm"),
                      *segments = golden_tensor(&t, "steps.segments");
  for (int64_t k = 0; k < 10; k++) {
    uint8_t active[4];
    int32_t slot = 0;
    for (int64_t l = 0; l < 4; l++) {
      active[l] = golden_i32(sets, k * 4 + l) != 0;
      t.adapters.grad_slot[l] = active[l] ? slot++ : -1;
    }
    memset(t.adapters.grads, 0, (size_t)(slot * block) * 4);
    const int64_t index[2] = {golden_i32(segments, k * 2), golden_i32(segments, k * 2 + 1)};
    ist_runner_pack(&t.runner, &t.data, index, 2, 1);
    ist_schedule_train(&t.runner.schedule, 4, t.runner.n_micro, active, IST_ORDER_TOKEN,
                       IST_RECOMPUTE_NONE);
    ist_pass pass = {.train = true,
                     .active = active,
                     .lowest = ist_lowest_active(active, 4),
                     .loss_weight = 1.0 / (double)t.runner.n_targets};
    ist_runner_run(&t.runner, &pass);
    assert_float_equal(ist_runner_loss_sum(&t.runner) / (double)t.runner.n_targets,
                       golden_f32(losses, k), 1e-3);
    double norm = update(&t, active, m, v, steps), expected = (double)golden_f32(norms, k);
    assert_float_equal(norm / expected, 1.0, 1e-3);
  }
  compare_final(&t);
  free(m);
  free(v);
  tiny_close(&t);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_ten_steps)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
