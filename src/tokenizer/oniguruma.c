/* Oniguruma's notation of regular expressions, which tokenizer.json uses as HF tokenizers reads
 * it, turned into PCRE2's. The two look alike and differ in what lines, words, classes and stacked
 * quantifiers mean, so every construct is read and written anew. What is not known, or cannot be
 * said exactly, is refused by name. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdio.h>
#include <string.h>

#include <utf8proc.h>

#include "tokenizer/internal.h"

enum {
  MAX_NESTED = 100,      /* groups, and classes */
  MAX_TRANSLATED = 65536 /* bytes, of 4096 */
};

/* What may stand in the brackets of a class of PCRE2's. */
#define SPACE "\\t-\\r\\x{85}\\p{Z}" /* White_Space; PCRE2's own \s adds U+180E */
/* Alphabetic is \p{L}, \p{Nl}, marks and these circled and squared letters. */
#define MARKED_LETTERS \
  "\\x{24b6}-\\x{24e9}\\x{1f130}-\\x{1f149}\\x{1f150}-\\x{1f169}\\x{1f170}-\\x{1f189}"
#define WORD      "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}" MARKED_LETTERS
#define HEX       "0-9A-Fa-f"
#define ALPHA     "\\p{Alphabetic}"
#define INVISIBLE "\\p{Cc}\\p{Cn}\\p{Cs}"
/* Outside of brackets, and at the ends of words, these are word characters too. */
#define LONE_WORD WORD "\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}"

/* Where a name is just a script's, PCRE2 takes it for Script_Extensions from 10.40 on. */
#if PCRE2_MAJOR > 10 || PCRE2_MINOR >= 40
#define SCRIPT "sc:"
#else
#define SCRIPT ""
#endif

typedef struct translator {
  const char *pattern, *p, *end;
  ist_buf *out;
  bool caseless, behind; /* in a look-behind */
  char letter;           /* the last character written, if it is a letter without case */
  bool empty;            /* the group that was written last can match nothing */
  ist_error *err;
} translator;

/* What was written last, as a quantifier sees it. */
typedef struct item {
  size_t begin;    /* in `out` */
  bool repeatable; /* there is something to repeat */
  bool empty;      /* it can match nothing */
  enum { ONCE, BY_SIGN, BY_INTERVAL } repeated;
} item;

/* A set of characters: those of `in`, or all others. */
typedef struct set {
  const char *in;
  bool negated;
  char text[64]; /* of a property: `in` */
} set;

static ist_status refuse(const translator *t, const char *from, const char *what) {
  ptrdiff_t len = t->end - t->pattern, size = t->p - from;
  return ist_fail(t->err, IST_ERR_UNSUPPORTED,
                  "the regular expression '%.*s' has %s '%.*s', which is not supported",
                  len < 200 ? (int)len : 200, t->pattern, what, size < 40 ? (int)size : 40, from);
}

/* ---- Characters ---- */

static bool is_letter(int32_t c) {
  return (c | 32) >= 'a' && (c | 32) <= 'z';
}
static bool is_digit(int32_t c) {
  return c >= '0' && c <= '9';
}
static bool is_hex(int32_t c) {
  return is_digit(c) || (is_letter(c) && (c | 32) <= 'f');
}

static ist_status read_char(translator *t, int32_t *c) {
  const char *from = t->p;
  utf8proc_ssize_t n =
      utf8proc_iterate((const utf8proc_uint8_t *)t->p, (utf8proc_ssize_t)(t->end - t->p), c);
  t->p += n > 0 ? n : 1;
  return n > 0 ? IST_OK : refuse(t, from, "bytes that are no UTF-8");
}

static void put_char(ist_buf *out, int32_t c) {
  if (is_letter(c) || is_digit(c))
    ist_buf_printf(out, "%c", (char)c);
  else
    ist_buf_printf(out, "\\x{%x}", (unsigned)c);
}

/* Up to `most` hexadecimal digits; false: none. */
static bool read_hex(translator *t, int most, int32_t *c) {
  *c = 0;
  int n = 0;
  for (; n < most && t->p < t->end && is_hex(*t->p); n++, t->p++)
    *c = *c * 16 + (is_digit(*t->p) ? *t->p - '0' : (*t->p | 32) - 'a' + 10);
  return n > 0;
}

/* \x{H...}, \xHH, \uHHHH, behind the letter. */
static bool read_code(translator *t, char letter, int32_t *c) {
  const char *digits = t->p;
  if (letter == 'u') return read_hex(t, 4, c) && t->p - digits == 4;
  if (t->p == t->end || *t->p != '{') return read_hex(t, 2, c) && *c < 128; /* 128: a byte */
  t->p++;
  return read_hex(t, 6, c) && t->p < t->end && *t->p++ == '}';
}

/* The character that an escape stands for; `found` false: it is something else. */
static ist_status read_escaped(translator *t, int32_t *c, bool *found) {
  static const char letters[] = "tnrfvae", codes[] = "\t\n\r\f\v\a\x1b";
  const char *from = t->p++;
  *found = true;
  if (t->p == t->end) return refuse(t, from, "nothing behind");
  const char *letter = *t->p ? strchr(letters, *t->p) : NULL;
  if (letter) {
    *c = (unsigned char)codes[letter - letters];
    t->p++;
    return IST_OK;
  }
  if (*t->p == 'x' || *t->p == 'u') {
    char kind = *t->p++;
    if (read_code(t, kind, c) && *c <= 0x10ffff && (*c < 0xd800 || *c > 0xdfff)) return IST_OK;
    return refuse(t, from, "the escape");
  }
  if (!is_letter(*t->p) && !is_digit(*t->p)) return read_char(t, c);
  *found = false;
  t->p = from;
  return IST_OK;
}

/* Where case does not matter, some pairs of letters are one character too, as ss is U+00DF, and
 * some characters are pairs; and Unicode's classes become others. */
static ist_status check_case(translator *t, const char *from, int32_t c, bool in_class) {
  static const char pairs[] = "ss ff fi fl st";
  char pair[3] = {t->letter, (char)(c | 32), 0};
  t->letter = 0;
  if (!t->caseless) return IST_OK;
  if (c < 128) {
    if (in_class || !is_letter(c)) return IST_OK;
    t->letter = pair[1];
    return pair[0] && strstr(pairs, pair) ? refuse(t, from - 1, "the caseless letters") : IST_OK;
  }
  switch (utf8proc_category(c)) {
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_PC:
    case UTF8PROC_CATEGORY_PD:
    case UTF8PROC_CATEGORY_PE:
    case UTF8PROC_CATEGORY_PF:
    case UTF8PROC_CATEGORY_PI:
    case UTF8PROC_CATEGORY_PO:
    case UTF8PROC_CATEGORY_PS:
    case UTF8PROC_CATEGORY_ZS: return IST_OK;
    default: return refuse(t, from, "the caseless character");
  }
}

/* ---- Sets ---- */

/* A name as properties are compared: small letters and digits only; false: it has others. */
static bool plain_name(char *out, size_t size, const char *name, size_t len) {
  size_t n = 0;
  if (len > size) return false;
  for (size_t i = 0; i < len; i++) {
    if (name[i] == ' ' || name[i] == '_' || name[i] == '-') continue;
    if ((!is_letter(name[i]) && !is_digit(name[i])) || n + 1 == size) return false;
    out[n++] = is_letter(name[i]) ? (char)(name[i] | 32) : name[i];
  }
  out[n] = 0;
  return n > 0;
}

/* The general categories; their long names. */
static const char *const categories[][2] = {
    {"C", "other"},
    {"Cc", "control"},
    {"Cf", "format"},
    {"Cn", "unassigned"},
    {"Co", "privateuse"},
    {"Cs", "surrogate"},
    {"L", "letter"},
    {"Ll", "lowercaseletter"},
    {"Lm", "modifierletter"},
    {"Lo", "otherletter"},
    {"Lt", "titlecaseletter"},
    {"Lu", "uppercaseletter"},
    {"M", "mark"},
    {"M", "combiningmark"},
    {"Mc", "spacingmark"},
    {"Me", "enclosingmark"},
    {"Mn", "nonspacingmark"},
    {"N", "number"},
    {"Nd", "decimalnumber"},
    {"Nl", "letternumber"},
    {"No", "othernumber"},
    {"P", "punctuation"},
    {"Pc", "connectorpunctuation"},
    {"Pd", "dashpunctuation"},
    {"Pe", "closepunctuation"},
    {"Pf", "finalpunctuation"},
    {"Pi", "initialpunctuation"},
    {"Po", "otherpunctuation"},
    {"Ps", "openpunctuation"},
    {"S", "symbol"},
    {"Sc", "currencysymbol"},
    {"Sk", "modifiersymbol"},
    {"Sm", "mathsymbol"},
    {"So", "othersymbol"},
    {"Z", "separator"},
    {"Zl", "lineseparator"},
    {"Zp", "paragraphseparator"},
    {"Zs", "spaceseparator"},
};

static const struct {
  const char *name, *in;
} properties[] = {{"any", "\\x{0}-\\x{10ffff}"},
                  {"lc", "\\p{Lu}\\p{Ll}\\p{Lt}"},
                  {"casedletter", "\\p{Lu}\\p{Ll}\\p{Lt}"},
                  {"alpha", ALPHA},
                  {"alphabetic", ALPHA},
                  {"digit", "\\p{Nd}"},
                  {"lower", "\\p{Lowercase}"},
                  {"lowercase", "\\p{Lowercase}"},
                  {"punct", "\\p{P}"},
                  {"space", SPACE},
                  {"upper", "\\p{Uppercase}"},
                  {"uppercase", "\\p{Uppercase}"},
                  {"whitespace", SPACE}};

/* \p{name}, \p{^name}, \P{name}; other names are scripts, or PCRE2 does not know them. */
static ist_status read_property(translator *t, const char *from, set *s) {
  char name[40];
  const char *begin = t->p + 1, *close = NULL;
  if (t->p < t->end && *t->p == '{') close = memchr(t->p, '}', (size_t)(t->end - t->p));
  if (!close) return refuse(t, from, "the escape");
  s->negated = t->p[-1] == 'P';
  t->p = close + 1;
  if (*begin == '^') {
    s->negated = !s->negated;
    begin++;
  }
  if (!plain_name(name, sizeof name, begin, (size_t)(close - begin)))
    return refuse(t, from, "the property");
  for (size_t k = 0; k < sizeof properties / sizeof properties[0]; k++) {
    if (strcmp(properties[k].name, name) != 0) continue;
    s->in = properties[k].in;
    return IST_OK;
  }
  s->in = s->text;
  for (size_t k = 0; k < sizeof categories / sizeof categories[0]; k++) {
    const char *brief = categories[k][0];
    bool is_brief = name[0] == (brief[0] | 32) && strcmp(name + 1, brief + 1) == 0;
    if (!is_brief && strcmp(categories[k][1], name) != 0) continue;
    snprintf(s->text, sizeof s->text, "\\p{%s}", brief);
    return IST_OK;
  }
  snprintf(s->text, sizeof s->text, "\\p{" SCRIPT "%.*s}", (int)(close - begin), begin);
  return IST_OK;
}

/* An escape that is a set; *found false: it is none. */
static ist_status read_set(translator *t, bool in_class, set *s, bool *found) {
  const char *from = t->p;
  char letter = t->p[1];
  static const struct {
    char letter;
    const char *in; /* a capital is the negation */
  } sets[] = {{'s', SPACE}, {'d', "\\p{Nd}"}, {'h', HEX}, {'w', LONE_WORD}};
  *found = true;
  t->p += 2;
  if (letter == 'p' || letter == 'P') return read_property(t, from, s);
  for (size_t k = 0; k < sizeof sets / sizeof sets[0]; k++) {
    if (sets[k].letter != (letter | 32)) continue;
    s->in = in_class && sets[k].letter == 'w' ? WORD : sets[k].in;
    s->negated = letter != sets[k].letter;
    return IST_OK;
  }
  t->p = from;
  *found = false;
  return IST_OK;
}

static const struct {
  const char *name, *in;
  bool negated;
} posix[] = {{"alnum", ALPHA "\\p{Nd}", false},
             {"alpha", ALPHA, false},
             {"ascii", "\\x{0}-\\x{7f}", false},
             {"blank", "\\t\\p{Zs}", false},
             {"cntrl", "\\p{Cc}", false},
             {"digit", "\\p{Nd}", false},
             {"graph", INVISIBLE "\\p{Z}", true},
             {"lower", "\\p{Lowercase}", false},
             {"print", INVISIBLE "\\p{Zl}\\p{Zp}", true},
             {"punct", "\\p{P}\\p{S}", false},
             {"space", SPACE, false},
             {"upper", "\\p{Uppercase}", false},
             {"word", WORD, false},
             {"xdigit", HEX, false}};

/* [:name:], [:^name:] */
static ist_status read_posix(translator *t, set *s) {
  const char *from = t->p, *name = from + 2;
  const char *close = memmem(name, (size_t)(t->end - name), ":]", 2);
  if (!close) close = t->end;
  t->p = close < t->end ? close + 2 : close;
  bool negated = name < close && *name == '^';
  name += negated;
  for (size_t k = 0; k < sizeof posix / sizeof posix[0]; k++) {
    if (strlen(posix[k].name) != (size_t)(close - name)) continue;
    if (memcmp(posix[k].name, name, (size_t)(close - name)) != 0) continue;
    s->in = posix[k].in;
    s->negated = posix[k].negated != negated;
    return IST_OK;
  }
  return refuse(t, from, "the class");
}

/* A set outside of brackets; case makes no difference to it. */
static void put_set(const translator *t, const set *s) {
  ist_buf_printf(t->out, "%s[%s%s]%s", t->caseless ? "(?-i:" : "", s->negated ? "^" : "", s->in,
                 t->caseless ? ")" : "");
}

/* ---- Classes ---- */

/* A class is the union of what stands in it, of characters and sets that brackets can hold and of
 * other expressions for one character; a && b is what both sides hold. */
typedef struct bracket {
  ist_buf plain, others; /* of the side that is read; others: with | in front */
  ist_buf sides;         /* what is before it: (?=...) for each */
  bool negated;
} bracket;

static void bracket_free(bracket *b) {
  ist_buf_free(&b->plain);
  ist_buf_free(&b->others);
  ist_buf_free(&b->sides);
}

static bool is_empty(const bracket *b) {
  return b->plain.len + b->others.len == 0 && !b->plain.failed && !b->others.failed;
}

static const char *text_of(const ist_buf *b) {
  return b->len ? b->p : "";
}

/* The side that was read last. */
static void put_side(ist_buf *out, const bracket *b) {
  if (b->others.len == 0)
    ist_buf_printf(out, "[%s]", text_of(&b->plain));
  else if (b->plain.len == 0)
    ist_buf_printf(out, "(?:%s)", b->others.p + 1);
  else
    ist_buf_printf(out, "(?:[%s]%s)", b->plain.p, b->others.p);
}

static void put_bracket(ist_buf *out, const bracket *b) {
  if (b->others.len == 0 && b->sides.len == 0) {
    ist_buf_printf(out, "[%s%s]", b->negated ? "^" : "", text_of(&b->plain));
    return;
  }
  ist_buf_printf(out, "(?:%s%s", b->negated ? "(?!" : "", text_of(&b->sides));
  put_side(out, b);
  ist_buf_str(out, b->negated ? ")(?s:.))" : ")");
}

static void add_set(bracket *b, const set *s) {
  if (s->negated)
    ist_buf_printf(&b->others, "|[^%s]", s->in);
  else
    ist_buf_str(&b->plain, s->in);
}

/* An end of a range: a character, escaped or not. */
static ist_status read_end(translator *t, int32_t *c) {
  const char *from = t->p;
  bool found = true;
  if (*t->p == '\\') {
    if (t->end - t->p > 1 && t->p[1] == 'b') {
      *c = '\b';
      t->p += 2;
      return IST_OK;
    }
    IST_TRY(read_escaped(t, c, &found));
  } else {
    if (*t->p == '[') found = false;
    if (found) IST_TRY(read_char(t, c));
  }
  if (found) return IST_OK;
  t->p = t->end - t->p > 1 ? t->p + 2 : t->end;
  return refuse(t, from, "in a class the part");
}

static bool at(const translator *t, const char *text) {
  size_t n = strlen(text);
  return (size_t)(t->end - t->p) >= n && memcmp(t->p, text, n) == 0;
}

/* A character, or a range that begins with it. */
static ist_status add_range(translator *t, bracket *b) {
  const char *from = t->p;
  int32_t first, last;
  IST_TRY(read_end(t, &first));
  last = first;
  bool dash = at(t, "-") && t->end - t->p > 1 && t->p[1] != ']';
  if (dash) {
    bool twice = *from == '-' || at(t, "--") || at(t, "-&&");
    t->p++;
    if (twice) return refuse(t, from, "in a class the range");
    IST_TRY(read_end(t, &last));
    if (last < first) return refuse(t, from, "the range");
  }
  IST_TRY(check_case(t, from, first, true));
  IST_TRY(check_case(t, from, last, true));
  if (t->caseless && last >= 128 && last != first) return refuse(t, from, "the caseless range");
  put_char(&b->plain, first);
  if (!dash) return IST_OK;
  ist_buf_str(&b->plain, "-");
  put_char(&b->plain, last);
  return IST_OK;
}

static ist_status read_bracket(translator *t, int depth, bracket *b);

static ist_status add_nested(translator *t, int depth, bracket *b) {
  bracket inner = {0};
  ist_status status = read_bracket(t, depth + 1, &inner);
  if (status == IST_OK && !inner.negated && inner.sides.len == 0) {
    ist_buf_add(&b->plain, text_of(&inner.plain), inner.plain.len);
    ist_buf_add(&b->others, text_of(&inner.others), inner.others.len);
  } else if (status == IST_OK) {
    ist_buf_str(&b->others, "|");
    put_bracket(&b->others, &inner);
  }
  b->plain.failed |= inner.plain.failed | inner.others.failed | inner.sides.failed;
  bracket_free(&inner);
  return status;
}

/* The side before && is complete. */
static ist_status end_side(translator *t, const char *from, bracket *b) {
  if (is_empty(b)) return refuse(t, from, "nothing on one side of && in");
  ist_buf_str(&b->sides, "(?=");
  put_side(&b->sides, b);
  ist_buf_str(&b->sides, ")");
  b->sides.failed |= b->plain.failed | b->others.failed;
  ist_buf_clear(&b->plain);
  ist_buf_clear(&b->others);
  t->p += 2;
  return IST_OK;
}

static ist_status add_item(translator *t, int depth, bracket *b) {
  const char *from = t->p;
  bool found = false;
  set s;
  if (at(t, "[:")) {
    IST_TRY(read_posix(t, &s));
    found = true;
  } else if (*t->p == '[') {
    return add_nested(t, depth, b);
  } else if (*t->p == '\\' && t->end - t->p > 1) {
    IST_TRY(read_set(t, true, &s, &found));
  }
  if (!found) return add_range(t, b);
  if (t->caseless && strcmp(s.in, SPACE) != 0 && strcmp(s.in, "\\p{Nd}") != 0)
    return refuse(t, from, "the caseless set");
  add_set(b, &s);
  if (at(t, "-") && !at(t, "-]")) return refuse(t, from, "in a class the range behind");
  return IST_OK;
}

static ist_status read_bracket(translator *t, int depth, bracket *b) {
  const char *from = t->p++;
  if (depth > MAX_NESTED) return refuse(t, from, "too many classes around");
  if (at(t, "^")) {
    b->negated = true;
    t->p++;
  }
  if (at(t, "]")) IST_TRY(add_range(t, b)); /* first, a character */
  while (t->p < t->end && *t->p != ']')
    IST_TRY(at(t, "&&") ? end_side(t, from, b) : add_item(t, depth, b));
  if (t->p == t->end) return refuse(t, from, "an open class");
  t->p++;
  if (is_empty(b)) return refuse(t, from, "nothing on one side of && in");
  return IST_OK;
}

static ist_status put_class(translator *t) {
  bracket b = {0};
  t->letter = 0;
  const char *from = t->p;
  ist_status status = read_bracket(t, 0, &b);
  /* Oniguruma folds the case of what is left after all negations. */
  if (status == IST_OK && t->caseless && b.others.len + b.sides.len > 0)
    status = refuse(t, from, "the caseless class");
  if (status == IST_OK) put_bracket(t->out, &b);
  t->out->failed |= b.plain.failed | b.others.failed | b.sides.failed;
  bracket_free(&b);
  return status;
}

/* ---- Escapes ---- */

static ist_status put_escape(translator *t, item *it) {
  static const char *const kept[] = {"\\A", "\\z", "\\Z"};
  static const char *const rewritten[][2] = {
      {"\\b",
       "(?:(?<=[" LONE_WORD "])(?![" LONE_WORD "])|(?<![" LONE_WORD "])(?=[" LONE_WORD "]))"},
      {"\\B",
       "(?:(?<=[" LONE_WORD "])(?=[" LONE_WORD "])|(?<![" LONE_WORD "])(?![" LONE_WORD "]))"},
      {"\\N", "[^\\n]"},
      {"\\O", "(?s:.)"},
      {"\\R", "(?>\\r\\n|[\\n-\\r\\x{85}\\x{2028}\\x{2029}])"}};
  const char *from = t->p;
  bool found;
  int32_t c;
  set s;
  IST_TRY(read_escaped(t, &c, &found));
  if (found) {
    IST_TRY(check_case(t, from, c, false));
    put_char(t->out, c);
    return IST_OK;
  }
  t->letter = 0;
  IST_TRY(read_set(t, false, &s, &found));
  if (found) {
    put_set(t, &s);
    return IST_OK;
  }
  t->p += 2;
  for (size_t k = 0; k < sizeof kept / sizeof kept[0]; k++) {
    if (memcmp(from, kept[k], 2) != 0) continue;
    ist_buf_str(t->out, kept[k]);
    *it = (item){.empty = true};
    return IST_OK;
  }
  for (size_t k = 0; k < sizeof rewritten / sizeof rewritten[0]; k++) {
    if (memcmp(from, rewritten[k][0], 2) != 0) continue;
    ist_buf_str(t->out, rewritten[k][1]);
    if (k < 2) *it = (item){.empty = true};
    return IST_OK;
  }
  return refuse(t, from, "the escape");
}

/* ---- Quantifiers ---- */

typedef struct interval {
  int low, high; /* high -1: any number */
  bool fixed;    /* spelled with one number */
} interval;

static int read_number(translator *t) {
  int n = 0;
  for (; t->p < t->end && is_digit(*t->p); t->p++)
    if (n < 100000) n = 10 * n + *t->p - '0'; /* PCRE2 takes less */
  return n;
}

/* {n}, {n,}, {n,m}, {,m}; false: the brace is a character. */
static bool read_interval(translator *t, interval *in) {
  const char *from = t->p++, *low = t->p;
  in->low = in->high = read_number(t);
  bool lows = t->p > low, highs = false;
  in->fixed = !at(t, ",");
  if (!in->fixed) {
    const char *high = ++t->p;
    in->high = read_number(t);
    highs = t->p > high;
    if (!highs) in->high = -1;
  }
  if (at(t, "}") && (lows || highs)) {
    t->p++;
    return true;
  }
  t->p = from;
  return false;
}

/* Puts all that is written from `begin` on in a group. */
static void wrap(ist_buf *out, size_t begin) {
  ist_buf_str(out, "(?:)");
  if (out->failed) return;
  memmove(out->p + begin + 3, out->p + begin, out->len - 4 - begin);
  memcpy(out->p + begin, "(?:", 3);
  out->p[out->len - 1] = ')';
}

static void put_interval(ist_buf *out, const interval *in) {
  if (in->fixed)
    ist_buf_printf(out, "{%d}", in->low);
  else if (in->high < 0)
    ist_buf_printf(out, "{%d,}", in->low);
  else
    ist_buf_printf(out, "{%d,%d}", in->low, in->high);
}

/* Signs behind an interval are quantifiers of their own, but for the ? that makes {n,m} lazy. */
static ist_status put_quantifier(translator *t, item *it) {
  const char *from = t->p;
  char sign = *t->p;
  bool by_sign = sign != '{';
  interval in = {sign == '+', sign == '?' ? 1 : -1, false};
  if (by_sign)
    t->p++;
  else if (!read_interval(t, &in))
    return refuse(t, from, "the quantifier");
  bool lazy = at(t, "?") && !in.fixed, possessive = at(t, "+") && by_sign;
  if (lazy || possessive) t->p++;
  if (it->repeated == BY_SIGN && by_sign) return refuse(t, from - 1, "the stacked quantifiers");
  /* Oniguruma leaves such a loop at the first time that is empty, PCRE2 goes on to n. */
  if (it->empty && (in.high < 0 ? in.low > 1 : in.high > 1))
    return refuse(t, from, "behind what may be empty the quantifier");
  if (in.high == 0) { /* PCRE2 10.42 looks into it for a ^ all the same */
    if (!t->out->failed) t->out->len = it->begin;
    ist_buf_str(t->out, "(?:)");
  } else {
    if (it->repeated != ONCE) wrap(t->out, it->begin);
    if (by_sign)
      ist_buf_add(t->out, &sign, 1);
    else
      put_interval(t->out, &in);
    ist_buf_str(t->out, lazy ? "?" : possessive ? "+" : "");
  }
  it->repeated = by_sign ? BY_SIGN : BY_INTERVAL;
  it->empty |= in.low == 0;
  return IST_OK;
}

/* ---- Groups ---- */

static ist_status put_alternatives(translator *t, int depth);

/* (?im-im) and (?im-im: up to the last character; m is PCRE2's s. */
static ist_status put_options(translator *t, const char *from) {
  char on[3] = "", off[3] = "", *list = on;
  t->p = from + 2;
  for (; t->p < t->end && *t->p != ')' && *t->p != ':'; t->p++) {
    if (*t->p == '-' && list == on) {
      list = off;
    } else if (*t->p == 'x' && list == off) {
      continue; /* it never is on */
    } else if ((*t->p == 'i' || *t->p == 'm') && strlen(list) < 2) {
      list[strlen(list)] = *t->p == 'm' ? 's' : 'i';
      if (*t->p == 'i') t->caseless = list == on;
    } else {
      t->p++;
      return refuse(t, from, "the group");
    }
  }
  if (t->p == t->end) return refuse(t, from, "the group");
  ist_buf_printf(t->out, "(?%s%s%s:", on, *off ? "-" : "", off);
  return IST_OK;
}

/* *open: its end is the end of the group around it. */
static ist_status put_group(translator *t, int depth, item *it, bool *open) {
  static const char *const kinds[] = {"(?:", "(?>", "(?=", "(?!", "(?<=", "(?<!"};
  const char *from = t->p, *begin = NULL;
  bool caseless = t->caseless, behind = t->behind;
  *open = false;
  if (depth > MAX_NESTED) {
    t->p++;
    return refuse(t, from, "too many groups around");
  }
  for (size_t k = 0; k < sizeof kinds / sizeof kinds[0] && !begin; k++) {
    if (!at(t, kinds[k])) continue;
    begin = kinds[k];
    it->repeatable = k < 2;
  }
  if (begin) {
    t->p += strlen(begin);
    bool looks_back = begin[2] == '<';
    if (behind && looks_back) return refuse(t, from, "in a look-behind another");
    t->behind |= looks_back;
    ist_buf_str(t->out, begin);
  } else if (at(t, "(?<") && memchr(t->p, '>', (size_t)(t->end - t->p))) {
    t->p = (const char *)memchr(t->p, '>', (size_t)(t->end - t->p)) + 1; /* its name */
    ist_buf_str(t->out, "(");
  } else if (at(t, "(?")) {
    IST_TRY(put_options(t, from));
    *open = *t->p++ == ')';
    if (*open) {
      *it = (item){.empty = true};
      return IST_OK;
    }
  } else if (at(t, "(*")) {
    t->p += 2;
    return refuse(t, from, "the callout");
  } else {
    t->p++;
    ist_buf_str(t->out, "(");
  }
  IST_TRY(put_alternatives(t, depth + 1));
  it->empty = t->empty || !it->repeatable;
  t->caseless = caseless;
  t->behind = behind;
  if (t->p == t->end) return IST_OK; /* PCRE2 misses the end of the group */
  t->p++;
  ist_buf_str(t->out, ")");
  return IST_OK;
}

static ist_status put_literal(translator *t) {
  const char *from = t->p;
  int32_t c;
  IST_TRY(read_char(t, &c));
  IST_TRY(check_case(t, from, c, false));
  put_char(t->out, c);
  return IST_OK;
}

static bool is_quantifier(translator *t) {
  interval in;
  const char *from = t->p;
  if (*t->p != '{') return *t->p == '*' || *t->p == '+' || *t->p == '?';
  bool found = read_interval(t, &in);
  t->p = from;
  return found;
}

static ist_status put_item(translator *t, int depth, item *it, bool *open) {
  char c = *t->p;
  *open = false;
  *it = (item){.begin = t->out->len, .repeatable = true};
  if (c == '\\') return put_escape(t, it);
  if (c == '[') return put_class(t);
  if (c == '(') return put_group(t, depth, it, open);
  if (c != '^' && c != '$' && c != '.') return put_literal(t);
  it->repeatable = c == '.';
  it->empty = c != '.';
  t->letter = 0;
  ist_buf_add(t->out, t->p++, 1);
  return IST_OK;
}

/* What stands in a group, up to its end. */
static ist_status put_alternatives(translator *t, int depth) {
  int opened = 0;
  bool empty = false, before = true; /* an alternative; all of this one before the item */
  item it = {.empty = true};
  while (t->p < t->end && *t->p != ')' && !t->out->failed) {
    const char *from = t->p;
    if (*t->p == '|') {
      empty |= before && it.empty;
      before = true;
      it = (item){.empty = true};
      t->letter = 0;
      ist_buf_add(t->out, t->p++, 1);
    } else if (!is_quantifier(t)) {
      bool open;
      before &= it.empty;
      IST_TRY(put_item(t, depth, &it, &open));
      opened += open;
    } else if (it.repeatable) {
      IST_TRY(put_quantifier(t, &it));
    } else {
      t->p++;
      return refuse(t, from, "nothing to repeat before");
    }
  }
  t->empty = empty || (before && it.empty);
  for (; opened > 0; opened--) ist_buf_str(t->out, ")");
  return IST_OK;
}

ist_status ist_regex_translate(ist_buf *out, const char *pattern, size_t len, ist_error *err) {
  translator t = {.pattern = pattern, .p = pattern, .end = pattern + len, .out = out, .err = err};
  ist_buf_add(out, "", 0);
  IST_TRY(put_alternatives(&t, 0));
  if (t.p < t.end) ist_buf_str(out, ")"); /* PCRE2 misses the begin of the group */
  if (out->len > MAX_TRANSLATED)
    return ist_fail(err, IST_ERR_UNSUPPORTED,
                    "a regular expression of %zu bytes as PCRE2 has it, expected at most %d",
                    out->len, MAX_TRANSLATED);
  return out->failed ? ist_fail_nomem(err, "a regular expression", len) : IST_OK;
}
