/* The template engine against Python's jinja2 (make_goldens.py), and against
 * templates that mean harm. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/rng.h"
#include "jinja/jinja.h"

#define HERE IST_GOLDEN_DIR "/../jinja/"

static json_t *golden;

static int load(void **state) {
  (void)state;
  golden = json_load_file(HERE "golden/rendered.json", 0, NULL);
  return golden ? 0 : -1;
}

static int unload(void **state) {
  (void)state;
  json_decref(golden);
  return 0;
}

/* Renders; NULL in *text where it failed. */
static ist_status try_render(const char *source, size_t len, const json_t *globals, ist_buf *text,
                             uint16_t **origin, ist_error *err) {
  ist_jinja *t = NULL;
  static const char *const markers[] = {"bos_token", NULL};
  const ist_jinja_options o = {.now = (time_t)json_integer_value(json_object_get(golden, "now")),
                               .markers = markers};
  ist_status status = ist_jinja_parse(&t, source, len, err);
  if (status == IST_OK) status = ist_jinja_render(t, globals, &o, text, origin, err);
  ist_jinja_free(t);
  return status;
}

/* Expects a text, or with JSON's null an error. */
static void check(const char *source, size_t len, const json_t *globals, const json_t *expected) {
  ist_error err = {0};
  ist_buf text = {0};
  ist_status status = try_render(source, len, globals, &text, NULL, &err);
  const char *want = json_string_value(expected);
  if (!want) {
    if (status == IST_OK) fail_msg("'%s' gives '%s', expected an error", source, text.p);
    assert_non_null(strstr(err.message, "template, line "));
  } else if (status != IST_OK) {
    fail_msg("'%s': %s", source, err.message);
  } else if (text.len != json_string_length(expected) || memcmp(text.p, want, text.len) != 0) {
    fail_msg("'%s' gives\n'%s', expected\n'%s'", source, text.p, want);
  }
  ist_buf_free(&text);
}

static void test_snippets(void **state) {
  (void)state;
  const json_t *list = json_object_get(golden, "snippets");
  assert_true(json_array_size(list) > 70);
  for (size_t i = 0; i < json_array_size(list); i++) {
    const json_t *source = json_array_get(json_array_get(list, i), 0);
    check(json_string_value(source), json_string_length(source), json_object_get(golden, "data"),
          json_array_get(json_array_get(list, i), 1));
  }
}

static void test_templates(void **state) {
  (void)state;
  const json_t *list = json_object_get(golden, "templates");
  assert_int_equal(json_array_size(list), 3);
  for (size_t i = 0; i < json_array_size(list); i++) {
    const json_t *row = json_array_get(list, i), *cases = json_array_get(row, 1);
    ist_buf source = {0};
    char path[512];
    snprintf(path, sizeof path, HERE "templates/%s", json_string_value(json_array_get(row, 0)));
    assert_int_equal(ist_file_read(&source, path, 1 << 20, NULL), IST_OK);
    for (size_t k = 0; k < json_array_size(cases); k++)
      check(source.p, source.len, json_array_get(json_array_get(cases, k), 0),
            json_array_get(json_array_get(cases, k), 1));
    ist_buf_free(&source);
  }
}

/* Which bytes come from which message, and which were generated. */
static void test_origin(void **state) {
  (void)state;
  static const char source[] =
      "{% for m in messages %}<{{ m.role }}>{% if m.role == 'assistant' %}{% generation %}"
      "{{ m.content[1:] | trim | upper }}!{% endgeneration %}{% else %}{{ 'a' ~ m.content }}"
      "{% endif %}{% endfor %}";
  json_t *globals = json_loads(
      "{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"},"
      "{\"role\": \"assistant\", \"content\": \"xab \"}]}",
      0, NULL);
  ist_error err = {0};
  ist_buf text = {0};
  uint16_t *origin;
  assert_int_equal(try_render(source, sizeof source - 1, globals, &text, &origin, &err), IST_OK);
  assert_string_equal(text.p, "<user>ahi<assistant>AB!");
  static const char expected[] = "00000001100000000000GGg"; /* G: message 2, generated */
  for (size_t i = 0; i < text.len; i++) {
    int want = expected[i] == '1'   ? 1
               : expected[i] == 'G' ? 2 | IST_JINJA_GENERATED
               : expected[i] == 'g' ? IST_JINJA_GENERATED
                                    : 0;
    assert_int_equal(origin[i], want);
  }
  ist_free(origin);
  ist_buf_free(&text);
  json_decref(globals);
}

/* Text of the input stays the input's, whatever its field is called and wherever it goes. */
static void test_origin_of_fields(void **state) {
  (void)state;
  static const struct {
    const char *source, *text, *from; /* i: the input; digits: a message; ".": the template */
  } rows[] = {
      {"{{ bos_token }}{{ x_token }}{{ v }}", "<s>ab", "...ii"},
      {"{{ p.role }}{{ p.name }}{{ p.q.role }}", "abc", "iii"},
      {"{% for m in messages %}{{ m.role }}{{ m.call.role }}{{ m.content }}{% endfor %}", "ucxuvy",
       ".11.22"},
      {"{% for k in p %}{{ k }}{% endfor %}", "rolenameq", "iiiiiiiii"},
      {"{{ 'x\\ny' | indent(width=v) }}", "x\nby", "..i."},
      {"{{ [1] | tojson(indent=v) }}", "[\nb1\n]", "..i..."},
      {"{{ {'k': 1, 'l': 2} | tojson(separators=(v, p.role)) }}", "{\"k\"a1b\"l\"a2}",
       "....i.i...i.."},
      {"{{ strftime_now(v) }}{{ strftime_now('c') }}{{ strftime_now('c' ~ v) }}", "bccb", "i.ii"},
      {"{{ p.q.f % () }}", "%", "i"},
  };
  json_t *globals = json_loads(
      "{\"bos_token\": \"<s>\", \"x_token\": \"a\", \"v\": \"b\", "
      "\"p\": {\"role\": \"a\", \"name\": \"b\", \"q\": {\"role\": \"c\", \"f\": \"%%\"}}, "
      "\"messages\": [{\"role\": \"u\", \"content\": \"x\", \"call\": {\"role\": \"c\"}}, "
      "{\"role\": \"u\", \"content\": \"y\", \"call\": {\"role\": \"v\"}}]}",
      0, NULL);
  for (size_t k = 0; k < sizeof rows / sizeof rows[0]; k++) {
    ist_error err = {0};
    ist_buf text = {0};
    uint16_t *origin;
    if (try_render(rows[k].source, strlen(rows[k].source), globals, &text, &origin, &err))
      fail_msg("'%s': %s", rows[k].source, err.message);
    assert_string_equal(text.p, rows[k].text);
    assert_int_equal(text.len, strlen(rows[k].from));
    for (size_t i = 0; i < text.len; i++) {
      char c = rows[k].from[i];
      int want = c == '.' ? IST_JINJA_TEMPLATE : c == 'i' ? IST_JINJA_INPUT : c - '0';
      if (origin[i] != want)
        fail_msg("'%s', byte %zu: from %d, expected %d", rows[k].source, i, origin[i], want);
    }
    ist_free(origin);
    ist_buf_free(&text);
  }
  json_decref(globals);
}

/* A date is of no zone, as Python's datetime.now(): '%z%Z' give nothing there either. What the
 * clock shows here is the same text wherever it is shown again. */
static void test_dates(void **state) {
  (void)state;
  static const struct {
    const char *zone;
    int hours; /* east of UTC */
  } rows[] = {{"CET-1", 1}, {"XYZ+7", -7}, {"UTC", 0}};
  json_t *globals = json_object(), *expected = json_string("25 Jul 2024 10:00:00 []");
  for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
    static const char source[] = "{{ strftime_now('%d %b %Y %H:%M:%S [%z%Z]') }}";
    setenv("TZ", rows[k].zone, 1);
    tzset();
    check(source, sizeof source - 1, globals, expected);
    int64_t ahead = (int64_t)ist_jinja_now() - (int64_t)time(NULL);
    assert_in_range(ahead - rows[k].hours * 3600 + 5, 0, 5);
  }
  unsetenv("TZ");
  tzset();
  json_decref(globals);
  json_decref(expected);
}

/* Every one ends with an error, and soon. */
static void test_hostile(void **state) {
  (void)state;
  static const char *const sources[] = {
      "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
      "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
      "{% macro f(n) %}{{ f(n) }}{{ f(n) }}{% endmacro %}{{ f(1) }}",
      "{{ 'x' * 99999999999 }}",
      "{% set ns = namespace(s='x') %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s %}{% "
      "endfor %}",
      "{% set ns = namespace(s='x') %}{% for i in range(99999) %}{% set ns.s = ns.s ~ "
      "'xxxxxxxxxxxxxxxxxxxxxxxx' "
      "%}{% endfor %}{% for i in range(99999) %}{{ ns.s }}{% endfor %}",
      "{{ [[1] * 99999] * 99999 * 99999 }}",
      "{{ range(99999999) }}",
      "{{ '%999999999d' % 1 }}",
      "{{ 'a' | indent(999999999) }}",
      "{{ 2 ** 99999999 }}",
      "{{ -9223372036854775807 - 9 }}",
      "{% for x in l %}{% set ns.y = 1 %}{% endfor %}{{ l.pop() }}",
      "{% set l = [1] %}{% for i in range(99999) %}{% set l = [l] %}{{ l }}{% endfor %}{{ ''.x.y "
      "}}",
      "{{ (((((((((",
      "{% if a %}",
      "{% endif %}",
      "{{ a b }}",
      "{% include 'x' %}",
      "{{ ''.__class__.__mro__ }}",
      "{{ 'unfinished }}",
      "{# unfinished",
      "{% raw %}",
      "{{ a",
      "{% for %}",
      "{% set %}",
      "{{ }}",
      "{% generation %}",
      "{% for x in y recursive %}{% endfor %}",
      "{{ 1 ~ }}",
  };
  json_t *globals = json_object();
  for (size_t i = 0; i < sizeof sources / sizeof sources[0]; i++)
    check(sources[i], strlen(sources[i]), globals, NULL);
  /* Brackets, negations and blocks deeper than any template's. */
  static const char *const deep[] = {"{{ ", "(", "{{ ",        "not ", "{{ ",
                                     "-",   "",  "{% if a %}", "{{ a", "[a"};
  for (int k = 0; k < 10; k += 2) {
    ist_buf b = {0};
    ist_buf_str(&b, deep[k]);
    for (int i = 0; i < 100000; i++) ist_buf_str(&b, deep[k + 1]);
    check(b.p, b.len, globals, NULL);
    ist_buf_free(&b);
  }
  json_decref(globals);
}

/* Templates that lost or changed some bytes parse or not, but never do harm. */
static void test_broken(void **state) {
  (void)state;
  ist_buf source = {0};
  assert_int_equal(ist_file_read(&source, HERE "templates/tools.jinja", 1 << 20, NULL), IST_OK);
  const json_t *row = json_array_get(json_object_get(golden, "templates"), 2);
  const json_t *globals = json_array_get(json_array_get(json_array_get(row, 1), 1), 0);
  ist_rng rng = ist_rng_stream(3, IST_RNG_SPLIT, 0, 0, 0);
  for (int i = 0; i < 2000; i++) {
    char *copy = ist_strndup(source.p, source.len);
    size_t len = source.len;
    for (uint64_t k = 1 + ist_rng_below(&rng, 3); k > 0; k--) {
      static const char bytes[] = "{}%#()[]|.'\"\\-+ \n~:,=x1\xc3";
      copy[ist_rng_below(&rng, len)] = bytes[ist_rng_below(&rng, sizeof bytes - 1)];
    }
    if (i % 2) len = (size_t)ist_rng_below(&rng, len);
    ist_buf text = {0};
    uint16_t *origin = NULL;
    ist_error err = {0};
    try_render(copy, len, globals, &text, &origin, &err);
    ist_free(origin);
    ist_buf_free(&text);
    ist_free(copy);
  }
  ist_buf_free(&source);
}

static void test_out_of_memory(void **state) {
  (void)state;
  static const char source[] = "{% for x in [1, 2] %}{{ x ~ 'a' | upper }}{% endfor %}";
  json_t *globals = json_object();
  for (uint64_t n = 1;; n++) {
    ist_buf text = {0};
    ist_alloc_fail_at(n);
    ist_status status = try_render(source, sizeof source - 1, globals, &text, NULL, NULL);
    ist_alloc_fail_at(0);
    ist_buf_free(&text);
    if (status == IST_OK) break;
    assert_true(n < 1000);
  }
  json_decref(globals);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_snippets),      cmocka_unit_test(test_templates),
      cmocka_unit_test(test_origin),        cmocka_unit_test(test_origin_of_fields),
      cmocka_unit_test(test_hostile),       cmocka_unit_test(test_broken),
      cmocka_unit_test(test_out_of_memory), cmocka_unit_test(test_dates),
  };
  return cmocka_run_group_tests(tests, load, unload);
}
