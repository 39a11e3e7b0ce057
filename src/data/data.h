/* Training data: files -> records -> text by template -> tokens and loss mask
 * -> samples; samples -> packed batches. */
#ifndef IST_DATA_DATA_H
#define IST_DATA_DATA_H

#include "base/rng.h"
#include "data/store.h"
#include "tokenizer/tokenizer.h"

typedef enum ist_template {
  IST_TEMPLATE_AUTO,  /* the model's own where it has one, else chatml where the vocabulary
                         has its tokens, else alpaca */
  IST_TEMPLATE_MODEL, /* the chat template that came with the model */
  IST_TEMPLATE_CHATML,
  IST_TEMPLATE_ALPACA,
  IST_TEMPLATE_PAPER, /* the IST authors' prompt, exact white space; EOS appended
                         only where it fits under max_tokens */
  IST_TEMPLATE_NONE   /* the texts as they are */
} ist_template;

/* All replies, the whole text, or the last reply only. */
typedef enum ist_loss_on { IST_LOSS_COMPLETION, IST_LOSS_ALL, IST_LOSS_LAST } ist_loss_on;
int ist_loss_on_from_name(const char *name); /* completion, all, last; -1: unknown */

typedef enum ist_role {
  IST_ROLE_SYSTEM,
  IST_ROLE_USER,
  IST_ROLE_ASSISTANT,
  IST_ROLE_TOOL /* what a tool answered */
} ist_role;
typedef struct ist_message {
  ist_role role;
  char *text; /* "" where there is no content */
  size_t len;
  char *more; /* its other fields (tool_calls, ...) as a JSON object, content null; NULL: none */
} ist_message;

/* One record: messages in order; prompt/completion and instruction/input/output
 * become user + assistant; text becomes one assistant message of a `plain` record,
 * which every template leaves as it is. For the alpaca and paper templates
 * instruction and input are kept apart. */
typedef struct ist_record {
  int64_t line; /* 1-based line (.jsonl) or index + 1 (.json) */
  int64_t n_messages;
  ist_message *message;
  bool plain;                /* a `text` record */
  char *instruction, *input; /* NULL when the record had none; "" counts as none for input */
  /* Variables of the model's template as a JSON object: tools, documents and the fields of
   * chat_template_kwargs; NULL: none. */
  char *variables;
  bool tools; /* tools, calls or their answers, which only the model's template can show */
} ist_record;

typedef struct ist_records {
  ist_record *p;
  int64_t n, cap;
  char *path;
} ist_records;

void ist_record_free(ist_record *r); /* its line stays */
/* Of the first n messages and the variables, about as many as they take of memory. */
size_t ist_record_bytes(const ist_record *r, int64_t n);

/* Reads a data file whole; what files may look like is in reader.h. The kind is that
 * of the first record, the first that fits of: messages, conversations (ShareGPT),
 * prompt + completion, instruction (+ input) + output, text. Other fields are
 * ignored. Errors name file, line, field, found, expected; on error *out is empty. */
ist_status ist_records_read(ist_records *out, const char *path, ist_error *err);
void ist_records_free(ist_records *r);

/* AUTO becomes one of the others; chatml is refused where the vocabulary lacks its
 * tokens, the model's own where there is none that can be read. */
ist_status ist_template_resolve(ist_template *t, const ist_tokenizer *tok, ist_error *err);
const char *ist_template_name(ist_template t);
int ist_template_from_name(const char *name); /* -1: unknown */

/* A tokenised record. Token t is a target of token t-1; mask[t] is 1 when it is
 * supervised, else 0 (mask[0] always). The last token is supervised: what follows
 * the last supervised token cannot matter and is left out. */
typedef struct ist_sample {
  int32_t *ids;
  uint8_t *mask;    /* in the block of ids */
  int32_t n;        /* tokens */
  int32_t n_target; /* supervised tokens */
  int16_t source;   /* the file it is from: ist_data_options */
  bool stored;      /* its block is in the dataset's store */
  int64_t line;
} ist_sample;

typedef struct ist_dataset {
  ist_sample *p;
  int64_t n, cap;
  int64_t n_cut;     /* samples cut to max_tokens */
  int64_t n_dropped; /* samples without a supervised token after the cut */
  int64_t n_tokens, n_target;
  int64_t max_len;
  ist_store store;
} ist_dataset;

typedef struct ist_data_options {
  ist_template tmpl; /* resolved */
  time_t now;        /* the date that a template shows: ist_jinja_now; 0: the clock, every time */
  ist_loss_on loss_on;
  int64_t max_tokens;
  int64_t limit;      /* of each file; 0: all records */
  int16_t source;     /* what the samples say of their file */
  const char *folder; /* for samples that memory should not hold; NULL: hold all; borrowed */
} ist_data_options;

/* Samples of a dataset that stay in memory before its store begins a file. */
#define IST_DATASET_HELD (64 << 20)

/* Tokenises every record (on all threads). User text never becomes a control
 * token. A sample is cut to its first max_tokens tokens. No sample left is an
 * error. On error *out is empty, but for n_cut and n_dropped, which are 0 where a record was
 * refused. */
ist_status ist_dataset_build(ist_dataset *out, const ist_records *r, const ist_tokenizer *tok,
                             const ist_data_options *opt, ist_error *err);
/* The same from a file, a stretch of records at a time, behind the samples that are there
 * (zero-initialise). Samples have their addresses after ist_dataset_ready. Free on error too. */
ist_status ist_dataset_append(ist_dataset *d, const char *path, const ist_tokenizer *tok,
                              const ist_data_options *opt, ist_error *err);
ist_status ist_dataset_ready(ist_dataset *d, ist_error *err);
void ist_dataset_free(ist_dataset *d);

/* The prompt of a record as ids: the tokens that a sample has before the text of
 * its last message, when that is the assistant's; its text is then the expected
 * answer (borrowed from the record). When the last message is not the assistant's,
 * the prompt asks for a reply to it, and *answer is NULL. `now`: ist_data_options. */
ist_status ist_prompt_build(ist_ids *out, const ist_record *r, const ist_tokenizer *tok,
                            ist_template tmpl, time_t now, const char **answer, ist_error *err);

/* Seeded split of 0..n-1 into train, validation and probe index lists, disjoint.
 * Returns lists in fresh memory owned by the caller (ist_split_free). */
typedef struct ist_split {
  int64_t *train, *valid, *probe;
  int64_t n_train, n_valid, n_probe;
  bool probe_is_train;
} ist_split;
/* n_valid, n_probe < 0: defaults (validation min(120, 10 %): a caller that has a
 * validation file passes 0; probe min(256, max(16, 2 %)), but below 200 records the
 * training set). n_probe 0: the probe set is a copy of the training set, and
 * probe_is_train says so. At least one record must be left for training. */
ist_status ist_split_make(ist_split *out, int64_t n, int64_t n_valid, int64_t n_probe,
                          uint64_t seed, ist_error *err);
void ist_split_free(ist_split *s);

/* xxh64 over ids and masks: notices changed data on resume. */
uint64_t ist_dataset_hash(const ist_dataset *d);

#endif
