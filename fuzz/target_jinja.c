/* Chat templates: a template, the line "%%", and the values (JSON) where they are not the
 * usual ones. */
#include <string.h>

#include "fuzz.h"
#include "jinja/jinja.h"

static const char usual[] =
    "{\"messages\":[{\"role\":\"system\",\"content\":\"be \\u00e9\"},{\"role\":\"user\","
    "\"content\":\"hi <b>\"},{\"role\":\"assistant\",\"content\":\"yes\\n\",\"n\":[1,2.5,null]}],"
    "\"bos_token\":\"<s>\",\"eos_token\":\"</s>\",\"add_generation_prompt\":true,"
    "\"tools\":[{\"name\":\"f\",\"parameters\":{\"b\":1,\"a\":\"x\"}}]}";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  fuzz_part part[2];
  fuzz_parts(data, size, part, 2);
  ist_error err = {0};
  ist_jinja *t;
  ist_status status = ist_jinja_parse(&t, (const char *)part[0].p, part[0].n, &err);
  fuzz_check(status, &err);
  if (status != IST_OK) return 0;
  json_t *values = part[1].p ? json_loadb((const char *)part[1].p, part[1].n, 0, NULL) : NULL;
  if (!json_is_object(values)) {
    json_decref(values);
    values = json_loadb(usual, strlen(usual), 0, NULL);
  }
  /* Smaller limits than a command's, so that a template that runs into them is soon done. */
  const ist_jinja_options o = {
      .now = 1721901600, .max_steps = 100000, .max_memory = (size_t)16 << 20};
  ist_buf text = {0};
  uint16_t *origin = NULL;
  status = ist_jinja_render(t, values, &o, &text, &origin, &err);
  fuzz_check(status, &err);
  ist_free(origin);
  ist_buf_free(&text);
  json_decref(values);
  ist_jinja_free(t);
  return 0;
}
