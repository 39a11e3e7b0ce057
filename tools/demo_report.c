/* demo-report [--examples N] LABEL=FILE.jsonl ...
 *
 * Compares what several models answered to the same messages: a column a model,
 * rows for exact match and for every key of the expected records; then N messages
 * with the answers side by side. The files are those of `ist eval --task exact
 * --examples FILE`: lines with "prompt", "expected" and "got". */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

enum { MAX_COLUMNS = 8, MAX_KEYS = 32 };

typedef struct tally {
  const char *key; /* borrowed from a record */
  int asked, right;
} tally;

typedef struct column {
  char label[32];
  json_t *answers; /* array of the file's lines */
  int exact;
  tally all, keys[MAX_KEYS];
  int n_keys;
} column;

static const char *text_of(const json_t *answer, const char *key) {
  const char *text = json_string_value(json_object_get(answer, key));
  return text ? text : "";
}

/* Equal but for white space at both ends. */
static bool same_text(const char *a, const char *b) {
  static const char white[] = " \t\r\n";
  a += strspn(a, white);
  b += strspn(b, white);
  size_t n = strlen(a), m = strlen(b);
  while (n && strchr(white, a[n - 1])) n--;
  while (m && strchr(white, b[m - 1])) m--;
  return n == m && !memcmp(a, b, n);
}

static tally *tally_of(column *c, const char *key) {
  for (int i = 0; i < c->n_keys; i++)
    if (!strcmp(c->keys[i].key, key)) return &c->keys[i];
  if (c->n_keys == MAX_KEYS) return NULL;
  c->keys[c->n_keys].key = key;
  return &c->keys[c->n_keys++];
}

static void count(tally *t, bool right) {
  t->asked++;
  t->right += right;
}

/* Scores every answer: the text as a whole, then key by key. What is not a JSON
 * object has no key right. The expected records are kept: keys are borrowed. */
static void score(column *c) {
  size_t i;
  json_t *answer, *value;
  const char *key;
  json_array_foreach(c->answers, i, answer) {
    c->exact += same_text(text_of(answer, "expected"), text_of(answer, "got"));
    json_t *expected = json_loads(text_of(answer, "expected"), 0, NULL);
    json_t *got = json_loads(text_of(answer, "got"), 0, NULL);
    json_object_set_new(answer, "record", expected ? expected : json_null());
    json_object_foreach(expected, key, value) {
      bool right = json_equal(value, json_object_get(got, key));
      tally *t = tally_of(c, key);
      count(&c->all, right);
      if (t) count(t, right);
    }
    json_decref(got);
  }
}

static bool load(column *c, const char *argument) {
  const char *equals = strchr(argument, '=');
  if (!equals || equals == argument || (size_t)(equals - argument) >= sizeof c->label) return false;
  memcpy(c->label, argument, (size_t)(equals - argument));
  FILE *file = fopen(equals + 1, "r");
  c->answers = json_array();
  bool ok = file && c->answers;
  char *line = NULL;
  size_t cap = 0;
  while (ok && getline(&line, &cap, file) > 0)
    ok = json_array_append_new(c->answers, json_loads(line, 0, NULL)) == 0;
  free(line);
  if (file) fclose(file);
  if (!ok) fprintf(stderr, "error: %s: not the lines of `ist eval --examples`\n", equals + 1);
  return ok;
}

static void print_row(const char *name, const column *c, int n,
                      const tally *(*get)(const column *, const char *)) {
  printf("  %-14s", name);
  for (int i = 0; i < n; i++) {
    const tally *t = get(&c[i], name);
    if (t && t->asked) {
      printf("%8.1f %%", 100.0 * t->right / t->asked);
    } else {
      printf("%10s", "-");
    }
  }
  putchar('\n');
}

static const tally *get_key(const column *c, const char *key) {
  for (int i = 0; i < c->n_keys; i++)
    if (!strcmp(c->keys[i].key, key)) return &c->keys[i];
  return NULL;
}

static const tally *get_all(const column *c, const char *key) {
  (void)key;
  return &c->all;
}

static void print_table(const column *c, int n) {
  printf("  %-14s", "");
  for (int i = 0; i < n; i++) printf("%10s", c[i].label);
  printf("\n  %-14s", "exact match");
  for (int i = 0; i < n; i++)
    printf("%8.1f %%", 100.0 * c[i].exact / (double)json_array_size(c[i].answers));
  putchar('\n');
  print_row("all fields", c, n, get_all);
  for (int i = 0; i < c->n_keys; i++) print_row(c->keys[i].key, c, n, get_key);
}

/* A text on one line, so that long wrong answers stay readable. */
static void print_line(const char *label, const char *text) {
  printf("  %-10s", label);
  int width = 0;
  for (; *text && width < 100; text++, width++) putchar((unsigned char)*text < ' ' ? ' ' : *text);
  puts(*text ? " ..." : "");
}

/* Messages spread evenly over the file. */
static void print_examples(const column *c, int n, int examples) {
  int total = (int)json_array_size(c->answers);
  for (int e = 0; e < examples && e < total; e++) {
    size_t at = (size_t)e * (size_t)total / (size_t)examples;
    putchar('\n');
    print_line("message", text_of(json_array_get(c->answers, at), "prompt"));
    print_line("expected", text_of(json_array_get(c->answers, at), "expected"));
    for (int i = 0; i < n; i++)
      print_line(c[i].label, text_of(json_array_get(c[i].answers, at), "got"));
  }
}

int main(int argc, char **argv) {
  static column columns[MAX_COLUMNS];
  int n = 0, examples = 0, first = 1;
  if (argc > 2 && !strcmp(argv[1], "--examples")) {
    examples = atoi(argv[2]);
    first = 3;
  }
  if (first == argc || argc - first > MAX_COLUMNS) {
    fputs("usage: demo-report [--examples N] LABEL=FILE.jsonl ...\n", stderr);
    return 2;
  }
  bool ok = true;
  for (int i = first; ok && i < argc; i++) ok = load(&columns[n++], argv[i]);
  for (int i = 0; ok && i < n; i++) {
    score(&columns[i]);
    ok = json_array_size(columns[i].answers) == json_array_size(columns->answers) &&
         json_array_size(columns->answers) > 0;
    if (!ok) fputs("error: the files do not answer the same number of messages\n", stderr);
  }
  if (ok) {
    print_table(columns, n);
    print_examples(columns, n, examples);
  }
  for (int i = 0; i < n; i++) json_decref(columns[i].answers);
  return ok ? 0 : 1;
}
