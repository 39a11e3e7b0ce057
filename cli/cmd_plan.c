/* cmd_plan.c: the memory a training run would take. */
#include <stdio.h>

#include "cmd.h"
#include "text.h"

int ist_cmd_plan(ist_args *a) {
  ist_error err = {0};
  char *json = NULL;
  json_t *root = NULL;
  ist_set_threads((int)a->threads);
  ist_model_options model = ist_cmd_model_options(a);
  ist_status s = ist_plan(a->model_path, &model, &a->train, &json, &err);
  if (!s && a->json) {
    ist_put_json(stdout, json);
  } else if (!s) {
    s = ist_cmd_read_json(&root, json, &err);
    if (!s) ist_cmd_show(root, a->all, true);
  }
  json_decref(root);
  ist_free_memory(json);
  return s ? ist_report_error(&err) : 0;
}
