#include "train/spikes.h"

#include <math.h>

typedef struct moments {
  double mean, sd;
} moments;

/* Of the values in the window, in the order of the ring: the same sums after a resume. The
 * deviation is at least a millionth of the mean: losses that hardly differ are all alike. */
static moments window_moments(const ist_spikes *s, ist_spike_of what) {
  int64_t n = s->n < IST_SPIKE_WINDOW ? s->n : IST_SPIKE_WINDOW;
  const double *v = s->value[what];
  double sum = 0, squares = 0;
  for (int64_t i = 0; i < n; i++) sum += v[i];
  double mean = sum / (double)n;
  for (int64_t i = 0; i < n; i++) squares += (v[i] - mean) * (v[i] - mean);
  double sd = sqrt(squares / (double)(n - 1)), least = 1e-6 * fabs(mean) + 1e-12;
  return (moments){mean, sd > least ? sd : least};
}

double ist_spikes_z(const ist_spikes *s, ist_spike_of what, double x) {
  if (s->n < IST_SPIKE_LEAST) return 0;
  moments m = window_moments(s, what);
  return (x - m.mean) / m.sd;
}

void ist_spikes_add(ist_spikes *s, double loss, double grad_norm, double limit) {
  const double x[IST_SPIKE_KINDS] = {loss, grad_norm};
  for (int what = 0; what < IST_SPIKE_KINDS; what++) {
    double v = x[what];
    if (limit > 0 && s->n >= IST_SPIKE_LEAST) {
      moments m = window_moments(s, (ist_spike_of)what);
      v = fmin(v, m.mean + limit * m.sd);
    }
    s->value[what][s->n % IST_SPIKE_WINDOW] = v;
  }
  s->n++;
}
