/* modules_to_save of a run: embedding and head that the adapter it began with brings whole. They
 * stand in the base's place and do not train, so the run keeps them once, beside its checkpoints,
 * and the settings in each checkpoint name their checksums. */
#ifndef IST_TRAIN_SAVED_MODULES_H
#define IST_TRAIN_SAVED_MODULES_H

#include <jansson.h>

#include "model/model.h"
#include "train/checkpoint.h"

#define IST_SAVED_MODULES "modules_to_save.safetensors"

/* Checksums as text, "" where the base's own matrix is in use. */
typedef struct ist_saved_hashes {
  char of[IST_OUTER_COUNT][IST_CHECKSUM];
} ist_saved_hashes;

ist_saved_hashes ist_saved_modules_hash(const ist_model *m);
/* Adds "modules_to_save" to a run's settings, where there are any. */
void ist_saved_modules_to_json(json_t *settings, const ist_saved_hashes *hashes);
/* Writes DIR/modules_to_save.safetensors, or removes that of an earlier run. */
ist_status ist_saved_modules_write(const ist_model *m, const char *dir, ist_error *err);
/* Puts the modules of the run with these settings on the model, in place of any others. */
ist_status ist_saved_modules_read(ist_model *m, const char *dir, const json_t *settings,
                                  ist_error *err);

#endif
