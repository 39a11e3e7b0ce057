/* screen.c: the screen of a training run. */
#include "screen.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Probe observations of a layer below which its score is no more than noise. */
enum { ENOUGH_OBSERVATIONS = 5 };
/* Reports of a run where --report-every is left open. */
enum { REPORTS = 40 };

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void ist_screen_open(ist_screen *s, FILE *to, const ist_args *a, const ist_model_info *model,
                     const ist_train_info *run) {
  memset(s, 0, sizeof *s);
  s->term = ist_term_of(to);
  s->args = a;
  s->model = *model;
  s->run = *run;
  s->report_every = a->report_every;
  if (s->report_every <= 0) s->report_every = (s->run.total_steps + REPORTS - 1) / REPORTS;
  if (s->report_every <= 0) s->report_every = 1;
  s->first_step = s->run.done_steps;
  s->best_step = -1;
  s->started = s->trained_from = now();
}

/* ---- Header ------------------------------------------------------------------- */

/* A label and items (separated by line ends in the format's result), wrapped
 * between items to the width of the terminal. */
static void put_items(const ist_screen *s, const char *label, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static void put_items(const ist_screen *s, const char *label, const char *fmt, ...) {
  enum { INDENT = 9 };
  const char *separator = s->term.utf8 ? " · " : ", ";
  char text[2048];
  va_list args;
  va_start(args, fmt);
  vsnprintf(text, sizeof text, fmt, args);
  va_end(args);
  int gap = ist_columns(separator), at = INDENT, room = s->term.columns ? s->term.columns : 1 << 20;
  ist_print(&s->term, IST_DIM, "%-*s", INDENT, label);
  for (char *item = text, *end; item; item = end) {
    end = strchr(item, '\n');
    if (end) *end++ = '\0';
    if (!*item) continue;
    int columns = ist_columns(item);
    if (at > INDENT && at + gap + columns > room) {
      fprintf(s->term.to, "\n%*s", INDENT, "");
      at = INDENT;
    } else if (at > INDENT) {
      fputs(separator, s->term.to);
      at += gap;
    }
    at += ist_put_text(s->term.to, item, room - INDENT);
  }
  fputc('\n', s->term.to);
}

/* 0.0002 as "2.0e-4": six columns and no more. */
static void format_rate(char out[32], double x) {
  char text[16];
  if (x == 0) {
    snprintf(out, 32, "0");
    return;
  }
  snprintf(text, sizeof text, "%.1e", x);
  char *digits = strchr(text, 'e');
  int exponent = digits ? atoi(digits + 1) : 0;
  if (digits) *digits = '\0';
  snprintf(out, 32, "%se%d", text, exponent);
}

static void header_model(const ist_screen *s) {
  const ist_model_info *m = &s->model;
  char count[32], bytes[32];
  ist_format_count(count, (double)m->parameters);
  ist_format_bytes(bytes, (double)m->file_bytes);
  put_items(s, "model", "%s\n%s\n%lld layers\n%s parameters\n%s, %s",
            m->name[0] ? m->name : s->args->model_path, m->architecture, (long long)m->L, count,
            m->quantisation, bytes);
}

static void header_method(const ist_screen *s) {
  const ist_train_options *o = &s->args->train;
  const ist_train_info *r = &s->run;
  char trainable[32], dropout[48] = "";
  double share =
      s->model.parameters ? 100.0 * (double)r->trainable / (double)s->model.parameters : 0;
  ist_format_count(trainable, (double)r->trainable);
  if (o->dropout > 0) snprintf(dropout, sizeof dropout, "dropout %g", o->dropout);
  put_items(s, "adapter",
            "%s, rank %lld, alpha %g\n%s\non %s\n%s parameters (%.2g %% of the model)", r->method,
            (long long)r->rank, r->alpha, dropout, r->targets, trainable, share);
  char selection[256] = "", probes[128] = "", redraw[64] = "";
  if (s->run.probes) {
    snprintf(selection, sizeof selection, "reward %s", o->reward);
    snprintf(probes, sizeof probes, "probe of %lld examples every %lld steps",
             (long long)o->probe_batch, (long long)o->probe_every);
  }
  if (!strcmp(o->selector, "random"))
    snprintf(redraw, sizeof redraw, "a draw lasts %lld steps", (long long)o->redraw_every);
  put_items(s, "selector", "%s\n%lld of %lld layers train in a step\n%s\n%s\n%s", o->selector,
            (long long)r->active_layers, (long long)s->model.L, probes, selection, redraw);
}

static void header_data(const ist_screen *s) {
  const ist_train_options *o = &s->args->train;
  const ist_train_info *r = &s->run;
  char valid[64] = "no validation", probe[64] = "", cut[64] = "", dropped[64] = "";
  if (r->n_valid) snprintf(valid, sizeof valid, "%lld for validation", (long long)r->n_valid);
  if (s->run.probes && r->probe_on_train)
    snprintf(probe, sizeof probe, "probes on training data");
  else if (s->run.probes)
    snprintf(probe, sizeof probe, "%lld for probes", (long long)r->n_probe);
  if (r->n_cut)
    snprintf(cut, sizeof cut, "%lld cut to %lld tokens", (long long)r->n_cut,
             (long long)o->max_tokens);
  if (r->n_dropped)
    snprintf(dropped, sizeof dropped, "%lld left out (nothing to learn)", (long long)r->n_dropped);
  put_items(s, "data", "%s\n%lld examples to train on\n%s\n%s\ntemplate %s, loss on %s\n%s\n%s",
            o->train_path, (long long)r->n_train, valid, probe, r->template_name,
            !strcmp(o->loss_on, "all")    ? "everything"
            : !strcmp(o->loss_on, "last") ? "last replies"
                                          : "completions",
            cut, dropped);
}

static void header_steps(const ist_screen *s) {
  const ist_train_options *o = &s->args->train;
  const ist_train_info *r = &s->run;
  char steps[96], rate[32], base[32], rates[96], from[64] = "", warmup[48];
  snprintf(steps, sizeof steps, "%lld (%lld an epoch)", (long long)r->total_steps,
           (long long)r->steps_per_epoch);
  if (r->resumed) snprintf(from, sizeof from, "resumed after step %lld", (long long)r->done_steps);
  format_rate(rate, r->lr);
  format_rate(base, o->lr);
  if (strcmp(rate, base))
    snprintf(rates, sizeof rates, "lr %s (%s by active ratio)", rate, base);
  else
    snprintf(rates, sizeof rates, "lr %s", rate);
  if (o->warmup_steps < 0)
    snprintf(warmup, sizeof warmup, "3 %% warm-up");
  else
    snprintf(warmup, sizeof warmup, "%lld steps of warm-up", (long long)o->warmup_steps);
  put_items(s, "steps", "%s\n%s\nbatch %lld\n%s\n%s, %s", steps, from, (long long)o->batch, rates,
            o->lr_schedule, warmup);
}

static void header_memory(const ist_screen *s) {
  char bytes[32];
  ist_format_bytes(bytes, (double)s->run.planned_bytes);
  put_items(s, "memory", "%s expected\nrecompute %s\n%lld tokens a pass\n%s\n%d thread%s, %s",
            bytes, s->run.recompute, (long long)s->run.micro_tokens, s->model.compute,
            ist_get_threads(), ist_get_threads() == 1 ? "" : "s", s->model.isa);
  put_items(s, "output", "%s", s->args->train.output);
}

void ist_screen_header(ist_screen *s) {
  ist_print(&s->term, IST_BOLD, "ist %s", ist_version());
  fputs(s->term.utf8 ? " · Importance-aware Sparse Tuning\n\n"
                     : ", Importance-aware Sparse Tuning\n\n",
        s->term.to);
  header_model(s);
  header_method(s);
  header_data(s);
  header_steps(s);
  header_memory(s);
  fputc('\n', s->term.to);
  fflush(s->term.to);
}

void ist_screen_wait(ist_screen *s, const char *what) {
  if (!s->term.tty) return;
  ist_live_begin(&s->term);
  ist_print(&s->term, IST_DIM, "%s", what);
  ist_live_end(&s->term);
}

void ist_screen_before(ist_screen *s, double valid_loss) {
  ist_live_clear();
  const char *when = s->run.resumed ? "where the run goes on" : "before training";
  fprintf(s->term.to, "validation loss %.4f %s\n", valid_loss, when);
  if (s->term.tty) fputc('\n', s->term.to);
  fflush(s->term.to);
  s->trained_from = now();
}

/* ---- The strip of layers ------------------------------------------------------- */

/* A layer that trained in this step is coloured (or, without colours, drawn while
 * the others are dots). Height is the importance by the selector's score, faint
 * until there are enough observations; selectors without scores draw full cells. */
static void put_cell(const ist_screen *s, const ist_step_report *r, int64_t layer) {
  static const char *const height[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
  const ist_term *t = &s->term;
  bool active = r->active[layer];
  if (!t->tty || !t->utf8) {
    fputc(active ? '#' : '.', t->to);
    return;
  }
  if (!active && (!t->colour || !s->run.probes)) {
    ist_print(t, IST_DIM, "·");
    return;
  }
  bool known = !s->run.probes || r->observed[layer] >= ENOUGH_OBSERVATIONS;
  int level = s->run.probes ? (int)(8 * r->importance[layer]) : 7;
  ist_style style =
      active ? (known ? IST_ACCENT : IST_ACCENT_DIM) : (known ? IST_GREY : IST_GREY_DIM);
  ist_print(t, style, "%s", height[level < 0 ? 0 : level > 7 ? 7 : level]);
}

void ist_screen_strip(const ist_screen *s, const ist_step_report *r, int width, int indent) {
  for (int64_t i = 0; i < r->L; i++) {
    if (width && i && i % width == 0) fprintf(s->term.to, "\n%*s", indent, "");
    put_cell(s, r, i);
  }
}

static void put_legend(const ist_screen *s) {
  const ist_term *t = &s->term;
  if (!t->utf8) {
    fputs("layers: # trained in the step, . did not\n\n", t->to);
    return;
  }
  fputs("layers: ", t->to);
  ist_print(t, IST_ACCENT, s->run.probes ? "▅" : "█");
  fputs(" trained in the step, ", t->to);
  if (t->colour && s->run.probes)
    ist_print(t, IST_GREY, "▅");
  else
    ist_print(t, IST_DIM, "·");
  fputs(" did not", t->to);
  if (s->run.probes) {
    fputs("\n        height: importance by the scores, ", t->to);
    ist_print(t, IST_DIM, t->colour ? "faint" : "of no meaning");
    fprintf(t->to, " below %d observations", ENOUGH_OBSERVATIONS);
  }
  fputs("\n\n", t->to);
}

/* ---- A line per report ---------------------------------------------------------- */

/* The widths of the columns, and where the strip goes. */
typedef struct layout {
  int step, epoch, speed, gap;
  bool strip_beside;
} layout;

static int width_of(const layout *l) {
  return l->step + l->epoch + 5 + 5 + 6 + l->speed + 4 + 5 + 8 * l->gap;
}

/* Columns give way, one after the other, so that the strip fits beside them:
 * 80 columns hold 30 to 32 layers. Where it does not, it has its own lines. */
static layout lay_out(const ist_screen *s) {
  char number[32];
  layout l = {.epoch = 5, .speed = 5, .gap = 2};
  l.step = 2 * snprintf(number, sizeof number, "%lld", (long long)s->run.total_steps) + 1;
  if (l.step < 5) l.step = 5;
  layout wide = l;
  int room = s->term.columns - (int)s->model.L;
  if (width_of(&l) > room) l.gap = 1;
  if (width_of(&l) > room) l.epoch = 4;
  if (width_of(&l) > room) l.speed = 4;
  l.strip_beside = width_of(&l) <= room;
  if (l.strip_beside) return l;
  if (width_of(&wide) > s->term.columns) wide.gap = 1;
  return wide;
}

static void put_cell_text(const ist_screen *s, const layout *l, int width, const char *text) {
  ist_put_spaces(s->term.to, width - (int)strlen(text));
  fprintf(s->term.to, "%s%*s", text, l->gap, "");
}

static void show_columns(ist_screen *s) {
  layout l = lay_out(s);
  if (s->columns_shown) return;
  s->columns_shown = true;
  put_legend(s);
  ist_style_set(&s->term, IST_DIM);
  put_cell_text(s, &l, l.step, "step");
  put_cell_text(s, &l, l.epoch, l.epoch < 5 ? "ep." : "epoch");
  put_cell_text(s, &l, 5, "loss");
  put_cell_text(s, &l, 5, "valid");
  put_cell_text(s, &l, 6, "lr");
  put_cell_text(s, &l, l.speed, l.speed < 5 ? "t/s" : "tok/s");
  put_cell_text(s, &l, 4, "peak");
  put_cell_text(s, &l, 5, "left");
  if (l.strip_beside) fputs("layers", s->term.to);
  ist_style_set(&s->term, IST_PLAIN);
  fputc('\n', s->term.to);
}

/* Five columns for any loss: 1.234, 12.34, 123.4, 1e+05. */
static void format_loss(char out[32], double loss) {
  snprintf(out, 32,
           loss < 9.9995   ? "%.3f"
           : loss < 99.995 ? "%.2f"
           : loss < 999.95 ? "%.1f"
                           : "%.0e",
           loss);
}

/* Four columns: 9999, 10k, 999k, 1.2M. */
static void format_speed(char out[32], double x) {
  if (x < 9999.5)
    snprintf(out, 32, "%.0f", x);
  else if (x < 999500)
    snprintf(out, 32, "%.0fk", x / 1e3);
  else
    snprintf(out, 32, "%.3gM", x / 1e6);
}

typedef struct figures {
  double loss, tokens_per_second, left;
  int64_t peak;
} figures;

static figures figures_of(const ist_screen *s, const ist_step_report *r) {
  double done = (double)(r->step - s->first_step);
  return (figures){
      .loss = s->targets > 0 ? s->loss / s->targets : r->loss,
      .tokens_per_second = s->seconds > 0 ? s->tokens / s->seconds : 0,
      .left =
          done > 0 ? (now() - s->trained_from) / done * (double)(s->run.total_steps - r->step) : 0,
      .peak = ist_peak_memory(),
  };
}

/* The line of one step. One that is not fixed lives until the next output, and a
 * line that the terminal would break could not be rewritten. */
static void put_report(ist_screen *s, const ist_step_report *r, bool fixed) {
  ist_term_measure(&s->term);
  layout l = lay_out(s);
  if (!fixed && width_of(&l) > s->term.columns) return;
  if (!fixed) ist_live_begin(&s->term);
  figures f = figures_of(s, r);
  char text[64];
  snprintf(text, sizeof text, "%lld/%lld", (long long)r->step, (long long)s->run.total_steps);
  put_cell_text(s, &l, l.step, text);
  snprintf(text, sizeof text,
           r->epoch < 9.995   ? "%.2f"
           : r->epoch < 99.95 ? "%.1f"
                              : "%.0f",
           r->epoch);
  put_cell_text(s, &l, l.epoch, text);
  format_loss(text, f.loss);
  put_cell_text(s, &l, 5, text);
  format_loss(text, r->valid_loss);
  if (r->evaluated && r->improved) ist_style_set(&s->term, IST_GOOD);
  put_cell_text(s, &l, 5, r->evaluated ? text : "");
  if (r->evaluated && r->improved) ist_style_set(&s->term, IST_PLAIN);
  format_rate(text, r->lr);
  put_cell_text(s, &l, 6, text);
  format_speed(text, f.tokens_per_second);
  put_cell_text(s, &l, l.speed, text);
  ist_format_bytes_short(text, (double)f.peak);
  put_cell_text(s, &l, 4, f.peak ? text : "");
  ist_format_time(text, f.left);
  put_cell_text(s, &l, 5, text);
  if (l.strip_beside) {
    ist_screen_strip(s, r, 0, 0);
  } else if (fixed) {
    int width = s->term.columns - l.step - l.gap;
    fprintf(s->term.to, "\n%*s", l.step + l.gap, "");
    ist_screen_strip(s, r, width, l.step + l.gap);
  }
  if (fixed) fputc('\n', s->term.to);
}

static void put_plain_report(const ist_screen *s, const ist_step_report *r) {
  figures f = figures_of(s, r);
  char left[32], valid[32] = "-";
  ist_format_time(left, f.left);
  if (r->evaluated) snprintf(valid, sizeof valid, "%.4f", r->valid_loss);
  fprintf(s->term.to,
          "step %lld/%lld epoch %.2f loss %.4f val %s lr %.1e %.0f tok/s %.0f MiB eta %s layers ",
          (long long)r->step, (long long)s->run.total_steps, r->epoch, f.loss, valid, r->lr,
          f.tokens_per_second, (double)f.peak / 1048576, left);
  ist_screen_strip(s, r, 0, 0);
  fprintf(s->term.to, "%s%s\n", r->evaluated && r->improved ? " best" : "",
          r->saved ? " saved" : "");
}

/* What the summary says of the layers: the report's arrays do not last till then. */
static void keep_layers(ist_screen *s, const ist_step_report *r) {
  int64_t high = 0, low = 0;
  s->layers_known = true;
  for (int64_t i = 0; i < r->L; i++) {
    if (r->importance[i] > r->importance[high]) high = i;
    if (r->importance[i] < r->importance[low]) low = i;
    s->layers_known = s->layers_known && r->observed[i] >= ENOUGH_OBSERVATIONS;
  }
  s->lowest = r->importance[low], s->lowest_layer = low;
  s->highest = r->importance[high], s->highest_layer = high;
}

static void show_step(ist_screen *s, const ist_step_report *r, bool due) {
  if (!s->term.tty) {
    if (due) put_plain_report(s, r);
  } else {
    ist_live_clear();
    show_columns(s);
    put_report(s, r, due);
  }
  fflush(s->term.to);
}

void ist_screen_step(ist_screen *s, const ist_step_report *r) {
  if (r->skipped) return; /* the library said so */
  s->trained = true;
  s->loss += r->loss * (double)r->targets;
  s->targets += (double)r->targets;
  s->tokens += (double)r->tokens;
  s->seconds += r->seconds;
  s->all_tokens += (double)r->tokens;
  s->all_seconds += r->seconds;
  if (r->evaluated && r->improved) s->best_step = r->step;
  bool first = r->step == s->first_step + 1;
  bool due = first || r->finished || r->evaluated || r->step % s->report_every == 0;
  if (!s->args->quiet) show_step(s, r, due);
  if (r->finished) keep_layers(s, r);
  if (due) s->loss = s->targets = s->tokens = s->seconds = 0;
}

/* ---- The end -------------------------------------------------------------------- */

static void summary_layers(const ist_screen *s) {
  const char *doubt = s->layers_known ? "" : "too few observations to trust";
  if (!s->run.probes || !s->trained || s->lowest == s->highest) return; /* no probe yet */
  put_items(s, "layers",
            "importance by the scores: %.2f (layer %lld) to %.2f (layer %lld)\n%s\nmeasured by ist "
            "eval --layers",
            s->lowest, (long long)s->lowest_layer, s->highest, (long long)s->highest_layer, doubt);
}

static void put_file(const ist_screen *s, const char *name, const char *what) {
  char path[4096];
  if (snprintf(path, sizeof path, "%s/%s", s->args->train.output, name) >= (int)sizeof path ||
      access(path, F_OK))
    return;
  fputs("  ", s->term.to);
  int columns = ist_put_text(s->term.to, path, 0);
  ist_put_spaces(s->term.to, (int)strlen(s->args->train.output) + 28 - columns);
  ist_print(&s->term, IST_DIM, "  %s", what);
  fputc('\n', s->term.to);
}

static void summary_files(const ist_screen *s) {
  fputs("\nwritten:\n", s->term.to);
  const char *method = s->run.method;
  bool peft = !strcmp(method, "lora") || !strcmp(method, "dora"), runs = !strcmp(method, "lora");
  put_file(s, "adapter_model.safetensors",
           peft ? "the adapter for Hugging Face PEFT, with" : "the adapter, with");
  put_file(s, "adapter_config.json", "its configuration");
  put_file(s, "adapter.gguf", "the adapter for llama.cpp (--lora)");
  put_file(s, "importance.json", "scores and draws of the layers");
  put_file(s, "settings.json", "every setting of the run");
  put_file(s, "metrics.jsonl", "every step");
  put_file(s, "checkpoints", "what ist train --resume needs");
  if (!runs) return; /* generate reads back only what the engine runs from a file */
  fputs("\ntry it:\n  ist generate -m ", s->term.to);
  ist_put_text(s->term.to, s->args->model_path, 0);
  fputs(" --adapter ", s->term.to);
  ist_put_text(s->term.to, s->args->train.output, 0);
  fputs(" \"...\"\n", s->term.to);
}

void ist_screen_summary(ist_screen *s, double before, double after) {
  char elapsed[32], peak[32], planned[32], speed[48] = "";
  ist_live_clear();
  ist_term_measure(&s->term);
  fputc('\n', s->term.to);
  if (isfinite(before) && isfinite(after)) {
    ist_print(&s->term, IST_BOLD, "validation loss %.4f %s, ", before,
              s->run.resumed ? "when resumed" : "before");
    ist_style_set(&s->term, after < before ? IST_GOOD : IST_BAD);
    fprintf(s->term.to, "%.4f after", after);
    ist_style_set(&s->term, IST_PLAIN);
    if (s->best_step >= 0)
      fprintf(s->term.to, " (the best, of step %lld, was kept)", (long long)s->best_step);
    fputs("\n\n", s->term.to);
  }
  ist_format_time(elapsed, now() - s->started);
  ist_format_bytes(peak, (double)ist_peak_memory());
  ist_format_bytes(planned, (double)s->run.planned_bytes);
  if (s->all_seconds > 0)
    snprintf(speed, sizeof speed, "%.0f tokens/s in training", s->all_tokens / s->all_seconds);
  put_items(s, "time", "%s in all\n%s", elapsed, speed);
  put_items(s, "memory", "peak %s\n%s expected", peak, planned);
  summary_layers(s);
  if (s->args->train.output) summary_files(s);
}
