/* A run that was stopped and resumed equals one that was not, to the bit: every method with
 * every selector, with dropout, several micro-batches a step, probes, validation, and what
 * may become of frozen moments. */
#include "run.h"

static const struct {
  const char *name, *method;
  bool lora_bias, learned_scaling;
  const char *dora_dropout;
} methods[] = {
    {"lora", "lora", false, false, "shared"},        {"lora-bias", "lora", true, false, "shared"},
    {"dora", "dora", false, false, "shared"},        {"dora-peft", "dora", false, false, "peft"},
    {"parallel", "parallel", false, true, "shared"}, {"series", "series", false, true, "shared"},
    {"prefix", "prefix", false, false, "shared"},
};

static const struct {
  const char *name, *spec, *moments;
  int64_t redraw_every;
  double depth_budget;
} selectors[] = {
    {"ist", "ist", "keep", 1, 0},       {"ist-deep", "ist", "decay", 1, 0.5},
    {"random", "random", "drop", 3, 0}, {"random-deep", "random", "drop", 3, 0.5},
    {"all", "all", "keep", 1, 0},       {"fixed", "fixed:3,1", "decay", 1, 0},
};

static void test_every_pair(void **state) {
  (void)state;
  for (size_t m = 0; m < sizeof methods / sizeof *methods; m++) {
    for (size_t s = 0; s < sizeof selectors / sizeof *selectors; s++) {
      char whole[64], parts[64];
      ist_train_options o = run_options();
      o.method = methods[m].method;
      o.lora_bias = methods[m].lora_bias;
      o.learned_scaling = methods[m].learned_scaling;
      o.dora_dropout = methods[m].dora_dropout;
      o.selector = selectors[s].spec;
      o.moments = selectors[s].moments;
      o.redraw_every = selectors[s].redraw_every;
      o.depth_budget = selectors[s].depth_budget;
      o.burn_in = 4;
      o.probe_every = 3;
      o.lr_ratio = 4;
      o.rank_pattern = strcmp(o.method, "prefix") == 0 ? NULL : "q=2,down=6";
      o.steps = 8;
      o.eval_every = 4;
      snprintf(whole, sizeof whole, "%s-%s-whole", methods[m].name, selectors[s].name);
      snprintf(parts, sizeof parts, "%s-%s-parts", methods[m].name, selectors[s].name);
      must_resume_exactly(o, 5, 1, whole, parts);
    }
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_pair)};
  return cmocka_run_group_tests(tests, enter_with_data, leave_folder);
}
