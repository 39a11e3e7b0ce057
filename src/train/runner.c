#include "train/runner.h"

#include <string.h>

#include "base/mem.h"

static int64_t bucket(int64_t n) {
  return (n + IST_ROW_BUCKET - 1) / IST_ROW_BUCKET * IST_ROW_BUCKET;
}

/* Greedy packing leaves less than the longest sample free in a micro-batch. */
static int64_t most_micro(const ist_runner_limits *lim, int64_t micro_tokens) {
  int64_t least = micro_tokens - lim->longest + 1;
  int64_t by_tokens = lim->tokens / least + 1;
  return by_tokens < lim->segments ? by_tokens : lim->segments;
}

int64_t ist_runner_rows(const ist_runner_limits *lim, int64_t micro_tokens) {
  return lim->tokens + IST_ROW_BUCKET * most_micro(lim, micro_tokens);
}

size_t ist_runner_bytes(const ist_runner_limits *lim, int64_t micro_tokens) {
  size_t rows = (size_t)ist_runner_rows(lim, micro_tokens);
  return rows * (5 * sizeof(int32_t) + sizeof(double)) +
         (size_t)lim->segments * (sizeof(ist_attn_seg) + sizeof(int64_t)) +
         (size_t)most_micro(lim, micro_tokens) * sizeof(ist_micro);
}

ist_status ist_runner_open(ist_runner *r, const ist_runner_limits *lim, int64_t micro_tokens,
                           ist_error *err) {
  r->micro_tokens = micro_tokens;
  r->order = lim->layer_order ? IST_ORDER_LAYER : IST_ORDER_TOKEN;
  r->cap_rows = ist_runner_rows(lim, micro_tokens);
  r->cap_segs = lim->segments;
  r->cap_micro = most_micro(lim, micro_tokens);
  size_t rows = (size_t)r->cap_rows;
  r->ids = ist_calloc(rows, sizeof *r->ids);
  r->target = ist_calloc(rows, sizeof *r->target);
  r->position = ist_calloc(rows, sizeof *r->position);
  r->sample = ist_calloc(rows, sizeof *r->sample);
  r->group = ist_calloc(rows, sizeof *r->group);
  r->row_loss = ist_calloc(rows, sizeof *r->row_loss);
  r->seg = ist_calloc((size_t)r->cap_segs, sizeof *r->seg);
  r->seg_targets = ist_calloc((size_t)r->cap_segs, sizeof *r->seg_targets);
  r->micro = ist_calloc((size_t)r->cap_micro, sizeof *r->micro);
  if (!r->ids || !r->target || !r->position || !r->sample || !r->group || !r->row_loss || !r->seg ||
      !r->seg_targets || !r->micro) {
    return ist_fail_nomem(err, "micro-batches", ist_runner_bytes(lim, micro_tokens));
  }
  const ist_adapters *ad = r->decoder.adapters;
  r->schedule.keep_frozen = ad && ad->method->keeps_frozen;
  r->schedule.to_embedding = ist_adapter_trains_embedding(ad);
  return ist_schedule_reserve(&r->schedule, ist_schedule_items(r->decoder.config->L, r->cap_micro),
                              err);
}

void ist_runner_close(ist_runner *r) {
  ist_free(r->ids);
  ist_free(r->target);
  ist_free(r->position);
  ist_free(r->sample);
  ist_free(r->group);
  ist_free(r->row_loss);
  ist_free(r->seg);
  ist_free(r->seg_targets);
  ist_free(r->micro);
  ist_schedule_free(&r->schedule);
  ist_decoder_close(&r->decoder);
  memset(r, 0, sizeof *r);
}

/* Starts a micro-batch at row `at` of the arrays. */
static ist_micro *begin_micro(ist_runner *r, int64_t at) {
  IST_ASSERT(r->n_micro < r->cap_micro);
  ist_micro *m = &r->micro[r->n_micro++];
  *m = (ist_micro){
      .ids = r->ids + at,
      .target = r->target + at,
      .position = r->position + at,
      .sample = r->sample + at,
      .seg = r->seg + r->n_seg,
  };
  return m;
}

/* Where the micro-batch lies in a boundary slot: behind the one before it, if it fits. */
static void place_micro(const ist_runner *r, ist_micro *m) {
  if (m == r->micro || r->order != IST_ORDER_LAYER) return;
  int64_t behind = m[-1].boundary_row + m[-1].rows;
  if (behind + m->rows <= r->decoder.sizes.boundary_rows) m->boundary_row = behind;
}

/* Pads the rows of a finished micro-batch up to the bucket; returns the row behind it. */
static int64_t end_micro(ist_runner *r, ist_micro *m, int64_t at) {
  m->rows = bucket(m->n);
  place_micro(r, m);
  for (int64_t i = m->n; i < m->rows; i++, at++) {
    r->ids[at] = r->position[at] = r->sample[at] = r->group[at] = 0;
    r->target[at] = -1;
  }
  return at;
}

static void add_sample(ist_runner *r, ist_micro *m, const ist_sample *s, int64_t index,
                       int32_t copy, int64_t at) {
  int64_t targets = 0;
  for (int32_t t = 0; t < s->n; t++) {
    bool supervised = t + 1 < s->n && s->mask[t + 1];
    r->ids[at + t] = s->ids[t];
    r->target[at + t] = supervised ? s->ids[t + 1] : -1;
    r->position[at + t] = t;
    r->sample[at + t] = (int32_t)index;
    r->group[at + t] = copy;
    targets += supervised;
  }
  ist_attn_seg *seg = &r->seg[r->n_seg];
  *seg = (ist_attn_seg){
      .q0 = m->n, .nq = s->n, .n_spans = 1, .span = {{.causal = true, .row0 = m->n, .n = s->n}}};
  r->seg_targets[r->n_seg++] = targets;
  m->n += s->n;
  m->n_seg++;
  r->n_tokens += s->n;
  r->n_targets += targets;
}

void ist_runner_pack(ist_runner *r, const ist_dataset *data, const int64_t *index, int64_t n,
                     int64_t copies) {
  r->n_micro = r->n_seg = r->n_tokens = r->n_targets = 0;
  int64_t at = 0;
  ist_micro *m = NULL;
  for (int64_t i = 0; i < n * copies; i++) {
    const ist_sample *s = &data->p[index[i % n]];
    if (m && m->n + s->n > r->micro_tokens) {
      at = end_micro(r, m, at);
      m = NULL;
    }
    if (!m) m = begin_micro(r, at);
    if (copies > 1) m->group = m->ids - r->ids + r->group;
    IST_ASSERT(at + s->n <= r->cap_rows && r->n_seg < r->cap_segs);
    add_sample(r, m, s, index[i % n], (int32_t)(i / n), at);
    at += s->n;
  }
  if (m) end_micro(r, m, at);
}

int64_t ist_runner_pack_next(ist_runner *r, const ist_dataset *data, const int64_t *index,
                             int64_t from, int64_t n) {
  int64_t most = r->order == IST_ORDER_LAYER ? r->cap_micro : 1, micros = 0, tokens = 0, rows = 0;
  int64_t room =
      r->decoder.sizes.boundary_rows < r->cap_rows ? r->decoder.sizes.boundary_rows : r->cap_rows;
  int64_t to = from;
  for (; to < n && to - from < r->cap_segs; to++) {
    int64_t len = data->p[index[to]].n;
    bool opens = micros == 0 || tokens + len > r->micro_tokens;
    if (opens && (micros == most || rows + bucket(tokens) + bucket(len) > room)) break;
    if (opens) {
      rows += bucket(tokens);
      tokens = 0;
      micros++;
    } else if (rows + bucket(tokens + len) > room) {
      break;
    }
    tokens += len;
  }
  ist_runner_pack(r, data, index + from, to - from, 1);
  return to;
}

void ist_runner_run(ist_runner *r, ist_pass *pass) {
  for (int64_t i = 0; i < r->schedule.n; i++) {
    const ist_work *w = &r->schedule.work[i];
    pass->micro = &r->micro[w->micro];
    pass->row_loss = r->row_loss;
    if (w->op == IST_WORK_HEAD) {
      /* Losses of a micro-batch follow those of the ones before it. */
      int64_t first_seg = pass->micro->seg - r->seg;
      for (int64_t s = 0; s < first_seg; s++) pass->row_loss += r->seg_targets[s];
    }
    ist_decoder_run(&r->decoder, pass, w);
  }
}

void ist_runner_forward(ist_runner *r, ist_pass *pass) {
  for (int64_t first = 0, last; first < r->n_micro; first = last) {
    last = first + 1;
    while (last < r->n_micro && (r->order == IST_ORDER_TOKEN || r->micro[last].boundary_row > 0))
      last++;
    ist_schedule_forward(&r->schedule, r->decoder.config->L, first, last, r->order, true);
    ist_runner_run(r, pass);
  }
}

void ist_runner_segment_losses(const ist_runner *r, double *loss_sum) {
  const double *row = r->row_loss;
  for (int64_t s = 0; s < r->n_seg; s++) {
    loss_sum[s] = 0;
    for (int64_t i = 0; i < r->seg_targets[s]; i++) loss_sum[s] += *row++;
  }
}

void ist_runner_segment_means(const ist_runner *r, double *mean) {
  ist_runner_segment_losses(r, mean);
  for (int64_t s = 0; s < r->n_seg; s++)
    mean[s] /= (double)(r->seg_targets[s] + !r->seg_targets[s]);
}

double ist_runner_loss_sum(const ist_runner *r) {
  double sum = 0;
  for (int64_t i = 0; i < r->n_targets; i++) sum += r->row_loss[i];
  return sum;
}

double ist_runner_eval(ist_runner *r, const ist_dataset *data, const int64_t *index, int64_t n,
                       const float *factor, double *sample_loss) {
  double sum = 0;
  int64_t targets = 0;
  for (int64_t from = 0, to; from < n; from = to) {
    to = ist_runner_pack_next(r, data, index, from, n);
    ist_pass pass = {.factor = factor};
    ist_runner_forward(r, &pass);
    sum += ist_runner_loss_sum(r);
    targets += r->n_targets;
    if (sample_loss) ist_runner_segment_means(r, sample_loss + from);
  }
  return targets ? sum / (double)targets : 0;
}
