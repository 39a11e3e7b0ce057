/* ist_data_check: the data doctor's findings as JSON. */
#include <jansson.h>
#include <string.h>

#include "base/mem.h"
#include "data/doctor.h"
#include "eval/session.h"
#include "format/json.h"

static json_t *notes_json(const ist_doctor_notes *list) {
  json_t *places = json_array();
  for (int64_t i = 0; i < list->n && i < IST_DOCTOR_NOTES; i++) {
    const ist_doctor_note *n = &list->p[i];
    json_t *place = json_pack("{s:I}", "line", (json_int_t)n->line);
    if (n->other) json_object_set_new(place, "first", json_integer(n->other));
    if (n->text) json_object_set_new(place, "message", json_string(n->text));
    json_array_append_new(places, place);
  }
  return json_pack("{s:I, s:o}", "count", (json_int_t)list->n, "places", places);
}

static json_t *lengths_json(const ist_doctor *d) {
  json_t *bins = json_array();
  for (int b = 0; b < IST_DOCTOR_BINS; b++) {
    if (!d->bin[b]) continue;
    json_int_t from = b ? (json_int_t)1 << (b - 1) : 0, to = b ? ((json_int_t)1 << b) - 1 : 0;
    json_array_append_new(bins, json_pack("{s:I, s:I, s:I}", "from", from, "to", to, "samples",
                                          (json_int_t)d->bin[b]));
  }
  return bins;
}

/* Runs of tokens that are learned, and that are not, as text. */
static ist_status sample_json(json_t **out, const ist_sample *s, const ist_tokenizer *tok,
                              ist_error *err) {
  json_t *runs = json_array();
  for (int32_t begin = 0, end; begin < s->n; begin = end) {
    for (end = begin + 1; end < s->n && s->mask[end] == s->mask[begin];) end++;
    ist_buf text = {0};
    ist_status status = ist_tokenizer_decode(tok, s->ids + begin, end - begin, true, &text, err);
    if (status != IST_OK || text.failed) {
      ist_buf_free(&text);
      json_decref(runs);
      return status != IST_OK ? status : ist_fail_nomem(err, "a sample's text", text.len);
    }
    json_t *piece = json_stringn(text.p ? text.p : "", text.len);
    json_array_append_new(runs, json_pack("{s:o, s:b, s:i}", "text",
                                          piece ? piece : json_string("(bytes that are no text)"),
                                          "learned", s->mask[begin], "tokens", end - begin));
    ist_buf_free(&text);
  }
  *out = json_pack("{s:I, s:i, s:o}", "line", (json_int_t)s->line, "tokens", s->n, "runs", runs);
  return *out ? IST_OK : ist_fail_nomem(err, "a sample as JSON", 0);
}

static ist_status report_json(json_t **out, const ist_doctor *d, const char *path,
                              const ist_tokenizer *tok, ist_template tmpl, ist_error *err) {
  json_t *samples = json_array();
  for (int64_t i = 0; i < d->shown.n; i++) {
    json_t *sample;
    ist_status status = sample_json(&sample, &d->shown.p[i], tok, err);
    if (status != IST_OK) {
      json_decref(samples);
      return status;
    }
    json_array_append_new(samples, sample);
  }
  *out = json_pack(
      "{s:o, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:s?, s:o, s:o, s:o, s:o, s:o}", "path",
      ist_json_path(path), "template", ist_template_name(tmpl), "records", (json_int_t)d->records,
      "tokens", (json_int_t)d->tokens, "learned", (json_int_t)d->targets, "longest",
      (json_int_t)d->longest, "cut", (json_int_t)d->cut, "not_learned", (json_int_t)d->dropped,
      "stopped", d->stopped, "failed", notes_json(&d->failed), "copies", notes_json(&d->copies),
      "empty_answers", notes_json(&d->empty), "lengths", lengths_json(d), "samples", samples);
  return *out ? IST_OK : ist_fail_nomem(err, "the report on the data", 0);
}

ist_status ist_data_check(const ist_model *m, const ist_eval_options *o, int64_t show, char **json,
                          ist_error *err) {
  *json = NULL;
  ist_data_options options;
  IST_TRY(ist_eval_data_options(&options, m, o, err));
  ist_doctor doctor;
  json_t *report = NULL;
  ist_status status = ist_doctor_read(&doctor, o->data_path, m->tokenizer, &options, show, err);
  if (status == IST_OK)
    status = report_json(&report, &doctor, o->data_path, m->tokenizer, options.tmpl, err);
  ist_doctor_free(&doctor);
  if (status != IST_OK) return status;
  *json = json_dumps(report, JSON_INDENT(2));
  json_decref(report);
  return *json ? IST_OK : ist_fail_nomem(err, "the report on the data", 0);
}
