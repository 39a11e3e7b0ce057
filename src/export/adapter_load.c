/* A PEFT directory or a GGUF adapter put on a model: updates -> ist_adapters. */
#include <string.h>

#include "base/mem.h"
#include "export/adapter_files.h"
#include "export/updates.h"
#include "model/targets.h"

static ist_outer outer_of(const ist_update *u) {
  return u->id == IST_T_EMBED ? IST_OUTER_EMBED : IST_OUTER_HEAD;
}

/* A place for every update. The common rank is the largest, the common alpha the first: what has
 * another says so itself. */
static ist_status find_places(ist_adapter_config *c, const ist_updates *u, int64_t L,
                              ist_error *err) {
  size_t n = (size_t)(L * IST_MOD_COUNT);
  *c = (ist_adapter_config){.method = "lora", .dropout = u->dropout, .rslora = u->rslora};
  c->places = ist_calloc(n, sizeof *c->places);
  if (!c->places) return ist_fail_nomem(err, "places of adapters", n * sizeof *c->places);
  c->rank = 1;
  c->alpha = 1;
  for (int64_t i = u->n - 1; i >= 0; i--)
    if (u->p[i].rank) c->alpha = u->p[i].alpha;
  for (int64_t i = 0; i < u->n; i++) {
    const ist_update *p = &u->p[i];
    if (p->rank > c->rank) c->rank = p->rank;
    if (p->layer < 0 && !p->rank) continue; /* whole */
    if (p->magnitude) c->method = "dora";
    c->lora_bias |= p->bias != NULL;
    if (p->layer < 0) {
      c->outer[outer_of(p)] = (ist_adapter_place){p->rank, p->alpha, p->scale};
      continue;
    }
    ist_adapter_place *place = &c->places[p->layer * IST_MOD_COUNT + p->id];
    if (place->rank && (place->rank != p->rank || place->scale != p->scale))
      return ist_fail(err, IST_ERR_UNSUPPORTED,
                      "layer %lld: found experts with adapters of ranks %lld and %lld, or of "
                      "different scale, expected the same at all of them",
                      (long long)p->layer, (long long)place->rank, (long long)p->rank);
    *place = (ist_adapter_place){p->rank, p->alpha, p->scale};
    c->modules |= 1u << p->id;
    if (p->rank > c->rank_of[p->id]) c->rank_of[p->id] = p->rank;
  }
  return IST_OK;
}

/* The experts of a layer's module have adapters together. Those that the file gives none get pairs
 * of zeros, which change nothing and stay zeros in training; a magnitude of zeros would take the
 * expert away, and any other, like a bias, would train. */
static ist_status check_experts(const ist_adapter_config *c, const ist_updates *u,
                                const ist_model_config *model, ist_error *err) {
  const bool dora = strcmp(c->method, "dora") == 0;
  size_t n = (size_t)(model->L * IST_MOD_COUNT);
  if (!dora && !c->lora_bias) return IST_OK;
  int64_t *found = ist_calloc(n, sizeof *found);
  if (!found) return ist_fail_nomem(err, "places of adapters", n * sizeof *found);
  for (int64_t i = 0; i < u->n; i++)
    if (u->p[i].layer >= 0) found[u->p[i].layer * IST_MOD_COUNT + u->p[i].id]++;
  ist_status s = IST_OK;
  for (int64_t i = 0; s == IST_OK && i < (int64_t)n; i++) {
    if (i % IST_MOD_COUNT < IST_MOD_EXPERTS || !found[i] || found[i] == model->experts) continue;
    s = ist_fail(err, IST_ERR_UNSUPPORTED,
                 "layer %lld: found %s at %lld of %lld experts, expected it at all of them",
                 (long long)(i / IST_MOD_COUNT), dora ? "DoRA" : "a bias of B (lora_bias)",
                 (long long)found[i], (long long)model->experts);
  }
  ist_free(found);
  return s;
}

/* An embedding's A is the update's B, turned, and the other way round. */
static ist_status put_outer(ist_adapters *ad, const ist_update *u, ist_error *err) {
  if (u->id == IST_T_OUTPUT) {
    ist_outer_write(ad, IST_OUTER_HEAD, IST_PART_A, u->a);
    ist_outer_write(ad, IST_OUTER_HEAD, IST_PART_B, u->b);
    return IST_OK;
  }
  int64_t most = (u->rows > u->cols ? u->rows : u->cols) * u->rank;
  float *turned = ist_calloc((size_t)most, sizeof *turned);
  if (!turned) return ist_fail_nomem(err, "embedding adapter", (size_t)most * sizeof *turned);
  for (int64_t i = 0; i < u->rows * u->rank; i++)
    turned[i % u->rank * u->rows + i / u->rank] = u->b[i];
  ist_outer_write(ad, IST_OUTER_EMBED, IST_PART_A, turned);
  for (int64_t i = 0; i < u->rank * u->cols; i++)
    turned[i % u->cols * u->rank + i / u->cols] = u->a[i];
  ist_outer_write(ad, IST_OUTER_EMBED, IST_PART_B, turned);
  ist_free(turned);
  return IST_OK;
}

static ist_status put_update(ist_adapters *ad, const ist_model *m, const ist_update *u,
                             ist_error *err) {
  if (u->layer < 0) return u->rank ? put_outer(ad, u, err) : IST_OK;
  const ist_adapter_key k = {u->layer, (ist_module)u->id, u->copy};
  ist_adapter_write(ad, &m->config, k, IST_PART_A, IST_ROWS_OURS, u->a);
  ist_adapter_write(ad, &m->config, k, IST_PART_B, IST_ROWS_OURS, u->b);
  if (u->bias) ist_adapter_write(ad, &m->config, k, IST_PART_BIAS, IST_ROWS_OURS, u->bias);
  if (u->magnitude)
    ist_adapter_write(ad, &m->config, k, IST_PART_MAGNITUDE, IST_ROWS_OURS, u->magnitude);
  return IST_OK;
}

static ist_status put_updates(ist_adapters *ad, unsigned char **params, const ist_updates *u,
                              const ist_model *m, ist_error *err) {
  ist_adapter_config c;
  ist_linear_sizes sizes;
  ist_model_linear_sizes(&m->config, &sizes);
  ist_status s = find_places(&c, u, m->config.L, err);
  if (s == IST_OK) s = check_experts(&c, u, &m->config, err);
  if (s == IST_OK) s = ist_adapters_layout(ad, &c, &sizes, m->config.L, ist_wide(m->compute), err);
  ad->config.places = c.places;
  if (s != IST_OK) return s;
  size_t bytes = (size_t)ist_dtype_bytes(ad->dt, ist_adapter_elements(ad));
  ad->params = *params = ist_calloc(bytes, 1);
  if (!*params) return ist_fail_nomem(err, "adapter", bytes);
  for (int64_t i = 0; i < u->n; i++) IST_TRY(put_update(ad, m, &u->p[i], err));
  return IST_OK;
}

/* Moves the whole matrices out of the updates. */
static void take_whole(float *whole[IST_OUTER_COUNT], ist_updates *u) {
  for (int64_t i = 0; i < u->n; i++) {
    if (!u->p[i].whole) continue;
    whole[outer_of(&u->p[i])] = u->p[i].whole;
    u->p[i].whole = NULL;
  }
}

/* Reads what `path` is: parts are put on the model at once, updates are left in `u`. */
static ist_status read_any(ist_adapters *ad, unsigned char **params, ist_updates *u,
                           const char *path, const ist_model *m, ist_error *err) {
  if (ist_adapter_is_file(path)) return ist_updates_read(u, path, m, err);
  ist_peft_dir *d;
  IST_TRY(ist_peft_open(&d, path, err));
  ist_status s = d->config.type == IST_PEFT_LORA
                     ? ist_updates_read_dir(u, d, path, m, err)
                     : ist_adapter_load_parts(ad, params, d, path, m, err);
  ist_peft_close(d);
  return s;
}

ist_status ist_adapter_load(ist_adapters *ad, unsigned char **params, float *whole[IST_OUTER_COUNT],
                            const char *path, const ist_model *m, ist_error *err) {
  *params = NULL;
  *ad = (ist_adapters){0};
  whole[IST_OUTER_EMBED] = whole[IST_OUTER_HEAD] = NULL;
  ist_updates u = {0};
  ist_status s = read_any(ad, params, &u, path, m, err);
  if (s == IST_OK && u.n) s = put_updates(ad, params, &u, m, err);
  if (s == IST_OK) s = ist_updates_drop_own(&u, m, err);
  if (s == IST_OK) take_whole(whole, &u);
  ist_updates_free(&u);
  if (s == IST_OK) return IST_OK;
  for (int i = 0; i < IST_OUTER_COUNT; i++) ist_free(whole[i]);
  ist_free(*params);
  ist_targets_free(&ad->config);
  *params = NULL;
  return s;
}
