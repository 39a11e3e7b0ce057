/* What data is refused with, by words that the other tests of this room do not reach: fields,
 * files, lists of files, splits, options, templates, and a scratch file that cannot be made. */
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "data/text_file.h"

#include "data/mix.h"

#define COUNT(list) (sizeof(list) / sizeof *(list))

static char folder[] = "/tmp/ist-test-refusals-XXXXXX";

static int enter_folder(void **state) {
  (void)state;
  return mkdtemp(folder) && chdir(folder) == 0 ? 0 : -1;
}
static int leave_folder(void **state) {
  (void)state;
  return chdir("/") == 0 && ist_remove_tree(folder, NULL) == IST_OK ? 0 : -1;
}

static void expect(const char *what, ist_status got, ist_status want, const ist_error *err,
                   const char *says) {
  if (got != want || !strstr(err->message, says))
    fail_msg("%s: got %d '%s', expected %d '%s'", what, (int)got, err->message, (int)want, says);
}

/* ---- Records ---- */

static void test_fields(void **state) {
  (void)state;
#define USER "{\"role\": \"user\", \"content\": \"q\"}"
  static const char *const rows[][2] = {
      {"true", ":1: a record is true or false, expected an object"},
      {"null", ":1: a record is null"},
      {"{\"text\": false}", "field 'text' is true or false, expected a string"},
      {"{\"text\": 1.5}", "field 'text' is a number"},
      {"{\"text\": {}}", "field 'text' is an object"},
      {"{\"messages\": [null]}", "field 'messages[0]' is null, expected an object"},
      {"{\"messages\": [{\"role\": \"tool\"}]}", "no field 'messages[0].content'"},
      {"{\"messages\": [{\"role\": \"assistant\", \"content\": null}]}",
       "field 'messages[0].content' is null, expected a string"},
      {"{\"messages\": [{\"role\": \"assistant\", \"content\": null, \"tool_calls\": []}]}",
       "field 'messages[0].content' is null"},
      {"{\"messages\": [{\"role\": \"assistant\", \"content\": 5, \"tool_calls\": [{}]}]}",
       "field 'messages[0].content' is a number"},
      {"{\"messages\": [" USER "], \"tools\": {}}",
       "field 'tools' is an object, expected an array"},
      {"{\"messages\": [" USER "], \"tools\": \"none\"}", "field 'tools' is a string, expected"},
      {"{\"messages\": [" USER "], \"tools\": \"{}\"}", "field 'tools' is an object, expected"},
      {"{\"messages\": [" USER "], \"documents\": 7}", "field 'documents' is a number, expected"},
      {"{\"messages\": [" USER "], \"chat_template_kwargs\": []}",
       "field 'chat_template_kwargs' is an array, expected an object"},
      {"{\"conversations\": [{\"from\": \"human\"}]}", "no field 'conversations[0].value'"},
      {"{\"conversations\": 1}", "field 'conversations' is a number, expected an array"},
      {"{\"instruction\": 5, \"output\": \"a\"}", "field 'instruction' is a number"},
      {"{\"instruction\": \"a\", \"output\": []}", "field 'output' is an array"},
      {"{\"prompt\": \"a\", \"completion\": 1}", "field 'completion' is a number"},
  };
  for (size_t k = 0; k < COUNT(rows); k++) {
    ist_records r;
    ist_error err = {0};
    expect(rows[k][0], read_text(&r, rows[k][0], &err), IST_ERR_DATA, &err, rows[k][1]);
  }
}

/* Lists of tools may stand in a string, as columns have them; null is none. */
static void test_lists(void **state) {
  (void)state;
  static const struct {
    const char *more, *variables;
  } rows[] = {
      {"\"tools\": \"[1, 2]\"", "{\"tools\":[1,2]}"},
      {"\"tools\": [1], \"documents\": \"[{}]\"", "{\"tools\":[1],\"documents\":[{}]}"},
      {"\"tools\": null, \"chat_template_kwargs\": {\"x\": 1}", "{\"x\":1}"},
      {"\"tools\": [], \"chat_template_kwargs\": null", NULL},
  };
  for (size_t k = 0; k < COUNT(rows); k++) {
    ist_records r;
    char text[256];
    snprintf(text, sizeof text, "{\"messages\": [" USER "], %s}", rows[k].more);
    must_read(&r, text);
    if (rows[k].variables)
      assert_string_equal(r.p[0].variables, rows[k].variables);
    else
      assert_null(r.p[0].variables);
    assert_int_equal(r.p[0].tools, rows[k].variables && strstr(rows[k].variables, "tools") != NULL);
    ist_records_free(&r);
  }
}

/* A list in a string may be nested as deep as jansson parses, but not one level deeper, which is
 * where it stands among the template's variables. */
static void test_deep_list(void **state) {
  (void)state;
  for (int depth = 2047; depth <= 2048; depth++) {
    ist_buf text = {0};
    ist_records r;
    ist_error err = {0};
    ist_buf_str(&text, "{\"messages\": [" USER "], \"tools\": \"");
    for (int i = 0; i < depth; i++) ist_buf_str(&text, "[");
    for (int i = 0; i < depth; i++) ist_buf_str(&text, "]");
    ist_buf_str(&text, "\"}");
    assert_false(text.failed);
    ist_status status = read_text(&r, text.p, &err);
    if (depth == 2047) assert_int_equal(status, IST_OK);
    if (depth == 2048)
      expect("a deep list", status, IST_ERR_DATA, &err,
             ".jsonl:1: the fields 'tools' and 'documents': maximum parsing depth reached");
    ist_records_free(&r);
    ist_buf_free(&text);
  }
}

/* ---- Files ---- */

static void test_files(void **state) {
  (void)state;
  static const struct {
    const char *name, *text; /* text NULL: it is there already */
    ist_status code;
    const char *says;
  } rows[] = {
      {"/tmp", NULL, IST_ERR_IO, "/tmp: found a directory, expected a regular file"},
      {"/dev/null", NULL, IST_ERR_IO, "/dev/null: found a device or pipe, expected a regular file"},
      {"/tmp/ist-none/x.jsonl", NULL, IST_ERR_IO, "/tmp/ist-none/x.jsonl: No such file"},
      {"head.csv", "\"prompt\"x,completion\na,b\n", IST_ERR_DATA,
       "head.csv:1: found 'x' behind a closing quote, expected a comma"},
      {"mark.csv", "\xef\xbb\xbf", IST_ERR_DATA, "mark.csv: no header row"},
      {"none.csv", "", IST_ERR_DATA, "none.csv: the file is empty"},
  };
  for (size_t k = 0; k < COUNT(rows); k++) {
    ist_records r;
    ist_error err = {0};
    if (rows[k].text) {
      FILE *f = fopen(rows[k].name, "wb");
      assert_non_null(f);
      fputs(rows[k].text, f);
      assert_int_equal(fclose(f), 0);
    }
    ist_status status = ist_records_read(&r, rows[k].name, &err);
    if (rows[k].text) unlink(rows[k].name);
    expect(rows[k].name, status, rows[k].code, &err, rows[k].says);
  }
}

static void test_sources(void **state) {
  (void)state;
  static const char *const rows[][2] = {
      {"a,,b", "data: found an empty name of a file"},
      {"a=0", "data: found the weight 0 of a, expected a number above 0, at most 1000"},
      {"b,a.jsonl=1001", "found the weight 1001 of a.jsonl"},
  };
  ist_sources s;
  for (size_t k = 0; k < COUNT(rows); k++) {
    ist_error err = {0};
    expect(rows[k][0], ist_sources_parse(&s, rows[k][0], &err), IST_ERR_ARG, &err, rows[k][1]);
    assert_int_equal(s.n, 0);
  }
  char many[2 * IST_MAX_SOURCES + 2] = "";
  for (int i = 0; i < IST_MAX_SOURCES; i++) strcat(many, i ? ",a" : "a");
  ist_error err = {0};
  assert_int_equal(ist_sources_parse(&s, many, &err), IST_OK);
  assert_int_equal(s.n, IST_MAX_SOURCES);
  ist_sources_free(&s);
  strcat(many, ",a");
  expect(many, ist_sources_parse(&s, many, &err), IST_ERR_ARG, &err, "found more than 64 files");
}

static void test_splits(void **state) {
  (void)state;
  static const struct {
    int64_t n, valid, probe;
    const char *says; /* NULL: good */
  } rows[] = {
      {0, 0, 0, "0 records cannot give 0 for validation, 0 for probes and at least one"},
      {5, 5, 0, "5 records cannot give 5 for validation, 0 for probes"},
      {5, 3, 2, "5 records cannot give 3 for validation, 2 for probes"},
      {5, 3, 1, NULL},
      {1, 0, 0, NULL},
  };
  for (size_t k = 0; k < COUNT(rows); k++) {
    ist_split s;
    ist_error err = {0};
    ist_status status = ist_split_make(&s, rows[k].n, rows[k].valid, rows[k].probe, 1, &err);
    if (rows[k].says) {
      expect("a split", status, IST_ERR_ARG, &err, rows[k].says);
      assert_true(!s.train && !s.valid && !s.probe && !s.n_train && !s.n_valid && !s.n_probe);
      continue;
    }
    assert_int_equal(status, IST_OK);
    assert_int_equal(s.n_train, rows[k].n - rows[k].valid - rows[k].probe);
    ist_split_free(&s);
  }
}

/* ---- Datasets ---- */

static void test_datasets(void **state) {
  (void)state;
  static const small_token extra[] = {{"<|end|>", CONTROL}, {NULL, 0}};
  const small_vocab v = {.pre = "gpt-2", .extra = extra, .eos = "<|end|>"};
#define TALK "{\"messages\": [" USER ", {\"role\": \"assistant\", \"content\": \"a\"}, " USER "]}\n"
#define TOOLS \
  "{\"messages\": [" USER ", {\"role\": \"assistant\", \"content\": \"a\"}], \"tools\": [{}]}\n"
  static const struct {
    const char *text;
    ist_template tmpl;
    int64_t max_tokens;
    ist_status code;
    const char *says, *hint;
  } rows[] = {
      {"{\"text\": \"abc\"}", IST_TEMPLATE_NONE, 1, IST_ERR_ARG,
       "at most 1 tokens a sample, expected 2 or more", ""},
      {"{\"text\": \"abc\"}", IST_TEMPLATE_NONE, INT64_C(1) << 31, IST_ERR_ARG,
       "at most 2147483648 tokens a sample", ""},
      {"{\"prompt\": \"abcdef\", \"completion\": \"g\"}", IST_TEMPLATE_NONE, 3, IST_ERR_DATA,
       "none of 1 records has a token to train on (1 were cut to 3 tokens)", "allow more tokens"},
      {"{\"messages\": [" USER "]}", IST_TEMPLATE_NONE, 30, IST_ERR_DATA,
       "none of 1 records has a token to train on (0 were cut to 30 tokens)",
       "records need a completion"},
      {TALK, IST_TEMPLATE_PAPER, 300, IST_ERR_DATA,
       "the paper template holds one instruction and one response, this record is a conversation "
       "of 3 messages",
       ""},
      {TOOLS, IST_TEMPLATE_ALPACA, 300, IST_ERR_DATA,
       "found tools, calls or their answers, which template alpaca cannot show, expected template "
       "model",
       ""},
      {TOOLS, IST_TEMPLATE_PAPER, 300, IST_ERR_DATA, "which template paper cannot show", ""},
  };
  ist_tokenizer *tok = small_vocab_open(&v);
  for (size_t k = 0; k < COUNT(rows); k++) {
    ist_records r;
    ist_dataset d;
    ist_error err = {0};
    const ist_data_options o = {
        .tmpl = rows[k].tmpl, .loss_on = IST_LOSS_COMPLETION, .max_tokens = rows[k].max_tokens};
    must_read(&r, rows[k].text);
    expect(rows[k].text, ist_dataset_build(&d, &r, tok, &o, &err), rows[k].code, &err,
           rows[k].says);
    if (!strstr(err.hint, rows[k].hint)) fail_msg("%s: hint '%s'", rows[k].text, err.hint);
    assert_true(d.n == 0 && !d.p);
    ist_records_free(&r);
  }
  ist_tokenizer_free(tok);
}

/* ---- Samples that go to a file ---- */

static ist_sample make_sample(int n) {
  ist_sample s = {.n = n};
  s.ids = ist_calloc((size_t)n, sizeof *s.ids + 1);
  assert_non_null(s.ids);
  return s;
}

static int open_files(void) {
  int n = 0;
  for (int fd = 0; fd < 256; fd++) n += fcntl(fd, F_GETFD) >= 0;
  return n;
}

/* No folder for the scratch file, and no room in it: an error, the sample stays the caller's, and
 * nothing stays open. */
static void test_store(void **state) {
  (void)state;
  int before = open_files();
  ist_error err = {0};
  ist_store none = {.folder = "/tmp/ist-none"};
  ist_sample s = make_sample(10);
  expect("no folder", ist_store_take(&none, &s, &err), IST_ERR_IO, &err,
         "/tmp/ist-none: cannot make a scratch file for training samples: No such file");
  assert_true(s.ids && !s.stored);
  ist_store_close(&none);

  struct rlimit limit;
  assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
  struct rlimit small = {1000, limit.rlim_max};
  void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
  assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
  for (int n = 10; n <= 1000; n += 990) { /* with one sample in the file, and with none */
    ist_store full = {.folder = "/tmp"};
    ist_sample first = make_sample(n), second = make_sample(1000);
    if (n == 10) {
      assert_int_equal(ist_store_take(&full, &first, &err), IST_OK);
      assert_true(first.stored && !first.ids);
    }
    expect("no room", ist_store_take(&full, &second, &err), IST_ERR_IO, &err,
           "/tmp: cannot write training samples: File too large");
    assert_true(second.ids && !second.stored);
    ist_store_close(&full);
    ist_free(first.ids);
    ist_free(second.ids);
  }
  assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
  signal(SIGXFSZ, handler);
  ist_free(s.ids);
  assert_int_equal(open_files(), before);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_fields),    cmocka_unit_test(test_lists),
      cmocka_unit_test(test_deep_list), cmocka_unit_test(test_files),
      cmocka_unit_test(test_sources),   cmocka_unit_test(test_splits),
      cmocka_unit_test(test_datasets),  cmocka_unit_test(test_store),
  };
  return cmocka_run_group_tests(tests, enter_folder, leave_folder);
}
