/* safetensors: the header, and every tensor's last byte. */
#include <stdio.h>
#include <stdlib.h>

#include "format/safetensors.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  ist_error err = {0};
  ist_safetensors *s;
  fuzz_safetensors_file("model.safetensors", (fuzz_part){data, size});
  char path[256];
  snprintf(path, sizeof path, "%s/model.safetensors", fuzz_folder());
  ist_status status = ist_safetensors_open(&s, path, &err);
  fuzz_check(status, &err);
  if (status != IST_OK) return 0;
  volatile unsigned char last;
  for (int64_t i = 0; i < s->n; i++) {
    const ist_st_tensor *t = &s->tensor[i];
    if (ist_safetensors_find(s, t->name) != t) abort();
    if (t->bytes) last = t->data[t->bytes - 1];
    float out[16];
    int64_t n = 1;
    for (int d = 0; d < t->n_dims; d++) n *= t->shape[d];
    if (n <= 16) ist_st_to_f32(t, out, n, &err);
  }
  (void)last;
  ist_safetensors_meta(s, "format");
  ist_safetensors_close(s);
  return 0;
}
