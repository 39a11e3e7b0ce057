/* Checkpoints: RUN/checkpoints/step-00000123/ with state.safetensors (every tensor of
 * the registry) and state.json (settings, step, checksums of both files).
 * Written to a temporary directory, synced, renamed: a checkpoint is there whole or
 * not at all, and one that was torn or changed later is recognised. */
#ifndef IST_TRAIN_CHECKPOINT_H
#define IST_TRAIN_CHECKPOINT_H

#include <jansson.h>
#include <stdint.h>

#include "train/state.h"

enum { IST_CHECKSUM = 17 }; /* 64 bits in hexadecimal, and a NUL */

/* A hash as 16 digits. */
void ist_hash_text(char text[IST_CHECKSUM], uint64_t hash);
/* XXH64 as text: of what a run writes, to know it again. */
void ist_checksum(char text[IST_CHECKSUM], const void *p, size_t bytes);

/* Saves and then removes all but the newest `keep` >= 1 checkpoints. Those of later
 * steps go as well: the run has gone back before them, or they are another run's.
 * `settings` is borrowed and stored as it is. */
ist_status ist_checkpoint_save(const char *run, const ist_state *s, json_t *settings, int64_t step,
                               int64_t keep, ist_error *err);
/* Removes the checkpoints of an earlier run, where there are any, and nothing else. */
ist_status ist_checkpoint_clear(const char *run, ist_error *err);
/* Whether there is any, whole or not. */
bool ist_checkpoint_exists(const char *run);
/* Path (owned by the caller) of the newest checkpoint whose checksums hold;
 * damaged ones are passed over with a line in the log. None: an error. */
ist_status ist_checkpoint_find_newest(const char *run, char **path, ist_error *err);
/* What the registry's int64 `name` is in each checkpoint there is (fresh memory, freed by the
 * caller also after an error); one that cannot be read is passed over. */
ist_status ist_checkpoint_values(const char *run, const char *name, int64_t **values, int64_t *n,
                                 ist_error *err);
/* The settings of a checkpoint: new reference. */
ist_status ist_checkpoint_settings(const char *path, json_t **settings, ist_error *err);
/* Copies the tensors into the registry. A tensor that is missing, or of another
 * type or shape, or that the registry does not have, is an error that names it,
 * and then nothing is copied. */
ist_status ist_checkpoint_load(const char *path, const ist_state *s, ist_error *err);

#endif
