/* cmd_inspect.c: what is in a model, an adapter or a run. */
#include <stdio.h>
#include <string.h>

#include "cmd.h"
#include "text.h"

/* The row of a type in the summary, made where it is missing. */
static json_t *row_of(json_t *types, const char *type) {
  size_t i;
  json_t *row;
  json_array_foreach(types, i, row) {
    if (!strcmp(json_string_value(json_object_get(row, "type")), type)) return row;
  }
  row =
      json_pack("{s:s, s:I, s:I}", "type", type, "tensors", (json_int_t)0, "bytes", (json_int_t)0);
  return json_array_append_new(types, row) ? NULL : row;
}

static void add_to(json_t *row, const char *key, json_int_t n) {
  json_object_set_new(row, key, json_integer(json_integer_value(json_object_get(row, key)) + n));
}

/* How many tensors and bytes there are of each type. */
static json_t *summarise_types(const json_t *tensors) {
  json_t *types = json_array(), *tensor;
  size_t i;
  json_array_foreach(tensors, i, tensor) {
    const char *type = json_string_value(json_object_get(tensor, "type"));
    json_t *row = type ? row_of(types, type) : NULL;
    if (!row) continue;
    add_to(row, "tensors", 1);
    add_to(row, "bytes", json_integer_value(json_object_get(tensor, "bytes")));
  }
  return types;
}

static ist_status show(const char *json, bool all, ist_error *err) {
  json_t *root = NULL, *shown = json_object();
  ist_status s = ist_cmd_read_json(&root, json, err);
  if (!s) {
    json_object_set_new(shown, "types", summarise_types(json_object_get(root, "tensors")));
    json_object_update(shown, root);
    ist_cmd_show(shown, all, false);
  }
  json_decref(shown);
  json_decref(root);
  return s;
}

int ist_cmd_inspect(ist_args *a) {
  ist_error err = {0};
  char *json = NULL;
  if (!a->argument && !a->families) {
    ist_cli_fail(&err, IST_ERR_ARG, "ist inspect needs PATH or --families");
    return ist_report_error(&err);
  }
  ist_status s = a->families ? ist_families(&json, &err) : ist_inspect(a->argument, &json, &err);
  if (!s && a->json)
    ist_put_json(stdout, json);
  else if (!s)
    s = show(json, a->all, &err);
  ist_free_memory(json);
  return s ? ist_report_error(&err) : 0;
}
