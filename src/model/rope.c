/* Rotary angles from a file's settings: plain, linear, dynamic, llama3, yarn and
 * longrope scaling, as transformers (modeling_rope_utils) and ggml define them. */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "model/config.h"

typedef enum scaling { NONE, LINEAR, DYNAMIC, LLAMA3, YARN, LONGROPE } scaling;
static const struct {
  const char *name;
  scaling kind;
} scalings[] = {
    {"", NONE},         {"none", NONE},         {"default", NONE},
    {"linear", LINEAR}, {"dynamic", DYNAMIC},   {"llama3", LLAMA3},
    {"yarn", YARN},     {"longrope", LONGROPE}, {"su", LONGROPE},
};

/* What a file says. */
typedef struct settings {
  scaling kind;
  int64_t dim;
  double theta, factor, original, context;
  double low, high;                                    /* llama3 */
  double beta_fast, beta_slow, mscale, mscale_all_dim; /* yarn */
  bool truncate;
  double attention; /* multiplies cos and sin; 0: by the kind's own rule */
} settings;

static ist_status fail_kind(const char *found, ist_error *err) {
  return ist_fail(err, IST_ERR_UNSUPPORTED,
                  "rope scaling: found \"%s\", supported: linear, dynamic, llama3, yarn, longrope",
                  found);
}

static ist_status kind_from_name(scaling *out, const char *name, ist_error *err) {
  for (size_t i = 0; i < sizeof scalings / sizeof *scalings; i++) {
    if (strcmp(scalings[i].name, name) == 0) {
      *out = scalings[i].kind;
      return IST_OK;
    }
  }
  return fail_kind(name, err);
}

/* ---- Frequencies ------------------------------------------------------------------- */

static double base_freq(const settings *o, double theta, int64_t j) {
  return pow(theta, -2.0 * (double)j / (double)o->dim);
}

static double llama3_freq(const settings *o, double f) {
  double length = 2.0 * M_PI / f;
  if (length < o->original / o->high) return f;
  if (length > o->original / o->low) return f / o->factor;
  double u = (o->original / length - o->low) / (o->high - o->low);
  return f * ((1.0 - u) / o->factor + u);
}

/* The dimension whose angle turns `rotations` times over the original context. */
static double yarn_dim(const settings *o, double rotations) {
  return (double)o->dim * log(o->original / (rotations * 2.0 * M_PI)) / (2.0 * log(o->theta));
}

static double yarn_freq(const settings *o, double f, int64_t j) {
  double low = yarn_dim(o, o->beta_fast), high = yarn_dim(o, o->beta_slow);
  if (o->truncate) {
    low = floor(low);
    high = ceil(high);
  }
  low = fmax(low, 0.0);
  high = fmin(high, (double)o->dim - 1.0);
  double t = ((double)j - low) / fmax(high - low, 0.001);
  t = t < 0.0 ? 0.0 : t > 1.0 ? 1.0 : t;
  return f * (1.0 - t) + f / o->factor * t;
}

static double yarn_attention(double mscale, double factor) {
  return factor > 1.0 ? 1.0 + 0.1 * mscale * log(factor) : 1.0;
}

static double attention_factor(const settings *o) {
  if (o->attention > 0) return o->attention;
  if (o->kind == YARN) {
    if (o->mscale > 0 && o->mscale_all_dim > 0)
      return yarn_attention(o->mscale, o->factor) / yarn_attention(o->mscale_all_dim, o->factor);
    return yarn_attention(1.0, o->factor);
  }
  if (o->kind == LONGROPE && o->factor > 1.0) return sqrt(1.0 + log(o->factor) / log(o->original));
  return 1.0;
}

static ist_status alloc_freq(float **out, int64_t half, ist_error *err) {
  *out = ist_calloc((size_t)half + 1, sizeof **out);
  return *out ? IST_OK : ist_fail_nomem(err, "rotary angles", (size_t)half * sizeof **out);
}

/* Real models turn by 1 radian a position at most, a few where they are stretched by less than 1.
 * Below this the angle of any position keeps its digits in double and fits 64 bits. */
#define MAX_FREQ      1e4
#define MAX_ATTENTION 1e4 /* what multiplies cos and sin: 1.2 or so */

static ist_status set_freq(float *freq, int64_t j, double f, const settings *o, ist_error *err) {
  if (!(f >= 0 && f <= MAX_FREQ))
    return ist_fail(err, IST_ERR_FORMAT,
                    "rope: base %g and factor %g turn pair %lld by %g a position, expected at most "
                    "%g",
                    o->theta, o->factor, (long long)j, f, MAX_FREQ);
  freq[j] = (float)f;
  return IST_OK;
}

static ist_status set_attention(ist_rope *r, double factor, ist_error *err) {
  if (!(factor > 0 && factor <= MAX_ATTENTION))
    return ist_fail(err, IST_ERR_FORMAT,
                    "rope: attention factor: found %g, expected more than 0 and at most %g", factor,
                    MAX_ATTENTION);
  r->mscale = factor;
  return IST_OK;
}

static ist_status make(ist_rope *r, const settings *o, ist_error *err) {
  if (!(o->theta > 0) || !(o->factor > 0) || !isfinite(o->theta) || !isfinite(o->factor))
    return ist_fail(err, IST_ERR_FORMAT,
                    "rope: found base %g and factor %g, expected numbers above 0", o->theta,
                    o->factor);
  bool ranged = o->kind == LLAMA3 || o->kind == YARN || o->kind == LONGROPE;
  if (ranged && !(o->original > 1))
    return ist_fail(err, IST_ERR_FORMAT,
                    "rope: original_max_position_embeddings: found %g, expected more than 1",
                    o->original);
  if (!(o->original >= 0 && o->original < 1e15) || !(o->context >= 0 && o->context < 1e15))
    return ist_fail(err, IST_ERR_FORMAT,
                    "rope: found %g original and %g positions, expected at most 1e15", o->original,
                    o->context);
  if (o->kind == LLAMA3 && !(o->high > o->low && o->low > 0))
    return ist_fail(err, IST_ERR_FORMAT,
                    "rope: low_freq_factor %g, high_freq_factor %g: expected a growing pair",
                    o->low, o->high);
  IST_TRY(alloc_freq(&r->freq, o->dim / 2, err));
  for (int64_t j = 0; j < o->dim / 2; j++) {
    double f = base_freq(o, o->theta, j);
    if (o->kind == LINEAR) f /= o->factor;
    if (o->kind == LLAMA3) f = llama3_freq(o, f);
    if (o->kind == YARN) f = yarn_freq(o, f, j);
    IST_TRY(set_freq(r->freq, j, f, o, err));
  }
  r->theta = o->theta;
  IST_TRY(set_attention(r, attention_factor(o), err));
  r->original = (int64_t)o->original;
  if (o->kind == DYNAMIC) {
    r->dynamic = o->factor;
    r->original = (int64_t)o->context;
  }
  return IST_OK;
}

ist_status ist_rope_plain(ist_rope *r, int64_t dim, double theta, ist_error *err) {
  const settings o = {.dim = dim, .theta = theta, .factor = 1.0};
  return make(r, &o, err);
}

/* Divides the frequencies; values count `half`. */
static ist_status divide(float *freq, const float *by, int64_t half, const char *name,
                         ist_error *err) {
  for (int64_t j = 0; j < half; j++) {
    if (!(by[j] > 0) || !isfinite(by[j]))
      return ist_fail(err, IST_ERR_FORMAT, "%s[%lld]: found %g, expected a number above 0", name,
                      (long long)j, (double)by[j]);
    double f = (double)freq[j] / (double)by[j];
    if (!(f <= MAX_FREQ))
      return ist_fail(err, IST_ERR_FORMAT,
                      "%s[%lld]: found %g, which turns by %g a position, expected at most %g", name,
                      (long long)j, (double)by[j], f, MAX_FREQ);
    freq[j] = (float)f;
  }
  return IST_OK;
}

/* Splits into a short and a long table. */
static ist_status make_long(ist_rope *r, const float *short_by, const float *long_by, int64_t half,
                            ist_error *err) {
  IST_TRY(alloc_freq(&r->freq_long, half, err));
  memcpy(r->freq_long, r->freq, (size_t)half * sizeof *r->freq);
  IST_TRY(divide(r->freq, short_by, half, "short_factor", err));
  return divide(r->freq_long, long_by, half, "long_factor", err);
}

/* ---- GGUF --------------------------------------------------------------------------- */

/* A tensor of `half` F32 factors, copied for its alignment; *out NULL: absent. */
static ist_status factors(float **out, const ist_source *s, const char *name, int64_t half,
                          ist_error *err) {
  *out = NULL;
  const ist_gguf_tensor *t = ist_source_find(s, name);
  if (!t) return IST_OK;
  if (t->type != IST_F32 || t->ne[0] != half || t->ne[1] != 1)
    return ist_fail(err, IST_ERR_FORMAT, "%s: found %lld values of %s, expected %lld of F32", name,
                    (long long)t->ne[0], ist_dtype_get(t->type)->name, (long long)half);
  IST_TRY(alloc_freq(out, half, err));
  memcpy(*out, t->data, (size_t)half * sizeof **out);
  return IST_OK;
}

static ist_status apply_factors(ist_rope *r, const ist_source *s, int64_t half, ist_error *err) {
  float *all = NULL, *near = NULL, *far = NULL;
  ist_status status = factors(&all, s, "rope_freqs.weight", half, err);
  if (status == IST_OK) status = factors(&near, s, "rope_factors_short.weight", half, err);
  if (status == IST_OK) status = factors(&far, s, "rope_factors_long.weight", half, err);
  if (status == IST_OK && all) status = divide(r->freq, all, half, "rope_freqs.weight", err);
  if (status == IST_OK && near && far) status = make_long(r, near, far, half, err);
  ist_free(all);
  ist_free(near);
  ist_free(far);
  return status;
}

static ist_status read_gguf(ist_rope *r, const ist_model_config *c, const ist_source *s,
                            double theta, ist_error *err) {
  settings o = {.dim = c->rope_dim,
                .theta = theta,
                .factor = 1.0,
                .original = (double)c->context,
                .context = (double)c->context,
                .beta_fast = 32,
                .beta_slow = 1,
                .truncate = true};
  char type[32]; /* as in llama.cpp linear, where there is none; a factor of 0 is none */
  IST_TRY(ist_key_str(s, "rope.scaling.type", NULL, type, sizeof type, err));
  IST_TRY(kind_from_name(&o.kind, type[0] ? type : "linear", err));
  if (o.kind == DYNAMIC || o.kind == LLAMA3) return fail_kind(type, err);
  if (o.kind != NONE) IST_TRY(ist_key_f64(s, "rope.scaling.factor", NULL, false, &o.factor, err));
  if (o.factor == 0) o.factor = 1;
  int64_t original = 0;
  IST_TRY(ist_key_i64(s, "rope.scaling.original_context_length", NULL, false, &original, err));
  if (original > 0) o.original = (double)original;
  IST_TRY(make(r, &o, err));
  if (o.kind != YARN) { /* longrope may be told by its tensors alone, and is then no kind */
    double attention = 0;
    IST_TRY(ist_key_f64(s, "rope.scaling.attn_factor", NULL, false, &attention, err));
    if (attention > 0) IST_TRY(set_attention(r, attention, err));
  }
  return apply_factors(r, s, c->rope_dim / 2, err);
}

/* ---- config.json --------------------------------------------------------------------- */

static ist_status number(const json_t *o, const char *key, double *out, ist_error *err) {
  const json_t *v = json_object_get(o, key);
  if (!v || json_is_null(v)) return IST_OK;
  if (!json_is_number(v))
    return ist_fail(err, IST_ERR_FORMAT, "config.json: %s: found %s, expected a number", key,
                    ist_json_kind(v));
  *out = json_number_value(v);
  return IST_OK;
}

static ist_status factor_list(float **out, const json_t *o, const char *key, int64_t half,
                              ist_error *err) {
  const json_t *list = json_object_get(o, key);
  *out = NULL;
  if (!json_is_array(list) || (int64_t)json_array_size(list) != half)
    return ist_fail(err, IST_ERR_FORMAT, "config.json: %s: found %s of %lld, expected %lld numbers",
                    key, ist_json_kind(list), (long long)json_array_size(list), (long long)half);
  IST_TRY(alloc_freq(out, half, err));
  for (int64_t j = 0; j < half; j++)
    (*out)[j] = (float)json_number_value(json_array_get(list, (size_t)j));
  return IST_OK;
}

static ist_status read_lists(ist_rope *r, const json_t *o, int64_t half, ist_error *err) {
  float *near = NULL, *far = NULL;
  ist_status status = factor_list(&near, o, "short_factor", half, err);
  if (status == IST_OK) status = factor_list(&far, o, "long_factor", half, err);
  if (status == IST_OK) status = make_long(r, near, far, half, err);
  ist_free(near);
  ist_free(far);
  return status;
}

/* The keys of every kind, from one object. */
static ist_status read_object(settings *o, const json_t *j, ist_error *err) {
  const json_t *type = json_object_get(j, "rope_type");
  if (!type) type = json_object_get(j, "type");
  const char *name = json_is_string(type) ? json_string_value(type) : "";
  IST_TRY(kind_from_name(&o->kind, name, err));
  const struct {
    const char *key;
    double *out;
  } keys[] = {
      {"rope_theta", &o->theta},
      {"factor", &o->factor},
      {"original_max_position_embeddings", &o->original},
      {"low_freq_factor", &o->low},
      {"high_freq_factor", &o->high},
      {"beta_fast", &o->beta_fast},
      {"beta_slow", &o->beta_slow},
      {"mscale", &o->mscale},
      {"mscale_all_dim", &o->mscale_all_dim},
      {"attention_factor", &o->attention},
  };
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
    IST_TRY(number(j, keys[i].key, keys[i].out, err));
  if (json_is_false(json_object_get(j, "truncate"))) o->truncate = false;
  return IST_OK;
}

static ist_status read_hf(ist_rope *r, const ist_model_config *c, const ist_source *s,
                          const char *part, double theta, ist_error *err) {
  settings o = {.dim = c->rope_dim,
                .theta = theta,
                .context = (double)c->context,
                .beta_fast = 32,
                .beta_slow = 1,
                .truncate = true};
  IST_TRY(ist_key_f64(s, NULL, "original_max_position_embeddings", false, &o.original, err));
  const json_t *j = ist_key_json(s, "rope_parameters|rope_scaling");
  if (part && json_is_object(json_object_get(j, part))) j = json_object_get(j, part);
  if (j && !json_is_object(j))
    return ist_fail(err, IST_ERR_FORMAT, "config.json: rope_scaling: found %s, expected an object",
                    ist_json_kind(j));
  if (j) IST_TRY(read_object(&o, j, err));
  if (o.kind == YARN && strcmp(c->arch, "phi3") == 0) o.kind = LONGROPE; /* an old name */
  if (!(o.original > 0)) o.original = (double)c->context;
  if (!(o.factor > 0)) o.factor = o.kind == LONGROPE ? o.context / o.original : 1.0;
  IST_TRY(make(r, &o, err));
  return o.kind == LONGROPE ? read_lists(r, j, c->rope_dim / 2, err) : IST_OK;
}

ist_status ist_rope_read(ist_rope *r, const ist_model_config *c, const ist_source *s,
                         const char *part, double theta, ist_error *err) {
  return s->gguf ? read_gguf(r, c, s, theta, err) : read_hf(r, c, s, part, theta, err);
}
