/* The splitting rules that GGUF files name: the regular expressions that each
 * model's own tokenizer splits text by, one table row a name. */
#include <string.h>

#include "tokenizer/internal.h"

#define CONTRACTION "'s|'t|'re|'ve|'m|'ll|'d"
#define SYMBOLS     " ?[^\\s\\p{L}\\p{N}]+"
#define SPACES      "\\s+(?!\\S)|\\s+"
#define CJK         "[\xe4\xb8\x80-\xe9\xbe\xa5\xe0\xa0\x80-\xe4\xb8\x80\xea\xb0\x80-\xed\x9f\xbf]+"

#define GPT2 CONTRACTION "| ?\\p{L}+| ?\\p{N}+|" SYMBOLS "|" SPACES
const char ist_pre_gpt2[] = GPT2;

/* GPT-2's rule after every digit was cut out on its own: so a run of spaces also
 * ends at a digit as it would at the end of the text. */
#define DIGITS_GPT2 "\\p{N}|" CONTRACTION "| ?\\p{L}+|" SYMBOLS "|\\s+(?![^\\s\\p{N}])|\\s+"

#define LINES "[\\r\\n]*|\\s*[\\r\\n]+|" SPACES
#define LLAMA3(letters, symbols, numbers) \
  "(?i:" CONTRACTION ")|[^\\r\\n\\p{L}\\p{N}]?" letters "+|" numbers "|" symbols LINES

/* A word whose capitals stand in front, with or without a contraction behind it. */
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define CASED(behind, numbers)                                                                  \
  "[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+" behind "|[^\\r\\n\\p{L}\\p{N}]?" UPPER "+" LOWER \
  "*" behind "|" numbers "|" SYMBOLS "[\\r\\n/]*|\\s*[\\r\\n]+|" SPACES

/* Letters that have case, as deepseek-llm lists them. */
#define DEEPSEEK_LETTERS                                                                        \
  "A-Za-z\\x{b5}\\x{c0}-\\x{d6}\\x{d8}-\\x{f6}\\x{f8}-\\x{1ba}\\x{1bc}-\\x{1bf}\\x{1c4}-"       \
  "\\x{293}\\x{295}-\\x{2af}\\x{370}-\\x{373}\\x{376}\\x{377}\\x{37b}-\\x{37d}\\x{37f}"         \
  "\\x{386}\\x{388}-\\x{38a}\\x{38c}\\x{38e}-\\x{3a1}\\x{3a3}-\\x{3f5}\\x{3f7}-\\x{481}"        \
  "\\x{48a}-\\x{52f}\\x{531}-\\x{556}\\x{10a0}-\\x{10c5}\\x{13a0}-\\x{13f5}\\x{13f8}-\\x{13fd}" \
  "\\x{1c90}-\\x{1cba}\\x{1cbd}-\\x{1cbf}\\x{1d00}-\\x{1d2b}\\x{1d6b}-\\x{1d77}\\x{1d79}-"      \
  "\\x{1d9a}\\x{1e00}-\\x{1f15}\\x{1f18}-\\x{1f1d}\\x{1f20}-\\x{1f45}\\x{1f48}-\\x{1f4d}"       \
  "\\x{1f50}-\\x{1f57}\\x{1f59}\\x{1f5b}\\x{1f5d}\\x{1f5f}-\\x{1f7d}\\x{1f80}-\\x{1fb4}"        \
  "\\x{1fb6}-\\x{1fbc}\\x{1fbe}\\x{1fc2}-\\x{1fc4}\\x{1fc6}-\\x{1fcc}\\x{1fd0}-\\x{1fd3}"       \
  "\\x{1fd6}-\\x{1fdb}\\x{1fe0}-\\x{1fec}\\x{1ff2}-\\x{1ff4}\\x{1ff6}-\\x{1ffc}\\x{2102}"       \
  "\\x{2107}\\x{210a}-\\x{2113}\\x{2115}\\x{2119}-\\x{211d}\\x{2124}\\x{2126}\\x{2128}"         \
  "\\x{212a}-\\x{212d}\\x{212f}-\\x{2134}\\x{2139}\\x{213c}-\\x{213f}\\x{2145}-\\x{2149}"       \
  "\\x{214e}\\x{2183}\\x{2184}\\x{2c00}-\\x{2c7b}\\x{2c7e}-\\x{2ce4}\\x{2ceb}-\\x{2cee}"        \
  "\\x{2cf2}\\x{2cf3}\\x{a640}-\\x{a66d}\\x{a680}-\\x{a69b}\\x{a722}-\\x{a76f}\\x{a771}-"       \
  "\\x{a787}\\x{a78b}-\\x{a78e}\\x{ab70}-\\x{abbf}\\x{fb00}-\\x{fb06}\\x{fb13}-\\x{fb17}"       \
  "\\x{ff21}-\\x{ff3a}\\x{ff41}-\\x{ff5a}\\x{10400}-\\x{1044f}\\x{104b0}-\\x{104d3}"            \
  "\\x{104d8}-\\x{104fb}\\x{10c80}-\\x{10cb2}\\x{10cc0}-\\x{10cf2}\\x{118a0}-\\x{118df}"        \
  "\\x{1e900}-\\x{1e943}"

/* A rule is one expression that matches anywhere, or several that split the text
 * one after another. */
typedef struct expressions {
  const char *pattern[6];
} expressions;

static const expressions gpt2 = {{GPT2}};
static const expressions digits_gpt2 = {{DIGITS_GPT2}};
static const expressions llama3 = {{LLAMA3("\\p{L}", SYMBOLS, "\\p{N}{1,3}")}};
static const expressions qwen2 = {{LLAMA3("\\p{L}", SYMBOLS, "\\p{N}")}};
static const expressions qwen35 = {
    {LLAMA3("[\\p{L}\\p{M}]", " ?[^\\s\\p{L}\\p{M}\\p{N}]+", "\\p{N}")}};
static const expressions tekken = {{CASED("", "\\p{N}")}};
static const expressions gpt4o = {{CASED("(?i:" CONTRACTION ")?", "\\p{N}{1,3}")}};
static const expressions deepseek_llm = {
    {"[\\r\\n]", "\\s?[" DEEPSEEK_LETTERS "]+",
     "\\s?[!-/:-~\xef\xbc\x81-\xef\xbc\x8f\xef\xbc\x9a-\xef\xbd\x9e\xe2\x80\x98-\xe2\x80\x9f"
     "\xe3\x80\x80-\xe3\x80\x82]+",
     "\\s+$", CJK, "\\p{N}+"}};
static const expressions deepseek_coder = {
    {"[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", CJK, "\\p{N}"}};
static const expressions deepseek_v3 = {
    {"\\p{N}{1,3}",
     "[\xe4\xb8\x80-\xe9\xbe\xa5\xe3\x81\x80-\xe3\x82\x9f\xe3\x82\xa0-\xe3\x83\xbf]+",
     "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?"
     "[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+" LINES}};
static const expressions falcon = {{"[\\p{P}\\$\\+<=>\\^~\\|`]+", GPT2, "[0-9][0-9][0-9]"}};
static const expressions bloom = {
    {" ?[^(\\s|.,!?\xe2\x80\xa6\xe3\x80\x82\xef\xbc\x8c\xe3\x80\x81\xe0\xa5\xa4\xdb\x94\xd8\x8c)]"
     "+"}};
static const expressions fallback = {
    {"[\\p{P}\\$\\+<=>\\^~\\|]+", GPT2, "\\p{N}+", "[0-9][0-9][0-9]"}};

struct ist_pre_rule {
  const char *name;
  const expressions *by;
  bool tile, ignore_merges, add_bos;
};

static const struct ist_pre_rule rules[] = {
    {"gpt-2", &gpt2, true, false, false},
    {"phi-2", &gpt2, true, false, false},
    {"mpt", &gpt2, true, false, false},
    {"olmo", &gpt2, true, false, false},
    {"exaone4", &gpt2, true, false, false},
    {"modern-bert", &gpt2, true, false, false},
    {"smollm", &digits_gpt2, true, false, false},
    {"starcoder", &digits_gpt2, true, false, false},
    {"refact", &digits_gpt2, true, false, false},
    {"command-r", &digits_gpt2, true, false, false},
    {"codeshell", &digits_gpt2, true, false, false},
    {"exaone", &digits_gpt2, true, false, false},
    {"llama-bpe", &llama3, true, true, true},
    {"llama3", &llama3, true, true, true},
    {"llama-v3", &llama3, true, true, true},
    {"falcon3", &llama3, true, true, true},
    {"pixtral", &llama3, true, true, true},
    {"lfm2", &llama3, true, true, true},
    {"dbrx", &llama3, true, false, false},
    {"smaug-bpe", &llama3, true, false, false},
    {"qwen2", &qwen2, true, false, false},
    {"deepseek-r1-qwen", &qwen2, true, false, false},
    {"megrez", &qwen2, true, false, false},
    {"stablelm2", &qwen2, true, false, false},
    {"qwen35", &qwen35, true, false, false},
    {"tekken", &tekken, true, true, true},
    {"gpt-4o", &gpt4o, true, false, false},
    {"llama4", &gpt4o, true, false, false},
    {"deepseek-llm", &deepseek_llm, false, false, false},
    {"deepseek-coder", &deepseek_coder, false, false, false},
    {"deepseek-v3", &deepseek_v3, false, false, false},
    {"joyai-llm", &deepseek_v3, false, false, false},
    {"hunyuan-dense", &deepseek_v3, false, false, false},
    {"falcon", &falcon, false, false, false},
    {"bloom", &bloom, false, false, false},
    {"poro-chat", &bloom, false, false, false},
    {"gpt3-finnish", &bloom, false, false, false},
    {"default", &fallback, false, false, false},
};

const ist_pre_rule *ist_pre_rule_find(ist_str name) {
  for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++)
    if (strlen(rules[i].name) == name.len && memcmp(rules[i].name, name.p, name.len) == 0)
      return &rules[i];
  return NULL;
}

bool ist_pre_rule_add_bos(const ist_pre_rule *r) {
  return r->add_bos;
}
bool ist_pre_rule_ignore_merges(const ist_pre_rule *r) {
  return r->ignore_merges;
}

ist_status ist_pre_from_rule(ist_pre *pre, const ist_pre_rule *r, ist_error *err) {
  *pre = (ist_pre){0};
  ist_pre_kind kind = r->tile ? IST_PRE_TILE : IST_PRE_SPLIT;
  for (int i = 0; i < 6 && r->by->pattern[i]; i++)
    IST_TRY(ist_pre_add_regex(pre, kind, r->by->pattern[i], IST_SPLIT_ISOLATED, err));
  return IST_OK;
}
