#include "train/saved_modules.h"

#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "format/safetensors.h"

static const char *const names[IST_OUTER_COUNT] = {"embedding", "head"};

static size_t bytes_of(const ist_model *m) {
  return (size_t)(m->config.V * ist_embed_width(&m->config)) * sizeof(float);
}

ist_saved_hashes ist_saved_modules_hash(const ist_model *m) {
  ist_saved_hashes hashes = {0};
  for (int i = 0; i < IST_OUTER_COUNT; i++)
    if (m->whole[i]) ist_checksum(hashes.of[i], m->whole[i], bytes_of(m));
  return hashes;
}

void ist_saved_modules_to_json(json_t *settings, const ist_saved_hashes *hashes) {
  json_t *o = json_object();
  for (int i = 0; i < IST_OUTER_COUNT; i++)
    if (hashes->of[i][0]) json_object_set_new(o, names[i], json_string(hashes->of[i]));
  if (json_object_size(o)) json_object_set(settings, "modules_to_save", o);
  json_decref(o);
}

ist_status ist_saved_modules_write(const ist_model *m, const char *dir, ist_error *err) {
  ist_st_item items[IST_OUTER_COUNT];
  int64_t n = 0;
  for (int i = 0; i < IST_OUTER_COUNT; i++)
    if (m->whole[i])
      items[n++] = (ist_st_item){.name = names[i],
                                 .type = IST_F32,
                                 .n_dims = 2,
                                 .shape = {m->config.V, ist_embed_width(&m->config)},
                                 .data = m->whole[i]};
  char *path = ist_path_join(dir, IST_SAVED_MODULES);
  if (!path) return ist_fail_nomem(err, "path", strlen(dir));
  ist_status s =
      n ? ist_safetensors_write(path, items, n, NULL, 0, err) : ist_remove_file(path, err);
  ist_free(path);
  return s;
}

static ist_status read_one(float **out, const ist_safetensors *file, int i, const ist_model *m,
                           const char *expected, ist_error *err) {
  const ist_st_tensor *t = ist_safetensors_find(file, names[i]);
  size_t bytes = bytes_of(m);
  if (!t || t->type != IST_F32 || t->bytes != (int64_t)bytes)
    return ist_fail(err, IST_ERR_MISMATCH, "%s: found no tensor \"%s\" of %zu bytes", file->path,
                    names[i], bytes);
  *out = ist_calloc(bytes, 1);
  if (!*out) return ist_fail_nomem(err, names[i], bytes);
  memcpy(*out, t->data, bytes);
  char found[IST_CHECKSUM];
  ist_checksum(found, *out, bytes);
  if (strcmp(found, expected) == 0) return IST_OK;
  return ist_fail(err, IST_ERR_FORMAT, "%s: tensor \"%s\" has checksum %s, expected '%s'",
                  file->path, names[i], found, expected);
}

static ist_status read_all(float *whole[IST_OUTER_COUNT], const ist_model *m, const char *path,
                           const json_t *hashes, ist_error *err) {
  ist_safetensors *file;
  IST_TRY(ist_safetensors_open(&file, path, err));
  ist_status s = IST_OK;
  for (int i = 0; s == IST_OK && i < IST_OUTER_COUNT; i++) {
    const char *expected = json_string_value(json_object_get(hashes, names[i]));
    if (expected) s = read_one(&whole[i], file, i, m, expected, err);
  }
  ist_safetensors_close(file);
  return s;
}

ist_status ist_saved_modules_read(ist_model *m, const char *dir, const json_t *settings,
                                  ist_error *err) {
  const json_t *hashes = json_object_get(settings, "modules_to_save");
  float *whole[IST_OUTER_COUNT] = {0};
  char *path = ist_path_join(dir, IST_SAVED_MODULES);
  ist_status s = path ? IST_OK : ist_fail_nomem(err, "path", strlen(dir));
  if (s == IST_OK && hashes) s = read_all(whole, m, path, hashes, err);
  ist_free(path);
  for (int i = 0; i < IST_OUTER_COUNT; i++) ist_free(s == IST_OK ? m->whole[i] : whole[i]);
  if (s == IST_OK) ist_model_set_whole(m, whole);
  return s;
}
