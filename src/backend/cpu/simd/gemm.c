/* Products of packed operands. C is cut into blocks; a thread packs a block's
 * columns of B into vectors of NR, then walks the rows of A a tile at a time. Rows
 * of A that already are units along k are read where they lie. */
#include "backend/cpu/simd/dot.h"
#include "backend/cpu/simd/simd.h"
#include "backend/cpu/simd/table.h"

/* Bytes of packed B per thread, so that it stays in the second-level cache. */
#define PACK_TARGET (256 * 1024)
/* Fewer rows than this: dot products with rows of B that are read only once. */
#define FEW_ROWS 6

/* What is left of an operand once transposition is told apart from use: k runs
 * along its rows (`along`) or down its columns. */
typedef struct operand {
  const ist_view *v;
  bool along, bf16;
  int64_t k;
} operand;

/* The operand whose elements are broadcast (`vectors` false), or read as vectors. */
static operand operand_of(const ist_gemm *g, int term, bool vectors) {
  const ist_gemm_term *t = &g->term[term];
  if (vectors != g->swapped) return (operand){&t->b, t->tb, t->b.dt == IST_BF16, t->k};
  return (operand){&t->a, !t->ta, t->a.dt == IST_BF16, t->k};
}

/* Packs lanes [j, j + n) of an operand: `width` units for each k, zero beyond n. */
INLINE void pack(uint32_t *out, int width, operand o, int64_t j, int64_t n, bool dot) {
  int64_t total = units(o.k, dot);
  for (int at = 0; at < width; at += VL) {
    int keep = width - at < VL ? width - at : VL;
    if (o.along) {
      for (int64_t u = 0; u < total; u += VL) {
        vu r[VL];
        for (int i = 0; i < VL; i++) {
          bool there = i < keep && at + i < n;
          /* Rows lie apart, too many for the processor to see where they lead: the next
           * ones are fetched meanwhile (past the end that is harmless). */
          if (u % 16 == 0) __builtin_prefetch((const char *)row_of(o.v, j + at + VL + i) + u * 4);
          r[i] = there ? load_units(row_of(o.v, j + at + i), o.bf16, u, o.k, dot) : (vu){0};
        }
        transpose(r);
        for (int64_t i = 0; i < VL && u + i < total; i++) {
          float *to = (float *)out + (u + i) * width + at;
          if (keep == VL) {
            vf_store(to, (vf)r[i]);
          } else {
            vf_store_part(to, (vf)r[i], keep);
          }
        }
      }
      continue;
    }
    for (int64_t u = 0; u < total; u++) {
      int64_t p = dot ? 2 * u : u;
      const char *first = row_of(o.v, p);
      const char *second = dot && p + 1 < o.k ? row_of(o.v, p + 1) : NULL;
      float *to = (float *)out + u * width + at;
      /* Lanes beyond n are read as zero: the row ends there for us. */
      vu x = at < n ? load_across(first, second, o.bf16, j + at, j + n, dot) : (vu){0};
      if (keep == VL) {
        vf_store(to, (vf)x);
      } else {
        vf_store_part(to, (vf)x, keep);
      }
    }
  }
}

/* True when the broadcast operand can be read where it lies. */
static bool in_place(operand o, bool dot) {
  return o.along && o.bf16 == dot && (!dot || o.k % 2 == 0);
}

/* Adds bias and the old C to a row of VL results and stores n of them. */
INLINE void put(const ist_gemm *g, int64_t row, int64_t col, int64_t n, vf x, bool bf16) {
  void *c = row_of(&g->c, row);
  if (g->bias != NULL) x += row_load(g->bias, false, col, col + n);
  if (g->accumulate) x += row_load(c, bf16, col, col + n);
  row_store(c, bf16, col, col + n, x);
}

/* A finished tile, rows x NR, whose first element is C's (row, col), or in a swapped
 * product the columns col .. of the rows row .. */
INLINE void store_tile(const ist_gemm *g, const float *t, int64_t row, int rows, int64_t col,
                       int64_t cols, bool bf16) {
  for (int64_t j = 0; j < cols; j += VL) {
    int64_t n = cols - j < VL ? cols - j : VL;
    if (!g->swapped) {
      for (int i = 0; i < rows; i++) put(g, row + i, col + j, n, vf_load(t + i * NR + j), bf16);
      continue;
    }
    vu r[VL];
    for (int i = 0; i < VL; i++) r[i] = i < rows ? (vu)vf_load(t + i * NR + j) : (vu){0};
    transpose(r);
    for (int i = 0; i < n; i++) put(g, col + j + i, row, rows, (vf)r[i], bf16);
  }
}

/* One row of tiles: `rows` rows against every packed panel of the block. */
INLINE void row_of_tiles(const ist_gemm *g, int64_t row, int rows, int64_t col0, int64_t col1,
                         const uint32_t *panels, uint32_t *packed_a, bool dot) {
  struct {
    const void *p;
    int64_t row, step, n;
  } a[2];
  for (int t = 0; t < g->n_terms; t++) {
    operand o = operand_of(g, t, false);
    a[t].n = units(o.k, dot);
    if (in_place(o, dot)) {
      a[t].p = row_of(o.v, row);
      a[t].row = o.v->stride * width_of(o.v);
      a[t].step = 4;
      continue;
    }
    pack(packed_a, MR, o, row, rows, dot);
    a[t].p = packed_a;
    a[t].row = 4;
    a[t].step = MR * 4;
    packed_a += a[t].n * MR;
  }
  float sum[MR * NR];
  for (int64_t col = col0; col < col1; col += NR) {
    for (int t = 0; t < g->n_terms; t++) {
      SIMD(tile)(sum, NR, a[t].p, a[t].row, a[t].step, panels, a[t].n, t > 0, rows, 2, dot);
      panels += a[t].n * NR;
    }
    int64_t cols = col1 - col < NR ? col1 - col : NR;
    store_tile(g, sum, row, rows, col, cols, g->c.dt == IST_BF16);
  }
}

INLINE void block(const ist_gemm *g, int64_t row0, int64_t row1, int64_t col0, int64_t col1,
                  uint32_t *panels, bool dot) {
  uint32_t *at = panels;
  for (int64_t col = col0; col < col1; col += NR) {
    for (int t = 0; t < g->n_terms; t++) {
      operand o = operand_of(g, t, true);
      pack(at, NR, o, col, col1 - col < NR ? col1 - col : NR, dot);
      at += units(o.k, dot) * NR;
    }
  }
  for (int64_t row = row0; row < row1;) {
    int rows = tile_rows(row1 - row);
    row_of_tiles(g, row, rows, col0, col1, panels, at, dot);
    row += rows;
  }
}

/* Columns [col0, col1) of a product with few rows: VL dot products at a time, so that
 * op(B) (stored along k) is read once from memory. */
INLINE void few_rows(const ist_gemm *g, int64_t col0, int64_t col1, bool dot) {
  for (int64_t col = col0; col < col1; col += VL) {
    int64_t n = col1 - col < VL ? col1 - col : VL;
    for (int64_t row = 0; row < g->c.rows; row++) {
      vf sum[VL];
      for (int i = 0; i < VL; i++) sum[i] = (vf){0};
      for (int t = 0; t < g->n_terms; t++) {
        operand a = operand_of(g, t, false), b = operand_of(g, t, true);
        const char *ap = row_of(a.v, row), *bp = row_of(b.v, col);
        int64_t ld = b.v->stride * width_of(b.v), total = units(a.k, dot);
        for (int64_t u = 0; u < total; u += VL) {
          vu x = load_units(ap, a.bf16, u, a.k, dot);
          UNROLL for (int i = 0; i < VL; i++) {
            if (i >= n) continue;
            sum[i] = vf_dot(sum[i], x, load_units(bp + i * ld, b.bf16, u, b.k, dot), dot);
          }
        }
      }
      vu r[VL];
      for (int i = 0; i < VL; i++) r[i] = (vu)sum[i];
      transpose(r);
      for (int half = VL / 2; half > 0; half /= 2) {
        for (int i = 0; i < half; i++) r[i] = (vu)((vf)r[i] + (vf)r[i + half]);
      }
      put(g, row, col, n, (vf)r[0], g->c.dt == IST_BF16);
    }
  }
}

/* Rows and columns of the product as it is computed. */
static int64_t computed_rows(const ist_gemm *g) {
  return g->swapped ? g->c.cols : g->c.rows;
}
static int64_t computed_cols(const ist_gemm *g) {
  return g->swapped ? g->c.rows : g->c.cols;
}
static int64_t least(int64_t a, int64_t b) {
  return a < b ? a : b;
}
static int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

static bool dots_only(const ist_gemm *g) {
  bool along = true;
  for (int t = 0; t < g->n_terms; t++) along = along && !g->term[t].ta && g->term[t].tb;
  return along && !g->swapped && g->c.rows < FEW_ROWS;
}

/* Rows that take as long as packing a panel. */
#define PACK_ROWS 12

/* Cuts C into blocks of whole panels, at most `fit` of them, and of rows: the cut whose
 * slowest thread is done first. Returns the panels of a block. */
static int64_t choose_blocks(ist_gemm *g, int64_t rows, int64_t cols, int64_t fit, int threads) {
  int64_t panels = ceil_div(cols, NR), best_panels = 1, tallest = ceil_div(rows, MR);
  double best = INFINITY;
  for (int64_t p = 1; p == 1 || p <= least(fit, panels); p++) {
    for (int64_t cut = 1; cut <= least(4 * threads, tallest); cut++) {
      int64_t height = ceil_div(tallest, cut) * MR;
      int64_t items = ceil_div(panels, p) * ceil_div(rows, height);
      double each = (double)p * (double)(least(height, rows) + PACK_ROWS);
      /* Rows of A come from a farther cache once a block. */
      double cost = (double)ceil_div(items, threads) * each * (1.0 + 0.02 / (double)p);
      if (!(cost < best)) continue;
      best = cost;
      best_panels = p;
      g->row_block = least(height, rows);
    }
  }
  g->col_block = best_panels * NR;
  return best_panels;
}

void SIMD(gemm_plan)(ist_gemm *g, int threads) {
  int64_t total = 0;
  bool down = true;
  g->dot_bf16 = false;
  for (int t = 0; t < g->n_terms; t++) {
    const ist_gemm_term *s = &g->term[t];
    g->dot_bf16 = g->dot_bf16 || (BF16_DOT && s->a.dt == IST_BF16);
    down = down && s->ta && !s->tb;
  }
  for (int t = 0; t < g->n_terms; t++) total += units(g->term[t].k, g->dot_bf16);
  /* Both operands must be packed: the larger one as vectors, which costs less. The
   * bias runs along C's rows, so that it needs the usual order. */
  g->swapped = down && g->c.rows > g->c.cols && g->bias == NULL;
  int64_t rows = computed_rows(g), cols = computed_cols(g);
  if (dots_only(g)) {
    g->row_block = rows;
    g->col_block = least(64, cols);
    g->pack_bytes = 0;
  } else {
    int64_t panels = choose_blocks(g, rows, cols, PACK_TARGET / (total * NR * 4 + 1), threads);
    g->pack_bytes = (panels * NR + MR) * total * 4;
  }
  g->n_items = ceil_div(rows, g->row_block) * ceil_div(cols, g->col_block);
}

int64_t SIMD(gemm_pack_bytes)(int64_t k, bool bf16) {
  /* An odd k of each term rounds up by itself. */
  int64_t total = units(k, BF16_DOT && bf16) + 1, panel = NR * total * 4;
  return (panel > PACK_TARGET ? panel : PACK_TARGET) + MR * total * 4;
}

void SIMD(gemm)(void *arg, int64_t begin, int64_t end, int thread) {
  const ist_gemm *g = arg;
  uint32_t *pack_at = (uint32_t *)(g->pack + thread * g->pack_bytes);
  int64_t rows = computed_rows(g), cols = computed_cols(g);
  int64_t across = ceil_div(cols, g->col_block);
  for (int64_t item = begin; item < end; item++) {
    int64_t row0 = item / across * g->row_block, col0 = item % across * g->col_block;
    int64_t row1 = least(row0 + g->row_block, rows), col1 = least(col0 + g->col_block, cols);
    if (dots_only(g)) {
      if (BF16_DOT && g->dot_bf16) {
        few_rows(g, col0, col1, true);
      } else {
        few_rows(g, col0, col1, false);
      }
    } else if (BF16_DOT && g->dot_bf16) {
      block(g, row0, row1, col0, col1, pack_at, true);
    } else {
      block(g, row0, row1, col0, col1, pack_at, false);
    }
  }
}
