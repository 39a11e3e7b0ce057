/* A GGUF in two files. */
#ifndef IST_TESTS_API_SPLIT_H
#define IST_TESTS_API_SPLIT_H

#include <stdio.h>

#include "folder.h"
#include "format/gguf.h"

/* Part `no` of two of a model: its keys in the first, every other tensor in each. */
static inline void write_part(const ist_gguf *g, const char *path, int no) {
  ist_error err = {0};
  ist_gguf_writer *w = ist_gguf_writer_new();
  for (int64_t i = 0; no == 0 && i < g->n_kv; i++) ist_gguf_put_kv(w, &g->kv[i]);
  ist_gguf_put_u32(w, "split.no", (uint32_t)no);
  ist_gguf_put_u32(w, "split.count", 2);
  ist_gguf_put_u32(w, "split.tensors.count", (uint32_t)g->n_tensors);
  for (int64_t i = no; i < g->n_tensors; i += 2) {
    const ist_gguf_tensor *t = &g->tensor[i];
    char name[96];
    snprintf(name, sizeof name, "%.*s", (int)t->name.len, t->name.p);
    ist_gguf_put_tensor_data(w, name, t->type, t->n_dims, t->ne, t->data);
  }
  MUST(ist_gguf_write(w, path, &err));
  ist_gguf_writer_free(w);
}

#endif
