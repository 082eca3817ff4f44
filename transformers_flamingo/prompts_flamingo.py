# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Few-shot prompts, built from demonstrations, and the media of chats.

    <image>text<|endofchunk|><image>text<|endofchunk|><image>

[`FewShotPromptMixin`] builds it from pairs of an image and a text. The chat template `"few_shot"`
(`chat_templates_flamingo.py`) renders it from a chat. Change both together; a test checks that they agree.

The file travels with a checkpoint as remote code: it stays flat and imports only its siblings.
"""

from collections.abc import Sequence
from typing import Any

from .media_flamingo import is_array, video_type_error


class FewShotPromptMixin:
    """Methods of [`FlamingoProcessor`] that build few-shot prompts."""

    image_token: str
    end_of_chunk_token: str

    def few_shot_text(
        self,
        demonstrations: Sequence[tuple[int, str]],
        query: tuple[int, str] = (1, ""),
        separator: str = "",
    ) -> tuple[str, str]:
        r"""
        Build the text of a few-shot prompt (paper, section 2.5) in two parts: the demonstrations, whose cache can be shared by
        many queries, and the query.

        ```
        <image>{text}<|endofchunk|>{separator} ... <image>{text}<|endofchunk|>{separator}  +  <image>{query}
        ```

        [`~FlamingoProcessor.few_shot_prompt`] builds the text with its images. Evaluation, which caches the first part, and
        everything else that writes few-shot prompts uses this method.

        Args:
            demonstrations (`Sequence[tuple[int, str]]`):
                Pairs of the number of images or videos of a demonstration and its complete text. With 0 it is shown by its
                text alone.
            query (`tuple[int, str]`, *optional*, defaults to `(1, "")`):
                Number of images or videos of the query, and the beginning of its text. The chunk is left open for the
                model to complete.
            separator (`str`, *optional*, defaults to `""`): Follows the end of each demonstration.

        Returns:
            `tuple[str, str]`: the demonstrations and the query. The prompt is one after the other.
        """
        # The separator belongs to the first part, so that the query begins with its marker. That is a token of its own, so
        # the two parts can be tokenized apart.
        end = self.end_of_chunk_token + separator
        chunks = [self.image_token * count + text for count, text in [*demonstrations, query]]
        return "".join(chunk + end for chunk in chunks[:-1]), chunks[-1]

    def few_shot_prompt(
        self,
        demonstrations: list[tuple[Any, str]],
        query_image: Any = None,
        query_text: str = "",
        prefix: str = "",
    ) -> dict[str, list]:
        r"""
        Build the few-shot prompt of the paper (section 2.5): each demonstration is an image, its text and the end of the
        chunk; the query is an image and the beginning of its text, left open for the model to complete.

        ```
        <image>{prefix}{text}<|endofchunk|> ... <image>{prefix}{text}<|endofchunk|><image>{prefix}{query_text}
        ```

        Args:
            demonstrations (`list[tuple[image, str]]`):
                Pairs of an image and its complete text. The image may be anything that `images` of a call takes, a
                video as a list of frames included, or `None` for a text-only demonstration: two of them make the
                "0-shot" prompt of the paper and of OpenFlamingo, which shows the format of the answer and no image.
            query_image (*optional*):
                The image of the query. By default the query is text alone.
            query_text (`str`, *optional*, defaults to `""`):
                The beginning of the query's text, such as `"Question:What is it? Short answer:"`.
            prefix (`str`, *optional*, defaults to `""`):
                Comes before the text of each demonstration and of the query: `"Output:"` for captions, as OpenFlamingo
                evaluates them.

        Returns:
            `dict` with `text` and `images`, both a batch of one, for `processor(**prompt)`. For a larger batch, add
            the lists of several prompts.

        Raises:
            `ValueError`: a demonstration is not a pair, or a text is not a string or has a marker of its own.

        Example:

        ```python
        >>> prompt = processor.few_shot_prompt([(cat, "a cat."), (dog, "a dog.")], bird, prefix="Output:")
        >>> prompt["text"]
        ['<image>Output:a cat.<|endofchunk|><image>Output:a dog.<|endofchunk|><image>Output:']
        >>> inputs = processor(**prompt, return_tensors="pt")
        ```
        """
        chunks, images = [], []
        for index, demonstration in enumerate([*demonstrations, (query_image, query_text)]):
            name = "the query" if index == len(demonstrations) else f"demonstration {index}"
            if not isinstance(demonstration, list | tuple) or len(demonstration) != 2:
                raise ValueError(
                    f"{name} is a {type(demonstration).__name__}, not a pair (image, text). For a text-only "
                    "demonstration give (None, text)."
                )
            image, text = demonstration
            if not isinstance(text, str) or self.image_token in text:
                raise ValueError(
                    f"The text of {name} is {text!r}. It must be a string without `{self.image_token}`: the marker is "
                    "added for each image, so that their numbers agree."
                )
            if image is not None:
                images.append(image)
            chunks.append((int(image is not None), prefix + text))
        return {"images": [images], "text": ["".join(self.few_shot_text(chunks[:-1], chunks[-1]))]}


def collect_media(conversation: list[dict[str, Any]], load_audio_from_video: bool = False) -> list[Any]:
    """
    Return the images and videos of a conversation in their order, a video as a list of frames.

    A block without data, or with `None` as `datasets` fills missing columns, is a bare marker.

    Args:
        conversation (`list[dict]`): Messages that were checked (`messages_flamingo.py`), whose `content` is a text or a list of blocks, such as
            `{"type": "image", "image": image}`. The data may be under the block's type, `url`, `path` or `base64`.
        load_audio_from_video (`bool`, *optional*, defaults to `False`): An option of the stock method, which is refused.

    Raises:
        `ValueError`: a message asks for audio, or has a video that is not frames.
    """
    media = []
    for index, message in enumerate(conversation):
        content = message.get("content") or []
        for block in [] if isinstance(content, str) else content:
            kind = block["type"]
            if kind == "audio" or load_audio_from_video:
                raise ValueError(f"Message {index} asks for audio, but Flamingo reads text, images and videos only.")
            # The keys that the stock method reads
            keys = (kind, "url", "path", "base64") if kind in ("image", "video") else ()
            for data in (block[key] for key in keys if block.get(key) is not None):
                if kind == "video":
                    if not isinstance(data, list | tuple) and not is_array(data, 4):
                        raise video_type_error(f"The video in message {index}", data)
                    data = list(data)
                media.append(data)
    return media
