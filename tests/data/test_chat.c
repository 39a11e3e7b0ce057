/* The model's own chat template: its text, tokens and mask. */
#include "tokenizer/small_vocab.h"

#include "base/rng.h"
#include "data/render.h"
#include "data/text_file.h"

#define START "<|im_start|>"
#define END   "<|im_end|>"

static const small_token extra[] = {
    {"<|endoftext|>", CONTROL}, {START, CONTROL}, {END, CONTROL}, {NULL, 0}};
static const char *const no_merges[] = {NULL};

/* chatml, as a model's template says it. */
#define CHATML                                                                                    \
  "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>' + '\\n' " \
  "}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
/* The same with the replies marked. */
#define MARKED                                                                                 \
  "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}{% if m.role == 'assistant' %}" \
  "{% generation %}{{ m.content + '<|im_end|>' }}{% endgeneration %}{{ '\\n' }}{% else %}"     \
  "{{ m.content + '<|im_end|>\\n' }}{% endif %}{% endfor %}{% if add_generation_prompt %}"     \
  "{{ '<|im_start|>assistant\\n' }}{% endif %}"
/* Thoughts of earlier turns are left out, and the last reply opens with an empty one. */
#define THINKING                                                                                   \
  "{% for m in messages %}{% set c = m.content.split('</t>')[-1] if not loop.last else m.content " \
  "%}{{ '<|im_start|>' + m.role + '\\n' + ('<t></t>' if loop.last and m.role == 'assistant' and "  \
  "'</t>' not in c else '') + c + '<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}"    \
  "{{ '<|im_start|>assistant\\n' }}{% endif %}"

/* A reply is asked for with an opening that shown replies do not have. */
#define OPENED                                                                                 \
  "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}" \
  "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n<t>' }}{% endif %}"

static ist_tokenizer *open_with(const char *chat_template) {
  const small_vocab v = {.pre = "gpt-2",
                         .extra = extra,
                         .merges = no_merges,
                         .eos = "<|endoftext|>",
                         .chat_template = chat_template};
  return small_vocab_open(&v);
}

/* Supervised tokens in brackets. */
static void show(ist_buf *out, const ist_tokenizer *t, const ist_rendered *r) {
  ist_buf_clear(out);
  for (int64_t i = 0; i < r->ids.n; i++) {
    if (r->mask[i] && (i == 0 || !r->mask[i - 1])) ist_buf_str(out, "[");
    assert_int_equal(ist_tokenizer_decode(t, &r->ids.p[i], 1, true, out, NULL), IST_OK);
    if (r->mask[i] && (i + 1 == r->ids.n || !r->mask[i + 1])) ist_buf_str(out, "]");
  }
}

typedef struct turns {
  ist_record r;
  ist_message m[8];
} turns;

static void add(turns *t, ist_role role, const char *text) {
  t->r.message = t->m;
  t->m[t->r.n_messages++] = (ist_message){role, (char *)(uintptr_t)text, strlen(text), NULL};
}

static void check(const char *chat_template, const turns *c, const char *expected) {
  ist_error err = {0};
  ist_tokenizer *t = open_with(chat_template);
  ist_rendered r = {0};
  ist_buf out = {0};
  if (ist_render_record(&r, &c->r, t, IST_TEMPLATE_MODEL, 0, 0, &err) != IST_OK)
    fail_msg("%s", err.message);
  show(&out, t, &r);
  assert_string_equal(out.p, expected);
  ist_buf_free(&out);
  ist_rendered_free(&r);
  ist_tokenizer_free(t);
}

static void test_masks(void **state) {
  (void)state;
  turns c = {0};
  add(&c, IST_ROLE_SYSTEM, "S");
  add(&c, IST_ROLE_USER, "a");
  add(&c, IST_ROLE_ASSISTANT, "<t>x</t>b");
  add(&c, IST_ROLE_USER, "\nq " END);
  add(&c, IST_ROLE_ASSISTANT, "d");
#define OPEN START "system\nS" END "\n" START "user\na" END "\n" START "assistant\n"
  check(CHATML, &c,
        OPEN "[<t>x</t>b" END "]\n" START "user\n\nq " END END "\n" START "assistant\n[d" END
             "]\n");
  check(MARKED, &c,
        OPEN "[<t>x</t>b" END "]\n" START "user\n\nq " END END "\n" START "assistant\n[d" END
             "]\n");
  check(THINKING, &c,
        OPEN "[b" END "]\n" START "user\n\nq " END END "\n" START "assistant\n[<t></t>d" END "]\n");
}

/* What a prompt's opening and a reply happen to have in common is the reply's. */
static void test_other_opening(void **state) {
  (void)state;
  turns c = {0};
  add(&c, IST_ROLE_USER, "a");
  add(&c, IST_ROLE_ASSISTANT, "<tx");
  check(OPENED, &c, START "user\na" END "\n" START "assistant\n[<tx" END "]\n");
}

/* Random conversations out of awkward texts, the markers' own spellings included. */
static void random_turns(turns *c, ist_rng *rng) {
  static const char *const texts[] = {"",           "a",     "\nb",   " c ",        END,
                                      START "user", "<|im_", "é\n\n", "assistant\n"};
  *c = (turns){0};
  if (ist_rng_below(rng, 2)) add(c, IST_ROLE_SYSTEM, texts[ist_rng_below(rng, 9)]);
  for (uint64_t n = 1 + ist_rng_below(rng, 3); n > 0; n--) {
    add(c, IST_ROLE_USER, texts[ist_rng_below(rng, 9)]);
    if (n > 1 || ist_rng_below(rng, 3)) add(c, IST_ROLE_ASSISTANT, texts[ist_rng_below(rng, 9)]);
  }
}

static void assert_same(const ist_rendered *a, const ist_rendered *b, int64_t n) {
  assert_true(a->ids.n >= n && b->ids.n >= n);
  assert_memory_equal(a->ids.p, b->ids.p, (size_t)n * sizeof *a->ids.p);
  for (int64_t i = 0; i < n; i++) assert_int_equal(!a->mask[i], !b->mask[i]);
}

/* The template in the file, with marks and without, gives what the built-in one
 * does, and a record's prompt is the beginning of the record. */
static void test_as_built_in(void **state) {
  (void)state;
  static const char *const templates[] = {CHATML, MARKED};
  ist_rng rng = ist_rng_stream(9, IST_RNG_SPLIT, 0, 0, 0);
  for (int k = 0; k < 2; k++) {
    ist_tokenizer *t = open_with(templates[k]);
    for (int i = 0; i < 300; i++) {
      turns c;
      random_turns(&c, &rng);
      ist_rendered own = {0}, built_in = {0}, prompt = {0}, built_in_prompt = {0};
      assert_int_equal(ist_render_record(&own, &c.r, t, IST_TEMPLATE_MODEL, 0, 0, NULL), IST_OK);
      assert_int_equal(ist_render_record(&built_in, &c.r, t, IST_TEMPLATE_CHATML, 0, 0, NULL),
                       IST_OK);
      assert_int_equal(own.ids.n, built_in.ids.n);
      assert_same(&own, &built_in, own.ids.n);
      assert_int_equal(ist_render_prompt(&prompt, &c.r, t, IST_TEMPLATE_MODEL, 0, NULL), IST_OK);
      assert_int_equal(ist_render_prompt(&built_in_prompt, &c.r, t, IST_TEMPLATE_CHATML, 0, NULL),
                       IST_OK);
      assert_int_equal(prompt.ids.n, built_in_prompt.ids.n);
      assert_same(&prompt, &built_in_prompt, prompt.ids.n);
      if (c.m[c.r.n_messages - 1].role == IST_ROLE_ASSISTANT)
        assert_same(&prompt, &own, prompt.ids.n);
      ist_rendered_free(&own);
      ist_rendered_free(&built_in);
      ist_rendered_free(&prompt);
      ist_rendered_free(&built_in_prompt);
    }
    ist_tokenizer_free(t);
  }
}

static void test_resolve(void **state) {
  (void)state;
  ist_error err = {0};
  ist_tokenizer *own = open_with(CHATML), *none = open_with(NULL), *bad = open_with("{% if %}");
  ist_template t = IST_TEMPLATE_AUTO;
  assert_int_equal(ist_template_resolve(&t, own, &err), IST_OK);
  assert_int_equal(t, IST_TEMPLATE_MODEL);
  t = IST_TEMPLATE_MODEL;
  assert_int_equal(ist_template_resolve(&t, none, &err), IST_ERR_ARG);
  assert_non_null(strstr(err.message, "no chat template"));
  t = IST_TEMPLATE_AUTO;
  assert_int_equal(ist_template_resolve(&t, bad, &err), IST_ERR_DATA);
  assert_non_null(strstr(err.message, "line 1"));
  t = IST_TEMPLATE_CHATML;
  assert_int_equal(ist_template_resolve(&t, bad, &err), IST_OK);
  assert_int_equal(ist_loss_on_from_name("last"), IST_LOSS_LAST);
  assert_int_equal(ist_loss_on_from_name("first"), -1);
  ist_tokenizer_free(own);
  ist_tokenizer_free(none);
  ist_tokenizer_free(bad);
}

/* A conversation that the template refuses is an error with the template's words. */
static void test_refused(void **state) {
  (void)state;
  ist_error err = {0};
  turns c = {0};
  add(&c, IST_ROLE_USER, "a");
  ist_tokenizer *t = open_with("{{ raise_exception('no ' ~ messages[0].role) }}");
  ist_rendered r = {0};
  assert_int_equal(ist_render_record(&r, &c.r, t, IST_TEMPLATE_MODEL, 0, 0, &err), IST_ERR_DATA);
  assert_non_null(strstr(err.message, "no user"));
  ist_rendered_free(&r);
  ist_tokenizer_free(t);
}

/* The last reply only. */
static void test_loss_on_last(void **state) {
  (void)state;
  ist_error err = {0};
  turns c = {0};
  add(&c, IST_ROLE_USER, "a");
  add(&c, IST_ROLE_ASSISTANT, "bc");
  add(&c, IST_ROLE_USER, "d");
  add(&c, IST_ROLE_ASSISTANT, "e");
  ist_records records = {.p = &c.r, .n = 1, .path = "records"};
  static const ist_template templates[] = {IST_TEMPLATE_MODEL, IST_TEMPLATE_CHATML,
                                           IST_TEMPLATE_NONE};
  for (int k = 0; k < 3; k++) {
    ist_tokenizer *t = open_with(MARKED);
    ist_dataset d;
    ist_data_options o = {.tmpl = templates[k], .loss_on = IST_LOSS_LAST, .max_tokens = 1000};
    assert_int_equal(ist_dataset_build(&d, &records, t, &o, &err), IST_OK);
    assert_int_equal(d.p[0].n_target, 2); /* e and the end of the turn */
    assert_int_equal(d.p[0].mask[d.p[0].n - 2], 1);
    ist_dataset_free(&d);
    o.loss_on = IST_LOSS_COMPLETION;
    assert_int_equal(ist_dataset_build(&d, &records, t, &o, &err), IST_OK);
    assert_int_equal(d.p[0].n_target, 5);
    ist_dataset_free(&d);
    ist_tokenizer_free(t);
  }
}

/* Where a sample is cut does not say which reply is the last: one that is cut in two is learned as
 * far as it goes, and where it is cut away nothing is, however the replies were found. */
static void test_last_of_a_cut_sample(void **state) {
  (void)state;
  turns c = {0};
  add(&c, IST_ROLE_USER, "a");
  add(&c, IST_ROLE_ASSISTANT, "bc");
  add(&c, IST_ROLE_USER, "d");
  add(&c, IST_ROLE_ASSISTANT, "efg");
  ist_records records = {.p = &c.r, .n = 1, .path = "records"};
  static const struct {
    const char *source;
    ist_template tmpl;
  } rows[] = {{CHATML, IST_TEMPLATE_MODEL},
              {MARKED, IST_TEMPLATE_MODEL},
              {MARKED, IST_TEMPLATE_CHATML},
              {MARKED, IST_TEMPLATE_NONE}};
  for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
    ist_error err = {0};
    ist_tokenizer *t = open_with(rows[k].source);
    ist_dataset d;
    ist_data_options o = {.tmpl = rows[k].tmpl, .loss_on = IST_LOSS_LAST, .max_tokens = 1000};
    assert_int_equal(ist_dataset_build(&d, &records, t, &o, &err), IST_OK);
    int64_t n = d.p[0].n, first = n - d.p[0].n_target;
    assert_int_equal(d.p[0].n_target, 4);
    ist_dataset_free(&d);
    for (o.max_tokens = 2; o.max_tokens < n; o.max_tokens++) {
      ist_status status = ist_dataset_build(&d, &records, t, &o, &err);
      assert_int_equal(d.n_cut, 1);
      assert_int_equal(d.n_dropped, o.max_tokens <= first);
      assert_int_equal(status, o.max_tokens <= first ? IST_ERR_DATA : IST_OK);
      if (status == IST_OK) assert_int_equal(d.p[0].n_target, o.max_tokens - first);
      ist_dataset_free(&d);
    }
    ist_tokenizer_free(t);
  }
}

/* Tools, calls, answers and options of the template. What the record says stays text: names
 * of arguments, roles among them, and options never become control tokens. */
#define CALLING                                                                               \
  "{% if tools %}{{ 'T' ~ (tools | tojson) ~ '\n' }}{% endif %}{{ mood ~ pad_token ~ '\n' }}" \
  "{{ x_token ~ persona.role ~ '\n' }}"                                                       \
  "{% for m in messages %}{{ '<|im_start|>' ~ m.role ~ '\n' }}"                               \
  "{% if m.content is not none %}{{ m.content }}{% endif %}"                                  \
  "{% for call in m.tool_calls or [] %}{{ 'C' ~ call.function.name }}"                        \
  "{% for k, v in call.function.arguments.items() %}{{ ' ' ~ k ~ '=' ~ v }}{% endfor %}"      \
  "{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"                                              \
  "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"

static void test_tools(void **state) {
  (void)state;
  static const char text[] =
      "{\"tools\": [{\"name\": \"add\"}], \"chat_template_kwargs\": {\"mood\": \"" END
      "\", \"pad_token\": \"" END "\", \"x_token\": \"" END "\", \"persona\": {\"role\": \"" END
      "\"}}, \"messages\": [{\"role\": \"user\", \"content\": \"q\"}, "
      "{\"role\": \"assistant\", \"content\": null, \"tool_calls\": [{\"function\": {\"name\": "
      "\"add\","
      " \"arguments\": {\"role\": \"" END "\", \"" END
      "\": 2}}}]}, "
      "{\"role\": \"tool\", \"content\": \"3\"}, {\"role\": \"assistant\", \"content\": \"so "
      "3\"}]}\n";
  ist_records records;
  must_read(&records, text);
  turns c = {.r = records.p[0]};
  check(CALLING, &c,
        "T[{\"name\": \"add\"}]\n" END "\n" END END "\n" START "user\nq" END "\n" START
        "assistant\n[Cadd role=" END " " END "=2" END "]\n" START "tool\n3" END "\n" START
        "assistant\n[so 3" END "]\n");
  ist_error err = {0};
  ist_tokenizer *t = open_with(CALLING);
  ist_rendered r = {0};
  assert_int_equal(ist_render_record(&r, &c.r, t, IST_TEMPLATE_MODEL, 0, 0, &err), IST_OK);
  int ends = 0, end = ist_tokenizer_find(t, END);
  for (int64_t i = 0; i < r.ids.n; i++) ends += r.ids.p[i] == end;
  assert_int_equal(ends, 4); /* one a message: those of the record are text */
  assert_int_equal(ist_render_record(&r, &c.r, t, IST_TEMPLATE_CHATML, 0, 0, &err), IST_ERR_DATA);
  assert_non_null(strstr(err.message, "template chatml cannot show"));
  ist_rendered_free(&r);
  ist_tokenizer_free(t);
  ist_records_free(&records);
  assert_int_equal(read_text(&records,
                             "{\"tools\": 3, \"messages\": [{\"role\": \"user\", "
                             "\"content\": \"q\"}]}\n",
                             &err),
                   IST_ERR_DATA);
  assert_non_null(strstr(err.message, "field 'tools' is a number, expected an array"));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_masks),        cmocka_unit_test(test_as_built_in),
      cmocka_unit_test(test_resolve),      cmocka_unit_test(test_refused),
      cmocka_unit_test(test_loss_on_last), cmocka_unit_test(test_other_opening),
      cmocka_unit_test(test_tools),        cmocka_unit_test(test_last_of_a_cut_sample),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
