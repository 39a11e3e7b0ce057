#include "peft/low_rank.h"

#include <string.h>

const ist_site_info ist_sites[IST_SITE_COUNT] = {
    [IST_SITE_ATTN_IN] = {4, {IST_MOD_Q, IST_MOD_K, IST_MOD_V, IST_MOD_QKV}},
    [IST_SITE_ATTN_OUT] = {1, {IST_MOD_O}},
    [IST_SITE_MLP_IN] = {3, {IST_MOD_GATE, IST_MOD_UP, IST_MOD_GATE_UP}},
    [IST_SITE_MLP_OUT] = {1, {IST_MOD_DOWN}},
    [IST_SITE_SHARED_IN] = {2, {IST_MOD_SHARED_GATE, IST_MOD_SHARED_UP}},
    [IST_SITE_SHARED_OUT] = {1, {IST_MOD_SHARED_DOWN}},
    [IST_SITE_EXPERT_IN] = {2, {IST_MOD_EXPERT_GATE, IST_MOD_EXPERT_UP}},
    [IST_SITE_EXPERT_OUT] = {1, {IST_MOD_EXPERT_DOWN}},
};

/* One row a module; everything that names a module reads it here. */
static const struct {
  const char *name;
  ist_site site;
} modules[IST_MOD_COUNT] = {
    [IST_MOD_Q] = {"q", IST_SITE_ATTN_IN},
    [IST_MOD_K] = {"k", IST_SITE_ATTN_IN},
    [IST_MOD_V] = {"v", IST_SITE_ATTN_IN},
    [IST_MOD_O] = {"o", IST_SITE_ATTN_OUT},
    [IST_MOD_GATE] = {"gate", IST_SITE_MLP_IN},
    [IST_MOD_UP] = {"up", IST_SITE_MLP_IN},
    [IST_MOD_DOWN] = {"down", IST_SITE_MLP_OUT},
    [IST_MOD_QKV] = {"qkv", IST_SITE_ATTN_IN},
    [IST_MOD_GATE_UP] = {"gate_up", IST_SITE_MLP_IN},
    [IST_MOD_SHARED_GATE] = {"shared_gate", IST_SITE_SHARED_IN},
    [IST_MOD_SHARED_UP] = {"shared_up", IST_SITE_SHARED_IN},
    [IST_MOD_SHARED_DOWN] = {"shared_down", IST_SITE_SHARED_OUT},
    [IST_MOD_EXPERT_GATE] = {"expert_gate", IST_SITE_EXPERT_IN},
    [IST_MOD_EXPERT_UP] = {"expert_up", IST_SITE_EXPERT_IN},
    [IST_MOD_EXPERT_DOWN] = {"expert_down", IST_SITE_EXPERT_OUT},
};

ist_site ist_module_site(ist_module m) {
  return modules[m].site;
}
const char *ist_module_name(ist_module m) {
  return modules[m].name;
}

static const ist_peft_method *const methods[] = {&ist_peft_lora, &ist_peft_dora, &ist_peft_parallel,
                                                 &ist_peft_series, &ist_peft_prefix};

const ist_peft_method *ist_peft_find(const char *name, const char **names) {
  if (names) *names = "lora, dora, parallel, series, prefix";
  for (size_t i = 0; i < sizeof methods / sizeof *methods; i++) {
    if (strcmp(methods[i]->name, name) == 0) return methods[i];
  }
  return NULL;
}

static ist_view block_view(unsigned char *base, int64_t row, const ist_adapters *ad, int64_t offset,
                           int64_t rows, int64_t cols) {
  int64_t element = row * ad->layout.params + offset;
  return ist_view_make(base + ist_dtype_bytes(ad->dt, element), ad->dt, rows, cols, cols);
}

ist_view ist_adapter_param(const ist_adapters *ad, int64_t layer, int64_t offset, int64_t rows,
                           int64_t cols) {
  return block_view(ad->params, layer, ad, offset, rows, cols);
}

ist_view ist_adapter_grad(const ist_adapters *ad, int64_t layer, int64_t offset, int64_t rows,
                          int64_t cols) {
  if (!ad->grads || ad->grad_slot[layer] < 0) return ist_view_none();
  return block_view(ad->grads, ad->grad_slot[layer], ad, offset, rows, cols);
}

int64_t ist_adapter_rank(const ist_adapters *ad, int64_t layer, ist_module m) {
  const ist_adapter_place *places = ad->config.places;
  return places ? places[layer * IST_MOD_COUNT + (int)m].rank : ad->layout.module[m].rank;
}

ist_adapter ist_adapter_of(const ist_adapters *ad, ist_module m, int64_t copy) {
  ist_adapter a = ad->layout.module[m];
  a.a += copy * a.a_step;
  a.b += copy * a.out * a.rank;
  if (a.m) a.m += copy * a.out;
  if (a.bias) a.bias += copy * a.out;
  if (a.learned) a.learned += copy;
  return a;
}

double ist_adapter_scale(const ist_adapters *ad, int64_t layer, ist_module m, int64_t copy) {
  const ist_adapter a = ist_adapter_of(ad, m, copy);
  const ist_adapter_place *places = ad->config.places;
  if (places && ad->method->by_alpha) return places[layer * IST_MOD_COUNT + (int)m].scale;
  if (!a.learned) return a.scale;
  ist_view v = ist_adapter_param(ad, layer, a.learned, 1, 1);
  return ist_view_get(v, 0);
}

void ist_adapter_fill(const ist_adapters *ad, int64_t layer, int64_t offset, int64_t n,
                      double value) {
  ist_view v = ist_adapter_param(ad, layer, offset, 1, n);
  for (int64_t i = 0; i < n; i++) ist_view_set(v, i, value);
}

bool ist_adapter_in_layer(const ist_adapters *ad, int64_t layer) {
  for (int m = 0; m < IST_MOD_COUNT; m++)
    if (ist_adapter_rank(ad, layer, (ist_module)m) > 0) return true;
  return ad->layout.prefix > 0;
}

int64_t ist_adapter_trainable(const ist_adapters *ad) {
  int64_t n = ist_adapter_elements(ad);
  for (int64_t l = 0; l < ad->L; l++) {
    for (int m = 0; m < IST_MOD_COUNT; m++) {
      const ist_adapter *a = &ad->layout.module[m];
      int64_t rank = ist_adapter_rank(ad, l, (ist_module)m);
      int64_t copies = ist_module_copies(&ad->sizes, (ist_module)m);
      n -= copies * (a->rank - rank) * (a->in + a->out);
      if (a->rank && !rank)
        n -= copies * ((a->m ? a->out : 0) + (a->bias ? a->out : 0) + (a->learned ? 1 : 0));
    }
  }
  return n;
}

ist_status ist_adapters_layout(ist_adapters *ad, const ist_adapter_config *c,
                               const ist_linear_sizes *s, int64_t L, ist_dtype dt, ist_error *err) {
  const char *names;
  const ist_peft_method *method = ist_peft_find(c->method, &names);
  if (!method) {
    return ist_fail(err, IST_ERR_ARG, "method: found \"%s\", expected one of: %s", c->method,
                    names);
  }
  memset(ad, 0, sizeof *ad);
  ad->method = method;
  ad->config = *c;
  ad->sizes = *s;
  ad->L = L;
  ad->dt = dt;
  IST_TRY(method->layout(&ad->layout, c, s, err));
  return ist_outer_layout_of(&ad->outer, method, c, s, err);
}
