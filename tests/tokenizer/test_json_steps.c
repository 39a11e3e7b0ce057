/* The steps of tokenizer.json one by one: normalizers, pre-tokenizers, decoders, added tokens.
 * What is expected is what HF tokenizers 0.23.3 makes of the same JSON (normalize_str,
 * pre_tokenize_str, decode, encode); the rows for bytes that are no UTF-8, which it does not take,
 * are our own. In the JSON ' stands for ". */
#include "tokenizer/pieces.h"
#include "tokenizer/small_vocab.h"

#include <sys/stat.h>

#include "base/file.h"
#include "base/rng.h"
#include "tokenizer/internal.h"

static char folder[] = "/tmp/ist-test-steps-XXXXXX";

static int make_folder(void **state) {
  (void)state;
  return mkdtemp(folder) ? 0 : -1;
}
static int remove_folder(void **state) {
  (void)state;
  return ist_remove_tree(folder, NULL) == IST_OK ? 0 : -1;
}

static ist_status try_json(ist_tokenizer **out, const ist_buf *json, ist_error *err) {
  for (size_t i = 0; i < json->len; i++)
    if (json->p[i] == '\'') json->p[i] = '"';
  char *path = ist_path_join(folder, "tokenizer.json");
  assert_int_equal(ist_file_write(path, json->p, json->len, NULL), IST_OK);
  ist_free(path);
  return ist_tokenizer_open_json(out, folder, err);
}

/* A tokenizer of some tokens without merges, ids as they stand, and more keys. */
static ist_tokenizer *open_with(const char *const *tokens, const char *keys) {
  ist_buf json = {0};
  ist_error err = {0};
  ist_tokenizer *t = NULL;
  ist_buf_str(&json, "{'model':{'type':'BPE','vocab':{");
  for (int i = 0; tokens[i]; i++) ist_buf_printf(&json, "%s'%s':%d", i ? "," : "", tokens[i], i);
  ist_buf_printf(&json, "},'merges':[]}%s}", keys);
  if (try_json(&t, &json, &err) != IST_OK) fail_msg("%s: %s", keys, err.message);
  ist_buf_free(&json);
  return t;
}

static ist_tokenizer *open_step(const char *name, const char *step) {
  static const char *const tokens[] = {"a", "b", NULL};
  char keys[1024];
  snprintf(keys, sizeof keys, ",'%s':%s", name, step);
  return open_with(tokens, keys);
}

static void expect_text(const char *step, const char *text, const ist_buf *got, const char *want) {
  if (got->len != strlen(want) || (got->len && memcmp(got->p, want, got->len) != 0))
    fail_msg("%s: '%s' gives '%s', expected '%s'", step, text, got->p ? got->p : "", want);
}

/* ---- Normalizers ---- */

static const struct {
  const char *step, *text, *want;
} norms[] = {
    {"{'type':'NFC'}", "e\xcc\x81 ﬁ Å q\xcc\xa3\xcc\x87 q\xcc\x87\xcc\xa3",
     "é ﬁ Å q\xcc\xa3\xcc\x87 q\xcc\xa3\xcc\x87"},
    {"{'type':'NFD'}", "é ﬁ Å q\xcc\x87\xcc\xa3 각",
     "e\xcc\x81 ﬁ A\xcc\x8a q\xcc\xa3\xcc\x87 각"},
    {"{'type':'NFKC'}", "e\xcc\x81ﬁ①ｱﾞ㎏", "éfi1ア゙kg"},
    {"{'type':'NFKD'}", "éﬁ①½각",
     "e\xcc\x81"
     "fi11\xe2\x81\x84"
     "2각"},
    {"{'type':'Lowercase'}", "İSTANBUL ÀÉ ΣΑΣ ẞ Ǆ", "i\xcc\x87stanbul àé σασ ß ǆ"},
    {"{'type':'Strip','strip_left':true,'strip_right':true}", " \t\n a b \r\x0b\x0c", "a b"},
    {"{'type':'Strip','strip_left':true,'strip_right':false}", "  a  ", "a  "},
    {"{'type':'Strip','strip_left':false,'strip_right':true}", "  a  ", "  a"},
    {"{'type':'Strip','strip_left':true,'strip_right':true}",
     "\xc2\xa0\xe3\x80\x80\xc2\x85"
     "a\xe2\x80\x83\xe2\x80\xa8",
     "a"},
    {"{'type':'Strip','strip_left':true,'strip_right':true}", "  \n ", ""},
    {"{'type':'Prepend','prepend':'▁'}", "a", "▁a"},
    {"{'type':'Prepend','prepend':'▁'}", "▁a", "▁▁a"},
    {"{'type':'Replace','pattern':{'String':' '},'content':'▁'}", " a  b ", "▁a▁▁b▁"},
    {"{'type':'Replace','pattern':{'String':'aba'},'content':'X'}", "ababaab", "Xbaab"},
    {"{'type':'Replace','pattern':{'String':'a.c'},'content':''}", "abc a.c", "abc "},
    {"{'type':'Replace','pattern':{'Regex':'\\\\s+'},'content':' '}",
     "a \n\t b\xc2\xa0"
     "c",
     "a b c"},
    {"{'type':'Replace','pattern':{'Regex':'^'},'content':'>'}", "ab\ncd\n", ">ab\n>cd\n"},
    {"{'type':'Replace','pattern':{'Regex':'$|b'},'content':'<'}", "ab\né", "a<\né<"},
    {"{'type':'Replace','pattern':{'Regex':'(l)(l)'},'content':'$2\\\\1'}", "hello", "he$2\\1o"},
    {"{'type':'Sequence','normalizers':[{'type':'NFD'},{'type':'Sequence','normalizers':[{'type':'"
     "Replace','pattern':{'Regex':'\\\\p{Mn}'},'content':''},{'type':'Lowercase'}]},{'type':'"
     "Prepend','prepend':'_'}]}",
     "Éa", "_ea"},
    /* Bytes that are no characters stay. */
    {"{'type':'NFC'}",
     "e\xcc\x81\xff"
     "e\xcc\x81",
     "\xc3\xa9\xff\xc3\xa9"},
    {"{'type':'Lowercase'}",
     "A\xff\xc3"
     "B",
     "a\xff\xc3"
     "b"},
    {"{'type':'Strip','strip_left':true,'strip_right':true}", " \xff ", "\xff"},
    {"{'type':'Strip','strip_left':true,'strip_right':true}", " a \x80", "a \x80"},
    {"{'type':'Replace','pattern':{'Regex':'a+'},'content':'x'}", "aa\xff", "aa\xff"},
};

static void test_normalizers(void **state) {
  (void)state;
  for (size_t k = 0; k < sizeof norms / sizeof norms[0]; k++) {
    ist_tokenizer *t = open_step("normalizer", norms[k].step);
    ist_buf text = {0}, spare = {0};
    ist_growth growth = ist_growth_of(100);
    ist_buf_str(&text, norms[k].text);
    assert_int_equal(ist_norm_apply(&t->norm, &text, &spare, false, &growth, NULL), IST_OK);
    expect_text(norms[k].step, norms[k].text, &text, norms[k].want);
    ist_buf_free(&text);
    ist_buf_free(&spare);
    ist_tokenizer_free(t);
  }
}

/* A text that goes on where another ended gets nothing put before it. */
static void test_continued(void **state) {
  (void)state;
  ist_tokenizer *t = open_step("normalizer", "{'type':'Prepend','prepend':'b'}");
  ist_encode_query q = {.text = "a", .len = 1};
  for (int k = 0; k < 2; k++) {
    ist_ids ids = {0};
    q.continued = k == 1;
    assert_int_equal(ist_tokenizer_encode_query(t, &q, &ids, NULL), IST_OK);
    assert_int_equal(ids.n, 2 - k);
    assert_int_equal(ids.p[0], 1 - k);
    ist_ids_free(&ids);
  }
  ist_tokenizer_free(t);
}

/* ---- Pre-tokenizers ---- */

#define SPLIT(pattern, behavior, invert) \
  "{'type':'Split','pattern':{" pattern "},'behavior':'" behavior "','invert':" invert "}"

/* The pieces with | between them, or with ~~ where the text has |. Behind ByteLevel they stand
 * as bytes. */
static const struct {
  const char *step, *text, *want;
} pres[] = {
    {SPLIT("'String':'-'", "Isolated", "false"), "the-final--countdown-",
     "the|-|final|-|-|countdown|-"},
    {SPLIT("'String':'-'", "Isolated", "false"), "--a", "-|-|a"},
    {SPLIT("'String':'-'", "Removed", "false"), "the-final--countdown-", "the|final|countdown"},
    {SPLIT("'String':'-'", "Removed", "false"), "--a", "a"},
    {SPLIT("'String':'-'", "MergedWithPrevious", "false"), "the-final--countdown-",
     "the-|final-|-|countdown-"},
    {SPLIT("'String':'-'", "MergedWithPrevious", "false"), "--a", "-|-|a"},
    {SPLIT("'String':'-'", "MergedWithNext", "false"), "the-final--countdown-",
     "the|-final|-|-countdown|-"},
    {SPLIT("'String':'-'", "MergedWithNext", "false"), "--a", "-|-a"},
    {SPLIT("'String':'-'", "Contiguous", "false"), "the-final--countdown-",
     "the|-|final|--|countdown|-"},
    {SPLIT("'String':'-'", "Contiguous", "false"), "--a", "--|a"},
    {SPLIT("'Regex':'\\\\w+'", "Isolated", "true"), "ab, cd!! e", "ab|, |cd|!! |e"},
    {SPLIT("'Regex':'\\\\w+'", "Removed", "true"), "ab, cd!! e", "ab|cd|e"},
    {SPLIT("'Regex':'\\\\w+'", "Contiguous", "true"), "ab, cd!! e", "ab|, |cd|!! |e"},
    {"{'type':'Split','pattern':{'String':'.'},'behavior':'Isolated','invert':false}", "a.b..c",
     "a|.|b|.|.|c"},
    {"{'type':'Split','pattern':{'String':'.'},'behavior':'Removed','invert':false}", "a.b..c",
     "a|b|c"},
    {"{'type':'Split','pattern':{'Regex':'[^\\\\r\\\\n]{2}'},'behavior':'Isolated','invert':false}",
     "abcde\nfg", "ab|cd|e\n|fg"},
    {"{'type':'Split','pattern':{'Regex':'[a[bc]]+'},'behavior':'Isolated','invert':false}",
     "abcd-ca", "abc|d-|ca"},
    {"{'type':'Split','pattern':{'Regex':'[[:digit:]x]+'},'behavior':'Isolated','invert':false}",
     "12x-y3", "12x|-y|3"},
    {"{'type':'Split','pattern':{'Regex':'\\\\h+'},'behavior':'Isolated','invert':false}",
     "09afG-0", "09af|G-|0"},
    {"{'type':'Split','pattern':{'Regex':'a{,2}b'},'behavior':'Isolated','invert':false}", "aaab-b",
     "a|aab|-|b"},
    {"{'type':'Split','pattern':{'Regex':'[\\\\h-]+'},'behavior':'Isolated','invert':false}",
     "0-9zA-", "0-9|z|A-"},
    {"{'type':'Split','pattern':{'Regex':'\\\\S+'},'behavior':'Isolated','invert':false}",
     "a b\xc2\xa0"
     "c",
     "a| |b|\xc2\xa0|c"},
    {"{'type':'Split','pattern':{'Regex':'[]x]+'},'behavior':'Isolated','invert':false}", "a]x]b",
     "a|]x]|b"},
    {"{'type':'Split','pattern':{'Regex':'[^\\\\s\\\\p{L}]+'},'behavior':'Isolated','invert':"
     "false}",
     "a1! b2", "a|1!| b|2"},
    {"{'type':'Digits','individual_digits':true}", "a12 3٣½b²", "a|1|2| |3|٣|½|b|²"},
    {"{'type':'Digits','individual_digits':false}", "a12 3٣½b²", "a|12| |3٣½|b|²"},
    {"{'type':'Punctuation','behavior':'Isolated'}", "Hi! (a+b)=«c», x_y $5 \xe2\x80\xa6 ~`^|<>",
     "Hi~~!~~ ~~(~~a~~+~~b~~)~~=~~«~~c~~»~~,~~ x~~_~~y ~~$~~5 ~~\xe2\x80\xa6~~ ~~~~~`~~^~~|~~<~~>"},
    {"{'type':'Punctuation','behavior':'Removed'}", "Hi! (a+b)=«c», x_y $5 \xe2\x80\xa6 ~`^|<>",
     "Hi~~ ~~a~~b~~c~~ x~~y ~~5 ~~ "},
    {"{'type':'Punctuation','behavior':'MergedWithPrevious'}",
     "Hi! (a+b)=«c», x_y $5 \xe2\x80\xa6 ~`^|<>",
     "Hi!~~ (~~a+~~b)~~=~~«~~c»~~,~~ x_~~y $~~5 \xe2\x80\xa6~~ ~~~`~~^~~|~~<~~>"},
    {"{'type':'Punctuation','behavior':'MergedWithNext'}",
     "Hi! (a+b)=«c», x_y $5 \xe2\x80\xa6 ~`^|<>",
     "Hi~~! ~~(a~~+b~~)~~=~~«c~~»~~, x~~_y ~~$5 ~~\xe2\x80\xa6 ~~~~~`~~^~~|~~<~~>"},
    {"{'type':'Punctuation','behavior':'Contiguous'}", "Hi! (a+b)=«c», x_y $5 \xe2\x80\xa6 ~`^|<>",
     "Hi~~!~~ ~~(~~a~~+~~b~~)=«~~c~~»,~~ x~~_~~y ~~$~~5 ~~\xe2\x80\xa6~~ ~~~`^|<>"},
    {"{'type':'WhitespaceSplit'}",
     "  Hey friend!\tHow_are\n\nyou? é\xcc\x81x 5.7 a\xe2\x80\x8d"
     "b\xc2\xa0"
     "c",
     "Hey|friend!|How_are|you?|é\xcc\x81x|5.7|a\xe2\x80\x8d"
     "b|c"},
    {"{'type':'Whitespace'}",
     "  Hey friend!\tHow_are\n\nyou? é\xcc\x81x 5.7 a\xe2\x80\x8d"
     "b\xc2\xa0"
     "c",
     "Hey|friend|!|How_are|you|?|é\xcc\x81x|5|.|7|a\xe2\x80\x8d"
     "b|c"},
    {"{'type':'Whitespace'}", "Ⓐb ²c \xf0\x9f\x85\xb0!", "Ⓐb|²|c|\xf0\x9f\x85\xb0|!"},
    {"{'type':'Metaspace','replacement':'▁','prepend_scheme':'always','split':true}",
     "Hey  my friend", "▁Hey|▁|▁my|▁friend"},
    {"{'type':'Metaspace','replacement':'▁','prepend_scheme':'always','split':false}",
     "Hey  my friend", "▁Hey▁▁my▁friend"},
    {"{'type':'Metaspace','replacement':'▁','prepend_scheme':'always','split':true}", " a b ",
     "▁a|▁b|▁"},
    {"{'type':'Metaspace','replacement':'▁','prepend_scheme':'first','split':true}",
     "Hey  my friend", "▁Hey|▁|▁my|▁friend"},
    {"{'type':'Metaspace','replacement':'▁','prepend_scheme':'first','split':false}",
     "Hey  my friend", "▁Hey▁▁my▁friend"},
    {"{'type':'Metaspace','replacement':'▁','prepend_scheme':'first','split':true}", " a b ",
     "▁a|▁b|▁"},
    {"{'type':'Metaspace','replacement':'▁','prepend_scheme':'never','split':true}",
     "Hey  my friend", "Hey|▁|▁my|▁friend"},
    {"{'type':'Metaspace','replacement':'▁','prepend_scheme':'never','split':false}",
     "Hey  my friend", "Hey▁▁my▁friend"},
    {"{'type':'Metaspace','replacement':'▁','prepend_scheme':'never','split':true}", " a b ",
     "▁a|▁b|▁"},
    {"{'type':'Metaspace','replacement':'_','prepend_scheme':'always','split':true}", "a b_c",
     "_a|_b|_c"},
    {"{'type':'Sequence','pretokenizers':[{'type':'Split','pattern':{'String':'-'},'behavior':'"
     "Isolated','invert':false},{'type':'Metaspace','replacement':'▁','prepend_scheme':'first','"
     "split':true}]}",
     "a-b c", "▁a|-|b|▁c"},
    {"{'type':'Sequence','pretokenizers':[{'type':'Split','pattern':{'String':'-'},'behavior':'"
     "Isolated','invert':false},{'type':'Metaspace','replacement':'▁','prepend_scheme':'always','"
     "split':true}]}",
     "a-b c", "▁a|▁-|▁b|▁c"},
    {"{'type':'ByteLevel','add_prefix_space':true,'trim_offsets':true,'use_regex':true}",
     "Hello there, it's 42°\n\n x", " Hello| there|,| it|'s| 42|°|\n\n| x"},
    {"{'type':'ByteLevel','add_prefix_space':true,'trim_offsets':true,'use_regex':false}",
     "Hello there, it's 42°\n\n x", " Hello there, it's 42°\n\n x"},
    {"{'type':'ByteLevel','add_prefix_space':false,'trim_offsets':true,'use_regex':true}",
     "Hello there, it's 42°\n\n x", "Hello| there|,| it|'s| 42|°|\n\n| x"},
    {"{'type':'ByteLevel','add_prefix_space':false,'trim_offsets':true,'use_regex':false}",
     "Hello there, it's 42°\n\n x", "Hello there, it's 42°\n\n x"},
    {"{'type':'ByteLevel','add_prefix_space':true,'trim_offsets':true,'use_regex':true}", " a b",
     " a| b"},
    {"{'type':'Sequence','pretokenizers':[{'type':'Digits','individual_digits':true},{'type':'"
     "ByteLevel','add_prefix_space':false,'trim_offsets':true,'use_regex':true}]}",
     "in 1987 it", "in| |1|9|8|7| it"},
    {"{'type':'Sequence','pretokenizers':[{'type':'Digits','individual_digits':true},{'type':'"
     "ByteLevel','add_prefix_space':true,'trim_offsets':true,'use_regex':false}]}",
     "a1b", " a| 1| b"},
    {"{'type':'Sequence','pretokenizers':[{'type':'ByteLevel','add_prefix_space':false,'trim_"
     "offsets':true,'use_regex':false},{'type':'Split','pattern':{'String':'Ġ'},'behavior':'"
     "MergedWithNext','invert':false}]}",
     "a b  é c", "a| b| | é| c"},
    {"{'type':'Sequence','pretokenizers':[{'type':'ByteLevel','add_prefix_space':false,'trim_"
     "offsets':true,'use_regex':true},{'type':'Digits','individual_digits':false}]}",
     "é²3 45",
     "\xc3"
     "\xa9"
     "|\xc2"
     "|\xb2"
     "3| |45"},
    {"{'type':'Sequence','pretokenizers':[{'type':'WhitespaceSplit'},{'type':'Punctuation','"
     "behavior':'Isolated'}]}",
     "a, b.c", "a|,|b|.|c"},
    /* Metaspace of older files. */
    {"{'type':'Metaspace','replacement':'_','add_prefix_space':false}", "a b", "a|_b"},
    {"{'type':'Metaspace','replacement':'_','add_prefix_space':true}", "a b", "_a|_b"},
};

static void test_pre_tokenizers(void **state) {
  (void)state;
  for (size_t k = 0; k < sizeof pres / sizeof pres[0]; k++) {
    const char *text = pres[k].text, *between = strchr(text, '|') ? "~~" : "|";
    ist_tokenizer *t = open_step("pre_tokenizer", pres[k].step);
    ist_buf out = join_pieces(&t->pre, text, between);
    expect_text(pres[k].step, text, &out, pres[k].want);
    ist_buf_free(&out);
    ist_tokenizer_free(t);
  }
}

/* ---- Decoders ---- */

#define LLAMA_DECODER                                                                     \
  "{'type':'Sequence','decoders':[{'type':'Replace','pattern':{'String':'▁'},"          \
  "'content':' '},{'type':'ByteFallback'},{'type':'Fuse'},{'type':'Strip','content':' '," \
  "'start':1,'stop':0}]}"

static const char *const spelled[] = {"▁a", "b",    "▁",   "c▁d", "<0xE2>", "<0x96>", "<0x81>",
                                      " ",  "  e ", "f▁▁", "__",  "<0x41>", NULL};
static const struct {
  const char *step;
  int32_t ids[8]; /* up to -1 */
  const char *want;
} decs[] = {
    {NULL, {0, 1, 3, 2, 9, -1}, "▁a b c▁d ▁ f▁▁"},
    {"{'type':'Metaspace','replacement':'▁','prepend_scheme':'always','split':true}",
     {0, 1, 3, 2, 9, -1},
     "abc d f  "},
    {"{'type':'Metaspace','replacement':'▁','prepend_scheme':'first','split':true}",
     {0, 1, 3, 2, 9, -1},
     "abc d f  "},
    {"{'type':'Metaspace','replacement':'▁','prepend_scheme':'never','split':true}",
     {0, 1, 3, 2, 9, -1},
     " abc d f  "},
    {"{'type':'Metaspace','replacement':'▁','prepend_scheme':'always','split':true}",
     {2, 0, 1, -1},
     " ab"},
    {"{'type':'Metaspace','replacement':'▁','prepend_scheme':'always','split':true}",
     {1, 0, -1},
     "b a"},
    {"{'type':'Metaspace','replacement':'_','prepend_scheme':'always','split':true}",
     {10, 1, 10, -1},
     "b  "},
    {"{'type':'Replace','pattern':{'String':'▁'},'content':' '}",
     {0, 1, 3, 2, 9, -1},
     " abc d f  "},
    {"{'type':'Replace','pattern':{'String':'▁'},'content':''}", {0, 1, 3, 2, 9, -1}, "abcdf"},
    {"{'type':'Fuse'}", {0, 1, 3, 2, 9, -1}, "▁abc▁d▁f▁▁"},
    {"{'type':'Sequence','decoders':[{'type':'Replace','pattern':{'String':'▁'},'content':' "
     "'},{'type':'Fuse'}]}",
     {0, 1, 3, 2, 9, -1},
     " abc d f  "},
    {"{'type':'ByteFallback'}", {4, 5, 6, 1, 11, -1}, "▁bA"},
    {"{'type':'ByteFallback'},'added_tokens':[{'id':11,'content':'<0x41>','special':true}]",
     {1, 11, -1},
     "bA"},
    {LLAMA_DECODER, {0, 1, 3, 2, 9, -1}, "abc d f  "},
    {LLAMA_DECODER, {2, 2, 1, -1}, " b"},
    {LLAMA_DECODER, {4, 5, 6, 1, -1}, "▁b"},
    {LLAMA_DECODER, {1, 11, -1}, "bA"},
    {"{'type':'Sequence','decoders':[{'type':'Fuse'},{'type':'Strip','content':' "
     "','start':1,'stop':1}]}",
     {8, 8, -1},
     " e   e"},
    {"{'type':'Sequence','decoders':[{'type':'Fuse'},{'type':'Strip','content':' "
     "','start':3,'stop':2}]}",
     {8, 8, -1},
     "e   e"},
    /* Without Fuse before it, of every token; bytes side by side are one. */
    {"{'type':'Strip','content':' ','start':1,'stop':0}", {8, 1, 7, 8, -1}, " e b e "},
    {"{'type':'Sequence','decoders':[{'type':'Replace','pattern':{'String':'▁'},'content':' '},"
     "{'type':'Strip','content':' ','start':1,'stop':0},{'type':'Fuse'}]}",
     {0, 1, 3, 0, 9, -1},
     "abc daf  "},
    {"{'type':'Sequence','decoders':[{'type':'ByteFallback'},{'type':'Strip','content':'A','start':"
     "1,'stop':0}]}",
     {11, 11, 1, 11, -1},
     "Ab"},
    {"{'type':'Sequence','decoders':[{'type':'ByteLevel'},{'type':'Strip','content':'_','start':1,"
     "'stop':1}]}",
     {10, 1, 10, -1},
     "_b_"},
    {"{'type':'Sequence','decoders':[{'type':'Fuse'},{'type':'Strip','content':'_','start':1,'stop'"
     ":0}]}",
     {10, 1, -1},
     "_b"},
};

static void test_decoders(void **state) {
  (void)state;
  for (size_t k = 0; k < sizeof decs / sizeof decs[0]; k++) {
    char keys[512] = "";
    if (decs[k].step) snprintf(keys, sizeof keys, ",'decoder':%s", decs[k].step);
    ist_tokenizer *t = open_with(spelled, keys);
    int64_t n = 0;
    while (decs[k].ids[n] >= 0) n++;
    ist_buf out = {0};
    ist_buf_str(&out, "before"); /* what is there already is left alone */
    assert_int_equal(ist_tokenizer_decode(t, decs[k].ids, n, true, &out, NULL), IST_OK);
    assert_memory_equal(out.p, "before", 6);
    memmove(out.p, out.p + 6, out.len - 5);
    out.len -= 6;
    expect_text(decs[k].step ? decs[k].step : "no decoder", decs[k].want, &out, decs[k].want);
    ist_buf_free(&out);
    ist_tokenizer_free(t);
  }
}

/* One token of a text keeps the space that the whole text loses. */
static void test_decode_piece(void **state) {
  (void)state;
  static const char *const steps[] = {
      LLAMA_DECODER, "{'type':'Metaspace','replacement':'▁','prepend_scheme':'always'}"};
  for (int k = 0; k < 2; k++) {
    char keys[512];
    snprintf(keys, sizeof keys, ",'decoder':%s", steps[k]);
    ist_tokenizer *t = open_with(spelled, keys);
    ist_buf out = {0};
    assert_int_equal(ist_tokenizer_decode_piece(t, 0, true, &out, NULL), IST_OK);
    assert_int_equal(ist_tokenizer_decode_piece(t, 3, true, &out, NULL), IST_OK);
    assert_string_equal(out.p, " ac d");
    ist_buf_free(&out);
    ist_tokenizer_free(t);
  }
}

/* ---- Added tokens ---- */

static const char *const characters[] = {"a",   "b", "c", "x", "y", "z", "_", "1", "é", ",", " ",
                                         "\\n", "▁", "!", "<", ">", "w", "t", "N", "n", NULL};

#define LLAMA_NORMALIZER                                                                \
  ",'normalizer':{'type':'Sequence','normalizers':[{'type':'Prepend','prepend':'▁'}," \
  "{'type':'Replace','pattern':{'String':' '},'content':'▁'}]}"

/* What a text becomes: characters, and {k} for the k-th added token. */
static const struct {
  const char *keys, *added, *text, *want;
} added[] = {
    {"", "[{'id':20,'content':'<t>','rstrip':true,'special':true}]", "a <t> \n b<t>,",
     "a {0}b{0},"},
    {"", "[{'id':20,'content':'<t>','lstrip':true,'special':true}]", "a \n<t> b", "a{0} b"},
    {"", "[{'id':20,'content':'<t>','lstrip':true,'rstrip':true,'special':true}]",
     " <t> <t>\xc2\xa0"
     "a",
     "{0}{0}a"},
    {"", "[{'id':20,'content':'<t>','rstrip':true,'special':false}]", "a <t> \n b<t>,",
     "a {0}b{0},"},
    {"", "[{'id':20,'content':'<t>','lstrip':true,'special':false}]", "a \n<t> b", "a{0} b"},
    {"", "[{'id':20,'content':'<t>','lstrip':true,'rstrip':true,'special':false}]",
     " <t> <t>\xc2\xa0"
     "a",
     "{0}{0}a"},
    {"", "[{'id':20,'content':'<t>','special':true}]", "a <t> b", "a {0} b"},
    {LLAMA_NORMALIZER, "[{'id':20,'content':'<t>','rstrip':true,'special':true}]", "<t>\n a b<t> a",
     "{0}▁a▁b{0}▁a"},
    {LLAMA_NORMALIZER, "[{'id':20,'content':'<t>','special':true}]", "a<t> b", "▁a{0}▁▁b"},
    {"", "[{'id':20,'content':'wt','single_word':true}]", "wt awt wt éwt wt1 wt_ wt, wt! wtwt wt",
     "{0} awt {0} éwt wt1 wt_ {0}, {0}! wtwt {0}"},
    {"", "[{'id':20,'content':'wt','single_word':true}]", "wtⒶ wt", "wt {0}"},
    {"", "[{'id':20,'content':'<t>','single_word':true,'special':true}]",
     "a<t> <t>b é<t> _<t> 1<t> ,<t>!<t>", "a<t> <t>b é<t> _<t> 1<t> ,{0}!{0}"},
    {"",
     "[{'id':20,'content':'<t>','single_word':true,'special':true,'lstrip':true,'rstrip':true}]",
     "a <t> b<t> <t>", "a{0}b<t>{0}"},
    {",'normalizer':{'type':'Lowercase'}", "[{'id':20,'content':'<N>','normalized':true}]",
     "<n><N>a", "{0}{0}a"},
    {",'normalizer':{'type':'Lowercase'}", "[{'id':20,'content':'<N>','normalized':false}]",
     "<n><N>a", "<n>{0}a"},
    {",'normalizer':{'type':'Lowercase'}",
     "[{'id':20,'content':'<N>','normalized':true},{'id':21,'content':'<n>','normalized':false}]",
     "<n><N>a", "{1}{0}a"},
    {"", "[{'id':20,'content':'<t>'},{'id':21,'content':'<t><t>'},{'id':22,'content':'t>'}]",
     "<t><t><t>t>>", "{1}{0}{2}>"},
    {"", "[{'id':20,'content':'ab','special':true},{'id':21,'content':'bcx','special':true}]",
     "abcx bcx", "{0}cx {1}"},
    {",'pre_tokenizer':{'type':'Metaspace','replacement':'▁','prepend_scheme':'first','split':"
     "true}",
     "[{'id':20,'content':'<t>','special':true}]", "a b<t>c x<t> y", "▁a▁b{0}c▁x{0}▁y"},
    {",'pre_tokenizer':{'type':'Metaspace','replacement':'▁','prepend_scheme':'always','split':"
     "true}",
     "[{'id':20,'content':'<t>','special':true}]", "a b<t>c x<t> y", "▁a▁b{0}▁c▁x{0}▁y"},
    {",'pre_tokenizer':{'type':'Metaspace','replacement':'▁','prepend_scheme':'never','split':"
     "true}",
     "[{'id':20,'content':'<t>','special':true}]", "a b<t>c x<t> y", "a▁b{0}c▁x{0}▁y"},
    {LLAMA_NORMALIZER, "[{'id':20,'content':'a b','normalized':true}]", "x a b", "▁x{0}"},
    {"", "[{'id':20,'content':'<t>','lstrip':true}]", "a \x80<t>", "a {0}"}, /* no token for 80 */
};

static void test_added_tokens(void **state) {
  (void)state;
  for (size_t k = 0; k < sizeof added / sizeof added[0]; k++) {
    char keys[1024];
    snprintf(keys, sizeof keys, "%s,'added_tokens':%s", added[k].keys, added[k].added);
    ist_tokenizer *t = open_with(characters, keys);
    ist_ids ids = {0};
    ist_buf out = {0};
    assert_int_equal(
        ist_tokenizer_encode(t, added[k].text, strlen(added[k].text), true, &ids, NULL), IST_OK);
    for (int64_t i = 0; i < ids.n; i++) {
      if (ids.p[i] >= 20)
        ist_buf_printf(&out, "{%d}", ids.p[i] - 20);
      else
        ist_buf_str(&out, ids.p[i] == 11 ? "\n" : characters[ids.p[i]]);
    }
    expect_text(keys, added[k].text, &out, added[k].want);
    ist_buf_free(&out);
    ist_ids_free(&ids);
    ist_tokenizer_free(t);
  }
}

/* Tokens of the model's vocabulary that are listed as added ones too: where they are not cut
 * out, single bytes and characters stand for themselves, and <0xNN> for its byte. */
#define BYTES     ",'pre_tokenizer':{'type':'ByteLevel','add_prefix_space':false,'use_regex':false}"
#define FALL_BACK "'unk_token':'<unk>','byte_fallback':true,"
static const struct {
  const char *model, *vocab, *keys, *added, *text;
  bool special;
  int32_t ids[8]; /* up to -1 */
} listed[] = {
    {"",
     "'a':0",
     "",
     "{'id':1,'content':'<|im_end|>','normalized':true}",
     "a<|im_end|>",
     true,
     {0, 1, -1}},
    {"",
     "'!':0,'Ġ':1,'a':2",
     BYTES,
     "{'id':0,'content':'!','special':true}",
     "a! !",
     false,
     {2, 0, 1, 0, -1}},
    {"",
     "'!':0,'Ġ':1,'a':2",
     BYTES,
     "{'id':1,'content':'Ġ','special':true}",
     "a !",
     true,
     {2, 1, 0, -1}},
    {"",
     "'a':0,'b':1",
     BYTES,
     "{'id':0,'content':'a','single_word':true}",
     "ab,a",
     true,
     {0, 1, 0, -1}},
    /* One that is only added stands for no byte (here E4), nor does one spelled as text is. */
    {"", "'¸':0,'Ģ':1", BYTES, "{'id':2,'content':'ä','single_word':true}", "一", true, {0, 1, -1}},
    {"",
     "'Ċ':0,'a':1",
     BYTES,
     "{'id':2,'content':'\\n','single_word':true}",
     "a\na",
     true,
     {1, 0, 1, -1}},
    {"'unk_token':'<unk>',",
     "'<unk>':0,'!':1,'é':2,'a':3",
     "",
     "{'id':1,'content':'!','special':true},{'id':2,'content':'é','special':true}",
     "a!é",
     false,
     {3, 1, 2, -1}},
    {FALL_BACK,
     "'<unk>':0,'<0xC3>':1,'<0xA9>':2,'a':3",
     "",
     "{'id':1,'content':'<0xC3>','special':true},{'id':2,'content':'<0xA9>','special':true}",
     "aé",
     false,
     {3, 1, 2, -1}},
    {FALL_BACK,
     "'<unk>':0,'<0xC3>':1,'a':2",
     "",
     "{'id':1,'content':'<0xC3>','special':true},{'id':3,'content':'<0xA9>','special':true}",
     "aé",
     false,
     {2, 0, -1}},
};

static void test_listed_tokens(void **state) {
  (void)state;
  for (size_t k = 0; k < sizeof listed / sizeof listed[0]; k++) {
    ist_buf json = {0};
    ist_error err = {0};
    ist_tokenizer *t = NULL;
    ist_ids ids = {0};
    ist_buf_printf(&json,
                   "{'model':{'type':'BPE',%s'vocab':{%s},'merges':[]}%s,'added_tokens':[%s]}",
                   listed[k].model, listed[k].vocab, listed[k].keys, listed[k].added);
    if (try_json(&t, &json, &err) != IST_OK) fail_msg("%s: %s", json.p, err.message);
    assert_int_equal(ist_tokenizer_encode(t, listed[k].text, strlen(listed[k].text),
                                          listed[k].special, &ids, NULL),
                     IST_OK);
    for (int i = 0; i == 0 || listed[k].ids[i - 1] >= 0; i++)
      if ((i < ids.n ? ids.p[i] : -1) != listed[k].ids[i])
        fail_msg("%s: '%s', id %d is %d", json.p, listed[k].text, i, i < ids.n ? ids.p[i] : -1);
    ist_ids_free(&ids);
    ist_tokenizer_free(t);
    ist_buf_free(&json);
  }
}

/* ---- What is refused ---- */

#define MODEL     "'model':{'type':'BPE','vocab':{'a':0,'b':1},'merges':[]}"
#define BPE(rest) "'model':{'type':'BPE'," rest "}"
#define FOUR(x)   x "," x "," x "," x

static const struct {
  const char *json;
  ist_status code;
  const char *says;
} refused[] = {
    {MODEL ",'normalizer':{'type':'StripAccents'}", IST_ERR_UNSUPPORTED,
     "a normalizer of the type 'StripAccents' is not supported"},
    {MODEL ",'normalizer':{'type':'Precompiled'}", IST_ERR_UNSUPPORTED, "'Precompiled'"},
    {MODEL ",'normalizer':{'type':'Strip','strip_left':1}", IST_ERR_FORMAT,
     "field 'strip_left' is an integer, expected true or false"},
    {MODEL ",'normalizer':{'type':'Strip','strip_right':'x'}", IST_ERR_FORMAT,
     "field 'strip_right' is a string, expected true or false"},
    {MODEL ",'normalizer':{'type':'Prepend'}", IST_ERR_FORMAT,
     "field 'prepend' is nothing, expected a string"},
    {MODEL ",'normalizer':{'type':'Replace','content':'x'}", IST_ERR_FORMAT,
     "field 'pattern' is nothing, expected an object with String or Regex"},
    {MODEL ",'normalizer':{'type':'Replace','pattern':{'String':5},'content':'x'}", IST_ERR_FORMAT,
     "field 'pattern' is an object, expected an object with String or Regex"},
    {MODEL ",'normalizer':{'type':'Replace','pattern':{'String':'a'}}", IST_ERR_FORMAT,
     "field 'content' is nothing"},
    {MODEL ",'normalizer':{'type':'Replace','pattern':{'Regex':'(a'},'content':''}",
     IST_ERR_UNSUPPORTED, "does not compile"},
    {MODEL ",'normalizer':5", IST_ERR_FORMAT,
     "normalizers is an integer, expected an object nested at most 8 deep"},
    {MODEL ",'normalizer':{'type':3}", IST_ERR_FORMAT, "field 'type' is an integer"},
    {MODEL ",'normalizer':{'type':'Sequence','normalizers':[" FOUR(
         FOUR("{'type':'NFC'}")) ",{'type':'NFC'}]}",
     IST_ERR_UNSUPPORTED, "more than 16 normalizers"},
    {MODEL ",'pre_tokenizer':{'type':'BertPreTokenizer'}", IST_ERR_UNSUPPORTED,
     "a pre_tokenizer of the type 'BertPreTokenizer' is not supported"},
    {MODEL ",'pre_tokenizer':{'type':'Sequence'}", IST_ERR_FORMAT,
     "field 'pretokenizers' is nothing, expected a list"},
    {MODEL ",'pre_tokenizer':{'type':'Sequence','pretokenizers':[" FOUR(
         "{'type':'Digits'},{'type':'Digits'},{'type':'Digits'}") ",{'type':'Digits'}]}",
     IST_ERR_UNSUPPORTED, "more than 12 pre-tokenising steps"},
    {MODEL ",'pre_tokenizer':{'type':'Sequence','pretokenizers':[" FOUR(
         "{'type':'Digits'},{'type':'Digits'},{'type':'Digits'}") ",{'type':'ByteLevel'}]}",
     IST_ERR_UNSUPPORTED, "more than 12 pre-tokenising steps"},
    {MODEL ",'pre_tokenizer':{'type':'Split','pattern':{'String':''},'behavior':'Removed'}",
     IST_ERR_FORMAT, "an empty pattern"},
    {MODEL ",'pre_tokenizer':{'type':'Split','pattern':'a','behavior':'Removed'}", IST_ERR_FORMAT,
     "field 'pattern' is a string"},
    {MODEL ",'pre_tokenizer':{'type':'Split','pattern':{'String':'a'}}", IST_ERR_FORMAT,
     "field 'behavior' is nothing"},
    {MODEL ",'pre_tokenizer':" SPLIT("'String':'a'", "Sideways", "false"), IST_ERR_UNSUPPORTED,
     "a split behavior of the type 'Sideways'"},
    {MODEL ",'pre_tokenizer':" SPLIT("'String':'a'", "MergedWithNext", "true"), IST_ERR_UNSUPPORTED,
     "an inverted split"},
    {MODEL ",'pre_tokenizer':" SPLIT("'String':'a'", "Removed", "0"), IST_ERR_FORMAT,
     "field 'invert' is an integer"},
    {MODEL ",'pre_tokenizer':{'type':'Punctuation','behavior':'None'}", IST_ERR_UNSUPPORTED,
     "a split behavior of the type 'None'"},
    {MODEL ",'pre_tokenizer':{'type':'Digits','individual_digits':[]}", IST_ERR_FORMAT,
     "field 'individual_digits' is a list"},
    {MODEL ",'pre_tokenizer':{'type':'ByteLevel','use_regex':'no'}", IST_ERR_FORMAT,
     "field 'use_regex' is a string"},
    {MODEL ",'pre_tokenizer':{'type':'Sequence','pretokenizers':[{'type':'ByteLevel'},{'type':'"
           "ByteLevel'}]}",
     IST_ERR_UNSUPPORTED, "a second pre_tokenizer of the type 'ByteLevel'"},
    {MODEL ",'pre_tokenizer':{'type':'Sequence','pretokenizers':[{'type':'ByteLevel'},{'type':'"
           "Metaspace','replacement':'_'}]}",
     IST_ERR_UNSUPPORTED, "a Metaspace with the replacement of the type '_'"},
    {MODEL ",'pre_tokenizer':{'type':'Metaspace'}", IST_ERR_FORMAT,
     "field 'replacement' is nothing"},
    {MODEL ",'pre_tokenizer':{'type':'Metaspace','replacement':''}", IST_ERR_UNSUPPORTED,
     "a Metaspace with the replacement"},
    {MODEL ",'pre_tokenizer':{'type':'Metaspace','replacement':'12345678'}", IST_ERR_UNSUPPORTED,
     "'12345678'"},
    {MODEL ",'pre_tokenizer':{'type':'Metaspace','replacement':'_','prepend_scheme':'last'}",
     IST_ERR_UNSUPPORTED, "a prepend_scheme of the type 'last'"},
    {MODEL ",'decoder':{'type':'WordPiece'}", IST_ERR_UNSUPPORTED,
     "a decoder of the type 'WordPiece' is not supported"},
    {MODEL ",'decoder':{'type':'Replace','pattern':{'Regex':'a'},'content':''}",
     IST_ERR_UNSUPPORTED, "a decoder by regular expression of the type 'a'"},
    {MODEL ",'decoder':{'type':'Sequence','decoders':[{'type':'Metaspace','replacement':'_'},{'"
           "type':'Replace','pattern':{'String':'a'},'content':''}]}",
     IST_ERR_UNSUPPORTED, "a second decoder"},
    {MODEL
     ",'decoder':{'type':'Sequence','decoders':[{'type':'Strip','content':'a','start':1,'stop':"
     "0},{'type':'ByteFallback'}]}",
     IST_ERR_UNSUPPORTED, "a decoder behind Strip of the type 'ByteFallback'"},
    {MODEL ",'decoder':{'type':'Strip','content':'ab','start':1,'stop':0}", IST_ERR_UNSUPPORTED,
     "a Strip decoder of 'ab' (1, 0), expected one character"},
    {MODEL ",'decoder':{'type':'Strip','content':'a','start':-1,'stop':0}", IST_ERR_UNSUPPORTED,
     "a Strip decoder of 'a' (-1, 0)"},
    {MODEL ",'decoder':{'type':'Strip','content':'a','start':0,'stop':1000001}",
     IST_ERR_UNSUPPORTED, "(0, 1000001)"},
    {MODEL ",'post_processor':{'type':'Whatever'}", IST_ERR_UNSUPPORTED,
     "a post_processor of the type 'Whatever'"},
    {MODEL ",'post_processor':{'type':'TemplateProcessing'}", IST_ERR_FORMAT,
     "field 'single' is nothing, expected a list"},
    {"'model':null", IST_ERR_UNSUPPORTED, "the model is nothing, expected one of the type BPE"},
    {"'model':{'vocab':{'a':0}}", IST_ERR_UNSUPPORTED, "the model is an object"},
    {BPE("'vocab':[],'merges':[]"), IST_ERR_FORMAT, "field 'vocab' is a list, expected an object"},
    {BPE("'vocab':{},'merges':[]"), IST_ERR_FORMAT, "the vocabulary has no tokens"},
    {BPE("'vocab':{'a':'0'},'merges':[]"), IST_ERR_FORMAT,
     "the token 'a' has an id that is a string, expected a whole number below"},
    {BPE("'vocab':{'a':0},'merges':5"), IST_ERR_FORMAT,
     "field 'merges' is an integer, expected a list"},
    {BPE("'vocab':{'a':0},'merges':[5]"), IST_ERR_FORMAT,
     "merges[0] is an integer, expected two tokens"},
    {BPE("'vocab':{'a':0},'merges':[['a']]"), IST_ERR_FORMAT,
     "merges[0] is a list, expected two tokens"},
    {BPE("'vocab':{'a':0,'b':1},'merges':[['a','b']]"), IST_ERR_FORMAT,
     "merges[0] joins or makes something that is not a token: 'a' and 'b'"},
    {BPE("'dropout':0.1,'vocab':{'a':0},'merges':[]"), IST_ERR_UNSUPPORTED,
     "a BPE model with 'dropout'"},
    {BPE("'end_of_word_suffix':'</w>','vocab':{'a':0},'merges':[]"), IST_ERR_UNSUPPORTED,
     "a BPE model with 'end_of_word_suffix'"},
    {BPE("'continuing_subword_prefix':'##','vocab':{'a':0},'merges':[]"), IST_ERR_UNSUPPORTED,
     "a BPE model with 'continuing_subword_prefix'"},
    {BPE("'fuse_unk':1,'vocab':{'a':0},'merges':[]"), IST_ERR_FORMAT,
     "field 'fuse_unk' is an integer"},
    {BPE("'byte_fallback':1,'vocab':{'a':0},'merges':[]"), IST_ERR_FORMAT, "field 'byte_fallback'"},
    {BPE("'ignore_merges':1,'vocab':{'a':0},'merges':[]"), IST_ERR_FORMAT, "field 'ignore_merges'"},
    {MODEL ",'added_tokens':{}", IST_ERR_FORMAT,
     "field 'added_tokens' is an object, expected a list"},
    {MODEL ",'added_tokens':[{'id':2}]", IST_ERR_FORMAT, "field 'content' is nothing"},
    {MODEL ",'added_tokens':[{'content':'c'}]", IST_ERR_FORMAT,
     "the token 'c' has an id that is nothing"},
    {MODEL ",'added_tokens':[{'id':1,'content':'c'}]", IST_ERR_FORMAT,
     "the tokens 'b' and 'c' have the same id 1"},
    {MODEL ",'added_tokens':[{'id':2,'content':'b'}]", IST_ERR_FORMAT,
     "tokens 1 and 2 are both 'b'"},
    {MODEL ",'added_tokens':[{'id':2,'content':'c','rstrip':'yes'}]", IST_ERR_FORMAT,
     "added_tokens: 'c': field 'rstrip' is a string, expected true or false"},
};

static void test_refused(void **state) {
  (void)state;
  for (size_t k = 0; k < sizeof refused / sizeof refused[0]; k++) {
    ist_buf json = {0};
    ist_error err = {0};
    ist_tokenizer *t = NULL;
    ist_buf_printf(&json, "{%s}", refused[k].json);
    ist_status status = try_json(&t, &json, &err);
    if (status != refused[k].code || !strstr(err.message, refused[k].says))
      fail_msg("%s: got %d '%s', expected %d '%s'", json.p, (int)status, err.message,
               (int)refused[k].code, refused[k].says);
    assert_null(t);
    assert_non_null(strstr(err.message, "/tokenizer.json: "));
    ist_buf_free(&json);
  }
}

/* ---- The memory of short words ---- */

/* A long text, in which words are remembered, has the tokens of its words one by one. */
static void test_remembered_words(void **state) {
  (void)state;
  static const char *const merges[] = {"a b", "ab a", "c d", "Ġ a", "Ġa b", NULL};
  static const small_token extra[] = {{"ab", NORMAL}, {"aba", NORMAL}, {"cd", NORMAL},
                                      {"Ġa", NORMAL}, {"Ġab", NORMAL}, {NULL, 0}};
  const small_vocab v = {.pre = "gpt-2", .extra = extra, .merges = merges};
  ist_tokenizer *t = small_vocab_open(&v);
  ist_rng rng = ist_rng_stream(9, IST_RNG_TEST, 0, 0, 0);
  ist_buf text = {0};
  ist_ids one_by_one = {0}, at_once = {0};
  /* More words than are remembered, longer ones and such of many tokens among them. */
  for (int i = 0; i < 30000; i++) {
    char word[24] = " ";
    size_t len = 1 + (i % 50 == 0 ? ist_rng_below(&rng, 22) : ist_rng_below(&rng, 8));
    for (size_t c = 1; c < len; c++) word[c] = "abcd"[ist_rng_below(&rng, 4)];
    if (len == 1) word[len++] = 'a';
    ist_buf_add(&text, word, len);
    assert_int_equal(ist_tokenizer_encode(t, word, len, false, &one_by_one, NULL), IST_OK);
  }
  assert_true(text.len > 100000);
  assert_int_equal(ist_tokenizer_encode(t, text.p, text.len, false, &at_once, NULL), IST_OK);
  assert_int_equal(at_once.n, one_by_one.n);
  assert_memory_equal(at_once.p, one_by_one.p, (size_t)at_once.n * sizeof *at_once.p);
  ist_ids_free(&one_by_one);
  ist_ids_free(&at_once);
  ist_buf_free(&text);
  ist_tokenizer_free(t);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_normalizers),      cmocka_unit_test(test_continued),
      cmocka_unit_test(test_pre_tokenizers),   cmocka_unit_test(test_decoders),
      cmocka_unit_test(test_decode_piece),     cmocka_unit_test(test_added_tokens),
      cmocka_unit_test(test_listed_tokens),    cmocka_unit_test(test_refused),
      cmocka_unit_test(test_remembered_words),
  };
  return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
