/* The demo's task: a short message -> a JSON record with fixed keys.
 *
 * Each kind of message has phrases and one JSON form. Phrases and the lists of
 * open values (names, goods, streets, numbers of orders, postal codes) come twice:
 * [0] for training and validation, [1] for the held-out test; nothing stands in
 * both, which ist_demo_overlap checks. Months, hours and small numbers are
 * closed classes that both share. All of it is in tables.c: to make the task
 * easier or harder, edit the tables. */
#ifndef IST_TOOLS_DEMO_H
#define IST_TOOLS_DEMO_H

#include "base/file.h"
#include "base/rng.h"

/* NULL-terminated lists of strings; [0] training, [1] test. */
typedef struct ist_demo_lists {
  const char *const *of[2];
} ist_demo_lists;

/* A phrase holds slots such as {name}; so does the JSON form, whose slots are
 * the canonical forms of the same values. */
typedef struct ist_demo_kind {
  const char *json;
  ist_demo_lists phrases;
} ist_demo_kind;

extern const ist_demo_kind ist_demo_kinds[];
extern const int ist_demo_n_kinds;
/* What stands before every message. */
extern const char ist_demo_ask[];
/* Put before and after a phrase; an empty string among them means none. */
extern const ist_demo_lists ist_demo_openers, ist_demo_closers;
extern const ist_demo_lists ist_demo_first_names, ist_demo_last_names, ist_demo_goods,
    ist_demo_streets;
/* Numbers of orders, postal codes: [low, high) of each half. */
extern const int ist_demo_order_range[2][2], ist_demo_zip_range[2][2];

/* Appends one message and its record. test: from the held-out half. */
void ist_demo_make(ist_buf *message, ist_buf *json, bool test, ist_rng *r);

typedef struct ist_demo_sizes {
  int64_t train, valid, test;
} ist_demo_sizes;
/* Writes train.jsonl, valid.jsonl and test.jsonl ({"messages": [...]} lines) into
 * `dir`; no message occurs twice in the three. The same seed gives the same bytes. */
ist_status ist_demo_write(const char *dir, ist_demo_sizes sizes, uint64_t seed, ist_error *err);

/* NULL, or a phrase or value that stands in both halves. */
const char *ist_demo_overlap(void);

#endif
