/* A vocabulary: what bytes each token stands for, which tokens are special, and
 * which ones end generation. */
#include <inttypes.h>
#include <string.h>

#include <utf8proc.h>

#include "tokenizer/internal.h"

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

void ist_spell_bytes(ist_buf *out, const char *p, size_t len) {
  uint16_t spelled[256];
  int next = 256;
  for (int byte = 0; byte < 256; byte++)
    spelled[byte] = (uint16_t)(is_itself(byte) ? byte : next++);
  for (size_t i = 0; i < len; i++) {
    utf8proc_uint8_t text[4];
    ist_buf_add(out, text, (size_t)utf8proc_encode_char(spelled[(unsigned char)p[i]], text));
  }
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

/* Spellings of the fill-in-the-middle tokens that end generation, by role. */
static const char *const fim_texts[IST_EOG_KEYS][6] = {
    [IST_EOG_PAD] = {"<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>"},
    [IST_EOG_REPO] = {"<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"},
    [IST_EOG_SEP] = {"<|file_sep|>"},
};

static int32_t find_text(const ist_tokens *tokens, const char *text) {
  return ist_strtab_find(&tokens->by_text, text, strlen(text));
}

/* Marks a token known by its spelling: that makes it a control token, and those are matched in
 * the raw text. */
static bool add_eog_text(ist_vocab *v, const ist_tokens *tokens, const char *text) {
  int32_t id = find_text(tokens, text);
  if (id < 0) return false;
  int flags = v->flags[id] & ~(IST_TOKEN_USER | IST_TOKEN_NORMALIZED);
  v->flags[id] = (uint16_t)(flags | IST_TOKEN_CONTROL | IST_TOKEN_EOG);
  return true;
}

static bool is_eog_text(const ist_vocab *v, const ist_tokens *tokens, const char *text) {
  int32_t id = find_text(tokens, text);
  return id >= 0 && (v->flags[id] & IST_TOKEN_EOG);
}

static void remove_eog_text(ist_vocab *v, const ist_tokens *tokens, const char *text) {
  int32_t id = find_text(tokens, text);
  if (id >= 0) v->flags[id] &= (uint16_t)~IST_TOKEN_EOG;
}

void ist_vocab_mark_eog(ist_vocab *v, const ist_tokens *tokens, const bool absent[IST_EOG_KEYS]) {
  for (int k = 0; k < IST_EOG_KEYS; k++)
    for (int i = 0; absent[k] && i < 6 && fim_texts[k][i]; i++)
      if (add_eog_text(v, tokens, fim_texts[k][i])) break;
  for (const char *const *s = eog_texts; *s; s++) add_eog_text(v, tokens, *s);
  /* Where a model has tokens for calls and returns, <|end|> only ends a message;
   * where it has one for tool answers, or marks its own end, </s> is plain text. */
  bool calls = is_eog_text(v, tokens, "<|call|>") || is_eog_text(v, tokens, "<|calls|>");
  bool returns = is_eog_text(v, tokens, "<|return|>") || is_eog_text(v, tokens, "<|flush|>");
  if (calls && returns) remove_eog_text(v, tokens, "<|end|>");
  if (is_eog_text(v, tokens, "<|tool_response|>") || find_text(tokens, "<|plamo:eos|>") >= 0)
    remove_eog_text(v, tokens, "</s>");
}

/* ---- Building ---- */

ist_status ist_vocab_begin(ist_vocab *v, int64_t n, ist_error *err) {
  *v = (ist_vocab){.n = n, .bos = -1, .eos = -1, .unk = -1, .pad = -1};
  for (int b = 0; b < 256; b++) v->byte_token[b] = -1;
  v->bytes = ist_calloc((size_t)n, sizeof *v->bytes);
  v->flags = ist_calloc((size_t)n, sizeof *v->flags);
  return v->bytes && v->flags ? IST_OK : ist_fail_nomem(err, "the vocabulary", (size_t)n * 18);
}

/* The bytes of every token: special ones as they are spelled, others unmapped. */
static ist_status make_bytes(ist_vocab *v, const ist_tokens *tokens, ist_error *err) {
  for (int64_t i = 0; i < v->n; i++) v->blob_size += tokens->text[i].len;
  v->blob = ist_calloc(v->blob_size, 1);
  if (!v->blob) return ist_fail_nomem(err, "the vocabulary", v->blob_size);
  int16_t byte_of[MAPPED];
  byte_map(byte_of);
  char *at = v->blob;
  for (int32_t i = 0; i < v->n; i++) {
    ist_str text = tokens->text[i];
    size_t len = text.len;
    if (v->byte_level && !ist_token_is_special(v, i))
      len = unmap(at, text, byte_of);
    else if (len)
      memcpy(at, text.p, len);
    v->bytes[i] = (ist_str){at, len};
    at += len;
  }
  return IST_OK;
}

/* The byte that a token spells as <0xNN>; -1: none. */
static int spelled_byte(ist_str s) {
  static const char digits[] = "0123456789ABCDEF";
  if (s.len != 6 || memcmp(s.p, "<0x", 3) != 0 || s.p[5] != '>') return -1;
  const char *high = memchr(digits, s.p[3], 16), *low = memchr(digits, s.p[4], 16);
  return high && low ? (int)((high - digits) * 16 + (low - digits)) : -1;
}

/* The byte that a token of one character spells in a byte-level vocabulary; -1: none. */
static int mapped_byte(ist_str s, const int16_t byte_of[MAPPED]) {
  utf8proc_int32_t c;
  if (s.len == 0 || s.len > 2) return -1;
  utf8proc_ssize_t size =
      utf8proc_iterate((const utf8proc_uint8_t *)s.p, (utf8proc_ssize_t)s.len, &c);
  return size == (utf8proc_ssize_t)s.len && c < MAPPED ? byte_of[c] : -1;
}

static bool is_one_char(ist_str s) {
  utf8proc_int32_t c;
  return utf8proc_iterate((const utf8proc_uint8_t *)s.p, (utf8proc_ssize_t)s.len, &c) ==
         (utf8proc_ssize_t)s.len;
}

/* What text is made of first are the tokens of single bytes or characters, whatever else they
 * are: where one that is special is not cut out, it stands for its byte or character all the
 * same. Of the longer ones merging makes control tokens never, and user-defined ones where they
 * are spelled as other tokens are. */
static ist_status index_bytes(ist_vocab *v, const ist_tokens *tokens, ist_error *err) {
  int16_t byte_of[MAPPED];
  byte_map(byte_of);
  int never = v->byte_level ? IST_TOKEN_CONTROL | IST_TOKEN_USER : IST_TOKEN_CONTROL;
  IST_TRY(ist_strtab_init(&v->by_bytes, v->bytes, v->n, err));
  for (int32_t i = 0; i < v->n; i++) {
    if (v->bytes[i].len == 0 || (v->flags[i] & IST_TOKEN_ADDED)) continue;
    int byte = v->byte_level ? mapped_byte(tokens->text[i], byte_of) : spelled_byte(v->bytes[i]);
    if (byte >= 0) v->byte_token[byte] = i;
    if (byte >= 0 && !v->byte_level)
      v->flags[i] |= IST_TOKEN_BYTE;
    else if (!(v->flags[i] & never) || (!v->byte_level && is_one_char(v->bytes[i])))
      ist_strtab_add(&v->by_bytes, i);
  }
  return IST_OK;
}

ist_status ist_vocab_finish(ist_vocab *v, const ist_tokens *tokens, ist_error *err) {
  IST_TRY(make_bytes(v, tokens, err));
  return index_bytes(v, tokens, err);
}

void ist_vocab_free(ist_vocab *v) {
  ist_strtab_free(&v->by_bytes);
  ist_free(v->bytes);
  ist_free(v->blob);
  ist_free(v->flags);
  *v = (ist_vocab){0};
}
