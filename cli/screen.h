/* The screen of a training run: what will be done, a line per report with a strip
 * of the layers, what came out. On a terminal the last line is rewritten after
 * every step; elsewhere there are plain lines. */
#ifndef IST_CLI_SCREEN_H
#define IST_CLI_SCREEN_H

#include "opts.h"
#include "text.h"

typedef struct ist_screen {
  ist_term term;
  const ist_args *args;
  ist_model_info model;
  ist_train_info run;
  int64_t report_every, best_step;
  bool columns_shown;           /* the headings of the columns */
  double started, trained_from; /* seconds of a clock */
  int64_t first_step;
  /* since the last report */
  double loss, targets, tokens, seconds;
  /* since the start */
  double all_tokens, all_seconds;
  bool trained;
  /* at the end: the least and the most important layer by the scores */
  double lowest, highest;
  int64_t lowest_layer, highest_layer;
  bool layers_known; /* all of them with enough observations */
} ist_screen;

/* The arguments are borrowed until the last call. */
void ist_screen_open(ist_screen *s, FILE *to, const ist_args *a, const ist_model_info *model,
                     const ist_train_info *run);
void ist_screen_header(ist_screen *s);
/* Says what takes a while ("measuring ..."); the next output replaces it. */
void ist_screen_wait(ist_screen *s, const char *what);
/* The validation loss before the first step of this run. */
void ist_screen_before(ist_screen *s, double valid_loss);
/* Counts the step; shows it unless the command is quiet. */
void ist_screen_step(ist_screen *s, const ist_step_report *r);
/* The end of a run: validation before and after (NAN where not measured), time,
 * memory, layers, files. */
void ist_screen_summary(ist_screen *s, double before, double after);
/* One character for each layer, `width` a line (0: all on one), following lines
 * `indent` deep. */
void ist_screen_strip(const ist_screen *s, const ist_step_report *r, int width, int indent);

#endif
