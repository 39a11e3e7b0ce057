/* Several data files, and how often an epoch visits the samples of each. */
#ifndef IST_DATA_MIX_H
#define IST_DATA_MIX_H

#include "data/data.h"

#define IST_MAX_SOURCES 64

/* A file of a mixture. */
typedef struct ist_source_file {
  char *path;
  double weight; /* visits an epoch: 2 twice, 0.5 every second epoch */
} ist_source_file;

typedef struct ist_sources {
  ist_source_file file[IST_MAX_SOURCES];
  int n;
} ist_sources;

/* "a.jsonl" or "a.jsonl=2,b.csv=0.5": files with a comma between them, each with its
 * weight (1) behind an '='. A text that is the name of a file is that file. */
ist_status ist_sources_parse(ist_sources *out, const char *text, ist_error *err);
void ist_sources_free(ist_sources *s);

/* Samples an epoch visits: of n ascending indices `list`, by the weights of their files. */
int64_t ist_mix_size(const ist_sources *s, const ist_dataset *d, const int64_t *list, int64_t n);
/* The list as epochs go round it: files that an epoch does not visit just once are shuffled. */
void ist_mix_round(int64_t *round, const ist_sources *s, const ist_dataset *d, const int64_t *list,
                   int64_t n, uint64_t seed);
/* The order of an epoch: out (ist_mix_size) samples. Every epoch goes on in the round of a
 * file where the one before stopped, so that of a file with weight 0.5 it takes the other
 * half. With weights of 1 it is a permutation of the list. */
void ist_mix_order(int64_t *out, const ist_sources *s, const ist_dataset *d, const int64_t *round,
                   int64_t n, uint64_t seed, int64_t epoch);

#endif
