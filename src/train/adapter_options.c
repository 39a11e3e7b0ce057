/* The method's part of the options: which adapters a run trains. */
#include <stdlib.h>
#include <string.h>

#include "model/model.h"
#include "train/options.h"

#define NAME_MAX_BYTES 64

/* "q=8,down=32" into values by module. */
static ist_status parse_pattern(const char *field, const char *text, const ist_model_config *m,
                                double out[IST_MOD_COUNT], ist_error *err) {
  for (const char *p = text; *p;) {
    size_t name = strcspn(p, "=,");
    char leaf[NAME_MAX_BYTES], *end = NULL;
    double value = p[name] == '=' ? strtod(p + name + 1, &end) : 0;
    if (!name || name >= sizeof leaf || !end || !(value > 0 && value < 1e6) ||
        (*end != ',' && *end)) {
      return ist_fail(err, IST_ERR_ARG, "%s: found \"%s\", expected MODULE=NUMBER, ...", field, p);
    }
    memcpy(leaf, p, name);
    leaf[name] = '\0';
    uint32_t bits;
    IST_TRY(ist_model_targets(m, leaf, &bits, err));
    for (int i = 0; i < IST_MOD_COUNT; i++) {
      if (bits & 1u << i) out[i] = value;
    }
    p = *end ? end + 1 : end;
  }
  return IST_OK;
}

static ist_act_kind activation(const char *name) {
  static const struct {
    const char *name;
    ist_act_kind kind;
  } kinds[] = {{"relu", IST_ACT_RELU}, {"tanh", IST_ACT_TANH}, {"gelu", IST_ACT_GELU_ERF}};
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
    if (strcmp(kinds[i].name, name) == 0) return kinds[i].kind;
  }
  return IST_ACT_SILU;
}

ist_status ist_options_adapter(const ist_train_options *o, const ist_model_config *m,
                               ist_adapter_config *out, ist_error *err) {
  double ranks[IST_MOD_COUNT] = {0};
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
      .act = activation(o->activation),
      .scaling = o->scaling,
      .learned_scaling = o->learned_scaling,
      .kv = m->K * m->E,
  };
  IST_TRY(ist_model_targets(m, o->targets, &out->modules, err));
  if (o->exclude && *o->exclude) {
    uint32_t excluded;
    IST_TRY(ist_model_targets(m, o->exclude, &excluded, err));
    out->modules &= ~excluded;
    if (!out->modules) {
      return ist_fail(err, IST_ERR_ARG, "exclude: found \"%s\", which leaves nothing of \"%s\"",
                      o->exclude, o->targets);
    }
  }
  IST_TRY(parse_pattern("rank_pattern", o->rank_pattern ? o->rank_pattern : "", m, ranks, err));
  IST_TRY(parse_pattern("alpha_pattern", o->alpha_pattern ? o->alpha_pattern : "", m, out->alpha_of,
                        err));
  for (int i = 0; i < IST_MOD_COUNT; i++) {
    out->rank_of[i] = (int64_t)ranks[i];
    if ((double)out->rank_of[i] != ranks[i] || ranks[i] > 4096)
      return ist_fail(err, IST_ERR_ARG, "rank_pattern: found %g, expected whole numbers to 4096",
                      ranks[i]);
  }
  return IST_OK;
}
