/* opts.c: opts.def as a table, and the parser that reads it. */
#include "opts.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text.h"

const ist_command ist_commands[IST_N_COMMANDS] = {
#define COMMAND(id, name, arguments, most, run, summary, detail, example) \
  [IST_CMD_##id] = {name, arguments, summary, detail, example, most},
#include "opts.def"
};

enum {
#define COMMAND(id, name, arguments, most, run, summary, detail, example) id = 1u << IST_CMD_##id,
#include "opts.def"
  ALL = (1u << IST_N_COMMANDS) - 1
};

/* The C type behind each kind, checked below for every row of the table. */
enum {
  STORE_BOOL,
  STORE_INT,
  STORE_SEED,
  STORE_REAL,
  STORE_TEXT,
  STORE_FLAG = STORE_BOOL,
  STORE_SWITCH = STORE_BOOL,
  STORE_SIZE = STORE_INT,
  STORE_CHOICE = STORE_TEXT,
  STORE_FILE = STORE_TEXT,
  STORE_DIR = STORE_TEXT
};
#define STORED_IN(field) \
  _Generic(((ist_args *)0)->field, bool: STORE_BOOL, int64_t: STORE_INT, uint64_t: STORE_SEED, \
           double: STORE_REAL, const char *: STORE_TEXT)
#define OPTION(commands, name, letter, kind, field, metavar, domain, automatic, help) \
  _Static_assert(STORED_IN(field) == STORE_##kind, "the field of --" name " has another type");
#include "opts.def"

#define REQUIRED IST_OPT_REQUIRED
const ist_opt ist_opts[] = {
#define GROUP(title) {.kind = IST_OPT_GROUP, .help = title},
#define OPTION(commands, name, letter, kind, field, metavar, domain, automatic, help) \
  {commands, IST_OPT_##kind, name,   letter,    offsetof(ist_args, field),            \
   #field,   metavar,        domain, automatic, help},
#include "opts.def"
};
const int ist_n_opts = sizeof ist_opts / sizeof *ist_opts;

ist_status ist_cli_fail(ist_error *err, ist_status code, const char *fmt, ...) {
  if (!err) return code;
  va_list args;
  va_start(args, fmt);
  vsnprintf(err->message, sizeof err->message, fmt, args);
  va_end(args);
  err->code = code;
  err->hint[0] = '\0';
  return code;
}

void ist_cli_hint(ist_error *err, const char *fmt, ...) {
  if (!err) return;
  va_list args;
  va_start(args, fmt);
  vsnprintf(err->hint, sizeof err->hint, fmt, args);
  va_end(args);
}

void ist_args_init(ist_args *a) {
  memset(a, 0, sizeof *a);
  ist_train_options_init(&a->train);
  ist_eval_options_init(&a->eval);
  ist_generate_options_init(&a->generate);
  ist_merge_options_init(&a->merge);
  a->train.output = "out";
  a->compute = "auto";
  a->base_type = "none";
  a->backend = "cpu";
  a->task = "loss";
  a->shape = "smollm2-135m";
  a->type = "Q4_0";
  a->factor = a->train.suppress_factor;
  a->seconds = 25;
  a->data_show = 2;
}

/* ---- Looking up ------------------------------------------------------------ */

int ist_command_find(const char *name) {
  for (int i = 0; i < IST_N_COMMANDS; i++)
    if (!strcmp(ist_commands[i].name, name)) return i;
  return -1;
}

static bool knows(ist_command_id command, const ist_opt *o) {
  return o->kind != IST_OPT_GROUP && (o->commands & 1u << command);
}

const ist_opt *ist_opt_find(ist_command_id command, const char *name) {
  for (int i = 0; i < ist_n_opts; i++)
    if (knows(command, &ist_opts[i]) && !strcmp(ist_opts[i].name, name)) return &ist_opts[i];
  return NULL;
}

const ist_opt *ist_opt_find_key(ist_command_id command, const char *key) {
  for (int i = 0; i < ist_n_opts; i++) {
    if (!knows(command, &ist_opts[i])) continue;
    const char *dot = strrchr(ist_opts[i].key, '.');
    if (!strcmp(dot ? dot + 1 : ist_opts[i].key, key)) return &ist_opts[i];
  }
  return NULL;
}

static const ist_opt *find_letter(ist_command_id command, char letter) {
  for (int i = 0; i < ist_n_opts; i++)
    if (knows(command, &ist_opts[i]) && ist_opts[i].letter == letter) return &ist_opts[i];
  return NULL;
}

/* Keeps in *best the candidate nearest to `text`, where it is near enough to be
 * a slip of the fingers: a third of its letters, but two at least. */
static void consider(const char *text, const char *candidate, int *distance, const char **best) {
  int d = ist_edit_distance(text, candidate);
  int near = (int)strlen(candidate) / 3;
  if (d <= (near > 2 ? near : 2) && d < (int)strlen(candidate) && d < *distance) {
    *distance = d;
    *best = candidate;
  }
}

static const char *nearest_option(ist_command_id command, const char *text) {
  const char *best = NULL;
  int distance = 1000;
  for (int i = 0; i < ist_n_opts; i++)
    if (knows(command, &ist_opts[i])) consider(text, ist_opts[i].name, &distance, &best);
  return best;
}

static const char *nearest_command(const char *text) {
  const char *best = NULL;
  int distance = 1000;
  for (int i = 0; i < IST_N_COMMANDS; i++) consider(text, ist_commands[i].name, &distance, &best);
  consider(text, "help", &distance, &best);
  return best;
}

/* ---- Values ---------------------------------------------------------------- */

typedef struct interval {
  double low, high; /* -INFINITY and INFINITY where there is no bound */
  bool open_low, open_high;
} interval;

static interval interval_of(const ist_opt *o) {
  interval v = {-INFINITY, INFINITY, false, false};
  const char *comma = strchr(o->domain, ',');
  if (!comma) return v;
  v.open_low = o->domain[0] == '(';
  v.open_high = o->domain[strlen(o->domain) - 1] == ')';
  v.low = strtod(o->domain + 1, NULL);
  if (comma[1] != ')') v.high = strtod(comma + 1, NULL);
  return v;
}

static bool within(const interval *v, double x) {
  return (v->open_low ? x > v->low : x >= v->low) && (v->open_high ? x < v->high : x <= v->high);
}

const char *ist_opt_choice(const ist_opt *o, int i, size_t *len) {
  const char *p = o->domain;
  for (; i > 0; i--) {
    p = strchr(p, '|');
    if (!p) return NULL;
    p++;
  }
  *len = strcspn(p, "|:");
  *len += p[*len] == ':';
  return p;
}

void ist_opt_expected(const ist_opt *o, char *out, size_t cap) {
  size_t len, at = 0;
  const char *noun = o->kind == IST_OPT_REAL ? "a number" : "a whole number";
  interval v = interval_of(o);
  switch (o->kind) {
    case IST_OPT_CHOICE:
      at = (size_t)snprintf(out, cap, "%s", strchr(o->domain, '|') ? "one of " : "");
      for (int i = 0; at < cap; i++) {
        const char *choice = ist_opt_choice(o, i, &len);
        if (!choice) break;
        at += (size_t)snprintf(out + at, cap - at, "%s%.*s", i ? ", " : "",
                               (int)strcspn(choice, "|"), choice);
      }
      return;
    case IST_OPT_INT:
    case IST_OPT_REAL:
      if (isfinite(v.low) && isfinite(v.high) && !v.open_low && !v.open_high) {
        snprintf(out, cap, "%s from %.10g to %.10g", noun, v.low, v.high);
        return;
      }
      at = (size_t)snprintf(out, cap, "%s", noun);
      if (isfinite(v.low))
        at += (size_t)snprintf(out + at, cap - at, " %s %.10g",
                               v.open_low ? "above" : "of at least", v.low);
      if (isfinite(v.high))
        snprintf(out + at, cap - at, " and %s %.10g", v.open_high ? "below" : "at most", v.high);
      return;
    case IST_OPT_SEED:
      snprintf(out, cap, "a whole number from 0 to %lld", (long long)INT64_MAX);
      return;
    case IST_OPT_SIZE: snprintf(out, cap, "a size such as 512M, 4G or a number of bytes"); return;
    case IST_OPT_FILE: snprintf(out, cap, "a file"); return;
    case IST_OPT_DIR: snprintf(out, cap, "a directory"); return;
    case IST_OPT_FLAG:
    case IST_OPT_SWITCH: snprintf(out, cap, "true or false"); return;
    default: snprintf(out, cap, "a text"); return;
  }
}

/* Only decimal digits, sign, point and exponent: strtod alone takes "nan", "inf"
 * and hexadecimal. */
static bool read_real(const char *text, double *out) {
  char *end;
  if (!*text || strspn(text, "0123456789+-.eE") != strlen(text)) return false;
  *out = strtod(text, &end);
  return !*end && isfinite(*out);
}

static bool read_int(const char *text, int64_t *out) {
  char *end;
  size_t sign = *text == '-';
  if (!text[sign] || strspn(text + sign, "0123456789") != strlen(text + sign)) return false;
  errno = 0;
  *out = strtoll(text, &end, 10);
  return !*end && !errno;
}

/* "4G", "512MiB", "1.5g", "4096". Units are powers of 1,024. */
static bool read_size(const char *text, int64_t *out) {
  static const char units[] = "bkmgt";
  char digits[32];
  size_t n = strspn(text, "0123456789.");
  double value;
  if (!n || n >= sizeof digits) return false;
  memcpy(digits, text, n);
  digits[n] = '\0';
  if (!read_real(digits, &value)) return false;
  const char *unit = text + n;
  if (*unit) {
    const char *found = strchr(units, *unit | 0x20);
    if (!found) return false;
    value = ldexp(value, 10 * (int)(found - units));
    unit++;
    if (*unit == 'i' && found != units) unit++;
    if ((*unit == 'b' || *unit == 'B') && found != units) unit++;
  }
  if (*unit || value >= 0x1p63) return false;
  *out = (int64_t)value;
  return true;
}

static bool is_choice(const ist_opt *o, const char *text) {
  size_t len;
  const char *choice;
  for (int i = 0; (choice = ist_opt_choice(o, i, &len)); i++) {
    bool open_ended = choice[len - 1] == ':';
    if (!strncmp(choice, text, len) && (open_ended ? text[len] != '\0' : text[len] == '\0'))
      return true;
  }
  return false;
}

static void hint_choice(const ist_opt *o, const char *text, ist_error *err) {
  char names[16][32];
  const char *choice, *best = NULL;
  size_t len;
  int distance = 1000;
  for (int i = 0; i < 16 && (choice = ist_opt_choice(o, i, &len)); i++) {
    bool open_ended = choice[len - 1] == ':';
    if (open_ended) continue; /* what follows it cannot be guessed */
    snprintf(names[i], sizeof names[i], "%.*s", (int)len, choice);
    if (!strncmp(choice, text, strlen(text)) && *text) best = names[i], distance = 0;
    consider(text, names[i], &distance, &best);
  }
  if (best) ist_cli_hint(err, "did you mean %s?", best);
}

static ist_status refuse(const ist_opt *o, const char *text, const char *where, ist_error *err) {
  char expected[256];
  ist_opt_expected(o, expected, sizeof expected);
  ist_cli_fail(err, IST_ERR_ARG, "%s: found \"%s\", expected %s", where, text, expected);
  if (o->kind == IST_OPT_CHOICE) hint_choice(o, text, err);
  return IST_ERR_ARG;
}

ist_status ist_opt_set(ist_args *a, const ist_opt *o, const char *text, const char *where,
                       ist_error *err) {
  void *field = (char *)a + o->offset;
  interval range = interval_of(o);
  int64_t whole = 0;
  double real = 0;
  bool ok = true;
  switch (o->kind) {
    case IST_OPT_FLAG:
    case IST_OPT_SWITCH:
      ok = !strcmp(text, "true") || !strcmp(text, "false");
      if (ok) *(bool *)field = *text == 't';
      break;
    case IST_OPT_INT:
      ok = read_int(text, &whole) && within(&range, (double)whole);
      if (ok) *(int64_t *)field = whole;
      break;
    case IST_OPT_SEED:
      ok = read_int(text, &whole) && whole >= 0;
      if (ok) *(uint64_t *)field = (uint64_t)whole;
      break;
    case IST_OPT_SIZE:
      ok = read_size(text, &whole) && within(&range, (double)whole);
      if (ok) *(int64_t *)field = whole;
      break;
    case IST_OPT_REAL:
      ok = read_real(text, &real) && within(&range, real);
      if (ok) *(double *)field = real;
      break;
    case IST_OPT_CHOICE: ok = is_choice(o, text); /* fall through */
    default:
      ok = ok && *text;
      if (ok) *(const char **)field = text;
  }
  return ok ? IST_OK : refuse(o, text, where, err);
}

void ist_opt_default(const ist_opt *o, const ist_args *defaults, char *out, size_t cap) {
  const void *field = (const char *)defaults + o->offset;
  const char *text = NULL;
  double value = 0;
  char number[32] = "";
  switch (o->kind) {
    case IST_OPT_FLAG: break;
    case IST_OPT_SWITCH: text = *(const bool *)field ? "on" : "off"; break;
    case IST_OPT_SEED:
      snprintf(number, sizeof number, "%llu", (unsigned long long)*(const uint64_t *)field);
      break;
    case IST_OPT_INT:
    case IST_OPT_SIZE:
      value = (double)*(const int64_t *)field;
      snprintf(number, sizeof number, "%lld", (long long)*(const int64_t *)field);
      break;
    case IST_OPT_REAL:
      value = *(const double *)field;
      snprintf(number, sizeof number, "%.10g", value);
      break;
    default: text = *(const char *const *)field;
  }
  if (*number) text = value <= 0 && o->automatic ? NULL : number;
  if (!text) text = o->automatic ? o->automatic : "";
  snprintf(out, cap, "%s", text);
}

/* ---- The line --------------------------------------------------------------- */

typedef struct given {
  const ist_opt *option;
  const char *value;
  char where[40]; /* as it was spelled: "--rank", "-r" */
} given;

typedef struct line {
  given *option;
  int n;
} line;

static ist_status unknown_option(ist_command_id command, const char *spelled, const char *name,
                                 ist_error *err) {
  const char *best = nearest_option(command, name);
  if (!best && !strncmp(name, "no-", 3)) best = nearest_option(command, name + 3);
  ist_cli_fail(err, IST_ERR_ARG, "unknown option %s of ist %s", spelled,
               ist_commands[command].name);
  for (int i = 0; i < IST_N_COMMANDS && !best; i++) {
    if (ist_opt_find(i, name)) {
      ist_cli_hint(err, "--%s is an option of ist %s", name, ist_commands[i].name);
      return IST_ERR_ARG;
    }
  }
  if (best)
    ist_cli_hint(err, "did you mean --%s?", best);
  else
    ist_cli_hint(err, "ist help %s lists the options", ist_commands[command].name);
  return IST_ERR_ARG;
}

/* One option at argv[*i]; moves *i over a value that stands apart. */
static ist_status take_option(line *l, ist_command_id command, int argc, char **argv, int *i,
                              ist_error *err) {
  const char *arg = argv[*i], *inside = NULL;
  const ist_opt *o;
  given *g = &l->option[l->n];
  bool negated = false;
  if (arg[1] == '-') {
    size_t len = strcspn(arg + 2, "=");
    char name[64];
    snprintf(name, sizeof name, "%.*s", (int)(len < 63 ? len : 63), arg + 2);
    inside = arg[2 + len] ? arg + 3 + len : NULL;
    o = ist_opt_find(command, name);
    if (!o && !strncmp(name, "no-", 3)) {
      o = ist_opt_find(command, name + 3);
      if (o && o->kind != IST_OPT_SWITCH) o = NULL;
      negated = o != NULL;
    }
    snprintf(g->where, sizeof g->where, "--%.37s", name);
    if (!o) return unknown_option(command, g->where, name, err);
  } else {
    o = find_letter(command, arg[1]);
    snprintf(g->where, sizeof g->where, "-%c", arg[1]);
    if (!o) return unknown_option(command, g->where, arg + 1, err);
    snprintf(g->where, sizeof g->where, "-%c (--%.30s)", arg[1], o->name);
    inside = arg[2] ? arg + 2 + (arg[2] == '=') : NULL;
  }
  if (!ist_opt_takes_value(o)) {
    if (inside)
      return ist_cli_fail(err, IST_ERR_ARG, "%s: found \"%s\", expected no value", g->where,
                          inside);
    g->value = negated ? "false" : "true";
  } else if (inside) {
    g->value = inside;
  } else if (*i + 1 < argc && strncmp(argv[*i + 1], "--", 2)) {
    g->value = argv[++*i];
  } else {
    char expected[256];
    ist_opt_expected(o, expected, sizeof expected);
    return ist_cli_fail(err, IST_ERR_ARG, "%s: found no value, expected %s", g->where, expected);
  }
  g->option = o;
  l->n++;
  return IST_OK;
}

static ist_status take_argument(ist_args *a, const char *text, ist_error *err) {
  const ist_command *c = &ist_commands[a->command];
  if (a->argument && !a->second && c->most > 1) {
    a->second = text;
    return IST_OK;
  }
  if (a->argument || !c->most) {
    ist_cli_fail(err, IST_ERR_ARG, "unexpected argument \"%s\" of ist %s", text, c->name);
    if (c->most)
      ist_cli_hint(err, "quote an argument that has spaces");
    else
      ist_cli_hint(err, "ist help %s lists the options", c->name);
    return IST_ERR_ARG;
  }
  a->argument = text;
  return IST_OK;
}

static const given *last_given(const line *l, const char *name) {
  for (int i = l->n - 1; i >= 0; i--)
    if (!strcmp(l->option[i].option->name, name)) return &l->option[i];
  return NULL;
}

/* Settings of the run that is resumed, then the preset, then the line itself. */
static ist_status apply(ist_args *a, const line *l, ist_error *err) {
  const given *resume = last_given(l, "resume"), *preset = last_given(l, "preset");
  const given *output = last_given(l, "output");
  ist_status s = IST_OK;
  if (last_given(l, "help")) {
    a->help = true;
    return IST_OK;
  }
  if (resume && preset)
    return ist_cli_fail(err, IST_ERR_ARG,
                        "--preset and --resume exclude each other: a run keeps its settings");
  if (resume && output && strcmp(resume->value, output->value))
    return ist_cli_fail(err, IST_ERR_ARG,
                        "--output %s and --resume %s: a run stays in its directory", output->value,
                        resume->value);
  if (resume) s = ist_settings_apply(a, resume->value, err);
  if (!s && preset) s = ist_opt_set(a, preset->option, preset->value, preset->where, err);
  if (!s && preset) s = ist_train_options_preset(&a->train, preset->value, err);
  for (int i = 0; i < l->n && !s; i++)
    s = ist_opt_set(a, l->option[i].option, l->option[i].value, l->option[i].where, err);
  if (!s && resume) {
    a->train.output = a->resume_dir;
    a->train.resume = true;
  }
  return s;
}

static ist_status check_required(const ist_args *a, ist_error *err) {
  const ist_command *c = &ist_commands[a->command];
  for (int i = 0; i < ist_n_opts; i++) {
    const ist_opt *o = &ist_opts[i];
    if (!knows(a->command, o) || !o->automatic || strcmp(o->automatic, REQUIRED)) continue;
    if (*(const char *const *)((const char *)a + o->offset)) continue;
    ist_cli_fail(err, IST_ERR_ARG, "ist %s needs --%s %s: %s", c->name, o->name, o->metavar,
                 o->help);
    ist_cli_hint(err, "%.*s", (int)strcspn(c->example, "\n"), c->example);
    return IST_ERR_ARG;
  }
  bool complete = c->most > 1 ? a->second != NULL : a->argument != NULL;
  if (c->arguments[0] && c->arguments[0] != '[' && !complete) {
    ist_cli_fail(err, IST_ERR_ARG, "ist %s needs %s", c->name, c->arguments);
    ist_cli_hint(err, "%.*s", (int)strcspn(c->example, "\n"), c->example);
    return IST_ERR_ARG;
  }
  return IST_OK;
}

ist_status ist_args_parse(ist_args *a, int argc, char **argv, ist_error *err) {
  ist_args_init(a);
  int command = argc > 1 ? ist_command_find(argv[1]) : -1;
  if (command < 0) {
    const char *found = argc > 1 ? argv[1] : "";
    const char *best = nearest_command(found);
    if (!*found)
      ist_cli_fail(err, IST_ERR_ARG, "no command");
    else if (*found == '-')
      ist_cli_fail(err, IST_ERR_ARG, "found %s, expected a command first", found);
    else
      ist_cli_fail(err, IST_ERR_ARG, "unknown command \"%s\"", found);
    if (best && *found != '-')
      ist_cli_hint(err, "did you mean ist %s?", best);
    else
      ist_cli_hint(err, "ist help lists the commands");
    return IST_ERR_ARG;
  }
  a->command = command;
  line l = {calloc((size_t)argc, sizeof(given)), 0};
  if (!l.option) return ist_cli_fail(err, IST_ERR_NOMEM, "out of memory");
  ist_status s = IST_OK;
  bool only_arguments = false;
  for (int i = 2; i < argc && !s; i++) {
    if (!only_arguments && !strcmp(argv[i], "--"))
      only_arguments = true;
    else if (only_arguments || argv[i][0] != '-' || !argv[i][1])
      s = take_argument(a, argv[i], err);
    else
      s = take_option(&l, a->command, argc, argv, &i, err);
  }
  if (!s) s = apply(a, &l, err);
  if (!s && !a->help) s = check_required(a, err);
  free(l.option);
  return s;
}
