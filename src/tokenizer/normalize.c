/* What is done to a text before it is split: Unicode forms, replaced and added
 * characters. Bytes that are not valid UTF-8 stay as they are. */
#include <string.h>

#include <utf8proc.h>

#include "tokenizer/internal.h"

void ist_norm_free(ist_norm *norm) {
  for (int i = 0; i < norm->n; i++) {
    ist_free(norm->step[i].from);
    ist_free(norm->step[i].to);
    ist_regex_free(&norm->step[i].regex);
  }
  *norm = (ist_norm){0};
}

static bool is_ascii(const char *p, size_t len) {
  for (size_t i = 0; i < len; i++)
    if ((unsigned char)p[i] >= 0x80) return false;
  return true;
}

static void add_char(ist_buf *out, utf8proc_int32_t c) {
  utf8proc_uint8_t bytes[4];
  ist_buf_add(out, bytes, (size_t)utf8proc_encode_char(c, bytes));
}

/* ---- Unicode normal forms ---- */

/* One stretch of valid UTF-8. */
static ist_status unicode_form(ist_buf *out, const char *p, size_t len, utf8proc_option_t options,
                               ist_error *err) {
  if (len == 0) return IST_OK;
  const utf8proc_uint8_t *text = (const utf8proc_uint8_t *)p;
  utf8proc_ssize_t n = utf8proc_decompose(text, (utf8proc_ssize_t)len, NULL, 0, options);
  if (n < 0) return ist_fail(err, IST_ERR_DATA, "%s", utf8proc_errmsg(n));
  utf8proc_int32_t *chars = ist_calloc((size_t)n + 1, sizeof *chars);
  if (!chars) return ist_fail_nomem(err, "normalising a text", (size_t)n * sizeof *chars);
  n = utf8proc_decompose(text, (utf8proc_ssize_t)len, chars, n, options);
  if (n >= 0) n = utf8proc_normalize_utf32(chars, n, options);
  for (utf8proc_ssize_t i = 0; i < n; i++) add_char(out, chars[i]);
  ist_free(chars);
  return n < 0 ? ist_fail(err, IST_ERR_DATA, "%s", utf8proc_errmsg(n)) : IST_OK;
}

static ist_status normal_form(ist_buf *out, const ist_buf *text, ist_norm_kind kind,
                              ist_error *err) {
  static const int options[] = {
      [IST_NORM_NFC] = UTF8PROC_COMPOSE,
      [IST_NORM_NFD] = UTF8PROC_DECOMPOSE,
      [IST_NORM_NFKC] = UTF8PROC_COMPOSE | UTF8PROC_COMPAT,
      [IST_NORM_NFKD] = UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT,
  };
  const char *p = text->p, *end = p + text->len;
  while (p < end) {
    const char *valid = ist_skip_valid(p, end);
    IST_TRY(unicode_form(out, p, (size_t)(valid - p),
                         (utf8proc_option_t)(options[kind] | UTF8PROC_STABLE), err));
    if (valid < end) ist_buf_add(out, valid++, 1);
    p = valid;
  }
  return IST_OK;
}

/* ---- Others ---- */

static void lower(ist_buf *out, const ist_buf *text) {
  for (size_t at = 0; at < text->len;) {
    utf8proc_int32_t c;
    utf8proc_ssize_t n = utf8proc_iterate((const utf8proc_uint8_t *)text->p + at,
                                          (utf8proc_ssize_t)(text->len - at), &c);
    if (n <= 0)
      ist_buf_add(out, text->p + at, 1);
    else if (c == 0x130) /* the only one that becomes two characters */
      ist_buf_str(out, "i\xcc\x87");
    else
      add_char(out, utf8proc_tolower(c));
    at += n > 0 ? (size_t)n : 1;
  }
}

static void strip(ist_buf *out, const ist_buf *text, bool left, bool right) {
  size_t begin = 0, end = text->len;
  static const char spaces[] = " \t\n\v\f\r";
  while (left && begin < end && memchr(spaces, text->p[begin], sizeof spaces - 1)) begin++;
  while (right && end > begin && memchr(spaces, text->p[end - 1], sizeof spaces - 1)) end--;
  ist_buf_add(out, text->p + begin, end - begin);
}

static void replace_text(ist_buf *out, const ist_buf *text, const char *from, const char *to) {
  const char *p = text->p, *end = p + text->len;
  size_t size = strlen(from), to_size = strlen(to);
  while (p < end) {
    const char *hit =
        size == 1 ? memchr(p, *from, (size_t)(end - p)) : memmem(p, (size_t)(end - p), from, size);
    if (!hit || size == 0) hit = end;
    ist_buf_add(out, p, (size_t)(hit - p));
    if (hit < end) ist_buf_add(out, to, to_size);
    p = hit < end ? hit + size : end;
  }
}

static ist_status replace_regex(ist_buf *out, const ist_buf *text, const ist_norm_step *step,
                                ist_error *err) {
  if (ist_skip_valid(text->p, text->p + text->len) != text->p + text->len) {
    ist_buf_add(out, text->p, text->len);
    return IST_OK;
  }
  ist_regex_match *m = ist_regex_match_new(&step->regex);
  if (!m) return ist_fail_nomem(err, "normalising a text", text->len);
  ist_status status = IST_OK;
  for (size_t at = 0, from, to; at < text->len; at = to) {
    status = ist_regex_find(&step->regex, m, text->p, text->len, at, &from, &to, err);
    if (status != IST_OK) break;
    ist_buf_add(out, text->p + at, from - at);
    if (to > from) ist_buf_str(out, step->to);
  }
  ist_regex_match_free(m);
  return status;
}

static ist_status apply(const ist_norm_step *step, ist_buf *out, const ist_buf *text,
                        bool continued, ist_error *err) {
  switch (step->kind) {
    case IST_NORM_NFC:
    case IST_NORM_NFD:
    case IST_NORM_NFKC:
    case IST_NORM_NFKD:
      if (!is_ascii(text->p, text->len)) return normal_form(out, text, step->kind, err);
      ist_buf_add(out, text->p, text->len);
      return IST_OK;
    case IST_NORM_LOWER: lower(out, text); return IST_OK;
    case IST_NORM_STRIP: strip(out, text, step->left, step->right); return IST_OK;
    case IST_NORM_PREPEND:
      if (!continued) ist_buf_str(out, step->to);
      ist_buf_add(out, text->p, text->len);
      return IST_OK;
    case IST_NORM_REPLACE: break;
  }
  if (step->is_regex) return replace_regex(out, text, step, err);
  replace_text(out, text, step->from, step->to);
  return IST_OK;
}

ist_status ist_norm_apply(const ist_norm *norm, ist_buf *text, ist_buf *spare, bool continued,
                          ist_error *err) {
  for (int i = 0; i < norm->n && text->len > 0; i++) {
    ist_buf_clear(spare);
    IST_TRY(apply(&norm->step[i], spare, text, continued, err));
    if (spare->failed) return ist_fail_nomem(err, "normalising a text", text->len);
    ist_buf swap = *text;
    *text = *spare;
    *spare = swap;
  }
  return IST_OK;
}
