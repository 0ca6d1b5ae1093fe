#!/usr/bin/env python3
"""Records what `transformers` renders from chat templates, for the engine's tests.

    pip install transformers jinja2
    python tests/tools/chat_template_fixtures.py > engine/tests/fixtures/chat_templates.json

SmolLM2's, Llama 2's and TinyLlama's templates are those of the models (Apache-2.0, from the
GGUF, from transformers' LlamaTokenizer and from the model's tokenizer_config.json). `llama3`
is written here after the manner of Llama 3.1's: its constructs, not its text. `constructs` and
the rest hold what other templates use.
"""

import datetime
import json
import sys

from transformers.utils import chat_template_utils


class FixedDatetime(datetime.datetime):
    """The clock of the fixtures."""

    @classmethod
    def now(cls, tz=None):
        return cls(2025, 3, 4, 15, 6, 7)


chat_template_utils.datetime = FixedDatetime

SMOLLM2 = """{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system
You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>
' }}{% endif %}{{'<|im_start|>' + message['role'] + '
' + message['content'] + '<|im_end|>' + '
'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant
' }}{% endif %}"""

LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}"
    "{% set loop_messages = messages[1:] %}"
    "{% set system_message = messages[0]['content'] %}"
    "{% else %}"
    "{% set loop_messages = messages %}"
    "{% set system_message = false %}"
    "{% endif %}"
    "{% for message in loop_messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}"
    "{% endif %}"
    "{% if loop.index0 == 0 and system_message != false %}"
    "{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}"
    "{% else %}"
    "{% set content = message['content'] %}"
    "{% endif %}"
    "{% if message['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
    "{% elif message['role'] == 'system' %}"
    "{{ '<<SYS>>\\n' + content.strip() + '\\n<</SYS>>\\n\\n' }}"
    "{% elif message['role'] == 'assistant' %}"
    "{{ ' '  + content.strip() + ' ' + eos_token }}"
    "{% endif %}"
    "{% endfor %}"
)

TINYLLAMA = (
    "{% for message in messages %}\n{% if message['role'] == 'user' %}\n"
    "{{ '<|user|>\n' + message['content'] + eos_token }}\n"
    "{% elif message['role'] == 'system' %}\n"
    "{{ '<|system|>\n' + message['content'] + eos_token }}\n"
    "{% elif message['role'] == 'assistant' %}\n"
    "{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n{% endif %}\n"
    "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"
)

LLAMA3 = """{{- bos_token }}
{%- if not tools_first is defined %}
    {%- set tools_first = true %}
{%- endif %}
{%- if not today is defined %}
    {%- if strftime_now is defined %}
        {%- set today = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set today = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}

{#- The system message goes into a slot of its own. #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system = "" %}
{%- endif %}

{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if tools is not none %}
    {{- "Environment: test\\n" }}
{%- endif %}
{{- "Today: " + today + "\\n\\n" }}
{%- if tools is not none and not tools_first %}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\\n\\n" }}
    {%- endfor %}
{%- endif %}
{{- system }}
{{- "<|eot_id|>" }}

{#- Tools go in front of the first message of the user. #}
{%- if tools_first and not tools is none %}
    {%- if messages | length != 0 %}
        {%- set first = messages[0]['content']|trim %}
        {%- set messages = messages[1:] %}
    {%- else %}
        {{- raise_exception("There is no user message to put the tools in!") }}
{%- endif %}
    {{- '<|start_header_id|>user<|end_header_id|>\\n\\n' -}}
    {{- "Call a function:\\n\\n" }}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\\n\\n" }}
    {%- endfor %}
    {{- first + "<|eot_id|>"}}
{%- endif %}

{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("One call at a time, please!") }}
        {%- endif %}
        {%- set call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
        {{- '{"name": "' + call.name + '", ' }}
        {{- '"parameters": ' }}
        {{- call.arguments | tojson }}
        {{- "}" }}
        {{- "<|eot_id|>" }}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" }}
        {%- if message.content is mapping or message.content is iterable %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""

# Thinking blocks dropped, generation marked for training, a loop left early, a macro.
GENERATION = """{%- macro turn(role, text) -%}
<|{{ role }}|>{{ text }}<|end|>
{% endmacro %}
{%- set ns = namespace(seen=0, last='') %}
{% for message in messages %}
    {% if message.role == 'stop' %}
        {% break %}
    {% elif message.role == 'skip' %}
        {% continue %}
    {% endif %}
    {% set ns.seen = ns.seen + 1 %}
    {% set ns.last = message.role %}
    {% if message.role == 'assistant' %}
<|assistant|>
        {%- generation %}
            {%- set content = message.content %}
            {%- if '</think>' in content %}
                {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
            {%- endif %}
            {{- content + eos_token }}
        {% endgeneration %}
    {% else %}
{{ turn(message.role, message.content) }}
    {% endif %}
{% endfor %}
{{ ns.seen }} {{ ns.last }}
"""

CONSTRUCTS = """{% set first = messages | first %}{% set last = messages[-1] %}
{{ first.role | upper }} {{ last['content'] | length }} {{ messages | map(attribute='role') | join(', ') }}
{{ messages | selectattr('role', 'equalto', 'user') | list | length }} {{ messages | rejectattr('role', 'equalto', 'user') | map(attribute='content') | list | tojson }}
{% for k, v in last.items() %}{{ k.title() }}={{ v }};{% endfor +%}
{% for k, v in last | dictsort %}{{ loop.index }}/{{ loop.length }} {{ k }}{{ ', ' if not loop.last }}{% endfor %}

{{ last.nothing is defined }} {{ last.nothing }} {{ none }} {{ true }} {{ 3 / 2 }} {{ 7 // 2 }} {{ 2 ** 3 }} {{ -7 % 3 }} {{ 1.0 }}
{{ last.get('name', 'nobody') }} {{ last.get('name') is none }} {{ 'name' in last }} {{ 'name' not in last }}
{{ [1, 2.5, 'x', none, true] }} {{ {'a': [1], 'b': {'c': 'd'}} }} {{ (1, 'a') }}
{{ last.content[:3] }}|{{ last.content[-3:] }}|{{ last.content[::-1] }}|{{ messages[::-1][0].role }}
{{ '%s-%d-%05.1f' | format('a', 3, 2.25) }} {{ 'a' ~ 1 ~ none ~ true }} {{ 'ab' * 2 }} {{ [1] + [2] }}
{{ '  x ' | trim }}|{{ '  x '.strip() }}|{{ 'xxaxx'.strip('x') }}|{{ 'a,b,c'.split(',') }}|{{ 'a b'.split() }}|{{ 'a,b,c'.split(',', 1)[1] }}
{{ 'abc'.startswith('ab') }} {{ 'abc'.endswith(('x', 'bc')) }} {{ 'hello'.capitalize() }} {{ 'a-b'.replace('-', '+') }} {{ 'A'.lower() }} {{ 'abc'.find('c') }}
{{ 'x' is string }} {{ 1 is number }} {{ messages is iterable }} {{ 'x' is iterable }} {{ last is mapping }} {{ messages is sequence }} {{ none is none }} {{ 1 is odd }}
{{ [3, 1, 2] | sort }} {{ [3, 1, 2] | max }} {{ [1, 1, 2] | unique | list }} {{ [1, 2] | sum }} {{ 'abc' | reverse }} {{ [1, 2, 3] | reverse | list }} {{ '3' | int + 1 }} {{ 2.6 | round | int }} {{ 5 | string + '!' }}
{{ undefined_thing | default('fallback') }} {{ '' | default('empty', true) }} {{ ['a', 'b'] | last }} {{ 'a\\nb' | indent(2) }}
{% set ns = namespace(found=false) %}{% for m in messages if m.role == 'assistant' %}{% set ns.found = true %}{% else %}none{% endfor %}{{ ns.found }}
{% for m in messages %}{{ loop.index0 }}{{ loop.first }}{{ loop.last }}{{ loop.revindex }}{{ loop.previtem.role if loop.previtem is defined }}{{ loop.nextitem.role if loop.nextitem is defined }}{{ loop.cycle('o', 'e') }} {% endfor %}

{% set block %}captured {{ first.role }}{% endset %}{{ block }} {{ block | length }}
{% raw %}{{ raw }}{% endraw %} {# comment #} {{ "quote's" }} {{ 'tab\\t' }}|
{% if messages | length > 1 and not first.role == 'tool' or false %}yes{% elif true %}no{% endif %}

{%- filter upper %} filtered {% endfilter %}
{% with a = 1, b = 2 %}{{ a + b }}{% endwith %} {{ range(1, 7, 2) | list }} {{ dict(a=1) }} {{ "é" | length }} {{ "😀é"[0] }}
{{ strftime_now('%Y-%m-%d %H:%M') }} {{ bos_token is defined }} {{ pad_token is defined }} {{ tools is none }} {{ documents is none }}
   {%- if true +%}
kept
   {% endif %}
  {{- ' end' }}  
"""

TOJSON = """{% for m in messages %}{{ m | tojson }}
{{ m | tojson(indent=2) }}
{{ m | tojson(separators=(',', ':'), sort_keys=true) }}
{{ m.content | tojson(ensure_ascii=True) }}
{% endfor %}{{ tools | tojson }} {{ [1.0, 1e20, 1e-7, 12345678901234567890, -1] | tojson }}"""

NAMED = [
    {"name": "default", "template": "plain{% for m in messages %} {{ m.content }}{% endfor %}"},
    {"name": "tool_use", "template": "{% for t in tools %}[{{ t.function.name }}]{% endfor %}{% for m in messages %} {{ m.content }}{% endfor %}"},
]

TEMPLATES = {
    "smollm2": SMOLLM2,
    "llama2": LLAMA2,
    "tinyllama": TINYLLAMA,
    "llama3": LLAMA3,
    "generation": GENERATION,
    "constructs": CONSTRUCTS,
    "tojson": TOJSON,
    "named": NAMED,
}

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "relay",
            "description": "Switches a relay: <on> & 'off'. Schaltet „ein“.",
            "parameters": {
                "type": "object",
                "properties": {
                    "port": {"type": "integer", "minimum": 0},
                    "level": {"type": "number", "default": 0.5},
                    "on": {"type": "boolean"},
                },
                "required": ["port", "on"],
            },
        },
    }
]


def message(role, content, **more):
    return {"role": role, "content": content, **more}


USER = message("user", "  What is the capital of France?\n")
CONVERSATIONS = {
    "one": [USER],
    "system": [message("system", " Be brief. "), USER],
    "turns": [
        USER,
        message("assistant", "Paris."),
        message("user", "And of Österreich? 😀 <b>{{ x }}</b>"),
    ],
    "system and turns": [
        message("system", "You answer\nin two lines."),
        USER,
        message("assistant", " Paris \n"),
        message("user", "Why?"),
    ],
}
CALL = {"type": "function", "function": {"name": "relay", "arguments": {"port": 3, "on": True, "note": "é"}}}
CALLS = [
    message("user", "Switch relay 3 on."),
    message("assistant", None, tool_calls=[CALL]),
    message("tool", '{"ok": true}'),
]
# The same as OpenAI's API has it: arguments as a string, content in parts.
CALLS_AS_SENT = [
    message("user", [{"type": "text", "text": "Switch relay 3 on."}]),
    message(
        "assistant",
        None,
        tool_calls=[
            {
                "type": "function",
                "function": {"name": "relay", "arguments": '{"port":3,"on":true,"note":"é"}'},
            }
        ],
    ),
    message("tool", '{"ok": true}'),
]
THINKING = [
    message("user", "Think."),
    message("skip", "not shown"),
    message("assistant", "<think>hm</think>\n\nDone."),
    message("assistant", "Plain."),
    message("stop", "the end"),
    message("user", "never seen"),
]
TRICKY = [
    message("user", 'quotes " and \\ and \t and \u007f and \u2028 and </script>'),
    message("assistant", "empty: ", weight=0.1, count=3, flags=[True, None, {}], name="n"),
]

LLAMA_TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
LLAMA3_TOKENS = {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}
SMOLLM_TOKENS = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}
TOKENS = {"smollm2": SMOLLM_TOKENS, "llama3": LLAMA3_TOKENS}


def render(template, messages, tools, add_generation_prompt, tokens):
    if isinstance(template, list):
        by_name = {entry["name"]: entry["template"] for entry in template}
        template = by_name["tool_use" if tools and "tool_use" in by_name else "default"]
    rendered, _ = chat_template_utils.render_jinja_template(
        conversations=[messages],
        tools=tools,
        chat_template=template,
        add_generation_prompt=add_generation_prompt,
        **tokens,
    )
    return rendered[0]


def case(name, template, messages, tools=None, prompt=True, sent=None, sent_tools=None):
    tokens = TOKENS.get(template, LLAMA_TOKENS)
    result = {
        "name": f"{template}: {name}",
        "template": template,
        "special_tokens": tokens,
        "messages": sent or messages,
        "tools": tools if sent_tools is None else sent_tools,
        "add_generation_prompt": prompt,
    }
    try:
        result["expected"] = render(TEMPLATES[template], messages, tools, prompt, tokens)
    except Exception as error:  # noqa: BLE001
        if type(error).__name__ != "TemplateError":
            raise
        result["raised"] = str(error)
    return result


def cases():
    for template in ("smollm2", "llama2", "tinyllama", "llama3"):
        for name, messages in CONVERSATIONS.items():
            for prompt in (True, False):
                yield case(f"{name}, prompt {prompt}", template, messages, prompt=prompt)
    yield case("roles that do not alternate", "llama2", [USER, USER])
    yield case("assistant first", "llama2", [message("assistant", "Hi.")])
    yield case("tools", "llama3", CONVERSATIONS["system and turns"], tools=TOOLS)
    # OpenAI's API takes an empty list for no tools.
    yield case("tools, none", "llama3", CONVERSATIONS["one"], sent_tools=[])
    yield case("tool calls", "llama3", CALLS, tools=TOOLS)
    yield case("tool calls as sent", "llama3", CALLS, tools=TOOLS, sent=CALLS_AS_SENT)
    yield case("no message for the tools", "llama3", [message("system", "x")], tools=TOOLS)
    yield case("two calls", "llama3", [USER, message("assistant", None, tool_calls=[CALL, CALL])])
    yield case("thinking", "generation", THINKING)
    yield case("turns", "constructs", CONVERSATIONS["turns"])
    yield case("system", "constructs", CONVERSATIONS["system"])
    yield case("tricky", "tojson", TRICKY, tools=TOOLS)
    yield case("tricky", "smollm2", TRICKY)
    yield case("without tools", "named", [USER])
    yield case("with tools", "named", [USER], tools=TOOLS)


json.dump(
    {"templates": TEMPLATES, "cases": list(cases())},
    sys.stdout,
    ensure_ascii=False,
    indent=1,
)
print()
