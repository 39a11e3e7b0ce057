/* Public calls on an open model that need rooms above src/model. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "export/adapter_files.h"

void ist_free_memory(void *p) {
  ist_free(p);
}

/* The template that a run trained with, from DIR/settings.json; NULL when the
 * directory is not a run's. Fresh memory. */
static char *run_template(const char *dir) {
  char *path = ist_path_join(dir, "settings.json"), *name = NULL;
  json_t *root = path ? json_load_file(path, 0, NULL) : NULL;
  const char *text = json_string_value(json_object_get(root, "template"));
  if (text) name = ist_strdup(text);
  json_decref(root);
  ist_free(path);
  return name;
}

ist_status ist_model_set_adapter(ist_model *m, const char *dir, ist_error *err) {
  IST_TRY(ist_model_check_free(m, err));
  ist_adapters loaded;
  unsigned char *params = NULL;
  if (dir) IST_TRY(ist_adapter_load(&loaded, &params, dir, m, err));
  ist_free(m->own_adapter);
  ist_free(m->template_name);
  m->own_adapter = params;
  m->template_name = dir ? run_template(dir) : NULL;
  if (dir) m->loaded = loaded;
  m->adapters = dir ? &m->loaded : NULL;
  return IST_OK;
}

ist_status ist_tokenize(const ist_model *m, const char *text, size_t len, bool special,
                        int32_t **ids, int64_t *n, ist_error *err) {
  ist_ids out = {0};
  ist_status status = ist_tokenizer_encode(m->tokenizer, text, len, special, &out, err);
  if (status != IST_OK) {
    ist_ids_free(&out);
    return status;
  }
  *ids = out.p;
  *n = out.n;
  return IST_OK;
}

ist_status ist_detokenize(const ist_model *m, const int32_t *ids, int64_t n, bool special,
                          char **text, size_t *len, ist_error *err) {
  ist_buf out = {0};
  ist_status status = ist_tokenizer_decode(m->tokenizer, ids, n, special, &out, err);
  ist_buf_add(&out, "", 0);
  if (status == IST_OK && out.failed) status = ist_fail_nomem(err, "text", out.len);
  if (status != IST_OK) {
    ist_buf_free(&out);
    return status;
  }
  *text = out.p;
  *len = out.len;
  return IST_OK;
}
