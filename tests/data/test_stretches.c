/* Conversations in the model's template and tokenizers that put a space before a text: what stands
 * where a conversation is cut into stretches. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "data/render.h"
#include "tokenizer/internal.h"

#define GOLDEN IST_GOLDEN_DIR "/../tokenizer/golden/"

/* All have <s> and </s>. The first three put a space before a text: before every one that follows
 * a token too, at the beginning alone, wherever there is none. */
static const char *const tokenizers[] = {"legacy",
                                         "metaspace-first",
                                         "metaspace-always",
                                         "sentencepiece-prefix.gguf",
                                         "sentencepiece.gguf",
                                         "gemma"};
enum { TOKENIZERS = sizeof tokenizers / sizeof *tokenizers };

/* Both sides of a reply are tokens; then comes what is not the assistant's. */
#define TURN \
  "{% for m in messages %}{% if m.role == 'user' %}{{ '<s>' + m.content + '<s>' }}{% else %}"
#define FOUND(behind) TURN "{{ m.content + '</s>" behind "' }}{% endif %}{% endfor %}"
#define MARKED(behind)                               \
  TURN "{% generation %}{{ m.content + '</s>" behind \
       "' }}{% endgeneration %}{% endif %}{% endfor %}"

static const struct {
  const char *source, *behind; /* the end of a reply */
} templates[] = {{FOUND(""), ""},
                 {FOUND(" "), " "},
                 {FOUND("\n"), "\n"},
                 {FOUND(" \nx"), " \nx"},
                 {MARKED("\n"), "\n"}};
enum { TEMPLATES = sizeof templates / sizeof *templates };

static ist_tokenizer *open_with(const char *name, const char *source) {
  ist_error err = {0};
  ist_tokenizer *t = NULL;
  ist_gguf *g = NULL;
  char path[512];
  snprintf(path, sizeof path, GOLDEN "%s", name);
  ist_status status = IST_OK;
  if (!strstr(name, ".gguf")) {
    status = ist_tokenizer_open_json(&t, path, &err);
  } else {
    status = ist_gguf_open(&g, path, &err);
    if (status == IST_OK) status = ist_tokenizer_from_gguf(&t, g, &err);
    ist_gguf_close(g);
  }
  if (status == IST_OK) status = ist_jinja_parse(&t->chat, source, strlen(source), &err);
  if (status != IST_OK) fail_msg("%s: %s", name, err.message);
  return t;
}

typedef struct talk {
  ist_record r;
  ist_message m[6];
} talk;

static void random_talk(talk *c, ist_rng *rng) {
  static const char *const texts[] = {
      "", "a", " b", "Hello, W\xc3\xb6rld!", "c ", "x\n\n", "\xc3\xa9  ", "\n", "the word", "1 2"};
  *c = (talk){.r = {.message = c->m, .n_messages = 2 + 2 * (int64_t)ist_rng_below(rng, 3)}};
  for (int64_t i = 0; i < c->r.n_messages; i++) {
    const char *text = texts[ist_rng_below(rng, sizeof texts / sizeof *texts)];
    c->m[i] = (ist_message){i % 2 ? IST_ROLE_ASSISTANT : IST_ROLE_USER, (char *)(uintptr_t)text,
                            strlen(text), NULL};
  }
}

/* Replies are what stands between the second of two <s> and </s>, which belongs to them. */
static void check_mask(const ist_tokenizer *t, const ist_rendered *r, const char *name) {
  int32_t begin = ist_tokenizer_find(t, "<s>"), end = ist_tokenizer_find(t, "</s>");
  int begins = 0;
  bool reply = false;
  assert_true(begin >= 0 && end >= 0);
  for (int64_t i = 0; i < r->ids.n; i++) {
    if (!r->mask[i] != !reply) fail_msg("%s: token %d of a record: %d", name, (int)i, r->mask[i]);
    if (r->ids.p[i] == begin) begins++;
    reply = begins == 2 && r->ids.p[i] != end;
    if (r->ids.p[i] == end) begins = 0;
  }
}

static void test_what_is_behind_the_end(void **state) {
  (void)state;
  ist_rng rng = ist_rng_stream(3, IST_RNG_SPLIT, 0, 0, 0);
  for (int k = 0; k < TOKENIZERS * TEMPLATES; k++) {
    ist_error err = {0};
    ist_tokenizer *t = open_with(tokenizers[k / TEMPLATES], templates[k % TEMPLATES].source);
    for (int i = 0; i < 50; i++) {
      talk c;
      ist_rendered r = {0};
      random_talk(&c, &rng);
      if (ist_render_record(&r, &c.r, t, IST_TEMPLATE_MODEL, 0, 0, &err))
        fail_msg("%s", err.message);
      check_mask(t, &r, tokenizers[k / TEMPLATES]);
      ist_rendered_free(&r);
    }
    ist_tokenizer_free(t);
  }
}

/* What the template makes of a conversation, written by hand. */
static void write_out(ist_buf *out, const talk *c, int64_t n, const char *behind) {
  ist_buf_clear(out);
  for (int64_t i = 0; i < n; i++) {
    if (i % 2 == 0)
      ist_buf_printf(out, "<s>%s<s>", c->m[i].text);
    else
      ist_buf_printf(out, "%s</s>%s", c->m[i].text, behind);
  }
}

static void check_ids(const ist_tokenizer *t, const ist_buf *text, const ist_rendered *r,
                      const char *name) {
  ist_ids whole = {0};
  assert_int_equal(ist_tokenizer_encode(t, text->p, text->len, true, &whole, NULL), IST_OK);
  if (r->ids.n != whole.n || memcmp(r->ids.p, whole.p, (size_t)whole.n * sizeof *whole.p) != 0)
    fail_msg("%s: '%s' in stretches has other tokens", name, text->p);
  ist_ids_free(&whole);
}

/* Stretches that meet at tokens have, one behind the other, the tokens of the whole text; so has
 * the prompt for the last reply. */
static void test_stretches_are_the_whole(void **state) {
  (void)state;
  ist_rng rng = ist_rng_stream(4, IST_RNG_SPLIT, 0, 0, 0);
  for (int k = 0; k < TOKENIZERS * TEMPLATES; k++) {
    const char *name = tokenizers[k / TEMPLATES], *behind = templates[k % TEMPLATES].behind;
    ist_tokenizer *t = open_with(name, templates[k % TEMPLATES].source);
    ist_buf text = {0};
    for (int i = 0; i < 50; i++) {
      talk c;
      ist_rendered r = {0}, prompt = {0};
      random_talk(&c, &rng);
      assert_int_equal(ist_render_record(&r, &c.r, t, IST_TEMPLATE_MODEL, 0, 0, NULL), IST_OK);
      write_out(&text, &c, c.r.n_messages, behind);
      check_ids(t, &text, &r, name);
      assert_int_equal(ist_render_prompt(&prompt, &c.r, t, IST_TEMPLATE_MODEL, 0, NULL), IST_OK);
      write_out(&text, &c, c.r.n_messages - 1, behind);
      check_ids(t, &text, &prompt, name);
      ist_rendered_free(&r);
      ist_rendered_free(&prompt);
    }
    ist_buf_free(&text);
    ist_tokenizer_free(t);
  }
}

/* A reply that begins behind text of the template goes on with it: no space is put before it. */
static void test_behind_text(void **state) {
  (void)state;
  static const char source[] =
      "{% for m in messages %}{% if m.role == 'user' %}{{ '<s>' + m.content + '<s>:' }}{% else %}"
      "{{ m.content + '</s>' }}{% endif %}{% endfor %}";
  static const char *const replies[] = {"a", " b", "Hello, 1 2", "\n"};
  for (int k = 0; k < TOKENIZERS * 4; k++) {
    ist_tokenizer *t = open_with(tokenizers[k / 4], source);
    const char *reply = replies[k % 4];
    ist_message m[2] = {{IST_ROLE_USER, (char[]){"q"}, 1, NULL},
                        {IST_ROLE_ASSISTANT, (char *)(uintptr_t)reply, strlen(reply), NULL}};
    const ist_record record = {.message = m, .n_messages = 2};
    ist_rendered r = {0};
    ist_buf text = {0}, want = {0};
    assert_int_equal(ist_render_record(&r, &record, t, IST_TEMPLATE_MODEL, 0, 0, NULL), IST_OK);
    for (int64_t i = 0; i < r.ids.n; i++)
      if (r.mask[i])
        assert_int_equal(ist_tokenizer_decode_piece(t, r.ids.p[i], true, &text, NULL), IST_OK);
    ist_buf_printf(&want, "%s</s>", reply);
    if (strcmp(text.p, want.p) != 0)
      fail_msg("%s: '%s' is learned as '%s'", tokenizers[k / 4], want.p, text.p);
    ist_buf_free(&text);
    ist_buf_free(&want);
    ist_rendered_free(&r);
    ist_tokenizer_free(t);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_what_is_behind_the_end),
                                     cmocka_unit_test(test_stretches_are_the_whole),
                                     cmocka_unit_test(test_behind_text)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
