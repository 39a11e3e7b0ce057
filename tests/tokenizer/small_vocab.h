/* A small byte-level vocabulary, written to a GGUF file and read back: the 256
 * bytes (token id = byte), then the tokens and merges a test asks for. */
#ifndef IST_TESTS_SMALL_VOCAB_H
#define IST_TESTS_SMALL_VOCAB_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "tokenizer/tokenizer.h"

enum { NORMAL = 1, UNKNOWN = 2, CONTROL = 3, USER = 4 };

typedef struct small_token {
  const char *text;
  int type;
} small_token;

/* Token i of `extra` gets id 256 + i. Lists end with a NULL. */
typedef struct small_vocab {
  const char *pre; /* NULL: the key is left out */
  const small_token *extra;
  const char *const *merges;
  const char *bos, *eos;     /* texts in `extra`, or NULL */
  const char *chat_template; /* or NULL */
  const char *model;         /* NULL: "gpt2" */
  const char *without;       /* a key to leave out, or NULL */
  int short_types;           /* entries missing at the end of token_type */
} small_vocab;

/* The character that spells a byte, as UTF-8 in out[3]. */
static inline void spell_byte(char out[3], int byte) {
  int c = byte;
  if (!((byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174)) {
    c = 256;
    for (int b = 0; b < byte; b++)
      c += !((b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174);
  }
  if (c < 128) {
    out[0] = (char)c;
    out[1] = 0;
  } else {
    out[0] = (char)(0xc0 | c >> 6);
    out[1] = (char)(0x80 | (c & 63));
  }
  out[2] = 0;
}

static inline int small_id(const small_vocab *v, const char *text) {
  for (int i = 0; v->extra && v->extra[i].text; i++)
    if (strcmp(v->extra[i].text, text) == 0) return 256 + i;
  fail_msg("'%s' is not in the vocabulary of the test", text);
  return -1;
}

static inline bool wants(const small_vocab *v, const char *key) {
  return !v->without || strcmp(v->without, key) != 0;
}

static inline char *small_vocab_write(const small_vocab *v) {
  enum { MAX = 8192 };
  static char spelled[256][3];
  static ist_str text[MAX], merge[MAX];
  static int32_t type[MAX];
  int n = 256, n_merges = 0;
  for (int b = 0; b < 256; b++) {
    spell_byte(spelled[b], b);
    text[b] = (ist_str){spelled[b], strlen(spelled[b])};
    type[b] = NORMAL;
  }
  for (const small_token *t = v->extra; t && t->text; t++) {
    assert_true(n < MAX);
    text[n] = (ist_str){t->text, strlen(t->text)};
    type[n++] = t->type;
  }
  for (const char *const *m = v->merges; m && *m; m++) {
    assert_true(n_merges < MAX);
    merge[n_merges++] = (ist_str){*m, strlen(*m)};
  }
  ist_gguf_writer *w = ist_gguf_writer_new();
  const char *model = v->model ? v->model : "gpt2";
  ist_gguf_put_str(w, "tokenizer.ggml.model", model, strlen(model));
  if (v->pre) ist_gguf_put_str(w, "tokenizer.ggml.pre", v->pre, strlen(v->pre));
  if (wants(v, "tokens")) ist_gguf_put_strs(w, "tokenizer.ggml.tokens", text, (uint64_t)n);
  if (wants(v, "token_type"))
    ist_gguf_put_i32s(w, "tokenizer.ggml.token_type", type, (uint64_t)(n - v->short_types));
  if (wants(v, "merges")) ist_gguf_put_strs(w, "tokenizer.ggml.merges", merge, (uint64_t)n_merges);
  if (v->bos) ist_gguf_put_u32(w, "tokenizer.ggml.bos_token_id", (uint32_t)small_id(v, v->bos));
  if (v->eos) ist_gguf_put_u32(w, "tokenizer.ggml.eos_token_id", (uint32_t)small_id(v, v->eos));
  if (v->chat_template)
    ist_gguf_put_str(w, "tokenizer.chat_template", v->chat_template, strlen(v->chat_template));
  static char path[64];
  snprintf(path, sizeof path, "/tmp/ist-test-vocab-%ld.gguf", (long)getpid());
  ist_error err = {0};
  if (ist_gguf_write(w, path, &err) != IST_OK) fail_msg("%s", err.message);
  ist_gguf_writer_free(w);
  return path;
}

static inline ist_gguf *small_vocab_gguf(const small_vocab *v) {
  char *path = small_vocab_write(v);
  ist_error err = {0};
  ist_gguf *g = NULL;
  ist_status status = ist_gguf_open(&g, path, &err);
  unlink(path);
  if (status != IST_OK) fail_msg("%s", err.message);
  return g;
}

static inline ist_status small_vocab_try(ist_tokenizer **out, const small_vocab *v,
                                         ist_error *err) {
  ist_gguf *g = small_vocab_gguf(v);
  ist_status status = ist_tokenizer_from_gguf(out, g, err);
  ist_gguf_close(g);
  return status;
}

static inline ist_tokenizer *small_vocab_open(const small_vocab *v) {
  ist_error err = {0};
  ist_tokenizer *t = NULL;
  if (small_vocab_try(&t, v, &err) != IST_OK) fail_msg("%s", err.message);
  return t;
}

#endif
