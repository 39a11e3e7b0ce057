/* A PEFT adapter: adapter_config.json, adapter_model.safetensors. */
#include "format/peft_dir.h"
#include "format/peft_match.h"
#include "fuzz.h"
#include "use_model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  fuzz_part part[2];
  fuzz_parts(data, size, part, 2);
  fuzz_part_file("adapter_config.json", part[0]);
  fuzz_safetensors_file("adapter_model.safetensors", part[1]);
  ist_error err = {0};
  ist_peft_dir *d;
  ist_status status = ist_peft_open(&d, fuzz_folder(), &err);
  fuzz_check(status, &err);
  if (status != IST_OK) return 0;
  ist_peft_rules *rules;
  status = ist_peft_rules_new(&rules, &d->config, &err);
  fuzz_check(status, &err);
  if (status == IST_OK) {
    ist_peft_rules_find(rules, "model.layers.1.self_attn.q_proj", IST_PEFT_LINEAR);
    ist_peft_rules_find(rules, "lm_head", IST_PEFT_HEAD);
    ist_peft_rules_free(rules);
  }
  ist_peft_close(d);
  use_adapter(fuzz_folder());
  char *json = NULL;
  status = ist_inspect(fuzz_folder(), &json, &err);
  fuzz_check(status, &err);
  if (status == IST_OK) ist_free_memory(json);
  return 0;
}
