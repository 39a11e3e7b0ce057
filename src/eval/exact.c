/* Exact match by greedy generation, a batch of prompts at a time. */
#include <ctype.h>
#include <jansson.h>
#include <string.h>

#include "base/mem.h"
#include "eval/generator.h"
#include "format/json.h"

#define LANES 16 /* sequences generated side by side */

typedef struct exact_task {
  const ist_model *model;
  const ist_records *records;
  ist_template tmpl;
  time_t now; /* the date that all prompts show */
  ist_exact_fn each;
  void *user;
  ist_exact_result *result;
  ist_ids prompt[LANES], answer[LANES];
  const char *expected[LANES];
} exact_task;

static void trim(const char **p, size_t *len) {
  while (*len && isspace((unsigned char)(*p)[*len - 1])) --*len;
  while (*len && isspace((unsigned char)**p)) {
    ++*p;
    --*len;
  }
}

static bool same_text(const char *a, size_t a_len, const char *b, size_t b_len) {
  trim(&a, &a_len);
  trim(&b, &b_len);
  return a_len == b_len && memcmp(a, b, a_len) == 0;
}

/* Fields of the expected JSON object that the answer has with the same value. */
static void compare_fields(ist_exact_example *e) {
  json_t *expected = ist_json_inside(e->expected), *got = ist_json_inside(e->got), *value;
  const char *key;
  if (json_is_object(expected)) {
    json_object_foreach(expected, key, value) {
      e->fields++;
      e->fields_right += json_equal(value, json_object_get(got, key));
    }
  }
  json_decref(expected);
  json_decref(got);
}

static ist_status judge(exact_task *t, int64_t index, int lane, ist_error *err) {
  ist_buf got = {0}, prompt = {0};
  ist_buf_str(&got, "");
  ist_status status = ist_tokenizer_decode(t->model->tokenizer, t->answer[lane].p,
                                           t->answer[lane].n, false, &got, err);
  if (status == IST_OK)
    status = ist_tokenizer_decode(t->model->tokenizer, t->prompt[lane].p, t->prompt[lane].n, true,
                                  &prompt, err);
  if (status == IST_OK && (got.failed || prompt.failed))
    status = ist_fail_nomem(err, "answer", got.len);
  if (status == IST_OK) {
    ist_exact_example e = {.index = index,
                           .prompt = prompt.p,
                           .expected = t->expected[lane],
                           .got = got.p ? got.p : ""};
    e.exact = same_text(e.got, strlen(e.got), e.expected, strlen(e.expected));
    compare_fields(&e);
    t->result->samples++;
    t->result->exact += e.exact;
    t->result->fields += e.fields;
    t->result->fields_right += e.fields_right;
    if (t->each) t->each(t->user, &e);
  }
  ist_buf_free(&got);
  ist_buf_free(&prompt);
  return status;
}

/* Takes a token for lane s: ends it, or queues the token to be fed. */
static ist_status accept(exact_task *t, ist_generator *g, int64_t s, const float *logits,
                         int64_t max_new, ist_error *err) {
  const ist_sampling greedy = {0};
  int32_t id = ist_sample_token(g, logits, &greedy, 0);
  g->seq[s].done = ist_tokenizer_is_eog(t->model->tokenizer, id);
  if (g->seq[s].done) return IST_OK;
  g->seq[s].next = id;
  IST_TRY(ist_ids_add(&t->answer[s], id, err));
  t->result->new_tokens++;
  g->seq[s].done = t->answer[s].n >= max_new;
  return IST_OK;
}

static ist_status generate_lanes(exact_task *t, int64_t lanes, int64_t max_new, ist_error *err) {
  ist_generator g;
  int64_t longest = 0;
  for (int64_t s = 0; s < lanes; s++) longest = t->prompt[s].n > longest ? t->prompt[s].n : longest;
  /* The model is only lent as const to the task: generation leaves it as it was. */
  IST_TRY(ist_generator_open(&g, (ist_model *)(uintptr_t)t->model, lanes, longest + max_new,
                             IST_STEP_MATRIX, err));
  ist_status status = IST_OK;
  for (int64_t s = 0; s < lanes && status == IST_OK; s++) {
    status = accept(t, &g, s, ist_generator_prompt(&g, s, t->prompt[s].p, t->prompt[s].n, 0),
                    max_new, err);
  }
  while (status == IST_OK) {
    int64_t n, row = 0, lane[LANES];
    for (int64_t s = 0; s < lanes; s++) {
      if (!g.seq[s].done) lane[row++] = s;
    }
    ist_view logits = ist_generator_step(&g, &n);
    if (n == 0) break;
    for (int64_t i = 0; i < n && status == IST_OK; i++) {
      status = accept(t, &g, lane[i], (const float *)logits.p + i * logits.stride, max_new, err);
    }
  }
  ist_generator_close(&g);
  return status;
}

/* A prompt to answer, and an answer to compare with: a text alone has no prompt, a conversation
 * that the user ends no answer. */
static ist_status build_prompt(exact_task *t, int64_t index, int lane, ist_error *err) {
  const ist_record *r = &t->records->p[index];
  t->prompt[lane].n = t->answer[lane].n = 0;
  IST_TRY(ist_prompt_build(&t->prompt[lane], r, t->model->tokenizer, t->tmpl, t->now,
                           &t->expected[lane], err));
  /* What stands before every text asks for nothing. */
  bool asks = !r->plain && t->prompt[lane].n > 0;
  if (asks && t->expected[lane]) return IST_OK;
  return ist_fail(err, IST_ERR_DATA, "%s:%lld: found no %s, expected a prompt and an answer",
                  t->records->path, (long long)r->line, t->expected[lane] ? "prompt" : "answer");
}

static ist_status run_lanes(exact_task *t, int64_t first, int64_t lanes, int64_t max_new,
                            ist_error *err) {
  ist_status status = IST_OK;
  for (int64_t s = 0; s < lanes && status == IST_OK; s++)
    status = build_prompt(t, first + s, (int)s, err);
  if (status == IST_OK) status = generate_lanes(t, lanes, max_new, err);
  for (int64_t s = 0; s < lanes && status == IST_OK; s++) status = judge(t, first + s, (int)s, err);
  return status;
}

ist_status ist_eval_exact(ist_model *m, const ist_eval_options *o, ist_exact_fn each, void *user,
                          ist_exact_result *r, ist_error *err) {
  *r = (ist_exact_result){0};
  if (o->max_new < 1 || o->max_new > IST_MAX_REGION)
    return ist_fail(err, IST_ERR_ARG, "max_new: found %lld, expected 1 to %lld",
                    (long long)o->max_new, (long long)IST_MAX_REGION);
  IST_TRY(ist_model_check_free(m, err));
  ist_records records = {0};
  exact_task t = {.model = m,
                  .records = &records,
                  .now = ist_jinja_now(),
                  .each = each,
                  .user = user,
                  .result = r};
  ist_status status = ist_eval_read(&records, &t.tmpl, m, o, err);
  double start = ist_prof_now();
  int64_t n = o->limit > 0 && o->limit < records.n ? o->limit : records.n;
  for (int64_t first = 0; first < n && status == IST_OK; first += LANES) {
    status = run_lanes(&t, first, n - first < LANES ? n - first : LANES, o->max_new, err);
  }
  r->seconds = ist_prof_now() - start;
  for (int s = 0; s < LANES; s++) {
    ist_ids_free(&t.prompt[s]);
    ist_ids_free(&t.answer[s]);
  }
  ist_records_free(&records);
  return status;
}
