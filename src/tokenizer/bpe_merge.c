/* Merging: of all adjacent pairs the one of lowest rank, the leftmost first among
 * equals, until none is left. Three ways to the same tokens: a few symbols by
 * looking at them again and again, more by a heap, very many by stretches. */
#include <string.h>

#include "tokenizer/internal.h"

enum { NO_TOKEN = -1 };

void ist_bpe_scratch_free(ist_bpe_scratch *s) {
  ist_free(s->first);
  ist_free(s->symbol);
  ist_free(s->heap);
  ist_free(s->token);
  *s = (ist_bpe_scratch){0};
}

/* Looks up the merge of symbol `at` with its right neighbour; its rank, or IST_NO_MERGE. */
static uint32_t rank_at(const ist_bpe *b, struct ist_symbol *symbol, int32_t at) {
  int32_t next = symbol[at].next;
  const struct ist_merge *m = next < 0 ? NULL : ist_bpe_probe(b, symbol[at].id, symbol[next].id);
  symbol[at].merged = m ? m->result : NO_TOKEN;
  return symbol[at].rank = m ? m->rank : IST_NO_MERGE;
}

/* ---- By a heap ----
 * The symbols are a linked list; each knows the rank of the merge with its right
 * neighbour. A binary heap of rank << 32 | position yields the next merge. An entry
 * whose symbol has another rank by now is out of date and is dropped. */

static void sift_down(uint64_t *heap, int64_t n, int64_t at) {
  uint64_t value = heap[at];
  for (;;) {
    int64_t child = 2 * at + 1;
    if (child >= n) break;
    if (child + 1 < n && heap[child + 1] < heap[child]) child++;
    if (heap[child] >= value) break;
    heap[at] = heap[child];
    at = child;
  }
  heap[at] = value;
}

static void heap_push(uint64_t *heap, int64_t n, uint64_t value) {
  int64_t at = n;
  for (; at > 0 && heap[(at - 1) / 2] > value; at = (at - 1) / 2) heap[at] = heap[(at - 1) / 2];
  heap[at] = value;
}

/* Fills the heap; returns its size. */
static int64_t fill_heap(const ist_bpe *b, ist_bpe_scratch *s, int32_t n) {
  int64_t pending = 0;
  for (int32_t i = 0; i < n; i++) {
    uint32_t rank = rank_at(b, s->symbol, i);
    if (rank != IST_NO_MERGE) s->heap[pending++] = (uint64_t)rank << 32 | (uint32_t)i;
  }
  for (int64_t i = pending / 2 - 1; i >= 0; i--) sift_down(s->heap, pending, i);
  return pending;
}

static void merge_by_heap(const ist_bpe *b, ist_bpe_scratch *s, int32_t n) {
  struct ist_symbol *symbol = s->symbol;
  int64_t pending = fill_heap(b, s, n);
  while (pending > 0) {
    uint32_t rank = (uint32_t)(s->heap[0] >> 32);
    int32_t at = (int32_t)(uint32_t)s->heap[0];
    s->heap[0] = s->heap[--pending];
    sift_down(s->heap, pending, 0);
    if (symbol[at].rank != rank) continue;
    int32_t gone = symbol[at].next, after = symbol[gone].next;
    symbol[at].id = symbol[at].merged;
    symbol[at].next = after;
    symbol[gone].rank = IST_NO_MERGE;
    if (after >= 0) symbol[after].prev = at;
    const int32_t changed[2] = {symbol[at].prev, at};
    for (int k = 0; k < 2; k++) {
      int32_t i = changed[k];
      if (i < 0) continue;
      uint32_t r = rank_at(b, symbol, i);
      if (r != IST_NO_MERGE) heap_push(s->heap, pending++, (uint64_t)r << 32 | (uint32_t)i);
    }
  }
}

/* By looking at every pair again: quicker for the few symbols of a word. */
static void merge_few(const ist_bpe *b, struct ist_symbol *symbol, int32_t n) {
  for (int32_t i = 0; i < n; i++) rank_at(b, symbol, i);
  for (;;) {
    int32_t best = 0, before = -1, before_best = -1;
    for (int32_t i = 0; i >= 0; before = i, i = symbol[i].next)
      if (symbol[i].rank < symbol[best].rank) {
        best = i;
        before_best = before;
      }
    if (symbol[best].rank == IST_NO_MERGE) return;
    symbol[best].id = symbol[best].merged;
    symbol[best].next = symbol[symbol[best].next].next;
    rank_at(b, symbol, best);
    if (before_best >= 0) rank_at(b, symbol, before_best);
  }
}

enum { FEW = 24 };

/* Merges the first symbols from..to; s->symbol is then the list of their tokens. */
static ist_status merge(const ist_bpe *b, ist_bpe_scratch *s, int32_t from, int32_t to,
                        ist_error *err) {
  int32_t n = to - from;
  IST_TRY(ist_grow(&s->symbol, &s->symbol_cap, n, sizeof *s->symbol, err));
  for (int32_t i = 0; i < n; i++) {
    s->symbol[i].id = s->first[from + i];
    s->symbol[i].prev = i - 1;
    s->symbol[i].next = i + 1 < n ? i + 1 : -1;
  }
  if (n <= FEW) {
    merge_few(b, s->symbol, n);
    return IST_OK;
  }
  /* Every merge takes one entry out and puts two in at most. */
  IST_TRY(ist_grow(&s->heap, &s->heap_cap, 2 * (int64_t)n, sizeof *s->heap, err));
  merge_by_heap(b, s, n);
  return IST_OK;
}

/* ---- By stretches ----
 * A heap of millions misses the cache at every step. So a long word is merged a
 * stretch at a time, and mended where stretches meet.
 *
 * Why that gives the tokens of the whole: a list of tokens is what merging a word
 * ends with if and only if every two neighbours are what merging those two alone
 * ends with. For as long as nothing merges across a boundary, both sides merge as
 * if alone, and in an order that only ranks and places decide, whatever else is in
 * the word; so the first merge across would be seen with the two neighbours alone.
 *
 * At a seam some tokens of both sides are merged anew. Where that leaves the
 * outermost of them as they were, their outer neighbours suit them as before, and
 * the seam is closed; else more tokens of that side take part. */

enum { STRETCH = 512, SEAM = 4 };

static int32_t token_begin(const ist_bpe_scratch *s, int64_t i) {
  return i > 0 ? s->token[i - 1].end : 0;
}

/* Puts the list of s->symbol, that began at `from`, in the place of tokens at..at+old
 * out of n; returns the new n. */
static int64_t put_tokens(ist_bpe_scratch *s, int32_t from, int32_t to, int64_t at, int64_t old,
                          int64_t n) {
  int64_t count = 0;
  for (int32_t i = 0; i >= 0; i = s->symbol[i].next) count++;
  memmove(s->token + at + count, s->token + at + old, (size_t)(n - at - old) * sizeof *s->token);
  for (int32_t i = 0; i >= 0; i = s->symbol[i].next) {
    int32_t next = s->symbol[i].next;
    s->token[at++] = (struct ist_bpe_token){s->symbol[i].id, next >= 0 ? from + next : to};
  }
  return n - old + count;
}

/* Mends the seam between tokens seam-1 and seam of *n. Takes what is merged anew
 * off *work; gives up when that is used up. */
static ist_status close_seam(const ist_bpe *b, ist_bpe_scratch *s, int64_t seam, int64_t *n,
                             int64_t *work, ist_error *err) {
  int64_t left = SEAM, right = SEAM;
  for (bool closed = false; !closed && *work >= 0;) {
    if (left > seam) left = seam;
    if (right > *n - seam) right = *n - seam;
    struct ist_bpe_token first = s->token[seam - left], last = s->token[seam + right - 1];
    int32_t from = token_begin(s, seam - left), to = last.end;
    IST_TRY(merge(b, s, from, to, err));
    *work -= to - from;
    int32_t end = 0;
    while (s->symbol[end].next >= 0) end = s->symbol[end].next;
    int32_t second = s->symbol[0].next;
    bool left_stays =
        left == seam || (s->symbol[0].id == first.id && second >= 0 && from + second == first.end);
    bool right_stays = right == *n - seam || (s->symbol[end].id == last.id && end > 0 &&
                                              from + end == token_begin(s, seam + right - 1));
    closed = left_stays && right_stays;
    if (closed) *n = put_tokens(s, from, to, seam - left, left + right, *n);
    if (!left_stays) left *= 2;
    if (!right_stays) right *= 2;
  }
  return IST_OK;
}

/* The tokens of n symbols in s->token. How far to the left a seam can open is bounded
 * by the vocabulary alone; in one made for it that is far. When seams have cost more
 * than the whole word would, it is merged at once. */
static ist_status merge_long(const ist_bpe *b, ist_bpe_scratch *s, int32_t n, int64_t *count,
                             ist_error *err) {
  int64_t work = 4 * (int64_t)n, done = 0;
  IST_TRY(ist_grow(&s->token, &s->token_cap, n, sizeof *s->token, err));
  for (int32_t at = 0, to; at < n && work >= 0; at = to) {
    int64_t seam = done;
    to = n - at > STRETCH ? at + STRETCH : n;
    IST_TRY(merge(b, s, at, to, err));
    done = put_tokens(s, at, to, seam, 0, seam);
    if (seam > 0) IST_TRY(close_seam(b, s, seam, &done, &work, err));
  }
  if (work < 0) {
    IST_TRY(merge(b, s, 0, n, err));
    done = put_tokens(s, 0, n, 0, 0, 0);
  }
  *count = done;
  return IST_OK;
}

ist_status ist_bpe_merge(const ist_bpe *b, ist_bpe_scratch *s, int32_t n, ist_ids *out,
                         ist_error *err) {
  if (n > 2 * STRETCH) {
    int64_t count;
    IST_TRY(merge_long(b, s, n, &count, err));
    for (int64_t i = 0; i < count; i++)
      if (s->token[i].id >= 0) IST_TRY(ist_ids_add(out, s->token[i].id, err));
    return IST_OK;
  }
  IST_TRY(merge(b, s, 0, n, err));
  for (int32_t i = 0; i >= 0; i = s->symbol[i].next)
    if (s->symbol[i].id >= 0) IST_TRY(ist_ids_add(out, s->symbol[i].id, err));
  return IST_OK;
}
