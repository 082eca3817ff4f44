# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Processor of Flamingo: text, images and videos in, the tensors of `FlamingoModel` out.

`transformers.ProcessorMixin` does what it does for every vision-language model: it routes keyword arguments,
tokenises, refuses a truncation that would cut an image marker off, renders chats, saves and loads. This file adds what
is Flamingo's own: pixels nested by sample, `(B, N, C, H, W)`, the mask of real frames, counts checked sample by
sample, videos as lists of frames, and image files of every mode.

Letters in shapes: `B` batch, `N` images or videos per sample, `F` frames, `C, H, W` pixels, `T` text length.

The file travels with a checkpoint as remote code: it stays flat and imports nothing of its own package.
"""

import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import PIL.Image
import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoImageProcessor, AutoTokenizer, BatchFeature
from transformers.image_transforms import convert_to_rgb
from transformers.image_utils import (
    ChannelDimension,
    ImageInput,
    is_pil_image,
    is_scaled_image,
)
from transformers.models.auto.tokenization_auto import get_tokenizer_config
from transformers.processing_utils import ImagesKwargs, ProcessingKwargs, ProcessorMixin, Unpack
from transformers.tokenization_utils_base import PreTrainedTokenizerBase
from transformers.video_utils import VideoInput

from .compatibility_flamingo import require_private_names
from .images_flamingo import (
    check_bit_depth,
    check_image_settings,
    check_range,
    crop_extreme_aspect,
    deep_values,
    find_bit_depth,
    read_image,
    shorten,
    to_rgb_8_bit,
)


# The private names of transformers that this file overrides. CONTRIBUTING.md says what each is for.
require_private_names(
    ProcessorMixin,
    _process_images=("images",),
    _check_special_mm_tokens=("text", "text_inputs", "modalities"),
    _multimodal_inputs_from_conversations=("conversations",),
)

PAD_TOKEN = "<PAD>"

# A few-shot prompt as a chat: what the user says is the prompt, what the assistant says is a completed chunk. There
# are no role headers, because a base language model has never seen any. One space stands between a question and its
# answer, and belongs to the answer: a byte-level tokenizer then splits the prompt alike with and without the answer
# behind it.
CHAT_TEMPLATE = """\
{%- macro render(content) -%}
    {%- if content is string -%}
        {{- content -}}
    {%- elif content -%}
        {%- for part in content -%}
            {%- if part['type'] in ['image', 'video'] -%}
                {{- image_token -}}
            {%- elif part['type'] == 'text' -%}
                {{- part['text'] -}}
            {%- else -%}
                {{- raise_exception("Flamingo reads content of type text, image and video, not " + part['type']) -}}
            {%- endif -%}
        {%- endfor -%}
    {%- endif -%}
{%- endmacro -%}
{%- set state = namespace(open='') -%}
{%- for message in messages -%}
    {%- set text = render(message['content']) -%}
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


def _is_array(value: Any, *ndims: int) -> bool:
    return isinstance(value, np.ndarray | torch.Tensor) and value.ndim in ndims


def _is_video(value: Any) -> bool:
    """Tell whether `value` can only be one video: an array `(F, H, W, C)` or `(F, C, H, W)`, or a list of frames."""
    if isinstance(value, list | tuple):
        return len(value) > 0 and all(
            is_pil_image(frame) or _is_array(frame, 2, 3) or isinstance(frame, Mapping | bytes) for frame in value
        )
    return _is_array(value, 4)


# What SentencePiece calls its own pieces. Many copies of LLaMA-1 name them "" in their tokenizer_config.json.
_SENTENCEPIECE_TOKENS = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}


class FlamingoImagesKwargs(ImagesKwargs, total=False):
    """
    bit_depth (`int`, *optional*):
        Bits of a pixel value of images in containers of more than 8 bits, see [`FlamingoProcessor`].
    """

    bit_depth: int | None


class FlamingoProcessorKwargs(ProcessingKwargs, total=False):
    """Keyword arguments of a call of [`FlamingoProcessor`]."""

    images_kwargs: FlamingoImagesKwargs


def load_tokenizer(name_or_path: str | os.PathLike, **kwargs) -> PreTrainedTokenizerBase:
    """
    Load a tokenizer as `AutoTokenizer` does, and unset special tokens that its files call `""`.

    transformers looks up the id of an unknown token as that of the unknown token. Where that is `""`, it never ends.

    Raises:
        `OSError`, `ValueError`: there is no tokenizer, as `AutoTokenizer` says.
    """
    config = get_tokenizer_config(name_or_path, **kwargs)
    empty = [key for key in PreTrainedTokenizerBase.SPECIAL_TOKENS_ATTRIBUTES if _content(config.get(key)) == ""]
    # Some tokenizer classes look up the ids of their special tokens while they are built
    return unset_empty_tokens(
        AutoTokenizer.from_pretrained(name_or_path, **{**dict.fromkeys(empty), **kwargs}), restore=empty
    )


def unset_empty_tokens(
    tokenizer: PreTrainedTokenizerBase, restore: list[str] | None = None
) -> PreTrainedTokenizerBase:
    """
    Set special tokens that are `""` to SentencePiece's name for them if the vocabulary has it, and else to `None`.

    Args:
        tokenizer ([`PreTrainedTokenizerBase`]): It is changed in place, and returned.
        restore (`list[str]`, *optional*): Names of special tokens that were `""` before they were unset.
    """
    names = [name for name, token in tokenizer.special_tokens_map.items() if token == ""]
    names += [name for name in restore or [] if tokenizer.special_tokens_map.get(name) is None]
    vocabulary = tokenizer.get_vocab() if names else {}
    for name in names:
        token = _SENTENCEPIECE_TOKENS.get(name)
        setattr(tokenizer, name, token if token in vocabulary else None)
    return tokenizer


def _content(token: Any) -> Any:
    """Return the string of a special token as tokenizer_config.json has it: a string, or a dict with `content`."""
    return token.get("content") if isinstance(token, Mapping) else token


class FlamingoProcessor(ProcessorMixin):
    r"""
    Turns text with `<image>` markers, images and videos into the inputs of [`FlamingoModel`], with any Hugging Face
    image processor and any tokenizer.

    The tokenizer is completed in place, in OpenFlamingo's order, so that the ids equal those of its checkpoints
    (50277, 50278 and 50279 on the GPT-NeoX tokenizer): `end_of_chunk_token` (the paper's `<EOC>`, section 2.4),
    `image_token`, and `<PAD>` if it has no pad token. A token that exists keeps its id, so saving and loading moves
    none. All are special: `skip_special_tokens=True` removes them. Resize the model's embeddings to
    `len(processor.tokenizer)`.

    The tokenizer is also set to pad on the left, which batched generation needs. Pass `padding_side="right"` in a
    training collator, or set `processor.tokenizer.padding_side` for all calls. A class-level `text_kwargs` would do
    neither: it hides the tokenizer's attribute, and it loses to the padding side that `tokenizer.json` keeps from the
    last padded call, so that a checkpoint saved by a `Trainer` would generate with right padding.

    Args:
        image_processor ([`BaseImageProcessor`]):
            Image processor of the vision encoder. It must give one `(C, H, W)` array of the same size for each image.
            With precomputed features it is never called; then any will do.
        tokenizer ([`PreTrainedTokenizerBase`]):
            Tokenizer of the language model. It is completed in place, see above.
        chat_template (`str`, *optional*):
            Jinja template for [`~FlamingoProcessor.apply_chat_template`]. By default a conversation is rendered as a
            few-shot prompt: user and system turns as they are, `<image>` for each image or video, and each assistant
            turn closed by `<|endofchunk|>`. The tokenizer's own template is not used: it knows no images.
        image_token (`str`, *optional*, defaults to `"<image>"`):
            Marks the place of an image or a video in the text. One token each, whatever the number of frames.
        end_of_chunk_token (`str`, *optional*, defaults to `"<|endofchunk|>"`):
            Ends the text that belongs to an image.
        image_token_is_text (`bool`, *optional*, defaults to `False`):
            For converted flamingo-mini checkpoints only. `image_token` is not made a token but stays ordinary text, and
            every token `<`, with or without a space before it, marks an image. What it costs: a text that is given
            together with images cannot hold any other `<`.

    Example:

    ```python
    >>> processor = FlamingoProcessor.from_vision_text_pretrained("openai/clip-vit-large-patch14", "facebook/opt-125m")
    >>> inputs = processor(images=[[cat, dog]], text=["<image>a cat<|endofchunk|><image>"], return_tensors="pt")
    >>> inputs["pixel_values"].shape, inputs["frame_attention_mask"]
    (torch.Size([1, 2, 3, 224, 224]), tensor([[1, 1]]))
    ```
    """

    def __init__(
        self,
        image_processor,
        tokenizer,
        chat_template: str | dict[str, str] | None = None,
        image_token: str = "<image>",
        end_of_chunk_token: str = "<|endofchunk|>",
        image_token_is_text: bool = False,
        bit_depth: int | None = None,
    ):
        check_bit_depth(bit_depth)
        if not image_token or not end_of_chunk_token or image_token == end_of_chunk_token:
            raise ValueError(
                f"`image_token` is {image_token!r} and `end_of_chunk_token` is {end_of_chunk_token!r}: they must be "
                "two different, non-empty strings, because each has its own id and its own meaning."
            )
        if chat_template is None:
            tokens = {"image_token": image_token, "end_of_chunk_token": end_of_chunk_token}
            chat_template = (
                "".join(f"{{%- set {k} = {json.dumps(v)} -%}}\n" for k, v in tokens.items()) + CHAT_TEMPLATE
            )
        super().__init__(image_processor, tokenizer, chat_template=chat_template)
        self.bit_depth = bit_depth
        settings = ("rescale_factor", "image_mean", "image_std", "size", "crop_size", "pad_size")
        check_image_settings(
            {key: getattr(image_processor, key, None) for key in settings}, type(image_processor).__name__
        )

        unset_empty_tokens(tokenizer)
        if end_of_chunk_token not in tokenizer.all_special_tokens:
            tokenizer.add_special_tokens(
                {"extra_special_tokens": [end_of_chunk_token]}, replace_extra_special_tokens=False
            )
        if not image_token_is_text:
            # As a token with a name, `tokenizer.image_token`, which stock clients read. It is saved with the tokenizer.
            if "image_token" not in tokenizer.SPECIAL_TOKENS_ATTRIBUTES:
                tokenizer.SPECIAL_TOKENS_ATTRIBUTES = [*tokenizer.SPECIAL_TOKENS_ATTRIBUTES, "image_token"]
            tokenizer.add_special_tokens({"image_token": image_token})
        # Not `tokenizer.pad_token is None`, which logs an error
        if "pad_token" not in tokenizer.special_tokens_map:
            tokenizer.add_special_tokens({"pad_token": PAD_TOKEN})
        tokenizer.padding_side = "left"

        self.image_token = image_token
        self.image_token_is_text = image_token_is_text
        if image_token_is_text:
            self.image_token_ids = [tokenizer.encode(text, add_special_tokens=False)[-1] for text in ("<", " <")]
            self.image_token_id = self.image_token_ids[0]
        else:
            self.image_token_id = tokenizer.convert_tokens_to_ids(image_token)
        self.end_of_chunk_token = end_of_chunk_token
        self.end_of_chunk_token_id = tokenizer.convert_tokens_to_ids(end_of_chunk_token)

    @classmethod
    def from_vision_text_pretrained(
        cls, vision_name_or_path: str | os.PathLike, text_name_or_path: str | os.PathLike, **kwargs
    ) -> "FlamingoProcessor":
        r"""
        Build a processor from the image processor of a vision encoder and the tokenizer of a language model, as
        [`FlamingoModel.from_vision_text_pretrained`] builds a model from the two.

        Args:
            vision_name_or_path (`str` or `os.PathLike`):
                Hub id or folder with an image processor, for [`AutoImageProcessor`].
            text_name_or_path (`str` or `os.PathLike`):
                Hub id or folder with a tokenizer, for [`AutoTokenizer`].
            kwargs:
                `chat_template`, `image_token`, `end_of_chunk_token` and `bit_depth` go to the processor. An argument that
                starts with `vision_` or `text_` goes to that side, without the prefix (`vision_revision="main"`); any other
                (`token`, `cache_dir`, `local_files_only`, ...) goes to both.
        """
        names = ("chat_template", "image_token", "end_of_chunk_token", "bit_depth")
        own = {name: kwargs.pop(name) for name in names if name in kwargs}
        vision = {k.removeprefix("vision_"): v for k, v in kwargs.items() if not k.startswith("text_")}
        text = {k.removeprefix("text_"): v for k, v in kwargs.items() if not k.startswith("vision_")}
        image_processor = AutoImageProcessor.from_pretrained(vision_name_or_path, **vision)
        return cls(image_processor, load_tokenizer(text_name_or_path, **text), **own)

    def __call__(
        self,
        images: ImageInput | None = None,
        text: str | list[str] | None = None,
        videos: VideoInput | None = None,
        **kwargs: Unpack[FlamingoProcessorKwargs],
    ) -> BatchFeature:
        r"""
        Tokenise `text` and preprocess the images and videos that it marks.

        Args:
            images (image, list of images, or list of lists, *optional*):
                An image is a PIL image, a numpy array or torch tensor (channels first or last, `uint8` 0..255, other
                integers and floats from 0 on as `bit_depth` says; floats in 0..1 need `do_rescale=False`), a path of a
                regular file, an `http(s)://` URL, a `data:image/` URI, base64, the bytes of an image file, or a dict of
                `bytes` and `path`, as `datasets.Image(decode=False)` gives it. A list of lists holds one list per sample,
                `[]` for a sample without images. A flat list is dealt out to the texts by counting `<image>` in each. Inside a sample's list, an inner list of frames or a 4-D array is a video:
                so `images=[[photo, [frame, frame], photo]]` gives the order of mixed media.
            text (`str` or `list[str]`, *optional*):
                One text or a batch, with one `<image>` for each image or video. Without `images` and `videos` the
                markers are not checked: with precomputed features the images go to the model directly, and it refuses
                markers that have none. Without `text` only pixels are returned, and a flat list is one sample.
            videos (*optional*):
                A video is a list of frames (PIL or arrays) or an array `(F, H, W, C)` or `(F, C, H, W)`. One video, a
                flat list, a 5-D array, or one list per sample, as for images. A video takes one `<image>` marker.
                Frames may be paths where the nesting leaves no doubt: `videos=[[["frame0.png", "frame1.png"]]]`. A
                sample with both images and videos must give them in order in `images`.
            kwargs:
                Arguments of the tokenizer (`padding`, `truncation`, `max_length`, `padding_side`, ...), of the image
                processor (`size`, `do_resize`, ...), `bit_depth` and `return_tensors`, see
                [`ProcessorMixin.__call__`].

        Returns:
            [`BatchFeature`]: with these fields; lists unless `return_tensors` is given.

            - **input_ids**, **attention_mask** of shape `(B, T)` -- if `text` is given.
            - **pixel_values** of shape `(B, N, C, H, W)`, or `(B, N, F, C, H, W)` if any sample has a video -- if
              there is any image. Samples with fewer images, and videos with fewer frames, are padded with zeros at the
              end.
            - **frame_attention_mask** of shape `(B, N)` or `(B, N, F)` -- with `pixel_values`: 1 for a real image or
              frame, 0 for padding. An image beside a video is a video of one frame.

        Raises:
            `ValueError`: markers and images of a sample differ in number; truncation would cut off a marker; the order
            of images and videos is unknown; an image cannot be read, has too many pixels or values of unknown range; a
            text has no tokens; a setting of the image processor would make noise of every image.
        """
        for name in ("text_kwargs", "images_kwargs", "videos_kwargs", "audio_kwargs", "common_kwargs"):
            _check_is_dict(kwargs.get(name, {}), name)
        check_image_settings({**kwargs.get("images_kwargs", {}), **kwargs}, "this call")
        max_length = {**kwargs.get("text_kwargs", {}), **kwargs}.get("max_length")
        if isinstance(max_length, int) and max_length < 1:
            raise ValueError(f"`max_length` is {max_length}. It is a number of tokens, at least 1.")
        try:
            return super().__call__(images=images, text=text, videos=videos, **kwargs)
        except StrictDataclassError as error:  # of a keyword argument of the wrong type
            raise ValueError(f"An argument of this call has the wrong type. {error}") from error

    def apply_chat_template(self, conversation, chat_template: str | None = None, **kwargs):
        """
        Render a conversation, and tokenize it if asked to, as [`ProcessorMixin.apply_chat_template`] does.

        Raises:
            `ValueError`: `conversation` is not a list of messages, or `processor_kwargs` is not a dict.
        """
        if kwargs.get("processor_kwargs") is not None:
            _check_is_dict(kwargs["processor_kwargs"], "processor_kwargs")
        if conversation is None or isinstance(conversation, str | bytes | int | float | dict) or not len(conversation):
            raise ValueError(
                f"`conversation` is {conversation!r:.200}. It must be a list of messages such as "
                '`{"role": "user", "content": "..."}`, or a list of such lists.'
            )
        return super().apply_chat_template(conversation, chat_template, **kwargs)

    valid_processor_kwargs = FlamingoProcessorKwargs

    @property
    def unused_input_names(self) -> list[str]:
        # Some tokenizers of causal language models return them; no forward of such a model takes them
        return ["token_type_ids"]

    @property
    def model_input_names(self) -> list[str]:
        return [*super().model_input_names, "frame_attention_mask"]

    def few_shot_prompt(
        self,
        demonstrations: list[tuple[Any, str]],
        query_image: Any = None,
        query_text: str = "",
        prefix: str = "",
    ) -> dict[str, list]:
        r"""
        The few-shot prompt of the paper (section 2.5): each demonstration is an image, its text and the
        end of the chunk; the query is an image and the beginning of its text, left open for the model to complete.

        ```
        <image>{prefix}{text}<|endofchunk|> ... <image>{prefix}{text}<|endofchunk|><image>{prefix}{query_text}
        ```

        Args:
            demonstrations (`list[tuple[image, str]]`):
                Pairs of an image and its complete text. The image may be anything that `images` of a call takes, a
                video as a list of frames included, or `None` for a text-only demonstration: two of them make the
                "0-shot" prompt of the paper and of OpenFlamingo, which shows the format of the answer and no image.
            query_image (*optional*):
                The image asked about; `None` asks about text alone.
            query_text (`str`, *optional*, defaults to `""`):
                The beginning of the query's text, such as `"Question:What is it? Short answer:"`.
            prefix (`str`, *optional*, defaults to `""`):
                Stands before the text of each demonstration and of the query: `"Output:"` for captions, as
                OpenFlamingo evaluates them.

        Returns:
            `dict` with `text` and `images`, both a batch of one, for `processor(**prompt)`. For a larger batch, add
            the lists of several prompts.

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
                    "set here, once for each image, so that their numbers agree."
                )
            if image is not None:
                images.append(image)
            chunks.append(("" if image is None else self.image_token) + prefix + text)
        return {"images": [images], "text": [self.end_of_chunk_token.join(chunks)]}

    # What follows fills the hooks of `ProcessorMixin.__call__`, in the order in which it calls them.

    def prepare_inputs_layout(
        self,
        images: ImageInput | None = None,
        text: str | list[str] | None = None,
        videos: VideoInput | None = None,
        audio: Any = None,
        **kwargs,
    ) -> tuple[list[list[Any]] | None, list[str] | None, None, Any]:
        """
        Nest images and videos as one list per sample, in the order of the markers.

        Returns `(images, text, videos, audio)` where `images` is a list of `B` lists whose elements are images or, for
        a video, lists of frames, and `videos` is `None`: there is no video processor, frames are images. Nothing is
        opened or decoded yet, so that wrong counts are reported at once.
        """
        if isinstance(text, bytes | dict) or (text is not None and not hasattr(text, "__iter__")):
            raise ValueError(f"`text` must be a string or a non-empty list of strings. Got a {type(text).__name__}.")
        _, text, _, audio = super().prepare_inputs_layout(text=text, audio=audio)
        if text is not None and (not text or not all(isinstance(sample, str) for sample in text)):
            types = sorted({type(sample).__name__ for sample in text})
            raise ValueError(
                f"`text` must be a string or a non-empty list of strings. Got a list of {types or 'nothing'}."
            )
        for index, sample in enumerate(text or []):
            try:
                sample.encode()
            except UnicodeEncodeError as error:
                raise ValueError(
                    f"The text of sample {index} has half of a surrogate pair, {sample[error.start]!r}, at position "
                    f"{error.start}, which is not a character and has no token. It comes from a cut or wrongly decoded "
                    "text. Remove it, for example with `text.encode(errors='ignore').decode()`."
                ) from error
        if images is None and videos is None:
            return None, text, None, audio

        media = self._nest(self._split_images(images), text, "images", videos is None)
        clips = self._nest(self._split_videos(videos), text, "videos", images is None)
        if media is None or clips is None:
            return (clips if media is None else media), text, None, audio

        if len(media) != len(clips):
            raise ValueError(
                f"`images` is for {len(media)} samples and `videos` for {len(clips)}. Give both one list per sample, "
                "`[]` where there is none."
            )
        for index, (sample_images, sample_videos) in enumerate(zip(media, clips, strict=True)):
            if sample_images and sample_videos:
                raise ValueError(
                    f"Sample {index} has {len(sample_images)} images and {len(sample_videos)} videos in two "
                    f"arguments, so it is unknown which `{self.image_token}` marks which. Give them in the order of "
                    "the text in `images`, a video as a list of frames: `images=[[image, [frame, frame], image]]`."
                )
        media = [sample_images or sample_videos for sample_images, sample_videos in zip(media, clips, strict=True)]
        return media, text, None, audio

    @staticmethod
    def _split_images(images: Any) -> tuple[list, bool] | None:
        """`images` as a list and whether it is nested by sample. As in the stock processors, a 4-D array is a batch of
        images: all of them if it is alone, those of a sample if it stands in a list."""
        if images is None:
            return None
        if _is_array(images, 4):
            return list(images), False
        if not isinstance(images, list | tuple):
            return [images], False
        nested = [isinstance(sample, list | tuple) or _is_array(sample, 4) for sample in images]
        if not any(nested):
            return list(images), False
        if not all(nested):
            index = nested.index(False)
            raise ValueError(
                f"`images` mixes lists with single images: element {index} is a {type(images[index]).__name__}. It "
                "must be a flat list of images or one list per sample, `[]` for a sample without images."
            )
        return [list(sample) for sample in images], True

    @staticmethod
    def _split_videos(videos: Any) -> tuple[list, bool] | None:
        """`videos` as a list and whether it is nested by sample."""
        if videos is None:
            return None
        if _is_video(videos):
            return [videos], False
        if _is_array(videos, 5):
            return list(videos), False
        if isinstance(videos, list | tuple):
            if all(_is_video(video) for video in videos):
                return list(videos), False
            if all(isinstance(sample, list | tuple) for sample in videos):
                for index, sample in enumerate(videos):
                    for position, video in enumerate(sample):
                        if not isinstance(video, list | tuple) and not _is_array(video, 4):
                            raise _not_frames(f"Video {position} of sample {index}", video)
                return [list(sample) for sample in videos], True
        raise _not_frames("`videos`", videos)

    def _nest(
        self, split: tuple[list, bool] | None, text: list[str] | None, name: str, alone: bool
    ) -> list[list] | None:
        """Deal a flat list out to the samples by counting markers; `alone` if no other argument brings media."""
        if split is None:
            return None
        flat, nested = split
        if nested:
            return flat
        if text is None or len(text) == 1:
            return [flat]
        counts = [self._count_markers(sample) for sample in text]
        if not alone or sum(counts) != len(flat):
            raise ValueError(
                f"`{name}` is a flat list of {len(flat)} for {len(text)} texts with {counts} `{self.image_token}` "
                f"markers{'' if alone else ', and `images` and `videos` are both given'}. The number of "
                f"`{self.image_token}` tokens in the prompts should be the same as the number of images or videos, so "
                "that each marker gets its own. Correct the markers, or give one list per sample."
            )
        rest = iter(flat)
        return [[next(rest) for _ in range(count)] for count in counts]

    def _count_markers(self, text: str) -> int:
        """How many images `text` marks."""
        if self.image_token_is_text:
            token_ids = self.tokenizer.encode(text, add_special_tokens=False)
            return sum(token_id in self.image_token_ids for token_id in token_ids)
        return text.count(self.image_token)

    def _check_special_mm_tokens(self, text: list[str], text_inputs: BatchFeature, modalities: list[str]) -> None:
        # Padding aside: in a batch, a text without tokens is a row of padding
        for index, row in enumerate(text_inputs.get("attention_mask", text_inputs["input_ids"])):
            if not len(row) or ("attention_mask" in text_inputs and not any(int(kept) for kept in row)):
                raise ValueError(
                    f"The text of sample {index} is {text[index]!r:.100}, which has no tokens: there is nothing to read and "
                    "nothing to continue. Give it a text or an image, or remove the sample."
                )
        if not self.image_token_is_text:
            super()._check_special_mm_tokens(text, text_inputs, modalities)
            return
        counts = [sum(int(i) in self.image_token_ids for i in token_ids) for token_ids in text_inputs["input_ids"]]
        expected = [self._count_markers(sample) for sample in text]
        if counts != expected:
            raise ValueError(
                f"The texts mark {expected} images, but after tokenization {counts} markers are left: truncation cut "
                "some off. Raise `max_length` or shorten the text."
            )

    def validate_inputs(
        self,
        images: list[list[Any]] | None = None,
        text: list[str] | None = None,
        videos: None = None,
        audio: Any = None,
        **kwargs,
    ) -> None:
        """
        Check that each sample has as many markers as images and videos. The stock check counts over the whole batch,
        so that `text=["<image> a", "b"], images=[[], [image]]` passes it.
        """
        if audio is not None:
            raise ValueError("`audio` was given, but Flamingo reads text, images and videos only. Remove it.")
        if images is None and text is None:
            raise ValueError(f"{self.__class__.__name__} was called without input. Give `text`, `images` or `videos`.")

        sampling = {**kwargs.get("videos_kwargs", {}), **kwargs}
        sampling = {key: sampling[key] for key in ("num_frames", "fps") if sampling.get(key) is not None}
        if sampling and any(not self._is_single_image(medium) for sample in images or [] for medium in sample):
            raise ValueError(
                f"{sampling} was given with a video, but frames are taken as they come: they carry no times to sample "
                "by. Choose the frames before the call, for example `frames[::10]`."
            )
        if images is None or text is None:
            return

        rule = (
            f"The number of `{self.image_token}` tokens in the prompts should be the same as the number of images or "
            "videos, sample by sample"
        )
        if len(images) != len(text):
            raise ValueError(
                f"Images or videos were given for {len(images)} samples, but there are {len(text)} texts. {rule}: "
                "give one list per text, `[]` for a text without images."
            )
        for index, (sample, media) in enumerate(zip(text, images, strict=True)):
            count = self._count_markers(sample)
            if count != len(media):
                raise ValueError(
                    f"Sample {index} has {count} `{self.image_token}` in its text but {len(media)} images or videos. "
                    f"{rule}, because each word looks at the last image marked before it. Add or remove markers or "
                    "images."
                )

    def _process_images(self, images: list[list[Any]], **kwargs) -> tuple[dict[str, Any], list[str]]:
        """
        Decode all frames of the batch, run the image processor over them once, and set them into
        `(B, N, C, H, W)` or `(B, N, F, C, H, W)` with zeros for padding.

        Returns the tensors (none if no sample has an image) and, for each image or video in order, the text that
        replaces its marker: the marker itself.
        """
        return_tensors = kwargs.pop("return_tensors", None)
        shape = len(images), max(len(sample) for sample in images), 1
        videos = [medium for sample in images for medium in sample if not self._is_single_image(medium)]
        if videos:
            shape = *shape[:2], max(1, *(len(video) for video in videos))

        bit_depth = kwargs.pop("bit_depth", None)
        bit_depth = self.bit_depth if bit_depth is None else bit_depth
        check_bit_depth(bit_depth)

        frames, names, mask = [], [], torch.zeros(shape, dtype=torch.int64)
        for index, sample in enumerate(images):
            for position, medium in enumerate(sample):
                if self._is_single_image(medium):
                    series = {f"Image {position} of sample {index}": medium}
                elif len(medium) == 0:
                    raise ValueError(
                        f"Video {position} of sample {index} has no frames. Give at least one, or remove the video."
                    )
                else:
                    series = {
                        f"Frame {i} of video {position} of sample {index}": frame for i, frame in enumerate(medium)
                    }
                mask[index, position, : len(series)] = 1
                frames += self._decode_series(series, bit_depth, kwargs)
                names += series
        if not frames:
            return {}, []

        pixels = self._run_image_processor(frames, names, kwargs)
        stack, zeros_like = torch.stack, torch.zeros_like
        if isinstance(pixels[0], np.ndarray):
            stack, zeros_like = np.stack, np.zeros_like
        real, blank = iter(pixels), zeros_like(pixels[0])
        # One copy of each frame, padding or not
        pixels = stack([next(real) if is_real else blank for is_real in mask.flatten().tolist()])
        if not videos:
            mask = mask.squeeze(2)
        pixels = torch.as_tensor(pixels)
        pixels = pixels.view(*mask.shape, *pixels.shape[1:])

        replacements = [self.replace_image_token({}, index) for index in range(sum(map(len, images)))]
        if return_tensors is None:
            return {"pixel_values": list(pixels.cpu().numpy()), "frame_attention_mask": mask.tolist()}, replacements
        return {"pixel_values": pixels, "frame_attention_mask": mask}, replacements

    def _run_image_processor(
        self, frames: list[PIL.Image.Image | np.ndarray], names: list[str], kwargs: dict[str, Any]
    ) -> list[np.ndarray | torch.Tensor]:
        """Return the pixels `(C, H, W)` of each frame, all of one size, and refuse what the model could not use."""
        if any(isinstance(frame, np.ndarray) for frame in frames):
            kwargs["input_data_format"] = ChannelDimension.FIRST
        pixels = self.image_processor(frames, **kwargs)["pixel_values"]
        shapes = sorted({tuple(frame.shape) for frame in pixels})
        if len(shapes) != 1 or len(shapes[0]) != 3 or len(pixels) != len(frames):
            raise ValueError(
                f"{type(self.image_processor).__name__} gave {len(pixels)} arrays of shapes {shapes} for "
                f"{len(frames)} images. Flamingo needs one (C, H, W) for each, all of one size, to stack them. Set "
                "its `size`, `crop_size` and `do_center_crop` for a fixed size, and no tiling."
            )
        for name, frame in zip(names, pixels, strict=True):
            if not torch.isfinite(torch.as_tensor(frame)).all():
                raise ValueError(
                    f"{type(self.image_processor).__name__} made pixels of {name} that are not finite numbers (NaN or "
                    "infinity): the model would answer with noise. Check `rescale_factor`, `image_mean` and `image_std`."
                )
        return pixels

    @staticmethod
    def _is_single_image(medium: Any) -> bool:
        return not isinstance(medium, list | tuple) and not _is_array(medium, 4)

    def _decode_series(
        self, series: dict[str, Any], bit_depth: int | None, kwargs: dict[str, Any]
    ) -> list[PIL.Image.Image | np.ndarray]:
        """
        Decode an image, or all frames of a video, each under its name, into what the image processor takes: PIL images,
        or arrays `(C, H, W)` for floats that it is not to rescale.

        Stock image processors differ in which of them convert to RGB, and infer the channel order of each array again
        at every step: an array `(3, 200, 3)` changes its meaning on the way. An array therefore becomes a PIL image here,
        as it would inside `resize` anyway.
        """
        to_rgb = self._image_setting("do_convert_rgb", kwargs) is not False
        opened = [read_image(image, name, kwargs.get("input_data_format")) for name, image in series.items()]
        keeps_floats = self._keeps_floats(kwargs)
        deep = {}
        for image, name in opened:
            is_float = isinstance(image, np.ndarray) and image.dtype.kind == "f"
            if is_float and not keeps_floats and is_scaled_image(image) and image.any():
                # A black frame is in 0..1 as well, and is black either way
                raise ValueError(
                    f"{name} has floats in 0..1, and the image processor would divide them by "
                    f"{1 / self._image_setting('rescale_factor', kwargs):g} once more: the model would see a black image. "
                    "Pass `do_rescale=False`, or give `uint8`."
                )
            if not (is_float and keeps_floats) and (values := deep_values(image)) is not None:
                deep[name] = values
        if bit_depth is None and deep:
            bit_depth = find_bit_depth(list(deep.values()), list(deep))

        frames = []
        for image, name in opened:
            if isinstance(image, np.ndarray) and image.dtype.kind == "f" and keeps_floats:
                frame = self._ready_floats(image, name, to_rgb, kwargs)
            else:
                is_unit = name in deep and deep[name].dtype.kind == "f" and deep[name].max() <= 1
                frame = to_rgb_8_bit(image, name, to_rgb=to_rgb, bit_depth=None if is_unit else bit_depth)
            frames.append(crop_extreme_aspect(frame, name, lambda key: self._image_setting(key, kwargs)))
        return frames

    def _keeps_floats(self, kwargs: dict[str, Any]) -> bool:
        """Tell whether floats go to the image processor as they are: it does not divide them by 255."""
        # 1 / 255 and 1 / 127.5 are in use
        return not (
            self._image_setting("do_rescale", kwargs)
            and 0 < (self._image_setting("rescale_factor", kwargs) or 0) < 0.01
        )

    def _ready_floats(self, array: np.ndarray, name: str, to_rgb: bool, kwargs: dict[str, Any]) -> np.ndarray:
        """Check floats `(H, W, C)` that the image processor is not to rescale; `(C, H, W)`."""
        low, high = array.min(), array.max()
        if not (np.isfinite(low) and np.isfinite(high)):
            check_range(array, name)  # which raises, and says how many
        # To resize them, transformers makes 8-bit images of floats in 0..1 and of whole numbers
        is_image = low >= 0 and (high <= 1 or (high <= 255 and np.array_equal(array, np.rint(array))))
        if not is_image and (self._image_setting("do_resize", kwargs) or (to_rgb and array.shape[-1] == 4)):
            raise ValueError(
                f"{name} has pixel values from {low} to {high} ({array.dtype}) and is not to be rescaled, but to be resized "
                "or converted to RGB, which needs values in 0..1. Scale them, or pass `do_resize=False` too, with RGB of the "
                "final size."
            )
        if to_rgb:
            array = convert_to_rgb(array, return_numpy=True, input_data_format=ChannelDimension.LAST)
        return np.moveaxis(array, -1, 0)

    def _image_setting(self, key: str, kwargs: dict[str, Any]) -> Any:
        value = kwargs.get(key)
        return getattr(self.image_processor, key, None) if value is None else value

    def replace_image_token(self, image_inputs: dict[str, Any], image_idx: int, **kwargs) -> str:
        """One image or video is one token: its latents reach the text by cross-attention, not through placeholders."""
        return self.image_token

    def _multimodal_inputs_from_conversations(
        self,
        conversations: list[list[dict[str, Any]]],
        audio_loading_params: dict,
        load_audio_from_video: bool = False,
    ) -> tuple[list[list[Any]], list[list[Any]], list[Any], dict[str, Any]]:
        """
        Collect images and videos of each conversation in their order. The stock method keeps two lists, which loses
        it.

        A block without data, or with `None` as `datasets` fills missing columns, is a bare marker.
        """
        batch = []
        for conversation in conversations:
            media = []
            for index, message in enumerate(conversation):
                content = message.get("content") or []
                if not isinstance(content, str | list | tuple):
                    raise ValueError(
                        f"Message {index} has the content {content!r:.100}. It must be a text or a list of blocks."
                    )
                for block in [] if isinstance(content, str) else content:
                    kind = block.get("type") if isinstance(block, Mapping) else None
                    if kind is None:
                        raise ValueError(
                            f"Message {index} has the content {block!r:.100}. It must be a text, or a list of blocks such as "
                            '`{"type": "text", "text": "..."}` and `{"type": "image", "image": image}`.'
                        )
                    if kind == "audio" or load_audio_from_video:
                        raise ValueError(
                            f"Message {index} asks for audio, but Flamingo reads text, images and videos only."
                        )
                    # The keys that the stock method reads
                    keys = (kind, "url", "path", "base64") if kind in ("image", "video") else ()
                    for data in (block[key] for key in keys if block.get(key) is not None):
                        if kind == "video":
                            if not isinstance(data, list | tuple) and not _is_array(data, 4):
                                raise _not_frames(f"The video in message {index}", data)
                            data = list(data)
                        media.append(data)
            batch.append(media)
        return batch, [[] for _ in batch], [], {}


def _check_is_dict(value: Any, name: str) -> None:
    if not isinstance(value, Mapping):
        raise ValueError(
            f"`{name}` is {value!r:.100}, a {type(value).__name__}. It must be a dict of keyword arguments."
        )


def _not_frames(name: str, value: Any) -> ValueError:
    given = shorten(value) if isinstance(value, str | os.PathLike) else f"a {type(value).__name__}"
    return ValueError(
        f"{name} is {given}, not frames. Video files are not decoded here. Give each video as a list of frames (PIL "
        "images or arrays) or as an array (F, H, W, C)."
    )


FlamingoProcessor.register_for_auto_class()

__all__ = ["FlamingoProcessor"]
