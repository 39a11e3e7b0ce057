/* Quantised blocks against golden files made with ggml and its Python package, the
 * vectorised functions against the portable ones. */
#include "files.h"

#include <math.h>

#include "base/rng.h"
#include "format/quant.h"
#include "format/quant_impl.h"
#include "format/safetensors.h"

static ist_safetensors *open_golden(const char *name) {
  char *path = ist_path_join(IST_GOLDEN_DIR, name);
  ist_safetensors *s;
  ist_error err = {0};
  if (ist_safetensors_open(&s, path, &err) != IST_OK) fail_msg("%s", err.message);
  ist_free(path);
  return s;
}

/* "<TYPE>.<what>" of a golden file, or NULL. */
static const ist_st_tensor *golden(const ist_safetensors *s, ist_dtype t, const char *what) {
  char name[32];
  snprintf(name, sizeof name, "%s.%s", ist_dtype_get(t)->name, what);
  return ist_safetensors_find(s, name);
}

static const char *const isa_name[] = {"portable", "AVX2", "AVX-512"};

/* One conversion in a given way; false where there is none of its own. */
static bool convert(ist_quant_isa isa, bool bf16, void *dst, const void *src, ist_dtype t,
                    int64_t n) {
  if (isa == IST_QUANT_PORTABLE) {
    if (bf16)
      ist_dequant_bf16_portable(dst, src, t, n);
    else
      ist_dequant_f32_portable(dst, src, t, n);
    return true;
  }
  ist_dequant_x86_fn fn = isa <= ist_quant_isa_best() ? ist_dequant_x86(isa, t, bf16) : NULL;
  if (fn) fn(dst, src, n / ist_dtype_get(t)->block);
  return fn != NULL;
}

static void test_golden_blocks(void **state) {
  (void)state;
  static const ist_dtype required[] = {IST_F16,  IST_BF16, IST_Q4_0,   IST_Q4_1,  IST_Q5_0,
                                       IST_Q5_1, IST_Q8_0, IST_Q2_K,   IST_Q3_K,  IST_Q4_K,
                                       IST_Q5_K, IST_Q6_K, IST_IQ4_NL, IST_IQ4_XS};
  ist_safetensors *s = open_golden("quant_blocks.safetensors");
  for (size_t i = 0; i < sizeof required / sizeof required[0]; i++) {
    ist_dtype t = required[i];
    const ist_st_tensor *raw = golden(s, t, "raw"), *f32 = golden(s, t, "f32");
    if (!raw || !f32) fail_msg("no golden blocks of type %s", ist_dtype_get(t)->name);
    int64_t n = f32->bytes / 4;
    assert_true(n >= 256 && ist_dtype_bytes(t, n) == raw->bytes);
    float *got = ist_calloc((size_t)n, 4), *expected = ist_calloc((size_t)n, 4);
    ist_bf16 *half = ist_calloc((size_t)n, 2);
    memcpy(expected, f32->data, (size_t)n * 4);
    for (int isa = 0; isa < 3; isa++) {
      if (convert((ist_quant_isa)isa, false, got, raw->data, t, n) &&
          memcmp(got, expected, (size_t)n * 4) != 0)
        fail_msg("%s to f32, %s", ist_dtype_get(t)->name, isa_name[isa]);
      if (!convert((ist_quant_isa)isa, true, half, raw->data, t, n)) continue;
      for (int64_t k = 0; k < n; k++)
        if (half[k] != ist_f32_to_bf16(expected[k]))
          fail_msg("%s to bf16, %s, element %d", ist_dtype_get(t)->name, isa_name[isa], (int)k);
    }
    ist_dequant_f32(got, raw->data, t, n);
    assert_memory_equal(got, expected, (size_t)n * 4);
    ist_dequant_bf16(half, raw->data, t, n);
    for (int64_t k = 0; k < n; k++) assert_int_equal(half[k], ist_f32_to_bf16(expected[k]));
    ist_free(got);
    ist_free(expected);
    ist_free(half);
  }
  ist_safetensors_close(s);
}

/* The integers of every group with their scale and offset are the elements, but for the rounding of
 * one sum. */
static void test_groups(void **state) {
  (void)state;
  ist_safetensors *s = open_golden("quant_blocks.safetensors");
  int types = 0;
  for (int type = 0; type < IST_DTYPE_COUNT; type++) {
    ist_dtype t = (ist_dtype)type;
    if (!ist_quant_has_groups(t)) continue;
    const ist_st_tensor *raw = golden(s, t, "raw"), *f32 = golden(s, t, "f32");
    assert_true(raw && f32);
    for (int64_t k = 0; k < f32->bytes / 4; k++) {
      uint8_t q[32];
      float scale[2], offset[2], expected;
      ist_quant_group(q, scale, offset, raw->data, t, k / 32);
      memcpy(&expected, f32->data + 4 * k, 4);
      int i = (int)(k % 32), half = i / 16;
      float product = scale[half] * q[i], limit = 1e-6f * (fabsf(product) + fabsf(offset[half]));
      if (fabsf(product + offset[half] - expected) > limit)
        fail_msg("%s, element %d: %g, expected %g", ist_dtype_get(t)->name, (int)k,
                 product + offset[half], expected);
    }
    types++;
  }
  assert_int_equal(types, 8);
  ist_safetensors_close(s);
}

/* Element i of a Q6_K block, straight from the table of the format. */
static float q6_k_element(const uint8_t *x, int i) {
  int r = i % 128, h = i / 128;
  int low = x[64 * h + r % 64], high = x[128 + 32 * h + r % 32];
  low = r < 64 ? low & 15 : low >> 4;
  int q = low | ((high >> 2 * (r / 32)) & 3) << 4;
  float d = ist_f16_to_f32((ist_f16)(x[208] | x[209] << 8));
  return d * (float)(int8_t)x[192 + i / 16] * (float)(q - 32);
}

static void random_bytes(uint8_t *p, size_t n, uint32_t stream) {
  ist_rng rng = ist_rng_stream(42, IST_RNG_TEST, stream, 0, 0);
  for (size_t i = 0; i < n; i++) p[i] = (uint8_t)ist_rng_u32(&rng);
}

static void test_one_element_formula(void **state) {
  (void)state;
  uint8_t x[210];
  float y[256];
  for (uint32_t round = 0; round < 50; round++) {
    random_bytes(x, sizeof x, round);
    x[209] &= 0x3f; /* a finite scale */
    ist_dequant_f32(y, x, IST_Q6_K, 256);
    for (int i = 0; i < 256; i++) assert_true(y[i] == q6_k_element(x, i));
  }
}

/* Random bytes (infinite and NaN scales among them), every alignment, odd lengths;
 * the vectorised results have the portable ones' bits and stay within bounds. */
static void test_vector_equals_portable(void **state) {
  (void)state;
  enum { BLOCKS = 67, GUARD = 64 };
  for (int type = 0; type < IST_DTYPE_COUNT; type++) {
    ist_dtype t = (ist_dtype)type;
    if (!ist_dequant_supported(t)) continue;
    const ist_dtype_info *info = ist_dtype_get(t);
    size_t bytes = (size_t)BLOCKS * (size_t)info->bytes, n = (size_t)BLOCKS * (size_t)info->block;
    for (size_t shift = 0; shift < 4; shift++) {
      /* Exactly as long as the blocks, so that the sanitizers see a read past them. */
      uint8_t *src = ist_calloc(bytes + shift, 1);
      uint8_t *expected = ist_calloc(n, 4), *got = ist_calloc(n * 4 + GUARD + 4, 1);
      random_bytes(src, bytes + shift, (uint32_t)(type * 8 + (int)shift));
      for (int way = 0; way < 2 * 3; way++) {
        bool bf16 = way % 2;
        size_t size = n * (bf16 ? 2 : 4);
        memset(got, 0xa5, n * 4 + GUARD + 4);
        if (!convert((ist_quant_isa)(way / 2), bf16, got + 4 * (shift % 2), src + shift, t,
                     (int64_t)n))
          continue;
        convert(IST_QUANT_PORTABLE, bf16, expected, src + shift, t, (int64_t)n);
        for (size_t i = 0; i < n; i++) {
          size_t width = bf16 ? 2 : 4;
          const uint8_t *a = got + 4 * (shift % 2) + i * width, *b = expected + i * width;
          if (memcmp(a, b, width) == 0) continue;
          /* A NaN may carry another payload, but must be one. */
          float v[2];
          for (int k = 0; k < 2; k++) {
            uint32_t u = 0;
            memcpy(&u, k ? b : a, width);
            if (bf16) u <<= 16;
            memcpy(&v[k], &u, 4);
          }
          if (!isnan(v[0]) || !isnan(v[1]))
            fail_msg("%s, %s, element %zu: %g, expected %g", info->name, isa_name[way / 2], i,
                     (double)v[0], (double)v[1]);
        }
        for (size_t i = 0; i < GUARD; i++) assert_int_equal(got[4 * (shift % 2) + size + i], 0xa5);
      }
      ist_free(src);
      ist_free(expected);
      ist_free(got);
    }
  }
}

/* Rounding to bf16 at its corners: ties, overflow, NaN with any payload. */
static void test_bf16_corners(void **state) {
  (void)state;
  static const uint32_t bits[] = {0x00000000, 0x80000000, 0x3f800000, 0x3f808000, 0x3f818000,
                                  0x3f808001, 0x3f807fff, 0xbf818000, 0x7f800000, 0xff800000,
                                  0x7f7fffff, 0xff7f8000, 0x7f7f7fff, 0x7f800001, 0xff800001,
                                  0x7fffffff, 0xffffffff, 0x7fc00000, 0x7f80ffff, 0x7fbfffff,
                                  0x00000001, 0x00008000, 0x00008001, 0x807fffff};
  enum { N = 24 };
  float x[N];
  ist_bf16 y[N];
  memcpy(x, bits, sizeof x);
  assert_int_equal(ist_f32_to_bf16(x[3]), 0x3f80);
  assert_int_equal(ist_f32_to_bf16(x[4]), 0x3f82);
  assert_int_equal(ist_f32_to_bf16(x[13]), 0x7fc0);
  for (int isa = 0; isa < 3; isa++) {
    if (!convert((ist_quant_isa)isa, true, y, x, IST_F32, N)) continue;
    for (int i = 0; i < N; i++) assert_int_equal(y[i], ist_f32_to_bf16(x[i]));
  }
}

static void test_golden_encoders(void **state) {
  (void)state;
  ist_safetensors *s = open_golden("encode_blocks.safetensors");
  const ist_st_tensor *values = ist_safetensors_find(s, "x");
  assert_non_null(values);
  int64_t n = values->bytes / 4;
  float *x = ist_calloc((size_t)n, 4);
  memcpy(x, values->data, (size_t)n * 4);
  int checked = 0;
  for (int type = 0; type < IST_DTYPE_COUNT; type++) {
    ist_dtype t = (ist_dtype)type;
    const ist_st_tensor *raw = golden(s, t, "raw");
    assert_int_equal(ist_quantise_supported(t), raw != NULL);
    if (!raw) continue;
    assert_true(raw->bytes == ist_dtype_bytes(t, n));
    uint8_t *got = ist_calloc((size_t)raw->bytes, 1);
    ist_quantise(got, x, t, n);
    int64_t block = ist_dtype_get(t)->bytes;
    for (int64_t i = 0; i < raw->bytes; i++)
      if (got[i] != raw->data[i])
        fail_msg("%s: block %d, byte %d is %d, expected %d", ist_dtype_get(t)->name,
                 (int)(i / block), (int)(i % block), got[i], raw->data[i]);
    ist_free(got);
    checked++;
  }
  assert_int_equal(checked, 11);
  ist_free(x);
  ist_safetensors_close(s);
}

/* What comes back is near what went in. 32 normal values span some 4.2 standard
 * deviations; cut into 2^bits steps the error is step / sqrt(12), a quarter more where
 * the range is not used in full. */
static void test_round_trip_error(void **state) {
  (void)state;
  static const struct {
    ist_dtype t;
    int bits;
  } c[] = {{IST_F32, 23}, {IST_F16, 10}, {IST_BF16, 7}, {IST_Q8_0, 8}, {IST_Q4_0, 4}, {IST_Q4_1, 4},
           {IST_Q5_0, 5}, {IST_Q5_1, 5}, {IST_Q4_K, 4}, {IST_Q5_K, 5}, {IST_Q6_K, 6}};
  enum { N = 256 * 32 };
  static float x[N], y[N];
  static uint8_t blocks[N * 4];
  ist_rng rng = ist_rng_stream(7, IST_RNG_TEST, 0, 0, 0);
  for (int i = 0; i < N; i++) x[i] = (float)ist_rng_normal(&rng) * 0.05f;
  for (size_t k = 0; k < sizeof c / sizeof c[0]; k++) {
    ist_quantise(blocks, x, c[k].t, N);
    ist_dequant_f32(y, blocks, c[k].t, N);
    double sum = 0, error = 0;
    for (int i = 0; i < N; i++) {
      double diff = (double)x[i] - (double)y[i];
      sum += (double)x[i] * (double)x[i];
      error += diff * diff;
    }
    double relative = sqrt(error / sum), expected = 4.2 / sqrt(12) / (1 << c[k].bits);
    if (!(relative <= 1.25 * expected))
      fail_msg("%s: error %g, expected about %g", ist_dtype_get(c[k].t)->name, relative, expected);
  }
}

/* Values no weight should have do not crash an encoder (undefined casts). */
static void test_encode_not_finite(void **state) {
  (void)state;
  static const float bad[] = {NAN, INFINITY, -INFINITY, 3e38f, 1e-45f};
  float x[256];
  uint8_t y[1024];
  for (int type = 0; type < IST_DTYPE_COUNT; type++)
    for (size_t k = 0; ist_quantise_supported((ist_dtype)type) && k < 5; k++)
      for (int at = 0; at < 256; at += 51) {
        for (int i = 0; i < 256; i++) x[i] = at == 51 ? bad[k] : 0.01f * (float)(i - 128);
        x[at] = bad[k];
        ist_quantise(y, x, (ist_dtype)type, 256);
      }
}

static void test_supported(void **state) {
  (void)state;
  assert_true(ist_dequant_supported(IST_IQ4_XS) && ist_dequant_supported(IST_F64));
  assert_false(ist_dequant_supported(IST_I32) || ist_dequant_supported(IST_U8));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_golden_blocks),       cmocka_unit_test(test_groups),
      cmocka_unit_test(test_one_element_formula), cmocka_unit_test(test_vector_equals_portable),
      cmocka_unit_test(test_bf16_corners),        cmocka_unit_test(test_golden_encoders),
      cmocka_unit_test(test_round_trip_error),    cmocka_unit_test(test_encode_not_finite),
      cmocka_unit_test(test_supported),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
