/* The method's part of the options: which adapters a run trains, by PEFT's rules, and the words
 * for an adapter that a run goes on from. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/mem.h"
#include "model/targets.h"
#include "train/options.h"

/* ---- Words: what stands in an option, cut up in a copy of its text ------------------------ */

typedef struct words {
  const ist_model_config *m;
  char *text; /* the copies that names and keys point into */
  const char **names;
  ist_peft_pattern *patterns;
  int64_t *layers;
  size_t used;
} words;

static const char *keep(words *w, const char *p, size_t len) {
  char *copy = w->text + w->used;
  memcpy(copy, p, len);
  copy[len] = '\0';
  w->used += len + 1;
  return copy;
}

/* Paths have letters, digits, dots and underscores. */
static bool is_expression(const char *text) {
  return strpbrk(text, "*+?()[]{}|\\^$") != NULL;
}

static bool is_word(const char *p, size_t len, const char *word) {
  return strlen(word) == len && strncasecmp(word, p, len) == 0;
}

/* ist's own name of a module ("q"), or a family's in another case, as the end of a path. */
static const char *canonical(words *w, const char *p, size_t len) {
  for (int i = 0; i < IST_OUTER_COUNT; i++) {
    bool embed = i == IST_OUTER_EMBED;
    char path[160];
    if (!is_word(p, len, embed ? "embed" : "head") &&
        !is_word(p, len, embed ? "embed_tokens" : "lm_head"))
      continue;
    ist_module_path(path, sizeof path, w->m, -1, ist_outer_tensor((ist_outer)i), 0);
    return keep(w, path, strlen(path));
  }
  ist_linear_sizes sizes;
  ist_model_linear_sizes(w->m, &sizes);
  for (int m = 0; m < IST_MOD_COUNT; m++) {
    char suffix[160];
    const char *own = ist_module_name((ist_module)m);
    if (!sizes.in[m]) continue;
    ist_module_suffix(suffix, sizeof suffix, w->m, m);
    if (is_word(p, len, own) || is_word(p, len, suffix)) return keep(w, suffix, strlen(suffix));
  }
  for (int m = IST_MOD_EXPERTS; m < IST_MOD_COUNT; m++) { /* "gate": all of that name */
    char leaf[160];
    const char *kind = strchr(ist_module_name((ist_module)m), '_') + 1;
    ist_module_suffix(leaf, sizeof leaf, w->m, m);
    if (sizes.in[m] && is_word(p, len, kind)) return keep(w, leaf, strlen(leaf));
  }
  return keep(w, p, len);
}

static void read_list(words *w, const char *text, ist_peft_names *list, bool modules) {
  if (!text || !*text) return;
  list->p = w->names;
  for (const char *p = text;; p++) {
    size_t len = strcspn(p, ",");
    *w->names++ = modules ? canonical(w, p, len) : keep(w, p, len);
    list->n++;
    p += len;
    if (!*p) return;
  }
}

/* A list, or one expression. */
static void read_names(words *w, const char *text, ist_peft_names *list, const char **regex) {
  if (!text || !*text) return;
  if (strcasecmp(text, "all") == 0 || strcasecmp(text, "all-linear") == 0) {
    *regex = "all-linear";
    return;
  }
  if (is_expression(text)) {
    *regex = text;
    return;
  }
  read_list(w, text, list, true);
}

/* The end of the key of a KEY=NUMBER: keys may be expressions, with commas and '=' of their own.
 * NULL: there is none. */
static const char *end_of_key(const char *p, double *value, const char **next) {
  for (const char *eq = strchr(p, '='); eq; eq = strchr(eq + 1, '=')) {
    char *end;
    *value = strtod(eq + 1, &end);
    if (end == eq + 1 || (*end && *end != ',') || eq == p) continue;
    *next = *end ? end + 1 : end;
    return eq;
  }
  return NULL;
}

static ist_status read_pattern(words *w, const char *field, const char *text, bool whole,
                               const ist_peft_pattern **out, int64_t *n, ist_error *err) {
  *out = w->patterns;
  for (const char *p = text ? text : ""; *p;) {
    double value;
    const char *next, *end = end_of_key(p, &value, &next);
    bool good = end && value > 0 && value < 1e6 && (!whole || value == (double)(int64_t)value);
    if (!good)
      return ist_fail(err, IST_ERR_ARG, "%s: found \"%s\", expected MODULE=NUMBER, ...%s", field, p,
                      whole ? " with whole numbers" : "");
    *w->patterns++ = (ist_peft_pattern){canonical(w, p, (size_t)(end - p)), value};
    (*n)++;
    p = next;
  }
  return IST_OK;
}

static bool has_layer(const int64_t *layers, int64_t n, int64_t layer) {
  for (int64_t i = 0; i < n; i++)
    if (layers[i] == layer) return true;
  return false;
}

/* "0-5,7": numbers and ranges, which may overlap. */
static ist_status read_layers(words *w, const char *text, const int64_t **out, int64_t *n,
                              ist_error *err) {
  *out = w->layers;
  for (const char *p = text ? text : ""; *p;) {
    char *end;
    long first = strtol(p, &end, 10), last = first;
    bool good = end != p && first >= 0;
    if (good && *end == '-') {
      p = end + 1;
      last = strtol(p, &end, 10);
      good = end != p;
    }
    if (!good || last < first || last >= w->m->L || (*end && *end != ','))
      return ist_fail(
          err, IST_ERR_ARG,
          "layers_to_transform: found \"%s\", expected layers of 0 to %lld such as 0-3,7", text,
          (long long)w->m->L - 1);
    for (long l = first; l <= last; l++)
      if (!has_layer(w->layers, *n, l)) w->layers[(*n)++] = l;
    p = *end ? end + 1 : end;
  }
  return IST_OK;
}

static size_t length(const char *text) {
  return text ? strlen(text) : 0;
}

static ist_status reserve(words *w, const ist_train_options *o, ist_error *err) {
  const size_t n = length(o->targets) + length(o->exclude) + length(o->layers_pattern) +
                   length(o->rank_pattern) + length(o->alpha_pattern) + 8;
  /* Every name is a letter and a comma at least, and at most as long as a path. */
  w->text = ist_calloc(n + n / 2 * 160, 1);
  w->names = ist_calloc(n, sizeof *w->names);
  w->patterns = ist_calloc(n, sizeof *w->patterns);
  w->layers = ist_calloc((size_t)w->m->L, sizeof *w->layers);
  if (w->text && w->names && w->patterns && w->layers) return IST_OK;
  return ist_fail_nomem(err, "names of modules", n * 160);
}

static ist_status read_words(words *w, const ist_train_options *o, ist_peft_config *c,
                             ist_error *err) {
  *c = (ist_peft_config){.r = o->rank, .alpha = o->alpha, .rslora = o->rslora};
  read_names(w, o->targets, &c->targets, &c->target_regex);
  read_names(w, o->exclude, &c->exclude, &c->exclude_regex);
  read_list(w, o->layers_pattern, &c->layers_pattern, false);
  IST_TRY(read_pattern(w, "rank_pattern", o->rank_pattern, true, &c->rank_pattern,
                       &c->n_rank_pattern, err));
  IST_TRY(read_pattern(w, "alpha_pattern", o->alpha_pattern, false, &c->alpha_pattern,
                       &c->n_alpha_pattern, err));
  return read_layers(w, o->layers_to_transform, &c->layers, &c->n_layers, err);
}

/* Backward stops at the embedding itself: families with a norm or a projection behind it would
 * need theirs. */
static ist_status check_embedding(const ist_adapter_config *a, const ist_train_options *o,
                                  const ist_model_config *m, ist_error *err) {
  if (!a->outer[IST_OUTER_EMBED].rank) return IST_OK;
  if (o->depth_budget > 0)
    return ist_fail(err, IST_ERR_ARG,
                    "depth_budget: found %g, but an adapter on the embedding needs all layers",
                    o->depth_budget);
  if (m->embed_norm || m->embed_dim)
    return ist_fail(err, IST_ERR_UNSUPPORTED,
                    "targets: found the embedding, behind which this family has a %s: it can have "
                    "no adapter in training",
                    m->embed_norm ? "norm" : "projection");
  return IST_OK;
}

/* ---- The method ------------------------------------------------------------------------- */

static const struct {
  const char *name;
  ist_act_kind kind;
} kinds[] = {{"relu", IST_ACT_RELU},
             {"tanh", IST_ACT_TANH},
             {"gelu", IST_ACT_GELU_ERF},
             {"silu", IST_ACT_SILU}};

const char *ist_activation_name(ist_act_kind kind) {
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
    if (kinds[i].kind == kind) return kinds[i].name;
  }
  return NULL;
}

int ist_activation_from_name(const char *name) {
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
    if (strcmp(kinds[i].name, name) == 0) return kinds[i].kind;
  }
  return -1;
}

ist_status ist_options_adapter(const ist_train_options *o, const ist_model_config *m,
                               ist_adapter_config *out, ist_error *err) {
  *out = (ist_adapter_config){
      .method = o->method,
      .rank = o->rank,
      .alpha = o->alpha,
      .dropout = o->dropout,
      .rslora = o->rslora,
      .gaussian = strcmp(o->init, "gaussian") == 0,
      .lora_bias = o->lora_bias,
      .paper_dora = strcmp(o->dora_suppress, "paper") == 0,
      .peft_dora = strcmp(o->dora_dropout, "peft") == 0,
      .act = (ist_act_kind)ist_activation_from_name(o->activation),
      .scaling = o->scaling,
      .learned_scaling = o->learned_scaling,
      .kv = m->K * m->E,
  };
  if (strcmp(o->method, "prefix") == 0) return IST_OK; /* in every layer, at no module */
  words w = {.m = m};
  ist_peft_config c;
  ist_status s = reserve(&w, o, err);
  const char **names = w.names;
  ist_peft_pattern *patterns = w.patterns;
  if (s == IST_OK) s = read_words(&w, o, &c, err);
  if (s == IST_OK) s = ist_targets_find(out, m, &c, true, err);
  if (s == IST_OK && (s = check_embedding(out, o, m, err)) != IST_OK) ist_targets_free(out);
  ist_free(w.text);
  ist_free((void *)(uintptr_t)names);
  ist_free(patterns);
  ist_free(w.layers);
  return s;
}

/* ---- The way back ------------------------------------------------------------------------ */

static void replace(const char **field, ist_buf *text) {
  ist_free((void *)(uintptr_t)*field);
  *field = text->p;
  *text = (ist_buf){0};
}

static void write_pattern(ist_buf *b, const ist_peft_pattern *p, int64_t n) {
  for (int64_t i = 0; i < n; i++) {
    char number[40];
    snprintf(number, sizeof number, "%.15g", p[i].value);
    if (strtod(number, NULL) != p[i].value) snprintf(number, sizeof number, "%.17g", p[i].value);
    ist_buf_printf(b, "%s%s=%s", i ? "," : "", p[i].key, number);
  }
}

ist_status ist_options_from_adapter(ist_train_options *o, const ist_adapters *ad,
                                    const ist_model_config *m, ist_error *err) {
  ist_target_words w;
  IST_TRY(ist_targets_describe(&w, m, ad, err));
  const ist_peft_config *c = &w.config;
  ist_buf targets = {0}, ranks = {0}, alphas = {0}, layers = {0}, method = {0}, act = {0},
          none = {0};
  ist_buf_printf(&method, "%s", ad->method->name);
  ist_buf_printf(&act, "%s", ist_activation_name(ad->config.act));
  for (int64_t i = 0; i < c->targets.n; i++)
    ist_buf_printf(&targets, "%s%s", i ? "," : "", c->targets.p[i]);
  write_pattern(&ranks, c->rank_pattern, c->n_rank_pattern);
  write_pattern(&alphas, c->alpha_pattern, c->n_alpha_pattern);
  for (int64_t i = 0; i < c->n_layers; i++)
    ist_buf_printf(&layers, "%s%lld", i ? "," : "", (long long)c->layers[i]);
  bool ok = !targets.failed && !ranks.failed && !alphas.failed && !layers.failed &&
            !method.failed && !act.failed;
  if (ok) {
    if (c->targets.n) replace(&o->targets, &targets);
    replace(&o->method, &method);
    replace(&o->activation, &act);
    replace(&o->rank_pattern, &ranks);
    replace(&o->alpha_pattern, &alphas);
    replace(&o->layers_to_transform, &layers);
    replace(&o->layers_pattern, &none);
    replace(&o->exclude, &none);
    o->rank = c->r;
    if (c->alpha > 0) o->alpha = c->alpha; /* prefixes have none */
    o->rslora = c->rslora;
    o->lora_bias = ad->config.lora_bias;
    o->learned_scaling = ad->config.learned_scaling;
    if (ad->config.scaling > 0) o->scaling = ad->config.scaling;
  }
  ist_buf_free(&targets);
  ist_buf_free(&ranks);
  ist_buf_free(&alphas);
  ist_buf_free(&layers);
  ist_buf_free(&method);
  ist_buf_free(&act);
  ist_target_words_free(&w);
  return ok ? IST_OK : ist_fail_nomem(err, "targets", 0);
}
