/* The steps of tokenizer.json before and behind the model: normalizer,
 * pre_tokenizer, decoder, post_processor. Each is an object with a `type`; a
 * Sequence holds others. */
#include <string.h>

#include "tokenizer/json_tokenizer.h"

enum {
  MAX_DEPTH = 8,
  MAX_PATTERNS = 8192, /* bytes of all expressions together, which take time to compile */
  MAX_AROUND = 256,    /* tokens before and behind a text, each */
  MAX_DECODED = 64 /* times: what a decoder writes for its pattern; usually one byte for three */
};

/* ---- Fields ---- */

ist_status ist_json_flag(const json_t *object, const char *field, bool absent, bool *out,
                         ist_error *err) {
  const json_t *v = ist_json_field(object, field);
  *out = v ? json_is_true(v) : absent;
  if (!v || json_is_boolean(v)) return IST_OK;
  return ist_fail(err, IST_ERR_FORMAT, "field '%s' is %s, expected true or false", field,
                  ist_json_kind(v));
}

ist_status ist_json_text(const json_t *object, const char *field, const char **out,
                         ist_error *err) {
  const json_t *v = ist_json_field(object, field);
  *out = json_string_value(v);
  if (*out) return IST_OK;
  return ist_fail(err, IST_ERR_FORMAT, "field '%s' is %s, expected a string", field,
                  ist_json_kind(v));
}

static ist_status unsupported(const char *what, const char *type, ist_error *err) {
  return ist_fail(err, IST_ERR_UNSUPPORTED, "%s of the type '%s' is not supported", what, type);
}

typedef ist_status (*step_fn)(ist_json_reader *r, const json_t *v, const char *type,
                              ist_error *err);

/* Calls `each` for a step, or for those of a Sequence (`list`), in order. */
static ist_status walk(ist_json_reader *r, const json_t *v, const char *list, step_fn each,
                       int depth, ist_error *err) {
  const char *type;
  if (!v) return IST_OK;
  if (!json_is_object(v) || depth > MAX_DEPTH)
    return ist_fail(err, IST_ERR_FORMAT, "%s is %s, expected an object nested at most %d deep",
                    list, ist_json_kind(v), MAX_DEPTH);
  IST_TRY(ist_json_text(v, "type", &type, err));
  if (strcmp(type, "Sequence") != 0) return each(r, v, type, err);
  const json_t *items = ist_json_field(v, list);
  if (!json_is_array(items))
    return ist_fail(err, IST_ERR_FORMAT, "field '%s' is %s, expected a list", list,
                    ist_json_kind(items));
  for (size_t i = 0; i < json_array_size(items); i++)
    IST_TRY(walk(r, json_array_get(items, i), list, each, depth + 1, err));
  return IST_OK;
}

/* A pattern, {"String": s} or {"Regex": s}. */
static ist_status read_pattern(const json_t *v, const char **text, bool *is_regex, ist_error *err) {
  const json_t *pattern = ist_json_field(v, "pattern");
  const json_t *string = ist_json_field(pattern, "String");
  const json_t *regex = ist_json_field(pattern, "Regex");
  *is_regex = json_is_string(regex);
  *text = json_string_value(*is_regex ? regex : string);
  if (*text) return IST_OK;
  return ist_fail(err, IST_ERR_FORMAT,
                  "field 'pattern' is %s, expected an object with String or Regex",
                  ist_json_kind(pattern));
}

/* ---- normalizer ---- */

static ist_status set_text(char **out, const char *text, ist_error *err) {
  *out = ist_strdup(text);
  return *out ? IST_OK : ist_fail_nomem(err, "the tokenizer", strlen(text) + 1);
}

static ist_status count_pattern(ist_json_reader *r, const char *pattern, ist_error *err) {
  r->patterns += strlen(pattern);
  if (r->patterns <= MAX_PATTERNS) return IST_OK;
  return ist_fail(err, IST_ERR_UNSUPPORTED,
                  "regular expressions of more than %d bytes in all are not supported",
                  MAX_PATTERNS);
}

static ist_status read_replace(ist_json_reader *r, ist_norm_step *step, const json_t *v,
                               ist_error *err) {
  const char *pattern, *content;
  IST_TRY(read_pattern(v, &pattern, &step->is_regex, err));
  IST_TRY(ist_json_text(v, "content", &content, err));
  step->kind = IST_NORM_REPLACE;
  IST_TRY(set_text(&step->from, pattern, err));
  IST_TRY(set_text(&step->to, content, err));
  if (!step->is_regex) return IST_OK;
  IST_TRY(count_pattern(r, pattern, err));
  return ist_regex_compile(&step->regex, pattern, strlen(pattern), false, err);
}

static ist_status add_normalizer(ist_json_reader *r, const json_t *v, const char *type,
                                 ist_error *err) {
  static const struct {
    const char *type;
    ist_norm_kind kind;
  } kinds[] = {{"NFC", IST_NORM_NFC},         {"NFD", IST_NORM_NFD},
               {"NFKC", IST_NORM_NFKC},       {"NFKD", IST_NORM_NFKD},
               {"Lowercase", IST_NORM_LOWER}, {"Strip", IST_NORM_STRIP},
               {"Prepend", IST_NORM_PREPEND}, {"Replace", IST_NORM_REPLACE}};
  const char *text;
  ist_norm *norm = &r->t->norm;
  size_t k = 0;
  while (k < sizeof kinds / sizeof kinds[0] && strcmp(kinds[k].type, type) != 0) k++;
  if (k == sizeof kinds / sizeof kinds[0]) return unsupported("a normalizer", type, err);
  if (norm->n == IST_NORM_MAX)
    return ist_fail(err, IST_ERR_UNSUPPORTED, "more than %d normalizers", IST_NORM_MAX);
  ist_norm_step *step = &norm->step[norm->n++];
  *step = (ist_norm_step){.kind = kinds[k].kind};
  switch (step->kind) {
    case IST_NORM_REPLACE: return read_replace(r, step, v, err);
    case IST_NORM_PREPEND:
      IST_TRY(ist_json_text(v, "prepend", &text, err));
      return set_text(&step->to, text, err);
    case IST_NORM_STRIP:
      IST_TRY(ist_json_flag(v, "strip_left", true, &step->left, err));
      return ist_json_flag(v, "strip_right", true, &step->right, err);
    default: return IST_OK;
  }
}

ist_status ist_json_read_normalizer(ist_json_reader *r, const json_t *v, ist_error *err) {
  return walk(r, v, "normalizers", add_normalizer, 0, err);
}

/* ---- pre_tokenizer ---- */

static ist_status read_behavior(const json_t *v, ist_split_behavior *out, ist_error *err) {
  static const char *const names[] = {[IST_SPLIT_ISOLATED] = "Isolated",
                                      [IST_SPLIT_REMOVED] = "Removed",
                                      [IST_SPLIT_PREVIOUS] = "MergedWithPrevious",
                                      [IST_SPLIT_NEXT] = "MergedWithNext",
                                      [IST_SPLIT_CONTIGUOUS] = "Contiguous"};
  const char *name;
  IST_TRY(ist_json_text(v, "behavior", &name, err));
  for (int k = 0; k <= IST_SPLIT_CONTIGUOUS; k++) {
    if (strcmp(names[k], name) != 0) continue;
    *out = (ist_split_behavior)k;
    return IST_OK;
  }
  return unsupported("a split behavior", name, err);
}

/* Adds a step that splits; behind ByteLevel it sees mapped text. */
static ist_status add_regex(ist_json_reader *r, const char *pattern, ist_split_behavior behavior,
                            ist_error *err) {
  ist_pre *pre = &r->t->pre;
  IST_TRY(count_pattern(r, pattern, err));
  IST_TRY(ist_pre_add_regex(pre, IST_PRE_SPLIT, pattern, behavior, err));
  pre->step[pre->n - 1].mapped = r->byte_level;
  return IST_OK;
}

/* A regular expression for just this text. */
static ist_status add_literal(ist_json_reader *r, const char *text, ist_split_behavior behavior,
                              ist_error *err) {
  ist_buf pattern = {0};
  for (const char *c = text; *c; c++) {
    if (strchr("\\^$.[]|()?*+{}", *c)) ist_buf_str(&pattern, "\\");
    ist_buf_add(&pattern, c, 1);
  }
  ist_status status = pattern.len == 0 || pattern.failed
                          ? ist_fail(err, IST_ERR_FORMAT, "an empty pattern")
                          : add_regex(r, pattern.p, behavior, err);
  ist_buf_free(&pattern);
  return status;
}

static ist_status add_split(ist_json_reader *r, const json_t *v, ist_error *err) {
  const char *pattern;
  bool is_regex, invert;
  ist_split_behavior behavior = IST_SPLIT_ISOLATED;
  IST_TRY(read_pattern(v, &pattern, &is_regex, err));
  IST_TRY(read_behavior(v, &behavior, err));
  IST_TRY(ist_json_flag(v, "invert", false, &invert, err));
  if (invert && (behavior == IST_SPLIT_PREVIOUS || behavior == IST_SPLIT_NEXT))
    return unsupported("an inverted split", "MergedWith", err);
  IST_TRY(is_regex ? add_regex(r, pattern, behavior, err) : add_literal(r, pattern, behavior, err));
  r->t->pre.step[r->t->pre.n - 1].invert = invert;
  return IST_OK;
}

static ist_status add_plain(ist_json_reader *r, ist_pre_step step, ist_error *err) {
  ist_pre *pre = &r->t->pre;
  if (pre->n == IST_PRE_MAX)
    return ist_fail(err, IST_ERR_UNSUPPORTED, "more than %d pre-tokenising steps", IST_PRE_MAX);
  pre->step[pre->n++] = step;
  return IST_OK;
}

static ist_status add_byte_level(ist_json_reader *r, const json_t *v, ist_error *err) {
  bool prefix, by_regex;
  if (r->byte_level) return unsupported("a second pre_tokenizer", "ByteLevel", err);
  IST_TRY(ist_json_flag(v, "add_prefix_space", true, &prefix, err));
  IST_TRY(ist_json_flag(v, "use_regex", true, &by_regex, err));
  if (prefix) IST_TRY(add_plain(r, (ist_pre_step){.kind = IST_PRE_SPACE}, err));
  if (by_regex)
    IST_TRY(ist_pre_add_regex(&r->t->pre, IST_PRE_TILE, ist_pre_gpt2, IST_SPLIT_ISOLATED, err));
  r->byte_level = true;
  return IST_OK;
}

static ist_status read_scheme(const json_t *v, int *when, ist_error *err) {
  static const char *const names[] = {
      [IST_MARK_NEVER] = "never", [IST_MARK_FIRST] = "first", [IST_MARK_ALWAYS] = "always"};
  bool prefix;
  IST_TRY(ist_json_flag(v, "add_prefix_space", true, &prefix, err));
  *when = prefix ? IST_MARK_ALWAYS : IST_MARK_NEVER;
  const char *name = json_string_value(ist_json_field(v, "prepend_scheme"));
  if (!name) return IST_OK;
  for (int k = 0; k <= IST_MARK_ALWAYS; k++) {
    if (strcmp(names[k], name) != 0) continue;
    *when = k;
    return IST_OK;
  }
  return unsupported("a prepend_scheme", name, err);
}

static ist_status add_metaspace(ist_json_reader *r, const json_t *v, ist_error *err) {
  const char *mark;
  bool split;
  int when;
  ist_pre_step step = {.kind = IST_PRE_MARK};
  IST_TRY(ist_json_text(v, "replacement", &mark, err));
  IST_TRY(ist_json_flag(v, "split", true, &split, err));
  IST_TRY(read_scheme(v, &when, err));
  if (strlen(mark) >= sizeof step.mark || !*mark || r->byte_level)
    return unsupported("a Metaspace with the replacement", mark, err);
  strcpy(step.mark, mark);
  step.when = when;
  IST_TRY(add_plain(r, step, err));
  return split ? add_literal(r, mark, IST_SPLIT_NEXT, err) : IST_OK;
}

static ist_status add_pre_tokenizer(ist_json_reader *r, const json_t *v, const char *type,
                                    ist_error *err) {
  bool each;
  ist_split_behavior behavior;
  if (strcmp(type, "Split") == 0) return add_split(r, v, err);
  if (strcmp(type, "ByteLevel") == 0) return add_byte_level(r, v, err);
  if (strcmp(type, "Metaspace") == 0) return add_metaspace(r, v, err);
  if (strcmp(type, "Digits") == 0) {
    IST_TRY(ist_json_flag(v, "individual_digits", false, &each, err));
    return add_regex(r, each ? "\\p{N}" : "\\p{N}+", IST_SPLIT_ISOLATED, err);
  }
  if (strcmp(type, "Punctuation") == 0) {
    behavior = IST_SPLIT_ISOLATED;
    if (ist_json_field(v, "behavior")) IST_TRY(read_behavior(v, &behavior, err));
    return add_regex(r, "[\\p{P}$+<=>^`|~]", behavior, err);
  }
  if (strcmp(type, "WhitespaceSplit") == 0) return add_regex(r, "\\s+", IST_SPLIT_REMOVED, err);
  if (strcmp(type, "Whitespace") == 0) {
    /* Word characters here have the joiners among them, which Oniguruma's do not. */
    IST_TRY(add_regex(r, "[\\w\\x{200c}\\x{200d}]+|[^\\w\\x{200c}\\x{200d}\\s]+", IST_SPLIT_REMOVED,
                      err));
    r->t->pre.step[r->t->pre.n - 1].invert = true;
    return IST_OK;
  }
  return unsupported("a pre_tokenizer", type, err);
}

ist_status ist_json_read_pre_tokenizer(ist_json_reader *r, const json_t *v, ist_error *err) {
  return walk(r, v, "pretokenizers", add_pre_tokenizer, 0, err);
}

/* ---- decoder ---- */

static ist_status decode_replace(ist_decoding *d, const char *from, const char *to,
                                 ist_error *err) {
  if (d->from) return unsupported("a second decoder", "Replace", err);
  if (strlen(to) / MAX_DECODED > strlen(from))
    return ist_fail(err, IST_ERR_UNSUPPORTED,
                    "a decoder that writes %zu bytes for %zu, expected at most %d times as many",
                    strlen(to), strlen(from), MAX_DECODED);
  IST_TRY(set_text(&d->from, from, err));
  return set_text(&d->to, to, err);
}

static ist_status decode_strip(ist_decoding *d, const json_t *v, ist_error *err) {
  const char *content;
  IST_TRY(ist_json_text(v, "content", &content, err));
  json_int_t begin = json_integer_value(json_object_get(v, "start"));
  json_int_t end = json_integer_value(json_object_get(v, "stop"));
  if (strlen(content) != 1 || begin < 0 || end < 0 || begin > 1000000 || end > 1000000)
    return ist_fail(err, IST_ERR_UNSUPPORTED,
                    "a Strip decoder of '%s' (%lld, %lld), expected one character", content,
                    (long long)begin, (long long)end);
  d->strip = *content;
  d->strip_begin = (int)begin;
  d->strip_end = (int)end;
  return IST_OK;
}

static ist_status add_decoder(ist_json_reader *r, const json_t *v, const char *type,
                              ist_error *err) {
  ist_decoding *d = &r->t->decoding;
  const char *from, *to;
  bool is_regex;
  int when;
  d->spaced = false;
  if (strcmp(type, "Fuse") == 0 && d->strip) return IST_OK;
  if (d->strip) return unsupported("a decoder behind Strip", type, err);
  if (strcmp(type, "ByteLevel") == 0 || strcmp(type, "Fuse") == 0) {
    d->strip_whole = true; /* from here on the tokens are one text */
    return IST_OK;
  }
  if (strcmp(type, "Strip") == 0) return decode_strip(d, v, err);
  if (strcmp(type, "ByteFallback") == 0) {
    d->byte_tokens = true;
    return IST_OK;
  }
  if (strcmp(type, "Replace") == 0) {
    IST_TRY(read_pattern(v, &from, &is_regex, err));
    IST_TRY(ist_json_text(v, "content", &to, err));
    if (is_regex) return unsupported("a decoder by regular expression", from, err);
    return decode_replace(d, from, to, err);
  }
  if (strcmp(type, "Metaspace") == 0) {
    IST_TRY(ist_json_text(v, "replacement", &from, err));
    IST_TRY(read_scheme(v, &when, err));
    d->first_loses = when != IST_MARK_NEVER;
    return decode_replace(d, from, " ", err);
  }
  return unsupported("a decoder", type, err);
}

ist_status ist_json_read_decoder(ist_json_reader *r, const json_t *v, ist_error *err) {
  r->t->decoding.spaced = true; /* without a decoder tokens stand apart */
  return walk(r, v, "decoders", add_decoder, 0, err);
}

/* ---- post_processor: what goes before and behind a text ---- */

static ist_status put_id(ist_json_reader *r, ist_ids *ids, const json_t *id, const char *name,
                         ist_error *err) {
  json_int_t value = json_is_integer(id) ? json_integer_value(id) : -1;
  if (value < 0 || value >= r->t->vocab.n)
    return ist_fail(err, IST_ERR_FORMAT, "the post_processor names '%s', which is no token", name);
  if (ids->n == MAX_AROUND)
    return ist_fail(err, IST_ERR_UNSUPPORTED,
                    "a post_processor that puts more than %d tokens before or behind a text is not "
                    "supported",
                    MAX_AROUND);
  return ist_ids_add(ids, (int32_t)value, err);
}

/* A special token of a template may stand for several. */
static ist_status put_special(ist_json_reader *r, ist_ids *ids, const json_t *template,
                              const json_t *special, ist_error *err) {
  const char *name;
  IST_TRY(ist_json_text(special, "id", &name, err));
  const json_t *list =
      json_object_get(json_object_get(json_object_get(template, "special_tokens"), name), "ids");
  if (json_array_size(list) == 0) return put_id(r, ids, NULL, name, err);
  for (size_t i = 0; i < json_array_size(list); i++)
    IST_TRY(put_id(r, ids, json_array_get(list, i), name, err));
  return IST_OK;
}

/* The text itself occurs once, as sequence A. Its type ids, and what becomes of a
 * pair of texts, mean nothing to a language model. */
static ist_status read_template(ist_json_reader *r, const json_t *v, ist_error *err) {
  const json_t *single = ist_json_field(v, "single");
  bool behind = false;
  if (!json_is_array(single))
    return ist_fail(err, IST_ERR_FORMAT, "field 'single' is %s, expected a list",
                    ist_json_kind(single));
  for (size_t i = 0; i < json_array_size(single); i++) {
    const json_t *item = json_array_get(single, i);
    const json_t *special = ist_json_field(item, "SpecialToken");
    if (special) {
      IST_TRY(put_special(r, behind ? &r->t->behind : &r->t->before, v, special, err));
      continue;
    }
    const char *sequence =
        json_string_value(ist_json_field(ist_json_field(item, "Sequence"), "id"));
    if (behind || !sequence || strcmp(sequence, "A") != 0)
      return ist_fail(err, IST_ERR_FORMAT, "field 'single', part %zu: expected %s", i + 1,
                      behind ? "a SpecialToken behind the text" : "a SpecialToken or Sequence A");
    behind = true;
  }
  if (behind) return IST_OK;
  return ist_fail(err, IST_ERR_FORMAT, "field 'single' does not hold Sequence A, the text");
}

/* A pair of a token's text and id. */
static ist_status put_pair(ist_json_reader *r, ist_ids *ids, const json_t *v, const char *field,
                           ist_error *err) {
  return put_id(r, ids, json_array_get(ist_json_field(v, field), 1), field, err);
}

static ist_status add_post_processor(ist_json_reader *r, const json_t *v, const char *type,
                                     ist_error *err) {
  if (strcmp(type, "ByteLevel") == 0) return IST_OK; /* moves offsets only */
  /* The tokens of one make a second take the text for a pair. */
  if (r->surrounded) return unsupported("a second post_processor", type, err);
  if (strcmp(type, "TemplateProcessing") == 0) {
    IST_TRY(read_template(r, v, err));
  } else if (strcmp(type, "RobertaProcessing") == 0 || strcmp(type, "BertProcessing") == 0) {
    IST_TRY(put_pair(r, &r->t->before, v, "cls", err));
    IST_TRY(put_pair(r, &r->t->behind, v, "sep", err));
  } else {
    return unsupported("a post_processor", type, err);
  }
  r->surrounded = r->t->before.n + r->t->behind.n > 0;
  return IST_OK;
}

ist_status ist_json_read_post_processor(ist_json_reader *r, const json_t *v, ist_error *err) {
  return walk(r, v, "processors", add_post_processor, 0, err);
}
