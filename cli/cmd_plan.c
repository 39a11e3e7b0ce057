/* cmd_plan.c: the memory a training run would take. */
#include <stdio.h>

#include "cmd.h"
#include "text.h"

int ist_cmd_plan(ist_args *a) {
  ist_error err = {0};
  char *json = NULL;
  ist_set_threads((int)a->threads);
  ist_status s = ist_plan(a->model_path, &a->train, &json, &err);
  if (!s && a->json) puts(json);
  else if (!s) s = ist_cmd_show_json(json, a->all, true, &err);
  ist_free_memory(json);
  return s ? ist_report_error(&err) : 0;
}
