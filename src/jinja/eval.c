/* Walks the tree. */
#include <math.h>
#include <string.h>

#include "jinja/internal.h"

static jinja_value eval(jinja_run *r, const jinja_node *n);
static void execute(jinja_run *r, const jinja_node *n);

/* ---- Names ---- */

static jinja_frame *push_frame(jinja_run *r, jinja_frame *parent) {
  jinja_frame *f = ist_jinja_new(r, 1, sizeof *f);
  f->parent = parent;
  return f;
}

static void assign(jinja_run *r, jinja_frame *f, const char *name, jinja_value v) {
  for (int32_t i = 0; i < f->n; i++) {
    if (i % 32 == 31) ist_jinja_step(r, 1);
    if (f->var[i].name != name) continue;
    f->var[i].value = v;
    return;
  }
  if (f->n == f->cap) {
    int32_t cap = f->cap ? 2 * f->cap : 4;
    struct ist_jinja_variable *grown = ist_jinja_new(r, (size_t)cap, sizeof *grown);
    if (f->n) memcpy(grown, f->var, (size_t)f->n * sizeof *grown);
    f->var = grown;
    f->cap = cap;
  }
  f->var[f->n++] = (struct ist_jinja_variable){name, v};
}

static jinja_value look_up(jinja_run *r, const char *name) {
  int depth = 0;
  for (const jinja_frame *f = r->frame; f; f = f->parent) {
    if (++depth % 8 == 0) ist_jinja_step(r, 1);
    for (int32_t i = 0; i < f->n; i++) {
      if (i % 32 == 31) ist_jinja_step(r, 1);
      if (f->var[i].name == name) return f->var[i].value;
    }
  }
  int function = ist_jinja_function(name);
  if (function >= 0) return (jinja_value){.kind = V_FUNCTION, .function = function};
  return ist_jinja_undefined(name);
}

static void assign_target(jinja_run *r, const jinja_node *target, jinja_value v) {
  if (target->op == N_NAME) {
    assign(r, r->frame, target->name, v);
  } else if (target->op == N_ATTR) {
    jinja_value space = look_up(r, target->a->name);
    if (space.kind != V_DICT || !space.space)
      ist_jinja_fail(r, "cannot assign attribute on non-namespace object");
    ist_jinja_put(r, space.dict, ist_jinja_str(r, target->name), v);
  } else {
    const jinja_list *l = ist_jinja_items(r, v);
    if (l->n != target->n_items)
      ist_jinja_fail(r, "%lld values to unpack, expected %d", (long long)l->n,
                     (int)target->n_items);
    for (int32_t i = 0; i < target->n_items; i++) assign_target(r, target->items[i], l->p[i]);
  }
}

/* ---- Attributes and items ---- */

static jinja_value loop_attribute(const jinja_loop *l, const char *name) {
  int64_t n = l->items->n;
  if (strcmp(name, "index") == 0) return ist_jinja_int(l->at + 1);
  if (strcmp(name, "index0") == 0) return ist_jinja_int(l->at);
  if (strcmp(name, "revindex") == 0) return ist_jinja_int(n - l->at);
  if (strcmp(name, "revindex0") == 0) return ist_jinja_int(n - l->at - 1);
  if (strcmp(name, "first") == 0) return ist_jinja_bool(l->at == 0);
  if (strcmp(name, "last") == 0) return ist_jinja_bool(l->at == n - 1);
  if (strcmp(name, "length") == 0) return ist_jinja_int(n);
  if (strcmp(name, "depth") == 0) return ist_jinja_int(1);
  if (strcmp(name, "depth0") == 0) return ist_jinja_int(0);
  if (strcmp(name, "previtem") == 0 && l->at > 0) return l->items->p[l->at - 1];
  if (strcmp(name, "nextitem") == 0 && l->at + 1 < n) return l->items->p[l->at + 1];
  return ist_jinja_undefined(name);
}

static jinja_value method(jinja_run *r, jinja_value self, const char *name) {
  jinja_method *m = ist_jinja_new(r, 1, sizeof *m);
  *m = (jinja_method){self, name};
  return (jinja_value){.kind = V_METHOD, .method = m};
}

jinja_value ist_jinja_attribute(jinja_run *r, jinja_value v, const char *name) {
  if (v.kind == V_UNDEFINED) ist_jinja_fail(r, "'%s' is undefined", v.name);
  if (ist_jinja_has_method(v, name)) return method(r, v, name);
  if (ist_jinja_changes(v, name))
    return (jinja_value){.kind = V_UNDEFINED, .refused = true, .name = name};
  if (v.kind == V_LOOP) return loop_attribute(v.loop, name);
  if (v.kind == V_CYCLER && strcmp(name, "current") == 0)
    return v.cycler->items->p[v.cycler->at % v.cycler->items->n];
  const jinja_value *found = v.kind == V_DICT ? ist_jinja_get_text(r, v.dict, name) : NULL;
  return found ? *found : ist_jinja_undefined(name);
}

static char *name_of(jinja_run *r, const jinja_str *s) {
  char *name = ist_jinja_new(r, s->len + 1, 1);
  memcpy(name, s->p, s->len);
  return name;
}

jinja_value ist_jinja_index(jinja_run *r, jinja_value v, jinja_value key) {
  if (v.kind == V_UNDEFINED) ist_jinja_fail(r, "'%s' is undefined", v.name);
  if (v.kind == V_DICT) {
    const jinja_value *found = ist_jinja_get(r, v.dict, key);
    if (found) return *found;
  }
  if ((v.kind == V_LIST || v.kind == V_STRING) && (key.kind == V_INT || key.kind == V_BOOL)) {
    int64_t i = key.kind == V_BOOL ? key.b : key.i;
    if (v.kind == V_STRING) return ist_jinja_char(r, v.s, i);
    if (i < 0) i += v.list->n;
    if (i < 0 || i >= v.list->n) return ist_jinja_undefined("an item out of range");
    return v.list->p[i];
  }
  if (key.kind != V_STRING) return ist_jinja_undefined("an item");
  ist_jinja_step_bytes(r, key.s->len);
  /* No name holds a NUL, with which a string may go on. */
  if (memchr(key.s->p, 0, key.s->len)) return ist_jinja_undefined("an item");
  return ist_jinja_attribute(r, v, name_of(r, key.s));
}

/* ---- Calls ---- */

static jinja_args eval_args(jinja_run *r, const jinja_node *n) {
  jinja_args a = {.n = n->n_items - n->n_names, .n_named = n->n_names, .name = n->names};
  if (n->n_items) a.p = ist_jinja_new(r, (size_t)n->n_items, sizeof *a.p);
  for (int32_t i = 0; i < n->n_items; i++) a.p[i] = eval(r, n->items[i]);
  a.named = a.p ? a.p + a.n : NULL;
  return a;
}

/* Runs `body` with its output caught. */
static jinja_value capture(jinja_run *r, const jinja_node *body) {
  jinja_out *before = r->out;
  r->out = ist_jinja_out_new(r);
  execute(r, body);
  jinja_value text = ist_jinja_out_value(r, r->out);
  r->out = before;
  return text;
}

static jinja_value capture_in_frame(jinja_run *r, const jinja_node *body, jinja_frame *frame) {
  jinja_frame *before = r->frame;
  r->frame = frame;
  jinja_value text = capture(r, body);
  r->frame = before;
  return text;
}

static jinja_value call_macro(jinja_run *r, const jinja_macro *m, const jinja_args *a) {
  const jinja_node *n = m->node;
  jinja_frame *before = r->frame, *frame = push_frame(r, m->frame);
  if (a->n > n->n_items)
    ist_jinja_fail(r, "macro '%s' takes not more than %d argument(s)", n->name, (int)n->n_items);
  ist_jinja_step(r, n->n_items * (1 + a->n_named / 8));
  for (int32_t i = 0; i < n->n_items; i++) {
    const jinja_node *parameter = n->items[i];
    static const char absent[] = ""; /* unlike what is passed and undefined */
    jinja_value v = ist_jinja_arg(a, i, parameter->name, ist_jinja_undefined(absent));
    if (v.kind == V_UNDEFINED && v.name == absent) {
      v.name = parameter->name;
      r->frame = frame;
      if (parameter->a) v = eval(r, parameter->a);
      r->frame = before;
    }
    assign(r, frame, parameter->name, v);
  }
  const char *caller = ist_jinja_known(r->t, "caller");
  for (int64_t k = 0; k < a->n_named; k++) {
    bool taken = caller && a->name[k] == caller;
    if (taken) assign(r, frame, caller, a->named[k]);
    for (int32_t i = 0; i < n->n_items; i++) taken |= n->items[i]->name == a->name[k];
    if (!taken) ist_jinja_fail(r, "macro '%s' takes no keyword argument '%s'", n->name, a->name[k]);
  }
  int64_t loops = r->loops;
  r->loops = 0;
  jinja_value text = capture_in_frame(r, n->b, frame);
  r->loops = loops;
  return text;
}

jinja_value ist_jinja_call(jinja_run *r, jinja_value f, const jinja_args *a) {
  jinja_cycler *c;
  switch (f.kind) {
    case V_MACRO: return call_macro(r, f.macro, a);
    case V_FUNCTION: return ist_jinja_call_function(r, f.function, a);
    case V_METHOD: return ist_jinja_call_method(r, f.method, a);
    case V_CYCLER:
      c = f.cycler;
      if (!c->joiner) break;
      return c->at++ ? c->items->p[0] : ist_jinja_str(r, "");
    case V_UNDEFINED:
      ist_jinja_fail(
          r, f.refused ? "'%s' would change a value, which templates may not" : "'%s' is undefined",
          f.name);
    default: break;
  }
  ist_jinja_fail(r, "'%s' object is not callable", ist_jinja_kind_name(f));
}

/* ---- Arithmetic ---- */

_Noreturn static void bad_operands(jinja_run *r, const char *op, jinja_value a, jinja_value b) {
  if (a.kind == V_UNDEFINED || b.kind == V_UNDEFINED)
    ist_jinja_fail(r, "'%s' is undefined", a.kind == V_UNDEFINED ? a.name : b.name);
  ist_jinja_fail(r, "unsupported operand type(s) for %s: '%s' and '%s'", op, ist_jinja_kind_name(a),
                 ist_jinja_kind_name(b));
}

static jinja_value add_sequences(jinja_run *r, jinja_value a, jinja_value b) {
  if (a.kind == V_STRING && b.kind == V_STRING) {
    const jinja_args none = {0};
    jinja_out *o = ist_jinja_out_new(r);
    ist_jinja_print(r, o, b.safe && !a.safe ? ist_jinja_filter(r, "escape", a, &none) : a);
    ist_jinja_print(r, o, a.safe && !b.safe ? ist_jinja_filter(r, "escape", b, &none) : b);
    jinja_value out = ist_jinja_out_value(r, o);
    out.safe = a.safe || b.safe;
    return out;
  }
  if (a.kind != V_LIST || b.kind != V_LIST || a.tuple != b.tuple) bad_operands(r, "+", a, b);
  jinja_value out = ist_jinja_copy(r, a);
  out.tuple = a.tuple;
  for (int64_t i = 0; i < b.list->n; i++) ist_jinja_append(r, out, b.list->p[i]);
  return out;
}

static jinja_value repeat(jinja_run *r, jinja_value v, int64_t n) {
  jinja_value list = ist_jinja_new_list(r, 0);
  jinja_out *o = ist_jinja_out_new(r);
  for (int64_t k = 0; k < n; k++) {
    ist_jinja_step(r, 1);
    if (v.kind == V_STRING) ist_jinja_print(r, o, v);
    for (int64_t i = 0; v.kind == V_LIST && i < v.list->n; i++)
      ist_jinja_append(r, list, v.list->p[i]);
  }
  list.tuple = v.tuple;
  return v.kind == V_STRING ? ist_jinja_out_value(r, o) : list;
}

static jinja_value whole_numbers(jinja_run *r, int op, int64_t a, int64_t b) {
  int64_t c;
  bool over = false;
  if ((op == N_FLOORDIV || op == N_MOD) && (b == 0 || (b == -1 && a == INT64_MIN)))
    ist_jinja_fail(r, "integer division or modulo by zero");
  switch (op) {
    case N_ADD: over = __builtin_add_overflow(a, b, &c); break;
    case N_SUB: over = __builtin_sub_overflow(a, b, &c); break;
    case N_MUL: over = __builtin_mul_overflow(a, b, &c); break;
    case N_FLOORDIV: c = a / b - (a % b != 0 && (a % b < 0) != (b < 0)); break;
    case N_MOD: c = a % b + (a % b != 0 && (a % b < 0) != (b < 0) ? b : 0); break;
    default: /* a power with an exponent that is not negative */
      c = 1;
      for (int64_t k = 0; k < b && !over && c != 0; k++) {
        if (a == 1 || (a == -1 && k >= 2)) {
          c = a == 1 || b % 2 == 0 ? 1 : -1;
          break;
        }
        over = __builtin_mul_overflow(c, a, &c);
      }
  }
  if (over) ist_jinja_fail(r, "a whole number past 64 bits");
  return ist_jinja_int(c);
}

static jinja_value arithmetic(jinja_run *r, int op, jinja_value a, jinja_value b) {
  static const char *const names[] = {
      [N_ADD] = "+",       [N_SUB] = "-", [N_MUL] = "*", [N_DIV] = "/",
      [N_FLOORDIV] = "//", [N_MOD] = "%", [N_POW] = "**"};
  if (op == N_MOD && a.kind == V_STRING) return ist_jinja_percent(r, a.s, b);
  if (!ist_jinja_is_number(a) || !ist_jinja_is_number(b)) {
    if (op == N_ADD) return add_sequences(r, a, b);
    if (op == N_MUL && (a.kind == V_STRING || a.kind == V_LIST) && b.kind == V_INT)
      return repeat(r, a, b.i);
    if (op == N_MUL && (b.kind == V_STRING || b.kind == V_LIST) && a.kind == V_INT)
      return repeat(r, b, a.i);
    bad_operands(r, names[op], a, b);
  }
  double x = ist_jinja_number(a), y = ist_jinja_number(b);
  bool real = a.kind == V_FLOAT || b.kind == V_FLOAT;
  if (!real && op != N_DIV && !(op == N_POW && y < 0))
    return whole_numbers(r, op, a.kind == V_BOOL ? a.b : a.i, b.kind == V_BOOL ? b.b : b.i);
  if (y == 0 && (op == N_DIV || op == N_FLOORDIV || op == N_MOD))
    ist_jinja_fail(r, "division by zero");
  switch (op) {
    case N_ADD: return ist_jinja_float(x + y);
    case N_SUB: return ist_jinja_float(x - y);
    case N_MUL: return ist_jinja_float(x * y);
    case N_DIV: return ist_jinja_float(x / y);
    case N_FLOORDIV: return ist_jinja_float(floor(x / y));
    case N_MOD: return ist_jinja_float(x - y * floor(x / y));
    default: return ist_jinja_float(pow(x, y));
  }
}

jinja_value ist_jinja_add(jinja_run *r, jinja_value a, jinja_value b) {
  return arithmetic(r, N_ADD, a, b);
}

static bool compare_one(jinja_run *r, int op, jinja_value a, jinja_value b) {
  switch (op) {
    case C_EQ: return ist_jinja_equal(r, a, b);
    case C_NE: return !ist_jinja_equal(r, a, b);
    case C_IN: return ist_jinja_contains(r, b, a);
    case C_NOT_IN: return !ist_jinja_contains(r, b, a);
    default: break;
  }
  if (a.kind == V_UNDEFINED || b.kind == V_UNDEFINED) bad_operands(r, "<", a, b);
  int order = ist_jinja_order(r, a, b);
  return op == C_LT ? order < 0 : op == C_LE ? order <= 0 : op == C_GT ? order > 0 : order >= 0;
}

static bool compare(jinja_run *r, const jinja_node *n) {
  jinja_value left = eval(r, n->items[0]);
  for (int32_t i = 1; i < n->n_items; i++) {
    jinja_value right = eval(r, n->items[i]);
    if (!compare_one(r, n->compare[i - 1], left, right)) return false;
    left = right;
  }
  return true;
}

/* ---- Expressions ---- */

static jinja_value eval_sequence(jinja_run *r, const jinja_node *n) {
  jinja_value out = n->op == N_DICT ? ist_jinja_new_dict(r) : ist_jinja_new_list(r, n->n_items);
  out.tuple = n->op == N_TUPLE;
  for (int32_t i = 0; i < n->n_items; i++) {
    jinja_value v = eval(r, n->items[i]);
    if (n->op == N_DICT)
      ist_jinja_put(r, out.dict, v, eval(r, n->items[++i]));
    else
      ist_jinja_append(r, out, v);
  }
  return out;
}

static jinja_value eval_concat(jinja_run *r, const jinja_node *n) {
  jinja_out *o = ist_jinja_out_new(r);
  ist_jinja_print(r, o, eval(r, n->a));
  ist_jinja_print(r, o, eval(r, n->b));
  return ist_jinja_out_value(r, o);
}

static jinja_value eval_slice(jinja_run *r, const jinja_node *n) {
  jinja_value bound[3], v = eval(r, n->a);
  for (int k = 0; k < 3; k++) bound[k] = n->items[k] ? eval(r, n->items[k]) : ist_jinja_none();
  return ist_jinja_slice(r, v, bound);
}

static jinja_value eval_call(jinja_run *r, const jinja_node *n) {
  jinja_value f = eval(r, n->a);
  jinja_args a = eval_args(r, n);
  return ist_jinja_call(r, f, &a);
}

static jinja_value negative(jinja_run *r, jinja_value v, bool minus) {
  if (!ist_jinja_is_number(v)) bad_operands(r, minus ? "unary -" : "unary +", v, v);
  if (v.kind == V_FLOAT) return ist_jinja_float(minus ? -v.f : v.f);
  int64_t i = v.kind == V_BOOL ? v.b : v.i;
  return minus ? whole_numbers(r, N_SUB, 0, i) : ist_jinja_int(i);
}

static jinja_value eval_op(jinja_run *r, const jinja_node *n) {
  jinja_value v;
  jinja_args a;
  switch (n->op) {
    case N_LITERAL: return n->literal;
    case N_NAME: return look_up(r, n->name);
    case N_CAPTURED: return r->captured;
    case N_LIST:
    case N_TUPLE:
    case N_DICT: return eval_sequence(r, n);
    case N_ATTR: return ist_jinja_attribute(r, eval(r, n->a), n->name);
    case N_INDEX: v = eval(r, n->a); return ist_jinja_index(r, v, eval(r, n->b));
    case N_SLICE: return eval_slice(r, n);
    case N_CALL: return eval_call(r, n);
    case N_FILTER:
      v = eval(r, n->a);
      a = eval_args(r, n);
      return ist_jinja_filter(r, n->name, v, &a);
    case N_TEST:
      v = eval(r, n->a);
      a = eval_args(r, n);
      return ist_jinja_bool(ist_jinja_test(r, n->name, v, &a) != n->negated);
    case N_NOT: return ist_jinja_bool(!ist_jinja_true(eval(r, n->a)));
    case N_NEG:
    case N_POS: return negative(r, eval(r, n->a), n->op == N_NEG);
    case N_AND: v = eval(r, n->a); return ist_jinja_true(v) ? eval(r, n->b) : v;
    case N_OR: v = eval(r, n->a); return ist_jinja_true(v) ? v : eval(r, n->b);
    case N_COMPARE: return ist_jinja_bool(compare(r, n));
    case N_CONCAT: return eval_concat(r, n);
    case N_IF_EXPR:
      if (ist_jinja_true(eval(r, n->b))) return eval(r, n->a);
      return n->c ? eval(r, n->c) : ist_jinja_undefined("the other branch of an if");
    default: v = eval(r, n->a); return arithmetic(r, n->op, v, eval(r, n->b));
  }
}

static void enter(jinja_run *r, const jinja_node *n) {
  r->line = n->line;
  ist_jinja_step(r, 1);
  ist_jinja_enter(r);
}

static jinja_value eval(jinja_run *r, const jinja_node *n) {
  enter(r, n);
  jinja_value v = eval_op(r, n);
  ist_jinja_leave(r);
  return v;
}

/* ---- Statements ---- */

/* The items that the loop's condition lets through. */
static jinja_list *loop_items(jinja_run *r, const jinja_node *n) {
  jinja_list *items = ist_jinja_items(r, eval(r, n->b));
  if (!n->e) return items;
  jinja_value kept = ist_jinja_new_list(r, 0);
  jinja_frame *before = r->frame;
  for (int64_t i = 0; i < items->n; i++) {
    r->frame = push_frame(r, before);
    assign_target(r, n->a, items->p[i]);
    if (ist_jinja_true(eval(r, n->e))) ist_jinja_append(r, kept, items->p[i]);
  }
  r->frame = before;
  return kept.list;
}

static void run_for(jinja_run *r, const jinja_node *n) {
  jinja_loop *loop = ist_jinja_new(r, 1, sizeof *loop);
  jinja_frame *before = r->frame;
  const char *name = ist_jinja_known(r->t, "loop");
  loop->items = loop_items(r, n);
  r->loops++;
  for (; loop->at < loop->items->n && r->flow != FLOW_BREAK; loop->at++) {
    r->frame = push_frame(r, before);
    if (name) assign(r, r->frame, name, (jinja_value){.kind = V_LOOP, .loop = loop});
    assign_target(r, n->a, loop->items->p[loop->at]);
    execute(r, n->c);
    if (r->flow == FLOW_CONTINUE) r->flow = FLOW_ON;
  }
  r->loops--;
  r->flow = FLOW_ON;
  if (loop->items->n == 0 && n->d) {
    r->frame = push_frame(r, before);
    execute(r, n->d);
  }
  r->frame = before;
}

/* The text of a block through its filters. */
static jinja_value filtered(jinja_run *r, const jinja_node *n) {
  jinja_value before = r->captured;
  jinja_value text = capture_in_frame(r, n->b, push_frame(r, r->frame));
  r->captured = text;
  text = eval(r, n->c);
  r->captured = before;
  return text;
}

static jinja_value new_macro(jinja_run *r, const jinja_node *n) {
  jinja_macro *m = ist_jinja_new(r, 1, sizeof *m);
  *m = (jinja_macro){n, r->frame};
  return (jinja_value){.kind = V_MACRO, .macro = m};
}

/* A call whose macro gets the block as `caller`. */
static void run_call_block(jinja_run *r, const jinja_node *n) {
  jinja_value f = eval(r, n->a->a);
  jinja_args a = eval_args(r, n->a), more = a;
  more.n_named++;
  more.name = ist_jinja_new(r, (size_t)more.n_named, sizeof *more.name);
  more.named = ist_jinja_new(r, (size_t)more.n_named, sizeof *more.named);
  for (int64_t k = 0; k < a.n_named; k++) {
    more.name[k] = a.name[k];
    more.named[k] = a.named[k];
  }
  more.name[a.n_named] = n->b->name;
  more.named[a.n_named] = new_macro(r, n->b);
  ist_jinja_print(r, r->out, ist_jinja_call(r, f, &more));
}

static void run_with(jinja_run *r, const jinja_node *n) {
  jinja_frame *before = r->frame, *inner = push_frame(r, before);
  for (int32_t i = 0; i + 1 < n->n_items; i += 2) {
    jinja_value v = eval(r, n->items[i + 1]);
    r->frame = inner;
    assign_target(r, n->items[i], v);
    r->frame = before;
  }
  r->frame = inner;
  execute(r, n->b);
  r->frame = before;
}

/* What it sets stays inside: transformers calls it like a block of a macro. */
static void run_generation(jinja_run *r, const jinja_node *n) {
  size_t from = r->out->len;
  jinja_frame *before = r->frame;
  r->frame = push_frame(r, before);
  execute(r, n->b);
  r->frame = before;
  ist_jinja_step_bytes(r, r->out->len - from);
  for (; from < r->out->len; from++) r->out->origin[from] |= IST_JINJA_GENERATED;
}

static void leave_loop(jinja_run *r, bool all) {
  if (r->loops == 0) ist_jinja_fail(r, "break or continue outside a loop");
  r->flow = all ? FLOW_BREAK : FLOW_CONTINUE;
}

static void run(jinja_run *r, const jinja_node *n) {
  switch (n->op) {
    case N_TEXT: ist_jinja_print(r, r->out, n->literal); break;
    case N_OUTPUT: ist_jinja_print(r, r->out, eval(r, n->a)); break;
    case N_BLOCK:
      for (int32_t i = 0; i < n->n_items && r->flow == FLOW_ON; i++) execute(r, n->items[i]);
      break;
    case N_IF: {
      const jinja_node *chosen = ist_jinja_true(eval(r, n->a)) ? n->b : n->c;
      if (chosen) execute(r, chosen);
      break;
    }
    case N_FOR: run_for(r, n); break;
    case N_SET: assign_target(r, n->a, eval(r, n->b)); break;
    case N_SET_BLOCK: assign_target(r, n->a, filtered(r, n)); break;
    case N_FILTER_BLOCK: ist_jinja_print(r, r->out, filtered(r, n)); break;
    case N_MACRO: assign(r, r->frame, n->name, new_macro(r, n)); break;
    case N_CALL_BLOCK: run_call_block(r, n); break;
    case N_WITH: run_with(r, n); break;
    case N_GENERATION: run_generation(r, n); break;
    case N_BREAK: leave_loop(r, true); break;
    case N_CONTINUE: leave_loop(r, false); break;
    default: ist_jinja_fail(r, "an expression in place of a statement");
  }
}

static void execute(jinja_run *r, const jinja_node *n) {
  enter(r, n);
  run(r, n);
  ist_jinja_leave(r);
}

void ist_jinja_execute(jinja_run *r, const json_t *globals, const char *const *markers) {
  const char *key;
  json_t *v;
  r->frame = push_frame(r, NULL);
  json_object_foreach((json_t *)(uintptr_t)globals, key, v) {
    const char *name = ist_jinja_known(r->t, key);
    if (!name) continue; /* the template never mentions it */
    jinja_value value;
    if (strcmp(key, "messages") == 0 && json_is_array(v)) {
      value = ist_jinja_new_list(r, (int64_t)json_array_size(v));
      for (size_t i = 0; i < json_array_size(v); i++) {
        size_t number = i + 1 < IST_JINJA_INPUT ? i + 1 : IST_JINJA_INPUT;
        ist_jinja_append(r, value,
                         ist_jinja_from_message(r, json_array_get(v, i), (uint16_t)number));
      }
    } else {
      bool marker = markers && ist_jinja_listed(markers, key);
      value = ist_jinja_from_json(r, v, marker ? IST_JINJA_TEMPLATE : IST_JINJA_INPUT);
    }
    assign(r, r->frame, name, value);
  }
  execute(r, r->t->root);
}
