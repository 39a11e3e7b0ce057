/* Byte-pair encoding: the table of merges, and the symbols (bytes or characters)
 * that a piece of text is at first. bpe_merge.c merges them. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "tokenizer/internal.h"

/* ---- Building ---- */

ist_status ist_bpe_begin(ist_bpe *b, int64_t n, ist_error *err) {
  uint32_t size = 16;
  int shift = 60;
  for (; size < 2 * (uint64_t)n; size *= 2) shift--;
  *b = (ist_bpe){.mask = size - 1, .shift = shift, .key = ist_hash_key() | 1};
  b->merge = ist_calloc(size, sizeof *b->merge);
  if (!b->merge) return ist_fail_nomem(err, "the merges", size * sizeof *b->merge);
  for (uint32_t i = 0; i < size; i++) b->merge[i].rank = IST_NO_MERGE;
  return IST_OK;
}

bool ist_bpe_add(ist_bpe *b, const ist_vocab *v, const ist_tokens *tokens, ist_str left_text,
                 ist_str right_text, ist_buf *joined, uint32_t rank, bool *twice) {
  *twice = false;
  ist_buf_clear(joined);
  ist_buf_add(joined, left_text.p, left_text.len);
  ist_buf_add(joined, right_text.p, right_text.len);
  if (joined->failed) return false;
  int32_t left = ist_strtab_find(&tokens->by_text, left_text.p, left_text.len);
  int32_t right = ist_strtab_find(&tokens->by_text, right_text.p, right_text.len);
  int32_t result = ist_strtab_find(&tokens->by_text, joined->p, joined->len);
  if (left < 0 || right < 0 || result < 0) return false;
  if ((v->flags[left] | v->flags[right] | v->flags[result]) & IST_TOKEN_CONTROL) return true;
  struct ist_merge *m = ist_bpe_probe(b, left, right);
  *twice = m->rank != IST_NO_MERGE;
  *m = (struct ist_merge){left, right, result, rank};
  return true;
}

/* ---- SentencePiece: merges out of scores ---- */

struct scored {
  double score;
  int32_t id;
};

static int by_score(const void *a, const void *b) {
  const struct scored *x = a, *y = b;
  if (x->score != y->score) return x->score > y->score ? -1 : 1;
  return (x->id > y->id) - (x->id < y->id);
}

/* The tokens that merging makes, the highest score first. */
static struct scored *sort_by_score(const ist_vocab *v, const double *score, int64_t *n) {
  struct scored *list = ist_calloc((size_t)v->n, sizeof *list);
  *n = 0;
  for (int32_t i = 0; list && i < v->n; i++) {
    ist_str text = v->bytes[i];
    /* A score that is no number comes last. */
    if (text.len > 1 && ist_strtab_find(&v->by_bytes, text.p, text.len) == i)
      list[(*n)++] = (struct scored){score[i] == score[i] ? score[i] : -1e300, i};
  }
  if (list && *n) qsort(list, (size_t)*n, sizeof *list, by_score);
  return list;
}

/* A part of a token is looked up by hashing all of it; the longest tokens of real models have
 * some hundred bytes. */
enum { MAX_TOKEN = 65536 };

/* Which lengths tokens have: a token is split where both sides have one of them. */
static ist_status note_lengths(const ist_vocab *v, const struct scored *list, int64_t n,
                               bool is_length[MAX_TOKEN + 1], ist_error *err) {
  for (int32_t i = 0; i < v->n; i++)
    if (v->bytes[i].len <= MAX_TOKEN) is_length[v->bytes[i].len] = true;
  for (int64_t i = 0; i < n; i++)
    if (v->bytes[list[i].id].len > MAX_TOKEN)
      return ist_fail(err, IST_ERR_UNSUPPORTED,
                      "token %" PRId32 " has %zu bytes, expected at most %d", list[i].id,
                      v->bytes[list[i].id].len, MAX_TOKEN);
  return IST_OK;
}

/* Every way to split a token in two tokens; with b NULL they are only counted. */
static int64_t split_token(ist_bpe *b, const ist_vocab *v, const bool *is_length, int32_t id,
                           uint32_t rank) {
  ist_str text = v->bytes[id];
  int64_t n = 0;
  for (size_t at = 1; at < text.len; at++) {
    if (!is_length[at] || !is_length[text.len - at]) continue;
    if (((unsigned char)text.p[at] & 0xc0) == 0x80) continue;
    int32_t left = ist_strtab_find(&v->by_bytes, text.p, at);
    int32_t right = left < 0 ? -1 : ist_strtab_find(&v->by_bytes, text.p + at, text.len - at);
    if (right < 0) continue;
    n++;
    if (b) *ist_bpe_probe(b, left, right) = (struct ist_merge){left, right, id, rank};
  }
  return n;
}

static ist_status add_merges(ist_bpe *b, const ist_vocab *v, const struct scored *list, int64_t n,
                             bool is_length[MAX_TOKEN + 1], ist_error *err) {
  int64_t merges = 0;
  IST_TRY(note_lengths(v, list, n, is_length, err));
  for (int64_t i = 0; i < n; i++) merges += split_token(NULL, v, is_length, list[i].id, 0);
  if (merges >= INT32_MAX / 4)
    return ist_fail(err, IST_ERR_FORMAT, "the vocabulary has too many merges");
  IST_TRY(ist_bpe_begin(b, merges, err));
  /* Equal scores share a rank: then the leftmost pair goes first. */
  uint32_t rank = 0;
  for (int64_t i = 0; i < n; i++) {
    if (i > 0 && list[i].score != list[i - 1].score) rank++;
    split_token(b, v, is_length, list[i].id, rank);
  }
  return IST_OK;
}

ist_status ist_bpe_from_scores(ist_bpe *b, const ist_vocab *v, const double *score,
                               ist_error *err) {
  int64_t n = 0;
  struct scored *list = sort_by_score(v, score, &n);
  bool *is_length = ist_calloc(MAX_TOKEN + 1, sizeof *is_length);
  ist_status status = list && is_length
                          ? add_merges(b, v, list, n, is_length, err)
                          : ist_fail_nomem(err, "the merges", (size_t)v->n * sizeof *list);
  ist_free(list);
  ist_free(is_length);
  return status;
}

void ist_bpe_finish(ist_bpe *b, const ist_vocab *v) {
  for (int c = 0; c < 128; c++) {
    char byte = (char)c;
    b->ascii[c] = ist_strtab_find(&v->by_bytes, &byte, 1);
  }
}

static bool begins_marked(ist_str s) {
  return s.len >= 3 && memcmp(s.p, IST_MARK, 3) == 0;
}
static bool ends_marked(ist_str s) {
  return s.len >= 3 && memcmp(s.p + s.len - 3, IST_MARK, 3) == 0;
}

bool ist_bpe_words_begin_marked(const ist_bpe *b, const ist_vocab *v) {
  if (ist_strtab_find(&v->by_bytes, IST_MARK, 3) < 0) return false;
  for (uint32_t i = 0; i <= b->mask; i++) {
    const struct ist_merge *m = &b->merge[i];
    if (m->rank != IST_NO_MERGE && begins_marked(v->bytes[m->right]) &&
        !ends_marked(v->bytes[m->left]))
      return false;
  }
  return true;
}

void ist_bpe_free(ist_bpe *b) {
  ist_free(b->merge);
  *b = (ist_bpe){0};
}

/* ---- The first symbols ---- */

static int32_t bytes_to_symbols(const ist_vocab *v, int32_t *symbol, const char *piece, int32_t n) {
  for (int32_t i = 0; i < n; i++) symbol[i] = v->byte_token[(unsigned char)piece[i]];
  return n;
}

/* The length of the character at p, 1 where there is none. */
static size_t char_size(const char *p, const char *end) {
  unsigned char c = (unsigned char)*p;
  size_t n = c < 0xc2 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : c < 0xf5 ? 4 : 1;
  if (n > (size_t)(end - p)) return 1;
  for (size_t i = 1; i < n; i++)
    if (((unsigned char)p[i] & 0xc0) != 0x80) return 1;
  return n;
}

/* A character without a token: those of its bytes, if all have one. */
static int32_t add_bytes(const ist_vocab *v, int32_t *symbol, int32_t n, const char *p,
                         size_t size) {
  for (size_t i = 0; i < size; i++)
    if (v->byte_token[(unsigned char)p[i]] < 0) return 0;
  for (size_t i = 0; i < size; i++) symbol[n + (int32_t)i] = v->byte_token[(unsigned char)p[i]];
  return (int32_t)size;
}

static int32_t chars_to_symbols(const ist_bpe *b, const ist_vocab *v, int32_t *symbol,
                                const char *piece, size_t len) {
  int32_t n = 0;
  bool after_unk = false;
  const char *end = piece + len;
  for (const char *p = piece; p < end;) {
    size_t size = char_size(p, end);
    int32_t id = size == 1 && (unsigned char)*p < 128 ? b->ascii[(unsigned char)*p]
                                                      : ist_strtab_find(&v->by_bytes, p, size);
    int32_t bytes = 0;
    if (id < 0 && b->byte_fallback) bytes = add_bytes(v, symbol, n, p, size);
    n += bytes;
    bool unk = id < 0 && bytes == 0;
    if (!unk) after_unk = false;
    if (bytes == 0 && !(unk && after_unk && b->fuse_unk) && (id >= 0 || v->unk >= 0)) {
      symbol[n++] = id >= 0 ? id : v->unk;
      after_unk = unk;
    }
    p += size;
  }
  return n;
}

ist_status ist_bpe_encode(const ist_bpe *b, const ist_vocab *v, ist_bpe_scratch *s,
                          const char *piece, size_t len, ist_ids *out, ist_error *err) {
  if (len > INT32_MAX)
    return ist_fail(err, IST_ERR_DATA, "a piece of %zu bytes, at most %d can be merged", len,
                    INT32_MAX);
  IST_TRY(ist_grow(&s->first, &s->first_cap, (int64_t)len, sizeof *s->first, err));
  int32_t n = v->byte_level ? bytes_to_symbols(v, s->first, piece, (int32_t)len)
                            : chars_to_symbols(b, v, s->first, piece, len);
  return n == 0 ? IST_OK : ist_bpe_merge(b, s, n, out, err);
}
