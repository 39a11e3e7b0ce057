/* What config.json says of rotary positions, of a GGUF's keys and tensors of factors. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "export/hf_folder.h"

double ist_hf_decimal(double v) {
  char text[40];
  snprintf(text, sizeof text, "%.7g", v);
  return strtod(text, NULL);
}

static float factor_at(const ist_gguf_tensor *t, int64_t j) {
  float v;
  memcpy(&v, t->data + j * (int64_t)sizeof v, sizeof v);
  return v;
}

/* ---- Llama 3's scaling ---- */

/* The file has divisors d_j of the frequencies; config.json wants what they were made from:
 *   1 / d = (1 - t) / factor + t,   t = (original / wavelength - low) / (high - low),
 * kept between 0 and 1. Only ratios of original, low and high count: low is taken as 1, as the
 * published models have it, and t is a line over 1 / wavelength. */
typedef struct divisors {
  double factor;
  int between;             /* how many lie between 1 and the factor: */
  double t[2], inverse[2]; /* t and 1 / wavelength of the first of them, and of the last */
  double shorter, longer;  /* the wavelengths beside them; 0, or 1e30: none */
} divisors;

static divisors read_divisors(const ist_model *m, const ist_gguf_tensor *tensor) {
  const int64_t half = m->config.rope_dim / 2;
  divisors v = {.factor = ist_hf_decimal((double)factor_at(tensor, half - 1)), .longer = 1e30};
  for (int64_t j = 0; j < half; j++) {
    const double d = (double)factor_at(tensor, j);
    const double wavelength =
        2 * acos(-1.0) * pow(m->config.rope[0].theta, (double)j / (double)half);
    if (fabs(d - 1) < 1e-6) {
      v.shorter = wavelength;
    } else if (fabs(d - v.factor) < 1e-6 * v.factor) {
      v.longer = fmin(v.longer, wavelength);
    } else {
      const int k = v.between++ ? 1 : 0;
      v.t[k] = (1 / d - 1 / v.factor) / (1 - 1 / v.factor);
      v.inverse[k] = 1 / wavelength;
    }
  }
  return v;
}

/* The line's slope: through two points; through one that of the published high of 4, or the
 * flattest that leaves the neighbours alone. */
static double slope_of(const divisors *v, double low) {
  if (v->between > 1) return (v->t[0] - v->t[1]) / (v->inverse[0] - v->inverse[1]);
  double slope = (v->t[0] + low / (4 - low)) / v->inverse[0];
  if (v->shorter > 0) slope = fmax(slope, 1.01 * (1 - v->t[0]) / (1 / v->shorter - v->inverse[0]));
  return fmax(slope, 1.01 * v->t[0] / (v->inverse[0] - 1 / v->longer));
}

/* (hf_check.c sees that the result gives the file's divisors again.) */
static json_t *llama3_scaling(const ist_model *m, const ist_gguf_tensor *tensor) {
  const divisors v = read_divisors(m, tensor);
  double low = 1, high = 4, original;
  if (v.factor == 1) return json_null();
  if (v.between) {
    const double slope = slope_of(&v, low);
    high = low + low / (slope * v.inverse[0] - v.t[0]);
    original = round(slope * (high - low)); /* a whole number; the line still meets the first */
    high = low + (original * v.inverse[0] - low) / v.t[0];
    if (fabs(high - round(high * 1e3) / 1e3) < 1e-4) high = round(high * 1e3) / 1e3;
  } else { /* any line between the neighbours */
    if (v.shorter > 0) high = fmin(high, sqrt(v.longer / v.shorter));
    original = round(v.shorter > 0 ? sqrt(high * v.shorter * v.longer) : low * v.longer / 2);
  }
  return json_pack("{s:s, s:f, s:f, s:f, s:I}", "rope_type", "llama3", "factor", v.factor,
                   "low_freq_factor", low, "high_freq_factor", high,
                   "original_max_position_embeddings", (json_int_t)llround(original));
}

/* ---- Longrope: Phi-3's two lists ---- */

static json_t *list_of(const ist_gguf_tensor *t) {
  json_t *list = json_array();
  for (int64_t j = 0; j < t->ne[0]; j++)
    json_array_append_new(list, json_real(ist_hf_decimal((double)factor_at(t, j))));
  return list;
}

/* transformers 4 wants these three keys and no other; attention_factor is its own rule's. */
static json_t *longrope(const ist_gguf_tensor *near, const ist_gguf_tensor *far) {
  return json_pack("{s:s, s:o, s:o}", "type", "longrope", "short_factor", list_of(near),
                   "long_factor", list_of(far));
}

/* ---- By keys ---- */

static ist_status keyed_scaling(json_t **out, const ist_source *s, ist_error *err) {
  char type[32];
  double factor = 1;
  int64_t original = 0;
  IST_TRY(ist_key_str(s, "rope.scaling.type", NULL, type, sizeof type, err));
  IST_TRY(ist_key_f64(s, "rope.scaling.factor", NULL, false, &factor, err));
  IST_TRY(ist_key_i64(s, "rope.scaling.original_context_length", NULL, false, &original, err));
  *out = json_null();
  if (factor == 0) factor = 1;
  if ((!type[0] && factor == 1) || strcmp(type, "none") == 0) return IST_OK;
  *out = json_pack("{s:s, s:f}", "rope_type", type[0] ? type : "linear", "factor",
                   ist_hf_decimal(factor));
  if (*out && original > 0)
    json_object_set_new(*out, "original_max_position_embeddings", json_integer(original));
  return IST_OK;
}

ist_status ist_hf_rope_scaling(json_t **out, const ist_model *m, ist_error *err) {
  const ist_gguf_tensor *divided = ist_source_find(&m->source, "rope_freqs.weight");
  const ist_gguf_tensor *near = ist_source_find(&m->source, "rope_factors_short.weight");
  const ist_gguf_tensor *far = ist_source_find(&m->source, "rope_factors_long.weight");
  if (!divided && !(near && far)) return keyed_scaling(out, &m->source, err);
  *out = divided ? llama3_scaling(m, divided) : longrope(near, far);
  return IST_OK; /* NULL, out of memory, is found where it is put */
}
