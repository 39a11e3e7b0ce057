#include "model/arch.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"

ist_status ist_arch_theta(const ist_model_config *c, const ist_source *s, double *theta,
                          ist_error *err) {
  *theta = c->family->theta;
  return ist_key_f64(s, "rope.freq_base", "rope_theta", false, theta, err);
}

ist_status ist_arch_rope(ist_model_config *c, const ist_source *s, ist_error *err) {
  double theta;
  IST_TRY(ist_arch_theta(c, s, &theta, err));
  return ist_rope_read(&c->rope[0], c, s, NULL, theta, err);
}

ist_status ist_arch_layers(ist_model_config *c, ist_error *err) {
  if (c->layer) return IST_OK;
  c->layer = ist_calloc((size_t)c->L, sizeof *c->layer);
  return c->layer ? IST_OK : ist_fail_nomem(err, "layers", (size_t)c->L * sizeof *c->layer);
}

ist_status ist_arch_window(ist_model_config *c, int64_t window, ist_error *err) {
  if (window == 0) return IST_OK;
  IST_TRY(ist_arch_layers(c, err));
  for (int64_t l = 0; l < c->L; l++) c->layer[l].window = window;
  return IST_OK;
}

ist_status ist_arch_layer_types(ist_model_config *c, const ist_source *s, int64_t window,
                                bool *found, ist_error *err) {
  const json_t *types = ist_key_json(s, "layer_types");
  *found = types != NULL;
  if (!types) return IST_OK;
  if (!json_is_array(types) || (int64_t)json_array_size(types) != c->L)
    return ist_fail(err, IST_ERR_FORMAT,
                    "config.json: layer_types: found %s of %lld, expected a list of %lld",
                    ist_json_kind(types), (long long)json_array_size(types), (long long)c->L);
  IST_TRY(ist_arch_layers(c, err));
  for (int64_t l = 0; l < c->L; l++) {
    const char *type = json_string_value(json_array_get(types, (size_t)l));
    bool sliding = type && strcmp(type, "sliding_attention") == 0;
    if (!sliding && !(type && strcmp(type, "full_attention") == 0))
      return ist_fail(err, IST_ERR_UNSUPPORTED,
                      "config.json: layer_types[%lld]: found \"%s\", supported: full_attention, "
                      "sliding_attention",
                      (long long)l, type ? type : "");
    c->layer[l].window = sliding ? window : 0;
  }
  return IST_OK;
}

/* 2^(-8 (h + 1) / n) for the largest power of two n <= H; the heads beyond it take the
 * odd steps of the sequence of 2n. */
ist_status ist_arch_alibi(ist_model_config *c, ist_error *err) {
  int64_t n = 1;
  while (2 * n <= c->H) n *= 2;
  c->alibi = ist_calloc((size_t)c->H, sizeof *c->alibi);
  if (!c->alibi) return ist_fail_nomem(err, "slopes", (size_t)c->H * sizeof *c->alibi);
  for (int64_t h = 0; h < c->H; h++) {
    double step =
        h < n ? 8.0 * (double)(h + 1) / (double)n : 4.0 * (double)(2 * (h - n) + 1) / (double)n;
    c->alibi[h] = (float)exp2(-step);
  }
  return IST_OK;
}
