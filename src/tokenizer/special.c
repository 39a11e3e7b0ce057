/* Special tokens are cut out of the raw text before it is split into words. */
#include <stdlib.h>
#include <string.h>

#include "tokenizer/internal.h"

/* qsort has no argument for the vocabulary, so what is compared lies in the item. */
struct item {
  size_t len;
  int32_t id;
};

static int by_length(const void *a, const void *b) {
  const struct item *x = a, *y = b;
  if (x->len != y->len) return x->len > y->len ? -1 : 1;
  return (x->id > y->id) - (x->id < y->id);
}

/* Marks every pair of bytes that text may begin with; a single byte is followed by anything. */
static void mark_begin(ist_specials *s, ist_str text) {
  unsigned first = (unsigned char)text.p[0] << 8;
  unsigned from = text.len > 1 ? (unsigned char)text.p[1] : 0;
  unsigned to = text.len > 1 ? from : 255;
  for (unsigned b = from; b <= to; b++) s->begins[(first | b) >> 6] |= UINT64_C(1) << (b & 63);
}

ist_status ist_specials_init(ist_specials *s, const ist_vocab *v, ist_error *err) {
  *s = (ist_specials){0};
  struct item *item = ist_calloc((size_t)v->n, sizeof *item);
  if (!item) return ist_fail_nomem(err, "the special tokens", (size_t)v->n * sizeof *item);
  for (int32_t i = 0; i < v->n; i++) {
    if (!ist_token_is_special(v, i) || v->bytes[i].len == 0) continue;
    item[s->n++] = (struct item){v->bytes[i].len, i};
    mark_begin(s, v->bytes[i]);
  }
  if (s->n) qsort(item, (size_t)s->n, sizeof *item, by_length);
  s->id = ist_calloc((size_t)s->n, sizeof *s->id);
  for (int64_t i = 0; s->id && i < s->n; i++) s->id[i] = item[i].id;
  ist_free(item);
  return s->id ? IST_OK : ist_fail_nomem(err, "the special tokens", (size_t)s->n * sizeof *s->id);
}

void ist_specials_free(ist_specials *s) {
  ist_free(s->id);
  *s = (ist_specials){0};
}

/* Every occurrence of every special token that counts. */
static ist_status collect(const ist_specials *s, const ist_vocab *v, const char *text, size_t len,
                          bool control, ist_special_hits *out, ist_error *err) {
  for (size_t at = 0; at < len; at++) {
    unsigned pair = (unsigned char)text[at] << 8;
    /* At the last byte only texts of one byte fit; any second byte finds those. */
    if (at + 1 < len) pair |= (unsigned char)text[at + 1];
    if (!(s->begins[pair >> 6] >> (pair & 63) & 1)) continue;
    for (int64_t r = 0; r < s->n; r++) {
      ist_str special = v->bytes[s->id[r]];
      if (special.len > len - at || memcmp(special.p, text + at, special.len) != 0) continue;
      if (!control && (v->flags[s->id[r]] & IST_TOKEN_CONTROL)) continue;
      IST_TRY(ist_grow(&out->p, &out->cap, out->n + 1, sizeof *out->p, err));
      out->p[out->n++] = (ist_special_hit){(int32_t)at, (int32_t)r};
    }
  }
  return IST_OK;
}

static int by_rank(const void *a, const void *b) {
  const ist_special_hit *x = a, *y = b;
  if (x->rank != y->rank) return x->rank < y->rank ? -1 : 1;
  return (x->at > y->at) - (x->at < y->at);
}

static int by_position(const void *a, const void *b) {
  const ist_special_hit *x = a, *y = b;
  return (x->at > y->at) - (x->at < y->at);
}

/* Keeps the hits that do not overlap one that goes before them. Those are at
 * least as long, so an overlap shows at the first or the last byte of the hit. */
static ist_status drop_overlaps(const ist_specials *s, const ist_vocab *v, size_t len,
                                ist_special_hits *hits, ist_error *err) {
  char *covered = ist_calloc(len, 1);
  if (!covered) return ist_fail_nomem(err, "special tokens in a text", len);
  int64_t kept = 0;
  for (int64_t i = 0; i < hits->n; i++) {
    ist_special_hit hit = hits->p[i];
    size_t size = v->bytes[s->id[hit.rank]].len;
    if (covered[hit.at] || covered[(size_t)hit.at + size - 1]) continue;
    memset(covered + hit.at, 1, size);
    hits->p[kept++] = hit;
  }
  hits->n = kept;
  ist_free(covered);
  return IST_OK;
}

ist_status ist_specials_find(const ist_specials *s, const ist_vocab *v, const char *text,
                             size_t len, bool control, ist_special_hits *out, ist_error *err) {
  out->n = 0;
  if (s->n == 0) return IST_OK;
  IST_TRY(collect(s, v, text, len, control, out, err));
  if (out->n < 2) return IST_OK;
  qsort(out->p, (size_t)out->n, sizeof *out->p, by_rank);
  IST_TRY(drop_overlaps(s, v, len, out, err));
  qsort(out->p, (size_t)out->n, sizeof *out->p, by_position);
  return IST_OK;
}
