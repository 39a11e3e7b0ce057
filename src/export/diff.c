/* ist_diff: how far a fine-tune moved each tensor, for two models or two adapters. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/mem.h"
#include "base/parallel.h"
#include "format/lora_gguf.h"
#include "format/peft_match.h"
#include "format/quant.h"
#include "format/source.h"

/* The number behind the first "." or at the first "blk.", -1: none. */
static int64_t layer_of(const char *name) {
  for (const char *p = strchr(name, '.'); p; p = strchr(p + 1, '.'))
    if (p[1] >= '0' && p[1] <= '9') return strtoll(p + 1, NULL, 10);
  return -1;
}

/* Squared norms of A, of B, and their inner product: all else follows. */
typedef struct moments {
  double aa, bb, ab, dd; /* dd: of B - A */
} moments;

/* A tensor that one side lacks is zero there. */
static moments lone(double squares, bool in_a) {
  return (moments){.aa = in_a ? squares : 0, .bb = in_a ? 0 : squares, .dd = squares};
}

static ist_diff_tensor result_of(const char *name, moments s) {
  return (ist_diff_tensor){.name = name,
                           .layer = layer_of(name),
                           .norm_a = sqrt(s.aa),
                           .norm_b = sqrt(s.bb),
                           .norm_diff = sqrt(s.dd > 0 ? s.dd : 0),
                           .cosine = s.ab / sqrt(s.aa * s.bb)};
}

typedef struct side {
  const char *path;
  bool folder, adapter;
  ist_source source; /* unless a folder: a GGUF, all files of a split one */
} side;

/* ---- Two models ---- */

typedef struct pair {
  const ist_gguf_tensor *a, *b;
  float *work;  /* (threads' rows, 2 cols) */
  moments *row; /* (rows) */
  int64_t row0;
} pair;

static void compare_rows(void *arg, int64_t begin, int64_t end, int thread) {
  (void)thread;
  const pair *p = arg;
  const int64_t cols = p->a->ne[0];
  for (int64_t r = begin; r < end; r++) {
    float *a = p->work + 2 * r * cols, *b = a + cols;
    const int64_t at = (p->row0 + r) * cols;
    ist_dequant_f32(a, p->a->data + ist_dtype_bytes(p->a->type, at), p->a->type, cols);
    ist_dequant_f32(b, p->b->data + ist_dtype_bytes(p->b->type, at), p->b->type, cols);
    moments s = {0};
    for (int64_t i = 0; i < cols; i++) {
      double x = (double)a[i], y = (double)b[i];
      s.aa += x * x;
      s.bb += y * y;
      s.ab += x * y;
      s.dd += (y - x) * (y - x);
    }
    p->row[r] = s;
  }
}

/* A block of rows at a time: the tensors may be larger than memory. */
static ist_status compare_tensors(const ist_gguf_tensor *a, const ist_gguf_tensor *b, moments *out,
                                  ist_error *err) {
  const int64_t cols = a->ne[0], rows = a->ne[1] * a->ne[2] * a->ne[3];
  const int64_t fit = cols < (1 << 20) ? (1 << 20) / cols : 1, block = rows < fit ? rows : fit;
  pair p = {a, b, ist_calloc((size_t)(2 * block * cols), sizeof(float)),
            ist_calloc((size_t)block, sizeof(moments)), 0};
  ist_status s = p.work && p.row ? IST_OK
                                 : ist_fail_nomem(err, "rows to compare",
                                                  (size_t)(2 * block * cols) * sizeof(float));
  *out = (moments){0};
  for (; s == IST_OK && p.row0 < rows; p.row0 += block) {
    int64_t n = rows - p.row0 < block ? rows - p.row0 : block;
    ist_parallel_for(n, 1, compare_rows, &p);
    for (int64_t r = 0; r < n; r++) {
      out->aa += p.row[r].aa;
      out->bb += p.row[r].bb;
      out->ab += p.row[r].ab;
      out->dd += p.row[r].dd;
    }
  }
  ist_free(p.work);
  ist_free(p.row);
  return s;
}

typedef struct tensor_name {
  char text[128];
} tensor_name;

static tensor_name name_of(const ist_gguf_tensor *t) {
  tensor_name n;
  snprintf(n.text, sizeof n.text, "%.*s", (int)t->name.len, t->name.p);
  return n;
}

static ist_status compare_named(const side *a, const side *b, const ist_gguf_tensor *t,
                                ist_diff_fn each, void *user, ist_error *err) {
  const tensor_name n = name_of(t);
  const char *name = n.text;
  const ist_gguf_tensor *other = ist_source_find(&b->source, name);
  if (!ist_dequant_supported(t->type) || (other && !ist_dequant_supported(other->type)))
    return IST_OK; /* integers are no weights */
  if (other && memcmp(t->ne, other->ne, sizeof t->ne) != 0)
    return ist_fail(err, IST_ERR_MISMATCH,
                    "%s: found %lld x %lld in %s and %lld x %lld in %s: models of different shape",
                    name, (long long)t->ne[1], (long long)t->ne[0], a->path,
                    (long long)other->ne[1], (long long)other->ne[0], b->path);
  moments s = {0};
  IST_TRY(compare_tensors(t, other ? other : t, &s, err));
  ist_diff_tensor d = result_of(name, other ? s : lone(s.aa, true));
  d.only_a = !other;
  each(user, &d);
  return IST_OK;
}

static ist_status only_in_b(const ist_gguf_tensor *t, ist_diff_fn each, void *user,
                            ist_error *err) {
  const tensor_name name = name_of(t);
  moments s = {0};
  if (!ist_dequant_supported(t->type)) return IST_OK;
  IST_TRY(compare_tensors(t, t, &s, err));
  ist_diff_tensor d = result_of(name.text, lone(s.bb, false));
  d.only_b = true;
  each(user, &d);
  return IST_OK;
}

static ist_status diff_models(const side *a, const side *b, ist_diff_fn each, void *user,
                              ist_error *err) {
  const ist_source *sa = &a->source, *sb = &b->source;
  int64_t common = 0;
  for (int64_t i = 0; i < sa->n; i++)
    common += ist_source_find(sb, name_of(&sa->tensor[i]).text) != NULL;
  if (common == 0)
    return ist_fail(err, IST_ERR_MISMATCH, "%s, %s: found no tensor that both have", a->path,
                    b->path);
  for (int64_t i = 0; i < sa->n; i++) IST_TRY(compare_named(a, b, &sa->tensor[i], each, user, err));
  for (int64_t i = 0; i < sb->n; i++)
    if (!ist_source_find(sa, name_of(&sb->tensor[i]).text))
      IST_TRY(only_in_b(&sb->tensor[i], each, user, err));
  return IST_OK;
}

/* ---- Two adapters ---- */

/* scale B A of one module. */
typedef struct delta {
  char *name;
  int64_t in, out, r;
  double scale;
  float *a, *b;
} delta;

typedef struct deltas {
  delta *p;
  const delta **by_name; /* sorted, when all are read */
  int64_t n, cap;
} deltas;

static void free_deltas(deltas *d) {
  for (int64_t i = 0; i < d->n; i++) {
    ist_free(d->p[i].name);
    ist_free(d->p[i].a);
    ist_free(d->p[i].b);
  }
  ist_free(d->p);
  ist_free((void *)d->by_name);
}

/* What two adapters cost to compare grows by the square of their ranks. */
#define MAX_RANK 4096

static ist_status check_rank(const char *path, const char *name, int64_t r, ist_error *err) {
  if (r <= MAX_RANK) return IST_OK;
  return ist_fail(err, IST_ERR_UNSUPPORTED, "%s: %s: found rank %lld, expected at most %d", path,
                  name, (long long)r, MAX_RANK);
}

static int compare_names(const void *a, const void *b) {
  return strcmp((*(const delta *const *)a)->name, (*(const delta *const *)b)->name);
}

static ist_status sort_deltas(deltas *d, ist_error *err) {
  d->by_name = ist_calloc((size_t)d->n, sizeof *d->by_name);
  if (!d->by_name) return ist_fail_nomem(err, "names", (size_t)d->n * sizeof *d->by_name);
  for (int64_t i = 0; i < d->n; i++) d->by_name[i] = &d->p[i];
  qsort((void *)d->by_name, (size_t)d->n, sizeof *d->by_name, compare_names);
  return IST_OK;
}

static ist_status read_gguf(deltas *out, const char *path, ist_error *err) {
  ist_lora_gguf *l;
  IST_TRY(ist_lora_gguf_open(&l, path, err));
  ist_status s = IST_OK;
  for (int64_t i = 0; i < l->n && s == IST_OK; i++) {
    ist_lora_pair *p = &l->pair[i];
    if (p->experts) {
      s = ist_fail(err, IST_ERR_UNSUPPORTED,
                   "%s: %s: found adapters on experts; give the folders of the two adapters", path,
                   p->name);
      break;
    }
    s = check_rank(path, p->name, p->r, err);
    if (s == IST_OK) s = ist_grow(&out->p, &out->cap, out->n + 1, sizeof *out->p, err);
    if (s != IST_OK) break;
    out->p[out->n++] = (delta){(char *)(uintptr_t)p->name,
                               p->in,
                               p->out,
                               p->r,
                               ist_lora_gguf_scale(l, p),
                               (float *)(uintptr_t)p->a,
                               (float *)(uintptr_t)p->b};
    p->name = NULL;
    p->a = p->b = NULL; /* moved */
  }
  ist_lora_gguf_close(l);
  return s;
}

static float *floats(const ist_st_tensor *t, ist_error *err) {
  int64_t n = t->shape[0] * t->shape[1];
  float *v = ist_calloc((size_t)n, sizeof *v);
  if (!v) {
    ist_fail_nomem(err, t->name, (size_t)n * sizeof *v);
  } else if (ist_st_to_f32(t, v, n, err) != IST_OK) {
    ist_free(v);
    v = NULL;
  }
  return v;
}

#define PREFIX "base_model.model."
#define LORA_A ".lora_A.weight"

/* The pair whose A is `t`, with the scale that the config gives its module. */
static ist_status add_pair(deltas *out, const ist_peft_dir *d, ist_peft_rules *rules,
                           const ist_st_tensor *t, ist_error *err) {
  char name[256], b_name[256];
  const size_t skip = strncmp(t->name, PREFIX, strlen(PREFIX)) == 0 ? strlen(PREFIX) : 0;
  const int stem = (int)(strlen(t->name) - strlen(LORA_A));
  snprintf(name, sizeof name, "%.*s", stem - (int)skip, t->name + skip);
  snprintf(b_name, sizeof b_name, "%.*s.lora_B.weight", stem, t->name);
  const ist_st_tensor *b = ist_safetensors_find(d->tensors, b_name);
  if (!b || t->n_dims != 2 || b->n_dims != 2 || t->shape[0] != b->shape[1] || t->shape[0] < 1)
    return ist_fail(err, IST_ERR_FORMAT, "%s: %s: found no lora_B of the same rank",
                    d->tensors->path, t->name);
  ist_peft_module m = ist_peft_rules_find(rules, name, IST_PEFT_LINEAR);
  IST_TRY(ist_peft_rules_check(rules, err));
  if (m.r != t->shape[0])
    return ist_fail(err, IST_ERR_MISMATCH, "%s: %s: found rank %lld, expected %lld",
                    d->tensors->path, t->name, (long long)t->shape[0], (long long)m.r);
  IST_TRY(check_rank(d->tensors->path, t->name, m.r, err));
  IST_TRY(ist_grow(&out->p, &out->cap, out->n + 1, sizeof *out->p, err));
  delta *p = &out->p[out->n++];
  *p = (delta){ist_strdup(name), t->shape[1], b->shape[0], m.r, m.scale, floats(t, err), NULL};
  if (!p->name || !p->a) return p->name ? err->code : ist_fail_nomem(err, name, sizeof name);
  p->b = floats(b, err);
  return p->b ? IST_OK : err->code;
}

static bool ends_with(const char *s, const char *end) {
  size_t n = strlen(s), m = strlen(end);
  return n > m && strcmp(s + n - m, end) == 0;
}

static ist_status read_peft(deltas *out, const char *dir, ist_error *err) {
  ist_peft_dir *d;
  ist_peft_rules *rules = NULL;
  IST_TRY(ist_peft_open(&d, dir, err));
  ist_status s = ist_peft_check_weights(d, dir, "compared", err);
  if (s == IST_OK && d->config.dora)
    s = ist_fail(err, IST_ERR_UNSUPPORTED,
                 "%s: a DoRA adapter rescales its base, so that two of them cannot be compared "
                 "without it; merge them and compare the models",
                 dir);
  if (s == IST_OK) s = ist_peft_rules_new(&rules, &d->config, err);
  for (int64_t i = 0; i < d->tensors->n && s == IST_OK; i++) {
    const ist_st_tensor *t = &d->tensors->tensor[i];
    if (ends_with(t->name, LORA_A))
      s = add_pair(out, d, rules, t, err);
    else if (!ends_with(t->name, ".lora_B.weight"))
      s = ist_fail(err, IST_ERR_UNSUPPORTED, "%s: %s: found a tensor that is no low-rank pair",
                   d->tensors->path, t->name);
  }
  ist_peft_rules_free(rules);
  ist_peft_close(d);
  return s;
}

/* <scale B A, scale' B' A'> = scale scale' sum_kl (A A'^T)_kl (B^T B')_kl: no matrix of
 * the base's size is formed. */
static double inner(const delta *x, const delta *y) {
  double sum = 0;
  for (int64_t k = 0; k < x->r; k++) {
    for (int64_t l = 0; l < y->r; l++) {
      double aa = 0, bb = 0;
      for (int64_t i = 0; i < x->in; i++)
        aa += (double)x->a[k * x->in + i] * (double)y->a[l * y->in + i];
      for (int64_t i = 0; i < x->out; i++)
        bb += (double)x->b[i * x->r + k] * (double)y->b[i * y->r + l];
      sum += aa * bb;
    }
  }
  return x->scale * y->scale * sum;
}

static const delta *find_delta(const deltas *d, const char *name) {
  const delta wanted = {.name = (char *)(uintptr_t)name}, *key = &wanted;
  const delta **found =
      bsearch(&key, (const void *)d->by_name, (size_t)d->n, sizeof *d->by_name, compare_names);
  return found ? *found : NULL;
}

static ist_status diff_deltas(const deltas *a, const deltas *b, ist_diff_fn each, void *user,
                              ist_error *err) {
  for (int64_t i = 0; i < a->n; i++) {
    const delta *x = &a->p[i], *y = find_delta(b, x->name);
    if (y && (x->in != y->in || x->out != y->out))
      return ist_fail(err, IST_ERR_MISMATCH,
                      "%s: found %lld x %lld and %lld x %lld: adapters of different models",
                      x->name, (long long)x->out, (long long)x->in, (long long)y->out,
                      (long long)y->in);
    moments s = lone(inner(x, x), true);
    if (y) {
      s.bb = inner(y, y);
      s.ab = inner(x, y);
      s.dd = s.aa + s.bb - 2 * s.ab;
    }
    ist_diff_tensor d = result_of(x->name, s);
    d.only_a = !y;
    each(user, &d);
  }
  for (int64_t i = 0; i < b->n; i++) {
    if (find_delta(a, b->p[i].name)) continue;
    ist_diff_tensor d = result_of(b->p[i].name, lone(inner(&b->p[i], &b->p[i]), false));
    d.only_b = true;
    each(user, &d);
  }
  return IST_OK;
}

/* ---- Which of the two ---- */

static ist_status open_side(side *s, const char *path, ist_error *err) {
  struct stat st;
  *s = (side){.path = path, .folder = stat(path, &st) == 0 && S_ISDIR(st.st_mode)};
  s->adapter = s->folder;
  if (s->folder) return IST_OK;
  IST_TRY(ist_source_open(&s->source, path, err));
  ist_str type = {0};
  ist_gguf_get_str(s->source.gguf, "general.type", false, &type, NULL);
  s->adapter = type.len == 7 && memcmp(type.p, "adapter", 7) == 0;
  return IST_OK;
}

static ist_status diff_adapters(const side *a, const side *b, ist_diff_fn each, void *user,
                                ist_error *err) {
  deltas da = {0}, db = {0};
  ist_status s = a->folder ? read_peft(&da, a->path, err) : read_gguf(&da, a->path, err);
  if (s == IST_OK) s = b->folder ? read_peft(&db, b->path, err) : read_gguf(&db, b->path, err);
  if (s == IST_OK) s = sort_deltas(&da, err);
  if (s == IST_OK) s = sort_deltas(&db, err);
  if (s == IST_OK) s = diff_deltas(&da, &db, each, user, err);
  free_deltas(&da);
  free_deltas(&db);
  return s;
}

static ist_status diff_sides(const side *a, const side *b, ist_diff_fn each, void *user,
                             ist_error *err) {
  if (a->adapter != b->adapter || (a->adapter && a->folder != b->folder))
    return ist_fail(err, IST_ERR_ARG,
                    "%s, %s: found %s and %s, expected two models or two adapters of one format",
                    a->path, b->path, a->adapter ? "an adapter" : "a model",
                    b->adapter ? "an adapter" : "a model");
  return a->adapter ? diff_adapters(a, b, each, user, err) : diff_models(a, b, each, user, err);
}

ist_status ist_diff(const char *a, const char *b, ist_diff_fn each, void *user, ist_error *err) {
  side sa = {0}, sb = {0};
  ist_error own;
  if (!err) err = &own; /* helpers pass its code on */
  if (!each) return ist_fail(err, IST_ERR_ARG, "diff: found no function to report to");
  ist_status s = open_side(&sa, a, err);
  if (s == IST_OK) s = open_side(&sb, b, err);
  if (s == IST_OK) s = diff_sides(&sa, &sb, each, user, err);
  ist_source_close(&sa.source);
  ist_source_close(&sb.source);
  return s;
}
