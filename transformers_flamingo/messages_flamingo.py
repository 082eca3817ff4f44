# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Check the messages of a chat before a chat template renders them: Jinja would not say which message is wrong, or leave it out.

The file travels with a checkpoint as remote code: it stays flat and imports nothing of its own package.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any


# What a message of the assistant, or of a tool, may have instead of a content.
_CALLS = ("tool_calls", "tool_responses")
_ROLES = ("system", "user", "assistant", "tool")
# Options of `apply_chat_template` that are on or off
_SWITCHES = (
    "add_generation_prompt",
    "continue_final_message",
    "tokenize",
    "return_dict",
    "return_assistant_tokens_mask",
)


def check_conversations(conversation: Any, template: str | None) -> None:
    """
    Check a conversation, or a batch of them, with the number of the message in the errors.

    Args:
        conversation (`list[dict]` or `list[list[dict]]`): The messages: dicts, dataclasses or models of pydantic.
        template (`str`, *optional*):
            The chat template that renders them if it is one of Flamingo's, which read roles and contents. Others read what they like.

    Raises:
        ValueError: it is not a list of messages, or a message lacks what is read of it or has a role that nobody has.
    """
    if conversation is None or isinstance(conversation, str | bytes | int | float | dict) or not len(conversation):
        raise ValueError(
            f"`conversation` is {conversation!r:.200}. It must be a list of messages such as "
            '`{"role": "user", "content": "..."}`, or a list of such lists.'
        )
    if not isinstance(conversation, list | tuple):
        return
    if not isinstance(conversation[0], list | tuple):
        check_messages(conversation, template)
        return
    for number, messages in enumerate(conversation):
        if not isinstance(messages, list | tuple):
            raise ValueError(
                f"Conversation {number} of the batch is {messages!r:.100}. The first one is a list of messages, so each must be."
            )
        check_messages(messages, template, f" of conversation {number}")


def check_messages(messages: Sequence[Any], template: str | None = "", of: str = "") -> None:
    """
    Check the messages of a conversation.

    Args:
        messages (`Sequence`): The messages.
        template (`str`, *optional*, defaults to `""`): As in [`check_conversations`].
        of (`str`, *optional*, defaults to `""`): Follows the number of a message in an error.

    Raises:
        ValueError: a message has no role or no content, or a part of its content no text or another type.
    """
    is_own_template = template is not None
    for index, message in enumerate(messages):
        name, known = f"Message {index}{of}", _as_mapping(message)
        if known is None:
            if hasattr(message, "messages"):  # a conversation of another kind, which transformers takes
                return
            raise ValueError(
                f'{name} is {message!r:.100}. A message is a dict such as `{{"role": "user", "content": "..."}}`.'
            )
        if is_own_template:
            _check_role(known, name, template)
        content = known.get("content")
        if content is None:
            if is_own_template and not any(known.get(call) for call in _CALLS):
                raise ValueError(
                    f"{name} has no `content` ({_describe(known)}), so there is nothing to read. Give it a text, or a list of parts "
                    'such as `{"type": "text", "text": "..."}` and `{"type": "image", "image": image}`.'
                )
        elif not isinstance(content, str | list | tuple):
            raise ValueError(f"{name} has the content {content!r:.100}. It must be a text or a list of blocks.")
        for part in () if content is None or isinstance(content, str) else content:
            _check_part(part, name, is_own_template)


def check_options(options: Mapping[str, Any]) -> None:
    """
    Check the options of a chat template that are truth values. In Jinja and in Python, any value is one: the text "false" is true.

    Args:
        options (`dict`): The options of a call, by name. Others are not looked at.

    Raises:
        ValueError: one is not a truth value.
    """
    for name in _SWITCHES:
        if options.get(name) is not None and not isinstance(options[name], bool):
            raise ValueError(
                f"`{name}` is {options[name]!r:.100}, which counts as {bool(options[name])}. It must be True or False."
            )
    images_first = options.get("images_first")
    if images_first is not None and not isinstance(images_first, bool):
        raise ValueError(
            f"`images_first` is {images_first!r}. It must be True, False or None, the default, which puts the images of a message that "
            "begins with a text first."
        )


def _check_role(message: Mapping[str, Any], name: str, template: str) -> None:
    role = message.get("role")
    if role is None:
        raise ValueError(
            f"{name} has no `role` ({_describe(message)}), so it is unknown who says it. Give it "
            '`"role": "system"`, `"user"` or `"assistant"`.'
        )
    if not isinstance(role, str) or not role:
        raise ValueError(f'{name} has the role {role!r:.100}. It must be a string such as "user".')
    # A template that compares no role with it renders it as it renders any other
    if role not in _ROLES and not re.search(rf"([\"']){re.escape(role)}\1", template):
        raise ValueError(
            f"{name} has the role {role!r:.100}, which the chat template does not know: it would be read as another one. Known roles "
            f"are {', '.join(_ROLES)}, and those that the template of the language model names."
        )


def _check_part(part: Any, name: str, is_own_template: bool) -> None:
    known = _as_mapping(part)
    kind = None if known is None else known.get("type")
    if kind is None:
        raise ValueError(
            f"{name} has the content {part!r:.100}. It must be a text, or a list of blocks such as "
            '`{"type": "text", "text": "..."}` and `{"type": "image", "image": image}`.'
        )
    if not is_own_template:
        return
    if kind == "text" and not isinstance(known.get("text"), str):
        raise ValueError(
            f"{name} has a part of type text whose `text` is {known.get('text')!r:.100} ({_describe(known)}). It must be a string."
        )
    is_address = kind == "image_url" and known.get("image_url") is not None  # of OpenAI
    if kind not in ("text", "image", "video") and not is_address:
        raise ValueError(f"{name} asks for {kind}, but Flamingo reads text, images and videos only.")


def _as_mapping(value: Any) -> Mapping[str, Any] | None:
    """Return the fields of a message or part, as transformers reads them, or `None` if it has none."""
    if isinstance(value, Mapping):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return value.model_dump() if callable(getattr(value, "model_dump", None)) else None


def _describe(message: Mapping[str, Any]) -> str:
    given = [repr(name) for name, value in message.items() if value is not None]
    return f"it has {', '.join(given)}" if given else "it is empty"
