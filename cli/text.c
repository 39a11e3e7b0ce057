/* text.c: what the terminal can show, and text that may go there. */
#include "text.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "opts.h"

/* ---- Terminal ---------------------------------------------------------------- */

static bool locale_is_utf8(void) {
  const char *name = getenv("LC_ALL");
  if (!name || !*name) name = getenv("LC_CTYPE");
  if (!name || !*name) name = getenv("LANG");
  return name && (strcasestr(name, "utf-8") || strcasestr(name, "utf8"));
}

void ist_term_measure(ist_term *t) {
  struct winsize size;
  if (!t->tty) return;
  t->columns = ioctl(fileno(t->to), TIOCGWINSZ, &size) == 0 && size.ws_col >= 20 ? size.ws_col : 80;
}

ist_term ist_term_of(FILE *to) {
  ist_term t = {.to = to, .terminal = isatty(fileno(to)) == 1, .utf8 = locale_is_utf8()};
  const char *term = getenv("TERM"), *no_colour = getenv("NO_COLOR"), *more = getenv("COLORTERM");
  bool dumb = !term || !*term || !strcmp(term, "dumb");
  t.tty = t.terminal && !dumb; /* that one can do no more than a file */
  t.colour = t.tty && !(no_colour && *no_colour);
  t.greys = t.colour && (strstr(term, "256color") || (more && *more));
  ist_term_measure(&t);
  return t;
}

void ist_style_set(const ist_term *t, ist_style style) {
  static const char *const codes[] = {
      [IST_PLAIN] = "0",         [IST_BOLD] = "1",        [IST_DIM] = "2",
      [IST_GOOD] = "32",         [IST_BAD] = "31",        [IST_ACCENT] = "1;36",
      [IST_ACCENT_DIM] = "2;36", [IST_GREY] = "38;5;245", [IST_GREY_DIM] = "2;38;5;245"};
  if (style == IST_GREY && !t->greys) style = IST_PLAIN;
  if (style == IST_GREY_DIM && !t->greys) style = IST_DIM;
  if (t->colour) fprintf(t->to, "\033[%sm", codes[style]);
}

void ist_print(const ist_term *t, ist_style style, const char *fmt, ...) {
  va_list args;
  va_start(args, fmt);
  if (style != IST_PLAIN) ist_style_set(t, style);
  vfprintf(t->to, fmt, args);
  if (style != IST_PLAIN) ist_style_set(t, IST_PLAIN);
  va_end(args);
}

/* A program has one terminal, so its one live line is state of the process: the
 * stream it stands on, or NULL. */
static FILE *live;

void ist_live_clear(void) {
  if (!live) return;
  fputs("\r\033[K", live);
  fflush(live);
  live = NULL;
}

void ist_live_begin(const ist_term *t) {
  ist_live_clear();
  live = t->to;
}

void ist_live_end(const ist_term *t) {
  fflush(t->to);
}

/* ---- Text from files ---------------------------------------------------------- */

/* Decodes one character; broken UTF-8 yields U+FFFD and one byte. */
static size_t decode(const unsigned char *s, size_t len, uint32_t *out) {
  static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
  size_t n = s[0] < 0x80                   ? 1
             : s[0] >= 0xf0 && s[0] < 0xf5 ? 4
             : s[0] >= 0xe0                ? 3
             : s[0] >= 0xc2                ? 2
                                           : 0;
  *out = 0xfffd;
  if (!n || n > len || s[0] >= 0xf5) return 1;
  uint32_t c = n == 1 ? s[0] : s[0] & (0x7fu >> n);
  for (size_t i = 1; i < n; i++) {
    if ((s[i] & 0xc0) != 0x80) return 1;
    c = c << 6 | (s[i] & 0x3f);
  }
  if (c < least[n] || (c >= 0xd800 && c < 0xe000) || c > 0x10ffff) return 1;
  *out = c;
  return n;
}

/* Characters that move the cursor, start an escape or turn the direction. */
static bool is_harmful(uint32_t c) {
  return c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0x61c || (c >= 0x200e && c <= 0x200f) ||
         (c >= 0x2028 && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069) || c == 0xfeff ||
         c >= 0xe0000;
}

/* Columns of a character: near enough for aligning tables. */
static int columns_of(uint32_t c) {
  static const uint32_t wide[][2] = {{0x1100, 0x115f},   {0x2e80, 0x303e},   {0x3041, 0xa4cf},
                                     {0xac00, 0xd7a3},   {0xf900, 0xfaff},   {0xfe30, 0xfe6f},
                                     {0xff00, 0xff60},   {0xffe0, 0xffe6},   {0x1f300, 0x1f64f},
                                     {0x1f680, 0x1f6ff}, {0x1f900, 0x1faff}, {0x20000, 0x3fffd}};
  if ((c >= 0x300 && c < 0x370) || (c >= 0x200b && c <= 0x200d) || (c >= 0xfe00 && c <= 0xfe0f))
    return 0;
  for (size_t i = 0; i < sizeof wide / sizeof *wide; i++)
    if (c >= wide[i][0] && c <= wide[i][1]) return 2;
  return 1;
}

int ist_put_clean(FILE *to, const char *text, size_t len, int limit, bool lines) {
  const unsigned char *s = (const unsigned char *)text;
  int used = 0;
  if (limit > 0 && ist_put_clean(NULL, text, len, 0, lines) > limit)
    limit -= 3; /* the ellipsis */
  else
    limit = 0;
  for (size_t i = 0, n; i < len; i += n) {
    uint32_t c;
    const char *shown = NULL;
    n = decode(s + i, len - i, &c);
    if (c == '\n' && !lines)
      shown = "\\n";
    else if (c == '\t' && !lines)
      shown = "\\t";
    else if (c == 0xfffd || (is_harmful(c) && !(lines && (c == '\n' || c == '\t'))))
      shown = "?";
    int columns = shown ? (int)strlen(shown) : columns_of(c);
    if (limit && used + columns > limit) {
      if (to) fputs("...", to);
      return used + 3;
    }
    used += columns;
    if (!to) continue;
    if (shown)
      fputs(shown, to);
    else
      fwrite(s + i, 1, n, to);
  }
  return used;
}

int ist_put_text(FILE *to, const char *text, int limit) {
  return ist_put_clean(to, text, strlen(text), limit, false);
}

/* In JSON such a character stands in a string, but for the line ends between its lines. */
void ist_put_json(FILE *to, const char *text) {
  const unsigned char *s = (const unsigned char *)text;
  size_t len = strlen(text);
  for (size_t i = 0, n; i < len; i += n) {
    uint32_t c;
    n = decode(s + i, len - i, &c);
    if (c == '\n' || !is_harmful(c))
      fwrite(s + i, 1, n, to);
    else if (c < 0x10000)
      fprintf(to, "\\u%04x", (unsigned)c);
    else
      fprintf(to, "\\u%04x\\u%04x", (unsigned)(0xd800 + ((c - 0x10000) >> 10)),
              (unsigned)(0xdc00 + (c & 0x3ff)));
  }
  fputc('\n', to);
}

int ist_columns(const char *text) {
  return ist_put_text(NULL, text, 0);
}

char *ist_repair_utf8(const char *text) {
  size_t len = strlen(text), at = 0;
  char *out = malloc(3 * len + 1);
  for (size_t i = 0, n; out && i < len; i += n) {
    uint32_t c;
    n = decode((const unsigned char *)text + i, len - i, &c);
    bool broken = c == 0xfffd;
    memcpy(out + at, broken ? "\xef\xbf\xbd" : text + i, broken ? 3 : n);
    at += broken ? 3 : n;
  }
  if (out) out[at] = '\0';
  return out;
}

void ist_put_spaces(FILE *to, int n) {
  if (n > 0) fprintf(to, "%*s", n, "");
}

/* ---- Numbers ------------------------------------------------------------------ */

void ist_format_bytes(char out[32], double bytes) {
  static const char *const unit[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  int i = 0;
  for (; bytes >= 1000 && i < 4; i++) bytes /= 1024;
  snprintf(out, 32, i < 3 && (bytes >= 10 || !i) ? "%.0f %s" : "%.3g %s", bytes, unit[i]);
}

void ist_format_bytes_short(char out[32], double bytes) {
  static const char unit[] = "BKMGT";
  int i = 0;
  for (; bytes >= 999.5 && i < 4; i++) bytes /= 1024;
  snprintf(out, 32, i < 3 || bytes >= 99.5 ? "%.0f%c" : "%.1f%c", bytes, unit[i]);
}

void ist_format_count(char out[32], double count) {
  static const char *const unit[] = {"", " K", " M", " B", " T"};
  int i = 0;
  for (; count >= 999.95 && i < 4; i++) count /= 1000;
  snprintf(out, 32, "%.*f%s", !i ? 0 : count >= 10 ? 1 : 2, count, unit[i]);
}

void ist_format_whole(char out[32], int64_t n) {
  char digits[32];
  int len = snprintf(digits, sizeof digits, "%lld", (long long)n), at = 0;
  for (int i = 0; i < len; i++) {
    if (i && digits[i - 1] != '-' && (len - i) % 3 == 0) out[at++] = ',';
    out[at++] = digits[i];
  }
  out[at] = '\0';
}

void ist_format_time(char out[32], double seconds) {
  long long s = seconds > 0 ? (long long)(seconds + 0.5) : 0;
  if (s < 3600)
    snprintf(out, 32, "%lld:%02lld", s / 60, s % 60);
  else if (s < 100 * 3600)
    snprintf(out, 32, "%lldh%02lld", s / 3600, s / 60 % 60);
  else
    snprintf(out, 32, "%lldd%02lldh", s / 86400, s / 3600 % 24);
}

void ist_put_bar(const ist_term *t, double share, int width) {
  static const char *const eighths[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
  if (!(share > 0)) return;
  int cells = (int)((share > 1 ? 1 : share) * width * 8 + 0.5);
  for (int i = 0; i < cells / 8; i++) fputs(t->utf8 ? "█" : "#", t->to);
  if (t->utf8) fputs(eighths[cells % 8], t->to);
}

int ist_edit_distance(const char *a, const char *b) {
  enum { MOST = 32 };
  int d[MOST][MOST], m = (int)strlen(a), n = (int)strlen(b);
  if (m >= MOST || n >= MOST) return 1000;
  for (int i = 0; i <= m; i++) {
    for (int j = 0; j <= n; j++) {
      if (!i || !j) {
        d[i][j] = i + j;
        continue;
      }
      int best = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
      if (d[i - 1][j] + 1 < best) best = d[i - 1][j] + 1;
      if (d[i][j - 1] + 1 < best) best = d[i][j - 1] + 1;
      bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
      if (swapped && d[i - 2][j - 2] + 1 < best) best = d[i - 2][j - 2] + 1;
      d[i][j] = best;
    }
  }
  return d[m][n];
}

/* ---- Messages ------------------------------------------------------------------ */

int ist_report_error(const ist_error *err) {
  ist_live_clear();
  fflush(stdout);
  ist_term t = ist_term_of(stderr);
  ist_print(&t, IST_BAD, "error:");
  fputc(' ', stderr);
  ist_put_text(stderr, err->message[0] ? err->message : ist_status_name(err->code), 0);
  fputc('\n', stderr);
  if (err->hint[0]) {
    ist_print(&t, IST_BOLD, "hint:");
    fputc(' ', stderr);
    ist_put_text(stderr, err->hint, 0);
    fputc('\n', stderr);
  }
  return err->code == IST_ERR_ARG ? 2 : 1;
}

void ist_warn(const char *fmt, ...) {
  char message[1200];
  va_list args;
  va_start(args, fmt);
  vsnprintf(message, sizeof message, fmt, args);
  va_end(args);
  ist_live_clear();
  fflush(stdout);
  fputs("warning: ", stderr);
  ist_put_text(stderr, message, 0);
  fputc('\n', stderr);
}

char *ist_read_all(FILE *from, const char *name, size_t *len, ist_error *err) {
  char *text = NULL;
  size_t cap = 0, n = 0;
  for (;;) {
    if (n + 1 >= cap) {
      char *more = realloc(text, cap = cap ? 2 * cap : 65536);
      if (!more) break;
      text = more;
    }
    size_t got = fread(text + n, 1, cap - n - 1, from);
    n += got;
    if (!got && !ferror(from)) {
      text[n] = '\0';
      *len = n;
      return text;
    }
    if (!got) break;
  }
  ist_cli_fail(err, ferror(from) ? IST_ERR_IO : IST_ERR_NOMEM, "%s: %s", name,
               ferror(from) ? strerror(errno) : "out of memory");
  free(text);
  return NULL;
}
