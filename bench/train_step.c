/* Speed of training: optimizer steps of one model, probes included, with the paper's
 * settings, against what oneDNN reaches at the same matrix products in the same run.
 *
 *   build/release/bench/bench_train_step [OPTION...] MODEL.gguf
 *
 *   --data FILE      training data (default: data like the paper's, made here)
 *   --steps N        optimizer steps that are timed (20), after --warm N that are not (2)
 *   --selector S     ist, random, all, fixed:LIST (ist)
 *   --preset P       paper, default (paper)
 *   --compute T      auto, f32, bf16 (auto)        --threads N   (all)
 *   --max-tokens N   of a sample        --batch N   samples a step
 *   --max-memory MB  what the plan may use         --rank N      of the adapters
 *   --seed N         (42)
 *   --ops            time by operation, and oneDNN's rate by shape
 *   --roofline FILE  each operation against the machine's limits, as SVG
 *   --batches FILE   writes the token ids of every batch, for compare_pytorch.py
 *
 * The share is (operations that the mathematics needs, from the declarations of the
 * decoder and of the method; recomputing is not counted) / time, over oneDNN's rate at
 * the base model's products of the step, each weighted by its operations. */
#include <getopt.h>
#include <stdlib.h>
#include <unistd.h>

#include "backend/cpu/cpu.h"
#include "base/mem.h"
#include "common.h"
#include "roofline.h"
#include "train/trainer.h"

typedef struct settings {
  const char *model, *data, *preset, *compute, *batches, *roofline;
  int steps, warm, threads;
  bool ops;
} settings;

/* What the timed steps did. */
typedef struct totals {
  double seconds, probe_seconds, flops;
  int64_t tokens, probe_tokens, targets, steps, probes;
  double context; /* visible keys, summed over the tokens */
  double depth;   /* layers that backward visits, summed over the steps */
  double others;  /* CPUs that other processes kept busy */
  double cpu;     /* processor time of this process, all threads */
  double first_loss, last_loss;
  FILE *batches; /* NULL: not wanted */
} totals;

/* ---- Operations that the mathematics needs ---------------------------------------- */

/* Sum of the keys that the tokens of these samples see. */
static double visible_keys(const ist_trainer *t, const int64_t *samples, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; i++) {
    double len = (double)t->data.p[samples[i]].n;
    sum += len * (len + 1) / 2;
  }
  return sum;
}

static void count_samples(const ist_trainer *t, const int64_t *samples, int64_t n, int64_t *tokens,
                          int64_t *targets) {
  *tokens = *targets = 0;
  for (int64_t i = 0; i < n; i++) {
    *tokens += t->data.p[samples[i]].n;
    *targets += t->data.p[samples[i]].n_target;
  }
}

static void write_samples(FILE *f, const char *kind, const ist_trainer *t, const int64_t *samples,
                          int64_t n) {
  for (int64_t i = 0; f && i < n; i++) {
    const ist_sample *s = &t->data.p[samples[i]];
    fprintf(f, "%s", kind);
    for (int32_t j = 0; j < s->n; j++) fprintf(f, " %d", s->ids[j]);
    fprintf(f, "\n");
  }
}

static double forward_flops(const ist_trainer *t, int64_t tokens, int64_t targets, double context) {
  const ist_decoder_flops f = ist_decoder_count_flops(&t->model->config, context);
  double layer = f.layer_fwd + t->adapters.method->flops_fwd(&t->adapters);
  return (double)(tokens * t->adapters.L) * layer + (double)targets * f.head_fwd;
}

/* Backward goes down to the lowest active layer, whose input needs no gradient. */
static double backward_flops(const ist_trainer *t, int64_t tokens, int64_t targets,
                             double context) {
  const ist_decoder_flops f = ist_decoder_count_flops(&t->model->config, context);
  const ist_peft_method *method = t->adapters.method;
  const int64_t *in = t->adapters.sizes.in, *out = t->adapters.sizes.out;
  int64_t lowest = ist_lowest_active(t->active, t->adapters.L);
  double sum = 0;
  for (int64_t l = lowest; l < t->adapters.L; l++)
    sum += (double)tokens * (f.layer_bwd + method->flops_bwd(&t->adapters, t->active[l]));
  for (ist_module m = IST_MOD_Q; m <= IST_MOD_V && lowest < t->adapters.L; m++)
    sum -= 2.0 * (double)tokens * (double)(in[m] * out[m]);
  return sum + (double)targets * f.head_bwd;
}

/* One step of the trainer, with its operations. */
static ist_status step(ist_trainer *t, totals *sum, ist_error *err) {
  int64_t probe_samples = 0, probe_tokens = 0, probe_targets = 0, batch_samples;
  double probe_context = 0, flops = 0;
  bool probes = ist_selector_wants_probe(t->selector, t->progress.step);
  if (sum->batches) fprintf(sum->batches, "step\n");
  if (probes) {
    const int64_t *s =
        ist_trainer_probe_batch(t, t->progress.step / t->options.probe_every - 1, &probe_samples);
    count_samples(t, s, probe_samples, &probe_tokens, &probe_targets);
    write_samples(sum->batches, "probe", t, s, probe_samples);
    probe_context = visible_keys(t, s, probe_samples) / (double)probe_tokens;
  }
  const int64_t *batch = ist_trainer_batch(t, t->progress.batch, &batch_samples);
  double keys = visible_keys(t, batch, batch_samples);
  write_samples(sum->batches, "train", t, batch, batch_samples);
  ist_step_report r;
  IST_TRY(ist_trainer_step(t, &r, err));
  double context = keys / (double)r.tokens, candidates = (double)t->options.probe_candidates;
  if (probes) flops += candidates * forward_flops(t, probe_tokens, probe_targets, probe_context);
  flops += forward_flops(t, r.tokens, r.targets, context) +
           backward_flops(t, r.tokens, r.targets, context);
  sum->flops += flops;
  if (t->progress.step == 1) sum->first_loss = r.loss;
  sum->last_loss = r.loss;
  sum->seconds += r.seconds;
  sum->probe_seconds += r.probe_seconds;
  sum->tokens += r.tokens;
  sum->probe_tokens += (int64_t)candidates * probe_tokens;
  sum->targets += r.targets;
  sum->context += keys;
  sum->depth += (double)(t->adapters.L - ist_lowest_active(t->active, t->adapters.L));
  sum->steps++;
  sum->probes += probes;
  return IST_OK;
}

/* ---- oneDNN at the step's shapes --------------------------------------------------- */

typedef struct product {
  const char *what;
  int64_t m, n, k;
  bool tb;      /* B as stored is (n, k) */
  double share; /* operations of a token and step */
  double rate;  /* measured, FLOP/s */
} product;

enum { MAX_PRODUCTS = 32 };

static void add_product(product *list, int *count, const char *what, int64_t m, int64_t n,
                        int64_t k, bool tb, double times) {
  double share = times * 2.0 * (double)m * (double)n * (double)k;
  for (int i = 0; i < *count; i++) {
    if (list[i].m != m || list[i].n != n || list[i].k != k || list[i].tb != tb) continue;
    list[i].share += share;
    return;
  }
  IST_ASSERT(*count < MAX_PRODUCTS);
  list[(*count)++] = (product){what, m, n, k, tb, share, 0};
}

/* The base model's products of a step: `rows` tokens a pass; forward in training and
 * probes, backward below which layers on average do not go. */
static int list_products(product *list, const ist_trainer *t, const totals *sum, int64_t rows) {
  static const char *const fwd[] = {"q fwd",    "k fwd",  "v fwd",   "o fwd",
                                    "gate fwd", "up fwd", "down fwd"};
  static const char *const bwd[] = {"q bwd",    "k bwd",  "v bwd",   "o bwd",
                                    "gate bwd", "up bwd", "down bwd"};
  const ist_linear_sizes *s = &t->adapters.sizes;
  double forwards = 1.0 + (double)sum->probe_tokens / (double)sum->tokens;
  double L = (double)t->adapters.L, supervised = (double)sum->targets / (double)sum->tokens;
  int count = 0;
  for (int m = 0; m < IST_MOD_COUNT; m++) {
    if (s->in[m] == 0) continue;
    add_product(list, &count, fwd[m], rows, s->out[m], s->in[m], true, L * forwards);
    add_product(list, &count, bwd[m], rows, s->in[m], s->out[m], false,
                sum->depth / (double)sum->steps);
  }
  int64_t chunk = t->plan.sizes.head_chunk, D = t->model->config.D, V = t->model->config.V;
  double chunks = supervised * (double)rows / (double)chunk;
  add_product(list, &count, "head fwd", chunk, V, D, true, chunks * forwards);
  add_product(list, &count, "head bwd", chunk, D, V, false, chunks);
  return count;
}

static void fill(ist_view v, ist_rng *rng) {
  for (int64_t i = 0; i < v.rows * v.cols; i++) {
    float x = (float)(ist_rng_uniform(rng) - 0.5);
    if (v.dt == IST_BF16) {
      ((ist_bf16 *)v.p)[i] = ist_f32_to_bf16(x);
    } else {
      ((float *)v.p)[i] = x;
    }
  }
}

/* The rate of one product: the best of runs that together take about 60 ms. */
static double measure(const ist_products *dnnl, void *state, const product *p, ist_dtype dt) {
  ist_view a = {NULL, p->m, p->k, p->k, dt, 0}, c = {NULL, p->m, p->n, p->n, dt, 0};
  ist_view b = {NULL, p->tb ? p->n : p->k, p->tb ? p->k : p->n, p->tb ? p->k : p->n, dt, 0};
  ist_view *all[] = {&a, &b, &c};
  double best = 0;
  ist_rng rng = ist_rng_stream(3, IST_RNG_DATA, 0, 0, 0);
  for (int i = 0; i < 3; i++) {
    all[i]->p = ist_calloc((size_t)(all[i]->rows * all[i]->cols), (size_t)ist_dtype_bytes(dt, 1));
    if (all[i]->p == NULL) exit(1);
    if (i < 2) fill(*all[i], &rng);
  }
  ist_gemm g = {.c = c, .n_terms = 1, .term[0] = {a, b, false, p->tb, p->k}};
  double flops = 2.0 * (double)p->m * (double)p->n * (double)p->k, spent = 0;
  for (int i = 0; i < 5 || spent < 0.06; i++) {
    double start = ist_prof_now();
    if (!dnnl->run(state, &g)) break;
    double took = ist_prof_now() - start;
    spent += i ? took : 0; /* the first makes the primitive */
    if (i && flops / took > best) best = flops / took;
  }
  for (int i = 0; i < 3; i++) ist_free(all[i]->p);
  return best;
}

/* Operations over the time they take at the measured rates; 0 where there is no oneDNN. */
static double measure_all(product *list, int count, ist_dtype dt, ist_error *err) {
  const ist_products *dnnl = ist_products_dnnl();
  void *state = NULL;
  if (dnnl == NULL || dnnl->open(&state, err) != IST_OK) return 0;
  double flops = 0, seconds = 0;
  for (int i = 0; i < count; i++) {
    list[i].rate = measure(dnnl, state, &list[i], dt);
    flops += list[i].share;
    seconds += list[i].share / list[i].rate;
  }
  dnnl->close(state);
  return flops / seconds;
}

/* ---- Report -------------------------------------------------------------------------- */

static void print_header(const settings *s, const ist_trainer *t) {
  char machine[128], commit[64];
  bench_machine(machine, sizeof machine);
  bench_commit(commit, sizeof commit);
  ist_model_info info;
  ist_model_get_info(t->model, &info);
  const ist_train_options *o = &t->options;
  printf("machine   %s, %d threads, %s, %s\n", machine, ist_get_threads(), info.isa, info.compute);
  printf("commit    %s\n", commit);
  printf("model     %s: L %lld, D %lld, F %lld, H %lld, K %lld, E %lld, V %lld, %s\n", s->model,
         (long long)info.L, (long long)info.D, (long long)info.F, (long long)info.H,
         (long long)info.K, (long long)info.E, (long long)info.V, info.quantisation);
  printf("work      %s, preset %s: %s r %lld on %s, dropout %g, batch %lld, at most %lld tokens\n",
         o->selector, s->preset, o->method, (long long)o->rank, o->targets, o->dropout,
         (long long)o->batch, (long long)o->max_tokens);
  printf(
      "plan      %s order, recompute %s, weights %s, %lld tokens a pass, head %lld x %lld; "
      "expected peak %.0f MB\n",
      ist_order_name(t->plan.order), ist_recompute_name(t->plan.recompute),
      ist_policy_name(t->plan.sizes.policy), (long long)t->plan.micro_tokens,
      (long long)t->plan.sizes.head_chunk, (long long)t->plan.sizes.head_rows,
      (double)t->plan.total * 1e-6);
}

/* The machine's limits, in the compute type `dt`. */
static bench_limits measure_limits(ist_dtype dt, ist_error *err) {
  bench_limits m = {bench_memory_rate(), 0, 0};
  const ist_products *dnnl = ist_products_dnnl();
  void *state = NULL;
  product large = {"", 1536, 1536, 1536, true, 0, 0};
  if (dnnl == NULL || dnnl->open(&state, err) != IST_OK) return m;
  m.products = measure(dnnl, state, &large, dt);
  m.f32 = dt == IST_F32 ? m.products : measure(dnnl, state, &large, IST_F32);
  dnnl->close(state);
  return m;
}

static void print_ops(const ist_prof *p, const totals *sum, const bench_limits *m) {
  double rest = sum->seconds;
  printf("\nlimits    %.1f GB/s; products %.0f GFLOP/s, in F32 %.0f\n", m->bytes * 1e-9,
         m->products * 1e-9, m->f32 * 1e-9);
  printf("\n%-16s %8s %7s %9s %10s %8s %9s %8s\n", "operation", "ms/step", "%", "calls", "GFLOP/s",
         "GB/s", "FLOP/byte", "% limit");
  for (int i = 0; i < p->n; i++) {
    double s = p->slot[i].seconds;
    rest -= s;
    printf("%-16s %8.2f %7.2f %9.1f", p->slot[i].name, 1e3 * s / (double)sum->steps,
           100.0 * s / sum->seconds, (double)p->slot[i].calls / (double)sum->steps);
    double flops = p->slot[i].flops, bytes = p->slot[i].bytes;
    if (bytes > 0)
      printf(" %10.1f %8.1f %9.2f %8.0f", flops / s * 1e-9, bytes / s * 1e-9, flops / bytes,
             100 * bench_least_seconds(m, p->slot[i].name, flops, bytes) / s);
    printf("\n");
  }
  printf("%-16s %8.2f %7.2f\n", "rest", 1e3 * rest / (double)sum->steps,
         100.0 * rest / sum->seconds);
}

static void print_products(const product *list, int count) {
  printf("\n%-10s %6s %6s %6s %8s %10s\n", "product", "m", "n", "k", "% work", "GFLOP/s");
  double all = 0;
  for (int i = 0; i < count; i++) all += list[i].share;
  for (int i = 0; i < count; i++) {
    printf("%-10s %6lld %6lld %6lld %8.2f %10.1f\n", list[i].what, (long long)list[i].m,
           (long long)list[i].n, (long long)list[i].k, 100.0 * list[i].share / all,
           list[i].rate * 1e-9);
  }
}

static double seconds_of(const ist_prof *p, const char *name) {
  for (int i = 0; i < p->n; i++) {
    if (strcmp(p->slot[i].name, name) == 0) return p->slot[i].seconds;
  }
  return 0;
}

static void print_results(const ist_prof *prof, const totals *sum, double rate, int64_t peak) {
  double achieved = sum->flops / sum->seconds;
  printf("steps     %lld with %lld probes; %.0f tokens a step, %.1f keys a token\n",
         (long long)sum->steps, (long long)sum->probes, (double)sum->tokens / (double)sum->steps,
         sum->context / (double)sum->tokens);
  printf("speed     %.1f tokens/s (%.1f without probes), %.3f s a step\n",
         (double)sum->tokens / sum->seconds,
         (double)sum->tokens / (sum->seconds - sum->probe_seconds),
         sum->seconds / (double)sum->steps);
  printf("cpu       %.3f s a step, all threads\n", sum->cpu / (double)sum->steps);
  if (sum->others > 0.05)
    printf("warning   other processes kept %.2f CPUs busy meanwhile: run it again\n", sum->others);
  if (sum->probes)
    printf("probes    %.1f %% of the time, %.0f tokens/s through them\n",
           100.0 * sum->probe_seconds / sum->seconds,
           (double)sum->probe_tokens / sum->probe_seconds);
  printf("dequant   %.1f %% of the time\n", 100.0 * seconds_of(prof, "dequant") / sum->seconds);
  printf("achieved  %.1f GFLOP/s, %.3f GFLOP a token\n", achieved * 1e-9,
         sum->flops / (double)sum->tokens * 1e-9);
  if (rate > 0)
    printf("oneDNN    %.1f GFLOP/s at these shapes; share %.1f %%\n", rate * 1e-9,
           100.0 * achieved / rate);
  printf("losses    %.4f %.4f\n", sum->first_loss, sum->last_loss);
  printf("peak      %.0f MB (VmHWM)\n", (double)peak * 1e-6);
}

/* ---- The run --------------------------------------------------------------------------- */

static ist_status run_steps(ist_trainer *t, const settings *s, ist_prof *prof, totals *sum,
                            ist_error *err) {
  totals warm = *sum;
  for (int i = 0; i < s->warm; i++) IST_TRY(step(t, &warm, err));
  if (s->warm) sum->first_loss = warm.first_loss;
  t->model->ctx.prof = prof;
  bench_cpu cpu = bench_cpu_now();
  double start = ist_prof_now();
  for (int i = 0; i < s->steps; i++) IST_TRY(step(t, sum, err));
  sum->cpu = bench_cpu_now().mine - cpu.mine;
  sum->others = bench_cpu_others(cpu, ist_prof_now() - start);
  t->model->ctx.prof = NULL;
  return IST_OK;
}

static ist_status bench(const settings *s, const ist_train_options *o, ist_error *err) {
  ist_model_options mo;
  ist_model_options_init(&mo);
  if (strcmp(s->compute, "f32") == 0) mo.compute = IST_COMPUTE_F32;
  if (strcmp(s->compute, "bf16") == 0) mo.compute = IST_COMPUTE_BF16;
  ist_model *m = NULL;
  ist_trainer *t = NULL;
  totals sum = {0};
  static ist_prof prof;
  ist_status status = ist_model_open(&m, s->model, &mo, err);
  if (status == IST_OK) status = ist_trainer_open(&t, m, o, err);
  if (status == IST_OK) {
    print_header(s, t);
    fflush(stdout);
    if (s->batches && (sum.batches = fopen(s->batches, "we")) == NULL)
      status = ist_fail(err, IST_ERR_IO, "%s: cannot be written", s->batches);
  }
  if (status == IST_OK) {
    status = run_steps(t, s, &prof, &sum, err);
  }
  if (status == IST_OK) {
    int64_t peak_rows = sum.tokens / sum.steps < t->plan.micro_tokens ? sum.tokens / sum.steps
                                                                      : t->plan.micro_tokens;
    product list[MAX_PRODUCTS];
    int64_t rows = (peak_rows + IST_ROW_BUCKET - 1) / IST_ROW_BUCKET * IST_ROW_BUCKET;
    int count = list_products(list, t, &sum, rows);
    int64_t peak = ist_peak_memory();
    double rate = measure_all(list, count, m->compute, err);
    print_results(&prof, &sum, rate, peak);
    bool wanted = s->ops || s->roofline;
    bench_limits limits = wanted && rate > 0 ? measure_limits(m->compute, err) : (bench_limits){0};
    if (s->ops) print_ops(&prof, &sum, &limits);
    if (s->ops && rate > 0) print_products(list, count);
    if (s->roofline && rate > 0 && !bench_roofline(s->roofline, &prof, &limits, sum.seconds))
      status = ist_fail(err, IST_ERR_IO, "%s: cannot be written", s->roofline);
  }
  if (sum.batches) fclose(sum.batches);
  ist_trainer_close(t);
  ist_model_close(m);
  return status;
}

static int usage(void) {
  fprintf(stderr,
          "usage: bench_train_step [--data FILE] [--steps N] [--warm N] [--selector S] "
          "[--preset P] [--compute T] [--threads N] [--max-tokens N] [--batch N] [--rank N] "
          "[--max-memory MB] [--seed N] [--ops] [--roofline FILE] [--batches FILE] "
          "MODEL.gguf\n");
  return 2;
}

static bool read_options(int argc, char **argv, settings *s, ist_train_options *o, ist_error *err) {
  static const struct option names[] = {
      {"data", 1, NULL, 'd'},       {"steps", 1, NULL, 's'},   {"warm", 1, NULL, 'w'},
      {"selector", 1, NULL, 'S'},   {"preset", 1, NULL, 'p'},  {"compute", 1, NULL, 'c'},
      {"threads", 1, NULL, 't'},    {"rank", 1, NULL, 'r'},    {"max-tokens", 1, NULL, 'm'},
      {"max-memory", 1, NULL, 'M'}, {"batch", 1, NULL, 'b'},   {"seed", 1, NULL, 'x'},
      {"ops", 0, NULL, 'o'},        {"batches", 1, NULL, 'B'}, {"roofline", 1, NULL, 'R'},
      {NULL, 0, NULL, 0},
  };
  for (int i = 1; i + 1 < argc; i++) { /* first, because it sets the others */
    if (strcmp(argv[i], "--preset") == 0) s->preset = argv[i + 1];
  }
  if (ist_train_options_preset(o, s->preset, err) != IST_OK) return false;
  for (int c; (c = getopt_long(argc, argv, "", names, NULL)) != -1;) {
    switch (c) {
      case 'd': s->data = optarg; break;
      case 's': s->steps = atoi(optarg); break;
      case 'w': s->warm = atoi(optarg); break;
      case 'S': o->selector = optarg; break;
      case 'p': break;
      case 'c': s->compute = optarg; break;
      case 't': s->threads = atoi(optarg); break;
      case 'r': o->rank = atoll(optarg); break;
      case 'm': o->max_tokens = atoll(optarg); break;
      case 'M': o->max_memory = atoll(optarg) * 1000000; break;
      case 'b': o->batch = atoll(optarg); break;
      case 'x': o->seed = (uint64_t)atoll(optarg); break;
      case 'o': s->ops = true; break;
      case 'B': s->batches = optarg; break;
      case 'R': s->roofline = optarg; break;
      default: return false;
    }
  }
  if (optind + 1 != argc || s->steps < 1 || s->warm < 0) return false;
  s->model = argv[optind];
  return true;
}

int main(int argc, char **argv) {
  settings s = {.preset = "paper", .compute = "auto", .steps = 20, .warm = 2};
  ist_train_options o;
  ist_error err = {0};
  ist_train_options_init(&o);
  if (!read_options(argc, argv, &s, &o, &err)) return usage();
  ist_set_threads(s.threads);
  char made[] = "/tmp/bench-train-XXXXXX";
  if (s.data == NULL) {
    int fd = mkstemp(made);
    if (fd < 0 || !bench_write_data(made, 2000)) return 1;
    close(fd);
    s.data = made;
  }
  o.train_path = s.data;
  o.valid_examples = 0;
  o.eval_every = -1;
  ist_status status = bench(&s, &o, &err);
  if (s.data == made) unlink(made);
  if (status != IST_OK) fprintf(stderr, "error: %s\n", err.message);
  return status == IST_OK ? 0 : 1;
}
