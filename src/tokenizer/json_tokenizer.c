/* A tokenizer out of a Hugging Face folder: tokenizer.json's vocabulary, added
 * tokens and merges; its other parts are read by json_steps.c and json_config.c. */
#include <inttypes.h>
#include <string.h>

#include "tokenizer/json_tokenizer.h"

/* ---- Vocabulary ---- */

/* Ids may leave gaps, but not so many that a wrong one takes all memory. */
static int64_t max_tokens(size_t listed) {
  return 4 * (int64_t)listed + 65536;
}

static ist_status check_id(const json_t *id, const char *text, size_t listed, ist_error *err) {
  if (json_is_integer(id) && json_integer_value(id) >= 0 &&
      json_integer_value(id) < max_tokens(listed))
    return IST_OK;
  return ist_fail(
      err, IST_ERR_FORMAT,
      "the token '%.60s' has an id that is %s%s, expected a whole number below %" PRId64, text,
      ist_json_kind(id), json_is_integer(id) ? " out of range" : "", max_tokens(listed));
}

/* The number of ids there are. */
static ist_status count_tokens(const json_t *vocab, const json_t *added, int64_t *n,
                               ist_error *err) {
  size_t listed = json_object_size(vocab) + json_array_size(added);
  const char *text;
  json_t *id;
  *n = 0;
  json_object_foreach((json_t *)(uintptr_t)vocab, text, id) {
    IST_TRY(check_id(id, text, listed, err));
    if (json_integer_value(id) >= *n) *n = json_integer_value(id) + 1;
  }
  for (size_t i = 0; i < json_array_size(added); i++) {
    id = json_object_get(json_array_get(added, i), "id");
    IST_TRY(ist_json_text(json_array_get(added, i), "content", &text, err));
    IST_TRY(check_id(id, text, listed, err));
    if (json_integer_value(id) >= *n) *n = json_integer_value(id) + 1;
  }
  return *n > 0 ? IST_OK : ist_fail(err, IST_ERR_FORMAT, "the vocabulary has no tokens");
}

static ist_status put_text(ist_json_reader *r, json_int_t id, const char *text, ist_error *err) {
  ist_str *place = &r->tokens.text[id];
  if (place->len && (place->len != strlen(text) || memcmp(place->p, text, place->len) != 0))
    return ist_fail(err, IST_ERR_FORMAT, "the tokens '%.60s' and '%.60s' have the same id %lld",
                    place->p, text, (long long)id);
  *place = (ist_str){text, strlen(text)};
  return IST_OK;
}

static ist_status read_texts(ist_json_reader *r, const json_t *vocab, const json_t *added,
                             ist_error *err) {
  int64_t n;
  const char *text;
  json_t *id;
  IST_TRY(count_tokens(vocab, added, &n, err));
  r->tokens.n = n;
  r->tokens.text = ist_calloc((size_t)n, sizeof *r->tokens.text);
  if (!r->tokens.text) return ist_fail_nomem(err, "the vocabulary", (size_t)n * 16);
  json_object_foreach((json_t *)(uintptr_t)vocab, text, id)
      IST_TRY(put_text(r, json_integer_value(id), text, err));
  for (size_t i = 0; i < json_array_size(added); i++) {
    const json_t *token = json_array_get(added, i);
    IST_TRY(put_text(r, json_integer_value(json_object_get(token, "id")),
                     json_string_value(json_object_get(token, "content")), err));
  }
  IST_TRY(ist_strtab_init(&r->tokens.by_text, r->tokens.text, n, err));
  for (int32_t i = 0; i < n; i++) {
    if (r->tokens.text[i].len == 0) continue;
    int32_t other = ist_strtab_add(&r->tokens.by_text, i);
    if (other >= 0)
      return ist_fail(err, IST_ERR_FORMAT, "tokens %" PRId32 " and %" PRId32 " are both '%.60s'",
                      other, i, r->tokens.text[i].p);
  }
  return IST_OK;
}

/* ---- Added tokens ---- */

static ist_status read_added(ist_json_reader *r, const json_t *vocab, const json_t *token,
                             ist_error *err) {
  static const struct {
    const char *field;
    unsigned flag;
  } fields[] = {{"lstrip", IST_TOKEN_LSTRIP},
                {"rstrip", IST_TOKEN_RSTRIP},
                {"single_word", IST_TOKEN_WORD},
                {"normalized", IST_TOKEN_NORMALIZED}};
  bool special, set;
  IST_TRY(ist_json_flag(token, "special", false, &special, err));
  unsigned flags = special ? IST_TOKEN_CONTROL : IST_TOKEN_USER;
  for (size_t k = 0; k < sizeof fields / sizeof fields[0]; k++) {
    IST_TRY(ist_json_flag(token, fields[k].field,
                          fields[k].flag == IST_TOKEN_NORMALIZED && !special, &set, err));
    if (set) flags |= fields[k].flag;
  }
  /* Control tokens are markers: they are found as they are spelled. */
  if (special) flags &= ~(unsigned)IST_TOKEN_NORMALIZED;
  if (!json_object_get(vocab, json_string_value(json_object_get(token, "content"))))
    flags |= IST_TOKEN_ADDED;
  r->t->vocab.flags[json_integer_value(json_object_get(token, "id"))] = (uint16_t)flags;
  return IST_OK;
}

static ist_status read_all_added(ist_json_reader *r, const json_t *vocab, const json_t *added,
                                 ist_error *err) {
  for (size_t i = 0; i < json_array_size(added); i++) {
    const char *text = json_string_value(json_object_get(json_array_get(added, i), "content"));
    ist_status status = read_added(r, vocab, json_array_get(added, i), err);
    if (status != IST_OK) {
      ist_error_context(err, "added_tokens: '%.60s'", text);
      return status;
    }
  }
  return IST_OK;
}

/* ---- The model ---- */

/* Merge i: "left right" or ["left", "right"]. */
static ist_status read_merge(ist_json_reader *r, const json_t *merge, size_t i, ist_buf *joined,
                             ist_error *err) {
  const char *text = json_string_value(merge), *left = text;
  const char *right = json_string_value(json_array_get(merge, 1));
  size_t left_len = 0;
  if (text) {
    const char *space = *text ? strchr(text + 1, ' ') : NULL;
    right = space ? space + 1 : NULL;
    left_len = space ? (size_t)(space - text) : 0;
  } else if (json_array_size(merge) == 2 && right) {
    left = json_string_value(json_array_get(merge, 0));
    left_len = left ? strlen(left) : 0;
  }
  if (!left_len || !right || !*right)
    return ist_fail(err, IST_ERR_FORMAT, "merges[%zu] is %s, expected two tokens", i,
                    ist_json_kind(merge));
  bool twice;
  bool known = ist_bpe_add(&r->t->bpe, &r->t->vocab, &r->tokens, (ist_str){left, left_len},
                           (ist_str){right, strlen(right)}, joined, (uint32_t)i, &twice);
  if (joined->failed) return ist_fail_nomem(err, "a merge", left_len);
  if (known) return IST_OK;
  return ist_fail(err, IST_ERR_FORMAT,
                  "merges[%zu] joins or makes something that is not a token: '%.*s' and '%.60s'", i,
                  left_len < 60 ? (int)left_len : 60, left, right);
}

static ist_status read_merges(ist_json_reader *r, const json_t *merges, ist_error *err) {
  if (!json_is_array(merges) || json_array_size(merges) > INT32_MAX / 4)
    return ist_fail(err, IST_ERR_FORMAT, "field 'merges' is %s, expected a list",
                    ist_json_kind(merges));
  IST_TRY(ist_bpe_begin(&r->t->bpe, (int64_t)json_array_size(merges), err));
  ist_buf joined = {0};
  ist_status status = IST_OK;
  for (size_t i = 0; i < json_array_size(merges) && status == IST_OK; i++)
    status = read_merge(r, json_array_get(merges, i), i, &joined, err);
  ist_buf_free(&joined);
  return status;
}

/* Options of the model that we do not have must not be set. */
static ist_status refuse_options(const json_t *model, ist_error *err) {
  static const char *const names[] = {"dropout", "continuing_subword_prefix", "end_of_word_suffix"};
  for (int k = 0; k < 3; k++) {
    const json_t *v = ist_json_field(model, names[k]);
    if (!v || (json_is_string(v) && json_string_length(v) == 0) ||
        (json_is_number(v) && json_number_value(v) == 0))
      continue;
    return ist_fail(err, IST_ERR_UNSUPPORTED, "a BPE model with '%s' is not supported", names[k]);
  }
  return IST_OK;
}

static ist_status read_model_options(ist_json_reader *r, const json_t *model, ist_error *err) {
  const char *unk = json_string_value(ist_json_field(model, "unk_token"));
  IST_TRY(refuse_options(model, err));
  IST_TRY(ist_json_flag(model, "fuse_unk", false, &r->t->bpe.fuse_unk, err));
  IST_TRY(ist_json_flag(model, "byte_fallback", false, &r->t->bpe.byte_fallback, err));
  IST_TRY(ist_json_flag(model, "ignore_merges", false, &r->ignore_merges, err));
  if (unk) r->t->vocab.unk = ist_strtab_find(&r->tokens.by_text, unk, strlen(unk));
  return IST_OK;
}

static ist_status check_type(const json_t *model, ist_error *err) {
  const char *type = json_string_value(ist_json_field(model, "type"));
  if (json_is_object(model) &&
      (type ? strcmp(type, "BPE") == 0 : !!json_object_get(model, "merges")))
    return IST_OK;
  return ist_fail(err, IST_ERR_UNSUPPORTED, "the model is %s%s%s, expected one of the type BPE",
                  type ? "of the type '" : ist_json_kind(model), type ? type : "", type ? "'" : "");
}

static ist_status read_model(ist_json_reader *r, ist_error *err) {
  const json_t *model = ist_json_field(r->root, "model");
  const json_t *added = ist_json_field(r->root, "added_tokens");
  static const bool absent[IST_EOG_KEYS] = {true, true, true};
  IST_TRY(check_type(model, err));
  const json_t *vocab = ist_json_field(model, "vocab");
  if (!json_is_object(vocab))
    return ist_fail(err, IST_ERR_FORMAT, "field 'vocab' is %s, expected an object",
                    ist_json_kind(vocab));
  if (added && !json_is_array(added))
    return ist_fail(err, IST_ERR_FORMAT, "field 'added_tokens' is %s, expected a list",
                    ist_json_kind(added));
  IST_TRY(read_texts(r, vocab, added, err));
  IST_TRY(ist_vocab_begin(&r->t->vocab, r->tokens.n, err));
  r->t->vocab.byte_level = r->byte_level;
  IST_TRY(read_all_added(r, vocab, added, err));
  ist_vocab_mark_eog(&r->t->vocab, &r->tokens, absent);
  IST_TRY(ist_vocab_finish(&r->t->vocab, &r->tokens, err));
  IST_TRY(read_merges(r, ist_json_field(model, "merges"), err));
  return read_model_options(r, model, err);
}

/* ---- The file ---- */

/* Text between special tokens is one piece where nothing splits it, as
 * SentencePiece has it; it can be split before words all the same, if no merge
 * goes across. Looking up whole pieces would see the difference. */
static void split_words(ist_json_reader *r) {
  ist_pre *pre = &r->t->pre;
  if (!r->byte_level && !r->ignore_merges && pre->n < IST_PRE_MAX &&
      ist_bpe_words_begin_marked(&r->t->bpe, &r->t->vocab))
    pre->step[pre->n++] = (ist_pre_step){.kind = IST_PRE_MARKED_WORDS};
}

static ist_status read_tokenizer(ist_json_reader *r, ist_error *err) {
  ist_tokenizer *t = r->t;
  t->leftmost = true;
  t->pre_name = ist_strdup("tokenizer.json");
  if (!t->pre_name) return ist_fail_nomem(err, "the tokenizer", 16);
  IST_TRY(ist_json_read_normalizer(r, ist_json_field(r->root, "normalizer"), err));
  IST_TRY(ist_json_read_pre_tokenizer(r, ist_json_field(r->root, "pre_tokenizer"), err));
  IST_TRY(read_model(r, err));
  IST_TRY(ist_json_read_decoder(r, ist_json_field(r->root, "decoder"), err));
  IST_TRY(ist_json_read_post_processor(r, ist_json_field(r->root, "post_processor"), err));
  split_words(r);
  return ist_json_apply_config(r, err);
}

static ist_status read_folder(ist_json_reader *r, const char *folder, ist_error *err) {
  IST_TRY(ist_json_read_files(r, folder, err));
  ist_status status = read_tokenizer(r, err);
  if (status == IST_OK) status = ist_tokenizer_finish(r->t, r->ignore_merges, err);
  if (status != IST_OK) ist_error_context(err, "%s/tokenizer.json", folder);
  return status;
}

ist_status ist_tokenizer_open_json(ist_tokenizer **out, const char *folder, ist_error *err) {
  *out = NULL;
  ist_json_reader r = {.t = ist_calloc(1, sizeof *r.t)};
  if (!r.t) return ist_fail_nomem(err, "the tokenizer", sizeof *r.t);
  ist_status status = read_folder(&r, folder, err);
  ist_strtab_free(&r.tokens.by_text);
  ist_free(r.tokens.text);
  json_decref(r.root);
  json_decref(r.config);
  json_decref(r.specials);
  json_decref(r.generation);
  if (status != IST_OK) {
    ist_tokenizer_free(r.t);
    return status;
  }
  *out = r.t;
  return IST_OK;
}
