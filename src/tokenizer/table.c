/* A hash table from bytes to the index of a string: open addressing, at most
 * half full. The hash lies beside the index, so that a miss rarely reads a string. */
#include <string.h>

#include "tokenizer/internal.h"

static uint32_t hash_bytes(const ist_strtab *t, const char *p, size_t len) {
  return (uint32_t)(ist_hash(t->key, p, len) >> 32);
}

ist_status ist_strtab_init(ist_strtab *t, const ist_str *str, int64_t n, ist_error *err) {
  uint32_t size = 16;
  while (size < 2 * (uint64_t)n) size *= 2;
  *t = (ist_strtab){.str = str, .mask = size - 1, .key = ist_hash_key()};
  t->slot = ist_calloc(size, sizeof *t->slot);
  if (!t->slot) return ist_fail_nomem(err, "a table of tokens", size * sizeof *t->slot);
  for (uint32_t i = 0; i < size; i++) t->slot[i].index = -1;
  return IST_OK;
}

/* The slot that holds these bytes, or the empty one where they belong. */
static struct ist_strtab_slot *probe(const ist_strtab *t, const char *p, size_t len,
                                     uint32_t hash) {
  for (uint32_t at = hash & t->mask;; at = (at + 1) & t->mask) {
    struct ist_strtab_slot *slot = &t->slot[at];
    if (slot->index < 0) return slot;
    if (slot->hash != hash) continue;
    const ist_str *s = &t->str[slot->index];
    if (s->len == len && memcmp(s->p, p, len) == 0) return slot;
  }
}

int32_t ist_strtab_add(ist_strtab *t, int32_t index) {
  const ist_str *s = &t->str[index];
  uint32_t hash = hash_bytes(t, s->p, s->len);
  struct ist_strtab_slot *slot = probe(t, s->p, s->len, hash);
  if (slot->index >= 0) return slot->index;
  *slot = (struct ist_strtab_slot){hash, index};
  return -1;
}

int32_t ist_strtab_find(const ist_strtab *t, const char *p, size_t len) {
  return probe(t, p, len, hash_bytes(t, p, len))->index;
}

void ist_strtab_free(ist_strtab *t) {
  ist_free(t->slot);
  *t = (ist_strtab){0};
}
