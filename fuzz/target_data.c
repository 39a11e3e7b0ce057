/* Data files: a letter says which kind (j JSON lines or an array, c CSV, t text; each may be
 * packed), then the file. */
#include <stdio.h>
#include <stdlib.h>

#include "data/reader.h"
#include "fuzz.h"

/* A byte-level vocabulary without merges but for the 256 bytes: enough to tokenise anything. */
static const ist_tokenizer *tokenizer(void) {
  static ist_tokenizer *t;
  static const char json[] =
      "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\"<unk>\":3},"
      "\"merges\":[\"a b\"],\"unk_token\":\"<unk>\"},\"added_tokens\":[{\"id\":4,\"content\":"
      "\"</s>\",\"special\":true,\"single_word\":false,\"lstrip\":false,\"rstrip\":false,"
      "\"normalized\":false}],\"normalizer\":null,\"pre_tokenizer\":null,\"decoder\":null,"
      "\"post_processor\":null}";
  static const char config[] = "{\"eos_token\":\"</s>\"}";
  if (t) return t;
  fuzz_file("tokenizer.json", json, sizeof json - 1);
  fuzz_file("tokenizer_config.json", config, sizeof config - 1);
  if (ist_tokenizer_open_json(&t, fuzz_folder(), NULL) != IST_OK) abort();
  return t;
}

/* Records one at a time, behind bad ones as well. */
static void read_records(const char *path) {
  ist_error err = {0};
  ist_reader *r;
  ist_status status = ist_reader_open(&r, path, &err);
  fuzz_check(status, &err);
  if (status != IST_OK) return;
  for (bool more = true; more;) {
    ist_record record = {0};
    status = ist_reader_next(r, &record, &more, &err);
    fuzz_check(status, &err);
    if (status == IST_OK && more) ist_record_free(&record);
  }
  ist_reader_close(r);
}

static void build(const char *path, ist_template tmpl) {
  ist_error err = {0};
  ist_dataset d = {0};
  const ist_data_options o = {.tmpl = tmpl, .max_tokens = 256};
  ist_status status = ist_dataset_append(&d, path, tokenizer(), &o, &err);
  fuzz_check(status, &err);
  if (status == IST_OK) status = ist_dataset_ready(&d, &err);
  fuzz_check(status, &err);
  for (int64_t i = 0; status == IST_OK && i < d.n; i++)
    if (d.p[i].n > 256 || d.p[i].n_target > d.p[i].n) abort();
  ist_dataset_free(&d);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size == 0) return -1;
  const char *name = data[0] == 'c' ? "data.csv" : data[0] == 't' ? "data.txt" : "data.jsonl";
  tokenizer();
  char path[256];
  snprintf(path, sizeof path, "%s", fuzz_file(name, data + 1, size - 1));
  read_records(path);
  build(path, IST_TEMPLATE_NONE);
  build(path, IST_TEMPLATE_PAPER);
  return 0;
}
