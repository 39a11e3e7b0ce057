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
  size_t n;
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
  tensor *p = realloc(list->p, (list->n + 1) * sizeof *p);
  if (!p) {
    list->failed = true;
    return;
  }
  list->p = p;
  tensor *t = &p[list->n++];
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

static const tensor *cell(const tensors *list, int64_t layer, const char *stem) {
  for (size_t i = 0; i < list->n; i++)
    if (list->p[i].layer == layer && !strcmp(list->p[i].stem, stem)) return &list->p[i];
  return NULL;
}

/* The whole layer as one vector. */
static double layer_share(const tensors *list, int64_t layer) {
  double a2 = 0, diff2 = 0;
  for (size_t i = 0; i < list->n; i++) {
    if (list->p[i].layer != layer) continue;
    a2 += list->p[i].a * list->p[i].a;
    diff2 += list->p[i].diff * list->p[i].diff;
  }
  return relative(sqrt(diff2), sqrt(a2));
}

static int column_width(const char *stem) {
  int n = (int)strlen(stem);
  return n < 8 ? 8 : n;
}

static void show_layers(const ist_term *t, const tensors *list, int64_t layers) {
  columns c = find_columns(list);
  double most = 0;
  for (int64_t l = 0; l < layers; l++) most = fmax(most, layer_share(list, l)); /* NaN: no more */
  printf("layer     whole");
  for (int j = 0; j < c.n; j++) printf(" %*s", column_width(c.stem[j]), c.stem[j]);
  putchar('\n');
  for (int64_t l = 0; l < layers; l++) {
    double share = layer_share(list, l);
    printf("%5lld", (long long)l);
    put_share(share, 9);
    for (int j = 0; j < c.n; j++) {
      const tensor *x = cell(list, l, c.stem[j]);
      put_share(x ? relative(x->diff, x->a) : NAN, column_width(c.stem[j]));
    }
    printf("  ");
    if (isfinite(share) && most > 0) ist_put_bar(t, share / most, 12);
    putchar('\n');
  }
}

static void show_rest(const tensors *list) {
  for (size_t i = 0; i < list->n; i++) {
    const tensor *x = &list->p[i];
    if (x->only_a || x->only_b) {
      printf("%s: only in %s\n", x->name, x->only_a ? "A" : "B");
    } else if (x->layer < 0) {
      printf("%s:", x->name);
      put_share(relative(x->diff, x->a), 8);
      putchar('\n');
    }
  }
}

static void show(const tensors *list) {
  ist_term t = ist_term_of(stdout);
  int64_t layers = 0;
  double a2 = 0, diff2 = 0;
  for (size_t i = 0; i < list->n; i++) {
    if (list->p[i].layer >= layers) layers = list->p[i].layer + 1;
    a2 += list->p[i].a * list->p[i].a;
    diff2 += list->p[i].diff * list->p[i].diff;
  }
  puts("distance of B from A, relative to A:");
  if (layers) show_layers(&t, list, layers);
  show_rest(list);
  printf("all together:");
  put_share(relative(sqrt(diff2), sqrt(a2)), 8);
  putchar('\n');
}

static json_t *number(double v) {
  return isfinite(v) ? json_real(v) : json_null();
}

static void show_json(const tensors *list) {
  json_t *array = json_array();
  for (size_t i = 0; i < list->n; i++) {
    const tensor *x = &list->p[i];
    json_array_append_new(
        array, json_pack("{s:s, s:I, s:f, s:f, s:f, s:o, s:o, s:s?}", "name", x->name, "layer",
                         (json_int_t)x->layer, "norm_a", x->a, "norm_b", x->b, "norm_diff", x->diff,
                         "relative", number(relative(x->diff, x->a)), "cosine", number(x->cosine),
                         "only_in",
                         x->only_a   ? "A"
                         : x->only_b ? "B"
                                     : NULL));
  }
  char *text = json_dumps(array, JSON_INDENT(2));
  if (text) puts(text);
  free(text);
  json_decref(array);
}

int ist_cmd_diff(ist_args *a) {
  ist_error err = {0};
  tensors list = {0};
  ist_set_threads((int)a->threads);
  ist_status s = ist_diff(a->argument, a->second, take, &list, &err);
  if (!s && list.failed) s = ist_cli_fail(&err, IST_ERR_NOMEM, "out of memory");
  if (!s && a->json)
    show_json(&list);
  else if (!s)
    show(&list);
  free(list.p);
  return s ? ist_report_error(&err) : 0;
}
