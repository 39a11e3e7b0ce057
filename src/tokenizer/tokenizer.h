/* Tokenizers read from a model file: text <-> token ids. */
#ifndef IST_TOKENIZER_TOKENIZER_H
#define IST_TOKENIZER_TOKENIZER_H

#include "base/error.h"
#include "base/mem.h"
#include "format/gguf.h"
#include "jinja/jinja.h"

/* Reads tokenizer.ggml.*: byte-level BPE by one of the splitting rules of rules.c
 * (model gpt2), or SentencePiece's BPE by scores (model llama). Others are refused
 * by name. Copies what it needs: the file may be closed afterwards. */
ist_status ist_tokenizer_from_gguf(ist_tokenizer **out, const ist_gguf *g, ist_error *err);
/* Reads tokenizer.json of a Hugging Face folder: BPE, byte-level or by characters,
 * with its normalizers, pre-tokenizers, added tokens and decoders; and, where they
 * are there, tokenizer_config.json, special_tokens_map.json, generation_config.json
 * and chat_template.jinja. What is not supported is refused by name. */
ist_status ist_tokenizer_open_json(ist_tokenizer **out, const char *folder, ist_error *err);

/* A growable list of token ids; zero-initialise. */
typedef struct ist_ids {
  int32_t *p;
  int64_t n, cap;
} ist_ids;
ist_status ist_ids_add(ist_ids *ids, int32_t id, ist_error *err);
void ist_ids_free(ist_ids *ids);

/* Appends the ids of `len` bytes of text (any bytes; broken UTF-8 round-trips). A
 * byte that the vocabulary has no token for is left out, as llama.cpp does.
 * parse_special: the texts of control tokens become those tokens; otherwise
 * only user-defined tokens do. No BOS/EOS is added. Thread-safe on one tokenizer.
 * On error *out is as it was. */
ist_status ist_tokenizer_encode(const ist_tokenizer *t, const char *text, size_t len,
                                bool parse_special, ist_ids *out, ist_error *err);
/* The same with more to say about the text. */
typedef struct ist_encode_query {
  const char *text;
  size_t len;
  bool special; /* parse_special, unless `literal` is there: */
  /* A byte for each of the text's, nonzero where it may be part of a control token. */
  const uint8_t *literal;
  bool continued; /* the text goes on where another ended: no space is put before it */
  /* The text goes on behind a token that was cut out: it begins as it would there in the whole,
   * whatever `continued` says. */
  bool after_token;
  bool *ends_in_token; /* set: the text ends in such a token; NULL: nobody asks */
} ist_encode_query;
ist_status ist_tokenizer_encode_query(const ist_tokenizer *t, const ist_encode_query *q,
                                      ist_ids *out, ist_error *err);
/* Where the first, or the last, of the text's tokens that end generation ends, in bytes, white
 * space that the token takes with it included; 0: there is none. Of those cut out of the text as it
 * stands, which control tokens are. */
ist_status ist_tokenizer_find_end(const ist_tokenizer *t, const ist_encode_query *q, bool first,
                                  size_t *end, ist_error *err);
/* Appends the bytes of the tokens; `special`: control tokens give their text,
 * else nothing. Ids out of range are an error. */
ist_status ist_tokenizer_decode(const ist_tokenizer *t, const int32_t *ids, int64_t n, bool special,
                                ist_buf *out, ist_error *err);
/* As decode, of one token as it stands inside a text: a space that the tokenizer
 * puts before every text is kept. */
ist_status ist_tokenizer_decode_piece(const ist_tokenizer *t, int32_t id, bool special,
                                      ist_buf *out, ist_error *err);

/* The end of the valid UTF-8 that begins at p. */
const char *ist_skip_valid(const char *p, const char *end);

int64_t ist_tokenizer_size(const ist_tokenizer *t);                   /* number of tokens */
int32_t ist_tokenizer_find(const ist_tokenizer *t, const char *text); /* special by text; -1 */
int32_t ist_tokenizer_bos(const ist_tokenizer *t);                    /* -1: none */
int32_t ist_tokenizer_unk(const ist_tokenizer *t);
int32_t ist_tokenizer_pad(const ist_tokenizer *t);
int32_t ist_tokenizer_eos(const ist_tokenizer *t);
/* The tokens that stand around every text: BOS and EOS of a file that asks for
 * them, or those of a post-processor. */
const ist_ids *ist_tokenizer_before(const ist_tokenizer *t);
const ist_ids *ist_tokenizer_behind(const ist_tokenizer *t);
bool ist_tokenizer_add_bos(const ist_tokenizer *t);            /* there are some before, */
bool ist_tokenizer_add_eos(const ist_tokenizer *t);            /* behind it */
bool ist_tokenizer_is_eog(const ist_tokenizer *t, int32_t id); /* ends generation */
bool ist_tokenizer_is_control(const ist_tokenizer *t, int32_t id);
const char *ist_tokenizer_chat_template(const ist_tokenizer *t); /* NULL: none */
/* The same parsed; NULL also where it does not parse. */
const ist_jinja *ist_tokenizer_chat(const ist_tokenizer *t);
const char *ist_tokenizer_pre(const ist_tokenizer *t); /* "smollm", ... */
size_t ist_tokenizer_bytes(const ist_tokenizer *t);    /* memory held, for the plan */

#endif
