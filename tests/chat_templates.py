# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Chat templates as instruct models have them, and a tokenizer that knows their tokens."""

from processors import make_image_processor, make_tokenizer
from tokenizers import processors
from transformers import PreTrainedTokenizerFast

from transformers_flamingo import FlamingoProcessor


CHATML = """\
{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system
You are helpful.<|im_end|>
' }}{% endif %}{{'<|im_start|>' + message['role'] + '
' + message['content'] + '<|im_end|>' + '
'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant
' }}{% endif %}"""

# It writes the first token itself, strips the texts, and changes the messages
WITH_BOS = """\
{{- bos_token }}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start|>system\\n\\n" + system_message + "<|eot|>" }}
{%- for message in messages %}
    {{- '<|start|>' + message['role'] + '\\n\\n'+ message['content'] | trim + '<|eot|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start|>assistant\\n\\n' }}
{%- endif %}
"""

# Roles must alternate, there is no generation prompt, and a space before the answer
INSTRUCT = """\
{{- bos_token -}}
{%- for message in messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{- raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') -}}
    {%- elif message['role'] == 'user' -%}
        {{- '[INST] ' + message['content'] + ' [/INST]' -}}
    {%- else -%}
        {{- ' ' + message['content'] + '</s>' -}}
    {%- endif -%}
{%- endfor -%}"""

# It has another name for the assistant, and writes an empty thought into the last answer
THINKING = """\
{%- set ns = namespace(last=0) %}
{%- for message in messages %}{% if message.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}
{%- for message in messages %}
    {%- set content = message.content if message.content is string else '' %}
    {{- '<|start|>' + ('model' if message.role == 'assistant' else message.role) + '\\n' }}
    {%- if message.role == 'assistant' and loop.index0 > ns.last %}{{- '<think>\\n\\n</think>\\n\\n' }}{% endif %}
    {{- content + '<|eot|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start|>model\\n' }}{% endif %}
"""

TEMPLATES = {"chatml": CHATML, "with_bos": WITH_BOS, "instruct": INSTRUCT, "thinking": THINKING}

#: Template -> the token that ends an answer
ENDS = {"chatml": "<|im_end|>", "with_bos": "<|eot|>", "instruct": "</s>", "thinking": "<|eot|>"}


def instruct_tokenizer(template: str | dict[str, str] | None) -> PreTrainedTokenizerFast:
    """Make a tokenizer with a chat template, which adds `<s>` to a text as that of LLaMA does."""
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens(
        {
            "bos_token": "<s>",
            "eos_token": "</s>",
            "extra_special_tokens": ["<|im_start|>", "<|im_end|>", "<|start|>", "<|eot|>"],
        }
    )
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)]
    )
    tokenizer.chat_template = template
    return tokenizer


def instruct_processor(template: str | dict[str, str] | None, **kwargs) -> FlamingoProcessor:
    """Make a processor with the tokenizer of [`instruct_tokenizer`]."""
    return FlamingoProcessor(make_image_processor(), instruct_tokenizer(template), **kwargs)
