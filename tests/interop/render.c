/* render TEMPLATE: renders a chat template over a JSON object a line of standard
 * input, with `now` its seconds since 1970; writes {"text": ...} or {"error": ...}
 * a line. For check_templates.py. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "jinja/jinja.h"

int main(int argc, char **argv) {
  ist_error err = {0};
  ist_buf source = {0};
  ist_jinja *t = NULL;
  if (argc != 2 || ist_file_read(&source, argv[1], 4 << 20, &err) != IST_OK) return 2;
  ist_status parsed = ist_jinja_parse(&t, source.p, source.len, &err);
  char *line = NULL;
  size_t cap = 0;
  ssize_t got;
  while ((got = getline(&line, &cap, stdin)) > 0) {
    json_t *globals = json_loadb(line, (size_t)got, 0, NULL);
    ist_jinja_options o = {.now = (time_t)json_integer_value(json_object_get(globals, "now"))};
    ist_buf text = {0};
    ist_status status = parsed;
    if (status == IST_OK) status = ist_jinja_render(t, globals, &o, &text, NULL, &err);
    json_t *out = status == IST_OK
                      ? json_pack("{s:o}", "text", json_stringn(text.p ? text.p : "", text.len))
                      : json_pack("{s:s}", "error", err.message);
    json_dumpf(out, stdout, JSON_COMPACT);
    putchar('\n');
    json_decref(out);
    json_decref(globals);
    ist_buf_free(&text);
  }
  free(line);
  ist_buf_free(&source);
  ist_jinja_free(t);
  return 0;
}
