/* Reads the tokens of a byte-level vocabulary from GGUF keys: what bytes each
 * token stands for, which ones are special, and which ones end generation. */
#include <inttypes.h>
#include <string.h>

#include <utf8proc.h>

#include "tokenizer/internal.h"

#define KEY "tokenizer.ggml."

/* GGUF's token types that differ from a normal token. */
enum { TYPE_UNKNOWN = 2, TYPE_CONTROL = 3, TYPE_USER = 4 };

/* ---- The byte map ----
 * Byte-level vocabularies spell bytes as characters: printable Latin-1 as itself,
 * the other 68 bytes as U+0100 and up, in rising order. */

static bool is_itself(int byte) {
  return (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
}

#define MAPPED 324 /* characters below U+0144 can stand for a byte */

static void byte_map(int16_t byte_of[MAPPED]) {
  for (int c = 0; c < MAPPED; c++) byte_of[c] = -1;
  int next = 256;
  for (int byte = 0; byte < 256; byte++) byte_of[is_itself(byte) ? byte : next++] = (int16_t)byte;
}

/* Writes the bytes that `text` spells; returns their number, never more than
 * text.len. Characters outside the map stand for themselves. */
static size_t unmap(char *dst, ist_str text, const int16_t byte_of[MAPPED]) {
  size_t n = 0;
  for (size_t at = 0; at < text.len;) {
    utf8proc_int32_t c;
    utf8proc_ssize_t size = utf8proc_iterate((const utf8proc_uint8_t *)text.p + at,
                                             (utf8proc_ssize_t)(text.len - at), &c);
    if (size > 0 && c < MAPPED && byte_of[c] >= 0) {
      dst[n++] = (char)byte_of[c];
      at += (size_t)size;
    } else {
      for (utf8proc_ssize_t i = 0; i < (size > 0 ? size : 1); i++) dst[n++] = text.p[at++];
    }
  }
  return n;
}

/* ---- End-of-generation tokens ---- */

/* Tokens that end generation wherever they are spelled so. */
static const char *const eog_texts[] = {"<|eot_id|>",
                                        "<|im_end|>",
                                        "<|end|>",
                                        "<|return|>",
                                        "<|call|>",
                                        "<|calls|>",
                                        "<|flush|>",
                                        "<end_of_turn>",
                                        "<|endoftext|>",
                                        "</s>",
                                        "<|eom_id|>",
                                        "<EOT>",
                                        "_<EOT>",
                                        "[EOT]",
                                        "[EOS]",
                                        "<|end_of_text|>",
                                        "<end_of_utterance>",
                                        "<eos>",
                                        "<turn|>",
                                        "<|tool_response|>",
                                        "<｜end▁of▁sentence｜>",
                                        "[e~[",
                                        NULL};

/* Keys that name such a token, and the spellings that stand in for an absent key. */
static const struct {
  const char *key;
  const char *spelling[8];
} eog_keys[] = {
    {KEY "eos_token_id", {NULL}},
    {KEY "eot_token_id", {NULL}}, /* its spellings are all in eog_texts */
    {KEY "eom_token_id", {NULL}},
    {KEY "fim_pad_token_id", {"<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", NULL}},
    {KEY "fim_rep_token_id",
     {"<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>", NULL}},
    {KEY "fim_sep_token_id", {"<|file_sep|>", NULL}},
};

static int32_t find_text(const ist_strtab *texts, const char *text) {
  return ist_strtab_find(texts, text, strlen(text));
}

static void add_eog(ist_vocab *v, int32_t id) {
  if (id >= 0) v->flags[id] |= IST_TOKEN_EOG;
}

/* As add_eog, for a token known by its spelling: that makes it a control token. */
static void add_eog_text(ist_vocab *v, const ist_strtab *texts, const char *text) {
  int32_t id = find_text(texts, text);
  if (id < 0) return;
  v->flags[id] = (uint8_t)((v->flags[id] & ~IST_TOKEN_USER) | IST_TOKEN_CONTROL | IST_TOKEN_EOG);
}

static bool is_eog_text(const ist_vocab *v, const ist_strtab *texts, const char *text) {
  int32_t id = find_text(texts, text);
  return id >= 0 && (v->flags[id] & IST_TOKEN_EOG);
}

static void remove_eog_text(ist_vocab *v, const ist_strtab *texts, const char *text) {
  int32_t id = find_text(texts, text);
  if (id >= 0) v->flags[id] &= (uint8_t)~IST_TOKEN_EOG;
}

/* An optional token id; -1 when absent or out of range. */
static ist_status read_id(const ist_gguf *g, const char *key, int64_t n, int32_t *out,
                          ist_error *err) {
  int64_t id = -1;
  IST_TRY(ist_gguf_get_i64(g, key, false, &id, err));
  *out = id >= 0 && id < n ? (int32_t)id : -1;
  return IST_OK;
}

static ist_status mark_eog(ist_vocab *v, const ist_strtab *texts, const ist_gguf *g,
                           ist_error *err) {
  for (size_t k = 0; k < sizeof eog_keys / sizeof eog_keys[0]; k++) {
    int32_t id;
    IST_TRY(read_id(g, eog_keys[k].key, v->n, &id, err));
    add_eog(v, id);
    for (const char *const *s = eog_keys[k].spelling; id < 0 && *s; s++) {
      id = find_text(texts, *s);
      if (id >= 0) add_eog_text(v, texts, *s);
    }
  }
  for (const char *const *s = eog_texts; *s; s++) add_eog_text(v, texts, *s);
  /* Where a model has tokens for calls and returns, <|end|> only ends a message;
   * where it has one for tool answers, or marks its own end, </s> is plain text. */
  bool calls = is_eog_text(v, texts, "<|call|>") || is_eog_text(v, texts, "<|calls|>");
  bool returns = is_eog_text(v, texts, "<|return|>") || is_eog_text(v, texts, "<|flush|>");
  if (calls && returns) remove_eog_text(v, texts, "<|end|>");
  if (is_eog_text(v, texts, "<|tool_response|>") || find_text(texts, "<|plamo:eos|>") >= 0)
    remove_eog_text(v, texts, "</s>");
  return IST_OK;
}

/* ---- Reading ---- */

static ist_status read_texts(ist_strtab *texts, ist_vocab *v, const ist_gguf *g, ist_error *err) {
  const ist_gguf_kv *kv = ist_gguf_find(g, KEY "tokens");
  if (!kv) return ist_fail(err, IST_ERR_FORMAT, "%s: no key " KEY "tokens", g->path);
  if (kv->type != IST_GGUF_ARRAY || kv->elem != IST_GGUF_STRING || kv->count == 0 ||
      kv->count > INT32_MAX / 4)
    return ist_fail(err, IST_ERR_FORMAT, "%s: " KEY "tokens is not a list of strings", g->path);
  v->n = (int64_t)kv->count;
  IST_TRY(ist_strtab_init(texts, kv->strings, v->n, err));
  for (int32_t i = 0; i < v->n; i++) {
    if (kv->strings[i].len == 0) continue; /* stands for nothing, as llama.cpp has it */
    int32_t other = ist_strtab_add(texts, i);
    if (other >= 0)
      return ist_fail(err, IST_ERR_FORMAT, "%s: tokens %" PRId32 " and %" PRId32 " are both '%.*s'",
                      g->path, other, i, (int)kv->strings[i].len, kv->strings[i].p);
  }
  return IST_OK;
}

static ist_status read_types(ist_vocab *v, const ist_gguf *g, ist_error *err) {
  const ist_gguf_kv *kv = ist_gguf_find(g, KEY "token_type");
  if (!kv) return IST_OK;
  if (kv->type != IST_GGUF_ARRAY || kv->elem == IST_GGUF_STRING || kv->count < (uint64_t)v->n)
    return ist_fail(err, IST_ERR_FORMAT,
                    "%s: " KEY
                    "token_type does not hold a number for each of "
                    "%" PRId64 " tokens",
                    g->path, v->n);
  for (int64_t i = 0; i < v->n; i++) {
    double type = ist_gguf_elem_f64(kv, (uint64_t)i);
    if (type == TYPE_CONTROL || type == TYPE_UNKNOWN) v->flags[i] = IST_TOKEN_CONTROL;
    if (type == TYPE_USER) v->flags[i] = IST_TOKEN_USER;
  }
  return IST_OK;
}

/* The bytes of every token: special ones as they are spelled, others unmapped. */
static ist_status make_bytes(ist_vocab *v, const ist_strtab *texts, ist_error *err) {
  for (int64_t i = 0; i < v->n; i++) v->blob_size += texts->str[i].len;
  v->blob = ist_calloc(v->blob_size, 1);
  if (!v->blob) return ist_fail_nomem(err, "the vocabulary", v->blob_size);
  int16_t byte_of[MAPPED];
  byte_map(byte_of);
  char *at = v->blob;
  for (int32_t i = 0; i < v->n; i++) {
    ist_str text = texts->str[i];
    size_t len = text.len;
    if (!ist_token_is_special(v, i))
      len = unmap(at, text, byte_of);
    else if (len)
      memcpy(at, text.p, len);
    v->bytes[i] = (ist_str){at, len};
    at += len;
  }
  return IST_OK;
}

static ist_status index_bytes(ist_vocab *v, ist_error *err) {
  IST_TRY(ist_strtab_init(&v->by_bytes, v->bytes, v->n, err));
  for (int b = 0; b < 256; b++) v->byte_token[b] = -1;
  for (int32_t i = 0; i < v->n; i++) {
    if (ist_token_is_special(v, i) || v->bytes[i].len == 0) continue;
    ist_strtab_add(&v->by_bytes, i);
    if (v->bytes[i].len == 1) v->byte_token[(unsigned char)v->bytes[i].p[0]] = i;
  }
  return IST_OK;
}

ist_status ist_vocab_read(ist_vocab *v, ist_strtab *texts, const ist_gguf *g, bool add_bos_default,
                          ist_error *err) {
  *v = (ist_vocab){.add_bos = add_bos_default};
  IST_TRY(read_texts(texts, v, g, err));
  v->bytes = ist_calloc((size_t)v->n, sizeof *v->bytes);
  v->flags = ist_calloc((size_t)v->n, sizeof *v->flags);
  if (!v->bytes || !v->flags) return ist_fail_nomem(err, "the vocabulary", (size_t)v->n * 17);
  IST_TRY(read_types(v, g, err));
  IST_TRY(mark_eog(v, texts, g, err));
  IST_TRY(make_bytes(v, texts, err));
  IST_TRY(index_bytes(v, err));
  IST_TRY(read_id(g, KEY "bos_token_id", v->n, &v->bos, err));
  IST_TRY(read_id(g, KEY "eos_token_id", v->n, &v->eos, err));
  IST_TRY(ist_gguf_get_bool(g, KEY "add_bos_token", false, &v->add_bos, err));
  IST_TRY(ist_gguf_get_bool(g, KEY "add_eos_token", false, &v->add_eos, err));
  if (v->bos < 0) v->add_bos = false;
  if (v->eos < 0) v->add_eos = false;
  return IST_OK;
}

void ist_vocab_free(ist_vocab *v) {
  ist_strtab_free(&v->by_bytes);
  ist_free(v->bytes);
  ist_free(v->blob);
  ist_free(v->flags);
  *v = (ist_vocab){0};
}
