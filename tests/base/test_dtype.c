/* The table of types, and half precision against a search for the nearest value. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/dtype.h"
#include "base/rng.h"

/* id, elements and bytes of a block, as the GGUF specification gives them. */
static void test_table(void **state) {
  (void)state;
  static const struct {
    const char *name;
    int id, block, bytes;
  } ggml[] = {
      {"F32", 0, 1, 4},       {"F16", 1, 1, 2},         {"Q4_0", 2, 32, 18},
      {"Q4_1", 3, 32, 20},    {"Q5_0", 6, 32, 22},      {"Q5_1", 7, 32, 24},
      {"Q8_0", 8, 32, 34},    {"Q2_K", 10, 256, 84},    {"Q3_K", 11, 256, 110},
      {"Q4_K", 12, 256, 144}, {"Q5_K", 13, 256, 176},   {"Q6_K", 14, 256, 210},
      {"IQ4_NL", 20, 32, 18}, {"IQ4_XS", 23, 256, 136}, {"I8", 24, 1, 1},
      {"I16", 25, 1, 2},      {"I32", 26, 1, 4},        {"I64", 27, 1, 8},
      {"F64", 28, 1, 8},      {"BF16", 30, 1, 2},
  };
  enum { N = sizeof ggml / sizeof ggml[0] };
  int known = 0;
  for (uint32_t id = 0; id < 64; id++) known += ist_dtype_from_ggml(id) >= 0;
  assert_int_equal(known, N);
  for (int i = 0; i < N; i++) {
    int t = ist_dtype_from_ggml((uint32_t)ggml[i].id);
    assert_int_equal(ist_dtype_from_name(ggml[i].name), t);
    const ist_dtype_info *d = ist_dtype_get((ist_dtype)t);
    assert_string_equal(d->name, ggml[i].name);
    assert_int_equal(d->block, ggml[i].block);
    assert_int_equal(d->bytes, ggml[i].bytes);
    assert_int_equal(ist_dtype_is_quantised((ist_dtype)t), d->block > 1);
    assert_int_equal(ist_dtype_bytes((ist_dtype)t, 512), 512 / d->block * d->bytes);
  }
  assert_int_equal(ist_dtype_from_name("q4_k"), IST_Q4_K);
  assert_int_equal(ist_dtype_from_name("u8"), IST_U8);
  assert_int_equal(ist_dtype_from_name("Q4"), -1);
  assert_int_equal(ist_dtype_from_name(""), -1);
  assert_int_equal(ist_dtype_from_ggml(UINT32_MAX), -1);
}

/* The value of a half by the definition of the format. */
static double half_value(unsigned h) {
  int e = h >> 10 & 31, f = h & 1023;
  double v = e == 0 ? ldexp(f, -24) : e == 31 ? (f ? NAN : INFINITY) : ldexp(1024 + f, e - 25);
  return h & 0x8000 ? -v : v;
}

static void test_f16_to_f32(void **state) {
  (void)state;
  for (unsigned h = 0; h < 65536; h++) {
    double expected = half_value(h);
    float f = ist_f16_to_f32((ist_f16)h);
    if (isnan(expected)) {
      assert_true(isnan(f) && isnan(ist_f16_to_f32(ist_f32_to_f16(f))));
    } else {
      assert_true(f == expected && !signbit(f) == !(h & 0x8000));
      assert_int_equal(ist_f32_to_f16(f), h);
    }
  }
}

/* Nearest of the finite halves, ties to the even code; 65520 and up is Inf. */
static unsigned nearest_half(double v) {
  unsigned sign = signbit(v) ? 0x8000u : 0;
  v = fabs(v);
  if (v >= 65520) return sign | 0x7c00u;
  unsigned low = 0, high = 0x7bff; /* codes of positive halves ascend */
  while (low < high) {
    unsigned mid = (low + high + 1) / 2;
    if (half_value(mid) <= v)
      low = mid;
    else
      high = mid - 1;
  }
  if (low == 0x7bff) return sign | low;
  double down = v - half_value(low), up = half_value(low + 1) - v;
  return sign | (down < up || (down == up && low % 2 == 0) ? low : low + 1);
}

static void check_f32(uint32_t u) {
  float f;
  memcpy(&f, &u, sizeof f);
  if (isnan(f)) {
    assert_true(isnan(half_value(ist_f32_to_f16(f))));
    assert_true(isnan(ist_bf16_to_f32(ist_f32_to_bf16(f))));
    return;
  }
  unsigned got = ist_f32_to_f16(f), expected = nearest_half(f);
  if (got != expected) fail_msg("%a: %04x, expected %04x", (double)f, got, expected);
  /* bf16: the truncated value or the next one, whichever is nearer, ties to even. */
  uint32_t low = u & 0xffff0000u, rest = u & 0xffffu;
  bool up = rest > 0x8000u || (rest == 0x8000u && (u >> 16 & 1));
  assert_int_equal(ist_f32_to_bf16(f), (low >> 16) + up);
}

static void test_f32_to_f16(void **state) {
  (void)state;
  ist_rng r = ist_rng_stream(1, IST_RNG_TEST, 0, 0, 0);
  for (int i = 0; i < 200000; i++) check_f32(ist_rng_u32(&r));
  /* Around every half, and exactly between neighbours. */
  for (unsigned h = 0; h < 0x7c00; h++) {
    float middle = (float)((half_value(h) + (h == 0x7bff ? 65536 : half_value(h + 1))) / 2);
    uint32_t u;
    memcpy(&u, &middle, sizeof u);
    for (uint32_t d = 0; d < 3; d++) {
      check_f32(u - 1 + d);
      check_f32((u - 1 + d) | 0x80000000u);
    }
  }
  for (uint32_t u = 0; u < 4; u++) check_f32(u); /* far below the smallest half */
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_table),
      cmocka_unit_test(test_f16_to_f32),
      cmocka_unit_test(test_f32_to_f16),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
