/* Fine-tunes a model through the library alone, in some fifty lines.
 *
 *   train_minimal MODEL.gguf DATA.jsonl OUTPUT-DIRECTORY [STEPS]
 *
 * Against an installed library:
 *   cc train_minimal.c -o train_minimal $(pkg-config --cflags --libs ist)
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include <ist.h>

static int failed(const ist_error *err) {
  fprintf(stderr, "error: %s\n", err->message);
  if (err->hint[0]) fprintf(stderr, "hint: %s\n", err->hint);
  return 1;
}

/* Steps until the run says that it is finished; then writes the adapter. */
static ist_status train(ist_trainer *trainer, ist_error *err) {
  ist_step_report report;
  do {
    ist_status status = ist_trainer_step(trainer, &report, err);
    if (status != IST_OK) return status;
    printf("step %3" PRId64 "  loss %.4f  layers ", report.step, report.loss);
    for (int64_t i = 0; i < report.L; i++) putchar(report.active[i] ? '#' : '.');
    putchar('\n');
  } while (!report.finished);
  return ist_trainer_finish(trainer, err);
}

int main(int argc, char **argv) {
  if (argc < 4 || argc > 5) {
    fprintf(stderr, "usage: %s MODEL.gguf DATA.jsonl OUTPUT-DIRECTORY [STEPS]\n", argv[0]);
    return 2;
  }
  ist_train_options options;
  ist_train_options_init(&options);
  options.train_path = argv[2];
  options.output = argv[3];
  options.steps = argc > 4 ? atoll(argv[4]) : 20;

  ist_error err;
  ist_model *model = NULL;
  ist_trainer *trainer = NULL;
  ist_status status = ist_model_open(&model, argv[1], NULL, &err);
  if (status == IST_OK) status = ist_trainer_open(&trainer, model, &options, &err);
  if (status == IST_OK) status = train(trainer, &err);
  ist_trainer_close(trainer);
  ist_model_close(model);
  return status == IST_OK ? 0 : failed(&err);
}
