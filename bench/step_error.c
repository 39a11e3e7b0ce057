/* bench_step_error MODEL.gguf TEXT: what rounding the inputs of a token's products to bytes
 * does to the logits. The tokens of the file TEXT are fed one by one, in F32 with the stored
 * matrices (the truth), with integer products, and with BF16 matrix products, which round
 * the weights too. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/file.h"
#include "base/mem.h"
#include "eval/generator.h"

#define MOST_TOKENS 256

/* Logits (n, V) of every position. */
static float *step_through(ist_model *m, ist_step_products products, const ist_ids *ids, int64_t n,
                           ist_error *err) {
  ist_generator g;
  int64_t V = m->config.V, rows;
  float *out = ist_calloc((size_t)(n * V), sizeof *out);
  if (!out || ist_generator_open(&g, m, 1, n, products, err) != IST_OK) {
    ist_free(out);
    return NULL;
  }
  for (int64_t i = 0; i < n; i++) {
    g.seq[0].next = ids->p[i];
    memcpy(out + i * V, ist_generator_step(&g, &rows).p, (size_t)V * sizeof *out);
  }
  ist_generator_close(&g);
  return out;
}

static int64_t best_of(const float *x, int64_t V) {
  int64_t best = 0;
  for (int64_t i = 1; i < V; i++) best = x[i] > x[best] ? i : best;
  return best;
}

/* log of the sum of exp */
static double log_sum(const float *x, int64_t V) {
  double max = (double)x[best_of(x, V)], sum = 0;
  for (int64_t i = 0; i < V; i++) sum += exp((double)x[i] - max);
  return max + log(sum);
}

static void compare(const char *name, const float *found, const float *truth, int64_t n,
                    int64_t V) {
  double error = 0, size = 0, divergence = 0;
  int64_t same = 0;
  for (int64_t r = 0; r < n; r++, found += V, truth += V) {
    double a = log_sum(truth, V), b = log_sum(found, V), mean = 0;
    for (int64_t i = 0; i < V; i++) mean += (double)truth[i] / (double)V;
    for (int64_t i = 0; i < V; i++) {
      double p = (double)truth[i] - a, q = (double)found[i] - b;
      error += pow((double)found[i] - (double)truth[i], 2);
      size += pow((double)truth[i] - mean, 2);
      divergence += exp(p) * (p - q);
    }
    same += best_of(found, V) == best_of(truth, V);
  }
  printf(
      "%-28s logits %.2e of their spread, divergence %.2e nats, best token the same in %lld of "
      "%lld\n",
      name, sqrt(error / size), divergence / (double)n, (long long)same, (long long)n);
}

static ist_status open_model(ist_model **m, const char *path, ist_compute compute, ist_error *err) {
  ist_model_options o;
  ist_model_options_init(&o);
  o.compute = compute;
  return ist_model_open(m, path, &o, err);
}

int main(int argc, char **argv) {
  ist_error err = {0};
  ist_model *m = NULL, *bf16 = NULL;
  ist_map text = {0};
  ist_ids ids = {0};
  if (argc != 3) {
    fprintf(stderr, "usage: bench_step_error MODEL.gguf TEXT\n");
    return 2;
  }
  ist_status s = open_model(&m, argv[1], IST_COMPUTE_F32, &err);
  if (!s) s = open_model(&bf16, argv[1], IST_COMPUTE_BF16, &err);
  if (!s) s = ist_map_open(&text, argv[2], &err);
  if (!s)
    s = ist_tokenizer_encode(m->tokenizer, (const char *)text.p, text.size, false, &ids, &err);
  int64_t n = ids.n < MOST_TOKENS ? ids.n : MOST_TOKENS, V = m ? m->config.V : 0;
  float *truth = s ? NULL : step_through(m, IST_STEP_FLOAT, &ids, n, &err);
  float *bytes = truth ? step_through(m, IST_STEP_INT8, &ids, n, &err) : NULL;
  float *both = bytes ? step_through(bf16, IST_STEP_INT8, &ids, n, &err) : NULL;
  float *matrix = both ? step_through(bf16, IST_STEP_MATRIX, &ids, n, &err) : NULL;
  if (matrix) {
    compare("F32, integer products", bytes, truth, n, V);
    compare("BF16, integer products", both, truth, n, V);
    compare("BF16, matrix products", matrix, truth, n, V);
  } else {
    fprintf(stderr, "error: %s\n", err.message);
  }
  ist_free(truth), ist_free(bytes), ist_free(both), ist_free(matrix);
  ist_ids_free(&ids);
  ist_map_close(&text);
  ist_model_close(m);
  ist_model_close(bf16);
  return matrix ? 0 : 1;
}
