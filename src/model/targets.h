/* Which modules of a model an adapter sits on, by the rules of PEFT's adapter_config.json,
 * and the way back from an adapter to such a config. */
#ifndef IST_MODEL_TARGETS_H
#define IST_MODEL_TARGETS_H

#include "format/peft_match.h"
#include "model/names.h"
#include "peft/peft.h"

/* The path of a module or of another tensor, as PEFT sees it: "model.layers.3.self_attn.q_proj".
 * Families without a name of Hugging Face's have "layers.3.q". copy: which expert, -1: an
 * expression for all of them. */
void ist_module_path(char *out, size_t size, const ist_model_config *c, int64_t layer, int id,
                     int64_t copy);
/* The shortest end of a module's path that no other module has: "q_proj", "attn.c_proj"; of
 * experts the last part. */
void ist_module_suffix(char *out, size_t size, const ist_model_config *c, int id);

/* The tensor that an adapter beside the layers is on. */
static inline int ist_outer_tensor(ist_outer o) {
  return o == IST_OUTER_EMBED ? IST_T_EMBED : IST_T_OUTPUT;
}

/* Sets what of `out` says where adapters are: modules, rank_of, places, outer,
 * rank, alpha, rslora. The
 * places are freed with ist_targets_free. strict: an entry that nothing matches is an error.
 * Nothing matched at all is one in any case. Experts of a layer must be alike; all-linear leaves
 * them out, as their adapters would be many times all the others. */
ist_status ist_targets_find(ist_adapter_config *out, const ist_model_config *c,
                            const ist_peft_config *p, bool strict, ist_error *err);
void ist_targets_free(ist_adapter_config *c);

/* A config of which ist_targets_find makes the same places, in the fewest words that are easy to
 * find: names where modules are in every layer alike, layers_to_transform, else whole paths. */
typedef struct ist_target_words {
  ist_peft_config config; /* targets, layers, patterns, r, alpha, rslora; the rest is zero */
  char **text;            /* what config points to */
  int64_t n, cap;
} ist_target_words;
ist_status ist_targets_describe(ist_target_words *out, const ist_model_config *c,
                                const ist_adapters *ad, ist_error *err);
void ist_target_words_free(ist_target_words *w);

#endif
