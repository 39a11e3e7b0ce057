#include "train/plan.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "train/options.h"

static const char *const recompute_names[] = {"none", "mlp", "layer"};
static const char *const order_names[] = {"token", "layer"};
static const char *const policy_names[] = {"stream", "layer", "keep"};

const char *ist_recompute_name(ist_recompute r) {
  return recompute_names[r];
}
const char *ist_order_name(ist_order o) {
  return order_names[o];
}
const char *ist_policy_name(ist_weight_policy p) {
  return policy_names[p];
}

static int index_of(const char *name, const char *const *names, int n) {
  for (int i = 0; i < n; i++) {
    if (strcmp(name, names[i]) == 0) return i;
  }
  return -1;
}
int ist_recompute_from_name(const char *name) {
  return index_of(name, recompute_names, 3);
}
int ist_order_from_name(const char *name) {
  return index_of(name, order_names, 2);
}

/* ---- One candidate ------------------------------------------------------------ */

static void add_term(ist_run_plan *p, const char *name, int64_t bytes) {
  IST_ASSERT(p->n_terms < IST_PLAN_TERMS);
  p->term[p->n_terms++] = (ist_plan_term){name, bytes};
  p->total += bytes;
}

static int64_t max64(int64_t a, int64_t b) {
  return a > b ? a : b;
}

/* The runner packs steps, probes and evaluation batches. */
static ist_runner_limits joint_limits(const ist_plan_input *in, bool layer_order) {
  return (ist_runner_limits){
      .tokens = max64(in->step.tokens, in->probe.tokens),
      .segments = max64(in->step.segments, in->probe.segments),
      .longest = max64(in->step.longest, in->probe.longest),
      .layer_order = layer_order,
  };
}

/* Logits of a chunk: about 48 MB, in full rows of the vocabulary. */
static int64_t head_chunk(const ist_plan_input *in, int64_t rows) {
  int64_t chunk = (INT64_C(48) << 20) / (in->config->V * ist_dtype_bytes(ist_wide(in->compute), 1));
  chunk = chunk < 16 ? 16 : chunk > 256 ? 256 : chunk / 16 * 16;
  return chunk < rows ? chunk : rows;
}

/* Fills in what follows from the choices made: order, recompute, micro-batch,
 * policy, head rows, and how thrifty with pages. */
static void complete_sizes(ist_run_plan *p, const ist_plan_input *in) {
  bool layer_order = p->order == IST_ORDER_LAYER;
  int64_t deep = in->config->L - in->depth_floor;
  int64_t keeping = in->adapters->method->keeps_frozen ? deep : in->active_layers;
  ist_slots slots = ist_schedule_slots(deep, keeping, p->order, p->recompute);
  int64_t rows = (p->micro_tokens + IST_ROW_BUCKET - 1) / IST_ROW_BUCKET * IST_ROW_BUCKET;
  int64_t all_rows = layer_order ? max64(rows, ist_runner_rows(&in->step, p->micro_tokens)) : rows;
  p->limits = joint_limits(in, layer_order);
  ist_decoder_sizes *s = &p->sizes;
  s->compute = in->compute;
  s->rows = rows;
  s->longest = p->limits.longest;
  s->boundary_rows = s->dres_rows = all_rows;
  s->n_boundary = in->config->L + 1; /* a step below the floor recomputes: it keeps inputs only */
  s->n_attn = slots.attn;
  s->n_mlp = slots.mlp;
  s->n_low = slots.low;
  s->dropout = in->dropout > 0;
  s->head_chunk = head_chunk(in, rows);
}

/* Time of a step against the same products without recompute or dequantising.
 * Dequantising a matrix costs about 52 / N of its product at N rows, and products of
 * few rows lose about 30 / N to packing and starting. */
static double estimate_cost(const ist_run_plan *p, const ist_plan_input *in) {
  static const double redone[] = {0.0, 0.20, 0.36}; /* share of forward + backward */
  int64_t n = p->order == IST_ORDER_LAYER || p->micro_tokens > in->step.tokens ? in->step.tokens
                                                                               : p->micro_tokens;
  double dequant = (p->sizes.policy == IST_WEIGHT_KEEP ? 0 : 52.0) / (double)n,
         small = 30.0 / (double)n;
  double head = p->sizes.head_rows < in->config->V ? 0.05 : 0;
  double redo = redone[p->recompute];
  if (in->depth_floor > 0) redo = 0.75 * redo + 0.25 * redone[IST_RECOMPUTE_LAYER];
  double disk = (p->moments_on_disk ? 0.05 : 0) + (p->sizes.spill ? 0.05 : 0) +
                (p->sizes.drop_pages ? 0.10 : 0);
  return (1.0 + redo) * (1.0 + dequant + small) + head + disk;
}

/* Bytes of the model file in memory at a time: all; without the matrices that are kept
 * dequantised; or with pages dropped two layers and what belongs to no layer. */
static int64_t file_pages(const ist_run_plan *p, const ist_plan_input *in) {
  int64_t layer = ist_weights_layer_bytes(in->weights);
  if (p->sizes.policy == IST_WEIGHT_KEEP) {
    int64_t left = in->file_bytes - ist_weights_copied_bytes(in->weights, in->compute);
    return max64(left, 0);
  }
  if (!p->sizes.drop_pages) return in->file_bytes;
  int64_t layers = 0;
  for (int64_t l = 0; l < in->config->L; l++) layers += ist_weights_bytes_of(in->weights, l);
  return 2 * layer + (in->file_bytes > layers ? in->file_bytes - layers : 0);
}

static ist_status measure(ist_run_plan *p, const ist_plan_input *in, ist_error *err) {
  complete_sizes(p, in);
  size_t bytes[IST_ARENA_DECODER_COUNT];
  IST_TRY(ist_decoder_measure(in->config, in->weights, in->adapters, in->backend, &p->sizes, bytes,
                              err));
  const ist_adapters *ad = in->adapters;
  int64_t layer = ad->layout.params * ist_dtype_bytes(ad->dt, 1),
          outer = ad->outer.params * ist_dtype_bytes(ad->dt, 1), all = ad->L * layer + outer;
  p->n_terms = 0;
  p->total = p->scratch_bytes = 0;
  add_term(p, "program, libraries, tokenizer, data", in->resident_bytes);
  add_term(p, "model file (mapped)", file_pages(p, in));
  add_term(p, "adapters", all);
  add_term(p, "adapter gradients", in->active_layers * layer + outer);
  /* A page or so of each neighbour stays with an active layer. */
  add_term(p, "optimizer moments",
           2 * outer + (p->moments_on_disk
                            ? 2 * in->active_layers * (layer + 8192)
                            : 2 * layer * (in->moment_layers ? in->moment_layers : ad->L)));
  if (p->moments_on_disk) p->scratch_bytes += 2 * all;
  for (int i = 0; i < IST_ARENA_DECODER_COUNT; i++) {
    int64_t held = (int64_t)bytes[i];
    if (i == IST_ARENA_BOUNDARY && p->sizes.spill) {
      p->scratch_bytes += held;
      held = 2 * held / p->sizes.n_boundary; /* a layer's input and output */
    }
    add_term(p, ist_arena_names[i], held);
  }
  add_term(p, "batches", (int64_t)ist_runner_bytes(&p->limits, p->micro_tokens));
  p->cost = estimate_cost(p, in);
  return IST_OK;
}

/* ---- The choice ------------------------------------------------------------------ */

static const int64_t micro_choices[] = {4096, 3072, 2048, 1536, 1024, 768, 512, 384, 256, 128, 64};

typedef struct search {
  const ist_plan_input *in;
  int64_t limit;
  ist_run_plan best, smallest, fastest; /* that fits; whatever the speed; whatever the size */
  ist_run_plan on_disk;                 /* the smallest scratch that the disk cannot hold */
  bool found, any, disk_short;
} search;

/* Time, with memory as a small price: twice the memory must bring 3 % of the time.
 * A fixed score keeps the choice monotone: a larger limit never gives a slower plan. */
static double score(const ist_run_plan *p) {
  return p->cost * pow((double)p->total, 0.04);
}

static ist_status consider(search *s, const ist_run_plan *candidate, ist_error *err) {
  ist_run_plan p = *candidate;
  IST_TRY(measure(&p, s->in, err));
  if (s->in->disk_free > 0 && p.scratch_bytes > s->in->disk_free) {
    if (p.total > s->limit) return IST_OK;
    if (!s->disk_short || p.scratch_bytes < s->on_disk.scratch_bytes) s->on_disk = p;
    s->disk_short = true;
    return IST_OK;
  }
  if (!s->any || p.total < s->smallest.total) s->smallest = p;
  if (!s->any || score(&p) < score(&s->fastest)) s->fastest = p;
  s->any = true;
  if (p.total > s->limit) return IST_OK;
  if (!s->found || score(&p) < score(&s->best)) s->best = p;
  s->found = true;
  return IST_OK;
}

/* The same plan with ever less of what is rarely used in memory. */
static ist_status consider_thrift(search *s, ist_run_plan p, ist_error *err) {
  IST_TRY(consider(s, &p, err));
  if (!s->in->scratch) return IST_OK;
  p.moments_on_disk = true;
  IST_TRY(consider(s, &p, err));
  if (p.order != IST_ORDER_LAYER || p.sizes.policy == IST_WEIGHT_KEEP) return IST_OK;
  p.sizes.drop_pages = true;
  IST_TRY(consider(s, &p, err));
  p.sizes.spill = s->in->scratch;
  return consider(s, &p, err);
}

static ist_status consider_weights(search *s, ist_run_plan p, ist_error *err) {
  const int64_t V = s->in->config->V, tile = 4096;
  const ist_weight_policy stream =
      p.order == IST_ORDER_LAYER ? IST_WEIGHT_LAYER : IST_WEIGHT_STREAM;
  const ist_weight_policy policies[] = {stream, IST_WEIGHT_KEEP};
  for (size_t i = 0; i < 2; i++) {
    p.sizes.policy = policies[i];
    p.sizes.head_rows = V;
    IST_TRY(consider_thrift(s, p, err));
    if (tile >= V) continue;
    p.sizes.head_rows = tile;
    IST_TRY(consider_thrift(s, p, err));
  }
  return IST_OK;
}

/* In layer order every layer is computed again: who asks for that order gets this, and who asks for
 * another recompute gets token order. */
static bool is_asked_for(const ist_plan_input *in, int order, int recompute) {
  if (in->order >= 0 && in->order != order) return false;
  const bool layers = order == IST_ORDER_LAYER;
  if (layers && recompute != IST_RECOMPUTE_LAYER) return false;
  return in->recompute < 0 || in->recompute == recompute || (layers && in->order == order);
}

static ist_status consider_micro(search *s, int64_t micro, ist_error *err) {
  for (int order = 0; order < 2; order++) {
    for (int recompute = 0; recompute < 3; recompute++) {
      if (!is_asked_for(s->in, order, recompute)) continue;
      ist_run_plan p = {
          .order = (ist_order)order, .recompute = (ist_recompute)recompute, .micro_tokens = micro};
      IST_TRY(consider_weights(s, p, err));
    }
  }
  return IST_OK;
}

static ist_status cannot_fit(const search *s, ist_error *err) {
  ist_status status;
  if (s->disk_short) {
    status = ist_fail(err, IST_ERR_NOMEM,
                      "%s: found %.0f MB free on the disk, the plan for a limit of %.0f MB needs "
                      "%.0f MB there for scratch; in memory alone the smallest plan needs %.0f MB",
                      s->in->scratch, (double)s->in->disk_free * 1e-6, (double)s->limit * 1e-6,
                      ceil((double)s->on_disk.scratch_bytes * 1e-6),
                      ceil((double)s->smallest.total * 1e-6));
    ist_hint(err, "free some of the disk, or give a larger --max-memory");
    return status;
  }
  /* Rounded up, so that the figure is enough when it is given as the limit. */
  status = ist_fail(
      err, IST_ERR_NOMEM,
      "memory: found a limit of %.0f MB, the smallest plan for these settings needs %.0f MB",
      (double)s->limit * 1e-6, ceil((double)s->smallest.total * 1e-6));
  ist_hint(err, "shorter --max-tokens, a smaller --rank or fewer --targets need less%s",
           s->in->recompute >= 0 && s->in->recompute != IST_RECOMPUTE_LAYER
               ? "; so may --recompute auto"
               : "");
  return status;
}

static void describe(char *out, size_t size, const ist_run_plan *p) {
  snprintf(out, size, "%s order, recompute %s, weights %s, %lld tokens a pass",
           ist_order_name(p->order), ist_recompute_name(p->recompute),
           ist_policy_name(p->sizes.policy), (long long)p->micro_tokens);
}

/* In words: what the limit costs against what would be chosen without it. */
static void explain(ist_run_plan *out, const search *s) {
  if (score(out) <= score(&s->fastest)) {
    snprintf(out->why, sizeof out->why,
             "the best of time and memory of all plans: more memory would bring little or nothing");
    return;
  }
  char text[120];
  describe(text, sizeof text, &s->fastest);
  snprintf(out->why, sizeof out->why,
           "the fastest that fits in %.0f MB; about %.0f %% faster with %.0f MB (%s)",
           (double)s->limit * 1e-6, 100.0 * (out->cost / s->fastest.cost - 1.0),
           ceil((double)s->fastest.total * 1e-6), text);
}

/* No pass is laid out larger than the run's own batches make it. */
static int64_t fit_pass(const ist_plan_input *in, int64_t micro, int64_t longest) {
  int64_t most = in->largest_pass ? in->largest_pass(in->user, micro) : in->step.tokens;
  return max64(longest, most < micro ? most : micro);
}

ist_status ist_plan_make(ist_run_plan *out, const ist_plan_input *in, ist_error *err) {
  search s = {.in = in, .limit = in->max_memory};
  if (!s.limit) {
    int64_t free_bytes = ist_memory_free();
    s.limit = free_bytes ? in->resident_bytes + free_bytes - free_bytes / 8 : INT64_MAX;
  }
  if (in->repeat) { /* the plan of the run that is resumed, whatever the limit */
    *out = in->repeated;
    out->limit = s.limit;
    snprintf(out->why, sizeof out->why, "the plan of the run that is resumed");
    IST_TRY(measure(out, in, err));
    if (in->disk_free > 0 && out->scratch_bytes > in->disk_free) {
      return ist_fail(err, IST_ERR_NOMEM,
                      "%s: found %.0f MB free on the disk, the run's plan needs %.0f MB there",
                      in->scratch, (double)in->disk_free * 1e-6,
                      ceil((double)out->scratch_bytes * 1e-6));
    }
    return IST_OK;
  }
  int64_t longest = max64(in->step.longest, in->probe.longest);
  if (in->micro_tokens) {
    IST_TRY(consider_micro(&s, fit_pass(in, in->micro_tokens, longest), err));
  } else {
    int64_t last = -1;
    for (size_t i = 0; i < sizeof micro_choices / sizeof *micro_choices && last != longest; i++) {
      int64_t micro = fit_pass(in, max64(micro_choices[i], longest), longest);
      if (micro != last) IST_TRY(consider_micro(&s, micro, err));
      last = micro;
    }
  }
  if (!s.found) return cannot_fit(&s, err);
  *out = s.best;
  out->limit = s.limit;
  explain(out, &s);
  return IST_OK;
}

/* ---- JSON ------------------------------------------------------------------------- */

json_t *ist_plan_to_json(const ist_run_plan *p) {
  json_t *terms = json_array();
  for (int i = 0; i < p->n_terms; i++) {
    json_array_append_new(terms, json_pack("{s:s, s:I}", "name", p->term[i].name, "bytes",
                                           (json_int_t)p->term[i].bytes));
  }
  return json_pack("{s:s, s:s, s:s, s:s, s:b, s:b, s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:o}",
                   "why", p->why, "order", ist_order_name(p->order), "recompute",
                   ist_recompute_name(p->recompute), "weights", ist_policy_name(p->sizes.policy),
                   "moments_on_disk", p->moments_on_disk, "drop_pages", p->sizes.drop_pages,
                   "spill", p->sizes.spill != NULL, "micro_tokens", (json_int_t)p->micro_tokens,
                   "head_rows", (json_int_t)p->sizes.head_rows, "head_chunk",
                   (json_int_t)p->sizes.head_chunk, "total_bytes", (json_int_t)p->total,
                   "limit_bytes", (json_int_t)p->limit, "scratch_bytes",
                   (json_int_t)p->scratch_bytes, "cost", p->cost, "terms", terms);
}

static int policy_from_name(const char *name) {
  return index_of(name, policy_names, 3);
}

ist_status ist_plan_fix(ist_plan_input *in, const json_t *saved, ist_error *err) {
  const char *order, *recompute, *weights;
  json_int_t micro, head_rows;
  int moments, drop, spill;
  if (json_unpack((json_t *)(uintptr_t)saved, "{s:s, s:s, s:s, s:I, s:I, s:b, s:b, s:b}", "order",
                  &order, "recompute", &recompute, "weights", &weights, "micro_tokens", &micro,
                  "head_rows", &head_rows, "moments_on_disk", &moments, "drop_pages", &drop,
                  "spill", &spill) != 0) {
    return ist_fail(err, IST_ERR_FORMAT,
                    "plan: found a field missing or of another kind in the checkpoint");
  }
  int o = ist_order_from_name(order), r = ist_recompute_from_name(recompute),
      w = policy_from_name(weights);
  bool sizes = micro >= in->step.longest && micro >= in->probe.longest &&
               micro <= IST_MOST_MICRO_TOKENS && head_rows > 0 && head_rows <= in->config->V;
  if (o < 0 || r < 0 || w < 0 || !sizes) {
    return ist_fail(err, IST_ERR_FORMAT,
                    "plan: found order \"%s\", recompute \"%s\", weights \"%s\", %lld micro_tokens "
                    "and %lld head_rows in the checkpoint",
                    order, recompute, weights, (long long)micro, (long long)head_rows);
  }
  in->repeat = true;
  in->repeated = (ist_run_plan){
      .order = (ist_order)o,
      .recompute = (ist_recompute)r,
      .micro_tokens = micro,
      .moments_on_disk = moments,
      .sizes = {.policy = (ist_weight_policy)w,
                .head_rows = head_rows,
                .drop_pages = drop,
                .spill = spill ? in->scratch : NULL},
  };
  return IST_OK;
}
