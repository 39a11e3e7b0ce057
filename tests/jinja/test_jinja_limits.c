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

#include "hang.h"
#include "jinja/jinja.h"

enum { SECONDS = 60 }; /* with sanitizers */

static ist_status render(const char *source, size_t len, ist_buf *text, ist_error *err) {
  ist_jinja *t = NULL;
  json_t *globals = json_object();
  hang_after(SECONDS);
  ist_status status = ist_jinja_parse(&t, source, len, err);
  if (status == IST_OK) status = ist_jinja_render(t, globals, NULL, text, NULL, err);
  hang_after(0);
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
  refuses("{{ 9223372036854775808 }}", says);
  refuses("{{ 99999999999999999999 }}", says);
  refuses("{{ " MOST "|round(-1) }}", says);
  refuses("{{ 6000000000000000000|round(-19) }}", says);
  refuses("{{ '%4x' % -1 }}", "%4x of a negative number is not supported");
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

/* A NUL is a character like others: what stands before it is no name of its own. */
static void test_strings_with_a_nul(void **state) {
  (void)state;
  gives("{{ 'abc'['upper\\0x'] is defined }} {{ 'abc'['upper'] is defined }}", "False True");
  gives("{{ namespace(a=1)['a\\0'] is defined }} {{ {'a\\0': 1}['a\\0'] }}", "False 1");
  refuses("{{ ['a']|map('upper\\0x')|list }}", "no such filter");
  refuses("{{ ['a']|select('string\\0x')|list }}", "no such test");
  refuses("{{ strftime_now('%Y\\0%m') }}", "and no NUL");
  refuses("{{ '{a\\0b}'.format(a=1) }}", "more than names");
  gives("{{ 'ab\\0cd'|title|tojson }}", "\"Ab\\u0000cd\"");
  gives("{{ '12\\0'|int(7) }} {{ '1.5\\0'|float(7) }}", "7 7");
}

static void test_characters_of_strings(void **state) {
  (void)state;
  gives("{{ 'a\u00f6\u6f22z'[1] }}{{ 'a\u00f6\u6f22z'[-2] }}{{ '\u00f6z'[-2] }}",
        "\u00f6\u6f22\u00f6");
  gives("{{ 'az'[true] }}{{ 'az'[0] }}{{ 'az'[-1] }}", "zaz");
  gives("{% for i in [2, -3, " MOST ", " LEAST
        "] %}{{ '\u00f6z'[i] is defined }}{% endfor %}"
        "{{ ''[0] is defined }}{{ ''[-1] is defined }}",
        "FalseFalseFalseFalseFalseFalse");
  gives(
      "{{ 'a\u00f6a\u00f6a'.rfind('\u00f6a') }} {{ 'aaa'.rfind('aa') }} {{ 'ab'.rfind('') }}"
      " {{ 'a'.rfind('ab') }} {{ 'ab'.rfind('ab') }} {{ ''.rfind('a') }}",
      "3 1 2 -1 0 -1");
  gives("{{ 'a-b-c'.rsplit('-', 1) }} {{ 'a-b-c'.rpartition('-') }}",
        "['a-b', 'c'] ('a-b', '-', 'c')");
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

/* ---- Work ---- */

static ist_status render_limited(const char *source, int64_t steps, size_t memory, ist_error *err) {
  const ist_jinja_options o = {.max_steps = steps, .max_memory = memory};
  ist_jinja *t = NULL;
  ist_buf text = {0};
  json_t *globals = json_object();
  hang_after(SECONDS);
  ist_status status = ist_jinja_parse(&t, source, strlen(source), err);
  if (status != IST_OK) fail_msg("%s: %s", source, err->message);
  status = ist_jinja_render(t, globals, &o, &text, NULL, err);
  hang_after(0);
  ist_jinja_free(t);
  ist_buf_free(&text);
  json_decref(globals);
  return status;
}

/* An expression over what `set` sets costs in proportion: once it is fine, `times` times too much.
 */
static void costs(const char *set, const char *expression, int times) {
  for (int often = 0; often < 2; often++) {
    ist_error err = {0};
    ist_buf b = {0};
    ist_buf_printf(&b, "%s{%% for i in range(%d) %%}{%% if %s %%}{%% endif %%}{%% endfor %%}", set,
                   often ? times : 1, expression);
    ist_status status = render_limited(b.p, 1000000, 0, &err);
    if ((status != IST_OK) != often || (often && !strstr(err.message, "more than 1000000 steps")))
      fail_msg("%s, %s: '%s'", expression, often ? "often" : "once", err.message);
    ist_buf_free(&b);
  }
}

static void test_work_on_long_strings(void **state) {
  (void)state;
  static const char *const expressions[] = {
      "s == t",
      "s < t",
      "[s] == [t]",
      "t in [s]",
      "t in {s: 1}",
      "'b' in s",
      "s|length",
      "s[999999]",
      "s[-999999]",
      "s[999999:]",
      "s.find('b')",
      "s.find('a', 999999)",
      "s.rfind('b')",
      "s.rfind('b' + s[1:])",
      "s.rfind(s[:100] + 'b')",
      "s.count('b')",
      "s.startswith(t)",
      "s.endswith((t + 'b', t))",
      "s.removeprefix(t)",
      "s.split('b')",
      "s.split()",
      "s.rsplit('b', 1)",
      "s.rsplit(none, 1)",
      "s.splitlines()",
      "s.partition('b')",
      "s.strip('a')",
      "s.strip('b' * 2 + 'a')",
      "s.isalpha()",
      "s is lower",
      "s.upper()",
      "s|title",
      "s|capitalize",
      "s|trim('a')",
      "s|e",
      "s|indent",
      "s|wordcount",
      "s|tojson",
      "s|replace('b', 'c')",
      "s % ()",
      "s.format()",
      "[s, t]|sort",
      "[s, t]|max",
      "[s]|string",
      "loop.changed(s)",
      "1[s]",
  };
  for (size_t k = 0; k < sizeof expressions / sizeof expressions[0]; k++)
    costs("{% set s = 'a' * 1000 %}{% set s = s * 1000 %}{% set t = s * 1 %}", expressions[k], 200);
  /* The square of the length, once. */
  refuses("{% set s = 'a' * 1000000 %}{{ s.rfind(s[:500000] + 'b') }}", "steps");
  refuses("{% set s = 'a' * 1000000 %}{{ s.strip('b' * 500000 + 'a') }}", "steps");
}

static void test_work_on_long_lists(void **state) {
  (void)state;
  static const char *const expressions[] = {
      "''.join(e)",
      "e|join",
      "e|select",
      "e|reject",
      "n|sum",
      "n|max",
      "n|reverse",
      "n|map(attribute='x')",
      "n[:10]|map(attribute=u)",
      "n.index(9999)",
      "n.count(1)",
      "0.5 in n",
      "n == m",
      "'b'.startswith(e[:1] * 0 + c)",
      "f|string",
      "f|tojson",
      "'%5.3f' * 2000 % g",
  };
  for (size_t k = 0; k < sizeof expressions / sizeof expressions[0]; k++)
    costs(
        "{% set n = range(10000)|list %}{% set m = range(10000)|list %}{% set e = [''] * 10000 %}"
        "{% set c = ['c'] * 10000 %}{% set f = [0.1] * 10000 %}{% set g = (0.1,) * 2000 %}"
        "{% set u = '0' * 10000 %}",
        expressions[k], 600);
}

/* Names by the thousand: what a macro, a call or a look-up goes through. */
static void test_work_on_many_names(void **state) {
  (void)state;
  ist_buf b = {0};
  for (int i = 0; i < 4000; i++) ist_buf_printf(&b, "{%% set n%d = 1 %%}", i);
  costs(b.p, "n3999", 20000);
  costs(b.p, "absent", 20000);
  ist_buf_clear(&b);
  ist_buf_str(&b, "{% macro f(a");
  for (int i = 0; i < 4000; i++) ist_buf_printf(&b, ", n%d", i);
  ist_buf_str(&b, ") %}{% endmacro %}");
  costs(b.p, "f()", 200);
  ist_buf_free(&b);
}

/* Names are looked up through the blocks around them, and are as long as a template may be. */
static void test_work_on_names(void **state) {
  (void)state;
  static const int depths[] = {1, 120};
  for (int k = 0; k < 2; k++) {
    ist_error err = {0};
    ist_buf b = {0};
    for (int i = 0; i < depths[k]; i++) ist_buf_str(&b, "{% with %}");
    ist_buf_str(&b, "{% for i in range(20000) %}{{ absent }}{% endfor %}");
    for (int i = 0; i < depths[k]; i++) ist_buf_str(&b, "{% endwith %}");
    assert_int_equal(render_limited(b.p, 250000, 0, &err), k ? IST_ERR_DATA : IST_OK);
    ist_buf_free(&b);
  }
  ist_buf b = {0};
  ist_buf_str(&b, "{}.");
  for (int i = 0; i < 1000000; i++) ist_buf_str(&b, "x");
  costs("", b.p, 200);
  ist_buf_free(&b);
}

/* Parsing takes no longer for a name when there are many. */
static void test_many_names(void **state) {
  (void)state;
  ist_buf b = {0}, text = {0};
  for (int i = 0; i < 250000; i++) ist_buf_printf(&b, "{{ n%d }}", i);
  ist_error err = {0};
  if (render(b.p, b.len, &text, &err) != IST_OK) fail_msg("%s", err.message);
  assert_int_equal(text.len, 0);
  ist_buf_free(&text);
  ist_buf_free(&b);
  gives("{% set a = 1 %}{% set ab = 2 %}{{ a }}{{ ab }}{{ b }}", "12");
}

static void test_memory(void **state) {
  (void)state;
  ist_error err = {0};
  const char *const sources[] = {
      "{% set n = namespace(a='x') %}{% for i in range(60) %}{% set n.a = n.a ~ n.a %}{% endfor %}",
      "{% set n = namespace(a=[1]) %}{% for i in range(60) %}{% set n.a = n.a * 2 %}{% endfor %}",
      "{{ 'a' * 100000000 }}",
      "{% for i in range(100000) %}{% for k in range(100000) %}{% endfor %}{% endfor %}",
  };
  for (size_t k = 0; k < sizeof sources / sizeof sources[0]; k++) {
    assert_int_equal(render_limited(sources[k], 0, (size_t)16 << 20, &err), IST_ERR_DATA);
    if (!strstr(err.message, "more than 16 MB of memory"))
      fail_msg("%s: %s", sources[k], err.message);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_steps_past_64_bits),
      cmocka_unit_test(test_results_past_64_bits),
      cmocka_unit_test(test_numbers_in_parts_of_strings),
      cmocka_unit_test(test_strings_with_a_nul),
      cmocka_unit_test(test_characters_of_strings),
      cmocka_unit_test(test_filters_that_call_filters),
      cmocka_unit_test(test_order_of_nested_lists),
      cmocka_unit_test(test_work_on_long_strings),
      cmocka_unit_test(test_work_on_long_lists),
      cmocka_unit_test(test_work_on_many_names),
      cmocka_unit_test(test_work_on_names),
      cmocka_unit_test(test_many_names),
      cmocka_unit_test(test_memory),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
