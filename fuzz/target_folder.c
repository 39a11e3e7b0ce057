/* A Hugging Face folder as a model: config.json, and a line for every tensor of model.safetensors,
 * "NAME TYPE ROWS COLS ..."; the header and some values are made from them, so that what is
 * tested is how names, shapes and the configuration fit together. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "use_model.h"

enum { HEADER = 64 << 10, DATA = 1 << 20 };

typedef struct tensors {
  char file[8 + HEADER + DATA];
  size_t header, data; /* bytes so far */
  unsigned char values[DATA];
} tensors;

/* Some finite values near 0.06. */
static void put_values(unsigned char *p, size_t bytes, const char *type) {
  bool wide = strcmp(type, "F32") == 0;
  for (size_t i = 0; i < bytes; i++) p[i] = (unsigned char)(i * 41);
  if (strcmp(type, "F16") != 0 && strcmp(type, "BF16") != 0 && !wide) return;
  for (size_t i = wide ? 3 : 1; i < bytes; i += wide ? 4 : 2) {
    p[i] = type[0] == 'F' && !wide ? 0x2b : 0x3d;
    if (i % 8 > 3) p[i] |= 0x80;
  }
}

/* 2 for what is no type of safetensors. */
static size_t type_bytes(const char *name) {
  int type = ist_dtype_from_name(strcmp(name, "BOOL") == 0 ? "U8" : name);
  bool plain = type >= 0 && !ist_dtype_is_quantised((ist_dtype)type);
  return plain ? (size_t)ist_dtype_get((ist_dtype)type)->bytes : 2;
}

/* One line; what cannot be a tensor of moderate size is left out. */
static void add(tensors *t, const char *line) {
  char name[200], type[8];
  int read = 0;
  if (sscanf(line, "%199[A-Za-z0-9_.] %7[A-Z0-9_]%n", name, type, &read) != 2) return;
  char shape[100] = "";
  size_t bytes = type_bytes(type), len = 0, dim;
  const char *p = line + read;
  for (int n; len < 60 && sscanf(p, " %9zu%n", &dim, &n) == 1; p += n) {
    len += (size_t)snprintf(shape + len, sizeof shape - len, "%s%zu", len ? "," : "", dim);
    if (dim && bytes > DATA / dim) return;
    bytes *= dim;
  }
  if (bytes > DATA - t->data || HEADER - t->header < 500) return;
  t->header +=
      (size_t)snprintf(t->file + 8 + t->header, HEADER - t->header,
                       "%c\"%s\":{\"dtype\":\"%s\",\"shape\":[%s],\"data_offsets\":[%zu,%zu]}",
                       t->header ? ',' : '{', name, type, shape, t->data, t->data + bytes);
  put_values(t->values + t->data, bytes, type);
  t->data += bytes;
}

static void write_tensors(fuzz_part part) {
  static tensors t;
  t.header = t.data = 0;
  char *text = part.n ? strndup((const char *)part.p, part.n) : strdup("");
  if (!text) abort();
  for (char *line = text, *rest; line; line = rest) {
    rest = strchr(line, '\n');
    if (rest) *rest++ = '\0';
    add(&t, line);
  }
  free(text);
  memcpy(t.file + 8 + t.header, t.header ? "}" : "{}", 2);
  t.header += t.header ? 1 : 2;
  const uint64_t length = t.header;
  memcpy(t.file, &length, sizeof length);
  memcpy(t.file + 8 + t.header, t.values, t.data);
  fuzz_file("model.safetensors", t.file, 8 + t.header + t.data);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  fuzz_part part[2];
  fuzz_parts(data, size, part, 2);
  fuzz_part_file("config.json", part[0]);
  write_tensors(part[1]);
  open_and_use(fuzz_folder(), size % 2 ? IST_BACKEND_CPU : IST_BACKEND_REFERENCE);
  return 0;
}
