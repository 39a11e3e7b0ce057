/* The data doctor: what it says of a file that training would refuse, or that cannot be read to its
 * end. */
#include "data/text_file.h"

#include "data/doctor.h"

static const small_token extra[] = {{"<|end|>", CONTROL}, {NULL, 0}};
static const small_vocab vocab = {.pre = "gpt-2", .extra = extra, .eos = "<|end|>"};

/* A file of this text, named so, looked over; the doctor's to be freed. */
static void look_over(ist_doctor *d, const char *name, const char *text, ist_template tmpl) {
  char path[96];
  snprintf(path, sizeof path, "/tmp/ist-test-doctor-%ld-%s", (long)getpid(), name);
  FILE *f = fopen(path, "wb");
  assert_non_null(f);
  fputs(text, f);
  assert_int_equal(fclose(f), 0);
  ist_tokenizer *tok = small_vocab_open(&vocab);
  const ist_data_options o = {.tmpl = tmpl, .max_tokens = 300};
  ist_error err = {0};
  ist_status status = ist_doctor_read(d, path, tok, &o, 0, &err);
  unlink(path);
  ist_tokenizer_free(tok);
  if (status != IST_OK) fail_msg("%s", err.message);
}

static void must_say(const char *text, const char *says) {
  if (!text || !strstr(text, says)) fail_msg("\"%s\" does not say \"%s\"", text ? text : "", says);
}

#define TALK(reply, more)                                                 \
  "{\"messages\": [{\"role\": \"user\", \"content\": \"q\"}, {\"role\": " \
  "\"assistant\", \"content\": \"" reply "\"}]" more "}\n"

/* What a template refuses ends a training run, what has nothing to learn does not. */
static void test_refused(void **state) {
  (void)state;
  static const char text[] =
      TALK("a", "") TALK("b", ", \"tools\": [{}]") "{\"messages\": [{\"role\": \"user\", "
      "\"content\": \"q\"}]}\n" TALK("c", ", \"tools\": 1") TALK("d", "");
  ist_doctor d;
  look_over(&d, "tools.jsonl", text, IST_TEMPLATE_ALPACA);
  assert_int_equal(d.records, 4);
  assert_int_equal(d.dropped, 1);
  assert_int_equal(d.failed.n, 2);
  assert_int_equal(d.failed.p[0].line, 2);
  must_say(d.failed.p[0].text, "tools.jsonl: record 2: found tools, calls or their answers");
  must_say(d.failed.p[1].text, "tools.jsonl:4: field 'tools' is a number");
  assert_int_equal(d.bin[0], 1);
  assert_null(d.stopped);
  ist_doctor_free(&d);
}

static void test_stopped(void **state) {
  (void)state;
  ist_doctor d;
  look_over(&d, "open.json", "[{\"text\": \"a\"},\n{\"text\": 1},\n{\"text\": \"b\"}\n",
            IST_TEMPLATE_NONE);
  assert_int_equal(d.records, 1);
  assert_int_equal(d.failed.n, 1);
  must_say(d.failed.p[0].text, "open.json:2: record 2: field 'text' is a number");
  must_say(d.stopped, "open.json:4: not JSON: the array is not closed");
  ist_doctor_free(&d);
  look_over(&d, "open.csv", "text\na\n\"b\n", IST_TEMPLATE_NONE);
  assert_int_equal(d.records, 1);
  assert_int_equal(d.failed.n, 1); /* read to its end, which comes too early */
  assert_null(d.stopped);
  ist_doctor_free(&d);
}

/* A file of nothing else, which may have been a few bytes packed, is not gone through. */
static void test_many_refused(void **state) {
  (void)state;
  ist_doctor d;
  ist_buf b = {0};
  for (int i = 0; i < IST_DOCTOR_REFUSED + 5; i++) ist_buf_str(&b, "\n");
  ist_buf_str(&b, "{\"text\": \"a\"}\n");
  assert_false(b.failed);
  look_over(&d, "blank.jsonl", b.p, IST_TEMPLATE_NONE);
  assert_int_equal(d.failed.n, IST_DOCTOR_REFUSED);
  assert_int_equal(d.records, 0);
  must_say(d.stopped, "so many refused records");
  ist_doctor_free(&d);
  ist_buf_free(&b);
}

/* Variables of the template count: documents, tools. */
static void test_copies(void **state) {
  (void)state;
  static const char text[] = TALK("a", ", \"documents\": [1]") TALK("a", ", \"documents\": [2]")
      TALK("a", "") TALK("a", ", \"documents\": [1]");
  ist_doctor d;
  look_over(&d, "copies.jsonl", text, IST_TEMPLATE_ALPACA);
  assert_int_equal(d.copies.n, 1);
  assert_int_equal(d.copies.p[0].line, 4);
  assert_int_equal(d.copies.p[0].other, 1);
  ist_doctor_free(&d);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_refused),
      cmocka_unit_test(test_stopped),
      cmocka_unit_test(test_many_refused),
      cmocka_unit_test(test_copies),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
