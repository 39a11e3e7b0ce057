/* Hugging Face PEFT directories as updates. */
#include <stdio.h>

#include "base/mem.h"
#include "export/updates.h"
#include "model/adapter_io.h"
#include "model/targets.h"

#define PREFIX "base_model.model."

typedef struct reader {
  const ist_model *model;
  const ist_peft_dir *dir;
  ist_peft_rules *rules;
  uint8_t *used; /* a flag for every tensor of the file */
  ist_updates *out;
} reader;

/* A module of the model that an adapter may sit on. */
typedef struct place {
  int64_t layer;
  int id;
  int64_t copy; /* which expert's */
  ist_peft_kind kind;
  char path[128];
} place;

static const char *file_of(const reader *r) {
  return r->dir->tensors->path;
}

/* ---- Tensors ---- */

/* The tensor of a module with this suffix, marked as used; NULL: none. */
static const ist_st_tensor *find(reader *r, const place *p, const char *suffix, char *name,
                                 size_t size) {
  snprintf(name, size, PREFIX "%s%s", p->path, suffix);
  const ist_st_tensor *t = ist_safetensors_find(r->dir->tensors, name);
  if (t) r->used[t - r->dir->tensors->tensor] = 1;
  return t;
}

/* A tensor of rows x cols (cols 0: a vector) as floats in fresh memory. */
static ist_status values(reader *r, const ist_st_tensor *t, const char *name, int64_t rows,
                         int64_t cols, float **out, ist_error *err) {
  if (!t) return ist_fail(err, IST_ERR_MISMATCH, "%s: %s: found no such tensor", file_of(r), name);
  int dims = cols ? 2 : 1;
  int64_t found_cols = t->n_dims > 1 ? t->shape[1] : 1, n = rows * (cols ? cols : 1);
  if (t->n_dims != dims || t->shape[0] != rows || (cols && t->shape[1] != cols))
    return ist_fail(err, IST_ERR_MISMATCH,
                    "%s: %s: found %lld x %lld, expected %lld x %lld (is it an adapter of another "
                    "base model, or another rank?)",
                    file_of(r), name, (long long)(t->n_dims ? t->shape[0] : 1),
                    (long long)found_cols, (long long)rows, (long long)(cols ? cols : 1));
  *out = ist_calloc((size_t)n, sizeof **out);
  if (!*out) return ist_fail_nomem(err, name, (size_t)n * sizeof **out);
  ist_status s = ist_st_to_f32(t, *out, n, err);
  if (s != IST_OK) {
    ist_error_context(err, "%s", file_of(r));
    return s;
  }
  return ist_check_finite(*out, n, file_of(r), name, err);
}

static ist_status need(reader *r, const place *p, const char *suffix, int64_t rows, int64_t cols,
                       float **out, ist_error *err) {
  char name[192];
  const ist_st_tensor *t = find(r, p, suffix, name, sizeof name);
  return values(r, t, name, rows, cols, out, err);
}

/* (rows, cols) -> (cols, rows) in place of *v. */
static ist_status transpose(float **v, int64_t rows, int64_t cols, ist_error *err) {
  float *t = ist_calloc((size_t)(rows * cols), sizeof *t);
  if (!t) return ist_fail_nomem(err, "a transposed matrix", (size_t)(rows * cols) * sizeof *t);
  for (int64_t i = 0; i < rows; i++)
    for (int64_t j = 0; j < cols; j++) t[j * rows + i] = (*v)[i * cols + j];
  ist_free(*v);
  *v = t;
  return IST_OK;
}

/* Rows from Hugging Face's order to the file's. */
static ist_status to_file_order(const reader *r, const place *p, float *v, int64_t rows,
                                int64_t cols, ist_error *err) {
  const ist_model_config *c = &r->model->config;
  bool same = p->layer < 0;
  for (int64_t i = 0; !same && i < rows; i++)
    if (ist_outside_row(c, (ist_module)p->id, IST_ROWS_HF, i) != i)
      break;
    else
      same = i == rows - 1;
  if (same) return IST_OK;
  float *copy = ist_calloc((size_t)(rows * cols), sizeof *copy);
  if (!copy) return ist_fail_nomem(err, p->path, (size_t)(rows * cols) * sizeof *copy);
  memcpy(copy, v, (size_t)(rows * cols) * sizeof *v);
  for (int64_t i = 0; i < rows; i++)
    memcpy(v + i * cols, copy + ist_outside_row(c, (ist_module)p->id, IST_ROWS_HF, i) * cols,
           (size_t)cols * sizeof *v);
  ist_free(copy);
  return IST_OK;
}

/* ---- Modules ---- */

/* An embedding's pair is stored the other way round: A (r, V), B (D, r), and the
 * rows of its matrix get scale A^T B^T. */
static ist_status read_embedding(reader *r, const place *p, ist_update *u, ist_error *err) {
  if (r->dir->config.dora)
    return ist_fail(err, IST_ERR_UNSUPPORTED, "%s: %s: DoRA on an embedding is not supported",
                    file_of(r), p->path);
  IST_TRY(need(r, p, ".lora_embedding_A", u->rank, u->rows, &u->b, err));
  IST_TRY(transpose(&u->b, u->rank, u->rows, err));
  IST_TRY(need(r, p, ".lora_embedding_B", u->cols, u->rank, &u->a, err));
  return transpose(&u->a, u->cols, u->rank, err);
}

static ist_status read_magnitude(reader *r, const place *p, ist_update *u, ist_error *err) {
  char name[192], other[192];
  const ist_st_tensor *t = find(r, p, ".lora_magnitude_vector", name, sizeof name);
  if (!t) t = find(r, p, ".lora_magnitude_vector.weight", other, sizeof other);
  IST_TRY(values(r, t, name, u->rows, 0, &u->magnitude, err));
  return to_file_order(r, p, u->magnitude, u->rows, 1, err);
}

static ist_status read_bias(reader *r, const place *p, ist_update *u, ist_error *err) {
  char name[192];
  const ist_st_tensor *t = find(r, p, ".lora_B.bias", name, sizeof name);
  IST_TRY(values(r, t, name, u->rows, 0, &u->bias, err));
  return to_file_order(r, p, u->bias, u->rows, 1, err);
}

static ist_status read_linear(reader *r, const place *p, ist_update *u, ist_error *err) {
  IST_TRY(need(r, p, ".lora_A.weight", u->rank, u->cols, &u->a, err));
  IST_TRY(need(r, p, ".lora_B.weight", u->rows, u->rank, &u->b, err));
  IST_TRY(to_file_order(r, p, u->b, u->rows, u->rank, err));
  if (r->dir->config.lora_bias) IST_TRY(read_bias(r, p, u, err));
  return r->dir->config.dora ? read_magnitude(r, p, u, err) : IST_OK;
}

/* What stands beside the pair: PEFT saves the base's embedding and head along with
 * an adapter on one of them, or after the vocabulary was resized. */
static ist_status read_whole(reader *r, const place *p, ist_update **u, bool required,
                             ist_error *err) {
  char name[192], other[192];
  const ist_st_tensor *t = find(r, p, ".weight", name, sizeof name);
  if (!t) t = find(r, p, ".base_layer.weight", other, sizeof other);
  if (!t && !required) return IST_OK;
  if (!*u) *u = ist_updates_add(r->out, r->model, p->layer, p->id, p->copy);
  if (!*u) return ist_fail_nomem(err, p->path, sizeof **u);
  return values(r, t, name, (*u)->rows, (*u)->cols, &(*u)->whole, err);
}

static ist_status read_place(reader *r, const place *p, ist_error *err) {
  ist_peft_module module = ist_peft_rules_find(r->rules, p->path, p->kind);
  IST_TRY(ist_peft_rules_check(r->rules, err));
  ist_update *u = NULL;
  if (module.target) {
    u = ist_updates_add(r->out, r->model, p->layer, p->id, p->copy);
    if (!u) return ist_fail_nomem(err, p->path, sizeof *u);
    u->rank = module.r;
    u->scale = module.scale;
    u->alpha = module.alpha;
    IST_TRY(p->kind == IST_PEFT_EMBEDDING ? read_embedding(r, p, u, err)
                                          : read_linear(r, p, u, err));
  }
  if (p->kind == IST_PEFT_LINEAR && !module.saved) return IST_OK;
  if (p->kind == IST_PEFT_LINEAR)
    return ist_fail(err, IST_ERR_UNSUPPORTED,
                    "%s: modules_to_save takes %s, supported are the embedding and the head",
                    file_of(r), p->path);
  return read_whole(r, p, &u, module.saved, err);
}

/* An embedding's or the head's. */
static ist_status read_outer(reader *r, int id, ist_peft_kind kind, ist_error *err) {
  place p = {.layer = -1, .id = id, .kind = kind};
  if (!ist_tensor_hf_stem(p.path, sizeof p.path, &r->model->config, -1, id)) return IST_OK;
  return read_place(r, &p, err);
}

static ist_status read_module(reader *r, int64_t layer, ist_module m, int64_t copies,
                              ist_error *err) {
  const ist_model_config *c = &r->model->config;
  for (int64_t i = 0; i < copies && ist_model_has(c, layer, m); i++) {
    place p = {.layer = layer, .id = (int)m, .copy = i, .kind = IST_PEFT_LINEAR};
    ist_module_path(p.path, sizeof p.path, c, layer, (int)m, i);
    IST_TRY(read_place(r, &p, err));
  }
  return IST_OK;
}

static ist_status read_places(reader *r, ist_error *err) {
  ist_linear_sizes sizes;
  ist_model_linear_sizes(&r->model->config, &sizes);
  for (int64_t l = 0; l < r->model->config.L; l++) {
    for (int m = 0; m < IST_MOD_COUNT; m++)
      IST_TRY(read_module(r, l, (ist_module)m, ist_module_copies(&sizes, (ist_module)m), err));
  }
  IST_TRY(read_outer(r, IST_T_EMBED, IST_PEFT_EMBEDDING, err));
  return read_outer(r, IST_T_OUTPUT, IST_PEFT_HEAD, err);
}

/* PEFT passes over tensors that it does not expect; we do not: they would train,
 * or be merged, in somebody's mind only. */
static ist_status refuse_unused(const reader *r, ist_error *err) {
  for (int64_t i = 0; i < r->dir->tensors->n; i++) {
    if (r->used[i]) continue;
    ist_fail(err, IST_ERR_MISMATCH,
             "%s: %s: found a tensor that no module of this model and configuration takes",
             file_of(r), r->dir->tensors->tensor[i].name);
    ist_hint(err,
             "the tensor is misnamed, adapter_config.json does not list its module, or the "
             "adapter belongs to another model");
    return IST_ERR_MISMATCH;
  }
  return IST_OK;
}

ist_status ist_updates_read_peft(ist_updates *out, const ist_peft_dir *d, const char *dir,
                                 const ist_model *m, ist_error *err) {
  reader r = {.model = m, .dir = d, .out = out};
  r.used = ist_calloc((size_t)d->tensors->n, 1);
  ist_status s = r.used ? ist_peft_check_weights(d, dir, "merged", err)
                        : ist_fail_nomem(err, dir, (size_t)d->tensors->n);
  if (s == IST_OK && !d->config.targets.n && !d->config.target_regex)
    s = ist_fail(err, IST_ERR_UNSUPPORTED, "target_modules: found nothing, expected names");
  if (s == IST_OK) s = ist_peft_rules_new(&r.rules, &d->config, err);
  if (s != IST_OK && d->config.type == IST_PEFT_LORA)
    ist_error_context(err, "%s/adapter_config.json", dir);
  out->dropout = d->config.dropout;
  out->rslora = d->config.rslora;
  if (s == IST_OK) s = read_places(&r, err);
  if (s == IST_OK) s = refuse_unused(&r, err);
  ist_peft_rules_free(r.rules);
  ist_free(r.used);
  return s;
}
