#include "export/merge.h"

#include <math.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/mem.h"
#include "base/parallel.h"
#include "format/quant.h"

/* ---- The list ---- */

bool ist_merge_unties(const ist_model *m, const ist_updates *u) {
  return m->config.tied && (ist_updates_find(u, -1, IST_T_EMBED, 0) != NULL ||
                            ist_updates_find(u, -1, IST_T_OUTPUT, 0) != NULL);
}

const ist_stored *ist_merge_tied_head(const ist_model *m) {
  return ist_weights_stored(&m->weights, -1, IST_T_EMBED);
}

bool ist_merge_sets_apart(const ist_merge_list *list) {
  bool head = false, changed = false;
  for (int64_t i = 0; i < list->n; i++) {
    const ist_merge_item *it = &list->p[i];
    head |= it->id == IST_T_OUTPUT;
    changed |= it->update && (it->id == IST_T_OUTPUT || it->id == IST_T_EMBED);
  }
  return head && changed;
}

/* The updates of a stack of experts' matrices, where it has any. */
static ist_status find_experts(ist_merge_item *it, const ist_updates *u, ist_error *err) {
  int64_t n = it->model->config.experts;
  for (int64_t i = 0; i < n; i++) {
    const ist_update *found = ist_updates_find(u, it->layer, it->id, i);
    if (!found) continue;
    if (!it->expert) it->expert = ist_calloc((size_t)n, sizeof *it->expert);
    if (!it->expert) return ist_fail_nomem(err, it->name, (size_t)n * sizeof *it->expert);
    it->expert[i] = found;
  }
  return IST_OK;
}

ist_merge_item *ist_merge_list_add(ist_merge_list *list, const ist_model *m, ist_str name,
                                   const ist_stored *from, ist_error *err) {
  if (ist_grow(&list->p, &list->cap, list->n + 1, sizeof *list->p, err) != IST_OK) return NULL;
  ist_merge_item *it = &list->p[list->n++];
  *it = (ist_merge_item){.model = m,
                         .name = ist_strndup(name.p, (size_t)name.len),
                         .layer = -1,
                         .id = -1,
                         .from = *from,
                         .to = from->type};
  if (it->name) return it;
  ist_fail_nomem(err, m->path, (size_t)name.len + 1);
  return NULL;
}

static ist_status add(ist_merge_list *list, const ist_model *m, const ist_updates *u,
                      const char *name, int64_t layer, int id, bool bias, const ist_stored *from,
                      ist_error *err) {
  ist_merge_item *it = ist_merge_list_add(list, m, (ist_str){name, strlen(name)}, from, err);
  if (!it) return IST_ERR_NOMEM;
  it->layer = layer;
  it->id = id;
  it->bias = bias;
  if (!bias && !ist_tensor_is_stack(id)) it->update = ist_updates_find(u, layer, id, 0);
  return bias || !ist_tensor_is_stack(id) ? IST_OK : find_experts(it, u, err);
}

/* The file's tensor is this one, and nothing beside it. */
static bool is_tensor(const ist_stored *s, const ist_gguf_tensor *t) {
  return s->data == t->data && s->n_parts == 0 && s->cols == t->ne[0] &&
         s->rows == t->ne[1] * t->ne[2];
}

/* Adds the tensor of the model that the file's tensor is; none that the engine uses (the
 * factors of rotation): nothing. */
static ist_status add_tensor(ist_merge_list *list, const ist_model *m, const ist_updates *u,
                             const ist_gguf_tensor *t, ist_error *err) {
  char name[128];
  snprintf(name, sizeof name, "%.*s", (int)t->name.len, t->name.p);
  for (int64_t l = -1; l < m->config.L; l++) {
    int first = l < 0 ? IST_T_MODEL_FIRST : 0, end = l < 0 ? (int)IST_T_END : IST_T_LAYER_COUNT;
    for (int i = first; i < end; i++) {
      const ist_stored *weight = ist_weights_stored(&m->weights, l, i);
      const ist_stored *bias = ist_weights_stored_bias(&m->weights, l, i);
      if (is_tensor(weight, t)) return add(list, m, u, name, l, i, false, weight, err);
      if (is_tensor(bias, t)) return add(list, m, u, name, l, i, true, bias, err);
    }
  }
  return IST_OK;
}

/* A matrix that the file keeps inside another is not in the list. */
static ist_status check_all_listed(const ist_merge_list *list, const ist_updates *u,
                                   ist_error *err) {
  for (int64_t i = 0; i < u->n; i++) {
    bool listed = false;
    for (int64_t j = 0; j < list->n && !listed; j++) {
      const ist_merge_item *it = &list->p[j];
      listed = it->update == &u->p[i] || (it->expert && it->expert[u->p[i].copy] == &u->p[i]);
    }
    if (listed) continue;
    char name[96];
    ist_tensor_name(name, sizeof name, u->p[i].layer, u->p[i].id);
    return ist_fail(
        err, IST_ERR_UNSUPPORTED,
        "%s: the base keeps this matrix inside another tensor; merging there is not supported",
        name);
  }
  return IST_OK;
}

static ist_status list_gguf(ist_merge_list *out, const ist_model *m, const ist_updates *u,
                            ist_error *err) {
  for (int64_t i = 0; i < m->source.n; i++)
    IST_TRY(add_tensor(out, m, u, &m->source.tensor[i], err));
  if (!ist_merge_unties(m, u)) return IST_OK;
  return add(out, m, u, "output.weight", -1, IST_T_OUTPUT, false, ist_merge_tied_head(m), err);
}

/* Most bases have no bias that could take it, and PEFT does not merge it there either. */
static ist_status refuse_bias(const ist_updates *u, ist_error *err) {
  for (int64_t i = 0; i < u->n; i++) {
    if (!u->p[i].bias) continue;
    char name[96];
    ist_tensor_name(name, sizeof name, u->p[i].layer, u->p[i].id);
    return ist_fail(err, IST_ERR_UNSUPPORTED,
                    "%s: found a bias of LoRA's B (lora_bias), which runs but cannot be merged",
                    name);
  }
  return IST_OK;
}

ist_status ist_merge_list_make(ist_merge_list *out, const ist_model *m, const ist_updates *u,
                               bool folder, ist_error *err) {
  *out = (ist_merge_list){0};
  ist_status s = refuse_bias(u, err);
  if (s == IST_OK)
    s = !m->source.gguf ? ist_merge_list_folder(out, m, u, err)
        : folder        ? ist_merge_list_convert(out, m, u, err)
                        : list_gguf(out, m, u, err);
  if (s == IST_OK) s = check_all_listed(out, u, err);
  if (s != IST_OK) ist_merge_list_free(out);
  return s;
}

void ist_merge_list_free(ist_merge_list *list) {
  for (int64_t i = 0; i < list->n; i++) {
    ist_free(list->p[i].name);
    ist_free(list->p[i].order);
    ist_free(list->p[i].update_row);
    ist_free(list->p[i].expert);
    ist_free(list->p[i].whole);
  }
  ist_free(list->p);
  *list = (ist_merge_list){0};
}

bool ist_merge_is_copy(const ist_merge_item *it) {
  return !it->update && !it->expert && it->to == it->from.type && !it->order && it->shift == 0 &&
         !it->turned;
}

ist_status ist_merge_check_type(const ist_merge_item *it, const char *hint, ist_error *err) {
  if (ist_quantise_supported(it->to)) return IST_OK;
  ist_fail(err, IST_ERR_UNSUPPORTED, "%s: found %s, which can be read but not written", it->name,
           ist_dtype_get(it->to)->name);
  ist_hint(err, "%s", hint);
  return IST_ERR_UNSUPPORTED;
}

/* ---- Rows ---- */

typedef struct job {
  const ist_merge_item *item;
  ist_dtype to; /* what is stored: the item's type, F32 where it is turned first */
  int64_t row0;
  unsigned char *dst;
  float *work;      /* (rows, 2 cols): the values, and a copy to compare with */
  double (*sum)[3]; /* (rows): base, change, error */
} job;

static double square_of_difference(const float *a, const float *b, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; i++)
    sum += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
  return sum;
}

static double square(const float *a, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; i++) sum += (double)a[i] * (double)a[i];
  return sum;
}

static void merge_rows(void *arg, int64_t begin, int64_t end, int thread) {
  (void)thread;
  const job *j = arg;
  const ist_merge_item *it = j->item;
  const int64_t cols = it->from.cols, row_bytes = ist_dtype_bytes(j->to, cols);
  for (int64_t r = begin; r < end; r++) {
    float *w = j->work + 2 * r * cols, *other = w + cols;
    int64_t row = j->row0 + r;
    if (it->order) row = it->order[row];
    ist_dequant_f32(w, it->from.data + ist_dtype_bytes(it->from.type, row * cols), it->from.type,
                    cols);
    j->sum[r][0] = square(w, cols);
    const ist_update *update = it->update;
    if (it->expert) { /* the stack's row is one of an expert's */
      int64_t rows = it->from.rows / it->model->config.experts;
      update = it->expert[row / rows];
      row %= rows;
    }
    if (it->update_row) row = it->update_row[row];
    if (update) {
      memcpy(other, w, (size_t)cols * sizeof *w);
      ist_update_rows(update, w, row, 1);
      j->sum[r][1] = square_of_difference(w, other, cols);
    }
    for (int64_t i = 0; it->shift != 0 && i < cols; i++) w[i] += (float)it->shift;
    unsigned char *dst = j->dst + r * row_bytes;
    ist_quantise(dst, w, j->to, cols);
    ist_dequant_f32(other, dst, j->to, cols);
    j->sum[r][2] = square_of_difference(w, other, cols);
  }
}

/* Rows [row0, row0 + rows) of the result in the type `to`. */
static ist_status merge_block(ist_merge_item *it, ist_dtype to, int64_t row0, int64_t rows,
                              unsigned char *dst, ist_error *err) {
  const int64_t cols = it->from.cols;
  job j = {it,
           to,
           row0,
           dst,
           ist_calloc((size_t)(2 * rows * cols), sizeof(float)),
           ist_calloc((size_t)rows, sizeof *j.sum)};
  ist_status s = j.work && j.sum
                     ? IST_OK
                     : ist_fail_nomem(err, it->name, (size_t)(2 * rows * cols) * sizeof(float));
  if (s == IST_OK) ist_parallel_for(rows, 1, merge_rows, &j);
  for (int64_t r = 0; s == IST_OK && r < rows; r++) {
    it->base2 += j.sum[r][0];
    it->change2 += j.sum[r][1];
    it->error2 += j.sum[r][2];
  }
  ist_free(j.work);
  ist_free(j.sum);
  return s;
}

/* The merged matrix as float, which is then read by columns. */
static ist_status make_whole(ist_merge_item *it, ist_error *err) {
  const int64_t rows = it->from.rows, cols = it->from.cols;
  const int64_t step = ist_tensor_chunk_bytes(cols * (int64_t)sizeof *it->whole) /
                       (cols * (int64_t)sizeof *it->whole);
  if (!it->whole) it->whole = ist_calloc((size_t)(rows * cols), sizeof *it->whole);
  if (!it->whole) return ist_fail_nomem(err, it->name, (size_t)(rows * cols) * sizeof *it->whole);
  for (int64_t r = 0; r < rows; r += step)
    IST_TRY(merge_block(it, IST_F32, r, rows - r < step ? rows - r : step,
                        (unsigned char *)(it->whole + r * cols), err));
  return IST_OK;
}

/* Rows [row0, row0 + n) of a turned result: columns of `whole`. */
static ist_status read_turned(ist_merge_item *it, int64_t row0, int64_t n, unsigned char *dst,
                              ist_error *err) {
  const int64_t rows = it->from.rows, cols = it->from.cols;
  if (row0 == 0) IST_TRY(make_whole(it, err));
  float *w = ist_calloc((size_t)(2 * rows), sizeof *w);
  if (!w) return ist_fail_nomem(err, it->name, (size_t)(2 * rows) * sizeof *w);
  float *back = w + rows;
  for (int64_t r = 0; r < n; r++) {
    unsigned char *row = dst + r * ist_dtype_bytes(it->to, rows);
    for (int64_t i = 0; i < rows; i++) w[i] = it->whole[i * cols + row0 + r];
    ist_quantise(row, w, it->to, rows);
    ist_dequant_f32(back, row, it->to, rows);
    it->error2 += square_of_difference(w, back, rows);
  }
  ist_free(w);
  if (row0 + n < cols) return IST_OK;
  ist_free(it->whole);
  it->whole = NULL;
  return IST_OK;
}

ist_status ist_merge_read(void *user, int64_t offset, int64_t n, unsigned char *dst,
                          ist_error *err) {
  ist_merge_item *it = user;
  const int64_t row_bytes = ist_dtype_bytes(it->to, it->turned ? it->from.rows : it->from.cols);
  if (it->turned) return read_turned(it, offset / row_bytes, n / row_bytes, dst, err);
  return merge_block(it, it->to, offset / row_bytes, n / row_bytes, dst, err);
}

/* ---- The public call ---- */

void ist_merge_options_init(ist_merge_options *o) {
  *o = (ist_merge_options){.size = sizeof *o, .shard_bytes = INT64_C(4) << 30};
}

static bool ends_in_gguf(const char *path) {
  size_t n = strlen(path);
  return n > 5 && strcmp(path + n - 5, ".gguf") == 0;
}

static bool is_at(const struct stat *out, const char *path) {
  struct stat there;
  return stat(path, &there) == 0 && out->st_dev == there.st_dev && out->st_ino == there.st_ino;
}

/* The model's path, or one of the files that it leads to: parts of a GGUF, shards of a folder. */
static bool is_base(const struct stat *out, const ist_model *m) {
  bool found = is_at(out, m->path);
  for (int64_t i = 0; i < m->source.n_parts; i++) found |= is_at(out, m->source.part[i]->path);
  for (int64_t i = 0; i < m->source.n_shards; i++) found |= is_at(out, m->source.shard[i]->path);
  return found;
}

/* The base is never changed, and nothing is overwritten unasked. */
static ist_status check_output(const ist_model *m, const ist_merge_options *o, ist_error *err) {
  struct stat out;
  if (stat(o->output, &out) != 0) return IST_OK;
  if (is_base(&out, m))
    return ist_fail(err, IST_ERR_ARG, "%s: found the base model itself, expected another name",
                    o->output);
  if (ends_in_gguf(o->output) ? o->overwrite && S_ISREG(out.st_mode) : S_ISDIR(out.st_mode))
    return IST_OK; /* a folder's files are looked at one by one (merge_place.c) */
  ist_status s = ist_fail(err, IST_ERR_IO, "%s: is there already", o->output);
  ist_hint(err, "--overwrite replaces it");
  return s;
}

static ist_status read_type(const ist_merge_options *o, bool gguf, int *type, ist_error *err) {
  *type = -1;
  if (!o->type) return IST_OK;
  *type = ist_dtype_from_name(o->type);
  const bool plain = *type == IST_F32 || *type == IST_F16 || *type == IST_BF16;
  if (*type >= 0 && (gguf ? ist_quantise_supported((ist_dtype)*type) : plain)) return IST_OK;
  return ist_fail(err, IST_ERR_ARG, "type: found \"%s\", expected one of %s", o->type,
                  gguf ? "F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K, Q6_K"
                       : "F32, F16, BF16 for a Hugging Face folder");
}

/* A folder has none of the keys that llama.cpp reads of a GGUF. */
static ist_status check_gguf(const ist_model *m, ist_error *err) {
  if (m->source.gguf) return IST_OK;
  ist_fail(err, IST_ERR_UNSUPPORTED,
           "%s: found a Hugging Face folder, expected a GGUF as the base of a merge into one: the "
           "folder lacks its metadata",
           m->path);
  ist_hint(err, "merge into a folder, and convert that with llama.cpp's convert_hf_to_gguf.py");
  return IST_ERR_UNSUPPORTED;
}

static ist_merge_tensor tensor_of(const ist_merge_item *it) {
  const double base = sqrt(it->base2);
  return (ist_merge_tensor){
      .name = it->name,
      .type = ist_dtype_get(it->to)->name,
      .layer = it->layer,
      .merged = it->update || it->expert,
      .change = base > 0 ? sqrt(it->change2) / base : 0,
      .error = base > 0 ? sqrt(it->error2) / base : 0,
  };
}

static void report(const ist_merge_list *list, ist_merge_fn each, void *user, ist_merge_result *r) {
  double base2 = 0, change2 = 0, error2 = 0;
  *r = (ist_merge_result){.tensors = list->n};
  for (int64_t i = 0; i < list->n; i++) {
    const ist_merge_item *it = &list->p[i];
    r->bytes += ist_dtype_bytes(it->to, it->from.rows * it->from.cols);
    ist_merge_tensor t = tensor_of(it);
    if (each) each(user, &t);
    r->merged += it->update || it->expert;
    base2 += it->base2;
    change2 += it->change2;
    error2 += it->error2;
  }
  if (base2 > 0) {
    r->change = sqrt(change2 / base2);
    r->error = sqrt(error2 / base2);
  }
}

ist_status ist_merge(const ist_model *m, const ist_merge_options *options, ist_merge_fn each,
                     void *user, ist_merge_result *result, ist_error *err) {
  ist_merge_options o;
  ist_merge_options_init(&o);
  memcpy(&o, options, options->size < sizeof o ? options->size : sizeof o);
  if (!o.output) return ist_fail(err, IST_ERR_ARG, "output: found nothing, expected a path");
  const bool gguf = ends_in_gguf(o.output);
  int type;
  IST_TRY(read_type(&o, gguf, &type, err));
  IST_TRY(check_output(m, &o, err));
  ist_updates u = {0};
  ist_merge_list list = {0};
  ist_status s = o.adapter ? ist_updates_read(&u, o.adapter, m, err) : IST_OK;
  if (s == IST_OK) s = ist_updates_drop_own(&u, m, err);
  if (s == IST_OK && gguf) s = check_gguf(m, err);
  if (s == IST_OK) s = ist_merge_list_make(&list, m, &u, !gguf, err);
  if (s == IST_OK && gguf) s = ist_merge_write_gguf(&list, m, type, o.output, o.adapter, err);
  if (s == IST_OK && !gguf) s = ist_merge_write_hf(&list, m, type, &o, err);
  if (s == IST_OK) report(&list, each, user, result);
  ist_merge_list_free(&list);
  ist_updates_free(&u);
  return s;
}
