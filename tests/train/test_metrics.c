/* metrics.jsonl: lines, resuming, bad places; and the world of one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "train/comm.h"
#include "train/metrics.h"

static char dir[] = "/tmp/ist-metrics-XXXXXX";

static int enter(void **state) {
  (void)state;
  return mkdtemp(dir) && chdir(dir) == 0 ? 0 : -1;
}

static int leave(void **state) {
  (void)state;
  return chdir("/") == 0 && ist_remove_tree(dir, NULL) == IST_OK ? 0 : -1;
}

static void write_step(ist_metrics *m, int step) {
  json_t *line =
      json_pack("{s:i, s:f, s:n, s:s}", "step", step, "loss", 0.5 * step, "valid", "note", "a\nb");
  assert_int_equal(ist_metrics_line(m, line, NULL), IST_OK);
  json_decref(line);
}

static void must_be(const char *expected) {
  ist_buf b = {0};
  assert_int_equal(ist_file_read(&b, "m", 10000, NULL), IST_OK);
  assert_string_equal(b.p, expected);
  ist_buf_free(&b);
}

#define LINE(step, loss) "{\"step\":" step ",\"loss\":" loss ",\"valid\":null,\"note\":\"a\\nb\"}\n"

static void test_lines_and_resume(void **state) {
  (void)state;
  ist_metrics m = {0};
  ist_metrics_close(&m);
  assert_int_equal(ist_metrics_open(&m, "m", 0, NULL), IST_OK);
  write_step(&m, 1);
  must_be(LINE("1", "0.5")); /* without a close */
  write_step(&m, 2);
  int64_t at_checkpoint = ist_metrics_size(&m);
  write_step(&m, 3);
  assert_int_equal(ist_metrics_size(&m), 3 * at_checkpoint / 2);
  ist_metrics_close(&m);
  ist_metrics_close(&m);

  /* Resumed after step 2: step 3 stands there once. */
  assert_int_equal(ist_metrics_open(&m, "m", at_checkpoint, NULL), IST_OK);
  assert_int_equal(ist_metrics_size(&m), at_checkpoint);
  write_step(&m, 3);
  write_step(&m, 4);
  ist_metrics_close(&m);
  must_be(LINE("1", "0.5") LINE("2", "1.0") LINE("3", "1.5") LINE("4", "2.0"));

  /* Lost or shortened: the run goes on, and counts from the whole lines there are. */
  assert_int_equal(truncate("m", at_checkpoint - 3), 0);
  assert_int_equal(ist_metrics_open(&m, "m", at_checkpoint, NULL), IST_OK);
  assert_int_equal(ist_metrics_size(&m), at_checkpoint / 2);
  ist_metrics_close(&m);
  must_be(LINE("1", "0.5"));

  /* All there is, but no half line. */
  assert_int_equal(ist_metrics_open(&m, "m", -1, NULL), IST_OK);
  write_step(&m, 2);
  ist_metrics_close(&m);
  assert_int_equal(truncate("m", at_checkpoint - 1), 0);
  assert_int_equal(ist_metrics_open(&m, "m", -1, NULL), IST_OK);
  write_step(&m, 4);
  ist_metrics_close(&m);
  must_be(LINE("1", "0.5") LINE("4", "2.0"));
  assert_int_equal(truncate("m", 10), 0);
  assert_int_equal(ist_metrics_open(&m, "m", -1, NULL), IST_OK);
  assert_int_equal(ist_metrics_size(&m), 0);
  ist_metrics_close(&m);

  assert_int_equal(ist_metrics_open(&m, "m", 0, NULL), IST_OK); /* a new run */
  write_step(&m, 5);
  ist_metrics_close(&m);
  must_be(LINE("5", "2.5"));
}

static void test_bad_places(void **state) {
  (void)state;
  ist_metrics m = {0};
  ist_error err;
  assert_int_equal(ist_metrics_open(&m, "absent/m", 0, &err), IST_ERR_IO);
  assert_non_null(strstr(err.message, "'absent/m'"));
  assert_int_equal(ist_metrics_open(&m, ".", 0, &err), IST_ERR_IO);
  assert_int_equal(ist_metrics_open(&m, "/dev/null", 0, &err), IST_ERR_IO);
  ist_metrics_close(&m);

  assert_int_equal(ist_metrics_open(&m, "m", 0, NULL), IST_OK);
  json_t *line = json_pack("{s:i}", "step", 1);
  ist_alloc_fail_at(1);
  assert_int_equal(ist_metrics_line(&m, line, &err), IST_ERR_NOMEM);
  ist_alloc_fail_at(0);
  assert_int_equal(ist_metrics_line(&m, line, &err), IST_OK);
  json_decref(line);
  ist_metrics_close(&m);
  must_be("{\"step\":1}\n");
}

static void test_single_process(void **state) {
  (void)state;
  ist_comm c;
  ist_comm_single(&c);
  assert_int_equal(c.rank, 0);
  assert_int_equal(c.world, 1);
  int64_t targets = 5, count = 3;
  double sum = 1.5;
  float grads[2] = {1, 2};
  c.token_count(&c, &targets);
  c.probe_loss(&c, &sum, &count);
  c.gradients(&c, grads, IST_F32, 2);
  assert_true(targets == 5 && sum == 1.5 && count == 3 && grads[0] == 1 && grads[1] == 2);
  for (int i = 0; i < 2; i++) {
    bool finite = i;
    c.decide(&c, &finite);
    assert_true(finite == i);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_lines_and_resume),
      cmocka_unit_test(test_bad_places),
      cmocka_unit_test(test_single_process),
  };
  return cmocka_run_group_tests(tests, enter, leave);
}
