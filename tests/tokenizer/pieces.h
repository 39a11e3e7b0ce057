/* What a pre-tokenizer makes of a text, as one text again. */
#ifndef IST_TESTS_PIECES_H
#define IST_TESTS_PIECES_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "tokenizer/internal.h"

/* The pieces, `between` them; freed by the caller. */
static inline ist_buf join_pieces(const ist_pre *pre, const char *text, const char *between) {
  ist_pieces it;
  ist_buf out = {0};
  assert_int_equal(ist_pieces_init(&it, pre, NULL), IST_OK);
  it.growth = ist_growth_of(strlen(text));
  ist_pieces_start(&it, text, strlen(text), true, false);
  for (;;) {
    const char *piece;
    size_t size;
    assert_int_equal(ist_pieces_next(&it, &piece, &size, NULL), IST_OK);
    if (size == 0) break;
    if (out.len) ist_buf_str(&out, between);
    ist_buf_add(&out, piece, size);
  }
  ist_pieces_free(&it);
  return out;
}

#endif
