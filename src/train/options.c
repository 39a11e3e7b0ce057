#include "train/options.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "format/json.h"
#include "peft/peft.h"

static void set_defaults(ist_train_options *o) {
#define X(type, field, value, paper, resume) o->field = value;
#include "train/options.def"
}

void ist_train_options_init(ist_train_options *o) {
  memset(o, 0, sizeof *o);
  o->size = sizeof *o;
  set_defaults(o);
}

static void set_paper(ist_train_options *o) {
  const char *KEEP_STR = NULL;
  ist_train_options kept = *o;
#define X(type, field, value, paper, resume) o->field = paper;
#include "train/options.def"
  o->train_path = kept.train_path;
  o->valid_path = kept.valid_path;
}

ist_status ist_train_options_preset(ist_train_options *o, const char *preset, ist_error *err) {
  if (strcmp(preset, "paper") == 0) {
    set_paper(o);
  } else if (strcmp(preset, "default") == 0) {
    set_defaults(o);
  } else {
    return ist_fail(err, IST_ERR_ARG, "preset: found \"%s\", expected default or paper", preset);
  }
  return IST_OK;
}

/* ---- Checks ------------------------------------------------------------------- */

static ist_status one_of(const char *field, const char *value, const char *const *names, size_t n,
                         ist_error *err) {
  ist_buf list = {0};
  for (size_t i = 0; i < n; i++) {
    if (value && strcmp(value, names[i]) == 0) {
      ist_buf_free(&list);
      return IST_OK;
    }
    ist_buf_printf(&list, "%s%s", i ? ", " : "", names[i]);
  }
  ist_status status = ist_fail(err, IST_ERR_ARG, "%s: found \"%s\", expected one of: %s", field,
                               value ? value : "", list.p ? list.p : "");
  ist_buf_free(&list);
  return status;
}
#define ONE_OF(o, field, ...)                                    \
  one_of(#field, (o)->field, (const char *const[]){__VA_ARGS__}, \
         sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *), err)

typedef struct range {
  const char *field;
  double value, low, high;
  bool open_low;
} range;

static ist_status check_ranges(const ist_train_options *o, ist_error *err) {
  const range ranges[] = {
      {"max_tokens", (double)o->max_tokens, 2, 1 << 20, false},
      {"valid_examples", (double)o->valid_examples, -1, 1e12, false},
      {"probe_examples", (double)o->probe_examples, -1, 1e12, false},
      {"limit", (double)o->limit, 0, 1e15, false},
      {"rank", (double)o->rank, 1, 4096, false},
      {"alpha", o->alpha, 0, 1e6, true},
      {"dropout", o->dropout, 0, 0.99, false},
      {"scaling", o->scaling, 0, 1e6, true},
      {"lr_ratio", o->lr_ratio, 0, 1e6, true},
      {"burn_in", (double)o->burn_in, 0, 1e12, false},
      {"active_ratio", o->active_ratio, 0, 1, true},
      {"suppress_ratio", o->suppress_ratio, 0, 1, true},
      {"suppress_factor", o->suppress_factor, 0, 1, false},
      {"probe_every", (double)o->probe_every, 1, 1e9, false},
      {"probe_candidates", (double)o->probe_candidates, 2, IST_MAX_CANDIDATES, false},
      {"probe_batch", (double)o->probe_batch, 1, 1e6, false},
      {"redraw_every", (double)o->redraw_every, 1, 1e9, false},
      {"score_step", o->score_step, -1, 1e6, false},
      {"score_limit", o->score_limit, -1, 1e6, false},
      {"lr", o->lr, 0, 10, true},
      {"warmup_steps", (double)o->warmup_steps, -1, 1e12, false},
      {"beta1", o->beta1, 0, 0.999999, false},
      {"beta2", o->beta2, 0, 0.9999999, false},
      {"eps", o->eps, 0, 1, true},
      {"weight_decay", o->weight_decay, 0, 10, false},
      {"clip_norm", o->clip_norm, 0, 1e9, false},
      {"spike_z", o->spike_z, 0, 1e6, false},
      {"batch", (double)o->batch, 1, 1e6, false},
      {"epochs", o->epochs, 0, 1e6, true},
      {"steps", (double)o->steps, 0, 1e12, false},
      {"eval_every", (double)o->eval_every, -1, 1e12, false},
      {"save_every", (double)o->save_every, 0, 1e12, false},
      {"keep_checkpoints", (double)o->keep_checkpoints, 1, 1e6, false},
      {"patience", (double)o->patience, 0, 1e9, false},
      {"micro_tokens", (double)o->micro_tokens, 0, IST_MOST_MICRO_TOKENS, false},
      {"max_memory", (double)o->max_memory, 0, 1e16, false},
      {"depth_budget", o->depth_budget, 0, 0.95, false},
  };
  for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
    const range *r = &ranges[i];
    bool low_ok = r->open_low ? r->value > r->low : r->value >= r->low;
    if (low_ok && r->value <= r->high) continue; /* NaN fails both */
    return ist_fail(err, IST_ERR_ARG, "%s: found %g, expected %s %g and at most %g", r->field,
                    r->value, r->open_low ? "more than" : "at least", r->low, r->high);
  }
  return IST_OK;
}

static ist_status check(const ist_train_options *o, ist_error *err) {
  if (!o->train_path || !*o->train_path) {
    return ist_fail(err, IST_ERR_ARG, "train_path: found nothing, expected a data file");
  }
  if (o->resume && !o->output) {
    return ist_fail(err, IST_ERR_ARG, "resume: found no output directory to resume from");
  }
  if (!o->targets || !*o->targets)
    return ist_fail(err, IST_ERR_ARG, "targets: found nothing, expected names of modules");
  IST_TRY(ONE_OF(o, loss_on, "completion", "all", "last"));
  IST_TRY(ONE_OF(o, init, "default", "gaussian"));
  IST_TRY(ONE_OF(o, activation, "relu", "tanh", "gelu", "silu"));
  IST_TRY(ONE_OF(o, dora_suppress, "interpolate", "paper"));
  IST_TRY(ONE_OF(o, dora_dropout, "shared", "peft"));
  if (o->lora_bias && strcmp(o->method, "lora") != 0)
    return ist_fail(err, IST_ERR_ARG, "lora_bias: found method \"%s\", expected lora", o->method);
  IST_TRY(ONE_OF(o, scores, "frozen", "warm-start"));
  IST_TRY(ONE_OF(o, moments, "keep", "drop", "decay"));
  IST_TRY(ONE_OF(o, reward, "exp", "normalised"));
  IST_TRY(ONE_OF(o, lr_schedule, "linear", "cosine", "constant"));
  IST_TRY(ONE_OF(o, recompute, "auto", "none", "mlp", "layer"));
  IST_TRY(ONE_OF(o, order, "auto", "token", "layer"));
  if (ist_template_from_name(o->template_name) < 0) {
    return ist_fail(err, IST_ERR_ARG,
                    "template: found \"%s\", expected auto, model, chatml, alpaca, paper or none",
                    o->template_name);
  }
  return check_ranges(o, err);
}

/* ---- Copies ---------------------------------------------------------------------- */

/* Visits every owned string of the options. */
static bool own_string(const char **s) {
  if (!*s) return true;
  char *copy = ist_strdup(*s);
  *s = copy;
  return copy != NULL;
}

#define IF_STR_STR(stmt) stmt
#define IF_STR_I64(stmt)
#define IF_STR_U64(stmt)
#define IF_STR_F64(stmt)
#define IF_STR_BOOL(stmt)

ist_status ist_options_copy(ist_train_options *out, const ist_train_options *in, ist_error *err) {
  ist_train_options_init(out);
  size_t size = in->size && in->size < sizeof *out ? in->size : sizeof *out;
  memcpy(out, in, size);
  out->size = sizeof *out;
  bool ok = true;
#define X(type, field, value, paper, resume) IF_STR_##type(ok &= own_string(&out->field);)
#include "train/options.def"
  ok &= own_string(&out->output);
  ist_status status = ok ? check(out, err) : ist_fail_nomem(err, "options", sizeof *out);
  if (status != IST_OK) ist_options_free(out);
  return status;
}

void ist_options_free(ist_train_options *o) {
#define X(type, field, value, paper, resume) \
  IF_STR_##type(ist_free((void *)(uintptr_t)o->field); o->field = NULL;)
#include "train/options.def"
  ist_free((void *)(uintptr_t)o->output);
  o->output = NULL;
}

/* ---- JSON -------------------------------------------------------------------------- */

static json_t *json_STR(const char *v) {
  return v ? ist_json_path(v) : json_null();
}
static json_t *json_I64(int64_t v) {
  return json_integer(v);
}
static json_t *json_U64(uint64_t v) {
  return json_integer((json_int_t)v);
}
static json_t *json_F64(double v) {
  return json_real(v);
}
static json_t *json_BOOL(bool v) {
  return json_boolean(v);
}

json_t *ist_options_to_json(const ist_train_options *o) {
  json_t *root = json_object();
  if (!root) return NULL;
  int failed = 0;
#define X(type, field, value, paper, resume) \
  failed |= json_object_set_new(root, #field, json_##type(o->field));
#include "train/options.def"
  if (failed) {
    json_decref(root);
    return NULL;
  }
  return root;
}

static bool same_json(const json_t *a, const json_t *b) {
  if (json_is_number(a) && json_is_number(b)) return json_number_value(a) == json_number_value(b);
  return json_equal(a, b);
}

static ist_status refuse_change(const char *field, const json_t *now, const json_t *then,
                                ist_error *err) {
  char *a = json_dumps(now, JSON_ENCODE_ANY), *b = json_dumps(then, JSON_ENCODE_ANY);
  ist_status status = ist_fail(err, IST_ERR_MISMATCH,
                               "%s: found %s, but the run to resume has %s, and it must stay",
                               field, a ? a : "?", b ? b : "?");
  free(a);
  free(b);
  return status;
}

enum { SAME, FREE };

ist_status ist_options_check_resume(const ist_train_options *o, const json_t *saved,
                                    ist_error *err) {
  json_t *now = ist_options_to_json(o);
  if (!now) return ist_fail_nomem(err, "options", sizeof *o);
  ist_status status = IST_OK;
#define X(type, field, value, paper, resume)                                             \
  if (status == IST_OK && (resume) == SAME) {                                            \
    const json_t *a = json_object_get(now, #field), *b = json_object_get(saved, #field); \
    if (b && !same_json(a, b)) status = refuse_change(#field, a, b, err);                \
  }
#include "train/options.def"
  json_decref(now);
  return status;
}

/* ---- Selector ------------------------------------------------------------------------ */

/* "0,3,7" -> list. */
static ist_status parse_layers(const char *text, int32_t **out, int64_t *n, ist_error *err) {
  size_t len = strlen(text);
  int32_t *list = ist_calloc(len + 1, sizeof *list);
  if (!list) return ist_fail_nomem(err, "layer list", len * sizeof *list);
  *n = 0;
  for (const char *p = text;;) {
    char *end;
    long layer = strtol(p, &end, 10);
    if (end == p || layer < 0 || layer > 65535 || (*end != ',' && *end != '\0')) {
      ist_free(list);
      return ist_fail(err, IST_ERR_ARG,
                      "selector: found \"fixed:%s\", expected layer numbers separated by commas",
                      text);
    }
    list[(*n)++] = (int32_t)layer;
    if (*end == '\0') break;
    p = end + 1;
  }
  *out = list;
  return IST_OK;
}

static bool is_scores(const ist_train_options *o) {
  return strncmp(o->selector, "scores:", 7) == 0;
}

bool ist_options_probes(const ist_train_options *o) {
  return strcmp(o->selector, "ist") == 0 || (is_scores(o) && strcmp(o->scores, "warm-start") == 0);
}

/* {"layers": [{"layer": 0, "suppressibility": 0.3, ...}, ...]} -> by layer of the model. */
static ist_status read_scores(const json_t *root, const char *path, int64_t L, double *by_layer,
                              ist_error *err) {
  const json_t *layers = json_object_get(root, "layers");
  for (int64_t l = 0; l < L; l++) by_layer[l] = NAN;
  for (size_t i = 0; i < json_array_size(layers); i++) {
    const json_t *one = json_array_get(layers, i);
    const json_t *layer = json_object_get(one, "layer"), *score;
    score = json_object_get(one, "suppressibility");
    if (!json_is_integer(layer) || !json_is_number(score))
      return ist_fail(err, IST_ERR_FORMAT,
                      "%s: layers[%zu]: found no layer and suppressibility, expected the "
                      "importance.json of a run",
                      path, i);
    int64_t l = json_integer_value(layer);
    if (l < 0 || l >= L)
      return ist_fail(err, IST_ERR_MISMATCH, "%s: found layer %lld, the model has %lld", path,
                      (long long)l, (long long)L);
    by_layer[l] = json_number_value(score);
  }
  return IST_OK;
}

ist_status ist_options_scores(const ist_train_options *o, int64_t L, const int32_t *layer_of,
                              int64_t n, double **out, ist_error *err) {
  *out = NULL;
  if (!is_scores(o)) return IST_OK;
  const char *path = o->selector + 7;
  ist_buf text = {0};
  json_t *root = NULL;
  double *by_layer = ist_calloc((size_t)L, sizeof *by_layer);
  ist_status s = by_layer ? ist_file_read_any(&text, path, (size_t)16 << 20, err)
                          : ist_fail_nomem(err, path, (size_t)L * sizeof *by_layer);
  if (s == IST_OK && (s = ist_json_parse(&root, text.p, text.len, err)) != IST_OK)
    ist_error_context(err, "%s", path);
  if (s == IST_OK) s = read_scores(root, path, L, by_layer, err);
  for (int64_t i = 0; s == IST_OK && i < n; i++) { /* layer_of rises: in place */
    int64_t l = layer_of ? layer_of[i] : i;
    by_layer[i] = by_layer[l];
    if (isnan(by_layer[i]))
      s = ist_fail(err, IST_ERR_MISMATCH, "%s: found no score of layer %lld", path, (long long)l);
  }
  json_decref(root);
  ist_buf_free(&text);
  if (s == IST_OK)
    *out = by_layer;
  else
    ist_free(by_layer);
  return s;
}

ist_status ist_options_selector(const ist_train_options *o, ist_select_options *out,
                                int32_t **fixed, ist_error *err) {
  *fixed = NULL;
  ist_select_options_init(out);
  if (strncmp(o->selector, "fixed:", 6) == 0) {
    out->kind = IST_SELECT_FIXED;
    IST_TRY(parse_layers(o->selector + 6, fixed, &out->n_fixed, err));
    out->fixed = *fixed;
  } else if (is_scores(o)) {
    out->kind = ist_options_probes(o) ? IST_SELECT_IST : IST_SELECT_SCORES;
  } else {
    int kind = ist_selector_kind_from_name(o->selector);
    if (kind < 0 || kind == IST_SELECT_FIXED || kind == IST_SELECT_SCORES) {
      return ist_fail(
          err, IST_ERR_ARG,
          "selector: found \"%s\", expected ist, random, all, fixed:LIST or scores:FILE",
          o->selector);
    }
    out->kind = (ist_selector_kind)kind;
  }
  out->seed = o->seed;
  out->active_ratio = o->active_ratio;
  out->suppress_ratio = o->suppress_ratio;
  out->factor = o->suppress_factor;
  out->interval = o->probe_every;
  out->candidates = o->probe_candidates;
  out->reward = strcmp(o->reward, "exp") == 0 ? IST_REWARD_EXP : IST_REWARD_NORMALISED;
  out->step_size = o->score_step;
  out->score_limit = o->score_limit;
  out->redraw_every = o->redraw_every;
  out->burn_in = out->kind == IST_SELECT_SCORES ? 0 : o->burn_in;
  return IST_OK;
}

int64_t ist_options_active(const ist_select_options *o, int64_t L) {
  if (o->kind == IST_SELECT_ALL) return L;
  int64_t n = o->kind == IST_SELECT_FIXED ? o->n_fixed : (int64_t)((double)L * o->active_ratio);
  return n < 1 ? 1 : n > L ? L : n;
}

int64_t ist_depth_floor(const ist_train_options *o, int64_t L) {
  return o->depth_budget > 0 ? (int64_t)(o->depth_budget * (double)L) : 0;
}

/* The expectation, rounded up, when `active` of L are drawn evenly in each step. */
static int64_t touched_layers(int64_t L, int64_t active, int64_t steps) {
  if (steps <= 0) return L;
  double left = pow(1.0 - (double)active / (double)L, (double)steps);
  int64_t touched = (int64_t)ceil((double)L * (1.0 - left) - 1e-9);
  return touched < active ? active : touched;
}

int64_t ist_moment_layers(const ist_train_options *o, int64_t L, int64_t active, int64_t steps) {
  if (strncmp(o->selector, "fixed", 5) == 0) return active;
  int64_t draws = o->redraw_every > 1 && strcmp(o->selector, "random") == 0
                      ? (steps + o->redraw_every - 1) / o->redraw_every
                      : steps;
  return touched_layers(L, active, draws);
}
