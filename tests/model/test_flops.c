/* What a token costs in products, which the benchmark divides by: the decoder's and the methods'
 * own counts against sums made by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "model/decoder.h"

/* A Llama of width 8: q and o 8 x 8, k and v 4 x 8, an MLP of 20: 672 weights a layer. */
static ist_model_config llama(void) {
  return (ist_model_config){
      .L = 2, .D = 8, .F = 20, .H = 2, .K = 1, .E = 4, .V = 50, .gated = true};
}

static void test_decoder(void **state) {
  (void)state;
  ist_model_config c = llama();
  ist_decoder_flops f = ist_decoder_count_flops(&c, 10);
  assert_true(f.layer_fwd == 2 * 672 + 4 * 8 * 10 && f.layer_bwd == 2 * 672 + 10 * 8 * 10);
  assert_true(f.head_fwd == 2 * 8 * 50 && f.head_bwd == f.head_fwd);
  c.embed_dim = 6; /* a projection behind the embedding's width */
  f = ist_decoder_count_flops(&c, 0);
  assert_true(f.layer_fwd == 2 * 672 && f.head_fwd == 2 * 6 * (50 + 8));
  /* Two of four experts of width 6, and the router, in place of the MLP. */
  c = llama();
  c.experts = 4;
  c.experts_used = 2;
  c.expert_F = 6;
  f = ist_decoder_count_flops(&c, 0);
  assert_true(f.layer_fwd == 2 * (192 + 2 * 3 * 8 * 6 + 8 * 4));
  c.shared_F = 5; /* and an MLP that all go through */
  f = ist_decoder_count_flops(&c, 0);
  assert_true(f.layer_fwd == 2 * (192 + 2 * 3 * 8 * 6 + 8 * 4 + 3 * 8 * 5));
  /* A model of which half the layers are dense: their mean. */
  ist_layer_config layers[2] = {{.dense = true}, {.dense = false}};
  c.shared_F = 0;
  c.layer = layers;
  f = ist_decoder_count_flops(&c, 0);
  assert_true(f.layer_fwd == 2 * (192 + (3 * 8 * 20 + 2 * 3 * 8 * 6 + 8 * 4) / 2.0));
}

/* Adapters of rank 3 on q (8 x 8), o (8 x 8) and up (20 x 8). */
static void test_methods(void **state) {
  (void)state;
  enum { LORA = 2 * 3 * (16 + 16 + 28), BASE = 2 * (64 + 64 + 160) };
  static const struct {
    const char *method;
    bool peft_dora;
    double dropout, fwd, active, frozen;
  } rows[] = {
      {"lora", false, 0.1, LORA, 2 * LORA, LORA},
      {"parallel", false, 0, LORA, 2 * LORA, LORA},
      {"dora", false, 0.1, LORA, 2 * LORA + BASE, LORA},
      {"dora", true, 0, LORA, 2 * LORA + BASE, LORA},
      {"dora", true, 0.1, LORA + BASE, 2 * LORA + 2 * BASE, LORA + BASE},
      /* In front of q and up (8 + 8), behind o (8 + 8), whose product is made again. */
      {"series", false, 0, 2 * 3 * 48, 4 * 3 * 48 + 2 * 64, 2 * 3 * 48},
      /* 3 virtual keys and values of width 4: scores and sums. */
      {"prefix", false, 0, 4 * 3 * 4, 2.5 * 4 * 3 * 4, 1.5 * 4 * 3 * 4},
  };
  ist_model_config c = llama();
  ist_linear_sizes sizes;
  ist_model_linear_sizes(&c, &sizes);
  for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
    ist_error err = {0};
    ist_adapters ad;
    const ist_adapter_config own = {.method = rows[k].method,
                                    .modules = 1u << IST_MOD_Q | 1u << IST_MOD_O | 1u << IST_MOD_UP,
                                    .rank = 3,
                                    .alpha = 6,
                                    .dropout = rows[k].dropout,
                                    .peft_dora = rows[k].peft_dora,
                                    .scaling = 1,
                                    .kv = 4};
    if (ist_adapters_layout(&ad, &own, &sizes, c.L, IST_F32, &err) != IST_OK)
      fail_msg("%s: %s", rows[k].method, err.message);
    double fwd = ad.method->flops_fwd(&ad), active = ad.method->flops_bwd(&ad, true);
    double frozen = ad.method->flops_bwd(&ad, false);
    if (fwd != rows[k].fwd || active != rows[k].active || frozen != rows[k].frozen)
      fail_msg("%s: %g forward, %g and %g backward, expected %g, %g and %g", rows[k].method, fwd,
               active, frozen, rows[k].fwd, rows[k].active, rows[k].frozen);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_decoder),
      cmocka_unit_test(test_methods),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
