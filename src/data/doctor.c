#include "data/doctor.h"

#include <string.h>

#include <xxhash.h>

#include "base/hash.h"
#include "data/reader.h"

/* ---- Copies: a table of the texts' hashes ---- */

typedef struct seen {
  uint64_t hash;
  int64_t line; /* 0: an empty place */
} seen;
typedef struct seen_table {
  seen *p;
  int64_t n, room; /* room is a power of two */
} seen_table;

static seen *place_of(seen *p, int64_t room, uint64_t hash) {
  uint64_t i = hash & (uint64_t)(room - 1);
  while (p[i].line && p[i].hash != hash) i = (i + 1) & (uint64_t)(room - 1);
  return &p[i];
}

static ist_status grow_table(seen_table *t, ist_error *err) {
  if (t->n * 2 < t->room) return IST_OK;
  int64_t room = t->room ? t->room * 2 : 1024;
  seen *p = ist_calloc((size_t)room, sizeof *p);
  if (!p) return ist_fail_nomem(err, "the table of records", (size_t)room * sizeof *p);
  for (int64_t i = 0; i < t->room; i++)
    if (t->p[i].line) *place_of(p, room, t->p[i].hash) = t->p[i];
  ist_free(t->p);
  t->p = p;
  t->room = room;
  return IST_OK;
}

static uint64_t hash_record(const ist_record *r) {
  uint64_t h = ist_hash_key(); /* no file can hold records that all fall on one place */
  for (int64_t i = 0; i < r->n_messages; i++) {
    h = XXH64(&r->message[i].role, sizeof r->message[i].role, h);
    h = XXH64(r->message[i].text, r->message[i].len, h);
    if (r->message[i].more) h = XXH64(r->message[i].more, strlen(r->message[i].more), h);
  }
  return r->variables ? XXH64(r->variables, strlen(r->variables), h) : h;
}

/* ---- Notes ---- */

static ist_status note(ist_doctor_notes *list, int64_t line, int64_t other, const char *text,
                       ist_error *err) {
  if (list->n++ >= IST_DOCTOR_NOTES) return IST_OK;
  ist_doctor_note *at = &list->p[list->n - 1];
  *at = (ist_doctor_note){line, other, text ? ist_strdup(text) : NULL};
  return text && !at->text ? ist_fail_nomem(err, "a note", strlen(text)) : IST_OK;
}

static bool is_blank(const char *p, size_t len) {
  for (size_t i = 0; i < len; i++)
    if (!strchr(" \t\r\n", p[i])) return false;
  return true;
}

/* ---- Records ---- */

typedef struct doctor_run {
  ist_doctor *d;
  char *path;
  const ist_tokenizer *tok;
  const ist_data_options *opt;
  int64_t show;
  seen_table table;
} doctor_run;

static ist_status look_for_copy(doctor_run *w, const ist_record *r, ist_error *err) {
  IST_TRY(grow_table(&w->table, err));
  uint64_t hash = hash_record(r);
  seen *at = place_of(w->table.p, w->table.room, hash);
  if (at->line) return note(&w->d->copies, r->line, at->line, NULL, err);
  *at = (seen){hash, r->line};
  w->table.n++;
  return IST_OK;
}

static ist_status look_for_empty(doctor_run *w, const ist_record *r, ist_error *err) {
  for (int64_t i = 0; i < r->n_messages; i++) {
    const ist_message *m = &r->message[i];
    bool calls = m->more && strstr(m->more, "\"tool_calls\"");
    if (m->role == IST_ROLE_ASSISTANT && !calls && is_blank(m->text, m->len))
      return note(&w->d->empty, r->line, 0, NULL, err);
  }
  return IST_OK;
}

static void count_length(ist_doctor *d, int64_t tokens) {
  int bin = 0;
  while (bin < IST_DOCTOR_BINS - 1 && tokens >> bin) bin++;
  d->bin[bin]++;
}

/* As training would: a dataset of this record alone. */
static ist_status tokenise(doctor_run *w, const ist_record *r, ist_error *err) {
  ist_doctor *d = w->d;
  ist_dataset one;
  const ist_records records = {.p = (ist_record *)(uintptr_t)r, .n = 1, .path = w->path};
  ist_error why = {0};
  ist_status status = ist_dataset_build(&one, &records, w->tok, w->opt, &why);
  if (status == IST_ERR_DATA && one.n_dropped == 0) /* the template or the tokeniser refuses it */
    return note(&d->failed, r->line, 0, why.message, err);
  if (status == IST_ERR_DATA) { /* nothing is supervised */
    d->dropped++;
    d->cut += one.n_cut; /* what was learned may have been behind the cut */
    count_length(d, 0);
    return IST_OK;
  }
  if (status != IST_OK) {
    if (err) *err = why;
    return status;
  }
  d->cut += one.n_cut;
  d->tokens += one.n_tokens;
  d->targets += one.n_target;
  if (one.max_len > d->longest) d->longest = one.max_len;
  count_length(d, one.p[0].n);
  if (d->shown.n < w->show) {
    status = ist_grow(&d->shown.p, &d->shown.cap, d->shown.n + 1, sizeof *d->shown.p, err);
    if (status == IST_OK) {
      d->shown.p[d->shown.n++] = one.p[0];
      one.n = 0; /* its sample has moved */
    }
  }
  ist_dataset_free(&one);
  return status;
}

static ist_status look_at(doctor_run *w, const ist_record *r, ist_error *err) {
  w->d->records++;
  IST_TRY(look_for_copy(w, r, err));
  IST_TRY(look_for_empty(w, r, err));
  return tokenise(w, r, err);
}

static ist_status stop(ist_doctor *d, const char *why, ist_error *err) {
  d->stopped = ist_strdup(why);
  return d->stopped ? IST_OK : ist_fail_nomem(err, "a note", strlen(why));
}

static ist_status read_all(doctor_run *w, ist_reader *reader, ist_error *err) {
  for (bool more = true; more;) {
    ist_record r;
    ist_error why = {0};
    if (w->d->failed.n == IST_DOCTOR_REFUSED)
      return stop(w->d, "what is behind so many refused records was not read", err);
    ist_status status = ist_reader_next(reader, &r, &more, &why);
    if (status == IST_ERR_DATA && more) {
      IST_TRY(note(&w->d->failed, r.line, 0, why.message, err));
      continue;
    }
    if (status == IST_ERR_DATA) return stop(w->d, why.message, err);
    if (status != IST_OK) {
      if (err) *err = why;
      return status;
    }
    if (!more) return IST_OK;
    if (w->opt->limit == 0 || w->d->records < w->opt->limit) status = look_at(w, &r, err);
    ist_record_free(&r);
    IST_TRY(status);
  }
  return IST_OK;
}

ist_status ist_doctor_read(ist_doctor *out, const char *path, const ist_tokenizer *tok,
                           const ist_data_options *opt, int64_t show, ist_error *err) {
  *out = (ist_doctor){0};
  ist_reader *reader = NULL;
  IST_TRY(ist_reader_open(&reader, path, err));
  doctor_run w = {.d = out, .path = ist_strdup(path), .tok = tok, .opt = opt, .show = show};
  ist_status status = w.path ? read_all(&w, reader, err) : ist_fail_nomem(err, path, strlen(path));
  ist_free(w.path);
  ist_free(w.table.p);
  ist_reader_close(reader);
  return status;
}

static void free_notes(ist_doctor_notes *list) {
  for (int64_t i = 0; i < list->n && i < IST_DOCTOR_NOTES; i++) ist_free(list->p[i].text);
}

void ist_doctor_free(ist_doctor *d) {
  free_notes(&d->failed);
  free_notes(&d->copies);
  free_notes(&d->empty);
  ist_free(d->stopped);
  ist_dataset_free(&d->shown);
  *d = (ist_doctor){0};
}
