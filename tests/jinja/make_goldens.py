"""Makes tests/jinja/golden: what Python's jinja2, set up as transformers does it, gives for the
templates of tests/jinja/templates over generated conversations, and for short expressions.

    python tests/jinja/make_goldens.py        (pip: jinja2)
"""

import json
import os
import pathlib
import sys

os.environ["TZ"] = "UTC"
HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "interop"))

import jinja2
from conversations import contexts, environment, render

NOW = 1721901600
DATA = {
    "s": "Hello, Wörld!", "empty": "", "n": 7, "f": 2.5, "yes": True, "no": False, "nil": None,
    "l": [3, 1, 2], "words": ["pear", "Apple", "fig"], "d": {"b": 1, "a": "x", "items": 9},
    "people": [{"name": "Ann", "age": 30, "in": {"x": 1}}, {"name": "bob", "age": 4}, {"name": "Cy"}],
    "lines": "one\ntwo\n\nthree", "padded": " \t x y \n", "uni": "naïve 你好 🎉", "html": "<a href='x'>&</a>",
}
SNIPPETS = r"""
{{ s }}|{{ n }}|{{ f }}|{{ yes }}|{{ nil }}|{{ l }}|{{ d }}|{{ missing }}
{{ 1 + 2 * 3 - 4 / 2 }} {{ 7 // 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 % -3 }} {{ 2 ** 10 }} {{ 2 ** -1 }} {{ 7.0 // 2 }}
{{ 1e20 }} {{ 1e16 }} {{ 123456789.125 }} {{ 0.1 + 0.2 }} {{ 1.0 }} {{ 1e-5 }} {{ 0.0001 }} {{ 5 / 5 }} {{ 1_000 }}
{{ 'a' ~ 1 ~ none ~ 2.0 ~ true }} {{ 'a' + 'b' }} {{ 'ab' * 3 }} {{ [1] * 2 + [3] }} {{ 'x' "y" 'z' }}
{{ not yes }} {{ yes and n }} {{ no or 'x' }} {{ no and missing.y }} {{ '' or none }} {{ nil is none }} {{ not (1 == 2) }}
{{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 1 == 1.0 }} {{ true == 1 }} {{ 'a' < 'b' }} {{ [1, 2] < [1, 3] }} {{ 1 != 2 }}
{{ 2 in l }} {{ 9 not in l }} {{ 'ell' in s }} {{ 'a' in d }} {{ 'z' in missing }} {{ '' in s }}
{{ l[0] }} {{ l[-1] }} {{ l[5] }} {{ s[1] }} {{ s[-1] }} {{ uni[2] }} {{ uni[-1] }} {{ d['a'] }} {{ d.a }} {{ d.zz }}
{{ l[1:] }} {{ l[:-1] }} {{ l[::-1] }} {{ s[7:12] }} {{ uni[::2] }} {{ uni[-3:] }} {{ s[::-1] }} {{ l[5:] }} {{ l[-9:2] }}
{{ d.items is defined }}
{{ d['items'] }} {{ d | length }} {{ d.items() | list }} {{ d.keys() | list }} {{ d.get('b') }} {{ d.get('q') }} {{ d.get('q', 5) }}
{{ 'yes' if yes else 'no' }} {{ 'only' if no }} {{ 1 if no else 2 if no else 3 }}
{{ padded | trim }}|{{ padded.strip() }}|{{ padded.lstrip() }}|{{ padded.rstrip() }}|{{ 'xxaxx'.strip('x') }}|{{ '\u3000a\u00a0'.strip() }}
{{ s.upper() }} {{ s.lower() }} {{ s | upper }} {{ 'hello wORLD foo-bar' | title }} {{ "it's a dog's".title() }} {{ 'hELLO' | capitalize }}
{{ 'straße' | upper }} {{ 'ÀÉ' | lower }} {{ 'ǆ'.title() }}
{{ 'a,b,,c'.split(',') }} {{ ' a  b '.split() }} {{ 'a b c d'.split(' ', 2) }} {{ ' a  b c '.split(none, 1) }} {{ 'a.b.c'.rsplit('.', 1) }}
{{ 'k=v=w'.partition('=') }} {{ 'k=v=w'.rpartition('=') }} {{ 'kv'.partition('=') }} {{ 'kv'.rpartition('=') }}
{{ 'abcabc'.replace('b', 'X') }} {{ 'abcabc'.replace('b', 'X', 1) }} {{ 'abc'.replace('', '-') }} {{ 'aaa' | replace('a', 'bb', 2) }}
{{ s.startswith('Hell') }} {{ s.startswith(('x', 'H')) }} {{ s.endswith('!') }} {{ s.find('W') }} {{ uni.find('好') }} {{ s.rfind('l') }} {{ s.count('l') }}
{{ 'pre-x'.removeprefix('pre-') }} {{ 'x.py'.removesuffix('.py') }} {{ '12'.isdigit() }} {{ 'ab'.isalpha() }} {{ ' '.isspace() }} {{ 'AB'.isupper() }} {{ ''.isdigit() }}
{{ 'a\nb\r\nc\n'.splitlines() }} {{ ','.join(['x', 'y']) }} {{ '{} and {x}'.format(1, x='two') }} {{ '{0}{1}{0}'.format('a', 'b') }}
{{ '%s is %d and %.2f' % ('x', 3, 2.5) }} {{ '%s' % 'one' }} {{ '%5.1f|%-4d|%04d|%x' | format(2.25, 3, 7, 255) }} {{ '100%%' % () }}
{{ words | join(', ') }} {{ people | join('/', attribute='name') }} {{ l | join }} {{ 'abc' | join('.') }}
{{ l | sort }} {{ l | sort(reverse=true) }} {{ words | sort }} {{ words | sort(case_sensitive=true) }} {{ people | sort(attribute='name') | map(attribute='name') | list }}
{{ l | first }} {{ l | last }} {{ [] | first }} {{ 'abc' | first }} {{ l | reverse | list }} {{ 'abc' | reverse }} {{ l | max }} {{ l | min }} {{ l | sum }}
{{ people | map(attribute='age', default=0) | list }} {{ words | map('upper') | list }} {{ words | map('replace', 'p', 'q') | list }} {{ people | sum(attribute='in.x') if false }}
{{ people | selectattr('age') | map(attribute='name') | list }} {{ people | selectattr('name', 'equalto', 'bob') | list }} {{ people | rejectattr('age', 'defined') | list }}
{{ [0, 1, none, 2] | select | list }} {{ l | select('odd') | list }} {{ l | reject('gt', 1) | list }} {{ ['a', 'B', 'A'] | unique | list }} {{ none | select | list }}
{{ d | dictsort }} {{ d | items | list }} {{ {'b': 2, 'a': 1} | dictsort(by='value') }} {{ {'x': 1}.items() | list }}
{{ missing | default('none') }} {{ '' | default('x') }} {{ '' | default('x', true) }} {{ nil | d('x') }} {{ nil | d('x', boolean=true) }}
{{ '42' | int }} {{ 'x' | int }} {{ 'x' | int(7) }} {{ '3.9' | int }} {{ '2.5' | float }} {{ 3.7 | int }} {{ 2.567 | round(2) }} {{ 2.5 | round }} {{ 2.1 | round(method='ceil') }} {{ -3 | abs }}
{{ lines | indent }}|{{ lines | indent(2, true) }}|{{ lines | indent(2, blank=true) }}|{{ lines | indent(width='> ') }}
{{ html | escape }} {{ html | e }} {{ '<b>' | safe }} {{ 'a'|safe + '<' }} {{ '<' + '>'|safe }} {{ 'a b/ü' | urlencode }} {{ lines | wordcount }}
{{ d | tojson }} {{ people | tojson(indent=2) }} {{ [] | tojson(indent=2) }} {{ {} | tojson }} {{ uni | tojson }} {{ uni | tojson(ensure_ascii=true) }}
{{ 'q"\\\n\t\u0001/' | tojson }} {{ [1.0, 2.5, 1e100, none, true] | tojson }} {{ d | tojson(sort_keys=true) }} {{ {'a': [1, 2]} | tojson(separators=(',', ':')) }} {{ d | tojson(indent='\t') }}
{{ 'it\'s' | list }} {{ ["it's", 'a"b', 'both\'"', 'n\nt\t', '\x01'] }} {{ (1,) }} {{ (1, 2) }} {{ () }} {{ {1: 'a', 'b': (2, [3])} }}
{{ n is odd }} {{ n is even }} {{ n is divisibleby 7 }} {{ n is number }} {{ n is integer }} {{ f is float }} {{ s is string }} {{ d is mapping }} {{ l is sequence }} {{ l is iterable }} {{ yes is boolean }} {{ yes is true }} {{ 1 is true }} {{ no is false }} {{ missing is defined }} {{ missing is undefined }} {{ s is not none }} {{ 'a' is lower }} {{ 2 is in l }} {{ n is eq 7 }} {{ n is gt(3) }} {{ range is callable }} {{ l is sameas l }}
{{ range(3) | list }} {{ range(1, 6, 2) | list }} {{ range(3, 0, -1) | list }} {{ dict(a=1, b='x') }} {{ dict({'q': 1}, r=2) }}
{% for x in l %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.cycle('a', 'b') }};{% endfor %}
{% for x in [] %}a{% else %}none{% endfor %} {% for x in l if x > 1 %}{{ x }}{{ loop.index }}{% endfor %} {% for k, v in {'a': 1, 'b': 2}.items() %}{{ k }}={{ v }} {% endfor %}
{% for x in range(9) %}{% if x == 2 %}{% continue %}{% endif %}{% if x == 5 %}{% break %}{% endif %}{{ x }}{% endfor %} {% for c in 'añ' %}<{{ c }}>{% endfor %} {% for k in d %}{{ k }}{% endfor %}
{% for x in [1, 1, 2] %}{% if loop.changed(x) %}{{ x }}{% endif %}{% endfor %} {% for a in [[1, 2], [3]] %}{% for b in a %}{{ loop.index }}{{ b }}{% endfor %}{% endfor %}
{% set x = 1 %}{% for i in l %}{% set x = 2 %}{% endfor %}{{ x }} {% if yes %}{% set x = 3 %}{% endif %}{{ x }} {% set a, b = 1, 2 %}{{ a + b }} {% set t = 1, 2 %}{{ t }}
{% set ns = namespace(n=0, s='') %}{% for i in l %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }} {{ ns.s == '' }}
{% set block %}a{{ n }}b{% endset %}[{{ block }}] {% set up | upper %}abc{% endset %}{{ up }} {% filter upper %}x{{ s }}{% endfilter %}
{% macro m(a, b=2, c=a) %}{{ a }}-{{ b }}-{{ c }}{% endmacro %}{{ m(1) }} {{ m(1, c=5) }} {{ m('x', 'y') }} {{ m() }} {{ m(1) | upper }}
{% macro f(n) %}{% if n > 1 %}{{ n * f(n - 1) | int }}{% else %}1{% endif %}{% endmacro %}{{ f(5) }} {% macro box() %}[{{ caller('q') }}]{% endmacro %}{% call(x) box() %}in {{ x }}{% endcall %}
{% set y = 5 %}{% macro g() %}{{ y }}{% endmacro %}{% set y = 6 %}{{ g() }} {% with a = 1, b = 2 %}{{ a }}{{ b }}{% endwith %}{{ a }}
{% if no %}a{% elif n == 7 %}b{% else %}c{% endif %} {% if missing %}a{% endif %}{% if not l %}b{% else %}c{% endif %}
a  {%- if yes -%}  b  {%- endif -%}  c {{- 1 -}}  d {#- comment -#} e
x {%+ if yes +%} y {% endif %} {% raw %}{{ raw }} {% x %}{% endraw %} z {# gone #}{{ '{{' }}
{% raw -%} a {%- endraw %} {{ "a\tb\\n\u00e9\x41" }}
  {% if yes %}   
  indented
  {% endif %}   
{{ d.b.c }} {{ nil.x }} {{ n.x }} {{ people[0]['in'].x }} {{ people[2].age }} {{ l | map('string') | join }}
{{ missing.x }}
{{ missing + 'x' }}
{{ 'a' + 1 }}
{{ 1 / 0 }}
{{ l.append(1) }}
{{ d.update({'x': 1}) }}
{{ nope() }}
{{ n | nofilter }}
{{ n is notest }}
{{ raise_exception('stop: ' ~ n) }}
{{ 'x' < 1 }}
{% for x in 5 %}{% endfor %}
{{ n | length }}
{{ range(1000000) }}
{{ ().x }}{{ "" "" }}{{ -n }}{{ +n }}{{ - -n }}{{ -n | abs }}{{ not not n }}
{{ strftime_now('%d %b %Y %H:%M:%S') }} {{ cycler('a', 'b').next() }}
{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}{{ c.current }} {% set j = joiner('; ') %}{% for x in l %}{{ j() }}{{ x }}{% endfor %}
{{ [1, 2, 3] | batch(2) | list }} {{ [[1, 'b'], [1, 'a']] | sort }} {{ [3, 1] + [2] | sort }} {{ l | list == l }} {{ (1, 2) == [1, 2] }} {{ 'B' > 'a' }}
{{ words[0][0] | upper ~ words[0][1:] }} {{ people | map(attribute='name') | map('lower') | join('|') }} {{ (words | length > 2) and 'many' }}
{{ {'a': 1}.a }} {{ {'a': {'b': [1, {'c': 2}]}}.a.b[1].c }} {{ 'abc'[1:][0] }} {{ "%s-%s" | format('a', 'b') }} {{ [s, n] | string }} {{ none | string }} {{ true | lower }}
{{ 3 | string ~ 4 }} {{ 10 - 2 - 3 }} {{ 2 * 3 % 4 }} {{ 2 ~ 3 + 1 if false else 'p' }} {{ 'a' in 'abc' and 'b' not in 'xyz' }} {{ not 'a' in 'abc' }}
{% for p in people | sort(attribute='name', reverse=true) %}{{ p.name }}{% if not loop.last %}, {% endif %}{% endfor %}
{% for x in l %}{% if loop.first %}{% set first = x %}{% endif %}{{ first }}{% endfor %} {{ first }}
{% if 'a' is in(['a']) %}in{% endif %} {% if s is defined and s is string and s | length > 3 %}ok{% endif %} {{ 1 if s is string else 2 }} {{ n is string or n is number }}
{{ '' }}{%- set z = [] -%}{{ z }}{{ z is defined }} {% set z = z + [1] %}{{ z }} {%- set q = {'k': z} %} {{ q }} {{ q.k[0] }}
""".strip("\n").split("\n")
# The lines of the indented one belong together.
first = SNIPPETS.index("  {% if yes %}   ")
SNIPPETS[first:first + 3] = ["\n".join(SNIPPETS[first:first + 3]), "a\n  {%- if yes %}\n  b\n{% endif %}\n\nc\n",
                            "{% for x in l %}\n- {{ x }}\n{% endfor %}\nend\n",
                            "a\n   {{ n }}\n  {# gone #}\n\t{% if yes %}b{% endif %}\n  {{- n }} {{ n -}}\n c"]


def main():
    env = environment(NOW)
    out = {"made_with": f"jinja2 {jinja2.__version__}", "now": NOW, "data": DATA, "snippets": [], "templates": []}
    for source in SNIPPETS:
        text, error = render(env, source, DATA)
        out["snippets"].append([source, text])
    for path in sorted((HERE / "templates").glob("*.jinja")):
        cases = []
        for context in contexts(11, 25):
            context = {k: v for k, v in context.items() if v is not None or k == "tools"}
            text, error = render(env, path.read_text(), context)
            cases.append([context, text])
        out["templates"].append([path.name, cases])
    (HERE / "golden" / "rendered.json").write_text(json.dumps(out, ensure_ascii=False, separators=(",", ":")) + "\n")
    print(len(SNIPPETS), "snippets,", sum(len(c) for _, c in out["templates"]), "conversations")


if __name__ == "__main__":
    main()
