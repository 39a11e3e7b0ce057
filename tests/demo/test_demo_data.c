/* The demo's data: what is held out is held out, records say what messages say,
 * and the same seed gives the same bytes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "demo/demo.h"

static void test_halves_are_disjoint(void **state) {
  (void)state;
  assert_null(ist_demo_overlap());
}

/* True when some string of the list occurs in the text. */
static bool any_in(const char *const *list, const char *text) {
  for (; *list; list++)
    if (**list && strstr(text, *list)) return true;
  return false;
}

/* No test message holds a training value, nor the other way round. Names and
 * goods are looked for inside the JSON record, where nothing else can match. */
static void test_no_value_crosses(void **state) {
  (void)state;
  const ist_demo_lists whole[] = {ist_demo_last_names, ist_demo_goods, ist_demo_streets};
  ist_buf message = {0}, json = {0};
  for (int test = 0; test < 2; test++) {
    ist_rng r = ist_rng_stream(5, IST_RNG_TEST, (uint32_t)test, 0, 0);
    for (int i = 0; i < 3000; i++) {
      ist_buf_clear(&message);
      ist_buf_clear(&json);
      ist_demo_make(&message, &json, test, &r);
      assert_false(message.failed || json.failed);
      assert_null(strpbrk(message.p, "{}"));
      for (size_t k = 0; k < sizeof whole / sizeof whole[0]; k++)
        for (const char *const *s = whole[k].of[!test]; *s; s++) {
          char quoted[80];
          snprintf(quoted, sizeof quoted, " %s\"", *s);
          assert_null(strstr(json.p, quoted));
        }
      assert_true(any_in(ist_demo_first_names.of[test], json.p));
    }
  }
  ist_buf_free(&message);
  ist_buf_free(&json);
}

/* Every value but dates, times and counts stands in the message as in the record. */
static void test_record_agrees(void **state) {
  (void)state;
  ist_buf message = {0}, json = {0};
  ist_rng r = ist_rng_stream(6, IST_RNG_TEST, 0, 0, 0);
  for (int i = 0; i < 2000; i++) {
    ist_buf_clear(&message);
    ist_buf_clear(&json);
    ist_demo_make(&message, &json, i % 2, &r);
    static const char *const copied[] = {"\"name\":\"", "\"item\":\"", "\"street\":\"",
                                         "\"zip\":\"",  "\"order\":",  "\"amount\":"};
    for (size_t k = 0; k < sizeof copied / sizeof copied[0]; k++) {
      const char *at = strstr(json.p, copied[k]);
      if (!at) continue;
      at += strlen(copied[k]);
      char text[64];
      snprintf(text, sizeof text, "%.*s", (int)strcspn(at, "\",}"), at);
      assert_true(text[0] && strstr(message.p, text));
    }
  }
  ist_buf_free(&message);
  ist_buf_free(&json);
}

static void read_all(ist_buf *out, const char *dir, const char *name) {
  char *path = ist_path_join(dir, name);
  assert_int_equal(ist_file_read(out, path, 1 << 24, NULL), IST_OK);
  ist_free(path);
}

static void test_files(void **state) {
  (void)state;
  char dir[] = "/tmp/ist-demo-XXXXXX";
  assert_non_null(mkdtemp(dir));
  ist_error err;
  static const char *const names[] = {"train.jsonl", "valid.jsonl", "test.jsonl"};
  ist_buf first[3] = {{0}}, again = {0};
  assert_int_equal(ist_demo_write(dir, (ist_demo_sizes){300, 20, 50}, 7, &err), IST_OK);
  for (int i = 0; i < 3; i++) read_all(&first[i], dir, names[i]);
  assert_int_equal(ist_demo_write(dir, (ist_demo_sizes){300, 20, 50}, 7, &err), IST_OK);
  const int expected[] = {300, 20, 50};
  for (int i = 0; i < 3; i++) {
    read_all(&again, dir, names[i]);
    assert_int_equal(again.len, first[i].len);
    assert_memory_equal(again.p, first[i].p, again.len);
    ist_buf_free(&again);
    memset(&again, 0, sizeof again);
    int lines = 0;
    for (char *line = first[i].p, *end; (end = strchr(line, '\n')); line = end + 1, lines++) {
      *end = 0;
      /* No message twice, in this file or in an earlier one. */
      char *answer = strstr(line, "\"assistant\"");
      assert_non_null(answer);
      char saved = *answer;
      *answer = 0;
      if (i == 2) assert_null(strstr(first[0].p, line));
      *answer = saved;
    }
    assert_int_equal(lines, expected[i]);
  }
  assert_int_equal(ist_demo_write(dir, (ist_demo_sizes){-1, 0, 0}, 7, &err), IST_ERR_ARG);
  for (int i = 0; i < 3; i++) ist_buf_free(&first[i]);
  assert_int_equal(ist_remove_tree(dir, NULL), IST_OK);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_halves_are_disjoint),
      cmocka_unit_test(test_no_value_crosses),
      cmocka_unit_test(test_record_agrees),
      cmocka_unit_test(test_files),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
