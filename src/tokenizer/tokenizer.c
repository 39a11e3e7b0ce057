/* The tokenizer: special tokens, then pieces, then merges. */
#include "tokenizer/tokenizer.h"

#include <inttypes.h>
#include <string.h>

#include "tokenizer/internal.h"

ist_status ist_ids_add(ist_ids *ids, int32_t id, ist_error *err) {
  if (ids->n == ids->cap) IST_TRY(ist_grow(&ids->p, &ids->cap, ids->n + 1, sizeof *ids->p, err));
  ids->p[ids->n++] = id;
  return IST_OK;
}

void ist_ids_free(ist_ids *ids) {
  ist_free(ids->p);
  *ids = (ist_ids){0};
}

/* ---- Building ---- */

/* Marks the tokens that their own bytes lead to, so that most words are found by
 * one look-up. With ignore_merges a token is taken even where merging would not make it. */
static ist_status mark_whole(ist_tokenizer *t, bool ignore_merges, ist_error *err) {
  ist_vocab *v = &t->vocab;
  ist_bpe_scratch scratch = {0};
  ist_ids ids = {0};
  ist_status status = IST_OK;
  for (int32_t i = 0; i < v->n && status == IST_OK; i++) {
    ist_str text = v->bytes[i];
    if (text.len == 0 || ist_strtab_find(&v->by_bytes, text.p, text.len) != i) continue;
    bool whole = ignore_merges;
    if (!whole) {
      ids.n = 0;
      status = ist_bpe_encode(&t->bpe, v, &scratch, text.p, text.len, &ids, err);
      whole = ids.n == 1 && ids.p[0] == i;
    }
    if (whole) v->flags[i] |= IST_TOKEN_WHOLE;
  }
  ist_bpe_scratch_free(&scratch);
  ist_ids_free(&ids);
  return status;
}

/* The text that a token is matched as after normalising. */
static ist_status add_normalized(ist_tokenizer *t, int32_t id, ist_buf *text, ist_buf *spare,
                                 ist_growth *growth, ist_error *err) {
  ist_buf_clear(text);
  ist_buf_add(text, t->vocab.bytes[id].p, t->vocab.bytes[id].len);
  if (text->failed) return ist_fail_nomem(err, "a special token", t->vocab.bytes[id].len);
  IST_TRY(ist_norm_apply(&t->norm, text, spare, false, growth, err));
  return ist_specials_add(&t->normalized, text->p, text->len, id, err);
}

static ist_status index_specials(ist_tokenizer *t, ist_error *err) {
  const ist_vocab *v = &t->vocab;
  ist_buf text = {0}, spare = {0};
  ist_growth growth = ist_growth_of(v->blob_size); /* of all of them */
  ist_status status = IST_OK;
  for (int32_t i = 0; i < v->n && status == IST_OK; i++) {
    if (!ist_token_is_special(v, i)) continue;
    if (v->flags[i] & IST_TOKEN_NORMALIZED)
      status = add_normalized(t, i, &text, &spare, &growth, err);
    else
      status = ist_specials_add(&t->raw, v->bytes[i].p, v->bytes[i].len, i, err);
    if (status != IST_OK) ist_error_context(err, "special token %" PRId32, i);
  }
  ist_buf_free(&text);
  ist_buf_free(&spare);
  return status;
}

ist_status ist_tokenizer_finish(ist_tokenizer *t, bool ignore_merges, ist_error *err) {
  ist_bpe_finish(&t->bpe, &t->vocab);
  IST_TRY(index_specials(t, err));
  const ist_vocab *v = &t->vocab;
  if (v->add_bos && v->bos >= 0) IST_TRY(ist_ids_add(&t->before, v->bos, err));
  if (v->add_eos && v->eos >= 0) IST_TRY(ist_ids_add(&t->behind, v->eos, err));
  /* A template that does not parse is no hindrance until it is asked for. */
  const char *chat = t->chat_template;
  if (chat && ist_jinja_parse(&t->chat, chat, strlen(chat), NULL) == IST_ERR_NOMEM)
    return ist_fail_nomem(err, "the chat template", strlen(chat));
  return mark_whole(t, ignore_merges, err);
}

void ist_tokenizer_free(ist_tokenizer *t) {
  if (!t) return;
  ist_vocab_free(&t->vocab);
  ist_specials_free(&t->raw);
  ist_specials_free(&t->normalized);
  ist_norm_free(&t->norm);
  ist_bpe_free(&t->bpe);
  ist_pre_free(&t->pre);
  ist_ids_free(&t->before);
  ist_ids_free(&t->behind);
  ist_free(t->decoding.from);
  ist_free(t->decoding.to);
  ist_free(t->pre_name);
  ist_free(t->chat_template);
  ist_jinja_free(t->chat);
  ist_free(t);
}

/* ---- Encoding ---- */

/* In a long text the same words come again and again: the tokens of short pieces
 * are remembered, by a hash of their bytes. */
enum { CACHE = 4096, CACHE_BYTES = 16, CACHE_IDS = 6, CACHE_FROM = 32768 };
typedef struct cached {
  uint64_t key[2]; /* the bytes, zeros behind them */
  int32_t ids[CACHE_IDS];
  uint8_t len, n; /* len 0: empty */
} cached;

typedef struct encoder {
  const ist_tokenizer *t;
  cached *cache; /* CACHE entries; NULL: the text is too short for it */
  ist_pieces pieces;
  ist_bpe_scratch scratch;
  ist_special_hits raw_hits, hits;
  ist_buf text, spare; /* a stretch being normalised */
  ist_ids *out;
} encoder;

static ist_status encode_new(encoder *e, const char *piece, size_t size, ist_error *err) {
  const ist_vocab *v = &e->t->vocab;
  int32_t id = ist_strtab_find(&v->by_bytes, piece, size);
  if (id >= 0 && (v->flags[id] & IST_TOKEN_WHOLE)) return ist_ids_add(e->out, id, err);
  return ist_bpe_encode(&e->t->bpe, v, &e->scratch, piece, size, e->out, err);
}

static ist_status encode_piece(encoder *e, const char *piece, size_t size, ist_error *err) {
  if (!e->cache || size > CACHE_BYTES) return encode_new(e, piece, size, err);
  uint64_t key[2] = {0};
  memcpy(key, piece, size);
  uint64_t hash = (key[0] ^ key[1] * UINT64_C(0xC2B2AE3D27D4EB4F)) * UINT64_C(0x9E3779B97F4A7C15);
  cached *c = &e->cache[hash >> 52];
  if (c->len == size && c->key[0] == key[0] && c->key[1] == key[1]) {
    for (int i = 0; i < c->n; i++) IST_TRY(ist_ids_add(e->out, c->ids[i], err));
    return IST_OK;
  }
  int64_t from = e->out->n;
  IST_TRY(encode_new(e, piece, size, err));
  int64_t n = e->out->n - from;
  if (n > CACHE_IDS) return IST_OK;
  *c = (cached){.key = {key[0], key[1]}, .len = (uint8_t)size, .n = (uint8_t)n};
  memcpy(c->ids, e->out->p + from, (size_t)n * sizeof *c->ids);
  return IST_OK;
}

/* Text without special tokens. `first`: with it the whole text begins; `continued`: with it goes on
 * another. */
static ist_status encode_plain(encoder *e, const char *text, size_t len, bool first, bool continued,
                               ist_error *err) {
  ist_pieces_start(&e->pieces, text, len, first, continued);
  for (;;) {
    const char *piece;
    size_t size;
    IST_TRY(ist_pieces_next(&e->pieces, &piece, &size, err));
    if (size == 0) return IST_OK;
    IST_TRY(encode_piece(e, piece, size, err));
  }
}

/* A stretch between tokens of the raw text: normalised, and searched for tokens
 * of the normalised text. */
static ist_status encode_stretch(encoder *e, const char *text, size_t len, bool first,
                                 bool continued, ist_error *err) {
  if (len == 0) return IST_OK;
  if (e->t->norm.n) {
    ist_buf_clear(&e->text);
    ist_buf_add(&e->text, text, len);
    if (e->text.failed) return ist_fail_nomem(err, "normalising a text", len);
    IST_TRY(ist_norm_apply(&e->t->norm, &e->text, &e->spare, continued, &e->pieces.growth, err));
    text = e->text.p;
    len = e->text.len;
  }
  /* Control tokens are all matched in the raw text, where it is known what may be one. */
  const ist_special_query q = {.text = text, .len = len, .leftmost = true};
  IST_TRY(ist_specials_find(&e->t->normalized, &e->t->vocab, &q, &e->hits, err));
  size_t at = 0;
  for (int64_t i = 0; i < e->hits.n; i++) {
    ist_special_hit hit = e->hits.p[i];
    IST_TRY(encode_plain(e, text + at, (size_t)hit.at - at, first && at == 0, continued && at == 0,
                         err));
    IST_TRY(ist_ids_add(e->out, hit.id, err));
    at = (size_t)(hit.at + hit.len);
  }
  return encode_plain(e, text + at, len - at, first && at == 0, continued && at == 0, err);
}

/* The tokens that are cut out of the text as it stands. */
static ist_status find_raw(const ist_tokenizer *t, const ist_encode_query *q, ist_special_hits *out,
                           ist_error *err) {
  const ist_special_query special = {.text = q->text,
                                     .len = q->len,
                                     .leftmost = t->leftmost,
                                     .control = q->special,
                                     .literal = q->literal};
  return ist_specials_find(&t->raw, &t->vocab, &special, out, err);
}

static ist_status encode_all(encoder *e, const ist_encode_query *q, ist_error *err) {
  IST_TRY(ist_pieces_init(&e->pieces, &e->t->pre, err));
  e->pieces.growth = ist_growth_of(q->len);
  IST_TRY(find_raw(e->t, q, &e->raw_hits, err));
  size_t at = 0;
  for (int64_t i = 0; i <= e->raw_hits.n; i++) {
    bool last = i == e->raw_hits.n, begins = at == 0 && !q->after_token;
    ist_special_hit hit = last ? (ist_special_hit){(int32_t)q->len, 0, -1} : e->raw_hits.p[i];
    IST_TRY(encode_stretch(e, q->text + at, (size_t)hit.at - at, begins && !q->continued,
                           begins && q->continued, err));
    if (!last) IST_TRY(ist_ids_add(e->out, hit.id, err));
    if (last && q->ends_in_token) *q->ends_in_token = at == q->len;
    at = (size_t)(hit.at + hit.len);
  }
  return IST_OK;
}

static ist_status check_length(const ist_encode_query *q, ist_error *err) {
  if (q->len <= INT32_MAX) return IST_OK;
  return ist_fail(err, IST_ERR_DATA, "a text of %zu bytes, at most %d can be tokenised", q->len,
                  INT32_MAX);
}

ist_status ist_tokenizer_encode_query(const ist_tokenizer *t, const ist_encode_query *q,
                                      ist_ids *out, ist_error *err) {
  if (q->len == 0) return IST_OK;
  IST_TRY(check_length(q, err));
  encoder e = {.t = t, .out = out};
  if (q->len >= CACHE_FROM) e.cache = ist_calloc(CACHE, sizeof *e.cache);
  int64_t before = out->n;
  ist_status status = encode_all(&e, q, err);
  if (status != IST_OK) out->n = before;
  ist_pieces_free(&e.pieces);
  ist_bpe_scratch_free(&e.scratch);
  ist_free(e.cache);
  ist_free(e.hits.p);
  ist_free(e.raw_hits.p);
  ist_buf_free(&e.text);
  ist_buf_free(&e.spare);
  return status;
}

ist_status ist_tokenizer_find_end(const ist_tokenizer *t, const ist_encode_query *q, bool first,
                                  size_t *end, ist_error *err) {
  ist_special_hits hits = {0};
  *end = 0;
  IST_TRY(check_length(q, err));
  ist_status status = find_raw(t, q, &hits, err);
  for (int64_t i = 0; i < hits.n && status == IST_OK && !(first && *end); i++)
    if (ist_tokenizer_is_eog(t, hits.p[i].id)) *end = (size_t)(hits.p[i].at + hits.p[i].len);
  ist_free(hits.p);
  return status;
}

ist_status ist_tokenizer_encode(const ist_tokenizer *t, const char *text, size_t len,
                                bool parse_special, ist_ids *out, ist_error *err) {
  const ist_encode_query q = {.text = text, .len = len, .special = parse_special};
  return ist_tokenizer_encode_query(t, &q, out, err);
}

/* ---- Decoding ---- */

static bool is_byte(const ist_tokenizer *t, int32_t id) {
  return t->decoding.byte_tokens && (t->vocab.flags[id] & IST_TOKEN_BYTE);
}

/* The text of one token, as it stands inside a text. */
static void put_piece(const ist_tokenizer *t, int32_t id, bool first, ist_buf *out) {
  const ist_decoding *d = &t->decoding;
  ist_str s = t->vocab.bytes[id];
  if (is_byte(t, id)) {
    for (int b = 0; b < 256; b++)
      if (t->vocab.byte_token[b] == id) ist_buf_add(out, (char[]){(char)b}, 1);
    return;
  }
  size_t size = d->from ? strlen(d->from) : 0;
  while (s.len > 0) {
    const char *hit = size && s.len >= size ? memmem(s.p, s.len, d->from, size) : NULL;
    size_t before = hit ? (size_t)(hit - s.p) : s.len;
    ist_buf_add(out, s.p, before);
    if (hit && !(first && d->first_loses)) ist_buf_str(out, d->to);
    s = (ist_str){s.p + before + (hit ? size : 0), s.len - before - (hit ? size : 0)};
  }
}

static ist_status check_id(const ist_tokenizer *t, int32_t id, int64_t at, ist_error *err) {
  if (id >= 0 && id < t->vocab.n) return IST_OK;
  return ist_fail(err, IST_ERR_DATA,
                  "token id %" PRId32 " at %" PRId64 ", the vocabulary has %" PRId64 " tokens", id,
                  at, t->vocab.n);
}

/* Takes the characters off that belong to no word but to the ends of a text, or of a token. */
static void strip_ends(const ist_decoding *d, ist_buf *out, size_t from) {
  size_t begin = from, end = out->len;
  for (int i = 0; i < d->strip_begin && begin < end && out->p[begin] == d->strip; i++) begin++;
  for (int i = 0; i < d->strip_end && end > begin && out->p[end - 1] == d->strip; i++) end--;
  if (begin > from) memmove(out->p + from, out->p + begin, end - begin);
  out->len = from + (end - begin);
  if (out->p) out->p[out->len] = 0;
}

ist_status ist_tokenizer_decode(const ist_tokenizer *t, const int32_t *ids, int64_t n, bool special,
                                ist_buf *out, ist_error *err) {
  const ist_decoding *d = &t->decoding;
  size_t from = out->len; /* of what is to be stripped */
  bool first = true, in_bytes = false;
  for (int64_t i = 0; i < n; i++) {
    IST_TRY(check_id(t, ids[i], i, err));
    if (!special && (t->vocab.flags[ids[i]] & IST_TOKEN_CONTROL)) continue;
    bool byte = is_byte(t, ids[i]); /* those side by side are one token */
    if (!d->strip_whole && !(byte && in_bytes)) {
      strip_ends(d, out, from);
      from = out->len;
    }
    in_bytes = byte;
    if (d->spaced && !first) ist_buf_str(out, " ");
    put_piece(t, ids[i], first, out);
    first = false;
  }
  if (out->failed) return ist_fail_nomem(err, "decoded text", out->len);
  strip_ends(d, out, from);
  return IST_OK;
}

ist_status ist_tokenizer_decode_piece(const ist_tokenizer *t, int32_t id, bool special,
                                      ist_buf *out, ist_error *err) {
  IST_TRY(check_id(t, id, 0, err));
  if (!special && (t->vocab.flags[id] & IST_TOKEN_CONTROL)) return IST_OK;
  size_t from = out->len;
  put_piece(t, id, false, out);
  if (!t->decoding.strip_whole) strip_ends(&t->decoding, out, from);
  return out->failed ? ist_fail_nomem(err, "decoded text", out->len) : IST_OK;
}

/* ---- Facts ---- */

int64_t ist_tokenizer_size(const ist_tokenizer *t) {
  return t->vocab.n;
}

int32_t ist_tokenizer_find(const ist_tokenizer *t, const char *text) {
  size_t len = strlen(text);
  for (int32_t id = 0; id < t->vocab.n; id++) {
    ist_str s = t->vocab.bytes[id];
    if (s.len == len && ist_token_is_special(&t->vocab, id) && memcmp(s.p, text, len) == 0)
      return id;
  }
  return -1;
}

int32_t ist_tokenizer_bos(const ist_tokenizer *t) {
  return t->vocab.bos;
}
int32_t ist_tokenizer_unk(const ist_tokenizer *t) {
  return t->vocab.unk;
}
int32_t ist_tokenizer_pad(const ist_tokenizer *t) {
  return t->vocab.pad;
}
int32_t ist_tokenizer_eos(const ist_tokenizer *t) {
  return t->vocab.eos;
}
const ist_ids *ist_tokenizer_before(const ist_tokenizer *t) {
  return &t->before;
}
const ist_ids *ist_tokenizer_behind(const ist_tokenizer *t) {
  return &t->behind;
}
bool ist_tokenizer_add_bos(const ist_tokenizer *t) {
  return t->before.n > 0;
}
bool ist_tokenizer_add_eos(const ist_tokenizer *t) {
  return t->behind.n > 0;
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
const ist_jinja *ist_tokenizer_chat(const ist_tokenizer *t) {
  return t->chat;
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
         (size_t)(t->raw.cap + t->normalized.cap) * sizeof *t->raw.node + ist_pre_bytes(&t->pre) +
         strlen(t->pre_name) + (t->chat_template ? strlen(t->chat_template) : 0);
}
