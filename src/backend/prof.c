#include <string.h>
#include <time.h>

#include "backend/backend.h"

double ist_prof_now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void ist_prof_add(ist_prof *p, const char *name, double start, double flops, double bytes) {
  if (p == NULL) return;
  int i = 0;
  while (i < p->n && strcmp(p->slot[i].name, name) != 0) i++;
  if (i == p->n) {
    /* A full table counts on in its last slot, so that totals stay true. */
    if (p->n == IST_PROF_MAX) {
      i = IST_PROF_MAX - 1;
      p->slot[i].name = "other";
    } else {
      p->slot[p->n++].name = name;
    }
  }
  p->slot[i].seconds += ist_prof_now() - start;
  p->slot[i].flops += flops;
  p->slot[i].bytes += bytes;
  p->slot[i].calls++;
}
