/* Steps of the generator that read the stored matrices, in float and in integers, against
 * those that multiply by dequantised ones; with and without adapters. */
#include "train/fixture.h"

#include <unistd.h>

#include "eval/generator.h"
#include "model/model.h"

static const int32_t prompt[] = {11, 7, 200, 3, 45, 99, 12, 250, 31, 8, 77, 120};
enum { PROMPT = 12, STEPS = 5 };

/* A model of a file with random adapters on it, where `rank`. */
typedef struct setting {
  ist_model *m;
  ist_adapters adapters;
} setting;

static void open_setting(setting *s, const char *type, ist_compute compute, int64_t rank,
                         const char *method) {
  ist_error err = {0};
  char path[] = "/tmp/ist-generator-XXXXXX";
  const ist_shape shape = {
      .L = 2, .D = 256, .F = 512, .H = 8, .K = 4, .E = 32, .V = 300, .context = 128};
  ist_model_options o;
  close(mkstemp(path));
  MUST(ist_make_model(path, &shape, type, 5, &err));
  ist_model_options_init(&o);
  o.compute = compute;
  MUST(ist_model_open(&s->m, path, &o, &err));
  unlink(path);
  s->adapters = (ist_adapters){0};
  if (!rank) return;
  ist_linear_sizes sizes;
  ist_adapter_config c = {.method = method, .rank = rank, .alpha = 2.0 * (double)rank};
  ist_model_linear_sizes(&s->m->config, &sizes);
  for (int m = 0; m < IST_MOD_COUNT; m++) {
    if (sizes.in[m]) c.modules |= 1u << m;
  }
  MUST(ist_adapters_layout(&s->adapters, &c, &sizes, shape.L, IST_F32, &err));
  int64_t n = s->adapters.layout.params * shape.L;
  s->adapters.params = ist_calloc((size_t)n, sizeof(float));
  ist_rng rng = ist_rng_stream(3, IST_RNG_TEST, 0, 0, 0);
  for (int64_t i = 0; i < n; i++)
    ((float *)s->adapters.params)[i] = (float)(0.1 * ist_rng_normal(&rng));
  s->m->adapters = &s->adapters;
}

static void close_setting(setting *s) {
  s->m->adapters = NULL;
  ist_free(s->adapters.params);
  ist_model_close(s->m);
}

/* Logits (STEPS, n_seq, V) of the tokens behind the prompt, fed as they are. */
static float *logits_of(ist_model *m, ist_step_products products, int64_t n_seq) {
  ist_error err = {0};
  ist_generator g;
  int64_t V = m->config.V, n;
  float *out = ist_calloc((size_t)(STEPS * n_seq * V), sizeof *out);
  MUST(ist_generator_open(&g, m, n_seq, 32, products, &err));
  for (int64_t s = 0; s < n_seq; s++) ist_generator_prompt(&g, s, prompt, PROMPT - s % 3, 0);
  for (int64_t i = 0; i < STEPS; i++) {
    for (int64_t s = 0; s < n_seq; s++) g.seq[s].next = prompt[(i + s) % PROMPT];
    ist_view v = ist_generator_step(&g, &n);
    assert_int_equal(n, n_seq);
    for (int64_t s = 0; s < n_seq; s++)
      memcpy(out + (i * n_seq + s) * V, (float *)v.p + s * v.stride, (size_t)V * sizeof *out);
  }
  ist_generator_close(&g);
  return out;
}

/* Root of the mean square difference over that of b. */
static double difference(const float *a, const float *b, int64_t n) {
  double d = 0, size = 0;
  for (int64_t i = 0; i < n; i++) {
    d += pow((double)a[i] - (double)b[i], 2);
    size += pow((double)b[i], 2);
  }
  return sqrt(d / size);
}

static void check(const char *type, ist_compute compute, int64_t rank, const char *method,
                  int64_t n_seq) {
  setting s;
  open_setting(&s, type, compute, rank, method);
  float *matrix = logits_of(s.m, IST_STEP_MATRIX, n_seq);
  float *in_float = logits_of(s.m, IST_STEP_FLOAT, n_seq);
  float *in_bytes = logits_of(s.m, IST_STEP_INT8, n_seq);
  int64_t n = STEPS * n_seq * s.m->config.V;
  double exact = difference(in_float, matrix, n), rounded = difference(in_bytes, matrix, n);
  /* In BF16 it is the matrix products that round most: weights too. */
  double within = compute == IST_COMPUTE_F32 ? 2e-5 : 0.05;
  if (!(exact < within) || !(rounded < within + 0.03))
    fail_msg("%s, rank %d, %d sequences: %g in float, %g in integers", type, (int)rank, (int)n_seq,
             exact, rounded);
  /* Integers are used, unless the method or the type leaves no place for them. */
  bool whole = rank && (strcmp(method, "dora") == 0 || strcmp(method, "series") == 0);
  if (!whole && strcmp(type, "F32") != 0) assert_true(rounded > exact);
  if (whole) assert_true(exact == 0 && rounded == 0);
  ist_free(matrix), ist_free(in_float), ist_free(in_bytes);
  close_setting(&s);
}

static void test_types(void **state) {
  (void)state;
  static const char *const types[] = {"Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0",
                                      "Q4_K", "Q5_K", "Q6_K", "F32",  "BF16"};
  for (int i = 0; i < 9; i++) check(types[i], IST_COMPUTE_F32, 0, NULL, 1);
  check("Q4_1", IST_COMPUTE_BF16, 0, NULL, 1);
  check("F32", IST_COMPUTE_BF16, 0, NULL, 1);
}

static void test_adapters(void **state) {
  (void)state;
  static const char *const methods[] = {"lora", "dora", "parallel", "series"};
  for (int i = 0; i < 4; i++) {
    check("Q4_0", IST_COMPUTE_F32, 5, methods[i], 1);
    check("Q8_0", IST_COMPUTE_BF16, 16, methods[i], 2);
  }
}

/* As many sequences as one product takes, and more. */
static void test_sequences(void **state) {
  (void)state;
  check("Q4_1", IST_COMPUTE_F32, 3, "lora", IST_STORED_ROWS);
  setting s;
  open_setting(&s, "Q4_1", IST_COMPUTE_F32, 0, NULL);
  const int64_t many = IST_STORED_ROWS + 1;
  float *matrix = logits_of(s.m, IST_STEP_MATRIX, many);
  float *in_float = logits_of(s.m, IST_STEP_FLOAT, many);
  assert_true(difference(in_float, matrix, STEPS * many * s.m->config.V) < 2e-5);
  ist_free(matrix), ist_free(in_float);
  close_setting(&s);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_types),
      cmocka_unit_test(test_adapters),
      cmocka_unit_test(test_sequences),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
