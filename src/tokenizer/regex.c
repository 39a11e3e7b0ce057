/* Regular expressions: compiling and matching with PCRE2. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <string.h>
#include <time.h>

#include <utf8proc.h>

#include "tokenizer/internal.h"

enum {
  MAX_PATTERN = 4096, /* real ones have some hundred bytes; a class of 20 compiles in 4 ms */
  /* Of a match at one place. PCRE2's own limits are 10 million backtracks and 20 GB: a pattern of
   * a file could take seconds and all memory. An honest one backtracks once for each character of
   * a long run of white space. */
  MAX_BACKTRACKS = 4000000,
  MAX_HEAP_KIB = 64 << 10,
  FREE_BACKTRACKS = 1024 /* at every place of a first search; where it is more, it is watched */
};

static void *pcre_alloc(PCRE2_SIZE size, void *user) {
  (void)user;
  return ist_calloc(size, 1);
}
static void pcre_free(void *p, void *user) {
  (void)user;
  ist_free(p);
}

static ist_status compile(ist_regex *r, const ist_buf *text, bool anchored, int *code) {
  PCRE2_SIZE offset = 0;
  pcre2_compile_context *context = NULL;
  r->memory = pcre2_general_context_create(pcre_alloc, pcre_free, NULL);
  if (r->memory) context = pcre2_compile_context_create(r->memory);
  if (context) {
    /* \C would match one byte of a character and leave text that is no UTF-8. */
    const uint32_t options =
        PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C | PCRE2_USE_OFFSET_LIMIT;
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    pcre2_set_parens_nest_limit(context, 100);
    r->code = pcre2_compile((PCRE2_SPTR)text->p, text->len,
                            options | (anchored ? PCRE2_ANCHORED : 0), code, &offset, context);
  }
  pcre2_compile_context_free(context);
  if (!r->code) return IST_ERR_FORMAT;
  *code = 0;
  r->limits = pcre2_match_context_create(r->memory);
  if (!r->limits) return IST_ERR_NOMEM;
  pcre2_set_match_limit(r->limits, FREE_BACKTRACKS);
  pcre2_set_heap_limit(r->limits, MAX_HEAP_KIB);
  return IST_OK;
}

ist_status ist_regex_compile(ist_regex *r, const char *pattern, size_t len, bool anchored,
                             ist_error *err) {
  *r = (ist_regex){0};
  int shown = len < 200 ? (int)len : 200, code = 0;
  if (len > MAX_PATTERN)
    return ist_fail(err, IST_ERR_UNSUPPORTED,
                    "a regular expression of %zu bytes, expected at most %d", len, MAX_PATTERN);
  ist_buf text = {0};
  ist_status status = ist_regex_translate(&text, pattern, len, err);
  if (status == IST_OK && compile(r, &text, anchored, &code) != IST_OK) {
    if (code == 0 || code == PCRE2_ERROR_HEAP_FAILED)
      status = ist_fail_nomem(err, "a regular expression", len);
    else
      status = ist_fail(err, IST_ERR_UNSUPPORTED,
                        "the regular expression '%.*s' does not compile: PCRE2 error %d", shown,
                        pattern, code);
  }
  ist_buf_free(&text);
  if (status != IST_OK) {
    ist_regex_free(r);
    return status;
  }
  /* Without a JIT for this machine the matcher interprets: slower, the same matches. */
  r->jit = pcre2_jit_compile(r->code, PCRE2_JIT_COMPLETE) == 0;
  return IST_OK;
}

void ist_regex_free(ist_regex *r) {
  pcre2_match_context_free(r->limits);
  pcre2_code_free(r->code);
  pcre2_general_context_free(r->memory);
  *r = (ist_regex){0};
}

size_t ist_regex_bytes(const ist_regex *r) {
  size_t size = 0, jit = 0;
  if (!r->code) return 0;
  pcre2_pattern_info(r->code, PCRE2_INFO_SIZE, &size);
  pcre2_pattern_info(r->code, PCRE2_INFO_JITSIZE, &jit);
  return size + jit;
}

ist_regex_match *ist_regex_match_new(const ist_regex *r) {
  return pcre2_match_data_create(1, r->memory);
}
void ist_regex_match_free(ist_regex_match *m) {
  pcre2_match_data_free(m);
}

static ist_status match_failed(int code, size_t len, size_t from, ist_error *err) {
  switch (code) {
    case PCRE2_ERROR_NOMEMORY: return ist_fail_nomem(err, "splitting a text", len);
    case PCRE2_ERROR_MATCHLIMIT:
      return ist_fail(err, IST_ERR_DATA,
                      "a regular expression of the tokenizer backtracks more than %d times at byte "
                      "%zu of a text",
                      MAX_BACKTRACKS, from);
    case PCRE2_ERROR_HEAPLIMIT:
      return ist_fail(err, IST_ERR_DATA,
                      "a regular expression of the tokenizer needs more than %d KiB at byte %zu of "
                      "a text",
                      MAX_HEAP_KIB, from);
    default:
      return ist_fail(err, IST_ERR_DATA, "a text could not be split: PCRE2 error %d at byte %zu",
                      code, from);
  }
}

/* PCRE2's result of a search from `from`, without machine code. */
static int interpret(const ist_regex *r, ist_regex_match *m, const char *text, size_t len,
                     size_t from, pcre2_match_context *limits) {
  const uint32_t options = PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT;
  return pcre2_match(r->code, (PCRE2_SPTR)text, len, from, options, m, limits);
}

/* With machine code where its stack suffices. */
static int search(const ist_regex *r, ist_regex_match *m, const char *text, size_t len, size_t from,
                  pcre2_match_context *limits) {
  int n = PCRE2_ERROR_JIT_STACKLIMIT;
  if (r->jit) n = pcre2_jit_match(r->code, (PCRE2_SPTR)text, len, from, 0, m, limits);
  return n == PCRE2_ERROR_JIT_STACKLIMIT ? interpret(r, m, text, len, from, limits) : n;
}

static double seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

enum { OUT_OF_TIME = INT32_MIN }; /* none of the results of PCRE2 */

/* A search by stretches of places where a match may begin, each with more backtracks where there
 * are too few, and the clock in between. Stretches are as long as they are quick: PCRE2 learns
 * from one place for the next. *from moves to the begin of the last. */
static int search_watched(const ist_regex *r, ist_regex_match *m, const char *text, size_t len,
                          size_t *from, ist_growth *growth) {
  const double quick = 0.02, slow = 0.1;
  size_t places = 64;
  uint32_t most = FREE_BACKTRACKS;
  pcre2_match_context *limits = pcre2_match_context_copy(r->limits);
  int n = limits ? PCRE2_ERROR_NOMATCH : PCRE2_ERROR_NOMEMORY;
  for (double before = seconds(), took; *from <= len && n == PCRE2_ERROR_NOMATCH; before += took) {
    size_t last = len - *from > places ? *from + places : len;
    pcre2_set_offset_limit(limits, last);
    pcre2_set_match_limit(limits, most);
    n = search(r, m, text, len, *from, limits);
    took = seconds() - before;
    growth->seconds -= took;
    if (n == PCRE2_ERROR_MATCHLIMIT && most < MAX_BACKTRACKS) {
      most = most < MAX_BACKTRACKS / 8 ? 8 * most : MAX_BACKTRACKS;
      n = growth->seconds < 0 ? OUT_OF_TIME : PCRE2_ERROR_NOMATCH;
    } else if (n == PCRE2_ERROR_NOMATCH) {
      for (*from = last + 1; *from < len && ((unsigned char)text[*from] & 0xc0) == 0x80;) ++*from;
      if (*from < len && growth->seconds < 0) n = OUT_OF_TIME;
      places = took < quick ? 2 * places : took > slow ? places / 2 + 1 : places;
    }
  }
  pcre2_match_context_free(limits);
  return n;
}

/* What the first search did not do: it needs more of the stack than machine code has, or has
 * backtracked more often than it may unwatched. */
static int search_again(const ist_regex *r, ist_regex_match *m, const char *text, size_t len,
                        size_t *from, int n, ist_growth *growth) {
  if (n == PCRE2_ERROR_JIT_STACKLIMIT) n = interpret(r, m, text, len, *from, r->limits);
  return n == PCRE2_ERROR_MATCHLIMIT ? search_watched(r, m, text, len, from, growth) : n;
}

static ist_status no_match(int n, size_t len, size_t place, ist_error *err) {
  if (n == PCRE2_ERROR_NOMATCH) return IST_OK;
  if (n != OUT_OF_TIME) return match_failed(n, len, place, err);
  return ist_fail(err, IST_ERR_DATA,
                  "the regular expressions of the tokenizer take too long at byte %zu of a text",
                  place);
}

/* The first match in [text + from, text + len). */
static ist_status find(const ist_regex *r, ist_regex_match *m, const char *text, size_t len,
                       size_t from, ist_regex_hit *hit, ist_growth *growth, ist_error *err) {
  int n = PCRE2_ERROR_JIT_STACKLIMIT;
  *hit = (ist_regex_hit){len, len, false};
  if (r->jit) n = pcre2_jit_match(r->code, (PCRE2_SPTR)text, len, from, 0, m, r->limits);
  if (n < 0 && n != PCRE2_ERROR_NOMATCH) {
    size_t place = from;
    n = search_again(r, m, text, len, &place, n, growth);
    if (n < 0) return no_match(n, len, place, err);
  }
  if (n == PCRE2_ERROR_NOMATCH) return IST_OK;
  const PCRE2_SIZE *at = pcre2_get_ovector_pointer(m);
  *hit = (ist_regex_hit){at[0], at[1], true};
  return IST_OK;
}

ist_status ist_regex_next(const ist_regex *r, ist_regex_match *m, const char *text, size_t len,
                          ist_regex_hit *hit, ist_growth *growth, ist_error *err) {
  ist_regex_hit last = *hit;
  IST_TRY(find(r, m, text, len, last.end, hit, growth, err));
  if (!last.found || hit->end > last.end || !hit->found) return IST_OK;
  /* Nothing, right behind the last match: that place is passed over. */
  size_t from = last.end;
  if (from == len) {
    hit->found = false;
    return IST_OK;
  }
  do from++;
  while (from < len && ((unsigned char)text[from] & 0xc0) == 0x80);
  return find(r, m, text, len, from, hit, growth, err);
}

const char *ist_skip_valid(const char *p, const char *end) {
  while (p < end) {
    uint64_t w;
    if (end - p >= 8 && (memcpy(&w, p, 8), (w & UINT64_C(0x8080808080808080)) == 0)) {
      p += 8;
      continue;
    }
    utf8proc_int32_t c;
    utf8proc_ssize_t size =
        utf8proc_iterate((const utf8proc_uint8_t *)p, (utf8proc_ssize_t)(end - p), &c);
    if (size <= 0) break;
    p += size;
  }
  return p;
}
