/* Few rows times a matrix as the file stores it: y = x W^T + bias + u B^T, W's rows read
 * once and never written out.
 *
 * In float a piece of a row is dequantised to the stack and multiplied. In integers, x
 * was rounded to bytes with a scale for every 32 (ist_simd.stored_input), and
 *   sum over a group of w x = scale d sum(q p) + offset d sum(p),
 * w = scale q + offset, x = d p: the sums of bytes are exact. */
#include "backend/cpu/simd/quanta.h"
#include "backend/cpu/simd/table.h"
#include "format/quant.h"

#define CHUNK IST_STORED_CHUNK

/* ---- Input --------------------------------------------------------------------------- */

/* 32 floats -> bytes, and their scale; elements from n on are 0. NaN and infinities
 * make the scale NaN. */
static void round_group(ist_stored_chunk *to, int64_t group, const float *x, int64_t n) {
  vf v[32 / VL], most = {0}, finite = {0};
  for (int i = 0; i < 32 / VL; i++) {
    v[i] = i * VL < n ? row_load(x, false, i * VL, n) : (vf){0};
    most = vf_max(most, vf_abs(v[i]));
    finite += v[i] * 0.0f;
  }
  float max = vf_max_lane(most), d = max / 127.0f + vf_sum(finite);
  bool numbers = d < INFINITY;
  float inverse = numbers && d > 1e-37f ? 1.0f / d : 0.0f;
  int8_t *q = to->q + 32 * group;
  int32_t sum[2] = {0, 0};
  for (int i = 0; i < 32 / VL; i++) {
    vi r = numbers ? __builtin_convertvector(vf_round(v[i] * inverse), vi) : (vi){0};
    for (int j = 0; j < VL; j++) {
      q[i * VL + j] = (int8_t)r[j];
      sum[(i * VL + j) / 16] += r[j];
    }
  }
  to->d[group] = d;
  to->sum[group] = d * (float)(sum[0] + sum[1]);
  to->half_sum[2 * group] = d * (float)sum[0];
  to->half_sum[2 * group + 1] = d * (float)sum[1];
}

void SIMD(stored_input)(ist_stored_chunk *to, const float *x, int64_t n) {
  for (int64_t at = 0; at < n; at += CHUNK, to++) {
    for (int64_t g = 0; g < CHUNK / 32; g++) {
      int64_t from = at + 32 * g, left = n - from;
      round_group(to, g, x + (left > 0 ? from : 0), left > 0 ? left : 0);
    }
  }
}

/* ---- Integer products of one row of W --------------------------------------------------- */

#if IST_SIMD_LEVEL == 3

/* Lanes of four 32-bit sums each: lane i holds group i, or i and i + 1 of eight each. */
INLINE __m512 spread4(__m128 s) {
  const __m512i by4 = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
  return _mm512_permutexvar_ps(by4, _mm512_castps128_ps512(s));
}
INLINE __m512 spread8(__m256 s, int first) {
  const __m512i by8 = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
  return _mm512_permutexvar_ps(_mm512_add_epi32(by8, _mm512_set1_epi32(first)),
                               _mm512_castps256_ps512(s));
}
INLINE __m512 spread16(__m256 s, int first) {
  const __m512i by4 = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
  return _mm512_permutexvar_ps(_mm512_add_epi32(by4, _mm512_set1_epi32(first)),
                               _mm512_castps256_ps512(s));
}
INLINE __m512i join(__m256i a, __m256i b) {
  return _mm512_inserti64x4(_mm512_castsi256_si512(a), b, 1);
}

typedef struct sums {
  __m512 sum, more;
  __m256 offset;
} sums;

/* Four blocks of Q4_1 that lie one after another: one permutation of 32-bit words puts the
 * nibbles together, one of 16-bit words the scales. (For Q4_0 it is no faster.) */
INLINE __m512i four_q4_1(chunk *c, const uint8_t *p) {
  const __m512i order = _mm512_setr_epi32(1, 2, 3, 4, 6, 7, 8, 9, 11, 12, 13, 14, 16, 17, 18, 19);
  const __m512i head = _mm512_castsi128_si512(_mm_setr_epi16(0, 10, 20, 30, 1, 11, 21, 31));
  __m512i a = _mm512_loadu_si512(p), b = _mm512_castsi128_si512(load16(p + 64));
  set_pairs(c, _mm256_cvtph_ps(_mm512_castsi512_si128(_mm512_permutexvar_epi16(head, a))));
  return _mm512_permutex2var_epi32(a, order, b);
}

/* Four blocks of nibbles, of which `there` are. */
INLINE __m512i four_nibbles(chunk *c, const uint8_t *p, ist_dtype type, int64_t there) {
  const int64_t head = type == IST_Q4_0 ? 2 : 4;
  const uint8_t *b[4];
  four_blocks(b, p, type, there);
  if (type == IST_Q4_0) set_scales(c, heads(b), -8.0f);
  if (type == IST_Q4_1) set_pairs(c, head_pairs(b));
  return join(
      _mm256_inserti128_si256(_mm256_castsi128_si256(load16(b[0] + head)), load16(b[1] + head), 1),
      _mm256_inserti128_si256(_mm256_castsi128_si256(load16(b[2] + head)), load16(b[3] + head), 1));
}

/* Blocks of nibbles, four at a time: all low ones, then all high ones. */
INLINE void add_nibbles(sums *s, const uint8_t *row, ist_dtype type, const ist_stored_chunk *x,
                        int64_t at, int64_t there) {
  chunk c;
  const uint8_t *first = row + 4 * at * bytes_of(type);
  __m512i q =
      type == IST_Q4_1 && there == 4 ? four_q4_1(&c, first) : four_nibbles(&c, first, type, there);
  const __m512i low = _mm512_set1_epi8(15);
  __m512i xa = _mm512_loadu_si512(x->q), xb = _mm512_loadu_si512(x->q + 64);
  __m512i dot = _mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_and_si512(q, low),
                                    _mm512_shuffle_i64x2(xa, xb, 0x88));
  dot = _mm512_dpbusd_epi32(dot, _mm512_and_si512(_mm512_srli_epi16(q, 4), low),
                            _mm512_shuffle_i64x2(xa, xb, 0xdd));
  __m128 scale = _mm_mul_ps(_mm256_castps256_ps128(c.scale), _mm_loadu_ps(x->d));
  s->sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), spread4(scale), s->sum);
  s->offset = _mm256_castps128_ps256(_mm_fmadd_ps(
      _mm256_castps256_ps128(c.offset), _mm_loadu_ps(x->sum), _mm256_castps256_ps128(s->offset)));
}

INLINE void add_chunk(sums *s, const chunk *c, ist_dtype type, const ist_stored_chunk *x) {
  const __m512i zero = _mm512_setzero_si512();
  __m512i a = _mm512_dpbusd_epi32(zero, join(c->q[0], c->q[1]), _mm512_loadu_si512(x->q));
  __m512i b = _mm512_dpbusd_epi32(zero, join(c->q[2], c->q[3]), _mm512_loadu_si512(x->q + 64));
  __m128 d = _mm_loadu_ps(x->d);
  if (type == IST_Q6_K) {
    __m256 twice = _mm256_permutevar8x32_ps(_mm256_castps128_ps256(d),
                                            _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3));
    __m256 scale = _mm256_mul_ps(c->scale, twice);
    s->sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(a), spread16(scale, 0), s->sum);
    s->more = _mm512_fmadd_ps(_mm512_cvtepi32_ps(b), spread16(scale, 4), s->more);
    s->offset = _mm256_fmadd_ps(c->offset, _mm256_loadu_ps(x->half_sum), s->offset);
    return;
  }
  __m256 scale = _mm256_castps128_ps256(_mm_mul_ps(_mm256_castps256_ps128(c->scale), d));
  s->sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(a), spread8(scale, 0), s->sum);
  s->more = _mm512_fmadd_ps(_mm512_cvtepi32_ps(b), spread8(scale, 2), s->more);
  s->offset = _mm256_castps128_ps256(_mm_fmadd_ps(
      _mm256_castps256_ps128(c->offset), _mm_loadu_ps(x->sum), _mm256_castps256_ps128(s->offset)));
}

INLINE float total(const sums *s, ist_dtype type) {
  __m128 offset = _mm256_castps256_ps128(s->offset);
  if (type == IST_Q6_K) offset = _mm_add_ps(offset, _mm256_extractf128_ps(s->offset, 1));
  offset = _mm_add_ps(offset, _mm_movehl_ps(offset, offset));
  offset = _mm_add_ss(offset, _mm_movehdup_ps(offset));
  return _mm512_reduce_add_ps(_mm512_add_ps(s->sum, s->more)) + _mm_cvtss_f32(offset);
}

#elif IST_SIMD_LEVEL >= 1

typedef struct sums {
  __m256 sum, offset;
} sums;

/* Eight sums of four products each. */
INLINE __m256i dot32(__m256i q, __m256i x, bool with_sign) {
  if (with_sign) {
    x = _mm256_sign_epi8(x, q);
    q = _mm256_abs_epi8(q);
  }
  return _mm256_madd_epi16(_mm256_maddubs_epi16(q, x), _mm256_set1_epi16(1));
}

INLINE void add_chunk(sums *s, const chunk *c, ist_dtype type, const ist_stored_chunk *x) {
  float scale[8];
  __m128 d = _mm_loadu_ps(x->d);
  if (type == IST_Q6_K) {
    __m256 twice = _mm256_permutevar8x32_ps(_mm256_castps128_ps256(d),
                                            _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3));
    _mm256_storeu_ps(scale, _mm256_mul_ps(c->scale, twice));
  } else {
    _mm_storeu_ps(scale, _mm_mul_ps(_mm256_castps256_ps128(c->scale), d));
  }
  UNROLL for (int i = 0; i < 4; i++) {
    __m256i dot = dot32(c->q[i], load32((const uint8_t *)x->q + 32 * i), type == IST_Q8_0);
    __m256 factor = type == IST_Q6_K
                        ? _mm256_set_m128(_mm_set1_ps(scale[2 * i + 1]), _mm_set1_ps(scale[2 * i]))
                        : _mm256_set1_ps(scale[i]);
    s->sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), factor, s->sum);
  }
  if (type == IST_Q6_K) {
    s->offset = _mm256_fmadd_ps(c->offset, _mm256_loadu_ps(x->half_sum), s->offset);
  } else if (type != IST_Q8_0) {
    __m128 o = _mm_fmadd_ps(_mm256_castps256_ps128(c->offset), _mm_loadu_ps(x->sum),
                            _mm256_castps256_ps128(s->offset));
    s->offset = _mm256_insertf128_ps(_mm256_setzero_ps(), o, 0);
  }
}

INLINE float total(const sums *s, ist_dtype type) {
  (void)type;
  __m256 both = _mm256_add_ps(s->sum, s->offset);
  __m128 t = _mm_add_ps(_mm256_castps256_ps128(both), _mm256_extractf128_ps(both, 1));
  t = _mm_add_ps(t, _mm_movehl_ps(t, t));
  return _mm_cvtss_f32(_mm_add_ss(t, _mm_movehdup_ps(t)));
}

#endif

#if IST_SIMD_LEVEL >= 1

/* s[j] += chunk `at` of the row times that of x[j], `n` of them. */
INLINE void chunk_products(sums *s, const uint8_t *row, ist_dtype type, int64_t at, int64_t there,
                           const ist_stored_chunk *x, int64_t x_chunks, int n) {
#if IST_SIMD_LEVEL == 3
  if (type == IST_Q4_0 || type == IST_Q4_1) {
    UNROLL for (int j = 0; j < n; j++)
        add_nibbles(&s[j], row, type, x + j * x_chunks + at, at, there);
    return;
  }
#endif
  chunk c;
  load_chunk(&c, row, type, at, there);
  UNROLL for (int j = 0; j < n; j++) add_chunk(&s[j], &c, type, x + j * x_chunks + at);
}

/* out[j] = row . x[j] for `n` inputs, a number that the compiler knows. */
INLINE void row_products(float *out, const uint8_t *row, ist_dtype type, int64_t groups,
                         const ist_stored_chunk *x, int64_t x_chunks, int n) {
  sums s[4] = {0};
  int64_t whole = groups / 4, rest = groups % 4;
  for (int64_t at = 0; at < whole; at++) chunk_products(s, row, type, at, 4, x, x_chunks, n);
  if (rest) chunk_products(s, row, type, whole, rest, x, x_chunks, n);
  UNROLL for (int j = 0; j < n; j++) out[j] = total(&s[j], type);
}

INLINE void row_all(float *out, const uint8_t *row, ist_dtype type, int64_t groups,
                    const ist_stored_chunk *x, int64_t x_chunks, int64_t n) {
  int64_t j = 0;
  for (; j + 4 <= n; j += 4)
    row_products(out + j, row, type, groups, x + j * x_chunks, x_chunks, 4);
  for (; j < n; j++) row_products(out + j, row, type, groups, x + j * x_chunks, x_chunks, 1);
}

#else

static void row_all(float *out, const uint8_t *row, ist_dtype type, int64_t groups,
                    const ist_stored_chunk *x, int64_t x_chunks, int64_t n) {
  for (int64_t j = 0; j < n; j++) out[j] = 0.0f;
  for (int64_t g = 0; g < groups; g++) {
    uint8_t q[32];
    float scale[2], offset[2];
    ist_quant_group(q, scale, offset, row, type, g);
    for (int64_t j = 0; j < n; j++) {
      const ist_stored_chunk *c = x + j * x_chunks + g / 4;
      const int8_t *p = c->q + g % 4 * 32;
      for (int half = 0; half < 2; half++) {
        int32_t sum = 0;
        for (int i = 16 * half; i < 16 * half + 16; i++) sum += q[i] * p[i];
        out[j] +=
            scale[half] * c->d[g % 4] * (float)sum + offset[half] * c->half_sum[g % 4 * 2 + half];
      }
    }
  }
}

#endif

/* ---- Products in float -------------------------------------------------------------------- */

enum { PIECE = 1024 }; /* a multiple of every block */

/* out[j] += a . x[j] for n inputs. */
static void dot_piece(float *out, const void *a, bool bf16, int64_t len, const float *x,
                      int64_t ldx, int64_t n) {
  for (int64_t j = 0; j < n; j++, x += ldx) {
    vf sum[4] = {0};
    int64_t i = 0;
    for (; i + 4 * VL <= len; i += 4 * VL) {
      UNROLL for (int v = 0; v < 4; v++) sum[v] +=
          row_load(a, bf16, i + v * VL, len) * vf_load(x + i + v * VL);
    }
    for (; i < len; i += VL) sum[0] += row_load(a, bf16, i, len) * row_load(x, false, i, len);
    out[j] += vf_sum((sum[0] + sum[1]) + (sum[2] + sum[3]));
  }
}

static void row_float(float *out, const uint8_t *row, ist_dtype type, int64_t k, const float *x,
                      int64_t ldx, int64_t n) {
  for (int64_t j = 0; j < n; j++) out[j] = 0.0f;
  if (type == IST_F32 || type == IST_BF16) {
    dot_piece(out, row, type == IST_BF16, k, x, ldx, n);
    return;
  }
  float piece[PIECE];
  for (int64_t at = 0; at < k; at += PIECE) {
    int64_t len = k - at < PIECE ? k - at : PIECE;
    ist_dequant_f32(piece, row + ist_dtype_bytes(type, at), type, len);
    dot_piece(out, piece, false, len, x + at, ldx, n);
  }
}

/* ---- Rows of several matrices -------------------------------------------------------------- */

#define ROWS 32

static const uint8_t *stored_row(const ist_stored_linear *l, int64_t row_bytes, int64_t r) {
  return (const uint8_t *)l->w + (r / l->group * l->period + r % l->group) * row_bytes;
}

/* sum[r][j] of rows [row, row + n). */
static void products(float sum[ROWS][IST_STORED_ROWS], const ist_stored_linear *l,
                     const ist_stored_operand *in, int64_t row, int64_t n) {
  int64_t k = l->x.cols, m = l->x.rows, bytes = ist_dtype_bytes(l->type, k), groups = k / 32;
#define ROWS_OF(t)                                                                         \
  case t:                                                                                  \
    for (int64_t r = 0; r < n; r++)                                                        \
      row_all(sum[r], stored_row(l, bytes, row + r), t, groups, in->bytes, in->chunks, m); \
    return
  if (in->bytes != NULL) {
    switch (l->type) {
      ROWS_OF(IST_Q4_0);
      ROWS_OF(IST_Q4_1);
      ROWS_OF(IST_Q5_0);
      ROWS_OF(IST_Q5_1);
      ROWS_OF(IST_Q8_0);
      ROWS_OF(IST_Q4_K);
      ROWS_OF(IST_Q5_K);
      ROWS_OF(IST_Q6_K);
      default: break;
    }
  }
  for (int64_t r = 0; r < n; r++)
    row_float(sum[r], stored_row(l, bytes, row + r), l->type, k, in->x, in->ldx, m);
}

static void finish(float sum[ROWS][IST_STORED_ROWS], const ist_stored_linear *l,
                   const ist_stored_operand *in, int64_t row, int64_t n) {
  for (int64_t r = 0; r < n; r++) {
    if (l->u.p != NULL) {
      const void *b = row_of(&l->b, row + r);
      dot_piece(sum[r], b, is_bf16(&l->b), l->u.cols, in->u, in->ldu, l->u.rows);
    }
    float bias = l->bias.p != NULL ? ((const float *)l->bias.p)[row + r] : 0.0f;
    for (int64_t j = 0; j < l->y.rows; j++) {
      float value = sum[r][j] + bias;
      if (is_bf16(&l->y)) {
        ((ist_bf16 *)row_of(&l->y, j))[row + r] = ist_f32_to_bf16(value);
      } else {
        ((float *)row_of(&l->y, j))[row + r] = value;
      }
    }
  }
}

void SIMD(stored)(void *arg, int64_t begin, int64_t end, int thread) {
  (void)thread;
  const ist_stored_args *g = arg;
  float sum[ROWS][IST_STORED_ROWS];
  for (int i = 0; i < g->n; i++) {
    const ist_stored_linear *l = &g->l[i];
    int64_t last = end < l->y.cols ? end : l->y.cols;
    for (int64_t row = begin > 0 ? begin : 0; row < last; row += ROWS) {
      int64_t n = last - row < ROWS ? last - row : ROWS;
      products(sum, l, &g->in[i], row, n);
      finish(sum, l, &g->in[i], row, n);
    }
    begin -= l->y.cols;
    end -= l->y.cols;
  }
}
