/* A PEFT directory or a GGUF adapter put on a model: updates -> ist_adapters. */
#include <string.h>

#include "base/mem.h"
#include "export/adapter_files.h"
#include "export/updates.h"

/* What the engine runs: low-rank updates of a layer's linears. */
static ist_status refuse_other(const ist_updates *u, const char *path, ist_error *err) {
  for (int64_t i = 0; i < u->n; i++) {
    const ist_update *p = &u->p[i];
    const char *what = p->magnitude   ? "DoRA"
                       : p->layer < 0 ? "an adapter on the embedding or the head"
                       : p->whole     ? "a whole matrix"
                                      : NULL;
    if (!what) continue;
    ist_fail(err, IST_ERR_UNSUPPORTED, "%s: found %s, which can be merged but not run as it is",
             path, what);
    ist_hint(err, "ist merge -m MODEL --adapter %s merged.gguf", path);
    return IST_ERR_UNSUPPORTED;
  }
  return IST_OK;
}

/* The engine has one rank and one scale for all: the largest rank, and the alpha of
 * the first. What an adapter has otherwise is made to fit: smaller ranks are filled
 * up with zeros, which stay zeros in training, and B takes the quotient of the
 * scales. */
static ist_adapter_config common_config(const ist_updates *u) {
  ist_adapter_config c = {.method = "lora", .dropout = u->dropout};
  for (int64_t i = 0; i < u->n; i++) {
    c.modules |= 1u << u->p[i].id;
    if (u->p[i].rank > c.rank) c.rank = u->p[i].rank;
  }
  c.alpha = u->p[0].scale * (double)c.rank;
  return c;
}

static ist_status put_update(ist_adapters *ad, const ist_model *m, const ist_update *u,
                             ist_error *err) {
  const ist_module mod = (ist_module)u->id;
  const int64_t rank = ad->layout.module[mod].rank;
  const float factor = (float)(u->scale / ad->layout.module[mod].scale);
  float *a = ist_calloc((size_t)(rank * u->cols), sizeof *a);
  float *b = ist_calloc((size_t)(u->rows * rank), sizeof *b);
  bool ok = a && b;
  if (ok) {
    memcpy(a, u->a, (size_t)(u->rank * u->cols) * sizeof *a);
    for (int64_t i = 0; i < u->rows; i++)
      for (int64_t k = 0; k < u->rank; k++) b[i * rank + k] = factor * u->b[i * u->rank + k];
    ist_adapter_write(ad, &m->config, u->layer, mod, IST_HALF_A, false, a);
    ist_adapter_write(ad, &m->config, u->layer, mod, IST_HALF_B, false, b);
  }
  ist_free(a);
  ist_free(b);
  return ok ? IST_OK : ist_fail_nomem(err, "adapter", (size_t)(rank * u->cols) * sizeof *a);
}

static ist_status put_updates(ist_adapters *ad, unsigned char **params, const ist_updates *u,
                              const ist_model *m, ist_error *err) {
  ist_adapter_config c = common_config(u);
  ist_linear_sizes sizes;
  ist_model_linear_sizes(&m->config, &sizes);
  IST_TRY(ist_adapters_layout(ad, &c, &sizes, m->config.L, ist_wide(m->compute), err));
  size_t bytes = (size_t)ist_dtype_bytes(ad->dt, ad->L * ad->layout.params);
  ad->params = *params = ist_calloc(bytes, 1);
  if (!*params) return ist_fail_nomem(err, "adapter", bytes);
  for (int64_t i = 0; i < u->n; i++) IST_TRY(put_update(ad, m, &u->p[i], err));
  return IST_OK;
}

ist_status ist_adapter_load(ist_adapters *ad, unsigned char **params, const char *path,
                            const ist_model *m, ist_error *err) {
  *params = NULL;
  ist_updates u;
  IST_TRY(ist_updates_read(&u, path, m, err));
  ist_status s = refuse_other(&u, path, err);
  if (s == IST_OK) s = put_updates(ad, params, &u, m, err);
  ist_updates_free(&u);
  if (s == IST_OK) return IST_OK;
  ist_free(*params);
  *params = NULL;
  return s;
}
