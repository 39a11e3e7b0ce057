/* A tokenizer in a GGUF: a text, the line "%%", the file. */
#include "fuzz.h"
#include "use_tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  fuzz_part part[2];
  fuzz_parts(data, size, part, 2);
  if (!part[1].p) return -1;
  ist_error err = {0};
  ist_gguf *g;
  ist_status status = ist_gguf_open(&g, fuzz_file("vocab.gguf", part[1].p, part[1].n), &err);
  fuzz_check(status, &err);
  if (status != IST_OK) return 0;
  ist_tokenizer *t = NULL;
  status = ist_tokenizer_from_gguf(&t, g, &err);
  fuzz_check(status, &err);
  ist_gguf_close(g);
  if (status != IST_OK) return 0;
  use_tokenizer(t, (const char *)part[0].p, part[0].n);
  ist_tokenizer_free(t);
  return 0;
}
