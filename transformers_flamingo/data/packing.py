# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Pack several short documents into one row of a batch, and check that a model keeps them apart."""

from collections.abc import Sequence

import torch

from ..modeling_flamingo import FlamingoModel


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """
    Distribute documents over few rows of similar length, because rows are padded to the longest.

    First, from the longest document on, each goes into the first row with room. That gives at most 11/9 of the rows of the
    best packing, plus 6/9 (Dosa 2007, "The tight bound of first fit decreasing bin-packing algorithm"). Then each goes into
    the shortest of that number of rows (Graham 1969, "Bounds on multiprocessing timing anomalies"), and this second
    packing is used if all its rows fit.

    Args:
        lengths (`Sequence[int]`): Number of tokens of each document.
        capacity (`int`): Maximum number of tokens of a row.

    Returns:
        `list[list[int]]`: the documents of each row, as sorted indices into `lengths`.
    """
    longest_first = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    rows, room = [], []
    for document in longest_first:
        row = next((r for r, left in enumerate(room) if lengths[document] <= left), len(rows))
        if row == len(rows):
            rows.append([])
            room.append(capacity)
        rows[row].append(document)
        room[row] -= lengths[document]
    even, filled = [[] for _ in rows], [0] * len(rows)
    for document in longest_first:
        row = filled.index(min(filled))
        even[row].append(document)
        filled[row] += lengths[document]
    return sorted(sorted(row) for row in (even if max(filled, default=0) <= capacity else rows))


def check_packing(model: FlamingoModel) -> None:
    """
    Check that packed documents do not see each other, by running the model with its weights and attention.

    The gradient of the logits of the second document of a row must be exactly 0 at all tokens of the first, and these
    logits must equal those of the document alone, because some language models count positions from the edge of the row.
    There are two rows, because stock flash attention separates documents only in a batch of one row. Modes, gradients of the
    weights and random generators stay unchanged.

    Args:
        model ([`FlamingoModel`]): The model, on a device that it can run on.

    Raises:
        ValueError: the model does not keep the documents apart.
    """
    embed, markers = model.get_input_embeddings(), model.config.image_token_ids or [model.config.image_token_id]
    tokens = [token for token in range(8 + len(markers)) if token not in markers][:8]
    position_ids = torch.tensor([0, 1, 2, 3, 0, 1, 2, 3], device=embed.weight.device).expand(2, -1)
    modes = {module: module.training for module in model.modules()}
    model.eval()  # no dropout
    try:
        with torch.enable_grad():
            texts = embed(torch.tensor(tokens, device=embed.weight.device)).detach().expand(2, -1, -1)
            texts = texts.clone().requires_grad_()
            logits = model(inputs_embeds=texts, position_ids=position_ids).logits
            gradient = torch.autograd.grad(logits[:, 4:].float().sum(), texts)[0]
        with torch.no_grad():
            alone = model(inputs_embeds=texts[:, 4:], position_ids=position_ids[:, 4:], use_cache=False).logits
        difference = (logits[:, 4:] - alone).abs().max() / alone.abs().max()
        problem = cause = None
        if gradient[:, :4].any():
            problem = "the second document of a row depends on the first"
        elif difference > torch.finfo(alone.dtype).eps ** 0.5:
            problem = "the second document of a row has different logits than alone: its positions do not start again"
    except Exception as error:  # language models that refuse position_ids or inputs_embeds do so with any error
        problem, cause = f"{type(error).__name__}: {error}", error
    finally:
        for module, mode in modes.items():
            module.training = mode
    if problem is not None:
        raise ValueError(
            f"{type(model.language_model).__name__} with attention {model.language_model.config._attn_implementation!r} "
            f"cannot keep apart the documents that are packed into one row ({problem}), so training would differ from "
            "training on each alone. Turn off `packing`, or choose `attn_implementation='sdpa'` or another language model."
        ) from cause
