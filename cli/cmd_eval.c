/* cmd_eval.c: loss, exact answers, importance of the layers, logits. */
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmd.h"
#include "text.h"

static void put_number(const char *label, int64_t n, const char *after) {
  char text[32];
  ist_format_whole(text, n);
  printf("%-12s%s%s\n", label, text, after);
}

/* A number of JSON, which has none that are not finite. */
static const char *real_text(char out[32], double x) {
  snprintf(out, 32, isfinite(x) ? "%.9g" : "null", x);
  return out;
}

static ist_status eval_loss(ist_model *m, const ist_args *a, ist_error *err) {
  ist_loss_result r;
  char loss[32], perplexity[32];
  ist_status s = ist_eval_loss(m, &a->eval, &r, err);
  if (s) return s;
  if (a->json) {
    printf(
        "{\"loss\": %s, \"perplexity\": %s, \"samples\": %lld, \"tokens\": %lld, \"targets\": "
        "%lld}\n",
        real_text(loss, r.loss), real_text(perplexity, r.perplexity), (long long)r.samples,
        (long long)r.tokens, (long long)r.targets);
    return IST_OK;
  }
  char targets[64], whole[32];
  ist_format_whole(whole, r.targets);
  snprintf(targets, sizeof targets, " (%s measured)", whole);
  printf("%-12s%.4f\n%-12s%.4g\n", "loss", r.loss, "perplexity", r.perplexity);
  put_number("samples", r.samples, "");
  put_number("tokens", r.tokens, targets);
  return IST_OK;
}

/* ---- Exact answers --------------------------------------------------------------- */

typedef struct exact_view {
  const ist_args *a;
  ist_term progress, out;
  FILE *examples; /* or NULL */
  int64_t seen, exact;
} exact_view;

/* What a model writes need not be UTF-8, JSON must be. */
static json_t *json_text(const char *text) {
  json_t *value = json_string(text);
  if (value) return value;
  char *clean = ist_repair_utf8(text);
  value = clean ? json_string(clean) : NULL;
  free(clean);
  return value;
}

static void write_example(FILE *to, const ist_exact_example *e) {
  json_t *record = json_pack(
      "{s:I, s:b, s:I, s:I, s:o*, s:o*, s:o*}", "index", (json_int_t)e->index, "exact", e->exact,
      "fields", (json_int_t)e->fields, "fields_right", (json_int_t)e->fields_right, "prompt",
      json_text(e->prompt), "expected", json_text(e->expected), "got", json_text(e->got));
  json_dumpf(record, to, JSON_COMPACT);
  fputc('\n', to);
  json_decref(record);
}

static void show_text(const ist_term *t, const char *label, const char *text) {
  ist_print(t, IST_DIM, "  %-10s", label);
  ist_put_text(t->to, text, t->columns ? t->columns - 12 : 0);
  fputc('\n', t->to);
}

static void each_example(void *user, const ist_exact_example *e) {
  exact_view *v = user;
  v->seen++;
  v->exact += e->exact;
  ist_live_clear();
  if (v->examples) write_example(v->examples, e);
  if (v->seen <= v->a->show && !v->a->json) {
    ist_print(&v->out, e->exact ? IST_GOOD : IST_BAD, "%lld: %s", (long long)e->index,
              e->exact ? "exact" : "different");
    if (e->fields)
      printf(", %lld of %lld fields", (long long)e->fields_right, (long long)e->fields);
    putchar('\n');
    show_text(&v->out, "prompt", e->prompt);
    show_text(&v->out, "expected", e->expected);
    show_text(&v->out, "got", e->got);
    fflush(stdout);
  }
  if (!v->progress.tty || v->a->quiet) return;
  ist_live_begin(&v->progress);
  ist_print(&v->progress, IST_DIM, "%lld answers, %lld exact", (long long)v->seen,
            (long long)v->exact);
  ist_live_end(&v->progress);
}

static double percent(int64_t part, int64_t whole) {
  return whole ? 100.0 * (double)part / (double)whole : 0;
}

static void show_exact(const ist_exact_result *r, bool json) {
  if (json) {
    printf(
        "{\"samples\": %lld, \"exact\": %lld, \"fields\": %lld, \"fields_right\": %lld, "
        "\"new_tokens\": %lld, "
        "\"seconds\": %.3f}\n",
        (long long)r->samples, (long long)r->exact, (long long)r->fields,
        (long long)r->fields_right, (long long)r->new_tokens, r->seconds);
    return;
  }
  printf("%-12s%lld of %lld (%.1f %%)\n", "exact", (long long)r->exact, (long long)r->samples,
         percent(r->exact, r->samples));
  if (r->fields)
    printf("%-12s%lld of %lld (%.1f %%)\n", "fields", (long long)r->fields_right,
           (long long)r->fields, percent(r->fields_right, r->fields));
  char elapsed[32];
  ist_format_time(elapsed, r->seconds);
  printf("%-12s%s, %lld tokens written\n", "time", elapsed, (long long)r->new_tokens);
}

static ist_status eval_exact(ist_model *m, const ist_args *a, ist_error *err) {
  exact_view v = {.a = a, .progress = ist_term_of(stderr), .out = ist_term_of(stdout)};
  ist_exact_result r;
  ist_outfile examples = {0};
  if (a->examples && ist_outfile_open(&examples, a->examples, err)) return err->code;
  v.examples = examples.to;
  ist_status s = ist_eval_exact(m, &a->eval, each_example, &v, &r, err);
  ist_live_clear();
  if (v.examples) {
    ist_status closed = ist_outfile_close(&examples, !s, err);
    if (!s) s = closed;
  }
  if (!s && a->show && v.seen && !a->json) putchar('\n');
  if (!s) show_exact(&r, a->json);
  return s;
}

/* ---- Importance of the layers ------------------------------------------------------ */

static void show_layers_json(const ist_layer_importance *layer, int64_t L, double factor) {
  printf("{\"factor\": %.9g, \"layers\": [", factor);
  char delta[32], low[32], high[32];
  for (int64_t i = 0; i < L; i++)
    printf("%s\n  {\"layer\": %lld, \"delta\": %s, \"low\": %s, \"high\": %s}", i ? "," : "",
           (long long)i, real_text(delta, layer[i].delta), real_text(low, layer[i].low),
           real_text(high, layer[i].high));
  printf("\n]}\n");
}

static void show_layers(const ist_layer_importance *layer, int64_t L, double factor) {
  ist_term t = ist_term_of(stdout);
  double most = 0;
  for (int64_t i = 0; i < L; i++) most = fmax(most, fabs(layer[i].delta));
  ist_print(&t, IST_DIM, "layer  change of the loss   95 %% interval\n");
  for (int64_t i = 0; i < L; i++) {
    bool clear = layer[i].low > 0 || layer[i].high < 0; /* zero lies outside */
    ist_style style = !clear ? IST_DIM : layer[i].delta > 0 ? IST_ACCENT : IST_BAD;
    printf("%5lld  %+18.5f   [%+.5f, %+.5f]  ", (long long)i, layer[i].delta, layer[i].low,
           layer[i].high);
    ist_style_set(&t, style);
    if (most > 0) ist_put_bar(&t, fabs(layer[i].delta) / most, 24);
    ist_style_set(&t, IST_PLAIN);
    puts(clear ? layer[i].delta < 0 ? " better without" : "" : " (may be zero)");
  }
  printf(
      "\nThe loss with one layer's adapters times %g less the loss as it is: the higher, the more\n"
      "the layer matters.\n",
      factor);
}

static ist_status eval_layers(ist_model *m, const ist_args *a, ist_error *err) {
  ist_model_info info;
  ist_model_get_info(m, &info);
  if (!a->adapter) {
    ist_cli_fail(err, IST_ERR_ARG,
                 "--layers needs --adapter DIR: it suppresses the adapters of one layer at a time");
    return IST_ERR_ARG;
  }
  ist_layer_importance *layer = calloc((size_t)info.L, sizeof *layer);
  if (!layer) return ist_cli_fail(err, IST_ERR_NOMEM, "out of memory");
  ist_status s = ist_eval_layers(m, &a->eval, a->factor, layer, err);
  if (!s && a->json)
    show_layers_json(layer, info.L, a->factor);
  else if (!s)
    show_layers(layer, info.L, a->factor);
  free(layer);
  return s;
}

/* ---- Logits ------------------------------------------------------------------------- */

/* "1 2 3" or "1,2,3" as ids in fresh memory. */
static ist_status read_ids(const char *text, int64_t V, int32_t **ids, int64_t *n, ist_error *err) {
  *n = 0;
  *ids = malloc((strlen(text) / 2 + 1) * sizeof **ids);
  if (!*ids) return ist_cli_fail(err, IST_ERR_NOMEM, "out of memory");
  for (const char *p = text; *(p += strspn(p, " ,\n\t"));) {
    size_t len = strcspn(p, " ,\n\t");
    long long id = len < 10 && strspn(p, "0123456789") == len ? atoll(p) : -1;
    if (id < 0 || id >= V)
      return ist_cli_fail(err, IST_ERR_ARG, "--tokens: found \"%.*s\", expected ids from 0 to %lld",
                          (int)len, p, (long long)V - 1);
    (*ids)[(*n)++] = (int32_t)id;
    p += len;
  }
  return *n ? IST_OK : ist_cli_fail(err, IST_ERR_ARG, "--tokens: found no ids");
}

static ist_status write_logits(const char *path, const float *logits, int64_t T, int64_t V,
                               ist_error *err) {
  char header[256];
  ist_outfile f;
  int64_t bytes = T * V * (int64_t)sizeof *logits;
  int n =
      snprintf(header, sizeof header,
               "{\"logits\":{\"dtype\":\"F32\",\"shape\":[%lld,%lld],\"data_offsets\":[0,%lld]}}",
               (long long)T, (long long)V, (long long)bytes);
  while (n % 8) header[n++] = ' '; /* so that the data is aligned */
  if (ist_outfile_open(&f, path, err)) return err->code;
  uint64_t length = (uint64_t)n; /* little-endian, as the data */
  fwrite(&length, sizeof length, 1, f.to);
  fwrite(header, 1, (size_t)n, f.to);
  fwrite(logits, 1, (size_t)bytes, f.to);
  return ist_outfile_close(&f, true, err);
}

static void show_best(const float *logits, int64_t T, int64_t V) {
  enum { BEST = 5 };
  int64_t best[BEST + 1], n = 0; /* one more, to fall off the end */
  const float *last = logits + (T - 1) * V;
  for (int64_t i = 0; i < V; i++) {
    int64_t at = n;
    for (; at > 0 && last[i] > last[best[at - 1]]; at--) best[at] = best[at - 1];
    best[at] = i;
    if (n < BEST) n++;
  }
  puts("likeliest next tokens (id, logit):");
  for (int64_t i = 0; i < n; i++)
    printf("%8lld  %.4f\n", (long long)best[i], (double)last[best[i]]);
}

static ist_status eval_logits(ist_model *m, const ist_args *a, ist_error *err) {
  ist_model_info info;
  int32_t *ids = NULL;
  int64_t n = 0;
  ist_model_get_info(m, &info);
  ist_status s = read_ids(a->tokens, info.V, &ids, &n, err);
  float *logits = s ? NULL : calloc((size_t)n * (size_t)info.V, sizeof *logits);
  if (!s && !logits)
    s = ist_cli_fail(err, IST_ERR_NOMEM, "out of memory for the logits of %lld tokens",
                     (long long)n);
  if (!s) s = ist_model_logits(m, ids, n, logits, err);
  if (!s && a->logits_out) s = write_logits(a->logits_out, logits, n, info.V, err);
  if (!s && !a->logits_out) show_best(logits, n, info.V);
  free(logits);
  free(ids);
  return s;
}

int ist_cmd_eval(ist_args *a) {
  ist_error err = {0};
  ist_model *m = NULL;
  ist_status s = IST_OK;
  bool exact = !strcmp(a->task, "exact");
  if (!a->tokens && !a->eval.data_path) {
    s = ist_cli_fail(&err, IST_ERR_ARG, "ist eval needs --data FILE (or --tokens \"ID ...\")");
  } else if (a->logits_out && !a->tokens) {
    s = ist_cli_fail(&err, IST_ERR_ARG, "--logits-out needs --tokens \"ID ...\"");
  } else if (a->layers && exact) {
    s = ist_cli_fail(&err, IST_ERR_ARG, "--layers and --task exact exclude each other");
  }
  if (!s) s = ist_cmd_open_model(&m, a, &err);
  if (!s && a->tokens)
    s = eval_logits(m, a, &err);
  else if (!s && a->layers)
    s = eval_layers(m, a, &err);
  else if (!s && exact)
    s = eval_exact(m, a, &err);
  else if (!s)
    s = eval_loss(m, a, &err);
  ist_model_close(m);
  return s ? ist_report_error(&err) : 0;
}
