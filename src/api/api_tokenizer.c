/* Public calls on tokenizers, with and without a model. */
#include <sys/stat.h>

#include "base/mem.h"
#include "model/model.h"

ist_status ist_tokenizer_open(ist_tokenizer **out, const char *path, ist_error *err) {
  struct stat about;
  *out = NULL;
  if (stat(path, &about) == 0 && S_ISDIR(about.st_mode))
    return ist_tokenizer_open_json(out, path, err);
  ist_gguf *g = NULL;
  IST_TRY(ist_gguf_open(&g, path, err));
  ist_status status = ist_tokenizer_from_gguf(out, g, err);
  ist_gguf_close(g);
  return status;
}

ist_status ist_tokenizer_tokenize(const ist_tokenizer *t, const char *text, size_t len,
                                  bool special, int32_t **ids, int64_t *n, ist_error *err) {
  ist_ids out = {0};
  ist_status status = ist_tokenizer_encode(t, text, len, special, &out, err);
  if (status != IST_OK) {
    ist_ids_free(&out);
    return status;
  }
  *ids = out.p;
  *n = out.n;
  return IST_OK;
}

ist_status ist_tokenizer_add_ends(const ist_tokenizer *t, int32_t **ids, int64_t *n,
                                  ist_error *err) {
  const ist_ids *before = ist_tokenizer_before(t), *behind = ist_tokenizer_behind(t);
  int64_t text = *n, all = before->n + text + behind->n, cap = 0;
  int32_t *out = NULL;
  if (all == text) return IST_OK;
  IST_TRY(ist_grow(&out, &cap, all, sizeof *out, err));
  for (int64_t i = 0; i < before->n; i++) out[i] = before->p[i];
  for (int64_t i = 0; i < text; i++) out[before->n + i] = (*ids)[i];
  for (int64_t i = 0; i < behind->n; i++) out[before->n + text + i] = behind->p[i];
  ist_free(*ids);
  *ids = out;
  *n = all;
  return IST_OK;
}

/* Hands out what was decoded, unless that failed. */
static ist_status give(ist_status status, ist_buf *out, char **text, size_t *len, ist_error *err) {
  ist_buf_add(out, "", 0);
  if (status == IST_OK && out->failed) status = ist_fail_nomem(err, "text", out->len);
  if (status != IST_OK) {
    ist_buf_free(out);
    return status;
  }
  *text = out->p;
  *len = out->len;
  return IST_OK;
}

ist_status ist_tokenizer_detokenize(const ist_tokenizer *t, const int32_t *ids, int64_t n,
                                    bool special, char **text, size_t *len, ist_error *err) {
  ist_buf out = {0};
  return give(ist_tokenizer_decode(t, ids, n, special, &out, err), &out, text, len, err);
}

ist_status ist_tokenizer_token(const ist_tokenizer *t, int32_t id, char **text, size_t *len,
                               bool *special, ist_error *err) {
  ist_buf out = {0};
  *special = ist_tokenizer_is_control(t, id);
  return give(ist_tokenizer_decode_piece(t, id, true, &out, err), &out, text, len, err);
}

ist_status ist_tokenize(const ist_model *m, const char *text, size_t len, bool special,
                        int32_t **ids, int64_t *n, ist_error *err) {
  IST_TRY(ist_model_check_tokenizer(m, err));
  return ist_tokenizer_tokenize(m->tokenizer, text, len, special, ids, n, err);
}

ist_status ist_detokenize(const ist_model *m, const int32_t *ids, int64_t n, bool special,
                          char **text, size_t *len, ist_error *err) {
  IST_TRY(ist_model_check_tokenizer(m, err));
  return ist_tokenizer_detokenize(m->tokenizer, ids, n, special, text, len, err);
}
