/* A PEFT directory or a GGUF adapter put on a model: updates -> ist_adapters. */
#include "base/mem.h"
#include "export/adapter_files.h"
#include "export/updates.h"
#include "model/targets.h"

/* What the engine runs: updates of a layer's linears. */
static ist_status refuse_other(const ist_updates *u, const char *path, ist_error *err) {
  for (int64_t i = 0; i < u->n; i++) {
    const ist_update *p = &u->p[i];
    const char *what = p->layer < 0 ? "an adapter on the embedding or the head"
                       : p->whole   ? "a whole matrix"
                                    : NULL;
    if (!what) continue;
    ist_fail(err, IST_ERR_UNSUPPORTED, "%s: found %s, which can be merged but not run as it is",
             path, what);
    ist_hint(err, "ist merge -m MODEL --adapter %s merged.gguf", path);
    return IST_ERR_UNSUPPORTED;
  }
  return IST_OK;
}

/* A place for every update. The common rank is the largest, the common alpha the first: what has
 * another says so itself. */
static ist_status find_places(ist_adapter_config *c, const ist_updates *u, int64_t L,
                              ist_error *err) {
  size_t n = (size_t)(L * IST_MOD_COUNT);
  *c = (ist_adapter_config){.method = "lora", .dropout = u->dropout, .rslora = u->rslora};
  c->places = ist_calloc(n, sizeof *c->places);
  if (!c->places) return ist_fail_nomem(err, "places of adapters", n * sizeof *c->places);
  c->alpha = u->p[0].alpha;
  for (int64_t i = 0; i < u->n; i++) {
    const ist_update *p = &u->p[i];
    ist_adapter_place *place = &c->places[p->layer * IST_MOD_COUNT + p->id];
    if (place->rank && (place->rank != p->rank || place->scale != p->scale))
      return ist_fail(err, IST_ERR_UNSUPPORTED,
                      "layer %lld: found experts with adapters of ranks %lld and %lld, or of "
                      "different scale, expected the same at all of them",
                      (long long)p->layer, (long long)place->rank, (long long)p->rank);
    *place = (ist_adapter_place){p->rank, p->alpha, p->scale};
    c->modules |= 1u << p->id;
    if (p->rank > c->rank_of[p->id]) c->rank_of[p->id] = p->rank;
    if (p->rank > c->rank) c->rank = p->rank;
    if (p->magnitude) c->method = "dora";
    c->lora_bias |= p->bias != NULL;
  }
  return IST_OK;
}

static void put_update(ist_adapters *ad, const ist_model *m, const ist_update *u) {
  const ist_adapter_key k = {u->layer, (ist_module)u->id, u->copy};
  ist_adapter_write(ad, &m->config, k, IST_PART_A, IST_ROWS_OURS, u->a);
  ist_adapter_write(ad, &m->config, k, IST_PART_B, IST_ROWS_OURS, u->b);
  if (u->bias) ist_adapter_write(ad, &m->config, k, IST_PART_BIAS, IST_ROWS_OURS, u->bias);
  if (u->magnitude)
    ist_adapter_write(ad, &m->config, k, IST_PART_MAGNITUDE, IST_ROWS_OURS, u->magnitude);
}

static ist_status put_updates(ist_adapters *ad, unsigned char **params, const ist_updates *u,
                              const ist_model *m, ist_error *err) {
  ist_adapter_config c;
  ist_linear_sizes sizes;
  ist_model_linear_sizes(&m->config, &sizes);
  ist_status s = find_places(&c, u, m->config.L, err);
  if (s == IST_OK) s = ist_adapters_layout(ad, &c, &sizes, m->config.L, ist_wide(m->compute), err);
  ad->config.places = c.places;
  if (s != IST_OK) return s;
  size_t bytes = (size_t)ist_dtype_bytes(ad->dt, ad->L * ad->layout.params);
  ad->params = *params = ist_calloc(bytes, 1);
  if (!*params) return ist_fail_nomem(err, "adapter", bytes);
  for (int64_t i = 0; i < u->n; i++) put_update(ad, m, &u->p[i]);
  return IST_OK;
}

ist_status ist_adapter_load(ist_adapters *ad, unsigned char **params, const char *path,
                            const ist_model *m, ist_error *err) {
  *params = NULL;
  *ad = (ist_adapters){0};
  ist_updates u;
  IST_TRY(ist_updates_read(&u, path, m, err));
  ist_status s = refuse_other(&u, path, err);
  if (s == IST_OK) s = put_updates(ad, params, &u, m, err);
  ist_updates_free(&u);
  if (s == IST_OK) return IST_OK;
  ist_free(*params);
  ist_targets_free(&ad->config);
  *params = NULL;
  return s;
}
