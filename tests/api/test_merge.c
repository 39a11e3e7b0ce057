/* Adapters that PEFT wrote (tests/golden/adapters): merged, they give PEFT's logits; put
 * on the model, too; what does not fit is refused in one line. */
#include "../format/files.h"

#include <math.h>

#include "base/mem.h"
#include "export/updates.h"
#include "format/lora_gguf.h"
#include "logits.h"

#define TINY     IST_GOLDEN_DIR "/llama_tiny/llama_tiny.gguf"
#define ADAPTERS IST_GOLDEN_DIR "/adapters/"

static ist_error err;
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

/* The distance from what PEFT gives with an adapter of tests/golden/adapters. */
static double distance(ist_model *m, const char *adapter) {
  return distance_to(m, IST_GOLDEN_DIR "/llama_tiny/goldens.safetensors",
                     ADAPTERS "goldens.safetensors", adapter);
}

static char *join(const char *name) {
  char *path = ist_path_join(folder, name);
  assert_non_null(path);
  return path;
}

static ist_status merge(const char *adapter, const char *output, const char *type,
                        ist_merge_result *r) {
  return merge_into(TINY, adapter, output, type, 0, r, &err);
}

static const char *const linear[] = {"rslora", "patterns",  "layers", "regex", "dora",
                                     "bf16",   "embedding", "head",   "saved"};
#define N_LINEAR  (sizeof linear / sizeof *linear)
#define N_RUNNING N_LINEAR /* of those, what the engine runs unmerged */

static void test_merged_gives_pefts_logits(void **state) {
  (void)state;
  char *out = join("merged.gguf");
  for (size_t i = 0; i < N_LINEAR; i++) {
    char adapter[256];
    ist_merge_result r;
    snprintf(adapter, sizeof adapter, ADAPTERS "%s", linear[i]);
    MUST(merge(adapter, out, NULL, &r));
    assert_true(r.merged > 0 && r.change > 0.01 && r.error < 1e-6);
    ist_model *m = open_model(out);
    double d = distance(m, linear[i]);
    if (!(d < 1e-5)) fail_msg("%s merged: logits differ by %g", linear[i], d);
    ist_model_close(m);
  }
  ist_free(out);
}

static void test_unmerged_gives_pefts_logits(void **state) {
  (void)state;
  ist_model *m = open_model(TINY);
  for (size_t i = 0; i < N_RUNNING; i++) {
    char adapter[256];
    snprintf(adapter, sizeof adapter, ADAPTERS "%s", linear[i]);
    MUST(ist_model_set_adapter(m, adapter, &err));
    double d = distance(m, linear[i]);
    if (!(d < 1e-5)) fail_msg("%s: logits differ by %g", linear[i], d);
  }
  ist_model_close(m);
}

/* The bias of LoRA's B: runs as PEFT's, and is refused where it would have to be merged. */
static void test_bias(void **state) {
  (void)state;
  ist_model *m = open_model(TINY);
  MUST(ist_model_set_adapter(m, ADAPTERS "bias", &err));
  double d = distance(m, "bias");
  if (!(d < 1e-5)) fail_msg("bias: logits differ by %g", d);
  ist_model_close(m);
  char *out = join("biased.gguf");
  ist_merge_result r;
  assert_int_equal(merge(ADAPTERS "bias", out, NULL, &r), IST_ERR_UNSUPPORTED);
  assert_non_null(strstr(err.message, "lora_bias"));
  assert_false(ist_file_exists(out));
  ist_free(out);
}

static double loss(ist_model *m, const char *adapter, const char *data) {
  ist_eval_options e;
  ist_eval_options_init(&e);
  e.data_path = data;
  e.template_name = "none";
  ist_loss_result r;
  MUST(ist_model_set_adapter(m, adapter, &err));
  MUST(ist_eval_loss(m, &e, &r, &err));
  return r.loss;
}

/* A run that goes on from an adapter: its first loss is the loss with the adapter; what it writes
 * is of the same kind and gives the loss that the run ended with. */
static void check_trained_on(ist_model *m, const char *name, const char *data, const char *out) {
  char adapter[256];
  snprintf(adapter, sizeof adapter, ADAPTERS "%s", name);
  double plain = loss(m, NULL, data), with = loss(m, adapter, data), last;
  ist_train_options o;
  ist_train_options_init(&o);
  o.train_path = o.valid_path = data;
  o.template_name = "none";
  o.loss_on = "all";
  o.probe_examples = 0;
  o.batch = 3;
  o.steps = 2;
  o.selector = "all";
  o.output = out;
  o.overwrite = true;
  ist_trainer *t;
  ist_step_report r;
  MUST(ist_trainer_open(&t, m, &o, &err));
  MUST(ist_trainer_step(t, &r, &err));
  if (!(fabs(with - plain) > 0.01 && fabs(r.loss - with) < 1e-5))
    fail_msg("%s: loss %g at the first step, %g with the adapter, %g without", name, r.loss, with,
             plain);
  MUST(ist_trainer_step(t, &r, &err));
  MUST(ist_trainer_finish(t, &err));
  MUST(ist_trainer_validate(t, &last, &err));
  ist_trainer_close(t);
  double again = loss(m, out, data);
  if (!(fabs(again - last) < 1e-5 && last < with))
    fail_msg("%s: loss %g at the end, %g of what was written, %g before", name, last, again, with);
}

static void test_trained_on(void **state) {
  (void)state;
  static const char text[] =
      "{\"text\": \"and the rest of it\"}\n{\"text\": \"one on one\"}\n{\"text\": \"the end\"}\n";
  char *data = join("data.jsonl"), *out = join("onward");
  write_bytes(data, text, sizeof text - 1);
  ist_model *m = open_model(TINY);
  for (size_t i = 0; i < N_RUNNING; i++) check_trained_on(m, linear[i], data, out);
  ist_model_close(m);
  ist_free(data);
  ist_free(out);
}

/* Every method that has no PEFT counterpart, or none that merges: written by a run, read again,
 * trained on, and refused by merge with the reason. */
static const struct {
  const char *method, *act, *rank_pattern, *layers, *why;
  bool learned, bias;
} others[] = {
    {"parallel", "tanh", "down=6", NULL, "a bottleneck adapter, which works beside", false, false},
    {"parallel", "gelu", NULL, "1-2", "a bottleneck adapter, which works beside", true, false},
    {"series", "silu", NULL, NULL, "a bottleneck adapter, which works beside", false, false},
    {"series", "relu", "layers.2.mlp.up_proj=2", "0,2", "cannot be merged", true, false},
    {"prefix", "tanh", NULL, NULL, "a prefix, which works beside", false, false},
    {"lora", "tanh", NULL, NULL, "a bias of LoRA's B", false, true},
};

static ist_train_options other_options(size_t i, const char *data, const char *out) {
  ist_train_options o;
  ist_train_options_init(&o);
  o.train_path = o.valid_path = data;
  o.template_name = "none";
  o.loss_on = "all";
  o.probe_examples = 0;
  o.rank = 4;
  o.batch = 3;
  o.steps = 2;
  o.lr = 1e-2;
  o.warmup_steps = 0;
  o.selector = "all";
  o.output = out;
  o.overwrite = true;
  o.method = others[i].method;
  o.activation = others[i].act;
  o.rank_pattern = others[i].rank_pattern;
  o.layers_to_transform = others[i].layers;
  if (others[i].layers) o.targets = "q,o,up";
  o.learned_scaling = others[i].learned;
  o.lora_bias = others[i].bias;
  return o;
}

static void check_other(ist_model *m, size_t i, const char *data, const char *out,
                        const char *again) {
  ist_train_options o = other_options(i, data, out);
  ist_trainer *t;
  ist_step_report r;
  double last;
  MUST(ist_model_set_adapter(m, NULL, &err));
  MUST(ist_trainer_open(&t, m, &o, &err));
  for (int k = 0; k < 2; k++) MUST(ist_trainer_step(t, &r, &err));
  MUST(ist_trainer_finish(t, &err));
  MUST(ist_trainer_validate(t, &last, &err));
  ist_trainer_close(t);
  double plain = loss(m, NULL, data), with = loss(m, out, data);
  if (!(fabs(with - last) < 1e-5 && fabs(with - plain) > 1e-4))
    fail_msg("%zu %s: loss %g at the end, %g of what was written, %g of the base", i, o.method,
             last, with, plain);
  ist_train_options onward;
  ist_train_options_init(&onward);
  o.method = "lora"; /* the default: the adapter's own is taken */
  o.rank_pattern = o.layers_to_transform = NULL;
  o.targets = onward.targets;
  o.learned_scaling = o.lora_bias = false;
  o.output = again;
  MUST(ist_trainer_open(&t, m, &o, &err));
  MUST(ist_trainer_step(t, &r, &err));
  if (!(fabs(r.loss - with) < 1e-5)) fail_msg("%zu: loss %g, expected %g", i, r.loss, with);
  MUST(ist_trainer_finish(t, &err));
  MUST(ist_trainer_validate(t, &last, &err));
  ist_trainer_close(t);
  assert_true(fabs(loss(m, again, data) - last) < 1e-5);
  MUST(ist_model_set_adapter(m, NULL, &err));
  ist_merge_options mo;
  ist_merge_options_init(&mo);
  char *merged = join("no.gguf");
  mo.adapter = out;
  mo.output = merged;
  ist_merge_result result;
  assert_int_equal(ist_merge(m, &mo, NULL, NULL, &result, &err), IST_ERR_UNSUPPORTED);
  if (!strstr(err.message, others[i].why)) fail_msg("\"%s\"", err.message);
  ist_free(merged);
}

static void test_other_methods(void **state) {
  (void)state;
  static const char text[] =
      "{\"text\": \"and the rest of it\"}\n{\"text\": \"one on one\"}\n{\"text\": \"the end\"}\n";
  char *data = join("data.jsonl"), *out = join("other"), *again = join("again");
  write_bytes(data, text, sizeof text - 1);
  ist_model *m = open_model(TINY);
  for (size_t i = 0; i < sizeof others / sizeof *others; i++) check_other(m, i, data, out, again);
  ist_model_close(m);
  ist_free(data);
  ist_free(out);
  ist_free(again);
}

/* A bottleneck's config in other words: each is refused by what is wrong with it. */
static void test_other_configs(void **state) {
  (void)state;
  static const char text[] = "{\"text\": \"and the rest of it\"}\n{\"text\": \"one on one\"}\n";
  static const struct {
    const char *config, *why;
  } cases[] = {
      {"\"bottleneck_size\": 5", "expected 5 x"},
      {"\"bottleneck_size\": 4, \"use_adapterp\": true", "use_adapterp"},
      {"\"bottleneck_size\": 4, \"non_linearity\": \"gelu_new\"", "non_linearity is 'gelu_new'"},
      {"\"bottleneck_size\": 4, \"scaling\": \"big\"", "scaling is a string"},
      {"\"bottleneck_size\": 4, \"layers_to_transform\": [0]", "of which adapter_config.json"},
      {"\"bottleneck_size\": 4, \"scaling\": \"learned\"", "adapter_scaling: found no such tensor"},
      {"\"bottleneck_size\": 0", "bottleneck_size is 0"},
  };
  char *data = join("data.jsonl"), *out = join("other"),
       *config = join("other/adapter_config.json");
  write_bytes(data, text, sizeof text - 1);
  ist_model *m = open_model(TINY);
  ist_train_options o = other_options(0, data, out);
  o.rank_pattern = NULL;
  o.batch = 2;
  ist_trainer *t;
  MUST(ist_trainer_open(&t, m, &o, &err));
  MUST(ist_trainer_finish(t, &err));
  ist_trainer_close(t);
  MUST(ist_model_set_adapter(m, out, &err));
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    char json[512];
    int n = snprintf(json, sizeof json,
                     "{\"peft_type\": \"BOTTLENECK\", \"use_parallel_adapter\": true, "
                     "\"target_modules\": [\"q_proj\", \"k_proj\", \"v_proj\", \"o_proj\", "
                     "\"gate_proj\", \"up_proj\", \"down_proj\"], %s}",
                     cases[i].config);
    write_bytes(config, json, (size_t)n);
    assert_true(ist_model_set_adapter(m, out, &err) != IST_OK);
    if (!strstr(err.message, cases[i].why)) fail_msg("%zu: \"%s\"", i, err.message);
  }
  ist_model_close(m);
  ist_free(data);
  ist_free(out);
  ist_free(config);
}

/* The golden adapter's own GGUF form: written from the updates, read again. */
static void test_gguf_adapter(void **state) {
  (void)state;
  char *out = join("adapter.gguf");
  ist_model *m = open_model(TINY);
  ist_updates u;
  MUST(ist_updates_read(&u, ADAPTERS "embedding", m, &err));
  ist_lora_pair pair[8];
  char name[8][96];
  int64_t n = 0;
  for (int64_t i = 0; i < u.n; i++) {
    ist_tensor_name(name[n], sizeof name[n], u.p[i].layer, u.p[i].id);
    pair[n] =
        (ist_lora_pair){name[n], u.p[i].cols, u.p[i].rows, u.p[i].rank, 0, u.p[i].a, u.p[i].b};
    n++;
  }
  MUST(ist_lora_gguf_write(out, "llama", 4, pair, n, &err));
  ist_gguf *g;
  MUST(ist_gguf_open(&g, out, &err));
  const ist_gguf_tensor *a = ist_gguf_find_tensor(g, "token_embd.weight.lora_a");
  assert_true(a->ne[0] == 2 && a->ne[1] == 272); /* rows that are looked up */
  ist_gguf_close(g);
  ist_updates again;
  MUST(ist_updates_read(&again, out, m, &err));
  assert_int_equal(again.n, u.n);
  for (int64_t i = 0; i < u.n; i++) {
    const ist_update *p = ist_updates_find(&again, u.p[i].layer, u.p[i].id, u.p[i].copy);
    assert_true(p && p->rank == 2 && p->scale == u.p[i].scale);
    assert_memory_equal(p->a, u.p[i].a, (size_t)(p->rank * p->cols) * 4);
    assert_memory_equal(p->b, u.p[i].b, (size_t)(p->rank * p->rows) * 4);
  }
  ist_updates_free(&again);
  ist_updates_free(&u);
  ist_model_close(m);
  ist_free(out);
}

/* Every type: what ist_merge reports as rounding is the distance from the F32 merge. */
typedef struct found {
  const char *name;
  double relative;
} found;
static void take(void *user, const ist_diff_tensor *d) {
  found *f = user;
  if (strcmp(d->name, f->name) == 0) f->relative = d->norm_diff / d->norm_a;
}
typedef struct reported {
  const char *name;
  double error, change;
} reported;
static void take_report(void *user, const ist_merge_tensor *t) {
  reported *r = user;
  if (strcmp(t->name, r->name) == 0) {
    r->error = t->error;
    r->change = t->change;
  }
}

static void test_rounding_is_measured(void **state) {
  (void)state;
  static const char *const types[] = {"F16", "BF16", "Q8_0", "Q4_K"};
  const char *name = "blk.1.attn_q.weight";
  char *exact = join("exact.gguf"), *rounded = join("rounded.gguf");
  ist_merge_result r;
  MUST(merge(ADAPTERS "rslora", exact, NULL, &r));
  found moved = {name, -1};
  MUST(ist_diff(TINY, exact, take, &moved, &err));
  for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
    ist_model *m = open_model(TINY);
    ist_merge_options o;
    ist_merge_options_init(&o);
    o.adapter = ADAPTERS "rslora";
    o.output = rounded;
    o.type = types[i];
    o.overwrite = true;
    reported said = {name, -1, -1};
    MUST(ist_merge(m, &o, take_report, &said, &r, &err));
    ist_model_close(m);
    /* Reported relative to the base, measured here relative to the merged tensor. */
    found f = {name, -1}, back = {name, -1};
    MUST(ist_diff(exact, rounded, take, &f, &err));
    MUST(ist_diff(exact, TINY, take, &back, &err));
    double base_over_merged = back.relative / moved.relative;
    assert_true(fabs(said.change - moved.relative) < 1e-6);
    assert_true(f.relative > 0 && fabs(said.error * base_over_merged - f.relative) < 1e-6);
  }
  ist_free(exact);
  ist_free(rounded);
}

static void test_keys_and_copies(void **state) {
  (void)state;
  char *out = join("merged.gguf");
  ist_merge_result r;
  MUST(merge(ADAPTERS "rslora", out, NULL, &r));
  ist_gguf *base, *merged;
  MUST(ist_gguf_open(&base, TINY, &err));
  MUST(ist_gguf_open(&merged, out, &err));
  assert_int_equal(merged->n_kv, base->n_kv + 3);
  assert_int_equal(merged->n_tensors, base->n_tensors);
  const ist_gguf_kv *a = ist_gguf_find(base, "tokenizer.ggml.merges"),
                    *b = ist_gguf_find(merged, "tokenizer.ggml.merges");
  assert_true(a->bytes == b->bytes && memcmp(a->data, b->data, a->bytes) == 0);
  ist_str s;
  MUST(ist_gguf_get_str(merged, "ist.merge.adapter", true, &s, &err));
  assert_true(s.len == 6 && memcmp(s.p, "rslora", 6) == 0);
  for (int64_t i = 0; i < base->n_tensors; i++) {
    const ist_gguf_tensor *x = &base->tensor[i], *y = &merged->tensor[i];
    bool touched = memmem(x->name.p, x->name.len, "attn_q", 6) ||
                   memmem(x->name.p, x->name.len, "ffn_down", 8);
    assert_int_equal(memcmp(x->data, y->data, (size_t)x->bytes) != 0, touched);
  }
  ist_gguf_close(base);
  ist_gguf_close(merged);
  /* Merged twice: the keys are replaced, not repeated. */
  ist_model *m = open_model(out);
  char *second = join("second.gguf");
  ist_merge_options o;
  ist_merge_options_init(&o);
  o.adapter = ADAPTERS "layers";
  o.output = second;
  MUST(ist_merge(m, &o, NULL, NULL, &r, &err));
  o.output = out;
  assert_error(ist_merge(m, &o, NULL, NULL, &r, &err), IST_ERR_ARG, &err, "the base model itself");
  o.output = second;
  assert_error(ist_merge(m, &o, NULL, NULL, &r, &err), IST_ERR_IO, &err, "is there already");
  o.type = "Q3_K";
  o.overwrite = true;
  assert_error(ist_merge(m, &o, NULL, NULL, &r, &err), IST_ERR_ARG, &err, "found \"Q3_K\"");
  ist_model_close(m);
  ist_free(second);
  ist_free(out);
}

/* ---- What does not fit ---- */

static char *copy_adapter(const char *name) {
  char *dir = join(name), from[512], to[512];
  MUST(ist_mkdirs(dir, &err));
  static const char *const files[] = {"adapter_config.json", "adapter_model.safetensors"};
  for (int i = 0; i < 2; i++) {
    ist_buf b = {0};
    snprintf(from, sizeof from, ADAPTERS "%s/%s", name, files[i]);
    snprintf(to, sizeof to, "%s/%s", dir, files[i]);
    MUST(ist_file_read(&b, from, 1 << 20, &err));
    write_bytes(to, b.p, b.len);
    ist_buf_free(&b);
  }
  return dir;
}

/* Replaces the first `from` in a file of the folder by `to`, of the same length unless
 * it is the configuration. */
static void edit(const char *dir, const char *file, const char *from, const void *to, size_t len) {
  char path[512];
  snprintf(path, sizeof path, "%s/%s", dir, file);
  ist_buf b = {0}, out = {0};
  MUST(ist_file_read(&b, path, 1 << 20, &err));
  const char *at = memmem(b.p, b.len, from, strlen(from));
  assert_non_null(at);
  ist_buf_add(&out, b.p, (size_t)(at - b.p));
  ist_buf_add(&out, to, len);
  ist_buf_add(&out, at + strlen(from), b.len - (size_t)(at - b.p) - strlen(from));
  write_bytes(path, out.p, out.len);
  ist_buf_free(&b);
  ist_buf_free(&out);
}

static void test_refusals(void **state) {
  (void)state;
  static const struct {
    const char *file, *from, *to;
    ist_status code;
    const char *part;
  } cases[] = {
      {"adapter_config.json", "\"r\": 4", "\"r\": 5", IST_ERR_MISMATCH,
       "found 4 x 24, expected 5 x 24"},
      {"adapter_config.json", "\"q_proj\"", "\"k_proj\"", IST_ERR_MISMATCH,
       "self_attn.k_proj.lora_A.weight: found no such tensor"},
      {"adapter_config.json", "\"q_proj\",", "", IST_ERR_MISMATCH,
       "q_proj.lora_A.weight: found a tensor that no module"},
      {"adapter_model.safetensors", "q_proj.lora_A", "q_proj.lora_X", IST_ERR_MISMATCH,
       "q_proj.lora_A.weight: found no such tensor"},
      {"adapter_config.json", "\"use_dora\": false", "\"use_dora\": true", IST_ERR_MISMATCH,
       "lora_magnitude_vector: found no such tensor"},
      {"adapter_config.json", "\"layer_replication\": null", "\"layer_replication\": [[0, 2]]",
       IST_ERR_UNSUPPORTED, "layer_replication"},
      {"adapter_config.json", "\"modules_to_save\": null", "\"modules_to_save\": [\"v_proj\"]",
       IST_ERR_UNSUPPORTED, "modules_to_save"},
  };
  ist_model *m = open_model(TINY);
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    char *dir = copy_adapter("rslora");
    edit(dir, cases[i].file, cases[i].from, cases[i].to, strlen(cases[i].to));
    assert_error(ist_model_set_adapter(m, dir, &err), cases[i].code, &err, cases[i].part);
    ist_free(dir);
  }
  ist_model_close(m);
}

static void test_not_finite(void **state) {
  (void)state;
  ist_model *m = open_model(TINY);
  char *dir = copy_adapter("rslora"), path[512];
  snprintf(path, sizeof path, "%s/adapter_model.safetensors", dir);
  ist_buf b = {0};
  MUST(ist_file_read(&b, path, 1 << 20, &err));
  float nan = NAN;
  memcpy(b.p + b.len - 4, &nan, 4);
  write_bytes(path, b.p, b.len);
  ist_buf_free(&b);
  assert_error(ist_model_set_adapter(m, dir, &err), IST_ERR_FORMAT, &err, "expected finite values");
  ist_free(dir);
  ist_model_close(m);
}

/* An adapter of another base; a model without one is as it was. */
static void test_other_base(void **state) {
  (void)state;
  ist_model *m = open_model(IST_GOLDEN_DIR "/llama_tiny/llama_untied.gguf");
  assert_error(ist_model_set_adapter(m, ADAPTERS "regex", &err), IST_ERR_MISMATCH, &err,
               "is it an adapter of another base model");
  assert_error(ist_model_set_adapter(m, ADAPTERS "dora", &err), IST_ERR_MISMATCH, &err, "expected");
  ist_model_close(m);
  char *out = join("x.gguf");
  ist_merge_result r;
  assert_error(merge(ADAPTERS "nowhere", out, NULL, &r), IST_ERR_IO, &err, "adapter_config.json");
  assert_false(ist_file_exists(out));
  ist_free(out);
}

static void test_diff_refusals(void **state) {
  (void)state;
  found f = {"", 0};
  assert_error(ist_diff(TINY, ADAPTERS "rslora", take, &f, &err), IST_ERR_ARG, &err,
               "a model and an adapter");
  assert_error(ist_diff(TINY, IST_GOLDEN_DIR "/llama_tiny/llama_untied.gguf", take, &f, &err),
               IST_ERR_MISMATCH, &err, "models of different shape");
  assert_error(ist_diff(ADAPTERS "dora", ADAPTERS "dora", take, &f, &err), IST_ERR_UNSUPPORTED,
               &err, "DoRA");
  assert_error(ist_diff(TINY, TINY, NULL, NULL, &err), IST_ERR_ARG, &err, "no function");
}

static void take_whole(void *user, const ist_diff_tensor *d) {
  ist_diff_tensor *out = user;
  if (strcmp(d->name, "output.weight") == 0) *out = *d;
}

/* A tensor that one of two models lacks is zero there. */
static void test_diff_of_what_one_lacks(void **state) {
  (void)state;
  char *untied = join("untied.gguf");
  ist_merge_result r;
  ist_diff_tensor to = {0}, back = {0};
  MUST(merge(ADAPTERS "head", untied, NULL, &r));
  MUST(ist_diff(TINY, untied, take_whole, &to, &err));
  MUST(ist_diff(untied, TINY, take_whole, &back, &err));
  assert_true(to.only_b && !to.only_a && back.only_a && !back.only_b);
  assert_true(to.norm_a == 0 && to.norm_b > 0 && to.norm_diff == to.norm_b && isnan(to.cosine));
  assert_true(back.norm_b == 0 && back.norm_a == to.norm_b && back.norm_diff == to.norm_b);
  ist_free(untied);
}

/* Two adapters without their base: against the merged matrices themselves. */
static void test_diff_of_adapters(void **state) {
  (void)state;
  char *a = join("a.gguf"), *b = join("b.gguf");
  ist_merge_result r;
  MUST(merge(ADAPTERS "bf16", a, NULL, &r));
  MUST(merge(ADAPTERS "rslora", b, NULL, &r));
  found merged = {"blk.2.attn_q.weight", -1}, own = {"blk.2.attn_q.weight", -1};
  MUST(ist_diff(a, b, take, &merged, &err)); /* |B - A| / |W + A| */
  MUST(ist_diff(a, TINY, take, &own, &err)); /* |A| / |W + A| */
  found f = {"model.layers.2.self_attn.q_proj", -1};
  MUST(ist_diff(ADAPTERS "bf16", ADAPTERS "rslora", take, &f, &err));
  assert_true(fabs(f.relative - merged.relative / own.relative) < 1e-5 * f.relative);
  ist_free(a);
  ist_free(b);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_merged_gives_pefts_logits, setup, teardown),
      cmocka_unit_test_setup_teardown(test_bias, setup, teardown),
      cmocka_unit_test_setup_teardown(test_unmerged_gives_pefts_logits, setup, teardown),
      cmocka_unit_test_setup_teardown(test_trained_on, setup, teardown),
      cmocka_unit_test_setup_teardown(test_other_methods, setup, teardown),
      cmocka_unit_test_setup_teardown(test_other_configs, setup, teardown),
      cmocka_unit_test_setup_teardown(test_gguf_adapter, setup, teardown),
      cmocka_unit_test_setup_teardown(test_rounding_is_measured, setup, teardown),
      cmocka_unit_test_setup_teardown(test_keys_and_copies, setup, teardown),
      cmocka_unit_test_setup_teardown(test_refusals, setup, teardown),
      cmocka_unit_test_setup_teardown(test_not_finite, setup, teardown),
      cmocka_unit_test_setup_teardown(test_other_base, setup, teardown),
      cmocka_unit_test_setup_teardown(test_diff_refusals, setup, teardown),
      cmocka_unit_test_setup_teardown(test_diff_of_what_one_lacks, setup, teardown),
      cmocka_unit_test_setup_teardown(test_diff_of_adapters, setup, teardown),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
