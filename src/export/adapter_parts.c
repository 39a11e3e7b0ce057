/* Adapters that are no updates of weights, part by part: bottlenecks in the IST authors' names,
 * and prefixes. Every part must be there, with its shape, and nothing beside them. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "export/adapter_files.h"
#include "export/updates.h"
#include "model/targets.h"
#include "train/options.h"

typedef struct reader {
  ist_adapters *ad;
  const ist_model *m;
  const ist_safetensors *file;
  float *values; /* of the largest part */
  int64_t found;
} reader;

/* The values of a tensor, checked, into r->values. */
static ist_status take(reader *r, const char *name, int64_t rows, int64_t cols, ist_error *err) {
  const ist_st_tensor *t = ist_safetensors_find(r->file, name);
  if (!t)
    return ist_fail(err, IST_ERR_MISMATCH, "%s: %s: found no such tensor", r->file->path, name);
  int64_t n = t->n_dims ? t->shape[0] : 1, others = 1;
  for (int i = 1; i < t->n_dims; i++) others *= t->shape[i];
  if (n != rows || others != cols)
    return ist_fail(err, IST_ERR_MISMATCH,
                    "%s: %s: found %lld x %lld, expected %lld x %lld (is it an adapter of another "
                    "base model, or another size?)",
                    r->file->path, name, (long long)n, (long long)others, (long long)rows,
                    (long long)cols);
  ist_status s = ist_st_to_f32(t, r->values, rows * cols, err);
  if (s != IST_OK) {
    ist_error_context(err, "%s", r->file->path);
    return s;
  }
  r->found++;
  return ist_check_finite(r->values, rows * cols, r->file->path, name, err);
}

static ist_status read_module(reader *r, ist_adapter_key k, ist_error *err) {
  for (int part = 0; part < IST_PART_COUNT; part++) {
    char name[192];
    int64_t rows, cols;
    if (!ist_adapter_has(r->ad, k.m, (ist_part)part)) continue;
    ist_adapter_peft_name(name, sizeof name, r->ad, &r->m->config, k, (ist_part)part);
    ist_adapter_shape(r->ad, k.layer, k.m, (ist_part)part, &rows, &cols);
    IST_TRY(take(r, name, rows, cols, err));
    ist_adapter_write(r->ad, &r->m->config, k, (ist_part)part, IST_ROWS_HF, r->values);
  }
  return IST_OK;
}

static ist_status read_prefix(reader *r, int64_t layer, ist_error *err) {
  for (int keys = 0; keys < 2; keys++) {
    char name[64];
    ist_prefix_name(name, sizeof name, layer, keys);
    IST_TRY(take(r, name, r->ad->layout.prefix, r->ad->config.kv, err));
    ist_adapter_write_prefix(r->ad, &r->m->config, layer, keys, r->values);
  }
  return IST_OK;
}

static ist_status read_all(reader *r, ist_error *err) {
  for (int64_t l = 0; r->ad->layout.prefix && l < r->ad->L; l++) IST_TRY(read_prefix(r, l, err));
  ist_adapter_key k = {.layer = -1};
  while (ist_adapter_next(r->ad, &r->m->config, &k)) IST_TRY(read_module(r, k, err));
  if (r->found == r->file->n) return IST_OK;
  return ist_fail(err, IST_ERR_MISMATCH,
                  "%s: found %lld tensors, of which adapter_config.json and this model take %lld",
                  r->file->path, (long long)r->file->n, (long long)r->found);
}

static ist_status configure(ist_adapter_config *c, const ist_peft_config *p, const ist_model *m,
                            ist_error *err) {
  *c = (ist_adapter_config){.dropout = p->dropout, .kv = m->config.K * m->config.E};
  if (p->type == IST_PEFT_PREFIX) {
    c->method = "prefix";
    c->rank = p->virtual_tokens;
    return IST_OK;
  }
  bool swish = strcmp(p->non_linearity, "swish") == 0; /* another name of silu */
  int act = ist_activation_from_name(swish ? "silu" : p->non_linearity);
  if (act < 0)
    return ist_fail(err, IST_ERR_UNSUPPORTED,
                    "non_linearity is '%s', expected tanh, relu, gelu, silu or swish",
                    p->non_linearity);
  c->method = p->parallel ? "parallel" : "series";
  c->act = (ist_act_kind)act;
  c->learned_scaling = p->scaling == 0;
  c->scaling = c->learned_scaling ? 1 : p->scaling;
  return ist_targets_find(c, &m->config, p, false, err);
}

static ist_status load(ist_adapters *ad, unsigned char **params, const ist_peft_dir *d,
                       const ist_model *m, ist_error *err) {
  ist_adapter_config c;
  ist_linear_sizes sizes;
  ist_model_linear_sizes(&m->config, &sizes);
  IST_TRY(configure(&c, &d->config, m, err));
  ist_status s = ist_adapters_layout(ad, &c, &sizes, m->config.L, ist_wide(m->compute), err);
  ad->config.places = c.places; /* owned from here on */
  if (s != IST_OK) return s;
  size_t bytes = (size_t)ist_dtype_bytes(ad->dt, ist_adapter_elements(ad));
  ad->params = *params = ist_calloc(bytes, 1);
  reader r = {.ad = ad, .m = m, .file = d->tensors};
  r.values = ist_calloc((size_t)ad->layout.params, sizeof *r.values);
  s = *params && r.values ? read_all(&r, err) : ist_fail_nomem(err, "adapter", bytes);
  ist_free(r.values);
  return s;
}

ist_status ist_adapter_load_parts(ist_adapters *ad, unsigned char **params, const ist_peft_dir *d,
                                  const char *dir, const ist_model *m, ist_error *err) {
  ist_status s = load(ad, params, d, m, err);
  if (s != IST_OK && s != IST_ERR_MISMATCH) ist_error_context(err, "%s", dir);
  return s;
}
