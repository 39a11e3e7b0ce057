/* The parts of the template engine: lex.c and parse.c make a tree of nodes, eval.c
 * walks it; values are in value.c, their text and methods in text.c, methods.c,
 * filters.c and json.c. */
#ifndef IST_JINJA_INTERNAL_H
#define IST_JINJA_INTERNAL_H

#include <setjmp.h>

#include "jinja/jinja.h"

/* ---- Memory: all that belongs together is freed together ---- */

typedef struct ist_jinja_block {
  struct ist_jinja_block *next;
  max_align_t data[];
} jinja_block;
typedef struct ist_jinja_arena {
  jinja_block *block;
  size_t used, size;   /* of the first block */
  size_t total, limit; /* of all */
} jinja_arena;
/* NULL where memory or the limit ends. */
void *ist_jinja_take(jinja_arena *a, size_t size);
void ist_jinja_drop(jinja_arena *a);

/* ---- Values ---- */

typedef enum ist_jinja_kind {
  V_UNDEFINED, /* name: what is undefined */
  V_NONE,
  V_BOOL,
  V_INT,
  V_FLOAT,
  V_STRING,
  V_LIST,      /* and tuples */
  V_GENERATOR, /* a list that is gone through once, has no length and is no JSON */
  V_DICT,      /* and namespaces */
  V_MACRO,
  V_FUNCTION, /* a global function, by number */
  V_METHOD,   /* a method of a value */
  V_LOOP,
  V_CYCLER
} jinja_kind;

typedef struct ist_jinja_str {
  const char *p;
  size_t len;
  const uint16_t *origin; /* NULL: the template's */
} jinja_str;

typedef struct ist_jinja_value {
  uint8_t kind;
  bool tuple, space; /* of lists: a tuple; of dicts: a namespace, which can be assigned to */
  bool safe;         /* of strings: markup, in sums with which other strings are escaped */
  bool refused;      /* of undefined: a method that would change its value */
  union {
    bool b;
    int64_t i;
    double f;
    const jinja_str *s;
    struct ist_jinja_list *list;
    struct ist_jinja_dict *dict;
    struct ist_jinja_macro *macro;
    struct ist_jinja_method *method;
    struct ist_jinja_loop *loop;
    struct ist_jinja_cycler *cycler;
    const char *name; /* of undefined */
    int function;
  };
} jinja_value;

typedef struct ist_jinja_list {
  jinja_value *p;
  int64_t n, cap;
} jinja_list;
typedef struct ist_jinja_pair {
  jinja_value key, value;
} jinja_pair;
typedef struct ist_jinja_dict {
  jinja_pair *p;
  int64_t n, cap;
} jinja_dict;
typedef struct ist_jinja_method {
  jinja_value self;
  const char *name;
} jinja_method;
typedef struct ist_jinja_loop {
  jinja_list *items;
  int64_t at, depth;
  bool seen; /* changed() was asked before, of: */
  jinja_value last;
} jinja_loop;
typedef struct ist_jinja_cycler {
  jinja_list *items;
  int64_t at;
  bool joiner;
} jinja_cycler;

/* ---- The tree ---- */

typedef enum ist_jinja_op {
  /* expressions */
  N_LITERAL,
  N_NAME,
  N_LIST,
  N_TUPLE,
  N_DICT,  /* items: key, value, ... */
  N_ATTR,  /* a.name */
  N_INDEX, /* a[b] */
  N_SLICE, /* a[b:c:d]; of `items`, absent ones NULL */
  N_CALL,  /* a(args) */
  N_FILTER,
  N_TEST,
  N_NOT,
  N_NEG,
  N_POS,
  N_AND,
  N_OR,
  N_COMPARE, /* a op b op c: items, with `compare` */
  N_ADD,
  N_SUB,
  N_MUL,
  N_DIV,
  N_FLOORDIV,
  N_MOD,
  N_POW,
  N_CONCAT,
  N_IF_EXPR, /* a if b else c */
  /* statements */
  N_TEXT,
  N_OUTPUT,
  N_BLOCK,        /* items in order */
  N_IF,           /* a: condition, b: body, c: else */
  N_FOR,          /* a: target, b: iterable, c: body, d: else, e: condition */
  N_SET,          /* a: target, b: value */
  N_SET_BLOCK,    /* a: target, b: body, c: filters on N_CAPTURED */
  N_CAPTURED,     /* the text of the block that a filter is for */
  N_FILTER_BLOCK, /* b: body, c: filters */
  N_MACRO,        /* name, args as items: name nodes and defaults; b: body */
  N_CALL_BLOCK,   /* a: call, b: the macro `caller` */
  N_WITH,         /* items: target, value, ...; b: body */
  N_GENERATION,   /* b: body */
  N_BREAK,
  N_CONTINUE
} jinja_op;

typedef enum ist_jinja_compare { C_EQ, C_NE, C_LT, C_LE, C_GT, C_GE, C_IN, C_NOT_IN } jinja_compare;

typedef struct ist_jinja_node {
  uint8_t op;
  bool negated; /* of tests */
  int32_t line;
  const char *name; /* interned: equal names are one pointer */
  struct ist_jinja_node *a, *b, *c, *d, *e;
  struct ist_jinja_node **items;
  const char **names; /* of calls: names of the last n_names items; */
  uint8_t *compare;
  int32_t n_items, n_names;
  jinja_value literal;
} jinja_node;

typedef struct ist_jinja_macro {
  const jinja_node *node;
  struct ist_jinja_frame *frame; /* where it was defined */
} jinja_macro;

struct ist_jinja {
  jinja_arena arena;
  jinja_node *root;
  const char **names; /* interned: a hash table, at most half full; NULL: empty */
  uint32_t n_names, size_names;
  uint64_t key; /* of the hash */
  bool generation;
};
/* NULL where memory ends. */
const char *ist_jinja_intern(ist_jinja *t, const char *p, size_t len);
/* The interned name; NULL: the template never mentions it. */
const char *ist_jinja_known(const ist_jinja *t, const char *name);

/* ---- lex.c ---- */

typedef enum ist_jinja_token_kind {
  T_TEXT,
  T_BLOCK_BEGIN,
  T_BLOCK_END,
  T_VAR_BEGIN,
  T_VAR_END,
  T_NAME,
  T_STRING,
  T_INT,
  T_FLOAT,
  T_OP, /* of one to two characters */
  T_END
} jinja_token_kind;
typedef struct ist_jinja_token {
  jinja_token_kind kind;
  int32_t line;
  const char *p; /* text, name; a string unescaped */
  size_t len;
  double f;
  int64_t i;
} jinja_token;
typedef struct ist_jinja_tokens {
  jinja_token *p;
  int64_t n, cap;
} jinja_tokens;
ist_status ist_jinja_lex(jinja_tokens *out, jinja_arena *arena, const char *text, size_t len,
                         ist_error *err);
ist_status ist_jinja_build(ist_jinja *t, const jinja_tokens *tokens, ist_error *err);

/* ---- Rendering ---- */

typedef struct ist_jinja_frame {
  struct ist_jinja_frame *parent;
  struct ist_jinja_variable {
    const char *name;
    jinja_value value;
  } * var;
  int32_t n, cap;
} jinja_frame;

/* Text being written. */
typedef struct ist_jinja_out {
  char *p;
  uint16_t *origin;
  size_t len, cap;
} jinja_out;

typedef struct ist_jinja_run {
  const ist_jinja *t;
  jinja_arena arena;
  jinja_frame *frame;
  jinja_out *out;
  int64_t steps, max_steps;
  int depth;
  int32_t line;
  time_t now;
  jinja_value captured; /* what N_CAPTURED reads */
  int64_t loops;        /* nested loops */
  enum { FLOW_ON, FLOW_BREAK, FLOW_CONTINUE } flow;
  jmp_buf fail;
  ist_status status;
  char message[512];
} jinja_run;

/* Arguments of a call. */
typedef struct ist_jinja_args {
  jinja_value *p;
  int64_t n; /* positional ones */
  const char **name;
  jinja_value *named;
  int64_t n_named;
} jinja_args;

/* Ends the rendering. */
_Noreturn void ist_jinja_fail(jinja_run *r, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
void ist_jinja_step(jinja_run *r, int64_t n);
/* Work on bytes, in steps that take about as long as one of the walk through the tree: bytes that
 * are copied or compared many at a time; those that are looked at one by one. What goes through
 * a list takes a step for each item. */
void ist_jinja_step_bytes(jinja_run *r, size_t n);
void ist_jinja_step_chars(jinja_run *r, size_t n);
enum { IST_JINJA_FLOAT = 32 }; /* the steps of printing a float */
/* Expressions, blocks and filters within each other; every enter has its leave. */
void ist_jinja_enter(jinja_run *r);
void ist_jinja_leave(jinja_run *r);
void *ist_jinja_new(jinja_run *r, size_t count, size_t size); /* zeroed */

/* value.c */
jinja_value ist_jinja_none(void);
jinja_value ist_jinja_bool(bool b);
jinja_value ist_jinja_int(int64_t i);
jinja_value ist_jinja_float(double f);
jinja_value ist_jinja_undefined(const char *name);
jinja_value ist_jinja_text(jinja_run *r, const char *p, size_t len, const uint16_t *origin);
jinja_value ist_jinja_str(jinja_run *r, const char *text);
jinja_value ist_jinja_new_list(jinja_run *r, int64_t cap);
void ist_jinja_append(jinja_run *r, jinja_value list, jinja_value item);
jinja_value ist_jinja_new_dict(jinja_run *r);
void ist_jinja_put(jinja_run *r, jinja_dict *d, jinja_value key, jinja_value value);
jinja_value *ist_jinja_get(jinja_run *r, const jinja_dict *d, jinja_value key); /* NULL: absent */
jinja_value *ist_jinja_get_text(jinja_run *r, const jinja_dict *d, const char *key);
bool ist_jinja_true(jinja_value v);
bool ist_jinja_equal(jinja_run *r, jinja_value a, jinja_value b);
int ist_jinja_order(jinja_run *r, jinja_value a, jinja_value b); /* fails where there is none */
bool ist_jinja_contains(jinja_run *r, jinja_value where, jinja_value what);
bool ist_jinja_is_number(jinja_value v); /* booleans too */
double ist_jinja_number(jinja_value v);
int64_t ist_jinja_whole(jinja_run *r, jinja_value v);   /* a number without its fraction */
int64_t ist_jinja_integer(jinja_run *r, jinja_value v); /* fails for a float, even a whole one */
bool ist_jinja_is(const jinja_str *s, const char *text);
const char *ist_jinja_kind_name(jinja_value v); /* Python's */
/* The items of anything that can be gone through; a generator has none left then. */
jinja_list *ist_jinja_items(jinja_run *r, jinja_value v);
jinja_value ist_jinja_from_json(jinja_run *r, const json_t *v, uint16_t origin);
jinja_value ist_jinja_from_message(jinja_run *r, const json_t *v, uint16_t origin);
jinja_value ist_jinja_copy(jinja_run *r, jinja_value v); /* a list of the same items */

/* text.c */
jinja_out *ist_jinja_out_new(jinja_run *r);
void ist_jinja_write(jinja_run *r, jinja_out *o, const char *p, size_t len, const uint16_t *origin);
void ist_jinja_write_one(jinja_run *r, jinja_out *o, const char *p, size_t len, uint16_t origin);
void ist_jinja_puts(jinja_run *r, jinja_out *o, const char *text);
jinja_value ist_jinja_out_value(jinja_run *r, const jinja_out *o);
/* str(v), and repr(v) */
void ist_jinja_print(jinja_run *r, jinja_out *o, jinja_value v);
void ist_jinja_repr(jinja_run *r, jinja_out *o, jinja_value v);
const jinja_str *ist_jinja_string(jinja_run *r, jinja_value v); /* str(v) */
void ist_jinja_format_float(char out[64], double f);
int64_t ist_jinja_length(jinja_run *r, const jinja_str *s);            /* in characters */
size_t ist_jinja_char_at(jinja_run *r, const jinja_str *s, int64_t i); /* its byte, or the end */
/* Character i, of negative ones from the end. */
jinja_value ist_jinja_char(jinja_run *r, const jinja_str *s, int64_t i);
jinja_value ist_jinja_sub(jinja_run *r, const jinja_str *s, size_t begin, size_t end);
/* Where i, on its way to `to`, is after one more step: never past 64 bits. */
static inline int64_t ist_jinja_advance(int64_t i, int64_t step, int64_t to) {
  int64_t next;
  return __builtin_add_overflow(i, step, &next) ? to : next;
}
jinja_value ist_jinja_slice(jinja_run *r, jinja_value v, const jinja_value bound[3]);
jinja_value ist_jinja_strip(jinja_run *r, const jinja_str *s, const jinja_str *chars, int sides);
jinja_value ist_jinja_replace(jinja_run *r, const jinja_str *s, const jinja_str *from,
                              const jinja_str *to, int64_t count);
jinja_value ist_jinja_case(jinja_run *r, const jinja_str *s, char how); /* u, l, t, c */
jinja_value ist_jinja_percent(jinja_run *r, const jinja_str *s, jinja_value args);
/* Where it is, in bytes; -1: nowhere. */
int64_t ist_jinja_find(jinja_run *r, const jinja_str *s, const jinja_str *what, size_t from);

/* methods.c, for filters */
int64_t ist_jinja_count_words(jinja_run *r, const jinja_str *s); /* of letters, digits and "_" */
size_t ist_jinja_line_break(const jinja_str *s, size_t at);      /* its size; 0: none is there */

/* json.c */
void ist_jinja_to_json(jinja_run *r, jinja_out *o, jinja_value v, const jinja_args *args);

/* methods.c, filters.c */
bool ist_jinja_listed(const char *const *names, const char *name); /* up to a NULL */
bool ist_jinja_has_method(jinja_value v, const char *name);
bool ist_jinja_changes(jinja_value v, const char *method); /* a method that is refused */
jinja_value ist_jinja_call_method(jinja_run *r, const jinja_method *m, const jinja_args *a);
jinja_value ist_jinja_filter(jinja_run *r, const char *name, jinja_value v, const jinja_args *a);
bool ist_jinja_test(jinja_run *r, const char *name, jinja_value v, const jinja_args *a);
/* Argument i, or the one of that name, or `absent`. */
jinja_value ist_jinja_arg(const jinja_args *a, int64_t i, const char *name, jinja_value absent);

/* eval.c */
/* The whole template; strings of the fields named in `markers` are its own. */
void ist_jinja_execute(jinja_run *r, const json_t *globals, const char *const *markers);
jinja_value ist_jinja_attribute(jinja_run *r, jinja_value v, const char *name);
jinja_value ist_jinja_index(jinja_run *r, jinja_value v, jinja_value key);
jinja_value ist_jinja_call(jinja_run *r, jinja_value f, const jinja_args *a);
jinja_value ist_jinja_add(jinja_run *r, jinja_value a, jinja_value b);

/* functions.c */
int ist_jinja_function(const char *name); /* -1: none */
jinja_value ist_jinja_call_function(jinja_run *r, int function, const jinja_args *a);

#endif
