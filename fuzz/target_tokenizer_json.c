/* tokenizer.json and its fellows: text, tokenizer.json, tokenizer_config.json,
 * special_tokens_map.json, generation_config.json, chat_template.jinja. */
#include "fuzz.h"
#include "use_tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const char *const name[] = {"tokenizer.json", "tokenizer_config.json",
                                     "special_tokens_map.json", "generation_config.json",
                                     "chat_template.jinja"};
  fuzz_part part[6];
  fuzz_parts(data, size, part, 6);
  if (!part[1].p) return -1;
  for (int i = 0; i < 5; i++) fuzz_part_file(name[i], part[i + 1]);
  ist_error err = {0};
  ist_tokenizer *t = NULL;
  ist_status status = ist_tokenizer_open_json(&t, fuzz_folder(), &err);
  fuzz_check(status, &err);
  if (status != IST_OK) return 0;
  use_tokenizer(t, (const char *)part[0].p, part[0].n);
  ist_tokenizer_free(t);
  return 0;
}
