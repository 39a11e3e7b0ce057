/* Spikes of the loss and of the gradient norm: how many standard deviations a step lies above
 * the mean of the steps before it. Part of a run's state. */
#ifndef IST_TRAIN_SPIKES_H
#define IST_TRAIN_SPIKES_H

#include <stdint.h>

enum { IST_SPIKE_WINDOW = 64, IST_SPIKE_LEAST = 16 }; /* steps; below the least nothing is one */

typedef enum ist_spike_of { IST_SPIKE_LOSS, IST_SPIKE_GRAD_NORM, IST_SPIKE_KINDS } ist_spike_of;

/* Zero-initialise. The newest values, in a ring. */
typedef struct ist_spikes {
  int64_t n; /* values seen so far */
  double value[IST_SPIKE_KINDS][IST_SPIKE_WINDOW];
} ist_spikes;

/* (x - mean) / standard deviation over the window; 0 while it holds too few values. */
double ist_spikes_z(const ist_spikes *s, ist_spike_of what, double x);
/* The step joins the window (finite values only). Each value counts at most as a step `limit`
 * standard deviations above the mean would (limit > 0), so that one spike does not hide the
 * next, and a loss that stays at another level is soon the usual one. */
void ist_spikes_add(ist_spikes *s, double loss, double grad_norm, double limit);

#endif
