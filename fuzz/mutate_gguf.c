/* Mutations that know how a GGUF is built: plain ones mostly break a length or a count near the
 * beginning, and everything behind it is never read. Here a key or a tensor is changed, lost,
 * doubled or given another's value, and lengths, counts and padding are made right again. */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "format/gguf.h"

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t most);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned seed);

enum { MOST_ITEMS = 64, MOST_BYTES = 1 << 15, HEADER = 24, PADDING = 32 };

/* A key with its value, or a tensor's description, as it stands in the file. */
typedef struct item {
  const uint8_t *p;
  size_t n;
} item;

typedef struct layout {
  item key[MOST_ITEMS], tensor[MOST_ITEMS];
  size_t n_keys, n_tensors;
  item rest; /* the tensors' bytes */
} layout;

static uint64_t u64_at(const uint8_t *p) {
  uint64_t x;
  memcpy(&x, p, sizeof x);
  return x;
}

static uint32_t u32_at(const uint8_t *p) {
  uint32_t x;
  memcpy(&x, p, sizeof x);
  return x;
}

/* ---- Lengths; 0 where the file ends before ---- */

static size_t string_length(const uint8_t *p, size_t left) {
  if (left < 8 || u64_at(p) > left - 8) return 0;
  return 8 + (size_t)u64_at(p);
}

static size_t scalar_length(uint32_t type) {
  static const uint8_t bytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
  return type < sizeof bytes ? bytes[type] : 0;
}

static size_t array_length(const uint8_t *p, size_t left) {
  if (left < 12) return 0;
  uint32_t type = u32_at(p);
  uint64_t count = u64_at(p + 4);
  size_t n = 12, each = scalar_length(type);
  if (each) return count <= (left - n) / each ? n + (size_t)count * each : 0;
  for (uint64_t i = 0; type == IST_GGUF_STRING && i < count; i++) {
    size_t one = string_length(p + n, left - n);
    if (!one) return 0;
    n += one;
  }
  return type == IST_GGUF_STRING ? n : 0;
}

static size_t value_length(uint32_t type, const uint8_t *p, size_t left) {
  if (type == IST_GGUF_STRING) return string_length(p, left);
  if (type == IST_GGUF_ARRAY) return array_length(p, left);
  return scalar_length(type) <= left ? scalar_length(type) : 0;
}

static size_t key_length(const uint8_t *p, size_t left) {
  size_t name = string_length(p, left);
  if (!name || left - name < 4) return 0;
  size_t value = value_length(u32_at(p + name), p + name + 4, left - name - 4);
  return value ? name + 4 + value : 0;
}

static size_t tensor_length(const uint8_t *p, size_t left) {
  size_t name = string_length(p, left);
  if (!name || left - name < 4 || u32_at(p + name) > 4) return 0;
  size_t n = name + 4 + 8 * (size_t)u32_at(p + name) + 4 + 8;
  return n <= left ? n : 0;
}

/* ---- Apart, and together again ---- */

static bool take_apart(layout *l, const uint8_t *data, size_t size) {
  if (size < HEADER || u64_at(data + 8) > MOST_ITEMS || u64_at(data + 16) > MOST_ITEMS)
    return false;
  l->n_tensors = (size_t)u64_at(data + 8);
  l->n_keys = (size_t)u64_at(data + 16);
  size_t at = HEADER;
  for (size_t i = 0; i < l->n_keys + l->n_tensors; i++) {
    bool is_key = i < l->n_keys;
    size_t n = (is_key ? key_length : tensor_length)(data + at, size - at);
    if (!n) return false;
    *(is_key ? &l->key[i] : &l->tensor[i - l->n_keys]) = (item){data + at, n};
    at += n;
  }
  at = (at + PADDING - 1) / PADDING * PADDING;
  l->rest = at < size ? (item){data + at, size - at} : (item){data, 0};
  return true;
}

static bool put(uint8_t *out, size_t *at, size_t most, const void *p, size_t n) {
  if (n > most - *at) return false;
  memcpy(out + *at, p, n);
  *at += n;
  return true;
}

/* The file's length, or 0 where it has more than `most` bytes. */
static size_t put_together(uint8_t *out, size_t most, const uint8_t *head, const layout *l) {
  static const uint8_t zeros[PADDING];
  const uint64_t count[2] = {l->n_tensors, l->n_keys};
  size_t at = 0;
  bool ok = put(out, &at, most, head, 8) && put(out, &at, most, count, sizeof count);
  for (size_t i = 0; ok && i < l->n_keys; i++) ok = put(out, &at, most, l->key[i].p, l->key[i].n);
  for (size_t i = 0; ok && i < l->n_tensors; i++)
    ok = put(out, &at, most, l->tensor[i].p, l->tensor[i].n);
  ok = ok && put(out, &at, most, zeros, (PADDING - at % PADDING) % PADDING);
  return ok && put(out, &at, most, l->rest.p, l->rest.n) ? at : 0;
}

/* ---- Changes ---- */

static uint8_t scratch[MOST_BYTES];

/* A copy of at most half of scratch, behind which there is room for what is inserted. */
static bool copy(item *it) {
  if (it->n > MOST_BYTES / 2) return false;
  memcpy(scratch, it->p, it->n);
  it->p = scratch;
  return true;
}

/* The string at scratch + at is changed, and its length made right; the item's new length. */
static size_t change_string(size_t at, size_t n) {
  size_t old = (size_t)u64_at(scratch + at);
  size_t tail = n - at - 8 - old;
  static uint8_t text[MOST_BYTES / 4], behind[MOST_BYTES / 2];
  if (old > sizeof text) return n;
  memcpy(text, scratch + at + 8, old);
  memcpy(behind, scratch + at + 8 + old, tail);
  uint64_t len = LLVMFuzzerMutate(text, old, sizeof text);
  memcpy(scratch + at, &len, sizeof len);
  memcpy(scratch + at + 8, text, len);
  memcpy(scratch + at + 8 + len, behind, tail);
  return at + 8 + len + tail;
}

/* Bytes that keep their number, as those of scalars must. */
static void change_bytes(uint8_t *p, size_t n) {
  if (n == 0) return;
  size_t got = LLVMFuzzerMutate(p, n, n);
  memset(p + got, 0, n - got);
}

static void change_array(item *it, size_t at) {
  uint32_t type = u32_at(scratch + at);
  uint64_t count = u64_at(scratch + at + 4);
  if (type != IST_GGUF_STRING) {
    change_bytes(scratch + at + 12, it->n - at - 12);
    return;
  }
  if (!count) return;
  size_t s = at + 12;
  for (uint64_t i = (uint64_t)rand() % count; i > 0; i--) s += 8 + (size_t)u64_at(scratch + s);
  it->n = change_string(s, it->n);
}

static void change_key(item *it) {
  if (!copy(it)) return;
  size_t name = string_length(it->p, it->n);
  uint32_t type = u32_at(it->p + name);
  switch (rand() % 8) {
    case 0: it->n = change_string(0, it->n); return;
    case 1: change_bytes(scratch + name, 4); return;
    default:
      if (type == IST_GGUF_STRING)
        it->n = change_string(name + 4, it->n);
      else if (type == IST_GGUF_ARRAY)
        change_array(it, name + 4);
      else
        change_bytes(scratch + name + 4, it->n - name - 4);
  }
}

static void change_tensor(item *it) {
  if (!copy(it)) return;
  size_t name = string_length(it->p, it->n);
  switch (rand() % 4) {
    case 0: it->n = change_string(0, it->n); return;
    case 1: scratch[it->n - 12] = (uint8_t)(rand() % 42); return; /* its type */
    default: change_bytes(scratch + name + 4, it->n - name - 4);
  }
}

/* This one's name with that one's value. */
static void swap_value(item *to, const item *from) {
  size_t name = string_length(to->p, to->n), other = string_length(from->p, from->n);
  if (!copy(to) || from->n - other > MOST_BYTES / 2) return;
  memcpy(scratch + name, from->p + other, from->n - other);
  to->n = name + from->n - other;
}

static void drop(item *list, size_t *n, size_t i) {
  memmove(&list[i], &list[i + 1], (--*n - i) * sizeof *list);
}

static void change(layout *l) {
  bool of_tensors = l->n_tensors > 0 && (l->n_keys == 0 || rand() % 3 == 0);
  item *list = of_tensors ? l->tensor : l->key;
  size_t *n = of_tensors ? &l->n_tensors : &l->n_keys;
  if (*n == 0) return;
  size_t i = (size_t)rand() % *n, j = (size_t)rand() % *n;
  switch (rand() % 8) {
    case 0: drop(list, n, i); return;
    case 1:
      if (*n < MOST_ITEMS) list[(*n)++] = list[i];
      return;
    case 2:
      if (i != j) swap_value(&list[i], &list[j]);
      return;
    default:
      if (of_tensors)
        change_tensor(&list[i]);
      else
        change_key(&list[i]);
  }
}

/* What stands before the file (the text for a tokenizer) is left as it is. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned seed) {
  static layout l;
  static uint8_t out[MOST_BYTES];
  srand(seed);
  const uint8_t *file = memmem(data, size, "GGUF", 4);
  size_t before = file ? (size_t)(file - data) : size;
  if (rand() % 4 == 0 || !take_apart(&l, data + before, size - before))
    return LLVMFuzzerMutate(data, size, most);
  change(&l);
  size_t room = most - before < sizeof out ? most - before : sizeof out;
  size_t n = put_together(out, room, data + before, &l);
  if (!n) return LLVMFuzzerMutate(data, size, most);
  memcpy(data + before, out, n);
  return before + n;
}
