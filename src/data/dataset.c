/* Records to samples: tokens, mask, the cut to max_tokens. */
#include <inttypes.h>
#include <string.h>

#include <xxhash.h>

#include "base/parallel.h"
#include "data/reader.h"
#include "data/render.h"

typedef struct builder {
  const ist_records *records;
  const ist_tokenizer *tok;
  const ist_data_options *opt;
  struct built {
    ist_sample sample; /* n 0: nothing to train on */
    bool cut, failed;
  } * built; /* one a record */
} builder;

/* Keeps the last reply in the mask of all tokens, wherever a sample of them ends: an earlier one
 * must not be taken for it. */
static void keep_last(ist_rendered *r) {
  int64_t end = r->ids.n;
  while (end > 0 && !r->mask[end - 1]) end--;
  int64_t begin = end;
  while (begin > 0 && r->mask[begin - 1] == r->mask[end - 1]) begin--;
  memset(r->mask, 0, (size_t)(r->unfinished ? r->ids.n : begin));
}

/* The mask of a sample, the first n tokens, by what the loss is on; returns the index behind the
 * last supervised token, 0 if there is none. */
static int64_t supervise(ist_rendered *r, int64_t n, ist_loss_on loss_on) {
  uint8_t *mask = r->mask;
  if (loss_on == IST_LOSS_ALL) memset(mask, 1, (size_t)n);
  if (loss_on == IST_LOSS_LAST) keep_last(r);
  for (int64_t t = 0; t < n; t++) mask[t] = mask[t] != 0;
  mask[0] = 0;
  while (n > 0 && !mask[n - 1]) n--;
  return n;
}

static ist_status make_sample(struct built *b, const ist_rendered *r, int64_t n, ist_error *err) {
  if (n == 0) return IST_OK;
  size_t ids_bytes = (size_t)n * sizeof(int32_t);
  ist_sample *s = &b->sample;
  s->ids = ist_calloc(ids_bytes + (size_t)n, 1);
  if (!s->ids) return ist_fail_nomem(err, "a training sample", ids_bytes + (size_t)n);
  s->mask = (uint8_t *)s->ids + ids_bytes;
  s->n = (int32_t)n;
  memcpy(s->ids, r->ids.p, ids_bytes);
  memcpy(s->mask, r->mask, (size_t)n);
  for (int64_t t = 0; t < n; t++) s->n_target += s->mask[t];
  return IST_OK;
}

static ist_status build_one(const builder *w, int64_t i, ist_rendered *r, ist_error *err) {
  const ist_record *record = &w->records->p[i];
  struct built *b = &w->built[i];
  *b = (struct built){.sample.line = record->line};
  r->ids.n = 0;
  r->unfinished = false;
  ist_status status =
      ist_render_record(r, record, w->tok, w->opt->tmpl, w->opt->now, w->opt->max_tokens, err);
  if (status != IST_OK) {
    ist_error_context(err, "%s: record %" PRId64, w->records->path, record->line);
    return status;
  }
  int64_t n = r->ids.n;
  b->cut = n > w->opt->max_tokens;
  if (b->cut) n = w->opt->max_tokens;
  return make_sample(b, r, n > 0 ? supervise(r, n, w->opt->loss_on) : 0, err);
}

static void build_some(void *arg, int64_t begin, int64_t end, int thread) {
  (void)thread;
  const builder *w = arg;
  ist_rendered r = {0};
  for (int64_t i = begin; i < end; i++) w->built[i].failed = build_one(w, i, &r, NULL) != IST_OK;
  ist_rendered_free(&r);
}

/* Tokenises all records. The first that fails is done again for its message, so
 * that the message does not depend on which thread came first. */
static ist_status build_all(builder *w, int64_t n, ist_error *err) {
  ist_parallel_for_dynamic(n, 32, build_some, w);
  for (int64_t i = 0; i < n; i++) {
    if (!w->built[i].failed) continue;
    ist_rendered r = {0};
    ist_status status = build_one(w, i, &r, err);
    ist_rendered_free(&r);
    if (status != IST_OK) return status;
  }
  return IST_OK;
}

/* Moves the samples into the dataset, in the order of the records. */
static ist_status collect(ist_dataset *d, const builder *w, int64_t n, ist_error *err) {
  IST_TRY(ist_grow(&d->p, &d->cap, d->n + n, sizeof *d->p, err));
  for (int64_t i = 0; i < n; i++) {
    struct built *b = &w->built[i];
    d->n_cut += b->cut;
    if (b->sample.n == 0) {
      d->n_dropped++;
      continue;
    }
    b->sample.source = w->opt->source;
    IST_TRY(ist_store_take(&d->store, &b->sample, err));
    d->p[d->n++] = b->sample;
    b->sample.ids = NULL;
    d->n_tokens += b->sample.n;
    d->n_target += b->sample.n_target;
    if (b->sample.n > d->max_len) d->max_len = b->sample.n;
  }
  return IST_OK;
}

/* The first n records, behind the samples that are there. */
static ist_status append(ist_dataset *d, const ist_records *r, int64_t n, const ist_tokenizer *tok,
                         const ist_data_options *opt, ist_error *err) {
  builder w = {.records = r, .tok = tok, .opt = opt};
  w.built = ist_calloc((size_t)n, sizeof *w.built);
  if (!w.built) return ist_fail_nomem(err, "training samples", (size_t)n * sizeof *w.built);
  ist_status status = build_all(&w, n, err);
  if (status == IST_OK) status = collect(d, &w, n, err);
  for (int64_t i = 0; i < n; i++) ist_free(w.built[i].sample.ids);
  ist_free(w.built);
  return status;
}

static ist_status check_options(const ist_data_options *opt, ist_error *err) {
  if (opt->max_tokens >= 2 && opt->max_tokens <= INT32_MAX) return IST_OK;
  return ist_fail(err, IST_ERR_ARG, "at most %" PRId64 " tokens a sample, expected 2 or more",
                  opt->max_tokens);
}

static ist_status fail_empty(const char *path, int64_t n, int64_t cut, int64_t max_tokens,
                             ist_error *err) {
  ist_fail(err, IST_ERR_DATA,
           "%s: none of %" PRId64 " records has a token to train on (%" PRId64
           " were cut to %" PRId64 " tokens)",
           path, n, cut, max_tokens);
  ist_hint(err, cut ? "allow more tokens, or take the loss on the whole text"
                    : "records need a completion, or take the loss on the whole text");
  return IST_ERR_DATA;
}

ist_status ist_dataset_build(ist_dataset *out, const ist_records *r, const ist_tokenizer *tok,
                             const ist_data_options *opt, ist_error *err) {
  *out = (ist_dataset){0};
  IST_TRY(check_options(opt, err));
  int64_t n = opt->limit > 0 && opt->limit < r->n ? opt->limit : r->n;
  ist_status status = append(out, r, n, tok, opt, err);
  if (status == IST_OK && out->n == 0)
    status = fail_empty(r->path, n, out->n_cut, opt->max_tokens, err);
  if (status != IST_OK) {
    const ist_dataset counts = {.n_cut = out->n_cut, .n_dropped = out->n_dropped};
    ist_dataset_free(out);
    *out = counts;
  }
  return status;
}

/* Records read before they are tokenised together, on all threads, and about as many bytes. */
#define STRETCH       1024
#define STRETCH_BYTES ((size_t)64 << 20)

static ist_status read_stretch(ist_records *out, ist_reader *reader, int64_t most, bool *more,
                               ist_error *err) {
  for (size_t bytes = 0; *more && out->n < most && bytes < STRETCH_BYTES;) {
    IST_TRY(ist_reader_next(reader, &out->p[out->n], more, err));
    if (!*more) break;
    const ist_record *r = &out->p[out->n++];
    bytes += ist_record_bytes(r, r->n_messages);
  }
  return IST_OK;
}

static ist_status append_all(ist_dataset *d, ist_reader *reader, ist_records *r,
                             const ist_tokenizer *tok, const ist_data_options *opt,
                             ist_error *err) {
  int64_t n_read = 0, before = d->n, cut = d->n_cut;
  for (bool more = true; more;) {
    int64_t left = opt->limit > 0 ? opt->limit - n_read : STRETCH;
    if (left <= 0) break;
    ist_status status = read_stretch(r, reader, left < STRETCH ? left : STRETCH, &more, err);
    n_read += r->n;
    if (status == IST_OK && r->n > 0) status = append(d, r, r->n, tok, opt, err);
    for (int64_t i = 0; i < r->n; i++) ist_record_free(&r->p[i]);
    r->n = 0;
    IST_TRY(status);
  }
  if (n_read == 0) return ist_fail(err, IST_ERR_DATA, "%s: no records", r->path);
  return d->n > before ? IST_OK : fail_empty(r->path, n_read, d->n_cut - cut, opt->max_tokens, err);
}

ist_status ist_dataset_append(ist_dataset *d, const char *path, const ist_tokenizer *tok,
                              const ist_data_options *opt, ist_error *err) {
  IST_TRY(check_options(opt, err));
  d->store.folder = opt->folder;
  if (d->store.limit == 0) d->store.limit = IST_DATASET_HELD;
  ist_records r = {.path = ist_strdup(path), .p = ist_calloc(STRETCH, sizeof *r.p)};
  ist_reader *reader = NULL;
  ist_status status = r.path && r.p ? ist_reader_open(&reader, path, err)
                                    : ist_fail_nomem(err, "training data", STRETCH * sizeof *r.p);
  if (status == IST_OK) status = append_all(d, reader, &r, tok, opt, err);
  ist_reader_close(reader);
  ist_records_free(&r);
  return status;
}

ist_status ist_dataset_ready(ist_dataset *d, ist_error *err) {
  return ist_store_map(&d->store, d->p, d->n, err);
}

void ist_dataset_free(ist_dataset *d) {
  for (int64_t i = 0; i < d->n; i++)
    if (!d->p[i].stored) ist_free(d->p[i].ids);
  ist_free(d->p);
  ist_store_close(&d->store);
  *d = (ist_dataset){0};
}

/* Of samples in the scratch file no more than this comes into memory at a time. */
#define HASHED_PIECE (INT64_C(16) << 20)

uint64_t ist_dataset_hash(const ist_dataset *d) {
  uint64_t h = XXH64(&d->n, sizeof d->n, 0);
  int64_t seen = 0;
  for (int64_t i = 0; i < d->n; i++) {
    const ist_sample *s = &d->p[i];
    h = XXH64(&s->n, sizeof s->n, h);
    h = XXH64(s->ids, (size_t)s->n * sizeof *s->ids, h);
    h = XXH64(s->mask, (size_t)s->n, h);
    seen += s->n * (int64_t)(sizeof *s->ids + sizeof *s->mask);
    if (seen < HASHED_PIECE && i + 1 < d->n) continue;
    ist_store_forget(&d->store);
    seen = 0;
  }
  return h;
}
