# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Checks of what `FlamingoModel` is given, made before anything is computed.

Each check raises a `ValueError` that names the argument and its values. None of them waits for an accelerator: shapes
are known on the host, and values are compared only where they are on the CPU. On CUDA a value is asserted
asynchronously, or left to the assertion that the kernel makes itself.

Letters in shapes: `B` batch, `N` images or videos per sample, `F` frames, `C, H, W` pixels, `T` text length.

The file travels with a checkpoint as remote code: it stays flat and imports only its siblings.
"""

from typing import Any

import torch


def is_padding_mask(attention_mask: Any) -> bool:
    """Return whether a mask is `(B, T)`. For compilable caches `generate()` passes finished masks, or a dict of them."""
    return isinstance(attention_mask, torch.Tensor) and attention_mask.ndim == 2


def check_tensors(**inputs: Any) -> None:
    """Check that no input is an array or a list, which would fail later without its name."""
    for name, value in inputs.items():
        if value is not None and not isinstance(value, torch.Tensor | dict) and hasattr(value, "__len__"):
            raise ValueError(
                f"`{name}` is a {type(value).__module__}.{type(value).__name__}, but a torch.Tensor is needed. Call the "
                'processor with `return_tensors="pt"`, or convert it with `torch.as_tensor`.'
            )


def check_text(
    input_ids: torch.LongTensor | None, inputs_embeds: torch.Tensor | None, vocab_size: int
) -> tuple[int, int]:
    """
    Check the text and return its shape `(B, T)`.

    Args:
        input_ids (`torch.LongTensor` of shape `(B, T)`, *optional*): Ids.
        inputs_embeds (`torch.FloatTensor` of shape `(B, T, D)`, *optional*): Embeddings instead.
        vocab_size (`int`): Number of rows of the embeddings.
    """
    check_tensors(input_ids=input_ids, inputs_embeds=inputs_embeds)
    if (input_ids is None) == (inputs_embeds is None):
        raise ValueError("Pass exactly one of `input_ids` and `inputs_embeds`.")
    name, text, ndim = ("inputs_embeds", inputs_embeds, 3) if input_ids is None else ("input_ids", input_ids, 2)
    if text.ndim != ndim or 0 in text.shape[:2]:
        raise ValueError(
            f"`{name}` has shape {tuple(text.shape)}. It must be {'(B, T, D)' if ndim == 3 else '(B, T)'} with at least "
            "one sample and one token: there is nothing to compute otherwise. Start the text with a token, such as the "
            "tokenizer's `bos_token`."
        )
    if input_ids is not None:
        _check_ids("input_ids", input_ids, vocab_size)
    return text.shape[:2]


def check_labels(labels: torch.LongTensor, shape: tuple[int, int], vocab_size: int, ignore_index: int = -100) -> None:
    """Check that labels are `(B, T)` ids of the vocabulary, or `ignore_index`."""
    if labels.shape != shape:
        raise ValueError(
            f"The labels have shape {tuple(labels.shape)}, but the text has {tuple(shape)}: each token needs one, "
            f"{ignore_index} where nothing is to be learned."
        )
    _check_ids("labels", labels, vocab_size, ignore_index)


def _check_ids(name: str, ids: torch.LongTensor, vocab_size: int, ignore_index: int | None = None) -> None:
    # On other devices the kernels assert it themselves; comparing here would wait for them.
    if torch.compiler.is_compiling() or ids.device.type != "cpu":
        return
    wrong = (ids < 0) | (ids >= vocab_size)
    if ignore_index is not None:
        wrong &= ids != ignore_index
    if wrong.any():
        sample, token = wrong.nonzero()[0].tolist()
        exception = "" if ignore_index is None else f", or be {ignore_index} where nothing is to be learned"
        raise ValueError(
            f"`{name}` holds {ids[sample, token].item()} at token {token} of sample {sample}, but the language model's "
            f"vocabulary has {vocab_size} rows: an id must be from 0 to {vocab_size - 1}{exception}. Use the tokenizer "
            "of this model, or resize its embeddings (`resize_token_embeddings`)."
        )


def check_mask_shape(mask_shape: tuple[int, ...], shape: tuple[int, int], num_past_tokens: int) -> None:
    """
    Check that a padding mask covers the text, that in the cache included: `(B, num_past_tokens + T)`.

    A mask of another length would shift positions or hide tokens: language models cut and fill it, each in its own way.
    """
    expected = (shape[0], num_past_tokens + shape[1])
    if tuple(mask_shape) != expected:
        cached = f" and {num_past_tokens} tokens are in the cache" if num_past_tokens else ""
        raise ValueError(
            f"`attention_mask` has shape {tuple(mask_shape)}, but the text has {tuple(shape)}{cached}, so it must have "
            f"{expected}: 1 at each token, 0 at padding. With another length, tokens would get wrong positions."
        )


def check_text_length(
    max_text_length: int | None,
    shape: tuple[int, int],
    num_past_tokens: int = 0,
    attention_mask: Any = None,
    position_ids: torch.LongTensor | None = None,
) -> None:
    """
    Check that a text fits the positions that the language model has.

    Args:
        max_text_length (`int`, *optional*): Number of positions; `None` if there is no limit.
        shape (`tuple[int, int]`): `(B, T)` of the text.
        num_past_tokens (`int`, *optional*, defaults to 0): Tokens in the cache.
        attention_mask (`torch.Tensor` of shape `(B, num_past_tokens + T)`, *optional*): Padding takes no position.
        position_ids (`torch.LongTensor`, *optional*): Positions that were given; they decide instead of the length.
    """
    length = num_past_tokens + shape[1]
    if max_text_length is None or length <= max_text_length:
        return
    if position_ids is not None:
        length = int(position_ids.max()) + 1
    elif is_padding_mask(attention_mask):
        length = int(attention_mask.sum(dim=1).max())
    if length > max_text_length:
        raise ValueError(
            f"The text has {length} tokens, but the language model has positions for {max_text_length}. Shorten the "
            "text, give fewer demonstrations, or use a language model with more positions."
        )


def check_finite(values: torch.Tensor, name: str, unit: str) -> None:
    """
    Check that pixels or features have neither NaN nor infinity, which would silently turn into text.

    Args:
        values (`torch.Tensor`): The values, with one `unit` for each index of the first dimension.
        name (`str`): Name of the argument, for the message.
        unit (`str`): Name of what the first dimension counts, for the message.
    """
    values = values.detach()
    is_finite = values.isfinite().all()
    if torch.compiler.is_compiling() or values.device.type == "cuda":
        torch._assert_async(is_finite, f"`{name}` holds NaN or infinity.")
    elif values.device.type != "meta" and not is_finite:
        index = int((~values.isfinite()).flatten(1).any(dim=1).nonzero()[0])
        raise ValueError(
            f"`{name}` holds NaN or infinity, first in {unit} {index} of {len(values)} (counted from 0). The model would "
            "answer as if it had seen something. Check the image and its normalization (`image_mean`, `image_std`, "
            "`rescale_factor`), the encoder that made the features, or the weights of the model: a training that diverged "
            "leaves them at NaN (lower its `learning_rate`)."
        )
