/* settings.json of a run, as --resume reads it. */
#include "fuzz.h"
#include "opts.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  fuzz_file("settings.json", data, size);
  ist_args a;
  ist_args_init(&a);
  ist_error err = {0};
  ist_status status = ist_settings_apply(&a, fuzz_folder(), &err);
  fuzz_check(status, &err);
  ist_args_free(&a);
  return 0;
}
