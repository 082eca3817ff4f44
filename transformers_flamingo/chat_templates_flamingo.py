# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""The two chat templates of Flamingo, in Jinja, which other programs render without this package.

- `"text"`: the language model's own, around Flamingo's images. Each image or video of a turn becomes a marker in its text, and
  the template of the tokenizer renders the rest. So roles, system turn and generation prompt are those that the language model
  was trained with.
- `"few_shot"`: a few-shot prompt (`prompts_flamingo.py`), for a base language model, which has never seen the header of a role.

The file travels with a checkpoint as remote code: it stays flat and imports nothing of its own package.
"""

import json
import re
import weakref
from typing import Any, NamedTuple

from transformers.tokenization_utils_base import PreTrainedTokenizerBase


#: The names under which a processor takes the templates
CHAT_TEMPLATES = ("text", "few_shot")

# Which token ends an answer and what comes before it, found in each tokenizer for the template that it was last asked about. Not an
# attribute, which would be copied and saved with the processor.
_ASSISTANT_TURNS: weakref.WeakKeyDictionary[PreTrainedTokenizerBase, tuple[Any, "AssistantTurn"]] = (
    weakref.WeakKeyDictionary()
)

# Images before the text that asks about them, because a token sees only images before it. A turn of the user that begins with an
# image is in Flamingo's order already, so `[image, "a cat.", image, "a dog."]` stays as it is. A space takes the place of an image
# between two words. Training data is put in this order by the same macro (`data/conversations.py`).
CONTENT_MACRO = """\
{%- macro flamingo_content(message) -%}
    {%- set content = message['content'] -%}
    {%- set asked = images_first is defined and images_first is not none -%}
    {%- if content is string -%}
        {{- content -}}
    {%- elif content -%}
        {%- set moves = message['role'] == 'user' and (images_first if asked else content[0]['type'] == 'text') -%}
        {%- set parts = namespace(images='', text='', is_open=false) -%}
        {%- for part in content -%}
            {%- if part['type'] == 'text' -%}
                {%- set is_seam = parts.is_open and part['text'] and not (parts.text[-1].isspace() or part['text'][0].isspace()) -%}
                {%- set parts.text = parts.text + (' ' if is_seam else '') + part['text'] -%}
                {%- set parts.is_open = false -%}
            {%- elif part['type'] not in ['image', 'video'] -%}
                {{- raise_exception("Flamingo reads content of type text, image and video, not " + part['type']) -}}
            {%- elif moves -%}
                {%- set parts.images = parts.images + image_token -%}
                {%- set parts.is_open = parts.text != '' -%}
            {%- else -%}
                {%- set parts.text = parts.text + image_token -%}
            {%- endif -%}
        {%- endfor -%}
        {{- parts.images + parts.text -}}
    {%- endif -%}
{%- endmacro -%}
"""

# A few-shot prompt as a chat: the text of the user is the prompt, the text of the assistant is a completed chunk. There
# are no role headers, because a base language model has never seen any. One space separates a question from its answer,
# and belongs to the answer: a byte-level tokenizer then splits the prompt in the same way with and without the answer
# after it.
_FEW_SHOT_COMMENT = "{#- Flamingo: a chat as a few-shot prompt -#}\n"
_FEW_SHOT_TEMPLATE = """\
{%- set state = namespace(open='') -%}
{%- for message in messages -%}
    {%- set text = flamingo_content(message) -%}
    {%- if message['role'] == 'assistant' -%}
        {%- set bare = not state.open or state.open.endswith(image_token) or state.open[-1].isspace() -%}
        {%- set gap = '' if bare or text[:1].isspace() else ' ' -%}
        {%- generation -%}{{- gap + text + end_of_chunk_token -}}{%- endgeneration -%}
        {%- set state.open = '' -%}
    {%- else -%}
        {%- if state.open and not state.open[-1].isspace() -%}{{- '\\n' -}}{%- endif -%}
        {{- text -}}
        {%- set state.open = text -%}
    {%- endif -%}
{%- endfor -%}
"""

# The last tag has no dash, which would strip the beginning of the language model's template. The line break after it is removed
# by `trim_blocks`, as after any tag.
_TEXT_COMMENT = (
    "{#- Flamingo: a marker for each image, in the chat template of the language model, which follows below -#}\n"
)
_TEXT_TEMPLATE = """\
{%- set flamingo = namespace(messages=[]) -%}
{%- for message in messages -%}
    {%- if message['content'] is defined and message['content'] is not none and message['content'] is not string -%}
        {%- set message = dict(message, content=flamingo_content(message)) -%}
    {%- endif -%}
    {%- set flamingo.messages = flamingo.messages + [message] -%}
{%- endfor -%}
"""
_TEXT_TEMPLATE_END = "{%- set messages = flamingo.messages %}\n"


def make_few_shot_template(image_token: str, end_of_chunk_token: str) -> str:
    """Return the chat template of few-shot prompts for these tokens, which need not be those of the tokenizer's variables."""
    tokens = {"image_token": image_token, "end_of_chunk_token": end_of_chunk_token}
    return _FEW_SHOT_COMMENT + _set_tokens(tokens) + CONTENT_MACRO + _FEW_SHOT_TEMPLATE


def make_text_template(own: str, image_token: str) -> str:
    """
    Put markers for images into the chat template of a language model.

    Args:
        own (`str`): The template, as the tokenizer has it, or one that this function returned.
        image_token (`str`): The marker.
    """
    own = own.partition(_TEXT_TEMPLATE_END)[2] if is_text_template(own) else own
    tokens = _set_tokens({"image_token": image_token})
    return _TEXT_COMMENT + tokens + CONTENT_MACRO + _TEXT_TEMPLATE + _TEXT_TEMPLATE_END + own


def is_text_template(template: Any) -> bool:
    """Tell whether a chat template is one that [`make_text_template`] made."""
    return isinstance(template, str) and template.startswith(_TEXT_COMMENT)


def is_flamingo_template(template: Any) -> bool:
    """Tell whether a chat template is one of Flamingo's two, and not one of a user."""
    return is_text_template(template) or (isinstance(template, str) and template.startswith(_FEW_SHOT_COMMENT))


def is_template_name(template: Any) -> bool:
    """Tell whether a chat template is given by a name, and not itself: in Jinja, a template has braces."""
    return isinstance(template, str) and "{" not in template


def choose_chat_template(
    name: str | None, tokenizer: PreTrainedTokenizerBase, image_token: str, end_of_chunk_token: str
) -> str | dict[str, str]:
    """
    Return the chat template of a processor.

    Args:
        name (`str`, *optional*): `"text"` or `"few_shot"`. By default that of the language model, if the tokenizer has one.
        tokenizer ([`PreTrainedTokenizerBase`]): The tokenizer. It may be that of a saved Flamingo, whose template is Flamingo's.
        image_token, end_of_chunk_token (`str`): The markers.

    Returns:
        `str`, or a `dict` of templates by name if the language model has several.

    Raises:
        `ValueError`: another name is given, or `"text"` is, and the tokenizer has no template of a language model.
    """
    if name not in (None, *CHAT_TEMPLATES):
        raise ValueError(
            f"`chat_template` is {name!r}, which would be written as it is instead of each conversation. It must be one of "
            f"{', '.join(map(repr, CHAT_TEMPLATES))}, or a template in Jinja, which can be set as `processor.chat_template`."
        )
    few_shot = make_few_shot_template(image_token, end_of_chunk_token)
    own = getattr(tokenizer, "chat_template", None)
    if isinstance(own, str) and own.startswith(_FEW_SHOT_COMMENT):
        own = None  # of a saved Flamingo
    if name == "few_shot" or (name is None and not own):
        return few_shot
    if not own:
        raise ValueError(
            f"`chat_template` is {name!r}, the language model's own, but {type(tokenizer).__name__} has none: it is that of a "
            "base model, or of a Flamingo that was saved with another template. Give the template itself, or the tokenizer of "
            "the language model, or 'few_shot'."
        )
    if isinstance(own, str):
        return make_text_template(own, image_token)
    return {"default": few_shot, **{key: make_text_template(value, image_token) for key, value in own.items()}}


class AssistantTurn(NamedTuple):
    """
    Hold what a chat template writes around an answer.

    Args:
        header (`str`): The generation prompt. `""` if there is none.
        end (`str`, *optional*): The token after the answer, at which generation must stop. `None` if there is none.
    """

    header: str
    end: str | None


def find_assistant_turn(tokenizer: PreTrainedTokenizerBase, template: str) -> AssistantTurn:
    """
    Find what a chat template writes around an answer.

    The template is rendered once, until another one is asked about or the tokenizer gets other tokens.

    Args:
        tokenizer ([`PreTrainedTokenizerBase`]): The tokenizer, whose tokens the template may write.
        template (`str`): The chat template.

    Raises:
        `jinja2.TemplateError`: the template does not accept a question and an answer.
    """
    asked = template, len(tokenizer), tokenizer.special_tokens_map
    known = _ASSISTANT_TURNS.get(tokenizer)
    if known is None or known[0] != asked:
        known = _ASSISTANT_TURNS[tokenizer] = asked, _render_assistant_turn(tokenizer, template)
    return known[1]


def _render_assistant_turn(tokenizer: PreTrainedTokenizerBase, template: str) -> AssistantTurn:
    chat = [{"role": "user", "content": [{"type": "text", "text": "a"}]}]
    if not is_flamingo_template(template):
        chat = [{"role": "user", "content": "a"}]  # any template takes a text

    def render(messages: list[dict[str, Any]], **kwargs: Any) -> str:
        return tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False, **kwargs)

    asked, prompt = render(chat), render(chat, add_generation_prompt=True)
    answer = "\ue000"  # of Unicode's private use area, so that it is nothing that a template writes
    _, _, rest = render([*chat, {"role": "assistant", "content": answer}]).partition(answer)
    return AssistantTurn(prompt.removeprefix(asked) if prompt.startswith(asked) else "", find_end(rest, tokenizer))


def find_end(text: str, tokenizer: PreTrainedTokenizerBase) -> str | None:
    """
    Return the token that ends an answer: the first of `text`, the rest of a chat after the answer.

    There may be white space before it. `None` if there is something else.
    """
    tokens = {*tokenizer.all_special_tokens, *(token.content for token in tokenizer.added_tokens_decoder.values())}
    known = "|".join(re.escape(token) for token in sorted(tokens, key=len, reverse=True) if token.strip())
    found = re.match(rf"\s*({known})", text) if known else None
    return found and found[1]


def find_end_of_turn(tokenizer: PreTrainedTokenizerBase, template: str | dict[str, str] | None) -> str | None:
    """Return the token that ends an answer in a chat template, `None` if there is none."""
    template = template.get("default") if isinstance(template, dict) else template
    if not template:
        return None
    try:
        return find_assistant_turn(tokenizer, template).end
    except Exception:  # a template may refuse this chat, or need a variable or a library
        return None


def _set_tokens(tokens: dict[str, str]) -> str:
    return "".join(f"{{%- set {name} = {json.dumps(token)} -%}}\n" for name, token in tokens.items())
