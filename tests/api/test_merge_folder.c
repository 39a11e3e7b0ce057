/* Merging into Hugging Face folders, of a GGUF and of another folder, for every family: read
 * again, they give the logits that transformers and PEFT gave. */
#include "../format/files.h"

#include <dirent.h>
#include <sys/stat.h>

#include "base/hash.h"
#include "format/gguf.h"
#include "format/quant.h"
#include "logits.h"
#include "model/model.h"

#define TINY     IST_GOLDEN_DIR "/llama_tiny/llama_tiny.gguf"
#define FAMILIES IST_GOLDEN_DIR "/families/"

static ist_error err;
enum { SHARD = 20000 }; /* bytes: several of every model */

static void test_folder(void **state) {
  (void)state;
  static const char out[] = "hf", index[] = "hf/model.safetensors.index.json",
                    first[] = "hf/model-00001-of-00002.safetensors",
                    whole[] = "hf/model.safetensors";
  ist_model *m = open_model(TINY);
  ist_merge_options o;
  ist_merge_options_init(&o);
  o.output = out;
  o.type = "F32";
  o.shard_bytes = 50000;
  ist_merge_result r;
  MUST(ist_merge(m, &o, NULL, NULL, &r, &err));
  assert_true(ist_file_exists(index) && ist_file_exists(first));
  assert_error(ist_merge(m, &o, NULL, NULL, &r, &err), IST_ERR_IO, &err, "is there already");
  o.overwrite = true;
  o.shard_bytes = 1 << 30;
  MUST(ist_merge(m, &o, NULL, NULL, &r, &err));
  assert_true(ist_file_exists(whole));
  assert_false(ist_file_exists(index) || ist_file_exists(first)); /* no stale shards */
  ist_safetensors *st;
  MUST(ist_safetensors_open(&st, whole, &err));
  assert_int_equal(st->n, 38);
  /* Rows are back in Hugging Face's order: row 1 of a head of six is row 2 of the file. */
  const ist_st_tensor *q = ist_safetensors_find(st, "model.layers.0.self_attn.q_proj.weight");
  const ist_gguf_tensor *file = ist_gguf_find_tensor(m->source.gguf, "blk.0.attn_q.weight");
  assert_memory_equal(q->data + 1 * 24 * 4, file->data + 2 * 24 * 4, 24 * 4);
  assert_memory_equal(q->data + 3 * 24 * 4, file->data + 1 * 24 * 4, 24 * 4);
  ist_safetensors_close(st);
  o.type = "Q8_0";
  assert_error(ist_merge(m, &o, NULL, NULL, &r, &err), IST_ERR_ARG, &err, "Hugging Face folder");
  ist_model_close(m);
}

/* ---- What is there already ---- */

/* Of the names and the bytes of a folder's files, in any order. */
static uint64_t digest(const char *dir) {
  DIR *d = opendir(dir);
  assert_non_null(d);
  uint64_t sum = 0;
  for (const struct dirent *e; (e = readdir(d));) {
    if (e->d_name[0] == '.') continue;
    ist_buf b = {0};
    char *path = ist_path_join(dir, e->d_name);
    MUST(ist_file_read(&b, path, 1 << 24, &err));
    ist_buf_add(&b, e->d_name, strlen(e->d_name));
    sum += ist_hash(1, b.p, b.len);
    ist_free(path);
    ist_buf_free(&b);
  }
  closedir(d);
  return sum;
}

static ist_status merge_tiny(bool overwrite, int64_t shard_bytes) {
  ist_model *m = open_model(TINY);
  ist_merge_options o;
  ist_merge_options_init(&o);
  o.output = "place";
  o.overwrite = overwrite;
  o.shard_bytes = shard_bytes;
  ist_merge_result r;
  ist_status s = ist_merge(m, &o, NULL, NULL, &r, &err);
  ist_model_close(m);
  return s;
}

static void no_more_than_place(void) {
  DIR *d = opendir(".");
  for (const struct dirent *e; (e = readdir(d));)
    if (strstr(e->d_name, ".tmp-")) fail_msg("%s is left", e->d_name);
  closedir(d);
}

/* A file that would be replaced, or weights that would be read with the new ones: not unasked.
 * What is neither stays. */
static void test_files_in_the_way(void **state) {
  (void)state;
  static const char *const names[] = {"config.json", "model.safetensors",
                                      "model.safetensors.index.json",
                                      "model-00001-of-00002.safetensors", "tokenizer.json"};
  MUST(ist_mkdirs("place", &err));
  MUST(ist_file_write("place/model-lora.safetensors", "mine", 4, &err));
  MUST(ist_file_write("place/README.md", "mine", 4, &err));
  const uint64_t others = digest("place");
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    char *path = ist_path_join("place", names[i]);
    MUST(ist_file_write(path, "mine", 4, &err));
    const uint64_t before = digest("place");
    assert_error(merge_tiny(false, 1 << 20), IST_ERR_IO, &err, path);
    assert_true(digest("place") == before);
    no_more_than_place();
    unlink(path);
    assert_int_equal(mkdir(path, 0777), 0);
    assert_error(merge_tiny(true, 1 << 20), IST_ERR_IO, &err, "not a regular file");
    rmdir(path);
    assert_true(digest("place") == others);
    ist_free(path);
  }
  MUST(merge_tiny(false, 1 << 20));
  MUST(merge_tiny(true, SHARD));
  assert_true(ist_file_exists("place/model.safetensors.index.json"));
  assert_false(ist_file_exists("place/model.safetensors"));
  assert_true(ist_file_exists("place/model-lora.safetensors"));
  assert_true(ist_file_exists("place/README.md"));
  no_more_than_place();
}

/* Whatever fails, the model that was to be replaced is whole. */
static void test_failed_replacement(void **state) {
  (void)state;
  const uint64_t before = digest("place");
  int failed = 0;
  for (uint64_t n = 1;; n++) {
    ist_write_fail_at(n);
    ist_status s = merge_tiny(true, 1 << 20);
    if (ist_write_fail_at(0) != 0) break;
    failed += s != IST_OK;
    if (s == IST_OK)
      MUST(merge_tiny(true, SHARD)); /* harmless: a folder that is there is not made */
    if (digest("place") != before) fail_msg("write %d left another folder", (int)n);
    no_more_than_place();
  }
  assert_true(failed > 20);
  assert_true(ist_file_exists("place/model.safetensors"));
  assert_false(ist_file_exists("place/model.safetensors.index.json"));
}

/* ---- Links ---- */

#define HF IST_GOLDEN_DIR "/llama_hf/"

static void link_to(const char *target, const char *path) {
  unlink(path);
  assert_int_equal(symlink(target, path), 0);
}

/* A copy of the golden folder's files in `dir`, each under blobs and as a link to it where `cache`.
 */
static void copy_folder(const char *dir, const char *blobs) {
  static const char *const names[] = {"config.json",       "generation_config.json",
                                      "tokenizer.json",    "tokenizer_config.json",
                                      "model.safetensors", "chat_template.jinja"};
  MUST(ist_mkdirs(dir, &err));
  if (blobs) MUST(ist_mkdirs(blobs, &err));
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    char from[256], to[256], target[256];
    ist_buf b = {0};
    snprintf(from, sizeof from, HF "%s", names[i]);
    snprintf(to, sizeof to, "%s/%s", blobs ? blobs : dir, names[i]);
    MUST(ist_file_read(&b, from, 1 << 24, &err));
    MUST(ist_file_write(to, b.p, b.len, &err));
    ist_buf_free(&b);
    if (!blobs) continue;
    snprintf(to, sizeof to, "%s/%s", dir, names[i]);
    snprintf(target, sizeof target, "../../blobs/%s", names[i]);
    link_to(target, to);
  }
}

static void merge_refused(const char *base, const char *part) {
  ist_merge_result r;
  assert_error(merge_into(base, NULL, "linked", "F16", 0, &r, &err), IST_ERR_UNSUPPORTED, &err,
               part);
  assert_false(ist_file_exists("linked"));
}

/* What a model's folder holds must not name other files of the machine. */
static void test_links(void **state) {
  (void)state;
  ist_merge_result r;
  ist_buf b = {0};
  MUST(ist_mkdirs("elsewhere", &err));
  MUST(ist_file_write("elsewhere/secret", "secret", 6, &err));
  copy_folder("plain", NULL);
  link_to("../elsewhere/secret", "plain/notes.txt");
  merge_refused("plain", "plain/notes.txt: found a link to /");
  merge_refused("plain/../plain/", "notes.txt: found a link to /");
  MUST(ist_mkdirs("plain2/blobs", &err)); /* no snapshot's */
  MUST(ist_file_write("plain2/blobs/secret", "secret", 6, &err));
  link_to("../plain2/blobs/secret", "plain/notes.txt");
  merge_refused("plain", "notes.txt: found a link to /");
  MUST(ist_mkdirs("xmodels--a--b/blobs", &err)); /* no model of the cache */
  MUST(ist_file_write("xmodels--a--b/blobs/0123", "secret", 6, &err));
  link_to("../xmodels--a--b/blobs/0123", "plain/notes.txt");
  merge_refused("plain", "notes.txt: found a link to /");
  MUST(ist_mkdirs("models--a--b/blobs/more", &err));
  MUST(ist_file_write("models--a--b/blobs/more/0123", "secret", 6, &err));
  link_to("../models--a--b/blobs/more/0123", "plain/notes.txt");
  merge_refused("plain", "notes.txt: found a link to /");
  MUST(ist_file_write("models--a--b/blobs/0123", "cached", 6, &err));
  link_to("../models--a--b/blobs/0123", "plain/notes.txt");
  MUST(merge_into("plain", NULL, "linked", "F16", 0, &r, &err));
  MUST(ist_file_read(&b, "linked/notes.txt", 10, &err));
  assert_string_equal(b.p, "cached");
  MUST(ist_remove_tree("linked", &err));
  /* Within the folder, and from a snapshot of the cache to its repository's blobs. */
  MUST(ist_mkdirs("plain/more", &err));
  MUST(ist_file_write("plain/more/notes", "notes", 5, &err));
  link_to("more/notes", "plain/notes.txt");
  MUST(merge_into("plain", NULL, "linked", "F16", 0, &r, &err));
  MUST(ist_file_read(&b, "linked/notes.txt", 10, &err));
  assert_string_equal(b.p, "notes");
  MUST(ist_remove_tree("linked", &err));
  copy_folder("repo/snapshots/0123", "repo/blobs");
  link_to("repo/snapshots/0123", "model"); /* as the user named it */
  MUST(merge_into("model", NULL, "linked", "F16", 0, &r, &err));
  assert_true(ist_file_exists("linked/tokenizer.json"));
  MUST(ist_remove_tree("linked", &err));
  link_to("../../../elsewhere/secret", "repo/snapshots/0123/vocab.json");
  merge_refused("repo/snapshots/0123", "vocab.json: found a link to /");
  merge_refused("model", "vocab.json: found a link to /");
  MUST(ist_mkdirs("repo/blobs2", &err));
  MUST(ist_file_write("repo/blobs2/secret", "secret", 6, &err));
  link_to("../../blobs2/secret", "repo/snapshots/0123/vocab.json");
  merge_refused("model", "vocab.json: found a link to /");
  static const char *const links[] = {
      "config.json",       "generation_config.json", "tokenizer.json", "tokenizer_config.json",
      "model.safetensors", "chat_template.jinja",    "vocab.json"};
  for (size_t i = 0; i < sizeof links / sizeof *links; i++) {
    char path[256];
    snprintf(path, sizeof path, "repo/snapshots/0123/%s", links[i]);
    unlink(path);
  }
  unlink("plain/notes.txt");
  unlink("model");
  ist_buf_free(&b);
}

/* ---- Types ---- */

/* The golden folder with its first tensor in doubles: no type that is written, but others are, and
 * nothing is lost in F32. */
static void test_doubles(void **state) {
  (void)state;
  ist_merge_result r;
  ist_safetensors *st;
  copy_folder("doubles", NULL);
  MUST(ist_safetensors_open(&st, HF "model.safetensors", &err));
  ist_st_item *items = calloc((size_t)st->n, sizeof *items);
  for (int64_t i = 0; i < st->n; i++) {
    const ist_st_tensor *t = &st->tensor[i];
    items[i] = (ist_st_item){.name = t->name, .type = t->type, .n_dims = t->n_dims};
    items[i].data = t->data;
    memcpy(items[i].shape, t->shape, sizeof t->shape);
  }
  const int64_t n = items[0].shape[0] * (items[0].n_dims > 1 ? items[0].shape[1] : 1);
  float *values = calloc((size_t)n, sizeof *values);
  double *doubles = calloc((size_t)n, sizeof *doubles);
  MUST(ist_st_to_f32(&st->tensor[0], values, n, &err));
  for (int64_t i = 0; i < n; i++) doubles[i] = (double)values[i];
  items[0].type = IST_F64;
  items[0].data = doubles;
  MUST(ist_safetensors_write("doubles/model.safetensors", items, st->n, NULL, 0, &err));
  assert_error(merge_into("doubles", NULL, "single", NULL, 0, &r, &err), IST_ERR_UNSUPPORTED, &err,
               items[0].name);
  assert_non_null(strstr(err.message, "found F64, which can be read but not written"));
  assert_non_null(strstr(err.hint, "--type F32"));
  assert_false(ist_file_exists("single"));
  no_more_than_place();
  MUST(merge_into("doubles", NULL, "single", "F32", 0, &r, &err));
  MUST(merge_into(HF, NULL, "plain-single", "F32", 0, &r, &err));
  assert_true(digest("single") == digest("plain-single"));
  free(items);
  free(values);
  free(doubles);
  ist_safetensors_close(st);
}

/* ---- Every family ---- */

/* A family's base, merged with its adapter (or with none) into `out`: the logits with it. */
static void check_family(const char *family, const char *file, bool adapted, const char *out,
                         const char *type, double limit) {
  char base[256], adapter[256], golden[256];
  ist_merge_result r;
  snprintf(base, sizeof base, FAMILIES "%s/%s", family, file);
  snprintf(adapter, sizeof adapter, FAMILIES "%s/adapter", family);
  snprintf(golden, sizeof golden, FAMILIES "%s/goldens.safetensors", family);
  MUST(merge_into(base, adapted ? adapter : NULL, out, type, SHARD, &r, &err));
  assert_true(adapted ? r.merged > 0 && r.change > 1e-3 : r.merged == 0 && r.change == 0);
  ist_model *m = open_model(out);
  double d = distance_to(m, golden, golden, adapted ? "logits_adapter_last" : "logits");
  if (!(d < limit))
    fail_msg("%s/%s %s: logits differ by %g", family, file, adapted ? "merged" : "converted", d);
  ist_model_close(m);
}

static void test_from_folder(void **state) {
  (void)state;
  static const char *const families[] = {
      "bloom",        "gemma",           "gemma2",     "gemma3",       "gpt2",
      "gpt_neox",     "gpt_neox_serial", "gptj",       "llama_biased", "llama_dynamic",
      "llama_linear", "llama_llama3",    "llama_yarn", "mistral",      "mixtral",
      "opt",          "opt_350m",        "phi3",       "qwen2",        "qwen2_moe",
      "qwen2_window", "qwen2_moe_mixed", "qwen3",      "qwen3_moe",    "qwen3_moe_plain",
      "smollm3"};
  for (size_t i = 0; i < sizeof families / sizeof *families; i++)
    check_family(families[i], "", true, "from-folder", "F32", 2e-5);
}

/* The families that llama.cpp knows. */
static const char *const ggufs[] = {
    "bloom",           "gemma",        "gemma2",     "gemma3",    "gpt2",   "gpt_neox",
    "gpt_neox_serial", "llama_biased", "llama_yarn", "mixtral",   "phi3",   "qwen2",
    "qwen2_moe",       "llama_llama3", "qwen3",      "qwen3_moe", "smollm3"};
#define N_GGUFS (sizeof ggufs / sizeof *ggufs)

/* As a folder, and with its adapter merged as a folder and as a GGUF. */
static void test_from_gguf(void **state) {
  (void)state;
  for (size_t i = 0; i < N_GGUFS; i++) {
    check_family(ggufs[i], "model.gguf", false, "from-gguf", "F32", 2e-5);
    check_family(ggufs[i], "model.gguf", true, "from-gguf", "F32", 2e-5);
    check_family(ggufs[i], "model.gguf", true, "from-gguf.gguf", "F32", 2e-5);
  }
}

/* What was turned on the way is rounded to the type asked for, and no more. */
static void test_turned_types(void **state) {
  (void)state;
  check_family("gpt2", "", true, "turned", "BF16", 0.05);
  check_family("gpt2", "model.gguf", true, "turned", NULL, 0.05);
  check_family("gpt2", "model.gguf", true, "turned", "F16", 5e-3);
}

/* ---- Rotary positions ---- */

/* A copy of a GGUF, to be written with more. */
static ist_gguf_writer *copy_of(const ist_gguf *g) {
  ist_gguf_writer *w = ist_gguf_writer_new();
  for (int64_t i = 0; i < g->n_kv; i++) ist_gguf_put_kv(w, &g->kv[i]);
  for (int64_t i = 0; i < g->n_tensors; i++) {
    const ist_gguf_tensor *t = &g->tensor[i];
    char name[96];
    snprintf(name, sizeof name, "%.*s", (int)t->name.len, t->name.p);
    ist_gguf_put_tensor_data(w, name, t->type, t->n_dims, t->ne, t->data);
  }
  return w;
}

/* Llama 3's divisors of the frequencies 10000^(-j / half), as llama.cpp's converter makes them. */
static void make_divisors(float *out, int64_t half, double factor, double low, double high,
                          double original) {
  for (int64_t j = 0; j < half; j++) {
    double wavelength = 2 * acos(-1.0) * pow(10000, (double)j / (double)half);
    double t = (original / wavelength - low) / (high - low);
    t = fmin(fmax(t, 0), 1);
    out[j] = (float)(1 / ((1 - t) / factor + t));
  }
}

static double number(const ist_model *m, const char *key) {
  return json_number_value(json_object_get(json_object_get(m->source.config, "rope_scaling"), key));
}

/* The settings that the divisors were made from are found again, or others that make the same. */
static void test_llama3_scaling(void **state) {
  (void)state;
  static const struct {
    double low, high, original;
    bool found; /* enough of the divisors lie between 1 and the factor */
  } cases[] = {{1, 4, 8192, true},   {1, 4, 100, true},   {1, 2.5, 1119, true},
               {1, 2.5, 512, false}, {2, 8, 4096, false}, {1, 1.05, 4096, false}};
  const ist_shape shape = {
      .L = 1, .D = 64, .F = 32, .H = 2, .K = 1, .E = 32, .V = 300, .context = 8192};
  MUST(ist_make_model("plain.gguf", &shape, "F32", 1, &err));
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    float divisors[16];
    make_divisors(divisors, 16, 8, cases[i].low, cases[i].high, cases[i].original);
    ist_gguf *g;
    MUST(ist_gguf_open(&g, "plain.gguf", &err));
    ist_gguf_writer *w = copy_of(g);
    ist_gguf_put_tensor_data(w, "rope_freqs.weight", IST_F32, 1, &(int64_t){16}, divisors);
    MUST(ist_gguf_write(w, "scaled.gguf", &err));
    ist_gguf_writer_free(w);
    ist_gguf_close(g);
    ist_merge_result r;
    MUST(merge_into("scaled.gguf", NULL, "scaled", "F32", SHARD, &r, &err));
    ist_model *from = open_model("scaled.gguf"), *to = open_model("scaled");
    for (int64_t j = 0; j < 16; j++)
      assert_true(fabs((double)(to->config.rope[0].freq[j] / from->config.rope[0].freq[j]) - 1) <
                  1e-5);
    assert_true(number(to, "factor") == 8);
    if (cases[i].found)
      assert_true(number(to, "high_freq_factor") == cases[i].high &&
                  number(to, "original_max_position_embeddings") == cases[i].original);
    ist_model_close(from);
    ist_model_close(to);
  }
}

/* A factor alone is a linear one, as in llama.cpp. */
static void test_factor_alone(void **state) {
  (void)state;
  static const float factors[] = {8, 1, 0};
  ist_merge_result r;
  for (size_t i = 0; i < sizeof factors / sizeof *factors; i++) {
    ist_gguf *g;
    MUST(ist_gguf_open(&g, TINY, &err));
    ist_gguf_writer *w = copy_of(g);
    ist_gguf_put_f32(w, "llama.rope.scaling.factor", factors[i]);
    MUST(ist_gguf_write(w, "factor.gguf", &err));
    ist_gguf_writer_free(w);
    ist_gguf_close(g);
    MUST(merge_into("factor.gguf", NULL, "factor", "F32", SHARD, &r, &err));
    ist_model *to = open_model("factor");
    assert_true(number(to, "factor") == (i == 0 ? 8 : 0));
    ist_model_close(to);
  }
}

/* ---- Biases in blocks ---- */

/* Rows of q and k change places, biases too, which may begin and end within a block. */
static void test_bias_in_blocks(void **state) {
  (void)state;
  static const struct {
    const char *name;
    int64_t n;
  } biases[] = {{"attn_q", 64}, {"attn_k", 32}, {"attn_v", 32}, {"attn_output", 64}};
  static const int32_t ids[] = {5, 30, 255, 7};
  enum { N = 4, V = 300 };
  const ist_shape shape = {
      .L = 1, .D = 64, .F = 32, .H = 4, .K = 2, .E = 16, .V = V, .context = 64};
  static float logits[2][N * V];
  unsigned char blocks[4][68]; /* until they are written */
  MUST(ist_make_model("plain.gguf", &shape, "F32", 1, &err));
  ist_gguf *g;
  MUST(ist_gguf_open(&g, "plain.gguf", &err));
  ist_gguf_writer *w = copy_of(g);
  for (size_t i = 0; i < sizeof biases / sizeof *biases; i++) {
    float values[64];
    char name[64];
    snprintf(name, sizeof name, "blk.0.%s.bias", biases[i].name);
    for (int64_t j = 0; j < biases[i].n; j++) values[j] = (float)(j * j % 37) / 20 - 1;
    ist_quantise(blocks[i], values, IST_Q8_0, biases[i].n);
    ist_gguf_put_tensor_data(w, name, IST_Q8_0, 1, &biases[i].n, blocks[i]);
  }
  MUST(ist_gguf_write(w, "biased.gguf", &err));
  ist_gguf_writer_free(w);
  ist_gguf_close(g);
  ist_merge_result r;
  MUST(merge_into("biased.gguf", NULL, "biased", "F32", 0, &r, &err));
  for (int i = 0; i < 2; i++) {
    ist_model *m = open_model(i ? "biased" : "biased.gguf");
    MUST(ist_model_logits(m, ids, N, logits[i], &err));
    ist_model_close(m);
  }
  for (int i = 0; i < N * V; i++) assert_true(fabs((double)(logits[0][i] - logits[1][i])) < 1e-4);
}

/* ---- What a folder cannot say ---- */

/* Key `key`, or a bias of zeros for the tensor `key`, added to a family's GGUF: odd.gguf. */
static void write_odd(const char *family, const char *key, int64_t bias) {
  static const float zeros[96];
  char path[256];
  ist_gguf *g;
  snprintf(path, sizeof path, FAMILIES "%s/model.gguf", family);
  MUST(ist_gguf_open(&g, path, &err));
  ist_gguf_writer *w = copy_of(g);
  if (bias)
    ist_gguf_put_tensor_data(w, key, IST_F32, 1, &bias, zeros);
  else
    ist_gguf_put_f32(w, key, 1.5f);
  MUST(ist_gguf_write(w, "odd.gguf", &err));
  ist_gguf_writer_free(w);
  ist_gguf_close(g);
}

static void check_refused(const char *family, const char *key, int64_t bias, const char *part) {
  ist_merge_result r;
  write_odd(family, key, bias);
  assert_error(merge_into("odd.gguf", NULL, "odd", NULL, SHARD, &r, &err), IST_ERR_UNSUPPORTED,
               &err, part);
  assert_false(ist_file_exists("odd"));
}

static void test_refusals(void **state) {
  (void)state;
  ist_merge_result r;
  check_refused("qwen3", "qwen3.rope.scaling.attn_factor", 0, "factor of rotation: found 1.5");
  check_refused("qwen2", "blk.1.attn_output.bias", 24, "attn_output.weight: found a bias");
  check_refused("mixtral", "output.bias", 96, "output.weight: found a bias");
  check_refused("qwen3", "blk.0.attn_k_norm.bias", 8, "attn_k_norm.weight: found a bias");
  check_refused("gemma2", "output_norm.bias", 24, "output_norm.weight: found a bias");
  assert_error(merge_into(FAMILIES "llama_linear", NULL, "folder.gguf", NULL, SHARD, &r, &err),
               IST_ERR_UNSUPPORTED, &err, "lacks its metadata");
  assert_false(ist_file_exists("folder.gguf"));
}

/* Biases that nothing would add: the model does not open. */
static void test_unknown_biases(void **state) {
  (void)state;
  static const struct {
    const char *family, *name;
    int64_t n;
  } rows[] = {{"qwen3_moe", "blk.1.ffn_gate_inp.bias", 5},
              {"qwen3_moe", "blk.0.ffn_up_exps.bias", 60},
              {"qwen2_moe", "blk.0.ffn_gate_inp_shexp.bias", 1},
              {"llama_biased", "token_embd.bias", 96},
              {"gpt2", "position_embd.bias", 64}};
  ist_model_options o;
  ist_model_options_init(&o);
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    ist_model *m;
    write_odd(rows[i].family, rows[i].name, rows[i].n);
    assert_error(ist_model_open(&m, "odd.gguf", &o, &err), IST_ERR_UNSUPPORTED, &err, rows[i].name);
    assert_non_null(strstr(err.message, "found a tensor that the architecture"));
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_folder),
      cmocka_unit_test(test_files_in_the_way),
      cmocka_unit_test(test_failed_replacement),
      cmocka_unit_test(test_links),
      cmocka_unit_test(test_doubles),
      cmocka_unit_test(test_from_folder),
      cmocka_unit_test(test_from_gguf),
      cmocka_unit_test(test_turned_types),
      cmocka_unit_test(test_llama3_scaling),
      cmocka_unit_test(test_factor_alone),
      cmocka_unit_test(test_bias_in_blocks),
      cmocka_unit_test(test_refusals),
      cmocka_unit_test(test_unknown_biases),
  };
  return cmocka_run_group_tests_name("merge_folder", tests, enter_folder, leave_folder);
}
