/* Special tokens are cut out of the text before it is split into words. */
#include <stdlib.h>
#include <string.h>

#include <utf8proc.h>

#include "tokenizer/internal.h"

/* ---- The tree ---- */

static ist_status new_node(ist_specials *s, uint8_t byte, int32_t *out, ist_error *err) {
  IST_TRY(ist_grow(&s->node, &s->cap, s->n + 1, sizeof *s->node, err));
  s->node[s->n] = (struct ist_special_node){-1, -1, -1, byte};
  *out = (int32_t)s->n++;
  return IST_OK;
}

static int32_t find_child(const ist_specials *s, int32_t node, uint8_t byte) {
  int32_t child = s->node[node].child;
  while (child >= 0 && s->node[child].byte != byte) child = s->node[child].sibling;
  return child;
}

/* Marks every pair of bytes that text may begin with; a single byte is followed by anything. */
static void mark_begin(ist_specials *s, const char *text, size_t len) {
  unsigned first = (unsigned char)text[0] << 8;
  unsigned from = len > 1 ? (unsigned char)text[1] : 0;
  unsigned to = len > 1 ? from : 255;
  for (unsigned b = from; b <= to; b++) s->begins[(first | b) >> 6] |= UINT64_C(1) << (b & 63);
}

ist_status ist_specials_add(ist_specials *s, const char *text, size_t len, int32_t id,
                            ist_error *err) {
  int32_t node = 0;
  if (len == 0 || len > INT32_MAX) return IST_OK;
  if (s->n == 0) IST_TRY(new_node(s, 0, &node, err));
  for (size_t i = 0; i < len; i++) {
    uint8_t byte = (uint8_t)text[i];
    int32_t child = find_child(s, node, byte);
    if (child < 0) {
      IST_TRY(new_node(s, byte, &child, err));
      s->node[child].sibling = s->node[node].child;
      s->node[node].child = child;
    }
    node = child;
  }
  if (s->node[node].token < 0) s->node[node].token = id;
  mark_begin(s, text, len);
  return IST_OK;
}

void ist_specials_free(ist_specials *s) {
  ist_free(s->node);
  *s = (ist_specials){0};
}

static bool may_begin(const ist_specials *s, const char *text, size_t len, size_t at) {
  unsigned pair = (unsigned char)text[at] << 8;
  /* At the last byte only texts of one byte fit; any second byte finds those. */
  if (at + 1 < len) pair |= (unsigned char)text[at + 1];
  return s->begins[pair >> 6] >> (pair & 63) & 1;
}

/* ---- Which hits count ---- */

static bool allowed(const ist_vocab *v, const ist_special_query *q, ist_special_hit hit) {
  if (!(v->flags[hit.id] & IST_TOKEN_CONTROL)) return true;
  if (!q->literal) return q->control;
  return memchr(q->literal + hit.at, 0, (size_t)hit.len) == NULL;
}

static ist_status add_hit(ist_special_hits *out, ist_special_hit hit, ist_error *err) {
  IST_TRY(ist_grow(&out->p, &out->cap, out->n + 1, sizeof *out->p, err));
  out->p[out->n++] = hit;
  return IST_OK;
}

/* ---- Longest first, anywhere ---- */

/* Every occurrence of every special token that counts. */
static ist_status collect(const ist_specials *s, const ist_vocab *v, const ist_special_query *q,
                          ist_special_hits *out, ist_error *err) {
  for (size_t at = 0; at < q->len; at++) {
    if (!may_begin(s, q->text, q->len, at)) continue;
    int32_t node = 0;
    for (size_t i = at; i < q->len && node >= 0; i++) {
      node = find_child(s, node, (uint8_t)q->text[i]);
      if (node < 0 || s->node[node].token < 0) continue;
      ist_special_hit hit = {(int32_t)at, (int32_t)(i + 1 - at), s->node[node].token};
      if (allowed(v, q, hit)) IST_TRY(add_hit(out, hit, err));
    }
  }
  return IST_OK;
}

static int by_length(const void *a, const void *b) {
  const ist_special_hit *x = a, *y = b;
  if (x->len != y->len) return x->len > y->len ? -1 : 1;
  if (x->id != y->id) return x->id < y->id ? -1 : 1;
  return (x->at > y->at) - (x->at < y->at);
}

static int by_position(const void *a, const void *b) {
  const ist_special_hit *x = a, *y = b;
  return (x->at > y->at) - (x->at < y->at);
}

/* Keeps the hits that do not overlap one that goes before them. Those are at
 * least as long, so an overlap shows at the first or the last byte of the hit. */
static ist_status drop_overlaps(size_t len, ist_special_hits *hits, ist_error *err) {
  char *covered = ist_calloc(len, 1);
  if (!covered) return ist_fail_nomem(err, "special tokens in a text", len);
  int64_t kept = 0;
  for (int64_t i = 0; i < hits->n; i++) {
    ist_special_hit hit = hits->p[i];
    if (covered[hit.at] || covered[hit.at + hit.len - 1]) continue;
    memset(covered + hit.at, 1, (size_t)hit.len);
    hits->p[kept++] = hit;
  }
  hits->n = kept;
  ist_free(covered);
  return IST_OK;
}

/* A token that takes white space grows up to its neighbours. */
static void strip_hits(const ist_vocab *v, const ist_special_query *q, ist_special_hits *hits) {
  for (int64_t i = 0; i < hits->n; i++) {
    ist_special_hit *hit = &hits->p[i];
    int32_t end = i + 1 < hits->n ? hits->p[i + 1].at : (int32_t)q->len;
    if (!(v->flags[hit->id] & IST_TOKEN_RSTRIP)) continue;
    while (hit->at + hit->len < end && strchr(" \t\n\v\f\r", q->text[hit->at + hit->len]) &&
           q->text[hit->at + hit->len])
      hit->len++;
  }
}

static ist_status find_longest(const ist_specials *s, const ist_vocab *v,
                               const ist_special_query *q, ist_special_hits *out, ist_error *err) {
  IST_TRY(collect(s, v, q, out, err));
  if (out->n > 1) {
    qsort(out->p, (size_t)out->n, sizeof *out->p, by_length);
    IST_TRY(drop_overlaps(q->len, out, err));
    qsort(out->p, (size_t)out->n, sizeof *out->p, by_position);
  }
  strip_hits(v, q, out);
  return IST_OK;
}

/* ---- Leftmost, then longest ---- */

/* The character that begins at, or with `back` ends at, a place; -1: none. */
static int32_t char_at(const ist_special_query *q, size_t at, bool back, size_t *size) {
  utf8proc_int32_t c = -1;
  size_t from = at;
  if (back) {
    if (at == 0) return -1;
    do from--;
    while (from > 0 && at - from < 4 && ((unsigned char)q->text[from] & 0xc0) == 0x80);
  } else if (at >= q->len) {
    return -1;
  }
  size_t room = back ? at - from : q->len - from;
  utf8proc_ssize_t n =
      utf8proc_iterate((const utf8proc_uint8_t *)q->text + from, (utf8proc_ssize_t)room, &c);
  *size = n > 0 ? (size_t)n : 1;
  return n > 0 ? c : -1;
}

static bool is_space(int32_t c) {
  if ((c >= 9 && c <= 13) || c == 0x85) return true;
  utf8proc_category_t k = c < 0 ? UTF8PROC_CATEGORY_CN : utf8proc_category(c);
  return k == UTF8PROC_CATEGORY_ZS || k == UTF8PROC_CATEGORY_ZL || k == UTF8PROC_CATEGORY_ZP;
}

static bool is_word(int32_t c) {
  if (c < 0) return false;
  switch (utf8proc_category(c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC: return true;
    default: return c == 0x200c || c == 0x200d; /* the joiners */
  }
}

/* Applies the token's conditions; false: no match after all. `from`: where the
 * last match ended. */
static bool fit(const ist_vocab *v, const ist_special_query *q, size_t from, ist_special_hit *hit) {
  size_t size, begin = (size_t)hit->at, end = begin + (size_t)hit->len;
  unsigned flags = v->flags[hit->id];
  if ((flags & IST_TOKEN_WORD) &&
      (is_word(char_at(q, begin, true, &size)) || is_word(char_at(q, end, false, &size))))
    return false;
  if (flags & IST_TOKEN_LSTRIP)
    while (begin > from && is_space(char_at(q, begin, true, &size))) begin -= size;
  if (begin < from) begin = from;
  if (flags & IST_TOKEN_RSTRIP)
    while (is_space(char_at(q, end, false, &size))) end += size;
  *hit = (ist_special_hit){(int32_t)begin, (int32_t)(end - begin), hit->id};
  return true;
}

static ist_status find_leftmost(const ist_specials *s, const ist_vocab *v,
                                const ist_special_query *q, ist_special_hits *out, ist_error *err) {
  size_t from = 0; /* behind the last token cut out */
  for (size_t at = 0; at < q->len;) {
    ist_special_hit hit = {(int32_t)at, 0, -1};
    int32_t node = may_begin(s, q->text, q->len, at) ? 0 : -1;
    for (size_t i = at; i < q->len && node >= 0; i++) {
      node = find_child(s, node, (uint8_t)q->text[i]);
      if (node >= 0 && s->node[node].token >= 0)
        hit = (ist_special_hit){(int32_t)at, (int32_t)(i + 1 - at), s->node[node].token};
    }
    at += hit.len ? (size_t)hit.len : 1;
    if (hit.len == 0 || !allowed(v, q, hit) || !fit(v, q, from, &hit)) continue;
    from = (size_t)(hit.at + hit.len);
    IST_TRY(add_hit(out, hit, err));
    if (from > at) at = from;
  }
  return IST_OK;
}

ist_status ist_specials_find(const ist_specials *s, const ist_vocab *v, const ist_special_query *q,
                             ist_special_hits *out, ist_error *err) {
  out->n = 0;
  if (s->n == 0) return IST_OK;
  return q->leftmost ? find_leftmost(s, v, q, out, err) : find_longest(s, v, q, out, err);
}
