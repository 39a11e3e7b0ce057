/* config.json of a Hugging Face folder: what the families' rows read from it. */
#include "fuzz.h"
#include "model/config.h"

/* A folder with the tensors whose shapes are asked for, under every family's name (sorted). */
static ist_source folder(void) {
#define TABLE(text)                                                                      \
  {                                                                                      \
    .name = {text, sizeof text - 1}, .type = IST_F32, .n_dims = 2, .ne = { 32, 8, 1, 1 } \
  }
  static const ist_gguf_tensor tensor[] = {TABLE("embed_out.weight"),
                                           TABLE("gpt_neox.embed_in.weight"),
                                           TABLE("lm_head.weight"),
                                           TABLE("model.decoder.embed_positions.weight"),
                                           TABLE("model.decoder.embed_tokens.weight"),
                                           TABLE("model.embed_tokens.weight"),
                                           TABLE("transformer.word_embeddings.weight"),
                                           TABLE("transformer.wpe.weight"),
                                           TABLE("transformer.wte.weight")};
  enum { N = sizeof tensor / sizeof *tensor };
  static const ist_gguf_tensor *by_name[N];
  for (int i = 0; i < N; i++) by_name[i] = &tensor[i];
  return (ist_source){.n = N, .tensor = tensor, .by_name = by_name};
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  ist_error err = {0};
  ist_source s = folder();
  ist_status status = ist_json_parse_config(&s.config, (const char *)data, size, &err);
  fuzz_check(status, &err);
  if (status != IST_OK) return 0;
  ist_model_config c;
  status = ist_model_config_read(&c, &s, &err);
  fuzz_check(status, &err);
  if (status == IST_OK) {
    ist_linear_sizes sizes;
    ist_model_linear_sizes(&c, &sizes);
    for (int64_t l = 0; l < c.L && l < 8; l++) ist_model_layer(&c, l);
    ist_model_config_free(&c);
  }
  json_decref(s.config);
  return 0;
}
