/* Peak memory against length, batch, rank and selector: what the plan expects (a line)
 * and, with --measure, what a process that trains one step held (VmHWM, points). One
 * table on standard output, one SVG plot an axis in FOLDER.
 *
 *   build/bench/bench_memory MODEL.gguf FOLDER [--measure] [--full]
 *
 * --measure runs the shorter points, --full all of them (8,192 tokens and 64 samples
 * take long). Every point is a process of its own. */
#include <jansson.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common.h"
#include "ist.h"

enum { MOST = 10 };

typedef struct axis {
  const char *name, *file;
  int n, cheap; /* points; how many of them --measure runs without --full */
  double value[MOST];
} axis;

static const axis axes[] = {
    {"tokens of a sample", "length.svg", 6, 2, {256, 512, 1024, 2048, 4096, 8192}},
    {"samples of a step", "batch.svg", 7, 3, {1, 2, 4, 8, 16, 32, 64}},
    {"rank", "rank.svg", 6, 3, {4, 8, 16, 32, 64, 128}},
    {"share of layers that train", "selector.svg", 4, 2, {0.1, 0.25, 0.5, 1.0}},
};
enum { LENGTH, BATCH, RANK, SELECTOR, AXES };

/* The paper's settings, four samples of 256 tokens, one of them changed. */
static void settings(ist_train_options *o, int which, double value, const char *data) {
  ist_train_options_init(o);
  ist_train_options_preset(o, "paper", NULL);
  o->train_path = data;
  o->template_name = "none";
  o->valid_examples = 0;
  o->probe_examples = 0;
  o->selector = "random";
  o->batch = which == BATCH ? (int64_t)value : 4;
  o->max_tokens = which == LENGTH ? (int64_t)value : 256;
  if (which == RANK) o->rank = (int64_t)value;
  if (which == SELECTOR) o->active_ratio = value;
  o->steps = 1;
}

static double planned(const char *model, const ist_train_options *o) {
  char *text = NULL;
  ist_error err = {0};
  if (ist_plan(model, o, &text, &err) != IST_OK) {
    fprintf(stderr, "plan: %s\n", err.message);
    return 0;
  }
  json_t *root = json_loads(text, 0, NULL);
  double bytes = (double)json_integer_value(json_object_get(root, "total_bytes"));
  json_decref(root);
  ist_free_memory(text);
  return bytes;
}

/* In the child: one step, then the process's own peak. */
static int64_t train_one(const char *path, const ist_train_options *o) {
  ist_error err = {0};
  ist_model *m = NULL;
  ist_trainer *t = NULL;
  ist_step_report r;
  ist_status s = ist_model_open(&m, path, NULL, &err);
  if (s == IST_OK) s = ist_trainer_open(&t, m, o, &err);
  if (s == IST_OK) s = ist_trainer_step(t, &r, &err);
  if (s != IST_OK) fprintf(stderr, "train: %s\n", err.message);
  int64_t peak = s == IST_OK ? ist_peak_memory() : 0;
  ist_trainer_close(t);
  ist_model_close(m);
  return peak;
}

static double measured(const char *model, const ist_train_options *o) {
  int ends[2];
  int64_t peak = 0;
  if (pipe(ends) != 0) return 0;
  fflush(NULL);
  pid_t child = fork();
  if (child == 0) {
    peak = train_one(model, o);
    _exit(write(ends[1], &peak, sizeof peak) == sizeof peak ? 0 : 1);
  }
  close(ends[1]);
  if (child < 0 || read(ends[0], &peak, sizeof peak) != sizeof peak) peak = 0;
  close(ends[0]);
  if (child > 0) waitpid(child, NULL, 0);
  return (double)peak;
}

static void plot(const char *folder, const axis *a, const double *plan, const double *peak) {
  char path[4096];
  double most = 1;
  snprintf(path, sizeof path, "%s/%s", folder, a->file);
  FILE *f = fopen(path, "we");
  if (!f) return;
  for (int i = 0; i < a->n; i++) {
    if (plan[i] > most) most = plan[i];
    if (peak[i] > most) most = peak[i];
  }
  fprintf(f,
          "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"520\" height=\"320\" "
          "font-family=\"sans-serif\" font-size=\"12\"><rect width=\"520\" height=\"320\" "
          "fill=\"white\"/><path d=\"M60 20V270H500\" fill=\"none\" stroke=\"black\"/>"
          "<text x=\"280\" y=\"310\" text-anchor=\"middle\">%s</text>"
          "<text x=\"55\" y=\"30\" text-anchor=\"end\">%.0f MB</text>"
          "<text x=\"55\" y=\"270\" text-anchor=\"end\">0</text>"
          "<text x=\"70\" y=\"34\">line: the plan; points: measured</text>\n<polyline "
          "fill=\"none\" stroke=\"steelblue\" stroke-width=\"2\" points=\"",
          a->name, most * 1e-6);
  double step = 440.0 / (a->n > 1 ? a->n - 1 : 1);
  for (int i = 0; i < a->n; i++)
    fprintf(f, "%.1f,%.1f ", 60 + step * i, 270 - 230 * plan[i] / most);
  fprintf(f, "\"/>\n");
  for (int i = 0; i < a->n; i++) {
    double x = 60 + step * i;
    fprintf(f, "<text x=\"%.1f\" y=\"288\" text-anchor=\"middle\">%g</text>\n", x, a->value[i]);
    if (peak[i] > 0)
      fprintf(f, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"4\" fill=\"firebrick\"/>\n", x,
              270 - 230 * peak[i] / most);
  }
  fprintf(f, "</svg>\n");
  fclose(f);
}

/* Texts that are longer than any sample is cut to. */
static bool write_texts(const char *path) {
  FILE *f = fopen(path, "we");
  if (!f) return false;
  ist_rng rng = ist_rng_stream(7, IST_RNG_DATA, 0, 0, 0);
  for (int i = 0; i < 64; i++) {
    fprintf(f, "{\"text\": \"");
    bench_put_words(f, &rng, 9000);
    fprintf(f, "\"}\n");
  }
  bool ok = !ferror(f);
  return fclose(f) == 0 && ok;
}

int main(int argc, char **argv) {
  bool measure = false, full = false;
  for (int i = 3; i < argc; i++) {
    measure |= strcmp(argv[i], "--measure") == 0;
    full |= strcmp(argv[i], "--full") == 0;
  }
  if (argc < 3) {
    fprintf(stderr, "usage: bench_memory MODEL.gguf FOLDER [--measure] [--full]\n");
    return 2;
  }
  char data[4096], machine[128], commit[64];
  snprintf(data, sizeof data, "%s/texts.jsonl", argv[2]);
  if (!write_texts(data)) {
    fprintf(stderr, "cannot write %s\n", data);
    return 1;
  }
  bench_machine(machine, sizeof machine);
  bench_commit(commit, sizeof commit);
  printf("%s, %d threads, commit %s\n%-28s %10s %12s %12s\n", machine, ist_get_threads(), commit,
         "setting", "value", "planned MB", "measured MB");
  for (int w = 0; w < AXES; w++) {
    double plan[MOST] = {0}, peak[MOST] = {0};
    for (int i = 0; i < axes[w].n; i++) {
      ist_train_options o;
      settings(&o, w, axes[w].value[i], data);
      plan[i] = planned(argv[1], &o);
      if (full || (measure && i < axes[w].cheap)) peak[i] = measured(argv[1], &o);
      printf("%-28s %10g %12.1f ", axes[w].name, axes[w].value[i], plan[i] * 1e-6);
      if (peak[i] > 0)
        printf("%12.1f\n", peak[i] * 1e-6);
      else
        printf("%12s\n", "-");
    }
    plot(argv[2], &axes[w], plan, peak);
  }
  unlink(data);
  return 0;
}
