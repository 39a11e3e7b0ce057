/* The list of a GGUF base that is written as a Hugging Face folder: the model's tensors under
 * their names there, in the order, the shape and the form that the family has them. */
#include <stdio.h>

#include "base/mem.h"
#include "export/merge.h"
#include "format/quant.h"
#include "model/adapter_io.h"
#include "model/targets.h"

/* Which row of the base each of the folder's is: q and k, or q, k and v by head. */
static ist_status set_order(ist_merge_item *it, ist_error *err) {
  const ist_model_config *c = &it->model->config;
  bool same = it->id >= (int)IST_MOD_COUNT;
  for (int64_t r = 0; !same && r < it->from.rows; r++) {
    if (ist_outside_row(c, (ist_module)it->id, IST_ROWS_HF, r) != r) break;
    same = r == it->from.rows - 1;
  }
  if (same) return IST_OK;
  it->order = ist_calloc((size_t)it->from.rows, sizeof *it->order);
  if (!it->order) return ist_fail_nomem(err, it->name, (size_t)it->from.rows * sizeof *it->order);
  for (int64_t r = 0; r < it->from.rows; r++)
    it->order[ist_outside_row(c, (ist_module)it->id, IST_ROWS_HF, r)] = r;
  return IST_OK;
}

static void set_shape(ist_merge_item *it, int n_dims, int64_t rows, int64_t cols) {
  it->n_dims = n_dims;
  it->shape[0] = rows;
  it->shape[1] = cols;
}

/* A bias as a column, for its elements are the rows of the matrix: out of blocks, which none of
 * them fills. */
static ist_status set_column(ist_merge_item *it, ist_error *err) {
  const int64_t n = it->from.rows * it->from.cols;
  if (ist_dtype_get(it->from.type)->block > 1) {
    it->whole = ist_calloc((size_t)n, sizeof *it->whole);
    if (!it->whole) return ist_fail_nomem(err, it->name, (size_t)n * sizeof *it->whole);
    ist_dequant_f32(it->whole, it->from.data, it->from.type, n);
    it->from.data = (const unsigned char *)it->whole;
    it->from.type = IST_F32;
  }
  it->from.rows = n;
  it->from.cols = 1;
  return IST_OK;
}

static ist_status set_layout(ist_merge_item *it, ist_error *err) {
  const ist_arch *family = it->model->config.family;
  const int64_t n = it->from.rows * it->from.cols;
  if (it->bias) {
    IST_TRY(set_column(it, err));
    set_shape(it, 1, n, 0);
  } else if (ist_tensor_is_norm(it->id)) {
    set_shape(it, 1, n, 0);
    if (family->norm == IST_NORM_RMS1) it->shift = -1;
  } else if (family->hf_transposes && it->id < (int)IST_MOD_COUNT) {
    set_shape(it, 2, it->from.cols, it->from.rows);
    it->turned = true;
  } else {
    set_shape(it, 2, it->from.rows, it->from.cols);
  }
  return set_order(it, err);
}

static ist_status add(ist_merge_list *list, const ist_model *m, const ist_updates *u, int64_t layer,
                      int id, int64_t copy, bool bias, const ist_stored *from, ist_error *err) {
  char stem[160], name[176];
  if (!ist_tensor_hf_stem(stem, sizeof stem, &m->config, layer, id)) {
    ist_tensor_name(name, sizeof name, layer, id);
    return ist_fail(err, IST_ERR_UNSUPPORTED,
                    "%s: found a tensor that a Hugging Face folder of this family does not have",
                    name);
  }
  ist_module_path(stem, sizeof stem, &m->config, layer, id, copy);
  snprintf(name, sizeof name, "%s.%s", stem, bias ? "bias" : "weight");
  ist_merge_item *it = ist_merge_list_add(list, m, (ist_str){name, strlen(name)}, from, err);
  if (!it) return IST_ERR_NOMEM;
  it->layer = layer;
  it->id = id;
  it->bias = bias;
  if (!bias) it->update = ist_updates_find(u, layer, id, copy);
  return set_layout(it, err);
}

static ist_status add_experts(ist_merge_list *list, const ist_model *m, const ist_updates *u,
                              int64_t layer, int id, ist_error *err) {
  for (int64_t e = 0; e < m->config.experts; e++)
    IST_TRY(add(list, m, u, layer, id, e, false,
                ist_weights_stored_expert(&m->weights, layer, id - (int)IST_T_EXPERT_GATE, e),
                err));
  return IST_OK;
}

static ist_status add_tensor(ist_merge_list *list, const ist_model *m, const ist_updates *u,
                             int64_t layer, int id, ist_error *err) {
  const ist_stored *weight = ist_weights_stored(&m->weights, layer, id);
  const ist_stored *bias = ist_weights_stored_bias(&m->weights, layer, id);
  if (weight->data && ist_tensor_is_stack(id)) return add_experts(list, m, u, layer, id, err);
  if (weight->data) IST_TRY(add(list, m, u, layer, id, 0, false, weight, err));
  return bias->data ? add(list, m, u, layer, id, 0, true, bias, err) : IST_OK;
}

ist_status ist_merge_list_convert(ist_merge_list *out, const ist_model *m, const ist_updates *u,
                                  ist_error *err) {
  for (int id = IST_T_MODEL_FIRST; id < (int)IST_T_END; id++)
    IST_TRY(add_tensor(out, m, u, -1, id, err));
  for (int64_t l = 0; l < m->config.L; l++)
    for (int id = 0; id < (int)IST_T_LAYER_COUNT; id++) IST_TRY(add_tensor(out, m, u, l, id, err));
  if (!ist_merge_unties(m, u)) return IST_OK;
  return add(out, m, u, -1, IST_T_OUTPUT, 0, false, ist_merge_tied_head(m), err);
}
