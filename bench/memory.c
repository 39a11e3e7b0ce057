/* Peak memory and time against length, batch, rank and selector, and the curve of speed
 * against memory: what the plan expects (a line), what a process that trains held (VmHWM,
 * points) and, where a file of them is given, what PyTorch held beside it. One table on
 * standard output; in FOLDER a plot of memory and one of speed for each axis, as SVG.
 *
 *   build/release/bench/bench_memory [OPTION...] MODEL.gguf FOLDER
 *
 *   --measure       train at the shorter points     --full  at all of them (long)
 *   --only AXIS     curve, length, batch, rank, active or selector
 *   --data FILE     data of the curve (default: data like the paper's, made here)
 *   --beside FILE   lines "AXIS VALUE MB TOKENS_PER_SECOND", as bench/memory.sh makes them
 *
 * The plan's points hold for samples that are all as long as the limit. Every measured
 * point is a process of its own: this program again, with --train. */
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common.h"
#include "train/trainer.h"

enum { MOST = 12 };

typedef struct axis {
  const char *name, *label, *key;
  int n, cheap; /* points; how many of them --measure runs without --full */
  const char *value[MOST];
} axis;

static const axis axes[] = {
    {"length",
     "tokens of a sample",
     "max_tokens",
     6,
     3,
     {"256", "512", "1024", "2048", "4096", "8192"}},
    {"batch", "samples of a step", "batch", 7, 4, {"1", "2", "4", "8", "16", "32", "64"}},
    {"rank", "rank", "rank", 6, 6, {"4", "8", "16", "32", "64", "128"}},
    {"active", "share of layers that train", "active_ratio", 4, 4, {"0.1", "0.25", "0.5", "1"}},
    {"selector", "selector", "selector", 4, 4, {"ist", "random", "all", "fixed:0,7,15,22"}},
};

typedef struct point {
  double planned, peak, speed, loss; /* bytes, bytes, tokens/s; 0: not known */
  double other_peak, other_speed;    /* PyTorch */
  char what[120];                    /* the plan's choices */
} point;

/* ---- One process that trains --------------------------------------------------------- */

/* The paper's settings, four samples of 256 tokens. */
static void init_settings(ist_train_options *o, const char *data) {
  ist_train_options_init(o);
  ist_train_options_preset(o, "paper", NULL);
  o->train_path = data;
  o->template_name = "none";
  o->valid_examples = 0;
  o->probe_examples = 0;
  o->probe_every = 2;
  o->selector = "random";
  o->batch = 4;
  o->max_tokens = 256;
  o->steps = 2;
}

/* The curve: the paper's batch and template. */
static void init_curve(ist_train_options *o) {
  o->selector = "ist";
  o->template_name = "auto";
  o->batch = 16;
  o->max_tokens = 2048;
  o->steps = 8;
  o->probe_every = 10;
}

static bool set(ist_train_options *o, const char *key, const char *value) {
  if (strcmp(key, "max_tokens") == 0)
    o->max_tokens = atoll(value);
  else if (strcmp(key, "batch") == 0)
    o->batch = atoll(value);
  else if (strcmp(key, "rank") == 0)
    o->rank = atoll(value);
  else if (strcmp(key, "active_ratio") == 0)
    o->active_ratio = atof(value);
  else if (strcmp(key, "selector") == 0)
    o->selector = value;
  else if (strcmp(key, "recompute") == 0)
    o->recompute = value;
  else if (strcmp(key, "max_memory") == 0)
    o->max_memory = atoll(value);
  else
    return false;
  return true;
}

/* Steps are timed from the second on, probes apart: the first brings the weights into memory. */
static ist_status train(ist_trainer *t, point *p, ist_error *err) {
  double seconds = 0;
  int64_t tokens = 0;
  for (int64_t k = 0; k < t->total_steps; k++) {
    ist_step_report r;
    IST_TRY(ist_trainer_step(t, &r, err));
    p->loss = r.loss;
    if (k == 0) continue;
    seconds += r.seconds - r.probe_seconds;
    tokens += r.tokens;
  }
  p->speed = (double)tokens / seconds;
  p->planned = (double)t->plan.total;
  snprintf(p->what, sizeof p->what, "%s order, recompute %s, weights %s%s%s, %lld tokens a pass",
           ist_order_name(t->plan.order), ist_recompute_name(t->plan.recompute),
           ist_policy_name(t->plan.sizes.policy),
           t->plan.moments_on_disk ? ", moments on disk" : "",
           t->plan.sizes.head_rows < t->model->config.V ? ", head in tiles" : "",
           (long long)t->plan.micro_tokens);
  return IST_OK;
}

/* bench_memory --train MODEL DATA KIND [KEY VALUE]...: prints the point. */
static int train_process(int argc, char **argv) {
  ist_error err = {0};
  ist_train_options o;
  ist_model *m = NULL;
  ist_trainer *t = NULL;
  point p = {0};
  init_settings(&o, argv[1]);
  if (strcmp(argv[2], "curve") == 0) init_curve(&o);
  for (int i = 3; i + 1 < argc; i += 2) {
    if (!set(&o, argv[i], argv[i + 1])) return 2;
  }
  ist_status s = ist_model_open(&m, argv[0], NULL, &err);
  if (s == IST_OK) s = ist_trainer_open(&t, m, &o, &err);
  if (s == IST_OK) s = train(t, &p, &err);
  ist_trainer_close(t);
  ist_model_close(m);
  if (s != IST_OK) fprintf(stderr, "train: %s\n", err.message);
  if (s == IST_OK)
    printf("%.0f %lld %.2f %.4f %s\n", p.planned, (long long)ist_peak_memory(), p.speed, p.loss,
           p.what);
  return s != IST_OK;
}

/* The program again, by exec: a process that has threads cannot just be forked. */
static bool measure(point *p, char *const args[]) {
  int ends[2];
  if (pipe(ends) != 0) return false;
  fflush(NULL);
  pid_t child = fork();
  if (child == 0) {
    dup2(ends[1], STDOUT_FILENO);
    close(ends[0]);
    execv("/proc/self/exe", args);
    _exit(127);
  }
  close(ends[1]);
  FILE *f = fdopen(ends[0], "re");
  bool ok = child > 0 && f &&
            fscanf(f, "%lf %lf %lf %lf %119[^\n]", &p->planned, &p->peak, &p->speed, &p->loss,
                   p->what) == 5;
  if (f) fclose(f);
  if (child > 0) waitpid(child, NULL, 0);
  if (!ok) memset(p, 0, sizeof *p);
  return ok;
}

/* ---- Tables and plots ------------------------------------------------------------------ */

static double planned(const char *model, const axis *a, const char *value) {
  char *text = NULL;
  ist_error err = {0};
  ist_train_options o;
  init_settings(&o, "texts");
  set(&o, a->key, value);
  if (ist_plan(model, NULL, &o, &text, &err) != IST_OK) {
    fprintf(stderr, "plan: %s\n", err.message);
    return 0;
  }
  json_t *root = json_loads(text, 0, NULL);
  double bytes = (double)json_integer_value(json_object_get(root, "total_bytes"));
  json_decref(root);
  ist_free_memory(text);
  return bytes;
}

static void read_beside(const char *path, const char *axis_name, const char *value, point *p) {
  char name[64], at[64];
  double mb, speed;
  FILE *f = path ? fopen(path, "re") : NULL;
  while (f && fscanf(f, "%63s %63s %lf %lf", name, at, &mb, &speed) == 4) {
    if (strcmp(name, axis_name) != 0 || strcmp(at, value) != 0) continue;
    p->other_peak = mb * 1e6;
    p->other_speed = speed;
  }
  if (f) fclose(f);
}

/* A figure in a column, a dash where it is not known. */
static void column(double value, int width, int digits) {
  if (value > 0)
    printf(" %*.*f", width, digits, value);
  else
    printf(" %*s", width, "-");
}

static void row(const char *label, const char *value, const point *p) {
  printf("%-28s %16s", label, value);
  column(p->planned * 1e-6, 11, 0);
  column(p->peak * 1e-6, 11, 0);
  if (p->peak > 0)
    printf(" %+7.1f", 100 * (p->planned / p->peak - 1));
  else
    printf(" %7s", "-");
  column(p->speed, 10, 1);
  column(p->other_peak * 1e-6, 11, 0);
  column(p->other_speed, 10, 1);
  printf("\n");
}

typedef struct plot {
  FILE *f;
  int n;
  double most;
} plot;

static bool open_plot(plot *s, const char *folder, const char *name, const char *label, int n,
                      double most) {
  char path[4096];
  snprintf(path, sizeof path, "%s/%s.svg", folder, name);
  *s = (plot){fopen(path, "we"), n, most};
  if (!s->f) return false;
  fprintf(s->f,
          "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"520\" height=\"320\" "
          "font-family=\"sans-serif\" font-size=\"12\"><rect width=\"520\" height=\"320\" "
          "fill=\"white\"/><path d=\"M60 20V270H500\" fill=\"none\" stroke=\"black\"/>"
          "<text x=\"280\" y=\"310\" text-anchor=\"middle\">%s</text>"
          "<text x=\"55\" y=\"270\" text-anchor=\"end\">0</text>",
          label);
  return true;
}

static double plot_x(const plot *s, int i) {
  return 60 + (s->n > 1 ? 420.0 * i / (s->n - 1) : 0);
}
static double plot_y(const plot *s, double value) {
  return 270 - 230 * value / s->most;
}

static void plot_points(const plot *s, const double *value, const char *color) {
  for (int i = 0; i < s->n; i++) {
    if (value[i] > 0)
      fprintf(s->f, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"4\" fill=\"%s\"/>\n", plot_x(s, i),
              plot_y(s, value[i]), color);
  }
}

/* One figure of an axis: our points, PyTorch's where they are known, the plan's line unless NULL.
 */
static void plot_figure(const char *folder, const char *name, const axis *a, const char *unit,
                        const double *line, const double *ours, const double *other) {
  double most = 1;
  plot s;
  for (int i = 0; i < a->n; i++)
    most = fmax(most, fmax(line ? line[i] : 0, fmax(ours[i], other[i])));
  if (!open_plot(&s, folder, name, a->label, a->n, most)) return;
  fprintf(s.f,
          "<text x=\"55\" y=\"40\" text-anchor=\"end\">%.0f</text><text x=\"70\" y=\"16\">%s: "
          "%sred measured, grey PyTorch + PEFT</text>\n",
          most, unit, line ? "line the plan, " : "");
  if (line) {
    fprintf(s.f, "<polyline fill=\"none\" stroke=\"steelblue\" stroke-width=\"2\" points=\"");
    for (int i = 0; i < a->n; i++) fprintf(s.f, "%.1f,%.1f ", plot_x(&s, i), plot_y(&s, line[i]));
    fprintf(s.f, "\"/>\n");
  }
  for (int i = 0; i < a->n; i++)
    fprintf(s.f, "<text x=\"%.1f\" y=\"288\" text-anchor=\"middle\">%s</text>\n", plot_x(&s, i),
            a->value[i]);
  plot_points(&s, other, "gray");
  plot_points(&s, ours, "firebrick");
  fprintf(s.f, "</svg>\n");
  fclose(s.f);
}

static void plot_axis(const char *folder, const axis *a, const point *p) {
  double plan[MOST], ours[MOST], other[MOST];
  char name[64];
  for (int i = 0; i < a->n; i++) {
    plan[i] = p[i].planned * 1e-6;
    ours[i] = p[i].peak * 1e-6;
    other[i] = p[i].other_peak * 1e-6;
  }
  snprintf(name, sizeof name, "%s-memory", a->name);
  plot_figure(folder, name, a, "MB", plan, ours, other);
  for (int i = 0; i < a->n; i++) {
    ours[i] = p[i].speed;
    other[i] = p[i].other_speed;
  }
  snprintf(name, sizeof name, "%s-speed", a->name);
  plot_figure(folder, name, a, "tokens/s", NULL, ours, other);
}

typedef struct run {
  const char *model, *folder, *data, *beside, *only;
  char texts[4096], made[4096];
  bool measure, full;
} run;

static void do_axis(const run *r, const axis *a) {
  point p[MOST] = {0};
  for (int i = 0; i < a->n; i++) {
    if (r->full || (r->measure && i < a->cheap)) {
      char *const args[] = {"bench_memory",
                            "--train",
                            (char *)(uintptr_t)r->model,
                            (char *)(uintptr_t)r->texts,
                            "axis",
                            (char *)(uintptr_t)a->key,
                            (char *)(uintptr_t)a->value[i],
                            NULL};
      measure(&p[i], args);
    }
    if (p[i].planned <= 0) p[i].planned = planned(r->model, a, a->value[i]);
    read_beside(r->beside, a->name, a->value[i], &p[i]);
    row(a->label, a->value[i], &p[i]);
  }
  plot_axis(r->folder, a, p);
}

/* ---- The curve of speed against memory ------------------------------------------------- */

static bool curve_point(const run *r, const char *limit, const char *recompute, point *p) {
  char *const args[] = {"bench_memory",
                        "--train",
                        (char *)(uintptr_t)r->model,
                        (char *)(uintptr_t)(r->data ? r->data : r->made),
                        "curve",
                        "max_memory",
                        (char *)(uintptr_t)limit,
                        "recompute",
                        (char *)(uintptr_t)recompute,
                        NULL};
  return measure(p, args);
}

static void curve_row(const char *name, const point *p) {
  row(name, "", p);
  printf("%-28s %s, loss %.4f\n", "", p->what, p->loss);
}

/* From `small`, 250 MB above the file, to `fast`, 1 GiB and nothing recomputed. */
static void do_curve(const run *r) {
  struct stat st;
  if (!r->measure || stat(r->model, &st) != 0) return;
  double least = (double)st.st_size + 250e6, most = fmax(1073741824.0, 1.1 * least), x[MOST],
         speed[MOST];
  point p[MOST] = {0};
  int n = 0;
  plot s;
  for (int i = 0; i < 8; i++) {
    char limit[32];
    snprintf(limit, sizeof limit, "%.0f", least * pow(most / least, i / 7.0));
    if (!curve_point(r, limit, i == 7 ? "none" : "auto", &p[n])) continue;
    if (i < 7 && n > 0 && p[n].planned <= p[n - 1].planned) continue; /* the same plan */
    curve_row(i == 0 ? "small" : i == 7 ? "fast" : "between", &p[n]);
    n++;
  }
  for (int i = 0; i < n; i++) x[i] = p[i].peak, speed[i] = p[i].speed;
  double top = 1, right = 1;
  for (int i = 0; i < n; i++) top = fmax(top, speed[i]), right = fmax(right, x[i]);
  if (!open_plot(&s, r->folder, "curve", "measured peak, MB", n, top)) return;
  fprintf(s.f,
          "<text x=\"55\" y=\"40\" text-anchor=\"end\">%.0f</text><text x=\"70\" y=\"16\">"
          "tokens/s</text>",
          top);
  double labelled = 0;
  for (int i = 0; i < n; i++) {
    double at = 60 + 420 * x[i] / right;
    fprintf(s.f, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"4\" fill=\"firebrick\"/>", at,
            plot_y(&s, speed[i]));
    if (at - labelled < 30) continue; /* no room for another figure */
    fprintf(s.f, "<text x=\"%.1f\" y=\"288\" text-anchor=\"middle\">%.0f</text>\n", at,
            x[i] * 1e-6);
    labelled = at;
  }
  fprintf(s.f, "</svg>\n");
  fclose(s.f);
}

/* ---- The program --------------------------------------------------------------------------- */

/* Texts that are longer than any sample is cut to. */
static bool write_texts(const char *path) {
  FILE *f = fopen(path, "we");
  if (!f) return false;
  ist_rng rng = ist_rng_stream(7, IST_RNG_DATA, 0, 0, 0);
  for (int i = 0; i < 192; i++) {
    fprintf(f, "{\"text\": \"");
    bench_put_words(f, &rng, 9000);
    fprintf(f, "\"}\n");
  }
  bool ok = !ferror(f);
  return fclose(f) == 0 && ok;
}

static bool read_arguments(run *r, int argc, char **argv) {
  const char *plain[2];
  int n = 0;
  for (int i = 1; i < argc; i++) {
    if (strcmp(argv[i], "--measure") == 0) {
      r->measure = true;
    } else if (strcmp(argv[i], "--full") == 0) {
      r->measure = r->full = true;
    } else if (strcmp(argv[i], "--only") == 0 && i + 1 < argc) {
      r->only = argv[++i];
    } else if (strcmp(argv[i], "--data") == 0 && i + 1 < argc) {
      r->data = argv[++i];
    } else if (strcmp(argv[i], "--beside") == 0 && i + 1 < argc) {
      r->beside = argv[++i];
    } else if (argv[i][0] != '-' && n < 2) {
      plain[n++] = argv[i];
    } else {
      return false;
    }
  }
  if (n < 2) return false;
  r->model = plain[0];
  r->folder = plain[1];
  return true;
}

int main(int argc, char **argv) {
  if (argc > 4 && strcmp(argv[1], "--train") == 0) return train_process(argc - 2, argv + 2);
  run r = {0};
  char machine[128], commit[64];
  if (!read_arguments(&r, argc, argv)) {
    fprintf(stderr,
            "usage: bench_memory [--measure] [--full] [--only AXIS] [--data FILE] [--beside FILE] "
            "MODEL.gguf FOLDER\n");
    return 2;
  }
  snprintf(r.texts, sizeof r.texts, "%s/texts.jsonl", r.folder);
  snprintf(r.made, sizeof r.made, "%s/made.jsonl", r.folder);
  if (!write_texts(r.texts) || (!r.data && !bench_write_data(r.made, 1000))) {
    fprintf(stderr, "%s: cannot write there: %s\n", r.folder, strerror(errno));
    return 1;
  }
  bench_machine(machine, sizeof machine);
  bench_commit(commit, sizeof commit);
  printf("%s, %d threads, commit %s\n%-28s %16s %11s %11s %7s %10s %11s %10s\n", machine,
         ist_get_threads(), commit, "setting", "", "planned MB", "peak MB", "over %", "tokens/s",
         "PyTorch MB", "tokens/s");
  if (!r.only || strcmp(r.only, "curve") == 0) do_curve(&r);
  for (size_t i = 0; i < sizeof axes / sizeof *axes; i++) {
    if (!r.only || strcmp(r.only, axes[i].name) == 0) do_axis(&r, &axes[i]);
  }
  unlink(r.texts);
  unlink(r.made);
  return 0;
}
