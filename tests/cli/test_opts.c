/* The table of options and its parser: forms, errors, order, settings of a run. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "help.h"
#include "opts.h"
#include "text.h"

/* Parses "train --rank 8": words are separated by spaces, '_' stands for a space
 * inside a word. */
typedef struct parsed {
  ist_args a;
  ist_error err;
  ist_status s;
  char line[512];
  char *argv[64];
} parsed;

static void parse(parsed *p, const char *line) {
  int argc = 0;
  memset(p, 0, sizeof *p);
  snprintf(p->line, sizeof p->line, "ist %s", line);
  for (char *word = p->line, *next; word; word = next) {
    next = strchr(word, ' ');
    if (next) *next++ = '\0';
    for (char *c = word; *c; c++)
      if (*c == '_') *c = ' ';
    p->argv[argc++] = word;
  }
  p->s = ist_args_parse(&p->a, argc, p->argv, &p->err);
}

static void assert_refused(const char *line, const char *message, const char *hint) {
  parsed p;
  parse(&p, line);
  assert_int_equal(p.s, IST_ERR_ARG);
  assert_string_equal(p.err.message, message);
  assert_string_equal(p.err.hint, hint);
  ist_args_free(&p.a);
}

static bool knows(int command, const ist_opt *o) {
  return o->kind != IST_OPT_GROUP && (o->commands & 1u << command);
}

static void names_are_unique(void **state) {
  (void)state;
  for (int c = 0; c < IST_N_COMMANDS; c++) {
    for (int i = 0; i < ist_n_opts; i++) {
      for (int j = 0; j < i; j++) {
        const ist_opt *a = &ist_opts[i], *b = &ist_opts[j];
        if (!knows(c, a) || !knows(c, b)) continue;
        assert_string_not_equal(a->name, b->name);
        if (a->letter) assert_int_not_equal(a->letter, b->letter);
      }
    }
  }
}

/* Every option of the trainer can be given, and its settings can be read back. */
static void every_train_option_has_a_row(void **state) {
  (void)state;
#define X(type, field, standard, paper, on_resume)          \
  assert_non_null(ist_opt_find_key(IST_CMD_TRAIN, #field)); \
  assert_non_null(ist_opt_find_key(IST_CMD_PLAN, #field));
#include "train/options.def"
  static const char *const more[] = {"model_path", "base_type", "base_cache", "compute",
                                     "threads",    "output",    "overwrite"};
  for (size_t i = 0; i < sizeof more / sizeof *more; i++)
    assert_non_null(ist_opt_find_key(IST_CMD_TRAIN, more[i]));
}

/* A default that the parser would refuse is a lie in the table. */
static void defaults_lie_in_their_domain(void **state) {
  (void)state;
  ist_args a, again;
  ist_args_init(&a);
  ist_args_init(&again);
  for (int i = 0; i < ist_n_opts; i++) {
    const ist_opt *o = &ist_opts[i];
    ist_error err;
    char text[64], shown[96];
    const char *field = (const char *)&a + o->offset;
    if (o->kind == IST_OPT_INT || o->kind == IST_OPT_SIZE)
      snprintf(text, sizeof text, "%lld", (long long)*(const int64_t *)field);
    else if (o->kind == IST_OPT_REAL)
      snprintf(text, sizeof text, "%.17g", *(const double *)field);
    else if (o->kind == IST_OPT_CHOICE && *(const char *const *)field)
      snprintf(text, sizeof text, "%s", *(const char *const *)field);
    else
      continue;
    if (ist_opt_set(&again, o, text, o->name, &err)) fail_msg("%s", err.message);
    ist_opt_default(o, &a, shown, sizeof shown);
    assert_true(*shown);
  }
}

static void forms(void **state) {
  (void)state;
  parsed p;
  parse(&p,
        "train -m a.gguf --data=b.jsonl --rank 8 -r4 --lr 1e-3 --no-lr-by-active --seed 7 "
        "--max-memory 1.5G");
  assert_int_equal(p.s, IST_OK);
  assert_string_equal(p.a.model_path, "a.gguf");
  assert_string_equal(p.a.train.train_path, "b.jsonl");
  assert_int_equal(p.a.train.rank, 4);
  assert_true(p.a.train.lr == 1e-3);
  assert_false(p.a.train.lr_by_active);
  assert_int_equal(p.a.train.seed, 7);
  assert_int_equal(p.a.train.max_memory, 3LL << 29);
  parse(&p, "train -m a -d b --eval-every -1 --selector fixed:0,3");
  assert_int_equal(p.s, IST_OK);
  assert_int_equal(p.a.train.eval_every, -1);
  assert_string_equal(p.a.train.selector, "fixed:0,3");
  parse(&p, "generate hello_there -m a --temp=0.5");
  assert_int_equal(p.s, IST_OK);
  assert_string_equal(p.a.argument, "hello there");
  parse(&p, "generate -m a -- --raw");
  assert_int_equal(p.s, IST_OK);
  assert_string_equal(p.a.argument, "--raw");
  assert_false(p.a.generate.raw);
  parse(&p, "tokenize -m a -");
  assert_int_equal(p.s, IST_OK);
  assert_string_equal(p.a.argument, "-");
  parse(&p, "train --help");
  assert_int_equal(p.s, IST_OK);
  assert_true(p.a.help);
}

static void sizes(void **state) {
  (void)state;
  static const struct {
    const char *text;
    int64_t bytes;
  } good[] = {{"0", 0},          {"4096", 4096},    {"4096b", 4096},
              {"2k", 2048},      {"2KiB", 2048},    {"3MB", 3 << 20},
              {"4G", 4LL << 30}, {"0.5g", 1 << 29}, {"1T", 1LL << 40}};
  static const char *const bad[] = {"",    "G",   "4X",        "4GG", "4GiBs",
                                    "-1G", "1e3", "99999999T", "4iB", "1..5G"};
  ist_args a;
  ist_error err;
  const ist_opt *o = ist_opt_find(IST_CMD_TRAIN, "max-memory");
  for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
    assert_int_equal(ist_opt_set(&a, o, good[i].text, "x", &err), IST_OK);
    assert_int_equal(a.train.max_memory, good[i].bytes);
  }
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    assert_int_equal(ist_opt_set(&a, o, bad[i], "x", &err), IST_ERR_ARG);
}

static void refusals(void **state) {
  (void)state;
  assert_refused("trian", "unknown command \"trian\"", "did you mean ist train?");
  assert_refused("--rank 3", "found --rank, expected a command first",
                 "ist help lists the commands");
  assert_refused("train --rnak 3", "unknown option --rnak of ist train", "did you mean --rank?");
  assert_refused("train --zzzzzzzz", "unknown option --zzzzzzzz of ist train",
                 "ist help train lists the options");
  assert_refused("tokenize --rank 3", "unknown option --rank of ist tokenize",
                 "--rank is an option of ist train");
  assert_refused("train --no-rank", "unknown option --no-rank of ist train",
                 "did you mean --rank?");
  assert_refused("train --rank abc",
                 "--rank: found \"abc\", expected a whole number from 1 to 4096", "");
  assert_refused("train --rank 0", "--rank: found \"0\", expected a whole number from 1 to 4096",
                 "");
  assert_refused("train -r 1e3",
                 "-r (--rank): found \"1e3\", expected a whole number from 1 to 4096", "");
  assert_refused("train --lr=-1", "--lr: found \"-1\", expected a number above 0", "");
  assert_refused("train --lr 0", "--lr: found \"0\", expected a number above 0", "");
  assert_refused("train --lr nan", "--lr: found \"nan\", expected a number above 0", "");
  assert_refused("train --lr 0x1p3", "--lr: found \"0x1p3\", expected a number above 0", "");
  assert_refused("train --lr 1e999", "--lr: found \"1e999\", expected a number above 0", "");
  assert_refused("train --dropout 1", "--dropout: found \"1\", expected a number from 0 to 0.99",
                 "");
  assert_refused("train --active-ratio 1.01",
                 "--active-ratio: found \"1.01\", expected a number above 0 and at most 1", "");
  assert_refused("train --steps 99999999999999999999",
                 "--steps: found \"99999999999999999999\", expected a whole number of at least 0",
                 "");
  assert_refused("train --schedule linaer",
                 "--schedule: found \"linaer\", expected one of linear, cosine, constant",
                 "did you mean linear?");
  assert_refused(
      "train --selector fixed:",
      "--selector: found \"fixed:\", expected one of ist, random, all, fixed:LIST, scores:FILE",
      "");
  assert_refused("train --overwrite=1", "--overwrite: found \"1\", expected no value", "");
  assert_refused("train --rank --lr 3",
                 "--rank: found no value, expected a whole number from 1 to 4096", "");
  assert_refused("train -m", "-m (--model): found no value, expected a file", "");
  assert_refused("train x", "unexpected argument \"x\" of ist train",
                 "ist help train lists the options");
  assert_refused("generate a b -m x", "unexpected argument \"b\" of ist generate",
                 "quote an argument that has spaces");
  assert_refused(
      "train -d x",
      "ist train needs --model FILE: the model, a GGUF file or a Hugging Face folder; it is never "
      "changed",
      "ist train -m model.gguf -d train.jsonl -o out");
  assert_refused("diff", "ist diff needs A B", "ist diff model.gguf merged.gguf");
}

/* The preset stands first, wherever it is written. */
static void preset_comes_first(void **state) {
  (void)state;
  parsed p;
  ist_train_options paper;
  ist_train_options_init(&paper);
  assert_int_equal(ist_train_options_preset(&paper, "paper", NULL), IST_OK);
  parse(&p, "train --rank 5 -m a -d b --preset paper --lr 1e-5");
  assert_int_equal(p.s, IST_OK);
  assert_int_equal(p.a.train.rank, 5);
  assert_true(p.a.train.lr == 1e-5);
  assert_true(p.a.train.alpha == paper.alpha);
  assert_string_equal(p.a.train.reward, paper.reward);
  assert_string_equal(p.a.train.train_path, "b");
  assert_string_equal(p.a.train.output, "out");
}

static void write_settings(const char *dir, const char *text) {
  char path[300];
  snprintf(path, sizeof path, "%s/settings.json", dir);
  FILE *f = fopen(path, "w");
  assert_non_null(f);
  fputs(text, f);
  fclose(f);
}

static void resume(void **state) {
  (void)state;
  char dir[] = "/tmp/ist-test-XXXXXX", line[256], path[300];
  parsed p;
  assert_non_null(mkdtemp(dir));
  assert_null(strchr(dir, '_'));
  write_settings(
      dir,
      "{\"model_path\": \"m.gguf\", \"train_path\": \"d.jsonl\", \"valid_path\": null, \"rank\": 8,"
      " \"lr\": 0.00030000000000000003, \"lr_by_active\": false, \"seed\": 9, \"output\": "
      "\"moved\", \"overwrite\": true,"
      " \"compute\": \"f32\", \"threads\": 3, \"of another version\": [1]}");
  snprintf(line, sizeof line, "train --lr 1e-4 --resume %s", dir);
  parse(&p, line);
  assert_int_equal(p.s, IST_OK);
  assert_string_equal(p.a.model_path, "m.gguf");
  assert_string_equal(p.a.train.train_path, "d.jsonl");
  assert_null(p.a.train.valid_path);
  assert_int_equal(p.a.train.rank, 8);
  assert_int_equal(p.a.train.seed, 9);
  assert_int_equal(p.a.threads, 3);
  assert_string_equal(p.a.compute, "f32");
  assert_false(p.a.train.lr_by_active);
  assert_true(p.a.train.lr == 1e-4);
  assert_true(p.a.train.resume);
  assert_false(p.a.train.overwrite);
  assert_string_equal(p.a.train.output, dir);
  ist_args_free(&p.a);
  snprintf(line, sizeof line, "train --resume %s", dir);
  parse(&p, line);
  assert_true(p.a.train.lr == 0.00030000000000000003);
  ist_args_free(&p.a);

  static const char *const bad[] = {"{\"rank\": \"a\"}",
                                    "{\"rank\": 0}",
                                    "{\"rank\": 1.5}",
                                    "{\"train_path\": 3}",
                                    "{\"lr_by_active\": 1}",
                                    "[]",
                                    "{",
                                    "",
                                    "{\"rank\": 1, \"rank\": 2}",
                                    "{\"lr_schedule\": \"lienar\"}",
                                    "{\"rank\": [1]}"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    write_settings(dir, bad[i]);
    parse(&p, line);
    assert_int_equal(p.s, IST_ERR_FORMAT);
    assert_int_equal(p.err.code, IST_ERR_FORMAT);
    assert_non_null(strstr(p.err.message, "settings.json"));
    ist_args_free(&p.a);
  }
  snprintf(path, sizeof path, "%s/settings.json", dir);
  unlink(path);
  parse(&p, line);
  assert_int_equal(p.s, IST_ERR_IO);
  ist_args_free(&p.a);
  rmdir(dir);
  assert_refused("train --preset paper --resume x",
                 "--preset and --resume exclude each other: a run keeps its settings", "");
}

/* ---- Edit distance against the recursive definition --------------------------- */

static int slow_distance(const char *a, int m, const char *b, int n) {
  if (!m || !n) return m + n;
  int best = slow_distance(a, m - 1, b, n - 1) + (a[m - 1] != b[n - 1]);
  int other = slow_distance(a, m - 1, b, n) + 1;
  if (other < best) best = other;
  other = slow_distance(a, m, b, n - 1) + 1;
  if (other < best) best = other;
  if (m > 1 && n > 1 && a[m - 1] == b[n - 2] && a[m - 2] == b[n - 1]) {
    other = slow_distance(a, m - 2, b, n - 2) + 1;
    if (other < best) best = other;
  }
  return best;
}

static void edit_distance(void **state) {
  (void)state;
  uint32_t random = 1;
  for (int round = 0; round < 300; round++) {
    char word[2][7] = {"", ""};
    for (int w = 0; w < 2; w++) {
      random = random * 1664525u + 1013904223u;
      int n = (int)(random >> 16) % 6;
      for (int i = 0; i < n; i++) {
        random = random * 1664525u + 1013904223u;
        word[w][i] = (char)('a' + (random >> 16) % 3);
      }
    }
    assert_int_equal(ist_edit_distance(word[0], word[1]),
                     slow_distance(word[0], (int)strlen(word[0]), word[1], (int)strlen(word[1])));
  }
  assert_true(ist_edit_distance("a name of more than thirty-one letters", "a") > 100);
}

/* ---- Texts made from the table ------------------------------------------------- */

static char *captured(void (*write)(FILE *to, int which), int which) {
  char *text = NULL;
  size_t len = 0;
  FILE *to = open_memstream(&text, &len);
  assert_non_null(to);
  write(to, which);
  fclose(to);
  return text;
}

static void write_help(FILE *to, int which) {
  if (which < IST_N_COMMANDS)
    ist_help_command(to, which);
  else
    ist_help_overview(to);
}

static void write_other(FILE *to, int which) {
  if (which == 0)
    ist_help_man(to);
  else
    assert_true(ist_help_completions(to, which == 1 ? "bash" : "zsh"));
}

static void help_names_every_option(void **state) {
  (void)state;
  for (int c = 0; c <= IST_N_COMMANDS; c++) {
    char *text = captured(write_help, c);
    for (int i = 0; c < IST_N_COMMANDS && i < ist_n_opts; i++) {
      char name[64];
      if (!knows(c, &ist_opts[i])) continue;
      snprintf(name, sizeof name, ist_opts[i].kind == IST_OPT_SWITCH ? "--[no-]%s " : "--%s ",
               ist_opts[i].name);
      if (!strstr(text, name)) fail_msg("help of %s lacks %s", ist_commands[c].name, name);
    }
    for (char *line = text; *line;) {
      size_t len = strcspn(line, "\n");
      if (len > 80) fail_msg("longer than 80 columns: %.*s", (int)len, line);
      assert_true(!len || line[len - 1] != ' ');
      line += len + (line[len] == '\n');
    }
    free(text);
  }
}

static void man_and_completions(void **state) {
  (void)state;
  char *man = captured(write_other, 0), *bash = captured(write_other, 1),
       *zsh = captured(write_other, 2);
  assert_non_null(strstr(man, "\\fB\\-\\-lr\\-by\\-active")
                      ? man
                      : strstr(man, "\\-\\-[no\\-]lr\\-by\\-active"));
  assert_int_equal(strncmp(man, ".TH IST 1", 9), 0);
  for (int i = 0; i < ist_n_opts; i++) {
    char name[64];
    if (ist_opts[i].kind == IST_OPT_GROUP) continue;
    snprintf(name, sizeof name, " --%s ", ist_opts[i].name);
    char *at = strstr(bash, name);
    snprintf(name, sizeof name, " --%s'", ist_opts[i].name);
    assert_true(at || strstr(bash, name));
    snprintf(name, sizeof name, "'--%s", ist_opts[i].name);
    assert_non_null(strstr(zsh, name));
  }
  assert_false(ist_help_completions(stdout, "fish"));
  free(man);
  free(bash);
  free(zsh);
}

/* ---- Harmless text ---------------------------------------------------------------- */

static char *cleaned(const char *text, size_t len, int limit, bool lines) {
  char *out = NULL;
  size_t out_len = 0;
  FILE *to = open_memstream(&out, &out_len);
  assert_non_null(to);
  int columns = ist_put_clean(to, text, len, limit, lines);
  fclose(to);
  if (limit) assert_true(columns <= limit);
  if (!limit) assert_int_equal(columns, ist_put_clean(NULL, text, len, 0, lines));
  return out;
}

static void assert_cleaned(const char *text, int limit, const char *expected) {
  char *got = cleaned(text, strlen(text), limit, false);
  assert_string_equal(got, expected);
  free(got);
}

static void assert_json(const char *text, const char *expected) {
  char *out = NULL;
  size_t size;
  FILE *to = open_memstream(&out, &size);
  ist_put_json(to, text);
  fclose(to);
  assert_string_equal(out, expected);
  free(out);
}

/* For a program the same, for a terminal harmless. */
static void json_is_harmless(void **state) {
  (void)state;
  assert_json("{\n  \"a\": \"\\u001b\"\n}", "{\n  \"a\": \"\\u001b\"\n}\n");
  assert_json("\"\xc3\xa9\xe4\xb8\xad\xf0\x9f\x98\x80\"",
              "\"\xc3\xa9\xe4\xb8\xad\xf0\x9f\x98\x80\"\n");
  assert_json(
      "\"\x7f\xc2\x9b"
      "31m\"",
      "\"\\u007f\\u009b31m\"\n");
  assert_json(
      "\"\xe2\x80\xae"
      "abc\xe2\x81\xa9\"",
      "\"\\u202eabc\\u2069\"\n");
  assert_json("\"\xf3\xa0\x81\x81\"", "\"\\udb40\\udc41\"\n"); /* a tag, of two halves */
}

static void text_is_harmless(void **state) {
  (void)state;
  assert_cleaned("plain", 0, "plain");
  assert_cleaned("a\033[31mb\rc\nd\te", 0, "a?[31mb?c\\nd\\te");
  assert_cleaned(
      "\xc2\x9b"
      "31m",
      0, "?31m"); /* C1 control */
  assert_cleaned(
      "\xe2\x80\xae"
      "abc",
      0, "?abc"); /* right-to-left override */
  assert_cleaned("\xc3\xa9\xe4\xb8\xad", 0, "\xc3\xa9\xe4\xb8\xad");
  assert_cleaned(
      "\xc3"
      "a\xff\xed\xa0\x80\xc0\x80",
      0, "?a??????"); /* cut, stray, surrogate, overlong */
  assert_cleaned("abcdefgh", 8, "abcdefgh");
  assert_cleaned("abcdefghi", 8, "abcde...");
  assert_cleaned("\xe4\xb8\xad\xe4\xb8\xad\xe4\xb8\xad", 5, "\xe4\xb8\xad...");
  uint32_t random = 7;
  for (int round = 0; round < 500; round++) {
    char bytes[40];
    for (size_t i = 0; i < sizeof bytes; i++) {
      random = random * 1664525u + 1013904223u;
      bytes[i] = (char)(random >> 24);
    }
    char *got = cleaned(bytes, sizeof bytes, round % 2 ? 10 + round % 20 : 0, false);
    for (const unsigned char *p = (const unsigned char *)got; *p; p++) {
      assert_true(*p >= 0x20 && *p != 0x7f);
      assert_false(p[0] == 0xc2 && p[1] < 0xa0);
    }
    free(got);
  }
  char *repaired = ist_repair_utf8("a\xff\xc3\xa9\xc3");
  assert_string_equal(repaired, "a\xef\xbf\xbd\xc3\xa9\xef\xbf\xbd");
  free(repaired);
}

static void numbers(void **state) {
  (void)state;
  char out[32];
  static const struct {
    double bytes;
    const char *is, *brief;
  } size[] = {{0, "0 B", "0B"},
              {999, "999 B", "999B"},
              {1024, "1 KiB", "1K"},
              {5.5 * 1048576, "5.5 MiB", "6M"},
              {612.0 * 1048576, "612 MiB", "612M"},
              {1023.0 * 1048576, "0.999 GiB", "1.0G"},
              {1.25 * (1 << 30), "1.25 GiB", "1.2G"}};
  for (size_t i = 0; i < sizeof size / sizeof *size; i++) {
    ist_format_bytes(out, size[i].bytes);
    assert_string_equal(out, size[i].is);
    ist_format_bytes_short(out, size[i].bytes);
    assert_string_equal(out, size[i].brief);
  }
  static const struct {
    double n;
    const char *is;
  } count[] = {{7, "7"},           {999, "999"},          {1500, "1.50 K"}, {134515008, "134.5 M"},
               {999960, "1.00 M"}, {7241732096, "7.24 B"}};
  for (size_t i = 0; i < sizeof count / sizeof *count; i++) {
    ist_format_count(out, count[i].n);
    assert_string_equal(out, count[i].is);
  }
  static const struct {
    double s;
    const char *is;
  } time[] = {{-3, "0:00"},     {59.4, "0:59"},   {83, "1:23"},
              {3599.6, "1h00"}, {45240, "12h34"}, {360000, "4d04h"}};
  for (size_t i = 0; i < sizeof time / sizeof *time; i++) {
    ist_format_time(out, time[i].s);
    assert_string_equal(out, time[i].is);
  }
  static const struct {
    int64_t n;
    const char *is;
  } whole[] = {{0, "0"},
               {999, "999"},
               {1000, "1,000"},
               {-100, "-100"},
               {-1234567, "-1,234,567"},
               {134515008, "134,515,008"}};
  for (size_t i = 0; i < sizeof whole / sizeof *whole; i++) {
    ist_format_whole(out, whole[i].n);
    assert_string_equal(out, whole[i].is);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(names_are_unique),
      cmocka_unit_test(every_train_option_has_a_row),
      cmocka_unit_test(defaults_lie_in_their_domain),
      cmocka_unit_test(forms),
      cmocka_unit_test(sizes),
      cmocka_unit_test(refusals),
      cmocka_unit_test(preset_comes_first),
      cmocka_unit_test(resume),
      cmocka_unit_test(edit_distance),
      cmocka_unit_test(help_names_every_option),
      cmocka_unit_test(man_and_completions),
      cmocka_unit_test(text_is_harmless),
      cmocka_unit_test(json_is_harmless),
      cmocka_unit_test(numbers),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
