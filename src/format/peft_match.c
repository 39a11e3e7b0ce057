/* PEFT's matching: tuners_utils.check_target_module_exists and get_pattern_key,
 * as their behaviour is documented. Python's expressions and PCRE's agree in what
 * module paths need. */
#include "format/peft_match.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <math.h>
#include <pcre2.h>
#include <strings.h>

/* What a match of one among many patterns may take in any case (those of real adapters take some
 * hundred steps and no memory) and at most; and what all of them may take beyond the first, of a
 * path and of all paths together. */
#define USUAL_STEPS    500u
#define MATCH_STEPS    128000u
#define PATH_STEPS     4000000u
#define ALL_STEPS      400000000u
#define MATCH_HEAP_KIB 65536u
/* Of all expressions, compiled: 65,536 whole paths take 17 MiB, as many repeated groups 4 GiB. */
#define MOST_COMPILED ((size_t)64 << 20)
/* Expressions of a kind; an adapter has one a module at most, of mixtures some ten thousand. */
#define MOST_PATTERNS 32768

struct ist_peft_rules {
  const ist_peft_config *config;
  size_t compiled; /* bytes */
  pcre2_match_context *limits;
  uint32_t path_steps, all_steps; /* what is left of PATH_STEPS and ALL_STEPS */
  pcre2_match_data *match;        /* with room for the groups of every `layer` */
  pcre2_code *target, *exclude;   /* NULL: a list, or nothing */
  bool all_linear;
  pcre2_code **rank, **alpha, **layer; /* one an entry */
  int64_t n_layer;
  ist_error failed; /* the first match that gave up; those after it find nothing */
  /* A flag for every entry that some path matched. */
  uint8_t *used_targets, *used_exclude, *used_rank, *used_alpha;
};

/* ---- Expressions ---- */

static pcre2_code *compile_one(const char *text, size_t len, int *code) {
  PCRE2_SIZE at = 0;
  return pcre2_compile((PCRE2_SPTR)text, len, PCRE2_UTF | PCRE2_ANCHORED, code, &at, NULL);
}

static ist_status add_compiled(ist_peft_rules *r, const char *key, const pcre2_code *code,
                               ist_error *err) {
  size_t bytes = 0;
  pcre2_pattern_info(code, PCRE2_INFO_SIZE, &bytes);
  r->compiled += bytes;
  if (r->compiled <= MOST_COMPILED) return IST_OK;
  return ist_fail(err, IST_ERR_UNSUPPORTED,
                  "%s: the expressions would take more than %zu MiB of memory", key,
                  MOST_COMPILED >> 20);
}

/* Compiles prefix + text + suffix, which must match from the start of a path. The text must be an
 * expression by itself: "a)(b" would mean something else between our parentheses. */
static ist_status compile(ist_peft_rules *r, pcre2_code **out, const char *key, const char *prefix,
                          const char *text, const char *suffix, ist_error *err) {
  ist_buf b = {0};
  ist_buf_printf(&b, "%s%s%s", prefix, text, suffix);
  if (b.failed) return ist_fail_nomem(err, key, strlen(text));
  int code = 0;
  pcre2_code *alone = compile_one(text, strlen(text), &code);
  *out = alone ? compile_one(b.p, b.len, &code) : NULL;
  pcre2_code_free(alone);
  ist_buf_free(&b);
  if (*out) return add_compiled(r, key, *out, err);
  char why[120] = "";
  pcre2_get_error_message(code, (PCRE2_UCHAR *)why, sizeof why);
  return ist_fail(err, IST_ERR_FORMAT, "%s: found \"%.80s\", which is no regular expression: %s",
                  key, text, why);
}

static uint32_t groups_of(const pcre2_code *code) {
  uint32_t n = 0;
  pcre2_pattern_info(code, PCRE2_INFO_CAPTURECOUNT, &n);
  return n;
}

static int match_within(ist_peft_rules *r, const pcre2_code *code, const char *path,
                        uint32_t steps) {
  pcre2_set_match_limit(r->limits, steps);
  return pcre2_match(code, (PCRE2_SPTR)path, strlen(path), 0, 0, r->match, r->limits);
}

/* Steps are not told, so that what is taken of the budget is what was allowed. */
static int match_one_of_many(ist_peft_rules *r, const pcre2_code *code, const char *path) {
  int rc = match_within(r, code, path, USUAL_STEPS);
  for (uint32_t steps = 4 * USUAL_STEPS; rc == PCRE2_ERROR_MATCHLIMIT && steps <= MATCH_STEPS &&
                                         steps <= r->path_steps && steps <= r->all_steps;
       steps *= 4) {
    r->path_steps -= steps;
    r->all_steps -= steps;
    rc = match_within(r, code, path, steps);
  }
  return rc;
}

/* `key` is the config's, for the error; alone: an expression that is the only one of its key. */
static bool matches(ist_peft_rules *r, const char *key, const pcre2_code *code, const char *path,
                    bool alone) {
  if (r->failed.code != IST_OK) return false;
  int rc = alone ? match_within(r, code, path, MATCH_STEPS) : match_one_of_many(r, code, path);
  if (rc >= 0) return true; /* 0: more groups than anybody asks for */
  if (rc == PCRE2_ERROR_NOMATCH) return false;
  char why[120] = "";
  pcre2_get_error_message(rc, (PCRE2_UCHAR *)why, sizeof why);
  ist_fail(&r->failed, IST_ERR_FORMAT, "%s: an expression gave up at \"%s\": %s", key, path, why);
  return false;
}

ist_status ist_peft_rules_check(const ist_peft_rules *r, ist_error *err) {
  if (r->failed.code != IST_OK && err) *err = r->failed;
  return r->failed.code;
}

/* A whole path, as re.fullmatch. */
static ist_status compile_whole(ist_peft_rules *r, pcre2_code **out, const char *key,
                                const char *text, ist_error *err) {
  return compile(r, out, key, "(?:", text, ")\\z", err);
}

static ist_status check_number(const char *key, int64_t n, ist_error *err) {
  if (n <= MOST_PATTERNS) return IST_OK;
  return ist_fail(err, IST_ERR_UNSUPPORTED, "%s: found %lld expressions, expected at most %d", key,
                  (long long)n, MOST_PATTERNS);
}

static ist_status compile_pattern(ist_peft_rules *r, pcre2_code ***out, const char *key,
                                  const ist_peft_pattern *p, int64_t n, ist_error *err) {
  IST_TRY(check_number(key, n, err));
  *out = ist_calloc((size_t)n, sizeof **out);
  if (!*out) return ist_fail_nomem(err, key, (size_t)n * sizeof **out);
  for (int64_t i = 0; i < n; i++)
    IST_TRY(compile(r, &(*out)[i], key, "(?:.*\\.)?(?:", p[i].key, ")$", err));
  return IST_OK;
}

/* What finds the number of a path's layer: the first numbered segment that has
 * two segments before it, or one of layers_pattern. */
static ist_status compile_layers(ist_peft_rules *r, ist_error *err) {
  static const char key[] = "layers_pattern";
  const ist_peft_names *names = &r->config->layers_pattern;
  IST_TRY(check_number(key, names->n, err));
  r->n_layer = names->n ? names->n : 1;
  r->layer = ist_calloc((size_t)r->n_layer, sizeof *r->layer);
  if (!r->layer) return ist_fail_nomem(err, key, (size_t)r->n_layer * sizeof *r->layer);
  if (!names->n) return compile(r, r->layer, key, ".*?\\.[^.]*", "", "\\.(\\d+)\\.", err);
  for (int64_t i = 0; i < names->n; i++)
    IST_TRY(compile(r, &r->layer[i], key, "(?:|.*?\\.)(?:", names->p[i], ")\\.(\\d+)\\.", err));
  return IST_OK;
}

static ist_status reserve_flags(ist_peft_rules *r, ist_error *err) {
  const ist_peft_config *c = r->config;
  r->used_targets = ist_calloc((size_t)c->targets.n + 1, 1);
  r->used_exclude = ist_calloc((size_t)c->exclude.n + 1, 1);
  r->used_rank = ist_calloc((size_t)c->n_rank_pattern + 1, 1);
  r->used_alpha = ist_calloc((size_t)c->n_alpha_pattern + 1, 1);
  if (r->used_targets && r->used_exclude && r->used_rank && r->used_alpha) return IST_OK;
  return ist_fail_nomem(err, "rules of an adapter", (size_t)c->targets.n);
}

static ist_status reserve_match(ist_peft_rules *r, ist_error *err) {
  uint32_t groups = 0;
  for (int64_t i = 0; i < r->n_layer; i++)
    if (groups_of(r->layer[i]) > groups) groups = groups_of(r->layer[i]);
  r->match = pcre2_match_data_create(groups + 1, NULL);
  r->limits = pcre2_match_context_create(NULL);
  if (!r->match || !r->limits) return ist_fail_nomem(err, "expressions", groups);
  r->all_steps = ALL_STEPS;
  pcre2_set_heap_limit(r->limits, MATCH_HEAP_KIB);
  return IST_OK;
}

static ist_status compile_all(ist_peft_rules *r, ist_error *err) {
  const ist_peft_config *c = r->config;
  IST_TRY(reserve_flags(r, err));
  r->all_linear = c->target_regex && strcasecmp(c->target_regex, "all-linear") == 0;
  if (c->target_regex && !r->all_linear)
    IST_TRY(compile_whole(r, &r->target, "target_modules", c->target_regex, err));
  if (c->exclude_regex)
    IST_TRY(compile_whole(r, &r->exclude, "exclude_modules", c->exclude_regex, err));
  IST_TRY(compile_pattern(r, &r->rank, "rank_pattern", c->rank_pattern, c->n_rank_pattern, err));
  IST_TRY(
      compile_pattern(r, &r->alpha, "alpha_pattern", c->alpha_pattern, c->n_alpha_pattern, err));
  if (c->n_layers && c->target_regex)
    return ist_fail(err, IST_ERR_FORMAT,
                    "layers_to_transform needs target_modules as a list, found a string");
  IST_TRY(compile_layers(r, err));
  return reserve_match(r, err);
}

ist_status ist_peft_rules_new(ist_peft_rules **out, const ist_peft_config *c, ist_error *err) {
  *out = NULL;
  ist_peft_rules *r = ist_calloc(1, sizeof *r);
  if (!r) return ist_fail_nomem(err, "rules of an adapter", sizeof *r);
  r->config = c;
  ist_status s = compile_all(r, err);
  if (s == IST_OK)
    *out = r;
  else
    ist_peft_rules_free(r);
  return s;
}

static void free_codes(pcre2_code **p, int64_t n) {
  for (int64_t i = 0; p && i < n; i++) pcre2_code_free(p[i]);
  ist_free(p);
}

void ist_peft_rules_free(ist_peft_rules *r) {
  if (!r) return;
  pcre2_code_free(r->target);
  pcre2_code_free(r->exclude);
  free_codes(r->rank, r->config->n_rank_pattern);
  free_codes(r->alpha, r->config->n_alpha_pattern);
  free_codes(r->layer, r->n_layer);
  pcre2_match_data_free(r->match);
  pcre2_match_context_free(r->limits);
  ist_free(r->used_targets);
  ist_free(r->used_exclude);
  ist_free(r->used_rank);
  ist_free(r->used_alpha);
  ist_free(r);
}

/* ---- Matching ---- */

/* How a list matches a path: not; by the end of it; as a whole. */
typedef enum list_match { NO_MATCH, BY_END, BY_NAME } list_match;

static list_match match_list(ist_peft_names names, const char *path, uint8_t *used) {
  size_t len = strlen(path);
  list_match best = NO_MATCH;
  for (int64_t i = 0; i < names.n; i++) {
    size_t n = strlen(names.p[i]);
    if (n > len || strcmp(path + len - n, names.p[i]) != 0) continue;
    if (n < len && path[len - n - 1] != '.') continue;
    list_match this = n == len ? BY_NAME : BY_END;
    if (this > best) best = this;
    if (used) used[i] = 1;
  }
  return best;
}

/* The number of the path's layer, -1 where it has none. */
static int64_t layer_of(ist_peft_rules *r, const char *path) {
  for (int64_t i = 0; i < r->n_layer; i++) {
    if (!matches(r, "layers_pattern", r->layer[i], path, false)) continue;
    /* The number is the last group: an expression may bring groups of its own. One that ends the
     * match before it, as (*ACCEPT) does, leaves it without a place. */
    const PCRE2_SIZE *at = pcre2_get_ovector_pointer(r->match) + 2 * groups_of(r->layer[i]);
    if (at[0] == PCRE2_UNSET) return -1;
    int64_t n = 0;
    for (PCRE2_SIZE p = at[0]; p < at[1] && n < INT32_MAX; p++) n = 10 * n + (path[p] - '0');
    return n;
  }
  return -1;
}

static bool is_chosen_layer(ist_peft_rules *r, const char *path) {
  if (!r->config->n_layers) return true;
  int64_t layer = layer_of(r, path);
  for (int64_t i = 0; i < r->config->n_layers; i++)
    if (layer >= 0 && r->config->layers[i] == layer) return true;
  return false;
}

static bool is_excluded(ist_peft_rules *r, const char *path) {
  if (!r->exclude) return match_list(r->config->exclude, path, r->used_exclude) != NO_MATCH;
  bool hit = matches(r, "exclude_modules", r->exclude, path, true);
  r->used_exclude[0] |= hit;
  return hit;
}

static bool is_target(ist_peft_rules *r, const char *path, ist_peft_kind kind) {
  list_match by_list = match_list(r->config->targets, path, r->used_targets);
  bool hit = r->all_linear ? kind == IST_PEFT_LINEAR
             : r->target   ? matches(r, "target_modules", r->target, path, true)
                           : by_list == BY_NAME /* in any layer */ ||
                               (by_list == BY_END && is_chosen_layer(r, path));
  if (r->config->target_regex) r->used_targets[0] |= hit;
  return hit && !is_excluded(r, path);
}

/* The value of the first pattern that matches, else `otherwise`. */
static double value_of(ist_peft_rules *r, const char *key, pcre2_code *const *codes,
                       const ist_peft_pattern *p, int64_t n, const char *path, double otherwise,
                       uint8_t *used) {
  double value = otherwise;
  for (int64_t i = n - 1; i >= 0; i--) {
    if (!matches(r, key, codes[i], path, false)) continue;
    value = p[i].value;
    if (used) used[i] = 1;
  }
  return value;
}

ist_peft_module ist_peft_rules_find(ist_peft_rules *r, const char *path, ist_peft_kind kind) {
  const ist_peft_config *c = r->config;
  ist_peft_module m = {0};
  r->path_steps = PATH_STEPS;
  m.saved = match_list(c->modules_to_save, path, NULL) != NO_MATCH;
  m.target = !m.saved && is_target(r, path, kind);
  m.r = (int64_t)value_of(r, "rank_pattern", r->rank, c->rank_pattern, c->n_rank_pattern, path,
                          (double)c->r, m.target ? r->used_rank : NULL);
  m.alpha = value_of(r, "alpha_pattern", r->alpha, c->alpha_pattern, c->n_alpha_pattern, path,
                     c->alpha, m.target ? r->used_alpha : NULL);
  m.scale = m.alpha / (c->rslora ? sqrt((double)m.r) : (double)m.r);
  return m;
}

static const char *first_unused(const uint8_t *used, ist_peft_names names, const char *regex) {
  if (regex) return used[0] ? NULL : regex;
  for (int64_t i = 0; i < names.n; i++)
    if (!used[i]) return names.p[i];
  return NULL;
}

static const char *first_unused_pattern(const uint8_t *used, const ist_peft_pattern *p, int64_t n) {
  for (int64_t i = 0; i < n; i++)
    if (!used[i]) return p[i].key;
  return NULL;
}

const char *ist_peft_rules_unused(const ist_peft_rules *r, const char **text) {
  const ist_peft_config *c = r->config;
  if ((*text = first_unused(r->used_targets, c->targets, c->target_regex))) return "target_modules";
  if ((*text = first_unused(r->used_exclude, c->exclude, c->exclude_regex)))
    return "exclude_modules";
  if ((*text = first_unused_pattern(r->used_rank, c->rank_pattern, c->n_rank_pattern)))
    return "rank_pattern";
  if ((*text = first_unused_pattern(r->used_alpha, c->alpha_pattern, c->n_alpha_pattern)))
    return "alpha_pattern";
  return NULL;
}
