/* Reading training data, and what is said about data that cannot be read. */
#include "data/text_file.h"

static void check_message(const ist_record *r, int64_t i, ist_role role, const char *text) {
  assert_true(i < r->n_messages);
  assert_int_equal(r->message[i].role, role);
  assert_string_equal(r->message[i].text, text);
  assert_int_equal(r->message[i].len, strlen(text));
}

static void test_messages(void **state) {
  (void)state;
  ist_records r;
  must_read(
      &r,
      "{\"messages\": [{\"role\": \"system\", \"content\": \"s\"}, {\"role\": \"user\", "
      "\"content\":"
      " \"h\\u00e9\\n\"}, {\"content\": \"\", \"role\": \"assistant\", \"x\": 1}], \"id\": 7}\n"
      "{\"messages\": [{\"role\": \"assistant\", \"content\": \"b\"}]}");
  assert_int_equal(r.n, 2);
  assert_int_equal(r.p[0].line, 1);
  assert_int_equal(r.p[0].n_messages, 3);
  check_message(&r.p[0], 0, IST_ROLE_SYSTEM, "s");
  check_message(&r.p[0], 1, IST_ROLE_USER, "h\xc3\xa9\n");
  check_message(&r.p[0], 2, IST_ROLE_ASSISTANT, "");
  assert_false(r.p[0].plain);
  assert_null(r.p[0].instruction);
  assert_int_equal(r.p[1].line, 2);
  check_message(&r.p[1], 0, IST_ROLE_ASSISTANT, "b");
  ist_records_free(&r);
  assert_int_equal(r.n, 0);
}

static void test_prompt(void **state) {
  (void)state;
  ist_records r;
  must_read(&r, "{\"prompt\": \"p\", \"completion\": \" c\", \"text\": \"not this\"}\r\n");
  assert_int_equal(r.n, 1);
  check_message(&r.p[0], 0, IST_ROLE_USER, "p");
  check_message(&r.p[0], 1, IST_ROLE_ASSISTANT, " c");
  ist_records_free(&r);
}

static void test_instruction(void **state) {
  (void)state;
  ist_records r;
  must_read(&r,
            "\xef\xbb\xbf [\n{\"instruction\": \"i\", \"input\": \"x\", \"output\": \"o\", "
            "\"answer\": 3},\n"
            " {\"instruction\": \"i2\", \"input\": \"\", \"output\": \"o2\"} , "
            "{\"instruction\": \"i3\", \"output\": \"o3\"},\n"
            "{\"instruction\": \"i4\", \"input\": null, \"output\": \"[]{}\\\"\"}]\n\n");
  assert_int_equal(r.n, 4);
  check_message(&r.p[0], 0, IST_ROLE_USER, "i\n\nx");
  check_message(&r.p[0], 1, IST_ROLE_ASSISTANT, "o");
  assert_string_equal(r.p[0].instruction, "i");
  assert_string_equal(r.p[0].input, "x");
  for (int i = 1; i < 4; i++) {
    assert_null(r.p[i].input);
    assert_int_equal(r.p[i].line, i + 1);
  }
  check_message(&r.p[1], 0, IST_ROLE_USER, "i2");
  check_message(&r.p[3], 1, IST_ROLE_ASSISTANT, "[]{}\"");
  ist_records_free(&r);
}

static void test_text(void **state) {
  (void)state;
  ist_records r;
  must_read(&r, "{\"text\": \"a\"}\n{\"text\": \"b\", \"n\": 123456789012345678901234567890}\n");
  assert_int_equal(r.n, 2);
  assert_true(r.p[0].plain && r.p[1].plain);
  check_message(&r.p[1], 0, IST_ROLE_ASSISTANT, "b");
  ist_records_free(&r);
}

static const struct {
  const char *text, *says[3];
} bad[] = {
    {"", {"empty", "", ""}},
    {"[]", {"no records", "", ""}},
    {"{\"text\": \"a\"}\n\n{\"text\": \"b\"}\n", {":2: a blank line", "", ""}},
    {"{\"text\": \"a\"}\n  \t\r\n", {":2: a blank line", "", ""}},
    {"\n", {":1: a blank line", "", ""}},
    {"{\"text\": \"a\"}\n{\"text\": \"b\"\n{\"text\": \"c\"}\n", {":2: not JSON", "", ""}},
    {"hello\n", {":1: not JSON", "", ""}},
    {"{\"text\": \"a\"} {\"text\": \"b\"}\n", {":1: not JSON", "", ""}},
    {"{\"text\": \"a\xff\"}\n", {":1: not JSON", "byte 0xff", ""}},
    {"{\"text\": \"a\", \"text\": \"b\"}\n", {":1: not JSON", "duplicate", ""}},
    {"\"text\"\n", {":1: a record is a string, expected an object", "", ""}},
    {"{\"text\": 5}\n", {":1: field 'text' is a number, expected a string", "", ""}},
    {"{\"prompt\": \"a\", \"output\": \"b\"}\n",
     {":1: ", "fields: prompt, output", "prompt and completion"}},
    {"{}\n", {":1: ", "fields: none", "instruction and output"}},
    {"{\"text\": \"a\"}\n{\"prompt\": \"b\", \"completion\": \"c\"}\n",
     {":2: ", "prompt, completion", "expected text, as in the first record"}},
    {"{\"instruction\": \"a\", \"output\": \"b\", \"input\": []}\n",
     {":1: ", "'input' is an array", ""}},
    {"{\"prompt\": null, \"completion\": \"b\"}\n", {":1: ", "'prompt' is null", ""}},
    {"{\"messages\": {}}\n", {":1: ", "'messages' is an object, expected an array", ""}},
    {"{\"messages\": []}\n", {":1: ", "'messages' is empty", ""}},
    {"{\"messages\": [1]}\n", {":1: ", "'messages[0]' is a number", ""}},
    {"{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"content\": \"b\"}]}\n",
     {":1: ", "no field 'messages[1].role'", ""}},
    {"{\"messages\": [{\"role\": \"critic\", \"content\": \"b\"}]}\n",
     {":1: ", "'critic'", "'assistant'"}},
    {"{\"messages\": [{\"role\": 1, \"content\": \"b\"}]}\n", {":1: ", "a number", "'assistant'"}},
    {"{\"messages\": [{\"role\": \"user\"}]}\n", {":1: ", "no field 'messages[0].content'", ""}},
    {"{\"messages\": [{\"role\": \"user\", \"content\": [\"b\"]}]}\n",
     {":1: ", "'messages[0].content' is an array", ""}},
    {"[{\"text\": \"a\"},\n\n {\"text\": 1}]", {":3: record 2: field 'text' is a number", "", ""}},
    {"[\n{\"text\": \"a\"},\n{\"text\" \"b\"}]", {":3: not JSON", "", ""}},
    {"[{\"text\": \"a\"}", {"not closed", "", ""}},
    {"[{\"text\": \"a\"},]", {":1: not JSON", "", ""}},
    {"[{\"text\": \"a\"}] x", {"after the array", "", ""}},
    {"[", {":1: not JSON", "", ""}},
    {"[1]", {"record 1: a record is a number", "", ""}},
};

static void test_bad(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    ist_records r;
    ist_error err = {0};
    ist_status status = read_text(&r, bad[i].text, &err);
    bool good = status == IST_ERR_DATA || (i == 0 && status == IST_ERR_FORMAT);
    for (int k = 0; k < 3; k++) good = good && strstr(err.message, bad[i].says[k]);
    if (!good || !strstr(err.message, "ist-test-data"))
      fail_msg("case %zu: status %d: %s", i, (int)status, err.message);
    assert_int_equal(r.n, 0);
    assert_null(r.p);
  }
  ist_records r;
  ist_error err = {0};
  assert_int_equal(ist_records_read(&r, "/nonexistent/data.jsonl", &err), IST_ERR_IO);
  assert_non_null(strstr(err.message, "/nonexistent/data.jsonl"));
}

/* Integers of more than 64 bits, and those alone, become reals: in a line, in an array, where the
 * text has digits in strings, and behind a record whose place is then told. */
static void test_long_integers(void **state) {
  (void)state;
#define CALL(numbers)                                                                 \
  "{\"messages\": [{\"role\": \"assistant\", \"content\": \"11111111111111111111\", " \
  "\"n\": " numbers "}]}"
  static const struct {
    const char *numbers, *more;
  } rows[] = {
      {CALL("[7, 11111111111111111111, 1.5]"), "{\"n\":[7,1.1111111111111111e19,1.5]}"},
      {CALL("[9223372036854775807, -9223372036854775808]"),
       "{\"n\":[9223372036854775807,-9223372036854775808]}"},
      {CALL("[9223372036854775808, -9223372036854775809, 1]"),
       "{\"n\":[9.2233720368547758e18,-9.2233720368547758e18,1]}"},
      {CALL("{\"a\\\"9999999999999999999\": -99999999999999999999, \"b\": 1e1, \"c\": 2}"),
       "{\"n\":{\"a\\\"9999999999999999999\":-1e20,\"b\":10.0,\"c\":2}}"},
  };
  for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
    for (int array = 0; array < 2; array++) {
      ist_buf text = {0};
      ist_records r;
      ist_buf_printf(&text, array ? "[%s\n,\n%s]" : "%s\n%s", rows[k].numbers, rows[k].numbers);
      must_read(&r, text.p);
      assert_int_equal(r.n, 2);
      for (int i = 0; i < 2; i++) {
        check_message(&r.p[i], 0, IST_ROLE_ASSISTANT, "11111111111111111111");
        assert_string_equal(r.p[i].message[0].more, rows[k].more);
      }
      ist_records_free(&r);
      ist_buf_free(&text);
    }
  }
  ist_records r;
  ist_error err = {0};
  assert_int_equal(read_text(&r, "{\"text\": \"a\", \"id\": 11111111111111111111} {}", &err),
                   IST_ERR_DATA);
  assert_non_null(strstr(err.message, ":1: not JSON: end of file expected"));
  assert_int_equal(
      read_text(&r, "[{\"text\": \"a\", \"id\": 11111111111111111111},\n{\"text\": 1}]", &err),
      IST_ERR_DATA);
  assert_non_null(strstr(err.message, ":2: record 2: field 'text' is a number"));
}

static void test_out_of_memory(void **state) {
  (void)state;
  for (uint64_t n = 1;; n++) {
    ist_records r;
    ist_error err = {0};
    ist_alloc_fail_at(n);
    ist_status status =
        read_text(&r, "[{\"instruction\": \"a\", \"input\": \"b\", \"output\": \"c\"}]", &err);
    ist_alloc_fail_at(0);
    if (status == IST_OK) {
      assert_true(n > 5);
      ist_records_free(&r);
      return;
    }
    assert_int_equal(status, IST_ERR_NOMEM);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_messages),      cmocka_unit_test(test_prompt),
      cmocka_unit_test(test_instruction),   cmocka_unit_test(test_text),
      cmocka_unit_test(test_bad),           cmocka_unit_test(test_long_integers),
      cmocka_unit_test(test_out_of_memory),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
