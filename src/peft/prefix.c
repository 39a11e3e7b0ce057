/* Prefix tuning (Li and Liang, 2021) with its keys and values learned directly: every
 * query of a layer sees `rank` virtual tokens before its own. They have no position (no
 * rotation). Suppression adds log(factor) to their scores, so that 0 removes them. The
 * work is attention's: src/model/decoder_fwd.c and decoder_bwd.c. */
#include "peft/peft.h"

static ist_status layout(ist_adapter_layout *out, const ist_adapter_config *c,
                         const ist_linear_sizes *s, ist_error *err) {
  (void)s;
  if (c->rank < 1 || c->rank > 4096) {
    return ist_fail(err, IST_ERR_ARG, "rank: found %lld virtual tokens, expected 1 to 4096",
                    (long long)c->rank);
  }
  *out = (ist_adapter_layout){.prefix = c->rank, .prefix_v = c->rank * c->kv};
  out->plain = out->params = 2 * out->prefix_v;
  return IST_OK;
}

/* N(0, 0.02^2): keys that are nearly nobody's, values that are nearly nothing. */
static void init(const ist_adapters *ad, int64_t layer, uint64_t seed) {
  ist_rng rng = ist_rng_stream(seed, IST_RNG_INIT, (uint32_t)layer, IST_MOD_COUNT, 0);
  ist_view v = ist_adapter_param(ad, layer, 0, 1, ad->layout.params);
  for (int64_t i = 0; i < v.cols; i++) ist_view_set(v, i, 0.02 * ist_rng_normal(&rng));
}

/* Scores and sums of the virtual tokens for every query head, as decoder.c counts them;
 * query heads as many as key heads is the least. */
static double flops_fwd(const ist_adapters *ad) {
  return 4.0 * (double)(ad->layout.prefix * ad->config.kv);
}
static double flops_bwd(const ist_adapters *ad, bool active) {
  return (active ? 2.5 : 1.5) * flops_fwd(ad);
}

const ist_peft_method ist_peft_prefix = {.name = "prefix",
                                         .layout = layout,
                                         .init = init,
                                         .flops_fwd = flops_fwd,
                                         .flops_bwd = flops_bwd};
