/* Public calls on an open model that need rooms above src/model. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "export/adapter_files.h"
#include "format/json.h"

void ist_free_memory(void *p) {
  ist_free(p);
}

/* The template that a run trained with, from DIR/settings.json; NULL when the
 * directory is not a run's. Fresh memory. */
static char *run_template(const char *dir) {
  char *path = ist_path_join(dir, "settings.json"), *name = NULL;
  json_t *root = NULL;
  if (path && ist_file_exists(path)) ist_json_read(&root, path, IST_JSON_SETTINGS, NULL);
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
  float *whole[IST_OUTER_COUNT] = {0};
  if (dir) IST_TRY(ist_adapter_load(&loaded, &params, whole, dir, m, err));
  ist_model_drop_adapter(m);
  ist_model_set_whole(m, whole);
  m->own_adapter = params;
  m->template_name = dir ? run_template(dir) : NULL;
  if (dir) m->loaded = loaded;
  m->adapters = dir ? &m->loaded : NULL;
  return IST_OK;
}
