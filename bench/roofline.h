/* Where each operation of a step stands against the machine's limits (Williams, Waterman,
 * Patterson 2009): its rate over its intensity, as SVG, with a legend of shares. */
#ifndef IST_BENCH_ROOFLINE_H
#define IST_BENCH_ROOFLINE_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "backend/backend.h"
#include "base/mem.h"
#include "base/parallel.h"

/* Measured in the same run, all threads. */
typedef struct bench_limits {
  double bytes;    /* a second, from and to memory */
  double products; /* FLOP/s of large matrix products in the compute type */
  double f32;      /* the same in F32 */
} bench_limits;

typedef struct bench_stream {
  const float *a, *b;
  float *c;
} bench_stream;

static inline void bench_stream_part(void *arg, int64_t begin, int64_t end, int thread) {
  (void)thread;
  const bench_stream *s = arg;
  const float *restrict a = s->a, *restrict b = s->b;
  float *restrict c = s->c;
  for (int64_t i = begin; i < end; i++) c[i] = a[i] + 3.0f * b[i];
}

/* Two arrays read and one written, larger than the caches: the best of several rounds. */
static inline double bench_memory_rate(void) {
  const int64_t n = 1 << 25;
  float *p = ist_calloc((size_t)(3 * n), sizeof(float));
  if (p == NULL) return 0;
  bench_stream s = {p, p + n, p + 2 * n};
  double best = 0;
  for (int i = 0; i < 6; i++) {
    double start = ist_prof_now();
    ist_parallel_for(n, 1 << 16, bench_stream_part, &s);
    double rate = 3.0 * sizeof(float) * (double)n / (ist_prof_now() - start);
    if (rate > best) best = rate;
  }
  ist_free(p);
  return best;
}

/* Seconds that the limits ask for: the longer of arithmetic and memory. Products run in the
 * compute type, everything else in F32. */
static inline double bench_least_seconds(const bench_limits *m, const char *name, double flops,
                                         double bytes) {
  bool product = strncmp(name, "linear", 6) == 0 || strcmp(name, "matmul") == 0 ||
                 strncmp(name, "attention", 9) == 0;
  return fmax(flops / (product ? m->products : m->f32), bytes / m->bytes);
}

enum { ROOF_LEFT = 60, ROOF_RIGHT = 470, ROOF_TOP = 20, ROOF_BOTTOM = 340 };

static inline double bench_roof_x(double intensity) { /* 0.1 to 1,000 FLOP a byte */
  return ROOF_LEFT + (ROOF_RIGHT - ROOF_LEFT) * (log10(fmax(intensity, 0.1)) + 1) / 4;
}
static inline double bench_roof_y(double flops) { /* 1 to 1,000 GFLOP/s */
  double at = fmin(fmax(log10(fmax(flops, 1) * 1e-9), 0), 3);
  return ROOF_BOTTOM - (ROOF_BOTTOM - ROOF_TOP) * at / 3;
}

static inline void bench_roof_line(FILE *f, const bench_limits *m, double top, const char *color,
                                   const char *label) {
  double knee = top / m->bytes;
  fprintf(f,
          "<polyline fill=\"none\" stroke=\"%s\" points=\"%.1f,%.1f %.1f,%.1f %d,%.1f\"/>"
          "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\" fill=\"%s\">%s %.0f GFLOP/s</text>\n",
          color, bench_roof_x(0.1), bench_roof_y(0.1 * m->bytes), bench_roof_x(knee),
          bench_roof_y(top), ROOF_RIGHT, bench_roof_y(top), ROOF_RIGHT, bench_roof_y(top) - 4,
          color, label, top * 1e-9);
}

static inline void bench_roof_axes(FILE *f, const bench_limits *m) {
  fprintf(f,
          "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"800\" height=\"390\" "
          "font-family=\"sans-serif\" font-size=\"11\"><rect width=\"800\" height=\"390\" "
          "fill=\"white\"/><path d=\"M%d %dV%dH%d\" fill=\"none\" stroke=\"black\"/>\n",
          ROOF_LEFT, ROOF_TOP, ROOF_BOTTOM, ROOF_RIGHT);
  for (int i = -1; i <= 3; i++)
    fprintf(f, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%g</text>",
            bench_roof_x(pow(10, i)), ROOF_BOTTOM + 15, pow(10, i));
  for (int i = 0; i <= 3; i++)
    fprintf(f, "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%g</text>", ROOF_LEFT - 5,
            bench_roof_y(pow(10, i + 9)) + 4, pow(10, i));
  fprintf(f,
          "<text x=\"%d\" y=\"375\" text-anchor=\"middle\">FLOP a byte</text>"
          "<text x=\"%d\" y=\"14\">GFLOP/s; memory %.1f GB/s</text>\n",
          (ROOF_LEFT + ROOF_RIGHT) / 2, ROOF_LEFT, m->bytes * 1e-9);
}

/* False where the file cannot be written. */
static inline bool bench_roofline(const char *path, const ist_prof *p, const bench_limits *m,
                                  double seconds) {
  FILE *f = fopen(path, "we");
  if (!f) return false;
  bench_roof_axes(f, m);
  bench_roof_line(f, m, m->products, "steelblue", "products");
  bench_roof_line(f, m, m->f32, "darkorange", "F32");
  fprintf(f, "<text x=\"490\" y=\"20\">operation: share of the time, of its limit</text>\n");
  for (int i = 0; i < p->n; i++) {
    double s = p->slot[i].seconds, flops = p->slot[i].flops, bytes = p->slot[i].bytes;
    double share = s / seconds;
    if (bytes <= 0) continue;
    fprintf(f, "<text x=\"490\" y=\"%d\">%d %s: %.1f %%, %.0f %%</text>", 36 + 15 * i, i + 1,
            p->slot[i].name, 100 * share,
            100 * bench_least_seconds(m, p->slot[i].name, flops, bytes) / s);
    if (flops <= 0) continue;
    fprintf(f,
            "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"%.1f\" fill=\"firebrick\" fill-opacity=\"0.6\"/>"
            "<text x=\"%.1f\" y=\"%.1f\">%d</text>\n",
            bench_roof_x(flops / bytes), bench_roof_y(flops / s), 3 + 14 * sqrt(share),
            bench_roof_x(flops / bytes) + 5 + 14 * sqrt(share), bench_roof_y(flops / s) + 4, i + 1);
  }
  fprintf(f, "</svg>\n");
  return fclose(f) == 0;
}

#endif
