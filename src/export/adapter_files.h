/* Adapters in and out of a model's terms: HF PEFT directories and GGUF adapters. */
#ifndef IST_EXPORT_ADAPTER_FILES_H
#define IST_EXPORT_ADAPTER_FILES_H

#include "format/peft_dir.h"
#include "model/adapter_io.h"
#include "model/model.h"

/* Writes DIR/adapter_config.json, DIR/adapter_model.safetensors (Hugging Face's
 * names and row order) and DIR/adapter.gguf (llama.cpp's; removed where this adapter has none).
 * Each file atomically. */
ist_status ist_adapter_save(const char *dir, const ist_adapters *ad, const ist_model *m,
                            ist_error *err);

/* Reads a PEFT directory, or a file as a GGUF adapter, that fits the model into `ad`,
 * parameters in fresh memory (*params, owned by the caller; the places too), and an embedding or
 * head that it brings whole and other than the base's (NULL: none; owned too). Every tensor must
 * have its place and every place its tensor. */
ist_status ist_adapter_load(ist_adapters *ad, unsigned char **params, float *whole[IST_OUTER_COUNT],
                            const char *path, const ist_model *m, ist_error *err);

/* For ist_adapter_load: an open directory of an adapter that is no update of weights (bottlenecks,
 * prefixes); dir: its path. */
ist_status ist_adapter_load_parts(ist_adapters *ad, unsigned char **params, const ist_peft_dir *d,
                                  const char *dir, const ist_model *m, ist_error *err);

#endif
