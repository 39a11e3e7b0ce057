/* Templates, masks and cuts, token by token: every sample is shown as its text
 * with [brackets] around each supervised token. In the small vocabulary a letter
 * is a token, but for "the", " the" and the runs of spaces the paper's prompt has. */
#include "data/text_file.h"

static const small_token tokens[] = {{"<|endoftext|>", CONTROL},
                                     {"<|im_start|>", CONTROL},
                                     {"<|im_end|>", CONTROL},
                                     {"th", NORMAL},
                                     {"the", NORMAL},
                                     {"\xc4\xa0the", NORMAL},
                                     {"\xc4\xa0\xc4\xa0", NORMAL},
                                     {"\xc4\xa0\xc4\xa0\xc4\xa0\xc4\xa0", NORMAL},
                                     {"\xc4\x8a\xc4\x8a", NORMAL},
                                     {NULL, 0}};
static const char *const merges[] = {"t h",
                                     "th e",
                                     "\xc4\xa0 the",
                                     "\xc4\xa0 \xc4\xa0",
                                     "\xc4\xa0\xc4\xa0 \xc4\xa0\xc4\xa0",
                                     "\xc4\x8a \xc4\x8a",
                                     NULL};
static const small_vocab chatty = {.pre = "smollm",
                                   .extra = tokens,
                                   .merges = merges,
                                   .bos = "<|im_start|>",
                                   .eos = "<|endoftext|>"};
static const small_vocab with_bos = {.pre = "llama-bpe",
                                     .extra = tokens,
                                     .merges = merges,
                                     .bos = "<|im_start|>",
                                     .eos = "<|endoftext|>"};

#define EOS "<|endoftext|>"

static void show(ist_buf *out, const ist_tokenizer *t, const ist_sample *s) {
  ist_error err = {0};
  ist_buf_clear(out);
  for (int32_t i = 0; i < s->n; i++) {
    if (s->mask[i]) ist_buf_str(out, "[");
    assert_int_equal(ist_tokenizer_decode(t, &s->ids[i], 1, true, out, &err), IST_OK);
    if (s->mask[i]) ist_buf_str(out, "]");
  }
}

static void build(ist_dataset *d, ist_records *r, const ist_tokenizer *t, const char *text,
                  ist_template tmpl, ist_loss_on loss_on, int64_t max_tokens) {
  ist_error err = {0};
  must_read(r, text);
  ist_data_options opt = {.tmpl = tmpl, .loss_on = loss_on, .max_tokens = max_tokens};
  if (ist_dataset_build(d, r, t, &opt, &err) != IST_OK) fail_msg("%s", err.message);
}

static void check_full(const small_vocab *v, const char *json, ist_template tmpl,
                       ist_loss_on loss_on, int64_t max_tokens, const char *expected) {
  ist_tokenizer *t = small_vocab_open(v);
  ist_records r;
  ist_dataset d;
  build(&d, &r, t, json, tmpl, loss_on, max_tokens);
  ist_buf out = {0};
  show(&out, t, &d.p[0]);
  assert_string_equal(out.p, expected);
  int32_t targets = 0;
  for (int32_t i = 0; i < d.p[0].n; i++) targets += d.p[0].mask[i];
  assert_int_equal(d.p[0].n_target, targets);
  ist_buf_free(&out);
  ist_dataset_free(&d);
  ist_records_free(&r);
  ist_tokenizer_free(t);
}

static void check(const char *json, ist_template tmpl, const char *expected) {
  check_full(&chatty, json, tmpl, IST_LOSS_COMPLETION, 4096, expected);
}

#define INSTRUCTION "{\"instruction\": \"the q\", \"input\": \"\", \"output\": \"the a\"}"
#define INPUT       "{\"instruction\": \"the q\", \"input\": \"in\", \"output\": \"the a\"}"
#define PROMPT      "{\"prompt\": \"q:\", \"completion\": \" the\"}"
#define TALK                                                                                       \
  "{\"messages\": [{\"role\": \"system\", \"content\": \"S\"}, {\"role\": \"user\", \"content\": " \
  "\"a\"}, {\"role\": \"assistant\", \"content\": \"b\"}, {\"role\": \"user\", \"content\": "      \
  "\"\\nthe\"}, {\"role\": \"assistant\", \"content\": \"\"}]}"

static void test_chatml(void **state) {
  (void)state;
  check(PROMPT, IST_TEMPLATE_CHATML,
        "<|im_start|>user\nq:<|im_end|>\n<|im_start|>assistant\n[ the][<|im_end|>]");
  check(INPUT, IST_TEMPLATE_CHATML,
        "<|im_start|>user\nthe q\n\nin<|im_end|>\n<|im_start|>assistant\n[the][ ][a][<|im_end|>]");
  check(TALK, IST_TEMPLATE_CHATML,
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n"
        "[b][<|im_end|>]\n<|im_start|>user\n\nthe<|im_end|>\n<|im_start|>assistant\n[<|im_end|>]");
  check("{\"text\": \"the x\"}", IST_TEMPLATE_CHATML, "the[ ][x][" EOS "]");
  check_full(
      &chatty, PROMPT, IST_TEMPLATE_CHATML, IST_LOSS_ALL, 4096,
      "<|im_start|>[u][s][e][r][\n][q][:][<|im_end|>][\n][<|im_start|>][a][s][s][i][s][t][a][n][t]"
      "[\n][ the][<|im_end|>][\n]");
  check_full(&with_bos, "{\"text\": \"the x\"}", IST_TEMPLATE_CHATML, IST_LOSS_COMPLETION, 4096,
             "<|im_start|>[the][ ][x][" EOS "]");
}

/* The head of a user's message and its text are one text for the tokeniser, as in
 * chat at run time; the head of a reply is apart from the reply. */
static void test_chatml_boundaries(void **state) {
  (void)state;
  ist_tokenizer *t = small_vocab_open(&chatty);
  ist_records r;
  ist_dataset d;
  build(&d, &r, t, "{\"prompt\": \"\\n\\nq\", \"completion\": \"\\n\\na\"}", IST_TEMPLATE_CHATML,
        IST_LOSS_COMPLETION, 4096);
  const int32_t newlines = 256 + 8;
  int found = 0;
  for (int32_t i = 0; i < d.p[0].n; i++) found += d.p[0].ids[i] == newlines;
  assert_int_equal(found, 1);
  assert_int_equal(d.p[0].ids[5], newlines);
  const int32_t *tail = d.p[0].ids + d.p[0].n - 5; /* "\n" of the head, the reply, <|im_end|> */
  const uint8_t *mask = d.p[0].mask + d.p[0].n - 5;
  for (int i = 0; i < 3; i++) assert_int_equal(tail[i], '\n');
  for (int i = 0; i < 5; i++) assert_int_equal(mask[i], i > 0);
  ist_dataset_free(&d);
  ist_records_free(&r);
  ist_tokenizer_free(t);
}

static void test_no_injection(void **state) {
  (void)state;
  ist_tokenizer *t = small_vocab_open(&chatty);
  static const ist_template all[] = {IST_TEMPLATE_CHATML, IST_TEMPLATE_ALPACA, IST_TEMPLATE_PAPER,
                                     IST_TEMPLATE_NONE};
  static const int expected[] = {4, 1, 1, 1}; /* the template's own control tokens */
  for (int k = 0; k < 4; k++) {
    ist_records r;
    ist_dataset d;
    build(&d, &r, t,
          "{\"instruction\": \"<|im_end|>\", \"input\": \"<|im_start|>\", \"output\": "
          "\"<|im_end|><|endoftext|>!\"}",
          all[k], IST_LOSS_COMPLETION, 4096);
    int control = 0;
    for (int32_t i = 0; i < d.p[0].n; i++) control += ist_tokenizer_is_control(t, d.p[0].ids[i]);
    assert_int_equal(control, expected[k]);
    ist_dataset_free(&d);
    ist_records_free(&r);
  }
  ist_tokenizer_free(t);
}

#define TASK       "Below is an instruction that describes a task"
#define WITH_INPUT ", paired with an input that provides further context"
#define WRITE      ". Write a response that appropriately completes the request."

static void test_alpaca(void **state) {
  (void)state;
  check(INSTRUCTION, IST_TEMPLATE_ALPACA,
        TASK WRITE "\n\n### Instruction:\nthe q\n\n### Response:\n[the][ ][a][" EOS "]");
  check(INPUT, IST_TEMPLATE_ALPACA,
        TASK WITH_INPUT WRITE
        "\n\n### Instruction:\nthe q\n\n### Input:\nin\n\n### Response:\n[the][ ][a][" EOS "]");
  check(PROMPT, IST_TEMPLATE_ALPACA,
        TASK WRITE "\n\n### Instruction:\nq:\n\n### Response:\n[ the][" EOS "]");
  check(TALK, IST_TEMPLATE_ALPACA,
        "S\n\n### Instruction:\na\n\n### Response:\n[b][" EOS
        "]\n\n### Instruction:\n\nthe\n\n### Response:\n[" EOS "]");
  check_full(&with_bos, PROMPT, IST_TEMPLATE_ALPACA, IST_LOSS_COMPLETION, 4096,
             "<|im_start|>" TASK WRITE "\n\n### Instruction:\nq:\n\n### Response:\n[ the][" EOS
             "]");
}

static void test_none(void **state) {
  (void)state;
  check(PROMPT, IST_TEMPLATE_NONE, "q:[ the][" EOS "]");
  check(TALK, IST_TEMPLATE_NONE, "Sa[b][" EOS "]\nthe[" EOS "]");
  check("{\"text\": \"the x\"}", IST_TEMPLATE_NONE, "the[ ][x][" EOS "]");
}

#define I16   "                "
#define PAPER TASK WRITE "  \n\n" I16 "### Instruction:\n" I16 "the q\n\n" I16 "### Response:\n" I16
#define PAPER_INPUT                                                                             \
  TASK WITH_INPUT WRITE " \n\n" I16 "### Instruction:\n" I16 "the q\n\n" I16 "### Input:\n" I16 \
                        "in\n\n" I16 "### Response:\n" I16

/* Prompt and answer are one text: the last of the sixteen spaces goes with "the". */
static void test_paper(void **state) {
  (void)state;
  static const char prompt[] = PAPER;
  char expected[sizeof prompt + 64];
  snprintf(expected, sizeof expected, "%.*s[ the][ ][a][" EOS "]", (int)sizeof prompt - 2, prompt);
  check(INSTRUCTION, IST_TEMPLATE_PAPER, expected);
  check("{\"prompt\": \"the q\", \"completion\": \"the a\"}", IST_TEMPLATE_PAPER, expected);
  static const char with_input[] = PAPER_INPUT;
  char expected_input[sizeof with_input + 64];
  snprintf(expected_input, sizeof expected_input, "%.*s[ the][ ][a][" EOS "]",
           (int)sizeof with_input - 2, with_input);
  check(INPUT, IST_TEMPLATE_PAPER, expected_input);
}

/* EOS fits, or is left out; at the limit nothing counts as cut. */
static void test_paper_limit(void **state) {
  (void)state;
  ist_tokenizer *t = small_vocab_open(&chatty);
  ist_records r;
  ist_dataset d;
  build(&d, &r, t, INSTRUCTION, IST_TEMPLATE_PAPER, IST_LOSS_ALL, 4096);
  int32_t n = d.p[0].n;
  assert_int_equal(d.p[0].ids[n - 1], ist_tokenizer_eos(t));
  assert_int_equal(d.p[0].n_target, n - 1);
  ist_dataset_free(&d);
  static const struct {
    int less, cut;
    bool eos;
  } cases[] = {{0, 0, true}, {1, 0, false}, {2, 1, false}};
  for (int k = 0; k < 3; k++) {
    ist_records_free(&r);
    build(&d, &r, t, INSTRUCTION, IST_TEMPLATE_PAPER, IST_LOSS_ALL, n - cases[k].less);
    assert_int_equal(d.p[0].n, n - cases[k].less);
    assert_int_equal(d.n_cut, cases[k].cut);
    assert_int_equal(d.p[0].ids[d.p[0].n - 1] == ist_tokenizer_eos(t), cases[k].eos);
    ist_dataset_free(&d);
  }
  ist_error err = {0};
  ist_data_options opt = {.tmpl = IST_TEMPLATE_PAPER, .max_tokens = 100};
  ist_records_free(&r);
  must_read(&r, TALK);
  assert_int_equal(ist_dataset_build(&d, &r, t, &opt, &err), IST_ERR_DATA);
  assert_non_null(strstr(err.message, "5 messages"));
  assert_non_null(strstr(err.message, "record 1"));
  ist_records_free(&r);
  ist_tokenizer_free(t);
}

static void test_cut(void **state) {
  (void)state;
  check_full(&chatty, "{\"prompt\": \"abc\", \"completion\": \"defgh\"}", IST_TEMPLATE_NONE,
             IST_LOSS_COMPLETION, 6, "abc[d][e][f]");
  ist_tokenizer *t = small_vocab_open(&chatty);
  ist_records r;
  ist_dataset d;
  build(
      &d, &r, t,
      "{\"prompt\": \"abc\", \"completion\": \"d\"}\n{\"prompt\": \"abcdef\", \"completion\": "
      "\"g\"}\n"
      "{\"prompt\": \"ab\", \"completion\": \"cdefg\"}\n{\"prompt\": \"\", \"completion\": \"x\"}",
      IST_TEMPLATE_NONE, IST_LOSS_COMPLETION, 5);
  assert_int_equal(d.n, 3);
  assert_int_equal(d.n_cut, 2);     /* the second and the third */
  assert_int_equal(d.n_dropped, 1); /* the second has no completion left */
  assert_int_equal(d.p[0].line, 1);
  assert_int_equal(d.p[1].line, 3);
  assert_int_equal(d.n_tokens, 5 + 5 + 2);
  assert_int_equal(d.n_target, 2 + 3 + 1);
  assert_int_equal(d.max_len, 5);
  ist_dataset_free(&d);

  ist_data_options opt = {.tmpl = IST_TEMPLATE_NONE, .max_tokens = 5, .limit = 1};
  ist_error err = {0};
  assert_int_equal(ist_dataset_build(&d, &r, t, &opt, &err), IST_OK);
  assert_int_equal(d.n, 1);
  ist_dataset_free(&d);
  opt.max_tokens = 2;
  opt.limit = 0;
  ist_records_free(&r);
  must_read(&r, "{\"prompt\": \"abc\", \"completion\": \"d\"}");
  assert_int_equal(ist_dataset_build(&d, &r, t, &opt, &err), IST_ERR_DATA);
  assert_non_null(strstr(err.message, "none of 1 records"));
  assert_non_null(strstr(err.message, "ist-test-data"));
  assert_true(err.hint[0] != 0);
  opt.max_tokens = 1;
  assert_int_equal(ist_dataset_build(&d, &r, t, &opt, &err), IST_ERR_ARG);
  ist_records_free(&r);
  must_read(&r, "{\"messages\": [{\"role\": \"user\", \"content\": \"no reply\"}]}");
  opt.max_tokens = 100;
  assert_int_equal(ist_dataset_build(&d, &r, t, &opt, &err), IST_ERR_DATA);
  ist_records_free(&r);
  ist_tokenizer_free(t);
}

/* A prompt is what training had before the last reply, for every template. */
static void test_prompt_is_training_prefix(void **state) {
  (void)state;
  static const ist_template all[] = {IST_TEMPLATE_CHATML, IST_TEMPLATE_ALPACA, IST_TEMPLATE_NONE,
                                     IST_TEMPLATE_PAPER};
  static const char *const json[] = {
      INSTRUCTION,
      INPUT,
      PROMPT,
      "{\"text\": \"the x\"}",
      "{\"messages\": [{\"role\": \"assistant\", \"content\": \"x\"}]}",
      TALK};
  static const char *const answers[] = {"the a", "the a", " the", "the x", "x", ""};
  static const small_vocab *const vocabs[] = {&chatty, &with_bos};
  for (int k = 0; k < 2 * 4 * 6; k++) {
    int j = k % 6;
    ist_template tmpl = all[k / 6 % 4];
    if (tmpl == IST_TEMPLATE_PAPER && (j == 2 || j > 3)) continue; /* one word, or refused */
    ist_tokenizer *t = small_vocab_open(vocabs[k / 24]);
    ist_records r;
    ist_dataset d;
    build(&d, &r, t, json[j], tmpl, IST_LOSS_COMPLETION, 4096);
    ist_ids ids = {0};
    const char *answer = NULL;
    ist_error err = {0};
    assert_int_equal(ist_prompt_build(&ids, &r.p[0], t, tmpl, 0, &answer, &err), IST_OK);
    assert_string_equal(answer, answers[j]);
    const ist_sample *s = &d.p[0];
    int32_t last = s->n; /* where the last run of supervised tokens begins */
    while (last > 0 && s->mask[last - 1]) last--;
    if (last == 1 && ids.n == 0) last = 0; /* the first token is never supervised */
    assert_int_equal(ids.n, last);
    if (ids.n) assert_memory_equal(ids.p, s->ids, (size_t)ids.n * sizeof *ids.p);
    ist_ids_free(&ids);
    ist_dataset_free(&d);
    ist_records_free(&r);
    ist_tokenizer_free(t);
  }
}

/* A record that ends with the user's message asks for a reply. */
static void test_prompt_without_answer(void **state) {
  (void)state;
  static const struct {
    ist_template tmpl;
    const char *text;
  } cases[] = {{IST_TEMPLATE_CHATML, "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"},
               {IST_TEMPLATE_ALPACA, TASK WRITE "\n\n### Instruction:\nhi\n\n### Response:\n"},
               {IST_TEMPLATE_NONE, "hi"},
               /* the sixteenth space is left for the first word of the answer */
               {IST_TEMPLATE_PAPER,
                TASK WRITE "  \n\n" I16 "### Instruction:\n" I16 "hi\n\n" I16 "### Response:\n"
                           "               "}};
  ist_tokenizer *t = small_vocab_open(&chatty);
  ist_records r;
  must_read(&r, "{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}]}");
  for (int k = 0; k < 4; k++) {
    ist_ids ids = {0};
    ist_buf text = {0};
    ist_error err = {0};
    const char *answer = "unset";
    assert_int_equal(ist_prompt_build(&ids, &r.p[0], t, cases[k].tmpl, 0, &answer, &err), IST_OK);
    assert_null(answer);
    assert_int_equal(ist_tokenizer_decode(t, ids.p, ids.n, true, &text, &err), IST_OK);
    assert_string_equal(text.p, cases[k].text);
    ist_ids_free(&ids);
    ist_buf_free(&text);
  }
  ist_records_free(&r);
  ist_tokenizer_free(t);
}

/* A vocabulary that lacks the text's characters, without an unknown token: nothing stands before
 * the end token. */
static void test_no_tokens(void **state) {
  (void)state;
  static const char tokenizer[] =
      "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"x\": 0}, \"merges\": [], \"unk_token\": "
      "null}, "
      "\"added_tokens\": [{\"id\": 1, \"content\": \"</s>\", \"special\": true}]}";
  static const char config[] = "{\"eos_token\": \"</s>\"}";
  char folder[] = "/tmp/ist-test-dataset-XXXXXX", path[64];
  ist_error err = {0};
  ist_tokenizer *t = NULL;
  assert_non_null(mkdtemp(folder));
  snprintf(path, sizeof path, "%s/tokenizer.json", folder);
  assert_int_equal(ist_file_write(path, tokenizer, sizeof tokenizer - 1, &err), IST_OK);
  snprintf(path, sizeof path, "%s/tokenizer_config.json", folder);
  assert_int_equal(ist_file_write(path, config, sizeof config - 1, &err), IST_OK);
  ist_status status = ist_tokenizer_open_json(&t, folder, &err);
  ist_remove_tree(folder, NULL);
  if (status != IST_OK) fail_msg("%s", err.message);
  ist_records r;
  must_read(&r, "{\"prompt\": \"abc\", \"completion\": \"d\"}");
  for (int tmpl = IST_TEMPLATE_ALPACA; tmpl <= IST_TEMPLATE_NONE; tmpl++) {
    ist_dataset d;
    const ist_data_options opt = {.tmpl = (ist_template)tmpl, .max_tokens = 10};
    /* The end token alone is learned from nothing. */
    assert_int_equal(ist_dataset_build(&d, &r, t, &opt, &err), IST_ERR_DATA);
    assert_non_null(strstr(err.message, "none of 1 records has a token to train on"));
  }
  ist_records_free(&r);
  ist_tokenizer_free(t);
}

static void test_resolve(void **state) {
  (void)state;
  static const small_token only_eos[] = {
      {"<|endoftext|>", CONTROL}, {"<|im_start|>", NORMAL}, {NULL, 0}};
  ist_tokenizer *with = small_vocab_open(&chatty);
  ist_tokenizer *without = small_vocab_open(&(small_vocab){.pre = "gpt-2", .extra = only_eos});
  ist_error err = {0};
  ist_template t = IST_TEMPLATE_AUTO;
  assert_int_equal(ist_template_resolve(&t, with, &err), IST_OK);
  assert_int_equal(t, IST_TEMPLATE_CHATML);
  t = IST_TEMPLATE_AUTO;
  assert_int_equal(ist_template_resolve(&t, without, &err), IST_OK);
  assert_int_equal(t, IST_TEMPLATE_ALPACA);
  t = IST_TEMPLATE_PAPER;
  assert_int_equal(ist_template_resolve(&t, without, &err), IST_OK);
  assert_int_equal(t, IST_TEMPLATE_PAPER);
  t = IST_TEMPLATE_CHATML;
  assert_int_equal(ist_template_resolve(&t, without, &err), IST_ERR_ARG);
  assert_non_null(strstr(err.message, "<|im_start|>"));
  for (int k = IST_TEMPLATE_AUTO; k <= IST_TEMPLATE_NONE; k++)
    assert_int_equal(ist_template_from_name(ist_template_name((ist_template)k)), k);
  assert_int_equal(ist_template_from_name("chat"), -1);
  ist_tokenizer_free(with);
  ist_tokenizer_free(without);
}

static uint64_t hash_of(const ist_tokenizer *t, const char *json, ist_loss_on loss_on) {
  ist_records r;
  ist_dataset d;
  build(&d, &r, t, json, IST_TEMPLATE_NONE, loss_on, 100);
  uint64_t h = ist_dataset_hash(&d);
  ist_dataset_free(&d);
  ist_records_free(&r);
  return h;
}

static void test_hash(void **state) {
  (void)state;
  ist_tokenizer *t = small_vocab_open(&chatty);
  const char *json =
      "{\"prompt\": \"a\", \"completion\": \"bc\"}\n{\"prompt\": \"d\", \"completion\": \"e\"}";
  uint64_t h = hash_of(t, json, IST_LOSS_COMPLETION);
  assert_true(h == hash_of(t, json, IST_LOSS_COMPLETION));
  static const char *const others[] = {
      "{\"prompt\": \"d\", \"completion\": \"e\"}\n{\"prompt\": \"a\", \"completion\": \"bc\"}",
      "{\"prompt\": \"a\", \"completion\": \"bc\"}\n{\"prompt\": \"d\", \"completion\": \"f\"}",
      /* only the mask differs */
      "{\"prompt\": \"ab\", \"completion\": \"c\"}\n{\"prompt\": \"d\", \"completion\": \"e\"}",
      "{\"prompt\": \"a\", \"completion\": \"bc\"}"};
  for (int k = 0; k < 4; k++) assert_true(h != hash_of(t, others[k], IST_LOSS_COMPLETION));
  ist_tokenizer_free(t);
}

/* Many records, so that several threads work: the order is that of the file, and
 * the first bad record is the one that is named. */
static void test_many(void **state) {
  (void)state;
  ist_tokenizer *t = small_vocab_open(&chatty);
  ist_buf json = {0};
  for (int i = 0; i < 1000; i++)
    ist_buf_printf(
        &json,
        "{\"messages\": [{\"role\": \"user\", \"content\": \"%d\"}, {\"role\": \"assistant\","
        " \"content\": \"%d\"}%s]}\n",
        i, i, i == 700 || i == 800 ? ", {\"role\": \"user\", \"content\": \"x\"}" : "");
  ist_records r;
  ist_dataset d;
  build(&d, &r, t, json.p, IST_TEMPLATE_CHATML, IST_LOSS_COMPLETION, 100);
  assert_int_equal(d.n, 1000);
  for (int i = 0; i < 1000; i++) assert_int_equal(d.p[i].line, i + 1);
  ist_dataset_free(&d);
  ist_error err = {0};
  ist_data_options opt = {.tmpl = IST_TEMPLATE_PAPER, .max_tokens = 1000};
  assert_int_equal(ist_dataset_build(&d, &r, t, &opt, &err), IST_ERR_DATA);
  assert_non_null(strstr(err.message, "record 701"));
  assert_int_equal(d.n, 0);
  ist_records_free(&r);
  ist_buf_free(&json);
  ist_tokenizer_free(t);
}

static void test_out_of_memory(void **state) {
  (void)state;
  ist_tokenizer *t = small_vocab_open(&chatty);
  ist_records r;
  must_read(&r, TALK);
  int failures = 0;
  for (uint64_t n = 1; n < 1000; n++) {
    ist_dataset d;
    ist_ids ids = {0};
    const char *answer;
    ist_error err = {0};
    ist_data_options opt = {.tmpl = IST_TEMPLATE_CHATML, .max_tokens = 100};
    ist_alloc_fail_at(n);
    ist_status status = ist_dataset_build(&d, &r, t, &opt, &err);
    if (status == IST_OK) status = ist_prompt_build(&ids, &r.p[0], t, opt.tmpl, 0, &answer, &err);
    ist_alloc_fail_at(0);
    if (status != IST_OK) assert_int_equal(status, IST_ERR_NOMEM);
    failures += status != IST_OK;
    ist_dataset_free(&d);
    ist_ids_free(&ids);
  }
  assert_true(failures > 5);
  ist_records_free(&r);
  ist_tokenizer_free(t);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_chatml),
      cmocka_unit_test(test_chatml_boundaries),
      cmocka_unit_test(test_no_injection),
      cmocka_unit_test(test_alpaca),
      cmocka_unit_test(test_none),
      cmocka_unit_test(test_paper),
      cmocka_unit_test(test_paper_limit),
      cmocka_unit_test(test_cut),
      cmocka_unit_test(test_prompt_is_training_prefix),
      cmocka_unit_test(test_prompt_without_answer),
      cmocka_unit_test(test_no_tokens),
      cmocka_unit_test(test_resolve),
      cmocka_unit_test(test_hash),
      cmocka_unit_test(test_many),
      cmocka_unit_test(test_out_of_memory),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
