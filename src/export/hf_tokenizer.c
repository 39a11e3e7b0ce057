/* tokenizer.json and tokenizer_config.json of a BPE vocabulary, byte-level or SentencePiece. */
#include <stdio.h>

#include "base/mem.h"
#include "export/hf_folder.h"

#define KEY "tokenizer.ggml."

/* GGUF's types of tokens that are matched in the raw text. */
enum { TYPE_UNKNOWN = 2, TYPE_CONTROL = 3, TYPE_USER = 4 };

/* ---- Pre-tokenisers, as Hugging Face spells them ---- */

#define BYTE_LEVEL(regex)                                                     \
  "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true," \
  "\"use_regex\":" regex "}"
#define SEQUENCE(first, second) "{\"type\":\"Sequence\",\"pretokenizers\":[" first "," second "]}"
#define DIGITS                  "{\"type\":\"Digits\",\"individual_digits\":true}"
#define SPLIT(numbers)                                                                       \
  "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(?i:'s|'t|'re|'ve|'m|'ll|'d)|"               \
  "[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|" numbers                                         \
  "| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+\"}," \
  "\"behavior\":\"Isolated\",\"invert\":false}"

static const char gpt2[] = BYTE_LEVEL("true");
static const char digits[] = SEQUENCE(DIGITS, BYTE_LEVEL("true"));
static const char llama3[] = SEQUENCE(SPLIT("\\\\p{N}{1,3}"), BYTE_LEVEL("false"));
static const char bloom[] = SEQUENCE(
    "{\"type\":\"Split\",\"pattern\":{\"Regex\":\" ?[^(\\\\s|.,!?\xe2\x80\xa6\xe3\x80\x82"
    "\xef\xbc\x8c\xe3\x80\x81\xe0\xa5\xa4\xdb\x94\xd8\x8c)]+\"},"
    "\"behavior\":\"Isolated\",\"invert\":false}",
    BYTE_LEVEL("false"));
static const char qwen2[] = SEQUENCE(SPLIT("\\\\p{N}"), BYTE_LEVEL("false"));

/* The names of GGUF files for them. Llama 3's also takes whole pieces unmerged. */
static const struct {
  const char *name, *json;
  bool ignore_merges;
} pre_tokenizers[] = {
    {"gpt-2", gpt2, false},         {"phi-2", gpt2, false},
    {"mpt", gpt2, false},           {"olmo", gpt2, false},
    {"exaone4", gpt2, false},       {"modern-bert", gpt2, false},
    {"smollm", digits, false},      {"starcoder", digits, false},
    {"refact", digits, false},      {"command-r", digits, false},
    {"codeshell", digits, false},   {"exaone", digits, false},
    {"llama-bpe", llama3, true},    {"llama3", llama3, true},
    {"llama-v3", llama3, true},     {"falcon3", llama3, true},
    {"pixtral", llama3, true},      {"lfm2", llama3, true},
    {"dbrx", llama3, false},        {"smaug-bpe", llama3, false},
    {"qwen2", qwen2, false},        {"deepseek-r1-qwen", qwen2, false},
    {"megrez", qwen2, false},       {"stablelm2", qwen2, false},
    {"bloom", bloom, false},        {"poro-chat", bloom, false},
    {"gpt3-finnish", bloom, false},
};

/* ---- Tokens ---- */

/* As the file has it, which may be any number. */
static double type_of(const ist_gguf *g, uint64_t id) {
  const ist_gguf_kv *types = ist_gguf_find(g, KEY "token_type");
  return types && id < types->count ? ist_gguf_elem_f64(types, id) : 1;
}

static bool is_added(double type) {
  return type == TYPE_UNKNOWN || type == TYPE_CONTROL || type == TYPE_USER;
}

static json_t *string_of(ist_str s) {
  return json_stringn(s.p, s.len);
}

static json_t *added_token(ist_str text, double type) {
  return json_pack("{s:o, s:b, s:b, s:b, s:b, s:b}", "content", string_of(text), "single_word", 0,
                   "lstrip", 0, "rstrip", 0, "normalized", 0, "special", type != TYPE_USER);
}

static json_t *added_tokens(const ist_gguf *g, const ist_gguf_kv *tokens) {
  json_t *list = json_array();
  for (uint64_t i = 0; i < tokens->count; i++) {
    const double type = type_of(g, i);
    if (!is_added(type)) continue;
    json_t *one = json_pack("{s:I}", "id", (json_int_t)i);
    json_t *rest = added_token(tokens->strings[i], type);
    json_object_update(one, rest);
    json_decref(rest);
    json_array_append_new(list, one);
  }
  return list;
}

static json_t *vocabulary(const ist_gguf_kv *tokens) {
  json_t *o = json_object();
  for (uint64_t i = 0; i < tokens->count; i++)
    json_object_setn_new(o, tokens->strings[i].p, tokens->strings[i].len,
                         json_integer((json_int_t)i));
  return o;
}

static json_t *merges(const ist_gguf_kv *kv) {
  json_t *list = json_array();
  for (uint64_t i = 0; i < kv->count; i++) json_array_append_new(list, string_of(kv->strings[i]));
  return list;
}

static json_t *text_of(const ist_gguf *g, int32_t id) {
  const ist_gguf_kv *tokens = ist_gguf_find(g, KEY "tokens");
  return id < 0 ? json_null() : string_of(tokens->strings[id]);
}

/* ---- tokenizer.json ---- */

/* BOS and EOS around every text, where the file asks for them. */
static json_t *post_processor(const ist_model *m) {
  const struct {
    bool on;
    int32_t id;
  } ends[2] = {{ist_tokenizer_add_bos(m->tokenizer), ist_tokenizer_bos(m->tokenizer)},
               {ist_tokenizer_add_eos(m->tokenizer), ist_tokenizer_eos(m->tokenizer)}};
  if (!(ends[0].on && ends[0].id >= 0) && !(ends[1].on && ends[1].id >= 0)) return json_null();
  json_t *single = json_array(), *pair = json_array(), *special = json_object();
  for (int part = 0; part < 3; part++) {
    if (part == 1) {
      json_array_append_new(single,
                            json_pack("{s:{s:s, s:i}}", "Sequence", "id", "A", "type_id", 0));
      json_array_append_new(pair, json_pack("{s:{s:s, s:i}}", "Sequence", "id", "A", "type_id", 0));
      json_array_append_new(pair, json_pack("{s:{s:s, s:i}}", "Sequence", "id", "B", "type_id", 1));
      continue;
    }
    const int32_t id = ends[part / 2].id;
    if (!ends[part / 2].on || id < 0) continue;
    json_t *text = text_of(m->source.gguf, id);
    json_t *token = json_pack("{s:{s:O, s:i}}", "SpecialToken", "id", text, "type_id", 0);
    json_array_append(single, token);
    json_array_append_new(pair, token);
    json_object_set_new(special, json_string_value(text),
                        json_pack("{s:O, s:[i], s:[O]}", "id", text, "ids", id, "tokens", text));
    json_decref(text);
  }
  return json_pack("{s:s, s:o, s:o, s:o}", "type", "TemplateProcessing", "single", single, "pair",
                   pair, "special_tokens", special);
}

/* Byte-level BPE: the parts that are its own. */
static json_t *byte_level_model(const ist_gguf_kv *tokens, const ist_gguf_kv *pairs,
                                bool ignore_merges) {
  return json_pack("{s:s, s:n, s:n, s:n, s:n, s:b, s:b, s:b, s:o, s:o}", "type", "BPE", "dropout",
                   "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", 0,
                   "byte_fallback", 0, "ignore_merges", ignore_merges, "vocab", vocabulary(tokens),
                   "merges", merges(pairs));
}

/* The row of a rule's name; -1: none. */
static int find_rule(const char *name) {
  for (size_t i = 0; name && i < sizeof pre_tokenizers / sizeof *pre_tokenizers; i++)
    if (strcmp(pre_tokenizers[i].name, name) == 0) return (int)i;
  return -1;
}

static json_t *fail_tokenizer(const ist_model *m, ist_error *err) {
  const char *pre = m->tokenizer ? ist_tokenizer_pre(m->tokenizer) : NULL;
  ist_fail(err, IST_ERR_UNSUPPORTED, "%s: no tokenizer.json can be made of %s%s", m->path,
           pre ? "a vocabulary with the pre-tokeniser " : "a file without a vocabulary",
           pre ? pre : "");
  return NULL;
}

json_t *ist_hf_tokenizer(const ist_model *m, ist_error *err) {
  const ist_gguf *g = m->source.gguf;
  const ist_gguf_kv *tokens = ist_gguf_find(g, KEY "tokens");
  const ist_gguf_kv *pairs = ist_gguf_find(g, KEY "merges");
  if (!m->tokenizer || !tokens) return fail_tokenizer(m, err);
  const int rule = find_rule(ist_tokenizer_pre(m->tokenizer));
  const int32_t unknown = ist_tokenizer_unk(m->tokenizer);
  json_t *model, *normalizer = json_null(), *pre = json_null(), *decoder;
  if (strcmp(ist_tokenizer_pre(m->tokenizer), "sentencepiece") == 0) {
    json_t *unk = text_of(g, unknown);
    model = ist_hf_sentencepiece_model(g, vocabulary(tokens),
                                       json_is_string(unk) ? json_string_value(unk) : "<unk>", err);
    json_decref(unk);
    if (!model) {
      ist_error_context(err, "%s", m->path);
      json_decref(normalizer);
      json_decref(pre);
      return NULL;
    }
    normalizer = ist_hf_sentencepiece_normalizer(g);
    decoder = ist_hf_sentencepiece_decoder(g);
  } else if (rule >= 0 && pairs) {
    model = byte_level_model(tokens, pairs, pre_tokenizers[rule].ignore_merges);
    pre = json_loads(pre_tokenizers[rule].json, 0, NULL);
    decoder = json_loads(BYTE_LEVEL("true"), 0, NULL);
  } else {
    return fail_tokenizer(m, err);
  }
  json_t *root = json_pack("{s:s, s:n, s:n, s:o, s:o, s:o, s:o, s:o, s:o}", "version", "1.0",
                           "truncation", "padding", "added_tokens", added_tokens(g, tokens),
                           "normalizer", normalizer, "pre_tokenizer", pre, "post_processor",
                           post_processor(m), "decoder", decoder, "model", model);
  if (!root) ist_fail_nomem(err, "tokenizer.json", 0);
  return root;
}

/* ---- tokenizer_config.json ---- */

static int32_t token_key(const ist_gguf *g, const char *key) {
  int64_t id = -1;
  const ist_gguf_kv *tokens = ist_gguf_find(g, KEY "tokens");
  ist_gguf_get_i64(g, key, false, &id, NULL);
  return tokens && id >= 0 && (uint64_t)id < tokens->count ? (int32_t)id : -1;
}

int32_t ist_hf_pad(const ist_model *m) {
  return token_key(m->source.gguf, KEY "padding_token_id");
}

json_t *ist_hf_tokenizer_config(const ist_model *m) {
  const ist_gguf *g = m->source.gguf;
  const ist_gguf_kv *tokens = ist_gguf_find(g, KEY "tokens");
  json_t *decoder = json_object();
  for (uint64_t i = 0; i < tokens->count; i++) {
    const double type = type_of(g, i);
    char id[24];
    snprintf(id, sizeof id, "%llu", (unsigned long long)i);
    if (is_added(type)) json_object_set_new(decoder, id, added_token(tokens->strings[i], type));
  }
  json_t *root = json_pack(
      "{s:s, s:o, s:o, s:o, s:o, s:I, s:b, s:o}", "tokenizer_class", "PreTrainedTokenizerFast",
      "bos_token", text_of(g, ist_tokenizer_bos(m->tokenizer)), "eos_token",
      text_of(g, ist_tokenizer_eos(m->tokenizer)), "pad_token", text_of(g, ist_hf_pad(m)),
      "unk_token", text_of(g, token_key(g, KEY "unknown_token_id")), "model_max_length",
      (json_int_t)m->config.context, "clean_up_tokenization_spaces", 0, "added_tokens_decoder",
      decoder);
  const char *chat = ist_tokenizer_chat_template(m->tokenizer);
  if (root && chat) json_object_set_new(root, "chat_template", json_string(chat));
  return root;
}
