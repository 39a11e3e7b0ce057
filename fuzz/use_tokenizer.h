/* A tokenizer that was read, put to use on a text. */
#ifndef IST_FUZZ_USE_TOKENIZER_H
#define IST_FUZZ_USE_TOKENIZER_H

#include "fuzz.h"
#include "tokenizer/tokenizer.h"

static inline void use_tokenizer(const ist_tokenizer *t, const char *text, size_t len) {
  ist_error err = {0};
  if (len > 512) len = 512;
  for (int special = 0; special < 2; special++) {
    ist_ids ids = {0};
    ist_buf out = {0};
    ist_status status = ist_tokenizer_encode(t, text, len, special, &ids, &err);
    fuzz_check(status, &err);
    if (status == IST_OK) status = ist_tokenizer_decode(t, ids.p, ids.n, special, &out, &err);
    fuzz_check(status, &err);
    ist_ids_free(&ids);
    ist_buf_free(&out);
  }
  ist_tokenizer_find(t, "</s>");
  ist_tokenizer_chat(t);
}

#endif
