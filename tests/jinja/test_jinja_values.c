/* Methods, comparisons, loops, tests and arithmetic, one template at a time, against what Python's
 * jinja2 3.1.6 gives in transformers' setting. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "jinja/jinja.h"

static const char data[] =
    "{\"l\": [3, 1, 2], \"d\": {\"b\": 1, \"a\": \"x\"}, \"s\": \"Hello, Wörld!\", \"n\": 7, "
    "\"f\": 2.5, "
    "\"z\": 0.0}";

typedef struct row {
  const char *source, *want; /* NULL: an error, */
  const char *says;          /* in these words of ours */
} row;

static const row strings[] = {
    {"{{ 'hELLO wORLD'.capitalize() }} {{ 'éA'.capitalize() }} {{ ''.capitalize() }}",
     "Hello world Éa ", NULL},
    {"{{ s.index('W') }} {{ 'ab€c'.index('c') }} {{ s.index('l') }}", "7 3 2", NULL},
    {"{{ s.index('q') }}", NULL, "substring not found"},
    {"{{ 'ab1'.isalnum() }} {{ 'a b'.isalnum() }} {{ '½Ⅷ'.isalnum() }} {{ ''.isalnum() }} {{ "
     "'٣'.isdigit() }} {{ 'aB'.islower() }} {{ 'a1'.islower() }} {{ '1'.isupper() }} {{ "
     "'é'.isalpha() }} {{ 'a1'.isalpha() }} {{ '\\t\\u2003'.isspace() }} {{ ''.isspace() }}",
     "True False True False True False True False True False True False", NULL},
    {"{{ s.startswith(('x', 'y')) }} {{ s.endswith(('d', 'ld!')) }} {{ s.startswith('') }} {{ "
     "'a'.startswith('ab') }}",
     "False True True False", NULL},
    {"{{ 'abab'.find('ab') }} {{ 'abab'.rfind('ab') }} {{ 'é€b'.rfind('b') }} {{ 'a'.find('b') }} "
     "{{ 'aaaa'.count('aa') }} {{ 'aé'.count('') }}",
     "0 2 2 -1 2 3", NULL},
    {"{{ 'x=1; y=2; '.rsplit('; ') }} {{ 'a.b.c'.rsplit('.', 1) }} {{ 'a.b.c'.rsplit('.', 9) }} {{ "
     "'a.b.c'.split('.', 0) }} {{ '1,,2'.split(',') }} {{ ''.split(',') }} {{ ''.split() }}",
     "['x=1', 'y=2', ''] ['a.b', 'c'] ['a', 'b', 'c'] ['a.b.c'] ['1', '', '2'] [''] []", NULL},
    {"{{ 'a'.split('') }}", NULL, "empty separator"},
    {"{{ 'a'.partition('') }}", NULL, "empty separator"},
    {"{{ 'a\\n\\nb\\r\\nc\\rd'.splitlines() }} {{ 'a\\r\\nb'.splitlines(true) }} {{ "
     "''.splitlines() }} {{ 'a\\n'.splitlines(keepends=true) }}",
     "['a', '', 'b', 'c', 'd'] ['a\\r\\n', 'b'] [] ['a\\n']", NULL},
    {"{{ '-'.join(['a']) }}|{{ '-'.join([]) }}|{{ ''.join('abc') }}|{{ ', '.join(d) }}",
     "a||abc|b, a", NULL},
    {"{{ ','.join(['a', 1]) }}", NULL, "sequence item 1: expected str instance, int found"},
    {"{{ '{{}} {}{}'.format(1, 'b') }} {{ '{a}-{b}'.format(b=1, a=[2]) }}", "{} 1b [2]-1", NULL},
    {"{{ '{} {}'.format(1) }}", NULL, "format has no argument ''"},
    {"{{ '{x}'.format(y=1) }}", NULL, "format has no argument 'x'"},
    {"{{ 'a}'.format() }}", NULL, "a single '}' in a format string"},
    {"{{ '{'.format() }}", NULL, "a single '{' in a format string"},
    {"{{ s.upper().lower().title() }} {{ \"they're bill's\".title() }}",
     "Hello, Wörld! They'Re Bill'S", NULL},
    {"{{ 'aXbX'.replace('X', '') }} {{ 'aaa'.replace('a', 'b', 0) }} {{ 'a'.replace('b', 'c') }} "
     "{{ 'aé'.replace('', '.') }}",
     "ab aaa a .a.é.", NULL},
    {"{{ s.startswith(5) }}", NULL, "argument 1 must be str, not int"},
    {"{{ s.replace('a') }}", NULL, "argument 2 must be str, not NoneType"},
    {"{{ s.nosuch() }}", NULL, "'nosuch' is undefined"},
    {"{% set t = 'a</t>b</t>c' %}{{ t.find('</t>', 2) }} {{ t.index('</t>', 2) }} {{ "
     "t.count('</t>', 2) }} {{ 'abc'.startswith('b', 1) }} {{ 'abc'.find('b', start=2) if false }}",
     "6 6 1 True ", NULL},
    {"{{ 'abc'.find('', 3) }} {{ 'abc'.find('', 4) }} {{ 'abc'.find('', 2, 1) }} {{ "
     "'abc'.rfind('', 1) }} {{ 'abc'.rfind('', 1, 2) }} {{ 'abc'.count('', 3) }} {{ "
     "'abc'.count('', 4) }} {{ 'abc'.startswith('', 3) }} {{ 'abc'.startswith('', 4) }} {{ "
     "'abc'.endswith('', 4) }}",
     "3 -1 -1 3 2 1 0 True False False", NULL},
    {"{{ 'aöaöa'.find('a', -3) }} {{ 'aöaöa'.find('ö', 2, -1) }} {{ 'aöaöa'.rfind('a', 0, -1) }} "
     "{{ 'aöaöa'.find('a', none, 0) }} {{ 'aöaöa'.find('a', -99, 99) }} {{ 'aöaöa'.count('a', 1, "
     "4) }} {{ 'aöa'.endswith('ö', 0, 2) }} {{ 'aöa'.endswith(('x', 'ö'), 0, -1) }} {{ "
     "'aöa'.startswith(('x', 'ö'), true) }}",
     "2 3 2 -1 0 1 True True True", NULL},
    {"{{ 'a'.find('a', 9223372036854775807) }} {{ 'a'.find('a', 0, -9223372036854775807) }}",
     "-1 -1", NULL},
    {"{{ 'abc'.index('a', 1) }}", NULL, "substring not found"},
    {"{{ 'abc'.find('a', 1.0) }}", NULL, "'float' object cannot be interpreted as an integer"},
    {"{{ 'abc'.find('a', 1, 2, 3) }}", NULL, "'find' takes not more than 3 argument(s)"},
    {"{{ 'abc'.upper(1) }}", NULL, "'upper' takes not more than 0 argument(s)"},
    {"{{ 'abc'.split(maxspilt=1) }}", NULL, "'split' takes no keyword argument 'maxspilt'"},
    {"{{ 'a b'.split(' ', none) }}", NULL, "'NoneType' object cannot be interpreted as an integer"},
    {"{{ 'a b c'.split(' ', true) }} {{ 'a b c'.split(' ', false) }}", "['a', 'b c'] ['a b c']",
     NULL},
    {"{{ 'a b c'.rsplit(none, 1) }} {{ 'a b c'.rsplit(maxsplit=1) }} {{ '  a b  c '.rsplit(none, "
     "1) }} {{ ' a b '.rsplit(none, 0) }} {{ '  '.rsplit(none, 1) }} {{ ' a b c'.rsplit(none, 3) "
     "}} {{ ' a b c'.rsplit(none, 2) }} {{ ''.rsplit(none, 0) }}{{ ''.rsplit(',', 0) }}",
     "['a b', 'c'] ['a b', 'c'] ['  a b', 'c'] [' a b'] [] ['a', 'b', 'c'] [' a', 'b', 'c'] []['']",
     NULL},
    {"{{ 'ä\\u2003ö\\u3000ü\\u00a0'.rsplit(none, 1) | join('|') }}", "ä ö|ü", NULL},
    {"{{ '{10}'.format(0,1,2,3,4,5,6,7,8,9,'ten') }} {{ '{01}'.format(1, 2) }} {{ '{a1} "
     "{_}'.format(a1=1, _=2) }}{{ '{}'.format(q) }}",
     "ten 2 1 2", NULL},
    {"{{ '{5}'.format(1) }}", NULL, "format has no argument '5'"},
    {"{{ '{99999999999999999999}'.format(1) }}", NULL,
     "format has no argument '99999999999999999999'"},
    {"{{ '{1a}'.format(1, 2) }}", NULL, "format has no argument '1a'"},
    /* What jinja2 has and this engine refuses. */
    {"{{ '{0.a}'.format(d) }}", NULL, "a format string with more than names is not supported"},
    {"{{ '{0[a]}'.format(d) }}", NULL, "a format string with more than names is not supported"},
    {"{{ '{0!r}'.format(d) }}", NULL, "a format string with more than names is not supported"},
    {"{{ \"don't stop\" | wordcount }} {{ '' | wordcount }} {{ 'a-b_c ä1 ½ 你好 🎉 x' | wordcount "
     "}} {{ 12.5 | wordcount }} {{ 'क्या' | wordcount }}",
     "3 0 6 2 2", NULL},
    {"{{ '' | indent(4, true) }}|{{ '\\nfoo' | indent(2, true) }}|{{ "
     "'a\\r\\nb\\rc\\x0bd\\x0ce\\u2028f\\x85g\\n' | indent(1) }}|{{ 'a\\n\\n\\nb' | indent(2, "
     "true, true) }}|{{ 'a\\n' | indent(2, blank=true) }}|{{ '\\n' | indent(2) }}|{{ '\\n' | "
     "indent(2, true) }}|{{ 'a\\n\\nb' | indent('> ') }}|{{ '' | indent(1, true, true) }}|{{ '' | "
     "indent }}",
     "    |  \n  foo|a\n b\n c\n d\n e\n f\n g\n|  a\n  \n  \n  b|a\n  |\n|  \n|a\n\n> b| |", NULL},
    {"{{ 'a\\x0bb\\x0cc\\u2028d\\x1ce\\x85f\\r\\r\\ng' .splitlines() }} {{ "
     "'a\\u2029\\nb\\n\\n'.splitlines(true)|length }} {{ 'é\\u2030x'.splitlines() }}",
     "['a', 'b', 'c', 'd', 'e', 'f', '', 'g'] 4 ['é‰x']", NULL},
    {"{{ ['a\\u00a0b', '\\u200bx', '\\ue000', '\\u2028', '\\u0378', '\\u3000', ' ', '\\x85', "
     "'\\xad', "
     "'\\ufeff', '\\x7f'] }} {{ {'\\u00a0': '\\u2003'} }}",
     "['a\\xa0b', '\\u200bx', '\\ue000', '\\u2028', '\\u0378', '\\u3000', ' ', '\\x85', '\\xad', "
     "'\\ufeff', '\\x7f'] {'\\xa0': '\\u2003'}",
     NULL},
    {"{{ ['🎉', 'é漢', '\U000e0001', '\U0010ffff'] }}", "['🎉', 'é漢', '\\U000e0001', '\\U0010ffff']",
     NULL},
};

static const row collections[] = {
    {"{{ d.get('a') }} {{ d.get('q') }} {{ d.get('q', 'def') }} {{ d.get(1, []) }} {{ {1: 'i', "
     "true: 'j'}.get(1.0) }} {{ {(1, 2): 't'}.get((1, 2)) }}",
     "x None def [] j t", NULL},
    {"{{ d.items() | list }} {{ d.keys() | list }} {{ d.values() | list }} {{ d.copy() }} {{ "
     "d.copy() == d }} {{ {}.items() | list }}",
     "[('b', 1), ('a', 'x')] ['b', 'a'] [1, 'x'] {'b': 1, 'a': 'x'} True []", NULL},
    {"{% for k, v in d.items() %}{{ k }}:{{ v }};{% endfor %}{% for v in d.values() %}{{ v }}{% "
     "endfor %}{% for k in d.keys() %}{{ k }}{% endfor %}{% for k in d %}{{ k }}{% endfor %}",
     "b:1;a:x;1xbaba", NULL},
    {"{{ d == {'a': 'x', 'b': 1} }} {{ d == {'a': 'x'} }} {{ d == {'a': 'x', 'c': 1} }} {{ d == "
     "{'a': 'y', 'b': 1} }} {{ d != {'b': 1.0, 'a': 'x'} }} {{ {} == {} }} {{ {'a': {'b': [1]}} == "
     "{'a': {'b': [1]}} }} {{ d == [] }} {{ {'a': 'x'} == d }} {{ {} == d }}",
     "True False False False False True True False False False", NULL},
    {"{{ {'a': 1}['a'] }} {{ 'a' in d }} {{ 'x' in d }} {{ 1 in {1: 2} }} {{ d | length }} {{ d | "
     "count }}",
     "1 True False True 2 2", NULL},
    {"{{ d.get([1]) }}", NULL, "unhashable type: 'list'"},
    {"{{ {[1]: 2} }}", NULL, "unhashable type: 'list'"},
    {"{{ d.pop('a') }}", NULL, "'pop' would change a value, which templates may not"},
    {"{{ d.update(a=1) }}", NULL, "'update' would change a value, which templates may not"},
    {"{{ d.setdefault('q', 1) }}", NULL,
     "'setdefault' would change a value, which templates may not"},
    {"{{ d.clear() }}", NULL, "'clear' would change a value, which templates may not"},
    {"{{ d.popitem() }}", NULL, "'popitem' would change a value, which templates may not"},
    {"{{ l.append(4) }}", NULL, "'append' would change a value, which templates may not"},
    {"{{ l.extend([4]) }}", NULL, "'extend' would change a value, which templates may not"},
    {"{{ l.insert(0, 4) }}", NULL, "'insert' would change a value, which templates may not"},
    {"{{ l.remove(3) }}", NULL, "'remove' would change a value, which templates may not"},
    {"{{ l.sort() }}", NULL, "'sort' would change a value, which templates may not"},
    {"{{ l.reverse() }}", NULL, "'reverse' would change a value, which templates may not"},
    {"{{ l.clear() }}", NULL, "'clear' would change a value, which templates may not"},
    {"{{ l.index(2) }} {{ l.count(1) }} {{ l.count(9) }} {{ ['a', 'b', 'a'].count('a') }} {{ "
     "l.copy() }} {{ l.copy() == l }} {{ [1, 1.0, true].count(1) }}",
     "2 1 0 2 [3, 1, 2] True 3", NULL},
    {"{{ l.index(9) }}", NULL, "the value is not in the list"},
    {"{{ l.nosuch }}|{{ d.nosuch }}", "|", NULL},
    {"{{ l.nosuch() }}", NULL, "'nosuch' is undefined"},
    {"{{ l | batch(2, 0) | list }}", "[[3, 1], [2, 0]]", NULL},
    {"{{ l | sum(start=10) }} {{ [1.5, 2] | sum }} {{ [] | max }} {{ ['b', 'A'] | min }} {{ l | "
     "unique | list }}",
     "16 3.5  A [3, 1, 2]", NULL},
    {"{{ {'b': 1, 'A': 2} | dictsort }} {{ {'b': 1, 'A': 2} | dictsort(true) }} {{ {'b': 1, 'A': "
     "2} | dictsort(reverse=true) }}",
     "[('A', 2), ('b', 1)] [('A', 2), ('b', 1)] [('b', 1), ('A', 2)]", NULL},
    {"{{ 'a b c' | replace(' ', '_') }}", "a_b_c", NULL},
    {"{{ '<a>' | forceescape }}", "&lt;a&gt;", NULL},
    {"{{ '<' | e | e }} {{ '<' | safe | escape }} {{ '<' | e | forceescape }} {{ ['<' | e] | "
     "map('e') | join }} {{ 7 | e | e }}",
     "&lt; < &amp;lt; &lt; 7", NULL},
    {"{{ [1, 2, 1].index(1, 1) }} {{ l.index(2, -1) }} {{ l.index(2, 0, 99) }} {{ l.index(3, -99, "
     "1) }} {{ (1, 2, 1).index(1, 1) }}",
     "2 2 2 0 2", NULL},
    {"{{ l.index(3, 1) }}", NULL, "the value is not in the list"},
    {"{{ l.count(1, 2) }}", NULL, "'count' takes not more than 1 argument(s)"},
    {"{{ l.copy(1) }}", NULL, "'copy' takes not more than 0 argument(s)"},
    {"{{ d.get('x', 2, 3) }}", NULL, "'get' takes not more than 2 argument(s)"},
    {"{{ d.keys(1) }}", NULL, "'keys' takes not more than 0 argument(s)"},
    {"{% set e = {'sort': 1, 'reverse': 2, 'insert': 3, 'append': 4, 'extend': 5, 'remove': 6, "
     "'index': 7, 'count': 8, 'format': 9} %}{{ e.sort }}{{ e.reverse }}{{ e.insert }}{{ e.append "
     "}}{{ e.extend }}{{ e.remove }}{{ e.index }}{{ e.count }}{{ e.format }}",
     "123456789", NULL},
    {"{% set e = {'pop': 1, 'clear': 2, 'update': 3, 'keys': 4} %}[{{ e.pop }}{{ e.clear }}{{ "
     "e.update }}]{{ e.pop is defined }}{{ e['pop'] }}{{ e['update'] }}{{ e['keys'] }}",
     "[]False134", NULL},
    {"{{ l.update is defined }}{{ l.append is defined }}{{ l.copy is defined }}{{ (1, 2).append is "
     "defined }}{{ (1, 2).copy is defined }}{{ (1, 2).count is defined }}{{ {}.append is defined "
     "}}{{ namespace(pop=1).pop }}",
     "FalseFalseTrueFalseFalseTrueFalse1", NULL},
    {"{{ (1, 2).append(3) }}", NULL, "'append' is undefined"},
    {"{{ d.sort() }}", NULL, "'sort' is undefined"},
    {"{% set e = {'pop': 1} %}{{ e.pop('pop') }}", NULL,
     "'pop' would change a value, which templates may not"},
};

static const row statements[] = {
    {"{% for x in l %}{{ loop.index }}/{{ loop.length }} {{ loop.index0 }} {{ loop.revindex }} {{ "
     "loop.revindex0 }} {{ loop.first }} {{ loop.last }} {{ loop.previtem }} {{ loop.nextitem }} "
     "{{ loop.depth }} {{ loop.depth0 }};{% endfor %}",
     "1/3 0 3 2 True False  1 1 0;2/3 1 2 1 False False 3 2 1 0;3/3 2 1 0 False True 1  1 0;",
     NULL},
    {"{% for x in 'abcd' %}{{ loop.cycle('1', '2', '3') }}{% endfor %} {% for x in [1, 1, 2, 2, 1] "
     "%}{{ 'c' if loop.changed(x) else '.' }}{% endfor %} {% for x in [1, 2] %}{{ loop.changed() "
     "}}{% endfor %}",
     "1231 c.c.c TrueFalse", NULL},
    {"{% for x in l %}{{ loop.cycle() }}{% endfor %}", NULL, "no items for cycling given"},
    {"{% for x in l %}{% for y in [1, 2] %}{{ loop.index }}{{ loop.last }}{% endfor %}{{ "
     "loop.index }} {% endfor %}",
     "1False2True1 1False2True2 1False2True3 ", NULL},
    {"{% for x in l if x != 1 %}{{ loop.index }}:{{ x }}:{{ loop.last }} {% endfor %}{{ loop is "
     "defined }}",
     "1:3:False 2:2:True False", NULL},
    {"{% for a, b in [(1, 2), [3, 4]] %}{{ a }}{{ b }}{% endfor %} {% for x in [] %}{% else %}e{% "
     "endfor %} {% for x in l %}{% else %}e{% endfor %}",
     "1234 e ", NULL},
    {"{% for a, b in [(1, 2, 3)] %}{% endfor %}", NULL, "3 values to unpack, expected 2"},
    {"{% for a, b in [1] %}{% endfor %}", NULL, "'int' object is not iterable"},
    {"{% set ns = namespace() %}{{ ns.a is defined }}{% set ns.a = 1 %}{{ ns.a }}{% set ns.a = "
     "ns.a + 1 %}{{ ns.a }}",
     "False12", NULL},
    {"{% set ns = namespace({'a': 1}, b=2) %}{{ ns.a }}{{ ns.b }}{% for x in l %}{% set ns.b = "
     "ns.b ~ x %}{% endfor %}{{ ns.b }}{% if true %}{% set ns.c = [] %}{% endif %}{{ ns.c }}",
     "122312[]", NULL},
    {"{% set x = 1 %}{% set x.y = 2 %}", NULL, "cannot assign attribute on non-namespace object"},
    {"{% set d.y = 2 %}", NULL, "cannot assign attribute on non-namespace object"},
    {"{% set ns = namespace(l=[]) %}{% for x in l %}{% set ns.l = ns.l + [x * 2] %}{% endfor %}{{ "
     "ns.l }}",
     "[6, 2, 4]", NULL},
    {"{% set c = cycler('a', 'b', 'c') %}{{ c.next() }}{{ c.next() }}{{ c.current }}{{ c.reset() "
     "}}{{ c.next() }}{{ c.current }}",
     "abcNoneab", NULL},
    {"{{ dict(a=1).a }}", "1", NULL},
    {"{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}", NULL,
     "macro 'm' takes not more than 1 argument(s)"},
    {"{% macro m(a) %}{{ a }}{% endmacro %}{{ m(b=2) }}", NULL,
     "macro 'm' takes no keyword argument 'b'"},
    {"{{ f(a=1, 2) }}", NULL, "a plain argument behind a named one"},
    {"{% macro m(a, b=2) %}{{ a }}{{ b }}{{ caller() }}{% endmacro %}{% call m(1, b=3) %}x{% "
     "endcall %}",
     "13x", NULL},
    {"{% filter replace('a', 'b') %}banana{% endfilter %} {% filter upper | lower %}aB{% endfilter "
     "%}",
     "bbnbnb ab", NULL},
    {"{% raw %}\nx{% endraw %}\ny", "\nxy", NULL},
    {"  {% raw %}  \n  x {% endraw %}\ny", "  \n  x y", NULL},
    {"a {%- raw -%}  \n  x\n {%- endraw -%}  \n y", "axy", NULL},
    {"a\n  {% raw -%}\n\n {{ x }}\n  {% endraw %}\n\nb", "a\n{{ x }}\n\nb", NULL},
    {"a{#}b#}c{#-#} d {#--#} e{# - #} f {#- -#} g {##}h{#+#}\ni{#+ +#}\nj", "ac de fg hi\nj", NULL},
    {"a{#}", NULL, "a comment without an end"},
    {"a{#-}", NULL, "a comment without an end"},
    {"{% macro m(x, y='dflt', z=y) %}[{{ x }}{{ y }}{{ z }}]{% endmacro %}{{ m(1, missing) }}{{ "
     "m(1) }}{{ m(y=missing) }}{{ m(1, none) }}{{ m(missing, 2) }}{{ m(1, z=missing) }}{{ m(1, "
     "missing, 3) }}",
     "[1][1dfltdflt][][1NoneNone][22][1dflt][13]", NULL},
    {"{% macro m(x) %}{{ x.y }}{% endmacro %}{{ m() }}", NULL, "'x' is undefined"},
    {"{% generation %}{% set q = 1 %}{{ q }}{% endgeneration %}{{ q }}|{% set q = 5 %}{% "
     "generation %}{{ q }}{% set q = 6 %}{{ q }}{% endgeneration %}{{ q }}{% set ns = "
     "namespace(a=1) %}{% generation %}{% set ns.a = 2 %}{% endgeneration %}{{ ns.a }}",
     "1|5652", NULL},
};

static const row generators[] = {
    {"{{ 'y' if [] | selectattr('x') }}{{ 'y' if [] | map('upper') }}{{ 'y' if [] | reject }}{{ "
     "'y' if [] | unique }}{{ 'y' if [] | batch(2) }}{{ 'y' if {} | items }}{{ 'y' if [] | reverse "
     "}}{{ 'n' if not '' | reverse }}",
     "yyyyyyyn", NULL},
    {"{{ ([] | select or 5) is iterable }}{{ ([] | select and 5) }}{{ not [] | select }}",
     "True5False", NULL},
    {"{% set g = l | map('string') %}{{ g | join }}{{ g | join }}{{ 'y' if g }}", "312y", NULL},
    {"{% set g = l | map('string') %}{{ g | first }}{{ g | first }}{{ g | list }}{{ g | first }}",
     "31['2']", NULL},
    {"{% set g = [1, 2, 3] | select %}{{ 2 in g }}{{ g | list }}{{ 3 in g }}", "True[3]False",
     NULL},
    {"{% set g = l | select %}{% for x in g %}{{ x }}{{ loop.length }}{% endfor %}{% for x in g "
     "%}{{ x }}{% else %}none{% endfor %}",
     "331323none", NULL},
    {"{% set ns = namespace(g=l | select) %}{{ ns.g | list }}{{ ns.g | list }}", "[3, 1, 2][]",
     NULL},
    {"{{ (l | select)[0] }}|{{ l | select is sequence }}|{{ l | select is iterable }}|{{ (l | "
     "select).index is defined }}|{{ l | select == l | select }}",
     "|False|True|False|False", NULL},
    {"{{ l | select | reverse | join }}{{ l | select | reverse | length }}{{ l | map('abs') | sort "
     "}}{{ l | select | max }}{{ l | select | sum }}{{ l | reverse | first }}",
     "2133[1, 2, 3]362", NULL},
    {"{{ q | reverse | list }}{{ q | items | list }}{{ d | reverse | list }}{{ d | dictsort | "
     "first }}{% set a, b, c = l | reverse %}{{ a }}",
     "[][]['a', 'b']('a', 'x')2", NULL},
    {"{{ l | select | last }}", NULL, "'generator' object is not reversible"},
    {"{{ l | reverse | last }}", NULL, "'generator' object is not reversible"},
    {"{{ (l | select)[:1] }}", NULL, "'generator' object is not subscriptable"},
    {"{{ n[:1] }}", NULL, "'int' object is not subscriptable"},
    {"{{ q[:1] }}", NULL, "'q' is undefined"},
    {"{{ l | select + [1] }}", NULL, "unsupported operand type(s) for +: 'generator' and 'list'"},
    {"{{ (l | select) * 2 }}", NULL, "unsupported operand type(s) for *: 'generator' and 'int'"},
    {"{{ l | unique | length }}", NULL, "object of type 'generator' has no len()"},
    {"{{ d | items | length }}", NULL, "object of type 'generator' has no len()"},
    {"{{ l | batch(2) | tojson }}", NULL, "Object of type generator is not JSON serializable"},
};

static const row tests[] = {
    {"{{ q is defined }}{{ l is defined }}{{ d.q is defined }}{{ q is undefined }}{{ d is mapping "
     "}}{{ l is mapping }}{{ namespace() is mapping }}{{ s is mapping }}",
     "FalseTrueFalseTrueTrueFalseFalseFalse", NULL},
    {"{{ l is sequence }}{{ d is sequence }}{{ s is sequence }}{{ n is sequence }}{{ l is iterable "
     "}}{{ d is iterable }}{{ s is iterable }}{{ n is iterable }}{{ none is iterable }}{{ range(2) "
     "is sequence }}",
     "TrueTrueTrueFalseTrueTrueTrueFalseFalseTrue", NULL},
    {"{{ n is number }}{{ f is number }}{{ true is number }}{{ s is number }}{{ n is integer }}{{ "
     "true is integer }}{{ f is integer }}{{ f is float }}{{ n is float }}{{ s is string }}{{ l is "
     "string }}{{ true is boolean }}{{ n is boolean }}",
     "TrueTrueTrueFalseTrueFalseFalseTrueFalseTrueFalseTrueFalse", NULL},
    {"{{ none is none }}{{ q is none }}{{ 0 is none }}{{ true is true }}{{ 1 is true }}{{ false is "
     "false }}{{ 0 is false }}{{ n is odd }}{{ 4 is even }}{{ n is divisibleby(7) }}{{ n is "
     "divisibleby 2 }}",
     "TrueFalseFalseTrueFalseTrueFalseTrueTrueTrueFalse", NULL},
    {"{{ 1 is eq 1 }}{{ 1 is equalto 2 }}{{ 1 is ne 2 }}{{ 1 is lt 2 }}{{ 2 is le 2 }}{{ 3 is ge 4 "
     "}}{{ 3 is gt 2 }}{{ 1 is greaterthan 0 }}{{ 1 is lessthan 0 }}{{ 1 is in [1] }}{{ 'a' is in "
     "'ba' }}{{ 1 is sameas 1 }}{{ none is sameas none }}",
     "TrueFalseTrueTrueTrueFalseTrueTrueFalseTrueTrueTrueTrue", NULL},
    {"{{ 'ab' is lower }}{{ 'aB' is lower }}{{ 'AB' is upper }}{{ range is callable }}{{ s is "
     "callable }}{{ s.upper is callable }}",
     "TrueFalseTrueTrueFalseTrue", NULL},
    {"{{ not n is odd }}{{ n is not odd }}{{ n is not defined }}{{ n is odd and n is number }}{{ q "
     "is not defined or q > 3 }}{{ n is odd ~ 'x' }}",
     "FalseFalseFalseTrueTrueTruex", NULL},
};

static const row numbers[] = {
    {"{{ 3 * 'ab' }} {{ 2 * [1] }} {{ 0 * 'a' }} {{ -1 * [1] }} {{ 2.0 * 3 }} {{ 7.5 % 2 }} {{ "
     "-7.5 % 2 }} {{ 7 % 2.5 }} {{ 7.5 // 2 }} {{ (-1) ** 3 }} {{ 0 ** 0 }} {{ 2 ** 0.5 }} {{ 1 ** "
     "-5 }} {{ (-1) ** -2 }}",
     "ababab [1, 1]  [] 6.0 1.5 0.5 2.0 3.0 -1 1 1.4142135623730951 1.0 1.0", NULL},
    {"{{ 5 % 0 }}", NULL, "integer division or modulo by zero"},
    {"{{ 5 // 0 }}", NULL, "integer division or modulo by zero"},
    {"{{ 5.0 % 0 }}", NULL, "division by zero"},
    {"{{ 2 * {} }}", NULL, "unsupported operand type(s) for *: 'int' and 'dict'"},
    {"{{ n() }}", NULL, "'int' object is not callable"},
    {"{{ {'a': 1}() }}", NULL, "'dict' object is not callable"},
    {"{{ 2.7 | round(method='floor') }} {{ 2.25 | round(1, 'floor') }} {{ 2.21 | round(1, 'ceil') "
     "}} {{ 7 | round }} {{ -2.5 | round }}",
     "2.0 2.2 2.3 7 -2.0", NULL},
    {"{{ 'x' | round }}", NULL, "round needs a number"},
    {"{{ l | map | list }}", NULL, "map requires a filter argument"},
    {"{{ d | attr('a') }}|{{ s | attr('q') }}|{{ namespace(a=5) | attr('a') }}", "||5", NULL},
    {"{{ f | string }} {{ (1e400) | string }} {{ -1e400 }} {{ 1e400 - 1e400 }}", "2.5 inf -inf nan",
     NULL},
    {"{{ '\\U0001f600' }} {{ '\\u20ac' }} {{ '\\x41' }} {{ '\\q' }}", "😀 € A \\q", NULL},
    {"{{ {1: [none, true], 'b': 1.0} | tojson }} {{ {2: 1} | tojson }}",
     "{\"1\": [null, true], \"b\": 1.0} {\"2\": 1}", NULL},
    {"{{ range | tojson }}", NULL, "Object of type function is not JSON serializable"},
    {"{{ '%r %s' % ('a', 'b') }} {{ '%c' % 'x' if false else '' }} {{ '%i%%' % 5 }} {{ '%+d % d' % "
     "(3, 4) }}",
     "'a' b  5% +3  4", NULL},
    {"{{ '%s' % ('a', 'b') }}", NULL, "not all arguments converted during string formatting"},
    {"{{ '%d' % 'a' }}", NULL, "%d format: a number is required, not str"},
    {"{{ '%s %s' % 'a' }}", NULL, "not enough arguments for format string"},
    {"{{ l['a'] }}|{{ l[0:'a'] if false }}", "|", NULL},
    {"{{ l['a':] }}", NULL, "slice indices must be integers, not 'str'"},
    {"{{ 0.0 or 'zero' }} {{ z or 'z' }} {{ 0.5 and 'half' }} {{ range and 'fn' }}",
     "zero z half fn", NULL},
    {"{{ 5 in 'a5' }}", NULL, "'in <string>' requires string as left operand, not int"},
    {"{{ range(2.5) }}", NULL, "'float' object cannot be interpreted as an integer"},
    {"{{ range('a') }}", NULL, "'str' object cannot be interpreted as an integer"},
    {"{{ range(1, 2, 0) }}", NULL, "range() arg 3 must not be zero"},
    {"{{ 9007199254740993 > 9007199254740992 }} {{ 9007199254740993 == 9007199254740992.0 }} {{ "
     "9007199254740993 is gt 9007199254740992 }} {{ [9007199254740993, 9007199254740992] | sort }} "
     "{{ [9007199254740992, 9007199254740993] | max }} {{ [9007199254740993, 9007199254740992.0] | "
     "min }}",
     "True False True [9007199254740992, 9007199254740993] 9007199254740993 9007199254740992.0",
     NULL},
    {"{{ 9223372036854775807 < 9223372036854775808.0 }} {{ -9223372036854775807 > "
     "-9223372036854775808.0 }} {{ 1 < 1.5 }} {{ -1 > -1.5 }} {{ 1 == 1.0 }} {{ 2 > 1e400 }} {{ 2 "
     "> -1e400 }} {{ true == 1.0 }} {{ true < 1.5 }} {{ 0.5 < true }} {{ (1e400 - 1e400) == 1 }} "
     "{{ (1e400 - 1e400) == (1e400 - 1e400) }} {{ 0 == -0.0 }} {{ 1e400 == 1e400 }} {{ -1.5 < -1 "
     "}} {{ 1.5 > 1 }}",
     "True True True True True False True True True True False False True True True True", NULL},
    {"{{ '%x' % -1 }} {{ '%X' % -255 }} {{ '%o' % -8 }} {{ '%x' % 255 }} {{ '%04x' % 255 }} {{ "
     "'%d' % -3 }}",
     "-1 -FF -10 ff 00ff -3", NULL},
    {"{{ ('%.99f' % 1e308) | length }} {{ '%.99f' % 1e308 | length if false }}{{ ('%99.99f' % "
     "-1e308)[-9:] }}",
     "409 000000000", NULL},
    {"{{ 1234 | round(-2) }} {{ 1250 | round(-2) }} {{ 1350 | round(-2) }} {{ -1250 | round(-2) }} "
     "{{ -1251 | round(-2) }} {{ 55 | round(-3) }} {{ 7 | round(2) }} {{ 42 | round(method='ceil') "
     "}} {{ 42 | round(-1, 'ceil') }} {{ 42 | round(-1, 'floor') }} {{ true | round }} {{ 9 | "
     "round(-1) }} {{ 5 | round(-1) }} {{ 15 | round(-1) }} {{ 9223372036854775807 | round(-20) }} "
     "{{ 4000000000000000000 | round(-19) }} {{ 4000000000000000000 | round(-18) }}",
     "1200 1200 1400 -1200 -1300 0 7 42.0 50.0 40.0 1 10 0 20 0 0 4000000000000000000", NULL},
    {"{{ 2.675 | round(2) }} {{ 1.005 | round(2) }} {{ 0.285 | round(2) }} {{ 1.115 | round(2) }} "
     "{{ 2.5 | round }} {{ 3.5 | round }} {{ -2.5 | round }} {{ 1234.5 | round(-2) }} {{ 1250.0 | "
     "round(-2) }} {{ 1350.0 | round(-2) }} {{ -3.0 | round(-1) }} {{ -1251.5 | round(-2) }} {{ "
     "0.1 | round(30) }} {{ 0.1 | round(330) }} {{ 5.5 | round(-309) }} {{ 1e22 | round(2) }} {{ "
     "2.55 | round(1, 'ceil') }} {{ 2.55 | round(-1, 'floor') }} {{ 1e400 | round(1) }}",
     "2.67 1.0 0.28 1.11 2.0 4.0 -2.0 1200.0 1200.0 1400.0 -0.0 -1300.0 0.1 0.1 0.0 1e+22 2.6 0.0 "
     "inf",
     NULL},
    {"{{ 2.5 | round(1, 'half') }}", NULL, "method must be common, ceil or floor"},
    {"{{ 2.5 | round(400, 'ceil') }}", NULL, "a number past those of 64 bits"},
};

static bool renders(const json_t *globals, const row *e) {
  ist_jinja *t = NULL;
  ist_error err = {0};
  ist_buf text = {0};
  ist_status status = ist_jinja_parse(&t, e->source, strlen(e->source), &err);
  if (status == IST_OK) status = ist_jinja_render(t, globals, NULL, &text, NULL, &err);
  bool good = e->want ? status == IST_OK && text.len == strlen(e->want) &&
                            (text.len == 0 || memcmp(text.p, e->want, text.len) == 0)
                      : status != IST_OK && strstr(err.message, "template, line 1") &&
                            strstr(err.message, e->says);
  if (!good)
    print_error("'%s' gives %s\n'%s', expected\n'%s'\n", e->source, status ? "the error" : "",
                status ? err.message : text.p, e->want ? e->want : e->says);
  ist_buf_free(&text);
  ist_jinja_free(t);
  return good;
}

static void check_all(const row *rows, size_t n) {
  json_t *globals = json_loads(data, 0, NULL);
  bool good = true;
  for (size_t i = 0; i < n; i++) good &= renders(globals, &rows[i]);
  json_decref(globals);
  assert_true(good);
}

#define TEST(name)                               \
  static void test_##name(void **state) {        \
    (void)state;                                 \
    check_all(name, sizeof name / sizeof *name); \
  }
TEST(strings)
TEST(collections)
TEST(statements)
TEST(generators)
TEST(tests)
TEST(numbers)

int main(void) {
  const struct CMUnitTest all[] = {
      cmocka_unit_test(test_strings),    cmocka_unit_test(test_collections),
      cmocka_unit_test(test_statements), cmocka_unit_test(test_generators),
      cmocka_unit_test(test_tests),      cmocka_unit_test(test_numbers),
  };
  return cmocka_run_group_tests(all, NULL, NULL);
}
