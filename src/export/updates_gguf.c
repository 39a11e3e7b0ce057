/* llama.cpp's GGUF adapters as updates. */
#include <stdlib.h>

#include "base/mem.h"
#include "export/updates.h"
#include "format/lora_gguf.h"
#include "model/adapter_io.h"

/* The tensor of the model with this name; false: none. */
static bool find_tensor(const ist_model *m, const char *name, int64_t *layer, int *id) {
  char own[96];
  const bool in_layer = strncmp(name, "blk.", 4) == 0;
  const int end = in_layer ? (int)IST_MOD_COUNT : IST_T_END;
  const int64_t l = in_layer ? strtoll(name + 4, NULL, 10) : -1;
  if (in_layer && (l < 0 || l >= m->config.L)) return false;
  for (int i = in_layer ? 0 : IST_T_MODEL_FIRST; i < end; i++) {
    ist_tensor_name(own, sizeof own, l, i); /* "blk.01." is no layer's */
    bool here = in_layer ? ist_model_has(&m->config, l, (ist_module)i)
                         : ist_weights_stored(&m->weights, l, i)->data != NULL;
    if (strcmp(own, name) != 0 || !here) continue;
    *layer = l;
    *id = i;
    return in_layer || i == IST_T_EMBED || i == IST_T_OUTPUT;
  }
  return false;
}

/* Rows of B from GGUF's order to ours, where the base is a Hugging Face folder. */
static ist_status to_our_order(ist_update *u, const ist_model *m, const char *path,
                               ist_error *err) {
  if (u->layer < 0 || m->config.permuted_qk || !m->config.family->ggml_permutes_qk) return IST_OK;
  float *b = ist_calloc((size_t)(u->rows * u->rank), sizeof *b);
  if (!b) return ist_fail_nomem(err, path, (size_t)(u->rows * u->rank) * sizeof *b);
  for (int64_t r = 0; r < u->rows; r++)
    memcpy(b + r * u->rank,
           u->b + ist_outside_row(&m->config, (ist_module)u->id, IST_ROWS_GGUF, r) * u->rank,
           (size_t)u->rank * sizeof *b);
  ist_free(u->b);
  u->b = b;
  return IST_OK;
}

/* A copy of one expert's half. */
static float *part_of(const float *all, int64_t n, int64_t copy) {
  float *p = ist_calloc((size_t)n, sizeof *p);
  if (p) memcpy(p, all + copy * n, (size_t)n * sizeof *p);
  return p;
}

static ist_status read_matrix(ist_updates *out, const ist_lora_gguf *l, const ist_lora_pair *p,
                              int64_t layer, int id, int64_t copy, const char *path,
                              const ist_model *m, ist_error *err) {
  ist_update *u = ist_updates_add(out, m, layer, id, copy);
  if (!u) return ist_fail_nomem(err, path, sizeof *u);
  if (p->in != u->cols || p->out != u->rows)
    return ist_fail(err, IST_ERR_MISMATCH,
                    "%s: %s: found a pair for %lld x %lld, expected %lld x %lld (is it an adapter "
                    "of another base model?)",
                    path, p->name, (long long)p->out, (long long)p->in, (long long)u->rows,
                    (long long)u->cols);
  u->rank = p->r;
  u->scale = ist_lora_gguf_scale(l, p);
  u->alpha = u->scale * (double)p->r;
  u->a = part_of(p->a, u->rank * u->cols, copy);
  u->b = part_of(p->b, u->rows * u->rank, copy);
  if (!u->a || !u->b) return ist_fail_nomem(err, path, (size_t)(u->rank * u->cols) * sizeof *u->a);
  IST_TRY(ist_check_finite(u->a, u->rank * u->cols, path, p->name, err));
  IST_TRY(ist_check_finite(u->b, u->rows * u->rank, path, p->name, err));
  return to_our_order(u, m, path, err);
}

static ist_status read_pair(ist_updates *out, const ist_lora_gguf *l, const ist_lora_pair *p,
                            const char *path, const ist_model *m, ist_error *err) {
  int64_t layer;
  int id;
  if (!find_tensor(m, p->name, &layer, &id))
    return ist_fail(err, IST_ERR_MISMATCH,
                    "%s: %s: found a pair for a matrix that this model does not have", path,
                    p->name);
  int64_t expected = ist_tensor_is_stack(id) ? m->config.experts : 0;
  if (p->experts != expected)
    return ist_fail(err, IST_ERR_MISMATCH, "%s: %s: found a pair for %lld experts, expected %lld",
                    path, p->name, (long long)p->experts, (long long)expected);
  for (int64_t i = 0; i < (expected ? expected : 1); i++)
    IST_TRY(read_matrix(out, l, p, layer, id, i, path, m, err));
  return IST_OK;
}

ist_status ist_updates_read_gguf(ist_updates *out, const char *path, const ist_model *m,
                                 ist_error *err) {
  ist_lora_gguf *l;
  IST_TRY(ist_lora_gguf_open(&l, path, err));
  ist_status s = IST_OK;
  if (strcmp(l->architecture, m->config.arch) != 0)
    s = ist_fail(err, IST_ERR_MISMATCH,
                 "%s: general.architecture: found \"%s\", expected the model's \"%s\"", path,
                 l->architecture, m->config.arch);
  for (int64_t i = 0; s == IST_OK && i < l->n; i++)
    s = read_pair(out, l, &l->pair[i], path, m, err);
  ist_lora_gguf_close(l);
  return s;
}
