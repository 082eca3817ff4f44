# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Check the inputs of `FlamingoModel` before anything is computed.

Each check raises a `ValueError` that names the argument and its values. None of them waits for an accelerator: shapes
are known on the host, and values are compared on the CPU only. On CUDA a value is asserted asynchronously, or left to the
assertion in the kernel.

Letters in shapes: `B` batch, `N` images or videos per sample, `F` frames, `C, H, W` pixels, `T` text length.

The file travels with a checkpoint as remote code: it stays flat and imports only its siblings.
"""

from typing import Any

import torch


def is_padding_mask(attention_mask: Any) -> bool:
    """Return whether a mask is `(B, T)`. For compilable caches `generate()` passes 4-D masks, or a dict of them."""
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
        input_ids (`torch.LongTensor` of shape `(B, T)`, *optional*): Ids of tokens.
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
            "one sample and one token, or there is nothing to compute. Start the text with a token, such as the "
            "tokenizer's `bos_token`."
        )
    # NaN in embeddings would silently spread to every token of the sample
    if input_ids is not None:
        _check_ids("input_ids", input_ids, vocab_size)
    else:
        check_finite(inputs_embeds, "inputs_embeds", "sample")
    return text.shape[:2]


def check_labels(
    labels: torch.LongTensor, shape: tuple[int, int], vocab_size: int, ignore_index: int = -100, name: str = "labels"
) -> None:
    """Check that labels are `(B, T)` ids of the vocabulary, or `ignore_index`."""
    if labels.shape != shape:
        raise ValueError(
            f"The {name} have shape {tuple(labels.shape)}, but the text has {tuple(shape)}: each token needs one, "
            f"which is {ignore_index} if it is not to be learned."
        )
    _check_ids(name, labels, vocab_size, ignore_index)


def check_supervision(has_targets: bool, ignore_index: int) -> None:
    """Check that labels have something to predict: the mean loss of no token is NaN, in all models of transformers."""
    if not has_targets:
        raise ValueError(
            f"The labels supervise no token: after the shift by one, all are {ignore_index}, so the loss would be the mean of nothing, "
            "NaN. The first token of a text is never predicted, so a text of one token has nothing to learn either. Remove such "
            "samples, or raise the length at which texts are cut. If the batch is one of several whose losses are added, give the "
            "number of all their targets as `num_items_in_batch`, as `Trainer` does."
        )


def check_whole_numbers(name: str, values: torch.Tensor) -> None:
    """Check that ids or indices are integers: torch would fail without their name, or cut fractions off."""
    if values.is_floating_point() or values.is_complex() or values.dtype == torch.bool:
        raise ValueError(f"`{name}` is of type {values.dtype}, but it holds whole numbers: convert it with `.long()`.")


def _check_ids(name: str, ids: torch.LongTensor, vocab_size: int, ignore_index: int | None = None) -> None:
    check_whole_numbers(name, ids)
    # On other devices the kernels assert it themselves. A comparison here would wait for them.
    if torch.compiler.is_compiling() or ids.device.type != "cpu":
        return
    wrong = (ids < 0) | (ids >= vocab_size)
    if ignore_index is not None:
        wrong &= ids != ignore_index
    if wrong.any():
        sample, token = wrong.nonzero()[0].tolist()
        exception = "" if ignore_index is None else f", or be {ignore_index} if it is not to be learned"
        raise ValueError(
            f"`{name}` holds {ids[sample, token].item()} at token {token} of sample {sample}, but the language model's "
            f"vocabulary has {vocab_size} rows: an id must be from 0 to {vocab_size - 1}{exception}. Use the tokenizer "
            "of this model, or resize its embeddings (`resize_token_embeddings`)."
        )


def check_mask(name: str, mask: torch.Tensor | None, dims: tuple[int, ...] = (2,)) -> None:
    """
    Check that a mask holds only 1, for what is real, and 0, for padding.

    Language models interpret other values differently: a mask of 0 and minus infinity would be read as its opposite.

    Args:
        name (`str`): Name of the argument.
        mask (`torch.Tensor`, *optional*): The mask. Anything but a tensor is skipped.
        dims (`tuple[int, ...]`, *optional*, defaults to `(2,)`): Numbers of dimensions that it may have.
    """
    if not isinstance(mask, torch.Tensor):
        return
    if mask.ndim not in dims:
        raise ValueError(
            f"`{name}` has shape {tuple(mask.shape)}. It must have {' or '.join(map(str, dims))} dimensions, the first of "
            "them for the samples: 1 for what is real, 0 for padding."
        )
    # A 4-D mask goes to the language model as it is, and may be additive
    if mask.ndim == 4 or mask.dtype == torch.bool:
        return
    # An asynchronous assertion does not wait for the device, and can be compiled
    is_binary = ((mask == 0) | (mask == 1)).all()
    if torch.compiler.is_compiling() or mask.device.type == "cuda":
        torch._assert_async(is_binary, f"`{name}` holds other values than 0 and 1.")
    elif mask.device.type != "meta" and not is_binary:
        value = mask[(mask != 0) & (mask != 1)][0].item()
        raise ValueError(
            f"`{name}` holds {value}, but it may hold only 1 for what is real and 0 for padding: language models "
            "interpret other values differently. Pass the mask of the processor."
        )


def check_mask_shape(mask_shape: tuple[int, ...], shape: tuple[int, int], num_past_tokens: int) -> None:
    """
    Check that a padding mask covers the text, including that in the cache: `(B, num_past_tokens + T)`.

    A mask of another length would shift positions or hide tokens: language models cut or extend it, each in its own way.
    """
    expected = (shape[0], num_past_tokens + shape[1])
    if tuple(mask_shape) != expected:
        cached = f" and {num_past_tokens} tokens are in the cache" if num_past_tokens else ""
        raise ValueError(
            f"`attention_mask` has shape {tuple(mask_shape)}, but the text has {tuple(shape)}{cached}, so it must have "
            f"{expected}: 1 for each token, 0 for padding. With another length, tokens would get wrong positions."
        )


def check_padding_side(attention_mask: torch.Tensor, language_model: str) -> None:
    """Check that no row of a padding mask `(B, T)` begins with padding, for a language model that counts padding."""
    if (attention_mask[:, 0] == 0).any():
        raise ValueError(
            f"`attention_mask` has padding on the left, and {language_model} takes no `position_ids`: it would count the "
            'padding, so that a sample has other logits than on its own. Pad on the right (`padding_side="right"`), and '
            "generate for one sample at a time."
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
        attention_mask (`torch.Tensor` of shape `(B, num_past_tokens + T)`, *optional*): Padding does not take up positions.
        position_ids (`torch.LongTensor`, *optional*): Positions. If given, they decide instead of the length.
    """
    length = num_past_tokens + shape[1]
    if position_ids is not None and position_ids.shape[-1] != shape[1]:
        raise ValueError(
            f"`position_ids` has shape {tuple(position_ids.shape)}, but the text has {tuple(shape)}: each token needs one."
        )
    # Given positions decide instead of the length. On an accelerator, reading them would wait for it.
    are_known = position_ids is not None and position_ids.device.type == "cpu"
    if max_text_length is None or (length <= max_text_length and not are_known):
        return
    if are_known and position_ids.min() < 0:
        raise ValueError(
            f"`position_ids` holds {position_ids.min().item()}, but positions are counted from 0. Padding has position 0."
        )
    if position_ids is not None:
        length = int(position_ids.max()) + 1
    elif is_padding_mask(attention_mask):
        length = int(attention_mask.sum(dim=1).max())
    if length > max_text_length:
        raise ValueError(
            f"The text has {length} {'tokens' if position_ids is None else 'positions'}, but the language model has "
            f"positions for {max_text_length}. Shorten the text, give fewer demonstrations, or use a language model with more positions."
        )


def is_finite(values: torch.Tensor) -> bool:
    """Return whether values have neither NaN nor infinity. Their sum tells in one pass, without an array of booleans, unless it overflows."""
    return bool(values.sum().isfinite()) or bool(values.isfinite().all())


def check_finite(values: torch.Tensor, name: str, unit: str) -> None:
    """
    Check that pixels, features or embeddings have neither NaN nor infinity, which would silently lead to arbitrary text.

    Args:
        values (`torch.Tensor`): The values, with one `unit` for each index of the first dimension.
        name (`str`): Name of the argument, for the message.
        unit (`str`): Name of what the first dimension counts, for the message.
    """
    values = values.detach()
    if torch.compiler.is_compiling() or values.device.type == "cuda":
        torch._assert_async(values.isfinite().all(), f"`{name}` holds NaN or infinity.")
    elif values.device.type != "meta" and not is_finite(values):
        index = int((~values.isfinite()).flatten(1).any(dim=1).nonzero()[0])
        raise ValueError(
            f"`{name}` holds NaN or infinity, first in {unit} {index} of {len(values)} (counted from 0). The model would "
            "answer as if it had seen something. Check the image and its normalization (`image_mean`, `image_std`, "
            "`rescale_factor`), what made the features or embeddings, or the weights of the model: a training run that diverged "
            "leaves NaN in them (lower its `learning_rate`)."
        )
