/* Text files as lines, in constant memory: plain, or compressed by gzip or
 * Zstandard, told apart by their first bytes, not by their names. */
#ifndef IST_DATA_STREAM_H
#define IST_DATA_STREAM_H

#include "base/error.h"

typedef struct ist_stream ist_stream;

/* Opens a regular file. A byte order mark at its start is passed over. Closed by
 * the caller. */
ist_status ist_stream_open(ist_stream **out, const char *path, ist_error *err);
void ist_stream_close(ist_stream *s);

/* A record of any kind of file: a sample is cut to some thousand tokens. A file may be made to
 * unpack to lines without end. */
#define IST_LONGEST_RECORD ((size_t)16 << 20)

/* The next line without its end (LF), borrowed until the next call; *line is NULL
 * at the end of the file. A line longer than IST_LONGEST_RECORD is an error. */
ist_status ist_stream_line(ist_stream *s, const char **line, size_t *len, ist_error *err);
/* All that has not been read yet, borrowed until the stream is closed. */
ist_status ist_stream_rest(ist_stream *s, const char **text, size_t *len, ist_error *err);
/* The first two bytes ahead that are not white space, without taking them; 0 behind the end, or
 * where they lie further apart than a record is long. */
ist_status ist_stream_peek(ist_stream *s, char c[2], ist_error *err);

#endif
