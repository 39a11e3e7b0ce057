/* A template's text to tokens, with jinja2's rules for white space around tags. */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "jinja/internal.h"

typedef struct lexer {
  jinja_tokens *out;
  jinja_arena *arena;
  const char *p, *end;
  int32_t line;
  bool line_start; /* the text before p ended a line with the tag that it belongs to */
  ist_error *err;
} lexer;

static ist_status fail(const lexer *l, const char *what) {
  return ist_fail(l->err, IST_ERR_DATA, "template, line %d: %s", (int)l->line, what);
}

static ist_status add(lexer *l, jinja_token token) {
  token.line = l->line;
  IST_TRY(ist_grow(&l->out->p, &l->out->cap, l->out->n + 1, sizeof token, l->err));
  l->out->p[l->out->n++] = token;
  return IST_OK;
}

static void advance(lexer *l, const char *to) {
  for (; l->p < to; l->p++) l->line += *l->p == '\n';
}

static bool at(const lexer *l, const char *text) {
  size_t n = strlen(text);
  return (size_t)(l->end - l->p) >= n && memcmp(l->p, text, n) == 0;
}

static bool is_space(char c) {
  return c == ' ' || (c >= '\t' && c <= '\r');
}

/* ---- Text between tags ---- */

/* The next "{%", "{{" or "{#"; the end if there is none. */
static const char *next_tag(const lexer *l) {
  const char *p = l->p;
  for (; p < l->end; p++)
    if (*p == '{' && p + 1 < l->end && (p[1] == '%' || p[1] == '{' || p[1] == '#')) return p;
  return p;
}

/* The text up to a tag: what stands before a "-" loses its white space, and a tag
 * that is no output and stands alone before it on its line the indentation. */
static ist_status add_text(lexer *l, const char *tag) {
  const char *begin = l->p, *end = tag;
  char sign = tag + 2 < l->end ? tag[2] : 0;
  if (tag == l->end) {
    /* as it is */
  } else if (sign == '-') {
    while (end > begin && is_space(end[-1])) end--;
  } else if (sign != '+' && tag[1] != '{') {
    const char *line = end;
    while (line > begin && line[-1] != '\n') line--;
    const char *c = line;
    while (c < end && is_space(*c)) c++;
    if (c == end && (line > begin || l->line_start)) end = line;
  }
  if (end > begin)
    IST_TRY(add(l, (jinja_token){.kind = T_TEXT, .p = begin, .len = (size_t)(end - begin)}));
  advance(l, tag);
  return IST_OK;
}

/* Behind the end of a tag: "-" takes all white space, a tag that trims its line break. */
static void after_tag(lexer *l, char sign, bool trims) {
  l->line_start = false;
  const char *p = l->p;
  if (sign == '-') {
    while (p < l->end && is_space(*p)) p++;
    l->line_start = p > l->p && p[-1] == '\n';
  } else if (trims && sign != '+' && p < l->end && *p == '\n') {
    p++;
    l->line_start = true;
  }
  advance(l, p);
}

/* ---- Inside tags ---- */

static ist_status lex_string(lexer *l) {
  char quote = *l->p;
  const char *p = l->p + 1;
  while (p < l->end && *p != quote) p += 1 + (*p == '\\' && p + 1 < l->end);
  if (p >= l->end) return fail(l, "a string without an end");
  size_t n = 0, raw = (size_t)(p - l->p);
  char *text = ist_jinja_take(l->arena, 2 * raw + 1);
  if (!text) return ist_fail_nomem(l->err, "a template", raw);
  for (const char *c = l->p + 1; c < p; c++) {
    if (*c != '\\') {
      text[n++] = *c;
      continue;
    }
    c++;
    static const char from[] = "ntrbfva0\\'\"", to[] = "\n\t\r\b\f\v\a\0\\'\"";
    const char *found = memchr(from, *c, sizeof from - 1);
    size_t digits = *c == 'x' ? 2 : *c == 'u' ? 4 : *c == 'U' ? 8 : 0;
    if (digits && (size_t)(p - c) > digits) {
      char hex[9] = "";
      memcpy(hex, c + 1, digits);
      unsigned long code = strtoul(hex, NULL, 16);
      if (code > 0x10ffff) return fail(l, "a character past U+10FFFF");
      c += digits;
      if (code < 0x80) {
        text[n++] = (char)code;
      } else if (code < 0x800) {
        text[n++] = (char)(0xc0 | code >> 6);
        text[n++] = (char)(0x80 | (code & 63));
      } else if (code < 0x10000) {
        text[n++] = (char)(0xe0 | code >> 12);
        text[n++] = (char)(0x80 | (code >> 6 & 63));
        text[n++] = (char)(0x80 | (code & 63));
      } else {
        text[n++] = (char)(0xf0 | code >> 18);
        text[n++] = (char)(0x80 | (code >> 12 & 63));
        text[n++] = (char)(0x80 | (code >> 6 & 63));
        text[n++] = (char)(0x80 | (code & 63));
      }
    } else if (found) {
      text[n++] = to[found - from];
    } else if (*c != '\n') {
      text[n++] = '\\';
      text[n++] = *c;
    }
  }
  IST_TRY(add(l, (jinja_token){.kind = T_STRING, .p = text, .len = n}));
  advance(l, p + 1);
  return IST_OK;
}

static ist_status lex_number(lexer *l) {
  const char *p = l->p;
  char text[64];
  size_t n = 0;
  bool real = false;
  while (p < l->end && n + 1 < sizeof text) {
    bool exponent =
        (*p == 'e' || *p == 'E') && p + 1 < l->end &&
        (isdigit((unsigned char)p[1]) ||
         ((p[1] == '-' || p[1] == '+') && p + 2 < l->end && isdigit((unsigned char)p[2])));
    bool point = *p == '.' && !real && p + 1 < l->end && isdigit((unsigned char)p[1]);
    bool sign = (*p == '-' || *p == '+') && n && (text[n - 1] == 'e' || text[n - 1] == 'E');
    if (!isdigit((unsigned char)*p) && *p != '_' && !exponent && !point && !sign) break;
    real |= exponent || point;
    if (*p != '_') text[n++] = *p;
    p++;
  }
  text[n] = 0;
  jinja_token token = {.kind = real ? T_FLOAT : T_INT};
  token.f = strtod(text, NULL);
  errno = 0;
  token.i = strtoll(text, NULL, 10);
  if (!real && errno) return fail(l, "a whole number past 64 bits");
  IST_TRY(add(l, token));
  advance(l, p);
  return IST_OK;
}

static ist_status lex_operator(lexer *l) {
  static const char *const two[] = {"==", "!=", "<=", ">=", "//", "**"};
  size_t n = 1;
  for (int k = 0; k < 6; k++)
    if (at(l, two[k])) n = 2;
  if (!strchr("+-*/%~<>=!.:|,()[]{}", *l->p)) return fail(l, "a character that has no place here");
  IST_TRY(add(l, (jinja_token){.kind = T_OP, .p = l->p, .len = n}));
  advance(l, l->p + n);
  return IST_OK;
}

static ist_status lex_one(lexer *l) {
  unsigned char c = (unsigned char)*l->p;
  if (c == '"' || c == '\'') return lex_string(l);
  if (isdigit(c)) return lex_number(l);
  if (!isalpha(c) && c != '_' && c < 0x80) return lex_operator(l);
  const char *p = l->p;
  while (p < l->end && (isalnum((unsigned char)*p) || *p == '_' || (unsigned char)*p >= 0x80)) p++;
  IST_TRY(add(l, (jinja_token){.kind = T_NAME, .p = l->p, .len = (size_t)(p - l->p)}));
  advance(l, p);
  return IST_OK;
}

/* The inside of a tag up to its end. */
static ist_status lex_tag(lexer *l, bool output) {
  const char *close = output ? "}}" : "%}";
  int depth = 0; /* of brackets: "}}" may close two of them */
  IST_TRY(add(l, (jinja_token){.kind = output ? T_VAR_BEGIN : T_BLOCK_BEGIN}));
  advance(l, l->p + 2);
  if (l->p < l->end && (*l->p == '-' || *l->p == '+')) l->p++;
  for (;;) {
    while (l->p < l->end && is_space(*l->p)) advance(l, l->p + 1);
    if (l->p == l->end) return fail(l, "a tag without an end");
    bool signed_end = (*l->p == '-' || (*l->p == '+' && !output)) && l->end - l->p > 2 &&
                      memcmp(l->p + 1, close, 2) == 0;
    if (depth == 0 && (signed_end || at(l, close))) {
      char sign = signed_end ? *l->p : 0;
      IST_TRY(add(l, (jinja_token){.kind = output ? T_VAR_END : T_BLOCK_END}));
      l->p += signed_end ? 3 : 2;
      after_tag(l, sign, !output);
      return IST_OK;
    }
    depth += (*l->p == '{' || *l->p == '(' || *l->p == '[');
    depth -= (*l->p == '}' || *l->p == ')' || *l->p == ']');
    IST_TRY(lex_one(l));
  }
}

static ist_status skip_comment(lexer *l) {
  const char *begin = l->p + 2; /* the "#" of "{#" closes nothing, nor does its "-" */
  begin += begin < l->end && (*begin == '-' || *begin == '+');
  const char *close = memmem(begin, (size_t)(l->end - begin), "#}", 2);
  if (!close) return fail(l, "a comment without an end");
  char sign = close > begin && (close[-1] == '-' || close[-1] == '+') ? close[-1] : 0;
  advance(l, close + 2);
  after_tag(l, sign, true);
  return IST_OK;
}

/* "{% raw %}" ... "{% endraw %}": true when there was one. */
static bool word_in_tag(const char **p, const char *end, const char *word, char *open_sign,
                        char *close_sign) {
  const char *c = *p;
  size_t n = strlen(word);
  if (end - c < 2 || memcmp(c, "{%", 2) != 0) return false;
  c += 2;
  *open_sign = c < end && (*c == '-' || *c == '+') ? *c++ : 0;
  while (c < end && is_space(*c)) c++;
  if ((size_t)(end - c) < n || memcmp(c, word, n) != 0) return false;
  c += n;
  while (c < end && is_space(*c)) c++;
  *close_sign = c < end && (*c == '-' || *c == '+') ? *c++ : 0;
  if (end - c < 2 || memcmp(c, "%}", 2) != 0) return false;
  *p = c + 2;
  return true;
}

static ist_status lex_raw(lexer *l, bool *found) {
  char sign, after;
  const char *p = l->p;
  *found = word_in_tag(&p, l->end, "raw", &sign, &after);
  if (!*found) return IST_OK;
  advance(l, p);
  after_tag(l, after, false); /* the line break behind it stays */
  for (const char *c = l->p; c < l->end; c++) {
    const char *q = c;
    if (*c != '{' || !word_in_tag(&q, l->end, "endraw", &sign, &after)) continue;
    IST_TRY(add_text(l, c));
    advance(l, q);
    after_tag(l, after, true);
    return IST_OK;
  }
  return fail(l, "raw without endraw");
}

static ist_status lex_all(lexer *l) {
  while (l->p < l->end) {
    const char *tag = next_tag(l);
    bool raw = false;
    IST_TRY(add_text(l, tag));
    if (l->p == l->end) break;
    if (l->p[1] == '#') {
      IST_TRY(skip_comment(l));
      continue;
    }
    if (l->p[1] == '%') IST_TRY(lex_raw(l, &raw));
    if (!raw) IST_TRY(lex_tag(l, l->p[1] == '{'));
  }
  return add(l, (jinja_token){.kind = T_END});
}

ist_status ist_jinja_lex(jinja_tokens *out, jinja_arena *arena, const char *text, size_t len,
                         ist_error *err) {
  /* Line breaks become \n, and one at the very end falls away. */
  char *copy = ist_jinja_take(arena, len + 1);
  if (!copy) return ist_fail_nomem(err, "a template", len);
  size_t n = 0;
  for (size_t i = 0; i < len; i++) {
    if (text[i] == '\r') {
      copy[n++] = '\n';
      i += i + 1 < len && text[i + 1] == '\n';
    } else {
      copy[n++] = text[i];
    }
  }
  if (n && copy[n - 1] == '\n') n--;
  lexer l = {out, arena, copy, copy + n, 1, true, err};
  return lex_all(&l);
}
