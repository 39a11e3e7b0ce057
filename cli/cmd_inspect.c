/* cmd_inspect.c: what is in a model, an adapter or a run. */
#include <stdio.h>

#include "cmd.h"
#include "text.h"

int ist_cmd_inspect(ist_args *a) {
  ist_error err = {0};
  char *json = NULL;
  ist_status s = ist_inspect(a->argument, &json, &err);
  if (!s && a->json) puts(json);
  else if (!s) s = ist_cmd_show_json(json, a->all, false, &err);
  ist_free_memory(json);
  return s ? ist_report_error(&err) : 0;
}
