# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
The loss at supervised positions, in chunks.

The head of a language model is a large part of the cost of training, and the logits of a whole batch a large part of its
memory. Here logits exist at supervised positions only, [`LOSS_CHUNK_SIZE`] of them at a time. A graph of `torch.compile`
has static shapes, so it cannot select positions: it computes all of them, in [`NUM_COMPILED_CHUNKS`] chunks.

Shapes: `B` batch, `T` text length, `D` text width, `V` vocabulary, `M` supervised tokens of the batch.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from transformers import PreTrainedModel
from transformers.loss.loss_utils import ForCausalLMLoss
from transformers.utils import ModelOutput

from .checks_flamingo import check_labels, check_supervision, check_tensors
from .host_inputs_flamingo import HostInputs
from .image_features_flamingo import FlamingoImageFeatures
from .outputs_flamingo import FlamingoInputs


# Number of tokens whose logits are in memory at once. Fewer save little memory next to the activations, and do fewer
# operations for each weight of the head that is read.
LOSS_CHUNK_SIZE = 256

# Under `torch.compile` the loop over the chunks is unrolled, so their number is a part of the graph. It is fixed, because with a
# fixed size each length of the text would need a graph of its own.
NUM_COMPILED_CHUNKS = 8


class StubDecoder:
    """
    Stub decoder that returns precomputed outputs and delegates all other attributes to the real decoder.

    Args:
        decoder (`nn.Module`): The real decoder.
        outputs (`ModelOutput`): What a call returns.
    """

    def __init__(self, decoder: nn.Module, outputs: ModelOutput):
        self._decoder = decoder
        self._outputs = outputs

    def __getattr__(self, name: str) -> Any:
        return getattr(self._decoder, name)

    def __call__(self, *args, **kwargs) -> ModelOutput:
        """Return the outputs."""
        return self._outputs


class ModuleWithReplacement:
    """
    Stand-in for a module that has another object in place of one of its children.

    Methods of the module's class run on the stand-in, and all other attributes are the module's own. The module does not
    change, so threads may use it meanwhile. It is not a copy, because `torch.compile` cannot trace one.

    Args:
        module (`nn.Module`): The module.
        name (`str`): Name of the child.
        replacement: What is found by this name.
    """

    def __init__(self, module: nn.Module, name: str, replacement: Any):
        self._module = module
        self._name = name
        self._replacement = replacement

    def __getattr__(self, name: str) -> Any:
        if name == self._name:
            return self._replacement
        value = getattr(self._module, name)
        is_own = inspect.ismethod(value) and value.__self__ is self._module
        return value.__func__.__get__(self) if is_own else value


class LanguageModelHead:
    """
    The head of a causal language model: from the last hidden states of its decoder to logits.

    Heads differ between model families (bias, scaling, soft-capping), so instead of reimplementing them we call the
    model's own `forward`, on a stand-in whose decoder is a [`StubDecoder`].

    Args:
        language_model (`PreTrainedModel`): The causal language model.
        decoder_name (`str`): Name of its decoder among its modules.
    """

    def __init__(self, language_model: PreTrainedModel, decoder_name: str):
        self.language_model = language_model
        self.decoder_name = decoder_name

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield the parameters of the head by their names in the language model, one that is tied to the decoder too."""
        for name, parameter in self.language_model.named_parameters(remove_duplicate=False):
            if not name.startswith(f"{self.decoder_name}."):
                yield name, parameter

    def __call__(self, hidden_states: torch.Tensor, outputs: ModelOutput) -> torch.Tensor:
        """
        Compute logits.

        Args:
            hidden_states (`torch.Tensor` of shape `(M, D)`): Some of the decoder's last hidden states.
            outputs (`ModelOutput`): All outputs of the decoder, in which they replace the last hidden states.

        Returns:
            `torch.Tensor` of shape `(M, V)`.
        """
        # The outputs may have more than their class says: what the tokens looked at
        names = {field.name for field in dataclasses.fields(outputs)}
        own = {name: value for name, value in outputs.items() if name in names}
        replaced = type(outputs)(**{**own, "last_hidden_state": hidden_states[None]})
        *path, name = self.decoder_name.split(".")
        modules = [self.language_model]
        for part in path:
            modules.append(getattr(modules[-1], part))
        stand_in = StubDecoder(getattr(modules[-1], name), replaced)
        for module, child in zip(reversed(modules), reversed([*path, name]), strict=True):
            stand_in = ModuleWithReplacement(module, child, stand_in)
        # It is not called as a module: hooks on the whole language model are not meant for its head.
        forward = type(self.language_model).forward
        return forward(stand_in, inputs_embeds=hidden_states[None], return_dict=True).logits.squeeze(0)


def extract_lm_head(language_model: nn.Module) -> LanguageModelHead | None:
    """Return the head of a language model, or `None` where the head cannot be run by itself."""
    # Wrapped by PEFT or `torch.compile`
    if not isinstance(language_model, PreTrainedModel):
        return None
    # Sharded by FSDP2 or by DeepSpeed's ZeRO-3, which gather weights for a call of the whole model
    if any(
        hasattr(parameter, "full_tensor") or hasattr(parameter, "ds_id") for parameter in language_model.parameters()
    ):
        return None
    decoder = language_model.get_decoder()
    if not isinstance(decoder, PreTrainedModel):  # some other module of that name
        decoder = language_model.base_model
    names = [name for name, module in language_model.named_modules() if module is decoder]
    return LanguageModelHead(language_model, names[0]) if names not in ([], [""]) else None


class ChunkedLoss(torch.autograd.Function):
    """
    A loss that is a sum over tokens, computed for a few tokens at a time.

    The logits of a chunk are freed before those of the next chunk are made: the gradient of each chunk is computed right
    away, and only the gradient of the hidden states is kept. It is the gradient of the sum. Backward scales it by the
    incoming gradient of a mean or a gradient scaler, so it does not vanish in half precision.

    `apply(loss, chunk_size, needs_gradient, hidden_states, targets, *parameters)` takes `loss(hidden_states, targets)`, a
    scalar, hidden states `(M, D)`, targets `(M,)`, and the parameters that `loss` uses and that require a gradient. Without
    `needs_gradient` it computes the sum alone (autograd asks for a gradient even where gradients are switched off).
    """

    @staticmethod
    def forward(ctx, loss, chunk_size, needs_gradient, hidden_states, targets, *parameters):
        """Sum the loss over all chunks, and keep the gradients of the sum."""
        total = hidden_states.new_zeros((), dtype=torch.float32)
        gradients = []
        sums = [torch.zeros_like(parameter, dtype=torch.float32) for parameter in parameters if needs_gradient]
        for chunk, chunk_targets in zip(hidden_states.split(chunk_size), targets.split(chunk_size), strict=True):
            if not needs_gradient:
                total += loss(chunk, chunk_targets)
                continue
            with torch.enable_grad():
                chunk = chunk.detach().requires_grad_()
                # As a view: the flop counter has hooks on inputs of modules, which autograd.grad refuses on a leaf.
                chunk_loss = loss(chunk.view_as(chunk), chunk_targets)
            total += chunk_loss.detach()
            states_grad, *param_grads = torch.autograd.grad(chunk_loss, [chunk, *parameters], allow_unused=True)
            gradients.append(states_grad)
            for gradient_sum, gradient in zip(sums, param_grads, strict=True):
                if gradient is not None:
                    gradient_sum += gradient
        if needs_gradient:
            ctx.save_for_backward(torch.cat(gradients), *sums)
            ctx.dtypes = [tensor.dtype for tensor in (hidden_states, *parameters)]
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx, scale):
        """Scale the kept gradients."""
        # In float32: a mean's scale is rounded in half precision, and that of a gradient scaler may not fit.
        # Without a target the mean is 0 / 0 and its scale not finite, but nothing depends on the parameters.
        scale = scale if len(ctx.saved_tensors[0]) > 0 else torch.zeros_like(scale)
        states_grad, *param_grads = (
            (gradient.float() * scale).to(dtype) for gradient, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        )
        return None, None, None, states_grad, None, *param_grads


class _CallWithParameters(nn.Module):
    """A function that uses the parameters of `model`, as a module for which `torch.func.functional_call` replaces them."""

    def __init__(self, model: nn.Module, function: Callable):
        super().__init__()
        self.model = model
        self.function = function

    def forward(self, *args: torch.Tensor) -> torch.Tensor:
        return self.function(*args)


class WithGradients(torch.autograd.Function):
    """
    Identity of a scalar whose gradients are known: `apply(scalar, gradients, *tensors)`, one gradient for each tensor.

    Backward scales them in float32, as [`ChunkedLoss`] does.
    """

    @staticmethod
    def forward(
        ctx, scalar: torch.Tensor, gradients: tuple[torch.Tensor, ...], *tensors: torch.Tensor
    ) -> torch.Tensor:
        """Copy the scalar."""
        ctx.save_for_backward(*gradients)
        ctx.dtypes = [tensor.dtype for tensor in tensors]
        return scalar.clone()

    @staticmethod
    def backward(ctx, scale: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Scale the gradients."""
        scaled = ((gradient.float() * scale).to(d) for gradient, d in zip(ctx.saved_tensors, ctx.dtypes, strict=True))
        return None, None, *scaled


def compiled_chunked_loss(
    model: nn.Module,
    sum_loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    hidden_states: torch.Tensor,
    targets: torch.Tensor,
    parameters: dict[str, nn.Parameter],
    num_targets: torch.Tensor | int | None,
    ignore_index: int,
) -> torch.Tensor:
    """
    Compute the mean loss of targets, in chunks of all positions: [`chunked_loss`] for `torch.compile`.

    It traces `torch.func`, but not `torch.autograd.grad`. The gradients are a part of the forward graph, so neither logits nor what
    they are made of are kept for backward.

    Args:
        model (`nn.Module`): Has the parameters.
        sum_loss (`Callable`): The summed loss of hidden states `(m, D)` and targets `(m,)`, which may be `ignore_index`.
        hidden_states (`torch.Tensor` of shape `(B * T, D)`): The hidden states of all positions.
        targets (`torch.Tensor` of shape `(B * T,)`): The ids to predict, or `ignore_index`.
        parameters (`dict[str, nn.Parameter]`): The parameters that `sum_loss` uses, by their names in `model`.
        num_targets (`torch.Tensor` or `int`, *optional*): Divisor of the sum; by default the number of targets.
        ignore_index (`int`): What is not a target.

    Returns:
        A scalar.
    """
    parameters = {f"model.{name}": parameter for name, parameter in parameters.items() if parameter.requires_grad}
    call = _CallWithParameters(model, sum_loss)

    def loss(states: torch.Tensor, targets: torch.Tensor, values: tuple[torch.Tensor, ...]) -> torch.Tensor:
        replaced = dict(zip(parameters, values, strict=True))
        # Names of tied parameters are all given
        return torch.func.functional_call(call, replaced, (states, targets), tie_weights=False)

    needs_gradient = torch.is_grad_enabled() and (hidden_states.requires_grad or len(parameters) > 0)
    count = (targets != ignore_index).sum()
    missing = -len(targets) % NUM_COMPILED_CHUNKS
    hidden_states = nn.functional.pad(hidden_states, (0, 0, 0, missing)).unflatten(0, (NUM_COMPILED_CHUNKS, -1))
    targets = nn.functional.pad(targets, (0, missing), value=ignore_index).unflatten(0, (NUM_COMPILED_CHUNKS, -1))
    total = hidden_states.new_zeros((), dtype=torch.float32)
    gradients = []
    sums = [torch.zeros_like(value, dtype=torch.float32) for value in parameters.values()]
    values = tuple(parameters.values())
    differentiate = torch.func.grad_and_value(loss, argnums=(0, 2))
    for chunk, chunk_targets in zip(hidden_states.unbind(), targets.unbind(), strict=True):
        if not needs_gradient:
            total = total + loss(chunk, chunk_targets, values)
            continue
        with torch.no_grad():
            (states_grad, param_grads), chunk_loss = differentiate(chunk, chunk_targets, values)
            total = total + chunk_loss
            sums = [total_grad + gradient for total_grad, gradient in zip(sums, param_grads, strict=True)]
        gradients.append(states_grad)
    if needs_gradient:
        total = WithGradients.apply(total, (torch.stack(gradients), *sums), hidden_states, *values)
    # Without a target the mean is NaN and its scale not finite, but the gradient 0
    total = torch.where(count > 0, total, total.detach())
    return total / (count if num_targets is None else num_targets)


def chunked_loss(
    sum_loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    hidden_states: torch.Tensor,
    targets: torch.Tensor,
    parameters: Iterable[nn.Parameter],
    num_targets: torch.Tensor | int | None,
) -> torch.Tensor:
    """
    Compute the mean loss of targets, in chunks.

    Args:
        sum_loss (`Callable`): The summed loss of hidden states `(m, D)` and targets `(m,)`.
        hidden_states (`torch.Tensor` of shape `(M, D)`): The hidden states at supervised positions.
        targets (`torch.Tensor` of shape `(M,)`): The ids to predict.
        parameters (`Iterable[nn.Parameter]`): The parameters that `sum_loss` uses.
        num_targets (`torch.Tensor` or `int`, *optional*):
            Divisor of the sum; by default `M`. With 0 the loss is NaN, as the stock one, and its gradient 0.

    Returns:
        A scalar.
    """
    # Once each, although two names may be tied
    parameters = list({id(parameter): parameter for parameter in parameters if parameter.requires_grad}.values())
    needs_gradient = torch.is_grad_enabled() and (hidden_states.requires_grad or len(parameters) > 0)
    total = ChunkedLoss.apply(sum_loss, LOSS_CHUNK_SIZE, needs_gradient, hidden_states, targets, *parameters)
    return total / (torch.tensor(len(targets)) if num_targets is None else num_targets)


class WithZeroGradients(torch.autograd.Function):
    """
    Identity that gives a gradient of 0 to parameters that its input does not depend on: `apply(tensor, *parameters)`.

    A batch without images leaves resampler and cross-attention unused, and processes that train together
    (`DistributedDataParallel`) would wait for their gradients forever where another process has images. It is not
    `tensor + 0 * sum(parameters)`, which is NaN when a parameter or the sum is not finite.
    """

    @staticmethod
    def forward(ctx, tensor: torch.Tensor, *parameters: nn.Parameter) -> torch.Tensor:
        """Copy the tensor."""
        ctx.save_for_backward(*parameters)
        return tensor.clone()  # a view could not be scaled in place, as Trainer does

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Pass the gradient on, with zeros for the parameters."""
        return gradient, *map(torch.zeros_like, ctx.saved_tensors)


class FlamingoLossMixin:
    """The loss of a [`FlamingoModel`]."""

    def _forward_with_loss(
        self,
        inputs: FlamingoInputs,
        labels: torch.LongTensor | None,
        logits_to_keep: int | torch.Tensor,
        skip_logits: bool | None,
        **kwargs,
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, ModelOutput, FlamingoImageFeatures | None]:
        """
        Run the language model on text and images, and compute the loss. Arguments are those of [`FlamingoModel.forward`].

        Returns:
            Loss, logits, the outputs of the language model or of its body, and the latents of the images of this call.
        """
        keeps_all = isinstance(logits_to_keep, int) and logits_to_keep == 0
        self._check_skip_logits(skip_logits, labels, logits_to_keep)
        if skip_logits is None:
            skip_logits = self.training and labels is not None and keeps_all
        loss = logits = None
        check_tensors(labels=labels)
        host = HostInputs.of(inputs, labels, kwargs.get("shift_labels"))
        if labels is not None:
            self._check_labels(host, inputs, keeps_all, **kwargs)
        if skip_logits:
            loss, outputs, image_features = self._forward_supervised(inputs, host, labels, **kwargs)
        else:
            outputs, image_features = self._forward_backbone(
                self.language_model, inputs, host, logits_to_keep=logits_to_keep, **kwargs
            )
            logits = outputs.logits
            if labels is not None:
                loss = self.loss_function(logits, labels, vocab_size=self.config.text_config.vocab_size, **kwargs)
        if self.training and image_features is None and torch.is_grad_enabled():
            loss, logits = self._with_zero_gradients(loss, logits)
        return loss, logits, outputs, image_features

    @staticmethod
    def _check_skip_logits(
        skip_logits: bool | None, labels: torch.LongTensor | None, logits_to_keep: int | torch.Tensor
    ) -> None:
        if skip_logits and labels is None:
            raise ValueError(
                "`skip_logits=True` returns the loss only, but there are no `labels` to compute it from. Pass `labels`, or "
                "omit `skip_logits`."
            )
        if skip_logits and not (isinstance(logits_to_keep, int) and logits_to_keep == 0):
            raise ValueError(
                f"`skip_logits=True` and `logits_to_keep={logits_to_keep}` contradict each other. Omit one of them."
            )

    def _check_labels(
        self,
        host: HostInputs,
        inputs: FlamingoInputs,
        keeps_all: bool,
        ignore_index: int = -100,
        num_items_in_batch: torch.Tensor | int | None = None,
        **_: Any,
    ) -> None:
        """Check shape and ids of the labels, and that they supervise a token."""
        labels, shift_labels = host.labels, host.shift_labels
        # With fewer logits the labels are those of the kept ones.
        text = inputs.inputs_embeds if inputs.input_ids is None else inputs.input_ids
        shape = text.shape[:2] if keeps_all and text is not None else labels.shape
        for name, given in (("labels", labels), ("shift_labels", shift_labels)):
            if given is not None:
                check_labels(given, shape, self.config.text_config.vocab_size, ignore_index, name)
        targets = labels[..., 1:] if shift_labels is None else shift_labels
        # In a step of a generation the comparison would wait for the device. A number of items from outside is for several
        # batches, of which one may have none.
        if num_items_in_batch is None and targets.device.type == "cpu" and not torch.compiler.is_compiling():
            check_supervision(bool((targets != ignore_index).any()), ignore_index)

    def _forward_supervised(
        self,
        inputs: FlamingoInputs,
        host: HostInputs,
        labels: torch.LongTensor,
        shift_labels: torch.LongTensor | None = None,
        ignore_index: int = -100,
        **kwargs,
    ) -> tuple[torch.Tensor, ModelOutput, FlamingoImageFeatures | None]:
        """Run the language model, and compute the loss from logits at supervised positions only."""

        def shifted(labels: torch.LongTensor, given: torch.LongTensor | None) -> torch.LongTensor:
            return nn.functional.pad(labels[..., 1:], (0, 1), value=ignore_index) if given is None else given

        shift_labels = shifted(labels, shift_labels)
        # A custom loss need not be a sum over tokens, so it gets all supervised logits at once.
        head = extract_lm_head(self.language_model) if self.loss_function is ForCausalLMLoss else None
        if torch.compiler.is_compiling():
            supervised = None  # a graph of static shapes cannot select positions
            logits_to_keep = 0
        else:
            is_supervised = shifted(host.labels, host.shift_labels) != ignore_index  # (B, T)
            supervised = is_supervised.flatten().nonzero().squeeze(-1).to(labels.device)  # (M,)
            logits_to_keep = is_supervised.to(labels.device)
        if head is None:
            outputs, image_features = self._forward_backbone(
                self.language_model, inputs, host, logits_to_keep=logits_to_keep, **kwargs
            )
        else:
            outputs, image_features = self._forward_backbone(self.language_model.base_model, inputs, host, **kwargs)
        loss = self._supervised_loss(outputs, head, supervised, shift_labels, ignore_index=ignore_index, **kwargs)
        return loss, outputs, image_features

    def _supervised_loss(
        self,
        outputs: ModelOutput,
        head: LanguageModelHead | None,
        supervised: torch.LongTensor | None,
        shift_labels: torch.LongTensor,
        num_items_in_batch: torch.Tensor | int | None = None,
        ignore_index: int = -100,
        **kwargs,
    ) -> torch.Tensor:
        """
        Compute the loss from logits at supervised positions only: the head is expensive, and full-batch logits dominate
        memory.

        Args:
            outputs (`ModelOutput`): Of the language model's body, or, without `head`, of the whole language model.
            head ([`LanguageModelHead`], *optional*): Makes logits from hidden states, in chunks.
            supervised (`torch.LongTensor` of shape `(M,)`, *optional*):
                Where `shift_labels` is not `ignore_index`, as `b * T + t`. `None` in a compiled graph: all positions.
            shift_labels (`torch.LongTensor` of shape `(B, T)`): The ids to predict.
            num_items_in_batch (`torch.Tensor` or `int`, *optional*): Divisor of the sum; by default `M`.
            ignore_index (`int`, *optional*, defaults to -100), kwargs: Arguments of the loss function.
        """
        targets = shift_labels.flatten()
        targets = targets if supervised is None else targets[supervised]  # (M,)
        if num_items_in_batch is None and supervised is not None:
            check_supervision(len(targets) > 0, ignore_index)
        compute_loss = functools.partial(
            self.loss_function,
            labels=None,
            vocab_size=self.config.text_config.vocab_size,
            ignore_index=ignore_index,
            **kwargs,
        )
        if head is None:
            logits = outputs.logits if supervised is not None else outputs.logits.flatten(0, 1)
            return compute_loss(logits, shift_labels=targets, num_items_in_batch=num_items_in_batch)

        def sum_loss(hidden_states: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            return compute_loss(head(hidden_states, outputs), shift_labels=targets, num_items_in_batch=1)

        hidden_states = outputs.last_hidden_state.flatten(0, 1)  # (B, T, D) -> (B * T, D)
        targets = targets.to(hidden_states.device)
        parameters = {f"language_model.{name}": parameter for name, parameter in head.named_parameters()}
        rows = self.head_token_rows
        if rows is not None:
            prefix = "input_token_rows" if rows is self.input_token_rows else "output_token_rows"
            parameters |= {f"{prefix}.{name}": parameter for name, parameter in rows.named_parameters()}
        if supervised is None:
            return compiled_chunked_loss(
                self, sum_loss, hidden_states, targets, parameters, num_items_in_batch, ignore_index
            )
        hidden_states = hidden_states[supervised.to(hidden_states.device)]
        return chunked_loss(sum_loss, hidden_states, targets, parameters.values(), num_items_in_batch)

    def _with_zero_gradients(
        self, loss: torch.Tensor | None, logits: torch.Tensor | None
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Give parameters that only images use a gradient of 0: see [`WithZeroGradients`]."""
        unused = [*self.resampler.parameters(), *([] if self.vision_model is None else self.vision_model.parameters())]
        for name, parameter in self.gated_cross_attention.named_parameters():
            # The feed-forward networks are used: in reentrant checkpointing they would have two gradients
            if ".mlp." not in name and not name.endswith("ffn_gate"):
                unused.append(parameter)
        # Sharded parameters are not part of a graph outside their modules
        unused = [p for p in unused if p.requires_grad and type(p.data) is torch.Tensor]
        if not unused:
            return loss, logits
        if loss is None:
            return None, WithZeroGradients.apply(logits, *unused)
        return WithZeroGradients.apply(loss, *unused), logits
