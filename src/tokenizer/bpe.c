/* Byte-pair encoding: of all adjacent pairs, merge the one of lowest rank, the
 * leftmost first among equals, until none is left. */
#include <string.h>

#include "tokenizer/internal.h"

#define NONE UINT32_MAX

static uint32_t slot_of(const ist_bpe *b, int32_t left, int32_t right) {
  uint64_t h = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * UINT64_C(0x9E3779B97F4A7C15);
  return (uint32_t)(h >> 32) & b->mask;
}

static struct ist_merge *probe(const ist_bpe *b, int32_t left, int32_t right) {
  for (uint32_t at = slot_of(b, left, right);; at = (at + 1) & b->mask) {
    struct ist_merge *m = &b->merge[at];
    if (m->rank == NONE || (m->left == left && m->right == right)) return m;
  }
}

/* ---- Reading ---- */

static ist_status fail_merge(const ist_gguf *g, uint64_t i, ist_str merge, const char *what,
                             ist_error *err) {
  return ist_fail(err, IST_ERR_FORMAT, "%s: tokenizer.ggml.merges[%llu] '%.*s' %s", g->path,
                  (unsigned long long)i, (int)merge.len, merge.p, what);
}

/* Merge i, "left right". Merges that would read or make a control token can
 * never apply, because text never becomes one: they are left out. */
static ist_status add_merge(ist_bpe *b, const ist_vocab *v, const ist_strtab *texts,
                            const ist_gguf *g, uint64_t i, ist_str merge, ist_buf *joined,
                            ist_error *err) {
  const char *space = merge.len > 1 ? memchr(merge.p + 1, ' ', merge.len - 1) : NULL;
  size_t left_len = space ? (size_t)(space - merge.p) : 0;
  if (!space || left_len + 1 == merge.len)
    return fail_merge(g, i, merge, "is not two tokens with a space between", err);
  ist_buf_clear(joined);
  ist_buf_add(joined, merge.p, left_len);
  ist_buf_add(joined, space + 1, merge.len - left_len - 1);
  if (joined->failed) return ist_fail_nomem(err, "a merge", merge.len);
  int32_t left = ist_strtab_find(texts, merge.p, left_len);
  int32_t right = ist_strtab_find(texts, space + 1, merge.len - left_len - 1);
  int32_t result = ist_strtab_find(texts, joined->p, joined->len);
  if (left < 0 || right < 0 || result < 0)
    return fail_merge(g, i, merge, "joins or makes something that is not a token", err);
  b->result[i] = result;
  if ((v->flags[left] | v->flags[right] | v->flags[result]) & IST_TOKEN_CONTROL) return IST_OK;
  struct ist_merge *m = probe(b, left, right);
  if (m->rank != NONE) return fail_merge(g, i, merge, "appears twice", err);
  *m = (struct ist_merge){left, right, (uint32_t)i};
  return IST_OK;
}

ist_status ist_bpe_read(ist_bpe *b, const ist_vocab *v, const ist_strtab *texts, const ist_gguf *g,
                        ist_error *err) {
  *b = (ist_bpe){0};
  const ist_gguf_kv *kv = ist_gguf_find(g, "tokenizer.ggml.merges");
  if (!kv) return ist_fail(err, IST_ERR_FORMAT, "%s: no key tokenizer.ggml.merges", g->path);
  if (kv->type != IST_GGUF_ARRAY || kv->elem != IST_GGUF_STRING || kv->count > INT32_MAX / 4)
    return ist_fail(err, IST_ERR_FORMAT, "%s: tokenizer.ggml.merges is not a list of strings",
                    g->path);
  uint32_t size = 16;
  while (size < 2 * kv->count) size *= 2;
  b->mask = size - 1;
  b->n = (int64_t)kv->count;
  b->merge = ist_calloc(size, sizeof *b->merge);
  b->result = ist_calloc((size_t)b->n, sizeof *b->result);
  if (!b->merge || !b->result) return ist_fail_nomem(err, "the merges", size * sizeof *b->merge);
  for (uint32_t i = 0; i < size; i++) b->merge[i].rank = NONE;
  ist_buf joined = {0};
  ist_status status = IST_OK;
  for (uint64_t i = 0; i < kv->count && status == IST_OK; i++)
    status = add_merge(b, v, texts, g, i, kv->strings[i], &joined, err);
  ist_buf_free(&joined);
  return status;
}

void ist_bpe_free(ist_bpe *b) {
  ist_free(b->merge);
  ist_free(b->result);
  *b = (ist_bpe){0};
}

void ist_bpe_scratch_free(ist_bpe_scratch *s) {
  ist_free(s->symbol);
  ist_free(s->heap);
  *s = (ist_bpe_scratch){0};
}

/* ---- Encoding ----
 * The piece is a linked list of symbols; each knows the rank of the merge with
 * its right neighbour. A binary heap of rank << 32 | position yields the next
 * merge. An entry whose symbol has another rank by now is out of date (a rank
 * names one pair of tokens) and is dropped. So a piece of n bytes takes
 * n log n steps, however long it is. */

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

/* The rank of merging symbol `at` with its right neighbour, NONE if there is none. */
static uint32_t rank_at(const ist_bpe *b, const struct ist_symbol *symbol, int32_t at) {
  int32_t next = symbol[at].next;
  return next < 0 ? NONE : probe(b, symbol[at].id, symbol[next].id)->rank;
}

/* Fills the list and the heap; returns the size of the heap. */
static int64_t begin_piece(const ist_bpe *b, const ist_vocab *v, ist_bpe_scratch *s,
                           const char *piece, int32_t n) {
  for (int32_t i = 0; i < n; i++)
    s->symbol[i] = (struct ist_symbol){v->byte_token[(unsigned char)piece[i]], i - 1,
                                       i + 1 < n ? i + 1 : -1, NONE};
  int64_t pending = 0;
  for (int32_t i = 0; i + 1 < n; i++) {
    uint32_t rank = s->symbol[i].rank = rank_at(b, s->symbol, i);
    if (rank != NONE) s->heap[pending++] = (uint64_t)rank << 32 | (uint32_t)i;
  }
  for (int64_t i = pending / 2 - 1; i >= 0; i--) sift_down(s->heap, pending, i);
  return pending;
}

static void merge_all(const ist_bpe *b, ist_bpe_scratch *s, int64_t pending) {
  struct ist_symbol *symbol = s->symbol;
  while (pending > 0) {
    uint32_t rank = (uint32_t)(s->heap[0] >> 32);
    int32_t at = (int32_t)(uint32_t)s->heap[0];
    s->heap[0] = s->heap[--pending];
    sift_down(s->heap, pending, 0);
    if (symbol[at].rank != rank) continue;
    int32_t gone = symbol[at].next, after = symbol[gone].next;
    symbol[at].id = b->result[rank];
    symbol[at].next = after;
    symbol[gone].rank = NONE;
    if (after >= 0) symbol[after].prev = at;
    const int32_t changed[2] = {symbol[at].prev, at};
    for (int k = 0; k < 2; k++) {
      int32_t i = changed[k];
      if (i < 0) continue;
      uint32_t r = symbol[i].rank = rank_at(b, symbol, i);
      if (r != NONE) heap_push(s->heap, pending++, (uint64_t)r << 32 | (uint32_t)i);
    }
  }
}

ist_status ist_bpe_encode(const ist_bpe *b, const ist_vocab *v, ist_bpe_scratch *s,
                          const char *piece, size_t len, ist_ids *out, ist_error *err) {
  IST_ASSERT(len > 0 && len <= INT32_MAX);
  int32_t n = (int32_t)len;
  /* Every merge takes one entry out and puts two in at most. */
  IST_TRY(ist_grow(&s->symbol, &s->symbol_cap, n, sizeof *s->symbol, err));
  IST_TRY(ist_grow(&s->heap, &s->heap_cap, 2 * (int64_t)n, sizeof *s->heap, err));
  merge_all(b, s, begin_piece(b, v, s, piece, n));
  for (int32_t i = 0; i >= 0; i = s->symbol[i].next)
    if (s->symbol[i].id >= 0) IST_TRY(ist_ids_add(out, s->symbol[i].id, err));
  return IST_OK;
}
