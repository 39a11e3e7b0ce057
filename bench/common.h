/* What the benchmarks share: where they ran, and data like the paper's. */
#ifndef IST_BENCH_COMMON_H
#define IST_BENCH_COMMON_H

#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/error.h"
#include "base/rng.h"

#ifndef IST_BENCH_SOURCE
#define IST_BENCH_SOURCE "."
#endif

/* The processor's name into a caller's buffer. */
static inline void bench_machine(char *out, size_t size) {
  char line[256] = "";
  FILE *f = fopen("/proc/cpuinfo", "re");
  bool found = false;
  while (f && !found && fgets(line, sizeof line, f)) found = strncmp(line, "model name", 10) == 0;
  if (f) fclose(f);
  const char *colon = found ? strchr(line, ':') : NULL;
  snprintf(out, size, "%s", colon ? colon + 2 : "unknown processor");
  out[strcspn(out, "\n")] = '\0';
}

/* Processor time used since the machine started (seconds of one CPU): by everybody, and
 * by this process. A figure taken while others used the machine is worth little. */
typedef struct bench_cpu {
  double all, mine;
} bench_cpu;
static inline bench_cpu bench_cpu_now(void) {
  bench_cpu c = {0, 0};
  long long user = 0, nice = 0, system = 0, idle, wait, irq = 0, soft = 0, steal = 0;
  FILE *f = fopen("/proc/stat", "re");
  if (f && fscanf(f, "cpu %lld %lld %lld %lld %lld %lld %lld %lld", &user, &nice, &system, &idle,
                  &wait, &irq, &soft, &steal) == 8)
    c.all = (double)(user + nice + system + irq + soft + steal) / (double)sysconf(_SC_CLK_TCK);
  if (f) fclose(f);
  struct rusage r;
  if (getrusage(RUSAGE_SELF, &r) == 0)
    c.mine = (double)(r.ru_utime.tv_sec + r.ru_stime.tv_sec) +
             1e-6 * (double)(r.ru_utime.tv_usec + r.ru_stime.tv_usec);
  return c;
}
/* CPUs that others kept busy, on average, since `since`, `seconds` ago. */
static inline double bench_cpu_others(bench_cpu since, double seconds) {
  bench_cpu now = bench_cpu_now();
  double others = (now.all - since.all) - (now.mine - since.mine);
  return others > 0 ? others / seconds : 0;
}

/* The commit of the source tree, with "-dirty" where it was changed. */
static inline void bench_commit(char *out, size_t size) {
  FILE *f = popen("git -C '" IST_BENCH_SOURCE "' describe --always --dirty 2>/dev/null", "re");
  if (!f || !fgets(out, (int)size, f)) snprintf(out, size, "unknown");
  if (f) pclose(f);
  out[strcspn(out, "\n")] = '\0';
}

/* `words` words of a small vocabulary. */
static inline void bench_put_words(FILE *f, ist_rng *rng, int words) {
  static const char *const list[] = {
      "the",    "of",      "water", "a",     "which",   "to",     "hold",  "in",
      "wooden", "box",     "is",    "plant", "because", "and",    "light", "carry",
      "people", "would",   "keep",  "it",    "small",   "animal", "from",  "before",
      "paper",  "morning", "their", "when",  "heat",    "use",    "with",  "river",
      "not",    "place",   "clean", "metal", "on",      "after",  "glass", "open",
  };
  for (int i = 0; i < words; i++) {
    int64_t w = ist_rng_below(rng, sizeof list / sizeof *list);
    fprintf(f, "%s%s", i ? " " : "", list[w]);
  }
}

/* Writes `records` records with the fields of the paper's training data and about its
 * lengths: some 85 tokens each with the paper's template, most between 70 and 120. */
static inline bool bench_write_data(const char *path, int records) {
  FILE *f = fopen(path, "we");
  if (!f) return false;
  ist_rng rng = ist_rng_stream(7, IST_RNG_DATA, 0, 0, 0);
  for (int i = 0; i < records; i++) {
    bool choice = ist_rng_below(&rng, 2) == 0;
    fprintf(f, "{\"instruction\": \"%s: ",
            choice ? "Please choose the correct answer to the question"
                   : "Please answer the following question with true or false, question");
    bench_put_words(
        f, &rng,
        6 + (int)ist_rng_below(&rng, choice ? 12 : 8) + (ist_rng_below(&rng, 8) == 0 ? 20 : 0));
    if (choice) {
      fprintf(f, "?\\n\\n");
      for (int a = 1; a <= 4; a++) {
        fprintf(f, "Answer%d: ", a);
        bench_put_words(f, &rng, 1 + (int)ist_rng_below(&rng, 5));
        fprintf(f, a < 4 ? " " : "\\n\\nAnswer format: answer1/answer2/answer3/answer4");
      }
    } else {
      fprintf(f, "?\\n\\nAnswer format: true/false");
    }
    const char *answer = choice ? (const char *[]){"answer1", "answer2", "answer3",
                                                   "answer4"}[ist_rng_below(&rng, 4)]
                                : (ist_rng_below(&rng, 2) ? "true" : "false");
    fprintf(f,
            "\", \"input\": \"\", \"output\": \"the correct answer is %s\", \"answer\": \"%s\"}\n",
            answer, answer);
  }
  bool ok = !ferror(f);
  return fclose(f) == 0 && ok;
}

#endif
