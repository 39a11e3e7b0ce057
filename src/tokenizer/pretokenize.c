/* Splits text into the pieces that BPE works on. Each step splits the pieces of
 * the one before it; the iterator goes through them depth first, so that nothing
 * but one piece a step is kept. */
#include <string.h>

#include "tokenizer/internal.h"

typedef struct ist_piece_level level;

ist_status ist_pre_add_regex(ist_pre *pre, ist_pre_kind kind, const char *pattern,
                             ist_split_behavior behavior, ist_error *err) {
  if (pre->n == IST_PRE_MAX)
    return ist_fail(err, IST_ERR_UNSUPPORTED, "more than %d pre-tokenising steps", IST_PRE_MAX);
  ist_pre_step *step = &pre->step[pre->n];
  *step = (ist_pre_step){.kind = kind, .behavior = behavior};
  IST_TRY(ist_regex_compile(&step->regex, pattern, strlen(pattern), kind == IST_PRE_TILE, err));
  pre->n++;
  return IST_OK;
}

void ist_pre_free(ist_pre *pre) {
  for (int i = 0; i < pre->n; i++) ist_regex_free(&pre->step[i].regex);
  *pre = (ist_pre){0};
}

size_t ist_pre_bytes(const ist_pre *pre) {
  size_t bytes = sizeof *pre;
  for (int i = 0; i < pre->n; i++) bytes += ist_regex_bytes(&pre->step[i].regex);
  return bytes;
}

ist_status ist_pieces_init(ist_pieces *it, const ist_pre *pre, ist_error *err) {
  *it = (ist_pieces){.pre = pre, .growth = ist_growth_of(0)};
  for (int i = 0; i < pre->n; i++) {
    if (!pre->step[i].regex.code) continue;
    it->level[i].match = ist_regex_match_new(&pre->step[i].regex);
    if (!it->level[i].match) return ist_fail_nomem(err, "splitting a text", sizeof *it);
  }
  return IST_OK;
}

void ist_pieces_free(ist_pieces *it) {
  for (int i = 0; it->pre && i < it->pre->n; i++) {
    ist_regex_match_free(it->level[i].match);
    ist_buf_free(&it->level[i].text);
  }
  *it = (ist_pieces){0};
}

void ist_pieces_start(ist_pieces *it, const char *text, size_t len, bool first, bool continued) {
  it->at = text;
  it->end = text + len;
  it->valid_end = ist_skip_valid(text, it->end);
  it->first = first;
  it->continued = continued;
  for (int i = 0; i < it->pre->n; i++) it->level[i].p = it->level[i].end = NULL;
}

/* ---- One step ---- */

static bool begins_with(const char *p, const char *end, const char *prefix) {
  size_t n = strlen(prefix);
  return (size_t)(end - p) >= n && memcmp(p, prefix, n) == 0;
}

/* Where a piece stands. */
typedef enum piece_place { INSIDE, FIRST, CONTINUED } piece_place;

/* Spaces become marks, and one goes in front; no further than to a text longer than `most`. */
static void rewrite_marks(level *l, const ist_pre_step *step, const char *p, const char *end,
                          piece_place place, size_t most) {
  ist_buf_clear(&l->text);
  bool marked = p < end && (*p == ' ' || begins_with(p, end, step->mark));
  bool wanted = step->when == IST_MARK_ALWAYS ? place != CONTINUED
                                              : step->when == IST_MARK_FIRST && place == FIRST;
  if (!marked && wanted) ist_buf_str(&l->text, step->mark);
  while (p < end && l->text.len <= most) {
    const char *space = memchr(p, ' ', (size_t)(end - p));
    if (!space) space = end;
    ist_buf_add(&l->text, p, (size_t)(space - p));
    if (space < end) ist_buf_str(&l->text, step->mark);
    p = space < end ? space + 1 : end;
  }
}

/* Gives a step a piece to split. */
static ist_status begin(level *l, const ist_pre_step *step, const char *p, size_t len,
                        piece_place place, ist_growth *growth, ist_error *err) {
  const char *end = p + len;
  bool rewritten = true;
  l->found = false;
  l->hit = (ist_regex_hit){0};
  l->origin = p;
  l->counted = NULL;
  if (step->kind == IST_PRE_MARK) {
    rewrite_marks(l, step, p, end, place, len + growth->left);
  } else if (step->kind == IST_PRE_SPACE && *p != ' ' && place != CONTINUED) {
    ist_buf_clear(&l->text);
    ist_buf_str(&l->text, " ");
    ist_buf_add(&l->text, p, len);
  } else if (step->mapped) {
    ist_buf_clear(&l->text);
    ist_spell_bytes(&l->text, p, len);
  } else {
    rewritten = false;
  }
  if (rewritten && l->text.failed) return ist_fail_nomem(err, "splitting a text", len);
  if (rewritten) IST_TRY(ist_growth_take(growth, len, l->text.len, err));
  l->begin = l->p = rewritten ? l->text.p : p;
  l->end = l->p + (rewritten ? l->text.len : len);
  return IST_OK;
}

/* The match behind the last. */
static ist_status find(level *l, const ist_pre_step *step, ist_growth *growth, ist_error *err) {
  IST_TRY(ist_regex_next(&step->regex, l->match, l->begin, (size_t)(l->end - l->begin), &l->hit,
                         growth, err));
  l->match_at = l->begin + l->hit.begin;
  l->match_end = l->begin + l->hit.end;
  l->found = true;
  return IST_OK;
}

/* The next match is a piece; what becomes of its neighbours is the behaviour's. */
static ist_status take_match(level *l, const ist_pre_step *step, const char **piece,
                             const char **end, ist_growth *growth, ist_error *err) {
  *piece = l->match_at;
  l->p = *end = l->match_end;
  IST_TRY(find(l, step, growth, err));
  if (step->behavior == IST_SPLIT_NEXT && l->match_at > l->p) l->p = *end = l->match_at;
  while (step->behavior == IST_SPLIT_CONTIGUOUS && l->match_at == l->p && l->p < l->end) {
    l->p = *end = l->match_end;
    IST_TRY(find(l, step, growth, err));
  }
  return IST_OK;
}

static ist_status next_split(level *l, const ist_pre_step *step, const char **piece,
                             const char **end, ist_growth *growth, ist_error *err) {
  *piece = *end = l->end;
  while (l->p < l->end) {
    if (!l->found) IST_TRY(find(l, step, growth, err));
    bool gap = l->match_at > l->p;
    *piece = l->p;
    if (gap) {
      *end = l->p = l->match_at;
      if (step->behavior == IST_SPLIT_PREVIOUS && l->match_at < l->end) {
        *end = l->p = l->match_end;
        l->found = false;
      }
    } else {
      IST_TRY(take_match(l, step, piece, end, growth, err));
    }
    if (*end == *piece) continue; /* an empty match divides only */
    if (step->behavior != IST_SPLIT_REMOVED || gap != step->invert) return IST_OK;
  }
  *piece = *end;
  return IST_OK;
}

/* To the next mark that follows something else. */
static void next_marked_word(level *l, const char **piece, const char **end) {
  *piece = l->p;
  while (begins_with(l->p, l->end, IST_MARK)) l->p += sizeof IST_MARK - 1;
  while (l->p < l->end) {
    l->p = memchr(l->p, IST_MARK[0], (size_t)(l->end - l->p));
    if (!l->p) l->p = l->end;
    if (begins_with(l->p, l->end, IST_MARK)) break;
    if (l->p < l->end) l->p++;
  }
  *end = l->p;
}

/* Moves `origin` as many bytes as there are characters up to `to`. */
static const char *count_to(level *l, const char *to) {
  if (!l->counted) l->counted = l->begin;
  for (; l->counted < to; l->counted++) l->origin += ((unsigned char)*l->counted & 0xc0) != 0x80;
  return l->origin;
}

/* The next piece that a step makes of its own; *end == *piece: there is no more. */
static ist_status step_next(level *l, const ist_pre_step *step, const char **piece,
                            const char **end, ist_growth *growth, ist_error *err) {
  *piece = l->p;
  *end = l->end;
  if (l->p == l->end) return IST_OK;
  switch (step->kind) {
    case IST_PRE_TILE: {
      IST_TRY(find(l, step, growth, err));
      /* An expression that does not match anywhere leaves a gap, a piece. */
      *end = l->p = l->match_end;
      l->found = false;
      break;
    }
    case IST_PRE_SPLIT: IST_TRY(next_split(l, step, piece, end, growth, err)); break;
    case IST_PRE_MARKED_WORDS: next_marked_word(l, piece, end); break;
    case IST_PRE_SPACE:
    case IST_PRE_MARK: l->p = l->end; break;
  }
  if (!step->mapped) return IST_OK;
  /* Back to the text before mapping, where every mapped character was one byte. */
  const char *mapped = *piece, *mapped_end = *end;
  *piece = count_to(l, mapped);
  *end = count_to(l, mapped_end);
  return IST_OK;
}

/* ---- All steps ---- */

/* The next piece of steps 0..k of the present stretch of valid UTF-8. */
static ist_status pull(ist_pieces *it, int k, const char **piece, size_t *len, ist_error *err) {
  if (k < 0) {
    *piece = it->at;
    *len = (size_t)(it->valid_end - it->at);
    it->at = it->valid_end;
    return IST_OK;
  }
  level *l = &it->level[k];
  const ist_pre_step *step = &it->pre->step[k];
  for (;;) {
    const char *end;
    IST_TRY(step_next(l, step, piece, &end, &it->growth, err));
    *len = (size_t)(end - *piece);
    if (*len > 0) return IST_OK;
    bool begins = it->at != it->valid_end;
    piece_place place = begins && it->first ? FIRST : begins && it->continued ? CONTINUED : INSIDE;
    IST_TRY(pull(it, k - 1, piece, len, err));
    if (*len == 0) return IST_OK;
    IST_TRY(begin(l, step, *piece, *len, place, &it->growth, err));
  }
}

ist_status ist_pieces_next(ist_pieces *it, const char **piece, size_t *len, ist_error *err) {
  for (;;) {
    IST_TRY(pull(it, it->pre->n - 1, piece, len, err));
    it->first = it->continued = false;
    if (*len > 0 || it->at == it->end) return IST_OK;
    if (it->at == it->valid_end) {
      *piece = it->at++;
      *len = 1;
      it->valid_end = ist_skip_valid(it->at, it->end);
      return IST_OK;
    }
  }
}
