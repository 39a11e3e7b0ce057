/* cmd_diff.c: which layers a fine-tune moved, and by how much. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd.h"
#include "text.h"

typedef struct tensor {
  char name[128], stem[40];
  int64_t layer;
  double a, b, diff, cosine;
  bool only_a, only_b;
} tensor;

typedef struct tensors {
  tensor *p;
  size_t n, cap;
  bool failed;
} tensors;

/* What a column is headed by: the name behind the layer's number, without .weight and
 * without what stands before its last dot. */
static void stem_of(char out[40], const char *name, int64_t layer) {
  char number[32];
  snprintf(number, sizeof number, ".%lld.", (long long)layer);
  const char *at = layer >= 0 ? strstr(name, number) : NULL;
  const char *from = at ? at + strlen(number) : name;
  size_t len = strlen(from);
  if (len > 7 && !strcmp(from + len - 7, ".weight")) len -= 7;
  for (size_t i = 0; at && i < len; i++)
    if (from[i] == '.') {
      from += i + 1;
      len -= i + 1;
      i = 0;
    }
  snprintf(out, 40, "%.*s", (int)len, from);
}

static void take(void *user, const ist_diff_tensor *d) {
  tensors *list = user;
  if (list->n == list->cap) {
    size_t cap = list->cap ? 2 * list->cap : 256;
    tensor *p = realloc(list->p, cap * sizeof *p);
    list->failed |= !p;
    if (!p) return;
    list->p = p;
    list->cap = cap;
  }
  tensor *t = &list->p[list->n++];
  *t = (tensor){.layer = d->layer,
                .a = d->norm_a,
                .b = d->norm_b,
                .diff = d->norm_diff,
                .cosine = d->cosine,
                .only_a = d->only_a,
                .only_b = d->only_b};
  snprintf(t->name, sizeof t->name, "%s", d->name);
  stem_of(t->stem, d->name, d->layer);
}

/* B's distance from A relative to A's norm; NaN where A is 0. */
static double relative(double diff, double a) {
  return a > 0 ? diff / a : NAN;
}

static void put_share(double share, int width) {
  if (isfinite(share))
    printf(" %*.3f%%", width - 1, 100 * share);
  else
    printf(" %*s", width, "-");
}

/* ---- The table: a row a layer, a column a tensor ---- */

enum { MOST_COLUMNS = 16 };

typedef struct columns {
  const char *stem[MOST_COLUMNS];
  int n;
} columns;

static columns find_columns(const tensors *list) {
  columns c = {0};
  for (size_t i = 0; i < list->n; i++) {
    int j = 0;
    while (j < c.n && strcmp(c.stem[j], list->p[i].stem)) j++;
    if (list->p[i].layer >= 0 && j == c.n && c.n < MOST_COLUMNS) c.stem[c.n++] = list->p[i].stem;
  }
  return c;
}

/* The tensors of one layer. The list is sorted by layer: a number in a file may be any. */
typedef struct layer {
  tensor *const *p;
  size_t n;
} layer;

static layer next_layer(tensor *const *sorted, size_t n, size_t from) {
  layer l = {sorted + from, 0};
  while (from + l.n < n && sorted[from + l.n]->layer == l.p[0]->layer) l.n++;
  return l;
}

static const tensor *cell(layer l, const char *stem) {
  for (size_t i = 0; i < l.n; i++)
    if (!strcmp(l.p[i]->stem, stem)) return l.p[i];
  return NULL;
}

/* The whole layer as one vector. */
static double layer_share(layer l) {
  double a2 = 0, diff2 = 0;
  for (size_t i = 0; i < l.n; i++) {
    a2 += l.p[i]->a * l.p[i]->a;
    diff2 += l.p[i]->diff * l.p[i]->diff;
  }
  return relative(sqrt(diff2), sqrt(a2));
}

static int column_width(const char *stem) {
  int n = ist_columns(stem);
  return n < 8 ? 8 : n;
}

static void show_layer(const ist_term *t, const columns *c, layer l, double most) {
  double share = layer_share(l);
  printf("%5lld", (long long)l.p[0]->layer);
  put_share(share, 9);
  for (int j = 0; j < c->n; j++) {
    const tensor *x = cell(l, c->stem[j]);
    put_share(x ? relative(x->diff, x->a) : NAN, column_width(c->stem[j]));
  }
  printf("  ");
  if (isfinite(share) && most > 0) ist_put_bar(t, share / most, 12);
  putchar('\n');
}

/* sorted: the tensors that are in a layer. */
static void show_layers(const ist_term *t, const tensors *list, tensor *const *sorted, size_t n) {
  columns c = find_columns(list);
  double most = 0;
  layer l;
  for (size_t i = 0; i < n; i += l.n) {
    l = next_layer(sorted, n, i);
    most = fmax(most, layer_share(l)); /* NaN: no more */
  }
  printf("layer     whole");
  for (int j = 0; j < c.n; j++) {
    ist_put_spaces(stdout, 1 + column_width(c.stem[j]) - ist_columns(c.stem[j]));
    ist_put_text(stdout, c.stem[j], 0);
  }
  putchar('\n');
  for (size_t i = 0; i < n; i += l.n) {
    l = next_layer(sorted, n, i);
    show_layer(t, &c, l, most);
  }
}

static int by_layer(const void *a, const void *b) {
  const tensor *const *x = a, *const *y = b;
  if ((*x)->layer != (*y)->layer) return (*x)->layer < (*y)->layer ? -1 : 1;
  return (*x > *y) - (*x < *y);
}

/* The tensors that are in a layer, by layer; the caller frees the list. NULL: no memory. */
static tensor **sort_layers(const tensors *list, size_t *n) {
  tensor **sorted = calloc(list->n + 1, sizeof *sorted);
  *n = 0;
  for (size_t i = 0; sorted && i < list->n; i++)
    if (list->p[i].layer >= 0) sorted[(*n)++] = &list->p[i];
  if (sorted) qsort(sorted, *n, sizeof *sorted, by_layer);
  return sorted;
}

static void show_rest(const tensors *list) {
  for (size_t i = 0; i < list->n; i++) {
    const tensor *x = &list->p[i];
    if (x->only_a || x->only_b) {
      ist_put_text(stdout, x->name, 0);
      printf(": only in %s\n", x->only_a ? "A" : "B");
    } else if (x->layer < 0) {
      ist_put_text(stdout, x->name, 0);
      putchar(':');
      put_share(relative(x->diff, x->a), 8);
      putchar('\n');
    }
  }
}

/* False: no memory, and nothing shown. */
static bool show(const tensors *list) {
  size_t n;
  tensor **sorted = sort_layers(list, &n);
  if (!sorted) return false;
  ist_term t = ist_term_of(stdout);
  double a2 = 0, diff2 = 0;
  for (size_t i = 0; i < list->n; i++) {
    a2 += list->p[i].a * list->p[i].a;
    diff2 += list->p[i].diff * list->p[i].diff;
  }
  puts("distance of B from A, relative to A:");
  if (n) show_layers(&t, list, sorted, n);
  free(sorted);
  show_rest(list);
  printf("all together:");
  put_share(relative(sqrt(diff2), sqrt(a2)), 8);
  putchar('\n');
  return true;
}

static json_t *number(double v) {
  return isfinite(v) ? json_real(v) : json_null();
}

static void show_json(const tensors *list) {
  json_t *array = json_array();
  for (size_t i = 0; i < list->n; i++) {
    const tensor *x = &list->p[i];
    char *name = ist_repair_utf8(x->name); /* it may be cut within a character */
    json_array_append_new(
        array, json_pack("{s:s, s:I, s:o, s:o, s:o, s:o, s:o, s:s?}", "name", name ? name : "",
                         "layer", (json_int_t)x->layer, "norm_a", number(x->a), "norm_b",
                         number(x->b), "norm_diff", number(x->diff), "relative",
                         number(relative(x->diff, x->a)), "cosine", number(x->cosine), "only_in",
                         x->only_a   ? "A"
                         : x->only_b ? "B"
                                     : NULL));
    free(name);
  }
  char *text = json_dumps(array, JSON_INDENT(2));
  if (text) ist_put_json(stdout, text);
  free(text);
  json_decref(array);
}

int ist_cmd_diff(ist_args *a) {
  ist_error err = {0};
  tensors list = {0};
  ist_set_threads((int)a->threads);
  ist_status s = ist_diff(a->argument, a->second, take, &list, &err);
  if (!s && !list.failed && a->json)
    show_json(&list);
  else if (!s && !list.failed)
    list.failed = !show(&list);
  if (!s && list.failed) s = ist_cli_fail(&err, IST_ERR_NOMEM, "out of memory");
  free(list.p);
  return s ? ist_report_error(&err) : 0;
}
