/* The list of a base that is a Hugging Face folder: its tensors under their own names, in
 * their own layouts; and its configuration and tokenizer, which are copied. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "export/hf_folder.h"
#include "export/merge.h"
#include "format/quant.h"
#include "model/adapter_io.h"

/* ---- Weights ---- */

/* Which row of ours each of a fused q, k, v by heads is. */
static ist_status set_update_row(ist_merge_item *it, ist_error *err) {
  it->update_row = ist_calloc((size_t)it->from.rows, sizeof *it->update_row);
  if (!it->update_row)
    return ist_fail_nomem(err, it->name, (size_t)it->from.rows * sizeof *it->update_row);
  for (int64_t r = 0; r < it->from.rows; r++)
    it->update_row[ist_outside_row(&it->model->config, (ist_module)it->id, IST_ROWS_HF, r)] = r;
  return IST_OK;
}

/* Where the base keeps its linears as (in, out), the engine has a copy of each that is not. */
static bool is_turned(const ist_model *m, int64_t layer, int id, const ist_gguf_tensor *t) {
  return m->config.transposed && id < (int)IST_MOD_COUNT &&
         ist_tensor_find(&m->source, &m->config, layer, id, false) == t;
}

/* Says which matrix of the model the item's tensor `t` is, where it is one. */
static bool find_matrix(ist_merge_item *it, const ist_gguf_tensor *t, const ist_updates *u,
                        bool *fused) {
  const ist_model *m = it->model;
  for (int64_t l = -1; l < m->config.L; l++) {
    int first = l < 0 ? IST_T_MODEL_FIRST : 0, end = l < 0 ? (int)IST_T_END : IST_T_LAYER_COUNT;
    for (int i = first; i < end; i++) {
      const ist_stored *s = ist_weights_stored(&m->weights, l, i);
      const bool turned = is_turned(m, l, i, t);
      if (!turned &&
          (s->data != it->from.data || s->rows != it->from.rows || s->cols != it->from.cols))
        continue;
      it->layer = l;
      it->id = i;
      it->update = ist_updates_find(u, l, i, 0);
      it->turned = turned && it->update;
      if (it->turned) it->from = *s;
      *fused = s->n_parts > 0;
      return true;
    }
    for (int64_t e = 0; l >= 0 && ist_model_mixture(&m->config, l) && e < m->config.experts * 3;
         e++) {
      if (ist_weights_stored_expert(&m->weights, l, (int)(e % 3), e / 3)->data != it->from.data)
        continue;
      it->layer = l;
      it->id = IST_T_EXPERT_GATE + (int)(e % 3);
      it->update = ist_updates_find(u, l, it->id, e / 3);
      return true;
    }
  }
  return false;
}

static ist_status add_tensor(ist_merge_list *list, const ist_model *m, const ist_updates *u,
                             const ist_gguf_tensor *t, ist_error *err) {
  if (!ist_dequant_supported(t->type)) return IST_OK; /* masks, which newer versions leave out */
  const ist_stored from = {
      .data = t->data, .type = t->type, .rows = t->ne[1] * t->ne[2] * t->ne[3], .cols = t->ne[0]};
  ist_merge_item *it = ist_merge_list_add(list, m, t->name, &from, err);
  if (!it) return IST_ERR_NOMEM;
  it->n_dims = t->n_dims;
  for (int i = 0; i < t->n_dims; i++) it->shape[i] = t->ne[t->n_dims - 1 - i];
  bool fused = false;
  if (find_matrix(it, t, u, &fused) && it->update && fused) return set_update_row(it, err);
  return IST_OK;
}

/* A head of its own for a tied base of which one side was changed. */
static ist_status add_head(ist_merge_list *list, const ist_model *m, const ist_updates *u,
                           ist_error *err) {
  char stem[128];
  bool named = ist_tensor_hf_stem(stem, sizeof stem, &m->config, -1, IST_T_OUTPUT);
  IST_ASSERT(named);
  const ist_stored *from = ist_merge_tied_head(m);
  IST_TRY(ist_grow(&list->p, &list->cap, list->n + 1, sizeof *list->p, err));
  ist_merge_item *it = &list->p[list->n++];
  *it = (ist_merge_item){.model = m,
                         .layer = -1,
                         .id = IST_T_OUTPUT,
                         .n_dims = 2,
                         .shape = {from->rows, from->cols},
                         .from = *from,
                         .to = from->type,
                         .update = ist_updates_find(u, -1, IST_T_OUTPUT, 0)};
  ist_buf name = {0};
  ist_buf_printf(&name, "%s.weight", stem);
  if (!name.failed) it->name = ist_strdup(name.p);
  ist_buf_free(&name);
  return it->name ? IST_OK : ist_fail_nomem(err, stem, sizeof stem);
}

ist_status ist_merge_list_folder(ist_merge_list *out, const ist_model *m, const ist_updates *u,
                                 ist_error *err) {
  for (int64_t i = 0; i < m->source.n; i++)
    IST_TRY(add_tensor(out, m, u, &m->source.tensor[i], err));
  return ist_merge_unties(m, u) ? add_head(out, m, u, err) : IST_OK;
}

/* ---- What stands beside them ---- */

json_t *ist_hf_config_copy(const ist_model *m, int type, bool apart, ist_error *err) {
  json_t *config = json_deep_copy(m->source.config);
  if (!config) {
    ist_fail_nomem(err, "config.json", 0);
    return NULL;
  }
  if (type >= 0) {
    json_object_del(config, "dtype");
    json_object_set_new(config, "torch_dtype", json_string(ist_hf_dtype((ist_dtype)type)));
  }
  if (apart) {
    json_t *text = json_object_get(config, "text_config");
    json_object_set_new(config, "tie_word_embeddings", json_false());
    if (json_is_object(text)) json_object_set_new(text, "tie_word_embeddings", json_false());
  }
  return config;
}

static bool is_beside(const char *name) {
  static const char *const ends[] = {".json", ".jinja", ".txt", ".model"};
  static const char *const own[] = {"config.json", "model.safetensors.index.json",
                                    "pytorch_model.bin.index.json"};
  for (size_t i = 0; i < sizeof own / sizeof *own; i++)
    if (strcmp(name, own[i]) == 0) return false;
  for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
    size_t n = strlen(name), e = strlen(ends[i]);
    if (name[0] != '.' && n > e && strcmp(name + n - e, ends[i]) == 0) return true;
  }
  return false;
}

/* A folder from elsewhere may hold a link to any file of this machine ("tokenizer.json ->
 * ~/.ssh/id_rsa"), which would stand in the merged folder, and be uploaded with it. A link is
 * followed within the folder; from a snapshot in Hugging Face's cache (REPOSITORY/snapshots/
 * REVISION) to REPOSITORY/blobs, of which its files are made; and from anywhere to the blobs of a
 * cached model (models--OWNER--NAME/blobs/HASH), as older downloads into a folder have it. */
static bool lies_in(const char *path, const char *folder, const char *below) {
  size_t n = strlen(folder), m = strlen(below);
  return strncmp(path, folder, n) == 0 && strncmp(path + n, below, m) == 0 && path[n + m] == '/';
}

static bool is_cached(const char *file) {
  static const char blobs[] = "/blobs/", models[] = "models--";
  const char *name = strrchr(file, '/'), *repository = name;
  const size_t n = sizeof blobs - 2; /* without the last slash, which is the name's */
  if ((size_t)(name - file) <= n || memcmp(name - n, blobs, n) != 0) return false;
  for (repository -= n; repository > file && repository[-1] != '/';) repository--;
  return strncmp(repository, models, sizeof models - 1) == 0;
}

static bool may_copy(const char *folder, const char *file) {
  if (lies_in(file, folder, "") || is_cached(file)) return true;
  const char *revision = strrchr(folder, '/');
  static const char snapshots[] = "/snapshots";
  const size_t n = sizeof snapshots - 1, len = (size_t)(revision - folder);
  if (len <= n || memcmp(revision - n, snapshots, n) != 0) return false;
  char *repository = ist_strndup(folder, len - n);
  bool fine = repository && lies_in(file, repository, "/blobs");
  ist_free(repository);
  return fine;
}

static ist_status check_link(const char *folder, const char *file, ist_error *err) {
  char *in = realpath(folder, NULL), *real = in ? realpath(file, NULL) : NULL;
  ist_status s = IST_OK;
  if (!real) {
    s = ist_fail(err, IST_ERR_IO, "cannot read '%s': %s", file, strerror(errno));
  } else if (!may_copy(in, real)) {
    s = ist_fail(err, IST_ERR_UNSUPPORTED,
                 "%s: found a link to %s, outside the model's folder, which is not copied", file,
                 real);
    ist_hint(err, "put the file itself in its place, or remove the link");
  }
  free(in);
  free(real);
  return s;
}

static ist_status copy_file(const char *from, const char *to, ist_error *err) {
  ist_buf bytes = {0};
  ist_status s = ist_file_read(&bytes, from, (size_t)1 << 28, err);
  if (s == IST_OK) s = ist_file_write(to, bytes.p, bytes.len, err);
  ist_buf_free(&bytes);
  return s;
}

ist_status ist_hf_copy_beside(const ist_model *m, const char *to, ist_error *err) {
  DIR *d = opendir(m->path);
  if (!d) return ist_fail(err, IST_ERR_IO, "cannot open '%s': %s", m->path, strerror(errno));
  ist_status s = IST_OK;
  const struct dirent *e;
  while (s == IST_OK && (e = readdir(d))) {
    if (!is_beside(e->d_name)) continue;
    char *source = ist_path_join(m->path, e->d_name), *target = ist_path_join(to, e->d_name);
    s = source && target ? check_link(m->path, source, err) : ist_fail_nomem(err, to, 0);
    if (s == IST_OK) s = copy_file(source, target, err);
    ist_free(source);
    ist_free(target);
  }
  closedir(d);
  return s;
}
