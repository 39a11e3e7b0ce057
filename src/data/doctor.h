/* The data doctor: what training would see of a file, and what it would trip over. */
#ifndef IST_DATA_DOCTOR_H
#define IST_DATA_DOCTOR_H

#include "data/data.h"

#define IST_DOCTOR_BINS  24 /* lengths: bin b holds [2^(b-1), 2^b) tokens, bin 0 none */
#define IST_DOCTOR_NOTES 20 /* of each kind are kept, the first ones */
/* Of refused records the file is not read further: a small packed file can hold any number. */
#define IST_DOCTOR_REFUSED 100000

/* Something at a place: a record that training refuses (with its words), that is a copy
 * of the one on line `other`, or whose answer is empty. */
typedef struct ist_doctor_note {
  int64_t line, other;
  char *text;
} ist_doctor_note;
typedef struct ist_doctor_notes {
  ist_doctor_note p[IST_DOCTOR_NOTES];
  int64_t n; /* all of them, kept or not */
} ist_doctor_notes;

typedef struct ist_doctor {
  int64_t records; /* that could be read, whether or not they can be put into tokens */
  ist_doctor_notes failed, copies, empty;
  int64_t cut, dropped; /* as in ist_dataset */
  int64_t tokens, targets, longest;
  int64_t bin[IST_DOCTOR_BINS];
  char *stopped;     /* why the file could not be read to its end; NULL: it was */
  ist_dataset shown; /* the first samples, for a look at their tokens */
} ist_doctor;

/* Reads the whole file and goes on behind bad records; shows the first `show`
 * samples. Bad data is no error once the file is open, also where it cannot be read
 * further. Free in any case. */
ist_status ist_doctor_read(ist_doctor *out, const char *path, const ist_tokenizer *tok,
                           const ist_data_options *opt, int64_t show, ist_error *err);
void ist_doctor_free(ist_doctor *d);

#endif
