#include "peft/peft.h"

#include <string.h>
#include <strings.h>

const ist_site_info ist_sites[IST_SITE_COUNT] = {
    [IST_SITE_ATTN_IN] = {3, {IST_MOD_Q, IST_MOD_K, IST_MOD_V}},
    [IST_SITE_ATTN_OUT] = {1, {IST_MOD_O}},
    [IST_SITE_MLP_IN] = {2, {IST_MOD_GATE, IST_MOD_UP}},
    [IST_SITE_MLP_OUT] = {1, {IST_MOD_DOWN}},
};

/* One row a module; everything that names a module reads it here. */
static const struct {
  const char *name, *peft_name, *peft_path, *gguf;
  ist_site site;
} modules[IST_MOD_COUNT] = {
    [IST_MOD_Q] = {"q", "q_proj", "self_attn.q_proj", "attn_q", IST_SITE_ATTN_IN},
    [IST_MOD_K] = {"k", "k_proj", "self_attn.k_proj", "attn_k", IST_SITE_ATTN_IN},
    [IST_MOD_V] = {"v", "v_proj", "self_attn.v_proj", "attn_v", IST_SITE_ATTN_IN},
    [IST_MOD_O] = {"o", "o_proj", "self_attn.o_proj", "attn_output", IST_SITE_ATTN_OUT},
    [IST_MOD_GATE] = {"gate", "gate_proj", "mlp.gate_proj", "ffn_gate", IST_SITE_MLP_IN},
    [IST_MOD_UP] = {"up", "up_proj", "mlp.up_proj", "ffn_up", IST_SITE_MLP_IN},
    [IST_MOD_DOWN] = {"down", "down_proj", "mlp.down_proj", "ffn_down", IST_SITE_MLP_OUT},
};

ist_site ist_module_site(ist_module m) {
  return modules[m].site;
}
const char *ist_module_name(ist_module m) {
  return modules[m].name;
}
const char *ist_module_peft_path(ist_module m) {
  return modules[m].peft_path;
}
const char *ist_module_gguf(ist_module m) {
  return modules[m].gguf;
}

static int module_from_name(const char *p, size_t len) {
  for (int m = 0; m < IST_MOD_COUNT; m++) {
    const char *names[2] = {modules[m].name, modules[m].peft_name};
    for (int i = 0; i < 2; i++) {
      if (strlen(names[i]) == len && strncasecmp(names[i], p, len) == 0) return m;
    }
  }
  return -1;
}

ist_status ist_targets_parse(const char *text, uint32_t *out, ist_error *err) {
  if (strcasecmp(text, "all-linear") == 0 || strcasecmp(text, "all") == 0) {
    *out = (1u << IST_MOD_COUNT) - 1;
    return IST_OK;
  }
  *out = 0;
  for (const char *p = text;;) {
    size_t len = strcspn(p, ",");
    int m = module_from_name(p, len);
    if (m < 0) {
      return ist_fail(err, IST_ERR_ARG,
                      "targets: found \"%.*s\", expected names from q, k, v, o, gate, up, down "
                      "(or q_proj, ...) separated by commas, or all-linear",
                      (int)len, p);
    }
    *out |= 1u << m;
    if (p[len] == '\0') return IST_OK;
    p += len + 1;
  }
}

static const ist_peft_method *const methods[] = {&ist_peft_lora};

const ist_peft_method *ist_peft_find(const char *name, const char **names) {
  if (names) *names = "lora";
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
  return method->layout(&ad->layout, c, s, err);
}
