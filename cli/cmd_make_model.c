/* cmd_make_model.c: a random model for benchmarks. */
#include <stdio.h>
#include <unistd.h>

#include "cmd.h"
#include "text.h"

int ist_cmd_make_model(ist_args *a) {
  ist_error err = {0};
  ist_shape shape;
  ist_status s = IST_OK;
  if (!ist_shape_find(a->shape, &shape)) {
    s = ist_cli_fail(&err, IST_ERR_ARG, "--shape: libist does not know \"%s\"", a->shape);
  } else if (!a->overwrite_file && access(a->argument, F_OK) == 0) {
    s = ist_cli_fail(&err, IST_ERR_IO, "%s: is there already", a->argument);
    ist_cli_hint(&err, "--overwrite replaces it");
  }
  if (!s) s = ist_make_model(a->argument, &shape, a->type, a->seed, &err);
  return s ? ist_report_error(&err) : 0;
}
