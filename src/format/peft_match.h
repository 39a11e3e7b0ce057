/* Which modules the lists, expressions and patterns of an adapter_config.json
 * mean, by PEFT's own rules. A module is its path in Hugging Face's model,
 * "model.layers.0.self_attn.q_proj". */
#ifndef IST_FORMAT_PEFT_MATCH_H
#define IST_FORMAT_PEFT_MATCH_H

#include "format/peft_dir.h"

/* The output head is a linear that "all-linear" leaves out. */
typedef enum ist_peft_kind { IST_PEFT_LINEAR, IST_PEFT_HEAD, IST_PEFT_EMBEDDING } ist_peft_kind;

typedef struct ist_peft_module {
  bool target; /* has an adapter */
  bool saved;  /* one of modules_to_save: stored whole, and never a target */
  int64_t r;
  double alpha; /* r and alpha after rank_pattern and alpha_pattern */
  double scale; /* alpha / r, or alpha / sqrt(r) with rsLoRA */
} ist_peft_module;

typedef struct ist_peft_rules ist_peft_rules;
/* Compiles the expressions; one that does not compile is an error that names its
 * key. The config is borrowed until ist_peft_rules_free. */
ist_status ist_peft_rules_new(ist_peft_rules **out, const ist_peft_config *c, ist_error *err);
void ist_peft_rules_free(ist_peft_rules *r);
ist_peft_module ist_peft_rules_find(ist_peft_rules *r, const char *path, ist_peft_kind kind);
/* The error of the first look-up in which an expression gave up, as one does that would go on for
 * ever; what is found from then on means nothing. IST_OK: there was none. */
ist_status ist_peft_rules_check(const ist_peft_rules *r, ist_error *err);
/* What no path that was looked up matched: the config's key, its text in *text; of patterns,
 * what matched no target. NULL: everything was of use. */
const char *ist_peft_rules_unused(const ist_peft_rules *r, const char **text);

#endif
