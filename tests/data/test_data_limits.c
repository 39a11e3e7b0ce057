/* Data files made to take memory or time out of proportion to their size: each is an error that
 * names file and line, or costs what it should. */
#include "data/text_file.h"

#include <sys/resource.h>
#include <sys/stat.h>
#include <zlib.h>

#include "data/doctor.h"
#include "data/reader.h"
#include "data/render.h"
#include "hang.h"

#define MIB ((size_t)1 << 20)
/* A little more than a record may have. */
#define LONG (IST_LONGEST_RECORD + MIB)

/* Of processor time: more than any of these takes under the sanitizers; without its limit each
 * takes longer. */
enum { SECONDS = 20 };

/* A file of the given name, packed by gzip: a text before, a pattern again and again up to `bytes`,
 * and a text behind. */
static const char *make_file(const char *name, const char *before, const char *pattern,
                             size_t bytes, const char *behind) {
  static char path[96];
  snprintf(path, sizeof path, "/tmp/ist-limits-%ld-%s", (long)getpid(), name);
  gzFile f = gzopen(path, "wb6");
  assert_non_null(f);
  gzputs(f, before);
  char piece[65536];
  size_t n = strlen(pattern), whole = sizeof piece / n * n;
  for (size_t i = 0; i < whole; i++) piece[i] = pattern[i % n];
  for (size_t at = 0; at < bytes; at += whole)
    assert_int_equal(gzwrite(f, piece, (unsigned)whole), whole);
  gzputs(f, behind);
  assert_int_equal(gzclose(f), Z_OK);
  return path;
}

/* Reading the file fails with a message that says all of this: its name with a line, and what. */
static void must_refuse(const char *path, const char *place, const char *what) {
  ist_records r;
  ist_error err = {0};
  hang_after(SECONDS);
  ist_status status = ist_records_read(&r, path, &err);
  hang_after(0);
  unlink(path);
  if (status != IST_ERR_DATA || !strstr(err.message, place) || !strstr(err.message, what))
    fail_msg("status %d, \"%s\"; expected \"%s\" and \"%s\"", (int)status,
             status == IST_OK ? "" : err.message, place, what);
}

static void must_read_one(const char *path, size_t bytes) {
  ist_records r;
  ist_error err = {0};
  if (ist_records_read(&r, path, &err) != IST_OK) fail_msg("%s", err.message);
  unlink(path);
  assert_int_equal(r.n, 1);
  assert_true(r.p[0].message[0].len >= bytes);
  ist_records_free(&r);
}

static void test_endless_lines(void **state) {
  (void)state;
  static const char first[] = "{\"text\":\"a\"}\n{\"text\":\"";
  must_refuse(make_file("a.jsonl", first, "x", LONG, "\"}\n"), "-a.jsonl:2:", "more than 16 MiB");
  must_refuse(make_file("a.json", "[{\"text\":\"a\"},\n{\"text\":\"", "x", LONG, "\"}]"),
              "-a.json:2:", "more than 16 MiB");
  must_refuse(make_file("a.csv", "text\na\n", "x", LONG, "\n"), "-a.csv:3:", "more than 16 MiB");
  must_refuse(make_file("a.txt", "a\n\n", "x", LONG, "\n"), "-a.txt:3:", "more than 16 MiB");
  must_refuse(make_file("a.jsonl", "", " \n", LONG, "{}"), "-a.jsonl", "white space");
  /* Almost as long. */
  must_read_one(make_file("a.jsonl", "{\"text\":\"", "x", LONG - 2 * MIB, "\"}\n"), LONG - 2 * MIB);
}

/* Lines of a usual length that are one record. */
static void test_endless_records(void **state) {
  (void)state;
  must_refuse(make_file("a.txt", "a\n\nb\n", "0123456\n", LONG, "\n"),
              "-a.txt:3:", "a paragraph of more than 16 MiB");
  must_refuse(make_file("a.csv", "text\na\n\"", "0123456\n", LONG, "\"\n"),
              "-a.csv:3:", "a row of more than 16 MiB");
  must_read_one(make_file("a.txt", "b\n", "0123456\n", LONG - 2 * MIB, "\n"), LONG - 2 * MIB);
}

/* Few bytes a value. */
static void test_many_values(void **state) {
  (void)state;
  must_refuse(make_file("a.jsonl", "{\"text\":\"a\"}\n{\"text\":[", "{},", 2 * MIB, "{}]}\n"),
              "-a.jsonl:2:", "128 MiB of memory");
  must_refuse(make_file("a.json", "[{\"text\":\"a\"},\n{\"text\":[", "[],", 3 * MIB, "1]}]"),
              "-a.json:2:", "128 MiB of memory");
  must_refuse(make_file("a.csv", "text,b\na,b\n", ",", 65536, "\n"),
              "-a.csv:3:", "more than 16384 fields");
}

/* A string that holds JSON, as tools may be given, is not parsed where it would multiply. */
static void test_values_in_a_string(void **state) {
  (void)state;
  must_refuse(
      make_file("a.jsonl", "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"tools\":\"[",
                "{},", 2 * MIB, "{}]\"}\n"),
      "-a.jsonl:1:", "field 'tools' is a string");
}

/* A file that unpacks to hundreds of times its size. */
static void test_bomb(void **state) {
  (void)state;
  char text[4001];
  memset(text, 'b', sizeof text - 1);
  memcpy(text + sizeof text - 3, "\n\n", 3);
  const char *path = make_file("b.txt", "", text, 300 * MIB, "");
  ist_reader *r;
  ist_error err = {0};
  int64_t n = 0;
  struct stat st;
  assert_int_equal(stat(path, &st), 0);
  assert_true((size_t)st.st_size < 2 * MIB);
  assert_int_equal(ist_reader_open(&r, path, &err), IST_OK);
  for (bool more = true; more; n += more) {
    ist_record record;
    ist_status status = ist_reader_next(r, &record, &more, &err);
    if (status == IST_OK && more) {
      ist_record_free(&record);
      continue;
    }
    assert_int_equal(status, IST_ERR_DATA);
    assert_non_null(strstr(err.message, "-b.txt: behind line "));
    assert_non_null(strstr(err.message, "more than 256 times"));
    break;
  }
  assert_true(n > 255 * (int64_t)MIB / 4000 && n < 260 * (int64_t)MIB / 4000);
  ist_reader_close(r);
  unlink(path);
}

/* A pipe is refused at once. */
static void test_pipe(void **state) {
  (void)state;
  char path[64];
  ist_records r;
  ist_error err = {0};
  snprintf(path, sizeof path, "/tmp/ist-limits-%ld-fifo", (long)getpid());
  assert_int_equal(mkfifo(path, 0600), 0);
  alarm(30);
  assert_int_equal(ist_records_read(&r, path, &err), IST_ERR_IO);
  alarm(0);
  assert_non_null(strstr(err.message, "expected a regular file"));
  unlink(path);
}

/* ---- Conversations ---- */

#define CHATML                                                                                    \
  "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>' + '\\n' " \
  "}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"

enum { MESSAGES = 10000, MOST_TOKENS = 5000 };

/* Finding every reply would render the conversation ten thousand times; a sample of some tokens
 * needs a few of them, and is the same as that of the beginning alone. */
static void test_long_conversation(void **state) {
  (void)state;
  static const small_token extra[] = {
      {"<|endoftext|>", CONTROL}, {"<|im_start|>", CONTROL}, {"<|im_end|>", CONTROL}, {NULL, 0}};
  static const char *const no_merges[] = {NULL};
  const small_vocab v = {.pre = "gpt-2",
                         .extra = extra,
                         .merges = no_merges,
                         .eos = "<|endoftext|>",
                         .chat_template = CHATML};
  ist_tokenizer *t = small_vocab_open(&v);
  char text[1001] = "";
  memset(text, 'x', sizeof text - 1);
  ist_message *m = ist_calloc(MESSAGES, sizeof *m);
  for (int i = 0; i < MESSAGES; i++)
    m[i] = (ist_message){i % 2 ? IST_ROLE_ASSISTANT : IST_ROLE_USER, text, sizeof text - 1, NULL};
  ist_record r = {.message = m, .n_messages = MESSAGES};
  ist_rendered some = {0}, beginning = {0}, all = {0};
  ist_error err = {0};
  hang_after(SECONDS);
  if (ist_render_record(&some, &r, t, IST_TEMPLATE_MODEL, 0, MOST_TOKENS, &err) != IST_OK)
    fail_msg("%s", err.message);
  r.n_messages = 200;
  if (ist_render_record(&beginning, &r, t, IST_TEMPLATE_MODEL, 0, 0, &err) != IST_OK)
    fail_msg("%s", err.message);
  hang_after(0);
  assert_true(some.ids.n > MOST_TOKENS && some.ids.n < 2 * MOST_TOKENS);
  assert_true(beginning.ids.n > some.ids.n);
  assert_memory_equal(some.ids.p, beginning.ids.p, MOST_TOKENS * sizeof *some.ids.p);
  assert_memory_equal(some.mask, beginning.mask, MOST_TOKENS);
  r.n_messages = MESSAGES;
  hang_after(SECONDS);
  assert_int_equal(ist_render_record(&all, &r, t, IST_TEMPLATE_MODEL, 0, 0, &err), IST_ERR_DATA);
  hang_after(0);
  assert_non_null(strstr(err.message, "a conversation of 10000 messages"));
  ist_rendered_free(&some);
  ist_rendered_free(&beginning);
  ist_rendered_free(&all);
  ist_free(m);
  ist_tokenizer_free(t);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_endless_lines),
      cmocka_unit_test(test_endless_records),
      cmocka_unit_test(test_many_values),
      cmocka_unit_test(test_values_in_a_string),
      cmocka_unit_test(test_bomb),
      cmocka_unit_test(test_pipe),
      cmocka_unit_test(test_long_conversation),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
