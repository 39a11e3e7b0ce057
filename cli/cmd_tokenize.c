/* cmd_tokenize.c: the tokens of a text. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd.h"
#include "text.h"

/* The text of one token; bytes that are no whole character as <E2>. */
static void put_token_text(const char *text, size_t len) {
  for (size_t i = 0, n; i < len; i += n) {
    unsigned char c = (unsigned char)text[i];
    n = c < 0x80 ? 1 : c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : c >= 0xc2 ? 2 : 1;
    bool whole = c < 0x80 || (n > 1 && i + n <= len);
    for (size_t k = 1; whole && k < n; k++) whole = ((unsigned char)text[i + k] & 0xc0) == 0x80;
    if (whole) {
      ist_put_clean(stdout, text + i, n, 0, false);
    } else {
      printf("<%02X>", c);
      n = 1;
    }
  }
}

static ist_status show_table(const ist_model *m, const int32_t *ids, int64_t n, ist_error *err) {
  for (int64_t i = 0; i < n; i++) {
    char *text = NULL;
    size_t len = 0;
    ist_status s = ist_detokenize(m, &ids[i], 1, true, &text, &len, err);
    if (s) return s;
    printf("%8d  \"", (int)ids[i]);
    put_token_text(text, len);
    puts("\"");
    ist_free_memory(text);
  }
  return IST_OK;
}

static void put_ids(const int32_t *ids, int64_t n, const char *separator) {
  for (int64_t i = 0; i < n; i++) printf("%s%d", i ? separator : "", (int)ids[i]);
}

static ist_status tokenize_text(const ist_model *m, const ist_args *a, ist_error *err) {
  int32_t *ids = NULL;
  int64_t n = 0;
  size_t len = 0;
  char *text = ist_cmd_read_argument(a, &len, err);
  if (!text) return err->code;
  ist_status s = ist_tokenize(m, text, len, a->special, &ids, &n, err);
  if (!s && a->ids) {
    put_ids(ids, n, " ");
    putchar('\n');
  } else if (!s) {
    s = show_table(m, ids, n, err);
    if (!s && !a->quiet) fprintf(stderr, "%lld tokens for %zu bytes\n", (long long)n, len);
  }
  ist_free_memory(ids);
  free(text);
  return s;
}

/* A JSON string a line on standard input, an array of ids a line on standard output. */
static ist_status tokenize_lines(const ist_model *m, const ist_args *a, ist_error *err) {
  char *line = NULL;
  size_t cap = 0;
  ssize_t got;
  ist_status s = IST_OK;
  for (int64_t number = 1; !s && (got = getline(&line, &cap, stdin)) > 0; number++) {
    json_error_t problem;
    json_t *value = json_loadb(line, (size_t)got, JSON_DECODE_ANY | JSON_ALLOW_NUL, &problem);
    int32_t *ids = NULL;
    int64_t n = 0;
    if (!json_is_string(value))
      s = ist_cli_fail(err, IST_ERR_DATA, "standard input:%lld: %s, expected a JSON string",
                       (long long)number, value ? "found another JSON value" : problem.text);
    else
      s = ist_tokenize(m, json_string_value(value), json_string_length(value), a->special, &ids, &n,
                       err);
    if (!s) {
      putchar('[');
      put_ids(ids, n, ",");
      puts("]");
    }
    ist_free_memory(ids);
    json_decref(value);
  }
  free(line);
  return s;
}

int ist_cmd_tokenize(ist_args *a) {
  ist_error err = {0};
  ist_model *m = NULL;
  ist_status s = IST_OK;
  if (a->json_lines && a->argument)
    s = ist_cli_fail(&err, IST_ERR_ARG,
                     "--json-lines reads standard input, found the argument \"%.80s\"",
                     a->argument);
  if (!s) s = ist_cmd_open_model(&m, a, &err);
  if (!s) s = a->json_lines ? tokenize_lines(m, a, &err) : tokenize_text(m, a, &err);
  ist_model_close(m);
  return s ? ist_report_error(&err) : 0;
}
