/* Fills phrases with values, and writes the three files. */
#include "demo/demo.h"

#include <stdio.h>
#include <string.h>

static int64_t length_of(const char *const *list) {
  int64_t n = 0;
  while (list[n]) n++;
  return n;
}

static const char *pick(const char *const *list, ist_rng *r) {
  return list[ist_rng_below(r, (uint64_t)length_of(list))];
}

/* The value behind each slot: as the message says it, and as the record has it. */
typedef struct value {
  char said[96], canonical[96];
} value;

static void same(value *v, const char *a, const char *b) {
  snprintf(v->said, sizeof v->said, "%s%s%s", a, *b ? " " : "", b);
  memcpy(v->canonical, v->said, sizeof v->canonical);
}

static void value_name(value *v, int half, ist_rng *r) {
  const char *first = pick(ist_demo_first_names.of[half], r);
  same(v, first, pick(ist_demo_last_names.of[half], r));
}

static void value_item(value *v, int half, ist_rng *r) {
  same(v, pick(ist_demo_goods.of[half], r), "");
}

static int number_in(const int range[2], ist_rng *r) {
  return range[0] + (int)ist_rng_below(r, (uint64_t)(range[1] - range[0]));
}

/* Cities were tried in its place: a city is one token in a message and several behind a
 * quote, and a model of this size misspelt one in four of those that training never saw. */
static void value_zip(value *v, int half, ist_rng *r) {
  char digits[16];
  snprintf(digits, sizeof digits, "%d", number_in(ist_demo_zip_range[half], r));
  same(v, digits, "");
}

static void value_street(value *v, int half, ist_rng *r) {
  char number[16];
  snprintf(number, sizeof number, "%d", 1 + (int)ist_rng_below(r, 99));
  same(v, number, pick(ist_demo_streets.of[half], r));
}

/* Two and more, so that goods stay plural: in words, in digits, or a dozen. */
static void value_count(value *v, int half, ist_rng *r) {
  static const char *const words[] = {"two",   "three", "four", "five",   "six",   "seven",
                                      "eight", "nine",  "ten",  "eleven", "twelve"};
  (void)half;
  int n = 2 + (int)ist_rng_below(r, 11);
  if (n == 12 && ist_rng_below(r, 2)) {
    snprintf(v->said, sizeof v->said, "a dozen");
  } else if (ist_rng_below(r, 2)) {
    snprintf(v->said, sizeof v->said, "%s", words[n - 2]);
  } else {
    snprintf(v->said, sizeof v->said, "%d", n);
  }
  snprintf(v->canonical, sizeof v->canonical, "%d", n);
}

/* Said as 14 March, March 14, March 14th or the 14th of March; kept as 03-14. */
static void value_date(value *v, int half, ist_rng *r) {
  static const char *const months[] = {"January",   "February", "March",    "April",
                                       "May",       "June",     "July",     "August",
                                       "September", "October",  "November", "December"};
  (void)half;
  int month = (int)ist_rng_below(r, 12), day = 1 + (int)ist_rng_below(r, 28);
  const char *th = day / 10 != 1 && day % 10 == 1   ? "st"
                   : day / 10 != 1 && day % 10 == 2 ? "nd"
                   : day / 10 != 1 && day % 10 == 3 ? "rd"
                                                    : "th";
  switch (ist_rng_below(r, 4)) {
    case 0: snprintf(v->said, sizeof v->said, "%d %s", day, months[month]); break;
    case 1: snprintf(v->said, sizeof v->said, "%s %d", months[month], day); break;
    case 2: snprintf(v->said, sizeof v->said, "%s %d%s", months[month], day, th); break;
    default: snprintf(v->said, sizeof v->said, "the %d%s of %s", day, th, months[month]);
  }
  snprintf(v->canonical, sizeof v->canonical, "%02d-%02d", month + 1, day);
}

/* From 8:00 to 18:45, said as 14:30, 14.30 or 14h30; kept as 14:30. Afternoon hours
 * of the 12-hour clock were tried: a model of this size learns that sum for about one
 * in five from so few messages. */
static void value_time(value *v, int half, ist_rng *r) {
  (void)half;
  int hour = 8 + (int)ist_rng_below(r, 11), minute = 15 * (int)ist_rng_below(r, 4);
  switch (ist_rng_below(r, 3)) {
    case 0: snprintf(v->said, sizeof v->said, "%d:%02d", hour, minute); break;
    case 1: snprintf(v->said, sizeof v->said, "%d.%02d", hour, minute); break;
    default: snprintf(v->said, sizeof v->said, "%dh%02d", hour, minute);
  }
  snprintf(v->canonical, sizeof v->canonical, "%02d:%02d", hour, minute);
}

static void value_order(value *v, int half, ist_rng *r) {
  int n = number_in(ist_demo_order_range[half], r);
  snprintf(v->said, sizeof v->said, "%s%d", ist_rng_below(r, 2) ? "#" : "", n);
  snprintf(v->canonical, sizeof v->canonical, "%d", n);
}

static void value_amount(value *v, int half, ist_rng *r) {
  (void)half;
  int n = 20 + (int)ist_rng_below(r, 980);
  switch (ist_rng_below(r, 3)) {
    case 0: snprintf(v->said, sizeof v->said, "$%d", n); break;
    case 1: snprintf(v->said, sizeof v->said, "%d dollars", n); break;
    default: snprintf(v->said, sizeof v->said, "USD %d", n);
  }
  snprintf(v->canonical, sizeof v->canonical, "%d", n);
}

static const struct {
  const char *name;
  void (*draw)(value *, int half, ist_rng *);
} slots[] = {
    {"name", value_name}, {"item", value_item},   {"count", value_count},
    {"date", value_date}, {"time", value_time},   {"street", value_street},
    {"zip", value_zip},   {"order", value_order}, {"amount", value_amount},
};
enum { N_SLOTS = sizeof slots / sizeof slots[0] };

/* Appends a phrase with its slots filled. A brace that opens no known slot is
 * text: the JSON forms begin with one. */
static void fill(ist_buf *out, const char *phrase, const value *values, bool canonical) {
  while (*phrase) {
    int slot = -1;
    size_t len = 0;
    for (int i = 0; *phrase == '{' && i < N_SLOTS; i++) {
      len = strlen(slots[i].name);
      if (!strncmp(phrase + 1, slots[i].name, len) && phrase[1 + len] == '}') {
        slot = i;
        break;
      }
    }
    if (slot < 0) {
      ist_buf_add(out, phrase++, 1);
    } else {
      ist_buf_str(out, canonical ? values[slot].canonical : values[slot].said);
      phrase += len + 2;
    }
  }
}

void ist_demo_make(ist_buf *message, ist_buf *json, bool test, ist_rng *r) {
  const ist_demo_kind *kind = &ist_demo_kinds[ist_rng_below(r, (uint64_t)ist_demo_n_kinds)];
  int half = test;
  value values[N_SLOTS];
  for (int i = 0; i < N_SLOTS; i++) slots[i].draw(&values[i], half, r);
  ist_buf_str(message, ist_demo_ask);
  ist_buf_str(message, pick(ist_demo_openers.of[half], r));
  fill(message, pick(kind->phrases.of[half], r), values, false);
  ist_buf_str(message, pick(ist_demo_closers.of[half], r));
  fill(json, kind->json, values, true);
}

/* Our texts are printable ASCII: only quotes and backslashes need escaping. */
static void json_string(ist_buf *out, const char *s) {
  ist_buf_str(out, "\"");
  for (; *s; s++) {
    if (*s == '"' || *s == '\\') ist_buf_str(out, "\\");
    ist_buf_add(out, s, 1);
  }
  ist_buf_str(out, "\"");
}

static bool seen_before(char *const *seen, int64_t n, const char *message) {
  for (int64_t i = 0; i < n; i++)
    if (!strcmp(seen[i], message)) return true;
  return false;
}

/* One file of n records; `seen` gathers the messages of all files. */
static ist_status write_split(const char *dir, const char *name, int64_t n, int split,
                              uint64_t seed, char **seen, int64_t *n_seen, ist_error *err) {
  ist_buf out = {0}, message = {0}, json = {0};
  ist_rng r = ist_rng_stream(seed, IST_RNG_DATA, (uint32_t)split, 0, 0);
  ist_status status = IST_OK;
  for (int64_t made = 0, tries = 0; made < n && status == IST_OK;) {
    ist_buf_clear(&message);
    ist_buf_clear(&json);
    ist_demo_make(&message, &json, split == 2, &r);
    if (message.failed || json.failed) {
      status = ist_fail_nomem(err, "a message", 0);
    } else if (seen_before(seen, *n_seen, message.p)) {
      if (++tries > 100 * n)
        status = ist_fail(err, IST_ERR_ARG, "%s: %lld records asked, the tables give only %lld",
                          name, (long long)n, (long long)made);
    } else if (!(seen[*n_seen] = ist_strdup(message.p))) {
      status = ist_fail_nomem(err, "a message", message.len);
    } else {
      ++*n_seen;
      made++;
      ist_buf_str(&out, "{\"messages\":[{\"role\":\"user\",\"content\":");
      json_string(&out, message.p);
      ist_buf_str(&out, "},{\"role\":\"assistant\",\"content\":");
      json_string(&out, json.p);
      ist_buf_str(&out, "}]}\n");
    }
  }
  char *path = ist_path_join(dir, name);
  if (status == IST_OK && (out.failed || !path)) status = ist_fail_nomem(err, name, out.len);
  if (status == IST_OK) status = ist_file_write(path, out.p ? out.p : "", out.len, err);
  ist_free(path);
  ist_buf_free(&out);
  ist_buf_free(&message);
  ist_buf_free(&json);
  return status;
}

ist_status ist_demo_write(const char *dir, ist_demo_sizes sizes, uint64_t seed, ist_error *err) {
  const int64_t n[] = {sizes.train, sizes.valid, sizes.test};
  static const char *const names[] = {"train.jsonl", "valid.jsonl", "test.jsonl"};
  for (int i = 0; i < 3; i++)
    if (n[i] < 0 || n[i] > 100000)
      return ist_fail(err, IST_ERR_ARG, "%s: %lld records asked, expected 0 to 100000", names[i],
                      (long long)n[i]);
  IST_TRY(ist_mkdirs(dir, err));
  char **seen = ist_calloc((size_t)(n[0] + n[1] + n[2]), sizeof *seen);
  if (!seen) return ist_fail_nomem(err, "the list of messages", 0);
  int64_t n_seen = 0;
  ist_status status = IST_OK;
  for (int i = 0; i < 3 && status == IST_OK; i++)
    status = write_split(dir, names[i], n[i], i, seed, seen, &n_seen, err);
  for (int64_t i = 0; i < n_seen; i++) ist_free(seen[i]);
  ist_free(seen);
  return status;
}

/* The first string of half 0 that is in half 1 too; empty strings aside. */
static const char *overlap(ist_demo_lists lists) {
  for (const char *const *a = lists.of[0]; *a; a++)
    for (const char *const *b = lists.of[1]; *b; b++)
      if (**a && !strcmp(*a, *b)) return *a;
  return NULL;
}

const char *ist_demo_overlap(void) {
  const ist_demo_lists lists[] = {ist_demo_openers,    ist_demo_closers, ist_demo_first_names,
                                  ist_demo_last_names, ist_demo_goods,   ist_demo_streets};
  for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++)
    if (overlap(lists[i])) return overlap(lists[i]);
  for (int i = 0; i < ist_demo_n_kinds; i++)
    if (overlap(ist_demo_kinds[i].phrases)) return overlap(ist_demo_kinds[i].phrases);
  if (ist_demo_order_range[0][1] > ist_demo_order_range[1][0]) return "numbers of orders";
  return ist_demo_zip_range[0][1] > ist_demo_zip_range[1][0] ? "postal codes" : NULL;
}
