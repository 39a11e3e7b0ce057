/* ist_make_model: a Llama of a given shape with random weights, a tensor at a
 * time, for planning and benchmarks. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/parallel.h"
#include "format/quant.h"
#include "model/weights.h"

static const struct {
  const char *name;
  ist_shape shape;
} shapes[] = {
    {"smollm2-135m", {30, 576, 1536, 9, 3, 64, 49152, 8192, true}},
    {"llama-1b", {16, 2048, 8192, 32, 8, 64, 128256, 131072, true}},
    {"llama-7b", {32, 4096, 11008, 32, 32, 128, 32000, 4096, false}},
    {"llama-13b", {40, 5120, 13824, 40, 40, 128, 32000, 4096, false}},
};

bool ist_shape_find(const char *name, ist_shape *out) {
  for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
    if (strcmp(shapes[i].name, name) == 0) {
      *out = shapes[i].shape;
      return true;
    }
  }
  return false;
}

/* ---- Weights -------------------------------------------------------------------- */

/* One tensor: values are drawn by element number, so that any part can be made. */
typedef struct random_tensor {
  uint64_t seed;
  uint32_t index; /* of the tensor: its own random stream */
  ist_dtype type;
  double scale; /* standard deviation; 0: all ones (norms) */
} random_tensor;

/* Uniform values of the wanted standard deviation: four to a counter. */
static void fill(const random_tensor *t, int64_t first, int64_t n, float *out) {
  const ist_philox_key key = ist_rng_key(t->seed, IST_RNG_DATA);
  const double width = t->scale * sqrt(12.0) / 4294967296.0;
  for (int64_t i = 0; i < n; i += 4) {
    uint64_t block = (uint64_t)(first + i) / 4;
    uint32_t words[4];
    ist_philox(words, (const uint32_t[4]){t->index, (uint32_t)block, (uint32_t)(block >> 32), 0},
               key);
    for (int64_t j = 0; j < 4 && i + j < n; j++) {
      out[i + j] = t->scale > 0 ? (float)(((double)words[j] - 2147483648.0) * width) : 1.0f;
    }
  }
}

typedef struct encode_job {
  const random_tensor *t;
  int64_t first;
  unsigned char *dst;
  ist_error *err;
} encode_job;

#define CHUNK 4096 /* elements encoded at a time: a multiple of every block */

static void encode_chunks(void *arg, int64_t begin, int64_t end, int thread) {
  (void)thread;
  const encode_job *job = arg;
  float values[CHUNK];
  for (int64_t c = begin; c < end; c++) {
    fill(job->t, job->first + c * CHUNK, CHUNK, values);
    ist_quantise(job->dst + ist_dtype_bytes(job->t->type, c * CHUNK), values, job->t->type, CHUNK);
  }
}

static ist_status read_random(void *user, int64_t offset, int64_t n, unsigned char *dst,
                              ist_error *err) {
  (void)err;
  const random_tensor *t = user;
  const ist_dtype_info *d = ist_dtype_get(t->type);
  int64_t first = offset / d->bytes * d->block, count = n / d->bytes * d->block;
  encode_job job = {t, first, dst, err};
  ist_parallel_for(count / CHUNK, 4, encode_chunks, &job);
  float values[CHUNK];
  int64_t done = count / CHUNK * CHUNK;
  fill(t, first + done, count - done, values);
  ist_quantise(dst + ist_dtype_bytes(t->type, done), values, t->type, count - done);
  return IST_OK;
}

static void put_tensor(ist_gguf_writer *w, const ist_model_config *c, int64_t layer, int id,
                       random_tensor *t) {
  char name[96];
  int64_t rows, cols;
  bool need;
  ist_tensor_name(name, sizeof name, layer, id);
  ist_tensor_shape(c, layer, id, &rows, &cols, &need);
  if (rows == 0) return;
  if (rows == 1) t->type = IST_F32;
  t->scale = rows == 1 ? 0 : 0.7 / sqrt((double)cols);
  int64_t ne[2] = {cols, rows};
  ist_gguf_put_tensor(w, name, t->type, rows == 1 ? 1 : 2, ne, read_random, t);
}

/* ---- Metadata -------------------------------------------------------------------- */

static void put_shape(ist_gguf_writer *w, const ist_shape *s) {
  ist_gguf_put_str(w, "general.architecture", "llama", 5);
  ist_gguf_put_str(w, "general.name", "random weights", 14);
  ist_gguf_put_u32(w, "general.quantization_version", 2);
  ist_gguf_put_u32(w, "llama.block_count", (uint32_t)s->L);
  ist_gguf_put_u32(w, "llama.context_length", (uint32_t)s->context);
  ist_gguf_put_u32(w, "llama.embedding_length", (uint32_t)s->D);
  ist_gguf_put_u32(w, "llama.feed_forward_length", (uint32_t)s->F);
  ist_gguf_put_u32(w, "llama.attention.head_count", (uint32_t)s->H);
  ist_gguf_put_u32(w, "llama.attention.head_count_kv", (uint32_t)s->K);
  ist_gguf_put_u32(w, "llama.attention.key_length", (uint32_t)s->E);
  ist_gguf_put_u32(w, "llama.attention.value_length", (uint32_t)s->E);
  ist_gguf_put_u32(w, "llama.rope.dimension_count", (uint32_t)s->E);
  ist_gguf_put_f32(w, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
  ist_gguf_put_f32(w, "llama.rope.freq_base", 10000.0f);
}

/* One token a byte, three control tokens, and filler up to V. */
static ist_status put_vocabulary(ist_gguf_writer *w, int64_t V, ist_error *err) {
  ist_str *tokens = ist_calloc((size_t)V, sizeof *tokens);
  char(*texts)[24] = ist_calloc((size_t)V, sizeof *texts);
  int32_t *types = ist_calloc((size_t)V, sizeof *types);
  ist_status status =
      tokens && texts && types ? IST_OK : ist_fail_nomem(err, "vocabulary", (size_t)V * 40);
  for (int64_t i = 0; status == IST_OK && i < V; i++) {
    /* The byte-level alphabet of GPT-2: printable bytes are themselves, the
     * others follow from U+0100 on. */
    static const char *const special[] = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};
    int code = (int)i, next = 256;
    for (int b = 0; i < 256 && b <= (int)i; b++) {
      bool printable = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
      code = printable ? b : next++;
    }
    if (i >= 259)
      snprintf(texts[i], sizeof *texts, "<%lld>", (long long)i);
    else if (i >= 256)
      snprintf(texts[i], sizeof *texts, "%s", special[i - 256]);
    else if (code < 128)
      texts[i][0] = (char)code;
    else
      snprintf(texts[i], sizeof *texts, "%c%c", 0xc0 | code >> 6, 0x80 | (code & 0x3f));
    tokens[i] = (ist_str){texts[i], strlen(texts[i])};
    types[i] = i < 256 ? 1 : i < 259 ? 3 : 5;
  }
  if (status == IST_OK) {
    ist_gguf_put_str(w, "tokenizer.ggml.model", "gpt2", 4);
    ist_gguf_put_str(w, "tokenizer.ggml.pre", "gpt-2", 5);
    ist_gguf_put_strs(w, "tokenizer.ggml.tokens", tokens, (uint64_t)V);
    ist_gguf_put_i32s(w, "tokenizer.ggml.token_type", types, (uint64_t)V);
    ist_gguf_put_strs(w, "tokenizer.ggml.merges", NULL, 0);
    ist_gguf_put_u32(w, "tokenizer.ggml.bos_token_id", 256);
    ist_gguf_put_u32(w, "tokenizer.ggml.eos_token_id", 258);
  }
  ist_free(tokens);
  ist_free(texts);
  ist_free(types);
  return status;
}

static ist_status write_model(ist_gguf_writer *w, const char *path, const ist_model_config *c,
                              ist_dtype type, uint64_t seed, ist_error *err) {
  size_t most = (size_t)(c->L * IST_T_LAYER_COUNT + IST_T_END);
  random_tensor *tensors = ist_calloc(most, sizeof *tensors);
  if (!tensors) return ist_fail_nomem(err, "tensor table", most * sizeof *tensors);
  uint32_t n = 0;
  for (size_t i = 0; i < most; i++)
    tensors[i] = (random_tensor){.seed = seed, .index = (uint32_t)i, .type = type};
  for (int id = IST_T_MODEL_FIRST; id < IST_T_END; id++) {
    if (id == IST_T_OUTPUT && c->tied) continue;
    put_tensor(w, c, -1, id, &tensors[n++]);
  }
  for (int64_t l = 0; l < c->L; l++) {
    for (int id = 0; id < IST_T_LAYER_COUNT; id++) put_tensor(w, c, l, id, &tensors[n++]);
  }
  ist_status status = ist_gguf_write(w, path, err);
  ist_free(tensors);
  return status;
}

static ist_status check_shape(const ist_shape *s, ist_dtype type, ist_error *err) {
  const struct {
    const char *name;
    int64_t value, low;
  } sizes[] = {
      {"layers", s->L, 1},       {"width", s->D, 1},           {"MLP width", s->F, 1},
      {"heads", s->H, 1},        {"key/value heads", s->K, 1}, {"head size", s->E, 2},
      {"vocabulary", s->V, 259}, {"context", s->context, 1},
  };
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    if (sizes[i].value < sizes[i].low || sizes[i].value > 1 << 24) {
      return ist_fail(err, IST_ERR_ARG, "shape: %s: found %lld, expected %lld to %d", sizes[i].name,
                      (long long)sizes[i].value, (long long)sizes[i].low, 1 << 24);
    }
  }
  int block = ist_dtype_get(type)->block;
  if (s->H % s->K != 0 || s->E % 2 != 0) {
    return ist_fail(err, IST_ERR_ARG,
                    "shape: found %lld heads, %lld key/value heads of size %lld; expected a "
                    "multiple and an even size",
                    (long long)s->H, (long long)s->K, (long long)s->E);
  }
  if (s->D % block != 0 || s->F % block != 0 || s->H * s->E % block != 0) {
    return ist_fail(err, IST_ERR_ARG,
                    "shape: found widths %lld, %lld, %lld; %s wants multiples of %d",
                    (long long)s->D, (long long)s->F, (long long)(s->H * s->E),
                    ist_dtype_get(type)->name, block);
  }
  return IST_OK;
}

ist_status ist_make_model(const char *path, const ist_shape *shape, const char *type, uint64_t seed,
                          ist_error *err) {
  int t = ist_dtype_from_name(type);
  if (t < 0 || !ist_quantise_supported((ist_dtype)t)) {
    return ist_fail(err, IST_ERR_ARG,
                    "type: found \"%s\", expected F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, "
                    "Q4_K, Q5_K or Q6_K",
                    type);
  }
  IST_TRY(check_shape(shape, (ist_dtype)t, err));
  const ist_model_config c = {.L = shape->L,
                              .D = shape->D,
                              .F = shape->F,
                              .H = shape->H,
                              .K = shape->K,
                              .E = shape->E,
                              .V = shape->V,
                              .gated = true,
                              .tied = shape->tied};
  ist_gguf_writer *w = ist_gguf_writer_new();
  if (!w) return ist_fail_nomem(err, "model file", 0);
  put_shape(w, shape);
  ist_status status = put_vocabulary(w, shape->V, err);
  if (status == IST_OK) status = write_model(w, path, &c, (ist_dtype)t, seed, err);
  ist_gguf_writer_free(w);
  return status;
}
