/* The files beside tokenizer.json: which tokens begin, end and pad a text, which
 * end generation, and the chat template. */
#include <string.h>

#include "base/file.h"
#include "tokenizer/json_tokenizer.h"

enum { MAX_TEMPLATE = 4 << 20 };

/* Reads a JSON file of the folder; one that may be absent leaves *out NULL. */
static ist_status read_json(json_t **out, const char *folder, const char *name, bool required,
                            ist_json_limit limit, ist_error *err) {
  char *path = ist_path_join(folder, name);
  if (!path) return ist_fail_nomem(err, "a path", strlen(folder));
  ist_status status = IST_OK;
  if (required || ist_file_exists(path)) status = ist_json_read(out, path, limit, err);
  ist_free(path);
  return status;
}

static ist_status read_template_file(ist_json_reader *r, const char *folder, ist_error *err) {
  char *path = ist_path_join(folder, "chat_template.jinja");
  if (!path) return ist_fail_nomem(err, "a path", strlen(folder));
  ist_status status = IST_OK;
  ist_buf text = {0};
  if (ist_file_exists(path)) {
    status = ist_file_read(&text, path, MAX_TEMPLATE, err);
    if (status == IST_OK) {
      r->t->chat_template = ist_strndup(text.p, text.len);
      if (!r->t->chat_template) status = ist_fail_nomem(err, "the chat template", text.len);
    }
  }
  ist_buf_free(&text);
  ist_free(path);
  return status;
}

ist_status ist_json_read_files(ist_json_reader *r, const char *folder, ist_error *err) {
  IST_TRY(read_json(&r->root, folder, "tokenizer.json", true, IST_JSON_TOKENIZER, err));
  IST_TRY(read_json(&r->config, folder, "tokenizer_config.json", false, IST_JSON_SETTINGS, err));
  IST_TRY(
      read_json(&r->specials, folder, "special_tokens_map.json", false, IST_JSON_SETTINGS, err));
  IST_TRY(
      read_json(&r->generation, folder, "generation_config.json", false, IST_JSON_SETTINGS, err));
  return read_template_file(r, folder, err);
}

/* A special token by its role, a string or an object with `content`; -1: none. */
static int32_t special_by_role(const ist_json_reader *r, const char *role) {
  const json_t *places[] = {r->config, r->specials};
  for (int i = 0; i < 2; i++) {
    const json_t *v = ist_json_field(places[i], role);
    if (json_is_object(v)) v = json_object_get(v, "content");
    const char *text = json_string_value(v);
    int32_t id = text ? ist_strtab_find(&r->tokens.by_text, text, strlen(text)) : -1;
    if (id >= 0) return id;
  }
  return -1;
}

/* The template in tokenizer_config.json: a string, or a list of which the one
 * named "default" counts. */
static const char *config_template(const json_t *v) {
  if (json_is_string(v)) return json_string_value(v);
  for (size_t i = 0; i < json_array_size(v); i++) {
    const json_t *item = json_array_get(v, i);
    const char *name = json_string_value(json_object_get(item, "name"));
    if (name && strcmp(name, "default") == 0)
      return json_string_value(json_object_get(item, "template"));
  }
  return NULL;
}

static void mark_generation_ends(ist_json_reader *r) {
  ist_vocab *v = &r->t->vocab;
  const json_t *eos = ist_json_field(r->generation, "eos_token_id");
  size_t n = json_is_array(eos) ? json_array_size(eos) : eos != NULL;
  for (size_t i = 0; i < n; i++) {
    const json_t *item = json_is_array(eos) ? json_array_get(eos, i) : eos;
    json_int_t id = json_is_integer(item) ? json_integer_value(item) : -1;
    if (id >= 0 && id < v->n) v->flags[id] |= IST_TOKEN_EOG;
  }
}

ist_status ist_json_apply_config(ist_json_reader *r, ist_error *err) {
  ist_vocab *v = &r->t->vocab;
  const char *chat = config_template(ist_json_field(r->config, "chat_template"));
  if (chat && !r->t->chat_template) {
    r->t->chat_template = ist_strdup(chat);
    if (!r->t->chat_template) return ist_fail_nomem(err, "the chat template", strlen(chat));
  }
  const ist_ids *before = &r->t->before, *behind = &r->t->behind;
  v->bos = special_by_role(r, "bos_token");
  if (v->bos < 0 && before->n == 1) v->bos = before->p[0];
  v->eos = special_by_role(r, "eos_token");
  v->pad = special_by_role(r, "pad_token");
  if (v->unk < 0) v->unk = special_by_role(r, "unk_token");
  if (v->eos < 0 && behind->n == 1) v->eos = behind->p[0];
  if (v->eos >= 0) v->flags[v->eos] |= IST_TOKEN_EOG;
  mark_generation_ends(r);
  /* A post-processor that names tokens decides alone, as in transformers. */
  if (r->surrounded) return IST_OK;
  IST_TRY(ist_json_flag(r->config, "add_bos_token", false, &v->add_bos, err));
  return ist_json_flag(r->config, "add_eos_token", false, &v->add_eos, err);
}
