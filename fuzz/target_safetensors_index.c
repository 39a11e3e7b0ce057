/* model.safetensors.index.json and two shards: index, a.safetensors, b.safetensors. */
#include "format/source.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  fuzz_part part[3];
  fuzz_parts(data, size, part, 3);
  fuzz_file("config.json", "{}", 2);
  fuzz_part_file("model.safetensors.index.json", part[0]);
  fuzz_safetensors_file("a.safetensors", part[1]);
  fuzz_safetensors_file("b.safetensors", part[2]);
  ist_error err = {0};
  ist_source s;
  ist_status status = ist_source_open_folder(&s, fuzz_folder(), &err);
  fuzz_check(status, &err);
  if (status != IST_OK) return 0;
  volatile unsigned char last;
  for (int64_t i = 0; i < s.n; i++)
    if (s.tensor[i].bytes) last = s.tensor[i].data[s.tensor[i].bytes - 1];
  (void)last;
  ist_source_find(&s, "model.norm.weight");
  ist_source_close(&s);
  return 0;
}
