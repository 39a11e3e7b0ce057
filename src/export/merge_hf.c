/* The merged model as a Hugging Face folder: sharded safetensors with an index,
 * configuration, tokenizer. Everything is written beside the folder and moved into
 * it at the end. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/mem.h"
#include "export/hf_folder.h"
#include "export/merge.h"
#include "format/safetensors.h"
#include "model/adapter_io.h"

/* ---- Weights ---- */

static ist_status fill_items(ist_st_item *items, ist_merge_list *list, int type, ist_error *err) {
  for (int64_t i = 0; i < list->n; i++) {
    ist_merge_item *it = &list->p[i];
    if (type >= 0) it->to = (ist_dtype)type;
    IST_TRY(
        ist_merge_check_type(it, "--type F32 (or F16, BF16) writes all tensors in that type", err));
    items[i] = (ist_st_item){.name = it->name, .type = it->to, .n_dims = it->n_dims, .user = it};
    memcpy(items[i].shape, it->shape, sizeof it->shape);
  }
  return IST_OK;
}

/* Where each shard begins: shard[s] .. shard[s + 1]. Returns their number. */
static int64_t split_shards(int64_t *shard, const ist_st_item *items, int64_t n,
                            int64_t shard_bytes) {
  int64_t count = 0, bytes = 0;
  for (int64_t i = 0; i < n; i++) {
    int64_t b = ist_st_item_bytes(&items[i]);
    if (i == 0 || (bytes + b > shard_bytes && bytes > 0)) {
      shard[count++] = i;
      bytes = 0;
    }
    bytes += b;
  }
  shard[count] = n;
  return count;
}

static void shard_name(char *out, size_t size, int64_t s, int64_t count) {
  if (count == 1)
    snprintf(out, size, "model.safetensors");
  else
    snprintf(out, size, "model-%05lld-of-%05lld.safetensors", (long long)s + 1, (long long)count);
}

static ist_status write_json(const char *dir, const char *name, json_t *root, ist_error *err) {
  char *path = ist_path_join(dir, name);
  char *text = root ? json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(15)) : NULL;
  json_decref(root);
  ist_status s =
      path && text ? ist_file_write(path, text, strlen(text), err) : ist_fail_nomem(err, name, 0);
  ist_free(path);
  free(text);
  return s;
}

static ist_status write_index(const char *dir, const ist_st_item *items, const int64_t *shard,
                              int64_t count, ist_error *err) {
  json_t *map = json_object();
  int64_t bytes = 0;
  for (int64_t s = 0; s < count; s++) {
    char name[64];
    shard_name(name, sizeof name, s, count);
    for (int64_t i = shard[s]; i < shard[s + 1]; i++) {
      json_object_set_new(map, items[i].name, json_string(name));
      bytes += ist_st_item_bytes(&items[i]);
    }
  }
  return write_json(
      dir, "model.safetensors.index.json",
      json_pack("{s:{s:I}, s:o}", "metadata", "total_size", (json_int_t)bytes, "weight_map", map),
      err);
}

static ist_status write_shards(const char *dir, const ist_st_item *items, int64_t n,
                               int64_t shard_bytes, ist_error *err) {
  int64_t *shard = ist_calloc((size_t)n + 1, sizeof *shard);
  if (!shard) return ist_fail_nomem(err, dir, (size_t)n * sizeof *shard);
  int64_t count = split_shards(shard, items, n, shard_bytes);
  ist_status status = IST_OK;
  for (int64_t s = 0; s < count && status == IST_OK; s++) {
    char name[64];
    shard_name(name, sizeof name, s, count);
    char *path = ist_path_join(dir, name);
    status = path ? ist_safetensors_stream(path, items + shard[s], shard[s + 1] - shard[s],
                                           ist_merge_read, err)
                  : ist_fail_nomem(err, dir, sizeof name);
    ist_free(path);
  }
  if (status == IST_OK && count > 1) status = write_index(dir, items, shard, count, err);
  ist_free(shard);
  return status;
}

/* ---- The tokenizer ---- */

static ist_status write_tokenizer(const char *dir, const ist_model *m, ist_error *err) {
  ist_error why;
  json_t *tokenizer = ist_hf_tokenizer(m, &why);
  if (!tokenizer && why.code == IST_ERR_UNSUPPORTED) {
    ist_log(IST_LOG_WARN, "%s; the folder gets no tokenizer: copy it from the original",
            why.message);
    return IST_OK;
  }
  IST_TRY(write_json(dir, "tokenizer.json", tokenizer, err));
  IST_TRY(write_json(dir, "tokenizer_config.json", ist_hf_tokenizer_config(m), err));
  const char *chat = ist_tokenizer_chat_template(m->tokenizer);
  if (!chat) return IST_OK;
  char *path = ist_path_join(dir, "chat_template.jinja");
  ist_status s = path ? ist_file_write(path, chat, strlen(chat), err) : ist_fail_nomem(err, dir, 0);
  ist_free(path);
  return s;
}

/* ---- The folder ---- */

/* config.json, the base's own or one made of a GGUF's keys; NULL: err says why. */
static json_t *config_of(const ist_merge_list *list, const ist_st_item *items, const ist_model *m,
                         int type, ist_error *err) {
  if (!m->source.gguf) return ist_hf_config_copy(m, type, ist_merge_sets_apart(list), err);
  bool tied = true;
  for (int64_t i = 0; i < list->n; i++) tied &= list->p[i].id != IST_T_OUTPUT;
  json_t *config = ist_hf_config(m, (ist_dtype)type, tied, err);
  if (!config || ist_hf_check(m, config, items, list->n, err) == IST_OK) return config;
  json_decref(config);
  return NULL;
}

static ist_status write_beside(const char *dir, const ist_model *m, ist_error *err) {
  if (!m->source.gguf) return ist_hf_copy_beside(m, dir, err);
  IST_TRY(write_tokenizer(dir, m, err));
  return write_json(dir, "generation_config.json", ist_hf_generation_config(m), err);
}

/* Writes the files into `dir`, which are to be moved to o->output. */
static ist_status write_all(const char *dir, ist_merge_list *list, const ist_model *m, int type,
                            const ist_merge_options *o, ist_error *err) {
  ist_error why = {0};
  ist_st_item *items = ist_calloc((size_t)list->n, sizeof *items);
  if (!items) return ist_fail_nomem(err, dir, (size_t)list->n * sizeof *items);
  ist_status s = fill_items(items, list, type, err);
  json_t *config = s == IST_OK ? config_of(list, items, m, type, &why) : NULL;
  if (s == IST_OK) s = config ? ist_mkdirs(dir, err) : why.code;
  if (why.code != IST_OK && err) *err = why;
  if (s == IST_OK) s = write_beside(dir, m, err); /* the quick part first: it may refuse a file */
  if (s == IST_OK) s = ist_merge_check_place(dir, o->output, o->overwrite, err);
  if (s == IST_OK) s = write_shards(dir, items, list->n, o->shard_bytes, err);
  if (s == IST_OK) s = write_json(dir, "config.json", json_incref(config), err);
  json_decref(config);
  ist_free(items);
  return s;
}

ist_status ist_merge_write_hf(ist_merge_list *list, const ist_model *m, int type,
                              const ist_merge_options *o, ist_error *err) {
  const char *dir = o->output;
  if (type < 0 && m->source.gguf) type = IST_BF16;
  ist_buf temp = {0};
  size_t len = strlen(dir);
  while (len > 1 && dir[len - 1] == '/') len--;
  ist_buf_printf(&temp, "%.*s.tmp-%ld", (int)len, dir, (long)getpid());
  if (temp.failed) return ist_fail_nomem(err, dir, len);
  ist_unfinished_add(temp.p);
  ist_status s = write_all(temp.p, list, m, type, o, err);
  if (s == IST_OK) s = ist_mkdirs(dir, err);
  ist_error ignored;
  if (s != IST_OK) ist_remove_tree(temp.p, &ignored);
  ist_unfinished_remove(temp.p); /* from here on it may hold what is replaced */
  if (s == IST_OK) s = ist_merge_place(temp.p, dir, o->overwrite, err);
  ist_buf_free(&temp);
  return s;
}
