"""Generated conversations for check_templates.py and tests/jinja/make_goldens.py, and Python's
jinja2 set up as transformers sets it up for chat templates."""

import json
import random
from datetime import datetime

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.sandbox


class Generation(jinja2.ext.Extension):
    """{% generation %}: its body, as it is."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_same"), [], [], body).set_lineno(line)

    def _same(self, caller):
        return caller()


def environment(now):
    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators,
                          sort_keys=sort_keys)

    env = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = lambda f: datetime.fromtimestamp(now).strftime(f)
    return env


TEXTS = [
    "What is 2 + 2?", "Sure.", "  white space at both ends \n", "", "naïve café, ß, 你好, 🎉👩‍👩‍👧", "a\nb\n\nc",
    "It's \"quoted\" and \\escaped\\ {{ not_a_tag }} {% nor this %}", "<|im_end|> <s>[INST] </think> x",
    "<think>\nLet me see.\n</think>\n\nFour.", "línea\r\nsegunda\ttab", "x" * 300, "{\"a\": [1, 2.5, null]}",
]
TOOLS = [
    {"type": "function", "function": {
        "name": "get_weather", "description": "Weather of a place, à jour.",
        "parameters": {"type": "object", "properties": {
            "place": {"type": "string", "description": "A <town> & country"},
            "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
            "days": {"type": "integer", "default": 3}}, "required": ["place"]},
        "return": {"type": "string"}}},
    {"type": "function", "function": {
        "name": "add", "description": "Adds numbers.",
        "parameters": {"type": "object", "properties": {
            "numbers": {"type": "array", "items": {"type": "number"}}}, "required": ["numbers"]}}},
]


def conversation(rng):
    """Messages of one of the usual shapes."""
    messages, shape = [], rng.random()
    if rng.random() < 0.5:
        messages.append({"role": "system", "content": rng.choice(TEXTS)})
    for _ in range(rng.randint(1, 4)):
        messages.append({"role": "user", "content": rng.choice(TEXTS)})
        if shape < 0.25:
            call = {"type": "function", "id": "call12345", "function": {
                "name": "get_weather",
                "arguments": {"place": rng.choice(["Köln", "New York"]), "days": rng.randint(1, 5)}}}
            messages.append({"role": "assistant", "content": rng.choice(["", "I will look."]),
                             "tool_calls": [call]})
            messages.append({"role": "tool", "name": "get_weather", "tool_call_id": "call12345",
                             "content": "{\"degrees\": 21.5}"})
        answer = {"role": "assistant", "content": rng.choice(TEXTS)}
        if rng.random() < 0.15:
            answer["reasoning_content"] = "Because of this and that."
        messages.append(answer)
    if rng.random() < 0.5:
        messages.pop()
    return messages


def contexts(seed, count):
    """What a template is rendered over."""
    rng = random.Random(seed)
    for _ in range(count):
        messages = conversation(rng)
        tools = TOOLS[: rng.randint(1, 2)] if rng.random() < 0.4 else None
        context = {
            "messages": messages, "tools": tools, "documents": None,
            "add_generation_prompt": messages[-1]["role"] != "assistant",
            "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>",
        }
        if rng.random() < 0.2:
            context["enable_thinking"] = rng.random() < 0.5
        yield context


def render(env, template, context):
    """The text, or None and the error."""
    try:
        return env.from_string(template).render(**context), None
    except Exception as e:
        return None, f"{type(e).__name__}: {e}"
