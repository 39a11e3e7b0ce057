/* The merged model as GGUF: the base's keys and tokenizer, its tensors in their
 * order, each in its own type or in the one asked for. */
#include <stdio.h>

#include "base/mem.h"
#include "export/merge.h"
#include "format/gguf.h"
#include "format/quant.h"

#define PROVENANCE "ist.merge."

/* ---- Types ---- */

/* general.file_type of a file whose matrices are of one type. */
static const struct {
  ist_dtype type;
  uint32_t file_type;
} file_types[] = {{IST_F32, 0},   {IST_F16, 1},   {IST_Q4_0, 2}, {IST_Q4_1, 3},
                  {IST_Q8_0, 7},  {IST_Q5_0, 8},  {IST_Q5_1, 9}, {IST_Q4_K, 14},
                  {IST_Q5_K, 16}, {IST_Q6_K, 18}, {IST_BF16, 32}};

/* What llama.cpp takes where a row is no multiple of the type's block. */
static ist_dtype fitting(ist_dtype t, int64_t cols) {
  if (cols % ist_dtype_get(t)->block == 0) return t;
  ist_dtype smaller = t == IST_Q4_K   ? IST_Q5_0
                      : t == IST_Q5_K ? IST_Q5_1
                      : t == IST_Q6_K ? IST_Q8_0
                                      : IST_F16;
  return cols % ist_dtype_get(smaller)->block == 0 ? smaller : IST_F16;
}

/* As llama.cpp's quantiser: vectors, routers and positions stay; the head (or the embedding that
 * serves as one) is Q6_K, or Q8_0 beside Q8_0; the other matrices are of the type. */
static ist_dtype wanted(const ist_merge_item *it, ist_dtype type, bool tied) {
  if (it->from.rows == 1 || it->id == IST_T_ROUTER || it->id == IST_T_POSITION)
    return it->from.type;
  bool head = it->id == IST_T_OUTPUT || (it->id == IST_T_EMBED && tied);
  if (head && ist_dtype_is_quantised(type) && type != IST_Q8_0)
    type = it->from.cols % 256 == 0 ? IST_Q6_K : IST_Q8_0;
  return fitting(type, it->from.cols);
}

static ist_status choose_types(ist_merge_list *list, int type, bool tied, ist_error *err) {
  for (int64_t i = 0; i < list->n; i++) {
    ist_merge_item *it = &list->p[i];
    if (type >= 0) it->to = wanted(it, (ist_dtype)type, tied);
    if (ist_merge_is_copy(it)) continue;
    IST_TRY(ist_merge_check_type(
        it, "--type Q4_K (or another type) writes the matrices in that type", err));
  }
  return IST_OK;
}

/* ---- Keys ---- */

static bool key_is(const ist_gguf_kv *kv, const char *text, bool prefix) {
  size_t n = strlen(text);
  return (prefix ? kv->key.len >= n : kv->key.len == n) && memcmp(kv->key.p, text, n) == 0;
}

static const char *base_name(const char *path) {
  const char *slash = strrchr(path, '/');
  return slash ? slash + 1 : path;
}

static void put_text(ist_gguf_writer *w, const char *key, const char *text) {
  ist_gguf_put_str(w, key, text, strlen(text));
}

static void put_keys(ist_gguf_writer *w, const ist_model *m, int type, const char *adapter) {
  for (int64_t i = 0; i < m->source.gguf->n_kv; i++) {
    const ist_gguf_kv *kv = &m->source.gguf->kv[i];
    bool replaced = key_is(kv, PROVENANCE, true) || key_is(kv, "split.", true) ||
                    (type >= 0 && (key_is(kv, "general.file_type", false) ||
                                   key_is(kv, "general.quantization_version", false)));
    if (!replaced) ist_gguf_put_kv(w, kv);
  }
  for (size_t i = 0; type >= 0 && i < sizeof file_types / sizeof *file_types; i++)
    if (file_types[i].type == (ist_dtype)type)
      ist_gguf_put_u32(w, "general.file_type", file_types[i].file_type);
  if (type >= 0) ist_gguf_put_u32(w, "general.quantization_version", 2);
  put_text(w, PROVENANCE "base", base_name(m->path));
  if (adapter) put_text(w, PROVENANCE "adapter", adapter);
  put_text(w, PROVENANCE "version", ist_version());
}

/* ---- Tensors ---- */

/* The file's dimensions of a tensor: a vector stays one, a stack a stack. */
static void put_tensor(ist_gguf_writer *w, ist_merge_item *it) {
  int64_t ne[3] = {it->from.cols, it->from.rows, 1};
  int n_dims = it->from.rows == 1 ? 1 : 2;
  if (ist_tensor_is_stack(it->id) && !it->bias) {
    ne[2] = it->model->config.experts;
    ne[1] /= ne[2];
    n_dims = 3;
  }
  if (ist_merge_is_copy(it))
    ist_gguf_put_tensor_data(w, it->name, it->to, n_dims, ne, it->from.data);
  else
    ist_gguf_put_tensor(w, it->name, it->to, n_dims, ne, ist_merge_read, it);
}

/* Tensors that belong to the file but not to the engine (rotary factors). */
static void put_side_tensors(ist_gguf_writer *w, const ist_model *m, const ist_merge_list *list) {
  for (int64_t i = 0; i < m->source.n; i++) {
    const ist_gguf_tensor *t = &m->source.tensor[i];
    bool listed = false;
    for (int64_t j = 0; j < list->n && !listed; j++) listed = list->p[j].from.data == t->data;
    char name[64];
    snprintf(name, sizeof name, "%.*s", (int)t->name.len, t->name.p);
    if (!listed) ist_gguf_put_tensor_data(w, name, t->type, t->n_dims, t->ne, t->data);
  }
}

/* Families whose files cannot have a head of their own in llama.cpp. */
static ist_status check_untied(const ist_merge_list *list, const ist_model *m, ist_error *err) {
  static const char *const always_tied[] = {"gemma", "gemma2", "gemma3", "command-r", "cohere2"};
  bool own_head = false;
  for (int64_t i = 0; i < list->n; i++) own_head |= list->p[i].id == IST_T_OUTPUT;
  if (!own_head || !m->config.tied) return IST_OK;
  for (size_t i = 0; i < sizeof always_tied / sizeof *always_tied; i++)
    if (strcmp(m->config.arch, always_tied[i]) == 0)
      return ist_fail(err, IST_ERR_UNSUPPORTED,
                      "%s: the adapter changes only one of embedding and head, and files of "
                      "\"%s\" cannot hold them apart",
                      m->path, m->config.arch);
  return IST_OK;
}

ist_status ist_merge_write_gguf(ist_merge_list *list, const ist_model *m, int type,
                                const char *path, const char *adapter, ist_error *err) {
  bool tied = m->config.tied;
  for (int64_t i = 0; i < list->n; i++) tied &= list->p[i].id != IST_T_OUTPUT;
  IST_TRY(check_untied(list, m, err));
  IST_TRY(choose_types(list, type, tied, err));
  ist_gguf_writer *w = ist_gguf_writer_new();
  if (!w) return ist_fail_nomem(err, path, 0);
  put_keys(w, m, type, adapter ? base_name(adapter) : NULL);
  for (int64_t i = 0; i < list->n; i++) put_tensor(w, &list->p[i]);
  put_side_tensors(w, m, list);
  ist_status s = ist_gguf_write(w, path, err);
  ist_gguf_writer_free(w);
  return s;
}
