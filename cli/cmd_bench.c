/* cmd_bench.c: how fast a model trains, reads and writes on this machine, and what
 * would make it faster. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmd.h"
#include "text.h"

#define PROMPT_WORDS 200
#define NEW_TOKENS   48

/* What the steps took; means of those that were timed. */
typedef struct bench_train {
  int64_t steps, probes, tokens;
  double step_seconds, probe_seconds; /* of a step without its probe; of a probe */
  double speed;                       /* tokens/s, probes at their own pace included */
} bench_train;

/* ---- Data ---------------------------------------------------------------------------- */

static unsigned next_random(unsigned *state) {
  *state = *state * 1664525u + 1013904223u;
  return *state >> 16;
}

static void put_words(FILE *to, unsigned *state, int words) {
  static const char *const list[] = {"the",   "river", "of",    "water",  "which", "a",    "small",
                                     "box",   "holds", "when",  "people", "light", "from", "before",
                                     "glass", "and",   "their", "paper",  "is",    "kept", "open"};
  for (int i = 0; i < words; i++)
    fprintf(to, "%s%s", i ? " " : "", list[next_random(state) % (sizeof list / sizeof *list)]);
}

/* Records of 40 to 120 words, in a file of their own; unlink and free the path. */
static char *make_data(ist_error *err) {
  const char *folder = getenv("TMPDIR");
  char *path = NULL;
  if (asprintf(&path, "%s/ist-bench-XXXXXX", folder ? folder : "/tmp") < 0) path = NULL;
  int fd = path ? mkstemp(path) : -1;
  FILE *f = fd >= 0 ? fdopen(fd, "w") : NULL;
  unsigned state = 1;
  for (int i = 0; f && i < 2000; i++) {
    fputs("{\"text\": \"", f);
    put_words(f, &state, 40 + (int)(next_random(&state) % 81));
    fputs("\"}\n", f);
  }
  if (f && fclose(f) == 0) return path;
  if (fd >= 0) unlink(path);
  if (fd >= 0 && !f) close(fd);
  ist_cli_fail(err, IST_ERR_IO, "%s: cannot be written", path ? path : "the data of the benchmark");
  free(path);
  return NULL;
}

/* ---- Training ------------------------------------------------------------------------ */

/* A step that is not timed, then steps for about a->seconds. */
static ist_status time_steps(ist_trainer *t, const ist_args *a, bench_train *out, ist_error *err) {
  ist_step_report r;
  ist_status s = ist_trainer_step(t, &r, err);
  double spent = 0, probing = 0;
  while (!s && !ist_signals_caught() && (spent < a->seconds || out->steps < 2)) {
    s = ist_trainer_step(t, &r, err);
    if (s) break;
    spent += r.seconds;
    probing += r.probe_seconds;
    out->steps++;
    out->probes += r.probed;
    out->tokens += r.tokens;
    if (r.finished) break;
  }
  if (s || out->steps == 0) return s;
  out->step_seconds = (spent - probing) / (double)out->steps;
  out->probe_seconds = out->probes ? probing / (double)out->probes : 0;
  double pace = out->step_seconds + out->probe_seconds / (double)a->train.probe_every;
  out->speed = (double)out->tokens / (double)out->steps / pace;
  return IST_OK;
}

static ist_status bench_training(ist_model *m, ist_args *a, bench_train *out, ist_train_info *info,
                                 json_t **plan, ist_error *err) {
  char *made = a->train.train_path ? NULL : make_data(err), *json = NULL;
  if (!a->train.train_path && !made) return err->code;
  if (made) a->train.train_path = made;
  a->train.valid_examples = 0;
  a->train.eval_every = -1;
  a->train.output = NULL;
  ist_trainer *t = NULL;
  ist_status s = ist_trainer_open(&t, m, &a->train, err);
  if (made) { /* the samples are read: nothing is left behind, whatever comes */
    unlink(made);
    a->train.train_path = NULL;
    free(made);
  }
  if (!s) ist_trainer_get_info(t, info);
  if (!s) s = ist_trainer_plan(t, &json, err);
  if (!s) s = ist_cmd_read_json(plan, json, err);
  if (!s) s = time_steps(t, a, out, err);
  ist_trainer_close(t);
  ist_free_memory(json);
  return s;
}

/* ---- Reading and writing -------------------------------------------------------------- */

static bool ignore_piece(void *user, const char *piece, size_t len) {
  (void)user, (void)piece, (void)len;
  return !ist_signals_caught();
}

static ist_status bench_text(ist_model *m, ist_generate_result *r, ist_error *err) {
  char *prompt = NULL;
  size_t len = 0;
  unsigned state = 2;
  FILE *f = open_memstream(&prompt, &len);
  if (!f) return ist_cli_fail(err, IST_ERR_NOMEM, "out of memory");
  put_words(f, &state, PROMPT_WORDS);
  fclose(f);
  ist_generate_options o;
  ist_generate_options_init(&o);
  o.raw = true;
  o.temperature = 0;
  o.max_new = NEW_TOKENS;
  ist_status s = ist_generate(m, prompt, &o, ignore_piece, NULL, r, err);
  free(prompt);
  return s;
}

/* ---- What would make it faster ---------------------------------------------------------- */

static void tip(int *n, const char *text) {
  printf("%-10s- %s\n", (*n)++ ? "" : "faster", text);
}

static void show_tips(const ist_args *a, const ist_model_info *model, const ist_train_info *info,
                      const json_t *plan, const bench_train *t) {
  char text[256];
  int n = 0;
  long cpus = sysconf(_SC_NPROCESSORS_ONLN);
  if (ist_get_threads() < cpus) {
    snprintf(text, sizeof text, "--threads %ld: %ld processors are there, %d are used", cpus, cpus,
             ist_get_threads());
    tip(&n, text);
  }
  if (strcmp(model->compute, "f32") == 0 && strcmp(model->isa, "avx512_bf16") != 0)
    tip(&n, "a processor with AVX512-BF16: this one multiplies in f32, at half the rate");
  else if (strcmp(model->compute, "f32") == 0)
    tip(&n, "--compute bf16: this processor multiplies it at twice the rate of f32");
  double cost = json_number_value(json_object_get(plan, "cost"));
  if (cost > 1.15) {
    snprintf(text, sizeof text,
             "more memory: to fit, the plan (recompute %s, order %s, weights %s) takes about "
             "%.0f %% more time",
             info->recompute, info->order, json_string_value(json_object_get(plan, "weights")),
             100 * (cost - 1));
    tip(&n, text);
  }
  double tokens = (double)t->tokens / (double)t->steps;
  if (tokens < 512) {
    snprintf(text, sizeof text,
             "a larger --batch: steps of %.0f tokens are too short for matrix products", tokens);
    tip(&n, text);
  }
  double share = t->probe_seconds / (double)a->train.probe_every;
  share /= share + t->step_seconds;
  if (share > 0.15) {
    snprintf(text, sizeof text, "a larger --probe-every: probes take %.0f %% of the time",
             100 * share);
    tip(&n, text);
  }
  if (info->active_layers < model->L && a->train.depth_budget == 0)
    tip(&n, "--depth-budget 0.5: in three steps of four backward stops halfway down");
  if (n == 0) tip(&n, "nothing that an option could change");
}

/* ---- The command ------------------------------------------------------------------------ */

static void show_model(const ist_model_info *i) {
  printf("%-10s", "model");
  ist_put_text(stdout, i->name, 0);
  fputs(", ", stdout);
  ist_put_text(stdout, i->architecture, 0);
  printf(", %.0f M parameters, %s, %.0f MB\n", (double)i->parameters * 1e-6, i->quantisation,
         (double)i->file_bytes * 1e-6);
  printf("%-10s%d thread%s, %s, %s\n", "machine", ist_get_threads(),
         ist_get_threads() == 1 ? "" : "s", i->isa, i->compute);
  fflush(stdout);
}

static void show_training(const ist_args *a, const bench_train *t, const ist_train_info *info) {
  printf("%-10s%.1f tokens/s (%s, rank %lld; %.0f tokens a step of %.2f s", "training", t->speed,
         a->train.selector, (long long)a->train.rank, (double)t->tokens / (double)t->steps,
         t->step_seconds);
  if (t->probes) printf(", probes of %.2f s", t->probe_seconds);
  printf(")\n%-10sa million tokens in %.0f minutes\n", "", 1e6 / t->speed / 60);
  printf("%-10s%.0f MB (planned %.0f MB)\n", "peak", (double)ist_peak_memory() * 1e-6,
         (double)info->planned_bytes * 1e-6);
  fflush(stdout);
}

int ist_cmd_bench(ist_args *a) {
  ist_error err = {0};
  ist_model *m = NULL;
  json_t *plan = NULL;
  ist_model_info model;
  ist_train_info info;
  bench_train train = {0};
  ist_generate_result text = {0};
  ist_status s = ist_cmd_open_model(&m, a, &err);
  if (!s) {
    ist_model_get_info(m, &model);
    show_model(&model);
    ist_signals_catch(NULL);
    s = bench_training(m, a, &train, &info, &plan, &err);
  }
  if (!s && train.steps) show_training(a, &train, &info);
  if (!s && !ist_signals_caught()) s = bench_text(m, &text, &err);
  if (!s && text.prompt_seconds > 0 && text.seconds > 0) {
    printf("%-10s%.0f tokens/s (%lld tokens)\n", "prompt",
           (double)text.prompt_tokens / text.prompt_seconds, (long long)text.prompt_tokens);
    printf("%-10s%.1f tokens/s (%lld tokens)\n", "text", (double)text.new_tokens / text.seconds,
           (long long)text.new_tokens);
  }
  if (!s && !ist_signals_caught()) show_tips(a, &model, &info, plan, &train);
  json_decref(plan);
  ist_model_close(m);
  if (s) return ist_report_error(&err);
  return ist_signals_caught() ? 128 + ist_signals_caught() : 0;
}
