#include "train/state.h"

#include <string.h>

#include "base/mem.h"

ist_status ist_state_add(ist_state *s, const char *name, ist_dtype type, int n_dims,
                         const int64_t *shape, void *data, ist_error *err) {
  IST_ASSERT(n_dims >= 1 && n_dims <= IST_STATE_DIMS && !ist_state_find(s, name));
  IST_TRY(ist_grow(&s->item, &s->cap, s->n + 1, sizeof *s->item, err));
  ist_state_item *item = &s->item[s->n++];
  *item = (ist_state_item){.name = name, .type = type, .n_dims = n_dims, .data = data};
  int64_t elements = 1;
  for (int i = 0; i < n_dims; i++) {
    item->shape[i] = shape[i];
    elements *= shape[i];
  }
  item->bytes = ist_dtype_bytes(type, elements);
  return IST_OK;
}

static ist_state_item *find(const ist_state *s, const char *name) {
  for (int64_t i = 0; i < s->n; i++) {
    if (strcmp(s->item[i].name, name) == 0) return &s->item[i];
  }
  return NULL;
}

void ist_state_on_disk(ist_state *s, const char *name) {
  find(s, name)->on_disk = true;
}

const ist_state_item *ist_state_find(const ist_state *s, const char *name) {
  return find(s, name);
}

void ist_state_free(ist_state *s) {
  ist_free(s->item);
  *s = (ist_state){0};
}
