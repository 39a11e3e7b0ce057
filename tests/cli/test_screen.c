/* The training screen: exact plain lines, and no line past the terminal's edge. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "screen.h"

enum { MOST_LAYERS = 200 };

/* A run with made-up numbers. */
typedef struct mock {
  ist_args args;
  ist_model_info model;
  ist_train_info run;
  uint8_t active[MOST_LAYERS];
  double importance[MOST_LAYERS];
  int64_t observed[MOST_LAYERS];
} mock;

static void mock_init(mock *k, int64_t L, int64_t steps) {
  memset(k, 0, sizeof *k);
  ist_args_init(&k->args);
  k->args.train.train_path = "train.jsonl";
  k->args.model_path = "model.gguf";
  k->args.report_every = 2;
  k->model = (ist_model_info){.name = "Some\033[1m model",
                              .architecture = "llama",
                              .quantisation = "Q4_1",
                              .compute = "bf16",
                              .isa = "avx2",
                              .L = L,
                              .parameters = 134515008,
                              .file_bytes = 98 << 20};
  k->run = (ist_train_info){.total_steps = steps,
                            .steps_per_epoch = 10,
                            .n_train = 160,
                            .n_valid = 16,
                            .probes = true,
                            .trainable = 4884480,
                            .active_layers = L / 4,
                            .micro_tokens = 2048,
                            .planned_bytes = 600 << 20,
                            .lr = 8e-4,
                            .template_name = "chatml",
                            .recompute = "none",
                            .order = "token",
                            .method = "lora",
                            .targets = "all-linear",
                            .rank = 16,
                            .alpha = 32};
  for (int64_t i = 0; i < L; i++) {
    k->active[i] = i % 4 == 1;
    k->importance[i] = (double)i / (double)L;
    k->observed[i] = i;
  }
}

static ist_step_report mock_report(const mock *k, int64_t step) {
  return (ist_step_report){.step = step,
                           .epoch = (double)step / 10,
                           .loss = 2,
                           .lr = 2e-4,
                           .tokens = 1000,
                           .targets = 500,
                           .seconds = 2,
                           .L = k->model.L,
                           .active = k->active,
                           .importance = k->importance,
                           .observed = k->observed,
                           .finished = step == k->run.total_steps};
}

static char *contents(FILE *f) {
  size_t len;
  rewind(f);
  char *text = ist_read_all(f, "screen", &len, NULL);
  assert_non_null(text);
  return text;
}

/* The text without the memory and the time left, which are the machine's. */
static void assert_line(const char *text, const char *before, const char *after) {
  const char *at = strstr(text, before);
  if (!at) fail_msg("found no \"%s\" in:\n%s", before, text);
  const char *end = strchr(at, '\n'), *found = strstr(at, after);
  if (!found || found > end) fail_msg("found no \"%s\" after \"%s\" in:\n%s", after, before, text);
}

static void plain_lines(void **state) {
  (void)state;
  mock k;
  ist_screen s;
  FILE *f = tmpfile();
  mock_init(&k, 8, 5);
  ist_screen_open(&s, f, &k.args, &k.model, &k.run);
  s.term.utf8 = false;
  ist_screen_header(&s);
  ist_screen_wait(&s, "not on a file");
  ist_screen_before(&s, 2.5);
  for (int64_t step = 1; step <= 5; step++) {
    ist_step_report r = mock_report(&k, step);
    if (step == 2) r.loss = 3, r.targets = 1500; /* weighs three times as much ... */
    if (step == 3) r.evaluated = r.improved = true, r.valid_loss = 1.25;
    if (step == 5) r.saved = true;
    ist_screen_step(&s, &r);
  }
  ist_screen_summary(&s, 2.5, 1.25);
  char *text = contents(f);
  assert_null(strchr(text, '\033'));
  assert_null(strstr(text, "not on a file"));
  assert_line(text, "model    Some?[1m model, llama, 8 layers, 134.5 M parameters, Q4_1, 98 MiB",
              "");
  assert_line(text, "adapter  lora, rank 16", "4.88 M parameters (3.6 % of the model)");
  assert_line(text, "steps    5 (10 an epoch)", "lr 8.0e-4 (2.0e-4 by active ratio)");
  assert_line(text, "validation loss 2.5000 before training", "");
  assert_line(text, "step 1/5 epoch 0.10 loss 2.0000 val - lr 2.0e-04 500 tok/s ",
              "layers .#...#..");
  assert_line(text, "step 2/5 epoch 0.20 loss 3.0000 val - ", "layers");
  assert_line(text, "step 3/5 epoch 0.30 loss 2.0000 val 1.2500 ", " best");
  assert_line(text, "step 4/5 ", "layers");
  assert_line(text, "step 5/5 ", "saved");
  assert_line(text, "validation loss 2.5000 before, 1.2500 after (the best, of step 3, was kept)",
              "");
  assert_line(text, "layers   importance by the scores: 0.00 (layer 0) to 0.88 (layer 7)",
              "too few observations");
  free(text);
  fclose(f);
}

/* A report tells the mean since the last one, weighed by supervised tokens. */
static void loss_is_averaged(void **state) {
  (void)state;
  mock k;
  ist_screen s;
  FILE *f = tmpfile();
  mock_init(&k, 4, 10);
  k.args.report_every = 4;
  ist_screen_open(&s, f, &k.args, &k.model, &k.run);
  for (int64_t step = 1; step <= 4; step++) {
    ist_step_report r = mock_report(&k, step);
    r.loss = (double)step;
    r.targets = step == 4 ? 200 : 100;
    ist_screen_step(&s, &r);
  }
  char *text = contents(f);
  assert_null(strstr(text, "step 2/"));
  assert_line(text, "step 4/10 epoch 0.40 loss 3.2500 ", ""); /* (2 + 3 + 2 * 4) / 4 */
  free(text);
  fclose(f);
}

/* Strips styles; every line, also a rewritten one, must fit. */
static void assert_fits(const char *text, int columns) {
  char line[4096];
  size_t n = 0;
  for (const char *p = text;; p++) {
    if (*p == '\033') {
      p += strcspn(p, "mK");
      continue;
    }
    if (*p && *p != '\n' && *p != '\r') {
      assert_true(n < sizeof line - 1);
      line[n++] = *p;
      continue;
    }
    line[n] = '\0';
    if (ist_columns(line) > columns) fail_msg("longer than %d columns: %s", columns, line);
    n = 0;
    if (!*p) return;
  }
}

/* On what is no terminal, though taken for one, a screen has 80 columns. */
static void fits_in_80_columns(void **state) {
  (void)state;
  static const int64_t layers[] = {1, 8, 30, 31, 32, 33, 80, 200}, steps[] = {3, 120, 9999, 100000};
  static const char *const selectors[] = {"ist", "all"};
  for (size_t c = 0; c < 2 * 2 * 8 * 4; c++) {
    mock k;
    ist_screen s;
    FILE *f = tmpfile();
    mock_init(&k, layers[c / 4 % 8], steps[c % 4]);
    k.args.train.selector = selectors[c / 64];
    k.run.probes = c / 64 == 0;
    ist_screen_open(&s, f, &k.args, &k.model, &k.run);
    s.term.tty = s.term.utf8 = true;
    s.term.colour = c / 32 % 2;
    ist_term_measure(&s.term);
    assert_int_equal(s.term.columns, 80);
    ist_screen_header(&s);
    ist_screen_before(&s, 2.5);
    for (int64_t step = 1; step <= 3; step++) {
      ist_step_report r = mock_report(&k, step);
      r.evaluated = step == 2, r.valid_loss = 12.3456, r.epoch = 123.4, r.seconds = 1e-3;
      ist_screen_step(&s, &r);
    }
    ist_live_clear();
    char *text = contents(f);
    assert_fits(text, 80);
    bool beside = layers[c / 4 % 8] <= 30 && steps[c % 4] <= 9999;
    if (beside) assert_non_null(strstr(text, "left layers") ? text : strstr(text, "left  layers"));
    if (!s.term.colour)
      assert_null(strstr(text,
                         "\033["
                         "3"));
    free(text);
    fclose(f);
  }
}

/* What trained, what is known: the cells of four layers. */
static void strip_cells(void **state) {
  (void)state;
  mock k;
  ist_screen s;
  mock_init(&k, 4, 5);
  for (int variant = 0; variant < 3; variant++) {
    static const char *const expected[] = {"·▃·▇",
                                           ("\033[2;38;5;245m▁\033[0m\033[2;36m▃\033[0m"
                                            "\033[38;5;245m▅\033[0m\033[1;36m▇\033[0m"),
                                           ".#.#"};
    FILE *f = tmpfile();
    ist_screen_open(&s, f, &k.args, &k.model, &k.run);
    s.term.tty = variant < 2;
    s.term.utf8 = true;
    s.term.colour = s.term.greys = variant == 1;
    ist_step_report r = mock_report(&k, 1);
    k.active[3] = 1;
    k.observed[0] = 0, k.observed[1] = 4, k.observed[2] = 5, k.observed[3] = 50;
    ist_screen_strip(&s, &r, 0, 0);
    char *text = contents(f);
    char plain[256] = "";
    for (const char *p = text; *p; p++) { /* the dots of idle layers may be styled */
      if (variant == 0 && *p == '\033')
        p += strcspn(p, "m");
      else
        strncat(plain, p, 1);
    }
    assert_string_equal(plain, expected[variant]);
    free(text);
    fclose(f);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(plain_lines),
      cmocka_unit_test(loss_is_averaged),
      cmocka_unit_test(fits_in_80_columns),
      cmocka_unit_test(strip_cells),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
