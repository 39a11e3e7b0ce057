/* Data files that are not JSON lines, and packed ones. */
#include "data/text_file.h"

#include <zlib.h>
#include <zstd.h>

#include "data/reader.h"

static const char lines[] =
    "{\"prompt\": \"p1\", \"completion\": \"c1\"}\n{\"prompt\": \"p2\", \"completion\": \"c2\"}\n";

/* A file of these bytes, named so; unlinked by read_file. */
static char *write_file(const char *name, const void *bytes, size_t len) {
  static char path[96];
  snprintf(path, sizeof path, "/tmp/ist-test-%ld-%s", (long)getpid(), name);
  FILE *f = fopen(path, "wb");
  assert_non_null(f);
  assert_int_equal(fwrite(bytes, 1, len, f), len);
  fclose(f);
  return path;
}

static ist_status read_file(ist_records *out, const char *name, const void *bytes, size_t len,
                            ist_error *err) {
  char *path = write_file(name, bytes, len);
  ist_status status = ist_records_read(out, path, err);
  unlink(path);
  return status;
}

static void must_hold(const char *name, const void *bytes, size_t len, const char *const texts[][2],
                      int64_t n) {
  ist_records r;
  ist_error err = {0};
  if (read_file(&r, name, bytes, len, &err) != IST_OK) fail_msg("%s", err.message);
  assert_int_equal(r.n, n);
  for (int64_t i = 0; i < n; i++) {
    assert_string_equal(r.p[i].message[0].text, texts[i][0]);
    if (texts[i][1]) assert_string_equal(r.p[i].message[1].text, texts[i][1]);
    assert_int_equal(r.p[i].n_messages, texts[i][1] ? 2 : 1);
  }
  ist_records_free(&r);
}

static void must_fail(const char *name, const void *bytes, size_t len, const char *says) {
  ist_records r;
  ist_error err = {0};
  assert_int_equal(read_file(&r, name, bytes, len, &err), IST_ERR_DATA);
  if (!strstr(err.message, says)) fail_msg("\"%s\" does not say \"%s\"", err.message, says);
  assert_int_equal(r.n, 0);
}
#define TEXT(s) s, sizeof s - 1

static void test_csv(void **state) {
  (void)state;
  static const char text[] =
      "\xef\xbb\xbfid,prompt,completion\r\n"
      "1,plain,\"a, \"\"quoted\"\" one\"\r\n"
      "2,\"two\nlines\",\r\n"
      "3,,end";
  static const char *const holds[][2] = {
      {"plain", "a, \"quoted\" one"}, {"two\nlines", ""}, {"", "end"}};
  must_hold("a.csv", TEXT(text), holds, 3);
}

/* A name may stand twice where no record needs it. */
static void test_csv_repeated(void **state) {
  (void)state;
  static const char *const holds[][2] = {{"a", "b"}};
  must_hold("a.csv", TEXT("id,prompt,id,completion,text,text,input,input\n1,a,2,b,3,4,5,6\n"),
            holds, 1);
  must_fail("a.csv", TEXT("prompt,completion,prompt\na,b,c\n"),
            "a.csv:1: found more than one column 'prompt', expected one");
  must_fail("a.csv", TEXT("input,instruction,output,input\na,b,c,d\n"),
            "a.csv:1: found more than one column 'input'");
  must_fail("a.csv", TEXT("x,\"text\",y,x,text\na,b,c,d,e\n"),
            "a.csv:1: found more than one column 'text'");
  must_fail("a.csv", TEXT("x,x\na,b\n"), "a.csv:2: a record with the fields: x;");
}

static void test_csv_errors(void **state) {
  (void)state;
  must_fail("a.csv", TEXT("prompt,completion\na,b\nc\n"), "a.csv:3: found 1 fields, expected 2");
  must_fail("a.csv", TEXT("prompt,completion\n\"a\"b,c\n"), "a.csv:2: found 'b' behind a closing");
  must_fail("a.csv", TEXT("prompt,completion\na,\"b\n"), "ends inside a quoted field");
  must_fail("a.csv", TEXT("prompt,answer\na,b\n"), "fields: prompt, answer");
  must_fail("a.csv", TEXT("prompt,completion\na,\xff\n"), "a.csv:2: a field is not UTF-8");
  must_fail("a.csv", TEXT("prompt,completion\na,b\0c\n"), "a.csv:2: found a zero byte in a field");
  must_fail("a.csv", TEXT("prompt,completion\n"), "no records");
}

static void test_paragraphs(void **state) {
  (void)state;
  static const char *const holds[][2] = {{"one\nline two", NULL}, {"  two", NULL}, {"three", NULL}};
  must_hold("a.txt", TEXT("\n\none\nline two\r\n \n  two\n\n\nthree"), holds, 3);
  must_fail("a.txt", TEXT("\n \n"), "no records");
  static const char *const bracket[][2] = {{"[1] a", NULL}}, *const brace[][2] = {{"{{a}}", NULL}};
  static const char *const one[][2] = {{"{", NULL}};
  must_hold("a.txt", TEXT("[1] a\n"), bracket, 1);
  must_hold("a.txt", TEXT("{{a}}"), brace, 1);
  must_hold("a.txt", TEXT(" \n{"), one, 1);
  must_fail("a.txt", TEXT("good\n\nb\xff\n"), "a.txt:3: found text that is not UTF-8");
  must_fail("a.txt", TEXT("good\n\nb\n\0\n"), "a.txt:3: found a zero byte");
}

/* JSON is not learned as text because of its name. */
static void test_json_in_txt(void **state) {
  (void)state;
  static const char *const holds[][2] = {{"p1", "c1"}, {"p2", "c2"}};
  static const char array[] =
      " [\n {\"prompt\": \"p1\", \"completion\": \"c1\"},\n"
      "{\"prompt\": \"p2\", \"completion\": \"c2\"}]";
  must_hold("a.txt", lines, sizeof lines - 1, holds, 2);
  must_hold("a.txt", TEXT(array), holds, 2);
  must_fail("a.txt", TEXT("{ \"a\": 1}"), "a.txt:1: a record with the fields: a;");
  must_fail("a.txt", TEXT("[]"), "no records");
}

static void test_conversations(void **state) {
  (void)state;
  static const char text[] =
      "[{\"conversations\": [{\"from\": \"human\", \"value\": \"q\"}, {\"from\": \"gpt\", "
      "\"value\": "
      "\"a\"}]}]";
  static const char *const holds[][2] = {{"q", "a"}};
  must_hold("a.json", TEXT(text), holds, 1);
  must_fail("a.json", TEXT("[{\"conversations\": [{\"from\": \"x\", \"value\": \"q\"}]}]"),
            "'conversations[0].from' is 'x', expected 'system', 'human', 'gpt' or 'tool'");
}

/* ---- Packed files ---- */

static size_t gzip(unsigned char *out, size_t cap, const void *in, size_t len) {
  z_stream z = {0};
  assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY), Z_OK);
  z.next_in = (unsigned char *)(uintptr_t)in;
  z.avail_in = (uInt)len;
  z.next_out = out;
  z.avail_out = (uInt)cap;
  assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
  deflateEnd(&z);
  return cap - z.avail_out;
}

static size_t zstd(unsigned char *out, size_t cap, const void *in, size_t len) {
  size_t n = ZSTD_compress(out, cap, in, len, 3);
  assert_false(ZSTD_isError(n));
  return n;
}

typedef size_t packer(unsigned char *, size_t, const void *, size_t);

/* Two members (frames) one behind the other, and every length that is too short. */
static void check_packed(packer *pack, const char *name) {
  static const char *const holds[][2] = {{"p1", "c1"}, {"p2", "c2"}};
  unsigned char out[1024];
  size_t half = 20, whole = sizeof lines - 1;
  size_t n = pack(out, sizeof out, lines, half);
  size_t first = n;
  n += pack(out + n, sizeof out - n, lines + half, whole - half);
  must_hold(name, out, n, holds, 2);
  for (size_t cut = 5; cut < n; cut++)
    if (cut != first) must_fail(name, out, cut, "too early");
  out[first + 1] ^= 0x55; /* the second one's magic number */
  ist_records r;
  ist_error err = {0};
  assert_int_equal(read_file(&r, name, out, n, &err), IST_ERR_DATA);
}

static void test_gzip(void **state) {
  (void)state;
  check_packed(gzip, "a.jsonl.gz");
}

static void test_zstd(void **state) {
  (void)state;
  check_packed(zstd, "a.jsonl.zst");
}

/* The name counts without the packing: a packed CSV file is a CSV file. */
static void test_packed_csv(void **state) {
  (void)state;
  static const char *const holds[][2] = {{"a", "b"}};
  unsigned char out[256];
  size_t n = gzip(out, sizeof out, TEXT("prompt,completion\na,b\n"));
  must_hold("b.csv.gz", out, n, holds, 1);
}

/* A long line comes whole, whatever the size of the pieces that are read. */
static void test_long_lines(void **state) {
  (void)state;
  enum { LONG = 300000 };
  char *text = ist_calloc(LONG + 64, 1);
  strcpy(text, "{\"text\": \"");
  size_t begin = strlen(text);
  memset(text + begin, 'x', LONG);
  strcpy(text + begin + LONG, "\"}\n{\"text\": \"y\"}");
  ist_records r;
  ist_error err = {0};
  if (read_file(&r, "a.jsonl", text, strlen(text), &err) != IST_OK) fail_msg("%s", err.message);
  assert_int_equal(r.n, 2);
  assert_int_equal(r.p[0].message[0].len, LONG);
  ist_records_free(&r);
  ist_free(text);
}

/* ---- Going on behind a bad record ---- */

static void check_goes_on(const char *name, const char *text, const char *const *expected) {
  char *path = write_file(name, text, strlen(text));
  ist_reader *reader;
  ist_error err = {0};
  assert_int_equal(ist_reader_open(&reader, path, &err), IST_OK);
  unlink(path);
  bool more = true;
  for (int i = 0; more; i++) {
    ist_record r;
    ist_status status = ist_reader_next(reader, &r, &more, &err);
    if (!more) {
      assert_int_equal(status, IST_OK);
      assert_null(expected[i]);
      break;
    }
    assert_non_null(expected[i]);
    assert_int_equal(status == IST_OK, *expected[i] != '!');
    if (status == IST_OK) assert_string_equal(r.message[0].text, expected[i]);
    ist_record_free(&r);
  }
  ist_reader_close(reader);
}

static void test_goes_on(void **state) {
  (void)state;
  static const char *const expected[] = {"a", "!", "b", "!", "c", NULL};
  check_goes_on("a.jsonl",
                "{\"text\":\"a\"}\n{\n{\"text\":\"b\"}\n{\"text\":1}\n{\"text\":\"c\"}\n",
                expected);
  check_goes_on("a.json", "[{\"text\":\"a\"},3,{\"text\":\"b\"},{\"text\":1},{\"text\":\"c\"}]",
                expected);
  check_goes_on("a.csv", "text,n\na,1\nx\nb,2\n\"y\"z,3\nc,4\n", expected);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_csv),          cmocka_unit_test(test_csv_errors),
      cmocka_unit_test(test_csv_repeated), cmocka_unit_test(test_paragraphs),
      cmocka_unit_test(test_json_in_txt),  cmocka_unit_test(test_conversations),
      cmocka_unit_test(test_gzip),         cmocka_unit_test(test_zstd),
      cmocka_unit_test(test_packed_csv),   cmocka_unit_test(test_long_lines),
      cmocka_unit_test(test_goes_on),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
