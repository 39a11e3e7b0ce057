/* An end for what would never end, or only after minutes: not a measure of speed. */
#ifndef IST_TESTS_HANG_H
#define IST_TESTS_HANG_H

#include <sys/time.h>

/* Ends the process when it has used so many more seconds of processor time (however busy the
 * machine is); 0: not any more. */
static inline int hang_after(int seconds) {
  const struct itimerval t = {.it_value = {.tv_sec = seconds}};
  return setitimer(ITIMER_PROF, &t, NULL);
}

#endif
