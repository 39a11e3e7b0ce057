/* LoRA on the embedding and on the output head: their parameters. The products are
 * src/model/outer.c. */
#include "peft/low_rank.h"

ist_status ist_outer_layout_of(ist_outer_layout *out, const ist_peft_method *method,
                               const ist_adapter_config *c, const ist_linear_sizes *s,
                               ist_error *err) {
  *out = (ist_outer_layout){0};
  for (int i = 0; i < IST_OUTER_COUNT; i++) {
    const ist_adapter_place *p = &c->outer[i];
    if (!p->rank) continue;
    if (method != &ist_peft_lora || c->lora_bias)
      return ist_fail(err, IST_ERR_UNSUPPORTED,
                      "targets: found the %s, which can have plain LoRA only, found method %s%s",
                      i == IST_OUTER_EMBED ? "embedding" : "output head", method->name,
                      c->lora_bias ? " with a bias" : "");
    out->of[i] = (ist_outer_adapter){.rank = p->rank, .scale = p->scale, .a = out->params};
    out->params += p->rank * (i == IST_OUTER_EMBED ? s->vocabulary : s->width);
  }
  out->plain = out->params;
  for (int i = 0; i < IST_OUTER_COUNT; i++) {
    out->of[i].b = out->params;
    out->params += out->of[i].rank * (i == IST_OUTER_EMBED ? s->width : s->vocabulary);
  }
  return IST_OK;
}

static ist_view view(const ist_adapters *ad, unsigned char *base, int64_t offset, int64_t rows,
                     int64_t cols) {
  return ist_view_make(base + ist_dtype_bytes(ad->dt, offset), ad->dt, rows, cols, cols);
}

ist_view ist_outer_param(const ist_adapters *ad, int64_t offset, int64_t rows, int64_t cols) {
  return view(ad, ad->params, ad->L * ad->layout.params + offset, rows, cols);
}

ist_view ist_outer_grad(const ist_adapters *ad, int64_t offset, int64_t rows, int64_t cols) {
  return ad->outer_grads ? view(ad, ad->outer_grads, offset, rows, cols) : ist_view_none();
}

int64_t ist_adapter_elements(const ist_adapters *ad) {
  return ad->L * ad->layout.params + ad->outer.params;
}

/* As PEFT: an embedding's A is 0 and its B N(0, 1); the head's as any linear's. */
void ist_outer_init(const ist_adapters *ad, uint64_t seed) {
  const ist_outer_adapter *e = &ad->outer.of[IST_OUTER_EMBED], *h = &ad->outer.of[IST_OUTER_HEAD];
  ist_view b = ist_outer_param(ad, e->b, ad->sizes.width, e->rank);
  ist_view a = ist_outer_param(ad, h->a, h->rank, ad->sizes.width);
  ist_rng rng = ist_rng_stream(seed, IST_RNG_INIT, (uint32_t)ad->L, IST_OUTER_EMBED, 0);
  for (int64_t i = 0; i < b.rows * b.cols; i++) ist_view_set(b, i, ist_rng_normal(&rng));
  ist_low_rank_random(ad, a, h->rank,
                      ist_rng_stream(seed, IST_RNG_INIT, (uint32_t)ad->L, IST_OUTER_HEAD, 0));
}
