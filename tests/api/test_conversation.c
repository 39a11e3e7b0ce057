/* A conversation with its keys and values kept, against the whole of it computed anew every
 * time; stopped answers, messages too long, exchanges left out. */
#include "train/fixture.h"

#include "data/data.h"
#include "eval/generator.h"
#include "model/model.h"

enum { MOST = 16, NEW = 12 };

/* What was said, as the test notes it. */
typedef struct talk {
  ist_model *m, *other; /* the conversation's, and one for it computed anew */
  ist_chat *chat;
  ist_message message[MOST];
  char text[MOST][256];
  int64_t n;
  ist_ids past; /* the tokens that the cache must hold */
} talk;

static void note(talk *t, ist_role role, const char *text) {
  assert_true(t->n < MOST && strlen(text) < sizeof t->text[0]);
  strcpy(t->text[t->n], text);
  t->message[t->n] = (ist_message){role, t->text[t->n], strlen(text), NULL};
  t->n++;
}

static void open_talk(talk *t, int64_t context, const char *system) {
  ist_error err = {0};
  ist_model_options mo;
  ist_generate_options o;
  *t = (talk){0};
  ist_model_options_init(&mo);
  mo.compute = IST_COMPUTE_F32;
  MUST(ist_model_open(&t->m, TINY "llama_tiny.gguf", &mo, &err));
  MUST(ist_model_open(&t->other, TINY "llama_tiny.gguf", &mo, &err));
  ist_generate_options_init(&o);
  o.max_new = NEW;
  o.template_name = "chatml";
  o.system = system;
  MUST(ist_chat_open(&t->chat, t->m, &o, context, &err));
  if (system) note(t, IST_ROLE_SYSTEM, system);
}

static void close_talk(talk *t) {
  ist_ids_free(&t->past);
  ist_chat_close(t->chat);
  ist_model_close(t->m);
  ist_model_close(t->other);
}

/* The answer as it comes: of its first `most` pieces. */
typedef struct heard {
  char text[256];
  int pieces, most;
} heard;

static bool hear(void *user, const char *piece, size_t len) {
  heard *h = user;
  assert_true(strlen(h->text) + len < sizeof h->text);
  strncat(h->text, piece, len);
  return ++h->pieces < h->most;
}

/* The conversation so far as a prompt, computed from its beginning and answered greedily
 * with `n` tokens; t->past is then what a cache would hold. */
static void answer_anew(talk *t, int64_t n, char *text, int64_t *n_prompt) {
  ist_error err = {0};
  ist_generator g;
  ist_ids ids = {0};
  ist_buf out = {0};
  const char *ignored;
  ist_message list[MOST + 1];
  memcpy(list, t->message, sizeof t->message);
  list[t->n] = (ist_message){IST_ROLE_ASSISTANT, "", 0, NULL};
  const ist_record record = {.line = 1, .n_messages = t->n + 1, .message = list};
  MUST(ist_prompt_build(&ids, &record, t->m->tokenizer, IST_TEMPLATE_CHATML, 0, &ignored, &err));
  MUST(ist_generator_open(&g, t->other, 1, ids.n + n, IST_STEP_FLOAT, &err));
  *n_prompt = ids.n;
  const float *logits = ist_generator_prompt(&g, 0, ids.p, ids.n, 0);
  const ist_sampling greedy = {.top_p = 1};
  for (int64_t i = 0, rows; i < n; i++) {
    int32_t id = ist_sample_token(&g, logits, &greedy, i);
    if (ist_tokenizer_is_eog(t->m->tokenizer, id)) break;
    MUST(ist_tokenizer_decode_piece(t->m->tokenizer, id, false, &out, &err));
    if (i + 1 == n) break;
    MUST(ist_ids_add(&ids, id, &err));
    g.seq[0].next = id;
    logits = ist_generator_step(&g, &rows).p;
  }
  assert_true(out.len < 256);
  memcpy(text, out.p ? out.p : "", out.len);
  text[out.len] = 0;
  ist_generator_close(&g);
  ist_buf_free(&out);
  ist_ids_free(&t->past);
  t->past = ids;
}

/* Says it, and holds the answer and what was kept against the conversation computed anew. */
static ist_generate_result say(talk *t, const char *text, int most) {
  ist_error err = {0};
  ist_generate_result r;
  heard h = {.most = most};
  char expected[256];
  int64_t n_prompt, kept = 0;
  MUST(ist_chat_say(t->chat, text, hear, &h, &r, &err));
  while (r.left_out--) {
    int64_t first = t->message[0].role == IST_ROLE_SYSTEM;
    for (int64_t i = first; i + 2 < t->n; i++) strcpy(t->text[i], t->text[i + 2]);
    t->n -= 2;
    for (int64_t i = 0; i < t->n; i++) t->message[i].len = strlen(t->text[i]);
  }
  note(t, IST_ROLE_USER, text);
  ist_ids past = t->past;
  t->past = (ist_ids){0};
  answer_anew(t, r.new_tokens + r.ended, expected, &n_prompt);
  while (kept < past.n && kept < n_prompt - 1 && past.p[kept] == t->past.p[kept]) kept++;
  ist_ids_free(&past);
  assert_string_equal(h.text, expected);
  assert_int_equal(r.prompt_tokens, n_prompt);
  assert_int_equal(r.kept_tokens, kept);
  note(t, IST_ROLE_ASSISTANT, h.text);
  return r;
}

static void test_turns(void **state) {
  (void)state;
  talk t;
  open_talk(&t, 0, "be brief");
  assert_int_equal(say(&t, "one", 99).kept_tokens, 0);
  ist_generate_result r = say(&t, "two two", 99);
  assert_true(r.kept_tokens > 20);
  assert_true(say(&t, "and three", 99).kept_tokens >= r.prompt_tokens);
  close_talk(&t);
}

static void test_stopped(void **state) {
  (void)state;
  talk t;
  open_talk(&t, 0, NULL);
  assert_true(say(&t, "one", 2).new_tokens < NEW);
  say(&t, "two", 99);
  close_talk(&t);
}

static void test_too_long(void **state) {
  (void)state;
  talk t;
  open_talk(&t, 100, "be brief");
  say(&t, "one", 99);
  ist_error err = {0};
  ist_generate_result r;
  char longer[200];
  memset(longer, 'x', sizeof longer - 1);
  longer[sizeof longer - 1] = 0;
  assert_int_equal(ist_chat_say(t.chat, longer, NULL, NULL, &r, &err), IST_ERR_ARG);
  assert_non_null(strstr(err.message, "room for 100"));
  say(&t, "two", 99);
  for (int i = 0; i < 4; i++) say(&t, "and some more", 99);
  assert_true(t.n <= 7);
  close_talk(&t);
}

static void test_options(void **state) {
  (void)state;
  talk t;
  ist_error err = {0};
  ist_chat *c;
  ist_generate_options o;
  open_talk(&t, 0, NULL);
  ist_generate_options_init(&o);
  o.max_new = 128;
  assert_int_equal(ist_chat_open(&c, t.other, &o, 0, &err), IST_ERR_ARG);
  assert_non_null(strstr(err.message, "the 128 tokens of the conversation"));
  o.max_new = 5;
  assert_int_equal(ist_chat_open(&c, t.m, &o, 0, &err), IST_ERR_ARG);
  assert_non_null(strstr(err.message, "in use by a trainer or a conversation"));
  o.raw = true;
  assert_int_equal(ist_chat_open(&c, t.other, &o, 0, &err), IST_ERR_ARG);
  assert_null(c);
  close_talk(&t);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_turns),
      cmocka_unit_test(test_stopped),
      cmocka_unit_test(test_too_long),
      cmocka_unit_test(test_options),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
