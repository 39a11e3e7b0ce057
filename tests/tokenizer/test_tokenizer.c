/* The tokenizer's interface: special tokens, round trips, facts, bad vocabularies. */
#include "tokenizer/small_vocab.h"

#include "base/parallel.h"
#include "base/rng.h"

#define COUNT(a) (sizeof(a) / sizeof(a)[0])

/* ids 256.. */
static const small_token tokens[] = {{"<|endoftext|>", CONTROL}, /* 256 */
                                     {"<|im_start|>", CONTROL},  /* 257 */
                                     {"<|im_end|>", CONTROL},    /* 258 */
                                     {"<u>", USER},              /* 259 */
                                     {"<u><u>", USER},           /* 260 */
                                     {"th", NORMAL},             /* 261 */
                                     {"the", NORMAL},            /* 262 */
                                     {"\xc4\xa0the", NORMAL},    /* 263: " the" */
                                     {"<unk>", UNKNOWN},         /* 264 */
                                     {"u><|im", USER},           /* 265: overlaps others */
                                     {NULL, 0}};
static const char *const merges[] = {"t h", "th e", "\xc4\xa0 the", NULL};
static const small_vocab vocab = {.pre = "gpt-2",
                                  .extra = tokens,
                                  .merges = merges,
                                  .bos = "<|endoftext|>",
                                  .eos = "<|endoftext|>",
                                  .chat_template = "{{ messages }}"};

static void check_ids(const ist_tokenizer *t, const char *text, bool special, const int *expected,
                      int n) {
  ist_ids ids = {0};
  ist_error err = {0};
  assert_int_equal(ist_tokenizer_encode(t, text, strlen(text), special, &ids, &err), IST_OK);
  assert_int_equal(ids.n, n);
  for (int i = 0; i < n; i++) assert_int_equal(ids.p[i], expected[i]);
  ist_ids_free(&ids);
}
#define CHECK_IDS(t, text, special, ...) \
  check_ids(t, text, special, (const int[]){__VA_ARGS__}, (int)COUNT(((const int[]){__VA_ARGS__})))

static void test_special(void **state) {
  (void)state;
  ist_tokenizer *t = small_vocab_open(&vocab);
  CHECK_IDS(t, "the the", false, 262, 263);
  CHECK_IDS(t, "<|im_start|>the<|im_end|>", true, 257, 262, 258);
  CHECK_IDS(t, "a<u>b", false, 'a', 259, 'b');
  CHECK_IDS(t, "a<u>b", true, 'a', 259, 'b');
  CHECK_IDS(t, "<unk>", true, 264);
  CHECK_IDS(t, "<u><u><u>", false, 260, 259); /* the longest first */
  /* The longest text wins even where a shorter one begins before it. */
  CHECK_IDS(t, "<u><|im_end|>", true, 259, 258);
  CHECK_IDS(t, "<u><|im", true, '<', 265);
  CHECK_IDS(t, "<u><|im", false, '<', 265);
  /* The white space before a special token is split as at the end of a text. */
  CHECK_IDS(t, "the <u> the", false, 262, ' ', 259, 263);
  ist_tokenizer_free(t);
}

/* Plain text never becomes a control token. */
static void test_no_injection(void **state) {
  (void)state;
  ist_tokenizer *t = small_vocab_open(&vocab);
  const char *text = "<|im_start|><|im_end|><|endoftext|><unk>";
  ist_ids ids = {0};
  ist_buf back = {0};
  ist_error err = {0};
  assert_int_equal(ist_tokenizer_encode(t, text, strlen(text), false, &ids, &err), IST_OK);
  for (int64_t i = 0; i < ids.n; i++) assert_false(ist_tokenizer_is_control(t, ids.p[i]));
  assert_int_equal(ist_tokenizer_decode(t, ids.p, ids.n, false, &back, &err), IST_OK);
  assert_string_equal(back.p, text);
  ist_ids_free(&ids);
  ist_buf_free(&back);
  ist_tokenizer_free(t);
}

/* A merge that would make a control token does not apply. */
static void test_no_control_by_merging(void **state) {
  (void)state;
  static const small_token extra[] = {{"</", NORMAL}, {"/s", NORMAL}, {"zz", CONTROL}, {NULL, 0}};
  static const char *const zz[] = {"z z", "< /", NULL};
  static const char *const pres[] = {"gpt-2", "llama-bpe"};
  for (size_t i = 0; i < COUNT(pres); i++) {
    ist_tokenizer *t =
        small_vocab_open(&(small_vocab){.pre = pres[i], .extra = extra, .merges = zz});
    CHECK_IDS(t, "zz", false, 'z', 'z');
    CHECK_IDS(t, "zz", true, 258);
    CHECK_IDS(t, "</", false, 256);
    ist_tokenizer_free(t);
  }
}

static void test_decode(void **state) {
  (void)state;
  ist_tokenizer *t = small_vocab_open(&vocab);
  const int32_t ids[] = {257, 262, 259, 258, 263, 264};
  ist_buf out = {0};
  ist_error err = {0};
  assert_int_equal(ist_tokenizer_decode(t, ids, 6, true, &out, &err), IST_OK);
  assert_string_equal(out.p, "<|im_start|>the<u><|im_end|> the<unk>");
  ist_buf_clear(&out);
  assert_int_equal(ist_tokenizer_decode(t, ids, 6, false, &out, &err), IST_OK);
  assert_string_equal(out.p, "the<u> the");
  const int32_t bad[] = {262, 266};
  assert_int_equal(ist_tokenizer_decode(t, bad, 2, true, &out, &err), IST_ERR_DATA);
  assert_non_null(strstr(err.message, "266"));
  const int32_t negative = -1;
  assert_int_equal(ist_tokenizer_decode(t, &negative, 1, true, &out, &err), IST_ERR_DATA);
  ist_buf_free(&out);
  ist_tokenizer_free(t);
}

static void test_round_trip(void **state) {
  (void)state;
  static const char *const pres[] = {"gpt-2", "llama-bpe", "qwen2", "smollm"};
  ist_rng rng = ist_rng_stream(11, IST_RNG_TEST, 0, 0, 0);
  ist_ids ids = {0};
  ist_buf back = {0};
  ist_error err = {0};
  for (size_t p = 0; p < COUNT(pres); p++) {
    small_vocab v = vocab;
    v.pre = pres[p];
    ist_tokenizer *t = small_vocab_open(&v);
    for (int k = 0; k < 1500; k++) {
      char text[200];
      size_t len = ist_rng_below(&rng, sizeof text);
      for (size_t i = 0; i < len; i++)
        text[i] =
            k % 3 ? (char)ist_rng_below(&rng, 256) : " the\n\xc3\xa9<u>"[ist_rng_below(&rng, 10)];
      ids.n = 0;
      ist_buf_clear(&back);
      assert_int_equal(ist_tokenizer_encode(t, text, len, k & 1, &ids, &err), IST_OK);
      assert_int_equal(ist_tokenizer_decode(t, ids.p, ids.n, true, &back, &err), IST_OK);
      assert_int_equal(back.len, len);
      if (len) assert_memory_equal(back.p, text, len);
    }
    ist_tokenizer_free(t);
  }
  ist_ids_free(&ids);
  ist_buf_free(&back);
}

static void test_appends(void **state) {
  (void)state;
  ist_tokenizer *t = small_vocab_open(&vocab);
  ist_ids ids = {0};
  ist_error err = {0};
  assert_int_equal(ist_ids_add(&ids, 42, &err), IST_OK);
  assert_int_equal(ist_tokenizer_encode(t, "the", 3, false, &ids, &err), IST_OK);
  assert_int_equal(ist_tokenizer_encode(t, NULL, 0, false, &ids, &err), IST_OK);
  assert_int_equal(ids.n, 2);
  assert_int_equal(ids.p[0], 42);
  ist_ids_free(&ids);
  ist_tokenizer_free(t);
}

static void test_facts(void **state) {
  (void)state;
  ist_tokenizer *t = small_vocab_open(&vocab);
  assert_int_equal(ist_tokenizer_size(t), 266);
  assert_int_equal(ist_tokenizer_find(t, "<|im_start|>"), 257);
  assert_int_equal(ist_tokenizer_find(t, "<u>"), 259);
  assert_int_equal(ist_tokenizer_find(t, "the"), -1); /* not special */
  assert_int_equal(ist_tokenizer_find(t, ""), -1);
  assert_int_equal(ist_tokenizer_bos(t), 256);
  assert_int_equal(ist_tokenizer_eos(t), 256);
  assert_false(ist_tokenizer_add_bos(t));
  assert_false(ist_tokenizer_add_eos(t));
  assert_true(ist_tokenizer_is_eog(t, 256));
  assert_true(ist_tokenizer_is_eog(t, 258)); /* by its spelling */
  assert_false(ist_tokenizer_is_eog(t, 257));
  assert_false(ist_tokenizer_is_eog(t, -1));
  assert_false(ist_tokenizer_is_eog(t, 266));
  assert_true(ist_tokenizer_is_control(t, 257));
  assert_false(ist_tokenizer_is_control(t, 259));
  assert_string_equal(ist_tokenizer_pre(t), "gpt-2");
  assert_string_equal(ist_tokenizer_chat_template(t), "{{ messages }}");
  assert_true(ist_tokenizer_bytes(t) > 266 * 16);
  ist_tokenizer_free(t);

  small_vocab llama = vocab;
  llama.pre = "llama-bpe";
  llama.chat_template = NULL;
  t = small_vocab_open(&llama);
  assert_true(ist_tokenizer_add_bos(t)); /* the rule's default */
  assert_null(ist_tokenizer_chat_template(t));
  ist_tokenizer_free(t);

  llama.bos = llama.eos = NULL;
  t = small_vocab_open(&llama);
  assert_int_equal(ist_tokenizer_bos(t), -1);
  assert_int_equal(ist_tokenizer_eos(t), -1);
  assert_false(ist_tokenizer_add_bos(t));
  ist_tokenizer_free(t);
}

static void test_end_of_generation(void **state) {
  (void)state;
  static const small_token calls[] = {{"<|end|>", CONTROL},
                                      {"<|call|>", CONTROL},
                                      {"<|return|>", CONTROL},
                                      {"</s>", USER},
                                      {"<|tool_response|>", CONTROL},
                                      {"<|repo_name|>", NORMAL},
                                      {NULL, 0}};
  ist_tokenizer *t = small_vocab_open(&(small_vocab){.pre = "gpt-2", .extra = calls});
  static const bool expected[] = {false, true, true, false, true, true};
  for (int i = 0; i < 6; i++) assert_int_equal(ist_tokenizer_is_eog(t, 256 + i), expected[i]);
  assert_true(ist_tokenizer_is_control(t, 261)); /* became one by its spelling */
  CHECK_IDS(t, "<|repo_name|>", true, 261);
  ist_tokenizer_free(t);

  static const small_token plain[] = {
      {"<|end|>", CONTROL}, {"</s>", CONTROL}, {"<|call|>", CONTROL}, {NULL, 0}};
  t = small_vocab_open(&(small_vocab){.pre = "gpt-2", .extra = plain});
  for (int i = 0; i < 3; i++) assert_true(ist_tokenizer_is_eog(t, 256 + i));
  ist_tokenizer_free(t);
}

/* A vocabulary without types has no special tokens but those known by spelling. */
static void test_without_types(void **state) {
  (void)state;
  small_vocab v = vocab;
  v.without = "token_type";
  ist_tokenizer *t = small_vocab_open(&v);
  assert_int_equal(ist_tokenizer_find(t, "<u>"), -1);
  assert_int_equal(ist_tokenizer_find(t, "<|im_end|>"), 258);
  ist_tokenizer_free(t);
}

static void check_bad(const small_vocab *v, ist_status code, const char *says,
                      const char *and_says) {
  ist_tokenizer *t = NULL;
  ist_error err = {0};
  ist_status status = small_vocab_try(&t, v, &err);
  if (status != code || t || !strstr(err.message, says) || !strstr(err.message, and_says))
    fail_msg("expected '%s' and '%s', got %d: %s", says, and_says, (int)status, err.message);
  assert_non_null(strstr(err.message, "ist-test-vocab")); /* the file is named */
}

static void test_bad_files(void **state) {
  (void)state;
  small_vocab v = vocab;
  v.pre = "unheard-of";
  check_bad(&v, IST_ERR_UNSUPPORTED, "tokenizer.ggml.pre", "'unheard-of'");
  v = vocab;
  v.model = "bert";
  check_bad(&v, IST_ERR_UNSUPPORTED, "tokenizer.ggml.model", "'bert'");
  v.model = "llama";
  check_bad(&v, IST_ERR_FORMAT, "tokenizer.ggml.scores", "no key");
  v = vocab;
  v.without = "tokens";
  check_bad(&v, IST_ERR_FORMAT, "tokenizer.ggml.tokens", "");
  v.without = "merges";
  check_bad(&v, IST_ERR_FORMAT, "tokenizer.ggml.merges", "");
  v = vocab;
  v.short_types = 1;
  check_bad(&v, IST_ERR_FORMAT, "token_type", "266");
  static const small_token twice[] = {{"xy", NORMAL}, {"xy", NORMAL}, {NULL, 0}};
  check_bad(&(small_vocab){.pre = "gpt-2", .extra = twice}, IST_ERR_FORMAT, "256 and 257", "'xy'");
  static const char *const bad_merge[] = {"a b", "ab", " x", "x ", "t q", "q th", "a b", "t  h"};
  static const small_token ab[] = {{"ab", NORMAL}, {"th", NORMAL}, {NULL, 0}};
  for (size_t i = 1; i < COUNT(bad_merge); i++) {
    const char *const list[] = {"a b", bad_merge[i], NULL};
    char merge[16];
    snprintf(merge, sizeof merge, "'%s'", bad_merge[i]);
    check_bad(&(small_vocab){.pre = "gpt-2", .extra = ab, .merges = list}, IST_ERR_FORMAT,
              "merges[1]", merge);
  }
}

/* Whatever allocation fails, the error is "out of memory" and nothing leaks
 * (which the sanitizer's run of this test sees). */
static void test_out_of_memory(void **state) {
  (void)state;
  ist_gguf *g = small_vocab_gguf(&vocab);
  ist_tokenizer *t = NULL;
  ist_error err = {0};
  int failures = 0;
  for (uint64_t n = 1;; n++) {
    ist_alloc_fail_at(n);
    ist_status status = ist_tokenizer_from_gguf(&t, g, &err);
    ist_alloc_fail_at(0);
    if (status == IST_OK) break;
    assert_int_equal(status, IST_ERR_NOMEM);
    assert_null(t);
    failures++;
  }
  assert_true(failures > 10);
  ist_gguf_close(g);
  const char *text = "the theme <u><u> \xff zzz<|im_end|>";
  ist_ids ids = {0};
  for (uint64_t n = 1;; n++) {
    ist_ids_free(&ids);
    ist_alloc_fail_at(n);
    ist_status status = ist_tokenizer_encode(t, text, strlen(text), true, &ids, &err);
    ist_alloc_fail_at(0);
    if (status == IST_OK) break;
    assert_int_equal(status, IST_ERR_NOMEM);
    assert_int_equal(ids.n, 0);
  }
  ist_ids_free(&ids);
  ist_tokenizer_free(t);
}

typedef struct shared {
  const ist_tokenizer *t;
  int wrong[64];
} shared;

static void encode_many(void *arg, int64_t begin, int64_t end, int thread) {
  shared *s = arg;
  (void)thread;
  for (int64_t i = begin; i < end; i++) {
    ist_ids ids = {0};
    for (int k = 0; k < 50; k++) {
      ids.n = 0;
      if (ist_tokenizer_encode(s->t, "the the<u>x", 11, false, &ids, NULL) != IST_OK ||
          ids.n != 4 || ids.p[1] != 263 || ids.p[2] != 259)
        s->wrong[i]++;
    }
    ist_ids_free(&ids);
  }
}

static void test_threads(void **state) {
  (void)state;
  shared s = {.t = small_vocab_open(&vocab)};
  ist_parallel_for_dynamic(64, 1, encode_many, &s);
  for (int i = 0; i < 64; i++) assert_int_equal(s.wrong[i], 0);
  ist_tokenizer_free((ist_tokenizer *)(uintptr_t)s.t);
}

/* The real model, where it is at hand: ids as llama.cpp gives them. */
static void test_real_model(void **state) {
  (void)state;
  const char *path = getenv("IST_TEST_MODEL");
  ist_error err = {0};
  ist_gguf *g = NULL;
  if (!path || access(path, R_OK) != 0) skip();
  assert_int_equal(ist_gguf_open(&g, path, &err), IST_OK);
  ist_tokenizer *t = NULL;
  assert_int_equal(ist_tokenizer_from_gguf(&t, g, &err), IST_OK);
  ist_gguf_close(g);
  CHECK_IDS(t, "The capital of France is", false, 504, 3575, 282, 4649, 314);
  CHECK_IDS(t, "<|im_start|>user\nhi<|im_end|>", true, 1, 4093, 198, 6004, 2);
  CHECK_IDS(t,
            "a\x04"
            "b",
            false, 81, 82); /* it has no token for byte 4 */
  for (int32_t i = 0; i < 49152; i++)
    assert_int_equal(ist_tokenizer_is_eog(t, i), i == 0 || i == 2 || i == 4);
  ist_tokenizer_free(t);
}

/* llama.cpp's rule for Phi-3, whose GGUF has lost it: control tokens take the white space behind
 * them, but for three. */
static void test_phi3(void **state) {
  (void)state;
  enum { N = 8 };
  static const char *const spelled[N] = {"<unk>", "<s>", "<|endoftext|>", "<|user|>", "<0x0A>", "▁",
                                         "h",     "i"};
  static const int32_t types[N] = {UNKNOWN, CONTROL, CONTROL, CONTROL, 6, NORMAL, NORMAL, NORMAL};
  static const float scores[N] = {0};
  static const struct {
    const char *name, *ids;
  } rows[] = {{"Phi-3 mini", "35672556715567"},
              {"My PHI3", "35672556715567"},
              {"Llama", "354672556715567"},
              {NULL, "354672556715567"}};
  ist_str texts[N];
  for (int i = 0; i < N; i++) texts[i] = (ist_str){spelled[i], strlen(spelled[i])};
  for (size_t k = 0; k < sizeof rows / sizeof rows[0]; k++) {
    ist_error err = {0};
    ist_gguf *g = NULL;
    ist_tokenizer *t = NULL;
    ist_ids ids = {0};
    char path[64];
    snprintf(path, sizeof path, "/tmp/ist-test-phi3-%ld.gguf", (long)getpid());
    static const char text[] = "<|user|>\nhi<|endoftext|> hi<s> hi";
    ist_gguf_writer *w = ist_gguf_writer_new();
    if (rows[k].name) ist_gguf_put_str(w, "general.name", rows[k].name, strlen(rows[k].name));
    ist_gguf_put_str(w, "tokenizer.ggml.model", "llama", 5);
    ist_gguf_put_strs(w, "tokenizer.ggml.tokens", texts, N);
    ist_gguf_put_f32s(w, "tokenizer.ggml.scores", scores, N);
    ist_gguf_put_i32s(w, "tokenizer.ggml.token_type", types, N);
    assert_int_equal(ist_gguf_write(w, path, &err), IST_OK);
    ist_gguf_writer_free(w);
    assert_int_equal(ist_gguf_open(&g, path, &err), IST_OK);
    unlink(path);
    if (ist_tokenizer_from_gguf(&t, g, &err) != IST_OK) fail_msg("%s", err.message);
    ist_gguf_close(g);
    assert_int_equal(ist_tokenizer_encode(t, text, sizeof text - 1, true, &ids, &err), IST_OK);
    bool same = ids.n == (int64_t)strlen(rows[k].ids);
    for (int64_t i = 0; same && i < ids.n; i++) same = ids.p[i] == rows[k].ids[i] - '0';
    if (!same) fail_msg("%s: other ids than %s", rows[k].name, rows[k].ids);
    ist_ids_free(&ids);
    ist_tokenizer_free(t);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_special),
      cmocka_unit_test(test_phi3),
      cmocka_unit_test(test_no_injection),
      cmocka_unit_test(test_no_control_by_merging),
      cmocka_unit_test(test_decode),
      cmocka_unit_test(test_round_trip),
      cmocka_unit_test(test_appends),
      cmocka_unit_test(test_facts),
      cmocka_unit_test(test_end_of_generation),
      cmocka_unit_test(test_without_types),
      cmocka_unit_test(test_bad_files),
      cmocka_unit_test(test_out_of_memory),
      cmocka_unit_test(test_threads),
      cmocka_unit_test(test_real_model),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
