#include "data/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include "base/mem.h"

#define PIECE   65536                /* bytes asked of the file at a time */
#define LARGEST ((size_t)4096 << 20) /* what ist_stream_rest keeps */

/* Text packs to a tenth, records that resemble each other to a fiftieth; what unpacks to more than
 * this many times its size, and to more than that, is made to fill memory or disk. */
#define MOST_TIMES   256
#define MOST_UNASKED ((int64_t)256 << 20)

typedef enum packing { PLAIN, GZIP, ZSTD } packing;

struct ist_stream {
  char *path;
  int fd;
  packing packing;
  z_stream gz;
  ZSTD_DStream *zstd;
  bool unpacker, inside; /* the unpacker is there; it stands inside a member or frame */
  unsigned char in[PIECE];
  size_t in_at, in_len; /* packed bytes that were read and not yet unpacked */
  char *text;           /* unpacked text [at, len) waits to be taken */
  size_t at, len;
  int64_t cap, lines;       /* room for text; lines that were taken */
  int64_t packed, unpacked; /* bytes so far */
  bool ended;
};

static ist_status fail_packed(const ist_stream *s, const char *what, ist_error *err) {
  return ist_fail(err, IST_ERR_DATA, "%s: %s, found %s", s->path,
                  s->packing == GZIP ? "not whole gzip data" : "not whole Zstandard data", what);
}

/* Reads packed (or plain) bytes into `to`; 0 at the end of the file. */
static ist_status read_some(const ist_stream *s, void *to, size_t most, size_t *got,
                            ist_error *err) {
  ssize_t n;
  do n = read(s->fd, to, most);
  while (n < 0 && errno == EINTR);
  if (n < 0) return ist_fail(err, IST_ERR_IO, "%s: %s", s->path, strerror(errno));
  *got = (size_t)n;
  return IST_OK;
}

static ist_status need_input(ist_stream *s, bool *end, ist_error *err) {
  *end = false;
  if (s->in_at < s->in_len) return IST_OK;
  s->in_at = 0;
  IST_TRY(read_some(s, s->in, sizeof s->in, &s->in_len, err));
  *end = s->in_len == 0;
  s->packed += (int64_t)s->in_len;
  if (*end && s->inside) return fail_packed(s, "its end too early", err);
  return IST_OK;
}

/* One call of the unpacker: from `in` to `to`; members and frames may follow each other. */
static ist_status inflate_some(ist_stream *s, char *to, size_t most, size_t *got, ist_error *err) {
  s->gz.next_in = s->in + s->in_at;
  s->gz.avail_in = (uInt)(s->in_len - s->in_at);
  s->gz.next_out = (unsigned char *)to;
  s->gz.avail_out = (uInt)most;
  int rc = inflate(&s->gz, Z_NO_FLUSH);
  s->in_at = s->in_len - s->gz.avail_in;
  *got = most - s->gz.avail_out;
  s->inside = rc != Z_STREAM_END;
  if (rc == Z_STREAM_END) rc = inflateReset(&s->gz);
  if (rc == Z_MEM_ERROR) return ist_fail_nomem(err, s->path, 0);
  if (rc != Z_OK && rc != Z_BUF_ERROR)
    return fail_packed(s, s->gz.msg ? s->gz.msg : "damaged data", err);
  return IST_OK;
}

static ist_status unzstd_some(ist_stream *s, char *to, size_t most, size_t *got, ist_error *err) {
  ZSTD_inBuffer in = {s->in, s->in_len, s->in_at};
  ZSTD_outBuffer out = {to, most, 0};
  size_t rc = ZSTD_decompressStream(s->zstd, &out, &in);
  s->in_at = in.pos;
  *got = out.pos;
  s->inside = rc != 0;
  if (ZSTD_isError(rc)) return fail_packed(s, ZSTD_getErrorName(rc), err);
  return IST_OK;
}

/* More text behind [at, len); sets `ended` where there is none. */
static ist_status fill(ist_stream *s, ist_error *err) {
  if (s->at > 0) {
    memmove(s->text, s->text + s->at, s->len - s->at);
    s->len -= s->at;
    s->at = 0;
  }
  IST_TRY(ist_grow(&s->text, &s->cap, (int64_t)(s->len + PIECE), 1, err));
  size_t got = 0;
  char *to = s->text + s->len;
  if (s->packing == PLAIN) {
    IST_TRY(read_some(s, to, PIECE, &got, err));
    s->ended = got == 0;
  }
  while (s->packing != PLAIN && got == 0 && !s->ended) {
    IST_TRY(need_input(s, &s->ended, err));
    if (s->ended) break;
    IST_TRY(s->packing == GZIP ? inflate_some(s, to, PIECE, &got, err)
                               : unzstd_some(s, to, PIECE, &got, err));
  }
  s->len += got;
  s->unpacked += (int64_t)got;
  if (s->packing != PLAIN && s->unpacked > MOST_UNASKED && s->unpacked / MOST_TIMES > s->packed)
    return ist_fail(err, IST_ERR_DATA,
                    "%s: behind line %lld: %lld bytes unpack to %lld, more than %d times as many",
                    s->path, (long long)s->lines, (long long)s->packed, (long long)s->unpacked,
                    MOST_TIMES);
  return IST_OK;
}

/* What the first bytes say; plain text keeps them as text. */
static ist_status begin(ist_stream *s, ist_error *err) {
  static const unsigned char gzip[] = {0x1f, 0x8b}, zstd[] = {0x28, 0xb5, 0x2f, 0xfd};
  IST_TRY(read_some(s, s->in, sizeof s->in, &s->in_len, err));
  if (s->in_len == 0) return ist_fail(err, IST_ERR_DATA, "%s: the file is empty", s->path);
  if (s->in_len >= sizeof gzip && memcmp(s->in, gzip, sizeof gzip) == 0) {
    s->packing = GZIP;
    s->unpacker = inflateInit2(&s->gz, 16 + MAX_WBITS) == Z_OK;
  } else if (s->in_len >= sizeof zstd && memcmp(s->in, zstd, sizeof zstd) == 0) {
    s->packing = ZSTD;
    s->zstd = ZSTD_createDStream();
    s->unpacker = s->zstd != NULL;
  } else {
    IST_TRY(ist_grow(&s->text, &s->cap, (int64_t)s->in_len, 1, err));
    memcpy(s->text, s->in, s->in_len);
    s->len = s->in_len;
    return IST_OK;
  }
  s->inside = true;
  s->packed = (int64_t)s->in_len;
  return s->unpacker ? IST_OK : ist_fail_nomem(err, s->path, 0);
}

static ist_status skip_mark(ist_stream *s, ist_error *err) {
  while (s->len < 3 && !s->ended) IST_TRY(fill(s, err));
  if (s->len >= 3 && memcmp(s->text, "\xef\xbb\xbf", 3) == 0) s->at = 3;
  return IST_OK;
}

static ist_status open_file(ist_stream *s, const char *path, ist_error *err) {
  struct stat st;
  s->path = ist_strdup(path);
  if (!s->path) return ist_fail_nomem(err, path, strlen(path));
  s->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO is refused, not waited for */
  if (s->fd < 0 || fstat(s->fd, &st) < 0)
    return ist_fail(err, IST_ERR_IO, "%s: %s", path, strerror(errno));
  if (!S_ISREG(st.st_mode))
    return ist_fail(err, IST_ERR_IO, "%s: found %s, expected a regular file", path,
                    S_ISDIR(st.st_mode) ? "a directory" : "a device or pipe");
  IST_TRY(begin(s, err));
  return skip_mark(s, err);
}

ist_status ist_stream_open(ist_stream **out, const char *path, ist_error *err) {
  *out = NULL;
  ist_stream *s = ist_calloc(1, sizeof *s);
  if (!s) return ist_fail_nomem(err, path, sizeof *s);
  s->fd = -1;
  ist_status status = open_file(s, path, err);
  if (status == IST_OK)
    *out = s;
  else
    ist_stream_close(s);
  return status;
}

void ist_stream_close(ist_stream *s) {
  if (!s) return;
  if (s->fd >= 0) close(s->fd);
  if (s->packing == GZIP && s->unpacker) inflateEnd(&s->gz);
  ZSTD_freeDStream(s->zstd);
  ist_free(s->text);
  ist_free(s->path);
  ist_free(s);
}

ist_status ist_stream_line(ist_stream *s, const char **line, size_t *len, ist_error *err) {
  size_t seen = 0;
  *line = NULL;
  *len = 0;
  for (;;) {
    char *from = s->text + s->at;
    char *end = s->len > s->at + seen ? memchr(from + seen, '\n', s->len - s->at - seen) : NULL;
    if (end || (s->ended && s->len > s->at)) {
      *line = from;
      *len = end ? (size_t)(end - from) : s->len - s->at;
      s->at += *len + (end != NULL);
      s->lines++;
      return IST_OK;
    }
    if (s->ended) return IST_OK;
    seen = s->len - s->at;
    if (seen > IST_LONGEST_RECORD)
      return ist_fail(err, IST_ERR_DATA, "%s:%lld: found a line of more than %zu MiB", s->path,
                      (long long)s->lines + 1, IST_LONGEST_RECORD >> 20);
    IST_TRY(fill(s, err));
  }
}

ist_status ist_stream_rest(ist_stream *s, const char **text, size_t *len, ist_error *err) {
  while (!s->ended) {
    IST_TRY(fill(s, err));
    if (s->len > LARGEST)
      return ist_fail(err, IST_ERR_DATA,
                      "%s: found an array of more than %zu MiB; use one record a line", s->path,
                      LARGEST >> 20);
  }
  *text = s->text + s->at;
  *len = s->len - s->at;
  s->at = s->len;
  return IST_OK;
}

ist_status ist_stream_peek(ist_stream *s, char c[2], ist_error *err) {
  size_t i = 0, n = 0;
  c[0] = c[1] = 0;
  for (;;) {
    for (; s->at + i < s->len && n < 2; i++) {
      char next = s->text[s->at + i];
      if (next != ' ' && next != '\t' && next != '\r' && next != '\n') c[n++] = next;
    }
    if (n == 2 || s->ended) return IST_OK;
    if (i > IST_LONGEST_RECORD && n == 1) return IST_OK;
    if (i > IST_LONGEST_RECORD)
      return ist_fail(err, IST_ERR_DATA, "%s: begins with more than %zu MiB of white space",
                      s->path, IST_LONGEST_RECORD >> 20);
    IST_TRY(fill(s, err));
  }
}
