/* Tokens to a tree, by recursive descent; the grammar is jinja2's. */
#include <string.h>

#include "jinja/internal.h"

enum { MAX_DEPTH = 200 };

typedef struct parser {
  ist_jinja *t;
  const jinja_token *tok;
  int depth;
  jmp_buf fail;
  ist_error *err;
  ist_status status;
} parser;

_Noreturn static void fail(parser *p, const char *what) {
  if (p->status == IST_OK) {
    bool named = p->tok->kind == T_NAME || p->tok->kind == T_OP;
    p->status =
        ist_fail(p->err, IST_ERR_DATA, "template, line %d: %s%s%.*s%s", (int)p->tok->line, what,
                 named ? ", found '" : "", named ? (int)(p->tok->len < 40 ? p->tok->len : 40) : 0,
                 named ? p->tok->p : "", named ? "'" : "");
  }
  longjmp(p->fail, 1);
}

static void *take(parser *p, size_t count, size_t size) {
  void *m = ist_jinja_take(&p->t->arena, count * size);
  if (m) return memset(m, 0, count * size);
  p->status = ist_fail_nomem(p->err, "a template", count * size);
  longjmp(p->fail, 1);
}

static const char *intern(parser *p, const char *s, size_t len) {
  const char *name = ist_jinja_intern(p->t, s, len);
  if (name) return name;
  p->status = ist_fail_nomem(p->err, "a template", len);
  longjmp(p->fail, 1);
}

static jinja_node *node(parser *p, jinja_op op) {
  jinja_node *n = take(p, 1, sizeof *n);
  n->op = (uint8_t)op;
  n->line = p->tok->line;
  return n;
}

static jinja_node *binary(parser *p, jinja_op op, jinja_node *a, jinja_node *b) {
  jinja_node *n = node(p, op);
  n->a = a;
  n->b = b;
  return n;
}

/* ---- Lists of nodes that grow ---- */

typedef struct nodes {
  jinja_node **p;
  int32_t n, cap;
} nodes;

static void push(parser *p, nodes *l, jinja_node *n) {
  if (l->n == l->cap) {
    int32_t cap = l->cap ? 2 * l->cap : 4;
    jinja_node **grown = take(p, (size_t)cap, sizeof *grown);
    if (l->n) memcpy(grown, l->p, (size_t)l->n * sizeof *grown);
    l->p = grown;
    l->cap = cap;
  }
  l->p[l->n++] = n;
}

static jinja_node *with_items(jinja_node *n, nodes l) {
  n->items = l.p;
  n->n_items = l.n;
  return n;
}

/* ---- Tokens ---- */

static bool is_op(const parser *p, const char *op) {
  return p->tok->kind == T_OP && p->tok->len == strlen(op) &&
         memcmp(p->tok->p, op, p->tok->len) == 0;
}
static bool is_name(const parser *p, const char *name) {
  return p->tok->kind == T_NAME && p->tok->len == strlen(name) &&
         memcmp(p->tok->p, name, p->tok->len) == 0;
}
static bool take_op(parser *p, const char *op) {
  bool found = is_op(p, op);
  p->tok += found;
  return found;
}
static bool take_name(parser *p, const char *name) {
  bool found = is_name(p, name);
  p->tok += found;
  return found;
}
static void expect_op(parser *p, const char *op) {
  if (take_op(p, op)) return;
  char what[32];
  snprintf(what, sizeof what, "expected '%s'", op);
  fail(p, what);
}
static const char *expect_any_name(parser *p) {
  if (p->tok->kind != T_NAME) fail(p, "expected a name");
  const char *name = intern(p, p->tok->p, p->tok->len);
  p->tok++;
  return name;
}
static void enter(parser *p) {
  if (++p->depth > MAX_DEPTH) fail(p, "nested too deep");
}

/* ---- Expressions ---- */

static jinja_node *expression(parser *p);
static jinja_node *unary(parser *p, bool filters);
static jinja_node *postfix(parser *p, jinja_node *n);

static jinja_node *literal(parser *p, jinja_value v) {
  jinja_node *n = node(p, N_LITERAL);
  n->literal = v;
  return n;
}

static jinja_node *string_literal(parser *p) {
  size_t len = 0;
  const jinja_token *first = p->tok;
  for (; p->tok->kind == T_STRING; p->tok++) len += p->tok->len;
  char *text = take(p, len + 1, 1);
  size_t at = 0;
  for (const jinja_token *t = first; t < p->tok; t++) {
    memcpy(text + at, t->p, t->len);
    at += t->len;
  }
  jinja_str *s = take(p, 1, sizeof *s);
  *s = (jinja_str){text, len, NULL};
  return literal(p, (jinja_value){.kind = V_STRING, .s = s});
}

static jinja_node *name_node(parser *p) {
  static const struct {
    const char *name;
    jinja_value v;
  } constants[] = {{"true", {.kind = V_BOOL, .b = true}},
                   {"True", {.kind = V_BOOL, .b = true}},
                   {"false", {.kind = V_BOOL, .b = false}},
                   {"False", {.kind = V_BOOL, .b = false}},
                   {"none", {.kind = V_NONE}},
                   {"None", {.kind = V_NONE}}};
  for (size_t k = 0; k < sizeof constants / sizeof constants[0]; k++)
    if (take_name(p, constants[k].name)) return literal(p, constants[k].v);
  jinja_node *n = node(p, N_NAME);
  n->name = expect_any_name(p);
  return n;
}

/* Items up to a closing bracket, which is taken. */
static nodes items_until(parser *p, const char *close) {
  nodes l = {0};
  while (!is_op(p, close)) {
    push(p, &l, expression(p));
    if (!take_op(p, ",")) break;
  }
  expect_op(p, close);
  return l;
}

static jinja_node *dict_literal(parser *p) {
  nodes l = {0};
  jinja_node *n = node(p, N_DICT);
  while (!is_op(p, "}")) {
    push(p, &l, expression(p));
    expect_op(p, ":");
    push(p, &l, expression(p));
    if (!take_op(p, ",")) break;
  }
  expect_op(p, "}");
  return with_items(n, l);
}

/* "(": an expression in brackets, or a tuple. */
static jinja_node *bracket(parser *p) {
  nodes l = {0};
  jinja_node *n = node(p, N_TUPLE);
  bool comma = is_op(p, ")");
  while (!is_op(p, ")")) {
    push(p, &l, expression(p));
    if (!take_op(p, ",")) break;
    comma = true;
  }
  expect_op(p, ")");
  return comma ? with_items(n, l) : l.p[0];
}

static jinja_node *primary(parser *p) {
  jinja_node *n;
  switch (p->tok->kind) {
    case T_STRING: return string_literal(p);
    case T_INT: n = literal(p, (jinja_value){.kind = V_INT, .i = p->tok->i}); break;
    case T_FLOAT: n = literal(p, (jinja_value){.kind = V_FLOAT, .f = p->tok->f}); break;
    case T_NAME: return name_node(p);
    default:
      if (take_op(p, "(")) return bracket(p);
      n = node(p, N_LIST);
      if (take_op(p, "[")) return with_items(n, items_until(p, "]"));
      if (take_op(p, "{")) return dict_literal(p);
      fail(p, "expected an expression");
  }
  p->tok++;
  return n;
}

/* Arguments behind "(", which is taken. */
static void arguments(parser *p, jinja_node *call) {
  nodes l = {0};
  const char *names[32];
  int32_t n = 0;
  while (!is_op(p, ")")) {
    if (p->tok->kind == T_NAME && p->tok[1].kind == T_OP && p->tok[1].len == 1 &&
        *p->tok[1].p == '=') {
      if (n == 32) fail(p, "more than 32 named arguments");
      names[n++] = expect_any_name(p);
      p->tok++;
    } else if (n > 0) {
      fail(p, "a plain argument behind a named one");
    }
    push(p, &l, expression(p));
    if (!take_op(p, ",")) break;
  }
  expect_op(p, ")");
  with_items(call, l);
  call->n_names = n;
  if (n) call->names = memcpy(take(p, (size_t)n, sizeof *names), names, (size_t)n * sizeof *names);
}

static jinja_node *call(parser *p, jinja_node *f) {
  jinja_node *n = node(p, N_CALL);
  n->a = f;
  arguments(p, n);
  return n;
}

static jinja_node *subscript(parser *p, jinja_node *v) {
  jinja_node *n = node(p, N_INDEX);
  jinja_node *bound[3] = {0};
  int k = 0;
  n->a = v;
  for (;;) {
    if (!is_op(p, ":") && !is_op(p, "]")) bound[k] = expression(p);
    if (k == 2 || !take_op(p, ":")) break;
    n->op = N_SLICE;
    k++;
  }
  expect_op(p, "]");
  n->b = bound[0];
  if (n->op == N_INDEX && !n->b) n->b = node(p, N_TUPLE); /* a[] is a[()] */
  if (n->op == N_INDEX) return n;
  n->items = memcpy(take(p, 3, sizeof *bound), bound, sizeof bound);
  n->n_items = 3;
  return n;
}

static jinja_node *postfix(parser *p, jinja_node *n) {
  for (;;) {
    if (take_op(p, ".")) {
      jinja_node *attr = node(p, p->tok->kind == T_INT ? N_INDEX : N_ATTR);
      attr->a = n;
      if (p->tok->kind == T_INT)
        attr->b = primary(p);
      else
        attr->name = expect_any_name(p);
      n = attr;
    } else if (take_op(p, "[")) {
      n = subscript(p, n);
    } else if (take_op(p, "(")) {
      n = call(p, n);
    } else {
      return n;
    }
  }
}

static jinja_node *filter(parser *p, jinja_node *v) {
  jinja_node *n = node(p, N_FILTER);
  n->a = v;
  n->name = expect_any_name(p);
  if (take_op(p, "(")) arguments(p, n);
  return n;
}

static bool begins_test_argument(const parser *p) {
  if (p->tok->kind == T_STRING || p->tok->kind == T_INT || p->tok->kind == T_FLOAT) return true;
  if (p->tok->kind == T_OP) return is_op(p, "[") || is_op(p, "{");
  return p->tok->kind == T_NAME && !is_name(p, "else") && !is_name(p, "or") && !is_name(p, "and") &&
         !is_name(p, "is") && !is_name(p, "if") && !is_name(p, "not") && !is_name(p, "in");
}

static jinja_node *test(parser *p, jinja_node *v) {
  jinja_node *n = node(p, N_TEST);
  n->a = v;
  n->negated = take_name(p, "not");
  n->name = expect_any_name(p);
  if (take_op(p, "(")) {
    arguments(p, n);
  } else if (begins_test_argument(p)) {
    nodes l = {0};
    push(p, &l, postfix(p, primary(p)));
    with_items(n, l);
  }
  return n;
}

static jinja_node *filters(parser *p, jinja_node *n) {
  for (;;) {
    if (take_op(p, "|"))
      n = filter(p, n);
    else if (take_name(p, "is"))
      n = test(p, n);
    else if (take_op(p, "("))
      n = call(p, n);
    else
      return n;
  }
}

static jinja_node *unary(parser *p, bool with_filters) {
  jinja_node *n;
  enter(p);
  if (is_op(p, "-") || is_op(p, "+")) {
    n = node(p, is_op(p, "-") ? N_NEG : N_POS);
    p->tok++;
    n->a = unary(p, false);
  } else {
    n = primary(p);
  }
  n = postfix(p, n);
  if (with_filters) n = filters(p, n);
  p->depth--;
  return n;
}

static jinja_node *power(parser *p) {
  jinja_node *n = unary(p, true);
  while (take_op(p, "**")) n = binary(p, N_POW, n, unary(p, true));
  return n;
}

static jinja_node *product(parser *p) {
  jinja_node *n = power(p);
  for (;;) {
    if (take_op(p, "*"))
      n = binary(p, N_MUL, n, power(p));
    else if (take_op(p, "//"))
      n = binary(p, N_FLOORDIV, n, power(p));
    else if (take_op(p, "/"))
      n = binary(p, N_DIV, n, power(p));
    else if (take_op(p, "%"))
      n = binary(p, N_MOD, n, power(p));
    else
      return n;
  }
}

static jinja_node *concat(parser *p) {
  jinja_node *n = product(p);
  while (take_op(p, "~")) n = binary(p, N_CONCAT, n, product(p));
  return n;
}

static jinja_node *sum(parser *p) {
  jinja_node *n = concat(p);
  for (;;) {
    if (take_op(p, "+"))
      n = binary(p, N_ADD, n, concat(p));
    else if (take_op(p, "-"))
      n = binary(p, N_SUB, n, concat(p));
    else
      return n;
  }
}

static int comparison(parser *p) {
  static const char *const ops[] = {"==", "!=", "<", "<=", ">", ">="};
  for (int k = 0; k < 6; k++)
    if (take_op(p, ops[k])) return k;
  if (take_name(p, "in")) return C_IN;
  if (is_name(p, "not") && p->tok[1].kind == T_NAME && p->tok[1].len == 2 &&
      memcmp(p->tok[1].p, "in", 2) == 0) {
    p->tok += 2;
    return C_NOT_IN;
  }
  return -1;
}

static jinja_node *compare(parser *p) {
  jinja_node *first = sum(p);
  nodes l = {0};
  uint8_t ops[64];
  int n = 0;
  for (int op; (op = comparison(p)) >= 0;) {
    if (n == 0) push(p, &l, first);
    if (n == 64) fail(p, "more than 64 comparisons in a row");
    ops[n++] = (uint8_t)op;
    push(p, &l, sum(p));
  }
  if (n == 0) return first;
  jinja_node *c = with_items(node(p, N_COMPARE), l);
  c->compare = memcpy(take(p, (size_t)n, 1), ops, (size_t)n);
  return c;
}

static jinja_node *negation(parser *p) {
  if (!take_name(p, "not")) return compare(p);
  enter(p);
  jinja_node *n = node(p, N_NOT);
  n->a = negation(p);
  p->depth--;
  return n;
}

static jinja_node *conjunction(parser *p) {
  jinja_node *n = negation(p);
  while (take_name(p, "and")) n = binary(p, N_AND, n, negation(p));
  return n;
}

static jinja_node *disjunction(parser *p) {
  jinja_node *n = conjunction(p);
  while (take_name(p, "or")) n = binary(p, N_OR, n, conjunction(p));
  return n;
}

/* A conditional expression; `conditional` false where "if" means something else. */
static jinja_node *expression_or(parser *p, bool conditional) {
  enter(p);
  jinja_node *n = disjunction(p);
  while (conditional && take_name(p, "if")) {
    jinja_node *c = node(p, N_IF_EXPR);
    c->a = n;
    c->b = disjunction(p);
    if (take_name(p, "else")) c->c = expression(p);
    n = c;
  }
  p->depth--;
  return n;
}

static jinja_node *expression(parser *p) {
  return expression_or(p, true);
}

/* Expressions with commas between them are a tuple. */
static jinja_node *tuple(parser *p, bool conditional) {
  nodes l = {0};
  jinja_node *first = expression_or(p, conditional);
  if (!is_op(p, ",")) return first;
  push(p, &l, first);
  while (take_op(p, ",") && p->tok->kind != T_BLOCK_END && !is_op(p, "="))
    push(p, &l, expression_or(p, conditional));
  return with_items(node(p, N_TUPLE), l);
}

/* ---- Statements ---- */

static jinja_node *body(parser *p, const char *const *ends);

static void end_tag(parser *p) {
  if (p->tok->kind != T_BLOCK_END) fail(p, "expected the end of the tag");
  p->tok++;
}

/* The body up to "{% END %}", which is taken. */
static jinja_node *body_until(parser *p, const char *end) {
  const char *ends[] = {end, NULL};
  jinja_node *b = body(p, ends);
  p->tok++;
  end_tag(p);
  return b;
}

/* A name, an attribute of a name, or several with commas between. */
static jinja_node *target(parser *p) {
  nodes l = {0};
  bool bracket_open = take_op(p, "("), several = bracket_open;
  do {
    if (l.n && p->tok->kind != T_NAME) break;
    jinja_node *n = node(p, N_NAME);
    n->name = expect_any_name(p);
    if (take_op(p, ".")) {
      jinja_node *attr = node(p, N_ATTR);
      attr->a = n;
      attr->name = expect_any_name(p);
      n = attr;
    }
    push(p, &l, n);
    several |= is_op(p, ",");
  } while (take_op(p, ","));
  if (bracket_open) expect_op(p, ")");
  return several ? with_items(node(p, N_TUPLE), l) : l.p[0];
}

static jinja_node *if_statement(parser *p) {
  static const char *const ends[] = {"elif", "else", "endif", NULL};
  jinja_node *n = node(p, N_IF);
  enter(p);
  n->a = tuple(p, true);
  end_tag(p);
  n->b = body(p, ends);
  if (take_name(p, "elif")) {
    n->c = if_statement(p);
  } else if (take_name(p, "else")) {
    end_tag(p);
    n->c = body_until(p, "endif");
  } else {
    p->tok++;
    end_tag(p);
  }
  p->depth--;
  return n;
}

static jinja_node *for_statement(parser *p) {
  static const char *const ends[] = {"else", "endfor", NULL};
  jinja_node *n = node(p, N_FOR);
  n->a = target(p);
  if (!take_name(p, "in")) fail(p, "expected 'in'");
  n->b = tuple(p, false);
  if (take_name(p, "if")) n->e = expression(p);
  if (is_name(p, "recursive")) fail(p, "recursive loops are not supported");
  end_tag(p);
  n->c = body(p, ends);
  if (take_name(p, "else")) {
    end_tag(p);
    n->d = body_until(p, "endfor");
  } else {
    p->tok++;
    end_tag(p);
  }
  return n;
}

/* Filters on the text of a block. */
static jinja_node *block_filters(parser *p) {
  jinja_node *n = node(p, N_CAPTURED);
  while (take_op(p, "|")) n = filter(p, n);
  return n;
}

static jinja_node *set_statement(parser *p) {
  jinja_node *n = node(p, N_SET);
  n->a = target(p);
  if (take_op(p, "=")) {
    n->b = tuple(p, true);
    end_tag(p);
    return n;
  }
  n->op = N_SET_BLOCK;
  n->c = block_filters(p);
  end_tag(p);
  n->b = body_until(p, "endset");
  return n;
}

static jinja_node *filter_statement(parser *p) {
  jinja_node *n = node(p, N_FILTER_BLOCK);
  n->c = filters(p, filter(p, node(p, N_CAPTURED)));
  end_tag(p);
  n->b = body_until(p, "endfilter");
  return n;
}

/* Parameters: items are name nodes, whose `a` is the default. */
static void parameters(parser *p, jinja_node *macro) {
  nodes l = {0};
  expect_op(p, "(");
  while (!is_op(p, ")")) {
    jinja_node *n = node(p, N_NAME);
    n->name = expect_any_name(p);
    if (take_op(p, "=")) n->a = expression(p);
    push(p, &l, n);
    if (!take_op(p, ",")) break;
  }
  expect_op(p, ")");
  with_items(macro, l);
}

static jinja_node *macro_statement(parser *p) {
  jinja_node *n = node(p, N_MACRO);
  n->name = expect_any_name(p);
  parameters(p, n);
  end_tag(p);
  n->b = body_until(p, "endmacro");
  return n;
}

static jinja_node *call_statement(parser *p) {
  jinja_node *n = node(p, N_CALL_BLOCK), *caller = node(p, N_MACRO);
  caller->name = intern(p, "caller", 6);
  if (is_op(p, "(")) parameters(p, caller);
  n->a = expression(p);
  if (n->a->op != N_CALL) fail(p, "expected a call");
  end_tag(p);
  caller->b = body_until(p, "endcall");
  n->b = caller;
  return n;
}

static jinja_node *with_statement(parser *p) {
  nodes l = {0};
  jinja_node *n = node(p, N_WITH);
  while (p->tok->kind != T_BLOCK_END) {
    push(p, &l, target(p));
    expect_op(p, "=");
    push(p, &l, expression(p));
    if (!take_op(p, ",")) break;
  }
  end_tag(p);
  with_items(n, l);
  n->b = body_until(p, "endwith");
  return n;
}

static jinja_node *simple(parser *p, jinja_op op) {
  jinja_node *n = node(p, op);
  end_tag(p);
  return n;
}

static jinja_node *statement(parser *p) {
  if (take_name(p, "if")) return if_statement(p);
  if (take_name(p, "for")) return for_statement(p);
  if (take_name(p, "set")) return set_statement(p);
  if (take_name(p, "macro")) return macro_statement(p);
  if (take_name(p, "call")) return call_statement(p);
  if (take_name(p, "filter")) return filter_statement(p);
  if (take_name(p, "with")) return with_statement(p);
  if (take_name(p, "break")) return simple(p, N_BREAK);
  if (take_name(p, "continue")) return simple(p, N_CONTINUE);
  if (take_name(p, "generation")) {
    jinja_node *n = simple(p, N_GENERATION);
    n->b = body_until(p, "endgeneration");
    p->t->generation = true;
    return n;
  }
  fail(p, "expected a statement");
}

static bool at_end(const parser *p, const char *const *ends) {
  for (; *ends; ends++)
    if (is_name(p, *ends)) return true;
  return false;
}

/* Statements up to a tag that begins with one of `ends` (NULL: the end of the
 * template); its name is the next token. */
static jinja_node *body(parser *p, const char *const *ends) {
  nodes l = {0};
  jinja_node *block = node(p, N_BLOCK);
  enter(p);
  for (;;) {
    const jinja_token *t = p->tok;
    if (t->kind == T_END) {
      if (ends) fail(p, "the template ends inside a block");
      break;
    }
    p->tok++;
    if (t->kind == T_TEXT) {
      jinja_node *n = node(p, N_TEXT);
      jinja_str *s = take(p, 1, sizeof *s);
      *s = (jinja_str){t->p, t->len, NULL};
      n->literal = (jinja_value){.kind = V_STRING, .s = s};
      push(p, &l, n);
    } else if (t->kind == T_VAR_BEGIN) {
      jinja_node *n = node(p, N_OUTPUT);
      n->a = tuple(p, true);
      if (p->tok->kind != T_VAR_END) fail(p, "expected '}}'");
      p->tok++;
      push(p, &l, n);
    } else {
      if (ends && at_end(p, ends)) break;
      push(p, &l, statement(p));
    }
  }
  p->depth--;
  return with_items(block, l);
}

ist_status ist_jinja_build(ist_jinja *t, const jinja_tokens *tokens, ist_error *err) {
  parser p = {.t = t, .tok = tokens->p, .err = err};
  if (setjmp(p.fail) == 0) t->root = body(&p, NULL);
  return p.status;
}
