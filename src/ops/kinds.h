/* Choices and settings of operations, shared by the kernels of src/ops and by the
 * table of src/backend. */
#ifndef IST_OPS_KINDS_H
#define IST_OPS_KINDS_H

#include <stdint.h>

typedef enum ist_norm_kind { IST_NORM_RMS, IST_NORM_RMS1, IST_NORM_LAYER } ist_norm_kind;

typedef enum ist_act_kind {
  IST_ACT_SILU,
  IST_ACT_GELU_ERF,
  IST_ACT_GELU_TANH,
  IST_ACT_RELU,
  IST_ACT_TANH,
  IST_ACT_SIGMOID
} ist_act_kind;

/* AdamW on one contiguous parameter block (Loshchilov & Hutter 2019; torch's
 * formula: decoupled decay, bias correction by t, eps outside the root). */
typedef struct ist_adamw {
  double lr, beta1, beta2, eps, weight_decay;
  int64_t t;         /* steps of this block, this one included */
  double grad_scale; /* clipping factor multiplied into the gradient */
} ist_adamw;

#endif
