/* The parts of a byte-level BPE tokenizer. The way of a text: special.c cuts
 * out the tokens that are matched as they stand, pretokenize.c splits what is
 * left into pieces (words, numbers, runs of white space), bpe.c merges the bytes
 * of a piece into tokens. */
#ifndef IST_TOKENIZER_INTERNAL_H
#define IST_TOKENIZER_INTERNAL_H

#include "tokenizer/tokenizer.h"

/* ---- table.c: a hash table from bytes to the index of a string ---- */

typedef struct ist_strtab {
  const ist_str *str; /* borrowed; must outlive the table */
  struct ist_strtab_slot {
    uint32_t hash;
    int32_t index;
  } * slot; /* index -1: empty */
  uint32_t mask;
} ist_strtab;
/* Room for `n` strings out of `str`; they are added one by one. */
ist_status ist_strtab_init(ist_strtab *t, const ist_str *str, int64_t n, ist_error *err);
/* Adds str[index]; returns the index that already holds the same bytes, else -1. */
int32_t ist_strtab_add(ist_strtab *t, int32_t index);
int32_t ist_strtab_find(const ist_strtab *t, const char *p, size_t len); /* -1: absent */
void ist_strtab_free(ist_strtab *t);

/* ---- vocab.c: the tokens ---- */

enum {                        /* flags of a token */
       IST_TOKEN_CONTROL = 1, /* control and unknown tokens: never made from plain text */
       IST_TOKEN_USER = 2,    /* matched in the raw text, as control tokens are */
       IST_TOKEN_EOG = 4,     /* ends generation */
       IST_TOKEN_WHOLE = 8    /* a piece with just its bytes becomes just this token */
};

typedef struct ist_vocab {
  int64_t n;
  ist_str *bytes; /* what each token stands for, pointing into blob */
  char *blob;
  size_t blob_size;
  uint8_t *flags;
  int32_t byte_token[256]; /* -1 where the vocabulary has none */
  ist_strtab by_bytes;     /* the tokens that merging can make */
  int32_t bos, eos;
  bool add_bos, add_eos;
} ist_vocab;
/* Reads the tokens; `texts` is filled with a table of the tokens as the file
 * spells them (borrows the file), which the merges refer to; the caller frees it. */
ist_status ist_vocab_read(ist_vocab *v, ist_strtab *texts, const ist_gguf *g, bool add_bos_default,
                          ist_error *err);
void ist_vocab_free(ist_vocab *v);
static inline bool ist_token_is_special(const ist_vocab *v, int32_t id) {
  return (v->flags[id] & (IST_TOKEN_CONTROL | IST_TOKEN_USER)) != 0;
}

/* ---- special.c: tokens that are cut out of the raw text ---- */

typedef struct ist_specials {
  int32_t *id; /* longest text first, then by id */
  int64_t n;
  uint64_t begins[1024]; /* bit b0 << 8 | b1: some special text begins with these bytes */
} ist_specials;
typedef struct ist_special_hit {
  int32_t at, rank;
} ist_special_hit; /* rank: index in id[] */
typedef struct ist_special_hits {
  ist_special_hit *p;
  int64_t n, cap;
} ist_special_hits;
ist_status ist_specials_init(ist_specials *s, const ist_vocab *v, ist_error *err);
void ist_specials_free(ist_specials *s);
/* The special tokens to cut out of the text, by position, without overlap:
 * longer ones win, then earlier ones. Control tokens only if `control`. */
ist_status ist_specials_find(const ist_specials *s, const ist_vocab *v, const char *text,
                             size_t len, bool control, ist_special_hits *out, ist_error *err);

/* ---- pretokenize.c: the splitting rules ---- */

typedef struct ist_pre_rule ist_pre_rule;
const ist_pre_rule *ist_pre_rule_find(ist_str name);    /* by GGUF's name; NULL: unknown */
bool ist_pre_rule_add_bos(const ist_pre_rule *r);       /* where the file does not say */
bool ist_pre_rule_ignore_merges(const ist_pre_rule *r); /* whole pieces are looked up first */

typedef struct ist_pre ist_pre;
ist_status ist_pre_new(ist_pre **out, const ist_pre_rule *r, ist_error *err);
void ist_pre_free(ist_pre *pre);
size_t ist_pre_bytes(const ist_pre *pre);

/* An iterator over the pieces of a text; they cover it without gaps. A byte that
 * is not part of valid UTF-8 is a piece of its own, and ends the text for the rule. */
typedef struct ist_pieces {
  const ist_pre *pre;
  struct pcre2_real_match_data_8 *match;
  const char *text, *end; /* what is left */
  const char *valid_end;  /* [text, valid_end) is valid UTF-8 */
} ist_pieces;
ist_status ist_pieces_init(ist_pieces *it, const ist_pre *pre, ist_error *err);
void ist_pieces_start(ist_pieces *it, const char *text, size_t len);
/* Sets *len to 0 at the end. */
ist_status ist_pieces_next(ist_pieces *it, const char **piece, size_t *len, ist_error *err);
void ist_pieces_free(ist_pieces *it);

/* ---- bpe.c: bytes to tokens by merges ---- */

typedef struct ist_bpe {
  struct ist_merge {
    int32_t left, right;
    uint32_t rank;
  } * merge; /* hash table; rank NONE: empty */
  uint32_t mask;
  int32_t *result; /* by rank */
  int64_t n;
} ist_bpe;
/* Working memory of one encoding; zero-initialise. */
typedef struct ist_bpe_scratch {
  struct ist_symbol {
    int32_t id, prev, next;
    uint32_t rank;
  } * symbol;
  uint64_t *heap;
  int64_t symbol_cap, heap_cap;
} ist_bpe_scratch;
ist_status ist_bpe_read(ist_bpe *b, const ist_vocab *v, const ist_strtab *texts, const ist_gguf *g,
                        ist_error *err);
void ist_bpe_free(ist_bpe *b);
void ist_bpe_scratch_free(ist_bpe_scratch *s);
/* Appends the tokens of one piece. A byte without a token is left out. */
ist_status ist_bpe_encode(const ist_bpe *b, const ist_vocab *v, ist_bpe_scratch *s,
                          const char *piece, size_t len, ist_ids *out, ist_error *err);

#endif
