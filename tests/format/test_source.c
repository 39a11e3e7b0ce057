/* Models in several files: Hugging Face folders that transformers wrote, split GGUF
 * files, and what must be refused about them. */
#include "files.h"

#include "format/source.h"

#define WHOLE   IST_GOLDEN_DIR "/llama_hf"
#define SHARDED IST_GOLDEN_DIR "/llama_hf_sharded"
#define INDEX   "model.safetensors.index.json"
#define SHARD_4 "model-00004-of-00004.safetensors"

static char *folder;

static int setup(void **state) {
  (void)state;
  folder = make_folder();
  return 0;
}

static int teardown(void **state) {
  (void)state;
  remove_folder(folder);
  return 0;
}

static void read_file(ist_buf *out, const char *dir, const char *name) {
  ist_error err = {0};
  char *path = ist_path_join(dir, name);
  if (ist_file_read(out, path, 1 << 24, &err) != IST_OK) fail_msg("%s", err.message);
  ist_free(path);
}

static void put(const char *name, const void *bytes, size_t len) {
  char *path = ist_path_join(folder, name);
  write_bytes(path, bytes, len);
  ist_free(path);
}

static void copy(const char *dir, const char *name) {
  ist_buf b = {0};
  read_file(&b, dir, name);
  put(name, b.p, b.len);
  ist_buf_free(&b);
}

static void copy_sharded(void) {
  static const char *const names[] = {
      "config.json",
      INDEX,
      "model-00001-of-00004.safetensors",
      "model-00002-of-00004.safetensors",
      "model-00003-of-00004.safetensors",
      SHARD_4,
  };
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) copy(SHARDED, names[i]);
}

static void refuse(const char *path, const char *part) {
  ist_source s;
  ist_error err = {0};
  assert_error(ist_source_open(&s, path, &err), IST_ERR_FORMAT, &err, part);
}

static void test_whole(void **state) {
  (void)state;
  ist_source s;
  ist_error err = {0};
  if (ist_source_open(&s, WHOLE, &err) != IST_OK) fail_msg("%s", err.message);
  assert_null(s.gguf);
  assert_int_equal(s.n, 38);
  assert_string_equal(json_string_value(json_object_get(s.config, "model_type")), "llama");
  const ist_gguf_tensor *t = ist_source_find(&s, "model.layers.3.mlp.down_proj.weight");
  assert_non_null(t);
  assert_int_equal(t->ne[0], 36);
  assert_int_equal(t->ne[1], 24);
  assert_int_equal(t->type, IST_F32);
  assert_null(ist_source_find(&s, "model.layers.4.mlp.down_proj.weight"));
  assert_null(ist_source_find(&s, ""));
  ist_source_close(&s);
}

/* Every shard's tensors, rounded to bf16 from the single file's. */
static void test_sharded(void **state) {
  (void)state;
  ist_source whole, parts;
  ist_error err = {0};
  assert_int_equal(ist_source_open(&whole, WHOLE, &err), IST_OK);
  if (ist_source_open(&parts, SHARDED, &err) != IST_OK) fail_msg("%s", err.message);
  assert_int_equal(parts.n_shards, 4);
  assert_int_equal(parts.n, whole.n);
  for (int64_t i = 0; i < whole.n; i++) {
    char name[80];
    snprintf(name, sizeof name, "%.*s", (int)whole.tensor[i].name.len, whole.tensor[i].name.p);
    const ist_gguf_tensor *a = &whole.tensor[i], *b = ist_source_find(&parts, name);
    assert_non_null(b);
    assert_int_equal(b->type, IST_BF16);
    assert_memory_equal(a->ne, b->ne, sizeof a->ne);
    for (int64_t j = 0; j < b->bytes / 2; j++) {
      float f;
      ist_bf16 h;
      memcpy(&f, a->data + 4 * j, 4);
      memcpy(&h, b->data + 2 * j, 2);
      assert_int_equal(ist_f32_to_bf16(f), h);
    }
  }
  ist_source_close(&whole);
  ist_source_close(&parts);
}

/* Replaces the first `from` in the copied file by `to`. */
static void replace(const char *name, const char *from, const char *to) {
  ist_buf b = {0}, out = {0};
  read_file(&b, folder, name);
  const char *at = strstr(b.p, from);
  assert_non_null(at);
  ist_buf_add(&out, b.p, (size_t)(at - b.p));
  ist_buf_str(&out, to);
  ist_buf_str(&out, at + strlen(from));
  put(name, out.p, out.len);
  ist_buf_free(&b);
  ist_buf_free(&out);
}

static void test_index_refused(void **state) {
  (void)state;
  static const struct {
    const char *from, *to, *part;
  } cases[] = {
      {"\"model-00001-of-00004", "\"../model-00001-of-00004", "the name of a file beside"},
      {"\"model-00001-of-00004", "\"/etc/model-00001-of-00004", "the name of a file beside"},
      {"\"model-00001-of-00004", "\"a\\\\model-00001-of-00004", "the name of a file beside"},
      {"\"model-00001-of-00004.safetensors\"", "\"\"", "the name of a file beside"},
      {"\"model-00001-of-00004.safetensors\"", "7", "an integer"},
      {"\"model-00001-of-00004.safetensors\"", "null", "null"},
      {"\"model.embed_tokens.weight\"", "\"model.embed.weight\"", "no such tensor in"},
      {"\"weight_map\"", "\"map\"", "weight_map: found nothing"},
      {"\"model.embed_tokens.weight\"", "\"model.norm.weight\"", "duplicate"},
      {"{", "[", "JSON"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    copy_sharded();
    replace(INDEX, cases[i].from, cases[i].to);
    refuse(folder, cases[i].part);
  }
  copy_sharded();
  put(INDEX, "{\"weight_map\": {}}", 18);
  refuse(folder, "an empty one");
  /* A tensor in two files. */
  copy_sharded();
  copy(SHARDED, "model-00001-of-00004.safetensors");
  ist_buf b = {0};
  read_file(&b, SHARDED, "model-00001-of-00004.safetensors");
  put(SHARD_4, b.p, b.len);
  ist_buf_free(&b);
  ist_source s;
  ist_error err = {0};
  assert_int_not_equal(ist_source_open(&s, folder, &err), IST_OK);
}

static void test_files_missing(void **state) {
  (void)state;
  ist_source s;
  ist_error err = {0};
  assert_error(ist_source_open(&s, folder, &err), IST_ERR_IO, &err, "config.json");
  copy(WHOLE, "config.json");
  refuse(folder, "neither model.safetensors nor");
  put("pytorch_model.bin", "x", 1);
  assert_int_equal(ist_source_open(&s, folder, &err), IST_ERR_FORMAT);
  assert_non_null(strstr(err.hint, "pickle"));
  copy_sharded();
  char *path = ist_path_join(folder, SHARD_4);
  assert_int_equal(remove(path), 0);
  ist_free(path);
  assert_error(ist_source_open(&s, folder, &err), IST_ERR_IO, &err, SHARD_4);
}

/* A file of the folder cut at every byte is an error. The JSON files end in a line
 * feed, which may be missing. */
static void test_truncated(void **state) {
  (void)state;
  static const char *const names[] = {"config.json", INDEX, SHARD_4};
  copy_sharded();
  for (size_t n = 0; n < sizeof names / sizeof *names; n++) {
    ist_buf b = {0};
    read_file(&b, SHARDED, names[n]);
    size_t whole = b.len - (b.p[b.len - 1] == '\n');
    /* Of a header every byte, of the data and of the index some. */
    for (size_t len = 0; len < whole; len += n == 0 || len < 400 ? 1 : 29) {
      put(names[n], b.p, len);
      ist_source s;
      ist_error err = {0};
      if (ist_source_open(&s, folder, &err) == IST_OK) fail_msg("%s: %zu bytes", names[n], len);
      if (!strstr(err.message, names[n]) && n != 1) fail_msg("%s: %s", names[n], err.message);
    }
    put(names[n], b.p, b.len);
    ist_buf_free(&b);
  }
}

/* A sum over all bytes: reads them, as the sanitizers see. */
static unsigned touch(const ist_source *s) {
  unsigned sum = 0;
  for (int64_t i = 0; i < s->n; i++) {
    for (int64_t j = 0; j < s->tensor[i].bytes; j += 64) sum += s->tensor[i].data[j];
  }
  return sum;
}

/* Bytes changed at random: an error or a source that holds, never a crash. */
static void test_mutated(void **state) {
  (void)state;
  static const char *const names[] = {"config.json", INDEX, SHARD_4};
  uint32_t seed = 12345;
  unsigned sum = 0;
  copy_sharded();
  for (size_t n = 0; n < sizeof names / sizeof *names; n++) {
    ist_buf b = {0};
    read_file(&b, SHARDED, names[n]);
    size_t span = b.len < 3500 ? b.len : 3500; /* the header */
    for (int round = 0; round < 300; round++) {
      char old[3];
      size_t at[3];
      for (int i = 0; i < 3; i++) {
        seed = seed * 1664525u + 1013904223u;
        at[i] = (seed >> 8) % span;
        old[i] = b.p[at[i]];
        b.p[at[i]] = (char)(round % 2 ? seed >> 24 : (uint32_t) "0123456789{}[],\":-"[seed % 18]);
      }
      put(names[n], b.p, b.len);
      ist_source s;
      ist_error err = {0};
      if (ist_source_open(&s, folder, &err) == IST_OK) {
        sum += touch(&s);
        ist_source_close(&s);
      }
      for (int i = 2; i >= 0; i--) b.p[at[i]] = old[i];
    }
    put(names[n], b.p, b.len);
    ist_buf_free(&b);
  }
  (void)sum;
}

/* ---- Split GGUF ----------------------------------------------------------------------- */

typedef struct split {
  int no, count, tensors; /* keys of part 2 (no) and of part 1 (tensors) */
  bool same_name;         /* the parts share a tensor's name */
} split;

static void write_part(const char *name, int no, int count, int total, const char *const *tensors,
                       int n) {
  ist_gguf_writer *w = ist_gguf_writer_new();
  static const float data[2][4] = {{1, 2, 3, 4}, {5, 6, 7, 8}};
  const int64_t ne[1] = {4};
  if (no == 0) ist_gguf_put_str(w, "general.architecture", "llama", 5);
  ist_gguf_put_u32(w, "split.no", (uint32_t)no);
  ist_gguf_put_u32(w, "split.count", (uint32_t)count);
  ist_gguf_put_u32(w, "split.tensors.count", (uint32_t)total);
  for (int i = 0; i < n; i++)
    ist_gguf_put_tensor_data(w, tensors[i], IST_F32, 1, ne, data[(no + i) % 2]);
  char *path = ist_path_join(folder, name);
  ist_error err = {0};
  if (ist_gguf_write(w, path, &err) != IST_OK) fail_msg("%s", err.message);
  ist_gguf_writer_free(w);
  ist_free(path);
}

static void write_split(const split *s) {
  const char *const first[] = {"a", "c"}, *const second[] = {s->same_name ? "a" : "b"};
  write_part("m-00001-of-00002.gguf", 0, 2, s->tensors, first, 2);
  write_part("m-00002-of-00002.gguf", s->no, s->count, s->tensors, second, 1);
}

static void test_split(void **state) {
  (void)state;
  write_split(&(split){1, 2, 3, false});
  char *path = ist_path_join(folder, "m-00001-of-00002.gguf");
  ist_source s;
  ist_error err = {0};
  if (ist_source_open(&s, path, &err) != IST_OK) fail_msg("%s", err.message);
  assert_int_equal(s.n, 3);
  const ist_gguf_tensor *b = ist_source_find(&s, "b");
  assert_non_null(b);
  float v;
  memcpy(&v, b->data, sizeof v);
  assert_true(v == 5.0f);
  assert_non_null(ist_source_find(&s, "a"));
  assert_null(ist_source_find(&s, "d"));
  ist_str arch;
  assert_int_equal(ist_gguf_get_str(s.gguf, "general.architecture", true, &arch, &err), IST_OK);
  ist_source_close(&s);
  /* Other numbers, other names. */
  write_split(&(split){0, 2, 3, false});
  refuse(path, "found split.no 0 of split.count 2, expected 1 of 2");
  write_split(&(split){1, 3, 3, false});
  refuse(path, "of split.count 3");
  write_split(&(split){1, 2, 4, false});
  refuse(path, "found 3 tensors in the 2 files, expected split.tensors.count 4");
  write_split(&(split){1, 2, 3, true});
  refuse(path, "a: found in two of the model's files");
  write_split(&(split){1, 2, 3, false});
  char *second = ist_path_join(folder, "m-00002-of-00002.gguf");
  refuse(second, "expected the first of 2");
  char *other = ist_path_join(folder, "other.gguf");
  assert_int_equal(rename(path, other), 0);
  refuse(other, "expected the first of 2");
  assert_int_equal(rename(other, path), 0);
  assert_int_equal(remove(second), 0);
  assert_error(ist_source_open(&s, path, &err), IST_ERR_IO, &err, "m-00002-of-00002.gguf");
  ist_free(path);
  ist_free(second);
  ist_free(other);
}

/* "no limit" of tokenizer_config.json is beyond 64 bits: the others stay integers. */
static void test_huge_integer(void **state) {
  (void)state;
  static const char text[] = "{\"n\": 1000000000000000019884624838656, \"k\": 3}";
  json_t *v;
  ist_error err = {0};
  if (ist_json_parse_config(&v, text, sizeof text - 1, &err) != IST_OK) fail_msg("%s", err.message);
  assert_true(json_number_value(json_object_get(v, "n")) > 9e29);
  assert_true(json_is_integer(json_object_get(v, "k")));
  assert_int_equal(json_integer_value(json_object_get(v, "k")), 3);
  json_decref(v);
  assert_int_equal(ist_json_parse(&v, text, sizeof text - 1, &err), IST_ERR_FORMAT);
}

/* Of tensors that are not written yet, in any order; a name that comes twice is refused. */
static void test_draft(void **state) {
  (void)state;
  ist_st_item items[] = {{.name = "b", .type = IST_F32, .n_dims = 2, .shape = {3, 5}},
                         {.name = "c", .type = IST_BF16, .n_dims = 1, .shape = {7}},
                         {.name = "a", .type = IST_F16, .n_dims = 1, .shape = {2}}};
  ist_source s;
  ist_error err = {0};
  if (ist_source_draft(&s, NULL, items, 3, &err) != IST_OK) fail_msg("%s", err.message);
  for (int i = 0; i < 3; i++) {
    const ist_gguf_tensor *t = ist_source_find(&s, items[i].name);
    assert_non_null(t);
    assert_int_equal(t->type, items[i].type);
    assert_int_equal(t->ne[0], items[i].shape[items[i].n_dims - 1]);
  }
  assert_null(ist_source_find(&s, "d"));
  ist_source_close(&s);
  items[1].name = "b";
  assert_true(ist_source_draft(&s, NULL, items, 3, &err) != IST_OK);
  assert_non_null(strstr(err.message, "b"));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_whole),
      cmocka_unit_test(test_draft),
      cmocka_unit_test(test_sharded),
      cmocka_unit_test_setup_teardown(test_index_refused, setup, teardown),
      cmocka_unit_test_setup_teardown(test_files_missing, setup, teardown),
      cmocka_unit_test_setup_teardown(test_truncated, setup, teardown),
      cmocka_unit_test_setup_teardown(test_mutated, setup, teardown),
      cmocka_unit_test_setup_teardown(test_split, setup, teardown),
      cmocka_unit_test(test_huge_integer),
  };
  return cmocka_run_group_tests_name("source", tests, NULL, NULL);
}
