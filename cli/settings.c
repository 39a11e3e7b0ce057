/* settings.c: what a run's settings.json says, as if it stood on the line. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "opts.h"

/* Ours has some 2 KB. What jansson makes of a text may be 80 times as large. */
enum { MOST_BYTES = 1 << 20 };

/* --resume sets these itself. */
static bool belongs_to_the_line(const char *key) {
  return !strcmp(key, "output") || !strcmp(key, "resume") || !strcmp(key, "overwrite");
}

static ist_status take(ist_args *a, const char *path, const char *key, json_t *value,
                       ist_error *err) {
  const ist_opt *o = ist_opt_find_key(IST_CMD_TRAIN, key);
  if (!o || belongs_to_the_line(key) || json_is_null(value)) return IST_OK;
  char where[4200];
  snprintf(where, sizeof where, "%s: %s", path, key);
  if (json_is_string(value)) return ist_opt_set(a, o, json_string_value(value), where, err);
  char *text = json_dumps(value, JSON_ENCODE_ANY);
  if (!text) return ist_cli_fail(err, IST_ERR_NOMEM, "out of memory");
  /* Numbers and truth values are read at once, so the text may go; a text option
   * would borrow it, and has no business being a number. */
  ist_status s;
  if (o->kind >= IST_OPT_TEXT)
    s = ist_cli_fail(err, IST_ERR_FORMAT, "%s: found %.80s, expected a string", where, text);
  else
    s = ist_opt_set(a, o, text, where, err);
  free(text);
  return s;
}

ist_status ist_settings_apply(ist_args *a, const char *dir, ist_error *err) {
  char path[4096];
  if (snprintf(path, sizeof path, "%s/settings.json", dir) >= (int)sizeof path)
    return ist_cli_fail(err, IST_ERR_ARG, "--resume: the name of the directory is too long");
  struct stat st;
  const bool exists = stat(path, &st) == 0;
  if (exists && !S_ISREG(st.st_mode))
    return ist_cli_fail(err, IST_ERR_IO,
                        "%s: found no regular file, expected the settings of a run", path);
  if (exists && st.st_size > MOST_BYTES)
    return ist_cli_fail(err, IST_ERR_FORMAT, "%s: found %lld bytes, expected at most %d", path,
                        (long long)st.st_size, MOST_BYTES);
  json_error_t problem;
  json_t *root = json_load_file(path, JSON_REJECT_DUPLICATES, &problem);
  if (!root && problem.line > 0)
    return ist_cli_fail(err, IST_ERR_FORMAT, "%s:%d: not JSON: %s", path, problem.line,
                        problem.text);
  if (!root) {
    ist_cli_fail(err, IST_ERR_IO, "--resume: %s", problem.text);
    ist_cli_hint(err, "--resume takes the output directory of a run");
    return IST_ERR_IO;
  }
  if (!json_is_object(root)) {
    json_decref(root);
    return ist_cli_fail(err, IST_ERR_FORMAT,
                        "%s: found no JSON object, expected the settings of a run", path);
  }
  a->settings = root;
  const char *key;
  json_t *value;
  json_object_foreach(root, key, value) {
    ist_status s = take(a, path, key, value, err);
    if (s) {
      if (err && err->code == IST_ERR_ARG) err->code = IST_ERR_FORMAT;
      return IST_ERR_FORMAT;
    }
  }
  return IST_OK;
}

void ist_args_free(ist_args *a) {
  json_decref(a->settings);
  a->settings = NULL;
}
