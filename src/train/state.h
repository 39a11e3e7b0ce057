/* The registry of everything a run must not lose. The checkpoint, `ist inspect`
 * and the tests walk it; nothing that matters is saved anywhere else. */
#ifndef IST_TRAIN_STATE_H
#define IST_TRAIN_STATE_H

#include "base/dtype.h"
#include "base/error.h"

#define IST_STATE_DIMS 4

typedef struct ist_state_item {
  const char *name; /* borrowed */
  ist_dtype type;
  int n_dims;
  int64_t shape[IST_STATE_DIMS];
  void *data; /* host memory, borrowed while the registry lives */
  int64_t bytes;
  bool on_disk; /* data is a mapped scratch file: its pages need not stay */
} ist_state_item;

/* Zero-initialise; free with ist_state_free (which leaves the data alone). */
typedef struct ist_state {
  ist_state_item *item;
  int64_t n, cap;
} ist_state;

/* Registers a tensor of 1 to IST_STATE_DIMS dimensions; a scalar is one of shape (1).
 * Names are unique; name and data are borrowed until ist_state_free. */
ist_status ist_state_add(ist_state *s, const char *name, ist_dtype type, int n_dims,
                         const int64_t *shape, void *data, ist_error *err);
/* Says that the data of a registered tensor is a mapped scratch file. */
void ist_state_on_disk(ist_state *s, const char *name);
const ist_state_item *ist_state_find(const ist_state *s, const char *name);
void ist_state_free(ist_state *s);

#endif
