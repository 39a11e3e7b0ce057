/* The prompt templates. What a template writes itself may become control tokens;
 * texts of the record are always tokenised as plain text.
 *
 * A completion is tokenised apart from the prompt before it, so that training
 * sees the same tokens as generation, which continues a tokenised prompt. The
 * paper's template is the exception: it tokenises prompt and completion as one
 * text, as its authors do. */
#include <inttypes.h>
#include <string.h>

#include "data/render.h"

static const char *const names[] = {
    [IST_TEMPLATE_AUTO] = "auto",     [IST_TEMPLATE_MODEL] = "model",
    [IST_TEMPLATE_CHATML] = "chatml", [IST_TEMPLATE_ALPACA] = "alpaca",
    [IST_TEMPLATE_PAPER] = "paper",   [IST_TEMPLATE_NONE] = "none"};

const char *ist_template_name(ist_template t) {
  return names[t];
}

int ist_template_from_name(const char *name) {
  for (int t = 0; t < (int)(sizeof names / sizeof names[0]); t++)
    if (strcmp(names[t], name) == 0) return t;
  return -1;
}

int ist_loss_on_from_name(const char *name) {
  static const char *const loss_names[] = {
      [IST_LOSS_COMPLETION] = "completion", [IST_LOSS_ALL] = "all", [IST_LOSS_LAST] = "last"};
  for (int k = 0; k <= IST_LOSS_LAST; k++)
    if (strcmp(loss_names[k], name) == 0) return k;
  return -1;
}

#define IM_START "<|im_start|>"
#define IM_END   "<|im_end|>"

/* The model's own template must be there and be understood. */
static ist_status check_model_template(const ist_tokenizer *tok, ist_error *err) {
  const char *text = ist_tokenizer_chat_template(tok);
  if (ist_tokenizer_chat(tok)) return IST_OK;
  if (text) {
    ist_jinja *chat = NULL;
    ist_status status = ist_jinja_parse(&chat, text, strlen(text), err);
    ist_jinja_free(chat);
    ist_error_context(err, "the model's chat template");
    ist_hint(err, "use the template chatml, alpaca or none");
    return status == IST_OK ? IST_ERR_NOMEM : status;
  }
  ist_fail(err, IST_ERR_ARG, "the model has no chat template of its own");
  ist_hint(err, "use the template auto, chatml, alpaca or none");
  return IST_ERR_ARG;
}

ist_status ist_template_resolve(ist_template *t, const ist_tokenizer *tok, ist_error *err) {
  bool chatml = ist_tokenizer_find(tok, IM_START) >= 0 && ist_tokenizer_find(tok, IM_END) >= 0;
  if (*t == IST_TEMPLATE_CHATML && !chatml) {
    ist_fail(err, IST_ERR_ARG,
             "the chatml template needs the tokens " IM_START " and " IM_END
             ", which the model's vocabulary lacks");
    ist_hint(err, "use the template alpaca or none");
    return IST_ERR_ARG;
  }
  if (*t == IST_TEMPLATE_AUTO && ist_tokenizer_chat_template(tok)) *t = IST_TEMPLATE_MODEL;
  if (*t == IST_TEMPLATE_AUTO) *t = chatml ? IST_TEMPLATE_CHATML : IST_TEMPLATE_ALPACA;
  return *t == IST_TEMPLATE_MODEL ? check_model_template(tok, err) : IST_OK;
}

/* ---- Writing tokens ---- */

typedef struct writer {
  const ist_tokenizer *tok;
  ist_rendered *out;
  ist_buf text; /* text of the prompt that waits to be tokenised as one */
  int turn;     /* completions so far */
  ist_error *err;
} writer;

/* Gives the tokens that were appended since `from` their mask. */
static ist_status set_mask(writer *w, int64_t from, bool completion) {
  ist_rendered *o = w->out;
  IST_TRY(ist_grow(&o->mask, &o->mask_cap, o->ids.n, 1, w->err));
  if (o->ids.n > from)
    memset(o->mask + from, completion ? 1 + w->turn % 2 : 0, (size_t)(o->ids.n - from));
  return IST_OK;
}

static ist_status put_token(writer *w, int32_t id, bool completion) {
  int64_t from = w->out->ids.n;
  IST_TRY(ist_ids_add(&w->out->ids, id, w->err));
  return set_mask(w, from, completion);
}

static ist_status put_text(writer *w, const char *text, size_t len, bool completion) {
  int64_t from = w->out->ids.n;
  IST_TRY(ist_tokenizer_encode(w->tok, text, len, false, &w->out->ids, w->err));
  return set_mask(w, from, completion);
}

/* Tokenises the prompt text that has gathered in w->text. */
static ist_status flush(writer *w) {
  if (w->text.failed) return ist_fail_nomem(w->err, "a prompt", w->text.len);
  ist_status status = put_text(w, w->text.p, w->text.len, false);
  ist_buf_clear(&w->text);
  return status;
}

static ist_status put_before(writer *w) {
  const ist_ids *ids = ist_tokenizer_before(w->tok);
  for (int64_t i = 0; i < ids->n; i++) IST_TRY(put_token(w, ids->p[i], false));
  return IST_OK;
}

/* What stands behind every text, which is the text's own end. */
static ist_status put_behind(writer *w) {
  const ist_ids *ids = ist_tokenizer_behind(w->tok);
  for (int64_t i = 0; i < ids->n; i++) IST_TRY(put_token(w, ids->p[i], true));
  return IST_OK;
}

static bool has_ended(const writer *w) {
  const ist_ids *ids = &w->out->ids;
  return ids->n > 0 && ist_tokenizer_is_eog(w->tok, ids->p[ids->n - 1]);
}

/* ---- chatml: <|im_start|>role\ntext<|im_end|>\n ---- */

static ist_status chatml_open(writer *w, const char *head) {
  IST_TRY(flush(w));
  IST_TRY(put_token(w, ist_tokenizer_find(w->tok, IM_START), false));
  ist_buf_str(&w->text, head);
  return IST_OK;
}

static int32_t chatml_end(const ist_tokenizer *tok) {
  return ist_tokenizer_find(tok, IM_END);
}

static ist_status chatml_turn(writer *w, const ist_record *r, const ist_message *m) {
  (void)r;
  IST_TRY(chatml_open(w, m->role == IST_ROLE_SYSTEM ? "system\n" : "user\n"));
  ist_buf_add(&w->text, m->text, m->len);
  IST_TRY(flush(w));
  IST_TRY(put_token(w, chatml_end(w->tok), false));
  ist_buf_str(&w->text, "\n");
  return IST_OK;
}

static ist_status chatml_reply(writer *w) {
  return chatml_open(w, "assistant\n");
}

/* ---- alpaca ---- */

#define TASK       "Below is an instruction that describes a task"
#define TASK_INPUT TASK ", paired with an input that provides further context"
#define ANSWER     ". Write a response that appropriately completes the request."

/* A system message at the beginning stands in for the preamble. */
static void alpaca_begin(writer *w, const ist_record *r) {
  if (r->message[0].role == IST_ROLE_SYSTEM) return;
  ist_buf_str(&w->text, r->input ? TASK_INPUT ANSWER "\n\n" : TASK ANSWER "\n\n");
}

static ist_status alpaca_turn(writer *w, const ist_record *r, const ist_message *m) {
  if (m->role == IST_ROLE_USER) ist_buf_str(&w->text, "### Instruction:\n");
  if (r->instruction)
    ist_buf_str(&w->text, r->instruction);
  else
    ist_buf_add(&w->text, m->text, m->len);
  if (r->input) {
    ist_buf_str(&w->text, "\n\n### Input:\n");
    ist_buf_str(&w->text, r->input);
  }
  ist_buf_str(&w->text, "\n\n");
  return IST_OK;
}

static ist_status alpaca_reply(writer *w) {
  ist_buf_str(&w->text, "### Response:\n");
  return IST_OK;
}

/* ---- none: the texts as they are ---- */

static ist_status none_turn(writer *w, const ist_record *r, const ist_message *m) {
  (void)r;
  ist_buf_add(&w->text, m->text, m->len);
  return IST_OK;
}

/* ---- Templates that go message by message ---- */

static const struct {
  void (*begin)(writer *w, const ist_record *r); /* before the first message, or NULL */
  /* A message of the system or the user. */
  ist_status (*turn)(writer *w, const ist_record *r, const ist_message *m);
  ist_status (*reply)(writer *w);           /* what stands before a reply's text, or NULL */
  int32_t (*end)(const ist_tokenizer *tok); /* the token that ends a reply; -1: none */
  const char *after;                        /* text behind that token */
} templates[] = {
    [IST_TEMPLATE_CHATML] = {NULL, chatml_turn, chatml_reply, chatml_end, "\n"},
    [IST_TEMPLATE_ALPACA] = {alpaca_begin, alpaca_turn, alpaca_reply, ist_tokenizer_eos, "\n\n"},
    [IST_TEMPLATE_NONE] = {NULL, none_turn, NULL, ist_tokenizer_eos, ""},
};

static ist_status open_reply(writer *w, ist_template t) {
  if (templates[t].reply) IST_TRY(templates[t].reply(w));
  return flush(w);
}

static ist_status put_reply(writer *w, const ist_record *r, ist_template t, const ist_message *m) {
  IST_TRY(open_reply(w, t));
  IST_TRY(put_text(w, m->text, m->len, true));
  if (r->plain) IST_TRY(put_behind(w));
  int32_t end = r->plain && has_ended(w) ? -1 : templates[t].end(w->tok);
  if (end >= 0) IST_TRY(put_token(w, end, true));
  w->turn++;
  ist_buf_str(&w->text, templates[t].after);
  return IST_OK;
}

/* The number of messages before the reply that a prompt asks for. */
static int64_t messages_in_prompt(const ist_record *r) {
  return r->n_messages - (r->message[r->n_messages - 1].role == IST_ROLE_ASSISTANT);
}

static ist_status by_message(writer *w, const ist_record *r, ist_template t, bool prompt) {
  int64_t n = prompt ? messages_in_prompt(r) : r->n_messages;
  IST_TRY(put_before(w));
  if (templates[t].begin) templates[t].begin(w, r);
  for (int64_t i = 0; i < n; i++) {
    const ist_message *m = &r->message[i];
    IST_TRY(m->role == IST_ROLE_ASSISTANT ? put_reply(w, r, t, m) : templates[t].turn(w, r, m));
  }
  return prompt ? open_reply(w, t) : flush(w);
}

/* ---- paper ----
 * The authors' f-string is indented, so all lines but the first begin with 16
 * spaces; and white space stands before the line breaks of its first line. */

#define INDENT "                "
#define BREAK  "\n\n" INDENT

/* Appends the prompt to w->text; *output is the completion, or NULL. */
static ist_status paper_text(writer *w, const ist_record *r, const ist_message **output) {
  bool whole = r->n_messages == 2 && r->message[1].role == IST_ROLE_ASSISTANT;
  if (r->message[0].role != IST_ROLE_USER || r->n_messages != 1 + whole)
    return ist_fail(w->err, IST_ERR_DATA,
                    "the paper template holds one instruction and one response, "
                    "this record is a conversation of %" PRId64 " messages",
                    r->n_messages);
  *output = whole ? &r->message[1] : NULL;
  ist_buf *b = &w->text;
  ist_buf_str(b, r->input ? TASK_INPUT ANSWER " " : TASK ANSWER "  ");
  ist_buf_str(b, BREAK "### Instruction:\n" INDENT);
  if (r->instruction)
    ist_buf_str(b, r->instruction);
  else
    ist_buf_add(b, r->message[0].text, r->message[0].len);
  if (r->input) {
    ist_buf_str(b, BREAK "### Input:\n" INDENT);
    ist_buf_str(b, r->input);
  }
  ist_buf_str(b, BREAK "### Response:\n" INDENT);
  return IST_OK;
}

/* The tokens before the completion: those of the prompt without its last space,
 * which goes with the first word of the completion. */
static ist_status put_paper_prompt(writer *w) {
  if (w->text.failed) return ist_fail_nomem(w->err, "a prompt", w->text.len);
  return put_text(w, w->text.p, w->text.len - 1, false);
}

/* The whole text is tokenised as one; the completion begins behind as many tokens
 * as the prompt takes. EOS is added where it fits and is not there already. */
static ist_status paper_record(writer *w, const ist_record *r, int64_t max_tokens) {
  const ist_message *output;
  ist_rendered *o = w->out;
  int64_t begin = o->ids.n;
  IST_TRY(put_before(w));
  IST_TRY(paper_text(w, r, &output));
  int64_t bos_end = o->ids.n;
  IST_TRY(put_paper_prompt(w));
  int64_t prompt_end = o->ids.n;
  o->ids.n = bos_end;
  if (output) ist_buf_add(&w->text, output->text, output->len);
  IST_TRY(flush(w));
  if (output && prompt_end < o->ids.n)
    memset(o->mask + prompt_end, 1, (size_t)(o->ids.n - prompt_end));
  int32_t eos = ist_tokenizer_eos(w->tok);
  bool ended = o->ids.n > begin && o->ids.p[o->ids.n - 1] == eos; /* a text may have no tokens */
  if (eos < 0 || o->ids.n - begin >= max_tokens || ended) return IST_OK;
  return put_token(w, eos, output != NULL);
}

static ist_status paper_prompt(writer *w, const ist_record *r) {
  const ist_message *output;
  IST_TRY(put_before(w));
  IST_TRY(paper_text(w, r, &output));
  return put_paper_prompt(w);
}

/* ---- Records ---- */

static ist_status render(writer *w, const ist_record *r, ist_template tmpl, time_t now,
                         int64_t max_tokens, bool prompt) {
  IST_ASSERT(tmpl != IST_TEMPLATE_AUTO && r->n_messages > 0);
  if (r->plain) tmpl = IST_TEMPLATE_NONE;
  if (tmpl == IST_TEMPLATE_MODEL)
    return prompt ? ist_chat_prompt(w->out, r, w->tok, now, w->err)
                  : ist_chat_record(w->out, r, w->tok, now, max_tokens, w->err);
  if (r->tools)
    return ist_fail(w->err, IST_ERR_DATA,
                    "found tools, calls or their answers, which template %s cannot show, expected "
                    "template model",
                    names[tmpl]);
  if (tmpl != IST_TEMPLATE_PAPER) return by_message(w, r, tmpl, prompt);
  return prompt ? paper_prompt(w, r) : paper_record(w, r, max_tokens);
}

ist_status ist_render_record(ist_rendered *out, const ist_record *r, const ist_tokenizer *tok,
                             ist_template tmpl, time_t now, int64_t max_tokens, ist_error *err) {
  writer w = {.tok = tok, .out = out, .err = err};
  ist_status status = render(&w, r, tmpl, now, max_tokens, false);
  ist_buf_free(&w.text);
  return status;
}

ist_status ist_render_prompt(ist_rendered *out, const ist_record *r, const ist_tokenizer *tok,
                             ist_template tmpl, time_t now, ist_error *err) {
  writer w = {.tok = tok, .out = out, .err = err};
  ist_status status = render(&w, r, tmpl, now, 0, true);
  ist_buf_free(&w.text);
  return status;
}

void ist_rendered_free(ist_rendered *r) {
  ist_ids_free(&r->ids);
  ist_free(r->mask);
  *r = (ist_rendered){0};
}

ist_status ist_prompt_build(ist_ids *out, const ist_record *r, const ist_tokenizer *tok,
                            ist_template tmpl, time_t now, const char **answer, ist_error *err) {
  ist_rendered rendered = {.ids = *out};
  ist_status status = ist_render_prompt(&rendered, r, tok, tmpl, now, err);
  if (status != IST_OK) rendered.ids.n = out->n;
  *out = rendered.ids;
  ist_free(rendered.mask);
  int64_t n = messages_in_prompt(r);
  *answer = n < r->n_messages ? r->message[n].text : NULL;
  return status;
}
