/* An adapter directory of Hugging Face PEFT: adapter_config.json and
 * adapter_model.safetensors. Names and arrays only; what a name means for a
 * model is decided above this room. */
#ifndef IST_FORMAT_PEFT_DIR_H
#define IST_FORMAT_PEFT_DIR_H

#include "format/safetensors.h"

typedef struct ist_peft_names {
  const char *const *p;
  int64_t n;
} ist_peft_names;

/* One entry of rank_pattern or alpha_pattern; PEFT matches a module path with
 * "(.*\.)?(KEY)$", first match in order. */
typedef struct ist_peft_pattern {
  const char *key; /* a regular expression, most often a plain module path */
  double value;
} ist_peft_pattern;

/* peft_type: LORA (DoRA too); BOTTLENECK, as the IST authors write it; IST_PREFIX, which is ist's
 * own. */
typedef enum ist_peft_type { IST_PEFT_LORA, IST_PEFT_BOTTLENECK, IST_PEFT_PREFIX } ist_peft_type;

/* What of adapter_config.json a LoRA or DoRA adapter needs. Zero-initialised but
 * for r, alpha and targets it is a valid plain LoRA. All borrowed: from the
 * caller when written, from the ist_peft_dir when read. */
typedef struct ist_peft_config {
  const char *base_model; /* base_model_name_or_path; NULL is null */
  int64_t r;
  double alpha, dropout;
  bool rslora, dora, lora_bias, fan_in_fan_out;
  ist_peft_names targets;   /* target_modules as a list ... */
  const char *target_regex; /* ... or as a string: an expression or "all-linear" */
  ist_peft_names exclude;   /* exclude_modules, likewise */
  const char *exclude_regex;
  ist_peft_names modules_to_save;
  const ist_peft_pattern *rank_pattern, *alpha_pattern;
  int64_t n_rank_pattern, n_alpha_pattern;
  const int64_t *layers; /* layers_to_transform; none means all */
  int64_t n_layers;
  ist_peft_names layers_pattern;
  /* Read only: the other types. A bottleneck's size is r. */
  ist_peft_type type;
  const char *non_linearity; /* "tanh", "relu", ... */
  double scaling;            /* 0: learned */
  bool parallel;             /* beside the linear, else around it */
  int64_t virtual_tokens;
} ist_peft_config;

/* Makes `dir` where needed and writes both files, the tensors first, each
 * atomically. Tensors have PEFT's full names
 * ("base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"). */
ist_status ist_peft_write(const char *dir, const ist_peft_config *c, const ist_st_item *tensors,
                          int64_t n, ist_error *err);

typedef struct ist_peft_dir {
  ist_peft_config config;
  ist_safetensors *tensors;
  void *owned; /* what config points into (private) */
} ist_peft_dir;

/* Reads both files. Refuses by name what would change the adapter's meaning and
 * is not in ist_peft_config (other methods, biases, initialisations that alter
 * the base, ...), and adapter_model.bin, which is a Python pickle. Neither of
 * targets and target_regex: the defaults of the model's type. */
ist_status ist_peft_open(ist_peft_dir **out, const char *dir, ist_error *err);
/* Refuses what is no change of weights, for `purpose` ("merged", "compared"). */
ist_status ist_peft_check_weights(const ist_peft_dir *d, const char *dir, const char *purpose,
                                  ist_error *err);
void ist_peft_close(ist_peft_dir *d);

#endif
