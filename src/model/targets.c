#include "model/targets.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/mem.h"

#define MAX_RANK  4096
#define PATH_SIZE 160

/* ---- Paths ------------------------------------------------------------------------- */

void ist_module_path(char *out, size_t size, const ist_model_config *c, int64_t layer, int id,
                     int64_t copy) {
  char stem[PATH_SIZE], number[24] = "\\d+";
  bool named = ist_tensor_hf_stem(stem, sizeof stem, c, layer, id);
  if (!named && id >= IST_T_MODEL_FIRST)
    snprintf(stem, sizeof stem, "%s", id == IST_T_EMBED ? "embed_tokens" : "lm_head");
  else if (!named)
    snprintf(stem, sizeof stem, "layers.%lld.%s", (long long)layer,
             ist_module_name((ist_module)id));
  const char *at = strchr(stem, '@');
  if (copy >= 0) snprintf(number, sizeof number, "%lld", (long long)copy);
  if (at)
    snprintf(out, size, "%.*s%s%s", (int)(at - stem), stem, number, at + 1);
  else
    snprintf(out, size, "%s", stem);
}

/* The last `parts` parts of a path. */
static const char *end_of(const char *path, int parts) {
  const char *p = path + strlen(path);
  while (p > path && !(p[-1] == '.' && --parts == 0)) p--;
  return p;
}

void ist_module_suffix(char *out, size_t size, const ist_model_config *c, int id) {
  ist_linear_sizes sizes;
  ist_model_linear_sizes(c, &sizes);
  char path[PATH_SIZE], other[PATH_SIZE];
  ist_module_path(path, sizeof path, c, 0, id, 0);
  int parts = 1;
  for (int m = 0; m < IST_MOD_COUNT && id < IST_MOD_EXPERTS; m++) {
    if (!sizes.in[m] || m == id) continue;
    ist_module_path(other, sizeof other, c, 0, m, 0);
    while (parts < 3 && strcmp(end_of(path, parts), end_of(other, parts)) == 0) parts++;
  }
  snprintf(out, size, "%s", end_of(path, parts));
}

/* ---- From words to places ------------------------------------------------------------ */

static ist_status check_rank(const char *path, int64_t rank, ist_error *err) {
  if (rank >= 1 && rank <= MAX_RANK) return IST_OK;
  return ist_fail(err, IST_ERR_ARG, "rank of %s: found %lld, expected 1 to %d", path,
                  (long long)rank, MAX_RANK);
}

/* What the rules say of a module of a layer: of its experts, all the same. */
static ist_status find_place(ist_peft_module *out, const ist_model_config *c, int64_t layer, int m,
                             ist_peft_rules *rules, ist_error *err) {
  char path[PATH_SIZE];
  int64_t copies = m >= IST_MOD_EXPERTS ? c->experts : 1;
  for (int64_t i = 0; i < copies; i++) {
    ist_module_path(path, sizeof path, c, layer, m, i);
    ist_peft_module found = ist_peft_rules_find(rules, path, IST_PEFT_LINEAR);
    IST_TRY(ist_peft_rules_check(rules, err));
    if (i == 0) *out = found;
    if (found.target == out->target && found.r == out->r && found.scale == out->scale) continue;
    return ist_fail(err, IST_ERR_UNSUPPORTED,
                    "target_modules: found %s, other than expert 0 of the layer; expected the same "
                    "adapter at all of them",
                    path);
  }
  return out->target ? check_rank(path, out->r, err) : IST_OK;
}

static ist_status find_places(ist_adapter_config *out, const ist_model_config *c,
                              ist_peft_rules *rules, bool all_linear, ist_error *err) {
  for (int64_t l = 0; l < c->L; l++) {
    for (int m = 0; m < (all_linear ? IST_MOD_EXPERTS : IST_MOD_COUNT); m++) {
      ist_peft_module found = {0};
      if (!ist_model_has(c, l, (ist_module)m)) continue;
      IST_TRY(find_place(&found, c, l, m, rules, err));
      if (!found.target) continue;
      out->places[l * IST_MOD_COUNT + m] = (ist_adapter_place){found.r, found.alpha, found.scale};
      out->modules |= 1u << m;
      if (found.r > out->rank_of[m]) out->rank_of[m] = found.r;
    }
  }
  return IST_OK;
}

static ist_status find_outer(ist_adapter_config *out, const ist_model_config *c,
                             ist_peft_rules *rules, ist_error *err) {
  static const ist_peft_kind kinds[] = {IST_PEFT_EMBEDDING, IST_PEFT_HEAD};
  for (int i = 0; i < IST_OUTER_COUNT; i++) {
    char path[PATH_SIZE];
    ist_module_path(path, sizeof path, c, -1, ist_outer_tensor((ist_outer)i), 0);
    ist_peft_module found = ist_peft_rules_find(rules, path, kinds[i]);
    IST_TRY(ist_peft_rules_check(rules, err));
    if (!found.target) continue;
    IST_TRY(check_rank(path, found.r, err));
    out->outer[i] = (ist_adapter_place){found.r, found.alpha, found.scale};
  }
  return IST_OK;
}

static ist_status nothing_matched(const ist_model_config *c, const char *key, const char *text,
                                  ist_error *err) {
  ist_linear_sizes sizes;
  ist_model_linear_sizes(c, &sizes);
  ist_buf names = {0};
  for (int m = 0; m < IST_MOD_COUNT; m++) {
    char suffix[PATH_SIZE];
    if (!sizes.in[m]) continue;
    ist_module_suffix(suffix, sizeof suffix, c, m);
    ist_buf_printf(&names, "%s%s or %s", names.len ? ", " : "", ist_module_name((ist_module)m),
                   suffix);
  }
  ist_status s =
      ist_fail(err, IST_ERR_ARG, "%s: found \"%s\", which matches nothing, expected names from %s",
               key, text, names.p ? names.p : "");
  char path[PATH_SIZE];
  ist_module_path(path, sizeof path, c, 0, 0, 0);
  ist_hint(err, "names are ends of a path like %s; an expression must match the whole of it", path);
  ist_buf_free(&names);
  return s;
}

static ist_status check_layers(const ist_model_config *c, const ist_peft_config *p,
                               ist_error *err) {
  for (int64_t i = 0; i < p->n_layers; i++) {
    if (p->layers[i] < c->L) continue;
    return ist_fail(err, IST_ERR_ARG, "layers_to_transform: found layer %lld, expected 0 to %lld",
                    (long long)p->layers[i], (long long)c->L - 1);
  }
  return IST_OK;
}

static ist_status check_found(const ist_adapter_config *out, const ist_model_config *c,
                              const ist_peft_config *p, const ist_peft_rules *rules, bool strict,
                              ist_error *err) {
  const char *text, *key = strict ? ist_peft_rules_unused(rules, &text) : NULL;
  if (key) return nothing_matched(c, key, text, err);
  if (strict) IST_TRY(check_layers(c, p, err));
  if (out->modules) return IST_OK;
  return ist_fail(err, IST_ERR_ARG,
                  "target_modules: found nothing in a layer, or nothing that exclude_modules and "
                  "layers_to_transform leave of it");
}

ist_status ist_targets_find(ist_adapter_config *out, const ist_model_config *c,
                            const ist_peft_config *p, bool strict, ist_error *err) {
  ist_peft_rules *rules;
  out->modules = 0;
  out->rank = p->r;
  out->alpha = p->alpha;
  out->rslora = p->rslora;
  memset(out->rank_of, 0, sizeof out->rank_of);
  size_t n = (size_t)(c->L * IST_MOD_COUNT);
  out->places = ist_calloc(n, sizeof *out->places);
  if (!out->places) return ist_fail_nomem(err, "places of adapters", n * sizeof *out->places);
  ist_status s = ist_peft_rules_new(&rules, p, err);
  if (s == IST_OK) {
    bool all = p->target_regex && strcasecmp(p->target_regex, "all-linear") == 0;
    s = find_places(out, c, rules, all, err);
    if (s == IST_OK) s = find_outer(out, c, rules, err);
    if (s == IST_OK) s = check_found(out, c, p, rules, strict, err);
    ist_peft_rules_free(rules);
  }
  if (s != IST_OK) ist_targets_free(out);
  return s;
}

void ist_targets_free(ist_adapter_config *c) {
  ist_free(c->places);
  c->places = NULL;
}

/* ---- From places to words -------------------------------------------------------------- */

typedef struct describer {
  ist_target_words *out;
  const ist_model_config *c;
  const ist_adapters *ad;
  const char **names; /* with room for every module of every layer */
  ist_peft_pattern *rank, *alpha;
  int64_t *layers;
} describer;

static ist_adapter_place place_of(const describer *d, int64_t layer, int m) {
  const ist_adapter_config *c = &d->ad->config;
  if (!ist_model_has(d->c, layer, (ist_module)m)) return (ist_adapter_place){0};
  if (c->places) return c->places[layer * IST_MOD_COUNT + m];
  const ist_adapter *a = &d->ad->layout.module[m];
  return (ist_adapter_place){a->rank, c->alpha_of[m] > 0 ? c->alpha_of[m] : c->alpha, a->scale};
}

/* Keeps a copy of a text; NULL: out of memory. */
static const char *keep(describer *d, const char *text) {
  ist_target_words *w = d->out;
  if (ist_grow(&w->text, &w->cap, w->n + 1, sizeof *w->text, NULL) != IST_OK) return NULL;
  return w->text[w->n++] = ist_strdup(text);
}

/* copy -1: as an expression for all experts. */
static const char *path_of(describer *d, int64_t layer, int m, int64_t copy) {
  char path[PATH_SIZE];
  ist_module_path(path, sizeof path, d->c, layer, m, copy);
  return keep(d, path);
}

static const char *suffix_of(describer *d, int m) {
  char suffix[PATH_SIZE];
  ist_module_suffix(suffix, sizeof suffix, d->c, m);
  return keep(d, suffix);
}

/* The key of a pattern: of experts an expression. */
static const char *key_of(describer *d, int m) {
  char path[PATH_SIZE];
  if (m < IST_MOD_EXPERTS) return suffix_of(d, m);
  ist_module_path(path, sizeof path, d->c, 0, m, -1);
  return keep(d, end_of(path, 3));
}

/* Layers in which the module is. */
static int64_t count_layers(const describer *d, int m) {
  int64_t n = 0;
  for (int64_t l = 0; l < d->ad->L; l++) n += place_of(d, l, m).rank > 0;
  return n;
}

/* True when every module that is somewhere is in the same layers. */
static bool same_layers(const describer *d, int64_t n_layers) {
  for (int m = 0; m < IST_MOD_COUNT; m++) {
    int64_t n = count_layers(d, m);
    if (n > 0 && n != n_layers) return false;
  }
  return true;
}

/* The experts' name is that of other modules too, which are not in the same layers. */
static bool is_ambiguous(const describer *d, int m, int64_t layers) {
  char suffix[PATH_SIZE], other[PATH_SIZE];
  ist_module_suffix(suffix, sizeof suffix, d->c, m);
  for (int i = 0; m >= IST_MOD_EXPERTS && i < IST_MOD_EXPERTS; i++) {
    if (!d->ad->sizes.in[i]) continue;
    ist_module_path(other, sizeof other, d->c, 0, i, 0);
    if (strcmp(end_of(other, 1), suffix) == 0 && count_layers(d, i) != layers) return true;
  }
  return false;
}

/* A name of the module in all layers: of experts, if need be, of each of them. */
static bool name_everywhere(describer *d, int m, int64_t layers) {
  ist_peft_config *c = &d->out->config;
  if (!is_ambiguous(d, m, layers)) return (d->names[c->targets.n++] = suffix_of(d, m)) != NULL;
  for (int64_t i = 0; i < d->ad->sizes.experts; i++) {
    char path[PATH_SIZE];
    ist_module_path(path, sizeof path, d->c, 0, m, i);
    if (!(d->names[c->targets.n++] = keep(d, end_of(path, 3)))) return false;
  }
  return true;
}

/* Layers in which the model has the module at all. */
static int64_t layers_with(const describer *d, int m) {
  int64_t n = 0;
  for (int64_t l = 0; l < d->ad->L; l++) n += ist_model_has(d->c, l, (ist_module)m);
  return n;
}

static bool name_targets(describer *d) {
  ist_peft_config *c = &d->out->config;
  int64_t n = 0, L = d->ad->L;
  for (int64_t l = 0; l < L; l++)
    if (ist_adapter_in_layer(d->ad, l)) d->layers[n++] = l;
  const bool alike = same_layers(d, n);
  for (int m = 0; m < IST_MOD_COUNT; m++) {
    int64_t in = count_layers(d, m);
    if (in > 0 && (alike || in == layers_with(d, m))) {
      if (!name_everywhere(d, m, in)) return false;
      continue;
    }
    int64_t copies = ist_module_copies(&d->ad->sizes, (ist_module)m);
    for (int64_t l = 0; in > 0 && l < L; l++)
      for (int64_t i = 0; i < copies; i++)
        if (place_of(d, l, m).rank > 0 && !(d->names[c->targets.n++] = path_of(d, l, m, i)))
          return false;
  }
  for (int i = 0; i < IST_OUTER_COUNT; i++) { /* a whole path goes past layers_to_transform */
    if (!d->ad->config.outer[i].rank) continue;
    if (!(d->names[c->targets.n++] = path_of(d, -1, ist_outer_tensor((ist_outer)i), 0)))
      return false;
  }
  c->targets.p = d->names;
  c->layers = d->layers;
  c->n_layers = alike && n < L ? n : 0;
  return true;
}

typedef double (*value_fn)(ist_adapter_place);
static double rank_value(ist_adapter_place p) {
  return (double)p.rank;
}
static double alpha_value(ist_adapter_place p) {
  return p.alpha;
}

/* Where a module's value is not the common one: once, or layer by layer. */
static bool name_values(describer *d, ist_peft_pattern *out, int64_t *n, value_fn value,
                        double common) {
  for (int m = 0; m < IST_MOD_COUNT; m++) {
    double first = 0;
    bool alike = true, any = false;
    for (int64_t l = 0; l < d->ad->L; l++) {
      ist_adapter_place p = place_of(d, l, m);
      if (p.rank == 0) continue;
      if (!any) first = value(p);
      any = true;
      alike &= value(p) == first;
    }
    if (any && alike && first != common) {
      out[*n] = (ist_peft_pattern){key_of(d, m), first};
      if (!out[(*n)++].key) return false;
    }
    for (int64_t l = 0; !alike && l < d->ad->L; l++) {
      ist_adapter_place p = place_of(d, l, m);
      if (p.rank == 0 || value(p) == common) continue;
      out[*n] = (ist_peft_pattern){path_of(d, l, m, -1), value(p)};
      if (!out[(*n)++].key) return false;
    }
  }
  for (int i = 0; i < IST_OUTER_COUNT; i++) {
    ist_adapter_place p = d->ad->config.outer[i];
    if (!p.rank || value(p) == common) continue;
    out[*n] = (ist_peft_pattern){path_of(d, -1, ist_outer_tensor((ist_outer)i), 0), value(p)};
    if (!out[(*n)++].key) return false;
  }
  return true;
}

ist_status ist_targets_describe(ist_target_words *out, const ist_model_config *c,
                                const ist_adapters *ad, ist_error *err) {
  const size_t most = (size_t)(ad->L * (IST_MOD_COUNT + 3 * ad->sizes.experts)) + 2;
  *out = (ist_target_words){0};
  describer d = {.out = out,
                 .c = c,
                 .ad = ad,
                 .names = ist_calloc(most, sizeof *d.names),
                 .rank = ist_calloc(most, sizeof *d.rank),
                 .alpha = ist_calloc(most, sizeof *d.alpha),
                 .layers = ist_calloc(most, sizeof *d.layers)};
  ist_peft_config *p = &out->config;
  *p = (ist_peft_config){.r = ad->config.rank,
                         .alpha = ad->config.alpha,
                         .rslora = ad->config.rslora,
                         .targets = {d.names, 0},
                         .rank_pattern = d.rank,
                         .alpha_pattern = d.alpha,
                         .layers = d.layers};
  bool ok = d.names && d.rank && d.alpha && d.layers && name_targets(&d) &&
            name_values(&d, d.rank, &p->n_rank_pattern, rank_value, (double)p->r) &&
            name_values(&d, d.alpha, &p->n_alpha_pattern, alpha_value, p->alpha);
  if (ok) return IST_OK;
  ist_target_words_free(out);
  return ist_fail_nomem(err, "names of modules", most * sizeof *d.names);
}

void ist_target_words_free(ist_target_words *w) {
  for (int64_t i = 0; i < w->n; i++) ist_free(w->text[i]);
  ist_free(w->text);
  ist_free((void *)(uintptr_t)w->config.targets.p);
  ist_free((void *)(uintptr_t)w->config.rank_pattern);
  ist_free((void *)(uintptr_t)w->config.alpha_pattern);
  ist_free((void *)(uintptr_t)w->config.layers);
  *w = (ist_target_words){0};
}
