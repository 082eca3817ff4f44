# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Trainable rows of frozen embeddings, and what `freeze_backbones()` freezes.

With frozen backbones, the rows of the new tokens are the only ones of an embedding matrix that are trained. A [`TokenRows`]
holds them as parameters of their own, so the optimizer keeps state for these rows only, and weight decay changes no other
row. It has two modes:

|                          | view (default)                        | detached, after [`TokenRows.detach`]                |
|--------------------------|---------------------------------------|-----------------------------------------------------|
| memory of a parameter    | that of its row in the matrix         | its own                                             |
| value in use             | the matrix                            | the parameter, which overrides the row              |
| in the state dict        | no, because the matrix contains it    | yes, until `merge_token_rows` writes it into the matrix |
| used                     | everywhere else, and in checkpoints   | where the matrix is sharded over processes (FSDP2)  |

In the first mode a checkpoint has no names that a plain model lacks, which is why it is the default. The second exists
because a sharded matrix has no rows that could share memory.

Shapes: `B` batch, `T` text length, `D` text width, `V` vocabulary, `K` trained tokens.
"""

import functools
from collections.abc import Callable

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from .quantization_flamingo import keep_gradients, train_beside


class TokenRows(nn.Module):
    """
    Trainable rows of a frozen embedding matrix, as parameters `token_ID` `(D,)`.

    Args:
        weight (`torch.Tensor` of shape `(V, D)`): The matrix.
        token_ids (`list[int]`): The rows.

    Attributes:
        trains_input (`bool`): Whether the rows are trained as inputs of the language model, and not only as rows of the head.
    """

    def __init__(self, weight: torch.Tensor, token_ids: list[int]):
        super().__init__()
        self.token_ids = token_ids
        self.is_view = True
        self.trains_input = True
        self.hooks: list[RemovableHandle] = []
        for token_id in token_ids:
            self.register_parameter(f"token_{token_id}", nn.Parameter(weight.data[token_id]))

    def items(self) -> list[tuple[int, nn.Parameter]]:
        """Return the token ids, each with its row `(D,)`."""
        return [(token_id, getattr(self, f"token_{token_id}")) for token_id in self.token_ids]

    @property
    def needs_gradient(self) -> bool:
        """Tell whether some row records gradients now. Rows whose matrix is offloaded have no values, and are not trained."""
        if torch.compiler.is_compiling():  # where `torch.func` computes the gradient, of parameters that do not say so
            return torch.is_grad_enabled()
        return torch.is_grad_enabled() and any(row.requires_grad and not row.is_meta for row in self.parameters())

    def hook(self, module: nn.Module, function: Callable) -> None:
        """Register `function(rows, module, args, output)` as a forward hook of an embedding, until [`~TokenRows.unhook`]."""
        self.hooks.append(module.register_forward_hook(functools.partial(function, self)))

    def unhook(self) -> None:
        """Remove the hooks."""
        for handle in self.hooks:
            handle.remove()
        self.hooks.clear()

    @torch.no_grad()
    def refresh(self, weight: torch.Tensor) -> None:
        """Make the parameters views of `weight` `(V, D)` again: moving, casting or copying a model gives them other memory."""
        if not self.is_view or weight.is_meta:
            return
        for token_id, row in self.items():
            if row.data_ptr() != weight[token_id].data_ptr():
                row.data = weight.data[token_id]

    @torch.no_grad()
    def detach(self) -> None:
        """Give each parameter its own memory, permanently."""
        for _, row in self.items():
            row.data = row.data.clone()
        self.is_view = False

    def _save_to_state_dict(self, *args, **kwargs):
        if not self.is_view:
            super()._save_to_state_dict(*args, **kwargs)

    def _load_from_state_dict(self, *args, **kwargs):
        if not self.is_view:
            super()._load_from_state_dict(*args, **kwargs)


def train_input_rows(rows: TokenRows, embedding: nn.Module, args: tuple, output: torch.Tensor) -> torch.Tensor:
    """Add the rows' gradients, and detached values, to the output `(B, T, D)` of a frozen input embedding: its forward hook."""
    scale = torch.as_tensor(getattr(embedding, "embed_scale", 1.0))  # Gemma's embedding multiplies by it
    for token_id, row in rows.items():
        is_token = (args[0] == token_id)[..., None]
        if not rows.is_view:
            row = row if rows.trains_input else row.detach()
            output = torch.where(is_token, (row * scale.to(row.dtype)).to(output.dtype), output)
        elif rows.trains_input and rows.needs_gradient:
            # The value is in the output already. What is added is 0 with the gradient of the row.
            output = output + is_token * ((row - row.detach()) * scale)
    return output


def train_output_rows(rows: TokenRows, head: nn.Module, args: tuple, output: torch.Tensor) -> torch.Tensor:
    """Add the rows' gradients, and detached values, to the logits `(..., V)` of a frozen output embedding: its forward hook."""
    if rows.is_view and not rows.needs_gradient:
        return output
    weight = torch.stack([row for _, row in rows.items()])  # (K, D)
    index = torch.tensor(rows.token_ids, device=output.device)
    # In place over the whole of `output`: through a slice of it, backward would copy the gradient of all logits.
    if rows.is_view:
        logits = nn.functional.linear(args[0].detach(), weight)
        return output.index_add_(-1, index, (logits - logits.detach()).to(output.dtype))
    # The detached rows replace the matrix's own columns, with the gradient of the hidden states.
    bias = getattr(head, "bias", None)
    logits = nn.functional.linear(args[0], weight, None if bias is None else bias[index])
    return output.index_copy_(-1, index, logits.to(output.dtype))


def full_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """Gather a tensor that is sharded over processes."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


class FlamingoFreezingMixin:
    """Freezing and unfreezing of the backbones of a [`FlamingoModel`], whose new tokens stay trainable."""

    input_token_rows: TokenRows | None
    output_token_rows: TokenRows | None
    # Whether the head of the language model is used. A classifier has another.
    uses_lm_head = True

    def train(self, mode: bool = True):
        """
        Set training mode, but leave a frozen vision encoder in evaluation mode.

        Batch normalization would otherwise train its statistics, without a gradient, and mix the images of a batch; dropout
        would make the features differ from those that are kept (`cache_features`).
        """
        super().train(mode)
        self._set_vision_mode()
        return self

    def _set_vision_mode(self) -> None:
        if self.vision_model is not None:
            is_trained = any(p.requires_grad for p in self.vision_model.parameters())
            self.vision_model.train(self.training and is_trained)

    def freeze_backbones(self, train_token_embeddings: bool = True) -> None:
        """
        Freeze vision encoder and language model, except for the embeddings of `<image>` and `<|endofchunk|>`.

        The resampler, the gated blocks, and the two new rows of the input embedding (and of the output embedding where it
        is not tied to it) stay trainable. All other weights of the backbones stay bit-identical through training, even
        with weight decay: see [`TokenRows`]. A frozen vision encoder runs without recording gradients, and in evaluation
        mode. A quantized language model may be frozen too: then `Trainer` trains what is beside it, without adapters.

        Args:
            train_token_embeddings (`bool`, *optional*, defaults to `True`):
                Whether the rows of the input embedding are trained. Their gradient is the only one that runs through the decoder
                layers below the first gated block, so without them a training step does less work and keeps less memory. The rows
                of the output embedding, whose gradient comes from the head alone, are trained either way; where both embeddings are one
                matrix, its rows are.

        Raises:
            ValueError: the model has PEFT adapters.
        """
        if getattr(self, "peft_config", None):
            raise ValueError(
                "This model has PEFT adapters, and PEFT froze all that they do not train. `freeze_backbones()` would also "
                "freeze the adapters of the language model, and make parameters of rows that PEFT trains already. Do not "
                "call it."
            )
        if self.vision_model is not None:
            self.vision_model.requires_grad_(False)
        self.language_model.requires_grad_(False)
        self.resampler.requires_grad_(True)
        self.gated_cross_attention.requires_grad_(True)
        self._remove_token_rows()
        self._add_token_rows(train_token_embeddings)
        self._set_vision_mode()
        if getattr(self, "hf_quantizer", None) is not None:
            self.hf_quantizer = train_beside(self.hf_quantizer)
            keep_gradients(self.language_model)

    def unfreeze_backbones(self, vision_model: bool | None = None, language_model: bool | None = None) -> None:
        """
        Make the backbones trainable again.

        Without arguments both are unfrozen. With one argument, `True` unfreezes that backbone alone and `False` the other
        one alone.

        Args:
            vision_model (`bool`, *optional*): Whether to unfreeze the vision encoder.
            language_model (`bool`, *optional*): Whether to unfreeze the language model.

        Raises:
            ValueError: the language model is to be unfrozen, and is quantized.
        """
        unfreezes_vision = not language_model if vision_model is None else vision_model
        unfreezes_text = not vision_model if language_model is None else language_model
        if unfreezes_text and getattr(self, "is_quantized", False):
            raise ValueError(
                "The language model is quantized, and quantized weights have no gradients, so it cannot be unfrozen. Train "
                "adapters on it (`training.lora_config`), unfreeze the vision encoder alone "
                "(`unfreeze_backbones(vision_model=True)`), or load the model without `quantization_config`."
            )
        if unfreezes_vision and self.vision_model is not None:
            self.vision_model.requires_grad_(True)
        if unfreezes_text:
            self._remove_token_rows()
            self.language_model.requires_grad_(True)
        self._set_vision_mode()

    @property
    def embeddings(self) -> nn.Module:
        """
        Return a holder of `word_embeddings`, the input embedding, outside of the modules of this model.

        PEFT's prompt tuning looks under this name first, and otherwise in the first backbone, which is the vision encoder.
        """
        return nn.ModuleDict({"word_embeddings": self.get_input_embeddings()})

    @property
    def trained_token_ids(self) -> list[int]:
        """Return the tokens whose embeddings are trained with frozen backbones: the special ones that are not ordinary text."""
        token_ids = {self.config.image_token_id, self.config.end_of_chunk_token_id}
        return sorted(token_ids - set(self.config.image_token_ids or ()))

    @property
    def trained_head(self) -> nn.Module | None:
        """Return the head of which rows are trained: none if it is not used, unless it is the input embedding too."""
        return self.get_output_embeddings() if self.uses_lm_head or self.config.tie_word_embeddings else None

    @property
    def head_token_rows(self) -> TokenRows | None:
        """Return the trained rows of the output embedding: those of the input embedding where the two are tied."""
        return self.input_token_rows if self.output_token_rows is None else self.output_token_rows

    def _add_token_rows(self, trains_input: bool) -> None:
        embedding, head = self.get_input_embeddings(), self.trained_head
        self.input_token_rows = TokenRows(embedding.weight, self.trained_token_ids)
        self.input_token_rows.trains_input = trains_input
        self.input_token_rows.hook(embedding, train_input_rows)
        if head is not None and head.weight is not embedding.weight:
            self.output_token_rows = TokenRows(head.weight, self.trained_token_ids)
        if head is not None:
            self.head_token_rows.hook(head, train_output_rows)
        if head is None or self.output_token_rows is not None:
            self.input_token_rows.requires_grad_(trains_input)

    def _remove_token_rows(self) -> None:
        for rows in (self.input_token_rows, self.output_token_rows):
            if rows is not None:
                rows.unhook()
        self.input_token_rows = self.output_token_rows = None

    def resize_token_embeddings(self, new_num_tokens: int | None = None, *args, **kwargs) -> nn.Module:
        """
        Resize the embeddings of the language model as `PreTrainedModel.resize_token_embeddings` does.

        Raises:
            ValueError: the rows of `<image>` or `<|endofchunk|>` would be cut off.
        """
        num_rows = 1 + max(self.config.image_token_id, self.config.end_of_chunk_token_id)
        if new_num_tokens is not None and new_num_tokens < num_rows:
            raise ValueError(
                f"{new_num_tokens} rows would cut off the embeddings of `<image>` ({self.config.image_token_id}) or "
                f"`<|endofchunk|>` ({self.config.end_of_chunk_token_id}). Keep at least {num_rows}."
            )
        token_rows = self.input_token_rows
        self._remove_token_rows()
        embeddings = super().resize_token_embeddings(new_num_tokens, *args, **kwargs)
        if token_rows is not None:
            self._add_token_rows(token_rows.trains_input)
        return embeddings

    def refresh_token_rows(self) -> None:
        """Make the trained rows views of their matrices again, after the model was moved, cast or copied."""
        if self.input_token_rows is not None:
            self.input_token_rows.refresh(self.get_input_embeddings().weight)
        if self.output_token_rows is not None:
            self.output_token_rows.refresh(self.get_output_embeddings().weight)

    def detach_token_rows(self) -> None:
        """Give the trained rows of frozen embeddings their own memory, before the matrices are sharded: see [`TokenRows`]."""
        self.refresh_token_rows()
        for rows in (self.input_token_rows, self.output_token_rows):
            if rows is not None:
                rows.detach()

    @torch.no_grad()
    def merge_token_rows(self, state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """
        Write detached token rows of a full state dict into its matrices.

        Args:
            state_dict (`dict[str, torch.Tensor]`): Its matrices are changed in place, unless they are sharded.

        Returns:
            The state dict without the rows. A state dict that has none is returned as it is.
        """
        merged = dict(state_dict)
        names = {module: name for name, module in self.named_modules()}
        head_rows = "input_token_rows" if self.output_token_rows is None else "output_token_rows"
        for module, rows_name in ((self.get_input_embeddings(), "input_token_rows"), (self.trained_head, head_rows)):
            if module is None:
                continue
            rows, key = getattr(self, rows_name), f"{names[module]}.weight"
            for token_id in [] if rows is None else rows.token_ids:
                row = state_dict.get(f"{rows_name}.token_{token_id}")
                merged.pop(f"{rows_name}.token_{token_id}", None)
                if row is not None and key in merged:
                    merged[key] = full_tensor(merged[key])
                    merged[key][token_id] = full_tensor(row)
        return merged
