/* outfile.c: files of results. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cmd.h"
#include "text.h"

/* The temporary name of the file that is open, for a handler; a command writes one. */
static char unfinished[4096];
static volatile sig_atomic_t is_unfinished;

void ist_outfile_discard(void) {
  if (is_unfinished) unlink(unfinished);
}

/* A device or pipe is written as it is: there is nothing to rename over. */
static ist_status open_device(ist_outfile *f, ist_error *err) {
  f->to = fopen(f->path, "wb");
  return f->to ? IST_OK : ist_cli_fail(err, IST_ERR_IO, "%s: %s", f->path, strerror(errno));
}

ist_status ist_outfile_open(ist_outfile *f, const char *path, ist_error *err) {
  struct stat st;
  *f = (ist_outfile){.path = path};
  if (stat(path, &st) == 0 && !S_ISREG(st.st_mode)) return open_device(f, err);
  int len = snprintf(unfinished, sizeof unfinished, "%s.tmp-%ld", path, (long)getpid());
  if (len >= (int)sizeof unfinished)
    return ist_cli_fail(err, IST_ERR_ARG, "%.80s...: the name is too long", path);
  is_unfinished = 1; /* before it is there: a signal may come at once */
  int fd = open(unfinished, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  f->to = fd >= 0 ? fdopen(fd, "wb") : NULL;
  if (f->to) {
    f->temporary = true;
    return IST_OK;
  }
  ist_cli_fail(err, IST_ERR_IO, "%s: %s", unfinished, strerror(errno));
  if (fd >= 0) {
    close(fd);
    unlink(unfinished);
  }
  is_unfinished = 0;
  return err->code;
}

/* stdio does not keep the number of a write's error: a full disk fails again. */
static int finish_writing(const ist_outfile *f) {
  const bool failed = ferror(f->to);
  if (fflush(f->to) != 0) return errno;
  if (failed) return EIO;
  return f->temporary && fsync(fileno(f->to)) != 0 ? errno : 0;
}

ist_status ist_outfile_close(ist_outfile *f, bool keep, ist_error *err) {
  ist_status s = IST_OK;
  int number = finish_writing(f);
  fclose(f->to);
  if (keep && !number && f->temporary && rename(unfinished, f->path) != 0) number = errno;
  if (keep && number) s = ist_cli_fail(err, IST_ERR_IO, "%s: %s", f->path, strerror(number));
  if (f->temporary && (s || !keep)) unlink(unfinished);
  is_unfinished = 0;
  return s;
}
