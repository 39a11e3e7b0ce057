/* cmd_make_model.c: a random model for benchmarks. */
#include <stdio.h>
#include <unistd.h>

#include "cmd.h"
#include "text.h"

/* The sizes of the named shape, but for those that were given. */
static void take_sizes(ist_shape *s, const ist_shape *given) {
  const struct {
    int64_t *size, given;
  } sizes[] = {
      {&s->L, given->L}, {&s->D, given->D}, {&s->F, given->F}, {&s->H, given->H},
      {&s->K, given->K}, {&s->E, given->E}, {&s->V, given->V}, {&s->context, given->context},
  };
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
    if (sizes[i].given) *sizes[i].size = sizes[i].given;
}

int ist_cmd_make_model(ist_args *a) {
  ist_error err = {0};
  ist_shape shape;
  ist_status s = IST_OK;
  if (!ist_shape_find(a->shape, &shape)) {
    s = ist_cli_fail(&err, IST_ERR_ARG, "--shape: libist does not know \"%s\"", a->shape);
  } else if (!a->overwrite_file && access(a->made_path, F_OK) == 0) {
    s = ist_cli_fail(&err, IST_ERR_IO, "%s: is there already", a->made_path);
    ist_cli_hint(&err, "--overwrite replaces it");
  }
  if (!s) take_sizes(&shape, &a->sizes);
  if (!s) s = ist_make_model(a->made_path, &shape, a->type, a->seed, &err);
  return s ? ist_report_error(&err) : 0;
}
