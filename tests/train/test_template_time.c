/* A template that shows the date: a run keeps the one of its start, so that it can be resumed on
 * another day, or where the clocks show another one. */
#include "run.h"

#include "tokenizer/small_vocab.h"

#define DATED                                                                            \
  "{{ strftime_now('%d %b %Y') }}{% for m in messages %}{{ m.role + m.content + '\n' }}" \
  "{% endfor %}"

/* The tiny model with a tokenizer that brings such a template. */
static ist_model *open_dated(void) {
  static const small_token extra[] = {{"<|endoftext|>", CONTROL}, {NULL, 0}};
  const small_vocab v = {
      .pre = "gpt-2", .extra = extra, .eos = "<|endoftext|>", .chat_template = DATED};
  ist_model *m = open_tiny();
  ist_tokenizer_free(m->tokenizer);
  m->tokenizer = small_vocab_open(&v);
  return m;
}

/* Clocks that show two days at any moment: 26 hours lie between them. */
static void set_day(bool later) {
  setenv("TZ", later ? "AAA-14" : "AAA+12", 1);
  tzset();
}

static ist_train_options dated_options(const char *output) {
  ist_train_options o = run_options();
  o.template_name = "model";
  o.max_tokens = 96;
  o.output = output;
  o.steps = 4;
  o.save_every = 2;
  return o;
}

static uint64_t hash_of(const ist_train_options *o, int64_t steps, time_t *now) {
  ist_model *m = open_dated();
  ist_trainer *t = open_run(m, o);
  uint64_t hash = t->data_hash;
  *now = t->now;
  for (int64_t i = 0; i < steps; i++) take_step(t);
  ist_trainer_close(t);
  ist_model_close(m);
  return hash;
}

static void test_resumed_on_another_day(void **state) {
  (void)state;
  time_t begun, resumed, again, other;
  ist_train_options o = dated_options("dated");
  set_day(false);
  uint64_t first = hash_of(&o, 2, &begun);
  set_day(true);
  o.resume = true;
  assert_true(hash_of(&o, 2, &resumed) == first);
  assert_true(resumed == begun);
  /* And once more: the resumed run has saved the same day. */
  assert_true(hash_of(&o, 0, &again) == first);
  assert_true(again == begun);
  const ist_train_options fresh = dated_options("fresh");
  assert_true(hash_of(&fresh, 0, &other) != first); /* the day is in the data */
  assert_true(other != begun);
}

/* A run that is older than the setting takes the clock, as it did. */
static void test_settings_without_a_moment(void **state) {
  (void)state;
  json_t *settings = json_pack("{s:s}", "template", "model");
  set_day(false);
  time_t now = ist_jinja_now(), found = ist_trainer_now(settings), fresh = ist_trainer_now(NULL);
  assert_in_range(found - now, 0, 60);
  assert_in_range(fresh - now, 0, 60);
  json_object_set_new(settings, "template_time", json_integer(86400));
  assert_true(ist_trainer_now(settings) == 86400);
  json_decref(settings);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_resumed_on_another_day),
                                     cmocka_unit_test(test_settings_without_a_moment)};
  return cmocka_run_group_tests(tests, enter_with_data, leave_folder);
}
