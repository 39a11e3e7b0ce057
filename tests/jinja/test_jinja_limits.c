/* Templates whose numbers, nesting or work go past what the engine takes: each ends with an
 * error or with Python's answer, and soon. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "jinja/jinja.h"

enum { SECONDS = 60 }; /* with sanitizers, on a busy machine; the process ends behind them */

static ist_status render(const char *source, size_t len, ist_buf *text, ist_error *err) {
  ist_jinja *t = NULL;
  json_t *globals = json_object();
  alarm(SECONDS);
  ist_status status = ist_jinja_parse(&t, source, len, err);
  if (status == IST_OK) status = ist_jinja_render(t, globals, NULL, text, NULL, err);
  alarm(0);
  ist_jinja_free(t);
  json_decref(globals);
  return status;
}

static void gives(const char *source, const char *want) {
  ist_error err = {0};
  ist_buf text = {0};
  if (render(source, strlen(source), &text, &err) != IST_OK)
    fail_msg("%s: %s", source, err.message);
  if (strcmp(text.p, want) != 0) fail_msg("%s gives '%s', expected '%s'", source, text.p, want);
  ist_buf_free(&text);
}

static void refuses_bytes(const char *source, size_t len, const char *says) {
  ist_error err = {0};
  ist_buf text = {0};
  int shown = len < 200 ? (int)len : 200;
  if (render(source, len, &text, &err) == IST_OK)
    fail_msg("%.*s gives '%s', expected an error", shown, source, text.p);
  if (!strstr(err.message, says))
    fail_msg("%.*s: '%s', expected '%s'", shown, source, err.message, says);
  ist_buf_free(&text);
}

static void refuses(const char *source, const char *says) {
  refuses_bytes(source, strlen(source), says);
}

/* ---- Numbers ---- */

#define MOST  "9223372036854775807"
#define LEAST "(-" MOST " - 1)"

static void test_steps_past_64_bits(void **state) {
  (void)state;
  gives("{{ 'abc'[1::" MOST "] }}", "b");
  gives("{{ [1, 2, 3][1::" MOST "] }}", "[2]");
  gives("{{ 'abc'[1::" LEAST "] }}", "b");
  gives("{{ 'abc'[" LEAST ":" MOST ":2] }}", "ac");
  gives("{{ range(" MOST " - 2, " MOST ", 2)|list }}", "[9223372036854775805]");
  gives("{{ range(3, " MOST ", " MOST ")|list }}", "[3]");
  gives("{{ range(-3, " LEAST ", " LEAST ")|list }}", "[-3]");
}

static void test_results_past_64_bits(void **state) {
  (void)state;
  static const char says[] = "a whole number past 64 bits";
  gives("{{ (-5)|abs }} {{ " MOST "|abs }}", "5 9223372036854775807");
  refuses("{{ " LEAST "|abs }}", says);
  refuses("{{ [" MOST ", 1]|sum }}", says);
  refuses("{{ '%d' % 1e30 }}", says);
  refuses("{{ 'a'|replace('a', 'b', 1e30) }}", says);
  gives("{{ [9007199254740993, 0]|sum }} {{ [1, 2.5]|sum }} {{ []|sum(start=4) }}",
        "9007199254740993 3.5 4");
  gives("{{ " LEAST " is divisibleby(-1) }}", "True");
}

/* Strings that are parts of others have no NUL behind them. */
static void test_numbers_in_parts_of_strings(void **state) {
  (void)state;
  gives("{{ '123456'[:2]|int }} {{ '123456'[2:4]|int }}", "12 34");
  gives("{{ '1.5678'[:3]|float }} {{ '1e2345'[:3]|int }}", "1.5 100");
  gives("{{ '" MOST "'|int }} {{ 'x'|int(7) }} {{ ''|int }} {{ ' -3 '|int }}",
        "9223372036854775807 7 0 -3");
  gives("{{ [[5, 6]]|map(attribute='1234'[:1])|list }}", "[6]");
  gives("{% set s = '1' * 131072 %}{{ [[1]]|map(attribute=s, default='none')|list }}", "['none']");
}

/* ---- Nesting ---- */

static void test_filters_that_call_filters(void **state) {
  (void)state;
  ist_buf b = {0};
  ist_buf_str(&b, "{{ 'a'|map(");
  for (int i = 0; i < 100000; i++) ist_buf_str(&b, "'map',");
  ist_buf_str(&b, "'upper')|list }}");
  refuses_bytes(b.p, b.len, "nested more than 400 deep");
  ist_buf_free(&b);
  gives("{{ ['ab']|map('map', 'upper')|map('join')|list }}", "['AB']");
}

/* Lists in lists whose lengths differ: they are unequal at once, and their order is that of the
 * innermost. */
static void test_order_of_nested_lists(void **state) {
  (void)state;
  refuses(
      "{% set n = namespace(a=[1], b=[2]) %}{% for i in range(100000) %}"
      "{% set n.a = [n.a] %}{% set n.b = [n.b, 0] %}{% endfor %}{{ n.a < n.b }}",
      "values nested too deep");
  gives("{{ [[1], 5] < [[1, 0]] }} {{ [2] < [1, 0] }}", "True False");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_steps_past_64_bits),
      cmocka_unit_test(test_results_past_64_bits),
      cmocka_unit_test(test_numbers_in_parts_of_strings),
      cmocka_unit_test(test_filters_that_call_filters),
      cmocka_unit_test(test_order_of_nested_lists),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
