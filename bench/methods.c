/* Methods beside methods: one short training run for every method and selector, each in a
 * process of its own, as rows of a table (Markdown, as in docs/methods.md).
 *
 *   build/release/bench/bench_methods [OPTION...] MODEL DATA
 *
 *   --methods LIST    lora,lora+bias,dora,dora+peft,parallel,series,prefix (all of them)
 *   --selectors LIST  ist,random,all,fixed:3+7 (ist,random,all; layers joined by +)
 *   --steps N (100)   --batch N (2)   --max-tokens N (128)   --rank N (8)   --lr X (1e-3)
 *   --dropout P (0)   --valid N (16)  --compute T (auto)    --threads N (1)
 *
 * tokens/s: real tokens of the steps, probes included, by processor time of this process,
 * which others on the machine disturb little; on one thread that is the speed. Peak: the
 * process's, the pages of the model file among them. Loss: over the validation samples,
 * before and after. */
#include <getopt.h>
#include <stdlib.h>
#include <sys/wait.h>

#include "common.h"
#include "ist.h"

typedef struct settings {
  const char *model, *data, *compute;
  int threads;
  ist_train_options o;
} settings;

static void fail(const ist_error *err) {
  fprintf(stderr, "error: %s\n", err->message);
  exit(1);
}

/* "lora+bias" is LoRA with its option. */
static void set_method(ist_train_options *o, const char *name) {
  o->lora_bias = strcmp(name, "lora+bias") == 0;
  if (strcmp(name, "dora+peft") == 0) o->dora_dropout = "peft";
  o->method = o->lora_bias ? "lora" : strcmp(name, "dora+peft") == 0 ? "dora" : name;
}

/* One run; prints its row. */
static void run(const settings *s, const char *method, const char *selector) {
  ist_error err;
  ist_model *m;
  ist_trainer *t;
  ist_train_info info;
  ist_model_options mo;
  ist_train_options o = s->o;
  ist_set_threads(s->threads);
  ist_model_options_init(&mo);
  mo.compute = strcmp(s->compute, "f32") == 0    ? IST_COMPUTE_F32
               : strcmp(s->compute, "bf16") == 0 ? IST_COMPUTE_BF16
                                                 : IST_COMPUTE_AUTO;
  set_method(&o, method);
  o.selector = selector;
  if (ist_model_open(&m, s->model, &mo, &err) != IST_OK) fail(&err);
  if (ist_trainer_open(&t, m, &o, &err) != IST_OK) fail(&err);
  ist_trainer_get_info(t, &info);
  double before, after, tokens = 0;
  if (ist_trainer_validate(t, &before, &err) != IST_OK) fail(&err);
  ist_step_report r = {0};
  bench_cpu start = {0};
  for (int64_t i = 0; i < o.steps - 1; i++) { /* the last one ends with an evaluation */
    if (i == 2) start = bench_cpu_now();
    if (ist_trainer_step(t, &r, &err) != IST_OK) fail(&err);
    if (i >= 2) tokens += (double)r.tokens;
  }
  double seconds = bench_cpu_now().mine - start.mine;
  if (ist_trainer_step(t, &r, &err) != IST_OK) fail(&err);
  if (ist_trainer_validate(t, &after, &err) != IST_OK) fail(&err);
  printf("| %s | %s | %.3g M | %.0f | %.0f MB | %.3f | %.3f |\n", method, selector,
         (double)info.trainable * 1e-6, tokens / seconds, (double)ist_peak_memory() * 1e-6, before,
         after);
  fflush(stdout);
  ist_trainer_close(t);
  ist_model_close(m);
}

/* In a process of its own, so that the peak is its own. */
static int run_apart(const settings *s, const char *method, const char *selector) {
  fflush(stdout);
  pid_t child = fork();
  if (child == 0) {
    run(s, method, selector);
    exit(0);
  }
  int status = 1;
  if (child < 0 || waitpid(child, &status, 0) < 0) return 1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

static int usage(void) {
  fputs(
      "usage: bench_methods [--methods LIST] [--selectors LIST] [--steps N] [--batch N] "
      "[--max-tokens N] [--rank N] [--lr X] [--dropout P] [--valid N] [--compute T] "
      "[--threads N] MODEL DATA\n",
      stderr);
  return 2;
}

int main(int argc, char **argv) {
  static const struct option options[] = {
      {"methods", 1, NULL, 'm'}, {"selectors", 1, NULL, 's'},  {"steps", 1, NULL, 'n'},
      {"batch", 1, NULL, 'b'},   {"max-tokens", 1, NULL, 'x'}, {"rank", 1, NULL, 'r'},
      {"lr", 1, NULL, 'l'},      {"dropout", 1, NULL, 'd'},    {"valid", 1, NULL, 'v'},
      {"compute", 1, NULL, 'c'}, {"threads", 1, NULL, 't'},    {0}};
  const char *methods = "lora,lora+bias,dora,dora+peft,parallel,series,prefix";
  const char *selectors = "ist,random,all";
  settings s = {.compute = "auto", .threads = 1};
  ist_train_options_init(&s.o);
  s.o.steps = 100;
  s.o.batch = 2;
  s.o.max_tokens = 128;
  s.o.rank = 8;
  s.o.alpha = 16;
  s.o.lr = 1e-3;
  s.o.valid_examples = 16;
  s.o.probe_batch = 4;
  s.o.eval_every = -1;
  for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
    switch (c) {
      case 'm': methods = optarg; break;
      case 's': selectors = optarg; break;
      case 'n': s.o.steps = atoll(optarg); break;
      case 'b': s.o.batch = atoll(optarg); break;
      case 'x': s.o.max_tokens = atoll(optarg); break;
      case 'r': s.o.rank = atoll(optarg), s.o.alpha = 2.0 * (double)s.o.rank; break;
      case 'l': s.o.lr = atof(optarg); break;
      case 'd': s.o.dropout = atof(optarg); break;
      case 'v': s.o.valid_examples = atoll(optarg); break;
      case 'c': s.compute = optarg; break;
      case 't': s.threads = atoi(optarg); break;
      default: return usage();
    }
  }
  if (argc != optind + 2 || s.o.steps < 4) return usage();
  s.model = argv[optind];
  s.data = s.o.train_path = argv[optind + 1];
  char machine[256], commit[64], method[64], selector[256];
  bench_machine(machine, sizeof machine);
  bench_commit(commit, sizeof commit);
  printf(
      "%s, %d thread%s, commit %s: %lld steps of %lld samples of at most %lld tokens, rank %lld, "
      "lr %g\n\n",
      machine, s.threads, s.threads == 1 ? "" : "s", commit, (long long)s.o.steps,
      (long long)s.o.batch, (long long)s.o.max_tokens, (long long)s.o.rank, s.o.lr);
  puts(
      "| method | selector | trainable | tokens/s | peak | loss before | after |\n"
      "| --- | --- | ---: | ---: | ---: | ---: | ---: |");
  int failed = 0;
  for (const char *a = methods; *a; a += strcspn(a, ","), a += *a == ',') {
    snprintf(method, sizeof method, "%.*s", (int)strcspn(a, ","), a);
    for (const char *b = selectors; *b; b += strcspn(b, ","), b += *b == ',') {
      snprintf(selector, sizeof selector, "%.*s", (int)strcspn(b, ","), b);
      for (char *p = selector; *p; p++) *p = *p == '+' ? ',' : *p;
      failed |= run_apart(&s, method, selector);
    }
  }
  return failed;
}
