/* Mutations that know how a GGUF is built: plain ones mostly break a length or a count near the
 * beginning, and everything behind it is never read. Here a key or a tensor is changed, lost,
 * doubled or given another's value, and lengths, counts, offsets and padding are made right
 * again. */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "format/gguf.h"

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t most);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned seed);

enum { MOST_ITEMS = 64, MOST_BYTES = 1 << 15, HEADER = 24, ALIGNMENT = 32 };

/* A key with its value, or a tensor's description, as it stands in the file; and the bytes that
 * the description speaks of. */
typedef struct item {
  const uint8_t *p, *data;
  size_t n, n_data;
} item;

typedef struct layout {
  item key[MOST_ITEMS], tensor[MOST_ITEMS];
  size_t n_keys, n_tensors;
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

/* ---- Where tensors lie ---- */

static size_t padded(size_t n, size_t alignment) {
  return (n + alignment - 1) / alignment * alignment;
}

/* What the file says, where a file of our size can be so. */
static size_t alignment_of(const layout *l) {
  static const char key[] = "general.alignment";
  const size_t name = 8 + sizeof key - 1;
  for (size_t i = 0; i < l->n_keys; i++) {
    const item *k = &l->key[i];
    if (k->n != name + 8 || memcmp(k->p + 8, key, sizeof key - 1) != 0) continue;
    uint32_t a = u32_at(k->p + name + 4);
    if (a >= 8 && a <= 4096 && (a & (a - 1)) == 0) return a;
  }
  return ALIGNMENT;
}

/* Bytes that the description asks for; those that are there where it makes no sense or asks for
 * more than a file of ours can have. */
static size_t tensor_bytes(const item *it) {
  const uint8_t *p = it->p + string_length(it->p, it->n);
  uint32_t n_dims = u32_at(p);
  if (n_dims > 4 || p + 4 + 8 * n_dims + 12 != it->p + it->n) return it->n_data;
  uint64_t elements = 1, row = n_dims ? u64_at(p + 4) : 1;
  for (uint32_t d = 0; d < n_dims; d++) {
    uint64_t n = u64_at(p + 4 + 8 * d);
    if (n == 0 || n > MOST_BYTES * 8 / elements) return it->n_data;
    elements *= n;
  }
  int type = ist_dtype_from_ggml(u32_at(it->p + it->n - 12));
  if (type < 0 || row % (uint64_t)ist_dtype_get((ist_dtype)type)->block != 0) return it->n_data;
  return (size_t)ist_dtype_bytes((ist_dtype)type, (int64_t)elements);
}

static void find_data(layout *l, const uint8_t *data, size_t size) {
  for (size_t i = 0; i < l->n_tensors; i++) {
    item *t = &l->tensor[i];
    uint64_t offset = u64_at(t->p + t->n - 8);
    if (offset >= size) continue;
    t->data = data + offset;
    t->n_data = size - offset;
    size_t bytes = tensor_bytes(t);
    if (bytes < t->n_data) t->n_data = bytes;
  }
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
    *(is_key ? &l->key[i] : &l->tensor[i - l->n_keys]) = (item){.p = data + at, .n = n};
    at += n;
  }
  at = padded(at, alignment_of(l));
  if (at < size) find_data(l, data + at, size - at);
  return true;
}

/* n bytes of p, and zeros up to `whole`. */
static bool put(uint8_t *out, size_t *at, size_t most, const void *p, size_t n, size_t whole) {
  if (n > whole) n = whole;
  if (whole > most - *at) return false;
  if (n) memcpy(out + *at, p, n);
  memset(out + *at + n, 0, whole - n);
  *at += whole;
  return true;
}

/* The file's length, or 0 where it has more than `most` bytes. Now and then offsets stay as they
 * are. */
static size_t put_together(uint8_t *out, size_t most, const uint8_t *head, const layout *l) {
  const uint64_t count[2] = {l->n_tensors, l->n_keys};
  const size_t alignment = alignment_of(l);
  bool keep = rand() % 16 == 0;
  size_t at = 0;
  uint64_t offset = 0;
  bool ok = put(out, &at, most, head, 8, 8) && put(out, &at, most, count, 16, 16);
  for (size_t i = 0; ok && i < l->n_keys; i++)
    ok = put(out, &at, most, l->key[i].p, l->key[i].n, l->key[i].n);
  for (size_t i = 0; ok && i < l->n_tensors; i++) {
    const item *t = &l->tensor[i];
    ok = put(out, &at, most, t->p, t->n, t->n);
    if (ok && !keep) memcpy(out + at - 8, &offset, 8);
    offset += padded(tensor_bytes(t), alignment);
  }
  ok = ok && put(out, &at, most, NULL, 0, padded(at, alignment) - at);
  for (size_t i = 0; ok && i < l->n_tensors; i++) {
    const item *t = &l->tensor[i];
    ok = put(out, &at, most, t->data, t->n_data, padded(tensor_bytes(t), alignment));
  }
  return ok ? at : 0;
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

/* A dimension a little larger or smaller, doubled or halved. */
static void change_dimension(uint8_t *p) {
  uint64_t n = u64_at(p);
  const uint64_t other[] = {n + 1, n - 1, n * 2, n / 2};
  memcpy(p, &other[rand() % 4], sizeof n);
}

static void change_tensor(item *it) {
  if (!copy(it)) return;
  size_t name = string_length(it->p, it->n);
  uint32_t n_dims = u32_at(it->p + name);
  switch (rand() % 5) {
    case 0: it->n = change_string(0, it->n); return;
    case 1: scratch[it->n - 12] = (uint8_t)(rand() % 42); return; /* its type */
    case 2:
    case 3:
      if (n_dims) change_dimension(scratch + name + 4 + 8 * ((uint32_t)rand() % n_dims));
      return;
    default: change_bytes(scratch + name + 4, it->n - name - 4);
  }
}

/* This one's name with that one's value. */
static void swap_value(item *to, const item *from) {
  size_t name = string_length(to->p, to->n), other = string_length(from->p, from->n);
  if (!copy(to) || from->n - other > MOST_BYTES / 2) return;
  memcpy(scratch + name, from->p + other, from->n - other);
  to->n = name + from->n - other;
  to->data = from->data;
  to->n_data = from->n_data;
}

static void drop(item *list, size_t *n, size_t i) {
  memmove(&list[i], &list[i + 1], (--*n - i) * sizeof *list);
}

/* The same again, mostly under a name of its own. */
static void repeat(item *list, size_t *n, size_t i) {
  if (*n == MOST_ITEMS) return;
  item *it = &list[(*n)++];
  *it = list[i];
  if (rand() % 4 && copy(it)) it->n = change_string(0, it->n);
}

static void change(layout *l) {
  bool of_tensors = l->n_tensors > 0 && (l->n_keys == 0 || rand() % 3 == 0);
  item *list = of_tensors ? l->tensor : l->key;
  size_t *n = of_tensors ? &l->n_tensors : &l->n_keys;
  if (*n == 0) return;
  size_t i = (size_t)rand() % *n, j = (size_t)rand() % *n;
  switch (rand() % 8) {
    case 0: drop(list, n, i); return;
    case 1: repeat(list, n, i); return;
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
