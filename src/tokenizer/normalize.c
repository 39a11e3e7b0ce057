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

/* ---- Growth ---- */

/* The forms of Unicode make 11 bytes out of one at most, a mark in the place of a space 7. */
enum { GROWTH = 64, GROWTH_ANYWAY = 1 << 20 };
#define SECONDS        1.0
#define SECONDS_A_BYTE 1e-6

ist_growth ist_growth_of(size_t len) {
  const size_t most = INT32_MAX; /* positions in a text are 32 bits wide */
  size_t room = len < most ? most - len : 0;
  size_t left = len < most / GROWTH ? GROWTH * len + GROWTH_ANYWAY : room;
  return (ist_growth){.of = len,
                      .left = left < room ? left : room,
                      .seconds = SECONDS + SECONDS_A_BYTE * (double)len};
}

ist_status ist_growth_take(ist_growth *g, size_t before, size_t after, ist_error *err) {
  size_t more = after > before ? after - before : 0;
  if (more > g->left)
    return ist_fail(err, IST_ERR_DATA,
                    "the tokenizer's normalizer or pre_tokenizer adds more than %zu bytes to a "
                    "text of %zu",
                    ist_growth_of(g->of).left, g->of);
  g->left -= more;
  return IST_OK;
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

typedef struct characters {
  utf8proc_int32_t *p;
  int64_t n, cap;
} characters;

/* The characters of a stretch of valid UTF-8, each taken apart. */
static ist_status decompose(characters *c, const char *p, size_t len, utf8proc_option_t options,
                            ist_error *err) {
  enum { MOST = 32 }; /* out of one: 18 in Unicode 15 */
  const utf8proc_uint8_t *text = (const utf8proc_uint8_t *)p;
  c->n = 0;
  for (size_t at = 0; at < len;) {
    utf8proc_int32_t code;
    utf8proc_ssize_t size = utf8proc_iterate(text + at, (utf8proc_ssize_t)(len - at), &code);
    if (size <= 0) return ist_fail(err, IST_ERR_DATA, "%s", utf8proc_errmsg(size));
    if (c->cap - c->n < MOST) IST_TRY(ist_grow(&c->p, &c->cap, c->n + MOST, sizeof *c->p, err));
    utf8proc_ssize_t n = utf8proc_decompose_char(code, c->p + c->n, MOST, options, NULL);
    if (n < 0 || n > MOST) return ist_fail(err, IST_ERR_DATA, "%s", utf8proc_errmsg(n));
    c->n += n;
    at += (size_t)size;
  }
  return IST_OK;
}

static int combining_class(utf8proc_int32_t c) {
  return c < 0x300 ? 0 : utf8proc_get_property(c)->combining_class;
}

/* Brings a run of combining marks in the order of their classes, equal ones as they stand.
 * (utf8proc's own sort takes the square of the run's length.) */
static ist_status sort_marks(utf8proc_int32_t *p, int64_t n, ist_error *err) {
  int64_t i = 1, begin[257]; /* of each class */
  while (i < n && combining_class(p[i - 1]) <= combining_class(p[i])) i++;
  if (i == n) return IST_OK;
  utf8proc_int32_t *copy = ist_calloc((size_t)n, sizeof *copy);
  if (!copy) return ist_fail_nomem(err, "normalising a text", (size_t)n * sizeof *copy);
  memcpy(copy, p, (size_t)n * sizeof *copy);
  memset(begin, 0, sizeof begin);
  for (i = 0; i < n; i++) begin[combining_class(p[i]) + 1]++;
  for (int k = 0; k < 256; k++) begin[k + 1] += begin[k];
  for (i = 0; i < n; i++) p[begin[combining_class(copy[i])]++] = copy[i];
  ist_free(copy);
  return IST_OK;
}

static ist_status order_marks(characters *c, ist_error *err) {
  for (int64_t i = 0, end; i < c->n; i = end) {
    end = i + 1;
    if (combining_class(c->p[i]) == 0) continue;
    while (end < c->n && combining_class(c->p[end]) > 0) end++;
    if (end - i > 1) IST_TRY(sort_marks(c->p + i, end - i, err));
  }
  return IST_OK;
}

/* One stretch of valid UTF-8. */
static ist_status unicode_form(ist_buf *out, characters *c, const char *p, size_t len,
                               utf8proc_option_t options, ist_error *err) {
  if (len == 0) return IST_OK;
  IST_TRY(decompose(c, p, len, options, err));
  IST_TRY(order_marks(c, err));
  utf8proc_ssize_t n = utf8proc_normalize_utf32(c->p, (utf8proc_ssize_t)c->n, options);
  if (n < 0) return ist_fail(err, IST_ERR_DATA, "%s", utf8proc_errmsg(n));
  for (utf8proc_ssize_t i = 0; i < n; i++) add_char(out, c->p[i]);
  return IST_OK;
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
  characters c = {0};
  ist_status status = IST_OK;
  while (p < end && status == IST_OK) {
    const char *valid = ist_skip_valid(p, end);
    status = unicode_form(out, &c, p, (size_t)(valid - p),
                          (utf8proc_option_t)(options[kind] | UTF8PROC_STABLE), err);
    if (valid < end) ist_buf_add(out, valid++, 1);
    p = valid;
  }
  ist_free(c.p);
  return status;
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

/* The size of the white space that begins, or with `back` ends, a text; 0: there is none. */
static size_t space_at(const char *p, const char *end, bool back) {
  utf8proc_int32_t c;
  const char *from = p;
  if (back && p < end) {
    from = end - 1;
    while (from > p && end - from < 4 && ((unsigned char)*from & 0xc0) == 0x80) from--;
  }
  utf8proc_ssize_t n = utf8proc_iterate((const utf8proc_uint8_t *)from, end - from, &c);
  return n > 0 && (!back || from + n == end) && ist_is_space(c) ? (size_t)n : 0;
}

static void strip(ist_buf *out, const ist_buf *text, bool left, bool right) {
  const char *begin = text->p, *end = begin + text->len;
  for (size_t n; left && (n = space_at(begin, end, false)) > 0;) begin += n;
  for (size_t n; right && (n = space_at(begin, end, true)) > 0;) end -= n;
  ist_buf_add(out, begin, (size_t)(end - begin));
}

/* Replacing stops where the result is longer than `most`. */
static void replace_text(ist_buf *out, const ist_buf *text, const char *from, const char *to,
                         size_t most) {
  const char *p = text->p, *end = p + text->len;
  size_t size = strlen(from), to_size = strlen(to);
  while (p < end && out->len <= most) {
    const char *hit =
        size == 1 ? memchr(p, *from, (size_t)(end - p)) : memmem(p, (size_t)(end - p), from, size);
    if (!hit || size == 0) hit = end;
    ist_buf_add(out, p, (size_t)(hit - p));
    if (hit < end) ist_buf_add(out, to, to_size);
    p = hit < end ? hit + size : end;
  }
}

static ist_status replace_regex(ist_buf *out, const ist_buf *text, const ist_norm_step *step,
                                size_t most, ist_growth *growth, ist_error *err) {
  if (ist_skip_valid(text->p, text->p + text->len) != text->p + text->len) {
    ist_buf_add(out, text->p, text->len);
    return IST_OK;
  }
  ist_regex_match *m = ist_regex_match_new(&step->regex);
  if (!m) return ist_fail_nomem(err, "normalising a text", text->len);
  ist_status status = IST_OK;
  ist_regex_hit hit = {0};
  do {
    size_t at = hit.end;
    status = ist_regex_next(&step->regex, m, text->p, text->len, &hit, growth, err);
    if (status != IST_OK) break;
    ist_buf_add(out, text->p + at, hit.begin - at);
    if (hit.found) ist_buf_str(out, step->to);
  } while (hit.found && out->len <= most);
  ist_regex_match_free(m);
  return status;
}

static ist_status apply(const ist_norm_step *step, ist_buf *out, const ist_buf *text,
                        bool continued, ist_growth *growth, ist_error *err) {
  size_t most = text->len + growth->left;
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
  if (step->is_regex) return replace_regex(out, text, step, most, growth, err);
  replace_text(out, text, step->from, step->to, most);
  return IST_OK;
}

ist_status ist_norm_apply(const ist_norm *norm, ist_buf *text, ist_buf *spare, bool continued,
                          ist_growth *growth, ist_error *err) {
  for (int i = 0; i < norm->n && text->len > 0; i++) {
    ist_buf_clear(spare);
    IST_TRY(apply(&norm->step[i], spare, text, continued, growth, err));
    if (spare->failed) return ist_fail_nomem(err, "normalising a text", text->len);
    IST_TRY(ist_growth_take(growth, text->len, spare->len, err));
    ist_buf swap = *text;
    *text = *spare;
    *spare = swap;
  }
  return IST_OK;
}
