/* The parts of a tokenizer. The way of a text: special.c cuts out the tokens that
 * are matched as they stand, normalize.c rewrites what is left (white space,
 * Unicode forms), pretokenize.c splits it into pieces (words, numbers, runs of
 * white space), bpe.c merges the bytes or characters of a piece into tokens.
 * Which of these steps there are, and how they behave, is read from a GGUF file
 * (gguf_tokenizer.c) or from tokenizer.json (json_*.c). */
#ifndef IST_TOKENIZER_INTERNAL_H
#define IST_TOKENIZER_INTERNAL_H

#include "base/hash.h"
#include "tokenizer/tokenizer.h"

/* U+2581, which stands for a space where tokens are not byte-level. */
#define IST_MARK "\xe2\x96\x81"

/* ---- table.c: a hash table from bytes to the index of a string ---- */

typedef struct ist_strtab {
  const ist_str *str; /* borrowed; must outlive the table */
  struct ist_strtab_slot {
    uint32_t hash;
    int32_t index;
  } * slot; /* index -1: empty */
  uint32_t mask;
  uint64_t key; /* of the hash */
} ist_strtab;
/* Room for `n` strings out of `str`; they are added one by one. */
ist_status ist_strtab_init(ist_strtab *t, const ist_str *str, int64_t n, ist_error *err);
/* Adds str[index]; returns the index that already holds the same bytes, else -1. */
int32_t ist_strtab_add(ist_strtab *t, int32_t index);
int32_t ist_strtab_find(const ist_strtab *t, const char *p, size_t len); /* -1: absent */
void ist_strtab_free(ist_strtab *t);

/* ---- vocab.c: the tokens ---- */

enum {                             /* flags of a token */
       IST_TOKEN_CONTROL = 1,      /* control and unknown tokens: not merged from plain text */
       IST_TOKEN_USER = 2,         /* matched in the raw text, as control tokens are */
       IST_TOKEN_EOG = 4,          /* ends generation */
       IST_TOKEN_WHOLE = 8,        /* a piece with just its bytes becomes just this token */
       IST_TOKEN_BYTE = 16,        /* stands for one byte, spelled <0xNN> */
       IST_TOKEN_LSTRIP = 32,      /* takes the white space before it, */
       IST_TOKEN_RSTRIP = 64,      /* behind it */
       IST_TOKEN_WORD = 128,       /* matches only where no letter touches it */
       IST_TOKEN_NORMALIZED = 256, /* matched in the normalised text */
       IST_TOKEN_ADDED = 512       /* not in the model's vocabulary: no text is made of it */
};

/* Tokens as a file spells them, before they are a vocabulary. */
typedef struct ist_tokens {
  const char *path; /* for messages */
  ist_str *text;    /* n, borrowed from the file; empty: no such token */
  int64_t n;
  ist_strtab by_text;
} ist_tokens;

typedef struct ist_vocab {
  int64_t n;
  bool byte_level; /* symbols are bytes; otherwise characters */
  ist_str *bytes;  /* what each token matches, pointing into blob */
  char *blob;
  size_t blob_size;
  uint16_t *flags;
  int32_t byte_token[256]; /* -1 where the vocabulary has none */
  ist_strtab by_bytes;     /* the tokens that merging can make */
  int32_t bos, eos, unk, pad;
  bool add_bos, add_eos; /* as the file asks: see ist_tokenizer_before */
} ist_vocab;
/* n tokens without flags. */
ist_status ist_vocab_begin(ist_vocab *v, int64_t n, ist_error *err);
/* From flags and spellings: the bytes of all tokens and their indices. */
ist_status ist_vocab_finish(ist_vocab *v, const ist_tokens *tokens, ist_error *err);
/* Marks the tokens that end generation by their spelling; they are control tokens
 * from then on. absent[i]: the file names no token for that role of
 * fill-in-the-middle, so it is looked for by its spelling as well. */
enum { IST_EOG_PAD, IST_EOG_REPO, IST_EOG_SEP, IST_EOG_KEYS };
void ist_vocab_mark_eog(ist_vocab *v, const ist_tokens *tokens, const bool absent[IST_EOG_KEYS]);
void ist_vocab_free(ist_vocab *v);
/* Appends the byte-level spelling of some bytes. */
void ist_spell_bytes(ist_buf *out, const char *p, size_t len);
static inline bool ist_token_is_special(const ist_vocab *v, int32_t id) {
  return (v->flags[id] & (IST_TOKEN_CONTROL | IST_TOKEN_USER)) != 0;
}

/* ---- special.c: tokens that are cut out of the text ---- */

/* A tree of the bytes of all special tokens' texts. */
typedef struct ist_specials {
  struct ist_special_node {
    int32_t child, sibling, token; /* -1: none */
    uint8_t byte;
  } * node; /* node 0: the root */
  int64_t n, cap;
  uint64_t begins[1024]; /* bit b0 << 8 | b1: some special text begins with these bytes */
} ist_specials;
typedef struct ist_special_hit {
  int32_t at, len, id;
} ist_special_hit;
typedef struct ist_special_hits {
  ist_special_hit *p;
  int64_t n, cap;
} ist_special_hits;
ist_status ist_specials_add(ist_specials *s, const char *text, size_t len, int32_t id,
                            ist_error *err);
void ist_specials_free(ist_specials *s);
/* The special tokens to cut out of the text, by position, without overlap.
 * `leftmost`: the longest at the leftmost place, with the tokens' own conditions
 * on white space and words; otherwise longer ones win, then earlier ones. Control
 * tokens count only where `literal` (a byte for each of the text's) is nonzero
 * throughout, or everywhere or nowhere as `control` says when that is NULL. */
typedef struct ist_special_query {
  const char *text;
  size_t len;
  bool leftmost, control;
  const uint8_t *literal;
} ist_special_query;
ist_status ist_specials_find(const ist_specials *s, const ist_vocab *v, const ist_special_query *q,
                             ist_special_hits *out, ist_error *err);
/* Unicode's white space; -1 is none. */
bool ist_is_space(int32_t c);

/* ---- What a text may cost ---- */

/* Normalizers and pre-tokenizers may make a text longer, each what the one before it made, so
 * that a small file could ask for any amount of memory; and each of their expressions may
 * backtrack, at every place anew. All of them together may add so much to a text, and work so
 * long on it; what is left of that: */
typedef struct ist_growth {
  size_t of, left; /* bytes */
  double seconds;  /* for searches that backtrack much; honest ones take some thousandths */
} ist_growth;
ist_growth ist_growth_of(size_t len);
/* Takes off what a step added; an error where there is no more. */
ist_status ist_growth_take(ist_growth *g, size_t before, size_t after, ist_error *err);

/* ---- regex.c: regular expressions over UTF-8 ---- */

typedef struct ist_regex {
  struct pcre2_real_general_context_8 *memory;
  struct pcre2_real_code_8 *code;
  struct pcre2_real_match_context_8 *limits; /* of the work at one place of a first search */
  bool jit;
} ist_regex;
/* The pattern is in the notation of tokenizer.json (Oniguruma's); `anchored`: it
 * matches only where the search begins. A pattern we cannot take is an
 * IST_ERR_UNSUPPORTED that quotes it. */
ist_status ist_regex_compile(ist_regex *r, const char *pattern, size_t len, bool anchored,
                             ist_error *err);
/* oniguruma.c: the same in PCRE2's notation, for lines that end in \n and PCRE2_MULTILINE. */
ist_status ist_regex_translate(ist_buf *out, const char *pattern, size_t len, ist_error *err);
void ist_regex_free(ist_regex *r);
size_t ist_regex_bytes(const ist_regex *r);
typedef struct pcre2_real_match_data_8 ist_regex_match;
ist_regex_match *ist_regex_match_new(const ist_regex *r);
void ist_regex_match_free(ist_regex_match *m);
/* The matches in `len` bytes of valid UTF-8 one by one, as HF tokenizers goes through them: one
 * may be empty, but not where the last one ended. `hit` holds the last, zeros at first; found
 * false: there is no more, and both places are `len`. A match that takes too much work, or more
 * than is left, is an IST_ERR_DATA. */
typedef struct ist_regex_hit {
  size_t begin, end;
  bool found;
} ist_regex_hit;
ist_status ist_regex_next(const ist_regex *r, ist_regex_match *m, const char *text, size_t len,
                          ist_regex_hit *hit, ist_growth *growth, ist_error *err);

/* ---- normalize.c: rewriting text before it is split ---- */

typedef enum ist_norm_kind {
  IST_NORM_NFC,
  IST_NORM_NFD,
  IST_NORM_NFKC,
  IST_NORM_NFKD,
  IST_NORM_LOWER,
  IST_NORM_STRIP,   /* white space at the left, the right */
  IST_NORM_PREPEND, /* `to` before a text that is not empty */
  IST_NORM_REPLACE  /* `from`, or the matches of `regex`, by `to` */
} ist_norm_kind;
typedef struct ist_norm_step {
  ist_norm_kind kind;
  char *from, *to; /* owned */
  bool is_regex, left, right;
  ist_regex regex;
} ist_norm_step;
enum { IST_NORM_MAX = 16 };
typedef struct ist_norm {
  ist_norm_step step[IST_NORM_MAX];
  int n;
} ist_norm;
void ist_norm_free(ist_norm *norm);
/* Rewrites `text` in place, with `spare` as working memory. `continued`: the text
 * goes on where another ended, nothing is put before it. */
ist_status ist_norm_apply(const ist_norm *norm, ist_buf *text, ist_buf *spare, bool continued,
                          ist_growth *growth, ist_error *err);

/* ---- pretokenize.c: splitting text into pieces ---- */

typedef enum ist_split_behavior {
  IST_SPLIT_ISOLATED, /* a match is a piece, so is what lies between matches */
  IST_SPLIT_REMOVED,
  IST_SPLIT_PREVIOUS,  /* a match joins what stands before it, */
  IST_SPLIT_NEXT,      /* behind it */
  IST_SPLIT_CONTIGUOUS /* matches that touch are one piece */
} ist_split_behavior;

typedef enum ist_pre_kind {
  IST_PRE_TILE,  /* an anchored expression that matches anywhere: its matches are the pieces */
  IST_PRE_SPLIT, /* by matches of an expression */
  IST_PRE_SPACE, /* no split: a space before a text that begins with none */
  IST_PRE_MARK,  /* no split: spaces become U+2581, and one goes in front by `when` */
  IST_PRE_MARKED_WORDS /* before every U+2581 that follows something else */
} ist_pre_kind;

typedef struct ist_pre_step {
  ist_pre_kind kind;
  ist_split_behavior behavior;
  bool invert; /* of REMOVED: what lies between matches is removed */
  bool mapped; /* sees the text in byte-level spelling */
  enum { IST_MARK_NEVER, IST_MARK_FIRST, IST_MARK_ALWAYS } when;
  char mark[8]; /* of MARK: what stands for a space */
  ist_regex regex;
} ist_pre_step;

enum { IST_PRE_MAX = 12 };
typedef struct ist_pre {
  ist_pre_step step[IST_PRE_MAX];
  int n;
} ist_pre;
/* Adds a step by regular expression. */
ist_status ist_pre_add_regex(ist_pre *pre, ist_pre_kind kind, const char *pattern,
                             ist_split_behavior behavior, ist_error *err);
void ist_pre_free(ist_pre *pre);
size_t ist_pre_bytes(const ist_pre *pre);

/* rules.c: the splitting rules by GGUF's names. */
typedef struct ist_pre_rule ist_pre_rule;
const ist_pre_rule *ist_pre_rule_find(ist_str name);    /* NULL: unknown */
bool ist_pre_rule_add_bos(const ist_pre_rule *r);       /* where the file does not say */
bool ist_pre_rule_ignore_merges(const ist_pre_rule *r); /* whole pieces are looked up first */
ist_status ist_pre_from_rule(ist_pre *pre, const ist_pre_rule *r, ist_error *err);
extern const char ist_pre_gpt2[]; /* GPT-2's expression */

/* An iterator over the pieces of a text; each step splits the pieces of the one
 * before. A byte that is not part of valid UTF-8 is a piece of its own, and ends
 * the text for the steps. */
typedef struct ist_pieces {
  const ist_pre *pre;
  const char *at, *end, *valid_end; /* what is left of the text; of its valid stretch */
  bool first;                       /* the next stretch begins the text, */
  bool continued;                   /* or goes on where another ended */
  ist_growth growth;                /* of all texts since init; set where their length is known */
  struct ist_piece_level {
    ist_regex_match *match;
    const char *p, *end;              /* what is left of the piece to split */
    const char *match_at, *match_end; /* the next match, if `found` */
    const char *begin;
    bool found;
    ist_regex_hit hit; /* the same, or the last one */
    /* Of a mapped step: up to where characters are counted, and where that is in
     * the text before mapping. */
    const char *counted, *origin;
    ist_buf text; /* the piece rewritten */
  } level[IST_PRE_MAX];
} ist_pieces;
ist_status ist_pieces_init(ist_pieces *it, const ist_pre *pre, ist_error *err);
/* `first`: the text is the beginning of what is tokenised; `continued`: it goes on where another
 * ended, and no step puts a space before it. */
void ist_pieces_start(ist_pieces *it, const char *text, size_t len, bool first, bool continued);
/* Sets *len to 0 at the end. The piece is valid until the next call. */
ist_status ist_pieces_next(ist_pieces *it, const char **piece, size_t *len, ist_error *err);
void ist_pieces_free(ist_pieces *it);

/* ---- bpe.c: symbols to tokens by merges ---- */

#define IST_NO_MERGE UINT32_MAX /* the rank of a pair that does not merge */
typedef struct ist_bpe {
  struct ist_merge {
    int32_t left, right, result;
    uint32_t rank;
  } * merge; /* hash table; rank IST_NO_MERGE: empty */
  uint32_t mask;
  int shift;          /* 64 - the bits of the mask */
  uint64_t key;       /* odd; of the process: no file knows which pairs share a place */
  bool fuse_unk;      /* characters without a token, side by side, are one unknown token */
  bool byte_fallback; /* such characters become the tokens of their bytes */
  int32_t ascii[128]; /* of character symbols: their tokens */
} ist_bpe;
/* The merge of a pair, or the empty place where it belongs. */
static inline struct ist_merge *ist_bpe_probe(const ist_bpe *b, int32_t left, int32_t right) {
  uint64_t h = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * b->key;
  for (uint32_t at = (uint32_t)(h >> b->shift);; at = (at + 1) & b->mask) {
    struct ist_merge *m = &b->merge[at];
    if (m->rank == IST_NO_MERGE || (m->left == left && m->right == right)) return m;
  }
}

/* Working memory of one encoding; zero-initialise. */
typedef struct ist_bpe_scratch {
  int32_t *first; /* the symbols of the piece; -1: one without a token */
  struct ist_symbol {
    int32_t id, prev, next, merged;
    uint32_t rank;
  } * symbol; /* those of a stretch while they merge */
  uint64_t *heap;
  struct ist_bpe_token {
    int32_t id, end; /* `end`: the place in `first` behind it */
  } * token;         /* of a long piece */
  int64_t first_cap, symbol_cap, heap_cap, token_cap;
} ist_bpe_scratch;
/* Room for n merges, which are then added with their rank. Merges that would read
 * or make a control token are left out: text becomes one only where it is a single byte or
 * character, which HF tokenizers cuts out before anything merges. */
ist_status ist_bpe_begin(ist_bpe *b, int64_t n, ist_error *err);
/* The three tokens by their spellings; *twice: the pair was there before (and has
 * this rank now). False: one of them is no token. */
bool ist_bpe_add(ist_bpe *b, const ist_vocab *v, const ist_tokens *tokens, ist_str left,
                 ist_str right, ist_buf *joined, uint32_t rank, bool *twice);
/* SentencePiece: every way to make a token out of two is a merge, the token of the
 * highest score first. */
ist_status ist_bpe_from_scores(ist_bpe *b, const ist_vocab *v, const double *score, ist_error *err);
/* After the merges: looks up the first symbols. */
void ist_bpe_finish(ist_bpe *b, const ist_vocab *v);
/* True when no merge joins something that does not end in U+2581 with something
 * that begins with it: then text can be split there. */
bool ist_bpe_words_begin_marked(const ist_bpe *b, const ist_vocab *v);
void ist_bpe_free(ist_bpe *b);
void ist_bpe_scratch_free(ist_bpe_scratch *s);
/* Appends the tokens of one piece. A byte without a token is left out. */
ist_status ist_bpe_encode(const ist_bpe *b, const ist_vocab *v, ist_bpe_scratch *s,
                          const char *piece, size_t len, ist_ids *out, ist_error *err);
/* bpe_merge.c: merges the n first symbols. */
ist_status ist_bpe_merge(const ist_bpe *b, ist_bpe_scratch *s, int32_t n, ist_ids *out,
                         ist_error *err);

/* ---- tokenizer.c ---- */

/* How tokens become text. */
typedef struct ist_decoding {
  char *from, *to;            /* in a token's text, `from` is read as `to`; NULL: nothing */
  bool first_loses;           /* in the first token `from` is dropped instead */
  bool byte_tokens;           /* IST_TOKEN_BYTE gives its byte */
  char strip;                 /* this character is taken from the ends of every token, */
  bool strip_whole;           /* or of the whole text: */
  int strip_begin, strip_end; /* at most so many */
  bool spaced;                /* a space between tokens */
} ist_decoding;

struct ist_tokenizer {
  ist_vocab vocab;
  ist_specials raw, normalized; /* matched before and after normalising */
  bool leftmost;                /* as tokenizer.json matches specials */
  ist_norm norm;
  ist_pre pre;
  ist_bpe bpe;
  ist_decoding decoding;
  ist_ids before, behind;         /* what stands around every text */
  char *pre_name, *chat_template; /* chat_template: NULL when the file has none */
  ist_jinja *chat;                /* parsed; NULL also where it does not parse */
};
/* After everything is read: indexes the specials and marks whole tokens. */
ist_status ist_tokenizer_finish(ist_tokenizer *t, bool ignore_merges, ist_error *err);

#endif
