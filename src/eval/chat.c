/* ist_chat_say: a conversation, whose keys and values stay in the cache. Every turn
 * renders the whole conversation anew; what its tokens have in common with those in the
 * cache, from the beginning on, is not computed again. */
#include <string.h>

#include "base/mem.h"
#include "eval/generate.h"

struct ist_chat {
  ist_generator generator;
  bool opened; /* the generator; the model is ours then */
  ist_generate_options options;
  ist_template template;
  time_t now; /* the date of all its turns: another one would begin the tokens anew */
  int64_t context;
  ist_message *message; /* those that still fit; their texts are ours */
  int64_t n, cap;
  int64_t first; /* 1: message 0 is the system's, and always stays */
  ist_ids past;  /* the tokens in the cache */
};

enum { CONTEXT = 4096 };

/* ---- The conversation ---- */

static ist_status add_message(ist_chat *c, ist_role role, const char *text, size_t len,
                              ist_error *err) {
  IST_TRY(ist_grow(&c->message, &c->cap, c->n + 1, sizeof *c->message, err));
  char *copy = ist_strndup(text, len);
  if (!copy) return ist_fail_nomem(err, "a message", len + 1);
  c->message[c->n++] = (ist_message){role, copy, len, NULL};
  return IST_OK;
}

static void drop_messages(ist_chat *c, int64_t from, int64_t n) {
  if (n == 0) return; /* there may be no list yet */
  for (int64_t i = from; i < from + n; i++) ist_free(c->message[i].text);
  memmove(c->message + from, c->message + from + n, (size_t)(c->n - from - n) * sizeof *c->message);
  c->n -= n;
}

/* The prompt for a reply to the conversation without its `left_out` oldest exchanges,
 * each a message of the user and its reply. */
static ist_status render(ist_ids *ids, const ist_chat *c, int64_t left_out, ist_error *err) {
  int64_t n = 0, from = c->first + 2 * left_out;
  ist_message *list = ist_calloc((size_t)(c->n + 1), sizeof *list);
  if (!list) return ist_fail_nomem(err, "a conversation", (size_t)c->n * sizeof *list);
  if (c->first) list[n++] = c->message[0];
  for (int64_t i = from; i < c->n; i++) list[n++] = c->message[i];
  list[n++] = (ist_message){IST_ROLE_ASSISTANT, "", 0, NULL};
  const ist_record record = {.line = 1, .n_messages = n, .message = list};
  const char *answer;
  ids->n = 0;
  ist_status status = ist_prompt_build(ids, &record, c->generator.model->tokenizer, c->template,
                                       c->now, &answer, err);
  ist_free(list);
  return status;
}

/* The longest end of the conversation that leaves room for a whole answer; where the
 * last message alone does not, for some answer. */
static ist_status fit(ist_ids *ids, const ist_chat *c, int64_t *left_out, ist_error *err) {
  int64_t most = (c->n - 1 - c->first) / 2;
  for (*left_out = 0;; ++*left_out) {
    IST_TRY(render(ids, c, *left_out, err));
    if (ids->n + c->options.max_new <= c->context || *left_out == most) break;
  }
  if (ids->n == 0) return ist_fail(err, IST_ERR_ARG, "prompt: found no tokens");
  if (ids->n < c->context) return IST_OK;
  return ist_fail(err, IST_ERR_ARG,
                  "the message and what stands before it take %lld tokens, the conversation has "
                  "room for %lld (context)",
                  (long long)ids->n, (long long)c->context);
}

/* ---- Answers ---- */

/* The answer as it goes by, for the next prompt. */
typedef struct listener {
  ist_text_fn each;
  void *user;
  ist_buf text;
} listener;

static bool listen(void *user, const char *piece, size_t len) {
  listener *l = user;
  ist_buf_add(&l->text, piece, len);
  return !l->each || l->each(l->user, piece, len);
}

static int64_t common(const ist_ids *a, const ist_ids *b) {
  int64_t n = 0;
  while (n < a->n && n < b->n && a->p[n] == b->p[n]) n++;
  return n;
}

/* Bytes that are no character, as a model may write them, would stop its template. */
static void repair(ist_buf *out, const ist_buf *text) {
  const char *p = text->p, *end = p + text->len;
  while (p < end) {
    const char *valid = ist_skip_valid(p, end);
    ist_buf_add(out, p, (size_t)(valid - p));
    if (valid < end) ist_buf_str(out, "\xEF\xBF\xBD");
    p = valid < end ? valid + 1 : end;
  }
}

static ist_status add_answer(ist_chat *c, ist_buf *text, ist_error *err) {
  ist_buf repaired = {0};
  if (text->len && c->template == IST_TEMPLATE_MODEL) {
    repair(&repaired, text);
    ist_buf swap = *text;
    *text = repaired;
    repaired = swap;
  }
  ist_status status =
      text->failed || repaired.failed
          ? ist_fail_nomem(err, "an answer", text->len)
          : add_message(c, IST_ROLE_ASSISTANT, text->p ? text->p : "", text->len, err);
  ist_buf_free(&repaired);
  return status;
}

/* Answers the prompt; c->past is what the cache holds then. */
static ist_status answer(ist_chat *c, const ist_ids *prompt, listener *l, ist_generate_result *r,
                         ist_error *err) {
  int64_t kept = common(&c->past, prompt), room = c->context - prompt->n;
  if (kept == prompt->n) kept--; /* the last token's logits are wanted */
  c->past.n = 0;
  IST_TRY(ist_grow(&c->past.p, &c->past.cap, c->context, sizeof *c->past.p, err));
  memcpy(c->past.p, prompt->p, (size_t)prompt->n * sizeof *prompt->p);
  c->past.n = prompt->n;
  return ist_generate_stream(&c->generator, &c->past, kept,
                             room < c->options.max_new ? room : c->options.max_new, &c->options,
                             listen, l, r, err);
}

ist_status ist_chat_say(ist_chat *c, const char *text, ist_text_fn each, void *user,
                        ist_generate_result *r, ist_error *err) {
  *r = (ist_generate_result){0};
  ist_ids prompt = {0};
  listener l = {.each = each, .user = user};
  int64_t before = c->n, left_out = 0;
  IST_TRY(add_message(c, IST_ROLE_USER, text, strlen(text), err));
  ist_status status = fit(&prompt, c, &left_out, err);
  if (status == IST_OK) status = answer(c, &prompt, &l, r, err);
  if (status == IST_OK) status = add_answer(c, &l.text, err);
  if (status == IST_OK) {
    drop_messages(c, c->first, 2 * left_out);
    r->left_out = left_out;
  } else {
    drop_messages(c, before, c->n - before);
  }
  ist_buf_free(&l.text);
  ist_ids_free(&prompt);
  return status;
}

/* ---- Opening ---- */

static ist_status open_chat(ist_chat *c, ist_model *m, int64_t context, ist_error *err) {
  ist_step_products products;
  int64_t made_for = m->config.context;
  IST_TRY(ist_model_check_tokenizer(m, err));
  IST_TRY(ist_generate_check(&products, m, &c->options, err));
  if (c->options.raw)
    return ist_fail(err, IST_ERR_ARG, "raw: a conversation has no text without a template");
  IST_TRY(ist_generate_template(&c->template, m, &c->options, err));
  if (context > IST_MAX_REGION)
    return ist_fail(err, IST_ERR_ARG, "context: found %lld, expected at most %lld",
                    (long long)context, (long long)IST_MAX_REGION);
  c->context = context > 0 ? context : CONTEXT;
  if (context <= 0 && made_for > 0 && made_for < c->context) c->context = made_for;
  if (c->options.max_new >= c->context)
    return ist_fail(err, IST_ERR_ARG,
                    "max_new: found %lld, expected fewer than the %lld tokens of the conversation "
                    "(context)",
                    (long long)c->options.max_new, (long long)c->context);
  if (c->options.system) {
    IST_TRY(add_message(c, IST_ROLE_SYSTEM, c->options.system, strlen(c->options.system), err));
    c->first = 1;
  }
  IST_TRY(ist_generator_open(&c->generator, m, 1, c->context, products, err));
  c->opened = m->busy = true;
  return IST_OK;
}

ist_status ist_chat_open(ist_chat **out, ist_model *m, const ist_generate_options *o,
                         int64_t context, ist_error *err) {
  *out = NULL;
  ist_chat *c = ist_calloc(1, sizeof *c);
  if (!c) return ist_fail_nomem(err, "a conversation", sizeof *c);
  c->options = *o;
  c->now = ist_jinja_now();
  ist_status status = open_chat(c, m, context, err);
  if (status != IST_OK) {
    ist_chat_close(c);
    return status;
  }
  *out = c;
  return IST_OK;
}

void ist_chat_close(ist_chat *c) {
  if (!c) return;
  if (c->opened) {
    c->generator.model->busy = false;
    ist_generator_close(&c->generator);
  }
  drop_messages(c, 0, c->n);
  ist_free(c->message);
  ist_ids_free(&c->past);
  ist_free(c);
}
