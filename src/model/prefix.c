/* A prefix's keys and values in attention: a second span that all segments share. */
#include <math.h>

#include "model/decoder.h"

static ist_view in_compute_type(ist_decoder *d, ist_view scratch, ist_view param) {
  if (param.dt == d->compute) return param;
  d->ctx->be->copy(d->ctx, scratch, param);
  return scratch;
}

/* Suppression of a segment's layer: its row group's, or that of all. */
static double segment_factor(const ist_decoder *d, const ist_pass *p, int64_t layer, int64_t row) {
  if (!p->factor) return 1.0;
  int64_t group = p->micro->group ? p->micro->group[row] : 0;
  return (double)p->factor[group * d->config->L + layer];
}

void ist_decoder_add_prefix(ist_decoder *d, const ist_pass *p, int64_t layer, ist_attn *a,
                            ist_kv kv[2], bool grads) {
  const ist_adapters *ad = d->adapters;
  if (!ad || !ad->layout.prefix) return;
  int64_t n = ad->layout.prefix, cols = ad->config.kv;
  const int64_t k = ad->layout.prefix_k, v = ad->layout.prefix_v;
  bool active = grads && p->active && p->active[layer];
  kv[1] = (ist_kv){
      .k = in_compute_type(d, d->prefix_k, ist_adapter_param(ad, layer, k, n, cols)),
      .v = in_compute_type(d, d->prefix_v, ist_adapter_param(ad, layer, v, n, cols)),
      .dk = active ? ist_adapter_grad(ad, layer, k, n, cols) : ist_view_none(),
      .dv = active ? ist_adapter_grad(ad, layer, v, n, cols) : ist_view_none(),
  };
  a->n_kv = 2;
  for (int64_t s = 0; s < a->n_seg; s++) {
    ist_attn_seg *seg = &d->prefix_seg[s];
    *seg = a->seg[s];
    IST_ASSERT(seg->n_spans == 1);
    seg->span[seg->n_spans++] = (ist_kv_span){
        .store = 1, .shared = true, .n = n, .logit_add = log(segment_factor(d, p, layer, seg->q0))};
  }
  a->seg = d->prefix_seg;
}
