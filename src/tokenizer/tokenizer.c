/* The tokenizer: special tokens, then pieces, then merges. */
#include "tokenizer/tokenizer.h"

#include <inttypes.h>
#include <string.h>

#include "tokenizer/internal.h"

struct ist_tokenizer {
  ist_vocab vocab;
  ist_specials specials;
  ist_bpe bpe;
  ist_pre *pre;
  char *pre_name, *chat_template; /* chat_template: NULL when the file has none */
};

ist_status ist_ids_add(ist_ids *ids, int32_t id, ist_error *err) {
  if (ids->n == ids->cap) IST_TRY(ist_grow(&ids->p, &ids->cap, ids->n + 1, sizeof *ids->p, err));
  ids->p[ids->n++] = id;
  return IST_OK;
}

void ist_ids_free(ist_ids *ids) {
  ist_free(ids->p);
  *ids = (ist_ids){0};
}

/* ---- Reading ---- */

static ist_status copy_str(char **out, ist_str s, ist_error *err) {
  *out = ist_strndup(s.p, s.len);
  return *out ? IST_OK : ist_fail_nomem(err, "the tokenizer", s.len + 1);
}

/* Marks the tokens that their own bytes lead to, so that most words are found by
 * one look-up. With ignore_merges a token is taken even where merging would not make it. */
static ist_status mark_whole(ist_tokenizer *t, bool ignore_merges, ist_error *err) {
  ist_vocab *v = &t->vocab;
  ist_bpe_scratch scratch = {0};
  ist_ids ids = {0};
  ist_status status = IST_OK;
  for (int32_t i = 0; i < v->n && status == IST_OK; i++) {
    if (ist_token_is_special(v, i) || v->bytes[i].len == 0) continue;
    bool whole = ignore_merges;
    if (!whole) {
      ids.n = 0;
      status = ist_bpe_encode(&t->bpe, v, &scratch, v->bytes[i].p, v->bytes[i].len, &ids, err);
      whole = ids.n == 1 && ids.p[0] == i;
    }
    if (whole) v->flags[i] |= IST_TOKEN_WHOLE;
  }
  ist_bpe_scratch_free(&scratch);
  ist_ids_free(&ids);
  return status;
}

/* The splitting rule that the file asks for. */
static ist_status read_rule(const ist_pre_rule **rule, ist_str *pre, const ist_gguf *g,
                            ist_error *err) {
  ist_str model = {0};
  IST_TRY(ist_gguf_get_str(g, "tokenizer.ggml.model", true, &model, err));
  if (model.len != 4 || memcmp(model.p, "gpt2", 4) != 0)
    return ist_fail(err, IST_ERR_UNSUPPORTED,
                    "%s: tokenizer.ggml.model is '%.*s', only byte-level BPE ('gpt2') is supported",
                    g->path, (int)model.len, model.p);
  IST_TRY(ist_gguf_get_str(g, "tokenizer.ggml.pre", true, pre, err));
  *rule = ist_pre_rule_find(*pre);
  if (*rule) return IST_OK;
  ist_fail(err, IST_ERR_UNSUPPORTED,
           "%s: tokenizer.ggml.pre is '%.*s', a pre-tokeniser that is not supported", g->path,
           (int)pre->len, pre->p);
  ist_hint(err, "supported are gpt-2, llama-bpe, qwen2, smollm and other names for the same rules");
  return IST_ERR_UNSUPPORTED;
}

static ist_status read_all(ist_tokenizer *t, ist_strtab *texts, const ist_gguf *g, ist_error *err) {
  const ist_pre_rule *rule = NULL;
  ist_str pre = {0}, chat = {0};
  IST_TRY(read_rule(&rule, &pre, g, err));
  IST_TRY(ist_gguf_get_str(g, "tokenizer.chat_template", false, &chat, err));
  IST_TRY(copy_str(&t->pre_name, pre, err));
  if (chat.p) IST_TRY(copy_str(&t->chat_template, chat, err));
  IST_TRY(ist_vocab_read(&t->vocab, texts, g, ist_pre_rule_add_bos(rule), err));
  IST_TRY(ist_specials_init(&t->specials, &t->vocab, err));
  IST_TRY(ist_bpe_read(&t->bpe, &t->vocab, texts, g, err));
  IST_TRY(ist_pre_new(&t->pre, rule, err));
  return mark_whole(t, ist_pre_rule_ignore_merges(rule), err);
}

ist_status ist_tokenizer_from_gguf(ist_tokenizer **out, const ist_gguf *g, ist_error *err) {
  *out = NULL;
  ist_tokenizer *t = ist_calloc(1, sizeof *t);
  if (!t) return ist_fail_nomem(err, "the tokenizer", sizeof *t);
  ist_strtab texts = {0};
  ist_status status = read_all(t, &texts, g, err);
  ist_strtab_free(&texts);
  if (status != IST_OK) {
    ist_tokenizer_free(t);
    return status;
  }
  *out = t;
  return IST_OK;
}

void ist_tokenizer_free(ist_tokenizer *t) {
  if (!t) return;
  ist_vocab_free(&t->vocab);
  ist_specials_free(&t->specials);
  ist_bpe_free(&t->bpe);
  ist_pre_free(t->pre);
  ist_free(t->pre_name);
  ist_free(t->chat_template);
  ist_free(t);
}

/* ---- Encoding ---- */

typedef struct encoder {
  const ist_tokenizer *t;
  ist_pieces pieces;
  ist_bpe_scratch scratch;
  ist_special_hits hits;
  ist_ids *out;
} encoder;

/* Text without special tokens. */
static ist_status encode_plain(encoder *e, const char *text, size_t len, ist_error *err) {
  const ist_vocab *v = &e->t->vocab;
  ist_pieces_start(&e->pieces, text, len);
  for (;;) {
    const char *piece;
    size_t size;
    IST_TRY(ist_pieces_next(&e->pieces, &piece, &size, err));
    if (size == 0) return IST_OK;
    int32_t id = ist_strtab_find(&v->by_bytes, piece, size);
    if (id >= 0 && (v->flags[id] & IST_TOKEN_WHOLE))
      IST_TRY(ist_ids_add(e->out, id, err));
    else
      IST_TRY(ist_bpe_encode(&e->t->bpe, v, &e->scratch, piece, size, e->out, err));
  }
}

static ist_status encode_all(encoder *e, const char *text, size_t len, bool parse_special,
                             ist_error *err) {
  const ist_specials *specials = &e->t->specials;
  IST_TRY(ist_pieces_init(&e->pieces, e->t->pre, err));
  IST_TRY(ist_specials_find(specials, &e->t->vocab, text, len, parse_special, &e->hits, err));
  size_t at = 0;
  for (int64_t i = 0; i < e->hits.n; i++) {
    int32_t id = specials->id[e->hits.p[i].rank];
    size_t begin = (size_t)e->hits.p[i].at;
    IST_TRY(encode_plain(e, text + at, begin - at, err));
    IST_TRY(ist_ids_add(e->out, id, err));
    at = begin + e->t->vocab.bytes[id].len;
  }
  return encode_plain(e, text + at, len - at, err);
}

ist_status ist_tokenizer_encode(const ist_tokenizer *t, const char *text, size_t len,
                                bool parse_special, ist_ids *out, ist_error *err) {
  if (len == 0) return IST_OK;
  if (len > INT32_MAX)
    return ist_fail(err, IST_ERR_DATA, "a text of %zu bytes, at most %d can be tokenised", len,
                    INT32_MAX);
  encoder e = {.t = t, .out = out};
  int64_t before = out->n;
  ist_status status = encode_all(&e, text, len, parse_special, err);
  if (status != IST_OK) out->n = before;
  ist_pieces_free(&e.pieces);
  ist_bpe_scratch_free(&e.scratch);
  ist_free(e.hits.p);
  return status;
}

ist_status ist_tokenizer_decode(const ist_tokenizer *t, const int32_t *ids, int64_t n, bool special,
                                ist_buf *out, ist_error *err) {
  const ist_vocab *v = &t->vocab;
  for (int64_t i = 0; i < n; i++) {
    if (ids[i] < 0 || ids[i] >= v->n)
      return ist_fail(err, IST_ERR_DATA,
                      "token id %" PRId32 " at %" PRId64 ", the vocabulary has %" PRId64 " tokens",
                      ids[i], i, v->n);
    if (!special && (v->flags[ids[i]] & IST_TOKEN_CONTROL)) continue;
    ist_buf_add(out, v->bytes[ids[i]].p, v->bytes[ids[i]].len);
  }
  return out->failed ? ist_fail_nomem(err, "decoded text", out->len) : IST_OK;
}

/* ---- Facts ---- */

int64_t ist_tokenizer_size(const ist_tokenizer *t) {
  return t->vocab.n;
}

int32_t ist_tokenizer_find(const ist_tokenizer *t, const char *text) {
  size_t len = strlen(text);
  for (int64_t i = 0; i < t->specials.n; i++) {
    int32_t id = t->specials.id[i];
    if (t->vocab.bytes[id].len == len && memcmp(t->vocab.bytes[id].p, text, len) == 0) return id;
  }
  return -1;
}

int32_t ist_tokenizer_bos(const ist_tokenizer *t) {
  return t->vocab.bos;
}
int32_t ist_tokenizer_eos(const ist_tokenizer *t) {
  return t->vocab.eos;
}
bool ist_tokenizer_add_bos(const ist_tokenizer *t) {
  return t->vocab.add_bos;
}
bool ist_tokenizer_add_eos(const ist_tokenizer *t) {
  return t->vocab.add_eos;
}

static bool has_flag(const ist_tokenizer *t, int32_t id, int flag) {
  return id >= 0 && id < t->vocab.n && (t->vocab.flags[id] & flag);
}
bool ist_tokenizer_is_eog(const ist_tokenizer *t, int32_t id) {
  return has_flag(t, id, IST_TOKEN_EOG);
}
bool ist_tokenizer_is_control(const ist_tokenizer *t, int32_t id) {
  return has_flag(t, id, IST_TOKEN_CONTROL);
}

const char *ist_tokenizer_chat_template(const ist_tokenizer *t) {
  return t->chat_template;
}
const char *ist_tokenizer_pre(const ist_tokenizer *t) {
  return t->pre_name;
}

size_t ist_tokenizer_bytes(const ist_tokenizer *t) {
  const ist_vocab *v = &t->vocab;
  size_t n = (size_t)v->n;
  return sizeof *t + v->blob_size + n * (sizeof *v->bytes + sizeof *v->flags) +
         ((size_t)v->by_bytes.mask + 1) * sizeof *v->by_bytes.slot +
         ((size_t)t->bpe.mask + 1) * sizeof *t->bpe.merge +
         (size_t)t->bpe.n * sizeof *t->bpe.result + (size_t)t->specials.n * sizeof *t->specials.id +
         ist_pre_bytes(t->pre) + strlen(t->pre_name) +
         (t->chat_template ? strlen(t->chat_template) : 0);
}
