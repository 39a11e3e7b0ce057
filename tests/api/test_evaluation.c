/* Evaluation and generation through the public interface, against what the logits of the same
 * model say: loss and perplexity, greedy answers, the interval of a layer's importance; and what is
 * refused. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include <jansson.h>

#include "base/mem.h"
#include "folder.h"
#include "model/model.h"
#include "tokenizer/small_vocab.h"

#define GGUF    IST_GOLDEN_DIR "/llama_tiny/llama_tiny.gguf"
#define ADAPTER IST_GOLDEN_DIR "/llama_tiny/adapter"

static void write_text(const char *path, const char *text) {
  ist_error err = {0};
  MUST(ist_file_write(path, text, strlen(text), &err));
}

static ist_eval_options eval_options(const char *data) {
  ist_eval_options o;
  ist_eval_options_init(&o);
  o.data_path = data;
  o.template_name = "none";
  o.loss_on = "all";
  return o;
}

static int64_t vocabulary(const ist_model *m) {
  ist_model_info i;
  ist_model_get_info(m, &i);
  return i.V;
}

/* ---- Loss ---- */

/* Behind the first and the third the model writes valid UTF-8. */
static const char *const texts[] = {"the sum of 7", "what is it, please?", "add 24", "a"};
enum { TEXTS = sizeof texts / sizeof *texts };

static void write_texts(const char *path, int from, int to) {
  FILE *f = fopen(path, "w");
  assert_non_null(f);
  for (int i = from; i < to; i++) fprintf(f, "{\"text\": \"%s\"}\n", texts[i]);
  assert_int_equal(fclose(f), 0);
}

/* Minus the log of what the logits give to the next token. */
static double token_loss(const float *logits, int64_t V, int32_t next) {
  double most = -INFINITY, sum = 0;
  for (int64_t i = 0; i < V; i++) most = fmax(most, (double)logits[i]);
  for (int64_t i = 0; i < V; i++) sum += exp((double)logits[i] - most);
  return most + log(sum) - (double)logits[next];
}

/* The sum over a text's tokens and the end behind them, which templates put there; *n counts
 * them. */
static double text_loss(ist_model *m, const char *text, int64_t *n) {
  ist_error err = {0};
  int32_t *ids, all[128];
  int64_t len, V = vocabulary(m);
  double sum = 0;
  MUST(ist_tokenize(m, text, strlen(text), false, &ids, &len, &err));
  memcpy(all, ids, (size_t)len * sizeof *ids);
  ist_free_memory(ids);
  all[len++] = ist_tokenizer_eos(m->tokenizer);
  float *logits = ist_calloc((size_t)(len * V), sizeof *logits);
  MUST(ist_model_logits(m, all, len, logits, &err));
  for (int64_t i = 0; i + 1 < len; i++) sum += token_loss(logits + i * V, V, all[i + 1]);
  *n += len - 1;
  ist_free(logits);
  return sum;
}

static void test_loss(void **state) {
  (void)state;
  ist_error err = {0};
  ist_loss_result r;
  ist_model *m = open_model(GGUF);
  write_texts("texts.jsonl", 0, TEXTS);
  for (int limit = 0; limit <= 3; limit += 3) {
    ist_eval_options o = eval_options("texts.jsonl");
    o.limit = limit;
    o.micro_tokens = limit ? 1 : 1024; /* a text a pass, or all at once */
    MUST(ist_eval_loss(m, &o, &r, &err));
    int64_t n = 0, samples = limit ? limit : TEXTS;
    double sum = 0;
    for (int64_t i = 0; i < samples; i++) sum += text_loss(m, texts[i], &n);
    assert_int_equal(r.samples, samples);
    assert_int_equal(r.targets, n);
    assert_int_equal(r.tokens, n + samples);
    assert_true(fabs(r.loss - sum / (double)n) <= 1e-5 * r.loss);
    assert_true(fabs(r.perplexity - exp(r.loss)) <= 1e-9 * r.perplexity);
  }
  ist_model_close(m);
}

/* ---- Answers ---- */

enum { NEW = 5 };

/* What the model writes behind a prompt, token by token, by its logits alone. */
static void greedy(ist_model *m, const char *prompt, char out[256]) {
  ist_error err = {0};
  int32_t *ids, all[128];
  int64_t n, V = vocabulary(m);
  char *text;
  size_t len;
  MUST(ist_tokenize(m, prompt, strlen(prompt), false, &ids, &n, &err));
  memcpy(all, ids, (size_t)n * sizeof *ids);
  ist_free_memory(ids);
  float *logits = ist_calloc((size_t)((n + NEW) * V), sizeof *logits);
  int64_t begin = n;
  for (; n < begin + NEW; n++) {
    MUST(ist_model_logits(m, all, n, logits, &err));
    const float *last = logits + (n - 1) * V;
    all[n] = 0;
    for (int32_t i = 1; i < V; i++)
      if (last[i] > last[all[n]]) all[n] = i;
    if (ist_tokenizer_is_eog(m->tokenizer, all[n])) break;
  }
  MUST(ist_detokenize(m, all + begin, n - begin, false, &text, &len, &err));
  assert_true(len < 256);
  memcpy(out, text, len + 1);
  ist_free_memory(text);
  ist_free(logits);
}

typedef struct answers {
  char want[TEXTS][256];
  int seen;
} answers;

static void each_answer(void *user, const ist_exact_example *e) {
  answers *a = user;
  assert_int_equal(e->index, a->seen);
  assert_string_equal(e->prompt, texts[a->seen]);
  assert_string_equal(e->got, a->want[a->seen]);
  assert_int_equal(e->exact, a->seen % 2 == 0);
  a->seen++;
}

/* Half of the answers are what the model writes, with white space around it that does not
 * count. */
static void test_exact(void **state) {
  (void)state;
  ist_error err = {0};
  ist_exact_result r;
  ist_model *m = open_model(GGUF);
  answers a = {0};
  json_t *record = json_object();
  FILE *f = fopen("exact.jsonl", "w");
  assert_non_null(f);
  for (int i = 0; i < TEXTS; i++) {
    char want[300];
    greedy(m, texts[i], a.want[i]);
    snprintf(want, sizeof want, i % 2 ? "{\"a\": 1, \"b\": 2}" : " %s\n", a.want[i]);
    json_object_set_new(record, "prompt", json_string(texts[i]));
    json_object_set_new(record, "completion", json_string(want));
    assert_non_null(json_object_get(record, "completion")); /* it is UTF-8 */
    json_dumpf(record, f, JSON_COMPACT);
    fputc('\n', f);
  }
  assert_int_equal(fclose(f), 0);
  json_decref(record);
  ist_eval_options o = eval_options("exact.jsonl");
  o.max_new = NEW;
  MUST(ist_eval_exact(m, &o, each_answer, &a, &r, &err));
  assert_true(a.seen == TEXTS && r.samples == TEXTS && r.exact == TEXTS / 2);
  assert_true(r.fields == 2 * (TEXTS / 2) && r.fields_right == 0);
  assert_true(r.new_tokens > 0 && r.new_tokens <= NEW * TEXTS && r.seconds > 0);
  o.limit = 1;
  MUST(ist_eval_exact(m, &o, NULL, NULL, &r, &err));
  assert_true(r.samples == 1 && r.exact == 1);
  ist_model_close(m);
}

typedef struct pieces {
  ist_buf text;
  int calls, stop; /* stop: after so many calls, 0: never */
} pieces;

static bool add_piece(void *user, const char *piece, size_t len) {
  pieces *p = user;
  ist_buf_add(&p->text, piece, len);
  return ++p->calls != p->stop;
}

/* The same text in pieces, raw and through a template; it stops when it is told to. */
static void test_generate(void **state) {
  (void)state;
  ist_error err = {0};
  ist_generate_result r;
  ist_generate_options o;
  ist_generate_options_init(&o);
  o.max_new = NEW;
  ist_model *m = open_model(GGUF);
  char want[256];
  greedy(m, texts[0], want);
  for (int k = 0; k < 4; k++) {
    pieces p = {.stop = k == 2 ? 1 : 0};
    o.raw = k == 1;
    o.template_name = "none";
    o.system = k == 3 ? "the sum of 27" : NULL;
    MUST(ist_generate(m, k == 3 ? " and the thing" : texts[0], &o, k == 1 ? NULL : add_piece, &p,
                      &r, &err));
    if (k == 0) assert_string_equal(p.text.p, want);
    if (k == 2)
      assert_true(p.calls == 1 && r.new_tokens < NEW && strncmp(p.text.p, want, p.text.len) == 0);
    assert_true(r.new_tokens >= 1 && r.new_tokens <= NEW && r.prompt_tokens > 0);
    if (k == 3) assert_true(p.calls > 0);
    ist_buf_free(&p.text);
  }
  ist_model_close(m);
}

/* An answer that is no UTF-8 is no hindrance to what the model's template makes of the
 * conversation later on. */
static void test_broken_answers(void **state) {
  (void)state;
  ist_error err = {0};
  ist_generate_result r;
  ist_generate_options o;
  ist_generate_options_init(&o);
  o.max_new = NEW;
  o.template_name = "model";
  ist_model *m = open_model(IST_GOLDEN_DIR "/llama_hf");
  ist_chat *c;
  int broken = 0;
  MUST(ist_chat_open(&c, m, &o, 400, &err));
  for (int i = 0; i < TEXTS; i++) {
    pieces p = {0};
    MUST(ist_chat_say(c, texts[i], add_piece, &p, &r, &err));
    broken += p.text.len && ist_skip_valid(p.text.p, p.text.p + p.text.len) < p.text.p + p.text.len;
    ist_buf_free(&p.text);
  }
  assert_true(broken > 0);
  ist_chat_close(c);
  ist_model_close(m);
}

/* ---- Importance ---- */

/* The interval over several texts is made of what each of them gives alone. */
static void test_layers(void **state) {
  (void)state;
  ist_error err = {0};
  ist_layer_importance all[8], one[TEXTS][8];
  ist_model *m = open_model(GGUF);
  ist_model_info info;
  ist_model_get_info(m, &info);
  assert_true(info.L <= 8);
  MUST(ist_model_set_adapter(m, ADAPTER, &err));
  write_texts("texts.jsonl", 0, TEXTS);
  ist_eval_options o = eval_options("texts.jsonl");
  MUST(ist_eval_layers(m, &o, 0.25, all, &err));
  o.data_path = "one.jsonl";
  for (int i = 0; i < TEXTS; i++) {
    write_texts("one.jsonl", i, i + 1);
    MUST(ist_eval_layers(m, &o, 0.25, one[i], &err));
  }
  for (int64_t l = 0; l < info.L; l++) {
    double mean = 0, square = 0;
    for (int i = 0; i < TEXTS; i++) {
      mean += one[i][l].delta / TEXTS;
      assert_true(one[i][l].low == -INFINITY && one[i][l].high == INFINITY);
    }
    for (int i = 0; i < TEXTS; i++) square += pow(one[i][l].delta - mean, 2);
    double half = 1.96 * sqrt(square / (TEXTS - 1) / TEXTS);
    assert_true(half > 0 && fabs(all[l].delta - mean) <= 1e-3 * half);
    assert_true(fabs(all[l].low - (mean - half)) <= 1e-3 * half);
    assert_true(fabs(all[l].high - (mean + half)) <= 1e-3 * half);
  }
  o.data_path = "texts.jsonl";
  MUST(ist_eval_layers(m, &o, 1.0, all, &err)); /* nothing is damped */
  for (int64_t l = 0; l < info.L; l++)
    assert_true(all[l].delta == 0 && all[l].low == 0 && all[l].high == 0);
  ist_model_close(m);
}

/* ---- What is refused ---- */

static void expect(ist_status got, ist_status want, const ist_error *err, const char *says) {
  if (got != want || !strstr(err->message, says))
    fail_msg("got %d '%s', expected %d '%s'", (int)got, err->message, (int)want, says);
}

static void test_refused(void **state) {
  (void)state;
  ist_error err = {0};
  ist_loss_result loss;
  ist_exact_result exact;
  ist_layer_importance layers[8];
  ist_model *m = open_model(GGUF);
  write_texts("texts.jsonl", 0, TEXTS);
#define WITH(field, value, code, says)                           \
  do {                                                           \
    ist_eval_options o = eval_options("texts.jsonl");            \
    o.field = value;                                             \
    expect(ist_eval_loss(m, &o, &loss, &err), code, &err, says); \
  } while (0)
  WITH(data_path, NULL, IST_ERR_ARG, "data_path: found nothing, expected a data file");
  WITH(data_path, "none.jsonl", IST_ERR_IO, "none.jsonl");
  WITH(template_name, "x", IST_ERR_ARG, "template: found \"x\", expected auto, model, chatml");
  WITH(loss_on, "x", IST_ERR_ARG, "loss_on: found \"x\", expected completion, all or last");
  WITH(max_tokens, 1, IST_ERR_ARG, "at most 1 tokens a sample");
  WITH(micro_tokens, -1, IST_ERR_ARG, "micro_tokens: found -1, expected 0 to 4194304");
  WITH(micro_tokens, INT64_MAX, IST_ERR_ARG, "micro_tokens: found 9223372036854775807");
#undef WITH
  ist_eval_options o = eval_options("texts.jsonl");
  expect(ist_eval_layers(m, &o, 0.5, layers, &err), IST_ERR_ARG, &err,
         "layers: found no adapter on the model");
  static const int64_t counts[] = {0, -5, (INT64_C(1) << 24) + 1, INT64_MAX};
  for (size_t k = 0; k < sizeof counts / sizeof *counts; k++) {
    o.max_new = counts[k];
    expect(ist_eval_exact(m, &o, NULL, NULL, &exact, &err), IST_ERR_ARG, &err, "max_new: found ");
  }
  /* Records that have nothing to ask, or nothing to compare an answer with. */
  static const char *const rows[][2] = {
      {"{\"text\": \"abc\"}", "bad.jsonl:1: found no prompt, expected a prompt and an answer"},
      {"{\"prompt\": \"\", \"completion\": \"a\"}", "bad.jsonl:1: found no prompt"},
      {"{\"messages\": [{\"role\": \"user\", \"content\": \"q\"}]}",
       "bad.jsonl:1: found no answer"},
  };
  o = eval_options("bad.jsonl");
  o.max_new = 2;
  for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
    write_text("bad.jsonl", rows[k][0]);
    expect(ist_eval_exact(m, &o, NULL, NULL, &exact, &err), IST_ERR_DATA, &err, rows[k][1]);
  }
  /* A token before every text is no prompt either. */
  static const small_token extra[] = {{"<s>", CONTROL}, {NULL, 0}};
  const small_vocab v = {.pre = "llama-bpe", .extra = extra, .bos = "<s>"};
  ist_tokenizer_free(m->tokenizer);
  m->tokenizer = small_vocab_open(&v);
  assert_true(ist_tokenizer_add_bos(m->tokenizer));
  write_text("bad.jsonl", rows[0][0]);
  expect(ist_eval_exact(m, &o, NULL, NULL, &exact, &err), IST_ERR_DATA, &err, rows[0][1]);
  float logits[8];
  expect(ist_model_logits(m, NULL, 0, logits, &err), IST_ERR_ARG, &err, "logits: found no tokens");
  int32_t id = -1;
  expect(ist_model_logits(m, &id, 1, logits, &err), IST_ERR_ARG, &err,
         "logits: found token -1, expected 0 to ");
  id = (int32_t)vocabulary(m);
  expect(ist_model_logits(m, &id, 1, logits, &err), IST_ERR_ARG, &err, "logits: found token ");
  ist_model_close(m);
}

static void test_generation_refused(void **state) {
  (void)state;
  ist_error err = {0};
  ist_generate_result r;
  ist_chat *c;
  ist_model *m = open_model(GGUF);
  ist_generate_options plain;
  ist_generate_options_init(&plain);
  plain.template_name = "none";
  plain.max_new = 2;
#define WITH(field, value, says)                                                      \
  do {                                                                                \
    ist_generate_options o = plain;                                                   \
    o.field = value;                                                                  \
    expect(ist_generate(m, "ab", &o, NULL, NULL, &r, &err), IST_ERR_ARG, &err, says); \
    expect(ist_chat_open(&c, m, &o, 64, &err), IST_ERR_ARG, &err, says);              \
    assert_null(c);                                                                   \
  } while (0)
  WITH(max_new, 0, "max_new: found 0, expected 1 to 16777216");
  WITH(max_new, INT64_MAX, "max_new: found 9223372036854775807");
  WITH(top_p, 0, "top_p: found 0, expected more than 0 and at most 1");
  WITH(top_p, NAN, "top_p: found ");
  WITH(temperature, -0.5, "temperature: found -0.5, expected at least 0");
  WITH(temperature, NAN, "temperature: found ");
  WITH(inputs, "int4", "inputs: found \"int4\", expected auto, int8 or float");
  WITH(template_name, "x", "template: found \"x\", expected auto");
#undef WITH
  expect(ist_generate(m, "", &plain, NULL, NULL, &r, &err), IST_ERR_ARG, &err,
         "prompt: found no tokens");
  plain.raw = true;
  expect(ist_generate(m, "", &plain, NULL, NULL, &r, &err), IST_ERR_ARG, &err,
         "prompt: found no tokens");
  expect(ist_chat_open(&c, m, &plain, 64, &err), IST_ERR_ARG, &err, "raw: a conversation");
  plain.raw = false;
  expect(ist_chat_open(&c, m, &plain, INT64_MAX, &err), IST_ERR_ARG, &err,
         "context: found 9223372036854775807, expected at most 16777216");
  expect(ist_chat_open(&c, m, &plain, 2, &err), IST_ERR_ARG, &err,
         "max_new: found 2, expected fewer than the 2 tokens of the conversation");
  MUST(ist_chat_open(&c, m, &plain, 64, &err));
  expect(ist_chat_say(c, "", NULL, NULL, &r, &err), IST_ERR_ARG, &err, "prompt: found no tokens");
  MUST(ist_chat_say(c, "ab", NULL, NULL, &r, &err)); /* the conversation is as it was */
  ist_chat_close(c);
  ist_model_close(m);
  m = open_model(IST_GOLDEN_DIR "/families/gpt2");
  expect(ist_generate(m, "ab", &plain, NULL, NULL, &r, &err), IST_ERR_UNSUPPORTED, &err,
         "found no tokenizer.json");
  expect(ist_chat_open(&c, m, &plain, 64, &err), IST_ERR_UNSUPPORTED, &err,
         "found no tokenizer.json");
  ist_model_close(m);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_loss),
      cmocka_unit_test(test_exact),
      cmocka_unit_test(test_generate),
      cmocka_unit_test(test_broken_answers),
      cmocka_unit_test(test_layers),
      cmocka_unit_test(test_refused),
      cmocka_unit_test(test_generation_refused),
  };
  return cmocka_run_group_tests(tests, enter_folder, leave_folder);
}
