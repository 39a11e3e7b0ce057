#include "export/updates.h"

#include <math.h>
#include <sys/stat.h>

#include "base/mem.h"
#include "format/quant.h"

ist_update *ist_updates_add(ist_updates *u, const ist_model *m, int64_t layer, int id,
                            int64_t copy) {
  if (ist_grow(&u->p, &u->cap, u->n + 1, sizeof *u->p, NULL) != IST_OK) return NULL;
  ist_update *p = &u->p[u->n++];
  *p = (ist_update){.layer = layer, .id = id, .copy = copy};
  bool need;
  ist_tensor_shape(&m->config, layer, id, &p->rows, &p->cols, &need);
  if (ist_tensor_is_stack(id)) p->rows /= m->config.experts;
  return p;
}

void ist_updates_free(ist_updates *u) {
  for (int64_t i = 0; i < u->n; i++) {
    ist_free(u->p[i].a);
    ist_free(u->p[i].b);
    ist_free(u->p[i].magnitude);
    ist_free(u->p[i].bias);
    ist_free(u->p[i].whole);
  }
  ist_free(u->p);
  *u = (ist_updates){0};
}

const ist_update *ist_updates_find(const ist_updates *u, int64_t layer, int id, int64_t copy) {
  for (int64_t i = 0; i < u->n; i++)
    if (u->p[i].layer == layer && u->p[i].id == id && u->p[i].copy == copy) return &u->p[i];
  return NULL;
}

static ist_status is_bases_own(bool *same, const ist_update *u, const ist_model *m,
                               ist_error *err) {
  const ist_stored *base = u->id == IST_T_EMBED ? ist_weights_stored(&m->weights, -1, IST_T_EMBED)
                                                : ist_weights_stored(&m->weights, -1, IST_T_OUTPUT);
  if (!base->data) base = ist_weights_stored(&m->weights, -1, IST_T_EMBED); /* tied */
  float *row = ist_calloc((size_t)u->cols, sizeof *row);
  if (!row) return ist_fail_nomem(err, "a row", (size_t)u->cols * sizeof *row);
  *same = true;
  for (int64_t r = 0; *same && r < u->rows; r++) {
    const unsigned char *p = base->data + ist_dtype_bytes(base->type, r * u->cols);
    ist_dequant_f32(row, p, base->type, u->cols);
    *same = memcmp(row, u->whole + r * u->cols, (size_t)u->cols * sizeof *row) == 0;
  }
  ist_free(row);
  return IST_OK;
}

ist_status ist_updates_drop_own(ist_updates *u, const ist_model *m, ist_error *err) {
  int64_t kept = 0;
  for (int64_t i = 0; i < u->n; i++) {
    bool same = false;
    if (u->p[i].whole) IST_TRY(is_bases_own(&same, &u->p[i], m, err));
    if (!same) continue;
    ist_free(u->p[i].whole);
    u->p[i].whole = NULL;
  }
  for (int64_t i = 0; i < u->n; i++)
    if (u->p[i].rank || u->p[i].whole) u->p[kept++] = u->p[i];
  u->n = kept;
  return IST_OK;
}

ist_status ist_check_finite(const float *v, int64_t n, const char *path, const char *name,
                            ist_error *err) {
  for (int64_t i = 0; i < n; i++)
    if (!isfinite(v[i]))
      return ist_fail(err, IST_ERR_FORMAT, "%s: %s[%lld]: found %g, expected finite values", path,
                      name, (long long)i, (double)v[i]);
  return IST_OK;
}

bool ist_adapter_is_file(const char *path) {
  struct stat st;
  return stat(path, &st) == 0 && !S_ISDIR(st.st_mode);
}

/* What both readers end with. */
static ist_status finish(ist_status s, ist_updates *out, const char *path, ist_error *err) {
  if (s == IST_OK && out->n == 0)
    s = ist_fail(err, IST_ERR_MISMATCH, "%s: found an adapter for none of this model's modules",
                 path);
  if (s != IST_OK) ist_updates_free(out);
  return s;
}

ist_status ist_updates_read_dir(ist_updates *out, const ist_peft_dir *d, const char *dir,
                                const ist_model *m, ist_error *err) {
  *out = (ist_updates){0};
  return finish(ist_updates_read_peft(out, d, dir, m, err), out, dir, err);
}

ist_status ist_updates_read(ist_updates *out, const char *path, const ist_model *m,
                            ist_error *err) {
  *out = (ist_updates){0};
  if (ist_adapter_is_file(path))
    return finish(ist_updates_read_gguf(out, path, m, err), out, path, err);
  ist_peft_dir *d;
  IST_TRY(ist_peft_open(&d, path, err));
  ist_status s = ist_updates_read_dir(out, d, path, m, err);
  ist_peft_close(d);
  return s;
}

/* One row: w + scale b A, then g. The norm is summed in double. */
static void update_row(const ist_update *u, float *w, int64_t row) {
  if (u->whole) memcpy(w, u->whole + row * u->cols, (size_t)u->cols * sizeof *w);
  for (int64_t k = 0; k < u->rank; k++) {
    const float *a = u->a + k * u->cols;
    float factor = (float)(u->scale * (double)u->b[row * u->rank + k]);
    for (int64_t i = 0; i < u->cols; i++) w[i] += factor * a[i];
  }
  if (!u->magnitude) return;
  double square = 0;
  for (int64_t i = 0; i < u->cols; i++) square += (double)w[i] * (double)w[i];
  /* A row of zeros has no direction that a magnitude could stretch. */
  float g = square > 0 ? (float)((double)u->magnitude[row] / sqrt(square)) : 0.0f;
  for (int64_t i = 0; i < u->cols; i++) w[i] *= g;
}

void ist_update_rows(const ist_update *u, float *w, int64_t row0, int64_t n) {
  for (int64_t r = 0; r < n; r++) update_row(u, w + r * u->cols, row0 + r);
}
