/* tokenizer.json of a SentencePiece vocabulary: a BPE over characters whose merges are made of the
 * pieces' scores, as transformers' converter makes them. */
#include <stdlib.h>

#include "base/mem.h"
#include "export/hf_folder.h"

#define KEY  "tokenizer.ggml."
#define MARK "\xe2\x96\x81" /* what a space is written as */

enum { TYPE_UNKNOWN = 2, TYPE_CONTROL = 3, TYPE_BYTE = 6 };

/* Real vocabularies have merges of some 10 MB; pieces of which each is the beginning and the end of
 * the next ones could have any number. */
#define MOST_BYTES ((size_t)64 << 20)

typedef struct pieces {
  const ist_gguf_kv *text, *type, *score;
  const json_t *vocab; /* text -> id */
  bool *is_length;     /* whether a piece has as many bytes, up to the longest */
  json_t *merges;
  size_t bytes; /* of them */
} pieces;

/* A piece that stands for its text. */
static bool is_text(const pieces *p, uint64_t id) {
  if (!p->type || id >= p->type->count) return true;
  const double type = ist_gguf_elem_f64(p->type, id); /* any number */
  return type != TYPE_UNKNOWN && type != TYPE_CONTROL && type != TYPE_BYTE;
}

static bool is_piece(const pieces *p, const char *text, size_t len) {
  const json_t *id = json_object_getn(p->vocab, text, len);
  return id && is_text(p, (uint64_t)json_integer_value(id));
}

typedef struct scored {
  double score;
  uint64_t id;
} scored;

static int by_score(const void *a, const void *b) {
  const scored *x = a, *y = b;
  if (x->score != y->score) return x->score > y->score ? -1 : 1;
  return (x->id > y->id) - (x->id < y->id);
}

/* Appends every way to make the piece of two others; a merge is written "left right". */
static void add_ways(pieces *p, ist_str text) {
  if (memchr(text.p, ' ', text.len)) return;
  for (size_t at = 1; at < text.len && p->bytes <= MOST_BYTES; at++) {
    const bool begins = ((unsigned char)text.p[at] & 0xc0) != 0x80;
    if (!begins || !p->is_length[at] || !p->is_length[text.len - at]) continue;
    if (!is_piece(p, text.p, at) || !is_piece(p, text.p + at, text.len - at)) continue;
    ist_buf merge = {0};
    ist_buf_add(&merge, text.p, at);
    ist_buf_str(&merge, " ");
    ist_buf_add(&merge, text.p + at, text.len - at);
    if (!merge.failed) json_array_append_new(p->merges, json_stringn(merge.p, merge.len));
    ist_buf_free(&merge);
    p->bytes += text.len;
  }
}

static ist_status note_lengths(pieces *p, ist_error *err) {
  size_t most = 0;
  for (uint64_t i = 0; i < p->text->count; i++)
    if (p->text->strings[i].len > most) most = p->text->strings[i].len;
  p->is_length = ist_calloc(most + 1, sizeof *p->is_length);
  if (!p->is_length) return ist_fail_nomem(err, "tokenizer.json", most + 1);
  for (uint64_t i = 0; i < p->text->count; i++) p->is_length[p->text->strings[i].len] = true;
  return IST_OK;
}

/* The highest score first. */
static ist_status add_merges(pieces *p, ist_error *err) {
  const size_t count = (size_t)p->text->count;
  IST_TRY(note_lengths(p, err));
  scored *list = ist_calloc(count, sizeof *list);
  if (!list || !p->merges) {
    ist_free(list);
    return ist_fail_nomem(err, "tokenizer.json", count * sizeof *list);
  }
  size_t n = 0;
  for (uint64_t i = 0; i < count; i++)
    if (is_text(p, i)) list[n++] = (scored){ist_gguf_elem_f64(p->score, i), i};
  if (n) qsort(list, n, sizeof *list, by_score);
  for (size_t i = 0; i < n; i++) add_ways(p, p->text->strings[list[i].id]);
  ist_free(list);
  if (p->bytes <= MOST_BYTES) return IST_OK;
  return ist_fail(err, IST_ERR_UNSUPPORTED,
                  "no tokenizer.json can be made of a vocabulary with more than %zu MiB of merges",
                  MOST_BYTES >> 20);
}

json_t *ist_hf_sentencepiece_model(const ist_gguf *g, json_t *vocab, const char *unknown,
                                   ist_error *err) {
  pieces p = {.text = ist_gguf_find(g, KEY "tokens"),
              .type = ist_gguf_find(g, KEY "token_type"),
              .score = ist_gguf_find(g, KEY "scores"),
              .vocab = vocab,
              .merges = json_array()};
  ist_status s = add_merges(&p, err);
  ist_free(p.is_length);
  if (s != IST_OK) {
    json_decref(p.merges);
    json_decref(vocab);
    return NULL;
  }
  return json_pack("{s:s, s:n, s:s, s:n, s:n, s:b, s:b, s:b, s:o, s:o}", "type", "BPE", "dropout",
                   "unk_token", unknown, "continuing_subword_prefix", "end_of_word_suffix",
                   "fuse_unk", 1, "byte_fallback", 1, "ignore_merges", 0, "vocab", vocab, "merges",
                   p.merges);
}

static bool space_before(const ist_gguf *g) {
  bool prefix = true;
  ist_gguf_get_bool(g, KEY "add_space_prefix", false, &prefix, NULL);
  return prefix;
}

json_t *ist_hf_sentencepiece_normalizer(const ist_gguf *g) {
  json_t *steps = json_array();
  if (space_before(g))
    json_array_append_new(steps, json_pack("{s:s, s:s}", "type", "Prepend", "prepend", MARK));
  json_array_append_new(steps, json_pack("{s:s, s:{s:s}, s:s}", "type", "Replace", "pattern",
                                         "String", " ", "content", MARK));
  return json_pack("{s:s, s:o}", "type", "Sequence", "normalizers", steps);
}

json_t *ist_hf_sentencepiece_decoder(const ist_gguf *g) {
  json_t *steps = json_pack("[{s:s, s:{s:s}, s:s}, {s:s}, {s:s}]", "type", "Replace", "pattern",
                            "String", MARK, "content", " ", "type", "ByteFallback", "type", "Fuse");
  if (space_before(g))
    json_array_append_new(steps, json_pack("{s:s, s:s, s:i, s:i}", "type", "Strip", "content", " ",
                                           "start", 1, "stop", 0));
  return json_pack("{s:s, s:o}", "type", "Sequence", "decoders", steps);
}
