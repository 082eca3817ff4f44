# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Processor of Flamingo: turns text, images and videos into the tensors of `FlamingoModel`.

`transformers.ProcessorMixin` does what it does for every vision-language model: it routes keyword arguments, tokenizes,
refuses a truncation that would cut off an image marker, renders chats, saves and loads. This file adds what is
Flamingo's own: images nested by sample (`media_flamingo.py`), their pixels and mask of real frames
(`pixels_flamingo.py`), numbers of images checked sample by sample, and few-shot prompts (`prompts_flamingo.py`).

Letters in shapes: `B` batch, `N` images or videos per sample, `F` frames, `C, H, W` pixels, `T` text length.

The file travels with a checkpoint as remote code: it stays flat and imports only its siblings.
"""

import os
from collections.abc import Mapping
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import AutoImageProcessor, BatchFeature
from transformers.image_utils import ImageInput
from transformers.processing_utils import ImagesKwargs, ProcessingKwargs, ProcessorMixin, Unpack
from transformers.video_utils import VideoInput

from .backbone_files_flamingo import check_files, explain_gguf, explain_missing_part
from .chat_templates_flamingo import (
    choose_chat_template,
    find_end_of_turn,
    is_flamingo_template,
    is_template_name,
    is_text_template,
    make_few_shot_template,
)
from .client_errors_flamingo import blames_the_client
from .compatibility_flamingo import require_private_names
from .images_flamingo import check_bit_depth
from .media_flamingo import is_single_image, nest_media
from .messages_flamingo import check_conversations, check_options
from .pixels_flamingo import check_image_settings, has_padded_frames, make_pixels
from .prompts_flamingo import FewShotPromptMixin, collect_media
from .tokenizers_flamingo import add_flamingo_tokens, load_tokenizer


# The private names of transformers that this file overrides. CONTRIBUTING.md says what each is for.
require_private_names(
    ProcessorMixin,
    _process_images=("images",),
    _check_special_mm_tokens=("text", "text_inputs", "modalities"),
    _multimodal_inputs_from_conversations=("conversations",),
)


class FlamingoImagesKwargs(ImagesKwargs, total=False):
    """
    Keyword arguments for the images of a call of [`FlamingoProcessor`].

    bit_depth (`int`, *optional*):
        Bits of a pixel value of images in containers of more than 8 bits, see [`FlamingoProcessor`].
    return_frame_attention_mask (`bool`, *optional*):
        Whether to return `frame_attention_mask`. By default it is returned only where the frames of a video are padded.
    """

    bit_depth: int | None
    return_frame_attention_mask: bool | None


class FlamingoProcessorKwargs(ProcessingKwargs, total=False):
    """Keyword arguments of a call of [`FlamingoProcessor`]."""

    images_kwargs: FlamingoImagesKwargs


class FlamingoProcessor(ProcessorMixin, FewShotPromptMixin):
    r"""
    Turn text with `<image>` markers, images and videos into the inputs of [`FlamingoModel`], with any Hugging Face
    image processor and any tokenizer.

    The tokenizer is completed in place, in OpenFlamingo's order, so that the ids equal those of its checkpoints
    (50277, 50278 and 50279 on the GPT-NeoX tokenizer): `end_of_chunk_token` (the paper's `<EOC>`, section 2.4),
    `image_token`, and `<PAD>` if it has no pad token. A token that exists keeps its id, so saving and loading moves
    none. All are special: `skip_special_tokens=True` removes them. Resize the model's embeddings to
    `len(processor.tokenizer)`.

    The tokenizer is also set to pad on the left, which batched generation needs. Pass `padding_side="right"` in a
    training collator, or set `processor.tokenizer.padding_side` for all calls.

    Args:
        image_processor ([`BaseImageProcessor`]):
            Image processor of the vision encoder. It must give one `(C, H, W)` array of the same size for each image.
            It is never called if the model is given precomputed features.
        tokenizer ([`PreTrainedTokenizerBase`]):
            Tokenizer of the language model. It is completed in place, see above.
        chat_template (`str`, *optional*):
            Template for [`~FlamingoProcessor.apply_chat_template`]: `"text"`, `"few_shot"`, or one in Jinja.

            - `"text"`, the default if the tokenizer has a chat template: the language model's own, with an `<image>` in
              the text of a turn for each image or video. A chat without images is the language model's, token by token.
            - `"few_shot"`, the default otherwise: user and system turns as they are, `<image>` for each image or video,
              and each assistant turn closed by `<|endofchunk|>`.
        image_token (`str`, *optional*, defaults to `"<image>"`):
            Marks an image or a video in the text. A video has one, whatever its number of frames.
        end_of_chunk_token (`str`, *optional*, defaults to `"<|endofchunk|>"`):
            Ends the text that belongs to an image.
        image_token_is_text (`bool`, *optional*, defaults to `False`):
            For converted flamingo-mini checkpoints only. `image_token` is not made a token but stays ordinary text, and
            every token `<`, with or without a space before it, marks an image. The limitation: text that accompanies
            images must not contain any other `<`.
        bit_depth (`int`, *optional*):
            Number of bits of a pixel value, from 1 to 16, of images in containers of more than 8 bits: 12 for most X-rays,
            for example, so that 4095 is white. By default it is found from the brightest value of each image, or of all
            frames of a video. Images with 8 bits are not affected.

    Raises:
        `ValueError`: the two tokens are equal or empty, `bit_depth` is out of range, or a setting of the image processor
            would make noise of every image.

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
        if chat_template is None or is_template_name(chat_template):
            chat_template = choose_chat_template(chat_template, tokenizer, image_token, end_of_chunk_token)
        super().__init__(image_processor, tokenizer, chat_template=chat_template)
        self.bit_depth = bit_depth
        settings = ("rescale_factor", "image_mean", "image_std", "size", "crop_size", "pad_size")
        check_image_settings(
            {key: getattr(image_processor, key, None) for key in settings}, type(image_processor).__name__
        )
        add_flamingo_tokens(tokenizer, None if image_token_is_text else image_token, end_of_chunk_token)

        self.image_token = image_token
        self.image_token_is_text = image_token_is_text
        if image_token_is_text:
            # The last id, because there may be another one for the space
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
                starts with `vision_` or `text_` goes to that side, without the prefix (`vision_revision="main"`,
                `text_gguf_file="model.gguf"`); any other
                (`token`, `cache_dir`, `local_files_only`, ...) goes to both.

        Raises:
            `FileNotFoundError`: there is no such folder.
            `ValueError`: the names are swapped or of other models, or a GGUF file is not named.
        """
        # Not `image_token_is_text`, which only the conversion of flamingo-mini checkpoints sets
        names = ("chat_template", "image_token", "end_of_chunk_token", "bit_depth")
        processor_kwargs = {name: kwargs.pop(name) for name in names if name in kwargs}
        vision = {k.removeprefix("vision_"): v for k, v in kwargs.items() if not k.startswith("text_")}
        text = {k.removeprefix("text_"): v for k, v in kwargs.items() if not k.startswith("vision_")}
        check_files(vision_name_or_path, "vision", vision.get("gguf_file"))
        check_files(text_name_or_path, "text", text.get("gguf_file"))
        try:
            image_processor = AutoImageProcessor.from_pretrained(vision_name_or_path, **vision)
        except (OSError, ValueError) as error:
            raise explain_missing_part(vision_name_or_path, "vision", vision, error) from error
        try:
            with explain_gguf(text_name_or_path, text.get("gguf_file")):
                tokenizer = load_tokenizer(text_name_or_path, **text)
        except (OSError, ValueError) as error:
            raise explain_missing_part(text_name_or_path, "text", text, error) from error
        return cls(image_processor, tokenizer, **processor_kwargs)

    def __call__(
        self,
        images: ImageInput | None = None,
        text: str | list[str] | None = None,
        videos: VideoInput | None = None,
        **kwargs: Unpack[FlamingoProcessorKwargs],
    ) -> BatchFeature:
        r"""
        Tokenize `text` and preprocess the images and videos that it marks.

        Args:
            images (image, list of images, or list of lists, *optional*):
                An image is a PIL image, a numpy array or torch tensor (channels first or last, `uint8` 0..255, other
                integers and floats from 0 on as `bit_depth` says; floats in 0..1 need `do_rescale=False`), a path of a
                regular file, an `http(s)://` URL, a `data:image/` URI, base64, the bytes of an image file, or a dict of
                `bytes` and `path`, as `datasets.Image(decode=False)` gives it. A list of lists holds one list per sample,
                `[]` or `None` for a sample without images. A flat list is split by the number of `<image>` in each text. Inside a
                sample's list, an inner list of frames or a 4-D array is a video: `images=[[photo, [frame, frame], photo]]`
                gives images and videos in their order.
            text (`str` or `list[str]`, *optional*):
                One text or a batch, with one `<image>` for each image or video. Without `images` and `videos` the
                markers are not checked: with precomputed features the images go to the model directly, and it refuses
                markers that have none. Without `text` only pixels are returned, and a flat list is one sample.
            videos (*optional*):
                A video is a list of frames (PIL or arrays) or an array `(F, H, W, C)` or `(F, C, H, W)`. One video, a
                flat list, a 5-D array, or one list per sample, as for images. A video takes one `<image>` marker.
                Frames may be paths if the nesting is unambiguous: `videos=[[["frame0.png", "frame1.png"]]]`. A sample
                with both images and videos must give them in order in `images`. An empty list means none, also of
                `images`, `audio` and `audios`, which evaluation harnesses pass to every processor.
            kwargs:
                Arguments of the tokenizer (`padding`, `truncation`, `max_length`, `padding_side`, ...), of the image
                processor (`size`, `do_resize`, ...), `bit_depth`, `return_frame_attention_mask` and `return_tensors`, see
                [`ProcessorMixin.__call__`].

        Returns:
            [`BatchFeature`]: with these fields; lists unless `return_tensors` is given.

            - **input_ids**, **attention_mask** of shape `(B, T)` -- if `text` is given.
            - **pixel_values** of shape `(B, N, C, H, W)`, or `(B, N, F, C, H, W)` if any sample has a video -- if
              there is any image. Samples with fewer images, and videos with fewer frames, are padded with zeros at the
              end.
            - **frame_attention_mask** of shape `(B, N)` or `(B, N, F)` -- with `pixel_values`, where videos have
              different numbers of frames, or with `return_frame_attention_mask=True`: 1 for a real image or frame, 0 for
              padding. In a batch with videos, an image is a video of one frame. Without it the model recognizes padding.

        Raises:
            `ValueError`: markers and images of a sample differ in number; truncation would cut off a marker; the order
                of images and videos is unknown; an image cannot be read, has too many pixels (given or resized), or values of
                unknown range; a text has no tokens; a setting of the image processor would make noise of every image.
        """
        # Checked before transformers merges them, which fails without their names
        for name in ("text_kwargs", "images_kwargs", "videos_kwargs", "audio_kwargs", "common_kwargs"):
            _check_is_dict(kwargs.get(name, {}), name)
        check_image_settings({**kwargs.get("images_kwargs", {}), **kwargs}, "this call")
        max_length = {**kwargs.get("text_kwargs", {}), **kwargs}.get("max_length")
        if isinstance(max_length, int) and max_length < 1:
            raise ValueError(f"`max_length` is {max_length}. It is a number of tokens, at least 1.")
        # Evaluation harnesses pass all of these to every processor, and an empty list where there is nothing
        if images is not None and _is_empty(videos):
            videos = None
        elif videos is not None and _is_empty(images):
            images = None
        for name in ("audio", "audios"):
            if _is_empty(kwargs.get(name, [])):
                kwargs.pop(name, None)
            elif name == "audios":
                raise ValueError("`audios` was given, but Flamingo reads text, images and videos only. Remove it.")
        try:
            return super().__call__(images=images, text=text, videos=videos, **kwargs)
        except StrictDataclassError as error:  # a keyword argument has the wrong type; it is not a ValueError
            raise ValueError(f"An argument of this call has the wrong type. {error}") from error

    @blames_the_client
    def apply_chat_template(self, conversation, chat_template: str | None = None, **kwargs):
        """
        Render a conversation, and tokenize it if asked to, as [`ProcessorMixin.apply_chat_template`] does.

        In a turn of the user that begins with a text, the images and videos come first: a token sees only images before
        it. A turn that begins with an image keeps its order. `images_first=True` moves the images of every turn of the
        user, and `images_first=False` moves none.

        Args:
            conversation (`list[dict]`): The messages.
            chat_template (`str`, *optional*):
                `"text"`, `"few_shot"` or a Jinja template, instead of that of the processor, see [`FlamingoProcessor`].
            kwargs:
                Arguments of the stock method, such as `add_generation_prompt`, `tokenize`, `return_dict`,
                `return_tensors` and `processor_kwargs`, and variables of the template, such as `images_first`.

        Raises:
            `ValueError`: `conversation` is not a list of messages, a message has no role or content, `processor_kwargs` is not a
                dict, a switch such as `images_first` is no truth value, or the tokenizer has no template of a language model.
        """
        if kwargs.get("processor_kwargs") is not None:
            _check_is_dict(kwargs["processor_kwargs"], "processor_kwargs")
        own = self.chat_template if isinstance(self.chat_template, dict) else {"default": self.chat_template}
        if is_template_name(chat_template) and chat_template not in own:
            chat_template = choose_chat_template(
                chat_template, self.tokenizer, self.image_token, self.end_of_chunk_token
            )
            if isinstance(chat_template, dict):
                chat_template = chat_template["default"]
        used = own.get(chat_template or "default", chat_template)
        check_conversations(conversation, used if is_flamingo_template(used) else None)
        check_options(kwargs)
        # As `apply_chat_template` of the tokenizer, whose template writes all special tokens of a chat. The stock method of
        # processors adds the tokenizer's own to a chat that does not begin with one.
        if kwargs.get("tokenize") and is_text_template(used):
            given = dict(kwargs.get("processor_kwargs") or {})
            if not any("add_special_tokens" in names for names in (kwargs, given, given.get("text_kwargs", {}))):
                kwargs["processor_kwargs"] = {**given, "add_special_tokens": False}
        return super().apply_chat_template(conversation, chat_template, **kwargs)

    def set_chat_template(self, name: str) -> None:
        """
        Set the chat template, `"text"` or `"few_shot"`.

        Raises:
            `ValueError`: `name` is another one, or `"text"`, and the tokenizer has no template of a language model.
        """
        self.chat_template = choose_chat_template(name, self.tokenizer, self.image_token, self.end_of_chunk_token)

    @property
    def default_chat_template(self) -> str | None:
        """Return the chat template of a conversation that names none."""
        return self.chat_template.get("default") if isinstance(self.chat_template, dict) else self.chat_template

    @property
    def has_few_shot_template(self) -> bool:
        """Tell whether conversations are rendered as few-shot prompts."""
        return self.default_chat_template == make_few_shot_template(self.image_token, self.end_of_chunk_token)

    @property
    def end_of_turn_token(self) -> str | None:
        """Return the token that the chat template writes after an answer, at which generation must stop, if there is one."""
        return find_end_of_turn(self.tokenizer, self.default_chat_template)

    def adds_special_tokens(self, prompt: str) -> bool:
        """Tell whether the tokenizer adds special tokens to a rendered chat, or the chat template wrote all of them."""
        bos = self.tokenizer.bos_token
        return not is_text_template(self.default_chat_template) and not (bos and prompt.startswith(bos))

    valid_processor_kwargs = FlamingoProcessorKwargs

    @property
    def unused_input_names(self) -> list[str]:
        """Return the names of outputs of the tokenizer that are dropped."""
        # Some tokenizers of causal language models return them; no forward of such a model takes them
        return ["token_type_ids"]

    @property
    def model_input_names(self) -> list[str]:
        """Return the names of the tensors that a call may return."""
        return [*super().model_input_names, "frame_attention_mask"]

    # The methods below are the hooks of `ProcessorMixin.__call__`, in the order in which it calls them.

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

        Returns:
            `(images, text, videos, audio)` where `images` is a list of `B` lists whose elements are images or, for a
            video, lists of frames. `videos` is `None`, because there is no video processor: frames are images. Nothing is
            opened or decoded yet, so that wrong numbers are reported at once.
        """
        if isinstance(text, bytes | dict) or (text is not None and not hasattr(text, "__iter__")):
            raise ValueError(f"`text` must be a string or a non-empty list of strings. Got a {type(text).__name__}.")
        # Without the images, which the stock method would fetch and open before their numbers are checked
        _, text, _, audio = super().prepare_inputs_layout(text=text, audio=audio)
        if text is not None and (not text or not all(isinstance(sample, str) for sample in text)):
            types = sorted({type(sample).__name__ for sample in text})
            raise ValueError(
                f"`text` must be a string or a non-empty list of strings. Got a list of {types or 'nothing'}."
            )
        # The tokenizer would raise a TypeError about its input type
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

        media = nest_media(images, videos, text, self.image_token, self._count_markers)
        return media, text, None, audio

    def _count_markers(self, text: str) -> int:
        """Return the number of images that `text` marks."""
        if self.image_token_is_text:
            token_ids = self.tokenizer.encode(text, add_special_tokens=False)
            return sum(token_id in self.image_token_ids for token_id in token_ids)
        return text.count(self.image_token)

    def _check_special_mm_tokens(self, text: list[str], text_inputs: BatchFeature, modalities: list[str]) -> None:
        """Check that each text has tokens, and that truncation cut off no marker."""
        # In a batch, a text without tokens is a row of padding
        for index, row in enumerate(text_inputs.get("attention_mask", text_inputs["input_ids"])):
            if not len(row) or ("attention_mask" in text_inputs and not any(int(kept) for kept in row)):
                raise ValueError(
                    f"The text of sample {index} is {text[index]!r:.100}, which has no tokens: there is nothing to read and "
                    "nothing to continue. Give it a text or an image, or remove the sample."
                )
        if not self.image_token_is_text:
            super()._check_special_mm_tokens(text, text_inputs, modalities)
            return
        # The stock check looks for one id, but here each of two ordinary tokens marks an image
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
        Check that each sample has as many markers as images and videos.

        The stock check counts over the whole batch, so that `text=["<image> a", "b"], images=[[], [image]]` passes it.

        Raises:
            `ValueError`: the numbers differ, there is no input, or an argument asks for audio or for sampled frames.
        """
        if audio is not None:
            raise ValueError("`audio` was given, but Flamingo reads text, images and videos only. Remove it.")
        if images is None and text is None:
            raise ValueError(f"{self.__class__.__name__} was called without input. Give `text`, `images` or `videos`.")

        # transformers has these arguments for every processor, and would ignore them here
        sampling = {**kwargs.get("videos_kwargs", {}), **kwargs}
        sampling = {key: sampling[key] for key in ("num_frames", "fps") if sampling.get(key) is not None}
        if sampling and any(not is_single_image(item) for sample in images or [] for item in sample):
            raise ValueError(
                f"{sampling} was given with a video, but all frames are used: they carry no times to sample by. Choose "
                "the frames before the call, for example `frames[::10]`."
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
        for index, (sample, items) in enumerate(zip(text, images, strict=True)):
            count = self._count_markers(sample)
            if count != len(items):
                raise ValueError(
                    f"Sample {index} has {count} `{self.image_token}` in its text but {len(items)} images or videos. "
                    f"{rule}, because each word looks at the last image marked before it. Add or remove markers or "
                    "images."
                )

    def _process_images(self, images: list[list[Any]], **kwargs) -> tuple[dict[str, Any], list[str]]:
        """
        Make the pixels and the mask of the batch.

        Returns:
            The tensors (none if no sample has an image) and, for each image or video in order, the text that replaces its
            marker: the marker itself.
        """
        return_tensors, bit_depth = kwargs.pop("return_tensors", None), kwargs.pop("bit_depth", None)
        returns_mask = kwargs.pop("return_frame_attention_mask", None)
        bit_depth = self.bit_depth if bit_depth is None else bit_depth
        check_bit_depth(bit_depth)
        made = make_pixels(images, self.image_processor, bit_depth, kwargs)
        if made is None:
            return {}, []
        pixels, mask = made
        replacements = [self.replace_image_token({}, index) for index in range(sum(map(len, images)))]
        tensors = {"pixel_values": pixels if return_tensors else list(pixels.cpu().numpy())}
        # Clients that know their tensors by name (TRL's GRPO) fail with one more
        if has_padded_frames(mask) if returns_mask is None else returns_mask:
            tensors["frame_attention_mask"] = mask if return_tensors else mask.tolist()
        return tensors, replacements

    def replace_image_token(self, image_inputs: dict[str, Any], image_idx: int, **kwargs) -> str:
        """
        Return the marker itself.

        An image or a video is one token, because its latents reach the text by cross-attention, not through placeholders.
        """
        return self.image_token

    def _multimodal_inputs_from_conversations(
        self,
        conversations: list[list[dict[str, Any]]],
        audio_loading_params: dict,
        load_audio_from_video: bool = False,
    ) -> tuple[list[list[Any]], list[list[Any]], list[Any], dict[str, Any]]:
        """
        Collect the images and videos of each conversation in their order. The stock method keeps two lists, which loses it.
        """
        batch = [collect_media(conversation, load_audio_from_video) for conversation in conversations]
        return batch, [[] for _ in batch], [], {}


def _is_empty(media: Any) -> bool:
    return media is None or (isinstance(media, list | tuple) and not media)


def _check_is_dict(value: Any, name: str) -> None:
    if not isinstance(value, Mapping):
        raise ValueError(
            f"`{name}` is {value!r:.100}, a {type(value).__name__}. It must be a dict of keyword arguments."
        )


FlamingoProcessor.register_for_auto_class()

__all__ = ["FlamingoProcessor"]
