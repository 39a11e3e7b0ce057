/* Special tokens are cut out of the text before it is split into words. */
#include <stdlib.h>
#include <string.h>

#include <utf8proc.h>

#include "tokenizer/internal.h"

/* ---- The tree ---- */

/* At every place of a text as many bytes are looked at as the longest text has; those of real
 * models have less than a hundred. */
enum { MAX_SPECIAL = 1024 };

static ist_status new_node(ist_specials *s, uint8_t byte, int32_t *out, ist_error *err) {
  if (s->n == INT32_MAX)
    return ist_fail(err, IST_ERR_UNSUPPORTED, "the special tokens have more than %d bytes",
                    INT32_MAX);
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
  if (len == 0) return IST_OK;
  if (len > MAX_SPECIAL)
    return ist_fail(err, IST_ERR_UNSUPPORTED, "its text has %zu bytes, expected at most %d", len,
                    MAX_SPECIAL);
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

/* ---- Hits ---- */

static ist_status add_hit(ist_special_hits *out, ist_special_hit hit, ist_error *err) {
  IST_TRY(ist_grow(&out->p, &out->cap, out->n + 1, sizeof *out->p, err));
  out->p[out->n++] = hit;
  return IST_OK;
}

/* The longest special token at a place, of `room` bytes at most; id -1: none. With `counting`
 * only those that count: control tokens where the query lets them be. */
static ist_special_hit longest_at(const ist_specials *s, const ist_vocab *v,
                                  const ist_special_query *q, size_t at, size_t room,
                                  bool counting) {
  ist_special_hit hit = {(int32_t)at, 0, -1};
  bool control = !counting || q->literal || q->control;
  int32_t node = 0;
  for (size_t i = at; i < at + room && node >= 0; i++) {
    node = find_child(s, node, (uint8_t)q->text[i]);
    if (counting && q->literal && !q->literal[i]) control = false;
    int32_t id = node < 0 ? -1 : s->node[node].token;
    if (id < 0 || (!control && (v->flags[id] & IST_TOKEN_CONTROL))) continue;
    hit.len = (int32_t)(i + 1 - at);
    hit.id = id;
  }
  return hit;
}

/* ---- Longest first, anywhere ----
 * Of all tokens at all places the best is taken, then the best of those that do not overlap it,
 * and so on. A heap holds no more than one hit for a place, the longest that has room: a shorter
 * one is looked up when that turns out to overlap a better one. */

/* Which of two hits goes first. */
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

/* Puts a hit in the place of the heap's first. */
static void replace_first(ist_special_hit *heap, int64_t n, ist_special_hit hit) {
  int64_t at = 0;
  for (int64_t child = 1; child < n; child = 2 * at + 1) {
    if (child + 1 < n && by_length(&heap[child + 1], &heap[child]) < 0) child++;
    if (by_length(&heap[child], &hit) > 0) break;
    heap[at] = heap[child];
    at = child;
  }
  heap[at] = hit;
}

/* Of the hits, the longest at each place, makes those that are cut out. `covered`: a zero for
 * each byte of the text. */
static void choose(const ist_specials *s, const ist_vocab *v, const ist_special_query *q,
                   ist_special_hits *hits, char *covered) {
  ist_special_hit *heap = hits->p;
  int64_t n = hits->n, kept = hits->n; /* in the heap; those kept are behind it, from `kept` on */
  qsort(heap, (size_t)n, sizeof *heap, by_length); /* what is sorted is a heap */
  while (n > 0) {
    ist_special_hit hit = heap[0];
    size_t at = (size_t)hit.at, len = (size_t)hit.len;
    /* What is covered was at least as long: an overlap shows at the first or the last byte. */
    bool whole = !covered[at] && !covered[at + len - 1], gone = covered[at];
    if (!whole && !gone) {
      const char *end = memchr(covered + at, 1, len);
      hit = longest_at(s, v, q, at, (size_t)(end - (covered + at)), true);
      gone = hit.id < 0;
    }
    if (!whole && !gone) {
      replace_first(heap, n, hit);
      continue;
    }
    n--;
    if (n > 0) replace_first(heap, n, heap[n]);
    if (!whole) continue;
    memset(covered + at, 1, len);
    hits->p[--kept] = hit;
  }
  hits->n -= kept;
  memmove(hits->p, hits->p + kept, (size_t)hits->n * sizeof *hits->p);
  qsort(hits->p, (size_t)hits->n, sizeof *hits->p, by_position);
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
  for (size_t at = 0; at < q->len; at++) {
    if (!may_begin(s, q->text, q->len, at)) continue;
    ist_special_hit hit = longest_at(s, v, q, at, q->len - at, true);
    if (hit.id >= 0) IST_TRY(add_hit(out, hit, err));
  }
  if (out->n > 1) {
    char *covered = ist_calloc(q->len, 1);
    if (!covered) return ist_fail_nomem(err, "special tokens in a text", q->len);
    choose(s, v, q, out, covered);
    ist_free(covered);
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
  bool whole = n > 0 && (!back || (size_t)n == room);
  *size = whole ? (size_t)n : 1;
  return whole ? c : -1;
}

bool ist_is_space(int32_t c) {
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
    case UTF8PROC_CATEGORY_SO: /* letters in circles and squares */
      return (c >= 0x24b6 && c <= 0x24e9) || (c >= 0x1f130 && c <= 0x1f149) ||
             (c >= 0x1f150 && c <= 0x1f169) || (c >= 0x1f170 && c <= 0x1f189);
    default: return c == 0x200c || c == 0x200d; /* the joiners */
  }
}

static bool allowed(const ist_vocab *v, const ist_special_query *q, ist_special_hit hit) {
  if (!(v->flags[hit.id] & IST_TOKEN_CONTROL)) return true;
  if (!q->literal) return q->control;
  return memchr(q->literal + hit.at, 0, (size_t)hit.len) == NULL;
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
    while (begin > from && ist_is_space(char_at(q, begin, true, &size))) begin -= size;
  if (begin < from) begin = from;
  if (flags & IST_TOKEN_RSTRIP)
    while (ist_is_space(char_at(q, end, false, &size))) end += size;
  *hit = (ist_special_hit){(int32_t)begin, (int32_t)(end - begin), hit->id};
  return true;
}

static ist_status find_leftmost(const ist_specials *s, const ist_vocab *v,
                                const ist_special_query *q, ist_special_hits *out, ist_error *err) {
  size_t from = 0; /* behind the last token cut out */
  for (size_t at = 0; at < q->len;) {
    if (!may_begin(s, q->text, q->len, at)) {
      at++;
      continue;
    }
    ist_special_hit hit = longest_at(s, v, q, at, q->len - at, false);
    at += hit.id >= 0 ? (size_t)hit.len : 1;
    if (hit.id < 0 || !allowed(v, q, hit) || !fit(v, q, from, &hit)) continue;
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
