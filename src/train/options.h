/* Training options as a checked copy, and as JSON for settings and checkpoints. */
#ifndef IST_TRAIN_OPTIONS_H
#define IST_TRAIN_OPTIONS_H

#include <jansson.h>

#include "base/error.h"
#include "data/data.h"
#include "model/config.h"
#include "select/select.h"

enum { IST_MOST_MICRO_TOKENS = 1 << 22 }; /* tokens of a pass */

/* Copies `in` (an older, smaller struct gets the defaults for the rest), checks
 * every value and owns its strings. */
ist_status ist_options_copy(ist_train_options *out, const ist_train_options *in, ist_error *err);
void ist_options_free(ist_train_options *o);

/* New reference, keys in the order of options.def; NULL when out of memory. */
json_t *ist_options_to_json(const ist_train_options *o);
/* Compares with the settings of a checkpoint: a difference in an option that must
 * stay is an error that names it with both values. */
ist_status ist_options_check_resume(const ist_train_options *o, const json_t *saved,
                                    ist_error *err);

/* The method's part for a model; its method's name is borrowed from the options. Freed with
 * ist_targets_free. */
ist_status ist_options_adapter(const ist_train_options *o, const ist_model_config *m,
                               ist_adapter_config *out, ist_error *err);
/* "relu", "tanh", "gelu", "silu"; NULL, or -1: none of these. */
const char *ist_activation_name(ist_act_kind kind);
int ist_activation_from_name(const char *name);
/* The words (method, targets, ranks, alphas) that make the same adapter again. */
ist_status ist_options_from_adapter(ist_train_options *o, const ist_adapters *ad,
                                    const ist_model_config *m, ist_error *err);

/* The selector's part: "ist", "random", "all", "fixed:0,3,7". `fixed` receives the
 * list in fresh memory (NULL for the others). */
ist_status ist_options_selector(const ist_train_options *o, ist_select_options *out,
                                int32_t **fixed, ist_error *err);

/* The scores of "scores:FILE" for n layers in fresh memory: layer_of (n) says which of the
 * model's L (NULL: themselves). NULL for other selectors. */
ist_status ist_options_scores(const ist_train_options *o, int64_t L, const int32_t *layer_of,
                              int64_t n, double **out, ist_error *err);
/* Whether the selector probes. */
bool ist_options_probes(const ist_train_options *o);

/* The most layers that a selector with these options trains in a step. */
int64_t ist_options_active(const ist_select_options *o, int64_t L);
/* The lowest layer that three draws of four take, by the depth budget; 0: none. */
int64_t ist_depth_floor(const ist_train_options *o, int64_t L);
/* How many layers are expected to train at least once in `steps` steps (0: many). */
int64_t ist_moment_layers(const ist_train_options *o, int64_t L, int64_t active, int64_t steps);

#endif
