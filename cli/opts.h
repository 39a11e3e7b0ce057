/* The command line: opts.def as a table, and the parser that reads it. */
#ifndef IST_CLI_OPTS_H
#define IST_CLI_OPTS_H

#include "ist.h"

typedef enum ist_command_id {
#define COMMAND(id, name, arguments, most, run, summary, detail, example) IST_CMD_##id,
#include "opts.def"
  IST_N_COMMANDS
} ist_command_id;

typedef struct ist_command {
  const char *name, *arguments, *summary, *detail, *example;
  int most; /* arguments beside the options */
} ist_command;
extern const ist_command ist_commands[IST_N_COMMANDS];

/* Everything a command line says. Strings are borrowed from argv, or from the
 * settings that --resume read, which ist_args_free gives back. */
typedef struct ist_args {
  ist_command_id command;
  const char *argument; /* what stood beside the options, or NULL */
  const char *second;   /* the second of two, or NULL */
  ist_train_options train;
  ist_eval_options eval;
  ist_generate_options generate;
  ist_merge_options merge;
  const char *model_path, *base_type, *base_cache, *adapter, *compute, *backend, *preset,
      *resume_dir;
  const char *task, *tokens, *logits_out, *examples, *shape, *type, *made_path;
  ist_shape sizes; /* of make-model; 0: the shape's */
  int64_t threads, report_every, show, data_show, context;
  uint64_t seed;
  double factor, seconds;
  bool layers, ids, ends, chat, json_lines, special, json, all, families, quiet, verbose, help,
      overwrite_file;
  void *settings; /* parsed settings.json */
} ist_args;

typedef enum ist_opt_kind {
  IST_OPT_GROUP, /* a heading, not an option */
  IST_OPT_FLAG,
  IST_OPT_SWITCH,
  IST_OPT_INT,
  IST_OPT_SEED,
  IST_OPT_SIZE,
  IST_OPT_REAL,
  IST_OPT_TEXT,
  IST_OPT_CHOICE,
  IST_OPT_FILE,
  IST_OPT_DIR
} ist_opt_kind;

typedef struct ist_opt {
  unsigned commands; /* bit i: known to ist_commands[i] */
  ist_opt_kind kind;
  const char *name;
  char letter;
  size_t offset;   /* in ist_args */
  const char *key; /* in settings.json */
  const char *metavar, *domain, *automatic, *help;
} ist_opt;
extern const ist_opt ist_opts[];
extern const int ist_n_opts;

/* The `automatic` of an option that must be given. */
#define IST_OPT_REQUIRED "required"

/* Every field at its default. */
void ist_args_init(ist_args *a);
/* Parses argv[1..]: a command, then its options and arguments in any order.
 * What --resume finds in a run's settings comes first, then the preset, then
 * the line. With --help the rest goes unchecked. Free in any case. */
ist_status ist_args_parse(ist_args *a, int argc, char **argv, ist_error *err);
void ist_args_free(ist_args *a);

/* Stores `text` in the option's field. `where` names the option in errors. */
ist_status ist_opt_set(ist_args *a, const ist_opt *o, const char *text, const char *where,
                       ist_error *err);
/* The option of a command with this name (or this settings key), or NULL. */
const ist_opt *ist_opt_find(ist_command_id command, const char *name);
const ist_opt *ist_opt_find_key(ist_command_id command, const char *key);
static inline bool ist_opt_takes_value(const ist_opt *o) {
  return o->kind > IST_OPT_SWITCH;
}
/* "one of linear, cosine, constant", "a whole number from 1 to 65536", ... */
void ist_opt_expected(const ist_opt *o, char *out, size_t cap);
/* The default in force as text ("" where there is none to speak of). */
void ist_opt_default(const ist_opt *o, const ist_args *defaults, char *out, size_t cap);
/* The i-th alternative of a domain a|b|c and its length, or NULL past the end. */
const char *ist_opt_choice(const ist_opt *o, int i, size_t *len);

/* -1 when there is no such command. */
int ist_command_find(const char *name);

/* Takes over what DIR/settings.json says about a run: every option of train. */
ist_status ist_settings_apply(ist_args *a, const char *dir, ist_error *err);

/* Fills `err` (may be NULL) like the library does and returns `code`. The hint
 * is cleared; ist_cli_hint adds one. */
ist_status ist_cli_fail(ist_error *err, ist_status code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void ist_cli_hint(ist_error *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
