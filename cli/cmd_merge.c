/* cmd_merge.c: an adapter merged into its model. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd.h"
#include "text.h"

enum { MOST_ALIKE = 1024 };

/* What was reported of the tensors with one name in all layers. */
typedef struct row {
  char name[64], type[16];
  int tensors;
  double change2, error2, most_change, most_error;
} row;

typedef struct table {
  row *p;
  int n;
  bool all; /* a row for every tensor */
} table;

/* "blk.3.attn_q.weight" without the number of its layer. */
static void common_name(char out[64], const ist_merge_tensor *t) {
  char number[32];
  snprintf(number, sizeof number, ".%lld.", (long long)t->layer);
  const char *at = t->layer >= 0 ? strstr(t->name, number) : NULL;
  if (at)
    snprintf(out, 64, "%.*s.*.%s", (int)(at - t->name), t->name, at + strlen(number));
  else
    snprintf(out, 64, "%s", t->name);
}

static void add_tensor(void *user, const ist_merge_tensor *t) {
  table *rows = user;
  char name[64];
  if (rows->all)
    snprintf(name, sizeof name, "%s", t->name);
  else
    common_name(name, t);
  if (!t->merged && t->error == 0) return; /* bytes that were copied */
  /* A model has fewer rows; a file that has more need not take the square of their number. */
  int i = rows->all ? rows->n : rows->n > MOST_ALIKE ? rows->n - MOST_ALIKE : 0;
  while (i < rows->n && (strcmp(rows->p[i].name, name) || strcmp(rows->p[i].type, t->type))) i++;
  if (i == rows->n) {
    row *p = realloc(rows->p, (size_t)(rows->n + 1) * sizeof *p);
    if (!p) return;
    rows->p = p;
    p[rows->n] = (row){0};
    snprintf(p[rows->n].name, sizeof p->name, "%s", name);
    snprintf(p[rows->n++].type, sizeof p->type, "%s", t->type);
  }
  row *r = &rows->p[i];
  r->tensors++;
  r->change2 += t->change * t->change;
  r->error2 += t->error * t->error;
  r->most_change = fmax(r->most_change, t->change);
  r->most_error = fmax(r->most_error, t->error);
}

static void show_table(const table *rows, const ist_merge_result *r) {
  printf("%-42s %-5s %7s  %18s  %18s\n", "", "", "", "changed by adapter", "added by rounding");
  printf("%-42s %-5s %7s  %8s  %8s  %8s  %8s\n", "tensors", "type", "number", "mean", "most",
         "mean", "most");
  for (int i = 0; i < rows->n; i++) {
    const row *p = &rows->p[i];
    ist_put_spaces(stdout, 42 - ist_put_text(stdout, p->name, 0));
    printf(" %-5s %7d  %7.3f%%  %7.3f%%  %7.3f%%  %7.3f%%\n", p->type, p->tensors,
           100 * sqrt(p->change2 / p->tensors), 100 * p->most_change,
           100 * sqrt(p->error2 / p->tensors), 100 * p->most_error);
  }
  printf(
      "%lld of %lld tensors merged: changed by %.3f %%, rounded by %.3f %% (of the weights' "
      "norm)\n",
      (long long)r->merged, (long long)r->tensors, 100 * r->change, 100 * r->error);
}

static void show_json(const table *rows, const ist_merge_result *r, const double loss[2]) {
  json_t *list = json_array();
  for (int i = 0; i < rows->n; i++) {
    char *name = ist_repair_utf8(rows->p[i].name); /* it may be cut within a character */
    json_array_append_new(list, json_pack("{s:s, s:s, s:i, s:f, s:f}", "tensors", name ? name : "",
                                          "type", rows->p[i].type, "number", rows->p[i].tensors,
                                          "change", sqrt(rows->p[i].change2 / rows->p[i].tensors),
                                          "error", sqrt(rows->p[i].error2 / rows->p[i].tensors)));
    free(name);
  }
  json_t *root = json_pack("{s:I, s:I, s:I, s:f, s:f, s:o}", "tensors", (json_int_t)r->tensors,
                           "merged", (json_int_t)r->merged, "bytes", (json_int_t)r->bytes, "change",
                           r->change, "error", r->error, "table", list);
  if (loss[0] >= 0) json_object_set_new(root, "loss_unmerged", json_real(loss[0]));
  if (loss[1] >= 0) json_object_set_new(root, "loss_merged", json_real(loss[1]));
  char *text = json_dumps(root, JSON_INDENT(2));
  if (text) ist_put_json(stdout, text);
  free(text);
  json_decref(root);
}

/* The loss of the model with the adapter on it, before it is merged. */
static ist_status loss_unmerged(ist_model *m, const ist_args *a, double *loss, ist_error *err) {
  ist_loss_result r;
  ist_status s = a->merge.adapter ? ist_model_set_adapter(m, a->merge.adapter, err) : IST_OK;
  if (!s) s = ist_eval_loss(m, &a->eval, &r, err);
  if (!s) *loss = r.loss;
  if (!s) s = ist_model_set_adapter(m, NULL, err);
  return s;
}

static ist_status loss_merged(const ist_args *a, double *loss, ist_error *err) {
  ist_args merged = *a;
  ist_model *m = NULL;
  ist_loss_result r;
  merged.model_path = a->merge.output;
  merged.adapter = NULL;
  ist_status s = ist_cmd_open_model(&m, &merged, err);
  if (!s) s = ist_eval_loss(m, &a->eval, &r, err);
  if (!s) *loss = r.loss;
  ist_model_close(m);
  return s;
}

int ist_cmd_merge(ist_args *a) {
  ist_error err = {0};
  ist_model *m = NULL;
  ist_merge_result r;
  table rows = {.all = a->all};
  double loss[2] = {-1, -1};
  const size_t len = strlen(a->merge.output);
  const bool gguf = len > 5 && !strcmp(a->merge.output + len - 5, ".gguf");
  ist_status s = IST_OK;
  if (!a->merge.adapter && !a->merge.type)
    s = ist_cli_fail(&err, IST_ERR_ARG,
                     "ist merge needs --adapter PATH (or --type TYPE to convert)");
  if (!s && a->eval.data_path && !gguf)
    s = ist_cli_fail(&err, IST_ERR_ARG,
                     "--data measures a merged GGUF, found a folder as --output");
  if (!s) s = ist_cmd_open_model(&m, a, &err);
  if (!s && a->eval.data_path) s = loss_unmerged(m, a, &loss[0], &err);
  if (!s) s = ist_merge(m, &a->merge, add_tensor, &rows, &r, &err);
  if (!s && a->eval.data_path) s = loss_merged(a, &loss[1], &err);
  if (!s && a->json) {
    show_json(&rows, &r, loss);
  } else if (!s && !a->quiet) {
    show_table(&rows, &r);
    if (a->eval.data_path)
      printf("loss on %s: %.4f with the adapter, %.4f merged\n", a->eval.data_path, loss[0],
             loss[1]);
    char bytes[32];
    ist_format_bytes(bytes, (double)r.bytes);
    printf("%s: %s of weights\n", a->merge.output, bytes);
  }
  ist_model_close(m);
  free(rows.p);
  return s ? ist_report_error(&err) : 0;
}
