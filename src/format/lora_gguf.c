#include "format/lora_gguf.h"

#include <inttypes.h>
#include <math.h>

#include "format/gguf.h"
#include "format/quant.h"

static const char suffix_a[] = ".lora_a", suffix_b[] = ".lora_b";
#define SUFFIX (sizeof suffix_a - 1)
/* What ggml's reader takes, with the suffix. */
#define MAX_NAME 63

/* ---- Writing ---- */

/* The embedding is looked up, not multiplied: llama.cpp takes its lora_a as (V, r),
 * whose rows are looked up, and its lora_b as (D, r). In our terms, an update B A of
 * the matrix (V, D), lora_a is B and lora_b the transpose of A. */
static bool is_embedding(const char *name) {
  return strcmp(name, "token_embd.weight") == 0;
}

/* (rows, cols) -> (cols, rows) */
static void copy_transposed(float *dst, const float *v, int64_t rows, int64_t cols) {
  for (int64_t i = 0; i < rows; i++)
    for (int64_t j = 0; j < cols; j++) dst[j * rows + i] = v[i * cols + j];
}

/* One half of an item, as the GGUF writer pulls it. */
typedef struct half_source {
  const ist_lora_item *item;
  int half;
} half_source;

static ist_status pull_transposed_a(const half_source *h, int64_t offset, int64_t n,
                                    unsigned char *dst) {
  const ist_lora_pair *p = &h->item->pair;
  const float *a = h->item->make(h->item->user, 0);
  int64_t row0 = offset / (p->r * (int64_t)sizeof *a), rows = n / (p->r * (int64_t)sizeof *a);
  for (int64_t i = 0; i < rows; i++)
    for (int64_t k = 0; k < p->r; k++)
      memcpy(dst + (i * p->r + k) * (int64_t)sizeof *a, &a[k * p->in + row0 + i], sizeof *a);
  return IST_OK;
}

static ist_status pull_half(void *user, int64_t offset, int64_t n, unsigned char *dst,
                            ist_error *err) {
  (void)err;
  const half_source *h = user;
  const bool embedding = is_embedding(h->item->pair.name);
  if (embedding && h->half == 1) return pull_transposed_a(h, offset, n, dst);
  const int half = embedding ? 1 : h->half;
  memcpy(dst, (const char *)h->item->make(h->item->user, half) + offset, (size_t)n);
  return IST_OK;
}

static void put_half(ist_gguf_writer *w, half_source *h) {
  const ist_lora_pair *p = &h->item->pair;
  char full[MAX_NAME + 1];
  size_t len = strlen(p->name);
  memcpy(full, p->name, len);
  memcpy(full + len, h->half ? suffix_b : suffix_a, SUFFIX + 1);
  int64_t ne[3] = {h->half ? p->r : p->in, h->half ? p->out : p->r, p->experts};
  if (is_embedding(p->name)) {
    ne[0] = p->r;
    ne[1] = h->half ? p->in : p->out;
  }
  ist_gguf_put_tensor(w, full, IST_F32, p->experts ? 3 : 2, ne, pull_half, h);
}

ist_status ist_lora_gguf_write_items(const char *path, const char *architecture, float alpha,
                                     const ist_lora_item *item, int64_t n, ist_error *err) {
  if (alpha == 0 || !isfinite(alpha))
    return ist_fail(err, IST_ERR_ARG, "%s: an alpha of %g cannot be written", path, (double)alpha);
  for (int64_t i = 0; i < n; i++)
    if (strlen(item[i].pair.name) + SUFFIX > MAX_NAME)
      return ist_fail(err, IST_ERR_ARG, "%s: the tensor name '%s%s' is longer than %d bytes", path,
                      item[i].pair.name, suffix_a, MAX_NAME);
  ist_gguf_writer *w = ist_gguf_writer_new();
  half_source *halves = ist_calloc((size_t)n, 2 * sizeof *halves);
  ist_status s = w && halves ? IST_OK : ist_fail_nomem(err, path, (size_t)n * 2 * sizeof *halves);
  if (s == IST_OK) {
    ist_gguf_put_str(w, "general.type", "adapter", 7);
    ist_gguf_put_str(w, "general.architecture", architecture, strlen(architecture));
    ist_gguf_put_str(w, "adapter.type", "lora", 4);
    ist_gguf_put_f32(w, "adapter.lora.alpha", alpha);
    for (int64_t i = 0; i < 2 * n; i++) {
      halves[i] = (half_source){&item[i / 2], (int)(i % 2)};
      put_half(w, &halves[i]);
    }
    s = ist_gguf_write(w, path, err);
  }
  ist_free(halves);
  ist_gguf_writer_free(w);
  return s;
}

static const float *half_of_pair(void *user, int half) {
  const ist_lora_pair *p = user;
  return half ? p->b : p->a;
}

ist_status ist_lora_gguf_write(const char *path, const char *architecture, float alpha,
                               const ist_lora_pair *pair, int64_t n, ist_error *err) {
  ist_lora_item *item = ist_calloc((size_t)n, sizeof *item);
  if (!item) return ist_fail_nomem(err, path, (size_t)n * sizeof *item);
  for (int64_t i = 0; i < n; i++)
    item[i] = (ist_lora_item){pair[i], half_of_pair, (void *)(uintptr_t)&pair[i]};
  ist_status s = ist_lora_gguf_write_items(path, architecture, alpha, item, n, err);
  ist_free(item);
  return s;
}

/* ---- Reading ---- */

static ist_status expect_str(const ist_gguf *g, const char *key, const char *expected,
                             ist_error *err) {
  ist_str s;
  IST_TRY(ist_gguf_get_str(g, key, true, &s, err));
  if (s.len == strlen(expected) && memcmp(s.p, expected, s.len) == 0) return IST_OK;
  return ist_fail(err, IST_ERR_UNSUPPORTED, "%s: %s is '%.*s', expected '%s'", g->path, key,
                  (int)s.len, s.p, expected);
}

static ist_status read_keys(const ist_gguf *g, ist_lora_gguf *l, ist_error *err) {
  IST_TRY(expect_str(g, "general.type", "adapter", err));
  IST_TRY(expect_str(g, "adapter.type", "lora", err));
  ist_str arch;
  IST_TRY(ist_gguf_get_str(g, "general.architecture", true, &arch, err));
  l->architecture = ist_strndup(arch.p, arch.len);
  if (!l->architecture) return ist_fail_nomem(err, g->path, arch.len);
  IST_TRY(ist_gguf_get_f64(g, "adapter.lora.alpha", false, &l->alpha, err));
  if (!isfinite(l->alpha))
    return ist_fail(err, IST_ERR_FORMAT, "%s: adapter.lora.alpha is %g", g->path, l->alpha);
  if (ist_gguf_find(g, "adapter.alora.invocation_tokens"))
    return ist_fail(err, IST_ERR_UNSUPPORTED,
                    "%s: an activated LoRA (adapter.alora.invocation_tokens) "
                    "is not supported",
                    g->path);
  return IST_OK;
}

static bool has_suffix(ist_str s, const char *suffix) {
  return s.len > SUFFIX && memcmp(s.p + s.len - SUFFIX, suffix, SUFFIX) == 0;
}

/* The tensor as f32; NULL when out of memory. */
static float *to_f32(const ist_gguf_tensor *t) {
  int64_t n = t->ne[0] * t->ne[1] * t->ne[2];
  float *out = ist_calloc((size_t)n, sizeof *out);
  if (out) ist_dequant_f32(out, t->data, t->type, n);
  return out;
}

static ist_status check_half(const ist_gguf *g, const ist_gguf_tensor *t, ist_error *err) {
  if (t->ne[3] == 1 && ist_dequant_supported(t->type)) return IST_OK;
  return ist_fail(err, IST_ERR_FORMAT, "%s: tensor '%.*s' is not a matrix of weights", g->path,
                  (int)t->name.len, t->name.p);
}

/* Reads the pair whose first half is `a`. */
static ist_status read_pair(const ist_gguf *g, const ist_gguf_tensor *a, ist_lora_pair *p,
                            ist_error *err) {
  size_t base = a->name.len - SUFFIX;
  char *name = ist_strndup(a->name.p, a->name.len);
  if (!name) return ist_fail_nomem(err, g->path, a->name.len);
  p->name = name;
  memcpy(name + base, suffix_b, SUFFIX);
  const ist_gguf_tensor *b = ist_gguf_find_tensor(g, name);
  if (!b)
    return ist_fail(err, IST_ERR_FORMAT, "%s: '%.*s' has no '%s'", g->path, (int)a->name.len,
                    a->name.p, name);
  name[base] = 0;
  IST_TRY(check_half(g, a, err));
  IST_TRY(check_half(g, b, err));
  const bool embedding = is_embedding(name);
  const int64_t rank_a = a->ne[embedding ? 0 : 1];
  if (rank_a != b->ne[0])
    return ist_fail(err, IST_ERR_FORMAT,
                    "%s: '%s': lora_a has rank %" PRId64 ", lora_b has rank %" PRId64, g->path,
                    name, rank_a, b->ne[0]);
  if (a->ne[2] != b->ne[2] || (embedding && a->ne[2] != 1))
    return ist_fail(err, IST_ERR_FORMAT,
                    "%s: '%s': lora_a is of %" PRId64 " matrices, lora_b of %" PRId64, g->path,
                    name, a->ne[2], b->ne[2]);
  p->r = rank_a;
  p->experts = a->n_dims > 2 ? a->ne[2] : 0;
  p->in = embedding ? b->ne[1] : a->ne[0];
  p->out = embedding ? a->ne[1] : b->ne[1];
  p->a = to_f32(embedding ? b : a);
  p->b = to_f32(embedding ? a : b);
  if (embedding && p->a) {
    float *t = ist_calloc((size_t)(p->in * p->r), sizeof *t);
    if (t) copy_transposed(t, p->a, p->in, p->r);
    ist_free((void *)(uintptr_t)p->a);
    p->a = t;
  }
  return p->a && p->b ? IST_OK : ist_fail_nomem(err, g->path, (size_t)(a->bytes + b->bytes));
}

static ist_status read_pairs(const ist_gguf *g, ist_lora_gguf *l, ist_error *err) {
  l->pair = ist_calloc((size_t)g->n_tensors, sizeof *l->pair);
  if (!l->pair) return ist_fail_nomem(err, g->path, (size_t)g->n_tensors * sizeof *l->pair);
  int64_t halves = 0;
  for (int64_t i = 0; i < g->n_tensors; i++) {
    const ist_gguf_tensor *t = &g->tensor[i];
    if (has_suffix(t->name, suffix_a)) {
      IST_TRY(read_pair(g, t, &l->pair[l->n++], err));
    } else if (has_suffix(t->name, suffix_b)) {
      halves++;
    } else {
      return ist_fail(err, IST_ERR_UNSUPPORTED, "%s: tensor '%.*s' is neither lora_a nor lora_b",
                      g->path, (int)t->name.len, t->name.p);
    }
  }
  /* Every lora_a found its lora_b, and names differ: equal counts pair them all. */
  if (halves != l->n)
    return ist_fail(err, IST_ERR_FORMAT, "%s: %" PRId64 " lora_b tensors, but %" PRId64 " lora_a",
                    g->path, halves, l->n);
  return IST_OK;
}

ist_status ist_lora_gguf_open(ist_lora_gguf **out, const char *path, ist_error *err) {
  *out = NULL;
  ist_gguf *g;
  IST_TRY(ist_gguf_open(&g, path, err));
  ist_lora_gguf *l = ist_calloc(1, sizeof *l);
  ist_status s = l ? read_keys(g, l, err) : ist_fail_nomem(err, path, sizeof *l);
  if (s == IST_OK) s = read_pairs(g, l, err);
  ist_gguf_close(g);
  if (s == IST_OK)
    *out = l;
  else
    ist_lora_gguf_close(l);
  return s;
}

void ist_lora_gguf_close(ist_lora_gguf *l) {
  if (!l) return;
  for (int64_t i = 0; i < l->n; i++) {
    ist_free((void *)l->pair[i].name);
    ist_free((void *)l->pair[i].a);
    ist_free((void *)l->pair[i].b);
  }
  ist_free(l->pair);
  ist_free(l->architecture);
  ist_free(l);
}

double ist_lora_gguf_scale(const ist_lora_gguf *l, const ist_lora_pair *p) {
  return l->alpha != 0 ? l->alpha / (double)p->r : 1;
}
