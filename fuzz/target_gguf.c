/* GGUF: header, keys and tensors; as a model, and as an adapter. */
#include <stdlib.h>

#include "format/gguf.h"
#include "format/lora_gguf.h"
#include "format/quant.h"
#include "fuzz.h"
#include "use_model.h"

/* Every byte of every tensor is there, and its blocks decode. */
static void read_tensors(const ist_gguf *g) {
  static float out[256];
  volatile unsigned char last;
  for (int64_t i = 0; i < g->n_tensors; i++) {
    const ist_gguf_tensor *t = &g->tensor[i];
    if (t->bytes == 0) continue;
    last = t->data[t->bytes - 1];
    int64_t block = ist_dtype_get(t->type)->block;
    if (block <= 256 && t->ne[0] >= block && ist_dequant_supported(t->type))
      ist_dequant_f32(out, t->data, t->type, block);
  }
  (void)last;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const char *path = fuzz_file("model.gguf", data, size);
  ist_error err = {0};
  ist_gguf *g;
  ist_status status = ist_gguf_open(&g, path, &err);
  fuzz_check(status, &err);
  if (status != IST_OK) return 0;
  read_tensors(g);
  ist_gguf_close(g);

  char *json = NULL;
  status = ist_inspect(path, &json, &err);
  fuzz_check(status, &err);
  if (status == IST_OK) ist_free_memory(json);

  ist_lora_gguf *lora;
  status = ist_lora_gguf_open(&lora, path, &err);
  fuzz_check(status, &err);
  if (status == IST_OK) {
    ist_lora_gguf_close(lora);
    use_adapter(path);
  } else {
    open_and_use(path, size % 2 ? IST_BACKEND_CPU : IST_BACKEND_REFERENCE);
  }
  return 0;
}
