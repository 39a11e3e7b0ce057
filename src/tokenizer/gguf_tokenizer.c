/* A tokenizer out of GGUF keys. */
#include <ctype.h>
#include <inttypes.h>
#include <string.h>

#include "tokenizer/internal.h"

#define KEY "tokenizer.ggml."

/* GGUF's token types that differ from a normal token. */
enum { TYPE_UNKNOWN = 2, TYPE_CONTROL = 3, TYPE_USER = 4 };

typedef struct reader {
  const ist_gguf *g;
  ist_tokenizer *t;
  ist_tokens tokens;
  const ist_pre_rule *rule; /* byte-level: how text is split */
} reader;

/* ---- Tokens ---- */

static ist_status read_texts(reader *r, ist_error *err) {
  const ist_gguf_kv *kv = ist_gguf_find(r->g, KEY "tokens");
  ist_tokens *tokens = &r->tokens;
  if (!kv) return ist_fail(err, IST_ERR_FORMAT, "%s: no key " KEY "tokens", r->g->path);
  if (kv->type != IST_GGUF_ARRAY || kv->elem != IST_GGUF_STRING || kv->count == 0 ||
      kv->count > INT32_MAX / 4)
    return ist_fail(err, IST_ERR_FORMAT, "%s: " KEY "tokens is not a list of strings", r->g->path);
  tokens->text = kv->strings;
  tokens->n = (int64_t)kv->count;
  IST_TRY(ist_strtab_init(&tokens->by_text, tokens->text, tokens->n, err));
  for (int32_t i = 0; i < tokens->n; i++) {
    if (kv->strings[i].len == 0) continue; /* stands for nothing, as llama.cpp has it */
    int32_t other = ist_strtab_add(&tokens->by_text, i);
    if (other >= 0)
      return ist_fail(err, IST_ERR_FORMAT, "%s: tokens %" PRId32 " and %" PRId32 " are both '%.*s'",
                      r->g->path, other, i, (int)kv->strings[i].len, kv->strings[i].p);
  }
  return IST_OK;
}

/* An optional list with a number for each token. */
static ist_status read_list(const reader *r, const char *key, const ist_gguf_kv **out,
                            ist_error *err) {
  const ist_gguf_kv *kv = *out = ist_gguf_find(r->g, key);
  if (!kv) return IST_OK;
  if (kv->type != IST_GGUF_ARRAY || kv->elem == IST_GGUF_STRING ||
      kv->count < (uint64_t)r->tokens.n)
    return ist_fail(err, IST_ERR_FORMAT,
                    "%s: %s does not hold a number for each of %" PRId64 " tokens", r->g->path, key,
                    r->tokens.n);
  return IST_OK;
}

static ist_status read_types(reader *r, ist_error *err) {
  const ist_gguf_kv *kv;
  IST_TRY(read_list(r, KEY "token_type", &kv, err));
  for (int64_t i = 0; kv && i < r->tokens.n; i++) {
    double type = ist_gguf_elem_f64(kv, (uint64_t)i);
    if (type == TYPE_CONTROL || type == TYPE_UNKNOWN) r->t->vocab.flags[i] = IST_TOKEN_CONTROL;
    if (type == TYPE_USER) r->t->vocab.flags[i] = IST_TOKEN_USER;
  }
  return IST_OK;
}

/* An optional token id: `absent` when the key is, -1 when out of range. */
static ist_status read_id(const reader *r, const char *key, int32_t absent, int32_t *out,
                          ist_error *err) {
  int64_t id = absent;
  IST_TRY(ist_gguf_get_i64(r->g, key, false, &id, err));
  *out = id >= 0 && id < r->tokens.n ? (int32_t)id : -1;
  return IST_OK;
}

static ist_status read_eog(reader *r, ist_error *err) {
  static const char *const keys[] = {KEY "eos_token_id",     KEY "eot_token_id",
                                     KEY "eom_token_id",     KEY "fim_pad_token_id",
                                     KEY "fim_rep_token_id", KEY "fim_sep_token_id"};
  bool absent[3 + IST_EOG_KEYS];
  for (int k = 0; k < 3 + IST_EOG_KEYS; k++) {
    int32_t id;
    IST_TRY(read_id(r, keys[k], -1, &id, err));
    absent[k] = id < 0;
    if (id >= 0) r->t->vocab.flags[id] |= IST_TOKEN_EOG;
  }
  ist_vocab_mark_eog(&r->t->vocab, &r->tokens, absent + 3);
  return IST_OK;
}

/* Phi-3's markers take the white space behind them, which GGUF has no field for;
 * llama.cpp goes by the model's name too. */
static ist_status strip_phi3(reader *r, ist_error *err) {
  ist_str name = {0};
  char lower[64] = "";
  IST_TRY(ist_gguf_get_str(r->g, "general.name", false, &name, err));
  for (size_t i = 0; i < name.len && i + 1 < sizeof lower; i++)
    lower[i] = (char)tolower((unsigned char)name.p[i]);
  if (!strstr(lower, "phi-3") && !strstr(lower, "phi3")) return IST_OK;
  for (int64_t i = 0; i < r->tokens.n; i++) {
    ist_str s = r->tokens.text[i];
    bool plain = (s.len == 3 && memcmp(s.p, "<s>", 3) == 0) ||
                 (s.len == 5 && memcmp(s.p, "<unk>", 5) == 0) ||
                 (s.len == 13 && memcmp(s.p, "<|endoftext|>", 13) == 0);
    if (ist_token_is_special(&r->t->vocab, (int32_t)i) && !plain)
      r->t->vocab.flags[i] |= IST_TOKEN_RSTRIP;
  }
  return IST_OK;
}

static ist_status read_vocab(reader *r, ist_error *err) {
  ist_vocab *v = &r->t->vocab;
  bool sentencepiece = r->rule == NULL;
  IST_TRY(read_texts(r, err));
  IST_TRY(ist_vocab_begin(v, r->tokens.n, err));
  v->byte_level = !sentencepiece;
  v->add_bos = sentencepiece || ist_pre_rule_add_bos(r->rule);
  IST_TRY(read_types(r, err));
  IST_TRY(read_eog(r, err));
  IST_TRY(ist_vocab_finish(v, &r->tokens, err));
  IST_TRY(read_id(r, KEY "bos_token_id", sentencepiece ? 1 : -1, &v->bos, err));
  IST_TRY(read_id(r, KEY "eos_token_id", sentencepiece ? 2 : -1, &v->eos, err));
  IST_TRY(read_id(r, KEY "unknown_token_id", sentencepiece ? 0 : -1, &v->unk, err));
  IST_TRY(read_id(r, KEY "padding_token_id", -1, &v->pad, err));
  if (sentencepiece && v->eos >= 0) v->flags[v->eos] |= IST_TOKEN_EOG;
  IST_TRY(ist_gguf_get_bool(r->g, KEY "add_bos_token", false, &v->add_bos, err));
  IST_TRY(ist_gguf_get_bool(r->g, KEY "add_eos_token", false, &v->add_eos, err));
  return sentencepiece ? strip_phi3(r, err) : IST_OK;
}

/* ---- Byte-level BPE ---- */

static ist_status fail_merge(const ist_gguf *g, uint64_t i, ist_str merge, const char *what,
                             ist_error *err) {
  return ist_fail(err, IST_ERR_FORMAT, "%s: " KEY "merges[%llu] '%.*s' %s", g->path,
                  (unsigned long long)i, (int)merge.len, merge.p, what);
}

/* Merge i, "left right". */
static ist_status read_merge(reader *r, uint64_t i, ist_str merge, ist_buf *joined,
                             ist_error *err) {
  const char *space = merge.len > 1 ? memchr(merge.p + 1, ' ', merge.len - 1) : NULL;
  size_t left = space ? (size_t)(space - merge.p) : 0;
  if (!space || left + 1 == merge.len)
    return fail_merge(r->g, i, merge, "is not two tokens with a space between", err);
  bool twice;
  bool known = ist_bpe_add(&r->t->bpe, &r->t->vocab, &r->tokens, (ist_str){merge.p, left},
                           (ist_str){space + 1, merge.len - left - 1}, joined, (uint32_t)i, &twice);
  if (joined->failed) return ist_fail_nomem(err, "a merge", merge.len);
  if (!known)
    return fail_merge(r->g, i, merge, "joins or makes something that is not a token", err);
  return twice ? fail_merge(r->g, i, merge, "appears twice", err) : IST_OK;
}

static ist_status read_merges(reader *r, ist_error *err) {
  const ist_gguf_kv *kv = ist_gguf_find(r->g, KEY "merges");
  if (!kv) return ist_fail(err, IST_ERR_FORMAT, "%s: no key " KEY "merges", r->g->path);
  if (kv->type != IST_GGUF_ARRAY || kv->elem != IST_GGUF_STRING || kv->count > INT32_MAX / 4)
    return ist_fail(err, IST_ERR_FORMAT, "%s: " KEY "merges is not a list of strings", r->g->path);
  IST_TRY(ist_bpe_begin(&r->t->bpe, (int64_t)kv->count, err));
  ist_buf joined = {0};
  ist_status status = IST_OK;
  for (uint64_t i = 0; i < kv->count && status == IST_OK; i++)
    status = read_merge(r, i, kv->strings[i], &joined, err);
  ist_buf_free(&joined);
  return status;
}

static ist_status read_byte_level(reader *r, ist_error *err) {
  ist_str pre = {"default", 7};
  IST_TRY(ist_gguf_get_str(r->g, KEY "pre", false, &pre, err));
  r->rule = ist_pre_rule_find(pre);
  if (!r->rule) {
    ist_fail(err, IST_ERR_UNSUPPORTED,
             "%s: " KEY "pre is '%.*s', a pre-tokeniser that is not supported", r->g->path,
             (int)pre.len, pre.p);
    ist_hint(err, "docs/tokenizers.md lists the names that are");
    return IST_ERR_UNSUPPORTED;
  }
  r->t->pre_name = ist_strndup(pre.p, pre.len);
  if (!r->t->pre_name) return ist_fail_nomem(err, "the tokenizer", pre.len);
  IST_TRY(read_vocab(r, err));
  IST_TRY(read_merges(r, err));
  IST_TRY(ist_pre_from_rule(&r->t->pre, r->rule, err));
  return ist_tokenizer_finish(r->t, ist_pre_rule_ignore_merges(r->rule), err);
}

/* ---- SentencePiece ---- */

static ist_status read_scores(reader *r, ist_error *err) {
  const ist_gguf_kv *kv;
  IST_TRY(read_list(r, KEY "scores", &kv, err));
  if (!kv) return ist_fail(err, IST_ERR_FORMAT, "%s: no key " KEY "scores", r->g->path);
  double *score = ist_calloc((size_t)r->tokens.n, sizeof *score);
  if (!score) return ist_fail_nomem(err, "the scores", (size_t)r->tokens.n * sizeof *score);
  for (int64_t i = 0; i < r->tokens.n; i++) score[i] = ist_gguf_elem_f64(kv, (uint64_t)i);
  ist_status status = ist_bpe_from_scores(&r->t->bpe, &r->t->vocab, score, err);
  ist_free(score);
  return status;
}

static ist_status add_step(ist_norm *norm, ist_norm_kind kind, const char *from, const char *to,
                           ist_error *err) {
  ist_norm_step *step = &norm->step[norm->n++];
  *step = (ist_norm_step){.kind = kind, .from = ist_strdup(from), .to = ist_strdup(to)};
  return step->from && step->to ? IST_OK : ist_fail_nomem(err, "the tokenizer", 8);
}

static ist_status read_sentencepiece(reader *r, ist_error *err) {
  ist_tokenizer *t = r->t;
  bool prefix = true;
  t->pre_name = ist_strdup("sentencepiece");
  if (!t->pre_name) return ist_fail_nomem(err, "the tokenizer", 16);
  IST_TRY(read_vocab(r, err));
  IST_TRY(read_scores(r, err));
  t->bpe.byte_fallback = true;
  t->bpe.fuse_unk = true;
  IST_TRY(ist_gguf_get_bool(r->g, KEY "add_space_prefix", false, &prefix, err));
  if (prefix) IST_TRY(add_step(&t->norm, IST_NORM_PREPEND, "", IST_MARK, err));
  IST_TRY(add_step(&t->norm, IST_NORM_REPLACE, " ", IST_MARK, err));
  if (ist_bpe_words_begin_marked(&t->bpe, &t->vocab))
    t->pre.step[t->pre.n++] = (ist_pre_step){.kind = IST_PRE_MARKED_WORDS};
  t->decoding = (ist_decoding){.from = ist_strdup(IST_MARK),
                               .to = ist_strdup(" "),
                               .byte_tokens = true,
                               .strip = ' ',
                               .strip_whole = true,
                               .strip_begin = prefix};
  if (!t->decoding.from || !t->decoding.to) return ist_fail_nomem(err, "the tokenizer", 8);
  return ist_tokenizer_finish(t, false, err);
}

/* ---- The file ---- */

static bool is(ist_str s, const char *text) {
  return s.len == strlen(text) && memcmp(s.p, text, s.len) == 0;
}

static ist_status read_all(reader *r, ist_error *err) {
  ist_str model = {0}, chat = {0};
  IST_TRY(ist_gguf_get_str(r->g, KEY "model", true, &model, err));
  IST_TRY(ist_gguf_get_str(r->g, "tokenizer.chat_template", false, &chat, err));
  if (chat.p) {
    r->t->chat_template = ist_strndup(chat.p, chat.len);
    if (!r->t->chat_template) return ist_fail_nomem(err, "the chat template", chat.len);
  }
  if (is(model, "gpt2")) return read_byte_level(r, err);
  if (is(model, "llama")) return read_sentencepiece(r, err);
  return ist_fail(err, IST_ERR_UNSUPPORTED,
                  "%s: " KEY
                  "model is '%.*s', expected 'gpt2' (byte-level BPE) or 'llama' "
                  "(SentencePiece BPE)",
                  r->g->path, (int)model.len, model.p);
}

ist_status ist_tokenizer_from_gguf(ist_tokenizer **out, const ist_gguf *g, ist_error *err) {
  *out = NULL;
  reader r = {.g = g, .t = ist_calloc(1, sizeof *r.t)};
  if (!r.t) return ist_fail_nomem(err, "the tokenizer", sizeof *r.t);
  ist_status status = read_all(&r, err);
  ist_strtab_free(&r.tokens.by_text);
  if (status != IST_OK) {
    ist_tokenizer_free(r.t);
    return status;
  }
  *out = r.t;
  return IST_OK;
}
