/* Splits text into the pieces that BPE works on, by the rule the model's
 * vocabulary was trained with: one regular expression a rule, one table row a name. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <string.h>

#include <utf8proc.h>

#include "tokenizer/internal.h"

/* White space as Unicode's White_Space property has it; PCRE2's own \s adds U+180E. */
#define S                 "\\t-\\r\\x{85}\\p{Z}"
#define SPACES(lookahead) "[" S "]+(?![^" S lookahead "])|[" S "]+"
#define CONTRACTION       "'s|'t|'re|'ve|'m|'ll|'d"
#define SYMBOLS           " ?[^" S "\\p{L}\\p{N}]+"

static const char gpt2[] = CONTRACTION "| ?\\p{L}+| ?\\p{N}+|" SYMBOLS "|" SPACES("");

/* GPT-2's rule after every digit was cut out on its own: so a run of spaces also
 * ends at a digit as it would at the end of the text. */
static const char digits_gpt2[] = "\\p{N}|" CONTRACTION "| ?\\p{L}+|" SYMBOLS "|" SPACES("\\p{N}");

#define LLAMA3(numbers)                                                                     \
  "(?i:" CONTRACTION ")|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" numbers "|" SYMBOLS "[\\r\\n]*|[" S \
  "]*[\\r\\n]+|" SPACES("")
static const char llama3[] = LLAMA3("\\p{N}{1,3}");
static const char qwen2[] = LLAMA3("\\p{N}");

struct ist_pre_rule {
  const char *name, *pattern;
  bool ignore_merges, add_bos;
};

static const struct ist_pre_rule rules[] = {
    {"gpt-2", gpt2, false, false},
    {"phi-2", gpt2, false, false},
    {"mpt", gpt2, false, false},
    {"olmo", gpt2, false, false},
    {"exaone4", gpt2, false, false},
    {"modern-bert", gpt2, false, false},
    {"smollm", digits_gpt2, false, false},
    {"starcoder", digits_gpt2, false, false},
    {"refact", digits_gpt2, false, false},
    {"command-r", digits_gpt2, false, false},
    {"codeshell", digits_gpt2, false, false},
    {"exaone", digits_gpt2, false, false},
    {"llama-bpe", llama3, true, true},
    {"llama3", llama3, true, true},
    {"llama-v3", llama3, true, true},
    {"falcon3", llama3, true, true},
    {"pixtral", llama3, true, true},
    {"lfm2", llama3, true, true},
    {"dbrx", llama3, false, false},
    {"smaug-bpe", llama3, false, false},
    {"qwen2", qwen2, false, false},
    {"deepseek-r1-qwen", qwen2, false, false},
    {"megrez", qwen2, false, false},
    {"stablelm2", qwen2, false, false},
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

/* ---- The compiled rule ---- */

struct ist_pre {
  pcre2_general_context *memory;
  pcre2_code *code;
};

static void *pcre_alloc(PCRE2_SIZE size, void *user) {
  (void)user;
  return ist_calloc(size, 1);
}
static void pcre_free(void *p, void *user) {
  (void)user;
  ist_free(p);
}

ist_status ist_pre_new(ist_pre **out, const ist_pre_rule *r, ist_error *err) {
  *out = NULL;
  ist_pre *pre = ist_calloc(1, sizeof *pre);
  pcre2_compile_context *context = NULL;
  int code = 0;
  PCRE2_SIZE offset = 0;
  if (pre) pre->memory = pcre2_general_context_create(pcre_alloc, pcre_free, NULL);
  if (pre && pre->memory) context = pcre2_compile_context_create(pre->memory);
  if (context)
    pre->code = pcre2_compile((PCRE2_SPTR)r->pattern, PCRE2_ZERO_TERMINATED,
                              PCRE2_UTF | PCRE2_UCP | PCRE2_ANCHORED | PCRE2_NO_UTF_CHECK, &code,
                              &offset, context);
  pcre2_compile_context_free(context);
  if (pre && pre->code) {
    /* Without a JIT for this machine the matcher interprets: slower, the same pieces. */
    pcre2_jit_compile(pre->code, PCRE2_JIT_COMPLETE);
    *out = pre;
    return IST_OK;
  }
  ist_pre_free(pre);
  if (code != 0 && code != PCRE2_ERROR_HEAP_FAILED)
    return ist_fail(err, IST_ERR_INTERNAL, "the rule '%s' does not compile: PCRE2 error %d at %zu",
                    r->name, code, offset);
  return ist_fail_nomem(err, "a pre-tokeniser", sizeof *pre);
}

void ist_pre_free(ist_pre *pre) {
  if (!pre) return;
  pcre2_code_free(pre->code);
  pcre2_general_context_free(pre->memory);
  ist_free(pre);
}

size_t ist_pre_bytes(const ist_pre *pre) {
  size_t size = 0, jit = 0;
  pcre2_pattern_info(pre->code, PCRE2_INFO_SIZE, &size);
  pcre2_pattern_info(pre->code, PCRE2_INFO_JITSIZE, &jit);
  return sizeof *pre + size + jit;
}

/* ---- Pieces ---- */

ist_status ist_pieces_init(ist_pieces *it, const ist_pre *pre, ist_error *err) {
  *it = (ist_pieces){.pre = pre};
  it->match = pcre2_match_data_create(1, pre->memory);
  return it->match ? IST_OK : ist_fail_nomem(err, "splitting a text", sizeof *it);
}

void ist_pieces_free(ist_pieces *it) {
  pcre2_match_data_free(it->match);
  *it = (ist_pieces){0};
}

/* The end of the valid UTF-8 that begins at p. */
static const char *skip_valid(const char *p, const char *end) {
  while (p < end) {
    uint64_t w;
    if (end - p >= 8 && (memcpy(&w, p, 8), (w & UINT64_C(0x8080808080808080)) == 0)) {
      p += 8;
      continue;
    }
    utf8proc_int32_t c;
    utf8proc_ssize_t size =
        utf8proc_iterate((const utf8proc_uint8_t *)p, (utf8proc_ssize_t)(end - p), &c);
    if (size <= 0) break;
    p += size;
  }
  return p;
}

void ist_pieces_start(ist_pieces *it, const char *text, size_t len) {
  it->text = text;
  it->end = text + len;
  it->valid_end = skip_valid(text, it->end);
}

ist_status ist_pieces_next(ist_pieces *it, const char **piece, size_t *len, ist_error *err) {
  *piece = it->text;
  *len = 0;
  if (it->text == it->end) return IST_OK;
  if (it->text == it->valid_end) {
    *len = 1;
    it->valid_end = skip_valid(++it->text, it->end);
    return IST_OK;
  }
  PCRE2_SPTR subject = (PCRE2_SPTR)it->text;
  PCRE2_SIZE size = (PCRE2_SIZE)(it->valid_end - it->text);
  int n = pcre2_match(it->pre->code, subject, size, 0, PCRE2_NO_UTF_CHECK, it->match, NULL);
  if (n == PCRE2_ERROR_JIT_STACKLIMIT)
    n = pcre2_match(it->pre->code, subject, size, 0, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, it->match,
                    NULL);
  if (n == PCRE2_ERROR_HEAPLIMIT || n == PCRE2_ERROR_NOMEMORY)
    return ist_fail_nomem(err, "splitting a text", size);
  *len = n > 0 ? pcre2_get_ovector_pointer(it->match)[1] : 0;
  /* Every rule matches any character one way or another. */
  if (*len == 0)
    return ist_fail(err, IST_ERR_INTERNAL, "a text could not be split: PCRE2 error %d", n);
  it->text += *len;
  return IST_OK;
}
