/* cmd_tokenize.c: the tokens of a text. */
#include <errno.h>
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

/* A token a line; special ones without quotation marks. */
static ist_status show_table(const ist_tokenizer *t, const int32_t *ids, int64_t n,
                             ist_error *err) {
  for (int64_t i = 0; i < n; i++) {
    char *text = NULL;
    size_t len = 0;
    bool special;
    ist_status s = ist_tokenizer_token(t, ids[i], &text, &len, &special, err);
    if (s) return s;
    printf("%8d  %s", (int)ids[i], special ? "" : "\"");
    put_token_text(text, len);
    puts(special ? "" : "\"");
    ist_free_memory(text);
  }
  return IST_OK;
}

static void put_ids(const int32_t *ids, int64_t n, const char *separator) {
  for (int64_t i = 0; i < n; i++) printf("%s%d", i ? separator : "", (int)ids[i]);
}

static ist_status tokenize(const ist_tokenizer *t, const ist_args *a, const char *text, size_t len,
                           int32_t **ids, int64_t *n, ist_error *err) {
  ist_status s = ist_tokenizer_tokenize(t, text, len, a->special, ids, n, err);
  return s || !a->ends ? s : ist_tokenizer_add_ends(t, ids, n, err);
}

static ist_status tokenize_text(const ist_tokenizer *t, const ist_args *a, ist_error *err) {
  int32_t *ids = NULL;
  int64_t n = 0;
  size_t len = 0;
  char *text = ist_cmd_read_argument(a, &len, err);
  if (!text) return err->code;
  ist_status s = tokenize(t, a, text, len, &ids, &n, err);
  if (!s && a->ids) {
    put_ids(ids, n, " ");
    putchar('\n');
  } else if (!s) {
    s = show_table(t, ids, n, err);
    if (!s && !a->quiet) fprintf(stderr, "%lld tokens for %zu bytes\n", (long long)n, len);
  }
  ist_free_memory(ids);
  free(text);
  return s;
}

/* A JSON string becomes an array of ids. */
static ist_status string_to_ids(const ist_tokenizer *t, const ist_args *a, const json_t *value,
                                ist_error *err) {
  int32_t *ids = NULL;
  int64_t n = 0;
  ist_status s = tokenize(t, a, json_string_value(value), json_string_length(value), &ids, &n, err);
  if (!s) {
    putchar('[');
    put_ids(ids, n, ",");
    puts("]");
  }
  ist_free_memory(ids);
  return s;
}

/* An array of ids becomes a JSON string; bytes that are no UTF-8 as U+FFFD. */
static ist_status ids_to_string(const ist_tokenizer *t, const ist_args *a, const json_t *value,
                                ist_error *err) {
  size_t n = json_array_size(value), len = 0;
  int32_t *ids = calloc(n + 1, sizeof *ids);
  char *text = NULL;
  if (!ids) return ist_cli_fail(err, IST_ERR_NOMEM, "out of memory");
  for (size_t i = 0; i < n; i++) {
    json_int_t id = json_integer_value(json_array_get(value, i));
    ids[i] = id >= 0 && id <= INT32_MAX ? (int32_t)id : -1;
  }
  ist_status s = ist_tokenizer_detokenize(t, ids, (int64_t)n, a->special, &text, &len, err);
  free(ids);
  if (s) return s;
  json_t *string = json_stringn(text, len);
  if (!string) {
    char *repaired = ist_repair_utf8(text);
    string = repaired ? json_string(repaired) : NULL;
    free(repaired);
  }
  char *line = string ? json_dumps(string, JSON_ENCODE_ANY) : NULL;
  ist_put_json(stdout, line ? line : "");
  free(line);
  json_decref(string);
  ist_free_memory(text);
  return IST_OK;
}

/* A JSON value a line on standard input, its counterpart a line on standard output. */
static ist_status tokenize_lines(const ist_tokenizer *t, const ist_args *a, ist_error *err) {
  char *line = NULL;
  size_t cap = 0;
  ssize_t got;
  ist_status s = IST_OK;
  for (int64_t number = 1; !s && (got = getline(&line, &cap, stdin)) > 0; number++) {
    json_error_t problem;
    json_t *value = json_loadb(line, (size_t)got, JSON_DECODE_ANY | JSON_ALLOW_NUL, &problem);
    if (json_is_string(value))
      s = string_to_ids(t, a, value, err);
    else if (json_is_array(value))
      s = ids_to_string(t, a, value, err);
    else
      s = ist_cli_fail(err, IST_ERR_DATA,
                       "standard input:%lld: %s, expected a JSON string or an array of ids",
                       (long long)number, value ? "found another JSON value" : problem.text);
    json_decref(value);
  }
  if (!s && !feof(stdin)) s = ist_cli_fail(err, IST_ERR_IO, "standard input: %s", strerror(errno));
  free(line);
  return s;
}

int ist_cmd_tokenize(ist_args *a) {
  ist_error err = {0};
  ist_tokenizer *t = NULL;
  ist_status s = IST_OK;
  if (a->json_lines && a->argument)
    s = ist_cli_fail(&err, IST_ERR_ARG,
                     "--json-lines reads standard input, found the argument \"%.80s\"",
                     a->argument);
  if (!s) s = ist_tokenizer_open(&t, a->model_path, &err);
  if (!s) s = a->json_lines ? tokenize_lines(t, a, &err) : tokenize_text(t, a, &err);
  ist_tokenizer_free(t);
  return s ? ist_report_error(&err) : 0;
}
