/* The model's own chat template: a record is rendered as one text, cut into
 * stretches where the assistant begins and ends to write, and tokenised stretch by
 * stretch. Where the template does not mark what is the assistant's, that is found
 * by rendering what stands before a message and asking for a reply, as for
 * generation, and by rendering up to the message's end: the text that both have in
 * common with the whole is what goes before it, and up to its end. */
#include <inttypes.h>
#include <string.h>

#include "data/render.h"

typedef struct text {
  ist_buf b;
  uint16_t *origin; /* ist_jinja_render's, a number a byte */
} text;

static void text_free(text *t) {
  ist_buf_free(&t->b);
  ist_free(t->origin);
  *t = (text){0};
}

/* Where a text stands in the whole; end 0: nowhere. */
typedef struct span {
  size_t begin, end;
} span;

/* A reply is found by rendering what stands before it, which for all of them takes the square of
 * the conversation's length: this for 350 replies among 1 MB. */
#define MOST_RENDERED ((size_t)512 << 20)

typedef struct chat {
  const ist_record *record;
  const ist_tokenizer *tok;
  ist_rendered *out;
  time_t now;         /* the date that is shown */
  int64_t max_tokens; /* what stands behind them is cut away; 0: nothing is */
  text whole;
  uint8_t *literal; /* a byte for each of the whole's: from the template */
  span *message;    /* a message's text in the whole */
  bool after_token; /* the stretches that are tokenised end in a token cut out of the text */
  size_t rendered;  /* bytes read and written to find replies; more than MOST_RENDERED: given up */
  int turn;
} chat;

/* ---- Rendering ---- */

/* What templates call the tokens whose spellings are markers. */
enum { SPECIAL = 4 };
static const char *const special_names[SPECIAL + 1] = {"bos_token", "eos_token", "unk_token",
                                                       "pad_token", NULL};

static ist_status put_special(json_t *globals, const char *name, const ist_tokenizer *tok,
                              int32_t id, ist_error *err) {
  ist_buf b = {0};
  json_object_del(globals, name); /* no option of a record stands in for a token */
  if (id < 0) return IST_OK;
  ist_status status = ist_tokenizer_decode_piece(tok, id, true, &b, err);
  if (status == IST_OK) json_object_set_new(globals, name, json_stringn(b.p ? b.p : "", b.len));
  ist_buf_free(&b);
  return status;
}

/* The fields of a JSON text, over those that are there. */
static ist_status add_fields(json_t *to, const char *json, ist_error *err) {
  if (!json) return IST_OK;
  json_t *fields = json_loads(json, 0, NULL);
  int failed = fields ? json_object_update(to, fields) : -1;
  json_decref(fields);
  return failed ? ist_fail_nomem(err, "a conversation", strlen(json)) : IST_OK;
}

/* The variables of the template for the first n messages. */
static ist_status make_globals(json_t *globals, const chat *c, int64_t n, bool reply,
                               ist_error *err) {
  static const char *const roles[] = {[IST_ROLE_SYSTEM] = "system",
                                      [IST_ROLE_USER] = "user",
                                      [IST_ROLE_ASSISTANT] = "assistant",
                                      [IST_ROLE_TOOL] = "tool"};
  json_object_set_new(globals, "tools", json_null());
  json_object_set_new(globals, "documents", json_null());
  IST_TRY(add_fields(globals, c->record->variables, err));
  json_t *messages = json_array();
  json_object_set_new(globals, "messages", messages);
  for (int64_t i = 0; i < n; i++) {
    const ist_message *m = &c->record->message[i];
    json_t *content = json_stringn(m->text, m->len);
    if (!content) return ist_fail(err, IST_ERR_DATA, "message %" PRId64 " is not valid UTF-8", i);
    json_t *message = json_pack("{s:s,s:o}", "role", roles[m->role], "content", content);
    json_array_append_new(messages, message);
    IST_TRY(add_fields(message, m->more, err));
  }
  json_object_set_new(globals, "add_generation_prompt", json_boolean(reply));
  const int32_t special[SPECIAL] = {ist_tokenizer_bos(c->tok), ist_tokenizer_eos(c->tok),
                                    ist_tokenizer_unk(c->tok), ist_tokenizer_pad(c->tok)};
  for (int k = 0; k < SPECIAL; k++)
    IST_TRY(put_special(globals, special_names[k], c->tok, special[k], err));
  return IST_OK;
}

/* The text of the first n messages, with the opening of a reply if asked for. */
static ist_status render(text *out, const chat *c, int64_t n, bool reply, ist_error *err) {
  const ist_jinja_options options = {.now = c->now, .markers = special_names};
  json_t *globals = json_object();
  if (!globals) return ist_fail_nomem(err, "a conversation", 64);
  ist_status status = make_globals(globals, c, n, reply, err);
  if (status == IST_OK)
    status =
        ist_jinja_render(ist_tokenizer_chat(c->tok), globals, &options, &out->b, &out->origin, err);
  json_decref(globals);
  return status;
}

/* ---- What the assistant wrote ---- */

/* How much of the text of the first n messages the whole begins with; *all: it
 * begins with all of it. A template may refuse a part of a conversation: then 0. */
static size_t common(chat *c, int64_t n, bool reply, bool *all) {
  text part = {0};
  size_t same = 0;
  bool fine = n > 0 && c->rendered <= MOST_RENDERED && render(&part, c, n, reply, NULL) == IST_OK;
  while (fine && same < part.b.len && same < c->whole.b.len && part.b.p[same] == c->whole.b.p[same])
    same++;
  *all = fine && same == part.b.len;
  c->rendered += part.b.len + ist_record_bytes(c->record, n); /* read, whatever is written */
  text_free(&part);
  return same;
}

/* Where the text of every message stands, by the origin of bytes. */
static ist_status find_messages(chat *c, int64_t n, ist_error *err) {
  c->message = ist_calloc((size_t)n, sizeof *c->message);
  if (!c->message) return ist_fail_nomem(err, "a conversation", (size_t)n * sizeof *c->message);
  for (size_t at = 0; at < c->whole.b.len; at++) {
    int64_t i = (c->whole.origin[at] & IST_JINJA_INPUT) - 1;
    if (i < 0 || i >= n || i + 1 == IST_JINJA_INPUT) continue; /* the last: of no message */
    if (c->message[i].end == 0) c->message[i].begin = at;
    c->message[i].end = at + 1;
  }
  return IST_OK;
}

/* A stretch of the whole, to be tokenised. */
static ist_encode_query stretch(const chat *c, span s) {
  return (ist_encode_query){.text = c->whole.b.p + s.begin,
                            .len = s.end - s.begin,
                            .special = true,
                            .literal = c->literal + s.begin,
                            .continued = s.begin > 0};
}

/* Behind the token that ends a reply, in what the template writes from `at` on
 * before the next text of the record; `at` where there is no such token. */
static size_t behind_end_token(const chat *c, size_t at) {
  size_t end = at, found = 0;
  while (end < c->whole.b.len && c->literal[end]) end++;
  const ist_encode_query q = stretch(c, (span){at, end});
  ist_status status = ist_tokenizer_find_end(c->tok, &q, true, &found, NULL);
  return status == IST_OK ? at + found : at;
}

/* Where the reply that is message i begins and ends in the whole text. */
static bool find_reply(chat *c, int64_t i, int64_t n, span *s) {
  const span inside = c->message[i];
  bool all, found = inside.end > 0;
  s->begin = common(c, i, true, &all);
  /* A template may open a reply in another way than it shows one, or change what
   * goes before once the conversation goes on. */
  if (!all && found) s->begin = inside.begin;
  s->end = c->whole.b.len;
  if (i + 1 < n) {
    s->end = common(c, i + 1, false, &all);
    if (!all && found) s->end = behind_end_token(c, inside.end);
  }
  return (all || found || i + 1 == n) && s->begin < s->end;
}

/* The next stretch at or behind `from` that lies in a generation block. */
static bool find_generated(const chat *c, size_t from, span *s) {
  size_t n = c->whole.b.len;
  while (from < n && !(c->whole.origin[from] & IST_JINJA_GENERATED)) from++;
  s->begin = from;
  while (from < n && (c->whole.origin[from] & IST_JINJA_GENERATED)) from++;
  s->end = from;
  return s->begin < s->end;
}

/* ---- Tokens ---- */

/* Appends the tokens of a stretch of the whole text. */
static ist_status put(chat *c, span s, bool reply, ist_error *err) {
  ist_rendered *o = c->out;
  int64_t from = o->ids.n;
  if (s.begin >= s.end) return IST_OK;
  ist_encode_query q = stretch(c, s);
  q.after_token = c->after_token;
  q.ends_in_token = &c->after_token;
  IST_TRY(ist_tokenizer_encode_query(c->tok, &q, &o->ids, err));
  IST_TRY(ist_grow(&o->mask, &o->mask_cap, o->ids.n, 1, err));
  if (o->ids.n > from)
    memset(o->mask + from, reply ? 1 + c->turn % 2 : 0, (size_t)(o->ids.n - from));
  c->turn += reply;
  return IST_OK;
}

/* What stands behind the token that ends a reply is not the assistant's: it goes
 * with the text behind the reply. */
static ist_status cut_behind_end(const chat *c, span *s, ist_error *err) {
  const ist_encode_query q = stretch(c, *s);
  size_t end;
  IST_TRY(ist_tokenizer_find_end(c->tok, &q, false, &end, err));
  if (end > 0) s->end = s->begin + end;
  return IST_OK;
}

static ist_status put_between(chat *c, size_t *at, span s, ist_error *err) {
  if (s.begin < *at) s.begin = *at;
  if (s.end <= s.begin) return IST_OK;
  IST_TRY(cut_behind_end(c, &s, err));
  IST_TRY(put(c, (span){*at, s.begin}, false, err));
  IST_TRY(put(c, s, true, err));
  *at = s.end;
  return IST_OK;
}

static bool is_full(const chat *c) {
  return c->max_tokens > 0 && c->out->ids.n > c->max_tokens;
}

static ist_status fail_rendered(int64_t n, ist_error *err) {
  ist_fail(err, IST_ERR_DATA,
           "found a conversation of %" PRId64
           " messages: to find its replies the template would "
           "have to read and write more than %zu MiB",
           n, MOST_RENDERED >> 20);
  ist_hint(err, "fewer tokens a sample, or a template with {%% generation %%}, need less");
  return IST_ERR_DATA;
}

static ist_status put_replies(chat *c, size_t *at, int64_t n, ist_error *err) {
  IST_TRY(find_messages(c, n, err));
  for (int64_t i = 0; i < n; i++) {
    span s;
    if (c->record->message[i].role != IST_ROLE_ASSISTANT) continue;
    c->out->unfinished = is_full(c);
    if (c->out->unfinished) break;
    bool found = find_reply(c, i, n, &s);
    if (c->rendered > MOST_RENDERED) return fail_rendered(n, err);
    if (found) IST_TRY(put_between(c, at, s, err));
  }
  return IST_OK;
}

/* The whole text, replies apart. */
static ist_status put_whole(chat *c, int64_t n, ist_error *err) {
  size_t at = 0;
  span s;
  if (ist_jinja_has_generation(ist_tokenizer_chat(c->tok))) {
    for (size_t from = 0; find_generated(c, from, &s); from = s.end) {
      c->out->unfinished = is_full(c);
      if (c->out->unfinished) break;
      IST_TRY(put_between(c, &at, s, err));
    }
  } else {
    IST_TRY(put_replies(c, &at, n, err));
  }
  return is_full(c) ? IST_OK : put(c, (span){at, c->whole.b.len}, false, err);
}

/* The first n messages; frees what the conversation has gathered. */
static ist_status write(chat *c, int64_t n, bool reply, ist_error *err) {
  /* It is rendered several times, which must not see another date each. */
  if (!c->now) c->now = ist_jinja_now();
  ist_status status = render(&c->whole, c, n, reply, err);
  size_t len = c->whole.b.len;
  if (status == IST_OK) {
    c->literal = ist_calloc(len + 1, 1);
    if (!c->literal) status = ist_fail_nomem(err, "a conversation", len);
  }
  for (size_t i = 0; status == IST_OK && i < len; i++)
    c->literal[i] = (c->whole.origin[i] & IST_JINJA_INPUT) == IST_JINJA_TEMPLATE;
  if (status == IST_OK) status = put_whole(c, n, err);
  ist_free(c->literal);
  ist_free(c->message);
  text_free(&c->whole);
  return status;
}

ist_status ist_chat_record(ist_rendered *out, const ist_record *r, const ist_tokenizer *tok,
                           time_t now, int64_t max_tokens, ist_error *err) {
  chat c = {.record = r, .tok = tok, .out = out, .now = now, .max_tokens = max_tokens};
  return write(&c, r->n_messages, false, err);
}

ist_status ist_chat_prompt(ist_rendered *out, const ist_record *r, const ist_tokenizer *tok,
                           time_t now, ist_error *err) {
  bool answered = r->message[r->n_messages - 1].role == IST_ROLE_ASSISTANT;
  chat c = {.record = r, .tok = tok, .out = out, .now = now};
  return write(&c, r->n_messages - answered, true, err);
}
