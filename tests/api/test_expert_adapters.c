/* Adapters that PEFT put on some experts of a layer only: what runs beside the weights gives what
 * it gives merged, and what cannot is refused. */
#include "../format/files.h"

#include "format/peft_dir.h"
#include "logits.h"

#define MIXTURE IST_GOLDEN_DIR "/families/qwen3_moe"

static ist_error err;

enum { R = 2, D = 24, F = 12, N = 6, V = 96 };

static void fill(float *p, int64_t n, float first) {
  for (int64_t i = 0; i < n; i++) p[i] = first + 0.01f * (float)(i * 7 % 11);
}

/* One pair, at layer 0's gate of one expert. */
static void write_adapter(const char *dir, bool dora, bool lora_bias) {
#define OF(part) "base_model.model.model.layers.0.mlp.experts.3.gate_proj." part
  static float a[R * D], b[F * R], vector[F];
  static const char *const target[] = {"layers.0.mlp.experts.3.gate_proj"};
  const ist_peft_config c = {
      .r = R, .alpha = 4, .targets = {target, 1}, .dora = dora, .lora_bias = lora_bias};
  const ist_st_item items[] = {
      {.name = OF("lora_A.weight"), .type = IST_F32, .n_dims = 2, .shape = {R, D}, .data = a},
      {.name = OF("lora_B.weight"), .type = IST_F32, .n_dims = 2, .shape = {F, R}, .data = b},
      {.name = dora ? OF("lora_magnitude_vector") : OF("lora_B.bias"),
       .type = IST_F32,
       .n_dims = 1,
       .shape = {F},
       .data = vector}};
  fill(a, R * D, 0.1f);
  fill(b, F * R, -0.05f);
  fill(vector, F, 1);
  MUST(ist_peft_write(dir, &c, items, dora || lora_bias ? 3 : 2, &err));
}

static void logits_of(float *out, const char *base, const char *adapter) {
  static const int32_t ids[N] = {3, 14, 15, 92, 65, 35};
  ist_model *m = open_model(base);
  MUST(ist_model_set_adapter(m, adapter, &err));
  MUST(ist_model_logits(m, ids, N, out, &err));
  ist_model_close(m);
}

static double distance(const float *x, const float *y) {
  double most = 0;
  for (int i = 0; i < N * V; i++) most = fmax(most, fabs((double)(x[i] - y[i])));
  return most;
}

static void test_pair_at_one_expert(void **state) {
  (void)state;
  static float plain[N * V], beside[N * V], merged[N * V];
  ist_merge_result r;
  write_adapter("pair", false, false);
  MUST(merge_into(MIXTURE, "pair", "merged", "F32", 0, &r, &err));
  logits_of(plain, MIXTURE, NULL);
  logits_of(beside, MIXTURE, "pair");
  logits_of(merged, "merged", NULL);
  assert_true(distance(plain, merged) > 1e-3);
  assert_true(distance(beside, merged) < 1e-4);
}

/* The other experts would have a magnitude or a bias too, which train. */
static void test_refused(void **state) {
  (void)state;
  ist_merge_result r;
  ist_model *m = open_model(MIXTURE);
  write_adapter("dora", true, false);
  assert_error(ist_model_set_adapter(m, "dora", &err), IST_ERR_UNSUPPORTED, &err,
               "layer 0: found DoRA at 1 of 5 experts");
  write_adapter("bias", false, true);
  assert_error(ist_model_set_adapter(m, "bias", &err), IST_ERR_UNSUPPORTED, &err,
               "layer 0: found a bias of B (lora_bias) at 1 of 5 experts");
  ist_model_close(m);
  MUST(merge_into(MIXTURE, "dora", "merged", "F32", 0, &r, &err));
  assert_int_equal(r.merged, 1);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_pair_at_one_expert),
      cmocka_unit_test(test_refused),
  };
  return cmocka_run_group_tests(tests, enter_folder, leave_folder);
}
