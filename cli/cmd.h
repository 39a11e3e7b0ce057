/* The commands: each runs with a parsed line and returns an exit status. */
#ifndef IST_CLI_CMD_H
#define IST_CLI_CMD_H

#include <jansson.h>
#include <stdio.h>

#include "opts.h"

#define COMMAND(id, name, arguments, most, run, summary, detail, example) int run(ist_args *a);
#include "opts.def"

/* Opens the model of the line with its --compute, --backend, --threads and
 * --adapter. The caller closes it. */
ist_model_options ist_cmd_model_options(const ist_args *a);
ist_status ist_cmd_open_model(ist_model **out, const ist_args *a, ist_error *err);

/* The argument of the line, or all of standard input; free with free(). */
char *ist_cmd_read_argument(const ist_args *a, size_t *len, ist_error *err);

/* A file of results, written beside its final name, which it takes when it is whole. A device or
 * pipe is written as it is. One at a time. */
typedef struct ist_outfile {
  FILE *to;
  const char *path; /* borrowed */
  bool temporary;
} ist_outfile;
ist_status ist_outfile_open(ist_outfile *f, const char *path, ist_error *err);
/* keep: a write that failed is an error; else what was written is removed. */
ist_status ist_outfile_close(ist_outfile *f, bool keep, ist_error *err);
/* Removes what is not whole yet; safe to call in a signal handler. */
void ist_outfile_discard(void);

/* A mapped file that is truncated, or a file that may not grow, ends the process with an error
 * line, not a signal; a signal that ends it leaves no temporary file. */
void ist_signals_guard(void);
/* From now on SIGINT, SIGTERM and SIGHUP are noted (`notice` goes to stderr at once); a
 * second one ends the process. A closed pipe is no reason to end. */
void ist_signals_catch(const char *notice);
/* From now on a reader of the output that goes away does not end the process. */
void ist_signals_outlive_reader(void);
/* The signal noted, or 0. */
int ist_signals_caught(void);
void ist_signals_release(void);

/* Parses JSON text of the library; the caller frees with json_decref. */
ist_status ist_cmd_read_json(json_t **out, const char *json, ist_error *err);
/* Shows an object as readable tables on stdout; `all` merges and shortens nothing,
 * `bars` draws what is measured in bytes. */
void ist_cmd_show(const json_t *root, bool all, bool bars);

#endif
