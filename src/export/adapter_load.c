#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "export/adapter_files.h"
#include "format/peft_dir.h"

static ist_status unsupported(const char *dir, const char *field, ist_error *err) {
  return ist_fail(err, IST_ERR_UNSUPPORTED,
                  "%s/adapter_config.json: %s: found a value that is not supported", dir, field);
}

/* What the config asks for, in our terms; features beyond plain LoRA by name. */
static ist_status read_config(ist_adapter_config *out, const ist_peft_config *c,
                              const ist_model_config *model, const char *dir, ist_error *err) {
  const struct {
    bool there;
    const char *field;
  } refused[] = {
      {c->rslora, "use_rslora"},
      {c->dora, "use_dora"},
      {c->fan_in_fan_out && !model->family->hf_transposes, "fan_in_fan_out"},
      {c->exclude.n || c->exclude_regex, "exclude_modules"},
      {c->modules_to_save.n, "modules_to_save"},
      {c->n_rank_pattern, "rank_pattern"},
      {c->n_alpha_pattern, "alpha_pattern"},
      {c->n_layers, "layers_to_transform"},
      {c->layers_pattern.n, "layers_pattern"},
  };
  for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
    if (refused[i].there) return unsupported(dir, refused[i].field, err);
  }
  *out = (ist_adapter_config){
      .method = "lora", .rank = c->r, .alpha = c->alpha, .dropout = c->dropout};
  if (c->target_regex) return ist_model_targets(model, c->target_regex, &out->modules, err);
  if (!c->targets.n) return unsupported(dir, "target_modules", err);
  for (int64_t i = 0; i < c->targets.n; i++) {
    uint32_t one;
    IST_TRY(ist_model_targets(model, c->targets.p[i], &one, err));
    out->modules |= one;
  }
  return IST_OK;
}

static ist_status load_half(ist_adapters *ad, const ist_model *m, const ist_peft_dir *d, int64_t l,
                            ist_module mod, ist_half half, ist_error *err) {
  char name[160];
  int64_t rows, cols;
  ist_adapter_peft_name(name, sizeof name, &m->config, l, mod, half);
  ist_adapter_shape(ad, mod, half, &rows, &cols);
  const ist_st_tensor *t = ist_safetensors_find(d->tensors, name);
  if (!t)
    return ist_fail(err, IST_ERR_MISMATCH, "%s: %s: found no such tensor", d->tensors->path, name);
  if (t->n_dims != 2 || t->shape[0] != rows || t->shape[1] != cols) {
    return ist_fail(
        err, IST_ERR_MISMATCH,
        "%s: %s: found %lld x %lld, expected %lld x %lld (is it an adapter of another base model?)",
        d->tensors->path, name, (long long)t->shape[0],
        (long long)(t->n_dims > 1 ? t->shape[1] : 1), (long long)rows, (long long)cols);
  }
  float *values = ist_calloc((size_t)(rows * cols), sizeof *values);
  if (!values) return ist_fail_nomem(err, name, (size_t)(rows * cols) * sizeof *values);
  ist_status status = ist_st_to_f32(t, values, rows * cols, err);
  for (int64_t i = 0; status == IST_OK && i < rows * cols; i++) {
    if (!isfinite(values[i]))
      status = ist_fail(err, IST_ERR_FORMAT, "%s: %s: found a value that is not finite",
                        d->tensors->path, name);
  }
  if (status == IST_OK) ist_adapter_write(ad, &m->config, l, mod, half, true, values);
  ist_free(values);
  return status;
}

static ist_status load_tensors(ist_adapters *ad, const ist_model *m, const ist_peft_dir *d,
                               ist_error *err) {
  int64_t used = 0;
  for (int64_t l = 0; l < ad->L; l++) {
    for (int mod = 0; mod < IST_MOD_COUNT; mod++) {
      if (!ad->layout.module[mod].rank) continue;
      IST_TRY(load_half(ad, m, d, l, (ist_module)mod, IST_HALF_A, err));
      IST_TRY(load_half(ad, m, d, l, (ist_module)mod, IST_HALF_B, err));
      used += 2;
    }
  }
  if (used == d->tensors->n) return IST_OK;
  return ist_fail(err, IST_ERR_MISMATCH,
                  "%s: found %lld tensors, expected the %lld of this model's target modules",
                  d->tensors->path, (long long)d->tensors->n, (long long)used);
}

ist_status ist_adapter_load(ist_adapters *ad, unsigned char **params, const char *dir,
                            const ist_model *m, ist_error *err) {
  *params = NULL;
  ist_peft_dir *d;
  IST_TRY(ist_peft_open(&d, dir, err));
  ist_adapter_config c;
  ist_linear_sizes sizes;
  ist_model_linear_sizes(&m->config, &sizes);
  ist_status status = read_config(&c, &d->config, &m->config, dir, err);
  if (status == IST_OK)
    status = ist_adapters_layout(ad, &c, &sizes, m->config.L, ist_wide(m->compute), err);
  if (status == IST_OK) {
    size_t bytes = (size_t)ist_dtype_bytes(ad->dt, ad->L * ad->layout.params);
    ad->params = *params = ist_calloc(bytes, 1);
    status = *params ? load_tensors(ad, m, d, err) : ist_fail_nomem(err, "adapter", bytes);
  }
  ist_peft_close(d);
  if (status == IST_OK) return IST_OK;
  ist_free(*params);
  *params = NULL;
  return status;
}
