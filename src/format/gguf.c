/* GGUF reader. Everything in the file is checked once, here, so that the rest
 * of the program may use the views without a thought: every length, count,
 * product and offset lies within the map before it is used. */
#include "format/gguf.h"

#include <inttypes.h>

#include "base/hash.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "GGUF data is used in place");

/* Caps far above any real file, so that a hostile header cannot make us allocate
 * a multiple of its own size. */
#define MAX_COUNT         (1u << 20)
#define MAX_KEY           65535u
#define MAX_STRING        (1u << 30)
#define MAX_ELEMENTS      (1u << 30)
#define MAX_NAME          63u /* as llama.cpp */
#define MIN_ALIGNMENT     8u /* the format's: F64 and F32 tensors are used where they lie */
#define MAX_ALIGNMENT     (1u << 30)
#define DEFAULT_ALIGNMENT 32u

/* Least bytes a record can take: bounds a count before anything is allocated. */
#define MIN_KV_BYTES     (8 + 1 + 4 + 1)
#define MIN_TENSOR_BYTES (8 + 1 + 4 + 4 + 8)

static const struct {
  const char *name;
  unsigned bytes; /* 0: of variable size */
} value_type[] = {
    [IST_GGUF_U8] = {"u8", 1},         [IST_GGUF_I8] = {"i8", 1},
    [IST_GGUF_U16] = {"u16", 2},       [IST_GGUF_I16] = {"i16", 2},
    [IST_GGUF_U32] = {"u32", 4},       [IST_GGUF_I32] = {"i32", 4},
    [IST_GGUF_F32] = {"f32", 4},       [IST_GGUF_BOOL] = {"bool", 1},
    [IST_GGUF_STRING] = {"string", 0}, [IST_GGUF_ARRAY] = {"array", 0},
    [IST_GGUF_U64] = {"u64", 8},       [IST_GGUF_I64] = {"i64", 8},
    [IST_GGUF_F64] = {"f64", 8},
};
#define VALUE_TYPES (sizeof value_type / sizeof value_type[0])

/* ggml's other tensor types, by id, so that a refusal can say what was found. */
static const char *const foreign_type[] = {
    [4] = "Q4_2, removed from GGUF",
    [5] = "Q4_3, removed from GGUF",
    [9] = "Q8_1",
    [15] = "Q8_K",
    [16] = "IQ2_XXS",
    [17] = "IQ2_XS",
    [18] = "IQ3_XXS",
    [19] = "IQ1_S",
    [21] = "IQ3_S",
    [22] = "IQ2_S",
    [29] = "IQ1_M",
    [31] = "Q4_0_4_4, removed from GGUF",
    [32] = "Q4_0_4_8, removed from GGUF",
    [33] = "Q4_0_8_8, removed from GGUF",
    [34] = "TQ1_0",
    [35] = "TQ2_0",
    [36] = "IQ4_NL_4_4, removed from GGUF",
    [37] = "IQ4_NL_4_8, removed from GGUF",
    [38] = "IQ4_NL_8_8, removed from GGUF",
    [39] = "MXFP4",
    [40] = "NVFP4",
};

static ist_status fail_truncated(const ist_cursor *c, const char *where, ist_error *err) {
  return ist_fail(err, IST_ERR_FORMAT, "truncated in %s: the file ends at byte %zu", where,
                  c->size);
}

static ist_status read_string(ist_cursor *c, uint64_t limit, const char *what, ist_str *out,
                              ist_error *err) {
  uint64_t len = ist_read_u64(c);
  if (c->failed) return fail_truncated(c, what, err);
  if (len > limit)
    return ist_fail(err, IST_ERR_FORMAT,
                    "%s of %" PRIu64 " bytes at byte %zu, at most %" PRIu64 " expected", what, len,
                    c->at - 8, limit);
  const unsigned char *p = ist_read_bytes(c, len);
  if (!p) return fail_truncated(c, what, err);
  *out = (ist_str){(const char *)p, (size_t)len};
  return IST_OK;
}

/* Well-formed UTF-8 (shortest form, no surrogates, at most U+10FFFF) without NUL. */
static bool is_utf8(const char *s, size_t len) {
  const unsigned char *p = (const unsigned char *)s, *end = p + len;
  while (p < end) {
    int more = *p < 0x80 ? 0 : *p >= 0xf0 ? 3 : *p >= 0xe0 ? 2 : 1;
    if (*p == 0 || (more && (*p < 0xc2 || *p > 0xf4)) || end - p <= more) return false;
    /* The second byte carries the limits of the first. */
    unsigned char lo = *p == 0xe0 ? 0xa0 : *p == 0xf0 ? 0x90 : 0x80;
    unsigned char hi = *p == 0xed ? 0x9f : *p == 0xf4 ? 0x8f : 0xbf;
    if (more && (p[1] < lo || p[1] > hi)) return false;
    for (int i = 2; i <= more; i++)
      if ((p[i] & 0xc0) != 0x80) return false;
    p += more + 1;
  }
  return true;
}

/* A key or tensor name: not empty, UTF-8, no NUL inside. */
static ist_status read_name(ist_cursor *c, uint64_t limit, const char *what, ist_str *out,
                            ist_error *err) {
  size_t at = c->at;
  IST_TRY(read_string(c, limit, what, out, err));
  if (out->len == 0) return ist_fail(err, IST_ERR_FORMAT, "empty %s at byte %zu", what, at);
  if (!is_utf8(out->p, out->len))
    return ist_fail(err, IST_ERR_FORMAT, "%s at byte %zu is not UTF-8 text", what, at);
  return IST_OK;
}

static ist_status read_strings(ist_cursor *c, ist_gguf_kv *kv, ist_error *err) {
  kv->strings = ist_calloc((size_t)kv->count, sizeof *kv->strings);
  if (!kv->strings) return ist_fail_nomem(err, "GGUF strings", (size_t)kv->count * sizeof(ist_str));
  for (uint64_t i = 0; i < kv->count; i++)
    IST_TRY(read_string(c, MAX_STRING, "a string", &kv->strings[i], err));
  return IST_OK;
}

static ist_status check_bools(const ist_gguf_kv *kv, ist_error *err) {
  for (size_t i = 0; i < kv->bytes; i++)
    if (kv->data[i] > 1)
      return ist_fail(err, IST_ERR_FORMAT, "bool of value %d, expected 0 or 1", kv->data[i]);
  return IST_OK;
}

/* The elements of a value whose type and count are known: elem, count. */
static ist_status read_elements(ist_cursor *c, ist_gguf_type elem, ist_gguf_kv *kv,
                                ist_error *err) {
  size_t start = c->at;
  uint64_t least = elem == IST_GGUF_STRING ? 8 : value_type[elem].bytes;
  if (kv->count > MAX_ELEMENTS || kv->count > (c->size - c->at) / least)
    return ist_fail(err, IST_ERR_FORMAT,
                    "array of %" PRIu64
                    " %s at byte %zu, but the file has %zu "
                    "bytes left",
                    kv->count, value_type[elem].name, start, c->size - start);
  kv->data = c->p + start;
  if (elem != IST_GGUF_STRING) {
    kv->bytes = (size_t)(kv->count * least);
    ist_read_bytes(c, kv->bytes);
    return elem == IST_GGUF_BOOL ? check_bools(kv, err) : IST_OK;
  }
  if (kv->type == IST_GGUF_ARRAY) {
    IST_TRY(read_strings(c, kv, err));
  } else {
    ist_str s;
    IST_TRY(read_string(c, MAX_STRING, "a string", &s, err));
  }
  kv->bytes = c->at - start;
  return IST_OK;
}

static ist_status read_value(ist_cursor *c, ist_gguf_kv *kv, ist_error *err) {
  uint32_t type = ist_read_u32(c);
  if (c->failed) return fail_truncated(c, "the metadata", err);
  if (type >= VALUE_TYPES)
    return ist_fail(err, IST_ERR_FORMAT, "unknown value type %" PRIu32, type);
  kv->type = kv->elem = (ist_gguf_type)type;
  kv->count = 1;
  if (kv->type == IST_GGUF_ARRAY) {
    uint32_t elem = ist_read_u32(c);
    kv->count = ist_read_u64(c);
    if (c->failed) return fail_truncated(c, "the metadata", err);
    if (elem == IST_GGUF_ARRAY) return ist_fail(err, IST_ERR_FORMAT, "array of arrays");
    if (elem >= VALUE_TYPES)
      return ist_fail(err, IST_ERR_FORMAT, "array of unknown type %" PRIu32, elem);
    kv->elem = (ist_gguf_type)elem;
  }
  return read_elements(c, kv->elem, kv, err);
}

static ist_status read_kvs(ist_gguf *g, ist_cursor *c, ist_error *err) {
  g->kv = ist_calloc((size_t)g->n_kv, sizeof *g->kv);
  if (!g->kv) return ist_fail_nomem(err, "GGUF metadata", (size_t)g->n_kv * sizeof *g->kv);
  for (int64_t i = 0; i < g->n_kv; i++) {
    ist_gguf_kv *kv = &g->kv[i];
    IST_TRY(read_name(c, MAX_KEY, "a key", &kv->key, err));
    ist_status s = read_value(c, kv, err);
    if (s != IST_OK) {
      ist_error_context(err, "key '%.*s'", (int)kv->key.len, kv->key.p);
      return s;
    }
  }
  return IST_OK;
}

static ist_status fail_type(uint32_t id, ist_error *err) {
  const char *name = id < sizeof foreign_type / sizeof foreign_type[0] ? foreign_type[id] : NULL;
  ist_fail(err, IST_ERR_UNSUPPORTED, "tensor type %" PRIu32 " (%s) is not supported", id,
           name ? name : "unknown");
  ist_hint(err,
           "use a file with F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K to Q6_K, "
           "IQ4_NL or IQ4_XS tensors");
  return IST_ERR_UNSUPPORTED;
}

/* Dimensions, type and bytes of a tensor; the product is checked before it is formed. */
static ist_status read_shape(ist_cursor *c, ist_gguf_tensor *t, ist_error *err) {
  uint32_t n_dims = ist_read_u32(c);
  if (c->failed) return fail_truncated(c, "the tensor list", err);
  if (n_dims > 4) return ist_fail(err, IST_ERR_FORMAT, "%" PRIu32 " dimensions, at most 4", n_dims);
  t->n_dims = (int)n_dims;
  uint64_t elements = 1;
  for (int d = 0; d < 4; d++) {
    uint64_t n = d < t->n_dims ? ist_read_u64(c) : 1;
    if (c->failed) return fail_truncated(c, "the tensor list", err);
    /* 2^59 elements of at most 8 bytes keep every later product and sum below 2^63. */
    if (n == 0 || n > (UINT64_C(1) << 59) / elements)
      return ist_fail(err, IST_ERR_FORMAT, "dimension %d is %" PRIu64 ": %s", d, n,
                      n ? "too many elements" : "no elements");
    elements *= n;
    t->ne[d] = (int64_t)n;
  }
  uint32_t id = ist_read_u32(c);
  if (c->failed) return fail_truncated(c, "the tensor list", err);
  int type = ist_dtype_from_ggml(id);
  if (type < 0) return fail_type(id, err);
  t->type = (ist_dtype)type;
  const ist_dtype_info *info = ist_dtype_get(t->type);
  if (t->ne[0] % info->block != 0)
    return ist_fail(err, IST_ERR_FORMAT,
                    "rows of %" PRId64 " elements are not whole %s blocks of %d", t->ne[0],
                    info->name, info->block);
  t->bytes = ist_dtype_bytes(t->type, (int64_t)elements);
  return IST_OK;
}

/* Reads the tensor list; leaves each offset in `at` for place_tensors. */
static ist_status read_tensors(ist_gguf *g, ist_cursor *c, uint64_t *at, ist_error *err) {
  for (int64_t i = 0; i < g->n_tensors; i++) {
    ist_gguf_tensor *t = &g->tensor[i];
    IST_TRY(read_name(c, MAX_NAME, "a tensor name", &t->name, err));
    ist_status s = read_shape(c, t, err);
    if (s != IST_OK) {
      ist_error_context(err, "tensor '%.*s'", (int)t->name.len, t->name.p);
      return s;
    }
    at[i] = ist_read_u64(c);
    if (c->failed) return fail_truncated(c, "the tensor list", err);
  }
  return IST_OK;
}

/* Tensors lie one after another in list order, each padded to the alignment
 * (the last one too), as ggml's reader demands: so none can overlap. */
static ist_status place_tensors(ist_gguf *g, const uint64_t *at, ist_error *err) {
  uint64_t left = g->map.size - g->data_offset, expected = 0;
  for (int64_t i = 0; i < g->n_tensors; i++) {
    ist_gguf_tensor *t = &g->tensor[i];
    const char *name = t->name.p;
    int len = (int)t->name.len;
    if (at[i] != expected)
      return ist_fail(err, IST_ERR_FORMAT,
                      "tensor '%.*s': offset %" PRIu64 ", expected %" PRIu64
                      " (tensors in order, each padded to %" PRIu64 " bytes)",
                      len, name, at[i], expected, g->alignment);
    uint64_t padded = ((uint64_t)t->bytes + g->alignment - 1) & ~(g->alignment - 1);
    if (padded > left)
      return ist_fail(err, IST_ERR_FORMAT,
                      "truncated: tensor '%.*s' needs %" PRIu64
                      " bytes, the "
                      "file has %" PRIu64 " left",
                      len, name, padded, left);
    t->data = g->map.p + g->data_offset + expected;
    expected += padded;
    left -= padded;
  }
  return IST_OK;
}

static ist_status read_tensor_section(ist_gguf *g, ist_cursor *c, ist_error *err) {
  g->tensor = ist_calloc((size_t)g->n_tensors, sizeof *g->tensor);
  uint64_t *at = ist_calloc((size_t)g->n_tensors, sizeof *at);
  ist_status s = IST_OK;
  if (!g->tensor || !at)
    s = ist_fail_nomem(err, "GGUF tensor list", (size_t)g->n_tensors * sizeof *g->tensor);
  if (s == IST_OK) s = read_tensors(g, c, at, err);
  if (s == IST_OK && g->n_tensors > 0) {
    uint64_t start = ((uint64_t)c->at + g->alignment - 1) & ~(g->alignment - 1);
    if (start > g->map.size) {
      s = fail_truncated(c, "the padding before the tensor data", err);
    } else {
      g->data_offset = (size_t)start;
      s = place_tensors(g, at, err);
    }
  }
  ist_free(at);
  return s;
}

static ist_status read_counts(ist_gguf *g, ist_cursor *c, ist_error *err) {
  const unsigned char *magic = ist_read_bytes(c, 4);
  if (!magic || memcmp(magic, "GGUF", 4) != 0)
    return ist_fail(err, IST_ERR_FORMAT, "not a GGUF file (it does not begin with 'GGUF')");
  g->version = ist_read_u32(c);
  uint64_t n_tensors = ist_read_u64(c), n_kv = ist_read_u64(c);
  if (c->failed) return fail_truncated(c, "the header", err);
  if ((g->version & 0xffff) == 0 && g->version != 0)
    return ist_fail(err, IST_ERR_UNSUPPORTED, "a big-endian GGUF file");
  if (g->version != 2 && g->version != 3)
    return ist_fail(err, IST_ERR_UNSUPPORTED, "GGUF version %" PRIu32 ", expected 2 or 3", g->version);
  size_t left = c->size - c->at;
  if (n_kv > MAX_COUNT || n_kv > left / MIN_KV_BYTES)
    return ist_fail(err, IST_ERR_FORMAT, "%" PRIu64 " metadata keys cannot lie in %zu bytes", n_kv,
                    left);
  if (n_tensors > MAX_COUNT || n_tensors > left / MIN_TENSOR_BYTES)
    return ist_fail(err, IST_ERR_FORMAT, "%" PRIu64 " tensors cannot lie in %zu bytes", n_tensors,
                    left);
  g->n_kv = (int64_t)n_kv;
  g->n_tensors = (int64_t)n_tensors;
  return IST_OK;
}

static ist_status read_alignment(ist_gguf *g, ist_error *err) {
  int64_t a = DEFAULT_ALIGNMENT;
  IST_TRY(ist_gguf_get_i64(g, "general.alignment", false, &a, err));
  if (a < MIN_ALIGNMENT || a > MAX_ALIGNMENT || (a & (a - 1)) != 0)
    return ist_fail(err, IST_ERR_FORMAT,
                    "%s: general.alignment is %" PRId64 ", expected a power of two from %u on",
                    g->path, a, MIN_ALIGNMENT);
  g->alignment = (uint64_t)a;
  return IST_OK;
}

/* Open-addressing tables of indices, -1 where empty, half full at most. The
 * names are reached through `stride`: both records begin with their ist_str. */
static int32_t hash_find(const int32_t *table, uint32_t mask, const void *records, size_t stride,
                         const char *name, size_t len, uint32_t *slot) {
  for (uint32_t at = (uint32_t)ist_hash(ist_hash_key(), name, len) & mask;; at = (at + 1) & mask) {
    *slot = at;
    if (table[at] < 0) return -1;
    const ist_str *s = (const ist_str *)((const char *)records + (size_t)table[at] * stride);
    if (s->len == len && memcmp(s->p, name, len) == 0) return table[at];
  }
}

static ist_status hash_build(int32_t **table, uint32_t *mask, const void *records, size_t stride,
                             int64_t n, const char *what, ist_error *err) {
  uint32_t size = 8;
  while (size < 2 * (uint64_t)n) size *= 2;
  *mask = size - 1;
  *table = ist_calloc(size, sizeof **table);
  if (!*table) return ist_fail_nomem(err, "GGUF name table", size * sizeof **table);
  memset(*table, 0xff, size * sizeof **table);
  for (int64_t i = 0; i < n; i++) {
    const ist_str *s = (const ist_str *)((const char *)records + (size_t)i * stride);
    uint32_t slot;
    if (hash_find(*table, *mask, records, stride, s->p, s->len, &slot) >= 0)
      return ist_fail(err, IST_ERR_FORMAT, "%s '%.*s' appears twice", what, (int)s->len, s->p);
    (*table)[slot] = (int32_t)i;
  }
  return IST_OK;
}

static ist_status parse_keys(ist_gguf *g, ist_cursor *c, ist_error *err) {
  IST_TRY(read_counts(g, c, err));
  IST_TRY(read_kvs(g, c, err));
  return hash_build(&g->kv_hash, &g->kv_mask, g->kv, sizeof *g->kv, g->n_kv, "key", err);
}

static ist_status parse_tensors(ist_gguf *g, ist_cursor *c, ist_error *err) {
  IST_TRY(read_tensor_section(g, c, err));
  return hash_build(&g->tensor_hash, &g->tensor_mask, g->tensor, sizeof *g->tensor, g->n_tensors,
                    "tensor", err);
}

/* Errors name the file once: looking a key up does so by itself. */
static ist_status parse(ist_gguf *g, ist_error *err) {
  ist_cursor c = {.p = g->map.p, .size = g->map.size};
  ist_status s = parse_keys(g, &c, err);
  if (s == IST_OK) {
    IST_TRY(read_alignment(g, err));
    s = parse_tensors(g, &c, err);
  }
  if (s != IST_OK) ist_error_context(err, "%s", g->path);
  return s;
}

ist_status ist_gguf_open(ist_gguf **out, const char *path, ist_error *err) {
  *out = NULL;
  ist_gguf *g = ist_calloc(1, sizeof *g);
  if (!g || !(g->path = ist_strdup(path))) {
    ist_gguf_close(g);
    return ist_fail_nomem(err, path, sizeof *g);
  }
  ist_status s = ist_map_open(&g->map, path, err);
  if (s == IST_OK) s = parse(g, err);
  if (s != IST_OK) {
    ist_gguf_close(g);
    return s;
  }
  *out = g;
  return IST_OK;
}

void ist_gguf_close(ist_gguf *g) {
  if (!g) return;
  for (int64_t i = 0; g->kv && i < g->n_kv; i++) ist_free(g->kv[i].strings);
  ist_free(g->kv);
  ist_free(g->tensor);
  ist_free(g->kv_hash);
  ist_free(g->tensor_hash);
  ist_free(g->path);
  ist_map_close(&g->map);
  ist_free(g);
}

const ist_gguf_kv *ist_gguf_find(const ist_gguf *g, const char *key) {
  uint32_t slot;
  int32_t i = hash_find(g->kv_hash, g->kv_mask, g->kv, sizeof *g->kv, key, strlen(key), &slot);
  return i < 0 ? NULL : &g->kv[i];
}

const ist_gguf_tensor *ist_gguf_find_tensor(const ist_gguf *g, const char *name) {
  uint32_t slot;
  int32_t i = hash_find(g->tensor_hash, g->tensor_mask, g->tensor, sizeof *g->tensor, name,
                        strlen(name), &slot);
  return i < 0 ? NULL : &g->tensor[i];
}

/* Finds a key for a typed look-up; NULL with IST_OK when it may be absent. */
static ist_status look_up(const ist_gguf *g, const char *key, bool required, const ist_gguf_kv **kv,
                          ist_error *err) {
  *kv = ist_gguf_find(g, key);
  if (!*kv && required)
    return ist_fail(err, IST_ERR_FORMAT, "%s: key '%s' is missing", g->path, key);
  return IST_OK;
}

static ist_status fail_kind(const ist_gguf *g, const ist_gguf_kv *kv, const char *expected,
                            ist_error *err) {
  return ist_fail(err, IST_ERR_FORMAT, "%s: key '%.*s' is of type %s, expected %s", g->path,
                  (int)kv->key.len, kv->key.p, value_type[kv->type].name, expected);
}

/* Loads one scalar of any width through memcpy: the map knows no alignment. */
#define LOAD(type, p) (*(type *)memcpy(&(type){0}, p, sizeof(type)))

static bool is_integer(ist_gguf_type t) {
  return t <= IST_GGUF_I32 || t == IST_GGUF_U64 || t == IST_GGUF_I64;
}

/* An integer of any type; U64 above INT64_MAX is the caller's to refuse. */
static int64_t load_i64(ist_gguf_type t, const unsigned char *p) {
  switch (t) {
    case IST_GGUF_U8:
    case IST_GGUF_BOOL: return *p;
    case IST_GGUF_I8: return LOAD(int8_t, p);
    case IST_GGUF_U16: return LOAD(uint16_t, p);
    case IST_GGUF_I16: return LOAD(int16_t, p);
    case IST_GGUF_U32: return LOAD(uint32_t, p);
    case IST_GGUF_I32: return LOAD(int32_t, p);
    default: return LOAD(int64_t, p);
  }
}

ist_status ist_gguf_get_i64(const ist_gguf *g, const char *key, bool required, int64_t *out,
                            ist_error *err) {
  const ist_gguf_kv *kv;
  IST_TRY(look_up(g, key, required, &kv, err));
  if (!kv) return IST_OK;
  if (!is_integer(kv->type)) return fail_kind(g, kv, "an integer", err);
  int64_t v = load_i64(kv->type, kv->data);
  if (kv->type == IST_GGUF_U64 && v < 0)
    return ist_fail(err, IST_ERR_FORMAT, "%s: key '%s' is %" PRIu64 ", out of range", g->path, key,
                    (uint64_t)v);
  *out = v;
  return IST_OK;
}

ist_status ist_gguf_get_f64(const ist_gguf *g, const char *key, bool required, double *out,
                            ist_error *err) {
  const ist_gguf_kv *kv;
  IST_TRY(look_up(g, key, required, &kv, err));
  if (!kv) return IST_OK;
  if (kv->type != IST_GGUF_F32 && kv->type != IST_GGUF_F64) return fail_kind(g, kv, "a float", err);
  *out = ist_gguf_elem_f64(kv, 0);
  return IST_OK;
}

ist_status ist_gguf_get_bool(const ist_gguf *g, const char *key, bool required, bool *out,
                             ist_error *err) {
  const ist_gguf_kv *kv;
  IST_TRY(look_up(g, key, required, &kv, err));
  if (!kv) return IST_OK;
  if (kv->type != IST_GGUF_BOOL) return fail_kind(g, kv, "bool", err);
  *out = *kv->data != 0;
  return IST_OK;
}

ist_status ist_gguf_get_str(const ist_gguf *g, const char *key, bool required, ist_str *out,
                            ist_error *err) {
  const ist_gguf_kv *kv;
  IST_TRY(look_up(g, key, required, &kv, err));
  if (!kv) return IST_OK;
  if (kv->type != IST_GGUF_STRING) return fail_kind(g, kv, "a string", err);
  *out = (ist_str){(const char *)kv->data + 8, kv->bytes - 8};
  return IST_OK;
}

double ist_gguf_elem_f64(const ist_gguf_kv *kv, uint64_t i) {
  IST_ASSERT(i < kv->count && kv->elem != IST_GGUF_STRING);
  const unsigned char *p = kv->data + i * value_type[kv->elem].bytes;
  switch (kv->elem) {
    case IST_GGUF_F32: return (double)LOAD(float, p);
    case IST_GGUF_F64: return LOAD(double, p);
    case IST_GGUF_U64: return (double)LOAD(uint64_t, p);
    default: return (double)load_i64(kv->elem, p);
  }
}
