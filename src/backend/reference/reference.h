/* The parts of the reference backend and of what completes other backends. */
#ifndef IST_BACKEND_REFERENCE_REFERENCE_H
#define IST_BACKEND_REFERENCE_REFERENCE_H

#include "backend/backend.h"

/* slots.c is compiled twice, like src/ops: the slots that compute in one type.
 * Views of another type are a defect and assert. */
const ist_backend *ist_reference_slots(void);
const ist_backend *ist_reference_slots_f64(void);

/* Elements [at, at + n) of a row of a plain or stored type, from and to double; `at` is a
 * multiple of IST_REFERENCE_PIECE (one of every block), n at most that. */
enum { IST_REFERENCE_PIECE = 1024 };
void ist_reference_load(double *out, const void *row, ist_dtype type, int64_t at, int64_t n);
void ist_reference_store(void *row, ist_dtype type, int64_t at, int64_t n, const double *in);

/* Movement (movement.c): any mixture of F64, F32, F16 and BF16, through double. */
void ist_reference_dequant(ist_ctx *ctx, ist_view dst, const void *src, ist_dtype src_type,
                           int64_t row0);
void ist_reference_gather_rows(ist_ctx *ctx, ist_view dst, const void *src, ist_dtype src_type,
                               const int32_t *ids, double scale);
void ist_reference_scatter_rows(ist_ctx *ctx, ist_view dst, ist_view src, const int32_t *ids);
void ist_reference_scatter_add_rows(ist_ctx *ctx, ist_view dst, ist_view src, const int32_t *ids);
void ist_reference_zero(ist_ctx *ctx, ist_view dst);
void ist_reference_copy(ist_ctx *ctx, ist_view dst, ist_view src);
void ist_reference_add(ist_ctx *ctx, ist_view y, ist_view a, ist_view b);
void ist_reference_scale_rows(ist_ctx *ctx, ist_view y, double s, const float *row_scale);

/* Gains of rows of a weight, vectors of adapters (gain.c), likewise. */
void ist_reference_row_dot(ist_ctx *ctx, ist_view dst, ist_view a, ist_view b);
void ist_reference_row_gain(ist_ctx *ctx, ist_view gain, ist_view m, ist_view norms, double s);
void ist_reference_gain_mix(ist_ctx *ctx, ist_view y, ist_view v, ist_view g, ist_view bias,
                            double f, const float *row_f);
void ist_reference_mul_cols(ist_ctx *ctx, ist_view y, ist_view x, ist_view g);
void ist_reference_col_dot(ist_ctx *ctx, ist_view dst, ist_view a, ist_view b, ist_view scale);
void ist_reference_add_bias(ist_ctx *ctx, ist_view y, ist_view bias, double s,
                            const float *row_scale);
void ist_reference_col_sum(ist_ctx *ctx, ist_view dst, ist_view x, double s);
void ist_reference_dot_acc(ist_ctx *ctx, ist_view dst, ist_view a, ist_view b);

/* Mixtures of experts (experts.c), likewise through double. */
void ist_reference_route_fwd(ist_ctx *ctx, ist_view weight, int32_t *index, ist_view logits,
                             bool renormalise);
void ist_reference_route_bwd(ist_ctx *ctx, ist_view dlogits, ist_view dweight, ist_view weight,
                             const int32_t *index, ist_view logits, bool renormalise);
void ist_reference_weigh_rows(ist_ctx *ctx, ist_view y, ist_view weight);
void ist_reference_add_rows(ist_ctx *ctx, ist_view dst, ist_view src, const int32_t *ids,
                            ist_view weight);

/* A linear as the products and additions of `be` (linear.c). */
void ist_linear_fwd_composed(const ist_backend *be, ist_ctx *ctx, ist_view y, ist_view x,
                             ist_view w, ist_view bias, ist_view u, ist_view b);
void ist_linear_bwd_composed(const ist_backend *be, ist_ctx *ctx, ist_view dx, bool acc,
                             ist_view du, ist_view dy, ist_view w, ist_view b);

void ist_reference_linear_stored(ist_ctx *ctx, const ist_stored_linear *l, int n,
                                 ist_stored_how how);

#endif
