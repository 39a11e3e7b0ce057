/* ist_generate: one prompt, streamed. */
#include <string.h>

#include "base/mem.h"
#include "eval/generate.h"

void ist_generate_options_init(ist_generate_options *o) {
  *o = (ist_generate_options){.size = sizeof *o,
                              .max_new = 256,
                              .top_p = 1.0,
                              .seed = 42,
                              .template_name = "auto",
                              .inputs = "auto"};
}

ist_status ist_generate_template(ist_template *t, const ist_model *m, const ist_generate_options *o,
                                 ist_error *err) {
  const char *name = o->template_name;
  if (strcmp(name, "auto") == 0 && m->template_name) name = m->template_name;
  int found = ist_template_from_name(name);
  if (found < 0)
    return ist_fail(err, IST_ERR_ARG,
                    "template: found \"%s\", expected auto, model, chatml, alpaca, paper or none",
                    name);
  *t = (ist_template)found;
  return ist_template_resolve(t, m->tokenizer, err);
}

/* Text -> prompt tokens, raw or as the user's message of a template. */
static ist_status prompt_ids(ist_ids *ids, const ist_model *m, const char *prompt,
                             const ist_generate_options *o, ist_error *err) {
  IST_TRY(ist_model_check_tokenizer(m, err));
  if (o->raw) {
    const ist_ids *before = ist_tokenizer_before(m->tokenizer);
    for (int64_t i = 0; i < before->n; i++) IST_TRY(ist_ids_add(ids, before->p[i], err));
    return ist_tokenizer_encode(m->tokenizer, prompt, strlen(prompt), true, ids, err);
  }
  ist_template resolved;
  IST_TRY(ist_generate_template(&resolved, m, o, err));
  /* The strings are only read. */
  ist_message messages[3] = {0};
  int64_t n = 0;
  if (o->system)
    messages[n++] =
        (ist_message){IST_ROLE_SYSTEM, (char *)(uintptr_t)o->system, strlen(o->system), NULL};
  messages[n++] = (ist_message){IST_ROLE_USER, (char *)(uintptr_t)prompt, strlen(prompt), NULL};
  messages[n++] = (ist_message){IST_ROLE_ASSISTANT, "", 0, NULL};
  const ist_record record = {.line = 1, .n_messages = n, .message = messages};
  const char *answer;
  return ist_prompt_build(ids, &record, m->tokenizer, resolved, 0, &answer, err);
}

/* Bytes at the end of the text that begin a UTF-8 character but do not end it. */
static size_t incomplete_tail(const char *p, size_t len) {
  for (size_t back = 1; back <= 3 && back <= len; back++) {
    unsigned char c = (unsigned char)p[len - back];
    if ((c & 0xc0) == 0x80) continue;
    size_t need = c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : c >= 0xc0 ? 2 : 1;
    return need > back ? back : 0;
  }
  return 0;
}

/* Hands out whole characters and keeps the rest for the next token. */
static bool emit(ist_buf *pending, bool all, ist_text_fn each, void *user) {
  size_t tail = all ? 0 : incomplete_tail(pending->p, pending->len), len = pending->len - tail;
  if (len == 0) return true;
  bool more = !each || each(user, pending->p, len);
  memmove(pending->p, pending->p + len, tail);
  pending->len = tail;
  return more;
}

ist_status ist_generate_check(ist_step_products *products, const ist_model *m,
                              const ist_generate_options *o, ist_error *err) {
  if (o->max_new < 1 || o->max_new > IST_MAX_REGION)
    return ist_fail(err, IST_ERR_ARG, "max_new: found %lld, expected 1 to %lld",
                    (long long)o->max_new, (long long)IST_MAX_REGION);
  if (!(o->top_p > 0 && o->top_p <= 1))
    return ist_fail(err, IST_ERR_ARG, "top_p: found %g, expected more than 0 and at most 1",
                    o->top_p);
  if (!(o->temperature >= 0))
    return ist_fail(err, IST_ERR_ARG, "temperature: found %g, expected at least 0", o->temperature);
  const char *name = o->inputs ? o->inputs : "auto";
  if (strcmp(name, "int8") != 0 && strcmp(name, "float") != 0 && strcmp(name, "auto") != 0)
    return ist_fail(err, IST_ERR_ARG, "inputs: found \"%s\", expected auto, int8 or float", name);
  /* F32 that was asked for stays exact. */
  bool exact = strcmp(name, "auto") == 0 ? m->f32_asked : strcmp(name, "float") == 0;
  *products = exact ? IST_STEP_FLOAT : IST_STEP_INT8;
  return IST_OK;
}

ist_status ist_generate_stream(ist_generator *g, ist_ids *ids, int64_t kept, int64_t max_new,
                               const ist_generate_options *o, ist_text_fn each, void *user,
                               ist_generate_result *r, ist_error *err) {
  const ist_sampling sampling = {o->temperature, o->top_k, o->top_p, o->seed};
  const ist_tokenizer *tok = g->model->tokenizer;
  ist_buf pending = {0};
  ist_status status = IST_OK;
  double start = ist_prof_now();
  const float *logits = ist_generator_prompt(g, 0, ids->p, ids->n, kept);
  r->prompt_tokens = ids->n;
  r->kept_tokens = kept;
  r->prompt_seconds = ist_prof_now() - start;
  start = ist_prof_now();
  bool more = true;
  while (more && status == IST_OK && r->new_tokens < max_new) {
    int32_t id = ist_sample_token(g, logits, &sampling, r->new_tokens);
    if (ist_tokenizer_is_eog(tok, id)) {
      r->ended = true;
      break;
    }
    r->new_tokens++;
    status = ist_tokenizer_decode_piece(tok, id, false, &pending, err);
    if (status == IST_OK && pending.len) more = emit(&pending, false, each, user);
    if (r->new_tokens == max_new || !more) break;
    if (status == IST_OK) status = ist_ids_add(ids, id, err);
    g->seq[0].next = id;
    int64_t n;
    logits = ist_generator_step(g, &n).p;
  }
  if (status == IST_OK && more && pending.len) emit(&pending, true, each, user);
  r->seconds = ist_prof_now() - start;
  ist_buf_free(&pending);
  return status;
}

ist_status ist_generate(ist_model *m, const char *prompt, const ist_generate_options *o,
                        ist_text_fn each, void *user, ist_generate_result *r, ist_error *err) {
  *r = (ist_generate_result){0};
  ist_ids ids = {0};
  ist_generator g;
  ist_step_products products = IST_STEP_FLOAT;
  IST_TRY(ist_generate_check(&products, m, o, err));
  ist_status status = prompt_ids(&ids, m, prompt, o, err);
  if (status == IST_OK && ids.n == 0)
    status = ist_fail(err, IST_ERR_ARG, "prompt: found no tokens");
  if (status == IST_OK) status = ist_generator_open(&g, m, 1, ids.n + o->max_new, products, err);
  if (status == IST_OK) {
    status = ist_generate_stream(&g, &ids, 0, o->max_new, o, each, user, r, err);
    ist_generator_close(&g);
  }
  ist_ids_free(&ids);
  return status;
}
