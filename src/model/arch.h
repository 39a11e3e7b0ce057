/* What the rows of the architecture table share. */
#ifndef IST_MODEL_ARCH_H
#define IST_MODEL_ARCH_H

#include "model/names.h"

/* The base of the rotation: the file's, or the row's default. */
ist_status ist_arch_theta(const ist_model_config *c, const ist_source *s, double *theta,
                          ist_error *err);
/* One rotary table for all layers. */
ist_status ist_arch_rope(ist_model_config *c, const ist_source *s, ist_error *err);
/* Makes room for settings by layer: no window, table 0. */
ist_status ist_arch_layers(ist_model_config *c, ist_error *err);
/* The same window in every layer; 0: nothing to do. */
ist_status ist_arch_window(ist_model_config *c, int64_t window, ist_error *err);
/* layer_types of config.json, where it is: "sliding_attention" keeps its window. */
ist_status ist_arch_layer_types(ist_model_config *c, const ist_source *s, int64_t window,
                                bool *found, ist_error *err);
/* Slopes of ALiBi for H heads. */
ist_status ist_arch_alibi(ist_model_config *c, ist_error *err);

#endif
