/* cmd_data.c: the data doctor, what training would see of a file. */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "cmd.h"
#include "text.h"

static int64_t number(const json_t *o, const char *key) {
  return json_integer_value(json_object_get(o, key));
}

static void put_count(const ist_term *t, const char *name, int64_t n, const char *of) {
  char text[32];
  ist_format_whole(text, n);
  ist_print(t, IST_DIM, "  %-15s ", name);
  printf("%s%s%s\n", text, *of ? " " : "", of);
}

static void put_counts(const ist_term *t, const json_t *r, const ist_args *a) {
  char cut[64], learned[64];
  int64_t tokens = number(r, "tokens");
  snprintf(cut, sizeof cut, "cut to %lld tokens", (long long)a->eval.max_tokens);
  snprintf(learned, sizeof learned, "tokens (%.0f %%)",
           tokens ? 100.0 * (double)number(r, "learned") / (double)tokens : 0.0);
  ist_print(t, IST_DIM, "  %-15s ", "file");
  ist_put_text(stdout, json_string_value(json_object_get(r, "path")), 0);
  putchar('\n');
  ist_print(t, IST_DIM, "  %-15s ", "template");
  printf("%s\n", json_string_value(json_object_get(r, "template")));
  put_count(t, "records", number(r, "records"), "");
  put_count(t, "tokens", tokens, "");
  put_count(t, "learned", number(r, "learned"), learned);
  put_count(t, "longest", number(r, "longest"), "tokens");
  put_count(t, "too long", number(r, "cut"), cut);
  put_count(t, "nothing learned", number(r, "not_learned"), "left out of training");
}

/* Places of one kind: the first few, with what is said of each. */
static void put_places(const ist_term *t, const char *title, const json_t *notes,
                       const char *first) {
  int64_t count = number(notes, "count");
  size_t i;
  json_t *place, *list = json_object_get(notes, "places");
  ist_print(t, count ? IST_BAD : IST_GOOD, "%s: %lld\n", title, (long long)count);
  json_array_foreach(list, i, place) {
    const char *message = json_string_value(json_object_get(place, "message"));
    printf("  ");
    if (message) {
      ist_put_text(stdout, message, 0);
    } else {
      printf("line %lld", (long long)number(place, "line"));
      if (json_object_get(place, "first"))
        printf(", %s %lld", first, (long long)number(place, "first"));
    }
    putchar('\n');
  }
  if (count > (int64_t)json_array_size(list))
    printf("  and %lld more\n", (long long)(count - (int64_t)json_array_size(list)));
}

static void put_stop(const ist_term *t, const json_t *stopped) {
  if (!json_is_string(stopped)) return;
  ist_print(t, IST_BAD, "not read to its end\n");
  printf("  ");
  ist_put_text(stdout, json_string_value(stopped), 0);
  putchar('\n');
}

static void put_lengths(const ist_term *t, const json_t *bins) {
  size_t i;
  json_t *bin;
  int64_t most = 1;
  json_array_foreach(bins, i, bin) if (number(bin, "samples") > most) most = number(bin, "samples");
  ist_print(t, IST_BOLD, "lengths in tokens\n");
  json_array_foreach(bins, i, bin) {
    char range[48];
    int64_t from = number(bin, "from"), to = number(bin, "to"), n = number(bin, "samples");
    snprintf(range, sizeof range, from == to ? "%lld" : "%lld-%lld", (long long)from,
             (long long)to);
    printf("  %15s %9lld  ", range, (long long)n);
    ist_put_bar(t, (double)n / (double)most, 40);
    putchar('\n');
  }
}

/* Learned text stands out; without colours it stands between >> and <<. */
static void put_sample(const ist_term *t, const json_t *sample) {
  size_t i;
  json_t *run;
  ist_print(t, IST_DIM, "line %lld, %lld tokens\n", (long long)number(sample, "line"),
            (long long)number(sample, "tokens"));
  printf("  ");
  json_array_foreach(json_object_get(sample, "runs"), i, run) {
    bool learned = json_is_true(json_object_get(run, "learned"));
    const json_t *text = json_object_get(run, "text");
    ist_style_set(t, learned ? IST_ACCENT : IST_DIM);
    if (learned && !t->colour) printf(">>");
    ist_put_clean(stdout, json_string_value(text), json_string_length(text), 0, false);
    if (learned && !t->colour) printf("<<");
    ist_style_set(t, IST_PLAIN);
  }
  putchar('\n');
}

static void show(const json_t *r, const ist_args *a) {
  ist_term t = ist_term_of(stdout);
  size_t i;
  json_t *sample, *samples = json_object_get(r, "samples");
  put_counts(&t, r, a);
  putchar('\n');
  put_places(&t, "records that training refuses", json_object_get(r, "failed"), "");
  put_stop(&t, json_object_get(r, "stopped"));
  put_places(&t, "copies", json_object_get(r, "copies"), "the same as line");
  put_places(&t, "empty answers", json_object_get(r, "empty_answers"), "");
  putchar('\n');
  put_lengths(&t, json_object_get(r, "lengths"));
  if (json_array_size(samples) == 0) return;
  putchar('\n');
  ist_print(&t, IST_BOLD, "what is learned of the first records\n");
  json_array_foreach(samples, i, sample) put_sample(&t, sample);
}

int ist_cmd_data(ist_args *a) {
  ist_error err = {0};
  ist_model *m = NULL;
  char *json = NULL;
  json_t *report = NULL;
  a->eval.data_path = a->argument;
  ist_status s = a->argument ? ist_cmd_open_model(&m, a, &err)
                             : ist_cli_fail(&err, IST_ERR_ARG, "data: found no FILE");
  if (!s) s = ist_data_check(m, &a->eval, a->data_show, &json, &err);
  if (!s) s = ist_cmd_read_json(&report, json, &err);
  if (!s && a->json) ist_put_json(stdout, json);
  if (!s && !a->json) show(report, a);
  bool refused = number(json_object_get(report, "failed"), "count") > 0 ||
                 json_is_string(json_object_get(report, "stopped"));
  json_decref(report);
  ist_free_memory(json);
  ist_model_close(m);
  return s ? ist_report_error(&err) : refused;
}
